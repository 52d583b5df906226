//! The operator's listener: health, metrics, and what may be done to the cache.
//!
//! Owns: the HTTP service on the admin address. It shares nothing with the public side: it runs on the main thread, so
//! busy workers do not keep it from answering, and it never goes through the pipeline. It must never be reachable for
//! clients: its answers are meant for the operator.
//!
//! ```text
//! GET /livez      200 while the process answers at all
//! GET /readyz     200, or 503 with the reasons
//! GET /metrics    OpenMetrics; the older text format for whoever prefers it
//! GET /commands   what every instance of every command does, as JSON
//! GET /commands/targets              where Prometheus finds the metrics of all instances, see [`commands`]
//! GET /commands/NAME/NUMBER/metrics  those of one instance
//! POST /logs      what a command prints, see [`commands`]
//! POST /restart   replaces a command's instances, see [`commands`]
//! POST /explain   see [`crate::explain`]
//! POST /purge     see [`crate::pipeline::purge`]
//! PURGE, BAN, ..  purges as plugins send them, see [`crate::pipeline::purge::dialect`]
//! POST /reload    see [`reload`]
//! ```
//!
//! Whoever does not read what it is answered is cut off (`impatient`): the number of connections is bounded, and one that
//! asks for the metrics finds a place.
//!
//! Anyone who reaches the listener may read. A request that changes something needs the bearer token of
//! `admin.token_file`. Without such a file it must come from this machine and not from a web page: its content is JSON,
//! which a page of another site cannot send without a preflight. Every request's Host is an address, `localhost` or one
//! of `admin.hosts`, which excludes names rebound to this machine; by other names `/livez` and `/readyz` tell a status,
//! and nothing else is answered. Over a Unix socket ([`socket`]) any Host is accepted: no browser can connect to one.

pub mod commands;
mod impatient;
pub mod reload;
pub mod socket;
pub mod token;

use std::{convert::Infallible, fmt, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use cache_policy::{list_elements, one_host};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN},
    request,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    cache::Memory,
    clock::Clock,
    explain::{self, Question},
    message::request_id::RequestId,
    observe::metrics::{self, Metrics},
    pipeline::purge::{
        NotPurged, PurgeAnswer, PurgeRequest,
        dialect::{Dialect, ForeignPurge},
        plugin,
    },
    settings::{Settings, Token},
    upstream::supervise::Roster,
};
use commands::{AdminBody, CommandService, Unanswered};
use impatient::Impatient;
use reload::Reloads;
use socket::{AdminSocket, Caller};
use token::TokenInForce;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// For a request's whole head, and for a kept connection to send its next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a posted JSON content.
const LARGEST_CONTENT: usize = 1024 * 1024;
/// How long connections may take to finish their answers at a stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The state that answers are made from.
#[derive(Clone)]
pub struct Service(Arc<Sources>);

struct Sources {
    metrics: Arc<Metrics>,
    readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    cache: Option<Cache>,
    commands: CommandService,
    /// Where settings are read again.
    reloads: Option<Reloads>,
}

/// Tells what is wrong with the servers behind the route of a name.
pub type Troubles = Arc<dyn Fn(&str) -> Vec<String> + Send + Sync>;

/// The cache that requests change or explain, and who may do so.
#[derive(Clone)]
pub struct Cache {
    pub memory: Arc<Memory>,
    /// Dates a purge.
    pub clock: Clock,
    /// The settings in force, asked anew for each explanation.
    pub settings: Arc<dyn Fn() -> Settings + Send + Sync>,
    /// What is wrong now with the servers behind the route of this name, in words.
    pub troubles: Troubles,
    /// The bearer token that changes need, as the settings in force have it.
    pub token: Arc<TokenInForce>,
}

