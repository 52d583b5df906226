//! Whether a tier that keeps failing is asked at all: a hung one would hold up every miss for the time-out of a look-up.
//!
//! ```text
//!   closed --- 5 failures in a row ---> open for 1 s --- time is up ---> one look-up tries
//!      ^                                     ^                              |
//!      |                                     '--- it fails: twice as long, --|
//!      '----------------------------------------- 30 s at most --- succeeds -'
//! ```

use std::time::Duration;

use cache_policy::Moment;
use parking_lot::Mutex;

/// The failures of one tier.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<FailuresInARow>);

#[derive(Clone, Copy, Debug, Default)]
struct FailuresInARow {
    in_a_row: u32,
    /// Since when, or until when, it is not asked.
    open: Option<LeftAloneUntil>,
}

#[derive(Clone, Copy, Debug)]
struct LeftAloneUntil {
    until: Moment,
    next: Duration,
}

impl Breaker {
    /// Whether the tier may be asked now. While it is open, one look-up after each pause tries; whatever becomes of it,
    /// the next tries no sooner than a pause later.
    pub fn admits(&self, now: Moment) -> bool {
        let mut failures = self.0.lock();
        let Some(open) = &mut failures.open else { return true };
        if now < open.until {
            return false;
        }
        open.until = now + open.next;
        open.next = LONGEST.min(2 * open.next);
        true
    }

    /// The tier has answered.
    pub fn succeeded(&self) {
        *self.0.lock() = FailuresInARow::default();
    }

    /// The tier has failed, or was late.
    pub fn failed(&self, now: Moment) {
        let mut failures = self.0.lock();
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        if failures.in_a_row >= MOST_FAILURES && failures.open.is_none() {
            failures.open = Some(LeftAloneUntil { until: now + FIRST, next: 2 * FIRST });
        }
    }

    /// Whether the tier is left alone.
    pub fn is_open(&self) -> bool {
        self.0.lock().open.is_some()
    }
}

const MOST_FAILURES: u32 = 5;
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_tier_that_fails_five_times_in_a_row_is_tried_once_a_pause_that_doubles() {
        let breaker = Breaker::default();
        for _ in 0..MOST_FAILURES - 1 {
            breaker.failed(at(0));
        }
        breaker.succeeded();
        for _ in 0..MOST_FAILURES {
            assert!(breaker.admits(at(0)));
            breaker.failed(at(0));
        }
        let mut tried = Vec::new();
        for second in 0..200 {
            if breaker.admits(at(second)) {
                assert!(!breaker.admits(at(second)), "one at a time");
                breaker.failed(at(second));
                tried.push(second);
            }
        }
        assert_eq!(tried, [1, 3, 7, 15, 31, 61, 91, 121, 151, 181]);
        assert!(breaker.admits(at(211)));
        breaker.succeeded();
        assert!(breaker.admits(at(211)) && breaker.admits(at(211)) && !breaker.is_open());
    }
}
