//! The contract of a tier behind memory: a disk, or a store that several edges share. [`super::tiers`] keeps the edge's
//! side of it.
//!
//! A tier holds whole responses in the form that the upstream sent; parts, codings and markers stay in memory. It is
//! asked before the upstream, within the fetch that all waiting requests share. It may always answer that it has
//! nothing: a slow, full or broken tier costs the response that it could have given, and nothing else.
//!
//! In return a tier must ensure that **no purged response comes out of it**:
//! - An acknowledged purge covers every offer made before the purge, queued ones included, and look-ups that begin
//!   after the acknowledgement find no match (or find it stale, where the purge was soft).
//! - A purge survives a restart of whatever the tier survives: durable responses are purged durably before the
//!   acknowledgement.
//! - Offers and purges from this process take effect in the order in which they came.
//!
//! A [`Generation`] counts purges within one process and is not stored in a tier. A response found gets the generation
//! of the fetch that asked: a purge that comes while the tier is looking outdates it like any other fetch under way.
//!
//! Where **several edges share a tier**, each of them purges it, and an acknowledged purge binds all:
//! - An offer says at which generation its fetch began. The tier knows which purges of others this edge had heard of by
//!   then, and refuses what may have been fetched before one that it had not.
//! - What others purge comes in by [`Hears`]. The tier acknowledges a purge only when every edge has heard it, or has
//!   lost its lease.
//! - A lease is granted by [`Hears::standing`]. An edge without one serves nothing that is stored before it has validated
//!   it, as [`super::standing`] says.
//!
//! Moments are those of one process's monotonic clock. [`Kept`] has wall-clock times in their place; [`Kept::revived`]
//! converts them under another clock.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use cache_policy::{Meta, Moment, NoVarySearch, Tag};
use http::{HeaderMap, HeaderName};

use super::{
    Key, Stored, StoredBody,
    no_vary_search::mean_the_same,
    rule::{Force, Generation, Rule},
    rule_set::path_of,
    standing::EdgeStanding,
    stored::Facts,
};

/// Why a tier failed: for the log.
pub type TierError = Box<dyn std::error::Error + Send + Sync>;

/// A tier has not answered within a time of its own, shorter than the edge's for the whole look-up.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
pub struct LateAnswer;

/// A tier's operation. Dropping it withdraws a look-up; a purge that has begun may still complete.
pub type TierFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, TierError>> + Send + 'a>>;

/// A tier of stored responses behind memory. None of its methods may block the thread.
pub trait Tier: Send + Sync + 'static {
    /// One word for logs, metrics and Cache-Status.
    fn name(&self) -> &'static str;

    /// The newest response kept under this key whose `vary` fields this request, as the upstream sees it, matches:
    /// [`Kept::answers`]. Its body is
    /// read only when it is used.
    fn look_up<'a>(&'a self, key: &'a Key, request: &'a HeaderMap) -> TierFuture<'a, Option<Found>>;

    /// Offers a response that has just been stored in memory, in place of any with the same `vary` and `variant`. The
    /// tier writes it from a queue of its own, bounded in bytes: until it is written, the body's memory counts against
    /// no budget. If the tier declines, it forgets the stored response of that variant, which is older.
    fn offer(&self, key: &Key, offered: Offered);

    /// Forgets a resource that a response of the upstream contradicts. Nobody waits for it.
    fn forget(&self, key: &Key);

    /// Removes every response that a purge matches, or makes it stale; returns how many matched, where that is known.
    fn purge<'a>(&'a self, purge: &'a Purge) -> TierFuture<'a, Option<u64>>;

    /// Begins to tell this edge what others do. Called once, before anything else; for a tier that nobody shares nothing
    /// is to be told.
    fn attach(&self, _edge: Arc<dyn Hears>) {}
}

/// What a tier that several edges share tells one of them.
pub trait Hears: std::fmt::Debug + Send + Sync + 'static {
    /// Another edge has purged. When it is done, this one serves nothing that the purge matches.
    fn purge(&self, purge: Purge, now: Moment) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// The generation of a fetch that begins now.
    fn generation(&self) -> Generation;

    /// Purges may have been lost: from now on, what began before is validated before it is served.
    fn doubt(&self);

    /// The tier can be told again what it has missed. To be called within a runtime.
    fn catch_up(&self);

    /// The lease of this edge.
    fn standing(&self) -> &EdgeStanding;
}

