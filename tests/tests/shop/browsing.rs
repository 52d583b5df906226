//! A visitor with a browser.

use gatehouse_tests::{binaries::build_folder, browser::Browser, edge::Edge, shop};

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

fn url(shop: &Edge, path: &str) -> String {
    format!("https://localhost:{}{path}", shop.tls().port())
}
