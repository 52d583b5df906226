//! The `origin` command: `serve`, `migrate`, `seed`, `promote`, `openapi`.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::Router;
use clap::{Parser, Subcommand};
use origin::{
    activity_log::ActivityLog,
    common_memory::CommonMemory,
    database::{self, Database},
    listener,
    observe::Metrics,
    passwords::Passwords,
    primary::{self, Servers},
    replicas::{self, Reads},
    search::Searches,
    seed, server,
    settings::{DatabaseSettings, Secret, Settings},
    shop::Shop,
    traces::Tracer,
    users,
    workers::{Shared, Workers},
};
use private_postgres::{PrivatePostgres, RunPostgres};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tracing_subscriber::EnvFilter;

/// Gatehouse's shop API over PostgreSQL.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings file; without it, the defaults that config/origin.toml shows.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the private PostgreSQL, in place of the setting `data`.
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer requests until SIGTERM or SIGINT.
    Serve,
    /// Apply the migrations that the database lacks.
    Migrate,
    /// Fill the catalogue with demo products; those that are there stay as they are.
    Seed {
        /// How many there should be.
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
        products: u32,
    },
    /// Make a registered customer an administrator, who may change the catalogue.
    Promote {
        /// The address of the account.
        email: String,
    },
    /// Print the description of the interface (OpenAPI), as origin/openapi.json has it.
    Openapi,
    /// Become the private PostgreSQL (started by the origin itself).
    #[command(hide = true)]
    RunPostgres(RunPostgres),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "origin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { config, data, command }: Arguments) -> anyhow::Result<()> {
    let command = match command {
        // Before the runtime has other threads: a change of user holds for the calling thread only.
        Command::RunPostgres(run) => return Err(run.run().into()),
        Command::Openapi => return Ok(std::io::stdout().write_all(server::description().as_bytes())?),
        command => command,
    };
    // PostgreSQL's user must be able to pass through the data folder, whatever the umask of whoever starts the origin.
    // Files in it that are secret are made with a mode of their own.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(
            EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,sqlx_core::pool=error")),
        )
        .init();
    let read = move || -> anyhow::Result<Settings> {
        let settings = config.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)?;
        let mut settings = settings.override_from(|name| std::env::var(name).ok())?;
        settings.data = data.clone().unwrap_or(settings.data);
        Ok(settings)
    };
    let settings = read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut stop = pin!(stop_requested()?);
        // A signal ends the preparations at whatever they await. A private server that runs by then is stopped by its Drop.
        let prepared = tokio::select! {
            outcome = prepare(command, &settings) => outcome?,
            () = &mut stop => None,
        };
        match prepared {
            Some(service) => service.run(stop, &settings, read).await,
            None => Ok(()),
        }
    })
}

/// Resolves at SIGTERM or SIGINT, from now on.
fn stop_requested() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Does the whole of every command but `serve`; for that, everything up to the open listener.
async fn prepare(command: Command, settings: &Settings) -> anyhow::Result<Option<Service>> {
    let server = Server::find(settings).await?;
    if let Command::Serve = command {
        let is_up_to_date = server.prepare_to_serve(settings).await?;
        return Service::open(server, settings, is_up_to_date).await.map(Some);
    }
    let mut connection = server.connect().await?;
    match command {
        Command::Migrate => {
            let missing = database::pending_migrations(&mut connection).await?;
            let known = database::migrate(&mut connection).await.context("cannot migrate")?;
            tracing::info!("{missing} migrations applied, {known} in all");
        }
        Command::Seed { products } => {
            server.bring_up_to_date(&mut connection, &settings.database).await?;
            let added = seed::seed(&mut connection, products).await.context("cannot seed")?;
            tracing::info!("{added} products added");
        }
        Command::Promote { email } => {
            if !users::promote(&mut connection, &email).await.context("cannot promote")? {
                bail!("there is no account with the address {email}");
            }
            tracing::info!("{email} is an administrator now");
        }
        Command::Serve | Command::RunPostgres(_) | Command::Openapi => {
            bail!("this command takes no settings")
        }
    }
    drop(connection);
    server.stop().await;
    Ok(None)
}

/// The database that the settings mean.
struct Server {
    servers: Servers,
    private: Option<PrivatePostgres>,
}

