//! Purge wins: a purged response is never served again, even when a fetch of it is under way.
//!
//! A purge is a stamp with the next generation; every stored response remembers the generation at which its fetch
//! *began*. Three steps make it safe, in this order: the stamp is set; every write that looked at the stamps before is
//! waited for (the stripes); the stored responses are swept. A write that looks after the stamp sees it. So when
//! [`Gate::purge`] returns, nothing older is stored or ever will be, and look-ups need not check anything: a hit pays
//! nothing for purging.
//!
//! The sweep takes each resource out in a write of its own, so it and whoever else writes there take turns: what is
//! written anew out of what was there is either swept, or written out of what the sweep has left. A sweep that cannot
//! name its resources walks over all of them, and could miss one that is written to another place meanwhile: while
//! anyone walks ([`Gate::walked`]), every write asks the fate of what it finds in its place.
//!
//! What a fetch is asked about costs what it is itself (its key, host and tags: [`super::stamps`]), not what was purged
//! before, and is under no lock that all share.
//!
//! The locks are a parameter, so that an interleaving checker can run this very code.

use cache_policy::Moment;

use super::{
    Key,
    carriers::tag_facet,
    rule_set::{RuleSet, path_of},
    stamps::{Facet, Newest, Stamp, Stamps, hash},
};
pub use super::{
    locking::{Counter, Locking, ParkingLot},
    rule::{Answers, Fate, Force, Generation, Purgeable, Rule},
};

/// Orders writers and purges. Readers do not use it.
pub struct Gate<L: Locking = ParkingLot> {
    current: L::Counter,
    /// The newest purge of any tag: whether it concerns a fetch is unknown as long as the response is.
    newest_tag: L::Counter,
    /// Purges that walk over all that is stored.
    walks: L::Counter,
    stamps: Stamps<L>,
    /// Writers of one key take turns; a purge waits for one turn of each stripe.
    stripes: Vec<L::Mutex<()>>,
    hasher: L::Hasher,
}

impl<L: Locking> Gate<L> {
    /// A gate that remembers about so many purged things for fetches under way.
    pub fn new(room: usize) -> Self {
        Self {
            current: L::Counter::default(),
            newest_tag: L::Counter::default(),
            walks: L::Counter::default(),
            stamps: Stamps::new(room),
            stripes: (0..STRIPES).map(|_| L::mutex(())).collect(),
            hasher: L::Hasher::default(),
        }
    }

    /// The generation of a fetch that begins now.
    pub fn generation(&self) -> Generation {
        Generation(self.current.get())
    }

    /// A generation after all that have begun, which is no purge: what begins from now on is told apart.
    pub fn advance(&self) -> Generation {
        Generation(self.current.up())
    }

    /// Runs a write for a key, alone among the writes of its stripe. Every fate it reads holds until it has returned: no
    /// purge completes in between.
    pub fn write<R>(&self, key: &Key, write: impl FnOnce() -> R) -> R {
        let hash = self.hash(Facet::Key(key.url()));
        let stripe = (hash >> 32) as usize % self.stripes.len();
        L::locked(&self.stripes[stripe], |()| write())
    }

    /// What purges did to a response that is about to be stored.
    pub fn fate(&self, began: Generation, response: Purgeable<'_>) -> Fate {
        if self.current.get() <= began.0 {
            return Fate::Alive;
        }
        let Purgeable { key, tags, answers } = response;
        let mut newest = self.newest_of_place(began, key).or(self.newest(Facet::Key(key.url())));
        for tag in tags {
            newest = newest.or(self.newest(tag_facet(key.origin(), tag)));
        }
        if answers == Answers::Equivalents {
            let path = key.without_query();
            newest = newest.or(self.newest(Facet::Key(path))).or(self.newest(Facet::SomeQueryOf(path)));
        }
        fate_of(newest, began)
    }

    /// What purges did to whatever is stored in this place since its fetch began: to be asked by every write while
    /// anyone walks, of what it finds there.
    pub fn fate_of_place(&self, began: Generation, key: &Key) -> Fate {
        fate_of(self.newest_of_place(began, key), began)
    }

