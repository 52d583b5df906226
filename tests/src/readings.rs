//! HTTP/1.1 requests, octet by octet, each with what must become of it before a server that reads strictly and records.
//!
//! A case is refused (one answer with one of the statuses, the end of the connection, and nothing for the upstream), or passed on:
//! the upstream records one request, the expected one, and then the request that follows it, or nothing, because the edge has
//! closed. Nothing in between: what the edge takes for one request is never two to its upstream, nor half of one.

use std::time::Duration;

use crate::{
    raw::Raw,
    recorder::{Heard, Recorder},
};

/// Some octets, and what must become of them.
#[derive(Debug)]
pub struct Case {
    /// What it is, with the section that it is about.
    pub what: String,
    octets: Vec<u8>,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Refused(&'static [u16]),
    PassedOn(Meaning),
}

/// What became of a case.
#[derive(Debug)]
pub struct Reading {
    /// The statuses of all answers, to the request and to the one behind it.
    pub statuses: Vec<u16>,
    /// What the server understood, and what it did not.
    pub heard: Vec<Result<Heard, String>>,
    /// Whether the connection was closed.
    pub closed: bool,
}

/// What the upstream must have understood.
#[derive(Clone, Debug, Default)]
struct Meaning {
    line: String,
    content: Vec<u8>,
    /// Fields that are there once, with these values.
    has: Vec<(String, String)>,
    /// Names that stand neither in the head nor in the trailers.
    lacks: Vec<String>,
    /// Names of all its trailer fields, where they are looked at.
    trailers: Option<Vec<String>>,
    /// The edge closes behind it (RFC 9112 §6.1).
    closes: bool,
}

fn refused(what: impl Into<String>, octets: impl AsRef<[u8]>, statuses: &'static [u16]) -> Case {
    Case { what: what.into(), octets: octets.as_ref().to_vec(), outcome: Outcome::Refused(statuses) }
}

fn passed_on(what: impl Into<String>, octets: impl AsRef<[u8]>, line: &str, content: &str) -> Case {
    let meaning = Meaning {
        line: format!("{line} HTTP/1.1"),
        content: content.as_bytes().to_vec(),
        ..Meaning::default()
    };
    Case { what: what.into(), octets: octets.as_ref().to_vec(), outcome: Outcome::PassedOn(meaning) }
}

impl Case {
    fn meaning(mut self, change: impl FnOnce(&mut Meaning)) -> Self {
        if let Outcome::PassedOn(meaning) = &mut self.outcome {
            change(meaning);
        }
        self
    }

    fn with(self, name: &str, value: &str) -> Self {
        self.meaning(|meaning| meaning.has.push((name.to_owned(), value.to_owned())))
    }

    fn without(self, names: &[&str]) -> Self {
        self.meaning(|meaning| meaning.lacks.extend(names.iter().map(|name| (*name).to_owned())))
    }

    fn closes(self) -> Self {
        self.meaning(|meaning| meaning.closes = true)
    }

    fn trailers(self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.meaning(|meaning| meaning.trailers = Some(names))
    }

    /// With this in place of `SCHEME` in the values of fields.
    #[must_use]
    pub fn over(self, scheme: &str) -> Self {
        self.meaning(|meaning| {
            for (_, value) in meaning.has.iter_mut().filter(|(_, value)| value == "SCHEME") {
                scheme.clone_into(value);
            }
        })
    }

