//! The state of the commands for readers on all threads: which instances are ready, what each does, what it prints.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    board::{Board, InstanceState},
    memory::MemoryReadings,
    output_file::OutputFile,
    place::MetricsPlace,
    restart::{RestartNews, RestartOrder},
    tail::Tail,
};
use crate::upstream::{address::Address, traffic::Traffic};

/// Restarts that may be asked for before the first is looked at.
const ORDERS: usize = 4;

/// Every command by name, for readers on any thread.
#[derive(Default)]
pub struct Roster {
    pub(super) commands: ArcSwap<BTreeMap<Arc<str>, Arc<Endpoints>>>,
    pub(super) memory: MemoryReadings,
    traffic: OnceLock<Arc<Traffic>>,
}

impl std::fmt::Debug for Roster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Roster").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl Roster {
    /// The instances of one command.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Endpoints>> {
        self.commands.load().get(name).cloned()
    }

    /// Every command, in the order of names.
    #[must_use]
    pub fn all(&self) -> Arc<BTreeMap<Arc<str>, Arc<Endpoints>>> {
        self.commands.load_full()
    }

    /// Has instances wait, before they are told to stop, for the requests that are counted here. Only the first call counts.
    pub fn wait_for(&self, traffic: Arc<Traffic>) {
        let _ = self.traffic.set(traffic);
    }

    /// The requests under way; `None` where nobody counts them.
    pub(super) fn traffic(&self) -> Option<&Traffic> {
        self.traffic.get().map(|traffic| &**traffic)
    }

    /// What every command does at this moment, in the order of names.
    #[must_use]
    pub fn report(&self) -> Vec<CommandReport> {
        let all = self.all();
        all.iter().map(|(name, endpoints)| endpoints.report(name, &self.memory)).collect()
    }
}

impl crate::upstream::Commands for Roster {
    fn ready(&self, command: &str) -> Arc<[Address]> {
        let ready = self.get(command).map_or_else(|| Arc::from([]), |endpoints| endpoints.snapshot());
        // Instances that share a socket are one server.
        match ready.iter().enumerate().any(|(index, address)| ready[..index].contains(address)) {
            true => ready.iter().take(1).cloned().collect(),
            false => ready,
        }
    }
}

/// A command at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReport {
    pub name: String,
    /// How many instances the settings ask for.
    pub wanted: usize,
    pub instances: Vec<InstanceReport>,
}

/// An instance at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    pub name: String,
    pub state: InstanceState,
    /// While a process runs.
    pub pid: Option<i32>,
    pub address: Option<String>,
    /// For how long the process has run.
    pub up_seconds: Option<u64>,
    /// How often the instance has been started again after it had failed.
    pub restarts: u64,
    /// Bytes that its processes have resident.
    pub memory: Option<u64>,
    /// How it failed last, while that is not forgotten.
    pub failure: Option<String>,
}

/// The instances of one command. The same value stays for as long as the command is in the settings.
#[derive(Debug)]
pub struct Endpoints {
    ready: ArcSwap<Arc<[Address]>>,
    pub(super) wanted: AtomicUsize,
    pub(super) tells_metrics: AtomicBool,
    pub(super) restarts: AtomicU64,
    pub(super) board: Arc<Board>,
    pub(super) file: OutputFile,
    /// Instances that fail again and again.
    pub(super) looping: AtomicUsize,
    tail: Tail,
    orders: mpsc::Sender<RestartOrder>,
    changed: Notify,
}

