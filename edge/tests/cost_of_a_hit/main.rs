//! A hit does no avoidable work: what it allocates has a bound, on the wire, in the pipeline, and in its parts.
//!
//! Allocations are counted, because they are the same on every machine; of one thread only, so that nothing else in the
//! process counts. What grows counts as allocated anew in its whole size. Time is for `make bench-micro`.
//! A change that needs more raises its bound and says what for; one that needs less lowers it.
#![expect(clippy::disallowed_macros, reason = "a test prints what it has counted or is asked for")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod connection;
mod heads;
mod instructions;
mod page;

use std::{hint::black_box, sync::Arc};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use cache_policy::{
    Decision, QueryRules, Reason, RequestFacts, Rules, choose_coding, decide, normalise_query, variant_key,
};
use edge::{
    cache::{Key, Stored, StoredBody, stored::Facts},
    observe::evidence,
    pipeline::handle,
    request::{as_sent::AsSent, client::Client},
    response::coding,
};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, header};
use tokio::runtime;

use self::connection::{Http1, Http2};

#[test]
fn over_http_1_a_hit_keeps_to_its_bound() {
    let edge = page::edge();
    let (runtime, mut client) = open(async || Http1::open(&edge).await);
    on_the_wire("a hit over HTTP/1.1", &runtime, Bound { allocations: 14, octets: 11_500 }, async || {
        client.hit().await;
    });
}

#[test]
fn over_http_2_a_hit_keeps_to_its_bound() {
    let edge = page::edge();
    let (runtime, mut client) = open(async || Http2::open(&edge).await);
    on_the_wire("a hit over HTTP/2", &runtime, Bound { allocations: 14, octets: 3_900 }, async || {
        client.hit().await;
    });
}

#[test]
fn in_the_pipeline_a_hit_keeps_to_its_bound() {
    let edge = page::edge();
    page::hit(&edge, page::request());
    let requests: Vec<_> = (0..HITS).map(|_| page::request()).collect();
    let spent = measure(|| requests.into_iter().for_each(|request| page::hit(&edge, request)));
    keeps_to("a hit in the pipeline", Bound { allocations: 12, octets: 3_100 }, spent);
}

#[test]
fn policy_decides_and_negotiates_without_allocating() {
    let (head, rules) = (page::head(), Rules::default());
    let edge = page::edge();
    let (meta, now) = (page::page(&edge).meta.clone(), edge.clock.now());
    let spent = measure(|| {
        let facts = RequestFacts::read(&head.method, &head.headers, &rules);
        assert_eq!(decide(&facts, Some(&meta), &rules, now), Decision::Serve { stale: None });
        black_box(choose_coding(&head.headers, coding::OFFERED));
    });
    assert_eq!(spent.count_total, 0);
}

#[test]
fn keys_keep_to_their_bounds() {
    let (head, target, rules) = (page::head(), page::target(), QueryRules::default());
    let each = |work: &dyn Fn()| measure(|| (0..HITS).for_each(|_| work()));
    let key = each(&|| drop(black_box(Key::on_route(&target, &rules))));
    keeps_to("a key", Bound { allocations: 1, octets: 80 }, key);
    let variant = each(&|| drop(black_box(variant_key(&page::VARY, &head.headers))));
    keeps_to("the key of a variant", Bound { allocations: 5, octets: 310 }, variant);
}

/// A route with query rules cost 15 allocations for each query of which nothing is dropped.
#[test]
fn a_query_of_which_nothing_is_dropped_is_not_copied() {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let drops = QueryRules { drop: names(&["utm_*", "fbclid"]), ..QueryRules::default() };
    let keeps = QueryRules { keep: Some(names(&["colour", "size", "%70"])), ..QueryRules::default() };
    let sorts = QueryRules { sort: true, ..QueryRules::default() };
    for rules in [&drops, &keeps, &sorts] {
        let spent = measure(|| {
            black_box(normalise_query("colour=red&size=%3410&%73ize=4", rules));
        });
        assert_eq!(spent.count_total, 0, "{rules:?}");
    }
}

