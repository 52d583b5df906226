//! Waiting for something to become true, with a deadline: the only place of the tests that reads a clock or pauses.

use std::time::{Duration, Instant};

/// How long anything that ought to happen may take before the test fails. Generous: it bounds hangs, it measures nothing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Probes until `probe` yields a value, and returns it.
///
/// # Panics
/// When [`PATIENCE`] has passed without one; the message names `what`.
#[track_caller]
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    match until_within(PATIENCE, probe) {
        Some(value) => value,
        None => panic!("waited {PATIENCE:?} in vain until {what}"),
    }
}

/// Probes until `probe` yields a value or `patience` has passed.
pub fn until_within<T>(patience: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = now();
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if start.elapsed() > patience {
            return None;
        }
        pause();
    }
}

/// The monotonic clock, for benchmarks and deadlines.
#[expect(clippy::disallowed_methods, reason = "the tests' one reader of the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets time pass where time is what a test is about: a delay on a wire, a process that stands still.
pub fn pass(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "it stands for something slow; no runtime on this thread")]
    std::thread::sleep(time);
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two probes of the same condition; no runtime on this thread"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
