//! What Prometheus makes of the two programs: that it takes their metrics, and that the rules in `config/prometheus/` fire.

use std::process::Command;

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
fn prometheus_scrapes_both_programs_and_an_alert_fires_when_the_origin_is_stopped() {
    let shop = shop::start();
    for path in ["/", "/api/products?limit=3"] {
        assert_eq!(shop.get(path).status, 200);
    }
    let origin = shop.running("origin").unwrap();
    let (folder, own) = (Folder::new(), address::own());
    let rules = std::fs::read_to_string(repository().join("config/prometheus/alerts.yaml")).unwrap();
    // What is watched for minutes in earnest is watched for a moment here; the numbers are the file's own.
    folder.write("alerts.yaml", &rules.replace("for: 1m", "for: 0s"));
    folder.write(
        "prometheus.yaml",
        &format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yaml]\n\
             scrape_configs:\n  - {{ job_name: edge, static_configs: [{{ targets: [\"{}\"] }}] }}\n  \
             - {{ job_name: origin, static_configs: [{{ targets: [\"{}\"] }}] }}\n",
            shop.admin(),
            shop::admin_of_origin(&shop),
        ),
    );
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
        wait::until(metric, || (ask(metric).len() == 2).then_some(()));
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
    let firing = || ask("ALERTS%7Balertname%3D%22ProgramIsDown%22,alertstate%3D%22firing%22%7D");
    assert!(firing().is_empty());
    stop(origin, Signal::STOP);
    let down = wait::until("the alert fires", || firing().pop());
    stop(origin, Signal::CONT);
    assert_eq!(down["metric"]["job"], "origin");
    wait::until("it is over", || firing().is_empty().then_some(()));
    works(&shop);
}

fn stop(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
}

fn works(shop: &Edge) {
    wait::until("the shop works on", || (shop.get("/api/products?limit=2").status == 200).then_some(()));
}
