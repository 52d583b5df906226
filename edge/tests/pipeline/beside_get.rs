//! What is read from the cache beside GET and HEAD, by its content.

use std::sync::Arc;

use bytes::Bytes;
use edge::pipeline::purge::PurgeRequest;
use http::{Request, request::Builder};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use scripted_upstream::{Reply, Seen};

use crate::{
    front::{Front, Got, cached, finish, front_by, front_with, pass, settings_for, settle, start},
    upstream::Upstream,
};

fn echo(seen: &Seen) -> Reply {
    let content = String::from_utf8_lossy(&seen.body);
    Reply::ok(format!("{} {} {content}", seen.method, seen.header("content-type")))
        .cache_control("max-age=60, stale-while-revalidate=0")
        .header("etag", "\"v1\"")
}

fn fronted(how: &str) -> (Upstream, Front) {
    let upstream = Upstream::start(echo);
    let front = front_with(&upstream, &cached(how));
    (upstream, front)
}

async fn send(front: &Front, request: Builder, content: &'static str) -> Got {
    front.send_body(request, content).await
}

fn query(kind: &str) -> Builder {
    Request::builder().method("QUERY").uri("/s").header("content-type", kind)
}

fn graphql() -> Builder {
    Request::post("/graphql").header("content-type", "application/json")
}

#[tokio::test(start_paused = true)]
async fn a_query_is_answered_by_its_content_and_by_nothing_else() {
    let (upstream, front) = fronted("also = [\"query\"]");
    let first = send(&front, query("text/plain"), "a").await;
    assert_eq!((first.text(), first.cache()), ("QUERY text/plain a", "fwd=uri-miss"));
    let again = send(&front, query("text/plain").header("x-other", "1"), "a").await;
    assert_eq!((again.text(), again.cache()), (first.text(), "hit"));
    for (kind, content, said) in [
        ("text/plain", "b", "QUERY text/plain b"),
        ("text/csv", "a", "QUERY text/csv a"),
        ("text/plain", "", "QUERY text/plain "),
    ] {
        assert_eq!(send(&front, query(kind), content).await.text(), said);
        assert_eq!(send(&front, query(kind), content).await.cache(), "hit", "{said}");
    }
    let coded = send(&front, query("text/plain").header("content-encoding", "x"), "a").await;
    assert_eq!(coded.cache(), "fwd=uri-miss", "how content is coded is part of what it says");
    assert_eq!((front.get("/s").await.text(), upstream.count()), ("GET  ", 6), "a GET is another question");
}

