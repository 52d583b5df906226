//! What has to be done now and then: making the activity log's partitions ahead of time, dropping old ones, and deleting
//! sessions, counters and idempotency keys that have expired. Any number of origins may do it at once.

use std::time::Duration;

use sqlx::{Connection as _, PgPool};
use tokio::{sync::watch, time::timeout};

const EVERY: Duration = Duration::from_secs(60 * 60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(60);

/// Keys of requests that were done are kept for as long as somebody may still ask whether they were; those of refusals, of which
/// anybody can make as many as they like, for as long as a client goes on trying. A part at a time, so that no transaction of
/// ours is long.
const FORGET_KEYS: &str = "
    DELETE FROM idempotency_keys
     WHERE (user_id, key) IN (
           SELECT user_id, key FROM idempotency_keys
            WHERE created_at < now() - interval '7 days'
               OR (created_at < now() - interval '1 hour' AND response_status >= 400)
            LIMIT $1)";
const KEYS_AT_ONCE: i64 = 5_000;

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
        let _ = timeout(next, stop.changed()).await;
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
    loop {
        let forgotten = sqlx::query(FORGET_KEYS).bind(KEYS_AT_ONCE).execute(&mut *connection).await?;
        if forgotten.rows_affected() < KEYS_AT_ONCE.unsigned_abs() {
            break;
        }
    }
    sqlx::query("DELETE FROM password_resets WHERE expires_at < now()").execute(&mut *connection).await?;
    sqlx::query("DELETE FROM sign_in_attempts WHERE greatest(ends_at, known_until) < now()")
        .execute(&mut *connection)
        .await?;
    Ok(())
}
