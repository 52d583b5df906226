//! What this process costs the system: CPU, memory, open files and its start, under the names that Prometheus's own clients use.
//!
//! Reads Linux's `/proc` at each scrape and keeps nothing. Elsewhere, or where `/proc` is hidden, it shows nothing.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// The clock ticks of `/proc` in a second: a constant of its interface, whatever the kernel's own clock does.
const TICKS: f64 = 100.0;

static BYTES: Unit = Unit::Bytes;
static SECONDS: Unit = Unit::Seconds;

/// Shows this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(seen) = Seen::now() else { return Ok(()) };
        let mut counter = |name, help, unit, value| {
            let metric = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)
        };
        counter("process_cpu", "CPU time, of the user and of the system", Some(&SECONDS), seen.cpu)?;
        let mut gauge = |name, help, unit, value: f64| {
            let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        gauge(
            "process_cpu_cores",
            "Cores that the process may use",
            None,
            u32::try_from(cores).unwrap_or(1).into(),
        )?;
        gauge("process_start_time", "Start of the process, since 1970", Some(&SECONDS), seen.started)?;
        gauge(
            "process_resident_memory",
            "Memory of the process that is in RAM",
            Some(&BYTES),
            seen.resident,
        )?;
        gauge("process_open_fds", "Open file descriptors", None, seen.open)?;
        gauge("process_max_fds", "The most file descriptors that may be open", None, seen.most_open)
    }
}

/// Numbers that `/proc` shows.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    /// Seconds.
    cpu: f64,
    /// Seconds since 1970.
    started: f64,
    /// Bytes.
    resident: f64,
    open: f64,
    most_open: f64,
}

impl Seen {
    fn now() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        // One of them is the reading of the folder itself.
        let open = u32::try_from(open).ok()?.saturating_sub(1);
        Self::parse(
            &read("/proc/self/stat")?,
            &read("/proc/self/status")?,
            &read("/proc/self/limits")?,
            &read("/proc/stat")?,
        )
        .map(|seen| Self { open: open.into(), ..seen })
    }

    /// Of the texts of these files; how many files are open is not among them.
    fn parse(stat: &str, status: &str, limits: &str, system: &str) -> Option<Self> {
        // The program's name, in parentheses, may hold spaces and parentheses. The field after it is the third.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let number = |text: &str, name: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            cpu: (ticks(14)? + ticks(15)?) / TICKS,
            started: number(system, "btime")? + ticks(22)? / TICKS,
            resident: number(status, "VmRSS:")? * 1024.0,
            open: 0.0,
            most_open: number(limits, "Max open files").unwrap_or(f64::INFINITY),
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn the_files_of_proc_are_read() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 9 8 7 6 150 25 0 0 20 0 3 0 1200 99 88";
        let seen = Seen::parse(
            stat,
            "Name:\ta\nVmRSS:\t    2048 kB\n",
            "Limit                     Soft Limit           Hard Limit           Units\n\
             Max open files            1024                 524288               files\n",
            "cpu 1 2 3\nbtime 1700000000\n",
        );
        let expected =
            Seen { cpu: 1.75, started: 1_700_000_012.0, resident: 2_097_152.0, open: 0.0, most_open: 1024.0 };
        assert_eq!(seen, Some(expected));
        assert_eq!(Seen::parse("42 (a", "", "", ""), None);
    }

    #[test]
    fn the_names_are_those_that_dashboards_know() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessMetrics));
        let mut page = String::new();
        text::encode(&mut page, &registry).expect("a String takes everything");
        for name in [
            "process_cpu_seconds_total",
            "process_cpu_cores",
            "process_start_time_seconds",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= 0.0), "{name}:\n{page}");
        }
    }
}
