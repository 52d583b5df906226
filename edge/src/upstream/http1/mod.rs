//! An HTTP/1.1 connection to a server (RFC 9112): one request at a time, written and read by whoever waits for its answer. No task
//! stands between them and the socket, so a request that comes to an end costs nobody a wake-up.
//!
//! Promises: each response has one reading, or the connection closes; what a server says unasked is never the answer to
//! anybody; a connection is used again only where both messages have ended as they said.

pub mod chunks;
pub mod output;
pub mod request;
pub mod response;
pub mod switched;

use std::{
    any::Any,
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    thread::{self, ThreadId},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::{io::AsyncWrite as _, net::TcpStream};
use tokio_util::io::{poll_read_buf, poll_write_buf};

pub use self::switched::SwitchedStream;
use self::{
    chunks::Chunked,
    output::Output,
    request::RequestFraming,
    response::{Heads, ResponseFraming},
};
use super::{RequestBody, request_body::Progress};
use crate::{message::byte_stream::ByteStream, settings::HeadBounds};

/// Why there is no response, or no more of its content.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    /// The connection ended too early.
    #[error("the connection closed")]
    Closed(#[source] Option<io::Error>),
    /// The head exceeds the bounds.
    #[error("the head is too large")]
    TooLarge,
    /// The head is none of HTTP's.
    #[error("the head is malformed")]
    Malformed(#[source] httparse::Error),
    /// The head, or the content behind it, allows no reading or more than one.
    #[error("the response {0}")]
    Framing(&'static str),
    /// The request's own content broke off.
    #[error("the request's content broke off")]
    Content,
}

/// A connection to a server. Dropped, it closes.
pub struct Http1Connection {
    stream: Box<dyn ByteStream>,
    bounds: HeadBounds,
    /// What was read, and belongs to nobody yet.
    input: BytesMut,
    output: Output,
    /// Something was written that the stream may still hold.
    unflushed: bool,
    /// The request's content that is still to be sent.
    sending: Option<(RequestBody, RequestFraming)>,
    content: ResponseFraming,
    /// Another request may follow, as far as is known.
    persists: bool,
    home: ThreadId,
}

impl std::fmt::Debug for Http1Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Http1Connection").field("content", &self.content).finish_non_exhaustive()
    }
}

impl Http1Connection {
    /// A connection on which nothing has been said yet.
    pub fn new(stream: Box<dyn ByteStream>, bounds: HeadBounds) -> Self {
        Self {
            stream,
            bounds,
            input: BytesMut::new(),
            output: Output::default(),
            unflushed: false,
            sending: None,
            content: ResponseFraming::None,
            persists: true,
            home: thread::current().id(),
        }
    }

    /// Whether a request may be sent: the last exchange has ended on both sides, and the server has neither closed the
    /// connection nor said something unasked, as far as the system knows now.
    pub fn is_ready(&mut self) -> bool {
        self.has_ended() && self.is_silent()
    }

    /// Whether the last exchange has ended on both sides, so that another may follow.
    fn has_ended(&self) -> bool {
        self.persists
            && self.is_end_stream()
            && self.sending.is_none()
            && self.input.is_empty()
            && !self.output.has_remaining()
            && !self.unflushed
    }

    fn is_silent(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.make_room();
        poll_read_buf(Pin::new(&mut self.stream), &mut context, &mut self.input).is_pending()
    }

    /// Sends a request, whose head says afterwards how its content is framed, and waits for the head of its final response. The
    /// content goes on being sent while that of the response is read. Dropped before, the connection must not be used again.
    ///
    /// # Errors
    /// [`Http1Error`]: the connection is of no more use.
    pub async fn exchange(
        &mut self,
        request: &mut Request<()>,
        body: RequestBody,
    ) -> Result<Response<()>, Http1Error> {
        let framing = RequestFraming::choose(request, &body);
        request::write_head(request, self.output.lines());
        self.persists = !says_close(request);
        let progress = body.progress();
        self.sending = (!framing.is_whole()).then_some((body, framing));
        let mut heads = Heads::default();
        poll_fn(|context| self.poll_response(&mut heads, (request.method(), &progress), context)).await
    }

    fn poll_response(
        &mut self,
        heads: &mut Heads,
        (asked, progress): (&Method, &Arc<Progress>),
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Http1Error>> {
        self.send_on(context)?;
        loop {
            while !self.input.is_empty()
                && let Some(head) = heads.take(&mut self.input, self.bounds)?
            {
                if head.status().is_informational() && head.status() != StatusCode::SWITCHING_PROTOCOLS {
                    progress.inform(head.status(), head.headers());
                    continue;
                }
                self.content = ResponseFraming::of(&head, asked)?;
                let ends_with_connection = matches!(self.content, ResponseFraming::UntilClose)
                    || head.status() == StatusCode::SWITCHING_PROTOCOLS;
                self.persists &= response::persists(&head) && !ends_with_connection;
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_read(context))? == 0 {
                return Poll::Ready(Err(Http1Error::Closed(None)));
            }
            // 100 (Continue) may just have opened the gate.
            self.send_on(context)?;
        }
    }

    /// Reads the response's content on.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        let read = self.poll_content(context);
        if let Poll::Ready(Some(Err(_))) = read {
            (self.persists, self.content) = (false, ResponseFraming::None);
        }
        read
    }

    fn poll_content(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        self.send_on(context)?;
        loop {
            match &mut self.content {
                ResponseFraming::None => return Poll::Ready(None),
                ResponseFraming::Chunks(chunks) => match chunks.read(&mut self.input, self.bounds)? {
                    Chunked::Octets(octets) => return Poll::Ready(Some(Ok(Frame::data(octets)))),
                    Chunked::End(trailers) => {
                        self.content = ResponseFraming::None;
                        let trailers = (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)));
                        return Poll::Ready(trailers);
                    }
                    Chunked::More => {}
                },
                ResponseFraming::Length(left) if !self.input.is_empty() => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    *left -= length as u64;
                    if *left == 0 {
                        self.content = ResponseFraming::None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(self.input.split_to(length).freeze()))));
                }
                ResponseFraming::UntilClose if !self.input.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.input.split().freeze()))));
                }
                ResponseFraming::Length(_) | ResponseFraming::UntilClose => {}
            }
            if ready!(self.poll_read(context))? == 0 {
                if matches!(self.content, ResponseFraming::UntilClose) {
                    self.content = ResponseFraming::None;
                    return Poll::Ready(None);
                }
                return Poll::Ready(Some(Err(Http1Error::Closed(None))));
            }
        }
    }

    /// Whether the response's content has been read to its end.
    pub fn is_end_stream(&self) -> bool {
        matches!(self.content, ResponseFraming::None)
    }

    /// What is known of how much of the response's content is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self.content {
            ResponseFraming::None => SizeHint::with_exact(0),
            ResponseFraming::Length(left) => SizeHint::with_exact(left),
            ResponseFraming::Chunks(_) | ResponseFraming::UntilClose => SizeHint::default(),
        }
    }

    /// The stream and what was read of it already, after 101 (Switching Protocols).
    pub fn into_stream(self) -> (Box<dyn ByteStream>, Bytes) {
        (self.stream, self.input.freeze())
    }

    /// Has this thread's runtime hear of what happens on it, in place of the one where it was made. One over TLS stays there.
    ///
    /// # Errors
    /// The system's: the connection is of no more use.
    pub fn settle(&mut self, here: ThreadId) -> io::Result<()> {
        let stream: &dyn Any = &*self.stream;
        if self.home == here || !stream.is::<TcpStream>() {
            return Ok(());
        }
        let nothing: Box<dyn ByteStream> = Box::new(tokio::io::empty());
        let stream = mem::replace(&mut self.stream, nothing);
        if let Ok(stream) = (stream as Box<dyn Any>).downcast::<TcpStream>() {
            self.stream = Box::new(TcpStream::from_std(stream.into_std()?)?);
            self.home = here;
        }
        Ok(())
    }

    /// The thread whose runtime hears of what happens on it.
    pub fn home(&self) -> ThreadId {
        self.home
    }

    /// Makes it wait for its next request with little.
    pub fn rest(&mut self) {
        if self.input.capacity() > LONGEST_READ {
            self.input = BytesMut::new();
        }
    }

    /// Sends what can be sent now. A server that reads no more may have answered all the same: that it does not is no
    /// reason not to read.
    fn send_on(&mut self, context: &mut Context<'_>) -> Result<(), Http1Error> {
        match self.poll_send(context) {
            Poll::Pending | Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(Http1Error::Closed(_))) => {
                self.output.clear();
                (self.sending, self.unflushed, self.persists) = (None, false, false);
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        loop {
            // A head waits for the first piece if that is there already, and for no later one.
            let taken = self.poll_take(context)?;
            while self.output.has_remaining() {
                let written = ready!(poll_write_buf(Pin::new(&mut self.stream), context, &mut self.output));
                let written = written.map_err(|error| Http1Error::Closed(Some(error)))?;
                if written == 0 {
                    return Poll::Ready(Err(Http1Error::Closed(None)));
                }
                self.unflushed = true;
            }
            if taken.is_pending() || self.sending.is_none() {
                if self.unflushed {
                    let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
                    flushed.map_err(|error| Http1Error::Closed(Some(error)))?;
                    self.unflushed = false;
                }
                return taken.map(Ok);
            }
        }
    }

    /// Takes the next piece of the request's content, where nothing is left of the last one.
    fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        if self.output.has_piece() {
            return Poll::Ready(Ok(()));
        }
        let Some((body, framing)) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        let frame = frame.transpose().map_err(|_| Http1Error::Content)?;
        let is_last = body.is_end_stream();
        framing.write(frame, is_last, &mut self.output)?;
        if framing.is_whole() {
            self.sending = None;
        }
        Poll::Ready(Ok(()))
    }

    fn make_room(&mut self) {
        let spare = self.input.capacity() - self.input.len();
        if spare >= SHORTEST_READ {
            return;
        }
        let expected = match self.content {
            ResponseFraming::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
            ResponseFraming::Chunks(_) | ResponseFraming::UntilClose => LONGEST_READ,
            ResponseFraming::None => SHORTEST_READ,
        };
        self.input.reserve(expected.clamp(SHORTEST_READ, LONGEST_READ));
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Http1Error>> {
        self.make_room();
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut self.input));
        Poll::Ready(read.map_err(|error| Http1Error::Closed(Some(error))))
    }
}

