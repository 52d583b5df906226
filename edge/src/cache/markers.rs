//! Keys whose last response could not be shared: later requests do not queue behind one another.
//!
//! Apart from what is stored, and bounded in number, so that however many addresses are asked for whose responses cannot
//! be stored, no stored response has to make room. A marker is found by its key's hash: two keys with one hash cost a
//! request that goes upstream beside another.

use std::{hash::BuildHasher as _, time::Duration};

use cache_policy::{Moment, Reason, RequestFacts};
use foldhash::fast::RandomState;
use quick_cache::sync::Cache;

use super::Key;

/// The last response of a key could not be shared.
#[derive(Clone, Copy, Debug)]
pub struct Marker {
    /// Until when requests go upstream without waiting for each other.
    pub until: Moment,
    /// Why the last response could not be shared.
    pub reason: Reason,
}

/// How long requests for a resource go upstream side by side after a response could not be shared; a further one in the second
/// half begins it anew. The first response
/// that may be stored ends it.
pub const MARKER: Duration = Duration::from_secs(30);

/// The same after a failure, or where there was no room. A further one in its second half begins it anew.
pub const SHORT_MARKER: Duration = Duration::from_secs(5);

/// Whose requests a marker is about: what one with credentials or cookies got tells nothing about others, nor the other way
/// round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Those without either.
    Anyone,
    /// Those with Authorization.
    Authorized,
    /// Those with cookies that the route does not ignore, and without Authorization.
    WithCookies,
}

impl Whose {
    const ALL: [Self; 3] = [Self::Anyone, Self::Authorized, Self::WithCookies];

    pub fn of(request: &RequestFacts) -> Self {
        if request.is_authorized() {
            Self::Authorized
        } else if request.minds_cookies() {
            Self::WithCookies
        } else {
            Self::Anyone
        }
    }
}

/// The markers of all keys, by the keys' hashes.
#[derive(Debug)]
pub struct Markers {
    by_hash: Cache<(u64, Whose), Marker>,
    hasher: RandomState,
}

impl Default for Markers {
    fn default() -> Self {
        Self { by_hash: Cache::new(MOST), hasher: RandomState::default() }
    }
}

impl Markers {
    pub fn set(&self, key: &Key, whose: Whose, marker: Marker) {
        self.by_hash.insert((self.hasher.hash_one(key), whose), marker);
    }

    /// A response of this key may be stored.
    pub fn clear(&self, key: &Key) {
        let hash = self.hasher.hash_one(key);
        for whose in Whose::ALL {
            self.by_hash.remove(&(hash, whose));
        }
    }

    /// The marker of this key, until it expires.
    pub fn of(&self, key: &Key, whose: Whose, now: Moment) -> Option<Marker> {
        self.by_hash.get(&(self.hasher.hash_one(key), whose)).filter(|marker| now < marker.until)
    }
}

/// At most so many, of some 60 bytes each; the least asked for are forgotten first.
const MOST: usize = 16 * 1024;
