//! Memory stays inside its bounds, whatever passes through.

use bytes::Bytes;
use gatehouse_tests::{
    edge::Edge,
    process::resident_kib,
    upstream::{Reply, Upstream},
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
    assert!(
        again.header("cache-status").unwrap_or_default().contains("hit"),
        "the newest is kept: {}",
        again.head
    );
}
