//! The programs of `[commands.NAME]`: started, watched, restarted, stopped.
//!
//! Owns: every process the edge starts. Promises: a program that ends is started again, with back-off; `upstream::choose`
//! sees exactly the instances that are ready; a reload replaces instances one by one, the new one ready before the old one
//! leaves; none outlives the edge. Never touches a request.
//!
//! One instance:
//! ```text
//!              +--------------------- back-off over ---------------------+
//!              v                                                         |
//!   ------> Starting ---- answers on its PORT ----> Ready --- exits ---> BackOff
//!              |  '-- exits, or not ready in time ----|------------------^ |
//!              |                                      |                    |
//!              '------------- stop wanted ------------+--------------------'
//!                                   v
//!                               Stopping: SIGTERM to its group, stop_timeout, SIGKILL
//! ```
//!
//! **Everything here runs on the main thread's current-thread runtime.** An instance is started through the edge's own
//! program (`edge supervised`), which asks the kernel for SIGTERM at its parent's death. The kernel means the parent
//! *thread*: an instance started on a worker thread would die with that thread, and one started from a blocking pool when
//! the pool shrinks. The main thread lives as long as the process.
//!
//! Each instance leads a process group of its own: a Ctrl-C at the terminal reaches only the edge, which then stops its
//! instances in order, and what an instance leaves behind in its group is killed with it. A program that wants a child of
//! its own to survive it (a database that is to be adopted) puts that child in another group.

mod instance;
mod keeper;
mod output;
mod ports;
mod probe;
mod process;
mod program;

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinSet},
};
use tracing::error;

use self::{keeper::Keeper, ports::Ports};
use crate::settings::Command;

/// Where the output of instances goes, one or more whole lines at a time. It may block.
pub type Output = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// How instances are started.
#[derive(Clone)]
pub struct Launcher {
    /// The edge's program (an absolute path), whose `supervised` command starts the instance.
    pub program: PathBuf,
    /// Where their output goes.
    pub output: Output,
}

impl Launcher {
    /// Starts instances through the running program, also when its file has been replaced; output goes to stderr.
    #[must_use]
    pub fn this_program() -> Self {
        let output: Output = Arc::new(|lines| {
            // Nobody is left to tell when stderr is gone.
            let _ = io::stderr().lock().write_all(lines);
        });
        Self { program: PathBuf::from("/proc/self/exe"), output }
    }
}

impl fmt::Debug for Launcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Launcher").field("program", &self.program).finish_non_exhaustive()
    }
}

/// Keeps the programs of the settings running. Dropped without [`Supervisor::stop`], it stops them all the same, as long
/// as the runtime runs.
#[derive(Debug)]
pub struct Supervisor {
    launcher: Launcher,
    roster: Arc<Roster>,
    ports: Arc<Ports>,
    /// What each keeper is to keep: `None`, or a closed channel, means nothing.
    wanted: BTreeMap<Arc<str>, watch::Sender<Option<Arc<Command>>>>,
    keepers: JoinSet<()>,
}

impl Supervisor {
    /// Starts every command. Returns at once; [`Endpoints::until`] waits for readiness.
    ///
    /// # Panics
    /// Outside a tokio runtime. It must be the main thread's (see the module's head).
    #[must_use]
    pub fn start(launcher: Launcher, commands: &BTreeMap<Arc<str>, Arc<Command>>) -> Self {
        let mut supervisor = Self {
            launcher,
            roster: Arc::default(),
            ports: Arc::default(),
            wanted: BTreeMap::new(),
            keepers: JoinSet::new(),
        };
        supervisor.apply(commands);
        supervisor
    }

