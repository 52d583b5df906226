//! Byte ranges over a complete representation (RFC 9110 §14).

use crate::date;
use crate::directives::elements;
use crate::precondition::strongly_equal;
use http::header::{HeaderMap, IF_RANGE, RANGE};
use http::{HeaderValue, Method};
use std::ops::Range;
use std::time::SystemTime;

/// What a request's Range leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeAnswer {
    /// 200 with everything: no range is asked for, or none that counts.
    Whole,
    /// 206 with these octets.
    Single(Range<u64>),
    /// 206 as multipart/byteranges, in the order asked for; disjoint, never adjacent, at least two.
    Several(Vec<Range<u64>>),
    /// 416.
    NotSatisfiable,
}

/// More ranges than this are not served as parts: the whole answers them.
pub const MOST_RANGES: usize = 16;

/// Evaluates Range and If-Range against a representation of `len` octets.
///
/// `last_modified` counts in If-Range only where it is a strong validator: pass [`crate::Validators::strong_last_modified`].
pub fn range(
    method: &Method,
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
    len: u64,
) -> RangeAnswer {
    // §14.2: defined for GET alone.
    if *method != Method::GET {
        return RangeAnswer::Whole;
    }
    let Some(asked) = request.get(RANGE).and_then(|field| parse(field.as_bytes())) else {
        return RangeAnswer::Whole;
    };
    if !if_range_holds(request, etag, last_modified) {
        return RangeAnswer::Whole;
    }
    answer(&asked, len)
}

/// One `int-range` or `suffix-range` as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeSpec {
    /// From an offset to an inclusive one, or to the end.
    From(u64, Option<u64>),
    /// The last so many octets.
    Last(u64),
}

