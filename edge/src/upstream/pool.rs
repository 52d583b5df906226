//! The connections to one server: how many, which requests wait for one, and which are idle.
//!
//! Exchanges and tunnels have places of their own: a WebSocket that lasts for hours takes none from requests.
//!
//! Shared by all threads: a request may use a connection that another thread opened, so that few connections serve many
//! threads. HTTP/1.1 carries one request at a time, so a connection is either idle in the list or owned by one request.

use std::{
    io,
    net::Ipv6Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cache_policy::Moment;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    RequestBody, ResponseBody,
    choose::Candidate,
    connect::{Dial, NoAddress},
    health::{self, Health, Repeat},
    idle::{Connection, IdleConnections, Lease, Watch},
    response_body::Answer,
    retry::Again,
    sender::Sender,
};
use crate::{clock::Clock, message::failure::Failure, settings};

/// A server's place on the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: Arc<str>,
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.parse::<Ipv6Addr>().is_ok() {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

/// One server's connections.
pub struct Pool {
    endpoint: Endpoint,
    settings: Arc<settings::Upstream>,
    idle: Arc<IdleConnections>,
    exchanges: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
    waiting: AtomicUsize,
    health: Arc<Health>,
}

/// A request that got no response: why, and the request itself when it surely was not acted upon.
pub struct Unsent {
    pub failure: Failure,
    /// The request, to try elsewhere.
    pub request: Option<Box<Request<RequestBody>>>,
}

/// A request's place at a server.
struct Place {
    exchange: OwnedSemaphorePermit,
    /// Where it asks for a tunnel: one is promised before it is sent.
    tunnel: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// No connection yet.
    pub fn new(endpoint: Endpoint, settings: &Arc<settings::Upstream>, health: Arc<Health>) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            settings: Arc::clone(settings),
            idle: Arc::default(),
            exchanges: Arc::new(Semaphore::new(settings.connections)),
            tunnels: Arc::new(Semaphore::new(settings.tunnels)),
            waiting: AtomicUsize::new(0),
            health,
        })
    }

    /// What is remembered of the server.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// When the server is put aside.
    pub fn rules(&self) -> health::Rules {
        health::Rules { failures: self.settings.failures, rest: self.settings.put_aside }
    }

    /// How the server stands for a request.
    pub fn candidate(&self, headers: &HeaderMap, repeat: Repeat, now: Moment) -> Candidate {
        let (standing, burden) = self.health.standing(repeat, now);
        Candidate { tried: false, standing, load: 1000 * self.busy(headers) as u64 + burden }
    }

    /// Requests now under way; for one that asks for a tunnel also the tunnels, which are shared out too.
    fn busy(&self, headers: &HeaderMap) -> usize {
        let exchanges = self.settings.connections - self.exchanges.available_permits();
        let tunnels = match asks_for_tunnel(headers) {
            true => self.settings.tunnels - self.tunnels.available_permits(),
            false => 0,
        };
        exchanges + tunnels + self.waiting.load(Ordering::Relaxed)
    }

    /// Sends one request on an idle connection or a new one; on an idle one that turns out closed, `again` is sent once
    /// more (RFC 9112 §9.3.1).
    ///
    /// # Errors
    /// [`Unsent`], with the request inside when it may be tried elsewhere.
    pub async fn send(
        &self,
        mut request: Request<RequestBody>,
        again: Option<&Again>,
        dial: &dyn Dial,
        clock: &Clock,
    ) -> Result<Answer, Unsent> {
        let place = match self.place(request.headers()).await {
            Ok(place) => place,
            // With a full queue another server may have room; a wait that timed out is not repeated elsewhere.
            Err(Queue::Full) => {
                return Err(Unsent { failure: Failure::Busy, request: Some(Box::new(request)) });
            }
            Err(Queue::TooLong) => return Err(Unsent { failure: Failure::Busy, request: None }),
        };
        // At most two idle connections may turn out dead before a new one is dialled: bounded, and no request is lost to
        // a server that restarted.
        for _ in 0..2 {
            let Some((mut sender, retires)) = self.idle.take(clock.now()) else { break };
            // Its last response has been read to the end, so it is ready as soon as its task has run once more.
            let ready = tokio::time::timeout(self.settings.connect_timeout, sender.ready());
            if !matches!(ready.await, Ok(Ok(()))) {
                continue;
            }
            let progress = request.body().progress();
            match self.exchange(&mut sender, request).await {
                Ok(response) => {
                    let Place { exchange: permit, tunnel } = place;
                    let connection = Connection { sender, progress, permit, retires };
                    return self.answer(response, self.lease(connection, clock), tunnel, again);
                }
                Err(Unsent { failure: Failure::Closed, request: None }) => match again {
                    Some(again) => request = again.request(),
                    None => return Err(Unsent { failure: Failure::Closed, request: None }),
                },
                Err(Unsent { failure: Failure::Closed, request: Some(back) }) => request = *back,
                Err(unsent) => return Err(unsent),
            }
        }
        let mut sender = match self.connect(dial).await {
            Ok(sender) => sender,
            Err(failure) => return Err(Unsent { failure, request: Some(Box::new(request)) }),
        };
        let retires = clock.now() + self.settings.connection_age;
        let progress = request.body().progress();
        let response = self.exchange(&mut sender, request).await?;
        let Place { exchange: permit, tunnel } = place;
        let connection = Connection { sender, progress, permit, retires };
        self.answer(response, self.lease(connection, clock), tunnel, again)
    }

    async fn place(&self, headers: &HeaderMap) -> Result<Place, Queue> {
        let tunnel = match asks_for_tunnel(headers) {
            true => Some(Arc::clone(&self.tunnels).try_acquire_owned().map_err(|_| Queue::Full)?),
            false => None,
        };
        if let Ok(exchange) = Arc::clone(&self.exchanges).try_acquire_owned() {
            return Ok(Place { exchange, tunnel });
        }
        let place = Waiting::enter(&self.waiting);
        if place.before >= self.settings.waiting {
            return Err(Queue::Full);
        }
        let wait = self.settings.waiting_timeout;
        match tokio::time::timeout(wait, Arc::clone(&self.exchanges).acquire_owned()).await {
            Ok(exchange) => Ok(Place { exchange: exchange.expect("the semaphore is never closed"), tunnel }),
            Err(_) => Err(Queue::TooLong),
        }
    }

    async fn connect(&self, dial: &dyn Dial) -> Result<Sender, Failure> {
        let dialling = dial.dial(&self.endpoint.host, self.endpoint.port);
        let stream = match tokio::time::timeout(self.settings.connect_timeout, dialling).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_unresolved(&error) => {
                return Err(Failure::Resolve(Arc::new(error)));
            }
            Ok(Err(error)) => return Err(Failure::Connect(Arc::new(error))),
            Err(_) => return Err(Failure::ConnectTimeout),
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(self.settings.heads.head.max(READ_BUFFER))
            .max_header_size(self.settings.heads.head)
            .max_headers(self.settings.heads.fields)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Malformed(Arc::new(error)))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Sender::new(sender, task))
    }

    async fn exchange(
        &self,
        sender: &mut Sender,
        request: Request<RequestBody>,
    ) -> Result<http::Response<hyper::body::Incoming>, Unsent> {
        let (progress, settings) = (request.body().progress(), &self.settings);
        // The upstream's time runs from the request's end; until then the client's patience is what counts.
        let overdue = async {
            // An upstream that stops reading a body is as silent as one that does not answer.
            let pause = settings.response_timeout + settings.idle_timeout;
            let mut steps = progress.steps();
            while tokio::time::timeout(pause, progress.end()).await.is_err() {
                let taken = progress.steps();
                if taken == steps {
                    return;
                }
                steps = taken;
            }
            tokio::time::sleep(settings.response_timeout).await;
        };
        let sent = tokio::select! {
            sent = sender.try_send_request(request) => sent,
            () = overdue => return Err(Unsent { failure: Failure::Timeout, request: None }),
        };
        match sent {
            Ok(response) => Ok(response),
            Err(mut error) => {
                if let Some(request) = error.take_message() {
                    return Err(Unsent { failure: Failure::Closed, request: Some(Box::new(request)) });
                }
                let error = error.into_error();
                let failure = match progress.broke() {
                    Some(error) => Failure::RequestBody(error.clone()),
                    None if error.is_parse_too_large() => Failure::HeadTooLarge(settings.heads),
                    None if error.is_parse() => Failure::Malformed(Arc::new(error)),
                    None => Failure::Closed,
                };
                Err(Unsent { failure, request: None })
            }
        }
    }

    fn lease(&self, connection: Connection, clock: &Clock) -> Lease {
        let watch = Watch { health: Arc::clone(&self.health), rules: self.rules() };
        Lease::new(&self.idle, connection, watch, self.settings.keep_alive, clock)
    }

    /// The response, with the place that its connection has while it is read.
    fn answer(
        &self,
        mut response: http::Response<hyper::body::Incoming>,
        mut lease: Lease,
        tunnel: Option<OwnedSemaphorePermit>,
        again: Option<&Again>,
    ) -> Result<Answer, Unsent> {
        one_length(response.headers_mut()).map_err(|failure| Unsent { failure, request: None })?;
        lease.read_keep_alive(response.headers());
        if self.settings.fails(response.status()) {
            lease.has_failed();
        }
        let pause = self.settings.idle_timeout;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // The connection is no longer HTTP's: it keeps its place among the tunnels until the tunnel ends.
            match tunnel {
                Some(permit) => lease.change_place(permit),
                None => return Err(Unsent { failure: Failure::Unasked, request: None }),
            }
            lease.lasts();
            return Ok(response.map(|incoming| ResponseBody::new(incoming, pause, Some(lease))));
        }
        if is_event_stream(response.headers()) && !response.body().is_end_stream() {
            // It goes on for as long as its client likes, as a tunnel does.
            match Arc::clone(&self.tunnels).try_acquire_owned() {
                Ok(permit) => lease.change_place(permit),
                // It has been acted on, and 503 would have the client send it once more: the stream keeps the place that
                // the request had (RFC 9110 §9.2.2).
                Err(_) if again.is_none() => {}
                Err(_) => return Err(Unsent { failure: Failure::Busy, request: None }),
            }
            lease.lasts();
        }
        Ok(response.map(|incoming| {
            if incoming.is_end_stream() {
                lease.give_back();
                ResponseBody::new(incoming, pause, None)
            } else {
                ResponseBody::new(incoming, pause, Some(lease))
            }
        }))
    }

    /// Closes what has been idle for long enough, or is closed already.
    pub fn sweep(&self, now: Moment) {
        self.idle.sweep(now);
    }
}

