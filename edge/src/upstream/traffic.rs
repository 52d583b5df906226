//! How many requests are under way to an address, whichever settings sent them there: pools come and go with their servers
//! and with reloads, and an instance that is to stop first finishes what it was asked.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::address::Address;

/// The places for requests of all pools that there are, and of those that are gone while a request has one.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<Vec<CountedPlaces>>);

/// The places at one server.
#[derive(Debug)]
struct CountedPlaces {
    address: Address,
    all: usize,
    /// Held by the pool, and by each request that has a place.
    free: Weak<Semaphore>,
}

impl Traffic {
    /// Counts these places, `all` of them, from now on.
    pub fn count(&self, address: &Address, all: usize, free: &Arc<Semaphore>) {
        let mut counted = self.0.lock();
        counted.retain(|places| places.free.strong_count() > 0);
        counted.push(CountedPlaces { address: address.clone(), all, free: Arc::downgrade(free) });
    }

    /// Requests that have a place at this address. Those that wait for one do so while all are taken; tunnels and event streams,
    /// which end when they like, have places of their own.
    pub fn under_way(&self, address: &Address) -> usize {
        let counted = self.0.lock();
        let here = counted.iter().filter(|places| places.address == *address);
        here.filter_map(|places| Some(places.all.saturating_sub(places.free.upgrade()?.available_permits())))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_it_ends_though_its_pool_is_gone() {
        let traffic = Traffic::default();
        let [here, there] = [1, 2].map(|port| Address::Socket(([127, 0, 0, 1], port).into()));
        let (one, two) = (Arc::new(Semaphore::new(3)), Arc::new(Semaphore::new(1)));
        traffic.count(&here, 3, &one);
        traffic.count(&here, 1, &two);
        let first = Arc::clone(&one).try_acquire_owned().unwrap();
        let second = two.try_acquire_owned().unwrap();
        assert_eq!((traffic.under_way(&here), traffic.under_way(&there)), (2, 0));
        drop(one);
        assert_eq!(traffic.under_way(&here), 2);
        drop(first);
        assert_eq!(traffic.under_way(&here), 1);
        drop(second);
        traffic.count(&there, 1, &Arc::new(Semaphore::new(1)));
        assert_eq!((traffic.under_way(&here), traffic.0.lock().len()), (0, 1), "nothing of it is left");
    }
}
