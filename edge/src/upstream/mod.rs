//! Where misses go: pools of servers, one connection pool a server.
//!
//! [`outbound`] writes the request's head; [`choose`] picks a server by what [`health`] remembers of each and `check` has
//! seen; [`pool`] keeps its connections; [`connect`] dials, [`introduction`] says for whom, [`names`] says what names stand for, [`tls`] shakes hands; [`retry`]
//! says what may be tried again elsewhere; [`supervise`] runs the programs that are servers themselves. [`Upstream::send`] is
//! the whole of it for a caller.

pub mod address;
mod check;
pub mod choose;
pub mod connect;
pub mod connector;
pub mod files;
pub mod health;
pub mod hedge;
pub mod http1;
pub mod idle;
pub mod introduction;
pub mod names;
pub mod outbound;
pub mod overload;
pub mod places;
pub mod pool;
pub mod request_body;
pub mod response_body;
pub mod retry;
pub mod savings;
mod sender;
pub mod supervise;
pub mod tls;
pub mod traffic;

use std::{
    collections::BTreeMap,
    error::Error as _,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use cache_policy::Moment;
use http::{HeaderMap, HeaderValue, Request};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

pub use http1::SwitchedStream;
pub use request_body::RequestBody;
pub use response_body::{ResponseBody, UpstreamResponse};

use crate::{
    clock::Clock,
    message::{
        affinity::{Affinity, number_of},
        failure::{AtFault, Failure},
        number::number,
        patience::REQUEST_DEADLINE,
        target::Scheme,
    },
    observe::metrics::{Metrics, UpstreamMetrics},
    settings::{self, Balance, HashKey, Location, OverloadControl, Server},
};
use address::{Address, Endpoint};
use choose::{Chance, Draw, Standing};
use connect::Dial;
use health::{Blame, Health, Repeat, Trial};
use hedge::{Latencies, MOST_HEDGES};
use overload::Overload;
use pool::{Pool, Unsent};
use request_body::Errand;
use retry::{Again, Budget};
use savings::Savings;
use tls::{ClientTls, TlsByUpstream};
use traffic::Traffic;

/// Where the ready instances of a command listen, asked anew for each request.
pub trait Commands: Send + Sync + 'static {
    /// Addresses of the ready instances; empty when none is.
    fn ready(&self, command: &str) -> Arc<[Address]>;
}

/// By what upstreams reach their servers.
#[derive(Clone)]
pub struct Reach {
    pub dial: Arc<dyn Dial>,
    pub commands: Arc<dyn Commands>,
    /// Read for the present settings.
    pub tls: TlsByUpstream,
    pub clock: Clock,
}

/// All upstreams by name. A reload keeps those that have not changed, with their connections; of others what is remembered of
/// the servers that stay.
pub struct Upstreams {
    by_name: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// The requests of these, and of those before a reload.
    traffic: Arc<Traffic>,
}

impl Upstreams {
    /// The upstreams of new settings; those that are equal to one of `previous` are taken over. Their checks run on the runtime
    /// that this is called on.
    pub fn new(
        wanted: &BTreeMap<Arc<str>, Arc<settings::UpstreamSettings>>,
        previous: Option<&Self>,
        metrics: &Metrics,
        reach: &Reach,
    ) -> Self {
        let traffic = previous.map(|previous| Arc::clone(&previous.traffic)).unwrap_or_default();
        let by_name = wanted.iter().map(|(name, settings)| {
            let old = previous.and_then(|previous| previous.by_name.get(name));
            let tls = reach.tls.get(name);
            let kept = old.filter(|old| *old.settings == **settings && old.tls.as_ref() == tls);
            let upstream = kept
                .cloned()
                .unwrap_or_else(|| Upstream::new(settings, old, metrics.for_upstream(name), reach, &traffic));
            (Arc::clone(name), upstream)
        });
        let by_name = by_name.collect();
        let gone = previous.iter().flat_map(|previous| &previous.by_name);
        for (_, upstream) in gone.filter(|(name, _)| !wanted.contains_key(*name)) {
            upstream.members().list.iter().for_each(|member| member.pool.health().forget());
        }
        Self { by_name, traffic }
    }

    /// The requests under way, whichever settings sent them: the same after a reload.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The upstream of this name; settings have been checked to name only upstreams that exist.
    pub fn get(&self, name: &str) -> &Arc<Upstream> {
        self.by_name.get(name).expect("routes name only upstreams of the same settings")
    }

