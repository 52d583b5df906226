//! What goes upstream for one client alone, and what of its head.

use std::future::poll_fn;

use h2::Reason;
use http::{Request, StatusCode};
use scripted_upstream::{Reply, saying};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    client::{client, read},
    front::{PASSED, front, front_over},
    played::played,
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn the_upstream_hears_who_asks_from_the_edge_alone() {
    let upstream = Upstream::start(saying(&[("cache-control", "no-store")], "x"));
    let fields = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-original-url", "/admin"),
        ("x-real-ip", "6.6.6.6"),
        ("client-ip", "6.6.6.6"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-request-deadline", "1"),
    ];
    front(&upstream).get_with("/a?b=c", &fields).await;
    let seen = &upstream.seen()[0];
    assert_eq!(seen.target, "/a?b=c");
    assert_eq!(seen.headers["x-forwarded-for"], "192.0.2.1");
    assert_eq!(seen.headers["x-real-ip"], "192.0.2.1");
    assert_eq!(seen.headers["x-forwarded-proto"], "https");
    assert_eq!(seen.headers["x-forwarded-host"], "shop.example");
    assert_eq!(seen.headers["host"], "shop.example");
    assert_eq!(seen.headers["via"], "1.1 gatehouse");
    assert_eq!(seen.headers["x-request-deadline"], "30000");
    for gone in ["x-original-url", "client-ip", "x-hop", "connection"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
}

/// The field was dropped: a DELETE of a client that can only POST became an update, with 200.
#[tokio::test(start_paused = true)]
async fn a_post_may_ask_to_be_taken_for_another_method() {
    let upstream = Upstream::start(saying(&[("cache-control", "no-store")], "x"));
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        front(&upstream).send_body(Request::post("/").header(name, "DELETE"), "content").await;
        assert_eq!(upstream.seen().last().unwrap().headers[name], "DELETE");
    }
}

/// OPTIONS is a safe method, and what it was taken for left what it had changed in the cache.
#[tokio::test(start_paused = true)]
async fn what_may_be_taken_for_an_unsafe_method_invalidates() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "x"));
    let front = front(&upstream);
    let options = || Request::builder().method("OPTIONS").uri("/");
    for (request, told) in
        [(options(), "hit"), (options().header("x-http-method-override", "DELETE"), "fwd=uri-miss")]
    {
        front.get("/").await;
        front.send(request).await;
        assert_eq!(front.get("/").await.cache(), told);
    }
}

/// Passed on, it would have made the answer to another method everybody's; dropped, the client got another one's.
#[tokio::test(start_paused = true)]
async fn a_get_may_not_ask_to_be_taken_for_another_method() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "x"));
    let front = front(&upstream);
    for method in ["GET", "HEAD"] {
        let request = Request::builder().method(method).uri("/").header("x-http-method-override", "DELETE");
        assert_eq!(front.send(request).await.status, 400, "{method}");
    }
    assert_eq!(upstream.count(), 0);
    let got = front.get_with("/", &[("x-http-method-override", "get")]).await;
    assert_eq!((got.status, got.cache()), (200, "fwd=uri-miss"), "it is one already");
}

#[tokio::test(start_paused = true)]
async fn methods_other_than_get_and_head_pass_with_their_content() {
    let upstream =
        Upstream::start(|seen| Reply::ok(if seen.method == "PUT" { "put" } else { "?" }).with_status(201));
    let got = front(&upstream).send_body(Request::put("/"), "content").await;
    assert_eq!(
        (got.status, got.text(), got.field("cache-status")),
        (201, "put", "gatehouse; fwd=method; fwd-status=201; detail=method")
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_says_it_is_too_large_is_refused_unread() {
    let upstream = Upstream::start(saying(&[], "x"));
    let request = Request::post("/").header("content-length", "99999999999");
    let response = front(&upstream).begin(request).await;
    assert_eq!((response.status().as_u16(), upstream.count()), (413, 0));
}

#[tokio::test(start_paused = true)]
async fn query_passes_with_its_content_and_invalidates_nothing() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "x"));
    let front = front(&upstream);
    front.get("/").await;
    let query = || Request::builder().method("QUERY").uri("/");
    for expected in [2, 3] {
        assert_eq!(front.send_body(query(), "select").await.text(), "x");
        assert_eq!(upstream.count(), expected);
    }
    assert_eq!(front.get("/").await.cache(), "hit");
}

/// Over HTTP/2 clients send each cookie in a field of its own (RFC 9113 §8.2.3). Programs behind CGI, WSGI or PHP saw only
/// one of them, so that nobody could sign in.
#[tokio::test(start_paused = true)]
async fn cookies_that_came_apart_reach_the_upstream_as_one_field() {
    let upstream = Upstream::start(saying(&[("cache-control", "no-store")], "x"));
    front(&upstream).send(Request::get("/").header("cookie", "a=1").header("cookie", "b=2; c=3")).await;
    let cookies: Vec<_> = upstream.seen()[0].headers.get_all("cookie").iter().cloned().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

/// The key of such a host was cut at the `*`, and writing the request for the rest of it panicked.
#[tokio::test(start_paused = true)]
async fn a_host_with_a_star_in_it_is_a_host() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "x"));
    let front = front(&upstream);
    for host in ["a*b", "*.shop.test"] {
        let got = front.send(Request::get("/p?q").header("host", host)).await;
        assert_eq!((got.status, got.cache()), (200, "fwd=uri-miss"));
        assert_eq!(front.send(Request::get("/p?q").header("host", host)).await.cache(), "hit");
    }
    assert!(upstream.seen().iter().all(|seen| seen.target == "/p?q"));
    for host in ["a\"b", "a|b", "a<b>"] {
        assert_eq!(front.send(Request::get("/p").header("host", host)).await.status, 400, "{host}");
    }
}

/// hyper wrote `599 <none>`.
#[tokio::test(start_paused = true)]
async fn a_status_without_a_reason_gets_no_made_up_one() {
    let upstream = Upstream::start(|_| Reply::ok("x").with_status(599));
    let response = front(&upstream).begin(Request::get("/")).await;
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
    assert_eq!(
        (response.status().as_u16(), reason.map(hyper::ext::ReasonPhrase::as_bytes)),
        (599, Some(&b""[..]))
    );
}

/// Once, hyper went on sending to a server that had answered and read no more, for as long as it stayed connected; the
/// connection had left its place in the pool, and the client could not be told to stop.
#[tokio::test(start_paused = true)]
async fn content_that_a_server_has_answered_without_reading_it_ends_with_the_answer() {
    let (dial, mut upstream) = played();
    let front = front_over(dial, PASSED);
    let mut client = client(&front).await;
    let (response, mut content) = client.post("/");
    content.send_data(vec![b'x'; 1 << 20].into(), false).unwrap();
    let (mut stream, _) = upstream.asked().await;
    stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nwho?").await.unwrap();
    let mut answer = response.await.unwrap();
    assert_eq!(
        (answer.status(), read(answer.body_mut()).await.unwrap().0.as_str()),
        (StatusCode::UNAUTHORIZED, "who?")
    );
    let reason = poll_fn(|context| content.poll_reset(context)).await.unwrap();
    assert_eq!(reason, Reason::NO_ERROR, "RFC 9113 §8.1: the client need not send the rest");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < 256 << 10, "and the connection to the server is closed");
}
