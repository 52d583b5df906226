//! HTTP/2 (RFC 9113). What no honest client sends does not reach the upstream and does not hurt others.

use std::fmt::Write as _;

use gatehouse_tests::{
    edge::Edge,
    frames::{END_HEADERS, END_STREAM, Kind, Outcome, get, head},
    process::resident_kib,
    tool,
    upstream::{Gate, Reply, Upstream},
};

#[test]
fn malformed_requests_are_refused_and_never_forwarded() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let edge = Edge::over(&upstream).start();
    let mut frames = edge.frames();
    assert!(frames.request(1, &get("/")));
    assert_eq!(frames.outcome(1), Outcome::Answered, "the harness speaks HTTP/2");
    assert_eq!(upstream.count(), 1);

    let with = |more: &[(&'static str, &'static str)]| [get("/"), more.to_vec()].concat();
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("an upper-case name (§8.2.1)", with(&[("X-Upper", "1")])),
        ("a line feed in a value (§8.2.1)", with(&[("x", "1\nhost: evil")])),
        ("a carriage return in a value", with(&[("x", "1\r\nGET /evil HTTP/1.1")])),
        ("a NUL in a value", with(&[("x", "a\0b")])),
        ("a colon in a name", with(&[("x:y", "1")])),
        ("a space in a name", with(&[("x y", "1")])),
        ("Connection (§8.2.2)", with(&[("connection", "close")])),
        ("Transfer-Encoding (§8.2.2)", with(&[("transfer-encoding", "chunked")])),
        ("TE other than trailers (§8.2.2)", with(&[("te", "gzip")])),
        (
            "a pseudo-field after a field (§8.3)",
            vec![("x", "1"), (":method", "GET"), (":scheme", "https"), (":path", "/")],
        ),
        ("an unknown pseudo-field (§8.3)", with(&[(":evil", "1")])),
        ("a response's pseudo-field (§8.3)", with(&[(":status", "200")])),
        ("a repeated pseudo-field (§8.3)", with(&[(":path", "/evil")])),
        ("no :path (§8.3.1)", vec![(":method", "GET"), (":scheme", "https"), (":authority", "a")]),
        (
            "an empty :path (§8.3.1)",
            vec![(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "")],
        ),
        ("no :method (§8.3.1)", vec![(":scheme", "https"), (":authority", "a"), (":path", "/")]),
        (
            "a space in :path",
            vec![(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/ HTTP/1.1")],
        ),
        (
            "a space in :method",
            vec![(":method", "GET /evil"), (":scheme", "https"), (":authority", "a"), (":path", "/")],
        ),
        ("content that Content-Length denies (§8.1.1)", with(&[("content-length", "5")])),
    ];
    let mut wrong = String::new();
    for (what, fields) in cases {
        let mut frames = edge.frames();
        frames.request(1, &fields);
        let outcome = frames.outcome(1);
        let seen = upstream.count() - 1;
        if seen > 0 {
            let _ =
                writeln!(wrong, "{what}: reached the upstream ({outcome:?}): {:?}", upstream.seen().last());
            break;
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn host_and_authority_that_disagree_are_refused() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("no-store"));
    let edge = Edge::over(&upstream).start();
    let mut frames = edge.frames();
    frames.request(1, &[get("/"), vec![("host", "evil.test")]].concat());
    frames.outcome(1);
    assert_eq!(upstream.count(), 0, "RFC 9113 §8.3.1");
}

#[test]
fn a_head_too_large_is_refused_and_the_rest_goes_on() {
    let upstream = Upstream::start(|_| Reply::ok("text"));
    let edge = Edge::over(&upstream).start();
    let large = "x".repeat(100_000);
    let answer = edge.curl_h2("/").header(&format!("X-Large: {large}")).start().result();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431), "RFC 6585 §5");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_client_that_opens_no_window_holds_nobody_up() {
    let upstream = Upstream::start(|_| Reply::ok("x".repeat(1 << 20)).cache_control("max-age=60"));
    let edge = Edge::over(&upstream).start();
    let mut stuck = edge.frames();
    // SETTINGS_INITIAL_WINDOW_SIZE = 0 (RFC 9113 §6.5.2): not one byte of content may come.
    stuck.send(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 0]);
    stuck.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &head(&get("/")));
    assert_eq!(stuck.outcome(1), Outcome::Answered);
    assert_eq!(edge.curl_h2("/").header("Host: localhost").send().body.len(), 1 << 20);
}

#[test]
fn streams_whose_client_never_opens_a_window_are_reset() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"));
    let edge = Edge::over(&upstream)
        .upstream("response_timeout = \"200ms\"\nidle_timeout = \"200ms\"")
        .tables("[timeouts]\nheader = \"300ms\"\ntotal = \"300ms\"\nbody = \"300ms\"")
        .start();
    let mut stuck = edge.frames();
    stuck.send(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for stream in [1, 3, 5] {
        assert!(stuck.request(stream, &get("/")));
        assert_eq!(stuck.outcome(stream), Outcome::Answered, "the head needs no window");
    }
    let mut reset = Vec::new();
    while reset.len() < 3 {
        let frame = stuck.next().expect("the connection stays");
        if frame.is(Kind::ResetStream) {
            reset.push(frame.stream);
        }
    }
    reset.sort_unstable();
    assert_eq!(reset, [1, 3, 5]);
    assert_eq!(edge.curl_h2("/").send().status, 200);
}

#[test]
fn streams_opened_and_reset_leave_nothing_behind() {
    let never = Gate::closed();
    let upstream = Upstream::start(move |seen| match seen.target.as_str() {
        "/now" => Reply::ok("text").cache_control("max-age=60"),
        _ => Reply::ok("").after(&never),
    });
    let edge = Edge::over(&upstream).start();
    assert_eq!(edge.curl_h2("/now").send().status, 200);
    let reset = |path: &str| {
        let mut frames = edge.frames();
        for stream in (1..30).step_by(2) {
            let began = frames.request(stream, &get(path));
            assert!(began && frames.send(Kind::ResetStream, 0, stream, &8_u32.to_be_bytes()));
        }
        // Frames are handled in order: what follows the resets is answered after them.
        assert!(frames.request(31, &get("/now")));
        assert_eq!(frames.outcome(31), Outcome::Answered);
    };
    for _ in 0..20 {
        reset("/never");
    }
    let (before, _) = resident_kib(edge.id());
    for _ in 0..200 {
        reset("/never");
    }
    let (after, _) = resident_kib(edge.id());
    assert!(after < before + (4 << 10), "{before} KiB before 3,000 resets, {after} KiB after");
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let upstream = Upstream::start(|_| Reply::ok("text"));
    let edge = Edge::over(&upstream).tables("[bounds]\nbody = \"1 KiB\"").start();
    for _ in 0..10 {
        let answer = edge.curl_h2("/").header("Expect:").post("PUT", vec![b'x'; 8 << 20]).send();
        answer.assert_problem(413);
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn nghttp_gets_the_page_over_http_2() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"));
    let edge = Edge::over(&upstream).start();
    let nghttp = tool::find(&["nghttp"], "nghttp2-client");
    let url = format!("https://127.0.0.1:{}/", edge.tls().port());
    let output = tool::run(&nghttp, ["--no-verify", "--verbose", "--multiply=2", &url]);
    assert_eq!(output.matches(":status: 200").count(), 2, "{output}");
    assert!(!output.contains("RST_STREAM"), "{output}");
}
