//! What an HTTP/2 connection writes, gathered into few writes.
//!
//! h2 flushes after every DATA frame of some size. Each flush would be a TLS record and a system call of its own, where
//! ten answers that are ready together need one. So a flush only notes that bytes wait; they are sent when they fill a
//! record, or when the connection's driver has nothing more to add ([`CoalescedWrites::poll_out`]).

use std::{
    cell::Cell,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose writes are gathered. Clones share the stream: h2 has one, the connection's driver the other.
#[derive(Debug)]
pub struct CoalescedWrites<S>(Arc<Mutex<Coalescing<S>>>);

#[derive(Debug)]
struct Coalescing<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How many of the waiting bytes have been sent.
    gone: usize,
    flushed: bool,
    /// Why nothing is sent any more; h2 gets it at its next call.
    error: Option<io::Error>,
}

impl<S> Clone for CoalescedWrites<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> CoalescedWrites<S> {
    /// Gathers what is written to `stream`.
    pub fn new(stream: S) -> Self {
        let gathering = Coalescing { stream, waiting: Vec::new(), gone: 0, flushed: true, error: None };
        Self(Arc::new(Mutex::new(gathering)))
    }

    /// Sends the waiting bytes, as far as the stream takes them; the task is woken when it takes more. h2 gets an error
    /// at its next call, for which the task is woken too.
    pub fn poll_out(&self, context: &mut Context<'_>) {
        let mut gathering = self.0.lock();
        if let Poll::Ready(Err(error)) = gathering.poll_out(context) {
            (gathering.error, gathering.flushed) = (Some(error), true);
            context.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncWrite + Unpin> Coalescing<S> {
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_waiting(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.waiting.len() {
            let rest = &self.waiting[self.gone..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.gone += count,
            }
        }
        // An idle connection keeps no buffer: the thread's next writer has it.
        let mut spare = mem::take(&mut self.waiting);
        if spare.capacity() > 0 {
            spare.clear();
            SPARE.set(spare);
        }
        self.gone = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_gather(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.take_error()?;
        if self.waiting.len() == RECORD {
            ready!(self.poll_waiting(context))?;
        }
        self.flushed = false;
        if self.waiting.is_empty() {
            if slices.iter().map(|slice| slice.len()).sum::<usize>() >= RECORD {
                return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
            }
            self.waiting = SPARE.take();
            self.waiting.reserve_exact(RECORD);
        }
        let before = self.waiting.len();
        for slice in slices {
            let room = RECORD - self.waiting.len();
            self.waiting.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        Poll::Ready(Ok(self.waiting.len() - before))
    }

    fn take_error(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CoalescedWrites<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CoalescedWrites<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_gather(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_gather(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.lock().take_error())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock();
        gathering.take_error()?;
        ready!(gathering.poll_out(context))?;
        Pin::new(&mut gathering.stream).poll_shutdown(context)
    }
}

thread_local! {
    /// Room for a record, which most connections need for one turn only.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The content of one full TLS record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    async fn send<S: AsyncWrite + Unpin>(out: &CoalescedWrites<S>) {
        poll_fn(|context| {
            out.poll_out(context);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn small_writes_go_out_as_one_when_there_is_no_more_to_add() {
        let (near, mut far) = duplex(64 * 1024);
        let out = CoalescedWrites::new(near);
        let mut writer = out.clone();
        for piece in ["a", "b", "c"] {
            writer.write_all(piece.as_bytes()).await.unwrap();
            writer.flush().await.unwrap();
        }
        let mut buffer = [0; 16];
        let early = poll_fn(|context| {
            Poll::Ready(Pin::new(&mut far).poll_read(context, &mut ReadBuf::new(&mut buffer)))
        });
        assert!(early.await.is_pending());
        send(&out).await;
        assert_eq!(far.read(&mut buffer).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn no_more_is_held_than_one_record() {
        let (near, mut far) = duplex(1000);
        let out = CoalescedWrites::new(near);
        let mut writer = out.clone();
        let mut taken = 0;
        poll_fn(|context| {
            while let Poll::Ready(count) = Pin::new(&mut writer).poll_write(context, &[b'x'; 300]) {
                taken += count.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(
            taken, RECORD,
            "the socket took 1000 of it, but none of the rest may follow before all has gone"
        );
        let drained = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        writer.shutdown().await.unwrap();
        drop((writer, out));
        assert_eq!(drained.await.unwrap(), RECORD);
    }

    #[tokio::test]
    async fn a_write_that_fails_is_told_to_the_next_who_asks() {
        let (near, far) = duplex(64);
        let out = CoalescedWrites::new(near);
        let mut writer = out.clone();
        writer.write_all(b"x").await.unwrap();
        drop(far);
        send(&out).await;
        assert_eq!(writer.flush().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
