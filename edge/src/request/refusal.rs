//! Every refusal by the edge itself, each with its status (RFC 9110 §15) and its text.
//!
//! A stage leaves with `?` and a [`Refusal`]; [`crate::response::problem::refusal`] is the one place that turns it into a response.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};

use crate::{
    message::failure::Failure,
    request::limit::RateLimited,
    settings::{HeadBounds, PageTemplate},
};

/// Why the edge refuses a request and answers it by itself.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The head is ambiguous or malformed.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The head is larger than the settings allow.
    #[error("the head {0}")]
    HeadTooLarge(HeadBounds),
    /// The target is longer than can be read.
    #[error("the target is too long")]
    TargetTooLong,
    /// The client stopped in the middle of its head.
    #[error("the request's head did not arrive in time")]
    SlowHead,
    /// A version of HTTP that is not offered here.
    #[error("{0}")]
    VersionNotSupported(&'static str),
    /// The body is larger than the setting allows.
    #[error(
        "the request's content is larger than {0} bytes, which is the bound that the setting bounds.body puts"
    )]
    ContentTooLarge(u64),
    /// The client stopped sending its body.
    #[error("the request's content did not arrive in time")]
    RequestTimeout,
    /// The client asks more often than its route allows.
    #[error("more requests than the limit allows")]
    TooManyRequests(Box<RateLimited>),
    /// A method that is never offered.
    #[error("the method is not offered")]
    MethodNotAllowed,
    /// A feature of HTTP that the edge does not implement.
    #[error("{0}")]
    NotImplemented(&'static str),
    /// No route takes this host and path.
    #[error("no route matches this host and path")]
    NoRoute,
    /// The route asks for a name and a password (RFC 9110 §15.5.2); with the challenge.
    #[error("a name and a password are asked for here")]
    Unauthorized(HeaderValue),
    /// Too many passwords are being tried.
    #[error("too many passwords are being tried")]
    PasswordsBusy,
    /// The route is not for this client.
    #[error("this address is not allowed here")]
    AddressDenied,
    /// The route is closed for a while.
    #[error("this is closed for maintenance")]
    Maintenance {
        /// What people are shown; the page of every 503 where `None`.
        page: Option<Arc<PageTemplate>>,
        retry_after: Duration,
    },
    /// No route is for this host: a client with a connection for another one may try a new one (RFC 9110 §15.5.20).
    #[error("no route is for this host")]
    Misdirected,
    /// The connection's certificate is not for this host, which another connection would be shown another certificate for
    /// (RFC 9110 §15.5.20).
    #[error("the certificate of this connection is not for this host: ask by a connection of its own")]
    OtherCertificate,
    /// `Cache-Control: only-if-cached`, and nothing usable is stored (RFC 9111 §5.2.1.7).
    #[error("only-if-cached, and nothing usable is stored")]
    OnlyIfCached,
    /// As many requests of the route need its upstream as may.
    #[error("as many requests are under way on this route as its bounds.requests allows")]
    RouteBusy,
    /// As many requests of the client need an upstream as may.
    #[error(
        "as many requests of this client are under way as `requests_per_client` of bounds, or of the route's, allows"
    )]
    ClientBusy,
    /// The upstream gave no response.
    #[error("the upstream gave no answer: {0}")]
    Upstream(#[from] Failure),
    /// The request's time was up before an answer began.
    #[error("no answer began within {}", seconds(.within))]
    Deadline {
        within: Duration,
        /// How far it had come.
        phase: &'static str,
    },
}

impl Refusal {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::VersionNotSupported(_) => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::ContentTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowHead | Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyRequests(_) | Self::ClientBusy => StatusCode::TOO_MANY_REQUESTS,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::AddressDenied => StatusCode::FORBIDDEN,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::PasswordsBusy | Self::Maintenance { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misdirected | Self::OtherCertificate => StatusCode::MISDIRECTED_REQUEST,
            Self::OnlyIfCached | Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::RouteBusy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(failure) => failure.status(),
        }
    }

    /// After how many seconds a retry makes sense (RFC 9110 §10.2.3), where that is known: at least one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::TooManyRequests(limited) => Some(limited.retry_after_seconds),
            Self::Maintenance { retry_after, .. } => Some(retry_after.as_secs().max(1)),
            Self::RouteBusy
            | Self::PasswordsBusy
            | Self::ClientBusy
            | Self::Upstream(Failure::Busy | Failure::NoServer | Failure::Overloaded) => Some(1),
            _ => None,
        }
    }

    /// Whether the connection must not be used again: its framing can no longer be trusted.
    pub const fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::NotImplemented(_)
                | Self::HeadTooLarge(_)
                | Self::TargetTooLong
                | Self::SlowHead
                | Self::VersionNotSupported(_)
                | Self::ContentTooLarge(_)
                | Self::RequestTimeout
        )
    }

    /// The `detail` of Cache-Status (RFC 9211 §2.8) and of the log line.
    pub fn detail(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::HeadTooLarge(_) => "head-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::VersionNotSupported(_) => "version",
            Self::ContentTooLarge(_) => "content-too-large",
            Self::SlowHead => "slow-head",
            Self::RequestTimeout => "request-timeout",
            Self::TooManyRequests(_) => "rate-limited",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotImplemented(_) => "not-implemented",
            Self::NoRoute => "no-route",
            Self::AddressDenied => "address-denied",
            Self::Unauthorized(_) => "unauthorized",
            Self::PasswordsBusy => "passwords-busy",
            Self::Maintenance { .. } => "maintenance",
            Self::Misdirected => "misdirected",
            Self::OtherCertificate => "other-certificate",
            Self::OnlyIfCached => "only-if-cached",
            Self::RouteBusy => "route-busy",
            Self::ClientBusy => "client-busy",
            Self::Upstream(failure) => failure.detail(),
            Self::Deadline { .. } => "deadline",
        }
    }

    /// How far the request had come on its way to an upstream, where that is where it failed.
    pub fn phase(&self) -> Option<&'static str> {
        match self {
            Self::Upstream(failure) => Some(failure.phase()),
            Self::Deadline { phase, .. } => Some(phase),
            _ => None,
        }
    }
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f32())
}
