//! One client connection from accept to close: handshake, protocol, deadlines, drain.
//!
//! ```text
//!   Handshake --(ALPN h2)--> HTTP/2 --+
//!       |                             |--> Fresh -> (Idle <-> Head ->) InFlight ... -> closed
//!       '--(else)--------> HTTP/1.x --+
//! ```
//!
//! Every state has a deadline, kept by one lazy timer for each connection: requests only record that something
//! happened, and the timer reads it when it fires. So a connection with a request in flight costs no timer work.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    downstream::{
        deadlines::{Deadlines, InFlight, Lateness, Protocol, STALLED},
        http2,
        places::Places,
        proxy_protocol::Introducers,
        socket::{ConnectionPermit, Watched},
        tls::CurrentCertificates,
        unread,
    },
    message::{
        body_error::BodyError,
        certified::Acquaintance,
        challenges::ACME_TLS,
        client_shares::ClientShare,
        content::Content,
        interim::Interim,
        target::Scheme,
        turn::{Incoming, Turn},
    },
    observe::record::Recorded,
    pipeline::{Peer, handle, refuse},
    request::{client::ClientKey, refusal::Refusal},
    response::{body::Body, fields},
    settings::{Bounds, Timeouts},
    state::Edge,
    upstream::introduction::Ends,
};

/// What connections to a listener begin with, in this order, and when they are to end.
#[derive(Clone, Default)]
pub struct Entrance {
    /// Who introduces clients by a PROXY header.
    pub introducers: Option<Arc<Introducers>>,
    /// `None` for clear text.
    pub tls: Option<TlsEntrance>,
    /// `Strict-Transport-Security` of every answer to clients whose connection is encrypted.
    pub hsts: Option<HeaderValue>,
    /// Cancelled when the listener goes, or the edge: requests under way are answered, and the connection closes. What a
    /// connection was upgraded to goes on as long as the edge.
    pub leave: CancellationToken,
}

/// How a connection begins that is encrypted.
#[derive(Clone)]
pub struct TlsEntrance {
    pub acceptor: TlsAcceptor,
    /// Those that it shows.
    pub certificates: Arc<CurrentCertificates>,
    /// The places of handshakes under way, of all listeners.
    pub handshakes: Arc<Places>,
}

/// A connection gave its place to a newcomer, or found none: `bounds.connections` are open.
pub const CONNECTIONS: &str = "connections";
/// The same among those of one client: `bounds.connections_per_client`.
const PER_CLIENT: &str = "connections-per-client";
/// A handshake gave its place to a newcomer: `bounds.handshakes` are under way.
const HANDSHAKES: &str = "handshakes";

/// One of the connections that a client may have. Where it has them all, the longest idle of them makes room. `None` for a
/// trusted proxy, which has many clients, and where there is no such bound.
///
/// # Errors
/// [`OverShare`]: it has them all, and all are busy.
pub fn share_of(edge: &Edge, places: &Places, client: IpAddr) -> Result<Option<ClientShare>, OverShare> {
    let state = edge.state.load();
    let (bounds, clients) = (&state.settings.bounds, &state.settings.clients);
    if bounds.connections_per_client >= bounds.connections {
        return Ok(None);
    }
    let Some(number) = ClientKey::own_number_at(client, clients) else { return Ok(None) };
    if let Some(share) = edge.connections_by_client.try_take(number) {
        return Ok(Some(share));
    }
    edge.metrics.cut_off(PER_CLIENT);
    if places.close_longest_idle_of(number) {
        tracing::debug!(%client, reason = PER_CLIENT, "a connection makes room for another of its client");
        return Ok(Some(edge.connections_by_client.take(number)));
    }
    tracing::debug!(%client, reason = PER_CLIENT, "a connection is refused");
    Err(OverShare)
}

/// A client has as many connections as it may.
#[derive(Clone, Copy, Debug)]
pub struct OverShare;

/// Serves a connection until it closes, a deadline passes, or it has been drained.
pub async fn serve(
    edge: Arc<Edge>,
    stream: TcpStream,
    address: SocketAddr,
    entrance: Entrance,
    place: ConnectionPermit,
) {
    let opened = edge.clock.now();
    if speaks(&edge, &stream, &entrance, &place).await {
        let waited = edge.clock.now().since(opened);
        // Boxed: a connection that says nothing should not carry the room for what it could say.
        Box::pin(converse(edge, Speaking { stream, address, waited }, entrance, place)).await;
    }
}

