//! Content flows as it comes, both ways.

use gatehouse_tests::{
    edge::Edge,
    upstream::{Gate, Reply, Upstream},
};

#[test]
fn the_first_piece_arrives_before_the_last_is_made() {
    for cache_control in ["no-store", "max-age=60"] {
        let gate = Gate::closed();
        let held = gate.clone();
        let upstream = Upstream::start(move |_| {
            Reply::streamed().cache_control(cache_control).then("first").then_wait(&held).then("last")
        });
        let edge = Edge::over(&upstream).start();
        let mut raw = edge.raw();
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        raw.read_until(b"first");
        gate.open();
        assert!(raw.read_to_close().ends_with(b"4\r\nlast\r\n0\r\n\r\n"), "{cache_control}");
    }
}

#[test]
fn an_answer_can_overtake_the_request_content() {
    // The upstream refuses at once; a client that still sends must get the answer and not a reset.
    let upstream = gatehouse_tests::upstream::RawUpstream::start(
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
    );
    let edge = Edge::over_raw(&upstream).start();
    let mut raw = edge.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    assert_eq!(raw.answer().status, 403);
}