impl Service {
    /// `readiness` is asked anew for each `/readyz`.
    #[must_use]
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: impl Fn() -> Readiness + Send + Sync + 'static,
        cache: Option<Cache>,
        roster: Arc<Roster>,
        reloads: Option<Reloads>,
    ) -> Self {
        let commands = CommandService::new(roster);
        Self(Arc::new(Sources { metrics, readiness: Box::new(readiness), cache, commands, reloads }))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Service").field("metrics", &self.0.metrics).finish_non_exhaustive()
    }
}

/// Whether requests should be sent here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not, each a short sentence; none when ready.
    pub reasons: Vec<String>,
}

/// Serves until `stop`. When it returns, the socket is closed. Dropped, it cuts all connections.
pub async fn serve(socket: AdminSocket, state: Service, stop: CancellationToken) -> OpenConnections {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let ((stream, caller), place) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepting::within(&places, || socket.accept(), || ()) => accepted,
        };
        let stream = Impatient::new(stream, Arc::clone(&places));
        let connection = connection(stream, caller, state.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    OpenConnections(connections)
}

/// Connections that are answering when the listener closes.
pub struct OpenConnections(JoinSet<()>);

impl OpenConnections {
    /// Gives them a second to finish.
    pub async fn finish(mut self) {
        let rest = async { while self.0.join_next().await.is_some() {} };
        let _ = timeout(STOP_GRACE, rest).await;
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    state: Service,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&state, caller, request).await) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an admin connection ended early");
    }
}

type AdminResponse = Response<AdminBody>;

async fn answer(state: &Service, caller: Caller, request: Request<Incoming>) -> AdminResponse {
    // An unread body stays unread: hyper then closes the connection instead of reading it to its end.
    let method = request.method();
    if let Some(dialect) = Dialect::of(method, request.uri().path()) {
        return answered(purge_by_plugin(state, caller, request, dialect).await);
    }
    if !is_known_host(state, caller, request.headers()) {
        // Probes ask by whatever name they know, and learn a status alone.
        return match request.uri().path() {
            "/livez" | "/readyz" if method == Method::GET || method == Method::HEAD => {
                let ready = request.uri().path() == "/livez" || (state.0.readiness)().reasons.is_empty();
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                with_body(status, TEXT, if ready { "ok\n" } else { "not ready\n" })
            }
            _ => problem(
                StatusCode::FORBIDDEN,
                "Host must be an address, localhost or one of admin.hosts",
                &[],
            ),
        };
    }
    let resource = match request.uri().path() {
        "/livez" => alive,
        "/readyz" => ready,
        "/metrics" if wants_classic(request.headers()) => classic_metrics,
        "/metrics" => all_metrics,
        "/commands" => all_commands,
        "/explain" | "/purge" | "/logs" | "/restart" | "/reload" if method != Method::POST => {
            return not_allowed("questions are posted", "POST");
        }
        "/explain" => return answered(posted(state, caller, request).await.and_then(explain)),
        "/purge" => {
            return answered(match posted(state, caller, request).await {
                Ok(posted) => purge(posted).await,
                Err(refused) => Err(refused),
            });
        }
        "/logs" => {
            let posted = posted(state, caller, request).await.and_then(|(_, content)| read(&content));
            return lasting(TEXT, posted, |wanted| state.0.commands.logs(wanted));
        }
        "/restart" => {
            let posted = posted(state, caller, request).await.and_then(|(_, content)| read(&content));
            return lasting(JSON_LINES, posted, |wanted| state.0.commands.restart(wanted));
        }
        "/reload" => {
            return answered(match (posted(state, caller, request).await, &state.0.reloads) {
                (Ok(_), Some(reloads)) => reload::reload(reloads).await,
                (Ok(_), None) => Err((StatusCode::NOT_FOUND, "there is nothing to reload".to_owned())),
                (Err(refused), _) => Err(refused),
            });
        }
        path if path.starts_with("/commands/") => {
            if method != Method::GET && method != Method::HEAD {
                return not_allowed("this resource can only be read", "GET, HEAD");
            }
            let (head, _) = request.into_parts();
            return of_commands(&state.0.commands, &head).await;
        }
        _ => {
            let detail = "there are /livez, /readyz, /metrics, /commands, /commands/targets, /commands/NAME/NUMBER/metrics, \
                          /explain, /purge, /logs, /restart and /reload";
            return problem(StatusCode::NOT_FOUND, detail, &[]);
        }
    };
    // hyper leaves the body of an answer to HEAD out (RFC 9110 §9.3.2).
    if method != Method::GET && method != Method::HEAD {
        return not_allowed("this resource can only be read", "GET, HEAD");
    }
    resource(state)
}

