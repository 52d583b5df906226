//! What a route says of lifetimes, its own and those of browsers, against what an origin states.

use scripted_upstream::{Reply, saying};

use crate::{
    front::{cached, front_with, pass, settle},
    upstream::Upstream,
};

/// Express says `public, max-age=0` unasked; `default_ttl` has no say in that, so nothing could make it a hit.
#[tokio::test(start_paused = true)]
async fn ttl_stands_in_place_of_a_lifetime_that_the_origin_states() {
    let express = [("cache-control", "public, max-age=0"), ("expires", "0")];
    let upstream = Upstream::start(move |_| Reply::ok("page").fields(&express));
    let front = front_with(&upstream, &cached("ttl = \"60s\", default_ttl = \"5s\""));
    front.get("/").await;
    pass(59).await;
    let hit = front.get("/").await;
    assert_eq!((hit.field("cache-status"), hit.field("age")), ("gatehouse; hit; ttl=1", "59"));
    pass(2).await;
    assert_eq!(front.get("/").await.cache(), "fwd=stale");
}

#[tokio::test(start_paused = true)]
async fn ttl_by_status_is_for_the_statuses_that_it_names() {
    let upstream = Upstream::start(|seen| match &*seen.target {
        "/gone" => Reply::status(404).fields(&[]),
        "/moved" => Reply::status(302).fields(&[("location", "/")]),
        _ => Reply::ok("page"),
    });
    let front = front_with(&upstream, &cached("ttl = { 200 = \"5m\", 404 = \"10s\" }"));
    for (target, seconds, expected) in [("/", 299, "hit"), ("/gone", 9, "hit"), ("/moved", 0, "fwd=uri-miss")]
    {
        front.get(target).await;
        pass(seconds).await;
        let got = front.get(target).await;
        assert!(got.cache() == expected || target == "/moved" && got.cache() != "hit", "{target} {got:?}");
    }
    pass(2).await;
    assert_ne!(front.get("/gone").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn ttl_makes_nothing_storable_that_the_origin_forbids() {
    for fields in [
        &[("cache-control", "no-store")][..],
        &[("cache-control", "private, max-age=0")][..],
        &[("cache-control", "no-cache; no-store")][..],
        &[("cache-control", "public, max-age=0"), ("set-cookie", "id=1")][..],
        &[("content-type", "text/event-stream")][..],
    ] {
        let fields: &'static [(&str, &str)] = Box::leak(fields.to_vec().into_boxed_slice());
        let upstream = Upstream::start(saying(fields, "mine"));
        let front = front_with(&upstream, &cached("ttl = \"60s\""));
        front.get("/").await;
        front.get("/").await;
        assert_eq!(upstream.count(), 2, "{fields:?}");
    }
}

/// `default_ttl` stored an event stream and replayed it to whoever came later.
#[tokio::test(start_paused = true)]
async fn an_event_stream_is_passed_on_as_it_comes_and_never_replayed() {
    let events = Upstream::start(saying(&[("content-type", "text/event-stream")], "data: 1\n\n"));
    let front = front_with(&events, &cached("default_ttl = \"60s\", stale_while_revalidate = \"60s\""));
    for asked in 1..=3 {
        let got = front.get("/").await;
        assert_eq!((got.text(), events.count()), ("data: 1\n\n", asked));
        assert!(got.field("cache-status").ends_with("detail=event-stream"), "{got:?}");
    }
}

/// An answer that came without a lifetime was passed on with the origin's `max-age=0`.
#[tokio::test(start_paused = true)]
async fn the_routes_word_to_browsers_holds_where_the_origin_says_max_age_0() {
    let browser = "browser = \"max-age=300\"";
    let zero = [("cache-control", "public, max-age=0"), ("expires", "0")];
    let upstream = Upstream::start(move |_| Reply::ok("page").fields(&zero));
    let front = front_with(&upstream, &cached(browser));
    for fields in [&[][..], &[][..], &[("if-none-match", "\"x\"")][..], &[("range", "bytes=0-1")][..]] {
        let got = front.get_with("/", fields).await;
        assert_eq!((got.field("cache-control"), got.field("expires")), ("max-age=300", ""), "{fields:?}");
    }
    let head = front.send(http::Request::head("/")).await;
    assert_eq!(head.field("cache-control"), "max-age=300");
}

/// A browser that got an answer kept here for longer than its own lifetime had to fetch it anew at once: Chromium did so twice a
/// page.
#[tokio::test(start_paused = true)]
async fn a_browsers_lifetime_is_not_used_up_at_the_edge() {
    let upstream = Upstream::start(saying(&[("cache-control", "public, max-age=300, s-maxage=600")], "list"));
    let front = front_with(&upstream, &cached("browser = \"public, max-age=300\""));
    assert_eq!(front.get("/").await.field("cache-control"), "public, max-age=300");
    pass(486).await;
    for fields in [&[][..], &[("range", "bytes=0-1")][..]] {
        let got = front.get_with("/", fields).await;
        let told = (got.field("age"), got.field("cache-control"));
        assert_eq!(told, ("486", "public, max-age=786"), "{fields:?}");
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_routes_word_to_browsers_is_not_for_what_is_one_clients_own() {
    let own = [
        (&[][..], &[("cache-control", "private, max-age=0")][..]),
        (&[][..], &[("cache-control", "no-store")][..]),
        (&[][..], &[("cache-control", "max-age=0"), ("set-cookie", "a=1")][..]),
        (&[("cookie", "a=1")][..], &[("cache-control", "max-age=0")][..]),
        (&[("authorization", "x")][..], &[("cache-control", "max-age=0")][..]),
    ];
    for (request, fields) in own {
        let fields: &'static [(&str, &str)] = Box::leak(fields.to_vec().into_boxed_slice());
        let upstream = Upstream::start(saying(fields, "mine"));
        let front = front_with(&upstream, &cached("browser = \"max-age=300\""));
        for _ in 0..2 {
            let got = front.get_with("/", request).await;
            assert_eq!(got.field("cache-control"), fields[0].1, "{request:?}");
            settle().await;
        }
    }
}

/// Browsers kept a stored redirect for ever, where no purge reaches it.
#[tokio::test(start_paused = true)]
async fn the_routes_word_to_browsers_is_for_what_they_keep_for_ever_too() {
    for (status, told) in [(301, "no-cache"), (308, "no-cache"), (302, ""), (404, "")] {
        let upstream = Upstream::start(move |_| Reply::status(status).fields(&[("location", "/b")]));
        let front = front_with(&upstream, &cached("default_ttl = \"60s\", browser = \"no-cache\""));
        for asked in ["miss", "hit"] {
            assert_eq!(front.get("/").await.field("cache-control"), told, "{status}: {asked}");
            settle().await;
        }
    }
}

/// Where the app was down, a client was shown the page that had been made for another: nobody had said that it is for all.
#[tokio::test(start_paused = true)]
async fn what_nobody_called_fit_for_another_use_stands_in_for_nothing() {
    let tagged = ("etag", "\"a\"");
    for (fields, answered) in [
        (vec![tagged], 502),
        (vec![tagged, ("cache-control", "max-age=0")], 200),
        (vec![tagged, ("cache-control", "public")], 200),
    ] {
        let upstream = Upstream::start(move |_| Reply::ok("for ada").fields(&fields));
        let front = front_with(&upstream, &cached(""));
        front.get("/").await;
        settle().await;
        upstream.stop();
        assert_eq!(front.get("/").await.status, answered);
    }
}

/// Each of these was read as unknown directives, and kept for a week by a guess from Last-Modified.
#[tokio::test(start_paused = true)]
async fn a_refusal_counts_however_it_is_written() {
    for line in ["no-cache; no-store", "private; max-age=0", "private no-cache", "max-age=60,private;"] {
        let upstream = Upstream::start(move |_| {
            let dated = ("last-modified", "Mon, 23 Nov 2025 12:00:00 GMT");
            Reply::ok("mine").fields(&[("cache-control", line), dated])
        });
        let front = front_with(&upstream, &cached("default_ttl = \"60s\""));
        front.get("/").await;
        front.get("/").await;
        assert_eq!(upstream.count(), 2, "{line}");
    }
}
