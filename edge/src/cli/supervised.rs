//! `edge supervised --parent PID -- PROGRAM ARGS…`: the hidden step between the edge and a program it runs.
//!
//! The edge starts its commands through this, so that none outlives it, even after `kill -9`: this process asks the
//! kernel for SIGTERM when its parent dies, makes sure the parent is still alive, and then *becomes* the program. The
//! request survives `exec`. It must stay the first thing `main` does: no thread, no runtime, no log is set up here.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::ExitCode,
};

use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    process::{Signal, getppid, set_parent_process_death_signal},
    stdio::{dup2_stdin, stdin},
};

use crate::{observe::say, upstream::supervise::SHARED_DESCRIPTOR};

/// Arguments of the hidden subcommand.
#[derive(Debug, clap::Args)]
pub struct Supervised {
    /// Process id of the edge that started this.
    #[arg(long)]
    parent: i32,
    /// Whether its standard input is a socket that it is to accept connections on, as descriptor 3.
    #[arg(long)]
    listener: bool,
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
        let mut command = std::process::Command::new(program);
        if self.listener {
            if let Err(error) = hand_listener_on() {
                say::complaint(format_args!("edge: no listener for {}: {error}", program.display()));
                return ExitCode::from(126);
            }
            // As systemd says it: sd_listen_fds(3).
            let own = std::process::id().to_string();
            command.envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http"), ("LISTEN_PID", &*own)]);
        }
        let error = command.args(arguments).exec();
        say::complaint(format_args!("edge: cannot run {}: {error}", program.display()));
        ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
    }
}

/// Puts standard input, which is a listening socket, where programs look for one, and nothing in its place.
fn hand_listener_on() -> io::Result<()> {
    let moved = fcntl_dupfd_cloexec(stdin(), SHARED_DESCRIPTOR)?;
    if moved.as_raw_fd() != SHARED_DESCRIPTOR {
        let what = format!("descriptor {SHARED_DESCRIPTOR} is taken: start the edge without it");
        return Err(io::Error::other(what));
    }
    fcntl_setfd(&moved, FdFlags::empty())?;
    dup2_stdin(File::open("/dev/null")?)?;
    // It stays open: the program has it.
    std::mem::forget(moved);
    Ok(())
}
