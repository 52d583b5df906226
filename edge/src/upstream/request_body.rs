//! A client's body on its way upstream: bounded in size, in pauses and in time, and held back until the upstream has
//! answered Expect (RFC 9110 §10.1.1). What is [`receive`]d before it is sent keeps no place at an upstream while its
//! client is slow; what is [held](RequestBody::held) can be sent again. The edge has a budget for both.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cache_policy::Moment;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::introduction::introduction;
use crate::{
    message::{
        body_error::BodyError,
        byte_budget::{ByteBudget, ByteShare},
        content::{Content, ContinueGate},
        patience::Patience,
        request_id::RequestId,
    },
    request::as_sent::keep_sent_trailers,
    settings::{ByteSize, UpstreamSettings},
};

/// Whose a request to an upstream is, and how long it may take.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The id of the client's request for which it is sent: of one that several wait for, the first one's.
    pub request_id: HeaderValue,
    /// A number of the client's own: `None` for the edge itself, and for a proxy that names no client.
    pub client: Option<u128>,
    /// From the request's end to the head of its answer.
    pub first_byte: Duration,
    /// Between two pieces of its answer.
    pub between_bytes: Duration,
    /// When whoever waits for the answer's head gives up, where that is known.
    pub until: Option<Moment>,
    /// What a connection for it begins with, where the upstream is told who asks.
    pub introduction: Option<Bytes>,
}

impl Errand {
    /// The edge's own, by the upstream's settings alone.
    pub fn of_edge(id: &RequestId, settings: &UpstreamSettings) -> Self {
        let (first_byte, between_bytes) = (settings.response_timeout, settings.idle_timeout);
        let introduction = introduction(settings.proxy_protocol, None);
        Self { request_id: id.to_field(), client: None, first_byte, between_bytes, until: None, introduction }
    }

    /// How long the answer's head is waited for, of a request that is sent now, in milliseconds. Work for an answer that comes
    /// later is wasted; an upstream that knows the field stops in time.
    pub fn patience(&self, now: Moment) -> u64 {
        let left = self.until.map_or(self.first_byte, |until| until.since(now).min(self.first_byte));
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    /// The id, for logs.
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

/// How far a body has come, for those who no longer hold it: a sender reports only that a body failed, and may have a
/// response before the body has ended.
#[derive(Debug)]
pub struct Progress {
    errand: Errand,
    reached: Mutex<ReachedPhase>,
    broke: OnceLock<BodyError>,
    ended: AtomicBool,
    ending: Notify,
    steps: AtomicU64,
    interim: OnceLock<HearsInterim>,
}

/// Who hears of interim responses (RFC 9110 §15.2).
struct HearsInterim(Box<Hears>);

type Hears = dyn Fn(StatusCode, &HeaderMap) + Send + Sync;

impl std::fmt::Debug for HearsInterim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HearsInterim")
    }
}

/// How far a request has come on its way to a server.
#[derive(Clone, Debug)]
pub struct ReachedPhase {
    /// `None` before one is chosen.
    pub server: Option<Arc<str>>,
    /// A phase as failures have them ([`crate::message::failure::Failure::phase`]).
    pub phase: &'static str,
}

impl Progress {
    fn of(errand: Errand) -> Self {
        Self {
            errand,
            reached: Mutex::new(ReachedPhase { server: None, phase: "choose" }),
            broke: OnceLock::new(),
            ended: AtomicBool::new(false),
            ending: Notify::new(),
            steps: AtomicU64::new(0),
            interim: OnceLock::new(),
        }
    }

    /// Whose request it is.
    pub fn errand(&self) -> &Errand {
        &self.errand
    }

    /// Tells of each interim response, from whichever server it comes. The first one who asks is told.
    pub fn on_interim(&self, hears: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static) {
        let _ = self.interim.set(HearsInterim(Box::new(hears)));
    }

