//! HTTP/2 to clients (RFC 9113).

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use edge::upstream::{
    address::Address,
    connect::{Dial, Dialling},
};
use h2::Reason;
use http::{HeaderMap, Request, StatusCode};
use scripted_upstream::saying;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    client::{client, client_with, read},
    front::{CACHED, PASSED, by_target, front, front_over, settle},
    played::{played, read_until},
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn a_stored_answer_has_its_length_and_a_date_and_nothing_of_the_connection() {
    let upstream =
        Upstream::start(saying(&[("cache-control", "max-age=60"), ("keep-alive", "timeout=5")], "text"));
    let front = front(&upstream);
    let mut client = client(&front).await;
    for cache in ["gatehouse; fwd=uri-miss", "gatehouse; hit"] {
        let (head, mut body) = client.get("/").await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(
            (&head.headers["content-length"], head.headers.contains_key("date")),
            (&"4".parse().unwrap(), true)
        );
        assert!(!head.headers.contains_key("keep-alive"));
        assert!(head.headers["cache-status"].to_str().unwrap().starts_with(cache), "{:?}", head.headers);
        assert_eq!(read(&mut body).await.unwrap().0, "text");
    }
    let (head, body) =
        client.send(Request::head("https://shop.example/"), true).0.await.unwrap().into_parts();
    assert_eq!((&head.headers["content-length"], body.is_end_stream()), (&"4".parse().unwrap(), true));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_edges_own_words_are_dated_too() {
    let front = front_over(played().0, "[[routes]]\nname = \"a\"\npath = \"/a\"\nupstream = \"origin\"\n");
    let mut client = client(&front).await;
    let (head, _) = client.get("/").await.unwrap().into_parts();
    assert_eq!(head.status, 404);
    assert_eq!(head.headers["date"], "Mon, 23 Nov 2026 12:00:00 GMT");
}

#[tokio::test(start_paused = true)]
async fn many_requests_at_once_are_all_answered() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "text"));
    let front = front(&upstream);
    let mut client = client(&front).await;
    let answers: Vec<_> = (0..90).map(|number| client.get(["/a", "/b", "/c"][number % 3])).collect();
    for answer in answers {
        assert_eq!(read(answer.await.unwrap().body_mut()).await.unwrap().0, "text");
    }
    assert_eq!(by_target(&upstream.seen()).values().sum::<usize>(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_reset_stream_frees_its_upstream_connection() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut client = client(&front).await;
    let (response, mut content) = client.post("/");
    let (mut stream, _) = upstream.asked().await;
    content.send_reset(Reason::CANCEL);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(response.await.unwrap_err().reason(), Some(Reason::CANCEL));
    let other = client.get("/");
    let (mut stream, _) = upstream.asked().await;
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!(other.await.unwrap().status(), 204, "the connection goes on");
}

#[tokio::test(start_paused = true)]
async fn content_that_the_client_breaks_off_never_looks_whole_upstream() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let (dial, mut upstream) = played();
        let front = front_over(dial, PASSED);
        let mut client = client(&front).await;
        let (_response, mut content) = client.post("/");
        let (mut stream, _) = upstream.asked().await;
        content.send_data("half".into(), false).unwrap();
        read_until(&mut stream, "half\r\n").await;
        content.send_reset(reason);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "", "no last chunk");
    }
}

#[tokio::test(start_paused = true)]
async fn content_must_be_as_long_as_it_says() {
    for (declared, sent) in [("10", "four"), ("3", "four")] {
        let (dial, mut upstream) = played();
        let front = front_over(dial, PASSED);
        let mut client = client(&front).await;
        let request = Request::post("https://shop.example/").header("content-length", declared);
        let (response, mut content) = client.send(request, false);
        content.send_data(sent.into(), true).unwrap();
        let error = response.await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{declared}: {error}");
        if let Ok(mut stream) = upstream.0.try_recv() {
            let mut seen = String::new();
            stream.read_to_string(&mut seen).await.unwrap();
            assert!(!seen.contains("four") || declared == "10", "{seen}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn content_and_trailers_go_both_ways() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut client = client(&front).await;
    let request = Request::post("https://shop.example/").header("te", "trailers");
    let (response, mut content) = client.send(request, false);
    content.send_data("up".into(), false).unwrap();
    content.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())])).unwrap();
    let (mut stream, head) = upstream.asked().await;
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    read_until(&mut stream, "2\r\nup\r\n0\r\n").await;
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n4\r\ndown\r\n0\r\nX-Sum: 2\r\n\r\n",
        )
        .await
        .unwrap();
    let (text, trailers) = read(response.await.unwrap().body_mut()).await.unwrap();
    assert_eq!((text.as_str(), &trailers.unwrap()["x-sum"]), ("down", &"2".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_wait_for_the_content_ends_it_without_an_error() {
    // RFC 9113 §8.1.
    let front = front_over(played().0, &format!("{PASSED}[bounds]\nbody = \"1 KiB\"\n"));
    let mut client = client(&front).await;
    let request = Request::post("https://shop.example/").header("content-length", "4096");
    let (response, mut content) = client.send(request, false);
    let (head, mut body) = response.await.unwrap().into_parts();
    assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(read(&mut body).await.unwrap().0.contains("413"));
    let reason = poll_fn(|context| content.poll_reset(context)).await.unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_resets_the_stream() {
    for (route, cache) in [(PASSED, "no-store"), (CACHED, "max-age=60")] {
        let (dial, mut upstream) = played();
        let front = front_over(dial, route);
        let mut client = client(&front).await;
        let response = client.get("/");
        let (mut stream, _) = upstream.asked().await;
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: {cache}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "half");
        drop(stream);
        let error = read(&mut body).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{cache}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_window_holds_the_upstream_back() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1000);
    let mut client = client_with(&front, &builder).await;
    let response = client.get("/");
    let (mut stream, _) = upstream.asked().await;
    let total = 8 << 20;
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").as_bytes()).await.unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut taken = 0;
    let piece = [b'x'; 1024];
    while taken < total
        && tokio::time::timeout(Duration::from_secs(1), stream.write_all(&piece)).await.is_ok()
    {
        taken += piece.len();
    }
    assert!(taken < 256 << 10, "{taken} bytes were taken for a client that reads none");
    tokio::spawn(async move { while stream.write_all(&piece).await.is_ok() {} });
    let mut seen = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        seen += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(seen, total, "and nothing is lost once it reads");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_window_waits_alone() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "text"));
    let front = front(&upstream);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let mut client = client_with(&front, &builder).await;
    let (first, second) = (client.get("/").await.unwrap(), client.get("/").await.unwrap());
    for response in [first, second] {
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        settle().await;
        let nothing = poll_fn(|context| Poll::Ready(body.poll_data(context))).await;
        assert!(nothing.is_pending(), "{nothing:?}");
    }
    assert_eq!(client.get("/").await.unwrap().status(), 200, "others go on");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_to_close_ends_its_streams_first() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut client = client(&front).await;
    let response = client.get("/");
    let (mut stream, _) = upstream.asked().await;
    client.close.notify_one();
    settle().await;
    assert!(!client.served.is_finished());
    let refused = poll_fn(|context| client.requests.poll_ready(context)).await;
    assert!(refused.is_err(), "the client knows that it must go elsewhere");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(read(response.await.unwrap().body_mut()).await.unwrap().0, "ok");
    client.served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_its_own_stream_only() {
    struct Panics;
    impl Dial for Panics {
        fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
            panic!("a fault that the test provokes")
        }
    }
    let front = front_over(
        Arc::new(Panics),
        "[[routes]]\nname = \"here\"\npath = \"/here\"\nupstream = \"origin\"\n",
    );
    let mut client = client(&front).await;
    let error = client.get("/here").await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    assert_eq!(client.get("/elsewhere").await.unwrap().status(), 404, "the connection goes on");
}

