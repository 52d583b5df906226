//! What administrators change, and how the edges hear of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::Router;
use http::{Method, StatusCode};
use origin::{
    activity_log::ActivityLog,
    common_memory::CommonMemory,
    database::Database,
    observe::Metrics,
    replicas::Reads,
    settings::{PurgeSettings, Settings},
    traces::Tracer,
    workers::{Shared, Workers},
};
use serde_json::{Value, json as value};
use sqlx::Connection as _;

use crate::{
    PATIENCE,
    edge_double::{EVERYTHING, EdgeDouble},
    requests::{Customer, get, json, send_json},
    test_server::TestServer,
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";

/// Workers that tell these edges.
fn workers(server: &TestServer, edges: &[&EdgeDouble]) -> Workers {
    workers_of(server, edges, false)
}

fn workers_of(server: &TestServer, edges: &[&EdgeDouble], one_for_all: bool) -> Workers {
    let list: Vec<String> = edges.iter().map(|edge| format!("http://{}", edge.address)).collect();
    let purge: PurgeSettings =
        serde_json::from_value(value!({ "edges": list, "token": "secret", "one_for_all": one_for_all }))
            .expect("settings");
    let settings = Settings { purge, ..Settings::default() };
    let metrics = Arc::new(Metrics::new(settings.database.slow_query));
    let (_, writer) = ActivityLog::new(Arc::clone(&metrics));
    let database = Database::new(server.options.clone(), &settings.database, Arc::clone(&metrics));
    let reads = Reads::new(database, Vec::new(), Duration::from_secs(1), None);
    let tracer = Tracer::default();
    let shared =
        Shared { activity: writer, memory: CommonMemory::default(), reads, metrics, tracer, exporter: None };
    Workers::start(server.options.clone(), &settings, shared)
}

async fn waiting(server: &TestServer) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM outbox")
        .fetch_one(&mut server.connect().await)
        .await
        .expect("a count")
}

async fn until_told(server: &TestServer) {
    let told = async { while waiting(server).await > 0 {} };
    tokio::time::timeout(PATIENCE, told).await.expect("the outbox empties");
}

async fn patch(customer: &Customer, slug: &str, body: &Value) -> crate::requests::Answer {
    let tag = get(&customer.router, slug).await.header("etag").to_owned();
    customer.send(Method::PATCH, slug, &[("if-match", &tag)], body).await
}

async fn shop() -> (TestServer, Router, Customer) {
    let server = TestServer::start(60).await;
    let router = server.router();
    let administrator = Customer::administrator(&server, &router).await;
    (server, router, administrator)
}

