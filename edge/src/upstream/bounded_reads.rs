//! An upstream's socket of which no read is long.
//!
//! hyper makes room for as much as was read last, doubles it, and keeps it: a server that answers quickly, and a client that takes
//! nothing of it, would cost 200 KB each.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};

/// Reads at most [`LONGEST`] bytes at once; writes as the stream does.
#[derive(Debug)]
pub(super) struct BoundedReads<S>(Take<S>);

impl<S: AsyncRead> BoundedReads<S> {
    /// As long as the stream itself.
    pub(super) fn new(stream: S) -> Self {
        Self(stream.take(0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedReads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.set_limit(LONGEST);
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for BoundedReads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.0.get_mut()).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.0.get_mut()).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_shutdown(context)
    }
}

/// Less than the 32 KiB at which hyper would make room for 64.
const LONGEST: u64 = 30 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn no_read_is_longer_and_nothing_is_lost() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut bounded = BoundedReads::new(near);
        let mut far = BoundedReads::new(far);
        let sent: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        far.write_all(&sent).await.unwrap();
        far.shutdown().await.unwrap();
        let (mut read, mut lengths) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = bounded.read(&mut buffer).await.unwrap();
            if length == 0 {
                break;
            }
            lengths.push(length);
            read.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(lengths, [30 << 10, 30 << 10, 30 << 10, 100_000 - 3 * (30 << 10)]);
        assert!(read == sent);
    }
}
