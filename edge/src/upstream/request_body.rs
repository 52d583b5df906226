//! A client's body on its way upstream: bounded in size and patience, and held back while the upstream has been asked
//! whether it wants it (RFC 9110 §10.1.1).

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;

use crate::body::{BodyError, Patience};

/// How far a body has come, for those who no longer hold it: hyper reports only that a body failed, and may have a
/// response before the body has ended.
#[derive(Debug, Default)]
pub struct Progress {
    broke: OnceLock<BodyError>,
    ended: AtomicBool,
    ending: Notify,
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

    fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.ending.notify_waiters();
    }
}

/// The body of a request to an upstream.
#[derive(Debug)]
pub struct RequestBody {
    source: Option<Box<Source>>,
    progress: Arc<Progress>,
}

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    left: u64,
    bound: u64,
    patience: Patience,
    gate: Option<(ContinueGate, Patience)>,
}

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        let progress = Progress::default();
        progress.set_ended();
        Self { source: None, progress: Arc::new(progress) }
    }

    /// A client's body of at most `bound` bytes, with at most `pause` between two pieces. With a `gate`, nothing is read
    /// from the client before it opens.
    pub fn new(incoming: Incoming, bound: u64, pause: Duration, gate: Option<ContinueGate>) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let gate = gate.map(|gate| (gate, Patience::new(CONTINUE_WAIT)));
        let source = Source { incoming, left: bound, bound, patience: Patience::new(pause), gate };
        Self { source: Some(Box::new(source)), progress: Arc::default() }
    }

    /// How far it has come, now and later.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl Source {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some((gate, patience)) = &mut self.gate {
            // An upstream that knows no 100 (Continue) gets the body after a short wait all the same.
            if gate.poll_open(context).is_pending() && patience.poll(context).is_pending() {
                return Poll::Pending;
            }
            self.gate = None;
        }
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Pending => self.patience.poll(context).map(|()| Some(Err(BodyError::ClientStalled))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Client(Arc::new(error))))),
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.rest();
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(Some(Err(BodyError::TooLarge(self.bound)))),
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
            Poll::Ready(Some(Ok(_))) if source.incoming.is_end_stream() => self.progress.set_ended(),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(|source| source.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or_else(|| SizeHint::with_exact(0), |source| source.incoming.size_hint())
    }
}

/// Opens when the upstream has said 100 (Continue).
#[derive(Clone, Debug, Default)]
pub struct ContinueGate(Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl ContinueGate {
    /// Lets the body go.
    pub fn open(&self) {
        self.0.open.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    fn poll_open(&self, context: &Context<'_>) -> Poll<()> {
        self.0.waker.register(context.waker());
        if self.0.open.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// RFC 9110 §10.1.1: a client must not wait indefinitely. nginx and curl wait about as long.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);
