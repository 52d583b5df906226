//! HTTP/2 to clients: what hyper's server did, and the interim responses that it hides.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use edge::{
    downstream::{
        deadlines::{Deadlines, Protocol},
        http2::Connection,
    },
    message::{byte_stream::ByteStream, target::Scheme},
    pipeline::Peer,
    settings::Bounds,
    upstream::connect::{Dial, Dialling},
};
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use crate::script::{Front, Origin, Reply, answer, by_target, front, front_over, settle};

const CACHED: &str = "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = {}\n";
const PASSED: &str = "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n";

/// A server whose side of each connection the test plays itself.
struct Played(Mutex<mpsc::UnboundedSender<DuplexStream>>);

/// The upstream's connections as they are dialled.
struct Dialled(mpsc::UnboundedReceiver<DuplexStream>);

fn played() -> (Arc<Played>, Dialled) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Arc::new(Played(Mutex::new(sender))), Dialled(receiver))
}

impl Dial for Played {
    fn dial<'a>(&'a self, _host: &'a str, _port: u16) -> Dialling<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(16 * 1024);
            self.0.lock().unwrap().send(far).map_err(io::Error::other)?;
            Ok(Box::new(near) as Box<dyn ByteStream>)
        })
    }
}

impl Dialled {
    /// The next connection, once a request's head has come on it.
    async fn asked(&mut self) -> (DuplexStream, String) {
        let mut stream = self.0.recv().await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        (stream, head)
    }
}

async fn read_until(stream: &mut DuplexStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push(char::from(byte));
    }
    text
}

/// A client's connection to the edge, and the edge's end of it.
struct Client {
    requests: SendRequest<Bytes>,
    served: JoinHandle<Result<(), h2::Error>>,
    close: Arc<Notify>,
}

async fn client(front: &Front) -> Client {
    client_with(front, &h2::client::Builder::new()).await
}

async fn client_with(front: &Front, builder: &h2::client::Builder) -> Client {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let close = Arc::new(Notify::new());
    let served = tokio::spawn({
        let (edge, close) = (Arc::clone(&front.edge), Arc::clone(&close));
        let deadlines = Deadlines::new(&edge.clock, Protocol::Http2, Duration::from_secs(90));
        let peer = Peer { address: [192, 0, 2, 1].into(), scheme: Scheme::Https };
        let bounds = Bounds { ..edge.state.load().settings.bounds.clone() };
        let mut connection = Connection::new(far, &bounds, edge, peer, deadlines);
        async move {
            loop {
                tokio::select! {
                    ended = poll_fn(|context| connection.poll(context)) => return ended,
                    () = close.notified() => connection.close(),
                }
            }
        }
    });
    let (requests, connection) = builder.handshake(near).await.unwrap();
    tokio::spawn(connection);
    Client { requests, served, close }
}

impl Client {
    fn send(&mut self, request: http::request::Builder, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.requests.send_request(request.body(()).unwrap(), ends).unwrap()
    }

    fn get(&mut self, path: &str) -> ResponseFuture {
        self.send(Request::get(format!("https://shop.example{path}")), true).0
    }

    fn post(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        self.send(Request::post(format!("https://shop.example{path}")), false)
    }
}

async fn next_interim(response: &mut ResponseFuture) -> (u16, HeaderMap) {
    let interim = poll_fn(|context| response.poll_informational(context)).await;
    let (head, ()) = interim.expect("an interim response comes first").unwrap().into_parts();
    (head.status.as_u16(), head.headers)
}

/// All of a response's content and its trailers, giving window as it is read.
async fn read(body: &mut RecvStream) -> Result<(String, Option<HeaderMap>), h2::Error> {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        text.extend_from_slice(&data);
    }
    Ok((String::from_utf8(text).unwrap(), body.trailers().await?))
}

#[tokio::test(start_paused = true)]
async fn a_stored_answer_has_its_length_and_a_date_and_nothing_of_the_connection() {
    let origin = Origin::saying(&[("cache-control", "max-age=60"), ("keep-alive", "timeout=5")], "text");
    let front = front(&origin);
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
    assert_eq!(origin.requests(), 1);
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
    let origin = Origin::saying(&[("cache-control", "max-age=60")], "text");
    let front = front(&origin);
    let mut client = client(&front).await;
    let answers: Vec<_> = (0..90).map(|number| client.get(["/a", "/b", "/c"][number % 3])).collect();
    for answer in answers {
        assert_eq!(read(answer.await.unwrap().body_mut()).await.unwrap().0, "text");
    }
    assert_eq!(by_target(&origin.seen()).values().sum::<usize>(), 3);
}

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
        std::task::Poll::Pending => std::task::Poll::Ready(None),
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
    let origin = Origin::saying(
        &[("cache-control", "no-cache"), ("etag", "\"1\""), ("link", "</a.css>; rel=preload")],
        "page",
    );
    let front = crate::script::front_with(&origin, &format!("{CACHED}early_hints = true\n"));
    let mut client = client(&front).await;
    read(client.get("/").await.unwrap().body_mut()).await.unwrap();
    let barrier = Arc::new(Notify::new());
    let held = Arc::clone(&barrier);
    origin.change(move |_| Reply::After(Arc::clone(&held), answer(304, &[("etag", "\"1\"")], "")));
    let mut second = client.get("/");
    let (status, headers) = next_interim(&mut second).await;
    assert_eq!((status, &headers["link"]), (103, &"</a.css>; rel=preload".parse().unwrap()));
    barrier.notify_one();
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
    let early = poll_fn(|context| std::task::Poll::Ready(response.poll_informational(context))).await;
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
    let interim = poll_fn(|context| std::task::Poll::Ready(response.poll_informational(context))).await;
    assert!(!matches!(interim, std::task::Poll::Ready(Some(_))), "no 100: {interim:?}");
    assert_eq!(response.await.unwrap().status(), 403);
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
    let origin = Origin::saying(&[("cache-control", "max-age=60")], "text");
    let front = front(&origin);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let mut client = client_with(&front, &builder).await;
    let (first, second) = (client.get("/").await.unwrap(), client.get("/").await.unwrap());
    for response in [first, second] {
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        settle().await;
        let nothing = poll_fn(|context| std::task::Poll::Ready(body.poll_data(context))).await;
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
        fn dial<'a>(&'a self, _host: &'a str, _port: u16) -> Dialling<'a> {
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
