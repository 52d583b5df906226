//! The requests to one server: how many, which of them wait for a place, and on which connection each goes.
//!
//! Exchanges and tunnels have places of their own: a WebSocket that lasts for hours takes none from requests. Of the exchanges
//! at most half are requests whose clients are still sending. Of each kind no client has all ([`FairPlaces`]).
//!
//! Shared by all threads: a request may use a connection that another thread opened, so that few connections serve many
//! threads; it becomes that request's thread's own. HTTP/1.1 carries one request at a time, so such a connection is either idle
//! in the list or owned by one request; many share one of HTTP/2.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cache_policy::Moment;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};

use super::{
    RequestBody, ResponseBody,
    address::Endpoint,
    choose::ServerFacts,
    connect::Dial,
    connector::{Connector, Opened, asks_for_tunnel},
    health::{self, Blame, Health, Repeat, Stands},
    http1::Http1Error,
    idle::{Lease, UpstreamConnection, Watch},
    places::{FairPlace, FairPlaces, WaitingLine},
    request_body::Errand,
    response_body::UpstreamResponse,
    retry::Again,
    sender::{EndOfStream, ResponseContent, SendError, Sender},
    tls::{ClientTls, Offer},
    traffic::Traffic,
};
use crate::{
    clock::Clock,
    message::{
        affinity::number_of,
        failure::{AtFault, Failure},
        hop_by_hop::is_token,
        long_lived::{is_event_stream, is_grpc},
        request_id::RequestId,
    },
    settings::{self, Check},
};

/// One server's connections.
pub struct Pool {
    connector: Connector,
    /// A number of its own, the same in every edge and after every start.
    id: u64,
    settings: Arc<settings::UpstreamSettings>,
    exchanges: FairPlaces,
    tunnels: FairPlaces,
    /// Of the exchanges those whose clients are still sending: half of the places, so that the other half is for everybody
    /// else, however slowly clients send.
    uploads: FairPlaces,
    line: Arc<WaitingLine>,
    /// A look is under way.
    looked_at: AtomicBool,
    health: Arc<Health>,
}

/// A look at a server, the only one.
pub struct Looking(Arc<Pool>);

impl Looking {
    /// The server's pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.looked_at.store(false, Ordering::Relaxed);
    }
}

/// A request that got no response: why, and its content when it surely was not acted upon.
pub struct Unsent {
    pub failure: Failure,
    /// The content, to try elsewhere.
    pub body: Option<Box<RequestBody>>,
}

/// A request's place at a server.
struct ServerPlace {
    exchange: FairPlace,
    /// Where it asks for a tunnel: one is promised before it is sent.
    tunnel: Option<FairPlace>,
    /// Where its client is still sending: until the answer begins.
    upload: Option<FairPlace>,
}

