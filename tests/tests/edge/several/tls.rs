//! TLS of several edges: one has certificates made for all, any of them answers the authority, and any resumes what another began.

use std::{fs, net::SocketAddr, sync::Arc};

use gatehouse_tests::{
    address,
    curl::Curl,
    edge::{Edge, Setup},
    folder::Folder,
    pebble::{Pebble, PebbleSetup},
    raw::{self, Raw},
    redis::Redis,
    upstream::{Reply, Upstream},
    wait,
};

use super::{setup, until_in_touch};

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef\n";

fn upstream() -> Upstream {
    Upstream::start(|seen| Reply::ok(seen.target.clone()).cache_control("no-store"))
}

/// An edge that has the secret of all.
fn start(setup: &Setup) -> Edge {
    let folder = Folder::new();
    folder.write("edge.toml", &setup.text());
    folder.write("secret", SECRET);
    Edge::start_in(folder)
}

#[test]
fn a_session_that_one_edge_began_another_resumes_where_they_have_one_secret() {
    let (upstream, redis) = (upstream(), Redis::start());
    let table = redis.table();
    let sealed = format!("{table}secret_file = \"secret\"\n");
    let edges = [&sealed, &sealed, &table].map(|table| start(&setup(&upstream, table)));
    edges.iter().for_each(until_in_touch);
    wait::until("keys lie in Redis", || {
        redis.ask(&["EXISTS", "gatehouse:gatehouse:tickets"]).starts_with(":1").then_some(())
    });
    let resumes = |from: &Edge, at: &Edge| {
        // Each edge has an authority of its own, so that the other believes it by the session alone.
        let config = Arc::new(raw::client_config(&from.authority(), "http/1.1"));
        let mut first = Raw::connect_tls_as(from.tls(), &config)?;
        assert_eq!(first.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").answer().status, 200);
        let mut second = Raw::connect_tls_as(at.tls(), &config)?;
        assert_eq!(second.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").answer().status, 200);
        second.is_resumed().then_some(())
    };
    wait::until("sessions are resumed there", || resumes(&edges[0], &edges[1]));
    wait::until("and back", || resumes(&edges[1], &edges[0]));
    assert!(resumes(&edges[2], &edges[2]).is_some(), "by its own keys");
    assert!(resumes(&edges[0], &edges[2]).is_none(), "it has no secret");
    // What Redis forgets the edges put there again.
    redis.ask(&["FLUSHALL"]);
    wait::until("sessions go on", || resumes(&edges[0], &edges[1]));
}

/// What three edges serve, each at addresses of its own.
struct Places {
    clear: [SocketAddr; 3],
    tls: [SocketAddr; 3],
}

impl Places {
    fn new() -> Self {
        // Of one host: a name leads to one.
        Self { clear: [(); 3].map(|()| address::own()), tls: [(); 3].map(|()| address::own()) }
    }

    fn setup(&self, upstream: &Upstream, number: usize, tables: &str) -> Setup {
        setup(upstream, tables)
            .listener(self.clear[number], "")
            .listener(self.tls[number], "domain = \"shop.test\"")
    }

    fn until_believed(&self, number: usize, pebble: &Pebble) {
        let root = pebble.root();
        wait::until("a client that believes the authority is served", || {
            let curl = Curl::tls_to("shop.test", self.tls[number], &root, "/page");
            curl.start().result().ok().filter(|answer| answer.status == 200)
        });
    }
}

/// The certificate that an edge has, with its key.
fn kept(edge: &Edge) -> String {
    let mut homes = fs::read_dir(edge.folder().join("certs/acme")).unwrap();
    fs::read_to_string(homes.next().unwrap().unwrap().path().join("shop.test.pem")).unwrap()
}

fn made(edge: &mut Edge) -> usize {
    edge.process().lines().iter().filter(|line| line.contains("a certificate was made")).count()
}

/// Three edges, of which the authority looks at the third; each gets its certificate.
fn one_order(looks_at_clear: bool) {
    let (upstream, redis, places, nobody) = (upstream(), Redis::start(), Places::new(), address::own());
    // Until all are there nobody orders.
    redis.ask(&["SET", "gatehouse:gatehouse:o:shop.test", "the test"]);
    let clear = if looks_at_clear { places.clear[2] } else { nobody };
    let pebble = PebbleSetup::looking_at(clear, places.tls[2]);
    let tables = format!("{}secret_file = \"secret\"\n{}", redis.table(), pebble.table());
    let pebble = pebble.start();
    let mut edges = [0, 1, 2].map(|number| {
        let edge = start(&places.setup(&upstream, number, &tables));
        until_in_touch(&edge);
        edge
    });
    redis.ask(&["DEL", "gatehouse:gatehouse:o:shop.test"]);
    if !looks_at_clear {
        // The first way fails, and its turn rests. A reload brings the next forward at the edge that has it.
        wait::until("the first way has failed", || {
            let failed = |edge: &mut Edge| {
                edge.process().lines().iter().any(|line| line.contains("no certificate for shop.test"))
            };
            edges.iter_mut().any(failed).then_some(())
        });
        for (number, edge) in edges.iter_mut().enumerate() {
            edge.reload(&places.setup(&upstream, number, &tables).text());
        }
    }
    for number in 0..3 {
        places.until_believed(number, &pebble);
    }
    assert!(edges.iter().all(|edge| kept(edge) == kept(&edges[0])), "all have the same");
    assert_eq!(edges.iter_mut().map(made).sum::<usize>(), 1, "one of them had it made");
    // Whoever reads Redis does not get the key.
    let all = redis.ask(&["EVAL", "return redis.call('GET', redis.call('KEYS', '*:s:*shop.test')[1])", "0"]);
    assert!(all.starts_with('$') && !all.contains("PRIVATE KEY") && !all.contains("CERTIFICATE"), "sealed");
}

#[test]
fn one_edge_has_a_certificate_made_and_any_edge_shows_the_authority_its_text() {
    one_order(true);
}

#[test]
fn one_edge_has_a_certificate_made_and_any_edge_proves_it_in_a_handshake() {
    one_order(false);
}

/// A name that clients ask for has one certificate at all edges, whichever is asked first.
#[test]
fn what_one_edge_has_had_made_on_demand_the_others_use() {
    let (upstream, redis, places) = (upstream(), Redis::start(), Places::new());
    let pebble = PebbleSetup::looking_at(places.clear[2], places.tls[2]);
    let tables = format!(
        "{}secret_file = \"secret\"\n{}[acme.on_demand]\nnames = [\"*.customers.test\"]\n",
        redis.table(),
        pebble.table()
    );
    let pebble = pebble.start();
    let root = pebble.root();
    let mut edges = [0, 1, 2].map(|number| {
        let setup = setup(&upstream, &tables).listener(places.clear[number], "");
        let edge = start(&setup.listener(places.tls[number], "on_demand = true"));
        until_in_touch(&edge);
        edge
    });
    // The authority looks at the third, which shows what the first is asked for.
    for number in [0, 1, 2] {
        wait::until("a client is served", || {
            let curl = Curl::tls_to("a.customers.test", places.tls[number], &root, "/page");
            curl.start().result().ok().filter(|answer| answer.status == 200)
        });
    }
    assert_eq!(edges.iter_mut().map(made).sum::<usize>(), 1, "one of them had it made");
    let kept = |edge: &Edge| {
        let mut homes = fs::read_dir(edge.folder().join("certs/acme")).unwrap();
        let home = homes.next().unwrap().unwrap().path();
        fs::read_to_string(home.join("on-demand/a.customers.test.pem")).unwrap()
    };
    assert!(edges.iter().all(|edge| kept(edge) == kept(&edges[0])), "all have the same");
}
