//! Customers with a browser: one registers, orders, cancels and signs out; and what is one's own stays one's own.

use std::collections::BTreeSet;

use gatehouse_tests::{
    binaries::build_folder,
    browser::Browser,
    curl::{Answer, Curl},
    edge::Edge,
    origin::{Account, PASSWORD},
    shop,
};
use serde_json::json;

/// What a whole visit may cost, from the front page to the goodbye, everything counted as it came over the wire.
const VISIT_BYTES: u64 = 500_000;

#[test]
fn a_customer_registers_orders_once_cancels_and_signs_out() {
    let shop = shop::start();
    let browser = &mut Browser::start();
    browser.open(&url(&shop, "/"));
    browser.wait_until("document.querySelectorAll('#shelf .card .add').length > 0");
    let personal = ["account", "fields", "customer", "cart-page", "checkout", "orders", "buy", "suggest"]
        .map(str::to_owned);
    let loaded = scripts(browser);
    assert!(loaded.contains("shop") && loaded.contains("home"), "{loaded:?}");
    assert!(personal.iter().all(|script| !loaded.contains(script)), "the front page needs none: {loaded:?}");

    register(browser, &shop, "ada@example.org", "Ada");
    assert_eq!(browser.text("#title"), "Hello, Ada");
    browser.screenshot(&build_folder().join("screenshots/account.png"));

    // One piece from the shelf, one from the product's page, one more in the cart.
    browser.open(&url(&shop, "/category/kitchen"));
    browser.wait_until("document.querySelector(`.own a[href='/account']`).textContent === 'Ada'");
    browser.click(".card:has(.add) .add");
    browser.wait_until("document.querySelector('#pieces span').textContent === '1'");
    let page = browser.evaluate("document.querySelector('.card:has(.add) a').getAttribute('href')");
    let slug = page.as_str().unwrap().strip_prefix("/product/").unwrap().to_owned();
    let price = shop.get(&format!("/api/products/{slug}")).json()["price_cents"].as_i64().unwrap();
    let before = stock(browser, &slug);
    browser.follow(".card:has(.add) a");
    browser.click(".buy .button");
    browser.wait_until("document.querySelector('.buy .told').textContent.startsWith('Added: 2')");
    browser.follow(".buy .told a");
    browser.click(".line .quantity button:last-child");
    let total = format!("€{}.{:02}", price * 3 / 100, price * 3 % 100);
    browser.wait_until(&format!("document.querySelector('.total .price').textContent === {}", json!(total)));
    browser.wait_until("document.querySelector('.action .button')?.textContent === 'Place the order'");
    browser.screenshot(&build_folder().join("screenshots/cart.png"));

    // A double click, and by script: faster than any hand.
    browser.evaluate(
        "(() => { const button = document.querySelector('.action .button'); button.click(); button.click() })()",
    );
    browser.wait_until("document.querySelector('#title').textContent === 'Thank you'");
    assert_eq!(stock(browser, &slug), before - 3);
    browser.follow(".notice a[href='/orders']");
    browser.wait_until("document.querySelectorAll('.orders summary').length === 1");
    assert_eq!(browser.text(".orders summary .price"), total);
    assert_eq!(browser.text(".orders summary .label"), "Placed");
    browser.click(".orders summary");
    browser.click(".offer .button");
    browser.screenshot(&build_folder().join("screenshots/orders.png"));
    browser.click(".offer .grave");
    browser.wait_until("document.querySelector('.orders summary .label').textContent === 'Cancelled'");
    assert_eq!(stock(browser, &slug), before, "the pieces are back on the shelf");

    let outcomes = order_twice_at_once(browser, &slug);
    assert_eq!(outcomes, ["fulfilled", "rejected"], "one cart is one order");
    assert_eq!(stock(browser, &slug), before - 1);
    browser.open(&url(&shop, "/orders"));
    browser.wait_until("document.querySelectorAll('.orders summary').length === 2");

    sign_out(browser, &shop);
    browser.open(&url(&shop, "/orders"));
    browser.wait_until("document.querySelector(`.own a[href='/account']`).textContent === 'Account'");
    browser.wait_until("document.querySelector('#orders a[href^=\"/account\"]') !== null");
    assert_eq!(browser.evaluate("document.querySelectorAll('.orders summary').length"), 0);
    // The next one at the same browser finds nothing of what it may have kept.
    register(browser, &shop, "bob@example.org", "Bob");
    browser.open(&url(&shop, "/orders"));
    browser.wait_until("document.querySelector('#orders .notice a')?.getAttribute('href') === '/'");

    let loaded = browser.loaded();
    for response in &loaded {
        assert!(response.status < 400 && response.protocol == "h2", "{response:?}");
    }
    let bytes = browser.bytes_received();
    assert!(bytes > 0 && bytes < VISIT_BYTES, "the visit costs {bytes} bytes");
    assert!(personal[..7].iter().all(|script| scripts(browser).contains(script)), "{loaded:#?}");
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

#[test]
fn no_page_runs_what_somebody_has_injected() {
    const INJECT: &str = "(() => {
        window.injected = 'nothing';
        for (const inject of [
            () => { document.body.setAttribute('onclick', 'window.injected = 1'); document.body.click() },
            () => { const made = document.createElement('script'); made.append('window.injected = 2'); document.body.append(made) },
        ]) try { inject() } catch { /* refused even before it could run */ }
        return window.injected;
    })()";
    let shop = shop::start();
    let browser = &mut Browser::start();
    assert_eq!(browser.evaluate(INJECT), 2, "an empty page without a policy runs it");
    for path in ["/", "/category/kitchen", "/product/harbour-enamel-kettle", "/cart", "/account", "/orders"] {
        let page = shop.curl_h2(path).send();
        let policy = page.must("content-security-policy");
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{path}: {policy}");
        browser.open(&url(&shop, path));
        assert_eq!(browser.evaluate(INJECT), "nothing", "{path}");
    }
}