impl Server {
    async fn find(settings: &Settings) -> anyhow::Result<Self> {
        if !settings.database.url.is_empty() {
            return Ok(Self { servers: Servers::new(options(settings)?), private: None });
        }
        let data = settings.data.clone();
        let private =
            tokio::task::spawn_blocking(move || PrivatePostgres::start(&data, &own_program())).await??;
        Ok(Self { servers: private.connect_options().into(), private: Some(private) })
    }

    async fn connect(&self) -> anyhow::Result<PgConnection> {
        self.servers.connect(database::START_PATIENCE).await.context("cannot connect to the database")
    }

    /// Brings the database up to date; answers whether it is there to be: one of somebody else's may be away, and the shop is
    /// open for whatever needs no database.
    async fn prepare_to_serve(&self, settings: &Settings) -> anyhow::Result<bool> {
        let patience = if self.private.is_some() { database::START_PATIENCE } else { Duration::ZERO };
        let mut connection = match self.servers.connect(patience).await {
            Err(error) if self.private.is_none() && primary::is_away(&error) => {
                tracing::warn!(%error, "the database is away: what needs it is answered 503 until it is there");
                return Ok(false);
            }
            outcome => outcome.context("cannot connect to the database")?,
        };
        self.bring_up_to_date(&mut connection, &settings.database).await?;
        if self.private.is_some() && settings.seed_when_empty > 0 {
            let added = seed::seed_if_empty(&mut connection, settings.seed_when_empty).await;
            let added = added.context("cannot seed")?;
            if added > 0 {
                tracing::info!("{added} demo products added");
            }
        }
        Ok(true)
    }

    /// Does what could not be done at the start, once the database is there.
    async fn catch_up(&self, settings: &DatabaseSettings) -> anyhow::Result<()> {
        let mut connection = loop {
            match self.servers.connect(Duration::from_secs(60)).await {
                Err(error) if primary::is_away(&error) => {}
                outcome => break outcome.context("cannot connect to the database")?,
            }
        };
        self.bring_up_to_date(&mut connection, settings).await?;
        tracing::info!("the database is there");
        Ok(())
    }

    /// Takes the database's servers from settings that were read again. Whatever else they say holds after a restart.
    fn reload(&self, before: &Settings, read: anyhow::Result<Settings>) -> anyhow::Result<()> {
        let mut now = read?;
        if self.private.is_some() || now.database.url.is_empty() {
            bail!("a private PostgreSQL is taken and left at a start only");
        }
        self.servers.replace(options(&now)?);
        tracing::info!("the database's servers are taken from the settings again");
        now.database.url.clone_from(&before.database.url);
        if now != *before {
            tracing::warn!("what else has changed in the settings holds after a restart");
        }
        Ok(())
    }

    /// Brings a private database up to date; of another, only checks that it is, unless it may be migrated too.
    async fn bring_up_to_date(
        &self,
        connection: &mut PgConnection,
        settings: &DatabaseSettings,
    ) -> anyhow::Result<()> {
        if self.private.is_some() {
            database::enable_statement_statistics(connection)
                .await
                .context("cannot load pg_stat_statements")?;
        }
        if self.private.is_some() || settings.migrate_on_start {
            database::migrate(connection).await.context("cannot migrate")?;
            return Ok(());
        }
        match database::pending_migrations(connection).await.context("cannot read the migrations applied")? {
            0 => Ok(()),
            missing => bail!(
                "the database lacks {missing} migrations: run `origin migrate`, or set `migrate_on_start = true` in [database]"
            ),
        }
    }

    /// Stops a private server. It takes as long as a checkpoint, and blocks no other task.
    async fn stop(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self.private)).await;
    }
}

/// How to connect to each server that the settings name.
fn options(settings: &Settings) -> anyhow::Result<Vec<PgConnectOptions>> {
    let each = settings.database.url.iter().map(|url| url.reveal().parse().context("the database's URL"));
    each.collect()
}

/// What `serve` needs once everything is in place.
struct Service {
    server: Server,
    is_up_to_date: bool,
    database: Database,
    workers: Workers,
    router: Router,
    listener: TcpListener,
    /// For the operator's programs, if the address was free.
    admin: (io::Result<TcpListener>, Router),
}