/// Waits until the client says something, or closes: `false` where it does not in time, or another needs its place.
async fn speaks(edge: &Edge, stream: &TcpStream, entrance: &Entrance, place: &ConnectionPermit) -> bool {
    let Entrance { introducers, tls, leave, .. } = entrance;
    let timeouts = edge.state.load().settings.timeouts.clone();
    let encrypted = tls.is_some() && introducers.is_none();
    let patience = if encrypted { timeouts.handshake } else { timeouts.header };
    let deadlines = Deadlines::new(&edge.clock, Protocol::Http1, patience);
    let drain = leave.child_token();
    let _seat = place.seat(&deadlines, drain.clone());
    let leaves = async {
        drain.cancelled().await;
        if leave.is_cancelled() {
            tokio::time::sleep(FIRST_HEAD).await;
        }
    };
    let mut first = [0];
    tokio::select! {
        // Not `readable`, which is true of each new connection until something is read.
        peeked = stream.peek(&mut first) => peeked.is_ok(),
        () = tokio::time::sleep(patience) => false,
        () = leaves => false,
    }
}

/// A connection on which something has come.
struct Speaking {
    stream: TcpStream,
    address: SocketAddr,
    /// How long it took.
    waited: Duration,
}

async fn converse(
    edge: Arc<Edge>,
    Speaking { mut stream, address, waited }: Speaking,
    Entrance { introducers, tls, hsts, leave }: Entrance,
    mut place: ConnectionPermit,
) {
    let state = edge.state.load_full();
    let (timeouts, bounds) = (state.settings.timeouts.clone(), state.settings.bounds.clone());
    let stall = state.settings.routes.iter().map(|route| route.times.longest_silence()).max();
    let stall = stall.unwrap_or(timeouts.total + timeouts.body);
    drop(state);
    let encrypted = tls.is_some();
    let scheme = if encrypted { Scheme::Https } else { Scheme::Http };
    // Unknown where the client has gone already.
    let reached = stream.local_addr().unwrap_or(SocketAddr::from(([0; 4], 0)));
    let own = address.ip().to_canonical();
    let mut peer = Peer { address: own, port: address.port(), reached, scheme, acquaintance: None };
    if let Some(introducers) = introducers {
        // Boxed: most listeners have none, and their connections should not carry the room for reading a header.
        let met = Box::pin(introducers.meet(&edge, &mut stream, address, timeouts.header)).await;
        let Ok(introduced) = met else { return };
        if let Some(Ends { source, destination }) = introduced.ends {
            (peer.address, peer.port, peer.reached) = (source.ip(), source.port(), destination);
        }
        if !encrypted {
            peer.scheme = introduced.scheme.unwrap_or(scheme);
        }
        // Only now is it known whose connection it is.
        match share_of(&edge, place.place.places(), peer.address) {
            Ok(share) => place.share = share,
            Err(OverShare) => return,
        }
    }
    // A child token: checking the shared one takes a lock that all connections share.
    let drain = leave.child_token();
    let hsts = hsts.filter(|_| peer.scheme == Scheme::Https);
    let mut client = ClientConnection {
        edge,
        peer,
        timeouts,
        bounds,
        stall,
        hsts,
        leave,
        drain,
        waited,
        acquaintance: None,
    };
    // Boxed, each of them: a connection should not carry the room for what it does not speak.
    let Some(tls) = tls else { return Box::pin(client.http1(stream, place)).await };
    // Boxed: it is over when the connection has hardly begun.
    match Box::pin(client.handshake(&tls, stream, &place)).await {
        Some(stream) => {
            let session = stream.get_ref().1;
            let is_http2 = session.alpn_protocol() == Some(b"h2");
            // An authority has seen what it asked for.
            if session.alpn_protocol() == Some(ACME_TLS) {
                return;
            }
            client.waited = Duration::ZERO;
            client.acquaintance = tls.certificates.acquaintance(session, is_http2).map(Arc::new);
            if is_http2 {
                Box::pin(client.http2(stream, place)).await;
            } else {
                Box::pin(client.http1(stream, place)).await;
            }
        }
        None => client.edge.metrics.handshake_failed(),
    }
}

