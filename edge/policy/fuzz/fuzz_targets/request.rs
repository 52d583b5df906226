//! A request's fields: directives, cookies, conditions, ranges, codings, variants. No input panics.
#![no_main]

use cache_policy::{Codings, IgnoredCookies, RequestFacts, Rules, choose_coding, precondition, range, variant_key};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, UNIX_EPOCH};

const FIELDS: [HeaderName; 14] = [
    HeaderName::from_static("accept"),
    HeaderName::from_static("accept-encoding"),
    HeaderName::from_static("accept-language"),
    HeaderName::from_static("cache-control"),
    HeaderName::from_static("content-length"),
    HeaderName::from_static("cookie"),
    HeaderName::from_static("if-match"),
    HeaderName::from_static("if-modified-since"),
    HeaderName::from_static("if-none-match"),
    HeaderName::from_static("if-range"),
    HeaderName::from_static("if-unmodified-since"),
    HeaderName::from_static("pragma"),
    HeaderName::from_static("range"),
    HeaderName::from_static("x"),
];

fuzz_target!(|input: (u64, Vec<(u8, &[u8])>)| {
    let (length, lines) = input;
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(FIELDS[usize::from(name) % FIELDS.len()].clone(), value);
        }
    }
    let rules = Rules { ignored_cookies: IgnoredCookies::Named(vec!["a*".to_owned()]), ..Rules::default() };
    let _ = RequestFacts::read(&Method::GET, &headers, &rules);
    let etag = HeaderValue::from_static("\"a\"");
    let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
    let _ = precondition(&Method::GET, &headers, Some(&etag), Some(modified));
    let _ = range(&Method::GET, &headers, Some(&etag), Some(modified), length);
    let _ = choose_coding(&headers, Codings::ALL);
    let _ = variant_key(&FIELDS, &headers);
});
