//! Several edges are one: what one has stored another finds, what one purges none serves any more, and Redis is in nobody's way.

mod audit;
mod limits;
mod sentinel;
mod tls;

use std::time::Duration;

use gatehouse_tests::{
    edge::{Edge, Setup},
    raw::{Raw, RawAnswer},
    redis::{self, Redis, Way},
    upstream::{Gate, Reply, Upstream},
    wait,
};
use serde_json::json;

/// An edge over this upstream and this Redis.
fn setup(upstream: &Upstream, redis: &str) -> Setup {
    Edge::over(upstream).tables(redis)
}

/// An edge that hears the others.
#[track_caller]
fn start(upstream: &Upstream, redis: &str) -> Edge {
    let edge = setup(upstream, redis).start();
    until_in_touch(&edge);
    edge
}

#[track_caller]
fn until_in_touch(edge: &Edge) {
    wait::until("the edge hears the others", || {
        (edge.metric("gatehouse_edge_tier_in_touch") == 1).then_some(())
    });
}

#[track_caller]
fn until_out_of_touch(edge: &Edge) {
    wait::until("the edge does not hear the others", || {
        (edge.metric("gatehouse_edge_tier_in_touch") == 0).then_some(())
    });
}

/// The same resource at every edge, whatever its port.
fn get(edge: &Edge, target: &str, more: &str) -> RawAnswer {
    let request = format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n{more}\r\n");
    edge.raw().send(request).answer()
}

fn cache_status(answer: &RawAnswer) -> &str {
    answer.header("cache-status").unwrap_or_default()
}

/// Until what has been fetched lies in Redis, which nobody waits for.
#[track_caller]
fn until_written(edge: &Edge, count: u64) {
    wait::until("Redis has what was offered", || {
        let page = edge.metrics();
        let line = "gatehouse_edge_tier_offers_total{tier=\"redis\",outcome=\"written\"} ";
        let written = page.lines().find_map(|shown| shown.strip_prefix(line)?.parse::<u64>().ok());
        (written.unwrap_or_default() >= count).then_some(())
    });
}

fn purge(edge: &Edge, what: &serde_json::Value) -> u16 {
    let content = what.to_string();
    let head = "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let mut admin = Raw::connect(edge.admin());
    admin.send(format!("{head}Content-Length: {}\r\n\r\n{content}", content.len())).answer().status
}

const CACHED: &str = "max-age=600";

fn versioned() -> (std::sync::Arc<std::sync::atomic::AtomicUsize>, Upstream) {
    let version = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let upstream = Upstream::start({
        let version = std::sync::Arc::clone(&version);
        move |seen| {
            if seen.method != "GET" {
                return Reply::ok("done");
            }
            let version = version.load(std::sync::atomic::Ordering::SeqCst);
            let etag = format!("\"{version}\"");
            if seen.headers.get("if-none-match").is_some_and(|sent| sent.as_bytes() == etag.as_bytes()) {
                return Reply::status(304).header("etag", &etag).cache_control(CACHED);
            }
            Reply::ok(format!("version {version}"))
                .header("etag", &etag)
                .header("surrogate-key", "all")
                .cache_control(CACHED)
        }
    });
    (version, upstream)
}

