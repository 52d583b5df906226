//! Why a body ended before its end, whichever way it was going.

use std::{error::Error, sync::Arc, time::Duration};

use super::content::ContentError;
use crate::settings::ByteSize;

/// Why a body ended before its end. Shared by every reader of a fill.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's connection broke or its framing was wrong.
    #[error("the upstream's response broke off")]
    Upstream(#[source] Arc<dyn Error + Send + Sync>),
    /// The upstream sent nothing for longer than its `idle_timeout`.
    #[error("the upstream's response stalled")]
    UpstreamStalled,
    /// The exchange took longer than its route's `timeouts.whole`.
    #[error("the exchange took longer than the route's timeouts.whole")]
    Late,
    /// The client read so slowly that it held up others who share the response.
    #[error("the client held up others who share the response")]
    TooSlow,
    /// The representation changed, or was gone, between two slices of it.
    #[error("what its slices are of changed while it was sent")]
    Changed,
    /// A slice did not come.
    #[error("a slice of it did not come")]
    NoSlice,
    /// The fill's task ended without finishing.
    #[error("the response was abandoned")]
    Abandoned,
    /// The client's connection broke.
    #[error("the client's content broke off")]
    Client(#[source] Arc<ContentError>),
    /// The client sent nothing for longer than `timeouts.body`.
    #[error("the client's content stalled")]
    ClientStalled,
    /// The client sent so slowly that it fell below `bounds.body_rate`.
    #[error("the client's content came more slowly than bounds.body_rate ({0} a second)")]
    ClientTooSlow(ByteSize),
    /// The client took longer than `timeouts.upload`.
    #[error("the client's content took longer than timeouts.upload ({} s)", .0.as_secs_f32())]
    ClientLate(Duration),
    /// The client sent more than `bounds.body`.
    #[error("the client's content is larger than {0} bytes")]
    TooLarge(u64),
    /// A content coding could not be computed.
    #[error("the content coding failed")]
    Coding(#[source] Arc<std::io::Error>),
}

impl BodyError {
    /// The phase of the upstream's answer in which it failed, if that is why.
    pub fn phase(&self) -> Option<&'static str> {
        matches!(self, Self::Upstream(_) | Self::UpstreamStalled).then_some("body")
    }
}
