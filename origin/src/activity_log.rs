//! What customers do, for statistics and for themselves to read. No request writes it: it only puts an event into a bounded
//! queue, and a worker writes batches. What is only looked at is not in it: those answers come from caches, and a log of
//! the misses alone would count none of what people do. The edge's access log has every request.
//!
//! Events may be lost: those that find the queue full, which are counted, and the last second's in a crash. What must not be
//! lost goes through the outbox. The log must never make a request wait or fail.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use crate::{batches::gather, numbers::UserId, observe::Metrics};

/// Events in memory at most, a few hundred bytes each.
const QUEUE: usize = 8_192;
const BATCH: usize = 1_000;
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) const INSERT: &str = "
    INSERT INTO activity_logs (timestamp, user_id, action, subject)
    SELECT clock_timestamp() - make_interval(secs => e.age), e.user_id, e.action, e.subject
      FROM UNNEST($1::double precision[], $2::bigint[], $3::text[], $4::text[]) AS e (age, user_id, action, subject)";

#[derive(Debug)]
pub(crate) struct Event {
    at: Instant,
    action: &'static str,
    user: Option<UserId>,
    subject: Option<String>,
}

impl Event {
    pub(crate) fn new(action: &'static str) -> Self {
        Self { at: Instant::now(), action, user: None, subject: None }
    }

    pub(crate) fn by(self, user: UserId) -> Self {
        Self { user: Some(user), ..self }
    }

    pub(crate) fn about(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }
}

/// The end of the queue into which requests put events.
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
            self.metrics.activity_lost.inc();
        }
    }
}

/// The end of the queue from which events are written to the database.
#[derive(Debug)]
pub struct Writer {
    events: mpsc::Receiver<Event>,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// Writes until `stop` says so, and then what is left.
    pub async fn run(mut self, pool: PgPool, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::new();
        while gather(&mut self.events, &mut batch, BATCH, &mut stop).await {
            while let Err(error) = write(&pool, &batch).await {
                tracing::warn!(%error, waiting = batch.len(), "the activity log cannot be written");
                if *stop.borrow() {
                    self.metrics.activity_lost.inc_by(batch.len() as u64);
                    return;
                }
                // Meanwhile the queue fills up and further events are lost: an outage of the database must not fill the
                // memory.
                sleep(PAUSE).await;
            }
            batch.clear();
        }
        self.events.close();
        while self.events.recv_many(&mut batch, BATCH).await > 0 {
            if let Err(error) = write(&pool, &batch).await {
                tracing::warn!(%error, "the last of the activity log is lost");
                self.metrics.activity_lost.inc_by(batch.len() as u64);
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
        .bind(column(|event| Some(event.action.to_owned())))
        .bind(column(|event| event.subject.clone()))
        .execute(pool)
        .await
        .map(drop)
}
