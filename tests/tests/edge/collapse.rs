//! One fetch answers many requests, as its bytes arrive: ten thousand for one cold key make one request upstream.

use gatehouse_tests::{
    edge::Edge,
    frames::{ACK, END_STREAM, Frame, Frames, Kind, get},
    upstream::{Gate, Reply, Upstream},
};

const CONNECTIONS: usize = 10;
const STREAMS: u32 = 1_000;

#[test]
fn ten_thousand_simultaneous_requests_for_a_cold_key_ask_the_origin_once() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream =
        Upstream::start(move |_| Reply::ok("the one answer").cache_control("max-age=60").after(&held));
    let edge = Edge::over(&upstream).tables(&format!("[bounds]\nstreams = {STREAMS}")).start();
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| edge.frames()).collect();
    for frames in &mut connections {
        for number in 0..STREAMS {
            assert!(frames.request(2 * number + 1, &get("/cold")));
        }
        assert!(frames.send(Kind::Ping, 0, 0, b"all sent"));
    }
    // Frames are handled in order: when the PING is answered, every request before it has been taken.
    for frames in &mut connections {
        until(frames, |frame| {
            assert!(!frame.is(Kind::Headers), "nothing is answered yet");
            frame.is(Kind::Ping) && frame.flags & ACK != 0
        });
    }
    upstream.wait_for(1);
    gate.open();
    let mut answered = 0;
    for frames in &mut connections {
        let (mut ended, mut content) = (0, 0);
        until(frames, |frame| {
            let head = frame.is(Kind::Headers);
            assert!(!head || frame.payload.first() == Some(&STATUS_200), "{frame:?}");
            assert!(!frame.is(Kind::ResetStream), "a stream was reset");
            if frame.is(Kind::Data) {
                content += frame.payload.len();
            }
            ended += u32::from((head || frame.is(Kind::Data)) && frame.flags & END_STREAM != 0);
            ended == STREAMS
        });
        assert_eq!(content, "the one answer".len() * STREAMS as usize);
        answered += ended;
    }
    let metrics = edge.metrics();
    let by_verdict: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("gatehouse_edge_requests_total")).collect();
    println!("{answered} answers over {CONNECTIONS} connections, {} requests upstream", upstream.count());
    println!("{}", by_verdict.join("\n"));
    assert_eq!((answered, upstream.count()), (10_000, 1));
}

#[test]
fn simultaneous_misses_ask_the_origin_once() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| Reply::ok("text").cache_control("max-age=60").after(&held));
    let edge = Edge::over(&upstream).start();
    let clients: Vec<_> = (0..20)
        .map(|number| if number % 2 == 0 { edge.curl_h2("/") } else { edge.curl_tls("/") }.start())
        .collect();
    upstream.wait_for(1);
    gate.open();
    for client in clients {
        assert_eq!(client.answer().text(), "text");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_client_that_leaves_does_not_stop_what_will_be_stored() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        Reply::streamed().then("begin ").then_wait(&held).then("end").cache_control("max-age=60")
    });
    let edge = Edge::over(&upstream).start();
    let leader = edge.curl("/").start();
    upstream.wait_for(1);
    leader.leave();
    gate.open();
    assert_eq!(edge.until_hit("/").text(), "begin end");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_second_reader_follows_a_fill_under_way() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        Reply::streamed().cache_control("max-age=60").then("first ").then_wait(&held).then("last")
    });
    let edge = Edge::over(&upstream).start();
    let mut leader = edge.raw();
    let mut follower = edge.raw();
    for raw in [&mut leader, &mut follower] {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        raw.read_until(b"first ");
    }
    gate.open();
    for raw in [&mut leader, &mut follower] {
        assert!(raw.read_to_close().ends_with(b"4\r\nlast\r\n0\r\n\r\n"));
    }
    assert_eq!(upstream.count(), 1);
}

/// Reads frames until one is what is waited for.
#[track_caller]
fn until(frames: &mut Frames, mut is_it: impl FnMut(&Frame) -> bool) {
    while !is_it(&frames.next().expect("the connection stays open")) {}
}

/// `:status: 200` as an index into the static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;
