//! What the first process of a container inherits: processes whose parents have ended. Unless somebody waits for them when
//! they end, they stay in the table of processes until it is full.

use std::{collections::BTreeSet, fs, process};

use rustix::process::{Pid, WaitOptions, waitpid};

/// Children that have ended and that nobody had waited for at the last look.
#[derive(Debug, Default)]
pub(super) struct Orphans(BTreeSet<i32>);

impl Orphans {
    /// Waits for those that were there at the last look already. Those that the edge started itself are waited for at
    /// once, by who started them: they are never seen twice.
    pub(super) fn reap(&mut self) {
        if process::id() != 1 {
            return;
        }
        let ended = ended_children();
        for id in ended.intersection(&self.0).copied().filter_map(Pid::from_raw) {
            // Fails only when somebody else has waited for it meanwhile.
            let _ = waitpid(Some(id), WaitOptions::NOHANG);
        }
        self.0 = ended;
    }
}

fn ended_children() -> BTreeSet<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id| fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| is_ended_child(&stat)))
        .collect()
}

/// By a line of proc_pid_stat(5): state and parent follow the name, which may itself hold brackets and spaces.
fn is_ended_child(stat: &str) -> bool {
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
    let own = process::id().to_string();
    fields.take(2).eq(["Z", own.as_str()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_children_that_have_ended_are_meant() {
        let own = process::id();
        assert!(is_ended_child(&format!("7 (a) b) Z {own} 7 7")));
        assert!(!is_ended_child(&format!("7 (a) S {own} 7 7")));
        assert!(!is_ended_child("7 (a) Z 0 7 7"));
        assert!(!is_ended_child(""));
    }
}
