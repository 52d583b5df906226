//! A visitor with a browser.

use gatehouse_tests::{address, binaries::build_folder, browser::Browser, edge::Edge, load, shop};

/// A first visit may cost this much, everything counted as it came over the wire.
const FIRST_LOAD_BYTES: u64 = 500_000;

#[test]
fn a_browser_loads_the_shop_over_http_2_and_follows_a_product() {
    let shop = shop::start();
    let mut browser = Browser::start();
    browser.open(&url(&shop, "/"));
    browser.wait_until("document.querySelectorAll('#shelf a[href^=\"/product/\"] img').length >= 8");
    browser.screenshot(&build_folder().join("screenshots/home.png"));
    let first_load = browser.bytes_received();
    assert!(first_load > 0 && first_load < FIRST_LOAD_BYTES, "the first load costs {first_load} bytes");

    browser.follow("#shelf a[href^=\"/product/\"]");
    browser.wait_until("document.querySelector('#product')?.getAttribute('aria-busy') !== 'true'");
    browser
        .wait_until("[...document.querySelectorAll('#product img')].some(image => image.naturalWidth > 0)");
    let heading = browser.evaluate("document.querySelector('#product h1')?.textContent ?? ''");
    assert!(
        heading.as_str().is_some_and(|text| !text.trim().is_empty()),
        "the product has a name: {heading}"
    );
    browser.screenshot(&build_folder().join("screenshots/product.png"));

    let loaded = browser.loaded();
    assert!(loaded.len() >= 10, "{loaded:#?}");
    for response in &loaded {
        assert_eq!(response.protocol, "h2", "{response:?}");
        assert!(response.status < 400, "{response:?}");
    }
    for kind in ["Document", "Script", "Stylesheet", "Image"] {
        assert!(loaded.iter().any(|response| response.kind == kind), "no {kind} among {loaded:#?}");
    }
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

#[test]
fn every_kind_of_page_works_without_a_complaint() {
    let shop = shop::start();
    let mut browser = Browser::start();
    browser.open(&url(&shop, "/"));
    browser.wait_until("document.querySelectorAll('#tiles a').length >= 12");
    browser.follow("#tiles a");
    browser.wait_until("document.querySelectorAll('#shelf a[href^=\"/product/\"]').length > 0");
    browser.screenshot(&build_folder().join("screenshots/category.png"));
    browser.open(&url(&shop, "/search?q=kettle"));
    browser.wait_until("document.querySelectorAll('#shelf a[href^=\"/product/\"]').length > 0");
    browser.open(&url(&shop, "/search?q=nothing-is-called-so"));
    browser.wait_until("document.querySelector('#shelf')?.textContent.trim().length > 0");
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

#[test]
fn a_page_that_is_opened_in_clear_text_is_shown_over_tls_and_load_tests_are_answered() {
    let tls = address::own();
    // The redirect names the port of the settings, and the host that it was asked by.
    let shop = shop::start_with(|demo| {
        let both = shop::replace(&demo, "\"127.0.0.1:0\"", &format!("\"{}:0\"", tls.ip()));
        both.replacen(&format!("\"{}:0\"\ntls", tls.ip()), &format!("\"{tls}\"\ntls"), 1)
    });
    let path = "/category/kitchen?stock=in&sort=price_asc";
    let mut browser = Browser::start();
    browser.open(&format!("http://{}{path}", shop.clear()));
    browser.wait_until("document.querySelectorAll('#shelf .card').length > 0");
    assert_eq!(browser.evaluate("location.href"), format!("https://{tls}{path}"));
    let loaded = browser.loaded();
    let page: Vec<&str> =
        loaded.iter().filter(|one| one.kind == "Document").map(|one| &*one.protocol).collect();
    assert_eq!(page.last(), Some(&"h2"), "{loaded:#?}");
    assert!(loaded.iter().all(|one| one.kind == "Document" || one.url.starts_with("https:")), "{loaded:#?}");

    // For this once, and for pages alone: what is posted, or asked for by a program, is answered where it is asked.
    let page = "Upgrade-Insecure-Requests: 1";
    let moved = shop.curl(path).header(page).send();
    assert_eq!((moved.status, moved.must("location")), (307, &*format!("https://{tls}{path}")));
    assert_eq!(shop.curl_h2(path).header(page).send().status, 200);
    // It is refused for what it lacks.
    assert_eq!(shop.curl("/api/orders").header(page).post("POST", "{}").send().status, 400);
    for path in ["/api/products", "/", path] {
        let load = load::ab(shop.clear(), path, 200, 200);
        assert_eq!((load.complete, load.failed, load.not_2xx), (200, 0, 0), "{path}: {load:?}");
    }
}

fn url(shop: &Edge, path: &str) -> String {
    format!("https://localhost:{}{path}", shop.tls().port())
}
