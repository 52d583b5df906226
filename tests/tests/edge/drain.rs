//! SIGTERM: what has begun is finished, what comes later is told to go elsewhere, and the exit is 0.

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
    // Not ready any more (or gone from the admin port): load balancers stop sending.
    wait::until("the edge says that it is leaving", || {
        (edge.admin_status("/readyz") != Some(200)).then_some(())
    });
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
