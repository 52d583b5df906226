//! What must be told to the edges, written in the transaction of the change that makes it true.
//!
//! ```text
//!   handler ── INSERT ──▶ outbox ──(NOTIFY, or a poll)──▶ worker ── replicas, common memory, POST /purge ──▶ every edge
//!                          row locked, SKIP LOCKED           all have it: row deleted
//!                                                            otherwise: due again later, without those that have it
//! ```
//! Promises: a committed change is told to every edge at least once, through restarts of either side; one edge that is away
//! delays the others by one timeout of a delivery at most, and is then left alone until its pause is over. Rows that lack the
//! same edges become one, so that an edge that is away for days leaves as many as one that is away for a minute. It must
//! never tell of a change that was rolled back. Any number of origins may work on one outbox.

use std::{
    cmp::min,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection as _, FromRow, PgConnection, PgPool, postgres::PgListener, types::Json};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    caching::Tag,
    common_memory::{self, CommonMemory, UNHEARD},
    database::Connection,
    observe::{self, Metrics},
    outgoing::PostError,
    purge::{Edge, Outdated},
    replicas::Reads,
    traces::{self, Parent, Span, Tracer},
    workers::Shared,
};

/// A row whose notification was lost waits for as long as this at most.
const POLL: Duration = Duration::from_secs(1);
/// Rows of one transaction.
const BATCH: i64 = 200;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

const INSERT: &str = "INSERT INTO outbox (topic, payload) VALUES ('purge', $1)";

pub(crate) const DUE: &str = "
    SELECT id, payload, delivered_to, attempts,
           extract(epoch FROM clock_timestamp() - created_at)::double precision AS age
      FROM outbox
     WHERE due_at <= now() AND topic IN ('purge', 'sessions')
     ORDER BY due_at, id
     LIMIT $1
       FOR UPDATE SKIP LOCKED";

const DELETE: &str = "DELETE FROM outbox WHERE id = ANY($1)";

const POSTPONE: &str = "
    UPDATE outbox
       SET payload = $2, delivered_to = $3, attempts = $4, due_at = clock_timestamp() + make_interval(secs => $5)
     WHERE id = $1";

/// Tried again soon; sessions are not remembered for as long as ten minutes.
const NOT_YET: &str = "
    WITH over AS (DELETE FROM outbox
                   WHERE id = ANY($1) AND topic = 'sessions' AND created_at < now() - interval '15 minutes')
    UPDATE outbox SET due_at = clock_timestamp() + interval '500 milliseconds'
     WHERE id = ANY($1) AND NOT (topic = 'sessions' AND created_at < now() - interval '15 minutes')";

