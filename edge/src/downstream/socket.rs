//! A client's socket as its connection sees it: it records in [`Deadlines`] when bytes come and when it is full.
//!
//! Over HTTP/1.x it stands below hyper and does what hyper does not: it writes interim responses between messages,
//! makes targets readable ([`RequestLines`]), keeps back the bare answers that hyper gives to heads it cannot parse
//! ([`Watched::refused`]), and closes in stages ([`Watched::linger`]).

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use crate::{
    downstream::{
        deadlines::Deadlines,
        places::{Place, Seat},
        request_line::RequestLines,
    },
    message::{
        client_shares::ClientShare,
        interim::{self, Interim},
        turn::{Incoming, Turn},
    },
    observe::metrics::OpenConnection,
};

/// A connection's place among `bounds.connections`, and its count in the metrics. Lives as long as the socket, upgrades
/// included.
#[derive(Debug)]
pub struct ConnectionPermit {
    pub place: Place,
    /// One of those that its client may have, where that is known and bounded.
    pub share: Option<ClientShare>,
    pub open: OpenConnection,
    /// A drain waits for it.
    pub token: TaskTrackerToken,
}

impl ConnectionPermit {
    /// Notes that the connection may be asked, by `close`, to make room while it is idle.
    pub fn seat(&self, deadlines: &Arc<Deadlines>, close: CancellationToken) -> Seat {
        let client = self.share.as_ref().map(ClientShare::client);
        self.place.places().seat(deadlines, close, client)
    }
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
    http1: Option<Http1>,
    /// Whether the client has said that nothing more will come.
    ended: bool,
    _place: ConnectionPermit,
}

/// What the socket knows of HTTP/1.x.
#[derive(Debug)]
struct Http1 {
    turn: Arc<Turn>,
    lines: RequestLines,
    /// Octets of a target that grew when it was encoded.
    more: Bytes,
    /// How many heads had come when hyper had last sent everything and owed no answer. Until another comes, only hyper
    /// itself can have something to say.
    quiet: Option<usize>,
    /// The status of an answer of hyper's own that was kept back.
    refused: Option<StatusCode>,
}

impl<S> Watched<S> {
    /// Wraps a socket; `interim` is written before hyper's next write.
    pub fn new(stream: S, deadlines: Arc<Deadlines>, interim: Arc<Interim>, place: ConnectionPermit) -> Self {
        Self {
            stream,
            deadlines,
            waiting: interim,
            interim: Bytes::new(),
            http1: None,
            ended: false,
            _place: place,
        }
    }

    /// A socket below hyper, whose requests report to `turn`.
    #[must_use]
    pub fn with_http1(mut self, turn: Arc<Turn>) -> Self {
        let lines = RequestLines::default();
        self.http1 = Some(Http1 { turn, lines, more: Bytes::new(), quiet: Some(0), refused: None });
        self
    }

    /// The status with which hyper refused a head by itself. It has not been sent, and neither has the end.
    pub fn refused(&self) -> Option<StatusCode> {
        self.http1.as_ref().and_then(|http1| http1.refused)
    }

    /// Whether no answer is half sent: only then may one be written that is not hyper's.
    pub fn is_between_answers(&self) -> bool {
        self.http1.as_ref().is_some_and(Http1::is_between_answers)
    }

