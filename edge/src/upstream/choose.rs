//! Which server takes a request: a pure function of the state of each.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use cache_policy::Moment;

/// The state of one server when a request has to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// This request has already been tried there.
    pub tried: bool,
    /// Connecting failed lately.
    pub rests: bool,
    /// Requests now under way there.
    pub busy: usize,
}

/// The server with the fewest requests under way, in turn among equals; one that rests only when all others have been
/// tried. `None` when every server has been tried.
pub fn choose(candidates: &[Candidate], turn: usize) -> Option<usize> {
    let count = candidates.len();
    (0..count)
        .map(|step| (turn + step) % count)
        .filter(|index| !candidates[*index].tried)
        .min_by_key(|index| (candidates[*index].rests, candidates[*index].busy))
}

/// The turn among equal servers.
#[derive(Debug, Default)]
pub struct Turn(AtomicUsize);

impl Turn {
    pub fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The health of one server, as connecting showed it. Passive: real requests are the probes.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU32,
    /// Milliseconds since the clock's epoch until when the server rests.
    rests_until: AtomicU64,
}

impl Health {
    /// Records that a connection was made.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.rests_until.store(0, Ordering::Relaxed);
        }
    }

    /// Records that no connection could be made: the server rests, twice as long after each failure in a row, up to ten
    /// seconds.
    pub fn failed(&self, now: Moment) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        let rest = FIRST_REST.saturating_mul(1 << failures).min(LONGEST_REST);
        self.rests_until.store(milliseconds(now) + rest.as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether the server rests now.
    pub fn rests(&self, now: Moment) -> bool {
        milliseconds(now) < self.rests_until.load(Ordering::Relaxed)
    }
}

fn milliseconds(moment: Moment) -> u64 {
    u64::try_from(moment.since(Moment::from_epoch(Duration::ZERO)).as_millis()).unwrap_or(u64::MAX)
}

const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Candidate = Candidate { tried: false, rests: false, busy: 0 };

    #[test]
    fn equals_take_turns() {
        let servers = [FREE; 3];
        let chosen: Vec<_> = (0..4).map(|turn| choose(&servers, turn).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 2, 0]);
    }

    #[test]
    fn the_least_busy_is_preferred_and_the_tried_are_never_chosen() {
        let servers =
            [Candidate { busy: 2, ..FREE }, Candidate { busy: 1, ..FREE }, Candidate { tried: true, ..FREE }];
        assert_eq!(choose(&servers, 2), Some(1));
        assert_eq!(choose(&[Candidate { tried: true, ..FREE }], 0), None);
        assert_eq!(choose(&[], 0), None);
    }

    #[test]
    fn a_resting_server_is_the_last_resort() {
        let servers = [Candidate { rests: true, ..FREE }, Candidate { busy: 9, ..FREE }];
        assert_eq!(choose(&servers, 0), Some(1));
        assert_eq!(choose(&[Candidate { rests: true, ..FREE }], 0), Some(0));
    }

    #[test]
    fn a_server_rests_longer_after_each_failure_and_is_forgiven_at_once() {
        let health = Health::default();
        let start = Moment::from_epoch(Duration::ZERO);
        health.failed(start);
        assert!(health.rests(start + Duration::from_millis(249)));
        assert!(!health.rests(start + Duration::from_millis(250)));
        health.failed(start);
        assert!(health.rests(start + Duration::from_millis(499)));
        for _ in 0..100 {
            health.failed(start);
        }
        assert!(!health.rests(start + LONGEST_REST));
        health.failed(start);
        health.succeeded();
        assert!(!health.rests(start));
    }
}
