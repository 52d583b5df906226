//! Standard output and standard error: what the edge writes there, and that nothing depends on who reads it.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, Read as _, Write as _, pipe},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
};

use gatehouse_tests::{
    address, binaries,
    curl::{Answer, Curl},
    edge::Edge,
    folder::Folder,
    metrics,
    process::Process,
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};
use rustix::{
    io::ioctl_fionbio,
    process::{Pid, Signal, kill_process},
};

/// An edge whose outputs are the test's own affair.
struct Unread {
    child: Child,
    clear: SocketAddr,
    admin: SocketAddr,
    folder: Folder,
    settings: String,
}

impl Unread {
    /// Starts it with these outputs and waits until it is ready.
    fn start(upstream: &Upstream, stdout: Stdio, stderr: Stdio) -> Self {
        let (clear, admin) = (address::own(), address::own());
        let settings = Edge::over(upstream).admin(admin).text();
        let settings = settings.replacen("127.0.0.1:0", &clear.to_string(), 1);
        let folder = Folder::new();
        folder.write("edge.toml", &settings);
        let mut command = Command::new(binaries::edge());
        command.args(["run", "--config", "edge.toml"]).current_dir(folder.path());
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        let mut edge = Self { child, clear, admin, folder, settings };
        wait::until("it is ready", || {
            assert_eq!(edge.child.try_wait().unwrap(), None, "it ended at the start");
            edge.admin("/readyz").filter(|(status, _)| *status == 200)
        });
        edge
    }

