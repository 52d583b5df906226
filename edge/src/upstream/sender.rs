//! The sending end of a connection to a server, in either version of HTTP.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use cache_policy::Moment;
use http::{HeaderName, Request, Response, Uri, Version, header, uri::PathAndQuery};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{
    RequestBody,
    http1::{Http1Connection, Http1Error},
    retry::copy_of,
};

/// Sends requests on a connection. Dropped, it closes an HTTP/1.1 connection at once. Of an HTTP/2 connection it is one stream.
pub enum Sender {
    Http1(Box<Http1Connection>),
    Http2(Http2Stream),
}

/// The content of a response.
pub enum ResponseContent {
    /// There is none.
    None,
    /// It is read from its connection.
    OfConnection,
    /// That of an HTTP/2 stream.
    OfStream(Incoming),
}

/// Why there is no response, or no more of its content.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Http1(#[from] Http1Error),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl Sender {
    /// Waits until a request can be sent; `false` where none can.
    pub async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_ready(),
            Self::Http2(stream) => stream.requests.ready().await.is_ok(),
        }
    }

    /// Whether it is an HTTP/1.1 connection, which nobody shares.
    pub fn is_http1(&self) -> bool {
        matches!(self, Self::Http1(_))
    }

    /// Lets no further request share the connection.
    pub fn retire(&self) {
        if let Self::Http2(stream) = self {
            stream.connection.retire();
        }
    }

    /// Sends a request and waits for the head of its response. Dropping the future closes an HTTP/1.1 connection; of HTTP/2 it
    /// resets the stream, a moment later where others were reset just before.
    ///
    /// # Errors
    /// With the content inside where the server surely has not seen it.
    pub async fn try_send_request(
        &mut self,
        head: &mut Request<()>,
        body: RequestBody,
    ) -> Result<Response<ResponseContent>, (SendError, Option<RequestBody>)> {
        match self {
            Self::Http1(connection) => {
                let head = connection.exchange(head, body).await.map_err(|error| (error.into(), None))?;
                let is_empty = connection.is_end_stream();
                let content = if is_empty { ResponseContent::None } else { ResponseContent::OfConnection };
                Ok(head.map(|()| content))
            }
            Self::Http2(stream) => {
                let request = for_http2(copy_of(head), body, stream.connection.scheme);
                let sending = Box::pin(stream.requests.try_send_request(request));
                let connection = Arc::clone(&stream.connection);
                let result = AwaitedHead { sending: Some(sending), connection }.await;
                let response = result.map_err(|mut error| {
                    let body = error.take_message().map(Request::into_body);
                    (error.into_error().into(), body)
                })?;
                Ok(response.map(|incoming| match incoming.is_end_stream() {
                    true => ResponseContent::None,
                    false => ResponseContent::OfStream(incoming),
                }))
            }
        }
    }

    /// Reads a response's content on.
    pub fn poll_frame(
        &mut self,
        content: &mut ResponseContent,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        match (content, self) {
            (ResponseContent::OfConnection, Self::Http1(connection)) => {
                connection.poll_frame(context).map_err(SendError::from)
            }
            (ResponseContent::OfStream(incoming), _) => {
                Pin::new(incoming).poll_frame(context).map_err(SendError::from)
            }
            _ => Poll::Ready(None),
        }
    }

    /// Why a request that was sent got no response.
    pub fn why_it_ended(&self, error: &SendError) -> EndOfStream {
        let (Self::Http2(stream), SendError::Http2(error)) = (self, error) else { return EndOfStream::Alone };
        let cause = h2_error(error);
        let reason = cause.and_then(h2::Error::reason);
        let went_away = cause.is_some_and(|error| error.is_go_away() && error.is_remote());
        match reason {
            Some(h2::Reason::REFUSED_STREAM) => EndOfStream::Unprocessed,
            Some(h2::Reason::NO_ERROR) if went_away => EndOfStream::Unprocessed,
            Some(
                h2::Reason::PROTOCOL_ERROR
                | h2::Reason::FLOW_CONTROL_ERROR
                | h2::Reason::FRAME_SIZE_ERROR
                | h2::Reason::COMPRESSION_ERROR,
            ) => EndOfStream::Violation,
            // The end of one connection is one failure of its server, however many requests were on it.
            _ if stream.requests.is_closed() && stream.connection.told.swap(true, Ordering::Relaxed) => {
                EndOfStream::WithOthers
            }
            _ => EndOfStream::Alone,
        }
    }
}

