//! What peers were caught by from 2023 on, as far as an edge of this kind is concerned: a test for each class, by its name.

use gatehouse_tests::{
    edge::Edge,
    frames::{END_STREAM, Kind, Outcome, get, head},
    process::resident_kib,
    upstream::{Gate, Reply, Upstream},
    wait,
};

/// CVE-2023-44487: streams opened and reset in a rush.
#[test]
fn rapid_reset_costs_the_client_its_connection() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let edge = Edge::over(&upstream).start();
    let mut frames = edge.frames();
    let mut sent = 0;
    for stream in (1..40_000).step_by(2) {
        let alive = frames.request(stream, &get("/"))
            && frames.send(Kind::ResetStream, 0, stream, &8_u32.to_be_bytes());
        if !alive {
            break;
        }
        sent += 1;
    }
    assert!(matches!(frames.outcome(0), Outcome::Ended(_)), "after {sent} streams");
    assert!(upstream.count() < 20_000, "most never reached the upstream: {}", upstream.count());
    assert_eq!(edge.curl_h2("/").send().status, 200, "and others are served");
}

/// CVE-2024-27316, CVE-2024-27919, CVE-2023-45288 and kin: CONTINUATION frames that never end the head.
#[test]
fn a_continuation_flood_is_bounded() {
    let upstream = Upstream::start(|_| Reply::ok("text"));
    let mut edge = Edge::over(&upstream).start();
    let (before, _) = resident_kib(edge.id());
    let mut frames = edge.frames();
    frames.send(Kind::Headers, END_STREAM, 1, &head(&get("/")));
    let value = "x".repeat(10_000);
    let piece = head(&[("x-more", value.as_str())]);
    let mut pieces = 0;
    while pieces < 10_000 && frames.send(Kind::Continuation, 0, 1, &piece) {
        pieces += 1;
    }
    assert!(pieces < 10_000, "the edge took 100 MB of one head");
    let (_, highest) = resident_kib(edge.process().id());
    assert!(highest < before + (16 << 10), "{before} KiB before, {highest} KiB at the highest");
    assert_eq!(edge.curl_h2("/").send().status, 200);
}

