//! `make bench`: the edge beside nginx and HAProxy, in one run on one machine: hits, passes, stored misses and POSTs of 1 KiB.
//!
//! All answer with the same certificate, the same number of workers and the same access log (a file, or none; HAProxy, which
//! logs to syslog only, none). They take turns round by round, so that a noisy neighbour disturbs each; medians are compared.
//! The CPU time is the server's own (user and system, whole process tree), without the load generator's and the upstream's.
//! Ratios of one run say something; figures of two runs do not.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};
use gatehouse_tests::{
    binaries,
    edge::Setup,
    folder::Folder,
    load::parse_h2load,
    process::{Process, cpu_seconds, resident_kib_of_tree},
    tool, wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
};

const USAGE: &str = "usage: bench [--edge PROGRAM] [--rounds N] [--seconds N] [--only WORD]";
const CONNECTIONS: u32 = 32;
const WORKERS: usize = 2;
/// Bytes of a content, either way.
const LENGTH: usize = 1024;

fn main() -> Result<()> {
    let options = Options::read()?;
    let upstream = Upstream::start()?;
    println!("edge: {}", options.edge.display());
    println!(
        "1 KiB, {WORKERS} workers each, {CONNECTIONS} connections, {} rounds of {} s, medians; µs: CPU time of the server per request; ratio: the edge to the better of the others\n",
        options.rounds, options.seconds
    );
    println!(
        "{:<34}{:>10}{:>10}{:>12}{:>7}   {:>9}{:>10}{:>12}{:>7}",
        "", "edge /s", "nginx /s", "HAProxy /s", "ratio", "edge µs", "nginx µs", "HAProxy µs", "ratio"
    );
    for log in [Log::Off, Log::On] {
        compare(&options, &upstream, log)?;
    }
    Ok(())
}

struct Options {
    edge: PathBuf,
    rounds: usize,
    seconds: u32,
    /// Only lines of the table that hold this word.
    only: String,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self { edge: PathBuf::new(), rounds: 5, seconds: 2, only: String::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            match name.as_str() {
                "--edge" => options.edge = value.into(),
                "--rounds" => options.rounds = value.parse().context(USAGE)?,
                "--seconds" => options.seconds = value.parse().context(USAGE)?,
                "--only" => options.only = value,
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

/// One server under test.
struct Server {
    id: u32,
    clear: SocketAddr,
    tls: SocketAddr,
}

#[derive(Clone, Copy)]
enum Protocol {
    H1Clear,
    H1Tls,
    /// With so many requests under way on each connection.
    H2Tls(u32),
}

/// What is asked for, and what becomes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// One cached answer.
    Hit,
    /// An answer that says `no-store`.
    Pass,
    /// Each time another resource, whose answer is stored.
    StoredMiss,
    /// A content of 1 KiB.
    Post,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Off,
    On,
}

#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    cpu_microseconds: f64,
}

/// What is measured, in the table's order. h2load asks for the same sequence on each connection, and so for no stored misses.
const CELLS: [(&str, Work, Protocol); 9] = [
    ("hit, h1 clear", Work::Hit, Protocol::H1Clear),
    ("hit, h1 TLS", Work::Hit, Protocol::H1Tls),
    ("hit, h2 TLS", Work::Hit, Protocol::H2Tls(10)),
    ("hit, h2 TLS one by one", Work::Hit, Protocol::H2Tls(1)),
    ("pass, h1 clear", Work::Pass, Protocol::H1Clear),
    ("pass, h2 TLS", Work::Pass, Protocol::H2Tls(10)),
    ("stored miss, h1 clear", Work::StoredMiss, Protocol::H1Clear),
    ("POST, h1 clear", Work::Post, Protocol::H1Clear),
    ("POST, h2 TLS", Work::Post, Protocol::H2Tls(10)),
];

fn compare(options: &Options, upstream: &Upstream, log: Log) -> Result<()> {
    let format = if log == Log::On { "json" } else { "off" };
    let edge = Setup::over_address(upstream.address)
        .tables(&format!("[log]\nformat = \"{format}\""))
        .start_program(&options.edge);
    let certificates = edge.folder().join("certs");
    let nginx = Nginx::start(upstream.address, &certificates, log);
    let haproxy = HaProxy::start(upstream.address, &certificates);
    let servers =
        [Server { id: edge.id(), clear: edge.clear(), tls: edge.tls() }, nginx.server(), haproxy.server()];
    let load = Load::new();
    for (name, work, protocol) in CELLS {
        let name = format!("{name}, log {}", if log == Log::On { "on" } else { "off" });
        // A log costs the same whatever is answered.
        if !name.contains(&options.only) || log == Log::On && work != Work::Hit {
            continue;
        }
        let mut rounds: [Vec<Round>; 3] = Default::default();
        for number in 0..=options.rounds {
            // Turn about, and the first round of each only warms up.
            for place in 0..servers.len() {
                let which = (place + number) % servers.len();
                let round = load.measure(&servers[which], (work, protocol), options.seconds)?;
                if number > 0 {
                    rounds[which].push(round);
                }
            }
        }
        let [edge, nginx, haproxy] = rounds.map(|rounds| Round {
            per_second: median(rounds.iter().map(|round| round.per_second)),
            cpu_microseconds: median(rounds.iter().map(|round| round.cpu_microseconds)),
        });
        println!(
            "{name:<34}{:>10.0}{:>10.0}{:>12.0}{:>7.2}   {:>9.1}{:>10.1}{:>12.1}{:>7.2}",
            edge.per_second,
            nginx.per_second,
            haproxy.per_second,
            edge.per_second / nginx.per_second.max(haproxy.per_second),
            edge.cpu_microseconds,
            nginx.cpu_microseconds,
            haproxy.cpu_microseconds,
            edge.cpu_microseconds / nginx.cpu_microseconds.min(haproxy.cpu_microseconds),
        );
    }
    let [edge, nginx, haproxy] = servers.map(|server| mib(resident_kib_of_tree(server.id)));
    println!("resident memory after: edge {edge:.1} MiB, nginx {nginx:.1} MiB, HAProxy {haproxy:.1} MiB\n");
    Ok(())
}

/// What the generators read.
struct Load {
    folder: Folder,
    /// How many have asked for what is not stored.
    runs: AtomicU32,
}

impl Load {
    fn new() -> Self {
        let folder = Folder::new();
        folder.write("content", &"x".repeat(LENGTH));
        folder.write("post.lua", &format!("wrk.method = 'POST'\nwrk.body = string.rep('x', {LENGTH})\n"));
        // Each time another resource, and in each run others: it is told its number.
        let counts = "local number, run = 0, 0\n\
                      function init(arguments) run = arguments[1] end\n\
                      function request()\n  number = number + 1\n  \
                      return wrk.format('GET', '/new/' .. run .. '/' .. number)\nend\n";
        folder.write("new.lua", counts);
        Self { folder, runs: AtomicU32::new(0) }
    }

