//! HTTP/2 to clients (RFC 9113): requests in, answers out, over [`h2`].
//!
//! ```text
//!   all requests that have come -> each is begun, here
//!        |-- answered at once, all of it in the client's window ---> nothing was spawned or allocated for it: a hit
//!        '-- anything else ---> a stream under way, until its response has ended or the client has reset it
//! ```
//!
//! The connection owns its streams: whoever drops it drops them. There are never more than `bounds.streams`, plus those
//! whose reset has not been looked at yet, which h2 bounds. A panic costs its own stream only.
//!
//! What is read of answers and waits for the client has a budget ([`unsent`](super::unsent)). A stream whose client takes
//! nothing of its answer for `timeouts.body` is reset, however much else moves on the connection: its upstream is free again.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use cache_policy::Moment;
use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, Stream as _},
};
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, Handshake, SendResponse},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::ReusableBoxFuture;

use crate::{
    downstream::{
        coalesce::CoalescedWrites,
        control_frames::{CountedFrames, FrameAllowance},
        deadlines::{Deadlines, InFlight, STALLED},
        turns::{Ticket, Turn, UnderWay, one_waits},
        unsent::{Reading, SendBudget, UnsentOctets},
    },
    message::{
        body_error::BodyError,
        certified::Acquaintance,
        content::{Content, ContinueGate, expects_continue},
        hop_by_hop::strip_hop_by_hop,
        interim::Interim,
        long_lived::is_grpc,
        number::number,
        patience::Patience,
    },
    observe::record::Recorded,
    pipeline::{Peer, handle},
    request::client::Client,
    response::{body::Body, fields},
    settings::Bounds,
    state::Edge,
};

/// A client's HTTP/2 connection.
pub struct Connection<S> {
    state: Phase<S>,
    out: CoalescedWrites<CountedFrames<S>>,
    shared: ConnectionShared,
    closing: bool,
    /// Whether its client has been told to calm down.
    cut_off: bool,
    rate: StreamRate,
    /// Requests that have come and are not begun yet.
    arrived: VecDeque<Arrived>,
    /// There was more to do than its last turn had time for.
    waiting: Option<Ticket>,
    /// Room for the next request's future. A request that answers at once passes it on to the next.
    next: ReusableBoxFuture<'static, ()>,
    under_way: FuturesUnordered<UnderWay>,
}

enum Phase<S> {
    Handshake(Handshake<CoalescedWrites<CountedFrames<S>>, UnsentOctets>),
    Open(H2Connection<S>),
}

type H2Connection<S> = h2::server::Connection<CoalescedWrites<CountedFrames<S>>, UnsentOctets>;

/// The state that all requests of a connection share.
#[derive(Clone)]
pub struct ConnectionShared {
    edge: Arc<Edge>,
    met: Met,
    deadlines: Arc<Deadlines>,
    unsent: Arc<SendBudget>,
    frames: Arc<FrameAllowance>,
}

/// Who is at the other end, what is known of it, and what it is told.
#[derive(Clone)]
pub struct Met {
    pub peer: Peer<'static>,
    /// What is known by certificates.
    pub acquaintance: Option<Arc<Acquaintance>>,
    /// `Strict-Transport-Security` of every answer.
    pub hsts: Option<HeaderValue>,
}

impl ConnectionShared {
    /// Of a connection with nothing on its way yet.
    pub fn new(edge: Arc<Edge>, met: Met, deadlines: Arc<Deadlines>) -> Self {
        let state = edge.state.load();
        let client = Client { address: met.peer.address, scheme: met.peer.scheme };
        let client = client.own_number(&state.settings.clients);
        let unsent = SendBudget::new(&edge.unsent, client);
        let most = if client.is_none() { u32::MAX } else { state.settings.bounds.control_frames_per_second };
        let frames = FrameAllowance::new(&edge.clock, most);
        drop(state);
        Self { edge, met, deadlines, unsent, frames }
    }

    fn peer(&self) -> Peer<'_> {
        Peer { acquaintance: self.met.acquaintance.as_deref(), ..self.met.peer }
    }

    /// Ends a connection whose client does too much of something: all its streams end, and it is told why.
    fn calm_down<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: &mut H2Connection<S>,
        reason: &'static str,
    ) {
        self.edge.metrics.cut_off(reason);
        tracing::debug!(client = %self.met.peer.address, reason, "a connection is closed");
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    }
}

