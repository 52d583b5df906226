//! How often a client may ask: one limiter for each limit of the settings, shared by all threads.
//!
//! A limit counts requests that have something in common ([`LimitKey`]), most often their client. A request counts for what its
//! method costs when it comes, and for the rest of what its answer's status costs once it is answered ([`Owing`]): that may be
//! more than is left, and then is owed.
//!
//! Owns the clients' states. The arithmetic is governor's GCRA; the store below is ours, because a limiter that
//! remembers every address it has seen is itself an attack on memory. Promises: memory is fixed when a limiter is made,
//! admitting allocates nothing and takes one uncontended lock; a limit that a reload leaves alone keeps
//! what it knows of every client. No background task.
//!
//! **Several edges.** Where limits are common ([redis]), each limiter still decides by itself and at once, and notes what is spent
//! here. Whoever exchanges it with the other edges takes it now and then ([`Limiter::spent`]) and says what a client owes by the
//! count of all ([`Limiter::owes`]). What nobody takes changes nothing.

use std::{
    collections::BTreeMap, fmt, hash::BuildHasher, io::Write, num::NonZeroU32, sync::Arc, time::Duration,
};

use cache_policy::one_spelling;
use foldhash::quality::RandomState;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock, Reference as _},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};
use http::{HeaderValue, StatusCode, request};
use parking_lot::Mutex;

use crate::{
    message::affinity::{mixed, number_of},
    request::client::{Client, ClientKey},
    settings::{CountedBy, Limit, Settings},
};

/// The limiters of one snapshot of the settings.
#[derive(Debug)]
pub struct Limiters<C: Clock = MonotonicClock> {
    clock: C,
    by_name: BTreeMap<Arc<str>, Arc<Limiter<C>>>,
}

impl Limiters {
    /// Limiters that know no client yet, on the system's monotonic clock.
    pub fn new(settings: &Settings) -> Limiters {
        Limiters::with_clock(settings, MonotonicClock)
    }
}

impl<C: Clock + Clone> Limiters<C> {
    /// Limiters that know no client yet.
    pub fn with_clock(settings: &Settings, clock: C) -> Limiters<C> {
        Limiters { clock, by_name: BTreeMap::new() }.for_reload(settings)
    }

    /// Limiters for new settings. A limit that is the same in both keeps its clients' states, and requests under either
    /// snapshot count together.
    #[must_use]
    pub fn for_reload(&self, settings: &Settings) -> Limiters<C> {
        let room = ClientRoom {
            remembered: settings.clients.remembered,
            // What a reload says of Redis takes effect at the next start: nobody may come for what is noted meanwhile.
            is_common: settings.redis.is_some(),
        };
        let limiter = |(name, limit): (&Arc<str>, &Arc<Limit>)| {
            let kept = self.by_name.get(name).filter(|kept| kept.serves(limit, room)).cloned();
            let limiter = kept.unwrap_or_else(|| Arc::new(Limiter::new(limit, room, self.clock.clone())));
            (Arc::clone(name), limiter)
        };
        Limiters { clock: self.clock.clone(), by_name: settings.limits.iter().map(limiter).collect() }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Limiter<C>>> {
        self.by_name.values()
    }

    /// The limiter of a limit; `None` only for a limit of other settings.
    pub fn get(&self, limit: &Limit) -> Option<&Arc<Limiter<C>>> {
        self.by_name.get(&limit.name)
    }
}

/// A request, as far as limits count it.
#[derive(Clone, Copy, Debug)]
pub struct CountedRequest<'r> {
    pub client: Client,
    pub head: &'r request::Parts,
    pub path: &'r str,
}

/// What requests have in common that count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    Client(ClientKey),
    /// Of a path, or of a client and a path.
    Path(u64),
    /// Of a field's values. Whoever finds other values of one number could send these as well.
    Field(u64),
    All,
}

/// The same in every edge.
impl fmt::Display for LimitKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(formatter, "client {}", client.own_number()),
            Self::Path(number) => write!(formatter, "path {number}"),
            Self::Field(number) => write!(formatter, "field {number}"),
            Self::All => formatter.write_str("all"),
        }
    }
}

impl LimitKey {
    fn of(by: &CountedBy, request: &CountedRequest<'_>) -> Self {
        // However it is spelled.
        let path = || number_of(one_spelling(request.path).as_bytes());
        let client = request.client.key();
        match by {
            CountedBy::Client => Self::Client(client),
            CountedBy::Path => Self::Path(path()),
            CountedBy::ClientAndPath => Self::Path(mixed(path() ^ client.number())),
            CountedBy::Header(name) => {
                let lines = request.head.headers.get_all(name).iter();
                let all = lines.map(|line| number_of(line.as_bytes()));
                all.reduce(|all, line| mixed(all).wrapping_add(line))
                    .map_or(Self::Client(client), Self::Field)
            }
            CountedBy::All => Self::All,
        }
    }
}

/// What one of several limits says of a request.
pub type StateOf<'a, C, S> = (&'a Arc<Limiter<C>>, S);

