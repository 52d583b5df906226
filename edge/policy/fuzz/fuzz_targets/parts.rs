//! Range, Content-Range, and the arithmetic of parts. No input panics; what is said to be held is held, what is said to be
//! missing is not, both together are what was asked for; and a frame is as long as it says.
#![no_main]

use cache_policy::{ContentRange, PartAnswer, Parts, RangeAnswer, asks_for_one_part, multipart, range};
use http::{HeaderMap, HeaderValue, Method, header};
use libfuzzer_sys::fuzz_target;
use std::ops::Range;

fuzz_target!(|input: (&[u8], Vec<&[u8]>, u64, u64)| {
    let (asked, places, one, other) = input;
    let mut parts = Parts::default();
    for place in places.iter().filter_map(|place| ContentRange::parse(place)) {
        assert_eq!(ContentRange::parse(place.to_field().as_bytes()).as_ref(), Some(&place));
        if parts.add(&place) {
            assert!(parts.holds(&place.range));
        }
    }
    assert!(parts.held().windows(2).all(|pair| pair[0].end < pair[1].start));
    let wanted = one.min(other)..one.max(other);
    let length = |range: &Range<u64>| range.end - range.start;
    let missing = parts.missing(&wanted);
    let inside = |held: &Range<u64>| held.end.min(wanted.end).saturating_sub(held.start.max(wanted.start));
    let held: u64 = parts.held().iter().map(inside).sum();
    assert_eq!(held + missing.iter().map(length).sum::<u64>(), length(&wanted));
    assert!(missing.iter().all(|gap| !gap.is_empty() && !parts.holds(gap)));

    let Ok(asked) = HeaderValue::from_bytes(asked) else { return };
    let request = HeaderMap::from_iter([(header::RANGE, asked)]);
    let _ = asks_for_one_part(&request);
    if let PartAnswer::Held(RangeAnswer::Single(range)) = parts.answer(&request) {
        assert!(parts.holds(&range));
    }
    if let RangeAnswer::Several(ranges) = range(&Method::GET, &request, None, None, one) {
        let framed = multipart(&ranges, one, None, "boundary");
        let preambles: u64 = framed.parts.iter().map(|part| part.preamble.len() as u64).sum();
        let octets: u64 = ranges.iter().map(length).sum();
        assert_eq!(framed.length, preambles + octets + framed.closing.len() as u64);
    }
});
