//! The pool of connections, and the schema's migrations.
//!
//! Every statement is prepared and bound by sqlx; none is put together from a request's text. A handler acquires a connection
//! once, and runs its queries by name through [`Database::query`].

use std::{io, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres,
    migrate::{MigrateError, Migrator},
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{observe::Metrics, settings::DatabaseSettings};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A server that has just been told to start may take this long to accept a connection.
const START_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_AGAIN: Duration = Duration::from_millis(50);

/// A bounded pool that gives up in time.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    metrics: Arc<Metrics>,
}

impl Database {
    /// A pool with the bounds of the settings; connects when first used.
    pub fn new(options: PgConnectOptions, settings: &DatabaseSettings, metrics: Arc<Metrics>) -> Self {
        let statement_timeout = settings.statement_timeout.as_millis().to_string();
        let options = options
            .application_name("gatehouse-origin")
            // Compiling a plan takes longer than any of these queries runs.
            .options([("statement_timeout", statement_timeout.as_str()), ("jit", "off")])
            // `Metrics::query` logs slow queries by name; the driver would log their text.
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .idle_timeout(settings.idle_timeout)
            .acquire_timeout(settings.acquire_timeout)
            .connect_lazy_with(options);
        Self { pool, metrics }
    }

    /// A connection of the pool, within the acquire timeout. Dropping the future gives up the place in the queue.
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let acquire = async {
            loop {
                match self.pool.acquire().await {
                    // A private server that starts again has no socket for a moment. The driver waits when a connection is
                    // refused, not when there is nothing to refuse it.
                    Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                        sleep(CONNECT_AGAIN).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        let bounded = timeout(self.pool.options().get_acquire_timeout(), acquire);
        self.metrics.acquire(bounded).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Runs a query under a name for metrics and the slow-query log. Dropping the future does not stop the server's work on
    /// it; `statement_timeout` does.
    pub async fn query<T>(
        &self,
        name: &'static str,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        self.metrics.query(name, query).await
    }

    /// For gauges and for closing.
    pub fn pool(&self) -> &PgPool {
        &self.pool
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
    let applied: Vec<i64> = if known {
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success").fetch_all(connection).await?
    } else {
        Vec::new()
    };
    Ok(MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)).count())
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
