//! HTTP/1.1 answers of an upstream, octet by octet. Each is passed on with one meaning, or is a 502, or breaks off where its client
//! can tell; and a connection whose answer was unclear, or that had more to say than its answer, is never used again.

use std::fmt::Write as _;

use gatehouse_tests::{
    edge::{Edge, Setup},
    recorder::{Heard, Recorder},
    upstream::{Octets, RawUpstream},
};

struct Case {
    what: String,
    octets: Vec<u8>,
    outcome: Outcome,
    method: &'static str,
}

enum Outcome {
    BadGateway,
    /// This status and content, on a connection that may go on.
    Given(u16, &'static str),
    /// This status and content, and more than that came.
    GivenAndClosed(u16, &'static str),
    /// It breaks off.
    CutOff,
}

use Outcome::{BadGateway, CutOff, Given, GivenAndClosed};

fn case(what: impl Into<String>, octets: impl AsRef<[u8]>, outcome: Outcome) -> Case {
    Case { what: what.into(), octets: octets.as_ref().to_vec(), outcome, method: "GET" }
}

fn ok(lines: &str, behind: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n{lines}\r\n{behind}")
}

fn status_lines() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in [
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/3 200",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 No",
        "HTTP/1.1 000 No",
        "HTTP/1.1 2xx OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1  200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\x01K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1200 OK",
        "HTTP/1.1 +200 OK",
        "200 OK",
        "<html>",
        "HTTP/01.1 200 OK",
        "HTTP/1.1 20\u{b2} OK",
    ] {
        let octets = format!("{line}\r\nContent-Length: 2\r\n\r\nok");
        cases.push(case(format!("{line:?} (RFC 9112 §4)"), octets, BadGateway));
    }
    for line in [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 ",
        "HTTP/1.1 200",
        "HTTP/1.1 200 Anything  at all",
        "HTTP/1.1 200 \u{e9}",
    ] {
        let octets = format!("{line}\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok");
        cases.push(case(format!("{line:?} (RFC 9112 §4)"), octets, Given(200, "ok")));
    }
    cases
}

fn framings() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in [
        "",
        "+2",
        "-2",
        "0x2",
        "2.0",
        "2,",
        ",2",
        "2,3",
        "2, 3",
        "2 2",
        "two",
        "2;",
        "18446744073709551616",
        "99999999999999999999",
        "\"2\"",
        "1e1",
    ] {
        let octets = ok(&format!("Content-Length: {value}\r\n"), "ok");
        cases.push(case(format!("Content-Length: {value:?} (RFC 9112 §6.3)"), octets, BadGateway));
    }
    for lines in [
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2\r\nContent-Length:\r\n",
        "Content-Length : 2\r\n",
    ] {
        cases.push(case(format!("{lines:?} (RFC 9112 §6.3)"), ok(lines, "ok"), BadGateway));
    }
    for lines in
        ["Content-Length: 2\r\n", "Content-Length: 2\r\nContent-Length: 2\r\n", "content-length:2, 2\r\n"]
    {
        cases.push(case(format!("{lines:?} (RFC 9110 §8.6)"), ok(lines, "ok"), Given(200, "ok")));
    }
    for value in [
        "",
        "xchunked",
        "chunked, chunked",
        "chunked, identity",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked;q=1",
        "\"chunked\"",
        "chunked,",
        ",chunked",
        "identity, chunked",
        "chunked\u{b}",
        "cow, chunked",
    ] {
        let octets = ok(&format!("Transfer-Encoding: {value}\r\n"), "2\r\nok\r\n0\r\n\r\n");
        cases.push(case(format!("Transfer-Encoding: {value:?} (RFC 9112 §6.1)"), octets, BadGateway));
    }
    for lines in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
    ] {
        cases.push(case(format!("{lines:?} (RFC 9112 §6.1)"), ok(lines, "2\r\nok\r\n0\r\n\r\n"), BadGateway));
    }
    cases.push(case(
        "chunked",
        ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
        Given(200, "ok"),
    ));
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    cases.push(case("chunked in HTTP/1.0 (RFC 9112 §6.1)", old, BadGateway));
    cases
}

fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    let controls = (0..0x20_u8).filter(|octet| !matches!(octet, b'\t' | b'\n')).chain([0x7f]);
    for octet in controls {
        let octets = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a", &[octet][..], b"b\r\n\r\nok"].concat();
        cases.push(case(format!("{octet:#04x} in a value (RFC 9110 §5.5)"), octets, BadGateway));
    }
    for lines in [
        "X : 1",
        " X: 1",
        "X",
        ": 1",
        "X: 1\r\n 2",
        "X: 1\r\n\t2",
        "X\u{e9}: 1",
        "X Y: 1",
        "X\"Y: 1",
        "X\0: 1",
        "HTTP/1.1 200 OK",
    ] {
        cases.push(case(
            format!("{lines:?} (RFC 9112 §5)"),
            ok(&format!("Content-Length: 2\r\n{lines}\r\n"), "ok"),
            BadGateway,
        ));
    }
    cases
}

fn contents() -> Vec<Case> {
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let mut cases = Vec::new();
    for behind in [
        "x\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        "2\nok\n0\n\n",
        "2\r\nokk\r\n0\r\n\r\n",
        "3\r\nok\r\n0\r\n\r\n",
        "2;a\nb\r\nok\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nX : 1\r\n\r\n",
        "2\r\nok\r\n0\r\nX\0: 1\r\n\r\n",
    ] {
        cases.push(case(format!("chunks {behind:?} (RFC 9112 §7.1)"), ok(CHUNKED, behind), CutOff));
    }
    // More than the answer: what is left over must not become the answer to somebody else.
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for more in ["x", "\r\n", poison] {
        for (lines, behind) in [("Content-Length: 2\r\n", "ok"), (CHUNKED, "2\r\nok\r\n0\r\n\r\n")] {
            let octets = ok(lines, &format!("{behind}{more}"));
            cases.push(case(format!("{more:?} behind {lines:?}"), octets, GivenAndClosed(200, "ok")));
        }
        for (line, status) in [("204 No Content", 204), ("204 No Content\r\nContent-Length: 5", 204)] {
            let octets = format!("HTTP/1.1 {line}\r\n\r\n{more}");
            cases.push(case(
                format!("{line:?} with {more:?} (RFC 9112 §6.3)"),
                octets,
                GivenAndClosed(status, ""),
            ));
        }
        let octets = ok("Content-Length: 2\r\n", more);
        cases.push(Case {
            method: "HEAD",
            ..case(format!("HEAD with {more:?}"), octets, GivenAndClosed(200, ""))
        });
    }
    for length in ["x", "-1", "2,3"] {
        let octets = ok(&format!("Content-Length: {length}\r\n"), "");
        cases.push(Case {
            method: "HEAD",
            ..case(format!("HEAD with length {length:?}"), octets, BadGateway)
        });
    }
    cases.push(case(
        "101 that nobody asked for (RFC 9110 §15.2.2)",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        BadGateway,
    ));
    cases.push(case(
        "interim responses",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_owned()
            + &ok("Content-Length: 2\r\n", "ok"),
        Given(200, "ok"),
    ));
    cases.push(case(
        "an interim response with content",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nok".to_owned()
            + &ok("Content-Length: 2\r\n", "ok"),
        BadGateway,
    ));
    cases
}

/// What an answer's client saw of it.
fn differs(edge: &Edge, case: &Case, number: usize) -> Option<String> {
    let mut raw = edge.raw();
    raw.send(format!("{} /{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", case.method));
    let octets = String::from_utf8_lossy(&raw.read_to_close()).into_owned();
    // Interim responses come before.
    let start = octets
        .rmatch_indices("HTTP/1.1 ")
        .map(|(at, _)| at)
        .find(|at| !octets[*at..].starts_with("HTTP/1.1 1"));
    let answer = &octets[start.unwrap_or_default()..];
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
    let chunked = head.contains("transfer-encoding");
    let whole = |content: &str| match (chunked, content.is_empty()) {
        (true, false) => body == format!("{:X}\r\n{content}\r\n0\r\n\r\n", content.len()),
        (true, true) => body == "0\r\n\r\n",
        (false, _) => body == content,
    };
    let right = match case.outcome {
        BadGateway => status == 502,
        Given(expected, content) | GivenAndClosed(expected, content) => status == expected && whole(content),
        CutOff => status == 502 || (chunked && !body.ends_with("0\r\n\r\n")),
    };
    (!right).then(|| format!("{octets:?}"))
}

