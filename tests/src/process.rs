//! A program under test: its output is kept, and it is gone when the value is gone.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::NamedTempFile;

use crate::wait;

/// A running program and every line it has printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    // A file and not a pipe: a program that prints much never waits for the test to read.
    output: NamedTempFile,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it in a process group of its own, as a shell does: [`signal_group`](Self::signal_group) reaches all of it.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    pub fn start_group(name: &str, command: &mut Command) -> Self {
        Self::start(name, command.process_group(0))
    }

    /// Starts it with nothing to read. It stays in the test's process group: whoever kills a test that hangs kills it, too.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    pub fn start(name: &str, command: &mut Command) -> Self {
        let output = NamedTempFile::new().expect("a temporary file can be made");
        let append = || std::fs::File::options().append(true).open(output.path()).expect("the file is ours");
        command.stdin(Stdio::null()).stdout(append()).stderr(append());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { name: name.into(), child, output, ended: None }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far, both streams in order.
    ///
    /// # Panics
    /// When somebody took the file away.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let output = std::fs::read(self.output.path()).expect("the file is ours");
        String::from_utf8_lossy(&output).lines().map(str::to_owned).collect()
    }

    /// Waits until it has printed a line for which `pick` yields a value.
    ///
    /// # Panics
    /// When it ends before, or the harness's patience does.
    #[track_caller]
    pub fn wait_for_line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let found = wait::until_within(wait::PATIENCE, || {
            let over = self.ended().is_some();
            match self.lines().iter().find_map(|line| pick(line)) {
                Some(value) => Some(Some(value)),
                None if over => Some(None),
                None => None,
            }
        });
        match found.flatten() {
            Some(value) => value,
            None => panic!("{} never printed {what}; ended: {:?}", self.name, self.ended),
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child is ours to wait for");
        }
        self.ended
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the child has not been waited for");
    }

    /// Sends a signal to its whole group, as a terminal does; for what was started as one.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).expect("the child has not been waited for");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} ended", self.name);
        wait::until(&what, || self.ended())
    }

    /// Asks it to stop and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
        }
        self.wait()
    }

    fn pid(&self) -> Pid {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        Pid::from_raw(id).expect("process ids are positive")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
            if wait::until_within(wait::PATIENCE, || self.ended()).is_none() {
                eprintln!("{} ignores SIGTERM: killed", self.name);
                self.signal(Signal::KILL);
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("---- output of {} ({:?}) ----", self.name, self.ended);
            for line in self.lines() {
                eprintln!("{line}");
            }
            eprintln!("---- end of {} ----", self.name);
        }
    }
}

/// Processes that were started under `folder`: it is in their command line, environment or working directory.
///
/// Reads `/proc`, so it needs Linux; zombies show none of the three and do not count.
#[must_use]
pub fn left_running(folder: &Path) -> Vec<(u32, String)> {
    let mark = folder.to_str().expect("temporary folders have plain names");
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").expect("/proc is there: these tests run on Linux");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| *id != own)
        .filter_map(|id| {
            let command = read_proc(id, "cmdline").replace('\0', " ");
            let directory = std::fs::read_link(format!("/proc/{id}/cwd")).unwrap_or_default();
            let marked = command.contains(mark)
                || read_proc(id, "environ").contains(mark)
                || directory.starts_with(mark);
            marked.then_some((id, command))
        })
        .collect()
}

/// Resident memory of a process in KiB: (now, highest so far).
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn resident_kib(id: u32) -> (u64, u64) {
    let status = read_proc(id, "status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the process runs");
        line.trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("the kernel writes numbers")
    };
    (field("VmRSS"), field("VmHWM"))
}

/// Resident memory of a process and its descendants, in KiB. Pages they share count once for each.
#[must_use]
pub fn resident_kib_of_tree(id: u32) -> u64 {
    tree(id).into_iter().map(|id| resident_kib(id).0).sum()
}

/// Memory of a process and its descendants, in KiB: what several of them share counts once, as far as the system lets itself be
/// asked about others' processes (as root it does).
#[must_use]
pub fn proportional_kib_of_tree(id: u32) -> u64 {
    let of_one = |id: u32| -> Option<u64> {
        let rollup = read_proc(id, "smaps_rollup");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    // One that may not be asked shows what it has in RAM, and one that has just ended nothing.
    let resident = |id: u32| -> Option<u64> {
        let status = read_proc(id, "status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    tree(id).into_iter().filter_map(|id| of_one(id).or_else(|| resident(id))).sum()
}

/// CPU time, user and system, that a process and its descendants have used, in seconds: those that live, and those that have
/// ended and been waited for.
#[must_use]
pub fn cpu_seconds(id: u32) -> f64 {
    // utime, stime, and the same of children waited for: from the 14th field of proc_pid_stat(5) on.
    tree(id).into_iter().map(|id| ticks(id, &[11, 12, 13, 14])).sum::<f64>() / TICKS_A_SECOND
}

/// The same of a process alone.
#[must_use]
pub fn own_cpu_seconds(id: u32) -> f64 {
    ticks(id, &[11, 12]) / TICKS_A_SECOND
}

/// USER_HZ, which Linux fixes for what it shows in /proc, whatever its own clock.
const TICKS_A_SECOND: f64 = 100.0;

fn ticks(id: u32, fields: &[usize]) -> f64 {
    let all = stat_fields(id);
    fields.iter().filter_map(|at| all.get(*at)?.parse::<u32>().ok()).map(f64::from).sum()
}

/// The children of a process, those that have ended and that nobody has waited for among them; but for `edge guard`, which is
/// no instance of a command.
///
/// # Panics
/// Without `/proc`.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there: these tests run on Linux");
    let all = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_guard = |id: u32| {
        std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.ends_with(b"exe\0guard\0"))
    };
    let is_child = |id: u32| stat_fields(id).get(1).is_some_and(|its| *its == parent.to_string());
    all.filter(|id| is_child(*id) && !is_guard(*id)).collect()
}

/// Whether a process has ended and nobody has waited for it.
#[must_use]
pub fn has_ended(id: u32) -> bool {
    stat_fields(id).first().is_some_and(|state| state == "Z")
}

/// A process and its living descendants.
fn tree(root: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there: these tests run on Linux");
    let all = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> =
        all.filter_map(|id| Some((id, stat_fields(id).get(1)?.parse().ok()?))).collect();
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(parent) = tree.get(at).copied() {
        tree.extend(parents.iter().filter(|(_, its_parent)| *its_parent == parent).map(|(id, _)| *id));
        at += 1;
    }
    tree
}

/// The fields of `/proc/ID/stat` after the name, which may itself hold spaces: state, parent, …
fn stat_fields(id: u32) -> Vec<String> {
    let stat = read_proc(id, "stat");
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().map(str::to_owned).collect()
}

fn read_proc(id: u32, file: &str) -> String {
    // Processes come and go while we look.
    let bytes = std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
