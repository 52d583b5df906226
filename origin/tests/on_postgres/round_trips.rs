//! How often a request makes the database answer: each of these waits costs a request the way there and back, and whoever
//! waits for its locks the same.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, StatusCode};
use origin::settings::DatabaseSettings;
use serde_json::json as value;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream, tcp::OwnedWriteHalf, unix::OwnedReadHalf},
};

use crate::{
    requests::{Customer, get, json, send_json},
    test_server::{TestServer, searches},
};

/// A server that is reached through somebody who counts its answers.
struct Counted {
    options: PgConnectOptions,
    /// ReadyForQuery messages: a statement, or a question whether the server is there, ends with one.
    ended: Arc<AtomicUsize>,
}

impl Counted {
    async fn start(server: &TestServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let socket = server.socket().join(".s.PGSQL.5432");
        let ended = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&ended);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.expect("the server");
                let ((mut from_client, to_client), (from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                tokio::spawn(relay(from_server, to_client, Arc::clone(&count)));
            }
        });
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username("gatehouse")
            .database("gatehouse")
            .ssl_mode(PgSslMode::Disable);
        Self { options, ended }
    }

    /// How many round trips this takes before its answer. What the pool does after it, the pool does for nobody.
    async fn of<T>(&self, work: impl Future<Output = T>) -> (usize, T) {
        let before = self.ended.load(Ordering::SeqCst);
        let result = work.await;
        (self.ended.load(Ordering::SeqCst) - before, result)
    }

    /// Until the pool has looked after what it was given back.
    async fn settle(&self) {
        let mut before = usize::MAX;
        for _ in 0..100 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            let now = self.ended.load(Ordering::SeqCst);
            if std::mem::replace(&mut before, now) == now {
                break;
            }
        }
    }
}

/// Messages of the server: a letter, a length that counts itself, and the rest.
async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: Arc<AtomicUsize>) {
    let mut message = vec![0; 5];
    loop {
        message.truncate(5);
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]) as usize;
        message.resize(length + 1, 0);
        if from.read_exact(&mut message[5..]).await.is_err() {
            return;
        }
        if message[0] == b'Z' {
            count.fetch_add(1, Ordering::SeqCst);
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_read_is_one_an_order_one_and_signing_in_three() {
    let server = TestServer::start(60).await;
    sqlx::query("UPDATE products SET stock = 1000, active = true WHERE id <= 20")
        .execute(&mut server.connect().await)
        .await
        .expect("an update");
    let counted = Counted::start(&server).await;
    let settings = DatabaseSettings { max_connections: 1, ..DatabaseSettings::default() };
    let router = TestServer::router_on(counted.options.clone(), &settings, searches());
    let customer = Customer::register(&router, "ada@example.org").await;
    let lines: Vec<_> = (1..=20).map(|id| value!({ "product_id": id, "quantity": 1 })).collect();
    let order = async |key: &str| {
        let order = value!({ "lines": lines });
        customer.send(Method::POST, "/api/orders", &[("idempotency-key", key)], &order).await
    };
    let sign_in = async || {
        let body = value!({ "email": "ada@example.org", "password": "correct horse" });
        send_json(&router, json(Method::POST, "/api/session", &body)).await
    };
    let mut figures = Vec::new();
    // The first time statements are prepared, which is a round trip more.
    for turn in 0..2 {
        let mut note = |what: &str, (trips, answer): (usize, crate::requests::Answer), status: StatusCode| {
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            if turn == 1 {
                figures.push((what.to_owned(), trips));
            }
        };
        for (what, uri) in [
            ("list", "/api/products"),
            ("product", "/api/products/harbour-enamel-kettle"),
            ("stock", "/api/products/harbour-enamel-kettle/stock"),
            ("search", "/api/products?search=kettle"),
            ("suggestions", "/api/suggestions?words=ket"),
        ] {
            counted.settle().await;
            note(what, counted.of(get(&router, uri)).await, StatusCode::OK);
        }
        counted.settle().await;
        note("own orders", counted.of(customer.get("/api/orders")).await, StatusCode::OK);
        counted.settle().await;
        note("sign-in", counted.of(sign_in()).await, StatusCode::OK);
        counted.settle().await;
        note("order of 20 lines", counted.of(order(&format!("k{turn}"))).await, StatusCode::CREATED);
        counted.settle().await;
        note("the same again", counted.of(order(&format!("k{turn}"))).await, StatusCode::CREATED);
        counted.settle().await;
        let cancel = format!("/api/orders/{}/cancel", turn + 1);
        note(
            "cancellation",
            counted.of(customer.send(Method::POST, &cancel, &[], &value!(null))).await,
            StatusCode::OK,
        );
    }
    println!("round trips before the answer: {figures:?}");
    let figures: Vec<(&str, usize)> = figures.iter().map(|(what, trips)| (what.as_str(), *trips)).collect();
    assert_eq!(
        figures,
        [
            ("list", 1),
            ("product", 1),
            ("stock", 1),
            ("search", 1),
            ("suggestions", 1),
            ("own orders", 2),
            // Two statements; while the password is compared, the pool looks after the connection of the first.
            ("sign-in", 3),
            ("order of 20 lines", 1),
            ("the same again", 2),
            ("cancellation", 3),
        ]
    );
}
