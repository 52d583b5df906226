//! Connections from accept to close: how many, how long each may be silent, and how they end at a drain.
//!
//! ```text
//!   accept ─▶ Head ──whole──▶ Request ──answered──▶ Unused ──first byte──▶ Head …
//!             head_timeout    its own deadline      keep_alive, also for reading the answer
//! ```
//! Promises: a peer that sends its head byte by byte, sends none, or does not read its answer loses its connection in time; no
//! more than so many connections are open, whatever their peers do.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};
use tower::ServiceExt as _;

use crate::settings::Settings;

/// Bytes of a request's head.
const LARGEST_HEAD: usize = 64 << 10;

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many at once.
    pub connections: usize,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Without a request, or without reading an answer.
    pub keep_alive: Duration,
}

impl From<&Settings> for Bounds {
    fn from(settings: &Settings) -> Self {
        Self {
            connections: settings.connections.get() as usize,
            head: settings.head_timeout,
            keep_alive: settings.keep_alive,
        }
    }
}

/// Serves until `stop` resolves; then takes no new connection, and lets requests under way end for as long as `drain`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
    drain: Duration,
) {
    let (draining, drained) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(&listener, &router, bounds, &drained, &mut connections) => {}
        () = stop => {}
    }
    // Clients that are still in the listener's queue are refused now, and can go elsewhere.
    drop(listener);
    let _ = draining.send(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(drain, ended).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    bounds: Bounds,
    drained: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let ((stream, peer), place) = accepting::within(&places, || listener.accept(), || ()).await;
        // Without it, the second small write of an answer can wait for the client's delayed ACK.
        let _ = stream.set_nodelay(true);
        let (router, drained) = (router.clone(), drained.clone());
        connections.spawn(async move {
            connection(stream, peer, router, bounds, drained).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection until it closes, has been silent for too long, or is not used while the origin drains.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    mut drained: watch::Receiver<bool>,
) {
    let phase = &Phase::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        phase.set(REQUEST);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answered = router.clone().oneshot(request);
        async move {
            let response = answered.await;
            phase.set(UNUSED);
            response
        }
    });
    let connection = http1::Builder::new()
        .max_header_size(LARGEST_HEAD)
        // hyper cannot tell an unused connection from a slow head; `Timed` does.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(Timed::new(stream, phase.clone(), bounds)), service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = async { let _ = drained.wait_for(|draining| *draining).await; } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, %peer, "a connection ended");
    }
}

/// What a connection is at. Written by the service, read by the socket beside it in the same task.
#[derive(Debug, Clone, Default)]
struct Phase(Arc<AtomicU8>);

/// A head is awaited or has begun. Every connection begins here: whoever opens one is expected to send something soon.
const HEAD: u8 = 0;
const REQUEST: u8 = 1;
/// The request has its answer, of which some may still have to be read.
const UNUSED: u8 = 2;

