//! Owns every task and thread: starts them in order, reloads, drains, stops.
//!
//! ```text
//!   main thread:  supervisor of commands, admin listener, signals, housekeeping
//!   worker 0..n:  a current-thread runtime and a socket of its own on every listener; a connection stays on its thread
//!   coder, access-log, own-log: one thread each, with bounded queues
//! ```
//!
//! A stop goes downstream to upstream: no new connections, those that are open finish or are cut after `timeouts.drain`,
//! then the commands are stopped, then the log is written out. Commands are started from the main thread alone, because
//! the signal that keeps them from outliving the edge is tied to the thread that started them.

mod accept;
pub mod descriptors;
mod listeners;
mod operator;
mod orphans;
mod reading;
mod reload;
mod watch;
mod workers;

use std::{
    io,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context as _;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    acme::{self, AccountTurn, Means, WantedCertificates},
    admin::{
        self, Readiness,
        reload::Reloads,
        token::{self, TokenInForce},
    },
    cache::{Tiers, tier::Tier},
    clock::Clock,
    downstream::places::Places,
    message::{on_demand::OnDemand, reasons::reasons, shared_orders::SharedOrders},
    observe::{
        access_log::AccessLog,
        metrics::{CacheObserved, CommandObserved, Metrics, Observed, OnDemandObserved},
        own_log::OwnLog,
        record::Sink,
    },
    request::maintenance::Closure,
    settings::{GivenSettings, ListenTls, Settings},
    shared_cache::{EdgeSecrets, SharedCache},
    state::{Edge, Servers},
    upstream::{
        Commands,
        connect::{Dial, Sockets},
        names::{NameServers, Names},
        supervise::{Launcher, Roster, Supervisor},
        tls::TlsByUpstream,
    },
};
use accept::Serving;
use listeners::Listeners;
use operator::Operator;
use orphans::Orphans;
use reading::FileReader;
use reload::Running;
use watch::{FileWatch, SourceLooks};
use workers::Workers;

