//! What is left in the database after everything has gone wrong: each acknowledged order once, and the stock adds up.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    PATIENCE,
    origin_process::{Origin, gone, postmaster},
    test_server::{connect, folder},
};

const CLIENTS: i64 = 64;
/// After a failure a client waits so long for a new address, and then asks the old one again.
const AGAIN: Duration = Duration::from_millis(20);

async fn database(data: &Path) -> PgConnection {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(data.join("postgres/run"))
        .username("gatehouse")
        .database("gatehouse");
    connect(&options).await
}

/// Customers with the sessions `token-1`, `token-2`… and so many pieces of product 1.
async fn prepare(data: &Path, stock: i32) {
    let mut connection = database(data).await;
    sqlx::query(
        "WITH made AS (
             INSERT INTO users (email, password_hash) SELECT 'c' || n || '@example.org', '-' FROM generate_series(1, $1) n
             RETURNING id
         )
         INSERT INTO sessions (token_hash, user_id, expires_at)
         SELECT sha256(convert_to('token-' || row_number() OVER (), 'UTF8')), id, now() + interval '1 hour' FROM made",
    )
    .bind(CLIENTS)
    .execute(&mut connection)
    .await
    .expect("customers");
    sqlx::query("UPDATE products SET stock = $1, active = true WHERE id = 1")
        .bind(stock)
        .execute(&mut connection)
        .await
        .expect("a stock");
}

/// One customer, who asks with one key until there is a final answer: the order's number, or none left.
#[derive(Clone)]
struct Client {
    address: watch::Receiver<String>,
    token: String,
    acknowledged: Arc<Semaphore>,
}

impl Client {
    async fn order(&mut self, key: &str) -> Option<i64> {
        loop {
            let address = self.address.borrow_and_update().clone();
            match self.attempt(&address, key).await {
                Ok((201, body)) => {
                    self.acknowledged.add_permits(1);
                    return Some(body["id"].as_i64().expect("an id"));
                }
                Ok((409, body)) if body["type"] == "urn:gatehouse:problem:out-of-stock" => return None,
                Ok((409 | 503, _)) | Err(_) => {}
                Ok((status, body)) => panic!("{status}: {body}"),
            }
            let _ = tokio::time::timeout(AGAIN, self.address.changed()).await;
        }
    }

    async fn attempt(&self, address: &str, key: &str) -> std::io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect(address).await?;
        let body = json!({ "lines": [{ "product_id": 1, "quantity": 1 }] }).to_string();
        let request = format!(
            "POST /api/orders HTTP/1.1\r\nHost: origin\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Cookie: __Host-session={}\r\nX-Requested-With: tests\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        let broken = || std::io::Error::other("a broken answer");
        let status = response.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
        let body = response.split_once("\r\n\r\n").ok_or_else(broken)?.1;
        Ok((status, serde_json::from_str(body).map_err(|_| broken())?))
    }
}

/// Every client places so many orders, one after another; the numbers of those that were acknowledged.
fn shop(
    address: &watch::Receiver<String>,
    acknowledged: &Arc<Semaphore>,
    orders: usize,
) -> JoinSet<Vec<i64>> {
    (1..=CLIENTS)
        .map(|number| {
            let mut client = Client {
                address: address.clone(),
                token: format!("token-{number}"),
                acknowledged: Arc::clone(acknowledged),
            };
            async move {
                let mut placed = Vec::new();
                for order in 0..orders {
                    placed.extend(client.order(&format!("key-{number}-{order}")).await);
                }
                placed
            }
        })
        .collect()
}

async fn end(shopping: JoinSet<Vec<i64>>) -> Vec<i64> {
    tokio::time::timeout(PATIENCE, shopping.join_all()).await.expect("the clients end").concat()
}

/// Compares what clients were told with what is there.
async fn audit(data: &Path, acknowledged: &[i64], stock: i64) {
    let mut connection = database(data).await;
    let orders: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM orders").fetch_all(&mut connection).await.expect("orders");
    let (told, there): (HashSet<_>, HashSet<_>) = (acknowledged.iter().collect(), orders.iter().collect());
    assert_eq!(told.len(), acknowledged.len(), "two clients were told of the same order");
    assert_eq!(
        told, there,
        "what was acknowledged is there, and every client has heard of its order in the end"
    );
    let (sold, left, answers): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT coalesce(sum(quantity), 0) FROM order_lines), (SELECT stock::bigint FROM products WHERE id = 1),
                (SELECT count(*) FROM idempotency_keys WHERE response_status = 201)",
    )
    .fetch_one(&mut connection)
    .await
    .expect("the books");
    assert_eq!(
        (sold + left, answers),
        (stock, sold),
        "sold and left make up what there was, a key for each order"
    );
    println!(
        "{CLIENTS} clients: {sold} sold, {left} left of {stock}; {answers} keys with an order; none lost, none double"
    );
}

#[tokio::test]
async fn the_last_ten_pieces_are_sold_once_though_the_origin_is_killed() {
    let data = folder();
    let mut origin = Origin::serve(data.path()).await;
    prepare(data.path(), 10).await;
    let (moved, address) = watch::channel(origin.address.clone());
    let acknowledged = Arc::new(Semaphore::new(0));
    let shopping = shop(&address, &acknowledged, 1);
    for orders in [1, 3] {
        // Waits for so many more orders to be acknowledged; others are under way at this moment.
        acknowledged.acquire_many(orders).await.expect("open").forget();
        origin.child.kill().await.expect("killed");
        origin = Origin::serve(data.path()).await;
        moved.send(origin.address.clone()).expect("clients listen");
    }
    let placed = end(shopping).await;
    assert_eq!(placed.len(), 10);
    audit(data.path(), &placed, 10).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_postgresql_is_killed_under_load() {
    let data = folder();
    let origin = Origin::serve(data.path()).await;
    prepare(data.path(), 1_000).await;
    let (_moved, address) = watch::channel(origin.address.clone());
    let acknowledged = Arc::new(Semaphore::new(0));
    let shopping = shop(&address, &acknowledged, 12);
    for _ in 0..2 {
        acknowledged.acquire_many(100).await.expect("open").forget();
        let server = postmaster(data.path()).expect("it runs");
        kill_process(Pid::from_raw(server).expect("not zero"), Signal::KILL).expect("it is there");
        gone(server).await;
    }
    let placed = end(shopping).await;
    assert_eq!(placed.len(), 64 * 12, "there is enough for everybody");
    audit(data.path(), &placed, 1_000).await;
}
