//! A miss does little avoidable work: what it allocates has a bound, whether its answer is stored or passed on.
//!
//! Counted as in `cost_of_a_hit`: allocations of one thread, on which the whole pipeline runs, the upstream's connection
//! included. The upstream itself allocates nothing. A change that needs more raises its bound and says what for; one that
//! needs less lowers it.
#![expect(clippy::disallowed_macros, reason = "a test prints what it has counted")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod instructions;
mod upstream;

use allocation_counter::measure;
use edge::{message::content::Content, pipeline::handle};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;

use self::upstream::{Kind, PEER, Scene, request};

#[test]
fn a_pass_keeps_to_its_bound() {
    keeps_to("a pass", Kind::Pass, Bound { allocations: 25, octets: 23_500 });
}

#[test]
fn a_stored_miss_keeps_to_its_bound() {
    keeps_to("a stored miss", Kind::Store, Bound { allocations: 55, octets: 38_500 });
}

/// What may be allocated each time, as in `cost_of_a_hit`.
#[derive(Clone, Copy)]
struct Bound {
    allocations: u64,
    octets: u64,
}

/// Counts requests after some that warm up: buffers and tables grow in these.
#[track_caller]
fn keeps_to(name: &str, kind: Kind, bound: Bound) {
    let (runtime, scene) = (upstream::runtime(), Scene::new(kind));
    let mut requests = (0..WARM_UP + COUNTED).map(|number| request(kind, number)).collect::<Vec<_>>();
    let counted = requests.split_off(usize::try_from(WARM_UP).unwrap());
    ask(&runtime, &scene, requests);
    let spent = measure(|| ask(&runtime, &scene, counted));
    let (allocations, octets) = ((spent.count_total + COUNTED / 2) / COUNTED, spent.bytes_total / COUNTED);
    println!("{name}: {allocations} allocations, {octets} octets");
    assert!(allocations <= bound.allocations, "{name}: {allocations} allocations of {}", bound.allocations);
    assert!(octets <= bound.octets, "{name}: {octets} octets of {}", bound.octets);
}

/// Asks for each and reads its answer to the end.
fn ask(runtime: &Runtime, scene: &Scene, requests: Vec<Request<Content>>) {
    runtime.block_on(async {
        for request in requests {
            let mut response = handle(&scene.edge, PEER, Some(&scene.interim), request).await;
            let mut octets = 0;
            while let Some(frame) = response.frame().await {
                octets += frame.unwrap().into_data().unwrap().len();
            }
            assert_eq!((response.status(), octets), (StatusCode::OK, upstream::LENGTH));
            let handled = response.headers()["cache-status"].to_str().unwrap();
            assert!(handled.contains(scene.kind.told()), "{handled}");
        }
    });
}

/// What is counted is the mean of so many.
const COUNTED: u64 = 500;
const WARM_UP: u64 = 100;
