//! Load from real generators, bounded in count, with their own verdict on every answer.

use std::net::SocketAddr;

use crate::tool;

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
}

/// `ab -n REQUESTS -c CLIENTS http://ADDRESS/path`, as the capacity guide asks.
///
/// # Panics
/// When ab is not installed or gives up.
#[track_caller]
#[must_use]
pub fn ab(address: SocketAddr, path: &str, requests: u32, clients: u32) -> Load {
    let ab = tool::find(&["ab"], "apache2-utils");
    // -l: answers may differ in length (a page's content may change between two of them).
    let output = tool::run(
        &ab,
        [
            "-q",
            "-l",
            "-n",
            &requests.to_string(),
            "-c",
            &clients.to_string(),
            &format!("http://{address}{path}"),
        ],
    );
    let number = |label: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(label));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
    };
    let must = |label: &str| number(label).unwrap_or_else(|| panic!("ab printed no «{label}»:\n{output}"));
    Load {
        complete: whole(must("Complete requests:")),
        failed: whole(must("Failed requests:")),
        not_2xx: number("Non-2xx responses:").map_or(0, whole),
        per_second: must("Requests per second:"),
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
