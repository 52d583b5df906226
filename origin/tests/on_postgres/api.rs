//! The interface, asked through the router.

use std::{collections::BTreeSet, time::Duration};

use axum::{Router, body::Body};
use http::{Method, Request, StatusCode};
use origin::settings::DatabaseSettings;
use serde_json::{Value, json as value};
use sqlx::Connection as _;

use crate::{
    requests::{Customer, get, get_if_none_match, send},
    test_server::TestServer,
};

const CATALOGUE: &str = "public, max-age=300, s-maxage=600, stale-while-revalidate=60, stale-if-error=86400";
const PAGE: &str = "public, max-age=0, s-maxage=600, stale-if-error=86400";
const KETTLE: &str = "/api/products/harbour-enamel-kettle";

/// Follows `next_cursor` to the end; the slugs in the order they came.
async fn walk(router: &Router, query: &str) -> Vec<String> {
    let mut slugs = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = get(router, &format!("/api/products?{query}{cursor}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}{cursor}");
        let page = answer.json();
        let products = page["products"].as_array().expect("a list of products");
        slugs.extend(products.iter().map(|product| product["slug"].as_str().expect("a slug").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return slugs,
        }
    }
}

#[tokio::test]
async fn walking_the_pages_shows_every_product_exactly_once() {
    let server = TestServer::start(400).await;
    let mut connection = server.connect().await;
    // Ties in every sort key, longer than a page.
    sqlx::query(
        "UPDATE products SET created_at = date_trunc('month', created_at), price_cents = price_cents / 5000 * 5000,
                name = left(name, 8)",
    )
    .execute(&mut connection)
    .await
    .expect("an update");
    let router = server.router();
    for (filter, condition) in [
        ("", "true"),
        ("category=kitchen&", "category_id = (SELECT id FROM categories WHERE slug = 'kitchen')"),
        ("search=handle&", "description LIKE '%handle%'"),
        ("search=handle&category=kitchen&", "description LIKE '%handle%' AND category_id = 1"),
    ] {
        for (sort, order) in [
            ("newest", "created_at DESC, id DESC"),
            ("price_asc", "price_cents, id"),
            ("price_desc", "price_cents DESC, id DESC"),
            ("name", "name COLLATE \"C\", id"),
        ] {
            let sql = format!("SELECT slug FROM products WHERE active AND {condition} ORDER BY {order}");
            let expected: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_all(&mut connection)
                .await
                .expect("the products");
            assert!(expected.len() > 7, "{filter} finds too little to fill a page");
            assert_eq!(
                walk(&router, &format!("{filter}sort={sort}&limit=7")).await,
                expected,
                "{filter}{sort}"
            );
        }
    }
}

#[tokio::test]
async fn a_known_tag_is_answered_304_before_the_heavy_query() {
    let server = TestServer::start(60).await;
    let router = server.router();
    let runs = async |query: &str| {
        let metrics = get(&router, "/metrics").await;
        let text = String::from_utf8(metrics.body).expect("metrics are text");
        let name = format!("origin_query_duration_seconds_count{{query=\"{query}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&name))
            .map_or(0, |count| count.parse::<u64>().expect("a count"))
    };
    for (uri, heavy, light) in [
        ("/api/products?sort=name&limit=5", "products.list", "catalogue.version"),
        ("/api/products?category=kitchen", "products.list_category", "catalogue.version"),
        ("/api/products?search=kettle", "products.search", "catalogue.version"),
        ("/api/categories", "categories.list", "catalogue.version"),
        (KETTLE, "products.show", "products.version"),
    ] {
        let first = get(&router, uri).await;
        assert_eq!((first.status, runs(heavy).await), (StatusCode::OK, 1), "{uri}");
        let tag = first.header("etag");
        let light_before = runs(light).await;

        let weak = format!("\"other\", W/{tag}");
        for condition in [tag, weak.as_str()] {
            let again = get_if_none_match(&router, uri, condition).await;
            assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{uri}");
            assert!(again.body.is_empty());
            assert_eq!((again.header("etag"), again.header("cache-control")), (tag, CATALOGUE));
        }
        assert_eq!((runs(heavy).await, runs(light).await), (1, light_before + 2), "{uri}");

        assert_eq!(get_if_none_match(&router, uri, "\"other\"").await.status, StatusCode::OK, "{uri}");
        assert_eq!(get_if_none_match(&router, uri, "*").await.status, StatusCode::NOT_MODIFIED, "{uri}");
    }
}

#[tokio::test]
async fn tags_change_with_what_is_shown_and_only_then() {
    let server = TestServer::start(60).await;
    let router = server.router();
    let mut connection = server.connect().await;
    let other: String = sqlx::query_scalar(
        "SELECT min(p.slug) FROM products p JOIN categories c ON c.id = p.category_id
          WHERE p.active AND c.slug = 'kitchen' AND p.slug <> 'harbour-enamel-kettle'",
    )
    .fetch_one(&mut connection)
    .await
    .expect("another kitchen thing");
    let other = format!("/api/products/{other}");
    let tags = async || {
        let mut tags = Vec::new();
        for uri in ["/api/products", "/api/categories", KETTLE, &other] {
            tags.push(get(&router, uri).await.header("etag").to_owned());
        }
        tags
    };
    let mut before = tags().await;
    for (change, changed) in [
        // [list, categories, the product, another product]
        ("UPDATE products SET stock = stock - 1 WHERE slug = $1", [false, false, false, false]),
        ("UPDATE products SET stock = 0 WHERE slug = $1", [true, true, true, false]),
        ("UPDATE products SET price_cents = 4200 WHERE slug = $1", [true, true, true, false]),
        ("UPDATE products SET price_cents = 4200 WHERE slug = $1", [false, false, false, false]),
        (
            "UPDATE categories SET name = 'Cooking' WHERE slug = 'kitchen' AND $1 <> ''",
            [true, true, true, true],
        ),
        (
            "UPDATE products SET active = false
              WHERE slug = (SELECT max(slug) FROM products WHERE active AND category_id = 3 AND slug <> $1)",
            [true, true, false, false],
        ),
    ] {
        let done = sqlx::query(change)
            .bind("harbour-enamel-kettle")
            .execute(&mut connection)
            .await
            .expect("an update");
        assert_eq!(done.rows_affected(), 1, "{change}");
        let after = tags().await;
        let differs: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before != after).collect();
        assert_eq!(differs, changed, "{change}");
        before = after;
    }
}

#[tokio::test]
async fn a_change_that_is_rolled_back_leaves_the_version_as_it_was() {
    let server = TestServer::start(12).await;
    let mut connection = server.connect().await;
    let version = "SELECT version FROM catalogue_state";
    let before: i64 = sqlx::query_scalar(version).fetch_one(&mut connection).await.expect("a version");
    let mut transaction = connection.begin().await.expect("a transaction");
    sqlx::query("UPDATE products SET price_cents = 1").execute(&mut *transaction).await.expect("an update");
    transaction.rollback().await.expect("a rollback");
    sqlx::query("UPDATE products SET price_cents = 2").execute(&mut connection).await.expect("an update");
    let after: i64 = sqlx::query_scalar(version).fetch_one(&mut connection).await.expect("a version");
    assert_eq!(after, before + 1, "one transaction raises it once, whatever the number of rows");
}

#[tokio::test]
async fn answers_have_the_documented_members() {
    let server = TestServer::start(240).await;
    let router = server.router();
    let members =
        |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();

    let categories = get(&router, "/api/categories").await.json();
    assert_eq!(categories["categories"].as_array().map(Vec::len), Some(12));
    assert_eq!(members(&categories["categories"][0]), named(&["id", "slug", "name", "product_count"]));
    let offered: i64 = sqlx::query_scalar("SELECT count(*) FROM products WHERE active")
        .fetch_one(&mut server.connect().await)
        .await
        .expect("a count");
    let counted: i64 = categories["categories"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|category| category["product_count"].as_i64().expect("a count"))
        .sum();
    assert_eq!(counted, offered);

    let list = get(&router, "/api/products").await.json();
    assert_eq!(list["products"].as_array().map(Vec::len), Some(24));
    let listed = ["id", "slug", "name", "category", "price_cents", "currency", "image", "in_stock"];
    assert_eq!(members(&list["products"][0]), named(&listed));
    assert_eq!(list["products"][0]["slug"], "harbour-enamel-kettle");

    let product = get(&router, KETTLE).await.json();
    let detail = [&listed[..], &["category_name", "description", "version"]].concat();
    assert_eq!(members(&product), named(&detail));
    assert_eq!((&product["category"], &product["category_name"]), (&"kitchen".into(), &"Kitchen".into()));
    assert_eq!(members(&get(&router, &format!("{KETTLE}/stock")).await.json()), named(&["stock"]));
    let image = product["image"].as_str().expect("an address");
    let picture = get(&router, image).await;
    assert_eq!((picture.status, picture.header("content-type")), (StatusCode::OK, "image/webp"));

    let head = send(&router, Request::head(KETTLE).body(Body::empty()).expect("a request")).await;
    assert_eq!(head.status, StatusCode::OK);
    assert!(
        head.body.is_empty()
            && head.header("content-length").parse::<usize>().is_ok_and(|length| length > 100)
    );
}

#[tokio::test]
async fn refusals_are_problems_that_nobody_stores() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let long = "a".repeat(101);
    for (method, uri, status, name) in [
        (Method::GET, "/api/products?cursor=AAAA", 400, "invalid-cursor"),
        // A cursor for another sort: `name:1:ab`.
        (Method::GET, "/api/products?cursor=bmFtZToxOmFi", 400, "invalid-cursor"),
        (Method::GET, "/api/products?sort=cheapest", 400, "invalid-request"),
        (Method::GET, "/api/products?limit=0", 400, "invalid-request"),
        (Method::GET, "/api/products?limit=101", 400, "invalid-request"),
        (Method::GET, "/api/products?limit=-1", 400, "invalid-request"),
        (Method::GET, "/api/products?category=Not%20one", 400, "invalid-request"),
        (Method::GET, "/api/products?category=kitchen&category=bath", 400, "invalid-request"),
        (Method::GET, "/api/products?colour=red", 400, "invalid-request"),
        (Method::GET, "/api/products?search=a%00b", 400, "invalid-request"),
        (Method::GET, &format!("/api/products?search={long}"), 400, "invalid-request"),
        (Method::GET, "/api/categories?x=1", 400, "invalid-request"),
        (Method::GET, &format!("{KETTLE}?x=1"), 400, "invalid-request"),
        (Method::GET, "/api/products?category=unknown", 404, "not-found"),
        (Method::GET, "/api/products/unknown", 404, "not-found"),
        (Method::GET, "/api/products/%00", 404, "not-found"),
        (Method::GET, "/api/products/%FF", 404, "not-found"),
        (Method::GET, "/api", 404, "not-found"),
        (Method::GET, "/api/unknown/path", 404, "not-found"),
        (Method::DELETE, "/api/products", 405, "method-not-allowed"),
    ] {
        let request =
            Request::builder().method(method).uri(uri).body(Body::empty()).expect("a valid request");
        let answer = send(&router, request).await;
        assert_eq!(answer.status.as_u16(), status, "{uri}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{uri}");
        assert_eq!(answer.header("cache-control"), "no-store", "{uri}");
        let problem = answer.json();
        assert_eq!(problem["type"], format!("urn:gatehouse:problem:{name}"), "{uri}");
        assert_eq!(problem["status"], status, "{uri}");
    }
}

