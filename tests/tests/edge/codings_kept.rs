//! A coding of a stored answer is computed once and then kept: the strong entity tag tells it from one made on the fly
//! (RFC 9110 §8.8.1).

use gatehouse_tests::{
    curl::Answer,
    edge::Edge,
    upstream::{Reply, Upstream},
    wait,
};

const CODINGS: [&str; 3] = ["br", "gzip", "zstd"];

fn ask(edge: &Edge, path: &str, coding: &str) -> Answer {
    edge.curl(path).header(&format!("Accept-Encoding: {coding}")).send()
}

#[track_caller]
fn until_kept(edge: &Edge, path: &str, coding: &str) {
    wait::until(&format!("{coding} of {path} is kept"), || {
        let answer = ask(edge, path, coding);
        assert_eq!(answer.must("content-encoding"), coding, "{answer:#?}");
        (answer.must("etag") == format!("\"v1;{coding}\"")).then_some(())
    });
}

fn page() -> Reply {
    Reply::ok("A shop sells things that people like to read about. ".repeat(400))
        .header("content-type", "text/html")
        .header("etag", "\"v1\"")
}

#[test]
fn codings_that_are_asked_for_close_together_are_all_kept() {
    // Once, the second to be ready was dropped, and never asked for again.
    let upstream = Upstream::start(|_| page().cache_control("max-age=600"));
    let edge = Edge::over(&upstream).start();
    for round in 0..5 {
        let path = format!("/{round}");
        let _ = edge.get(&path);
        let together: Vec<_> = CODINGS
            .iter()
            .map(|coding| edge.curl(&path).header(&format!("Accept-Encoding: {coding}")).start())
            .collect();
        for client in together {
            assert_eq!(client.answer().status, 200);
        }
        for coding in CODINGS {
            until_kept(&edge, &path, coding);
        }
    }
    assert_eq!(upstream.count(), 5);
}

#[test]
fn a_page_that_is_validated_at_every_visit_keeps_its_codings() {
    // Once, a 304 between the asking and the result lost the coding for ever.
    let upstream = Upstream::start(|seen| {
        let reply = if seen.header("if-none-match") == "\"v1\"" { Reply::status(304) } else { page() };
        reply.header("etag", "\"v1\"").cache_control("no-cache")
    });
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    for coding in CODINGS {
        let path = format!("/{coding}");
        // Back to back, on one connection: 304 upon 304 while the coding is being computed.
        for _ in 0..5 {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: {coding}\r\n\r\n", edge.clear());
            assert_eq!(raw.send(request).answer().status, 200);
        }
        until_kept(&edge, &path, coding);
        assert_eq!(
            ask(&edge, &path, coding).header("content-length"),
            ask(&edge, &path, coding).header("content-length"),
            "and it stays"
        );
    }
}

#[test]
fn what_came_out_longer_is_not_coded_at_every_request() {
    // Once, text that does not shrink was coded on the fly for ever.
    let noise: Vec<u8> = (0..20_000_u64).map(noise).collect();
    let upstream = Upstream::start(move |_| {
        Reply::ok(noise.clone())
            .header("content-type", "text/plain")
            .header("etag", "\"v1\"")
            .cache_control("max-age=600")
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    for coding in CODINGS {
        wait::until(&format!("{coding} is known not to be worth it"), || {
            let answer = ask(&edge, "/", coding);
            let identity = answer.header("content-encoding").is_none();
            (identity && answer.must("etag") == "\"v1\"" && answer.is_hit()).then_some(())
        });
    }
}

/// A byte without order (SplitMix64).
fn noise(number: u64) -> u8 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).to_be_bytes()[7]
}
