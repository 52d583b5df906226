//! What `/metrics` shows, written down at each scrape.
//!
//! Owns the names and the help texts of all series, and nothing that lasts between two scrapes.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{
    BOUNDS, CLASSES, Counts, Durations, Observed, OnDemandObserved, ServerState, TierMetrics, UNROUTED,
};
use crate::observe::verdict::Verdict;

static BYTES: Unit = Unit::Bytes;
static SECONDS: Unit = Unit::Seconds;

/// Everything that is counted.
pub(super) struct Scrape(pub(super) Arc<Counts>);

impl fmt::Debug for Scrape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.routes(&mut page)?;
        self.connections(&mut page)?;
        self.upstreams(&mut page)?;
        self.tiers(&mut page)?;
        if let Some(observe) = self.0.observe.get() {
            observed(&mut page, &observe())?;
        }
        page.family("gatehouse_edge_build", "The program that runs", None, MetricType::Info)?
            .0
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

impl Scrape {
    fn routes(&self, page: &mut Page<'_>) -> fmt::Result {
        let named = self.0.routes.read();
        let routes = || named.iter().map(|(name, numbers)| (&**name, &**numbers));
        let all = || routes().chain([(UNROUTED, &self.0.unrouted)]);
        let mut requests = page
            .counter("gatehouse_edge_requests", "Responses by route, status class and part of the cache")?;
        for (route, numbers) in all() {
            for (class, by_verdict) in CLASSES.iter().zip(&numbers.requests) {
                for (verdict, count) in Verdict::ALL.iter().zip(by_verdict) {
                    let count = count.load(Relaxed);
                    // Most pairs never occur on a route: their zeros would be nine tenths of the page.
                    if count > 0 {
                        requests.with(
                            &[("route", route), ("status", class), ("cache", verdict.as_str())],
                            count,
                        )?;
                    }
                }
            }
        }
        let mut reasons = page.counter(
            "gatehouse_edge_reasons",
            "Responses that were no plain hits, by why: the detail of Cache-Status, logs and edge explain",
        )?;
        for (route, numbers) in all() {
            for (reason, count) in &*numbers.reasons.lock() {
                reasons.with(&[("route", route), ("reason", reason)], *count)?;
            }
        }
        let mut bytes = page.family(
            "gatehouse_edge_response",
            "Bytes of response bodies sent to clients",
            Some(&BYTES),
            MetricType::Counter,
        )?;
        for (route, numbers) in all() {
            bytes.with(&[("route", route)], numbers.bytes.load(Relaxed))?;
        }
        let mut durations = page.family(
            "gatehouse_edge_request_duration",
            "From a request's head to the end of its response",
            Some(&SECONDS),
            MetricType::Histogram,
        )?;
        for (route, numbers) in routes() {
            histogram(&numbers.duration, durations.0.encode_family(&[("route", route)])?)?;
        }
        let mut limited = page.counter("gatehouse_edge_limited_requests", "Requests refused by a limit")?;
        for (limit, count) in &*self.0.limited.read() {
            limited.with(&[("limit", &**limit)], count.load(Relaxed))?;
        }
        let mut trial = page.counter(
            "gatehouse_edge_limit_dry_runs",
            "Requests that a limit with dry_run would have refused",
        )?;
        for (limit, count) in &*self.0.would_have_limited.read() {
            trial.with(&[("limit", &**limit)], count.load(Relaxed))?;
        }
        Ok(())
    }

    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let kinds = [("clear", &self.0.clear), ("tls", &self.0.tls)];
        let mut open = page.family(
            "gatehouse_edge_connections_open",
            "Client connections now open",
            None,
            MetricType::Gauge,
        )?;
        for (kind, numbers) in kinds {
            open.0.encode_family(&[("listener", kind)])?.encode_gauge(&numbers.open.load(Relaxed))?;
        }
        let mut accepted =
            page.counter("gatehouse_edge_connections_accepted", "Client connections accepted")?;
        for (kind, numbers) in kinds {
            accepted.with(&[("listener", kind)], numbers.accepted.load(Relaxed))?;
        }
        let mut failed = page.counter(
            "gatehouse_edge_accept_failures",
            "Client connections that could not be accepted: file descriptors or memory were lacking, or they were gone",
        )?;
        for (kind, numbers) in kinds {
            failed.with(&[("listener", kind)], numbers.not_accepted.load(Relaxed))?;
        }
        page.counter("gatehouse_edge_tls_handshakes_failed", "TLS handshakes that came to nothing")?
            .count(self.0.handshakes_failed.load(Relaxed))?;
        let mut not_introduced = page.counter(
            "gatehouse_edge_proxy_headers_refused",
            "Connections closed for want of a PROXY header from who may send one",
        )?;
        for (reason, count) in &*self.0.not_introduced.lock() {
            not_introduced.with(&[("reason", *reason)], *count)?;
        }
        let mut cut_off = page.counter(
            "gatehouse_edge_cut_off",
            "Connections and answers refused or given up because a client took more than its share, by why",
        )?;
        for (reason, count) in &*self.0.cut_off.lock() {
            cut_off.with(&[("reason", *reason)], *count)?;
        }
        let mut expires = page.family(
            "gatehouse_edge_certificate_expires_timestamp",
            "When a certificate in use ends, since 1970",
            Some(&SECONDS),
            MetricType::Gauge,
        )?;
        for (path, until) in &*self.0.certificates.lock() {
            expires.0.encode_family(&[("certificate", path.as_str())])?.encode_gauge(until)?;
        }
        let mut orders = page.counter(
            "gatehouse_edge_certificate_orders",
            "Attempts to have a certificate made by an authority, by the name and what became of them",
        )?;
        for (name, [made, failed]) in &*self.0.certificate_orders.lock() {
            orders.with(&[("name", &**name), ("outcome", "made")], *made)?;
            orders.with(&[("name", &**name), ("outcome", "failed")], *failed)?;
        }
        let mut reloads =
            page.counter("gatehouse_edge_reloads", "Reloads of the settings by what became of them")?;
        reloads.with(&[("outcome", "applied")], self.0.reloads_applied.load(Relaxed))?;
        reloads.with(&[("outcome", "refused")], self.0.reloads_refused.load(Relaxed))?;
        page.family(
            "gatehouse_edge_last_reload_applied",
            "0 while the last reload was refused: the file is not what is in force, and the next start would fail",
            None,
            MetricType::Gauge,
        )?
        .gauge(u64::from(!self.0.refused_last.load(Relaxed)))
    }

    fn upstreams(&self, page: &mut Page<'_>) -> fmt::Result {
        let upstreams = self.0.upstreams.read();
        let mut answered = page.family(
            "gatehouse_edge_upstream_response_duration",
            "From a request to an upstream to the head of its response",
            Some(&SECONDS),
            MetricType::Histogram,
        )?;
        for (upstream, numbers) in &*upstreams {
            histogram(&numbers.answered, answered.0.encode_family(&[("upstream", &**upstream)])?)?;
        }
        let mut requests =
            page.counter("gatehouse_edge_upstream_requests", "Requests to upstreams, answered or not")?;
        for (upstream, numbers) in &*upstreams {
            let answered: u64 = numbers.answered.buckets.iter().map(|count| count.load(Relaxed)).sum();
            let failed = numbers.failed.lock();
            let unanswered = failed.iter().filter(|((phase, _), _)| *phase != "body");
            let failed: u64 = unanswered.map(|(_, count)| count).sum();
            requests.with(&[("upstream", &**upstream)], answered + failed)?;
        }
        let mut failures = page.counter(
            "gatehouse_edge_upstream_failures",
            "Requests that no upstream answered, or not to the end, by how far they came and why",
        )?;
        for (upstream, numbers) in &*upstreams {
            for ((phase, reason), count) in &*numbers.failed.lock() {
                let labels = [("upstream", &**upstream), ("phase", *phase), ("reason", *reason)];
                failures.with(&labels, *count)?;
            }
        }
        let mut retries = page.counter(
            "gatehouse_edge_upstream_retries",
            "Requests sent again to another server, of those that a server may have seen",
        )?;
        for (upstream, numbers) in &*upstreams {
            retries.with(&[("upstream", &**upstream)], numbers.retried.load(Relaxed))?;
        }
        let mut hedges = page.counter(
            "gatehouse_edge_upstream_hedges",
            "Requests asked of a second server because the first was late",
        )?;
        for (upstream, numbers) in &*upstreams {
            hedges.with(&[("upstream", &**upstream)], numbers.hedged.load(Relaxed))?;
        }
        let mut servers = page.family(
            "gatehouse_edge_upstream_server_up",
            "Whether a server takes requests (1), or is put aside because it failed (0)",
            None,
            MetricType::Gauge,
        )?;
        for (upstream, numbers) in &*upstreams {
            for (server, state) in &*numbers.servers.lock() {
                let labels = [("upstream", &**upstream), ("server", &**server)];
                let up = u64::from(*state == ServerState::Up);
                servers.0.encode_family(&labels)?.encode_gauge(&up)?;
            }
        }
        let mut continuations = page.counter(
            "gatehouse_edge_upstream_continuations",
            "Requests for the rest of a body that broke off",
        )?;
        for (upstream, numbers) in &*upstreams {
            for (outcome, count) in &*numbers.continued.lock() {
                continuations.with(&[("upstream", &**upstream), ("outcome", outcome)], *count)?;
            }
        }
        Ok(())
    }

    fn tiers(&self, page: &mut Page<'_>) -> fmt::Result {
        let tiers = self.0.tiers.read();
        if tiers.is_empty() {
            return Ok(());
        }
        let mut look_ups = page.counter(
            "gatehouse_edge_tier_look_ups",
            "Look-ups in a tier behind memory, by what came of them",
        )?;
        for (tier, numbers) in &*tiers {
            for (outcome, count) in &*numbers.looked_up.lock() {
                look_ups.with(&[("tier", &**tier), ("outcome", outcome)], *count)?;
            }
        }
        let mut purges =
            page.counter("gatehouse_edge_tier_purges", "Purges that a tier behind memory was told of")?;
        for (tier, numbers) in &*tiers {
            for (outcome, count) in &*numbers.purged.lock() {
                purges.with(&[("tier", &**tier), ("outcome", outcome)], *count)?;
            }
        }
        let mut offers =
            page.counter("gatehouse_edge_tier_offers", "Stored responses offered to a tier behind memory")?;
        for (tier, numbers) in &*tiers {
            for (outcome, count) in &*numbers.offered.lock() {
                offers.with(&[("tier", &**tier), ("outcome", outcome)], *count)?;
            }
        }
        shared_tiers(page, &tiers)
    }
}