#[tokio::test]
async fn every_answer_states_its_caching() {
    let server = TestServer::start(12).await;
    let router = server.router();
    for (uri, status, caching) in [
        ("/api/categories", 200, CATALOGUE),
        ("/api/products", 200, CATALOGUE),
        ("/api/products?search=nothing-like-it", 200, CATALOGUE),
        (KETTLE, 200, CATALOGUE),
        ("/livez", 200, "no-store"),
        ("/readyz", 200, "no-store"),
        ("/metrics", 200, "no-store"),
        ("/", 200, PAGE),
        ("/category/kitchen?stock=in", 200, PAGE),
        ("/product/harbour-enamel-kettle", 200, PAGE),
        ("/search?q=kettle", 200, PAGE),
        ("/cart", 200, PAGE),
        ("/category/Kitchen", 301, PAGE),
        ("/category/nothing", 404, "no-store"),
        ("/product/nothing", 404, "no-store"),
        ("/category/kitchen?cursor=forged", 404, "no-store"),
        ("/robots.txt", 200, CATALOGUE),
        ("/sitemap.xml", 200, CATALOGUE),
        ("/sitemap/products-0.xml", 200, CATALOGUE),
        ("/sitemap/products-7.xml", 404, "no-store"),
        ("/nowhere", 404, "no-store"),
    ] {
        let answer = get(&router, uri).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (status, caching), "{uri}");
    }
}