/// What a connection needs beside its socket.
struct ClientConnection {
    edge: Arc<Edge>,
    peer: Peer<'static>,
    timeouts: Timeouts,
    bounds: Bounds,
    stall: Duration,
    hsts: Option<HeaderValue>,
    /// What is known by certificates.
    acquaintance: Option<Arc<Acquaintance>>,
    /// The listener's, which all its connections share.
    leave: CancellationToken,
    /// This connection's own.
    drain: CancellationToken,
    /// How much of the time for what comes next is over.
    waited: Duration,
}

impl ClientConnection {
    /// `None` where it fails, or takes too long; or where others need its place, among all connections or among handshakes.
    async fn handshake(
        &self,
        TlsEntrance { acceptor, certificates, handshakes }: &TlsEntrance,
        stream: TcpStream,
        place: &ConnectionPermit,
    ) -> Option<TlsStream<TcpStream>> {
        let client = self.peer.address;
        let deadlines = Deadlines::new(&self.edge.clock, Protocol::Http1, self.stall);
        let _seat = place.seat(&deadlines, self.drain.clone());
        let cut = CancellationToken::new();
        let accepted = async {
            let _place = match handshakes.try_take() {
                Some(place) => place,
                None => {
                    self.edge.metrics.cut_off(HANDSHAKES);
                    handshakes.take().await
                }
            };
            let _seat = handshakes.seat(&deadlines, cut.clone(), None);
            if !certificates.are_made_on_demand() {
                return acceptor.accept(stream).await;
            }
            let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            // Boxed: most listeners have none that is waited for.
            let number = ClientKey::own_number_at(client, &self.edge.state.load().settings.clients);
            Box::pin(certificates.be_ready_for(&begun.client_hello(), number)).await;
            begun.into_stream(Arc::clone(acceptor.config())).await
        };
        tokio::select! {
            accepted = tokio::time::timeout(self.timeouts.handshake.saturating_sub(self.waited), accepted) => match accepted {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => tracing::debug!(%error, %client, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%client, "a TLS handshake took too long"),
            },
            () = cut.cancelled() => tracing::debug!(%client, reason = HANDSHAKES, "a TLS handshake makes room"),
            () = self.gives_way() => tracing::debug!(%client, reason = CONNECTIONS, "a TLS handshake makes room"),
        }
        None
    }

