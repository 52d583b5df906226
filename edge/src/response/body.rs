//! Bodies on their way to a client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::{
    cache::{recording, stored_body::StoredBodyReader},
    message::body_error::BodyError,
    response::{coding::CodedBody, sliced::Sliced},
    upstream::ResponseBody,
};

/// The body of a response to a client.
#[derive(Debug)]
pub enum Body {
    Empty,
    /// A short body of the edge's own.
    Whole(Bytes),
    /// A stored body, or a part of it.
    Stored(StoredBodyReader),
    /// Several parts of a body that is stored or being filled, framed.
    Parts(Box<Framed>),
    /// A body that is being filled.
    Filling(Box<Cut>),
    /// The upstream's body, with its back-pressure.
    Upstream(Box<ResponseBody>),
    /// Octets that are stored slice by slice.
    Sliced(Box<Sliced<Body>>),
    /// One of the above, coded while it is sent.
    Coded(Box<CodedBody>),
    /// One of the above, that ends in time or breaks off.
    Timed(Box<Timed>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stored(reader) => Poll::Ready(reader.next_piece().map(|piece| Ok(Frame::data(piece)))),
            Self::Parts(framed) => framed.poll_frame(context),
            Self::Filling(cut) => cut.poll_frame(context),
            Self::Sliced(sliced) => sliced.poll_frame(context),
            Self::Upstream(body) => Pin::new(&mut **body).poll_frame(context),
            Self::Coded(coded) => coded.poll_frame(context),
            Self::Timed(timed) => timed.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stored(reader) => reader.left() == 0,
            Self::Parts(framed) => framed.left == 0,
            Self::Filling(cut) => cut.is_cut_off(),
            Self::Sliced(sliced) => sliced.left() == 0,
            Self::Coded(_) => false,
            Self::Timed(timed) => timed.body.as_ref().is_some_and(HttpBody::is_end_stream),
            Self::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stored(reader) => SizeHint::with_exact(reader.left()),
            Self::Parts(framed) => SizeHint::with_exact(framed.left),
            Self::Filling(cut) => cut.left.map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Sliced(sliced) => SizeHint::with_exact(sliced.left()),
            Self::Upstream(body) => body.size_hint(),
            Self::Coded(_) => SizeHint::default(),
            Self::Timed(timed) => timed.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint),
        }
    }
}

/// A body that breaks off when its time is up.
#[derive(Debug)]
pub struct Timed {
    /// `None` once its time is up: it has broken off, and has no end.
    body: Option<Body>,
    sleep: Pin<Box<Sleep>>,
}

impl Timed {
    /// A body with so much time from now on.
    pub fn new(body: Body, left: Duration) -> Self {
        Self { body: Some(body), sleep: Box::pin(tokio::time::sleep(left)) }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // The time is looked at first: a body that is always ready has no other end.
        if self.body.is_some() && self.sleep.as_mut().poll(context).is_ready() {
            // Whoever sends it is told at once.
            self.body = None;
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(Some(Err(BodyError::Late))),
        }
    }
}

/// Parts of a body as multipart/byteranges (RFC 9110 §14.6).
#[derive(Debug)]
pub struct Framed {
    parts: std::vec::IntoIter<(Bytes, Octets)>,
    current: Option<Octets>,
    closing: Bytes,
    left: u64,
}

/// The octets of one part.
#[derive(Debug)]
pub enum Octets {
    /// Stored octets.
    Stored(StoredBodyReader),
    /// Octets that are being filled.
    Filling(Cut),
}

impl Octets {
    fn left(&self) -> u64 {
        match self {
            Self::Stored(reader) => reader.left(),
            Self::Filling(cut) => cut.left.unwrap_or_default(),
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Stored(reader) => Poll::Ready(reader.next_piece().map(Ok)),
            Self::Filling(cut) => {
                let frame = ready!(cut.poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
            }
        }
    }
}

impl Framed {
    /// Each part's preamble and its octets, then the closing delimiter.
    pub fn new(parts: Vec<(Bytes, Octets)>, closing: Bytes) -> Self {
        let framed: u64 = parts.iter().map(|(preamble, octets)| preamble.len() as u64 + octets.left()).sum();
        Self { left: framed + closing.len() as u64, parts: parts.into_iter(), current: None, closing }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let octets = match &mut self.current {
            Some(octets) => ready!(octets.poll_piece(context)),
            None => None,
        };
        let piece = match octets {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => match self.parts.next() {
                Some((preamble, octets)) => {
                    self.current = Some(octets);
                    preamble
                }
                None => {
                    self.current = None;
                    std::mem::take(&mut self.closing)
                }
            },
        };
        self.left -= piece.len() as u64;
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }
}

/// A reader of a recording that yields only a part of it.
#[derive(Debug)]
pub struct Cut {
    reader: recording::Reader,
    skip: u64,
    left: Option<u64>,
    /// A part ends with its last octet, whatever follows in the recording.
    part: bool,
}

impl Cut {
    /// The whole; `length` where it is known.
    pub fn whole(reader: recording::Reader, length: Option<u64>) -> Self {
        Self { reader, skip: 0, left: length, part: false }
    }

    pub fn range(reader: recording::Reader, range: std::ops::Range<u64>) -> Self {
        Self { reader, skip: range.start, left: Some(range.end - range.start), part: true }
    }

    /// Whether it is a part of which every octet has been read: the octets after it are not waited for.
    fn is_cut_off(&self) -> bool {
        self.part && self.left == Some(0)
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.is_cut_off() {
            let frame = match ready!(self.reader.poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame,
            };
            let mut data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            let skipped = usize::try_from(self.skip).map_or(data.len(), |skip| skip.min(data.len()));
            self.skip -= skipped as u64;
            let mut data = data.split_off(skipped);
            if let Some(left) = &mut self.left {
                if *left == 0 {
                    return Poll::Ready(None);
                }
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        Poll::Ready(None)
    }
}