/// Once, four such uploads took the connection's whole window, and everybody else on it waited for their upstreams.
#[tokio::test(start_paused = true)]
async fn uploads_whose_upstream_stalls_hold_up_no_other() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, &format!("{PASSED}[bounds]\nstreams = 8\n"));
    let mut client = client(&front).await;
    let mut held = Vec::new();
    for _ in 0..7 {
        let (response, mut content) = client.post("/stalls");
        content.send_data(vec![b'x'; 1 << 20].into(), false).unwrap();
        held.push((response, content, upstream.asked().await));
    }
    settle().await;
    let (response, mut content) = client.post("/goes-on");
    content.send_data("hello".into(), true).unwrap();
    let (mut stream, _) = upstream.asked().await;
    read_until(&mut stream, "hello\r\n0\r\n").await;
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!(response.await.unwrap().status(), 204);
}

/// Once, the upstream got such a request as a whole one without content, whatever came after its head.
#[tokio::test(start_paused = true)]
async fn who_declares_no_content_sends_none_and_then_goes_on() {
    let none = || Request::post("https://shop.example/").header("content-length", "0");
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut client = client(&front).await;
    let (response, mut content) = client.send(none(), false);
    settle().await;
    assert!(upstream.0.try_recv().is_err(), "nothing goes on before the end has come");
    content.send_data("more".into(), true).unwrap();
    assert_eq!(response.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));
    assert!(upstream.0.try_recv().is_err());
    let (response, mut content) = client.send(none(), false);
    content.send_data("".into(), true).unwrap();
    let (mut stream, head) = upstream.asked().await;
    assert!(head.to_ascii_lowercase().contains("content-length: 0"), "{head}");
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!(response.await.unwrap().status(), 204);
}

#[tokio::test(start_paused = true)]
async fn options_that_may_go_no_further_is_answered_by_the_edge() {
    // RFC 9110 §7.6.2.
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut client = client(&front).await;
    let ask = |left| Request::options("https://shop.example/").header("max-forwards", left);
    let answer = client.send(ask("0"), true).0.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["allow"].to_str().unwrap().contains("OPTIONS"));
    let _response = client.send(ask("3"), true);
    let (_stream, head) = upstream.asked().await;
    assert!(head.to_ascii_lowercase().contains("max-forwards: 2\r\n"), "{head}");
}

/// Once, a floor of 1 KiB a second stood in no file, and the 408 did not tell of it.
#[tokio::test(start_paused = true)]
async fn how_slow_a_content_may_come_is_the_operators_choice_and_the_client_is_told() {
    for (rate, expected) in [("1 KiB", 408), ("0 B", 204)] {
        let (dial, mut upstream) = played();
        let front = front_over(dial, &format!("{PASSED}[bounds]\nbody_rate = \"{rate}\"\n"));
        let mut client = client(&front).await;
        let (response, mut content) = client.post("/");
        let (mut stream, _) = upstream.asked().await;
        for _ in 0..5 {
            content.send_data("x".into(), false).unwrap();
            settle().await;
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        content.send_data("x".into(), true).unwrap();
        settle().await;
        // Nobody reads it, where the request has been given up.
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.status, expected, "{rate}");
        if expected == 408 {
            assert!(read(&mut body).await.unwrap().0.contains("bounds.body_rate (1 KiB a second)"));
        }
    }
}
