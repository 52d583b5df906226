//! How many users the shop bears: the capacity guide's load tests and targets, on the programs as `make run` starts them.
//!
//! The guide's two commands (ab and Artillery) ask for a listing. A crowd of visitors goes through the shop, from the front page to
//! an order, each over a connection of their own, and thinks between the steps; while it does, the programs are watched. Each target
//! stands beside what was measured. A model says what follows for other processors, and its predictions stand beside what was
//! measured, too. The largest paint of two pages is seen by Chromium over a slow line.
//!
//! Everything runs on this one machine, the visitors as well: what they use of its processors is told apart.

pub mod crowd;
pub mod model;
pub mod programs;
pub mod report;
pub mod visitor;

use std::{ops::Range, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};
use tokio::{runtime::Runtime, time::sleep};

use self::{
    crowd::{Account, Crowd, Plan},
    model::Costs,
    programs::{Cpu, Programs, Seen},
    visitor::{Product, Scene},
};
use crate::{
    browser::{Browser, Slowness},
    edge::Edge,
    load::{self, Load},
    origin::Account as Person,
    process::own_cpu_seconds,
    raw, shop,
    three::Three,
    wait,
};

const MOMENT: Duration = Duration::from_millis(50);
/// What the guide's commands ask for.
const LISTING: &str = "/category/kitchen";
/// The pages whose paint is looked at, and how soon it is meant to come.
pub const PAINTED: [(&str, &str, Duration); 2] = [
    ("home", "/", Duration::from_millis(1000)),
    ("product", "/product/harbour-enamel-kettle", Duration::from_millis(1200)),
];
/// A screen of a telephone and one of a desk, in CSS pixels.
pub const SCREENS: [(&str, u32, u32); 2] = [("telephone", 412, 823), ("desk", 1280, 800)];
/// A telephone on a slow line.
const SLOW: Slowness =
    Slowness { bits_per_second: 1_600_000, latency: Duration::from_millis(150), processor: 4 };
/// A desk.
const QUICK: Slowness =
    Slowness { bits_per_second: 100_000_000, latency: Duration::from_millis(5), processor: 1 };

/// How the shop runs.
#[derive(Clone, Copy, Debug)]
pub struct Deployment {
    /// In words.
    pub name: &'static str,
    /// What is started.
    pub shape: Shape,
}

/// What there is of each program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An edge that runs so many instances of the origin.
    OneEdge(u32),
    /// What `make run-three` starts: three edges, three instances, PostgreSQL with a replica, Redis.
    ThreeEdges,
}

/// All that are measured, the one whose steps are measured too first.
pub const DEPLOYMENTS: [Deployment; 3] = [
    Deployment { name: "one server", shape: Shape::OneEdge(1) },
    Deployment { name: "three instances", shape: Shape::OneEdge(3) },
    Deployment { name: "three of each, Redis", shape: Shape::ThreeEdges },
];

/// A shop that runs.
#[derive(Debug)]
enum Shop {
    One(Box<Edge>),
    Three(Box<Three>),
}

impl Shop {
    /// Where visitors go.
    fn edges(&self) -> &[Edge] {
        match self {
            Self::One(edge) => std::slice::from_ref(edge),
            Self::Three(three) => &three.edges,
        }
    }

    fn programs(&self) -> Programs {
        match self {
            Self::One(edge) => Programs::of(edge),
            Self::Three(three) => Programs::of_three(three),
        }
    }
}

/// How much of everything.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Crowds, the smallest first: the model takes the share of hits from it.
    pub crowds: Vec<u32>,
    /// Between two steps.
    pub think: Range<Duration>,
    /// As long as a visit takes.
    pub settle: Duration,
    /// How long each crowd is measured.
    pub measure: Duration,
    /// How long the cost of each step is.
    pub cost: Duration,
    /// How often each page is painted.
    pub paints: usize,
    /// Over what line, and with what processor.
    pub slowness: Slowness,
    /// Clients of ab and Artillery, and requests of each of Artillery's.
    pub clients: u32,
    /// See `clients`.
    pub requests: u32,
    /// Accounts.
    pub customers: u32,
}

impl Scale {
    /// What the guide asks for.
    #[must_use]
    pub fn full() -> Self {
        Self {
            crowds: vec![200, 500, 1_000],
            think: Duration::from_secs(2)..Duration::from_secs(8),
            settle: Duration::from_secs(45),
            measure: Duration::from_secs(30),
            cost: Duration::from_secs(3),
            paints: 5,
            slowness: SLOW,
            clients: 200,
            requests: 10,
            customers: 2_000,
        }
    }

