//! What the programs cost while visitors come: processor, memory, connections to the database, and time in it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::{Add, AddAssign, Div, Mul, Sub},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    curl::Curl,
    edge::Edge,
    origin::{self, Origin},
    process::{cpu_seconds, own_cpu_seconds, proportional_kib_of_tree},
    three::Three,
};

/// Between two looks at the connections, and so many of them between two looks at the memory, which cost more.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_A_WEIGHING: usize = 20;
/// A query that was made less often than this in a measurement has no percentile.
const FEWEST: f64 = 20.0;

/// Connections of the shop's: those that are open, and those that do something or hold a transaction open.
const CONNECTIONS: &str = "
    SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// Seconds of processor time, or a rate or a part of them, by program.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// The edge.
    pub edge: f64,
    /// All instances of the origin.
    pub origin: f64,
    /// PostgreSQL, all its processes, and Redis.
    pub postgres: f64,
}

/// The running programs.
#[derive(Debug)]
pub struct Programs {
    /// Those that nobody of them has started.
    roots: Vec<u32>,
    edges: Vec<u32>,
    /// PostgreSQL, and Redis where there is one.
    databases: Vec<u32>,
    /// Where each instance of the origin shows what it counts.
    metrics: Vec<(SocketAddr, String)>,
    database: PgConnectOptions,
}

/// How long named queries took, of all instances of the origin: for each, how many took no longer than so many seconds.
#[derive(Debug, Default)]
pub struct Queries(BTreeMap<String, Vec<(f64, f64)>>);

/// What was seen by looking again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The most database connections that were in use at once.
    pub in_use: i64,
    /// The most that were open.
    pub open: i64,
    /// The most memory of all programs together, in KiB; what they share counts once.
    pub kib: u64,
}

/// Looks until it is asked what it has seen.
#[derive(Debug)]
pub struct Watch {
    stop: watch::Sender<bool>,
    looking: JoinHandle<Result<Seen, sqlx::Error>>,
}

impl Programs {
    /// Those of a shop with one edge, which runs the others.
    ///
    /// # Panics
    /// When they do not run.
    #[track_caller]
    #[must_use]
    pub fn of(shop: &Edge) -> Self {
        let page = shop.metrics();
        let ready = "gatehouse_edge_command_instances{command=\"origin\",state=\"ready\"} ";
        let instances = page.lines().find_map(|line| line.strip_prefix(ready)?.parse::<u32>().ok());
        let instances = 1..=instances.expect("the shop runs the origin");
        Self {
            roots: vec![shop.id()],
            edges: vec![shop.id()],
            databases: vec![shop.running("postgres").expect("the shop runs a PostgreSQL of its own")],
            metrics: instances
                .map(|number| (shop.admin(), format!("/commands/origin/{number}/metrics")))
                .collect(),
            database: origin::database(shop.folder()),
        }
    }

    /// Those of three edges and what is behind them.
    ///
    /// # Panics
    /// When the primary is gone.
    #[track_caller]
    #[must_use]
    pub fn of_three(three: &Three) -> Self {
        let primary = three.primary.as_ref().expect("nothing has stopped it");
        let edges: Vec<u32> = three.edges.iter().map(Edge::id).collect();
        let databases = vec![primary.id(), three.replica.id(), three.redis.id()];
        let origins = three.origins.iter().map(Origin::id);
        Self {
            roots: edges.iter().chain(&databases).copied().chain(origins).collect(),
            edges,
            databases,
            metrics: three.origins.iter().map(|origin| (origin.admin(), "/metrics".to_owned())).collect(),
            database: primary.options(),
        }
    }

    /// How to reach their database.
    #[must_use]
    pub fn database(&self) -> &PgConnectOptions {
        &self.database
    }

    /// What they have used of the processors so far.
    #[must_use]
    pub fn cpu(&self) -> Cpu {
        let sum = |ids: &[u32], of: fn(u32) -> f64| ids.iter().map(|id| of(*id)).sum::<f64>();
        let (all, edge, postgres) = (
            sum(&self.roots, cpu_seconds),
            sum(&self.edges, own_cpu_seconds),
            sum(&self.databases, cpu_seconds),
        );
        Cpu { edge, origin: all - edge - postgres, postgres }
    }

    /// What the instances of the origin have counted so far.
    ///
    /// # Panics
    /// When one does not answer.
    #[track_caller]
    #[must_use]
    pub fn queries(&self) -> Queries {
        let mut all = Queries::default();
        for (admin, path) in &self.metrics {
            let answer = Curl::clear(*admin, path).send();
            assert_eq!(answer.status, 200, "{path}: {answer:#?}");
            all.add(&answer.text());
        }
        all
    }

    /// Begins to look; to be called within a runtime.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let (stop, stopped) = watch::channel(false);
        Watch { stop, looking: tokio::spawn(look(self.roots.clone(), self.database.clone(), stopped)) }
    }
}

impl Watch {
    /// What has been seen.
    ///
    /// # Errors
    /// Of the database.
    pub async fn end(self) -> Result<Seen, sqlx::Error> {
        self.stop.send_replace(true);
        self.looking.await.expect("looking does not panic")
    }
}

