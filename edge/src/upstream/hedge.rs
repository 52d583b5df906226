//! When a request is asked of a second server because the first is late: later than 95 of 100 answers are.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// What answers took, in the last few thousand of them.
#[derive(Debug)]
pub struct Latencies {
    /// By the logarithm of the microseconds, eight steps for each doubling.
    buckets: [AtomicU32; BUCKETS],
    count: AtomicU32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: [const { AtomicU32::new(0) }; BUCKETS], count: AtomicU32::new(0) }
    }
}

impl Latencies {
    /// An answer began after `took`.
    pub fn add(&self, took: Duration) {
        self.buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
        // One of many threads meets the number: what is older counts half.
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == FORGETS {
            let mut left = 0;
            for bucket in &self.buckets {
                let half = bucket.load(Ordering::Relaxed) / 2;
                bucket.store(half, Ordering::Relaxed);
                left += half;
            }
            self.count.store(left, Ordering::Relaxed);
        }
    }

    /// What 95 of 100 answers take at most; `None` while too few are known.
    pub fn most(&self) -> Option<Duration> {
        let count = self.count.load(Ordering::Relaxed);
        if count < KNOWN {
            return None;
        }
        let mut above = u64::from(count) * 95 / 100;
        for (index, bucket) in self.buckets.iter().enumerate() {
            match above.checked_sub(u64::from(bucket.load(Ordering::Relaxed))) {
                Some(rest) => above = rest,
                None => return Some(upper(index)),
            }
        }
        Some(upper(BUCKETS - 1))
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1) as f64;
    ((micros.log2() * 8.0) as usize).min(BUCKETS - 1)
}

fn upper(bucket: usize) -> Duration {
    Duration::from_micros(((bucket + 1) as f64 / 8.0).exp2() as u64)
}

/// Up to some half an hour.
const BUCKETS: usize = 256;
/// Answers that have to be known.
const KNOWN: u32 = 100;
/// After so many, what is known counts half.
const FORGETS: u32 = 4_000;
/// Requests that may be asked twice at once, after a quiet time.
pub const MOST_HEDGES: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::savings::Savings;

    #[test]
    fn ninety_five_of_a_hundred_answers_are_quicker() {
        let latencies = Latencies::default();
        for number in 0..99 {
            latencies.add(Duration::from_millis(if number % 20 == 19 { 1_000 } else { 10 }));
        }
        assert_eq!(latencies.most(), None);
        for number in 0..901 {
            latencies.add(Duration::from_millis(if number % 25 == 0 { 1_000 } else { 10 }));
        }
        let most = latencies.most().unwrap();
        assert!((Duration::from_millis(10)..Duration::from_millis(12)).contains(&most), "{most:?}");
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let latencies = Latencies::default();
        for took in [10, 500] {
            for _ in 0..20_000 {
                latencies.add(Duration::from_millis(took));
            }
        }
        assert!(latencies.most().unwrap() > Duration::from_millis(450));
    }

    #[test]
    fn a_share_of_the_requests_may_be_asked_twice() {
        let hedges = Savings::none(MOST_HEDGES);
        let mut spent = 0;
        for _ in 0..1_000 {
            hedges.earn(5);
            spent += usize::from(hedges.spend());
        }
        assert_eq!(spent, 50);
        assert!(!hedges.spend());
    }
}