    /// An interim response has come.
    pub fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        if let Some(HearsInterim(hears)) = self.interim.get() {
            hears(status, headers);
        }
    }

    /// How far it has come.
    pub fn reached(&self) -> ReachedPhase {
        let reached = self.reached.lock().clone();
        match reached.phase {
            "send" if self.ended() => ReachedPhase { phase: "first-byte", ..reached },
            _ => reached,
        }
    }

    /// A server has been chosen, and the request waits for a place there.
    pub fn chose(&self, server: &Arc<str>) {
        *self.reached.lock() = ReachedPhase { server: Some(Arc::clone(server)), phase: "wait" };
    }

    /// A connection to the server is being made.
    pub fn connects(&self) {
        self.reached.lock().phase = "connect";
    }

    /// The request is being sent; once all of it has been, its answer is waited for.
    pub fn sends(&self) {
        self.reached.lock().phase = "send";
    }

    /// Why the client's side broke, if it did.
    pub fn broke(&self) -> Option<&BodyError> {
        self.broke.get()
    }

    /// Whether all of the body has been taken.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until all of the body has been taken. Cancel-safe.
    pub async fn end(&self) {
        loop {
            let ending = self.ending.notified();
            if self.ended() {
                return;
            }
            ending.await;
        }
    }

    /// Counts the pieces taken.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// All of the body is to be taken once more.
    fn set_begun(&self) {
        self.ended.store(false, Ordering::Release);
    }

    fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.ending.notify_waiters();
    }
}

/// The body of a request to an upstream.
#[derive(Debug)]
pub struct RequestBody {
    /// What an earlier attempt has sent already.
    again: VecDeque<Bytes>,
    source: Option<Box<ClientContent>>,
    progress: Arc<Progress>,
    held: Option<Arc<HeldContent>>,
    /// All of it, where it is that of a request that asks and changes nothing.
    asked: Option<AskedContent>,
    resend: Resend,
}

/// Method and content of a request that asks and changes nothing: it can be sent as often as one likes.
#[derive(Clone, Debug)]
pub struct AskedContent {
    pub method: Method,
    pub octets: Bytes,
    /// What the octets take of the room for such.
    pub room: Option<Arc<ByteShare>>,
}

/// Which requests may be sent to a second server although the first may have seen them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resend {
    /// Those whose method is idempotent (RFC 9110 §9.2.2).
    #[default]
    Idempotent,
    /// This one, whatever its method is: the route says so.
    Any,
}

#[derive(Debug)]
struct ClientContent {
    content: Content,
    /// Bytes read so far.
    taken: u64,
    bounds: ContentBounds,
    /// The declared Content-Length.
    declared: Option<u64>,
    began: Option<Instant>,
    patience: Patience,
    gate: Option<(ContinueGate, Patience)>,
    /// Whose trailer fields it may have.
    upstream: Option<Arc<UpstreamSettings>>,
}

/// How large and how slow a client's content may be.
#[derive(Clone, Copy, Debug)]
pub struct ContentBounds {
    /// Bytes: `bounds.body`.
    pub most: u64,
    /// Between two pieces: `timeouts.body`.
    pub pause: Duration,
    /// Bytes a second, on the average after one `pause`: `bounds.body_rate`. 0 for no such floor.
    pub rate: u64,
    /// For all of it: `timeouts.upload`.
    pub whole: Duration,
}

impl RequestBody {
    /// No body.
    pub fn empty(errand: Errand) -> Self {
        let progress = Progress::of(errand);
        progress.set_ended();
        Self {
            again: VecDeque::new(),
            source: None,
            progress: Arc::new(progress),
            held: None,
            asked: None,
            resend: Resend::default(),
        }
    }

    /// No body once more, of a request that is sent again.
    pub fn again(progress: Arc<Progress>) -> Self {
        Self {
            again: VecDeque::new(),
            source: None,
            progress,
            held: None,
            asked: None,
            resend: Resend::default(),
        }
    }

    /// All of the content of a request that asks and changes nothing.
    pub fn asking(asked: AskedContent, errand: Errand) -> Self {
        Self::asking_again(asked, Arc::new(Progress::of(errand)))
    }

    /// As [`asking`](Self::asking), once more.
    pub fn asking_again(asked: AskedContent, progress: Arc<Progress>) -> Self {
        progress.set_begun();
        let again: VecDeque<Bytes> =
            (!asked.octets.is_empty()).then(|| asked.octets.clone()).into_iter().collect();
        if again.is_empty() {
            progress.set_ended();
        }
        Self { again, source: None, progress, held: None, asked: Some(asked), resend: Resend::Any }
    }

    /// Its content, where the request asks and changes nothing.
    pub fn asked(&self) -> Option<&AskedContent> {
        self.asked.as_ref()
    }

    /// A client's body within these bounds. With a `gate`, nothing is read from the client before it opens.
    pub fn new(content: Content, bounds: ContentBounds, gate: Option<ContinueGate>, errand: Errand) -> Self {
        if content.is_end_stream() {
            return Self::empty(errand);
        }
        let gate = gate.map(|gate| (gate, Patience::new(CONTINUE_WAIT)));
        Self {
            again: VecDeque::new(),
            source: Some(Box::new(ClientContent::new(content, bounds, gate))),
            progress: Arc::new(Progress::of(errand)),
            held: None,
            asked: None,
            resend: Resend::default(),
        }
    }

