//! HTTP/1 (RFC 9112): what the edge makes of well-formed, malformed and ambiguous requests.

use std::fmt::Write as _;

use gatehouse_tests::{
    edge::Edge,
    raw::Raw,
    upstream::{Gate, Octets, RawUpstream, Reply, Upstream},
};

/// Answers with what it was asked: method, target and content.
pub(crate) fn echo() -> Upstream {
    Upstream::start(|seen| {
        let text = format!("{} {} {}", seen.method, seen.target, String::from_utf8_lossy(&seen.body));
        Reply::ok(text).cache_control("no-store")
    })
}

#[test]
fn malformed_and_ambiguous_requests_are_refused_and_end_the_connection() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    let long = "x".repeat(200_000);
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("no Host (RFC 9112 §3.2)", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[400]),
        ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), &[400]),
        ("a Host that is none", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec(), &[400]),
        (
            "two lengths (RFC 9112 §6.3)",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".to_vec(),
            &[400],
        ),
        ("a signed length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc".to_vec(), &[400]),
        (
            "a negative length",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc".to_vec(),
            &[400],
        ),
        (
            "a hexadecimal length",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc".to_vec(),
            &[400],
        ),
        (
            "a length beyond 64 bits",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
            &[400, 413],
        ),
        (
            "a space before the colon (RFC 9112 §5.1)",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "a folded line (RFC 9112 §5.2)",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n Y: 2\r\n\r\n".to_vec(),
            &[400],
        ),
        ("a line without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n".to_vec(), &[400]),
        ("a bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n".to_vec(), &[400]),
        ("a NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n".to_vec(), &[400]),
        ("a NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n".to_vec(), &[400]),
        (
            "an unknown transfer coding (RFC 9112 §6.1)",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n".to_vec(),
            &[400, 501],
        ),
        (
            "chunked twice",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n".to_vec(),
            &[400, 501],
        ),
        (
            "chunked not last",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_vec(),
            &[400, 501],
        ),
        (
            "chunked in HTTP/1.0",
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            &[400],
        ),
        ("dot segments", b"GET /assets/../admin HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("encoded dot segments", b"GET /assets/%2e%2E/admin HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("a target with a space", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("a version that is none", b"GET / HTTP/1.9x\r\nHost: a\r\n\r\n".to_vec(), &[400, 505]),
        ("a method with a control character", b"GE\x01T / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[400]),
        (
            "a head too large (RFC 6585 §5)",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n").into_bytes(),
            &[431],
        ),
        (
            "a target too long (RFC 9110 §15.5.15)",
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
            &[414, 431],
        ),
        (
            "too many header lines",
            (0..1000)
                .fold("GET / HTTP/1.1\r\nHost: a\r\n".to_owned(), |mut head, number| {
                    let _ = write!(head, "X-{number}: 1\r\n");
                    head
                })
                .into_bytes()
                .into_iter()
                .chain(*b"\r\n")
                .collect(),
            &[431],
        ),
        ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_vec(), &[400, 405, 501]),
    ];
    let mut wrong = String::new();
    for (what, bytes, expected) in cases {
        let mut raw = edge.raw();
        raw.try_send(&bytes);
        // Whatever hides behind the refused request must never be answered, nor reach the upstream.
        raw.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let answers = String::from_utf8_lossy(&raw.read_to_close()).into_owned();
        let status = answers.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        if !expected.contains(&status) {
            let _ = writeln!(wrong, "{what}: {status} in place of {expected:?}: {answers:.200}");
        }
        if answers.matches("HTTP/1.").count() > 1 {
            let _ =
                writeln!(wrong, "{what}: a second request on the connection was answered: {answers:.300}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    let seen = upstream.seen();
    assert!(seen.is_empty(), "the upstream saw a refused request: {seen:#?}");
    assert_eq!(edge.get("/").status, 200, "and the edge goes on");
}

#[test]
fn an_absolute_target_overrides_host() {
    // RFC 9112 §3.2.2, and what the upstream is told is what was looked up.
    let upstream =
        Upstream::start(|seen| Reply::ok(seen.header("host").to_owned()).cache_control("max-age=60"));
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    assert_eq!(raw.send("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n").answer().body, b"a.test");
    assert_eq!(raw.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").answer().body, b"b.test");
    assert_eq!(raw.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").answer().body, b"a.test");
    assert_eq!(upstream.count(), 2, "two hosts, each asked once");
}

#[test]
fn of_two_framings_only_one_is_ever_believed() {
    // RFC 9112 §6.1 and §6.3: refused, or Transfer-Encoding alone counts, goes on alone, and the connection ends.
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    for framing in
        ["Content-Length: 6\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 6"]
    {
        let mut raw = edge.raw();
        raw.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\n"));
        raw.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let answers = String::from_utf8_lossy(&raw.read_to_close()).into_owned();
        let status = answers.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "200" | "400"), "{framing:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.").count(), 1, "{framing:?}: {answers}");
        assert!(answers.to_ascii_lowercase().contains("connection: close"), "{framing:?}: {answers}");
    }
    for seen in upstream.seen() {
        assert_eq!((seen.target.as_str(), seen.body.len()), ("/", 0), "{seen:#?}");
        assert!(
            !(seen.headers.contains_key("content-length") && seen.headers.contains_key("transfer-encoding"))
        );
    }
}

#[test]
fn a_request_whose_chunks_are_malformed_never_reaches_the_upstream_whole() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
    ] {
        let mut raw = edge.raw();
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        raw.try_send(chunks);
        let answer = String::from_utf8_lossy(&raw.read_to_close()).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400"), "{chunks:?}: {answer}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    raw.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    for expected in ["GET /1 ", "POST /2 hi", "GET /3 "] {
        assert_eq!(raw.answer().body, expected.as_bytes());
    }
}

#[test]
fn a_chunked_request_arrives_whole() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    raw.send("4\r\nWiki\r\n").send("6;name=value\r\npedia \r\n").send("0\r\n\r\n");
    assert_eq!(raw.answer().body, b"POST / Wikipedia ");
    let answer = edge.curl_h2("/").post("PUT", "content").send();
    assert_eq!(answer.text(), "PUT / content");
}

