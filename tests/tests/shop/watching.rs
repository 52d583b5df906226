//! What Prometheus makes of the two programs: that it takes their metrics, and that the rules in `config/prometheus/` fire.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use gatehouse_tests::{
    address, binaries::repository, curl::Curl, edge::Edge, folder::Folder, process::Process, shop, tool, wait,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn each_alert_is_silent_at_its_target_and_fires_beyond_it() {
    let promtool = tool::find(&["promtool"], "prometheus");
    let rules = repository().join("config/prometheus");
    let checked =
        tool::run(&promtool, ["check", "config", &rules.join("prometheus.yaml").display().to_string()]);
    assert!(checked.contains("1 rule files found"), "{checked}");
    tool::run(&promtool, ["test", "rules", &rules.join("alerts.test.yaml").display().to_string()]);
}

#[test]
fn prometheus_finds_the_edge_and_three_origins_and_an_alert_names_the_one_that_is_stopped() {
    let shop = shop::start_with(|demo| {
        shop::replace(&demo, "ready = \"/livez\"", "ready = \"/livez\"\ninstances = 3")
    });
    for path in ["/", "/api/products?limit=3"] {
        assert_eq!(shop.get(path).status, 200);
    }
    let (folder, own) = (Folder::new(), address::own());
    let rules = std::fs::read_to_string(repository().join("config/prometheus/alerts.yaml")).unwrap();
    // What is watched for minutes in earnest is watched for a moment here; the numbers are the file's own.
    folder.write("alerts.yaml", &rules.replace("for: 1m", "for: 0s"));
    let settings = std::fs::read_to_string(repository().join("config/prometheus/prometheus.yaml")).unwrap();
    let settings = [
        ("scrape_interval: 15s", "scrape_interval: 1s\n  scrape_timeout: 1s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        ("refresh_interval: 30s", "refresh_interval: 1s"),
        ("127.0.0.1:9900/", &format!("{}/", shop.admin())),
        ("127.0.0.1:9900", &shop.admin().to_string()),
    ]
    .into_iter()
    .fold(settings, |text, (from, to)| shop::replace(&text, from, to));
    folder.write("prometheus.yaml", &settings);
    let mut command = Command::new(tool::find(&["prometheus"], "prometheus"));
    command
        .arg(format!("--config.file={}", folder.path().join("prometheus.yaml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={own}"));
    let _prometheus = Process::start("prometheus", &mut command);
    let ask = |query: &str| -> Vec<Value> {
        let path = format!("/api/v1/query?query={query}");
        let Ok(answer) = Curl::clear(own, &path).start().result() else { return Vec::new() };
        serde_json::from_slice::<Value>(&answer.body)
            .ok()
            .and_then(|answer| answer["data"]["result"].as_array().cloned())
            .unwrap_or_default()
    };
    for metric in [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
        "process_resident_memory_bytes",
    ] {
        wait::until(metric, || (ask(metric).len() == 4).then_some(()));
    }
    for metric in [
        "gatehouse_edge_requests_total",
        "gatehouse_edge_request_duration_seconds_bucket",
        "gatehouse_edge_certificate_expires_timestamp_seconds",
        "gatehouse_edge_last_reload_applied",
        "gatehouse_edge_upstream_server_up",
        "gatehouse_edge_command_instances",
        "origin_query_duration_seconds_bucket",
        "origin_connections",
    ] {
        assert!(!ask(metric).is_empty(), "the rules read {metric}");
    }
    let names: Vec<Value> =
        ask("origin_connections").iter().map(|one| one["metric"]["instance"].clone()).collect();
    for name in ["origin.1", "origin.2", "origin.3"] {
        assert!(names.contains(&name.into()), "{names:?}");
        let path = format!("/commands/{}/metrics", name.replace('.', "/"));
        check_metrics(&classic(&Curl::clear(shop.admin(), &path).send().text()));
    }
    check_metrics(&Curl::clear(shop.admin(), "/metrics").header("Accept: text/plain").send().text());
    let commands = Curl::clear(shop.admin(), "/commands").send().json();
    let second =
        commands["commands"][0]["instances"].as_array().unwrap().iter().find(|one| one["name"] == "origin.2");
    let origin = u32::try_from(second.unwrap()["pid"].as_u64().unwrap()).unwrap();
    let firing = || ask("ALERTS%7Balertname%3D%22ProgramIsDown%22,alertstate%3D%22firing%22%7D");
    assert!(firing().is_empty());
    stop(origin, Signal::STOP);
    let down = wait::until("the alert fires", || firing().pop());
    stop(origin, Signal::CONT);
    assert_eq!((&down["metric"]["job"], &down["metric"]["instance"]), (&"origin".into(), &"origin.2".into()));
    wait::until("it is over", || firing().is_empty().then_some(()));
    works(&shop);
}

/// OpenMetrics as the older format has it, which is all that promtool checks: there the name of a counter ends in `_total` in
/// what is told of it, too.
fn classic(metrics: &str) -> String {
    let counter = |name: &str| metrics.contains(&format!("\n# TYPE {name} counter\n"));
    let lines = metrics.lines().filter(|line| !line.starts_with("# UNIT") && *line != "# EOF");
    lines
        .map(|line| {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", kind, name, rest] if counter(name) => format!("# {kind} {name}_total {rest}\n"),
                _ => format!("{line}\n"),
            }
        })
        .collect()
}

/// `promtool check metrics`.
fn check_metrics(metrics: &str) {
    let promtool = tool::find(&["promtool"], "prometheus");
    let mut checked = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    checked.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let checked = checked.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(
        checked.status.success() && said.is_empty(),
        "{said}{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

fn stop(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
}

fn works(shop: &Edge) {
    wait::until("the shop works on", || (shop.get("/api/products?limit=2").status == 200).then_some(()));
}