type Arrived = (Request<RecvStream>, SendResponse<UnsentOctets>, InFlight);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection whose client is about to send its preface.
    pub fn new(io: S, bounds: &Bounds, shared: ConnectionShared) -> Self {
        let out = CoalescedWrites::new(CountedFrames::new(io, Arc::clone(&shared.frames)));
        let trusted = shared.edge.state.load().settings.clients.trusts(shared.met.peer.address);
        let most = if trusted { u32::MAX } else { bounds.streams_per_second };
        let handshake = Builder::new()
            .max_concurrent_streams(bounds.streams)
            // Twice the bound, so that the pipeline can say what is wrong: what h2 refuses, nobody hears of.
            .max_header_list_size(u32::try_from(bounds.head.saturating_mul(2)).unwrap_or(u32::MAX))
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(connection_window(bounds.streams))
            .max_send_buffer_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .max_local_error_reset_streams(Some(RESET_BY_ERROR))
            .handshake(out.clone());
        Self {
            state: Phase::Handshake(handshake),
            out,
            shared,
            closing: false,
            cut_off: false,
            rate: StreamRate { most, second: 0, begun: 0 },
            arrived: VecDeque::new(),
            waiting: None,
            next: nothing(),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Asks the client to close: streams that are open, or begun before it receives that, still end (RFC 9113 §6.8).
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Drives the connection and all its streams until it has closed.
    ///
    /// # Errors
    /// The connection's own: a broken socket or a client that breaks the protocol. Those of a stream reset that stream.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let polled = self.poll_frames(context);
        self.out.poll_out(context);
        polled
    }

    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let connection = match &mut self.state {
            Phase::Open(connection) => connection,
            Phase::Handshake(handshake) => {
                let connection = ready!(Pin::new(handshake).poll(context))?;
                self.state = Phase::Open(connection);
                return self.poll_frames(context);
            }
        };
        if mem::take(&mut self.closing) {
            connection.graceful_shutdown();
        }
        if self.waiting.as_ref().is_some_and(|ticket| !ticket.is_called(context)) {
            return Poll::Pending;
        }
        self.waiting = None;
        let mut turn = Turn::begin();
        loop {
            while let Poll::Ready(Some(())) = Pin::new(&mut self.under_way).poll_next(context) {
                if turn.is_over(&self.shared.edge.clock) {
                    self.waiting = Some(Ticket::draw(context));
                    return Poll::Pending;
                }
            }
            // All requests that have come are taken before any is answered, so that their answers are sent together.
            let before = self.arrived.len();
            loop {
                match connection.poll_accept(context) {
                    Poll::Pending => break,
                    Poll::Ready(Some(arrived)) => {
                        let (request, respond) = arrived?;
                        let in_flight = InFlight::begin(Arc::clone(&self.shared.deadlines));
                        self.arrived.push_back((request, respond, in_flight));
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                }
            }
            let arrived = self.arrived.len() - before;
            let too_much = if arrived > 0 && !self.rate.bears(arrived, self.shared.edge.clock.now()) {
                Some(STREAM_RATE)
            } else {
                self.shared.frames.is_used_up().then_some(CONTROL_FRAMES)
            };
            if let Some(reason) = too_much
                && !mem::replace(&mut self.cut_off, true)
            {
                self.shared.calm_down(connection, reason);
                self.arrived.clear();
                self.under_way.clear();
                continue;
            }
            if self.arrived.is_empty() {
                self.waiting = one_waits().then(|| Ticket::draw(context));
                return Poll::Pending;
            }
            while let Some(arrived) = self.arrived.pop_front() {
                // A panic drops the stream's future, which resets the stream. Combinators, because an `async fn` around
                // it would hold the future twice, and all of it is copied.
                let exchange = AssertUnwindSafe(exchange(self.shared.clone(), arrived));
                self.next.set(exchange.catch_unwind().map(|ended| {
                    if ended.is_err() {
                        tracing::error!("a request panicked; its stream is reset");
                    }
                }));
                if self.next.poll(context).is_pending() {
                    self.under_way.push(UnderWay::new(mem::replace(&mut self.next, nothing())));
                    turn.begun();
                }
                if !self.arrived.is_empty() && turn.is_over(&self.shared.edge.clock) {
                    self.waiting = Some(Ticket::draw(context));
                    return Poll::Pending;
                }
            }
        }
    }
}

/// How many streams begin in a second.
struct StreamRate {
    most: u32,
    /// Since the clock's epoch.
    second: u64,
    begun: u32,
}

impl StreamRate {
    /// Counts streams that begin now; whether they are few enough.
    fn bears(&mut self, count: usize, now: Moment) -> bool {
        let second = now.since(Moment::from_epoch(Duration::ZERO)).as_secs();
        if second != self.second {
            (self.second, self.begun) = (second, 0);
        }
        self.begun = self.begun.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.begun <= self.most
    }
}