/// Every path that a GET answers, with parameters filled in: those of the API from its own description.
async fn paths(router: &Router) -> Vec<String> {
    let description = get(router, "/api/openapi.json").await.json();
    let described = description["paths"].as_object().expect("paths");
    let readable = described.iter().filter(|(_, operations)| operations.get("get").is_some());
    let mut paths: Vec<String> = readable
        .map(|(path, _)| path.replace("{slug}", "harbour-enamel-kettle").replace("{id}", "1"))
        .collect();
    assert!(paths.len() >= 7, "{paths:?}");
    let beside = [
        "/api/openapi.json",
        "/",
        "/category/kitchen",
        "/product/harbour-enamel-kettle",
        "/search",
        "/assets/favicon.svg",
        "/livez",
        "/readyz",
        "/metrics",
    ];
    paths.extend(beside.map(str::to_owned));
    paths
}

#[tokio::test]
async fn what_may_be_stored_says_for_how_long_until_which_purge_and_nothing_of_who_asks() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let customer = Customer::register(&router, "ada@example.org").await;
    let order = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    customer.send(Method::POST, "/api/orders", &[("idempotency-key", "k1")], &order).await;
    let mut stored = 0;
    for path in paths(&router).await {
        let (anonymous, own) = (get(&router, &path).await, customer.get(&path).await);
        for answer in [&anonymous, &own] {
            let control = answer.header("cache-control");
            assert!(!control.is_empty(), "{path} leaves its caching to guesswork");
            assert!(answer.status.is_success() || control == "no-store", "{path}");
            assert!(control == "no-store" || !answer.headers.contains_key("set-cookie"), "{path}");
        }
        if anonymous.header("cache-control") == "no-store" {
            continue;
        }
        stored += 1;
        assert_eq!(
            (own.status, &own.body),
            (anonymous.status, &anonymous.body),
            "{path} depends on who asks"
        );
        assert_ne!(anonymous.header("surrogate-key"), "", "{path} can be stored and not be purged");
        let again = get_if_none_match(&router, &path, anonymous.header("etag")).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!(again.header("surrogate-key"), anonymous.header("surrogate-key"), "{path}");
    }
    assert!(stored >= 9, "only {stored} can be stored");
    for (path, tags) in [
        ("/api/categories", "catalogue"),
        ("/api/products?search=kettle", "catalogue"),
        ("/api/products?category=kitchen", "category-kitchen"),
        (KETTLE, "product-1 category-kitchen"),
        ("/api/products/harbour-enamel-kettle/stock", "product-1"),
        ("/", "catalogue categories storefront"),
        ("/category/kitchen", "category-kitchen categories storefront"),
        ("/product/harbour-enamel-kettle", "product-1 category-kitchen categories storefront"),
        ("/cart", "storefront"),
    ] {
        assert_eq!(get(&router, path).await.header("surrogate-key"), tags, "{path}");
    }
}