    /// Sends it, and another request behind it, and looks what becomes of them until the connection is closed, or silent for so
    /// long.
    pub fn play(&self, mut raw: Raw, recorder: &Recorder, silence: Duration) -> Reading {
        raw.try_send(&self.octets);
        // Whatever hides behind a refused request must never be answered, nor reach the upstream.
        raw.try_send("GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let (answers, closed) = raw.read_until_silent(silence);
        let answers = String::from_utf8_lossy(&answers);
        let statuses = answers
            .match_indices("HTTP/1.")
            .filter_map(|(at, _)| answers.get(at + 9..at + 12)?.parse().ok())
            .collect();
        Reading { statuses, heard: recorder.take(), closed }
    }

    /// What is wrong with what became of it; nothing as a rule.
    #[must_use]
    pub fn judge(&self, Reading { statuses, heard, closed }: Reading) -> Option<String> {
        if !closed {
            return Some("nothing came and the connection stayed open".to_owned());
        }
        let heard: Result<Vec<Heard>, String> = heard.into_iter().collect();
        let heard = match heard {
            Ok(heard) => heard,
            Err(unclear) => return Some(format!("the upstream was sent what is unclear: {unclear}")),
        };
        match &self.outcome {
            Outcome::Refused(expected) => {
                let right =
                    matches!(statuses[..], [status] if expected.contains(&status)) && heard.is_empty();
                (!right)
                    .then(|| format!("answered {statuses:?} in place of {expected:?}, upstream {heard:?}"))
            }
            Outcome::PassedOn(meaning) => meaning.differs(&statuses, &heard),
        }
    }
}

impl Meaning {
    fn differs(&self, statuses: &[u16], heard: &[Heard]) -> Option<String> {
        let Some((first, rest)) = heard.split_first() else {
            return Some(format!("answered {statuses:?}, and the upstream saw nothing"));
        };
        if first.line != self.line || first.content != self.content {
            return Some(format!("the upstream understood {first:?}"));
        }
        for (name, value) in &self.has {
            if !first.field(name).eq([value.as_str()]) {
                return Some(format!("{name} is not {value:?}: {first:?}"));
            }
        }
        let sent = |name: &String| first.fields.iter().chain(&first.trailers).any(|(sent, _)| sent == name);
        if let Some(name) = self.lacks.iter().find(|name| sent(name)) {
            return Some(format!("{name} went upstream: {first:?}"));
        }
        let names: Vec<&String> = first.trailers.iter().map(|(name, _)| name).collect();
        if let Some(trailers) = &self.trailers
            && !names.iter().copied().eq(trailers)
        {
            return Some(format!("the trailers are {names:?}, not {trailers:?}"));
        }
        let behind: Vec<&str> = rest.iter().map(|heard| heard.line.as_str()).collect();
        let expected: &[&str] = if self.closes { &[] } else { &["GET /after HTTP/1.1"] };
        if behind != expected
            || statuses.len() != 1 + behind.len()
            || statuses.iter().any(|status| *status != 200)
        {
            return Some(format!("behind it came {behind:?}, answered {statuses:?}"));
        }
        None
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    let families =
        [lengths, codings, both_framings, chunks, trailers, lines, request_lines, hosts, connections];
    families.into_iter().flat_map(|family| family()).collect()
}

/// A POST with these lines in its head, and this behind it.
fn post(lines: &str, behind: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{behind}")
}

fn get(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// RFC 9110 §8.6, RFC 9112 §6.3: a length is digits, and there is one.
fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in [
        "", " ", "+3", "-3", "0x3", "3.0", "3,", ",3", "3, 3", "3,4", "3;", "3 3", "\u{b3}", "\u{663}",
        "1e1", "\"3\"", "0b11", "0o3", "3_", "_3", "Infinity", "NaN", "three", "3\u{a0}", "- 3", "3-", "0x",
        "3h",
    ] {
        let octets = post(&format!("Content-Length: {value}"), "abc");
        cases.push(refused(format!("Content-Length: {value:?} (RFC 9110 §8.6)"), octets, &[400]));
    }
    for value in
        ["18446744073709551616", "99999999999999999999", "18446744073709551615", "18446744073709551614"]
    {
        let octets = post(&format!("Content-Length: {value}"), "abc");
        cases.push(refused(
            format!("Content-Length beyond reason: {value} (RFC 9110 §8.6)"),
            octets,
            &[400, 413, 431],
        ));
    }
    for (lines, what) in [
        ("Content-Length: 3\r\nContent-Length: 4", "two that differ"),
        ("Content-Length: 3\r\nContent-Length: ", "an empty second"),
        ("Content-Length: 3\r\nX: 1\r\ncontent-length: 30", "two in other letters"),
        ("Content-Length: 0\r\nContent-Length: 3", "none and some"),
        ("Content-Length : 3", "a space before the colon (RFC 9112 §5.1)"),
        ("Content-Length\t: 3", "a tab before the colon (RFC 9112 §5.1)"),
        (" Content-Length: 3", "a space before the name (RFC 9112 §2.2)"),
        ("Content-Length: 3\x0b", "a vertical tab behind"),
        ("Content-Length: \x003", "a NUL before"),
        ("Content-Length:\r\n 3", "a folded length (RFC 9112 §5.2)"),
    ] {
        cases.push(refused(format!("Content-Length: {what} (RFC 9112 §6.3)"), post(lines, "abc"), &[400]));
    }
    for (lines, what) in [
        ("Content-Length: 3", "plain"),
        ("content-length:3", "no space"),
        ("CONTENT-LENGTH: \t 3 \t ", "white space around (RFC 9110 §5.5)"),
        ("Content-Length: 3\r\nContent-Length: 3", "two that agree become one"),
    ] {
        let case = passed_on(format!("Content-Length: {what}"), post(lines, "abc"), "POST /x", "abc");
        cases.push(case.with("content-length", "3").without(&["transfer-encoding"]));
    }
    cases.push(passed_on(
        "a length with zeros before it",
        post("Content-Length: 003", "abc"),
        "POST /x",
        "abc",
    ));
    cases.push(passed_on("no length, no content (RFC 9112 §6.3)", post("X: 1", ""), "POST /x", ""));
    cases
}

/// RFC 9112 §6.1: the only coding is `chunked`, and nothing that looks like it.
fn codings() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in [
        "",
        " ",
        "xchunked",
        "chunkedx",
        "chunk",
        "chunked, chunked",
        "chunked,chunked",
        "chunked,",
        ",chunked",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked;q=1",
        "chunked; foo=bar",
        "\"chunked\"",
        "'chunked'",
        "chunked chunked",
        "chunked\u{b}",
        "\u{b}chunked",
        "\u{c}chunked",
        "chunked\0",
        "\0chunked",
        "ch\u{fc}nked",
        "chunked, cow",
        "cow, chunked",
        "trailers, chunked",
        "(x) chunked",
        "chunked (x)",
        "chunke\u{212a}",
        "\u{feff}chunked",
        "\u{a0}chunked",
        "chunked.",
        "chunked:",
        "compress, chunked",
        "*",
    ] {
        let octets = post(&format!("Transfer-Encoding: {value}"), "0\r\n\r\n");
        cases.push(refused(format!("Transfer-Encoding: {value:?} (RFC 9112 §6.1)"), octets, &[400, 501]));
    }
    for (lines, what) in [
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "chunked not last, in lines"),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "another before, in lines"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "twice, in lines"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: ", "an empty second"),
        ("Transfer-Encoding : chunked", "a space before the colon (RFC 9112 §5.1)"),
        ("Transfer-Encoding\t: chunked", "a tab before the colon (RFC 9112 §5.1)"),
        (" Transfer-Encoding: chunked", "a space before the name (RFC 9112 §2.2)"),
        ("Transfer-Encoding:\r\n chunked", "folded (RFC 9112 §5.2)"),
        ("Transfer-Encoding: chunked\r\n , identity", "folded behind (RFC 9112 §5.2)"),
        ("Transfer-Encoding\0: chunked", "a NUL in the name"),
        ("X: a\rTransfer-Encoding: chunked", "behind a bare CR (RFC 9112 §2.2)"),
        ("Transfer-Encoding: chunked\r", "a CR too many"),
    ] {
        cases.push(refused(
            format!("Transfer-Encoding: {what} (RFC 9112 §6.1)"),
            post(lines, "0\r\n\r\n"),
            &[400, 501],
        ));
    }
    for lines in
        ["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED", "TRANSFER-ENCODING: \t Chunked \t"]
    {
        let case = passed_on(format!("{lines:?}"), post(lines, "3\r\nabc\r\n0\r\n\r\n"), "POST /x", "abc");
        cases.push(case.with("transfer-encoding", "chunked").without(&["content-length"]));
    }
    // Not the field: nothing else frames a message.
    for lines in [
        "X-Transfer-Encoding: chunked",
        "Content-Encoding: chunked",
        "TransferEncoding: chunked",
        "TE: chunked",
    ] {
        let lines = format!("{lines}\r\nContent-Length: 5");
        let case =
            passed_on(format!("{lines:?} is no framing"), post(&lines, "0\r\n\r\n"), "POST /x", "0\r\n\r\n");
        cases.push(case.without(&["transfer-encoding", "te"]));
    }
    let both = "Transfer_Encoding: chunked\r\nContent-Length: 5";
    let case = passed_on(
        "a name with _ is another (and CGI's alias)",
        post(both, "0\r\n\r\n"),
        "POST /x",
        "0\r\n\r\n",
    );
    cases.push(case.without(&["transfer_encoding", "transfer-encoding"]));
    cases.push(refused(
        "Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1)",
        "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ));
    cases
}

/// RFC 9112 §6.1: of both, the coding counts alone, and the connection ends; or it is refused.
fn both_framings() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in ["0", "3", "6", "13", "1000"] {
        for lines in [
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\nContent-Length: {length}"),
        ] {
            let case =
                passed_on(format!("{lines:?}"), post(&lines, "3\r\nabc\r\n0\r\n\r\n"), "POST /x", "abc");
            cases.push(case.without(&["content-length"]).closes());
        }
        for coding in ["identity", "gzip", "chunked, identity", "xchunked"] {
            let lines = format!("Content-Length: {length}\r\nTransfer-Encoding: {coding}");
            cases.push(refused(
                format!("{lines:?} (RFC 9112 §6.1)"),
                post(&lines, "3\r\nabc\r\n0\r\n\r\n"),
                &[400, 501],
            ));
        }
    }
    cases
}

/// RFC 9112 §7.1.
fn chunks() -> Vec<Case> {
    const CHUNKED: &str = "Transfer-Encoding: chunked";
    let mut cases = Vec::new();
    for size in [
        "",
        " ",
        "0x3",
        "0X3",
        "+3",
        "-3",
        " 3",
        "\t3",
        "3 3",
        "3g",
        "g",
        "h3",
        "3\0",
        "\u{ff13}",
        "3\u{b}",
        "3_",
        "_3",
        "3.0",
        "3,",
        "\"3\"",
        "3:",
        "3=",
        "fffffffffffffffff",
        "10000000000000003",
        "100000000000000003",
        "ffffffffffffffffffffffffffffffff",
        "x",
        "3\r",
        "3\n",
        "3\rX",
        "%33",
    ] {
        let octets = post(CHUNKED, &format!("{size}\r\nabc\r\n0\r\n\r\n"));
        cases.push(refused(format!("a chunk of {size:?} octets (RFC 9112 §7.1)"), octets, &[400]));
    }
    for size in ["fffffffffffffffe", "7fffffffffffffff", "80000000"] {
        let octets = post(CHUNKED, &format!("{size}\r\nabc"));
        // The content goes on with what follows, until the client's end: it never becomes whole.
        cases.push(refused(format!("a chunk of {size} octets that do not come"), octets, &[400, 408, 413]));
    }
    for (what, behind) in [
        ("more data than its size", "3\r\nabcd\r\n0\r\n\r\n"),
        ("less data than its size", "4\r\nabc\r\n0\r\n\r\n"),
        ("no line end behind its data", "3\r\nabc0\r\n\r\n"),
        ("a bare LF behind its size", "3\nabc\r\n0\r\n\r\n"),
        ("a bare CR behind its size", "3\rabc\r\n0\r\n\r\n"),
        ("a bare LF behind its data", "3\r\nabc\n0\r\n\r\n"),
        ("a bare CR behind its data", "3\r\nabc\r0\r\n\r\n"),
        ("bare LFs throughout", "3\nabc\n0\n\n"),
        ("a bare LF behind the last size", "3\r\nabc\r\n0\n\r\n"),
        ("a CR and no LF at the end", "3\r\nabc\r\n0\r\n\rX"),
        ("an LF in an extension (CVE-2025-66373 and kin)", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF behind an extension", "3;\nabc\r\n0\r\n\r\n"),
        ("a bare CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ] {
        cases.push(refused(format!("a chunk with {what} (RFC 9112 §7.1)"), post(CHUNKED, behind), &[400]));
    }
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000));
    cases.push(refused("an extension beyond bounds (RFC 9112 §7.1.1)", post(CHUNKED, &long), &[400]));
    let many: String = (0..3_000).map(|_| "1;extension\r\nx\r\n").collect();
    cases.push(refused(
        "extensions that are too much together (§7.1.1)",
        post(CHUNKED, &(many + "0\r\n\r\n")),
        &[400],
    ));
    for (what, behind) in [
        ("zeros before its size", "0000000003\r\nabc\r\n0\r\n\r\n"),
        ("two sizes, upper and lower case", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
        ("an extension (§7.1.1)", "3;a\r\nabc\r\n0\r\n\r\n"),
        ("an extension with a value", "3;a=b;c=\"d e\"\r\nabc\r\n0;z\r\n\r\n"),
        ("white space before an extension", "3 ;a\r\nabc\r\n0\r\n\r\n"),
        ("more zeros at the end", "3\r\nabc\r\n000\r\n\r\n"),
        ("data that looks like another chunk", "5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
    ] {
        let content = match what {
            "two sizes, upper and lower case" => "01234567890123456789",
            "data that looks like another chunk" => "0\r\n\r\n",
            _ => "abc",
        };
        cases.push(passed_on(format!("a chunk with {what}"), post(CHUNKED, behind), "POST /x", content));
    }
    cases
}

/// RFC 9110 §6.5.1: what the edge has decided by in the head is not said again, nor otherwise, behind the content.
fn trailers() -> Vec<Case> {
    const HEAD: &str = "Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: ";
    let mut cases = Vec::new();
    for name in [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Prefix",
        "X-Real-IP",
        "Forwarded",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Authorization",
        "Cookie",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Cache-Control",
        "Range",
        "If-Match",
        "If-None-Match",
        "Expect",
        "Max-Forwards",
        "Proxy-Authorization",
        "Via",
        "Client-IP",
        "True-Client-IP",
        "X-Cluster-Client-IP",
        "X-Scheme",
        "Front-End-Https",
        "X-Original-URL",
        "X-HTTP-Method-Override",
        "X_Forwarded_For",
        "X-Request-Id",
        "Proxy",
        "Origin",
    ] {
        let head = format!("{HEAD}{name}, X-Digest");
        let octets = post(&head, &format!("3\r\nabc\r\n0\r\n{name}: evil.test\r\nX-Digest: 1\r\n\r\n"));
        let case = passed_on(format!("{name} as a trailer (RFC 9110 §6.5.1)"), octets, "POST /x", "abc");
        cases.push(case.trailers(&["x-digest"]));
    }
    for (what, trailers) in [
        ("a space before the colon", "X-Digest : 1"),
        ("no colon", "X-Digest"),
        ("an empty name", ": 1"),
        ("a NUL", "X-Digest: \x001"),
        ("a bare CR", "X-Digest: 1\rX: 2"),
        ("a bare LF", "X-Digest: 1\nX: 2"),
        ("a folded line", "X-Digest: 1\r\n 2"),
        ("a control character", "X-Digest: \u{1}"),
    ] {
        let octets = post(&format!("{HEAD}X-Digest"), &format!("3\r\nabc\r\n0\r\n{trailers}\r\n\r\n"));
        cases.push(refused(format!("a trailer with {what} (RFC 9112 §7.1.2)"), octets, &[400]));
    }
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    let octets = post(&format!("{HEAD}X-1"), &format!("3\r\nabc\r\n0\r\n{many}\r\n"));
    cases.push(refused("more trailers than bounds.fields", octets, &[400]));
    let octets =
        post(&format!("{HEAD}X-1"), &format!("3\r\nabc\r\n0\r\nX-1: {}\r\n\r\n", "x".repeat(100_000)));
    cases.push(refused("a trailer larger than bounds.head", octets, &[400]));
    cases
}

/// RFC 9110 §5.5, RFC 9112 §2.2, §5: line ends, controls, names.
fn lines() -> Vec<Case> {
    let mut cases = Vec::new();
    let controls = (0..0x20_u8).filter(|octet| !matches!(octet, b'\t' | b'\n' | b'\r')).chain([0x7f]);
    for octet in controls {
        let octets = joined(&[b"GET /x HTTP/1.1\r\nHost: a\r\nX: a", &[octet], b"b\r\n\r\n"]);
        cases.push(refused(format!("{octet:#04x} in a value (RFC 9110 §5.5)"), octets, &[400]));
        let octets = joined(&[b"GET /x HTTP/1.1\r\nHost: a\r\nX", &[octet], b"Y: 1\r\n\r\n"]);
        cases.push(refused(format!("{octet:#04x} in a name (RFC 9110 §5.1)"), octets, &[400]));
        let octets = joined(&[b"GET /x", &[octet], b"y HTTP/1.1\r\nHost: a\r\n\r\n"]);
        cases.push(refused(format!("{octet:#04x} in a target (RFC 9112 §3.2)"), octets, &[400]));
        let octets = joined(&[b"GE", &[octet], b"T /x HTTP/1.1\r\nHost: a\r\n\r\n"]);
        cases.push(refused(format!("{octet:#04x} in a method (RFC 9110 §9.1)"), octets, &[400]));
    }
    for octet in *b"\"(),/;<=>?@[\\]{} " {
        let octets = joined(&[b"GET /x HTTP/1.1\r\nHost: a\r\nX", &[octet], b"Y: 1\r\n\r\n"]);
        cases.push(refused(format!("{:?} in a name (RFC 9110 §5.6.2)", char::from(octet)), octets, &[400]));
        let octets = joined(&[b"GE", &[octet], b"T /x HTTP/1.1\r\nHost: a\r\n\r\n"]);
        cases.push(refused(format!("{:?} in a method (RFC 9110 §5.6.2)", char::from(octet)), octets, &[400]));
    }
    for octet in [0x80, 0xa0, 0xe9, 0xff_u8] {
        let octets = joined(&[b"GET /x HTTP/1.1\r\nHost: a\r\nX", &[octet], b": 1\r\n\r\n"]);
        cases.push(refused(format!("{octet:#04x} in a name (RFC 9110 §5.1)"), octets, &[400]));
        let octets = joined(&[b"GET /x HTTP/1.1\r\nHost: a\r\nX: ", &[octet], b"\r\n\r\n"]);
        let case = passed_on(format!("{octet:#04x} in a value (RFC 9110 §5.5)"), octets, "GET /x", "");
        cases.push(case.with("x", &char::from(octet).to_string()));
    }
    for (what, octets) in [
        ("a bare CR in a value", get("X: a\rb\r\n")),
        ("a bare CR at the end of a value", get("X: a\r\r\n")),
        ("a bare CR before a field", get("\rX: a\r\n")),
        ("a bare CR for a line end", "GET /x HTTP/1.1\rHost: a\r\r".to_owned() + "\n\r\n"),
        ("a folded line", get("X: a\r\n b\r\n")),
        ("a line folded with a tab", get("X: a\r\n\tb\r\n")),
        ("a fold before the first field", "GET /x HTTP/1.1\r\n Host: a\r\n\r\n".to_owned()),
        ("a folded Host", "GET /x HTTP/1.1\r\nHost:\r\n a\r\n\r\n".to_owned()),
        ("no colon", get("nothing\r\n")),
        ("an empty name", get(": 1\r\n")),
        ("an empty name before a space", get(" : 1\r\n")),
        ("a space before the colon", get("X : 1\r\n")),
        ("a tab before the colon", get("X\t: 1\r\n")),
        ("a space before a name", get(" X: 1\r\n")),
        ("a colon and nothing else", get(":\r\n")),
        ("a second request line", get("GET /y HTTP/1.1\r\n")),
    ] {
        cases.push(refused(format!("{what} (RFC 9112 §5)"), octets, &[400]));
    }
    // A single LF may end a line (RFC 9112 §2.2): it always does, and goes on as CR LF.
    let case = passed_on(
        "lines that end in LF alone (RFC 9112 §2.2)",
        "GET /x HTTP/1.1\nHost: a\nX: 1\n\n",
        "GET /x",
        "",
    );
    cases.push(case.with("x", "1"));
    let case =
        passed_on("an LF ends a line, also in front of a framing", get("X: a\nY: b\r\n"), "GET /x", "");
    cases.push(case.with("x", "a").with("y", "b"));
    cases.push(passed_on(
        "empty lines before it (RFC 9112 §2.2)",
        "\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x",
        "",
    ));
    cases.push(passed_on("an empty value", get("X:\r\n"), "GET /x", "").with("x", ""));
    cases.push(passed_on("a tab in a value", get("X: a\tb\r\n"), "GET /x", "").with("x", "a\tb"));
    cases.push(passed_on("white space around a value", get("X: \t a \t\r\n"), "GET /x", "").with("x", "a"));
    cases.push(refused("too many lines (RFC 6585 §5)", get(&"X: 1\r\n".repeat(200)), &[431]));
    cases.push(refused(
        "a line too long (RFC 6585 §5)",
        get(&format!("X: {}\r\n", "x".repeat(100_000))),
        &[431],
    ));
    cases
}

/// RFC 9112 §3.
fn request_lines() -> Vec<Case> {
    let mut cases = Vec::new();
    let head = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    for line in [
        "GET",
        "GET ",
        "GET /x",
        "GET /x ",
        "/x HTTP/1.1",
        " GET /x HTTP/1.1",
        "\tGET /x HTTP/1.1",
        "GET  /x HTTP/1.1",
        "GET /x  HTTP/1.1",
        "GET /x HTTP/1.1 ",
        "GET\t/x\tHTTP/1.1",
        "GET /x\tHTTP/1.1",
        "GET /x HTTP/1.1 x",
        "GET /x y HTTP/1.1",
        "GET HTTP/1.1",
        "GET x HTTP/1.1",
        "GET x/y HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http://a:b/ HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://u:p@a/ HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET file:///etc/passwd HTTP/1.1",
        "GET javascript:1 HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "POST * HTTP/1.1",
        "GET ** HTTP/1.1",
        "OPTIONS x HTTP/1.1",
        "GET http://a b/ HTTP/1.1",
        "GET /x http/1.1",
        "GET /x HTTP 1.1",
        "GET /x HTTP/1",
        "GET /x HTTP/11",
        "GET /x HTTP/1.1.1",
        "GET /x HTTP/01.1",
        "GET /x HTTP/1.01",
        "GET /x HTTP/+1.1",
        "GET /x HTTPS/1.1",
        "GET /x XHTTP/1.1",
        "GET /x /HTTP/1.1",
        "GET /x HTTP/x.y",
        "GET /x HTTP/1.1\0",
        "G\u{c9}T /x HTTP/1.1",
    ] {
        cases.push(refused(format!("{line:?} (RFC 9112 §3)"), head(line), &[400]));
    }
    for version in ["2.0", "3.0", "1.2", "1.9", "0.9", "9.9", "0.0"] {
        let octets = head(&format!("GET /x HTTP/{version}"));
        cases.push(refused(format!("HTTP/{version} (RFC 9110 §15.6.6)"), octets, &[505]));
    }
    for line in
        ["CONNECT a:443 HTTP/1.1", "CONNECT a HTTP/1.1", "CONNECT /x HTTP/1.1", "CONNECT http://a/ HTTP/1.1"]
    {
        cases.push(refused(format!("{line:?} (RFC 9110 §9.3.6)"), head(line), &[400, 501]));
    }
    let long = format!("GET /{} HTTP/1.1", "x".repeat(200_000));
    cases.push(refused("a target too long (RFC 9110 §15.5.15)", head(&long), &[414, 431]));
    let long = format!("{} /x HTTP/1.1", "X".repeat(200_000));
    cases.push(refused("a method too long", head(&long), &[400, 431]));
    for (line, arrives, host) in [
        ("GET /x HTTP/1.1", "GET /x", "a"),
        ("GET http://b/x?y HTTP/1.1", "GET /x?y", "b"),
        ("GET http://b HTTP/1.1", "GET /", "b"),
        ("GET HTTP://B:8081/x HTTP/1.1", "GET /x", "b:8081"),
        ("get /x HTTP/1.1", "get /x", "a"),
        ("X!#$%&'*+-.^_`|~ /x HTTP/1.1", "X!#$%&'*+-.^_`|~ /x", "a"),
        ("OPTIONS * HTTP/1.1", "OPTIONS *", "a"),
        ("GET /x?http://c/ HTTP/1.1", "GET /x?http://c/", "a"),
    ] {
        cases
            .push(passed_on(format!("{line:?} (RFC 9112 §3.2)"), head(line), arrives, "").with("host", host));
    }
    cases
}

/// RFC 9112 §3.2, RFC 9110 §7.2.
fn hosts() -> Vec<Case> {
    let mut cases = Vec::new();
    for host in [
        "", " ", "a b", "a\tb", "a,b", "a, b", "u@a", "u:p@a", "@a", "a@", "a:b", "a:", "a:80:80", "a:-1",
        "a:99999", "a:080x", "a/b", "/a", "http://a", "a?b", "a#b", "a\\b", "a\"b", "a<b", "a|b", "a^b",
        "a`b", "a{b}", "[::1", "::1", "[::g]", "[]", "[a]", "[::1]x", "a%zz", "a%4", "a\u{e9}", "\u{ff41}",
        "a\0", "a\u{7f}", "a\x0b",
    ] {
        let what = format!("Host: {host:?} (RFC 9112 §3.2)");
        let octets = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        match host {
            // An empty port is the scheme's (RFC 3986 §3.2.3); a comma may stand in a host's name.
            "a:" => cases.push(passed_on(what, octets, "GET /x", "").with("host", "a")),
            "a,b" => cases.push(passed_on(what, octets, "GET /x", "").with("host", host)),
            _ => cases.push(refused(what, octets, &[400])),
        }
    }
    for lines in [
        "",
        "X-Host: a\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nX: 1\r\nhost: b\r\n",
        "Host : a\r\n",
        " Host: a\r\n",
        "Host: a\r\n b\r\n",
        "Host: a\r\nHost:\r\n",
        "Host\r\n",
    ] {
        let octets = format!("GET /x HTTP/1.1\r\n{lines}\r\n");
        cases.push(refused(format!("{lines:?} (RFC 9112 §3.2)"), octets, &[400]));
    }
    for (host, seen) in [
        ("A", "a"),
        ("a.", "a"),
        ("a:8080", "a:8080"),
        ("a:08080", "a:8080"),
        ("[::1]:81", "[::1]:81"),
        ("1.2.3.4", "1.2.3.4"),
    ] {
        let octets = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let case = passed_on(format!("Host: {host:?}"), octets, "GET /x", "");
        cases.push(case.with("x-forwarded-proto", "SCHEME").with("host", seen));
    }
    let case = passed_on("HTTP/1.0 needs no Host (RFC 9112 §3.2)", "GET /x HTTP/1.0\r\n\r\n", "GET /x", "");
    cases.push(case.with("host", "localhost").closes());
    cases
}

/// RFC 9110 §7.6.1, §7.8, §10.1.1: what is of one connection does not go on, and what is not cannot be made so.
fn connections() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in
        ["Host", "Content-Length", "Authorization", "Cookie", "Cache-Control", "X-Forwarded-For", "X-Real-IP"]
    {
        let lines = format!(
            "Connection: {name}\r\nAuthorization: Basic YTpi\r\nCookie: a=1\r\nCache-Control: no-store\r\nContent-Length: 3"
        );
        let case = passed_on(
            format!("Connection: {name} removes nothing (RFC 9110 §7.6.1)"),
            post(&lines, "abc"),
            "POST /x",
            "abc",
        );
        cases.push(
            case.with("host", "a")
                .with("authorization", "Basic YTpi")
                .with("cookie", "a=1")
                .with("cache-control", "no-store")
                .with("content-length", "3")
                .with("x-forwarded-for", "127.0.0.1")
                .with("x-real-ip", "127.0.0.1"),
        );
    }
    for name in ["Transfer-Encoding", "Content-Length, Transfer-Encoding"] {
        let lines = format!("Connection: {name}\r\nTransfer-Encoding: chunked");
        let case = passed_on(
            format!("Connection: {name} (RFC 9110 §7.6.1)"),
            post(&lines, "3\r\nabc\r\n0\r\n\r\n"),
            "POST /x",
            "abc",
        );
        cases.push(case.with("transfer-encoding", "chunked"));
    }
    let lines = "Connection: X-Hop\r\nConnection: , Y-Hop ,\r\nX-Hop: 1\r\nY-Hop: 1\r\nZ: 1\r\nKeep-Alive: 1\r\nProxy-Connection: close\r\n";
    let case = passed_on("Connection names what goes no further (RFC 9110 §7.6.1)", get(lines), "GET /x", "");
    cases.push(case.with("z", "1").without(&[
        "x-hop",
        "y-hop",
        "connection",
        "keep-alive",
        "proxy-connection",
    ]));
    for upgrade in ["h2c", "HTTP/2.0", "TLS/1.0", "h2c, websocket", "connect-udp", "x"] {
        let lines = format!(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        );
        let case = passed_on(
            format!("Upgrade: {upgrade} is not passed on (RFC 9110 §7.8)"),
            get(&lines),
            "GET /x",
            "",
        );
        cases.push(case.without(&["upgrade", "http2-settings", "connection"]));
    }
    let case =
        passed_on("Upgrade that Connection does not name", get("Upgrade: websocket\r\n"), "GET /x", "");
    cases.push(case.without(&["upgrade"]));
    let octets = "GET /x HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    cases.push(
        passed_on("Upgrade in HTTP/1.0 (RFC 9110 §7.8)", octets, "GET /x", "").without(&["upgrade"]).closes(),
    );
    for expect in ["200-ok", "100-continue, x", "x=y"] {
        let octets = post(&format!("Expect: {expect}\r\nContent-Length: 3"), "abc");
        cases.push(
            passed_on(format!("Expect: {expect} (RFC 9110 §10.1.1)"), octets, "POST /x", "abc")
                .without(&["expect"]),
        );
    }
    cases
}
