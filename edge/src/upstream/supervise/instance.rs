//! The life of one instance: started, watched, started again; see the picture in the parent module.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    ops::ControlFlow,
    process::ExitStatus,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    Surroundings,
    board::{BoardEntry, InstanceState, LastFailure},
    failures::{Course, FailuresInARow, HEALTHY_AFTER, Recovery, Setback},
    place::{CommandSockets, InstancePlaces, ListenPlace},
    probe::{NotReady, Probe},
    process::{Process, Start},
    program::prepare,
    roster::{Endpoints, Listed},
    shared::SharedListener,
};
use crate::{
    settings::{ByteSize, Command, CommandOutput, StopSignal},
    upstream::address::Address,
};

/// Failed looks in a row that take an instance out of the choice: one may be an accident.
const FAILED_LOOKS: u32 = 2;
/// For requests that had chosen an instance when it was taken out of the choice, and are not on their way yet.
const SETTLING: Duration = Duration::from_millis(50);
/// Between two counts of the requests under way.
const RECOUNT: Duration = Duration::from_millis(20);
/// For requests that an instance has taken on a socket that others share, and may not have read yet.
const READING: Duration = Duration::from_millis(250);
/// Between two looks at whether requests are held for long enough.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Of what an instance has printed, so many lines are told when it fails again and again, of each so many bytes.
const TOLD_LINES: usize = 10;
const TOLD_BYTES: usize = 300;

/// One instance from its first start to its last stop.
pub(super) struct Life {
    /// `origin.1`: in logs and before each line of output.
    pub(super) name: String,
    pub(super) command: Arc<Command>,
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) sockets: Arc<CommandSockets>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) entry: BoardEntry,
    pub(super) vitals: Arc<Mutex<Vitals>>,
    pub(super) news: Arc<Notify>,
}

/// What the keeper goes by.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    pub(super) ready: bool,
    /// Since when the present process has been ready.
    pub(super) since: Option<Instant>,
    /// It uses more memory than it may.
    pub(super) outgrown: bool,
    /// Why it failed, while it has not been ready again.
    pub(super) failure: Option<String>,
}

/// How one run of an instance ended.
enum RunEnd {
    /// It was stopped.
    Stopped,
    /// It ended by itself, or was given up; it had been ready for so long.
    Failed { healthy: Duration, why: String },
}

/// What the instance's earlier runs came to.
#[derive(Default)]
struct InstanceHistory {
    failures: FailuresInARow,
    looping: Option<LoopMark>,
}

/// Counts an instance among those that fail again and again, until this is dropped.
struct LoopMark(Arc<Endpoints>);

