//! Why the last response for a key was not stored. Nothing in the cache itself records that.
//!
//! For explanations alone; nothing is decided by it. Bounded in bytes: the reasons of evicted keys are lost.

use std::sync::Arc;

use cache_policy::{Moment, Reason, Supply};
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
    /// The header lines that decided, without secrets.
    pub lines: Vec<String>,
}

/// The last response of each key that was not stored.
#[derive(Debug)]
pub struct LastNotStored(Cache<Key, Arc<NotStored>, ByLength>);

impl Default for LastNotStored {
    fn default() -> Self {
        Self(Cache::with_weighter(KEYS, BUDGET, ByLength))
    }
}

impl LastNotStored {
    /// Remembers a response in place of the one before.
    pub fn remember(&self, key: &Key, refused: NotStored) {
        self.0.insert(key.clone(), Arc::new(refused));
    }

    /// The last one of this key.
    pub fn of(&self, key: &Key) -> Option<Arc<NotStored>> {
        self.0.get(key)
    }
}

#[derive(Clone, Debug)]
struct ByLength;

impl Weighter<Key, Arc<NotStored>> for ByLength {
    fn weight(&self, key: &Key, refused: &Arc<NotStored>) -> u64 {
        let lines: usize = refused.lines.iter().map(|line| LINE + line.len()).sum();
        ENTRY + (key.as_str().len() + lines) as u64
    }
}

/// Bytes of the whole table.
const BUDGET: u64 = 512 * 1024;
/// Only sizes the table at the start.
const KEYS: usize = 1024;
/// What an entry costs beside its text.
const ENTRY: u64 = 160;
const LINE: usize = 40;

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
            lines: vec!["x".repeat(200)],
        };
        let last = LastNotStored::default();
        last.remember(&key(0), refused(Reason::Private));
        last.remember(&key(0), refused(Reason::NoStore));
        assert_eq!(last.of(&key(0)).unwrap().reason, Reason::NoStore);
        for number in 1..10_000 {
            last.remember(&key(number), refused(Reason::NoStore));
        }
        assert!(last.0.weight() <= BUDGET, "{}", last.0.weight());
    }
}
