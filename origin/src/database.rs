//! The pool of connections, the queue in front of it, and the schema's migrations.
//!
//! Every statement is prepared and bound by sqlx; none is put together from a request's text. A handler acquires a
//! [`Connection`] once, and runs its queries by name through it. What waits is bounded in number and in time: beyond that
//! the answer is no, at once. What is dropped in the middle of a query (a deadline, a client that vanished) takes the
//! query with it: the connection is closed, and the server looks every `CLIENT_CHECK` whether its client is still there.

use std::{io, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, FromRow, PgConnection, PgPool, Postgres,
    migrate::{MigrateError, Migrator},
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    query::{Query, QueryAs},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

use crate::{observe::Metrics, settings::DatabaseSettings};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A server that has just been told to start may take this long to accept a connection.
const START_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_AGAIN: Duration = Duration::from_millis(50);
/// `client_connection_check_interval` in milliseconds: how soon the server notices that nobody wants a result.
const CLIENT_CHECK: &str = "100";

/// A bounded pool with a bounded queue.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    /// As many as the pool has connections: whoever holds one finds a connection or makes one.
    slots: Arc<Semaphore>,
    /// As many as may wait for a slot.
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// As many requests as may wait are waiting.
    #[error("too many requests wait for a database connection")]
    Full,
    /// It took too long, or the server cannot be reached.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Database {
    /// A pool with the bounds of the settings; connects when first used.
    pub fn new(options: PgConnectOptions, settings: &DatabaseSettings, metrics: Arc<Metrics>) -> Self {
        let statement_timeout = settings.statement_timeout.as_millis().to_string();
        let options = options
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
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .idle_timeout(settings.idle_timeout)
            .acquire_timeout(settings.acquire_timeout)
            .connect_lazy_with(options);
        let slots = Arc::new(Semaphore::new(settings.max_connections as usize));
        let places = Arc::new(Semaphore::new(settings.max_waiting as usize));
        Self { pool, slots, places, metrics }
    }

    /// A connection of the pool, within the acquire timeout; no at once when the queue is full. Dropping the future gives
    /// up the place in the queue.
    ///
    /// # Errors
    /// See [`AcquireError`].
    pub async fn acquire(&self) -> Result<Connection, AcquireError> {
        let bounded = timeout(self.pool.options().get_acquire_timeout(), self.wait());
        self.metrics.acquire(bounded).await.unwrap_or(Err(AcquireError::Database(sqlx::Error::PoolTimedOut)))
    }

    async fn wait(&self) -> Result<Connection, AcquireError> {
        let slot = if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            slot
        } else {
            let Ok(_place) = self.places.try_acquire() else {
                self.metrics.refuse_to_wait();
                return Err(AcquireError::Full);
            };
            Arc::clone(&self.slots).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?
        };
        loop {
            match self.pool.acquire().await {
                // A private server that starts again has no socket for a moment. The driver waits when a connection is
                // refused, not when there is nothing to refuse it.
                Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    sleep(CONNECT_AGAIN).await;
                }
                outcome => {
                    return Ok(Connection {
                        pooled: Some(outcome?),
                        state: State::Clean,
                        metrics: Arc::clone(&self.metrics),
                        _slot: slot,
                    });
                }
            }
        }
    }

    /// For gauges and for closing.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// What a connection that is dropped leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing: back to the pool.
    Clean,
    /// A transaction without an end.
    Transaction,
    /// A statement under way.
    Busy,
}

/// A connection for as long as it is needed. Goes back to the pool when dropped between statements and outside a
/// transaction; otherwise it is closed, which ends the statement and rolls the transaction back.
#[derive(Debug)]
pub struct Connection {
    pooled: Option<PoolConnection<Postgres>>,
    state: State,
    metrics: Arc<Metrics>,
    _slot: OwnedSemaphorePermit,
}

type Rows<'q, T> = QueryAs<'q, Postgres, T, PgArguments>;
type Statement<'q> = Query<'q, Postgres, PgArguments>;