impl RangeSpec {
    /// The octets it names of `len`; `None` where it cannot be satisfied (§14.1.2).
    pub(crate) fn within(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            RangeSpec::From(first, last) => first..last.map_or(len, |last| last.saturating_add(1).min(len)),
            RangeSpec::Last(count) => len.saturating_sub(count)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Reads a Range field; `None` where it is not in bytes or not well formed, which means it is ignored (§14.2).
pub(crate) fn parse(field: &[u8]) -> Option<Vec<RangeSpec>> {
    let equals = field.iter().position(|&byte| byte == b'=')?;
    let (unit, set) = (&field[..equals], &field[equals + 1..]);
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let asked: Vec<_> = elements(set).map(spec).collect::<Option<_>>()?;
    (!asked.is_empty()).then_some(asked)
}

fn spec(spec: &[u8]) -> Option<RangeSpec> {
    let dash = spec.iter().position(|&byte| byte == b'-')?;
    match (&spec[..dash], &spec[dash + 1..]) {
        (b"", suffix) => Some(RangeSpec::Last(offset(suffix)?)),
        (first, b"") => Some(RangeSpec::From(offset(first)?, None)),
        (first, last) => {
            let (first, last) = (offset(first)?, offset(last)?);
            (first <= last).then_some(RangeSpec::From(first, Some(last)))
        }
    }
}

/// Reads an offset; one too large for 64 bits is past every end.
pub(crate) fn offset(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |sum: u64, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
    )
}

/// §13.1.5: a strong tag or a strong date, exactly equal; without If-Range the condition holds.
fn if_range_holds(
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
) -> bool {
    let Some(condition) = request.get(IF_RANGE) else {
        return true;
    };
    let condition = condition.as_bytes();
    if condition.contains(&b'"') {
        return etag.is_some_and(|etag| strongly_equal(condition, etag.as_bytes()));
    }
    last_modified.is_some_and(|modified| date::parse(condition, modified) == Some(modified))
}

pub(crate) fn answer(asked: &[RangeSpec], len: u64) -> RangeAnswer {
    if len == 0 && asked.iter().any(|asked| matches!(asked, RangeSpec::Last(count) if *count > 0)) {
        // §14.1.2: satisfiable, but no Content-Range can express it.
        return RangeAnswer::Whole;
    }
    if asked.len() > MOST_RANGES {
        return RangeAnswer::Whole;
    }
    let ranges = coalesced(asked.iter().filter_map(|asked| asked.within(len)).collect());
    match ranges.as_slice() {
        [] => RangeAnswer::NotSatisfiable,
        [range] => RangeAnswer::Single(range.clone()),
        several => RangeAnswer::Several(several.to_vec()),
    }
}

/// Joins ranges that overlap or touch (§14.2, §15.3.7.2: a defence as well), in the place of the first of them.
fn coalesced(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let touches = |other: &Range<u64>| range.start <= other.end && other.start <= range.end;
        let place = joined.iter().position(touches).unwrap_or(joined.len());
        // What is joined already lies apart, so the union touches nothing that the new range does not touch.
        let (near, mut apart): (Vec<_>, Vec<_>) = joined.into_iter().partition(touches);
        let union = near
            .into_iter()
            .fold(range, |union, other| union.start.min(other.start)..union.end.max(other.end));
        apart.insert(place, union);
        joined = apart;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn asked(field: &str, len: u64) -> RangeAnswer {
        let request = HeaderMap::from_iter([(RANGE, HeaderValue::from_str(field).unwrap())]);
        range(&Method::GET, &request, None, None, len)
    }

    #[test]
    fn single_ranges() {
        assert_eq!(asked("bytes=0-1", 11), RangeAnswer::Single(0..2));
        assert_eq!(asked("bytes=1-", 11), RangeAnswer::Single(1..11));
        assert_eq!(asked("BYTES=-1", 11), RangeAnswer::Single(10..11));
        assert_eq!(asked("bytes=-50", 11), RangeAnswer::Single(0..11));
        assert_eq!(asked("bytes=5-99999999999999999999999", 11), RangeAnswer::Single(5..11));
    }

    #[test]
    fn what_cannot_be_satisfied_is_416_and_what_cannot_be_read_is_ignored() {
        for field in ["bytes=11-", "bytes=-0", "bytes=99999999999999999999999-", "bytes=11-12,-0"] {
            assert_eq!(asked(field, 11), RangeAnswer::NotSatisfiable, "{field}");
        }
        for field in
            ["bytes=", "bytes=,", "bytes=2-1", "bytes=a-b", "lines=0-1", "bytes", "bytes=1", "bytes=0-1,x"]
        {
            assert_eq!(asked(field, 11), RangeAnswer::Whole, "{field}");
        }
        assert_eq!(asked("bytes=-5", 0), RangeAnswer::Whole);
        assert_eq!(asked("bytes=0-", 0), RangeAnswer::NotSatisfiable);
    }

    #[test]
    fn several_ranges_are_joined_where_they_touch() {
        assert_eq!(asked("bytes=0-1, 8-9", 11), RangeAnswer::Several(vec![0..2, 8..10]));
        assert_eq!(asked("bytes=8-9,0-1", 11), RangeAnswer::Several(vec![8..10, 0..2]));
        assert_eq!(asked("bytes=0-1,2-3", 11), RangeAnswer::Single(0..4));
        assert_eq!(asked("bytes=0-1,6-7,1-6", 11), RangeAnswer::Single(0..8));
        assert_eq!(asked("bytes=0-1,20-30", 11), RangeAnswer::Single(0..2));
        let many = format!(
            "bytes={}",
            (0..20).map(|n| format!("{}-{}", n * 2, n * 2)).collect::<Vec<_>>().join(",")
        );
        assert_eq!(asked(&many, 100), RangeAnswer::Whole);
    }

    #[test]
    fn if_range_wants_an_equal_strong_validator() {
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let holds = |condition: &str, etag: &str, date: Option<SystemTime>| {
            let request = HeaderMap::from_iter([
                (RANGE, HeaderValue::from_static("bytes=0-1")),
                (IF_RANGE, HeaderValue::from_str(condition).unwrap()),
            ]);
            let etag = HeaderValue::from_str(etag).unwrap();
            range(&Method::GET, &request, Some(&etag), date, 11) == RangeAnswer::Single(0..2)
        };
        assert!(holds("\"a\"", "\"a\"", None));
        assert!(!holds("\"b\"", "\"a\"", None));
        assert!(!holds("W/\"a\"", "W/\"a\"", None));
        assert!(holds("Sun, 06 Nov 1994 08:49:37 GMT", "\"a\"", Some(modified)));
        assert!(!holds("Sun, 06 Nov 1994 08:49:38 GMT", "\"a\"", Some(modified)));
        assert!(!holds("Sun, 06 Nov 1994 08:49:37 GMT", "\"a\"", None));
    }

    #[test]
    fn ranges_are_for_get() {
        let request = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-1"))]);
        assert_eq!(range(&Method::HEAD, &request, None, None, 11), RangeAnswer::Whole);
    }

    proptest! {
        #[test]
        fn answers_lie_within_and_apart(specs in proptest::collection::vec((0..40_u64, 0..40_u64), 1..10), len in 0..40_u64) {
            let field: Vec<_> = specs.iter().map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))).collect();
            let asked_for: Vec<_> = specs.iter().map(|(a, b)| *a.min(b)..*a.max(b) + 1).collect();
            let ranges = match asked(&format!("bytes={}", field.join(",")), len) {
                RangeAnswer::Single(range) => vec![range],
                RangeAnswer::Several(ranges) => { prop_assert!(ranges.len() > 1); ranges }
                RangeAnswer::NotSatisfiable => vec![],
                RangeAnswer::Whole => return Err(TestCaseError::fail("a well-formed range was ignored")),
            };
            for octet in 0..len {
                let wanted = asked_for.iter().any(|range| range.contains(&octet));
                let sent = ranges.iter().filter(|range| range.contains(&octet)).count();
                prop_assert_eq!(sent, usize::from(wanted), "octet {}", octet);
            }
            prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len));
        }

        #[test]
        fn no_input_panics(field in "(bytes=)?[ -~]{0,40}", len in any::<u64>()) {
            let _ = asked(&field, len);
        }
    }
}
