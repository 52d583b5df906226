//! What ends the groups of instances once the edge is no more, however it ended.
//!
//! The kernel sends an instance SIGTERM when the edge dies (`edge supervised`), but nobody the processes that it has started
//! itself: after `kill -9`, or out of memory, they would hold ports and files for ever. So a process of the edge's own program
//! (`edge guard`) is told of each group, and waits for the end of its input, which comes when the edge has gone. It is started
//! with the first instance, and ends with the edge.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::Pid;

/// The process that outlives the edge, and what it knows.
#[derive(Debug, Default)]
pub(super) struct Guard(Mutex<Guarded>);

#[derive(Debug, Default)]
struct Guarded {
    process: Option<Child>,
    /// How long each group may take to end.
    groups: BTreeMap<i32, Duration>,
}

impl Guard {
    /// From now on this group ends after the edge. `program` is the edge's own.
    pub(super) fn watch(&self, program: &Path, group: Pid, stop_timeout: Duration) {
        let mut guarded = self.0.lock();
        guarded.groups.insert(group.as_raw_pid(), stop_timeout);
        if guarded.tell(&line(group.as_raw_pid(), stop_timeout)).is_ok() {
            return;
        }
        if let Err(error) = guarded.start(program) {
            tracing::warn!("if the edge is killed, what its commands have started will not end: {error}");
        }
    }

    /// Nothing of this group is left.
    pub(super) fn forget(&self, group: Pid) {
        let mut guarded = self.0.lock();
        guarded.groups.remove(&group.as_raw_pid());
        // One that has gone is started anew with the next instance.
        let _ = guarded.tell(&format!("-{}\n", group.as_raw_pid()));
    }

    /// Ends the process, which has nothing left to do.
    pub(super) fn stop(&self) {
        let process = self.0.lock().process.take();
        if let Some(mut process) = process {
            drop(process.stdin.take());
            let _ = process.wait();
        }
    }
}

impl Guarded {
    fn tell(&mut self, line: &str) -> io::Result<()> {
        let input = self.process.as_mut().and_then(|process| process.stdin.as_mut());
        input.ok_or(io::ErrorKind::NotConnected)?.write_all(line.as_bytes())
    }

    fn start(&mut self, program: &Path) -> io::Result<()> {
        if let Some(mut old) = self.process.take() {
            drop(old.stdin.take());
            let _ = old.kill();
            let _ = old.wait();
        }
        let process = Command::new(program)
            .arg("guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        self.process = Some(process);
        let groups: String = self.groups.iter().map(|(group, timeout)| line(*group, *timeout)).collect();
        self.tell(&groups)
    }
}

fn line(group: i32, stop_timeout: Duration) -> String {
    format!("+{group} {}\n", stop_timeout.as_millis())
}
