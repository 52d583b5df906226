//! How much memory the processes of an instance use, and how often one may be replaced for it.

use std::{collections::HashMap, fs, time::Duration};

use parking_lot::Mutex;
use rustix::process::Pid;
use tokio::time::Instant;

/// For how long a look at the system's processes is good for all instances.
const READING: Duration = Duration::from_millis(250);
/// Between two replacements of a command's instances: at first, and at most.
const APART: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// An instance that took this long to outgrow its limit does so slowly: the next one may be replaced at once.
const SLOW_GROWTH: Duration = Duration::from_secs(600);

/// The memory of process groups. Which processes there are is looked up for all groups at once.
#[derive(Debug, Default)]
pub(super) struct MemoryReadings(Mutex<Option<(Instant, Groups)>>);

/// The processes of each group.
type Groups = HashMap<i32, Vec<u32>>;

impl MemoryReadings {
    /// Bytes of memory that the processes of this group use: the sum of what each has resident, so that what they share
    /// counts for each. `None` when there is no such process.
    pub(super) fn of_group(&self, group: Pid) -> Option<u64> {
        let each = self.processes_of(group).into_iter().filter_map(resident);
        each.reduce(|sum, more| sum + more)
    }

    /// The processes of this group, as they were a moment ago.
    pub(super) fn processes_of(&self, group: Pid) -> Vec<u32> {
        let mut reading = self.0.lock();
        if reading.as_ref().is_none_or(|(at, _)| at.elapsed() >= READING) {
            *reading = Some((Instant::now(), processes_by_group()));
        }
        let by_group = reading.as_ref().map(|(_, by_group)| by_group);
        by_group.and_then(|by_group| by_group.get(&group.as_raw_pid()).cloned()).unwrap_or_default()
    }
}

fn processes_by_group() -> Groups {
    let mut by_group = Groups::new();
    let Ok(entries) = fs::read_dir("/proc") else { return by_group };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for id in ids {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        if let Some(group) = group_of(&stat) {
            by_group.entry(group).or_default().push(id);
        }
    }
    by_group
}

/// By a line of proc_pid_stat(5): state, parent and group follow the name, which may itself hold brackets and spaces.
fn group_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

/// In bytes, by proc_pid_status(5).
fn resident(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// When instances of a command were replaced because they had outgrown their limit.
#[derive(Debug, Default)]
pub(super) struct Replacements {
    last: Option<Instant>,
    /// Of those in a row that had outgrown it quickly.
    quick: u32,
}

impl Replacements {
    /// Whether an instance may be replaced now. One that outgrows its limit at once is no leak but a limit that is too low:
    /// replacing it again and again would only cost.
    pub(super) fn may(&self, now: Instant) -> bool {
        let (first, most) = APART;
        let apart = first.saturating_mul(2_u32.saturating_pow(self.quick)).min(most);
        self.last.is_none_or(|last| now.duration_since(last) >= apart)
    }

    /// One is replaced that has run for `age`.
    pub(super) fn replaced(&mut self, age: Duration, now: Instant) {
        self.last = Some(now);
        self.quick = if age >= SLOW_GROWTH { 0 } else { self.quick.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_system_is_read() {
        assert_eq!(group_of("7 (a) b) S 1 5 6 0"), Some(5));
        assert_eq!(group_of("7 (a) S 1"), None);
    }

    #[tokio::test]
    async fn an_own_group_uses_something_and_one_that_is_not_there_nothing() {
        let readings = MemoryReadings::default();
        let own = readings.of_group(rustix::process::getpgrp()).unwrap();
        assert!(own > 100_000, "{own}");
        assert_eq!(readings.of_group(Pid::from_raw(i32::MAX).unwrap()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leak_is_replaced_at_once_and_a_limit_that_is_too_low_ever_more_seldom() {
        let start = Instant::now();
        let mut replacements = Replacements::default();
        assert!(replacements.may(start));
        replacements.replaced(SLOW_GROWTH, start);
        assert!(replacements.may(start + Duration::from_secs(1)));
        let (mut now, mut waits) = (start, Vec::new());
        for _ in 0..12 {
            replacements.replaced(Duration::from_secs(1), now);
            let wait = (1..).find(|second| replacements.may(now + Duration::from_secs(*second))).unwrap();
            now += Duration::from_secs(wait);
            waits.push(wait);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    }
}