#[test]
fn what_is_one_customers_own_is_never_stored_nor_given_to_another() {
    let shop = shop::start();
    let [ada, bob] =
        ["ada@example.org", "bob@example.org"].map(|email| Account::register(shop.clear(), email));
    let product = shop.get("/api/products?limit=1").json()["products"][0]["id"].clone();
    let placed = ada
        .send(
            shop.clear(),
            "POST",
            "/api/orders",
            &json!({ "lines": [{ "product_id": product, "quantity": 1 }] }),
        )
        .header("Idempotency-Key: one")
        .send();
    assert_eq!(placed.status, 201, "{placed:#?}");
    let order = format!("/api/orders/{}", placed.json()["id"]);

    let [by_ada, by_bob, by_nobody]: [&dyn Fn(&str) -> Curl; 3] =
        [&|path| ada.curl(shop.clear(), path), &|path| bob.curl(shop.clear(), path), &|path| shop.curl(path)];
    // Each asked twice in turn: what had been stored for one would come back to the next.
    for _ in 0..2 {
        let own = |request: Curl| {
            let answer = request.send();
            assert!(!answer.is_hit(), "{answer:#?}");
            assert!(answer.must("cache-control").contains("no-store"), "{answer:#?}");
            answer
        };
        assert_eq!(own(by_ada("/api/session")).json()["user"]["email"], "ada@example.org");
        assert_eq!(own(by_bob("/api/session")).json()["user"]["email"], "bob@example.org");
        assert!(own(by_nobody("/api/session")).json()["user"].is_null());
        let orders = |answer: &Answer| answer.json()["orders"].as_array().map(Vec::len);
        assert_eq!(orders(&own(by_ada("/api/orders"))), Some(1));
        assert_eq!(orders(&own(by_bob("/api/orders"))), Some(0));
        assert_eq!(own(by_nobody("/api/orders")).status, 401);
        let statuses = [by_ada, by_bob, by_nobody].map(|by| own(by(&order)).status);
        assert_eq!(statuses, [200, 404, 401]);
    }
    // What is the same for everybody is so to the letter, and sets no cookie.
    for path in ["/", "/cart", "/account", "/orders", "/api/categories", "/api/products?limit=5"] {
        let answers = [by_ada, by_bob, by_nobody].map(|by| by(path).send());
        for answer in &answers {
            assert_eq!((answer.status, &answer.body), (200, &answers[2].body), "{path}");
            assert!(answer.header("set-cookie").is_none(), "{path}: {answer:#?}");
        }
        if path.starts_with("/api/") {
            assert!(answers[1].is_hit(), "one copy serves both: {:#?}", answers[1]);
        } else {
            assert!(answers[1].must("cache-control").contains("no-cache"), "{path}: {:#?}", answers[1]);
        }
    }
}

/// Makes an account, on the page for it.
#[track_caller]
fn register(browser: &mut Browser, shop: &Edge, email: &str, name: &str) {
    browser.open(&url(shop, "/account"));
    browser.fill("form:has([name=name]) [name=email]", email);
    browser.fill("form:has([name=name]) [name=name]", name);
    browser.fill("form:has([name=name]) [name=password]", PASSWORD);
    browser.click("form:has([name=name]) .button");
    browser.wait_until("document.querySelector('#title').textContent.startsWith('Hello')");
}

#[track_caller]
fn sign_out(browser: &mut Browser, shop: &Edge) {
    browser.open(&url(shop, "/account"));
    browser.click("#account button");
    browser.wait_until("document.querySelector('#title').textContent === 'You are signed out'");
}

/// Puts one piece into the cart and orders the cart twice at the same time, as two windows do; what became of the two.
#[track_caller]
fn order_twice_at_once(browser: &mut Browser, slug: &str) -> [String; 2] {
    let loaded = browser.loaded();
    let module = |name: &str| {
        let found = loaded.iter().find(|response| script(&response.url) == Some(name));
        json!(found.expect("the cart's page has loaded it").url)
    };
    let outcomes = browser.evaluate(&format!(
        "(async () => {{
            const {{ add, lines, totals }} = await import({});
            const {{ order }} = await import({});
            const ask = (path) => fetch(path).then((answer) => answer.json());
            add(await ask({}), 1, 1);
            const {{ user }} = await ask('/api/session');
            const both = [1, 2].map(() => order(user.id, totals(lines())));
            return (await Promise.allSettled(both)).map(({{ status }}) => status).sort();
        }})()",
        module("cart"),
        module("checkout"),
        json!(format!("/api/products/{slug}")),
    ));
    serde_json::from_value(outcomes).unwrap()
}

/// How many pieces of a product there are, asked anew.
#[track_caller]
fn stock(browser: &mut Browser, slug: &str) -> i64 {
    let path = json!(format!("/api/products/{slug}/stock"));
    let stock =
        browser.evaluate(&format!("fetch({path}, {{ cache: 'no-cache' }}).then((answer) => answer.json())"));
    stock["stock"].as_i64().unwrap()
}

/// Names of the scripts that have come so far, without their hashes.
fn scripts(browser: &Browser) -> BTreeSet<String> {
    browser.loaded().iter().filter_map(|response| script(&response.url)).map(str::to_owned).collect()
}

/// `cart-page` of `https://localhost:8443/assets/cart-page-0123456789.js`.
fn script(url: &str) -> Option<&str> {
    Some(url.rsplit('/').next()?.strip_suffix(".js")?.rsplit_once('-')?.0)
}

fn url(shop: &Edge, path: &str) -> String {
    format!("https://localhost:{}{path}", shop.tls().port())
}
