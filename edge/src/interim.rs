//! Interim responses (RFC 9110 §15.2) on their way to an HTTP/1.1 client.
//!
//! hyper's server sends none, so they are written on the connection's own socket. Two promises keep the framing whole: the
//! socket takes them only while hyper has nothing unsent ([`Interim::take`], called when it flushes), and a request whose
//! interim responses are not out yet does not answer ([`Interim::sent`]), or takes them back ([`Interim::withdraw`]). HTTP/2 has no such place between hyper and
//! the stream: there they end here.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering},
    task::{Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// What waits to be written on one connection.
#[derive(Debug, Default)]
pub struct Interim {
    waiting: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    sender: Option<Waker>,
}

/// An interim response of an upstream.
pub type Received = (StatusCode, HeaderMap);

/// Where an upstream's interim responses go, for the request that asked it.
#[derive(Clone, Debug)]
pub struct Relay(mpsc::Sender<Received>);

/// A way for interim responses from an upstream's connection to the request.
pub fn relay() -> (Relay, mpsc::Receiver<Received>) {
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    (Relay(sender), receiver)
}

impl Relay {
    /// Passes one on, unless too many wait already: they are hints.
    pub fn pass(&self, status: StatusCode, headers: &HeaderMap) {
        if is_for_clients(status) {
            drop(self.0.try_send((status, headers.clone())));
        }
    }
}

/// 100 is answered on each connection for itself, 101 is a final answer (RFC 9110 §15.2).
fn is_for_clients(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::CONTINUE && status != StatusCode::SWITCHING_PROTOCOLS
}

impl Interim {
    /// Puts an interim response in the queue. Its fields must not be those of one connection.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut inner = self.inner.lock();
        if inner.bytes.len() > MOST_BYTES {
            return;
        }
        let line = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or(""));
        inner.bytes.extend_from_slice(line.as_bytes());
        for (name, value) in headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                inner.bytes.extend_from_slice(part);
            }
        }
        inner.bytes.extend_from_slice(b"\r\n");
        self.waiting.store(true, Ordering::Release);
    }

    /// Waits until all that was put in the queue has been written. Cancel-safe.
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

    /// Takes back what is not being written yet: the answer comes first after all.
    pub fn withdraw(&self) {
        self.inner.lock().bytes.clear();
    }

    /// Whether anything waits.
    pub fn waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// What waits; the caller writes it and then calls [`Interim::written`].
    pub fn take(&self) -> Bytes {
        std::mem::take(&mut self.inner.lock().bytes).into()
    }

    /// What was taken has been written.
    pub fn written(&self) {
        let mut inner = self.inner.lock();
        if inner.bytes.is_empty() {
            self.waiting.store(false, Ordering::Release);
            if let Some(sender) = inner.sender.take() {
                sender.wake();
            }
        }
    }
}

/// Interim responses of one upstream that may wait for their request to look.
const MOST_WAITING: usize = 8;
/// Beyond this many bytes unsent, further ones are left out.
const MOST_BYTES: usize = 64 * 1024;
