//! Registering, signing in and out, and what keeps strangers from it.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::json as value;

use crate::{
    requests::{Answer, Customer, cookie, get, json, metric, send, send_json},
    test_server::TestServer,
};

async fn sign_in(router: &axum::Router, email: &str, password: &str, client: &str) -> Answer {
    let body = value!({ "email": email, "password": password });
    send_json(router, json(Method::POST, "/api/session", &body).header("x-forwarded-for", client)).await
}

#[tokio::test]
async fn a_session_lasts_from_signing_in_to_signing_out() {
    let server = TestServer::start(1).await;
    let router = server.router();
    assert!(get(&router, "/api/session").await.json()["user"].is_null());
    let customer = Customer::register(&router, "ada@example.org").await;
    assert_eq!(customer.get("/api/session").await.json()["user"]["email"], "ada@example.org");

    let again = sign_in(&router, "ADA@example.org", "correct horse", "203.0.113.1").await;
    assert_eq!((again.status, again.header("cache-control")), (StatusCode::OK, "no-store"));
    let attributes = again.header("set-cookie");
    assert!(attributes.starts_with("__Host-session="), "{attributes}");
    for attribute in ["; Path=/;", "; Secure;", "; HttpOnly;", "; SameSite=Lax", "; Max-Age=2592000;"] {
        assert!(attributes.contains(attribute), "{attribute} is not in {attributes}");
    }
    assert!(!attributes.contains("Domain"));
    assert_ne!(cookie(&again), customer.cookie, "two sessions");
    assert!(!String::from_utf8_lossy(&again.body).contains("argon2"), "the hash stays where it is");

    // In the database is nothing that signs anybody in.
    let stored: Vec<Vec<u8>> = sqlx::query_scalar("SELECT token_hash FROM sessions")
        .fetch_all(&mut server.connect().await)
        .await
        .expect("the sessions");
    let token = customer.cookie.split_once('=').expect("a value").1.as_bytes();
    assert!(stored.len() == 2 && stored.iter().all(|hash| hash != token));

    let out = customer.send(Method::DELETE, "/api/session", &[], &value!(null)).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.header("set-cookie").starts_with("__Host-session=; Path=/; Max-Age=0;"));
    assert!(customer.get("/api/session").await.json()["user"].is_null(), "the old cookie is worth nothing");
}

#[tokio::test]
async fn an_expired_session_is_none() {
    let server = TestServer::start(1).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    sqlx::query(
        "UPDATE sessions SET created_at = now() - interval '2 days', expires_at = now() - interval '1 s'",
    )
    .execute(&mut server.connect().await)
    .await
    .expect("an update");
    assert!(customer.get("/api/session").await.json()["user"].is_null());
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_get_the_same_answer() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "ada@example.org").await;
    let wrong = sign_in(&router, "ada@example.org", "incorrect horse", "203.0.113.1").await;
    let unknown = sign_in(&router, "eve@example.org", "incorrect horse", "203.0.113.1").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!((wrong.status, &wrong.body), (unknown.status, &unknown.body));
    let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&wrong), names(&unknown));
}

#[tokio::test]
async fn an_unknown_address_costs_as_many_hashes_as_a_wrong_password() {
    let server = TestServer::start(1).await;
    let router = server.router();
    let hashes = async || metric(&router, "origin_password_hashes_total").await;
    let cost = async |email: &str| {
        let before = hashes().await;
        let answer = sign_in(&router, email, "incorrect horse", "203.0.113.1").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        hashes().await - before
    };
    assert_eq!(cost("eve@example.org").await, 1.0, "the first of all");
    Customer::register(&router, "ada@example.org").await;
    assert_eq!((cost("ada@example.org").await, cost("eve@example.org").await), (1.0, 1.0));
}

#[tokio::test]
async fn guessing_ends_after_ten_and_signing_in_forgives() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "ada@example.org").await;
    for (email, client) in [("ada@example.org", "203.0.113.1"), ("nobody@example.org", "203.0.113.2")] {
        for _ in 0..10 {
            assert_eq!(sign_in(&router, email, "guess", client).await.status, StatusCode::UNAUTHORIZED);
        }
        let answer = sign_in(&router, email, "correct horse", client).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{email}");
        assert!(
            answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| (1..=900).contains(&seconds))
        );
    }
    // The owner, from another address, may still try.
    for _ in 0..9 {
        sign_in(&router, "ada@example.org", "typo", "203.0.113.9").await;
    }
    assert_eq!(
        sign_in(&router, "ada@example.org", "correct horse", "203.0.113.9").await.status,
        StatusCode::OK
    );
    assert_eq!(
        sign_in(&router, "ada@example.org", "typo", "203.0.113.9").await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let server = TestServer::start(1).await;
    let router = server.router();
    let body = value!({ "email": "ada", "password": "short", "name": "a\u{0}" });
    let answer = send_json(&router, json(Method::POST, "/api/users", &body)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:gatehouse:problem:invalid-fields");
    let fields: Vec<_> = problem["errors"].as_array().expect("errors").iter().map(|e| &e["field"]).collect();
    assert_eq!(fields, ["email", "name", "password"]);

    let body = value!({ "email": "ada@example.org", "password": "correct horse", "role": "administrator" });
    let answer = send_json(&router, json(Method::POST, "/api/users", &body)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["errors"][0]["field"]), (422, &"role".into()));

    let form = Request::post("/api/users").header("content-type", "application/x-www-form-urlencoded");
    let answer = send(&router, form.body(Body::from("email=a")).expect("a request")).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let body = value!({ "email": "a".repeat(70_000) });
    let answer = send_json(&router, json(Method::POST, "/api/users", &body)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.header("content-type"), "application/problem+json");

    Customer::register(&router, "ada@example.org").await;
    let body = value!({ "email": "Ada@Example.org", "password": "another horse" });
    let answer = send_json(&router, json(Method::POST, "/api/users", &body)).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["type"]),
        (409, &"urn:gatehouse:problem:email-taken".into())
    );
}

#[tokio::test]
async fn another_site_cannot_write_in_a_customers_name() {
    let server = TestServer::start(1).await;
    let customer = Customer::register(&server.router(), "ada@example.org").await;
    let fields = [("sec-fetch-site", "cross-site")];
    let answer = customer.send(Method::DELETE, "/api/session", &fields, &value!(null)).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["type"]),
        (403, &"urn:gatehouse:problem:cross-site".into())
    );
    let bare = Request::delete("/api/session").header("cookie", &customer.cookie);
    assert_eq!(
        send(&customer.router, bare.body(Body::empty()).expect("a request")).await.status,
        StatusCode::FORBIDDEN
    );
    assert!(!customer.get("/api/session").await.json()["user"].is_null(), "still signed in");
}
