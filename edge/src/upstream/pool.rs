//! The connections to one server: how many, who waits for one, and which are idle.
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
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    RequestBody, ResponseBody, choose::Health, connect::Dial, request_body::Progress, response_body::Answer,
};
use crate::{clock::Clock, message::failure::Failure, settings};

/// A server's place on the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
}

/// One server's connections.
pub struct Pool {
    endpoint: Endpoint,
    idle: Mutex<Vec<Idle>>,
    permits: Arc<Semaphore>,
    connections: usize,
    waiting: AtomicUsize,
    keep_alive: Duration,
    health: Health,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    /// When it is old enough to be closed.
    until: Moment,
}

/// A request that got no response: why, and the request itself when it surely was not acted upon.
pub struct Unsent {
    /// Why.
    pub failure: Failure,
    /// The request, to try elsewhere.
    pub request: Option<Box<Request<RequestBody>>>,
}

impl Pool {
    /// No connection yet.
    pub fn new(endpoint: Endpoint, settings: &settings::Upstream) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(settings.connections)),
            connections: settings.connections,
            waiting: AtomicUsize::new(0),
            keep_alive: settings.keep_alive,
            health: Health::default(),
        })
    }

    /// What connecting has shown.
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
            // With a full queue another server may have room; a wait that was in vain is not repeated elsewhere.
            Err(Queue::Full) => {
                return Err(Unsent { failure: Failure::Busy, request: Some(Box::new(request)) });
            }
            Err(Queue::TooLong) => return Err(Unsent { failure: Failure::Busy, request: None }),
        };
        // At most two idle connections may turn out dead before a new one is dialled: bounded, and no request is lost to
        // a server that restarted.
        for _ in 0..2 {
            let Some(mut sender) = self.idle(clock.now()) else { break };
            // Its last response has been read to the end, so it is ready as soon as its task has run once more.
            if !matches!(tokio::time::timeout(settings.connect_timeout, sender.ready()).await, Ok(Ok(()))) {
                continue;
            }
            let again = repeatable(&request);
            let progress = request.body().progress();
            match self.exchange(&mut sender, request, settings).await {
                Ok(response) => return Ok(self.answer(response, sender, progress, permit, settings, clock)),
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
        Ok(self.answer(response, sender, progress, permit, settings, clock))
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

    /// The idle connection used last, if it still looks alive.
    fn idle(&self, now: Moment) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.lock();
        while let Some(candidate) = idle.pop() {
            if !candidate.sender.is_closed() && now < candidate.until {
                return Some(candidate.sender);
            }
        }
        None
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
            // An upstream that takes nothing more of a body is as silent as one that does not answer.
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

    fn answer(
        self: &Arc<Self>,
        response: http::Response<hyper::body::Incoming>,
        sender: SendRequest<RequestBody>,
        request: Arc<Progress>,
        permit: OwnedSemaphorePermit,
        settings: &settings::Upstream,
        clock: &Clock,
    ) -> Answer {
        let mut response = response;
        if response.headers().contains_key(header::TRANSFER_ENCODING) {
            // Transfer-Encoding overrides; passing the other on would smuggle a second framing (RFC 9112 §6.3).
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let idle =
            announced_idle(response.headers()).map_or(self.keep_alive, |idle| idle.min(self.keep_alive));
        let lease =
            Lease { pool: Arc::clone(self), sender, request, idle, clock: clock.clone(), _permit: permit };
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

    /// Closes what has been idle for long enough, or is closed already.
    pub fn sweep(&self, now: Moment) {
        self.idle.lock().retain(|idle| !idle.sender.is_closed() && now < idle.until);
    }
}

/// How long a connection may be idle and surely still be open, as the server's `Keep-Alive: timeout=5` says (RFC 2068
/// §19.7.1, still sent by many): a request that may not be sent twice would be lost with a connection that closes just then.
fn announced_idle(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all(header::HeaderName::from_static("keep-alive"));
    let mut parameters =
        fields.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    parameters.find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"').parse().ok()?;
        let announced = Duration::from_secs(seconds);
        name.trim().eq_ignore_ascii_case("timeout").then(|| announced.saturating_sub(CLOSING))
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

/// A connection in use by one request.
pub struct Lease {
    pool: Arc<Pool>,
    sender: SendRequest<RequestBody>,
    request: Arc<Progress>,
    /// How long it may then be idle.
    idle: Duration,
    clock: Clock,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// The response was read to its end: the connection may serve another request. Without this call it closes; so it
    /// does when the answer came before the request's body had ended.
    pub fn give_back(self) {
        if !self.request.ended() {
            return;
        }
        let until = self.clock.now() + self.idle;
        self.pool.idle.lock().push(Idle { sender: self.sender, until });
    }
}

/// Why there is no connection to be had.
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

/// Also the bound of a response's head.
const READ_BUFFER: usize = 64 * 1024;
/// How long before a server's announced close a connection is no longer used: what a request may take to arrive.
const CLOSING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(value: &'static str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert("keep-alive", http::HeaderValue::from_static(value));
        announced_idle(&headers).map(|idle| idle.as_secs())
    }

    #[test]
    fn a_connection_is_left_a_second_before_its_server_closes_it() {
        assert_eq!(announced("timeout=5"), Some(4));
        assert_eq!(announced("max=100, Timeout=\"30\""), Some(29));
        assert_eq!(announced("timeout=0"), Some(0));
    }

    #[test]
    fn without_a_readable_announcement_the_setting_stands() {
        assert_eq!(announced("max=100"), None);
        assert_eq!(announced("timeout=soon"), None);
        assert_eq!(announced("timeout"), None);
        assert_eq!(announced_idle(&HeaderMap::new()), None);
    }
}
