//! How often a client may ask: one limiter for each limit of the settings, shared by all threads.
//!
//! Owns the clients' states. The arithmetic is governor's GCRA; the store below is ours, because a limiter that
//! remembers every address it has seen is itself an attack on memory. Promises: memory is fixed when a limiter is made,
//! admitting allocates nothing and takes one uncontended lock; a limit whose rate and burst a reload leaves alone keeps
//! what it knows of every client. No background task.
//!
//! **Several edges.** Where limits are common ([redis]), each limiter still decides by itself and at once, and notes what is spent
//! here. Whoever exchanges it with the other edges takes it now and then ([`Limiter::spent`]) and says what a client owes by the
//! count of all ([`Limiter::owes`]). What nobody takes changes nothing.

use std::{collections::BTreeMap, hash::BuildHasher, io::Write, sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock, Reference as _},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};
use http::HeaderValue;
use parking_lot::Mutex;

use crate::{
    request::client::ClientKey,
    settings::{Limit, Settings},
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

/// What one of several limits says of a request.
pub type StateOf<'a, C, S> = (&'a Arc<Limiter<C>>, S);

/// A request that several limits admit or refuse together. Returns the strictest: the one that has least left.
///
/// # Errors
/// The limit that refuses it for longest. It counts for none then.
pub fn admit<C: Clock + Clone>(
    limiters: &[Arc<Limiter<C>>],
    client: ClientKey,
) -> Result<Option<StateOf<'_, C, WithinLimit>>, StateOf<'_, C, Exceeded>> {
    let mut strictest: Option<StateOf<'_, C, WithinLimit>> = None;
    let mut refused: Option<StateOf<'_, C, Exceeded>> = None;
    for (index, limiter) in limiters.iter().enumerate() {
        match limiter.admit(client) {
            Ok(within) if refused.is_none() => {
                if strictest.is_none_or(|(_, other)| within.is_stricter_than(other)) {
                    strictest = Some((limiter, within));
                }
            }
            Ok(_) => limiter.give_back(client),
            Err(exceeded) => {
                if refused.is_none() {
                    limiters[..index].iter().for_each(|limiter| limiter.give_back(client));
                }
                if refused.is_none_or(|(_, other)| exceeded.retry_after > other.retry_after) {
                    refused = Some((limiter, exceeded));
                }
            }
        }
    }
    refused.map_or(Ok(strictest), Err)
}

