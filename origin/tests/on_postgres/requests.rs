//! Requests to the router, their answers, and customers who send them.

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode, request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::test_server::TestServer;

/// An answer, read to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("a router does not fail");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
    Answer { status: head.status, headers: head.headers, body }
}

pub(crate) async fn get(router: &Router, uri: &str) -> Answer {
    send(router, Request::get(uri).body(Body::empty()).expect("a valid request")).await
}

pub(crate) async fn get_if_none_match(router: &Router, uri: &str, tag: &str) -> Answer {
    send(router, Request::get(uri).header("if-none-match", tag).body(Body::empty()).expect("a valid request"))
        .await
}

/// A request with a body of JSON.
pub(crate) fn json(method: Method, uri: &str, body: &Value) -> request::Builder {
    let mut request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    request.extensions_mut().expect("a valid request").insert(body.clone());
    request
}

/// Sends what [`json`] has begun.
pub(crate) async fn send_json(router: &Router, request: request::Builder) -> Answer {
    let mut request = request.body(Body::empty()).expect("a valid request");
    if let Some(body) = request.extensions_mut().remove::<Value>() {
        *request.body_mut() = Body::from(body.to_string());
    }
    send(router, request).await
}

/// Somebody with an account and a session, as a browser that runs the storefront.
pub(crate) struct Customer {
    pub(crate) router: Router,
    pub(crate) cookie: String,
    pub(crate) id: i64,
}

impl Customer {
    pub(crate) async fn register(router: &Router, email: &str) -> Self {
        let body = serde_json::json!({ "email": email, "password": "correct horse" });
        let answer = send_json(router, json(Method::POST, "/api/users", &body)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let id = answer.json()["user"]["id"].as_i64().expect("an id");
        Self { router: router.clone(), cookie: cookie(&answer), id }
    }

    /// One that may change the catalogue.
    pub(crate) async fn administrator(server: &TestServer, router: &Router) -> Self {
        let customer = Self::register(router, "admin@example.org").await;
        let mut connection = server.connect().await;
        assert!(origin::users::promote(&mut connection, "Admin@example.org").await.expect("promoted"));
        customer
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        send(
            &self.router,
            Request::get(uri).header("cookie", &self.cookie).body(Body::empty()).expect("a valid request"),
        )
        .await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        uri: &str,
        fields: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut request = json(method, uri, body);
        request = request.header("cookie", &self.cookie).header("x-requested-with", "tests");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        send_json(&self.router, request).await
    }
}

/// The session cookie an answer sets, as a request sends it.
pub(crate) fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().expect("a cookie").to_owned()
}

/// The value of a metric without labels; 0 before its first.
pub(crate) async fn metric(router: &Router, name: &str) -> f64 {
    let text = String::from_utf8(get(router, "/metrics").await.body).expect("metrics are text");
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map_or(0.0, |value| value.parse().expect("a number"))
}