    /// The same in a few seconds: that it works, and not how fast.
    #[must_use]
    pub fn small() -> Self {
        Self {
            crowds: vec![2, 4, 6],
            think: Duration::from_millis(20)..Duration::from_millis(60),
            settle: Duration::from_secs(1),
            measure: Duration::from_secs(2),
            cost: Duration::from_millis(300),
            paints: 1,
            slowness: QUICK,
            clients: 10,
            requests: 2,
            customers: 20,
        }
    }
}

/// All that was measured.
#[derive(Debug)]
pub struct Results {
    /// Processors of this machine.
    pub cores: u32,
    /// What else ran: the system's load averages before the first measurement.
    pub load_before: String,
    /// How much was measured.
    pub scale: Scale,
    /// ab and Artillery.
    pub guide: Vec<Guide>,
    /// By page and screen: the median paint.
    pub paints: Vec<Paint>,
    /// What steps cost, on one server.
    pub costs: Costs,
    /// Each deployment under each crowd.
    pub runs: Vec<Run>,
}

/// One of the guide's commands.
#[derive(Debug)]
pub struct Guide {
    /// As it is typed.
    pub command: String,
    /// What it says.
    pub load: Load,
}

/// The largest paint of a page.
#[derive(Debug)]
pub struct Paint {
    /// Which page.
    pub page: &'static str,
    /// On what.
    pub screen: &'static str,
    /// The median.
    pub at: Duration,
    /// How soon it is meant to come.
    pub aim: Duration,
}

/// One deployment under one crowd.
#[derive(Debug)]
pub struct Run {
    /// Which one.
    pub deployment: Deployment,
    /// Visitors at any time.
    pub users: u32,
    /// What they did.
    pub account: Account,
    /// Processors that the programs used.
    pub cpu: Cpu,
    /// Processors that the visitors used.
    pub visitors: f64,
    /// Memory and connections.
    pub seen: Seen,
    /// The query with the longest 95th percentile.
    pub slowest: Option<(String, Duration)>,
}

/// Measures everything, and says meanwhile what it is doing.
///
/// # Errors
/// When something cannot be measured: the database does not answer, or an answer without any load is not the right one.
///
/// # Panics
/// When a program is missing or does not start.
pub fn measure(scale: Scale, mut tell: impl FnMut(&str)) -> Result<Results> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).try_into()?;
    let load_before = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load_before = load_before.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let (mut guide, mut paints, mut costs, mut runs) = (Vec::new(), Vec::new(), None, Vec::new());
    for deployment in DEPLOYMENTS {
        tell(&format!("{}: starting the shop", deployment.name));
        let shop = start(deployment);
        let programs = shop.programs();
        let scene = Arc::new(runtime.block_on(prepare(shop.edges(), &programs, &scale))?);
        let edge = shop.edges().first().context("a shop has an edge")?;
        let is_first = deployment.shape == DEPLOYMENTS[0].shape;
        if is_first {
            tell("ab and Artillery");
            guide = ask_as_the_guide(edge, &scale);
            tell("what each step costs");
            let few = Arc::new(scene.with_few_products());
            costs = Some(runtime.block_on(model::measure(&programs, &few, scale.cost))?);
        }
        for users in scale.crowds.iter().copied() {
            tell(&format!("{}: {users} users", deployment.name));
            let plan =
                Plan { users, think: scale.think.clone(), settle: scale.settle, measure: scale.measure };
            let run = run(&runtime, &programs, &scene, &plan).with_context(|| format!("{users} users"))?;
            runs.push(Run { deployment, ..run });
        }
        if is_first {
            tell("the paint of the pages");
            paints = paint(edge, &scale);
        }
    }
    let costs = costs.context("there is a first deployment")?;
    Ok(Results { cores, load_before, scale, guide, paints, costs, runs })
}

fn start(deployment: Deployment) -> Shop {
    let Shape::OneEdge(instances) = deployment.shape else { return Shop::Three(Box::new(Three::start())) };
    let shop = shop::start_with(|settings| {
        let run = settings.lines().find(|line| line.starts_with("run = ")).expect("the demo runs the origin");
        let more = format!("{run}\ninstances = {instances}");
        settings.replace(run, &more)
    });
    wait::until("all instances are ready", || {
        let ready = "gatehouse_edge_command_instances{command=\"origin\",state=\"ready\"} ";
        let page = shop.metrics();
        let count = page.lines().find_map(|line| line.strip_prefix(ready)?.parse::<u32>().ok());
        (count == Some(instances)).then_some(())
    });
    Shop::One(Box::new(shop))
}

