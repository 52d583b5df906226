//! One fetch, many requests: who leads, who follows, and what the followers learn.
//!
//! ```text
//!   join ---- nothing under way ----------> leads
//!     |------ a fetch under way ----------> follows it; after `collapse_timeout` without an answer one of those who
//!     |                                     follow leads a second fetch, and so on: they are of one group, and whoever
//!     |                                     waits for one of them waits for the first answer of any
//!     '------ its answer did not suit ----> leads the next group, which those that come after it join
//! ```
//!
//! A [`Lead`] owns its place in the table. Whatever happens to the task that holds it, its `Drop` wakes every follower,
//! so nobody waits for a fetch that no longer runs.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cache_policy::{Moment, Reason};
use foldhash::fast::RandomState;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Key, Memory, Recording, Stored, purge::Generation, stored::Facts};
use crate::message::{
    failure::Failure,
    interim::{self, Relay},
};

/// What requests must agree on to share a fetch: the resource, and their values of the `Vary` last known for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FetchKey(Key, Box<str>);

/// All fetches under way that others may join. Bounded by the upstreams' connections and waiting places.
#[derive(Debug)]
pub struct Collapser {
    shards: [Mutex<HashMap<FetchKey, Arc<FetchUnderWay>>>; SHARDS],
    hasher: RandomState,
    groups: AtomicU64,
}

impl Default for Collapser {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
            groups: AtomicU64::default(),
        }
    }
}

/// Fetches for one answer: the first, and those that followers began when it was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u64);

/// What a request asks to share.
#[derive(Debug)]
pub struct Wish<'a> {
    pub key: &'a Key,
    /// Its values of the `Vary` last known.
    pub variant: Box<str>,
    /// The fetches whose answer did not suit it.
    pub after: Option<Group>,
}

/// A fetch under way.
#[derive(Debug)]
struct FetchUnderWay {
    key: FetchKey,
    group: Group,
    began: Moment,
    generation: Generation,
    /// Nothing has been published yet.
    silent: AtomicBool,
    /// Shared by the group.
    progress: watch::Sender<GroupProgress>,
}

impl FetchUnderWay {
    /// Whether the group's outcome may concern those who come now: one that is known already was for those who waited
    /// for it, though another fetch of the group may be under way for long. A body that is being filled is for all.
    fn may_be_joined(&self) -> bool {
        let progress = self.progress.borrow();
        let outcome = progress.published.as_ref().map(|published| &published.outcome);
        matches!(outcome, None | Some(FetchOutcome::Filling(_)))
    }
}

/// How far a group of fetches has come.
#[derive(Debug, Default)]
struct GroupProgress {
    /// The latest interim responses.
    interim: VecDeque<interim::InterimHead>,
    /// How many interim responses have come so far.
    informed: usize,
    /// Fetches that have published nothing.
    silent: usize,
    published: Option<Published>,
}

/// An outcome, and the time between which and which the upstream was asked for it.
#[derive(Clone, Debug)]
pub struct Published {
    pub outcome: FetchOutcome,
    pub began: Moment,
    pub answered: Moment,
}

/// The result of asking to go on without an answer that is late.
#[derive(Debug)]
pub enum TakeOver {
    /// The caller leads another fetch of the group.
    Lead(Lead),
    /// It waits on: another has gone on in its place, or the answer has just come.
    Waits,
    /// The group can be joined no more: it looks up again.
    Gone,
}

/// The result of joining a fetch.
#[derive(Debug)]
pub enum Joined {
    /// No fetch is under way: the caller leads one.
    Leader(Lead),
    /// A fetch is under way.
    Follower(Follow),
}

