//! One fetch, many requests: who leads, who follows, and what the followers learn.
//!
//! A [`Lead`] owns its place in the table. Whatever happens to the task that holds it, its `Drop` wakes every follower,
//! so nobody waits for a fetch that no longer runs.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
    sync::Arc,
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
    shards: [Mutex<HashMap<FetchKey, Arc<Fetch>>>; SHARDS],
    hasher: RandomState,
}

impl Default for Collapser {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::default() }
    }
}

/// A fetch under way.
#[derive(Debug)]
struct Fetch {
    began: Moment,
    generation: Generation,
    progress: watch::Sender<Progress>,
}

/// How far a fetch has come.
#[derive(Debug, Default)]
struct Progress {
    /// The latest interim responses.
    interim: VecDeque<interim::Received>,
    /// How many interim responses have come so far.
    informed: usize,
    outcome: Option<FetchOutcome>,
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
    /// From sending the request to the response's head.
    pub took: Duration,
}

impl Collapser {
    /// Joins the fetch under way for this key, or leads a new one that begins now. A fetch that began before a purge
    /// which may concern its response is not joined.
    pub fn join(self: &Arc<Self>, key: &Key, variant: Box<str>, now: Moment, memory: &Memory) -> Joined {
        let generation = memory.generation();
        let resource = key;
        let key = FetchKey(key.clone(), variant);
        let mut shard = self.shard(&key).lock();
        if let Some(fetch) = shard.get(&key)
            && !memory.outdated(fetch.generation, resource)
        {
            return Joined::Follower(Follow::of(fetch));
        }
        let fetch = Arc::new(Fetch { began: now, generation, progress: watch::Sender::default() });
        shard.insert(key.clone(), Arc::clone(&fetch));
        drop(shard);
        Joined::Leader(Lead { collapser: Arc::clone(self), key, fetch })
    }

    /// Follows the fetch under way for this key, if there is one that may be joined.
    pub fn follow(&self, key: &Key, variant: Box<str>, memory: &Memory) -> Option<Follow> {
        let resource = key;
        let key = FetchKey(key.clone(), variant);
        let shard = self.shard(&key).lock();
        let fetch = shard.get(&key).filter(|fetch| !memory.outdated(fetch.generation, resource))?;
        Some(Follow::of(fetch))
    }

    /// Leads a fetch that nobody joins.
    pub fn lead_alone(self: &Arc<Self>, key: &Key, now: Moment, memory: &Memory) -> Lead {
        let (generation, progress) = (memory.generation(), watch::Sender::default());
        let fetch = Arc::new(Fetch { began: now, generation, progress });
        Lead { collapser: Arc::clone(self), key: FetchKey(key.clone(), Box::default()), fetch }
    }

    fn shard(&self, key: &FetchKey) -> &Mutex<HashMap<FetchKey, Arc<Fetch>>> {
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
    key: FetchKey,
    fetch: Arc<Fetch>,
}

impl Lead {
    /// The count of purges when the fetch began.
    pub fn generation(&self) -> Generation {
        self.fetch.generation
    }

    /// Whether others may join; false where recent responses could not be shared.
    pub fn is_shared(&self) -> bool {
        let shard = self.collapser.shard(&self.key).lock();
        shard.get(&self.key).is_some_and(|fetch| Arc::ptr_eq(fetch, &self.fetch))
    }

    /// Publishes the outcome to everyone who shares the fetch.
    pub fn publish(&self, outcome: FetchOutcome) {
        self.fetch.progress.send_modify(|progress| progress.outcome = Some(outcome));
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
        let mut shard = self.collapser.shard(&self.key).lock();
        if shard.get(&self.key).is_some_and(|fetch| Arc::ptr_eq(fetch, &self.fetch)) {
            shard.remove(&self.key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.close();
        self.fetch.progress.send_if_modified(|progress| {
            let silent = progress.outcome.is_none();
            if silent {
                progress.outcome = Some(FetchOutcome::Nothing);
            }
            silent
        });
    }
}

/// Forwards the upstream's interim responses to those who share a fetch.
#[derive(Clone, Debug)]
pub struct Informing(Arc<Fetch>);

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
    /// When the fetch began: its response counts as validated for every request that arrived before.
    pub began: Moment,
    progress: watch::Receiver<Progress>,
    /// How many interim responses have been passed on.
    passed: usize,
}

impl Follow {
    fn of(fetch: &Fetch) -> Self {
        Self { began: fetch.began, progress: fetch.progress.subscribe(), passed: 0 }
    }

    /// The outcome, as soon as it is known; interim responses that come before it go to `relay`. Cancel-safe; the
    /// caller sets the deadline.
    pub async fn outcome(&mut self, relay: Option<&Relay>) -> FetchOutcome {
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
                if let Some(outcome) = &progress.outcome {
                    return outcome.clone();
                }
            }
            if self.progress.changed().await.is_err() {
                // The sender lives in a `Lead`, whose `Drop` publishes first.
                return FetchOutcome::Nothing;
            }
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

    #[tokio::test]
    async fn followers_learn_of_a_leader_that_vanished() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4, Arc::default());
        let now = Moment::from_epoch(Duration::ZERO);
        let Joined::Leader(lead) = collapser.join(&key(), "".into(), now, &memory) else {
            panic!("the first leads")
        };
        let Joined::Follower(mut follow) = collapser.join(&key(), "".into(), now, &memory) else {
            panic!("the second follows")
        };
        drop(lead);
        assert!(matches!(follow.outcome(None).await, FetchOutcome::Nothing));
        assert!(collapser.is_empty());
    }

    #[tokio::test]
    async fn interim_responses_reach_everyone_who_shares_the_fetch_however_late() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4, Arc::default());
        let now = Moment::from_epoch(Duration::ZERO);
        let Joined::Leader(lead) = collapser.join(&key(), "".into(), now, &memory) else {
            panic!("the first leads")
        };
        let mut early = lead.follow();
        let (relay, mut received) = interim::relay();
        for number in 0..20 {
            let headers = HeaderMap::from_iter([(http::header::LINK, number.into())]);
            lead.informing().pass(StatusCode::EARLY_HINTS, &headers);
        }
        lead.informing().pass(StatusCode::CONTINUE, &HeaderMap::new());
        let Joined::Follower(mut late) = collapser.join(&key(), "".into(), now, &memory) else {
            panic!("the second follows")
        };
        drop(lead);
        for follow in [&mut early, &mut late] {
            assert!(matches!(follow.outcome(Some(&relay)).await, FetchOutcome::Nothing));
            let numbers: Vec<_> = std::iter::from_fn(|| received.try_recv().ok())
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
        let Joined::Leader(_german) = collapser.join(&key(), "de".into(), now, &memory) else {
            panic!("leads")
        };
        let Joined::Leader(_english) = collapser.join(&key(), "en".into(), now, &memory) else {
            panic!("leads too")
        };
        assert_eq!(collapser.len(), 2);
    }
}
