//! Paths that servers read in two ways: no spelling gets by a route's limit, and route, cache and upstream agree.

use gatehouse_tests::{
    edge::{Edge, Setup},
    recorder::Recorder,
    upstream::{Reply, Upstream},
};

/// What its upstream is asked for, or the status of a refusal.
fn asked(edge: &Edge, recorder: &Recorder, path: &str) -> Result<String, u16> {
    let status = edge.raw().send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).answer().status;
    let mut heard = recorder.take();
    match (status, heard.pop().map(Result::unwrap)) {
        (200, Some(heard)) => Ok(heard.line.split(' ').nth(1).unwrap_or_default().to_owned()),
        (status, None) => Err(status),
        (status, heard) => panic!("{path}: {status}, {heard:?}"),
    }
}

#[test]
fn no_reading_of_a_path_gets_by_its_routes_limit() {
    for encoded_slash in
        ["", "encoded_slash = \"keep\"", "encoded_slash = \"decode\"", "encoded_slash = \"refuse\""]
    {
        let recorder = Recorder::start();
        let edge = Setup::over_address(recorder.address())
            .tables("[limits.api]\nrate = \"1/h\"\nburst = 1")
            .route(&format!("path = \"/api/*\"\nlimit = \"api\"\n{encoded_slash}"))
            .route("path = \"/*\"")
            .start();
        assert_eq!(asked(&edge, &recorder, "/api/x"), Ok("/api/x".to_owned()));
        for path in [
            "/api/x",
            "/api%2Fx",
            "/api%2fx",
            "/%61pi%2fx",
            "//api%2Fx",
            "/%2Fapi/x",
            "/api%5Cx",
            "/api%5cx",
            "/api\\x",
            "\\api\\x",
            "/api;v=1/x",
            "/;x/api/x",
            "/api%2F..%2Fapi/x",
            "/x/..;/api/x",
            "/x/..%2Fapi/x",
            "/x%2F..%2Fapi/x",
            "/x/%2e%2e/api/x",
            "/api//x",
            "/api/x;y=1",
            "/api/a%2Fb",
        ] {
            let got = asked(&edge, &recorder, path);
            assert!(matches!(got, Err(400 | 429)), "{encoded_slash} {path}: {got:?}");
        }
        for path in ["/other", "/a%2Fb", "/page;jsessionid=1", "/apis%2Fx", "/a%5Cb", "/%252Fapi"] {
            assert_eq!(asked(&edge, &recorder, path), Ok(path.to_owned()), "{encoded_slash}");
        }
    }
}

#[test]
fn what_becomes_of_each_spelling() {
    let recorder = Recorder::start();
    let route = |name: &str| format!("path = \"/{name}/*\"\nencoded_slash = \"{name}\"");
    let edge = Setup::over_address(recorder.address())
        .route(&route("keep"))
        .route(&route("decode"))
        .route(&route("refuse"))
        .start();
    for (path, arrives) in [
        ("/keep/a%2Fb", Ok("/keep/a%2Fb")),
        ("/keep/a%2fb", Ok("/keep/a%2Fb")),
        ("/keep/a%5cb", Ok("/keep/a%5Cb")),
        ("/keep/a\\b", Ok("/keep/a%5Cb")),
        ("/keep/a;b=c", Ok("/keep/a;b=c")),
        ("/keep//a///b", Ok("/keep//a///b")),
        ("/keep/%7Ea", Ok("/keep/~a")),
        ("/keep/%252Fa", Ok("/keep/%252Fa")),
        ("/keep/./a", Err(400)),
        ("/keep/../a", Err(400)),
        ("/keep/%2e%2e/a", Err(400)),
        ("/keep/..;x/a", Err(400)),
        ("/decode/a%2Fb%2fc?d=%2F", Ok("/decode/a/b/c?d=%2F")),
        ("/decode%2Fa", Ok("/decode/a")),
        ("/decode/a%252Fb", Ok("/decode/a%252Fb")),
        ("/decode/..%2Fa", Err(400)),
        ("/refuse/a%2Fb", Err(400)),
        ("/refuse%2Fa", Err(400)),
        ("/refuse/a?b=%2F", Ok("/refuse/a?b=%2F")),
    ] {
        assert_eq!(asked(&edge, &recorder, path), arrives.map(str::to_owned), "{path}");
    }
    let refused = edge.get("/refuse/a%2Fb");
    assert!(refused.text().contains("encoded slash"), "{}", refused.text());
}

#[test]
fn where_slashes_are_decoded_both_spellings_are_one_stored_answer() {
    let upstream = Upstream::start(|seen| Reply::ok(seen.target.clone()).cache_control("max-age=60"));
    let edge = Edge::over(&upstream).route("path = \"/*\"\nencoded_slash = \"decode\"").start();
    assert_eq!(edge.get("/a%2Fb").text(), "/a/b");
    let hit = edge.until_hit("/a/b");
    assert_eq!(hit.text(), "/a/b");
    assert_eq!(upstream.count(), 1);
    let kept = Edge::over(&upstream).start();
    assert_eq!(
        (kept.get("/a%2Fb").text(), kept.get("/a/b").text()),
        ("/a%2Fb".to_owned(), "/a/b".to_owned())
    );
}
