//! A 304 to a request that named no representation (RFC 9110 §15.4.5).

use http::Request;
use scripted_upstream::{Reply, first};

use crate::{
    front::{PASSED, front, front_with, pass},
    upstream::Upstream,
};

/// It was delivered to a client that had sent no condition.
#[tokio::test(start_paused = true)]
async fn a_304_that_nobody_asked_for_is_asked_again_once_and_then_a_502() {
    for routes in [crate::front::CACHED, PASSED] {
        let upstream =
            Upstream::start(first(Reply::status(304), |_| Reply::ok("whole").cache_control("max-age=9")));
        let front = front_with(&upstream, routes);
        let got = front.get_with("/", &[("range", "bytes=0-1")]).await;
        assert!(matches!((got.status, got.text()), (206, "wh") | (200, "whole")), "{got:?}");
        upstream.change(|_| Reply::status(304));
        let before = upstream.count();
        assert_eq!((front.get("/other").await.status, upstream.count() - before), (502, 2));
        assert_eq!(front.send(Request::head("/other")).await.status, 502);
    }
}

/// It was asked again with the length of content that had gone already: the upstream took the next request on the connection
/// for it.
#[tokio::test(start_paused = true)]
async fn a_request_with_content_is_not_asked_again() {
    let upstream = Upstream::start(first(Reply::status(304), |_| Reply::ok("whole")));
    let front = front(&upstream);
    assert_eq!(front.send_body(Request::get("/"), "hello").await.status, 502);
    assert_eq!(upstream.count(), 1);
    assert_eq!(front.get("/").await.text(), "whole");
}

/// It freshened what is stored without a validator, for which the upstream had been asked for the whole.
#[tokio::test(start_paused = true)]
async fn a_304_freshens_nothing_without_a_validator() {
    let upstream = Upstream::start(|_| Reply::ok("old").cache_control("max-age=10"));
    let front = front(&upstream);
    front.get("/").await;
    pass(11).await;
    upstream.change(first(Reply::status(304).cache_control("max-age=10"), |_| {
        Reply::ok("new").cache_control("max-age=10")
    }));
    assert_eq!(front.get("/").await.text(), "new");
}

/// Tags of an origin that end in the name of a coding were taken for ours and cut before they went back to it.
#[tokio::test(start_paused = true)]
async fn an_origins_own_tag_of_a_coded_body_goes_back_as_it_came() {
    let upstream = Upstream::start(|seen| match seen.headers.get("if-none-match") {
        Some(tag) if tag == "\"v1;gzip\"" => Reply::status(304).header("etag", "\"v1;gzip\""),
        _ => Reply::ok("x").header("etag", "\"v1;gzip\""),
    });
    let got = front_with(&upstream, PASSED).get_with("/", &[("if-none-match", "\"v1;gzip\"")]).await;
    assert_eq!(got.status, 304);
}

/// The digests of the whole content went with a part of it, and that of the identity form with a coded one.
#[tokio::test(start_paused = true)]
async fn digests_go_only_with_the_content_they_are_of() {
    const DIGESTS: [&str; 3] = ["content-digest", "content-md5", "repr-digest"];
    let upstream = Upstream::start(|_| {
        let reply = Reply::ok(crate::representation::TEXT).fields(crate::representation::PAGE);
        DIGESTS.iter().fold(reply, |reply, name| reply.header(name, "x"))
    });
    let front = front(&upstream);
    let has = |got: &crate::front::Got| DIGESTS.map(|name| !got.field(name).is_empty());
    assert_eq!(has(&front.get("/").await), [true, true, true]);
    assert_eq!(has(&front.get_with("/", &[("range", "bytes=0-8")]).await), [false, false, true]);
    assert_eq!(has(&front.get_with("/", &[("range", "bytes=0-1, 4-5")]).await), [false, false, true]);
    assert_eq!(has(&front.get_with("/", &[("accept-encoding", "gzip")]).await), [false, false, false]);
    assert_eq!(has(&front.get_with("/", &[("if-none-match", "\"v1\"")]).await), [false, false, true]);
}
