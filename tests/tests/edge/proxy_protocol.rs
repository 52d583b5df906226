//! The PROXY protocol: who the client is behind a load balancer that reads nothing.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use gatehouse_tests::{
    address,
    curl::Curl,
    edge::{Edge, Setup},
    folder::Folder,
    process::Process,
    raw::{Raw, RawAnswer},
    tool,
    upstream::{Octets, RawUpstream, Reply, Upstream},
    wait,
};

/// Shows who the edge says that the client is, and by which scheme it came.
fn mirror() -> Upstream {
    Upstream::start(|seen| {
        let field = |name| seen.header(name).to_owned();
        let says = format!("{} {}", field("x-forwarded-for"), field("x-forwarded-proto"));
        Reply::ok(says).cache_control("no-store")
    })
}

fn introducing(upstream: &Upstream, from: &str) -> Setup {
    Edge::over(upstream).listen(&format!("proxy_protocol = {from}"))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.9 10.0.0.1 1234 443\r\n";

/// Version 2 for a client 192.0.2.9, by `command` and with these remarks.
fn version_2(command: u8, remarks: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + remarks.len()).unwrap().to_be_bytes();
    let addresses = [192, 0, 2, 9, 10, 0, 0, 1, 4, 210, 1, 187];
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11][..], &length, &addresses, remarks].concat()
}

fn told(answer: &RawAnswer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

#[test]
fn a_header_names_the_client_in_one_piece_or_in_many() {
    let upstream = mirror();
    let edge = introducing(&upstream, "[\"127.0.0.0/8\"]").start();
    // Behind TLS of the load balancer's own: PP2_TYPE_SSL, PP2_CLIENT_SSL.
    let over_tls = version_2(0x21, &[0x20, 0, 5, 1, 0, 0, 0, 0]);
    for (header, client) in [
        (LINE.as_bytes(), "192.0.2.9 http"),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n", "2001:db8::9 http"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1 http"),
        (&version_2(0x21, b""), "192.0.2.9 http"),
        (&version_2(0x20, b""), "127.0.0.1 http"),
        (&over_tls, "192.0.2.9 https"),
    ] {
        let mut whole = edge.raw();
        whole.send([header, GET.as_bytes()].concat());
        assert_eq!(told(&whole.answer()), client);
        let mut pieces = edge.raw();
        for octet in header.chunks(1).chain([GET.as_bytes()]) {
            pieces.send(octet);
        }
        assert_eq!(told(&pieces.answer()), client);
    }
}

#[test]
fn a_header_comes_before_tls() {
    let upstream = mirror();
    let edge = introducing(&upstream, "true").start();
    // curl introduces itself.
    let answer = edge.curl_h2("/").argument("--haproxy-protocol").send();
    assert_eq!(answer.text(), "127.0.0.1 https");
}

#[test]
fn the_client_that_it_names_is_limited_and_logged_and_is_no_trusted_proxy() {
    let upstream = mirror();
    let mut edge = introducing(&upstream, "true")
        .tables("[clients]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits.few]\nrate = \"1/h\"")
        .route("path = \"/*\"\nlimit = \"few\"")
        .start();
    let ask = |edge: &Edge, client: &str| {
        let mut raw = edge.raw();
        raw.send(format!("PROXY TCP4 {client} 10.0.0.1 1 2\r\n{GET}"));
        raw.answer()
    };
    let first = ask(&edge, "192.0.2.9");
    assert_eq!((first.status, told(&first).as_str()), (200, "192.0.2.9 http"));
    assert_eq!(ask(&edge, "192.0.2.9").status, 429);
    assert_eq!(ask(&edge, "192.0.2.10").status, 200);
    edge.process().wait_for_line("its log", |line| line.contains("\"client\":\"192.0.2.10\"").then_some(()));
}

