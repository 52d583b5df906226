//! Brings the instances of one command to the settings, also when they change.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    sync::{Notify, oneshot, watch},
    task::{JoinError, JoinSet},
};

use super::{instance::Life, launcher::Launcher, ports::Ports, roster::Endpoints};
use crate::settings::Command;

/// Brings the instances of one command to the settings.
pub(super) struct Keeper {
    launcher: Launcher,
    ports: Arc<Ports>,
    endpoints: Arc<Endpoints>,
    /// Notified by instances that became ready or stopped being so.
    news: Arc<Notify>,
    command: Option<Arc<Command>>,
    /// Instances of `command`.
    current: Vec<Instance>,
    /// Instances of the command before a reload, kept until the new ones are ready.
    former: Vec<Instance>,
    tasks: JoinSet<()>,
}

/// A running instance: dropping it stops it. Its task ends when the process has.
struct Instance {
    ready: Arc<AtomicBool>,
    _stop: oneshot::Sender<()>,
}

impl Instance {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

impl Keeper {
    pub(super) fn new(launcher: Launcher, ports: Arc<Ports>, endpoints: Arc<Endpoints>) -> Self {
        Self {
            launcher,
            ports,
            endpoints,
            news: Arc::default(),
            command: None,
            current: Vec::new(),
            former: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until no instance is wanted any more and every instance has ended.
    pub(super) async fn keep(mut self, mut wanted: watch::Receiver<Option<Arc<Command>>>) {
        loop {
            let target = if wanted.has_changed().is_ok() { wanted.borrow_and_update().clone() } else { None };
            let Some(target) = target else { break };
            self.converge(&target);
            tokio::select! {
                _ = wanted.changed() => {}
                () = self.news.notified() => {}
                Some(ended) = self.tasks.join_next() => report_panic(ended),
            }
        }
        self.current.clear();
        self.former.clear();
        while let Some(ended) = self.tasks.join_next().await {
            report_panic(ended);
        }
    }

    /// One step towards `target`. In a rolling restart an old instance leaves when a new one is ready, and the next new
    /// one starts only then: capacity never falls, and a version that does not come up replaces nothing.
    fn converge(&mut self, target: &Arc<Command>) {
        if self.command.as_ref().is_some_and(|command| !differ_in_instances_only(command, target)) {
            self.former.append(&mut self.current);
        }
        let count = target.instances;
        self.command = Some(Arc::clone(target));
        self.current.truncate(count);
        let ready = self.current.iter().filter(|instance| instance.is_ready()).count();
        self.former.sort_by_key(|instance| !instance.is_ready());
        self.former.truncate(count - ready);
        while self.current.len() < count {
            let rolling = !self.former.is_empty();
            if rolling && ready < self.current.len() {
                break;
            }
            self.start_instance(target);
            if rolling {
                break;
            }
        }
    }

    fn start_instance(&mut self, command: &Arc<Command>) {
        let (stop, stopped) = oneshot::channel();
        let ready = Arc::<AtomicBool>::default();
        let life = Life {
            name: format!("{}.{}", command.name, self.current.len() + 1),
            command: Arc::clone(command),
            launcher: self.launcher.clone(),
            ports: Arc::clone(&self.ports),
            endpoints: Arc::clone(&self.endpoints),
            ready: Arc::clone(&ready),
            news: Arc::clone(&self.news),
        };
        self.tasks.spawn(life.live(stopped));
        self.current.push(Instance { ready, _stop: stop });
    }
}

fn differ_in_instances_only(one: &Command, other: &Command) -> bool {
    *one == Command { instances: one.instances, ..other.clone() }
}

/// Logs the panic of a task that must not fail.
pub(super) fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task that keeps a command running has failed");
    }
}