/// Room for what every stream may have waiting for its upstream: with less, streams whose upstreams stall would hold all
/// of it, and those that could go on would wait for them. Each waiting content has a place at an upstream
/// (`connections` and `waiting`), which bounds them over all connections.
fn connection_window(streams: u32) -> u32 {
    streams.saturating_mul(STREAM_WINDOW).clamp(STREAM_WINDOW, LARGEST_WINDOW)
}

fn nothing() -> ReusableBoxFuture<'static, ()> {
    ReusableBoxFuture::new(std::future::ready(()))
}

/// One request and its response, to the end of both.
async fn exchange(shared: ConnectionShared, (request, mut respond, in_flight): Arrived) {
    let (head, mut frames) = request.into_parts();
    if declares_none(&head.headers) && !frames.is_end_stream() {
        // Nothing more may come than the end. A request that goes on before it would be taken for whole although its
        // client breaks the framing (RFC 9113 §8.1.1).
        let pause = shared.edge.state.load().settings.timeouts.body;
        if !matches!(tokio::time::timeout(pause, ends_empty(&mut frames)).await, Ok(Ok(()))) {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return;
        }
    }
    let wanted = expects_continue(&head.headers).then(ContinueGate::default);
    let content = Content::http2(frames, &head.headers, wanted.clone(), shared.deadlines.activity());
    let uploads = !content.is_end_stream();
    let is_head = head.method == Method::HEAD;
    let request = Request::from_parts(head, content);
    let Some(response) = answer(&shared, request, &mut respond, wanted).await else { return };
    let (mut head, body) = response.into_parts();
    fields::date(&mut head.headers, &shared.edge.clock);
    fields::strict_transport(&mut head.headers, shared.met.hsts.as_ref());
    let ends = is_head || has_no_content(head.status) || body.is_end_stream();
    if !ends && let Some(length) = body.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| number(length));
    }
    // A stream of calls, whose client may pause for as long as one of a tunnel.
    let pauses = uploads && is_grpc(&head.headers);
    match respond.send_response(Response::from_parts(head, ()), ends) {
        Ok(_) if ends => {}
        Ok(stream) => Sending::new(stream, body, &in_flight).run(&shared, pauses).await,
        Err(error) => {
            tracing::debug!(%error, "a response's head could not be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
    if uploads && shared.deadlines.requests() <= MOST_LINGERING {
        // Dropping `respond` drops the unread content: h2 resets the stream (RFC 9113 §8.1). The reset must not arrive
        // in one read with the response: curl 7.88, for example, then loses the response.
        tokio::time::sleep(RESET_LATER).await;
    }
}

/// Whether a request says that it has no content.
fn declares_none(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length.as_bytes().iter().all(|digit| *digit == b'0'))
}

/// Waits for the end of a content that has none.
async fn ends_empty(frames: &mut RecvStream) -> Result<(), h2::Error> {
    while let Some(data) = frames.data().await {
        frames.flow_control().release_capacity(data?.len())?;
    }
    frames.trailers().await.map(drop)
}

/// Awaits the answer; interim responses are sent meanwhile. `None` when the client has reset the stream.
async fn answer(
    shared: &ConnectionShared,
    request: Request<Content>,
    respond: &mut SendResponse<UnsentOctets>,
    mut wanted: Option<ContinueGate>,
) -> Option<Response<Recorded<Body>>> {
    let interim = Interim::default();
    let mut answer = pin!(handle(&shared.edge, shared.peer(), Some(&interim), request));
    let mut left = MOST_INTERIM;
    poll_fn(|context| {
        if let Poll::Ready(response) = answer.as_mut().poll(context) {
            return Poll::Ready(Some(response));
        }
        // Nothing more may be sent on a stream that has been reset, and no client waits for it.
        if respond.poll_reset(context).is_ready() {
            return Poll::Ready(None);
        }
        if wanted.as_ref().is_some_and(|wanted| wanted.poll_open(context).is_ready()) {
            wanted = None;
            inform(respond, StatusCode::CONTINUE, HeaderMap::new());
        }
        if interim.waits() {
            for (status, headers) in interim.take().into_iter().take(left) {
                left -= 1;
                inform(respond, status, headers);
            }
            interim.written();
        }
        Poll::Pending
    })
    .await
}

fn inform(respond: &mut SendResponse<UnsentOctets>, status: StatusCode, headers: HeaderMap) {
    let mut interim = Response::new(());
    *interim.status_mut() = status;
    *interim.headers_mut() = headers;
    if let Err(error) = respond.send_informational(interim) {
        tracing::debug!(%error, "an interim response could not be sent");
    }
}

/// RFC 9110 §15.3.5, §15.4.5.
fn has_no_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A response's content on its way into the client's window.
struct Sending<'a> {
    stream: SendStream<UnsentOctets>,
    body: Recorded<Body>,
    in_flight: &'a InFlight,
    /// The piece that is to be sent next, and those after it: as a rule there are none.
    piece: Option<UnsentOctets>,
    more: VecDeque<UnsentOctets>,
    /// What comes after them, once it is known.
    end: Option<ContentEnd>,
    /// Whether there is nothing to do before the client takes something.
    waits_for_client: bool,
    stall: Option<Stall>,
    /// Bytes given to h2 since the client was last found to take any.
    taken: usize,
}