    /// Whether a purge walks over all that is stored. To be asked before a write looks at what is there.
    pub fn walked(&self) -> bool {
        self.walks.get() > 0
    }

    /// Whether a fetch that began at `began`, with its response still unknown, may bring a response purged since.
    pub fn outdated(&self, began: Generation, key: &Key) -> bool {
        if self.current.get() <= began.0 {
            return false;
        }
        let newest = self
            .newest_of_place(began, key)
            .or(self.newest(Facet::Key(key.url())))
            .or(self.newest(Facet::SomeGroupOf(key.origin())));
        self.newest_tag.get() > began.0 || fate_of(newest, began) != Fate::Alive
    }

    /// Invalidates one resource: as a hard purge of its key, but `drop_stored` is a write of the key, which drops every
    /// response that began before the generation it is given, and so is ordered with every other write of the key. What
    /// answers for it under other keys is the caller's, after [`Gate::wait_for_writers`].
    pub fn invalidate<R>(&self, key: &Key, drop_stored: impl FnOnce(Generation) -> R) -> R {
        let generation = Generation(self.current.up());
        self.stamp_key(key.url(), Stamp { generation, force: Force::Hard, at: Moment::default() });
        drop_stored(generation)
    }

    /// Purges: `sweep` removes the stored responses that match and began before the generation it is given, or makes
    /// them stale. When this returns, no response that matches and began before is served to anyone who asks from now
    /// on.
    pub fn purge<R>(
        &self,
        rules: &RuleSet,
        force: Force,
        at: Moment,
        sweep: impl FnOnce(Generation) -> R,
    ) -> R {
        let generation = Generation(self.current.up());
        let stamp = Stamp { generation, force, at };
        for rule in rules.rules() {
            self.stamp(rule, stamp);
        }
        let _walk = rules.walk().then(|| Walk::<L>::begin(&self.walks));
        self.wait_for_writers();
        sweep(generation)
    }

    /// Waits for every write that may have looked at the stamps before.
    pub fn wait_for_writers(&self) {
        for stripe in &self.stripes {
            L::locked(stripe, |()| ());
        }
    }

    fn stamp(&self, rule: &Rule, stamp: Stamp) {
        let facet = match rule {
            Rule::Everything => Facet::Everything,
            Rule::Host(host) => Facet::Host(host),
            Rule::Prefix(prefix) => {
                if let Some((path, _)) = prefix.split_once('?') {
                    self.stamps.stamp(self.hash(Facet::SomeQueryOf(path)), stamp);
                }
                return self.stamps.stamp_prefix(prefix, stamp);
            }
            Rule::Key(key) => return self.stamp_key(key, stamp),
            Rule::Tag(tag) => {
                self.newest_tag.raise(stamp.generation.0);
                tag_facet("", tag)
            }
            Rule::Group { origin, group } => {
                let origin = origin.strip_suffix('/').unwrap_or(origin);
                self.stamps.stamp(self.hash(Facet::SomeGroupOf(origin)), stamp);
                Facet::Group { origin, group: group.as_str() }
            }
        };
        self.stamps.stamp(self.hash(facet), stamp);
    }

    fn stamp_key(&self, key: &str, stamp: Stamp) {
        self.stamps.stamp(self.hash(Facet::Key(key)), stamp);
        let path = path_of(key);
        if path.len() < key.len() {
            self.stamps.stamp(self.hash(Facet::SomeQueryOf(path)), stamp);
        }
    }

    fn newest_of_place(&self, began: Generation, key: &Key) -> Newest {
        self.newest(Facet::Everything)
            .or(self.newest(Facet::Host(key.host())))
            .or(self.stamps.newest_prefix(key.as_str(), began))
    }

    fn newest(&self, facet: Facet<'_>) -> Newest {
        self.stamps.newest(self.hash(facet))
    }

    fn hash(&self, facet: Facet<'_>) -> u64 {
        hash(&self.hasher, facet)
    }
}

/// A walk under way.
struct Walk<'a, L: Locking>(&'a L::Counter);

impl<'a, L: Locking> Walk<'a, L> {
    fn begin(walks: &'a L::Counter) -> Self {
        walks.up();
        Self(walks)
    }
}

