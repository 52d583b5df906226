//! PostgreSQL servers that are not the origin's own: a primary and what follows it, each in a temporary folder, reached by a socket.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use sqlx::postgres::PgConnectOptions;

use crate::{
    account::{self, Account},
    folder::Folder,
    process::Process,
    tool, wait,
};

/// A running server; it is gone when the value goes.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    programs: PathBuf,
    account: Option<Account>,
    folder: Folder,
}

/// The superuser and the database.
const NAME: &str = "gatehouse";

impl Postgres {
    /// An empty primary.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|server| {
            server.run(
                "initdb",
                &["--username", NAME, "--encoding", "UTF8", "--auth", "trust", "--no-sync", "-D"],
            );
        })
    }

    /// A replica of this one, which streams what it writes.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn follow(&self) -> Self {
        let source = self.folder.path().to_str().expect("temporary folders have plain names");
        Self::start_with(|server| {
            let copy =
                ["--username", NAME, "--write-recovery-conf", "--checkpoint", "fast", "--no-sync", "--host"];
            server.run("pg_basebackup", &[&copy[..], &[source, "-D"]].concat());
        })
    }

    #[track_caller]
    fn start_with(make: impl FnOnce(&Made)) -> Self {
        let made = Made {
            programs: programs(),
            account: account::lent(&["postgres", "_postgres", "nobody"]),
            folder: Folder::new(),
        };
        if let Some((user, group)) = made.account {
            chown(made.folder.path(), Some(user), Some(group)).expect("root may give folders away");
        }
        let private = Permissions::from_mode(0o700);
        fs::set_permissions(made.folder.path(), private).expect("the temporary folder is ours");
        make(&made);
        let sockets = format!("unix_socket_directories={}", made.folder.path().display());
        let mut command = made.command("postgres");
        command.arg("-D").arg(made.folder.path().join("cluster"));
        command.args([
            "-c",
            "listen_addresses=",
            "-c",
            "max_connections=120",
            "-c",
            "jit=off",
            "-c",
            &sockets,
        ]);
        let process = Process::start("postgres", &mut command);
        let Made { programs, account, folder } = made;
        let mut server = Self { process, programs, account, folder };
        wait::until("PostgreSQL answers", || {
            assert!(server.process.ended().is_none(), "PostgreSQL has ended: {:?}", server.process.lines());
            server.psql("postgres", "SELECT 1")
        });
        // A replica has it already.
        let _ = server.psql("postgres", &format!("CREATE DATABASE {NAME}"));
        server
    }

    /// How settings name it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{NAME}@localhost/{NAME}?host={}", self.folder.path().display())
    }

    /// How to reach it.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().socket(self.folder.path()).username(NAME).database(NAME)
    }

    /// The folder of its socket, as `psql -h` takes it.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Has a replica take writes.
    ///
    /// # Panics
    /// When it will not.
    #[track_caller]
    pub fn promote(&self) {
        self.psql(NAME, "SELECT pg_promote()").expect("it can be promoted");
    }

    /// What psql prints of a statement, if it succeeds.
    #[must_use]
    pub fn psql(&self, database: &str, statement: &str) -> Option<String> {
        let made = |program: &str| command(&self.programs, self.account, program);
        let mut psql = made("psql");
        psql.args(["-h"]).arg(self.folder.path()).args(["-U", NAME, "-d", database, "-Atqc", statement]);
        let output = psql.output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    }
}

impl Drop for Postgres {
    /// A fast shutdown: it waits for no client.
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.signal(Signal::INT);
            let _ = wait::until_within(wait::PATIENCE, || self.process.ended());
        }
    }
}

/// A server that is not there yet.
struct Made {
    programs: PathBuf,
    account: Option<Account>,
    folder: Folder,
}

impl Made {
    fn command(&self, program: &str) -> Command {
        command(&self.programs, self.account, program)
    }

    /// Runs a program with these arguments and the folder of the cluster to be.
    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) {
        tool::run_command(self.command(program).args(arguments).arg(self.folder.path().join("cluster")));
    }
}

fn command(programs: &Path, account: Option<Account>, program: &str) -> Command {
    let mut command = Command::new(programs.join(program));
    account::run_as(&mut command, account).current_dir("/");
    command
}

const PROGRAMS: [&str; 4] = ["initdb", "postgres", "pg_basebackup", "psql"];

/// Where the server's programs are, which Debian keeps out of `PATH`: the newest there is.
#[track_caller]
fn programs() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.sort_by_key(|folder| {
        std::cmp::Reverse(folder.parent().and_then(Path::file_name).map(ToOwned::to_owned))
    });
    let whole = folders.into_iter().find(|folder| PROGRAMS.iter().all(|name| folder.join(name).is_file()));
    whole.expect("PostgreSQL is not installed: `make test` installs it, or: apt-get install postgresql")
}