#[test]
fn expect_100_continue_is_answered_before_the_content_is_sent() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(raw.answer().status, 100);
    assert_eq!(raw.send("hi").answer().body, b"POST / hi");
    let answer = edge.curl("/").header("Expect: 100-continue").post("POST", "content").send();
    assert_eq!((answer.interim.as_slice(), answer.text().as_str()), (&[100][..], "POST / content"));
}

#[test]
fn content_beyond_the_bound_is_413_before_it_is_sent() {
    let upstream = echo();
    let edge = Edge::over(&upstream).tables("[bounds]\nbody = \"1 KiB\"").start();
    let mut raw = edge.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(raw.answer().status, 413, "and no 100 before it");
    assert_eq!(upstream.count(), 0);
    let mut raw = edge.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    raw.try_send(format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800)));
    assert_eq!(raw.answer().status, 413, "a length that nobody states counts too");
    assert_eq!(upstream.count(), 0, "the upstream never gets it whole");
    assert_eq!(
        edge.curl("/").post("POST", vec![b'x'; 1024]).send().status,
        200,
        "the bound itself is allowed"
    );
}

#[test]
fn an_answer_to_head_has_no_content() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"));
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    for request in ["HEAD", "HEAD", "GET", "HEAD"] {
        raw.send(format!("{request} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = if request == "HEAD" { raw.answer_to_head() } else { raw.answer() };
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("4")), "{}", answer.head);
    }
    let answer = raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").answer();
    assert_eq!(answer.body, b"text");
    assert_eq!(raw.read_to_close(), b"", "nothing strays between the answers");
}

#[test]
fn http_1_0_clients_get_what_they_understand() {
    let upstream =
        Upstream::start(|_| Reply::streamed().cache_control("no-store").then("hello ").then("world"));
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    raw.send("GET / HTTP/1.0\r\n\r\n");
    let answer = String::from_utf8(raw.read_to_close()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "hello world", "no chunked framing; the end of the connection is the end");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "RFC 9112 §6.1: {head}");
    assert_eq!(edge.curl("/").http10().send().text(), "hello world");
}

