//! Counts and durations for Prometheus.
//!
//! Owns every number that `/metrics` shows. Promises: counting on the request path is a few relaxed atomic additions, on
//! handles that were resolved when the settings were loaded; names follow Prometheus' conventions; series are bounded, for
//! labels come from the settings and from fixed vocabularies, never from a request. Never decides anything.
//!
//! Numbers that other modules keep (cache, commands, log) are read at a scrape: see [`Observed`].

mod classic;
mod scrape;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use parking_lot::{Mutex, RwLock};
use prometheus_client::{encoding::text, registry::Registry};

use crate::observe::verdict::Verdict;

/// All numbers of one edge. They live as long as the process: a reload resets none.
pub struct Metrics {
    registry: Registry,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    routes: ByName<RouteMetrics>,
    unrouted: RouteMetrics,
    upstreams: ByName<UpstreamMetrics>,
    tiers: ByName<TierMetrics>,
    limited: ByName<AtomicU64>,
    /// By limits that only try.
    would_have_limited: ByName<AtomicU64>,
    clear: Arc<ConnectionMetrics>,
    tls: Arc<ConnectionMetrics>,
    handshakes_failed: AtomicU64,
    not_introduced: Mutex<BTreeMap<&'static str, u64>>,
    cut_off: Mutex<BTreeMap<&'static str, u64>>,
    /// Those in use by the file they come from, and when they end.
    certificates: Mutex<BTreeMap<String, i64>>,
    /// By name: those that were made, and attempts that failed.
    certificate_orders: Mutex<BTreeMap<Box<str>, [u64; 2]>>,
    reloads_applied: AtomicU64,
    reloads_refused: AtomicU64,
    /// What the settings' file says is not what is in force.
    refused_last: AtomicBool,
    observe: OnceLock<Observe>,
}

type ByName<T> = RwLock<BTreeMap<Arc<str>, Arc<T>>>;
type Observe = Box<dyn Fn() -> Observed + Send + Sync>;

/// Numbers that other modules keep, read at each scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub cache: CacheObserved,
    /// Every command of the settings.
    pub commands: Vec<CommandObserved>,
    /// Lines of the access log dropped since the start.
    pub log_lines_dropped: u64,
    /// Lines of the edge's own log, and of its commands' output, dropped since the start.
    pub own_log_lines_dropped: u64,
    pub on_demand: OnDemandObserved,
}

/// Certificates for names that clients ask for, at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDemandObserved {
    pub held: usize,
    /// In seconds since 1970.
    pub first_ends: Option<u64>,
    /// How often there was none to be had, by why.
    pub denied: Vec<(&'static str, u64)>,
}

/// The memory tier at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheObserved {
    /// Bytes stored.
    pub bytes: u64,
    /// Bytes that may be stored.
    pub budget: u64,
    /// Bytes being filled, or still being sent after eviction: beside `bytes`, at most three eighths of the budget.
    pub in_flight: u64,
    /// Resources stored.
    pub entries: u64,
    /// Resources evicted by others since the start.
    pub evictions: u64,
}

