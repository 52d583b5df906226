//! What may stand behind the memory tier: a disk, a store that several edges share. This is the contract; [`super::tiers`]
//! keeps the edge's side of it.
//!
//! A tier holds whole responses in the form the upstream sent; parts, codings and markers stay in memory. It is asked in a
//! fetch that everybody shares who waits for the resource, before the upstream is, and it may always say that it has
//! nothing: a tier that is slow, full or broken costs the answer that it could have given, and nothing else.
//!
//! What a tier owes in return is that **nothing comes out of it that was purged**:
//! - An acknowledged purge covers every offer made before it was asked for, those still in its queue too, and look-ups that
//!   begin after the acknowledgement find nothing of it (or find it stale, where the purge was soft).
//! - It survives a restart of whatever the tier survives: what is durable is purged durably before it is acknowledged.
//! - Offers and purges that came from this process are seen in the order in which they came.
//!
//! A [`Generation`] counts purges within one process and is not kept. What is found gets that of the fetch that asked: a
//! purge that comes while the tier is looking outdates it like anything else that is being fetched.
//!
//! Moments are those of one process's monotonic clock. [`Kept`] has wall-clock times in their place; see
//! [`Kept::revived`] for what becomes of them under another clock.

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

use cache_policy::{Meta, Moment, Tag};
use http::{HeaderMap, HeaderName};

use super::{
    Key, Stored, StoredBody,
    purge::{Force, Generation, Rule},
    stored::Facts,
};

/// Why a tier could not do what it was asked: for the log.
pub type TierError = Box<dyn std::error::Error + Send + Sync>;

/// What a tier was asked for. Dropping it withdraws a look-up; a purge that was begun may still happen.
pub type TierFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, TierError>> + Send + 'a>>;

/// A place for responses behind the memory tier. None of its methods may block the thread.
pub trait Tier: Send + Sync + 'static {
    /// One word for logs, metrics and Cache-Status.
    fn name(&self) -> &'static str;

    /// The newest response kept under this key whose `vary` fields this request matches: [`Kept::answers`]. Its body is
    /// read only if it is wanted.
    fn look_up<'a>(&'a self, key: &'a Key, request: &'a HeaderMap) -> TierFuture<'a, Option<Found>>;

    /// Offers a response that has just been stored in memory, in place of any with the same `vary` and `variant`. The
    /// tier writes it from a queue of its own, bounded in bytes: until it is written, the body's memory counts against
    /// nobody's budget. If it declines, it forgets what it holds of that variant, for that is older.
    fn offer(&self, key: &Key, kept: Kept, body: StoredBody);

    /// Forgets a resource, which the upstream has contradicted. Nobody waits for it.
    fn forget(&self, key: &Key);

    /// Takes out everything a purge is about, or makes it stale; says how many responses that were.
    fn purge<'a>(&'a self, purge: &'a Purge) -> TierFuture<'a, u64>;
}

/// A response that a tier has.
pub struct Found {
    /// What is known of it beside its body.
    pub kept: Kept,
    /// Bytes of its body.
    pub length: u64,
    /// Reads its body. What comes is checked against `length` only: the tier itself sees to it that it is whole and sound.
    pub body: TierFuture<'static, StoredBody>,
}

/// What tiers are asked to purge.
#[derive(Clone, Debug)]
pub struct Purge {
    /// What it is about: whatever any of these matches ([`Rule::matches`]).
    pub rules: Vec<Rule>,
    /// Whether it is gone, or stale since `at`.
    pub force: Force,
    /// When it was asked for. For a soft purge `fresh_until` becomes the earlier of itself and this.
    pub at: SystemTime,
}

/// What is known of a stored response beside its body, in a form that outlives the process: all of it is plain data.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What policy decides by. Its two moments (`received_at`, `fresh_until`) mean nothing outside the process; the two
    /// times below stand for them.
    pub meta: Meta,
    /// When the response, or the last one that freshened it, was received.
    pub received: SystemTime,
    /// Until when it is fresh.
    pub fresh_until: SystemTime,
    /// The request fields its `Vary` names.
    pub vary: Box<[HeaderName]>,
    /// The request's values of them.
    pub variant: Box<str>,
    /// What it is purged by, sorted.
    pub tags: Box<[Tag]>,
    /// Whether codings of it may be computed.
    pub codable: bool,
    /// Its head as stored.
    pub head: HeaderMap,
}

impl Kept {
    /// What of a stored response a tier may keep; `None` where it is only a part. `wall` is the wall-clock time of a moment.
    pub fn of(stored: &Stored, wall: impl Fn(Moment) -> SystemTime) -> Option<Self> {
        if stored.parts().is_some() {
            return None;
        }
        let Facts { meta, vary, variant, tags, codable, began: _ } = (**stored).clone();
        let (received, fresh_until) = (wall(meta.received_at), wall(meta.fresh_until));
        let head = stored.identity().head.clone();
        Some(Self { meta, received, fresh_until, vary, variant, tags, codable, head })
    }

    /// Whether it is the variant that a request asks for.
    pub fn answers(&self, request: &HeaderMap) -> bool {
        self.vary.is_empty() || *cache_policy::variant_key(&self.vary, request) == *self.variant
    }

    /// The facts and the head of the stored response, as of `now`, which is `wall` on the wall clock: as old as the time that
    /// has passed since it was received makes it. If the wall clock has been set back since, nobody knows its age, and it is
    /// stale.
    pub fn revived(self, began: Generation, now: Moment, wall: SystemTime) -> (Facts, HeaderMap) {
        let Self { mut meta, received, fresh_until, vary, variant, tags, codable, head } = self;
        let left = fresh_until.duration_since(wall).unwrap_or_default();
        let (passed, left) = match wall.duration_since(received) {
            Ok(passed) => (passed, left),
            Err(ahead) if ahead.duration() <= DRIFT => (Duration::ZERO, left),
            Err(_) => (meta.lifetime, Duration::ZERO),
        };
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

/// A wall clock may be corrected by so much without anybody having set it.
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
        assert!(!revived(kept, 20).meta.is_fresh(Moment::from_epoch(Duration::ZERO)));
    }

    #[test]
    fn under_a_wall_clock_that_was_set_back_it_is_stale() {
        let start = Moment::from_epoch(Duration::ZERO);
        assert!(revived(kept(), -1).meta.is_fresh(start), "a correction is no set-back");
        assert!(!revived(kept(), -3600).meta.is_fresh(start));
    }
}
