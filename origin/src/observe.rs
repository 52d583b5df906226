//! What the origin shows of itself: counters and histograms for Prometheus, and the log of slow queries.
//!
//! What one request spends in the database and waiting for it goes into its `Server-Timing`, unless it comes through a proxy,
//! and into spans where it is traced.
//!
//! Labels come from fixed sets (route patterns, statement names), so their number has a bound. Values of a request never
//! become labels or log fields.

use std::{borrow::Cow, cell::Cell, hash::Hash, sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, header};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};
use sqlx::PgPool;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::traces::{self, Parent, Tracer};

/// Seconds. The targets of 50 ms a query and 200 ms a response are bounds, so that their share can be read off.
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    query: &'static str,
}

/// `primary`, `replica-1`, `replica-2`…
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

/// `list`, `stock` or `session`; and `hit`, `old`, `shared` or `miss`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemoryLabels {
    kind: &'static str,
    outcome: &'static str,
}

type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub struct Metrics {
    requests: Histograms<RequestLabels>,
    queries: Histograms<QueryLabels>,
    acquire: Histogram,
    slow: Family<QueryLabels, Counter>,
    pub(crate) acquire_refused: Counter,
    pub(crate) queries_abandoned: Counter,
    pub(crate) purge_delay: Histogram,
    pub(crate) purge_failures: Counter,
    pub(crate) activity_lost: Counter,
    pub(crate) password_hashes: Counter,
    spans_lost: Counter,
    memory: Family<MemoryLabels, Counter>,
    pub(crate) memory_failures: Counter,
    pub(crate) memory_full: Counter,
    pub(crate) memory_believed: Gauge,
    connections: Family<PoolLabels, Gauge>,
    idle: Family<PoolLabels, Gauge>,
    limit: Family<PoolLabels, Gauge>,
    lag: Family<PoolLabels, Gauge>,
    trusted: Family<PoolLabels, Gauge>,
    registry: Registry,
    slow_threshold: Duration,
}

impl Metrics {
    /// Metrics of an origin whose queries count as slow from `slow_threshold` on.
    pub fn new(slow_threshold: Duration) -> Self {
        let mut page = Registry::default();
        page.register_collector(Box::new(process_metrics::ProcessMetrics));
        let all = page.sub_registry_with_prefix("origin");
        let delay = "From a change to an edge's word that it is purged";
        let lag = "What a replica has still to replay of the log that the primary had when it was last seen";
        Self {
            requests: seconds(all, "request_duration", "Time to the head of a response", histograms()),
            queries: seconds(all, "query_duration", "Time of a named query", histograms()),
            acquire: seconds(all, "acquire_duration", "Waiting for a connection", histogram()),
            slow: number(all, "slow_queries", "Queries that reached the threshold"),
            acquire_refused: number(all, "acquire_refused", "Requests that found the queue full"),
            queries_abandoned: number(all, "queries_abandoned", "Queries nobody waited for to the end"),
            purge_delay: seconds(all, "purge_delay", delay, histogram()),
            purge_failures: number(all, "purge_failures", "Purges that an edge did not acknowledge"),
            activity_lost: number(all, "activity_lost", "Events that found the queue full"),
            password_hashes: number(all, "password_hashes", "Passwords hashed, to keep or to compare"),
            spans_lost: number(all, "spans_lost", "Spans that the collector has not taken"),
            memory: number(all, "memory_questions", "What Redis was asked for, and whether it was there"),
            memory_failures: number(all, "memory_failures", "Questions to Redis without an answer in time"),
            memory_full: number(all, "memory_full", "What Redis had no room for"),
            memory_believed: number(
                all,
                "memory_believed",
                "1: Redis is read from. 0: away, behind, or none",
            ),
            connections: number(all, "connections", "Open database connections"),
            idle: number(all, "connections_idle", "Open database connections not in use"),
            limit: number(all, "connections_limit", "The most database connections of a pool"),
            lag: bytes(all, "replica_lag", lag),
            trusted: number(all, "replica_trusted", "1: read from. 0: left out, behind or silent"),
            registry: page,
            slow_threshold,
        }
    }

    /// Runs a named query and records how long it took; a slow one is logged without its parameters.
    pub async fn query<T>(
        &self,
        name: &'static str,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let mut span = traced_by().map(|request| request.query(name));
        let began = Instant::now();
        let result = query.await;
        let elapsed = began.elapsed();
        if let (Some(span), Err(error)) = (&mut span, &result) {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            span.failed(code.map_or_else(|| "connection".to_owned(), Cow::into_owned));
        }
        drop(span);
        Spent::add(|spent| &spent.querying, elapsed);
        let labels = QueryLabels { query: name };
        self.queries.get_or_create(&labels).observe(elapsed.as_secs_f64());
        if elapsed >= self.slow_threshold {
            self.slow.get_or_create(&labels).inc();
            tracing::warn!(query = name, milliseconds = elapsed.as_millis(), "slow query");
        }
        result
    }

