//! Interim responses (RFC 9110 §15.2) go ahead of the answer.

use std::{future::poll_fn, task::Poll};

use http::Request;
use scripted_upstream::{Gate, Reply, saying};
use tokio::io::AsyncWriteExt as _;

use crate::{
    client::{client, next_interim, read},
    front::{CACHED, PASSED, front_over, front_with, settle},
    played::{played, read_until},
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn interim_responses_reach_every_client_that_shares_the_fetch() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, CACHED);
    let (mut client, mut other) = (client(&front).await, client(&front).await);
    let mut leader = client.get("/");
    let (mut stream, _) = upstream.asked().await;
    stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.unwrap();
    assert_eq!(next_interim(&mut leader).await.0, 102);
    // It joins when one is past already, and gets it all the same.
    let mut follower = other.get("/");
    assert_eq!(next_interim(&mut follower).await.0, 102);
    stream
        .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n")
        .await
        .unwrap();
    for response in [&mut leader, &mut follower] {
        let (status, headers) = next_interim(response).await;
        assert_eq!((status, &headers["link"]), (103, &"</a.css>; rel=preload".parse().unwrap()));
        assert_eq!(headers.len(), 1, "{headers:?}");
    }
    let answer = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok";
    stream.write_all(answer).await.unwrap();
    for response in [leader, follower] {
        assert_eq!(read(response.await.unwrap().body_mut()).await.unwrap().0, "ok");
    }
    assert!(upstream.0.try_recv().is_err(), "one fetch served both");
}

/// Two people with cookies, or with credentials, wait for one answer in case it is for everyone: until then what the first is
/// told is its own, and its preloads went to the second.
#[tokio::test(start_paused = true)]
async fn interim_responses_to_one_person_reach_nobody_else() {
    for name in ["cookie", "authorization"] {
        let (dial, mut upstream) = played();
        let front = front_over(dial, CACHED);
        let (mut client, mut other) = (client(&front).await, client(&front).await);
        let mut leader = client.send(Request::get("https://shop.example/").header(name, "alice"), true).0;
        let (mut stream, _) = upstream.asked().await;
        let mut follower = other.send(Request::get("https://shop.example/").header(name, "bob"), true).0;
        settle().await;
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </alice.png>; rel=preload\r\n\r\n";
        stream.write_all(hints).await.unwrap();
        assert_eq!(next_interim(&mut leader).await.0, 103, "{name}");
        let answer = b"HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        assert!(leader.await.is_ok());
        settle().await;
        let told = poll_fn(|context| match follower.poll_informational(context) {
            Poll::Pending => Poll::Ready(None),
            interim => interim,
        });
        assert!(told.await.is_none(), "{name}");
        assert_eq!(read(follower.await.unwrap().body_mut()).await.unwrap().0, "ok");
    }
}

#[tokio::test(start_paused = true)]
async fn interim_responses_without_end_are_not_all_passed_on() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, CACHED);
    let mut client = client(&front).await;
    let mut response = client.get("/");
    let (mut stream, _) = upstream.asked().await;
    for _ in 0..200 {
        stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.unwrap();
        settle().await;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    settle().await;
    let mut passed = 0;
    while let Some(interim) = poll_fn(|context| match response.poll_informational(context) {
        Poll::Pending => Poll::Ready(None),
        interim => interim,
    })
    .await
    {
        assert_eq!(interim.unwrap().status(), 102);
        passed += 1;
    }
    assert_eq!(passed, 64);
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn preloads_of_a_stored_page_go_ahead() {
    let upstream = Upstream::start(saying(
        &[("cache-control", "no-cache"), ("etag", "\"1\""), ("link", "</a.css>; rel=preload")],
        "page",
    ));
    let front = front_with(&upstream, &format!("{CACHED}early_hints = true\n"));
    let mut client = client(&front).await;
    read(client.get("/").await.unwrap().body_mut()).await.unwrap();
    let gate = Gate::closed();
    let held = gate.clone();
    upstream.change(move |_| Reply::status(304).header("etag", "\"1\"").after(&held));
    let mut second = client.get("/");
    let (status, headers) = next_interim(&mut second).await;
    assert_eq!((status, &headers["link"]), (103, &"</a.css>; rel=preload".parse().unwrap()));
    gate.open();
    assert_eq!(read(second.await.unwrap().body_mut()).await.unwrap().0, "page");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_100_gets_it_when_the_upstream_wants_its_content() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut client = client(&front).await;
    let request = Request::post("https://shop.example/").header("expect", "100-continue");
    let (mut response, mut content) = client.send(request, false);
    let (mut stream, head) = upstream.asked().await;
    assert!(head.to_ascii_lowercase().contains("expect: 100-continue\r\n"), "{head}");
    settle().await;
    let early = poll_fn(|context| Poll::Ready(response.poll_informational(context))).await;
    assert!(early.is_pending(), "the upstream has not said so yet");
    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    assert_eq!(next_interim(&mut response).await.0, 100);
    content.send_data("content".into(), true).unwrap();
    assert!(read_until(&mut stream, "\r\n0\r\n\r\n").await.contains("content"));
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_refuses_is_heard_before_any_content_is_sent() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut client = client(&front).await;
    let request = Request::post("https://shop.example/").header("expect", "100-continue");
    let (mut response, _content) = client.send(request, false);
    let (mut stream, _) = upstream.asked().await;
    stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    settle().await;
    let interim = poll_fn(|context| Poll::Ready(response.poll_informational(context))).await;
    assert!(!matches!(interim, Poll::Ready(Some(_))), "no 100: {interim:?}");
    assert_eq!(response.await.unwrap().status(), 403);
}
