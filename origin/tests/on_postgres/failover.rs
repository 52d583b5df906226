//! A database that goes, comes, is replaced, or is newer than the program.

use std::{process::Stdio, sync::Arc};

use http::{Method, StatusCode};
use origin::{
    database::{self, Database},
    primary::Servers,
    settings::DatabaseSettings,
};
use private_postgres::PrivatePostgres;
use rustix::process::Signal;
use serde_json::json as value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::watch,
};

use crate::{
    PATIENCE,
    origin_process::{ORIGIN, Origin},
    replicas::Replica,
    requests::{Answer, Customer, get},
    test_server::{TestServer, connect, folder},
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";

async fn order(customer: &Customer, key: &str) -> Answer {
    let lines = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    customer.send(Method::POST, "/api/orders", &[("idempotency-key", key)], &lines).await
}

#[tokio::test]
async fn a_primary_that_only_reads_is_unavailable_for_writes_and_its_connections_are_left() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let customer = Customer::register(&router, "ada@example.org").await;
    let set = async |sql: &'static str| {
        let mut connection = server.connect().await;
        sqlx::raw_sql("SET default_transaction_read_only = off")
            .execute(&mut connection)
            .await
            .expect("writable");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect(sql);
    };
    set("ALTER DATABASE gatehouse SET default_transaction_read_only = on").await;
    // Connections from before do not know yet; none of those that do is used again.
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gatehouse-origin'",
    )
    .execute(&mut server.connect().await)
    .await
    .expect("terminated");
    let mut refused = Vec::new();
    for number in 0..4 {
        refused.push(order(&customer, &format!("k{number}")).await);
    }
    for answer in &refused {
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (StatusCode::SERVICE_UNAVAILABLE, "1"),
            "{answer:?}"
        );
        assert_eq!(answer.json()["type"], "urn:gatehouse:problem:unavailable");
    }
    assert_eq!(get(&router, KETTLE).await.status, StatusCode::OK, "reading goes on");
    set("ALTER DATABASE gatehouse SET default_transaction_read_only = off").await;
    // That read's connection may still be one of those that only read: the first write finds out.
    let recovered = async { while order(&customer, "again").await.status != StatusCode::CREATED {} };
    tokio::time::timeout(PATIENCE, recovered).await.expect("writes go on without a restart");
}

