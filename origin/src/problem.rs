//! Every answer that says no, as `application/problem+json` (RFC 9457), never stored by anyone.
//!
//! The `type` is stable: clients may branch on it. A reason of the database's or ours is logged here, once, and never shown.

use std::{
    borrow::Cow,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::numbers::Cents;

/// When to ask again after what passes by itself.
const SOON: Duration = Duration::from_secs(1);

/// What can be said about one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Name of the member; one in a list is `lines[2].quantity`.
    pub(crate) field: String,
    /// What to send instead.
    pub(crate) message: String,
}

/// A refusal, an error, or a "not now".
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// Last part of the `type` URN.
    name: &'static str,
    title: &'static str,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    errors: Vec<FieldError>,
    /// What an order would cost now.
    total_cents: Option<Cents>,
}

/// Constructors of problems that are the same each time: status, last part of the `type`, title, and a member besides.
macro_rules! problems {
    ($(
        $(#[$about:meta])*
        $seen:vis $name:ident: $status:ident, $kind:literal, $title:literal $(, $member:ident($value:expr))?;
    )+) => {
        impl Problem {$(
            $(#[$about])*
            $seen fn $name() -> Self {
                Self::new(StatusCode::$status, $kind, $title)$(.$member($value))?
            }
        )+}
    };
}

problems! {
    /// 400: a cursor that this interface has not given out, or not for this sort.
    pub invalid_cursor: BAD_REQUEST, "invalid-cursor", "The cursor is not valid",
        detail("send `next_cursor` of the previous page unchanged, with the same `sort`, or leave it out");
    /// 415: bodies are JSON.
    pub(crate) unsupported_media_type:
        UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is of another type",
        detail("send JSON, with `Content-Type: application/json`");
    /// 413.
    pub(crate) body_too_large: PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large";
    /// 401: the same for an unknown address and for a wrong password.
    pub(crate) wrong_credentials:
        UNAUTHORIZED, "wrong-credentials", "Address and password do not fit together";
    /// 404: no such token of a mail, or not any more.
    pub(crate) token_expired: NOT_FOUND, "token-expired", "This token does not work any more",
        detail("ask for another mail: each works once, and for an hour");
    /// 401: this needs a session.
    pub(crate) not_signed_in: UNAUTHORIZED, "not-signed-in", "Sign in first";
    /// 403: not with this account.
    pub(crate) forbidden: FORBIDDEN, "forbidden", "This account may not do that";
    /// 409: somebody has registered with this address.
    pub(crate) email_taken: CONFLICT, "email-taken", "There is an account with this address";
    /// 409: another product or category has this slug.
    pub(crate) slug_taken: CONFLICT, "slug-taken", "There is something with this slug";
    /// 428: a change says which version it is made to (RFC 6585 §3).
    pub(crate) precondition_required: PRECONDITION_REQUIRED, "precondition-required", "Which version?",
        detail("send the product's ETag in `If-Match`");
    /// 412: somebody else has changed it since.
    pub(crate) precondition_failed:
        PRECONDITION_FAILED, "precondition-failed", "It has changed since you read it";
    /// 400: an order or a delivery needs a key of its own.
    pub(crate) no_idempotency_key: BAD_REQUEST, "idempotency-key-required", "The request has no key",
        detail("send one `Idempotency-Key` of 1 to 255 visible characters, new for each request");
    /// 409: a request with this key is under way.
    pub(crate) in_progress:
        CONFLICT, "request-in-progress", "The same request is under way", retry_after(SOON);
    /// 422: the key belongs to another request.
    pub(crate) key_reused:
        UNPROCESSABLE_ENTITY, "idempotency-key-reused", "This key has been used for another request";
    /// 422: one order, one currency.
    pub(crate) mixed_currencies:
        UNPROCESSABLE_ENTITY, "mixed-currencies", "These products are sold in different currencies";
    /// 503: the search has taken longer than one may; fewer or rarer words may be found sooner.
    pub(crate) search_too_slow:
        SERVICE_UNAVAILABLE, "search-too-slow", "The search takes too long", retry_after(SOON);
    /// 405; the router has set `Allow`.
    pub method_not_allowed: METHOD_NOT_ALLOWED, "method-not-allowed", "This cannot be done here";
    /// 500; the reason has been logged.
    pub internal: INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side";
    /// 503: all connections are in use, or the database is away or too slow; soon is a good time to ask again.
    pub unavailable: SERVICE_UNAVAILABLE, "unavailable", "Not now", retry_after(SOON);
    /// 503: more requests wait than may; none of them would come sooner for one more.
    pub overloaded: SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once", retry_after(SOON);
    /// 503: the request's time was up.
    pub too_slow:
        SERVICE_UNAVAILABLE, "deadline-exceeded", "The answer took too long", retry_after(SOON);
}

impl Problem {
    /// 400: a part of the request is not as documented; `detail` says which and what to send instead.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid").detail(detail)
    }

    /// 422: the body is JSON, and these fields of it are not as documented.
    pub(crate) fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "Some fields are not valid");
        Self { errors, ..problem }
    }

    /// The same of one field.
    pub(crate) fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_fields(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// 403: another site may have caused this.
    pub(crate) fn cross_site(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "cross-site", "Not from there").detail(detail)
    }

    /// 409: some lines cannot be had.
    pub(crate) fn out_of_stock(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(StatusCode::CONFLICT, "out-of-stock", "Some of that is not there") }
    }

    /// 409: it costs another sum than was expected.
    pub(crate) fn total_changed(total_cents: Cents) -> Self {
        let problem = Self::new(StatusCode::CONFLICT, "total-changed", "It costs another sum now");
        Self { total_cents: Some(total_cents), ..problem }
    }

    /// 429: this client searches too often.
    pub(crate) fn too_many_searches(retry_after: Duration) -> Self {
        // In whole seconds, and not sooner.
        let retry_after = retry_after + Duration::from_secs(1);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-searches", "Too many searches")
            .retry_after(retry_after)
    }

    /// 429: too many attempts to sign in or register.
    pub(crate) fn too_many_attempts(retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", "Too many attempts")
            .retry_after(retry_after)
    }

    /// 404.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here").detail(detail)
    }

    fn new(status: StatusCode, name: &'static str, title: &'static str) -> Self {
        Self { status, name, title, detail: None, retry_after: None, errors: Vec::new(), total_cents: None }
    }

    /// Status and body.
    pub(crate) fn written(&self) -> (StatusCode, Vec<u8>) {
        let members = Members {
            kind: format!("urn:gatehouse:problem:{}", self.name),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            errors: &self.errors,
            total_cents: self.total_cents,
        };
        let body = serde_json::to_vec(&members).expect("strings and a number have no value that JSON lacks");
        (self.status, body)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(crate) fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// Adds what is to be said of this very case.
    pub fn detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    fn retry_after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        let unavailable = match &error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::WorkerCrashed => true,
            // SQLSTATE classes: connection lost, read-only (a primary that is none any more), deadlock, too many connections,
            // lock not free, cancelled (statement_timeout) or shutting down.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "25", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class))
            }),
            _ => false,
        };
        if !unavailable {
            tracing::error!(%error, "a query failed");
            return Self::internal();
        }
        if first_this_second() {
            tracing::warn!(%error, "the database cannot answer");
        }
        Self::unavailable()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.written().into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §15.5.2 wants a challenge; there is no registered scheme for a form and a cookie.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Session"));
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

/// What every refusal and error looks like (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Members<'a> {
    /// Stable: clients may branch on it.
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    /// One for each field that is wrong.
    errors: &'a [FieldError],
    /// Of `total-changed`: what the order would cost now.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_cents: Option<Cents>,
}

/// An outage fails every request; one line a second tells as much as thousands.
fn first_this_second() -> bool {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    static LAST: AtomicU64 = AtomicU64::new(0);
    // Counted from 1, so that the first second differs from the initial value.
    let second = START.elapsed().as_secs() + 1;
    LAST.swap(second, Ordering::Relaxed) != second
}
