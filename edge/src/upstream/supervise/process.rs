//! One process: its group, its output, its end.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, process::Stdio, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{net::unix::pipe, process::Child, task::JoinHandle, time::timeout};

use super::{
    guard::Guard,
    identity::Identity,
    launcher::Launcher,
    output::relay,
    place::{InstancePlaces, ListenPlace},
};
use crate::settings::Command;

/// How long the last output of an instance that has ended is waited for: a child of it may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// A process, its group and its output. Dropping it kills the rest of the group.
pub(super) struct Process {
    pub(super) child: Child,
    group: Option<Pid>,
    guard: Arc<Guard>,
    /// Ends when nobody holds the other end of the output's pipe.
    relay: JoinHandle<()>,
}

/// What a process is started with, beside its command.
pub(super) struct Start<'a> {
    pub(super) launcher: &'a Launcher,
    pub(super) guard: &'a Arc<Guard>,
    pub(super) places: &'a InstancePlaces,
    pub(super) identity: Option<&'a Identity>,
    pub(super) variables: &'a BTreeMap<String, String>,
}

impl Process {
    /// `print` takes each line of its output.
    pub(super) fn start(
        command: &Command,
        with: &Start<'_>,
        print: impl FnMut(&[u8]) + Send + 'static,
    ) -> io::Result<Self> {
        // One pipe for both, so that lines keep their order.
        let (reader, writer) = io::pipe()?;
        let value = with.places.listen.value();
        let words = command.run.iter().map(|word| word.replace(command.listen.placeholder(), &value));
        let mut start = tokio::process::Command::new(&with.launcher.program);
        start
            .args(["supervised", "--parent", &std::process::id().to_string()])
            .args(matches!(with.places.listen, ListenPlace::Shared(_)).then_some("--listener"))
            .arg("--")
            .args(words)
            .envs(
                with.identity
                    .iter()
                    .flat_map(|identity| &identity.variables)
                    .map(|(name, value)| (name, value)),
            )
            .envs(with.variables)
            .envs(with.places.variables(command))
            .stdin(match &with.places.listen {
                ListenPlace::Shared(listener) => Stdio::from(listener.descriptor()?),
                _ => Stdio::null(),
            })
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .kill_on_drop(true);
        if let Some(identity) = with.identity {
            // Before the step through `supervised`: a change of user would undo its tie to the edge. std drops all other
            // groups where it sets the user as root.
            start.uid(identity.user).gid(identity.group);
        }
        if let Some(directory) = &command.directory {
            start.current_dir(directory);
        }
        let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        let child = start.spawn()?;
        // `start` holds the pipe's writing end: with it, the output would never end.
        drop(start);
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            with.guard.watch(&with.launcher.program, group, command.stop_timeout);
        }
        let relay = tokio::spawn(relay(reader, print));
        Ok(Self { child, group, guard: Arc::clone(with.guard), relay })
    }

    /// Its id, which is its group's, too.
    pub(super) fn group(&self) -> Option<Pid> {
        self.group
    }

    /// Whether somebody has stopped it (SIGSTOP, a terminal). The system still accepts connections for it then.
    pub(super) fn is_stopped(&self) -> bool {
        let Some(id) = self.child.id() else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The state follows the name, which may itself hold brackets and spaces (proc_pid_stat(5)).
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Fails only when no process of the group is left, and then no signal is needed.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Kills the rest of the group, reaps the process, and waits a moment for the last output.
    pub(super) async fn finish(mut self) {
        // The leader may be reaped already. Its id stays the group's while a member lives, and without one the system
        // uses all other ids before it reuses this one.
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
        if let Some(group) = self.group.take() {
            self.guard.forget(group);
        }
        let _ = timeout(OUTPUT_GRACE, &mut self.relay).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.relay.abort();
        // Only when the task was dropped half-way: after `finish` the id may belong to somebody else.
        if self.child.id().is_some() {
            self.signal(Signal::KILL);
        }
        if let Some(group) = self.group {
            self.guard.forget(group);
        }
    }
}
