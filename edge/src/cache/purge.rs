//! Purge wins: a purged response is never served again, even when a fetch of it is under way.
//!
//! A purge is a stamp with the next generation; every stored response remembers the generation at which its fetch
//! *began*. Three steps make it safe, in this order: the stamp is set; every write that looked at the stamps before is
//! waited for (the stripes); the stored responses are swept. A write that looks after the stamp sees it. So when
//! [`Gate::purge`] returns, nothing older is stored or ever will be, and look-ups need not check anything: a hit pays
//! nothing for purging.
//!
//! The locks are a parameter, so that an interleaving checker can run this very code.

use std::collections::VecDeque;

use cache_policy::{Moment, Tag};
use parking_lot::Mutex;

/// Counts purges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

impl Generation {
    /// Whether exactly one purge lies between the two.
    pub fn is_next_after(self, earlier: Self) -> bool {
        self.0 == earlier.0 + 1
    }
}

/// Which responses a purge concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everything stored.
    Everything,
    /// Everything of a host (lower case), on every port and scheme.
    Host(Box<str>),
    /// Every resource whose key begins with this text; a key is `scheme://host:port/path?query`.
    Prefix(Box<str>),
    /// One resource in all its variants.
    Key(Box<str>),
    /// Every response that carries this tag (Surrogate-Key, Cache-Tag).
    Tag(Tag),
    /// Every response of one origin (`scheme://host:port/`) that carries this group (RFC 9875 §2).
    Group {
        /// The origin, with which its keys begin.
        origin: Box<str>,
        group: Tag,
    },
}

impl Rule {
    /// Whether it matches the response stored under `key` with `tags` (sorted).
    pub fn matches(&self, key: &str, tags: &[Tag]) -> bool {
        match self {
            Self::Everything => true,
            Self::Host(host) => host_of(key).is_some_and(|of_key| *of_key == **host),
            Self::Prefix(prefix) => key.starts_with(&**prefix),
            Self::Key(one) => **one == *key,
            Self::Tag(tag) => tags.binary_search(tag).is_ok(),
            Self::Group { origin, group } => key.starts_with(&**origin) && tags.binary_search(group).is_ok(),
        }
    }

    /// Whether it may match a response for `key` of which nothing else is known yet.
    pub fn may_concern(&self, key: &str) -> bool {
        match self {
            Self::Tag(_) => true,
            Self::Group { origin, .. } => key.starts_with(&**origin),
            rule => rule.matches(key, &[]),
        }
    }
}

impl Stamp {
    fn may_concern(&self, key: &str) -> bool {
        self.rules.iter().any(|rule| rule.may_concern(key))
    }
}

/// The host in a key: between `://` and the last colon of the authority.
fn host_of(key: &str) -> Option<&str> {
    let authority = key.split_once("://")?.1.split('/').next()?;
    Some(authority.rsplit_once(':')?.0)
}

/// The name of a resource: its key, and the key's hash.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// The text of [`super::Key::as_str`].
    pub key: &'a str,
    /// By a hasher that stays the same for the gate's life.
    pub hash: u64,
}

/// Whether purged responses are removed or only stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// They are never served again.
    Hard,
    /// They are stale from now on: validated before use, and served stale where policy permits.
    Soft,
}

/// What purges did to a response since its fetch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No purge matched it.
    Alive,
    /// A soft purge matched it at this moment.
    StaleSince(Moment),
    /// A hard purge matched it.
    Gone,
}

#[derive(Debug)]
struct Stamp {
    generation: Generation,
    rules: Vec<Rule>,
    force: Force,
    at: Moment,
}

#[derive(Debug)]
struct Stamps {
    current: Generation,
    /// Oldest first, at most [`MOST_STAMPS`].
    recent: VecDeque<Stamp>,
    /// The newest generation whose stamp has been forgotten: a response whose fetch began before is no longer stored.
    forgotten: Generation,
    /// When resources were last invalidated, by a part of their key's hash: needed for fetches under way, since stored
    /// responses are dropped at once. Unsafe requests are many, and must neither fill the stamps nor grow anything;
    /// three resources in one slot may cost a fetch, and nothing else.
    invalidated: Vec<Invalidated>,
}

/// The last invalidation in a slot, and the last one of any other resource in it.
#[derive(Clone, Copy, Debug, Default)]
struct Invalidated {
    hash: u64,
    at: Generation,
    others: Generation,
}

impl Stamps {
    fn new() -> Self {
        Self {
            current: Generation::default(),
            recent: VecDeque::new(),
            forgotten: Generation::default(),
            invalidated: vec![Invalidated::default(); SLOTS],
        }
    }

    fn invalidated_since(&self, began: Generation, hash: u64) -> bool {
        let last = &self.invalidated[slot(hash)];
        let at = if last.hash == hash { last.at } else { last.others };
        at > began
    }

