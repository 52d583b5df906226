//! `make bench-shop`: the origin by itself over a large catalogue, asked by many clients at once for a list, a product,
//! an order, and an order of the one product that everybody wants.
//!
//! wrk is the clients. The three kinds take turns round by round, so that a noisy neighbour disturbs all; medians are shown.
//! The time in the database is what the origin's own histograms say, the connections are PostgreSQL's own list of them,
//! looked at ten times a second. The CPU time is the origin's and its PostgreSQL's: of the figures the one that a busy machine
//! disturbs least.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gatehouse_tests::{
    folder::Folder,
    origin::Origin,
    process::{cpu_seconds, resident_kib},
    tool,
};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::sync::watch;

const USAGE: &str = "usage: bench_shop [--products N] [--clients N] [--rounds N] [--seconds N]";
/// Fewer products than that have no thousand to choose from.
const FEWEST_PRODUCTS: u32 = 2_000;
const SAMPLE: Duration = Duration::from_millis(100);

/// Customers with the sessions `token-1`, `token-2`…, and shelves that no run empties.
const PREPARE: &str = "
    WITH made AS (
        INSERT INTO users (email, password_hash) SELECT 'c' || n || '@example.org', '-' FROM generate_series(1, 1000) n
        RETURNING id
    )
    INSERT INTO sessions (token_hash, user_id, expires_at)
    SELECT sha256(convert_to('token-' || row_number() OVER (), 'UTF8')), id, now() + interval '1 day' FROM made;
    UPDATE products SET stock = 1000000000 WHERE active AND id <= 2000;
    ANALYZE;";

const PRODUCTS: &str = "SELECT id, slug FROM products WHERE active AND id <= 2000 ORDER BY id LIMIT 1000";

/// Every client of the origin's but us.
const CONNECTIONS: &str = "
    SELECT count(*) FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

fn main() -> Result<()> {
    let options = Options::read()?;
    let Options { products, clients, rounds, seconds } = options;
    let origin = Origin::start("seed_when_empty = 60\n[purge]\nedges = []\n");
    origin.seed(products);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (ids, slugs) = runtime.block_on(prepare(&origin.database()))?;
    let folder = Folder::new();
    println!("{products} products, {clients} clients, {rounds} rounds of {seconds} s, medians");
    println!(
        "{:<8}{:>10}{:>10}{:>10}{:>14}{:>10}{:>23}{:>13}",
        "", "req/s", "p50 ms", "p99 ms", "database ms", "CPU ms", "connections max/mean", "memory MiB"
    );
    let hot = order(&ids[..1]);
    let kinds = [("list", list()), ("detail", detail(&slugs)), ("order", order(&ids)), ("hot", hot)];
    let mut measured: [Vec<Round>; 4] = Default::default();
    for number in 0..=rounds {
        for (index, (name, script)) in kinds.iter().enumerate() {
            folder.write(name, script);
            let script = folder.path().join(name);
            let round = measure(&origin, &runtime, &script.display().to_string(), &options)?;
            // The first round of each only warms up.
            if number > 0 {
                measured[index].push(round);
            }
        }
    }
    for ((name, _), rounds) in kinds.iter().zip(&measured) {
        let of = |field: fn(&Round) -> f64| median(rounds.iter().map(field));
        let most = rounds.iter().map(|round| round.connections_most).max().unwrap_or_default();
        println!(
            "{name:<8}{:>10.0}{:>10.1}{:>10.1}{:>14.2}{:>10.2}{:>23}{:>13.1}",
            of(|round| round.per_second),
            of(|round| round.p50),
            of(|round| round.p99),
            of(|round| round.database),
            of(|round| round.cpu),
            format!("{most} / {:.1}", of(|round| round.connections_mean)),
            of(|round| round.mib),
        );
    }
    Ok(())
}

struct Options {
    products: u32,
    clients: u32,
    rounds: u32,
    seconds: u32,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self { products: 100_000, clients: 200, rounds: 5, seconds: 5 };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().context(USAGE)?.parse().context(USAGE)?;
            match name.as_str() {
                "--products" => options.products = value,
                "--clients" => options.clients = value,
                "--rounds" => options.rounds = value,
                "--seconds" => options.seconds = value,
                _ => bail!(USAGE),
            }
        }
        if options.products < FEWEST_PRODUCTS {
            bail!("{FEWEST_PRODUCTS} products at least");
        }
        Ok(options)
    }
}

/// A thousand products that can be ordered: ids and slugs.
async fn prepare(database: &PgConnectOptions) -> Result<(Vec<i64>, Vec<String>)> {
    let mut connection = PgConnection::connect_with(database).await?;
    sqlx::raw_sql(PREPARE).execute(&mut connection).await?;
    let products: Vec<(i64, String)> = sqlx::query_as(PRODUCTS).fetch_all(&mut connection).await?;
    Ok(products.into_iter().unzip())
}