/// The outcome of a fetch, as far as it concerns those who share it.
#[derive(Clone, Debug)]
pub enum FetchOutcome {
    /// A response that will be stored; its body is arriving.
    Filling(Arc<Filling>),
    /// A stored response, complete: freshened by a 304.
    Stored(Arc<Stored>),
    /// A response from the named tier behind memory, fresh or inside a window in which it may be served stale.
    Found(Arc<Stored>, &'static str),
    /// A response for the leader's request alone. Followers send their own requests upstream.
    NotShared(Reason),
    /// No result: whoever shares the fetch looks up again.
    Nothing,
    /// No usable response; a stale stored response may be served instead.
    Failed(Failure),
    /// An error status, which does not replace the stored response; that may be served stale instead (RFC 5861 §4).
    ErrorStatus(StatusCode),
}

impl FetchOutcome {
    /// Whether it is a response for all who share the fetch.
    pub fn brings(&self) -> bool {
        matches!(self, Self::Filling(_) | Self::Stored(_) | Self::Found(..))
    }
}

/// A response that is being filled.
#[derive(Debug)]
pub struct Filling {
    pub facts: Facts,
    /// The head as it will be stored.
    pub head: HeaderMap,
    /// The length, where the upstream stated it.
    pub length: Option<u64>,
    pub recording: Arc<Recording>,
    /// Whether this is a 206 with the requested part, and not a whole to cut parts from.
    pub partial: bool,
    /// The upstream's own status, which is not that of an answer joined from parts.
    pub answered: StatusCode,
    /// From sending the request to the response's head.
    pub took: Duration,
}

impl Collapser {
    /// Joins the fetch under way for this key, or leads a new one that begins now. A fetch that began before a purge
    /// which may concern its response is not joined, nor one whose answer did not suit.
    pub fn join(self: &Arc<Self>, wish: Wish<'_>, now: Moment, memory: &Memory) -> Joined {
        let generation = memory.generation();
        let Wish { key: resource, variant, after } = wish;
        let key = FetchKey(resource.clone(), variant);
        let mut shard = self.shard(&key).lock();
        if let Some(fetch) = shard.get(&key)
            && Some(fetch.group) != after
            && fetch.may_be_joined()
            && !memory.outdated(fetch.generation, resource)
        {
            return Joined::Follower(Follow::of(fetch));
        }
        let fetch = Arc::new(self.fetch(key, now, generation));
        shard.insert(fetch.key.clone(), Arc::clone(&fetch));
        drop(shard);
        Joined::Leader(self.lead(fetch))
    }

    /// Follows the fetch under way for this key, if there is one that may be joined.
    pub fn follow(&self, wish: Wish<'_>, memory: &Memory) -> Option<Follow> {
        let Wish { key: resource, variant, after } = wish;
        let key = FetchKey(resource.clone(), variant);
        let shard = self.shard(&key).lock();
        let fetch = shard.get(&key).filter(|fetch| {
            Some(fetch.group) != after
                && fetch.may_be_joined()
                && !memory.outdated(fetch.generation, resource)
        })?;
        Some(Follow::of(fetch))
    }

    /// Goes on where the answer is late: at most one follower of a group each `patience`, so that a slow upstream is
    /// not asked by all of them at once.
    pub fn take_over(
        self: &Arc<Self>,
        follow: &mut Follow,
        now: Moment,
        patience: Duration,
        memory: &Memory,
    ) -> TakeOver {
        let key = &follow.fetch.key;
        let mut shard = self.shard(key).lock();
        let Some(latest) = shard.get(key).filter(|latest| latest.group == follow.fetch.group).cloned() else {
            return TakeOver::Gone;
        };
        if now < latest.began + patience {
            drop(shard);
            follow.fetch = latest;
            return TakeOver::Waits;
        }
        let generation = memory.generation();
        if memory.outdated(latest.generation, &key.0) {
            return TakeOver::Gone;
        }
        let (progress, group) = (latest.progress.clone(), latest.group);
        // Looked at and counted at once: an outcome that comes just now is not one of a fetch that begins after it.
        let mut answered = false;
        progress.send_if_modified(|progress| {
            answered = progress.published.is_some();
            progress.silent += usize::from(!answered);
            false
        });
        if answered {
            return TakeOver::Waits;
        }
        let silent = AtomicBool::new(true);
        let fetch =
            Arc::new(FetchUnderWay { key: key.clone(), group, began: now, generation, silent, progress });
        shard.insert(fetch.key.clone(), Arc::clone(&fetch));
        drop(shard);
        TakeOver::Lead(self.lead(fetch))
    }

