//! Several instances of the origin, one PostgreSQL, and a Redis in which they remember together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Method, Request, StatusCode};
use origin::{
    activity_log::ActivityLog,
    common_memory::CommonMemory,
    database::Database,
    observe::Metrics,
    passwords::Passwords,
    replicas::Reads,
    server,
    settings::{RedisSettings, Settings},
    shop::Shop,
    traces::Tracer,
    workers::{Shared, Workers},
};
use rustix::process::Signal;
use serde_json::{Value, json as value};
use tokio::task::JoinSet;

use crate::{
    PATIENCE,
    edge_double::EdgeDouble,
    redis_server::RedisServer,
    requests::{Answer, Customer, cookie, get, get_if_none_match, json, metric, send, send_json},
    test_server::{TestServer, searches},
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";
const STOCK: &str = "/api/products/harbour-enamel-kettle/stock";
const REMEMBERED: [&str; 10] = [
    "/api/products",
    "/api/products?category=kitchen&sort=price_asc",
    "/api/products?search=kettle",
    "/api/categories",
    "/api/suggestions?words=ket",
    STOCK,
    "/",
    "/category/kitchen?stock=in",
    "/search?q=kettle",
    "/search",
];

/// One of several origins.
struct Instance {
    router: Router,
    _workers: Workers,
}

impl Instance {
    fn start(server: &TestServer, redis: &str, timeout: &str, edge: Option<&EdgeDouble>) -> Self {
        let redis: RedisSettings = serde_json::from_value(value!({
            "url": redis,
            "timeout": timeout,
            // A count that does not go by itself meanwhile.
            "collapse_timeout": "30s",
            "stock": "1m",
        }))
        .expect("settings");
        let edges: Vec<String> = edge.iter().map(|edge| format!("http://{}", edge.address)).collect();
        let purge = serde_json::from_value(value!({ "edges": edges, "token": "secret" })).expect("settings");
        let settings = Settings { redis, purge, ..Settings::default() };
        let metrics = Arc::new(Metrics::new(settings.database.slow_query));
        let memory = CommonMemory::new(&settings.redis, &metrics).expect("a URL");
        let database = Database::new(server.options.clone(), &settings.database, Arc::clone(&metrics));
        let reads = Reads::new(database.clone(), Vec::new(), Duration::from_secs(1), None).remembering(true);
        let (activity, writer) = ActivityLog::new(Arc::clone(&metrics));
        let shared = Shared {
            activity: writer,
            memory: memory.clone(),
            reads: reads.clone(),
            metrics: Arc::clone(&metrics),
            tracer: Tracer::default(),
            exporter: None,
        };
        let workers = Workers::start(server.options.clone(), &settings, shared);
        let (passwords, searches) = (Passwords::new(Arc::clone(&metrics)), searches());
        let shop = Shop {
            memory,
            database,
            reads,
            metrics,
            tracer: Tracer::default(),
            activity,
            passwords,
            searches,
            site: "https://shop.test".into(),
            proxies: Arc::default(),
        };
        let router = server::router(shop.clone(), Duration::from_secs(10)).merge(server::admin_router(shop));
        Self { router, _workers: workers }
    }

    async fn believes(&self, redis: bool) {
        let wanted = if redis { 1.0 } else { 0.0 };
        let believes = async {
            while metric(&self.router, "origin_memory_believed").await != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, believes).await.expect("it is believed, or not, in time");
    }

    /// How often each statement has been asked.
    async fn statements(&self) -> BTreeMap<String, u64> {
        let text = String::from_utf8(get(&self.router, "/metrics").await.body).expect("text");
        let lines = text.lines().filter_map(|line| {
            let (name, count) =
                line.strip_prefix("origin_query_duration_seconds_count{query=\"")?.split_once("\"} ")?;
            Some((name.to_owned(), count.parse().expect("a number")))
        });
        lines.collect()
    }

    async fn get(&self, uri: &str) -> Answer {
        get(&self.router, uri).await
    }

    async fn session(&self, cookie: &str) -> Value {
        let request = Request::get("/api/session").header("cookie", cookie);
        send(&self.router, request.body(Body::empty()).expect("a request")).await.json()["user"].clone()
    }
}

struct Several {
    one: Instance,
    other: Instance,
    edge: EdgeDouble,
    redis: RedisServer,
    server: TestServer,
}

impl Several {
    async fn start() -> Self {
        Self::waiting("300ms").await
    }

    /// Those that wait so long for Redis.
    async fn waiting(timeout: &str) -> Self {
        let (server, redis, edge) =
            (TestServer::start(60).await, RedisServer::start().await, EdgeDouble::start().await);
        let (one, other) = (
            Instance::start(&server, &redis.url(), timeout, Some(&edge)),
            Instance::start(&server, &redis.url(), timeout, Some(&edge)),
        );
        one.believes(true).await;
        other.believes(true).await;
        Self { one, other, edge, redis, server }
    }

    async fn told(&self) {
        let told = async {
            let count = "SELECT count(*) FROM outbox";
            while sqlx::query_scalar::<_, i64>(count)
                .fetch_one(&mut self.server.connect().await)
                .await
                .expect("a count")
                > 0
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("the outbox empties");
    }

    async fn set_price(&self, administrator: &Customer, cents: i64) {
        let tag = self.one.get(KETTLE).await.header("etag").to_owned();
        let body = value!({ "price_cents": cents });
        let answer = administrator.send(Method::PATCH, KETTLE, &[("if-match", &tag)], &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
}

fn price(list: &Answer) -> Value {
    let products = list.json()["products"].clone();
    let of_it = |product: &&Value| product["slug"] == "harbour-enamel-kettle";
    products.as_array().expect("a list").iter().find(of_it).expect("it is listed")["price_cents"].clone()
}

const CHEAPEST: &str = "/api/products?category=kitchen&sort=price_asc";

#[tokio::test]
async fn what_one_instance_has_read_the_other_answers_without_the_database() {
    let shop = Several::start().await;
    for uri in REMEMBERED {
        let before = shop.other.statements().await;
        let read = shop.one.get(uri).await;
        let remembered = shop.other.get(uri).await;
        assert_eq!(read.status, StatusCode::OK, "{uri}: {read:?}");
        for field in ["etag", "cache-control", "surrogate-key", "content-type"] {
            assert_eq!(remembered.header(field), read.header(field), "{uri}: {field}");
        }
        assert!(remembered.status == StatusCode::OK && remembered.body == read.body, "{uri}");
        let known = get_if_none_match(&shop.other.router, uri, read.header("etag")).await;
        assert_eq!(known.status, StatusCode::NOT_MODIFIED, "{uri}");
        assert_eq!(shop.other.statements().await, before, "{uri}");
    }
    // Everything in Redis goes by itself, and is small.
    let keys: Vec<String> = shop.redis.ask(&["KEYS", "*"]).await;
    assert!(keys.len() > REMEMBERED.len(), "{keys:?}");
    for key in keys {
        assert!(key.starts_with("gatehouse-origin:shop:1:"), "{key}");
        let life: i64 = shop.redis.ask(&["PTTL", &key]).await;
        assert!((1..=24 * 60 * 60 * 1000).contains(&life) || life == -2, "{key}: {life}");
    }
}

#[tokio::test]
async fn of_many_that_ask_at_once_one_asks_the_database() {
    // Longer than a busy machine lets Redis wait: who does not hear from it asks the database.
    let shop = Several::waiting("10s").await;
    for (uri, statement) in [
        ("/api/products?search=kettle", "products.search"),
        ("/category/kitchen", "products.bands"),
        (STOCK, "products.stock"),
    ] {
        let mut asking = JoinSet::new();
        for number in 0..100 {
            let router = if number % 2 == 0 { &shop.one.router } else { &shop.other.router }.clone();
            asking.spawn(async move { get(&router, uri).await.status });
        }
        let statuses = asking.join_all().await;
        assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{uri}: {statuses:?}");
        let mut asked = 0;
        for instance in [&shop.one, &shop.other] {
            asked += instance.statements().await.get(statement).copied().unwrap_or(0);
        }
        assert_eq!(asked, 1, "{uri}");
    }
}

#[tokio::test]
async fn a_change_is_forgotten_before_the_edges_are_purged() {
    let mut shop = Several::start().await;
    let administrator = Customer::administrator(&shop.server, &shop.one.router).await;
    for cents in [111, 222, 333] {
        for uri in [CHEAPEST, "/category/kitchen", "/"] {
            shop.other.get(uri).await;
        }
        shop.set_price(&administrator, cents).await;
        let tags = shop.edge.purged().await;
        assert!(tags.contains(&"category-kitchen".to_owned()), "{tags:?}");
        // What an edge asks for now is new, whichever instance it asks.
        for instance in [&shop.one, &shop.other] {
            assert_eq!(price(&instance.get(CHEAPEST).await), cents);
            let page = String::from_utf8(instance.get("/category/kitchen").await.body).expect("a page");
            assert!(page.contains(&format!("€{}.{:02}", cents / 100, cents % 100)), "{cents}");
        }
        shop.told().await;
    }
    // Selling out is seen at once, although the count of the pieces may be older.
    assert!(shop.other.get(STOCK).await.json()["stock"].as_i64() > Some(0));
    sqlx::query("UPDATE products SET stock = 1 WHERE id = 1")
        .execute(&mut shop.server.connect().await)
        .await
        .expect("an update");
    let order = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
    let placed = administrator.send(Method::POST, "/api/orders", &[("idempotency-key", "k")], &order).await;
    assert_eq!(placed.status, StatusCode::CREATED, "orders never ask Redis: {placed:?}");
    shop.told().await;
    assert_eq!(shop.other.get(STOCK).await.json()["stock"], 0);
}

#[tokio::test]
async fn a_session_that_ends_has_ended_for_every_instance() {
    let shop = Several::start().await;
    let (one, other) = (&shop.one, &shop.other);
    let credentials = value!({ "email": "ada@example.org", "password": "correct horse" });
    let sign_in = async || {
        let answer = send_json(&one.router, json(Method::POST, "/api/session", &credentials)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        cookie(&answer)
    };
    let first = Customer::register(&one.router, "ada@example.org").await;
    // Whoever has asked once is remembered.
    assert_eq!(other.session(&first.cookie).await["email"], "ada@example.org");
    let before = other.statements().await;
    for instance in [other, one, other] {
        assert_eq!(instance.session(&first.cookie).await["id"], first.id);
    }
    assert_eq!(other.statements().await, before);

    let second = Customer { router: one.router.clone(), cookie: sign_in().await, id: first.id };
    assert_eq!(other.session(&second.cookie).await["id"], first.id);
    assert_eq!(second.send(Method::DELETE, "/api/session", &[], &value!(null)).await.status, 204);
    assert!(other.session(&second.cookie).await.is_null(), "signed out");
    assert_eq!(other.session(&first.cookie).await["id"], first.id, "another session goes on");

    let third = Customer { router: other.router.clone(), cookie: sign_in().await, id: first.id };
    assert_eq!(one.session(&third.cookie).await["id"], first.id);
    let passwords = value!({ "current": "correct horse", "new": "another horse" });
    let changed = third.send(Method::PUT, "/api/account/password", &[], &passwords).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    for ended in [&first.cookie, &third.cookie] {
        assert!(one.session(ended).await.is_null() && other.session(ended).await.is_null());
    }

    let fourth = Customer { router: one.router.clone(), cookie: cookie(&changed), id: first.id };
    assert_eq!(other.session(&fourth.cookie).await["id"], first.id);
    let farewell = value!({ "password": "another horse" });
    let deleted = fourth.send(Method::POST, "/api/account/deletion", &[], &farewell).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{deleted:?}");
    assert!(other.session(&fourth.cookie).await.is_null(), "the account is gone");
    shop.told().await;
}

#[tokio::test]
async fn a_session_ended_by_who_cannot_reach_redis_is_forgotten_by_who_can() {
    let shop = Several::start().await;
    // Nothing listens there.
    let cut_off = Instance::start(&shop.server, "redis://127.0.0.1:1", "300ms", None);
    let ada = Customer::register(&cut_off.router, "ada@example.org").await;
    assert_eq!(shop.other.session(&ada.cookie).await["id"], ada.id);
    assert_eq!(ada.send(Method::DELETE, "/api/session", &[], &value!(null)).await.status, 204);
    assert!(cut_off.session(&ada.cookie).await.is_null());
    let forgotten = async { while !shop.other.session(&ada.cookie).await.is_null() {} };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("it is forgotten in time");
    shop.told().await;
}

#[tokio::test]
async fn redis_away_hung_full_or_emptied_costs_no_answer() {
    let mut shop = Several::start().await;
    let administrator = Customer::administrator(&shop.server, &shop.one.router).await;
    let right = async |shop: &Several, what: &str| {
        for uri in REMEMBERED {
            for instance in [&shop.one, &shop.other] {
                assert_eq!(instance.get(uri).await.status, StatusCode::OK, "{what}: {uri}");
            }
        }
        assert_eq!(shop.other.session(&administrator.cookie).await["id"], administrator.id, "{what}");
    };
    right(&shop, "there").await;

    shop.redis.signal(Signal::STOP);
    right(&shop, "hung").await;
    shop.set_price(&administrator, 444).await;
    while !shop.edge.purged().await.contains(&"category-kitchen".to_owned()) {}
    shop.redis.signal(Signal::CONT);
    // The edges were told without Redis; whatever it remembers of before is believed by nobody until it is told too.
    for _ in 0..20 {
        assert_eq!(price(&shop.other.get(CHEAPEST).await), 444);
    }
    shop.told().await;
    shop.other.believes(true).await;
    assert_eq!(price(&shop.other.get(CHEAPEST).await), 444);

    shop.redis.kill();
    right(&shop, "killed").await;
    shop.one.believes(false).await;
    shop.other.believes(false).await;
    shop.redis.start_again().await;
    shop.one.believes(true).await;
    shop.other.believes(true).await;
    right(&shop, "back").await;
    let before = shop.other.statements().await;
    right(&shop, "back").await;
    assert_eq!(shop.other.statements().await, before, "it is used again");

    let _: String = shop.redis.ask(&["FLUSHALL"]).await;
    right(&shop, "emptied").await;
    let _: String = shop.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let _: String = shop.redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    right(&shop, "full").await;
    shop.set_price(&administrator, 555).await;
    while !shop.edge.purged().await.contains(&"category-kitchen".to_owned()) {}
    for instance in [&shop.one, &shop.other] {
        assert_eq!(price(&instance.get(CHEAPEST).await), 555, "what is forgotten needs no room");
    }
    let signed_out = administrator.send(Method::DELETE, "/api/session", &[], &value!(null)).await;
    assert_eq!(signed_out.status, 204);
    assert!(shop.other.session(&administrator.cookie).await.is_null(), "nor does the end of a session");
}
