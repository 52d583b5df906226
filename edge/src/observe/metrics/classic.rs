//! The older text format of Prometheus (version 0.0.4), made of the OpenMetrics page.
//!
//! The samples are the same in both. What differs is what is said of a family: here it stands under the name that its
//! samples have, types are fewer, and there are neither units nor an end.

/// Reads only what [`super::Metrics::encode`] has written.
pub(super) fn from_openmetrics(page: &str) -> String {
    let mut classic = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                classic.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            classic.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            classic.push_str(line);
            classic.push('\n');
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use http::StatusCode;

    use super::super::{Metrics, Observed};
    use crate::observe::verdict::Verdict;

    /// As strict as `promtool check metrics`: every sample belongs to the family above it, which has help and type once;
    /// counters, and only they, end in `_total`; values are numbers; there is no comment beside.
    #[test]
    fn the_page_is_what_a_strict_reader_of_the_classic_format_takes() {
        let metrics = Metrics::new();
        let name = "pages".into();
        let route = metrics.for_route(&name);
        route.observe(StatusCode::OK, Verdict::Hit, Duration::from_millis(3), 10);
        metrics.reasoned(Some(&route), "stale");
        metrics.limited(&"a\"b\\c".into());
        metrics.for_upstream(&name).failed("connect", "upstream-refused");
        metrics.observe_with(Observed::default);
        let page = metrics.encode_classic();
        let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
        let (mut help, mut family) = ("", ("", ""));
        for line in page.lines() {
            if let Some(said) = line.strip_prefix("# HELP ") {
                help = said.split_once(' ').expect("help has a text").0;
            } else if let Some(said) = line.strip_prefix("# TYPE ") {
                family = said.split_once(' ').expect("a family has a type");
                assert_eq!(family.0, help, "help stands before the type");
                assert!(["counter", "gauge", "histogram"].contains(&family.1), "{line}");
                assert_eq!(family.1 == "counter", family.0.ends_with("_total"), "{line}");
                assert_eq!(kinds.insert(family.0, family.1), None, "once: {line}");
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
                value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
                let sample = series.split('{').next().expect("a split has a first part");
                let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", family.0));
                let belongs = match family.1 {
                    "histogram" => parts.iter().any(|part| part == sample),
                    _ => sample == family.0,
                };
                assert!(belongs, "{line} under {family:?}");
            }
        }
        assert_eq!(kinds["gatehouse_edge_requests_total"], "counter");
        assert_eq!(kinds["gatehouse_edge_request_duration_seconds"], "histogram");
        assert_eq!(kinds["gatehouse_edge_build_info"], "gauge");
        assert!(
            page.contains("gatehouse_edge_requests_total{route=\"pages\",status=\"2xx\",cache=\"hit\"} 1\n")
        );
    }
}
