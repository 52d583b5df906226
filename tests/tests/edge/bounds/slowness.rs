//! Slow but moving clients are served to the end; what does not move is ended with a word.
//!
//! Time passes here as the edge itself measures it: a request that the upstream never answers ends after
//! `response_timeout`, so its 504 says that so much time has gone by.

use std::{io::Read as _, net::TcpStream};

use bytes::Bytes;
use gatehouse_tests::{
    edge::Edge,
    frames::{END_HEADERS, END_STREAM, Kind, Outcome, get, head},
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};

use crate::http1::echo;

/// Lets one `response_timeout` pass.
fn tick(edge: &Edge) {
    assert_eq!(edge.get("/never").status, 504);
}

fn echo_or_never() -> Upstream {
    let never = Gate::closed();
    Upstream::start(move |seen| {
        let reply = Reply::ok(seen.body.clone()).cache_control("no-store");
        if seen.target == "/never" { reply.after(&never) } else { reply }
    })
}

#[test]
fn the_time_for_the_answer_begins_when_the_request_has_been_sent() {
    // Once, an upload that took longer than `response_timeout` or `total` got 504 in the middle.
    let upstream = echo_or_never();
    let edge = Edge::over(&upstream)
        .upstream("response_timeout = \"200ms\"")
        .tables("[timeouts]\ntotal = \"300ms\"")
        .start();
    let mut raw = edge.raw();
    raw.send("POST /slowly HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    for letter in ["a", "b", "c", "d", "e"] {
        raw.send(letter);
        tick(&edge);
    }
    let answer = raw.send("f").answer();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"abcdef"[..]), "{}", answer.head);
}

#[test]
fn the_time_for_the_answer_ends_however_the_request_ended() {
    // Once, when END_STREAM came in a frame of its own, the time never began.
    let upstream = echo_or_never();
    let edge = Edge::over(&upstream).upstream("response_timeout = \"200ms\"").start();
    for separate in [false, true] {
        let mut frames = edge.frames();
        let mut fields = get("/never");
        fields[0] = (":method", "POST");
        fields.push(("content-length", "5"));
        frames.send(Kind::Headers, END_HEADERS, 1, &head(&fields));
        if separate {
            frames.send(Kind::Data, 0, 1, b"hello");
            frames.send(Kind::Data, END_STREAM, 1, b"");
        } else {
            frames.send(Kind::Data, END_STREAM, 1, b"hello");
        }
        assert_eq!(
            frames.outcome(1),
            Outcome::Answered,
            "a 504 and no silence; END_STREAM apart: {separate}"
        );
    }
}

#[test]
fn a_client_that_reads_slowly_but_steadily_gets_all_of_a_stored_coding() {
    // Once, when the last piece was queued, the connection counted as idle while it was still going out.
    const STEPS: usize = 45;
    let text: Vec<u8> = (0..(24_u64 << 20) / 16)
        .flat_map(|number| {
            format!(
                "{:016x}",
                number
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .rotate_left(29)
                    .wrapping_mul(0xbf58_476d_1ce4_e5b9)
            )
            .into_bytes()
        })
        .collect();
    let text = Bytes::from(text);
    let never = Gate::closed();
    let upstream = Upstream::start(move |seen| {
        let reply = Reply::ok(text.clone()).header("content-type", "text/plain").header("etag", "\"v1\"");
        let reply = reply.cache_control("max-age=600");
        if seen.target == "/never" { Reply::ok("").after(&never) } else { reply }
    });
    let edge = Edge::over(&upstream)
        .upstream("response_timeout = \"200ms\"")
        .tables("[cache]\nlargest_object = \"32 MiB\"\n[timeouts]\nidle = \"200ms\"")
        .start();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let whole = wait::until("the coding is kept", || {
        let mut raw = edge.raw();
        let head = String::from_utf8(raw.send(request).read_until(b"\r\n\r\n")).unwrap().to_ascii_lowercase();
        let kept = head.contains("etag: \"v1;gatehouse-gzip\"");
        kept.then(|| raw.read_to_close())
    });
    let mut slow = TcpStream::connect(edge.clear()).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&slow, 64 << 10).unwrap();
    std::io::Write::write_all(&mut slow, request.as_bytes()).unwrap();
    slow.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let mut got = Vec::new();
    let mut piece = vec![0; whole.len() / STEPS];
    // 45 times 200 ms: longer than `idle` and the five seconds a connection gets to close.
    for step in 0..STEPS {
        slow.read_exact(&mut piece).unwrap_or_else(|error| panic!("cut at step {step} of {STEPS}: {error}"));
        got.extend_from_slice(&piece);
        tick(&edge);
    }
    slow.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&whole), "{} bytes and a head of {}", got.len(), whole.len());
}

#[test]
fn a_client_that_is_slow_with_its_head_is_let_go() {
    let upstream = echo();
    let edge = Edge::over(&upstream)
        .tables("[timeouts]\nheader = \"200ms\"\nidle = \"300ms\"\nhandshake = \"200ms\"")
        .start();
    let mut slow = edge.raw();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    let mut silent = edge.raw();
    let mut handshake = Raw::connect(edge.tls());
    handshake.send(b"\x16\x03\x01");
    let mut idle = edge.raw();
    assert_eq!(idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    let answer = String::from_utf8_lossy(&slow.read_to_close()).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(silent.read_to_close(), b"");
    handshake.read_to_close();
    assert_eq!(idle.read_to_close(), b"", "an idle connection is closed without a word");
}

#[test]
fn a_client_that_is_slow_with_its_content_gets_408() {
    let upstream = echo();
    let edge = Edge::over(&upstream).tables("[timeouts]\nbody = \"200ms\"").start();
    let mut raw = edge.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(raw.answer().status, 408);
    raw.read_to_close();
    assert_eq!(upstream.count(), 0, "the upstream never gets it whole");
}

/// Once, a head that began in one piece with the request before it had the time of an idle connection.
#[test]
fn a_head_that_came_together_with_a_request_has_the_time_of_a_head() {
    let upstream = echo_or_never();
    let edge = Edge::over(&upstream).tables("[timeouts]\nheader = \"500ms\"\nidle = \"1h\"").start();
    let requests = [
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello there",
        "POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na",
        "POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    let mut idle: Vec<Raw> = requests
        .iter()
        .map(|request| {
            let mut raw = edge.raw();
            assert_eq!(raw.send(request).answer().status, 200);
            raw
        })
        .collect();
    for request in requests {
        let mut raw = edge.raw();
        raw.send(format!("{request}{request}GET /next HT"));
        assert_eq!((raw.answer().status, raw.answer().status), (200, 200), "{request}");
        assert_eq!(raw.answer().status, 408, "{request}");
        assert!(raw.read_to_close().is_empty(), "{request}");
    }
    // Four times as long has passed for those who have begun nothing.
    for raw in &mut idle {
        assert_eq!(raw.send(requests[0]).answer().status, 200);
    }
}