    fn fate(&self, began: Generation, key: &str, tags: &[Tag]) -> Fate {
        let mut fate = Fate::Alive;
        for stamp in self.recent.iter().rev().take_while(|stamp| stamp.generation > began) {
            if stamp.rules.iter().any(|rule| rule.matches(key, tags)) {
                match stamp.force {
                    Force::Hard => return Fate::Gone,
                    Force::Soft if fate == Fate::Alive => fate = Fate::StaleSince(stamp.at),
                    Force::Soft => {}
                }
            }
        }
        fate
    }
}

/// How [`Gate`] locks: parking_lot, or an interleaving checker's own locks.
pub trait Locking {
    /// A lock round a value.
    type Mutex<T: Send>: Send + Sync;
    /// A new lock.
    fn mutex<T: Send>(value: T) -> Self::Mutex<T>;
    /// Runs `with` while holding the lock.
    fn locked<T: Send, R>(mutex: &Self::Mutex<T>, with: impl FnOnce(&mut T) -> R) -> R;
}

/// The locks the edge runs with.
#[derive(Debug)]
pub struct ParkingLot;

impl Locking for ParkingLot {
    type Mutex<T: Send> = Mutex<T>;

    fn mutex<T: Send>(value: T) -> Mutex<T> {
        Mutex::new(value)
    }

    fn locked<T: Send, R>(mutex: &Mutex<T>, with: impl FnOnce(&mut T) -> R) -> R {
        with(&mut mutex.lock())
    }
}

/// Orders writers and purges. Readers do not use it.
pub struct Gate<L: Locking = ParkingLot> {
    stamps: L::Mutex<Stamps>,
    /// Writers of one key take turns; a purge waits for one turn of each stripe.
    stripes: Vec<L::Mutex<()>>,
}

impl<L: Locking> Default for Gate<L> {
    fn default() -> Self {
        Self { stamps: L::mutex(Stamps::new()), stripes: (0..STRIPES).map(|_| L::mutex(())).collect() }
    }
}

impl<L: Locking> Gate<L> {
    /// The generation of a fetch that begins now.
    pub fn generation(&self) -> Generation {
        L::locked(&self.stamps, |stamps| stamps.current)
    }

    /// Runs a write for a key (by its hash), alone among the writes of its stripe. Every fate it reads holds until it
    /// has returned: no purge completes in between.
    pub fn write<R>(&self, hash: u64, write: impl FnOnce() -> R) -> R {
        // The hash's upper half: its lower bits choose the memory tier's shard.
        let stripe = (hash >> 32) as usize % self.stripes.len();
        L::locked(&self.stripes[stripe], |()| write())
    }

    /// What purges did to a stored response whose fetch began at `began`. An invalidated response is no longer stored:
    /// see [`Gate::invalidate`].
    pub fn fate(&self, began: Generation, name: Name<'_>, tags: &[Tag]) -> Fate {
        L::locked(&self.stamps, |stamps| stamps.fate(began, name.key, tags))
    }

    /// Whether a fetch that began at `began`, with its response still unknown, may bring a response purged since.
    pub fn outdated(&self, began: Generation, name: Name<'_>) -> bool {
        L::locked(&self.stamps, |stamps| {
            let since = stamps.recent.iter().rev().take_while(|stamp| stamp.generation > began);
            began < stamps.forgotten
                || stamps.invalidated_since(began, name.hash)
                || since.into_iter().any(|stamp| stamp.may_concern(name.key))
        })
    }

    /// What purges did to a response that is about to be stored for the first time.
    pub fn fate_of_new(&self, began: Generation, name: Name<'_>, tags: &[Tag]) -> Fate {
        L::locked(&self.stamps, |stamps| {
            if began < stamps.forgotten || stamps.invalidated_since(began, name.hash) {
                Fate::Gone
            } else {
                stamps.fate(began, name.key, tags)
            }
        })
    }

    /// Invalidates one resource: as a hard purge of its key, but at the cost of this key alone. `drop_stored` is a
    /// write of the key, which drops every response that began before the generation it is given.
    pub fn invalidate<R>(&self, hash: u64, drop_stored: impl FnOnce(Generation) -> R) -> R {
        let at = L::locked(&self.stamps, |stamps| {
            stamps.current.0 += 1;
            let at = stamps.current;
            let last = &mut stamps.invalidated[slot(hash)];
            // The invalidation forgotten here counts for every resource of the slot but the one that is remembered.
            let others = if last.hash == hash { last.others } else { last.at.max(last.others) };
            *last = Invalidated { hash, at, others };
            at
        });
        drop_stored(at)
    }

    /// Purges: `sweep` removes the stored responses that match, or makes them stale. When this returns, no response
    /// that matches and began before is served to anyone who asks from now on.
    pub fn purge<R>(
        &self,
        rules: Vec<Rule>,
        force: Force,
        at: Moment,
        sweep: impl FnOnce(&[Rule]) -> R,
    ) -> R {
        let for_sweep = rules.clone();
        L::locked(&self.stamps, |stamps| {
            stamps.current.0 += 1;
            let generation = stamps.current;
            stamps.recent.push_back(Stamp { generation, rules, force, at });
            if stamps.recent.len() > MOST_STAMPS
                && let Some(oldest) = stamps.recent.pop_front()
            {
                stamps.forgotten = oldest.generation;
            }
        });
        for stripe in &self.stripes {
            L::locked(stripe, |()| ());
        }
        sweep(&for_sweep)
    }
}

