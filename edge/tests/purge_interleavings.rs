//! Purge wins, on every interleaving tried: the edge's own [`Gate`] under shuttle, which runs its threads one at a time
//! and chooses at every lock who goes on.
//!
//! The tier behind the gate is a small map, written as the memory tier is: look, ask the fate, put in place, each under a
//! lock of its own, all inside [`Gate::write`]. A purge finds its entries as there: by the edge's own [`Carriers`], by the
//! key, or by a walk from place to place, past which an entry may move. What an origin would answer is a version that grows with each change, and
//! every change is followed by a purge. The property, asserted at every look-up: **what is found is no older than the last
//! purge that had been acknowledged when the look-up began** (or it is stale, where the purge was soft).
//!
//! A tier behind memory is another such map, offered what is stored and purged in its own time; what it may be asked for
//! while it is, the edge's own [`PendingPurges`] says.
//!
//! Both schedulers have fixed seeds: a failure repeats, and shuttle prints the schedule that led to it.
#![expect(clippy::disallowed_macros, reason = "a test prints what it has counted or is asked for")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, SystemTime},
};

use cache_policy::{Moment, NoVarySearch, Tag};
use edge::{
    cache::{
        Key,
        carriers::{Carried, Carriers, Cursor},
        pending_purges::PendingPurges,
        purge::{Answers, Counter, Fate, Force, Gate, Generation, Locking, Purgeable, Rule},
        rule_set::RuleSet,
        tier,
    },
    message::target::{Scheme, Target},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
    thread,
};

/// Interleavings tried by each scheduler for each story.
const EACH: usize = 10_000;
/// Places at which PCT lets a thread fall behind all others: enough for the races known of this design, with one to spare.
const CHANGES: usize = 4;

#[test]
fn what_is_fetched_while_its_tag_is_purged_is_never_found_afterwards() {
    let tally = explore("fetches, look-ups and one purge", |world| {
        world.spawn(|world| world.fetch(A));
        world.spawn(|world| world.fetch(A));
        world.spawn(|world| world.purge(by_tag(), Force::Hard));
        world.spawn(|world| {
            world.look_up(A);
            world.look_up(A);
            world.look_up(A);
        });
    });
    assert!(tally.refused.load(Relaxed) > 0, "some write came too late, or nothing was tested");
    assert!(tally.found.load(Relaxed) > 0, "some look-up found something, or nothing was tested");
}

#[test]
fn purges_at_the_same_time_are_each_kept() {
    let tally = explore("two purges, of a tag and of a host", |world| {
        world.spawn(|world| {
            world.fetch(A);
            world.fetch(B);
        });
        world.spawn(|world| world.purge(by_tag(), Force::Hard));
        world.spawn(|world| world.purge(Rule::Host("shop.example".into()), Force::Hard));
        world.spawn(|world| {
            world.look_up(A);
            world.look_up(B);
        });
    });
    assert!(tally.refused.load(Relaxed) > 0 && tally.found.load(Relaxed) > 0);
}

#[test]
fn no_write_brings_back_what_it_found_before_the_purge() {
    // A coding that was computed and a 304 both write an entry anew out of the one that they have seen.
    let tally = explore("a rewrite, a validation and one purge", |world| {
        world.fetch(A);
        world.spawn(|world| world.rewrite(A));
        world.spawn(|world| world.validate(A));
        world.spawn(|world| world.purge(Rule::Everything, Force::Hard));
        world.spawn(|world| {
            world.look_up(A);
            world.look_up(A);
        });
    });
    assert!(tally.refused.load(Relaxed) > 0 && tally.found.load(Relaxed) > 0);
}

