//! A PostgreSQL of the origin's own, for when no database is configured: made on first use, kept under the data folder,
//! reachable through a unix socket by the origin's user and root alone, stopped with the origin.
//!
//! ```text
//!              lock free                        lock taken
//!   start ──────────────▶ Owner       start ──────────────▶ Joined
//!                          │  ▲                               │
//!       stop: SIGINT, wait │  └── the owner is gone: lock won ┘
//!                          ▼      (adopt the server if it still works, else start it)
//!                         end
//! ```
//! Promises: one owner a folder (`flock`); a server that dies is started again; after `kill -9` of the origin the server shuts
//! down by itself (Linux), and an orphan elsewhere is adopted; `postmaster.pid` is never deleted while its process
//! lives; fsync stays on. It must never open a TCP port.

#![expect(
    clippy::disallowed_methods,
    reason = "a supervisor on a thread of its own may block it, and PostgreSQL offers nothing to wait on but its files"
)]

mod account;
mod binaries;
mod child;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process, test_kill_process},
};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnectOptions;

use account::{Account, run_as};
use binaries::{Binaries, cluster_version};
pub use child::RunPostgres;

/// Name of the superuser and of the database; the socket's folder is what guards them.
const NAME: &str = "gatehouse";
/// `sun_path` has 108 bytes on Linux and 104 on macOS, with the final zero.
const LONGEST_SOCKET_PATH: usize = 103;
/// Crash recovery replays at most a checkpoint's worth of log; initdb takes about a second.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// A fast shutdown writes one checkpoint.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
const WATCH: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_millis(200);
const RETRY_FOR: Duration = Duration::from_secs(5);
const LARGEST_LOG: u64 = 4 << 20;

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// PostgreSQL is not installed, or not in the version that made the data.
    #[error("{}", no_binaries(*.wanted))]
    NoBinaries {
        /// The major version that made the existing cluster.
        wanted: Option<u32>,
    },
    /// Started as root, and there is nobody to run the server as.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has neither a user `postgres` nor `nobody`: add one"
    )]
    NoAccount,
    /// The data was reachable once and is not any more.
    #[error("{} holds data, but the user that owns it can no longer get there: allow others to pass (chmod o+x) every folder above it", .0.display())]
    Unreachable(PathBuf),
    /// A folder or file could not be made, read or changed.
    #[error("{doing} {}: {source}", .path.display())]
    File {
        /// The verb of the sentence.
        doing: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A program of PostgreSQL failed.
    #[error("{program} failed; the end of {}:\n{tail}", .log.display())]
    Failed {
        /// Which.
        program: &'static str,
        /// Where its output is.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// Neither ready nor failed in time.
    #[error("PostgreSQL was not ready within {} s; see {}", START_DEADLINE.as_secs(), .log.display())]
    TooSlow {
        /// Where its output is.
        log: PathBuf,
    },
}

/// A running private server, its own or another origin's. Dropping it stops the server if it is its own, and waits.
#[derive(Debug)]
pub struct PrivatePostgres {
    home: Home,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl PrivatePostgres {
    /// Starts or joins the server of the data folder `data`, and returns when it answers. Blocks for up to a minute.
    ///
    /// `launcher` is the origin's own program; it is run again to become the server (see [`RunPostgres`]).
    pub fn start(data: &Path, launcher: &Path) -> Result<Self, StartError> {
        let home = Home::find(data)?;
        let (stop, stopped) = mpsc::channel();
        let (report, first) = mpsc::sync_channel(1);
        let keeper = thread::Builder::new()
            .name("private-postgres".to_owned())
            .spawn({
                let (home, launcher) = (home.clone(), launcher.to_owned());
                move || keep(&home, &launcher, &report, &stopped)
            })
            .map_err(|source| home.error("cannot start a thread for", source))?;
        let server = Self { home, stop: Some(stop), keeper: Some(keeper) };
        match first.recv() {
            Ok(Ok(())) => Ok(server),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::TooSlow { log: server.home.log() }),
        }
    }

    /// How to connect to it, as the owner of the database.
    pub fn connect_options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.home.socket)
            .port(5432)
            .username(NAME)
            .database(NAME)
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// Where the cluster, the log and the lock are.
    pub fn folder(&self) -> &Path {
        &self.home.folder
    }

    /// The folder of the unix socket, as `psql -h` takes it.
    pub fn socket_folder(&self) -> &Path {
        &self.home.socket
    }

    /// The process id of the server, while it runs.
    pub fn process_id(&self) -> Option<i32> {
        self.home.postmaster().map(|postmaster| postmaster.pid.as_raw_nonzero().get())
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(keeper) = self.keeper.take() {
            // A keeper that panicked has ended too, and with its thread the server.
            let _ = keeper.join();
        }
    }
}

