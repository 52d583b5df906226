//! What a 304 or a HEAD changes: all that storing derives from a head is derived again (RFC 9111 §4.1, §4.3.4, §4.3.5).

use http::Request;
use scripted_upstream::{Reply, Seen};

use crate::{
    front::{front, pass},
    representation::TEXT,
    upstream::Upstream,
};

const DEVICE: &str = "x-device";

/// An origin that learns to vary: at first it says nothing of it.
fn varying(seen: &Seen) -> Reply {
    let phone = seen.headers.get(DEVICE).is_some_and(|device| device == "phone");
    let fields = [("cache-control", "max-age=10"), ("vary", "X-Device")];
    match (phone, seen.headers.get("if-none-match")) {
        (false, Some(tag)) if tag == "\"desktop\"" => Reply::status(304).fields(&fields),
        (true, _) => Reply::ok("for phones").fields(&fields).header("etag", "\"phone\""),
        _ => Reply::ok("for desktops").fields(&fields).header("etag", "\"desktop\""),
    }
}

fn plain(_: &Seen) -> Reply {
    Reply::ok("for desktops").fields(&[("cache-control", "max-age=10"), ("etag", "\"desktop\"")])
}

/// The Vary of a 304 or of a HEAD was merged into the head and not into what makes variants: a phone got the desktop's page
/// as a hit.
#[tokio::test(start_paused = true)]
async fn a_vary_that_comes_later_makes_a_variant_for_the_request_that_asked() {
    for by in ["GET", "HEAD"] {
        let upstream = Upstream::start(plain);
        let front = front(&upstream);
        front.get("/").await;
        pass(11).await;
        upstream.change(varying);
        front.send(Request::builder().method(by).uri("/")).await;
        assert_eq!(front.get("/").await.cache(), "hit", "{by}");
        let phone = front.get_with("/", &[(DEVICE, "phone")]).await;
        assert_eq!((phone.text(), phone.cache()), ("for phones", "fwd=vary-miss"), "{by}");
        assert_eq!((front.get("/").await.text(), upstream.count()), ("for desktops", 3), "{by}");
    }
}

/// The new variant was stored beside the response that had been validated, which went on answering everybody else.
#[tokio::test(start_paused = true)]
async fn a_whole_with_another_vary_takes_the_place_of_what_was_validated() {
    let upstream = Upstream::start(plain);
    let front = front(&upstream);
    front.get("/").await;
    upstream.change(varying);
    let reload = [(DEVICE, "phone"), ("cache-control", "no-cache")];
    assert_eq!(front.get_with("/", &reload).await.text(), "for phones");
    assert_eq!(front.get("/").await.cache(), "fwd=vary-miss");
}

/// `no-transform` that came with a 304 was ignored, and the stored codings went on being sent.
#[tokio::test(start_paused = true)]
async fn a_304_that_forbids_transforming_ends_the_codings() {
    let fields = [("content-type", "text/plain"), ("etag", "\"v1\"")];
    let upstream = Upstream::start(move |_| Reply::ok(TEXT).fields(&fields).cache_control("max-age=10"));
    let front = front(&upstream);
    let coded = front.get_with("/", &[("accept-encoding", "gzip")]).await;
    assert_eq!(coded.field("content-encoding"), "gzip");
    pass(11).await;
    upstream.change(|_| Reply::status(304).cache_control("max-age=10, no-transform"));
    for _ in 0..2 {
        let got = front.get_with("/", &[("accept-encoding", "gzip")]).await;
        assert_eq!((got.field("content-encoding"), got.text()), ("", TEXT));
    }
    assert_eq!(upstream.count(), 2);
}

/// A HEAD that withdraws the permission to store left the stored page fresh.
#[tokio::test(start_paused = true)]
async fn a_head_that_forbids_storing_drops_what_is_stored() {
    let upstream = Upstream::start(plain);
    let front = front(&upstream);
    front.get("/").await;
    pass(11).await;
    upstream.change(|_| {
        Reply::ok("for desktops").fields(&[("cache-control", "private"), ("etag", "\"desktop\"")])
    });
    front.send(Request::head("/")).await;
    assert_eq!(front.get("/").await.cache(), "fwd=uri-miss");
}

/// A Vary that the origin kept out of the stored head, or named as of one connection, was lost: with the next 304 at the latest a
/// phone got the desktop's page.
#[tokio::test(start_paused = true)]
async fn what_a_page_varies_on_is_remembered_however_the_origin_names_the_field() {
    for (name, value) in [("cache-control", "max-age=10, no-cache=\"Vary\""), ("connection", "vary")] {
        let upstream = Upstream::start(move |seen| {
            let fields = [("cache-control", "max-age=10"), ("etag", "\"desktop\""), ("vary", "X-Device")];
            match seen.headers.contains_key("if-none-match") {
                true => Reply::status(304).header("cache-control", "max-age=10"),
                false => Reply::ok(seen.header(DEVICE).to_owned()).header(name, value).fields(&fields),
            }
        });
        let front = front(&upstream);
        let desktop = [(DEVICE, "desktop")];
        front.get_with("/", &desktop).await;
        pass(11).await;
        front.get_with("/", &desktop).await;
        assert_eq!(front.get_with("/", &desktop).await.cache(), "hit", "{name}");
        assert_eq!(front.get_with("/", &[(DEVICE, "phone")]).await.text(), "phone", "{name}");
    }
}
