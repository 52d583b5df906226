//! When things last happened on a client connection, and which deadlines follow from that.
//!
//! Requests and the socket only record that something moved; the connection's one timer reads it when it fires. So a
//! connection with a request in flight costs no timer work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cache_policy::Moment;
use tokio::sync::Notify;

use crate::{clock::Clock, message::content::Activity, settings::Timeouts};

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// When things last happened on a connection. Written by requests and the socket, read by the timer.
#[derive(Debug)]
pub struct Deadlines {
    clock: Clock,
    protocol: Protocol,
    /// How long a connection with a request may go without movement: longer than every wait that has a bound of its
    /// own.
    stall: Duration,
    requests: AtomicUsize,
    /// Milliseconds (plus one) since the clock's epoch when the current quiet began.
    quiet_since: AtomicU64,
    /// When the first bytes of a head came, or 0.
    head_since: AtomicU64,
    /// When a write first found the socket full, or 0.
    blocked_since: AtomicU64,
    /// Whether messages have moved since the timer last looked. Needs no clock.
    moved: Activity,
    /// Whether there has been a request; `first` wakes those who wait for one.
    served: AtomicBool,
    first: Notify,
    /// Whether the connection is given up because its client takes nothing.
    stalled: AtomicBool,
}

/// What the timer finds.
#[derive(Debug)]
pub enum Lateness {
    /// Nothing is late, and nothing can be late before this much time has passed.
    Fine {
        /// When to look again.
        look_again: Duration,
    },
    /// No request for too long: close gracefully.
    Idle,
    /// The client does not finish its head: close at once.
    SlowHead,
    /// The client takes nothing of its answers: close at once.
    Stalled,
}

impl Deadlines {
    /// The deadlines of a connection that begins now. `stall` is the longest time that a request may go without
    /// movement.
    pub fn new(clock: &Clock, protocol: Protocol, stall: Duration) -> Arc<Self> {
        let deadlines = Self {
            clock: clock.clone(),
            protocol,
            stall,
            requests: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            moved: Activity::default(),
            served: AtomicBool::new(false),
            first: Notify::new(),
            stalled: AtomicBool::new(false),
        };
        // The first head is due from the beginning: a silent client counts as a slow head.
        deadlines.head_since.store(deadlines.now(), Ordering::Relaxed);
        deadlines.rest();
        Arc::new(deadlines)
    }