/// The keeper's thread: the only one that starts and stops the server, and it lives as long as the server may.
fn keep(home: &Home, launcher: &Path, report: &SyncSender<Result<(), StartError>>, stopped: &Receiver<()>) {
    let deadline = Instant::now() + START_DEADLINE;
    let mut owned: Option<Owned> = None;
    let mut reported = false;
    loop {
        let outcome = match &mut owned {
            Some(owned) => owned.mend(home, launcher),
            None => home.try_own(launcher).map(|won| owned = won),
        };
        match outcome {
            Err(error) if reported => tracing::error!(%error, "the private PostgreSQL is down"),
            Err(error) => {
                let _ = report.send(Err(error));
                return;
            }
            Ok(()) if reported => {}
            Ok(()) if home.answers() => reported = report.send(Ok(())).is_ok(),
            Ok(()) if Instant::now() > deadline => {
                let _ = report.send(Err(StartError::TooSlow { log: home.log() }));
                return;
            }
            Ok(()) => {}
        }
        match stopped.recv_timeout(if reported { WATCH } else { POLL }) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(owned) = owned {
        owned.server.stop(home);
    }
}

/// The paths of one private server.
#[derive(Debug, Clone)]
struct Home {
    folder: PathBuf,
    socket: PathBuf,
    account: Option<Account>,
}

impl Home {
    fn find(data: &Path) -> Result<Self, StartError> {
        make_passable(data)?;
        let data = data.canonicalize().map_err(|source| file_error("cannot find", data, source))?;
        let mut folder = data.join("postgres");
        let mut account = Account::to_lend()?;
        if let Some(lent) = account {
            if !lent.reaches(&data) {
                if folder.join("cluster").exists() {
                    return Err(StartError::Unreachable(folder));
                }
                let instead = Path::new("/var/lib/gatehouse").join(fingerprint(&data));
                tracing::info!(
                    "PostgreSQL's user cannot reach {}: its files are in {}",
                    data.display(),
                    instead.display()
                );
                folder = instead;
            }
            account = Account::owner_of(&folder.join("cluster")).filter(|owner| owner.user != 0).or(account);
        }
        make_passable(&folder)?;
        let mut socket = folder.join("run");
        if socket.as_os_str().len() + "/.s.PGSQL.5432".len() > LONGEST_SOCKET_PATH {
            socket = Path::new("/tmp").join(format!("gatehouse-{}", fingerprint(&folder)));
        }
        Ok(Self { folder, socket, account })
    }

    fn cluster(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    fn error(&self, doing: &'static str, source: io::Error) -> StartError {
        file_error(doing, &self.folder, source)
    }

    fn failed(&self, program: &'static str) -> StartError {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n");
        StartError::Failed { program, log: self.log(), tail }
    }

    /// A folder that only the server's account and root can enter. In `/tmp` anyone could have made it first, hence
    /// the look at whose it is.
    fn make_private(&self, folder: &Path) -> Result<(), StartError> {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {
                if let Some(account) = self.account {
                    chown(folder, Some(account.user), Some(account.group))
                        .map_err(|source| file_error("cannot change the owner of", folder, source))?;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let metadata = fs::symlink_metadata(folder)
                    .map_err(|source| file_error("cannot read", folder, source))?;
                let owner = self.account.map_or(rustix::process::geteuid().as_raw(), |account| account.user);
                if metadata.is_dir() && metadata.uid() == owner && metadata.mode() & 0o077 == 0 {
                    Ok(())
                } else {
                    let source = io::Error::other("it is not a folder of mode 0700 of the server's user");
                    Err(file_error("cannot use", folder, source))
                }
            }
            Err(source) => Err(file_error("cannot make", folder, source)),
        }
    }

    /// Takes the lock if it is free, and with it the duty to have the server run.
    fn try_own(&self, launcher: &Path) -> Result<Option<Owned>, StartError> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.folder.join("owner.lock"))
            .map_err(|source| self.error("cannot open the lock file in", source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(self.error("cannot lock", errno.into())),
        }
        self.make_private(&self.socket)?;
        let mut log = self.open_log()?;
        if !self.cluster().exists() {
            self.make_cluster(&mut log)?;
        }
        Ok(Some(Owned { server: self.run_server(launcher)?, _lock: lock }))
    }

    fn open_log(&self) -> Result<File, StartError> {
        let log = self.log();
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LARGEST_LOG) {
            fs::rename(&log, self.folder.join("postgres.log.1"))
                .map_err(|source| file_error("cannot rename", &log, source))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            // Statements that failed are in it.
            .mode(0o600)
            .open(&log)
            .map_err(|source| file_error("cannot open", &log, source))
    }

    /// `initdb` beside the final place, then a rename: a cluster that is there is whole.
    fn make_cluster(&self, log: &mut File) -> Result<(), StartError> {
        let binaries = Binaries::find(None)?;
        let unfinished = self.folder.join("cluster.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .map_err(|source| file_error("cannot remove", &unfinished, source))?;
        }
        self.make_private(&unfinished)?;
        tracing::info!("making a PostgreSQL {} database in {}", binaries.major, self.folder.display());

        let locale = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };
        let mut initdb = Command::new(binaries.program("initdb"));
        initdb.arg("--pgdata").arg(&unfinished).args([
            "--username",
            NAME,
            "--encoding",
            "UTF8",
            "--locale",
            locale,
        ]);
        // Whoever gets to the socket is root or the account that owns the files; neither needs a password to read them.
        initdb.args(["--auth-local", "trust", "--auth-host", "reject", "--no-instructions"]);
        self.run_to_the_end(&mut initdb, "initdb", "", log)?;

        let mut single = Command::new(binaries.program("postgres"));
        single.arg("--single").arg("-D").arg(&unfinished).arg("postgres");
        self.run_to_the_end(&mut single, "postgres --single", &format!("CREATE DATABASE {NAME}\n"), log)?;

        fs::rename(&unfinished, self.cluster())
            .map_err(|source| file_error("cannot rename", &unfinished, source))
    }

    fn run_to_the_end(
        &self,
        command: &mut Command,
        program: &'static str,
        input: &str,
        log: &File,
    ) -> Result<(), StartError> {
        let wrong = |source| self.error("cannot run PostgreSQL's programs for", source);
        let output = || log.try_clone().map_err(wrong);
        let command = run_as(command, self.account).stdin(Stdio::piped()).stdout(output()?).stderr(output()?);
        let mut child = command.spawn().map_err(wrong)?;
        let mut stdin = child.stdin.take().expect("stdin is piped three lines above");
        // A child that ended early shows in its exit status.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        if child.wait().map_err(wrong)?.success() { Ok(()) } else { Err(self.failed(program)) }
    }

    /// Adopts a server that works, waits for one on its way in or out, starts one if there is none.
    fn run_server(&self, launcher: &Path) -> Result<Server, StartError> {
        let deadline = Instant::now() + START_DEADLINE;
        while let Some(postmaster) = self.postmaster() {
            if self.answers() {
                tracing::info!("adopting the PostgreSQL that runs as process {}", postmaster.pid);
                return Ok(Server::Adopted(postmaster.pid));
            }
            if Instant::now() > deadline {
                return Err(StartError::TooSlow { log: self.log() });
            }
            thread::sleep(POLL);
        }
        self.remove_stale_pid_file()?;
        let log = self.open_log()?;
        let command = self.server_command()?;
        let last_retry = Instant::now() + RETRY_FOR;
        loop {
            let mut child = child::spawn(launcher, self.account, &command, &log)
                .map_err(|source| self.error("cannot start PostgreSQL for", source))?;
            loop {
                if child
                    .try_wait()
                    .map_err(|source| self.error("cannot watch PostgreSQL in", source))?
                    .is_some()
                {
                    break;
                }
                if self.postmaster().is_some_and(|postmaster| postmaster.is(&child)) && self.answers() {
                    return Ok(Server::Child(child));
                }
                if Instant::now() > deadline {
                    Server::Child(child).stop(self);
                    return Err(StartError::TooSlow { log: self.log() });
                }
                thread::sleep(POLL);
            }
            // The sessions of a server that was killed may hold its shared memory a moment longer; then a start fails.
            if Instant::now() > last_retry {
                return Err(self.failed("postgres"));
            }
            thread::sleep(RETRY);
        }
    }

    fn server_command(&self) -> Result<Vec<PathBuf>, StartError> {
        let binaries = Binaries::find(cluster_version(&self.cluster()))?;
        let socket = self.socket.display().to_string().replace('"', "\"\"");
        let mut settings = vec![
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories=\"{socket}\""),
            "unix_socket_permissions=0700".to_owned(),
            // Two origins with the largest pool, and room for an operator.
            "max_connections=120".to_owned(),
            // Short queries only: parallel workers would cost more than they bring.
            "max_parallel_workers_per_gather=0".to_owned(),
            "max_parallel_maintenance_workers=0".to_owned(),
            "log_checkpoints=off".to_owned(),
            "timezone=UTC".to_owned(),
            "cluster_name=gatehouse".to_owned(),
        ];
        if binaries.has_statement_statistics() {
            settings.push("shared_preload_libraries=pg_stat_statements".to_owned());
        }
        let mut command =
            vec![binaries.program("postgres"), "-D".into(), self.cluster(), "-p".into(), "5432".into()];
        for setting in settings {
            command.extend([PathBuf::from("-c"), PathBuf::from(setting)]);
        }
        Ok(command)
    }

    /// Whether the server takes connections: its own word in `postmaster.pid`, and a socket that accepts.
    fn answers(&self) -> bool {
        self.postmaster().is_some_and(|postmaster| postmaster.ready)
            && UnixStream::connect(self.socket.join(".s.PGSQL.5432")).is_ok()
    }

    /// The server that `postmaster.pid` names, if that process lives and is one.
    fn postmaster(&self) -> Option<Postmaster> {
        let postmaster = Postmaster::parse(&fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?)?;
        postmaster.works_in(&self.cluster()).then_some(postmaster)
    }

    /// PostgreSQL does this itself, unless the process number has since gone to another program of the same user: then it
    /// would refuse to start for ever.
    fn remove_stale_pid_file(&self) -> Result<(), StartError> {
        let file = self.cluster().join("postmaster.pid");
        let taken = fs::read_to_string(&file)
            .ok()
            .and_then(|text| Postmaster::parse(&text))
            .is_some_and(|postmaster| test_kill_process(postmaster.pid).is_ok());
        if !taken {
            return Ok(());
        }
        fs::remove_file(&file).map_err(|source| file_error("cannot remove", &file, source))
    }
}