/// CVE-2025-8671 (MadeYouReset): the client has the server reset its streams, by errors, so that bounds for resets of the client's
/// do not count them while their requests go on upstream.
#[test]
fn made_you_reset_costs_the_client_its_connection_and_ends_its_requests() {
    let never = Gate::closed();
    let upstream = Upstream::start(move |seen| match seen.target.as_str() {
        "/now" => Reply::ok("text").cache_control("no-store"),
        _ => Reply::ok("").after(&never),
    });
    let edge = Edge::over(&upstream).upstream("connections = 64\nwaiting = 64").start();
    let mut frames = edge.frames();
    let mut sent = 0;
    for stream in (1..40_000).step_by(2) {
        // A window beyond 2^31-1 is an error of its stream (RFC 9113 §6.9.1).
        let alive = frames.request(stream, &get("/never"))
            && frames.send(Kind::WindowUpdate, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        if !alive {
            break;
        }
        sent += 1;
    }
    let outcome = loop {
        match frames.outcome(0) {
            ended @ Outcome::Ended(_) => break ended,
            Outcome::Answered | Outcome::Reset(_) => {}
        }
    };
    assert!(matches!(outcome, Outcome::Ended(_)), "{outcome:?} after {sent} streams");
    // The places of what was reset are free again: others are served.
    wait::until("others are served", || (edge.curl_h2("/now").send().status == 200).then_some(()));
}

/// Cache key confusion, by which pages of others are poisoned or seen: whatever two requests the upstream can tell apart do not share an
/// answer, and what is not in the key does not reach it.
#[test]
fn keys_are_not_confused() {
    let upstream = Upstream::start(|seen| {
        let text = format!("{} {} {}", seen.header("host"), seen.target, seen.header("x-forwarded-host"));
        Reply::ok(text).cache_control("max-age=60")
    });
    let edge = Edge::over(&upstream).start();
    let ask = |request: &str| {
        let answer = edge.raw().send(format!("{request}\r\n\r\n")).answer();
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    for (request, expected) in [
        ("GET /b HTTP/1.1\r\nHost: a.test", "a.test /b a.test"),
        ("GET //a.test/b HTTP/1.1\r\nHost: b.test", "b.test //a.test/b b.test"),
        ("GET /a.test/b HTTP/1.1\r\nHost: b.test", "b.test /a.test/b b.test"),
        ("GET http://a.test/b HTTP/1.1\r\nHost: b.test", "a.test /b a.test"),
        ("GET /b%3F HTTP/1.1\r\nHost: a.test", "a.test /b%3F a.test"),
        ("GET /b%23c HTTP/1.1\r\nHost: a.test", "a.test /b%23c a.test"),
        ("GET /b?c HTTP/1.1\r\nHost: a.test", "a.test /b?c a.test"),
        ("GET /b?c&d HTTP/1.1\r\nHost: a.test", "a.test /b?c&d a.test"),
        ("GET /b?c%26d HTTP/1.1\r\nHost: a.test", "a.test /b?c%26d a.test"),
        ("GET /b HTTP/1.1\r\nHost: a.test:8080", "a.test:8080 /b a.test:8080"),
        ("GET /b%2Fc HTTP/1.1\r\nHost: a.test", "a.test /b%2Fc a.test"),
        ("GET /b/c HTTP/1.1\r\nHost: a.test", "a.test /b/c a.test"),
        ("GET /b;c HTTP/1.1\r\nHost: a.test", "a.test /b;c a.test"),
        ("GET /B HTTP/1.1\r\nHost: a.test", "a.test /B a.test"),
        ("GET /x HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Host: evil.test", "a.test /x a.test"),
        ("GET /x HTTP/1.1\r\nHost: A.TEST.", "a.test /x a.test"),
    ] {
        for _ in 0..2 {
            assert_eq!(ask(request), (200, expected.to_owned()), "{request}");
        }
    }
}

/// Range amplification (CVE-2011-3192, and the RangeAmp attacks on CDNs since): no set of ranges makes an answer larger
/// than the whole, nor each range a request upstream.
#[test]
fn ranges_amplify_nothing() {
    const LENGTH: usize = 1 << 20;
    let upstream = Upstream::start(|seen| match seen.target.as_str() {
        "/stored" => Reply::ok("x".repeat(LENGTH)).cache_control("max-age=60"),
        _ => Reply::ok("x".repeat(LENGTH)).cache_control("no-store"),
    });
    let edge = Edge::over(&upstream).start();
    edge.until_hit("/stored");
    let stored = upstream.count();
    let repeated = |range: &str, count: usize| format!("Range: bytes={}", vec![range; count].join(","));
    let apart = |step: usize, count: usize| {
        let ranges: Vec<String> = (0..count).map(|at| format!("{0}-{0}", at * step)).collect();
        format!("Range: bytes={}", ranges.join(","))
    };
    for ranges in [
        repeated("0-", 1000),
        repeated("0-1048575", 1000),
        repeated("-1048576", 1000),
        repeated("5-500000", 1000),
        apart(2, 3000),
        apart(100, 3000),
    ] {
        // The first of what may not be stored is asked twice: for the cache, and then for its client alone.
        for (path, asked) in [("/stored", 0), ("/passed", 2)] {
            let before = upstream.count();
            let answer = edge.curl(path).header(&ranges).send();
            let most = LENGTH + 4096;
            assert!(answer.body.len() <= most, "{ranges:.60}: {} {}", answer.status, answer.body.len());
            assert!(matches!(answer.status, 200 | 206 | 416), "{ranges:.60}: {}", answer.status);
            let count = upstream.count() - before;
            assert!(count <= asked, "{path} {ranges:.60}: {count} requests upstream");
        }
    }
    assert!(upstream.count() - stored <= 7);
}

/// Names with `_`, which CGI, WSGI, Rack and PHP cannot tell from those with `-` (nginx drops them for it).
#[test]
fn names_with_underscores_stand_in_for_no_other() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let edge = Edge::over(&upstream).start();
    let names = [
        "X_Forwarded_For",
        "X_Real_IP",
        "Content_Length",
        "Transfer_Encoding",
        "Host_",
        "_Host",
        "Remote_User",
        "X-Forwarded_Proto",
    ];
    for name in names {
        for curl in [edge.curl("/"), edge.curl_h2("/")] {
            assert_eq!(curl.header(&format!("{name}: evil.test")).send().status, 200, "{name}");
        }
    }
    for seen in upstream.seen() {
        assert!(!format!("{:?}", seen.headers).contains("evil.test"), "{seen:#?}");
    }
}

/// Disclosure by background updates: an answer that is fetched behind a stale one
/// is nobody's in particular, and neither mixes into what is served meanwhile.
#[test]
fn a_background_update_discloses_nothing_of_anybody() {
    let (old, new) = ("old ".repeat(50_000), "the new one ".repeat(50_000));
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let (old, new, gate) = (old.clone(), new.clone(), gate.clone());
        let first = std::sync::atomic::AtomicBool::new(true);
        move |_| match first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => Reply::ok(old.clone()).cache_control("max-age=0, stale-while-revalidate=600"),
            false => Reply::ok(new.clone()).cache_control("max-age=600").after(&gate),
        }
    });
    let edge = Edge::over(&upstream).route("path = \"/*\"\ncache = { ignore_cookies = true }").start();
    assert_eq!(edge.get("/").text(), old);
    // Whose request is the occasion has secrets, and wants a part.
    let part = edge
        .curl("/")
        .header("Cookie: secret=1")
        .header("Range: bytes=4-7")
        .header("X-Http-Method-Override: GET")
        .send();
    assert_eq!((part.status, part.text().as_str()), (206, "old "));
    upstream.wait_for(2);
    for _ in 0..5 {
        assert_eq!(edge.get("/").text(), old, "whole, while the new one is on its way");
    }
    gate.open();
    wait::until("the new one is there", || (edge.get("/").text() == new).then_some(()));
    let update = &upstream.seen()[1];
    for name in ["cookie", "authorization", "range", "if-range", "x-http-method-override"] {
        assert_eq!(update.header(name), "", "{name} went along: {update:#?}");
    }
    assert_eq!(upstream.count(), 2);
}
