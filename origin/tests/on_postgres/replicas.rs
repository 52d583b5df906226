//! Reads from a real streaming replica: never the past for who has written, nor for what an edge fetches after a purge.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use http::{Method, StatusCode};
use origin::{
    activity_log::ActivityLog,
    common_memory::CommonMemory,
    database::Database,
    observe::Metrics,
    passwords::Passwords,
    replicas::Reads,
    server,
    settings::{PurgeSettings, Settings},
    shop::Shop,
    traces::Tracer,
    workers::{Shared, Workers},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json as value;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::{
    PATIENCE,
    edge_double::EdgeDouble,
    origin_process::process_of,
    requests::{Answer, Customer, get, get_if_none_match, metric},
    test_server::{TestServer, connect, folder, searches},
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";

/// A copy of a test server that follows it.
pub(crate) struct Replica {
    child: Child,
    pub(crate) options: PgConnectOptions,
    _folder: TempDir,
}

impl Replica {
    pub(crate) async fn start(server: &TestServer) -> Self {
        let private = server.private.as_ref().expect("it runs");
        let owner = private.folder().join("cluster");
        let command =
            fs::read(format!("/proc/{}/cmdline", process_of(&owner).expect("it runs"))).expect("its command");
        let postgres =
            str::from_utf8(command.split(|byte| *byte == 0).next().expect("a program")).expect("UTF-8");
        let programs = Path::new(postgres).parent().expect("a folder").to_owned();
        let owner = fs::metadata(owner).expect("a cluster");
        let folder = folder();
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(owner.uid()), Some(owner.gid())).expect("the server's folder");
        }
        let run = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if rustix::process::geteuid().is_root() {
                command.uid(owner.uid()).gid(owner.gid());
            }
            command
        };
        let cluster = folder.path().join("cluster");
        let copied = run("pg_basebackup")
            .args(["--username", "gatehouse", "--write-recovery-conf", "--checkpoint", "fast", "--no-sync"])
            .arg("--host")
            .arg(server.socket())
            .arg("--pgdata")
            .arg(&cluster)
            .status()
            .expect("pg_basebackup runs");
        assert!(copied.success());
        let child = run("postgres")
            .arg("-D")
            .arg(&cluster)
            // No fewer connections than the server it follows, or it does not start.
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=120", "-c"])
            .arg(format!("unix_socket_directories={}", folder.path().display()))
            .stderr(Stdio::inherit())
            .spawn()
            .expect("postgres runs");
        let options = PgConnectOptions::new_without_pgpass()
            .socket(folder.path())
            .username("gatehouse")
            .database("gatehouse");
        let replica = Self { child, options, _folder: folder };
        drop(replica.connect().await);
        replica
    }

    async fn connect(&self) -> PgConnection {
        connect(&self.options).await
    }

    pub(crate) async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut self.connect().await).await.expect(sql);
    }

    fn kill(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::QUIT).expect("it is there");
        self.child.wait().expect("a child");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// A shop that reads from the replica, with its workers, and the edge they tell.
struct Shopping {
    router: Router,
    workers: Workers,
    edge: EdgeDouble,
    replica: Replica,
    server: TestServer,
}

impl Shopping {
    async fn start() -> Self {
        let server = TestServer::start(12).await;
        let replica = Replica::start(&server).await;
        let edge = EdgeDouble::start().await;
        let purge: PurgeSettings = serde_json::from_value(
            value!({ "edges": [format!("http://{}", edge.address)], "token": "secret" }),
        )
        .expect("settings");
        let mut settings = Settings { purge, ..Settings::default() };
        // Longer than a replica is trusted: while a request waits for a primary that has just gone, the replicas come to answer
        // in its place.
        settings.database.acquire_timeout = Duration::from_secs(1);
        let metrics = Arc::new(Metrics::new(settings.database.slow_query));
        let pool = |options: &PgConnectOptions| {
            Database::new(options.clone(), &settings.database, Arc::clone(&metrics))
        };
        let (database, copy) = (pool(&server.options), pool(&replica.options));
        let reads = Reads::new(database.clone(), vec![copy], Duration::from_millis(800), None);
        let (activity, writer) = ActivityLog::new(Arc::clone(&metrics));
        let workers = Workers::start(
            server.options.clone(),
            &settings,
            Shared {
                memory: CommonMemory::default(),
                activity: writer,
                reads: reads.clone(),
                metrics: Arc::clone(&metrics),
                tracer: Tracer::default(),
                exporter: None,
            },
        );
        let (passwords, proxies) = (Passwords::new(Arc::clone(&metrics)), Arc::default());
        let searches = searches();
        let shop = Shop {
            memory: CommonMemory::default(),
            database,
            reads,
            metrics,
            tracer: Tracer::default(),
            activity,
            passwords,
            searches,
            site: "https://shop.test".into(),
            proxies,
        };
        let shopping = Self {
            router: server::router(shop.clone(), Duration::from_secs(10)).merge(server::admin_router(shop)),
            workers,
            edge,
            replica,
            server,
        };
        // Until it is trusted, the primary answers.
        let trusted = async { while !shopping.read_by_replica(KETTLE).await {} };
        tokio::time::timeout(PATIENCE, trusted).await.expect("the replica is trusted in time");
        shopping
    }

