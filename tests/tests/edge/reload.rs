//! SIGHUP: new settings for new requests, and nobody notices.

use gatehouse_tests::{
    edge::Edge,
    upstream::{Reply, Upstream},
};

fn upstream() -> Upstream {
    Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"))
}

#[test]
fn a_reload_takes_effect_without_dropping_a_connection() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let mut raw = edge.raw();
    assert_eq!(raw.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);

    let line = edge.reload(&setup.clone().route("path = \"/only-this\"").text());
    assert!(!line.contains("refused"), "{line}");
    assert_eq!(
        raw.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").answer().status,
        404,
        "the old connection, the new routes"
    );
    assert_eq!(edge.get("/a").status, 404);
    assert_eq!(edge.curl_h2("/only-this").send().status, 200);

    edge.reload(&setup.text());
    let answer = raw.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").answer();
    assert_eq!(answer.status, 200);
    assert!(answer.is_hit(), "the cache is kept: {}", answer.head);
}

#[test]
fn a_reload_under_load_fails_no_request() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let (clear, tls) = (edge.clear(), edge.tls());
    let slow = std::thread::spawn(move || gatehouse_tests::load::h2load(tls, "/", 20_000, 10, 10));
    let fast = std::thread::spawn(move || gatehouse_tests::load::ab(clear, "/", 2_000, 20));
    while !(slow.is_finished() && fast.is_finished()) {
        edge.reload(&setup.clone().route("path = \"/*\"\ncache = { max_ttl = \"10m\" }").text());
        edge.reload(&setup.text());
    }
    for load in [slow.join().unwrap(), fast.join().unwrap()] {
        assert_eq!((load.failed, load.not_2xx), (0, 0), "{load:?}");
    }
}

#[test]
fn a_broken_file_keeps_the_old_settings_and_says_why() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let line = edge.reload(&setup.text().replace("path = ", "paht = "));
    assert!(line.contains("refused"), "{line}");
    let output = edge.process().lines().join("\n");
    for part in ["edge.toml", "paht", "path"] {
        assert!(output.contains(part), "the message names {part}:\n{output}");
    }
    assert_eq!(edge.get("/").status, 200);
    assert!(!edge.reload(&setup.text()).contains("refused"), "and a mended file is taken");
}

#[test]
fn a_new_certificate_is_used_for_new_connections() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    assert_eq!(edge.curl_h2("/").send().status, 200);
    let old_authority = gatehouse_tests::folder::Folder::new();
    let old = old_authority.path().join("ca.pem");
    std::fs::copy(edge.authority(), &old).unwrap();
    for file in std::fs::read_dir(edge.folder().join("certs")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    edge.reload(&setup.text());
    assert_eq!(edge.curl_h2("/").send().status, 200, "the new authority holds");
    let message = gatehouse_tests::curl::Curl::tls(edge.tls(), &old, "/").fail();
    assert!(message.contains("certificate"), "{message}");
}
