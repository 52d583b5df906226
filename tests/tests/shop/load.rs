//! What the capacity guide asks of the shop: two hundred at once, and no error.

use gatehouse_tests::{load, shop};

#[test]
fn two_hundred_visitors_at_once_see_the_shop() {
    let shop = shop::start();
    let page = load::ab(shop.clear(), "/", 200, 200);
    assert_eq!((page.complete, page.failed, page.not_2xx), (200, 0, 0), "{page:?}");
    let assets = shop.curl_h2("/").send().text();
    let script = assets.split('"').find(|part| part.starts_with("/assets/") && part.contains(".js")).unwrap();
    for path in ["/", script] {
        let load = load::h2load(shop.tls(), path, 2_000, 200, 4);
        assert_eq!((load.complete, load.failed, load.not_2xx), (2_000, 0, 0), "{path}: {load:?}");
    }
}
