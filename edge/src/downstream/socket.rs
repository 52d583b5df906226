//! A client's socket as its connection sees it: it records in [`Deadlines`] when bytes come and when it is full, and
//! writes HTTP/1.1's interim responses between the messages that hyper sends.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    downstream::deadlines::Deadlines,
    message::interim::{self, Interim},
    observe::metrics::OpenConnection,
};

/// A connection's place among `bounds.connections`, and its count in the metrics. Lives as long as the socket, upgrades
/// included.
#[derive(Debug)]
pub struct ConnectionPermit {
    pub permit: OwnedSemaphorePermit,
    pub open: OpenConnection,
    /// A drain waits for it.
    pub token: TaskTrackerToken,
}

/// The socket, which records when bytes come and when it is full.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    deadlines: Arc<Deadlines>,
    /// Interim responses that wait until hyper has no message half sent.
    waiting: Arc<Interim>,
    /// Interim responses that are being written.
    interim: Bytes,
    _place: ConnectionPermit,
}

impl<S> Watched<S> {
    /// Wraps a socket; `interim` is written before hyper's next write.
    pub fn new(stream: S, deadlines: Arc<Deadlines>, interim: Arc<Interim>, place: ConnectionPermit) -> Self {
        Self { stream, deadlines, waiting: interim, interim: Bytes::new(), _place: place }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.deadlines.bytes_went(count);
        }
        self.blocked(written)
    }

    fn blocked<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(_) => self.deadlines.wrote(),
            Poll::Pending => self.deadlines.blocked(),
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Writes the waiting interim responses. Called when hyper flushes, so that it has no message half sent.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.interim.is_empty() {
                self.interim = interim::in_http1(&self.waiting.take());
            }
            ready!(self.poll_half_sent(context))?;
            self.waiting.written();
            if !self.waiting.waits() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_half_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(context, &self.interim);
            match ready!(self.blocked(written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.interim.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.deadlines.bytes_came();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.interim.is_empty() {
            ready!(self.poll_half_sent(context))?;
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.interim.is_empty() {
            ready!(self.poll_half_sent(context))?;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.waits() {
            ready!(self.poll_interim(context))?;
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.blocked(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
