//! `make readings`: how the edge, nginx and HAProxy read the same requests, octet by octet, where they differ.
//!
//! Each stands in front of a server that reads strictly and records, as its makers set it but for deadlines. A request is refused, or
//! the server has understood one, or it was sent what can be read in more ways than one. What stands behind a request on its
//! connection is one of the server's own if the two do not agree where the first one ends.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};
use gatehouse_tests::{
    address,
    edge::{Edge, Setup},
    folder::Folder,
    process::Process,
    raw::Raw,
    readings::{self, Reading},
    recorder::Recorder,
    tool, wait,
};

const USAGE: &str = "usage: readings [--all]    (--all: also where they agree)";
/// Seconds after which each gives up a request that is not whole.
const DEADLINE: usize = 1;
/// How long a connection may be silent before what came is all.
const SILENCE: Duration = Duration::from_millis(2500);

fn main() -> Result<()> {
    let all = match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [] => false,
        [option] if option == "--all" => true,
        _ => bail!(USAGE),
    };
    let recorders = [(); 3].map(|()| Recorder::start());
    let [for_edge, for_nginx, for_haproxy] = &recorders;
    let edge = gatehouse(for_edge.address());
    let nginx = Other::start("nginx", for_nginx.address(), nginx_conf, |folder| {
        let mut command = Command::new(tool::find(&["nginx"], "nginx-light"));
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("settings")).args(["-g", "daemon off;"]);
        command
    });
    let haproxy = Other::start("haproxy", for_haproxy.address(), haproxy_cfg, |folder| {
        let mut command = Command::new(tool::find(&["haproxy"], "haproxy"));
        command.arg("-db").arg("-f").arg(folder.join("settings"));
        command
    });
    let proxies = [edge.clear(), nginx.address, haproxy.address];
    let mut against_edge = [(); 3].map(|()| BTreeMap::<&str, usize>::new());
    let cases = readings::all();
    println!("{} requests; each row is one that the three do not read alike\n", cases.len());
    for case in &cases {
        let understood: Vec<Understood> = proxies
            .iter()
            .zip(&recorders)
            .map(|(address, recorder)| case.play(Raw::connect(*address), recorder, SILENCE).into())
            .collect();
        let differ = understood[1..].iter().any(|other| !other.is_like(&understood[0]));
        if differ || all {
            println!("{}", case.what.escape_debug());
            for (name, understood) in NAMES.iter().zip(&understood) {
                println!("  {name:<8}{}", understood.text());
            }
        }
        for (counts, other) in against_edge.iter_mut().zip(&understood) {
            *counts.entry(other.beside(&understood[0])).or_default() += 1;
        }
    }
    println!("\nbeside the edge, of {} requests:", cases.len());
    for (name, counts) in NAMES.iter().zip(&against_edge).skip(1) {
        let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        println!("  {name:<8}{}", counts.join(", "));
    }
    Ok(())
}

const NAMES: [&str; 3] = ["edge", "nginx", "haproxy"];

/// What a proxy made of a request, as its server and its client saw it.
enum Understood {
    /// Nothing for the server; these statuses, and whether the connection was closed.
    Refused(Vec<u16>, bool),
    /// One request, and how many behind it.
    One { line: String, content: Vec<u8>, trailers: usize, behind: usize },
    /// The server cannot tell what it was sent.
    Unclear(String),
}

impl From<Reading> for Understood {
    fn from(Reading { statuses, heard, closed }: Reading) -> Self {
        let mut heard = heard.into_iter();
        match heard.next() {
            None => Self::Refused(statuses, closed),
            Some(Err(why)) => Self::Unclear(why),
            Some(Ok(first)) => {
                let rest: Vec<_> = heard.collect();
                if let Some(Err(why)) = rest.iter().find(|heard| heard.is_err()) {
                    return Self::Unclear(why.clone());
                }
                Self::One {
                    line: first.line,
                    content: first.content,
                    trailers: first.trailers.len(),
                    behind: rest.len(),
                }
            }
        }
    }
}

impl Understood {
    /// Whether it is the same to the server.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused(..), Self::Refused(..)) => true,
            (
                Self::One { line, content, behind, .. },
                Self::One { line: other_line, content: other_content, behind: other_behind, .. },
            ) => (line, content, behind) == (other_line, other_content, other_behind),
            _ => false,
        }
    }

    /// What it is, beside what the edge has made of the same.
    fn beside(&self, edge: &Self) -> &'static str {
        match (self, edge) {
            (Self::Unclear(_), _) => "unclear to the server",
            (Self::Refused(..), Self::Refused(..)) => "refused alike",
            (Self::Refused(..), _) => "refused, and passed on by the edge",
            (_, Self::Refused(..)) => "passed on, and refused by the edge",
            _ if self.is_like(edge) => "passed on alike",
            _ => "passed on otherwise",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Refused(statuses, closed) => {
                let end = if *closed { "closed" } else { "left open" };
                format!("refused: {statuses:?}, {end}")
            }
            Self::One { line, content, trailers, behind } => format!(
                "passed on: {line:?}, content {:?}, {trailers} trailers; {behind} behind it",
                String::from_utf8_lossy(content)
            ),
            Self::Unclear(why) => format!("UNCLEAR to the server: {why:.200}"),
        }
    }
}

fn gatehouse(server: SocketAddr) -> Edge {
    let tables = format!(
        "[timeouts]\nheader = \"{DEADLINE}s\"\nbody = \"{DEADLINE}s\"\nidle = \"{DEADLINE}s\"\n[log]\nformat = \"off\""
    );
    Setup::over_address(server).upstream("failures = 1000000").threads(1).tables(&tables).start()
}

/// nginx or HAProxy; it ends when the value goes.
struct Other {
    address: SocketAddr,
    _process: Process,
    _folder: Folder,
}

impl Other {
    fn start(
        name: &'static str,
        server: SocketAddr,
        settings: impl FnOnce(&Path, SocketAddr, SocketAddr) -> String,
        command: impl FnOnce(&Path) -> Command,
    ) -> Self {
        let (folder, address) = (Folder::new(), address::own());
        folder.write("settings", &settings(folder.path(), address, server));
        let process = Process::start(name, &mut command(folder.path()));
        wait::until("the proxy listens", || TcpStream::connect(address).ok());
        Self { address, _process: process, _folder: folder }
    }
}

fn nginx_conf(folder: &Path, address: SocketAddr, server: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        r#"worker_processes 1;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_header_timeout {DEADLINE}s;
  client_body_timeout {DEADLINE}s;
  keepalive_timeout {DEADLINE}s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address};
    location / {{
      proxy_pass http://{server};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"#
    )
}

fn haproxy_cfg(_: &Path, address: SocketAddr, server: SocketAddr) -> String {
    format!(
        r"global
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client {DEADLINE}s
  timeout server 5s
  timeout http-request {DEADLINE}s
  timeout http-keep-alive {DEADLINE}s
frontend all
  bind {address}
  default_backend server
backend server
  server server {server}
"
    )
}