/// What an owner holds. The lock goes last, after the server has stopped.
struct Owned {
    server: Server,
    _lock: File,
}

impl Owned {
    /// Starts the server again if it is gone.
    fn mend(&mut self, home: &Home, launcher: &Path) -> Result<(), StartError> {
        if self.server.lives(home) {
            return Ok(());
        }
        tracing::warn!("the private PostgreSQL ended unexpectedly; starting it again");
        self.server = home.run_server(launcher)?;
        Ok(())
    }
}

enum Server {
    Child(Child),
    Adopted(Pid),
}

impl Server {
    fn lives(&mut self, home: &Home) -> bool {
        match self {
            Self::Child(child) => matches!(child.try_wait(), Ok(None)),
            Self::Adopted(pid) => home.postmaster().is_some_and(|postmaster| postmaster.pid == *pid),
        }
    }

    /// A fast shutdown; after the deadline an immediate one, which the next start recovers from.
    fn stop(mut self, home: &Home) {
        for (signal, patience) in [(Signal::INT, STOP_DEADLINE), (Signal::QUIT, STOP_DEADLINE / 3)] {
            let deadline = Instant::now() + patience;
            let mut told = false;
            while self.lives(home) {
                let pid = match &self {
                    Self::Child(child) => Pid::from_child(child),
                    Self::Adopted(pid) => *pid,
                };
                told = told || kill_process(pid, signal).is_ok();
                if Instant::now() > deadline {
                    tracing::warn!("the private PostgreSQL does not stop");
                    break;
                }
                thread::sleep(POLL);
            }
        }
    }
}

