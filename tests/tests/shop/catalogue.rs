//! The catalogue comes out of PostgreSQL and is cached, coded and limited by the edge, as `config/demo.toml` says.

use gatehouse_tests::{curl::Answer, edge::Edge, shop, wait};
use serde_json::Value;

#[test]
fn the_catalogue_is_cached_coded_and_validated() {
    let shop = shop::start();
    let miss = shop.curl_h2("/api/products?limit=5").send();
    assert_eq!(miss.status, 200, "{miss:#?}");
    assert!(!miss.is_hit());
    assert_eq!(miss.json()["products"].as_array().unwrap().len(), 5);
    for directive in ["public", "max-age=300"] {
        assert!(miss.must("cache-control").contains(directive), "{miss:#?}");
    }
    let hit = shop.curl_h2("/api/products?limit=5").send();
    assert!(hit.is_hit(), "{hit:#?}");
    assert_eq!(hit.body, miss.body);
    for coding in ["gzip", "br", "zstd"] {
        let coded = shop.curl_h2("/api/products?limit=5").coding(coding).send();
        assert_eq!((coded.header("content-encoding"), &coded.body), (Some(coding), &miss.body));
        let condition = format!("If-None-Match: {}", coded.must("etag"));
        assert_eq!(
            shop.curl_h2("/api/products?limit=5").coding(coding).header(&condition).send().status,
            304
        );
    }
}

#[test]
fn every_product_is_reached_by_following_the_cursor_once() {
    let shop = shop::start();
    let mut slugs: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = products(&shop, &format!("limit=100{cursor}"));
        slugs.extend(page["products"].as_array().unwrap().iter().map(|product| text(&product["slug"])));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let count = slugs.len();
    slugs.sort();
    slugs.dedup();
    let categories = shop.get("/api/categories").json();
    let categories = categories["categories"].as_array().unwrap();
    assert!(categories.len() >= 12, "{categories:?}");
    let on_sale: u64 = categories.iter().map(|category| category["product_count"].as_u64().unwrap()).sum();
    assert_eq!((slugs.len() as u64, count as u64), (on_sale, on_sale), "each product on sale, and each once");
    assert!(on_sale > 500, "the seeded catalogue: {on_sale}");
    let product = shop.get(&format!("/api/products/{}", slugs[0])).json();
    assert_eq!(text(&product["slug"]), slugs[0]);
    assert!(product["price_cents"].as_i64().unwrap() > 0, "money is whole cents: {product}");
}

#[test]
fn what_is_not_there_and_what_is_wrong_are_problems() {
    let shop = shop::start();
    shop.get("/api/products/no-such-thing").assert_problem(404);
    shop.get("/api/no-such-resource").assert_problem(404);
    shop.get("/api/products?limit=1000000").assert_problem(400);
    shop.get("/api/products?cursor=forged").assert_problem(400);
}

#[test]
fn assets_are_kept_for_a_year_and_pages_are_validated() {
    let shop = shop::start();
    let page = shop.curl_h2("/").send();
    assert_eq!(page.status, 200, "{page:#?}");
    assert!(page.must("cache-control").contains("no-cache"), "{page:#?}");
    let again = shop.curl_h2("/").header(&format!("If-None-Match: {}", page.must("etag"))).send();
    assert_eq!((again.status, again.body.len()), (304, 0));

    let assets = asset_paths(&page);
    assert!(assets.len() >= 3, "{assets:?}");
    for path in &assets {
        let _ = shop.curl_h2(path).send();
        let asset = shop.curl_h2(path).send();
        assert!(asset.is_hit(), "{path}: {asset:#?}");
        assert_eq!(asset.all("cache-control"), ["public, max-age=31536000, immutable"], "{path}");
    }
    let missing = shop.curl_h2("/assets/none-0123456789.js").send();
    assert_eq!(missing.status, 404);
    assert!(
        !missing.must("cache-control").contains("31536000"),
        "an error is never kept for a year: {missing:#?}"
    );
}

#[test]
fn the_demo_limits_each_client_of_the_api_and_no_page() {
    let shop = shop::start_with(|demo| {
        let slower = shop::replace(&demo, "rate = \"50/s\"", "rate = \"1/s\"");
        shop::replace(&slower, "burst = 250", "burst = 5")
    });
    let refused = wait::until("the limit is reached", || {
        Some(shop.get("/api/categories")).filter(|answer| answer.status == 429)
    });
    refused.assert_problem(429);
    for _ in 0..10 {
        assert_eq!(shop.get("/").status, 200);
    }
}

fn products(shop: &Edge, query: &str) -> Value {
    let answer = shop.get(&format!("/api/products?{query}"));
    assert_eq!(answer.status, 200, "{answer:#?}");
    answer.json()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn asset_paths(page: &Answer) -> Vec<String> {
    let html = page.text();
    // `srcset` names several, each with its width.
    let paths = html.split(['"', ' ', ',']).filter(|part| part.starts_with("/assets/"));
    let mut paths: Vec<String> = paths.map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    paths
}