fn is_unresolved(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<NoAddress>)
}

/// Only a request whose upgrade is forwarded has this field.
fn asks_for_tunnel(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Leaves at most one statement of a response's length, for forwarding two would smuggle a second framing
/// (RFC 9112 §6.3): none beside Transfer-Encoding, which overrides it, and one in place of several that agree.
///
/// # Errors
/// When they do not agree.
fn one_length(headers: &mut HeaderMap) -> Result<(), Failure> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
        return Ok(());
    }
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), second) = (lines.next(), lines.next()) else { return Ok(()) };
    if second.is_none() && !first.as_bytes().contains(&b',') {
        return Ok(());
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths =
        lengths.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let one = lengths.next().unwrap_or_default();
    if one.is_empty() || !one.iter().all(u8::is_ascii_digit) || lengths.any(|other| other != one) {
        return Err(Failure::Lengths);
    }
    let one = HeaderValue::from_bytes(one).map_err(|_| Failure::Lengths)?;
    headers.insert(header::CONTENT_LENGTH, one);
    Ok(())
}

/// Why no connection is available.
enum Queue {
    Full,
    TooLong,
}

/// A place in the queue for a connection.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of a response that are read at once (more where the settings allow a longer head).
const READ_BUFFER: usize = 64 * 1024;