    /// Closes idle connections that have been kept long enough, and forgets servers that are gone.
    pub fn sweep(&self, now: Moment) {
        for upstream in self.by_name.values() {
            upstream.sweep(now);
        }
    }
}

/// One pool of servers.
pub struct Upstream {
    settings: Arc<settings::UpstreamSettings>,
    dial: Arc<dyn Dial>,
    commands: Arc<dyn Commands>,
    tls: Option<Arc<ClientTls>>,
    members: ArcSwap<ServerList>,
    /// Taken to change the members.
    changing: Mutex<()>,
    /// Another has taken over what is remembered of the servers.
    replaced: AtomicBool,
    clock: Clock,
    chance: Chance,
    budget: Budget,
    overload: Overload,
    latencies: Latencies,
    /// Requests that may be asked twice.
    hedges: Savings,
    metrics: Arc<UpstreamMetrics>,
    traffic: Arc<Traffic>,
    /// Looks at the servers, until this is dropped.
    check: OnceLock<AbortOnDropHandle<()>>,
}

/// The servers as of now.
#[derive(Default)]
struct ServerList {
    list: Vec<Member>,
    /// Servers that went a short while ago, and when: what is remembered of them counts if they come back.
    gone: Vec<(Arc<Pool>, Moment)>,
    /// What the servers that come and go were made of.
    sources: Vec<ServerSource>,
}

/// One server of an upstream.
struct Member {
    pool: Arc<Pool>,
    weight: u64,
    backup: bool,
}

/// The server that a request is asked of now, for whoever asks another one beside it.
#[derive(Debug, Default)]
struct AskedServer(AtomicU64);

impl AskedServer {
    fn now(&self, server: u64) {
        self.0.store(server, Ordering::Relaxed);
    }

    fn is(&self, server: u64) -> bool {
        self.0.load(Ordering::Relaxed) == server
    }
}

/// Where servers come from that the settings do not list one by one; compared by identity.
enum ServerSource {
    Instances(Arc<[Address]>),
    Addresses(Option<Arc<[IpAddr]>>),
}

impl ServerSource {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Instances(one), Self::Instances(other)) => Arc::ptr_eq(one, other),
            (Self::Addresses(Some(one)), Self::Addresses(Some(other))) => Arc::ptr_eq(one, other),
            (Self::Addresses(None), Self::Addresses(None)) => true,
            _ => false,
        }
    }
}

impl Upstream {
    /// Takes over from `old` what is remembered of the servers that stay.
    fn new(
        settings: &Arc<settings::UpstreamSettings>,
        old: Option<&Arc<Self>>,
        metrics: Arc<UpstreamMetrics>,
        reach: &Reach,
        traffic: &Arc<Traffic>,
    ) -> Arc<Self> {
        let upstream = Arc::new(Self {
            settings: Arc::clone(settings),
            dial: Arc::clone(&reach.dial),
            commands: Arc::clone(&reach.commands),
            tls: reach.tls.get(&settings.name).cloned(),
            members: ArcSwap::from_pointee(ServerList::default()),
            changing: Mutex::default(),
            replaced: AtomicBool::new(false),
            clock: reach.clock.clone(),
            chance: Chance::default(),
            budget: Budget::default(),
            overload: Overload::default(),
            latencies: Latencies::default(),
            hedges: Savings::none(MOST_HEDGES),
            metrics,
            traffic: Arc::clone(traffic),
            check: OnceLock::new(),
        });
        let known = old.map(|old| {
            old.replaced.store(true, Ordering::Relaxed);
            old.members()
        });
        let known = known.iter().flat_map(|members| {
            members.list.iter().map(|member| &member.pool).chain(members.gone.iter().map(|(pool, _)| pool))
        });
        upstream.renew(&known.cloned().collect::<Vec<_>>());
        if settings.check.is_none() {
            upstream.members().list.iter().for_each(|member| member.pool.health().unwatched());
        }
        if let Some(check) = &settings.check {
            let (this, check) = (Arc::downgrade(&upstream), Arc::new(check.clone()));
            let task = tokio::spawn(check::watch(this, check, reach.clock.clone()));
            let _ = upstream.check.set(AbortOnDropHandle::new(task));
        }
        upstream
    }