    /// Whether this read has left its statement at the replica, where there was none.
    async fn read_by_replica(&self, uri: &str) -> bool {
        self.reads_of_replica().await != {
            assert_eq!(get(&self.router, uri).await.status, StatusCode::OK);
            self.reads_of_replica().await
        }
    }

    async fn reads_of_replica(&self) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
              WHERE application_name = 'gatehouse-origin' AND query LIKE '%FROM products p%'",
        )
        .fetch_one(&mut self.replica.connect().await)
        .await
        .expect("a count")
    }

    async fn price(&self) -> i64 {
        get(&self.router, KETTLE).await.json()["price_cents"].as_i64().expect("a price")
    }

    async fn set_price(&self, administrator: &Customer, cents: i64) -> Answer {
        let fields = [("if-match", "*")];
        administrator.send(Method::PATCH, KETTLE, &fields, &value!({ "price_cents": cents })).await
    }
}

#[tokio::test]
async fn an_edge_that_fetches_after_a_purge_gets_what_is_new() {
    let mut shopping = Shopping::start().await;
    let administrator = Customer::administrator(&shopping.server, &shopping.router).await;
    // With a replica that keeps up, and with one that stands still until it is left out.
    for (cents, paused) in [(111, false), (222, true), (333, true)] {
        if paused {
            shopping.replica.run("SELECT pg_wal_replay_pause()").await;
        }
        assert_eq!(shopping.set_price(&administrator, cents).await.status, StatusCode::OK);
        assert!(shopping.edge.purged().await.contains(&"product-1".to_owned()));
        assert_eq!(shopping.price().await, cents, "the old one would now be kept for minutes");
        shopping.replica.run("SELECT pg_wal_replay_resume()").await;
    }
    shopping.workers.stop().await;
}

