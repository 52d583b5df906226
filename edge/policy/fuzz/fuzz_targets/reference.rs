//! References (Location, Content-Location): no input panics, a resolved path never climbs, and nothing of another origin is
//! found.
#![no_main]

use cache_policy::{RequestFacts, ResourceName, Rules, invalidated_targets, invalidates, stands_for_get};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use libfuzzer_sys::fuzz_target;

const BASE: ResourceName<'_> = ResourceName { scheme: "https", authority: "a.test:8443", path_and_query: "/b/c?d" };

fuzz_target!(|input: (u16, &[u8], &[u8])| {
    let (status, location, content_location) = input;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if let Some(found) = BASE.same_origin(location) {
        let path = found.split('?').next().unwrap_or_default();
        assert!(path.starts_with('/') && !path.split('/').any(|segment| segment == ".."), "{found}");
    }
    let mut head = HeaderMap::new();
    for (name, value) in [(header::LOCATION, location), (header::CONTENT_LOCATION, content_location)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            head.insert(name, value);
        }
    }
    assert!(invalidated_targets(&BASE, &head).iter().all(|target| target.starts_with('/')));
    for method in [Method::GET, Method::POST, Method::DELETE] {
        assert!(method != Method::GET || !invalidates(&method, status));
        let facts = RequestFacts::read(&method, &HeaderMap::new(), &Rules::default());
        let _ = stands_for_get(&method, &facts, &BASE, status, &head);
    }
});
