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
mod orphans;

use std::{
    io,
    net::TcpListener,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{
        self, Readiness,
        token::{self, Token},
    },
    cache::Tiers,
    clock::Clock,
    downstream::{
        listen,
        places::Places,
        tls::{Certificates, Terminator},
    },
    message::reasons::reasons,
    observe::{
        access_log::AccessLog,
        metrics::{CacheObserved, CommandObserved, ListenerKind, Metrics, Observed},
        own_log::OwnLog,
        record::Sink,
    },
    settings::{self, AdminAddress, Settings, reload::needs_restart},
    state::Edge,
    upstream::{
        Commands,
        connect::{Dial, Tcp},
        supervise::{Launcher, Roster, Supervisor},
    },
};
use accept::{Accept, accept_all};
use orphans::Orphans;

/// Serves by the settings in `path` until SIGTERM or SIGINT.
///
/// # Errors
/// Everything that keeps the edge from starting: settings, certificates, addresses. Once it serves it does not fail.
/// From the moment at which the log is there, what fails is told in it, and the exit code says the rest.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let (settings, warnings) = settings::read(path)?;
    let clock = Clock::system();
    let log = OwnLog::start(settings.log.format, clock.clone()).context("no thread for the log")?;
    let _closing = log.closing();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("no runtime");
    let served = runtime.and_then(|runtime| runtime.block_on(serve(path, settings, clock, &log)));
    if let Err(error) = &served {
        tracing::error!("{}", reasons(error));
    }
    Ok(if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn serve(path: &Path, settings: Settings, clock: Clock, own_log: &Arc<OwnLog>) -> anyhow::Result<()> {
    let token = Arc::new(Token::default());
    token.set(token::of(&settings)?);
    let certificates = Certificates::load(&settings.listeners, clock.wall())?;
    let sockets = bind(&settings, &certificates)?;
    let admin =
        settings.admin.as_ref().map(|admin| admin::socket::Socket::bind(&admin.address)).transpose()?;

    let metrics = Arc::new(Metrics::new());
    let log = AccessLog::start(settings.log.format).context("no thread for the access log")?;
    let sink = Arc::new(Sink { clock: clock.clone(), metrics: Arc::clone(&metrics), log });
    let _closing = sink.log.closing();
    let mut supervisor = Supervisor::start(Launcher::this_program(own_log), &settings.commands);
    let roster = supervisor.roster();
    let commands: Arc<dyn Commands> = Arc::clone(&roster) as Arc<dyn Commands>;
    let dial: Arc<dyn Dial> = Arc::new(Tcp);
    let edge = Edge::new(settings, Tiers::default(), Arc::clone(&sink), dial, commands)
        .context("no thread for content codings")?;
    observe(&edge, &roster, own_log);

    let stop = Stop { drain: edge.drain.clone(), ..Stop::default() };
    let mut signals = Signals::new().context("no signal handlers")?;
    let workers = start_workers(&edge, sockets, &stop)?;
    if let Some(socket) = admin {
        start_admin(socket, &edge, &roster, &token, &stop)?;
    }
    tracing::info!(threads = workers.threads.len(), "serving");
    let ready = tokio::spawn(announce_ready(Arc::clone(&roster)));
    let mut certificates_due = edge.clock.now() + RENEWAL;
    let running = Running { path, edge: &edge, certificates: &certificates, token: &token, log: own_log };

    let mut orphans = Orphans::default();
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Signal::Stop => break,
                Signal::Reload => running.reload(&mut supervisor),
            },
            () = tokio::time::sleep(HOUSEKEEPING) => {
                edge.clock.correct();
                orphans.reap();
                let now = edge.clock.now();
                edge.state.load().upstreams.sweep(now);
                let tiers = Arc::clone(edge.memory.tiers());
                if tiers.out_of_step() {
                    tokio::spawn(async move { tiers.catch_up().await });
                }
                if now >= certificates_due {
                    certificates_due = now + RENEWAL;
                    running.renew();
                }
            }
        }
    }
    ready.abort();
    drain(&edge, &stop, &mut signals).await;
    workers.join();
    supervisor.stop().await;
    Ok(())
}

/// A public listener, bound: one socket a worker.
struct Bound {
    sockets: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
    metrics: ListenerKind,
}

fn bind(settings: &Settings, certificates: &Certificates) -> anyhow::Result<Vec<Bound>> {
    let mut bound = Vec::with_capacity(settings.listeners.len());
    for (index, listener) in settings.listeners.iter().enumerate() {
        let sockets = listen::bind(listener.address, settings.threads)?;
        let address = sockets[0].local_addr().context("a bound socket has an address")?;
        let terminator: Option<&Terminator> = certificates.terminator(index);
        let tls = terminator.map(|terminator| TlsAcceptor::from(terminator.server_config()));
        let metrics = if tls.is_some() { ListenerKind::Tls } else { ListenerKind::Clear };
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{address}");
        bound.push(Bound { sockets, tls, metrics });
    }
    Ok(bound)
}

/// The two steps of a stop, shared by all threads.
#[derive(Clone, Debug, Default)]
struct Stop {
    /// No new connections; those open finish what they do.
    drain: CancellationToken,
    /// No connection or task is waited for any more.
    end: CancellationToken,
    draining: Arc<AtomicBool>,
    /// Open connections, and the listeners while they may still accept one.
    connections: TaskTracker,
}

