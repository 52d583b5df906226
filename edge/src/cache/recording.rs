//! A body while it is being filled: one writer, many readers, each at its own pace.
//!
//! ```text
//!   Keeping ---- finish ----> Complete        the pieces become a stored body
//!      |  \---- fail -------> Broken          every reader ends with an error after the bytes it could read
//!   let_go
//!      v
//!   Passing ---- finish ----> Complete        too large to keep: only a window stays, the slowest reader sets the pace,
//!         |                                   and is cut when it holds the others up for too long
//!         \----- fail ------> Broken
//! ```
//!
//! Promises: readers wake when something changes, never by polling; a reader that leaves never stops the writer while
//! the body is kept; no reader joins once pieces have been dropped.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use parking_lot::Mutex;

use super::StoredBody;
use crate::message::body_error::BodyError;

/// Bytes that may wait for the slowest reader once the body is only passed on.
const WINDOW: u64 = 256 * 1024;
/// And their number of pieces.
const MOST_PIECES: usize = 4 * 1024;

/// The shared state of a fill.
#[derive(Debug, Default)]
pub struct Recording {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pieces: VecDeque<Bytes>,
    /// How many pieces have been dropped at the front.
    gone: usize,
    /// Bytes now held.
    held: u64,
    trailers: Option<HeaderMap>,
    /// The stored body made of the pieces: held with them, so that it counts as in memory while anybody reads them.
    kept: Option<StoredBody>,
    state: Stage,
    readers: Vec<Option<Position>>,
    /// While passing: readers that have not read the first piece held, so that only the last of them looks at all the
    /// others.
    behind: usize,
    writer: Option<Waker>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Keeping,
    Passing,
    Complete,
    Broken(BodyError),
}

#[derive(Debug)]
struct Position {
    /// Index of the next piece, counted from the body's first.
    next: usize,
    waker: Option<Waker>,
    /// It held the others up, and receives no more.
    cut: bool,
}

impl Recording {
    /// An empty recording that keeps what it is given.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a piece, which must own its memory.
    pub fn push(&self, piece: Bytes) {
        let mut inner = self.inner.lock();
        inner.held += piece.len() as u64;
        inner.pieces.push_back(piece);
        inner.wake_readers();
    }

    /// Stops keeping: pieces that every reader has read are dropped, and no further reader may join.
    pub fn let_go(&self) {
        let mut inner = self.inner.lock();
        inner.state = Stage::Passing;
        inner.wake_readers();
        inner.shrink();
    }

    /// Ends the body. Returns all of it when it was kept.
    pub fn finish(&self, trailers: Option<HeaderMap>) -> Option<StoredBody> {
        let mut inner = self.inner.lock();
        let kept = matches!(inner.state, Stage::Keeping);
        inner.state = Stage::Complete;
        inner.trailers = trailers;
        inner.wake_readers();
        if kept {
            inner.kept = Some(StoredBody::new(inner.pieces.make_contiguous()));
        }
        inner.kept.clone()
    }

    /// Ends the body before its end.
    pub fn fail(&self, error: BodyError) {
        let mut inner = self.inner.lock();
        inner.state = Stage::Broken(error);
        inner.wake_readers();
    }

