//! Where an HTTP/1.x connection stands in what its client sends: between two heads, within a content, or past what it
//! will read.
//!
//! hyper does not report this; the socket below it needs it, to know a head from a content and to close in stages
//! (RFC 9112 §9.6).

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

/// What has come of the newest request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// All of it: the next octets begin a head.
    Whole,
    /// Its content is being read.
    UnderWay,
    /// Nobody reads the rest of its content.
    Abandoned,
    /// The connection speaks another protocol (RFC 9110 §7.8).
    Switched,
}

/// Written by requests, read by the socket.
#[derive(Debug, Default)]
pub struct Turn {
    heads: AtomicUsize,
    incoming: AtomicU8,
}

impl Turn {
    /// Notes that a head has come; its content is reported by what this returns, where it has any.
    pub fn begin(self: &Arc<Self>, content: Incoming) -> ContentReport {
        self.heads.fetch_add(1, Ordering::Relaxed);
        self.set(content);
        ContentReport(Arc::clone(self))
    }

    /// Notes that HTTP has ended here.
    pub fn switch(&self) {
        self.set(Incoming::Switched);
    }

    /// How many heads have come.
    pub fn heads(&self) -> usize {
        self.heads.load(Ordering::Relaxed)
    }

    /// What has come of the newest request.
    pub fn incoming(&self) -> Incoming {
        match self.incoming.load(Ordering::Relaxed) {
            0 => Incoming::Whole,
            1 => Incoming::UnderWay,
            2 => Incoming::Abandoned,
            _ => Incoming::Switched,
        }
    }

    fn set(&self, incoming: Incoming) {
        self.incoming.store(incoming as u8, Ordering::Relaxed);
    }
}

/// A content that is being read. Dropped before its end, it is abandoned.
#[derive(Debug)]
pub struct ContentReport(Arc<Turn>);

impl ContentReport {
    /// Notes that all of the content has been read.
    pub fn whole(&self) {
        if self.0.incoming() == Incoming::UnderWay {
            self.0.set(Incoming::Whole);
        }
    }
}

impl Drop for ContentReport {
    fn drop(&mut self) {
        if self.0.incoming() == Incoming::UnderWay {
            self.0.set(Incoming::Abandoned);
        }
    }
}