    fn peer(&self) -> Peer<'_> {
        Peer { acquaintance: self.acquaintance.as_deref(), ..self.peer }
    }

    /// Waits until a newcomer needs the connection's place.
    async fn gives_way(&self) {
        self.drain.cancelled().await;
        if !self.makes_room() {
            std::future::pending::<()>().await;
        }
    }

    async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        place: ConnectionPermit,
    ) {
        let deadlines = Deadlines::new(&self.edge.clock, Protocol::Http1, self.stall);
        deadlines.has_waited(self.waited);
        let _seat = place.seat(&deadlines, self.drain.clone());
        let (interim, turn) = (Arc::<Interim>::default(), Arc::<Turn>::default());
        let socket = Watched::new(stream, Arc::clone(&deadlines), Arc::clone(&interim), place);
        let io = TokioIo::new(socket.with_http1(Arc::clone(&turn)));
        let connected = Http1Shared { deadlines: Arc::clone(&deadlines), interim, turn: Arc::clone(&turn) };
        let mut connection = http1::Builder::new()
            .max_header_size(self.bounds.head)
            .max_headers(self.bounds.fields)
            .max_buf_size(self.bounds.head.max(BUFFER))
            .timer(TokioTimer::new())
            // Our own timer tells an idle connection from a slow head.
            .header_read_timeout(None)
            .serve_connection(io, service_fn(|request| self.answer(&connected, request)))
            .with_upgrades();
        let ended = self
            .watch(&deadlines, |context, close| {
                if close {
                    Pin::new(&mut connection).graceful_shutdown();
                }
                Pin::new(&mut connection).poll(context)
            })
            .await;
        // Without parts the socket is a tunnel's.
        let Some(parts) = connection.into_parts() else { return };
        let mut socket = parts.io.into_inner();
        // An answer that is half sent would take any further octets for its own.
        let refusal = match socket.is_between_answers() {
            true => self.refusal(&ended, socket.refused(), &parts.read_buf, &deadlines),
            false => None,
        };
        deadlines.no_more_heads();
        // Of a head that is too large more is to come, also where none of it is there yet.
        let goes_on = matches!(refusal, Some(Refusal::HeadTooLarge(_) | Refusal::TargetTooLong));
        // Boxed: it takes place once, and is no part of what an open connection holds.
        let closing = Box::pin(async {
            if let Some(refusal) = refusal {
                socket.release();
                let head = unread::head(&parts.read_buf);
                let mut answer = refuse(&self.edge, self.peer, &head, &refusal);
                fields::strict_transport(answer.headers_mut(), self.hsts.as_ref());
                let answer = unread::in_http1(answer).await;
                let sent = async {
                    socket.write_all(&answer).await?;
                    socket.shutdown().await
                };
                if !matches!(tokio::time::timeout(self.timeouts.body, sent).await, Ok(Ok(()))) {
                    return;
                }
            } else if !matches!(ended, ConnectionEnd::Closed(Ok(()))) {
                return;
            }
            let left_over = goes_on
                || matches!(turn.incoming(), Incoming::UnderWay | Incoming::Abandoned)
                || poll_fn(|context| Poll::Ready(socket.is_sent_more(context))).await;
            if left_over {
                drop(tokio::time::timeout(LINGERING, socket.linger(MOST_LEFT_OVER)).await);
            }
        });
        tokio::select! {
            () = closing => {}
            () = self.hurried() => {}
        }
    }

    /// Waits until a connection without requests may not last longer: a newcomer waits for its place, or its listener goes.
    async fn hurried(&self) {
        self.drain.cancelled().await;
        tokio::time::sleep(if self.makes_room() { MAKING_ROOM } else { CLOSING }).await;
    }

    /// Why the connection ended without a request, where the client is to be told.
    fn refusal(
        &self,
        ended: &ConnectionEnd<hyper::Error>,
        refused: Option<StatusCode>,
        unread: &[u8],
        deadlines: &Deadlines,
    ) -> Option<Refusal> {
        match ended {
            ConnectionEnd::Closed(Err(error)) => match refused {
                Some(status) => Some(unread::refusal(status, error, unread, self.bounds.of_heads())),
                None if unread.starts_with(HTTP2_PREFACE) => Some(Refusal::VersionNotSupported(
                    "HTTP/2 is offered over TLS only, to those who ask for it by ALPN",
                )),
                None => None,
            },
            // The client has begun a head.
            ConnectionEnd::Late if deadlines.requests() == 0 && !unread.is_empty() => Some(Refusal::SlowHead),
            ConnectionEnd::Closed(Ok(())) | ConnectionEnd::Idle | ConnectionEnd::Late => None,
        }
    }

    /// Answers one request of an HTTP/1.x connection.
    async fn answer(
        &self,
        Http1Shared { deadlines, interim, turn }: &Http1Shared,
        request: Request<body::Incoming>,
    ) -> Result<Response<Counted>, Infallible> {
        let in_flight = InFlight::begin(Arc::clone(deadlines));
        // hyper answers an HTTP/1.0 client in its own version, which has no interim responses (RFC 9110 §15.2).
        let interim = (request.version() == Version::HTTP_11).then_some(&**interim);
        let mut response = handle(
            &self.edge,
            self.peer(),
            interim,
            request.map(|incoming| Content::in_turn(incoming, deadlines.activity(), turn)),
        )
        .await;
        fields::strict_transport(response.headers_mut(), self.hsts.as_ref());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            turn.switch();
        }
        Ok(response.map(|body| Counted { body, in_flight }))
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, place: ConnectionPermit) {
        let deadlines = Deadlines::new(&self.edge.clock, Protocol::Http2, self.stall);
        let _seat = place.seat(&deadlines, self.drain.clone());
        let io = Watched::new(stream, Arc::clone(&deadlines), Arc::default(), place);
        let edge = Arc::clone(&self.edge);
        let met =
            http2::Met { peer: self.peer, acquaintance: self.acquaintance.clone(), hsts: self.hsts.clone() };
        let shared = http2::ConnectionShared::new(edge, met, Arc::clone(&deadlines));
        let mut connection = http2::Connection::new(io, &self.bounds, shared);
        self.watch(&deadlines, |context, close| {
            if close {
                connection.close();
            }
            connection.poll(context)
        })
        .await;
    }

    /// Waits until the connection is asked to make room; or until its listener goes and the connection has had a first
    /// request, or its time to send one is over.
    async fn drained(&self, deadlines: &Deadlines) {
        self.drain.cancelled().await;
        if self.makes_room() {
            return;
        }
        tokio::select! {
            () = deadlines.first_request() => {}
            () = tokio::time::sleep(FIRST_HEAD) => {}
        }
    }

    /// Whether the connection, and not its listener, is to end.
    fn makes_room(&self) -> bool {
        self.drain.is_cancelled() && !self.leave.is_cancelled()
    }

    /// Drives a connection, keeps its deadlines, and closes it gracefully when its listener goes or it has been idle too
    /// long. It is dropped only as a last resort.
    async fn watch<E, F>(&self, deadlines: &Deadlines, mut drive: F) -> ConnectionEnd<E>
    where
        E: std::error::Error,
        F: FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
    {
        let mut close = false;
        let mut closing = false;
        loop {
            let wait = match deadlines.standing(&self.timeouts) {
                Lateness::Fine { look_again } if closing && self.makes_room() => look_again.min(MAKING_ROOM),
                Lateness::Fine { look_again } => look_again,
                Lateness::Idle if !closing => {
                    (close, closing) = (true, true);
                    CLOSING
                }
                Lateness::Idle => return ConnectionEnd::Idle,
                Lateness::SlowHead => return ConnectionEnd::Late,
                Lateness::Stalled => {
                    self.edge.metrics.cut_off(STALLED);
                    tracing::debug!(client = %self.peer.address, reason = STALLED, "a client connection is cut");
                    return ConnectionEnd::Late;
                }
            };
            let driven = poll_fn(|context| drive(context, std::mem::take(&mut close)));
            tokio::select! {
                ended = driven => {
                    if let Err(error) = &ended {
                        tracing::debug!(%error, client = %self.peer.address, "a client connection ended");
                    }
                    return ConnectionEnd::Closed(ended);
                }
                // hyper would close a connection whose first head is still under way.
                () = self.drained(deadlines), if !closing => {
                    (close, closing) = (true, true);
                    if self.makes_room() {
                        tracing::debug!(client = %self.peer.address, "an idle connection makes room for another");
                    }
                }
                () = tokio::time::sleep(wait) => {
                    // A request that came in the meantime is still answered.
                    if closing && self.makes_room() && deadlines.requests() == 0 {
                        return ConnectionEnd::Idle;
                    }
                }
            }
        }
    }
}

