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
    upstream::{Gate, Reply, Upstream},
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

/// The account that the stub authority knows, as settings, and the folder with its key.
fn bound_account() -> (Folder, String) {
    let (id, key) = StubAuthority::ACCOUNT;
    let folder = Folder::new();
    folder.write("eab.key", &BASE64.encode(key));
    let eab = format!("eab = {{ key_id = {id:?}, key_file = {:?} }}", folder.path().join("eab.key"));
    (folder, eab)
}

/// What Pebble does not do: an account that is bound to the operator's own, a profile, and a renewal when the authority would
/// have it, by an order that names what it replaces.
#[test]
fn the_authoritys_account_profile_and_time_of_renewal_are_kept_to() {
    let (upstream, shop) = (upstream(), Shop::new());
    let authority = StubAuthority::start("brief");
    let (_folder, eab) = bound_account();
    let acme = authority.table(&format!("profile = \"brief\"\n{eab}"));
    let mut edge = shop.setup(&upstream, &acme).start();
    wait::until("the certificate was renewed at once", || (made(&mut edge) == 2).then_some(()));
    wait::until("it is known when the next is due", || (authority.asked().renewals.len() == 2).then_some(()));
    let asked = authority.asked();
    assert_eq!(asked.accounts, [StubAuthority::ACCOUNT.0]);
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

/// Where the edge serves whatever names clients ask for, as far as `on_demand` permits.
fn on_demand(shop: &Shop, upstream: &Upstream, tables: &str) -> Setup {
    let setup = Edge::over(upstream).listener(shop.clear, "").tables(tables);
    setup.listener(shop.tls, "on_demand = true")
}

fn at(shop: &Shop, name: &str, root: &Path) -> Curl {
    Curl::tls_to(name, shop.tls, root, "/page")
}

/// How often names were denied for a reason.
fn denied(edge: &Edge, reason: &str) -> u64 {
    edge.metric(&format!("gatehouse_edge_on_demand_denied_total{{reason={reason:?}}}"))
}

#[test]
fn the_first_client_that_asks_for_a_name_of_the_list_waits_for_its_certificate() {
    let (upstream, shop) = (upstream(), Shop::new());
    let pebble = PebbleSetup::looking_at(shop.clear, shop.tls).refused_nonces(20);
    let tables =
        format!("{}[acme.on_demand]\nnames = [\"shop.test\", \"*.customers.test\"]\n", pebble.table());
    let pebble = pebble.start();
    let mut edge = on_demand(&shop, &upstream, &tables).start();
    let root = pebble.root();
    // One who asks is enough: he waits, and gets it.
    let several: Vec<_> = (0..3).map(|_| at(&shop, "a.customers.test", &root).start()).collect();
    for client in several {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(at(&shop, "shop.test", &root).h2().send().status, 200);
    // Others make nobody do anything.
    for other in ["customers.test", "a.b.customers.test", "other.test", "localhost"] {
        let _ = at(&shop, other, Path::new("/dev/null")).argument("-k").fail();
    }
    assert_eq!((made(&mut edge), denied(&edge, "unlisted"), denied(&edge, "no-name")), (2, 3, 1));
    assert_eq!(edge.metric("gatehouse_edge_on_demand_certificates"), 2);
    let metrics = edge.metrics();
    let counted = "gatehouse_edge_certificate_orders_total{name=\"on demand\",outcome=\"made\"} 2";
    assert!(metrics.contains(counted), "clients choose no labels: {metrics}");
    // Clear text for names of the list leads to https.
    let clear = |host: &str| Curl::clear(shop.clear, "/page").header(&format!("Host: {host}")).send();
    assert_eq!(
        clear("b.customers.test").must("location"),
        format!("https://b.customers.test:{}/page", shop.tls.port())
    );
    assert_eq!(clear("other.test").status, 200);
    // Another start has the same, and asks nobody.
    let orders =
        |pebble: &Pebble| pebble.lines().iter().filter(|line| line.contains("POST /order-plz")).count();
    let before = orders(&pebble);
    let mut edge = edge.restart();
    assert_eq!(at(&shop, "a.customers.test", &root).send().status, 200);
    assert_eq!((made(&mut edge), orders(&pebble)), (0, before));
    assert!(before > 0, "pebble tells of orders");
}

#[test]
fn a_certificate_on_demand_is_renewed_when_a_client_asks_for_it_and_ends_when_nobody_does() {
    let (upstream, shop) = (upstream(), Shop::new());
    let pebble = PebbleSetup::looking_at(shop.clear, shop.tls).validity(16);
    let tables = format!("{}[acme.on_demand]\nnames = [\"*.customers.test\"]\n", pebble.table());
    let pebble = pebble.start();
    let mut edge = on_demand(&shop, &upstream, &tables).start();
    let root = pebble.root();
    for name in ["a.customers.test", "b.customers.test"] {
        assert_eq!(at(&shop, name, &root).send().status, 200);
    }
    wait::until("one of them is renewed, since it is asked for", || {
        assert_eq!(at(&shop, "a.customers.test", &root).send().status, 200, "all the time");
        (made(&mut edge) >= 5).then_some(())
    });
    let kept = edge.folder().join("certs/acme");
    let kept = fs::read_dir(kept).unwrap().next().unwrap().unwrap().path().join("on-demand");
    // Nobody has asked for the other, which has ended by now. Its file stays: the clock may be wrong.
    let file = kept.join("b.customers.test.pem");
    let ended = fs::read(&file).unwrap();
    let _edge = edge.restart();
    assert_eq!(at(&shop, "a.customers.test", &root).send().status, 200);
    assert_eq!(fs::read(&file).unwrap(), ended);
    assert_eq!(at(&shop, "b.customers.test", &root).send().status, 200, "it is had anew for who asks");
    assert_ne!(fs::read(&file).unwrap(), ended);
}

/// The operator's program is asked once for each name, and its word holds for a while; names that are none it never hears of.
#[test]
fn a_name_of_no_list_is_asked_about_and_stays_within_bounds() {
    let (upstream, shop) = (upstream(), Shop::new());
    let authority = StubAuthority::start("brief");
    let (_folder, eab) = bound_account();
    let ask = Upstream::start(|seen| match &*seen.target {
        "/may?token=1&domain=yes.test" | "/may?token=1&domain=also.test" => Reply::ok(""),
        "/may?token=1&domain=moved.test" => Reply::status(302).header("location", "/yes"),
        "/may?token=1&domain=silent.test" => Reply::hang_up(),
        _ => Reply::status(404),
    });
    let tables = format!(
        "{}[acme.on_demand]\nask = \"http://{}/may?token=1\"\ncertificates = 1\n",
        authority.table(&eab),
        ask.address()
    );
    let mut edge = on_demand(&shop, &upstream, &tables).start();
    let nobody = Path::new("/dev/null");
    let fails = |name: &str| at(&shop, name, nobody).argument("-k").fail();
    for _ in 0..2 {
        for name in ["no.test", "moved.test", "silent.test"] {
            let _ = fails(name);
        }
    }
    assert_eq!(ask.count(), 3, "its word is remembered");
    assert_eq!(
        (denied(&edge, "not-approved"), denied(&edge, "not-answered"), denied(&edge, "resting")),
        (2, 1, 3)
    );
    edge.process().wait_for_line("who does not answer", |line| {
        line.contains("does not say whether silent.test may have a certificate").then_some(())
    });
    // An address is no name, and neither is what no authority certifies.
    for name in [&*shop.tls.ip().to_string(), "intranet", "a_b.test"] {
        let _ = fails(name);
    }
    assert_eq!((ask.count(), authority.asked().orders.len()), (3, 0));
    assert_eq!(at(&shop, "yes.test", nobody).argument("-k").send().status, 200);
    assert_eq!(at(&shop, "YES.test", nobody).argument("-k").send().status, 200);
    assert_eq!(
        (ask.count(), authority.asked().orders.len()),
        (4, 1),
        "it is there, and nobody is asked again"
    );
    let _ = fails("also.test");
    assert_eq!((ask.count(), authority.asked().orders.len(), denied(&edge, "certificates")), (5, 1, 1));
    edge.process()
        .wait_for_line("what to do", |line| line.contains("certificates = 1 is reached").then_some(()));
    // A start with what is kept asks nobody.
    let edge = edge.restart();
    assert_eq!(at(&shop, "yes.test", nobody).argument("-k").send().status, 200);
    assert_eq!((ask.count(), authority.asked().orders.len()), (5, 1));
    assert_eq!(edge.metric("gatehouse_edge_on_demand_certificates"), 1);
}

/// A thousand names lead here of somebody who has no business here: who is served already notices nothing, and few are asked about.
#[test]
fn names_without_end_take_nothing_from_who_has_a_certificate() {
    let (upstream, shop) = (upstream(), Shop::new());
    let gate = Gate::closed();
    let held = gate.clone();
    let ask = Upstream::start(move |_| Reply::status(404).after(&held));
    let tables = format!("[acme.on_demand]\nask = \"http://{}/\"\n", ask.address());
    let edge = on_demand(&shop, &upstream, &tables).start();
    let waiting: Vec<_> = (0..80)
        .map(|number| at(&shop, &format!("{number}.test"), Path::new("/dev/null")).argument("-k").start())
        .collect();
    wait::until("more than may wait have come", || (denied(&edge, "busy") >= 16).then_some(()));
    // Eight at once, each for 5 s.
    assert!(ask.count() <= 24, "{} are asked about", ask.count());
    assert_eq!(edge.curl_tls("/page").send().status, 200, "another listener's clients, at once");
    gate.open();
    for client in waiting {
        assert!(client.result().is_err());
    }
    assert!(ask.count() <= 64, "{} were asked about", ask.count());
}
