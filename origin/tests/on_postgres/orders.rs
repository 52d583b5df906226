//! Orders: once for each key, never for more than there is.

use std::sync::Arc;

use http::{Method, StatusCode};
use origin::settings::DatabaseSettings;
use serde_json::{Value, json as value};
use sqlx::Connection as _;
use tokio::task::JoinSet;

use crate::{
    PATIENCE,
    requests::{Answer, Customer, json, send_json},
    test_server::TestServer,
};

async fn order(customer: &Customer, key: &str, lines: &Value) -> Answer {
    customer.send(Method::POST, "/api/orders", &[("idempotency-key", key)], &value!({ "lines": lines })).await
}

async fn number(server: &TestServer, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut server.connect().await).await.expect("a number")
}

async fn set_stock(server: &TestServer, stock: i32) {
    sqlx::query("UPDATE products SET stock = $1 WHERE id IN (1, 2)")
        .bind(stock)
        .execute(&mut server.connect().await)
        .await
        .expect("an update");
}

#[tokio::test]
async fn an_order_takes_its_pieces_and_keeps_its_prices() {
    let server = TestServer::start(12).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    set_stock(&server, 10).await;
    let placed = order(
        &customer,
        "k1",
        &value!([
            { "product_id": 2, "quantity": 3 }, { "product_id": 1, "quantity": 1 }
        ]),
    )
    .await;
    assert_eq!(
        (placed.status, placed.header("cache-control")),
        (StatusCode::CREATED, "no-store"),
        "{placed:?}"
    );
    sqlx::query("UPDATE products SET price_cents = 1")
        .execute(&mut server.connect().await)
        .await
        .expect("a sale");
    let shown = customer.get(placed.header("location")).await;
    assert_eq!(shown.json(), placed.json());
    let lines = placed.json()["lines"].clone();
    let total: i64 = lines
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["price_cents"].as_i64().unwrap() * line["quantity"].as_i64().unwrap())
        .sum();
    assert_eq!(placed.json()["total_cents"], total);
    assert_eq!(number(&server, "SELECT stock::bigint FROM products WHERE id = 2").await, 7);
    assert_eq!(
        number(&server, "SELECT count(*) FROM outbox").await,
        0,
        "there are some left: no page is wrong"
    );
}

#[tokio::test]
async fn a_key_stands_for_one_order_for_good() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let customer = Customer::register(&router, "ada@example.org").await;
    set_stock(&server, 10).await;
    let one = value!([{ "product_id": 1, "quantity": 1 }]);
    let first = order(&customer, "k1", &one).await;
    let again = order(&customer, "k1", &one).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(
        (first.header("location"), again.header("idempotency-replayed")),
        (again.header("location"), "true")
    );
    let other = order(&customer, "k1", &value!([{ "product_id": 1, "quantity": 2 }])).await;
    assert_eq!(other.json()["type"], "urn:gatehouse:problem:idempotency-key-reused");
    // A key belongs to its customer.
    let eve = Customer::register(&router, "eve@example.org").await;
    assert_ne!(order(&eve, "k1", &one).await.body, first.body);
    assert_eq!(number(&server, "SELECT count(*) FROM orders").await, 2);
    assert_eq!(number(&server, "SELECT stock::bigint FROM products WHERE id = 1").await, 8);

    // A refusal is an answer too.
    set_stock(&server, 0).await;
    assert_eq!(order(&customer, "k2", &one).await.status, StatusCode::CONFLICT);
    set_stock(&server, 10).await;
    let refused = order(&customer, "k2", &one).await;
    assert_eq!((refused.status, refused.header("idempotency-replayed")), (StatusCode::CONFLICT, "true"));
    assert_eq!(order(&customer, "k3", &one).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_request_under_way_keeps_its_key() {
    let server = TestServer::start(12).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    let mut locker = server.connect().await;
    let mut lock = locker.begin().await.expect("a transaction");
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('k1', $1))")
        .bind(customer.id)
        .execute(&mut *lock)
        .await
        .expect("the lock of an order");
    let one = value!([{ "product_id": 1, "quantity": 1 }]);
    let answer = order(&customer, "k1", &one).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::CONFLICT, "1"));
    assert_eq!(answer.json()["type"], "urn:gatehouse:problem:request-in-progress");
    lock.rollback().await.expect("the lock goes");
    assert_ne!(order(&customer, "k1", &one).await.json()["type"], answer.json()["type"]);
}

