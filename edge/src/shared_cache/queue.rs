//! What this edge has stored, on its way to Redis: a queue, bounded in number and in bytes.
//!
//! Who offers waits for nothing, since a write of memory holds its stripe. What there is no room for is forgotten in Redis, since
//! what is there is older: at the next opportunity, where Redis is away.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cache::{Key, tier::Offered};

/// A queue and its far end.
pub(super) fn queue() -> (OfferQueue, OfferedLater) {
    let (sender, receiver) = mpsc::channel(MOST);
    let bytes = Arc::<AtomicU64>::default();
    let unforgotten = Arc::<Mutex<HashSet<Key>>>::default();
    (
        OfferQueue { sender, bytes: Arc::clone(&bytes), unforgotten: Arc::clone(&unforgotten) },
        OfferedLater { receiver, bytes, unforgotten },
    )
}

/// The near end: offers and forgets.
#[derive(Debug)]
pub(super) struct OfferQueue {
    sender: mpsc::Sender<QueuedWrite>,
    bytes: Arc<AtomicU64>,
    /// What is still to be forgotten, and had no room in the queue.
    unforgotten: Arc<Mutex<HashSet<Key>>>,
}

/// The far end, of which there is one.
#[derive(Debug)]
pub(super) struct OfferedLater {
    receiver: mpsc::Receiver<QueuedWrite>,
    bytes: Arc<AtomicU64>,
    unforgotten: Arc<Mutex<HashSet<Key>>>,
}

#[derive(Debug)]
pub(super) enum QueuedWrite {
    Offer(Key, Box<Offered>),
    Forget(Key),
}

impl OfferQueue {
    /// Takes an offer, or says in a word why not.
    pub(super) fn offer(&self, key: &Key, offered: Offered, largest: u64) -> Result<(), &'static str> {
        let length = offered.body.length();
        if length > largest {
            self.forget(key);
            return Err("too-large");
        }
        if self.bytes.fetch_add(length, Relaxed) + length > MOST_BYTES {
            self.bytes.fetch_sub(length, Relaxed);
            self.forget(key);
            return Err("no-room");
        }
        self.sender.try_send(QueuedWrite::Offer(key.clone(), Box::new(offered))).map_err(|_| {
            self.bytes.fetch_sub(length, Relaxed);
            self.forget(key);
            "no-room"
        })
    }

    pub(super) fn forget(&self, key: &Key) {
        if self.sender.try_send(QueuedWrite::Forget(key.clone())).is_err() {
            remember(&self.unforgotten, key.clone());
        }
    }
}

fn remember(unforgotten: &Mutex<HashSet<Key>>, key: Key) {
    let mut unforgotten = unforgotten.lock();
    if unforgotten.len() < MOST_UNFORGOTTEN {
        unforgotten.insert(key);
    }
}

impl OfferedLater {
    /// The next to be written.
    pub(super) async fn next(&mut self) -> Option<QueuedWrite> {
        self.receiver.recv().await
    }

    /// A body of this length is held no more.
    pub(super) fn written(&self, length: u64) {
        self.bytes.fetch_sub(length, Relaxed);
    }

    /// Remembers what could not be forgotten.
    pub(super) fn forget_later(&self, key: Key) {
        remember(&self.unforgotten, key);
    }

    /// What is still to be forgotten.
    pub(super) fn unforgotten(&self) -> HashSet<Key> {
        std::mem::take(&mut *self.unforgotten.lock())
    }
}

const MOST: usize = 1024;
const MOST_BYTES: u64 = 32 << 20;
/// A few hundred octets each.
const MOST_UNFORGOTTEN: usize = 4096;
