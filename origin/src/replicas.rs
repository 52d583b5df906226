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
//! It must never choose for writes.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
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
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    database::{AcquireError, Connection, Database},
    server::Shop,
    sessions,
};

const COOKIE: &str = "__Host-written";
const CHECK: Duration = Duration::from_millis(100);
/// Longer than any lag that is trusted: afterwards every node that is read from is past it.
const COOKIE_LIFETIME: u64 = 60;
/// No node is past it but the primary.
const UNKNOWN: u64 = u64::MAX;

/// Bytes of the log up to here.
const PRIMARY_AT: &str = "SELECT (pg_current_wal_lsn() - '0/0')::bigint";
/// Null when it is no replica (any more): then nobody knows what it shows.
const REPLICA_AT: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END";

/// Where reads go.
#[derive(Debug, Clone)]
pub struct Reads {
    primary: Database,
    replicas: Arc<[Replica]>,
    turn: Arc<AtomicUsize>,
    max_lag: Duration,
    key: Arc<[u8]>,
}

#[derive(Debug)]
struct Replica {
    database: Database,
    replayed: AtomicU64,
    trusted_until: Mutex<Option<Instant>>,
}

impl Reads {
    /// Reads from `replicas` while they are no further than `max_lag` behind, otherwise from `primary`. Cookies are signed with
    /// `key`; without one they hold for this process alone, and others send their bearers to the primary.
    pub fn new(primary: Database, replicas: Vec<Database>, max_lag: Duration, key: Option<&str>) -> Self {
        let replicas = replicas.into_iter().map(|database| Replica {
            database,
            replayed: AtomicU64::new(0),
            trusted_until: Mutex::new(None),
        });
        let key = key.map_or_else(|| rand::random::<[u8; 32]>().to_vec(), |key| key.as_bytes().to_vec());
        Self { primary, replicas: replicas.collect(), turn: Arc::default(), max_lag, key: key.into() }
    }

    /// A connection for reading what this request may see.
    ///
    /// # Errors
    /// As [`Database::acquire`]; a replica that cannot be reached is none.
    pub async fn acquire(&self, headers: &HeaderMap) -> Result<Connection, AcquireError> {
        if let Some(replica) = self.choose(headers) {
            match replica.database.acquire().await {
                Err(AcquireError::Database(error)) => {
                    tracing::warn!(%error, "a replica is left out");
                    *replica.trusted_until.lock() = None;
                }
                outcome => return outcome,
            }
        }
        self.primary.acquire().await
    }

    fn choose(&self, headers: &HeaderMap) -> Option<&Replica> {
        if self.replicas.is_empty() {
            return None;
        }
        let (now, written) = (Instant::now(), self.written(headers));
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..self.replicas.len())
            .map(|step| &self.replicas[(first.wrapping_add(step)) % self.replicas.len()])
            .find(|replica| {
                replica.replayed.load(Ordering::Acquire) >= written
                    && replica.trusted_until.lock().is_some_and(|until| now < until)
            })
    }

    /// Waits until every replica has replayed the log as far as it is now, or is trusted by nobody any more.
    pub(crate) async fn replayed(&self) -> Result<(), AcquireError> {
        if self.replicas.is_empty() {
            return Ok(());
        }
        let now = self.position().await?;
        let reached = async {
            while self.replicas.iter().any(|replica| replica.replayed.load(Ordering::Acquire) < now) {
                sleep(CHECK / 4).await;
            }
        };
        // Whoever has not replayed it by then: every sample it has reached is from before the change, and too old to trust.
        let _ = timeout(self.max_lag, reached).await;
        Ok(())
    }

    async fn position(&self) -> Result<u64, AcquireError> {
        let mut connection = self.primary.acquire().await?;
        let (at,) = connection.one::<(i64,)>("replicas.primary", sqlx::query_as(PRIMARY_AT)).await?;
        Ok(at.unsigned_abs())
    }

    /// Watches primary and replicas until `stop` says so.
    pub async fn watch(self, mut stop: watch::Receiver<bool>) {
        if self.replicas.is_empty() {
            return;
        }
        let mut samples: VecDeque<(Instant, u64)> = VecDeque::new();
        while !*stop.borrow() {
            // Taken before the question: the sample is at least as new as it says.
            let asked = Instant::now();
            if let Ok(Ok(at)) = timeout(self.max_lag, self.position()).await {
                samples.push_back((asked, at));
            }
            samples.retain(|(taken, _)| taken.elapsed() < self.max_lag);
            for replica in self.replicas.iter() {
                // One that hangs holds up the others no longer than they are trusted without a new look.
                let replayed = timeout(self.max_lag / 4, replica.ask()).await.unwrap_or(None);
                let Some(replayed) = replayed else {
                    *replica.trusted_until.lock() = None;
                    continue;
                };
                replica.replayed.store(replayed, Ordering::Release);
                let reached = samples.iter().rev().find(|(_, at)| *at <= replayed);
                *replica.trusted_until.lock() = reached.map(|(taken, _)| *taken + self.max_lag);
            }
            tokio::select! {
                () = sleep(CHECK) => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// How far a node must be to answer this request; 0 for who has not written lately.
    fn written(&self, headers: &HeaderMap) -> u64 {
        let Some(cookie) = sessions::cookie(headers, COOKIE) else { return 0 };
        // Signed with another key, or nobody's: the primary is right in any case.
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
    /// How far it has replayed; `None` when it does not answer or is no replica.
    async fn ask(&self) -> Option<u64> {
        let mut connection = self.database.acquire().await.ok()?;
        let query = sqlx::query_as::<_, (Option<i64>,)>(REPLICA_AT);
        connection.one("replicas.replica", query).await.ok()?.0.map(i64::unsigned_abs)
    }
}

/// Gives whoever has written the position of their write, so that they read it. Nothing without replicas.
pub(crate) async fn remember_writes(State(shop): State<Shop>, request: Request, next: Next) -> Response {
    let reads = &shop.reads;
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let mut response = next.run(request).await;
    if safe || reads.replicas.is_empty() || !response.status().is_success() {
        return response;
    }
    // After the commit: at or past the write.
    let position = reads.position().await.unwrap_or(UNKNOWN);
    let cookie = format!(
        "{COOKIE}={}; Path=/; Max-Age={COOKIE_LIFETIME}; Secure; HttpOnly; SameSite=Lax",
        reads.sign(position)
    );
    let cookie = HeaderValue::from_str(&cookie).expect("numbers and base64url are printable ASCII");
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
        let options = url.as_str().parse().map_err(io::Error::other)?;
        Ok(Database::new(options, settings, Arc::clone(metrics)))
    };
    settings.replicas.iter().map(pool).collect()
}
