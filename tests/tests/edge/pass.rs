//! What goes upstream for one client, and comes back to it, passes as it is; what belongs to one hop stops here.

use gatehouse_tests::{
    edge::Edge,
    upstream::{RawUpstream, Reply, Upstream},
};

use crate::http1::echo;

#[test]
fn methods_and_targets_pass_as_they_are() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    for method in ["OPTIONS", "PATCH", "DELETE", "PURPLE"] {
        assert_eq!(edge.curl("/x").method(method).send().text(), format!("{method} /x "));
    }
    for target in ["/a%2Fb", "/%E2%82%AC?x=%20&x=+", "/a//b/", "/?", "/a;b=1", "/~user/$&'()*+,=:@"] {
        assert_eq!(edge.get(target).text(), format!("GET {target} "));
    }
}

#[test]
fn the_upstream_is_told_who_asked_and_how() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    let _ = edge
        .curl_h2("/path?query=1")
        .header("X-Forwarded-For: 203.0.113.9")
        .header("X-Forwarded-Proto: http")
        .header("X-Forwarded-Host: evil.test")
        .header("Forwarded: for=203.0.113.9")
        .header("X-Original-URL: /admin")
        .header("X-Real-IP: 203.0.113.9")
        .send();
    let seen = upstream.only();
    assert_eq!(seen.target, "/path?query=1");
    assert_eq!(seen.header("host"), format!("localhost:{}", edge.tls().port()));
    assert!(seen.header("via").contains("gatehouse"), "RFC 9110 §7.6.3: {seen:#?}");
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1", "nobody may say it for the client");
    assert_eq!(seen.header("x-forwarded-proto"), "https");
    assert_eq!(seen.header("x-real-ip"), "127.0.0.1");
    let name = "x-original-url";
    assert_eq!(seen.header(name), "", "{name} can change an answer and is not in the key");
    assert!(!format!("{:?}", seen.headers).contains("evil.test"), "{seen:#?}");
    assert!(!format!("{:?}", seen.headers).contains("203.0.113.9"), "{seen:#?}");
}

#[test]
fn the_operator_says_what_an_upstream_is_sent() {
    let upstream = Upstream::start(|seen| match seen.target.as_str() {
        "/stored" => {
            Reply::ok("text").cache_control("max-age=60").header("vary", "x-tenant, accept-language")
        }
        _ => Reply::ok("text").cache_control("no-store"),
    });
    let edge = Edge::over(&upstream)
        .upstream(
            "request_fields = { host = \"app.internal\", x-tenant = \"shop\", accept-language = false, via = false, \
             x-request-id = false, x-request-deadline = false, x_legacy = true }",
        )
        .start();
    let ask = |target: &str, language: &str| {
        let answer = edge.curl_h2(target).header("X-Tenant: forged").header("X_Legacy: 1");
        answer.header(&format!("Accept-Language: {language}")).send()
    };
    for (target, method) in [("/passed", "POST"), ("/stored", "GET")] {
        let answer = match method {
            "GET" => ask(target, "de"),
            _ => edge.curl(target).method(method).header("X-Tenant: forged").header("X_Legacy: 1").send(),
        };
        assert_eq!(answer.status, 200);
        let seen = upstream.seen().pop().unwrap();
        assert_eq!((seen.header("host"), seen.header("x-tenant")), ("app.internal", "shop"), "{seen:#?}");
        for absent in ["accept-language", "via", "x-request-id", "x-request-deadline"] {
            assert!(!seen.headers.contains_key(absent), "{absent}: {seen:#?}");
        }
        assert_ne!(
            seen.header("x-forwarded-host"),
            "app.internal",
            "the app may link to where it was asked for"
        );
        let kept = if method == "GET" { "" } else { "1" };
        assert_eq!(seen.header("x_legacy"), kept, "{method}: what others get depends on nobody's field");
    }
    // The variant is made of what the upstream sees: neither field differs there.
    assert!(ask("/stored", "fr").is_hit());
}

#[test]
fn hop_by_hop_fields_stop_at_the_edge() {
    let upstream = Upstream::start(|_| {
        Reply::ok("text")
            .cache_control("no-store")
            .header("connection", "x-internal")
            .header("x-internal", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
    });
    let edge = Edge::over(&upstream).start();
    let answer = edge
        .curl("/")
        .header("Connection: close, X-Mine")
        .header("X-Mine: 1")
        .header("Keep-Alive: timeout=9")
        .header("Proxy-Connection: keep-alive")
        .header("TE: trailers, deflate")
        .header("Upgrade: h2c")
        .header("X-Kept: 1")
        .send();
    let seen = upstream.only();
    for name in ["x-mine", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(seen.header(name), "", "{name} reached the upstream (RFC 9110 §7.6.1)");
    }
    assert_eq!(seen.header("x-kept"), "1");
    for name in ["x-internal", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{name} reached the client: {answer:#?}");
    }
    let over_h2 = edge.curl_h2("/").send();
    assert_eq!(over_h2.header("connection"), None, "RFC 9113 §8.2.2");
}

#[test]
fn request_trailers_reach_the_upstream() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
    raw.send("2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
    let trailers = upstream.only().trailers.expect("trailers arrive");
    assert_eq!(trailers["x-sum"], "42");
}

#[test]
fn response_trailers_reach_the_client() {
    let upstream = Upstream::start(|_| {
        Reply::streamed()
            .cache_control("no-store")
            .header("trailer", "x-sum")
            .then("hi")
            .then_trailer("x-sum", "42")
    });
    let edge = Edge::over(&upstream).start();
    // What is fetched for the cache may lose them (RFC 9110 §6.5.1); what passes keeps them.
    let answer = edge.curl_h2("/").header("TE: trailers").post("POST", "").send();
    assert_eq!(
        (answer.text().as_str(), answer.trailers.as_slice()),
        ("hi", &[("x-sum".into(), "42".into())][..])
    );
    let mut raw = edge.raw();
    raw.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
    );
    let answer = String::from_utf8(raw.read_to_close()).unwrap().to_ascii_lowercase();
    assert!(answer.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{answer}");
}

#[test]
fn trailers_that_nobody_announced_reach_a_client_of_http_2() {
    let upstream = RawUpstream::start(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    let edge = Edge::over_raw(&upstream).start();
    let answer = edge.curl_h2("/").send();
    assert_eq!(
        (answer.text().as_str(), answer.trailers.as_slice()),
        ("hi", &[("x-sum".into(), "42".into())][..])
    );
}