impl Drop for LoopMark {
    fn drop(&mut self) {
        self.0.looping.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Life {
    pub(super) async fn live(self, mut stop: oneshot::Receiver<()>) {
        let mut history = InstanceHistory::default();
        loop {
            let began = Instant::now();
            let RunEnd::Failed { healthy, why } = self.run(&mut stop, &mut history).await else { return };
            let now = Instant::now();
            let setback = history.failures.failed(began, healthy, now, random());
            self.tell(&setback, &why, &mut history);
            let failure = LastFailure::new(why.clone(), &setback, now);
            self.entry.change(|facts| {
                (facts.state, facts.process) = (InstanceState::Waiting, None);
                (facts.address, facts.metrics) = (None, None);
                (facts.failure, facts.awaited) = (Some(failure), None);
            });
            self.vitals.lock().failure = Some(why);
            self.news.notify_one();
            tokio::select! {
                _ = &mut stop => return,
                () = sleep(setback.wait) => {}
            }
            self.endpoints.restarts.fetch_add(1, Ordering::Relaxed);
            self.entry.change(|facts| facts.restarts += 1);
        }
    }

    /// Says what comes next, and, once for all instances of the command, that it fails again and again.
    fn tell(&self, setback: &Setback, why: &str, history: &mut InstanceHistory) {
        let Setback { count, within, wait, course } = setback;
        let (name, command) = (&self.name, &self.command.name);
        match course {
            Course::Accident => history.looping = None,
            Course::LoopBegins => {
                let others = self.endpoints.looping.fetch_add(1, Ordering::Relaxed);
                history.looping = Some(LoopMark(Arc::clone(&self.endpoints)));
                if others == 0 {
                    let printed = self.last_lines();
                    return error!(
                        "{command} fails again and again: {name} {count} times in {within:.0?}, last: {why}; it is tried \
                         again in {wait:.1?}{printed}"
                    );
                }
            }
            Course::LoopGoesOn => {}
        }
        info!("starting {name} again in {wait:.0?}");
    }

    fn recover(&self, recovery: Recovery, history: &mut InstanceHistory) {
        if recovery != Recovery::None {
            history.looping = None;
            self.entry.change(|facts| facts.failure = None);
        }
        if let Recovery::FromLoop(count) = recovery {
            let name = &self.name;
            info!("{name} is well again: ready for {HEALTHY_AFTER:.0?}, after {count} failures in a row");
        }
    }

    fn last_lines(&self) -> String {
        let lines = self.endpoints.tail().last_of(&self.name, TOLD_LINES);
        if lines.is_empty() {
            return "; it has printed nothing".to_owned();
        }
        let told = lines.iter().map(|line| {
            let line = line.trim_ascii_end();
            format!("\n    {}", String::from_utf8_lossy(&line[..line.len().min(TOLD_BYTES)]))
        });
        format!("; its last lines:{}", told.collect::<String>())
    }

    async fn run(&self, stop: &mut oneshot::Receiver<()>, history: &mut InstanceHistory) -> RunEnd {
        let (name, command) = (&self.name, &*self.command);
        let failed = |why| RunEnd::Failed { healthy: Duration::ZERO, why };
        let (mut process, places) = match self.start() {
            Ok(started) => started,
            Err(reasons) => {
                reasons.iter().for_each(|reason| error!("cannot start {name}: {reason}"));
                return failed(format!("cannot be started: {}", reasons.join("; ")));
            }
        };
        let since = Instant::now();
        let address = places.listen.address();
        self.entry.change(|facts| {
            (facts.state, facts.process, facts.since) = (InstanceState::Starting, process.group(), since);
            (facts.address, facts.metrics) = (Some(address.to_string()), places.metrics(command));
            facts.awaited = None;
        });
        let patience = command.ready_probe_timeout;
        let probe = Probe { address, path: command.ready.as_deref(), patience };
        let tell = |refusal: &NotReady| {
            let awaited = format!("is not ready yet: {probe} is asked for; {refusal}");
            info!("{name} {awaited}");
            self.entry.change(|facts| facts.awaited = Some(awaited));
        };
        let limit = command.ready_timeout;
        let (group, readings) = (process.group(), &self.surroundings.roster.memory);
        let ready = async {
            if let (ListenPlace::Shared(listener), Some(group)) = (&places.listen, group) {
                listener.taken_up(group, readings).await;
            }
            probe.until_ready(tell).await;
        };
        tokio::select! {
            _ = &mut *stop => return self.stop(process, Serving::of_starting(&places.listen)).await,
            status = process.child.wait() => return self.exited(process, status, Duration::ZERO).await,
            () = ready => {}
            () = sleep(limit) => {
                error!("{name} does not answer {probe} within {limit:.0?}; stopping it");
                self.stop(process, Serving::Nobody).await;
                return failed(format!("was not ready within {limit:.0?}"));
            }
        }
        info!("{name} is ready on {} after {:.0?}", probe.address, since.elapsed());
        let since = Instant::now();
        let mut watch = WatchedInstance { life: self, probe, published: None, failing: None };
        watch.publish();
        self.vitals.lock().since = Some(since);
        let end = loop {
            tokio::select! {
                _ = &mut *stop => break End::Stop,
                status = process.child.wait() => break End::Exited(status),
                () = sleep(command.ready_interval) => {}
            }
            let stopped = process.is_stopped();
            let look = async { if stopped { Err(NotReady::Stopped) } else { watch.probe.look().await } };
            let look = tokio::select! {
                _ = &mut *stop => break End::Stop,
                status = process.child.wait() => break End::Exited(status),
                look = look => look,
            };
            if watch.looked(look).is_break() {
                break End::Lifeless;
            }
            self.recover(history.failures.healthy_for(since.elapsed()), history);
            self.measure(&process);
        };
        // Removed from the choice before the signal, so that no new request goes to an instance that is about to end.
        watch.withdraw();
        *self.vitals.lock() = Vitals::default();
        match end {
            End::Stop => self.stop(process, Serving::of_ready(&places.listen)).await,
            End::Exited(status) => self.exited(process, status, since.elapsed()).await,
            End::Lifeless => {
                self.stop(process, Serving::Nobody).await;
                let why = format!("gave no sign of life for {limit:.0?}");
                RunEnd::Failed { healthy: since.elapsed(), why }
            }
        }
    }

    fn start(&self) -> Result<(Process, InstancePlaces), Vec<String>> {
        let prepared = prepare(&self.command)?;
        let (name, endpoints) = (self.name.clone(), Arc::clone(&self.endpoints));
        if let CommandOutput::File(path) = &self.command.output
            && let Err(error) = endpoints.file.open(path)
        {
            error!("the output of {name} is lost: {} cannot be opened: {error}", path.display());
        }
        let into_file = matches!(self.command.output, CommandOutput::File(_));
        let log = Arc::clone(&self.surroundings.launcher.output);
        let print = move |line: &[u8]| {
            endpoints.tail().append(&name, line);
            match into_file {
                true => endpoints.file.append(&[name.as_bytes(), b" | ", line, b"\n"].concat()),
                false => log(&name, line),
            }
        };
        let (Surroundings { launcher, ports, guard, .. }, identity) =
            (&*self.surroundings, prepared.identity.as_ref());
        let places = InstancePlaces::claim(&self.command, ports, &self.sockets, identity);
        let started = places.and_then(|places| {
            let with = Start { launcher, guard, places: &places, identity, variables: &prepared.variables };
            Ok((Process::start(&self.command, &with, print)?, places))
        });
        started.map_err(|error| vec![error.to_string()])
    }

    /// Asks to be replaced when the instance uses more memory than it may.
    fn measure(&self, process: &Process) {
        let Some(limit) = self.command.memory else { return };
        let used = process.group().and_then(|group| self.surroundings.roster.memory.of_group(group));
        let Some(used) = used.filter(|used| *used > limit) else { return };
        let told = std::mem::replace(&mut self.vitals.lock().outgrown, true);
        if !told {
            let (name, used, limit) = (&self.name, used >> 20, ByteSize(limit));
            warn!("{name} uses {used} MiB of memory, more than its {limit}: it is to be replaced");
        }
        // Each time: it may have been too early for another replacement.
        self.news.notify_one();
    }

    /// Stops it. One that has been serving first has time to finish the requests that are under way.
    async fn stop(&self, mut process: Process, serving: Serving<'_>) -> RunEnd {
        self.entry.state(InstanceState::Stopping);
        let (name, limit, signal) = (&self.name, self.command.stop_timeout, self.command.stop_signal);
        match serving {
            Serving::Nobody => process.signal(system_signal(signal)),
            Serving::Alone(address) => {
                tokio::select! {
                    _ = timeout(limit, self.unused(&address)) => {}
                    _ = process.child.wait() => {}
                }
                process.signal(system_signal(signal));
            }
            Serving::WithOthers(listener) => self.leave(&mut process, listener).await,
        }
        if timeout(limit, process.child.wait()).await.is_err() {
            warn!("{name} ignores SIG{} for {limit:.0?}; killing it", format!("{signal:?}").to_uppercase());
        }
        process.finish().await;
        info!("{name} is stopped");
        RunEnd::Stopped
    }

    /// Tells it to stop, and holds the requests to the socket that it shares until it takes no more connections there.
    ///
    /// Servers that end close what they have accepted and not read. A request that comes into that moment would be lost, and one
    /// that may not be sent twice would fail.
    async fn leave(&self, process: &mut Process, listener: &SharedListener) {
        let Surroundings { roster, .. } = &*self.surroundings;
        let watches =
            process.group().map(|group| listener.watches(group, &roster.memory)).unwrap_or_default();
        let signal = system_signal(self.command.stop_signal);
        let Some(traffic) = roster.traffic() else { return process.signal(signal) };
        let mut held = traffic.hold(&Address::Socket(listener.address));
        let since = Instant::now();
        while !held.is_long_enough()
            && since.elapsed() < READING
            && timeout(LOOK_AGAIN, held.unused()).await.is_err()
        {}
        process.signal(signal);
        let mut gone = Box::pin(async {
            tokio::select! {
                () = listener.left(watches) => {}
                _ = process.child.wait() => {}
            }
        });
        while !held.is_long_enough() && timeout(LOOK_AGAIN, &mut gone).await.is_err() {}
    }

    /// Waits until no request is under way to an address that has been taken out of the choice.
    async fn unused(&self, address: &Address) {
        let Some(traffic) = self.surroundings.roster.traffic() else { return };
        sleep(SETTLING).await;
        while traffic.under_way(address) > 0 {
            sleep(RECOUNT).await;
        }
    }

    async fn exited(&self, process: Process, status: io::Result<ExitStatus>, healthy: Duration) -> RunEnd {
        process.finish().await;
        let why = match status {
            Ok(status) => format!("ended by itself: {status}"),
            Err(error) => format!("ended, nobody can tell how: {error}"),
        };
        warn!("{} {why}", self.name);
        RunEnd::Failed { healthy, why }
    }
}

fn system_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Hup => Signal::HUP,
        StopSignal::Usr1 => Signal::USR1,
        StopSignal::Usr2 => Signal::USR2,
    }
}

