//! The harness can fail: what the other suites rely on to notice trouble does notice it.

use std::process::Command;

use gatehouse_tests::{
    browser::Browser,
    curl::Curl,
    folder::Folder,
    load,
    process::{Process, left_running},
    raw::Raw,
    upstream::{Gate, RawUpstream, Reply, Upstream},
};

#[test]
fn the_browser_reports_console_errors_exceptions_and_missing_files() {
    let upstream = Upstream::start(|seen| {
        let script =
            |text: &str| format!("<!doctype html><link rel=icon href=data:,><script>{text}</script>");
        match seen.target.as_str() {
            "/fine" => Reply::ok(script("console.log('fine')")),
            "/error" => Reply::ok(script("console.error('broken')")),
            "/throws" => Reply::ok(script("throw new Error('broken')")),
            "/missing" => Reply::ok("<!doctype html><link rel=icon href=data:,><img src=/none>"),
            _ => Reply::status(404),
        }
        .header("content-type", "text/html")
    });
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/fine", upstream.address()));
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    let loaded = browser.loaded();
    assert_eq!(
        (loaded[0].status, loaded[0].protocol.as_str(), loaded[0].kind.as_str()),
        (200, "http/1.1", "Document")
    );
    for (number, page) in ["/error", "/throws", "/missing"].into_iter().enumerate() {
        browser.open(&format!("http://{}{page}", upstream.address()));
        browser.wait_until("document.readyState === 'complete'");
        assert!(browser.complaints().len() > number, "{page} went unnoticed: {:#?}", browser.complaints());
    }
}

#[test]
fn curl_reports_everything_of_an_answer() {
    let upstream = Upstream::start(|seen| {
        Reply::streamed()
            .with_status(201)
            .header("x-twice", "1")
            .header("x-twice", "2")
            .header("trailer", "x-end")
            .header("x-body", std::str::from_utf8(&seen.body).unwrap())
            .then("hello")
            .then_trailer("x-end", "3")
    });
    let answer = Curl::clear(upstream.address(), "/")
        .header("Expect: 100-continue")
        .header("TE: trailers")
        .header("Connection: TE")
        .post("POST", "hi")
        .send();
    assert_eq!(
        (answer.status, answer.version.as_str(), answer.interim.as_slice()),
        (201, "HTTP/1.1", &[100][..])
    );
    assert_eq!(
        (answer.all("x-twice"), answer.must("x-body"), answer.text().as_str()),
        (vec!["1", "2"], "hi", "hello")
    );
    assert_eq!(answer.trailers, [("x-end".to_owned(), "3".to_owned())]);
}

#[test]
fn a_broken_answer_is_no_answer() {
    let upstream = Upstream::start(|_| Reply::streamed().then("begin").then_break());
    let message = Curl::clear(upstream.address(), "/").fail();
    assert!(message.contains("curl ended with"), "{message}");
    let short = RawUpstream::start(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
    let _ = Curl::clear(short.address(), "/").fail();
}

#[test]
fn a_gate_holds_an_answer_back_until_it_opens() {
    let gate = Gate::closed();
    let held = gate.clone();
    let mut upstream =
        Upstream::start(move |_| Reply::streamed().then("begin ").then_wait(&held).then("end"));
    let mut raw = Raw::connect(upstream.address());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").read_until(b"begin ");
    gate.open();
    raw.read_until(b"end\r\n0\r\n\r\n");
    assert_eq!((upstream.count(), upstream.connections()), (1, 1));
    upstream.stop();
    assert!(Raw::try_connect(upstream.address()).is_none());
    assert_eq!(raw.read_to_close(), b"", "a stopped upstream drops its connections");
}

#[test]
fn a_load_generator_counts_what_is_not_2xx() {
    let upstream = Upstream::start(|seen| Reply::status(if seen.earlier % 2 == 0 { 200 } else { 503 }));
    let load = load::ab(upstream.address(), "/", 10, 1);
    assert_eq!((load.complete, load.not_2xx), (10, 5), "{load:?}");
}

#[test]
fn what_is_left_running_is_found() {
    let folder = Folder::new();
    let mut process = Process::start("sleep", Command::new("sleep").arg("1000").current_dir(folder.path()));
    assert_eq!(left_running(folder.path()).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [process.id()]);
    process.stop();
    assert!(left_running(folder.path()).is_empty());
}