    /// Says to whom it is sent, which decides what trailer fields go along. Nobody is sent any before.
    #[must_use]
    pub fn to(mut self, upstream: &Arc<UpstreamSettings>) -> Self {
        if let Some(source) = &mut self.source {
            source.upstream = Some(Arc::clone(upstream));
        }
        self
    }

    /// Holds what is sent, up to so many bytes and while there is room for it, so that it can be sent again.
    #[must_use]
    pub fn held(mut self, most: u64, room: &Arc<ByteBudget>) -> Self {
        if self.source.is_some() && most > 0 {
            self.held = Some(Arc::new(HeldContent::new(most, room.share())));
        }
        self
    }

    /// Whether it is sent as its client sends it.
    pub fn is_streamed(&self) -> bool {
        self.source.as_ref().is_some_and(|source| !source.content.is_here())
    }

    /// Says which requests may be sent again.
    #[must_use]
    pub fn resend(mut self, resend: Resend) -> Self {
        self.resend = resend;
        self
    }

    /// Which requests may be sent again.
    pub fn may_be_resent(&self) -> Resend {
        self.resend
    }

    /// What has been sent, where it is held.
    pub fn content(&self) -> Option<Arc<HeldContent>> {
        self.held.clone()
    }

    /// Whose request it is.
    pub fn errand(&self) -> &Errand {
        &self.progress.errand
    }

    /// Does not wait for the upstream's 100 (Continue).
    pub fn send_at_once(&mut self) {
        if let Some(source) = &mut self.source {
            source.gate = None;
        }
    }

    /// How far it has come, now and later.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

/// Receives a client's content before it is sent on, while there is room for it. What is returned is the same content.
///
/// # Errors
/// The client breaks off, or these bounds. Dropped, the content is.
pub async fn receive(
    content: Content,
    bounds: ContentBounds,
    mut room: ByteShare,
) -> Result<Content, BodyError> {
    let mut source = ClientContent::new(content, bounds, None);
    let mut octets = BytesMut::new();
    while !source.is_whole() {
        let Some(frame) = poll_fn(|context| source.poll_frame(context)).await else { break };
        // Trailers come after what Content-Length says, which is enough.
        let Ok(piece) = frame?.into_data() else { break };
        octets.extend_from_slice(&piece);
        if !room.grow(piece.len() as u64) {
            break;
        }
    }
    Ok(Content::received(octets.freeze(), source.content, room))
}

impl ClientContent {
    fn new(content: Content, bounds: ContentBounds, gate: Option<(ContinueGate, Patience)>) -> Self {
        Self {
            taken: 0,
            bounds,
            declared: content.size_hint().exact(),
            began: None,
            patience: Patience::new(bounds.pause),
            gate,
            upstream: None,
            content,
        }
    }

