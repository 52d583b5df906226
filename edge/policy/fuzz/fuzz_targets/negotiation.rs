//! What a client prefers: codings, languages, and the variants that Vary makes of them. No input panics; a coding is only
//! chosen from those offered; equal heads are equal variants.
#![no_main]

use cache_policy::{Coding, Codings, Vary, choose_coding, prefers_language, variant_key};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

const PREFERENCES: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::USER_AGENT,
    HeaderName::from_static("x"),
];

fuzz_target!(|input: (Vec<(u8, &[u8])>, &[u8], &[u8])| {
    let (lines, vary, language) = input;
    let mut request = HeaderMap::new();
    for (name, value) in lines {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request.append(PREFERENCES[usize::from(name) % PREFERENCES.len()].clone(), value);
        }
    }
    let _ = choose_coding(&request, Codings::ALL);
    if let Some(chosen) = choose_coding(&request, Codings::IDENTITY) {
        assert_eq!(chosen, Coding::Identity);
    }
    if let Ok(language) = HeaderValue::from_bytes(language) {
        let _ = prefers_language(&request, &language);
    }
    if let Ok(vary) = HeaderValue::from_bytes(vary) {
        let vary = Vary::read(&HeaderMap::from_iter([(header::VARY, vary)]));
        assert_eq!(variant_key(vary.fields(), &request), variant_key(vary.fields(), &request.clone()));
    }
});
