//! The octets of an answer that is made of slices: each is asked for when the client has read the one before.
//!
//! ```text
//!   asks for the slice of the next octet --- it comes ---> reads it --- to its end ---> the next, or the end
//!                                     |                       \--- ends too early ---> breaks off
//!                                     \--- it does not, or is of something else -----> breaks off
//! ```
//!
//! Holds one slice at a time. What it has begun to send never ends as if it were whole while octets are missing.

use std::{
    fmt,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};

use crate::{cache::slices::Slices, message::body_error::BodyError};

/// A slice that has been asked for: all of its octets. Dropped, what is being stored of it is stored all the same.
pub type ComingSlice<B> = Pin<Box<dyn Future<Output = Result<B, BodyError>> + Send>>;

/// Where slices come from. Each is of the same representation as the one before, or does not come.
pub trait SliceSource<B>: Send {
    fn ask(&self, slice: Range<u64>) -> ComingSlice<B>;
}

/// Octets of a representation, slice by slice, each of which is a body `B`.
pub struct Sliced<B> {
    source: Box<dyn SliceSource<B>>,
    slices: Slices,
    /// Octets that have not been sent.
    left: Range<u64>,
    reached: SliceProgress<B>,
}

enum SliceProgress<B> {
    /// The next octet is in no slice that has been asked for.
    Between,
    Asked(ComingSlice<B>),
    /// `at` is the place of the body's next octet in the whole.
    Reading {
        body: B,
        at: u64,
    },
    BrokenOff,
}

impl<B> fmt::Debug for Sliced<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sliced")
            .field("slices", &self.slices)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Sliced<B> {
    /// The octets `wanted`.
    pub fn new(source: Box<dyn SliceSource<B>>, slices: Slices, wanted: Range<u64>) -> Self {
        Self { source, slices, left: wanted, reached: SliceProgress::Between }
    }

    /// With the slice that begins there, which has come already. It is dropped where other octets come first.
    #[must_use]
    pub fn beginning_with(self, slice: &Range<u64>, body: B) -> Self {
        let is_first = !self.left.is_empty() && slice.contains(&self.left.start);
        let reached = if is_first { SliceProgress::Reading { body, at: slice.start } } else { self.reached };
        Self { reached, ..self }
    }

    /// How many octets have not been sent.
    pub fn left(&self) -> u64 {
        self.left.end - self.left.start
    }

    /// The next octets.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.left.is_empty() {
            match &mut self.reached {
                SliceProgress::Between => {
                    self.reached =
                        SliceProgress::Asked(self.source.ask(self.slices.holding(self.left.start)));
                }
                SliceProgress::Asked(coming) => match ready!(coming.as_mut().poll(context)) {
                    Ok(body) => {
                        let at = self.slices.holding(self.left.start).start;
                        self.reached = SliceProgress::Reading { body, at };
                    }
                    Err(error) => return Poll::Ready(Some(Err(self.break_off(error)))),
                },
                SliceProgress::Reading { body, at } => {
                    let data = match ready!(Pin::new(body).poll_frame(context)) {
                        Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                        Some(Err(error)) => return Poll::Ready(Some(Err(self.break_off(error)))),
                        None => return Poll::Ready(Some(Err(self.break_off(BodyError::NoSlice)))),
                    };
                    let comes = *at..*at + data.len() as u64;
                    *at = comes.end;
                    let end = self.slices.holding(self.left.start).end.min(self.left.end);
                    let sent = cut(data, &comes, &(self.left.start..end));
                    self.left.start += sent.len() as u64;
                    if self.left.start == end {
                        self.reached = SliceProgress::Between;
                    }
                    if !sent.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(sent))));
                    }
                }
                SliceProgress::BrokenOff => return Poll::Ready(Some(Err(BodyError::NoSlice))),
            }
        }
        Poll::Ready(None)
    }

    fn break_off(&mut self, error: BodyError) -> BodyError {
        self.reached = SliceProgress::BrokenOff;
        error
    }
}