/// Whose requests an instance answers that is to stop.
enum Serving<'a> {
    Nobody,
    /// Those to an address of its own.
    Alone(Address),
    /// Those to a socket that it shares: each instance finishes its own.
    WithOthers(&'a SharedListener),
}

impl<'a> Serving<'a> {
    fn of_ready(place: &'a ListenPlace) -> Self {
        match place {
            ListenPlace::Shared(listener) => Self::WithOthers(listener),
            ListenPlace::Port(_) | ListenPlace::Socket(..) => Self::Alone(place.address()),
        }
    }

    /// Nobody is sent to an address of its own before it is ready.
    fn of_starting(place: &'a ListenPlace) -> Self {
        match Self::of_ready(place) {
            Self::Alone(_) => Self::Nobody,
            others => others,
        }
    }
}

/// Why an instance that was ready is no longer.
enum End {
    Stop,
    Exited(io::Result<ExitStatus>),
    /// It has given no sign of life for `ready_timeout`.
    Lifeless,
}

/// An instance that has been ready: in the choice while it answers, out of it while it does not.
struct WatchedInstance<'a> {
    life: &'a Life,
    probe: Probe<'a>,
    published: Option<Listed>,
    failing: Option<Failing>,
}

/// Looks that failed without one between them that did not.
struct Failing {
    looks: u32,
    /// Since when nothing has shown that somebody is there.
    lifeless: Option<Instant>,
}

