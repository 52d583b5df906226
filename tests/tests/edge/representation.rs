//! Preconditions and ranges of what is stored (RFC 9110 §13, §14).

use gatehouse_tests::{
    edge::Edge,
    upstream::{Reply, Upstream},
};

#[test]
fn a_client_that_holds_the_current_version_gets_304() {
    let upstream = Upstream::start(|_| {
        Reply::ok("text")
            .cache_control("max-age=60")
            .header("etag", "\"v1\"")
            .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    for condition in [
        "If-None-Match: \"v1\"",
        "If-None-Match: W/\"v1\"",
        "If-None-Match: \"v0\", \"v1\"",
        "If-None-Match: *",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    ] {
        let answer = edge.curl("/").header(condition).send();
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{condition}: {answer:#?}");
        assert_eq!(answer.must("etag"), "\"v1\"", "{condition}");
        assert_eq!(answer.must("cache-control"), "max-age=60", "{condition}");
    }
    let answer = edge.curl("/").header("If-None-Match: \"other\"").send();
    assert_eq!((answer.status, answer.text().as_str()), (200, "text"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_range_of_a_stored_answer_is_206() {
    let upstream =
        Upstream::start(|_| Reply::ok("0123456789").cache_control("max-age=60").header("etag", "\"v1\""));
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    let part = edge.curl("/").header("Range: bytes=2-4").send();
    assert_eq!((part.status, part.text().as_str(), part.must("content-range")), (206, "234", "bytes 2-4/10"));
    let beyond = edge.curl("/").header("Range: bytes=10-").send();
    assert_eq!((beyond.status, beyond.must("content-range")), (416, "bytes */10"));
    let other = edge.curl("/").header("Range: bytes=2-4").header("If-Range: \"v0\"").send();
    assert_eq!((other.status, other.text().as_str()), (200, "0123456789"));
}