/// One command at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandObserved {
    pub name: Arc<str>,
    /// Instances the settings ask for.
    pub wanted: usize,
    /// Instances that are ready.
    pub ready: usize,
    /// Restarts since the start.
    pub restarts: u64,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// HTTP in clear text.
    Clear,
    /// TLS.
    Tls,
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The new settings are in force.
    Applied,
    /// The old ones stay.
    Refused,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let counts = Arc::<Counts>::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape::Scrape(Arc::clone(&counts))));
        registry.register_collector(Box::new(process_metrics::ProcessMetrics));
        Self { registry, counts }
    }

    /// Sets the source of the numbers that other modules keep. Only the first call counts: sources live as long as the
    /// process.
    pub fn observe_with(&self, observe: impl Fn() -> Observed + Send + Sync + 'static) {
        let _ = self.counts.observe.set(Box::new(observe));
    }

    /// The handle of a route, to be kept with it.
    #[must_use]
    pub fn for_route(&self, name: &Arc<str>) -> Arc<RouteMetrics> {
        named(&self.counts.routes, name)
    }

    /// The handle of an upstream, to be kept with it.
    #[must_use]
    pub fn for_upstream(&self, name: &Arc<str>) -> Arc<UpstreamMetrics> {
        named(&self.counts.upstreams, name)
    }

    /// The handle of a tier behind the cache's memory, to be kept with it.
    #[must_use]
    pub fn for_tier(&self, name: &str) -> Arc<TierMetrics> {
        named(&self.counts.tiers, &name.into())
    }

    /// The handle of all listeners of a kind, to be kept with each.
    #[must_use]
    pub fn for_listener(&self, kind: ListenerKind) -> Arc<ConnectionMetrics> {
        Arc::clone(match kind {
            ListenerKind::Clear => &self.counts.clear,
            ListenerKind::Tls => &self.counts.tls,
        })
    }

    /// Counts a response without a route: `bytes` of body were sent. Its series has the route [`UNROUTED`].
    pub fn unrouted(&self, status: StatusCode, bytes: u64) {
        self.counts.unrouted.count(status, Verdict::Refused, bytes);
    }

    /// Counts the reason why a response was no plain hit, in the word used in Cache-Status and the log; `route` is
    /// `None` for a response without a route.
    pub fn reasoned(&self, route: Option<&RouteMetrics>, reason: &'static str) {
        let numbers = route.unwrap_or(&self.counts.unrouted);
        *numbers.reasons.lock().entry(reason).or_default() += 1;
    }

    /// Counts a request refused because its client used up the limit of this name.
    pub fn limited(&self, limit: &Arc<str>) {
        named(&self.counts.limited, limit).fetch_add(1, Relaxed);
    }

    /// Counts a request that a limit would have refused, were it not on trial (`dry_run`).
    pub fn would_have_limited(&self, limit: &Arc<str>) {
        named(&self.counts.would_have_limited, limit).fetch_add(1, Relaxed);
    }

    /// Counts a failed TLS handshake.
    pub fn handshake_failed(&self) {
        self.counts.handshakes_failed.fetch_add(1, Relaxed);
    }

    /// Counts a connection that was closed for want of a PROXY header from who may send one, for a reason of one word.
    pub fn not_introduced(&self, reason: &'static str) {
        *self.counts.not_introduced.lock().entry(reason).or_default() += 1;
    }

    /// Counts what was refused or given up because a client took more than its share, for a reason of one word.
    pub fn cut_off(&self, reason: &'static str) {
        *self.counts.cut_off.lock().entry(reason).or_default() += 1;
    }

    /// Remembers which certificates are in use, by the file they come from, and when they end in seconds since 1970: of a chain the
    /// first to end.
    pub fn certificates_in_use(&self, ends: impl IntoIterator<Item = (String, i64)>) {
        let mut first = BTreeMap::new();
        for (file, end) in ends {
            first.entry(file).and_modify(|known: &mut i64| *known = end.min(*known)).or_insert(end);
        }
        *self.counts.certificates.lock() = first;
    }

    /// Counts an attempt to have a certificate for a name made, and whether it came to one.
    pub fn certificate_ordered(&self, name: &str, made: bool) {
        self.counts.certificate_orders.lock().entry(name.into()).or_default()[usize::from(!made)] += 1;
    }

    /// Counts a reload, and remembers what became of the last one.
    pub fn reloaded(&self, outcome: ReloadOutcome) {
        let counter = match outcome {
            ReloadOutcome::Applied => &self.counts.reloads_applied,
            ReloadOutcome::Refused => &self.counts.reloads_refused,
        };
        counter.fetch_add(1, Relaxed);
        self.counts.refused_last.store(outcome == ReloadOutcome::Refused, Relaxed);
    }

    /// Everything, in the OpenMetrics text format ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // The only failure is that of writing, which a String never reports.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// Everything, in the older text format of Prometheus ([`CLASSIC_CONTENT_TYPE`]).
    #[must_use]
    pub fn encode_classic(&self) -> String {
        classic::from_openmetrics(&self.encode())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What [`Metrics::encode_classic`] returns.
pub const CLASSIC_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The `route` of requests that matched none.
pub const UNROUTED: &str = "(none)";

fn named<T: Default>(all: &ByName<T>, name: &Arc<str>) -> Arc<T> {
    if let Some(known) = all.read().get(name) {
        return Arc::clone(known);
    }
    Arc::clone(all.write().entry(Arc::clone(name)).or_default())
}

/// The numbers of one route.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    /// By status class and verdict.
    requests: [[AtomicU64; Verdict::ALL.len()]; CLASSES.len()],
    bytes: AtomicU64,
    duration: Durations,
    reasons: Mutex<BTreeMap<&'static str, u64>>,
}