impl<L: Locking> Drop for Walk<'_, L> {
    fn drop(&mut self) {
        self.0.down();
    }
}

impl<L: Locking> std::fmt::Debug for Gate<L> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gate").finish_non_exhaustive()
    }
}

const STRIPES: usize = 64;

/// What the newest purges of something did to a response whose fetch began at `began`.
fn fate_of(newest: Newest, began: Generation) -> Fate {
    if newest.hard > began {
        Fate::Gone
    } else if newest.soft > began {
        Fate::StaleSince(newest.soft_at)
    } else {
        Fate::Alive
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::atomic::AtomicU64, time::Duration};

    use cache_policy::Tag;
    use parking_lot::Mutex;

    use super::*;

    const ROOM: usize = 4096;

    fn key(number: usize) -> Key {
        Key::of_text(&format!("https://shop.example:443/a?{number}")).unwrap()
    }

    fn tag(text: &str) -> Tag {
        Tag::Key(text.into())
    }

    fn at() -> Moment {
        Moment::from_epoch(Duration::from_secs(5))
    }

    fn fate<L: Locking>(gate: &Gate<L>, began: Generation, tags: &[Tag]) -> Fate {
        gate.fate(began, Purgeable { key: &key(0), tags, answers: Answers::Itself })
    }

    fn purge<L: Locking>(gate: &Gate<L>, rules: Vec<Rule>, force: Force) {
        gate.purge(&RuleSet::new(rules), force, at(), |_| ());
    }

    #[test]
    fn rules_match_what_they_name_and_nothing_else() {
        const KEY: &str = "https://shop.example:443/a?b";
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
        let gate = Gate::<ParkingLot>::new(ROOM);
        let before = gate.generation();
        purge(&gate, vec![Rule::Tag(tag("one"))], Force::Hard);
        let after = gate.generation();
        assert_eq!(fate(&gate, before, &[tag("one")]), Fate::Gone);
        assert_eq!(fate(&gate, before, &[tag("two")]), Fate::Alive);
        assert!(gate.outdated(before, &key(0)), "its tags are not known yet");
        assert!(!gate.outdated(after, &key(0)));
        assert_eq!(fate(&gate, after, &[tag("one")]), Fate::Alive);
        purge(&gate, vec![Rule::Everything], Force::Soft);
        assert_eq!(fate(&gate, after, &[]), Fate::StaleSince(at()));
        assert_eq!(fate(&gate, before, &[tag("one")]), Fate::Gone, "an older hard purge still counts");
    }

    #[test]
    fn every_rule_is_remembered_for_what_it_names_alone() {
        let origin: Box<str> = "https://shop.example:443/".into();
        let group = Tag::Group("g".into());
        for rule in [
            Rule::Everything,
            Rule::Host("shop.example".into()),
            Rule::Prefix("https://shop.example:443/a".into()),
            Rule::Key(key(0).as_str().into()),
            Rule::Tag(tag("one")),
            Rule::Group { origin, group: group.clone() },
        ] {
            let gate = Gate::<ParkingLot>::new(ROOM);
            let began = gate.generation();
            purge(&gate, vec![rule.clone()], Force::Hard);
            assert_eq!(fate(&gate, began, &[group.clone(), tag("one")]), Fate::Gone, "{rule:?}");
            assert!(gate.outdated(began, &key(0)), "{rule:?}");
            assert_eq!(fate(&gate, gate.generation(), &[group.clone(), tag("one")]), Fate::Alive);
        }
        for rule in [
            Rule::Host("shop".into()),
            Rule::Prefix("https://shop.example:443/b".into()),
            Rule::Key(key(1).as_str().into()),
            Rule::Group { origin: "https://other:443/".into(), group: group.clone() },
        ] {
            let gate = Gate::<ParkingLot>::new(ROOM);
            let began = gate.generation();
            purge(&gate, vec![rule.clone()], Force::Hard);
            assert_eq!(fate(&gate, began, &[group.clone(), tag("one")]), Fate::Alive, "{rule:?}");
            assert!(!gate.outdated(began, &key(0)), "{rule:?}");
        }
    }

    /// 4096 slots were shared by all resources: a third invalidation in a slot took every fetch of any resource there for
    /// outdated, so 10,000 unsafe requests a second left hardly any fetch to be shared or stored.
    #[test]
    fn ten_thousand_invalidations_elsewhere_leave_a_fetch_alone_and_one_of_its_own_ends_it() {
        let gate = Gate::<ParkingLot>::new(131_072);
        let began = gate.generation();
        let others = (1..=10_000).map(key);
        others.for_each(|other| gate.invalidate(&other, |_| ()));
        let outdated = (10_001..20_000).filter(|fetched| gate.outdated(began, &key(*fetched))).count();
        assert_eq!(outdated, 0, "of 10,000 fetches of other resources");
        assert_eq!(fate(&gate, began, &[]), Fate::Alive);
        gate.invalidate(&key(0), |_| ());
        assert_eq!(fate(&gate, began, &[]), Fate::Gone);
        assert_eq!(fate(&gate, gate.generation(), &[]), Fate::Alive);
    }

    /// A purge of `/a?2` left alone the fetch of `/a?1` whose answer, by its No-Vary-Search, was to answer for `/a?2`.
    #[test]
    fn a_purge_of_a_query_ends_fetches_of_what_may_answer_for_it() {
        let gate = Gate::<ParkingLot>::new(ROOM);
        let began = gate.generation();
        gate.invalidate(&key(2), |_| ());
        let fate = |answers| gate.fate(began, Purgeable { key: &key(1), tags: &[], answers });
        assert_eq!((fate(Answers::Itself), fate(Answers::Equivalents)), (Fate::Alive, Fate::Gone));
    }

    #[test]
    fn a_fetch_that_outlasts_the_memory_of_purges_is_not_stored() {
        let gate = Gate::<ParkingLot>::new(ROOM);
        let began = gate.generation();
        for number in 0..4 * ROOM {
            purge(&gate, vec![Rule::Tag(tag(&number.to_string()))], Force::Hard);
        }
        assert_eq!(fate(&gate, began, &[]), Fate::Gone);
        assert_eq!(fate(&gate, gate.generation(), &[]), Fate::Alive);
        let began = gate.generation();
        for number in 0..1000 {
            purge(&gate, vec![Rule::Prefix(format!("https://other/{number}").into())], Force::Hard);
        }
        assert_eq!(fate(&gate, began, &[]), Fate::Gone);
        assert_eq!(fate(&gate, gate.generation(), &[]), Fate::Alive);
    }

    thread_local! {
        static LOCKED: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts how often a lock is taken: each guards one look into a table.
    struct Counted;

    impl Locking for Counted {
        type Mutex<T: Send> = Mutex<T>;
        type Counter = AtomicU64;
        type Hasher = foldhash::fast::RandomState;

        fn mutex<T: Send>(value: T) -> Mutex<T> {
            ParkingLot::mutex(value)
        }

        fn locked<T: Send, R>(mutex: &Mutex<T>, with: impl FnOnce(&mut T) -> R) -> R {
            LOCKED.set(LOCKED.get() + 1);
            ParkingLot::locked(mutex, with)
        }
    }

    /// A miss walked over all past purges and their rules under one lock: after 600 purges of 500 tags that were 300,000
    /// comparisons for each variant.
    #[test]
    fn what_a_fetch_is_asked_costs_what_it_is_and_not_what_was_purged_before() {
        let gate = Gate::<Counted>::new(ROOM);
        let tags = [tag("one"), tag("two")];
        let asked = |began| {
            LOCKED.set(0);
            fate(&gate, began, &tags);
            gate.outdated(began, &key(0));
            LOCKED.get()
        };
        let began = gate.generation();
        assert_eq!(asked(began), 0, "nothing was purged since");
        purge(&gate, vec![Rule::Tag(tag("x"))], Force::Hard);
        let after_one = asked(began);
        for number in 0..600 {
            let rules = (0..500).map(|word| Rule::Tag(tag(&format!("{number}-{word}")))).collect();
            purge(&gate, rules, Force::Hard);
        }
        assert_eq!(asked(began), after_one);
        assert!(after_one <= 12, "{after_one}");
    }
}