/// A request that several limits admit or refuse together. Returns the strictest: the one that has least left. Those that only
/// try say to `would_refuse` whom they would have refused.
///
/// # Errors
/// The limit that refuses it for longest. It counts for none then.
pub fn admit<'l, C: Clock + Clone>(
    limiters: &'l [Arc<Limiter<C>>],
    request: &CountedRequest<'_>,
    would_refuse: impl Fn(&Limit),
) -> Result<Option<StateOf<'l, C, WithinLimit>>, StateOf<'l, C, Exceeded>> {
    let mut strictest: Option<StateOf<'_, C, WithinLimit>> = None;
    let mut refused: Option<StateOf<'_, C, Exceeded>> = None;
    let counts = |limiter: &&Arc<Limiter<C>>| !limiter.limit.spares(request.client.address);
    let give_back = |limiter: &Arc<Limiter<C>>| {
        let (key, cost) = limiter.counts(request);
        limiter.give_back(key, cost);
    };
    for (index, limiter) in limiters.iter().enumerate() {
        if !counts(&limiter) {
            continue;
        }
        let (key, cost) = limiter.counts(request);
        match limiter.admit(key, cost) {
            Ok(_) if limiter.limit.dry_run => {}
            Err(_) if limiter.limit.dry_run => would_refuse(&limiter.limit),
            Ok(within) if refused.is_none() => {
                if strictest.is_none_or(|(_, other)| within.is_stricter_than(other)) {
                    strictest = Some((limiter, within));
                }
            }
            Ok(_) => limiter.give_back(key, cost),
            Err(exceeded) => {
                if refused.is_none() {
                    let earlier = limiters[..index].iter().filter(counts);
                    earlier.filter(|limiter| !limiter.limit.dry_run).for_each(give_back);
                }
                if refused.is_none_or(|(_, other)| exceeded.retry_after > other.retry_after) {
                    refused = Some((limiter, exceeded));
                }
            }
        }
    }
    refused.map_or(Ok(strictest), Err)
}

/// What an admitted request will count for besides, by the status of its answer.
#[derive(Debug)]
pub struct Owing<C: Clock = MonotonicClock>(Vec<(Arc<Limiter<C>>, LimitKey, NonZeroU32)>);

impl<C: Clock + Clone> Owing<C> {
    /// `None` where no limit asks for a status.
    pub fn of(limiters: &[Arc<Limiter<C>>], request: &CountedRequest<'_>) -> Option<Self> {
        let asks = |limiter: &&Arc<Limiter<C>>| {
            !limiter.limit.cost.by_status.is_empty() && !limiter.limit.spares(request.client.address)
        };
        let mut asking = limiters.iter().filter(asks).peekable();
        asking.peek()?;
        let owing = asking.map(|limiter| {
            let (key, paid) = limiter.counts(request);
            (Arc::clone(limiter), key, paid)
        });
        Some(Self(owing.collect()))
    }

    /// Counts the rest of what a request costs that is answered with this status. Returns the strictest of the limits that this has
    /// changed.
    pub fn charge(&self, status: StatusCode) -> Option<(&Arc<Limiter<C>>, WithinLimit)> {
        let mut strictest: Option<(&Arc<Limiter<C>>, WithinLimit)> = None;
        for (limiter, key, paid) in &self.0 {
            let cost = limiter.limit.cost.of_status(status).map_or(0, NonZeroU32::get);
            let Some(rest) = NonZeroU32::new(cost.saturating_sub(paid.get())) else { continue };
            let within = limiter.charge(*key, rest);
            if !limiter.limit.dry_run && strictest.is_none_or(|(_, other)| within.is_stricter_than(other)) {
                strictest = Some((limiter, within));
            }
        }
        strictest
    }
}

/// One limit at work.
#[derive(Debug)]
pub struct Limiter<C: Clock = MonotonicClock> {
    limit: Limit,
    room: ClientRoom,
    /// Those of the engine.
    clients: Clients,
    engine: RateLimiter<LimitKey, Clients, C, StateInformationMiddleware>,
    clock: C,
    /// From when on the engine counts.
    start: C::Instant,
    policy: HeaderValue,
    item: Box<[u8]>,
}

/// For whom a limiter has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClientRoom {
    remembered: usize,
    /// Whether it is noted what they spend, for other edges.
    is_common: bool,
}

/// The state of a request that is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WithinLimit {
    /// Requests that the client could make at once after this one.
    pub remaining: u32,
    /// Time until the whole burst is earned back.
    pub recovered_in: Duration,
}

impl WithinLimit {
    fn is_stricter_than(self, other: Self) -> bool {
        (self.remaining, other.recovered_in) < (other.remaining, self.recovered_in)
    }
}

/// The state of a request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// When the next one will be admitted.
    pub retry_after: Duration,
}

pub type Admission = Result<WithinLimit, Exceeded>;

impl<C: Clock + Clone> Limiter<C> {
    fn new(limit: &Limit, room: ClientRoom, clock: C) -> Limiter<C> {
        let interval = limit.interval.max(Duration::from_nanos(1));
        let quota =
            Quota::with_period(interval).expect("the interval was raised to 1 ns").allow_burst(limit.burst);
        let clients = Clients::new(room.remembered, room.is_common.then(|| SpendingNotes::of(limit)));
        let start = clock.now();
        let engine = RateLimiter::new(quota, clients.clone(), clock.clone());
        let item = policy_item(&limit.name);
        let policy = policy(&item, limit);
        Limiter { limit: limit.clone(), room, clients, engine, clock, start, policy, item }
    }

    fn serves(&self, limit: &Limit, room: ClientRoom) -> bool {
        self.limit == *limit && self.room == room
    }

