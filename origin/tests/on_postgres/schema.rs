//! The schema by itself: plans, seeding, partitions.

use origin::{seed, statements};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::test_server::TestServer;

/// Tables of so few rows that reading them whole is the best plan.
const SMALL: [&str; 3] = ["categories", "catalogue_state", "activity_logs_default"];

/// A shop after some years: what the plans have to be right for.
const YEARS: &str = "
    INSERT INTO users (email, password_hash) SELECT 'c' || n || '@example.org', '-' FROM generate_series(1, 20000) n;
    INSERT INTO orders (user_id, total_cents, currency, created_at)
    SELECT 1 + n % 20000, 100, 'EUR', now() - n * interval '1 minute' FROM generate_series(1, 1000000) n;
    INSERT INTO order_lines (order_id, product_id, name, quantity, price_cents)
    SELECT n, 1 + n % 90000, 'Thing', 1, 100 FROM generate_series(1, 100000) n;
    INSERT INTO idempotency_keys (user_id, key, request_hash)
    SELECT 1 + n % 20000, n::text, sha256('') FROM generate_series(1, 50000) n;
    INSERT INTO sessions (token_hash, user_id, expires_at)
    SELECT sha256(convert_to(n::text, 'UTF8')), 1 + n % 20000, now() + interval '1 day' FROM generate_series(1, 50000) n;
    INSERT INTO activity_logs (timestamp, user_id, action)
    SELECT now() - n * interval '1 second', 1 + n % 20000, 'product.view' FROM generate_series(1, 1000000) n;
    INSERT INTO activity_logs (timestamp, user_id, action)
    SELECT now() + n * interval '1 minute', 1 + n % 20000, 'to come' FROM generate_series(1, 90000) n;
    INSERT INTO password_resets (token_hash, user_id, expires_at)
    SELECT sha256(convert_to(n::text, 'UTF8')), 1 + n % 20000, now() + interval '1 day' FROM generate_series(1, 20000) n;
    INSERT INTO mails (recipient, subject, body, due_at)
    SELECT 'c@example.org', 's', 'b', now() + interval '1 day' FROM generate_series(1, 20000) n;
    INSERT INTO pictures (stem, width, body)
    SELECT 'u-' || lpad(to_hex(n), 20, '0'), 640, 'x' FROM generate_series(1, 20000) n;
    INSERT INTO outbox (topic, payload, due_at)
    SELECT 'purge', '{}', now() + interval '1 day' FROM generate_series(1, 20000);
    ANALYZE;";

#[tokio::test]
async fn no_statement_scans_a_large_table() {
    let server = TestServer::start(100_000).await;
    let mut connection = server.connect().await;
    let products: i64 = sqlx::query_scalar("SELECT count(*) FROM products")
        .fetch_one(&mut connection)
        .await
        .expect("a count");
    assert_eq!(products, 100_000, "no two demo products share a slug");
    run(&mut connection, YEARS).await;
    // A prepared statement changes to a plan for all arguments after five uses: both kinds have to be good.
    for mode in ["force_custom_plan", "force_generic_plan"] {
        run(&mut connection, &format!("SET plan_cache_mode = {mode}")).await;
        for example in statements::examples() {
            run(&mut connection, &format!("PREPARE example AS {}", example.sql)).await;
            let arguments = match example.arguments.as_str() {
                "" => String::new(),
                some => format!("({some})"),
            };
            let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE example{arguments}");
            let plan: Value =
                sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut connection).await.expect("a plan");
            let mut scanned = Vec::new();
            sequential_scans(&plan, &mut scanned);
            scanned.retain(|table| !SMALL.contains(&table.as_str()));
            assert!(scanned.is_empty(), "{} ({mode}) reads all of {scanned:?}:\n{plan:#}", example.name);
            run(&mut connection, "DEALLOCATE example").await;
        }
    }
}