/// What of these octets, which stand there in the whole, is wanted.
fn cut(mut data: Bytes, stand: &Range<u64>, wanted: &Range<u64>) -> Bytes {
    let at = |octet: u64| {
        let inside = octet.clamp(stand.start, stand.end) - stand.start;
        usize::try_from(inside).unwrap_or(usize::MAX)
    };
    data.truncate(at(wanted.end));
    let before = at(wanted.start).min(data.len());
    data.split_off(before)
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Ready, ready},
        sync::Arc,
    };

    use http_body_util::BodyExt as _;
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::response::body::Body;

    const WHOLE: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

    type AskedFor = Arc<Mutex<Vec<Range<u64>>>>;

    /// Hands out slices of [`WHOLE`], the last of them shorter; after `comes` of them none.
    struct Cake {
        asked: AskedFor,
        comes: usize,
        short: bool,
    }

    impl SliceSource<Body> for Cake {
        fn ask(&self, slice: Range<u64>) -> ComingSlice<Body> {
            self.asked.lock().push(slice.clone());
            if self.asked.lock().len() > self.comes {
                return Box::pin(ready(Err(BodyError::Changed)));
            }
            let end = (slice.end as usize).min(WHOLE.len()) - usize::from(self.short);
            let came: Ready<_> =
                ready(Ok(Body::Whole(Bytes::from_static(&WHOLE[slice.start as usize..end]))));
            Box::pin(came)
        }
    }

    async fn read(mut sliced: Sliced<Body>) -> (Vec<u8>, Option<BodyError>) {
        let mut read = Vec::new();
        loop {
            match std::future::poll_fn(|context| sliced.poll_frame(context)).await {
                None => return (read, None),
                Some(Ok(frame)) => read.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(error)) => return (read, Some(error)),
            }
        }
    }

    fn cake(comes: usize, short: bool) -> (Box<Cake>, AskedFor) {
        let asked = Arc::default();
        (Box::new(Cake { asked: Arc::clone(&asked), comes, short }), asked)
    }

    #[tokio::test]
    async fn what_breaks_off_never_ends_as_if_it_were_whole() {
        let (source, _) = cake(2, false);
        let (read_of_it, error) = read(Sliced::new(source, Slices::of(10), 5..36)).await;
        assert_eq!((&*read_of_it, matches!(error, Some(BodyError::Changed))), (&WHOLE[5..20], true));
        let (source, _) = cake(9, true);
        let (read_of_it, error) = read(Sliced::new(source, Slices::of(10), 5..36)).await;
        assert_eq!((&*read_of_it, matches!(error, Some(BodyError::NoSlice))), (&WHOLE[5..9], true));
        let (source, _) = cake(0, false);
        let mut sliced = Sliced::new(source, Slices::of(10), 0..36);
        for _ in 0..2 {
            let next = std::future::poll_fn(|context| sliced.poll_frame(context)).await;
            assert!(matches!(next, Some(Err(_))), "an error has no end behind it");
        }
    }

    #[tokio::test]
    async fn a_slice_that_has_come_is_used_where_it_comes_first() {
        for (wanted, asked_for) in [(12..25, 1), (2..25, 3)] {
            let (source, asked) = cake(9, false);
            let body = Body::Whole(Bytes::from_static(&WHOLE[10..20]));
            let sliced = Sliced::new(source, Slices::of(10), wanted.clone()).beginning_with(&(10..20), body);
            let (octets, error) = read(sliced).await;
            assert_eq!(octets, &WHOLE[wanted.start as usize..wanted.end as usize]);
            assert!(error.is_none());
            assert_eq!(asked.lock().len(), asked_for, "{wanted:?}");
        }
    }

    #[tokio::test]
    async fn it_is_as_long_as_it_says() {
        let (source, _) = cake(9, false);
        let body = Body::Sliced(Box::new(Sliced::new(source, Slices::of(10), 3..33)));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(30));
        assert_eq!(body.collect().await.unwrap().to_bytes(), &WHOLE[3..33]);
    }

    proptest! {
        #[test]
        fn any_octets_are_cut_from_the_slices_that_hold_them(size in 1u64..50, a in 0u64..36, b in 0u64..=36) {
            let wanted = a.min(b)..a.max(b);
            let (source, asked) = cake(99, false);
            let sliced = Sliced::new(source, Slices::of(size), wanted.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (octets, error) = runtime.block_on(read(sliced));
            prop_assert!(error.is_none());
            prop_assert_eq!(&octets, &WHOLE[wanted.start as usize..wanted.end as usize]);
            let needed = if wanted.is_empty() { 0 } else { (wanted.end - 1) / size - wanted.start / size + 1 };
            prop_assert_eq!(asked.lock().len() as u64, needed, "and no others are asked for");
        }
    }
}
