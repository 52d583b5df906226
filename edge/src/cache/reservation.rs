//! Room for a body that is not stored yet.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Room taken for a body that is being filled; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl Reservation {
    /// Adds so many bytes to `total`; returns the new total.
    pub(super) fn take(total: &Arc<AtomicU64>, bytes: u64) -> (Self, u64) {
        let taken = total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (Self { bytes, total: Arc::clone(total) }, taken)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds another reservation of the same tier to this one.
    pub fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
