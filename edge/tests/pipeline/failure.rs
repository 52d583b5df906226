//! What clients get while the upstream fails.

use std::{io, sync::Arc, time::Duration};

use edge::upstream::connect::{Dial, Dialling};
use scripted_upstream::{Reply, saying};

use crate::{
    front::{PASSED, front, front_over, pass},
    upstream::Upstream,
};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=10, stale-if-error=600")];

#[tokio::test(start_paused = true)]
async fn a_dead_upstream_is_a_502_problem_that_nobody_stores() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    upstream.stop();
    let got = front(&upstream).get("/").await;
    assert_eq!((got.status, got.field("content-type")), (502, "application/problem+json"));
    assert_eq!(got.field("cache-control"), "no-store");
    assert!(got.text().contains("upstream-refused"), "{}", got.text());
}

#[tokio::test(start_paused = true)]
async fn a_hang_up_is_a_502_and_is_not_repeated_on_a_new_connection() {
    let upstream = Upstream::start(|_| Reply::hang_up());
    let got = front(&upstream).get("/").await;
    assert_eq!((got.status, upstream.count()), (502, 1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_a_504() {
    let upstream = Upstream::start(|_| Reply::ok("late").late(Duration::from_secs(3600)));
    let got = front(&upstream).get("/").await;
    assert_eq!((got.status, got.field("content-type")), (504, "application/problem+json"));
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_stands_in_for_a_dead_upstream() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let front = front(&upstream);
    front.get("/").await;
    pass(60).await;
    upstream.stop();
    let got = front.get("/").await;
    assert_eq!((got.status, got.text(), got.cache(), got.field("age")), (200, "hello", "hit", "60"));
    pass(600).await;
    assert_eq!(front.get("/").await.status, 502, "past its stale-if-error window");
}

#[tokio::test(start_paused = true)]
async fn an_error_answer_never_replaces_a_good_entry() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let front = front(&upstream);
    front.get("/").await;
    pass(60).await;
    upstream.change(|_| Reply::ok("broken").with_status(503).cache_control("max-age=60"));
    assert_eq!(front.get("/").await.text(), "hello");
    upstream.change(|_| Reply::ok("new").fields(FRESH));
    assert_eq!(front.get("/").await.text(), "new");
}

/// Once, the problem's detail held the system's own words: "Connection refused (os error 111)".
#[tokio::test(start_paused = true)]
async fn nothing_of_an_error_of_the_system_reaches_a_client() {
    struct Unreachable;
    impl Dial for Unreachable {
        fn dial<'a>(&'a self, _host: &'a str, _port: u16) -> Dialling<'a> {
            Box::pin(async { Err(io::Error::from_raw_os_error(113)) })
        }
    }
    let got = front_over(Arc::new(Unreachable), PASSED).get("/").await;
    assert_eq!(got.status, 502);
    assert!(got.text().contains("no connection"), "{}", got.text());
    assert!(!got.text().contains("os error"), "{}", got.text());
}
