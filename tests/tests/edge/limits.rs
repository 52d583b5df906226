//! How often a client may ask.

use gatehouse_tests::{
    curl::Answer,
    edge::{Edge, Setup},
    upstream::{Reply, Upstream},
    wait,
};

fn limited(upstream: &Upstream) -> Setup {
    Edge::over(upstream)
        .tables("[limits.api]\nrate = \"1/s\"\nburst = 3")
        .route("path = \"/api/*\"\nlimit = \"api\"")
        .route("path = \"/*\"")
}

fn upstream() -> Upstream {
    Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"))
}

/// Asks until the edge says 429, which has to come soon after the burst.
#[track_caller]
fn until_limited(ask: impl Fn() -> Answer) -> Answer {
    wait::until("the limit is reached", || Some(ask()).filter(|answer| answer.status == 429))
}

#[test]
fn beyond_its_burst_a_client_gets_429_and_recovers() {
    let upstream = upstream();
    let edge = limited(&upstream).start();
    for _ in 0..3 {
        assert_eq!(edge.get("/api/x").status, 200, "within the burst");
    }
    let refused = until_limited(|| edge.get("/api/x"));
    refused.assert_problem(429);
    assert!(refused.must("retry-after").parse::<u32>().unwrap() >= 1, "{refused:#?}");
    assert!(refused.header("ratelimit").is_some(), "{refused:#?}");
    assert!(refused.header("ratelimit-policy").is_some(), "{refused:#?}");
    assert_eq!(edge.get("/other").status, 200, "another route has no limit");
    wait::until("the client has earned a request", || (edge.get("/api/x").status == 200).then_some(()));
}

#[test]
fn the_limit_counts_every_protocol_of_one_client() {
    let upstream = upstream();
    let edge = limited(&upstream).start();
    until_limited(|| edge.get("/api/x"));
    until_limited(|| edge.curl_h2("/api/x").send()).assert_problem(429);
}

#[test]
fn one_client_does_not_spend_what_belongs_to_another() {
    let upstream = upstream();
    let edge = limited(&upstream).start();
    until_limited(|| edge.get("/api/x"));
    let other = edge.curl("/api/x").argument("--interface").argument("127.0.0.2").send();
    assert_eq!(other.status, 200, "{other:#?}");
}

#[test]
fn a_client_cannot_pretend_to_be_another() {
    let upstream = upstream();
    let edge = limited(&upstream).start();
    let mut number = 0..;
    let refused = wait::until("the limit is reached", || {
        let address = number.next().unwrap();
        let answer = edge
            .curl("/api/x")
            .header(&format!("X-Forwarded-For: 203.0.113.{}", address % 250))
            .header(&format!("Forwarded: for=203.0.113.{}", address % 250))
            .send();
        Some(answer).filter(|answer| answer.status == 429)
    });
    refused.assert_problem(429);
}

#[test]
fn a_trusted_proxy_speaks_for_its_clients() {
    let upstream = upstream();
    let edge = limited(&upstream).tables("[clients]\ntrusted_proxies = [\"127.0.0.1/32\"]").start();
    let from = |address: &str| edge.curl("/api/x").header(&format!("X-Forwarded-For: {address}")).send();
    until_limited(|| from("203.0.113.1"));
    assert_eq!(from("203.0.113.2").status, 200);
    // IPv6 clients own a /64: another address of it is the same client.
    until_limited(|| from("2001:db8::1"));
    assert_eq!(from("2001:db8:0:1::1").status, 200);
    until_limited(|| from("2001:db8:0:0:ffff::2"));
}