struct Workers {
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

fn start_workers(edge: &Arc<Edge>, listeners: Vec<Bound>, stop: &Stop) -> anyhow::Result<Workers> {
    let state = edge.state.load();
    let connections = state.settings.bounds.connections;
    let places = Places::new(connections);
    let mut by_worker: Vec<Vec<Accept>> = (0..state.settings.threads).map(|_| Vec::new()).collect();
    for listener in listeners {
        let metrics = edge.metrics.for_listener(listener.metrics);
        for (worker, socket) in by_worker.iter_mut().zip(listener.sockets) {
            worker.push(Accept { socket, tls: listener.tls.clone(), metrics: Arc::clone(&metrics) });
        }
    }
    let mut threads = Vec::with_capacity(by_worker.len());
    for (index, accepts) in by_worker.into_iter().enumerate() {
        let (edge, places, stop) = (Arc::clone(edge), Arc::clone(&places), stop.clone());
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || work(&edge, accepts, &places, &stop))
            .context("no thread for a worker")?;
        threads.push(thread);
    }
    Ok(Workers { threads })
}

fn work(edge: &Arc<Edge>, accepts: Vec<Accept>, places: &Arc<Places>, stop: &Stop) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a worker has no runtime"),
    };
    runtime.block_on(async {
        for accept in accepts {
            tokio::spawn(accept_all(Arc::clone(edge), accept, Arc::clone(places), stop.clone()));
        }
        stop.end.cancelled().await;
    });
    // Dropping the runtime ends what is still running: the drain has waited for it as long as it may.
}

fn start_admin(
    socket: admin::socket::Socket,
    edge: &Arc<Edge>,
    roster: &Arc<Roster>,
    token: &Arc<Token>,
    stop: &Stop,
) -> anyhow::Result<()> {
    let address = socket.address().context("a bound socket has an address")?;
    let readiness = {
        let (roster, draining) = (Arc::clone(roster), Arc::clone(&stop.draining));
        move || readiness(&roster, draining.load(Ordering::Relaxed))
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
    let state = admin::Service::new(Arc::clone(&edge.metrics), readiness, Some(cache));
    tokio::spawn(admin::serve(socket, state, stop.end.clone()));
    match &address {
        AdminAddress::Network(address) => tracing::info!("admin on http://{address}"),
        AdminAddress::Unix(_) => tracing::info!("admin on {address}"),
    }
    Ok(())
}

fn readiness(roster: &Roster, draining: bool) -> Readiness {
    let mut reasons = Vec::new();
    if draining {
        reasons.push("draining".to_owned());
    }
    for (name, endpoints) in roster.all().iter() {
        if endpoints.snapshot().is_empty() {
            reasons.push(format!("no instance of command {name} is ready"));
        }
    }
    Readiness { reasons }
}

fn observe(edge: &Arc<Edge>, roster: &Arc<Roster>, own_log: &Arc<OwnLog>) {
    let (edge_, roster, own_log) = (Arc::downgrade(edge), Arc::clone(roster), Arc::clone(own_log));
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
            own_log_lines_dropped: own_log.dropped(),
        }
    });
}

async fn announce_ready(roster: Arc<Roster>) {
    for endpoints in roster.all().values() {
        endpoints.until(|ready| !ready.is_empty()).await;
    }
    tracing::info!("ready");
}

/// What a reload changes.
struct Running<'a> {
    path: &'a Path,
    edge: &'a Edge,
    certificates: &'a Certificates,
    token: &'a Token,
    log: &'a OwnLog,
}

impl Running<'_> {
    /// Applies new settings, certificates and token, or keeps everything as it is, and says which.
    fn reload(&self, supervisor: &mut Supervisor) {
        if let Err(why) = self.try_reload(supervisor) {
            tracing::error!("reload refused, the old settings stay in force: {why}");
        }
    }

    fn try_reload(&self, supervisor: &mut Supervisor) -> Result<(), String> {
        let (wanted, warnings) = settings::read(self.path).map_err(|error| format!("\n{error}"))?;
        let changes = needs_restart(&self.edge.state.load().settings, &wanted);
        if !changes.is_empty() {
            return Err(changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        let token = token::of(&wanted).map_err(|error| error.to_string())?;
        let now = self.edge.clock.wall();
        let renewed = self.certificates.read(&wanted.listeners, now).map_err(|error| error.to_string())?;
        // Everything has been read, and nothing below can fail: a reload is whole, or is none.
        self.certificates.renew(renewed);
        self.token.set(token);
        self.log.set_format(wanted.log.format);
        supervisor.apply(&wanted.commands);
        self.edge.reload(wanted);
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!("reloaded {}", self.path.display());
        Ok(())
    }

    /// Reads the certificates again, so that one that was renewed on disk, or a local one about to expire, is replaced.
    fn renew(&self) {
        let listeners = self.edge.state.load().settings.listeners.clone();
        match self.certificates.read(&listeners, self.edge.clock.wall()) {
            Ok(renewed) => self.certificates.renew(renewed),
            Err(error) => tracing::error!("the certificates in use stay: {error}"),
        }
    }
}

/// Waits for the connections to finish; a second signal cuts it short.
async fn drain(edge: &Edge, stop: &Stop, signals: &mut Signals) {
    let limit = edge.state.load().settings.timeouts.drain;
    tracing::info!("draining");
    stop.draining.store(true, Ordering::Relaxed);
    stop.drain.cancel();
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

/// A connection needs a file descriptor: raise the limit as far as the system permits.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays at {:?}", limit.current);
    }
}

/// How often idle upstream connections are swept and the wall clock is corrected.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// How often certificates are read again without a signal.
const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);