/// What several edges share.
fn shared_tiers(page: &mut Page<'_>, tiers: &BTreeMap<Arc<str>, Arc<TierMetrics>>) -> fmt::Result {
    let shared: Vec<_> =
        tiers.iter().filter_map(|(tier, numbers)| Some((tier, numbers.shared.get()?))).collect();
    if shared.is_empty() {
        return Ok(());
    }
    let mut in_touch = page.family(
        "gatehouse_edge_tier_in_touch",
        "Whether this edge hears of the purges of others; without, what is stored is validated before it is served",
        None,
        MetricType::Gauge,
    )?;
    for (tier, numbers) in &shared {
        let is = u64::from(numbers.in_touch.load(Relaxed));
        in_touch.0.encode_family(&[("tier", &***tier)])?.encode_gauge(&is)?;
    }
    let mut lapses =
        page.counter("gatehouse_edge_tier_lapses", "Times that touch with the other edges was lost")?;
    for (tier, numbers) in &shared {
        lapses.with(&[("tier", &***tier)], numbers.lapses.load(Relaxed))?;
    }
    let mut heard = page.counter("gatehouse_edge_tier_purges_heard", "Purges of other edges")?;
    for (tier, numbers) in &shared {
        heard.with(&[("tier", &***tier)], numbers.heard.load(Relaxed))?;
    }
    let mut epochs = page.counter(
        "gatehouse_edge_tier_epochs",
        "Times that the tier was found to have lost purges, so that nothing older is trusted",
    )?;
    for (tier, numbers) in &shared {
        epochs.with(&[("tier", &***tier)], numbers.epochs.load(Relaxed))?;
    }
    let mut exchanged = page.counter(
        "gatehouse_edge_tier_clients_exchanged",
        "Clients near a limit whose spending was exchanged with other edges, or was to be",
    )?;
    for (tier, numbers) in &shared {
        for (outcome, clients) in &*numbers.exchanged.lock() {
            exchanged.with(&[("tier", &***tier), ("outcome", outcome)], *clients)?;
        }
    }
    Ok(())
}

