//! Purge wins over several edges, whatever becomes of Redis and of them: nobody gets, from any edge, what was older than a
//! purge that any edge had acknowledged before the request was sent.
//!
//! Readers ask each edge for a few products, whose origin counts their versions; purges go to one edge after
//! the other while something fails. A purge that is not acknowledged (503) promises nothing. With `GATEHOUSE_AUDIT` set each audit
//! is of 500 purges and 100,000 reads; without, of a tenth.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use gatehouse_tests::{
    edge::Edge,
    raw::Raw,
    redis::{Redis, Way},
    upstream::{Reply, Upstream},
    wait,
};
use rustix::process::Signal;
use serde_json::json;

use super::{purge, setup, until_in_touch};

const PRODUCTS: usize = 4;
const EDGES: usize = 3;

/// What the origin would answer, and what purges have promised.
#[derive(Default)]
struct Truth {
    versions: [AtomicUsize; PRODUCTS],
    acknowledged: [AtomicUsize; PRODUCTS],
    over: AtomicBool,
    reads: AtomicUsize,
    hits: AtomicUsize,
}

/// Three edges, each with a way of its own to one Redis.
struct Audit {
    truth: Arc<Truth>,
    _upstream: Upstream,
    redis: Redis,
    ways: Vec<Way>,
    edges: Vec<Edge>,
    acknowledged: usize,
    refused: usize,
}

impl Audit {
    fn start(settings: &[&str]) -> Self {
        let truth = Arc::<Truth>::default();
        let upstream = Upstream::start({
            let truth = Arc::clone(&truth);
            move |seen| {
                let product: usize = seen.target.trim_start_matches("/p/").parse().unwrap();
                let version = truth.versions[product].load(SeqCst);
                Reply::ok(format!("{version} {}", "A page about it. ".repeat(20)))
                    .header("surrogate-key", &format!("product-{product} all"))
                    .header("etag", &format!("\"{version}\""))
                    .cache_control("max-age=600")
            }
        });
        let redis = Redis::start_with(settings);
        let ways: Vec<_> = (0..EDGES).map(|_| Way::to(redis.address())).collect();
        let edges: Vec<_> = ways.iter().map(|way| setup(&upstream, &way.table()).start()).collect();
        edges.iter().for_each(until_in_touch);
        Self { truth, _upstream: upstream, redis, ways, edges, acknowledged: 0, refused: 0 }
    }

    /// Reads and purges; `fails` is called at each purge, by its number, of so many.
    fn run(&mut self, mut fails: impl FnMut(&mut Self, usize, usize)) {
        let (purges, reads) =
            if std::env::var_os("GATEHOUSE_AUDIT").is_some() { (500, 200) } else { (40, 24) };
        let addresses: Vec<_> = self.edges.iter().map(Edge::clear).collect();
        // Each asks one edge: one that stands still holds up nobody else.
        let readers: Vec<_> = (0..2 * EDGES)
            .map(|number| {
                let (truth, address) = (Arc::clone(&self.truth), addresses[number % EDGES]);
                std::thread::spawn(move || read(&truth, address, number))
            })
            .collect();
        for number in 0..purges {
            fails(self, number, purges);
            self.wait_for_readers(reads);
            self.purge(number);
        }
        fails(self, purges, purges);
        self.wait_for_readers(reads);
        self.truth.over.store(true, SeqCst);
        for reader in readers {
            reader.join().unwrap();
        }
        let (reads, hits) = (self.truth.reads.load(SeqCst), self.truth.hits.load(SeqCst));
        let Self { acknowledged, refused, .. } = *self;
        let audit = std::thread::current().name().unwrap_or_default().to_owned();
        println!(
            "| {audit} | {reads} reads | {hits} hits | {acknowledged} purges | {refused} refused | 0 stale |"
        );
        assert!(acknowledged > 0 && hits > 0, "purges and hits were both seen");
    }

    fn purge(&mut self, number: usize) {
        let product = number % PRODUCTS;
        let (what, products) = match number % 6 {
            0 => (json!({ "everything": true }), 0..PRODUCTS),
            1 => (json!({ "tags": ["all"] }), 0..PRODUCTS),
            2 => (json!({ "prefixes": ["http://shop.test/p/"] }), 0..PRODUCTS),
            3 => (json!({ "urls": [format!("http://shop.test/p/{product}")] }), product..product + 1),
            4 => (json!({ "tags": [format!("product-{product}")], "soft": true }), product..product + 1),
            _ => (json!({ "tags": [format!("product-{product}")] }), product..product + 1),
        };
        let versions: Vec<_> = products
            .map(|product| (product, self.truth.versions[product].fetch_add(1, SeqCst) + 1))
            .collect();
        let alive: Vec<_> = self.edges.iter().filter(|edge| is_running(edge.id())).collect();
        let status = purge(alive[number % alive.len()], &what);
        if status == 200 {
            self.acknowledged += 1;
            for (product, version) in versions {
                self.truth.acknowledged[product].fetch_max(version, SeqCst);
            }
        } else {
            assert_eq!(status, 503);
            self.refused += 1;
        }
    }

    /// Until so much has been read since.
    fn wait_for_readers(&self, reads: usize) {
        let before = self.truth.reads.load(SeqCst);
        wait::until("something is read", || (self.truth.reads.load(SeqCst) >= before + reads).then_some(()));
    }
}

