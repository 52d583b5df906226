//! How the cache's gate and its tables lock and count: a parameter, so that an interleaving checker can run the very code.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use parking_lot::Mutex;

/// How [`super::purge::Gate`] locks and counts: as the edge does, or as an interleaving checker wants it.
pub trait Locking: 'static {
    /// A lock round a value.
    type Mutex<T: Send>: Send + Sync;
    /// A number that all threads see.
    type Counter: Counter;
    /// Hashes the same as long as it lives.
    type Hasher: BuildHasher + Default + Clone + Send + Sync;
    /// A new lock.
    fn mutex<T: Send>(value: T) -> Self::Mutex<T>;
    /// Runs `with` while holding the lock.
    fn locked<T: Send, R>(mutex: &Self::Mutex<T>, with: impl FnOnce(&mut T) -> R) -> R;
}

/// A number that all threads see in one order with the other counters.
pub trait Counter: Default + Send + Sync {
    fn get(&self) -> u64;
    /// One more; the number then.
    fn up(&self) -> u64;
    /// One less.
    fn down(&self);
    /// The larger of itself and this.
    fn raise(&self, to: u64);
}

/// The locks the edge runs with.
#[derive(Debug)]
pub struct ParkingLot;

impl Locking for ParkingLot {
    type Mutex<T: Send> = Mutex<T>;
    type Counter = AtomicU64;
    type Hasher = foldhash::fast::RandomState;

    fn mutex<T: Send>(value: T) -> Mutex<T> {
        Mutex::new(value)
    }

    fn locked<T: Send, R>(mutex: &Mutex<T>, with: impl FnOnce(&mut T) -> R) -> R {
        with(&mut mutex.lock())
    }
}

impl Counter for AtomicU64 {
    fn get(&self) -> u64 {
        self.load(SeqCst)
    }

    fn up(&self) -> u64 {
        self.fetch_add(1, SeqCst) + 1
    }

    fn down(&self) {
        self.fetch_sub(1, SeqCst);
    }

    fn raise(&self, to: u64) {
        self.fetch_max(to, SeqCst);
    }
}
