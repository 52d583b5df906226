//! What templates can say beside text: figures as people write them, and pictures in their sizes.

use minijinja::{Environment, Error, HtmlEscape, Output, State, Value};

use crate::{NARROWER, Pictures, WIDEST};

/// Gives the templates their filters.
pub(crate) fn teach(environment: &mut Environment<'static>, pictures: Pictures) {
    environment.add_filter("price", price);
    environment.add_filter("decimal", decimal);
    environment.add_filter("number", number);
    environment.add_filter("paragraphs", paragraphs);
    environment.add_filter("opening", opening);
    environment.add_filter("srcset", move |address: Option<&str>| {
        let address = address.unwrap_or_default();
        pictures.0.get(address).cloned().or_else(|| srcset_of_put_in(address)).unwrap_or_default()
    });
}

/// Pictures that were put in say their width in their names.
fn srcset_of_put_in(address: &str) -> Option<String> {
    let stem = address.strip_suffix(&format!(".{WIDEST}.webp"))?;
    let narrower = NARROWER.map(|width| format!("{stem}.{width}.webp {width}w, ")).concat();
    Some(format!("{narrower}{address} {WIDEST}w"))
}

/// Writes a value so that it stays text in HTML and in quoted attributes. Not as the engine does by itself, which writes `/` as a
/// reference too: right, but no address would be readable in a page's source.
pub(crate) fn escape(output: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let Some(text) = value.as_str().filter(|_| !value.is_safe()) else {
        return minijinja::escape_formatter(output, state, value);
    };
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
        write!(output, "{}{}", &rest[..at], HtmlEscape(&rest[at..=at]))?;
        rest = &rest[at + 1..];
    }
    output.write_str(rest)?;
    Ok(())
}

/// `€1,234.50`, as browsers write it in British English.
fn price(cents: i64, currency: &str) -> String {
    let sign = match currency {
        "EUR" => "€",
        "GBP" => "£",
        "USD" => "US$",
        other => return format!("{other}\u{a0}{}.{:02}", number(cents / 100), cents % 100),
    };
    format!("{sign}{}.{:02}", number(cents / 100), cents % 100)
}

/// `1234.50`, for machines.
fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// `1,234,567`. What is counted here is never negative.
fn number(count: i64) -> String {
    let digits = count.to_string();
    let mut written = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

fn paragraphs(text: &str) -> Vec<String> {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// As much of a text as a search engine shows, in whole words.
fn opening(text: &str) -> String {
    const LONGEST: usize = 155;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= LONGEST {
        return text;
    }
    let cut: String = text.chars().take(LONGEST).collect();
    let words = cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words);
    format!("{words}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_browsers_write_them() {
        assert_eq!(price(123_456_789, "EUR"), "€1,234,567.89");
        assert_eq!(price(5, "GBP"), "£0.05");
        assert_eq!(price(100_000, "CHF"), "CHF\u{a0}1,000.00");
        assert_eq!(decimal(123_456), "1234.56");
        assert_eq!([0, 999, 1_000, 12_345].map(number), ["0", "999", "1,000", "12,345"]);
    }

    #[test]
    fn a_picture_that_was_put_in_is_offered_in_its_sizes() {
        let set = srcset_of_put_in("/pictures/u-00.640.webp").unwrap();
        assert_eq!(
            set,
            "/pictures/u-00.160.webp 160w, /pictures/u-00.320.webp 320w, /pictures/u-00.640.webp 640w"
        );
        assert_eq!(srcset_of_put_in("/assets/kettle-1-00.webp"), None);
    }

    #[test]
    fn an_opening_ends_with_a_word() {
        assert_eq!(opening("Short\nenough."), "Short enough.");
        let long = opening(&"kettle ".repeat(40));
        assert!(long.ends_with("kettle…") && long.chars().count() <= 156, "{long}");
    }

    #[test]
    fn text_stays_text_and_addresses_stay_readable() {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
        environment.set_formatter(escape);
        let written =
            environment.render_str("<a href=\"{{ it }}\">", minijinja::context! { it => "/a?\"><b>&'é" });
        assert_eq!(written.unwrap(), "<a href=\"/a?&quot;&gt;&lt;b&gt;&amp;&#x27;é\">");
    }
}
