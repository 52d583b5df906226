//! Requests that are answered by slices: octets of one size, each stored by itself under the request's key with one part more.
//!
//! Owns the arithmetic, and how a slice is asked for and stored. Every client asks the upstream for a slice by the same range and
//! without conditions, so that any of them may share it.

use std::ops::Range;

use cache_policy::{ContentRange, RangeAnswer, Validators, if_range_field, list_elements, range};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request};

use super::Key;
use crate::request::as_sent::overrides_method;

/// A representation cut into slices of this many octets, the last of which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Not zero.
    size: u64,
}

impl Slices {
    /// Slices of a route's size, which is not zero.
    pub fn of(size: u64) -> Self {
        Self { size: size.max(1) }
    }

    /// The slice that holds this octet.
    pub fn holding(self, octet: u64) -> Range<u64> {
        let start = octet - octet % self.size;
        start..start.saturating_add(self.size)
    }

    /// The slice that a request is answered from first: the first that it asks for, as far as that is known before the length of
    /// the whole is. `None` where it is not answered by slices: only a GET of everything or of one range is, and a HEAD, unless it
    /// wants a stored answer or none, for whether all slices are stored is known too late.
    pub fn first(self, head: &request::Parts) -> Option<Range<u64>> {
        let only_stored = list_elements(&head.headers, &header::CACHE_CONTROL)
            .any(|directive| directive.eq_ignore_ascii_case(b"only-if-cached"));
        if only_stored || overrides_method(head) || !matches!(head.method, Method::GET | Method::HEAD) {
            return None;
        }
        // If-Range is looked into once there is something to compare with.
        let ranges = head.headers.get_all(header::RANGE).iter().map(|line| (header::RANGE, line.clone()));
        let ranges: HeaderMap = ranges.collect();
        let first = match range(&head.method, &ranges, None, None, u64::MAX) {
            // No representation is so long that these would not be counted from its end.
            RangeAnswer::Single(asked) if asked.start < u64::MAX / 2 => asked.start,
            RangeAnswer::Single(_) | RangeAnswer::Whole | RangeAnswer::NotSatisfiable => 0,
            RangeAnswer::Several(_) => return None,
        };
        Some(self.holding(first))
    }
}

/// What makes slices those of one representation: only where all of it is the same may they make one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceOf {
    /// A strong validator, ETag or else Last-Modified (RFC 9110 §8.8.1).
    pub validator: HeaderValue,
    /// The length of the whole.
    pub complete: u64,
}

/// What this response is a slice of, if it is all of the slice that was asked for: with a strong validator, the length of the
/// whole, and in no coding, of which clients that know it not would get no use.
pub fn is_of(head: &HeaderMap, slice: &Range<u64>, validators: &Validators) -> Option<SliceOf> {
    let place = ContentRange::read(head)?;
    let complete = place.complete?;
    let is_all = place.range == (slice.start..slice.end.min(complete));
    let validator = if_range_field(validators)?;
    (is_all && !head.contains_key(header::CONTENT_ENCODING)).then_some(SliceOf { validator, complete })
}

/// The head of the GET that asks for a slice where a client asks for some of it.
pub fn head_of(head: &request::Parts, slice: &Range<u64>) -> request::Parts {
    let mut part = head.clone();
    part.method = Method::GET;
    for name in OF_THE_WHOLE {
        part.headers.remove(name);
    }
    // Octets of a coded form are not those of any other.
    part.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let asked = HeaderValue::try_from(format!("bytes={}-{}", slice.start, slice.end - 1));
    part.headers.insert(header::RANGE, asked.expect("digits and punctuation are visible ASCII"));
    part
}

/// The key of a slice, by the key of the whole: purges of the one find the other.
pub fn key_of(whole: &Key, slice: &Range<u64>) -> Key {
    whole.with_part(&format!("octets={}-{}", slice.start, slice.end - 1))
}

/// The key of all slices of a whole: nothing is stored under it, but what is known of them together.
pub fn key_of_all(whole: &Key) -> Key {
    whole.with_part("octets")
}

