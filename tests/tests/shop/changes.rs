//! What an administrator changes is what everybody reads through the edge, from the moment the edge has heard of it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use gatehouse_tests::{
    address,
    curl::{Answer, Curl},
    edge::{Edge, Setup},
    origin::{self, Account, Origin},
    shop,
    upstream::{Gate, Reply, Upstream},
    wait,
};
use serde_json::{Value, json};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";
const KITCHEN: &str = "/api/products?category=kitchen&limit=100";
/// Dearest first: what costs as much as the shop allows is on the first page.
const DEAREST: &str = "/api/products?sort=price_desc&limit=5";
const MILLION: i64 = 100_000_000;
/// As the demo has it for the catalogue.
const CATALOGUE: &str = r#"path = "/api/*"
cache = { max_ttl = "10m", stale_while_revalidate = "60s", stale_if_error = "1d", ignore_cookies = true }"#;

#[test]
fn once_the_edge_has_heard_of_a_change_nobody_reads_the_old_product_again() {
    let shop = shop::start_with(|demo| shop::replace(&demo, "rate = \"50/s\"", "rate = \"5000/s\""));
    let administrator = administrator(&shop);
    for path in [KETTLE, KITCHEN, DEAREST] {
        let _ = shop.until_hit(path);
    }
    let (told, over) = (AtomicBool::new(false), AtomicBool::new(false));
    // What readers see who read all the time: a price, and whether the edge had been told before they asked.
    let read = |path: &'static str| {
        let (shop, told, over) = (&shop, &told, &over);
        move || {
            let mut seen = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let told = told.load(Ordering::SeqCst);
                seen.push((told, price_of_kettle(&shop.get(path))));
            }
            seen
        }
    };
    let seen: Vec<(bool, i64)> = thread::scope(|scope| {
        let readers = [KETTLE, KITCHEN].map(|path| scope.spawn(read(path)));
        let reading = Until(&over);
        change(&administrator, &shop, &json!({ "price_cents": MILLION }));
        until_told(&shop);
        told.store(true, Ordering::SeqCst);
        for path in [KETTLE, KITCHEN, DEAREST] {
            assert_eq!(price_of_kettle(&shop.until_hit(path)), MILLION, "{path}");
        }
        drop(reading);
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    let (later, before): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(told, _)| *told);
    assert!(!later.is_empty() && !before.is_empty(), "they read before and after: {before:?} {later:?}");
    assert!(later.iter().all(|(_, price)| *price == MILLION), "{later:?}");
}

#[test]
fn a_new_product_reaches_the_lists_that_are_cached_already() {
    let shop = shop::start();
    let administrator = administrator(&shop);
    let before = [KITCHEN, DEAREST, "/api/categories"].map(|path| shop.until_hit(path));
    let new = json!({ "slug": "golden-kettle", "name": "Golden Kettle", "category": "kitchen", "price_cents": MILLION });
    let created = administrator.send(shop.clear(), "POST", "/api/products", &new).send();
    assert_eq!(created.status, 201, "{created:#?}");
    until_told(&shop);
    for list in [KITCHEN, DEAREST] {
        assert!(slugs(&shop.get(list)).contains("golden-kettle"), "{list}");
    }
    let count = |answer: &Answer| {
        let categories = answer.json()["categories"].as_array().unwrap().clone();
        categories.iter().find(|category| category["slug"] == "kitchen").unwrap()["product_count"]
            .as_i64()
            .unwrap()
    };
    assert_eq!(count(&shop.get("/api/categories")), count(&before[2]) + 1);
}

