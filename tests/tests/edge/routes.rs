//! Which route a request takes.

use gatehouse_tests::{
    edge::Edge,
    raw::Raw,
    upstream::{Reply, Upstream},
};

#[test]
fn nothing_answers_for_a_host_without_a_route() {
    let upstream = Upstream::start(|_| Reply::ok("text"));
    let edge = Edge::over(&upstream).route("path = \"/*\"\nhosts = [\"shop.test\"]").start();
    edge.get("/").assert_problem(404);
    assert_eq!(edge.curl("/").header("Host: shop.test").send().status, 200);
    let mut raw = Raw::connect(edge.clear());
    assert_eq!(raw.send("GET http://shop.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n").answer().status, 200);
}