fn observed(page: &mut Page<'_>, observed: &Observed) -> fmt::Result {
    let cache = &observed.cache;
    page.family("gatehouse_edge_cache", "Bytes stored in memory", Some(&BYTES), MetricType::Gauge)?
        .gauge(cache.bytes)?;
    page.family(
        "gatehouse_edge_cache_budget",
        "Bytes that may be stored in memory",
        Some(&BYTES),
        MetricType::Gauge,
    )?
    .gauge(cache.budget)?;
    page.family(
        "gatehouse_edge_cache_in_flight",
        "Bytes of bodies being fetched, or sent though evicted: beside those stored, at most three eighths of the budget",
        Some(&BYTES),
        MetricType::Gauge,
    )?
    .gauge(cache.in_flight)?;
    page.family("gatehouse_edge_cache_entries", "Resources stored in memory", None, MetricType::Gauge)?
        .gauge(cache.entries)?;
    page.counter("gatehouse_edge_cache_evictions", "Resources pushed out of memory by others")?
        .count(cache.evictions)?;
    page.counter(
        "gatehouse_edge_log_lines_dropped",
        "Lines of the access log (standard output) that could not go out",
    )?
    .count(observed.log_lines_dropped)?;
    page.counter(
        "gatehouse_edge_own_log_lines_dropped",
        "Lines of the edge's own log (standard error), and of its commands' output, that could not go out",
    )?
    .count(observed.own_log_lines_dropped)?;
    let OnDemandObserved { held, first_ends, denied } = &observed.on_demand;
    page.family(
        "gatehouse_edge_on_demand_certificates",
        "Certificates held for names that clients have asked for",
        None,
        MetricType::Gauge,
    )?
    .gauge(*held as u64)?;
    let mut first = page.family(
        "gatehouse_edge_on_demand_first_expires_timestamp",
        "When the first of these ends, since 1970",
        Some(&SECONDS),
        MetricType::Gauge,
    )?;
    if let Some(first_ends) = first_ends {
        first.gauge(*first_ends)?;
    }
    let mut not_made = page.counter(
        "gatehouse_edge_on_demand_denied",
        "Names that clients have asked for and got no certificate for, by why, where no authority was asked",
    )?;
    for (reason, count) in denied {
        not_made.with(&[("reason", *reason)], *count)?;
    }
    let mut restarts =
        page.counter("gatehouse_edge_command_restarts", "Restarts of a command's instances")?;
    for command in &observed.commands {
        restarts.with(&[("command", &*command.name)], command.restarts)?;
    }
    let mut instances = page.family(
        "gatehouse_edge_command_instances",
        "Instances of a command: wanted by the settings, and ready",
        None,
        MetricType::Gauge,
    )?;
    for command in &observed.commands {
        for (state, count) in [("ready", command.ready), ("wanted", command.wanted)] {
            instances
                .0
                .encode_family(&[("command", &*command.name), ("state", state)])?
                .encode_gauge(&(count as u64))?;
        }
    }
    Ok(())
}

fn histogram(durations: &Durations, mut metric: MetricEncoder<'_>) -> fmt::Result {
    let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
    let buckets: Vec<_> =
        bounds.zip(&durations.buckets).map(|(bound, count)| (bound, count.load(Relaxed))).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let seconds = Duration::from_nanos(durations.nanoseconds.load(Relaxed)).as_secs_f64();
    metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
}

/// prometheus-client's encoder with the few shapes needed here.
struct Page<'a>(DescriptorEncoder<'a>);

struct Family<'a>(MetricEncoder<'a>);

impl Page<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'static Unit>,
        metric_type: MetricType,
    ) -> Result<Family<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, metric_type).map(Family)
    }

    fn counter<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.family(name, help, None, MetricType::Counter)
    }
}

impl Family<'_> {
    fn with(&mut self, labels: &impl EncodeLabelSet, count: u64) -> fmt::Result {
        self.0.encode_family(labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)
    }

    fn count(&mut self, count: u64) -> fmt::Result {
        self.0.encode_counter::<NoLabelSet, u64, u64>(&count, None)
    }

    fn gauge(&mut self, value: u64) -> fmt::Result {
        self.0.encode_gauge(&value)
    }
}