fn not_allowed(detail: &str, allowed: &'static str) -> AdminResponse {
    let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, detail, &[]);
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refused
}

/// The content of an authorised POST, and the cache it is about.
type Posted<'a> = (&'a Cache, Bytes);

/// An error status and its explanation.
type Objection = (StatusCode, String);

/// Reads the JSON of an authorised request. Explaining needs authorisation too: it reveals what is stored.
async fn posted(
    state: &Service,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Posted<'_>, Objection> {
    let refused = |status, detail: &str| (status, detail.to_owned());
    let cache = state.0.cache.as_ref().ok_or_else(|| refused(StatusCode::NOT_FOUND, "there is no cache"))?;
    may_change(cache, caller, request.headers()).map_err(|(status, detail)| refused(status, detail))?;
    Ok((cache, whole_content(request.into_body()).await?))
}

async fn whole_content(content: Incoming) -> Result<Bytes, Objection> {
    let refused = |status, detail: &str| (status, detail.to_owned());
    let content = Limited::new(content, LARGEST_CONTENT);
    match timeout(HEAD_TIMEOUT, content.collect()).await {
        Ok(Ok(content)) => Ok(content.to_bytes()),
        Ok(Err(_)) => Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "more than 1 MiB of JSON")),
        Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the content did not arrive in time")),
    }
}