/// Status classes (RFC 9110 §15), 1xx first.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl RouteMetrics {
    /// Counts a response that has ended, `took` after its request's head; `bytes` of body were sent.
    pub fn observe(&self, status: StatusCode, verdict: Verdict, took: Duration, bytes: u64) {
        self.count(status, verdict, bytes);
        self.duration.observe(took);
    }

    fn count(&self, status: StatusCode, verdict: Verdict, bytes: u64) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.requests[class][verdict as usize].fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

/// The numbers of one upstream.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    /// From the request to the response's head.
    answered: Durations,
    /// By phase and reason. An answer that broke off in its body is counted among the answered too.
    failed: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// The servers by address: as many as the settings and the commands' instances are.
    servers: Mutex<BTreeMap<Arc<str>, ServerState>>,
    retried: AtomicU64,
    hedged: AtomicU64,
    continued: Mutex<BTreeMap<&'static str, u64>>,
}

/// How one server of an upstream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    Up,
    /// Put aside or down, for it failed.
    Aside,
}

impl UpstreamMetrics {
    /// Sets how a server stands.
    pub fn server(&self, address: &Arc<str>, state: ServerState) {
        self.servers.lock().insert(Arc::clone(address), state);
    }

    /// Shows a server no longer.
    pub fn forget_server(&self, address: &Arc<str>) {
        self.servers.lock().remove(address);
    }

    /// Counts a request that is sent again to another server.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    /// Counts a request that is asked of a second server because the first is late.
    pub fn hedged(&self) {
        self.hedged.fetch_add(1, Relaxed);
    }

    /// Counts a response whose head arrived `took` after the request was sent.
    pub fn answered(&self, took: Duration) {
        self.answered.observe(took);
    }

    /// Counts a request that failed in this phase, for a reason of one word.
    pub fn failed(&self, phase: &'static str, reason: &'static str) {
        *self.failed.lock().entry((phase, reason)).or_default() += 1;
    }

    /// Counts an attempt to fetch the rest of a body that broke off; `outcome` is one word.
    pub fn continued(&self, outcome: &'static str) {
        *self.continued.lock().entry(outcome).or_default() += 1;
    }
}

/// The numbers of one tier behind the cache's memory.
#[derive(Debug, Default)]
pub struct TierMetrics {
    looked_up: Mutex<BTreeMap<&'static str, u64>>,
    purged: Mutex<BTreeMap<&'static str, u64>>,
    offered: Mutex<BTreeMap<&'static str, u64>>,
    /// Only of a tier that several edges share.
    shared: OnceLock<SharedTierMetrics>,
}

/// The numbers of a tier that several edges share.
#[derive(Debug, Default)]
pub struct SharedTierMetrics {
    in_touch: AtomicBool,
    lapses: AtomicU64,
    heard: AtomicU64,
    epochs: AtomicU64,
    exchanged: Mutex<BTreeMap<&'static str, u64>>,
}

impl SharedTierMetrics {
    /// Sets whether this edge has a lease; one that has run out is counted.
    pub fn in_touch(&self, is: bool) {
        if self.in_touch.swap(is, Relaxed) && !is {
            self.lapses.fetch_add(1, Relaxed);
        }
    }

