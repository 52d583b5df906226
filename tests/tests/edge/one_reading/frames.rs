//! HTTP/2 requests, frame by frame (RFC 9113), before an upstream of HTTP/1.1 that reads strictly and records: each is passed on
//! with one meaning, or its stream or connection ends and nothing of it goes upstream.

use std::fmt::Write as _;

use gatehouse_tests::{
    edge::{Edge, Setup},
    frames::{END_HEADERS, END_STREAM, Frames, Kind, Outcome, get, head},
    recorder::{Heard, Recorder},
};

type Fields = Vec<(&'static str, String)>;

struct Case {
    what: String,
    /// Sends everything on stream 1.
    send: Box<dyn Fn(&mut Frames)>,
    expected: Expected,
}

enum Expected {
    /// No answer but a 4xx or 501, and nothing upstream.
    Refused,
    /// What the upstream has understood: the line, the content, and fields that are there once with these values, or not at all
    /// where there is no value.
    PassedOn(&'static str, &'static str, Vec<(&'static str, Option<&'static str>)>),
}

fn plain() -> Fields {
    get("/x").into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

fn with(more: &[(&'static str, &str)]) -> Fields {
    plain().into_iter().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
}

fn in_place_of(name: &str, value: Option<&str>) -> Fields {
    let replaced = |(of, own): (&'static str, String)| match (of == name, value) {
        (false, _) => Some((of, own)),
        (true, Some(value)) => Some((of, value.to_owned())),
        (true, None) => None,
    };
    plain().into_iter().filter_map(replaced).collect()
}

fn block(fields: &Fields) -> Vec<u8> {
    head(&fields.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>())
}

/// A request without content.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a table of cases is easier to read without a sign before each list"
)]
fn request(what: impl Into<String>, fields: Fields, expected: Expected) -> Case {
    let block = block(&fields);
    let send =
        move |frames: &mut Frames| drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &block));
    Case { what: what.into(), send: Box::new(send), expected }
}

