//! What one route bears: its times, its bounds, and the time that whoever asks has.

use std::time::Duration;

use http::Request;
use scripted_upstream::{Gate, Reply, Seen};

use crate::{
    front::{Front, front_with, settle},
    upstream::Upstream,
};

/// One route with these keys, behind a proxy that is trusted.
fn on_route(upstream: &Upstream, keys: &str) -> Front {
    let route = format!("[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n{keys}\n");
    front_with(
        upstream,
        &format!("response_timeout = \"5s\"\n[clients]\ntrusted_proxies = [\"192.0.2.1\"]\n{route}"),
    )
}

fn late(seconds: u64) -> Upstream {
    Upstream::start(move |_| Reply::ok("late").late(Duration::from_secs(seconds)))
}

#[tokio::test(start_paused = true)]
async fn a_routes_first_byte_stands_in_place_of_its_upstreams() {
    let (soon, later) = (late(8), late(11));
    let keys = "timeouts = { first_byte = \"10s\" }";
    assert_eq!(on_route(&soon, keys).get("/").await.status, 200);
    assert_eq!(on_route(&later, keys).get("/").await.status, 504);
    assert_eq!(on_route(&soon, "").get("/").await.status, 504, "by the upstream's own");
    let keys = "timeouts = { total = \"3s\" }";
    assert_eq!(on_route(&soon, keys).get("/").await.status, 504);
}

#[tokio::test(start_paused = true)]
async fn a_whole_exchange_is_504_before_its_head_and_cut_after_it() {
    let keys = "timeouts = { whole = \"3s\" }";
    let posted = on_route(&late(4), keys).send_body(Request::post("/"), "x").await;
    assert_eq!(posted.status, 504, "with content too");
    let (pieces, reply) = Reply::in_pieces();
    let reply = std::sync::Mutex::new(Some(reply));
    let upstream = Upstream::start(move |_| reply.lock().unwrap().take().unwrap());
    let front = on_route(&upstream, keys);
    let asked = front.ask("/");
    for _ in 0..2 {
        pieces.send("piece");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(pieces.are_wanted());
    let got = asked.await.unwrap();
    assert!(got.status == 200 && got.body.is_err(), "{got:?}");
    settle().await;
    assert!(!pieces.are_wanted(), "the upstream is let go");
}

#[tokio::test(start_paused = true)]
async fn pieces_have_the_routes_time_between_them() {
    for (pause, comes) in [("10s", true), ("5s", false)] {
        let upstream = Upstream::start(|_| {
            let gate = Gate::closed();
            let opens = gate.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(8)).await;
                opens.open();
            });
            Reply::streamed().then("a").then_wait(&gate).then("b")
        });
        let keys = format!("timeouts = {{ between_bytes = \"{pause}\" }}");
        let got = on_route(&upstream, &keys).get("/").await;
        assert_eq!(got.body.is_ok(), comes, "{pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trusted_proxys_deadline_shortens_its_request_and_goes_on() {
    let upstream = late(3);
    let front = on_route(&upstream, "");
    let told = |upstream: &Upstream| upstream.seen().last().unwrap().header("x-request-deadline").to_owned();
    assert_eq!(front.get("/").await.status, 200);
    assert_eq!(told(&upstream), "5000");
    let patient = Request::post("/").header("x-request-deadline", "60000");
    assert_eq!(front.send(patient).await.status, 200);
    assert_eq!(told(&upstream), "5000", "it is never longer");
    let short = Request::delete("/").header("x-request-deadline", "2000");
    assert_eq!(front.send(short).await.status, 504);
    assert_eq!(told(&upstream), "2000");
    // A fetch for everyone goes on, however little time its first client has.
    let front = on_route(&upstream, "cache = { default_ttl = \"60s\" }");
    let got = front.get_with("/", &[("x-request-deadline", "2000")]).await;
    assert_eq!((got.status, told(&upstream).as_str()), (504, "5000"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(front.get("/").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_requests_time_is_what_its_upstream_is_told() {
    let upstream = Upstream::start(|_| Reply::ok("x"));
    let front = on_route(&upstream, "timeouts = { total = \"2s\" }");
    assert_eq!(front.send(Request::delete("/")).await.status, 200);
    assert_eq!(upstream.only().header("x-request-deadline"), "2000");
}

#[tokio::test(start_paused = true)]
async fn a_routes_bound_of_a_body_stands_in_place_of_everyones() {
    let upstream = Upstream::start(|_| Reply::ok("x"));
    let front = on_route(&upstream, "bounds = { body = \"3 B\" }");
    assert_eq!(front.send_body(Request::post("/"), "abc").await.status, 200);
    assert_eq!(front.send_body(Request::post("/"), "abcd").await.status, 413);
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_a_route_bears_get_what_is_stale_or_503() {
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |seen: &Seen| match (&*seen.target, seen.earlier) {
            ("/slow", _) => Reply::ok("slow").after(&gate),
            ("/page", _) => Reply::ok("page").cache_control("max-age=1, stale-if-error=600"),
            _ => Reply::ok("other").cache_control("no-store"),
        }
    });
    let front = on_route(&upstream, "bounds = { requests = 1 }\ncache = {}");
    assert_eq!(front.get("/page").await.status, 200);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let slow = front.ask("/slow");
    settle().await;
    let refused = front.get("/other").await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, "1"));
    assert!(refused.text().contains("route-busy"), "{}", refused.text());
    let stale = front.get("/page").await;
    assert_eq!((stale.status, stale.text()), (200, "page"));
    let reasons = front.metric_lines("gatehouse_edge_reasons_total{route=\"all\",reason=\"route-busy\"}");
    assert_eq!(reasons, [" 1"]);
    gate.open();
    assert_eq!(slow.await.unwrap().status, 200);
    assert_eq!(front.get("/other").await.status, 200);
}
