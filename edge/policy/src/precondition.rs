//! A client's conditions on a representation that is about to be sent (RFC 9110 §13).

use crate::{date, scan};
use http::header::{HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderName, HeaderValue, Method};
use std::cmp::Ordering;
use std::time::SystemTime;

/// What a request's conditions lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions in the order of RFC 9110 §13.2.2, on a representation that a 200 would carry.
///
/// `etag` is the one of the representation about to be sent, so of its content coding. Conditions are to be
/// evaluated only where the answer without them is a 2xx (§13.2.1).
pub fn precondition(
    method: &Method,
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
) -> Precondition {
    let safe = *method == Method::GET || *method == Method::HEAD;
    if request.contains_key(IF_MATCH) {
        let etag = etag.map(HeaderValue::as_bytes);
        let matches = |tag: &[u8]| tag == b"*" || etag.is_some_and(|etag| strongly_equal(tag, etag));
        if !listed(request, &IF_MATCH).any(matches) {
            return Precondition::Failed;
        }
    } else if compare(request, &IF_UNMODIFIED_SINCE, last_modified) == Some(Ordering::Greater) {
        return Precondition::Failed;
    }
    let unchanged = if request.contains_key(IF_NONE_MATCH) {
        let etag = etag.map(HeaderValue::as_bytes);
        if_none_match(request).any(|tag| tag == b"*" || etag.is_some_and(|etag| weakly_equal(tag, etag)))
    } else {
        let compared = compare(request, &IF_MODIFIED_SINCE, last_modified);
        safe && matches!(compared, Some(Ordering::Less | Ordering::Equal))
    };
    match (unchanged, safe) {
        (false, _) => Precondition::Proceed,
        (true, true) => Precondition::NotModified,
        (true, false) => Precondition::Failed,
    }
}

/// RFC 9110 §8.8.3.2: equal but for `W/`. Tags are compared octet by octet, quotes included.
pub(crate) fn weakly_equal(left: &[u8], right: &[u8]) -> bool {
    opaque(left) == opaque(right)
}

/// RFC 9110 §8.8.3.2: equal, and neither weak.
pub(crate) fn strongly_equal(left: &[u8], right: &[u8]) -> bool {
    left == right && !left.starts_with(b"W/")
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The tags that If-None-Match lists, or `*`; the first [`MOST_LISTED`] of them. Whoever lists more is answered as if the
/// others were not there: with a representation that it may have, which is always right.
pub fn if_none_match(request: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    listed(request, &IF_NONE_MATCH).take(MOST_LISTED)
}

/// More tags than this of one If-None-Match are not compared. Clients hold one form, caches a few.
pub const MOST_LISTED: usize = 256;

fn listed<'r>(request: &'r HeaderMap, field: &HeaderName) -> impl Iterator<Item = &'r [u8]> {
    request.get_all(field).into_iter().flat_map(|line| tags(line.as_bytes()))
}

/// Splits a list of entity tags. Unlike in a quoted-string a backslash escapes nothing in a tag (§8.8.3).
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        while let [b',', after @ ..] = rest {
            rest = after.trim_ascii_start();
        }
        if rest.is_empty() {
            return None;
        }
        let (tag, after) = rest.split_at(tag_end(rest));
        rest = after;
        Some(tag.trim_ascii_end())
    })
}

/// A quote that nothing closes is text. Then no quote is left in what follows: nothing is looked through twice.
fn tag_end(text: &[u8]) -> usize {
    let comma =
        |from: usize| scan::position(&text[from..], |octet| octet == b',').map_or(text.len(), |at| from + at);
    match scan::position(text, |octet| matches!(octet, b',' | b'"')) {
        None => text.len(),
        Some(at) if text[at] == b',' => at,
        Some(open) => match scan::position(&text[open + 1..], |octet| octet == b'"') {
            Some(closing) => comma(open + 1 + closing),
            None => comma(open),
        },
    }
}

/// How Last-Modified compares with the date of a condition, where there are both.
fn compare(request: &HeaderMap, field: &HeaderName, last_modified: Option<SystemTime>) -> Option<Ordering> {
    let modified = last_modified?;
    Some(modified.cmp(&condition_date(request, field, modified)?))
}

