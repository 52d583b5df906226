//! Reloads under load: listeners come and go, and on the one that stays every request is answered.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use gatehouse_tests::{
    address,
    edge::{Edge, Setup},
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};

use super::GET;
use crate::upgrade::HANDSHAKE;

/// Some seconds of them.
const RELOADS: usize = 20;
const EVERY: Duration = Duration::from_millis(200);

/// Clients of one listener, each with its own way to ask, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(clear: SocketAddr, tls: SocketAddr, authority: PathBuf) -> Self {
        let mut load = Self { stop: Arc::default(), answered: Arc::default(), clients: Vec::new() };
        let over_tls = move || Raw::connect_tls(tls, &authority, "http/1.1");
        load.keeps_alive(move || Raw::connect(clear));
        load.keeps_alive(over_tls.clone());
        load.connects_anew(move || Raw::connect(clear));
        load.connects_anew(over_tls);
        load
    }

    fn keeps_alive(&mut self, connect: impl Fn() -> Raw + Send + 'static) {
        let mut raw = connect();
        self.client(move || ask(&mut raw));
    }

    fn connects_anew(&mut self, connect: impl Fn() -> Raw + Send + 'static) {
        self.client(move || ask(&mut connect()));
    }

    fn client(&mut self, mut ask: impl FnMut() + Send + 'static) {
        let (stop, answered) = (Arc::clone(&self.stop), Arc::clone(&self.answered));
        self.clients.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                ask();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// How many requests were answered; a request that was not has failed the test.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

fn ask(raw: &mut Raw) {
    let answer = raw.send(GET).answer();
    assert_eq!((answer.status, answer.body.len()), (200, 5000), "{}", answer.head);
    assert_ne!(answer.header("connection"), Some("close"), "told to go while the listener stays");
}

#[test]
fn reloads_under_load_fail_no_request_where_the_listener_stays() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| match seen.target.as_str() {
        "/socket" => Reply::echo_upgrade(),
        "/held" => Reply::streamed().cache_control("no-store").then("begin ").then_wait(&held).then("end"),
        _ => Reply::ok("x".repeat(5000)).cache_control("max-age=1"),
    });
    let own = [address::own(), address::own(), address::own()];
    // However many reloads there are: a download may be silent for so long.
    let setup = Edge::over(&upstream).upstream("idle_timeout = \"10m\"");
    let edge = own.iter().fold(setup.clone(), |setup, address| setup.listener(*address, "")).start();
    // Opened before, at an address that goes with the first reload.
    let mut tunnel = Raw::connect(own[1]);
    tunnel.send(HANDSHAKE).read_until(b"\r\n\r\n");
    let mut download = Raw::connect(own[1]);
    download.send(GET.replace("/ ", "/held ")).read_until(b"begin ");

    let load = Load::start(edge.clear(), edge.tls(), edge.authority());
    let mut slowest = Duration::ZERO;
    for number in 0..RELOADS {
        let there = number % own.len();
        let began = wait::now();
        let (done, printed) = edge.reload_command(&settings(&setup, own[there], number));
        slowest = slowest.max(began.elapsed());
        assert!(done && printed.contains("reloaded"), "{printed}");
        for (place, address) in own.into_iter().enumerate() {
            match Raw::try_connect(address) {
                Some(mut raw) if place == there => ask(&mut raw),
                Some(_) => panic!("{address} still accepts"),
                None => assert_ne!(place, there, "{address} refuses"),
            }
        }
        tunnel.send("\x01\x05hello").read_until(b"\x01\x05hello");
        // The pace of an operator in great haste.
        assert_eq!(wait::until_within::<()>(EVERY, || None), None);
    }
    let answered = load.stop();
    println!("{RELOADS} reloads, the slowest in {slowest:?}; {answered} requests answered, none failed");
    assert!(answered > RELOADS, "there was load: {answered}");
    gate.open();
    download.read_until(b"end");
    tunnel.finish().read_to_close();
}

/// Other listeners, routes, limits, bounds and budget each time.
fn settings(setup: &Setup, own: SocketAddr, number: usize) -> String {
    let odd = number % 2;
    let tables = format!(
        "[cache]\nmemory = \"{} MiB\"\nvariants = {}\n[bounds]\nconnections = {}\n[limits.x]\nrate = \"{}00000/s\"\n",
        16 << odd,
        4 + odd,
        1000 + number,
        1 + odd
    );
    let route = format!("path = \"/*\"\nlimit = \"x\"\ncache = {{ max_ttl = \"{}s\" }}", 60 + number);
    setup.clone().listener(own, "").tables(&tables).route(&route).text()
}