/// How a response's content ends.
enum ContentEnd {
    Whole,
    Trailers(HeaderMap),
    /// It breaks off, after what has been read.
    Broken(BodyError),
}

/// How long a client takes nothing.
struct Stall {
    patience: Patience,
    /// What its connection had sent when that began.
    sent: u64,
}

/// Why a response's content ended before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Stream(#[from] h2::Error),
    #[error("the client has reset the stream")]
    Reset,
    #[error("the client has taken nothing of it for timeouts.body")]
    Stalled,
}

/// What became of a look at the body.
enum Looked {
    /// There was something.
    Read,
    /// It has ended, or enough of it has been read.
    Enough,
    /// The upstream is waited for.
    ForUpstream,
    /// The connection's budget is used up.
    ForRoom,
}

impl<'a> Sending<'a> {
    fn new(stream: SendStream<UnsentOctets>, body: Recorded<Body>, in_flight: &'a InFlight) -> Self {
        let (piece, more, end, stall) = (None, VecDeque::new(), None, None);
        Self { stream, body, in_flight, piece, more, end, waits_for_client: false, stall, taken: 0 }
    }

    async fn run(mut self, shared: &ConnectionShared, pauses: bool) {
        let sent = poll_fn(|context| match self.poll(shared, context) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending if self.stream.poll_reset(context).is_ready() => Poll::Ready(Err(Broken::Reset)),
            Poll::Pending => self.poll_stalled(shared, pauses, context),
        });
        let sent = sent.await;
        let Err(error) = sent else { return };
        tracing::debug!(%error, "a response broke off");
        // Without a reset the client would take the partial content for the whole (RFC 9113 §8.1). No effect on a
        // stream that is reset already.
        self.stream.send_reset(match error {
            Broken::Stalled => {
                shared.edge.metrics.cut_off(STALLED);
                self.body.cut_off(STALLED);
                Reason::CANCEL
            }
            _ => Reason::INTERNAL_ERROR,
        });
    }

    fn poll(&mut self, shared: &ConnectionShared, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let starved = match self.poll_send(&shared.frames, context) {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => true,
            };
            if !starved && let Some(end) = self.end.take() {
                return Poll::Ready(self.finish(end));
            }
            match self.look(&shared.unsent, starved, context) {
                Looked::Read => {}
                Looked::ForUpstream if !starved => {
                    (self.stall, self.waits_for_client) = (None, false);
                    return Poll::Pending;
                }
                Looked::Enough | Looked::ForUpstream | Looked::ForRoom => {
                    self.waits_for_client = true;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends what has been read, as far as the client's window takes it; whether that was all, with the end.
    fn poll_send(
        &mut self,
        frames: &FrameAllowance,
        context: &mut Context<'_>,
    ) -> Poll<Result<bool, Broken>> {
        while let Some(piece) = &mut self.piece {
            let window = ready!(poll_window(&mut self.stream, context))?;
            // h2 receives no more than may be sent at once.
            let part = piece.go(window.min(piece.len()));
            let emptied = piece.is_empty();
            if emptied {
                self.piece = self.more.pop_front();
            }
            self.taken += part.len();
            frames.answered(part.len());
            let ends = self.piece.is_none() && matches!(self.end, Some(ContentEnd::Whole));
            self.stream.send_data(part, ends)?;
            if ends {
                return Poll::Ready(Ok(true));
            }
            // Beside what has been given to h2 and not been sent.
            if emptied && let Some(next) = &self.piece {
                self.stream.reserve_capacity(next.len());
            }
        }
        Poll::Ready(Ok(false))
    }

    fn finish(&mut self, end: ContentEnd) -> Result<(), Broken> {
        match end {
            ContentEnd::Whole => self.stream.send_data(UnsentOctets::default(), true)?,
            ContentEnd::Trailers(trailers) => self.stream.send_trailers(trailers)?,
            ContentEnd::Broken(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads a piece, where there is room for it.
    fn look(&mut self, budget: &Arc<SendBudget>, starved: bool, context: &mut Context<'_>) -> Looked {
        let ahead = || self.piece.iter().chain(&self.more).map(UnsentOctets::len).sum::<usize>();
        if self.end.is_some() || (starved && (self.more.len() == MOST_PIECES || ahead() >= READ_AHEAD)) {
            return Looked::Enough;
        }
        if !budget.has_room(if starved { Reading::Ahead } else { Reading::ToSend }, context) {
            return Looked::ForRoom;
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return Looked::ForUpstream;
        };
        self.in_flight.touch();
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => self.end = Some(ContentEnd::Whole),
            Some(Err(error)) => self.end = Some(ContentEnd::Broken(error)),
            Some(Ok(Ok(data))) if data.is_empty() => {}
            Some(Ok(Ok(data))) => {
                let piece = UnsentOctets::new(data, budget);
                if self.piece.is_none() {
                    self.stream.reserve_capacity(piece.len());
                    self.piece = Some(piece);
                } else {
                    self.more.push_back(piece);
                }
                if self.body.is_end_stream() {
                    self.end = Some(ContentEnd::Whole);
                }
            }
            Some(Ok(Err(frame))) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                strip_hop_by_hop(&mut trailers);
                self.end = Some(ContentEnd::Trailers(trailers));
            }
        }
        Looked::Read
    }

    /// Ready when the client has taken nothing for too long.
    fn poll_stalled(
        &mut self,
        shared: &ConnectionShared,
        pauses: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        if !self.waits_for_client {
            return Poll::Pending;
        }
        let stall = self.stall.get_or_insert_with(|| {
            let timeouts = &shared.edge.state.load().settings.timeouts;
            let limit = if pauses { timeouts.tunnel } else { timeouts.body };
            Stall { patience: Patience::new(limit), sent: shared.unsent.sent() }
        });
        let waits_for_room = self.piece.is_none();
        // A window that opens by crumbs is none. Who waits behind others of its connection waits as long as they move.
        let connection_moves = waits_for_room && shared.unsent.sent() >= stall.sent + LEAST_SENT;
        if self.taken >= LEAST_TAKEN || connection_moves {
            self.taken = 0;
            stall.sent = shared.unsent.sent();
            stall.patience.rest();
        }
        stall.patience.poll(context).map(|()| Err(Broken::Stalled))
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.in_flight.is_stalled() {
            self.body.cut_off(STALLED);
        }
    }
}

/// The room in the client's window and the send buffer: at least one byte.
fn poll_window(
    stream: &mut SendStream<UnsentOctets>,
    context: &mut Context<'_>,
) -> Poll<Result<usize, Broken>> {
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(context)) {
                Some(more) => drop(more?),
                None => return Poll::Ready(Err(Broken::Reset)),
            },
            window => return Poll::Ready(Ok(window)),
        }
    }
}