    fn measure(&self, server: &Server, (work, protocol): (Work, Protocol), seconds: u32) -> Result<Round> {
        let before = cpu_seconds(server.id);
        let start = wait::now();
        let path = match work {
            Work::Hit => "item",
            Work::Pass | Work::Post => "pass",
            Work::StoredMiss => "new",
        };
        let requests = match protocol {
            Protocol::H1Clear => self.wrk(&format!("http://{}/{path}", server.clear), work, seconds)?,
            Protocol::H1Tls => self.wrk(&format!("https://{}/{path}", server.tls), work, seconds)?,
            Protocol::H2Tls(streams) => {
                self.h2load(&format!("https://{}/{path}", server.tls), (work, streams), seconds)?
            }
        };
        let elapsed = start.elapsed().as_secs_f64();
        let cpu = cpu_seconds(server.id) - before;
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let requests = requests as f64;
        Ok(Round { per_second: requests / elapsed, cpu_microseconds: cpu / requests * 1e6 })
    }

    fn wrk(&self, url: &str, work: Work, seconds: u32) -> Result<u64> {
        let wrk = tool::find(&["wrk"], "wrk");
        let mut arguments: Vec<String> =
            ["-t", "1", "-c", &CONNECTIONS.to_string(), "-d", &seconds.to_string()].map(Into::into).into();
        let script = match work {
            Work::Hit | Work::Pass => None,
            Work::StoredMiss => Some("new.lua"),
            Work::Post => Some("post.lua"),
        };
        if let Some(script) = script {
            arguments.extend(["-s".into(), self.folder.path().join(script).display().to_string()]);
        }
        arguments.push(url.into());
        if work == Work::StoredMiss {
            arguments.extend(["--".into(), self.runs.fetch_add(1, Ordering::Relaxed).to_string()]);
        }
        let output = tool::run(&wrk, &arguments);
        if output.contains("Non-2xx") || output.contains("Socket errors") {
            bail!("wrk met errors:\n{output}");
        }
        let count = output.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
        count.with_context(|| format!("wrk printed no count:\n{output}"))
    }

    fn h2load(&self, url: &str, (work, streams): (Work, u32), seconds: u32) -> Result<u64> {
        let h2load = tool::find(&["h2load"], "nghttp2-client");
        let [connections, streams, seconds] =
            [CONNECTIONS, streams, seconds].map(|number| number.to_string());
        let content = self.folder.path().join("content").display().to_string();
        let mut arguments =
            vec!["-c", &connections, "-m", &streams, "-D", &seconds, "--warm-up-time", "0", url];
        if work == Work::Post {
            arguments.extend(["-d", &content]);
        }
        let load = parse_h2load(&tool::run(&h2load, &arguments));
        // A run bounded by time ends with streams under way: those are no failures of the server.
        if load.not_2xx > 0 || load.complete == 0 {
            bail!("{load:?}");
        }
        Ok(load.complete)
    }
}

/// Answers every request with 1 KiB, and does nothing else: what it costs is not to slow down whoever asks. What `/pass` is
/// answered with may not be stored.
struct Upstream {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Upstream {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let answers: [&'static str; 2] = ["no-store", "public, max-age=3600"].map(|directive| {
            let content = "x".repeat(LENGTH);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: {directive}\r\n\
                 Content-Length: {LENGTH}\r\n\r\n{content}"
            );
            &*answer.leak()
        });
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, answers));
            }
        });
        Ok(Self { address, _runtime: runtime })
    }
}