    /// A reader from the body's first byte; `None` once that is dropped, or when the body broke off.
    pub fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut inner = self.inner.lock();
        if inner.gone > 0 || matches!(inner.state, Stage::Passing | Stage::Broken(_)) {
            return None;
        }
        let position = Some(Position { next: 0, waker: None, cut: false });
        let slot = match inner.readers.iter().position(Option::is_none) {
            Some(free) => {
                inner.readers[free] = position;
                free
            }
            None => {
                inner.readers.push(position);
                inner.readers.len() - 1
            }
        };
        Some(Reader { recording: Arc::clone(self), slot, ended: false })
    }

    pub fn is_read(&self) -> bool {
        self.inner.lock().readers.iter().any(Option::is_some)
    }

    /// Whether no more than the window is held.
    pub fn is_small(&self) -> bool {
        self.inner.lock().fits_window()
    }

    /// Cuts the readers that hold the others up: those farthest behind, unless all are.
    pub fn cut_slowest(&self) {
        let mut inner = self.inner.lock();
        let places =
            || inner.readers.iter().flatten().filter(|position| !position.cut).map(|position| position.next);
        let (Some(slowest), Some(fastest)) = (places().min(), places().max()) else { return };
        if slowest == fastest {
            return;
        }
        for position in inner.readers.iter_mut().flatten().filter(|position| position.next == slowest) {
            position.cut = true;
            if let Some(waker) = position.waker.take() {
                waker.wake();
            }
        }
        inner.shrink();
    }

    /// Waits until the readers have room for more, or until nobody reads. Cancel-safe.
    pub async fn room(&self) -> Room {
        std::future::poll_fn(|context| {
            let mut inner = self.inner.lock();
            if !matches!(inner.state, Stage::Passing) {
                return Poll::Ready(Room::Wanted);
            }
            if inner.readers.iter().all(Option::is_none) {
                return Poll::Ready(Room::NobodyReads);
            }
            if inner.fits_window() {
                return Poll::Ready(Room::Wanted);
            }
            inner.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The answer to a writer that asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    Wanted,
    /// The body is not kept and has no reader left.
    NobodyReads,
}

impl Inner {
    fn wake_readers(&mut self) {
        for position in self.readers.iter_mut().flatten() {
            if let Some(waker) = position.waker.take() {
                waker.wake();
            }
        }
    }

    fn fits_window(&self) -> bool {
        self.held <= WINDOW && self.pieces.len() <= MOST_PIECES
    }

    /// A reader at this position advances or leaves.
    fn moved_from(&mut self, position: usize) {
        if position == self.gone && matches!(self.state, Stage::Passing) {
            self.behind -= 1;
            if self.behind == 0 {
                self.shrink();
            }
        }
    }

    /// Drops pieces that every reader has read; wakes the writer when that makes room.
    fn shrink(&mut self) {
        if !matches!(self.state, Stage::Passing) {
            return;
        }
        let counted = || self.readers.iter().flatten().filter(|position| !position.cut);
        let slowest = counted().map(|position| position.next).min().unwrap_or(usize::MAX);
        self.behind = counted().filter(|position| position.next == slowest).count();
        while self.gone < slowest {
            let Some(piece) = self.pieces.pop_front() else { break };
            self.gone += 1;
            self.held -= piece.len() as u64;
        }
        if (self.fits_window() || slowest == usize::MAX)
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }
}

/// One reader's position in a recording.
#[derive(Debug)]
pub struct Reader {
    recording: Arc<Recording>,
    slot: usize,
    ended: bool,
}

impl Reader {
    /// The next piece as soon as it has come; the trailers after the last; then `None`.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut guard = self.recording.inner.lock();
        let inner = &mut *guard;
        let position =
            inner.readers[self.slot].as_mut().expect("a reader's slot is its own until it is dropped");
        if position.cut {
            self.ended = true;
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        }
        if let Some(piece) = inner.pieces.get(position.next - inner.gone) {
            let piece = piece.clone();
            position.next += 1;
            let had = position.next - 1;
            inner.moved_from(had);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &inner.state {
            Stage::Keeping | Stage::Passing => {
                position.wake(context);
                Poll::Pending
            }
            Stage::Complete => {
                self.ended = true;
                Poll::Ready(inner.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Stage::Broken(error) => {
                self.ended = true;
                Poll::Ready(Some(Err(error.clone())))
            }
        }
    }

    /// [`Reader::poll_frame`], to await.
    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let mut reader = Pin::new(self);
        std::future::poll_fn(|context| reader.poll_frame(context)).await
    }

    /// Waits until the first `octets` octets have come, without reading any. Cancel-safe; the caller sets the deadline.
    pub async fn reach(&mut self, octets: u64) -> Reached {
        std::future::poll_fn(|context| {
            let mut guard = self.recording.inner.lock();
            let inner = &mut *guard;
            let position =
                inner.readers[self.slot].as_mut().expect("a reader's slot is its own until it is dropped");
            match &inner.state {
                // Nothing has been dropped, so the pieces held are all that have come.
                Stage::Complete if inner.gone == 0 => Poll::Ready(Reached::End(inner.held)),
                Stage::Keeping if inner.held >= octets => Poll::Ready(Reached::There),
                Stage::Keeping => {
                    position.wake(context);
                    Poll::Pending
                }
                Stage::Passing | Stage::Complete | Stage::Broken(_) => Poll::Ready(Reached::Never),
            }
        })
        .await
    }
}

/// How far a recording has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// As far as requested.
    There,
    /// To its end, after so many octets.
    End(u64),
    /// It is no longer kept, or it broke off.
    Never,
}

impl Position {
    fn wake(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.recording.inner.lock();
        match inner.readers[self.slot].take() {
            Some(position) if !position.cut => inner.moved_from(position.next),
            // The last that was cut may be the last of all.
            _ => inner.shrink(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut reader: Reader) -> Result<Vec<u8>, BodyError> {
        let mut all = Vec::new();
        while let Some(frame) = reader.frame().await {
            if let Ok(data) = frame?.into_data() {
                all.extend_from_slice(&data);
            }
        }
        Ok(all)
    }

    #[tokio::test]
    async fn early_and_late_readers_read_the_same() {
        let recording = Recording::new();
        let early = tokio::spawn(read_all(recording.reader().unwrap()));
        tokio::task::yield_now().await;
        recording.push(Bytes::from_static(b"ab"));
        let late = tokio::spawn(read_all(recording.reader().unwrap()));
        tokio::task::yield_now().await;
        recording.push(Bytes::from_static(b"cd"));
        let kept = recording.finish(None).unwrap();
        assert_eq!(kept.length(), 4);
        assert_eq!(early.await.unwrap().unwrap(), b"abcd");
        assert_eq!(late.await.unwrap().unwrap(), b"abcd");
    }

    #[tokio::test]
    async fn a_broken_fill_ends_each_reader_with_the_error_after_its_bytes() {
        let recording = Recording::new();
        let mut reader = recording.reader().unwrap();
        recording.push(Bytes::from_static(b"ab"));
        recording.fail(BodyError::UpstreamStalled);
        assert_eq!(reader.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert!(matches!(reader.frame().await, Some(Err(BodyError::UpstreamStalled))));
        assert!(reader.frame().await.is_none());
    }

    #[tokio::test]
    async fn the_slowest_of_several_is_cut_and_the_others_go_on() {
        let recording = Recording::new();
        let (mut slow, mut fast) = (recording.reader().unwrap(), recording.reader().unwrap());
        recording.push(Bytes::from_static(b"one"));
        recording.let_go();
        fast.frame().await.unwrap().unwrap();
        recording.cut_slowest();
        assert!(matches!(slow.frame().await, Some(Err(BodyError::TooSlow))));
        recording.cut_slowest();
        recording.push(Bytes::from_static(b"two"));
        assert_eq!(
            fast.frame().await.unwrap().unwrap().into_data().unwrap(),
            "two",
            "one alone is never cut"
        );
    }

    #[tokio::test]
    async fn a_reader_may_wait_for_octets_without_reading_them() {
        let recording = Recording::new();
        let mut reader = recording.reader().unwrap();
        let waiting = tokio::spawn(async move { (reader.reach(3).await, reader) });
        recording.push(Bytes::from_static(b"ab"));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        recording.push(Bytes::from_static(b"cd"));
        let (reached, mut reader) = waiting.await.unwrap();
        assert_eq!(reached, Reached::There);
        recording.finish(None).unwrap();
        assert_eq!(reader.reach(9).await, Reached::End(4));
        assert_eq!(read_all(reader).await.unwrap(), b"abcd");
    }

    #[tokio::test]
    async fn nobody_waits_for_octets_that_are_not_kept() {
        let recording = Recording::new();
        let mut reader = recording.reader().unwrap();
        let waiting = tokio::spawn(async move { reader.reach(3).await });
        tokio::task::yield_now().await;
        recording.let_go();
        assert_eq!(waiting.await.unwrap(), Reached::Never);
    }

    #[tokio::test]
    async fn nobody_joins_what_broke_off() {
        let recording = Recording::new();
        recording.fail(BodyError::UpstreamStalled);
        assert!(recording.reader().is_none());
    }

    #[tokio::test]
    async fn once_let_go_the_slowest_reader_sets_the_pace_and_nobody_joins() {
        let recording = Recording::new();
        let mut slow = recording.reader().unwrap();
        recording.let_go();
        assert!(recording.reader().is_none());
        let piece = Bytes::from(vec![0u8; WINDOW as usize + 1]);
        recording.push(piece);
        let waiting = tokio::spawn({
            let recording = Arc::clone(&recording);
            async move { recording.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        slow.frame().await.unwrap().unwrap();
        assert_eq!(waiting.await.unwrap(), Room::Wanted);
        drop(slow);
        assert_eq!(recording.room().await, Room::NobodyReads);
        assert!(recording.finish(None).is_none());
    }

    #[tokio::test]
    async fn what_every_reader_has_had_is_let_go_of_whoever_leaves_or_is_cut() {
        let held = |recording: &Recording| recording.inner.lock().held;
        let recording = Recording::new();
        let [mut first, mut second, third, fourth] = [(); 4].map(|()| recording.reader().unwrap());
        recording.push(Bytes::from_static(b"one"));
        recording.push(Bytes::from_static(b"two"));
        recording.let_go();
        first.frame().await.unwrap().unwrap();
        drop(third);
        second.frame().await.unwrap().unwrap();
        assert_eq!(held(&recording), 6, "the fourth has had nothing");
        recording.cut_slowest();
        assert_eq!(held(&recording), 3, "it gets no more");
        first.frame().await.unwrap().unwrap();
        drop(fourth);
        assert_eq!(held(&recording), 3);
        drop(second);
        assert_eq!(held(&recording), 0, "the only one left has had it all");
    }
}
