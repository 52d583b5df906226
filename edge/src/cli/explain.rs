//! `edge explain URL`: why a running edge answers a request as it does, or what it would make of a given response.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::outcome::told;
use super::{admin::ask, settings_file::AskedEdge};
use crate::{
    clock::Clock,
    explain::{Explanation, FreshnessReport, NotStoredReport, Question, StoredAs, StoredParts, Window, dry},
};

/// What to explain, and of which edge.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// Absolute URL of the request
    url: String,
    #[command(flatten)]
    edge: AskedEdge,
    /// A header line of the request, as curl takes it: 'Name: value'
    #[arg(short = 'H', long = "header", value_name = "LINE")]
    headers: Vec<String>,
    /// Method of the request
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// Ask no edge: say what would become of the response whose head is in this file (as `curl -i` prints it)
    #[arg(long, value_name = "FILE")]
    response: Option<PathBuf>,
}

/// Prints the explanation.
pub fn run(arguments: ExplainArguments) -> ExitCode {
    told(explain(arguments).map(|explanation| text(&explanation).trim_end().to_owned()))
}

fn explain(arguments: ExplainArguments) -> anyhow::Result<Explanation> {
    let ExplainArguments { url, edge, headers, method, response } = arguments;
    let headers = headers.iter().map(|line| field(line)).collect::<anyhow::Result<_>>()?;
    let question = Question { url, method, headers };
    let (config, settings) = edge.settings()?;
    let Some(file) = response else {
        return ask(&config, &settings, "/explain", &question);
    };
    let head = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let (status, fields) =
        parse(&head).with_context(|| format!("{} is no response's head", file.display()))?;
    dry(&settings, &question, status, &fields, Clock::system().wall()).map_err(anyhow::Error::msg)
}

fn field(line: &str) -> anyhow::Result<(String, String)> {
    let (name, value) =
        line.split_once(':').with_context(|| format!("{line:?}: write it as 'Name: value'"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A status line and header lines, up to the first empty line.
fn parse(head: &str) -> anyhow::Result<(StatusCode, HeaderMap)> {
    let mut lines = head.lines().map(str::trim_end).take_while(|line| !line.is_empty());
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/")?.split(' ').nth(1));
    let status: StatusCode =
        status.context("it does not begin with a status line such as HTTP/1.1 200 OK")?.parse()?;
    let fields = lines.map(|line| {
        let (name, value) = field(line)?;
        Ok((name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?))
    });
    let fields: Vec<(HeaderName, HeaderValue)> = fields.collect::<anyhow::Result<_>>()?;
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, value);
    }
    Ok((status, headers))
}

/// The explanation as a table: its subject, the decision and why, what is stored, what to do.
fn text(told: &Explanation) -> String {
    let mut table = Rows::default();
    // A request that no route takes has neither.
    for (name, value) in [("key", &told.key), ("route", &told.route)] {
        if !value.is_empty() {
            table.row(name, value);
        }
    }
    let reason = told.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    table.row("verdict", &format!("{}{reason}", told.verdict));
    table.rows("", told.meaning.iter());
    table.rows("decided by", told.lines.iter());
    table.rows("tells", told.cache_status.iter().map(|status| format!("cache-status: {status}")));
    table.rows("variant", told.variant.iter());
    if let Some(stored) = &told.stored {
        stored_as(&mut table, stored);
    }
    table.rows("stored for", told.variants.iter());
    if let Some(freshness) = &told.freshness {
        arithmetic(&mut table, freshness);
    }
    table.rows("asks", told.asks.iter());
    if let Some(refused) = &told.refused {
        let NotStoredReport { ago, status, reason, .. } = refused;
        table.row("last answer", &format!("{status}, {ago} s ago, was not stored ({reason})"));
        table.row("", &refused.meaning);
        table.rows("", refused.lines.iter());
    }
    if !told.tags.is_empty() {
        table.row("tags", &told.tags.join(" "));
    }
    table.rows("note", told.notes.iter());
    table.rows("remedy", told.remedy.iter());
    table.0
}

fn stored_as(table: &mut Rows, stored: &StoredAs) {
    let StoredAs { by, url, status, lines, parts } = stored;
    table.row(
        "stored",
        &match by.as_str() {
            "language" => format!("{status}, in the language that the client likes best"),
            "part" => format!("{status}, in part"),
            "query" => format!("{status}, under another query that means the same"),
            _ => status.to_string(),
        },
    );
    table.rows("", url.iter());
    table.rows("", lines.iter());
    let Some(StoredParts { held, length, wanted, missing }) = parts else { return };
    let length = length.map_or_else(|| "an unknown number".to_owned(), |length| length.to_string());
    table.row("octets", &format!("{} of {length} are stored", held.join(", ")));
    let wanted = wanted.join(", ");
    match missing {
        Some(missing) => table.row("", &format!("{wanted} are wanted; {missing} is what has to be fetched")),
        None if wanted.is_empty() => {}
        None => table.row("", &format!("{wanted} are wanted and all there")),
    }
}

fn arithmetic(table: &mut Rows, freshness: &FreshnessReport) {
    let &FreshnessReport { age_at_arrival, age, lifetime, left, .. } = freshness;
    let from = freshness.targeted.as_ref().map(|field| format!(" of {field}")).unwrap_or_default();
    let limit = if freshness.at_max_ttl { "; the route's max_ttl allows no more" } else { "" };
    table.row("lifetime", &format!("{lifetime} s by {}{from}{limit}", freshness.lifetime_from));
    let here = age.saturating_sub(age_at_arrival);
    table.row("age", &format!("{age} s = {age_at_arrival} s when it came + {here} s here"));
    let how = if left > 0 { "fresh for" } else { "stale for" };
    table.row("left", &format!("{how} {} s", left.abs()));
    if let Some(never) = &freshness.never_stale {
        table.row("stale", &format!("never served: {never}"));
        return;
    }
    let windows = [
        ("while it is refreshed", &freshness.stale_while_revalidate),
        ("in place of an error", &freshness.stale_if_error),
        ("when no answer comes", &freshness.stale_on_disconnect),
    ];
    let told = |(name, window): (&str, &Option<Window>)| {
        let Window { seconds, of } = window.as_ref()?;
        Some(format!("served for {seconds} s past that {name}, by the {of}'s word"))
    };
    table.rows("stale", windows.into_iter().filter_map(told));
}

/// Named rows; a name shared by several rows is printed once.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn row(&mut self, name: &str, value: &str) {
        self.0.push_str(&format!("{name:<11} {value}\n"));
    }

    fn rows(&mut self, name: &str, values: impl IntoIterator<Item = impl AsRef<str>>) {
        let names = std::iter::once(name).chain(std::iter::repeat(""));
        for (name, value) in names.zip(values) {
            self.row(name, value.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_curl_prints_it() {
        let (status, fields) =
            parse("HTTP/2 200 \r\ncache-control: max-age=60\r\nvary: a\r\nvary: b\r\n\r\nbody: no\r\n")
                .unwrap();
        assert_eq!((status, fields.len()), (StatusCode::OK, 3));
        assert!(parse("cache-control: max-age=60").is_err());
    }
}