/// What the requests of an HTTP/1.x connection share.
struct Http1Shared {
    deadlines: Arc<Deadlines>,
    interim: Arc<Interim>,
    turn: Arc<Turn>,
}

/// How a connection ended.
enum ConnectionEnd<E> {
    /// By itself, or with its client.
    Closed(Result<(), E>),
    /// It did not close in time when it was asked to.
    Idle,
    /// The client was too slow.
    Late,
}

/// The body of an HTTP/1.x response, which records on the connection when it moves and when it has ended.
struct Counted {
    body: Recorded<Body>,
    in_flight: InFlight,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.in_flight.touch();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.in_flight.is_stalled() {
            self.body.cut_off(STALLED);
        }
    }
}

/// How long a connection without a request may take to send one when its listener goes.
const FIRST_HEAD: Duration = Duration::from_secs(1);
/// How long a connection may take to close before it is dropped.
const CLOSING: Duration = Duration::from_secs(5);
/// And where a newcomer waits for its place.
const MAKING_ROOM: Duration = Duration::from_millis(200);
/// Bytes of an answer that may wait for a full socket beside the piece that filled it, and of a request that are read at
/// once (more where the settings allow a longer head).
const BUFFER: usize = 64 * 1024;
/// How long a connection with unread content is kept after its last answer, so that the client reads it. As nginx does.
const LINGERING: Duration = Duration::from_secs(30);
/// Bytes of unread content that are received and dropped meanwhile.
const MOST_LEFT_OVER: u64 = 128 << 20;
/// RFC 9113 §3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