#[test]
fn every_answer_of_an_upstream_has_one_reading_or_is_a_502_and_ends_its_connection() {
    let cases: Vec<Case> =
        [status_lines, framings, fields, contents].into_iter().flat_map(|family| family()).collect();
    assert!(cases.len() > 120, "{} cases", cases.len());
    let octets: Vec<Vec<u8>> = cases.iter().map(|case| case.octets.clone()).collect();
    let recorder = Recorder::answering(move |heard| {
        let number = heard.line.split(['/', ' ']).nth(2).and_then(|number| number.parse::<usize>().ok());
        match number.and_then(|number| octets.get(number)) {
            Some(octets) => octets.clone(),
            None => b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 5\r\n\r\nclean".to_vec(),
        }
    });
    let edge = Setup::over_address(recorder.address()).upstream("failures = 1000000").start();
    let mut wrong = String::new();
    for (number, case) in cases.iter().enumerate() {
        let what = &case.what;
        if let Some(why) = differs(&edge, case, number) {
            let _ = writeln!(wrong, "{what}: {why:.400}");
        }
        let next = edge.get("/clean");
        if (next.status, next.text().as_str()) != (200, "clean") {
            let _ = writeln!(wrong, "{what}: the next answer is {} {:?}", next.status, next.text());
        }
        let heard: Vec<Heard> = recorder.take().into_iter().map(Result::unwrap).collect();
        let goes_on = matches!(case.outcome, Given(..));
        let [asked @ .., next] = &heard[..] else { panic!("{what}: {heard:?}") };
        let again = asked.iter().any(|asked| asked.connection == next.connection);
        if again && !goes_on {
            let _ = writeln!(wrong, "{what}: its connection was used again");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn trailers_of_answers_say_nothing_that_belongs_into_a_head() {
    // RFC 9110 §6.5.1.
    let names = [
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Set-Cookie",
        "Content-Type",
        "Content-Encoding",
        "Cache-Control",
        "Vary",
        "Location",
        "Age",
        "Expires",
        "WWW-Authenticate",
        "Strict-Transport-Security",
        "Trailer",
        "Keep-Alive",
    ];
    let trailers: String = names.iter().map(|name| format!("{name}: evil\r\n")).collect();
    let answer = ok(
        &format!("Transfer-Encoding: chunked\r\nTrailer: {}, X-Digest\r\n", names.join(", ")),
        &format!("2\r\nok\r\n0\r\nX-Digest: 1\r\n{trailers}\r\n"),
    );
    let recorder = Recorder::answering(move |_| answer.clone().into_bytes());
    let edge = Setup::over_address(recorder.address()).start();
    let mut raw = edge.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n");
    let octets = String::from_utf8_lossy(&raw.read_to_close()).to_ascii_lowercase();
    assert!(octets.contains("x-digest: 1"), "{octets}");
    assert!(!octets.contains("evil"), "{octets}");
}

/// RFC 9112 §6.3: nobody can tell such a content's end but by its connection's, and so it has no other.
#[test]
fn content_of_a_coding_that_means_nothing_lasts_as_long_as_its_connection() {
    let upstream = RawUpstream::scripted(|head| {
        let coding = head.split(['/', ' ']).nth(2).unwrap_or_default().to_owned();
        let octets = ok(&format!("Transfer-Encoding: {coding}\r\n"), "5\r\nhello\r\n0\r\n\r\n");
        Octets::of(octets).then("to the end").then_close()
    });
    let edge = Edge::over_raw(&upstream).start();
    for coding in ["x", "banana", "Foo7"] {
        for _ in 0..2 {
            let answer = edge.get(&format!("/{coding}"));
            let expected = "5\r\nhello\r\n0\r\n\r\nto the end";
            assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{coding}");
            assert!(answer.all("transfer-encoding").iter().all(|value| *value == "chunked"), "{coding}");
        }
    }
    for coding in ["xchunked", "my-coding", "gzip7"] {
        assert_eq!(edge.get(&format!("/{coding}")).status, 502, "{coding}");
    }
}
