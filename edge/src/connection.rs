//! One client connection from accept to close: handshake, protocol, deadlines, drain.
//!
//! ```text
//!   Handshake --(ALPN h2)--> HTTP/2 --+
//!       |                             |--> Fresh -> (Idle <-> Head ->) Busy ... -> closed
//!       '--(else)--------> HTTP/1.x --+
//! ```
//!
//! Every state has a deadline, kept by one lazy timer for each connection: requests only write down when something
//! happened, and the timer looks at it when it fires. A busy connection so costs no timer work at all.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use cache_policy::Moment;
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use crate::{
    body::BodyError,
    clock::Clock,
    handle::{Peer, handle},
    inbound::Scheme,
    interim::Interim,
    metrics::OpenConnection,
    record::Recorded,
    settings::{Bounds, Timeouts},
    state::Edge,
    upstream::Activity,
};

/// Serves a connection until it closes, a deadline passes, or it has been drained.
pub async fn serve(
    edge: Arc<Edge>,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    place: Place,
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
    // A child of its own: looking at the shared one takes a lock that all connections share.
    let drain = edge.drain.child_token();
    let shell = Shell { edge, peer, timeouts, bounds, stall, drain };
    let Some(tls) = tls else { return shell.http1(stream, place).await };
    match tokio::time::timeout(shell.timeouts.handshake, tls.accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            shell.http2(stream, place).await;
        }
        Ok(Ok(stream)) => shell.http1(stream, place).await,
        Ok(Err(error)) => {
            shell.edge.metrics.handshake_failed();
            tracing::debug!(%error, client = %peer.address, "a TLS handshake failed");
        }
        Err(_) => {
            shell.edge.metrics.handshake_failed();
            tracing::debug!(client = %peer.address, "a TLS handshake took too long");
        }
    }
}

/// A connection's place among `bounds.connections`, and its count in the metrics. Lives as long as the socket, upgrades
/// included.
#[derive(Debug)]
pub struct Place {
    /// Its place.
    pub permit: OwnedSemaphorePermit,
    /// Its count.
    pub open: OpenConnection,
    /// What a drain waits for.
    pub token: TaskTrackerToken,
}

/// What a connection needs beside its socket.
struct Shell {
    edge: Arc<Edge>,
    peer: Peer,
    timeouts: Timeouts,
    bounds: Bounds,
    stall: Duration,
    drain: CancellationToken,
}