#[test]
fn without_a_header_there_is_no_answer() {
    let upstream = mirror();
    let mut edge = introducing(&upstream, "true").tables("[timeouts]\nheader = \"300ms\"").start();
    let refused = |raw: &mut Raw| String::from_utf8_lossy(&raw.read_to_close()).into_owned();
    for garbage in [GET, "PROXY TCP4 nonsense\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n\r\n\r\n"] {
        let mut raw = edge.raw();
        raw.send(garbage);
        assert_eq!(refused(&mut raw), "", "{garbage:?}");
    }
    let mut long = edge.raw();
    long.try_send(["PROXY UNKNOWN ", &"x".repeat(4000)].concat());
    assert_eq!(refused(&mut long), "");
    let mut declared = edge.raw();
    declared.try_send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff");
    assert_eq!(refused(&mut declared), "", "before any of it is read");
    let mut slow = edge.raw();
    slow.send(&LINE[..20]);
    assert_eq!(refused(&mut slow), "");
    drop(edge.raw());
    let counted = |edge: &Edge, reason: &str| {
        let line = format!("gatehouse_edge_proxy_headers_refused_total{{reason=\"{reason}\"}} ");
        wait::until(reason, || {
            let page = edge.metrics();
            page.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok())
        })
    };
    assert_eq!((counted(&edge, "malformed"), counted(&edge, "too-long")), (4, 1));
    assert_eq!((counted(&edge, "late"), counted(&edge, "gone")), (1, 1));
    edge.process()
        .wait_for_line("one is told", |line| line.contains("a connection was closed").then_some(()));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn who_is_not_named_may_not_even_connect() {
    let upstream = mirror();
    let edge = introducing(&upstream, "[\"10.0.0.0/8\"]").start();
    for start in [LINE, ""] {
        let mut raw = edge.raw();
        raw.try_send(format!("{start}{GET}"));
        assert_eq!(raw.read_to_close(), b"");
    }
    assert_eq!(edge.metric("gatehouse_edge_proxy_headers_refused_total"), 2);
}

#[test]
fn haproxy_introduces_its_clients() {
    let upstream = mirror();
    let edge = introducing(&upstream, "[\"127.0.0.1\"]").start();
    let (one, two) = (address::own(), address::own());
    let folder = Folder::new();
    let part = |listen: SocketAddr, to: SocketAddr, how: &str| {
        format!(
            "listen {how}-{}\n  bind {listen}\n  server edge {to} {how} source 127.0.0.1\n",
            listen.port()
        )
    };
    let settings = [
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n",
        &part(one, edge.clear(), "send-proxy"),
        &part(two, edge.tls(), "send-proxy-v2"),
    ];
    folder.write("haproxy.cfg", &settings.concat());
    let mut command = Command::new(tool::find(&["haproxy"], "haproxy"));
    command.arg("-db").arg("-f").arg(folder.path().join("haproxy.cfg")).stdin(Stdio::null());
    let mut haproxy = Process::start("haproxy", &mut command);
    let clear = wait::until("HAProxy passes connections on", || {
        Curl::clear(one, "/").argument("--interface").argument("127.9.9.9").start().result().ok()
    });
    assert_eq!(clear.text(), "127.9.9.9 http");
    let tls =
        Curl::tls(two, &edge.authority(), "/").h2().argument("--interface").argument("127.9.9.8").send();
    assert_eq!(tls.text(), "127.9.9.8 https");
    haproxy.stop();
}

#[test]
fn an_upstream_is_told_whose_each_connection_is() {
    let upstream = mirror();
    let inner = introducing(&upstream, "[\"127.0.0.1\"]").start();
    let over_tls = format!("https://localhost:{}", inner.tls().port());
    let ca = format!("tls = {{ ca = {:?} }}", inner.authority());
    for (server, more, scheme) in
        [(format!("http://{}", inner.clear()), "", "http"), (over_tls, ca.as_str(), "https")]
    {
        for version in ["v1", "v2"] {
            let lines = format!("{more}\nproxy_protocol = {version:?}\ncheck = {{ path = \"/check\" }}");
            let outer = Setup::over_server(&server).upstream(&lines).start();
            for client in ["127.9.9.9", "127.9.9.8", "127.9.9.9"] {
                let answer = outer.curl_h2("/").argument("--interface").argument(client).send();
                assert_eq!(answer.text(), format!("{client} {scheme}"), "{version}");
            }
        }
    }
    assert!(!inner.metrics().contains("gatehouse_edge_proxy_headers_refused_total{"), "{}", inner.metrics());
    let checks = wait::until("each edge has looked", || {
        let checks = upstream.seen().into_iter().filter(|seen| seen.target == "/check").collect::<Vec<_>>();
        (checks.len() >= 4).then_some(checks)
    });
    assert!(
        checks.iter().all(|check| check.header("x-forwarded-for") == "127.0.0.1"),
        "nobody is named: {checks:#?}"
    );
}

#[test]
fn a_connection_that_names_a_client_takes_no_request_of_another() {
    let upstream = RawUpstream::scripted(|head| {
        let line = head.lines().next().unwrap_or_default();
        let length = line.len();
        Octets::of(format!(
            "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {length}\r\n\r\n{line}"
        ))
    });
    let edge = Edge::over_raw(&upstream).upstream("proxy_protocol = \"v1\"").start();
    for _ in 0..3 {
        let line = edge.get("/").text();
        let said: Vec<_> = line.split(' ').collect();
        let [_, "TCP4", "127.0.0.1", "127.0.0.1", source, reached] = said[..] else { panic!("{line}") };
        assert_eq!(reached, edge.clear().port().to_string());
        assert_ne!(source, "0");
    }
}