    /// Leads a fetch that nobody joins.
    pub fn lead_alone(self: &Arc<Self>, key: &Key, now: Moment, memory: &Memory) -> Lead {
        self.lead_since(key, now, memory.generation())
    }

    /// As [`Self::lead_alone`], where the fetch began at that moment and generation.
    pub fn lead_since(self: &Arc<Self>, key: &Key, began: Moment, generation: Generation) -> Lead {
        let key = FetchKey(key.clone(), Box::default());
        self.lead(Arc::new(self.fetch(key, began, generation)))
    }

    /// The first fetch of a new group.
    fn fetch(&self, key: FetchKey, began: Moment, generation: Generation) -> FetchUnderWay {
        let group = Group(self.groups.fetch_add(1, Ordering::Relaxed));
        let progress = watch::Sender::new(GroupProgress { silent: 1, ..GroupProgress::default() });
        let silent = AtomicBool::new(true);
        FetchUnderWay { key, group, began, generation, silent, progress }
    }

    fn lead(self: &Arc<Self>, fetch: Arc<FetchUnderWay>) -> Lead {
        Lead { collapser: Arc::clone(self), fetch }
    }

    fn shard(&self, key: &FetchKey) -> &Mutex<HashMap<FetchKey, Arc<FetchUnderWay>>> {
        &self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS]
    }

    /// Fetches under way.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The right and the duty to fetch.
#[derive(Debug)]
pub struct Lead {
    collapser: Arc<Collapser>,
    fetch: Arc<FetchUnderWay>,
}

impl Lead {
    /// The count of purges when the fetch began.
    pub fn generation(&self) -> Generation {
        self.fetch.generation
    }

    /// Whether others may join; false where recent responses could not be shared.
    pub fn is_shared(&self) -> bool {
        let key = &self.fetch.key;
        let shard = self.collapser.shard(key).lock();
        shard.get(key).is_some_and(|fetch| Arc::ptr_eq(fetch, &self.fetch))
    }

    /// Publishes the outcome, known since `answered`, to everyone who shares the fetch; only the first counts. Where
    /// another fetch of the group may still bring an answer, one that brought none is no outcome.
    pub fn publish(&self, outcome: FetchOutcome, answered: Moment) {
        if !self.fetch.silent.swap(false, Ordering::Relaxed) {
            return;
        }
        self.fetch.progress.send_if_modified(|progress| {
            progress.silent -= 1;
            let without_answer = matches!(outcome, FetchOutcome::Failed(_) | FetchOutcome::Nothing);
            let decides = progress.published.is_none() && (progress.silent == 0 || !without_answer);
            if decides {
                progress.published = Some(Published { outcome, began: self.fetch.began, answered });
            }
            decides
        });
    }

    /// The leader's own view of the outcome.
    pub fn follow(&self) -> Follow {
        Follow::of(&self.fetch)
    }

    /// Forwards the upstream's interim responses to everyone who shares the fetch.
    pub fn informing(&self) -> Informing {
        Informing(Arc::clone(&self.fetch))
    }

