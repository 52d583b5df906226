//! Connections to the upstream are kept and used again, as long as their server lets them.

use std::time::Duration;

use http::{Request, StatusCode};
use scripted_upstream::{Gate, Reply};

use crate::{
    front::{PASSED, cached, front_over, front_with, pass, settle},
    played::played,
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn a_connection_is_not_used_as_long_as_its_server_says_it_will_close_it() {
    for (announced, connections) in [("timeout=5", 2), ("timeout=10", 1)] {
        let upstream = Upstream::start(move |_| Reply::ok("x").header("keep-alive", announced));
        let front = front_with(&upstream, PASSED);
        front.get("/").await;
        pass(5).await;
        front.get("/").await;
        assert_eq!(upstream.connections(), connections, "{announced}");
    }
}

/// A connection that was always in use went on to the address that the server's name stood for when it was made.
#[tokio::test(start_paused = true)]
async fn a_connection_is_used_for_a_minute_so_that_its_servers_name_is_resolved_anew() {
    let upstream = Upstream::start(|_| Reply::ok("x"));
    let front = front_with(&upstream, PASSED);
    for _ in 0..13 {
        front.get("/").await;
        pass(5).await;
    }
    assert_eq!((upstream.count(), upstream.connections()), (13, 2));
}

/// A request waited for a place as long as for its answer, 30 s.
#[tokio::test(start_paused = true)]
async fn a_request_waits_two_seconds_for_a_place_and_is_then_told_when_to_come_again() {
    let upstream = Upstream::start(|_| Reply::ok("x").late(Duration::from_secs(10)));
    let front = front_with(&upstream, &format!("connections = 1\n{PASSED}"));
    let first = front.ask("/first");
    settle().await;
    let second = front.ask("/second");
    settle().await;
    pass(2).await;
    assert!(second.is_finished(), "its time is up");
    let got = second.await.unwrap();
    assert_eq!((got.status, got.field("retry-after")), (503, "1"));
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn without_a_place_a_stale_answer_stands_in() {
    let never = Gate::closed();
    let upstream = Upstream::start(move |seen| match seen.target.as_str() {
        "/page" => Reply::ok("page").cache_control("max-age=1"),
        _ => Reply::ok("late").after(&never),
    });
    let front = front_with(&upstream, &format!("connections = 1\n{}", cached("stale_if_error = \"1h\"")));
    front.get("/page").await;
    let _busy = front.ask("/other");
    pass(10).await;
    let got = front.get("/page").await;
    assert_eq!((got.status, got.text(), got.cache()), (200, "page", "hit"));
}

/// As with WebSockets, a few of them filled all the connections for everybody.
#[tokio::test(start_paused = true)]
async fn event_streams_take_no_place_from_requests() {
    let upstream = Upstream::start(|seen| match seen.target.as_str() {
        "/events" => Reply::streamed()
            .header("content-type", "text/event-stream; charset=utf-8")
            .header("cache-control", "no-store")
            .then("data: 1\n\n")
            .then_wait(&Gate::closed()),
        _ => Reply::ok("x"),
    });
    let front = front_with(&upstream, &format!("connections = 1\ntunnels = 2\n{PASSED}"));
    let streams = [front.begin(Request::get("/events")).await, front.begin(Request::get("/events")).await];
    assert!(streams.iter().all(|stream| stream.status() == 200));
    assert_eq!(front.get("/").await.status, 200);
    assert_eq!(front.get("/events").await.status, 503, "they have a bound of their own");
    drop(streams);
    settle().await;
    assert_eq!(front.begin(Request::get("/events")).await.status(), 200);
}

/// Before, the server had acted on the request, and the client was told to send it again.
#[tokio::test(start_paused = true)]
async fn an_event_stream_in_answer_to_a_post_is_never_thrown_away() {
    let upstream = Upstream::start(|_| {
        Reply::streamed()
            .header("content-type", "text/event-stream")
            .then("data: 1\n\n")
            .then_wait(&Gate::closed())
    });
    let front = front_with(&upstream, &format!("connections = 2\ntunnels = 1\n{PASSED}"));
    let first = front.begin(Request::post("/chat")).await;
    let second = front.begin(Request::post("/chat")).await;
    assert_eq!([first.status(), second.status()], [StatusCode::OK; 2]);
    assert_eq!(upstream.count(), 2);
}

/// `Content-Length: 2, 2` went on to clients as it came (RFC 9112 §6.3: one value in its place, or 502).
#[tokio::test(start_paused = true)]
async fn lengths_that_agree_become_one() {
    for (lines, expected) in [
        ("Content-Length: 2, 2\r\n", Some("2")),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", Some("2")),
        ("Content-Length: 2, 3\r\n", None),
        ("Content-Length: 2,\r\n", None),
    ] {
        for method in ["GET", "HEAD"] {
            let (dial, mut dialled) = played();
            let front = front_over(dial, PASSED);
            let asked =
                tokio::spawn(async move { front.send(Request::builder().method(method).uri("/")).await });
            let (mut stream, _) = dialled.asked().await;
            let content = if method == "GET" { "ok" } else { "" };
            let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\n{content}");
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
            let got = asked.await.unwrap();
            let lengths = got.headers.get_all("content-length").iter();
            let lengths: Vec<_> = lengths.map(|length| length.to_str().unwrap()).collect();
            match expected {
                Some(expected) => {
                    assert_eq!((got.status, lengths), (200, vec![expected]), "{method} {lines}");
                }
                None => assert_eq!(got.status, 502, "{method} {lines}"),
            }
        }
    }
}
