//! What has been changed is not served as it was before (RFC 9111 §4.4).

use std::sync::Arc;

use http::Request;
use tokio::sync::Notify;

use crate::{
    purge::TAGGED,
    script::{Front, Origin, Reply, answer, front, settle},
};

#[tokio::test(start_paused = true)]
async fn an_unsafe_method_that_succeeds_invalidates() {
    let origin = Origin::saying(&[("cache-control", "max-age=60")], "hello");
    let front = front(&origin);
    front.get("/").await;
    assert_eq!(front.get("/").await.cache(), "hit");
    front.send_body(Request::post("/"), "change").await;
    assert_eq!(front.get("/").await.cache(), "fwd=uri-miss");
}

#[tokio::test(start_paused = true)]
async fn a_change_invalidates_what_its_answer_names_on_the_same_origin_only() {
    let origin = Origin::new(|seen| {
        Reply::Now(match &*seen.method {
            "POST" => {
                answer(201, &[("location", "/list"), ("content-location", "https://other.example/x")], "")
            }
            _ => answer(200, TAGGED, "x"),
        })
    });
    let front = front(&origin);
    for target in ["/list", "/x"] {
        front.get(target).await;
    }
    front.send_body(Request::post("/new"), "change").await;
    assert_eq!(front.get("/list").await.cache(), "fwd=uri-miss");
    assert_eq!(front.get("/x").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn a_change_elsewhere_does_not_keep_requests_from_sharing_a_fetch() {
    let barrier = Arc::new(Notify::new());
    let origin = Origin::new({
        let barrier = Arc::clone(&barrier);
        move |seen| match &*seen.method {
            "POST" => Reply::Now(answer(200, &[], "")),
            _ => Reply::After(Arc::clone(&barrier), answer(200, TAGGED, "x")),
        }
    });
    let front = front(&origin);
    let ask = |front: &Front| {
        let front = front.clone();
        tokio::spawn(async move { front.get("/a").await })
    };
    let first = ask(&front);
    settle().await;
    front.send_body(Request::post("/b"), "change").await;
    let second = ask(&front);
    settle().await;
    barrier.notify_one();
    assert_eq!((first.await.unwrap().text(), second.await.unwrap().text()), ("x", "x"));
    assert_eq!(origin.requests(), 2);
}
