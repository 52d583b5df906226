//! Commands as they really run: real processes, started through the real `edge supervised`.
//!
//! The programs are this test's own binary, started again with [`ROLE`] set (see [`a_program_of_these_tests`]).
#![expect(clippy::disallowed_macros, reason = "a test prints what it has counted or is asked for")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use edge::{
    settings::Command,
    upstream::{
        address::Address,
        supervise::{Endpoints, Launcher, Supervisor},
    },
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, unix::AsyncFd},
    net::TcpStream,
    sync::mpsc,
};

/// What [`a_program_of_these_tests`] is to be.
const ROLE: &str = "SUPERVISE_TEST_ROLE";

#[tokio::test]
async fn a_command_runs_while_it_is_wanted_and_no_longer() {
    let stage = Stage::new();
    let supervisor = stage.start(&[server("origin")]);
    let origin = supervisor.roster().get("origin").unwrap();
    let address = one_ready(&origin).await;
    let pid = ask_pid(address).await;

    within(supervisor.stop()).await;
    assert!(origin.snapshot().is_empty());
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "stopped and reaped");
    assert_eq!(origin.restarts(), 0);
}

#[tokio::test]
async fn an_instance_that_exits_is_started_again() {
    let stage = Stage::new();
    let supervisor = stage.start(&[server("origin")]);
    let origin = supervisor.roster().get("origin").unwrap();
    let address = one_ready(&origin).await;
    let pid = ask_pid(address).await;

    let _ = ask(address, "/exit").await;
    within(origin.until(<[_]>::is_empty)).await;
    let address = one_ready(&origin).await;
    assert_ne!(ask_pid(address).await, pid);
    assert_eq!(origin.restarts(), 1);
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn output_carries_the_instances_name() {
    let mut stage = Stage::new();
    let mut command = shell("origin", r"echo out; printf 'err\nunfinished' >&2; exec sleep 1000");
    command.instances = 2;
    let supervisor = stage.start(&[command]);
    for expected in ["origin.1 | out", "origin.1 | err", "origin.2 | out", "origin.2 | err"] {
        stage.line(|line| line == expected).await;
    }
    within(supervisor.stop()).await;
    stage.line(|line| line == "origin.1 | unfinished").await;
}

#[tokio::test]
async fn every_instance_has_a_port_of_its_own() {
    let stage = Stage::new();
    let mut commands = [server("one"), server("two")];
    commands[0].instances = 3;
    let supervisor = stage.start(&commands);
    let (one, two) = (supervisor.roster().get("one").unwrap(), supervisor.roster().get("two").unwrap());
    let mut addresses: BTreeSet<_> =
        within(one.until(|ready| ready.len() == 3)).await.iter().filter_map(Address::socket).collect();
    addresses.insert(one_ready(&two).await);
    assert_eq!(addresses.len(), 4);
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn a_change_of_instances_restarts_none() {
    let stage = Stage::new();
    let mut command = server("origin");
    let mut supervisor = stage.start(&[command.clone()]);
    let origin = supervisor.roster().get("origin").unwrap();
    let pid = ask_pid(one_ready(&origin).await).await;

    command.instances = 3;
    supervisor.apply(&by_name(&[command.clone()]));
    within(origin.until(|ready| ready.len() == 3)).await;
    command.instances = 1;
    supervisor.apply(&by_name(&[command]));
    let left = within(origin.until(|ready| ready.len() == 1)).await;
    assert_eq!(ask_pid(left[0].socket().unwrap()).await, pid);
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn a_changed_command_is_replaced_only_when_the_new_one_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("open");
    let mut stage = Stage::new();
    let mut command = server("origin");
    let mut supervisor = stage.start(&[command.clone()]);
    let origin = supervisor.roster().get("origin").unwrap();
    let old = one_ready(&origin).await;
    let old_pid = ask_pid(old).await;
    stage.line(|line| line.contains("listening")).await;

    command.environment.insert("READY_FILE".to_owned(), gate.display().to_string());
    supervisor.apply(&by_name(&[command]));
    stage.line(|line| line.contains("not ready")).await;
    assert_eq!(
        *origin.snapshot(),
        [old.into()],
        "the new one was asked and is not ready: the old one serves"
    );

    fs::write(&gate, "").unwrap();
    let new = within(origin.until(|ready| ready.iter().any(|address| *address != old.into()))).await;
    assert!(new.len() <= 2);
    within(origin.until(|ready| !ready.contains(&old.into()))).await;
    within(gone(old_pid)).await;
    assert_eq!(origin.snapshot().len(), 1);
    assert_eq!(origin.restarts(), 0, "a reload is no restart");
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn a_removed_command_stops_and_the_others_do_not_notice() {
    let stage = Stage::new();
    let mut supervisor = stage.start(&[server("stays"), server("leaves")]);
    let (stays, leaves) =
        (supervisor.roster().get("stays").unwrap(), supervisor.roster().get("leaves").unwrap());
    let (stays_pid, leaves_pid) =
        (ask_pid(one_ready(&stays).await).await, ask_pid(one_ready(&leaves).await).await);

    supervisor.apply(&by_name(&[server("stays"), server("comes")]));
    assert!(supervisor.roster().get("leaves").is_none());
    within(gone(leaves_pid)).await;
    one_ready(&supervisor.roster().get("comes").unwrap()).await;
    assert_eq!(ask_pid(one_ready(&stays).await).await, stays_pid);
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn stopping_takes_the_whole_process_group_along() {
    let mut stage = Stage::new();
    let supervisor = stage.start(&[shell("origin", "sleep 1000 & echo child $!; wait")]);
    let child = stage.line(|line| line.contains("child")).await;
    let child = child.rsplit(' ').next().unwrap().parse().unwrap();
    within(supervisor.stop()).await;
    within(gone(child)).await;
}

#[tokio::test]
async fn what_a_dead_instance_left_behind_is_killed_before_the_next_start() {
    let mut stage = Stage::new();
    let script = "(trap '' TERM; exec sleep 1000) & echo child $!; exit 7";
    let supervisor = stage.start(&[shell("origin", script)]);
    let first = stage.line(|line| line.contains("child")).await;
    within(gone(first.rsplit(' ').next().unwrap().parse().unwrap())).await;
    stage.line(|line| line.contains("child")).await;
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn an_instance_that_ignores_sigterm_is_killed() {
    let mut stage = Stage::new();
    let mut command = shell("origin", "trap '' TERM; echo deaf $$; while :; do sleep 1000; done");
    command.stop_timeout = Duration::from_millis(100);
    let supervisor = stage.start(&[command]);
    let line = stage.line(|line| line.contains("deaf")).await;
    within(supervisor.stop()).await;
    within(gone(line.rsplit(' ').next().unwrap().parse().unwrap())).await;
}

#[tokio::test]
async fn an_instance_that_is_not_ready_in_time_is_started_again() {
    let mut stage = Stage::new();
    let mut command = server("origin");
    command.environment.insert("READY_FILE".to_owned(), "/no/such/file".to_owned());
    command.ready_timeout = Duration::from_millis(300);
    let supervisor = stage.start(&[command]);
    let origin = supervisor.roster().get("origin").unwrap();
    for _ in 0..2 {
        stage.line(|line| line.contains("listening")).await;
    }
    assert!(origin.restarts() >= 1);
    assert!(origin.snapshot().is_empty());
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let stage = Stage::new();
    let mut command = server("origin");
    command.ready = None;
    command.environment.insert("READY_FILE".to_owned(), "/no/such/file".to_owned());
    let supervisor = stage.start(&[command]);
    one_ready(&supervisor.roster().get("origin").unwrap()).await;
    within(supervisor.stop()).await;
}

/// Once ready, an instance was never looked at again: a stopped one kept its share of the requests for ever. The system
/// accepts connections for it, so that a connection alone shows nothing.
#[tokio::test]
async fn a_stopped_instance_gets_no_requests_and_is_then_started_again() {
    for ready in [None, Some("/ready".to_owned())] {
        let mut stage = Stage::new();
        let mut command = server("origin");
        command.ready = ready;
        command.ready_timeout = Duration::from_secs(2);
        command.stop_timeout = Duration::from_millis(100);
        let supervisor = stage.start(&[command]);
        let origin = supervisor.roster().get("origin").unwrap();
        let pid = ask_pid(one_ready(&origin).await).await;
        stage.line(|line| line.contains("listening")).await;
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), rustix::process::Signal::STOP).unwrap();
        within(origin.until(<[_]>::is_empty)).await;
        let again = ask_pid(one_ready(&origin).await).await;
        assert_ne!(again, pid);
        assert!(origin.restarts() >= 1);
        within(gone(pid)).await;
        within(supervisor.stop()).await;
    }
}

#[tokio::test]
async fn an_instance_that_says_it_is_not_ready_gets_no_requests_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("open");
    fs::write(&gate, "").unwrap();
    let stage = Stage::new();
    let mut command = server("origin");
    command.environment.insert("READY_FILE".to_owned(), gate.display().to_string());
    let supervisor = stage.start(&[command]);
    let origin = supervisor.roster().get("origin").unwrap();
    let address = one_ready(&origin).await;
    fs::remove_file(&gate).unwrap();
    within(origin.until(<[_]>::is_empty)).await;
    fs::write(&gate, "").unwrap();
    assert_eq!(one_ready(&origin).await, address, "the same instance");
    assert_eq!(origin.restarts(), 0, "it answers: it knows better than the edge");
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn an_argument_may_name_the_port() {
    let mut stage = Stage::new();
    let supervisor = stage.start(&[with_run(
        "origin",
        &["sh", "-c", "echo got $0 and $PORT; exec sleep 1000", "--port={port}"],
    )]);
    let line = stage.line(|line| line.contains("got")).await;
    let (got, port) = line.split_once(" and ").unwrap();
    assert_eq!(got, format!("origin.1 | got --port={port}"));
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn a_command_runs_in_its_directory_with_its_environment() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::new();
    let mut command = shell("origin", "echo $(pwd -P) $COLOUR $PORT; exec sleep 1000");
    command.directory = Some(folder.path().to_owned());
    command.environment.insert("COLOUR".to_owned(), "green".to_owned());
    let supervisor = stage.start(&[command]);
    let line = stage.line(|line| line.contains("green")).await;
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(Path::new(words[2]), folder.path().canonicalize().unwrap());
    assert!(words[4].parse::<u16>().unwrap() > 0);
    within(supervisor.stop()).await;
}

#[tokio::test]
async fn a_killed_edge_leaves_no_instance_behind() {
    let (mut edge, pid) = started_edge("edge").await;
    edge.start_kill().unwrap();
    within(gone(pid)).await;
}

/// The kernel told the instance alone: what it had started went on for ever.
#[tokio::test]
async fn what_an_instance_has_started_does_not_outlive_a_killed_edge_either() {
    let (mut edge, grandchild) = started_edge("edge of a shell").await;
    edge.start_kill().unwrap();
    within(gone(grandchild)).await;
}

/// This test's own binary as an edge in this role, and the process that its command says is up.
async fn started_edge(role: &str) -> (tokio::process::Child, i32) {
    let mut edge = tokio::process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_program_of_these_tests", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(edge.stdout.take().unwrap()).lines();
    let pid = within(async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the edge ended before its instance was up");
            if let Some((_, pid)) = line.split_once("listening as ") {
                return pid.parse().unwrap();
            }
        }
    })
    .await;
    (edge, pid)
}

#[tokio::test]
async fn supervised_runs_nothing_for_a_parent_that_is_gone() {
    let run = |parent: u32| {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_edge"))
            .args(["supervised", "--parent", &parent.to_string(), "--", "sh", "-c", "echo ran"])
            .output()
    };
    assert_eq!(within(run(std::process::id())).await.unwrap().stdout, b"ran\n");
    let orphan = within(run(1_u32.max(std::process::id() + 1))).await.unwrap();
    assert_eq!((orphan.status.code(), orphan.stdout.as_slice()), (Some(126), &b""[..]));
}

/// No test of its own: the programs that the tests above run.
#[test]
fn a_program_of_these_tests() {
    match env::var(ROLE).as_deref() {
        Ok("server") => serve(),
        Ok(role @ ("edge" | "edge of a shell")) => {
            // Deaf to the signal that its parent is sent.
            let grandchild = "(trap '' TERM; exec sleep 1000) & echo listening as $!; wait";
            let mut command = if role == "edge" { server("origin") } else { shell("origin", grandchild) };
            command.stop_timeout = Duration::from_millis(200);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let launcher = Launcher {
                program: env!("CARGO_BIN_EXE_edge").into(),
                output: Arc::new(|name, line| {
                    let line = [name.as_bytes(), b" | ", line, b"\n"].concat();
                    let _ = std::io::stdout().write_all(&line);
                }),
            };
            runtime.block_on(async {
                let _supervisor = Supervisor::start(launcher, &by_name(&[command]));
                std::future::pending::<()>().await;
            });
        }
        _ => {}
    }
}

/// `/ready` answers 200, or 503 while `READY_FILE` is set and does not exist; `/pid` tells it; `/exit` ends the program.
fn serve() {
    let listener = TcpListener::bind(("127.0.0.1", env::var("PORT").unwrap().parse().unwrap())).unwrap();
    println!("\nlistening as {}", std::process::id());
    let gate = env::var_os("READY_FILE");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            head.push(byte[0]);
        }
        let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
        let status = match path.as_str() {
            "/exit" => std::process::exit(3),
            "/ready" if gate.as_ref().is_some_and(|gate| !Path::new(gate).exists()) => {
                println!("not ready");
                "503 Service Unavailable"
            }
            _ => "200 OK",
        };
        let body = std::process::id();
        let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}");
    }
}

