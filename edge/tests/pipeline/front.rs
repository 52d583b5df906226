//! The edge in front of a scripted upstream, and its clients: all in one paused runtime.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use edge::{
    cache::{
        tier::Tier,
        tiers::{TierBounds, Tiers},
    },
    clock::Clock,
    message::{
        content::{Activity, Content},
        target::Scheme,
    },
    observe::{access_log::AccessLog, metrics::Metrics, record::Sink},
    pipeline::{Peer, handle},
    settings::{self, LogFormat, LogSettings, Settings},
    state::{Edge, Servers},
    upstream::{Commands, address::Address, connect::Dial, tls::TlsByUpstream},
};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use scripted_upstream::Seen;
use tokio::task::JoinHandle;

use crate::upstream::Upstream;

struct NoCommands;

impl Commands for NoCommands {
    fn ready(&self, _command: &str) -> Arc<[Address]> {
        Arc::from([])
    }
}

/// The edge under test.
#[derive(Clone)]
pub(crate) struct Front {
    pub edge: Arc<Edge>,
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Result<Bytes, String>,
}

impl Got {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().expect("a whole body")).unwrap()
    }

    /// The part of Cache-Status that says hit or how it was forwarded.
    pub(crate) fn cache(&self) -> &str {
        self.field("cache-status").split("; ").nth(1).unwrap_or_default()
    }
}

/// Everything is cached.
pub(crate) const CACHED: &str =
    "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = {}\n";
/// Everything is passed on.
pub(crate) const PASSED: &str = "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n";

/// Everything is cached in this way.
pub(crate) fn cached(how: &str) -> String {
    format!("[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = {{ {how} }}\n")
}

/// Settings with one route that caches, and the upstream behind it.
pub(crate) fn front(upstream: &Upstream) -> Front {
    front_with(upstream, CACHED)
}

pub(crate) fn front_with(upstream: &Upstream, more: &str) -> Front {
    front_over(Arc::new(upstream.clone()), more)
}

/// Settings with these routes, and whatever is dialled behind them.
pub(crate) fn front_over(dial: Arc<dyn Dial>, more: &str) -> Front {
    front_before(Vec::new(), start(), dial, more)
}

/// As [`front_over`], with tiers behind memory, by a wall clock that shows `wall` now.
pub(crate) fn front_before(
    tiers: Vec<(Arc<dyn Tier>, TierBounds)>,
    wall: SystemTime,
    dial: Arc<dyn Dial>,
    more: &str,
) -> Front {
    let settings = settings_for(&["origin"], more);
    front_by(settings, tiers, wall, dial)
}

/// An edge by these settings.
pub(crate) fn front_by(
    settings: Settings,
    tiers: Vec<(Arc<dyn Tier>, TierBounds)>,
    wall: SystemTime,
    dial: Arc<dyn Dial>,
) -> Front {
    let clock = Clock::starting_at(wall);
    let metrics = Arc::new(Metrics::new());
    let tiers = Tiers::new(tiers, &clock, &metrics);
    let log = AccessLog::start(&LogSettings { format: Some(LogFormat::Off) }).unwrap();
    let sink = Arc::new(Sink { clock: clock.clone(), metrics: Arc::clone(&metrics), log });
    let tls = TlsByUpstream::load(&settings.upstreams).unwrap();
    let servers = Servers { dial, commands: Arc::new(NoCommands), tls };
    let edge = Edge::new(settings, tiers, sink, servers).unwrap();
    Front { edge }
}

/// Settings of an upstream with servers of these names, and `more`: first further keys of the upstream, then tables.
pub(crate) fn settings_for(servers: &[&str], more: &str) -> Settings {
    let servers: Vec<String> = servers.iter().map(|name| format!("http://{name}:80")).collect();
    let text = format!(
        "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[cache]\nmemory = \"32 MiB\"\nlargest_object = \"1 MiB\"\n\
         [upstreams.origin]\nservers = {servers:?}\n{more}"
    );
    settings::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// Monday, 23 November 2026, 12:00:00 GMT.
pub(crate) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_435_200)
}

impl Front {
    /// Applies new settings.
    pub(crate) fn reload(&self, settings: Settings) {
        let tls = TlsByUpstream::load(&settings.upstreams).unwrap();
        self.edge.reload(settings, tls);
    }

    /// Looks at the files that close routes, as the housekeeping does each second.
    pub(crate) fn look_at_closures(&self) {
        self.edge.state.load().closures.iter().for_each(|closure| closure.look());
    }

    pub(crate) async fn get(&self, target: &str) -> Got {
        self.send(Request::get(target)).await
    }

    /// As [`get`](Self::get), in a task of its own.
    pub(crate) fn ask(&self, target: &'static str) -> JoinHandle<Got> {
        let front = self.clone();
        tokio::spawn(async move { front.get(target).await })
    }

    /// What follows `start` in the lines of `/metrics` that begin with it.
    pub(crate) fn metric_lines(&self, start: &str) -> Vec<String> {
        let page = self.edge.metrics.encode();
        page.lines().filter_map(|line| line.strip_prefix(start)).map(ToOwned::to_owned).collect()
    }

    pub(crate) async fn get_with(&self, target: &str, fields: &[(&str, &str)]) -> Got {
        let request =
            fields.iter().fold(Request::get(target), |request, (name, value)| request.header(*name, *value));
        self.send(request).await
    }

    pub(crate) async fn send(&self, request: http::request::Builder) -> Got {
        self.send_body(request, "").await
    }

    pub(crate) async fn send_body(&self, request: http::request::Builder, body: &'static str) -> Got {
        let response = self.begin_body(request, body).await;
        finish(response).await
    }

    /// Sends a request and returns with the response's head.
    pub(crate) async fn begin(&self, request: http::request::Builder) -> Response<Incoming> {
        self.begin_body(request, "").await
    }

    async fn begin_body(&self, request: http::request::Builder, body: &'static str) -> Response<Incoming> {
        self.begin_with(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    }

    /// Sends a request with any content, which may fail, and returns with the response's head.
    pub(crate) async fn begin_with<B>(&self, mut request: Request<B>) -> hyper::Result<Response<Incoming>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", "shop.example".parse().unwrap());
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        let edge = Arc::clone(&self.edge);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let edge = Arc::clone(&edge);
                let peer = Peer {
                    address: [192, 0, 2, 1].into(),
                    port: 1234,
                    reached: ([10, 0, 0, 1], 443).into(),
                    scheme: Scheme::Https,
                    acquaintance: None,
                };
                async move {
                    let request = request.map(|incoming| Content::http1(incoming, &Activity::default()));
                    Ok::<_, std::convert::Infallible>(handle(&edge, peer, None, request).await)
                }
            });
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service).await;
        });
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    }
}

pub(crate) async fn finish(response: Response<Incoming>) -> Got {
    let (head, body) = response.into_parts();
    let body =
        body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string());
    Got { status: head.status.as_u16(), headers: head.headers, body }
}

/// Lets every task that can run do so, without time passing.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
    settle().await;
}

/// How often the upstream was asked for each target.
pub(crate) fn by_target(seen: &[Seen]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for request in seen {
        *counts.entry(request.target.clone()).or_default() += 1;
    }
    counts
}