impl Phase {
    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A socket on which waiting too long is an error.
struct Timed<S> {
    stream: S,
    phase: Phase,
    bounds: Bounds,
    /// The phase when the socket was last used, and since when it has lasted without a byte written.
    seen: u8,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> Timed<S> {
    fn new(stream: S, phase: Phase, bounds: Bounds) -> Self {
        let (since, timer) = (Instant::now(), Box::pin(sleep(bounds.head)));
        Self { stream, seen: phase.get(), phase, bounds, since, timer }
    }

    fn enter(&mut self, phase: u8) {
        self.phase.set(phase);
        (self.seen, self.since) = (phase, Instant::now());
    }

    /// The outcome when the socket is not ready: `Pending`, or an error once that has lasted too long.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let phase = self.phase.get();
        if phase != self.seen {
            self.enter(phase);
        }
        let deadline = match phase {
            HEAD => self.since + self.bounds.head,
            UNUSED => self.since + self.bounds.keep_alive,
            // A request under way has a deadline of its own.
            _ => return Poll::Pending,
        };
        // The timer may fire before the deadline and is then set again. So a connection in use seldom has to move it.
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn wrote(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            return self.wait(context);
        }
        self.since = Instant::now();
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if read.is_pending() {
            return this.wait(context);
        }
        if buffer.filled().len() > before && this.phase.get() == UNUSED {
            this.enter(HEAD);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        // hyper asked for the next head while the request was under way, when no timer ran, and asks again only when it is
        // woken. So the timer for the next head is set here.
        match self.wait(context) {
            Poll::Pending => flushed,
            late => late,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        net::TcpStream,
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    const BOUNDS: Bounds =
        Bounds { connections: 1, head: Duration::from_secs(10), keep_alive: Duration::from_secs(75) };
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: origin\r\n\r\n";

    struct Client {
        stream: DuplexStream,
        served: JoinHandle<()>,
        _drain: watch::Sender<bool>,
    }

    impl Client {
        /// With `room` bytes between it and the origin; the answer is a body of `length`.
        fn connect(room: usize, length: usize) -> Self {
            let (stream, served) = duplex(room);
            let (drain, drained) = watch::channel(false);
            let router = Router::new().route("/", get(move || async move { "x".repeat(length) }));
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let served = tokio::spawn(connection(served, peer, router, BOUNDS, drained));
            Self { stream, served, _drain: drain }
        }

        async fn exchange(&mut self) {
            self.stream.write_all(REQUEST).await.expect("the connection is open");
            let mut answer = [0; 4096];
            let length = self.stream.read(&mut answer).await.expect("an answer");
            assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK\r\n"));
        }

        /// Seconds until the origin has closed.
        async fn closed_after(self, began: Instant) -> u64 {
            self.served.await.expect("no panic");
            (began.elapsed() + Duration::from_millis(500)).as_secs()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_ten_seconds_from_its_first_byte_however_it_trickles() {
        let mut client = Client::connect(4096, 1);
        client.exchange().await;
        sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for byte in &REQUEST[..9] {
            client.stream.write_all(&[*byte]).await.expect("the connection is open");
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(client.closed_after(began).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_connects_and_says_nothing_has_as_long() {
        let began = Instant::now();
        assert_eq!(Client::connect(4096, 1).closed_after(began).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_connection_is_kept_and_then_closed() {
        let mut client = Client::connect(4096, 1);
        for _ in 0..3 {
            client.exchange().await;
            sleep(Duration::from_secs(74)).await;
        }
        client.exchange().await;
        let began = Instant::now();
        assert_eq!(client.closed_after(began).await, 75);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_is_given_up_and_one_that_is_read_slowly_is_not() {
        let mut client = Client::connect(1_000, 100_000);
        client.stream.write_all(REQUEST).await.expect("the connection is open");
        for _ in 0..20 {
            client.stream.read_exact(&mut [0; 500]).await.expect("it is still being sent");
            sleep(Duration::from_secs(20)).await;
        }
        let began = Instant::now();
        assert!((50..=75).contains(&client.closed_after(began).await));
    }

    /// Whatever could happen by now happens.
    async fn settle() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_and_a_drain_lets_requests_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (entered, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        let handler = move || {
            let entered = entered.clone();
            async move {
                let (answer, wanted) = oneshot::channel::<&'static str>();
                entered.send(answer).expect("the test runs");
                wanted.await.expect("the test runs")
            }
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let router = Router::new().route("/", get(handler));
        let served = tokio::spawn(serve(listener, router, BOUNDS, stopped, Duration::from_secs(60)));
        let connect = async || {
            let mut stream = TcpStream::connect(address).await.expect("the queue of the system");
            stream.write_all(REQUEST).await.expect("room in the socket");
            stream
        };
        let (mut first, mut second) = (connect().await, connect().await);
        let answer = arrivals.recv().await.expect("the first request");
        settle().await;
        assert!(arrivals.try_recv().is_err(), "its place is taken");
        answer.send("one").expect("it is awaited");
        let mut text = [0; 1024];
        let length = first.read(&mut text).await.expect("an answer");
        assert!(text[..length].ends_with(b"one"));
        settle().await;
        assert!(arrivals.try_recv().is_err(), "an unused connection has its place still");
        drop(first);
        let answer = arrivals.recv().await.expect("the second request");
        stop.send(()).expect("it runs");
        answer.send("two").expect("it is awaited");
        let mut text = Vec::new();
        second.read_to_end(&mut text).await.expect("an answer, and the end");
        assert!(text.ends_with(b"two"));
        served.await.expect("no panic");
    }
}
