//! Brings the instances of one command to the settings, also when they change, and replaces them when that is asked for.

use std::{path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Surroundings,
    changed_files::tell_changes,
    instance::{Life, Vitals},
    memory::Replacements,
    place::CommandSockets,
    restart::{RestartNews, RestartOrder, Roll},
    roster::Endpoints,
};
use crate::settings::{Command, CommandListen};

/// Brings the instances of one command to the settings.
pub(super) struct Keeper {
    surroundings: Arc<Surroundings>,
    sockets: Arc<CommandSockets>,
    endpoints: Arc<Endpoints>,
    /// Restarts that are asked for.
    orders: mpsc::Receiver<RestartOrder>,
    /// Notified by instances that became ready or stopped being so.
    news: Arc<Notify>,
    command: Option<Arc<Command>>,
    /// Instances that are wanted.
    current: Vec<Instance>,
    /// Instances that are to be replaced, kept until the new ones are ready.
    former: Vec<Instance>,
    roll: Option<Roll>,
    /// Notified when files of the command have changed.
    changes: Arc<Notify>,
    /// Looks at the files of the command, until this is dropped.
    watching: Option<AbortOnDropHandle<()>>,
    files: WatchedFiles,
    replacements: Replacements,
    tasks: JoinSet<()>,
}

/// The files of the command, as the instances know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchedFiles {
    Unchanged,
    /// They have changed since: the instances are to be replaced as soon as no others are.
    Changed,
}

/// A running instance: dropping it stops it. Its task ends when the process has.
struct Instance {
    /// From 1: in its name.
    number: usize,
    command: Arc<Command>,
    vitals: Arc<Mutex<Vitals>>,
    _stop: oneshot::Sender<()>,
}

impl Instance {
    fn is_ready(&self) -> bool {
        self.vitals.lock().ready
    }
}