/// Accounts whose password is known, each with a session, and shelves that no crowd empties. What is in stock already stays so:
/// no page changes by it.
const PREPARE: &str = "
    WITH made AS (
        INSERT INTO users (email, name, password_hash)
        SELECT 'c' || n || '@example.org', 'Customer ' || n, password_hash
          FROM users, generate_series(1, $1) n WHERE email = 'first@example.org'
        RETURNING id, email
    )
    INSERT INTO sessions (token_hash, user_id, expires_at)
    SELECT sha256(convert_to('token-' || substring(email FROM '[0-9]+'), 'UTF8')), id, now() + interval '1 day' FROM made";
const FILL: &str = "UPDATE products SET stock = 1000000 WHERE stock > 0";
const PRODUCTS: &str =
    "SELECT id, slug, name, price_cents FROM products WHERE active AND stock > 0 ORDER BY id";
const CATEGORIES: &str = "SELECT slug FROM categories ORDER BY id";

async fn prepare(edges: &[Edge], programs: &Programs, scale: &Scale) -> Result<Scene> {
    let shop = edges.first().context("a shop has an edge")?;
    let _ = Person::register(shop.clear(), "first@example.org");
    let mut database = PgConnection::connect_with(programs.database()).await?;
    sqlx::query(PREPARE).bind(i32::try_from(scale.customers)?).execute(&mut database).await?;
    sqlx::query(FILL).execute(&mut database).await?;
    sqlx::raw_sql("ANALYZE").execute(&mut database).await?;
    let products: Vec<(i64, String, String, i64)> = sqlx::query_as(PRODUCTS).fetch_all(&mut database).await?;
    let categories: Vec<String> = sqlx::query_scalar(CATEGORIES).fetch_all(&mut database).await?;
    let mut tls = raw::client_config(&shop.authority(), "h2");
    // Each visitor is a stranger, with a whole handshake.
    tls.resumption = rustls::client::Resumption::disabled();
    let products =
        products.into_iter().map(|(id, slug, name, price_cents)| Product { id, slug, name, price_cents });
    let addresses = edges.iter().map(Edge::tls).collect();
    Ok(Scene::new(addresses, tls, categories, products.collect(), scale.customers))
}

fn ask_as_the_guide(shop: &Edge, scale: &Scale) -> Vec<Guide> {
    let Scale { clients, requests, .. } = scale;
    let url = format!("https://{}{LISTING}", shop.tls());
    let shown = format!("https://localhost:8443{LISTING}");
    let ab = load::ab_url(&url, *clients, *clients);
    let artillery = load::artillery(&url, &shop.authority(), *clients, *requests);
    vec![
        Guide { command: format!("ab -n {clients} -c {clients} {shown}"), load: ab },
        Guide {
            command: format!("artillery quick --count {clients} --num {requests} {shown}"),
            load: artillery,
        },
    ]
}

fn paint(shop: &Edge, scale: &Scale) -> Vec<Paint> {
    let mut paints = Vec::new();
    for (screen, width, height) in SCREENS {
        for (page, path, aim) in PAINTED {
            let mut times: Vec<Duration> = (0..scale.paints)
                .map(|_| {
                    // A browser that has been nowhere yet.
                    let mut browser = Browser::start();
                    browser.resize(width, height);
                    browser.slow_down(scale.slowness);
                    browser.open(&format!("https://localhost:{}{path}", shop.tls().port()));
                    browser.largest_paint()
                })
                .collect();
            times.sort_unstable();
            paints.push(Paint { page, screen, at: times[times.len() / 2], aim });
        }
    }
    paints
}

fn run(runtime: &Runtime, programs: &Programs, scene: &Arc<Scene>, plan: &Plan) -> Result<Run> {
    let guard = runtime.enter();
    let crowd = Crowd::gather(scene, plan);
    runtime.block_on(sleep(plan.settle));
    let (watch, queries) = (programs.watch(), programs.queries());
    let (began, cpu, own) = (wait::now(), programs.cpu(), own_cpu_seconds(std::process::id()));
    runtime.block_on(async {
        sleep(plan.measure).await;
        // Where everything stands still for a while nobody gets anywhere: it goes on until somebody has.
        while crowd.account(began).visits() == 0 && began.elapsed() < plan.measure + wait::PATIENCE {
            sleep(MOMENT).await;
        }
    });
    let cpu = programs.cpu() - cpu;
    let visitors = own_cpu_seconds(std::process::id()) - own;
    let account = crowd.account(began);
    drop(crowd);
    let seen = runtime.block_on(watch.end())?;
    let now = programs.queries();
    let slowest = now.slowest_since(&queries).map(|(query, longest)| (query.to_owned(), longest));
    drop(guard);
    let seconds = account.during.as_secs_f64();
    let (cpu, visitors) = (cpu / seconds, visitors / seconds);
    Ok(Run { deployment: DEPLOYMENTS[0], users: plan.users, account, cpu, visitors, seen, slowest })
}
