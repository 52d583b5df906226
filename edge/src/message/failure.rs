//! Why there is no response from an upstream. A leaf: the cache passes it on to those who share a fetch, a refusal turns it
//! into a status, and only `upstream` makes one.

use std::{io, sync::Arc};

use http::StatusCode;

use crate::message::body_error::BodyError;

/// Why there is no response from an upstream.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// No server of the pool is available (a command that is not ready).
    #[error("no server is ready")]
    NoServer,
    /// Every connection is in use and the queue for them is full.
    #[error("every connection is in use")]
    Busy,
    /// No connection could be made.
    #[error("no connection: {0}")]
    Connect(#[source] Arc<io::Error>),
    /// No connection was made in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The connection ended before a response's head.
    #[error("the connection closed before a response")]
    Closed,
    /// The response is not HTTP.
    #[error("the response is malformed")]
    Malformed(#[source] Arc<hyper::Error>),
    /// No response's head in time.
    #[error("no response in time")]
    Timeout,
    /// The client's own body broke.
    #[error("{0}")]
    RequestBody(#[source] BodyError),
    /// The upstream switched protocols without being asked to.
    #[error("the upstream switched protocols unasked")]
    Unasked,
}

impl Failure {
    /// The status a client gets (RFC 9110 §15.6).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoServer | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_) | Self::Closed | Self::Malformed(_) | Self::Unasked => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestBody(BodyError::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestBody(BodyError::ClientStalled) => StatusCode::REQUEST_TIMEOUT,
            Self::RequestBody(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// One word for Cache-Status, logs and metrics.
    pub fn detail(&self) -> &'static str {
        match self {
            Self::NoServer => "upstream-none-ready",
            Self::Busy => "upstream-busy",
            Self::Connect(_) => "upstream-refused",
            Self::ConnectTimeout => "upstream-connect-timeout",
            Self::Closed => "upstream-closed",
            Self::Malformed(_) => "upstream-malformed",
            Self::Timeout => "upstream-timeout",
            Self::RequestBody(_) => "request-content",
            Self::Unasked => "upstream-switched",
        }
    }

    /// Whether the server is to rest for a while.
    pub fn blames_server(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ConnectTimeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_the_edges_own_state_and_rests_no_server() {
        assert!(!Failure::Busy.blames_server());
        assert!(Failure::ConnectTimeout.blames_server());
    }
}