#[tokio::test]
async fn who_has_written_reads_it() {
    let shopping = Shopping::start().await;
    let ada = Customer::register(&shopping.router, "ada@example.org").await;
    shopping.replica.run("SELECT pg_wal_replay_pause()").await;
    let order = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    let placed = ada.send(Method::POST, "/api/orders", &[("idempotency-key", "k1")], &order).await;
    assert_eq!(placed.status, StatusCode::CREATED);
    let written = placed.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    assert!(written.starts_with("__Host-written="), "{written}");
    let browser = Customer { cookie: format!("{}; {written}", ada.cookie), ..ada };
    assert_eq!(browser.get(placed.header("location")).await.json(), placed.json());
    assert_eq!(browser.get("/api/orders").await.json()["orders"].as_array().map(Vec::len), Some(1));
    // A signature of somebody else: then the primary.
    let forged = Customer { cookie: browser.cookie.replace("written=", "written=1"), ..browser };
    assert_eq!(forged.get(placed.header("location")).await.json(), placed.json());
    shopping.workers.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_gone_is_left_out() {
    let mut shopping = Shopping::start().await;
    shopping.replica.kill();
    // Its pool may still hold connections that do not know yet.
    let settled = async { while get(&shopping.router, KETTLE).await.status != StatusCode::OK {} };
    tokio::time::timeout(PATIENCE, settled).await.expect("reads go to the primary in time");
    for _ in 0..20 {
        assert_eq!(get(&shopping.router, KETTLE).await.status, StatusCode::OK);
    }
    shopping.workers.stop().await;
}

#[tokio::test]
async fn without_the_primary_what_everybody_may_see_is_still_read() {
    let Shopping { router, workers: _workers, replica: _replica, server, .. } = Shopping::start().await;
    let ada = Customer::register(&router, "ada@example.org").await;
    let kettle = get(&router, KETTLE).await;
    tokio::task::spawn_blocking(move || drop(server)).await.expect("the primary stops");
    // No read fails while the origin finds out.
    let alone = async {
        while get(&router, "/readyz").await.body != b"ready to be read from\n" {
            assert_eq!(get(&router, KETTLE).await.json(), kettle.json());
        }
    };
    tokio::time::timeout(PATIENCE, alone).await.expect("the origin finds out in time");
    let stock = format!("{KETTLE}/stock");
    for uri in [KETTLE, &stock, "/api/products?category=kitchen&sort=name", "/api/categories"] {
        let answer = get(&router, uri).await;
        assert_eq!(answer.status, StatusCode::OK, "{uri}");
        assert_eq!(answer.header("cache-control"), "public, max-age=5, stale-if-error=86400", "{uri}");
        assert!(!answer.header("surrogate-key").is_empty(), "{uri}");
        let again = get_if_none_match(&router, uri, answer.header("etag")).await;
        assert_eq!(again.header("cache-control"), answer.header("cache-control"), "{uri}");
    }
    assert_eq!(metric(&router, "origin_replica_trusted{pool=\"replica-1\"}").await, 0.0);

    // What is somebody's own, and whatever changes something, waits for the primary.
    assert_eq!(ada.get("/api/orders").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let order = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    let placed = ada.send(Method::POST, "/api/orders", &[("idempotency-key", "k1")], &order).await;
    assert_eq!(placed.status, StatusCode::SERVICE_UNAVAILABLE);
    // With a cookie that cannot be verified nobody knows what was written, so only the primary may answer.
    let writer = Customer { cookie: "__Host-written=1.forged".to_owned(), ..ada };
    assert_eq!(writer.get(KETTLE).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn without_the_primary_a_replica_that_lacks_what_was_seen_of_it_answers_nobody() {
    let Shopping { router, workers: _workers, mut edge, replica, server } = Shopping::start().await;
    let administrator = Customer::administrator(&server, &router).await;
    for (name, value) in [("trusted", 1.0), ("lag_bytes", 0.0)] {
        let reached = async {
            while metric(&router, &format!("origin_replica_{name}{{pool=\"replica-1\"}}")).await != value {
                // Nothing in the loop waits, so without this the task that watches the replicas could not go on.
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect(name);
    }
    replica.run("SELECT pg_wal_replay_pause()").await;
    let change = value!({ "price_cents": 111 });
    let changed = administrator.send(Method::PATCH, KETTLE, &[("if-match", "*")], &change).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert!(edge.purged().await.contains(&"product-1".to_owned()));
    assert!(metric(&router, "origin_replica_lag_bytes{pool=\"replica-1\"}").await > 0.0);
    assert_eq!(metric(&router, "origin_replica_trusted{pool=\"replica-1\"}").await, 0.0);
    tokio::task::spawn_blocking(move || drop(server)).await.expect("the primary stops");
    assert_eq!(get(&router, KETTLE).await.status, StatusCode::SERVICE_UNAVAILABLE, "the old price is gone");
    assert_eq!(get(&router, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    // Once it has replayed all that was seen of the primary, it may answer in its place.
    replica.run("SELECT pg_wal_replay_resume()").await;
    let recovered = async { while get(&router, "/readyz").await.status != StatusCode::OK {} };
    tokio::time::timeout(PATIENCE, recovered).await.expect("the replica catches up in time");
    assert_eq!(get(&router, KETTLE).await.json()["price_cents"], 111);
}

#[tokio::test]
async fn every_pool_has_its_gauges() {
    let shopping = Shopping::start().await;
    // Registering writes, and so opens a connection to the primary, which reads may not have needed yet.
    Customer::register(&shopping.router, "ada@example.org").await;
    for pool in ["primary", "replica-1"] {
        let limit = metric(&shopping.router, &format!("origin_connections_limit{{pool=\"{pool}\"}}")).await;
        let open = metric(&shopping.router, &format!("origin_connections{{pool=\"{pool}\"}}")).await;
        assert!((1.0..=20.0).contains(&open), "{pool}: {open}");
        assert_eq!(limit, 20.0, "{pool}");
    }
    shopping.workers.stop().await;
}