/// The client's conditions and range, which are looked into with the length of the whole.
const OF_THE_WHOLE: [HeaderName; 7] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
    HeaderName::from_static("a-im"),
];

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::Request;

    use super::*;

    fn head(method: &str, range: Option<&str>) -> request::Parts {
        let mut request = Request::builder().method(method).uri("/film").body(()).unwrap();
        if let Some(range) = range {
            request.headers_mut().insert(header::RANGE, range.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn every_octet_is_in_one_slice() {
        let slices = Slices::of(1000);
        for (octet, slice) in [(0, 0..1000), (999, 0..1000), (1000, 1000..2000), (123_456, 123_000..124_000)]
        {
            assert_eq!(slices.holding(octet), slice, "{octet}");
        }
        let last = slices.holding(u64::MAX);
        assert!(last.contains(&(u64::MAX - 1)) && last.end == u64::MAX);
    }

    #[test]
    fn a_request_begins_with_the_first_slice_that_it_asks_for() {
        let slices = Slices::of(1000);
        for (range, first) in [
            (None, Some(0)),
            (Some("bytes=0-"), Some(0)),
            (Some("bytes=999-1000"), Some(0)),
            (Some("bytes=1000-"), Some(1000)),
            (Some("bytes=2500-2600"), Some(2000)),
            // The length of the whole is not known yet.
            (Some("bytes=-500"), Some(0)),
            (Some("bytes=-0"), Some(0)),
            // What is no range of octets is ignored (RFC 9110 §14.2).
            (Some("bytes=5-1"), Some(0)),
            (Some("seconds=1000-"), Some(0)),
            (Some("bytes=0-0, 1000-1000"), None),
        ] {
            let found = slices.first(&head("GET", range));
            assert_eq!(found.map(|slice| slice.start), first, "{range:?}");
        }
        assert_eq!(slices.first(&head("HEAD", Some("bytes=1000-"))), Some(0..1000), "RFC 9110 §14.2");
        assert_eq!(slices.first(&head("POST", None)), None);
        let mut stored = head("GET", None);
        stored.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=5, only-if-cached"));
        assert_eq!(slices.first(&stored), None);
    }

    #[test]
    fn only_all_of_a_slice_under_a_strong_validator_is_one() {
        let fields = [("content-range", "bytes 1000-1999/2500"), ("etag", "\"a\"")];
        let of = |changed: &[(&'static str, &'static str)]| {
            let mut head = HeaderMap::new();
            for &(name, value) in fields.iter().chain(changed).filter(|(_, value)| !value.is_empty()) {
                head.insert(name, HeaderValue::from_static(value));
            }
            is_of(&head, &(1000..2000), &Validators::read(&head, SystemTime::UNIX_EPOCH))
        };
        let whole = SliceOf { validator: HeaderValue::from_static("\"a\""), complete: 2500 };
        assert_eq!(of(&[]), Some(whole.clone()));
        // The last one is as long as the whole lets it be.
        let last = SliceOf { complete: 1500, ..whole };
        assert_eq!(of(&[("content-range", "bytes 1000-1499/1500")]), Some(last));
        for wrong in [
            ("content-range", "bytes 1000-1998/2500"),
            ("content-range", "bytes 999-1999/2500"),
            ("content-range", "bytes 1000-1999/*"),
            ("content-range", "bytes 0-999/2500"),
            ("content-range", "seconds 1000-1999/2500"),
            ("etag", "W/\"a\""),
            ("content-encoding", "gzip"),
        ] {
            assert_eq!(of(&[wrong]), None, "{wrong:?}");
        }
        let dated = [
            ("etag", "W/\"a\""),
            ("last-modified", "Mon, 02 Jan 2023 00:00:00 GMT"),
            ("date", "Mon, 02 Jan 2023 00:00:10 GMT"),
        ];
        assert_eq!(of(&dated), None, "a date says nothing beside a tag");
    }

    #[test]
    fn a_slice_is_asked_for_without_what_the_client_has() {
        let mut asked = head("GET", Some("bytes=1500-"));
        for (name, value) in
            [("if-range", "\"a\""), ("if-none-match", "\"a\""), ("accept-encoding", "br"), ("x-any", "1")]
        {
            asked.headers.insert(name, HeaderValue::from_static(value));
        }
        let part = head_of(&asked, &(1000..2000));
        assert_eq!(part.headers[header::RANGE], "bytes=1000-1999");
        assert_eq!(part.headers[header::ACCEPT_ENCODING], "identity");
        assert_eq!(part.headers.len(), 3, "{:?}", part.headers);
    }
}
