//! Where a private server lives: its folders and who may enter them, its log, and the cluster, which is made on first use.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{anyhow, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    NAME,
    account::{Account, run_as},
    binaries::Binaries,
    error::Doing as _,
};

/// `sun_path` has 108 bytes on Linux and 104 on macOS, with the final zero.
const LONGEST_SOCKET_PATH: usize = 103;
const LARGEST_LOG: u64 = 4 << 20;

/// The paths of one private server.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) folder: PathBuf,
    /// The folder of its unix socket.
    pub(crate) socket: PathBuf,
    /// Lent to the server by a process that is root.
    pub(crate) account: Option<Account>,
}

impl Home {
    pub(crate) fn find(data: &Path) -> anyhow::Result<Self> {
        make_passable(data)?;
        let data = data.canonicalize().doing("cannot find", data)?;
        let mut folder = data.join("postgres");
        let mut account = Account::to_lend()?;
        if let Some(lent) = account {
            if !lent.reaches(&data) {
                if folder.join("cluster").exists() {
                    bail!(
                        "{} holds data, but the user that owns it can no longer get there: allow others to pass (chmod \
                         o+x) every folder above it",
                        folder.display()
                    );
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

    pub(crate) fn cluster(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// The end of the log, which has what `program` said.
    pub(crate) fn failed(&self, program: &str) -> anyhow::Error {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n");
        anyhow!("{program} failed; the end of {}:\n{tail}", self.log().display())
    }

    /// A folder that only the server's account and root can enter. In `/tmp` anyone could have made it first, hence
    /// the look at whose it is.
    pub(crate) fn make_private(&self, folder: &Path) -> anyhow::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let metadata = fs::symlink_metadata(folder).doing("cannot read", folder)?;
                let owner = self.account.map_or(rustix::process::geteuid().as_raw(), |account| account.user);
                if metadata.is_dir() && metadata.uid() == owner && metadata.mode() & 0o077 == 0 {
                    return Ok(());
                }
                let source = io::Error::other("it is not a folder of mode 0700 of the server's user");
                Err(source).doing("cannot use", folder)
            }
            made => {
                made.doing("cannot make", folder)?;
                let Some(account) = self.account else { return Ok(()) };
                chown(folder, Some(account.user), Some(account.group))
                    .doing("cannot change the owner of", folder)
            }
        }
    }

    pub(crate) fn open_log(&self) -> anyhow::Result<File> {
        let log = self.log();
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LARGEST_LOG) {
            fs::rename(&log, self.folder.join("postgres.log.1")).doing("cannot rename", &log)?;
        }
        // Statements that failed are in it.
        OpenOptions::new().create(true).append(true).mode(0o600).open(&log).doing("cannot open", &log)
    }

    /// `initdb` beside the final place, then a rename: a cluster that is there is whole.
    pub(crate) fn make_cluster(&self) -> anyhow::Result<()> {
        let binaries = Binaries::find(None)?;
        let unfinished = self.folder.join("cluster.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).doing("cannot remove", &unfinished)?;
        }
        self.make_private(&unfinished)?;
        tracing::info!("making a PostgreSQL {} database in {}", binaries.major, self.folder.display());

        let locale = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };
        let mut initdb = Command::new(binaries.program("initdb"));
        initdb.arg("--pgdata").arg(&unfinished);
        initdb.args(["--username", NAME, "--encoding", "UTF8", "--locale", locale]);
        // Whoever gets to the socket is root or the account that owns the files; neither needs a password to read them.
        initdb.args(["--auth-local", "trust", "--auth-host", "reject", "--no-instructions"]);
        self.run_to_the_end(&mut initdb, "initdb", "")?;

        let mut single = Command::new(binaries.program("postgres"));
        single.arg("--single").arg("-D").arg(&unfinished).arg("postgres");
        self.run_to_the_end(&mut single, "postgres --single", &format!("CREATE DATABASE {NAME}\n"))?;

        fs::rename(&unfinished, self.cluster()).doing("cannot rename", &unfinished)
    }

    fn run_to_the_end(&self, command: &mut Command, program: &str, input: &str) -> anyhow::Result<()> {
        let log = self.open_log()?;
        let ended = || {
            let command = run_as(command, self.account).stdin(Stdio::piped());
            let mut child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
            let mut stdin = child.stdin.take().expect("stdin is piped two lines above");
            // A child that ended early shows in its exit status.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            child.wait()
        };
        let status = ended().doing("cannot run PostgreSQL's programs for", &self.folder)?;
        if status.success() { Ok(()) } else { Err(self.failed(program)) }
    }
}

/// Makes what is missing of the path, open for others to pass through whatever the umask says; what exists stays.
fn make_passable(folder: &Path) -> anyhow::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|step| !step.as_os_str().is_empty() && !step.exists()).collect();
    for step in missing.into_iter().rev() {
        match fs::create_dir(step) {
            // Another program that starts at the same moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.doing("cannot make", step)?;
                fs::set_permissions(step, fs::Permissions::from_mode(0o755))
                    .doing("cannot open to others", step)?;
            }
        }
    }
    Ok(())
}

fn fingerprint(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