/// Serves by these settings until SIGTERM or SIGINT.
///
/// # Errors
/// Everything that keeps the edge from starting: settings, certificates, addresses. Once it serves it does not fail.
/// From the moment at which the log is there, what fails is told in it, and the exit code says the rest.
pub fn run(given: &GivenSettings) -> anyhow::Result<ExitCode> {
    let mut watch = FileWatch::new(given);
    watch.reads_sources(SourceLooks::of(given));
    let (settings, warnings) = given.read()?;
    watch.reads_named(&settings);
    let clock = Clock::system();
    let log = OwnLog::start(&settings.log, clock.clone()).context("no thread for the log")?;
    let _closing = log.closing();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    descriptors::raise_limit();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("no runtime");
    let served = runtime.and_then(|runtime| {
        let served = runtime.block_on(serve(settings, watch, clock, &log));
        // Files of a reload may still be waited for.
        runtime.shutdown_background();
        served
    });
    if let Err(error) = &served {
        tracing::error!("{}", reasons(error));
    }
    Ok(if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn serve(
    settings: Settings,
    watch: FileWatch,
    clock: Clock,
    own_log: &Arc<OwnLog>,
) -> anyhow::Result<()> {
    let page = to_open(&settings);
    let token = Arc::new(TokenInForce::default());
    token.set(token::of(&settings)?);
    let tls = TlsByUpstream::load(&settings.upstreams)?;
    let stop = Stop::default();
    let workers = Workers::start(settings.threads, &stop.end)?;
    let secrets = EdgeSecrets::default();
    let (on_demand, wishes) = OnDemand::new(clock.clone());
    let listeners = Listeners::new(&secrets, Arc::clone(&on_demand))?;
    let certificates = listeners::read_certificates(&settings.listeners, clock.wall())?;
    let bound = listeners.prepare(&settings.listeners, certificates, &workers)?;
    let (reloads, mut asked) = mpsc::channel(1);
    let (wanted, wants) = tokio::sync::watch::channel(WantedCertificates::of(&settings));
    // Before the first handshake: who comes early waits for what is kept.
    on_demand.govern(wants.borrow().on_demand());

    let metrics = Arc::new(Metrics::new());
    let log = AccessLog::start(&settings.log).context("no thread for the access log")?;
    let sink = Arc::new(Sink { clock: clock.clone(), metrics: Arc::clone(&metrics), log });
    let _closing = sink.log.closing();
    let admin = operator::first(settings.admin.as_ref())?;
    let supervisor = Supervisor::start(Launcher::this_program(own_log), &settings.commands);
    let roster = supervisor.roster();
    let commands: Arc<dyn Commands> = Arc::clone(&roster) as Arc<dyn Commands>;
    let name_servers = NameServers::new(&settings.name_servers).context("no name server can be asked")?;
    let names = Names::new(name_servers, clock.clone());
    let dial: Arc<dyn Dial> = Arc::new(Sockets::new(Arc::clone(&names)));
    if let Some(shortage) = descriptors::shortage(&settings, descriptors::limit()) {
        tracing::warn!("{shortage}");
    }
    let places = Places::new(descriptors::connections_within(&settings, descriptors::limit()));
    let handshakes = Places::new(settings.bounds.handshakes);
    let variants = settings.cache.variants;
    let shared_cache =
        settings.redis.clone().map(|redis| SharedCache::new(redis, variants, (&clock, &metrics), &secrets));
    let shared_cache = shared_cache.transpose().map_err(anyhow::Error::msg)?;
    let means = Means {
        dial: Arc::clone(&dial),
        challenges: Arc::clone(&secrets.challenges),
        shared: shared_cache.clone().map(|cache| cache as Arc<dyn SharedOrders>),
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        account_turn: AccountTurn::default(),
    };
    let servers = Servers { dial, commands, tls };
    let tiers: Vec<(Arc<dyn Tier>, _)> =
        shared_cache.iter().map(|cache| (Arc::clone(cache) as Arc<dyn Tier>, cache.bounds())).collect();
    let tiers = Tiers::new(tiers, &clock, &metrics);
    let edge =
        Edge::new(settings, tiers, Arc::clone(&sink), servers).context("no thread for content codings")?;
    // It is set once: a start is the only one to do so.
    let _ = edge.challenges.set(secrets.challenges);
    if let Some(shared_cache) = &shared_cache {
        let edge = Arc::downgrade(&edge);
        shared_cache.share_limits(Box::new(move || {
            edge.upgrade().map_or_else(Vec::new, |edge| edge.state.load().limiters.all().cloned().collect())
        }));
    }
    observe(&edge, &roster, (own_log, &on_demand));
    roster.wait_for(Arc::clone(edge.state.load().upstreams.traffic()));

    let mut signals = Signals::new().context("no signal handlers")?;
    let service = admin_service(&edge, &roster, &token, &stop, reloads);
    let connections = stop.connections.clone();
    let serving = Serving { edge: Arc::clone(&edge), places, handshakes, connections };
    let operator = Operator::new(service, stop.end.clone());
    let log = Arc::clone(own_log);
    let reader = FileReader::new();
    let mut running = Running {
        serving,
        workers,
        listeners,
        operator,
        token,
        names,
        log,
        supervisor,
        watch,
        reader,
        wanted,
    };
    running.listeners.apply(bound, &running.serving, &running.workers);
    running.operator.apply(admin);
    tracing::info!(threads = running.workers.runtimes().len(), "serving");
    let ready = tokio::spawn(announce_ready(Arc::clone(&roster), page));
    let mut certificates_read = edge.clock.now();
    let (made, mut newly_made) = mpsc::channel(1);
    let granting = tokio::spawn(acme::grant(means.clone(), on_demand, wants.clone(), wishes));
    let keeper = tokio::spawn(acme::keep(means, wants, made));

    let mut orphans = Orphans::default();
    // An interval, because a new sleep after each reload might never end.
    let [mut housekeeping, mut looks] = [HOUSEKEEPING, watch::LOOK_AGAIN].map(interval);
    for timer in [&mut housekeeping, &mut looks] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let watches = edge.state.load().settings.watch;
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::Reload => {
                    running.supervisor.reopen_outputs();
                    // Whoever sent the signal reads the log.
                    drop(running.reload().await);
                }
            },
            Some(tell) = asked.recv() => {
                let outcome = running.reload().await;
                // Who asked may have left.
                let _ = tell.send(outcome);
            }
            Some(()) = newly_made.recv() => running.renew().await,
            _ = looks.tick() => {
                edge.state.load().closures.iter().for_each(Closure::look_aside);
                if watches && running.watch.has_changed() {
                    tracing::info!("a watched file has changed");
                    drop(running.reload().await);
                }
            }
            _ = housekeeping.tick() => {
                edge.clock.correct();
                orphans.reap();
                let now = edge.clock.now();
                edge.state.load().upstreams.sweep(now);
                running.serving.places.collect_debt();
                running.serving.handshakes.collect_debt();
                let tiers = Arc::clone(edge.memory.tiers());
                if tiers.out_of_step() {
                    tokio::spawn(async move { tiers.catch_up().await });
                }
                if now.since(certificates_read) >= running.listeners.renewal(edge.clock.wall()) {
                    certificates_read = now;
                    running.renew().await;
                }
            }
        }
    }
    ready.abort();
    keeper.abort();
    granting.abort();
    // Whoever still asks for a reload is told that it is too late.
    drop(asked);
    drain(&edge, &stop, &mut signals).await;
    running.workers.join();
    if let Some(shared_cache) = shared_cache {
        shared_cache.leave();
    }
    running.supervisor.stop().await;
    Ok(())
}

/// The two steps of a stop, shared by all threads. The first is [`Edge::drain`].
#[derive(Clone, Debug, Default)]
struct Stop {
    /// No connection or task is waited for any more.
    end: CancellationToken,
    draining: Arc<AtomicBool>,
    /// Open connections, and the listeners while they may still accept one.
    connections: TaskTracker,
}

