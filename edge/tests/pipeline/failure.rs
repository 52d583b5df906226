//! What clients get while the upstream fails.

use std::{io, sync::Arc, time::Duration};

use edge::upstream::{
    address::Address,
    connect::{Dial, Dialling},
};
use scripted_upstream::{Reply, saying};

use crate::{
    front::{CACHED, Front, PASSED, front, front_over, front_with, pass},
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
        fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
            Box::pin(async { Err(io::Error::from_raw_os_error(113)) })
        }
    }
    let got = front_over(Arc::new(Unreachable), PASSED).get("/").await;
    assert_eq!(got.status, 502);
    assert!(got.text().contains("no connection"), "{}", got.text());
    assert!(!got.text().contains("os error"), "{}", got.text());
}

/// The status, the phase that the client is told, and the one that is counted.
async fn phase_of(front: &Front) -> (u16, String, Vec<String>) {
    let got = front.get("/").await;
    let problem: serde_json::Value = serde_json::from_str(got.text()).unwrap();
    let phase = problem["phase"].as_str().unwrap_or_default().to_owned();
    let counted = front.metric_lines("gatehouse_edge_upstream_failures_total{upstream=\"origin\",phase=");
    (got.status, phase, counted)
}

/// 502 and 504 did not say whether there was a connection, nor whether the request had gone out.
#[tokio::test(start_paused = true)]
async fn a_failure_tells_how_far_the_request_came() {
    let of = |upstream: &Upstream, more: &str| front_with(upstream, &format!("{more}\n{PASSED}"));
    let upstream = Upstream::start(|_| Reply::hang_up());
    let told = phase_of(&of(&upstream, "")).await;
    let counted = "\"first-byte\",reason=\"upstream-closed\"} 1".to_owned();
    assert_eq!(told, (502, "first-byte".to_owned(), vec![counted]));
    upstream.stop();
    let told = phase_of(&of(&upstream, "")).await;
    let counted = "\"connect\",reason=\"upstream-refused\"} 1".to_owned();
    assert_eq!(told, (502, "connect".to_owned(), vec![counted]));
    let silent = Upstream::start(|_| Reply::ok("late").late(Duration::from_secs(3600)));
    let told = phase_of(&of(&silent, "response_timeout = \"1s\"")).await;
    let counted = "\"first-byte\",reason=\"upstream-timeout\"} 1".to_owned();
    assert_eq!(told, (504, "first-byte".to_owned(), vec![counted]));
}

/// The request's own time is up first, before its upstream's.
#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_phase_is_told_that_was_reached() {
    struct Unanswered;
    impl Dial for Unanswered {
        fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
            Box::pin(std::future::pending())
        }
    }
    let late = "connect_timeout = \"90s\"\nresponse_timeout = \"90s\"\n[timeouts]\ntotal = \"1s\"\n";
    let connecting = front_over(Arc::new(Unanswered), &format!("{late}{PASSED}"));
    assert_eq!(phase_of(&connecting).await, (504, "connect".to_owned(), Vec::new()));
    let silent = Upstream::start(|_| Reply::ok("late").late(Duration::from_secs(3600)));
    for routes in [PASSED, CACHED] {
        let waiting = front_with(&silent, &format!("{late}{routes}"));
        assert_eq!(phase_of(&waiting).await, (504, "first-byte".to_owned(), Vec::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_counted_as_answered_and_as_failed_in_its_body() {
    let upstream = Upstream::start(|_| Reply::streamed().then("begin").then_break());
    let front = front_with(&upstream, PASSED);
    assert!(front.get("/").await.body.is_err());
    let counted = front.metric_lines("gatehouse_edge_upstream_failures_total{upstream=\"origin\",");
    assert_eq!(counted, ["phase=\"body\",reason=\"broken\"} 1"]);
    assert_eq!(front.metric_lines("gatehouse_edge_upstream_requests_total"), ["{upstream=\"origin\"} 1"]);
}