    /// Sends a request to one of the servers and waits for the response's head.
    ///
    /// A request that was never sent is tried on another server or connection; one that a server may have seen is
    /// repeated only if its method is idempotent and it has no content: on a connection in place of one that had been idle
    /// (RFC 9112 §9.3.1), or on another server within a budget ([`retry`]).
    ///
    /// # Errors
    /// [`Failure`]. Dropping the future closes the connection in use.
    pub async fn send(
        &self,
        request: Request<RequestBody>,
        affinity: Affinity,
        clock: &Clock,
    ) -> Result<UpstreamResponse, Failure> {
        let (asked, sent) = (AskedServer::default(), clock.now());
        let answer = self.bounded(request, affinity, &asked, clock).await;
        self.count(&answer, sent, clock);
        answer
    }

    /// As [`send`](Self::send), for a GET of the cache: asked of a second server too when the first is later than 95 of 100
    /// answers are, where the settings permit it. The first good answer counts, and the other connection is closed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_hedged(
        &self,
        request: Request<RequestBody>,
        affinity: Affinity,
        clock: &Clock,
    ) -> Result<UpstreamResponse, Failure> {
        let patience = match self.settings.hedge {
            0 => None,
            percent => {
                self.hedges.earn(percent);
                self.latencies.most()
            }
        };
        // The copy is made only where it may be needed.
        let hedged = patience.and_then(|patience| {
            Some((patience, Again::of(&request).filter(|again| again.is_safe() && again.is_empty())?))
        });
        let Some((patience, again)) = hedged else {
            return self.send(request, affinity, clock).await;
        };
        let sent = clock.now();
        let second = (retry::copy_of(&request), &again);
        let answer = Box::pin(self.hedged(request, second, (affinity, patience), clock)).await;
        self.count(&answer, sent, clock);
        answer
    }

    async fn hedged(
        &self,
        request: Request<RequestBody>,
        (head, again): (Request<()>, &Again),
        (affinity, patience): (Affinity, Duration),
        clock: &Clock,
    ) -> Result<UpstreamResponse, Failure> {
        let asked = AskedServer::default();
        let mut first = pin!(self.bounded(request, affinity, &asked, clock));
        match tokio::time::timeout(patience, first.as_mut()).await {
            Ok(answer) => return answer,
            Err(_) if self.members().list.len() < 2 || !self.hedges.spend() => return first.await,
            Err(_) => self.metrics.hedged(),
        }
        // Bound to no server: that it is another one is what this is for.
        let Some(body) = again.body().await else { return first.await };
        let request = head.map(|()| body);
        let mut second = pin!(self.bounded(request, Affinity::None, &asked, clock));
        tokio::select! {
            answer = first.as_mut() => match answer {
                Ok(answer) => Ok(answer),
                Err(_) => second.await,
            },
            answer = second.as_mut() => match answer {
                Ok(answer) => Ok(answer),
                Err(_) => first.await,
            },
        }
    }

    fn count(&self, answer: &Result<UpstreamResponse, Failure>, sent: Moment, clock: &Clock) {
        match answer {
            Ok(_) => {
                let took = clock.now().since(sent);
                self.metrics.answered(took);
                if self.settings.hedge > 0 {
                    self.latencies.add(took);
                }
            }
            Err(failure) => self.metrics.failed(failure.phase(), failure.detail()),
        }
    }

    /// Tries the servers, where the upstream bears another request.
    async fn bounded(
        &self,
        request: Request<RequestBody>,
        affinity: Affinity,
        asked: &AskedServer,
        clock: &Clock,
    ) -> Result<UpstreamResponse, Failure> {
        if self.settings.overload == OverloadControl::Off {
            return self.try_servers(request, affinity, asked, clock).await;
        }
        let under_way = self.overload.enter().ok_or(Failure::Overloaded)?;
        let sent = clock.now();
        let answer = self.try_servers(request, affinity, asked, clock).await;
        if answer.is_ok() {
            let most = self.settings.connections.saturating_mul(self.members().list.len());
            under_way.answered(clock.now().since(sent), most);
        }
        answer
    }

    /// What the operator has set for it.
    pub fn settings(&self) -> &Arc<settings::UpstreamSettings> {
        &self.settings
    }

    /// The cookie that keeps a client at the server of this answer, where the settings ask for one and the client has not got
    /// it already.
    pub fn sticky_cookie(
        &self,
        answer: &UpstreamResponse,
        affinity: Affinity,
        scheme: Scheme,
    ) -> Option<HeaderValue> {
        let Balance::Sticky(name) = &self.settings.balance else { return None };
        let id = answer.body().server();
        if affinity == Affinity::Server(id) {
            return None;
        }
        let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
        HeaderValue::try_from(format!("{name}={id:x}; Path=/; HttpOnly; SameSite=Lax{secure}")).ok()
    }

    /// Counts the outcome of a body that broke off, in one word.
    pub fn continued(&self, outcome: &'static str) {
        self.metrics.continued(outcome);
    }

    /// What is wrong with its servers now, in words.
    pub fn troubles(&self, now: Moment) -> Vec<String> {
        let members = self.members();
        let trouble = |member: &Member| member.pool.health().trouble(now);
        let mut troubles: Vec<_> = members.list.iter().filter_map(trouble).collect();
        troubles.sort();
        troubles
    }

    async fn try_servers(
        &self,
        request: Request<RequestBody>,
        affinity: Affinity,
        asked: &AskedServer,
        clock: &Clock,
    ) -> Result<UpstreamResponse, Failure> {
        let members = self.members_found().await?;
        let servers = &members.list;
        let several = servers.len() > 1;
        if several {
            self.budget.earn(self.settings.retries);
        }
        let again = Again::of(&request);
        let progress = request.body().progress();
        let is_safe = again.as_ref().is_some_and(Again::is_safe);
        let repeat = if several && is_safe { Repeat::Safe } else { Repeat::Never };
        let mut tried: choose::Few<bool> = servers.iter().map(|server| asked.is(server.pool.id())).collect();
        if tried.iter().all(|tried| *tried) {
            tried.fill(false);
        }
        let mut outcome = Err(Failure::NoServer);
        let mut retries = Vec::new();
        let (head, body) = request.into_parts();
        let (mut head, mut next) = (Request::from_parts(head, ()), Some(body));
        while let Some(body) = next {
            let patience = progress.errand().patience(clock.now());
            if self.settings.request_fields.of(&REQUEST_DEADLINE).is_none() {
                head.headers_mut().insert(REQUEST_DEADLINE, number(patience));
            }
            let kind = (head.headers(), repeat);
            let draw = self.draw(&head, affinity);
            let Some((index, trial)) = choose(servers, &tried, kind, draw, clock.now()) else { break };
            let server = &*servers[index].pool;
            tried[index] = true;
            progress.chose(server.health().server());
            asked.now(server.id());
            let began = clock.now();
            // Boxed: an async function moves the future of each that it calls into its own, and what waits here would be
            // moved through all of those above.
            let sending = Box::pin(server.send((&mut head, body), again.as_ref(), self.dial.as_ref(), clock));
            let sent = sending.await;
            self.judge(server, &sent, began, clock.now());
            drop(trial);
            let (failure, unsent) = match sent {
                Ok(answer) if !self.settings.fails(answer.status()) => return Ok(answer),
                Ok(answer) => {
                    outcome = Ok(answer);
                    (None, None)
                }
                Err(Unsent { failure, body }) => (Some(failure), body.map(|body| *body)),
            };
            let may_repeat = is_safe && failure.as_ref().is_none_or(Failure::may_be_repeated)
                || matches!(failure, Some(Failure::Withdrawn));
            next = match (unsent, &again) {
                (None, Some(again))
                    if may_repeat && tried.contains(&false) && retries.len() < retry::MOST =>
                {
                    match self.budget.spend(self.settings.retries) {
                        Some(retrying) => {
                            self.metrics.retried();
                            retries.push(retrying);
                            again.body().await
                        }
                        None => None,
                    }
                }
                (unsent, _) => unsent.filter(|_| tried.contains(&false)),
            };
            if let Some(failure) = failure {
                self.tell((server, progress.errand()), &failure, next.as_ref());
                // An error that a server answered with is more than no answer.
                outcome = outcome.or(Err(failure));
            }
        }
        if let Err(failure @ Failure::NoServer) = &outcome {
            let (upstream, phase) = (&*self.settings.name, failure.phase());
            let request_id = progress.errand().request_id();
            tracing::warn!(upstream, phase, request_id, "{failure}");
        }
        outcome
    }

    /// What decides between servers that are as good.
    fn draw(&self, request: &Request<()>, affinity: Affinity) -> Draw {
        match (&self.settings.balance, affinity) {
            (Balance::RoundRobin, _) => Draw::Turn(self.chance.turn()),
            (Balance::Hash(HashKey::Path), _) => Draw::Hash(number_of(request.uri().to_string().as_bytes())),
            (Balance::Hash(HashKey::Header(name)), _) if request.headers().contains_key(name) => {
                let lines = request.headers().get_all(name).iter();
                let octets: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
                Draw::Hash(number_of(&octets.join(&b"\n"[..])))
            }
            (Balance::Hash(_), Affinity::Hash(hash)) => Draw::Hash(hash),
            (Balance::Sticky(_), Affinity::Server(id)) => Draw::Stick { id, random: self.chance.next() },
            _ => Draw::TwoChoices(self.chance.next()),
        }
    }

    /// Remembers how a server dealt with a request that was sent at `began`.
    fn judge(&self, server: &Pool, sent: &Result<UpstreamResponse, Unsent>, began: Moment, now: Moment) {
        let (health, rules) = (server.health(), server.rules());
        match sent {
            Ok(answer) if self.settings.fails(answer.status()) => {
                health.failed(Blame::Answer("failing-status"), rules, now);
            }
            Ok(answer) => {
                health.answered(began, rules, now);
                if answer.status().is_server_error() {
                    health.erred(now);
                }
            }
            Err(Unsent { failure, .. }) => match failure.fault() {
                AtFault::NotTheServers => {}
                AtFault::Unreachable => health.failed(Blame::Unreachable(failure.detail()), rules, now),
                AtFault::BadAnswer => health.failed(Blame::Answer(failure.detail()), rules, now),
            },
        }
    }

    /// Tells the operator of a failure, and of the cause that is not for clients.
    fn tell(&self, (server, errand): (&Pool, &Errand), failure: &Failure, next: Option<&RequestBody>) {
        let (upstream, server) = (&*self.settings.name, &**server.health().server());
        let (phase, reason) = (failure.phase(), failure.detail());
        let request_id = errand.request_id();
        let cause = failure.source().map(ToString::to_string).unwrap_or_default();
        match next {
            Some(_) => {
                tracing::info!(
                    upstream,
                    server,
                    phase,
                    reason,
                    cause,
                    request_id,
                    "{failure}; another server is tried"
                );
            }
            None => tracing::warn!(upstream, server, phase, reason, cause, request_id, "{failure}"),
        }
    }

    /// Whether a reload has put another in its place.
    fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }

    /// The present servers; waits for the first look-up of names that stand for them.
    ///
    /// # Errors
    /// When there is none because a name was never found.
    async fn members_found(&self) -> Result<Arc<ServerList>, Failure> {
        let members = self.members();
        if !members.list.is_empty() {
            return Ok(members);
        }
        let mut failed = None;
        for host in self.settings.servers.iter().filter_map(|server| match &server.location {
            Location::EachAddress { host, .. } => Some(host),
            _ => None,
        }) {
            let found = tokio::time::timeout(self.settings.connect_timeout, self.dial.look_up(host)).await;
            match found.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) => return Ok(self.members()),
                Err(error) => failed = Some(Failure::Resolve(Arc::new(error))),
            }
        }
        failed.map_or_else(|| Ok(self.members()), Err)
    }

    /// The present servers.
    fn members(&self) -> Arc<ServerList> {
        let members = self.members.load_full();
        let mut sources = members.sources.iter();
        let is_current = self.sources().all(|source| sources.next().is_some_and(|known| known.is(&source)));
        if is_current {
            return members;
        }
        self.renew(&[])
    }

    fn sources(&self) -> impl Iterator<Item = ServerSource> {
        self.settings.servers.iter().filter_map(|server| self.source(server))
    }

    fn source(&self, server: &Server) -> Option<ServerSource> {
        match &server.location {
            Location::Network { .. } | Location::Unix(_) | Location::Files(_) => None,
            Location::Command(name) => Some(ServerSource::Instances(self.commands.ready(name))),
            Location::EachAddress { host, .. } => Some(ServerSource::Addresses(self.dial.addresses(host))),
        }
    }

    /// Makes the members anew, with the pools of those that stay or come back, and what is remembered of those of `known`.
    /// Those that are gone are shown no more.
    fn renew(&self, known: &[Arc<Pool>]) -> Arc<ServerList> {
        let _changing = self.changing.lock();
        let (old, now) = (self.members.load_full(), self.clock.now());
        let mut endpoints_of = Vec::new();
        let mut members = ServerList::default();
        for server in &self.settings.servers {
            let source = self.source(server);
            endpoints_of
                .extend(endpoints(server, source.as_ref()).into_iter().map(|endpoint| (server, endpoint)));
            members.sources.extend(source);
        }
        let stays = |pool: &Arc<Pool>| endpoints_of.iter().any(|(_, endpoint)| endpoint == pool.endpoint());
        let present = old.list.iter().map(|member| &member.pool).chain(known);
        let mut gone: Vec<_> =
            present.filter(|pool| !stays(pool)).map(|pool| (Arc::clone(pool), now)).collect();
        if !self.is_replaced() {
            // Before others of the same name are shown.
            gone.iter().for_each(|(pool, _)| pool.health().forget());
        }
        let lately = |(pool, since): &&(Arc<Pool>, Moment)| !stays(pool) && now < *since + FORGOTTEN;
        gone.extend(old.gone.iter().filter(lately).cloned());
        gone.truncate(MOST_GONE);
        for (server, endpoint) in endpoints_of.iter().cloned() {
            let pool = self.pool(endpoint, &old, known);
            let weight = u64::from(server.weight.get());
            members.list.push(Member { pool, weight, backup: server.backup });
        }
        members.gone = gone;
        let members = Arc::new(members);
        self.members.store(Arc::clone(&members));
        members
    }

    fn pool(&self, endpoint: Endpoint, old: &ServerList, known: &[Arc<Pool>]) -> Arc<Pool> {
        let is_it = |pool: &&Arc<Pool>| *pool.endpoint() == endpoint;
        if let Some(pool) = old.list.iter().map(|member| &member.pool).find(is_it) {
            return Arc::clone(pool);
        }
        if let Some(pool) = old.gone.iter().map(|(pool, _)| pool).find(is_it) {
            pool.health().remember();
            return Arc::clone(pool);
        }
        let health = match known.iter().find(is_it) {
            Some(pool) => {
                pool.health().remember();
                Arc::clone(pool.health())
            }
            None => Health::new(&self.settings.name, endpoint.to_string().into(), &self.metrics),
        };
        let pool = Pool::new(endpoint, &self.settings, self.tls.as_ref(), health);
        pool.count_in(&self.traffic);
        pool
    }

    fn sweep(&self, now: Moment) {
        let members = self.members();
        members.list.iter().for_each(|member| member.pool.sweep(now));
        members.gone.iter().for_each(|(pool, _)| pool.sweep(now));
    }
}