    /// Removes the fetch from the table: later requests no longer join.
    pub fn close(&self) {
        let key = &self.fetch.key;
        let mut shard = self.collapser.shard(key).lock();
        if shard.get(key).is_some_and(|fetch| Arc::ptr_eq(fetch, &self.fetch)) {
            shard.remove(key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.close();
        self.publish(FetchOutcome::Nothing, self.fetch.began);
    }
}

/// Forwards the upstream's interim responses to those who share a fetch.
#[derive(Clone, Debug)]
pub struct Informing(Arc<FetchUnderWay>);

impl Informing {
    /// Forwards one, if it is for clients. Those who join later receive the latest few.
    pub fn pass(&self, status: StatusCode, headers: &HeaderMap) {
        if interim::is_for_clients(status) {
            self.0.progress.send_modify(|progress| {
                if progress.interim.len() == interim::MOST_WAITING {
                    progress.interim.pop_front();
                }
                progress.interim.push_back((status, headers.clone()));
                progress.informed += 1;
            });
        }
    }
}

/// A follower's handle, from which to wait for a fetch's outcome.
#[derive(Debug)]
pub struct Follow {
    /// The latest fetch of the group that it knows of.
    fetch: Arc<FetchUnderWay>,
    progress: watch::Receiver<GroupProgress>,
    /// How many interim responses have been passed on.
    passed: usize,
}

impl Follow {
    fn of(fetch: &Arc<FetchUnderWay>) -> Self {
        Self { fetch: Arc::clone(fetch), progress: fetch.progress.subscribe(), passed: 0 }
    }

    /// The fetches that it follows.
    pub fn group(&self) -> Group {
        self.fetch.group
    }

    /// When the latest of them began, as far as it knows.
    pub fn began(&self) -> Moment {
        self.fetch.began
    }

    /// The variant for which the fetch is.
    pub fn variant(&self) -> &str {
        &self.fetch.key.1
    }

    /// The outcome, as soon as it is known; interim responses that come before it go to `relay`. Cancel-safe; the
    /// caller sets the deadline.
    pub async fn outcome(&mut self, relay: Option<&Relay>) -> Published {
        loop {
            {
                let progress = self.progress.borrow_and_update();
                let new = (progress.informed - self.passed).min(progress.interim.len());
                self.passed = progress.informed;
                if let Some(relay) = relay {
                    for (status, headers) in progress.interim.range(progress.interim.len() - new..) {
                        relay.pass(*status, headers);
                    }
                }
                if let Some(published) = &progress.published {
                    return published.clone();
                }
            }
            // This follower holds a sender itself, so there is always one.
            let _ = self.progress.changed().await;
        }
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{message::target::Scheme, request::inbound};

    fn key() -> Key {
        let (head, ()) = Request::builder().uri("/").header("host", "a").body(()).unwrap().into_parts();
        Key::new(&inbound::read(&head, Scheme::Http).unwrap())
    }

    fn wish<'a>(key: &'a Key, variant: &str) -> Wish<'a> {
        Wish { key, variant: variant.into(), after: None }
    }

    #[tokio::test]
    async fn of_those_who_wait_too_long_one_goes_on_each_time_and_the_first_answer_is_for_all() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4, Arc::default());
        let at = |seconds| Moment::from_epoch(Duration::from_secs(seconds));
        let patience = Duration::from_secs(5);
        let Joined::Leader(slow) = collapser.join(wish(&key(), ""), at(0), &memory) else {
            panic!("the first leads")
        };
        let mut follows = [(); 3].map(|()| match collapser.join(wish(&key(), ""), at(1), &memory) {
            Joined::Follower(follow) => follow,
            Joined::Leader(_) => panic!("the others follow"),
        });
        let leads = |follows: &mut [Follow; 3], now| {
            follows
                .iter_mut()
                .filter_map(|follow| match collapser.take_over(follow, at(now), patience, &memory) {
                    TakeOver::Lead(lead) => Some(lead),
                    TakeOver::Waits => None,
                    TakeOver::Gone => panic!("the group is there"),
                })
                .collect::<Vec<_>>()
        };
        assert!(leads(&mut follows, 4).is_empty(), "not before its time");
        let second = leads(&mut follows, 5);
        assert_eq!(second.len(), 1);
        assert!(leads(&mut follows, 9).is_empty());
        let third = leads(&mut follows, 10);
        assert_eq!((third.len(), collapser.len()), (1, 1));
        drop(slow);
        third[0].publish(FetchOutcome::Failed(Failure::Timeout), at(11));
        assert!(
            futures_util::FutureExt::now_or_never(follows[0].outcome(None)).is_none(),
            "the second may still answer"
        );
        second[0].publish(FetchOutcome::ErrorStatus(StatusCode::BAD_GATEWAY), at(12));
        for follow in &mut follows {
            assert!(matches!(follow.outcome(None).await.outcome, FetchOutcome::ErrorStatus(_)));
        }
    }

