//! The only place that reads a clock.
//!
//! Ages and deadlines are durations on the monotonic clock ([`Moment`]); the wall clock is derived from it, so that a
//! step of the system's clock changes no age. [`Clock::correct`], called now and then, corrects the drift.
#![expect(
    clippy::disallowed_methods,
    reason = "this module is where the clock is read; all others are given times"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use cache_policy::Moment;
use tokio::time::Instant;

/// A monotonic clock with a wall clock derived from it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    wall_at_start: SystemTime,
    /// Nanoseconds by which the system's wall clock has moved away from ours since the start.
    drift: Arc<AtomicI64>,
}

impl Clock {
    /// Starts now, by the system's clocks.
    pub fn system() -> Self {
        Self::starting_at(SystemTime::now())
    }

    /// Starts now, at the wall-clock time given; with tokio's paused time, a wholly deterministic clock.
    pub fn starting_at(wall: SystemTime) -> Self {
        Self { started: Instant::now(), wall_at_start: wall, drift: Arc::default() }
    }

    /// The present moment, counted from the clock's start.
    pub fn now(&self) -> Moment {
        Moment::from_epoch(self.started.elapsed())
    }

    /// The wall clock, for dates on the wire and in logs.
    pub fn wall(&self) -> SystemTime {
        self.wall_at(self.now())
    }

    /// The wall-clock time of a moment.
    pub fn wall_at(&self, moment: Moment) -> SystemTime {
        let wall = self.wall_at_start + moment.since(Moment::from_epoch(Duration::ZERO));
        let drift = self.drift.load(Ordering::Relaxed);
        let distance = Duration::from_nanos(drift.unsigned_abs());
        if drift < 0 { wall.checked_sub(distance).unwrap_or(wall) } else { wall + distance }
    }

    /// Adopts the system's wall clock for dates from now on.
    pub fn correct(&self) {
        let ours = self.wall_at_start + self.started.elapsed();
        let system = SystemTime::now();
        let drift = match system.duration_since(ours) {
            Ok(ahead) => i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX),
            Err(behind) => -i64::try_from(behind.duration().as_nanos()).unwrap_or(i64::MAX),
        };
        self.drift.store(drift, Ordering::Relaxed);
    }
}
