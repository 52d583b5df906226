//! Interim responses (RFC 9110 §15.2) go ahead of the answer, whichever protocol the client speaks.

use gatehouse_tests::{
    edge::Edge,
    frames::{Outcome, get},
    upstream::{Gate, RawUpstream, Reply, Upstream},
};

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload; as=style\r\n\r\n";

#[test]
fn those_of_the_upstream_come_before_its_answer_and_are_not_stored() {
    let upstream = RawUpstream::start(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\
          Connection: x-hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    let edge = Edge::over_raw(&upstream).start();
    let mut raw = edge.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let before = raw.read_until(b"HTTP/1.1 200 OK\r\n");
    let before = String::from_utf8_lossy(&before);
    assert!(
        before.starts_with(&format!("HTTP/1.1 102 Processing\r\n\r\n{HINT}HTTP/1.1 200 OK\r\n")),
        "{before}"
    );
    raw.read_until(b"\r\n\r\nok");
    // The connection goes on, and what is stored has no hints.
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let hit = raw.read_to_close();
    assert!(hit.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&hit));
}

#[test]
fn a_client_of_http_2_gets_them_too() {
    let upstream = RawUpstream::start(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nConnection: x-hop\r\n\
          X-Hop: 1\r\n\r\nHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    let edge =
        Edge::over_raw(&upstream).route("path = \"/stored\"\ncache = {}").route("path = \"/*\"").start();
    for path in ["/stored", "/passed"] {
        let answer = edge.curl_h2(path).send();
        assert_eq!((answer.interim.as_slice(), answer.status), (&[102, 103][..], 200), "{path}: {answer:?}");
        assert_eq!(answer.text(), "ok");
    }
    let hit = edge.curl_h2("/stored").send();
    assert!(hit.is_hit() && hit.interim.is_empty(), "{hit:?}");
}

#[test]
fn those_who_share_a_fetch_share_them() {
    let gate = Gate::closed();
    let upstream = RawUpstream::pausing(
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n",
        &gate,
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    let edge = Edge::over_raw(&upstream).route("path = \"/*\"\ncache = {}").start();
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (mut leader, mut follower) = (edge.raw(), edge.raw());
    for raw in [&mut leader, &mut follower] {
        raw.send(request);
        assert_eq!(String::from_utf8_lossy(&raw.read_until(b"\r\n\r\n")), HINT);
    }
    // Another resource, being https; its fetch is its own, and has hints of its own.
    let mut others = [edge.frames(), edge.frames()];
    for frames in &mut others {
        assert!(frames.request(1, &get("/")));
        assert_eq!(frames.outcome(1), Outcome::Answered, "with a head, which can only be the hint's");
    }
    gate.open();
    for raw in [&mut leader, &mut follower] {
        assert!(raw.read_to_close().ends_with(b"\r\n\r\nok"));
    }
    for frames in &mut others {
        assert_eq!(frames.outcome(1), Outcome::Answered);
    }
    assert_eq!(upstream.count(), 2, "one request for each resource");
}

#[test]
fn a_client_of_http_1_0_gets_the_answer_alone() {
    let upstream = RawUpstream::start(
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let edge = Edge::over_raw(&upstream).start();
    let mut raw = edge.raw();
    raw.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let answer = raw.read_to_close();
    assert!(answer.starts_with(b"HTTP/1.0 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn preloads_of_a_stored_page_go_ahead_while_the_origin_is_asked() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        if seen.header("if-none-match").is_empty() {
            Reply::ok("page")
                .cache_control("no-cache")
                .header("ETag", "\"v1\"")
                .header("Link", "</style.css>; rel=preload; as=style")
                .header("Link", "</about>; rel=author")
        } else {
            Reply::status(304).header("ETag", "\"v1\"").after(&held)
        }
    });
    let edge = Edge::over(&upstream).route("path = \"/*\"\nearly_hints = true").start();
    let mut raw = edge.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let first = raw.answer();
    assert_eq!(first.status, 200, "nothing is known of it before");
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let hint = raw.read_until(b"\r\n\r\n");
    assert_eq!(String::from_utf8_lossy(&hint), HINT);
    gate.open();
    let answer = raw.read_to_close();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"page"));
}

#[test]
fn preloads_go_ahead_over_http_2_too() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        if seen.header("if-none-match").is_empty() {
            Reply::ok("page")
                .cache_control("no-cache")
                .header("ETag", "\"v1\"")
                .header("Link", "</style.css>; rel=preload; as=style")
        } else {
            Reply::status(304).header("ETag", "\"v1\"").after(&held)
        }
    });
    let edge = Edge::over(&upstream).route("path = \"/*\"\nearly_hints = true\ncache = {}").start();
    let mut frames = edge.frames();
    assert!(frames.request(1, &get("/")));
    assert_eq!(frames.outcome(1), Outcome::Answered, "nothing is known of it before");
    assert!(frames.request(3, &get("/")));
    upstream.wait_for(2);
    assert_eq!(frames.outcome(3), Outcome::Answered, "the hint: nothing else can come yet");
    gate.open();
    assert_eq!(frames.outcome(3), Outcome::Answered);
    let answer = edge.curl_h2("/").header("Host: localhost").send();
    assert_eq!((answer.interim.as_slice(), answer.text().as_str()), (&[103][..], "page"));
}