/// The key of a variant was computed anew for each stored variant.
#[test]
fn variants_of_the_same_fields_cost_one_key() {
    let edge = page::edge();
    let (head, target) = (page::head(), page::target());
    let client = Client { address: page::PEER.address, scheme: page::PEER.scheme };
    let state = edge.state.load();
    let route = &state.settings.routes[0];
    let upstream = route.action.upstream().unwrap();
    let sent = AsSent { head: &head, target: &target, client: &client, told: &[], route, upstream };
    let key = Key::new(&target);
    let selecting = |variants: usize| {
        edge.memory.invalidate(&key);
        for number in 0..variants {
            let (page, variant) = (page::page(&edge), format!("text/{number}\n"));
            let facts = Facts { vary: page::VARY.into(), variant: variant.into(), ..(*page).clone() };
            let body = StoredBody::new(&[Bytes::from_static(b"x")]);
            edge.memory.store(&key, Arc::new(Stored::new(facts, &page.identity().head, body)));
        }
        let resource = edge.memory.look_up(&key).unwrap();
        assert_eq!(resource.variants().len(), variants);
        measure(|| assert!(resource.select(&sent).is_none())).count_total
    };
    assert_eq!(selecting(32), selecting(1));
}

/// What a condition lists cost five copies of the page's tag, and looking through the list for each of them.
#[test]
fn what_a_condition_lists_costs_no_allocation() {
    let edge = page::edge();
    let answered = |list: &str| {
        let mut request = page::request();
        request.headers_mut().insert(header::IF_NONE_MATCH, HeaderValue::from_str(list).unwrap());
        let spent = measure(|| drop(black_box(handle(&edge, page::PEER, None, request).now_or_never())));
        spent.count_total
    };
    answered("\"a\"");
    assert_eq!(answered(&"\"a\",".repeat(5000)), answered("\"a\""));
}

/// The lines of a refusal were texts of their own, each of several parts.
#[test]
fn what_is_kept_of_a_refusal_is_one_text() {
    let mut response = HeaderMap::new();
    for _ in 0..8 {
        response.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let (head, rules) = (page::head(), Rules::default());
    let kept = || drop(black_box(evidence::refusal(Reason::NoStore, &head.headers, &response, &rules)));
    let spent = measure(|| (0..HITS).for_each(|_| kept()));
    keeps_to("a refusal", Bound { allocations: 8, octets: 1_300 }, spent);
}

/// What may be allocated each time. Of allocations as many as there are; of octets a few more, since names grow.
#[derive(Clone, Copy)]
struct Bound {
    allocations: u64,
    octets: u64,
}

/// Opens a client's connection, on a runtime that has this thread only.
fn open<C>(connects: impl AsyncFnOnce() -> C) -> (runtime::Runtime, C) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(connects());
    (runtime, client)
}

/// Counts hits on a connection that has had some.
#[track_caller]
fn on_the_wire(name: &str, runtime: &runtime::Runtime, bound: Bound, mut hit: impl AsyncFnMut()) {
    let mut hits = async |count| {
        for _ in 0..count {
            hit().await;
        }
    };
    runtime.block_on(hits(WARM_UP));
    let spent = measure(|| runtime.block_on(hits(HITS)));
    keeps_to(name, bound, spent);
    let left = u64::try_from(spent.count_current).unwrap_or_default();
    assert!(left < HITS / 2, "{name}: {left} allocations are left of {HITS} hits");
}

/// The count is the same each time but for strays, of which there is not one in two hits.
#[track_caller]
fn keeps_to(name: &str, bound: Bound, spent: AllocationInfo) {
    let (allocations, octets) = ((spent.count_total + HITS / 2) / HITS, spent.bytes_total / HITS);
    println!("{name}: {allocations} allocations, {octets} octets");
    assert!(allocations <= bound.allocations, "{name}: {allocations} allocations of {}", bound.allocations);
    assert!(octets <= bound.octets, "{name}: {octets} octets of {}", bound.octets);
}

/// What is counted is the mean of so many.
const HITS: u64 = 1000;
/// Buffers and tables grow in these.
const WARM_UP: u64 = 100;