impl Shell {
    async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, place: Place) {
        let pulse = Pulse::new(&self.edge.clock, Protocol::Http1, self.stall);
        let io =
            TokioIo::new(Watched { stream, pulse: Arc::clone(&pulse), interim: Bytes::new(), _place: place });
        let connection = http1::Builder::new()
            .max_header_size(self.bounds.head)
            .timer(TokioTimer::new())
            // Our own timer tells an idle connection from a slow head.
            .header_read_timeout(None)
            .serve_connection(io, service_fn(|request| self.request(&pulse, request)))
            .with_upgrades();
        let mut connection = pin!(connection);
        self.watch(&pulse, |context, close| {
            if close {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(context)
        })
        .await;
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, place: Place) {
        let pulse = Pulse::new(&self.edge.clock, Protocol::Http2, self.stall);
        let io =
            TokioIo::new(Watched { stream, pulse: Arc::clone(&pulse), interim: Bytes::new(), _place: place });
        let service = {
            let (edge, peer, pulse) = (Arc::clone(&self.edge), self.peer, Arc::clone(&pulse));
            service_fn(move |request| answer(Arc::clone(&edge), peer, Arc::clone(&pulse), request))
        };
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.bounds.streams)
            .max_header_list_size(u32::try_from(self.bounds.head).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        self.watch(&pulse, |context, close| {
            if close {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(context)
        })
        .await;
    }

    async fn request(
        &self,
        pulse: &Arc<Pulse>,
        request: Request<Incoming>,
    ) -> Result<Response<Counted>, std::convert::Infallible> {
        answer(Arc::clone(&self.edge), self.peer, Arc::clone(pulse), request).await
    }

    /// Waits until the edge drains and the connection has had a first request, or had its chance to send one.
    async fn drained(&self, pulse: &Pulse) {
        self.drain.cancelled().await;
        tokio::select! {
            () = pulse.first_request() => {}
            () = tokio::time::sleep(FIRST_HEAD) => {}
        }
    }

    /// Drives a connection, keeps its deadlines, and asks it to close when it is to drain or has been idle too long.
    /// Dropping it is the last resort.
    async fn watch<F>(&self, pulse: &Pulse, mut drive: F)
    where
        F: FnMut(&mut Context<'_>, bool) -> Poll<hyper::Result<()>>,
    {
        let mut close = false;
        let mut closing = false;
        loop {
            let wait = match pulse.state(&self.timeouts) {
                State::Fine { look_again } => look_again,
                State::Idle if !closing => {
                    (close, closing) = (true, true);
                    CLOSING
                }
                State::Idle | State::Late => return,
            };
            let driven = std::future::poll_fn(|context| drive(context, std::mem::take(&mut close)));
            tokio::select! {
                ended = driven => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, client = %self.peer.address, "a client connection ended");
                    }
                    return;
                }
                // hyper would close a connection that has not had its first head yet, with the head under way.
                () = self.drained(pulse), if !closing => (close, closing) = (true, true),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

async fn answer(
    edge: Arc<Edge>,
    peer: Peer,
    pulse: Arc<Pulse>,
    mut request: Request<Incoming>,
) -> Result<Response<Counted>, std::convert::Infallible> {
    if !request.body().is_end_stream() {
        request.extensions_mut().insert(pulse.moved.clone());
    }
    let busy = Busy::begin(pulse);
    // hyper answers an HTTP/1.0 client in its own version, which knows no interim responses (RFC 9110 §15.2).
    let interim = (request.version() == Version::HTTP_11).then_some(&busy.0.interim);
    let response = handle(&edge, peer, interim, request).await;
    Ok(response.map(|body| Counted { body, busy }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// When things last happened on a connection. Written by requests and the socket, read by the timer.
struct Pulse {
    clock: Clock,
    protocol: Protocol,
    /// How long a connection with a request may see nothing move: longer than every wait that has a bound of its own.
    stall: Duration,
    requests: AtomicUsize,
    /// Milliseconds (plus one) since the clock's epoch when the current quiet began.
    quiet_since: AtomicU64,
    /// When the first bytes of a head came, or 0.
    head_since: AtomicU64,
    /// When a write first found the socket full, or 0.
    blocked_since: AtomicU64,
    /// Whether messages have moved since the timer last looked. Costs no clock.
    moved: Activity,
    interim: Interim,
    /// Whether there has been a request, and who waits for one.
    served: AtomicBool,
    first: Notify,
}

enum State {
    /// Nothing is late; nothing can be before this much time has passed.
    Fine { look_again: Duration },
    /// No request for too long: close with good manners.
    Idle,
    /// The client does not read, or does not finish its head: close.
    Late,
}

impl Pulse {
    fn new(clock: &Clock, protocol: Protocol, stall: Duration) -> Arc<Self> {
        let pulse = Self {
            clock: clock.clone(),
            protocol,
            stall,
            requests: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            moved: Activity::default(),
            interim: Interim::default(),
            served: AtomicBool::new(false),
            first: Notify::new(),
        };
        // The first head is due as soon as the connection stands: a client that says nothing is a slow head.
        pulse.head_since.store(pulse.now(), Ordering::Relaxed);
        pulse.rest();
        Arc::new(pulse)
    }

    fn now(&self) -> u64 {
        let since = self.clock.now().since(Moment::from_epoch(Duration::ZERO));
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Something of a message moved; the timer will find out when, to within one of its turns.
    fn stir(&self) {
        self.moved.stir();
    }

    fn rest(&self) {
        self.quiet_since.store(self.now(), Ordering::Relaxed);
    }

    fn state(&self, timeouts: &Timeouts) -> State {
        if self.moved.take() {
            self.rest();
        }
        let now = self.now();
        let left = |since: u64, limit: Duration| {
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            (since.saturating_add(limit)).saturating_sub(now)
        };
        let mut look_again = u64::MAX;
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 {
            match left(blocked, timeouts.body) {
                0 => return State::Late,
                left => look_again = left,
            }
        }
        let quiet = self.quiet_since.load(Ordering::Relaxed);
        if self.requests.load(Ordering::Relaxed) > 0 {
            // A stream that its client gives no window, however lively the connection is otherwise.
            match left(quiet, self.stall) {
                0 => return State::Late,
                left => look_again = look_again.min(left),
            }
            look_again = look_again.min(left(now, timeouts.body));
        } else {
            match self.head_since.load(Ordering::Relaxed) {
                0 => {}
                since => match left(since, timeouts.header) {
                    0 => return State::Late,
                    left => look_again = look_again.min(left),
                },
            }
            match left(quiet, timeouts.idle) {
                0 => return State::Idle,
                left => look_again = look_again.min(left).min(left_for_a_head(timeouts)),
            }
        }
        State::Fine { look_again: Duration::from_millis(look_again.max(1)) }
    }

    fn bytes_came(&self) {
        if self.protocol == Protocol::Http1
            && self.requests.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// What has been handed to hyper may take long to go out. In HTTP/2 that counts only between requests: there a stream
    /// may be starved of its window while PINGs keep the connection lively.
    fn bytes_went(&self, count: usize) {
        if count >= CONTROL_FRAMES
            && (self.protocol == Protocol::Http1 || self.requests.load(Ordering::Relaxed) == 0)
        {
            self.stir();
        }
    }

    async fn first_request(&self) {
        loop {
            let first = self.first.notified();
            if self.served.load(Ordering::Acquire) {
                return;
            }
            first.await;
        }
    }
}

/// While a connection is idle a head may begin at any time; the timer must look again before that one could be late.
fn left_for_a_head(timeouts: &Timeouts) -> u64 {
    u64::try_from(timeouts.header.as_millis()).unwrap_or(u64::MAX)
}

/// A request under way on a connection.
struct Busy(Arc<Pulse>);

impl Busy {
    fn begin(pulse: Arc<Pulse>) -> Self {
        pulse.requests.fetch_add(1, Ordering::Relaxed);
        pulse.head_since.store(0, Ordering::Relaxed);
        pulse.stir();
        if !pulse.served.swap(true, Ordering::Release) {
            pulse.first.notify_waiters();
        }
        Self(pulse)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.stir();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response's body that tells the connection when it moves and when it has ended.
struct Counted {
    body: Recorded,
    busy: Busy,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.busy.0.stir();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket, telling the connection when bytes come and when it is full.
struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
    /// Interim responses that are being written.
    interim: Bytes,
    _place: Place,
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Writes the interim responses that wait. Called when hyper flushes, so that it has nothing half sent.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.interim.is_empty() {
                self.interim = self.pulse.interim.take();
            }
            ready!(self.poll_half_sent(context))?;
            self.pulse.interim.written();
            if !self.pulse.interim.waits() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_half_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(context, &self.interim);
            match ready!(self.blocked(written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.interim.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Watched<S> {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.pulse.bytes_went(count);
        }
        self.blocked(written)
    }

    fn blocked<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let blocked = &self.pulse.blocked_since;
        if written.is_ready() {
            if blocked.load(Ordering::Relaxed) != 0 {
                blocked.store(0, Ordering::Relaxed);
            }
        } else if blocked.load(Ordering::Relaxed) == 0 {
            blocked.store(self.pulse.now(), Ordering::Relaxed);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.pulse.bytes_came();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.interim.is_empty() {
            ready!(self.poll_half_sent(context))?;
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.interim.is_empty() {
            ready!(self.poll_half_sent(context))?;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pulse.interim.waits() {
            ready!(self.poll_interim(context))?;
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.blocked(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Fewer bytes at once than this may be nothing but HTTP/2's PING or WINDOW_UPDATE, which keep no connection alive.
const CONTROL_FRAMES: usize = 64;
/// What a connection without a request gets to send one when the edge drains.
const FIRST_HEAD: Duration = Duration::from_secs(1);
/// What a connection that was asked to close gets before it is dropped.
const CLOSING: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a response that one HTTP/2 stream may buffer ahead of its client.
const SEND_BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(90);

    fn timeouts() -> Timeouts {
        let seconds = Duration::from_secs;
        Timeouts {
            handshake: seconds(10),
            header: seconds(15),
            body: seconds(30),
            idle: seconds(75),
            total: seconds(60),
            drain: seconds(30),
            tunnel: seconds(3600),
        }
    }

    fn is_fine(pulse: &Pulse) -> bool {
        matches!(pulse.state(&timeouts()), State::Fine { .. })
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_late_after_the_header_deadline() {
        let pulse = Pulse::new(&Clock::system(), Protocol::Http2, STALL);
        tokio::time::advance(Duration::from_millis(14_900)).await;
        assert!(is_fine(&pulse));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(matches!(pulse.state(&timeouts()), State::Late));
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_the_idle_deadline_counts_until_a_head_begins() {
        let pulse = Pulse::new(&Clock::system(), Protocol::Http1, STALL);
        drop(Busy::begin(Arc::clone(&pulse)));
        assert!(is_fine(&pulse));
        tokio::time::advance(Duration::from_secs(70)).await;
        assert!(is_fine(&pulse));
        pulse.bytes_came();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(is_fine(&pulse));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(matches!(pulse.state(&timeouts()), State::Late));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_asked_to_close() {
        let pulse = Pulse::new(&Clock::system(), Protocol::Http1, STALL);
        drop(Busy::begin(Arc::clone(&pulse)));
        assert!(is_fine(&pulse));
        tokio::time::advance(Duration::from_secs(76)).await;
        assert!(matches!(pulse.state(&timeouts()), State::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_is_never_idle_but_its_body_must_move() {
        let pulse = Pulse::new(&Clock::system(), Protocol::Http2, STALL);
        let _busy = Busy::begin(Arc::clone(&pulse));
        assert!(is_fine(&pulse));
        tokio::time::advance(Duration::from_secs(80)).await;
        assert!(is_fine(&pulse));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(matches!(pulse.state(&timeouts()), State::Late));
    }
}
