//! Parts of a representation: storing, combining, completing and answering from them (RFC 9111 §3.3, §3.4).
//!
//! Owns the arithmetic of octets held and octets missing. The octets themselves are the caller's.

use crate::admit::{Admitted, judge};
use crate::head;
use crate::meta::Validators;
use crate::moment::Arrival;
use crate::precondition::strongly_equal;
use crate::range::{RangeAnswer, RangeSpec, answer, offset, parse};
use crate::reason::Reason;
use crate::request::RequestFacts;
use crate::rules::Rules;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RANGE};
use http::{HeaderValue, StatusCode};
use std::ops::Range;
use std::time::SystemTime;

/// Content-Range of a 206 with one part (RFC 9110 §14.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The octets enclosed; not empty.
    pub range: Range<u64>,
    /// The length of the whole, where it is known.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes 0-4/10` or `bytes 0-4/*`; `None` for any other form, and for what contradicts itself.
    pub fn read(head: &HeaderMap) -> Option<ContentRange> {
        let mut lines = head.get_all(CONTENT_RANGE).iter();
        let only = lines.next().filter(|_| lines.next().is_none())?;
        ContentRange::parse(only.as_bytes())
    }

    /// Reads a field value; see [`ContentRange::read`].
    pub fn parse(field: &[u8]) -> Option<ContentRange> {
        let space = field.iter().position(|&byte| byte == b' ')?;
        let (unit, rest) = (&field[..space], field[space..].trim_ascii());
        let slash = rest.iter().position(|&byte| byte == b'/')?;
        let dash = rest[..slash].iter().position(|&byte| byte == b'-')?;
        let (first, last) = (offset(&rest[..dash])?, offset(&rest[dash + 1..slash])?);
        let complete = match &rest[slash + 1..] {
            b"*" => None,
            length => Some(offset(length)?),
        };
        let range = first..last.checked_add(1)?;
        let sound = unit.eq_ignore_ascii_case(b"bytes")
            && !range.is_empty()
            && complete.is_none_or(|len| range.end <= len);
        sound.then_some(ContentRange { range, complete })
    }

    /// The range as a part of `length` octets makes it, for an origin whose last position is known to be wrong: its
    /// first position is believed, and a part that claims to reach the end ends the whole.
    #[must_use]
    pub fn fitted_to(&self, length: u64) -> ContentRange {
        let range = self.range.start..self.range.start.saturating_add(length);
        let reaches_end = self.complete == Some(self.range.end);
        let complete =
            if reaches_end { Some(range.end) } else { self.complete.filter(|len| range.end <= *len) };
        ContentRange { range, complete }
    }

    /// The field value.
    pub fn to_field(&self) -> HeaderValue {
        let (first, last) = (self.range.start, self.range.end.saturating_sub(1));
        let field = match self.complete {
            Some(length) => format!("bytes {first}-{last}/{length}"),
            None => format!("bytes {first}-{last}/*"),
        };
        HeaderValue::try_from(field).expect("digits and punctuation are visible ASCII")
    }
}

/// The Content-Range of a 416 (RFC 9110 §15.5.17).
pub fn unsatisfied_range(length: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{length}")).expect("digits and punctuation are visible ASCII")
}

/// The length of the whole that a 416 states, where it does (RFC 9110 §14.4): `bytes */10`.
pub fn stated_length(head: &HeaderMap) -> Option<u64> {
    let mut lines = head.get_all(CONTENT_RANGE).iter();
    let only = lines.next().filter(|_| lines.next().is_none())?;
    let (unit, rest) = only.as_bytes().split_first_chunk::<5>()?;
    let length = rest.trim_ascii_start().strip_prefix(b"*/")?;
    offset(length).filter(|_| unit.eq_ignore_ascii_case(b"bytes"))
}

/// Whether a request asks for one part, and not for everything by way of a range: `bytes=0-` is how players ask for a
/// film.
pub fn asks_for_one_part(request: &HeaderMap) -> bool {
    let asked = request.get(RANGE).and_then(|field| parse(field.as_bytes()));
    matches!(asked.as_deref(), Some([only]) if *only != RangeSpec::From(0, None))
}

/// Judges a 206 with one part. The meta's status is 206 until the whole is there.
///
/// # Errors
/// [`Reason::PartialUnusable`] where it is no single part of a known place; otherwise the reason of [`crate::admit`].
pub fn admit_part(
    request: &RequestFacts,
    head: &HeaderMap,
    arrival: Arrival,
    rules: &Rules,
) -> Result<(Admitted, ContentRange), Reason> {
    let place = ContentRange::read(head).ok_or(Reason::PartialUnusable)?;
    let admitted = judge(request, StatusCode::PARTIAL_CONTENT, head, arrival, rules)?;
    Ok((admitted, place))
}

