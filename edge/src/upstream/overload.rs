//! How many requests an upstream bears at once, as its answers show it: a bound that follows them.
//!
//! The idea is that of a queue: while answers take as long as they did, more may be under way; when they take longer, the
//! requests wait behind one another, and more of them only wait longer. `Gradient` decides, as a function of what answers
//! took; [`Overload`] shares it among threads.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

/// The bound, and what it was learnt from.
#[derive(Clone, Copy, Debug)]
struct Gradient {
    bound: f64,
    /// What an answer takes in the long run, in seconds; 0 before the first window has ended.
    usual: f64,
    /// The answers of the present window: how many, what they took in all, the most requests that were under way.
    answers: u32,
    took: f64,
    busiest: usize,
}

impl Gradient {
    const fn new() -> Self {
        Self { bound: AT_FIRST, usual: 0.0, answers: 0, took: 0.0, busiest: 0 }
    }

    /// An answer began after `took`, with so many requests under way, of at most `most`.
    fn answered(&mut self, took: Duration, under_way: usize, most: usize) {
        self.answers += 1;
        self.took += took.as_secs_f64();
        self.busiest = self.busiest.max(under_way);
        if self.answers < WINDOW {
            return;
        }
        let (now, busiest) = ((self.took / f64::from(self.answers)).max(1e-6), self.busiest);
        (self.answers, self.took, self.busiest) = (0, 0.0, 0);
        self.usual = match self.usual {
            0.0 => now,
            // What got faster is believed sooner than what got slower: that may be the overload itself.
            usual if now < usual => usual + (now - usual) * 0.2,
            usual => usual + (now - usual) * 0.001,
        };
        // Where nobody comes near the bound, nothing is learnt about it.
        if (busiest as f64) < self.bound / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.usual / now).clamp(0.5, 1.0);
        let wanted = self.bound * gradient + self.bound.sqrt();
        self.bound = (self.bound * 0.8 + wanted * 0.2).clamp(LEAST, most.max(1) as f64);
    }
}

/// The requests under way to an upstream, and how many it bears.
#[derive(Debug)]
pub struct Overload {
    under_way: AtomicUsize,
    bound: AtomicUsize,
    gradient: Mutex<Gradient>,
}

impl Default for Overload {
    fn default() -> Self {
        Self {
            under_way: AtomicUsize::new(0),
            bound: AtomicUsize::new(AT_FIRST as usize),
            gradient: Mutex::new(Gradient::new()),
        }
    }
}

/// A request under way. Dropped without an answer, nothing is learnt from it.
#[derive(Debug)]
pub struct UnderWay<'a> {
    overload: &'a Overload,
    /// How many there were with it.
    count: usize,
}

impl Overload {
    /// A place for a request; `None` where the upstream bears no more.
    pub fn enter(&self) -> Option<UnderWay<'_>> {
        let count = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        let entered = UnderWay { overload: self, count };
        (count <= self.bound.load(Ordering::Relaxed)).then_some(entered)
    }
}

impl UnderWay<'_> {
    /// Its answer began after `took`; the bound is never more than `most`.
    pub fn answered(self, took: Duration, most: usize) {
        let mut gradient = self.overload.gradient.lock();
        gradient.answered(took, self.count, most);
        self.overload.bound.store(gradient.bound as usize, Ordering::Relaxed);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.overload.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bound before anything is known.
const AT_FIRST: f64 = 64.0;
/// Below this it never falls: an upstream that is slow for a reason of its own is not left without requests.
const LEAST: f64 = 8.0;
/// Answers after which the bound may move.
const WINDOW: u32 = 32;
/// Answers may take so many times as long as usual before the bound falls.
const TOLERANCE: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound after so many windows in which answers take as `took` says of the requests under way, who are as many as
    /// the bound lets in of those that want to be.
    fn after(gradient: &mut Gradient, windows: u32, want: usize, took: impl Fn(usize) -> Duration) -> usize {
        for _ in 0..windows * WINDOW {
            let under_way = want.min(gradient.bound as usize);
            gradient.answered(took(under_way), under_way, 10_000);
        }
        gradient.bound as usize
    }

    #[test]
    fn while_answers_stay_quick_the_bound_grows_with_what_is_wanted() {
        let mut gradient = Gradient::new();
        let bound = after(&mut gradient, 200, 500, |_| Duration::from_millis(10));
        assert!(bound >= 500, "{bound}");
    }

    /// Sixteen at once are answered in 10 ms; more wait behind them.
    #[test]
    fn the_bound_falls_to_what_the_upstream_bears() {
        let mut gradient = Gradient::new();
        let queue = |under_way: usize| Duration::from_millis(10).mul_f64((under_way as f64 / 16.0).max(1.0));
        after(&mut gradient, 20, 10, queue);
        let bound = after(&mut gradient, 200, 1_000, queue);
        assert!((12..=60).contains(&bound), "{bound}");
    }

    #[test]
    fn an_upstream_that_is_slow_for_good_is_not_left_without_requests() {
        let mut gradient = Gradient::new();
        after(&mut gradient, 20, 100, |_| Duration::from_millis(10));
        let bound = after(&mut gradient, 100, 100, |_| Duration::from_secs(1));
        assert!(bound >= 8, "{bound}");
        let bound = after(&mut gradient, 2_000, 100, |_| Duration::from_secs(1));
        assert!(bound >= 50, "{bound}: it is what answers take");
    }

    #[test]
    fn who_is_refused_and_who_leaves_count_no_longer() {
        let overload = Overload::default();
        let all: Vec<_> = std::iter::from_fn(|| overload.enter()).collect();
        assert_eq!(all.len(), 64);
        assert!(overload.enter().is_none());
        drop(all);
        assert_eq!(overload.under_way.load(Ordering::Relaxed), 0);
        assert!(overload.enter().is_some());
    }
}
