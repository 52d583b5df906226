//! Purge wins, on the real program under load: nobody gets what was older than a purge that had been acknowledged before
//! the request was sent.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use gatehouse_tests::{
    edge::Edge,
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
};
use serde_json::json;

const PRODUCTS: usize = 3;
const PURGES: usize = 300;

/// What the origin would answer, and what purges have promised.
#[derive(Default)]
struct Shop {
    versions: [AtomicUsize; PRODUCTS],
    acknowledged: [AtomicUsize; PRODUCTS],
    /// Answers that stop half-way until the next purge has been acknowledged.
    held: Mutex<Vec<Gate>>,
    fetches: AtomicUsize,
    requests: AtomicUsize,
    over: AtomicBool,
}

impl Shop {
    fn answer(&self, target: &str) -> Reply {
        let product: usize = target.trim_start_matches("/p/").parse().unwrap();
        let version = self.versions[product].load(SeqCst);
        let reply = Reply::streamed()
            .then(format!("{version} "))
            .header("surrogate-key", &format!("product-{product} all"))
            .header("content-type", "text/html")
            .cache_control("max-age=600");
        let padding = "A page about it. ".repeat(40);
        if self.fetches.fetch_add(1, SeqCst).is_multiple_of(3) {
            let gate = Gate::closed();
            self.held.lock().unwrap().push(gate.clone());
            // The end comes after the answer may have been purged. Over already: nobody would open it.
            if !self.over.load(SeqCst) {
                return reply.then_wait(&gate).then(padding);
            }
        }
        reply.then(padding)
    }

    /// Until some answers have come, or so long that all readers must be waiting for what is held.
    fn wait_for_readers(&self) {
        let before = self.requests.load(SeqCst);
        for _ in 0..50_000 {
            if self.requests.load(SeqCst) >= before + 20 {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn let_go(&self) {
        for gate in self.held.lock().unwrap().drain(..) {
            gate.open();
        }
    }
}

#[test]
fn nothing_older_than_an_acknowledged_purge_is_ever_served() {
    let shop = Arc::new(Shop::default());
    let upstream = Upstream::start({
        let shop = Arc::clone(&shop);
        move |seen| shop.answer(&seen.target)
    });
    let edge = Edge::over(&upstream).start();
    let host = edge.clear().to_string();
    let readers: Vec<_> = (0..6)
        .map(|number| {
            let raw = if number % 3 == 2 {
                Raw::connect_tls(edge.tls(), &edge.authority(), "http/1.1")
            } else {
                edge.raw()
            };
            let (shop, host) = (Arc::clone(&shop), host.clone());
            std::thread::spawn(move || read(raw, &host, number, &shop))
        })
        .collect();
    let mut admin = Raw::connect(edge.admin());
    let mut purged = 0;
    for round in 0..PURGES {
        shop.wait_for_readers();
        let product = round % PRODUCTS;
        let below = |path: &str| ["http", "https"].map(|scheme| format!("{scheme}://{host}{path}"));
        let (what, products) = match round % 7 {
            0 => (json!({ "everything": true }), 0..PRODUCTS),
            1 => (json!({ "tags": ["all"] }), 0..PRODUCTS),
            2 => (json!({ "hosts": ["127.0.0.1"] }), 0..PRODUCTS),
            3 => (json!({ "prefixes": below("/p/") }), 0..PRODUCTS),
            4 => (json!({ "tags": [format!("product-{product}")], "soft": true }), product..product + 1),
            _ => (json!({ "tags": [format!("product-{product}")] }), product..product + 1),
        };
        let versions: Vec<_> =
            products.map(|product| (product, shop.versions[product].fetch_add(1, SeqCst) + 1)).collect();
        purged += purge(&mut admin, &what);
        for (product, version) in versions {
            shop.acknowledged[product].fetch_max(version, SeqCst);
        }
        shop.let_go();
    }
    shop.over.store(true, SeqCst);
    let mut answers = (0, 0);
    for reader in readers {
        // One may have begun to wait after the last purge.
        while !reader.is_finished() {
            shop.let_go();
            std::thread::yield_now();
        }
        let (requests, hits) = reader.join().unwrap();
        answers = (answers.0 + requests, answers.1 + hits);
    }
    let (requests, hits) = answers;
    println!(
        "{PURGES} purges took {purged} stored answers; {requests} requests, {hits} of them hits, {} fetches",
        shop.fetches.load(SeqCst)
    );
    assert!(purged > 0 && hits > 0 && hits < requests, "purges and hits were both seen");
}

/// Asks for one product after the other until all is over; returns requests and hits.
fn read(mut raw: Raw, host: &str, number: usize, shop: &Shop) -> (usize, usize) {
    let (mut requests, mut hits) = (0, 0);
    while !shop.over.load(SeqCst) {
        let product = (requests + number) % PRODUCTS;
        let floor = shop.acknowledged[product].load(SeqCst);
        let answer = raw.send(format!("GET /p/{product} HTTP/1.1\r\nHost: {host}\r\n\r\n")).answer();
        assert_eq!(answer.status, 200, "{}", answer.head);
        let body = String::from_utf8(answer.body.clone()).unwrap();
        let version: usize = body.split(' ').next().unwrap().parse().unwrap();
        assert!(version >= floor, "version {version} after the purge of {floor}: {}", answer.head);
        requests += 1;
        shop.requests.fetch_add(1, SeqCst);
        hits += usize::from(answer.is_hit());
    }
    (requests, hits)
}

fn purge(admin: &mut Raw, what: &serde_json::Value) -> usize {
    let content = what.to_string();
    let head = "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let answer = admin.send(format!("{head}Content-Length: {}\r\n\r\n{content}", content.len())).answer();
    assert_eq!(answer.status, 200, "{} {}", answer.head, String::from_utf8_lossy(&answer.body));
    let came_to: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    usize::try_from(came_to["purged"].as_u64().unwrap()).unwrap()
}
