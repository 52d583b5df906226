//! `edge supervised --parent PID -- PROGRAM ARGS…`: the hidden step between the edge and a program it runs.
//!
//! The edge starts its commands through this, so that none outlives it, even after `kill -9`: this process asks the
//! kernel for SIGTERM when its parent dies, makes sure the parent is still alive, and then *becomes* the program. The
//! request survives `exec`. It must stay the first thing `main` does: no thread, no runtime, no log is set up here.

use std::{ffi::OsString, io, os::unix::process::CommandExt as _, process::ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::observe::say;

/// Arguments of the hidden subcommand.
#[derive(Debug, clap::Args)]
pub struct Supervised {
    /// Process id of the edge that started this.
    #[arg(long)]
    parent: i32,
    /// The program to become, and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Supervised {
    /// Becomes the program. Returns only when that failed: 127 when there is no such program, 126 otherwise, as shells
    /// do.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let Some((program, arguments)) = self.command.split_first() else {
            return ExitCode::from(126);
        };
        if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
            say::complaint(format_args!("edge: cannot tie {} to its parent: {error}", program.display()));
            return ExitCode::from(126);
        }
        // The parent may have died before the line above, and then no signal will ever come.
        if getppid().map(rustix::process::Pid::as_raw_pid) != Some(self.parent) {
            return ExitCode::from(126);
        }
        let error = std::process::Command::new(program).args(arguments).exec();
        say::complaint(format_args!("edge: cannot run {}: {error}", program.display()));
        ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
    }
}
