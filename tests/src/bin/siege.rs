//! `make siege`: what a good client notices while others attack the edge; the same in front of nginx and HAProxy, in one run.
//!
//! Each stands in front of the same server with one worker, the same bound of connections and the same deadlines; else each is as
//! its makers set it. The good client has an address of its own, and asks for what is stored and for what may not be, at a
//! steady rate, every other time as a newcomer; every answer is checked. Attackers come from one address, come again when they
//! are cut off, and let everybody else go first where processors are scarce.
//!
//! Latencies count from when a request was due. Those of one run beside each other say something; those of two runs do not.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use gatehouse_tests::{
    address,
    attack::{Assault, Attack, How, Target},
    besieged::{self, Besieged},
    binaries,
    edge::{Edge, Setup},
    folder::Folder,
    process::{Process, cpu_seconds, resident_kib_of_tree},
    raw::Raw,
    steady::{Outcome, Plan, Steady, Verdict},
    tool, wait,
};

const USAGE: &str = "usage: siege [--edge PROGRAM] [--only ATTACK] [--proxy edge|nginx|haproxy] [--during SECONDS] \
                     [--after SECONDS] [--deadline SECONDS]";
/// Seconds before an attack.
const BEFORE: usize = 3;
/// Requests a second of the good client, for what is stored and for what may not be.
const HITS: usize = 100;
const MISSES: usize = 50;
/// What is stored of the good client's.
const POPULAR: usize = 20;
/// Looks at the memory a second.
const LOOKS: usize = 10;
const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Bytes of storage, in MiB.
const STORAGE: usize = 64;
/// What a good client's 99th percentile may grow by, on hits and on misses; and memory, in MiB.
const BEARABLE: [f64; 2] = [3.0, 5.0];
const BEARABLE_MIB: f64 = 64.0;

