//! What one client asks is evidence about that client alone: its range, its conditions, its directives, its HEAD.

use http::Request;
use scripted_upstream::{Reply, Seen};

use crate::{
    front::{front, pass, settle},
    representation::TEXT,
    upstream::Upstream,
};

/// The 416 to a range beyond the end was stored as the resource, and every GET got it for an hour; so was a 400.
#[tokio::test(start_paused = true)]
async fn the_answer_to_one_clients_range_is_nobody_elses() {
    for status in [400, 404, 416, 500] {
        let upstream = Upstream::start(move |seen| {
            let reply = match seen.headers.get("range") {
                Some(_) => Reply::ok("no such part").with_status(status),
                None => Reply::ok("0123456789"),
            };
            reply.cache_control("public, max-age=3600")
        });
        let front = front(&upstream);
        assert_eq!(front.get_with("/", &[("range", "bytes=100000-")]).await.status, status);
        assert_eq!((front.get("/").await.status, upstream.count()), (200, 2), "after a {status}");
        assert_eq!(front.get("/").await.cache(), "hit");
    }
}

/// A 416 to one client's range dropped the stored part that others were answered from.
#[tokio::test(start_paused = true)]
async fn a_416_to_one_clients_range_takes_nothing_from_the_others() {
    let upstream = Upstream::start(|seen| match seen.headers["range"].to_str().unwrap() {
        "bytes=0-3" => Reply::ok("0123").with_status(206).fields(&[
            ("cache-control", "max-age=10, stale-while-revalidate=100"),
            ("etag", "\"v1\""),
            ("content-range", "bytes 0-3/10"),
        ]),
        _ => Reply::status(416),
    });
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-3")]).await;
    pass(11).await;
    let beyond = [("range", "bytes=20-"), ("cache-control", "no-cache")];
    assert_eq!(front.get_with("/", &beyond).await.status, 416);
    assert_eq!(front.get_with("/", &[("range", "bytes=1-2")]).await.text(), "12");
}

/// An origin that says how long it may be served stale, and validates.
fn windowed(seen: &Seen) -> Reply {
    let fields = &[("cache-control", "max-age=10, stale-while-revalidate=60"), ("etag", "\"v1\"")];
    match seen.headers.contains_key("if-none-match") {
        true => Reply::status(304).fields(fields),
        false => Reply::ok("hello").fields(fields),
    }
}

/// Such a request began the refresh with its own `no-store`, and the 304 then dropped the entry.
#[tokio::test(start_paused = true)]
async fn a_refresh_is_the_edges_own_question_whatever_directives_its_occasion_had() {
    let upstream = Upstream::start(windowed);
    let front = front(&upstream);
    front.get("/").await;
    pass(11).await;
    let wish = [("cache-control", "no-store"), ("pragma", "no-cache")];
    assert_eq!(front.get_with("/", &wish).await.cache(), "hit");
    settle().await;
    let asked = &upstream.seen()[1].headers;
    assert!(asked.contains_key("if-none-match"));
    assert!(!asked.contains_key("cache-control") && !asked.contains_key("pragma"));
    let hit = front.get("/").await;
    assert_eq!((hit.cache(), hit.field("age"), upstream.count()), ("hit", "0", 2));
}

/// A HEAD in the stale window was answered with the promise of a refresh, and began none.
#[tokio::test(start_paused = true)]
async fn a_head_inside_the_stale_window_begins_the_refresh_as_a_get_does() {
    let upstream = Upstream::start(windowed);
    let front = front(&upstream);
    front.get("/").await;
    pass(11).await;
    let head = front.send(Request::head("/")).await;
    assert_eq!((head.cache(), head.text()), ("hit", ""));
    settle().await;
    assert_eq!(upstream.seen()[1].method, "GET");
    assert_eq!((front.get("/").await.field("age"), upstream.count()), ("0", 2));
}

/// An origin that codes for whoever asks, under another tag and another length.
fn coding(seen: &Seen) -> Reply {
    let fresh = ("cache-control", "max-age=10");
    match seen.headers.contains_key("accept-encoding") {
        true => Reply::ok("coded").fields(&[fresh, ("etag", "\"v1-gz\""), ("content-encoding", "gzip")]),
        false => Reply::ok(TEXT).fields(&[fresh, ("etag", "\"v1\""), ("content-type", "text/plain")]),
    }
}

/// A HEAD was asked with the client's Accept-Encoding; the tag of the gzip form "contradicted" the stored identity form,
/// which was dropped.
#[tokio::test(start_paused = true)]
async fn a_head_is_compared_in_the_form_that_is_stored() {
    let upstream = Upstream::start(coding);
    let front = front(&upstream);
    front.get("/").await;
    pass(11).await;
    front.send(Request::head("/").header("accept-encoding", "gzip")).await;
    assert!(!upstream.seen()[1].headers.contains_key("accept-encoding"));
    assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", 2));
}
