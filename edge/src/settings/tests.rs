//! The example file is complete and right; every message to the operator is shown whole.

use std::{fs, path::Path};

use super::*;

fn config(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parsed(text: &str) -> Settings {
    parse(text, "edge.toml").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_example_shows_the_defaults() {
    let settings = parsed(&config("edge.toml"));
    assert_eq!(settings.cache, CacheSettings::default());
    assert_eq!(settings.clients, ClientSettings::default());
    assert_eq!(settings.timeouts, Timeouts::default());
    assert_eq!(settings.bounds, Bounds::default());
    assert_eq!(settings.log, LogSettings::default());
    let command = &settings.commands["origin"];
    assert_eq!(**command, Command::new("origin", command.run.clone()));
    let upstream = &settings.upstreams["origin"];
    assert_eq!(**upstream, UpstreamSettings::new("origin", upstream.servers.clone()));
    assert_eq!(settings.limits["api"].interval, Duration::from_millis(20));
    assert_eq!(settings.limits["api"].burst.get(), 100);
    assert!(settings.threads >= 1);

    let rules = |name: &str| {
        settings.routes.iter().find(|route| *route.name == *name).map(|route| route.rules.clone()).unwrap()
    };
    assert_eq!(rules("assets").default_ttl, Some(Duration::from_secs(365 * 86_400)));
    assert_eq!(rules("pages"), Rules::default());
    let api = Rules {
        max_ttl: Some(Duration::from_secs(600)),
        stale_while_revalidate: Some(Duration::from_secs(60)),
        stale_if_error: Some(Duration::from_secs(86_400)),
        ..Rules::default()
    };
    assert_eq!(rules("api"), api);
}

#[test]
fn the_example_names_every_key() {
    let text = config("edge.toml");
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mut missing = file::known_keys();
    assert!(missing.len() > 60, "{missing:?}");
    missing.retain(|key| !key.split('.').all(|key| words.contains(&key)));
    assert!(missing.is_empty(), "config/edge.toml does not show {missing:?}");
}

/// What editors are told of settings: nothing that is right is marked, and what a text shows to be wrong is.
#[test]
fn every_file_of_ours_is_as_the_notation_has_it_and_a_slip_is_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["docs/recipes", "docs/jobs"].map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let within = folders.into_iter().flatten().map(|entry| entry.unwrap().path().join("edge.toml"));
    let ours = ["config/edge.toml", "config/demo.toml", "config/three/edge.toml"].map(|name| root.join(name));
    let files: Vec<_> = within.filter(|file| file.exists()).chain(ours).collect();
    assert!(files.len() > 30, "{files:?}");
    let notation = notation();
    for file in files {
        let document = toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert!(notation.takes(&toml::Value::Table(document)), "{}", file.display());
    }
    for slip in [
        "threads = \"4\"",
        "threads = 1025",
        "listen = {}",
        "[x]",
        "[cache]\nmemory = 256",
        "[bounds]\nfields = 10001",
        "[upstreams.a]\nserver = []",
        "[upstreams]\nservers = []",
        "[[routes]]\ncache = { tll = \"1s\" }",
        "[[routes]]\nredirect = { to = \"/\", status = 300 }",
        "[[routes]]\nmethods = \"GET\"",
    ] {
        let document = toml::from_str(slip).unwrap();
        assert!(!notation.takes(&toml::Value::Table(document)), "{slip}");
    }
}

#[test]
fn what_the_example_leaves_off_can_be_turned_on() {
    let text = config("edge.toml").replace("\n#directory", "\ndirectory").replace("\n#hosts", "\nhosts");
    let settings = parsed(&text);
    assert_eq!(settings.commands["origin"].directory.as_deref(), Some(Path::new(".")));
    assert_eq!(settings.routes[1].hosts, [HostPattern::Exact("shop.example".into())]);
}

#[test]
fn the_demo_is_right_and_puts_no_limit_on_pages() {
    let settings = parsed(&config("demo.toml"));
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(
        settings.listeners[0],
        Listen { address: address("[::]:8080"), tls: None, proxy_protocol: Vec::new(), hsts: None }
    );
    let tls = Certificate {
        certificate: "certs/localhost.pem".into(),
        key: "certs/localhost.key".into(),
        local_ca: true,
        ocsp: None,
    };
    assert_eq!(
        settings.listeners[1],
        Listen {
            address: address("[::]:8443"),
            tls: Some(ListenTls::with(tls)),
            proxy_protocol: Vec::new(),
            hsts: None
        }
    );
    assert_eq!(
        settings.admin,
        Some(Admin {
            address: AdminAddress::Network(address("127.0.0.1:9900")),
            token_file: None,
            hosts: Vec::new()
        })
    );
    assert_eq!(settings.log.format, Some(LogFormat::Pretty));
    let limited: Vec<(&str, bool)> =
        settings.routes.iter().map(|route| (&*route.name, !route.limits.is_empty())).collect();
    let api = ["categories", "products", "stock", "product", "suggestions", "uploads", "api", "search"]
        .map(|name| (name, true));
    let files = [("to-tls", false), ("assets", false), ("pictures", false)];
    assert_eq!(limited, [&files[..], &api, &[("pages", false)]].concat());
}

/// The least that is a whole file.
const REST: &str = r#"
[[listen]]
address = "[::]:8080"
[upstreams.origin]
servers = ["http://127.0.0.1:9000"]
[[routes]]
name = "all"
path = "/*"
upstream = "origin"
"#;

#[test]
fn the_least_file_needs_no_more_than_a_listener_an_upstream_and_a_route() {
    let settings = parsed(REST);
    assert_eq!(settings.admin, None);
    assert_eq!(settings.cache, CacheSettings::default());
    let route = &settings.routes[0];
    assert!(
        route.compress
            && route.decompress
            && route.hosts.is_empty()
            && route.limits.is_empty()
            && route.browser.is_none()
    );
    let location =
        Location::Network { protocol: ServerProtocol::Http1, host: "127.0.0.1".into(), port: 9000 };
    let server = Server::from(location);
    assert_eq!(route.action, RouteAction::Forward(UpstreamSettings::new("origin", vec![server]).into()));
}

#[test]
fn a_small_cache_keeps_smaller_objects() {
    assert_eq!(parsed(&format!("[cache]\nmemory = \"8 MiB\"\n{REST}")).cache.largest_object, 1 << 20);
}

#[test]
fn all_ways_to_write_a_route_are_understood() {
    let text = r#"
        listen = [{ address = "[::]:8080" }]
        [limits.slow]
        rate = "100/m"
        [clients]
        trusted_proxies = ["10.0.0.7", "192.168.1.9/24", "2001:db8::/32"]
        [commands.app]
        run = ["app"]
        ready = "tcp"
        environment = { RUST_LOG = "info", EMPTY = "" }
        [upstreams.app]
        servers = ["command:app", "http://[2001:db8::1]:9000"]
        [[routes]]
        name = "one"
        path = "/one"
        hosts = ["Shop.Example", "[2001:DB8::1]"]
        upstream = "app"
        limit = "slow"
        compress = false
        cache = { browser = "no-cache", set_cookie = "strip", cookies = "bypass", ignore_cookies = ["_ga*"], client_directives = "ignore-all", ttl = { 200 = "5m", 404 = "10s" } }
        [[routes]]
        name = "two"
        path = "/one"
        hosts = ["other.example"]
        upstream = "app"
        cache = { ignore_cookies = true, ttl = "5m" }
    "#;
    let settings = parsed(text);
    let proxies: Vec<String> = settings.clients.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.7/32", "192.168.1.0/24", "2001:db8::/32"]);
    assert_eq!(settings.commands["app"].ready, None);
    assert_eq!(settings.commands["app"].environment["EMPTY"], "");
    assert_eq!(
        (settings.limits["slow"].interval, settings.limits["slow"].burst.get()),
        (Duration::from_millis(600), 1)
    );
    let [one, two] = &settings.routes[..] else { panic!("two routes") };
    let hosts = ["shop.example", "[2001:db8::1]"].map(|host| HostPattern::Exact(host.into()));
    assert_eq!(one.hosts, hosts);
    assert_eq!(one.browser, Some(HeaderValue::from_static("no-cache")));
    assert_eq!(one.rules.set_cookie, cache_policy::SetCookie::Strip);
    assert_eq!(one.rules.ignored_cookies, cache_policy::IgnoredCookies::Named(vec!["_ga*".into()]));
    assert_eq!(one.rules.cookies, cache_policy::Cookies::Bypass);
    let forced =
        |status: u16| one.rules.ttl.as_ref().unwrap().of(http::StatusCode::from_u16(status).unwrap());
    assert_eq!(
        [200, 206, 404, 301].map(forced).map(|ttl| ttl.map(|ttl| ttl.as_secs())),
        [Some(300), Some(300), Some(10), None]
    );
    assert_eq!(one.rules.client_directives, cache_policy::ClientDirectives::IgnoreAll);
    assert!(!one.compress && !one.decompress && !one.rules.edge_codes);
    assert_eq!(two.rules.ignored_cookies, cache_policy::IgnoredCookies::All);
    assert_eq!(two.rules.cookies, cache_policy::Cookies::Origin);
    assert_eq!(two.rules.ttl, Some(cache_policy::Ttl::of_answers(Duration::from_secs(300))));
}

/// `faults.case`: what the operator wrote (`REST` stands for a whole file), then all that is said of it.
#[test]
fn every_fault_is_told_as_the_table_has_it() {
    let mut cases = 0;
    for case in include_str!("faults.case").split("\n=== ").skip(1) {
        let (title, case) = case.split_once('\n').expect("a title");
        let (written, said) = case.split_once("--- says\n").expect("what is said");
        let written = written.replace("REST\n", REST.trim_start());
        let error = parse(&written, "edge.toml").expect_err(title).to_string();
        let said: Vec<&str> = said.trim_end().lines().map(str::trim_end).collect();
        assert_eq!(error.lines().map(str::trim_end).collect::<Vec<_>>(), said, "{title}:\n{written}");
        cases += 1;
    }
    assert!(cases > 50, "only {cases} cases were read");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(Path::new("no/such/edge.toml")).expect_err("there is no such file").to_string();
    assert!(error.starts_with("no/such/edge.toml: cannot be read: "), "{error}");
    assert!(error.ends_with("= help: name the file with --config FILE"), "{error}");
}

/// A `response_timeout` beyond `timeouts.total` had no effect on most requests, and nothing said so.
#[test]
fn a_time_that_most_requests_never_have_is_doubted() {
    let text = "[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.slow]\nservers = [\"http://a\"]\nresponse_timeout = \"90s\"\n\
                [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"slow\"\n";
    let told = |text: &str| {
        let (_, warnings) = parse_with_warnings(text, "edge.toml").unwrap();
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let [warning] = &told(text)[..] else { panic!("one warning: {:?}", told(text)) };
    assert!(
        warning.starts_with("edge.toml:5:20: warning: no request without content waits so long"),
        "{warning}"
    );
    assert!(warning.contains("timeouts.total is 60s") && warning.contains("raise total"), "{warning}");
    assert!(told(&text.replace("90s", "60s")).is_empty());
}

/// A field of tags that nobody keeps back tells every client what the operator purges by.
#[test]
fn the_fields_of_tags_stop_at_the_edge() {
    assert!(cache_policy::TAG_FIELDS.iter().all(|name| INTERNAL.contains(name)));
}