/// Writes into the transaction that these tags are to be purged once it commits.
pub(crate) async fn purge(connection: &mut Connection, tags: &[Tag<'_>]) -> Result<(), sqlx::Error> {
    tell(connection, Outdated::tagged(tags.iter().map(Tag::to_string))).await
}

/// The same for what a sale changes, which happens often: what is stored is only made stale, so that nobody waits for it.
pub(crate) async fn refresh(connection: &mut Connection, tags: &[Tag<'_>]) -> Result<(), sqlx::Error> {
    tell(connection, Outdated::stale(tags.iter().map(Tag::to_string))).await
}

async fn tell(connection: &mut Connection, outdated: Outdated) -> Result<(), sqlx::Error> {
    if outdated.is_empty() {
        return Ok(());
    }
    let cause = observe::traced_by().map(|request| request.header());
    let query = sqlx::query(INSERT).bind(Json(Payload { outdated, cause }));
    connection.execute("outbox.insert", query).await.map(drop)
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Payload {
    #[serde(flatten)]
    outdated: Outdated,
    /// The `traceparent` of the request that has written it, if it is traced; of several, the first's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

#[derive(Debug, FromRow)]
struct Row {
    id: i64,
    payload: Json<Payload>,
    delivered_to: Vec<String>,
    attempts: i32,
    /// Seconds since it was written.
    age: f64,
}

impl Row {
    /// Whether this receiver knows of it.
    fn has(&self, receiver: &str) -> bool {
        self.delivered_to.iter().any(|name| name == receiver)
    }
}

/// Delivers what the outbox holds.
#[derive(Debug)]
pub struct Worker {
    pool: PgPool,
    edges: Vec<Receiver>,
    memory: CommonMemory,
    reads: Reads,
    metrics: Arc<Metrics>,
    tracer: Tracer,
}

/// One edge, or several of which each tells the others.
#[derive(Debug)]
struct Receiver {
    edges: Arc<[Edge]>,
    failures: u32,
    /// After a failure nothing is sent before this.
    pause_ends: Instant,
}

impl Receiver {
    fn new(edges: impl IntoIterator<Item = Edge>) -> Self {
        Self { edges: edges.into_iter().collect(), failures: 0, pause_ends: Instant::now() }
    }

    /// In the outbox and in logs.
    fn name(&self) -> &str {
        if let [edge] = &*self.edges { edge.name() } else { SEVERAL }
    }
}

/// What edges that share are called together.
const SEVERAL: &str = "edges";

impl Worker {
    /// A worker with connections of its own, so that full queues of requests do not hold up purges. It tells each of the
    /// `edges`, or, if they are `one`, the first of them that takes it.
    pub fn new(pool: PgPool, edges: Vec<Edge>, one: bool, shared: &Shared) -> Self {
        let edges = match edges {
            edges if one && !edges.is_empty() => vec![Receiver::new(edges)],
            edges => edges.into_iter().map(|edge| Receiver::new([edge])).collect(),
        };
        let Shared { memory, reads, metrics, tracer, .. } = shared;
        let (memory, reads, metrics) = (memory.clone(), reads.clone(), Arc::clone(metrics));
        Self { pool, edges, memory, reads, metrics, tracer: tracer.clone() }
    }

    /// Works until `stop` says so; a delivery under way ends first.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let wake = Arc::new(Notify::new());
        let mut listening = JoinSet::new();
        listening.spawn(listen(self.pool.clone(), Arc::clone(&wake)));
        let mut announced = false;
        while !*stop.borrow() {
            // Pages made by an earlier release name scripts and pictures that this one does not have.
            announced = announced || self.announce_release().await;
            match self.deliver_due().await {
                // There may be more.
                Ok(BATCH..) => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the outbox cannot be read"),
            }
            tokio::select! {
                () = wake.notified() => {}
                () = sleep(POLL) => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// Purges what came with the program; answers whether that could be written.
    async fn announce_release(&self) -> bool {
        let outdated = Outdated::tagged([Tag::Storefront.to_string()]);
        let query = sqlx::query(INSERT).bind(Json(Payload { outdated, cause: None }));
        (self.edges.is_empty() && !self.memory.is_there()) || query.execute(&self.pool).await.is_ok()
    }

    /// Delivers one batch in one transaction; answers how many rows it has looked at.
    async fn deliver_due(&mut self) -> Result<i64, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let mut rows: Vec<Row> = sqlx::query_as(DUE).bind(BATCH).fetch_all(&mut *transaction).await?;
        // Rows that lack the same edges are merged into the oldest of them.
        rows.sort_by_key(|row| row.id);
        if rows.is_empty() {
            return Ok(0);
        }
        let read = Instant::now();
        // After a purge the edge fetches anew. What it gets then must not come from a replica that lacks the change.
        if let Err(error) = self.reads.replayed(&mut *transaction).await {
            tracing::warn!(%error, "purges wait: nobody knows how far the replicas are");
            return Ok(0);
        }
        // Nor from what the instances remember. Who cannot be told of it believes nothing of it after a while.
        let mut outdated = Outdated::default();
        for row in rows.iter().filter(|row| !row.has(common_memory::NAME)) {
            outdated.add(&row.payload.outdated);
        }
        let forgotten = self.memory.forget(&mut transaction, &outdated).await;
        if !forgotten {
            self.postpone_young(&mut transaction, &mut rows).await?;
        }
        let delivered = self.deliver(&rows).await;
        self.record(&mut transaction, &rows, (&delivered, forgotten), read).await?;
        transaction.commit().await?;
        Ok(i64::try_from(rows.len()).unwrap_or(BATCH))
    }

    /// Leaves out, until they are tried again, changes that other instances may still remember otherwise; and of sessions that
    /// have ended all, until they are forgotten by themselves.
    async fn postpone_young(
        &self,
        transaction: &mut PgConnection,
        rows: &mut Vec<Row>,
    ) -> Result<(), sqlx::Error> {
        let is_young = |row: &Row| {
            let is_session = row.payload.outdated.sessions().next().is_some();
            !row.has(common_memory::NAME) && (is_session || row.age < UNHEARD.as_secs_f64())
        };
        let young: Vec<i64> = rows.iter().filter(|row| is_young(row)).map(|row| row.id).collect();
        rows.retain(|row| !is_young(row));
        sqlx::query(NOT_YET).bind(young).execute(transaction).await.map(drop)
    }

    /// Tells every edge what it lacks, all at once; answers for each whether it has it all now.
    async fn deliver(&mut self, rows: &[Row]) -> Vec<bool> {
        let causes = rows.iter().filter_map(|row| traces::parse(row.payload.cause.as_deref()?, ""));
        let span = self.tracer.work("outbox.deliver", causes);
        let traced = span.as_ref().and_then(Span::parent);
        let mut calls = JoinSet::new();
        let mut delivered = vec![false; self.edges.len()];
        for (index, receiver) in self.edges.iter().enumerate() {
            let mut outdated = Outdated::default();
            for row in rows.iter().filter(|row| !row.has(receiver.name())) {
                outdated.add(&row.payload.outdated);
            }
            if outdated.is_empty() {
                delivered[index] = true;
            } else if receiver.pause_ends <= Instant::now() {
                let (edges, traced) = (Arc::clone(&receiver.edges), traced.clone());
                calls.spawn(async move { (index, tell_one(&edges, &outdated, traced).await) });
            }
        }
        while let Some(called) = calls.join_next().await {
            let Ok((index, outcome)) = called else { continue };
            let receiver = &mut self.edges[index];
            match outcome {
                Ok(()) => {
                    receiver.failures = 0;
                    delivered[index] = true;
                }
                Err(error) => {
                    receiver.failures += 1;
                    receiver.pause_ends = Instant::now() + pause(receiver.failures);
                    self.metrics.purge_failures.inc();
                    if receiver.failures.is_power_of_two() {
                        let (edge, failures) = (receiver.name(), receiver.failures);
                        tracing::warn!(%error, edge, failures, "a purge could not be delivered");
                    }
                }
            }
        }
        delivered
    }

    async fn record(
        &self,
        transaction: &mut PgConnection,
        rows: &[Row],
        (delivered, forgotten): (&[bool], bool),
        read: Instant,
    ) -> Result<(), sqlx::Error> {
        let mut done = Vec::new();
        let mut left: BTreeMap<BTreeSet<&str>, (i64, Payload, i32)> = BTreeMap::new();
        for row in rows {
            let mut have: BTreeSet<&str> = row.delivered_to.iter().map(String::as_str).collect();
            let mut lacking = false;
            for (receiver, delivered) in self.edges.iter().zip(delivered) {
                if row.payload.outdated.is_empty() {
                    // What is nothing to an edge never waits for one.
                } else if !delivered {
                    lacking = true;
                } else if have.insert(receiver.name()) {
                    self.metrics.purge_delay.observe(row.age.max(0.0) + read.elapsed().as_secs_f64());
                }
            }
            if forgotten {
                have.insert(common_memory::NAME);
            } else {
                lacking |= !have.contains(common_memory::NAME);
            }
            if !lacking {
                done.push(row.id);
                continue;
            }
            match left.entry(have) {
                Entry::Vacant(entry) => {
                    entry.insert((row.id, row.payload.0.clone(), row.attempts));
                }
                Entry::Occupied(mut entry) => {
                    let (_, payload, attempts) = entry.get_mut();
                    payload.outdated.add(&row.payload.outdated);
                    // The pause grows with the attempts: a new change must not wait as long as the old ones it is merged with.
                    *attempts = min(*attempts, row.attempts);
                    done.push(row.id);
                }
            }
        }
        for (have, (id, payload, attempts)) in left {
            let attempts = attempts.saturating_add(1);
            sqlx::query(POSTPONE)
                .bind(id)
                .bind(Json(payload))
                .bind(Vec::from_iter(have))
                .bind(attempts)
                .bind(pause(attempts.unsigned_abs()).as_secs_f64())
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query(DELETE).bind(done).execute(transaction).await.map(drop)
    }
}

/// Tells the first that takes it; otherwise says why the last did not.
async fn tell_one(edges: &[Edge], outdated: &Outdated, traced: Option<Parent>) -> Result<(), PostError> {
    let mut outcome = Ok(());
    for edge in edges {
        let mut call = traced.as_ref().map(|delivery| delivery.call("edge.purge", edge.address()));
        outcome = edge.purge(outdated).await;
        match (&mut call, &outcome) {
            (_, Ok(())) => break,
            (Some(call), Err(error)) => call.failed(error.kind()),
            (None, Err(_)) => {}
        }
    }
    outcome
}

/// Turns notifications into wake-ups for as long as it lives.
async fn listen(pool: PgPool, wake: Arc<Notify>) {
    loop {
        // The listener connects again by itself; what it has missed meanwhile, the poll finds.
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen("outbox").await?;
            loop {
                listener.recv().await?;
                wake.notify_one();
            }
        };
        let broken: Result<(), sqlx::Error> = listening.await;
        tracing::debug!(?broken, "listening for the outbox again");
        let _ = timeout(POLL, std::future::pending::<()>()).await;
    }
}

/// Twice as long after each failure, up to a bound. A random part of up to a half is left out, so that those that failed
/// together do not come back together.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << min(failures.saturating_sub(1), 16));
    min(doubled, LONGEST_PAUSE).mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        for (failures, least, most) in
            [(1, 100, 200), (2, 200, 400), (20, 5_000, 10_000), (u32::MAX, 5_000, 10_000)]
        {
            let pause = pause(failures).as_millis();
            assert!((least..=most).contains(&pause), "{failures}: {pause}");
        }
    }
}
