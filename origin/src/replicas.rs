//! Reading from replicas without reading the past.
//!
//! ```text
//!   primary ── every CHECK: where is its log? ──▶ a sample (when, where)
//!   replica ── every CHECK: how far has it replayed? ──▶ the newest sample it has reached + max_lag = trusted until
//! ```
//! Promises: a replica is read only while it is trusted, so what it shows is at most `max_lag` old; one that lags, dies or
//! is not watched is left out by itself. Who has written reads what they wrote: the answer to a write carries the log's
//! position in a signed cookie, and only nodes at or past it answer them. And `Reads::replayed` lets the outbox wait
//! until no node that is read from is before a change, so that what an edge fetches after a purge is new.
//!
//! While the primary is away no replica can be trusted, but what everybody may see is still read ([`Reads::acquire_public`]):
//! from a replica that has replayed all of the primary's log that was ever seen here. The primary may be out of reach from
//! here only, and others may be writing to it, so caches keep what is read then for seconds.
//! It must never choose a node for writes.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use sha2::Sha256;
use sqlx::{Executor, PgPool, Postgres, postgres::PgConnectOptions};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    caching::UNCERTAIN,
    cookies,
    database::{AcquireError, Connection, Database},
};

const COOKIE: &str = "__Host-written";
const CHECK: Duration = Duration::from_millis(100);
/// Longer than any lag that is trusted: afterwards every node that is read from is past it.
const COOKIE_LIFETIME: Duration = Duration::from_secs(60);
/// A position that no replica reaches: only the primary may answer.
const UNKNOWN: u64 = u64::MAX;

/// Bytes of the log up to here.
const PRIMARY_AT: &str = "SELECT (pg_current_wal_lsn() - '0/0')::bigint";
/// Null when it is no replica (any more): then nobody knows what it shows.
const REPLICA_AT: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END";

/// Chooses the node that answers a read.
#[derive(Debug, Clone)]
pub struct Reads {
    primary: Database,
    replicas: Arc<[Replica]>,
    turn: Arc<AtomicUsize>,
    max_lag: Duration,
    key: Arc<[u8]>,
    seen: Arc<Seen>,
    /// Whoever writes is told where the log is then.
    remembers_writes: bool,
}

/// What is known of the primary.
#[derive(Debug, Default)]
struct Seen {
    /// The furthest its log has been.
    position: AtomicU64,
    /// When it was last asked and answered.
    asked: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Replica {
    database: Database,
    replayed: AtomicU64,
    trusted_until: Mutex<Option<Instant>>,
    /// It has answered when it was last asked, and is a replica.
    answers: AtomicBool,
}

impl Reads {
    /// Reads from `replicas` while they are no further than `max_lag` behind, otherwise from `primary`. Cookies are signed with
    /// `key`; without one they hold for this process alone, and others send their bearers to the primary.
    pub fn new(primary: Database, replicas: Vec<Database>, max_lag: Duration, key: Option<&str>) -> Self {
        let replicas = replicas.into_iter().map(|database| Replica {
            database,
            replayed: AtomicU64::new(0),
            trusted_until: Mutex::new(None),
            answers: AtomicBool::new(false),
        });
        let key = key.map_or_else(|| rand::random::<[u8; 32]>().to_vec(), |key| key.as_bytes().to_vec());
        let (turn, seen, replicas) = (Arc::default(), Arc::default(), Arc::<[Replica]>::from_iter(replicas));
        let remembers_writes = !replicas.is_empty();
        Self { primary, replicas, turn, max_lag, key: key.into(), seen, remembers_writes }
    }

    /// The same, where writes are remembered for what is read elsewhere too, if `elsewhere`.
    #[must_use]
    pub fn remembering(self, elsewhere: bool) -> Self {
        Self { remembers_writes: self.remembers_writes || elsewhere, ..self }
    }

    /// Whether whoever asks has written within the last minute.
    pub(crate) fn has_written(&self, headers: &HeaderMap) -> bool {
        self.remembers_writes && cookies::read(headers, COOKIE).is_some()
    }

    /// A connection for reading what this request may see.
    ///
    /// # Errors
    /// As [`Database::acquire`]; a replica that cannot be reached is none.
    pub async fn acquire(&self, headers: &HeaderMap) -> Result<Connection, AcquireError> {
        match self.acquire_replica(self.choose(headers)).await {
            Some(outcome) => outcome,
            None => self.primary.acquire().await,
        }
    }

