//! A response's fields, stored and freshened. No input panics, and nothing is fresh past its lifetime.
#![no_main]

use cache_policy::{
    Arrival, ContentRange, Decision, Moment, NoVarySearch, Parts, RequestFacts, Rules, admit, admit_part,
    decide, freshen, freshen_by_head, invalidated_groups, tags,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, UNIX_EPOCH};

const FIELDS: [HeaderName; 20] = [
    HeaderName::from_static("age"),
    HeaderName::from_static("cache-control"),
    HeaderName::from_static("cache-group-invalidation"),
    HeaderName::from_static("cache-groups"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("connection"),
    HeaderName::from_static("content-encoding"),
    HeaderName::from_static("content-length"),
    HeaderName::from_static("content-range"),
    HeaderName::from_static("date"),
    HeaderName::from_static("etag"),
    HeaderName::from_static("expires"),
    HeaderName::from_static("last-modified"),
    HeaderName::from_static("no-vary-search"),
    HeaderName::from_static("pragma"),
    HeaderName::from_static("set-cookie"),
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("vary"),
    HeaderName::from_static("x"),
];

type FieldLines<'a> = Vec<(u8, &'a [u8])>;

fn head(lines: FieldLines<'_>) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, value) in lines {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            head.append(FIELDS[usize::from(name) % FIELDS.len()].clone(), value);
        }
    }
    head
}

fuzz_target!(|input: (u16, u32, &str, FieldLines<'_>, FieldLines<'_>)| {
    let (status, elapsed, query, first, second) = input;
    let (first, second) = (head(first), head(second));
    let rules = Rules::default();
    let request = RequestFacts::read(&Method::GET, &HeaderMap::new(), &rules);
    let start = Moment::from_epoch(Duration::from_secs(1 << 40));
    let wall = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let arrival = Arrival { requested_at: start, received_at: start, wall };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if let Ok(stored) = admit(&request, status, &first, arrival, &rules) {
        let now = start + Duration::from_secs(u64::from(elapsed));
        let served = decide(&request, Some(&stored.meta), &rules, now) == (Decision::Serve { stale: None });
        assert!(!served || stored.meta.age(now) < stored.meta.lifetime);
        let newer = cache_policy::Newer { request: &request, head: &second, arrival, rules: &rules };
        let _ = freshen(&stored.meta, &stored.head, &newer);
        let _ = freshen_by_head(&stored.meta, &stored.head, &newer);
    }
    let mut parts = Parts::default();
    for head in [&first, &second] {
        let _ = admit_part(&request, head, arrival, &rules);
        if let Some(part) = ContentRange::read(head) {
            parts.add(&part);
        }
        let _ =
            (tags(head), invalidated_groups(head), NoVarySearch::read(head).map(|rules| rules.key(query)));
    }
    let _ = parts.answer(&HeaderMap::new());
});
