//! The programs of `[commands.NAME]`: started, watched, restarted, stopped.
//!
//! Owns: every process the edge starts. Promises: a program that ends is started again, with back-off; `upstream::choose`
//! sees exactly the instances that are ready; a reload replaces instances one by one, the new one ready before the old one
//! leaves; none outlives the edge. Never touches a request, but has those to a shared socket wait while an instance leaves it.
//!
//! One instance:
//! ```text
//!              +--------------------- back-off over ---------------------+
//!              v                                                         |
//!   ------> Starting -- answers where it listens -> Ready --- exits ---> Waiting
//!              |  '-- exits, or not ready in time ----|------------------^ |
//!              |                                      |                    |
//!              '------------- stop wanted ------------+--------------------'
//!                                   v
//!                     Stopping: its requests end, stop_signal to its group, stop_timeout, SIGKILL
//! ```
//!
//! A ready instance is looked at every `ready_interval`. One that fails gets no requests until it answers again; one that
//! gives no sign of life for `ready_timeout` is stopped and started again; one that uses more than `memory` is replaced.
//! One that fails again and again is told once, with the last that it printed (`failures`).
//!
//! **Everything here runs on the main thread's current-thread runtime.** An instance is started through the edge's own
//! program (`edge supervised`), which asks the kernel for SIGTERM at its parent's death. The kernel means the parent
//! *thread*: an instance started on a worker thread would die with that thread, and one started from a blocking pool when
//! the pool shrinks. The main thread lives as long as the process.
//!
//! Each instance leads a process group of its own: a Ctrl-C at the terminal reaches only the edge, which then stops its
//! instances in order, and what an instance leaves behind in its group is killed with it; after a `kill -9` of the edge
//! `guard` sees to that. A program that wants a child of
//! its own to survive it (a database that is to be adopted) puts that child in another group.

mod board;
mod changed_files;
mod environment;
mod failures;
mod guard;
mod identity;
mod inquiry;
mod instance;
mod keeper;
mod launcher;
mod memory;
mod output;
mod output_file;
mod place;
mod ports;
mod probe;
mod process;
mod program;
mod restart;
mod roster;
mod scrape;
mod shared;
mod sockets;
mod tail;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use tokio::{sync::watch, task::JoinSet};

use crate::settings::Command;
pub use board::InstanceState;
use guard::Guard;
use keeper::{Keeper, report_panic};
pub use launcher::{Launcher, Output};
pub use place::MetricsPlace;
use ports::Ports;
pub use program::obstacles;
pub use restart::RestartNews;
pub use roster::{CommandReport, Endpoints, InstanceReport, Roster};
pub use scrape::{NotScraped, Scraped};
pub use shared::SHARED_DESCRIPTOR;
pub use tail::Tail;

/// Keeps the programs of the settings running. Dropped without [`Supervisor::stop`], it stops them all the same, as long
/// as the runtime runs.
#[derive(Debug)]
pub struct Supervisor {
    surroundings: Arc<Surroundings>,
    /// The command for each keeper: `None`, or a closed channel, means no instances.
    wanted: BTreeMap<Arc<str>, watch::Sender<Option<Arc<Command>>>>,
    keepers: JoinSet<()>,
}

/// What all instances of all commands share.
#[derive(Debug)]
struct Surroundings {
    launcher: Launcher,
    roster: Arc<Roster>,
    ports: Arc<Ports>,
    guard: Arc<Guard>,
}

impl Supervisor {
    /// Starts every command. Returns at once; [`Endpoints::until`] waits for readiness.
    ///
    /// # Panics
    /// Outside a tokio runtime. It must be the main thread's (see the module's head).
    #[must_use]
    pub fn start(launcher: Launcher, commands: &BTreeMap<Arc<str>, Arc<Command>>) -> Self {
        let mut supervisor = Self {
            surroundings: Arc::new(Surroundings {
                launcher,
                roster: Arc::default(),
                ports: Arc::default(),
                guard: Arc::default(),
            }),
            wanted: BTreeMap::new(),
            keepers: JoinSet::new(),
        };
        supervisor.apply(commands);
        supervisor
    }

    /// The state of the commands, for readers on all threads.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.surroundings.roster)
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
            let endpoints = match (self.wanted.get(name), self.surroundings.roster.get(name)) {
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
            endpoints.tells_metrics.store(command.metrics.is_some(), Ordering::Relaxed);
            roster.insert(Arc::clone(name), endpoints);
        }
        self.surroundings.roster.commands.store(Arc::new(roster));
    }

    /// Opens the files anew to which commands print: who has renamed them wants the next lines elsewhere.
    pub fn reopen_outputs(&self) {
        self.surroundings.roster.all().values().for_each(|endpoints| endpoints.file.reopen());
    }

    /// Stops every instance and waits for the last: for its requests and for itself, each no longer than the longest `stop_timeout`.
    ///
    /// Dropped while it waits, the instances go on stopping as long as the runtime runs.
    pub async fn stop(mut self) {
        self.wanted.clear();
        while let Some(ended) = self.keepers.join_next().await {
            report_panic(ended);
        }
        self.surroundings.guard.stop();
    }

    fn start_keeper(&mut self, command: &Arc<Command>) -> Arc<Endpoints> {
        let (endpoints, orders) = Endpoints::new();
        let (sender, wanted) = watch::channel(Some(Arc::clone(command)));
        let keeper = Keeper::new(Arc::clone(&self.surroundings), Arc::clone(&endpoints), orders);
        self.wanted.insert(Arc::clone(&command.name), sender);
        self.keepers.spawn(keeper.keep(wanted));
        endpoints
    }
}
