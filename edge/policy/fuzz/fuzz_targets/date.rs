//! HTTP-date: no input panics, and what is read is written so that it is read alike.
#![no_main]

use cache_policy::{format_date, parse_date};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, UNIX_EPOCH};

fuzz_target!(|input: (u32, &[u8])| {
    let now = UNIX_EPOCH + Duration::from_secs(u64::from(input.0));
    if let Some(date) = parse_date(input.1, now) {
        assert_eq!(parse_date(format_date(date).as_bytes(), now), Some(date));
    }
});
