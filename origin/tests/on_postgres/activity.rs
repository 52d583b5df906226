//! The activity log: written behind requests, read by whom it is about.

use std::{sync::Arc, time::Duration};

use axum::Router;
use http::Method;
use origin::{
    activity_log::ActivityLog, common_memory::CommonMemory, database::Database, housekeeping,
    observe::Metrics, passwords::Passwords, replicas::Reads, server, settings::DatabaseSettings, shop::Shop,
    traces::Tracer,
};
use serde_json::json as value;
use sqlx::PgPool;
use tokio::sync::watch;

use crate::{
    PATIENCE,
    requests::{Customer, metric},
    test_server::{TestServer, searches},
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";

fn shop(server: &TestServer) -> (Router, origin::activity_log::Writer) {
    let settings = DatabaseSettings::default();
    let metrics = Arc::new(Metrics::new(settings.slow_query));
    let database = Database::new(server.options.clone(), &settings, Arc::clone(&metrics));
    let (activity, writer) = ActivityLog::new(Arc::clone(&metrics));
    let reads = Reads::new(database.clone(), Vec::new(), Duration::from_secs(1), None);
    let (passwords, proxies) = (Passwords::new(Arc::clone(&metrics)), Arc::default());
    let searches = searches();
    let shop = Shop {
        memory: CommonMemory::default(),
        database,
        reads,
        metrics,
        tracer: Tracer::default(),
        activity,
        passwords,
        searches,
        site: "https://shop.test".into(),
        proxies,
    };
    (server::router(shop.clone(), Duration::from_secs(10)).merge(server::admin_router(shop)), writer)
}

#[tokio::test]
async fn what_a_customer_does_is_read_back_newest_first() {
    let server = TestServer::start(12).await;
    let (router, writer) = shop(&server);
    let pool = PgPool::connect_with(server.options.clone()).await.expect("a pool");
    let (stop, stopped) = watch::channel(false);
    let writing = tokio::spawn(writer.run(pool, stopped));

    let ada = Customer::register(&router, "ada@example.org").await;
    ada.get(KETTLE).await;
    let lines = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    ada.send(Method::POST, "/api/orders", &[("idempotency-key", "k1")], &lines).await;
    crate::requests::get(&router, KETTLE).await;
    let eve = Customer::register(&router, "eve@example.org").await;
    // What is still in the queue is written before the end.
    stop.send(true).expect("the writer listens");
    tokio::time::timeout(PATIENCE, writing).await.expect("it ends").expect("no panic");

    let mut actions = Vec::new();
    let mut uri = "/api/activity?limit=1".to_owned();
    loop {
        let page = ada.get(&uri).await.json();
        for entry in page["activity"].as_array().expect("entries") {
            actions.push((entry["action"].as_str().unwrap().to_owned(), entry["subject"].clone()));
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        uri = format!("/api/activity?limit=1&cursor={cursor}");
    }
    let expected = [("order.place", value!("1")), ("user.register", value!(null))];
    assert_eq!(actions, expected.map(|(action, subject)| (action.to_owned(), subject)));
    assert_eq!(eve.get("/api/activity").await.json()["activity"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_full_queue_loses_events_and_never_a_request() {
    let server = TestServer::start(12).await;
    // Without a worker nothing leaves the queue.
    let (router, writer) = shop(&server);
    drop(writer);
    let ada = Customer::register(&router, "ada@example.org").await;
    assert_eq!(ada.get(KETTLE).await.status, 200);
    assert_eq!(metric(&router, "origin_activity_lost_total").await, 1.0, "registering; a view is none");
}

#[tokio::test]
async fn months_come_ahead_and_go_as_a_whole() {
    let server = TestServer::start(1).await;
    let pool = PgPool::connect_with(server.options.clone()).await.expect("a pool");
    sqlx::raw_sql(
        "SELECT create_activity_partition('2020-05-10');
         INSERT INTO activity_logs (timestamp, action) VALUES ('2020-05-10', 'old'), ('2019-01-01', 'older'), (now(), 'new');
         INSERT INTO sign_in_attempts VALUES (sha256('a'), 1, now() - interval '1 s');",
    )
    .execute(&pool)
    .await
    .expect("rows");
    for _ in 0..2 {
        housekeeping::tidy(&pool, 13).await.expect("a tidy house");
        let left: Vec<String> =
            sqlx::query_scalar("SELECT action FROM activity_logs").fetch_all(&pool).await.expect("rows");
        assert_eq!(left, ["new"]);
        // This month, two ahead, and the default.
        let (partitions, attempts): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'activity_logs'::regclass),
                    (SELECT count(*) FROM sign_in_attempts)",
        )
        .fetch_one(&pool)
        .await
        .expect("counts");
        assert_eq!((partitions, attempts), (4, 0));
    }
}