/// Why a request that was sent got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfStream {
    /// The server says that it has not acted upon it (RFC 9113 §8.7).
    Unprocessed,
    /// One side has done what HTTP/2 does not allow (RFC 9113 §7).
    Violation,
    /// Its connection ended, and another request on it has told so.
    WithOthers,
    /// It was reset, or its connection ended.
    Alone,
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            return Some(error);
        }
        source = cause.source();
    }
    None
}

type SendingRequest = Pin<Box<dyn Future<Output = Sent> + Send>>;
type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A request on an HTTP/2 connection whose response has not begun.
struct AwaitedHead {
    sending: Option<SendingRequest>,
    connection: Arc<Http2Connection>,
}

impl Future for AwaitedHead {
    type Output = Sent;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Sent> {
        let Some(sending) = &mut self.sending else { return Poll::Pending };
        let sent = std::task::ready!(sending.as_mut().poll(context));
        self.sending = None;
        Poll::Ready(sent)
    }
}

impl Drop for AwaitedHead {
    fn drop(&mut self) {
        if let Some(sending) = self.sending.take() {
            self.connection.abandon(sending);
        }
    }
}

/// A request in HTTP/2's form: the target in pseudo-header fields, nothing of one connection (RFC 9113 §8.2.2, §8.3.1).
fn for_http2(mut request: Request<()>, mut body: RequestBody, scheme: &'static str) -> Request<RequestBody> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let headers = request.headers_mut();
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
    if headers.remove(header::EXPECT).is_some() {
        // Interim responses of an HTTP/2 server are not seen here: its content is not kept waiting for one.
        body.send_at_once();
    }
    let mut target = Uri::builder().scheme(scheme).path_and_query(path);
    if let Some(authority) = headers.remove(header::HOST) {
        target = target.authority(authority.as_bytes());
    }
    if let Ok(target) = target.build() {
        *request.uri_mut() = target;
    }
    *request.version_mut() = Version::HTTP_2;
    request.map(|()| body)
}

const OF_ONE_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// An HTTP/2 connection, shared by the requests on it. It closes when nobody holds it any more.
pub struct Http2Connection {
    requests: http2::SendRequest<RequestBody>,
    allowed: Arc<Allowed>,
    /// Requests on it now.
    streams: AtomicUsize,
    /// When it is too old for another request.
    retires: Moment,
    /// It takes no further request, however young it is.
    retired: AtomicBool,
    /// Its end has been told of.
    told: AtomicBool,
    /// Requests that nobody waits for any more, to be reset one by one.
    abandoned: Mutex<VecDeque<(SendingRequest, Http2Stream)>>,
    scheme: &'static str,
    _task: AbortOnDropHandle<()>,
}

