//! Whether a server answers, as real requests and looks at it showed, and whether it is put aside or down.
//!
//! ```text
//! by requests:
//! good --- so many failures in a row, or one connection that cannot be made ----> put aside, for longer each time
//!   ^                                                                                | its time is over
//!   '------ the trial is answered ------ one request is sent there as a trial <------'
//! by looks (`check`):
//! up --- `fall` bad looks in a row ---> down --- `rise` good looks in a row ---> up
//! ```
//!
//! It takes requests while neither says otherwise. One that is back gets less than its share at first.
//!
//! Owns what is remembered of one server. [`History`] decides, as a function of what happened and when; [`Health`] shares it
//! among threads and tells the operator, once, that a server is put aside and that it is back. It outlives a reload where the
//! server stays. A server that was never in trouble costs a request one relaxed load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_policy::Moment;
use parking_lot::Mutex;

use super::choose::Standing;
use crate::observe::metrics::{ServerState, UpstreamMetrics};

/// When a server is put aside, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PutAsideRules {
    /// Failures in a row.
    pub failures: u32,
    /// The first time; the second time in a row it is twice as long, and so on up to `LONGEST` times.
    pub rest: Duration,
    /// How long a server that is back gets less than its share.
    pub slow_start: Duration,
}

/// When looks at a server decide.
#[derive(Clone, Copy, Debug)]
pub struct LookRules {
    /// Good looks in a row.
    pub rise: u32,
    /// Bad looks in a row.
    pub fall: u32,
    /// How long a server that is up again gets less than its share.
    pub slow_start: Duration,
}

/// What a server did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// No connection could be made: one such failure suffices.
    Unreachable(&'static str),
    /// It took the request and did not answer it properly; with the reason's word.
    Answer(&'static str),
}

impl Blame {
    const fn word(self) -> &'static str {
        match self {
            Self::Unreachable(word) | Self::Answer(word) => word,
        }
    }
}

/// Whether a request may be sent a second time if it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    Safe,
    Never,
}