#[test]
fn an_http_1_0_client_may_ask_to_keep_the_connection() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    for _ in 0..2 {
        let answer = raw.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").answer();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("keep-alive")),
            "{}",
            answer.head
        );
    }
}

/// Once, the edge closed with content unread, and the system's reset took the answer from 8 of 8 clients.
#[test]
fn an_early_answer_is_read_by_clients_that_still_send_their_content() {
    let gate = Gate::closed();
    let upstream = RawUpstream::scripted({
        let gate = gate.clone();
        move |_| {
            Octets::of(&b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nwho?\n"[..]).then_wait(&gate)
        }
    });
    let edge = Edge::over_raw(&upstream).tables("[bounds]\nbody = \"32 MiB\"").start();
    let large = vec![b'x'; 20 << 20];
    let too_large = vec![b'x'; 40 << 20];
    for (content, expected) in [(&large, 401), (&too_large, 413)] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", content.len());
        let tls = || Raw::connect_tls(edge.tls(), &edge.authority(), "http/1.1");
        for client in 0..6 {
            let mut raw = if client % 3 == 0 { tls() } else { edge.raw() };
            // All of it, before the answer is looked at.
            raw.send(&head).send(content);
            assert_eq!(raw.answer().status, expected);
            assert_eq!(raw.read_to_close(), b"", "and then the end, without a reset");
        }
        for request in [edge.curl("/"), edge.curl_tls("/")] {
            let answer = request.header("Expect:").post("POST", content.clone()).send();
            assert_eq!(answer.status, expected);
        }
    }
    gate.open();
}

/// Once, hyper answered with a status and nothing else, and neither log nor metrics knew of it.
#[test]
fn what_the_parser_refuses_is_told_like_every_refusal() {
    let upstream = echo();
    let mut edge = Edge::over(&upstream).start();
    let long = "x".repeat(100_000);
    for (request, status, code, target) in [
        ("GET /seen HTTP/1.1\r\nHost: shop.test\r\nno colon\r\n\r\n".to_owned(), 400, "bad-request", "/seen"),
        (
            format!("GET /large HTTP/1.1\r\nHost: shop.test\r\nX: {long}\r\n\r\n"),
            431,
            "head-too-large",
            "/large",
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505, "version", "*"),
    ] {
        for first in ["", "GET /first HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let mut raw = edge.raw();
            if !first.is_empty() {
                assert_eq!(raw.send(first).answer().status, 200);
            }
            raw.try_send(&request);
            let answer = raw.answer();
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{code}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.head);
            assert!(answer.header("date").is_some() && answer.header("cache-status").is_some());
            assert!(String::from_utf8_lossy(&answer.body).contains(code), "{code}");
            assert_eq!(raw.read_to_close(), b"");
        }
        let (status, target) = (format!("\"status\":{status}"), format!("\"target\":\"{target}\""));
        edge.process().wait_for_line("the refusal", |line| {
            (line.contains(&status) && line.contains(code) && line.contains(&target)).then_some(())
        });
        let counted = format!("reason=\"{code}\"");
        let page = edge.metrics();
        let line = page.lines().find(|line| line.contains(&counted)).expect("a count of the reason");
        assert!(line.ends_with(" 2"), "{line}");
    }
}

/// Once, such a client was closed without a word.
#[test]
fn a_head_that_does_not_end_in_time_is_408() {
    let upstream = echo();
    let edge = Edge::over(&upstream).tables("[timeouts]\nheader = \"200ms\"").start();
    let mut raw = edge.raw();
    let answer = raw.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").answer();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
}

