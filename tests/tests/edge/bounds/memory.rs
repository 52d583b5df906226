//! Memory stays inside its bounds, whatever passes through.

use bytes::Bytes;
use gatehouse_tests::{
    edge::Edge,
    frames::{Frames, Kind, Outcome, get},
    process::resident_kib,
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};

const MIB: usize = 1 << 20;

/// What the largest body may add to resident memory: buffers of a few connections, never the body.
const ALLOWED_KIB: u64 = 48 << 10;

#[test]
fn a_body_of_100_mib_streams_both_ways_without_being_held() {
    let piece = Bytes::from(vec![b'x'; MIB]);
    let upstream = Upstream::start(move |seen| {
        if seen.method == "PUT" {
            Reply::ok(seen.body.len().to_string()).cache_control("no-store")
        } else if seen.target == "/storable" {
            Reply::streamed().then_repeated(piece.clone(), 100).cache_control("max-age=60")
        } else {
            Reply::streamed().then_repeated(piece.clone(), 100).cache_control("no-store")
        }
    });
    let mut edge = Edge::over(&upstream)
        .tables("[cache]\nmemory = \"64 MiB\"\nlargest_object = \"8 MiB\"\n[bounds]\nbody = \"1 GiB\"")
        .start();
    let _ = edge.get("/warm-up");
    let id = edge.process().id();
    let (before, _) = resident_kib(id);

    for path in ["/passes", "/storable"] {
        for curl in [edge.curl(path), edge.curl_tls(path), edge.curl_h2(path)] {
            assert_eq!(curl.send().body.len(), 100 * MIB, "{path}");
        }
    }
    for curl in [edge.curl("/"), edge.curl_h2("/")] {
        assert_eq!(curl.post("PUT", vec![b'y'; 100 * MIB]).send().text(), (100 * MIB).to_string());
    }
    let (_, highest) = resident_kib(id);
    assert!(highest < before + ALLOWED_KIB, "{before} KiB before, {highest} KiB at the highest");
}

#[test]
fn a_reader_that_does_not_read_holds_back_the_upstream() {
    let piece = Bytes::from(vec![b'x'; MIB]);
    let upstream = Upstream::start(move |_| {
        Reply::streamed().then_repeated(piece.clone(), 200).cache_control("no-store")
    });
    let mut edge = Edge::over(&upstream).start();
    let id = edge.process().id();
    let (before, _) = resident_kib(id);
    let mut readers: Vec<_> = (0..4).map(|_| edge.raw()).collect();
    for reader in &mut readers {
        reader.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").read_until(b"xxxx");
    }
    // While these sit, one that reads gets everything: 200 MiB pass, and the four have had all the time to pile up.
    assert_eq!(edge.get("/").body.len(), 200 * MIB);
    let (_, highest) = resident_kib(id);
    assert!(highest < before + ALLOWED_KIB, "{before} KiB before, {highest} KiB at the highest");
}

#[test]
fn the_cache_keeps_to_its_budget() {
    let upstream = Upstream::start(|_| Reply::ok(vec![b'x'; 256 << 10]).cache_control("max-age=600"));
    let mut edge =
        Edge::over(&upstream).tables("[cache]\nmemory = \"32 MiB\"\nlargest_object = \"1 MiB\"").start();
    let id = edge.process().id();
    let (before, _) = resident_kib(id);
    let mut raw = edge.raw();
    for number in 0..800 {
        let answer = raw.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).answer();
        assert_eq!((answer.status, answer.body.len()), (200, 256 << 10));
    }
    let (after, _) = resident_kib(id);
    assert!(
        after < before + (32 << 10) + ALLOWED_KIB,
        "200 MiB offered to 32 MiB: {before} KiB before, {after} KiB after"
    );
    let again = raw.send("GET /799 HTTP/1.1\r\nHost: a\r\n\r\n").answer();
    assert!(again.is_hit(), "the newest is kept: {}", again.head);
}