#[tokio::test]
async fn a_change_is_told_to_every_edge_with_the_tags_of_what_showed_it() {
    let (server, router, administrator) = shop().await;
    let (mut one, mut other) = (EdgeDouble::start().await, EdgeDouble::start().await);
    let workers = workers(&server, &[&one, &other]);
    for (body, tags) in [
        (value!({ "price_cents": 4200 }), &["catalogue", "category-kitchen", "product-1"][..]),
        (
            value!({ "category": "garden" }),
            &["catalogue", "category-garden", "category-kitchen", "product-1"],
        ),
        (value!({ "image": null, "name": "Kettle" }), &["catalogue", "category-garden", "product-1"]),
    ] {
        let answer = patch(&administrator, KETTLE, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!((one.purged().await, other.purged().await), (tags.to_vec(), tags.to_vec()).map_strings());
    }
    let product = get(&router, KETTLE).await.json();
    assert_eq!((&product["price_cents"], &product["category"]), (&4200.into(), &"garden".into()));
    assert!(product["image"].is_null());
    until_told(&server).await;
    workers.stop().await;
}

trait MapStrings {
    fn map_strings(self) -> (Vec<String>, Vec<String>);
}

impl MapStrings for (Vec<&str>, Vec<&str>) {
    fn map_strings(self) -> (Vec<String>, Vec<String>) {
        let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
        (owned(self.0), owned(self.1))
    }
}

#[tokio::test]
async fn an_edge_that_was_away_hears_it_when_it_is_back() {
    let (server, _, administrator) = shop().await;
    let (mut steady, mut shaky) = (EdgeDouble::start().await, EdgeDouble::start().await);
    shaky.answer(503);
    let first = workers(&server, &[&steady, &shaky]);
    assert_eq!(patch(&administrator, KETTLE, &value!({ "price_cents": 1 })).await.status, StatusCode::OK);
    assert_eq!(steady.purged().await.len(), 3);
    assert_eq!(shaky.next().await.0, 503);

    // The edge is gone altogether, and the worker with it.
    let address = shaky.address;
    drop(shaky);
    first.stop().await;
    assert_eq!(patch(&administrator, KETTLE, &value!({ "price_cents": 2 })).await.status, StatusCode::OK);
    let mut shaky = EdgeDouble::start_on(address).await;
    let second = workers(&server, &[&steady, &shaky]);
    assert_eq!(shaky.purged().await, ["catalogue", "category-kitchen", "product-1"]);
    assert_eq!(steady.purged().await, ["catalogue", "category-kitchen", "product-1"]);
    until_told(&server).await;
    second.stop().await;
}

#[tokio::test]
async fn what_an_edge_misses_while_it_is_away_becomes_one_purge() {
    let (server, _, _) = shop().await;
    let (mut steady, mut away) = (EdgeDouble::start().await, EdgeDouble::start().await);
    away.answer(503);
    let change = async |products: std::ops::RangeInclusive<i32>| {
        sqlx::query(
            "INSERT INTO outbox (topic, payload)
             SELECT 'purge', jsonb_build_object('tags', jsonb_build_array('product-' || number))
               FROM generate_series($1, $2) AS number",
        )
        .bind(products.start())
        .bind(products.end())
        .execute(&mut server.connect().await)
        .await
        .expect("changes");
    };
    let one_is_left = async || {
        let one = async { while waiting(&server).await > 1 {} };
        tokio::time::timeout(PATIENCE, one).await.expect("they become one");
    };
    let workers = workers(&server, &[&steady, &away]);
    for (products, told) in [(1..=500, 500), (501..=1_001, 501)] {
        change(products).await;
        let mut heard = BTreeSet::new();
        while heard.len() < told {
            heard.extend(steady.purged().await);
        }
        one_is_left().await;
    }
    away.answer(200);
    assert_eq!(away.purged().await, [EVERYTHING], "so many are not named one by one");
    until_told(&server).await;
    workers.stop().await;
}

#[tokio::test]
async fn a_purge_is_found_by_polling_where_no_notification_comes() {
    let (server, _, administrator) = shop().await;
    sqlx::query("ALTER TABLE outbox DISABLE TRIGGER outbox_wakes_its_worker")
        .execute(&mut server.connect().await)
        .await
        .expect("no more notifications");
    let mut edge = EdgeDouble::start().await;
    let workers = workers(&server, &[&edge]);
    assert_eq!(patch(&administrator, KETTLE, &value!({ "price_cents": 3 })).await.status, StatusCode::OK);
    assert_eq!(edge.purged().await.len(), 3);
    workers.stop().await;
}

#[tokio::test]
async fn what_another_worker_has_taken_holds_nobody_up_and_is_left_to_it() {
    let (server, _, administrator) = shop().await;
    let mut edge = EdgeDouble::start().await;
    assert_eq!(patch(&administrator, KETTLE, &value!({ "price_cents": 4 })).await.status, StatusCode::OK);
    let mut connection = server.connect().await;
    let mut another = connection.begin().await.expect("a transaction");
    sqlx::query("SELECT id FROM outbox FOR UPDATE").execute(&mut *another).await.expect("taken");
    let second: String = sqlx::query_scalar("SELECT slug FROM products WHERE id = 2")
        .fetch_one(&mut *another)
        .await
        .expect("a product");
    let second = format!("/api/products/{second}");
    assert_eq!(patch(&administrator, &second, &value!({ "price_cents": 4 })).await.status, StatusCode::OK);

    let workers = workers(&server, &[&edge]);
    let tags = edge.purged().await;
    assert!(tags.contains(&"product-2".to_owned()) && !tags.contains(&"product-1".to_owned()), "{tags:?}");
    // The worker ends without having told anybody: what it had taken is left to the next one.
    another.rollback().await.expect("gone");
    assert!(edge.purged().await.contains(&"product-1".to_owned()));
    until_told(&server).await;
    workers.stop().await;
}

#[tokio::test]
async fn what_is_rolled_back_or_changes_nothing_is_told_to_nobody() {
    let (server, router, administrator) = shop().await;
    let tag = get(&router, KETTLE).await.header("etag").to_owned();
    for (fields, body, status, name) in [
        (&[][..], value!({ "name": "X" }), 428, "precondition-required"),
        (&[("if-match", "\"other\"")], value!({ "name": "X" }), 412, "precondition-failed"),
        (&[("if-match", &*format!("W/{tag}"))], value!({ "name": "X" }), 412, "precondition-failed"),
        (&[("if-match", &*tag)], value!({ "name": "" }), 422, "invalid-fields"),
        (&[("if-match", &*tag)], value!({ "category": "nowhere" }), 422, "invalid-fields"),
        (&[("if-match", &*tag)], value!({ "image": "unicorn-1" }), 422, "invalid-fields"),
        (&[("if-match", &*tag)], value!({ "stock": 5 }), 422, "invalid-fields"),
        // Null is not "as it is": that is leaving it out.
        (&[("if-match", &*tag)], value!({ "name": null }), 422, "invalid-fields"),
        (&[("if-match", &*tag)], value!({ "price_cents": null }), 422, "invalid-fields"),
        (&[("if-match", &*tag)], value!({ "active": null }), 422, "invalid-fields"),
    ] {
        let answer = administrator.send(Method::PATCH, KETTLE, fields, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{fields:?} {body}");
        assert_eq!(answer.json()["type"], format!("urn:gatehouse:problem:{name}"));
    }
    assert_eq!(patch(&administrator, KETTLE, &value!({})).await.status, StatusCode::OK);
    assert_eq!(waiting(&server).await, 0);
    assert_eq!(get(&router, KETTLE).await.header("etag"), tag);
}

#[tokio::test]
async fn of_two_changes_to_one_version_the_second_is_refused() {
    let (_server, router, administrator) = shop().await;
    let tag = get(&router, KETTLE).await.header("etag").to_owned();
    let fields = [("if-match", tag.as_str())];
    let first = administrator.send(Method::PATCH, KETTLE, &fields, &value!({ "price_cents": 10 })).await;
    let second = administrator.send(Method::PATCH, KETTLE, &fields, &value!({ "price_cents": 20 })).await;
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::PRECONDITION_FAILED));
    let shown = get(&router, KETTLE).await;
    assert_eq!((shown.header("etag"), &shown.json()["price_cents"]), (first.header("etag"), &10.into()));
}