/// Bytes of one request's content that may wait for its upstream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// Bytes of a response that one stream may hand to the socket ahead of it.
const SEND_BUFFER: usize = 256 * 1024;
/// A connection on which more streams begin than `bounds.streams_per_second` lets.
const STREAM_RATE: &str = "streams-per-second";
/// A connection on which more frames that carry nothing come than `bounds.control_frames_per_second` lets.
const CONTROL_FRAMES: &str = "control-frames";
/// Bytes of one answer that are read although its client gives no window for them: most answers are no longer, and their
/// upstreams are free at once. And pieces, which may be crumbs.
const READ_AHEAD: usize = 64 * 1024;
const MOST_PIECES: usize = 16;
/// Bytes that a client must take of an answer within `timeouts.body`, or all there are.
const LEAST_TAKEN: usize = 1024;
/// And a connection of all of its answers, where one waits behind others.
const LEAST_SENT: u64 = 32 * 1024;
/// Streams that a client may reset before they are begun; one more closes the connection (CVE-2023-44487).
const RESET_UNSEEN: usize = 20;
/// Streams that may be reset for the client's errors; one more closes the connection.
const RESET_BY_ERROR: usize = 1024;
/// How long after a response the rest of its request's content is dropped.
const RESET_LATER: Duration = Duration::from_millis(20);
/// With more requests than this on a connection it is dropped at once.
const MOST_LINGERING: usize = 128;
/// Interim responses of one stream; further ones are dropped, since h2 does not report when one has been sent.
const MOST_INTERIM: usize = 64;
