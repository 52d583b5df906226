//! SIGTERM: what has begun is finished, what comes later is told to go elsewhere, and the exit is 0. So it is for those who
//! are not yet, or no longer, simple requests: newcomers, silent connections, tunnels.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use gatehouse_tests::{
    edge::Edge,
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};
use rustix::process::Signal;

use crate::upgrade::HANDSHAKE;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn requests_in_flight_are_answered_whole() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        Reply::streamed().cache_control("no-store").then("begin ").then_wait(&held).then("end")
    });
    let mut edge = Edge::over(&upstream).start();
    let clients: Vec<_> = (0..30)
        .map(|number| match number % 3 {
            0 => edge.curl("/").start(),
            1 => edge.curl_tls("/").start(),
            _ => edge.curl_h2("/").start(),
        })
        .collect();
    upstream.wait_for(30);
    edge.process().signal(Signal::TERM);
    until_leaving(&edge);
    gate.open();
    for client in clients {
        assert_eq!(client.answer().text(), "begin end");
    }
    edge.assert_stopped_cleanly();
}

#[test]
fn under_load_no_answer_is_cut_short() {
    let upstream = Upstream::start(|_| Reply::ok("x".repeat(5000)).cache_control("no-store"));
    let mut edge = Edge::over(&upstream).start();
    let address = edge.clear();
    let stopping = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let (stopping, answered) = (Arc::clone(&stopping), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut raw = Raw::connect(address);
                loop {
                    if !raw.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") {
                        break;
                    }
                    // A connection may be closed between two answers (RFC 9112 §9.5), never within one.
                    let Some(answer) = raw.answer_unless_closed() else { break };
                    assert_eq!((answer.status, answer.body.len()), (200, 5000));
                    answered.fetch_add(1, Ordering::SeqCst);
                    if answer.header("connection") == Some("close") {
                        assert!(stopping.load(Ordering::SeqCst), "told to close while nothing stopped");
                        break;
                    }
                }
                assert!(stopping.load(Ordering::SeqCst), "a connection was closed while nothing stopped");
            })
        })
        .collect();
    wait::until("the load has begun", || (answered.load(Ordering::SeqCst) > 500).then_some(()));
    stopping.store(true, Ordering::SeqCst);
    edge.process().signal(Signal::TERM);
    for client in clients {
        client.join().unwrap();
    }
    edge.assert_stopped_cleanly();
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let upstream = Upstream::start(|_| Reply::ok("text"));
    let mut edge = Edge::over(&upstream).tables("[timeouts]\nidle = \"1h\"\ndrain = \"1h\"").start();
    let mut idle = edge.raw();
    assert_eq!(idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    let mut silent = edge.raw();
    edge.process().signal(Signal::TERM);
    assert_eq!((idle.read_to_close(), silent.read_to_close()), (vec![], vec![]));
    edge.assert_stopped_cleanly();
}

#[test]
fn the_drain_deadline_ends_what_will_not_end() {
    let never = Gate::closed();
    let upstream = Upstream::start(move |_| {
        Reply::streamed().cache_control("no-store").then("begin ").then_wait(&never)
    });
    let mut edge = Edge::over(&upstream).tables("[timeouts]\ndrain = \"200ms\"").start();
    let client = edge.curl("/").start();
    upstream.wait_for(1);
    edge.process().signal(Signal::TERM);
    edge.assert_stopped_cleanly();
    assert!(client.result().is_err(), "and nobody takes the half for the whole");
}

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
    wait::until("all are accepted", || (edge.metric("gatehouse_edge_connections_open") == 20).then_some(()));
    edge.process().signal(Signal::TERM);
    until_leaving(&edge);
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
fn an_open_tunnel_has_the_time_of_the_drain_and_then_a_goodbye() {
    // Once, a stop cut each WebSocket at once and without a close.
    let upstream = Upstream::start(|_| Reply::echo_upgrade());
    let mut edge = Edge::over(&upstream).tables("[timeouts]\ndrain = \"2s\"\nidle = \"1h\"").start();
    let mut tunnel = open_tunnel(&edge);
    edge.process().signal(Signal::TERM);
    until_leaving(&edge);
    tunnel.send("\x01\x05hello").read_until(b"\x01\x05hello");
    assert_eq!(tunnel.read_to_close(), b"\x88\x02\x03\xe9", "1001, going away (RFC 6455 §7.4.1)");
    edge.assert_stopped_cleanly();
}

#[test]
fn a_tunnel_that_ends_by_itself_does_not_hold_up_the_end() {
    let upstream = Upstream::start(|_| Reply::echo_upgrade());
    let mut edge = Edge::over(&upstream).tables("[timeouts]\ndrain = \"1h\"\ntunnel = \"1h\"").start();
    let mut tunnel = open_tunnel(&edge);
    edge.process().signal(Signal::TERM);
    until_leaving(&edge);
    tunnel.finish().read_to_close();
    edge.assert_stopped_cleanly();
}

fn open_tunnel(edge: &Edge) -> Raw {
    let mut tunnel = edge.raw();
    tunnel.send(HANDSHAKE).read_until(b"\r\n\r\n");
    tunnel.send("\x01\x02hi").read_until(b"\x01\x02hi");
    tunnel
}

/// Until it is not ready any more, or gone from the admin port: load balancers stop sending.
#[track_caller]
fn until_leaving(edge: &Edge) {
    wait::until("the edge says that it is leaving", || {
        (edge.admin_status("/readyz") != Some(200)).then_some(())
    });
}