/// Judges a whole response to a request that carried a range of the client's: only the whole itself says anything about
/// the resource. A 416, a 400 or a 404 may be about that range, and the next client has not asked for it.
///
/// # Errors
/// [`Reason::RangeAnswer`] for any status but 200; otherwise the reason of [`crate::admit`].
pub fn admit_instead_of_part(
    request: &RequestFacts,
    status: StatusCode,
    head: &HeaderMap,
    arrival: Arrival,
    rules: &Rules,
) -> Result<Admitted, Reason> {
    if status != StatusCode::OK {
        return Err(Reason::RangeAnswer);
    }
    judge(request, status, head, arrival, rules)
}

/// Whether a part may be combined with what is stored: both have the same strong validator (RFC 9111 §3.4).
pub fn may_combine(stored: &Validators, newer: &Validators) -> bool {
    match (&stored.etag, &newer.etag) {
        (Some(old), Some(new)) => strongly_equal(old.as_bytes(), new.as_bytes()),
        (None, None) => {
            stored.strong_last_modified().is_some()
                && stored.strong_last_modified() == newer.strong_last_modified()
        }
        _ => false,
    }
}

/// The head of parts combined: the newer one's fields laid over the stored one's (RFC 9111 §3.4). With `complete` it is
/// the head of the whole, as of a 200 of that length.
pub fn combined_head(stored: &HeaderMap, newer: &HeaderMap, complete: Option<u64>) -> HeaderMap {
    let mut combined = head::overlaid(stored, newer);
    // Neither part's own.
    for digest in &head::DIGESTS_OF_CONTENT {
        combined.remove(digest);
    }
    if let Some(length) = complete {
        combined.remove(CONTENT_RANGE);
        combined.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    combined
}

/// Which octets of a representation are held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Sorted, disjoint, never adjacent.
    held: Vec<Range<u64>>,
    complete: Option<u64>,
}

/// More separate parts than this of one representation are not kept: the newest is left out.
pub const MOST_PARTS: usize = 64;

impl Parts {
    /// Adds a part. `false` where it contradicts what is held, or makes too many parts: nothing has changed then.
    pub fn add(&mut self, part: &ContentRange) -> bool {
        let complete = self.complete.or(part.complete);
        let agrees = part.complete.is_none_or(|length| complete == Some(length));
        let end = self.held.last().map_or(0, |last| last.end).max(part.range.end);
        if part.range.is_empty() || !agrees || complete.is_some_and(|length| end > length) {
            return false;
        }
        let touches = |held: &Range<u64>| held.start <= part.range.end && part.range.start <= held.end;
        let (near, mut held): (Vec<_>, Vec<_>) = self.held.iter().cloned().partition(touches);
        let first = part.range.clone();
        held.push(
            near.into_iter()
                .fold(first, |union, other| union.start.min(other.start)..union.end.max(other.end)),
        );
        if held.len() > MOST_PARTS {
            return false;
        }
        held.sort_unstable_by_key(|range| range.start);
        (self.held, self.complete) = (held, complete);
        true
    }

    /// The length of the whole, where a part has told it.
    pub fn complete_length(&self) -> Option<u64> {
        self.complete
    }

    /// The parts held, in order.
    pub fn held(&self) -> &[Range<u64>] {
        &self.held
    }

    /// Whether everything is held.
    pub fn is_whole(&self) -> bool {
        self.complete.is_some_and(|length| self.holds(&(0..length)))
    }

    /// Whether every octet of `range` is held.
    pub fn holds(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.held.iter().any(|held| held.start <= range.start && range.end <= held.end)
    }