#[tokio::test]
async fn products_come_go_and_are_restocked() {
    let (server, router, administrator) = shop().await;
    let new =
        value!({ "slug": "red-kettle", "name": "Red Kettle", "category": "kitchen", "price_cents": 500 });
    let made = administrator.send(Method::POST, "/api/products", &[], &new).await;
    assert_eq!((made.status, made.header("location")), (StatusCode::CREATED, "/api/products/red-kettle"));
    let again = administrator.send(Method::POST, "/api/products", &[], &new).await;
    assert_eq!(again.json()["type"], "urn:gatehouse:problem:slug-taken");
    let homeless = value!({ "slug": "x", "name": "X", "category": "nowhere", "price_cents": 5 });
    let homeless = administrator.send(Method::POST, "/api/products", &[], &homeless).await;
    assert_eq!(homeless.json()["errors"][0]["field"], "category");
    assert_eq!(waiting(&server).await, 1);

    let restock = "/api/products/red-kettle/restock";
    let key = [("idempotency-key", "delivery-1")];
    let stocked = administrator.send(Method::POST, restock, &key, &value!({ "quantity": 7 })).await;
    assert_eq!((stocked.status, &stocked.json()["stock"]), (StatusCode::OK, &7.into()));
    assert_eq!(get(&router, "/api/products/red-kettle/stock").await.json()["stock"], 7);
    assert_eq!(get(&router, "/api/products/red-kettle").await.json()["in_stock"], true);

    sqlx::query("UPDATE products SET stock = 999999999 WHERE slug = 'red-kettle'")
        .execute(&mut server.connect().await)
        .await
        .expect("many pieces");
    for (number, status) in [(2, StatusCode::UNPROCESSABLE_ENTITY), (1, StatusCode::OK)] {
        let key = format!("delivery-of-{number}");
        let fields = [("idempotency-key", key.as_str())];
        let full = administrator.send(Method::POST, restock, &fields, &value!({ "quantity": number })).await;
        assert_eq!(full.status, status, "there is room for what cancelled orders bring back");
    }

    let tag = get(&router, "/api/products/red-kettle").await.header("etag").to_owned();
    let gone = administrator
        .send(Method::DELETE, "/api/products/red-kettle", &[("if-match", &tag)], &Value::Null)
        .await;
    assert_eq!((gone.status, &gone.json()["active"]), (StatusCode::OK, &false.into()));
    assert_eq!(get(&router, "/api/products/red-kettle").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn only_administrators_change_the_catalogue() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let customer = Customer::register(&router, "ada@example.org").await;
    for (method, uri) in [
        (Method::POST, "/api/products"),
        (Method::PATCH, KETTLE),
        (Method::DELETE, KETTLE),
        (Method::POST, "/api/products/harbour-enamel-kettle/restock"),
    ] {
        let body = match uri {
            "/api/products" => value!({ "slug": "x", "name": "X", "category": "kitchen", "price_cents": 5 }),
            KETTLE => value!({}),
            _ => value!({ "quantity": 1 }),
        };
        let fields = [("if-match", "*"), ("idempotency-key", "k1")];
        let answer = customer.send(method.clone(), uri, &fields, &body).await;
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (StatusCode::FORBIDDEN, "no-store"),
            "{uri}"
        );
        let request = json(method, uri, &body).header("if-match", "*").header("idempotency-key", "k1");
        assert_eq!(send_json(&router, request).await.status, StatusCode::UNAUTHORIZED, "{uri}");
    }
}

