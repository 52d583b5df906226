//! How often the memory tier has what is asked for, beside LRU and beside the best that can be known afterwards.
//!
//! The tier is the real one, with its own weights; objects are of equal size, so that all three hold equally many. Traces
//! are made with a fixed seed. The optimum is Belady's: it drops what is asked for again latest, and does not even take
//! in what is asked for later than all it holds. Nobody can be better; to come near it takes knowledge of the future.
#![expect(clippy::disallowed_macros, reason = "a test prints what it has counted or is asked for")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cache_policy::{LifetimeSource, Meta, Moment, StaleBan, Validators};
use edge::{
    cache::{Key, Memory, Stored, StoredBody, stored::Facts},
    message::target::Scheme,
    request::inbound,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode};

/// Different objects that are asked for by popularity.
const OBJECTS: usize = 50_000;
const REQUESTS: usize = 400_000;
/// The start, in which every cache fills up, does not count.
const WARM_UP: usize = REQUESTS / 4;
/// Bytes of each object's body.
const BODY: usize = 8 * 1024;

#[test]
fn the_memory_tier_keeps_what_is_popular() {
    println!("{OBJECTS} objects, {REQUESTS} requests; hit ratios in %");
    println!("{:<36} {:>6} | {:>6} {:>6} {:>8}", "trace", "holds", "LRU", "edge", "optimum");
    for (name, trace) in [
        ("Zipf 0.8", zipf(0.8)),
        ("Zipf 1.0", zipf(1.0)),
        ("Zipf 0.8, a third one-hit wonders", with_one_hit_wonders(&zipf(0.8))),
        ("Zipf 1.0, a third one-hit wonders", with_one_hit_wonders(&zipf(1.0))),
        ("Zipf 1.0, a scan every 20,000", with_scans(&zipf(1.0))),
        ("Zipf 0.8, a scan every 20,000", with_scans(&zipf(0.8))),
    ] {
        for holds in [500, 2_500, 5_000] {
            let lru = ratio(&trace, &mut Lru::new(holds));
            let edge = ratio(&trace, &mut Tier::new(holds));
            let optimum = ratio(&trace, &mut Belady::new(&trace, holds));
            println!("{name:<36} {holds:>6} | {lru:>6.2} {edge:>6.2} {optimum:>8.2}");
            assert!(edge <= optimum + 0.2, "{name}, {holds}: better than the best means a wrong measure");
            assert!(edge >= lru, "{name}, {holds}: LRU has {lru:.2}, the edge {edge:.2}");
            assert!(optimum - edge <= FROM_OPTIMUM, "{name}, {holds}: edge {edge:.2}, optimum {optimum:.2}");
        }
    }
}

/// Percentage points that the edge may be below the optimum.
const FROM_OPTIMUM: f64 = 15.0;

/// An object's number.
type Object = u32;

trait Cache {
    /// Whether it is there; it is from now on, if the cache so wishes.
    fn request(&mut self, object: Object) -> bool;
}

/// The percentage of hits after the start.
fn ratio(trace: &[Object], cache: &mut impl Cache) -> f64 {
    let mut hits = 0_u32;
    for (at, object) in trace.iter().enumerate() {
        let hit = cache.request(*object);
        hits += u32::from(hit && at >= WARM_UP);
    }
    f64::from(hits) * 100.0 / f64::from(u32::try_from(trace.len() - WARM_UP).unwrap())
}

/// The edge's own.
struct Tier {
    memory: Memory,
    origin: Key,
    stored: Arc<Stored>,
}

impl Tier {
    fn new(holds: usize) -> Self {
        let request = Request::get("/").header("host", "shop.example").body(()).unwrap();
        let inbound = inbound::read(&request.into_parts().0, Scheme::Https).unwrap();
        let origin = Key::new(&inbound);
        let weighed = Memory::new(64 << 20, 1, Arc::default());
        let stored = stored(&weighed);
        weighed.store(&key(&origin, 0), Arc::clone(&stored));
        let memory = Memory::new(weighed.weight() * holds as u64, 1, Arc::default());
        Self { memory, origin, stored }
    }
}

impl Cache for Tier {
    fn request(&mut self, object: Object) -> bool {
        let key = key(&self.origin, object);
        let hit = self.memory.look_up(&key).is_some();
        if !hit {
            self.memory.store(&key, Arc::clone(&self.stored));
        }
        hit
    }
}

/// All of the same length, so that all entries weigh the same.
fn key(origin: &Key, object: Object) -> Key {
    origin.same_origin(&format!("/{object:010}"))
}

