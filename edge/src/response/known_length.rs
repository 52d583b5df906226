//! How much is known of the length of a body that is being filled, as far as an answer depends on it.

use std::time::Duration;

use cache_policy::{Precondition, RangeAnswer, precondition, range};
use http::{StatusCode, header, request};

use crate::cache::{
    Filling,
    recording::{Reached, Reader},
};

/// How much is known of the length of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownLength {
    /// The whole has this length.
    Complete(u64),
    /// The whole has at least this many octets, and they have been filled.
    First(u64),
    /// Nothing.
    Unknown,
}

impl KnownLength {
    /// The length of the whole.
    pub fn complete(self) -> Option<u64> {
        match self {
            Self::Complete(length) => Some(length),
            Self::First(_) | Self::Unknown => None,
        }
    }
}

/// How much of the length is known, as far as the answer to this request depends on it. Where the upstream did not
/// state the length, the requested octets are waited for, for a while; after that the whole is the answer.
pub async fn known_length(head: &request::Parts, filling: &Filling, reader: &mut Reader) -> KnownLength {
    if let Some(length) = filling.length {
        return KnownLength::Complete(length);
    }
    let (meta, etag) = (&filling.facts.meta, filling.head.get(header::ETAG));
    let strong = meta.validators.strong_last_modified();
    let needed = match range(&head.method, &head.headers, etag, strong, u64::MAX) {
        RangeAnswer::Whole | RangeAnswer::NotSatisfiable => return KnownLength::Unknown,
        RangeAnswer::Single(everything) if everything == (0..u64::MAX) => return KnownLength::Unknown,
        RangeAnswer::Single(wanted) => wanted.end,
        RangeAnswer::Several(_) => u64::MAX,
    };
    let conditional = precondition(&head.method, &head.headers, etag, meta.validators.last_modified);
    if filling.partial || meta.status != StatusCode::OK || conditional != Precondition::Proceed {
        return KnownLength::Unknown;
    }
    match tokio::time::timeout(PATIENCE, reader.reach(needed)).await {
        Ok(Reached::There) => KnownLength::First(needed),
        Ok(Reached::End(length)) => KnownLength::Complete(length),
        Ok(Reached::Never) | Err(_) => KnownLength::Unknown,
    }
}

/// How long an answer's head waits for octets whose place in the whole is not known yet.
const PATIENCE: Duration = Duration::from_secs(5);
