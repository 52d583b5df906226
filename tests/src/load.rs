//! Load from real generators, bounded in count, with their own verdict on every answer.

use std::{net::SocketAddr, path::Path, process::Command};

use serde_json::Value;

use crate::{folder::Folder, npm, tool};

/// What a generator reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Requests answered.
    pub complete: u64,
    /// Requests without an answer, or with a broken one.
    pub failed: u64,
    /// Answers other than 2xx.
    pub not_2xx: u64,
    /// Requests a second over the whole run.
    pub per_second: f64,
    /// Milliseconds in which 95 of 100 requests were answered, where the generator tells it.
    pub p95: Option<f64>,
}

/// `ab -n REQUESTS -c CLIENTS http://ADDRESS/path`, as the capacity guide asks.
///
/// # Panics
/// When ab is not installed or gives up.
#[track_caller]
#[must_use]
pub fn ab(address: SocketAddr, path: &str, requests: u32, clients: u32) -> Load {
    ab_url(&format!("http://{address}{path}"), requests, clients)
}

/// The same for any URL.
///
/// # Panics
/// When ab is not installed or gives up.
#[track_caller]
#[must_use]
pub fn ab_url(url: &str, requests: u32, clients: u32) -> Load {
    let ab = tool::find(&["ab"], "apache2-utils");
    // -l: answers may differ in length (a page's content may change between two of them).
    let output = tool::run(&ab, ["-q", "-l", "-n", &requests.to_string(), "-c", &clients.to_string(), url]);
    let number = |label: &str| {
        let line = output.lines().find_map(|line| line.trim().strip_prefix(label));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
    };
    let must = |label: &str| number(label).unwrap_or_else(|| panic!("ab printed no «{label}»:\n{output}"));
    Load {
        complete: whole(must("Complete requests:")),
        failed: whole(must("Failed requests:")),
        not_2xx: number("Non-2xx responses:").map_or(0, whole),
        per_second: must("Requests per second:"),
        p95: number("95%"),
    }
}

/// `h2load` over TLS: so many clients, each with so many streams at once.
///
/// # Panics
/// When h2load is not installed or gives up.
#[track_caller]
#[must_use]
pub fn h2load(address: SocketAddr, path: &str, requests: u32, clients: u32, streams: u32) -> Load {
    let h2load = tool::find(&["h2load"], "nghttp2-client");
    let (requests, clients, streams) = (requests.to_string(), clients.to_string(), streams.to_string());
    let url = format!("https://{address}{path}");
    let output = tool::run(&h2load, ["-n", &requests, "-c", &clients, "-m", &streams, &url]);
    parse_h2load(&output)
}

/// Reads h2load's summary.
///
/// # Panics
/// When there is none.
#[track_caller]
#[must_use]
pub fn parse_h2load(output: &str) -> Load {
    let line = |label: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(label));
        line.unwrap_or_else(|| panic!("h2load printed no «{label}»:\n{output}"))
    };
    let count = |line: &str, word: &str| {
        let part = line.split(", ").find_map(|part| part.trim().strip_suffix(word));
        part.and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or_else(|| panic!("no «{word}» in {line}"))
    };
    let requests = line("requests:");
    let codes = line("status codes:");
    let per_second = line("finished in").split(", ").find_map(|part| part.strip_suffix(" req/s"));
    Load {
        complete: count(requests, "succeeded"),
        failed: count(requests, "failed") + count(requests, "timeout"),
        not_2xx: count(codes, "3xx") + count(codes, "4xx") + count(codes, "5xx"),
        per_second: per_second.and_then(|text| text.parse().ok()).unwrap_or_default(),
        p95: None,
    }
}

/// `artillery quick --count CLIENTS --num REQUESTS URL`, as the capacity guide asks: so many clients come within a second, and each
/// asks so often. Certificates hold that the authority in this file has signed.
///
/// It tells nobody of it: what its makers would be told by is not even installed (`tests/artillery/package.json`).
///
/// # Panics
/// When npm or Node.js is not installed, or Artillery gives up.
#[track_caller]
#[must_use]
pub fn artillery(url: &str, authority: &Path, clients: u32, requests: u32) -> Load {
    let program = npm::packages("artillery").join("artillery/bin/run");
    let folder = Folder::new();
    let report = folder.path().join("report.json");
    let mut command = Command::new(tool::find(&["node"], "nodejs npm"));
    command.arg(program).args(["quick", "--quiet", "--count", &clients.to_string()]);
    command.args(["--num", &requests.to_string(), "--output"]).arg(&report).arg(url);
    // It keeps settings of its own in the home.
    command.env("HOME", folder.path()).env("ARTILLERY_DISABLE_TELEMETRY", "true");
    command.env("NODE_EXTRA_CA_CERTS", authority).current_dir(folder.path());
    let printed = tool::run_command(&mut command);
    let report = std::fs::read(&report).unwrap_or_else(|error| panic!("no report ({error}):\n{printed}"));
    let report: Value = serde_json::from_slice(&report).expect("Artillery writes JSON");
    let all = &report["aggregate"];
    let counter = |name: &str| all["counters"][name].as_u64().unwrap_or_default();
    let not_2xx = all["counters"].as_object().into_iter().flatten();
    let not_2xx = not_2xx
        .filter(|(name, _)| name.strip_prefix("http.codes.").is_some_and(|code| !code.starts_with('2')));
    let complete = counter("http.responses");
    let milliseconds = |name: &str| all[name].as_f64().unwrap_or_default();
    let seconds = (milliseconds("lastMetricAt") - milliseconds("firstMetricAt")) / 1000.0;
    Load {
        complete,
        failed: counter("http.requests").saturating_sub(complete) + counter("vusers.failed"),
        not_2xx: not_2xx.filter_map(|(_, count)| count.as_u64()).sum(),
        per_second: complete as f64 / seconds,
        p95: all["summaries"]["http.response_time"]["p95"].as_f64(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts that ab prints as whole numbers"
)]
fn whole(number: f64) -> u64 {
    number as u64
}