fn main() -> Result<()> {
    let options = Options::read()?;
    let certificates = Certificates::make(&options.edge);
    println!("edge: {}", options.edge.display());
    println!(
        "one worker each; deadlines of {} s; {HITS} hits and {MISSES} misses a second of a good client, every other one on a new connection; \
         {BEFORE} s before, {} s during, {} s after an attack.\n\
         ms: p50 and p99, before/during/after; lost: requests without their right answer, during/after; MiB: resident before, at the highest, \
         and {} s after; CPU: of one processor, during.\n\
         !: p99 during more than {} times (hits) or {} times (misses) that before, or memory {BEARABLE_MIB} MiB above it\n",
        options.deadline, options.during, options.after, options.after, BEARABLE[0], BEARABLE[1],
    );
    println!(
        "{:<26}{:<19}{:<24}{:<19}{:<24}{:>9}  {:<18}{:>5}  cut off",
        "", "hits p50", "hits p99", "misses p50", "misses p99", "lost", "MiB", "CPU"
    );
    for attack in Attack::ALL {
        if options.only.as_deref().is_some_and(|only| only != attack.name()) {
            continue;
        }
        for (name, start) in PROXIES {
            if options.proxy.as_deref().is_none_or(|only| only == name) {
                run(&options, &certificates, attack, (name, start));
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
    during: usize,
    after: usize,
    deadline: usize,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options =
            Self { edge: PathBuf::new(), only: None, proxy: None, during: 6, after: 4, deadline: 3 };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            match name.as_str() {
                "--edge" => options.edge = value.into(),
                "--only" if Attack::ALL.iter().any(|attack| attack.name() == value) => {
                    options.only = Some(value);
                }
                "--only" => {
                    bail!("no attack is called {value:?}, but {}", Attack::ALL.map(Attack::name).join("; "))
                }
                "--proxy" => options.proxy = Some(value),
                "--during" => options.during = value.parse().context(USAGE)?,
                "--after" => options.after = value.parse().context(USAGE)?,
                "--deadline" => options.deadline = value.parse().context(USAGE)?,
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

/// One attack on one proxy, and its line of the table.
fn run(options: &Options, certificates: &Certificates, attack: Attack, (name, start): (&str, Start)) {
    let server = Besieged::start(1);
    // Those that fill the places for connections do so at a bound that an attacker can reach from here.
    let bound = match attack {
        Attack::IdleKeepAlives | Attack::SilentTls => 100,
        _ => 2_000,
    };
    let proxy = start(&Plans { options, certificates, server: server.address(), bound });
    let target = proxy.target();
    for path in (0..POPULAR).map(popular).chain(["/large-hit".to_owned()]) {
        let answer = Raw::connect(target.clear)
            .send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .answer();
        assert_eq!(answer.status, 200, "{name} answers {}", answer.head);
    }
    let seconds = BEFORE + options.during + options.after;
    let plan = |rate: usize, target_of: fn(usize) -> String| Plan {
        connections: 4,
        newcomer_every: 2,
        repeats: true,
        target: target_of,
        from: GOOD,
        ..Plan::new(target.clear, vec![besieged::NAME], rate as u32, rate * seconds)
    };
    let misses = Steady::start(plan(MISSES, |number| format!("/miss/{number}")));
    let hits = Steady::start(plan(HITS, |number| popular(number % POPULAR)));
    hits.reaches(BEFORE * HITS);
    let (before, cpu) = (memory(&*proxy), cpu_seconds(proxy.id()));
    let assault = Assault::start(attack, target, attack.full_force());
    let ends = BEFORE + options.during;
    let highest = (BEFORE * LOOKS..ends * LOOKS)
        .map(|look| {
            hits.reaches(look * HITS / LOOKS);
            memory(&*proxy)
        })
        .fold(before, f64::max);
    hits.reaches(ends * HITS);
    let used = cpu_seconds(proxy.id()) - cpu;
    #[expect(clippy::cast_precision_loss, reason = "some seconds")]
    let cpu = used / options.during as f64;
    let cut_off = assault.stop();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let hellos = cut_off.count(|how| matches!(how, How::Taken | How::Refused)) as f64;
    let each = match attack {
        Attack::Handshakes | Attack::RefusedHellos if hellos > 0.0 => {
            format!("; CPU {:.0} µs each", used * 1e6 / hellos)
        }
        _ => String::new(),
    };
    let (hits, misses) =
        (Phases::new(hits.finish(), HITS, options), Phases::new(misses.finish(), MISSES, options));
    let after = memory(&*proxy);
    println!(
        "{:<17}{name:<9}{:<19}{:<24}{:<19}{:<24}{:>9}  {:<18}{:>4.0}%  {cut_off}{each}",
        attack.name(),
        hits.quantiles(50),
        hits.judged(BEARABLE[0]),
        misses.quantiles(50),
        misses.judged(BEARABLE[1]),
        format!("{}/{}", hits.lost(1) + misses.lost(1), hits.lost(2) + misses.lost(2)),
        format!("{before:.0}/{highest:.0}/{after:.0}{}", mark(highest > before + BEARABLE_MIB)),
        cpu * 100.0,
    );
    for reason in hits.reasons().iter().chain(&misses.reasons()) {
        println!("{:<26}lost: {reason}", "");
    }
}

fn popular(number: usize) -> String {
    format!("/hit/{number}")
}

/// In MiB.
#[expect(clippy::cast_precision_loss, reason = "memory far below 2^52 KiB")]
fn memory(proxy: &dyn Proxy) -> f64 {
    resident_kib_of_tree(proxy.id()) as f64 / 1024.0
}

fn mark(is: bool) -> &'static str {
    if is { "!" } else { "" }
}

/// What became of a load's requests, before, during and after.
struct Phases {
    outcomes: [Vec<Outcome>; 3],
}

impl Phases {
    fn new(mut outcomes: Vec<Outcome>, rate: usize, options: &Options) -> Self {
        let after = outcomes.split_off((BEFORE + options.during) * rate);
        let during = outcomes.split_off(BEFORE * rate);
        Self { outcomes: [outcomes, during, after] }
    }

    /// Such a quantile of each phase, in milliseconds. Who got no answer counts with the time that it took to learn so.
    fn quantile(&self, percent: usize) -> [f64; 3] {
        self.outcomes.each_ref().map(|outcomes| {
            let mut latencies: Vec<Duration> = outcomes.iter().map(|outcome| outcome.latency).collect();
            latencies.sort();
            latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default().as_secs_f64() * 1e3
        })
    }

    fn quantiles(&self, percent: usize) -> String {
        self.quantile(percent).map(|milliseconds| format!("{milliseconds:.1}")).join("/")
    }

    fn judged(&self, bearable: f64) -> String {
        let [before, during, _] = self.quantile(99);
        format!("{}{}", self.quantiles(99), mark(during > bearable * before))
    }

    fn lost(&self, phase: usize) -> usize {
        self.outcomes[phase].iter().filter(|outcome| outcome.verdict != Verdict::Right).count()
    }

    /// Why requests were lost, each reason once, with how often.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = std::collections::BTreeMap::<String, usize>::new();
        for outcome in self.outcomes.iter().flatten() {
            if let Verdict::Failed(reason) | Verdict::Wrong(reason) = &outcome.verdict {
                *reasons.entry(reason.clone()).or_default() += 1;
            }
        }
        reasons.into_iter().map(|(reason, count)| format!("{count} × {reason}")).collect()
    }
}

/// What a proxy is started for.
struct Plans<'a> {
    options: &'a Options,
    certificates: &'a Certificates,
    server: SocketAddr,
    /// Connections of clients at once.
    bound: usize,
}

/// A proxy that runs; it stops when the value goes.
trait Proxy {
    fn target(&self) -> Target;
    fn id(&self) -> u32;
}

type Start = fn(&Plans<'_>) -> Box<dyn Proxy>;

const PROXIES: [(&str, Start); 3] = [
    ("edge", |plans| Box::new(gatehouse(plans))),
    ("nginx", |plans| Box::new(Other::nginx(plans))),
    ("haproxy", |plans| Box::new(Other::haproxy(plans))),
];

fn gatehouse(plans: &Plans<'_>) -> Edge {
    let (bound, deadline) = (plans.bound, plans.options.deadline);
    Setup::over_address(plans.server)
        .threads(1)
        .tables(&format!(
            "[bounds]\nconnections = {bound}\n\
             [timeouts]\nhandshake = \"{deadline}s\"\nheader = \"{deadline}s\"\nbody = \"{deadline}s\"\n\
             [cache]\nmemory = \"{STORAGE} MiB\"\nlargest_object = \"1 MiB\"\n\
             [log]\nformat = \"off\""
        ))
        .start_program(&plans.options.edge)
}

impl Proxy for Edge {
    fn target(&self) -> Target {
        Target { clear: self.clear(), tls: self.tls(), authority: self.authority() }
    }

    fn id(&self) -> u32 {
        Edge::id(self)
    }
}

/// What the edge makes for itself the others get too.
struct Certificates(Folder);

impl Certificates {
    fn make(edge: &Path) -> Self {
        let nobody = address::own();
        let edge = Setup::over_address(nobody).start_program(edge);
        let folder = Folder::new();
        let read = |name: &str| std::fs::read_to_string(edge.folder().join("certs").join(name));
        let [authority, certificate, key] = ["ca.pem", "localhost.pem", "localhost.key"]
            .map(|name| read(name).expect("the edge has written it"));
        folder.write("ca.pem", &authority);
        folder.write("localhost.pem", &certificate);
        folder.write("localhost.key", &key);
        folder.write("both.pem", &format!("{certificate}{key}"));
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// nginx or HAProxy.
struct Other {
    process: Process,
    target: Target,
    _folder: Folder,
}

impl Other {
    fn nginx(plans: &Plans<'_>) -> Self {
        let folder = Folder::new();
        let target = target(plans);
        folder.write("nginx.conf", &nginx_conf(folder.path(), plans, &target));
        let mut command = Command::new(tool::find(&["nginx"], "nginx-light"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
        command.args(["-g", "daemon off;"]);
        Self::start(Process::start("nginx", &mut command), target, folder)
    }

    fn haproxy(plans: &Plans<'_>) -> Self {
        let folder = Folder::new();
        let target = target(plans);
        folder.write("haproxy.cfg", &haproxy_cfg(plans, &target));
        let mut command = Command::new(tool::find(&["haproxy"], "haproxy"));
        command.arg("-db").arg("-f").arg(folder.path().join("haproxy.cfg"));
        Self::start(Process::start("haproxy", &mut command), target, folder)
    }

    fn start(process: Process, target: Target, folder: Folder) -> Self {
        wait::until("the proxy listens", || TcpStream::connect(target.tls).ok());
        Self { process, target, _folder: folder }
    }
}

impl Proxy for Other {
    fn target(&self) -> Target {
        self.target.clone()
    }

    fn id(&self) -> u32 {
        self.process.id()
    }
}

fn target(plans: &Plans<'_>) -> Target {
    Target { clear: address::own(), tls: address::own(), authority: plans.certificates.file("ca.pem") }
}

/// As it comes, but for storage, deadlines and the bound. It stores on disk, which is no resident memory. Connections to servers
/// count among its own, so as many are added.
fn nginx_conf(folder: &Path, plans: &Plans<'_>, target: &Target) -> String {
    let Plans { options, certificates, server, bound } = plans;
    let Target { clear, tls, .. } = target;
    let (folder, deadline, connections) = (folder.display(), options.deadline, bound + 256);
    let [certificate, key] = ["localhost.pem", "localhost.key"].map(|name| certificates.file(name));
    format!(
        r#"worker_processes 1;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_header_timeout {deadline}s;
  client_body_timeout {deadline}s;
  send_timeout {deadline}s;
  client_max_body_size 64m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=items:10m max_size={STORAGE}m;
  ssl_certificate {};
  ssl_certificate_key {};
  upstream origin {{
    server {server};
    keepalive 256;
  }}
  server {{
    listen {clear};
    listen {tls} ssl http2;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache items;
      proxy_cache_lock on;
    }}
  }}
}}
"#,
        certificate.display(),
        key.display(),
    )
}

/// As it comes, but for storage, deadlines and the bound; the cache may hold what the attacks ask for.
fn haproxy_cfg(plans: &Plans<'_>, target: &Target) -> String {
    let Plans { options, certificates, server, bound } = plans;
    let Target { clear, tls, .. } = target;
    let (deadline, both) = (options.deadline, certificates.file("both.pem"));
    format!(
        r"global
  nbthread 1
  maxconn {bound}
defaults
  mode http
  timeout connect 2s
  timeout client {deadline}s
  timeout server 30s
  timeout queue 2s
  timeout http-request {deadline}s
  timeout http-keep-alive 75s
cache items
  total-max-size {STORAGE}
  max-object-size 1000000
  max-age 3600
  process-vary on
frontend all
  bind {clear}
  bind {tls} ssl crt {} alpn h2,http/1.1
  default_backend stored
backend stored
  http-reuse safe
  http-request cache-use items
  http-response cache-store items
  server origin {server} maxconn 256
",
        both.display()
    )
}
