//! The gateway under test: a settings file in a temporary folder, the real program, and clients for its sockets.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use rustix::process::Signal;

use crate::{
    binaries,
    curl::{Answer, Curl},
    folder::Folder,
    frames::Frames,
    metrics,
    process::{self, Process},
    raw::Raw,
    upstream::{RawUpstream, Upstream},
    wait,
};

/// Settings to be: what a test leaves out has a plain default.
#[derive(Clone, Debug)]
pub struct Setup {
    servers: Vec<String>,
    listen: String,
    listen_tls: String,
    upstream: String,
    routes: Vec<String>,
    tables: String,
    admin: Option<SocketAddr>,
    threads: usize,
    /// Keys that stand in no table.
    top: String,
    listeners: Vec<String>,
}

/// A running edge. It stops, with everything it started, when the value goes.
#[derive(Debug)]
pub struct Edge {
    process: Process,
    folder: Option<Folder>,
    clear: SocketAddr,
    tls: SocketAddr,
    admin: SocketAddr,
}

/// The settings file's name in the edge's folder.
const SETTINGS: &str = "edge.toml";

impl Setup {
    /// One upstream at this address.
    #[must_use]
    pub fn over_address(address: SocketAddr) -> Self {
        Self::over_server(&format!("http://{address}"))
    }

    /// One upstream with this server, as the settings write it.
    #[must_use]
    pub fn over_server(server: &str) -> Self {
        Self {
            servers: vec![server.to_owned()],
            top: String::new(),
            listen: String::new(),
            listen_tls: String::new(),
            upstream: String::new(),
            routes: Vec::new(),
            tables: String::new(),
            admin: None,
            threads: 2,
            listeners: Vec::new(),
        }
    }

    /// With one more server of the upstream.
    #[must_use]
    pub fn and_server(mut self, address: SocketAddr) -> Self {
        self.servers.push(format!("http://{address}"));
        self
    }

    /// With its admin listener here, and so at the same place after a restart. Without: on a port that the system chooses.
    #[must_use]
    pub fn admin(mut self, address: SocketAddr) -> Self {
        self.admin = Some(address);
        self
    }

    /// With so many workers. Without: two.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// With this before all tables, such as `name_servers = []`.
    #[must_use]
    pub fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self
    }

    /// With this in the table of each listener, such as `proxy_protocol = true`.
    #[must_use]
    pub fn listen(mut self, lines: &str) -> Self {
        self.listen.push_str(lines);
        self
    }

    /// With this in the table of the listener with TLS, such as `hsts = "365d"`.
    #[must_use]
    pub fn listen_tls(mut self, lines: &str) -> Self {
        self.listen_tls.push_str(lines);
        self
    }

    /// With one more listener beside the two that every edge has; `lines` are what its table holds beside the address.
    #[must_use]
    pub fn listener(mut self, address: SocketAddr, lines: &str) -> Self {
        self.listeners.push(format!("[[listen]]\naddress = \"{address}\"\n{lines}\n\n"));
        self
    }

    /// With this in the upstream's table, such as `response_timeout = "1s"`.
    #[must_use]
    pub fn upstream(mut self, lines: &str) -> Self {
        self.upstream.push_str(lines);
        self
    }

    /// With one more route, its `upstream` already said. Without any there is one for everything, with no `cache` table.
    #[must_use]
    pub fn route(mut self, lines: &str) -> Self {
        self.routes.push(lines.into());
        self
    }

    /// With other tables of the settings, such as `[limits.api]`.
    #[must_use]
    pub fn tables(mut self, tables: &str) -> Self {
        self.tables.push_str(tables);
        self.tables.push('\n');
        self
    }

    /// Starts the edge and waits until it is ready.
    #[track_caller]
    #[must_use]
    pub fn start(&self) -> Edge {
        self.start_program(binaries::edge())
    }

    /// As [`start`](Self::start), with another build of the program.
    #[track_caller]
    #[must_use]
    pub fn start_program(&self, program: &Path) -> Edge {
        let folder = Folder::new();
        folder.write(SETTINGS, &self.text());
        Edge::start_program_in(program, folder)
    }

    /// The settings file.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { servers, top, listen, listen_tls, upstream, routes, tables, admin, threads, listeners } =
            self;
        let listeners = listeners.concat();
        let admin = admin.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let everything = vec!["path = \"/*\"".to_owned()];
        let routes = if routes.is_empty() { &everything } else { routes };
        let routes: String = routes
            .iter()
            .enumerate()
            .map(|(number, lines)| {
                format!("[[routes]]\nname = \"route-{number}\"\nupstream = \"test\"\n{lines}\n\n")
            })
            .collect();
        format!(
            r#"threads = {threads}
{top}

[[listen]]
address = "127.0.0.1:0"
{listen}

[[listen]]
address = "127.0.0.1:0"
{listen}
{listen_tls}
tls = {{ certificate = "certs/localhost.pem", key = "certs/localhost.key", local_ca = true }}

{listeners}[admin]
address = "{admin}"

[upstreams.test]
servers = {servers:?}
{upstream}

{tables}
{routes}"#
        )
    }
}

