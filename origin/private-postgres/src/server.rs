//! The server itself: owned by whoever has the lock, adopted if it runs already, started if not, stopped in good order.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process, test_kill_process},
};

use crate::{
    binaries::{Binaries, cluster_version},
    child,
    error::{Doing as _, START_DEADLINE, too_slow},
    home::Home,
};

/// A fast shutdown writes one checkpoint.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const POLL: Duration = Duration::from_millis(10);
const RETRY: Duration = Duration::from_millis(200);
const RETRY_FOR: Duration = Duration::from_secs(5);

/// What an owner holds. The lock goes last, after the server has stopped.
pub(crate) struct Owned {
    server: Server,
    _lock: File,
}

impl Owned {
    /// Takes the lock if it is free, and with it the duty to have the server run.
    pub(crate) fn try_win(home: &Home, launcher: &Path) -> anyhow::Result<Option<Self>> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(home.folder.join("owner.lock"))
            .doing("cannot open the lock file in", &home.folder)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            outcome => outcome.map_err(io::Error::from).doing("cannot lock", &home.folder)?,
        }
        home.make_private(&home.socket)?;
        if !home.cluster().exists() {
            home.make_cluster()?;
        }
        Ok(Some(Self { server: Server::run(home, launcher)?, _lock: lock }))
    }

    /// Starts the server again if it is gone.
    pub(crate) fn mend(&mut self, home: &Home, launcher: &Path) -> anyhow::Result<()> {
        if !self.server.lives(home) {
            tracing::warn!("the private PostgreSQL ended unexpectedly; starting it again");
            self.server = Server::run(home, launcher)?;
        }
        Ok(())
    }

    /// Stops the server, and lets another have the lock.
    pub(crate) fn stop(mut self, home: &Home) {
        self.server.stop(home);
    }
}

enum Server {
    Child(Child),
    Adopted(Pid),
}

impl Server {
    /// Adopts a server that works, waits for one on its way in or out, starts one if there is none.
    fn run(home: &Home, launcher: &Path) -> anyhow::Result<Self> {
        let deadline = Instant::now() + START_DEADLINE;
        while let Some(postmaster) = Postmaster::of(home) {
            if postmaster.answers(home) {
                tracing::info!("adopting the PostgreSQL that runs as process {}", postmaster.pid);
                return Ok(Self::Adopted(postmaster.pid));
            }
            if Instant::now() > deadline {
                return Err(too_slow(&home.log()));
            }
            thread::sleep(POLL);
        }
        remove_stale_pid_file(home)?;
        let log = home.open_log()?;
        let command = command(home)?;
        let last_retry = Instant::now() + RETRY_FOR;
        loop {
            let child = child::spawn(launcher, home.account, &command, &log)
                .doing("cannot start PostgreSQL for", &home.folder)?;
            if let Some(server) = Self::when_ready(child, home, deadline)? {
                return Ok(server);
            }
            // The sessions of a server that was killed may hold its shared memory a moment longer; then a start fails.
            if Instant::now() > last_retry {
                return Err(home.failed("postgres"));
            }
            thread::sleep(RETRY);
        }
    }

    /// The server that the child has become; `None` if it has ended instead.
    fn when_ready(mut child: Child, home: &Home, deadline: Instant) -> anyhow::Result<Option<Self>> {
        while child.try_wait().doing("cannot watch PostgreSQL in", &home.folder)?.is_none() {
            let postmaster = Postmaster::of(home).filter(|found| found.pid == Pid::from_child(&child));
            if postmaster.is_some_and(|postmaster| postmaster.answers(home)) {
                return Ok(Some(Self::Child(child)));
            }
            if Instant::now() > deadline {
                Self::Child(child).stop(home);
                return Err(too_slow(&home.log()));
            }
            thread::sleep(POLL);
        }
        Ok(None)
    }

    fn lives(&mut self, home: &Home) -> bool {
        match self {
            Self::Child(child) => matches!(child.try_wait(), Ok(None)),
            Self::Adopted(pid) => Postmaster::of(home).is_some_and(|postmaster| postmaster.pid == *pid),
        }
    }

    /// A fast shutdown; after the deadline an immediate one, which the next start recovers from.
    fn stop(&mut self, home: &Home) {
        for (signal, patience) in [(Signal::INT, STOP_DEADLINE), (Signal::QUIT, STOP_DEADLINE / 3)] {
            let deadline = Instant::now() + patience;
            let mut told = false;
            while self.lives(home) {
                let pid = match self {
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

fn command(home: &Home) -> anyhow::Result<Vec<PathBuf>> {
    let binaries = Binaries::find(cluster_version(&home.cluster()))?;
    let socket = home.socket.display().to_string().replace('"', "\"\"");
    let sockets = format!("unix_socket_directories=\"{socket}\"");
    let mut settings = vec![
        "listen_addresses=",
        &sockets,
        "unix_socket_permissions=0700",
        // Two origins with the largest pool, and room for an operator.
        "max_connections=120",
        // Short queries only: parallel workers would cost more than they bring.
        "max_parallel_workers_per_gather=0",
        "max_parallel_maintenance_workers=0",
        "log_checkpoints=off",
        "timezone=UTC",
        "cluster_name=gatehouse",
    ];
    if binaries.has_statement_statistics() {
        settings.push("shared_preload_libraries=pg_stat_statements");
    }
    let mut command =
        vec![binaries.program("postgres"), "-D".into(), home.cluster(), "-p".into(), "5432".into()];
    command.extend(settings.into_iter().flat_map(|setting| ["-c".into(), setting.into()]));
    Ok(command)
}

/// PostgreSQL does this itself, unless the process number has since gone to another program of the same user: then it
/// would refuse to start for ever.
fn remove_stale_pid_file(home: &Home) -> anyhow::Result<()> {
    let taken = Postmaster::written(home).is_some_and(|named| test_kill_process(named.pid).is_ok());
    if !taken {
        return Ok(());
    }
    let file = home.cluster().join("postmaster.pid");
    fs::remove_file(&file).doing("cannot remove", &file)
}

/// The lines of `postmaster.pid` that matter here: the first, and the eighth.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) pid: Pid,
    ready: bool,
}

impl Postmaster {
    /// The server that `postmaster.pid` names, if that process lives and is one.
    pub(crate) fn of(home: &Home) -> Option<Self> {
        Self::written(home).filter(|postmaster| postmaster.works_in(&home.cluster()))
    }

    /// Whether the server takes connections: its own word in `postmaster.pid`, and a socket that accepts.
    pub(crate) fn answers(&self, home: &Home) -> bool {
        self.ready && UnixStream::connect(home.socket.join(".s.PGSQL.5432")).is_ok()
    }

    fn written(home: &Home) -> Option<Self> {
        Self::parse(&fs::read_to_string(home.cluster().join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let pid = text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)?;
        Some(Self { pid, ready: text.lines().nth(7).is_some_and(|status| status.trim() == "ready") })
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
}