#[test]
fn what_moves_past_a_walk_is_not_found_afterwards() {
    // A rewrite that has seen what was evicted puts it into the first free place, which the walk may have passed.
    let tally = explore("a rewrite, an eviction, a purge of everything, and a fetch", |world| {
        world.fetch(B);
        world.fetch(A);
        world.spawn(|world| {
            world.evict(B);
            world.evict(A);
        });
        world.spawn(|world| world.rewrite(A));
        world.spawn(|world| world.purge(Rule::Host("shop.example".into()), Force::Hard));
        world.spawn(|world| {
            world.look_up(A);
            world.look_up(A);
        });
    });
    assert!(tally.refused.load(Relaxed) > 0 && tally.found.load(Relaxed) > 0);
}

#[test]
fn what_answers_for_a_query_ends_with_it() {
    // `/c?u=1` says by No-Vary-Search that it answers for `/c?u=2`, which is changed.
    let tally = explore("fetches of one query, an invalidation and a purge of another", |world| {
        world.spawn(|world| world.fetch(C));
        world.spawn(|world| world.fetch(C));
        world.spawn(World::invalidate_equivalent);
        world.spawn(|world| world.purge(Rule::Key(EQUIVALENT.into()), Force::Hard));
        world.spawn(|world| {
            world.look_up(C);
            world.look_up(C);
        });
    });
    assert!(tally.refused.load(Relaxed) > 0 && tally.found.load(Relaxed) > 0);
}

#[test]
fn what_was_purged_softly_is_found_only_as_stale() {
    let tally = explore("a fetch, a rewrite and one soft purge", |world| {
        world.fetch(A);
        world.spawn(|world| world.fetch(A));
        world.spawn(|world| world.rewrite(A));
        world.spawn(|world| world.purge(by_tag(), Force::Soft));
        world.spawn(|world| {
            world.look_up(A);
            world.look_up(A);
        });
    });
    assert!(tally.stale.load(Relaxed) > 0, "some look-up found the old as stale, or nothing was tested");
}

#[test]
fn an_unsafe_request_ends_its_own_resource_and_no_other() {
    let tally = explore("a fetch and an invalidation", |world| {
        world.fetch(B);
        world.spawn(|world| world.fetch(A));
        world.spawn(|world| world.fetch(A));
        world.spawn(|world| world.invalidate(A));
        world.spawn(|world| {
            world.look_up(A);
            world.look_up(A);
            assert!(world.look_up(B), "another resource is left alone");
        });
    });
    assert!(tally.refused.load(Relaxed) > 0 && tally.found.load(Relaxed) > 0);
}

#[test]
fn what_a_tier_behind_memory_had_before_a_purge_is_never_found_afterwards() {
    let tally = explore("a tier's look-ups, a fetch and one purge of both", |world| {
        world.tiered.store(true, Relaxed);
        world.fetch(A);
        world.evict(A);
        world.spawn(|world| world.look_behind(A));
        world.spawn(|world| world.fetch_at_once(A));
        world.spawn(|world| world.purge_all_tiers(by_tag()));
        world.spawn(|world| {
            world.look_up(A);
            world.look_behind(A);
            world.look_up(A);
        });
    });
    assert!(tally.refused.load(Relaxed) > 0 && tally.found.load(Relaxed) > 0);
    assert!(
        tally.behind.load(Relaxed) > 0,
        "some look-up found something in the tier, or nothing was tested"
    );
    assert!(tally.left_alone.load(Relaxed) > 0, "some came while it was being purged, or nothing was tested");
}

/// shuttle's locks: each is a place where another thread may go first.
struct Shuttled;

impl Locking for Shuttled {
    type Mutex<T: Send> = shuttle::sync::Mutex<T>;
    type Counter = Count;
    type Hasher = foldhash::fast::FixedState;

    fn mutex<T: Send>(value: T) -> Self::Mutex<T> {
        shuttle::sync::Mutex::new(value)
    }

    fn locked<T: Send, R>(mutex: &Self::Mutex<T>, with: impl FnOnce(&mut T) -> R) -> R {
        with(&mut mutex.lock().unwrap())
    }
}

/// And so is each look at a number.
#[derive(Default)]
struct Count(shuttle::sync::atomic::AtomicU64);

