//! What customers do with their own account: another password, a forgotten one, and the end of it.

use std::{fs, path::Path, time::Duration};

use axum::Router;
use http::{Method, StatusCode};
use origin::{mail::Postman, settings::MailSettings};
use serde_json::json as value;
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::{mpsc, watch},
};

use crate::{
    PATIENCE,
    requests::{Answer, Customer, cookie, json, send_json},
    test_server::{TestServer, folder},
};

const NEW: &str = "another horse";

async fn sign_in(router: &Router, email: &str, password: &str) -> Answer {
    let body = value!({ "email": email, "password": password });
    send_json(router, json(Method::POST, "/api/session", &body).header("x-forwarded-for", "203.0.113.1"))
        .await
}

#[tokio::test]
async fn a_new_password_ends_every_other_session() {
    let server = TestServer::start(1).await;
    let router = server.router();
    let ada = Customer::register(&router, "ada@example.org").await;
    let elsewhere =
        Customer { cookie: cookie(&sign_in(&router, "ada@example.org", "correct horse").await), ..ada };
    let ada = Customer {
        router: router.clone(),
        cookie: cookie(&sign_in(&router, "ada@example.org", "correct horse").await),
        id: elsewhere.id,
    };
    let change = async |customer: &Customer, current: &str, new: &str| {
        customer
            .send(Method::PUT, "/api/account/password", &[], &value!({ "current": current, "new": new }))
            .await
    };
    assert_eq!(change(&ada, "a guess", NEW).await.status, StatusCode::UNAUTHORIZED);
    let short = change(&ada, "correct horse", "short").await;
    assert_eq!((short.status.as_u16(), &short.json()["errors"][0]["field"]), (422, &"new".into()));
    let changed = change(&ada, "correct horse", NEW).await;
    assert_eq!(
        (changed.status, &changed.json()["user"]["email"]),
        (StatusCode::OK, &"ada@example.org".into())
    );
    let renewed = Customer { router: router.clone(), cookie: cookie(&changed), id: ada.id };
    assert_eq!(renewed.get("/api/session").await.json()["user"]["id"], ada.id);
    for ended in [&ada, &elsewhere] {
        assert!(ended.get("/api/session").await.json()["user"].is_null());
    }
    assert_eq!(sign_in(&router, "ada@example.org", "correct horse").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&router, "ada@example.org", NEW).await.status, StatusCode::OK);
    // Guesses with a stolen session count as any.
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(change(&renewed, "a guess", NEW).await.status);
    }
    assert_eq!(statuses.last(), Some(&StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test]
async fn an_account_ends_and_its_orders_stay_without_a_name() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let ada = Customer::register(&router, "ada@example.org").await;
    sqlx::query("UPDATE products SET stock = 9, active = true WHERE id = 1")
        .execute(&mut server.connect().await)
        .await
        .expect("an update");
    let lines = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    ada.send(Method::POST, "/api/orders", &[("idempotency-key", "k1")], &lines).await;
    sqlx::query("INSERT INTO activity_logs (user_id, action) VALUES ($1, 'order.place')")
        .bind(ada.id)
        .execute(&mut server.connect().await)
        .await
        .expect("a log");
    let end = async |password: &str| {
        ada.send(Method::POST, "/api/account/deletion", &[], &value!({ "password": password })).await
    };
    assert_eq!(end("a guess").await.status, StatusCode::UNAUTHORIZED);
    let ended = end("correct horse").await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert!(ended.header("set-cookie").starts_with("__Host-session=; Path=/; Max-Age=0;"));
    assert!(ada.get("/api/session").await.json()["user"].is_null());
    assert_eq!(sign_in(&router, "ada@example.org", "correct horse").await.status, StatusCode::UNAUTHORIZED);
    let (email, name, orders, mine): (String, String, i64, i64) = sqlx::query_as(
        "SELECT email, name, (SELECT count(*) FROM orders WHERE user_id = u.id),
                (SELECT count(*) FROM activity_logs WHERE user_id = u.id) FROM users u",
    )
    .fetch_one(&mut server.connect().await)
    .await
    .expect("the one account");
    assert_eq!((email, name.as_str(), orders, mine), (format!("deleted-{}@invalid", ada.id), "", 1, 0));
    // The address is free again, and whoever takes it finds nothing.
    let again = Customer::register(&router, "ada@example.org").await;
    assert_eq!(again.get("/api/orders").await.json()["orders"], value!([]));
}

async fn forget(router: &Router, email: &str) -> Answer {
    send_json(router, json(Method::POST, "/api/account/forgotten-password", &value!({ "email": email })))
        .await
}

async fn reset(router: &Router, token: &str) -> Answer {
    let body = value!({ "token": token, "new": NEW });
    send_json(router, json(Method::PUT, "/api/account/forgotten-password", &body)).await
}

