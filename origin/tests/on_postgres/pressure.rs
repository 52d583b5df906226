//! More requests than the database can take, and requests nobody waits for any more.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use origin::settings::DatabaseSettings;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::{
    PATIENCE,
    requests::{Customer, get, metric, send},
    test_server::TestServer,
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";

/// One connection, one place to wait, and all the time in the world.
fn narrow() -> DatabaseSettings {
    DatabaseSettings {
        max_connections: 1,
        max_waiting: 1,
        acquire_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        ..DatabaseSettings::default()
    }
}

/// Statements of the origin that run on the server.
async fn running(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gatehouse-origin' AND state = 'active'",
    )
    .fetch_one(connection)
    .await
    .expect("a count")
}

async fn until_running(connection: &mut PgConnection, wanted: i64) {
    let seen = async { while running(connection).await != wanted {} };
    tokio::time::timeout(PATIENCE, seen).await.expect("the server comes to run as many statements");
}

#[tokio::test]
async fn who_finds_the_queue_full_is_told_at_once() {
    let server = TestServer::start(12).await;
    let router = server.router_with(&narrow());
    let (mut locker, mut watcher) = (server.connect().await, server.connect().await);
    let mut lock = locker.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE products IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("the lock");

    let ask = || {
        let router = router.clone();
        tokio::spawn(async move { get(&router, KETTLE).await.status })
    };
    let first = ask();
    until_running(&mut watcher, 1).await;
    // Of these two one waits, and the other cannot: it is the one that ends while the lock is held.
    let (mut second, mut third) = (ask(), ask());
    let (refused, waiting) = tokio::select! {
        status = &mut second => (status, third),
        status = &mut third => (status, second),
    };
    assert_eq!(refused.expect("no panic"), StatusCode::SERVICE_UNAVAILABLE);
    let answer = get(&router, KETTLE).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(answer.json()["type"], "urn:gatehouse:problem:overloaded");
    assert_eq!(get(&router, "/readyz").await.status, StatusCode::OK, "busy is not unready");
    assert!(!waiting.is_finished() && !first.is_finished());

    lock.rollback().await.expect("the lock goes");
    assert_eq!(first.await.expect("no panic"), StatusCode::OK);
    assert_eq!(waiting.await.expect("no panic"), StatusCode::OK);
    assert!(metric(&router, "origin_acquire_refused_total").await >= 2.0);
}

#[tokio::test]
async fn the_query_of_a_client_that_vanished_is_cancelled() {
    let server = TestServer::start(12).await;
    let router = server.router_with(&narrow());
    let (mut locker, mut watcher) = (server.connect().await, server.connect().await);
    let mut lock = locker.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE products IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("the lock");

    let request = tokio::spawn({
        let router = router.clone();
        async move { get(&router, KETTLE).await }
    });
    until_running(&mut watcher, 1).await;
    request.abort();
    assert!(request.await.expect_err("nobody waits for it").is_cancelled());
    // The table is still locked: nothing but a cancellation ends the query.
    until_running(&mut watcher, 0).await;
    lock.rollback().await.expect("the lock goes");
    assert_eq!(get(&router, KETTLE).await.status, StatusCode::OK, "its slot is free again");
    assert_eq!(metric(&router, "origin_queries_abandoned_total").await, 1.0);
}

#[tokio::test]
async fn who_gives_up_often_does_not_pile_up_statements_at_the_server() {
    let server = TestServer::start(12).await;
    let router = server.router_with(&DatabaseSettings { max_connections: 2, max_waiting: 100, ..narrow() });
    let (mut locker, mut watcher) = (server.connect().await, server.connect().await);
    let mut lock = locker.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE products IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("the lock");
    let impatient: Vec<_> = (0..40)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let request = Request::get(KETTLE).header("x-request-deadline", "20");
                    send(&router, request.body(Body::empty()).expect("a request")).await;
                }
            })
        })
        .collect();
    let mut most = 0;
    while impatient.iter().any(|client| !client.is_finished()) {
        most = most.max(running(&mut watcher).await);
    }
    println!("2 connections, 40 clients with 20 ms each: {most} statements at the server at most");
    assert!(most <= 8, "{most} statements at once");
    lock.rollback().await.expect("the lock goes");
    let answer = get(&router, KETTLE).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test]
async fn the_edges_deadline_ends_the_request_and_its_query() {
    let server = TestServer::start(12).await;
    let router = server.router_with(&narrow());
    let (mut locker, mut watcher) = (server.connect().await, server.connect().await);
    let mut lock = locker.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE products IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("the lock");
    let request = Request::get(KETTLE).header("x-request-deadline", "100");
    let answer = send(&router, request.body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["type"], "urn:gatehouse:problem:deadline-exceeded");
    until_running(&mut watcher, 0).await;
    lock.rollback().await.expect("the lock goes");
    for ignored in ["soon", "-1", "86400000000"] {
        let request = Request::get(KETTLE).header("x-request-deadline", ignored);
        assert_eq!(
            send(&router, request.body(Body::empty()).expect("a request")).await.status,
            StatusCode::OK,
            "{ignored}"
        );
    }
}

#[tokio::test]
async fn a_refused_change_is_rolled_back_and_its_connection_used_again() {
    let server = TestServer::start(12).await;
    let router = server.router_with(&narrow());
    let administrator = Customer::administrator(&server, &router).await;
    let mut watcher = server.connect().await;
    let mut connections = async || -> Vec<(i32, bool)> {
        let state = "SELECT pid, state LIKE 'idle in transaction%' FROM pg_stat_activity
                      WHERE application_name = 'gatehouse-origin'";
        sqlx::query_as(state).fetch_all(&mut watcher).await.expect("the connections")
    };
    assert_eq!(get(&router, KETTLE).await.status, StatusCode::OK);
    let before = connections().await;
    let condition = [("if-match", "\"another\"")];
    let refused = administrator.send(Method::PATCH, KETTLE, &condition, &json!({ "price_cents": 1 })).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    // There is but one connection: when it can be had again, it is out of the transaction.
    assert_eq!(get(&router, KETTLE).await.status, StatusCode::OK);
    let after = connections().await;
    assert_eq!((after.len(), &after), (1, &before));
    assert!(!after[0].1);
    assert_eq!(metric(&router, "origin_queries_abandoned_total").await, 0.0);
}

#[tokio::test]
async fn answers_tell_where_their_time_went() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let answer = get(&router, KETTLE).await;
    let parts: Vec<(&str, Duration)> = answer
        .header("server-timing")
        .split(", ")
        .map(|part| {
            let (name, milliseconds) = part.split_once(";dur=").expect("a duration");
            (name, Duration::from_secs_f64(milliseconds.parse::<f64>().expect("a number") / 1000.0))
        })
        .collect();
    assert_eq!(parts.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["wait", "db", "total"]);
    assert!(parts[1].1 > Duration::ZERO && parts[2].1 >= parts[1].1, "{parts:?}");
    let through_the_edge =
        Request::get(KETTLE).header("via", "2.0 edge").body(Body::empty()).expect("a request");
    assert_eq!(send(&router, through_the_edge).await.header("server-timing"), "");
}
