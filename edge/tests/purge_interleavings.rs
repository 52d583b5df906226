//! Purge wins, on every interleaving tried: the edge's own [`Gate`] under shuttle, which runs its threads one at a time
//! and chooses at every lock who goes on.
//!
//! The tier behind the gate is a small map, written as the memory tier is: look, ask the fate, put in place, each under a
//! lock of its own, all inside [`Gate::write`]. What an origin would answer is a version that grows with each change, and
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
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use cache_policy::{Moment, Tag};
use edge::cache::{
    pending_purges::PendingPurges,
    purge::{Fate, Force, Gate, Generation, Locking, Name, Rule},
    tier,
};
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

    fn mutex<T: Send>(value: T) -> Self::Mutex<T> {
        shuttle::sync::Mutex::new(value)
    }

    fn locked<T: Send, R>(mutex: &Self::Mutex<T>, with: impl FnOnce(&mut T) -> R) -> R {
        with(&mut mutex.lock().unwrap())
    }
}

/// A resource of the map, by its place there.
type Resource = usize;
const A: Resource = 0;
const B: Resource = 1;

/// In different stripes, and apart in the gate's memory of invalidations.
const NAMES: [Name<'static>; 2] = [
    Name { key: "https://shop.example:443/a", hash: 1 << 32 },
    Name { key: "https://shop.example:443/b", hash: (1 << 40) + (2 << 32) },
];

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
    shelves: [shuttle::sync::Mutex<Option<Entry>>; 2],
    /// The tier behind the map, where a story has one.
    tiered: AtomicBool,
    behind: [shuttle::sync::Mutex<Option<Entry>>; 2],
    underway: PendingPurges<Shuttled>,
    /// What the origin would answer now.
    origin: [AtomicU64; 2],
    /// The newest version whose purge has returned.
    acknowledged: [AtomicU64; 2],
    threads: std::sync::Mutex<Vec<thread::JoinHandle<()>>>,
    events: std::sync::Mutex<Vec<(char, u64)>>,
    tally: Arc<Tally>,
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
            gate: Gate::default(),
            shelves: [None, None].map(shuttle::sync::Mutex::new),
            tiered: AtomicBool::default(),
            behind: [None, None].map(shuttle::sync::Mutex::new),
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
        self.change(resource, |place| {
            let stale = match self.gate.fate_of_new(began, NAMES[resource], &tags()) {
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

    /// As `Memory::change`: whatever was there before meets its fate on the way.
    fn change(&self, resource: Resource, change: impl FnOnce(&mut Option<Entry>)) {
        let name = NAMES[resource];
        self.gate.write(name.hash, || {
            let mut place =
                self.peek(resource).and_then(|entry| match self.gate.fate(entry.began, name, &tags()) {
                    Fate::Alive => Some(entry),
                    Fate::StaleSince(_) => Some(Entry { stale: true, ..entry }),
                    Fate::Gone => {
                        self.event('g', entry.version, &self.tally.refused);
                        None
                    }
                });
            change(&mut place);
            *self.shelves[resource].lock().unwrap() = place;
        });
    }

    /// Memory has no room for it any more.
    fn evict(&self, resource: Resource) {
        *self.shelves[resource].lock().unwrap() = None;
    }

    /// As a fetch that asks the tier, and puts what it finds in memory.
    fn look_behind(&self, resource: Resource) {
        let floor = self.acknowledged[resource].load(Relaxed);
        let began = self.gate.generation();
        if self.underway.concerns(NAMES[resource].key) {
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
        let purge = tier::Purge { rules: vec![rule.clone()], force: Force::Hard, at: SystemTime::UNIX_EPOCH };
        let purge = Arc::new(purge);
        let ticket = self.underway.begin(&purge);
        self.purge_and(rule, Force::Hard, || {
            for resource in [A, B] {
                if purge.rules.iter().any(|rule| rule.matches(NAMES[resource].key, &tags())) {
                    *self.behind[resource].lock().unwrap() = None;
                }
            }
            self.underway.acknowledged(ticket);
        });
    }

    fn peek(&self, resource: Resource) -> Option<Entry> {
        self.shelves[resource].lock().unwrap().clone()
    }

    /// Changes both resources at the origin, and purges.
    fn purge(&self, rule: Rule, force: Force) {
        self.purge_and(rule, force, || ());
    }

    fn purge_and(&self, rule: Rule, force: Force, tell_tiers: impl FnOnce()) {
        let versions = [A, B].map(|resource| self.origin[resource].fetch_add(1, Relaxed) + 1);
        self.gate.purge(vec![rule], force, moment(), |rules| {
            for resource in [A, B] {
                let matches = rules.iter().any(|rule| rule.matches(NAMES[resource].key, &tags()));
                match force {
                    Force::Hard if matches => *self.shelves[resource].lock().unwrap() = None,
                    Force::Soft if matches && self.peek(resource).is_some() => self.rewrite(resource),
                    _ => {}
                }
            }
        });
        tell_tiers();
        for resource in [A, B] {
            self.acknowledged[resource].fetch_max(versions[resource], Relaxed);
        }
        self.events.lock().unwrap().push(('p', versions[A]));
    }

    /// Changes one resource at the origin through an unsafe request, as `Memory::invalidate`.
    fn invalidate(&self, resource: Resource) {
        let version = self.origin[resource].fetch_add(1, Relaxed) + 1;
        self.gate.invalidate(NAMES[resource].hash, |at| {
            self.change(resource, |place| {
                if place.as_ref().is_some_and(|entry| entry.began < at) {
                    self.event('g', 0, &self.tally.refused);
                    *place = None;
                }
            });
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
