//! One fetch answers many requests, as its bytes arrive: ten thousand for one cold key make one request upstream.

use gatehouse_tests::{
    edge::Edge,
    frames::{END_HEADERS, END_STREAM, get, head},
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
};

use crate::metrics;

const CONNECTIONS: usize = 10;
const STREAMS: u32 = 1_000;

#[test]
fn ten_thousand_simultaneous_requests_for_a_cold_key_ask_the_origin_once() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream =
        Upstream::start(move |_| Reply::ok("the one answer").cache_control("max-age=60").after(&held));
    let edge = Edge::over(&upstream).tables(&format!("[bounds]\nstreams = {STREAMS}")).start();
    let mut connections: Vec<_> =
        (0..CONNECTIONS).map(|_| Raw::connect_tls(edge.tls(), &edge.authority(), "h2")).collect();
    let request = head(&get("/cold"));
    for raw in &mut connections {
        raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(frame(SETTINGS, 0, 0, &[]));
        let streams =
            (0..STREAMS).map(|number| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &request));
        raw.send(streams.collect::<Vec<_>>().concat()).send(frame(PING, 0, 0, b"all sent"));
    }
    // Frames are handled in order: when the PING is answered, every request before it has been taken.
    for raw in &mut connections {
        let came = until(raw, |kind, flags, _, _| kind == PING && flags & ACK != 0);
        assert_eq!(came.heads, 0, "nothing is answered yet");
    }
    upstream.wait_for(1);
    gate.open();
    let mut answered = 0;
    for raw in &mut connections {
        let (mut ended, mut content) = (0, 0);
        until(raw, |kind, flags, _, payload| {
            if kind == HEADERS {
                assert_eq!(payload.first(), Some(&STATUS_200));
            }
            assert!(kind != RESET, "a stream was reset");
            if kind == DATA {
                content += payload.len();
            }
            ended += u32::from(matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0);
            ended == STREAMS
        });
        assert_eq!(content, "the one answer".len() * STREAMS as usize);
        answered += ended;
    }
    let metrics = metrics::all(&edge);
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

/// What came before what was waited for.
struct Came {
    heads: usize,
}

/// Reads frames until one is what is waited for. Acknowledges settings on the way.
fn until(raw: &mut Raw, mut is_it: impl FnMut(u8, u8, u32, &[u8]) -> bool) -> Came {
    let mut came = Came { heads: 0 };
    loop {
        let header = raw.read_exactly(9).expect("the connection stays open");
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let payload = raw.read_exactly(number(&header[..3]) as usize).expect("frames come whole");
        let (kind, flags) = (header[3], header[4]);
        if kind == SETTINGS && flags & ACK == 0 {
            raw.send(frame(SETTINGS, ACK, 0, &[]));
        }
        came.heads += usize::from(kind == HEADERS);
        if is_it(kind, flags, number(&header[5..]), &payload) {
            return came;
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

// RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
/// `:status: 200` as an index into the static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;
