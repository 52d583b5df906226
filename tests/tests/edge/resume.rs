//! An answer that breaks off on its way into the cache is continued, and no reader notices.

use gatehouse_tests::{
    edge::Edge,
    upstream::{Gate, Reply, Upstream},
};

const FIRST: &str = "the first half, ";
const SECOND: &str = "and the second";

/// Breaks off after the first half, once the gate is open; then has the second for those who name the right validator.
fn breaks_off(etag: &'static str, gate: &Gate) -> Upstream {
    let gate = gate.clone();
    let length = FIRST.len() + SECOND.len();
    Upstream::start(move |seen| {
        let reply = match (seen.earlier, seen.header("range"), seen.header("if-range")) {
            (0, ..) => Reply::streamed()
                .header("content-length", &length.to_string())
                .then(FIRST)
                .then_wait(&gate)
                .then_break(),
            (_, "bytes=16-", tag) if tag == etag => Reply::ok(SECOND)
                .with_status(206)
                .header("content-range", &format!("bytes 16-{}/{length}", length - 1)),
            _ => Reply::ok("something else"),
        };
        reply.cache_control("max-age=60").header("etag", etag)
    })
}

#[test]
fn readers_over_every_protocol_get_the_whole_of_what_broke_off_in_the_middle() {
    let gate = Gate::closed();
    let upstream = breaks_off("\"v1\"", &gate);
    let edge = Edge::over(&upstream).start();
    let whole = format!("{FIRST}{SECOND}");
    let mut readers = [edge.raw(), edge.raw()];
    for raw in &mut readers {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        raw.read_until(FIRST.as_bytes());
    }
    gate.open();
    for raw in &mut readers {
        assert_eq!(raw.read_to_close(), SECOND.as_bytes());
    }
    let hit = edge.curl("/").header("Host: a").send();
    assert_eq!((hit.status, hit.text(), hit.is_hit()), (200, whole.clone(), true));
    assert_eq!(hit.header("content-range"), None);
    let over_tls =
        [edge.curl_tls("/tls").start(), edge.curl_h2("/tls").start(), edge.curl_h2("/tls").start()];
    for reader in over_tls {
        assert_eq!(reader.answer().text(), whole);
    }
    assert_eq!(upstream.count(), 4, "for each of the two once for all of it, and once for the rest");
    assert_eq!(edge.metric("gatehouse_edge_upstream_continuations_total"), 2);
}

#[test]
fn what_could_be_of_another_version_is_not_joined_and_not_stored() {
    for (etag, asked) in [("W/\"v1\"", 1), ("\"v1\"", 2)] {
        let gate = Gate::closed();
        let upstream = match asked {
            1 => breaks_off(etag, &gate),
            _ => Upstream::start({
                let gate = gate.clone();
                move |seen| {
                    match seen.earlier {
                        0 => Reply::streamed().then(FIRST).then_wait(&gate).then_break(),
                        _ => Reply::ok("something else"),
                    }
                    .cache_control("max-age=60")
                    .header("etag", "\"v1\"")
                }
            }),
        };
        let edge = Edge::over(&upstream).start();
        let (h1, h2) = (edge.curl("/").start(), edge.curl_h2("/").start());
        upstream.wait_for(1);
        gate.open();
        // Who came too late to share what broke off has asked for itself, and has all of something else.
        let ends = [h1.result(), h2.result()];
        assert!(ends.iter().any(Result::is_err), "{ends:?}");
        for answer in ends.into_iter().flatten() {
            assert_eq!(answer.text(), "something else");
        }
        assert_eq!(edge.until_hit("/").text(), "something else");
    }
}