#[tokio::test]
async fn a_sale_changes_the_stock_answer_and_not_the_product() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let stock = "/api/products/harbour-enamel-kettle/stock";
    let (product, before) = (get(&router, KETTLE).await, get(&router, stock).await);
    assert_eq!(before.header("cache-control"), "public, max-age=5");
    sqlx::query("UPDATE products SET stock = stock - 1 WHERE id = 1")
        .execute(&mut server.connect().await)
        .await
        .expect("a sale");
    let after = get(&router, stock).await;
    assert_eq!(after.json()["stock"].as_i64(), before.json()["stock"].as_i64().map(|stock| stock - 1));
    assert_ne!(after.header("etag"), before.header("etag"));
    assert_eq!(get(&router, KETTLE).await.header("etag"), product.header("etag"));
}

#[tokio::test]
async fn a_full_pool_is_a_503_that_says_when_to_come_back() {
    let server = TestServer::start(12).await;
    let settings = DatabaseSettings {
        max_connections: 1,
        // Enough to connect on a busy machine.
        acquire_timeout: Duration::from_millis(500),
        // Longer than the pool's patience, shorter than a test's.
        statement_timeout: Duration::from_secs(2),
        ..DatabaseSettings::default()
    };
    let router = server.router_with(&settings);
    assert_eq!(get(&router, KETTLE).await.status, StatusCode::OK);

    let mut locker = server.connect().await;
    let mut lock = locker.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE products IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("the lock");
    // The first holds the only connection until its statement times out; the second does not get it.
    let (first, second) = tokio::join!(get(&router, KETTLE), get(&router, KETTLE));
    for answer in [first, second] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((answer.header("retry-after"), answer.header("cache-control")), ("1", "no-store"));
        assert_eq!(answer.json()["type"], "urn:gatehouse:problem:unavailable");
    }
    lock.rollback().await.expect("the lock goes");
    assert_eq!(get(&router, KETTLE).await.status, StatusCode::OK, "the connection is usable again");
}

