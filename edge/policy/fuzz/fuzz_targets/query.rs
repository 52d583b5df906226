//! Queries: normalised by a route's rules, and told apart by No-Vary-Search. No input panics; normalising is done once and
//! for all; what is the same query is the same under every rule.
#![no_main]

use cache_policy::{NoVarySearch, QueryRules, normalise_query};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

fuzz_target!(|input: (Vec<&[u8]>, &str, &str, bool)| {
    let (lines, query, other, sort) = input;
    let rules = QueryRules { drop: vec!["utm_*".to_owned()], sort, ..QueryRules::default() };
    let once = normalise_query(query, &rules).into_owned();
    assert_eq!(normalise_query(&once, &rules), once);
    let mut head = HeaderMap::new();
    for line in lines {
        if let Ok(line) = HeaderValue::from_bytes(line) {
            head.append(NO_VARY_SEARCH, line);
        }
    }
    if let Some(rules) = NoVarySearch::read(&head) {
        let key = rules.key(query);
        assert_eq!(rules.key(&key), key, "a key is its own key");
        assert_eq!(rules.key(&format!("{query}&")), key, "an empty pair is none");
        let _ = rules.key(other);
    }
});
