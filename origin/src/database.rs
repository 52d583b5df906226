//! The pool of connections, the queue in front of it, and the schema's migrations.
//!
//! Every statement is prepared and bound by sqlx; none is put together from a request's text. A handler acquires a
//! [`Connection`] once, and runs its queries by name through it. How many requests may wait for one, and for how long, is
//! bounded; one more is refused at once. When a request is dropped in the middle of a query (a deadline, a client that
//! vanished), its connection is closed, and the server, which looks every `CLIENT_CHECK` whether its client is still there,
//! ends the query. Until it must have noticed, no other connection is opened in place of that one. Otherwise clients that
//! often give up could pile up statements at the server. A connection that turns out to be lost, or of a server that takes no
//! writes any more, is closed as well, and the others prove themselves before they are used again ([`crate::primary`]).

use std::{
    future::poll_fn,
    io,
    sync::{Arc, LazyLock},
    task::Poll,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Executor as _, FromRow, PgConnection, PgPool, Postgres,
    migrate::{MigrateError, Migrator},
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    query::{Query, QueryAs},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    observe::Metrics,
    primary::{self, Servers},
    problem::Problem,
    settings::DatabaseSettings,
};

/// A database may be ahead of this build, which is then the one before: migrations go forward only, and keep it working.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("../migrations");
    migrations.set_ignore_missing(true);
    migrations
});

/// A server that has just been told to start may take this long to accept a connection.
pub const START_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_AGAIN: Duration = Duration::from_millis(50);
/// `client_connection_check_interval` in milliseconds: how soon the server notices that nobody wants a result.
const CLIENT_CHECK: &str = "20";
/// How long the statement of a closed connection counts as running.
const UNTIL_NOTICED: Duration = Duration::from_millis(40);

/// A bounded pool with a bounded queue.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    servers: Servers,
    /// A permit for each request that has a connection or may wait for one.
    places: Arc<Semaphore>,
    /// A permit for each connection on which the server may be at work, those just closed included.
    backends: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    #[error("too many requests wait for a database connection")]
    Full,
    /// It took too long, or the server cannot be reached.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<AcquireError> for Problem {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Full => Self::overloaded(),
            AcquireError::Database(error) => error.into(),
        }
    }
}

impl Database {
    /// A pool with the bounds of the settings, to one server or to whichever of several takes writes; connects when first used.
    pub fn new(servers: impl Into<Servers>, settings: &DatabaseSettings, metrics: Arc<Metrics>) -> Self {
        let servers = servers.into();
        let statement_timeout = settings.statement_timeout.as_millis().to_string();
        let dress = move |options: PgConnectOptions| {
            options
                .application_name("gatehouse-origin")
                .options([
                    ("statement_timeout", statement_timeout.as_str()),
                    // A transaction whose origin hangs must not keep its locks.
                    ("idle_in_transaction_session_timeout", statement_timeout.as_str()),
                    ("client_connection_check_interval", CLIENT_CHECK),
                    // Compiling a plan takes longer than any of these queries runs.
                    ("jit", "off"),
                ])
                // `Metrics::query` logs slow queries by name; the driver would log their text.
                .disable_statement_logging()
        };
        let options = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .idle_timeout(settings.idle_timeout)
            .acquire_timeout(settings.acquire_timeout);
        let pool = servers.pool(options, dress);
        let backends = settings.max_connections as usize;
        let places = Arc::new(Semaphore::new(backends + settings.max_waiting as usize));
        Self { pool, servers, places, backends: Arc::new(Semaphore::new(backends)), metrics }
    }