/// A supervisor's surroundings: the real edge program, and its output line by line.
struct Stage {
    /// Lines that came while another was waited for: instances write in any order.
    passed: Vec<String>,
    lines: mpsc::UnboundedReceiver<String>,
    launcher: Launcher,
}

impl Stage {
    fn new() -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let launcher = Launcher {
            program: env!("CARGO_BIN_EXE_edge").into(),
            output: Arc::new(move |name, line| {
                let _ = sender.send(format!("{name} | {}", String::from_utf8_lossy(line)));
            }),
        };
        Self { passed: Vec::new(), lines, launcher }
    }

    fn start(&self, commands: &[Command]) -> Supervisor {
        Supervisor::start(self.launcher.clone(), &by_name(commands))
    }

    /// The first line that `wanted` accepts and no earlier call has returned.
    async fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        if let Some(place) = self.passed.iter().position(|line| wanted(line)) {
            return self.passed.remove(place);
        }
        within(async {
            loop {
                let line = self.lines.recv().await.expect("the stage holds a sender");
                if wanted(&line) {
                    return line;
                }
                self.passed.push(line);
            }
        })
        .await
    }
}

fn server(name: &str) -> Command {
    let program = env::current_exe().unwrap().display().to_string();
    let mut command = with_run(name, &[&program, "--exact", "a_program_of_these_tests", "--nocapture"]);
    command.ready = Some("/ready".to_owned());
    command.environment.insert(ROLE.to_owned(), "server".to_owned());
    command
}

