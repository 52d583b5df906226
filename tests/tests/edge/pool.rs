//! Connections to the upstream are kept and used again, by one request at a time.

use gatehouse_tests::{
    edge::Edge,
    upstream::{Octets, RawUpstream, Reply, Upstream},
};

#[test]
fn connections_to_the_upstream_are_reused() {
    let upstream = Upstream::start(|_| Reply::ok("ok").cache_control("no-store"));
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    for _ in 0..20 {
        assert_eq!(raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    }
    assert_eq!((upstream.count(), upstream.connections()), (20, 1));
}

#[test]
fn a_pooled_connection_that_the_upstream_closed_costs_no_request() {
    // Each answer invites reuse, and then the connection closes.
    let upstream =
        RawUpstream::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok");
    let edge = Edge::over_raw(&upstream).start();
    for _ in 0..30 {
        let answer = edge.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
}

#[test]
fn a_connection_whose_request_is_still_being_sent_is_nobody_elses() {
    // Once, an early answer gave it back to the pool, and the next request waited behind the upload.
    let upstream = RawUpstream::scripted(refuse_uploads);
    // Nothing but the pool's own rule parts the two: the upload may stall longer than the test has patience.
    let edge = Edge::over_raw(&upstream).tables("[timeouts]\nbody = \"10m\"").start();
    let mut uploads = Vec::new();
    for round in 0..5 {
        let mut upload = edge.raw();
        upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n").send([b'x'; 1000]);
        assert_eq!(upload.answer().status, 401, "round {round}");
        uploads.push(upload);
        let answer = edge.raw().send(format!("GET /{round} HTTP/1.1\r\nHost: a\r\n\r\n")).answer();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]), "round {round}");
    }
}

/// Answers GET, and answers POST before its content has come, both inviting reuse.
fn refuse_uploads(head: &str) -> Octets {
    Octets::of(match head.starts_with("GET") {
        true => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        false => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno",
    })
}
