//! What the origin has replaced or withdrawn displaces what is stored; its failures do not.

use std::sync::{Arc, Mutex};

use scripted_upstream::{Pieces, Reply};

use crate::{
    front::{cached, front, front_with, pass, settle},
    upstream::Upstream,
};

const WINDOWED: (&str, &str) =
    ("cache-control", "max-age=10, stale-while-revalidate=600, stale-if-error=6000");

/// A refresh that got one of these left the old page: served to the end of its window, and again at the origin's next failure.
#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_or_may_not_be_stored_displaces_the_page_before_it() {
    for (status, directive) in
        [(404, "no-store"), (410, "no-store"), (302, "no-cache"), (200, "private"), (200, "no-store")]
    {
        let upstream = Upstream::start(|_| Reply::ok("old").fields(&[WINDOWED]));
        let front = front(&upstream);
        front.get("/").await;
        pass(11).await;
        upstream.change(move |_| Reply::ok("now").with_status(status).cache_control(directive));
        assert_eq!(front.get("/").await.text(), "old", "served while it is refreshed");
        settle().await;
        let now = front.get("/").await;
        assert_eq!((now.status, now.text()), (status, "now"), "{directive}");
        assert!(now.cache().starts_with("fwd="), "{}", now.cache());
        upstream.change(|_| Reply::ok("broken").with_status(503));
        assert_eq!(front.get("/").await.status, 503, "{status} {directive}: the old page is gone for good");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_and_refusals_of_one_client_displace_nothing() {
    for status in [401, 403, 429, 500, 502, 503] {
        let upstream = Upstream::start(|_| Reply::ok("old").fields(&[WINDOWED]));
        let front = front(&upstream);
        front.get("/").await;
        pass(11).await;
        upstream.change(move |_| Reply::ok("no").with_status(status));
        for _ in 0..3 {
            assert_eq!(front.get("/").await.text(), "old", "{status}");
            settle().await;
        }
    }
}

/// A page thirty days past its lifetime came where the origin was away.
#[tokio::test(start_paused = true)]
async fn what_stands_in_for_an_origin_that_is_away_is_at_most_so_stale() {
    for (rule, bound) in [("", 86_400), ("stale_on_disconnect = \"60s\"", 60)] {
        let upstream = Upstream::start(|_| Reply::ok("old").cache_control("max-age=10"));
        let front = front_with(&upstream, &cached(rule));
        front.get("/").await;
        upstream.stop();
        pass(10 + bound).await;
        assert_eq!(front.get("/").await.text(), "old");
        pass(1).await;
        assert_eq!(front.get("/").await.status, 502);
    }
}

/// A page for somebody who is signed in is another page, and withdraws nothing from the others.
#[tokio::test(start_paused = true)]
async fn what_one_person_is_answered_displaces_nothing() {
    let upstream =
        Upstream::start(|_| Reply::ok("for all").cache_control("public, max-age=10, stale-if-error=600"));
    let front = front(&upstream);
    front.get("/").await;
    pass(11).await;
    upstream.change(|_| Reply::ok("for me").cache_control("private"));
    for person in [("cookie", "id=1"), ("authorization", "Basic eDp5")] {
        assert_eq!(front.get_with("/", &[person]).await.text(), "for me");
    }
    upstream.change(|_| Reply::ok("broken").with_status(503));
    assert_eq!(front.get("/").await.text(), "for all");
}

/// The page whose body was slow came back after the 410, for the whole of its lifetime.
#[tokio::test(start_paused = true)]
async fn a_body_that_was_on_its_way_does_not_come_back_after_what_withdrew_it() {
    let slow: Arc<Mutex<Option<Pieces>>> = Arc::default();
    let upstream = Upstream::start({
        let slow = Arc::clone(&slow);
        move |seen| match seen.earlier {
            0 => {
                let (pieces, reply) = Reply::in_pieces();
                *slow.lock().unwrap() = Some(pieces);
                reply.fields(&[WINDOWED])
            }
            _ => Reply::status(410).cache_control("no-store"),
        }
    });
    let front = front(&upstream);
    let first = front.ask("/");
    settle().await;
    pass(1).await;
    assert_eq!(front.get_with("/", &[("cache-control", "no-cache")]).await.status, 410);
    slow.lock().unwrap().take().unwrap().send("old");
    assert_eq!(first.await.unwrap().text(), "old", "it was asked for before");
    settle().await;
    assert_eq!(front.get("/").await.status, 410);
}
