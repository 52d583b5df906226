//! One fetch, many requests: who leads, who follows, and what the followers learn.
//!
//! A [`Lead`] owns its place in the table. Whatever happens to the task that holds it, its `Drop` tells every follower,
//! so nobody waits for a fetch that no longer runs.

use std::{collections::HashMap, hash::BuildHasher, sync::Arc, time::Duration};

use cache_policy::{Moment, Reason};
use foldhash::fast::RandomState;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Key, Memory, Recording, Stored, purge::Generation, stored::Facts};
use crate::failure::Failure;

/// What requests must agree on to share a fetch: the resource, and what its `Vary` was last known to tell apart.
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
    outcome: watch::Sender<Option<Outcome>>,
}

/// What a request finds when it joins.
#[derive(Debug)]
pub enum Joined {
    /// Nobody fetches this yet: the caller does.
    Leader(Lead),
    /// Somebody does.
    Follower(Follow),
}

/// What a fetch came to, as far as it concerns those who share it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A response that will be stored; its body is arriving.
    Filling(Arc<Filling>),
    /// A stored response, complete: freshened by a 304.
    Stored(Arc<Stored>),
    /// A response for its own request alone. Followers go upstream by themselves.
    NotShared(Reason),
    /// Nothing to go by: whoever shares it looks again.
    Nothing,
    /// No response, or one that a stale stored response may stand in for.
    Failed(Failure),
    /// An error answer, which stands in for no stored response (RFC 5861 §4).
    ErrorStatus(StatusCode),
}

/// A response that is being filled.
#[derive(Debug)]
pub struct Filling {
    /// What is known of it.
    pub facts: Facts,
    /// Its head as it will be stored.
    pub head: HeaderMap,
    /// Its length where the upstream stated it.
    pub length: Option<u64>,
    /// Its body.
    pub recording: Arc<Recording>,
    /// Whether this is a 206 with the part that was asked for, and not a whole to cut parts from.
    pub partial: bool,
    /// From sending the request to the response's head.
    pub took: Duration,
}

impl Collapser {
    /// Joins the fetch under way for this key, or leads a new one that begins now. One whose answer may be what has been
    /// purged since it began is not joined.
    pub fn join(self: &Arc<Self>, key: &Key, variant: Box<str>, now: Moment, memory: &Memory) -> Joined {
        let generation = memory.generation();
        let resource = key;
        let key = FetchKey(key.clone(), variant);
        let mut shard = self.shard(&key).lock();
        if let Some(fetch) = shard.get(&key)
            && !memory.outdated(fetch.generation, resource)
        {
            return Joined::Follower(Follow { began: fetch.began, outcome: fetch.outcome.subscribe() });
        }
        let fetch = Arc::new(Fetch { began: now, generation, outcome: watch::Sender::new(None) });
        shard.insert(key.clone(), Arc::clone(&fetch));
        drop(shard);
        Joined::Leader(Lead { collapser: Arc::clone(self), key, fetch })
    }

    /// Leads a fetch that nobody joins.
    pub fn alone(self: &Arc<Self>, key: &Key, now: Moment, memory: &Memory) -> Lead {
        let (generation, outcome) = (memory.generation(), watch::Sender::new(None));
        let fetch = Arc::new(Fetch { began: now, generation, outcome });
        Lead { collapser: Arc::clone(self), key: FetchKey(key.clone(), Box::default()), fetch }
    }

    fn shard(&self, key: &FetchKey) -> &Mutex<HashMap<FetchKey, Arc<Fetch>>> {
        &self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS]
    }

    /// Fetches under way.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether no fetch is under way.
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

    /// Tells everyone who shares the fetch what it came to.
    pub fn publish(&self, outcome: Outcome) {
        self.fetch.outcome.send_replace(Some(outcome));
    }

    /// The leader's own view of the outcome.
    pub fn follow(&self) -> Follow {
        Follow { began: self.fetch.began, outcome: self.fetch.outcome.subscribe() }
    }

    /// Leaves the table: later requests no longer join.
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
        self.fetch.outcome.send_if_modified(|outcome| {
            let silent = outcome.is_none();
            if silent {
                *outcome = Some(Outcome::Nothing);
            }
            silent
        });
    }
}

/// A place from which to wait for a fetch's outcome.
#[derive(Debug)]
pub struct Follow {
    /// When the fetch began: its answer is as good as validated for every request that came before.
    pub began: Moment,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Follow {
    /// The outcome, as soon as it is known. Cancel-safe; the caller sets the deadline.
    pub async fn outcome(&mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("waited for Some"),
            // The sender lives in a `Lead`, whose `Drop` publishes first.
            Err(_) => Outcome::Nothing,
        }
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::inbound::{self, Scheme};

    fn key() -> Key {
        let (head, ()) = Request::builder().uri("/").header("host", "a").body(()).unwrap().into_parts();
        Key::new(&inbound::read(&head, Scheme::Http).unwrap())
    }

    #[tokio::test]
    async fn followers_learn_of_a_leader_that_vanished() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4);
        let now = Moment::from_epoch(Duration::ZERO);
        let Joined::Leader(lead) = collapser.join(&key(), "".into(), now, &memory) else {
            panic!("the first leads")
        };
        let Joined::Follower(mut follow) = collapser.join(&key(), "".into(), now, &memory) else {
            panic!("the second follows")
        };
        drop(lead);
        assert!(matches!(follow.outcome().await, Outcome::Nothing));
        assert!(collapser.is_empty());
    }

    #[tokio::test]
    async fn other_variants_are_fetched_apart() {
        let collapser = Arc::new(Collapser::default());
        let memory = Memory::new(1 << 20, 4);
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