#[test]
fn an_edge_that_was_killed_hears_what_changed_meanwhile_and_the_other_need_not_wait_for_it() {
    let admins = [address::own(), address::own()];
    let origin = Origin::start(&format!(
        "seed_when_empty = 60\n[purge]\nedges = [\"http://{}\", \"http://{}\"]\n",
        admins[0], admins[1]
    ));
    let [mut killed, other] =
        admins.map(|admin| Setup::over_address(origin.address()).admin(admin).route(CATALOGUE).start());
    let administrator = Account::register(origin.address(), "admin@example.org");
    origin.promote(&administrator.email);
    for edge in [&killed, &other] {
        let _ = edge.until_hit(KETTLE);
    }
    killed.kill();
    change_at(&administrator, origin.curl(KETTLE), origin.address(), &json!({ "price_cents": MILLION }));
    wait::until("the edge that runs has the new price", || {
        (price_of_kettle(&other.get(KETTLE)) == MILLION).then_some(())
    });
    assert!(origin.untold() > 0, "what the other has not heard is kept for it");

    let back = killed.restart();
    wait::until("the edge that was killed has heard it", || (origin.untold() == 0).then_some(()));
    for edge in [&back, &other] {
        assert_eq!(price_of_kettle(&edge.until_hit(KETTLE)), MILLION);
    }
}

#[test]
fn a_change_that_was_committed_is_told_though_the_origin_was_killed_before_it_could() {
    // Between the origin and the edge's admin address: keeps every purge to itself until it is open.
    let admin = address::own();
    let (open, never) = (Arc::new(AtomicBool::new(false)), Gate::closed());
    let is_open = Arc::clone(&open);
    let between = Upstream::start(move |seen| match is_open.load(Ordering::SeqCst) {
        false => Reply::ok("").after(&never),
        true => {
            let purge = Curl::clear(admin, "/purge").header("Content-Type: application/json");
            Reply::status(purge.post("POST", seen.body.to_vec()).send().status)
        }
    });
    let mut origin = Origin::start(&format!(
        "seed_when_empty = 60\n[purge]\nedges = [\"http://{}\"]\n",
        between.address()
    ));
    let edge = Setup::over_address(origin.address()).admin(admin).route(CATALOGUE).start();
    let administrator = Account::register(origin.address(), "admin@example.org");
    origin.promote(&administrator.email);
    let old = price_of_kettle(&edge.until_hit(KETTLE));
    change_at(&administrator, origin.curl(KETTLE), origin.address(), &json!({ "price_cents": MILLION }));
    between.wait_for(1);
    origin.kill();
    assert_eq!(price_of_kettle(&edge.get(KETTLE)), old, "nobody has told the edge yet");

    open.store(true, Ordering::SeqCst);
    origin.start_again();
    wait::until("the edge has heard it", || (origin.untold() == 0).then_some(()));
    assert_eq!(price_of_kettle(&edge.get(KETTLE)), MILLION);
    assert!(origin.metric("origin_purge_delay_seconds_count") >= 1.0, "the delay is a metric");
}

/// Ends the readers, also when the test fails before it would.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Somebody who may change the catalogue of the whole shop.
fn administrator(shop: &Edge) -> Account {
    let administrator = Account::register(shop.clear(), "admin@example.org");
    origin::promote(shop.folder(), &administrator.email);
    administrator
}

/// Through the edge, to the version that the edge shows.
#[track_caller]
fn change(administrator: &Account, shop: &Edge, change: &Value) {
    change_at(administrator, shop.curl(KETTLE), shop.clear(), change);
}

#[track_caller]
fn change_at(administrator: &Account, read: Curl, address: SocketAddr, change: &Value) {
    let version = format!("If-Match: {}", read.send().must("etag"));
    let changed = administrator.send(address, "PATCH", KETTLE, change).header(&version).send();
    assert_eq!(changed.status, 200, "{changed:#?}");
}

#[track_caller]
fn until_told(shop: &Edge) {
    wait::until("the edge has heard of every change", || (origin::untold(shop.folder()) == 0).then_some(()));
}

/// In the product's own answer, or in a list that shows it.
#[track_caller]
fn price_of_kettle(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 200, "{answer:#?}");
    let json = answer.json();
    let in_list = json["products"]
        .as_array()
        .and_then(|products| products.iter().find(|product| product["slug"] == "harbour-enamel-kettle"));
    in_list.unwrap_or(&json)["price_cents"].as_i64().unwrap_or_else(|| panic!("no kettle in {json}"))
}

fn slugs(answer: &Answer) -> HashSet<String> {
    let json = answer.json();
    let products = json["products"].as_array().unwrap_or_else(|| panic!("no list: {json}"));
    products.iter().map(|product| product["slug"].as_str().unwrap().to_owned()).collect()
}