/// The lines of `postmaster.pid` that matter here: the first, and the eighth.
#[derive(Debug, PartialEq, Eq)]
struct Postmaster {
    pid: Pid,
    ready: bool,
}

impl Postmaster {
    fn parse(text: &str) -> Option<Self> {
        let pid = text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)?;
        Some(Self { pid, ready: text.lines().nth(7).is_some_and(|status| status.trim() == "ready") })
    }

    fn is(&self, child: &Child) -> bool {
        self.pid == Pid::from_child(child)
    }

    /// The postmaster's working directory is its cluster: a number that has gone to another process is not mistaken for it.
    fn works_in(&self, cluster: &Path) -> bool {
        let process = Path::new("/proc").join(self.pid.to_string());
        match fs::read_link(process.join("cwd")) {
            Ok(folder) => folder == cluster,
            // A container's root may not look at another user's process that closely, but at its name and state.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::read_to_string(process.join("stat"))
                    .is_ok_and(|stat| stat.contains("(postgres) ") && !stat.contains("(postgres) Z"))
            }
            Err(_) => !Path::new("/proc/self/cwd").exists() && test_kill_process(self.pid).is_ok(),
        }
    }
}

/// Makes what is missing of the path, open for others to pass through whatever the umask says; what exists stays.
fn make_passable(folder: &Path) -> Result<(), StartError> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|step| !step.as_os_str().is_empty() && !step.exists()).collect();
    for step in missing.into_iter().rev() {
        match fs::create_dir(step) {
            Ok(()) => fs::set_permissions(step, fs::Permissions::from_mode(0o755))
                .map_err(|source| file_error("cannot open to others", step, source))?,
            // Another origin that starts at the same moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(file_error("cannot make", step, source)),
        }
    }
    Ok(())
}

