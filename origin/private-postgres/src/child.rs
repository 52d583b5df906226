//! The step between the origin and its server: a process that gives up root, ties its life to the origin's, and becomes
//! PostgreSQL by `exec`.
//!
//! It is the origin's own program under a hidden command, because what it sets must be set after `fork` in the new
//! process, and std's only hook for that (`pre_exec`) is unsafe. An origin that is root starts it as root, so that it can be
//! executed wherever the binary lies; only then does it change its user.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use clap::Args;

use crate::account::Account;

/// The hidden command's name.
pub(crate) const COMMAND: &str = "run-postgres";

/// What the hidden command is given.
#[derive(Debug, Args)]
pub struct RunPostgres {
    /// Process that must still be the parent when the tie is made.
    #[arg(long)]
    parent: i32,
    /// User to become.
    #[arg(long, requires = "group")]
    user: Option<u32>,
    /// Group to become.
    #[arg(long, requires = "user")]
    group: Option<u32>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<PathBuf>,
}

/// Starts `command` through `launcher`, its output going to `log`. The process id stays the same up to the server.
///
/// The parent-death signal comes when the *thread* that started the child ends: call this on one that lives as long as
/// the server should.
pub(crate) fn spawn(
    launcher: &Path,
    account: Option<Account>,
    command: &[PathBuf],
    log: &File,
) -> io::Result<Child> {
    let mut launch = Command::new(launcher);
    launch.arg(COMMAND).arg("--parent").arg(std::process::id().to_string());
    if let Some(account) = account {
        launch.args(["--user", &account.user.to_string(), "--group", &account.group.to_string()]);
    }
    // A group of its own: Ctrl-C in the terminal is for the origin, which stops the server when its requests are done.
    launch.arg("--").args(command).current_dir("/").process_group(0);
    launch.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?).spawn()
}

impl RunPostgres {
    /// Becomes the command; returns only with the reason why it could not.
    pub fn run(self) -> io::Error {
        match self.prepare() {
            Ok(()) => Command::new(&self.command[0]).args(&self.command[1..]).exec(),
            Err(error) => error,
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn prepare(&self) -> io::Result<()> {
        use rustix::{process, thread};

        // Threads have their own credentials in Linux; this process has but one.
        if let (Some(user), Some(group)) = (self.user, self.group) {
            let (user, group) = (thread::Uid::from_raw(user), thread::Gid::from_raw(group));
            thread::set_thread_groups(&[])?;
            thread::set_thread_res_gid(group, group, group)?;
            thread::set_thread_res_uid(user, user, user)?;
        }
        // SIGINT is PostgreSQL's fast shutdown. Set after the change of user, which clears it; whether the parent still
        // lives is asked last, because one that died before the signal was set will never send it.
        process::set_parent_process_death_signal(Some(process::Signal::INT))?;
        if process::getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != self.parent) {
            return Err(io::Error::other("the origin ended before its server started"));
        }
        Ok(())
    }

    /// No parent-death signal here: after a `kill -9` of the origin, the next start adopts the server.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn prepare(&self) -> io::Result<()> {
        if self.user.is_some() {
            return Err(io::Error::other("on this system a private PostgreSQL cannot be started as root"));
        }
        Ok(())
    }
}