/// Once, 99 lines were 431 over HTTP/1.1 and 300 passed over HTTP/2; a server's 100 were 502 without a word of why.
#[test]
fn one_bound_holds_for_the_lines_and_the_size_of_every_head() {
    let lines = |count: usize| -> String { (0..count).map(|number| format!("x-{number}: 1\r\n")).collect() };
    let upstream = RawUpstream::scripted({
        move |head| {
            let count: usize = head.split(['/', ' ']).nth(2).unwrap_or_default().parse().unwrap_or(0);
            let size: usize = head.split(['/', ' ']).nth(3).unwrap_or_default().parse().unwrap_or(0);
            let (lines, long) = (lines(count - 2), "x".repeat(size));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: {long}\r\n{lines}\r\n");
            Octets::of(answer.into_bytes()).then_close()
        }
    });
    let edge = Edge::over_raw(&upstream).tables("[bounds]\nfields = 120\nhead = \"16 KiB\"").start();
    for (fields, expected) in [(120, 200), (121, 431)] {
        let mut raw = edge.raw();
        raw.send(format!("GET /2/0/ HTTP/1.1\r\nHost: a\r\n{}\r\n", lines(fields - 1)));
        assert_eq!(raw.answer().status, expected, "{fields} lines over HTTP/1.1");
        // curl writes User-Agent and Accept.
        let mut request = edge.curl_h2("/2/0/");
        for number in 0..fields - 2 {
            request = request.header(&format!("x-{number}: 1"));
        }
        let answer = request.send();
        assert_eq!(answer.status, expected, "{fields} lines over HTTP/2");
        if expected == 431 {
            assert!(answer.text().contains("bounds.fields (120)"), "{}", answer.text());
        }
    }
    for (answer, expected) in [("120/0", 200), ("121/0", 502), ("2/16000", 200), ("2/17000", 502)] {
        let got = edge.get(&format!("/{answer}/"));
        assert_eq!(got.status, expected, "{answer}");
        if expected == 502 {
            assert!(got.text().contains("bounds.fields (120)"), "{}", got.text());
            assert!(got.text().contains("bounds.head (16 KiB)"), "{}", got.text());
        }
    }
    let long = "x".repeat(17_000);
    let answer = edge.curl_h2("/2/0/").header(&format!("x-long: {long}")).send();
    answer.assert_problem(431);
}

/// Once, a 400 with an empty body, where every other gateway lets such a target pass.
#[test]
fn a_target_with_octets_that_are_to_be_encoded_goes_on_encoded() {
    let upstream = Upstream::start(|seen| Reply::ok(seen.target.clone()).cache_control("max-age=60"));
    let edge = Edge::over(&upstream).start();
    for (sent, arrives) in [
        (&b"/?q=\"a\"<b>"[..], "/?q=%22a%22%3Cb%3E"),
        (b"/<a>`", "/%3Ca%3E%60"),
        (b"/?q=|{}^`", "/?q=%7C%7B%7D%5E%60"),
        (b"/caf\xe9?q=\xe9", "/caf%E9?q=%E9"),
    ] {
        let mut raw = edge.raw();
        for turn in 0..2 {
            raw.send(b"GET ").send(sent).send(" HTTP/1.1\r\nHost: a\r\n\r\n");
            let answer = raw.answer();
            assert_eq!((answer.status, String::from_utf8_lossy(&answer.body).as_ref()), (200, arrives));
            assert_eq!(answer.is_hit(), turn == 1);
        }
        assert!(raw.send(format!("GET {arrives} HTTP/1.1\r\nHost: a\r\n\r\n")).answer().is_hit(), "one form");
    }
    let content = "POST /?\"<> HTTP/1.1";
    let mut raw = edge.raw();
    raw.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", content.len()));
    raw.send(content);
    assert_eq!(raw.answer().status, 200);
    assert_eq!(upstream.seen().last().unwrap().body, content.as_bytes(), "content is left alone");
    // Once, the end of this content became a request of its own.
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n");
    assert_eq!(raw.answer().status, 200);
    raw.send("\r\nx /<<<<");
    assert_eq!(raw.answer().status, 200);
    assert_eq!(
        upstream.seen().last().unwrap().body,
        &b"x /<<<<"[..],
        "also behind a head that came in pieces"
    );
}
