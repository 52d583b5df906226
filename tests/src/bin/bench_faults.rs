//! `make bench-faults`: what clients notice when a server behind the edge goes wrong; the same behind HAProxy and nginx, in one run.
//!
//! Three servers stand behind a proxy under a steady load of GETs and POSTs, every answer checked. One server (or all, or the
//! proxy by a reload) is at fault from the third second to the eighth, and the load goes on for three more. Each proxy is set
//! to find faults out and to send requests again as it best can: health checks each half second, a second for an answer, five
//! failures put a server aside, and only GETs are sent twice.

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use gatehouse_tests::{
    address, binaries,
    edge::{Edge, Setup},
    faulty::{Behaviour, Faulty},
    folder::Folder,
    process::Process,
    steady::{Outcome, Plan, Steady, Verdict},
    tool, wait,
};
use rustix::process::Signal;

const USAGE: &str =
    "usage: bench_faults [--edge PROGRAM] [--only FAULT] [--proxy edge|haproxy|nginx] [--rate N]";
const NAMES: [&str; 3] = ["one", "two", "three"];
/// Seconds before the fault, with it, and after it.
const PHASES: [usize; 3] = [3, 5, 3];
/// Seconds of the fault after which a proxy ought to have found it out.
const SETTLES: usize = 3;
/// An answer that takes so long was waited for.
const LATE: Duration = Duration::from_millis(500);
const CONNECTIONS: usize = 20;
const POST_EVERY: usize = 5;
/// Reloads a second.
const RELOADS: usize = 5;

/// What goes wrong, how it begins and how it ends.
struct Fault {
    name: &'static str,
    begin: fn(&mut Scene),
    end: fn(&mut Scene),
}

const FAULTS: [Fault; 12] = [
    Fault { name: "killed", begin: |scene| scene.one().kill(), end: |scene| scene.one().start_again() },
    Fault { name: "hung", begin: |scene| scene.one().hang(), end: |scene| scene.one().go_on() },
    behaving("slow", |scene| scene.one().behave(Behaviour::Slow)),
    behaving("refusing", |scene| scene.one().behave(Behaviour::Refusing)),
    behaving("resetting", |scene| scene.one().behave(Behaviour::Resetting)),
    behaving("garbage", |scene| scene.one().behave(Behaviour::Garbage)),
    behaving("503", |scene| scene.one().behave(Behaviour::Overloaded)),
    behaving("503, check ok", |scene| scene.one().behave(Behaviour::Erring)),
    behaving("only check bad", |scene| scene.one().behave(Behaviour::Unwell)),
    behaving("all checks bad", |scene| scene.all(Behaviour::Unwell)),
    Fault {
        name: "all killed",
        begin: |scene| scene.servers.iter_mut().for_each(Faulty::kill),
        end: |scene| scene.servers.iter_mut().for_each(Faulty::start_again),
    },
    Fault { name: "reloads", begin: |scene| scene.reloads = true, end: |scene| scene.reloads = false },
];

/// A fault that ends with all servers behaving well.
const fn behaving(name: &'static str, begin: fn(&mut Scene)) -> Fault {
    Fault { name, begin, end: |scene| scene.all(Behaviour::Good) }
}

/// The servers, and whether the proxy is reloaded.
struct Scene {
    servers: [Faulty; 3],
    reloads: bool,
}

impl Scene {
    /// The one that goes wrong where one does.
    fn one(&mut self) -> &mut Faulty {
        &mut self.servers[1]
    }

    fn all(&self, behaviour: Behaviour) {
        self.servers.iter().for_each(|server| server.behave(behaviour));
    }
}

fn main() -> Result<()> {
    let options = Options::read()?;
    let [before, during, after] = PHASES;
    println!("edge: {}", options.edge.display());
    println!(
        "{} requests a second over {CONNECTIONS} connections, every {POST_EVERY}th a POST; {before} s before, {during} s during and {after} s after a fault;\n\
                  {} requests each. after: of those lost, how many after the end of the fault; late: right, but after {} ms;\n\
         twice: POSTs that servers got twice; asked: all that they got; settled: in the last {} s of the fault\n",
        options.rate,
        options.rate * PHASES.iter().sum::<usize>(),
        LATE.as_millis(),
        during - SETTLES,
    );
    let titles = ["GETs lost", "POSTs lost", "after", "late", "wrong", "twice", "asked"];
    let [gets, posts, after, late, wrong, twice, asked] = titles;
    println!(
        "{:25}{gets:>10}{posts:>11}{after:>7}{late:>6}{wrong:>7}{twice:>7}{asked:>7}  \
         p50 ms before/during/after p99 ms before/during/settled/after",
        ""
    );
    for fault in FAULTS.iter().filter(|fault| options.only.as_deref().is_none_or(|only| only == fault.name)) {
        for (name, start) in PROXIES {
            if options.proxy.as_deref().is_none_or(|only| only == name) {
                run(&options, fault, name, start);
            }
        }
        println!();
    }
    Ok(())
}

