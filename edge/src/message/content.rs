//! A request's content as it arrives, whichever protocol brings it.

use std::{
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::RecvStream;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::message::{
    byte_budget::ByteShare,
    turn::{self, ContentReport, Turn},
};

/// The content of a request. Dropping it unread tells the client that no more of it is wanted.
#[derive(Debug)]
pub struct Content {
    source: Source,
    /// Records on the client's connection that the content moves.
    activity: Activity,
}

#[derive(Debug)]
enum Source {
    None,
    Http1(Incoming, Option<ContentReport>),
    Http2(Box<Http2Content>),
    Received(Box<ReceivedContent>),
}

/// Content of which a part has been received before it is sent on: as a rule all of it.
#[derive(Debug)]
struct ReceivedContent {
    octets: Bytes,
    rest: Content,
    /// What the octets take of the room for such.
    room: ByteShare,
}

/// The receiving half of an HTTP/2 stream.
#[derive(Debug)]
struct Http2Content {
    frames: RecvStream,
    /// What Content-Length says is left; h2 holds the client to it (RFC 9113 §8.1.1).
    left: Option<u64>,
    /// Whether all DATA has been read.
    drained: bool,
    /// Opened when the content is first asked for.
    wanted: Option<ContinueGate>,
}

/// Why a client's content broke off.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The connection broke, or the framing was wrong.
    #[error(transparent)]
    Http1(hyper::Error),
    /// The connection broke, the stream was reset, or its content was not what Content-Length said.
    #[error(transparent)]
    Http2(h2::Error),
}

impl Content {
    /// Content that hyper reads.
    pub fn http1(incoming: Incoming, activity: &Activity) -> Self {
        Self { source: Source::Http1(incoming, None), activity: activity.clone() }
    }

    /// As [`http1`](Self::http1), and reports to the connection how far it has been read.
    pub fn in_turn(incoming: Incoming, activity: &Activity, turn: &Arc<Turn>) -> Self {
        let ends = incoming.is_end_stream();
        let report = turn.begin(if ends { turn::Incoming::Whole } else { turn::Incoming::UnderWay });
        Self { source: Source::Http1(incoming, Some(report)), activity: activity.clone() }
    }

    /// Content that comes as a stream's DATA frames, where it has any. `wanted` opens when it is first read.
    pub fn http2(
        frames: RecvStream,
        headers: &HeaderMap,
        wanted: Option<ContinueGate>,
        activity: &Activity,
    ) -> Self {
        if frames.is_end_stream() {
            return Self::none();
        }
        let declared = headers.get(header::CONTENT_LENGTH).map(HeaderValue::to_str);
        let left = declared.and_then(|length| length.ok()?.parse().ok());
        let source = Source::Http2(Box::new(Http2Content { frames, left, drained: false, wanted }));
        Self { source, activity: activity.clone() }
    }

    /// Content of which these octets have been received, and take this room; `rest` is what still comes.
    pub fn received(octets: Bytes, rest: Self, room: ByteShare) -> Self {
        let activity = rest.activity.clone();
        Self { source: Source::Received(Box::new(ReceivedContent { octets, rest, room })), activity }
    }

    /// Whether its octets are the client's own no longer: they keep no buffer of its connection.
    pub fn is_received(&self) -> bool {
        matches!(self.source, Source::Received(_))
    }

    /// Whether all of it is here, but for trailers: nobody waits for the client who sends it on.
    pub fn is_here(&self) -> bool {
        match &self.source {
            Source::Received(content) => {
                content.rest.is_end_stream() || content.rest.size_hint().exact() == Some(0)
            }
            _ => self.is_end_stream(),
        }
    }

    /// Content that is these octets, as [`into_octets`](Self::into_octets) has it.
    pub fn of_octets(octets: Bytes, room: Option<ByteShare>) -> Self {
        match room {
            Some(room) => Self::received(octets, Self::none(), room),
            None => Self::none(),
        }
    }

    /// Its octets, with what they take of the room for such, where all of it is here. Trailer fields, if any come, are left.
    ///
    /// # Errors
    /// The content itself, where there is more of it.
    pub fn into_octets(self) -> Result<(Bytes, Option<ByteShare>), Self> {
        if !self.is_here() {
            return Err(self);
        }
        Ok(match self.source {
            Source::Received(content) => (content.octets, Some(content.room)),
            _ => (Bytes::new(), None),
        })
    }

    /// No content.
    pub fn none() -> Self {
        Self { source: Source::None, activity: Activity::default() }
    }
}

/// Whether a client waits for 100 (Continue) before it sends its content (RFC 9110 §10.1.1).
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl Http2Content {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(wanted) = self.wanted.take() {
            wanted.open();
        }
        while !self.drained {
            match ready!(self.frames.poll_data(context)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // The window opens as fast as the content is taken: the upstream's pace is the client's.
                    self.frames.flow_control().release_capacity(data.len())?;
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // A stream reset before its end never carries a whole request, whatever the reason it gives.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.drained = true,
            }
        }
        let trailers = ready!(self.frames.poll_trailers(context))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = ContentError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ContentError>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::None => None,
            Source::Http1(incoming, report) => {
                let is_declared = incoming.size_hint().exact().is_some();
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(context));
                if let Some(report) = report {
                    let piece = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                    if let Some(piece) = piece.filter(|_| is_declared) {
                        report.piece(piece);
                    }
                    if frame.is_none() || incoming.is_end_stream() {
                        report.whole();
                    }
                }
                frame.map(|frame| frame.map_err(ContentError::Http1))
            }
            Source::Http2(stream) => {
                ready!(stream.poll_frame(context)).map(|frame| frame.map_err(ContentError::Http2))
            }
            Source::Received(content) if content.octets.is_empty() => {
                ready!(Pin::new(&mut content.rest).poll_frame(context))
            }
            Source::Received(content) => Some(Ok(Frame::data(mem::take(&mut content.octets)))),
        };
        if let Some(Ok(_)) = &frame {
            this.activity.touch();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::None => true,
            Source::Http1(incoming, _) => incoming.is_end_stream(),
            Source::Http2(stream) => stream.frames.is_end_stream(),
            Source::Received(content) => content.octets.is_empty() && content.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::None => SizeHint::with_exact(0),
            Source::Http1(incoming, _) => incoming.size_hint(),
            Source::Http2(stream) => stream.left.map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Received(content) => {
                let (mut hint, here) = (content.rest.size_hint(), content.octets.len() as u64);
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + here);
                }
                hint.set_lower(hint.lower() + here);
                hint
            }
        }
    }
}

/// Records on the client's connection that its messages move.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<AtomicBool>);

impl Activity {
    /// Something moved.
    pub fn touch(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether anything has moved since this was last asked.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Opens when the upstream has sent 100 (Continue); a client's gate, when its content is first read.
#[derive(Clone, Debug, Default)]
pub struct ContinueGate(Arc<Latch>);

#[derive(Debug, Default)]
struct Latch {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl ContinueGate {
    /// Lets the body be sent.
    pub fn open(&self) {
        self.0.open.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    pub fn poll_open(&self, context: &Context<'_>) -> Poll<()> {
        self.0.waker.register(context.waker());
        if self.0.open.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}
