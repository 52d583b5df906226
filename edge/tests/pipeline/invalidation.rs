//! What has been changed is not served as it was before (RFC 9111 §4.4).

use http::Request;
use scripted_upstream::{Gate, Reply, saying};

use crate::{
    front::{cached, front, front_with, settle},
    purge::TAGGED,
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn an_unsafe_method_that_succeeds_invalidates() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front(&upstream);
    front.get("/").await;
    assert_eq!(front.get("/").await.cache(), "hit");
    front.send_body(Request::post("/"), "change").await;
    assert_eq!(front.get("/").await.cache(), "fwd=uri-miss");
}

#[tokio::test(start_paused = true)]
async fn a_change_invalidates_what_its_answer_names_on_the_same_origin_only() {
    let upstream = Upstream::start(|seen| match seen.method.as_str() {
        "POST" => Reply::status(201)
            .fields(&[("location", "/list"), ("content-location", "https://other.example/x")]),
        _ => Reply::ok("x").fields(TAGGED),
    });
    let front = front(&upstream);
    for target in ["/list", "/x"] {
        front.get(target).await;
    }
    front.send_body(Request::post("/new"), "change").await;
    assert_eq!(front.get("/list").await.cache(), "fwd=uri-miss");
    assert_eq!(front.get("/x").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn a_change_elsewhere_does_not_keep_requests_from_sharing_a_fetch() {
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |seen| match seen.method.as_str() {
            "POST" => Reply::ok(""),
            _ => Reply::ok("x").fields(TAGGED).after(&gate),
        }
    });
    let front = front(&upstream);
    let first = front.ask("/a");
    settle().await;
    front.send_body(Request::post("/b"), "change").await;
    let second = front.ask("/a");
    settle().await;
    gate.open();
    assert_eq!((first.await.unwrap().text(), second.await.unwrap().text()), ("x", "x"));
    assert_eq!(upstream.count(), 2);
}

/// A Location was made a key with its whole query, and in its own spelling, so that what the route had stored without
/// `utm_source` was left.
#[tokio::test(start_paused = true)]
async fn a_location_is_read_by_its_own_routes_rules_for_queries() {
    let upstream = Upstream::start(|seen| match seen.method.as_str() {
        "POST" => Reply::status(201).fields(&[("location", "/l%69st?utm_source=mail&b=2&a=1")]),
        _ => Reply::ok("x").fields(TAGGED),
    });
    let front = front_with(&upstream, &cached("query = { drop = [\"utm_*\"], sort = true }"));
    front.get("/list?a=1&b=2&utm_source=x").await;
    assert_eq!(front.get("/list?b=2&a=1").await.cache(), "hit");
    front.send_body(Request::post("/new"), "change").await;
    assert_eq!(front.get("/list?b=2&a=1").await.cache(), "fwd=uri-miss");
}