#[test]
fn a_cold_edge_beside_a_warm_tier_asks_the_origin_for_nothing_that_is_stored() {
    let large = "A page of a catalogue. ".repeat(40_000);
    let upstream = Upstream::start({
        let large = large.clone();
        move |seen| match seen.target.as_str() {
            "/large" => Reply::ok(large.clone()).cache_control(CACHED).header("etag", "\"l\""),
            "/varies" => {
                let said = seen.headers.get("x-language").map_or("none", |value| value.to_str().unwrap());
                Reply::ok(format!("in {said}")).header("vary", "x-language").cache_control(CACHED)
            }
            _ => Reply::ok("small").cache_control(CACHED),
        }
    });
    let redis = Redis::start();
    let warm = start(&upstream, &redis.table());
    for number in 0..50 {
        get(&warm, &format!("/small/{number}"), "");
    }
    get(&warm, "/large", "");
    for language in ["de", "en"] {
        get(&warm, "/varies", &format!("X-Language: {language}\r\n"));
    }
    until_written(&warm, 53);
    let asked = upstream.count();
    assert_eq!(asked, 53);

    let cold = start(&upstream, &redis.table());
    for number in 0..50 {
        let answer = get(&cold, &format!("/small/{number}"), "");
        assert_eq!((answer.status, &answer.body[..]), (200, &b"small"[..]));
        assert!(
            cache_status(&answer).contains("hit") && cache_status(&answer).contains("detail=redis"),
            "{}",
            answer.head
        );
    }
    assert_eq!(get(&cold, "/large", "").body, large.as_bytes());
    let part = get(&cold, "/large", "Range: bytes=300000-300009\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &large.as_bytes()[300_000..300_010]));
    for language in ["en", "de"] {
        let answer = get(&cold, "/varies", &format!("X-Language: {language}\r\n"));
        assert_eq!(answer.body, format!("in {language}").into_bytes());
    }
    assert_eq!(upstream.count(), asked, "all of it came from Redis");
    let again = get(&cold, "/small/1", "");
    assert!(!cache_status(&again).contains("redis"), "it is in memory now: {}", again.head);
}

#[test]
fn a_hit_from_memory_costs_redis_no_command() {
    let (_version, upstream) = versioned();
    let redis = Redis::start();
    let edge = start(&upstream, &redis.table());
    get(&edge, "/", "");
    until_written(&edge, 1);
    let (looked_up, keys) = (edge.metric("gatehouse_edge_tier_look_ups_total"), redis.ask(&["DBSIZE"]));
    let mut raw = edge.raw();
    for _ in 0..1000 {
        assert!(raw.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").answer().is_hit());
    }
    // Whatever asks Redis for a request's sake is a look-up or an offer, and both are counted.
    assert_eq!(edge.metric("gatehouse_edge_tier_look_ups_total"), looked_up);
    assert_eq!((edge.metric("gatehouse_edge_tier_offers_total"), redis.ask(&["DBSIZE"])), (1, keys));
}

#[test]
fn a_purge_is_acknowledged_when_every_edge_has_heard_it() {
    let (version, upstream) = versioned();
    let redis = Redis::start();
    let edges = [(); 3].map(|()| start(&upstream, &redis.table()));
    for (number, what) in [
        json!({ "tags": ["all"] }),
        json!({ "everything": true }),
        json!({ "hosts": ["shop.test"] }),
        json!({ "prefixes": ["http://shop.test/p"] }),
        json!({ "urls": ["http://shop.test/p?q"] }),
        json!({ "tags": ["all"], "soft": true }),
    ]
    .iter()
    .enumerate()
    {
        for edge in &edges {
            get(edge, "/p?q", "");
            assert!(get(edge, "/p?q", "").is_hit());
        }
        version.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(purge(&edges[number % 3], what), 200, "{what}");
        for edge in &edges {
            let wanted = format!("version {}", number + 1);
            assert_eq!(get(edge, "/p?q", "").body, wanted.as_bytes(), "{what}");
        }
    }
}

#[test]
fn what_an_unsafe_request_changes_at_one_edge_the_others_do_not_serve_any_more() {
    let (version, upstream) = versioned();
    let redis = Redis::start();
    let edges = [(); 2].map(|()| start(&upstream, &redis.table()));
    for edge in &edges {
        get(edge, "/cart", "");
    }
    version.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let post = "POST /cart HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(edges[0].raw().send(post).answer().status, 200);
    wait::until("the other edge has heard", || {
        (get(&edges[1], "/cart", "").body == b"version 1").then_some(())
    });
}

#[test]
fn what_no_edge_has_one_of_them_fetches_for_all() {
    let upstream = Upstream::start(|_| Reply::ok("x").cache_control(CACHED).late(Duration::from_millis(300)));
    let redis = Redis::start();
    // As long as a busy machine may need.
    let table = format!("{}collapse_timeout = \"10s\"\n", redis.table());
    let edges = std::sync::Arc::new([(); 3].map(|()| start(&upstream, &table)));
    let clients: Vec<_> = (0..150)
        .map(|number| {
            let edges = std::sync::Arc::clone(&edges);
            std::thread::spawn(move || get(&edges[number % 3], "/", ""))
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap().body, b"x");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_edge_that_is_cut_off_validates_what_it_has_stored_and_says_why() {
    let (version, upstream) = versioned();
    let redis = Redis::start();
    let way = Way::to(redis.address());
    let (near, far) = (start(&upstream, &redis.table()), start(&upstream, &way.table()));
    for edge in [&near, &far] {
        get(edge, "/", "");
    }
    way.cut();
    until_out_of_touch(&far);
    let answer = get(&far, "/", "");
    assert_eq!(answer.body, b"version 0");
    assert!(cache_status(&answer).contains("fwd=stale; fwd-status=304"), "{}", answer.head);
    assert!(far.metrics().contains("reason=\"purges-unheard\""));
    version.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(purge(&near, &json!({ "tags": ["all"] })), 200, "it is waited for no longer than its lease");
    assert_eq!(get(&far, "/", "").body, b"version 1");
    way.mend();
    until_in_touch(&far);
    get(&far, "/", "");
    assert!(get(&far, "/", "").is_hit(), "and serves by itself again");
}

#[test]
fn where_redis_and_the_origin_are_away_what_is_fresh_is_served_and_the_answer_says_so() {
    let (_version, mut upstream) = versioned();
    let mut redis = Redis::start();
    let edge = start(&upstream, &redis.table());
    get(&edge, "/", "");
    redis.kill();
    upstream.stop();
    until_out_of_touch(&edge);
    let answer = get(&edge, "/", "");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"version 0"[..]));
    assert!(cache_status(&answer).contains("detail=fresh-on-error"), "{}", answer.head);
}

#[test]
fn an_edge_may_be_told_to_serve_what_it_has_while_it_does_not_hear_the_others() {
    let (_version, upstream) = versioned();
    let mut redis = Redis::start();
    let table = format!("{}unheard = \"serve\"\n", redis.table());
    let edge = setup(&upstream, &table).start();
    get(&edge, "/", "");
    redis.kill();
    assert!(get(&edge, "/", "").is_hit());
    assert_eq!(purge(&edge, &json!({ "tags": ["all"] })), 503, "nobody says that the others have heard");
    assert_eq!(get(&edge, "/", "").body, b"version 0");
}

#[test]
fn without_redis_an_edge_starts_and_serves_and_with_it_hears_the_others() {
    let (_version, upstream) = versioned();
    let mut redis = Redis::start();
    redis.kill();
    let mut edge = setup(&upstream, &redis.table()).start();
    for _ in 0..3 {
        assert_eq!(get(&edge, "/", "").body, b"version 0");
    }
    edge.process()
        .wait_for_line("why it stands alone", |line| line.contains("goes on without").then_some(()));
    redis.start_again();
    until_in_touch(&edge);
    get(&edge, "/", "");
    assert!(get(&edge, "/", "").is_hit());
}

#[test]
fn a_cluster_is_refused_in_words_and_the_edge_serves_all_the_same() {
    let (_version, upstream) = versioned();
    let redis = Redis::start_with(&["--cluster-enabled", "yes"]);
    let mut edge = setup(&upstream, &redis.table()).start();
    edge.process().wait_for_line("why the cluster will not do", |line| {
        (line.contains("it is a cluster") && line.contains("stands alone")).then_some(())
    });
    assert_eq!(get(&edge, "/", "").status, 200);
}

#[test]
fn a_user_and_a_password_from_a_file_open_a_redis_that_asks_for_them() {
    let (_version, upstream) = versioned();
    let user = ["--user", "edge", "on", ">hunter2", "~gatehouse:*", "+@all", "-@admin", "+info"];
    let redis = Redis::start_with(&user);
    let table = format!("[redis]\nurl = \"redis://edge@{}\"\npassword_file = \"secret\"\n", redis.address());
    let folder = gatehouse_tests::folder::Folder::new();
    folder.write("edge.toml", &setup(&upstream, &table).text());
    folder.write("secret", "hunter2\n");
    let edge = Edge::start_in(folder);
    until_in_touch(&edge);
    get(&edge, "/", "");
    until_written(&edge, 1);
}

#[test]
fn over_tls_a_redis_is_who_its_certificate_says() {
    let (_version, upstream) = versioned();
    let certified = Edge::over(&upstream).start();
    let (_redis, port) = Redis::start_with_tls(&certified.folder().join("certs"));
    let url = format!("[redis]\nurl = \"rediss://localhost:{port}\"\n");
    let edge = start(&upstream, &format!("{url}ca = \"{}\"\n", certified.authority().display()));
    get(&edge, "/", "");
    until_written(&edge, 1);
    let mut stranger = setup(&upstream, &url).start();
    stranger.process().wait_for_line("that nobody known has signed it", |line| {
        (line.contains("goes on without") && line.to_lowercase().contains("certificate")).then_some(())
    });
}

#[test]
fn a_slow_redis_holds_misses_up_for_a_moment_and_is_then_left_alone() {
    let (_version, upstream) = versioned();
    let redis = Redis::start();
    let way = Way::to(redis.address());
    let mut edge = start(&upstream, &way.table());
    way.delay(Duration::from_millis(60));
    for number in 0..8 {
        assert_eq!(get(&edge, &format!("/{number}"), "").status, 200);
    }
    let page = edge.metrics();
    assert!(page.contains("outcome=\"late\"}") && page.contains("outcome=\"left-alone\"}"), "{page}");
    edge.process().wait_for_line("that it is left alone", |line| line.contains("left alone").then_some(()));
    assert_eq!(edge.metric("gatehouse_edge_tier_in_touch"), 1, "slow is not away: purges are heard");
}

#[test]
fn bodies_lie_in_redis_compressed_where_the_settings_say_so() {
    let page = "A page of a catalogue. ".repeat(40_000);
    let mut number = 1_u32;
    let mut letter = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 24) as u8
    };
    let noise: Vec<u8> = (0..60_000).map(|_| letter()).collect();
    let upstream = Upstream::start({
        let (page, noise) = (page.clone(), noise.clone());
        move |seen| {
            let body = if seen.target == "/page" { page.clone().into_bytes() } else { noise.clone() };
            Reply::ok(body).cache_control(CACHED).header("content-type", "text/html")
        }
    });
    let redis = Redis::start();
    let table = format!("{}compress = true\n", redis.table());
    let warm = start(&upstream, &table);
    for target in ["/page", "/noise"] {
        get(&warm, target, "");
    }
    until_written(&warm, 2);
    let pieces = redis.ask(&["EVAL", "return #redis.call('KEYS', '*:b:*')", "0"]);
    assert_eq!(pieces.trim(), ":1", "the page lies within its head, and what does not become less as it is");
    // An edge reads it whether it compresses or not.
    for table in [table, redis.table()] {
        let cold = start(&upstream, &table);
        assert_eq!(get(&cold, "/page", "").body, page.as_bytes());
        assert_eq!(get(&cold, "/noise", "").body, noise);
    }
    assert_eq!(upstream.count(), 2, "all of it came from Redis");
}

