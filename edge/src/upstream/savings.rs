//! A share of all requests that may cost more than one each: saved while few do, up to a bound.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has been saved.
#[derive(Debug)]
pub struct Savings {
    /// In hundredths of a request.
    saved: AtomicU64,
    most: u64,
}

impl Savings {
    /// Nothing yet, and later so many requests at most.
    pub const fn none(most: u64) -> Self {
        Self { saved: AtomicU64::new(0), most: most * ONE }
    }

    /// So many requests, the most there may be.
    pub const fn full(most: u64) -> Self {
        Self { saved: AtomicU64::new(most * ONE), most: most * ONE }
    }

    /// A request begins; `percent` is the share of all.
    pub fn earn(&self, percent: u32) {
        // Full, as they mostly are, it costs a load.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
            (saved < self.most).then(|| (saved + u64::from(percent)).min(self.most))
        });
    }

    /// Takes one request out, if there is one.
    pub fn spend(&self) -> bool {
        let less = |saved: u64| saved.checked_sub(ONE);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

const ONE: u64 = 100;