    /// Notes that the first head has been waited for: it is due so much sooner.
    pub fn has_waited(&self, waited: Duration) {
        let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.head_since.store(self.now().saturating_sub(waited).max(1), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        let since = self.clock.now().since(Moment::from_epoch(Duration::ZERO));
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// How many requests are under way.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Since when the connection has been idle: without a request, and not in the middle of a head. Milliseconds, to be
    /// compared. A first head has its time to come: else those who come at a full house would put out each other, and
    /// none would ever be served.
    pub fn idle_since(&self) -> Option<u64> {
        let head = self.head_since.load(Ordering::Relaxed);
        let in_a_head = head != 0
            && (self.served.load(Ordering::Relaxed) || self.now().saturating_sub(head) < FIRST_HEAD);
        (self.requests() == 0 && !in_a_head).then(|| self.quiet_since.load(Ordering::Relaxed))
    }

    /// Notes that no further head is read: however much still comes, the connection counts as idle.
    pub fn no_more_heads(&self) {
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// Notes that a message moved; the timer finds out when, to within one of its turns.
    pub fn touch(&self) {
        self.moved.touch();
    }

    /// As [`touch`](Self::touch), but between requests at once: `idle` counts from here, however late the timer looks.
    fn moved(&self) {
        if self.requests.load(Ordering::Relaxed) > 0 {
            return self.touch();
        }
        self.moved.take();
        self.rest();
    }

    fn rest(&self) {
        self.quiet_since.store(self.now(), Ordering::Relaxed);
    }

    /// Whether the connection is late, or when it could be.
    pub fn standing(&self, timeouts: &Timeouts) -> Lateness {
        if self.moved.take() {
            self.rest();
        }
        let now = self.now();
        let left = |since: u64, limit: Duration| {
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            (since.saturating_add(limit)).saturating_sub(now)
        };
        let mut look_again = u64::MAX;
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 {
            match left(blocked, timeouts.body) {
                0 => return self.stalls(),
                left => look_again = left,
            }
        }
        let quiet = self.quiet_since.load(Ordering::Relaxed);
        if self.requests.load(Ordering::Relaxed) > 0 {
            // A stream whose client gives it no window, however much else moves on the connection.
            match left(quiet, self.stall) {
                0 => return self.stalls(),
                left => look_again = look_again.min(left),
            }
            // The request may end at once, and then `idle` begins.
            look_again = look_again.min(left(now, timeouts.body)).min(idle_step(timeouts));
        } else {
            match self.head_since.load(Ordering::Relaxed) {
                0 => {}
                since => match left(since, timeouts.header) {
                    0 => return Lateness::SlowHead,
                    left => look_again = look_again.min(left),
                },
            }
            match left(quiet, timeouts.idle) {
                0 => return Lateness::Idle,
                // A request that comes and goes meanwhile begins `idle` anew, to within a step.
                left => look_again = look_again.min(left.max(1)).min(left_for_a_head(timeouts)),
            }
        }
        Lateness::Fine { look_again: Duration::from_millis(look_again.max(1)) }
    }

    fn stalls(&self) -> Lateness {
        self.stalled.store(true, Ordering::Relaxed);
        Lateness::Stalled
    }

    /// Notes that a part of a head has been read, where one is awaited.
    pub fn bytes_came(&self) {
        if self.awaits_a_head() {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether the next octet begins a head.
    pub fn awaits_a_head(&self) -> bool {
        self.protocol == Protocol::Http1
            && self.requests.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
    }

    /// Notes that the socket took bytes. Bytes given to hyper or h2 may take long to be sent. In HTTP/2 this counts
    /// only between requests: there a stream may be starved of its window while PINGs keep the connection moving.
    pub fn bytes_went(&self, count: usize) {
        if count >= CONTROL_FRAMES
            && (self.protocol == Protocol::Http1 || self.requests.load(Ordering::Relaxed) == 0)
        {
            self.moved();
        }
    }

    /// Notes that a write succeeded.
    pub fn wrote(&self) {
        if self.blocked_since.load(Ordering::Relaxed) != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that a write found the socket full.
    pub fn blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Where message pieces are recorded from outside the connection's own task.
    pub fn activity(&self) -> &Activity {
        &self.moved
    }

    /// Waits for a first request. Cancel-safe.
    pub async fn first_request(&self) {
        loop {
            let first = self.first.notified();
            if self.served.load(Ordering::Acquire) {
                return;
            }
            first.await;
        }
    }
}

/// While a connection is idle a head may begin at any time; the timer must fire again before that one could be late.
fn left_for_a_head(timeouts: &Timeouts) -> u64 {
    u64::try_from(timeouts.header.as_millis()).unwrap_or(u64::MAX)
}

/// How late the end of a request may be noticed: an eighth of what may follow it.
fn idle_step(timeouts: &Timeouts) -> u64 {
    u64::try_from((timeouts.idle / 8).as_millis()).unwrap_or(u64::MAX).max(SHORTEST_STEP)
}

/// A request under way on a connection, to the end of its response.
#[derive(Debug)]
pub struct InFlight(Arc<Deadlines>);

impl InFlight {
    /// Notes that a request has come.
    pub fn begin(deadlines: Arc<Deadlines>) -> Self {
        deadlines.requests.fetch_add(1, Ordering::Relaxed);
        deadlines.head_since.store(0, Ordering::Relaxed);
        deadlines.touch();
        if !deadlines.served.swap(true, Ordering::Release) {
            deadlines.first.notify_waiters();
        }
        Self(deadlines)
    }

    /// Notes that one of its messages moved.
    pub fn touch(&self) {
        self.0.touch();
    }

    /// Whether its connection is given up because the client takes nothing.
    pub fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.moved();
    }
}

/// An answer of which its client takes nothing for `timeouts.body`.
pub const STALLED: &str = "stalled";

/// Fewer bytes at once than this may be nothing but HTTP/2's PING or WINDOW_UPDATE, which keep no connection alive.
const CONTROL_FRAMES: usize = 64;

/// Milliseconds that a first head has to come before its connection counts as idle.
const FIRST_HEAD: u64 = 1000;

/// Milliseconds: a short `idle` needs no finer timer.
const SHORTEST_STEP: u64 = 250;

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(90);

    fn timeouts() -> Timeouts {
        let seconds = Duration::from_secs;
        Timeouts {
            handshake: seconds(10),
            header: seconds(15),
            body: seconds(30),
            idle: seconds(75),
            total: seconds(60),
            upload: seconds(3600),
            drain: seconds(30),
            tunnel: seconds(3600),
        }
    }

    fn is_fine(deadlines: &Deadlines) -> bool {
        matches!(deadlines.standing(&timeouts()), Lateness::Fine { .. })
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_late_after_the_header_deadline() {
        let deadlines = Deadlines::new(&Clock::system(), Protocol::Http2, STALL);
        tokio::time::advance(Duration::from_millis(14_900)).await;
        assert!(is_fine(&deadlines));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(matches!(deadlines.standing(&timeouts()), Lateness::SlowHead));
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_the_idle_deadline_counts_until_a_head_begins() {
        let deadlines = Deadlines::new(&Clock::system(), Protocol::Http1, STALL);
        drop(InFlight::begin(Arc::clone(&deadlines)));
        assert!(is_fine(&deadlines));
        tokio::time::advance(Duration::from_secs(70)).await;
        assert!(is_fine(&deadlines));
        deadlines.bytes_came();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(is_fine(&deadlines));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(matches!(deadlines.standing(&timeouts()), Lateness::SlowHead));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_asked_to_close() {
        let deadlines = Deadlines::new(&Clock::system(), Protocol::Http1, STALL);
        drop(InFlight::begin(Arc::clone(&deadlines)));
        assert!(is_fine(&deadlines));
        tokio::time::advance(Duration::from_secs(76)).await;
        assert!(matches!(deadlines.standing(&timeouts()), Lateness::Idle));
    }

    /// Once, `idle = "4s"` closed after seven: the timer looked late, and took the look for the movement.
    #[tokio::test(start_paused = true)]
    async fn idle_counts_from_the_end_of_the_request_and_not_from_when_the_timer_looks() {
        let timeouts = Timeouts { idle: Duration::from_secs(4), ..timeouts() };
        let deadlines = Deadlines::new(&Clock::system(), Protocol::Http1, STALL);
        let began = tokio::time::Instant::now();
        let look = || match deadlines.standing(&timeouts) {
            Lateness::Fine { look_again } => Some(look_again),
            Lateness::Idle | Lateness::SlowHead | Lateness::Stalled => None,
        };
        let busy = InFlight::begin(Arc::clone(&deadlines));
        let mut wait = look().unwrap();
        tokio::time::advance(Duration::from_millis(100)).await;
        busy.touch();
        drop(busy);
        deadlines.bytes_went(1000);
        loop {
            tokio::time::advance(wait).await;
            match look() {
                Some(again) => wait = again,
                None => break,
            }
        }
        let idle = began.elapsed() - Duration::from_millis(100);
        assert!((4000..4600).contains(&idle.as_millis()), "{idle:?}");
    }

    /// Once, a connection that had just been accepted was as idle as any, and made room for the next before its client
    /// could send anything.
    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_idle_only_when_its_first_head_has_had_its_time() {
        let deadlines = Deadlines::new(&Clock::system(), Protocol::Http1, STALL);
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(deadlines.idle_since(), None);
        tokio::time::advance(Duration::from_millis(200)).await;
        let silent = deadlines.idle_since();
        assert!(silent.is_some());
        drop(InFlight::begin(Arc::clone(&deadlines)));
        assert!(deadlines.idle_since() > silent);
    }

    /// Once, a connection that was closed in the middle of a head kept its place while its client went on sending.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_closing_is_idle_although_it_broke_off_in_a_head() {
        let deadlines = Deadlines::new(&Clock::system(), Protocol::Http1, STALL);
        drop(InFlight::begin(Arc::clone(&deadlines)));
        deadlines.bytes_came();
        assert_eq!(deadlines.idle_since(), None);
        deadlines.no_more_heads();
        assert!(deadlines.idle_since().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_is_never_idle_but_its_body_must_move() {
        let deadlines = Deadlines::new(&Clock::system(), Protocol::Http2, STALL);
        let _busy = InFlight::begin(Arc::clone(&deadlines));
        assert!(is_fine(&deadlines));
        tokio::time::advance(Duration::from_secs(80)).await;
        assert!(is_fine(&deadlines));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(matches!(deadlines.standing(&timeouts()), Lateness::Stalled));
    }
}