async fn answer_all(mut stream: TcpStream, [unstored, stored]: [&'static str; 2]) {
    let mut buffer = [0; 8192];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        // Only a POST has content, and always as much.
        let content = if buffer.starts_with(b"POST") { LENGTH } else { 0 };
        if filled < end + 4 + content {
            continue;
        }
        filled = 0;
        let is_passed = buffer.windows(6).take(8).any(|window| window == b" /pass");
        let answer = if is_passed { unstored } else { stored };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

struct Nginx {
    process: Process,
    clear: SocketAddr,
    tls: SocketAddr,
    _folder: Folder,
}

impl Nginx {
    fn start(upstream: SocketAddr, certificates: &Path, log: Log) -> Self {
        let folder = Folder::new();
        let [clear, tls] = [free_port(), free_port()];
        folder.write("nginx.conf", &nginx_conf(folder.path(), upstream, [clear, tls], certificates, log));
        let mut command = Command::new(tool::find(&["nginx"], "nginx-light"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
        command.args(["-g", "daemon off;"]);
        let process = Process::start("nginx", &mut command);
        wait::until("nginx listens", || std::net::TcpStream::connect(tls).ok());
        Self { process, clear, tls, _folder: folder }
    }

    fn server(&self) -> Server {
        Server { id: self.process.id(), clear: self.clear, tls: self.tls }
    }
}

/// Tuned as its manual advises for this work: descriptors of cached files kept, many requests a connection, upstream
/// connections kept. What is passed is not looked up in the cache.
fn nginx_conf(
    folder: &Path,
    upstream: SocketAddr,
    ports: [SocketAddr; 2],
    certificates: &Path,
    log: Log,
) -> String {
    let [clear, tls] = ports;
    let folder = folder.display();
    let certificates = certificates.display();
    let log = if log == Log::On { format!("{folder}/access.log") } else { "off".to_owned() };
    format!(
        r#"worker_processes {WORKERS};
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log {log};
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=1000 inactive=60s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=items:10m max_size=256m;
  ssl_certificate {certificates}/localhost.pem;
  ssl_certificate_key {certificates}/localhost.key;
  ssl_protocols TLSv1.2 TLSv1.3;
  upstream origin {{
    server {upstream};
    keepalive 512;
    keepalive_requests 1000000000;
  }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  server {{
    listen {clear} reuseport;
    listen {tls} ssl http2 reuseport;
    location / {{
      proxy_pass http://origin;
      proxy_cache items;
      proxy_cache_lock on;
    }}
    location /pass {{
      proxy_pass http://origin;
    }}
  }}
}}
"#
    )
}

struct HaProxy {
    process: Process,
    clear: SocketAddr,
    tls: SocketAddr,
    _folder: Folder,
}

impl HaProxy {
    fn start(upstream: SocketAddr, certificates: &Path) -> Self {
        let folder = Folder::new();
        let [clear, tls] = [free_port(), free_port()];
        let read = |name| std::fs::read_to_string(certificates.join(name)).expect("the edge has written it");
        folder.write("both.pem", &format!("{}{}", read("localhost.pem"), read("localhost.key")));
        folder.write("haproxy.cfg", &haproxy_cfg(folder.path(), upstream, [clear, tls]));
        let mut command = Command::new(tool::find(&["haproxy"], "haproxy"));
        command.arg("-db").arg("-f").arg(folder.path().join("haproxy.cfg"));
        let process = Process::start("haproxy", &mut command);
        wait::until("HAProxy listens", || std::net::TcpStream::connect(tls).ok());
        Self { process, clear, tls, _folder: folder }
    }

    fn server(&self) -> Server {
        Server { id: self.process.id(), clear: self.clear, tls: self.tls }
    }
}

/// As its manual advises: connections to the server shared, and its small cache for what may be stored.
fn haproxy_cfg(folder: &Path, upstream: SocketAddr, ports: [SocketAddr; 2]) -> String {
    let [clear, tls] = ports;
    let folder = folder.display();
    format!(
        r"global
  nbthread {WORKERS}
  maxconn 4096
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
cache items
  total-max-size 256
  max-object-size 65536
  max-age 3600
frontend all
  bind {clear}
  bind {tls} ssl crt {folder}/both.pem alpn h2,http/1.1
  use_backend passed if {{ path_beg /pass }}
  default_backend stored
backend passed
  http-reuse always
  server origin {upstream}
backend stored
  http-reuse always
  http-request cache-use items
  http-response cache-store items
  server origin {upstream}
"
    )
}

/// Neither can be asked which port the system chose, so one is found for each.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "memory far below 2^52 KiB")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
