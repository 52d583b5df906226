//! What goes on beside requests: the outbox, mails, the activity log, housekeeping, the search for the server that takes writes. Each has a stop signal, and connections apart
//! from the requests' pool.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, PgPool, postgres::PgPoolOptions};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    activity_log::Writer,
    common_memory::CommonMemory,
    housekeeping,
    mail::Postman,
    observe::Metrics,
    outbox,
    primary::Servers,
    purge::Edge,
    replicas::Reads,
    settings::Settings,
    traces::{Exporter, Tracer},
};

/// One for the outbox, one that listens for it, one for mails, one for the activity log, one for housekeeping, one that watches
/// replicas, one that looks whether the common memory can be believed.
const CONNECTIONS: u32 = 7;
/// How long they may take to end. After that they are cut off: what they had begun is rolled back, and done after the next
/// start.
const PATIENCE: Duration = Duration::from_secs(5);

/// The workers of one origin. Dropping it stops them where they are.
#[derive(Debug)]
pub struct Workers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// Stopped after the others: it sends what they have left.
    exporting: JoinSet<()>,
    stop_exporting: watch::Sender<bool>,
    pool: PgPool,
}

/// What the workers share with the requests, and take over from them.
#[derive(Debug)]
pub struct Shared {
    pub activity: Writer,
    pub memory: CommonMemory,
    pub reads: Reads,
    pub metrics: Arc<Metrics>,
    pub tracer: Tracer,
    /// Sends the spans of requests too; without a collector there is none.
    pub exporter: Option<Exporter>,
}

impl Workers {
    pub fn start(servers: impl Into<Servers>, settings: &Settings, shared: Shared) -> Self {
        let servers = servers.into();
        let options =
            PgPoolOptions::new().max_connections(CONNECTIONS).idle_timeout(settings.database.idle_timeout);
        let pool = servers.pool(options, |options| {
            options
                .application_name("gatehouse-origin-worker")
                .options([("idle_in_transaction_session_timeout", "60s"), ("jit", "off")])
                .disable_statement_logging()
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let purge = &settings.purge;
        let edges = purge.edges.iter().map(|edge| Edge::new(edge.clone(), purge.token.clone())).collect();
        let outbox = outbox::Worker::new(pool.clone(), edges, purge.one_for_all, &shared);
        let Shared { activity, memory, reads, exporter, .. } = shared;
        tasks.spawn(servers.watch(stopped.clone()));
        tasks.spawn(outbox.run(stopped.clone()));
        match Postman::new(&settings.mail, &settings.data) {
            Ok(postman) => {
                tasks.spawn(postman.run(pool.clone(), stopped.clone()));
            }
            Err(error) => tracing::error!("no mail is sent, because of [mail] in the settings: {error:#}"),
        }
        tasks.spawn(reads.watch(pool.clone(), stopped.clone()));
        tasks.spawn(memory.watch(pool.clone(), stopped.clone()));
        tasks.spawn(activity.run(pool.clone(), stopped.clone()));
        tasks.spawn(housekeeping::run(pool.clone(), settings.activity.retention_months, stopped));
        let (stop_exporting, exporting_stopped) = watch::channel(false);
        let mut exporting = JoinSet::new();
        if let Some(exporter) = exporter {
            exporting.spawn(exporter.run(exporting_stopped));
        }
        Self { tasks, stop, exporting, stop_exporting, pool }
    }

    /// Tells them to stop, and waits for what they have begun, up to `PATIENCE`; the exporter of traces ends after the others.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(PATIENCE, ended).await.is_err() {
            tracing::warn!("a worker did not end in time and is cut off");
        }
        self.tasks.shutdown().await;
        let _ = self.stop_exporting.send(true);
        while self.exporting.join_next().await.is_some() {}
        self.pool.close().await;
    }
}
