//! A body while it is being filled: one writer, many readers, each at its own pace.
//!
//! ```text
//!   Keeping ---- finish ----> Complete        the pieces become a stored body, from which readers read on
//!      |  \---- fail -------> Broken          every reader ends with an error after the bytes it could read
//!   let_go
//!      v
//!   Passing ---- finish ----> Complete        too large to keep: the reader that is farthest sets the pace; those behind
//!         |                                   it are cut when more would have to be held for them than there is room
//!         \----- fail ------> Broken
//! ```
//!
//! Promises: readers wake when something changes, never by polling; a reader that leaves never stops the writer while
//! the body is kept; no reader joins once pieces have been dropped; what is held for readers counts as in flight.

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

use super::{StoredBody, reservation::Reservation, stored_body::StoredBodyReader};
use crate::message::body_error::BodyError;

/// Bytes that may be ahead of every reader once the body is only passed on.
const WINDOW: u64 = 256 * 1024;
/// And their number of pieces.
const MOST_PIECES: usize = 4 * 1024;
/// What a piece costs beside its bytes.
const PIECE: u64 = 128;

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
    /// Bytes that have come.
    come: u64,
    trailers: Option<HeaderMap>,
    /// The stored body made of the pieces: held here, so that it counts as in memory while anybody reads it.
    kept: Option<StoredBody>,
    state: Stage,
    readers: Vec<Option<Position>>,
    /// While passing: how many bytes and pieces may be held for readers that are behind.
    grace: u64,
    /// The place of the reader that is farthest.
    farthest: ReadSoFar,
    /// While passing: readers that have not read the first piece held, so that only the last of them looks at all the
    /// others.
    behind: usize,
    writer: Option<Waker>,
    /// Room for what is still held when the fill has ended.
    room: Option<Reservation>,
}

