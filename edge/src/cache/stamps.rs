//! The newest purge of each thing that can be purged, for fetches under way.
//!
//! A thing is known by its hash ([`Facet`]), a purge by its generation, so that whoever asks looks at the facets of his
//! own response and at nothing else. Two things of one hash cost a fetch, and nothing else. Prefixes cannot be looked up;
//! they are few, and only who began before the newest of them looks at them.
//!
//! Bounded: each shard has a young and an old half. A full young half becomes the old one, and the old one is forgotten
//! with all its generations: a fetch that began before those is no longer stored. The rest goes on.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
};

use cache_policy::{Moment, NoVarySearch};
use foldhash::fast::RandomState;

use super::{
    locking::{Counter, Locking},
    rule::{Force, Generation},
};

/// What purges are remembered by, and stored responses found by.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Facet<'a> {
    Everything,
    Host(&'a str),
    /// One URL.
    Key(&'a str),
    /// Some resource of this path with a query: one whose response means the same as others may be concerned
    /// (No-Vary-Search).
    SomeQueryOf(&'a str),
    /// Resources of one path that mean the same under the same No-Vary-Search.
    Equivalent {
        path: &'a str,
        rules: &'a NoVarySearch,
        query: &'a str,
    },
    Tag(&'a str),
    Group {
        origin: &'a str,
        group: &'a str,
    },
    /// Some group of this origin.
    SomeGroupOf(&'a str),
}

/// A purge: when it was made, and how.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub generation: Generation,
    pub force: Force,
    pub at: Moment,
}

/// The newest purges of whatever was looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newest {
    /// Or forgotten.
    pub hard: Generation,
    pub soft: Generation,
    pub soft_at: Moment,
}

impl Newest {
    /// The newer ones of both.
    pub fn or(self, other: Self) -> Self {
        let newer = if other.soft > self.soft { other } else { self };
        Self { hard: self.hard.max(other.hard), soft: newer.soft, soft_at: newer.soft_at }
    }

    fn of(stamp: Stamp) -> Self {
        match stamp.force {
            Force::Hard => Self { hard: stamp.generation, ..Self::default() },
            Force::Soft => Self { soft: stamp.generation, soft_at: stamp.at, ..Self::default() },
        }
    }
}

/// All stamps that are remembered.
pub struct Stamps<L: Locking> {
    shards: Vec<L::Mutex<Shard>>,
    prefixes: L::Mutex<Prefixes>,
    newest_prefix: L::Counter,
}

impl<L: Locking> Stamps<L> {
    /// Room for this many in all, or a little more.
    pub fn new(room: usize) -> Self {
        let half = room.div_ceil(2 * SHARDS);
        Self {
            shards: (0..SHARDS).map(|_| L::mutex(Shard::new(half))).collect(),
            prefixes: L::mutex(Prefixes::default()),
            newest_prefix: L::Counter::default(),
        }
    }

    /// Stamps a thing.
    pub fn stamp(&self, facet: u64, stamp: Stamp) {
        L::locked(self.shard(facet), |shard| shard.stamp(facet, stamp));
    }

    /// Stamps whatever begins with this text.
    pub fn stamp_prefix(&self, prefix: &str, stamp: Stamp) {
        L::locked(&self.prefixes, |prefixes| prefixes.stamp(prefix, stamp));
        self.newest_prefix.raise(stamp.generation.count());
    }

    /// The newest purges of a thing.
    pub fn newest(&self, facet: u64) -> Newest {
        L::locked(self.shard(facet), |shard| shard.newest(facet))
    }

    /// The newest purges since `began` of prefixes of this key.
    pub fn newest_prefix(&self, key: &str, began: Generation) -> Newest {
        if self.newest_prefix.get() <= began.count() {
            return Newest::default();
        }
        L::locked(&self.prefixes, |prefixes| prefixes.newest(key, began))
    }

    fn shard(&self, facet: u64) -> &L::Mutex<Shard> {
        // The tables' own hashes are of the whole number.
        &self.shards[(facet >> 48) as usize % SHARDS]
    }
}

struct Shard {
    half: usize,
    young: Half,
    old: Half,
    forgotten: Generation,
}

#[derive(Default)]
struct Half {
    hard: HashMap<u64, Generation, RandomState>,
    soft: HashMap<u64, (Generation, Moment), RandomState>,
    last: Generation,
}

impl Shard {
    fn new(half: usize) -> Self {
        Self { half, young: Half::default(), old: Half::default(), forgotten: Generation::default() }
    }

    fn stamp(&mut self, facet: u64, Stamp { generation, force, at }: Stamp) {
        let young = &mut self.young;
        young.last = young.last.max(generation);
        match force {
            Force::Hard => {
                let newest = young.hard.entry(facet).or_default();
                *newest = generation.max(*newest);
            }
            Force::Soft => {
                let newest = young.soft.entry(facet).or_default();
                if generation > newest.0 {
                    *newest = (generation, at);
                }
            }
        }
        if young.hard.len() + young.soft.len() > self.half {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(young));
            self.forgotten = self.forgotten.max(forgotten.last);
        }
    }

    fn newest(&self, facet: u64) -> Newest {
        let of = |half: &Half| {
            let (soft, soft_at) = half.soft.get(&facet).copied().unwrap_or_default();
            Newest { hard: half.hard.get(&facet).copied().unwrap_or_default(), soft, soft_at }
        };
        let forgotten = Newest { hard: self.forgotten, ..Newest::default() };
        of(&self.young).or(of(&self.old)).or(forgotten)
    }
}

/// In the order of their generations.
#[derive(Default)]
struct Prefixes {
    recent: VecDeque<(Box<str>, Stamp)>,
    bytes: usize,
    forgotten: Generation,
}

impl Prefixes {
    fn stamp(&mut self, prefix: &str, stamp: Stamp) {
        let same = |(other, earlier): &(Box<str>, Stamp)| **other == *prefix && earlier.force == stamp.force;
        let again = self.recent.iter().position(same).and_then(|place| self.recent.remove(place));
        let stamp = match again {
            Some((again, earlier)) => {
                self.bytes -= again.len();
                if earlier.generation > stamp.generation { earlier } else { stamp }
            }
            None => stamp,
        };
        self.bytes += prefix.len();
        // Purges at once take their generations before they come here, and come in any order.
        let place = self.recent.partition_point(|(_, other)| other.generation < stamp.generation);
        self.recent.insert(place, (prefix.into(), stamp));
        while (self.recent.len() > MOST_PREFIXES || self.bytes > LONGEST_PREFIXES)
            && let Some((oldest, stamp)) = self.recent.pop_front()
        {
            self.bytes -= oldest.len();
            self.forgotten = self.forgotten.max(stamp.generation);
        }
    }

    fn newest(&self, key: &str, began: Generation) -> Newest {
        let since = self.recent.iter().rev().take_while(|(_, stamp)| stamp.generation > began);
        let matching = since.filter(|(prefix, _)| key.starts_with(&**prefix));
        let forgotten = Newest { hard: self.forgotten, ..Newest::default() };
        matching.fold(forgotten, |newest, (_, stamp)| newest.or(Newest::of(*stamp)))
    }
}

/// The hash of a facet.
pub fn hash(hasher: &impl BuildHasher, facet: Facet<'_>) -> u64 {
    hasher.hash_one(facet)
}

const SHARDS: usize = 16;
/// Prefixes remembered at once.
const MOST_PREFIXES: usize = 256;
/// Bytes of them.
const LONGEST_PREFIXES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::locking::ParkingLot;

    fn stamp(generation: u64) -> Stamp {
        Stamp { generation: Generation::of(generation), force: Force::Hard, at: Moment::default() }
    }

    /// Every purge was kept with all its rules until 4096 others had come: 600 purges of 500 tags were 300,000 rules.
    #[test]
    fn they_stay_within_their_room_and_the_newest_stay() {
        const ROOM: usize = 1024;
        const MANY: u64 = 50_000;
        let stamps = Stamps::<ParkingLot>::new(ROOM);
        let hasher = RandomState::default();
        let facet = |number: u64| hash(&hasher, Facet::Tag(&number.to_string()));
        for number in 1..=MANY {
            stamps.stamp(facet(number), stamp(number));
            stamps.stamp_prefix(&format!("http://a/{number}"), stamp(number));
        }
        let held: usize = stamps
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock();
                shard.young.hard.len() + shard.old.hard.len()
            })
            .sum();
        assert!((ROOM / 4..=ROOM + 2 * SHARDS).contains(&held), "{held}");
        assert!(stamps.prefixes.lock().recent.len() <= MOST_PREFIXES);
        for number in MANY - 100..=MANY {
            assert_eq!(stamps.newest(facet(number)).hard, Generation::of(number));
        }
        let oldest = stamps.newest(facet(1)).hard;
        assert!(oldest > Generation::of(1), "forgotten, so whoever began before is not stored");
        assert!(oldest < Generation::of(MANY - 100), "and who began lately is");
    }

    /// Two purges at once may be stamped in the other order than they were counted. The later one was then looked for
    /// before the earlier one, or had given it its place: what was fetched between the two was stored, and served.
    #[test]
    fn purges_at_once_are_found_in_whatever_order_they_are_stamped() {
        for other in ["http://a/x", "http://a/y"] {
            let stamps = Stamps::<ParkingLot>::new(64);
            stamps.stamp_prefix("http://a/x", stamp(6));
            stamps.stamp_prefix(other, stamp(5));
            let newest = stamps.newest_prefix("http://a/xy", Generation::of(5)).hard;
            assert_eq!(newest, Generation::of(6), "{other}");
        }
    }

    #[test]
    fn a_prefix_purged_again_and_again_takes_one_place() {
        let stamps = Stamps::<ParkingLot>::new(64);
        for number in 1..=10_000 {
            stamps.stamp_prefix("http://a/x", stamp(number));
        }
        assert_eq!(stamps.prefixes.lock().recent.len(), 1);
        assert_eq!(stamps.newest_prefix("http://a/xy", Generation::of(9_999)).hard, Generation::of(10_000));
        assert_eq!(stamps.newest_prefix("http://a/y", Generation::default()).hard, Generation::default());
    }
}