#[tokio::test]
async fn readiness_follows_the_database() {
    let mut server = TestServer::start(12).await;
    let settings =
        DatabaseSettings { acquire_timeout: Duration::from_millis(100), ..DatabaseSettings::default() };
    let router = server.router_with(&settings);
    assert_eq!(get(&router, "/readyz").await.status, StatusCode::OK);

    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 3")
        .execute(&mut server.connect().await)
        .await
        .expect("gone");
    let answer = get(&router, "/readyz").await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (StatusCode::SERVICE_UNAVAILABLE, "no-store")
    );

    let private = server.private.take();
    tokio::task::spawn_blocking(move || drop(private)).await.expect("a clean stop");
    assert_eq!(get(&router, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&router, "/api/products").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&router, "/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_description_is_the_one_that_is_written_down() {
    let server = TestServer::start(1).await;
    let served = get(&server.router(), "/api/openapi.json").await.json();
    let written = include_str!("../../openapi.json");
    assert!(
        origin::server::description() == written,
        "the interface has changed: look at `git diff` after `target/release/origin openapi > origin/openapi.json`"
    );
    assert_eq!(served, serde_json::from_str::<Value>(written).expect("JSON"));
    // Generators of clients name their functions by these, so each operation has one of its own.
    let paths = served["paths"].as_object().expect("paths").values().filter_map(Value::as_object);
    let mut names: Vec<_> =
        paths.flat_map(|path| path.values()).map(|it| it["operationId"].as_str()).collect();
    let operations = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), operations, "each operation has a name of its own: {names:?}");
}
