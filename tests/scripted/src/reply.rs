//! What a script answers, and how its content comes.

use std::{
    collections::VecDeque,
    error, fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::{gate::Gate, scripted::Seen};

/// What the script answers.
#[derive(Debug)]
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) before_head: Option<Pause>,
    pub(crate) content: Content,
    pub(crate) ending: Ending,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It goes on.
    Answered,
    /// It closes without an answer.
    HangsUp,
    /// After the head it carries back every octet that comes.
    Echoes,
}

impl Reply {
    /// 200 with this content and its Content-Length.
    #[must_use]
    pub fn ok(body: impl Into<Bytes>) -> Self {
        let mut reply = Self::streamed().then(body);
        reply.content.sized = true;
        reply
    }

    /// 200 whose content follows in pieces, chunked.
    #[must_use]
    pub fn streamed() -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            before_head: None,
            content: Content { steps: VecDeque::new(), sized: false },
            ending: Ending::Answered,
        }
    }

    /// 200 whose content the test sends piece by piece while it runs.
    #[must_use]
    pub fn in_pieces() -> (Pieces, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut reply = Self::streamed();
        reply.content.steps.push_back(Step::Pieces(receiver));
        (Pieces(sender), reply)
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
        Self { ending: Ending::Echoes, ..reply }
    }

    /// The connection closes without an answer.
    #[must_use]
    pub fn hang_up() -> Self {
        Self { ending: Ending::HangsUp, ..Self::streamed() }
    }

    /// With another status.
    ///
    /// # Panics
    /// When there is no such status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).expect("tests write valid statuses");
        self
    }

    /// With one more header line.
    ///
    /// # Panics
    /// When it is malformed: [`Verbatim`](crate::Verbatim) can say such.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("tests write valid names");
        self.headers.append(name, HeaderValue::from_str(value).expect("tests write valid values"));
        self
    }

    /// With these header lines besides.
    #[must_use]
    pub fn fields(self, fields: &[(&str, &str)]) -> Self {
        fields.iter().fold(self, |reply, (name, value)| reply.header(name, value))
    }

    /// With `Cache-Control`.
    #[must_use]
    pub fn cache_control(self, value: &str) -> Self {
        self.header("cache-control", value)
    }

    /// The head waits for the gate.
    #[must_use]
    pub fn after(mut self, gate: &Gate) -> Self {
        self.before_head = Some(Pause::at(gate));
        self
    }

    /// The head waits so long: for tests on paused time.
    #[must_use]
    pub fn late(mut self, wait: Duration) -> Self {
        self.before_head = Some(Pause(Box::pin(async move { tokio::time::sleep(wait).await })));
        self
    }

    /// Then this piece of content.
    #[must_use]
    pub fn then(self, piece: impl Into<Bytes>) -> Self {
        self.step(Step::Data(piece.into()))
    }

    /// Then this piece so many times.
    #[must_use]
    pub fn then_repeated(self, piece: impl Into<Bytes>, times: usize) -> Self {
        self.step(Step::Repeat(piece.into(), times))
    }

    /// Then wait for the gate.
    #[must_use]
    pub fn then_wait(self, gate: &Gate) -> Self {
        self.step(Step::Wait(Pause::at(gate)))
    }

    /// Then a trailer field, which ends the content.
    #[must_use]
    pub fn then_trailer(self, name: &'static str, value: &'static str) -> Self {
        self.step(Step::Trailers(HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])))
    }

    /// Then break off: the connection closes in the middle of the content.
    #[must_use]
    pub fn then_break(self) -> Self {
        // hyper sends what it has when the content pauses; without a pause it would drop it with the connection.
        self.step(Step::Wait(Pause(Box::pin(tokio::task::yield_now())))).step(Step::Break)
    }

    fn step(mut self, step: Step) -> Self {
        self.content.steps.push_back(step);
        self
    }
}

/// A script that always gives the same answer: 200 with these fields and this content.
pub fn saying(
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |_| Reply::ok(body).fields(fields)
}

/// A script that answers the first request with this, and the others as `then` says.
pub fn first(
    reply: Reply,
    then: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let reply = Mutex::new(Some(reply));
    move |seen| {
        let first = reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| then(seen))
    }
}

/// Content that the test sends piece by piece. Dropped, it is the content's end.
#[derive(Debug)]
pub struct Pieces(mpsc::UnboundedSender<Result<Bytes, BrokenOff>>);

impl Pieces {
    /// Sends one.
    ///
    /// # Panics
    /// When nobody wants it any more.
    pub fn send(&self, piece: impl Into<Bytes>) {
        self.0.send(Ok(piece.into())).expect("the answer is still being sent");
    }

    /// Whether anybody still wants the content: the connection is open.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        !self.0.is_closed()
    }

    /// Breaks off: the connection closes in the middle of the content.
    ///
    /// # Panics
    /// When nobody wants the content any more.
    pub fn fail(self) {
        self.0.send(Err(BrokenOff)).expect("the answer is still being sent");
    }
}

/// The content of a reply as it is sent.
#[derive(Debug)]
pub(crate) struct Content {
    steps: VecDeque<Step>,
    /// Whether its length is said beforehand.
    sized: bool,
}

#[derive(Debug)]
enum Step {
    Data(Bytes),
    Repeat(Bytes, usize),
    Pieces(mpsc::UnboundedReceiver<Result<Bytes, BrokenOff>>),
    Wait(Pause),
    Trailers(HeaderMap),
    Break,
}

impl Body for Content {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
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
                Some(Step::Pieces(mut pieces)) => match pieces.poll_recv(context) {
                    Poll::Ready(None) => continue,
                    Poll::Ready(Some(piece)) => {
                        steps.push_front(Step::Pieces(pieces));
                        Some(piece.map(Frame::data))
                    }
                    Poll::Pending => {
                        steps.push_front(Step::Pieces(pieces));
                        return Poll::Pending;
                    }
                },
                Some(Step::Wait(mut pause)) => {
                    if pause.0.as_mut().poll(context).is_pending() {
                        steps.push_front(Step::Wait(pause));
                        return Poll::Pending;
                    }
                    continue;
                }
                Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Step::Break) => Some(Err(BrokenOff)),
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Data(data) if data.is_empty()))
    }

    fn size_hint(&self) -> SizeHint {
        match self.steps.front() {
            Some(Step::Data(data)) if self.sized => SizeHint::with_exact(data.len() as u64),
            None => SizeHint::with_exact(0),
            Some(_) => SizeHint::default(),
        }
    }
}

/// Something that a reply waits for.
pub(crate) struct Pause(pub(crate) Pin<Box<dyn Future<Output = ()> + Send>>);

impl Pause {
    fn at(gate: &Gate) -> Self {
        Self(Box::pin(gate.clone().passed()))
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pause")
    }
}

/// The script says to break off here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the script says to break off here")
    }
}

impl error::Error for BrokenOff {}