    fn admin(&self, path: &str) -> Option<(u16, String)> {
        let mut raw = Raw::try_connect(self.admin)?;
        raw.try_send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let answer = raw.answer_unless_closed()?;
        Some((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    fn get(&self, path: &str) -> Answer {
        Curl::clear(self.clear, path).send()
    }

    fn metric(&self, name: &str) -> u64 {
        metrics::values::<u64>(&self.admin("/metrics").unwrap().1, name).iter().sum()
    }

    /// Puts a route for one path alone in force, and waits for it.
    fn reload(&self) {
        assert_eq!(self.get("/other").status, 200);
        self.folder.write("edge.toml", &self.settings.replace("path = \"/*\"", "path = \"/only\""));
        self.signal(Signal::HUP);
        wait::until("the new settings are in force", || (self.get("/other").status == 404).then_some(()));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    fn ended(&mut self) -> ExitStatus {
        wait::until("it ended", || self.child.try_wait().unwrap())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // Only what still runs after a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn upstream() -> Upstream {
    Upstream::start(|_| Reply::ok("text").cache_control("no-store"))
}

/// A pipe into which not one octet more goes.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// The first line after the reader had left was the last: a panic with exit code 101.
#[test]
fn a_log_whose_reader_has_left_ends_nothing() {
    let upstream = upstream();
    let ((from_out, out), (from_err, err)) = (pipe().unwrap(), pipe().unwrap());
    let mut edge = Unread::start(&upstream, out.into(), err.into());
    drop((from_out, from_err));
    edge.reload();
    assert_eq!(edge.get("/only").status, 200);
    wait::until("lost lines are counted", || {
        let lost = ["gatehouse_edge_log_lines_dropped_total", "gatehouse_edge_own_log_lines_dropped_total"];
        lost.iter().all(|name| edge.metric(name) > 0).then_some(())
    });
    assert!(edge.stop().success());
}

/// It did not start: the first line of its own log killed it.
#[test]
fn a_log_on_a_full_disk_keeps_nothing_from_starting() {
    let upstream = upstream();
    let mut edge = Unread::start(&upstream, full_disk(), full_disk());
    assert_eq!(edge.get("/").text(), "text");
    edge.reload();
    wait::until("lost lines are counted", || {
        (edge.metric("gatehouse_edge_own_log_lines_dropped_total") > 0).then_some(())
    });
    assert!(edge.stop().success());
}

/// "draining" could not be said, and the main thread's panic cut the answer after 3 of 10 octets.
#[test]
fn a_stop_that_cannot_be_told_still_finishes_what_has_begun() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| match seen.target.as_str() {
        "/slow" => Reply::streamed().cache_control("no-store").then("abc").then_wait(&held).then("defghij"),
        _ => Reply::ok("text"),
    });
    let (from_err, err) = pipe().unwrap();
    let mut edge = Unread::start(&upstream, Stdio::null(), err.into());
    drop(from_err);
    let client = Curl::clear(edge.clear, "/slow").start();
    upstream.wait_for(1);
    edge.signal(Signal::TERM);
    wait::until("it is leaving", || {
        edge.admin("/readyz").is_none_or(|(status, _)| status != 200).then_some(())
    });
    gate.open();
    assert_eq!(client.answer().text(), "abcdefghij");
    assert!(edge.ended().success());
}

/// It said that it had drained, and waited for its reader for ever.
#[test]
fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let upstream = upstream();
    let ((_from_out, out), (_from_err, err)) = (full_pipe(), full_pipe());
    let mut edge = Unread::start(&upstream, out.into(), err.into());
    for _ in 0..10 {
        assert_eq!(edge.get("/").status, 200);
    }
    edge.reload();
    assert!(edge.stop().success());
}

/// What is not stuck is not cut short: the last lines are there when the process has gone.
#[test]
fn the_last_lines_are_written_before_the_end() {
    let upstream = upstream();
    let ((mut from_out, out), (mut from_err, err)) = (pipe().unwrap(), pipe().unwrap());
    let mut edge = Unread::start(&upstream, out.into(), err.into());
    assert_eq!(edge.get("/last").status, 200);
    assert!(edge.stop().success());
    let (mut access, mut own) = (String::new(), String::new());
    from_out.read_to_string(&mut access).unwrap();
    from_err.read_to_string(&mut own).unwrap();
    assert!(access.contains("\"/last\""), "{access}");
    assert!(own.contains("drained"), "{own}");
}

/// Of two streams only one was JSON: whoever collects them had to read two languages.
#[test]
fn json_is_the_start_the_errors_and_what_commands_print() {
    let upstream = upstream();
    let run = "[commands.talker]\nrun = [\"sh\", \"-c\", 'echo a \\\"quoted\\\" word; exec sleep 1000']\nready = \"tcp\"\n";
    let setup = Edge::over(&upstream).tables(run);
    let folder = Folder::new();
    folder.write("edge.toml", &setup.text());
    let mut command = Command::new(binaries::edge());
    command.args(["run", "--config", "edge.toml"]).current_dir(folder.path());
    let mut edge = Process::start("edge", &mut command);
    edge.wait_for_line("what its command says", |line| line.contains("quoted").then_some(()));
    folder.write("edge.toml", "threads = -1");
    edge.signal(Signal::HUP);
    edge.wait_for_line("the refusal", |line| line.contains("reload refused").then_some(()));
    assert!(edge.stop().success());
    let lines = edge.lines();
    let parsed: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let said = parsed.iter().find(|line| line["command"] == "talker.1").unwrap();
    assert_eq!(said["message"], "a \"quoted\" word");
    assert!(parsed.iter().all(|line| line["time"].is_string() && line["level"].is_string()), "{lines:#?}");
}

/// The reason for which it did not start was text, whatever `format` said, and told the system's error twice.
#[test]
fn why_it_does_not_start_is_json_too_and_is_said_once() {
    let upstream = upstream();
    let folder = Folder::new();
    let tls =
        "tls = { certificate = \"certs/localhost.pem\", key = \"certs/localhost.key\", local_ca = true }";
    let missing = "tls = { certificate = \"none.pem\", key = \"none.key\" }";
    folder.write("edge.toml", &Edge::over(&upstream).text().replace(tls, missing));
    let mut command = Command::new(binaries::edge());
    command.args(["run", "--config", "edge.toml"]).current_dir(folder.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let line: serde_json::Value = serde_json::from_str(said.trim()).unwrap_or_else(|_| panic!("{said}"));
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("none.pem"), "{message}");
    assert_eq!(message.matches("No such file or directory").count(), 1, "{message}");
}