impl Http2Connection {
    /// A connection that takes requests until `retires`; a task drives it.
    pub fn new<S>(
        requests: http2::SendRequest<RequestBody>,
        mut connection: http2::Connection<S, RequestBody, TokioExecutor>,
        scheme: &'static str,
        retires: Moment,
    ) -> Arc<Self>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let allowed = Arc::new(Allowed::default());
        let told = Arc::clone(&allowed);
        // The frames are read by a task of hyper's own, which wakes nobody here when the server's settings come.
        let mut look = Some((tokio::time::interval(LOOK), LOOKS));
        let task = tokio::spawn(poll_fn(move |context| {
            let driven = Pin::new(&mut connection).poll(context);
            let streams = connection.current_max_send_streams();
            told.tell(streams);
            if streams != UNSAID {
                look = None;
            }
            while let Some((interval, left)) = &mut look
                && interval.poll_tick(context).is_ready()
            {
                *left -= 1;
                if *left == 0 {
                    look = None;
                }
            }
            driven.map(|ended| {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upstream connection ended");
                }
            })
        }));
        Arc::new(Self {
            requests,
            allowed,
            streams: AtomicUsize::new(0),
            retires,
            retired: AtomicBool::new(false),
            told: AtomicBool::new(false),
            abandoned: Mutex::default(),
            scheme,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Takes no further request.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Resets a request that nobody waits for any more. Servers close connections on which many are reset at once, with
    /// whatever else is on them (CVE-2023-44487): one client that leaves would end the requests of others. So it is one at a
    /// time, and a request keeps its place until then.
    fn abandon(self: &Arc<Self>, sending: SendingRequest) {
        let (Ok(runtime), false) = (tokio::runtime::Handle::try_current(), self.requests.is_closed()) else {
            return;
        };
        self.streams.fetch_add(1, Ordering::Relaxed);
        let place = Http2Stream { requests: self.requests.clone(), connection: Arc::clone(self) };
        let is_first = {
            let mut abandoned = self.abandoned.lock();
            abandoned.push_back((sending, place));
            abandoned.len() == 1
        };
        if is_first {
            let connection = Arc::clone(self);
            runtime.spawn(async move {
                loop {
                    // Others see that somebody is at it until the last one is gone.
                    tokio::time::sleep(BETWEEN_RESETS).await;
                    let (next, is_last) = {
                        let mut abandoned = connection.abandoned.lock();
                        (abandoned.pop_front(), abandoned.is_empty())
                    };
                    drop(next);
                    if is_last {
                        return;
                    }
                }
            });
        }
    }

    /// Waits until the server has said how many requests it allows. Cancel-safe.
    pub async fn settled(&self) {
        loop {
            let come = self.allowed.come.notified();
            if self.allowed.streams.load(Ordering::Acquire) != UNSAID || self.requests.is_closed() {
                return;
            }
            come.await;
        }
    }

    /// Whether it is too old or closed for another request.
    pub fn is_spent(&self, now: Moment) -> bool {
        self.requests.is_closed() || now >= self.retires || self.retired.load(Ordering::Relaxed)
    }

    /// A place for one request, where fewer than `most` are on it and fewer than the server allows.
    pub fn stream(self: &Arc<Self>, most: usize, now: Moment) -> Option<Http2Stream> {
        if self.is_spent(now) {
            return None;
        }
        let most = most.min(self.allowed.streams.load(Ordering::Relaxed));
        let taken = self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |streams| {
            (streams < most).then_some(streams + 1)
        });
        taken.ok()?;
        Some(Http2Stream { requests: self.requests.clone(), connection: Arc::clone(self) })
    }
}

/// How many requests a server allows at once on a connection (SETTINGS_MAX_CONCURRENT_STREAMS, RFC 9113 §6.5.2).
struct Allowed {
    streams: AtomicUsize,
    come: Notify,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { streams: AtomicUsize::new(UNSAID), come: Notify::new() }
    }
}

impl Allowed {
    fn tell(&self, streams: usize) {
        if self.streams.swap(streams, Ordering::Release) == UNSAID {
            self.come.notify_waiters();
        }
    }
}

/// What a connection is made with, and holds until the server's settings come: a number that hardly any server says. One that
/// does costs a moment's wait.
pub(super) const UNSAID: usize = 99_991;

/// How often a new connection is looked at until the server's settings have come, and how often at most.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS: u32 = 1_000;
/// Between two requests that are reset on one connection.
const BETWEEN_RESETS: Duration = Duration::from_millis(20);

/// One request's place on an HTTP/2 connection. Dropped before its answer has ended, the stream is reset.
pub struct Http2Stream {
    requests: http2::SendRequest<RequestBody>,
    connection: Arc<Http2Connection>,
}

impl Http2Stream {
    /// When its connection is too old for another request.
    pub fn retires(&self) -> Moment {
        self.connection.retires
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
