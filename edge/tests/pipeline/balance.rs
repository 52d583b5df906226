//! How the server of a request is chosen by setting, and how servers are looked at.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edge::{
    settings,
    upstream::{
        address::Address,
        connect::{Dial, Dialling},
    },
};
use scripted_upstream::{Reply, Seen};

use crate::{
    front::{CACHED, Front, PASSED, front_by, pass, start},
    upstream::Upstream,
};

/// Servers that answer with their names; the health of each can be switched.
struct Farm {
    by_name: HashMap<&'static str, Upstream>,
    well: HashMap<&'static str, Arc<AtomicBool>>,
}

impl Farm {
    fn of(names: &[&'static str]) -> Arc<Self> {
        let well: HashMap<_, _> = names.iter().map(|name| (*name, Arc::new(AtomicBool::new(true)))).collect();
        let server = |name: &'static str| {
            let well = Arc::clone(&well[name]);
            Upstream::start(move |seen: &Seen| match &*seen.target {
                "/healthz" if !well.load(Ordering::Relaxed) => Reply::status(503),
                "/healthz" => Reply::ok("state: ok").header("host-seen", seen.header("host")),
                _ => Reply::ok(name).cache_control("no-store"),
            })
        };
        let by_name = names.iter().map(|name| (*name, server(name))).collect();
        Arc::new(Self { by_name, well })
    }

    fn front(self: &Arc<Self>, servers: &str, more: &str) -> Front {
        let text = format!(
            "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.origin]\nservers = {servers}\n{more}"
        );
        let settings = settings::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"));
        front_by(settings, Vec::new(), start(), Arc::clone(self) as Arc<dyn Dial>)
    }

    fn switch(&self, name: &str, well: bool) {
        self.well[name].store(well, Ordering::Relaxed);
    }

    fn looks(&self, name: &str) -> usize {
        self.by_name[name].seen().iter().filter(|seen| seen.target == "/healthz").count()
    }
}

impl Dial for Farm {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialling<'a> {
        let Address::Name { host, .. } = address else { panic!("servers here have names") };
        self.by_name[&**host].dial(address)
    }
}

/// How often each server answers of so many requests with these fields.
async fn shares(front: &Front, count: usize, fields: &[(&str, &str)]) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(front.get_with("/", fields).await.text().to_owned()).or_default() += 1;
    }
    shares
}

const ABC: &str = r#"["http://a", "http://b", "http://c"]"#;