impl WatchedInstance<'_> {
    fn publish(&mut self) {
        if self.published.is_none() {
            self.published = Some(self.life.endpoints.publish(self.probe.address.clone()));
            self.life.entry.change(|facts| (facts.state, facts.awaited) = (InstanceState::Ready, None));
            {
                let mut vitals = self.life.vitals.lock();
                (vitals.ready, vitals.failure) = (true, None);
            }
            self.life.news.notify_one();
        }
    }

    fn withdraw(&mut self) {
        if self.published.take().is_some() {
            self.life.entry.state(InstanceState::NotReady);
            self.life.vitals.lock().ready = false;
            self.life.news.notify_one();
        }
    }

    /// Acts on one look. To break is to give the instance up: it has been lifeless for too long. One that answers, if
    /// only that it is not ready, is left alone: it knows better.
    fn looked(&mut self, look: Result<(), NotReady>) -> ControlFlow<()> {
        let name = &self.life.name;
        let Err(refusal) = look else {
            self.failing = None;
            if self.published.is_none() {
                info!("{name} is ready again");
            }
            self.publish();
            return ControlFlow::Continue(());
        };
        let failing = self.failing.get_or_insert(Failing { looks: 0, lifeless: None });
        failing.looks += 1;
        if refusal.lives() {
            failing.lifeless = None;
        }
        let limit = self.life.command.ready_timeout;
        let lifeless =
            !refusal.lives() && failing.lifeless.get_or_insert_with(Instant::now).elapsed() >= limit;
        if failing.looks == FAILED_LOOKS {
            warn!("{name} gets no requests until {} answers again: {refusal}", self.probe);
            self.withdraw();
        }
        if lifeless {
            error!("{name} has given no sign of life for {limit:.0?}; stopping it: {refusal}");
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// Spreads restarts; it need not be secret.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
