//! Connections to one server: those that wait for requests, and how new ones are made.
//!
//! Promises: a server that is reached by TLS is never spoken to without; requests that come together share one HTTP/2
//! connection, and the failure to make it; what a server spoke last is a hint that costs nothing when it does not hold any
//! more.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cache_policy::Moment;
use http::{HeaderMap, header};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, timeout, timeout_at},
};

use super::{
    address::Endpoint,
    connect::{Dial, NoAddress},
    http1::Http1Connection,
    idle::IdleConnections,
    sender::{Http2Connection, Sender, UNSAID},
    tls::{ClientTls, HttpVersion, Offer},
};
use crate::{
    clock::Clock,
    message::{byte_stream::ByteStream, failure::Failure},
    settings::{self, ProxyProtocol, ServerProtocol},
};

/// A connection, or a place on one, and when it is too old for another request.
pub type Connected = (Sender, Moment);

/// The connections to one server.
pub struct Connector {
    pub endpoint: Endpoint,
    settings: Arc<settings::UpstreamSettings>,
    tls: Option<Arc<ClientTls>>,
    pub idle: Arc<IdleConnections>,
    /// Whether the server chose HTTP/1.1 last.
    chose_http1: AtomicBool,
    dialler: Dialler,
}

/// A connection that has just been made.
pub enum Opened {
    Http1(Sender),
    Http2(Arc<Http2Connection>),
}

impl Connector {
    /// No connection yet.
    pub fn new(
        endpoint: Endpoint,
        settings: &Arc<settings::UpstreamSettings>,
        tls: Option<&Arc<ClientTls>>,
    ) -> Self {
        Self {
            endpoint,
            settings: Arc::clone(settings),
            tls: tls.cloned(),
            idle: Arc::default(),
            chose_http1: AtomicBool::new(false),
            dialler: Dialler::default(),
        }
    }

    /// A connection that is there, or a place on one.
    pub fn kept(&self, headers: &HeaderMap, now: Moment) -> Option<Connected> {
        if self.is_for_one() {
            return None;
        }
        if self.offer(headers) == Offer::Http1 {
            return self.idle.take(now);
        }
        self.idle.share(self.settings.streams, now).or_else(|| self.idle.take(now))
    }

    /// A new connection, or a place on one that another request has made meanwhile.
    ///
    /// # Errors
    /// [`Failure`]: none can be made.
    pub async fn connection(
        &self,
        headers: &HeaderMap,
        introduction: Option<&Bytes>,
        dial: &dyn Dial,
        clock: &Clock,
    ) -> Result<Connected, Failure> {
        // Each has a connection of its own, unless a server that chose HTTP/1.1 last chooses otherwise today.
        let chose_http1 = self.chose_http1.load(Ordering::Relaxed);
        if self.offer(headers) == Offer::Http1 || chose_http1 || self.is_for_one() {
            return self.connect(headers, introduction, dial, clock).await;
        }
        // Requests that come together share what the first of them dials, and its failure.
        let waits_since = clock.now();
        let turn = timeout(self.settings.connect_timeout, self.dialler.turn(waits_since));
        let turn = turn.await.unwrap_or(Err(Failure::Busy))?;
        if let Some(shared) = self.idle.share(self.settings.streams, clock.now()) {
            return Ok(shared);
        }
        if self.chose_http1.load(Ordering::Relaxed) {
            drop(turn);
            return self.connect(headers, introduction, dial, clock).await;
        }
        let connected = self.connect(headers, introduction, dial, clock).await;
        if let Err(failure) = &connected {
            turn.failed(failure, clock.now());
        }
        connected
    }

    /// What is offered of versions of HTTP for a request with these fields.
    fn offer(&self, headers: &HeaderMap) -> Offer {
        let is_http1 = self.endpoint.protocol == ServerProtocol::Http1;
        if is_http1 || self.wants_tunnel(headers) { Offer::Http1 } else { Offer::Either }
    }

    /// Whether each connection carries one request alone: it begins with who its client is.
    fn is_for_one(&self) -> bool {
        self.settings.proxy_protocol != ProxyProtocol::Off
    }

    /// HTTP/2 has no Upgrade (RFC 9113 §8.6): a server that speaks nothing else is asked without, and answers as to anybody
    /// who does not ask.
    fn wants_tunnel(&self, headers: &HeaderMap) -> bool {
        asks_for_tunnel(headers) && self.endpoint.protocol != ServerProtocol::H2c
    }

    /// Makes a connection that begins with an `introduction`, and lets others share one of HTTP/2.
    ///
    /// # Errors
    /// [`Failure`]: none can be made.
    pub async fn connect(
        &self,
        headers: &HeaderMap,
        introduction: Option<&Bytes>,
        dial: &dyn Dial,
        clock: &Clock,
    ) -> Result<Connected, Failure> {
        let retires = clock.now() + self.settings.connection_age;
        let opened = self.open(self.offer(headers), retires, introduction, dial).await?;
        let is_for_one = self.is_for_one();
        let sender = match opened {
            Opened::Http1(sender) => sender,
            Opened::Http2(connection) => {
                let stream = connection.stream(usize::MAX, clock.now()).ok_or(Failure::Closed)?;
                if !is_for_one {
                    self.idle.add(&connection, clock.now());
                }
                Sender::Http2(stream)
            }
        };
        Ok((sender, if is_for_one { clock.now() } else { retires }))
    }

