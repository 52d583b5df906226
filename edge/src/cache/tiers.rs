//! The tiers behind memory, as the edge uses them: asked in turn and within bounds, offered stored responses, and
//! purged before a purge is acknowledged.
//!
//! Requests go on whatever a tier does: a look-up that takes too long, fails or finds all places taken counts as a
//! miss. A tier that keeps failing is not asked for a while ([`super::breaker`]). A purge that a tier does not acknowledge is reported, and the tier is not asked for responses it matches until
//! the tier has acknowledged a repeated purge ([`Tiers::catch_up`]).

use std::{sync::Arc, time::Duration};

use cache_policy::{Meta, Moment};
use futures_util::future::join_all;
use http::HeaderMap;
use tokio::sync::Semaphore;

use super::{
    Key, Stored,
    breaker::Breaker,
    pending_purges::{PendingPurges, Ticket},
    reservation::Reservation,
    rule::{Force, Generation, Rule},
    tier::{Found, Hearing, Hears, Kept, LateAnswer, Offered, Purge, Tier, TierError},
};
use crate::{
    clock::Clock,
    observe::metrics::{Metrics, TierMetrics},
};

/// The bounds that the edge sets a tier.
#[derive(Clone, Copy, Debug)]
pub struct TierBounds {
    /// Time for a look-up, the body included. The upstream is not asked before.
    pub look_up: Duration,
    /// Time for a purge. The purging request waits for it, and so does an unsafe request.
    pub purge: Duration,
    /// Look-ups at once.
    pub look_ups: usize,
}

impl Default for TierBounds {
    fn default() -> Self {
        Self { look_up: Duration::from_millis(250), purge: Duration::from_secs(2), look_ups: 64 }
    }
}

/// All tiers behind memory, the nearest first. Usually there is none: then nothing here costs anything.
#[derive(Debug, Default)]
pub struct Tiers {
    links: Vec<Link>,
    /// Only one task at a time repeats purges.
    catching_up: tokio::sync::Mutex<()>,
}

/// One tier, its bounds and its state.
struct Link {
    tier: Arc<dyn Tier>,
    bounds: TierBounds,
    places: Semaphore,
    underway: PendingPurges,
    breaker: Breaker,
    metrics: Arc<TierMetrics>,
    clock: Clock,
}

/// The input of a look-up.
pub struct TierQuery<'a> {
    pub key: &'a Key,
    pub request: &'a HeaderMap,
    /// The generation of the fetch; taken before any tier is asked.
    pub began: Generation,
    /// Largest body to take, in bytes.
    pub largest: u64,
}

