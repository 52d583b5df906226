//! Whether this edge has heard of every purge that any edge has acknowledged: what a tier shared with others grants for a
//! time, its lease.
//!
//! While the lease runs, an acknowledged purge has passed this edge's gate, and a hit is served as with one edge. Once it
//! has run out, nothing that is stored is served before it is validated: others go on without this edge, and purge what it
//! does not hear of. So a process that was stopped and wakes up compares the clock, which a hit reads anyway, with the end
//! of its lease, and does not serve what was purged meanwhile.
//!
//! Where purges may have been lost altogether (the tier has lost its log), what began before is *doubted*: validated before
//! it is served, lease or not.
//!
//! Without such a tier the lease has no end.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use cache_policy::Moment;

use super::rule::Generation;

/// The lease of this edge, and what it doubts.
#[derive(Debug)]
pub struct EdgeStanding {
    /// The end of the lease: [`packed`].
    until: AtomicU64,
    /// What began before this generation is doubted.
    doubted: AtomicU64,
}

impl Default for EdgeStanding {
    fn default() -> Self {
        Self { until: AtomicU64::new(u64::MAX), doubted: AtomicU64::default() }
    }
}

impl EdgeStanding {
    /// The generation from which on what is stored may be served without being validated. To be asked *before* anything
    /// is looked up: the lease may be granted anew meanwhile, and what was found before that is not covered by it.
    #[inline]
    pub fn confirmed(&self, now: Moment) -> Generation {
        if packed(now) < self.until.load(Acquire) {
            Generation(self.doubted.load(Relaxed))
        } else {
            Generation::MAX
        }
    }

    /// Whether a fetch that began then may bring what was purged unheard of.
    pub fn doubts(&self, began: Generation) -> bool {
        began.count() < self.doubted.load(Acquire)
    }

    /// Grants the lease until then. Every purge that it rests on has passed the gate before.
    pub fn grant(&self, until: Moment) {
        self.until.store(packed(until), Release);
    }

    /// Ends the lease.
    pub fn end(&self) {
        self.until.store(0, Release);
    }

    /// Whether the lease runs.
    pub fn is_granted(&self, now: Moment) -> bool {
        self.confirmed(now) != Generation::MAX
    }

    /// Doubts what began before that generation.
    pub(super) fn doubt(&self, before: Generation) {
        self.doubted.fetch_max(before.count(), Release);
    }
}

/// A moment as a number in the same order, without a division.
fn packed(moment: Moment) -> u64 {
    let elapsed = moment.to_epoch();
    (elapsed.as_secs() << 30) | u64::from(elapsed.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::from_epoch(Duration::from_millis(milliseconds))
    }

    #[test]
    fn without_a_shared_tier_everything_stored_is_confirmed_for_ever() {
        let standing = EdgeStanding::default();
        assert_eq!(standing.confirmed(Moment::from_epoch(Duration::from_secs(1 << 33))), Generation(0));
    }

    #[test]
    fn a_lease_confirms_what_is_not_doubted_and_nothing_once_it_has_run_out() {
        let standing = EdgeStanding::default();
        standing.grant(at(1_999));
        standing.doubt(Generation(7));
        standing.doubt(Generation(3));
        assert_eq!(standing.confirmed(at(1_998)), Generation(7));
        assert!(standing.doubts(Generation(6)) && !standing.doubts(Generation(7)));
        assert_eq!(standing.confirmed(at(1_999)), Generation::MAX);
        standing.grant(at(4_000));
        assert!(standing.is_granted(at(3_999)));
        standing.end();
        assert!(!standing.is_granted(at(0)));
    }
}