/// Has what is to be sent sent, until `arrived` says so.
async fn deliver<T>(
    server: &TestServer,
    settings: &MailSettings,
    data: &Path,
    arrived: impl Future<Output = T>,
) -> T {
    let pool = PgPool::connect_with(server.options.clone()).await.expect("a pool");
    let (stop, stopped) = watch::channel(false);
    let postman = Postman::new(settings, data).expect("a postman");
    let working = tokio::spawn(postman.run(pool, stopped));
    let mail = tokio::time::timeout(PATIENCE, arrived).await.expect("it arrives in time");
    stop.send(true).expect("it listens");
    working.await.expect("it ends");
    mail
}

fn token_of(mail: &str) -> String {
    // Long lines are folded in transit (RFC 2045 §6.7).
    let mail = mail.replace("=\r\n", "").replace("=3D", "=");
    let rest = mail.split_once("https://shop.test/account#reset=").expect("a link").1;
    rest.chars().take_while(|letter| letter.is_ascii_alphanumeric() || "-_".contains(*letter)).collect()
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_once_by_whoever_reads_the_mail() {
    let server = TestServer::start(1).await;
    let router = server.router();
    let ada = Customer::register(&router, "ada@example.org").await;
    // Nobody is told whether there is such an account, and nobody gets a heap of mails.
    for email in ["ADA@example.org", "ada@example.org", "eve@example.org"] {
        let answer = forget(&router, email).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::ACCEPTED, 0), "{email}");
    }
    let data = folder();
    let kept = data.path().join("mail");
    let arrived = async {
        loop {
            let mails: Vec<_> =
                fs::read_dir(&kept).map(|files| files.flatten().collect()).unwrap_or_default();
            if let [mail] = &mails[..]
                && let Ok(text) = fs::read_to_string(mail.path())
                && text.contains("#reset")
            {
                break text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mail = deliver(&server, &MailSettings::default(), data.path(), arrived).await;
    assert!(
        mail.contains("To: ada@example.org") && mail.contains("From: \"Gatehouse Goods\" <shop@localhost>"),
        "{mail}"
    );
    let token = token_of(&mail);
    assert_eq!(token.len(), 43, "{mail}");
    assert_eq!(reset(&router, "a-guess").await.status, StatusCode::NOT_FOUND);
    assert_eq!(reset(&router, &token).await.status, StatusCode::NO_CONTENT);
    assert_eq!(reset(&router, &token).await.status, StatusCode::NOT_FOUND, "once");
    assert!(ada.get("/api/session").await.json()["user"].is_null(), "whoever was signed in is so no more");
    assert_eq!(sign_in(&router, "ada@example.org", NEW).await.status, StatusCode::OK);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM mails")
        .fetch_one(&mut server.connect().await)
        .await
        .expect("a count");
    assert_eq!(left, 0, "what is sent is kept no longer");
}

#[tokio::test]
async fn a_token_that_is_an_hour_old_is_worth_nothing() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "ada@example.org").await;
    forget(&router, "ada@example.org").await;
    let body: String = sqlx::query_scalar("SELECT body FROM mails")
        .fetch_one(&mut server.connect().await)
        .await
        .expect("a mail");
    sqlx::query("UPDATE password_resets SET expires_at = now()")
        .execute(&mut server.connect().await)
        .await
        .expect("an hour");
    assert_eq!(reset(&router, &token_of(&body)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(sign_in(&router, "ada@example.org", "correct horse").await.status, StatusCode::OK);
}

/// A mail server that refuses the first mail for now and takes the second.
async fn mail_server() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("smtp://{}", listener.local_addr().expect("an address"));
    let (mails, taken) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut refused = false;
        while let Ok((mut stream, _)) = listener.accept().await {
            let (reading, mut writing) = stream.split();
            let mut lines = BufReader::new(reading).lines();
            let mut mail: Option<String> = None;
            writing.write_all(b"220 mail.test\r\n").await.expect("a greeting");
            while let Ok(Some(line)) = lines.next_line().await {
                let answer = match &mut mail {
                    Some(text) if line == "." => {
                        mails.send(text.clone()).expect("the test listens");
                        mail = None;
                        "250 taken\r\n"
                    }
                    Some(text) => {
                        text.push_str(&line);
                        text.push_str("\r\n");
                        continue;
                    }
                    None if line.starts_with("MAIL") && !std::mem::replace(&mut refused, true) => {
                        "451 later\r\n"
                    }
                    None if line == "DATA" => {
                        mail = Some(String::new());
                        "354 go on\r\n"
                    }
                    None => "250 mail.test\r\n",
                };
                if writing.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (url, taken)
}

#[tokio::test]
async fn a_mail_server_that_refuses_for_now_is_asked_again() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "ada@example.org").await;
    forget(&router, "ada@example.org").await;
    let (url, mut taken) = mail_server().await;
    let smtp = Some(url.try_into().expect("a URL"));
    let settings = MailSettings { smtp, ..MailSettings::default() };
    let data = folder();
    let mail = deliver(&server, &settings, data.path(), taken.recv()).await.expect("a mail");
    assert_eq!(reset(&router, &token_of(&mail)).await.status, StatusCode::NO_CONTENT);
}
