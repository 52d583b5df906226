//! Owns every task and thread: starts them in order, reloads, drains, stops.
//!
//! ```text
//!   main thread:  supervisor of commands, admin listener, signals, housekeeping
//!   worker 0..n:  a current-thread runtime and a socket of its own on every listener; a connection stays on its thread
//!   coder, access-log: one thread each, with bounded queues
//! ```
//!
//! A stop goes downstream to upstream: no new connections, those that are open finish or are cut after `timeouts.drain`,
//! then the commands are stopped, then the log is written out. Commands are started from the main thread alone, because
//! the signal that keeps them from outliving the edge is tied to the thread that started them.

mod accept;

use std::{
    io::{self, IsTerminal as _},
    net::TcpListener,
    path::Path,
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
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Readiness},
    cache::Tiers,
    clock::Clock,
    downstream::{
        listen,
        tls::{Certificates, Terminator},
    },
    observe::{
        access_log::AccessLog,
        metrics::{CacheObserved, CommandObserved, ListenerKind, Metrics, Observed},
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

/// Serves by the settings in `path` until SIGTERM or SIGINT.
///
/// # Errors
/// Everything that keeps the edge from starting: settings, certificates, addresses. Once it serves it does not fail.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let settings = settings::load(path)?;
    start_log();
    raise_file_limit();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(serve(path, settings))
}

async fn serve(path: &Path, settings: Settings) -> anyhow::Result<()> {
    let token_file = settings.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    let token = token_file.map(read_token).transpose()?;
    let clock = Clock::system();
    let certificates = Certificates::load(&settings.listeners, clock.wall())?;
    let sockets = bind(&settings, &certificates)?;
    let admin =
        settings.admin.as_ref().map(|admin| admin::socket::Socket::bind(&admin.address)).transpose()?;

    let metrics = Arc::new(Metrics::new());
    let log = AccessLog::start(settings.log.format).context("no thread for the access log")?;
    let sink = Arc::new(Sink { clock: clock.clone(), metrics: Arc::clone(&metrics), log });
    let mut supervisor = Supervisor::start(Launcher::this_program(), &settings.commands);
    let roster = supervisor.roster();
    let commands: Arc<dyn Commands> = Arc::clone(&roster) as Arc<dyn Commands>;
    let dial: Arc<dyn Dial> = Arc::new(Tcp);
    let edge = Edge::new(settings, Tiers::default(), Arc::clone(&sink), dial, commands)
        .context("no thread for content codings")?;
    observe(&edge, &roster);

    let stop = Stop { drain: edge.drain.clone(), ..Stop::default() };
    let mut signals = Signals::new().context("no signal handlers")?;
    let workers = start_workers(&edge, sockets, &stop)?;
    if let Some(socket) = admin {
        start_admin(socket, &edge, &roster, token, &stop)?;
    }
    tracing::info!(threads = workers.threads.len(), "serving");
    let ready = tokio::spawn(announce_ready(Arc::clone(&roster)));
    let mut certificates_due = edge.clock.now() + RENEWAL;

    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Signal::Stop => break,
                Signal::Reload => reload(path, &edge, &certificates, &mut supervisor),
            },
            () = tokio::time::sleep(HOUSEKEEPING) => {
                edge.clock.correct();
                let now = edge.clock.now();
                edge.state.load().upstreams.sweep(now);
                let tiers = Arc::clone(edge.memory.tiers());
                if tiers.out_of_step() {
                    tokio::spawn(async move { tiers.catch_up().await });
                }
                if now >= certificates_due {
                    certificates_due = now + RENEWAL;
                    renew(&edge, &certificates);
                }
            }
        }
    }
    ready.abort();
    drain(&edge, &stop, &mut signals).await;
    workers.join();
    supervisor.stop().await;
    sink.log.close();
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
    let places = Arc::new(Semaphore::new(connections));
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

fn work(edge: &Arc<Edge>, accepts: Vec<Accept>, places: &Arc<Semaphore>, stop: &Stop) {
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
    token: Option<Arc<str>>,
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
    let (memory, clock) = (Arc::clone(&edge.memory), edge.clock.clone());
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

fn read_token(file: &Path) -> anyhow::Result<Arc<str>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("admin.token_file {}: write a long random word into it", file.display()))?;
    let token = text.trim();
    anyhow::ensure!(
        token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic()),
        "admin.token_file {}: one word of at least 16 printable characters is needed",
        file.display()
    );
    Ok(token.into())
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

fn observe(edge: &Arc<Edge>, roster: &Arc<Roster>) {
    let (edge_, roster) = (Arc::downgrade(edge), Arc::clone(roster));
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
        }
    });
}

async fn announce_ready(roster: Arc<Roster>) {
    for endpoints in roster.all().values() {
        endpoints.until(|ready| !ready.is_empty()).await;
    }
    tracing::info!("ready");
}

/// Applies new settings and certificates, or keeps everything as it is and logs why.
fn reload(path: &Path, edge: &Edge, certificates: &Certificates, supervisor: &mut Supervisor) {
    let wanted = match settings::load(path) {
        Ok(wanted) => wanted,
        Err(error) => return tracing::error!("reload refused, the old settings stay in force:\n{error}"),
    };
    let changes = needs_restart(&edge.state.load().settings, &wanted);
    if !changes.is_empty() {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        return tracing::error!("reload refused, the old settings stay in force: {}", changes.join("; "));
    }
    if let Err(error) = certificates.reload(&wanted.listeners, edge.clock.wall()) {
        return tracing::error!("reload refused, the old settings stay in force: {error}");
    }
    supervisor.apply(&wanted.commands);
    edge.reload(wanted);
    tracing::info!("reloaded {}", path.display());
}

/// Reads the certificates again, so that one that was renewed on disk, or a local one about to expire, is replaced.
fn renew(edge: &Edge, certificates: &Certificates) {
    let listeners = edge.state.load().settings.listeners.clone();
    if let Err(error) = certificates.reload(&listeners, edge.clock.wall()) {
        tracing::error!("the certificates in use stay: {error}");
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

/// The edge's own log goes to standard error; the access log has standard output to itself.
fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(colours).with_target(false);
    // Fails only when a log has been set up before, which then stays.
    let _ = log.with_env_filter(filter).try_init();
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