fn fingerprint(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn file_error(doing: &'static str, path: &Path, source: io::Error) -> StartError {
    StartError::File { doing, path: path.to_owned(), source }
}

fn no_binaries(wanted: Option<u32>) -> String {
    let (which, debian) = match wanted {
        Some(major) => {
            (format!("PostgreSQL {major}, which made the existing data,"), format!("postgresql-{major}"))
        }
        None => ("PostgreSQL 14 or newer (initdb and postgres)".to_owned(), "postgresql".to_owned()),
    };
    format!(
        "{which} was not found: install it (Debian, Ubuntu: apt-get install {debian}; Fedora: dnf install \
         postgresql-server; macOS: brew install postgresql@17), or set DATABASE_URL to a server that runs elsewhere"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_says_who_and_whether_ready() {
        let file = "4711\n/data/cluster\n1700000000\n5432\n/data/run\n\n  5432001   196610\nready   \n";
        let postmaster = Postmaster::parse(file).expect("a whole file");
        assert_eq!((postmaster.pid.as_raw_nonzero().get(), postmaster.ready), (4711, true));
        assert!(!Postmaster::parse("4711\n/data/cluster\n").expect("a file being written").ready);
        assert_eq!(Postmaster::parse(""), None);
        assert_eq!(Postmaster::parse("-5\n"), None);
    }

    #[test]
    fn without_binaries_the_message_names_the_package() {
        assert!(StartError::NoBinaries { wanted: None }.to_string().contains("apt-get install postgresql;"));
        assert!(StartError::NoBinaries { wanted: Some(15) }.to_string().contains("postgresql-15"));
    }
}
