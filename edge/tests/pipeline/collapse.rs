//! One fetch answers many requests, as its bytes arrive.

use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt as _;
use tokio::sync::Notify;

use crate::script::{Got, Origin, Reply, answer, finish, front, in_pieces, settle};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_for_a_cold_key_make_one_upstream_request() {
    let barrier = Arc::new(Notify::new());
    let origin = Origin::new({
        let barrier = Arc::clone(&barrier);
        move |_| Reply::After(Arc::clone(&barrier), answer(200, FRESH, "hello"))
    });
    let front = front(&origin);
    let requests: Vec<_> = (0..1000)
        .map(|_| {
            let front = front.clone();
            tokio::spawn(async move { front.get("/").await })
        })
        .collect();
    settle().await;
    barrier.notify_one();
    let mut collapsed = 0;
    for request in requests {
        let got = request.await.unwrap();
        assert_eq!(got.text(), "hello");
        collapsed += usize::from(got.field("cache-status").contains("; collapsed"));
    }
    assert_eq!((origin.requests(), collapsed), (1, 999));
}

#[tokio::test(start_paused = true)]
async fn a_follower_reads_while_the_body_arrives() {
    let (pieces, response) = in_pieces(FRESH);
    let response = std::sync::Mutex::new(Some(response));
    let origin = Origin::new(move |_| Reply::Now(response.lock().unwrap().take().expect("one request")));
    let front = front(&origin);
    pieces.send("one ");
    let mut leader = front.begin(Request::get("/")).await;
    let mut follower = front.begin(Request::get("/")).await;
    for reader in [&mut leader, &mut follower] {
        let frame = reader.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "one ");
    }
    pieces.send("two");
    drop(pieces);
    assert_eq!(finish(leader).await.text(), "two");
    assert_eq!(finish(follower).await.text(), "two");
    assert_eq!(front.get("/").await.text(), "one two");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fill_survives_the_client_that_began_it() {
    let (pieces, response) = in_pieces(FRESH);
    let response = std::sync::Mutex::new(Some(response));
    let origin = Origin::new(move |_| Reply::Now(response.lock().unwrap().take().expect("one request")));
    let front = front(&origin);
    pieces.send("one ");
    drop(front.begin(Request::get("/")).await);
    settle().await;
    pieces.send("two");
    drop(pieces);
    settle().await;
    let got = front.get("/").await;
    assert_eq!((got.text(), got.cache()), ("one two", "hit"));
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_breaks_off_is_broken_for_every_reader_and_not_stored() {
    let (pieces, response) = in_pieces(FRESH);
    let first = std::sync::Mutex::new(Some(response));
    let origin = Origin::new(move |_| {
        let whole = || answer(200, FRESH, "whole");
        Reply::Now(first.lock().unwrap().take().unwrap_or_else(whole))
    });
    let front = front(&origin);
    pieces.send("half");
    let leader = front.begin(Request::get("/")).await;
    let follower = front.begin(Request::get("/")).await;
    settle().await;
    pieces.fail();
    assert!(finish(leader).await.body.is_err());
    assert!(finish(follower).await.body.is_err());
    let again = front.get("/").await;
    assert_eq!((again.text(), again.cache()), ("whole", "fwd=uri-miss"));
}

#[tokio::test(start_paused = true)]
async fn followers_of_an_answer_that_is_private_ask_for_themselves_and_later_ones_do_not_queue() {
    let barrier = Arc::new(Notify::new());
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let origin = Origin::new({
        let barrier = Arc::clone(&barrier);
        move |_| {
            let private = answer(200, &[("cache-control", "private")], "mine");
            match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Reply::After(Arc::clone(&barrier), private),
                _ => Reply::Now(private),
            }
        }
    });
    let front = front(&origin);
    let requests: Vec<_> = (0..3)
        .map(|_| {
            let front = front.clone();
            tokio::spawn(async move { front.get("/").await })
        })
        .collect();
    settle().await;
    assert_eq!(origin.requests(), 1);
    barrier.notify_one();
    for request in requests {
        let got: Got = request.await.unwrap();
        assert_eq!(got.text(), "mine");
    }
    assert_eq!(origin.requests(), 3);
    assert_eq!(front.get("/").await.cache(), "fwd=bypass", "the marker lets it pass without waiting");
}
