//! SIGTERM and those who are not yet, or no longer, simple requests: newcomers, silent connections, tunnels.

use gatehouse_tests::{
    edge::Edge,
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};
use rustix::process::Signal;

use crate::metrics;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn during_a_drain_nobody_is_accepted_and_then_left_unserved() {
    // Once, the listeners stayed open and nobody took from them, until the drain ended.
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let reply = Reply::ok("text").cache_control("no-store");
        if seen.target == "/held" { reply.after(&held) } else { reply }
    });
    let mut edge = Edge::over(&upstream).tables("[timeouts]\ndrain = \"1h\"").start();
    let client = edge.curl("/held").start();
    upstream.wait_for(1);
    edge.process().signal(Signal::TERM);
    // Each newcomer is served or closed, at once as far as a test can tell, until the ports refuse: one request is
    // still under way, so the drain itself cannot be what ends it.
    for address in [edge.clear(), edge.tls()] {
        wait::until("the port refuses", || {
            let Some(mut newcomer) = Raw::try_connect(address) else { return Some(()) };
            newcomer.try_send(GET);
            newcomer.read_to_close();
            None
        });
    }
    gate.open();
    assert_eq!(client.answer().text(), "text");
    edge.assert_stopped_cleanly();
}

#[test]
fn who_was_accepted_before_the_drain_may_still_ask_once() {
    // Once, hyper closed each connection that had not sent its first head yet.
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let mut edge = Edge::over(&upstream).start();
    let clients: Vec<_> = (0..20).map(|_| edge.raw()).collect();
    wait::until("all are accepted", || {
        (metrics::sum(&edge, "gatehouse_edge_connections_open") == 20).then_some(())
    });
    edge.process().signal(Signal::TERM);
    wait::until("the drain has begun", || (edge.admin_status("/readyz") != Some(200)).then_some(()));
    ask_for_the_last_time(clients);
    edge.assert_stopped_cleanly();
}

#[test]
fn who_is_in_the_kernels_queue_when_the_drain_begins_is_still_served() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let mut edge = Edge::over(&upstream).start();
    let clients: Vec<_> = (0..20).map(|_| edge.raw()).collect();
    edge.process().signal(Signal::TERM);
    ask_for_the_last_time(clients);
    edge.assert_stopped_cleanly();
}

fn ask_for_the_last_time(mut clients: Vec<Raw>) {
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"text"[..]), "{}", answer.head);
        assert_eq!(client.read_to_close(), b"", "and that was all");
    }
}

#[test]
fn an_open_tunnel_does_not_hold_up_the_end() {
    // Once, a WebSocket made every stop take the whole drain.
    let upstream = Upstream::start(|_| Reply::echo_upgrade());
    let mut edge =
        Edge::over(&upstream).tables("[timeouts]\ndrain = \"1h\"\ntunnel = \"1h\"\nidle = \"1h\"").start();
    let mut tunnel = edge.raw();
    tunnel.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    tunnel.read_until(b"\r\n\r\n");
    tunnel.send("hello").read_until(b"hello");
    edge.process().signal(Signal::TERM);
    tunnel.read_to_close();
    edge.assert_stopped_cleanly();
}
