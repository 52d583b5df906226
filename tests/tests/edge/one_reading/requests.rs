//! HTTP/1.1 requests, octet by octet, over clear text and TLS: the cases are in `tests/src/readings.rs`, which `make readings` plays
//! before nginx and HAProxy too.

use std::fmt::Write as _;

use gatehouse_tests::{
    edge::{Edge, Setup},
    raw::Raw,
    readings,
    recorder::Recorder,
    wait,
};

fn edge(recorder: &Recorder) -> Edge {
    Setup::over_address(recorder.address()).tables("[timeouts]\nbody = \"1s\"").start()
}

#[track_caller]
fn assert_all(scheme: &str, connect: impl Fn(&Edge) -> Raw) {
    let recorder = Recorder::start();
    let edge = edge(&recorder);
    let cases = readings::all();
    assert!(cases.len() > 400, "{} cases", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let case = case.over(scheme);
        if let Some(why) = case.judge(case.play(connect(&edge), &recorder, wait::PATIENCE)) {
            let _ = writeln!(wrong, "{}: {why:.600}", case.what);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert_eq!(edge.get("/").status, 200, "and the edge goes on");
}

#[test]
fn every_request_over_clear_text_has_one_reading_or_is_refused() {
    assert_all("http", Edge::raw);
}

#[test]
fn every_request_over_tls_has_one_reading_or_is_refused() {
    assert_all("https", |edge| Raw::connect_tls(edge.tls(), &edge.authority(), "http/1.1"));
}

#[test]
fn trace_is_refused_and_never_shows_what_it_was_sent() {
    // RFC 9110 §9.3.8: it would show credentials to whoever can make a client send it.
    let recorder = Recorder::start();
    let edge = edge(&recorder);
    let answer = edge.raw().send("TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n\r\n").answer();
    assert_eq!((answer.status, answer.header("allow").is_some()), (405, true));
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    assert!(recorder.take().is_empty());
}