fn sequential_scans(plan: &Value, found: &mut Vec<String>) {
    match plan {
        Value::Object(members) => {
            if members.get("Node Type").is_some_and(|kind| kind == "Seq Scan") {
                found.extend(members.get("Relation Name").and_then(Value::as_str).map(str::to_owned));
            }
            members.values().for_each(|member| sequential_scans(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| sequential_scans(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_indexes_of_the_guide_are_there() {
    let server = TestServer::start(1).await;
    let definitions: Vec<String> =
        sqlx::query_scalar("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'")
            .fetch_all(&mut server.connect().await)
            .await
            .expect("the indexes");
    for wanted in [
        ".products USING btree (category_id",
        ".products USING btree (active",
        ".orders USING btree (user_id",
        ".orders USING btree (created_at DESC",
        ".activity_logs USING btree (user_id",
        ".activity_logs USING btree (\"timestamp\" DESC",
    ] {
        assert!(
            definitions.iter().any(|definition| definition.contains(wanted)),
            "{wanted}: {definitions:#?}"
        );
    }
}

#[tokio::test]
async fn seeding_again_adds_nothing_and_more_adds_the_rest() {
    let server = TestServer::start(100).await;
    let mut connection = server.connect().await;
    run(&mut connection, "UPDATE products SET price_cents = 1 WHERE slug = 'harbour-enamel-kettle'").await;
    assert_eq!(seed::seed(&mut connection, 100).await.expect("seeded"), 0);
    assert_eq!(seed::seed_if_empty(&mut connection, 500).await.expect("not empty"), 0);
    assert_eq!(seed::seed(&mut connection, 6_000).await.expect("seeded"), 5_900);
    let (products, kept): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE price_cents = 1) FROM products")
            .fetch_one(&mut connection)
            .await
            .expect("a count");
    assert_eq!((products, kept), (6_000, 1));
}

#[tokio::test]
async fn the_demo_catalogue_is_the_same_everywhere_and_has_its_pictures() {
    let server = TestServer::start(3_000).await;
    let mut connection = server.connect().await;
    let (slug, name, description, price, stock, image): (String, String, String, i64, i32, String) =
        sqlx::query_as(
            "SELECT slug, name, description, price_cents, stock, image FROM products WHERE id = 1",
        )
        .fetch_one(&mut connection)
        .await
        .expect("the first product");
    assert_eq!((slug.as_str(), name.as_str()), ("harbour-enamel-kettle", "Harbour Enamel Kettle"));
    assert_eq!(
        description,
        "The enamel kettle that Harbour is known for. Holds enough for six. Wipe with a damp cloth and it will \
         outlast the fashion."
    );
    assert_eq!((price, stock, image.as_str()), (5895, 112, "kettle-enamel"));
    let images: Vec<String> = sqlx::query_scalar("SELECT DISTINCT image FROM products")
        .fetch_all(&mut connection)
        .await
        .expect("their images");
    assert_eq!(images.len(), 144, "one for each kind of thing in each material");
    for image in images {
        assert!(storefront::image_url(&image).is_some(), "{image}");
    }
}

#[tokio::test]
async fn a_late_partition_takes_over_what_the_default_has_caught() {
    let server = TestServer::start(1).await;
    let mut connection = server.connect().await;
    run(
        &mut connection,
        "INSERT INTO activity_logs (timestamp, user_id, action)
         VALUES ('2031-02-28 23:59:59.999999+00', 1, 'view'), ('2031-03-01 00:00:00+00', 1, 'view')",
    )
    .await;
    let place = "SELECT tableoid::regclass::text FROM activity_logs ORDER BY timestamp";
    let places = async |connection: &mut PgConnection| {
        sqlx::query_scalar::<_, String>(place).fetch_all(connection).await.expect("two rows")
    };
    assert_eq!(places(&mut connection).await, ["activity_logs_default", "activity_logs_default"]);
    for expected in [true, false] {
        let made: bool = sqlx::query_scalar("SELECT create_activity_partition('2031-02-10')")
            .fetch_one(&mut connection)
            .await
            .expect("a partition");
        assert_eq!(made, expected);
    }
    assert_eq!(places(&mut connection).await, ["activity_logs_2031_02", "activity_logs_default"]);
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}