impl Pool {
    /// No connection yet. `tls` is there where the server is reached by it.
    pub fn new(
        endpoint: Endpoint,
        settings: &Arc<settings::UpstreamSettings>,
        tls: Option<&Arc<ClientTls>>,
        health: Arc<Health>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: number_of(endpoint.to_string().as_bytes()),
            connector: Connector::new(endpoint, settings, tls),
            settings: Arc::clone(settings),
            exchanges: FairPlaces::new(settings.connections),
            tunnels: FairPlaces::new(settings.tunnels),
            uploads: FairPlaces::new(settings.connections.div_ceil(2)),
            line: Arc::new(WaitingLine::new(settings.waiting, settings.waiting_timeout, settings.overload)),
            looked_at: AtomicBool::new(false),
            health,
        })
    }

    /// The server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.connector.endpoint
    }

    /// A number of the server's own, the same in every edge and after every start.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Has its requests counted.
    pub fn count_in(&self, traffic: &Traffic) {
        traffic.count(&self.endpoint().address, &self.exchanges, &self.line);
    }

    /// What is remembered of the server.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// When the server is put aside.
    pub fn rules(&self) -> health::PutAsideRules {
        let settings = &self.settings;
        health::PutAsideRules {
            failures: settings.failures,
            rest: settings.put_aside,
            slow_start: settings.slow_start,
        }
    }

    /// How the server stands for a request.
    pub fn facts(&self, headers: &HeaderMap, repeat: Repeat, now: Moment) -> ServerFacts {
        let Stands { standing, burden, share } = self.health.standing(repeat, now);
        let load = 1000 * self.busy(headers) as u64 + burden;
        ServerFacts { tried: false, standing, load, weight: share, backup: false, id: self.id }
    }

    /// Requests now under way; for one that asks for a tunnel also the tunnels, which are shared out too.
    fn busy(&self, headers: &HeaderMap) -> usize {
        let tunnels = if asks_for_tunnel(headers) { self.tunnels.taken() } else { 0 };
        self.exchanges.taken() + tunnels + self.line.waiting()
    }

    /// Sends one request on an idle connection or a new one; on an idle one that turns out closed, `again` is sent once
    /// more (RFC 9112 §9.3.1).
    ///
    /// # Errors
    /// [`Unsent`], with the content inside when it may be tried elsewhere.
    pub async fn send(
        &self,
        (head, mut body): (&mut Request<()>, RequestBody),
        again: Option<&Again>,
        dial: &dyn Dial,
        clock: &Clock,
    ) -> Result<UpstreamResponse, Unsent> {
        let place = match self.place(head, &body).await {
            Ok(place) => place,
            // With a full queue another server may have room; a wait that timed out is not repeated elsewhere.
            Err(Queue::Full) => {
                return Err(Unsent { failure: Failure::Busy, body: Some(Box::new(body)) });
            }
            Err(Queue::TooLong) => return Err(Unsent { failure: Failure::Busy, body: None }),
        };
        // How often the request may go out although a server may have seen it: once, where an idle connection closed
        // (RFC 9112 §9.3.1). One that surely was not sent goes on to the next connection.
        let mut repeats = 1;
        for attempt in 0.. {
            let kept = self.connector.kept(head.headers(), clock.now()).filter(|_| attempt < KEPT);
            let is_kept = kept.is_some();
            if !is_kept {
                body.progress().connects();
            }
            let introduction = body.errand().introduction.as_ref();
            // Boxed: most requests find a connection, and need no room for making one.
            let connected = match kept {
                Some(kept) => Ok(kept),
                None if attempt < KEPT => {
                    Box::pin(self.connector.connection(head.headers(), introduction, dial, clock)).await
                }
                None => Box::pin(self.connector.connect(head.headers(), introduction, dial, clock)).await,
            };
            let (mut sender, retires) = match connected {
                Ok(connected) => connected,
                Err(failure) => return Err(Unsent { failure, body: Some(Box::new(body)) }),
            };
            // One of HTTP/2 is ready as soon as its task has run once more.
            if is_kept {
                let ready = tokio::time::timeout(self.settings.connect_timeout, sender.ready());
                if !matches!(ready.await, Ok(true)) {
                    continue;
                }
            }
            let progress = body.progress();
            let closed_early = sender.is_http1() && is_kept && repeats > 0;
            match self.exchange(&mut sender, head, body).await {
                Ok(response) => {
                    let ServerPlace { exchange: place, tunnel, upload } = place;
                    drop(upload);
                    let connection = UpstreamConnection { sender, progress, place, retires };
                    return self.answer(response, self.lease(connection, clock), tunnel, again);
                }
                Err(Unsent { failure, body: None })
                    if match failure {
                        Failure::Closed => closed_early && again.is_some_and(Again::is_safe),
                        // The server has not acted upon it (RFC 9113 §8.7): it goes away, or has enough on this connection.
                        Failure::Withdrawn => repeats > 0,
                        _ => false,
                    } =>
                {
                    repeats -= 1;
                    sender.retire();
                    // Its connection lets go of the content.
                    drop(sender);
                    let once_more = match again {
                        Some(again) => again.body().await,
                        None => None,
                    };
                    let Some(once_more) = once_more else { return Err(Unsent { failure, body: None }) };
                    body = once_more;
                }
                Err(Unsent { failure: Failure::Closed, body: Some(back) })
                    if attempt < KEPT && (is_kept || !sender.is_http1()) =>
                {
                    body = *back;
                }
                Err(unsent) => return Err(unsent),
            }
        }
        unreachable!("the loop above goes on until it returns")
    }

    async fn place(&self, head: &Request<()>, body: &RequestBody) -> Result<ServerPlace, Queue> {
        let client = body.errand().client;
        let tunnel = match asks_for_tunnel(head.headers()) {
            true => Some(self.tunnels.try_take(client).ok_or(Queue::Full)?),
            false => None,
        };
        let is_upload = body.is_streamed() && !self.is_call(head.headers());
        let at_once = if is_upload { self.uploads.try_take(client).map(Some) } else { Some(None) };
        if let Some(upload) = at_once
            && let Some(exchange) = self.exchanges.try_take(client)
        {
            return Ok(ServerPlace { exchange, tunnel, upload });
        }
        let waiting = self.line.enter();
        // The last eighth of the queue, too, is for those who have no more than their share.
        let longest = match self.exchanges.is_over_its_share(client) {
            true => self.line.most - self.line.most / 8,
            false => self.line.most,
        };
        if waiting.before >= longest {
            return Err(Queue::Full);
        }
        // An upload waits for its share first: else it would keep others from the place that it cannot use yet.
        let taken = async {
            let upload = if is_upload { Some(self.uploads.take(client).await) } else { None };
            ServerPlace { exchange: self.exchanges.take(client).await, tunnel, upload }
        };
        tokio::time::timeout(self.line.patience, taken).await.map_err(|_| Queue::TooLong)
    }

    /// Whether it is a remote procedure call: only HTTP/2 carries those.
    fn is_call(&self, headers: &HeaderMap) -> bool {
        is_grpc(headers) && self.settings.may_speak_http2()
    }

    /// A look at the server, unless one is under way.
    pub fn begin_look(self: &Arc<Self>) -> Option<Looking> {
        (!self.looked_at.swap(true, Ordering::Relaxed)).then(|| Looking(Arc::clone(self)))
    }

    /// Looks at the server on a connection made for it.
    ///
    /// # Errors
    /// What is wrong with the server.
    pub async fn look(&self, check: &Check, dial: &dyn Dial, clock: &Clock) -> Result<(), Blame> {
        let look = tokio::time::timeout(check.timeout, self.look_at(check, dial, clock));
        look.await.unwrap_or(Err(Blame::Answer("check-timeout")))
    }

    async fn look_at(&self, check: &Check, dial: &dyn Dial, clock: &Clock) -> Result<(), Blame> {
        let blame = |failure: &Failure| match failure.fault() {
            AtFault::Unreachable => Blame::Unreachable(failure.detail()),
            AtFault::BadAnswer | AtFault::NotTheServers => Blame::Answer(failure.detail()),
        };
        let retires = clock.now() + self.settings.connection_age;
        let errand = Errand::of_edge(&RequestId::next(), &self.settings);
        let opened = self.connector.open(Offer::Either, retires, errand.introduction.as_ref(), dial).await;
        let opened = opened.map_err(|failure| blame(&failure))?;
        let mut sender = match opened {
            Opened::Http1(sender) => sender,
            Opened::Http2(connection) => {
                let stream = connection.stream(usize::MAX, clock.now());
                Sender::Http2(stream.ok_or(Blame::Answer("upstream-closed"))?)
            }
        };
        let host = check.host.as_deref().map_or_else(|| self.connector.endpoint.authority(), str::to_owned);
        let mut head = Request::get(&*check.path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, "gatehouse-check")
            .header(header::CONNECTION, "close")
            .body(())
            .map_err(|_| Blame::Answer("check-request"))?;
        let body = RequestBody::empty(errand);
        let answer =
            self.exchange(&mut sender, &mut head, body).await.map_err(|unsent| blame(&unsent.failure))?;
        if !check.accepts(answer.status()) {
            return Err(Blame::Answer("check-status"));
        }
        let Some(text) = &check.body else { return Ok(()) };
        let (mut body, mut content) = (answer.into_body(), Vec::new());
        while content.len() < CHECKED_BODY
            && let Some(frame) = poll_fn(|context| sender.poll_frame(&mut body, context)).await
        {
            let frame = frame.map_err(|_| Blame::Answer("check-body"))?;
            content.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        content.truncate(CHECKED_BODY);
        let holds = content.windows(text.len()).any(|window| window == text.as_bytes());
        if holds { Ok(()) } else { Err(Blame::Answer("check-body")) }
    }

    async fn exchange(
        &self,
        sender: &mut Sender,
        head: &mut Request<()>,
        body: RequestBody,
    ) -> Result<http::Response<ResponseContent>, Unsent> {
        let (progress, settings) = (body.progress(), &self.settings);
        let is_rpc = self.is_call(head.headers());
        progress.sends();
        let &Errand { first_byte, between_bytes, .. } = progress.errand();
        // The upstream's time runs from the request's end; until then the client's patience is what counts.
        let overdue = async {
            // An upstream that stops reading a body is as silent as one that does not answer.
            let pause = if is_rpc { settings.tunnel } else { first_byte + between_bytes };
            let mut steps = progress.steps();
            while tokio::time::timeout(pause, progress.end()).await.is_err() {
                let taken = progress.steps();
                if taken == steps {
                    return;
                }
                steps = taken;
            }
            tokio::time::sleep(first_byte).await;
        };
        let sent = tokio::select! {
            sent = sender.try_send_request(head, body) => sent,
            () = overdue => {
                sender.retire();
                return Err(Unsent { failure: Failure::Timeout, body: None });
            }
        };
        match sent {
            Ok(response) => Ok(response),
            Err((_, Some(body))) => Err(Unsent { failure: Failure::Closed, body: Some(Box::new(body)) }),
            Err((error, None)) => {
                let failure = match progress.broke() {
                    Some(error) => Failure::RequestBody(error.clone()),
                    None => match (sender.why_it_ended(&error), &error) {
                        (_, SendError::Http1(Http1Error::TooLarge)) => Failure::HeadTooLarge(settings.heads),
                        (_, SendError::Http1(Http1Error::Malformed(_) | Http1Error::Framing(_)))
                        | (EndOfStream::Violation, _) => Failure::Malformed(Arc::new(error)),
                        (EndOfStream::Unprocessed, _) => Failure::Withdrawn,
                        (EndOfStream::WithOthers, _) => Failure::ClosedWithOthers,
                        (EndOfStream::Alone, _) => Failure::Closed,
                    },
                };
                Err(Unsent { failure, body: None })
            }
        }
    }

    fn lease(&self, connection: UpstreamConnection, clock: &Clock) -> Lease {
        let watch = Watch { health: Arc::clone(&self.health), rules: self.rules() };
        Lease::new(&self.connector.idle, connection, watch, self.settings.keep_alive, clock)
    }

    /// The response, with the place that its connection has while it is read.
    fn answer(
        &self,
        mut response: http::Response<ResponseContent>,
        mut lease: Lease,
        tunnel: Option<FairPlace>,
        again: Option<&Again>,
    ) -> Result<UpstreamResponse, Unsent> {
        if response.version() == Version::HTTP_2 && !response.headers().keys().all(is_token) {
            return Err(Unsent { failure: Failure::Framing("has a malformed name"), body: None });
        }
        let status = response.status();
        one_framing(status, response.headers_mut()).map_err(|failure| Unsent { failure, body: None })?;
        if response.headers().len() > self.settings.heads.fields {
            // Those of HTTP/1.1 were counted when they were read.
            return Err(Unsent { failure: Failure::HeadTooLarge(self.settings.heads), body: None });
        }
        lease.read_keep_alive(response.headers());
        if self.settings.fails(response.status()) {
            lease.has_failed();
        }
        let pause = lease.errand().between_bytes;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // The connection is no longer HTTP's: it keeps its place among the tunnels until the tunnel ends.
            match tunnel {
                Some(place) => lease.change_place(place),
                None => return Err(Unsent { failure: Failure::Unasked, body: None }),
            }
            lease.lasts();
            return Ok(response.map(|content| ResponseBody::new(content, self.id, pause, Some(lease))));
        }
        let is_rpc = is_grpc(response.headers());
        // A stream of remote procedure calls may have nothing to say for as long as a tunnel.
        let pause = if is_rpc { self.settings.tunnel } else { pause };
        if (is_rpc || is_event_stream(response.headers()))
            && !matches!(response.body(), ResponseContent::None)
        {
            // It goes on for as long as its client likes, as a tunnel does.
            match self.tunnels.try_take(lease.errand().client) {
                Some(place) => lease.change_place(place),
                // It has been acted on, and 503 would have the client send it once more: the stream keeps the place that
                // the request had (RFC 9110 §9.2.2).
                None if !again.is_some_and(Again::is_safe) => {}
                None => return Err(Unsent { failure: Failure::Busy, body: None }),
            }
            lease.lasts();
        }
        Ok(response.map(|content| {
            if let ResponseContent::None = content {
                lease.give_back();
                ResponseBody::new(content, self.id, pause, None)
            } else {
                ResponseBody::new(content, self.id, pause, Some(lease))
            }
        }))
    }

    /// Closes what has been idle for long enough, or is closed already.
    pub fn sweep(&self, now: Moment) {
        self.connector.idle.sweep(now);
    }
}

