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
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    downstream::{
        deadlines::{Deadlines, InFlight, Protocol, Standing},
        http2,
        socket::{ConnectionPermit, Watched},
    },
    message::{body_error::BodyError, content::Content, interim::Interim, target::Scheme},
    observe::record::Recorded,
    pipeline::{Peer, handle},
    response::body::Body,
    settings::{Bounds, Timeouts},
    state::Edge,
};

/// Serves a connection until it closes, a deadline passes, or it has been drained.
pub async fn serve(
    edge: Arc<Edge>,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    place: ConnectionPermit,
) {
    let state = edge.state.load_full();
    let (timeouts, bounds) = (state.settings.timeouts.clone(), state.settings.bounds.clone());
    let silence =
        state.settings.upstreams.values().map(|upstream| upstream.idle_timeout).max().unwrap_or_default();
    let stall = timeouts.total + timeouts.body + silence;
    drop(state);
    let encrypted = tls.is_some();
    let scheme = if encrypted { Scheme::Https } else { Scheme::Http };
    let peer = Peer { address: address.ip().to_canonical(), scheme };
    // A child token: checking the shared one takes a lock that all connections share.
    let drain = edge.drain.child_token();
    let client = ClientConnection { edge, peer, timeouts, bounds, stall, drain };
    let Some(tls) = tls else { return client.http1(stream, place).await };
    match tokio::time::timeout(client.timeouts.handshake, tls.accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            client.http2(stream, place).await;
        }
        Ok(Ok(stream)) => client.http1(stream, place).await,
        Ok(Err(error)) => {
            client.edge.metrics.handshake_failed();
            tracing::debug!(%error, client = %peer.address, "a TLS handshake failed");
        }
        Err(_) => {
            client.edge.metrics.handshake_failed();
            tracing::debug!(client = %peer.address, "a TLS handshake took too long");
        }
    }
}

/// What a connection needs beside its socket.
struct ClientConnection {
    edge: Arc<Edge>,
    peer: Peer,
    timeouts: Timeouts,
    bounds: Bounds,
    stall: Duration,
    drain: CancellationToken,
}

impl ClientConnection {
    async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        place: ConnectionPermit,
    ) {
        let deadlines = Deadlines::new(&self.edge.clock, Protocol::Http1, self.stall);
        let interim = Arc::<Interim>::default();
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&deadlines), Arc::clone(&interim), place));
        let connection = http1::Builder::new()
            .max_header_size(self.bounds.head)
            .max_buf_size(self.bounds.head.max(BUFFER))
            .timer(TokioTimer::new())
            // Our own timer tells an idle connection from a slow head.
            .header_read_timeout(None)
            .serve_connection(io, service_fn(|request| self.answer(&deadlines, &interim, request)))
            .with_upgrades();
        let mut connection = pin!(connection);
        self.watch(&deadlines, |context, close| {
            if close {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(context)
        })
        .await;
    }

    /// Answers one request of an HTTP/1.x connection.
    async fn answer(
        &self,
        deadlines: &Arc<Deadlines>,
        interim: &Interim,
        request: Request<Incoming>,
    ) -> Result<Response<Counted>, Infallible> {
        let in_flight = InFlight::begin(Arc::clone(deadlines));
        // hyper answers an HTTP/1.0 client in its own version, which has no interim responses (RFC 9110 §15.2).
        let interim = (request.version() == Version::HTTP_11).then_some(interim);
        let response = handle(
            &self.edge,
            self.peer,
            interim,
            request.map(|incoming| Content::http1(incoming, deadlines.activity())),
        )
        .await;
        Ok(response.map(|body| Counted { body, in_flight }))
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, place: ConnectionPermit) {
        let deadlines = Deadlines::new(&self.edge.clock, Protocol::Http2, self.stall);
        let io = Watched::new(stream, Arc::clone(&deadlines), Arc::default(), place);
        let edge = Arc::clone(&self.edge);
        let mut connection =
            http2::Connection::new(io, &self.bounds, edge, self.peer, Arc::clone(&deadlines));
        self.watch(&deadlines, |context, close| {
            if close {
                connection.close();
            }
            connection.poll(context)
        })
        .await;
    }

    /// Waits until the edge drains and the connection has had a first request, or its time to send one is over.
    async fn drained(&self, deadlines: &Deadlines) {
        self.drain.cancelled().await;
        tokio::select! {
            () = deadlines.first_request() => {}
            () = tokio::time::sleep(FIRST_HEAD) => {}
        }
    }

    /// Drives a connection, keeps its deadlines, and closes it gracefully when the edge drains or it has been idle too
    /// long. It is dropped only as a last resort.
    async fn watch<E, F>(&self, deadlines: &Deadlines, mut drive: F)
    where
        E: std::error::Error,
        F: FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
    {
        let mut close = false;
        let mut closing = false;
        loop {
            let wait = match deadlines.standing(&self.timeouts) {
                Standing::Fine { look_again } => look_again,
                Standing::Idle if !closing => {
                    (close, closing) = (true, true);
                    CLOSING
                }
                Standing::Idle | Standing::Late => return,
            };
            let driven = poll_fn(|context| drive(context, std::mem::take(&mut close)));
            tokio::select! {
                ended = driven => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, client = %self.peer.address, "a client connection ended");
                    }
                    return;
                }
                // hyper would close a connection whose first head is still under way.
                () = self.drained(deadlines), if !closing => (close, closing) = (true, true),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
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

/// How long a connection without a request may take to send one when the edge drains.
const FIRST_HEAD: Duration = Duration::from_secs(1);
/// How long a connection may take to close before it is dropped.
const CLOSING: Duration = Duration::from_secs(5);
/// Bytes of an answer that may wait for a full socket beside the piece that filled it, and of a request that are read at
/// once (more where the settings allow a longer head).
const BUFFER: usize = 64 * 1024;
