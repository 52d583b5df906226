//! Interim responses (RFC 9110 §15.2) on their way to a client.
//!
//! A request has one queue for them, [`Interim`], whichever protocol its client speaks. The connection takes them from
//! there: in HTTP/2 the request's own stream, in HTTP/1.1 the socket, because hyper's server sends none. Two promises
//! keep the framing whole: they are taken only between messages ([`Interim::take`]), and a request whose interim
//! responses are not sent yet does not answer ([`Interim::sent`]), or withdraws them ([`Interim::withdraw`]).

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

/// Interim responses to be sent before an answer.
#[derive(Debug, Default)]
pub struct Interim {
    waiting: AtomicBool,
    inner: Mutex<HeadQueue>,
}

#[derive(Debug, Default)]
struct HeadQueue {
    heads: Vec<InterimHead>,
    bytes: usize,
    sender: Option<Waker>,
}

/// An interim response of an upstream.
pub type InterimHead = (StatusCode, HeaderMap);

/// Where an upstream's interim responses go, for the request that asked it. Seldom does one come: until then it is a place
/// and no more.
#[derive(Clone, Debug)]
pub struct Relay(Arc<RelayedHeads>);

/// What has come of an upstream, for the request to take.
#[derive(Debug, Default)]
pub struct RelayedHeads {
    heads: Mutex<Vec<InterimHead>>,
    taker: AtomicWaker,
}

/// A way for interim responses from an upstream's connection to the request.
pub fn relay() -> (Relay, Arc<RelayedHeads>) {
    let heads = Arc::<RelayedHeads>::default();
    (Relay(Arc::clone(&heads)), heads)
}

impl Relay {
    /// Forwards one, unless too many wait already: they are hints.
    pub fn pass(&self, status: StatusCode, headers: &HeaderMap) {
        if is_for_clients(status) {
            let mut heads = self.0.heads.lock();
            if heads.len() < MOST_WAITING {
                heads.push((status, headers.clone()));
            }
            drop(heads);
            self.0.taker.wake();
        }
    }
}

impl RelayedHeads {
    /// Takes what has come, in order.
    pub fn take(&self) -> Vec<InterimHead> {
        std::mem::take(&mut *self.heads.lock())
    }

    /// Takes what has come, and wakes the task when more comes.
    pub fn take_and_wait(&self, context: &Context<'_>) -> Vec<InterimHead> {
        self.taker.register(context.waker());
        self.take()
    }
}

/// 100 is answered on each connection separately, 101 is a final answer (RFC 9110 §15.2).
pub fn is_for_clients(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::CONTINUE && status != StatusCode::SWITCHING_PROTOCOLS
}

impl Interim {
    /// Puts an interim response in the queue. Its fields must not be those of one connection.
    pub fn send(&self, status: StatusCode, headers: HeaderMap) {
        let mut inner = self.inner.lock();
        if inner.bytes > MOST_BYTES {
            return;
        }
        inner.bytes += LINE
            + headers.iter().map(|(name, value)| LINE + name.as_str().len() + value.len()).sum::<usize>();
        inner.heads.push((status, headers));
        self.waiting.store(true, Ordering::Release);
    }

    /// Waits until the whole queue has been sent. Cancel-safe.
    pub async fn sent(&self) {
        poll_fn(|context| {
            let mut inner = self.inner.lock();
            if !self.waiting.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            inner.sender = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Withdraws the responses that are not being sent yet: the answer comes first after all.
    pub fn withdraw(&self) {
        let mut inner = self.inner.lock();
        inner.heads.clear();
        inner.bytes = 0;
    }

    pub fn waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// The queued responses, in order; the caller sends them and then calls [`Interim::written`].
    pub fn take(&self) -> Vec<InterimHead> {
        let mut inner = self.inner.lock();
        inner.bytes = 0;
        std::mem::take(&mut inner.heads)
    }

    /// Notes that the responses taken have been sent.
    pub fn written(&self) {
        let mut inner = self.inner.lock();
        if inner.heads.is_empty() {
            self.waiting.store(false, Ordering::Release);
            if let Some(sender) = inner.sender.take() {
                sender.wake();
            }
        }
    }
}

/// Interim responses as HTTP/1.1 writes them (RFC 9112 §4).
pub fn in_http1(heads: &[InterimHead]) -> Bytes {
    let mut bytes = Vec::new();
    for (status, headers) in heads {
        let line = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or(""));
        bytes.extend_from_slice(line.as_bytes());
        for (name, value) in headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.into()
}

/// Interim responses of one upstream that may wait for their request to take them.
pub const MOST_WAITING: usize = 8;
/// Beyond about this many unsent bytes, further ones are dropped.
const MOST_BYTES: usize = 64 * 1024;
/// What a line costs beside its name and value.
const LINE: usize = 32;
