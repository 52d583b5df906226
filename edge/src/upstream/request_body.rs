//! A client's body on its way upstream: bounded in size and in pauses, and held back until the upstream has answered
//! Expect (RFC 9110 §10.1.1).

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{sync::Notify, time::Instant};

use crate::{
    message::{
        body_error::BodyError,
        content::{Content, ContinueGate},
        patience::Patience,
    },
    settings::ByteSize,
};

/// How far a body has come, for those who no longer hold it: hyper reports only that a body failed, and may have a
/// response before the body has ended.
#[derive(Debug, Default)]
pub struct Progress {
    broke: OnceLock<BodyError>,
    ended: AtomicBool,
    ending: Notify,
    steps: AtomicU64,
}

impl Progress {
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

    fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.ending.notify_waiters();
    }
}

/// The body of a request to an upstream.
#[derive(Debug)]
pub struct RequestBody {
    source: Option<Box<ClientContent>>,
    progress: Arc<Progress>,
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
}

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        let progress = Progress::default();
        progress.set_ended();
        Self { source: None, progress: Arc::new(progress) }
    }

    /// A client's body within these bounds. With a `gate`, nothing is read from the client before it opens.
    pub fn new(content: Content, bounds: ContentBounds, gate: Option<ContinueGate>) -> Self {
        if content.is_end_stream() {
            return Self::empty();
        }
        let gate = gate.map(|gate| (gate, Patience::new(CONTINUE_WAIT)));
        let source = ClientContent {
            taken: 0,
            bounds,
            declared: content.size_hint().exact(),
            began: None,
            patience: Patience::new(bounds.pause),
            gate,
            content,
        };
        Self { source: Some(Box::new(source)), progress: Arc::default() }
    }

    /// How far it has come, now and later.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl ClientContent {
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
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.rest();
                self.taken += frame.data_ref().map_or(0, |data| data.len() as u64);
                let ContentBounds { most, pause, rate } = self.bounds;
                if self.taken > most {
                    return Poll::Ready(Some(Err(BodyError::TooLarge(most))));
                }
                // A body that never pauses and yet hardly advances would hold an upstream connection for ever.
                let began = *self.began.get_or_insert_with(Instant::now);
                let earned = self.taken.checked_div(rate).map(Duration::from_secs);
                if earned.is_some_and(|earned| began.elapsed() > pause + earned) {
                    return Poll::Ready(Some(Err(BodyError::ClientTooSlow(ByteSize(rate)))));
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
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        let frame = source.poll_frame(context);
        match &frame {
            // The first cause is the one that counts.
            Poll::Ready(Some(Err(error))) => drop(self.progress.broke.set(error.clone())),
            Poll::Ready(None) => self.progress.set_ended(),
            // hyper stops asking once it has what Content-Length promised.
            Poll::Ready(Some(Ok(_)))
                if source.content.is_end_stream() || source.declared == Some(source.taken) =>
            {
                self.progress.set_ended();
            }
            Poll::Ready(Some(Ok(_))) => self.progress.step(),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(|source| source.content.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or_else(|| SizeHint::with_exact(0), |source| source.content.size_hint())
    }
}

/// RFC 9110 §10.1.1: a client must not wait indefinitely. nginx and curl wait about as long.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);