impl Edge {
    /// Settings for an edge over a scripted upstream.
    #[must_use]
    pub fn over(upstream: &Upstream) -> Setup {
        Setup::over_address(upstream.address())
    }

    /// Settings for an edge over an upstream that says anything.
    #[must_use]
    pub fn over_raw(upstream: &RawUpstream) -> Setup {
        Setup::over_address(upstream.address())
    }

    /// Starts the edge with the `edge.toml` in this folder and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    #[must_use]
    pub fn start_in(folder: Folder) -> Self {
        Self::start_program_in(binaries::edge(), folder)
    }

    #[track_caller]
    fn start_program_in(program: &Path, folder: Folder) -> Self {
        let mut command = Command::new(program);
        command.args(["run", "--config", SETTINGS]).current_dir(folder.path());
        // In the environment of everything the edge starts: how the harness knows its own.
        command.env("GATEHOUSE_TEST_FOLDER", folder.path());
        let mut process = Process::start("edge", &mut command);
        let mut address = |what: &str, before: &str| {
            process.wait_for_line(what, |line| {
                // A command's own lines bear its name before a bar, or as a member, and may say the same words.
                let of_command = |start: &str| start.contains(" | ") || start.contains("\"command\":");
                let rest = line.split_once(before).filter(|(start, _)| !of_command(start))?.1;
                let end = rest.find(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter));
                rest[..end.unwrap_or(rest.len())].parse().ok()
            })
        };
        let clear = address("its clear-text address", "listening on http://");
        let tls = address("its TLS address", "listening on https://");
        let admin = address("its admin address", "admin on http://");
        let edge = Self { process, folder: Some(folder), clear, tls, admin };
        wait::until("the edge is ready", || (edge.admin_status("/readyz") == Some(200)).then_some(()));
        edge
    }

    /// Stops it if it still runs and starts another in the same folder.
    #[track_caller]
    #[must_use]
    pub fn restart(mut self) -> Self {
        self.process.stop();
        Self::start_in(self.folder.take().expect("the folder is taken once"))
    }

    /// The clear-text listener.
    #[must_use]
    pub fn clear(&self) -> SocketAddr {
        self.clear
    }

    /// The TLS listener.
    #[must_use]
    pub fn tls(&self) -> SocketAddr {
        self.tls
    }

    /// The admin listener.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The admin listener is elsewhere now.
    pub fn admin_has_moved(&mut self, address: SocketAddr) {
        self.admin = address;
    }

    /// Its working folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("only a restart takes the folder, and the value with it").path()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The local authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder().join("certs/ca.pem")
    }

    /// A request over clear text, HTTP/1.1.
    #[must_use]
    pub fn curl(&self, path: &str) -> Curl {
        Curl::clear(self.clear, path)
    }

    /// A request over TLS, HTTP/1.1.
    #[must_use]
    pub fn curl_tls(&self, path: &str) -> Curl {
        Curl::tls(self.tls, &self.authority(), path)
    }

    /// A request over TLS, HTTP/2.
    #[must_use]
    pub fn curl_h2(&self, path: &str) -> Curl {
        self.curl_tls(path).h2()
    }

    /// The answer to a plain GET over clear text.
    #[track_caller]
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.curl(path).send()
    }

    /// A connection for hand-written bytes.
    #[track_caller]
    #[must_use]
    pub fn raw(&self) -> Raw {
        Raw::connect(self.clear)
    }

    /// A connection for hand-written HTTP/2 frames.
    #[track_caller]
    #[must_use]
    pub fn frames(&self) -> Frames {
        Frames::open(Raw::connect_tls(self.tls, &self.authority(), "h2"))
    }

    /// Status of an admin path; `None` when the admin listener does not answer.
    #[must_use]
    pub fn admin_status(&self, path: &str) -> Option<u16> {
        let mut raw = Raw::try_connect(self.admin)?;
        raw.try_send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        raw.answer_unless_closed().map(|answer| answer.status)
    }

    /// What it counts itself: `/metrics` as text.
    ///
    /// # Panics
    /// When the admin listener does not answer.
    #[track_caller]
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut raw = Raw::connect(self.admin);
        raw.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        String::from_utf8(raw.answer().body).expect("metrics are text")
    }

    /// The sum of a metric over its labels.
    ///
    /// # Panics
    /// When there is no such metric.
    #[track_caller]
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let page = self.metrics();
        let values = metrics::values::<u64>(&page, name);
        assert!(!values.is_empty(), "no {name} in\n{page}");
        values.iter().sum()
    }

    /// Gets `path` until the answer comes from the cache.
    #[track_caller]
    pub fn until_hit(&self, path: &str) -> Answer {
        wait::until(&format!("{path} is answered from the cache"), || {
            Some(self.get(path)).filter(Answer::is_hit)
        })
    }

    /// The same over TLS, HTTP/2.
    #[track_caller]
    pub fn until_hit_h2(&self, path: &str) -> Answer {
        wait::until(&format!("{path} is answered from the cache"), || {
            Some(self.curl_h2(path).send()).filter(Answer::is_hit)
        })
    }

    /// The first process of this program that runs under the edge's folder.
    #[must_use]
    pub fn running(&self, program: &str) -> Option<u32> {
        let is_it = |command: &str| {
            let first = command.split_whitespace().next().unwrap_or_default();
            Path::new(first).file_name().is_some_and(|name| name == program)
        };
        process::left_running(self.folder()).into_iter().find(|(_, command)| is_it(command)).map(|(id, _)| id)
    }

    /// Puts other settings in place and sends SIGHUP; returns the line that says what became of it.
    #[track_caller]
    pub fn reload(&mut self, settings: &str) -> String {
        std::fs::write(self.folder().join(SETTINGS), settings).expect("the temporary folder is ours");
        let is_verdict = |line: &&String| line.contains("reloaded") || line.contains("reload refused");
        let before = self.process.lines().iter().filter(is_verdict).count();
        self.process.signal(Signal::HUP);
        wait::until("the edge says what became of the reload", || {
            self.process.lines().iter().filter(is_verdict).nth(before).cloned()
        })
    }

    /// Puts other settings in place and runs `edge reload`: whether it succeeded, and what it printed on both outputs.
    ///
    /// # Panics
    /// When the command cannot be run.
    #[track_caller]
    pub fn reload_command(&self, settings: &str) -> (bool, String) {
        std::fs::write(self.folder().join(SETTINGS), settings).expect("the temporary folder is ours");
        // The settings leave the choice of the port to the system.
        let admin = self.admin.to_string();
        let arguments = ["reload", "--config", SETTINGS, "--admin", &admin];
        let output = Command::new(binaries::edge()).args(arguments).current_dir(self.folder()).output();
        let output = output.expect("the program runs");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).expect("it prints text"))
    }

    /// Kills it, as a power cut does: nothing is drained, nothing is said.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Sends SIGTERM and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.process.stop()
    }

    /// Asserts that it ended well and that nothing it started still runs.
    ///
    /// # Panics
    /// When a process is left.
    #[track_caller]
    pub fn assert_stopped_cleanly(&mut self) {
        let status = self.process.wait();
        assert!(status.success(), "the edge ended with {status}");
        assert_nothing_left(self.folder());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            // Stopped before the folder goes; a hang is reported by `Process` itself.
            self.process.signal(Signal::TERM);
            let ended = wait::until_within(wait::PATIENCE, || self.process.ended());
            if ended.is_some() && !std::thread::panicking() {
                assert_nothing_left(self.folder());
            }
        }
    }
}

/// Asserts that no process started under `folder` runs any more.
///
/// # Panics
/// When one does.
#[track_caller]
pub fn assert_nothing_left(folder: &Path) {
    let left = process::left_running(folder);
    assert!(left.is_empty(), "still running: {left:#?}");
}