    /// As what a request counts, and for how much.
    fn counts(&self, request: &CountedRequest<'_>) -> (LimitKey, NonZeroU32) {
        (LimitKey::of(&self.limit.key, request), self.limit.cost.of_method(&request.head.method))
    }

    /// Counts one request, for so much.
    ///
    /// # Errors
    /// [`Exceeded`] when so much of the burst is not left; the request is not counted then.
    pub fn admit(&self, key: LimitKey, cost: NonZeroU32) -> Admission {
        let checked = match cost {
            NonZeroU32::MIN => self.engine.check_key(&key),
            // The settings let no method cost more than the burst.
            cost => match self.engine.check_key_n(&key, cost) {
                Ok(checked) => checked,
                Err(_) => {
                    return Err(Exceeded { retry_after: self.limit.interval.saturating_mul(cost.get()) });
                }
            },
        };
        match checked {
            Ok(state) => {
                self.clients.note(&key, cost);
                let remaining = state.remaining_burst_capacity();
                let spent = self.limit.burst.get().saturating_sub(remaining);
                Ok(WithinLimit { remaining, recovered_in: self.limit.interval.saturating_mul(spent) })
            }
            Err(refusal) => Err(Exceeded { retry_after: refusal.wait_time_from(self.clock.now()) }),
        }
    }

    /// Counts so much more, whether it is left or not. No more is ever owed than the burst and this.
    fn charge(&self, key: LimitKey, cost: NonZeroU32) -> WithinLimit {
        let (interval, burst) = (self.limit.interval, self.limit.burst.get());
        let nanos = |count: u32| in_nanos(interval.saturating_mul(count));
        let now = self.clock.now().duration_since(self.start).as_u64();
        let most = now.saturating_add(nanos(burst)).saturating_add(nanos(cost.get()));
        let charge = |recovered_at: Option<Nanos>| {
            let before = recovered_at.map_or(now, Nanos::as_u64).max(now);
            let after = before.saturating_add(nanos(cost.get())).min(most.max(before));
            Ok::<_, std::convert::Infallible>((after, Nanos::new(after)))
        };
        let Ok(recovered_at) = self.clients.measure_and_replace(&key, charge);
        self.clients.note(&key, cost);
        let spent = recovered_at.saturating_sub(now);
        let counted = spent.div_ceil(in_nanos(interval).max(1));
        WithinLimit {
            remaining: burst.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX)),
            recovered_in: Duration::from_nanos(spent),
        }
    }

    /// Takes back what a request has counted for that another limit refuses.
    fn give_back(&self, key: LimitKey, cost: NonZeroU32) {
        self.clients.give_back(&key, cost, self.limit.interval.saturating_mul(cost.get()));
    }

    /// The time by which clients owe.
    pub fn now(&self) -> Duration {
        self.clock.now().duration_since(self.start).into()
    }

    /// Takes what clients near their limit have spent here since it was taken last, of so many clients at most: how long it takes
    /// to earn it back.
    pub fn spent(&self, most: usize) -> Vec<(LimitKey, Duration)> {
        let taken = self.clients.take_spent(most);
        taken.map(|(client, spent)| (client, self.limit.interval.saturating_mul(spent))).collect()
    }

    /// By the count of all edges, the client owed so much at that time of [`Self::now`]. What it owes here alone may be more, and
    /// stays.
    pub fn owes(&self, client: LimitKey, at: Duration, debt: Duration) {
        let recovered_at = u64::try_from(at.saturating_add(debt).as_nanos()).unwrap_or(u64::MAX);
        self.clients.owes(&client, recovered_at);
    }

    /// The limit as the settings have it.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10 §3): `"api";q=100;w=2`, the burst and the
    /// seconds in which it is earned back.
    pub fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// The value of `RateLimit` (the same draft, §4): `"api";r=57;t=1`, what is left and the seconds until all of it is
    /// back, or for a request that was refused until the next one is admitted (no later than `Retry-After`).
    pub fn state(&self, admission: &Admission) -> HeaderValue {
        let (remaining, until) = match admission {
            Ok(admitted) => (admitted.remaining, admitted.recovered_in),
            Err(exceeded) => (0, exceeded.retry_after),
        };
        with_parameters(&self.item, 'r', remaining, 't', whole_seconds(until))
    }
}

impl Exceeded {
    /// The value of `Retry-After` (RFC 9110 §10.2.3): whole seconds, at least one.
    pub fn retry_after_seconds(&self) -> u64 {
        whole_seconds(self.retry_after).max(1)
    }
}

/// The fields that a request refused by a limit is answered with.
#[derive(Debug)]
pub struct RateLimited {
    /// The value of `Retry-After`.
    pub retry_after_seconds: u64,
    /// The value of `RateLimit-Policy`.
    pub policy: HeaderValue,
    /// The value of `RateLimit`.
    pub state: HeaderValue,
}

impl RateLimited {
    /// The fields for a refusal by this limiter.
    pub fn new(limiter: &Limiter, exceeded: Exceeded) -> Self {
        Self {
            retry_after_seconds: exceeded.retry_after_seconds(),
            policy: limiter.policy().clone(),
            state: limiter.state(&Err(exceeded)),
        }
    }
}

