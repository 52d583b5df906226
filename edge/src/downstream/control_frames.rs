//! An HTTP/2 client's frames that carry nothing: how many of them a connection bears.
//!
//! h2 answers PING and SETTINGS by itself, and drops what has no effect; nobody hears of it. So the frames' headers are read as
//! they come from the socket (RFC 9113 §4.1), and what carries nothing is charged to an allowance:
//!
//! ```text
//!   allowance  <---- so many a second, by the settings
//!              <---- a request: its client cancels or reprioritises it, and opens its window
//!              <---- octets of answers: their client opens windows, and measures with PINGs how far they should be
//!              ----> PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty DATA, frames of unknown types
//! ```
//!
//! Once it is used up nothing more is read, and the connection's driver ends it. Costs a few steps a frame, and no clock as
//! long as the allowance lasts.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use cache_policy::Moment;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;

/// The frames that a connection bears. Shared by its reader, its answers and its driver, which are one task.
#[derive(Debug)]
pub struct FrameAllowance {
    clock: Clock,
    a_second: i64,
    left: AtomicI64,
    /// Until when it has been refilled, in milliseconds since the clock's epoch.
    refilled: AtomicU64,
    used_up: AtomicBool,
}

impl FrameAllowance {
    /// So many frames a second that carry nothing, beside those that requests and answers account for.
    pub fn new(clock: &Clock, a_second: u32) -> Arc<Self> {
        let (clock, a_second) = (clock.clone(), i64::from(a_second));
        let refilled = AtomicU64::new(milliseconds(&clock));
        let left = AtomicI64::new(a_second);
        Arc::new(Self { clock, a_second, left, refilled, used_up: AtomicBool::new(false) })
    }

    /// Notes octets of an answer that are sent.
    pub fn answered(&self, octets: usize) {
        self.earn(i64::try_from(octets / OCTETS_FOR_A_FRAME).unwrap_or(i64::MAX));
    }

    /// Whether more frames have come than the connection bears.
    pub fn is_used_up(&self) -> bool {
        self.used_up.load(Ordering::Relaxed)
    }

    fn charge(&self, came: FramesCame) {
        self.earn(came.requests.saturating_mul(FOR_A_REQUEST));
        if came.empty == 0 || self.left.fetch_sub(came.empty, Ordering::Relaxed) >= came.empty {
            return;
        }
        self.refill();
        if self.left.load(Ordering::Relaxed) < 0 {
            self.used_up.store(true, Ordering::Relaxed);
        }
    }

    fn earn(&self, frames: i64) {
        let left = self.left.load(Ordering::Relaxed);
        let most = self.a_second.saturating_add(MOST_EARNED);
        self.left.store(left.saturating_add(frames).min(most), Ordering::Relaxed);
    }

    /// Adds what the time since the last refill gives: no more than for a second.
    fn refill(&self) {
        let now = milliseconds(&self.clock);
        let since = now.saturating_sub(self.refilled.swap(now, Ordering::Relaxed)).min(1000);
        let earned = self.a_second.saturating_mul(i64::try_from(since).unwrap_or(1000)) / 1000;
        self.left.fetch_add(earned, Ordering::Relaxed);
    }
}

