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

/// How many attempts are counted, over how many subjects.
async fn counted(server: &TestServer) -> (i64, i64) {
    sqlx::query_as("SELECT coalesce(sum(attempts), 0)::bigint, count(*) FROM sign_in_attempts")
        .fetch_one(&mut server.connect().await)
        .await
        .expect("the attempts")
}

#[tokio::test]
async fn one_client_cannot_lock_an_account_and_refused_attempts_write_nothing() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "ada@example.org").await;
    let (before, subjects) = counted(&server).await;
    let mut refused = 0;
    for _ in 0..101 {
        let status = sign_in(&router, "ada@example.org", "guess", "203.0.113.1").await.status;
        refused += u32::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(refused, 91);
    assert_eq!(counted(&server).await, (before + 30, subjects + 3), "ten each: pair, client, account");
    let owner = sign_in(&router, "ada@example.org", "correct horse", "198.51.100.7").await;
    assert_eq!(owner.status, StatusCode::OK, "the owner, elsewhere");
}

#[tokio::test]
async fn guesses_at_the_same_moment_are_no_more_than_one_after_another() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "ada@example.org").await;
    let guesses: tokio::task::JoinSet<StatusCode> = (0..40)
        .map(|_| {
            let router = router.clone();
            async move { sign_in(&router, "ada@example.org", "guess", "203.0.113.1").await.status }
        })
        .collect();
    let statuses = guesses.join_all().await;
    assert_eq!(
        statuses.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count(),
        10,
        "{statuses:?}"
    );
    assert_eq!(counted(&server).await.0, 1 + 30, "and one for registering");
}

#[tokio::test]
async fn strangers_who_use_up_an_account_do_not_lock_out_where_its_owner_has_been() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "ada@example.org").await;
    let owner = async |client| sign_in(&router, "ada@example.org", "correct horse", client).await.status;
    assert_eq!(owner("198.51.100.7").await, StatusCode::OK);
    sqlx::query("UPDATE sign_in_attempts SET attempts = 100, ends_at = now() + interval '1 minute' WHERE known_until IS NULL")
        .execute(&mut server.connect().await)
        .await
        .expect("a hundred strangers");
    assert_eq!(owner("198.51.100.9").await, StatusCode::TOO_MANY_REQUESTS, "a newcomer");
    sqlx::query("DELETE FROM sign_in_attempts WHERE subject = sha256(convert_to(concat_ws(E'\n', 'client', '198.51.100.7'), 'UTF8'))")
        .execute(&mut server.connect().await)
        .await
        .expect("the client itself has attempts left");
    assert_eq!(owner("198.51.100.7").await, StatusCode::OK);
}

#[tokio::test]
async fn an_account_has_one_counter_however_its_address_is_spelled() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "\u{130}pek@example.org").await;
    let candidates = [
        "\u{130}pek@example.org",
        "I\u{307}pek@example.org",
        "\u{130}PEK@example.org",
        "ipek@example.org",
        "i\u{307}pek@example.org",
    ];
    // Which of them are this account, the database knows best: its idea of lower case is its locale's.
    let mut spellings = Vec::new();
    for (number, email) in candidates.into_iter().enumerate() {
        let client = format!("198.51.100.{number}");
        if sign_in(&router, email, "correct horse", &client).await.status == StatusCode::OK {
            spellings.push(email);
        }
    }
    assert!(spellings.len() >= 3, "composed, decomposed, in capitals: {spellings:?}");
    let mut judged = 0;
    for guess in 0..30 {
        let email = spellings[guess % spellings.len()];
        let status = sign_in(&router, email, "guess", "203.0.113.1").await.status;
        judged += u32::from(status == StatusCode::UNAUTHORIZED);
    }
    assert_eq!(judged, 10);
    for email in spellings {
        let body = value!({ "email": email, "password": "another horse" });
        let answer = send_json(&router, json(Method::POST, "/api/users", &body)).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{email}");
    }
}

#[tokio::test]
async fn a_hash_of_less_work_is_upgraded_at_signing_in() {
    let server = TestServer::start(1).await;
    let router = server.router();
    Customer::register(&router, "ada@example.org").await;
    let weak = argon2::Params::new(8, 1, 1, None).expect("parameters");
    let weak = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, weak);
    let weak = argon2::PasswordHasher::hash_password(&weak, b"correct horse").expect("a hash").to_string();
    let mut connection = server.connect().await;
    sqlx::query("UPDATE users SET password_hash = $1")
        .bind(&weak)
        .execute(&mut connection)
        .await
        .expect("set");
    let mut kept = async || -> String {
        sqlx::query_scalar("SELECT password_hash FROM users")
            .fetch_one(&mut connection)
            .await
            .expect("a hash")
    };
    let signed_in =
        async |password| sign_in(&router, "ada@example.org", password, "203.0.113.1").await.status;
    assert_eq!(signed_in("guess").await, StatusCode::UNAUTHORIZED);
    assert_eq!(kept().await, weak, "only the password is known to be worth a new hash");
    assert_eq!(signed_in("correct horse").await, StatusCode::OK);
    let upgraded = kept().await;
    assert!(upgraded.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{upgraded}");
    assert_eq!(signed_in("correct horse").await, StatusCode::OK);
    assert_eq!(kept().await, upgraded, "once");
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
