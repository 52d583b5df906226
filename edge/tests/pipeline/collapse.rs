//! One fetch answers many requests, as its bytes arrive.

use http::Request;
use http_body_util::BodyExt as _;
use scripted_upstream::{Gate, Reply, first};

use crate::{
    front::{Got, finish, front, settle},
    upstream::Upstream,
};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_for_a_cold_key_make_one_upstream_request() {
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |_| Reply::ok("hello").fields(FRESH).after(&gate)
    });
    let front = front(&upstream);
    let requests: Vec<_> = (0..1000).map(|_| front.ask("/")).collect();
    settle().await;
    gate.open();
    let mut collapsed = 0;
    for request in requests {
        let got = request.await.unwrap();
        assert_eq!(got.text(), "hello");
        collapsed += usize::from(got.field("cache-status").contains("; collapsed"));
    }
    assert_eq!((upstream.count(), collapsed), (1, 999));
}

#[tokio::test(start_paused = true)]
async fn a_follower_reads_while_the_body_arrives() {
    let (pieces, reply) = Reply::in_pieces();
    let upstream = Upstream::start(first(reply.fields(FRESH), |_| panic!("one request")));
    let front = front(&upstream);
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
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fill_survives_the_client_that_began_it() {
    let (pieces, reply) = Reply::in_pieces();
    let upstream = Upstream::start(first(reply.fields(FRESH), |_| panic!("one request")));
    let front = front(&upstream);
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
    let (pieces, reply) = Reply::in_pieces();
    let upstream = Upstream::start(first(reply.fields(FRESH), |_| Reply::ok("whole").fields(FRESH)));
    let front = front(&upstream);
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
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let private = Reply::ok("mine").cache_control("private");
        if seen.earlier == 0 { private.after(&held) } else { private }
    });
    let front = front(&upstream);
    let requests: Vec<_> = (0..3).map(|_| front.ask("/")).collect();
    settle().await;
    assert_eq!(upstream.count(), 1);
    gate.open();
    for request in requests {
        let got: Got = request.await.unwrap();
        assert_eq!(got.text(), "mine");
    }
    assert_eq!(upstream.count(), 3);
    assert_eq!(front.get("/").await.cache(), "fwd=bypass", "the marker lets it pass without waiting");
}