    /// Lets everything pass from now on: hyper is done.
    pub fn release(&mut self) {
        self.http1 = None;
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

impl Http1 {
    /// Reads octets that came; the ones to give to hyper first, where they are others.
    fn came(&mut self, octets: &[u8]) -> Option<Bytes> {
        match self.lines.read(octets, &self.turn) {
            Cow::Borrowed(_) => None,
            Cow::Owned(encoded) => Some(encoded.into()),
        }
    }

    /// Notes that hyper has sent all it had.
    fn flushed(&mut self, requests: usize) {
        let quiet = requests == 0 && self.turn.incoming() != Incoming::Switched;
        self.quiet = quiet.then(|| self.turn.heads());
    }

    /// Whether hyper has sent all it had, and no head has come since.
    fn is_between_answers(&self) -> bool {
        self.quiet == Some(self.turn.heads())
    }

    /// Keeps back what hyper says by itself: no request has come for which it could be the answer.
    fn keeps_back(&mut self, octets: &[u8]) -> bool {
        if self.refused.is_some() {
            return true;
        }
        if !self.is_between_answers() {
            return false;
        }
        let status = octets.get(9..12).and_then(|status| StatusCode::from_bytes(status).ok());
        self.refused = status.filter(|_| octets.starts_with(b"HTTP/1."));
        self.refused.is_some()
    }
}

impl<S> Watched<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Reads and drops what still comes after the last answer and the end of this side, so that the client reads the
    /// answer: closing at once, with octets unread, would make the system reset the connection and the client lose what
    /// it has not read yet (RFC 9112 §9.6). Ends with the client's own end, after `most` octets, or after a silence.
    ///
    /// Dropped before, it closes at once.
    pub async fn linger(&mut self, most: u64) {
        let mut buffer = vec![0; LINGER_BUFFER];
        let mut left = most;
        while !self.ended && left > 0 {
            match tokio::time::timeout(LINGER_SILENCE, self.stream.read(&mut buffer)).await {
                Ok(Ok(count)) if count > 0 => left = left.saturating_sub(count as u64),
                _ => return,
            }
        }
    }

    /// Whether octets may still come that nobody reads.
    pub fn is_sent_more(&mut self, context: &mut Context<'_>) -> bool {
        if self.ended {
            return false;
        }
        let mut octet = [0];
        let mut buffer = ReadBuf::new(&mut octet);
        let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
        matches!(read, Poll::Ready(Ok(()))) && !buffer.filled().is_empty()
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
        let this = &mut *self;
        if let Some(http1) = &mut this.http1
            && !http1.more.is_empty()
        {
            give(&mut http1.more, buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let room = buffer.remaining();
        let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) else {
            if let Some(http1) = &this.http1
                && this.deadlines.awaits_a_head()
                && http1.lines.holds_part_of_a_head(&http1.turn)
            {
                this.deadlines.bytes_came();
            }
            return Poll::Pending;
        };
        if buffer.filled().len() > before {
            this.deadlines.bytes_came();
            if let Some(http1) = &mut this.http1
                && let Some(mut octets) = http1.came(&buffer.filled()[before..])
            {
                buffer.set_filled(before);
                give(&mut octets, buffer);
                http1.more = octets;
            }
        } else if room > 0 && read.is_ok() {
            this.ended = true;
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
        if self.http1.as_mut().is_some_and(|http1| http1.keeps_back(bytes)) {
            return Poll::Ready(Ok(bytes.len()));
        }
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
        let first = slices.iter().find(|slice| !slice.is_empty());
        if self.http1.as_mut().is_some_and(|http1| http1.keeps_back(first.map_or(&[], |first| first))) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
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
        if matches!(flushed, Poll::Ready(Ok(()))) {
            let requests = self.deadlines.requests();
            if let Some(http1) = &mut self.http1 {
                http1.flushed(requests);
            }
        }
        self.blocked(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused().is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Moves as many octets as there is room for.
fn give(octets: &mut Bytes, buffer: &mut ReadBuf<'_>) {
    let part = octets.split_to(octets.len().min(buffer.remaining()));
    buffer.put_slice(&part);
}

/// How long a client may be silent while its leftover octets are dropped.
const LINGER_SILENCE: Duration = Duration::from_secs(2);
const LINGER_BUFFER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        clock::Clock,
        downstream::{
            deadlines::{InFlight, Protocol},
            places::Places,
        },
        observe::metrics::{ListenerKind, Metrics},
    };

    /// Once, a client that stopped reading in the middle of an answer, and had begun its next head, got the 408 for that
    /// head as more of the answer.
    #[tokio::test]
    async fn nothing_is_said_between_two_answers_while_one_is_half_sent() {
        let deadlines = Deadlines::new(&Clock::system(), Protocol::Http1, Duration::from_secs(90));
        let place = ConnectionPermit {
            place: Places::new(1).try_take().unwrap(),
            share: None,
            open: Metrics::new().for_listener(ListenerKind::Clear).accepted(),
            token: TaskTracker::new().token(),
        };
        let (_client, stream) = tokio::io::duplex(64);
        let turn = Arc::<Turn>::default();
        let mut socket =
            Watched::new(stream, Arc::clone(&deadlines), Arc::default(), place).with_http1(Arc::clone(&turn));
        assert!(socket.is_between_answers(), "the first head may be refused");
        drop((InFlight::begin(Arc::clone(&deadlines)), turn.begin(Incoming::Whole)));
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").await.unwrap();
        assert!(!socket.is_between_answers());
        socket.write_all(b"lo").await.unwrap();
        socket.flush().await.unwrap();
        assert!(socket.is_between_answers());
    }
}