/// One limit at work.
#[derive(Debug)]
pub struct Limiter<C: Clock = MonotonicClock> {
    limit: Limit,
    room: ClientRoom,
    /// Those of the engine.
    clients: Clients,
    /// When the engine's time began.
    start: C::Instant,
    engine: RateLimiter<ClientKey, Clients, C, StateInformationMiddleware>,
    clock: C,
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
        Limiter { limit: limit.clone(), room, clients, start, engine, clock, policy, item }
    }

    fn serves(&self, limit: &Limit, room: ClientRoom) -> bool {
        self.limit == *limit && self.room == room
    }

    /// Counts one request of a client.
    ///
    /// # Errors
    /// [`Exceeded`] when the client has used up its burst; the request is not counted then.
    pub fn admit(&self, client: ClientKey) -> Admission {
        match self.engine.check_key(&client) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let spent = self.limit.burst.get().saturating_sub(remaining);
                Ok(WithinLimit { remaining, recovered_in: self.limit.interval.saturating_mul(spent) })
            }
            Err(refusal) => Err(Exceeded { retry_after: refusal.wait_time_from(self.clock.now()) }),
        }
    }

    /// Takes back what a request of the client has counted that another limit refuses.
    fn give_back(&self, client: ClientKey) {
        self.clients.give_back(&client, self.limit.interval);
    }

    /// The time by which clients owe.
    pub fn now(&self) -> Duration {
        self.clock.now().duration_since(self.start).into()
    }

    /// Takes what clients near their limit have spent here since it was taken last, of so many clients at most: how long it takes
    /// to earn it back.
    pub fn spent(&self, most: usize) -> Vec<(ClientKey, Duration)> {
        let taken = self.clients.take_spent(most);
        taken.map(|(client, spent)| (client, self.limit.interval.saturating_mul(spent))).collect()
    }

    /// By the count of all edges, the client owed so much at that time of [`Self::now`]. What it owes here alone may be more, and
    /// stays.
    pub fn owes(&self, client: ClientKey, at: Duration, debt: Duration) {
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
    client: ClientKey,
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
    near: Mutex<Vec<ClientKey>>,
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

    /// Notes one more request, which was admitted.
    fn note(&self, known: &mut KnownClient) {
        let now = (known.recovered_at / self.period) as u16;
        if now.wrapping_sub(known.since) > PERIODS {
            known.spent = 0;
        }
        if known.spent == 0 {
            known.since = now;
        }
        known.spent = known.spent.saturating_add(1);
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

    fn set(&self, client: &ClientKey) -> &Mutex<Set> {
        let hash = u128::from(self.hasher.hash_one(client));
        &self.sets[((hash * self.sets.len() as u128) >> 64) as usize]
    }

    /// Changes what is known of a client, if it is known.
    fn change<T>(&self, client: &ClientKey, change: impl FnOnce(&mut KnownClient) -> T) -> Option<T> {
        let mut set = self.set(client).lock();
        set.iter_mut().flatten().find(|known| known.client == *client).map(change)
    }

    /// Has a client's burst back so much earlier.
    fn give_back(&self, client: &ClientKey, interval: Duration) {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        self.change(client, |known| {
            known.recovered_at = known.recovered_at.saturating_sub(interval);
            known.spent = known.spent.saturating_sub(1);
        });
    }

    /// Has a client's burst back no earlier than then.
    fn owes(&self, client: &ClientKey, recovered_at: u64) {
        self.change(client, |known| known.recovered_at = known.recovered_at.max(recovered_at));
    }

    fn take_spent(&self, most: usize) -> impl Iterator<Item = (ClientKey, u32)> {
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
    type Key = ClientKey;

    fn measure_and_replace<T, F, E>(&self, client: &ClientKey, measure: F) -> Result<T, E>
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
            notes.note(&mut known);
        }
        // `None` is less than every state, so that an empty place is taken first.
        let place =
            place.or_else(|| (0..PLACES).min_by_key(|place| set[*place].map(|known| known.recovered_at)));
        set[place.expect("a set has places")] = Some(known);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<ClientKey> for Clients {
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
    use crate::settings::{RedisSettings, RedisUrl, parse};

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

    fn client(number: u32) -> ClientKey {
        ClientKey::V4(number)
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let (limiters, clock) = limiters(&settings("50/s", 100, 1000));
        let limiter = only(&limiters);
        for spent in 1..=100 {
            let admitted = limiter.admit(client(1)).unwrap();
            assert_eq!(admitted.remaining, 100 - spent);
            assert_eq!(admitted.recovered_in, Duration::from_millis(20) * spent);
        }
        assert_eq!(limiter.admit(client(1)), Err(Exceeded { retry_after: Duration::from_millis(20) }));
        clock.advance(Duration::from_millis(15));
        assert_eq!(limiter.admit(client(1)), Err(Exceeded { retry_after: Duration::from_millis(5) }));
        clock.advance(Duration::from_millis(5));
        assert!(limiter.admit(client(1)).is_ok());
        assert!(limiter.admit(client(1)).is_err());
        clock.advance(Duration::from_secs(2));
        assert_eq!(limiter.admit(client(1)).unwrap().remaining, 99);
    }

    #[test]
    fn clients_do_not_share_a_limit() {
        let (limiters, _) = limiters(&settings("1/m", 1, 1000));
        assert!(only(&limiters).admit(client(1)).is_ok());
        assert!(only(&limiters).admit(client(1)).is_err());
        assert!(only(&limiters).admit(client(2)).is_ok());
    }

    #[test]
    fn a_million_ipv6_subscribers_stay_within_the_bound_and_wash_no_offender_out() {
        let (limiters, _) = limiters(&settings("50/s", 100, 1000));
        let limiter = only(&limiters);
        while limiter.admit(client(1)).is_ok() {}
        for subscriber in 0..1_000_000u64 {
            let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | (u128::from(subscriber) << 64) | 1);
            assert!(limiter.admit(IpAddr::V6(address).into()).is_ok());
        }
        assert!(limiter.engine.len() <= 1008, "{} clients are held", limiter.engine.len());
        assert!(limiter.admit(client(1)).is_err());
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
            let (limiter, within) = admit(&of_route, client(1)).unwrap().unwrap();
            assert_eq!((&*limiter.limit().name, within.remaining), ("seldom", left));
        }
        for _ in 0..100 {
            let (limiter, exceeded) = admit(&of_route, client(1)).unwrap_err();
            assert_eq!((&*limiter.limit().name, exceeded.retry_after_seconds()), ("seldom", 60));
        }
        assert_eq!(of_route[0].admit(client(1)).unwrap().remaining, 6, "it has admitted three, and this one");
        while of_route[0].admit(client(1)).is_ok() {}
        clock.advance(Duration::from_secs(60));
        assert!(admit(&of_route, client(1)).is_ok());
        assert!(admit::<FakeRelativeClock>(&[], client(1)).unwrap().is_none());
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
                    admitted += u32::from(only(limiters).admit(client(1)).is_ok());
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
        limiter.admit(client(1)).unwrap();
        assert!(limiter.spent(10).is_empty(), "one request is far from the limit");
        for _ in 0..9 {
            limiter.admit(client(1)).unwrap();
            limiter.admit(client(2)).unwrap();
        }
        let told = limiter.spent(1);
        assert_eq!(told.len(), 1, "no more clients than are asked for");
        assert_eq!(told[0].1 + limiter.spent(10)[0].1, Duration::from_millis(20) * 19);
        assert!(limiter.spent(10).is_empty());
        // A client that comes now and then is never told of.
        for _ in 0..100 {
            all.advance(Duration::from_secs(3));
            limiter.admit(client(3)).unwrap();
        }
        assert!(limiter.spent(10).is_empty());
    }

    #[test]
    fn without_other_edges_nothing_is_noted() {
        let (limiters, _) = limiters(&settings("50/s", 100, 1000));
        while only(&limiters).admit(client(1)).is_ok() {}
        assert!(only(&limiters).spent(10).is_empty());
    }

    #[test]
    fn what_a_client_owes_by_all_counts_where_it_is_more() {
        let all = ManyEdges::new(1, "50/s", 100);
        let limiter = only(&all.edges[0].0);
        limiter.admit(client(1)).unwrap();
        limiter.owes(client(1), limiter.now(), Duration::from_secs(1));
        assert_eq!(limiter.admit(client(1)).unwrap().remaining, 49);
        limiter.owes(client(1), limiter.now(), Duration::ZERO);
        assert_eq!(limiter.admit(client(1)).unwrap().remaining, 48, "what it owes here stays");
        limiter.owes(client(1), limiter.now(), Duration::from_secs(3));
        assert_eq!(
            limiter.admit(client(1)).unwrap_err().retry_after,
            Duration::from_secs(1) + Duration::from_millis(20)
        );
        limiter.owes(client(9), limiter.now(), Duration::from_secs(3));
        assert!(limiter.admit(client(9)).is_ok(), "nobody is remembered for what others say alone");
    }

    #[test]
    fn whoever_has_recovered_makes_room_first() {
        let (limiters, clock) = limiters(&settings("1/s", 10, PLACES as u32));
        let limiter = only(&limiters);
        assert!(limiter.admit(client(0)).is_ok());
        clock.advance(Duration::from_secs(5));
        for number in 1..PLACES as u32 {
            while limiter.admit(client(number)).is_ok() {}
        }
        assert!(limiter.admit(client(100)).is_ok());
        assert!((1..PLACES as u32).all(|number| limiter.admit(client(number)).is_err()));
    }

    #[test]
    fn an_unchanged_limit_keeps_its_clients_over_a_reload() {
        let before = settings("1/m", 1, 1000);
        let (limiters, _) = limiters(&before);
        assert!(only(&limiters).admit(client(1)).is_ok());

        let unchanged = limiters.for_reload(&before.clone());
        assert!(only(&unchanged).admit(client(1)).is_err());
        assert!(unchanged.get(&before.limits["api"]).is_some());

        let changed = limiters.for_reload(&settings("2/m", 1, 1000));
        assert!(only(&changed).admit(client(1)).is_ok());
    }

    #[test]
    fn fields_say_the_policy_and_what_is_left() {
        let (limiters, clock) = limiters(&settings("50/s", 100, 1000));
        let limiter = only(&limiters);
        assert_eq!(limiter.policy(), "\"api\";q=100;w=2");
        let state = |admission| limiter.state(&admission).to_str().unwrap().to_owned();
        assert_eq!(state(limiter.admit(client(1))), "\"api\";r=99;t=1");
        for _ in 0..42 {
            limiter.admit(client(1)).unwrap();
        }
        clock.advance(Duration::from_millis(20));
        assert_eq!(state(limiter.admit(client(1))), "\"api\";r=57;t=1");
        while limiter.admit(client(1)).is_ok() {}
        assert_eq!(state(limiter.admit(client(1))), "\"api\";r=0;t=1");
        let Err(exceeded) = limiter.admit(client(1)) else { panic!("admitted") };
        assert_eq!(exceeded.retry_after_seconds(), 1);
    }

    #[test]
    fn the_longest_limits_do_not_overflow() {
        let (limiters, clock) = limiters(&settings("1/d", 365, 1000));
        assert_eq!(only(&limiters).policy(), "\"api\";q=365;w=31536000");
        while only(&limiters).admit(client(1)).is_ok() {}
        clock.advance(Duration::from_secs(10 * 365 * 86_400));
        assert_eq!(only(&limiters).admit(client(1)).unwrap().remaining, 364);
    }
}