    /// Connects, and says hello in the version of HTTP that both sides speak.
    ///
    /// # Errors
    /// [`Failure`]: none can be made.
    pub async fn open(
        &self,
        offer: Offer,
        retires: Moment,
        introduction: Option<&Bytes>,
        dial: &dyn Dial,
    ) -> Result<Opened, Failure> {
        let (stream, spoken) = self.dial(offer, introduction, dial).await?;
        if offer == Offer::Either {
            self.chose_http1.store(spoken == HttpVersion::Http1, Ordering::Relaxed);
        }
        match spoken {
            HttpVersion::Http1 => {
                let connection = Http1Connection::new(stream, self.settings.heads);
                Ok(Opened::Http1(Sender::Http1(Box::new(connection))))
            }
            HttpVersion::Http2 => {
                let window =
                    u32::try_from(self.settings.streams).unwrap_or(u32::MAX).saturating_mul(STREAM_WINDOW);
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .initial_max_send_streams(UNSAID)
                    .initial_stream_window_size(STREAM_WINDOW)
                    // As in the edge's own server: streams that nobody reads must not stop the others.
                    .initial_connection_window_size(window.min(LARGEST_WINDOW))
                    .max_header_list_size(u32::try_from(self.settings.heads.head).unwrap_or(u32::MAX))
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| Failure::Malformed(Arc::new(error)))?;
                let scheme = if self.endpoint.protocol == ServerProtocol::Tls { "https" } else { "http" };
                let connection = Http2Connection::new(sender, connection, scheme, retires);
                // Or more would be sent than it takes at once, and wait where nobody counts them.
                let _ = timeout(SETTLING, connection.settled()).await;
                Ok(Opened::Http2(connection))
            }
        }
    }

    /// Connects, says who asks, and shakes hands where the server is reached by TLS.
    async fn dial(
        &self,
        offer: Offer,
        introduction: Option<&Bytes>,
        dial: &dyn Dial,
    ) -> Result<(Box<dyn ByteStream>, HttpVersion), Failure> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let dialling = dial.dial(&self.endpoint.address);
        let mut stream = match timeout_at(deadline, dialling).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_unresolved(&error) => {
                return Err(Failure::Resolve(Arc::new(error)));
            }
            Ok(Err(error)) => return Err(Failure::Connect(Arc::new(error))),
            Err(_) => return Err(Failure::ConnectTimeout),
        };
        if let Some(introduction) = introduction {
            match timeout_at(deadline, stream.write_all(introduction)).await {
                Ok(written) => written.map_err(|error| Failure::Connect(Arc::new(error)))?,
                Err(_) => return Err(Failure::ConnectTimeout),
            }
        }
        let tls = match self.endpoint.protocol {
            ServerProtocol::Http1 => return Ok((stream, HttpVersion::Http1)),
            ServerProtocol::H2c => return Ok((stream, HttpVersion::Http2)),
            ServerProtocol::Tls => self.tls.as_ref(),
        };
        let Some(tls) = tls else {
            return Err(Failure::Tls(Arc::new(io::Error::other("TLS was not set up for this server"))));
        };
        let shaking = timeout_at(deadline, tls.connect(&self.endpoint.host, offer, stream)).await;
        let failed = match shaking {
            Ok(Ok(shaken)) => return Ok(shaken),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        // A server that speaks HTTP/2 alone refuses who offers HTTP/1.1 alone: any client could bring that about.
        Err(match offer {
            Offer::Either => Failure::Tls(Arc::new(failed)),
            Offer::Http1 => Failure::NoTunnel(Arc::new(failed)),
        })
    }
}

/// Only a request whose upgrade is forwarded has this field.
pub fn asks_for_tunnel(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

fn is_unresolved(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<NoAddress>)
}

/// Lets one request at a time dial a server whose connections are shared.
#[derive(Default)]
struct Dialler {
    turn: tokio::sync::Mutex<()>,
    failed: parking_lot::Mutex<Option<(Moment, Failure)>>,
}

/// The right to dial.
struct DialTurn<'a> {
    failed: &'a parking_lot::Mutex<Option<(Moment, Failure)>>,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Dialler {
    /// Waits for the turn; the failure of another's attempt that ended meanwhile is this one's too.
    async fn turn(&self, since: Moment) -> Result<DialTurn<'_>, Failure> {
        let turn = self.turn.lock().await;
        match &*self.failed.lock() {
            Some((at, failure)) if *at >= since => Err(failure.clone()),
            _ => Ok(DialTurn { failed: &self.failed, _turn: turn }),
        }
    }
}

impl DialTurn<'_> {
    fn failed(self, failure: &Failure, now: Moment) {
        *self.failed.lock() = Some((now, failure.clone()));
    }
}

/// Bytes of one HTTP/2 response that may come before they are read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The largest window that HTTP/2 knows (RFC 9113 §6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// How long a server's settings are waited for.
const SETTLING: Duration = Duration::from_secs(1);
/// How often a server with requests under way is asked for a sign of life, and how long it may take to give one.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