struct Options {
    edge: PathBuf,
    only: Option<String>,
    proxy: Option<String>,
    rate: usize,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self { edge: PathBuf::new(), only: None, proxy: None, rate: 200 };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            match name.as_str() {
                "--edge" => options.edge = value.into(),
                "--only" => options.only = Some(value),
                "--proxy" => options.proxy = Some(value),
                "--rate" => options.rate = value.parse().context(USAGE)?,
                _ => bail!(USAGE),
            }
        }
        if options.edge.as_os_str().is_empty() {
            options.edge = binaries::edge().into();
        }
        options.edge =
            options.edge.canonicalize().with_context(|| format!("no {}", options.edge.display()))?;
        Ok(options)
    }
}

/// One fault behind one proxy, and its line of the table.
fn run(options: &Options, fault: &Fault, name: &str, start: Start) {
    let mut scene = Scene { servers: NAMES.map(Faulty::start), reloads: false };
    let mut proxy = start(options, scene.servers.each_ref().map(Faulty::address));
    let ends = PHASES.iter().scan(0, |end, seconds| {
        *end += seconds * options.rate;
        Some(*end)
    });
    let ends: Vec<usize> = ends.collect();
    let load = Steady::start(Plan {
        connections: CONNECTIONS,
        post_every: POST_EVERY,
        ..Plan::new(proxy.address(), NAMES.to_vec(), options.rate as u32, ends[2])
    });
    load.reaches(ends[0]);
    (fault.begin)(&mut scene);
    if scene.reloads {
        for at in (ends[0]..ends[1]).step_by(options.rate / RELOADS) {
            load.reaches(at);
            proxy.reload();
        }
    }
    load.reaches(ends[1]);
    (fault.end)(&mut scene);
    let outcomes = load.finish();
    let asked: Vec<String> = scene.servers.iter().flat_map(Faulty::asked).collect();
    print(fault.name, name, &outcomes, &asked, &ends, options.rate);
}

