//! How many of something each client has at once: connections, or requests under way.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::quality::RandomState;
use parking_lot::Mutex;

/// Every client that has any: as many entries as there are things.
#[derive(Debug)]
pub struct ClientShares {
    most: AtomicUsize,
    /// By a number of each client's own.
    taken: Mutex<HashMap<u128, usize, RandomState>>,
}

impl ClientShares {
    /// So many for each client.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(most), taken: Mutex::default() })
    }

    /// So many from now on. Who has more keeps them.
    pub fn resize(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// One more for this client, unless it has all that it may.
    pub fn try_take(self: &Arc<Self>, client: u128) -> Option<ClientShare> {
        let mut all = self.taken.lock();
        let taken = all.entry(client).or_default();
        // Nobody is remembered who has none: there is at least one to have.
        if *taken >= self.most.load(Ordering::Relaxed).max(1) {
            return None;
        }
        *taken += 1;
        drop(all);
        Some(ClientShare { shares: Arc::clone(self), client })
    }

    /// One more for this client, which gives up another for it.
    pub fn take(self: &Arc<Self>, client: u128) -> ClientShare {
        *self.taken.lock().entry(client).or_default() += 1;
        ClientShare { shares: Arc::clone(self), client }
    }
}

/// One of what a client has. Dropped, it may have another.
#[derive(Debug)]
pub struct ClientShare {
    shares: Arc<ClientShares>,
    client: u128,
}

impl ClientShare {
    /// Whose it is.
    pub fn client(&self) -> u128 {
        self.client
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        let mut all = self.shares.taken.lock();
        if let Some(taken) = all.get_mut(&self.client) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.client);
            }
        }
        // A flood of clients leaves no table behind.
        if all.capacity() > 1024 && all.len() < all.capacity() / 8 {
            all.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_share_and_nothing_is_kept_of_who_has_none() {
        let shares = ClientShares::new(2);
        let held = [shares.try_take(1), shares.try_take(1)];
        assert!(held.iter().all(Option::is_some) && shares.try_take(1).is_none());
        assert!(shares.try_take(2).is_some(), "another client has a share of its own");
        shares.resize(1);
        drop(held);
        let one = shares.try_take(1);
        assert!(one.is_some() && shares.try_take(1).is_none());
        drop(one);
        assert!(shares.taken.lock().is_empty());
    }
}