    #[tokio::test]
    async fn those_whom_an_answer_does_not_suit_share_the_next_fetch() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4, Arc::default());
        let now = Moment::from_epoch(Duration::ZERO);
        let Joined::Leader(first) = collapser.join(wish(&key(), ""), now, &memory) else {
            panic!("the first leads")
        };
        let after = Some(first.follow().group());
        let next = || collapser.join(Wish { after, ..wish(&key(), "") }, now, &memory);
        let Joined::Leader(second) = next() else { panic!("the first that it does not suit leads") };
        let Joined::Follower(follow) = next() else { panic!("the next follows") };
        assert_eq!(follow.group(), second.follow().group());
        drop(first);
        assert_eq!(collapser.len(), 1, "the first leaves the second in its place");
    }

    #[tokio::test]
    async fn followers_learn_of_a_leader_that_vanished() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4, Arc::default());
        let now = Moment::from_epoch(Duration::ZERO);
        let Joined::Leader(lead) = collapser.join(wish(&key(), ""), now, &memory) else {
            panic!("the first leads")
        };
        let Joined::Follower(mut follow) = collapser.join(wish(&key(), ""), now, &memory) else {
            panic!("the second follows")
        };
        drop(lead);
        assert!(matches!(follow.outcome(None).await.outcome, FetchOutcome::Nothing));
        assert!(collapser.is_empty());
    }

    #[tokio::test]
    async fn interim_responses_reach_everyone_who_shares_the_fetch_however_late() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4, Arc::default());
        let now = Moment::from_epoch(Duration::ZERO);
        let Joined::Leader(lead) = collapser.join(wish(&key(), ""), now, &memory) else {
            panic!("the first leads")
        };
        let mut early = lead.follow();
        let (relay, received) = interim::relay();
        for number in 0..20 {
            let headers = HeaderMap::from_iter([(http::header::LINK, number.into())]);
            lead.informing().pass(StatusCode::EARLY_HINTS, &headers);
        }
        lead.informing().pass(StatusCode::CONTINUE, &HeaderMap::new());
        let Joined::Follower(mut late) = collapser.join(wish(&key(), ""), now, &memory) else {
            panic!("the second follows")
        };
        drop(lead);
        for follow in [&mut early, &mut late] {
            assert!(matches!(follow.outcome(Some(&relay)).await.outcome, FetchOutcome::Nothing));
            let numbers: Vec<_> = received
                .take()
                .into_iter()
                .map(|(status, headers)| (status.as_u16(), headers["link"].to_str().unwrap().to_owned()))
                .collect();
            let latest: Vec<_> = (12..20).map(|number| (103, number.to_string())).collect();
            assert_eq!(numbers, latest, "the latest few, in order");
        }
    }

    #[tokio::test]
    async fn other_variants_are_fetched_apart() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4, Arc::default());
        let now = Moment::from_epoch(Duration::ZERO);
        let Joined::Leader(_german) = collapser.join(wish(&key(), "de"), now, &memory) else {
            panic!("leads")
        };
        let Joined::Leader(_english) = collapser.join(wish(&key(), "en"), now, &memory) else {
            panic!("leads too")
        };
        assert_eq!(collapser.len(), 2);
    }
}
