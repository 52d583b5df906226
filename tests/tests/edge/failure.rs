//! What clients get when the upstream fails.

use gatehouse_tests::{
    edge::Edge,
    frames::{Outcome, get},
    upstream::{Gate, RawUpstream, Reply, Upstream},
    wait,
};

#[test]
fn when_the_upstream_is_down_stale_is_served_and_the_rest_is_502() {
    let mut upstream = Upstream::start(|_| {
        Reply::ok("kept").cache_control("max-age=0, stale-if-error=86400").header("etag", "\"v1\"")
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/kept");
    upstream.stop();
    let stale = edge.get("/kept");
    assert_eq!((stale.status, stale.text().as_str()), (200, "kept"), "{stale:#?}");
    let missing = edge.get("/never-seen");
    missing.assert_problem(502);
    assert_eq!(edge.curl_h2("/never-seen").send().status, 502);
}

#[test]
fn must_revalidate_forbids_stale_even_when_the_upstream_is_down() {
    let mut upstream = Upstream::start(|_| {
        Reply::ok("kept")
            .cache_control("max-age=0, must-revalidate, stale-if-error=86400")
            .header("etag", "\"v1\"")
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    upstream.stop();
    let answer = edge.get("/");
    assert!(matches!(answer.status, 502 | 504), "RFC 9111 §5.2.2.2: {answer:#?}");
}

#[test]
fn an_error_of_the_upstream_never_replaces_a_good_answer() {
    let upstream = Upstream::start(|seen| {
        if seen.earlier == 1 {
            Reply::status(503).cache_control("max-age=60")
        } else {
            Reply::ok("good").cache_control("max-age=0, stale-if-error=600").header("etag", "\"v1\"")
        }
    });
    let edge = Edge::over(&upstream).start();
    for round in 0..3 {
        let answer = edge.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"), "round {round}: {answer:#?}");
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn an_error_that_nothing_covers_is_passed_on() {
    let upstream = Upstream::start(|_| Reply::ok("oh").with_status(500));
    let edge = Edge::over(&upstream).start();
    for count in 1..=2 {
        let answer = edge.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (500, "oh"));
        assert_eq!(upstream.count(), count, "and not stored");
    }
}

#[test]
fn a_moments_failure_does_not_turn_the_cache_off() {
    // Once, one 503 made everybody pass for half a minute.
    for status in [404, 429, 500, 502, 503, 504] {
        let upstream = Upstream::start(move |seen| match seen.earlier {
            0 => Reply::status(status).cache_control("no-store"),
            _ => Reply::ok("good").cache_control("max-age=600"),
        });
        let edge = Edge::over(&upstream).start();
        assert_eq!(edge.get("/").status, status);
        let recovered = edge.get("/");
        assert_eq!((recovered.status, recovered.is_hit()), (200, false), "{recovered:#?}");
        assert!(edge.get("/").is_hit(), "after one {status} the first good answer is stored");
        assert_eq!(upstream.count(), 2);
    }
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_504() {
    let never = Gate::closed();
    let upstream = Upstream::start(move |_| Reply::ok("late").after(&never));
    let edge = Edge::over(&upstream).upstream("response_timeout = \"200ms\"").start();
    edge.get("/").assert_problem(504);
}

#[test]
fn a_request_is_504_at_its_own_deadline_or_once_sent_at_the_upstreams() {
    let never = Gate::closed();
    let upstream = Upstream::start(move |_| Reply::ok("late").after(&never));
    let edge = Edge::over(&upstream)
        .upstream("response_timeout = \"1s\"")
        .tables("[timeouts]\ntotal = \"300ms\"")
        .start();
    edge.get("/").assert_problem(504);
    edge.curl("/").post("POST", "x").send().assert_problem(504);
}

#[test]
fn an_upstream_that_hangs_up_is_502() {
    let upstream = Upstream::start(|_| Reply::hang_up());
    let edge = Edge::over(&upstream).start();
    edge.get("/").assert_problem(502);
}

#[test]
fn an_answer_that_breaks_off_is_never_passed_off_as_whole() {
    let upstream = Upstream::start(|_| Reply::streamed().then("begin").then_break());
    let edge = Edge::over(&upstream).start();
    let _ = edge.curl("/").fail();
    let _ = edge.curl_h2("/").fail();
    let short = RawUpstream::start(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
    let edge = Edge::over_raw(&short).start();
    let _ = edge.curl("/").fail();
    let _ = edge.curl_h2("/").fail();
}

#[test]
fn what_came_before_an_answer_broke_off_reaches_the_client() {
    for (what, expected) in [
        (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"[..], ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", "abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n3\r\nabc\r\nzz\r\n",
            "abc",
        ),
    ] {
        let upstream = RawUpstream::start(what);
        let edge = Edge::over_raw(&upstream).start();
        for _ in 0..20 {
            let mut raw = edge.raw();
            let all = raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").read_to_close();
            let all = String::from_utf8(all).unwrap();
            assert!(all.starts_with("HTTP/1.1 200 "), "{all:?}");
            assert!(all.contains(expected) && !all.contains("\r\n0\r\n"), "{all:?}");
            let mut frames = edge.frames();
            frames.request(1, &get("/"));
            assert_eq!(frames.outcome(1), Outcome::Answered);
        }
    }
}

#[test]
fn a_malformed_answer_is_502() {
    for bytes in [
        &b"not HTTP at all\r\n\r\n"[..],
        b"HTTP/1.1 999999 Much\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n",
    ] {
        let upstream = RawUpstream::start(bytes);
        let edge = Edge::over_raw(&upstream).start();
        let answer = edge.get("/");
        assert_eq!(answer.status, 502, "{:?}: {answer:#?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn an_answer_framed_twice_is_not_passed_on_ambiguously() {
    // RFC 9112 §6.3: Transfer-Encoding overrides, or it is refused; never both to the client, and never stored.
    let upstream = RawUpstream::start(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let edge = Edge::over_raw(&upstream).start();
    let answer = edge.get("/");
    match answer.status {
        502 => {}
        200 => {
            assert_eq!(answer.text(), "hello");
            assert!(answer.header("content-length") != Some("3"), "{answer:#?}");
        }
        _ => panic!("{answer:#?}"),
    }
}

#[test]
fn post_is_never_repeated() {
    let upstream = Upstream::start(|_| Reply::hang_up());
    let edge = Edge::over(&upstream).start();
    edge.curl("/").post("POST", "order").send().assert_problem(502);
    assert_eq!(upstream.count(), 1, "RFC 9110 §9.2.2");
}

#[test]
fn the_edge_recovers_when_the_upstream_comes_back() {
    let mut upstream = Upstream::start(|_| Reply::ok("back").cache_control("no-store"));
    let edge = Edge::over(&upstream).start();
    assert_eq!(edge.get("/").status, 200);
    upstream.stop();
    assert_eq!(edge.get("/").status, 502);
    upstream.start_again();
    wait::until("the upstream is asked again", || (edge.get("/").status == 200).then_some(()));
}