impl Counter for Count {
    fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn up(&self) -> u64 {
        self.0.fetch_add(1, SeqCst) + 1
    }

    fn down(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    fn raise(&self, to: u64) {
        self.0.fetch_max(to, SeqCst);
    }
}

/// A resource, by its place among [`TARGETS`].
type Resource = usize;
const A: Resource = 0;
const B: Resource = 1;
/// One that answers for other queries.
const C: Resource = 2;

const TARGETS: [(&str, Option<&str>); 3] = [("/a", None), ("/b", None), ("/c", Some("u=1"))];
/// What C answers for.
const EQUIVALENT: &str = "https://shop.example:443/c?u=2";

fn key(target: (&str, Option<&str>)) -> Key {
    Key::new(&Target::new(Scheme::Https, "shop.example", 443, target))
}

fn no_vary_search(resource: Resource) -> Option<NoVarySearch> {
    let field = (HeaderName::from_static("no-vary-search"), HeaderValue::from_static("params=(\"u\")"));
    (resource == C).then(|| NoVarySearch::read(&HeaderMap::from_iter([field])).unwrap())
}

fn tags() -> [Tag; 1] {
    [Tag::Key("shoe".into())]
}

fn by_tag() -> Rule {
    Rule::Tag(Tag::Key("shoe".into()))
}

fn moment() -> Moment {
    Moment::from_epoch(Duration::from_secs(5))
}

#[derive(Clone, Debug)]
struct Entry {
    began: Generation,
    version: u64,
    stale: bool,
}

/// The gate, the map behind it, and the truth. Atomics of `std` are no places to switch: what they count, happens together
/// with the step before.
struct World {
    gate: Gate<Shuttled>,
    keys: [Key; 3],
    /// What is stored, each in a place; a new one takes the first that is free.
    places: shuttle::sync::Mutex<[Option<Held>; 3]>,
    carriers: Arc<Carriers<Shuttled>>,
    /// The tier behind the map, where a story has one.
    tiered: AtomicBool,
    behind: [shuttle::sync::Mutex<Option<Entry>>; 3],
    underway: PendingPurges<Shuttled>,
    /// What the origin would answer now.
    origin: [AtomicU64; 3],
    /// The newest version whose purge has returned.
    acknowledged: [AtomicU64; 3],
    threads: std::sync::Mutex<Vec<thread::JoinHandle<()>>>,
    events: std::sync::Mutex<Vec<(char, u64)>>,
    tally: Arc<Tally>,
}

/// A stored entry, findable by its tag.
#[derive(Clone)]
struct Held {
    resource: Resource,
    entry: Entry,
    _carried: Arc<Carried<Shuttled>>,
}

/// What happened over all interleavings.
#[derive(Default)]
struct Tally {
    interleavings: AtomicU64,
    refused: AtomicU64,
    found: AtomicU64,
    stale: AtomicU64,
    behind: AtomicU64,
    left_alone: AtomicU64,
    /// Hashes of the orders in which things were seen to happen.
    orders: std::sync::Mutex<HashSet<u64>>,
}

impl World {
    fn new(tally: &Arc<Tally>) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(64),
            keys: TARGETS.map(key),
            places: shuttle::sync::Mutex::default(),
            carriers: Arc::default(),
            tiered: AtomicBool::default(),
            behind: [None, None, None].map(shuttle::sync::Mutex::new),
            underway: PendingPurges::default(),
            origin: Default::default(),
            acknowledged: Default::default(),
            threads: std::sync::Mutex::default(),
            events: std::sync::Mutex::default(),
            tally: Arc::clone(tally),
        })
    }

    fn spawn(self: &Arc<Self>, act: impl FnOnce(&World) + Send + 'static) {
        let world = Arc::clone(self);
        let thread = thread::spawn(move || act(&world));
        self.threads.lock().unwrap().push(thread);
    }

    /// A request to the origin, whose answer is then stored.
    fn fetch(&self, resource: Resource) {
        let began = self.gate.generation();
        thread::yield_now();
        let version = self.origin[resource].load(Relaxed);
        thread::yield_now();
        self.store(resource, began, version);
    }

    /// A request without a pause. PCT takes who pauses for the least urgent of all, and would hardly ever stop it between
    /// its write and what comes after.
    fn fetch_at_once(&self, resource: Resource) {
        let began = self.gate.generation();
        self.store(resource, began, self.origin[resource].load(Relaxed));
    }

    /// A 304 stores the old body under a new head; anything else stores what came.
    fn validate(&self, resource: Resource) {
        let began = self.gate.generation();
        thread::yield_now();
        let version = self.origin[resource].load(Relaxed);
        let seen = self.peek(resource).filter(|entry| entry.version == version);
        self.store(resource, began, seen.map_or(version, |entry| entry.version));
    }

    /// As `Memory::store`: the tier is offered it in the same write.
    fn store(&self, resource: Resource, began: Generation, version: u64) {
        self.store_and(resource, began, version, |entry| {
            if self.tiered.load(Relaxed) {
                *self.behind[resource].lock().unwrap() = Some(entry.clone());
            }
        });
    }

    fn store_and(&self, resource: Resource, began: Generation, version: u64, stores: impl FnOnce(&Entry)) {
        let answers = if resource == C { Answers::Equivalents } else { Answers::Itself };
        if resource == C {
            self.carriers.expect_equivalents();
        }
        self.change(resource, |place| {
            let new = Purgeable { key: &self.keys[resource], tags: &tags(), answers };
            let stale = match self.gate.fate(began, new) {
                Fate::Alive => false,
                Fate::StaleSince(_) => true,
                Fate::Gone => return self.event('r', version, &self.tally.refused),
            };
            let entry = Entry { began, version, stale };
            stores(&entry);
            *place = Some(entry);
        });
    }

    /// A write that keeps what is there, as when a coding has been computed.
    fn rewrite(&self, resource: Resource) {
        self.change(resource, |_| ());
    }

    /// As `Memory::change`: while anyone walks, whatever was there before meets its fate on the way.
    fn change(&self, resource: Resource, change: impl FnOnce(&mut Option<Entry>)) {
        let key = &self.keys[resource];
        self.gate.write(key, || {
            let walked = self.gate.walked();
            let old = self.held(resource);
            let mut place = old.as_ref().map(|held| held.entry.clone());
            if walked {
                place = place.and_then(|entry| match self.gate.fate_of_place(entry.began, key) {
                    Fate::Alive => Some(entry),
                    Fate::StaleSince(_) => Some(Entry { stale: true, ..entry }),
                    Fate::Gone => {
                        self.event('g', entry.version, &self.tally.refused);
                        None
                    }
                });
            }
            change(&mut place);
            let new = place.map(|entry| {
                let carried = self.carriers.enter(key, &tags(), no_vary_search(resource)).unwrap();
                Held { resource, entry, _carried: Arc::new(carried) }
            });
            self.put(resource, new);
            drop(old);
        });
    }

    fn put(&self, resource: Resource, new: Option<Held>) {
        let mut places = self.places.lock().unwrap();
        let there =
            places.iter().position(|held| held.as_ref().is_some_and(|held| held.resource == resource));
        let place = there.or_else(|| places.iter().position(Option::is_none)).unwrap();
        let old = std::mem::replace(&mut places[place], new);
        drop(places);
        drop(old);
    }

    /// Memory has no room for it any more.
    fn evict(&self, resource: Resource) {
        if self.held(resource).is_some() {
            self.put(resource, None);
        }
    }

    /// As a fetch that asks the tier, and puts what it finds in memory.
    fn look_behind(&self, resource: Resource) {
        let floor = self.acknowledged[resource].load(Relaxed);
        let began = self.gate.generation();
        if self.underway.concerns(self.keys[resource].as_str()) {
            return self.event('u', floor, &self.tally.left_alone);
        }
        let found = self.behind[resource].lock().unwrap().clone();
        thread::yield_now();
        let Some(Entry { version, .. }) = found else { return };
        assert!(
            version >= floor,
            "the tier had version {version} after the purge of {floor} was acknowledged"
        );
        self.event('t', version, &self.tally.behind);
        self.store_and(resource, began, version, |_| ());
    }

    /// As `Memory::purge_all_tiers`.
    fn purge_all_tiers(&self, rule: Rule) {
        let purge = tier::Purge {
            rules: vec![rule.clone()],
            force: Force::Hard,
            at: SystemTime::UNIX_EPOCH,
            hearing: tier::Hearing::Everyone,
        };
        let purge = Arc::new(purge);
        let ticket = self.underway.begin(&purge);
        self.purge_and(rule, Force::Hard, || {
            for resource in [A, B, C] {
                if purge.rules.iter().any(|rule| rule.matches(self.keys[resource].as_str(), &tags())) {
                    *self.behind[resource].lock().unwrap() = None;
                }
            }
            self.underway.acknowledged(ticket);
        });
    }

    fn peek(&self, resource: Resource) -> Option<Entry> {
        self.held(resource).map(|held| held.entry)
    }

    fn held(&self, resource: Resource) -> Option<Held> {
        let places = self.places.lock().unwrap();
        places.iter().flatten().find(|held| held.resource == resource).cloned()
    }

    /// Changes all resources at the origin, and purges.
    fn purge(&self, rule: Rule, force: Force) {
        self.purge_and(rule, force, || ());
    }

    fn purge_and(&self, rule: Rule, force: Force, tell_tiers: impl FnOnce()) {
        let concerned = |resource: &Resource| {
            rule.matches(self.keys[*resource].as_str(), &tags())
                || (*resource == C && rule == Rule::Key(EQUIVALENT.into()))
        };
        let concerned: Vec<Resource> = [A, B, C].into_iter().filter(concerned).collect();
        let versions: Vec<u64> =
            concerned.iter().map(|resource| self.origin[*resource].fetch_add(1, Relaxed) + 1).collect();
        let rules = RuleSet::new(vec![rule]);
        self.gate.purge(&rules, force, moment(), |before| self.sweep(&rules, force, before));
        tell_tiers();
        for (resource, version) in concerned.iter().zip(&versions) {
            self.acknowledged[*resource].fetch_max(*version, Relaxed);
        }
        self.events.lock().unwrap().push(('p', versions[0]));
    }

    /// As `Memory::sweep`.
    fn sweep(&self, rules: &RuleSet, force: Force, before: Generation) {
        for rule in rules.rules() {
            match rule {
                Rule::Key(_) => self.sweep_equivalents(before),
                Rule::Tag(tag) => self.sweep_carriers(self.carriers.with_tag("", tag), force, before),
                _ => {}
            }
        }
        if rules.walk() {
            for place in 0..3 {
                let found = self.places.lock().unwrap()[place].clone();
                if let Some(held) = found {
                    self.visit(held.resource, force, before);
                }
            }
        }
    }

    fn sweep_carriers(&self, facet: u64, force: Force, before: Generation) {
        let mut cursor = Cursor::start();
        loop {
            let keys = self.carriers.read(facet, &mut cursor);
            if keys.is_empty() {
                return;
            }
            for key in &keys {
                self.visit(self.keys.iter().position(|known| known == key).unwrap(), force, before);
            }
        }
    }

    fn sweep_equivalents(&self, before: Generation) {
        for facet in self.carriers.equivalents_of(&key(("/c", Some("u=2")))) {
            self.sweep_carriers(facet, Force::Hard, before);
        }
    }

    /// As `Memory::visit`.
    fn visit(&self, resource: Resource, force: Force, before: Generation) {
        self.change(resource, |place| {
            let Some(entry) = place.as_mut().filter(|entry| entry.began < before) else { return };
            match force {
                Force::Hard => *place = None,
                Force::Soft => entry.stale = true,
            }
        });
    }

    /// Changes one resource at the origin through an unsafe request, as `Memory::invalidate`.
    fn invalidate(&self, resource: Resource) {
        self.invalidate_named(&self.keys[resource], resource);
    }

    /// Changes what C answers for, and so C.
    fn invalidate_equivalent(&self) {
        self.invalidate_named(&key(("/c", Some("u=2"))), C);
    }

    fn invalidate_named(&self, named: &Key, resource: Resource) {
        let version = self.origin[resource].fetch_add(1, Relaxed) + 1;
        self.gate.invalidate(named, |at| {
            if self.carriers.any_equivalents() {
                self.gate.wait_for_writers();
                self.sweep_equivalents(at);
            }
            if *named == self.keys[resource] {
                self.visit(resource, Force::Hard, at);
            }
        });
        self.acknowledged[resource].fetch_max(version, Relaxed);
        self.events.lock().unwrap().push(('i', version));
    }

    /// Looks up, and holds what it finds against the property.
    fn look_up(&self, resource: Resource) -> bool {
        let floor = self.acknowledged[resource].load(Relaxed);
        let found = self.peek(resource);
        if let Some(Entry { version, stale, .. }) = found {
            assert!(
                version >= floor || stale,
                "found version {version} after the purge of {floor} was acknowledged"
            );
            if version < floor {
                self.event('s', version, &self.tally.stale);
            } else {
                self.event('f', version, &self.tally.found);
            }
        }
        found.is_some()
    }

    fn event(&self, what: char, version: u64, count: &AtomicU64) {
        count.fetch_add(1, Relaxed);
        self.events.lock().unwrap().push((what, version));
    }

    /// When all is over: a fetch that begins now is stored and found, so the gate has not shut for good.
    fn end(&self) {
        for thread in std::mem::take(&mut *self.threads.lock().unwrap()) {
            thread.join().unwrap();
        }
        self.look_up(A);
        self.look_up(B);
        self.look_behind(A);
        self.look_up(A);
        self.fetch(A);
        let entry = self.peek(A).expect("what is fetched after every purge is stored");
        assert_eq!((entry.version, entry.stale), (self.origin[A].load(Relaxed), false));
        let mut hasher = DefaultHasher::new();
        self.events.lock().unwrap().hash(&mut hasher);
        self.tally.orders.lock().unwrap().insert(hasher.finish());
        self.tally.interleavings.fetch_add(1, Relaxed);
    }
}

/// Runs a story under both schedulers and prints how much was tried.
fn explore(name: &str, story: fn(&Arc<World>)) -> Arc<Tally> {
    let tally = Arc::<Tally>::default();
    run(RandomScheduler::new_from_seed(1, EACH), &tally, story);
    run(PctScheduler::new_from_seed(1, CHANGES, EACH), &tally, story);
    let Tally { interleavings, refused, found, stale, behind, left_alone, orders } = &*tally;
    println!(
        "{name}: {} interleavings, {} different orders of events; {} writes refused, {} entries found, {} as stale, {} in \
         the tier, which was left alone {} times",
        interleavings.load(Relaxed),
        orders.lock().unwrap().len(),
        refused.load(Relaxed),
        found.load(Relaxed),
        stale.load(Relaxed),
        behind.load(Relaxed),
        left_alone.load(Relaxed),
    );
    assert_eq!(interleavings.load(Relaxed), 2 * EACH as u64);
    tally
}

fn run(scheduler: impl Scheduler + 'static, tally: &Arc<Tally>, story: fn(&Arc<World>)) {
    let tally = Arc::clone(tally);
    Runner::new(scheduler, Config::new()).run(move || {
        let world = World::new(&tally);
        story(&world);
        world.end();
    });
}