impl Service {
    async fn open(server: Server, settings: &Settings, is_up_to_date: bool) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new(settings.database.slow_query));
        let (tracer, exporter) = Tracer::new(&settings.telemetry, metrics.spans_lost());
        let database = Database::new(server.servers.clone(), &settings.database, Arc::clone(&metrics));
        let replicas = replicas::pools(&settings.database, &metrics).context("the URL of a replica")?;
        let key = settings.database.cookie_key.as_ref().map(Secret::reveal);
        let memory = CommonMemory::new(&settings.redis, &metrics).context("[redis]")?;
        let reads = Reads::new(database.clone(), replicas, settings.database.max_replica_lag, key)
            .remembering(memory.is_there());
        let (activity, writer) = ActivityLog::new(Arc::clone(&metrics));
        let workers = Workers::start(
            server.servers.clone(),
            settings,
            Shared {
                activity: writer,
                memory: memory.clone(),
                reads: reads.clone(),
                metrics: Arc::clone(&metrics),
                tracer: tracer.clone(),
                exporter,
            },
        );
        let shop = Shop {
            database: database.clone(),
            reads,
            memory,
            passwords: Passwords::new(Arc::clone(&metrics)),
            searches: Searches::new(&settings.search),
            metrics,
            tracer,
            activity,
            site: settings.mail.site.clone().into(),
            proxies: settings.proxies.clone().into(),
        };
        let admin = server::admin_router(shop.clone());
        let router = server::router(shop, settings.request_deadline);
        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("cannot listen on {}", settings.listen))?;
        let admin = (TcpListener::bind(settings.admin).await, admin);
        Ok(Self { server, is_up_to_date, database, workers, router, listener, admin })
    }

    /// `read` reads the settings again, at SIGHUP.
    async fn run(
        self,
        stop: impl Future<Output = ()>,
        settings: &Settings,
        read: impl Fn() -> anyhow::Result<Settings>,
    ) -> anyhow::Result<()> {
        let mut admin = JoinSet::new();
        let (bound, router) = self.admin;
        // A failure to print is no reason to stop: whoever started the origin may have closed its output.
        if let Ok(listener) = &bound {
            let _ = writeln!(std::io::stdout(), "origin: metrics on http://{}", listener.local_addr()?);
        }
        admin.spawn(serve_admin(bound, router, settings.clone()));
        let _ = writeln!(std::io::stdout(), "origin: listening on http://{}", self.listener.local_addr()?);
        let mut hang_ups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let mut outcome = Ok(());
        let stop = async {
            let catch_up = async {
                if !self.is_up_to_date {
                    self.server.catch_up(&settings.database).await?;
                }
                std::future::pending::<anyhow::Result<()>>().await
            };
            let reload = async {
                while hang_ups.recv().await.is_some() {
                    if let Err(error) = self.server.reload(settings, read()) {
                        tracing::error!("the settings stay as they are: {error:#}");
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = stop => {}
                failed = catch_up => outcome = failed,
                () = reload => {}
            }
        };
        listener::serve(self.listener, self.router, settings.into(), stop, settings.drain).await;
        tracing::info!("stopping");
        // The workers stop after the requests, because they still deliver and write what the last requests have left.
        self.workers.stop().await;
        // Requests that were cut off may still hold connections.
        let _ = tokio::time::timeout(settings.database.statement_timeout, self.database.pool().close()).await;
        self.server.stop().await;
        outcome
    }
}

/// Answers the operator's programs, as soon as the address is free, until it is dropped.
async fn serve_admin(mut bound: io::Result<TcpListener>, router: Router, settings: Settings) {
    let listener = loop {
        match bound {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::warn!(address = %settings.admin, %error, "no metrics and no readiness until this address is free");
            }
        }
        bound = loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let again = TcpListener::bind(settings.admin).await;
            if again.is_ok() {
                tracing::info!(address = %settings.admin, "metrics and readiness are here now");
                break again;
            }
        };
    };
    listener::serve(listener, router, (&settings).into(), std::future::pending(), Duration::ZERO).await;
}

/// The path of this program. `/proc/self/exe` works even when the file has been replaced since, or cannot be reached by its
/// name.
fn own_program() -> PathBuf {
    let itself = PathBuf::from("/proc/self/exe");
    if itself.exists() { itself } else { std::env::current_exe().unwrap_or_else(|_| PathBuf::from("origin")) }
}