    /// Counts purges of other edges.
    pub fn heard(&self, purges: u64) {
        self.heard.fetch_add(purges, Relaxed);
    }

    /// Counts clients whose spending was exchanged with other edges; `outcome` is one word.
    pub fn exchanged(&self, outcome: &'static str, clients: u64) {
        *self.exchanged.lock().entry(outcome).or_default() += clients;
    }

    /// Counts a beginning from which on nothing older is trusted.
    pub fn epoch(&self) {
        self.epochs.fetch_add(1, Relaxed);
    }
}

impl TierMetrics {
    /// Counts a look-up; `outcome` is one word.
    pub fn looked_up(&self, outcome: &'static str) {
        *self.looked_up.lock().entry(outcome).or_default() += 1;
    }

    /// Counts a purge; `outcome` is one word.
    pub fn purged(&self, outcome: &'static str) {
        *self.purged.lock().entry(outcome).or_default() += 1;
    }

    /// Counts an offer; `outcome` is one word.
    pub fn offered(&self, outcome: &'static str) {
        *self.offered.lock().entry(outcome).or_default() += 1;
    }

    /// The numbers of a tier that several edges share; from now on `/metrics` shows them.
    pub fn shared(&self) -> &SharedTierMetrics {
        self.shared.get_or_init(SharedTierMetrics::default)
    }
}

/// The numbers of all listeners of one kind.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    open: AtomicI64,
    accepted: AtomicU64,
    not_accepted: AtomicU64,
}