    /// The same for what everybody may see, with the Cache-Control it may have: `control`, or less while the primary is away
    /// and nobody knows what it would say.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub async fn acquire_public(
        &self,
        headers: &HeaderMap,
        control: HeaderValue,
    ) -> Result<(Connection, HeaderValue), AcquireError> {
        if let Some(outcome) = self.acquire_replica(self.choose(headers)).await {
            return outcome.map(|connection| (connection, control));
        }
        // Before the primary is asked, so that nobody waits for one that is known to be away; and once more after it, because it
        // may only just have gone.
        if let Some(outcome) = self.acquire_replica(self.choose_alone(headers)).await {
            return outcome.map(|connection| (connection, UNCERTAIN));
        }
        match self.primary.acquire().await {
            Err(AcquireError::Database(error)) => {
                let outcome = self.acquire_replica(self.choose_alone(headers)).await;
                outcome.unwrap_or(Err(error.into())).map(|connection| (connection, UNCERTAIN))
            }
            outcome => outcome.map(|connection| (connection, control)),
        }
    }

    /// `None` when there is no replica, or it turns out to be out of reach.
    async fn acquire_replica(&self, replica: Option<&Replica>) -> Option<Result<Connection, AcquireError>> {
        let replica = replica?;
        match replica.database.acquire().await {
            Err(AcquireError::Database(error)) => {
                tracing::warn!(%error, "a replica is left out");
                replica.leave_out();
                None
            }
            outcome => Some(outcome),
        }
    }

    /// A replica that is trusted, and has what this client has written.
    fn choose(&self, headers: &HeaderMap) -> Option<&Replica> {
        let now = Instant::now();
        self.find(self.written(headers), |replica| replica.is_trusted(now))
    }

    /// A replica that has all that is known to be in the primary's log; only while the primary is away.
    fn choose_alone(&self, headers: &HeaderMap) -> Option<&Replica> {
        if !self.without_primary() {
            return None;
        }
        let known = self.written(headers).max(self.seen.position.load(Ordering::Acquire));
        self.find(known, |replica| replica.answers.load(Ordering::Acquire))
    }

