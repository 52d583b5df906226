//! Addresses come and go; who is connected stays until it is done.

use std::net::SocketAddr;

use gatehouse_tests::{
    address,
    curl::Curl,
    edge::{Edge, Setup},
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};

use super::GET;
use crate::upgrade::HANDSHAKE;

const TLS: &str =
    "tls = { certificate = \"certs/localhost.pem\", key = \"certs/localhost.key\", local_ca = true }";

/// Answers `/held` in two halves, the second when the gate is open.
fn upstream(gate: &Gate) -> Upstream {
    let held = gate.clone();
    Upstream::start(move |seen| match seen.target.as_str() {
        "/socket" => Reply::echo_upgrade(),
        "/held" => Reply::streamed().cache_control("no-store").then("begin ").then_wait(&held).then("end"),
        _ => Reply::ok("text").cache_control("no-store"),
    })
}

#[track_caller]
fn reload(edge: &mut Edge, setup: &Setup) {
    let line = edge.reload(&setup.text());
    assert!(line.contains("reloaded"), "{line}");
}

#[test]
fn a_new_address_is_served_and_one_that_is_taken_out_refuses() {
    let upstream = upstream(&Gate::closed());
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let (clear, tls) = (address::own(), address::own());
    assert!(Raw::try_connect(clear).is_none());
    reload(&mut edge, &setup.clone().listener(clear, "").listener(tls, TLS));
    assert_eq!(Curl::clear(clear, "/").send().status, 200);
    assert_eq!(Curl::tls(tls, &edge.authority(), "/").h2().send().status, 200);
    reload(&mut edge, &setup);
    assert!(Raw::try_connect(clear).is_none() && Raw::try_connect(tls).is_none());
    assert_eq!(edge.get("/").status, 200, "the others go on");
    reload(&mut edge, &setup.clone().listener(clear, ""));
    assert_eq!(Curl::clear(clear, "/").send().status, 200, "and back");
}

#[test]
fn who_is_connected_to_an_address_that_goes_is_served_to_the_end() {
    let gate = Gate::closed();
    let upstream = upstream(&gate);
    let setup = Edge::over(&upstream);
    let own = address::own();
    let mut edge = setup.clone().listener(own, "").start();
    let mut tunnel = Raw::connect(own);
    tunnel.send(HANDSHAKE).read_until(b"\r\n\r\n");
    let mut download = Raw::connect(own);
    download.send(GET.replace("/ ", "/held ")).read_until(b"begin ");
    let mut kept = Raw::connect(own);
    assert_eq!(kept.send(GET).answer().status, 200);

    reload(&mut edge, &setup);
    assert!(Raw::try_connect(own).is_none(), "nobody new");
    assert_eq!(kept.read_to_close(), b"", "who has no request is told to go");
    tunnel.send("\x01\x05hello").read_until(b"\x01\x05hello");
    reload(&mut edge, &setup.clone().listener(own, ""));
    reload(&mut edge, &setup);
    tunnel.send("\x01\x05again").read_until(b"\x01\x05again");
    gate.open();
    download.read_until(b"end");
    tunnel.finish().read_to_close();
}

#[test]
fn streams_on_an_address_that_goes_are_answered_and_the_client_told_to_go() {
    let gate = Gate::closed();
    let upstream = upstream(&gate);
    let setup = Edge::over(&upstream);
    let own = address::own();
    let mut edge = setup.clone().listener(own, TLS).start();
    let client = Curl::tls(own, &edge.authority(), "/held").h2().start();
    upstream.wait_for(1);
    reload(&mut edge, &setup);
    gate.open();
    assert_eq!(client.answer().text(), "begin end");
    wait::until("the connection is closed", || {
        (edge.metric("gatehouse_edge_connections_open") == 0).then_some(())
    });
}

#[test]
fn tls_comes_and_goes_at_an_address_without_a_refused_connection() {
    let upstream = upstream(&Gate::closed());
    let own = address::own();
    let setup = Edge::over(&upstream);
    let (clear, tls) = (setup.clone().listener(own, ""), setup.clone().listener(own, TLS));
    let mut edge = clear.start();
    let mut before = Raw::connect(own);
    assert_eq!(before.send(GET).answer().status, 200);
    let connecting =
        std::thread::spawn(move || (0..2000).filter(|_| Raw::try_connect(own).is_none()).count());
    while !connecting.is_finished() {
        reload(&mut edge, &tls);
        assert_eq!(Curl::tls(own, &edge.authority(), "/").h2().send().status, 200);
        reload(&mut edge, &clear);
        assert_eq!(Curl::clear(own, "/").send().status, 200);
    }
    assert_eq!(connecting.join().unwrap(), 0, "connections refused");
    assert_eq!(before.read_to_close(), b"", "who came in clear text does not stay where TLS is wanted");
}

#[test]
fn an_address_that_is_taken_refuses_the_whole_reload() {
    let upstream = upstream(&Gate::closed());
    let setup = Edge::over(&upstream);
    let edge = setup.start();
    let (free, taken) = (address::own(), address::own());
    let _holder = std::net::TcpListener::bind(taken).unwrap();
    let wanted = setup.clone().listener(free, "").listener(taken, "").route("path = \"/only-this\"");
    let (done, printed) = edge.reload_command(&wanted.text());
    assert!(!done && printed.contains("refused") && printed.contains(&taken.to_string()), "{printed}");
    assert!(printed.contains("another process holds it"), "{printed}");
    assert_eq!(edge.get("/").status, 200, "the old routes");
    assert!(Raw::try_connect(free).is_none(), "what could be bound is given back");
    let (done, printed) = edge.reload_command(&setup.text());
    assert!(done, "{printed}");
}

#[test]
fn an_address_becomes_wider_and_narrower_on_the_same_port() {
    let upstream = upstream(&Gate::closed());
    let setup = Edge::over(&upstream);
    let narrow = address::own();
    let wide = SocketAddr::from(([0, 0, 0, 0], narrow.port()));
    let mut edge = setup.clone().listener(narrow, "").start();
    // Nobody else may have the port on any address, or this is no test of the edge.
    if std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, narrow.port())).is_ok() {
        reload(&mut edge, &setup.clone().listener(wide, ""));
        assert_eq!(Curl::clear(narrow, "/").send().status, 200);
        reload(&mut edge, &setup.clone().listener(narrow, ""));
        assert_eq!(Curl::clear(narrow, "/").send().status, 200);
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], narrow.port()));
        assert!(Raw::try_connect(elsewhere).is_none());
    }
}

#[test]
fn the_admin_address_moves_and_the_one_who_asked_is_answered() {
    let upstream = upstream(&Gate::closed());
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let (old, new) = (edge.admin(), address::own());
    let (done, printed) = edge.reload_command(&setup.clone().admin(new).text());
    assert!(done && printed.contains(&format!("admin.address: 127.0.0.1:0 -> {new}")), "{printed}");
    assert!(Raw::try_connect(old).is_none());
    edge.admin_has_moved(new);
    assert_eq!(edge.admin_status("/readyz"), Some(200));
    // By the settings alone: they name the address.
    let (done, printed) = edge.reload_command(&setup.clone().admin(new).text());
    assert!(done && printed.contains("nothing changed"), "{printed}");

    let (done, printed) = edge.reload_command(&setup.clone().admin(address::own()).listener(new, "").text());
    assert!(!done && printed.contains("is the admin address until this reload is done"), "{printed}");
    assert_eq!(edge.admin_status("/readyz"), Some(200));
}
