//! The servers of which one takes writes, and which of them it is.
//!
//! ```text
//!   a connection is lost, or may only read ─▶ doubt ─▶ every server is asked ─▶ the first that takes writes
//!                                                                                 │ another than before
//!                                   connections from before are closed ◀──────────┘ new ones go there
//! ```
//! Promises: after a failure no connection from before it is used without having answered; a server that has been promoted is
//! found without a restart, by the requests that fail because of it. It must never open a connection for reading only in place
//! of one that takes writes while one of them does.

use std::{
    fmt, io,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    pool::PoolConnectionMetadata,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// A connection that nobody has used for so long is asked whether it is still there; one in use shows it by itself.
const QUIET: Duration = Duration::from_secs(1);
/// How long a server may take to connect and say what it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// What does not even refuse a connection is away.
const LONGEST_CONNECT: Duration = Duration::from_secs(5);
/// Between two rounds of questions.
const AGAIN: Duration = Duration::from_millis(200);

/// Neither a standby, nor told to only read.
const TAKES_WRITES: &str =
    "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'";

/// What a pool adds to the options of whichever server it connects to.
type Dress = Box<dyn Fn(PgConnectOptions) -> PgConnectOptions + Send + Sync>;

/// Servers in the order of the settings. Clones are the same.
#[derive(Debug, Clone)]
pub struct Servers {
    shared: Arc<Shared>,
}

struct Shared {
    candidates: Mutex<Candidates>,
    pools: Mutex<Vec<(PgPool, Dress)>>,
    /// Connections from before are of another server.
    moved: Mutex<Option<Instant>>,
    /// Connections from before may be dead.
    doubted: Mutex<Option<Instant>>,
    wake: Notify,
}

struct Candidates {
    all: Vec<PgConnectOptions>,
    current: usize,
}

impl From<PgConnectOptions> for Servers {
    fn from(only: PgConnectOptions) -> Self {
        Self::new(vec![only])
    }
}

impl Servers {
    /// The first is taken for the one that takes writes until it shows that it is not.
    ///
    /// # Panics
    /// Without any.
    pub fn new(all: Vec<PgConnectOptions>) -> Self {
        assert!(!all.is_empty(), "there is a server to connect to");
        let shared = Shared {
            candidates: Mutex::new(Candidates { all, current: 0 }),
            pools: Mutex::default(),
            moved: Mutex::default(),
            doubted: Mutex::default(),
            wake: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A pool of connections to whichever server takes writes, each with what `dress` adds.
    pub(crate) fn pool(
        &self,
        options: PgPoolOptions,
        dress: impl Fn(PgConnectOptions) -> PgConnectOptions + Send + Sync + 'static,
    ) -> PgPool {
        let known: Weak<Shared> = Arc::downgrade(&self.shared);
        let options = options.test_before_acquire(false).before_acquire(move |connection, facts| {
            let use_it = known.upgrade().map_or(Use::AfterAnAnswer, |known| known.judge(&facts));
            Box::pin(async move {
                match use_it {
                    Use::AtOnce => Ok(true),
                    Use::AfterAnAnswer => connection.ping().await.map(|()| true),
                    Use::Never => Ok(false),
                }
            })
        });
        let pool = options.connect_lazy_with(dress(self.current()));
        self.shared.pools.lock().push((pool.clone(), Box::new(dress)));
        pool
    }

    /// Somebody has found a connection lost, or one that may only read.
    pub(crate) fn doubt(&self) {
        *self.shared.doubted.lock() = Some(Instant::now());
        self.shared.wake.notify_one();
    }

    /// Takes these servers in place of the ones before; connections are opened anew.
    ///
    /// # Panics
    /// Without any.
    pub fn replace(&self, all: Vec<PgConnectOptions>) {
        assert!(!all.is_empty(), "there is a server to connect to");
        *self.shared.candidates.lock() = Candidates { all, current: 0 };
        self.reconnect();
        self.doubt();
    }

    /// A connection apart from the pools. A server that cannot be reached, or that only starts, is tried again for as long
    /// as `patience`.
    ///
    /// # Errors
    /// None of them can be reached, or the one that can refuses.
    pub async fn connect(&self, patience: Duration) -> Result<PgConnection, sqlx::Error> {
        let deadline = Instant::now() + patience;
        loop {
            self.seek().await;
            let options = self.current().disable_statement_logging();
            let connected = timeout(LONGEST_CONNECT, options.connect()).await;
            match connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
                Err(error) if is_away(&error) && Instant::now() < deadline => sleep(AGAIN / 4).await,
                outcome => return outcome,
            }
        }
    }

    /// Looks for the server that takes writes whenever there is doubt, until `stop` says so.
    pub async fn watch(self, mut stop: watch::Receiver<bool>) {
        let mut found = true;
        while !*stop.borrow() {
            if found {
                tokio::select! {
                    () = self.shared.wake.notified() => {}
                    _ = stop.changed() => return,
                }
            }
            found = self.seek().await;
            // A failure that the search does not explain must not have it run all the time.
            if timeout(AGAIN, stop.changed()).await.is_ok() {
                return;
            }
        }
    }

    /// Whether there is nothing more to look for: a single server, or one that takes writes, to which connections go now.
    async fn seek(&self) -> bool {
        let all = self.shared.candidates.lock().all.clone();
        if all.len() < 2 {
            return true;
        }
        let mut asking = JoinSet::new();
        for (index, options) in all.into_iter().enumerate() {
            asking.spawn(async move { (index, timeout(PATIENCE, takes_writes(&options)).await) });
        }
        while let Some(asked) = asking.join_next().await {
            let Ok((index, Ok(Ok(true)))) = asked else { continue };
            let mut candidates = self.shared.candidates.lock();
            if candidates.current != index && index < candidates.all.len() {
                candidates.current = index;
                drop(candidates);
                let options = self.current();
                tracing::warn!(
                    host = options.get_host(),
                    port = options.get_port(),
                    "another server takes writes now"
                );
                self.reconnect();
            }
            return true;
        }
        false
    }

    fn current(&self) -> PgConnectOptions {
        let candidates = self.shared.candidates.lock();
        candidates.all[candidates.current].clone()
    }

    fn reconnect(&self) {
        for (pool, dress) in &*self.shared.pools.lock() {
            pool.set_connect_options(dress(self.current()));
        }
        *self.shared.moved.lock() = Some(Instant::now());
    }
}

/// How a connection of a pool may be used.
enum Use {
    AtOnce,
    AfterAnAnswer,
    Never,
}

impl Shared {
    fn judge(&self, facts: &PoolConnectionMetadata) -> Use {
        let is_from_before =
            |event: &Mutex<Option<Instant>>| event.lock().is_some_and(|event| facts.age >= event.elapsed());
        if is_from_before(&self.moved) {
            Use::Never
        } else if facts.idle_for >= QUIET || is_from_before(&self.doubted) {
            Use::AfterAnAnswer
        } else {
            Use::AtOnce
        }
    }
}

async fn takes_writes(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut connection = options.clone().disable_statement_logging().connect().await?;
    let takes_writes = sqlx::query_scalar(TAKES_WRITES).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(takes_writes)
}

/// Whether nobody answers, or somebody who does nothing but start or stop.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

/// Whether a connection on which this happened is of no more use: it is gone, or its server takes no writes (SQLSTATE 25006).
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("08") || code.starts_with("57P") || code == "25006"),
        _ => false,
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Servers(…)")
    }
}