impl Connection {
    /// All rows. `name` is for metrics and the slow-query log, here and below.
    pub async fn all<T>(&mut self, name: &'static str, query: Rows<'_, T>) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let before = std::mem::replace(&mut self.state, State::Busy);
        let result = self.metrics.query(name, query.fetch_all(live(&mut self.pooled))).await;
        self.state = before;
        result
    }

    /// The only row.
    pub async fn one<T>(&mut self, name: &'static str, query: Rows<'_, T>) -> Result<T, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let before = std::mem::replace(&mut self.state, State::Busy);
        let result = self.metrics.query(name, query.fetch_one(live(&mut self.pooled))).await;
        self.state = before;
        result
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
        let before = std::mem::replace(&mut self.state, State::Busy);
        let result = self.metrics.query(name, query.fetch_optional(live(&mut self.pooled))).await;
        self.state = before;
        result
    }

    /// How many rows were written.
    pub async fn execute(&mut self, name: &'static str, query: Statement<'_>) -> Result<u64, sqlx::Error> {
        let before = std::mem::replace(&mut self.state, State::Busy);
        let result = self.metrics.query(name, query.execute(live(&mut self.pooled))).await;
        self.state = before;
        Ok(result?.rows_affected())
    }

    /// Begins a transaction. One that is neither committed nor rolled back costs the connection.
    pub async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.control("begin", "BEGIN", State::Transaction).await
    }

    /// Commits. After an error, or when the future is dropped, nobody knows whether it has happened.
    pub async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.control("commit", "COMMIT", State::Clean).await
    }

    /// Rolls back.
    pub async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        self.control("rollback", "ROLLBACK", State::Clean).await
    }

    async fn control(
        &mut self,
        name: &'static str,
        sql: &'static str,
        then: State,
    ) -> Result<(), sqlx::Error> {
        // Whatever fails here leaves a connection that nobody should have next.
        self.state = State::Busy;
        self.metrics.query(name, live(&mut self.pooled).execute(sql)).await?;
        self.state = then;
        Ok(())
    }
}

fn live(pooled: &mut Option<PoolConnection<Postgres>>) -> &mut PgConnection {
    pooled.as_mut().expect("drop alone takes it out")
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.state != State::Clean
            && let Some(pooled) = self.pooled.take()
        {
            if self.state == State::Busy {
                self.metrics.abandon();
            }
            // Closes the socket without a word: whatever is said could only wait behind the statement.
            drop(pooled.detach());
        }
    }
}

/// A connection without a time limit on statements, for migrations and seeding. Waits a while for a server that starts.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let options = options.clone().application_name("gatehouse-origin-setup").disable_statement_logging();
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match options.connect().await {
            Err(sqlx::Error::Io(_)) if Instant::now() < deadline => {}
            Err(sqlx::Error::Database(error))
                if error.is_transient_in_connect_phase() && Instant::now() < deadline => {}
            outcome => return outcome,
        }
        sleep(CONNECT_AGAIN).await;
    }
}

/// Applies what is pending; several callers at once wait for each other. Answers how many migrations there are.
pub async fn migrate(connection: &mut PgConnection) -> Result<usize, MigrateError> {
    MIGRATIONS.run(connection).await?;
    Ok(MIGRATIONS.iter().count())
}

/// How many migrations of this build the database lacks. A database that is ahead of this build lacks none: migrations go
/// forward only, and keep the build before them working.
pub async fn pending_migrations(connection: &mut PgConnection) -> Result<usize, sqlx::Error> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    let applied = if known { sqlx::query_as(APPLIED).fetch_all(connection).await? } else { Vec::new() };
    Ok(missing(&applied))
}

/// The migrations applied, for [`missing`].
pub(crate) const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success";

/// How many migrations of this build are not among those applied.
pub(crate) fn missing(applied: &[(i64,)]) -> usize {
    MIGRATIONS.iter().filter(|migration| !applied.contains(&(migration.version,))).count()
}

/// Loads `pg_stat_statements` into a private database whose server has it.
pub async fn enable_statement_statistics(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let loaded: bool = sqlx::query_scalar(
        "SELECT current_setting('shared_preload_libraries') LIKE '%pg_stat_statements%'
            AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if loaded {
        let mut transaction = connection.begin().await?;
        // IF NOT EXISTS alone loses a race between two origins that start at the same moment.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('gatehouse extensions'))")
            .execute(&mut *transaction)
            .await?;
        sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}