/// A response that has just been stored.
#[derive(Debug)]
pub struct Offered {
    pub kept: Kept,
    pub body: StoredBody,
    /// The generation when its fetch began.
    pub began: Generation,
}

/// A response found in a tier.
pub struct Found {
    pub kept: Kept,
    /// Bytes of the body.
    pub length: u64,
    /// Reads the body. Only its `length` is checked: the tier itself ensures that it is whole and sound.
    pub body: TierFuture<'static, StoredBody>,
}

/// A purge for tiers.
#[derive(Clone, Debug)]
pub struct Purge {
    /// A response is purged when any of these matches: see [`Purge::matches`].
    pub rules: Vec<Rule>,
    /// Whether it is removed, or stale since `at`.
    pub force: Force,
    /// When the purge was requested. A soft purge sets `fresh_until` to the earlier of itself and this; the stale windows
    /// are counted from then.
    pub at: SystemTime,
    pub hearing: Hearing,
}

/// For whom a purge waits, where several edges share a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// It is acknowledged when every edge has heard it.
    Everyone,
    /// When the tier has it, and the others have had a moment to hear it: the client of an unsafe request waits.
    Briefly,
}

impl Purge {
    /// Whether it takes the response kept under this key: by its key, its place or its tags, or because it answers for a
    /// purged URL by its No-Vary-Search.
    pub fn matches(&self, key: &str, kept: &Kept) -> bool {
        let answers = |named: &str| {
            let keys = Key::of_text(named).zip(Key::of_text(key));
            keys.is_some_and(|(named, key)| mean_the_same(&named, &key, &kept.head))
        };
        // Which query of a prefix it would answer for is not known: it may be one of them.
        let answers_queries = |prefix: &str| {
            let path = prefix.split_once('?').map(|(path, _)| path);
            path.is_some_and(|path| path_of(key) == path) && NoVarySearch::read(&kept.head).is_some()
        };
        self.rules.iter().any(|rule| match rule {
            rule if rule.matches(key, &kept.tags) => true,
            Rule::Key(named) => answers(named),
            Rule::Prefix(prefix) => answers_queries(prefix),
            _ => false,
        })
    }
}

/// What is known of a stored response beside its body, in a form that outlives the process: all of it is plain data.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The facts that policy decides by. Its two moments (`received_at`, `fresh_until`) have no meaning outside the
    /// process; the two times below replace them.
    pub meta: Meta,
    /// When the response, or the last one that freshened it, was received.
    pub received: SystemTime,
    /// Until when it is fresh.
    pub fresh_until: SystemTime,
    /// The request fields its `Vary` names.
    pub vary: Box<[HeaderName]>,
    /// The request's values of those fields.
    pub variant: Box<str>,
    /// The tags it can be purged by, sorted.
    pub tags: Box<[Tag]>,
    /// Whether codings of it may be computed.
    pub codable: bool,
    /// The head as stored.
    pub head: HeaderMap,
}

impl Kept {
    /// The form in which a tier may keep a stored response; `None` where it is only a part. `wall` is the wall-clock
    /// time of a moment.
    pub fn of(stored: &Stored, wall: impl Fn(Moment) -> SystemTime) -> Option<Self> {
        if stored.parts().is_some() {
            return None;
        }
        let Facts { meta, vary, variant, tags, codable, began: _ } = (**stored).clone();
        let (received, fresh_until) = (wall(meta.received_at), wall(meta.fresh_until));
        let head = stored.identity().head.clone();
        Some(Self { meta, received, fresh_until, vary, variant, tags, codable, head })
    }

    /// Whether it is the variant that a request, as the upstream sees it, selects.
    pub fn answers(&self, request: &HeaderMap) -> bool {
        self.vary.is_empty() || *cache_policy::variant_key(&self.vary, request) == *self.variant
    }