fn print(fault: &str, proxy: &str, outcomes: &[Outcome], asked: &[String], ends: &[usize], rate: usize) {
    let [before, during, after] = [&outcomes[..ends[0]], &outcomes[ends[0]..ends[1]], &outcomes[ends[1]..]];
    let settled = &during[SETTLES * rate..];
    let is_lost = |outcome: &Outcome| matches!(outcome.verdict, Verdict::Failed(_));
    let is_wrong = |outcome: &Outcome| matches!(outcome.verdict, Verdict::Wrong(_));
    let is_late = |outcome: &Outcome| outcome.verdict == Verdict::Right && outcome.latency >= LATE;
    let mut times: HashMap<&str, usize> = HashMap::new();
    for request in asked.iter().filter(|request| request.starts_with("POST")) {
        *times.entry(request).or_default() += 1;
    }
    let twice = times.values().filter(|times| **times > 1).count();
    println!(
        "{fault:<16}{proxy:<9}{:>10}{:>11}{:>7}{:>6}{:>7}{twice:>7}{:>7}  {:<27}{}",
        count(outcomes, |outcome| is_lost(outcome) && outcome.asked.method == "GET"),
        count(outcomes, |outcome| is_lost(outcome) && outcome.asked.method == "POST"),
        count(after, is_lost),
        count(outcomes, is_late),
        count(outcomes, is_wrong),
        asked.len(),
        quantiles(50, &[before, during, after]),
        quantiles(99, &[before, during, settled, after]),
    );
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        if let Verdict::Failed(reason) | Verdict::Wrong(reason) = &outcome.verdict {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    for (reason, count) in reasons {
        println!("{:<25}{count:>9}  {reason}", "");
    }
}

fn count(outcomes: &[Outcome], is: impl Fn(&Outcome) -> bool) -> usize {
    outcomes.iter().filter(|outcome| is(outcome)).count()
}

/// Such a quantile of each group's latencies, in milliseconds.
fn quantiles(percent: usize, groups: &[&[Outcome]]) -> String {
    let quantile = |group: &&[Outcome]| {
        let mut latencies: Vec<Duration> = group.iter().map(|outcome| outcome.latency).collect();
        latencies.sort();
        let latency = latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
        format!("{:.1}", latency.as_secs_f64() * 1e3)
    };
    groups.iter().map(quantile).collect::<Vec<_>>().join(" / ")
}

/// A proxy that runs; it stops when the value goes.
trait Proxy {
    fn address(&self) -> SocketAddr;
    fn reload(&mut self);
}

type Start = fn(&Options, [SocketAddr; 3]) -> Box<dyn Proxy>;

const PROXIES: [(&str, Start); 3] = [
    ("edge", |options, servers| Box::new(Gatehouse::start(&options.edge, servers))),
    ("haproxy", |_, servers| Box::new(Other::haproxy(servers))),
    ("nginx", |_, servers| Box::new(Other::nginx(servers))),
];

struct Gatehouse {
    edge: Edge,
    /// What each reload changes to in turn.
    settings: [String; 2],
    reloads: usize,
}

impl Gatehouse {
    fn start(program: &Path, servers: [SocketAddr; 3]) -> Self {
        let setup = |connections: u32| {
            Setup::over_address(servers[0]).and_server(servers[1]).and_server(servers[2]).upstream(&format!(
                "connect_timeout = \"500ms\"\nresponse_timeout = \"1s\"\nput_aside = \"1s\"\n\
                 failing_statuses = [500, 502, 503, 504]\nconnections = {connections}\n\
                 check = {{ path = \"/health\", interval = \"500ms\", timeout = \"500ms\", rise = 2, fall = 3 }}\n"
            ))
        };
        let settings = [setup(255).text(), setup(256).text()];
        Self { edge: setup(256).start_program(program), settings, reloads: 0 }
    }
}

impl Proxy for Gatehouse {
    fn address(&self) -> SocketAddr {
        self.edge.clear()
    }

    fn reload(&mut self) {
        let said = self.edge.reload(&self.settings[self.reloads % 2]);
        assert!(said.contains("reloaded"), "{said}");
        self.reloads += 1;
    }
}

/// HAProxy or nginx.
struct Other {
    process: Process,
    address: SocketAddr,
    reload: Signal,
    _folder: Folder,
}

impl Other {
    fn haproxy(servers: [SocketAddr; 3]) -> Self {
        let (folder, address) = (Folder::new(), address::own());
        folder.write("haproxy.cfg", &haproxy_cfg(folder.path(), address, servers));
        let mut command = Command::new(tool::find(&["haproxy"], "haproxy"));
        command.args(["-W", "-db", "-f"]).arg(folder.path().join("haproxy.cfg"));
        Self::start(Process::start("haproxy", &mut command), address, Signal::USR2, folder)
    }

    fn nginx(servers: [SocketAddr; 3]) -> Self {
        let (folder, address) = (Folder::new(), address::own());
        folder.write("nginx.conf", &nginx_conf(folder.path(), address, servers));
        let mut command = Command::new(tool::find(&["nginx"], "nginx-light"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
        command.args(["-g", "daemon off;"]);
        Self::start(Process::start("nginx", &mut command), address, Signal::HUP, folder)
    }

    fn start(process: Process, address: SocketAddr, reload: Signal, folder: Folder) -> Self {
        wait::until("the proxy listens", || TcpStream::connect(address).ok());
        Self { process, address, reload, _folder: folder }
    }
}

impl Proxy for Other {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn reload(&mut self) {
        self.process.signal(self.reload);
    }
}

/// As its manual advises: requests are sent again to another server, but a POST is not when a server may have seen it; a
/// reload hands the listening sockets on.
fn haproxy_cfg(folder: &Path, address: SocketAddr, servers: [SocketAddr; 3]) -> String {
    let servers: String =
        NAMES.iter().zip(servers).map(|(name, server)| format!("  server {name} {server} check\n")).collect();
    format!(
        "global
  nbthread 2
  stats socket {}/haproxy.sock mode 600 level admin expose-fd listeners
defaults
  mode http
  timeout connect 500ms
  timeout server 1s
  timeout check 500ms
  timeout queue 2s
  timeout client 30s
  timeout http-keep-alive 75s
  retries 3
  option redispatch 1
  retry-on all-retryable-errors
frontend clients
  bind {address}
  http-request disable-l7-retry unless METH_GET
  default_backend servers
backend servers
  balance random(2)
  http-reuse safe
  option httpchk
  http-check send meth GET uri /health
  http-check expect status 200
  default-server inter 500ms rise 2 fall 3 observe layer7 error-limit 5 on-error mark-down
{servers}",
        folder.display()
    )
}

/// It has no health checks of its own: requests are all that it goes by.
fn nginx_conf(folder: &Path, address: SocketAddr, servers: [SocketAddr; 3]) -> String {
    let folder = folder.display();
    let servers: String =
        servers.iter().map(|server| format!("    server {server} max_fails=5 fail_timeout=1s;\n")).collect();
    format!(
        "worker_processes 2;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream servers {{
    zone servers 64k;
    random two least_conn;
{servers}    keepalive 32;
  }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://servers;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_connect_timeout 500ms;
      proxy_read_timeout 1s;
      proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;
      proxy_next_upstream_tries 3;
    }}
  }}
}}
"
    )
}