#[tokio::test(start_paused = true)]
async fn in_turn_each_server_gets_its_weight() {
    let farm = Farm::of(&["a", "b"]);
    let servers = r#"["http://a", { url = "http://b", weight = 3 }]"#;
    let front = farm.front(servers, &format!("balance = \"round-robin\"\n{PASSED}"));
    let shares = shares(&front, 100, &[]).await;
    assert!((23..=27).contains(&shares["a"]) && shares["b"] == 100 - shares["a"], "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn what_hashes_alike_goes_to_one_server() {
    let farm = Farm::of(&["a", "b", "c"]);
    let by = |what: &str| farm.front(ABC, &format!("balance = \"hash {what}\"\n{PASSED}"));
    for (what, name, value) in [
        ("client", "x", "y"),
        ("path", "x", "y"),
        ("header x-tenant", "x-tenant", "seven"),
        ("cookie session", "cookie", "a=b; session=7"),
    ] {
        assert_eq!(shares(&by(what), 10, &[(name, value)]).await.len(), 1, "{what}");
    }
    let front = by("header x-tenant");
    let mut all = BTreeMap::new();
    for tenant in 0..60 {
        let share = shares(&front, 1, &[("x-tenant", &tenant.to_string())]).await;
        *all.entry(share.into_keys().next().unwrap()).or_insert(0) += 1;
    }
    assert!(all.len() == 3 && all.values().all(|share| (10..=30).contains(share)), "{all:?}");
}

/// The cookie is the edge's own: it comes once, moves when its server goes, and keeps nothing from the cache.
#[tokio::test(start_paused = true)]
async fn a_client_sticks_to_the_server_that_a_cookie_names() {
    let farm = Farm::of(&["a", "b", "c"]);
    let front =
        farm.front(ABC, &format!("balance = \"sticky at\"\nfailures = 1\nretries = \"0%\"\n{PASSED}"));
    let first = front.get("/").await;
    let cookie = first.field("set-cookie");
    assert!(
        cookie.starts_with("at=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap().to_owned();
    for _ in 0..20 {
        let again = front.get_with("/", &[("cookie", &pair)]).await;
        assert_eq!((again.text(), again.field("set-cookie")), (first.text(), ""));
    }
    farm.by_name[first.text()].stop();
    let mut moved = front.get_with("/", &[("cookie", &pair)]).await;
    if moved.status != 200 {
        moved = front.get_with("/", &[("cookie", &pair)]).await;
    }
    assert_ne!(moved.text(), first.text());
    assert!(moved.field("set-cookie").starts_with("at="), "{}", moved.field("set-cookie"));
}

#[tokio::test(start_paused = true)]
async fn the_edges_own_cookie_keeps_nothing_from_the_cache() {
    let farm = Farm::of(&["a"]);
    farm.by_name["a"].change(|_| Reply::ok("page").cache_control("max-age=60"));
    let front = farm.front(r#"["http://a"]"#, &format!("balance = \"sticky at\"\n{CACHED}"));
    let first = front.get_with("/", &[("cookie", "at=7")]).await;
    assert_eq!((first.cache(), first.field("set-cookie")), ("fwd=uri-miss", ""));
    assert_eq!(front.get("/").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn a_backup_answers_while_no_other_is_good() {
    let farm = Farm::of(&["a", "b"]);
    let servers = r#"["http://a", { url = "http://b", backup = true }]"#;
    let front = farm.front(servers, PASSED);
    assert_eq!(shares(&front, 20, &[]).await, BTreeMap::from([("a".to_owned(), 20)]));
    farm.by_name["a"].stop();
    assert_eq!(shares(&front, 20, &[]).await, BTreeMap::from([("b".to_owned(), 20)]));
}

const CHECKED: &str = "check = { path = \"/healthz\", body = \"state: ok\", interval = \"1s\" }";

#[tokio::test(start_paused = true)]
async fn a_server_whose_checks_fail_gets_no_requests_until_they_pass_again() {
    let farm = Farm::of(&["a", "b", "c"]);
    let front = farm.front(ABC, &format!("{CHECKED}\nslow_start = \"0s\"\n{PASSED}"));
    pass(1).await;
    assert_eq!(shares(&front, 60, &[]).await.len(), 3);
    farm.switch("b", false);
    // Looks are a tenth apart from their second, either way.
    for _ in 0..9 {
        pass(1).await;
    }
    assert!(!shares(&front, 60, &[]).await.contains_key("b"));
    let up = |server: &str| {
        let start =
            format!("gatehouse_edge_upstream_server_up{{upstream=\"origin\",server=\"{server}:80\"}} ");
        front.metric_lines(&start).concat()
    };
    assert_eq!((up("a"), up("b")), ("1".to_owned(), "0".to_owned()));
    farm.switch("b", true);
    for _ in 0..6 {
        pass(1).await;
    }
    assert_eq!(shares(&front, 60, &[]).await.len(), 3);
    assert_eq!(up("b"), "1");
}

#[tokio::test(start_paused = true)]
async fn where_all_checks_fail_requests_are_sent_all_the_same() {
    let farm = Farm::of(&["a", "b"]);
    let front = farm.front(r#"["http://a", "http://b"]"#, &format!("{CHECKED}\n{PASSED}"));
    farm.switch("a", false);
    farm.switch("b", false);
    // Looks are a tenth apart from their second, either way.
    for _ in 0..9 {
        pass(1).await;
    }
    assert_eq!(front.get("/").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_not_answered_in_time_is_a_bad_one() {
    let farm = Farm::of(&["a", "b"]);
    let front = farm.front(r#"["http://a", "http://b"]"#, &format!("{CHECKED}\n{PASSED}"));
    farm.by_name["a"].change(|seen| match &*seen.target {
        "/healthz" => Reply::ok("state: ok").late(Duration::from_secs(3)),
        _ => Reply::ok("a").cache_control("no-store"),
    });
    for _ in 0..12 {
        pass(1).await;
    }
    assert_eq!(shares(&front, 40, &[]).await, BTreeMap::from([("b".to_owned(), 40)]));
}

/// Also at a reload that changes something else of the upstream; and the looks go on by the new settings.
#[tokio::test(start_paused = true)]
async fn what_checks_found_outlives_a_reload_and_the_old_checks_end_with_it() {
    let farm = Farm::of(&["a", "b"]);
    let text = |interval: &str| {
        format!(
            "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.origin]\nservers = [\"http://a\", \"http://b\"]\n\
             check = {{ path = \"/healthz\", interval = \"{interval}\" }}\n{PASSED}"
        )
    };
    let settings = |interval| settings::parse(&text(interval), "test.toml").unwrap();
    let front = front_by(settings("1s"), Vec::new(), start(), Arc::clone(&farm) as Arc<dyn Dial>);
    farm.switch("b", false);
    // Looks are a tenth apart from their second, either way.
    for _ in 0..9 {
        pass(1).await;
    }
    front.reload(settings("100s"));
    pass(0).await;
    let looks = farm.looks("a");
    assert_eq!(shares(&front, 40, &[]).await, BTreeMap::from([("a".to_owned(), 40)]));
    for _ in 0..50 {
        pass(1).await;
    }
    assert!(farm.looks("a") <= looks + 1, "{} after {looks}", farm.looks("a"));
}

const CANARY: &str = "[upstreams.new]\nservers = [\"http://new\"]\n\
     [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n";

#[tokio::test(start_paused = true)]
async fn a_share_of_the_clients_goes_to_the_canary_and_stays_there() {
    let farm = Farm::of(&["a", "new"]);
    for (share, answers) in [("100%", "new"), ("0%", "a")] {
        let canary =
            format!("{CANARY}canary = {{ upstream = \"new\", share = \"{share}\", header = \"X-New\" }}\n");
        let front = farm.front(r#"["http://a"]"#, &canary);
        assert_eq!(shares(&front, 10, &[]).await, BTreeMap::from([(answers.to_owned(), 10)]), "{share}");
    }
}

/// What is stored is of the others, and what a tester gets is no answer for them.
#[tokio::test(start_paused = true)]
async fn who_asks_for_the_canary_goes_past_the_cache() {
    let farm = Farm::of(&["a", "new"]);
    for name in ["a", "new"] {
        farm.by_name[name].change(move |_| Reply::ok(name).cache_control("public, max-age=60"));
    }
    let canary =
        format!("{CANARY}canary = {{ upstream = \"new\", header = \"X-New: yes\", cookie = \"new\" }}\n");
    let front = farm.front(r#"["http://a"]"#, &canary);
    for fields in [&[("x-new", "yes")], &[("cookie", "new=1")]] {
        for _ in 0..2 {
            let got = front.get_with("/", fields).await;
            assert_eq!((got.text(), got.cache()), ("new", "fwd=bypass"), "{fields:?}");
            assert!(got.field("cache-status").ends_with("detail=canary"), "{}", got.field("cache-status"));
        }
        let got = front.get_with("/", &[("x-new", "no")]).await;
        assert_eq!(got.text(), "a");
    }
    assert_eq!(front.get("/").await.cache(), "hit");
    assert_eq!(front.get_with("/", &[("x-new", "yes")]).await.text(), "new");
}

/// It got what the route's own upstream is sent, and was chosen from by the other's setting.
#[tokio::test(start_paused = true)]
async fn a_canary_is_asked_by_its_own_settings() {
    let farm = Farm::of(&["a", "x", "y"]);
    let more = "request_fields = { x-side = \"stable\" }\n[upstreams.new]\nservers = [\"http://x\", \"http://y\"]\n\
                balance = \"sticky at\"\nrequest_fields = { x-side = \"new\" }\n[[routes]]\nname = \"all\"\n\
                path = \"/*\"\nupstream = \"origin\"\ncanary = { upstream = \"new\", header = \"X-New\" }\n";
    let front = farm.front(r#"["http://a"]"#, more);
    front.get("/").await;
    assert_eq!(farm.by_name["a"].seen().pop().unwrap().header("x-side"), "stable");
    let got = front.get_with("/", &[("x-new", "1")]).await;
    assert_eq!(farm.by_name[got.text()].seen().pop().unwrap().header("x-side"), "new");
    let cookie = got.field("set-cookie").split(';').next().unwrap().to_owned();
    for _ in 0..20 {
        let again = front.get_with("/", &[("x-new", "1"), ("cookie", &cookie)]).await;
        assert_eq!(again.text(), got.text(), "{cookie}");
    }
}

/// A server that hangs at times made every twentieth page late, beside one that answers at once.
#[tokio::test(start_paused = true)]
async fn a_fetch_whose_answer_is_late_is_asked_of_another_server_too() {
    let farm = Farm::of(&["a", "b"]);
    let page = |name: &'static str| {
        move |seen: &Seen| match seen.target.starts_with("/late") && name == "a" {
            true => Reply::ok(name).cache_control("max-age=60").late(Duration::from_secs(20)),
            false => Reply::ok(name).cache_control("max-age=60").late(Duration::from_millis(10)),
        }
    };
    farm.by_name["a"].change(page("a"));
    farm.by_name["b"].change(page("b"));
    let front = farm.front(r#"["http://a", "http://b"]"#, &format!("hedge = \"50%\"\n{CACHED}"));
    for page in 0..120 {
        front.get(&format!("/{page}")).await;
    }
    let before: usize = ["a", "b"].iter().map(|name| farm.by_name[*name].count()).sum();
    for page in 0..8 {
        let began = tokio::time::Instant::now();
        assert_eq!(front.get(&format!("/late{page}")).await.text(), "b");
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    }
    let asked = farm.by_name["a"].count() + farm.by_name["b"].count() - before;
    let hedges: usize =
        front.metric_lines("gatehouse_edge_upstream_hedges_total{upstream=\"origin\"} ")[0].parse().unwrap();
    assert!(hedges > 0 && asked == 8 + hedges, "{asked} {hedges}");
    // No answer is late here, and nothing that is not for the cache is asked twice.
    let before = farm.by_name["b"].count() + farm.by_name["a"].count();
    for _ in 0..20 {
        front.send(http::Request::post("/x")).await;
    }
    assert_eq!(farm.by_name["b"].count() + farm.by_name["a"].count(), before + 20);
}

/// What an overloaded upstream does not bear waits no longer than it takes to say so, and what is stored is served.
#[tokio::test(start_paused = true)]
async fn what_an_upstream_does_not_bear_gets_the_stale_answer_or_503() {
    let farm = Farm::of(&["a"]);
    farm.by_name["a"].change(|seen| match seen.target == "/page" {
        true => Reply::ok("page").cache_control("max-age=1, stale-if-error=600"),
        false => Reply::ok("slow").late(Duration::from_secs(5)),
    });
    let front = farm.front(r#"["http://a"]"#, &format!("overload = \"adaptive\"\n{CACHED}"));
    front.get("/page").await;
    pass(2).await;
    let slow: Vec<_> = (0..64)
        .map(|_| {
            let front = front.clone();
            tokio::spawn(async move { front.send(http::Request::post("/slow")).await.status })
        })
        .collect();
    pass(0).await;
    let refused = front.send(http::Request::post("/slow")).await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, "1"));
    assert!(refused.field("cache-status").contains("upstream-overloaded"));
    assert_eq!(front.get("/page").await.text(), "page");
    for asked in slow {
        assert_eq!(asked.await.unwrap(), 200);
    }
    assert_eq!(front.send(http::Request::post("/slow")).await.status, 200);
}

/// Nothing but a look could bring a server back that looks had taken out.
#[tokio::test(start_paused = true)]
async fn a_reload_without_checks_forgets_what_they_found() {
    let farm = Farm::of(&["a", "b"]);
    let text = |check: &str| {
        format!(
            "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.origin]\nslow_start = \"0s\"\n\
             servers = [\"http://a\", \"http://b\"]\n{check}\n{PASSED}"
        )
    };
    let settings = |check| settings::parse(&text(check), "test.toml").unwrap();
    let front = front_by(settings(CHECKED), Vec::new(), start(), Arc::clone(&farm) as Arc<dyn Dial>);
    farm.switch("b", false);
    for _ in 0..9 {
        pass(1).await;
    }
    assert_eq!(shares(&front, 20, &[]).await.len(), 1);
    front.reload(settings(""));
    assert_eq!(shares(&front, 40, &[]).await.len(), 2);
}

/// The text stood at the beginning, and the whole was too large to be read.
#[tokio::test(start_paused = true)]
async fn a_check_reads_the_beginning_of_a_large_page() {
    let farm = Farm::of(&["a", "b"]);
    for name in ["a", "b"] {
        farm.by_name[name].change(|_| Reply::ok(format!("state: ok {}", "x".repeat(100_000))));
    }
    let front = farm.front(r#"["http://a", "http://b"]"#, &format!("{CHECKED}\n{PASSED}"));
    for _ in 0..9 {
        pass(1).await;
    }
    let up = front.metric_lines("gatehouse_edge_upstream_server_up{");
    assert!(up.iter().all(|line| line.ends_with(" 1")), "{up:?}");
}

/// The gauge of a server went with the one that had stood at its address before.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_weighed_otherwise_at_a_reload_is_shown_all_the_same() {
    let farm = Farm::of(&["a", "b"]);
    let text = |servers: &str| {
        format!(
            "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.origin]\nservers = {servers}\n{PASSED}"
        )
    };
    let settings = |servers| settings::parse(&text(servers), "test.toml").unwrap();
    let front = front_by(
        settings(r#"["http://a", "http://b"]"#),
        Vec::new(),
        start(),
        Arc::clone(&farm) as Arc<dyn Dial>,
    );
    for servers in [r#"["http://a", { url = "http://b", weight = 3 }]"#, r#"["h2c://a:80", "http://b"]"#] {
        front.reload(settings(servers));
        assert_eq!(front.metric_lines("gatehouse_edge_upstream_server_up{").len(), 2, "{servers}");
    }
}