/// The first page of all.
fn list() -> String {
    "wrk.path = '/api/products'\n".to_owned()
}

fn detail(slugs: &[String]) -> String {
    let slugs: Vec<String> = slugs.iter().map(|slug| format!("'{slug}'")).collect();
    format!(
        "local slugs = {{ {} }}
function request()
  return wrk.format('GET', '/api/products/' .. slugs[math.random(#slugs)])
end\n",
        slugs.join(", ")
    )
}

/// Two lines, or one of the only product, somebody's, with a key that nobody has used.
fn order(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    format!(
        "local ids = {{ {} }}
local count, run = 0, tostring({{}}):match('0x(%x+)') .. os.time()
function request()
  count = count + 1
  local body
  if #ids == 1 then
    body = string.format('{{\"lines\":[{{\"product_id\":%d,\"quantity\":1}}]}}', ids[1])
  else
    local first = math.random(#ids - 1)
    body = string.format(
      '{{\"lines\":[{{\"product_id\":%d,\"quantity\":1}},{{\"product_id\":%d,\"quantity\":2}}]}}',
      ids[first], ids[math.random(first + 1, #ids)])
  end
  return wrk.format('POST', '/api/orders', {{
    ['Content-Type'] = 'application/json',
    ['Cookie'] = '__Host-session=token-' .. math.random(1000),
    ['X-Requested-With'] = 'bench',
    ['Idempotency-Key'] = run .. '-' .. count,
  }}, body)
end\n",
        ids.join(", ")
    )
}

struct Round {
    per_second: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    /// Milliseconds in queries, for each request.
    database: f64,
    /// Milliseconds of the origin's and PostgreSQL's, for each request.
    cpu: f64,
    connections_most: i64,
    connections_mean: f64,
    mib: f64,
}

fn measure(
    origin: &Origin,
    runtime: &tokio::runtime::Runtime,
    script: &str,
    options: &Options,
) -> Result<Round> {
    let (stop, stopped) = watch::channel(false);
    let sampling = runtime.spawn(sample(origin.database(), stopped));
    let spent = || origin.metric("origin_query_duration_seconds_sum");
    let (before, cpu_before) = (spent(), cpu_seconds(origin.id()));
    let wrk = tool::find(&["wrk"], "wrk");
    let (clients, duration) = (options.clients.to_string(), format!("{}s", options.seconds));
    let url = format!("http://{}/", origin.address());
    let printed =
        tool::run(&wrk, ["-t", "1", "-c", &clients, "-d", &duration, "--latency", "-s", script, &url]);
    let (spent, cpu) = (spent() - before, cpu_seconds(origin.id()) - cpu_before);
    stop.send_replace(true);
    let samples = runtime.block_on(sampling)??;
    if printed.contains("Non-2xx") || printed.contains("Socket errors") {
        bail!("wrk met errors:\n{printed}");
    }
    let requests = number_before(&printed, " requests in ").context("wrk counts")?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a few connections, some seconds of samples, memory far below 2^52"
    )]
    Ok(Round {
        per_second: after(&printed, "Requests/sec:")
            .and_then(|text| text.parse().ok())
            .context("wrk divides")?,
        p50: after(&printed, "50%").and_then(milliseconds).context("wrk tells the median")?,
        p99: after(&printed, "99%").and_then(milliseconds).context("wrk tells the 99th percentile")?,
        database: spent / requests * 1e3,
        cpu: cpu / requests * 1e3,
        connections_most: samples.iter().copied().max().unwrap_or_default(),
        connections_mean: samples.iter().sum::<i64>() as f64 / samples.len() as f64,
        mib: resident_kib(origin.id()).0 as f64 / 1024.0,
    })
}

/// How many connections there were, time after time.
async fn sample(
    database: PgConnectOptions,
    mut stopped: watch::Receiver<bool>,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut connection = PgConnection::connect_with(&database).await?;
    let mut clock = tokio::time::interval(SAMPLE);
    let mut samples = Vec::new();
    loop {
        tokio::select! {
            _ = clock.tick() => samples.push(sqlx::query_scalar(CONNECTIONS).fetch_one(&mut connection).await?),
            _ = stopped.changed() => return Ok(samples),
        }
    }
}

/// The word that follows a label at the beginning of a line.
fn after<'a>(printed: &'a str, label: &str) -> Option<&'a str> {
    printed.lines().find_map(|line| line.trim().strip_prefix(label)?.split_whitespace().next())
}

fn number_before(printed: &str, words: &str) -> Option<f64> {
    printed.lines().find_map(|line| line.trim().split_once(words)?.0.parse().ok())
}

/// `850.00us`, `28.13ms` or `1.02s`.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic())?);
    let in_milliseconds = match unit {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * in_milliseconds)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