fn read<T: serde::de::DeserializeOwned>(content: &[u8]) -> Result<T, Objection> {
    serde_json::from_slice(content).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// An answer that may go on for long.
fn lasting<T>(
    content_type: &'static str,
    posted: Result<T, Objection>,
    answer: impl FnOnce(&T) -> Result<AdminBody, Unanswered>,
) -> AdminResponse {
    match posted.map(|wanted| answer(&wanted)) {
        Ok(Ok(body)) => with_content(StatusCode::OK, content_type, body),
        Ok(Err(unanswered)) => unanswered_by(&unanswered),
        Err((status, detail)) => problem(status, &detail, &[]),
    }
}

fn unanswered_by(unanswered: &Unanswered) -> AdminResponse {
    let (status, detail) = match unanswered {
        Unanswered::Unknown(detail) => (StatusCode::NOT_FOUND, &**detail),
        Unanswered::Busy(detail) => (StatusCode::SERVICE_UNAVAILABLE, *detail),
        Unanswered::Away(detail) => (StatusCode::SERVICE_UNAVAILABLE, &**detail),
        Unanswered::Failed(detail) => (StatusCode::BAD_GATEWAY, &**detail),
    };
    problem(status, detail, &[])
}

/// What is read of the commands' instances.
async fn of_commands(commands: &CommandService, head: &request::Parts) -> AdminResponse {
    if head.uri.path() == "/commands/targets" {
        let Some(here) = head.headers.get(HOST).and_then(|host| host.to_str().ok()) else {
            return problem(
                StatusCode::BAD_REQUEST,
                "there is no Host to say where metrics are asked for",
                &[],
            );
        };
        let targets = serde_json::json!(commands.targets(here));
        return with_body(StatusCode::OK, "application/json", targets.to_string() + "\n");
    }
    match commands.metrics(head.uri.path(), head.headers.get(ACCEPT)).await {
        Ok(scraped) => {
            let mut answer = with_body(StatusCode::OK, metrics::CLASSIC_CONTENT_TYPE, scraped.content);
            if let Some(content_type) = scraped.content_type {
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
            }
            answer
        }
        Err(unanswered) => unanswered_by(&unanswered),
    }
}

fn answered(answer: Result<serde_json::Value, Objection>) -> AdminResponse {
    match answer {
        Ok(answer) => with_body(StatusCode::OK, "application/json", answer.to_string() + "\n"),
        Err((status, detail)) => problem(status, &detail, &[]),
    }
}

async fn purge((cache, content): Posted<'_>) -> Result<serde_json::Value, Objection> {
    run_purge(cache, move |_| read(&content)).await.map(|purged| serde_json::json!(purged))
}

/// A purge in the words of a content system's plugin.
async fn purge_by_plugin(
    state: &Service,
    caller: Caller,
    request: Request<Incoming>,
    dialect: Dialect,
) -> Result<serde_json::Value, Objection> {
    let cache =
        state.0.cache.as_ref().ok_or_else(|| (StatusCode::NOT_FOUND, "there is no cache".to_owned()))?;
    plugin_may_purge(cache, caller, request.headers()).map_err(|(status, told)| (status, told.to_owned()))?;
    let (head, content) = request.into_parts();
    let content = whole_content(content).await?;
    let id = RequestId::next();
    let purged = run_purge(cache, move |settings| {
        let http::request::Parts { method, uri, headers, .. } = &head;
        let foreign =
            ForeignPurge { method, uri, headers, content: &content, listeners: &settings.listeners };
        let purge = foreign.read(dialect).map_err(|error| (StatusCode::BAD_REQUEST, error))?;
        let soft = purge.soft || settings.purge.as_ref().is_some_and(|access| access.soft);
        Ok(PurgeRequest { soft, ..purge })
    });
    Ok(dialect.done(purged.await?.purged, &id.to_string()))
}

/// Whether a plugin may purge. Browsers say of whatever is neither GET nor HEAD from which page it comes.
fn plugin_may_purge(
    cache: &Cache,
    caller: Caller,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, &'static str)> {
    if let Some(token) = cache.token.get() {
        return if plugin::is_shown(&token, headers) {
            Ok(())
        } else {
            Err((StatusCode::UNAUTHORIZED, "the token is missing or wrong"))
        };
    }
    match caller {
        Caller::Network(peer) if !peer.to_canonical().is_loopback() => {
            Err((StatusCode::FORBIDDEN, "purges from other machines need admin.token_file"))
        }
        Caller::Network(_) if headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") => {
            Err((StatusCode::FORBIDDEN, "a web page may not purge"))
        }
        _ => Ok(()),
    }
}

/// Purges what `read` says by the settings in force.
async fn run_purge(
    cache: &Cache,
    read: impl FnOnce(&Settings) -> Result<PurgeRequest, Objection> + Send + 'static,
) -> Result<PurgeAnswer, Objection> {
    let (cache, here) = (cache.clone(), Handle::current());
    // A list of many URLs takes long to read: the main thread has others to answer.
    let purged = spawn_blocking(move || {
        let settings = (cache.settings)();
        let purge = read(&settings)?;
        Ok(here.block_on(purge.run(&settings.routes, &cache.memory, cache.clock.now())))
    });
    let failed = |_| (StatusCode::INTERNAL_SERVER_ERROR, "the purge failed".to_owned());
    let purged = purged.await.map_err(failed)??.map_err(|error| {
        let status = match error {
            NotPurged::Unclear(_) => StatusCode::BAD_REQUEST,
            NotPurged::Unacknowledged(..) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, error.to_string())
    })?;
    tracing::info!(purged = purged.purged, soft = purged.soft, dry_run = purged.dry_run, "purge");
    Ok(purged)
}

fn explain((cache, content): Posted<'_>) -> Result<serde_json::Value, Objection> {
    let unclear = |error: String| (StatusCode::BAD_REQUEST, error);
    let question: Question = serde_json::from_slice(&content).map_err(|error| unclear(error.to_string()))?;
    let settings = (cache.settings)();
    let mut explanation =
        explain::live(&settings, &cache.memory, cache.clock.now(), &question).map_err(unclear)?;
    explanation.notes.extend((cache.troubles)(&explanation.route));
    Ok(serde_json::json!(explanation))
}