    /// The octets of `range` that are not held, in order.
    pub fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut from = range.start;
        for held in self.held.iter().filter(|held| held.end > range.start && held.start < range.end) {
            if held.start > from {
                missing.push(from..held.start);
            }
            from = from.max(held.end);
        }
        if from < range.end {
            missing.push(from..range.end);
        }
        missing
    }

    /// Whether a request's Range, or a request for the whole, can be answered from what is held.
    pub fn answer(&self, request: &HeaderMap) -> PartAnswer {
        let asked = request.get(RANGE).and_then(|field| parse(field.as_bytes()));
        match (asked, self.complete) {
            (None, _) if self.is_whole() => PartAnswer::Held(RangeAnswer::Whole),
            (None, Some(length)) => PartAnswer::Missing(
                self.missing(&(0..length)).iter().map(|gap| self.range_field(gap)).collect(),
            ),
            (None, None) => match self.held_from_start() {
                0 => PartAnswer::Unknown,
                from => PartAnswer::Missing(vec![self.range_field(&(from..u64::MAX))]),
            },
            (Some(asked), Some(length)) => self.answer_ranges(answer(&asked, length), length),
            (Some(asked), None) => self.answer_unbounded(&asked),
        }
    }

    fn answer_ranges(&self, answer: RangeAnswer, length: u64) -> PartAnswer {
        let whole = 0..length;
        let wanted: &[Range<u64>] = match &answer {
            RangeAnswer::Whole => std::slice::from_ref(&whole),
            RangeAnswer::Single(range) => std::slice::from_ref(range),
            RangeAnswer::Several(ranges) => ranges,
            RangeAnswer::NotSatisfiable => &[],
        };
        let gaps: Vec<_> = wanted.iter().flat_map(|range| self.missing(range)).collect();
        match gaps.is_empty() {
            true => PartAnswer::Held(answer),
            false => PartAnswer::Missing(gaps.iter().map(|gap| self.range_field(gap)).collect()),
        }
    }

    /// Without the length of the whole, only a closed range inside what is held can be answered.
    fn answer_unbounded(&self, asked: &[RangeSpec]) -> PartAnswer {
        match asked {
            [RangeSpec::From(first, Some(last))] if self.holds(&(*first..last.saturating_add(1))) => {
                PartAnswer::Held(RangeAnswer::Single(*first..last.saturating_add(1)))
            }
            _ => PartAnswer::Unknown,
        }
    }

    fn held_from_start(&self) -> u64 {
        self.held.first().filter(|first| first.start == 0).map_or(0, |first| first.end)
    }

    /// A Range field for a gap; open where it reaches the end, so that a grown whole shows itself.
    pub fn range_field(&self, gap: &Range<u64>) -> HeaderValue {
        let to_end = gap.end == u64::MAX || self.complete == Some(gap.end);
        let field = if to_end {
            format!("bytes={}-", gap.start)
        } else {
            format!("bytes={}-{}", gap.start, gap.end - 1)
        };
        HeaderValue::try_from(field).expect("digits and punctuation are visible ASCII")
    }
}

/// What parts have to say to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartAnswer {
    /// Every octet of this answer is held.
    Held(RangeAnswer),
    /// Octets are missing; these Range fields ask for them, with If-Range of [`if_range_field`].
    Missing(Vec<HeaderValue>),
    /// What is asked for cannot be placed without the length of the whole: forward the request as it is.
    Unknown,
}