/// Octets of a head, or of content whose length is not known, that are made room for; and those of content that are read at
/// once: what comes faster than it is taken stays with the system.
const SHORTEST_READ: usize = 4 << 10;
const LONGEST_READ: usize = 32 << 10;

fn says_close(request: &Request<()>) -> bool {
    cache_policy::list_elements(request.headers(), &header::CONNECTION)
        .any(|option| option.eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::{
        message::request_id::RequestId,
        settings::UpstreamSettings,
        upstream::request_body::{AskedContent, Errand},
    };

    const BOUNDS: HeadBounds = HeadBounds { head: 4096, fields: 16 };

    fn errand() -> Errand {
        Errand::of_edge(&RequestId::next(), &UpstreamSettings::new("o", Vec::new()))
    }

    fn get() -> Request<RequestBody> {
        Request::get("/path?query").header(header::HOST, "a").body(RequestBody::empty(errand())).unwrap()
    }

    fn post(content: &'static [u8]) -> Request<RequestBody> {
        let octets = Bytes::from_static(content);
        let asked = AskedContent { method: Method::POST, octets, room: None };
        Request::post("/").body(RequestBody::asking(asked, errand())).unwrap()
    }

    fn connection() -> (Http1Connection, DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 16);
        (Http1Connection::new(Box::new(near), BOUNDS), far)
    }

    async fn exchange(
        connection: &mut Http1Connection,
        request: Request<RequestBody>,
    ) -> Result<Response<()>, Http1Error> {
        let (head, body) = request.into_parts();
        connection.exchange(&mut Request::from_parts(head, ()), body).await
    }

    async fn content(connection: &mut Http1Connection) -> Result<String, Http1Error> {
        let mut content = Vec::new();
        while let Some(frame) = poll_fn(|context| connection.poll_frame(context)).await {
            content.extend_from_slice(frame?.data_ref().map_or(&b""[..], |data| data));
        }
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    async fn heard(server: &mut DuplexStream, length: usize) -> String {
        let mut octets = vec![0; length];
        server.read_exact(&mut octets).await.unwrap();
        String::from_utf8_lossy(&octets).into_owned()
    }

    #[tokio::test]
    async fn one_exchange_follows_another_once_both_messages_have_ended() {
        let (mut connection, mut server) = connection();
        let head = "GET /path?query HTTP/1.1\r\nhost: a\r\n\r\n";
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            assert!(connection.is_ready());
            server.write_all(answer.as_bytes()).await.unwrap();
            assert_eq!(exchange(&mut connection, get()).await.unwrap().status(), 200);
            assert!(!connection.is_ready(), "its content has not been read");
            assert_eq!(content(&mut connection).await.unwrap(), "ok");
            assert_eq!(heard(&mut server, head.len()).await, head);
        }
        assert!(connection.is_ready());
        drop(server);
        assert!(!connection.is_ready(), "the server has closed it");
    }

    #[tokio::test]
    async fn what_is_said_unasked_ends_the_connection() {
        for more in ["x", "\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            let (mut connection, mut server) = connection();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{more}");
            server.write_all(answer.as_bytes()).await.unwrap();
            exchange(&mut connection, get()).await.unwrap();
            assert_eq!(content(&mut connection).await.unwrap(), "ok");
            assert!(!connection.is_ready(), "{more:?} came with the answer");
            let (mut connection, mut server) = self::connection();
            assert!(connection.is_ready());
            server.write_all(more.as_bytes()).await.unwrap();
            assert!(!connection.is_ready(), "{more:?} came before a request");
        }
    }

    #[tokio::test]
    async fn interim_responses_are_told_of_and_the_final_one_is_the_answer() {
        let (mut connection, mut server) = connection();
        let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        server.write_all(answer.as_bytes()).await.unwrap();
        let (request, told) = (get(), Arc::new(AtomicUsize::new(0)));
        let telling = Arc::clone(&told);
        request.body().progress().on_interim(move |status, headers| {
            telling.fetch_add(usize::from(status.as_u16()) + headers.len(), Ordering::Relaxed);
        });
        assert_eq!(exchange(&mut connection, request).await.unwrap().status(), 204);
        assert_eq!(told.load(Ordering::Relaxed), 100 + 103 + 1);
        assert!(connection.is_ready());
    }

    #[tokio::test]
    async fn an_early_answer_is_read_and_its_connection_not_used_again() {
        let (near, mut server) = tokio::io::duplex(64);
        let mut connection = Http1Connection::new(Box::new(near), BOUNDS);
        let answer = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno";
        server.write_all(answer.as_bytes()).await.unwrap();
        let request = post(&[b'a'; 1000]);
        assert_eq!(exchange(&mut connection, request).await.unwrap().status(), 413);
        assert_eq!(content(&mut connection).await.unwrap(), "no");
        assert!(!connection.is_ready(), "most of the content has not been sent");
    }

    #[tokio::test]
    async fn content_goes_out_while_the_answer_comes() {
        let (near, mut server) = tokio::io::duplex(64);
        let mut connection = Http1Connection::new(Box::new(near), BOUNDS);
        let echo = tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(server.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.contains("content-length: 1000\r\n"), "{head}");
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
            for _ in 0..100 {
                let mut piece = [0; 10];
                server.read_exact(&mut piece).await.unwrap();
                server.write_all(&piece).await.unwrap();
            }
            server
        });
        exchange(&mut connection, post(&[b'a'; 1000])).await.unwrap();
        assert_eq!(content(&mut connection).await.unwrap(), "a".repeat(1000));
        assert!(connection.is_ready());
        drop(echo.await.unwrap());
    }

    #[tokio::test]
    async fn an_answer_that_ends_too_early_is_no_answer() {
        for (octets, has_head) in [
            ("", false),
            ("HTTP/1.1 200 OK\r\nContent-Le", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true),
        ] {
            let (mut connection, mut server) = connection();
            server.write_all(octets.as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
            let head = exchange(&mut connection, get()).await;
            assert_eq!(head.is_ok(), has_head, "{octets:?}");
            if has_head {
                assert!(matches!(content(&mut connection).await, Err(Http1Error::Closed(_))), "{octets:?}");
            }
            assert!(!connection.is_ready());
        }
    }

    #[tokio::test]
    async fn content_without_a_length_lasts_as_long_as_its_connection() {
        let (mut connection, mut server) = connection();
        server.write_all(b"HTTP/1.0 200 OK\r\n\r\nto the end").await.unwrap();
        server.shutdown().await.unwrap();
        exchange(&mut connection, get()).await.unwrap();
        assert_eq!(content(&mut connection).await.unwrap(), "to the end");
        assert!(!connection.is_ready());
    }

    #[tokio::test]
    async fn after_101_the_stream_is_whole() {
        let (mut connection, mut server) = connection();
        server.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst").await.unwrap();
        assert_eq!(exchange(&mut connection, get()).await.unwrap().status(), 101);
        assert!(!connection.is_ready());
        let (_stream, first) = connection.into_stream();
        assert_eq!(first, "first");
    }
}