/// The limit's name as a String of structured fields (RFC 9651 §3.3.3). Settings let nothing into a name that would need
/// escaping.
fn policy_item(name: &str) -> Box<[u8]> {
    let plain = name.bytes().filter(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    std::iter::once(b'"').chain(plain).chain([b'"']).collect()
}

fn policy(item: &[u8], limit: &Limit) -> HeaderValue {
    let window = whole_seconds(limit.interval.saturating_mul(limit.burst.get())).max(1);
    with_parameters(item, 'q', limit.burst.get(), 'w', window)
}

fn with_parameters(item: &[u8], one: char, first: u32, other: char, second: u64) -> HeaderValue {
    let mut value = Vec::with_capacity(item.len() + 36);
    value.extend_from_slice(item);
    write!(value, ";{one}={first};{other}={second}").expect("a Vec takes every byte");
    HeaderValue::try_from(value).expect("the item is quoted visible ASCII, the rest letters and digits")
}

fn in_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The states of a limit's clients: a table of fixed size, in sets of a few places each.
///
/// A client's hash (seeded, so that nobody outside can choose it) names its set; in a full set the newcomer takes the
/// place of the client that is nearest to having its burst back, most often one that has it back already. That client
/// loses nothing or the least by being forgotten, whereas the one that is over its limit is the last to go: a flood of
/// new addresses cannot wash its state out, as it would where the least recently seen goes first.
#[derive(Clone, Debug)]
struct Clients {
    sets: Arc<[Mutex<Set>]>,
    hasher: RandomState,
    notes: Option<Arc<SpendingNotes>>,
}

const PLACES: usize = 16;

type Set = [Option<KnownClient>; PLACES];

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
struct KnownClient {
    client: LimitKey,
    /// When, in nanoseconds from the limiter's start, its burst is back (GCRA's theoretical arrival time).
    recovered_at: u64,
    /// Requests that other edges have not been told of.
    spent: u32,
    /// Since which period of [`SpendingNotes`].
    since: u16,
    /// Whether they are to be told.
    is_near: bool,
}

/// Who has spent so much that other edges are told.
#[derive(Debug)]
struct SpendingNotes {
    /// Requests from which on a client is near its limit, as it may be if it asks several edges.
    near_from: u32,
    /// In nanoseconds: what was spent some periods ago and did not come to so many requests is forgotten.
    period: u64,
    /// Bounded.
    near: Mutex<Vec<LimitKey>>,
}

impl SpendingNotes {
    fn of(limit: &Limit) -> Self {
        let burst = limit.burst.get();
        let interval = limit.interval.as_nanos().max(1);
        let period = (interval * u128::from(burst)).max(SHORTEST_PERIOD.as_nanos());
        let earned = u32::try_from(period / interval).unwrap_or(u32::MAX);
        Self {
            near_from: (earned / NEAR).clamp(1, (burst / 4).max(1)),
            period: u64::try_from(period).unwrap_or(u64::MAX),
            near: Mutex::default(),
        }
    }

    /// Notes so many more requests, which were admitted.
    fn note(&self, known: &mut KnownClient, count: u32) {
        let now = (known.recovered_at / self.period) as u16;
        if now.wrapping_sub(known.since) > PERIODS {
            known.spent = 0;
        }
        if known.spent == 0 {
            known.since = now;
        }
        known.spent = known.spent.saturating_add(count);
        if known.spent >= self.near_from && !known.is_near {
            let mut near = self.near.lock();
            if near.len() < MOST_NEAR {
                near.push(known.client);
                known.is_near = true;
            }
        }
    }
}

/// Whoever spends this part of what is earned in a period is near its limit: so many edges may be asked in turn.
const NEAR: u32 = 16;
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
const PERIODS: u16 = 2;
/// Others are told later.
const MOST_NEAR: usize = 4096;

impl Clients {
    /// Room for `remembered` clients, rounded up to whole sets.
    fn new(remembered: usize, notes: Option<SpendingNotes>) -> Clients {
        let sets = remembered.div_ceil(PLACES).max(1);
        Clients {
            sets: (0..sets).map(|_| Mutex::new([None; PLACES])).collect(),
            hasher: RandomState::default(),
            notes: notes.map(Arc::new),
        }
    }

    fn set(&self, client: &LimitKey) -> &Mutex<Set> {
        let hash = u128::from(self.hasher.hash_one(client));
        &self.sets[((hash * self.sets.len() as u128) >> 64) as usize]
    }

    /// Changes what is known of a client, if it is known.
    fn change<T>(&self, client: &LimitKey, change: impl FnOnce(&mut KnownClient) -> T) -> Option<T> {
        let mut set = self.set(client).lock();
        set.iter_mut().flatten().find(|known| known.client == *client).map(change)
    }

    /// Has a client's burst back so much earlier.
    fn give_back(&self, client: &LimitKey, cost: NonZeroU32, time: Duration) {
        self.change(client, |known| {
            known.recovered_at = known.recovered_at.saturating_sub(in_nanos(time));
            known.spent = known.spent.saturating_sub(cost.get());
        });
    }

    /// Notes what a request costs beyond one.
    fn note(&self, client: &LimitKey, cost: NonZeroU32) {
        if let Some(notes) = self.notes.as_ref().filter(|_| cost.get() > 1) {
            self.change(client, |known| notes.note(known, cost.get() - 1));
        }
    }

    /// Has a client's burst back no earlier than then.
    fn owes(&self, client: &LimitKey, recovered_at: u64) {
        self.change(client, |known| known.recovered_at = known.recovered_at.max(recovered_at));
    }

    fn take_spent(&self, most: usize) -> impl Iterator<Item = (LimitKey, u32)> {
        let near: Vec<_> = self
            .notes
            .iter()
            .flat_map(|notes| {
                let mut near = notes.near.lock();
                let most = most.min(near.len());
                near.drain(..most).collect::<Vec<_>>()
            })
            .collect();
        near.into_iter().filter_map(|client| {
            let spent = self.change(&client, |known| {
                known.is_near = false;
                std::mem::take(&mut known.spent)
            })?;
            (spent > 0).then_some((client, spent))
        })
    }
}

impl StateStore for Clients {
    type Key = LimitKey;

    fn measure_and_replace<T, F, E>(&self, client: &LimitKey, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut set = self.set(client).lock();
        let place = set.iter().position(|place| place.is_some_and(|known| known.client == *client));
        let known = place.and_then(|place| set[place]);
        let (outcome, recovered_at) = measure(known.map(|known| Nanos::new(known.recovered_at)))?;
        let mut known = known.unwrap_or(KnownClient {
            client: *client,
            recovered_at: 0,
            spent: 0,
            since: 0,
            is_near: false,
        });
        known.recovered_at = recovered_at.as_u64();
        if let Some(notes) = &self.notes {
            notes.note(&mut known, 1);
        }
        // `None` is less than every state, so that an empty place is taken first.
        let place =
            place.or_else(|| (0..PLACES).min_by_key(|place| set[*place].map(|known| known.recovered_at)));
        set[place.expect("a set has places")] = Some(known);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<LimitKey> for Clients {
    fn retain_recent(&self, drop_below: Nanos) {
        for set in &*self.sets {
            for place in &mut *set.lock() {
                *place = place.filter(|known| known.recovered_at > drop_below.as_u64());
            }
        }
    }

    fn len(&self) -> usize {
        self.sets.iter().map(|set| set.lock().iter().flatten().count()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::{
        message::target::Scheme,
        settings::{RedisSettings, RedisUrl, parse},
    };

    fn settings(rate: &str, burst: u32, remembered: u32) -> Settings {
        let text = format!(
            r#"
            clients = {{ remembered = {remembered} }}
            limits = {{ api = {{ rate = "{rate}", burst = {burst} }} }}
            listen = [{{ address = "[::]:0" }}]
            routes = [{{ name = "all", path = "/*", upstream = "a" }}]
            upstreams = {{ a = {{ servers = ["http://a"] }} }}
            "#
        );
        parse(&text, "test").unwrap_or_else(|error| panic!("{error}"))
    }

    fn limiters(settings: &Settings) -> (Limiters<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limiters::with_clock(settings, clock.clone()), clock)
    }

    fn only<C: Clock>(limiters: &Limiters<C>) -> &Limiter<C> {
        &limiters.by_name["api"]
    }

    fn client(number: u32) -> LimitKey {
        LimitKey::Client(ClientKey::V4(number))
    }

    impl<C: Clock + Clone> Limiter<C> {
        fn admit_one(&self, key: LimitKey) -> Admission {
            self.admit(key, NonZeroU32::MIN)
        }
    }

    /// A request of client 1, to be counted by these limiters.
    fn admit_of_one<C: Clock + Clone>(
        limiters: &[Arc<Limiter<C>>],
    ) -> Result<Option<StateOf<'_, C, WithinLimit>>, StateOf<'_, C, Exceeded>> {
        let (head, ()) = http::Request::get("/").body(()).unwrap().into_parts();
        admit(limiters, &CountedRequest { client: ONE, head: &head, path: "/" }, |_| {
            panic!("none only tries")
        })
    }

    const ONE: Client =
        Client { address: IpAddr::V4(std::net::Ipv4Addr::from_bits(1)), scheme: Scheme::Http };

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let (limiters, clock) = limiters(&settings("50/s", 100, 1000));
        let limiter = only(&limiters);
        for spent in 1..=100 {
            let admitted = limiter.admit_one(client(1)).unwrap();
            assert_eq!(admitted.remaining, 100 - spent);
            assert_eq!(admitted.recovered_in, Duration::from_millis(20) * spent);
        }
        assert_eq!(limiter.admit_one(client(1)), Err(Exceeded { retry_after: Duration::from_millis(20) }));
        clock.advance(Duration::from_millis(15));
        assert_eq!(limiter.admit_one(client(1)), Err(Exceeded { retry_after: Duration::from_millis(5) }));
        clock.advance(Duration::from_millis(5));
        assert!(limiter.admit_one(client(1)).is_ok());
        assert!(limiter.admit_one(client(1)).is_err());
        clock.advance(Duration::from_secs(2));
        assert_eq!(limiter.admit_one(client(1)).unwrap().remaining, 99);
    }

    #[test]
    fn clients_do_not_share_a_limit() {
        let (limiters, _) = limiters(&settings("1/m", 1, 1000));
        assert!(only(&limiters).admit_one(client(1)).is_ok());
        assert!(only(&limiters).admit_one(client(1)).is_err());
        assert!(only(&limiters).admit_one(client(2)).is_ok());
    }

    #[test]
    fn a_million_ipv6_subscribers_stay_within_the_bound_and_wash_no_offender_out() {
        let (limiters, _) = limiters(&settings("50/s", 100, 1000));
        let limiter = only(&limiters);
        while limiter.admit_one(client(1)).is_ok() {}
        for subscriber in 0..1_000_000u64 {
            let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | (u128::from(subscriber) << 64) | 1);
            assert!(limiter.admit_one(LimitKey::Client(IpAddr::V6(address).into())).is_ok());
        }
        assert!(limiter.engine.len() <= 1008, "{} clients are held", limiter.engine.len());
        assert!(limiter.admit_one(client(1)).is_err());
    }

    /// The table is made with its limit, and a million addresses make it no larger.
    #[test]
    #[expect(clippy::disallowed_macros, reason = "what a client costs is to be seen")]
    fn a_remembered_client_costs_a_few_octets() {
        let clients = Clients::new(100_000, None);
        let each = size_of_val(&*clients.sets) / (clients.sets.len() * PLACES);
        println!("{each} bytes a client remembered");
        assert!(each <= 40, "{each} bytes");
    }

    #[test]
    fn of_several_limits_the_strictest_wins_and_a_refused_request_counts_for_none() {
        let text = r#"
            limits = { often = { rate = "10/s", burst = 10 }, seldom = { rate = "1/m", burst = 3 } }
            listen = [{ address = "[::]:0" }]
            routes = [{ name = "all", path = "/*", upstream = "a", limit = ["often", "seldom"] }]
            upstreams = { a = { servers = ["http://a"] } }
            "#;
        let settings = parse(text, "test").unwrap_or_else(|error| panic!("{error}"));
        let (limiters, clock) = limiters(&settings);
        let of_route: Vec<_> =
            settings.routes[0].limits.iter().filter_map(|limit| limiters.get(limit)).cloned().collect();
        for left in [2, 1, 0] {
            let (limiter, within) = admit_of_one(&of_route).unwrap().unwrap();
            assert_eq!((&*limiter.limit().name, within.remaining), ("seldom", left));
        }
        for _ in 0..100 {
            let (limiter, exceeded) = admit_of_one(&of_route).unwrap_err();
            assert_eq!((&*limiter.limit().name, exceeded.retry_after_seconds()), ("seldom", 60));
        }
        assert_eq!(
            of_route[0].admit_one(client(1)).unwrap().remaining,
            6,
            "it has admitted three, and this one"
        );
        while of_route[0].admit_one(client(1)).is_ok() {}
        clock.advance(Duration::from_secs(60));
        assert!(admit_of_one(&of_route).is_ok());
        assert!(admit_of_one::<FakeRelativeClock>(&[]).unwrap().is_none());
    }

    /// Edges that exchange what is spent as [`crate::shared_cache`] does, without a Redis between them.
    struct ManyEdges {
        edges: Vec<(Limiters<FakeRelativeClock>, FakeRelativeClock)>,
        /// What the client owes by the count of all, and when this was so.
        owes: (Duration, Duration),
    }

    impl ManyEdges {
        fn new(count: usize, rate: &str, burst: u32) -> Self {
            let mut settings = settings(rate, burst, 1000);
            settings.redis = Some(RedisSettings::new(RedisUrl::new("redis://r").unwrap()));
            let edges = (0..count).map(|_| limiters(&settings)).collect();
            Self { edges, owes: Default::default() }
        }

        fn advance(&self, by: Duration) {
            self.edges.iter().for_each(|(_, clock)| clock.advance(by));
        }

        fn exchange(&mut self) {
            for (limiters, _) in &self.edges {
                let limiter = only(limiters);
                let now = limiter.now();
                for (client, spent) in limiter.spent(10) {
                    let (debt, at) = self.owes;
                    self.owes = (debt.saturating_sub(now - at) + spent, now);
                    limiter.owes(client, now, self.owes.0);
                }
            }
        }
    }

    #[test]
    fn a_client_that_asks_many_edges_has_the_rate_of_one() {
        for (count, rate, burst) in [(2, "50/s", 100), (3, "50/s", 100), (8, "1000/s", 100), (3, "30/m", 1)] {
            let mut all = ManyEdges::new(count, rate, burst);
            let rate = f64::from(rate.split('/').next().unwrap().parse::<u32>().unwrap())
                / if rate.ends_with('m') { 60.0 } else { 1.0 };
            let seconds = 600;
            let mut admitted = 0;
            for tick in 0..seconds * 200 {
                if tick % 20 == 0 {
                    all.exchange();
                }
                for (limiters, _) in &all.edges {
                    admitted += u32::from(only(limiters).admit_one(client(1)).is_ok());
                }
                all.advance(Duration::from_millis(5));
            }
            let fair = rate * f64::from(seconds) + f64::from(burst);
            let off = f64::from(admitted) / fair;
            assert!((0.97..1.03).contains(&off), "{count} edges: {admitted} of {fair}");
        }
    }

    #[test]
    fn what_is_spent_is_told_once_and_only_of_clients_near_their_limit() {
        let all = ManyEdges::new(1, "50/s", 100);
        let limiter = only(&all.edges[0].0);
        limiter.admit_one(client(1)).unwrap();
        assert!(limiter.spent(10).is_empty(), "one request is far from the limit");
        for _ in 0..9 {
            limiter.admit_one(client(1)).unwrap();
            limiter.admit_one(client(2)).unwrap();
        }
        let told = limiter.spent(1);
        assert_eq!(told.len(), 1, "no more clients than are asked for");
        assert_eq!(told[0].1 + limiter.spent(10)[0].1, Duration::from_millis(20) * 19);
        assert!(limiter.spent(10).is_empty());
        // A client that comes now and then is never told of.
        for _ in 0..100 {
            all.advance(Duration::from_secs(3));
            limiter.admit_one(client(3)).unwrap();
        }
        assert!(limiter.spent(10).is_empty());
    }

    #[test]
    fn without_other_edges_nothing_is_noted() {
        let (limiters, _) = limiters(&settings("50/s", 100, 1000));
        while only(&limiters).admit_one(client(1)).is_ok() {}
        assert!(only(&limiters).spent(10).is_empty());
    }

    #[test]
    fn what_a_client_owes_by_all_counts_where_it_is_more() {
        let all = ManyEdges::new(1, "50/s", 100);
        let limiter = only(&all.edges[0].0);
        limiter.admit_one(client(1)).unwrap();
        limiter.owes(client(1), limiter.now(), Duration::from_secs(1));
        assert_eq!(limiter.admit_one(client(1)).unwrap().remaining, 49);
        limiter.owes(client(1), limiter.now(), Duration::ZERO);
        assert_eq!(limiter.admit_one(client(1)).unwrap().remaining, 48, "what it owes here stays");
        limiter.owes(client(1), limiter.now(), Duration::from_secs(3));
        assert_eq!(
            limiter.admit_one(client(1)).unwrap_err().retry_after,
            Duration::from_secs(1) + Duration::from_millis(20)
        );
        limiter.owes(client(9), limiter.now(), Duration::from_secs(3));
        assert!(limiter.admit_one(client(9)).is_ok(), "nobody is remembered for what others say alone");
    }

    #[test]
    fn whoever_has_recovered_makes_room_first() {
        let (limiters, clock) = limiters(&settings("1/s", 10, PLACES as u32));
        let limiter = only(&limiters);
        assert!(limiter.admit_one(client(0)).is_ok());
        clock.advance(Duration::from_secs(5));
        for number in 1..PLACES as u32 {
            while limiter.admit_one(client(number)).is_ok() {}
        }
        assert!(limiter.admit_one(client(100)).is_ok());
        assert!((1..PLACES as u32).all(|number| limiter.admit_one(client(number)).is_err()));
    }

    #[test]
    fn an_unchanged_limit_keeps_its_clients_over_a_reload() {
        let before = settings("1/m", 1, 1000);
        let (limiters, _) = limiters(&before);
        assert!(only(&limiters).admit_one(client(1)).is_ok());

        let unchanged = limiters.for_reload(&before.clone());
        assert!(only(&unchanged).admit_one(client(1)).is_err());
        assert!(unchanged.get(&before.limits["api"]).is_some());

        let changed = limiters.for_reload(&settings("2/m", 1, 1000));
        assert!(only(&changed).admit_one(client(1)).is_ok());
    }

    #[test]
    fn fields_say_the_policy_and_what_is_left() {
        let (limiters, clock) = limiters(&settings("50/s", 100, 1000));
        let limiter = only(&limiters);
        assert_eq!(limiter.policy(), "\"api\";q=100;w=2");
        let state = |admission| limiter.state(&admission).to_str().unwrap().to_owned();
        assert_eq!(state(limiter.admit_one(client(1))), "\"api\";r=99;t=1");
        for _ in 0..42 {
            limiter.admit_one(client(1)).unwrap();
        }
        clock.advance(Duration::from_millis(20));
        assert_eq!(state(limiter.admit_one(client(1))), "\"api\";r=57;t=1");
        while limiter.admit_one(client(1)).is_ok() {}
        assert_eq!(state(limiter.admit_one(client(1))), "\"api\";r=0;t=1");
        let Err(exceeded) = limiter.admit_one(client(1)) else { panic!("admitted") };
        assert_eq!(exceeded.retry_after_seconds(), 1);
    }

    #[test]
    fn the_longest_limits_do_not_overflow() {
        let (limiters, clock) = limiters(&settings("1/d", 365, 1000));
        assert_eq!(only(&limiters).policy(), "\"api\";q=365;w=31536000");
        while only(&limiters).admit_one(client(1)).is_ok() {}
        clock.advance(Duration::from_secs(10 * 365 * 86_400));
        assert_eq!(only(&limiters).admit_one(client(1)).unwrap().remaining, 364);
    }
    fn of_text(limits: &str, limit: &str) -> (Vec<Arc<Limiter<FakeRelativeClock>>>, FakeRelativeClock) {
        let text = format!(
            "{limits}\nlisten = [{{ address = \"[::]:0\" }}]\nupstreams = {{ a = {{ servers = [\"http://a\"] }} }}\n\
             routes = [{{ name = \"all\", path = \"/*\", upstream = \"a\", limit = {limit} }}]\n"
        );
        let settings = parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
        let (limiters, clock) = limiters(&settings);
        (settings.routes[0].limits.iter().filter_map(|limit| limiters.get(limit)).cloned().collect(), clock)
    }

    /// Asks `count` times; how many are admitted.
    fn admitted(
        limiters: &[Arc<Limiter<FakeRelativeClock>>],
        (client, request, count): (u32, http::request::Builder, u32),
    ) -> usize {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let client = Client { address: IpAddr::V4(std::net::Ipv4Addr::from_bits(client)), ..ONE };
        let request = CountedRequest { client, head: &head, path: head.uri.path() };
        (0..count).filter(|_| admit(limiters, &request, |_| ()).is_ok()).count()
    }

    fn get(target: &str) -> http::request::Builder {
        http::Request::get(target)
    }

    #[test]
    fn requests_count_together_by_what_the_limit_says() {
        let by = |key: &str| {
            of_text(&format!("limits = {{ x = {{ rate = \"1/h\", burst = 2, key = \"{key}\" }} }}"), "\"x\"")
                .0
        };
        let path = by("path");
        assert_eq!(admitted(&path, (1, get("/a~b"), 1)), 1);
        assert_eq!(admitted(&path, (2, get("/a%7eb"), 2)), 1, "another client, and another spelling");
        assert_eq!(admitted(&path, (1, get("/b"), 2)), 2);
        let both = by("client path");
        assert_eq!(admitted(&both, (1, get("/a"), 3)), 2);
        assert_eq!([admitted(&both, (2, get("/a"), 3)), admitted(&both, (1, get("/b"), 3))], [2, 2]);
        let all = by("all");
        assert_eq!(admitted(&all, (1, get("/a"), 1)) + admitted(&all, (2, get("/b"), 2)), 2);
        let key = by("header x-key");
        let with = |value: &str| get("/a").header("x-key", value);
        assert_eq!(admitted(&key, (1, with("one"), 1)), 1);
        assert_eq!(admitted(&key, (2, with("one"), 2)), 1);
        assert_eq!(admitted(&key, (2, with("two"), 3)), 2);
        assert_eq!(admitted(&key, (3, get("/a"), 3)), 2, "without the field by the client");
        assert_eq!(admitted(&key, (4, get("/a"), 3)), 2);
    }

    #[test]
    fn whoever_is_excepted_is_neither_counted_nor_refused() {
        let text = "limits = { x = { rate = \"1/h\", burst = 1, key = \"all\", except = [\"0.0.0.8/29\"] } }";
        let (limiters, _) = of_text(text, "\"x\"");
        assert_eq!(admitted(&limiters, (9, get("/"), 50)), 50);
        assert_eq!(admitted(&limiters, (1, get("/"), 50)), 1);
    }

    #[test]
    fn what_costs_more_is_admitted_less_often_and_given_back_whole() {
        let text = "limits = { x = { rate = \"1/h\", burst = 10, cost = { POST = 4 } }, y = { rate = \"1/h\", burst = 2, key = \"all\" } }";
        let (limiters, _) = of_text(text, "[\"x\", \"y\"]");
        let post = || http::Request::post("/");
        assert_eq!(admitted(&limiters, (1, post(), 5)), 2);
        assert_eq!(admitted(&limiters[..1], (1, get("/"), 5)), 2, "what `y` has refused has cost nothing");
    }

    #[test]
    fn the_answers_status_is_charged_and_may_be_owed() {
        let text = "limits = { login = { rate = \"60/h\", burst = 5, cost = { 401 = 10 } } }";
        let (limiters, clock) = of_text(text, "\"login\"");
        let (head, ()) = http::Request::post("/login").body(()).unwrap().into_parts();
        let request = CountedRequest { client: ONE, head: &head, path: "/login" };
        let owing = Owing::of(&limiters, &request).unwrap();
        assert_eq!(admitted(&limiters, (1, http::Request::post("/login"), 1)), 1);
        assert!(owing.charge(StatusCode::OK).is_none(), "it was right");
        let (_, within) = owing.charge(StatusCode::UNAUTHORIZED).unwrap();
        assert_eq!((within.remaining, within.recovered_in), (0, Duration::from_secs(600)));
        clock.advance(Duration::from_secs(5 * 60));
        assert_eq!(admitted(&limiters, (1, http::Request::post("/login"), 1)), 0, "five are still owed");
        clock.advance(Duration::from_secs(61));
        assert_eq!(admitted(&limiters, (1, http::Request::post("/login"), 1)), 1);
        for _ in 0..1000 {
            owing.charge(StatusCode::UNAUTHORIZED);
        }
        clock.advance(Duration::from_secs(15 * 60));
        assert_eq!(
            admitted(&limiters, (1, http::Request::post("/login"), 9)),
            5,
            "no more is owed than that"
        );
    }

    #[test]
    fn a_limit_on_trial_refuses_nobody_and_says_whom_it_would() {
        let text = "limits = { x = { rate = \"1/h\", burst = 2, dry_run = true }, y = { rate = \"1/h\", burst = 9 } }";
        let (limiters, _) = of_text(text, "[\"x\", \"y\"]");
        let (head, ()) = http::Request::get("/").body(()).unwrap().into_parts();
        let request = CountedRequest { client: ONE, head: &head, path: "/" };
        let told = std::cell::RefCell::new(Vec::new());
        for _ in 0..5 {
            let within = admit(&limiters, &request, |limit| told.borrow_mut().push(limit.name.to_string()));
            assert_eq!(&*within.unwrap().unwrap().0.limit.name, "y", "fields are those of a limit in force");
        }
        assert_eq!(told.into_inner(), ["x", "x", "x"]);
    }
}