#[tokio::test]
async fn a_promoted_replica_is_found_without_a_restart() {
    let mut server = TestServer::start(12).await;
    let replica = Replica::start(&server).await;
    let servers = Servers::new(vec![server.options.clone(), replica.options.clone()]);
    let router =
        TestServer::router_on(servers.clone(), &DatabaseSettings::default(), crate::test_server::searches());
    let (stop, stopped) = watch::channel(false);
    let watching = tokio::spawn(servers.clone().watch(stopped));
    let customer = Customer::register(&router, "ada@example.org").await;
    assert_eq!(order(&customer, "before").await.status, StatusCode::CREATED);
    let reached = async {
        let count = "SELECT count(*) FROM orders";
        let mut connection = connect(&replica.options).await;
        while sqlx::query_scalar::<_, i64>(count).fetch_one(&mut connection).await.expect("a count") < 1 {}
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the replica has the order");
    let private = server.private.take();
    tokio::task::spawn_blocking(move || drop(private)).await.expect("the primary stops");
    replica.run("SELECT pg_promote()").await;
    let recovered = async {
        loop {
            let answer = order(&customer, "after").await;
            match answer.status {
                StatusCode::CREATED => break,
                status => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("the promoted one takes orders");
    assert_eq!(customer.get("/api/orders").await.json()["orders"].as_array().map(Vec::len), Some(2));
    stop.send(true).expect("it listens");
    watching.await.expect("it ends");
}

#[tokio::test]
async fn of_several_servers_the_one_that_takes_writes_is_chosen_at_the_start() {
    let server = TestServer::start(12).await;
    let replica = Replica::start(&server).await;
    let servers = Servers::new(vec![replica.options.clone(), server.options.clone()]);
    let mut connection = servers.connect(PATIENCE).await.expect("one of them");
    let standby: bool =
        sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await.expect("an answer");
    assert!(!standby);
    let metrics = Arc::new(origin::observe::Metrics::new(DatabaseSettings::default().slow_query));
    let database = Database::new(servers.clone(), &DatabaseSettings::default(), metrics);
    assert!(database.acquire().await.is_ok());
    // Another list, as after SIGHUP: what was open is not used again.
    servers.replace(vec![replica.options.clone()]);
    let mut connection = database.acquire().await.expect("the replica");
    let (standby,): (bool,) =
        connection.one("test", sqlx::query_as("SELECT pg_is_in_recovery()")).await.expect("an answer");
    assert!(standby);
}

#[tokio::test]
async fn with_the_database_away_at_the_start_pages_are_served_and_the_rest_follows_when_it_comes() {
    let data = folder();
    let path = data.path().to_owned();
    let start = move || PrivatePostgres::start(&path, std::path::Path::new(ORIGIN)).expect("it starts");
    let private = tokio::task::spawn_blocking(start.clone()).await.expect("no panic");
    let options = private.connect_options();
    let mut connection = connect(&options).await;
    database::migrate(&mut connection).await.expect("migrated");
    drop(connection);
    let socket = options.get_socket().expect("it has no other way in").display().to_string();
    tokio::task::spawn_blocking(move || drop(private)).await.expect("it stops");

    let url = format!("postgres://gatehouse@localhost/gatehouse?host={socket}&sslmode=disable");
    let elsewhere = folder();
    let mut command = Origin::command(elsewhere.path());
    command.env("DATABASE_URL", url);
    let origin = Origin::serve_by(command, elsewhere.path()).await;
    // Pages that show nothing of the catalogue.
    assert_eq!(origin.status("/cart").await, 200);
    for of_the_catalogue in ["/", "/api/categories"] {
        assert_eq!(origin.status(of_the_catalogue).await, 503, "{of_the_catalogue}");
    }
    let private = tokio::task::spawn_blocking(start).await.expect("no panic");
    let recovered = async { while origin.status("/api/categories").await != 200 {} };
    tokio::time::timeout(PATIENCE, recovered).await.expect("it is found");
    drop(origin);
    tokio::task::spawn_blocking(move || drop(private)).await.expect("it stops");
}

#[tokio::test]
async fn a_database_that_is_ahead_is_no_obstacle() {
    let server = TestServer::start(1).await;
    let mut connection = server.connect().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99990101000000, 'of a newer build', true, '', 0)",
    )
    .execute(&mut connection)
    .await
    .expect("a newer migration");
    database::migrate(&mut connection).await.expect("what is not known is left alone");
    assert_eq!(database::pending_migrations(&mut connection).await.expect("a count"), 0);
    let socket = server.socket().display();
    let url = format!("postgres://gatehouse@localhost/gatehouse?host={socket}&sslmode=disable");
    let data = folder();
    let mut command = Origin::command(data.path());
    let migrated = command.env("DATABASE_URL", &url).arg("migrate").output().await.expect("origin runs");
    let said = String::from_utf8_lossy(&migrated.stderr).into_owned();
    assert!(migrated.status.success() && said.contains("99990101000000"), "{said}");
}

#[tokio::test]
async fn a_hang_up_has_the_databases_servers_read_again() {
    let (one, other) = (TestServer::start(1).await, TestServer::start(3).await);
    let data = folder();
    let file = data.path().join("origin.toml");
    let write = |server: &TestServer, more: &str| {
        let socket = server.socket().display();
        let url = format!("postgres://gatehouse@localhost/gatehouse?host={socket}&sslmode=disable");
        std::fs::write(&file, format!("{more}[database]\nurl = [\"{url}\"]\n")).expect("the settings");
    };
    write(&one, "");
    let mut command = Origin::command(data.path());
    command.arg("--config").arg(&file).stderr(Stdio::piped());
    let mut origin = Origin::serve_by(command, data.path()).await;
    let mut log = BufReader::new(origin.child.stderr.take().expect("it is piped")).lines();
    let mut logged = async |what: &str| {
        let seen = async { while !log.next_line().await.expect("UTF-8").expect("it runs").contains(what) {} };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{what} is not logged"));
    };
    assert_eq!(origin.status("/api/products/harbour-enamel-kettle").await, 200);
    sqlx::query("DELETE FROM products").execute(&mut other.connect().await).await.expect("another shop");
    std::fs::write(&file, "[databse]\n").expect("a misspelt file");
    origin.signal(Signal::HUP);
    logged("the settings stay as they are").await;
    assert_eq!(origin.status("/api/products/harbour-enamel-kettle").await, 200);
    write(&other, "drain = \"1s\"\n");
    origin.signal(Signal::HUP);
    logged("holds after a restart").await;
    assert_eq!(origin.status("/api/products/harbour-enamel-kettle").await, 404);
}