/// A change that the operator is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandingChange {
    PutAside { rest: Duration, reason: &'static str },
    Down { reason: &'static str },
    Back,
}

/// What is remembered of one server.
#[derive(Debug, Default)]
pub struct History {
    /// Failures in a row.
    failures: u32,
    aside: Option<Aside>,
    /// Since when a request has been under way to find out whether it answers again.
    tried: Option<Moment>,
    /// How often in a row it was put aside, and until when it was the last time.
    times: u32,
    last: Option<Moment>,
    /// Thousandths of requests that its failures count for, when they last grew.
    burden: u64,
    grew: Moment,
    /// What the last of too many bad looks found, until enough good ones have come.
    down: Option<Blame>,
    /// Looks in a row that contradict what is held of it.
    looks: u32,
    /// Since when it is back, and until when it is spared.
    spared: Option<(Moment, Moment)>,
}

#[derive(Clone, Copy, Debug)]
struct Aside {
    since: Moment,
    until: Moment,
    blame: Blame,
}

impl History {
    /// How it stands for a request.
    pub fn standing(&self, repeat: Repeat, now: Moment) -> Standing {
        match self.down {
            Some(Blame::Unreachable(_)) => return Standing::Unreachable,
            Some(Blame::Answer(_)) => return Standing::Aside,
            None => {}
        }
        let Some(aside) = self.aside else { return Standing::Good };
        // A request that could not be repeated is a trial only where none that could has come for a while.
        let due = match repeat {
            Repeat::Safe => aside.until,
            Repeat::Never => aside.until + OVERDUE,
        };
        match aside.blame {
            _ if now >= due && self.may_be_tried(now) => Standing::Due,
            Blame::Unreachable(_) => Standing::Unreachable,
            Blame::Answer(_) => Standing::Aside,
        }
    }

    /// Whether no trial is under way. One that takes long, which a client can bring about by sending its content slowly,
    /// keeps others from trying no longer than that.
    fn may_be_tried(&self, now: Moment) -> bool {
        self.tried.is_none_or(|since| now >= since + LONGEST_TRIAL)
    }

    /// Thousandths of requests under way that it counts for beside the real ones: each failure counts as one that takes its
    /// time, half of it gone after a second. So a server that fails at once does not look like an idle one.
    pub fn burden(&self, now: Moment) -> u64 {
        if self.burden == 0 {
            return 0;
        }
        (self.burden as f64 * 0.5_f64.powf(now.since(self.grew).as_secs_f64())) as u64
    }

    /// What it gets of its share, in thousandths: all, unless it has just come back.
    pub fn share(&self, now: Moment) -> u64 {
        let Some((since, until)) = self.spared.filter(|(_, until)| now < *until) else { return WHOLE };
        let (passed, whole) = (now.since(since).as_millis(), until.since(since).as_millis().max(1));
        u64::try_from(u128::from(WHOLE) * passed / whole).unwrap_or(WHOLE).clamp(WHOLE / 10, WHOLE)
    }

    /// One look at it.
    pub fn looked(
        &mut self,
        look: Result<(), Blame>,
        rules: LookRules,
        now: Moment,
    ) -> Option<StandingChange> {
        match (look, self.down) {
            (Ok(()), None) => self.looks = 0,
            (Err(blame), Some(_)) => {
                self.looks = 0;
                self.down = Some(blame);
            }
            (Err(blame), None) => {
                self.looks += 1;
                if self.looks >= rules.fall {
                    self.looks = 0;
                    self.down = Some(blame);
                    // That it is put aside has been told.
                    return self.aside.is_none().then_some(StandingChange::Down { reason: blame.word() });
                }
            }
            (Ok(()), Some(_)) => {
                self.looks += 1;
                if self.looks >= rules.rise {
                    self.looks = 0;
                    self.down = None;
                    self.burden = 0;
                    self.spare(rules.slow_start, now);
                    // While it is put aside as well, it is not back.
                    return self.aside.is_none().then_some(StandingChange::Back);
                }
            }
        }
        None
    }

    fn spare(&mut self, slow_start: Duration, now: Moment) {
        self.spared = Some((now, now + slow_start));
    }

    /// It answered with an error of its own, which is no reason to put it aside.
    pub fn erred(&mut self, now: Moment) {
        self.burden = (self.burden(now) + FAILURE).min(HEAVIEST);
        self.grew = now;
    }

    /// It failed.
    pub fn failed(&mut self, blame: Blame, rules: PutAsideRules, now: Moment) -> Option<StandingChange> {
        self.erred(now);
        self.failures = self.failures.saturating_add(1);
        if let Some(aside) = &mut self.aside
            && now < aside.until
        {
            // Requests that were under way when it was put aside.
            if matches!(blame, Blame::Unreachable(_)) {
                aside.blame = blame;
            }
            return None;
        }
        if matches!(blame, Blame::Answer(_)) && self.failures < rules.failures && self.aside.is_none() {
            return None;
        }
        let again = self.last.is_some_and(|last| now < last + FORGOTTEN);
        self.times = if again { self.times.saturating_add(1).min(LONGEST) } else { 1 };
        let rest = rules.rest.saturating_mul(self.times);
        let until = now + rest;
        self.last = Some(until);
        let first = self.aside.is_none();
        let since = self.aside.map_or(now, |aside| aside.since);
        self.aside = Some(Aside { since, until, blame });
        let told = first && self.down.is_none();
        told.then_some(StandingChange::PutAside { rest, reason: blame.word() })
    }

    /// The head of a good answer came, to a request that was sent at `began`.
    pub fn answered(&mut self, began: Moment, rules: PutAsideRules, now: Moment) -> Option<StandingChange> {
        // What was sent before proves nothing.
        self.aside.filter(|aside| began >= aside.since)?;
        self.aside = None;
        self.burden = 0;
        // Until an answer has been read to its end, one more failure suffices.
        self.failures = rules.failures.saturating_sub(1);
        self.spare(rules.slow_start, now);
        self.down.is_none().then_some(StandingChange::Back)
    }

    /// An answer was read to its end.
    pub fn completed(&mut self) {
        self.failures = 0;
    }

    fn is_spotless(&self, now: Moment) -> bool {
        self.failures == 0
            && self.aside.is_none()
            && self.burden(now) == 0
            && self.down.is_none()
            && self.looks == 0
            && self.spared.is_none_or(|(_, until)| now >= until)
    }
}

/// The history of one server, shared by all threads.
#[derive(Debug)]
pub struct Health {
    history: Mutex<History>,
    /// Whether there is anything to remember. Written under the lock.
    troubled: AtomicBool,
    /// It is no longer one of its upstream's.
    forgotten: AtomicBool,
    upstream: Arc<str>,
    server: Arc<str>,
    metrics: Arc<UpstreamMetrics>,
}

impl Health {
    /// A server that has not been asked yet; with its upstream's name, and its own address for the operator.
    pub fn new(upstream: &Arc<str>, server: Arc<str>, metrics: &Arc<UpstreamMetrics>) -> Arc<Self> {
        metrics.server(&server, ServerState::Up);
        Arc::new(Self {
            history: Mutex::default(),
            troubled: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            upstream: Arc::clone(upstream),
            server,
            metrics: Arc::clone(metrics),
        })
    }

    /// Counts an answer that broke off, for a reason of one word.
    pub fn broke_off(&self, reason: &'static str) {
        self.metrics.failed("body", reason);
    }

    /// The server's address, for the operator.
    pub fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// How the server stands for a request.
    pub fn standing(&self, repeat: Repeat, now: Moment) -> Stands {
        if !self.troubled.load(Ordering::Relaxed) {
            return Stands { standing: Standing::Good, burden: 0, share: WHOLE };
        }
        let history = self.history.lock();
        Stands {
            standing: history.standing(repeat, now),
            burden: history.burden(now),
            share: history.share(now),
        }
    }

    /// One look at the server.
    pub fn looked(&self, look: Result<(), Blame>, rules: LookRules, now: Moment) {
        let change = {
            let mut history = self.history.lock();
            let change = history.looked(look, rules, now);
            self.troubled.store(!history.is_spotless(now), Ordering::Relaxed);
            change
        };
        self.tell(change);
    }

    /// The trial of a server that is due, unless another request has just begun it.
    pub fn begin_trial(self: &Arc<Self>, now: Moment) -> Option<Trial> {
        let mut history = self.history.lock();
        if !history.may_be_tried(now) {
            return None;
        }
        history.tried = Some(now);
        Some(Trial { health: Arc::clone(self), began: now })
    }

    /// The server answered with an error of its own.
    pub fn erred(&self, now: Moment) {
        let mut history = self.history.lock();
        self.troubled.store(true, Ordering::Relaxed);
        history.erred(now);
    }

    /// The server failed.
    pub fn failed(&self, blame: Blame, rules: PutAsideRules, now: Moment) {
        let change = {
            let mut history = self.history.lock();
            // Under the lock: an answer that ends just now would else wipe it out, and the failure would not be seen.
            self.troubled.store(true, Ordering::Relaxed);
            history.failed(blame, rules, now)
        };
        self.tell(change);
    }

    /// The head of a good answer came, to a request that was sent at `began`.
    pub fn answered(&self, began: Moment, rules: PutAsideRules, now: Moment) {
        if self.troubled.load(Ordering::Relaxed) {
            let change = self.history.lock().answered(began, rules, now);
            self.tell(change);
        }
    }

    /// An answer was read to its end.
    pub fn completed(&self, now: Moment) {
        if self.troubled.load(Ordering::Relaxed) {
            let mut history = self.history.lock();
            history.completed();
            if history.is_spotless(now) {
                self.troubled.store(false, Ordering::Relaxed);
            }
        }
    }

    /// What is wrong with the server now, in words.
    pub fn trouble(&self, now: Moment) -> Option<String> {
        let history = self.history.lock();
        let server = &self.server;
        if let Some(blame) = history.down {
            return Some(format!("{server} is down by its checks: {}", blame.word()));
        }
        match history.aside {
            Some(Aside { until, blame, .. }) if now < until => Some(format!(
                "{server} is put aside for {} s more: {}",
                until.since(now).as_secs() + 1,
                blame.word()
            )),
            Some(Aside { blame, .. }) => {
                Some(format!("{server} was put aside ({}): the next request is its trial", blame.word()))
            }
            None if history.failures > 0 => {
                Some(format!("{server} failed {} times in a row", history.failures))
            }
            None => None,
        }
    }

    /// Nobody looks at the server any more: what looks found is forgotten.
    pub fn unwatched(&self) {
        let was_down = {
            let mut history = self.history.lock();
            history.looks = 0;
            history.down.take().is_some() && history.aside.is_none()
        };
        self.tell(was_down.then_some(StandingChange::Back));
    }

    /// The server is one of its upstream's again, or still.
    pub fn remember(&self) {
        self.forgotten.store(false, Ordering::Relaxed);
        let history = self.history.lock();
        let is_up = history.down.is_none() && history.aside.is_none();
        self.metrics.server(&self.server, if is_up { ServerState::Up } else { ServerState::Aside });
    }

    /// The server is no longer one of its upstream's: nobody is told of it any more.
    pub fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
        self.metrics.forget_server(&self.server);
    }

    fn tell(&self, change: Option<StandingChange>) {
        if self.forgotten.load(Ordering::Relaxed) {
            return;
        }
        let (upstream, server) = (&*self.upstream, &*self.server);
        match change {
            Some(StandingChange::PutAside { rest, reason }) => {
                self.metrics.server(&self.server, ServerState::Aside);
                tracing::warn!(
                    upstream,
                    server,
                    reason,
                    seconds = rest.as_secs_f64(),
                    "a server is put aside"
                );
            }
            Some(StandingChange::Down { reason }) => {
                self.metrics.server(&self.server, ServerState::Aside);
                tracing::warn!(upstream, server, reason, "a server is down by its checks");
            }
            Some(StandingChange::Back) => {
                self.metrics.server(&self.server, ServerState::Up);
                tracing::warn!(upstream, server, "a server is back");
            }
            None => {}
        }
    }
}