/// A request with this content in one frame, and these trailer fields behind it, where there are any.
fn upload(
    what: impl Into<String>,
    more: &[(&'static str, &str)],
    content: &'static str,
    trailers: &[(&str, &str)],
    expected: Expected,
) -> Case {
    let mut fields = in_place_of(":method", Some("POST"));
    fields.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let (block, trailers) = (block(&fields), (!trailers.is_empty()).then(|| head(trailers)));
    let send = move |frames: &mut Frames| {
        frames.send(Kind::Headers, END_HEADERS, 1, &block);
        let ends = if trailers.is_none() { END_STREAM } else { 0 };
        frames.send(Kind::Data, ends, 1, content.as_bytes());
        if let Some(trailers) = &trailers {
            frames.send(Kind::Headers, END_HEADERS | END_STREAM, 1, trailers);
        }
    };
    Case { what: what.into(), send: Box::new(send), expected }
}

/// The edge may have closed already: what came of it is looked at afterwards.
fn drop_sent(_: bool) {}

use Expected::{PassedOn, Refused};

/// RFC 9113 §8.3.
fn pseudo_fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in [":method", ":scheme", ":path"] {
        cases.push(request(format!("no {name} (§8.3.1)"), in_place_of(name, None), Refused));
        cases.push(request(format!("an empty {name} (§8.3.1)"), in_place_of(name, Some("")), Refused));
    }
    for (name, value) in
        [(":method", "GET"), (":scheme", "https"), (":path", "/y"), (":authority", "localhost")]
    {
        cases.push(request(format!("{name} twice (§8.3)"), with(&[(name, value)]), Refused));
    }
    for (name, value) in
        [(":status", "200"), (":evil", "1"), (":", "1"), (":protocol", "websocket"), (":Path", "/y")]
    {
        cases.push(request(format!("{name} (§8.3)"), with(&[(name, value)]), Refused));
    }
    let mut late = with(&[]);
    late.rotate_right(1);
    late.insert(1, ("x", "1".to_owned()));
    cases.push(request("a pseudo-field behind a field (§8.3)", late, Refused));
    for path in [
        "x",
        "x/y",
        "http://localhost/x",
        "/x y",
        "/x\ty",
        "/x HTTP/1.1",
        "/x\r\nX: 1",
        "/x\0",
        "*",
        "**",
        " /x",
        "/x ",
        "\\x",
        "/a/../x",
        "/a/%2e%2e/x",
        "/a/..%2fx",
    ] {
        cases.push(request(format!(":path {path:?} (§8.3.1)"), in_place_of(":path", Some(path)), Refused));
    }
    for method in
        ["G T", " GET", "GET ", "GE\tT", "GET\r\n", "G\0T", "GET /y HTTP/1.1\r\nX:", "(", "CONNECT", "TRACE"]
    {
        cases.push(request(
            format!(":method {method:?} (§8.3.1)"),
            in_place_of(":method", Some(method)),
            Refused,
        ));
    }
    for scheme in ["ftp", "file", "https:", "https://", "h t", "1", "javascript"] {
        cases.push(request(
            format!(":scheme {scheme:?} (§8.3.1)"),
            in_place_of(":scheme", Some(scheme)),
            Refused,
        ));
    }
    for authority in [
        "u@localhost",
        "u:p@localhost",
        "a b",
        "a/b",
        "a:b",
        "a:99999",
        "a:1:2",
        "a\\b",
        "a\"b",
        "a<b",
        "[::1",
        "[x]",
        "a%zz",
        "a?b",
        "a#b",
        "@",
        ":80",
        "a\r\nX: 1",
        "a\0",
    ] {
        cases.push(request(
            format!(":authority {authority:?} (§8.3.1)"),
            in_place_of(":authority", Some(authority)),
            Refused,
        ));
    }
    for host in ["evil.test", "localhost:444", "", "a b", "localhost, evil.test"] {
        cases.push(request(
            format!("Host {host:?} beside :authority (§8.3.1)"),
            with(&[("host", host)]),
            Refused,
        ));
    }
    cases.push(request(
        "Host twice (§8.3.1)",
        with(&[("host", "localhost"), ("host", "localhost")]),
        Refused,
    ));
    let mut neither = in_place_of(":authority", None);
    cases.push(request("neither :authority nor Host (§8.3.1)", neither.clone(), Refused));
    neither.push(("host", "localhost".to_owned()));
    cases.push(request(
        "Host alone (§8.3.1)",
        neither,
        PassedOn("GET /x", "", vec![("host", Some("localhost"))]),
    ));
    for host in ["localhost", "LOCALHOST", "localhost:443"] {
        let fields = with(&[("host", host)]);
        cases.push(request(
            format!("Host {host:?} that agrees"),
            fields,
            PassedOn("GET /x", "", vec![("host", Some("localhost"))]),
        ));
    }
    let fields = in_place_of(":scheme", Some("http"));
    cases.push(request(
        "the scheme is the connection's",
        fields,
        PassedOn("GET /x", "", vec![("x-forwarded-proto", Some("https"))]),
    ));
    cases.push(request(
        "a method of another spelling",
        in_place_of(":method", Some("get")),
        PassedOn("get /x", "", vec![]),
    ));
    cases
}

/// RFC 9113 §8.2.
fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x"),
        ("proxy-connection", "close"),
        ("keep-alive", "1"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "chunked"),
    ] {
        cases.push(request(format!("{name}: {value} (§8.2.2)"), with(&[(name, value)]), Refused));
    }
    for name in [
        "X-Upper",
        "xX",
        "",
        "x y",
        "x:y",
        "x:",
        " x",
        "x ",
        "x\t",
        "x\0",
        "x\r\ny",
        "x\ny",
        "x\"",
        "x(",
        "x/",
        "x,",
        "x;",
        "x=",
        "x@",
        "x[",
        "x{",
        "x\u{7f}",
        "x\u{e9}",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
    ] {
        cases.push(request(format!("a field {name:?} (§8.2.1)"), with(&[(leak(name), "1")]), Refused));
    }
    let controls = (0..0x20_u8).filter(|octet| *octet != b'\t').chain([0x7f]);
    for octet in controls {
        let value = format!("a{}b", char::from(octet));
        cases.push(request(format!("{octet:#04x} in a value (§8.2.1)"), with(&[("x", &value)]), Refused));
    }
    for value in [" a", "a ", "\ta", "a\t", " ", "\t"] {
        cases.push(request(format!("{value:?} as a value (§8.2.1)"), with(&[("x", value)]), Refused));
    }
    for value in ["", "a", "a\tb", "a b", "caf\u{e9}"] {
        let seen = if value.is_ascii() { Some(leak(value)) } else { Some("caf\u{c3}\u{a9}") };
        cases.push(request(
            format!("{value:?} as a value"),
            with(&[("x", value)]),
            PassedOn("GET /x", "", vec![("x", seen)]),
        ));
    }
    let taken = PassedOn("POST /x", "abc", vec![("te", Some("trailers")), ("connection", Some("te"))]);
    cases.push(upload("te: trailers (§8.2.2)", &[("te", "trailers")], "abc", &[], taken));
    let joined = PassedOn("GET /x", "", vec![("cookie", Some("a=1; b=2; c=3"))]);
    cases.push(request("cookies apart (§8.2.3)", with(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]), joined));
    for (name, value) in [
        ("x-forwarded-for", "6.6.6.6"),
        ("x_forwarded_for", "6.6.6.6"),
        ("client-ip", "6.6.6.6"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ] {
        let seen = (name == "x-forwarded-for").then_some("127.0.0.1");
        cases.push(request(
            format!("{name}: {value}"),
            with(&[(name, value)]),
            PassedOn("GET /x", "", vec![(name, seen)]),
        ));
    }
    cases
}

