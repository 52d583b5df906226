//! `make bench`: the edge beside nginx, one cached 1 KiB JSON, in one run on one machine.
//!
//! Both answer from their caches with the same certificate, the same number of workers and the same access log (a file, or
//! none). They take turns round by round, so that a noisy neighbour disturbs both; medians are compared. The CPU time is the
//! server's own (user and system, whole process tree), without the load generator's.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use gatehouse_tests::{
    binaries,
    edge::Edge,
    folder::Folder,
    load::parse_h2load,
    process::{Process, cpu_seconds, resident_kib_of_tree},
    tool,
    upstream::{Reply, Upstream},
    wait,
};

const USAGE: &str = "usage: bench [--edge PROGRAM] [--rounds N] [--seconds N]";
const CONNECTIONS: u32 = 32;
const WORKERS: usize = 2;

fn main() -> Result<()> {
    let options = Options::read()?;
    let upstream = Upstream::start(|_| {
        let json = format!("{{\"text\":\"{}\"}}", "x".repeat(1024 - 11));
        Reply::ok(json).header("content-type", "application/json").cache_control("public, max-age=3600")
    });
    println!("edge: {}", options.edge.display());
    println!(
        "1 KiB JSON from the cache, {WORKERS} workers each, {CONNECTIONS} connections, {} rounds of {} s, medians; µs: CPU time of the server per request\n",
        options.rounds, options.seconds
    );
    println!(
        "{:<28}{:>12}{:>12}{:>8}   {:>12}{:>12}{:>8}",
        "", "edge req/s", "nginx req/s", "ratio", "edge µs", "nginx µs", "ratio"
    );
    for log in [false, true] {
        compare(&options, &upstream, log)?;
    }
    Ok(())
}

struct Options {
    edge: PathBuf,
    rounds: usize,
    seconds: u32,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self { edge: PathBuf::new(), rounds: 5, seconds: 2 };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            match name.as_str() {
                "--edge" => options.edge = value.into(),
                "--rounds" => options.rounds = value.parse().context(USAGE)?,
                "--seconds" => options.seconds = value.parse().context(USAGE)?,
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

#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    cpu_microseconds: f64,
}

fn compare(options: &Options, upstream: &Upstream, log: bool) -> Result<()> {
    let format = if log { "json" } else { "off" };
    let edge =
        Edge::over(upstream).tables(&format!("[log]\nformat = \"{format}\"")).start_program(&options.edge);
    let nginx = Nginx::start(upstream.address(), &edge, log);
    let servers = [Server { id: edge.id(), clear: edge.clear(), tls: edge.tls() }, nginx.server()];
    let protocols = [
        ("h1 clear", Protocol::H1Clear),
        ("h1 TLS", Protocol::H1Tls),
        ("h2 TLS", Protocol::H2Tls(10)),
        ("h2 TLS one by one", Protocol::H2Tls(1)),
    ];
    for (name, protocol) in protocols {
        let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
        for number in 0..=options.rounds {
            // Turn about, and the first round of each only warms up.
            let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                let round = measure(&servers[which], protocol, options.seconds)?;
                if number > 0 {
                    rounds[which].push(round);
                }
            }
        }
        let [edge, nginx] = rounds.map(|rounds| Round {
            per_second: median(rounds.iter().map(|round| round.per_second)),
            cpu_microseconds: median(rounds.iter().map(|round| round.cpu_microseconds)),
        });
        println!(
            "{:<28}{:>12.0}{:>12.0}{:>8.2}   {:>12.1}{:>12.1}{:>8.2}",
            format!("{name}, log {}", if log { "on" } else { "off" }),
            edge.per_second,
            nginx.per_second,
            edge.per_second / nginx.per_second,
            edge.cpu_microseconds,
            nginx.cpu_microseconds,
            edge.cpu_microseconds / nginx.cpu_microseconds,
        );
    }
    let [edge_kib, nginx_kib] = [servers[0].id, servers[1].id].map(resident_kib_of_tree);
    println!("resident memory after: edge {:.1} MiB, nginx {:.1} MiB\n", mib(edge_kib), mib(nginx_kib));
    Ok(())
}

fn measure(server: &Server, protocol: Protocol, seconds: u32) -> Result<Round> {
    let (connections, duration) = (CONNECTIONS.to_string(), seconds.to_string());
    let before = cpu_seconds(server.id);
    let start = wait::now();
    let requests = match protocol {
        Protocol::H1Clear => wrk(&format!("http://{}/item", server.clear), &connections, &duration)?,
        Protocol::H1Tls => wrk(&format!("https://{}/item", server.tls), &connections, &duration)?,
        Protocol::H2Tls(streams) => {
            let h2load = tool::find(&["h2load"], "nghttp2-client");
            let url = format!("https://{}/item", server.tls);
            let streams = streams.to_string();
            let arguments =
                ["-c", &connections, "-m", &streams, "-D", &duration, "--warm-up-time", "0", &url];
            let load = parse_h2load(&tool::run(&h2load, arguments));
            // A run bounded by time ends with streams under way: those are no failures of the server.
            if load.not_2xx > 0 || load.complete == 0 {
                bail!("{load:?}");
            }
            load.complete
        }
    };
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds(server.id) - before;
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let requests = requests as f64;
    Ok(Round { per_second: requests / elapsed, cpu_microseconds: cpu / requests * 1e6 })
}

fn wrk(url: &str, connections: &str, seconds: &str) -> Result<u64> {
    let wrk = tool::find(&["wrk"], "wrk");
    let output = tool::run(&wrk, ["-t", "1", "-c", connections, "-d", seconds, url]);
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        bail!("wrk met errors:\n{output}");
    }
    let count = output.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    count.with_context(|| format!("wrk printed no count:\n{output}"))
}

struct Nginx {
    process: Process,
    clear: SocketAddr,
    tls: SocketAddr,
    _folder: Folder,
}

impl Nginx {
    fn start(upstream: SocketAddr, edge: &Edge, log: bool) -> Self {
        let folder = Folder::new();
        let [clear, tls] = [free_port(), free_port()];
        folder.write(
            "nginx.conf",
            &nginx_conf(folder.path(), upstream, [clear, tls], &edge.folder().join("certs"), log),
        );
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

/// Tuned as its manual advises for this work: descriptors of cached files kept, many requests a connection.
fn nginx_conf(
    folder: &Path,
    upstream: SocketAddr,
    ports: [SocketAddr; 2],
    certificates: &Path,
    log: bool,
) -> String {
    let [clear, tls] = ports;
    let folder = folder.display();
    let certificates = certificates.display();
    let log = if log { format!("{folder}/access.log") } else { "off".to_owned() };
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
  proxy_cache_path {folder}/cache keys_zone=items:10m;
  ssl_certificate {certificates}/localhost.pem;
  ssl_certificate_key {certificates}/localhost.key;
  ssl_protocols TLSv1.2 TLSv1.3;
  server {{
    listen {clear} reuseport;
    listen {tls} ssl http2 reuseport;
    location / {{
      proxy_pass http://{upstream};
      proxy_http_version 1.1;
      proxy_cache items;
      proxy_cache_lock on;
    }}
  }}
}}
"#
    )
}

/// nginx cannot be asked which port the system chose, so one is found for it.
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