#[tokio::test]
async fn an_order_is_whole_or_not_at_all() {
    let server = TestServer::start(12).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    set_stock(&server, 3).await;
    let answer = order(&customer, "k1", &value!([
        { "product_id": 2, "quantity": 4 }, { "product_id": 1, "quantity": 3 }, { "product_id": 999, "quantity": 1 }
    ]))
    .await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:gatehouse:problem:out-of-stock");
    let fields: Vec<_> = problem["errors"].as_array().expect("errors").iter().map(|e| &e["field"]).collect();
    assert_eq!(fields, ["lines[0]", "lines[2]"]);
    assert_eq!(number(&server, "SELECT sum(stock)::bigint FROM products WHERE id IN (1, 2)").await, 6);
    assert_eq!(
        number(&server, "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM outbox)").await,
        0
    );
}

#[tokio::test]
async fn the_last_piece_goes_and_comes_back_in_every_cache() {
    let server = TestServer::start(12).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    set_stock(&server, 2).await;
    let placed = order(&customer, "k1", &value!([{ "product_id": 1, "quantity": 2 }])).await;
    assert_eq!(number(&server, "SELECT count(*) FROM outbox").await, 1);
    let cancel = format!("{}/cancel", placed.header("location"));
    for _ in 0..3 {
        let cancelled = customer.send(Method::POST, &cancel, &[], &Value::Null).await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (StatusCode::OK, &"cancelled".into()));
    }
    assert_eq!(number(&server, "SELECT stock::bigint FROM products WHERE id = 1").await, 2, "returned once");
    assert_eq!(number(&server, "SELECT count(*) FROM outbox").await, 2);
}

#[tokio::test]
async fn what_is_purged_when_the_last_piece_goes_and_when_it_comes_back_is_named_by_the_tags_of_the_answers()
{
    let server = TestServer::start(12).await;
    let router = server.router();
    let customer = Customer::register(&router, "ada@example.org").await;
    sqlx::query("UPDATE products SET stock = 1, active = true WHERE id IN (1, 2, 3)")
        .execute(&mut server.connect().await)
        .await
        .expect("an update");
    let lines: Vec<Value> = [3, 1].map(|id| value!({ "product_id": id, "quantity": 1 })).to_vec();
    let placed = order(&customer, "k1", &Value::from(lines)).await;
    assert_eq!(placed.status, StatusCode::CREATED, "{placed:?}");
    let cancelled = customer
        .send(Method::POST, &format!("{}/cancel", placed.header("location")), &[], &Value::Null)
        .await;
    assert_eq!(cancelled.status, StatusCode::OK);
    let written: Vec<sqlx::types::Json<Value>> = sqlx::query_scalar("SELECT payload FROM outbox ORDER BY id")
        .fetch_all(&mut server.connect().await)
        .await
        .expect("the outbox");
    let mut carried: Vec<String> = vec!["catalogue".to_owned()];
    let slugs: Vec<String> = sqlx::query_scalar("SELECT slug FROM products WHERE id IN (1, 3)")
        .fetch_all(&mut server.connect().await)
        .await
        .expect("slugs");
    for slug in slugs {
        let answer = crate::requests::get(&router, &format!("/api/products/{slug}")).await;
        carried.extend(answer.header("surrogate-key").split(' ').map(str::to_owned));
    }
    carried.sort_unstable();
    carried.dedup();
    assert_eq!(written.len(), 2);
    for payload in written {
        assert_eq!(payload.0, value!({ "stale": carried }));
    }
}

#[tokio::test]
async fn an_order_may_say_what_it_is_to_cost() {
    let server = TestServer::start(12).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    set_stock(&server, 10).await;
    let place = async |key: &str, expected: Value| {
        let lines = value!([{ "product_id": 2, "quantity": 3 }, { "product_id": 1, "quantity": 1 }]);
        let body = value!({ "lines": lines, "expected_total_cents": expected });
        customer.send(Method::POST, "/api/orders", &[("idempotency-key", key)], &body).await
    };
    let total =
        number(&server, "SELECT sum(price_cents * (2 * id - 1))::bigint FROM products WHERE id IN (1, 2)")
            .await;
    let refused = place("k1", value!(total + 1)).await;
    assert_eq!(
        (refused.status, &refused.json()["type"], &refused.json()["total_cents"]),
        (StatusCode::CONFLICT, &"urn:gatehouse:problem:total-changed".into(), &value!(total))
    );
    assert_eq!(number(&server, "SELECT sum(stock)::bigint FROM products WHERE id IN (1, 2)").await, 20);
    assert_eq!(place("k1", value!(total + 1)).await.header("idempotency-replayed"), "true");
    let placed = place("k2", value!(total)).await;
    assert_eq!((placed.status, &placed.json()["total_cents"]), (StatusCode::CREATED, &value!(total)));
    assert_eq!(place("k3", Value::Null).await.status, StatusCode::CREATED);
    let wrong = place("k4", value!("much")).await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["errors"][0]["field"]),
        (422, &"expected_total_cents".into())
    );
}

