//! The life of one instance: started, watched, started again; see the picture in the parent module.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr},
    ops::ControlFlow,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    launcher::Launcher,
    ports::Ports,
    probe::{NotReady, Probe},
    process::Process,
    program::find_program,
    roster::{Endpoints, Published},
};
use crate::settings::Command;

/// The first wait before a restart; doubled for each failure in a row.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait before a restart.
const BACK_OFF_LONGEST: Duration = Duration::from_secs(30);
/// An instance that was ready for this long has its failures forgotten.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// Failed looks in a row that take an instance out of the choice: one may be an accident.
const FAILED_LOOKS: u32 = 2;

/// One instance from its first start to its last stop.
pub(super) struct Life {
    /// `origin.1`: in logs and before each line of output.
    pub(super) name: String,
    pub(super) command: Arc<Command>,
    pub(super) launcher: Launcher,
    pub(super) ports: Arc<Ports>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) ready: Arc<AtomicBool>,
    pub(super) news: Arc<Notify>,
}

/// How one run of an instance ended.
enum Ended {
    /// It was stopped.
    Stopped,
    /// It ended by itself; it had been ready for this long.
    Failed(Duration),
}

impl Life {
    pub(super) async fn live(self, mut stop: oneshot::Receiver<()>) {
        let mut failures = 0;
        while let Ended::Failed(healthy) = self.run(&mut stop).await {
            if healthy >= HEALTHY_AFTER {
                failures = 0;
            }
            let wait = back_off(failures, random());
            failures += 1;
            info!("starting {} again in {wait:.0?}", self.name);
            tokio::select! {
                _ = &mut stop => return,
                () = sleep(wait) => {}
            }
            self.endpoints.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn run(&self, stop: &mut oneshot::Receiver<()>) -> Ended {
        let failed = Ended::Failed(Duration::ZERO);
        if let Err(missing) = find_program(&self.command) {
            error!("{missing}");
            return failed;
        }
        let started = self
            .ports
            .claim()
            .and_then(|port| Ok((Process::start(&self.name, &self.command, &self.launcher, port.0)?, port)));
        let (mut process, port) = match started {
            Ok(started) => started,
            Err(error) => {
                error!("cannot start {}: {error}", self.name);
                return failed;
            }
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.0));
        let since = Instant::now();
        let probe = Probe { address, path: self.command.ready.as_deref() };
        let tell =
            |refusal: &NotReady| info!("{} is not ready yet: {probe} is asked for; {refusal}", self.name);
        let limit = self.command.ready_timeout;
        tokio::select! {
            _ = &mut *stop => return self.stop(process).await,
            status = process.child.wait() => return self.exited(process, status, Duration::ZERO).await,
            () = probe.until_ready(tell) => {}
            () = sleep(limit) => {
                error!("{} does not answer {probe} within {limit:.0?}; stopping it", self.name);
                self.stop(process).await;
                return failed;
            }
        }
        info!("{} is ready on port {} after {:.0?}", self.name, port.0, since.elapsed());
        let since = Instant::now();
        let mut watch = Watch { life: self, probe, published: None, failing: None };
        watch.publish();
        let end = loop {
            tokio::select! {
                _ = &mut *stop => break End::Stop,
                status = process.child.wait() => break End::Exited(status),
                () = sleep(self.command.ready_interval) => {}
            }
            let stopped = process.is_stopped();
            let look = async { if stopped { Err(NotReady::Stopped) } else { probe.look().await } };
            let look = tokio::select! {
                _ = &mut *stop => break End::Stop,
                status = process.child.wait() => break End::Exited(status),
                look = look => look,
            };
            if watch.looked(look).is_break() {
                break End::Lifeless;
            }
        };
        // Removed from the choice before the signal, so that no new request goes to an instance that is about to end.
        watch.withdraw();
        match end {
            End::Stop => self.stop(process).await,
            End::Exited(status) => self.exited(process, status, since.elapsed()).await,
            End::Lifeless => {
                self.stop(process).await;
                Ended::Failed(since.elapsed())
            }
        }
    }

    fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
        self.news.notify_one();
    }

    async fn stop(&self, mut process: Process) -> Ended {
        process.signal(Signal::TERM);
        if timeout(self.command.stop_timeout, process.child.wait()).await.is_err() {
            warn!("{} ignores SIGTERM for {:.0?}; killing it", self.name, self.command.stop_timeout);
        }
        process.finish().await;
        info!("{} is stopped", self.name);
        Ended::Stopped
    }

    async fn exited(&self, process: Process, status: io::Result<ExitStatus>, healthy: Duration) -> Ended {
        process.finish().await;
        match status {
            Ok(status) => warn!("{} ended by itself: {status}", self.name),
            Err(error) => error!("cannot tell how {} ended: {error}", self.name),
        }
        Ended::Failed(healthy)
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
struct Watch<'a> {
    life: &'a Life,
    probe: Probe<'a>,
    published: Option<Published>,
    failing: Option<Failing>,
}

/// Looks that failed without one between them that did not.
struct Failing {
    looks: u32,
    /// Since when nothing has shown that somebody is there.
    lifeless: Option<Instant>,
}

impl Watch<'_> {
    fn publish(&mut self) {
        if self.published.is_none() {
            self.published = Some(self.life.endpoints.publish(self.probe.address));
            self.life.set_ready(true);
        }
    }

    fn withdraw(&mut self) {
        if self.published.take().is_some() {
            self.life.set_ready(false);
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

/// How long to wait after `failures` earlier failures in a row: doubling, between half of the step and the whole of it,
/// so that instances that fell together do not rise together.
fn back_off(failures: u32, random: u64) -> Duration {
    let step = BACK_OFF_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(BACK_OFF_LONGEST);
    let half = step / 2;
    half + half.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

/// Spreads restarts; it need not be secret.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_are_spread() {
        let longest: Vec<u128> = (0..12).map(|failures| back_off(failures, u64::MAX).as_millis()).collect();
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000];
        assert_eq!(longest, expected);
        assert_eq!(back_off(0, 0), BACK_OFF_FIRST / 2);
        assert_eq!(back_off(u32::MAX, 0), BACK_OFF_LONGEST / 2);
    }
}
