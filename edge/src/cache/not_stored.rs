//! Why the last response for a key was not stored. Nothing in the cache itself records that.
//!
//! For explanations alone; nothing is decided by it. Bounded in bytes: the reasons of evicted keys are lost. They are found
//! by their keys' hashes: two keys with one hash would be told each other's reason.

use std::{hash::BuildHasher as _, sync::Arc};

use cache_policy::{Moment, Reason, Supply};
use foldhash::fast::RandomState;
use http::StatusCode;
use quick_cache::{Weighter, sync::Cache};

use super::Key;

/// A response that was not stored.
#[derive(Clone, Debug)]
pub struct NotStored {
    pub reason: Reason,
    pub status: StatusCode,
    /// Which setting would give such a response a lifetime.
    pub supply: Supply,
    /// When it was received.
    pub at: Moment,
    /// The header lines that decided, without secrets; one after the other.
    pub lines: Box<str>,
}

/// The last response of each key that was not stored.
#[derive(Debug)]
pub struct LastNotStored {
    by_hash: Cache<u64, Arc<NotStored>, ByLength>,
    hasher: RandomState,
}

impl Default for LastNotStored {
    fn default() -> Self {
        Self { by_hash: Cache::with_weighter(KEYS, BUDGET, ByLength), hasher: RandomState::default() }
    }
}

impl LastNotStored {
    /// Remembers a response in place of the one before.
    pub fn remember(&self, key: &Key, refused: NotStored) {
        self.by_hash.insert(self.hasher.hash_one(key), Arc::new(refused));
    }

    /// The last one of this key.
    pub fn of(&self, key: &Key) -> Option<Arc<NotStored>> {
        self.by_hash.get(&self.hasher.hash_one(key))
    }
}

#[derive(Clone, Debug)]
struct ByLength;

impl Weighter<u64, Arc<NotStored>> for ByLength {
    fn weight(&self, _: &u64, refused: &Arc<NotStored>) -> u64 {
        ENTRY + refused.lines.len() as u64
    }
}

/// Bytes of the whole table.
const BUDGET: u64 = 512 * 1024;
/// Only sizes the table at the start.
const KEYS: usize = 1024;
/// What an entry costs beside its text.
const ENTRY: u64 = 160;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{message::target::Scheme, request::inbound};

    #[test]
    fn it_stays_within_its_budget_and_keeps_the_last() {
        let key = |number: usize| {
            let request = Request::builder().uri(format!("/{number}")).header("host", "a").body(()).unwrap();
            Key::new(&inbound::read(&request.into_parts().0, Scheme::Http).unwrap())
        };
        let refused = |reason| NotStored {
            reason,
            status: StatusCode::OK,
            supply: Supply::DefaultTtl,
            at: Moment::default(),
            lines: "x".repeat(200).into(),
        };
        let last = LastNotStored::default();
        last.remember(&key(0), refused(Reason::Private));
        last.remember(&key(0), refused(Reason::NoStore));
        assert_eq!(last.of(&key(0)).unwrap().reason, Reason::NoStore);
        for number in 1..10_000 {
            last.remember(&key(number), refused(Reason::NoStore));
        }
        assert!(last.by_hash.weight() <= BUDGET, "{}", last.by_hash.weight());
    }
}
