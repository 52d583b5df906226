//! The edge's own words: a refusal as a response (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Method, Response, Version, header, request};

use super::{
    body::Body,
    fields::{RATE_LIMIT, RATE_LIMIT_POLICY},
};
use crate::{message::request_id::RequestId, request::refusal::Refusal};

/// The one place that turns a refusal into a response: problem+json (RFC 9457), never stored by anyone.
pub fn refusal(refusal: &Refusal, head: &request::Parts, id: &RequestId) -> Response<Body> {
    let status = refusal.status();
    let mut problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": refusal.to_string(),
        "code": refusal.detail(),
        "request_id": id.to_string(),
    });
    if let Some(phase) = refusal.phase() {
        problem["phase"] = phase.into();
    }
    let body = Bytes::from(format!("{problem}\n"));
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(seconds) = refusal.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Refusal::MethodNotAllowed = refusal {
        headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    }
    if let Refusal::TooManyRequests(limited) = refusal {
        headers.insert(RATE_LIMIT_POLICY, limited.policy.clone());
        headers.insert(RATE_LIMIT, limited.state.clone());
    }
    if refusal.closes() && head.version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if head.method != Method::HEAD {
        *response.body_mut() = Body::Whole(body);
    }
    response
}

/// The methods that the edge forwards, as far as it knows them by name.
pub const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