fn shell(name: &str, script: &str) -> Command {
    with_run(name, &["sh", "-c", script])
}

fn with_run(name: &str, run: &[&str]) -> Command {
    Command {
        ready_interval: Duration::from_millis(50),
        stop_timeout: Duration::from_secs(60),
        ..Command::new(name, run.iter().map(|word| (*word).to_owned()).collect())
    }
}

fn by_name(commands: &[Command]) -> BTreeMap<Arc<str>, Arc<Command>> {
    commands.iter().map(|command| (Arc::clone(&command.name), Arc::new(command.clone()))).collect()
}

async fn one_ready(endpoints: &Endpoints) -> SocketAddr {
    within(endpoints.until(|ready| !ready.is_empty())).await[0].socket().unwrap()
}

async fn ask_pid(address: SocketAddr) -> i32 {
    let answer = within(ask(address, "/pid")).await.unwrap();
    answer.rsplit_once("\r\n\r\n").unwrap().1.parse().unwrap()
}

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Waits until a process has ended, whoever its parent is.
async fn gone(pid: i32) {
    if let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::NONBLOCK) {
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that others may close; this one is owned"
        )]
        let process = AsyncFd::new(process);
        let _ = process.unwrap().readable().await.unwrap();
    }
}

/// A bound on what would otherwise hang; no test measures time.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("came to nothing in a minute")
}
