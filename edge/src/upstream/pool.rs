//! The connections to one server: how many, which requests wait for one, and which are idle.
//!
//! Shared by all threads: a request may use a connection that another thread opened, so that few connections serve many
//! threads. HTTP/1.1 carries one request at a time, so a connection is either idle in the list or owned by one request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cache_policy::Moment;
use http::{Method, Request, StatusCode, header};
use http_body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    RequestBody, ResponseBody,
    choose::Health,
    connect::Dial,
    idle::{Connection, IdleConnections, Lease},
    request_body::Progress,
    response_body::Answer,
};
use crate::{clock::Clock, message::failure::Failure, settings};

/// A server's place on the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: Arc<str>,
    pub port: u16,
}

/// One server's connections.
pub struct Pool {
    endpoint: Endpoint,
    idle: Arc<IdleConnections>,
    permits: Arc<Semaphore>,
    connections: usize,
    waiting: AtomicUsize,
    keep_alive: Duration,
    health: Health,
}

/// A request that got no response: why, and the request itself when it surely was not acted upon.
pub struct Unsent {
    pub failure: Failure,
    /// The request, to try elsewhere.
    pub request: Option<Box<Request<RequestBody>>>,
}

impl Pool {
    /// No connection yet.
    pub fn new(endpoint: Endpoint, settings: &settings::Upstream) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(settings.connections)),
            connections: settings.connections,
            waiting: AtomicUsize::new(0),
            keep_alive: settings.keep_alive,
            health: Health::default(),
        })
    }

    /// The server's health, as connecting showed it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Requests now under way.
    pub fn busy(&self) -> usize {
        self.connections - self.permits.available_permits() + self.waiting.load(Ordering::Relaxed)
    }

    /// Sends one request on an idle connection or a new one.
    ///
    /// # Errors
    /// [`Unsent`], with the request inside when it may be tried elsewhere.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
        settings: &settings::Upstream,
        dial: &dyn Dial,
        clock: &Clock,
    ) -> Result<Answer, Unsent> {
        let permit = match self.permit(settings).await {
            Ok(permit) => permit,
            // With a full queue another server may have room; a wait that timed out is not repeated elsewhere.
            Err(Queue::Full) => {
                return Err(Unsent { failure: Failure::Busy, request: Some(Box::new(request)) });
            }
            Err(Queue::TooLong) => return Err(Unsent { failure: Failure::Busy, request: None }),
        };
        // At most two idle connections may turn out dead before a new one is dialled: bounded, and no request is lost to
        // a server that restarted.
        for _ in 0..2 {
            let Some(mut sender) = self.idle.take(clock.now()) else { break };
            // Its last response has been read to the end, so it is ready as soon as its task has run once more.
            if !matches!(tokio::time::timeout(settings.connect_timeout, sender.ready()).await, Ok(Ok(()))) {
                continue;
            }
            let again = repeatable(&request);
            let progress = request.body().progress();
            match self.exchange(&mut sender, request, settings).await {
                Ok(response) => {
                    let lease = self.lease(sender, progress, permit, clock);
                    return Ok(answer(response, lease, settings));
                }
                Err(Unsent { failure: Failure::Closed, request: None }) => match again {
                    Some(again) => request = again,
                    None => return Err(Unsent { failure: Failure::Closed, request: None }),
                },
                Err(Unsent { failure: Failure::Closed, request: Some(back) }) => request = *back,
                Err(unsent) => return Err(unsent),
            }
        }
        let mut sender = match self.connect(settings, dial).await {
            Ok(sender) => sender,
            Err(failure) => return Err(Unsent { failure, request: Some(Box::new(request)) }),
        };
        let progress = request.body().progress();
        let response = self.exchange(&mut sender, request, settings).await?;
        Ok(answer(response, self.lease(sender, progress, permit, clock), settings))
    }

    async fn permit(&self, settings: &settings::Upstream) -> Result<OwnedSemaphorePermit, Queue> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let place = Waiting::enter(&self.waiting);
        if place.before >= settings.waiting {
            return Err(Queue::Full);
        }
        match tokio::time::timeout(settings.response_timeout, Arc::clone(&self.permits).acquire_owned()).await
        {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(Queue::TooLong),
        }
    }

    async fn connect(
        &self,
        settings: &settings::Upstream,
        dial: &dyn Dial,
    ) -> Result<SendRequest<RequestBody>, Failure> {
        let dialling = dial.dial(&self.endpoint.host, self.endpoint.port);
        let stream = match tokio::time::timeout(settings.connect_timeout, dialling).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::Connect(Arc::new(error))),
            Err(_) => return Err(Failure::ConnectTimeout),
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Malformed(Arc::new(error)))?;
        // Ends with the sender: dropping an unfinished response's sender closes the connection.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(sender)
    }

    async fn exchange(
        &self,
        sender: &mut SendRequest<RequestBody>,
        request: Request<RequestBody>,
        settings: &settings::Upstream,
    ) -> Result<http::Response<hyper::body::Incoming>, Unsent> {
        let progress = request.body().progress();
        // The upstream's time runs from the request's end; until then the client's patience is what counts.
        let overdue = async {
            // An upstream that stops reading a body is as silent as one that does not answer.
            let pause = settings.response_timeout + settings.idle_timeout;
            let mut steps = progress.steps();
            while tokio::time::timeout(pause, progress.end()).await.is_err() {
                let taken = progress.steps();
                if taken == steps {
                    return;
                }
                steps = taken;
            }
            tokio::time::sleep(settings.response_timeout).await;
        };
        let sent = tokio::select! {
            sent = sender.try_send_request(request) => sent,
            () = overdue => return Err(Unsent { failure: Failure::Timeout, request: None }),
        };
        match sent {
            Ok(response) => Ok(response),
            Err(mut error) => {
                if let Some(request) = error.take_message() {
                    return Err(Unsent { failure: Failure::Closed, request: Some(Box::new(request)) });
                }
                let error = error.into_error();
                let failure = match progress.broke() {
                    Some(error) => Failure::RequestBody(error.clone()),
                    None if error.is_parse() || error.is_parse_too_large() => {
                        Failure::Malformed(Arc::new(error))
                    }
                    None => Failure::Closed,
                };
                Err(Unsent { failure, request: None })
            }
        }
    }

    fn lease(
        &self,
        sender: SendRequest<RequestBody>,
        progress: Arc<Progress>,
        permit: OwnedSemaphorePermit,
        clock: &Clock,
    ) -> Lease {
        Lease::new(&self.idle, Connection { sender, progress, permit }, self.keep_alive, clock)
    }

    /// Closes what has been idle for long enough, or is closed already.
    pub fn sweep(&self, now: Moment) {
        self.idle.sweep(now);
    }
}

fn answer(
    mut response: http::Response<hyper::body::Incoming>,
    mut lease: Lease,
    settings: &settings::Upstream,
) -> Answer {
    if response.headers().contains_key(header::TRANSFER_ENCODING) {
        // Transfer-Encoding overrides Content-Length; forwarding both would smuggle a second framing (RFC 9112 §6.3).
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    lease.read_keep_alive(response.headers());
    response.map(|incoming| {
        // After 101 the connection is no longer HTTP's: it keeps its place until the tunnel ends.
        if incoming.is_end_stream() && !switches {
            lease.give_back();
            ResponseBody::new(incoming, settings.idle_timeout, None)
        } else {
            ResponseBody::new(incoming, settings.idle_timeout, Some(lease))
        }
    })
}

/// A copy of a request that may be sent a second time although a server may have seen it: idempotent (RFC 9110 §9.2.2)
/// and without a body.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    );
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Why no connection is available.
enum Queue {
    Full,
    TooLong,
}

/// A place in the queue for a connection.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Also bounds a response's head.
const READ_BUFFER: usize = 64 * 1024;
