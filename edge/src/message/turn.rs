//! Where an HTTP/1.x connection stands in what its client sends: between two heads, within a content, or past what it
//! will read.
//!
//! hyper does not report this; the socket below it needs it, to know a head from a content and to close in stages
//! (RFC 9112 §9.6).

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
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
    /// The last octets of the newest content, as far as they have come, and how many of them are its.
    content_end: AtomicU64,
    content_length: AtomicUsize,
}

impl Turn {
    /// Notes that a head has come; its content is reported by what this returns, where it has any.
    pub fn begin(self: &Arc<Self>, content: Incoming) -> ContentReport {
        self.heads.fetch_add(1, Ordering::Relaxed);
        self.content_length.store(0, Ordering::Relaxed);
        self.set(content);
        ContentReport(Arc::clone(self))
    }

    /// Whether the newest message, which is whole, ends with the octets that have come last: else they begin another head.
    ///
    /// A client can have it wrong by a head that looks like the content before it. It has then no more than a client that
    /// says nothing.
    pub fn ends_with(&self, last: LastOctets) -> bool {
        match self.content_length.load(Ordering::Relaxed) {
            // A head, or the last chunk and its trailers: all end with an empty line.
            0 => last.is_empty_line(),
            length => last.ends_like(LastOctets(self.content_end.load(Ordering::Relaxed)), length),
        }
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
    /// Notes a piece of content that has a declared length: nothing follows its last octet.
    pub fn piece(&self, octets: &[u8]) {
        let mut end = LastOctets(self.0.content_end.load(Ordering::Relaxed));
        end.add(octets);
        self.0.content_end.store(end.0, Ordering::Relaxed);
        self.0.content_length.fetch_add(octets.len(), Ordering::Relaxed);
    }

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

/// The last eight octets of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastOctets(u64);

impl LastOctets {
    /// Notes octets that follow.
    pub fn add(&mut self, octets: &[u8]) {
        for octet in &octets[octets.len().saturating_sub(size_of::<u64>())..] {
            self.0 = self.0 << 8 | u64::from(*octet);
        }
    }

    /// Whether they end with an empty line.
    pub fn is_empty_line(self) -> bool {
        matches!(self.0.to_be_bytes(), [.., b'\n', b'\n'] | [.., b'\n', b'\r', b'\n'])
    }

    /// Whether the last ones are the same, of so many.
    fn ends_like(self, other: Self, count: usize) -> bool {
        let differ = (self.0 ^ other.0).trailing_zeros() as usize / 8;
        differ >= count.min(size_of::<u64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(octets: &[u8]) -> LastOctets {
        let mut last = LastOctets::default();
        last.add(octets);
        last
    }

    #[test]
    fn a_message_without_content_ends_with_an_empty_line() {
        let turn = Arc::<Turn>::default();
        drop(turn.begin(Incoming::Whole));
        assert!(turn.ends_with(last(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")));
        assert!(turn.ends_with(last(b"GET / HTTP/1.1\nHost: a\n\n")));
        for glued in
            [&b"\r\n\r\nG"[..], b"\r\n\r\nGET / HTTP/1.1\r\n", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r"]
        {
            assert!(!turn.ends_with(last(glued)), "{glued:?}");
        }
    }

    #[test]
    fn a_content_ends_with_its_last_octets() {
        for content in [&b"a"[..], b"hello", b"longer than eight octets", b"ends\r\n\r\n"] {
            let turn = Arc::<Turn>::default();
            let report = turn.begin(Incoming::UnderWay);
            for piece in content.chunks(3) {
                report.piece(piece);
            }
            report.whole();
            let mut came = last(b"Content-Length: 1\r\n\r\n");
            came.add(content);
            assert!(turn.ends_with(came), "{content:?}");
            came.add(b"GET");
            assert!(!turn.ends_with(came), "{content:?}");
            drop(turn.begin(Incoming::Whole));
            assert!(turn.ends_with(last(b"\r\n\r\n")), "the next one has none");
        }
    }
}
