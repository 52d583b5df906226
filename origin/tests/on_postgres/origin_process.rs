//! The `origin` binary as a process, and the private server that it starts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

use crate::PATIENCE;

/// The binary under test.
pub(crate) const ORIGIN: &str = env!("CARGO_BIN_EXE_origin");

/// A running `origin serve`; killed when dropped, and its server with it.
pub(crate) struct Origin {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// For the operator's programs.
    pub(crate) admin: String,
    data: PathBuf,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Origin {
    pub(crate) fn command(data: &Path) -> Command {
        let mut command = Command::new(ORIGIN);
        command.env("PORT", "0").env("ADMIN_PORT", "0").env_remove("DATABASE_URL").arg("--data").arg(data);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Starts it and waits for the line that names its address.
    pub(crate) async fn serve(data: &Path) -> Self {
        let mut command = Self::command(data);
        command.stderr(Stdio::inherit());
        Self::serve_by(command, data).await
    }

    /// The same with a command that has arguments and an environment of its own.
    pub(crate) async fn serve_by(mut command: Command, data: &Path) -> Self {
        let mut child = command.arg("serve").spawn().expect("origin starts");
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut named = async |prefix: &str| {
            let line = tokio::time::timeout(PATIENCE, output.next_line())
                .await
                .expect("origin says where it listens in time");
            let line = line.expect("UTF-8").expect("origin listens before its output ends");
            line.strip_prefix(prefix).expect("the line names an address").to_owned()
        };
        let admin = named("origin: metrics on http://").await;
        let address = named("origin: listening on http://").await;
        Self { child, address, admin, data: data.to_owned(), _output: output }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().expect("not waited for yet").try_into().expect("process ids are small")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("not zero");
        kill_process(pid, signal).expect("origin is there");
    }

    /// The status of a GET, over a connection of its own.
    pub(crate) async fn status(&self, path: &str) -> u16 {
        Self::status_at(&self.address, path).await
    }

    pub(crate) async fn status_at(address: &str, path: &str) -> u16 {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut response = String::new();
            stream.read_to_string(&mut response).await?;
            Ok::<_, std::io::Error>(response)
        };
        let response =
            tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time").expect("an answer");
        response.split(' ').nth(1).expect("a status line").parse().expect("a status")
    }

    /// Asks until the answer is 200: each attempt waits for a connection to the database by itself.
    pub(crate) async fn recovers(&self) {
        let attempts = async { while self.status("/api/products").await != 200 {} };
        tokio::time::timeout(PATIENCE, attempts).await.expect("origin recovers in time");
    }
}

impl Drop for Origin {
    /// The folder is removed next: its server must have written its last.
    fn drop(&mut self) {
        let Some(pid) = self.child.id() else { return };
        let owned = owner_and_server(&self.data).filter(|(owner, _)| u32::try_from(*owner) == Ok(pid));
        let _ = self.child.start_kill();
        if let Some((_, server)) = owned {
            wait_until_gone(server);
        }
    }
}

/// Resolves when the process has ended.
pub(crate) async fn gone(pid: i32) {
    tokio::task::spawn_blocking(move || wait_until_gone(pid)).await.expect("the process ends in time");
}

fn wait_until_gone(pid: i32) {
    // No such process: it has ended already.
    let Ok(handle) = pidfd_open(Pid::from_raw(pid).expect("not zero"), PidfdFlags::empty()) else { return };
    let patience = Timespec::try_from(PATIENCE).expect("a minute");
    let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&patience));
    assert_eq!(ended, Ok(1), "process {pid} has not ended");
}

/// The origin that has started the private server, and the server itself.
pub(crate) fn owner_and_server(data: &Path) -> Option<(i32, i32)> {
    let server = postmaster(data)?;
    let stat = fs::read_to_string(format!("/proc/{server}/stat")).ok()?;
    // `pid (name) state parent …`
    Some((stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?, server))
}

/// The process id of the private server of a data folder, from PostgreSQL's own file.
pub(crate) fn postmaster(data: &Path) -> Option<i32> {
    process_of(&cluster(data))
}

/// The same of a cluster.
pub(crate) fn process_of(cluster: &Path) -> Option<i32> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    text.lines().next()?.parse().ok()
}

pub(crate) fn cluster(data: &Path) -> PathBuf {
    data.join("postgres/cluster")
}
