//! `edge guard`: the hidden process that ends what the programs of a dead edge have started.
//!
//! It is told of each process group on standard input: `+GROUP MILLISECONDS` when one begins, `-GROUP` when it has ended. The
//! input ends with the edge. What is left then gets SIGTERM, its time to stop, and SIGKILL.

use std::{
    collections::HashMap,
    io::{self, BufRead as _},
    process::ExitCode,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How often it is looked whether a group has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for the end of the edge, and ends what is left of it.
#[must_use]
pub fn run() -> ExitCode {
    let mut groups = HashMap::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        note(&line, &mut groups);
    }
    for group in groups.keys() {
        // Fails only when it has ended already.
        let _ = kill_process_group(*group, Signal::TERM);
    }
    let mut waited = Duration::ZERO;
    loop {
        groups.retain(|group, stop_timeout| {
            let lives = test_kill_process_group(*group).is_ok();
            if lives && waited >= *stop_timeout {
                let _ = kill_process_group(*group, Signal::KILL);
                return false;
            }
            lives
        });
        if groups.is_empty() {
            return ExitCode::SUCCESS;
        }
        thread::park_timeout(LOOK);
        waited += LOOK;
    }
}

fn note(line: &str, groups: &mut HashMap<Pid, Duration>) {
    let group = |text: &str| text.parse().ok().and_then(Pid::from_raw);
    if let Some((begun, milliseconds)) = line.strip_prefix('+').and_then(|rest| rest.split_once(' ')) {
        if let (Some(group), Ok(milliseconds)) = (group(begun), milliseconds.parse()) {
            groups.insert(group, Duration::from_millis(milliseconds));
        }
    } else if let Some(group) = line.strip_prefix('-').and_then(group) {
        groups.remove(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_signalled() {
        let mut groups = HashMap::new();
        for line in ["+7 100", "+8 200", "-7", "", "+x 1", "+9", "-10", "+0 1"] {
            note(line, &mut groups);
        }
        let left: Vec<_> = groups.into_iter().collect();
        assert_eq!(left, [(Pid::from_raw(8).unwrap(), Duration::from_millis(200))]);
    }
}
