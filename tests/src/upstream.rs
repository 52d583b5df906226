//! A scripted upstream on a port of its own: it answers as its script says and remembers what it was asked.
//!
//! [`Upstream`] speaks through hyper and so cannot say anything malformed; [`RawUpstream`] writes the bytes it is given.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener as BlockingListener, TcpStream},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::wait;

/// A request as the upstream got it, its content read to the end.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Request target as sent: path and query.
    pub target: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// Content.
    pub body: Bytes,
    /// Trailer fields, if any came.
    pub trailers: Option<HeaderMap>,
    /// How many requests came for this target before.
    pub earlier: usize,
}

impl Seen {
    /// A header field's value, or "" when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("tests send text"))
    }
}

/// Something a reply waits for until the test lets it go on.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    async fn passed(self) {
        self.0.subscribe().wait_for(|open| *open).await.expect("this gate holds its own sender");
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::closed()
    }
}

/// What the script answers.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    before_head: Option<Gate>,
    steps: VecDeque<Step>,
    hangs_up: bool,
    upgrades: bool,
    sized: bool,
}

enum Step {
    Data(Bytes),
    Repeat(Bytes, usize),
    Wait(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Trailers(HeaderMap),
    Break,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Data(_) => "Data",
            Self::Repeat(..) => "Repeat",
            Self::Wait(_) => "Wait",
            Self::Trailers(_) => "Trailers",
            Self::Break => "Break",
        })
    }
}

impl Reply {
    /// 200 with this content and its Content-Length.
    #[must_use]
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { sized: true, ..Self::streamed().then(body) }
    }

    /// 200 whose content follows in pieces, chunked.
    #[must_use]
    pub fn streamed() -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            before_head: None,
            steps: VecDeque::new(),
            hangs_up: false,
            upgrades: false,
            sized: false,
        }
    }

    /// This status, without content.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::ok("").with_status(status)
    }

    /// 101 to WebSocket; then every byte comes back.
    #[must_use]
    pub fn echo_upgrade() -> Self {
        let reply =
            Self::streamed().with_status(101).header("connection", "upgrade").header("upgrade", "websocket");
        Self { upgrades: true, ..reply }
    }

    /// The connection closes without an answer.
    #[must_use]
    pub fn hang_up() -> Self {
        Self { hangs_up: true, ..Self::streamed() }
    }

    /// With another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).expect("tests write valid statuses");
        self
    }

    /// With one more header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("tests write valid names");
        self.headers.append(name, HeaderValue::from_str(value).expect("tests write valid values"));
        self
    }

    /// With `Cache-Control`.
    #[must_use]
    pub fn cache_control(self, value: &str) -> Self {
        self.header("cache-control", value)
    }

    /// The head waits for the gate.
    #[must_use]
    pub fn after(mut self, gate: &Gate) -> Self {
        self.before_head = Some(gate.clone());
        self
    }

    /// Then this piece of content.
    #[must_use]
    pub fn then(mut self, piece: impl Into<Bytes>) -> Self {
        self.steps.push_back(Step::Data(piece.into()));
        self
    }

    /// Then this piece so many times.
    #[must_use]
    pub fn then_repeated(mut self, piece: impl Into<Bytes>, times: usize) -> Self {
        self.steps.push_back(Step::Repeat(piece.into(), times));
        self
    }

    /// Then wait for the gate.
    #[must_use]
    pub fn then_wait(mut self, gate: &Gate) -> Self {
        self.steps.push_back(Step::Wait(Box::pin(gate.clone().passed())));
        self
    }

    /// Then a trailer field, which ends the content.
    #[must_use]
    pub fn then_trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, HeaderValue::from_static(value));
        self.steps.push_back(Step::Trailers(trailers));
        self
    }

    /// Then break off: the connection closes in the middle of the content.
    #[must_use]
    pub fn then_break(mut self) -> Self {
        // hyper sends what it has when the content pauses; without a pause it would drop it with the connection.
        self.steps.push_back(Step::Wait(Box::pin(tokio::task::yield_now())));
        self.steps.push_back(Step::Break);
        self
    }
}

/// A running upstream. It stops when the value goes.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<AbortHandle>,
    runtime: Option<Runtime>,
}

