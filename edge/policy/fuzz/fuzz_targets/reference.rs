//! References and queries: no input panics, and a resolved path never climbs.
#![no_main]

use cache_policy::{QueryRules, Resource, normalise_query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (query, reference) = input;
    let base = Resource { scheme: "https", authority: "a.test:8443", path_and_query: "/b/c?d" };
    if let Some(found) = base.same_origin(reference) {
        assert!(found.starts_with('/'));
    }
    let rules = QueryRules { drop: vec!["utm_*".to_owned()], sort: true, ..QueryRules::default() };
    let once = normalise_query(query, &rules).into_owned();
    assert_eq!(normalise_query(&once, &rules), once);
});