impl ConnectionMetrics {
    /// Counts an accepted connection; it counts as open until the guard is dropped.
    #[must_use]
    pub fn accepted(self: &Arc<Self>) -> OpenConnection {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// Counts a connection that could not be accepted.
    pub fn not_accepted(&self) {
        self.not_accepted.fetch_add(1, Relaxed);
    }
}

/// A connection that counts as open.
#[derive(Debug)]
pub struct OpenConnection(Arc<ConnectionMetrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A histogram of durations. prometheus-client's own takes a lock for each observation; this takes two additions.
#[derive(Debug, Default)]
struct Durations {
    /// One more than there are bounds: the last is for durations longer than all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// Upper bounds of a histogram's buckets. 200 ms is the target the alert rules use.
const BOUNDS: [Duration; 16] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

impl Durations {
    fn observe(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn name(name: &str) -> Arc<str> {
        name.into()
    }

    fn shows(metrics: &Metrics, line: &str) {
        let page = metrics.encode();
        assert!(page.lines().any(|shown| shown == line), "no {line:?} in\n{page}");
    }

    #[test]
    fn a_request_is_counted_by_route_status_class_and_verdict() {
        let metrics = Metrics::new();
        let pages = metrics.for_route(&name("pages"));
        pages.observe(StatusCode::OK, Verdict::Hit, Duration::from_millis(3), 100);
        pages.observe(StatusCode::OK, Verdict::Hit, Duration::from_secs(90), 23);
        pages.observe(StatusCode::NOT_FOUND, Verdict::Miss, Duration::from_micros(500), 0);
        shows(&metrics, r#"gatehouse_edge_requests_total{route="pages",status="2xx",cache="hit"} 2"#);
        shows(&metrics, r#"gatehouse_edge_requests_total{route="pages",status="4xx",cache="miss"} 1"#);
        shows(&metrics, r#"gatehouse_edge_response_bytes_total{route="pages"} 123"#);
        assert!(!metrics.encode().contains("stale"), "what never happened is not shown");
    }

    #[test]
    fn a_duration_is_in_its_bucket_and_in_all_above() {
        let metrics = Metrics::new();
        let pages = metrics.for_route(&name("pages"));
        for took in [Duration::from_micros(500), Duration::from_millis(200), Duration::from_secs(61)] {
            pages.observe(StatusCode::OK, Verdict::Hit, took, 0);
        }
        let bucket = r#"gatehouse_edge_request_duration_seconds_bucket{le="#;
        shows(&metrics, &format!(r#"{bucket}"0.0005",route="pages"}} 1"#));
        shows(&metrics, &format!(r#"{bucket}"0.1",route="pages"}} 1"#));
        shows(&metrics, &format!(r#"{bucket}"0.2",route="pages"}} 2"#));
        shows(&metrics, &format!(r#"{bucket}"60.0",route="pages"}} 2"#));
        shows(&metrics, &format!(r#"{bucket}"+Inf",route="pages"}} 3"#));
        shows(&metrics, r#"gatehouse_edge_request_duration_seconds_count{route="pages"} 3"#);
        shows(&metrics, r#"gatehouse_edge_request_duration_seconds_sum{route="pages"} 61.2005"#);
    }

    #[test]
    fn a_reload_gets_the_same_handle() {
        let metrics = Metrics::new();
        assert!(Arc::ptr_eq(&metrics.for_route(&name("pages")), &metrics.for_route(&name("pages"))));
    }

    #[test]
    fn requests_without_a_route_are_counted_too() {
        let metrics = Metrics::new();
        metrics.unrouted(StatusCode::BAD_REQUEST, 5);
        shows(&metrics, r#"gatehouse_edge_requests_total{route="(none)",status="4xx",cache="refused"} 1"#);
    }

    #[test]
    fn connections_are_open_until_they_end() {
        let metrics = Metrics::new();
        let tls = metrics.for_listener(ListenerKind::Tls);
        let (one, two) = (tls.accepted(), tls.accepted());
        drop(one);
        tls.not_accepted();
        metrics.handshake_failed();
        shows(&metrics, r#"gatehouse_edge_connections_open{listener="tls"} 1"#);
        shows(&metrics, r#"gatehouse_edge_connections_accepted_total{listener="tls"} 2"#);
        shows(&metrics, r#"gatehouse_edge_accept_failures_total{listener="tls"} 1"#);
        shows(&metrics, r#"gatehouse_edge_connections_open{listener="clear"} 0"#);
        shows(&metrics, "gatehouse_edge_tls_handshakes_failed_total 1");
        drop(two);
        shows(&metrics, r#"gatehouse_edge_connections_open{listener="tls"} 0"#);
    }

    #[test]
    fn a_file_that_was_refused_is_told_until_one_is_applied() {
        let metrics = Metrics::new();
        shows(&metrics, "gatehouse_edge_last_reload_applied 1");
        metrics.reloaded(ReloadOutcome::Refused);
        shows(&metrics, "gatehouse_edge_last_reload_applied 0");
        metrics.reloaded(ReloadOutcome::Refused);
        metrics.reloaded(ReloadOutcome::Applied);
        shows(&metrics, "gatehouse_edge_last_reload_applied 1");
        shows(&metrics, r#"gatehouse_edge_reloads_total{outcome="refused"} 2"#);
        shows(&metrics, r#"gatehouse_edge_reloads_total{outcome="applied"} 1"#);
    }

    #[test]
    fn upstream_requests_are_answers_and_failures() {
        let metrics = Metrics::new();
        let origin = metrics.for_upstream(&name("origin"));
        origin.answered(Duration::from_millis(7));
        origin.failed("first-byte", "upstream-closed");
        origin.failed("first-byte", "upstream-closed");
        shows(&metrics, r#"gatehouse_edge_upstream_requests_total{upstream="origin"} 3"#);
        let failures = r#"gatehouse_edge_upstream_failures_total{upstream="origin",phase="first-byte",reason="upstream-closed"} 2"#;
        shows(&metrics, failures);
        shows(&metrics, r#"gatehouse_edge_upstream_response_duration_seconds_count{upstream="origin"} 1"#);
    }

    #[test]
    fn tiers_are_counted_by_what_came_of_asking_them() {
        let metrics = Metrics::new();
        assert!(!metrics.encode().contains("_tier_"), "what is not there is not shown");
        let disk = metrics.for_tier("disk");
        disk.looked_up("found");
        disk.looked_up("found");
        disk.purged("late");
        shows(&metrics, r#"gatehouse_edge_tier_look_ups_total{tier="disk",outcome="found"} 2"#);
        shows(&metrics, r#"gatehouse_edge_tier_purges_total{tier="disk",outcome="late"} 1"#);
    }

    #[test]
    fn bodies_that_broke_off_are_counted_by_what_became_of_them() {
        let metrics = Metrics::new();
        let origin = metrics.for_upstream(&name("origin"));
        origin.continued("continued");
        origin.continued("refused");
        origin.continued("continued");
        let continued =
            r#"gatehouse_edge_upstream_continuations_total{upstream="origin",outcome="continued"} 2"#;
        shows(&metrics, continued);
        shows(&metrics, &continued.replace("outcome=\"continued\"} 2", "outcome=\"refused\"} 1"));
    }

    #[test]
    fn what_others_count_is_asked_for_at_each_scrape() {
        let metrics = Metrics::new();
        let asked = AtomicU64::new(0);
        metrics.observe_with(move || Observed {
            cache: CacheObserved {
                bytes: asked.fetch_add(1, Relaxed),
                budget: 1000,
                in_flight: 8,
                entries: 5,
                evictions: 6,
            },
            commands: vec![CommandObserved { name: name("origin"), wanted: 3, ready: 2, restarts: 4 }],
            log_lines_dropped: 7,
            own_log_lines_dropped: 9,
            on_demand: OnDemandObserved { held: 10, first_ends: Some(11), denied: vec![("busy", 12)] },
        });
        shows(&metrics, "gatehouse_edge_cache_bytes 0");
        shows(&metrics, "gatehouse_edge_cache_bytes 1");
        shows(&metrics, "gatehouse_edge_cache_budget_bytes 1000");
        shows(&metrics, "gatehouse_edge_cache_in_flight_bytes 8");
        shows(&metrics, "gatehouse_edge_cache_entries 5");
        shows(&metrics, "gatehouse_edge_cache_evictions_total 6");
        shows(&metrics, "gatehouse_edge_log_lines_dropped_total 7");
        shows(&metrics, "gatehouse_edge_own_log_lines_dropped_total 9");
        shows(&metrics, "gatehouse_edge_on_demand_certificates 10");
        shows(&metrics, "gatehouse_edge_on_demand_first_expires_timestamp_seconds 11");
        shows(&metrics, r#"gatehouse_edge_on_demand_denied_total{reason="busy"} 12"#);
        shows(&metrics, r#"gatehouse_edge_command_restarts_total{command="origin"} 4"#);
        shows(&metrics, r#"gatehouse_edge_command_instances{command="origin",state="ready"} 2"#);
        shows(&metrics, r#"gatehouse_edge_command_instances{command="origin",state="wanted"} 3"#);
    }

    #[test]
    fn a_name_cannot_break_the_page() {
        let metrics = Metrics::new();
        metrics.limited(&name("a\"\n} 1\\"));
        shows(&metrics, r#"gatehouse_edge_limited_requests_total{limit="a\"\n} 1\\"} 1"#);
    }

    #[test]
    fn counting_from_many_threads_loses_nothing() {
        let metrics = Metrics::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let pages = metrics.for_route(&name("pages"));
                    for _ in 0..10_000 {
                        pages.observe(StatusCode::OK, Verdict::Hit, Duration::from_millis(1), 1);
                    }
                });
            }
        });
        shows(&metrics, r#"gatehouse_edge_requests_total{route="pages",status="2xx",cache="hit"} 40000"#);
        shows(&metrics, r#"gatehouse_edge_request_duration_seconds_count{route="pages"} 40000"#);
    }

    #[test]
    fn the_page_is_whole_openmetrics() {
        let metrics = Metrics::new();
        let page = metrics.encode();
        assert!(page.ends_with("# EOF\n"), "{page}");
        let memory =
            page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!(memory.parse::<f64>().unwrap() > 100_000.0);
        let mut families: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let all = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), all, "no family stands there twice");
    }
}