/// Whether a request may change something; see the module's documentation.
fn may_change(cache: &Cache, caller: Caller, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let field = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(token) = cache.token.get() {
        return if has_token(headers, &token) {
            Ok(())
        } else {
            Err((StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong"))
        };
    }
    let Caller::Network(peer) = caller else { return Ok(()) };
    if !peer.to_canonical().is_loopback() {
        return Err((StatusCode::FORBIDDEN, "changes from other machines need admin.token_file"));
    }
    if !field(CONTENT_TYPE).is_some_and(|value| value.starts_with("application/json")) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json"));
    }
    // That the Host is known has been seen before; a browser always sends one.
    if headers.contains_key(HOST) { Ok(()) } else { Err((StatusCode::FORBIDDEN, "there is no Host")) }
}

/// Whether a request is for a name of this listener, and not for one that somebody has bound to its address, so that a web
/// page reads what is the operator's. Who proves by the token who it is asks by any name.
fn is_known_host(state: &Service, caller: Caller, headers: &HeaderMap) -> bool {
    let Caller::Network(_) = caller else { return true };
    let mut lines = headers.get_all(HOST).iter();
    let Some(line) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    let cache = state.0.cache.as_ref();
    if cache.is_some_and(|cache| cache.token.get().is_some_and(|token| has_token(headers, &token))) {
        return true;
    }
    let Ok(authority) = http::uri::Authority::try_from(line.as_bytes()) else { return false };
    let host = one_host(authority.host());
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if &*host == "localhost" || address.is_ok() {
        return true;
    }
    let admin = cache.and_then(|cache| (cache.settings)().admin);
    admin.is_some_and(|admin| admin.hosts.contains(&host))
}

/// Whether a request proves by the token who it is.
fn has_token(headers: &HeaderMap, token: &Token) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    given.is_some_and(|given| token.is(given.as_bytes()))
}

fn alive(_: &Service) -> AdminResponse {
    with_body(StatusCode::OK, TEXT, "ok\n")
}

fn ready(state: &Service) -> AdminResponse {
    let readiness = (state.0.readiness)();
    if readiness.reasons.is_empty() {
        return with_body(StatusCode::OK, TEXT, "ok\n");
    }
    problem(StatusCode::SERVICE_UNAVAILABLE, "send no requests here now", &readiness.reasons)
}

fn classic_metrics(state: &Service) -> AdminResponse {
    with_body(StatusCode::OK, metrics::CLASSIC_CONTENT_TYPE, state.0.metrics.encode_classic())
}

/// Whether the older format is preferred to OpenMetrics: named, and with a higher weight (RFC 9110 §12.5.1).
fn wants_classic(headers: &HeaderMap) -> bool {
    let ranges: Vec<&str> =
        list_elements(headers, &ACCEPT).filter_map(|range| str::from_utf8(range).ok()).collect();
    let weight = |media_type: &str| {
        let weights = ranges.iter().filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().filter(|named| named.eq_ignore_ascii_case(media_type))?;
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            Some(weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0)))
        });
        weights.fold(0.0, f32::max)
    };
    weight("text/plain") > weight("application/openmetrics-text")
}

fn all_commands(state: &Service) -> AdminResponse {
    let report = serde_json::json!(state.0.commands.report());
    with_body(StatusCode::OK, "application/json", report.to_string() + "\n")
}

fn all_metrics(state: &Service) -> AdminResponse {
    with_body(StatusCode::OK, metrics::CONTENT_TYPE, state.0.metrics.encode())
}

const TEXT: &str = "text/plain; charset=utf-8";
/// JSON, one value a line.
const JSON_LINES: &str = "application/x-ndjson";