/// The result of a purge.
#[derive(Debug)]
pub struct Purged {
    /// Responses in memory that matched.
    pub memory: usize,
    /// Each tier's result, in order: how many responses matched, where it knows, or why it has not acknowledged.
    pub tiers: Vec<(&'static str, Result<Option<u64>, Unacknowledged>)>,
}

/// Why a tier has not acknowledged a purge. The purge is repeated; until it is acknowledged, the tier is not asked for
/// what it matches.
#[derive(Debug, thiserror::Error)]
pub enum Unacknowledged {
    #[error("no answer in time")]
    Late,
    /// The tier failed.
    #[error("{0}")]
    Failed(#[source] TierError),
    /// It has not acknowledged earlier purges either; all are repeated later.
    #[error("it has not acknowledged earlier purges")]
    OutOfStep,
}

impl Unacknowledged {
    fn word(&self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Failed(_) => "failed",
            Self::OutOfStep => "out-of-step",
        }
    }
}

impl Tiers {
    /// These tiers, the nearest first, each with its bounds.
    pub fn new(tiers: Vec<(Arc<dyn Tier>, TierBounds)>, clock: &Clock, metrics: &Metrics) -> Self {
        let link = |(tier, bounds): (Arc<dyn Tier>, TierBounds)| Link {
            metrics: metrics.for_tier(tier.name()),
            tier,
            places: Semaphore::new(bounds.look_ups),
            bounds,
            underway: PendingPurges::default(),
            breaker: Breaker::default(),
            clock: clock.clone(),
        };
        Self { links: tiers.into_iter().map(link).collect(), catching_up: tokio::sync::Mutex::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Lets the tiers tell this edge what others do.
    pub fn attach(&self, edge: &Arc<dyn Hears>) {
        for link in &self.links {
            link.tier.attach(Arc::clone(edge));
        }
    }

    /// The first tier's response that is `wanted` at this moment, with the tier's name. `reserve` provides the room it
    /// takes while it is read.
    pub async fn look_up(
        &self,
        sought: &TierQuery<'_>,
        reserve: impl Fn(u64) -> Option<Reservation>,
        wanted: impl Fn(&Meta, Moment) -> bool,
    ) -> Option<(Stored, &'static str)> {
        for link in &self.links {
            let ended = link.look_up(sought, &reserve, &wanted).await;
            link.metrics.looked_up(ended.as_ref().map_or_else(NotFound::word, |_| "found"));
            match ended {
                Ok(stored) => return Some((stored, link.tier.name())),
                Err(NotFound::Failed(error)) => {
                    tracing::warn!(tier = link.tier.name(), %error, "a tier's look-up failed");
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Offers a response that has just been stored. Called while its write holds the gate's stripe: a purge waits for
    /// that, so that no offer of a response the purge matches follows it.
    pub(super) fn offer(&self, key: &Key, stored: &Stored) {
        for link in &self.links {
            let Some(kept) = Kept::of(stored, |moment| link.clock.wall_at(moment)) else { return };
            let body = stored.identity().body.clone();
            link.tier.offer(key, Offered { kept, body, began: stored.began });
        }
    }

    /// Makes every tier forget a resource that a response of the upstream contradicts.
    pub(super) fn forget(&self, key: &Key) {
        for link in &self.links {
            link.tier.forget(key);
        }
    }

    /// Begins a purge: from now on no tier is asked for what it may match. The caller stamps and sweeps memory next,
    /// and then calls [`Telling::finish`] to purge the tiers.
    pub fn begin(
        self: &Arc<Self>,
        rules: impl FnOnce() -> Vec<Rule>,
        (force, hearing): (Force, Hearing),
        at: Moment,
    ) -> Telling {
        let Some(first) = self.links.first() else { return Telling(None) };
        let purge = Arc::new(Purge { rules: rules(), force, at: first.clock.wall_at(at), hearing });
        let tickets = self.links.iter().map(|link| Some(link.underway.begin(&purge))).collect();
        Telling(Some(Noted { tiers: Arc::clone(self), purge, tickets }))
    }

    /// Whether a tier has not acknowledged a purge.
    pub fn out_of_step(&self) -> bool {
        self.links.iter().any(|link| link.underway.oldest_missed().is_some())
    }

    /// Repeats the purges that tiers have not acknowledged, for each tier until one fails. If the future is dropped,
    /// the rest stay for the next time.
    pub async fn catch_up(&self) {
        let Ok(_one) = self.catching_up.try_lock() else { return };
        for link in &self.links {
            if let Err(error) = link.catch_up().await {
                tracing::warn!(tier = link.tier.name(), %error, "a tier is still out of step with purges");
            }
        }
    }

    /// Waits a moment for a tier to have heard the purges before, which is told of them here if nobody does so. Whether it has.
    async fn in_step(&self, link: &Link) -> bool {
        if link.underway.oldest_missed().is_none() {
            return true;
        }
        let catch_up = async {
            let _one = self.catching_up.lock().await;
            link.catch_up().await.is_ok()
        };
        tokio::time::timeout(CATCH_UP, catch_up).await.unwrap_or(false)
    }
}

/// How long a purge waits for those before it. The bound of a tier's own purge ([`TierBounds`]) comes beside it.
const CATCH_UP: Duration = Duration::from_secs(2);

impl Link {
    async fn look_up(
        &self,
        sought: &TierQuery<'_>,
        reserve: impl Fn(u64) -> Option<Reservation>,
        wanted: impl Fn(&Meta, Moment) -> bool,
    ) -> Result<Stored, NotFound> {
        // After `sought.began` was taken: see `underway`.
        if self.underway.concerns(sought.key.as_str()) {
            return Err(NotFound::OutOfStep);
        }
        let _place = self.places.try_acquire().map_err(|_| NotFound::Busy)?;
        if !self.breaker.admits(self.clock.now()) {
            return Err(NotFound::LeftAlone);
        }
        let read = async {
            let found = self.tier.look_up(sought.key, sought.request).await.map_err(NotFound::Failed)?;
            let Found { kept, length, body } = found.ok_or(NotFound::Nothing)?;
            let now = self.clock.now();
            let answers = kept.answers(sought.request);
            let (facts, head) = kept.revived(sought.began, now, self.clock.wall_at(now));
            if length > sought.largest || !answers || !wanted(&facts.meta, now) {
                return Err(NotFound::Unwanted);
            }
            let _room = reserve(length).ok_or(NotFound::NoRoom)?;
            let body = body.await.map_err(NotFound::Failed)?;
            if body.length() != length {
                return Err(NotFound::Failed("a body is not as long as it should be".into()));
            }
            Ok(Stored::new(facts, &head, body))
        };
        let ended = match tokio::time::timeout(self.bounds.look_up, read).await {
            Ok(Err(NotFound::Failed(error))) if error.is::<LateAnswer>() => Err(NotFound::Late),
            Ok(ended) => ended,
            Err(_) => Err(NotFound::Late),
        };
        match &ended {
            Err(NotFound::Late | NotFound::Failed(_)) => self.failed(),
            _ => self.breaker.succeeded(),
        }
        ended
    }

    fn failed(&self) {
        let before = self.breaker.is_open();
        self.breaker.failed(self.clock.now());
        if !before && self.breaker.is_open() {
            tracing::warn!(tier = self.tier.name(), "a tier keeps failing, and is left alone for a while");
        }
    }

    /// Repeats what the tier has not acknowledged, until it fails.
    async fn catch_up(&self) -> Result<(), Unacknowledged> {
        while let Some((ticket, purge)) = self.underway.oldest_missed() {
            self.tell(&purge).await?;
            self.underway.acknowledged(ticket);
        }
        Ok(())
    }

    /// Sends a purge to the tier, and counts the result.
    async fn tell(&self, purge: &Purge) -> Result<Option<u64>, Unacknowledged> {
        let told = tokio::time::timeout(self.bounds.purge, self.tier.purge(purge)).await;
        let told = told.map_or(Err(Unacknowledged::Late), |told| told.map_err(Unacknowledged::Failed));
        self.metrics.purged(told.as_ref().map_or_else(Unacknowledged::word, |_| "acknowledged"));
        told
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Link").field("tier", &self.tier.name()).finish_non_exhaustive()
    }
}

/// Why a tier's look-up found nothing.
enum NotFound {
    Nothing,
    /// It has a response that this request cannot use.
    Unwanted,
    Late,
    Busy,
    NoRoom,
    OutOfStep,
    /// It has failed too often of late.
    LeftAlone,
    Failed(TierError),
}

impl NotFound {
    fn word(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Unwanted => "unwanted",
            Self::Late => "late",
            Self::Busy => "busy",
            Self::NoRoom => "no-room",
            Self::OutOfStep => "out-of-step",
            Self::LeftAlone => "left-alone",
            Self::Failed(_) => "failed",
        }
    }
}

/// A purge that has been noted for every tier and not yet sent. If dropped, it is sent when the tiers catch up.
#[derive(Debug)]
#[must_use = "a purge is acknowledged only when the tiers have been told"]
pub struct Telling(Option<Noted>);

#[derive(Debug)]
struct Noted {
    tiers: Arc<Tiers>,
    purge: Arc<Purge>,
    /// One ticket per tier; `None` once the tier has acknowledged.
    tickets: Vec<Option<Ticket>>,
}

impl Telling {
    /// Sends the purge to all tiers at once, and waits for their answers.
    pub async fn finish(self) -> Vec<(&'static str, Result<Option<u64>, Unacknowledged>)> {
        let Some(mut underway) = self.0 else { return Vec::new() };
        let Noted { tiers, purge, tickets } = &mut underway;
        let told = tiers.links.iter().zip(tickets).map(async |(link, ticket)| {
            // A tier must receive purges in order. An unsafe request does not wait for those before.
            let waits = purge.hearing == Hearing::Everyone;
            let in_step = match link.underway.oldest_missed() {
                Some(_) => waits && tiers.in_step(link).await,
                None => true,
            };
            let told = if in_step { link.tell(purge).await } else { Err(Unacknowledged::OutOfStep) };
            match (&told, ticket.take()) {
                (Ok(_), Some(acknowledged)) => link.underway.acknowledged(acknowledged),
                (Err(error), missed) => {
                    tracing::warn!(tier = link.tier.name(), %error, "a tier has not acknowledged a purge");
                    *ticket = missed;
                }
                (Ok(_), None) => {}
            }
            (link.tier.name(), told)
        });
        join_all(told).await
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        for (link, ticket) in self.tiers.links.iter().zip(&self.tickets) {
            if let Some(missed) = *ticket {
                link.underway.missed(missed);
            }
        }
    }
}
