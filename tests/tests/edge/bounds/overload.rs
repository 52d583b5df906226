//! More is asked for than there is room for: the rest is served past the cache, or told to come back.

use std::{fs, os::unix::fs::PermissionsExt as _};

use gatehouse_tests::{
    binaries,
    curl::Running,
    edge::Edge,
    folder::Folder,
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

/// Whether something was cut off for this reason.
fn cut_off(edge: &Edge, reason: &str) -> bool {
    edge.metrics().contains(&format!("gatehouse_edge_cut_off_total{{reason={reason:?}}}"))
}

#[test]
fn a_client_has_so_many_connections_and_others_have_theirs() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let reply = Reply::ok("text").cache_control("no-store");
        if seen.target == "/held" { reply.after(&held) } else { reply }
    });
    let edge = Edge::over(&upstream).tables("[bounds]\nconnections_per_client = 3").start();
    let mut busy: Vec<Raw> = (0..3).map(|_| edge.raw()).collect();
    for raw in &mut busy {
        raw.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    upstream.wait_for(3);
    assert_eq!(edge.raw().read_to_close(), b"", "the fourth is closed at once: the others are busy");
    assert!(cut_off(&edge, "connections-per-client"));
    let other = edge.curl("/").argument("--interface").argument("127.0.0.2").send();
    assert_eq!(other.status, 200, "{other:#?}");
    gate.open();
    for raw in &mut busy {
        assert_eq!(raw.answer().status, 200);
    }
    assert_eq!(edge.get("/").status, 200, "one that is idle now makes room");
    let closed = busy.iter_mut().filter_map(|raw| {
        raw.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        raw.answer_unless_closed()
    });
    assert_eq!(closed.count(), 2);
}

/// Once, fewer connections than threads and listeners left some of these deaf.
#[test]
fn one_connection_is_enough_for_every_listener() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let edge = Edge::over(&upstream).tables("[bounds]\nconnections = 1").start();
    for _ in 0..4 {
        assert_eq!(edge.get("/").status, 200);
        assert_eq!(edge.curl_tls("/").send().status, 200);
    }
}

#[test]
fn a_trusted_proxy_has_as_many_connections_as_it_likes() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let edge = Edge::over(&upstream)
        .tables("[bounds]\nconnections_per_client = 1\n[clients]\ntrusted_proxies = [\"127.0.0.1\"]")
        .start();
    let mut held: Vec<Raw> = (0..5).map(|_| edge.raw()).collect();
    for raw in &mut held {
        assert_eq!(raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);
    }
}

/// Once, those who began a handshake and said no more kept their places until its time was over.
#[test]
fn silent_tls_clients_make_room() {
    for (bounds, reason) in [("connections = 4", "connections"), ("handshakes = 2", "handshakes")] {
        let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
        let tables = format!("[bounds]\n{bounds}\n[timeouts]\nhandshake = \"1h\"");
        let edge = Edge::over(&upstream).tables(&tables).start();
        let silent: Vec<Raw> = (0..4)
            .map(|_| {
                let mut raw = Raw::connect(edge.tls());
                raw.send(b"\x16\x03\x01");
                raw
            })
            .collect();
        assert_eq!(edge.curl_tls("/").send().status, 200, "{bounds}");
        assert!(cut_off(&edge, reason), "{bounds}");
        drop(silent);
    }
}

/// Once, the edge took more connections than it had file descriptors, told so forty times a second, and the operator got no
/// answer.
#[test]
fn with_few_file_descriptors_fewer_connections_are_taken_and_the_operator_is_told_once() {
    let folder = Folder::new();
    let edge = binaries::edge().display();
    folder.write("edge", &format!("#!/bin/sh\nulimit -n 400\nexec {edge} \"$@\"\n"));
    let program = folder.path().join("edge");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let mut edge = Edge::over(&upstream).start_program(&program);
    // Two threads, two listeners, and half of the 400 for the upstream: 400 - 200 - 128 - 8.
    let mut clients: Vec<Raw> = (0..100).map(|_| edge.raw()).collect();
    let mut answered = 0;
    for raw in &mut clients {
        raw.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        answered += usize::from(raw.answer_unless_closed().is_some_and(|answer| answer.status == 200));
    }
    assert!(answered >= 64, "{answered} were served");
    assert_eq!(edge.get("/").status, 200);
    assert!(edge.metrics().contains("gatehouse_edge_connections_open"));
    let told = edge.process().lines();
    let told_of = |what: &str| told.iter().filter(|line| line.contains(what)).count();
    assert_eq!(told_of("leaves room for 64 of the 20000 connections"), 1, "{told:#?}");
    assert_eq!(told_of("cannot accept connections"), 0, "{told:#?}");
}

/// RFC 9113 §7.
const ENHANCE_YOUR_CALM: u32 = 0xb;

#[test]
fn who_begins_too_many_streams_is_told_to_calm_down() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"));
    let edge = Edge::over(&upstream).tables("[bounds]\nstreams_per_second = 10").start();
    let mut frames = edge.frames();
    for stream in 0..60 {
        frames.request(2 * stream + 1, &get("/"));
    }
    let outcome = (0..60).map(|stream| frames.outcome(2 * stream + 1)).find(|one| *one != Outcome::Answered);
    assert_eq!(outcome, Some(Outcome::Ended(Some(ENHANCE_YOUR_CALM))));
    assert!(cut_off(&edge, "streams-per-second"));
}

/// Once, they were answered for as long as they came.
#[test]
fn who_sends_frames_without_end_that_carry_nothing_is_told_to_calm_down() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"));
    let edge = Edge::over(&upstream).start();
    // PRIORITY, SETTINGS, PING, WINDOW_UPDATE, PRIORITY_UPDATE (RFC 9218 §7.1), and a type that nobody knows.
    for (kind, payload) in [(2, 5), (4, 0), (6, 8), (8, 4), (16, 5), (200, 0)] {
        let mut octets = vec![0, 0, payload, kind, 0, 0, 0, 0, u8::from(kind == 2)];
        octets.resize(9 + usize::from(payload), 0);
        // A WINDOW_UPDATE by nothing would be an error (RFC 9113 §6.9), and by much soon another.
        octets.last_mut().into_iter().filter(|_| payload > 0).for_each(|octet| *octet = 1);
        let mut frames = edge.frames();
        frames.request(1, &get("/"));
        assert_eq!(frames.outcome(1), Outcome::Answered);
        frames.send_octets(&octets.repeat(500));
        frames.request(3, &get("/"));
        assert_eq!(frames.outcome(3), Outcome::Answered, "{kind}: a burst is borne");
        frames.send_octets(&octets.repeat(50_000));
        assert_eq!(frames.outcome(5), Outcome::Ended(Some(ENHANCE_YOUR_CALM)), "{kind}");
    }
    assert_eq!(edge.metric("gatehouse_edge_cut_off_total{reason=\"control-frames\"}"), 6);
    assert_eq!(edge.get("/").status, 200);
}