    /// The facts and the head of the stored response, as of `now`, which is `wall` on the wall clock: its age grows by
    /// the time since it was received. If the wall clock has been set back since, its age is unknown, and it is stale.
    pub fn revived(self, began: Generation, now: Moment, wall: SystemTime) -> (Facts, HeaderMap) {
        let Self { mut meta, received, fresh_until, vary, variant, tags, codable, head } = self;
        let left = fresh_until.duration_since(wall).unwrap_or_default();
        let (passed, left) = match wall.duration_since(received) {
            Ok(passed) => (passed, left),
            Err(ahead) if ahead.duration() <= DRIFT => (Duration::ZERO, left),
            Err(_) => (meta.lifetime, Duration::ZERO),
        };
        // A soft purge has ended its lifetime early.
        let fresh_for = fresh_until.duration_since(received).unwrap_or_default();
        meta.lifetime = meta.lifetime.min(meta.age_at_arrival.saturating_add(fresh_for));
        meta.age_at_arrival = meta.age_at_arrival.saturating_add(passed);
        meta.received_at = now;
        meta.fresh_until = now + left;
        (Facts { meta, vary, variant, tags, began, codable }, head)
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kept, length, body: _ } = self;
        formatter.debug_struct("Found").field("kept", kept).field("length", length).finish_non_exhaustive()
    }
}

/// A wall clock may be corrected by this much without having been set back.
const DRIFT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cache_policy::{Arrival, RequestFacts, Rules, admit};
    use http::{HeaderValue, Method, StatusCode, header};

    use super::*;

    const ARRIVAL: Duration = Duration::from_secs(1000);

    /// Fresh for a minute, ten seconds old when it came, at [`ARRIVAL`] on both clocks.
    fn kept() -> Kept {
        let rules = Rules::default();
        let request = RequestFacts::read(&Method::GET, &HeaderMap::new(), &rules);
        let head = HeaderMap::from_iter([
            (header::CACHE_CONTROL, HeaderValue::from_static("max-age=60")),
            (header::AGE, HeaderValue::from_static("10")),
        ]);
        let received_at = Moment::from_epoch(ARRIVAL);
        let arrival =
            Arrival { requested_at: received_at, received_at, wall: SystemTime::UNIX_EPOCH + ARRIVAL };
        let admitted = admit(&request, StatusCode::OK, &head, arrival, &rules).unwrap();
        let facts = Facts {
            meta: admitted.meta,
            vary: Box::default(),
            variant: Box::default(),
            tags: Box::default(),
            began: Generation::default(),
            codable: false,
        };
        let stored = Stored::new(facts, &admitted.head, StoredBody::new(&[Bytes::from_static(b"x")]));
        Kept::of(&stored, |moment| SystemTime::UNIX_EPOCH + moment.to_epoch()).unwrap()
    }

    /// Revived in a process that has just started, so many seconds after the response came.
    fn revived(kept: Kept, seconds: i64) -> Facts {
        let arrived = SystemTime::UNIX_EPOCH + ARRIVAL;
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let wall = if seconds < 0 { arrived - distance } else { arrived + distance };
        kept.revived(Generation::default(), Moment::from_epoch(Duration::ZERO), wall).0
    }

    #[test]
    fn what_is_revived_is_as_old_as_the_time_that_has_passed_makes_it() {
        let start = Moment::from_epoch(Duration::ZERO);
        let stored = revived(kept(), 20);
        assert_eq!(stored.meta.age(start), Duration::from_secs(30));
        assert!(stored.meta.is_fresh(start + Duration::from_secs(29)));
        assert!(!stored.meta.is_fresh(start + Duration::from_secs(30)));
        let stale = revived(kept(), 70);
        assert_eq!(
            (stale.meta.is_fresh(start), stale.meta.staleness(start)),
            (false, Duration::from_secs(20))
        );
    }

    #[test]
    fn what_a_soft_purge_made_stale_stays_so() {
        let mut kept = kept();
        kept.fresh_until = kept.fresh_until.min(SystemTime::UNIX_EPOCH + ARRIVAL + Duration::from_secs(5));
        let meta = revived(kept, 20).meta;
        let start = Moment::from_epoch(Duration::ZERO);
        assert!(!meta.is_fresh(start));
        assert_eq!(meta.staleness(start), Duration::from_secs(15), "counted from the purge");
    }

    #[test]
    fn under_a_wall_clock_that_was_set_back_it_is_stale() {
        let start = Moment::from_epoch(Duration::ZERO);
        assert!(revived(kept(), -1).meta.is_fresh(start), "a correction is no set-back");
        assert!(!revived(kept(), -3600).meta.is_fresh(start));
    }
}