impl Keeper {
    pub(super) fn new(
        surroundings: Arc<Surroundings>,
        endpoints: Arc<Endpoints>,
        orders: mpsc::Receiver<RestartOrder>,
    ) -> Self {
        Self {
            surroundings,
            sockets: Arc::default(),
            endpoints,
            orders,
            news: Arc::default(),
            command: None,
            current: Vec::new(),
            former: Vec::new(),
            roll: None,
            changes: Arc::default(),
            watching: None,
            files: WatchedFiles::Unchanged,
            replacements: Replacements::default(),
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
                Some(order) = self.orders.recv() => self.begin_restart(order, &target),
                () = self.changes.notified() => self.files = WatchedFiles::Changed,
                Some(ended) = self.tasks.join_next() => report_panic(ended),
            }
        }
        // Whoever waits for a restart learns that there will be none.
        (self.roll, self.watching) = (None, None);
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
        self.current.clear();
        self.former.clear();
        while let Some(ended) = self.tasks.join_next().await {
            report_panic(ended);
        }
        let endpoints = self.endpoints;
        let closing = tokio::task::spawn_blocking(move || endpoints.file.close());
        report_panic(closing.await);
    }

    /// One step towards `target`. In a rolling restart an old instance leaves when a new one is ready, and the next new
    /// one starts only then: capacity never falls, and a version that does not come up replaces nothing.
    fn converge(&mut self, target: &Arc<Command>) {
        if self.command.as_ref().is_some_and(|command| !differ_in_instances_only(command, target)) {
            self.former.append(&mut self.current);
        }
        self.watch_files(target);
        let count = target.instances;
        self.command = Some(Arc::clone(target));
        self.give_up_restart(target);
        self.current.retain(|instance| instance.number <= count);
        self.current.truncate(count);
        self.replace_outgrown();
        let ready = self.current.iter().filter(|instance| instance.is_ready()).count();
        let replaced = |former: &Instance| {
            let mut new = self.current.iter().filter(|instance| instance.is_ready());
            new.any(|instance| instance.number == former.number)
        };
        self.former.sort_by_cached_key(|instance| (!instance.is_ready(), replaced(instance)));
        self.former.truncate(count.saturating_sub(ready));
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
        self.finish_restart(target, ready);
    }

    fn start_instance(&mut self, command: &Arc<Command>) {
        let free = |number: &usize| self.current.iter().all(|instance| instance.number != *number);
        let number = (1..).find(free).expect("there are more numbers than instances");
        let (stop, stopped) = oneshot::channel();
        let vitals = Arc::<Mutex<Vitals>>::default();
        let name = format!("{}.{number}", command.name);
        let life = Life {
            entry: self.endpoints.board.enter(&name),
            name,
            command: Arc::clone(command),
            surroundings: Arc::clone(&self.surroundings),
            sockets: Arc::clone(&self.sockets),
            endpoints: Arc::clone(&self.endpoints),
            vitals: Arc::clone(&vitals),
            news: Arc::clone(&self.news),
        };
        self.tasks.spawn(life.live(stopped));
        self.current.push(Instance { number, command: Arc::clone(command), vitals, _stop: stop });
    }

    /// Has one instance replaced that uses too much memory: one at a time, and not too often.
    fn replace_outgrown(&mut self) {
        let now = Instant::now();
        if !self.former.is_empty() || !self.replacements.may(now) {
            return;
        }
        let outgrown = self.current.iter().position(|instance| instance.vitals.lock().outgrown);
        let Some(instance) = outgrown.map(|place| self.current.remove(place)) else { return };
        let since = instance.vitals.lock().since;
        self.replacements.replaced(since.map(|since| now.duration_since(since)).unwrap_or_default(), now);
        self.former.push(instance);
    }

    fn begin_restart(&mut self, order: RestartOrder, command: &Command) {
        if self.roll.is_some() {
            let name = &command.name;
            return order.tell(RestartNews::Failed(format!("{name} is being restarted already")));
        }
        self.former.append(&mut self.current);
        self.roll = Some(Roll::begin(order, command));
    }

    /// Looks at the files that the settings name, and has the instances replaced when they have changed. What changes during a
    /// replacement leads to another one.
    fn watch_files(&mut self, target: &Command) {
        let watched = self.command.as_ref().map(|command| command.watch.as_slice()).unwrap_or_default();
        if watched != target.watch {
            let look = |paths: &Vec<PathBuf>| {
                AbortOnDropHandle::new(tokio::spawn(tell_changes(paths.clone(), Arc::clone(&self.changes))))
            };
            self.watching = Some(&target.watch).filter(|paths| !paths.is_empty()).map(look);
        }
        if self.files == WatchedFiles::Changed && self.former.is_empty() && self.roll.is_none() {
            self.files = WatchedFiles::Unchanged;
            tracing::info!("files of {} have changed", target.name);
            self.begin_restart(RestartOrder::unasked(), target);
        }
    }

    /// Gives a restart up whose new instance has failed: those that it would have replaced stay.
    fn give_up_restart(&mut self, command: &Arc<Command>) {
        // Where all are replaced, what fails now is started again as it would be without a restart.
        if self.roll.is_none() || self.former.is_empty() {
            return;
        }
        let failure = |instance: &Instance| {
            let vitals = instance.vitals.lock();
            vitals.failure.clone().filter(|_| !vitals.ready).map(|why| (instance.number, why))
        };
        let Some((number, why)) = self.current.iter().find_map(failure) else { return };
        let Some(roll) = self.roll.take() else { return };
        roll.failed(command, &format!("{}.{number} {why}", command.name));
        self.current.retain(|instance| instance.number != number);
        // Where a reload came in between, what is left of the settings before it is replaced all the same.
        let same = |instance: &mut Instance| differ_in_instances_only(&instance.command, command);
        self.current.extend(self.former.extract_if(.., same));
    }

    fn finish_restart(&mut self, command: &Command, ready: usize) {
        if let Some(roll) = &mut self.roll {
            roll.ready(ready, command);
            // Until it has ended, a replaced instance accepts connections of a socket that all share.
            let answering = if command.listen == CommandListen::Shared { self.tasks.len() } else { ready };
            if self.former.is_empty() && ready == command.instances && answering <= ready {
                self.roll.take().into_iter().for_each(|roll| roll.done(command));
            }
        }
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