fn milliseconds(clock: &Clock) -> u64 {
    let since = clock.now().since(Moment::from_epoch(Duration::ZERO));
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A connection whose frames are counted as they are read.
#[derive(Debug)]
pub struct CountedFrames<S> {
    io: S,
    headers: FrameHeaders,
    allowance: Arc<FrameAllowance>,
}

impl<S> CountedFrames<S> {
    /// A connection whose client is about to send its preface.
    pub fn new(io: S, allowance: Arc<FrameAllowance>) -> Self {
        Self { io, headers: FrameHeaders::default(), allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedFrames<S> {
    /// Pending for ever once the allowance is used up: whoever drives the connection has to look.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        if this.allowance.is_used_up() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        let came = this.headers.read(&buffer.filled()[before..]);
        this.allowance.charge(came);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedFrames<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// The headers of a connection's frames, one after the other, in whatever pieces they come.
#[derive(Debug)]
struct FrameHeaders {
    /// The header under way, as far as it has come.
    header: [u8; HEADER],
    have: usize,
    /// Octets that are still to come of what is no header.
    skip: usize,
}

/// Before its first frame a client sends its preface, which h2 reads.
impl Default for FrameHeaders {
    fn default() -> Self {
        Self { header: [0; HEADER], have: 0, skip: PREFACE }
    }
}

/// What octets were about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FramesCame {
    /// Heads of requests, or trailers.
    requests: i64,
    /// Frames that carry nothing.
    empty: i64,
}

impl FrameHeaders {
    /// The next octets of a connection.
    fn read(&mut self, mut octets: &[u8]) -> FramesCame {
        let mut came = FramesCame::default();
        loop {
            let skipped = self.skip.min(octets.len());
            self.skip -= skipped;
            octets = &octets[skipped..];
            let (more, rest) = octets.split_at((HEADER - self.have).min(octets.len()));
            if more.is_empty() {
                return came;
            }
            self.header[self.have..self.have + more.len()].copy_from_slice(more);
            self.have += more.len();
            octets = rest;
            if self.have == HEADER {
                self.have = 0;
                self.skip = self.count(&mut came);
            }
        }
    }

    /// Counts the frame whose header is complete; the length of its payload.
    fn count(&self, came: &mut FramesCame) -> usize {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            HEADERS => came.requests += 1,
            DATA => {
                // As much as may be padding counts as such (RFC 9113 §6.1).
                let most = if flags & PADDED == 0 { 0 } else { MOST_PADDING };
                came.empty += i64::from(length <= most && flags & END_STREAM == 0);
            }
            // h2 bounds how many make a head.
            CONTINUATION => {}
            _ => came.empty += 1,
        }
        length
    }
}

/// What a request may cost in such frames.
const FOR_A_REQUEST: i64 = 4;
/// Octets of answers for which a client may send one.
const OCTETS_FOR_A_FRAME: usize = 64;
/// Frames that may be saved up: as many as come late for answers that have been sent.
const MOST_EARNED: i64 = 1 << 16;
/// RFC 9113 §3.4.
const PREFACE: usize = 24;
/// RFC 9113 §4.1.
const HEADER: usize = 9;
/// RFC 9113 §6: types and flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;
const MOST_PADDING: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut octets = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        // What looks like headers of PINGs.
        octets.resize(HEADER + usize::from(length), PING);
        octets
    }

    fn sent(frames: &[Vec<u8>]) -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frames.concat()].concat()
    }

    #[test]
    fn what_carries_nothing_is_told_from_what_does() {
        let mut headers = FrameHeaders::default();
        let carries = [
            frame(HEADERS, 4, 40),
            frame(CONTINUATION, 4, 0),
            frame(DATA, 0, 1),
            frame(DATA, END_STREAM, 0),
            frame(DATA, PADDED | END_STREAM, 200),
        ];
        assert_eq!(headers.read(&sent(&carries)), FramesCame { requests: 1, empty: 0 });
        let long = [&[0, 1, 1, DATA, PADDED, 0, 0, 0, 1][..], &[PING; 257]].concat();
        assert_eq!(headers.read(&long), FramesCame::default(), "more than padding");
        let empty: Vec<_> = [2, 3, 4, 5, PING, 7, 8, 16, 255].map(|kind| frame(kind, 1, 8)).into();
        let empty = [empty, vec![frame(DATA, 0, 0), frame(DATA, PADDED, 255)]].concat();
        assert_eq!(headers.read(&empty.concat()), FramesCame { requests: 0, empty: 11 });
    }

    proptest! {
        #[test]
        fn in_whatever_pieces_frames_come_they_are_the_same(
            kinds in proptest::collection::vec((0_u8..12, any::<u8>(), any::<u8>()), 0..20),
            cuts in proptest::collection::vec(1_usize..40, 1..200),
        ) {
            let frames: Vec<_> = kinds.iter().map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
            let octets = sent(&frames);
            let whole = FrameHeaders::default().read(&octets);
            let mut headers = FrameHeaders::default();
            let mut came = FramesCame::default();
            let mut rest = &octets[..];
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                let read = headers.read(piece);
                came.requests += read.requests;
                came.empty += read.empty;
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(came, whole);
        }
    }

    fn empty(frames: i64) -> FramesCame {
        FramesCame { requests: 0, empty: frames }
    }

    #[tokio::test(start_paused = true)]
    async fn the_allowance_comes_back_with_time_and_is_used_up_by_a_flood() {
        let allowance = FrameAllowance::new(&Clock::system(), 100);
        for _ in 0..20 {
            allowance.charge(empty(90));
            assert!(!allowance.is_used_up());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // An hour of silence saves up nothing.
        tokio::time::advance(Duration::from_secs(3600)).await;
        allowance.charge(empty(250));
        assert!(allowance.is_used_up());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_answers_account_for_frames() {
        let allowance = FrameAllowance::new(&Clock::system(), 10);
        // A client that opens both windows for every 4 KiB, and one that cancels what it has asked for.
        for _ in 0..10_000 {
            allowance.answered(4096);
            allowance.charge(empty(2));
            allowance.charge(FramesCame { requests: 1, empty: 2 });
        }
        assert!(!allowance.is_used_up());
        // What is saved up has a bound.
        allowance.charge(empty(10 + MOST_EARNED + 1));
        assert!(allowance.is_used_up());
    }

    /// One octet at a time, for which a frame comes each time: the flood of CVE-2019-9511.
    #[tokio::test(start_paused = true)]
    async fn crumbs_of_answers_account_for_nothing() {
        let allowance = FrameAllowance::new(&Clock::system(), 10);
        for _ in 0..11 {
            allowance.answered(1);
            allowance.charge(empty(1));
        }
        assert!(allowance.is_used_up());
    }
}