fn admin_service(
    edge: &Arc<Edge>,
    roster: &Arc<Roster>,
    token: &Arc<TokenInForce>,
    stop: &Stop,
    reloads: Reloads,
) -> admin::Service {
    let readiness = {
        let (roster, draining) = (Arc::clone(roster), Arc::clone(&stop.draining));
        move || readiness(&roster, &draining)
    };
    let settings = {
        let edge = Arc::clone(edge);
        move || edge.state.load().settings.clone()
    };
    let troubles = {
        let edge = Arc::clone(edge);
        move |name: &str| edge.state.load().troubles(name, edge.clock.now())
    };
    let (memory, clock, token) = (Arc::clone(&edge.memory), edge.clock.clone(), Arc::clone(token));
    let (settings, troubles) = (Arc::new(settings), Arc::new(troubles));
    let cache = admin::Cache { memory, clock, settings, troubles, token };
    let roster = Arc::clone(roster);
    admin::Service::new(Arc::clone(&edge.metrics), readiness, Some(cache), roster, Some(reloads))
}

fn readiness(roster: &Roster, draining: &AtomicBool) -> Readiness {
    let mut reasons = Vec::new();
    if draining.load(Ordering::Relaxed) {
        reasons.push("draining".to_owned());
    }
    for (name, endpoints) in roster.all().iter() {
        if endpoints.snapshot().is_empty() {
            let why = endpoints.trouble().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            reasons.push(format!("no instance of command {name} is ready{why}"));
        }
    }
    Readiness { reasons }
}

fn observe(edge: &Arc<Edge>, roster: &Arc<Roster>, (own_log, on_demand): (&Arc<OwnLog>, &Arc<OnDemand>)) {
    let (edge_, roster, own_log) = (Arc::downgrade(edge), Arc::clone(roster), Arc::clone(own_log));
    let on_demand = Arc::clone(on_demand);
    edge.metrics.observe_with(move || {
        let Some(edge) = edge_.upgrade() else { return Observed::default() };
        let state = edge.state.load();
        Observed {
            cache: CacheObserved {
                bytes: edge.memory.weight(),
                budget: state.settings.cache.memory,
                in_flight: edge.memory.in_flight(),
                entries: edge.memory.resources() as u64,
                evictions: edge.memory.evictions(),
            },
            commands: roster
                .all()
                .iter()
                .map(|(name, endpoints)| CommandObserved {
                    name: Arc::clone(name),
                    wanted: endpoints.wanted(),
                    ready: endpoints.snapshot().len(),
                    restarts: endpoints.restarts(),
                })
                .collect(),
            log_lines_dropped: edge.sink.log.dropped(),
            own_log_lines_dropped: own_log.dropped()
                + roster.all().values().map(|endpoints| endpoints.lines_dropped()).sum::<u64>(),
            on_demand: {
                let (held, ends) = on_demand.held();
                let ends = ends.and_then(|ends| ends.duration_since(UNIX_EPOCH).ok());
                OnDemandObserved {
                    held,
                    first_ends: ends.map(|ends| ends.as_secs()),
                    denied: on_demand.denied(),
                }
            },
        }
    });
}

/// What the person at this machine opens, where certificates are for nobody else.
fn to_open(settings: &Settings) -> Option<String> {
    let is_local = |tls: &ListenTls| tls.written().any(|certificate| certificate.local_ca);
    let local = settings.listeners.iter().find(|listen| listen.tls.as_ref().is_some_and(is_local))?;
    match local.address.port() {
        // The system chooses.
        0 => None,
        443 => Some("https://localhost".to_owned()),
        port => Some(format!("https://localhost:{port}")),
    }
}

async fn announce_ready(roster: Arc<Roster>, page: Option<String>) {
    for endpoints in roster.all().values() {
        endpoints.until(|ready| !ready.is_empty()).await;
    }
    tracing::info!("ready");
    if let Some(page) = page {
        tracing::info!("open {page}");
    }
}

/// Waits for the connections to finish; a second signal cuts it short.
async fn drain(edge: &Edge, stop: &Stop, signals: &mut Signals) {
    let limit = edge.state.load().settings.timeouts.drain;
    tracing::info!("draining");
    stop.draining.store(true, Ordering::Relaxed);
    edge.drain.cancel();
    stop.connections.close();
    tokio::select! {
        () = stop.connections.wait() => tracing::info!("drained"),
        () = tokio::time::sleep(limit) => {
            tracing::warn!(connections = stop.connections.len(), "not all connections finished in time");
        }
        () = signals.stop() => tracing::warn!("told to stop again: open connections are cut"),
    }
    stop.end.cancel();
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    async fn stop(&mut self) {
        while let Signal::Reload = self.next().await {}
    }
}

enum Signal {
    Stop,
    Reload,
}

/// How often idle upstream connections are swept and the wall clock is corrected.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