/// RFC 9113 §8.1.1: a content that is not what Content-Length says never reaches the upstream whole.
fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [
        "2",
        "4",
        "0",
        "300",
        "",
        "x",
        "+3",
        "-3",
        "0x3",
        "3,",
        "3, 3",
        "3,4",
        " 3",
        "3 ",
        "18446744073709551616",
        "3.0",
        "\u{b3}",
    ] {
        cases.push(upload(
            format!("content-length: {length:?} of three octets"),
            &[("content-length", length)],
            "abc",
            &[],
            Refused,
        ));
    }
    for lengths in [["3", "4"], ["4", "3"], ["3", "3"], ["3", ""]] {
        let lines = lengths.map(|length| ("content-length", length));
        cases.push(upload(format!("two lengths {lengths:?}"), &lines, "abc", &[], Refused));
    }
    cases.push(request("a length and no content", with(&[("content-length", "5")]), Refused));
    let trailers = &[("x-digest", "1")];
    cases.push(upload(
        "a length that trailers end early",
        &[("content-length", "5")],
        "abc",
        trailers,
        Refused,
    ));
    let whole = PassedOn("POST /x", "abc", vec![("content-length", Some("3")), ("transfer-encoding", None)]);
    cases.push(upload("the right length", &[("content-length", "3")], "abc", &[], whole));
    let whole =
        PassedOn("POST /x", "abc", vec![("content-length", None), ("transfer-encoding", Some("chunked"))]);
    cases.push(upload("no length", &[], "abc", &[], whole));
    let framed = PassedOn("POST /x", "3\r\nabc\r\n0\r\n\r\n", vec![("content-length", None)]);
    cases.push(upload("content that looks like chunks", &[], "3\r\nabc\r\n0\r\n\r\n", &[], framed));
    cases
}