/// RFC 9457, with the reasons as an extension member.
fn problem(status: StatusCode, detail: &str, reasons: &[String]) -> AdminResponse {
    let mut problem = serde_json::json!({
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    if !reasons.is_empty() {
        problem["reasons"] = reasons.into();
    }
    with_body(status, "application/problem+json", problem.to_string() + "\n")
}

fn with_body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    with_content(status, content_type, Full::new(body.into()).boxed_unsync())
}

fn with_content(status: StatusCode, content_type: &'static str, body: AdminBody) -> AdminResponse {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Mutex};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::cache::{
        Key, Tiers,
        tier::{self, Found, Offered, Tier, TierFuture},
        tiers::TierBounds,
    };

    type Reasons = Arc<Mutex<Vec<String>>>;

    fn state() -> (Service, Reasons) {
        state_of(Memory::new(1 << 20, 4, Arc::default()))
    }

    fn state_of(memory: Memory) -> (Service, Reasons) {
        state_with_hosts(memory, "[]")
    }

    fn state_with_hosts(memory: Memory, hosts: &str) -> (Service, Reasons) {
        let reasons = Reasons::default();
        let told = Arc::clone(&reasons);
        let readiness = move || Readiness { reasons: told.lock().unwrap().clone() };
        let clock = Clock::system();
        let settings = format!(
            "[[listen]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:1\"\nhosts = {hosts}\n\
             [upstreams.o]\nservers = [\"http://o:80\"]\n\
             [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"o\"\n"
        );
        let settings = crate::settings::parse(&settings, "test.toml").unwrap();
        let cache = Cache {
            memory: Arc::new(memory),
            clock,
            settings: Arc::new(move || settings.clone()),
            troubles: Arc::new(|route| vec![format!("10.0.0.1:80 behind {route:?} is put aside")]),
            token: Arc::default(),
        };
        (Service::new(Arc::new(Metrics::new()), readiness, Some(cache), Arc::default(), None), reasons)
    }

    fn open(state: &Service) -> DuplexStream {
        let (client, server) = duplex(64 * 1024);
        let caller = Caller::Network(IpAddr::from([127, 0, 0, 1]));
        tokio::spawn(connection(server, caller, state.clone(), CancellationToken::new()));
        client
    }

    async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
        let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_process_lives_whether_it_is_ready_or_not() {
        let (state, reasons) = state();
        reasons.lock().unwrap().push("draining".to_owned());
        let answer = exchange(open(&state), "GET /livez").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        assert!(answer.contains("cache-control: no-store"), "{answer}");
    }

    #[tokio::test]
    async fn readiness_is_asked_anew_and_says_why_not() {
        let (state, reasons) = state();
        let answer = exchange(open(&state), "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        reasons.lock().unwrap().push("no instance of command origin is ready".to_owned());
        let answer = exchange(open(&state), "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["status"], 503);
        assert_eq!(body["reasons"], serde_json::json!(["no instance of command origin is ready"]));
    }

    /// Whoever could not read OpenMetrics got it all the same.
    #[tokio::test]
    async fn the_classic_format_is_for_those_who_ask_for_it() {
        let (state, _) = state();
        for (accept, content_type) in [
            ("text/plain", "text/plain; version=0.0.4"),
            ("text/plain;version=0.0.4;q=0.5, */*;q=0.1", "text/plain; version=0.0.4"),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
                "application/openmetrics-text",
            ),
            ("*/*", "application/openmetrics-text"),
        ] {
            let answer =
                exchange(open(&state), &format!("GET /metrics HTTP/1.1\r\nAccept: {accept}\r\nX:")).await;
            assert!(answer.contains(&format!("content-type: {content_type}")), "{accept}: {answer}");
        }
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let answer = exchange(open(&state().0), "GET /metrics").await;
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.contains("gatehouse_edge_build_info") && answer.ends_with("# EOF\n"), "{answer}");
    }

    async fn post(state: &Service, fields: &str, content: &str) -> String {
        exchange_posted(state, "/purge", fields, content).await
    }

    async fn exchange_posted(state: &Service, path: &str, fields: &str, content: &str) -> String {
        let mut stream = open(state);
        let length = content.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{content}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    const JSON: &str = "Host: localhost:9900\r\nContent-Type: application/json\r\n";

    #[tokio::test]
    async fn a_purge_is_acknowledged_with_its_count_and_a_wrong_one_is_explained() {
        let (state, _) = state();
        let answer = post(&state, JSON, r#"{"tags": ["a"]}"#).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"purged\":0"), "{answer}");
        let answer = post(&state, JSON, r#"{"tag": "a"}"#).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("unknown field `tag`"), "{answer}");
        assert!(exchange(open(&state), "GET /purge").await.starts_with("HTTP/1.1 405 "));
    }

    /// A tier that cannot write.
    struct Broken;

    impl Tier for Broken {
        fn name(&self) -> &'static str {
            "disk"
        }

        fn look_up<'a>(&'a self, _: &'a Key, _: &'a HeaderMap) -> TierFuture<'a, Option<Found>> {
            Box::pin(async { Ok(None) })
        }

        fn offer(&self, _: &Key, _: Offered) {}

        fn forget(&self, _: &Key) {}

        fn purge<'a>(&'a self, _: &'a tier::Purge) -> TierFuture<'a, Option<u64>> {
            Box::pin(async { Err("read-only file system".into()) })
        }
    }

    #[tokio::test]
    async fn a_purge_that_a_tier_has_not_acknowledged_is_an_error_that_says_so() {
        let tier: (Arc<dyn Tier>, TierBounds) = (Arc::new(Broken), TierBounds::default());
        let tiers = Tiers::new(vec![tier], &Clock::system(), &Metrics::new());
        let (state, _) = state_of(Memory::new(1 << 20, 4, Arc::new(tiers)));
        let answer = post(&state, JSON, r#"{"everything": true}"#).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("tier disk") && answer.contains("read-only file system"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_is_explained() {
        let (state, _) = state();
        let content = r#"{"url": "https://shop.example/a"}"#;
        let answer = exchange_posted(&state, "/explain", JSON, content).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"reason\":\"miss\""), "{answer}");
    }

    #[tokio::test]
    async fn an_explanation_tells_what_is_wrong_with_the_routes_servers() {
        let (state, _) = state();
        let answer = exchange_posted(&state, "/explain", JSON, r#"{"url": "https://shop.example/a"}"#).await;
        assert!(answer.contains("10.0.0.1:80 behind") && answer.contains("is put aside"), "{answer}");
    }

    #[tokio::test]
    async fn a_web_page_cannot_purge() {
        let (state, _) = state();
        for (fields, status) in [
            ("Host: localhost\r\nContent-Type: text/plain\r\n", 415),
            ("Host: rebound.example\r\nContent-Type: application/json\r\n", 403),
        ] {
            let answer = post(&state, fields, r#"{"everything": true}"#).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }

    /// A page that is rebound to this machine read metrics, commands and their output.
    #[tokio::test]
    async fn what_is_the_operators_is_told_under_known_names_alone() {
        let (state, reasons) =
            state_with_hosts(Memory::new(1 << 20, 4, Arc::default()), "[\"Edge.Internal\"]");
        reasons.lock().unwrap().push("no instance of command origin is ready".to_owned());
        let ask = async |path: &str, host: &str| {
            let mut stream = open(&state);
            let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        for known in
            ["127.0.0.1:9900", "[::1]:9900", "10.1.2.3", "localhost", "LOCALHOST:1", "edge.internal."]
        {
            assert!(ask("/metrics", known).await.starts_with("HTTP/1.1 200 "), "{known}");
        }
        for unknown in
            ["rebound.example", "127.0.0.1.nip.io", "localhost.evil.test", "a b", "localhost\r\nHost: a"]
        {
            for path in ["/metrics", "/commands", "/", "/explain"] {
                assert!(ask(path, unknown).await.starts_with("HTTP/1.1 403 "), "{unknown}{path}");
            }
            assert!(ask("/livez", unknown).await.starts_with("HTTP/1.1 200 "));
            let ready = ask("/readyz", unknown).await;
            assert!(ready.starts_with("HTTP/1.1 503 ") && !ready.contains("origin"), "{ready}");
        }
    }

    #[tokio::test]
    async fn with_a_token_nothing_else_counts() {
        let (plain, _) = state();
        let token = Arc::new(TokenInForce::default());
        token.set(Some("secret".into()));
        let cache = Cache { token, ..plain.0.cache.clone().unwrap() };
        let state =
            Service::new(Arc::new(Metrics::new()), Readiness::default, Some(cache), Arc::default(), None);
        assert!(post(&state, JSON, r#"{"everything": true}"#).await.starts_with("HTTP/1.1 401 "));
        let fields = format!("{JSON}Authorization: Bearer secret\r\n");
        assert!(post(&state, &fields, r#"{"everything": true}"#).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn a_reload_is_asked_of_whoever_owns_the_settings_by_those_who_may() {
        let (plain, _) = state();
        let (reloads, mut asked) = tokio::sync::mpsc::channel::<reload::ReloadRequest>(1);
        let cache = plain.0.cache.clone();
        let state =
            Service::new(Arc::new(Metrics::new()), Readiness::default, cache, Arc::default(), Some(reloads));
        let plain_text = "Host: localhost\r\nContent-Type: text/plain\r\n";
        let answer = exchange_posted(&state, "/reload", plain_text, "{}").await;
        assert!(answer.starts_with("HTTP/1.1 415 ") && asked.try_recv().is_err(), "{answer}");

        let owner = async {
            asked.recv().await.unwrap().send(Err("edge.toml:1:1: no".to_owned())).unwrap();
            drop(asked);
        };
        let (answer, ()) = tokio::join!(exchange_posted(&state, "/reload", JSON, "{}"), owner);
        assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("edge.toml:1:1: no"), "{answer}");
        let answer = exchange_posted(&state, "/reload", JSON, "{}").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("stops"), "{answer}");
    }

    #[tokio::test]
    async fn a_query_does_not_hide_a_resource() {
        assert!(exchange(open(&state().0), "GET /livez?verbose").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn head_has_the_head_of_get() {
        let answer = exchange(open(&state().0), "HEAD /livez").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("content-length: 3"), "{answer}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_404_and_what_cannot_be_done_405() {
        let (state, _) = state();
        let answer = exchange(open(&state), "GET /").await;
        assert!(
            answer.starts_with("HTTP/1.1 404 ") && answer.contains("application/problem+json"),
            "{answer}"
        );
        let answer = exchange(open(&state), "DELETE /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_to_its_end_closes_the_connection() {
        let mut client = open(&state().0);
        client.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_is_closed() {
        let mut client = open(&state().0);
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    async fn listening() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let socket = AdminSocket::Network(socket);
        let stop = CancellationToken::new();
        let serving = serve(socket, state().0, stop.clone());
        (address, stop, tokio::spawn(async { serving.await.finish().await }))
    }

    #[tokio::test]
    async fn connections_are_bounded_and_the_next_gets_a_place_that_is_freed() {
        let (address, stop, server) = listening().await;
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, *b"HTTP/1.1 200");
            open.push(stream);
        }
        let next = tokio::spawn(exchange(TcpStream::connect(address).await.unwrap(), "GET /livez"));
        // The request goes over a connection that has a place: once it is answered, the newcomer could have been
        // answered too.
        open[0].write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        open[0].read_exact(&mut [0; 64]).await.unwrap();
        assert!(!next.is_finished());
        open.pop();
        assert!(next.await.unwrap().starts_with("HTTP/1.1 200 "));
        drop(open);
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_ends_the_service_and_its_idle_connections() {
        let (address, stop, server) = listening().await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        idle.read_exact(&mut [0; 12]).await.unwrap();
        stop.cancel();
        server.await.unwrap();
        idle.read_to_end(&mut Vec::new()).await.unwrap();
        TcpStream::connect(address).await.unwrap_err();
    }
}
