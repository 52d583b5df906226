//! Certificates that the edge has made by an authority: Let's Encrypt's own, for tests of clients.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use gatehouse_tests::{
    address,
    curl::Curl,
    edge::{Edge, Setup},
    folder::Folder,
    pebble::{Pebble, PebbleSetup},
    stub_authority::StubAuthority,
    upstream::{Reply, Upstream},
    wait,
};

fn upstream() -> Upstream {
    Upstream::start(|seen| Reply::ok(seen.target.clone()).cache_control("no-store"))
}

/// Where the edge serves `shop.test`.
struct Shop {
    clear: SocketAddr,
    tls: SocketAddr,
}

impl Shop {
    fn new() -> Self {
        Self { clear: address::own(), tls: address::own() }
    }

    fn setup(&self, upstream: &Upstream, acme: &str) -> Setup {
        let setup = Edge::over(upstream).listener(self.clear, "").tables(acme);
        setup.listener(self.tls, "domain = \"shop.test\"")
    }

    fn curl(&self, root: &Path, path: &str) -> Curl {
        Curl::tls_to("shop.test", self.tls, root, path)
    }

    fn until_believed(&self, pebble: &Pebble) {
        let root = pebble.root();
        wait::until("a client that believes the authority is served", || {
            self.curl(&root, "/page").start().result().ok().filter(|answer| answer.status == 200)
        });
    }
}

fn made(edge: &mut Edge) -> usize {
    edge.process().lines().iter().filter(|line| line.contains("a certificate was made")).count()
}

#[test]
fn a_domain_is_all_that_is_written() {
    let (upstream, shop) = (upstream(), Shop::new());
    let pebble = PebbleSetup::looking_at(shop.clear, shop.tls).refused_nonces(20);
    let acme = pebble.table();
    let pebble = pebble.start();
    let mut edge = shop.setup(&upstream, &acme).start();
    shop.until_believed(&pebble);
    wait::until("it is told", || (made(&mut edge) == 1).then_some(()));
    let metrics = edge.metrics();
    let counted = "gatehouse_edge_certificate_orders_total{name=\"shop.test\",outcome=\"made\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(
        metrics.lines().any(|line| line.contains("certificate_expires") && line.contains("shop.test.pem"))
    );
    // What is kept is the edge's alone.
    let home = fs::read_dir(edge.folder().join("certs/acme")).unwrap().next().unwrap().unwrap().path();
    let mut kept: Vec<String> = Vec::new();
    for file in fs::read_dir(&home).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        kept.push(file.file_name().into_string().unwrap());
    }
    kept.sort();
    assert_eq!(kept, ["account.json", "shop.test.pem"], "no order is left open");
    // Clear text for the name leads to https; for others it is served as before.
    let clear = |host: &str| Curl::clear(shop.clear, "/page?a=1").header(&format!("Host: {host}")).send();
    let redirected = clear("shop.test");
    assert!(redirected.status == 308 || redirected.status == 301, "{redirected:?}");
    let there = format!("https://shop.test:{}/page?a=1", shop.tls.port());
    assert_eq!(redirected.must("location"), there);
    assert_eq!(clear("other.test").status, 200);
    // Where no proof lies the path is one as any other.
    let nothing = Curl::clear(shop.clear, "/.well-known/acme-challenge/x").header("Host: other.test").send();
    assert_eq!(nothing.text(), "/.well-known/acme-challenge/x");
    // Another start has no other made.
    let before = fs::read(home.join("shop.test.pem")).unwrap();
    let mut edge = edge.restart();
    shop.until_believed(&pebble);
    assert_eq!((made(&mut edge), fs::read(home.join("shop.test.pem")).unwrap()), (0, before));
    let secrets = ["PRIVATE KEY", "key_pkcs8"];
    assert!(edge.process().lines().iter().all(|line| !secrets.iter().any(|secret| line.contains(secret))));
}