#[test]
fn a_body_in_crumbs_takes_room_for_them() {
    const CRUMBS: usize = 1 << 18;
    let upstream =
        Upstream::start(|_| Reply::streamed().cache_control("max-age=600").then_repeated("x", CRUMBS));
    let edge = Edge::over(&upstream).tables("[cache]\nmemory = \"64 MiB\"").start();
    let (before, _) = resident_kib(edge.id());
    assert_eq!(edge.get("/").body.len(), CRUMBS);
    let (_, highest) = resident_kib(edge.id());
    println!("{CRUMBS} crumbs: {before} KiB before, {highest} KiB at the highest");
    // A quarter of the budget may be on its way.
    assert!(highest < before + (20 << 10), "{before} KiB before, {highest} KiB at the highest");
}

/// The bound of HTTP/1.x, which `bounds.unsent` names beside what it counts: a connection has one answer under way.
#[test]
fn a_client_that_does_not_read_holds_little_of_its_answer() {
    const CLIENTS: usize = 200;
    // What is read from its upstream, on its way and waiting for the client: four pieces of 64 KiB, and all else.
    const ALLOWED_KIB: u64 = CLIENTS as u64 * 5 * 64;
    let page = Bytes::from(vec![b'x'; 8 << 20]);
    let upstream = Upstream::start(move |_| Reply::streamed().then(page.clone()).cache_control("private"));
    for protocol in ["clear text", "TLS"] {
        let edge = Edge::over(&upstream).start();
        let connect = || match protocol {
            "TLS" => Raw::connect_tls(edge.tls(), &edge.authority(), "http/1.1"),
            _ => edge.raw(),
        };
        // What the first of them takes is not of one client.
        connect()
            .send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .read_exactly(4 << 10);
        let (before, _) = resident_kib(edge.id());
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect()).collect();
        for raw in &mut clients {
            // The second is not begun before the first has gone.
            raw.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2));
        }
        for raw in &mut clients {
            raw.read_exactly(4 << 10).expect("each gets what it reads");
        }
        let (_, highest) = resident_kib(edge.id());
        let each = highest.saturating_sub(before) / CLIENTS as u64;
        println!(
            "{CLIENTS} clients over {protocol}: {before} KiB before, {highest} KiB at the highest, {each} KiB each"
        );
        assert!(
            highest < before + ALLOWED_KIB,
            "{protocol}: {before} KiB before, {highest} KiB at the highest"
        );
    }
}

#[test]
fn streams_that_nobody_reads_take_no_more_than_their_connections_budget() {
    // Once, each stream held up to 256 KiB beside what its upstream held: 40 connections of 128 streams took 1.2 GB.
    const CONNECTIONS: usize = 40;
    const STREAMS: u32 = 128;
    // A MiB each; what 256 connections to the upstream hold, some pieces of 64 KiB; and the requests that wait.
    const ALLOWED_KIB: u64 =
        (CONNECTIONS as u64 * 1024) + 256 * 4 * 64 + CONNECTIONS as u64 * STREAMS as u64 * 8;
    let page = Bytes::from(vec![b'x'; 250_000]);
    let upstream = Upstream::start(move |_| Reply::ok(page.clone()).cache_control("no-store"));
    let edge = Edge::over(&upstream).start();
    let (before, _) = resident_kib(edge.id());
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| edge.frames()).collect();
    for frames in &mut clients {
        // All the window there is, for every stream and the connection.
        frames.send(Kind::Settings, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        frames.send(Kind::WindowUpdate, 0, 0, &0x7fff_0000_u32.to_be_bytes());
        for stream in 0..STREAMS {
            frames.request(2 * stream + 1, &get("/x"));
        }
    }
    // Those for which there is room hold all places at the upstream, so that the others are refused.
    wait::until("the upstream's places are all held", || {
        edge.metrics().contains("reason=\"upstream-busy\"").then_some(())
    });
    let (_, highest) = resident_kib(edge.id());
    println!("{CONNECTIONS} x {STREAMS} streams: {before} KiB before, {highest} KiB at the highest");
    assert!(highest < before + ALLOWED_KIB, "{before} KiB before, {highest} KiB at the highest");
}