fn stored(memory: &Memory) -> Arc<Stored> {
    let mut head = HeaderMap::new();
    head.insert("content-type", HeaderValue::from_static("image/webp"));
    let meta = Meta {
        status: StatusCode::OK,
        validators: Validators::default(),
        received_at: Moment::from_epoch(Duration::ZERO),
        age_at_arrival: Duration::ZERO,
        lifetime: Duration::from_secs(3600),
        lifetime_source: LifetimeSource::MaxAge,
        for_everyone: false,
        fresh_until: Moment::from_epoch(Duration::from_secs(3600)),
        no_cache: false,
        immutable: false,
        shareable: true,
        stale_ban: StaleBan::None,
        stale_while_revalidate: None,
        stale_if_error: None,
    };
    let facts = Facts {
        meta,
        vary: Box::default(),
        variant: Box::default(),
        tags: Box::default(),
        began: memory.generation(),
        codable: false,
    };
    Arc::new(Stored::new(facts, &head, StoredBody::new(&[Bytes::from_static(&[0; BODY])])))
}

/// Drops what was asked for longest ago.
struct Lru {
    holds: usize,
    now: usize,
    last: HashMap<Object, usize>,
    by_last: BTreeMap<usize, Object>,
}

impl Lru {
    fn new(holds: usize) -> Self {
        Self { holds, now: 0, last: HashMap::new(), by_last: BTreeMap::new() }
    }
}

impl Cache for Lru {
    fn request(&mut self, object: Object) -> bool {
        self.now += 1;
        let before = self.last.insert(object, self.now);
        if let Some(before) = before {
            self.by_last.remove(&before);
        }
        self.by_last.insert(self.now, object);
        if self.last.len() > self.holds
            && let Some((_, oldest)) = self.by_last.pop_first()
        {
            self.last.remove(&oldest);
        }
        before.is_some()
    }
}

/// Knows the future.
struct Belady {
    holds: usize,
    now: usize,
    /// For each request, when the same object is asked for next.
    next: Vec<usize>,
    held: HashMap<Object, usize>,
    by_next: BTreeSet<(usize, Object)>,
}

impl Belady {
    fn new(trace: &[Object], holds: usize) -> Self {
        let mut next = vec![usize::MAX; trace.len()];
        let mut seen = HashMap::new();
        for (at, object) in trace.iter().enumerate().rev() {
            next[at] = seen.insert(*object, at).unwrap_or(usize::MAX);
        }
        Self { holds, now: 0, next, held: HashMap::new(), by_next: BTreeSet::new() }
    }
}

impl Cache for Belady {
    fn request(&mut self, object: Object) -> bool {
        let next = self.next[self.now];
        self.now += 1;
        let before = self.held.insert(object, next);
        if let Some(before) = before {
            self.by_next.remove(&(before, object));
        }
        self.by_next.insert((next, object));
        if self.held.len() > self.holds
            && let Some((_, latest)) = self.by_next.pop_last()
        {
            self.held.remove(&latest);
        }
        before.is_some()
    }
}

/// The SplitMix64 generator, from a fixed start.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / 4_294_967_296.0
    }
}

/// Requests for objects whose popularity falls as their rank to this power.
fn zipf(exponent: f64) -> Vec<Object> {
    let mut total = 0.0;
    let up_to: Vec<f64> = (1..=u32::try_from(OBJECTS).unwrap())
        .map(|rank| {
            total += f64::from(rank).powf(-exponent);
            total
        })
        .collect();
    let mut numbers = Numbers(1);
    let mut draw = || {
        let point = numbers.fraction() * total;
        u32::try_from(up_to.partition_point(|sum| *sum <= point)).unwrap()
    };
    (0..REQUESTS).map(|_| draw()).collect()
}

/// Every third request is for something that is asked for once.
fn with_one_hit_wonders(trace: &[Object]) -> Vec<Object> {
    let mut fresh = u32::try_from(OBJECTS).unwrap()..;
    let mix = trace
        .iter()
        .enumerate()
        .map(|(at, object)| if at % 3 == 0 { fresh.next().unwrap() } else { *object });
    mix.collect()
}

/// A crawler fetches 10,000 pages in a row, each time all of them anew.
fn with_scans(trace: &[Object]) -> Vec<Object> {
    let mut fresh = u32::try_from(OBJECTS).unwrap()..;
    trace
        .chunks(20_000)
        .flat_map(|chunk| {
            let scan: Vec<_> = fresh.by_ref().take(10_000).collect();
            chunk.iter().copied().chain(scan)
        })
        .collect()
}
