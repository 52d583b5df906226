//! A scripted upstream behind pipes, for the edge to dial.

use std::{
    io,
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use edge::{
    clock::Clock,
    message::byte_stream::ByteStream,
    upstream::{
        address::Address,
        connect::{Dial, Dialling},
    },
};
use scripted_upstream::{Reply, Scripted, Seen};
use tokio::task::AbortHandle;

use crate::front::start;

/// An upstream that answers by its script; what it was asked is read from the [`Scripted`] inside. Clones are the same upstream.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    scripted: Scripted,
    stopped: AtomicBool,
    connections: Mutex<Vec<AbortHandle>>,
}

impl Upstream {
    /// Answers with `script`, dated by the test's own time.
    pub(crate) fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let clock = Clock::starting_at(start());
        Self(Arc::new(Inner {
            scripted: Scripted::by_clock(move || clock.wall(), script),
            stopped: AtomicBool::new(false),
            connections: Mutex::default(),
        }))
    }

    /// Closes every connection: from now on it refuses.
    pub(crate) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
        self.0.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

impl Deref for Upstream {
    type Target = Scripted;

    fn deref(&self) -> &Scripted {
        &self.0.scripted
    }
}

impl Dial for Upstream {
    fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
        Box::pin(async move {
            if self.0.stopped.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            let serving = tokio::spawn(self.serve(far)).abort_handle();
            self.0.connections.lock().unwrap().push(serving);
            Ok(Box::new(near) as Box<dyn ByteStream>)
        })
    }
}
