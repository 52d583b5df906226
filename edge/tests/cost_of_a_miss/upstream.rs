//! An edge before an upstream in memory that answers without allocating, and what is asked of it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, OnceLock},
};

use edge::{
    cache::tiers::Tiers,
    clock::Clock,
    message::{content::Content, interim::Interim, target::Scheme},
    observe::{access_log::AccessLog, metrics::Metrics, record::Sink},
    pipeline::Peer,
    settings::{self, LogFormat, LogSettings},
    state::{Edge, Servers},
    upstream::{
        Commands,
        address::Address,
        connect::{Dial, Dialling},
        tls::TlsByUpstream,
    },
};
use http::{HeaderValue, Request, header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    runtime::{Builder, Runtime},
};

/// What becomes of the upstream's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They say `no-store`.
    Pass,
    /// They may be stored; each is to a request for another resource.
    Store,
}

impl Kind {
    /// A part of Cache-Status.
    pub(crate) const fn told(self) -> &'static str {
        match self {
            Self::Pass => "detail=no-store",
            Self::Store => "; stored",
        }
    }

    const fn cache_control(self) -> &'static str {
        match self {
            Self::Pass => "no-store",
            Self::Store => "public, max-age=3600",
        }
    }

    /// A whole answer, as it is written.
    fn answer(self) -> &'static [u8] {
        static ANSWERS: [OnceLock<String>; 2] = [OnceLock::new(), OnceLock::new()];
        let written = || {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: {}\r\n\
                 ETag: \"5f1d-61a0\"\r\nContent-Length: {LENGTH}\r\n\r\n{}",
                self.cache_control(),
                "x".repeat(LENGTH)
            )
        };
        ANSWERS[usize::from(self == Self::Store)].get_or_init(written).as_bytes()
    }
}

/// An edge before such an upstream.
pub(crate) struct Scene {
    pub(crate) edge: Arc<Edge>,
    pub(crate) interim: Interim,
    pub(crate) kind: Kind,
}

impl Scene {
    pub(crate) fn new(kind: Kind) -> Self {
        let text = "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.origin]\nservers = [\"http://origin:80\"]\n\
                    [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = {}\n";
        let settings = settings::parse(text, "miss.toml").unwrap_or_else(|error| panic!("{error}"));
        let clock = Clock::system();
        let metrics = Arc::new(Metrics::new());
        let tiers = Tiers::new(Vec::new(), &clock, &metrics);
        let log = AccessLog::start(&LogSettings { format: Some(LogFormat::Off) }).unwrap();
        let sink = Arc::new(Sink { clock, metrics, log });
        let (dial, commands) = (Arc::new(InMemory(kind)), Arc::new(NoCommand));
        let servers = Servers { dial, commands, tls: TlsByUpstream::default() };
        let edge = Edge::new(settings, tiers, sink, servers).unwrap();
        Self { edge, interim: Interim::default(), kind }
    }
}

/// What a program asks for.
pub(crate) fn request(kind: Kind, number: u64) -> Request<Content> {
    let number = if kind == Kind::Store { number } else { 0 };
    // As a connection hands them on: values that are cloned without an allocation.
    let of = HeaderValue::from_static;
    let request =
        Request::get(format!("/items/{number}?colour=red")).header(header::HOST, of("shop.example"));
    let request = request.header(header::USER_AGENT, of("wrk/4.2")).header(header::ACCEPT, of("*/*"));
    request.body(Content::none()).unwrap()
}

/// A runtime that has this thread only.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

struct InMemory(Kind);

impl Dial for InMemory {
    fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
        Box::pin(async {
            let (ours, theirs) = tokio::io::duplex(PIPE);
            tokio::spawn(answer_all(theirs, self.0.answer()));
            Ok(Box::new(ours) as Box<_>)
        })
    }
}

/// Answers each head with these octets.
async fn answer_all(mut stream: DuplexStream, answer: &'static [u8]) {
    let mut head = [0; 4096];
    let mut filled = 0;
    loop {
        match stream.read(&mut head[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
        if head[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            stream.write_all(answer).await.unwrap();
        }
    }
}

struct NoCommand;

impl Commands for NoCommand {
    fn ready(&self, _command: &str) -> Arc<[Address]> {
        Arc::from([])
    }
}

pub(crate) const PEER: Peer<'static> = Peer {
    address: HOST,
    port: 1,
    reached: std::net::SocketAddr::new(HOST, 80),
    scheme: Scheme::Http,
    acquaintance: None,
};
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Bytes of an answer.
pub(crate) const LENGTH: usize = 1024;
const PIPE: usize = 64 * 1024;