/// Whether a process runs, and is not stopped.
fn is_running(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('R' | 'S' | 'D'))
}

/// Asks one edge for one product after the other, over a connection that is kept as long as it holds. One that stands still
/// is asked again and again: what it answers when it goes on, it was asked after the latest purge.
fn read(truth: &Truth, address: std::net::SocketAddr, number: usize) {
    let mut open: Option<Raw> = None;
    let mut turn = number;
    while !truth.over.load(SeqCst) {
        turn += 1;
        let product = turn % PRODUCTS;
        let floor = truth.acknowledged[product].load(SeqCst);
        let Some(mut raw) = open.take().or_else(|| Raw::try_connect(address)) else {
            wait::pass(Duration::from_millis(20));
            continue;
        };
        if !raw.try_send(format!("GET /p/{product} HTTP/1.1\r\nHost: shop.test\r\n\r\n")) {
            continue;
        }
        let Some(answer) = raw.answer_within(Duration::from_millis(300)) else { continue };
        assert_eq!(answer.status, 200, "{}", answer.head);
        let body = String::from_utf8(answer.body.clone()).unwrap();
        let version: usize = body.split(' ').next().unwrap().parse().unwrap();
        assert!(
            version >= floor,
            "version {version} after the purge of {floor}, from {address}: {}",
            answer.head
        );
        truth.reads.fetch_add(1, SeqCst);
        truth.hits.fetch_add(usize::from(answer.is_hit()), SeqCst);
        open = Some(raw);
    }
}

/// At a third of an audit, and at two thirds.
fn at_thirds(number: usize, of: usize) -> Option<bool> {
    if number == of / 3 {
        Some(true)
    } else if number == 2 * of / 3 {
        Some(false)
    } else {
        None
    }
}

#[test]
fn nothing_fails() {
    Audit::start(&[]).run(|_, _, _| ());
}

#[test]
fn redis_is_killed_and_comes_back_empty() {
    Audit::start(&[]).run(|audit, number, of| match at_thirds(number, of) {
        Some(true) => audit.redis.kill(),
        Some(false) => {
            audit.redis.start_again();
            audit.edges.iter().for_each(until_in_touch);
        }
        None => {}
    });
}

#[test]
fn redis_stands_still_and_goes_on() {
    Audit::start(&[]).run(|audit, number, of| match at_thirds(number, of) {
        Some(true) => audit.redis.pause(),
        Some(false) => {
            audit.redis.go_on();
            audit.edges.iter().for_each(until_in_touch);
        }
        None => {}
    });
}

#[test]
fn redis_is_flushed_again_and_again() {
    Audit::start(&[]).run(|audit, number, _| {
        if number % 7 == 3 {
            audit.redis.ask(&["FLUSHALL"]);
        }
    });
}

#[test]
fn redis_loses_its_stamps_alone() {
    Audit::start(&[]).run(|audit, number, _| {
        let lost = ["control", "young", "old", "prefixes", "edges", "log"][number % 6];
        if number % 5 == 2 {
            audit.redis.ask(&["DEL", &format!("gatehouse:gatehouse:{lost}")]);
        }
    });
}

#[test]
fn redis_fails_over_to_a_replica_that_lags_and_back() {
    let mut audit = Audit::start(&[]);
    let replica = Redis::start();
    replica.follow(&audit.redis);
    audit.run(|audit, number, of| {
        if number + 3 == of / 3 {
            // From now on it does not hear of purges.
            replica.ask(&["REPLICAOF", "NO", "ONE"]);
        }
        if number == of / 3 {
            audit.ways.iter().for_each(|way| way.lead_to(replica.address()));
        }
    });
}

#[test]
fn redis_is_slow() {
    Audit::start(&[]).run(|audit, number, of| {
        if let Some(slow) = at_thirds(number, of) {
            let delay = if slow { 200 } else { 0 };
            audit.ways.iter().for_each(|way| way.delay(Duration::from_millis(delay)));
        }
    });
}

#[test]
fn redis_is_full() {
    for policy in ["noeviction", "allkeys-random"] {
        let mut audit = Audit::start(&["--maxmemory-policy", policy]);
        audit.run(|audit, number, of| {
            if let Some(full) = at_thirds(number, of) {
                let most = if full { "1" } else { "0" };
                audit.redis.ask(&["CONFIG", "SET", "maxmemory", most]);
            }
        });
    }
}

#[test]
fn an_edge_is_killed() {
    Audit::start(&[]).run(|audit, number, of| {
        if number == of / 3 {
            audit.edges[1].kill();
        }
    });
}

#[test]
fn an_edge_stands_still_for_longer_than_its_lease_and_goes_on() {
    Audit::start(&[]).run(|audit, number, of| match at_thirds(number, of) {
        Some(true) => audit.edges[1].process().signal(Signal::STOP),
        Some(false) => {
            wait::pass(Duration::from_secs(2));
            audit.edges[1].process().signal(Signal::CONT);
        }
        None => {}
    });
}

#[test]
fn an_edge_is_cut_off_from_redis_alone() {
    let mut audit = Audit::start(&[]);
    audit.run(|audit, number, of| match at_thirds(number, of) {
        Some(true) => audit.ways[1].cut(),
        Some(false) => {
            audit.ways[1].mend();
            until_in_touch(&audit.edges[1]);
        }
        None => {}
    });
}
