//! More is asked for than there is room for: the rest is served past the cache, or told to come back.

use gatehouse_tests::{
    curl::Running,
    edge::Edge,
    frames::{Outcome, get},
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};

#[test]
fn fills_that_stall_take_room_but_never_an_answer() {
    // Once, with the room for fills in use, every small miss was broken off.
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| match seen.target.strip_prefix("/stalls/") {
        Some(size) => {
            let size = size.split('-').next().unwrap().parse().unwrap();
            Reply::streamed().then(vec![b'x'; size]).then_wait(&held).cache_control("max-age=600")
        }
        None => Reply::ok(vec![b'y'; 8192]).cache_control("max-age=600"),
    });
    let edge =
        Edge::over(&upstream).tables("[cache]\nmemory = \"4 MiB\"\nlargest_object = \"512 KiB\"").start();
    // A quarter of `memory` is for fills. Large ones first, then what takes the crumbs.
    let sizes = [vec![60 << 10; 20], vec![4 << 10; 30], vec![1 << 10; 10]].concat();
    let mut stalled: Vec<_> = sizes.iter().map(|_| edge.raw()).collect();
    for (number, (raw, size)) in stalled.iter_mut().zip(&sizes).enumerate() {
        raw.send(format!("GET /stalls/{size}-{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        raw.read_until(b"xxxx");
    }
    for number in 0..20 {
        let answer = edge.get(&format!("/small/{number}"));
        assert_eq!((answer.status, answer.body.len()), (200, 8192), "{answer:#?}");
    }
    gate.open();
    for raw in &mut stalled {
        assert!(raw.read_to_close().ends_with(b"\r\n0\r\n\r\n"), "those who waited get all of theirs");
    }
    edge.until_hit("/small/0");
}

#[test]
fn beyond_what_the_upstream_can_bear_the_rest_is_told_to_come_back() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| Reply::ok("text").cache_control("no-store").after(&held));
    let edge = Edge::over(&upstream).upstream("connections = 2\nwaiting = 3").start();
    let mut clients: Vec<_> = (0..8).map(|number| edge.curl(&format!("/{number}")).start()).collect();
    // Two are served, three wait; the rest is refused at once, while everything else stands still.
    wait::until("three are refused", || {
        (clients.iter_mut().map(Running::is_finished).filter(|finished| *finished).count() == 3).then_some(())
    });
    gate.open();
    let (served, refused): (Vec<_>, Vec<_>) =
        clients.into_iter().map(Running::answer).partition(|answer| answer.status == 200);
    assert_eq!((served.len(), refused.len()), (5, 3));
    for answer in refused {
        answer.assert_problem(503);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    assert!(upstream.connections() <= 2);
}

/// Once, idle clients as many as `bounds.connections` locked out everybody else until `idle` had passed.
#[test]
fn at_the_bound_of_connections_the_longest_idle_makes_room_for_a_newcomer() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let edge = Edge::over(&upstream).tables("[bounds]\nconnections = 4\n[timeouts]\nidle = \"1h\"").start();
    let ask = |raw: &mut Raw| {
        assert_eq!(raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    };
    let mut idle: Vec<Raw> = (0..4).map(|_| edge.raw()).collect();
    for raw in &mut idle {
        ask(raw);
    }
    assert_eq!(edge.get("/").status, 200, "the fifth");
    assert_eq!(idle.remove(0).read_to_close(), b"", "the first has made room, without a word");
    for mut raw in idle {
        ask(&mut raw);
    }
    let mut over_http2: Vec<_> = (0..4).map(|_| edge.frames()).collect();
    for frames in &mut over_http2 {
        frames.request(1, &get("/"));
        assert_eq!(frames.outcome(1), Outcome::Answered);
    }
    assert_eq!(edge.get("/").status, 200, "idle HTTP/2 connections make room as well");
}
