//! A scripted origin, an edge in front of it, and a client: all in one paused runtime.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use edge::{
    cache::{
        tier::Tier,
        tiers::{Bounds, Tiers},
    },
    clock::Clock,
    content::Content,
    handle::{Peer, handle},
    inbound::Scheme,
    metrics::Metrics,
    record::{AccessLog, Sink},
    settings::{self, LogFormat},
    state::Edge,
    upstream::{
        Commands,
        connect::{Dial, Dialling, Stream},
    },
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, mpsc};

pub(crate) type Answer = Response<BoxBody<Bytes, io::Error>>;

/// One request as the origin saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
}

type Script = Box<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// What the script does with a request.
pub(crate) enum Reply {
    /// Answer at once.
    Now(Answer),
    /// Answer once the barrier is opened.
    After(Arc<Notify>, Answer),
    /// Answer after this long.
    Late(Duration, Answer),
    /// Close the connection without a word.
    HangUp,
}

/// The origin: answers by its script and remembers what it was asked.
#[derive(Clone)]
pub(crate) struct Origin(Arc<Inner>);

struct Inner {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    reachable: Mutex<bool>,
    clock: Clock,
}

impl Origin {
    pub(crate) fn new(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            script: Mutex::new(Box::new(script)),
            seen: Mutex::default(),
            reachable: Mutex::new(true),
            clock: Clock::starting_at(start()),
        }))
    }

    /// Always the same answer.
    pub(crate) fn saying(fields: &'static [(&'static str, &'static str)], body: &'static str) -> Self {
        Self::new(move |_| Reply::Now(answer(200, fields, body)))
    }

    pub(crate) fn change(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.0.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.seen.lock().unwrap().len()
    }

    pub(crate) fn unplug(&self) {
        *self.0.reachable.lock().unwrap() = false;
    }

    async fn reply(&self, request: Request<Incoming>) -> Result<Answer, io::Error> {
        let (head, body) = request.into_parts();
        drop(body.collect().await);
        let seen =
            Seen { method: head.method.to_string(), target: head.uri.to_string(), headers: head.headers };
        self.0.seen.lock().unwrap().push(seen.clone());
        let reply = (self.0.script.lock().unwrap())(&seen);
        let mut answer = self.perform(reply).await?;
        // hyper would take the system's clock, which does not stand still.
        let date = httpdate::fmt_http_date(self.0.clock.wall()).parse().unwrap();
        answer.headers_mut().entry("date").or_insert(date);
        Ok(answer)
    }

    async fn perform(&self, reply: Reply) -> Result<Answer, io::Error> {
        match reply {
            Reply::Now(answer) => Ok(answer),
            Reply::After(barrier, answer) => {
                barrier.notified().await;
                Ok(answer)
            }
            Reply::Late(wait, answer) => {
                tokio::time::sleep(wait).await;
                Ok(answer)
            }
            Reply::HangUp => Err(io::Error::other("scripted")),
        }
    }
}

impl Dial for Origin {
    fn dial<'a>(&'a self, _host: &'a str, _port: u16) -> Dialling<'a> {
        Box::pin(async move {
            if !*self.0.reachable.lock().unwrap() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            let origin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let origin = origin.clone();
                    async move { origin.reply(request).await }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(far), service)
                    .await;
            });
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }
}

struct NoCommands;

impl Commands for NoCommands {
    fn ready(&self, _command: &str) -> Arc<[SocketAddr]> {
        Arc::from([])
    }
}

/// A response of the script; the origin dates it.
pub(crate) fn answer(status: u16, fields: &[(&'static str, &'static str)], body: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in fields {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}

/// A body the test sends piece by piece; dropping it is the body's end.
pub(crate) struct Pieces(mpsc::UnboundedSender<Result<Frame<Bytes>, io::Error>>);

impl Pieces {
    pub(crate) fn send(&self, piece: &'static str) {
        self.0.send(Ok(Frame::data(Bytes::from(piece)))).unwrap();
    }

    pub(crate) fn fail(self) {
        self.0.send(Err(io::Error::other("scripted"))).unwrap();
    }
}

/// An answer whose body the test sends piece by piece.
pub(crate) fn in_pieces(fields: &[(&'static str, &'static str)]) -> (Pieces, Answer) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let response =
        answer(200, fields, "").map(|_| BoxBody::new(StreamBody::new(SyncStream(Box::pin(stream)))));
    (Pieces(sender), response)
}

/// `BoxBody` wants `Sync`; only one task ever polls it.
struct SyncStream<S>(std::pin::Pin<Box<S>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
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

/// Settings with one route that caches, and the origin behind it.
pub(crate) fn front(origin: &Origin) -> Front {
    front_with(origin, "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = {}\n")
}

pub(crate) fn front_with(origin: &Origin, more: &str) -> Front {
    front_over(Arc::new(origin.clone()), more)
}

/// Settings with these routes, and whatever is dialled behind them.
pub(crate) fn front_over(dial: Arc<dyn Dial>, more: &str) -> Front {
    front_before(Vec::new(), start(), dial, more)
}

/// As [`front_over`], with tiers behind memory, by a wall clock that shows `wall` now.
pub(crate) fn front_before(
    tiers: Vec<(Arc<dyn Tier>, Bounds)>,
    wall: SystemTime,
    dial: Arc<dyn Dial>,
    more: &str,
) -> Front {
    let text = format!(
        "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[cache]\nmemory = \"32 MiB\"\nlargest_object = \"1 MiB\"\n\
         [upstreams.origin]\nservers = [\"http://origin:80\"]\n{more}"
    );
    let settings = settings::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"));
    let clock = Clock::starting_at(wall);
    let metrics = Arc::new(Metrics::new());
    let tiers = Tiers::new(tiers, &clock, &metrics);
    let log = AccessLog::start(LogFormat::Off).unwrap();
    let sink = Arc::new(Sink { clock: clock.clone(), metrics: Arc::clone(&metrics), log });
    let edge = Edge::before(tiers, settings, clock, metrics, sink, dial, Arc::new(NoCommands)).unwrap();
    Front { edge }
}

/// Monday, 23 November 2026, 12:00:00 GMT.
pub(crate) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_435_200)
}

impl Front {
    pub(crate) async fn get(&self, target: &str) -> Got {
        self.send(Request::get(target)).await
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
        let mut request = request.body(Full::new(Bytes::from(body))).unwrap();
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", "shop.example".parse().unwrap());
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        let edge = Arc::clone(&self.edge);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let edge = Arc::clone(&edge);
                let peer = Peer { address: [192, 0, 2, 1].into(), scheme: Scheme::Https };
                async move {
                    let request = request.map(Content::http1);
                    Ok::<_, std::convert::Infallible>(handle(&edge, peer, None, request).await)
                }
            });
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service).await;
        });
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
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

/// How often the origin was asked for each target.
pub(crate) fn by_target(seen: &[Seen]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for request in seen {
        *counts.entry(request.target.clone()).or_default() += 1;
    }
    counts
}