#[test]
fn what_fails_is_told_with_the_remedy_and_the_other_way_is_tried() {
    let (upstream, shop, nobody) = (upstream(), Shop::new(), address::own());
    let pebble = PebbleSetup::looking_at(nobody, shop.tls);
    let acme = pebble.table();
    let pebble = pebble.start();
    let setup = shop.setup(&upstream, &acme);
    let mut edge = setup.start();
    edge.process().wait_for_line("what to do", |line| {
        let told = line.contains("no certificate for shop.test") && line.contains("port 80 be reachable");
        told.then_some(())
    });
    assert_eq!(
        shop.curl(Path::new("/dev/null"), "/page").argument("-k").send().status,
        200,
        "it serves meanwhile"
    );
    // The next attempt, which a reload brings forward, is by a handshake (RFC 8737).
    edge.reload(&setup.text());
    shop.until_believed(&pebble);
    let metrics = edge.metrics();
    for (outcome, count) in [("made", 1), ("failed", 1)] {
        let line = format!("certificate_orders_total{{name=\"shop.test\",outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[test]
fn the_edge_serves_while_the_authority_is_away() {
    let (upstream, shop) = (upstream(), Shop::new());
    let pebble = PebbleSetup::looking_at(shop.clear, shop.tls);
    let setup = shop.setup(&upstream, &pebble.table());
    let mut edge = setup.start();
    edge.process().wait_for_line("that it cannot be asked", |line| {
        line.contains("the authority cannot be asked").then_some(())
    });
    for protocol in ["--http1.1", "--http2"] {
        let served = shop.curl(Path::new("/dev/null"), "/page").argument("-k").argument(protocol).send();
        assert_eq!(served.status, 200);
    }
    let pebble = pebble.start();
    edge.reload(&setup.text());
    shop.until_believed(&pebble);
}

#[test]
fn a_certificate_is_renewed_in_time_and_served_at_once() {
    let (upstream, shop) = (upstream(), Shop::new());
    let pebble = PebbleSetup::looking_at(shop.clear, shop.tls).validity(16);
    let acme = pebble.table();
    let pebble = pebble.start();
    let mut edge = shop.setup(&upstream, &acme).start();
    for certificates in 1..=3 {
        wait::until("one more certificate was made", || (made(&mut edge) >= certificates).then_some(()));
        shop.until_believed(&pebble);
    }
}

/// What Pebble does not do: an account that is bound to the operator's own, a profile, and a renewal when the authority would
/// have it, by an order that names what it replaces.
#[test]
fn the_authoritys_account_profile_and_time_of_renewal_are_kept_to() {
    let (upstream, shop) = (upstream(), Shop::new());
    let authority = StubAuthority::start("brief");
    let (id, key) = StubAuthority::ACCOUNT;
    let folder = Folder::new();
    folder.write("eab.key", &BASE64.encode(key));
    let eab = format!("eab = {{ key_id = {id:?}, key_file = {:?} }}", folder.path().join("eab.key"));
    let acme = authority.table(&format!("profile = \"brief\"\n{eab}"));
    let mut edge = shop.setup(&upstream, &acme).start();
    wait::until("the certificate was renewed at once", || (made(&mut edge) == 2).then_some(()));
    wait::until("it is known when the next is due", || (authority.asked().renewals.len() == 2).then_some(()));
    let asked = authority.asked();
    assert_eq!(asked.accounts, [id]);
    let first = asked.renewals[0].clone();
    let brief = || Some("brief".to_owned());
    assert_eq!(asked.orders, [(brief(), None), (brief(), Some(first.clone()))]);
    assert_ne!(asked.renewals[1], first, "it is asked of the new one");
    // Another start asks by the same account, and has nothing made before its time.
    let mut edge = edge.restart();
    wait::until("it is asked again", || (authority.asked().renewals.len() == 3).then_some(()));
    assert_eq!(
        (made(&mut edge), authority.asked().orders.len(), authority.asked().accounts.len()),
        (0, 2, 1)
    );
}

#[test]
fn an_authority_that_wants_its_own_account_is_told_of_with_the_remedy() {
    let (upstream, shop) = (upstream(), Shop::new());
    let authority = StubAuthority::start("brief");
    let mut edge = shop.setup(&upstream, &authority.table("")).start();
    edge.process().wait_for_line("what to do", |line| {
        line.contains("get a key id and a key from the authority, and write `eab` in [acme]").then_some(())
    });
    assert!(authority.asked().orders.is_empty());
}
