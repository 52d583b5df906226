//! Upgrades pass through (RFC 9110 §7.8; RFC 6455).

use gatehouse_tests::{
    edge::Edge,
    upstream::{Reply, Upstream},
};

pub(crate) const HANDSHAKE: &str = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_websocket_carries_bytes_both_ways() {
    let upstream = Upstream::start(|_| Reply::echo_upgrade());
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    raw.send(HANDSHAKE);
    let head = String::from_utf8(raw.read_until(b"\r\n\r\n")).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("upgrade: websocket"), "{head}");
    for message in [&b"\x81\x05hello"[..], b"\x82\x03\x00\x01\x02", &[7; 100_000]] {
        raw.send(message);
        assert_eq!(raw.read_until(message), message);
    }
    let seen = upstream.only();
    assert_eq!(seen.header("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
    assert!(seen.header("connection").eq_ignore_ascii_case("upgrade"), "{seen:#?}");
    raw.finish();
    raw.read_to_close();
}

#[test]
fn an_upgrade_that_the_upstream_declines_is_an_ordinary_answer() {
    let upstream = Upstream::start(|_| Reply::ok("no sockets here").cache_control("no-store"));
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    assert_eq!(raw.send(HANDSHAKE).answer().body, b"no sockets here");
    assert_eq!(raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200, "the connection goes on");
}

/// Five WebSockets filled `connections = 5` for everybody.
#[test]
fn tunnels_take_no_place_from_requests_and_have_a_bound_of_their_own() {
    let upstream = Upstream::start(|seen| match seen.target.as_str() {
        "/socket" => Reply::echo_upgrade(),
        _ => Reply::ok("x").cache_control("no-store"),
    });
    let edge = Edge::over(&upstream).upstream("connections = 1\ntunnels = 2").start();
    let open = || {
        let mut raw = edge.raw();
        raw.send(HANDSHAKE);
        let head = String::from_utf8(raw.read_until(b"\r\n\r\n")).unwrap();
        (raw, head)
    };
    let sockets = [open(), open()];
    for (_, head) in &sockets {
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    }
    assert_eq!(edge.get("/").status, 200);
    let (_, refused) = open();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.to_ascii_lowercase().contains("retry-after: 1"), "{refused}");
}

#[test]
fn a_route_says_what_connections_may_become() {
    let upstream = Upstream::start(|seen| match seen.header("upgrade") {
        "" => Reply::ok("no tunnel").cache_control("no-store"),
        _ => Reply::echo_upgrade(),
    });
    let edge = Edge::over(&upstream)
        .route("path = \"/none\"\nupgrades = []")
        .route("path = \"/other\"\nupgrades = [\"x-tunnel/2\"]")
        .route("path = \"/both\"\nupgrades = [\"WebSocket\", \"x-tunnel/2\"]")
        .start();
    let status = |path: &str, protocol: &str| {
        let mut raw = edge.raw();
        raw.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        ));
        let head = String::from_utf8(raw.read_until(b"\r\n\r\n")).unwrap();
        head[9..12].to_owned()
    };
    for (path, protocol, expected) in [
        ("/none", "websocket", "200"),
        ("/other", "websocket", "200"),
        ("/both", "websocket", "101"),
        ("/both", "x-tunnel", "200"),
        ("/both", "websocket, x-tunnel/2", "200"),
    ] {
        assert_eq!(status(path, protocol), expected, "{path} {protocol}");
    }
    // The upstream switches to WebSocket, which was not asked for.
    for path in ["/other", "/both"] {
        assert_eq!(status(path, "x-tunnel/2"), "502", "{path}");
        assert_eq!(upstream.seen().last().unwrap().header("upgrade"), "x-tunnel/2");
    }
}
