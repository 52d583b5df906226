//! What clients get while the upstream fails.

use std::time::Duration;

use crate::script::{Origin, Reply, answer, front, pass};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=10, stale-if-error=600")];

#[tokio::test(start_paused = true)]
async fn a_dead_upstream_is_a_502_problem_that_nobody_stores() {
    let origin = Origin::saying(FRESH, "hello");
    origin.unplug();
    let got = front(&origin).get("/").await;
    assert_eq!((got.status, got.field("content-type")), (502, "application/problem+json"));
    assert_eq!(got.field("cache-control"), "no-store");
    assert!(got.text().contains("upstream-refused"), "{}", got.text());
}

#[tokio::test(start_paused = true)]
async fn a_hang_up_is_a_502_and_is_not_repeated_on_a_new_connection() {
    let origin = Origin::new(|_| Reply::HangUp);
    let got = front(&origin).get("/").await;
    assert_eq!((got.status, origin.requests()), (502, 1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_a_504() {
    let origin = Origin::new(|_| Reply::Late(Duration::from_secs(3600), answer(200, &[], "late")));
    let got = front(&origin).get("/").await;
    assert_eq!((got.status, got.field("content-type")), (504, "application/problem+json"));
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_stands_in_for_a_dead_upstream() {
    let origin = Origin::saying(FRESH, "hello");
    let front = front(&origin);
    front.get("/").await;
    pass(60).await;
    origin.unplug();
    let got = front.get("/").await;
    assert_eq!((got.status, got.text(), got.cache(), got.field("age")), (200, "hello", "hit", "60"));
    pass(600).await;
    assert_eq!(front.get("/").await.status, 502, "past its stale-if-error window");
}

#[tokio::test(start_paused = true)]
async fn an_error_answer_never_replaces_a_good_entry() {
    let origin = Origin::saying(FRESH, "hello");
    let front = front(&origin);
    front.get("/").await;
    pass(60).await;
    origin.change(|_| Reply::Now(answer(503, &[("cache-control", "max-age=60")], "broken")));
    assert_eq!(front.get("/").await.text(), "hello");
    origin.change(|_| Reply::Now(answer(200, FRESH, "new")));
    assert_eq!(front.get("/").await.text(), "new");
}
