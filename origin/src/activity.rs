//! What customers do, for statistics and for themselves to read. Written behind their backs: a request only puts an event into a
//! bounded queue, and a worker writes batches.
//!
//! May lose events (a full queue is counted, a crash takes a second's worth); what must not be lost goes through the
//! outbox. It must never make a request wait or fail.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use http::HeaderMap;
use serde::Serialize;
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use utoipa::ToSchema;

use crate::{
    newest_first::{Page, Parameters},
    observe::Metrics,
    problem::Problem,
    server::Shop,
    sessions,
};

/// Events in memory at most, a few hundred bytes each.
const QUEUE: usize = 8_192;
const BATCH: usize = 1_000;
/// An event is in the database this long after it happened, or sooner.
const GATHER: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(1);

/// The user of a view is looked up here and not by the request: it answers the same to everybody.
pub(crate) const INSERT: &str = "
    INSERT INTO activity_logs (timestamp, user_id, action, subject)
    SELECT clock_timestamp() - make_interval(secs => e.age), coalesce(e.user_id, s.user_id), e.action, e.subject
      FROM UNNEST($1::double precision[], $2::bigint[], $3::bytea[], $4::text[], $5::text[])
           AS e (age, user_id, token_hash, action, subject)
      LEFT JOIN sessions s ON s.token_hash = e.token_hash AND s.expires_at > now()";

pub(crate) const BY_USER: &str = "
    SELECT id, timestamp, action, subject
      FROM activity_logs
     WHERE user_id = $1 AND (timestamp, id) < ($2, $3)
     ORDER BY timestamp DESC, id DESC
     LIMIT $4";

/// Something that has happened.
#[derive(Debug)]
pub(crate) struct Event {
    at: Instant,
    action: &'static str,
    user: Option<i64>,
    session: Option<Vec<u8>>,
    subject: Option<String>,
}

impl Event {
    /// It has happened now.
    pub(crate) fn new(action: &'static str) -> Self {
        Self { at: Instant::now(), action, user: None, session: None, subject: None }
    }

    pub(crate) fn by(self, user: i64) -> Self {
        Self { user: Some(user), ..self }
    }

    /// By whoever has this request's session, if anybody.
    pub(crate) fn by_session_of(self, headers: &HeaderMap) -> Self {
        Self { session: sessions::token(headers).map(sessions::digest), ..self }
    }

    pub(crate) fn about(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }
}

/// Where events go in.
#[derive(Debug, Clone)]
pub struct ActivityLog {
    queue: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
}

impl ActivityLog {
    /// The two ends of the queue.
    pub fn new(metrics: Arc<Metrics>) -> (Self, Writer) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Self { queue, metrics: Arc::clone(&metrics) }, Writer { events, metrics })
    }

    /// Never waits: an event without a place is counted and gone.
    pub(crate) fn record(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.metrics.activity_lost(1);
        }
    }
}

/// Where they come out.
#[derive(Debug)]
pub struct Writer {
    events: mpsc::Receiver<Event>,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// Writes until `stop` says so, and then what is left.
    pub async fn run(mut self, pool: PgPool, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                taken = self.events.recv_many(&mut batch, BATCH) => if taken == 0 { return },
                _ = stop.changed() => break,
            }
            // Many at once are as cheap as one.
            let gather =
                async { while self.events.recv_many(&mut batch, BATCH).await > 0 && batch.len() < BATCH {} };
            tokio::select! {
                _ = timeout(GATHER, gather) => {}
                _ = stop.changed() => {}
            }
            while let Err(error) = write(&pool, &batch).await {
                tracing::warn!(%error, waiting = batch.len(), "the activity log cannot be written");
                if *stop.borrow() {
                    self.metrics.activity_lost(batch.len() as u64);
                    return;
                }
                // Meanwhile the queue fills up, and then loses: its bound is what keeps an outage out of the memory.
                sleep(PAUSE).await;
            }
            batch.clear();
            if *stop.borrow() {
                break;
            }
        }
        self.events.close();
        while self.events.recv_many(&mut batch, BATCH).await > 0 {
            if let Err(error) = write(&pool, &batch).await {
                tracing::warn!(%error, "the last of the activity log is lost");
                self.metrics.activity_lost(batch.len() as u64);
            }
            batch.clear();
        }
    }
}

async fn write(pool: &PgPool, batch: &[Event]) -> Result<(), sqlx::Error> {
    let column = |of: fn(&Event) -> Option<String>| batch.iter().map(of).collect::<Vec<_>>();
    sqlx::query(INSERT)
        .bind(batch.iter().map(|event| event.at.elapsed().as_secs_f64()).collect::<Vec<_>>())
        .bind(batch.iter().map(|event| event.user).collect::<Vec<_>>())
        .bind(batch.iter().map(|event| event.session.clone()).collect::<Vec<_>>())
        .bind(column(|event| Some(event.action.to_owned())))
        .bind(column(|event| event.subject.clone()))
        .execute(pool)
        .await
        .map(drop)
}

/// An event as its owner reads it.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct Entry {
    id: i64,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    timestamp: OffsetDateTime,
    action: String,
    subject: Option<String>,
}

/// A page of one's activity.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entries {
    activity: Vec<Entry>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// `GET /api/activity?limit=&cursor=`: one's own, newest first.
#[utoipa::path(
    get,
    path = "/activity",
    tag = "account",
    params(Parameters),
    responses((status = 200, description = "OK", body = Entries))
)]
pub(crate) async fn list(
    State(shop): State<Shop>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Entries>, Problem> {
    let page = Page::check(parameters)?;
    let mut connection = shop.reads.acquire(&headers).await?;
    let user = sessions::user(&mut connection, &headers).await?;
    let (time, id) = page.after;
    let query = sqlx::query_as::<_, Entry>(BY_USER).bind(user.id).bind(time).bind(id).bind(page.rows());
    let mut activity = connection.all("activity.list", query).await?;
    let next_cursor = page.cut(&mut activity, |entry| (entry.timestamp, entry.id));
    Ok(Json(Entries { activity, next_cursor }))
}