/// How a server stands for a request.
#[derive(Clone, Copy, Debug)]
pub struct Stands {
    pub standing: Standing,
    /// Thousandths of requests that its failures count for.
    pub burden: u64,
    /// What it gets of its share, in thousandths.
    pub share: u64,
}

/// The one request that finds out whether a server answers again. However it ends, the next may be begun after it.
#[derive(Debug)]
pub struct Trial {
    health: Arc<Health>,
    began: Moment,
}

impl Drop for Trial {
    fn drop(&mut self) {
        let mut history = self.health.history.lock();
        // Another may have begun, where this one took too long.
        if history.tried == Some(self.began) {
            history.tried = None;
        }
    }
}

/// A whole share.
const WHOLE: u64 = 1_000;
/// A failure, in thousandths of a request.
const FAILURE: u64 = 1_000;
/// The most that failures count for: forgotten after some 16 s.
const HEAVIEST: u64 = 64 * FAILURE;
/// How often the first rest fits into the longest one.
const LONGEST: u32 = 6;
/// How long after a rest the next one is still one in a row.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// How long a trial waits for a request that may be repeated.
const OVERDUE: Duration = Duration::from_secs(10);
/// How long a trial keeps others from trying.
const LONGEST_TRIAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: PutAsideRules =
        PutAsideRules { failures: 3, rest: Duration::from_secs(10), slow_start: Duration::from_secs(10) };
    const LOOKS: LookRules = LookRules { rise: 2, fall: 3, slow_start: Duration::from_secs(10) };
    const CLOSED: Blame = Blame::Answer("closed");
    const REFUSED: Blame = Blame::Unreachable("refused");

    fn at(seconds: f64) -> Moment {
        Moment::from_epoch(Duration::from_secs_f64(seconds))
    }

    fn put_aside(seconds: u64, reason: &'static str) -> Option<StandingChange> {
        Some(StandingChange::PutAside { rest: Duration::from_secs(seconds), reason })
    }

    #[test]
    fn failures_in_a_row_put_a_server_aside_and_it_is_told_once() {
        let mut history = History::default();
        assert_eq!(history.failed(CLOSED, RULES, at(0.0)), None);
        history.completed();
        assert_eq!(history.failed(CLOSED, RULES, at(1.0)), None);
        assert_eq!(history.failed(CLOSED, RULES, at(1.0)), None);
        assert_eq!(history.standing(Repeat::Safe, at(1.0)), Standing::Good);
        assert_eq!(history.failed(CLOSED, RULES, at(1.0)), put_aside(10, "closed"));
        assert_eq!(history.failed(CLOSED, RULES, at(1.1)), None, "it was under way already");
        assert_eq!(history.standing(Repeat::Safe, at(10.9)), Standing::Aside);
        assert_eq!(history.standing(Repeat::Safe, at(11.0)), Standing::Due);
    }

    #[test]
    fn one_connection_that_cannot_be_made_suffices() {
        let mut history = History::default();
        assert_eq!(history.failed(REFUSED, RULES, at(0.0)), put_aside(10, "refused"));
        assert_eq!(history.standing(Repeat::Safe, at(9.9)), Standing::Unreachable);
    }

    #[test]
    fn a_trial_that_fails_makes_the_rest_longer_up_to_a_bound() {
        let mut history = History::default();
        let mut now = 0.0;
        for rest in [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 60.0] {
            history.failed(REFUSED, RULES, at(now));
            assert_eq!(history.standing(Repeat::Safe, at(now + rest - 0.1)), Standing::Unreachable);
            now += rest;
            assert_eq!(history.standing(Repeat::Safe, at(now)), Standing::Due, "{rest}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_repeated_is_the_last_to_try_a_server() {
        let mut history = History::default();
        history.failed(REFUSED, RULES, at(0.0));
        assert_eq!(history.standing(Repeat::Never, at(10.0)), Standing::Unreachable);
        assert_eq!(history.standing(Repeat::Never, at(20.0)), Standing::Due);
    }

    /// A client that sent its content slowly kept a server from being tried for as long as it liked.
    #[test]
    fn a_trial_that_takes_long_keeps_nobody_from_trying() {
        let health = Health::new(&"origin".into(), "a:80".into(), &Arc::default());
        health.failed(REFUSED, RULES, at(0.0));
        let slow = health.begin_trial(at(20.0)).unwrap();
        assert_eq!(health.standing(Repeat::Safe, at(79.0)).standing, Standing::Unreachable);
        assert!(health.begin_trial(at(79.0)).is_none());
        assert_eq!(health.standing(Repeat::Safe, at(80.0)).standing, Standing::Due);
        let next = health.begin_trial(at(80.0)).unwrap();
        drop(slow);
        assert!(health.begin_trial(at(81.0)).is_none(), "the next is under way");
        drop(next);
        assert!(health.begin_trial(at(81.0)).is_some());
    }

    #[test]
    fn an_answer_to_what_was_sent_since_brings_a_server_back_on_probation() {
        let mut history = History::default();
        history.failed(REFUSED, RULES, at(1.0));
        assert_eq!(history.answered(at(0.9), RULES, at(1.1)), None, "sent before it failed");
        assert_eq!(history.answered(at(11.0), RULES, at(11.0)), Some(StandingChange::Back));
        assert_eq!(history.standing(Repeat::Never, at(11.0)), Standing::Good);
        assert_eq!(history.failed(CLOSED, RULES, at(12.0)), put_aside(20, "closed"));
        history.answered(at(40.0), RULES, at(40.0));
        history.completed();
        assert_eq!(history.failed(CLOSED, RULES, at(41.0)), None, "it has proved itself");
    }

    #[test]
    fn a_failure_weighs_like_a_request_that_takes_its_time() {
        let mut history = History::default();
        assert_eq!(history.burden(at(0.0)), 0);
        history.erred(at(0.0));
        assert_eq!(history.burden(at(0.0)), 1_000);
        assert_eq!(history.burden(at(1.0)), 500);
        assert_eq!(history.burden(at(10.0)), 0);
        for _ in 0..1_000 {
            history.erred(at(0.0));
        }
        assert_eq!(history.burden(at(17.0)), 0, "bounded, so that it is forgotten");
    }

    #[test]
    fn bad_looks_in_a_row_take_a_server_out_and_good_ones_bring_it_back() {
        let mut history = History::default();
        let bad = Err(Blame::Answer("check-status"));
        assert_eq!(history.looked(bad, LOOKS, at(0.0)), None);
        assert_eq!(history.looked(Ok(()), LOOKS, at(1.0)), None, "not in a row");
        for second in [2.0, 3.0] {
            assert_eq!(history.looked(bad, LOOKS, at(second)), None);
        }
        let down = StandingChange::Down { reason: "check-status" };
        assert_eq!(history.looked(bad, LOOKS, at(4.0)), Some(down));
        assert_eq!(history.standing(Repeat::Safe, at(100.0)), Standing::Aside, "no request is a trial");
        assert_eq!(history.looked(Err(REFUSED), LOOKS, at(5.0)), None, "it is told once");
        assert_eq!(history.standing(Repeat::Safe, at(100.0)), Standing::Unreachable);
        assert_eq!(history.looked(Ok(()), LOOKS, at(6.0)), None);
        assert_eq!(history.looked(Ok(()), LOOKS, at(7.0)), Some(StandingChange::Back));
        assert_eq!(history.standing(Repeat::Safe, at(7.0)), Standing::Good);
    }

    #[test]
    fn who_is_back_gets_a_tenth_at_first_and_all_after_the_slow_start() {
        let mut history = History::default();
        assert_eq!(history.share(at(0.0)), 1_000);
        history.failed(REFUSED, RULES, at(0.0));
        history.answered(at(10.0), RULES, at(10.0));
        let shares = [10.0, 11.0, 15.0, 19.5, 20.0].map(|second| history.share(at(second)));
        assert_eq!(shares, [100, 100, 500, 950, 1_000]);
    }

    #[test]
    fn a_server_that_is_down_by_its_checks_is_not_back_for_an_answer() {
        let mut history = History::default();
        history.failed(CLOSED, PutAsideRules { failures: 1, ..RULES }, at(0.0));
        for second in [1.0, 2.0, 3.0] {
            history.looked(Err(REFUSED), LOOKS, at(second));
        }
        assert_eq!(history.answered(at(11.0), RULES, at(11.0)), None);
        assert_eq!(history.standing(Repeat::Safe, at(11.0)), Standing::Unreachable);
        history.looked(Ok(()), LOOKS, at(12.0));
        assert_eq!(history.looked(Ok(()), LOOKS, at(13.0)), Some(StandingChange::Back));
    }
}
