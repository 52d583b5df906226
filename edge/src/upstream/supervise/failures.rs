//! How often an instance has failed in a row: how long it waits for its next start, and when that is called a loop.
//!
//! A function of what happened and when, without a clock of its own.

use std::time::Duration;

use tokio::time::Instant;

/// The first wait before a restart; doubled for each failure in a row.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait before a restart.
const BACK_OFF_LONGEST: Duration = Duration::from_secs(30);
/// An instance that has been ready for this long has its failures forgotten.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// FailuresInARow in a row that are a loop, and no accident.
const LOOP: u32 = 5;

/// The failures of one instance in a row.
#[derive(Debug, Default)]
pub(super) struct FailuresInARow {
    count: u32,
    /// When the first of them began to run.
    since: Option<Instant>,
}

/// What a failure comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setback {
    /// In a row, with this one.
    pub(super) count: u32,
    /// The time in which they happened.
    pub(super) within: Duration,
    /// When it is started again.
    pub(super) wait: Duration,
    pub(super) course: Course,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It may have been an accident.
    Accident,
    /// With this failure it is a loop.
    LoopBegins,
    LoopGoesOn,
}

/// What health comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Nothing is forgotten: there was no failure, or it is too early.
    None,
    FromAccident,
    /// From so many failures in a row.
    FromLoop(u32),
}

impl FailuresInARow {
    /// A run that began at `began` has failed at `now`, after it had been ready for `healthy`.
    pub(super) fn failed(&mut self, began: Instant, healthy: Duration, now: Instant, random: u64) -> Setback {
        if healthy >= HEALTHY_AFTER {
            *self = Self::default();
        }
        let wait = back_off(self.count, random);
        self.count = self.count.saturating_add(1);
        let within = now.duration_since(*self.since.get_or_insert(began));
        let course = match self.count {
            ..LOOP => Course::Accident,
            LOOP => Course::LoopBegins,
            _ => Course::LoopGoesOn,
        };
        Setback { count: self.count, within, wait, course }
    }

    /// It has been ready for `healthy`: whether failures are forgotten for that, and how many, where they were a loop.
    pub(super) fn healthy_for(&mut self, healthy: Duration) -> Recovery {
        if self.count == 0 || healthy < HEALTHY_AFTER {
            return Recovery::None;
        }
        match std::mem::take(self).count {
            ..LOOP => Recovery::FromAccident,
            count => Recovery::FromLoop(count),
        }
    }
}

/// How long to wait after `failures` earlier failures in a row: doubling, between half of the step and the whole of it,
/// so that instances that fell together do not rise together.
fn back_off(failures: u32, random: u64) -> Duration {
    let step = BACK_OFF_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(BACK_OFF_LONGEST);
    let half = step / 2;
    half + half.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_half_a_minute_and_are_spread() {
        let longest: Vec<u128> = (0..12).map(|failures| back_off(failures, u64::MAX).as_millis()).collect();
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000];
        assert_eq!(longest, expected);
        assert_eq!(back_off(0, 0), BACK_OFF_FIRST / 2);
        assert_eq!(back_off(u32::MAX, 0), BACK_OFF_LONGEST / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_fifth_failure_in_a_row_is_a_loop_and_is_so_once() {
        let start = Instant::now();
        let mut failures = FailuresInARow::default();
        let courses: Vec<Course> = (0..7)
            .map(|round| {
                let began = start + SECOND * round;
                failures.failed(began, Duration::ZERO, began + SECOND, 0).course
            })
            .collect();
        use Course::{Accident, LoopBegins, LoopGoesOn};
        assert_eq!(courses, [Accident, Accident, Accident, Accident, LoopBegins, LoopGoesOn, LoopGoesOn]);
        let last = failures.failed(start + SECOND * 9, SECOND, start + SECOND * 10, 0);
        assert_eq!((last.count, last.within), (8, SECOND * 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_of_health_ends_it() {
        let start = Instant::now();
        let mut failures = FailuresInARow::default();
        for _ in 0..6 {
            failures.failed(start, Duration::ZERO, start, 0);
        }
        assert_eq!(failures.healthy_for(HEALTHY_AFTER - SECOND), Recovery::None);
        assert_eq!(failures.healthy_for(HEALTHY_AFTER), Recovery::FromLoop(6));
        assert_eq!(failures.healthy_for(HEALTHY_AFTER), Recovery::None, "told once");
        failures.failed(start, Duration::ZERO, start, 0);
        assert_eq!(failures.healthy_for(HEALTHY_AFTER), Recovery::FromAccident, "one failure was no loop");
        for _ in 0..5 {
            failures.failed(start, Duration::ZERO, start, 0);
        }
        let after_health = failures.failed(start, HEALTHY_AFTER, start, 0);
        assert_eq!((after_health.count, after_health.course), (1, Course::Accident));
    }
}