/// §13.1.3: a value that is no single date is ignored. A two-digit year is read as near `modified`.
fn condition_date(request: &HeaderMap, field: &HeaderName, modified: SystemTime) -> Option<SystemTime> {
    let mut lines = request.get_all(field).iter();
    let only = lines.next().filter(|_| lines.next().is_none())?;
    date::parse(only.as_bytes(), modified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";
    const EARLIER: &str = "Sun Nov  6 08:49:36 1994";

    fn evaluate(method: &Method, fields: &[(HeaderName, &str)], etag: &str) -> Precondition {
        let request = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let etag = HeaderValue::from_str(etag).unwrap();
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        precondition(method, &request, Some(&etag), Some(modified))
    }

    fn get(fields: &[(HeaderName, &str)]) -> Precondition {
        evaluate(&Method::GET, fields, "\"abc\"")
    }

    /// Each element looked for a quote through all that followed it: 30 KiB were half a thousand million octets.
    #[test]
    fn a_list_of_tags_is_looked_through_once_or_twice() {
        for element in ["a,", "\"a,", "\"\",", "\"a\"", "W/\"a\",", ",", "\"a\"b,\"c "] {
            let list = element.repeat(30 << 10 >> element.len().ilog2());
            let looked = scan::counted(|| {
                get(&[(IF_NONE_MATCH, &list)]);
                get(&[(IF_MATCH, &list)]);
            });
            assert!(looked <= 2 * 2 * list.len() + 8, "{element}: {looked} octets of {}", list.len());
        }
    }

    #[test]
    fn tags_beyond_the_bound_are_not_compared() {
        let list = |others: usize| format!("{}\"abc\"", "\"x\",".repeat(others));
        assert_eq!(get(&[(IF_NONE_MATCH, &list(MOST_LISTED - 1))]), Precondition::NotModified);
        assert_eq!(get(&[(IF_NONE_MATCH, &list(MOST_LISTED))]), Precondition::Proceed);
    }

    #[test]
    fn if_none_match_compares_weakly_and_by_octets() {
        for list in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "\"a,b\" , \"abc\",", "*"] {
            assert_eq!(get(&[(IF_NONE_MATCH, list)]), Precondition::NotModified, "{list}");
        }
        for list in ["abc", "\"ABC\"", "w/\"abc\"", "\"x, \"", ""] {
            assert_eq!(get(&[(IF_NONE_MATCH, list)]), Precondition::Proceed, "{list}");
        }
        assert_eq!(
            evaluate(&Method::GET, &[(IF_NONE_MATCH, "W\\\"a\"")], "W\\\"a\""),
            Precondition::NotModified
        );
        assert_eq!(
            evaluate(&Method::GET, &[(IF_NONE_MATCH, "\"a,b\"")], "\"a,b\""),
            Precondition::NotModified
        );
        assert_eq!(evaluate(&Method::PUT, &[(IF_NONE_MATCH, "*")], "\"a\""), Precondition::Failed);
    }

    #[test]
    fn if_none_match_hides_if_modified_since() {
        let fields = [(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, LATER)];
        assert_eq!(get(&fields), Precondition::Proceed);
        let fields = [(IF_NONE_MATCH, "\"abc\""), (IF_MODIFIED_SINCE, EARLIER)];
        assert_eq!(get(&fields), Precondition::NotModified);
    }

    #[test]
    fn if_modified_since_compares_dates_of_all_forms() {
        assert_eq!(get(&[(IF_MODIFIED_SINCE, MODIFIED)]), Precondition::NotModified);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, LATER)]), Precondition::NotModified);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, EARLIER)]), Precondition::Proceed);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, "yesterday")]), Precondition::Proceed);
        assert_eq!(get(&[(IF_MODIFIED_SINCE, LATER), (IF_MODIFIED_SINCE, LATER)]), Precondition::Proceed);
        assert_eq!(evaluate(&Method::POST, &[(IF_MODIFIED_SINCE, LATER)], "\"a\""), Precondition::Proceed);
    }

    #[test]
    fn if_match_compares_strongly_and_hides_if_unmodified_since() {
        assert_eq!(get(&[(IF_MATCH, "\"abc\""), (IF_UNMODIFIED_SINCE, EARLIER)]), Precondition::Proceed);
        assert_eq!(get(&[(IF_MATCH, "W/\"abc\"")]), Precondition::Failed);
        assert_eq!(get(&[(IF_MATCH, "*")]), Precondition::Proceed);
        assert_eq!(get(&[(IF_UNMODIFIED_SINCE, EARLIER)]), Precondition::Failed);
        assert_eq!(get(&[(IF_UNMODIFIED_SINCE, MODIFIED)]), Precondition::Proceed);
    }

    proptest! {
        #[test]
        fn no_input_panics(list in "[ -~\u{80}-\u{ff}]{0,40}") {
            let fields = [(IF_MATCH, list.as_str()), (IF_NONE_MATCH, &list), (IF_MODIFIED_SINCE, &list)];
            for index in 0..3 {
                let _ = get(&fields[index..=index]);
            }
        }
    }
}