    /// A connection of the pool, within the acquire timeout; an error at once when the queue is full. Dropping the future
    /// gives up the place in the queue.
    ///
    /// # Errors
    /// See [`AcquireError`].
    pub async fn acquire(&self) -> Result<Connection, AcquireError> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.acquire_refused.inc();
            return Err(AcquireError::Full);
        };
        let bounded = timeout(self.pool.options().get_acquire_timeout(), self.pooled());
        let pooled = self.metrics.acquire(bounded).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let pooled = pooled.inspect_err(|_| self.servers.doubt())?;
        let (metrics, servers) = (Arc::clone(&self.metrics), self.servers.clone());
        let pooled = Some(pooled);
        Ok(Connection {
            pooled,
            state: State::Usable,
            in_transaction: false,
            metrics,
            servers,
            _place: place,
        })
    }

    async fn pooled(&self) -> Result<Pooled, sqlx::Error> {
        let backends = Arc::clone(&self.backends);
        let backend = backends.acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let pool = self.pool.clone();
        let mut opening = Box::pin(async move {
            let opening = timeout(pool.options().get_acquire_timeout(), from_pool(&pool));
            Ok((opening.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?, backend))
        });
        // Most of the time there is one, which no other thread need be woken for.
        if let Poll::Ready(there) = poll_fn(|context| Poll::Ready(opening.as_mut().poll(context))).await {
            return there;
        }
        // A task of its own, which goes on when the request that asked has given up. If it ended with the request, the next
        // one would begin a new connection, and the server, which forks a process for each, would fall behind.
        tokio::spawn(opening).await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    /// For gauges and for closing.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

async fn from_pool(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    loop {
        match pool.acquire().await {
            // A private server that starts again has no socket for a moment. The driver waits when a connection is refused,
            // not when there is nothing to refuse it.
            Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                sleep(CONNECT_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

/// A connection for as long as it is needed. Dropped in the middle of a statement it is closed, which ends the statement;
/// otherwise it goes back to the pool, and a transaction that nobody has committed is rolled back on the way.
#[derive(Debug)]
pub struct Connection {
    pooled: Option<Pooled>,
    state: State,
    in_transaction: bool,
    metrics: Arc<Metrics>,
    servers: Servers,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Usable,
    /// A statement is under way.
    Busy,
    /// It, or its server as one that takes writes, is gone.
    Lost,
}

type Pooled = (PoolConnection<Postgres>, OwnedSemaphorePermit);
/// A statement with its parameters, of which rows are read.
pub(crate) type Rows<'q, T> = QueryAs<'q, Postgres, T, PgArguments>;
type Statement<'q> = Query<'q, Postgres, PgArguments>;

impl Connection {
    /// All rows. `name` is for metrics and the slow-query log, here and below.
    pub async fn all<T>(&mut self, name: &'static str, query: Rows<'_, T>) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let (connection, watch) = self.parts();
        watch.until_ended(name, query.fetch_all(connection)).await
    }

    /// The row, if there is one.
    pub async fn optional<T>(
        &mut self,
        name: &'static str,
        query: Rows<'_, T>,
    ) -> Result<Option<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let (connection, watch) = self.parts();
        watch.until_ended(name, query.fetch_optional(connection)).await
    }

    /// The only row.
    pub async fn one<T>(&mut self, name: &'static str, query: Rows<'_, T>) -> Result<T, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.optional(name, query).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// How many rows were written.
    pub async fn execute(&mut self, name: &'static str, query: Statement<'_>) -> Result<u64, sqlx::Error> {
        let (connection, watch) = self.parts();
        watch.until_ended(name, query.execute(connection)).await.map(|done| done.rows_affected())
    }

    pub async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let (connection, watch) = self.parts();
        watch.until_ended("begin", connection.execute("BEGIN")).await?;
        self.in_transaction = true;
        Ok(())
    }

    /// Commits. After an error, or when the future is dropped, nobody knows whether it has happened.
    pub async fn commit(&mut self) -> Result<(), sqlx::Error> {
        let (connection, watch) = self.parts();
        watch.until_ended("commit", connection.execute("COMMIT")).await?;
        self.in_transaction = false;
        Ok(())
    }

    fn parts(&mut self) -> (&mut PgConnection, Watch<'_>) {
        let (pooled, _) = self.pooled.as_mut().expect("drop alone takes it out");
        (pooled, Watch { state: &mut self.state, metrics: &self.metrics, servers: &self.servers })
    }
}

/// Times a statement, and notices when it is given up, or its connection lost.
struct Watch<'a> {
    state: &'a mut State,
    metrics: &'a Metrics,
    servers: &'a Servers,
}

impl Watch<'_> {
    async fn until_ended<T>(
        self,
        name: &'static str,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        *self.state = State::Busy;
        let result = self.metrics.query(name, statement).await;
        *self.state = State::Usable;
        if result.as_ref().is_err_and(primary::is_lost) {
            *self.state = State::Lost;
            self.servers.doubt();
        }
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some((mut pooled, backend)) = self.pooled.take() else { return };
        if self.state != State::Usable {
            if self.state == State::Busy {
                self.metrics.queries_abandoned.inc();
            }
            // Closes the socket without PostgreSQL's own farewell: the server would read it after the statement only.
            drop(pooled.detach());
            tokio::spawn(async move {
                sleep(UNTIL_NOTICED).await;
                drop(backend);
            });
        } else if self.in_transaction {
            // In a task of its own, because `drop` cannot wait. If it fails, the pool's check of the connection notices.
            tokio::spawn(async move {
                let rolled_back = pooled.execute("ROLLBACK").await;
                drop(backend);
                rolled_back.map(drop)
            });
        }
    }
}

/// Applies what is pending; several callers at once wait for each other. Answers how many migrations there are.
pub async fn migrate(connection: &mut PgConnection) -> Result<usize, MigrateError> {
    MIGRATIONS.run(&mut *connection).await?;
    let applied = sqlx::query_as::<_, (i64,)>(APPLIED).fetch_all(connection).await?;
    warn_of_newer(&applied);
    Ok(MIGRATIONS.iter().count())
}

/// How many migrations of this build the database lacks. A database that is ahead of this build lacks none.
pub async fn pending_migrations(connection: &mut PgConnection) -> Result<usize, sqlx::Error> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    let applied = if known { sqlx::query_as(APPLIED).fetch_all(connection).await? } else { Vec::new() };
    warn_of_newer(&applied);
    Ok(missing(&applied))
}

fn warn_of_newer(applied: &[(i64,)]) {
    let newer: Vec<i64> = applied
        .iter()
        .map(|(version,)| *version)
        .filter(|version| !MIGRATIONS.version_exists(*version))
        .collect();
    if !newer.is_empty() {
        tracing::warn!(?newer, "the database has migrations of a newer build, which this one does not know");
    }
}

/// The migrations applied, for [`missing`].
pub(crate) const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success";

/// How many migrations of this build are not among those applied.
pub(crate) fn missing(applied: &[(i64,)]) -> usize {
    MIGRATIONS.iter().filter(|migration| !applied.contains(&(migration.version,))).count()
}

/// Loads `pg_stat_statements` into a private database whose server has it.
pub async fn enable_statement_statistics(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // IF NOT EXISTS alone loses a race between two origins that start at the same moment.
    let load = "DO $$ BEGIN
        IF current_setting('shared_preload_libraries') LIKE '%pg_stat_statements%'
           AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')
        THEN
            PERFORM pg_advisory_xact_lock(hashtext('gatehouse extensions'));
            CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
        END IF;
    END $$";
    connection.execute(load).await.map(drop)
}