async fn look(
    roots: Vec<u32>,
    database: PgConnectOptions,
    mut stopped: watch::Receiver<bool>,
) -> Result<Seen, sqlx::Error> {
    let mut connection = PgConnection::connect_with(&database).await?;
    let mut clock = tokio::time::interval(LOOK);
    let mut seen = Seen::default();
    for number in 0_usize.. {
        tokio::select! {
            _ = clock.tick() => {}
            _ = stopped.changed() => break,
        }
        let (open, in_use): (i64, i64) = sqlx::query_as(CONNECTIONS).fetch_one(&mut connection).await?;
        seen = Seen { open: seen.open.max(open), in_use: seen.in_use.max(in_use), ..seen };
        if number.is_multiple_of(LOOKS_A_WEIGHING) {
            seen.kib = seen.kib.max(roots.iter().map(|id| proportional_kib_of_tree(*id)).sum());
        }
    }
    Ok(seen)
}

impl Queries {
    /// Adds those of the text of an instance's `/metrics`.
    fn add(&mut self, page: &str) {
        let mut own: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        let buckets =
            page.lines().filter_map(|line| line.strip_prefix("origin_query_duration_seconds_bucket{"));
        for (labels, count) in buckets.filter_map(|line| line.split_once("} ")) {
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split('"').next()
            };
            let Some((query, bound)) = label("query").zip(label("le")) else { continue };
            let bound = bound.trim_start_matches('+').parse();
            if let Some((bound, count)) = bound.ok().zip(count.parse().ok()) {
                own.entry(query).or_default().push((bound, count));
            }
        }
        for (query, buckets) in own {
            let Some(known) = self.0.get_mut(query) else {
                self.0.insert(query.to_owned(), buckets);
                continue;
            };
            for ((_, sum), (_, count)) in known.iter_mut().zip(buckets) {
                *sum += count;
            }
        }
    }

    /// The query whose 95th percentile is the longest of those that were made often enough since `before`, and that percentile,
    /// as Prometheus computes it: linear within a bucket.
    #[must_use]
    pub fn slowest_since(&self, before: &Self) -> Option<(&str, Duration)> {
        let percentiles = self.0.iter().filter_map(|(query, buckets)| {
            let earlier = before.0.get(query);
            let count_before =
                |at: usize| earlier.and_then(|all| all.get(at)).map_or(0.0, |(_, count)| *count);
            let since: Vec<(f64, f64)> = buckets
                .iter()
                .enumerate()
                .map(|(at, (bound, count))| (*bound, count - count_before(at)))
                .collect();
            Some((query.as_str(), percentile(&since, 0.95)?))
        });
        percentiles.max_by_key(|(_, percentile)| *percentile)
    }
}

/// Of a histogram that counts upwards.
fn percentile(buckets: &[(f64, f64)], share: f64) -> Option<Duration> {
    let (_, all) = buckets.last().filter(|(_, all)| *all >= FEWEST)?;
    let rank = all * share;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (bound, count) = buckets[at];
    let (from, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    // Beyond the last bound nothing is known but that it is longer.
    let seconds =
        if bound.is_finite() { from + (bound - from) * (rank - below) / (count - below) } else { from };
    Some(Duration::from_secs_f64(seconds))
}

impl Cpu {
    /// Of all programs.
    #[must_use]
    pub fn all(self) -> f64 {
        self.edge + self.origin + self.postgres
    }

    fn each(self, other: Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            edge: of(self.edge, other.edge),
            origin: of(self.origin, other.origin),
            postgres: of(self.postgres, other.postgres),
        }
    }
}

impl Add for Cpu {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.each(other, |one, other| one + other)
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Cpu {
    type Output = Self;

    /// Never below nothing: clocks tick in hundredths of a second.
    fn sub(self, other: Self) -> Self {
        self.each(other, |one, other| (one - other).max(0.0))
    }
}

impl Mul<f64> for Cpu {
    type Output = Self;

    fn mul(self, by: f64) -> Self {
        self.each(self, |one, _| one * by)
    }
}

impl Div<f64> for Cpu {
    type Output = Self;

    fn div(self, by: f64) -> Self {
        self * (1.0 / by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fast: u32, slow: u32) -> String {
        let bucket = |query: &str, bound: &str, count: u32| {
            format!("origin_query_duration_seconds_bucket{{le=\"{bound}\",query=\"{query}\"}} {count}\n")
        };
        [
            bucket("orders.place", "0.01", fast),
            bucket("orders.place", "0.05", fast + slow),
            bucket("orders.place", "+Inf", fast + slow),
            bucket("rare", "0.01", 0),
            bucket("rare", "+Inf", 3),
        ]
        .concat()
    }

    #[test]
    fn percentiles_are_of_what_has_come_since_and_as_prometheus_computes_them() {
        let of = |pages: &[String]| {
            let mut all = Queries::default();
            pages.iter().for_each(|page| all.add(page));
            all
        };
        let before = of(&[page(500, 0), page(500, 0)]);
        let after = of(&[page(500, 40), page(500, 60)]);
        let (query, percentile) = after.slowest_since(&before).unwrap();
        assert_eq!(query, "orders.place");
        assert!((percentile.as_secs_f64() - 0.048).abs() < 1e-6, "{percentile:?}");
        assert!(after.slowest_since(&after).is_none(), "nothing has come");
    }
}
