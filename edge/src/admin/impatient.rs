//! An operator's connection that is cut off when whoever is at its other end does not read: after [`STALL`], and much sooner
//! where somebody else waits for its place.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
};

use crate::message::patience::Patience;

/// A connection's stream.
#[derive(Debug)]
pub(super) struct Impatient<S> {
    stream: S,
    /// Those of all such connections: none is free where others wait.
    places: Arc<Semaphore>,
    patience: Patience,
    /// Looks at the places since a write last succeeded.
    looks: u32,
}

impl<S> Impatient<S> {
    pub(super) fn new(stream: S, places: Arc<Semaphore>) -> Self {
        Self { stream, places, patience: Patience::new(LOOK), looks: 0 }
    }

    fn wrote<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience.rest();
            self.looks = 0;
            return written;
        }
        while self.patience.poll(context).is_ready() {
            self.looks += 1;
            if self.looks >= STALL || self.places.available_permits() == 0 {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.patience.rest();
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.wrote(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.wrote(shut, context)
    }
}

/// Between two looks at whether others wait.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks without a write, nobody is waited for.
const STALL: u32 = 30;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    /// Once, those who asked for much and read nothing kept everybody from the metrics for half a minute.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_cut_off_and_sooner_where_others_wait() {
        for (free, after) in [(1, STALL), (0, 1)] {
            let (near, _far) = duplex(64);
            let mut stream = Impatient::new(near, Arc::new(Semaphore::new(free)));
            let began = Instant::now();
            let error = stream.write_all(&[b'x'; 100]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(began.elapsed().as_secs(), u64::from(after));
        }
    }
}
