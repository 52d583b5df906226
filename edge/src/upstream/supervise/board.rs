//! What each instance of a command is doing, for whoever asks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::Pid;
use serde::Serialize;
use tokio::time::Instant;

use super::{failures::Setback, place::MetricsPlace};

/// The instances of one command.
#[derive(Debug, Default)]
pub(super) struct Board {
    facts: Mutex<BTreeMap<u64, InstanceFacts>>,
    next: AtomicU64,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It has been started, and has not been ready yet.
    Starting,
    Ready,
    /// It has been ready, and gets no requests until it is again.
    NotReady,
    /// It gets no new requests and is about to end.
    Stopping,
    /// It has ended, and waits for its next start.
    Waiting,
}

/// One instance at this moment.
#[derive(Clone, Debug)]
pub(super) struct InstanceFacts {
    pub(super) name: String,
    pub(super) state: InstanceState,
    /// The process and its group, while there is one.
    pub(super) process: Option<Pid>,
    pub(super) address: Option<String>,
    pub(super) metrics: Option<MetricsPlace>,
    /// Since when the process runs.
    pub(super) since: Instant,
    pub(super) restarts: u64,
    /// How it failed last, while that is not forgotten.
    pub(super) failure: Option<LastFailure>,
    /// What it has not shown although it has been starting for a while.
    pub(super) awaited: Option<String>,
}

impl InstanceFacts {
    /// What is wrong with it, in words.
    pub(super) fn trouble(&self, now: Instant) -> Option<String> {
        self.awaited.clone().or_else(|| self.failure.as_ref().map(|failure| failure.told(now)))
    }
}

/// How an instance failed last.
#[derive(Clone, Debug)]
pub(super) struct LastFailure {
    why: String,
    count: u32,
    within: Duration,
    again: Instant,
}

impl LastFailure {
    pub(super) fn new(why: String, setback: &Setback, now: Instant) -> Self {
        Self { why, count: setback.count, within: setback.within, again: now + setback.wait }
    }

    /// In words: how often, why, and when it is tried again.
    pub(super) fn told(&self, now: Instant) -> String {
        let Self { why, count, within, again } = self;
        let times = match count {
            1 => String::new(),
            count => format!("failed {count} times in {within:.0?}, last: "),
        };
        let wait = again.saturating_duration_since(now);
        if wait.is_zero() {
            format!("{times}{why}")
        } else {
            format!("{times}{why}; tried again in {wait:.1?}")
        }
    }
}

impl Board {
    /// Shows an instance until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, name: &str) -> BoardEntry {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let facts = InstanceFacts {
            name: name.to_owned(),
            state: InstanceState::Waiting,
            process: None,
            address: None,
            metrics: None,
            since: Instant::now(),
            restarts: 0,
            failure: None,
            awaited: None,
        };
        self.facts.lock().insert(id, facts);
        BoardEntry { board: Arc::clone(self), id }
    }

    /// All of them, older ones first.
    pub(super) fn all(&self) -> Vec<InstanceFacts> {
        self.facts.lock().values().cloned().collect()
    }
}

/// The place of one instance on the board.
pub(super) struct BoardEntry {
    board: Arc<Board>,
    id: u64,
}

impl BoardEntry {
    pub(super) fn change(&self, change: impl FnOnce(&mut InstanceFacts)) {
        if let Some(facts) = self.board.facts.lock().get_mut(&self.id) {
            change(facts);
        }
    }

    pub(super) fn state(&self, state: InstanceState) {
        self.change(|facts| facts.state = state);
    }
}

impl Drop for BoardEntry {
    fn drop(&mut self) {
        self.board.facts.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::supervise::failures::Course;

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_shown_while_it_is_there() {
        let board = Arc::<Board>::default();
        let (one, two) = (board.enter("app.1"), board.enter("app.2"));
        two.state(InstanceState::Ready);
        let shown: Vec<_> = board.all().into_iter().map(|facts| (facts.name, facts.state)).collect();
        assert_eq!(
            shown,
            [("app.1".to_owned(), InstanceState::Waiting), ("app.2".to_owned(), InstanceState::Ready)]
        );
        drop(one);
        assert_eq!(board.all().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_with_what_comes_next() {
        let now = Instant::now();
        let (within, wait) = (Duration::from_secs(3), Duration::from_millis(1500));
        let mut setback = Setback { count: 5, within, wait, course: Course::LoopBegins };
        let failure = LastFailure::new("it ended: exit status: 1".to_owned(), &setback, now);
        assert_eq!(
            failure.told(now),
            "failed 5 times in 3s, last: it ended: exit status: 1; tried again in 1.5s"
        );
        setback.count = 1;
        let failure = LastFailure::new("it ended: exit status: 1".to_owned(), &setback, now);
        assert_eq!(failure.told(now + wait), "it ended: exit status: 1");
    }
}
