//! Time as this crate sees it: monotonic points and, once per response, the wall clock.
//!
//! Owns [`Moment`] and [`Arrival`]. Never reads a clock: every time is passed in.

use std::ops::Add;
use std::time::{Duration, SystemTime};

/// A point on the caller's monotonic clock, as a duration since an epoch of the caller's choosing.
///
/// A wall-clock step therefore changes no age and no lifetime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `elapsed` after the epoch.
    pub const fn from_epoch(elapsed: Duration) -> Moment {
        Moment(elapsed)
    }

    /// The time that has passed since the epoch.
    pub const fn to_epoch(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to `self`; zero where `earlier` is later.
    pub const fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `span` before `self`, or the epoch where that lies before it.
    pub const fn minus(self, span: Duration) -> Moment {
        Moment(self.0.saturating_sub(span))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(span))
    }
}

/// When a response came: the only place where wall-clock time enters (RFC 9111 §4.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When the request was sent upstream (`request_time`).
    pub requested_at: Moment,
    /// When the response's head had been read (`response_time`).
    pub received_at: Moment,
    /// The wall clock at `received_at`, against which the peer's dates are compared.
    pub wall: SystemTime,
}

impl Arrival {
    /// How long the response took to come (`response_delay`).
    pub const fn delay(&self) -> Duration {
        self.received_at.since(self.requested_at)
    }
}