/// The If-Range that keeps a completing request to the stored representation; `None`: no strong validator, so that
/// parts cannot be combined (RFC 9110 §13.1.5).
pub fn if_range_field(stored: &Validators) -> Option<HeaderValue> {
    let strong_tag = stored.etag.as_ref().filter(|etag| strongly_equal(etag.as_bytes(), etag.as_bytes()));
    let strong_date: Option<SystemTime> = stored.strong_last_modified();
    strong_tag
        .or(stored.last_modified_field.as_ref().filter(|_| stored.etag.is_none() && strong_date.is_some()))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(text: &str) -> ContentRange {
        ContentRange::parse(text.as_bytes()).unwrap()
    }

    fn parts(all: &[&str]) -> Parts {
        let mut parts = Parts::default();
        assert!(all.iter().all(|text| parts.add(&part(text))));
        parts
    }

    fn asked(parts: &Parts, range: Option<&str>) -> PartAnswer {
        let field = range.map(|range| (RANGE, HeaderValue::from_str(range).unwrap()));
        parts.answer(&field.into_iter().collect())
    }

    #[test]
    fn content_range_is_read_strictly() {
        assert_eq!(part("bytes 0-4/10"), ContentRange { range: 0..5, complete: Some(10) });
        assert_eq!(part("Bytes 4-4/*"), ContentRange { range: 4..5, complete: None });
        for broken in [
            "bytes */10",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "lines 0-1/2",
            "bytes 0-4",
            "0-4/10",
            "bytes a-b/c",
            "",
        ] {
            assert_eq!(ContentRange::parse(broken.as_bytes()), None, "{broken}");
        }
        let stated = |field: &'static str| {
            stated_length(&HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(field))]))
        };
        assert_eq!(stated("bytes */10"), Some(10));
        for broken in ["bytes 0-4/10", "bytes */*", "bytes", "lines */10", "bytes */-1", ""] {
            assert_eq!(stated(broken), None, "{broken}");
        }
        assert_eq!(part("bytes 0-4/10").to_field(), "bytes 0-4/10");
    }

    #[test]
    fn a_range_inside_a_part_is_held() {
        let parts = parts(&["bytes 5-9/10"]);
        assert_eq!(asked(&parts, Some("bytes=-5")), PartAnswer::Held(RangeAnswer::Single(5..10)));
        assert_eq!(asked(&parts, Some("bytes=6-8")), PartAnswer::Held(RangeAnswer::Single(6..9)));
        assert_eq!(asked(&parts, Some("bytes=6-")), PartAnswer::Held(RangeAnswer::Single(6..10)));
        assert_eq!(asked(&parts, Some("bytes=20-")), PartAnswer::Held(RangeAnswer::NotSatisfiable));
    }

    #[test]
    fn what_is_missing_is_asked_for() {
        let gaps = |all: &[&str], range| asked(&parts(all), range);
        let missing = |fields: &[&'static str]| {
            PartAnswer::Missing(fields.iter().map(|f| HeaderValue::from_static(f)).collect())
        };
        assert_eq!(gaps(&["bytes 0-4/10"], None), missing(&["bytes=5-"]));
        assert_eq!(gaps(&["bytes 5-9/10"], None), missing(&["bytes=0-4"]));
        assert_eq!(
            gaps(&["bytes 2-3/10", "bytes 6-7/10"], None),
            missing(&["bytes=0-1", "bytes=4-5", "bytes=8-"])
        );
        assert_eq!(gaps(&["bytes 0-4/10"], Some("bytes=3-6")), missing(&["bytes=5-6"]));
        assert_eq!(gaps(&["bytes 0-4/*"], None), missing(&["bytes=5-"]));
        assert_eq!(gaps(&["bytes 0-4/*"], Some("bytes=1-2")), PartAnswer::Held(RangeAnswer::Single(1..3)));
        assert_eq!(gaps(&["bytes 0-4/*"], Some("bytes=-2")), PartAnswer::Unknown);
    }

    #[test]
    fn parts_that_contradict_are_refused() {
        let mut parts = parts(&["bytes 0-4/10"]);
        assert!(!parts.add(&part("bytes 5-9/11")));
        assert!(!parts.add(&part("bytes 5-10/*")));
        assert!(parts.add(&part("bytes 5-9/*")) && parts.is_whole());
    }

    #[test]
    fn only_strong_validators_combine() {
        let tagged = |tag: &'static str| Validators {
            etag: Some(HeaderValue::from_static(tag)),
            ..Validators::default()
        };
        assert!(may_combine(&tagged("\"a\""), &tagged("\"a\"")));
        assert!(!may_combine(&tagged("\"a\""), &tagged("\"b\"")));
        assert!(!may_combine(&tagged("W/\"a\""), &tagged("W/\"a\"")));
        assert!(!may_combine(&Validators::default(), &Validators::default()));
        assert_eq!(if_range_field(&tagged("\"a\"")), Some(HeaderValue::from_static("\"a\"")));
        assert_eq!(if_range_field(&tagged("W/\"a\"")), None);
    }

    #[test]
    fn an_origin_that_counts_wrongly_can_be_fitted() {
        let fitted = part("bytes 4-9/10").fitted_to(5);
        assert_eq!(fitted, ContentRange { range: 4..9, complete: Some(9) });
    }

    proptest! {
        #[test]
        fn held_and_missing_make_the_whole(
            added in proptest::collection::vec((0..50_u64, 1..10_u64), 0..12),
            from in 0..60_u64,
            length in 0..60_u64,
        ) {
            let mut parts = Parts::default();
            let mut octets = [false; 200];
            for (start, length) in added {
                let range = start..start + length;
                let added = parts.add(&ContentRange { range: range.clone(), complete: None });
                prop_assert!(added);
                range.for_each(|octet| octets[usize::try_from(octet).expect("small")] = true);
            }
            let range = from..from + length;
            let missing = parts.missing(&range);
            for octet in range.clone() {
                let is_missing = missing.iter().any(|gap| gap.contains(&octet));
                prop_assert_eq!(is_missing, !octets[usize::try_from(octet).expect("small")]);
            }
            prop_assert_eq!(parts.holds(&range), missing.is_empty());
            prop_assert!(parts.held().windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn no_input_panics(field in "(bytes )?[ -~]{0,30}", length in any::<u64>()) {
            if let Some(range) = ContentRange::parse(field.as_bytes()) {
                let _ = (range.to_field(), range.fitted_to(length), Parts::default().add(&range));
            }
        }
    }
}