impl Endpoints {
    /// No instance yet; and the restarts that will be asked for.
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<RestartOrder>) {
        let (orders, ordered) = mpsc::channel(ORDERS);
        let endpoints = Self {
            ready: ArcSwap::from_pointee(Arc::from([])),
            wanted: AtomicUsize::new(0),
            tells_metrics: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            board: Arc::default(),
            file: OutputFile::default(),
            looping: AtomicUsize::new(0),
            tail: Tail::default(),
            orders,
            changed: Notify::new(),
        };
        (Arc::new(endpoints), ordered)
    }

    /// Where the ready instances listen, oldest first. Takes no lock.
    #[must_use]
    pub fn snapshot(&self) -> Arc<[Address]> {
        Arc::clone(&self.ready.load())
    }

    /// How many instances the settings ask for.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether the settings say where its instances tell their metrics.
    #[must_use]
    pub fn tells_metrics(&self) -> bool {
        self.tells_metrics.load(Ordering::Relaxed)
    }

    /// Where the instance of this name tells its metrics. While one replaces another of its name, that is the one which is
    /// ready, and of two the newer one.
    ///
    /// # Errors
    /// Why it tells nothing now.
    pub fn metrics_of(&self, instance: &str) -> Result<MetricsPlace, String> {
        let named = self.board.all().into_iter().filter(|facts| facts.name == instance);
        let (running, not): (Vec<_>, Vec<_>) = named.partition(|facts| facts.metrics.is_some());
        let best = running.into_iter().max_by_key(|facts| facts.state == InstanceState::Ready);
        if let Some(place) = best.and_then(|facts| facts.metrics) {
            return Ok(place);
        }
        let failure = not.into_iter().find_map(|facts| facts.failure);
        Err(match failure {
            Some(failure) => format!("{instance} {}", failure.told(Instant::now())),
            None => format!("{instance} does not run"),
        })
    }

    /// How often instances have been started again since the edge started.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// The last lines that its instances have printed.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Lines of its output that its file did not take.
    #[must_use]
    pub fn lines_dropped(&self) -> u64 {
        self.file.dropped()
    }

    /// Has every instance replaced, one after the other. What is returned tells how that gets on; dropping it changes
    /// nothing. `None` when too many have asked already.
    #[must_use]
    pub fn restart(&self) -> Option<mpsc::Receiver<RestartNews>> {
        let (order, news) = RestartOrder::new();
        self.orders.try_send(order).ok().map(|()| news)
    }

    /// Why none of its instances is ready, in the words of the latest of which there is something to tell.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let now = Instant::now();
        self.board.all().into_iter().rev().find_map(|facts| {
            let trouble = facts.trouble(now)?;
            Some(format!("{} {trouble}", facts.name))
        })
    }

    fn report(&self, name: &str, memory: &MemoryReadings) -> CommandReport {
        let now = Instant::now();
        let mut instances: Vec<InstanceReport> = self
            .board
            .all()
            .into_iter()
            .map(|facts| InstanceReport {
                failure: facts.trouble(now),
                name: facts.name,
                state: facts.state,
                pid: facts.process.map(Pid::as_raw_pid),
                address: facts.address,
                up_seconds: facts.process.map(|_| now.saturating_duration_since(facts.since).as_secs()),
                restarts: facts.restarts,
                memory: facts.process.and_then(|group| memory.of_group(group)),
            })
            .collect();
        // By their numbers: app.10 stands after app.9.
        instances.sort_by_key(|instance| (instance.name.len(), instance.name.clone()));
        CommandReport { name: name.to_owned(), wanted: self.wanted(), instances }
    }

    /// Waits until the ready instances are `enough`, and returns them. The wait has no end of its own: bound it. Dropping it
    /// changes nothing.
    pub async fn until(&self, enough: impl Fn(&[Address]) -> bool) -> Arc<[Address]> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that a change between the check and the wait is not lost.
            changed.as_mut().enable();
            let now = self.snapshot();
            if enough(&now) {
                return now;
            }
            changed.await;
        }
    }

    pub(super) fn publish(self: &Arc<Self>, address: Address) -> Listed {
        self.edit(|ready| ready.push(address.clone()));
        Listed { endpoints: Arc::clone(self), address }
    }

    fn edit(&self, change: impl Fn(&mut Vec<Address>)) {
        self.ready.rcu(|ready| {
            let mut ready = ready.to_vec();
            change(&mut ready);
            Arc::<[Address]>::from(ready)
        });
        self.changed.notify_waiters();
    }
}

/// An instance among the ready ones, until this is dropped.
pub(super) struct Listed {
    endpoints: Arc<Endpoints>,
    address: Address,
}

impl Drop for Listed {
    fn drop(&mut self) {
        // Of instances that share an address each is listed once.
        self.endpoints.edit(|ready| {
            let own = ready.iter().position(|address| *address == self.address);
            own.into_iter().for_each(|own| drop(ready.remove(own)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_instances_come_and_go() {
        let (endpoints, _) = Endpoints::new();
        let [one, two] = [1, 2].map(|port| Address::Socket(([127, 0, 0, 1], port).into()));
        let first = endpoints.publish(one.clone());
        let second = endpoints.publish(two.clone());
        assert_eq!(*endpoints.snapshot(), [one, two.clone()]);
        drop(first);
        assert_eq!(*endpoints.snapshot(), [two]);
        drop(second);
        assert_eq!(*endpoints.snapshot(), []);
    }

    #[test]
    fn instances_that_share_an_address_are_one_server_while_any_is_ready() {
        let roster = Roster::default();
        let (endpoints, _) = Endpoints::new();
        roster.commands.store(Arc::new([("app".into(), Arc::clone(&endpoints))].into()));
        let ready = || crate::upstream::Commands::ready(&roster, "app").len();
        let shared = Address::Socket(([127, 0, 0, 1], 1).into());
        let [first, second] = [(); 2].map(|()| endpoints.publish(shared.clone()));
        assert_eq!((endpoints.snapshot().len(), ready()), (2, 1));
        drop(first);
        assert_eq!((endpoints.snapshot().len(), ready()), (1, 1));
        drop(second);
        assert_eq!(ready(), 0);
    }

    #[test]
    fn no_more_restarts_are_asked_for_than_can_be_looked_at() {
        let (endpoints, ordered) = Endpoints::new();
        let asked = (0..ORDERS + 2).filter(|_| endpoints.restart().is_some()).count();
        assert_eq!(asked, ORDERS);
        drop(ordered);
        assert!(endpoints.restart().is_none(), "the command is gone");
    }
}