    fn find(&self, at: u64, suits: impl Fn(&Replica) -> bool) -> Option<&Replica> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..self.replicas.len())
            .map(|step| &self.replicas[(first.wrapping_add(step)) % self.replicas.len()])
            .find(|replica| replica.replayed.load(Ordering::Acquire) >= at && suits(replica))
    }

    /// Whether the primary has been silent for so long that no replica is trusted any more.
    fn without_primary(&self) -> bool {
        self.seen.asked.lock().is_some_and(|asked| asked.elapsed() >= self.max_lag)
    }

    /// Whether the primary is away, and what everybody may see is read all the same.
    pub(crate) fn go_on_alone(&self) -> bool {
        self.choose_alone(&HeaderMap::new()).is_some()
    }

    /// Every pool by its name, for gauges.
    pub(crate) fn pools(&self) -> impl Iterator<Item = (String, &PgPool)> {
        let replicas = self.replicas.iter().zip(1..);
        std::iter::once(("primary".to_owned(), self.primary.pool()))
            .chain(replicas.map(|(replica, number)| (format!("replica-{number}"), replica.database.pool())))
    }

    /// Of every replica: its name, the bytes it is behind, whether it is trusted. For gauges.
    pub(crate) fn standings(&self) -> impl Iterator<Item = (String, u64, bool)> {
        let (now, known) = (Instant::now(), self.seen.position.load(Ordering::Acquire));
        self.replicas.iter().zip(1..).map(move |(replica, number)| {
            let lag = known.saturating_sub(replica.replayed.load(Ordering::Acquire));
            (format!("replica-{number}"), lag, replica.is_trusted(now))
        })
    }

    /// Waits until every replica has replayed the log as far as it is now, or is not trusted any more.
    pub(crate) async fn replayed(
        &self,
        primary: impl Executor<'_, Database = Postgres>,
    ) -> Result<(), sqlx::Error> {
        if self.replicas.is_empty() {
            return Ok(());
        }
        let now = self.look(primary).await?;
        let reached = async {
            while self.replicas.iter().any(|replica| replica.replayed.load(Ordering::Acquire) < now) {
                sleep(CHECK / 4).await;
            }
        };
        // A replica that has not replayed it by then is not trusted any more: every sample that it has reached was taken before
        // the change, and is by now older than `max_lag`.
        let _ = timeout(self.max_lag, reached).await;
        Ok(())
    }

    /// Where the primary's log is.
    async fn look(&self, primary: impl Executor<'_, Database = Postgres>) -> Result<u64, sqlx::Error> {
        // Taken before the question: what the answer says is at least as new.
        let asked = Instant::now();
        let at = sqlx::query_scalar::<_, i64>(PRIMARY_AT).fetch_one(primary).await?.unsigned_abs();
        self.see(asked, at);
        Ok(at)
    }

    fn see(&self, asked: Instant, at: u64) {
        self.seen.position.fetch_max(at, Ordering::AcqRel);
        let mut last = self.seen.asked.lock();
        *last = (*last).max(Some(asked));
    }

    /// Watches primary and replicas until `stop` says so. It asks the primary over `connections` apart from the requests':
    /// one that has no time for requests is not away.
    pub async fn watch(self, connections: PgPool, mut stop: watch::Receiver<bool>) {
        if self.replicas.is_empty() {
            return;
        }
        let mut samples: VecDeque<(Instant, u64)> = VecDeque::new();
        let mut alone = false;
        while !*stop.borrow() {
            // All nodes share the time for which a replica is trusted: even if the others hang, one that answers is asked again
            // before that is over.
            let nodes = u32::try_from(self.replicas.len()).unwrap_or(u32::MAX).saturating_add(1);
            let patience = self.max_lag / nodes.saturating_mul(2);
            let asked = Instant::now();
            if let Ok(Ok(at)) = timeout(patience, self.look(&connections)).await {
                samples.push_back((asked, at));
            }
            samples.retain(|(taken, _)| taken.elapsed() < self.max_lag);
            for replica in self.replicas.iter() {
                let Some(replayed) = timeout(patience, replica.ask()).await.unwrap_or(None) else {
                    replica.leave_out();
                    continue;
                };
                replica.replayed.store(replayed, Ordering::Release);
                replica.answers.store(true, Ordering::Release);
                let reached = samples.iter().rev().find(|(_, at)| *at <= replayed);
                *replica.trusted_until.lock() = reached.map(|(taken, _)| *taken + self.max_lag);
            }
            if alone != self.without_primary() {
                alone = !alone;
                if alone {
                    tracing::warn!("the primary is away: replicas answer what everybody may see");
                } else {
                    tracing::info!("the primary is back");
                }
            }
            let _ = timeout(CHECK, stop.changed()).await;
        }
    }

    /// Where the primary's log is, over a connection for requests.
    async fn position(&self) -> Result<u64, AcquireError> {
        let mut connection = self.primary.acquire().await?;
        let asked = Instant::now();
        let (at,) = connection.one::<(i64,)>("replicas.primary", sqlx::query_as(PRIMARY_AT)).await?;
        self.see(asked, at.unsigned_abs());
        Ok(at.unsigned_abs())
    }

    /// How far a node must be to answer this request; 0 for who has not written lately.
    fn written(&self, headers: &HeaderMap) -> u64 {
        let Some(cookie) = cookies::read(headers, COOKIE) else { return 0 };
        // It may be signed with the key of another origin, or forged: the primary is right in any case.
        self.verify(cookie).unwrap_or(UNKNOWN)
    }

    fn verify(&self, cookie: &str) -> Option<u64> {
        let (position, signature) = cookie.split_once('.')?;
        self.mac(position).verify_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        position.parse().ok()
    }

    fn sign(&self, position: u64) -> String {
        let position = position.to_string();
        let signature = URL_SAFE_NO_PAD.encode(self.mac(&position).finalize().into_bytes());
        format!("{position}.{signature}")
    }

    fn mac(&self, position: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(position.as_bytes());
        mac
    }
}

impl Replica {
    fn is_trusted(&self, now: Instant) -> bool {
        self.trusted_until.lock().is_some_and(|until| now < until)
    }

    fn leave_out(&self) {
        *self.trusted_until.lock() = None;
        self.answers.store(false, Ordering::Release);
    }

    /// How far it has replayed; `None` when it does not answer or is no replica.
    async fn ask(&self) -> Option<u64> {
        let mut connection = self.database.acquire().await.ok()?;
        let query = sqlx::query_as::<_, (Option<i64>,)>(REPLICA_AT);
        connection.one("replicas.replica", query).await.ok()?.0.map(i64::unsigned_abs)
    }
}

/// Gives whoever has written the position of their write, so that they read it. Nothing where all is read from one place.
pub(crate) async fn remember_writes(State(reads): State<Reads>, request: Request, next: Next) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let mut response = next.run(request).await;
    if safe || !reads.remembers_writes || !response.status().is_success() {
        return response;
    }
    // Asked for after the commit, so it is at or past the write.
    let position = reads.position().await.unwrap_or(UNKNOWN);
    let cookie = cookies::set(COOKIE, &reads.sign(position), COOKIE_LIFETIME);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

/// Pools of the replicas the settings name.
///
/// # Errors
/// One of the URLs cannot be used.
pub fn pools(
    settings: &crate::settings::DatabaseSettings,
    metrics: &Arc<crate::observe::Metrics>,
) -> io::Result<Vec<Database>> {
    let pool = |url: &crate::settings::DatabaseUrl| {
        let options: PgConnectOptions = url.reveal().parse().map_err(io::Error::other)?;
        Ok(Database::new(options, settings, Arc::clone(metrics)))
    };
    settings.replicas.iter().map(pool).collect()
}
