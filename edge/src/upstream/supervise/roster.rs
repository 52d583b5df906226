//! The state of the commands for readers on all threads: which instances are ready.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

/// Every command by name, for readers on any thread.
#[derive(Debug, Default)]
pub struct Roster(pub(super) ArcSwap<BTreeMap<Arc<str>, Arc<Endpoints>>>);

impl Roster {
    /// The instances of one command.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Endpoints>> {
        self.0.load().get(name).cloned()
    }

    /// Every command, in the order of names.
    #[must_use]
    pub fn all(&self) -> Arc<BTreeMap<Arc<str>, Arc<Endpoints>>> {
        self.0.load_full()
    }
}

impl crate::upstream::Commands for Roster {
    fn ready(&self, command: &str) -> Arc<[SocketAddr]> {
        self.get(command).map_or_else(|| Arc::from([]), |endpoints| endpoints.snapshot())
    }
}

/// The ready instances of one command. The same value stays for as long as the command is in the settings.
#[derive(Debug)]
pub struct Endpoints {
    ready: ArcSwap<Arc<[SocketAddr]>>,
    pub(super) wanted: AtomicUsize,
    pub(super) restarts: AtomicU64,
    changed: Notify,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            ready: ArcSwap::from_pointee(Arc::from([])),
            wanted: AtomicUsize::new(0),
            restarts: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }
}

impl Endpoints {
    /// Where the ready instances listen, oldest first. Takes no lock.
    #[must_use]
    pub fn snapshot(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.ready.load())
    }

    /// How many instances the settings ask for.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// How often instances have been started again since the edge started.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Waits until the ready instances are `enough`, and returns them. The wait has no end of its own: bound it. Dropping it
    /// changes nothing.
    pub async fn until(&self, enough: impl Fn(&[SocketAddr]) -> bool) -> Arc<[SocketAddr]> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that a change between the check and the wait is not lost.
            changed.as_mut().enable();
            let now = self.snapshot();
            if enough(&now) {
                return now;
            }
            changed.await;
        }
    }

    pub(super) fn publish(self: &Arc<Self>, address: SocketAddr) -> Published {
        self.edit(|ready| ready.push(address));
        Published { endpoints: Arc::clone(self), address }
    }

    fn edit(&self, change: impl Fn(&mut Vec<SocketAddr>)) {
        self.ready.rcu(|ready| {
            let mut ready = ready.to_vec();
            change(&mut ready);
            Arc::<[SocketAddr]>::from(ready)
        });
        self.changed.notify_waiters();
    }
}

/// An instance among the ready ones, until this is dropped.
pub(super) struct Published {
    endpoints: Arc<Endpoints>,
    address: SocketAddr,
}

impl Drop for Published {
    fn drop(&mut self) {
        self.endpoints.edit(|ready| ready.retain(|address| *address != self.address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_instances_come_and_go() {
        let endpoints = Arc::<Endpoints>::default();
        let (one, two) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
        let first = endpoints.publish(one);
        let second = endpoints.publish(two);
        assert_eq!(*endpoints.snapshot(), [one, two]);
        drop(first);
        assert_eq!(*endpoints.snapshot(), [two]);
        drop(second);
        assert_eq!(*endpoints.snapshot(), []);
    }
}