#[test]
fn a_body_that_was_damaged_in_redis_is_fetched_again() {
    let upstream = Upstream::start(|_| Reply::ok("A page. ".repeat(1000)).cache_control(CACHED));
    let redis = Redis::start();
    for compress in [false, true] {
        let table = format!("{}compress = {compress}\n", redis.table());
        let warm = start(&upstream, &table);
        let target = format!("/{compress}");
        get(&warm, &target, "");
        until_written(&warm, 1);
        let asked = upstream.count();
        // The inline body, of which one octet in the middle is another.
        redis.ask(&[
            "EVAL",
            "for _, k in ipairs(redis.call('KEYS', '*:r:*')) do local b = redis.call('HGET', k, 'b')
             local m = math.floor(#b / 2) local o = string.char((string.byte(b, m) + 1) % 256)
             redis.call('HSET', k, 'b', string.sub(b, 1, m - 1) .. o .. string.sub(b, m + 1)) end return 1",
            "0",
        ]);
        let cold = start(&upstream, &table);
        assert_eq!(get(&cold, &target, "").body, "A page. ".repeat(1000).as_bytes());
        assert_eq!(upstream.count(), asked + 1);
    }
}

#[test]
fn a_purge_waits_for_a_redis_that_was_flushed_and_holds() {
    let (version, upstream) = versioned();
    let redis = Redis::start();
    let edges = [(); 3].map(|()| start(&upstream, &redis.table()));
    for number in 1..=4 {
        for edge in &edges {
            get(edge, "/", "");
        }
        redis.ask(&["FLUSHALL"]);
        version.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(purge(&edges[number % 3], &json!({ "tags": ["all"] })), 200, "none is refused for it");
        for edge in &edges {
            assert_eq!(get(edge, "/", "").body, format!("version {number}").as_bytes());
        }
    }
}

/// As many clients as three edges may have in an evening, all for what nobody has.
fn three_thousand_clients(redis_is_there: bool) -> usize {
    const CLIENTS: usize = 3000;
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |_| Reply::ok("x").cache_control(CACHED).after(&gate)
    });
    let mut redis = Redis::start();
    let bounds = "[bounds]\nconnections_per_client = 5000\nrequests_per_client = 5000\n";
    // An edge that is told to validate while it does not hear the others uses no fetch that began before a request came.
    let unheard = if redis_is_there { "validate" } else { "serve" };
    let table = format!("{}collapse_timeout = \"10s\"\nunheard = \"{unheard}\"\n{bounds}", redis.table());
    let edges = [(); 3].map(|()| start(&upstream, &table));
    if !redis_is_there {
        redis.kill();
        edges.iter().for_each(until_out_of_touch);
    }
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|number| edges[number % 3].raw()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    }
    upstream.wait_for(1);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().body, b"x");
    }
    upstream.count()
}

#[test]
fn three_thousand_clients_of_three_edges_are_one_request_to_the_origin() {
    assert_eq!(three_thousand_clients(true), 1);
}

#[test]
fn three_thousand_clients_of_three_edges_without_redis_are_three_requests_at_most() {
    let asked = three_thousand_clients(false);
    assert!((1..=3).contains(&asked), "{asked}");
}

/// What the settings say of a Redis, for whoever reads them here.
#[test]
fn the_table_of_a_redis_is_a_url() {
    assert_eq!(
        redis::table("127.0.0.1:6379".parse().unwrap()),
        "[redis]\nurl = \"redis://127.0.0.1:6379\"\n"
    );
}