/// RFC 9113 §8.1, RFC 9110 §6.5.1.
fn trailers() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in [
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "host",
        "content-length",
        "authorization",
        "cookie",
        "content-type",
        "cache-control",
        "client-ip",
        "x_forwarded_for",
        "x-original-url",
        "range",
        "if-match",
    ] {
        let seen = match name {
            "x-forwarded-for" | "x-real-ip" => Some("127.0.0.1"),
            "host" => Some("localhost"),
            _ => None,
        };
        let trailers = [(name, "evil.test"), ("x-digest", "1")];
        // HTTP/1.1 is sent those alone that Trailer announces.
        let head = [("trailer", leak(&format!("{name}, x-digest"))), ("te", "trailers")];
        let meaning = PassedOn("POST /x", "abc", vec![(name, seen), ("x-digest", Some("1"))]);
        cases.push(upload(
            format!("{name} as a trailer (RFC 9110 §6.5.1)"),
            &head,
            "abc",
            &trailers,
            meaning,
        ));
    }
    for trailer in [
        ("X-Upper", "1"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("x", "a\0b"),
        ("x y", "1"),
        (":unknown", "1"),
    ] {
        cases.push(upload(format!("the trailer {trailer:?} (§8.1)"), &[], "abc", &[trailer], Refused));
    }
    cases
}

/// RFC 9113 §4 to §6: frames that may not come, or not there.
fn frames() -> Vec<Case> {
    let bad = |what: &str, send: fn(&mut Frames, &[u8])| {
        let block = block(&plain());
        let send = move |frames: &mut Frames| send(frames, &block);
        Case { what: what.to_owned(), send: Box::new(send), expected: Refused }
    };
    vec![
        bad("a head on stream 0 (§6.2)", |frames, block| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM, 0, block));
        }),
        bad("a head on a stream of the server's (§5.1.1)", |frames, block| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM, 2, block));
        }),
        bad("content on stream 0 (§6.1)", |frames, _| drop_sent(frames.send(Kind::Data, 0, 0, b"abc"))),
        bad("content on a stream that is idle (§5.1)", |frames, _| {
            drop_sent(frames.send(Kind::Data, END_STREAM, 1, b"abc"));
        }),
        bad("CONTINUATION without a head (§6.10)", |frames, block| {
            drop_sent(frames.send(Kind::Continuation, END_HEADERS, 1, block));
        }),
        bad("a frame inside a head (§6.10)", |frames, block| {
            frames.send(Kind::Headers, END_STREAM, 1, block);
            frames.send(Kind::Ping, 0, 0, &[0; 8]);
            frames.send(Kind::Continuation, END_HEADERS, 1, &[]);
        }),
        bad("another stream's frame inside a head (§6.10)", |frames, block| {
            frames.send(Kind::Headers, END_STREAM, 1, block);
            frames.send(Kind::Headers, END_HEADERS | END_STREAM, 3, block);
        }),
        bad("a window that grows by nothing (§6.9)", |frames, _| {
            drop_sent(frames.send(Kind::WindowUpdate, 0, 0, &[0; 4]));
        }),
        bad("a window beyond bounds (§6.9.1)", |frames, _| {
            drop_sent(frames.send(Kind::WindowUpdate, 0, 0, &[0x7f, 0xff, 0xff, 0xff]));
        }),
        bad("settings of a wrong length (§6.5)", |frames, _| {
            drop_sent(frames.send(Kind::Settings, 0, 0, &[0; 5]));
        }),
        bad("settings on a stream (§6.5)", |frames, _| drop_sent(frames.send(Kind::Settings, 0, 1, &[]))),
        bad("a ping of a wrong length (§6.7)", |frames, _| {
            drop_sent(frames.send(Kind::Ping, 0, 0, &[0; 7]));
        }),
        bad("a reset of an idle stream (§6.4)", |frames, _| {
            drop_sent(frames.send(Kind::ResetStream, 0, 1, &[0; 4]));
        }),
        bad("a frame larger than is allowed (§4.2)", |frames, _| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS, 1, &[0; 20_000]));
        }),
        bad("padding longer than its frame (§6.2)", |frames, _| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM | 0x8, 1, &[200, 0x82]));
        }),
        bad("a push of the client's (§8.4)", |frames, block| {
            let length = u32::try_from(block.len() + 4).unwrap().to_be_bytes();
            let header =
                [&length[1..], &[5, END_HEADERS], &1_u32.to_be_bytes(), &2_u32.to_be_bytes()].concat();
            frames.send_octets(&[&header, block].concat());
        }),
        bad("an index beyond HPACK's tables (RFC 7541 §2.3.3)", |frames, _| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0x7f]));
        }),
        bad("the index 0 (RFC 7541 §6.1)", |frames, _| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x80]));
        }),
        bad("a number without end (RFC 7541 §5.1)", |frames, _| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &[0xff; 64]));
        }),
        bad("a text that is cut off (RFC 7541 §5.2)", |frames, _| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &[0, 10, b'x']));
        }),
        bad("a table larger than is allowed (RFC 7541 §6.3)", |frames, _| {
            drop_sent(frames.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x3f, 0xff, 0xff, 0x7f]));
        }),
        bad("HTTP/1.1 in place of frames (§3.4)", |frames, _| {
            drop_sent(frames.send_octets(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"));
        }),
    ]
}