#[test]
fn what_coding_on_the_fly_may_take_is_bounded() {
    // Once, each slow stream of a private page held an encoder of several megabytes, and nothing bounded their number.
    const STREAMS: usize = 200;
    // 60 MiB of encoders; and for each stream what is read from its upstream, on its way and waiting for its client: four
    // pieces of 64 KiB, and as much again as one of them for all else.
    const ALLOWED_KIB: u64 = (60 << 10) + STREAMS as u64 * 5 * 64;
    let gate = Gate::closed();
    let held = gate.clone();
    let page: Vec<u8> = (0..40_000_u32)
        .flat_map(|number| format!("{:x} ", number.wrapping_mul(0x9e37_79b9)).into_bytes())
        .collect();
    let piece = Bytes::from(page);
    let upstream = Upstream::start(move |_| {
        Reply::streamed()
            .then(piece.clone())
            .then_wait(&held)
            .header("content-type", "text/html")
            .cache_control("private")
    });
    let edge = Edge::over(&upstream).start();
    let (before, _) = resident_kib(edge.id());
    let mut streams: Vec<_> = (0..STREAMS).map(|_| edge.raw()).collect();
    for (number, raw) in streams.iter_mut().enumerate() {
        let request =
            format!("GET /{number} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\nConnection: close\r\n\r\n");
        raw.send(request);
    }
    let heads: Vec<String> = streams
        .iter_mut()
        .map(|raw| String::from_utf8(raw.read_until(b"\r\n\r\n")).unwrap().to_ascii_lowercase())
        .collect();
    let coded = heads.iter().filter(|head| head.contains("content-encoding: br")).count();
    for raw in &mut streams {
        raw.read_exactly(4 << 10).expect("each gets what there is");
    }
    let (_, highest) = resident_kib(edge.id());
    println!("{STREAMS} streams, {coded} of them coded: {before} KiB before, {highest} KiB at the highest");
    assert!(heads.iter().all(|head| head.starts_with("http/1.1 200")));
    assert!((1..STREAMS).contains(&coded), "beyond the bound pages go as they are: {coded}");
    assert!(highest < before + ALLOWED_KIB, "{before} KiB before, {highest} KiB at the highest");
    gate.open();
    for raw in &mut streams {
        raw.read_to_close();
    }
}

/// What a connection has said, how it is made, and the bytes that it may hold when it has nothing to do.
type IdleKind<'a> = (&'a str, &'a dyn Fn(&Edge) -> Client, u64);

#[test]
fn a_connection_that_has_nothing_to_do_holds_little() {
    const CONNECTIONS: u64 = 400;
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"));
    let ask = |mut raw: Raw| {
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // The first of all is a miss.
        raw.send(request).answer();
        assert!(raw.send(request).answer().is_hit());
        Client::Http1(raw)
    };
    let over_tls = |edge: &Edge| Raw::connect_tls(edge.tls(), &edge.authority(), "http/1.1");
    let kinds: [IdleKind<'_>; 4] = [
        ("silent", &|edge| Client::Http1(edge.raw()), 6),
        ("idle after a hit", &|edge| ask(edge.raw()), 32),
        ("idle after a hit over TLS", &|edge| ask(over_tls(edge)), 48),
        (
            "idle after a hit over TLS and HTTP/2",
            &|edge| {
                let mut frames = edge.frames();
                frames.request(1, &get("/"));
                assert_eq!(frames.outcome(1), Outcome::Answered);
                Client::Http2(frames)
            },
            56,
        ),
    ];
    for (what, connect, allowed) in kinds {
        // Each kind on an edge of its own: what another has given back would do for it.
        let edge = Edge::over(&upstream).start();
        edge.until_hit("/");
        edge.until_hit_h2("/");
        drop(connect(&edge));
        let (before, _) = resident_kib(edge.id());
        let clients: Vec<Client> = (0..CONNECTIONS).map(|_| connect(&edge)).collect();
        wait::until("all are accepted", || {
            (edge.metric("gatehouse_edge_connections_open") >= CONNECTIONS).then_some(())
        });
        let (after, _) = resident_kib(edge.id());
        let each = after.saturating_sub(before) * 1024 / CONNECTIONS;
        println!("{what}: {each} bytes a connection");
        assert!(each <= allowed << 10, "{what}: {each} bytes a connection");
        drop(clients);
    }
}

/// An open connection, whichever it is.
#[expect(dead_code, reason = "it is held, and nothing more")]
enum Client {
    Http1(Raw),
    Http2(Frames),
}