    /// Runs what waits for a connection, and records how long.
    pub async fn acquire<T>(&self, acquire: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let result = acquire.await;
        let elapsed = began.elapsed();
        Spent::add(|spent| &spent.waiting, elapsed);
        self.acquire.observe(elapsed.as_secs_f64());
        result
    }

    pub(crate) fn remembered(&self, kind: &'static str, outcome: &'static str) {
        self.memory.get_or_create(&MemoryLabels { kind, outcome }).inc();
    }

    /// For [`Tracer::new`].
    pub fn spans_lost(&self) -> Counter {
        self.spans_lost.clone()
    }

    /// All of it as text, with the `pools` by their names, and of each replica the bytes it is behind and whether it is trusted.
    pub(crate) fn encode<'a>(
        &self,
        pools: impl Iterator<Item = (String, &'a PgPool)>,
        replicas: impl Iterator<Item = (String, u64, bool)>,
    ) -> Result<String, std::fmt::Error> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (name, pool) in pools {
            let labels = PoolLabels { pool: name };
            self.connections.get_or_create(&labels).set(pool.size().into());
            self.idle.get_or_create(&labels).set(signed(pool.num_idle() as u64));
            self.limit.get_or_create(&labels).set(pool.options().get_max_connections().into());
        }
        for (name, lag, trusted) in replicas {
            let labels = PoolLabels { pool: name };
            self.lag.get_or_create(&labels).set(signed(lag));
            self.trusted.get_or_create(&labels).set(trusted.into());
        }
        let mut output = String::with_capacity(16 << 10);
        text::encode(&mut output, &self.registry)?;
        Ok(output)
    }
}

/// Whatever else a client makes up is one label.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

tokio::task_local! {
    static SPENT: Spent;
}

/// Where the time of one request went.
#[derive(Debug, Default, Clone)]
struct Spent {
    waiting: Cell<Duration>,
    querying: Cell<Duration>,
    traced_by: Option<Parent>,
}

/// The sampled span of the request under way.
pub(crate) fn traced_by() -> Option<Parent> {
    SPENT.try_with(|spent| spent.traced_by.clone()).ok().flatten()
}

impl Spent {
    /// Does nothing outside a request: workers run queries, too.
    fn add(part: impl Fn(&Self) -> &Cell<Duration>, elapsed: Duration) {
        let _ = SPENT.try_with(|spent| part(spent).set(part(spent).get() + elapsed));
    }

    fn header(&self, total: Duration) -> HeaderValue {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let text = format!(
            "wait;dur={:.2}, db;dur={:.2}, total;dur={:.2}",
            milliseconds(self.waiting.get()),
            milliseconds(self.querying.get()),
            milliseconds(total)
        );
        HeaderValue::from_str(&text).expect("numbers and names are printable ASCII")
    }
}

/// Records every request by its route pattern. What is logged meanwhile carries its trace.
pub async fn record(
    State((metrics, tracer)): State<(Arc<Metrics>, Tracer)>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = METHODS.into_iter().find(|method| *method == request.method().as_str());
    // Caches would keep it and tell strangers how busy the database was (RFC 9110 §7.6.3: a proxy names itself in Via).
    let direct = !request.headers().contains_key(header::VIA);
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let parent = traces::parent(request.headers());
    let mut traced = tracer.request(&request, method, route.as_deref(), parent.as_ref());
    let trace = traced.as_ref().map(traces::Span::trace_id).or(parent.map(|parent| parent.trace_id()));
    let logged = trace.map_or_else(Span::none, |trace| tracing::info_span!("request", %trace));
    let spent = Spent { traced_by: traced.as_ref().and_then(traces::Span::parent), ..Spent::default() };
    let (mut response, spent) = SPENT
        .scope(spent, async {
            let response = next.run(request).await;
            (response, SPENT.with(Clone::clone))
        })
        .instrument(logged)
        .await;
    if direct {
        response.headers_mut().insert(SERVER_TIMING, spent.header(began.elapsed()));
    }
    if let Some(span) = &mut traced {
        span.answered(response.status());
    }
    let (method, route) = (method.unwrap_or("other"), route.unwrap_or_else(|| "none".to_owned()));
    let labels = RequestLabels { method, route, status: response.status().as_u16() };
    metrics.requests.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    response
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

fn histograms<Labels: Clone + Eq + Hash>() -> Histograms<Labels> {
    Family::new_with_constructor(histogram)
}

fn number<M: Metric + Clone + Default>(all: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    all.register(name, help, metric.clone());
    metric
}

fn bytes<M: Metric + Clone + Default>(all: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    all.register_with_unit(name, help, Unit::Bytes, metric.clone());
    metric
}

fn seconds<M: Metric + Clone>(all: &mut Registry, name: &str, help: &str, metric: M) -> M {
    all.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}
