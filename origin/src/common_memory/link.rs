//! The way to Redis: one connection, shared by all requests.
//!
//! ```text
//!   none ── tend: connected, a primary, quick to answer ──▶ open ── a failure of the connection, three in a row,
//!     ▲                                                      │       or another process at the other end
//!     └──────────────────────────────────────────────────────┘
//! ```
//! Promises: a request never waits for a connection to be made, and for an answer no longer than the settings say; without a
//! connection it does not wait at all. It must never ask twice.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, InfoDict, IntoConnectionInfo as _, RedisError,
    RedisResult, TlsCertificates,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::time::timeout;

use crate::{
    observe::Metrics,
    settings::{RedisSettings, RedisUrl},
};

/// The client of a server that one of these authorities vouches for.
fn client(url: &RedisUrl, ca: Option<&Path>) -> RedisResult<Client> {
    let info = url.reveal().into_connection_info()?;
    let Some(file) = ca else { return Client::open(info) };
    let unfit = |what, why: String| RedisError::from((ErrorKind::InvalidClientConfig, what, why));
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Err(unfit(
            "nobody is asked for a certificate",
            "`ca` goes with a URL that begins with rediss://".to_owned(),
        ));
    }
    let read = std::fs::read(file)
        .map_err(|error| unfit("`ca` cannot be read", format!("{}: {error}", file.display())))?;
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(read) })
}

/// An open connection.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) connection: MultiplexedConnection,
    prefix: Arc<str>,
}

impl Line {
    /// The key of a thing of this kind. It holds the name of the server's process: one that has been restarted, or has taken over,
    /// may have lost what was forgotten, and so what was kept before is not found in it.
    pub(super) fn key(&self, kind: &str, name: &str) -> String {
        format!("{}:{kind}:{name}", self.prefix)
    }
}

pub(super) struct Link {
    client: Client,
    namespace: String,
    patience: Duration,
    line: Mutex<Option<Line>>,
    /// In a row.
    failures: AtomicU32,
    /// Why there was no connection, as the operator was told last; empty since there has been one.
    told: Mutex<String>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(url: &RedisUrl, settings: &RedisSettings, metrics: Arc<Metrics>) -> RedisResult<Self> {
        Ok(Self {
            client: client(url, settings.ca.as_deref())?,
            namespace: settings.namespace.clone(),
            patience: settings.timeout,
            line: Mutex::new(None),
            failures: AtomicU32::new(0),
            told: Mutex::default(),
            metrics,
        })
    }

    /// What Redis answers; `None` if not in time, or not what was asked for.
    pub(super) async fn ask<T, A>(&self, question: impl FnOnce(Line) -> A) -> Option<T>
    where
        A: Future<Output = RedisResult<T>>,
    {
        self.ask_for(self.patience, question).await
    }

    /// The same with more patience.
    pub(super) async fn ask_for<T, A>(
        &self,
        patience: Duration,
        question: impl FnOnce(Line) -> A,
    ) -> Option<T>
    where
        A: Future<Output = RedisResult<T>>,
    {
        let line = self.line.lock().clone()?;
        let asked = Arc::clone(&line.prefix);
        match timeout(patience, question(line)).await {
            Ok(Ok(answer)) => {
                self.failures.store(0, Ordering::Relaxed);
                return Some(answer);
            }
            // It has answered, and has no room.
            Ok(Err(error)) if error.code() == Some("OOM") => self.metrics.memory_full.inc(),
            Ok(Err(error)) if error.is_unrecoverable_error() => self.hang_up(&asked, &error.to_string()),
            Ok(Err(error)) => self.fail(&asked, &error.to_string()),
            Err(_) => self.fail(&asked, "no answer in time"),
        };
        None
    }

    fn fail(&self, asked: &Arc<str>, why: &str) -> u64 {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_FAILURES {
            self.hang_up(asked, why);
        }
        self.metrics.memory_failures.inc()
    }

    /// Leaves the connection that was asked, if it is still the one.
    fn hang_up(&self, asked: &Arc<str>, why: &str) -> u64 {
        let mut line = self.line.lock();
        if line.as_ref().is_some_and(|line| Arc::ptr_eq(&line.prefix, asked)) {
            *line = None;
            tracing::warn!(why, "redis is left alone: what it would have answered is asked of the database");
        }
        self.metrics.memory_failures.inc()
    }

    /// Makes sure that there is a connection to a server that takes writes and answers in time; whether there is.
    pub(super) async fn tend(&self) -> bool {
        let open = self.line.lock().clone();
        if let Some(Line { mut connection, prefix }) = open {
            match self.look(&mut connection).await {
                Ok(same) if *same == *prefix => return true,
                Ok(_) => self.hang_up(&prefix, "another server has taken over"),
                Err(why) => self.hang_up(&prefix, &why),
            };
        }
        match self.connect().await {
            Ok(line) => {
                self.failures.store(0, Ordering::Relaxed);
                *self.line.lock() = Some(line);
                self.told.lock().clear();
                tracing::info!("redis answers: sessions, lists and stock are read from it");
                true
            }
            Err(why) => {
                let mut told = self.told.lock();
                if *told != why {
                    tracing::warn!(
                        why,
                        "redis cannot be used: what it would have answered is asked of the database"
                    );
                    *told = why;
                }
                false
            }
        }
    }

    async fn connect(&self) -> Result<Line, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| error.to_string())?;
        let prefix = self.look(&mut connection).await?.into();
        Ok(Line { connection, prefix })
    }

    /// What keys begin with on this server, if it will do.
    async fn look(&self, connection: &mut impl ConnectionLike) -> Result<String, String> {
        let info = redis::cmd("INFO");
        let asked = timeout(self.patience, info.query_async::<InfoDict>(connection)).await;
        let told = asked.map_err(|_| "it is slow".to_owned())?.map_err(|error| error.to_string())?;
        if told.get::<String>("role").is_some_and(|role| role != "master") {
            return Err("it is a replica: name the server that takes writes".to_owned());
        }
        let run = told.get::<String>("run_id").ok_or("it does not say its run_id")?;
        Ok(format!("gatehouse-origin:{}:{FORMAT}:{}", self.namespace, run.get(..12).unwrap_or(&run)))
    }
}

/// Raised with every change of what values hold.
const FORMAT: u32 = 1;
const CONNECT: Duration = Duration::from_secs(1);
const MOST_FAILURES: u32 = 3;