/// How far a reader has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct ReadSoFar {
    /// Index of the next piece, counted from the body's first.
    next: usize,
    /// Bytes read.
    octets: u64,
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
    place: ReadSoFar,
    /// The rest of the body, once that is complete and kept.
    rest: Option<StoredBodyReader>,
    waker: Option<Waker>,
    /// More would have to be held for it than there is room, and it receives no more.
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
        inner.come += piece.len() as u64;
        inner.pieces.push_back(piece);
        inner.wake_readers();
        inner.cut_those_behind();
    }

    /// Stops keeping: pieces that every reader has read are dropped, and no further reader may join. Up to `grace` bytes
    /// are held for readers that are slower than others.
    pub fn let_go(&self, grace: u64) {
        let mut inner = self.inner.lock();
        inner.state = Stage::Passing;
        inner.grace = grace.max(WINDOW + PIECE * MOST_PIECES as u64);
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
            // Readers read on in the stored body: it may be a copy, and nothing is held twice.
            inner.kept = Some(StoredBody::new(inner.pieces.make_contiguous()));
            inner.gone += inner.pieces.len();
            inner.pieces = VecDeque::new();
            inner.held = 0;
        }
        inner.kept.clone()
    }

    /// Takes the room for what it still holds; gives it back when the last reader has left.
    pub fn keep_room(&self, room: Option<Reservation>) {
        let mut inner = self.inner.lock();
        inner.room = room.filter(|_| !inner.pieces.is_empty());
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
        if matches!(inner.state, Stage::Passing | Stage::Broken(_))
            || (inner.gone > 0 && inner.kept.is_none())
        {
            return None;
        }
        let position = Some(Position { place: ReadSoFar::default(), rest: None, waker: None, cut: false });
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

    /// Whether there are several readers, of which one may be slower than the others.
    pub fn is_shared(&self) -> bool {
        self.inner.lock().counted().count() > 1
    }

    /// Ends the body if nobody reads it. Whoever comes now cannot join.
    pub fn end_unread(&self) -> bool {
        let mut inner = self.inner.lock();
        let unread = inner.readers.iter().all(Option::is_none);
        if unread {
            inner.state = Stage::Broken(BodyError::Abandoned);
        }
        unread
    }

    /// Whether one reader is left at most: then no more than the window is ever held.
    pub fn is_alone(&self) -> bool {
        let inner = self.inner.lock();
        inner.counted().count() <= 1 && inner.held <= WINDOW
    }

    /// Waits until the reader that is farthest has room for more, or until nobody reads. Cancel-safe.
    pub async fn room(&self) -> Room {
        std::future::poll_fn(|context| {
            let mut inner = self.inner.lock();
            if !matches!(inner.state, Stage::Passing) {
                return Poll::Ready(Room::Wanted);
            }
            if inner.counted().next().is_none() {
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

    /// The readers that are not cut.
    fn counted(&self) -> impl Iterator<Item = &Position> {
        self.readers.iter().flatten().filter(|position| !position.cut)
    }

    /// Whether no more than the window is ahead of the reader that is farthest.
    fn fits_window(&self) -> bool {
        let pieces = self.gone + self.pieces.len() - self.farthest.next;
        self.come - self.farthest.octets <= WINDOW && pieces <= MOST_PIECES
    }

    /// Cuts the readers for which more is held than there is room: those farthest behind, unless all are.
    fn cut_those_behind(&mut self) {
        while matches!(self.state, Stage::Passing)
            && self.held + PIECE * self.pieces.len() as u64 > self.grace
        {
            let slowest = self.counted().map(|position| position.place).min();
            let Some(slowest) = slowest.filter(|slowest| *slowest < self.farthest) else { return };
            for position in self.readers.iter_mut().flatten().filter(|position| position.place == slowest) {
                position.cut = true;
                if let Some(waker) = position.waker.take() {
                    waker.wake();
                }
            }
            self.shrink();
        }
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

    /// A reader has read a piece. The writer wakes when that makes room.
    fn came_to(&mut self, place: ReadSoFar) {
        if place > self.farthest {
            self.farthest = place;
            self.wake_writer();
        }
    }

    /// A reader that was here has left. Another is the farthest now.
    fn left(&mut self, place: ReadSoFar) {
        if place == self.farthest {
            self.farthest = self.counted().map(|position| position.place).max().unwrap_or(place);
        }
        self.wake_writer();
    }

    fn wake_writer(&mut self) {
        if (self.fits_window() || self.counted().next().is_none())
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    /// Drops pieces that every reader has read.
    fn shrink(&mut self) {
        if !matches!(self.state, Stage::Passing) {
            return;
        }
        let slowest = self.counted().map(|position| position.place.next).min().unwrap_or(usize::MAX);
        self.behind = self.counted().filter(|position| position.place.next == slowest).count();
        while self.gone < slowest {
            let Some(piece) = self.pieces.pop_front() else { break };
            self.gone += 1;
            self.held -= piece.len() as u64;
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
        if let Some(kept) = &inner.kept {
            let from = position.place.octets;
            let rest = position.rest.get_or_insert_with(|| kept.read_range(from..kept.length()));
            if let Some(piece) = rest.next_piece() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        } else if let Some(piece) = inner.pieces.get(position.place.next - inner.gone) {
            let (piece, had) = (piece.clone(), position.place.next);
            position.place = ReadSoFar { next: had + 1, octets: position.place.octets + piece.len() as u64 };
            let place = position.place;
            inner.moved_from(had);
            inner.came_to(place);
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

    /// Whether it reads this recording.
    pub fn reads(&self, recording: &Arc<Recording>) -> bool {
        Arc::ptr_eq(&self.recording, recording)
    }

    /// [`Reader::poll_frame`], to await.
    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let mut reader = Pin::new(self);
        std::future::poll_fn(|context| reader.poll_frame(context)).await
    }

    /// Whether it receives no more, since others are too far ahead of it.
    pub fn is_cut(&self) -> bool {
        self.recording.inner.lock().readers[self.slot].as_ref().is_some_and(|position| position.cut)
    }

    /// Waits until the first `octets` octets have come, without reading any. Cancel-safe; the caller sets the deadline.
    pub async fn reach(&mut self, octets: u64) -> Reached {
        std::future::poll_fn(|context| {
            let mut guard = self.recording.inner.lock();
            let inner = &mut *guard;
            let position =
                inner.readers[self.slot].as_mut().expect("a reader's slot is its own until it is dropped");
            match &inner.state {
                Stage::Complete if inner.kept.is_some() => Poll::Ready(Reached::End(inner.come)),
                Stage::Keeping if inner.come >= octets => Poll::Ready(Reached::There),
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
            Some(position) if !position.cut => {
                inner.moved_from(position.place.next);
                inner.left(position.place);
            }
            // The last that was cut may be the last of all.
            _ => inner.wake_writer(),
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

    /// Room for so many pieces of 64 KiB for those behind.
    const GRACE: u64 = 2 * 1024 * 1024;

    fn piece() -> Bytes {
        Bytes::from(vec![0; 64 * 1024])
    }

    #[tokio::test]
    async fn the_fastest_sets_the_pace_and_whoever_falls_too_far_behind_is_cut() {
        let recording = Recording::new();
        let (mut slow, mut fast) = (recording.reader().unwrap(), recording.reader().unwrap());
        recording.let_go(GRACE);
        for read in 1..=100 {
            assert_eq!(recording.room().await, Room::Wanted, "nobody waits for the slow one");
            recording.push(piece());
            fast.frame().await.unwrap().unwrap();
            assert!(recording.inner.lock().held <= GRACE);
            assert_eq!(slow.is_cut(), read > 31, "{read}");
        }
        assert!(matches!(slow.frame().await, Some(Err(BodyError::TooSlow))));
        assert!(!fast.is_cut(), "one alone is never cut");
    }

    #[tokio::test]
    async fn a_body_that_is_kept_is_held_once_and_readers_read_on_in_it() {
        let recording = Recording::new();
        let mut reader = recording.reader().unwrap();
        for _ in 0..100 {
            recording.push(Bytes::from_static(b"crumb"));
        }
        reader.frame().await.unwrap().unwrap();
        let kept = recording.finish(None).unwrap();
        assert!(recording.inner.lock().pieces.is_empty(), "the stored body is a copy of them");
        assert_eq!(read_all(reader).await.unwrap().len(), 99 * 5);
        assert_eq!(read_all(recording.reader().unwrap()).await.unwrap().len() as u64, kept.length());
    }

    #[tokio::test]
    async fn what_is_still_read_when_a_fill_has_ended_keeps_its_room() {
        let total = Arc::default();
        let room = |bytes| Some(Reservation::take(&total, bytes).0);
        let taken = || total.load(std::sync::atomic::Ordering::Relaxed);
        for passing in [true, false] {
            let recording = Recording::new();
            let reader = recording.reader().unwrap();
            recording.push(piece());
            if passing {
                recording.let_go(GRACE);
                assert!(recording.finish(None).is_none());
            } else {
                recording.fail(BodyError::UpstreamStalled);
            }
            recording.keep_room(room(64 * 1024));
            drop(recording);
            assert_eq!(taken(), 64 * 1024);
            drop(reader);
            assert_eq!(taken(), 0);
        }
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
        recording.let_go(GRACE);
        assert_eq!(waiting.await.unwrap(), Reached::Never);
    }

    #[tokio::test]
    async fn nobody_joins_what_broke_off() {
        let recording = Recording::new();
        recording.fail(BodyError::UpstreamStalled);
        assert!(recording.reader().is_none());
    }

    #[tokio::test]
    async fn once_let_go_the_only_reader_sets_the_pace_and_nobody_joins() {
        let recording = Recording::new();
        let mut slow = recording.reader().unwrap();
        recording.let_go(GRACE);
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
        recording.let_go(GRACE);
        first.frame().await.unwrap().unwrap();
        drop(third);
        second.frame().await.unwrap().unwrap();
        assert_eq!(held(&recording), 6, "the fourth has had nothing");
        recording.inner.lock().grace = 5;
        recording.inner.lock().cut_those_behind();
        assert_eq!(held(&recording), 3, "it gets no more");
        first.frame().await.unwrap().unwrap();
        drop(fourth);
        assert_eq!(held(&recording), 3);
        drop(second);
        assert_eq!(held(&recording), 0, "the only one left has had it all");
    }
}
