//! What has been changed is not served as it was before (RFC 9111 §4.4), whatever was under way.

use gatehouse_tests::{
    edge::Edge,
    upstream::{Gate, Reply, Upstream},
};

use crate::caching::counting;

#[test]
fn an_unsafe_request_passes_and_invalidates() {
    let upstream = counting();
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    assert!(edge.get("/").is_hit());
    for method in ["POST", "PUT", "DELETE"] {
        let change = edge.curl("/").post(method, "change").send();
        assert!(!change.is_hit(), "{method}: {change:#?}");
        assert!(!edge.get("/").is_hit(), "RFC 9111 §4.4: {method} invalidates");
        assert!(edge.get("/").is_hit());
    }
}

#[test]
fn a_fetch_under_way_when_its_resource_is_changed_is_never_stored_nor_joined() {
    // Once, what a GET had begun to fetch before the PUT was stored when it came, and later requests joined it.
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| match (seen.method.as_str(), seen.earlier) {
        ("GET", 0) => {
            Reply::streamed().then("old ").then_wait(&held).then("end").cache_control("max-age=600")
        }
        _ => Reply::ok("new").cache_control("max-age=600"),
    });
    let edge = Edge::over(&upstream).start();
    let mut before = edge.raw();
    before.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").read_until(b"old ");
    let host = "Host: a";
    assert_eq!(edge.curl("/x").header(host).post("PUT", "new").send().status, 200);
    // While the old one still comes: this one asks for itself.
    let after = edge.curl("/x").header(host).send();
    assert_eq!(after.text(), "new", "{after:#?}");
    gate.open();
    before.read_until(b"0\r\n\r\n");
    for _ in 0..3 {
        let later = edge.curl("/x").header(host).send();
        assert_eq!(later.text(), "new", "{later:#?}");
    }
}

#[test]
fn a_validation_under_way_when_its_resource_is_changed_freshens_nothing() {
    // Once, a 304 to a question asked before the change made what had been stored fresh again.
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| match (seen.method.as_str(), seen.earlier) {
        ("GET", 0) => Reply::ok("old").cache_control("max-age=0").header("etag", "\"1\""),
        ("GET", 1) => Reply::status(304).cache_control("max-age=600").header("etag", "\"1\"").after(&held),
        _ => Reply::ok("new").cache_control("max-age=600").header("etag", "\"2\""),
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/x");
    let validating = edge.curl("/x").start();
    upstream.wait_for(2);
    assert_eq!(edge.curl("/x").post("PUT", "new").send().status, 200);
    gate.open();
    let _ = validating.answer();
    for _ in 0..3 {
        assert_eq!(edge.get("/x").text(), "new");
    }
}