fn leak(text: &str) -> &'static str {
    text.to_owned().leak()
}

fn wrong(case: &Case, edge: &Edge, recorder: &Recorder) -> Option<String> {
    let mut frames = edge.frames();
    (case.send)(&mut frames);
    // What is sent behind it on the same connection must not be taken for a part of it.
    let outcome = frames.status(1);
    let heard: Result<Vec<Heard>, String> = recorder.take().into_iter().collect();
    let heard = match heard {
        Ok(heard) => heard,
        Err(unclear) => return Some(format!("the upstream was sent what is unclear: {unclear}")),
    };
    match (&case.expected, outcome, &heard[..]) {
        (Refused, Ok(400..=499 | 501) | Err(Outcome::Reset(_) | Outcome::Ended(_)), []) => None,
        (PassedOn(line, content, fields), Ok(200), [heard]) => {
            if heard.line != format!("{line} HTTP/1.1") || heard.content != content.as_bytes() {
                return Some(format!("the upstream understood {heard:?}"));
            }
            let all: Vec<_> = heard.fields.iter().chain(&heard.trailers).collect();
            let differs = fields.iter().find(|(name, value)| {
                let values: Vec<&str> =
                    all.iter().filter(|(sent, _)| sent == name).map(|(_, value)| value.as_str()).collect();
                values != value.iter().copied().collect::<Vec<_>>()
            });
            differs.map(|differs| format!("not {differs:?}: {heard:?}"))
        }
        (_, outcome, heard) => Some(format!("{outcome:?}, upstream {heard:?}")),
    }
}

#[test]
fn every_request_over_http_2_has_one_reading_or_is_refused() {
    let recorder = Recorder::start();
    let edge = Setup::over_address(recorder.address()).tables("[timeouts]\nbody = \"1s\"").start();
    let cases: Vec<Case> =
        [pseudo_fields, fields, lengths, trailers, frames].into_iter().flat_map(|family| family()).collect();
    assert!(cases.len() > 200, "{} cases", cases.len());
    let mut all = String::new();
    for case in &cases {
        if let Some(why) = wrong(case, &edge, &recorder) {
            let _ = writeln!(all, "{}: {why:.500}", case.what);
        }
    }
    assert!(all.is_empty(), "\n{all}");
    assert_eq!(edge.curl_h2("/").send().status, 200, "and the edge goes on");
}

#[test]
fn a_host_that_no_route_is_for_is_misdirected_over_an_encrypted_connection() {
    // RFC 9110 §15.5.20, RFC 9113 §9.1.1: a client that has coalesced hosts on a connection tries another one.
    let recorder = Recorder::start();
    let route = "path = \"/*\"\nhosts = [\"localhost\"]";
    let edge = Setup::over_address(recorder.address()).route(route).start();
    let mut frames = edge.frames();
    let fields = in_place_of(":authority", Some("other.test"));
    frames.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&fields));
    assert_eq!(frames.status(1), Ok(421));
    assert_eq!(edge.curl_tls("/").header("Host: other.test").send().status, 421);
    assert_eq!(edge.curl("/").header("Host: other.test").send().status, 404, "clear text mixes nothing up");
    assert!(recorder.take().is_empty());
    let mut frames = edge.frames();
    frames.request(1, &get("/x"));
    assert_eq!(frames.status(1), Ok(200));
}
