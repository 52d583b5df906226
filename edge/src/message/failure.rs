//! Why there is no response from an upstream. A leaf: the cache passes it on to those who share a fetch, a refusal turns it
//! into a status, and only `upstream` makes one.

use std::{error::Error, io, sync::Arc};

use http::StatusCode;

use crate::{message::body_error::BodyError, settings::HeadBounds};

/// Why there is no response from an upstream.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// No server of the pool is available (a command that is not ready).
    #[error("no server is ready")]
    NoServer,
    /// Every connection is in use, and the queue for them is full or too slow.
    #[error("every connection is in use")]
    Busy,
    /// The upstream bears no more requests at once, as its answers show it.
    #[error("the upstream is overloaded")]
    Overloaded,
    /// Its name stands for no address. What the system said is for the log, not for clients.
    #[error("no address")]
    Resolve(#[source] Arc<io::Error>),
    /// No connection could be made. What the system said is for the log, not for clients.
    #[error("no connection")]
    Connect(#[source] Arc<io::Error>),
    /// The server did not prove who it is, or speaks no TLS. What was wrong is for the log, not for clients.
    #[error("no TLS")]
    Tls(#[source] Arc<io::Error>),
    /// A server reached by TLS did not agree to HTTP/1.1 alone, which a tunnel needs.
    #[error("no tunnel over TLS")]
    NoTunnel(#[source] Arc<io::Error>),
    /// An HTTP/2 server surely has not acted upon the request (RFC 9113 §8.7).
    #[error("the server did not take the request on")]
    Withdrawn,
    /// The connection ended that the request shared with others, who tell of it.
    #[error("the shared connection closed before a response")]
    ClosedWithOthers,
    /// No connection was made in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The connection ended before a response's head.
    #[error("the connection closed before a response")]
    Closed,
    /// The response is not HTTP.
    #[error("the response is malformed")]
    Malformed(#[source] Arc<dyn Error + Send + Sync>),
    /// The response's Content-Length contradicts itself (RFC 9112 §6.3).
    #[error("the response states two lengths")]
    Lengths,
    /// The response is framed in a way that allows two readings (RFC 9112 §6.1).
    #[error("the response {0}")]
    Framing(&'static str),
    /// The response's head is larger than the settings allow.
    #[error("the head of its answer {0}")]
    HeadTooLarge(HeadBounds),
    /// No response's head in time.
    #[error("no response in time")]
    Timeout,
    /// The client's own body broke.
    #[error("{0}")]
    RequestBody(#[source] BodyError),
    /// The upstream switched protocols without being asked to.
    #[error("the upstream switched protocols unasked")]
    Unasked,
    /// The upstream twice answered 304 to a request that named no representation.
    #[error("the upstream answered 304 (Not Modified) to a request without a condition")]
    NotModifiedUnasked,
}

impl Failure {
    /// The status a client gets (RFC 9110 §15.6).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoServer | Self::Busy | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Resolve(_)
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::NoTunnel(_)
            | Self::Withdrawn
            | Self::ClosedWithOthers
            | Self::Closed
            | Self::Malformed(_)
            | Self::HeadTooLarge(_)
            | Self::Lengths
            | Self::Framing(_)
            | Self::Unasked
            | Self::NotModifiedUnasked => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestBody(BodyError::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestBody(
                BodyError::ClientStalled | BodyError::ClientTooSlow(_) | BodyError::ClientLate(_),
            ) => StatusCode::REQUEST_TIMEOUT,
            Self::RequestBody(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// One word for Cache-Status, logs and metrics.
    pub fn detail(&self) -> &'static str {
        match self {
            Self::NoServer => "upstream-none-ready",
            Self::Busy => "upstream-busy",
            Self::Overloaded => "upstream-overloaded",
            Self::Resolve(_) => "upstream-unresolved",
            Self::Connect(_) => "upstream-refused",
            Self::Tls(_) => "upstream-tls",
            Self::NoTunnel(_) => "upstream-no-tunnel",
            Self::Withdrawn => "upstream-withdrawn",
            Self::ClosedWithOthers => "upstream-closed",
            Self::ConnectTimeout => "upstream-connect-timeout",
            Self::Closed => "upstream-closed",
            Self::Malformed(_) | Self::Lengths | Self::Framing(_) => "upstream-malformed",
            Self::HeadTooLarge(_) => "upstream-head-too-large",
            Self::Timeout => "upstream-timeout",
            Self::RequestBody(_) => "request-content",
            Self::Unasked => "upstream-switched",
            Self::NotModifiedUnasked => "upstream-not-modified",
        }
    }

    /// How far the request had come.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::NoServer => "choose",
            Self::Busy | Self::Overloaded => "wait",
            Self::Resolve(_) => "resolve",
            Self::Connect(_) | Self::ConnectTimeout => "connect",
            Self::Tls(_) | Self::NoTunnel(_) => "tls",
            Self::RequestBody(_) | Self::Withdrawn => "send",
            Self::Closed | Self::ClosedWithOthers | Self::Timeout => "first-byte",
            Self::Malformed(_)
            | Self::HeadTooLarge(_)
            | Self::Lengths
            | Self::Framing(_)
            | Self::Unasked
            | Self::NotModifiedUnasked => "head",
        }
    }

    /// Whether another server, or the same one, may be asked once more, where the request may be sent twice.
    pub fn may_be_repeated(&self) -> bool {
        self.fault() == AtFault::BadAnswer || matches!(self, Self::Withdrawn | Self::ClosedWithOthers)
    }

    /// Whose fault it is.
    pub fn fault(&self) -> AtFault {
        match self {
            Self::NoServer
            | Self::Busy
            | Self::Overloaded
            | Self::NoTunnel(_)
            | Self::Withdrawn
            | Self::ClosedWithOthers
            | Self::RequestBody(_) => AtFault::NotTheServers,
            Self::Resolve(_) | Self::Connect(_) | Self::Tls(_) | Self::ConnectTimeout => AtFault::Unreachable,
            Self::Closed
            | Self::Malformed(_)
            | Self::HeadTooLarge(_)
            | Self::Lengths
            | Self::Framing(_)
            | Self::Timeout
            | Self::Unasked
            | Self::NotModifiedUnasked => AtFault::BadAnswer,
        }
    }
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtFault {
    /// The edge's own, or the client's.
    NotTheServers,
    /// No connection could be made.
    Unreachable,
    /// The server took the request and did not answer it properly.
    BadAnswer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_the_edges_own_state_and_rests_no_server() {
        assert_eq!(Failure::Busy.fault(), AtFault::NotTheServers);
        assert_eq!(Failure::ConnectTimeout.fault(), AtFault::Unreachable);
    }

    #[test]
    fn what_the_system_said_is_for_the_log_alone() {
        let error = Arc::new(io::Error::other("/run/secret.sock: permission denied"));
        assert_eq!(Failure::Connect(Arc::clone(&error)).to_string(), "no connection");
        assert_eq!(Failure::Resolve(error).to_string(), "no address");
    }
}
