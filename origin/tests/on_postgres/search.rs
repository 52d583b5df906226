//! Searching: what is found, what is suggested, and what one client's searches cost others.

use std::num::NonZeroU32;

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use origin::{
    search::Searches,
    settings::{DatabaseSettings, SearchSettings},
};
use serde_json::Value;
use sqlx::Connection as _;

use crate::{
    requests::{Answer, get, send},
    test_server::TestServer,
};

async fn by(router: &Router, client: &str, uri: &str) -> Answer {
    let request = Request::get(uri).header("x-forwarded-for", client);
    send(router, request.body(Body::empty()).expect("a request")).await
}

fn names(answer: &Answer) -> Vec<String> {
    let products = answer.json()["products"].as_array().expect("products").clone();
    products.iter().map(|product| product["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn the_beginning_of_a_word_finds_it() {
    let server = TestServer::start(600).await;
    let router = server.router();
    for begun in ["ke", "ket", "kett", "kettles", "enamel ke", "Kettle%20-copper"] {
        let begun = begun.replace(' ', "%20");
        let found = names(&get(&router, &format!("/api/products?search={begun}&limit=100")).await);
        assert!(!found.is_empty() && found.iter().any(|name| name.contains("Kettle")), "{begun}: {found:?}");
        let suggested = names(&get(&router, &format!("/api/suggestions?words={begun}")).await);
        assert!(
            suggested.len() <= 8 && suggested.iter().any(|name| name.contains("Kettle")),
            "{begun}: {suggested:?}"
        );
    }
    let without = names(&get(&router, "/api/products?search=kettle%20-copper&limit=100").await);
    assert!(without.iter().all(|name| !name.contains("Copper")), "{without:?}");
}

#[tokio::test]
async fn what_is_named_so_is_suggested_before_what_is_described_so() {
    let server = TestServer::start(60).await;
    sqlx::query(
        "UPDATE products SET active = true, name = CASE id WHEN 60 THEN 'Quince Press' ELSE 'Thing ' || id END,
                description = CASE id WHEN 1 THEN 'For quince and other fruit.' ELSE 'A thing.' END",
    )
    .execute(&mut server.connect().await)
    .await
    .expect("an update");
    // Product 1 is the newest, product 60 the oldest of them.
    let suggested = names(&get(&server.router(), "/api/suggestions?words=quin").await);
    assert_eq!(suggested, ["Quince Press", "Thing 1"]);
}

#[tokio::test]
async fn a_typing_error_is_forgiven_where_the_server_can() {
    let server = TestServer::start(600).await;
    let router = server.router();
    for misspelt in ["kettel", "ketle", "lampp", "blankit"] {
        let suggested = names(&get(&router, &format!("/api/suggestions?words={misspelt}")).await);
        let meant = ["Kettle", "Lamp", "Blanket"];
        assert!(
            meant.iter().any(|meant| suggested.first().is_some_and(|name| name.contains(meant))),
            "{misspelt}: {suggested:?}"
        );
    }
    assert!(names(&get(&router, "/api/suggestions?words=xyzzyx").await).is_empty());
    // Where it has no pg_trgm, there is nothing to suggest, and that is all.
    sqlx::raw_sql(
        "DROP FUNCTION products_like; DROP EXTENSION pg_trgm CASCADE;
         CREATE FUNCTION products_like(words text, most integer) RETURNS TABLE (id bigint, likeness real)
         LANGUAGE sql STABLE STRICT ROWS 100 AS 'SELECT NULL::bigint, NULL::real WHERE false'",
    )
    .execute(&mut server.connect().await)
    .await
    .expect("the server loses it");
    let without = get(&router, "/api/suggestions?words=kettel").await;
    assert_eq!((without.status, names(&without).len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn what_is_only_to_be_left_out_is_refused() {
    let server = TestServer::start(12).await;
    let router = server.router();
    for search in ["-zzz", "-a%20-b", "%20-x", "!!", &"a%20".repeat(13)] {
        for uri in [format!("/api/products?search={search}"), format!("/api/suggestions?words={search}")] {
            let answer = get(&router, &uri).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
        }
    }
    // Words that count for nothing leave nothing but what is to be left out.
    for search in ["the%20-zzz", "the"] {
        let answer = get(&router, &format!("/api/products?search={search}")).await;
        assert_eq!((answer.status, names(&answer).len()), (StatusCode::OK, 0), "{search}");
    }
}

#[tokio::test]
async fn matches_are_counted_up_to_a_thousand_and_pages_go_on_beyond() {
    let server = TestServer::start(1_300).await;
    let router = server.router();
    sqlx::query("UPDATE products SET active = true, description = CASE WHEN id <= 1000 THEN 'rare common' ELSE 'common' END")
        .execute(&mut server.connect().await)
        .await
        .expect("an update");
    for (word, count, or_more, all) in
        [("rare", 1_000, false, 1_000), ("common", 1_000, true, 1_300), ("nowhere", 0, false, 0)]
    {
        for sort in ["newest", "price_asc", "price_desc", "name"] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page =
                    get(&router, &format!("/api/products?search={word}&limit=100&sort={sort}{cursor}"))
                        .await
                        .json();
                assert_eq!(
                    page["found"],
                    serde_json::json!({ "count": count, "or_more": or_more }),
                    "{word} {sort}"
                );
                let ids = page["products"]
                    .as_array()
                    .expect("products")
                    .iter()
                    .map(|product| product["id"].as_i64());
                seen.extend(ids);
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            let shown = seen.len();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!((shown, seen.len()), (all, all), "{word} {sort}: each once");
        }
    }
    assert_eq!(get(&router, "/api/products").await.json()["found"], Value::Null);
}

/// A search table of its own, and all the rest as it is by default.
fn shop(server: &TestServer, settings: &SearchSettings) -> Router {
    TestServer::router_on(server.options.clone(), &DatabaseSettings::default(), Searches::new(settings))
}

#[tokio::test]
async fn one_client_searches_so_often_and_others_are_not_told_to_wait_for_it() {
    let server = TestServer::start(12).await;
    let burst = NonZeroU32::new(3).expect("not zero");
    // Slow enough that nothing comes back during the test.
    let rate = NonZeroU32::MIN;
    let router =
        shop(&server, &SearchSettings { rate, burst, timeout: crate::PATIENCE, ..SearchSettings::default() });
    let mut statuses = Vec::new();
    for number in 0..10 {
        let uri =
            if number % 2 == 0 { "/api/products?search=kettle" } else { "/api/suggestions?words=kettle" };
        let answer = by(&router, "203.0.113.1", uri).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
            assert_eq!(answer.json()["type"], "urn:gatehouse:problem:too-many-searches");
        }
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses.iter().filter(|status| **status == 429).count() >= 5, "{statuses:?}");
    assert_eq!(
        by(&router, "203.0.113.1", "/api/products").await.status,
        StatusCode::OK,
        "a list is no search"
    );
    assert_eq!(by(&router, "198.51.100.2", "/api/products?search=kettle").await.status, StatusCode::OK);
}

#[tokio::test]
async fn searches_that_take_long_are_given_up_and_leave_the_other_connections_alone() {
    let server = TestServer::start(12).await;
    let two = NonZeroU32::new(2).expect("not zero");
    let many = NonZeroU32::new(1_000).expect("not zero");
    let timeout = std::time::Duration::from_millis(300);
    let router = shop(&server, &SearchSettings { rate: many, burst: many, connections: two, timeout });
    let mut locker = server.connect().await;
    let mut lock = locker.begin().await.expect("a transaction");
    // Reading products waits; categories by themselves do not.
    sqlx::query("LOCK TABLE products IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("the lock");
    let searches: Vec<_> = (0..12)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move { get(&router, "/api/products?search=kettle").await })
        })
        .collect();
    let mut watcher = server.connect().await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gatehouse-origin' AND state = 'active'";
    let mut most = 0;
    while !searches.iter().all(tokio::task::JoinHandle::is_finished) {
        let now: i64 = sqlx::query_scalar(running).fetch_one(&mut watcher).await.expect("a count");
        most = most.max(now);
        assert_eq!(get(&router, "/api/session").await.status, StatusCode::OK);
    }
    for search in searches {
        let answer = search.await.expect("no panic");
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        assert_eq!(answer.json()["type"], "urn:gatehouse:problem:search-too-slow");
    }
    assert!((1..=2).contains(&most), "{most} searches in the database at once");
    lock.rollback().await.expect("the lock goes");
    assert_eq!(get(&router, "/api/products?search=kettle").await.status, StatusCode::OK);
}
