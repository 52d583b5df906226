//! Many visitors: so many are there at any time, each thinks between two steps, and whoever leaves makes room for another.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::sleep};

use super::visitor::{Asked, Done, Kind, Scene, Step, Visitor};
use crate::wait;

/// How many come, and how long they are watched.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Visitors at any time.
    pub users: u32,
    /// Between two steps: any time within these, as likely as any other.
    pub think: Range<Duration>,
    /// From the first one's coming to the beginning of the measurement: as long as a visit takes, so that by then
    /// visitors are everywhere on their way.
    pub settle: Duration,
    /// The measurement.
    pub measure: Duration,
}

impl Plan {
    /// The mean of the thinking.
    #[must_use]
    pub fn mean_think(&self) -> Duration {
        (self.think.start + self.think.end) / 2
    }
}

/// Visitors on their way. They are gone when the value goes.
#[derive(Debug)]
pub struct Crowd {
    book: Arc<Mutex<Vec<Done>>>,
    _users: JoinSet<()>,
}

/// What a crowd did between two moments.
#[derive(Debug, Default)]
pub struct Account {
    /// How long that was.
    pub during: Duration,
    /// Steps that were begun in it and have ended.
    pub steps: Vec<Done>,
}

/// The number of the next visitor of this process: each has an address and, as far as they suffice, an account of their own.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// See [`NEXT`].
pub(super) fn next_visitor() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Crowd {
    /// Begins; to be called within a runtime. They come one after the other during `plan.settle`.
    #[must_use]
    pub fn gather(scene: &Arc<Scene>, plan: &Plan) -> Self {
        let book = Arc::new(Mutex::new(Vec::new()));
        let mut users = JoinSet::new();
        for place in 0..plan.users {
            let (scene, think, book) = (Arc::clone(scene), plan.think.clone(), Arc::clone(&book));
            let comes = plan.settle * place / plan.users;
            users.spawn(async move {
                sleep(comes).await;
                loop {
                    visit(&scene, &think, &book).await;
                }
            });
        }
        Self { book, _users: users }
    }

    /// What has been begun since this moment, and has ended.
    #[must_use]
    pub fn account(&self, since: Instant) -> Account {
        let during = since.elapsed();
        let steps = lock(&self.book).iter().filter(|done| done.at >= since).cloned().collect();
        Account { during, steps }
    }
}

/// One visitor, from their coming to their leaving; who gets no answer, or a wrong one, leaves.
async fn visit(scene: &Arc<Scene>, think: &Range<Duration>, book: &Mutex<Vec<Done>>) {
    let number = next_visitor();
    let mut chance = StdRng::seed_from_u64(u64::from(number) << 32);
    let at = wait::now();
    let mut visitor = match Visitor::connect(scene, number).await {
        Ok(visitor) => visitor,
        Err(why) => {
            let asked = Asked { kind: Kind::Shared, hit: false, latency: at.elapsed(), fault: Some(why) };
            lock(book).push(Done { step: Step::Home, at, took: at.elapsed(), asked: vec![asked] });
            sleep(think.start).await;
            return;
        }
    };
    for step in Step::ALL {
        let done = visitor.take(step).await;
        let goes_on = done.is_right();
        lock(book).push(done);
        sleep(chance.random_range(think.clone())).await;
        if !goes_on {
            return;
        }
    }
}

impl Account {
    /// Steps a second.
    #[must_use]
    pub fn steps_per_second(&self) -> f64 {
        self.steps.len() as f64 / self.during.as_secs_f64()
    }

    /// All requests.
    pub fn asked(&self) -> impl Iterator<Item = &Asked> {
        self.steps.iter().flat_map(|done| &done.asked)
    }

    /// Visits that came to their end: the last step was right.
    #[must_use]
    pub fn visits(&self) -> usize {
        self.right(Step::Orders)
    }

    /// Orders that were placed.
    #[must_use]
    pub fn orders(&self) -> usize {
        self.right(Step::Order)
    }

    fn right(&self, step: Step) -> usize {
        self.steps.iter().filter(|done| done.step == step && done.is_right()).count()
    }

    /// Why requests had no right answer.
    #[must_use]
    pub fn faults(&self) -> Vec<&str> {
        self.asked().filter_map(|asked| asked.fault.as_deref()).collect()
    }

    /// The share of them, of all requests.
    #[must_use]
    pub fn fault_share(&self) -> f64 {
        self.faults().len() as f64 / self.asked().count().max(1) as f64
    }

    /// The latency below which this share of the requests stayed.
    #[must_use]
    pub fn latency(&self, share: f64) -> Duration {
        let mut latencies: Vec<Duration> = self.asked().map(|asked| asked.latency).collect();
        latencies.sort_unstable();
        let at = (latencies.len() as f64 * share).ceil() as usize;
        latencies.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Of the requests in this step that a cache may answer, the share that the edge's cache has answered; 0 where there are none.
    #[must_use]
    pub fn hit_share(&self, step: Step) -> f64 {
        let of_step = self.steps.iter().filter(|done| done.step == step);
        let shared: Vec<bool> = of_step
            .flat_map(|done| &done.asked)
            .filter(|asked| asked.kind == Kind::Shared)
            .map(|asked| asked.hit)
            .collect();
        shared.iter().filter(|hit| **hit).count() as f64 / shared.len().max(1) as f64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
