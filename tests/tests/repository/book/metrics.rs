//! `docs/metrics.md`: every series of `/metrics`, as the scrape writes it.

use super::{
    head, holds, row,
    source::{arguments, capitalized, literal},
    source_of,
};

const SCRAPE: &str = "edge/src/observe/metrics/scrape.rs";
const PROCESS: &str = "process-metrics/src/lib.rs";

const INTRODUCTION: &str = "# Metrics

`GET /metrics` on the [admin address](operating.md#the-admin-address) is for Prometheus: OpenMetrics, or the older text format for \
whoever asks for that. Names and labels are stable; a change of one stands in the changelog. Labels hold names of the settings and \
fixed words, never what a client sent. `config/prometheus/` has a scrape configuration and alert rules, each proved by a test.

| label | holds |
|---|---|
| `route`, `upstream`, `limit`, `command` | the name in the settings; a request that no route takes counts as `(none)` |
| `status` | `1xx` to `5xx` |
| `cache` | [how the cache took part](reasons.md#what-the-cache-did) |
| `reason` | [a reason word](reasons.md) |
| `phase` | [how far a request to an upstream came](reasons.md#phases-of-a-request-to-an-upstream) |
| `listener` | `clear` or `tls` |
| `server` | the server, as its upstream lists it or its name resolves |

The hit ratio, and the share of requests that the upstreams are spared:

```promql
sum(rate(gatehouse_edge_requests_total{cache=\"hit\"}[5m])) / sum(rate(gatehouse_edge_requests_total[5m]))
sum(rate(gatehouse_edge_requests_total{cache=~\"hit|stale|collapsed|revalidated\"}[5m])) / sum(rate(gatehouse_edge_requests_total[5m]))
```
";

#[test]
fn the_page_of_metrics_is_what_the_scrape_shows() {
    let mut text = INTRODUCTION.to_owned();
    let of_edge = series(&source_of(SCRAPE));
    assert!(of_edge.len() > 30, "the reader found {of_edge:#?}");
    text += "\n## Of the edge\n";
    text += &table(&of_edge);
    let of_process = series_of_process(&source_of(PROCESS));
    assert!(of_process.len() > 4, "the reader found {of_process:#?}");
    text += "\n## Of the process\n\nOn Linux.\n";
    text += &table(&of_process);
    holds("metrics.md", SCRAPE, &text);
}

/// A family as it is declared.
#[derive(Debug, PartialEq, Eq)]
struct Series {
    name: String,
    kind: &'static str,
    labels: Vec<String>,
    help: String,
}

fn table(all: &[Series]) -> String {
    let mut text = head(&["metric", "type", "labels", "what"]);
    for Series { name, kind, labels, help } in all {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        text += &row(&[&format!("`{name}`"), kind, &labels.join(", "), &format!("{}.", capitalized(help))]);
    }
    text
}

fn series(text: &str) -> Vec<Series> {
    let mut found: Vec<(usize, &str)> = [".counter(", ".family("]
        .into_iter()
        .flat_map(|call| text.match_indices(call).map(move |(at, _)| (at + call.len(), call)))
        .filter(|(at, _)| text[*at..].trim_start().starts_with('"'))
        .collect();
    found.sort_unstable();
    let ends = found.iter().skip(1).map(|(at, _)| *at).chain([text.len()]).collect::<Vec<_>>();
    found
        .iter()
        .zip(ends)
        .map(|((at, call), end)| {
            let given = arguments(&text[*at..]);
            let (unit, kind) = match *call {
                ".counter(" => ("None", "MetricType::Counter"),
                _ => (given[2], given[3]),
            };
            let (name, help) = (literal(given[0]).unwrap(), literal(given[1]).unwrap());
            declared(name, help, (unit, kind), labels(&text[*at..end]))
        })
        .collect()
}

/// The process's are declared by two functions of their own, without labels.
fn series_of_process(text: &str) -> Vec<Series> {
    let mut found: Vec<(usize, &str)> =
        [("counter(", "MetricType::Counter"), ("gauge(", "MetricType::Gauge")]
            .into_iter()
            .flat_map(|(call, kind)| text.match_indices(call).map(move |(at, _)| (at + call.len(), kind)))
            .filter(|(at, _)| text[*at..].trim_start().starts_with('"'))
            .collect();
    found.sort_unstable();
    let declare = |(at, kind): (usize, &str)| {
        let given = arguments(&text[at..]);
        declared(literal(given[0]).unwrap(), literal(given[1]).unwrap(), (given[2], kind), Vec::new())
    };
    found.into_iter().map(declare).collect()
}

/// The name has its unit and what OpenMetrics puts behind it.
fn declared(name: &str, help: &str, (unit, kind): (&str, &str), labels: Vec<String>) -> Series {
    let unit = match unit {
        "None" => "",
        unit if unit.contains("BYTES") => "_bytes",
        unit if unit.contains("SECONDS") => "_seconds",
        unit => panic!("{name} has the unit {unit}: teach this reader how it is written"),
    };
    let (kind, end) = match kind.rsplit("::").next().unwrap() {
        "Counter" => ("counter", "_total"),
        "Gauge" => ("gauge", ""),
        "Histogram" => ("histogram", ""),
        "Info" => ("info", "_info"),
        kind => panic!("{name} is a {kind}: teach this reader how it is written"),
    };
    Series { name: format!("{name}{unit}{end}"), kind, labels, help: help.replace("\\\"", "\"") }
}

/// The names of labels: what stands first in the pairs of a list of labels.
fn labels(text: &str) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for opening in ["&[(", "labels = [("] {
        for (at, _) in text.match_indices(opening) {
            let list = arguments(&text[at + opening.len() - 1..]);
            let names = list.iter().filter_map(|pair| literal(arguments(pair.strip_prefix('(')?).first()?));
            for name in names.map(str::to_owned) {
                if !labels.contains(&name) {
                    labels.push(name);
                }
            }
        }
    }
    labels
}

#[test]
fn series_are_read_with_units_and_labels() {
    let text = "let mut a = page.family(\n    \"x_duration\",\n    \"How, long\",\n    Some(&SECONDS),\n    MetricType::Histogram,\n)?;\n\
                a.encode_family(&[(\"route\", route), (\"b\", c)])?;\n page.counter(\"x_y\", \"Z\")?.count(1)";
    let [first, second] = &series(text)[..] else { panic!("{:?}", series(text)) };
    assert_eq!(
        (first.name.as_str(), first.kind, first.help.as_str()),
        ("x_duration_seconds", "histogram", "How, long")
    );
    assert_eq!(first.labels, ["route", "b"]);
    assert_eq!((second.name.as_str(), second.labels.len()), ("x_y_total", 0));
}
