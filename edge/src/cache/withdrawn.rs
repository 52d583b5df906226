//! When what was stored for a key was last replaced or withdrawn by a response that is not stored itself: a body that was on
//! its way by then is older, and must not come back in its place.
//!
//! Bounded in number, by the keys' hashes: a key that is forgotten, or shares its hash, costs a fetch or a stale page for as
//! long as one body takes.

use std::hash::BuildHasher as _;

use cache_policy::Moment;
use foldhash::fast::RandomState;
use quick_cache::sync::Cache;

use super::Key;

/// The keys of which something was withdrawn of late.
#[derive(Debug)]
pub struct Withdrawn {
    by_hash: Cache<u64, Moment>,
    hasher: RandomState,
}

impl Default for Withdrawn {
    fn default() -> Self {
        Self { by_hash: Cache::new(MOST), hasher: RandomState::default() }
    }
}

impl Withdrawn {
    /// What was received before `asked` has been withdrawn.
    pub fn note(&self, key: &Key, asked: Moment) {
        self.by_hash.insert(self.hasher.hash_one(key), asked);
    }

    /// Whether a response that was received then has been withdrawn since.
    pub fn concerns(&self, key: &Key, received: Moment) -> bool {
        self.by_hash.get(&self.hasher.hash_one(key)).is_some_and(|asked| received < asked)
    }
}

/// At most so many, of some 40 bytes each; the least asked for are forgotten first.
const MOST: usize = 16 * 1024;
