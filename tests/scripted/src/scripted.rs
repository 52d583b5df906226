//! Who answers by a script.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
    upgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::reply::{BrokenOff, Content, Ending, Reply};

/// A request as the upstream got it, its content read to the end. One whose content breaks off is none.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Request target as sent: path and query.
    pub target: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// Content.
    pub body: Bytes,
    /// Trailer fields, if any came.
    pub trailers: Option<HeaderMap>,
    /// How many requests came for this target before.
    pub earlier: usize,
}

impl Seen {
    /// A header field's value, or "" when it is absent.
    ///
    /// # Panics
    /// When it is no text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("tests send text"))
    }
}

/// An upstream that answers by its script and remembers what it was asked. Clones are the same upstream.
#[derive(Clone)]
pub struct Scripted(Arc<Inner>);

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

struct Inner {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    clock: Option<Box<dyn Fn() -> SystemTime + Send + Sync>>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Scripted").field("seen", &self.0.seen).finish_non_exhaustive()
    }
}

impl Scripted {
    /// Answers by this script, dated by the system's clock.
    #[must_use]
    pub fn new(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(script, None)
    }

    /// Answers by this script, dated by this clock where the script gives no date: the system's does not stand still when a
    /// test pauses time.
    #[must_use]
    pub fn by_clock(
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::with(script, Some(Box::new(clock)))
    }

    fn with(
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        clock: Option<Box<dyn Fn() -> SystemTime + Send + Sync>>,
    ) -> Self {
        let script: Script = Arc::new(script);
        Self(Arc::new(Inner {
            script: Mutex::new(script),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            clock,
        }))
    }

    /// From the next request on answers by this script.
    pub fn change(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *lock(&self.0.script) = Arc::new(script);
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.0.seen).clone()
    }

    /// How many requests came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.0.seen).len()
    }

    /// How many connections came so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::SeqCst)
    }

    /// The only request that came.
    ///
    /// # Panics
    /// When none or several came.
    #[track_caller]
    #[must_use]
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "the upstream was asked {} times: {seen:#?}", seen.len());
        seen.remove(0)
    }

    /// Answers the requests of one connection until it ends. Dropped, the future drops the connection.
    pub fn serve<S>(&self, stream: S) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        let service = self.service();
        async move {
            // Without a timer: it never lets a connection go by itself.
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // However it ended: the one that tests are about is on the other side.
            let _ = serving.with_upgrades().await;
        }
    }

    /// As [`serve`](Self::serve), by HTTP/2, with at most `streams` requests at once.
    pub fn serve_http2<S>(&self, stream: S, streams: u32) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        let service = self.service();
        async move {
            let serving = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(streams)
                .serve_connection(TokioIo::new(stream), service);
            let _ = serving.await;
        }
    }

    fn service(
        &self,
    ) -> impl Service<Request<Incoming>, Response = Response<Content>, Error = BrokenOff, Future: Send>
    + Send
    + use<> {
        let upstream = self.clone();
        service_fn(move |request| {
            let upstream = upstream.clone();
            async move { upstream.answer(request).await }
        })
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Content>, BrokenOff> {
        let upgrade = upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        let content = body.collect().await.map_err(|_| BrokenOff)?;
        let seen = self.remember(Seen {
            method: head.method,
            target: head.uri.to_string(),
            headers: head.headers,
            trailers: content.trailers().cloned(),
            body: content.to_bytes(),
            earlier: 0,
        });
        let script = Arc::clone(&lock(&self.0.script));
        let reply = script(&seen);
        if let Some(pause) = reply.before_head {
            pause.0.await;
        }
        match reply.ending {
            Ending::Answered => {}
            Ending::HangsUp => return Err(BrokenOff),
            Ending::Echoes => {
                tokio::spawn(async move {
                    if let Ok(upgraded) = upgrade.await {
                        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                    }
                });
            }
        }
        let mut response = Response::new(reply.content);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        if let Some(clock) = &self.0.clock {
            let date = httpdate::fmt_http_date(clock()).parse().expect("a date is a valid value");
            response.headers_mut().entry(header::DATE).or_insert(date);
        }
        Ok(response)
    }

    fn remember(&self, mut seen: Seen) -> Seen {
        let mut all = lock(&self.0.seen);
        seen.earlier = all.iter().filter(|earlier| earlier.target == seen.target).count();
        all.push(seen.clone());
        seen
    }
}

/// No lock is held while a script runs, so what one leaves is whole, also when it panics.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