struct Shared {
    script: Box<dyn Fn(&Seen) -> Reply + Send + Sync>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Starts answering with `script` on a port the system chooses.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared =
            Shared { script: Box::new(script), seen: Mutex::default(), connections: AtomicUsize::new(0) };
        let shared = Arc::new(shared);
        let accepting = runtime.spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { address, shared, accepting: Some(accepting), runtime: Some(runtime) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("scripts that panic fail their test").clone()
    }

    /// How many requests came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.seen.lock().expect("scripts that panic fail their test").len()
    }

    /// How many connections came so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The only request that came.
    ///
    /// # Panics
    /// When none or several came.
    #[track_caller]
    #[must_use]
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "the upstream was asked {} times: {seen:#?}", seen.len());
        seen.remove(0)
    }

    /// Waits until it has been asked so many times.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        wait::until(&format!("the upstream was asked {count} times"), || {
            (self.count() >= count).then_some(())
        });
    }

    /// Closes its port and every connection: from now on it refuses.
    pub fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            wait::until("the upstream's port is closed", || TcpStream::connect(self.address).err());
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Aborted with this task: a stopped upstream drops its connections.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

#[derive(Debug)]
struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the script says to break off here")
    }
}

impl std::error::Error for HungUp {}

async fn answer(mut request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Script>, HungUp> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let content = body.collect().await.map_err(|_| HungUp)?;
    let trailers = content.trailers().cloned();
    let reply = {
        let mut all = shared.seen.lock().expect("scripts that panic fail their test");
        let target = head.uri.to_string();
        let earlier = all.iter().filter(|seen| seen.target == target).count();
        let seen = Seen {
            method: head.method,
            target,
            headers: head.headers,
            body: content.to_bytes(),
            trailers,
            earlier,
        };
        all.push(seen.clone());
        drop(all);
        (shared.script)(&seen)
    };
    if let Some(gate) = reply.before_head {
        gate.passed().await;
    }
    if reply.hangs_up {
        return Err(HungUp);
    }
    if reply.upgrades {
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut from, &mut to).await;
            }
        });
    }
    let mut response = Response::new(Script { steps: reply.steps, sized: reply.sized });
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

struct Script {
    steps: VecDeque<Step>,
    sized: bool,
}

impl Body for Script {
    type Data = Bytes;
    type Error = HungUp;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HungUp>>> {
        let steps = &mut self.get_mut().steps;
        loop {
            return Poll::Ready(match steps.pop_front() {
                None => None,
                Some(Step::Data(data)) if data.is_empty() => continue,
                Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Step::Repeat(_, 0)) => continue,
                Some(Step::Repeat(piece, times)) => {
                    steps.push_front(Step::Repeat(piece.clone(), times - 1));
                    Some(Ok(Frame::data(piece)))
                }
                Some(Step::Wait(mut gate)) => {
                    if gate.as_mut().poll(context).is_pending() {
                        steps.push_front(Step::Wait(gate));
                        return Poll::Pending;
                    }
                    continue;
                }
                Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Step::Break) => Some(Err(HungUp)),
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Data(data) if data.is_empty()))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self.steps.iter().next() {
            Some(Step::Data(data)) if self.sized => hyper::body::SizeHint::with_exact(data.len() as u64),
            None => hyper::body::SizeHint::with_exact(0),
            Some(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// An upstream that writes exactly the bytes it is given, one answer a connection, and then closes.
#[derive(Debug)]
pub struct RawUpstream {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl RawUpstream {
    /// Starts answering every request head with `bytes`.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(bytes: &'static [u8]) -> Self {
        let open = Gate::closed();
        open.open();
        Self::pausing(bytes, &open, b"")
    }

    /// Starts answering every request head with `before`, and with `after` once the gate is open.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn pausing(before: &'static [u8], gate: &Gate, after: &'static [u8]) -> Self {
        let gate = gate.clone();
        let listener = BlockingListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (stopping, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stop, count) = (Arc::clone(&stopping), Arc::clone(&asked));
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let gate = gate.clone();
                std::thread::spawn(move || {
                    let reader = BufReader::new(stream.try_clone().expect("sockets can be shared"));
                    let _ = reader.lines().map_while(Result::ok).find(String::is_empty);
                    let _ = stream.write_all(before);
                    if !after.is_empty() {
                        wait::until("the gate is open", || gate.is_open().then_some(()));
                        let _ = stream.write_all(after);
                    }
                });
            }
        });
        Self { address, stopping, asked }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