#[tokio::test(start_paused = true)]
async fn a_stored_query_is_validated_and_a_client_that_has_it_is_told_so() {
    let (upstream, front) = fronted("also = [\"query\"]");
    send(&front, query("text/plain"), "a").await;
    let known = send(&front, query("text/plain").header("if-none-match", "\"v1\""), "a").await;
    assert_eq!((known.status, known.cache()), (304, "hit"));
    pass(61).await;
    upstream.change(|seen| match (seen.header("if-none-match"), &*seen.body) {
        ("\"v1\"", b"a") => Reply::status(304).cache_control("max-age=60"),
        _ => Reply::status(500),
    });
    assert_eq!(send(&front, query("text/plain"), "a").await.text(), "QUERY text/plain a");
    assert_eq!(send(&front, query("text/plain"), "a").await.cache(), "hit");
    let range = send(&front, query("text/plain").header("range", "bytes=0-1"), "a").await;
    assert_eq!((range.status, range.cache()), (200, "hit"), "a range is of a GET's answer");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_received_first_goes_past_with_all_of_it() {
    let upstream = Upstream::start(echo);
    let route = cached("also = [\"query\", \"graphql\"]") + "receive_first = \"4 B\"\n";
    let front = front_with(&upstream, &route);
    for _ in 0..2 {
        let long = send(&front, query("text/plain"), "12345").await;
        assert_eq!((long.text(), long.cache()), ("QUERY text/plain 12345", "fwd=method"));
        let pieces = ["ab", "c"].map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
        let chunked = query("text/plain").body(StreamBody::new(futures_util::stream::iter(pieces))).unwrap();
        let chunked = finish(front.begin_with(chunked).await.unwrap()).await;
        assert_eq!((chunked.text(), chunked.cache()), ("QUERY text/plain abc", "fwd=method"));
        let waits = query("text/plain").header("expect", "100-continue");
        assert_eq!(send(&front, waits, "ab").await.cache(), "fwd=method");
    }
    let precondition = send(&front, query("text/plain").header("if-match", "\"v1\""), "ab").await;
    assert_eq!(precondition.cache(), "fwd=method");
}

const ONE: &str = r#"{"query":"query A { a }","variables":{"n":1}}"#;
const OTHER: &str = r#"{"query":"query A { a }","variables":{"n":2}}"#;
const MUTATION: &str = r#"{"query":"mutation { b }"}"#;

#[tokio::test(start_paused = true)]
async fn graphql_queries_are_stored_each_by_itself_until_something_changes() {
    let (upstream, front) = fronted("also = [\"graphql\"]");
    for content in [ONE, OTHER] {
        assert_eq!(send(&front, graphql(), content).await.cache(), "fwd=uri-miss");
        let again = send(&front, graphql(), content).await;
        assert_eq!((again.cache(), again.text().ends_with(content)), ("hit", true));
    }
    assert_eq!(front.get("/graphql").await.cache(), "fwd=uri-miss");
    let changed = send(&front, graphql(), MUTATION).await;
    assert_eq!((changed.text().ends_with(MUTATION), changed.cache()), (true, "fwd=method"));
    for content in [ONE, OTHER] {
        assert_eq!(
            send(&front, graphql(), content).await.cache(),
            "fwd=uri-miss",
            "all that was stored may have changed"
        );
    }
    assert_eq!(front.get("/graphql").await.cache(), "fwd=uri-miss");
    assert_eq!(upstream.count(), 7);
}

/// The answer to a mutation, stored, would have been that of the next one, which then changed nothing.
#[tokio::test(start_paused = true)]
async fn whatever_may_change_something_reaches_the_service_each_time() {
    let (upstream, front) = fronted("also = [\"graphql\"]");
    let asked: [(Builder, &'static str); 8] = [
        (graphql(), MUTATION),
        (graphql(), r#"[{"query":"{ a }"}]"#),
        (graphql(), r#"{"query":"{ a }","query":"mutation { b }"}"#),
        (graphql(), r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"x"}}}"#),
        (Request::post("/graphql?query=mutation").header("content-type", "application/json"), ONE),
        (Request::post("/graphql").header("content-type", "text/plain"), ONE),
        (graphql().header("x-http-method-override", "DELETE"), ONE),
        (graphql().header("content-encoding", "gzip"), ONE),
    ];
    for (request, content) in asked {
        let before = upstream.count();
        let shown = format!("{request:?} {content}");
        let mut parts = Some(request);
        for _ in 0..2 {
            let (head, ()) = parts.take().unwrap().body(()).unwrap().into_parts();
            let again = head.headers.iter().fold(
                Request::builder().method(head.method.clone()).uri(head.uri.clone()),
                |request, (name, value)| request.header(name, value),
            );
            let sent = Request::from_parts(head, Full::new(Bytes::from_static(content.as_bytes())));
            assert_eq!(finish(front.begin_with(sent).await.unwrap()).await.cache(), "fwd=method", "{shown}");
            parts = Some(again);
        }
        assert_eq!(upstream.count() - before, 2, "{shown}");
    }
}

/// A query whose answer is not stored invalidated what is stored for all others, as a POST that changes something does.
#[tokio::test(start_paused = true)]
async fn a_query_that_is_not_stored_changes_nothing() {
    let (upstream, front) = fronted("also = [\"graphql\"]");
    send(&front, graphql(), ONE).await;
    upstream.change(|_| Reply::ok("mine").cache_control("private"));
    for _ in 0..3 {
        assert_eq!(send(&front, graphql(), OTHER).await.text(), "mine");
    }
    assert_eq!(send(&front, graphql(), ONE).await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn what_a_signed_in_client_asks_is_nobody_elses() {
    let (_upstream, front) = fronted("also = [\"query\", \"graphql\"]");
    for (name, value) in [("authorization", "Bearer a"), ("cookie", "session=1")] {
        for (request, content) in [(graphql(), ONE), (query("text/plain"), "a")] {
            let request = request.header(name, value);
            assert_ne!(send(&front, request, content).await.cache(), "hit");
        }
        for (request, content) in [(graphql(), OTHER), (query("text/plain"), "b")] {
            send(&front, request, content).await;
        }
        for (request, content) in [(graphql(), OTHER), (query("text/plain"), "b")] {
            let request = request.header(name, value);
            assert_ne!(
                send(&front, request, content).await.cache(),
                "hit",
                "what is stored does not say that it is for all"
            );
        }
    }
    assert_eq!(send(&front, graphql(), ONE).await.cache(), "fwd=uri-miss");
}

#[tokio::test(start_paused = true)]
async fn options_are_stored_for_who_asks_the_same_of_it() {
    let (upstream, front) = fronted("also = [\"options\"]");
    let options = |origin: &str| Request::options("/o").header("origin", origin);
    assert_eq!(send(&front, options("https://a.test"), "").await.text(), "OPTIONS  ");
    assert_eq!(send(&front, options("https://a.test"), "").await.cache(), "hit");
    assert_eq!(send(&front, options("https://b.test"), "").await.cache(), "fwd=uri-miss");
    assert_eq!(front.get("/o").await.text(), "GET  ");
    assert_eq!(upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_they_are_passed_on() {
    let (upstream, front) = fronted("");
    for _ in 0..2 {
        assert_eq!(send(&front, query("text/plain"), "a").await.cache(), "fwd=method");
        assert_eq!(send(&front, graphql(), ONE).await.cache(), "fwd=method");
        assert_eq!(send(&front, Request::options("/o"), "").await.cache(), "fwd=method");
    }
    assert_eq!(upstream.count(), 6);
}

/// Many who ask the same at once ask the service once, with all of the content.
#[tokio::test(start_paused = true)]
async fn who_asks_the_same_at_once_shares_one_answer_also_of_a_second_attempt() {
    let upstream = Upstream::start(|seen| if seen.earlier == 0 { Reply::hang_up() } else { echo(seen) });
    let settings = settings_for(&["one", "two"], &cached("also = [\"query\"]"));
    let front = front_by(settings, Vec::new(), start(), Arc::new(upstream.clone()));
    let asked = (0..5).map(|_| send(&front, query("text/plain"), "abc"));
    for got in futures_util::future::join_all(asked).await {
        assert_eq!(got.text(), "QUERY text/plain abc");
    }
    assert_eq!(upstream.count(), 2);
}

/// A purge, as an operator writes it, of the URL as a client would write it: only the route of a GET told what may be stored.
#[tokio::test(start_paused = true)]
async fn a_purge_of_a_url_finds_what_was_read_by_content_on_routes_that_take_no_get() {
    let upstream = Upstream::start(echo);
    let route = |name: &str, method: &str, kind: &str, query: &str| {
        format!(
            "[[routes]]\nname = {name:?}\npath = \"/*\"\nmethods = [{method:?}]\nupstream = \"origin\"\n\
             cache = {{ also = [{kind:?}], query = {{ {query} }} }}\n"
        )
    };
    let routes = [
        route("searches", "QUERY", "query", "keep = []"),
        route("preflights", "OPTIONS", "options", "keep = [\"a\"]"),
        route("services", "POST", "graphql", "sort = true"),
        cached("query = { drop = [\"utm_*\"] }"),
    ];
    let front = front_with(&upstream, &routes.concat());
    let ask = async || {
        [
            send(
                &front,
                Request::builder().method("QUERY").uri("/s?a=1&b=2").header("content-type", "text/plain"),
                "x",
            )
            .await,
            send(&front, Request::options("/s?a=1&b=2"), "").await,
            send(&front, Request::post("/s").header("content-type", "application/json"), ONE).await,
            front.get("/s?a=1&b=2&utm_source=z").await,
        ]
        .map(|got| got.cache().to_owned())
    };
    let purge = async |url: &str| {
        let purge =
            PurgeRequest { urls: vec![format!("https://shop.example{url}")], ..PurgeRequest::default() };
        let settings = front.edge.state.load().settings.clone();
        purge.run(&settings.routes, &front.edge.memory, front.edge.clock.now()).await.unwrap().purged
    };
    let (miss, hit) = ("fwd=uri-miss", "hit");
    assert_eq!(ask().await, [miss; 4]);
    assert_eq!(ask().await, [hit; 4]);
    assert_eq!(
        purge("/s?a=1&b=2&utm_source=z").await,
        4,
        "and what else is stored of the URL that a QUERY's is"
    );
    assert_eq!(ask().await, [miss; 4]);
    assert_eq!(purge("/s").await, 2, "the query of none counts, or that of a POST");
    assert_eq!(ask().await, [miss, hit, miss, hit]);
    // What a mutation changes is found in the same way.
    send(&front, Request::post("/s?a=1&c=3").header("content-type", "application/json"), MUTATION).await;
    assert_eq!(ask().await, [miss, miss, miss, hit]);
}

/// The answer of a service in trouble, with status 200, was served to all for its lifetime.
#[tokio::test(start_paused = true)]
async fn a_graphql_answer_with_errors_reaches_its_client_and_is_not_stored() {
    let (upstream, front) = fronted("also = [\"graphql\"], stale_while_revalidate = \"1m\"");
    let answers = |kind: &'static str, content: &'static str| {
        upstream.change(move |_| {
            let reply = Reply::ok(content).cache_control("max-age=60");
            if kind.is_empty() { reply } else { reply.header("content-type", kind) }
        });
    };
    const KIND: &str = "application/json; charset=utf-8";
    const GOOD: &str = r#"{"data":{"errors":["of a field"]},"errors":[]}"#;
    const BAD: &str = r#"{"errors":[{"message":"timeout"}],"data":{"a":null}}"#;
    for kind in [KIND, "application/graphql-response+json", ""] {
        answers(kind, BAD);
        for _ in 0..2 {
            let got = send(&front, graphql(), ONE).await;
            assert_eq!((got.status, got.text(), got.cache()), (200, BAD, "fwd=uri-miss"), "{kind}");
        }
    }
    answers(KIND, GOOD);
    send(&front, graphql(), ONE).await;
    assert_eq!(send(&front, graphql(), ONE).await.cache(), "hit");
    // As any failure it leaves what is stored.
    pass(61).await;
    answers(KIND, BAD);
    assert_eq!(send(&front, graphql(), ONE).await.text(), GOOD, "stale, while it is asked for");
    settle().await;
    assert_eq!(send(&front, graphql(), ONE).await.text(), GOOD);
    // Of a GET, of a QUERY and of what says that it is something else, the origin's word counts.
    answers(KIND, BAD);
    assert_eq!(front.get("/graphql").await.text(), BAD);
    assert_eq!(front.get("/graphql").await.cache(), "hit");
    answers("text/html", BAD);
    send(&front, graphql(), OTHER).await;
    assert_eq!(send(&front, graphql(), OTHER).await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn a_graphql_answer_is_looked_at_under_its_coding_and_not_stored_where_it_cannot_be() {
    use std::io::Write as _;

    let (upstream, front) = fronted("also = [\"graphql\"]");
    let gzip = |content: &str| {
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        coder.write_all(content.as_bytes()).unwrap();
        coder.finish().unwrap()
    };
    let good = |length: usize| format!(r#"{{"data":"{}"}}"#, "a".repeat(length));
    let cases = [
        ("gzip", gzip(&good(10)), true),
        ("gzip", gzip(r#"{"errors":[{}]}"#), false),
        ("gzip", gzip(&good(1 << 20)), false),
        ("gzip", good(10).into_bytes(), false),
        ("gzip, gzip", gzip(&good(10)), false),
        ("other", good(10).into_bytes(), false),
        ("", good(10).into_bytes(), true),
        ("", good(1 << 19).into_bytes(), true),
        ("", b"{".to_vec(), false),
    ];
    for (number, (coding, content, is_stored)) in cases.into_iter().enumerate() {
        upstream.change(move |_| {
            let reply = Reply::ok(content.clone()).cache_control("max-age=60");
            let reply = reply.header("content-type", "application/json");
            if coding.is_empty() { reply } else { reply.header("content-encoding", coding) }
        });
        let ask = async || {
            let request = Request::post(format!("/{number}")).header("content-type", "application/json");
            send(&front, request.header("accept-encoding", "gzip"), ONE).await
        };
        let first = ask().await;
        assert_eq!((first.status, first.body.is_ok()), (200, true), "{number}: {coding}");
        let again = ask().await;
        assert_eq!(again.cache() == "hit", is_stored, "{number}: {coding}: {}", again.cache());
    }
}