    /// What readers on all threads see of the commands.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster)
    }

    /// Makes `commands` the ones that run. Unchanged ones are not touched, removed ones stop, new ones start, changed ones
    /// are replaced instance by instance; a command that differs in `instances` only gains or loses instances.
    ///
    /// Returns at once: when it does, [`Supervisor::roster`] knows the new names, and a changed command keeps its
    /// [`Endpoints`].
    ///
    /// # Panics
    /// Outside a tokio runtime. It must be the main thread's (see the module's head).
    pub fn apply(&mut self, commands: &BTreeMap<Arc<str>, Arc<Command>>) {
        while let Some(ended) = self.keepers.try_join_next() {
            report_panic(ended);
        }
        let mut roster = BTreeMap::new();
        // A keeper whose sender is dropped stops its instances and ends.
        self.wanted.retain(|name, _| commands.contains_key(name));
        for (name, command) in commands {
            let endpoints = match (self.wanted.get(name), self.roster.get(name)) {
                (Some(wanted), Some(endpoints)) => {
                    wanted.send_if_modified(|current| {
                        let changed = current.as_ref() != Some(command);
                        *current = Some(Arc::clone(command));
                        changed
                    });
                    endpoints
                }
                _ => self.start_keeper(command),
            };
            endpoints.wanted.store(command.instances, Ordering::Relaxed);
            roster.insert(Arc::clone(name), endpoints);
        }
        self.roster.0.store(Arc::new(roster));
    }

    /// Stops every instance and waits for the last: no longer than the longest `stop_timeout`.
    ///
    /// Dropped while it waits, the instances go on stopping as long as the runtime runs.
    pub async fn stop(mut self) {
        self.wanted.clear();
        while let Some(ended) = self.keepers.join_next().await {
            report_panic(ended);
        }
    }

    fn start_keeper(&mut self, command: &Arc<Command>) -> Arc<Endpoints> {
        let endpoints = Arc::<Endpoints>::default();
        let (sender, wanted) = watch::channel(Some(Arc::clone(command)));
        let keeper = Keeper::new(self.launcher.clone(), Arc::clone(&self.ports), Arc::clone(&endpoints));
        self.wanted.insert(Arc::clone(&command.name), sender);
        self.keepers.spawn(keeper.keep(wanted));
        endpoints
    }
}

/// Every command by name, for readers on any thread.
#[derive(Debug, Default)]
pub struct Roster(ArcSwap<BTreeMap<Arc<str>, Arc<Endpoints>>>);

impl Roster {
    /// The instances of one command.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Endpoints>> {
        self.0.load().get(name).cloned()
    }

    /// Every command, in the order of names.
    #[must_use]
    pub fn all(&self) -> Arc<BTreeMap<Arc<str>, Arc<Endpoints>>> {
        self.0.load_full()
    }
}

impl crate::upstream::Commands for Roster {
    fn ready(&self, command: &str) -> Arc<[SocketAddr]> {
        self.get(command).map_or_else(|| Arc::from([]), |endpoints| endpoints.snapshot())
    }
}

/// The ready instances of one command. The same value stays for as long as the command is in the settings.
#[derive(Debug)]
pub struct Endpoints {
    ready: ArcSwap<Arc<[SocketAddr]>>,
    wanted: AtomicUsize,
    restarts: AtomicU64,
    changed: Notify,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            ready: ArcSwap::from_pointee(Arc::from([])),
            wanted: AtomicUsize::new(0),
            restarts: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }
}

impl Endpoints {
    /// Where the ready instances listen, oldest first. Takes no lock.
    #[must_use]
    pub fn snapshot(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.ready.load())
    }

    /// How many instances the settings ask for.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// How often instances have been started again since the edge started.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Waits until the ready instances are `enough`, and returns them. The wait has no end of its own: bound it. Dropping it
    /// changes nothing.
    pub async fn until(&self, enough: impl Fn(&[SocketAddr]) -> bool) -> Arc<[SocketAddr]> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change between the look and the wait is not lost.
            changed.as_mut().enable();
            let now = self.snapshot();
            if enough(&now) {
                return now;
            }
            changed.await;
        }
    }

    fn publish(self: &Arc<Self>, address: SocketAddr) -> Published {
        self.edit(|ready| ready.push(address));
        Published { endpoints: Arc::clone(self), address }
    }

    fn edit(&self, change: impl Fn(&mut Vec<SocketAddr>)) {
        self.ready.rcu(|ready| {
            let mut ready = ready.to_vec();
            change(&mut ready);
            Arc::<[SocketAddr]>::from(ready)
        });
        self.changed.notify_waiters();
    }
}

/// An instance among the ready ones, until this is dropped.
struct Published {
    endpoints: Arc<Endpoints>,
    address: SocketAddr,
}

impl Drop for Published {
    fn drop(&mut self) {
        self.endpoints.edit(|ready| ready.retain(|address| *address != self.address));
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a task that keeps a command running has failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_instances_come_and_go() {
        let endpoints = Arc::<Endpoints>::default();
        let (one, two) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
        let first = endpoints.publish(one);
        let second = endpoints.publish(two);
        assert_eq!(*endpoints.snapshot(), [one, two]);
        drop(first);
        assert_eq!(*endpoints.snapshot(), [two]);
        drop(second);
        assert_eq!(*endpoints.snapshot(), []);
    }
}
