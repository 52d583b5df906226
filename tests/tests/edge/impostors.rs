//! Requests that pretend to be another one: what reaches the upstream is what the edge has understood and decided by.

use gatehouse_tests::{
    edge::Edge,
    upstream::{Reply, Upstream},
    wait,
};

fn echo() -> Upstream {
    Upstream::start(|seen| {
        let target = format!("{} {} for {}", seen.method, seen.target, seen.header("host"));
        Reply::ok(target).cache_control("no-store")
    })
}

#[test]
fn an_upgrade_to_http_2_is_never_passed_on() {
    // Once, it was: an upstream that took it was spoken to past routes, limits and cache. RFC 9113 has no h2c.
    let upstream = Upstream::start(|seen| match seen.header("upgrade") {
        "" => Reply::ok("plain").cache_control("no-store"),
        _ => Reply::echo_upgrade(),
    });
    let edge = Edge::over(&upstream).start();
    for upgrade in ["h2c", "H2C", "h2c, websocket", "websocket, h2c", "HTTP/2.0", "TLS/1.0", "h2"] {
        let mut raw = edge.raw();
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        ));
        let head = String::from_utf8(raw.read_until(b"\r\n\r\n")).unwrap().to_ascii_lowercase();
        let seen = upstream.seen().pop();
        let offered = seen.as_ref().map_or("", |seen| seen.header("upgrade"));
        assert!(!head.starts_with("http/1.1 101") || offered == "websocket", "{upgrade}: {head}");
        assert!(offered.is_empty() || offered == "websocket", "{upgrade}: {seen:#?}");
        assert_eq!(
            seen.map_or(String::new(), |seen| seen.header("http2-settings").to_owned()),
            "",
            "{upgrade}"
        );
    }
}

#[test]
fn no_field_that_is_outside_the_key_can_change_an_answer() {
    // Once, names came through that CGI-like upstreams cannot tell from X-Forwarded-Host, and its relatives.
    let impostors = [
        "X_Forwarded_Host",
        "X_Original_Url",
        "X-Forwarded_Host",
        "X-Forwarded",
        "X-Forwarded-Server",
        "Forwarded-Host",
        "X-Host",
        "X-Original-Host",
        "X-Original-URI",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Host-Override",
        "Client-IP",
        "True-Client-IP",
        "X-Cluster-Client-IP",
        "X-Scheme",
        "Front-End-Https",
        "X-Client-IP",
        "X-Real-IP",
        "Proxy",
    ];
    let upstream = Upstream::start(|seen| {
        let reply = Reply::ok("text");
        if seen.target == "/stored" {
            reply.cache_control("max-age=60")
        } else {
            reply.cache_control("no-store")
        }
    });
    let edge = Edge::over(&upstream).start();
    for curl in [
        edge.curl("/stored"),
        edge.curl("/passed"),
        edge.curl_h2("/passed"),
        edge.curl("/changed").post("POST", "x"),
    ] {
        let sent = impostors.iter().fold(curl, |curl, name| curl.header(&format!("{name}: evil.test")));
        assert_eq!(sent.send().status, 200);
    }
    for seen in upstream.seen() {
        assert!(!format!("{:?}", seen.headers).contains("evil.test"), "{seen:#?}");
    }
    assert_eq!(upstream.count(), 4);
}

#[test]
fn dot_segments_are_refused_in_every_spelling() {
    // Once, `..%2f`, `..%5c` and `..;` passed: an upstream that decodes them leaves the route they were admitted under.
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    for path in [
        "/assets/../api/x",
        "/assets/..%2fapi/x",
        "/assets/..%2Fapi/x",
        "/assets/%2e%2e/api/x",
        "/assets/.%2e%2fapi/x",
        "/assets/..%5capi/x",
        "/assets/..;/api/x",
        "/assets/..;x=1/api/x",
        "/assets/.",
    ] {
        assert_eq!(edge.get(path).status, 400, "{path}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(edge.get("/assets/..a/b.c/...").status, 200);
}

#[test]
fn no_spelling_of_a_path_dodges_its_routes_limit() {
    // Once, routes matched raw octets, which many upstreams decode and merge.
    let upstream = echo();
    let edge = Edge::over(&upstream)
        .tables("[limits.api]\nrate = \"1/h\"\nburst = 1")
        .route("path = \"/api/*\"\nlimit = \"api\"")
        .route("path = \"/*\"")
        .start();
    assert_eq!(edge.get("/api/x").status, 200);
    for path in ["/api/x", "/%61pi/x", "//api/x", "/%61%70%69//x", "/api//x"] {
        wait::until("the limit is reached", || (edge.get(path).status == 429).then_some(()));
    }
    assert_eq!(edge.get("/other").status, 200);
}

#[test]
fn an_absolute_target_makes_host_irrelevant() {
    // Once, a Host that was not the target's own authority to the letter was refused (RFC 9112 §3.2.2).
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    for (request, expected) in [
        ("GET http://a:80/x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x for a"),
        ("GET http://a/x HTTP/1.1\r\nHost: other.test\r\n\r\n", "GET /x for a"),
        ("GET http://A:8080/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?y for a:8080"),
    ] {
        let answer = edge.raw().send(request).answer();
        assert_eq!(
            (answer.status, String::from_utf8_lossy(&answer.body).as_ref()),
            (200, expected),
            "{request}"
        );
    }
}

#[test]
fn targets_that_belong_to_other_methods_are_refused() {
    // Once, a bare authority and `*` were let through for any method (RFC 9112 §3.2.3, §3.2.4).
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    for line in ["GET a", "GET a:80", "POST a:80", "GET *", "HEAD *", "CONNECT a:80"] {
        let mut raw = edge.raw();
        raw.send(format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        let head = String::from_utf8(raw.read_until(b"\r\n\r\n")).unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((400..=501).contains(&status) && status != 500, "{line}: {head}");
    }
    assert_eq!(upstream.count(), 0);
    let options = edge.raw().send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").answer();
    assert_eq!(String::from_utf8_lossy(&options.body), "OPTIONS * for a");
}