    /// Whether all has been read that Content-Length says, or the end.
    fn is_whole(&self) -> bool {
        self.content.is_end_stream() || self.declared == Some(self.taken)
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some((gate, patience)) = &mut self.gate {
            // An upstream that does not support 100 (Continue) still receives the body after a short wait.
            if gate.poll_open(context).is_pending() && patience.poll(context).is_pending() {
                return Poll::Pending;
            }
            self.gate = None;
        }
        match Pin::new(&mut self.content).poll_frame(context) {
            Poll::Pending => self.patience.poll(context).map(|()| Some(Err(BodyError::ClientStalled))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Client(Arc::new(error))))),
            Poll::Ready(Some(Ok(mut frame))) => {
                self.patience.rest();
                if let Some(trailers) = frame.trailers_mut() {
                    match &self.upstream {
                        Some(upstream) => keep_sent_trailers(trailers, upstream),
                        None => trailers.clear(),
                    }
                }
                self.taken += frame.data_ref().map_or(0, |data| data.len() as u64);
                let ContentBounds { most, pause, rate, whole } = self.bounds;
                if self.taken > most {
                    return Poll::Ready(Some(Err(BodyError::TooLarge(most))));
                }
                // A body that never pauses and yet hardly advances would hold an upstream connection for ever.
                let took = self.began.get_or_insert_with(Instant::now).elapsed();
                let earned = self.taken.checked_div(rate).map(Duration::from_secs);
                if earned.is_some_and(|earned| took > pause + earned) {
                    return Poll::Ready(Some(Err(BodyError::ClientTooSlow(ByteSize(rate)))));
                }
                if took > whole {
                    return Poll::Ready(Some(Err(BodyError::ClientLate(whole))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.again.pop_front() {
            self.progress.step();
            if self.is_end_stream() {
                self.progress.set_ended();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Self { source: Some(source), held, .. } = &mut *self else { return Poll::Ready(None) };
        let frame = source.poll_frame(context);
        if let (Some(held), Poll::Ready(Some(frame))) = (held, &frame) {
            held.add(frame.as_ref().ok().and_then(Frame::data_ref), source.content.is_received());
        }
        match &frame {
            // The first cause is the one that counts.
            Poll::Ready(Some(Err(error))) => drop(self.progress.broke.set(error.clone())),
            Poll::Ready(None) => self.progress.set_ended(),
            // A sender stops asking once it has what Content-Length promised.
            Poll::Ready(Some(Ok(_))) if source.is_whole() => self.progress.set_ended(),
            Poll::Ready(Some(Ok(_))) => self.progress.step(),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.source.as_ref().is_none_or(|source| source.content.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let again: u64 = self.again.iter().map(|piece| piece.len() as u64).sum();
        match self.source.as_ref().map(|source| source.content.size_hint()) {
            None => SizeHint::with_exact(again),
            Some(mut rest) => {
                if let Some(upper) = rest.upper() {
                    rest.set_upper(upper + again);
                }
                rest.set_lower(rest.lower() + again);
                rest
            }
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.come_back(self.source.take());
        }
    }
}

/// A client's content as far as it has been sent, while it is not too much, and what is left of it once nobody sends it.
#[derive(Debug)]
pub struct HeldContent {
    most: u64,
    state: Mutex<HeldState>,
    back: Notify,
}

#[derive(Debug)]
struct HeldState {
    pieces: VecDeque<Bytes>,
    /// The last octets, which are no piece yet: crumbs would take more room for their bookkeeping than for themselves.
    open: BytesMut,
    bytes: u64,
    /// What they take of the edge's room for such.
    room: ByteShare,
    /// It was too much, has trailers, or the client broke off.
    lost: bool,
    /// What is left, once nobody sends it any more.
    rest: Option<Option<Box<ClientContent>>>,
}

impl HeldContent {
    fn new(most: u64, room: ByteShare) -> Self {
        let (pieces, open) = (VecDeque::new(), BytesMut::new());
        let state = HeldState { pieces, open, bytes: 0, room, lost: false, rest: None };
        Self { most, state: Mutex::new(state), back: Notify::new() }
    }

    /// Holds a piece as well. One that `is_received` is shared, and no slice of its connection's read buffer.
    fn add(&self, piece: Option<&Bytes>, is_received: bool) {
        let mut state = self.state.lock();
        if state.lost {
            return;
        }
        let fits = piece.filter(|piece| state.bytes + piece.len() as u64 <= self.most);
        match fits {
            Some(piece) if state.room.grow(piece.len() as u64) => {
                state.bytes += piece.len() as u64;
                if is_received {
                    state.close();
                    state.pieces.push_back(piece.clone());
                } else {
                    state.open.extend_from_slice(piece);
                }
            }
            _ => state.lose(),
        }
    }

    fn come_back(&self, rest: Option<Box<ClientContent>>) {
        self.state.lock().rest = Some(rest);
        self.back.notify_one();
    }

    /// The content once more, once the attempt before has let go of it; `None` where it is not held whole.
    pub async fn again(self: &Arc<Self>, progress: Arc<Progress>) -> Option<RequestBody> {
        let rest = loop {
            let back = self.back.notified();
            if let Some(rest) = self.state.lock().rest.take() {
                break rest;
            }
            tokio::time::timeout(LETTING_GO, back).await.ok()?;
        };
        let mut state = self.state.lock();
        if state.lost {
            return None;
        }
        state.close();
        progress.set_begun();
        let again = RequestBody {
            again: state.pieces.clone(),
            source: rest,
            progress,
            held: Some(Arc::clone(self)),
            asked: None,
            resend: Resend::Idempotent,
        };
        Some(again)
    }
}

impl HeldState {
    /// Makes a piece of the last octets.
    fn close(&mut self) {
        let octets = self.open.split().freeze();
        if !octets.is_empty() {
            self.pieces.push_back(octets);
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        (self.pieces, self.open) = (VecDeque::new(), BytesMut::new());
        self.room.give_back();
    }
}

/// How long an attempt that has failed may hold on to the content: an HTTP/2 connection's task has to run once more.
const LETTING_GO: Duration = Duration::from_secs(1);

/// RFC 9110 §10.1.1: a client must not wait indefinitely. nginx and curl wait about as long.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);
