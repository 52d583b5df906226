//! What has to be done now and then: making the activity log's partitions ahead of time, dropping old ones, and deleting
//! sessions and counters that have expired. Any number of origins may do it at once.

use std::time::Duration;

use sqlx::{Connection as _, PgPool};
use tokio::{sync::watch, time::sleep};

const EVERY: Duration = Duration::from_secs(60 * 60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(60);

/// Tidies at once and then every hour, until `stop` says so. Activity of more than `retention_months` before this one goes.
pub async fn run(pool: PgPool, retention_months: u32, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let next = match tidy(&pool, retention_months).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(%error, "housekeeping failed");
                AGAIN
            }
        };
        tokio::select! {
            () = sleep(next) => {}
            _ = stop.changed() => {}
        }
    }
}

pub async fn tidy(pool: &PgPool, retention_months: u32) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // Making and dropping partitions takes an exclusive lock. If it is not free soon, this round fails and is tried again
    // later: while we waited, every reader would queue behind us.
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *transaction).await?;
    sqlx::query(
        "SELECT create_activity_partition((now() AT TIME ZONE 'UTC' + make_interval(months => ahead))::date)
           FROM generate_series(0, 2) AS ahead",
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "SELECT drop_activity_partitions((now() AT TIME ZONE 'UTC' - make_interval(months => $1))::date)",
    )
    .bind(i32::try_from(retention_months).unwrap_or(i32::MAX))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    sqlx::query("DELETE FROM sessions WHERE expires_at < now()").execute(&mut *connection).await?;
    sqlx::query("DELETE FROM sign_in_attempts WHERE ends_at < now()").execute(&mut *connection).await?;
    Ok(())
}