impl<L: Locking> std::fmt::Debug for Gate<L> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gate").finish_non_exhaustive()
    }
}

fn slot(hash: u64) -> usize {
    (hash >> 40) as usize % SLOTS
}

const STRIPES: usize = 64;
/// 96 KiB in all.
const SLOTS: usize = 4096;
/// Purges remembered for fetches under way; a fetch that sees more purges than this is not stored.
const MOST_STAMPS: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KEY: &str = "https://shop.example:443/a?b";
    const NAME: Name<'_> = Name { key: KEY, hash: 7 };

    fn tag(text: &str) -> Tag {
        Tag::Key(text.into())
    }

    #[test]
    fn rules_match_what_they_name_and_nothing_else() {
        let tags = [tag("one"), tag("two")];
        let matching = [
            Rule::Everything,
            Rule::Host("shop.example".into()),
            Rule::Prefix("https://shop.example:443/".into()),
            Rule::Key(KEY.into()),
            Rule::Tag(tag("two")),
        ];
        for rule in matching {
            assert!(rule.matches(KEY, &tags), "{rule:?}");
        }
        let others = [
            Rule::Host("shop".into()),
            Rule::Prefix("https://shop.example:443/b".into()),
            Rule::Key("https://shop.example:443/a".into()),
            Rule::Tag(tag("three")),
            Rule::Group { origin: "https://shop.example:443/".into(), group: Tag::Group("one".into()) },
        ];
        for rule in others {
            assert!(!rule.matches(KEY, &tags), "{rule:?}");
        }
    }

    #[test]
    fn what_began_before_a_purge_is_gone_and_what_began_after_is_not() {
        let gate = Gate::<ParkingLot>::default();
        let at = Moment::from_epoch(Duration::from_secs(5));
        let before = gate.generation();
        gate.purge(vec![Rule::Tag(tag("one"))], Force::Hard, at, |_| ());
        let after = gate.generation();
        assert_eq!(gate.fate_of_new(before, NAME, &[tag("one")]), Fate::Gone);
        assert_eq!(gate.fate_of_new(before, NAME, &[tag("two")]), Fate::Alive);
        assert!(gate.outdated(before, NAME), "its tags are not known yet");
        assert!(!gate.outdated(after, NAME));
        assert_eq!(gate.fate_of_new(after, NAME, &[tag("one")]), Fate::Alive);
        gate.purge(vec![Rule::Everything], Force::Soft, at, |_| ());
        assert_eq!(gate.fate(after, NAME, &[]), Fate::StaleSince(at));
        assert_eq!(gate.fate(before, NAME, &[tag("one")]), Fate::Gone, "an older hard purge still counts");
    }

    #[test]
    fn many_invalidations_elsewhere_leave_a_fetch_alone_and_one_of_its_own_ends_it() {
        let gate = Gate::<ParkingLot>::default();
        let began = gate.generation();
        for _ in 0..2 * MOST_STAMPS {
            gate.invalidate(1 << 40, |_| ());
        }
        assert_eq!(gate.fate_of_new(began, NAME, &[]), Fate::Alive);
        assert!(!gate.outdated(began, NAME));
        gate.invalidate(NAME.hash, |_| ());
        assert_eq!(gate.fate_of_new(began, NAME, &[]), Fate::Gone);
        assert_eq!(gate.fate_of_new(gate.generation(), NAME, &[]), Fate::Alive);
    }

    #[test]
    fn invalidations_that_share_a_slot_cost_a_fetch_and_nothing_that_is_stored() {
        let gate = Gate::<ParkingLot>::default();
        let began = gate.generation();
        for other in [1, 2, 3] {
            assert_eq!(slot(other), slot(NAME.hash));
            gate.invalidate(other, |_| ());
        }
        assert_eq!(
            gate.fate(began, NAME, &[]),
            Fate::Alive,
            "whatever is written next of what is stored stays"
        );
        assert_eq!(gate.fate_of_new(began, NAME, &[]), Fate::Gone, "a fetch may have been of any of them");
    }

    #[test]
    fn a_fetch_that_outlasts_the_memory_of_purges_is_not_stored() {
        let gate = Gate::<ParkingLot>::default();
        let began = gate.generation();
        for _ in 0..=MOST_STAMPS {
            gate.purge(vec![Rule::Tag(tag("x"))], Force::Hard, Moment::from_epoch(Duration::ZERO), |_| ());
        }
        assert_eq!(gate.fate_of_new(began, NAME, &[]), Fate::Gone);
        assert_eq!(gate.fate_of_new(gate.generation(), NAME, &[]), Fate::Alive);
    }
}