/// Whether a transfer coding is one word, and none that anybody knows.
fn means_nothing(coding: &HeaderValue) -> bool {
    const KNOWN: [&str; 7] = ["chunked", "gzip", "deflate", "compress", "identity", "br", "zstd"];
    let word = coding.to_str().map(str::to_ascii_lowercase).unwrap_or_default();
    let plain = !word.is_empty() && word.bytes().all(|octet| octet.is_ascii_alphanumeric());
    plain && !KNOWN.iter().any(|known| word.contains(known))
}

/// Leaves at most one statement of a response's length, one in place of several that agree: forwarding two would smuggle a
/// second framing (RFC 9112 §6.3).
///
/// # Errors
/// When they do not agree, or are none; when both a length and a transfer coding are stated, which is a sign of smuggling
/// (§6.1); and for codings but `chunked` that somebody could take for one or undo: that one alone is undone here, so that the
/// content would be taken for what it is not. A word that means nothing is let be, and the content lasts as long as the
/// connection (§6.3).
fn one_framing(status: StatusCode, headers: &mut HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !(is_chunked || means_nothing(coding)) || codings.next().is_some() {
            return Err(Failure::Framing("has a transfer coding other than chunked"));
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Failure::Framing("has both Transfer-Encoding and Content-Length"));
        }
        return Ok(());
    }
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        // These have no length (RFC 9110 §8.6).
        headers.remove(header::CONTENT_LENGTH);
        return Ok(());
    }
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), second) = (lines.next(), lines.next()) else { return Ok(()) };
    if second.is_none() && !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    // Content-Length is no list field: an empty member is a member that disagrees.
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths =
        lengths.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let one = lengths.next().unwrap_or_default();
    if one.is_empty() || !one.iter().all(u8::is_ascii_digit) || lengths.any(|other| other != one) {
        return Err(Failure::Lengths);
    }
    let one = HeaderValue::from_bytes(one).map_err(|_| Failure::Lengths)?;
    headers.insert(header::CONTENT_LENGTH, one);
    Ok(())
}

/// Why no connection is available.
enum Queue {
    Full,
    TooLong,
}

/// Bytes of an answer's content in which a check looks for its text.
const CHECKED_BODY: usize = 64 * 1024;
/// Connections that may turn out closed, with the request given back, before a new one is made for it.
const KEPT: usize = 4;