/// How long a server that has gone is remembered.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// So many are.
const MOST_GONE: usize = 64;

/// The servers that one line of the settings stands for now.
fn endpoints(server: &Server, source: Option<&ServerSource>) -> Vec<Endpoint> {
    match (&server.location, source) {
        (Location::Network { protocol, host, port }, _) => {
            vec![Endpoint { protocol: *protocol, address: Address::new(host, *port), host: Arc::clone(host) }]
        }
        (Location::Unix(path), _) => vec![Endpoint::plain(Address::Unix(path.as_path().into()))],
        (Location::Files(folder), _) => vec![Endpoint::plain(Address::Files(Arc::clone(folder)))],
        (Location::Command(_), Some(ServerSource::Instances(ready))) => {
            ready.iter().cloned().map(Endpoint::plain).collect()
        }
        (Location::EachAddress { protocol, host, port }, Some(ServerSource::Addresses(Some(addresses)))) => {
            let endpoint = |address: &IpAddr| Endpoint {
                protocol: *protocol,
                address: Address::Socket(SocketAddr::new(*address, *port)),
                host: Arc::clone(host),
            };
            addresses.iter().map(endpoint).collect()
        }
        _ => Vec::new(),
    }
}

/// The server for a request, and the trial that it is, if the server has to prove itself.
fn choose(
    servers: &[Member],
    tried: &[bool],
    (headers, repeat): (&HeaderMap, Repeat),
    draw: Draw,
    now: Moment,
) -> Option<(usize, Option<Trial>)> {
    let facts = |(member, tried): (&Member, &bool)| {
        let facts = member.pool.facts(headers, repeat, now);
        let weight = facts.weight * member.weight;
        choose::ServerFacts { tried: *tried, weight, backup: member.backup, ..facts }
    };
    let mut candidates: choose::Few<_> = servers.iter().zip(tried).map(facts).collect();
    loop {
        let index = choose::choose(&candidates, draw)?;
        if candidates[index].standing != Standing::Due {
            return Some((index, None));
        }
        if let Some(trial) = servers[index].pool.health().begin_trial(now) {
            return Some((index, Some(trial)));
        }
        // Another request has just begun it.
        candidates[index].standing = Standing::Aside;
    }
}
