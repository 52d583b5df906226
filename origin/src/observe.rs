//! What the origin shows of itself: counters and histograms for Prometheus, and the log of slow queries.
//!
//! What one request spends in the database and waiting for it goes into its `Server-Timing`.
//!
//! Labels come from fixed sets (route patterns, statement names), so their number has a bound. Values of a request never
//! become labels or log fields.

use std::{cell::Cell, sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use sqlx::PgPool;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::{caching::NO_STORE, problem::Problem, server::Shop};

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

type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// All metrics of one origin.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Histograms<RequestLabels>,
    queries: Histograms<QueryLabels>,
    acquire: Histogram,
    slow: Family<QueryLabels, Counter>,
    turned_away: Counter,
    abandoned: Counter,
    purge_delay: Histogram,
    purge_failures: Counter,
    activity_lost: Counter,
    connections: Gauge,
    idle: Gauge,
    resident: Gauge,
    slow_threshold: Duration,
}

impl Metrics {
    /// Metrics of an origin whose queries count as slow from `slow_threshold` on and whose pool has at most
    /// `largest_pool` connections.
    pub fn new(slow_threshold: Duration, largest_pool: u32) -> Self {
        let mut registry = Registry::with_prefix("origin");
        let requests = Histograms::new_with_constructor(histogram as fn() -> Histogram);
        let queries = Histograms::new_with_constructor(histogram as fn() -> Histogram);
        let (acquire, slow) = (histogram(), Family::default());
        let (connections, idle, limit, resident) =
            (Gauge::default(), Gauge::default(), Gauge::<i64>::default(), Gauge::default());
        limit.set(largest_pool.into());
        let (seconds, bytes) = (|| Unit::Seconds, Unit::Bytes);
        registry.register_with_unit(
            "request_duration",
            "Time to the head of a response",
            seconds(),
            requests.clone(),
        );
        registry.register_with_unit("query_duration", "Time of a named query", seconds(), queries.clone());
        registry.register_with_unit(
            "acquire_duration",
            "Waiting for a connection",
            seconds(),
            acquire.clone(),
        );
        registry.register("slow_queries", "Queries that reached the threshold", slow.clone());
        let (turned_away, abandoned) = (Counter::default(), Counter::default());
        registry.register("acquire_refused", "Requests that found the queue full", turned_away.clone());
        registry.register("queries_abandoned", "Queries cancelled because nobody waited", abandoned.clone());
        let (purge_delay, purge_failures, activity_lost) =
            (histogram(), Counter::default(), Counter::default());
        registry.register_with_unit(
            "purge_delay",
            "From a change to an edge's word that it is purged",
            seconds(),
            purge_delay.clone(),
        );
        registry.register(
            "purge_failures",
            "Purges that an edge did not acknowledge",
            purge_failures.clone(),
        );
        registry.register("activity_lost", "Events that found the queue full", activity_lost.clone());
        registry.register("connections", "Open database connections", connections.clone());
        registry.register("connections_idle", "Open database connections not in use", idle.clone());
        registry.register("connections_limit", "The most database connections the pool opens", limit);
        registry.register_with_unit("resident_memory", "Memory in use", bytes, resident.clone());
        Self {
            registry,
            requests,
            queries,
            acquire,
            slow,
            turned_away,
            abandoned,
            purge_delay,
            purge_failures,
            activity_lost,
            connections,
            idle,
            resident,
            slow_threshold,
        }
    }

    /// Runs a named query and records how long it took; a slow one is logged without its parameters.
    pub async fn query<T>(&self, name: &'static str, query: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let result = query.await;
        let elapsed = began.elapsed();
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

    /// Counts a request that found the queue full.
    pub fn refuse_to_wait(&self) {
        self.turned_away.inc();
    }

    /// Counts a query that was cancelled because nobody waited for it any more.
    pub fn abandon(&self) {
        self.abandoned.inc();
    }

    /// Records how long after a change an edge has purged it.
    pub fn purged(&self, delay: Duration) {
        self.purge_delay.observe(delay.as_secs_f64());
    }

    /// Counts a purge that was not acknowledged.
    pub fn purge_failed(&self) {
        self.purge_failures.inc();
    }

    /// Counts events that nobody will read.
    pub fn activity_lost(&self, events: u64) {
        self.activity_lost.inc_by(events);
    }

    fn encode(&self, pool: &PgPool) -> Result<String, std::fmt::Error> {
        self.connections.set(pool.size().into());
        self.idle.set(i64::try_from(pool.num_idle()).unwrap_or(i64::MAX));
        self.resident.set(resident_memory().unwrap_or(0));
        let mut output = String::with_capacity(16 << 10);
        text::encode(&mut output, &self.registry)?;
        Ok(output)
    }
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

tokio::task_local! {
    static SPENT: Spent;
}

/// Where the time of one request went.
#[derive(Debug, Default, Clone)]
struct Spent {
    waiting: Cell<Duration>,
    querying: Cell<Duration>,
}

impl Spent {
    /// Nothing outside a request: workers query too.
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

/// Records every request by its route pattern.
pub async fn record(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span =
        trace_id(request.headers()).map_or_else(Span::none, |id| tracing::info_span!("request", trace = id));
    let (mut response, spent) = SPENT
        .scope(Spent::default(), async {
            let response = next.run(request).await;
            (response, SPENT.with(Clone::clone))
        })
        .instrument(span)
        .await;
    response.headers_mut().insert(SERVER_TIMING, spent.header(began.elapsed()));
    let labels = RequestLabels { method, route, status: response.status().as_u16() };
    metrics.requests.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    response
}

/// `GET /metrics` in the OpenMetrics text format. For direct callers only: what comes through a proxy, and so perhaps from
/// the internet, says so in `Via` (RFC 9110 §7.6.3) and finds nothing here.
pub async fn show(State(shop): State<Shop>, request: Request) -> Response {
    if request.headers().contains_key(header::VIA) {
        return Problem::not_found("no such resource").into_response();
    }
    match shop.metrics.encode(shop.database.pool()) {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, NO_STORE)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            Problem::internal().into_response()
        }
    }
}

/// The trace a request belongs to, by `traceparent` (W3C Trace Context §3.2): what is logged meanwhile carries it. One that is
/// not as it should be is none.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let [version, trace, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let hex = |text: &str, length| {
        text.len() == length
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let given = |text: &str, length| hex(text, length) && text.bytes().any(|byte| byte != b'0');
    // Only version 00 is known to end here.
    let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    (known && given(trace, 32) && given(parent, 16) && hex(flags, 2)).then_some(trace)
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// The resident set in bytes, where the system tells in Linux's way.
fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kibibytes.parse::<i64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_as_it_should_be_or_not_at_all() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (field, taken) in [
            (format!("00-{trace}-00f067aa0ba902b7-01"), true),
            (format!("cc-{trace}-00f067aa0ba902b7-01-later"), true),
            (format!("00-{trace}-00f067aa0ba902b7-01-later"), false),
            (format!("ff-{trace}-00f067aa0ba902b7-01"), false),
            (format!("00-{trace}-0000000000000000-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{trace}"), false),
            (String::new(), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", field.parse().expect("a header value"));
            assert_eq!(trace_id(&headers), taken.then_some(trace), "{field}");
        }
    }
}