#[tokio::test]
async fn a_retry_is_known_however_it_is_spelled_and_whichever_build_has_answered_it() {
    let server = TestServer::start(12).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    set_stock(&server, 10).await;
    let send = async |key: &str, body: &str| {
        let request = http::Request::post("/api/orders")
            .header("content-type", "application/json")
            .header("cookie", &customer.cookie)
            .header("x-requested-with", "tests")
            .header("idempotency-key", key);
        let request = request.body(axum::body::Body::from(body.to_owned())).expect("a request");
        crate::requests::send(&customer.router, request).await
    };
    let first = send("k1", r#"{"lines":[{"product_id":1,"quantity":2}]}"#).await;
    assert_eq!(first.status, StatusCode::CREATED);
    for same in [
        r#"{ "lines": [ { "quantity": 2.0, "product_id": 1 } ] }"#,
        // A build that knows a member more, and leaves it out.
        r#"{"expected_total_cents":null,"lines":[{"product_id":1,"quantity":2}]}"#,
    ] {
        let again = send("k1", same).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body), "{same}");
    }
    // As the build before this one has told requests apart: by its own type.
    let kept: Vec<u8> = sqlx::query_scalar("SELECT request_hash FROM idempotency_keys WHERE key = 'k1'")
        .fetch_one(&mut server.connect().await)
        .await
        .expect("a hash");
    let digest = |text: &str| -> Vec<u8> {
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), text))
            .to_vec()
    };
    assert_eq!(kept, digest(r#"{"lines":[{"product_id":1,"quantity":2}]}"#));
    // And a build to come, with a fingerprint of another kind: the key tells enough.
    sqlx::query("UPDATE idempotency_keys SET fingerprint = 2, request_hash = sha256('another kind')")
        .execute(&mut server.connect().await)
        .await
        .expect("an update");
    let again = send("k1", r#"{"lines":[{"product_id":1,"quantity":2}]}"#).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (StatusCode::CREATED, "true"));
}

#[tokio::test]
async fn keys_are_forgotten_refusals_soon_and_orders_later() {
    let server = TestServer::start(12).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    set_stock(&server, 1).await;
    let line = |quantity: i32| value!([{ "product_id": 1, "quantity": quantity }]);
    assert_eq!(order(&customer, "placed", &line(1)).await.status, StatusCode::CREATED);
    for number in 0..300 {
        assert_eq!(order(&customer, &format!("k{number}"), &line(1)).await.status, StatusCode::CONFLICT);
    }
    let pool = sqlx::PgPool::connect_with(server.options.clone()).await.expect("a pool");
    let mut left = Vec::new();
    for hours in [0, 2, 7 * 24] {
        sqlx::query("UPDATE idempotency_keys SET created_at = now() - make_interval(hours => $1)")
            .bind(hours)
            .execute(&pool)
            .await
            .expect("time passes");
        origin::housekeeping::tidy(&pool, 13).await.expect("a tidy house");
        left.push(number(&server, "SELECT count(*) FROM idempotency_keys").await);
    }
    assert_eq!(left, [301, 1, 0]);
    assert_eq!(number(&server, "SELECT count(*) FROM orders").await, 1);
}

/// All the time in the world: these tests are about who gets what, not about when.
fn patient() -> DatabaseSettings {
    DatabaseSettings { acquire_timeout: PATIENCE, statement_timeout: PATIENCE, ..DatabaseSettings::default() }
}

#[tokio::test]
async fn orders_for_the_same_products_in_opposite_order_do_not_wait_for_each_other_in_a_circle() {
    let server = TestServer::start(12).await;
    let router = server.router_with(&patient());
    let customer = Arc::new(Customer::register(&router, "ada@example.org").await);
    set_stock(&server, 1_000).await;
    let orders: JoinSet<StatusCode> = (0..32)
        .map(|number| {
            let customer = Arc::clone(&customer);
            async move {
                let (first, second) = if number % 2 == 0 { (1, 2) } else { (2, 1) };
                let lines = value!([
                    { "product_id": first, "quantity": 1 }, { "product_id": second, "quantity": 1 }
                ]);
                order(&customer, &format!("k{number}"), &lines).await.status
            }
        })
        .collect();
    assert_eq!(orders.join_all().await, [StatusCode::CREATED; 32]);
    assert_eq!(
        number(&server, "SELECT sum(stock)::bigint FROM products WHERE id IN (1, 2)").await,
        2_000 - 64
    );
}

#[tokio::test]
async fn of_many_cancellations_at_once_one_returns_the_pieces() {
    let server = TestServer::start(12).await;
    let router = server.router_with(&patient());
    let customer = Arc::new(Customer::register(&router, "ada@example.org").await);
    set_stock(&server, 10).await;
    let placed = order(&customer, "k1", &value!([{ "product_id": 1, "quantity": 3 }])).await;
    let cancel = format!("{}/cancel", placed.header("location"));
    let cancellations: JoinSet<StatusCode> = (0..16)
        .map(|_| {
            let (customer, cancel) = (Arc::clone(&customer), cancel.clone());
            async move { customer.send(Method::POST, &cancel, &[], &Value::Null).await.status }
        })
        .collect();
    assert_eq!(cancellations.join_all().await, [StatusCode::OK; 16]);
    assert_eq!(number(&server, "SELECT stock::bigint FROM products WHERE id = 1").await, 10);
}

#[tokio::test]
async fn customers_see_their_own_orders_newest_first() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let (ada, eve) = (
        Customer::register(&router, "ada@example.org").await,
        Customer::register(&router, "eve@example.org").await,
    );
    set_stock(&server, 100).await;
    for number in 0..5 {
        order(&ada, &format!("k{number}"), &value!([{ "product_id": 1, "quantity": 1 }])).await;
    }
    let mut ids = Vec::new();
    let mut uri = "/api/orders?limit=2".to_owned();
    loop {
        let page = ada.get(&uri).await.json();
        ids.extend(
            page["orders"].as_array().expect("orders").iter().map(|order| order["id"].as_i64().unwrap()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        uri = format!("/api/orders?limit=2&cursor={cursor}");
    }
    assert_eq!((ids.len(), ids.is_sorted_by(|one, next| one > next)), (5, true), "{ids:?}");

    let location = format!("/api/orders/{}", ids[0]);
    assert_eq!(eve.get("/api/orders").await.json()["orders"], value!([]));
    assert_eq!(eve.get(&location).await.status, StatusCode::NOT_FOUND);
    let cancelled = eve.send(Method::POST, &format!("{location}/cancel"), &[], &Value::Null).await;
    assert_eq!(cancelled.status, StatusCode::NOT_FOUND);
    assert_eq!(ada.get(&location).await.json()["status"], "placed");
    for uri in ["/api/orders", &location, "/api/activity"] {
        let stranger = crate::requests::get(&router, uri).await;
        assert_eq!(
            (stranger.status, stranger.header("cache-control")),
            (StatusCode::UNAUTHORIZED, "no-store")
        );
    }
}

#[tokio::test]
async fn an_order_without_a_key_or_with_a_wrong_line_is_refused() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let customer = Customer::register(&router, "ada@example.org").await;
    let body = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    for fields in [&[][..], &[("idempotency-key", "")], &[("idempotency-key", "a"), ("idempotency-key", "b")]]
    {
        let answer = customer.send(Method::POST, "/api/orders", fields, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{fields:?}");
        assert_eq!(answer.json()["type"], "urn:gatehouse:problem:idempotency-key-required");
    }
    for (lines, field) in [
        (value!([]), "lines"),
        (value!([{ "product_id": 1, "quantity": 0 }]), "lines[0].quantity"),
        (
            value!([{ "product_id": 1, "quantity": 1 }, { "product_id": 1, "quantity": 1 }]),
            "lines[1].product_id",
        ),
    ] {
        let answer = order(&customer, "k1", &lines).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["errors"][0]["field"]), (422, &field.into()));
    }
    let nobody = json(Method::POST, "/api/orders", &body).header("idempotency-key", "k1");
    assert_eq!(send_json(&router, nobody).await.status, StatusCode::UNAUTHORIZED);
}