#[tokio::test]
async fn a_delivery_counts_once_however_often_it_is_reported() {
    let (server, router, administrator) = shop().await;
    let restock = format!("{KETTLE}/restock");
    let report = async |key: &[(&str, &str)], uri: &str, quantity: i32| {
        administrator.send(Method::POST, uri, key, &value!({ "quantity": quantity })).await
    };
    let stock =
        async || get(&router, &format!("{KETTLE}/stock")).await.json()["stock"].as_i64().expect("a number");
    let before = stock().await;
    let key = [("idempotency-key", "delivery-1")];
    let first = report(&key, &restock, 7).await;
    let again = report(&key, &restock, 7).await;
    assert_eq!((first.status, first.json()["stock"].as_i64()), (StatusCode::OK, Some(before + 7)));
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!((again.header("etag"), again.header("idempotency-replayed")), (first.header("etag"), "true"));
    assert_eq!(stock().await, before + 7);

    // Another quantity, another product, another resource: another request.
    let order = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    for other in [
        report(&key, &restock, 8).await,
        report(&key, "/api/products/red-kettle/restock", 7).await,
        administrator.send(Method::POST, "/api/orders", &key, &order).await,
    ] {
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(other.json()["type"], "urn:gatehouse:problem:idempotency-key-reused");
    }
    let keyless = report(&[], &restock, 7).await;
    assert_eq!(keyless.status, StatusCode::BAD_REQUEST);
    assert_eq!(keyless.json()["type"], "urn:gatehouse:problem:idempotency-key-required");

    let mut locker = server.connect().await;
    let mut lock = locker.begin().await.expect("a transaction");
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('delivery-2', $1))")
        .bind(administrator.id)
        .execute(&mut *lock)
        .await
        .expect("the lock of a delivery");
    let busy = report(&[("idempotency-key", "delivery-2")], &restock, 1).await;
    assert_eq!((busy.status, busy.header("retry-after")), (StatusCode::CONFLICT, "1"));
    assert_eq!(busy.json()["type"], "urn:gatehouse:problem:request-in-progress");
    lock.rollback().await.expect("the lock goes");
    assert_eq!(stock().await, before + 7);

    // A refusal is an answer too: what was not there then is not restocked later by an old retry.
    let key = [("idempotency-key", "delivery-3")];
    let refused = report(&key, "/api/products/red-kettle/restock", 1).await;
    let again = report(&key, "/api/products/red-kettle/restock", 1).await;
    assert_eq!((refused.status, again.header("idempotency-replayed")), (StatusCode::NOT_FOUND, "true"));
    assert_eq!((again.status, &again.body), (refused.status, &refused.body));
}

#[tokio::test]
async fn of_edges_that_are_one_the_first_that_takes_it_is_told() {
    let (server, _, administrator) = shop().await;
    let (mut one, mut other) = (EdgeDouble::start().await, EdgeDouble::start().await);
    let workers = workers_of(&server, &[&one, &other], true);
    let change = async |cents: i64| {
        let answer = patch(&administrator, KETTLE, &value!({ "price_cents": cents })).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    };
    change(4200).await;
    assert!(one.purged().await.contains(&"product-1".to_owned()));
    until_told(&server).await;
    // It is away: the next is told, once, and nobody waits for the first.
    one.answer(503);
    change(4300).await;
    assert!(other.purged().await.contains(&"product-1".to_owned()));
    until_told(&server).await;
    // None takes it: it is kept, and told again.
    other.answer(503);
    change(4400).await;
    assert_eq!((one.next().await.0, other.next().await.0), (503, 503));
    assert!(waiting(&server).await > 0);
    other.answer(200);
    assert!(other.purged().await.contains(&"product-1".to_owned()));
    until_told(&server).await;
    workers.stop().await;
}
