//! THE PIPELINE: one request from its head to its answer, read top to bottom.
//!
//! ```text
//! ask --- look_up --- the cache answers -------------------------------------------------> serve
//!              |----- upstream, for the cache --- share: lead a fetch, or follow one ----> serve, or look up again
//!              '----- upstream, for this client alone ----------------------------------> pass
//! ```
//!
//! A stage is a function that takes what it needs and returns a named value; `?` leaves with a [`Refusal`]. The result
//! is an [`Answer`]; only [`handle`] writes the record and finishes the fields. Only this file knows the order of the
//! stages.

mod admission;
mod answer;
mod beside_get;
pub mod invalidate;
mod pass;
pub mod purge;
mod serve;
mod share;
mod slices;
pub mod tunnel;

use std::{
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cache_policy::{Decision, Moment, Plan, Reason, RequestFacts, UpstreamError, list_elements};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header, request};
use http_body::Body as _;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use self::answer::Answer;
use self::{
    admission::Admission,
    purge::{dialect::Dialect, plugin},
    share::Learnt,
    slices::SoughtSlice,
    tunnel::Upgrade,
};
use crate::{
    cache::{
        Key, Resource, Stored,
        select::{Candidate, Selection},
    },
    fetch::want::{self, Want},
    message::{
        affinity::Affinity,
        certified::Acquaintance,
        client_shares::ClientShares,
        content::Content,
        hop_by_hop::{strip_hop_by_hop, strip_nominated},
        interim::{self, Interim, Relay, RelayedHeads},
        request_id::RequestId,
        target::{Scheme, Target},
    },
    observe::{
        record::{Record, Recorded, RequestPlaces},
        verdict::Verdict,
    },
    request::{
        affinity,
        as_sent::AsSent,
        by_proxy,
        canary::{self, RouteSide},
        client::{self, Client},
        inbound::{self, Forwards},
        limit::{self, CountedRequest, Limiter, Owing, RateLimited, WithinLimit},
        refusal::Refusal,
        route,
    },
    response::{
        body::{Body, Timed},
        cross_origin,
        fields::{self, Handling},
        representation, stated,
    },
    settings::{Route, SecurityFields, Settings},
    state::{Edge, RouteState, State},
    upstream::{
        Upstream, UpstreamResponse,
        introduction::{Ends, introduction},
        request_body::{AskedContent, Errand, Progress, ReachedPhase},
    },
};

/// The client's end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'c> {
    pub address: IpAddr,
    /// 0 where it is not known.
    pub port: u16,
    /// The address of ours, or of the load balancer that introduced it, to which it has connected.
    pub reached: SocketAddr,
    /// Whether the connection is encrypted.
    pub scheme: Scheme,
    /// What is known by certificates.
    pub acquaintance: Option<&'c Acquaintance>,
}

/// Answers one request. Dropped when the client leaves: a fetch for the cache goes on without it.
///
/// `interim` takes interim responses, where the connection supports them.
pub async fn handle(
    edge: &Arc<Edge>,
    peer: Peer<'_>,
    interim: Option<&Interim>,
    mut request: Request<Content>,
) -> Response<Recorded<Body>> {
    let state = edge.state.load();
    if let Some(proof) = edge.challenges.get().and_then(|challenges| challenges.at_path(request.uri().path()))
    {
        return prove(edge, peer, &request.into_parts().0, proof);
    }
    let upgrade = Upgrade::asked(&mut request);
    let (mut head, content) = request.into_parts();
    inbound::join_cookies(&mut head.headers);
    strip_nominated(&mut head.headers);
    let forwards = inbound::count_forwards(&mut head);
    let clients = &state.settings.clients;
    let id = by_proxy::request_id(peer.address, &head.headers, clients);
    let mut record = Record::begin(&head, &id, (peer.address, peer.scheme), edge.clock.now(), &edge.sink);
    if state.settings.purge.is_some() && Dialect::is_method(&head.method) {
        return Box::pin(purged(edge, &state, peer, (&head, &id), record)).await;
    }
    let (mut on, mut stated, mut owing) = (None, None, None);
    let mut found = find_route(&state, peer, &head, &mut record);
    if let Ok(of_route) = &mut found {
        let RouteState { route, gatekeeper, admits, .. } = of_route.on;
        on = Some((route, of_route.client.scheme));
        if let Some(country) = &route.key.country
            && !clients.trusts(peer.address)
        {
            // Nobody chooses where he is.
            head.headers.remove(country);
        }
        let mut let_in = admit(edge, of_route, &head).map(|rest| owing = rest);
        if let_in.is_ok()
            && let Some(cors) = &route.cors
        {
            // Browsers send no credentials with the question whether they may send a request.
            let preflight = cross_origin::preflight(cors, &head);
            stated = preflight.map(|response| Box::new(Answer::stated(response, "cors")));
        }
        if let_in.is_ok() && stated.is_none() && (gatekeeper.is_some() || admits.is_some()) {
            // Boxed: hardly any request needs the room for it.
            let asked = Box::pin(credentials(edge, of_route, &mut head, &id)).await;
            let_in = asked.map(|answer| stated = answer);
        }
        if let Err(refusal) = let_in {
            found = Err(refusal);
        }
    }
    let asked = found.and_then(|found| match stated {
        Some(answer) => Ok(Asked::Stated(answer)),
        None => ask(edge, &state.settings, (&head, &id), found, record.began()),
    });
    let answered = match asked {
        Ok(Asked::Stated(answer)) => Ok(*answer),
        Ok(Asked::Forward(exchange)) if forwards == Forwards::End => Ok(exchange.limited(Answer::options())),
        Ok(Asked::Forward(exchange))
            if !exchange.route.also.is_empty()
                && let Some(kind) = exchange.is_read_beside_get(&content, upgrade.as_ref()) =>
        {
            Box::pin(beside_get::answer(exchange, content, kind, &mut record, interim)).await
        }
        Ok(Asked::Forward(exchange))
            if exchange.route.slice.is_some()
                && let Some(slices) = exchange.slices(&content, upgrade.as_ref()) =>
        {
            Box::pin(slices::answer(exchange, &state, slices, &mut record, interim)).await
        }
        Ok(Asked::Forward(exchange)) => match exchange.look_up() {
            Ok(LookUp::Answered(answer)) => Ok(exchange.limited(answer)),
            Err(refusal) => Err(refusal),
            Ok(looked) => {
                let upgrade = upgrade.filter(|upgrade| upgrade.is_to(&exchange.route.upgrades));
                // A client that is slow with its content takes nothing that others need.
                let content = match exchange.is_received_first(&content, upgrade.as_ref()) {
                    true => Box::pin(exchange.receive(content)).await,
                    false => Ok(content),
                };
                match content {
                    Ok(content) => {
                        let client = ClientSide { content, upgrade };
                        // Boxed, so that a hit, which awaits nothing, is not moved about with the room that a fetch needs.
                        Box::pin(exchange.proceed(looked, client, &mut record, interim)).await
                    }
                    Err(refusal) => Err(refusal),
                }
            }
        },
        Err(refusal) => Err(refusal),
    };
    if let Some(phase) = answered.as_ref().err().and_then(Refusal::phase) {
        record.failed_in(phase);
    }
    let answer =
        answered.unwrap_or_else(|refusal| Answer::refused(&refusal, &head, &id, &state.settings.error_pages));
    record.answered(answer.status.verdict, answer.status.word(), answer.upstream);
    let mut response = answer.finish(&id, clients.request_id_in_answers);
    if let Some(owing) = &owing
        && let Some((limiter, within)) = owing.charge(response.status())
    {
        fields::limit(response.headers_mut(), limiter, &Ok(within));
    }
    if let Some((route, scheme)) = on {
        let headers = response.headers_mut();
        if route.security == SecurityFields::Strict {
            fields::guard(headers, scheme);
        }
        if let Some(cors) = &route.cors {
            cross_origin::share(headers, cors, head.headers.get(header::ORIGIN));
        }
        fields::of_route(headers, &route.response_fields);
    }
    record.travel(response)
}

/// Answers a request whose method means a purge, which is on no route.
async fn purged(
    edge: &Arc<Edge>,
    state: &State,
    peer: Peer<'_>,
    (head, id): (&request::Parts, &RequestId),
    mut record: Record,
) -> Response<Recorded<Body>> {
    let (settings, own) = (&state.settings, Client { address: peer.address, scheme: peer.scheme });
    let client = client::identify(own, &head.headers, &settings.clients);
    record.client(client.address, client.scheme);
    let answer = match plugin::purge(edge, state, &client, head, id).await {
        Ok(response) => Answer::stated(response, "purge"),
        Err(refusal) => Answer::refused(&refusal, head, id, &settings.error_pages),
    };
    record.answered(answer.status.verdict, answer.status.word(), answer.upstream);
    record.travel(answer.finish(id, settings.clients.request_id_in_answers))
}

/// Answers a certificate authority that asks whether the name is served here (RFC 8555 §8.3), whatever routes say.
fn prove(edge: &Edge, peer: Peer<'_>, head: &request::Parts, proof: Bytes) -> Response<Recorded<Body>> {
    let id = RequestId::next();
    let mut record = Record::begin(head, &id, (peer.address, peer.scheme), edge.clock.now(), &edge.sink);
    let mut response = Response::new(Body::Whole(proof));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let answer = Answer::stated(response, "acme-challenge");
    record.answered(answer.status.verdict, answer.status.word(), answer.upstream);
    record.travel(answer.finish(&id, edge.state.load().settings.clients.request_id_in_answers))
}

/// Answers a head that could not be read as a request. It is told like every other refusal.
pub fn refuse(
    edge: &Edge,
    peer: Peer<'_>,
    head: &request::Parts,
    refusal: &Refusal,
) -> Response<Recorded<Body>> {
    let id = RequestId::next();
    let mut record = Record::begin(head, &id, (peer.address, peer.scheme), edge.clock.now(), &edge.sink);
    let state = edge.state.load();
    let answer = Answer::refused(refusal, head, &id, &state.settings.error_pages);
    record.answered(answer.status.verdict, answer.status.word(), answer.upstream);
    let mut response = answer.finish(&id, state.settings.clients.request_id_in_answers);
    fields::date(response.headers_mut(), &edge.clock);
    record.travel(response)
}

/// What a request has come to, once its head is read.
#[expect(clippy::large_enum_variant, reason = "as a rule it is the large one")]
enum Asked<'a> {
    /// It is for an upstream, through the cache.
    Forward(Exchange<'a>),
    /// Its route's settings state the answer.
    Stated(Box<Answer>),
}

/// A request whose route is known.
struct OnRoute<'a> {
    target: Target,
    client: Client,
    ends: Ends,
    /// What upstreams are told of the client's certificate.
    told: &'a [(HeaderName, HeaderValue)],
    /// How long the trusted proxy that asks waits for the answer's head, where it says so.
    patience: Option<Duration>,
    on: &'a RouteState,
    limited: Option<(&'a Arc<Limiter>, WithinLimit)>,
}

/// Reads the head: target, client and route.
fn find_route<'a>(
    state: &'a State,
    peer: Peer<'a>,
    head: &request::Parts,
    record: &mut Record,
) -> Result<OnRoute<'a>, Refusal> {
    let settings = &state.settings;
    head_within(head, settings)?;
    let own = Client { address: peer.address, scheme: peer.scheme };
    let client = client::identify(own, &head.headers, &settings.clients);
    let port = if client.address == peer.address { peer.port } else { 0 };
    let ends = Ends { source: SocketAddr::new(client.address, port), destination: peer.reached };
    record.client(client.address, client.scheme);
    let mut target = inbound::read(head, client.scheme)?;
    // A proxy that may speak for clients asks for all hosts by one name.
    let shown = peer.acquaintance.and_then(|known| known.shown.as_ref());
    if shown.is_some_and(|shown| shown.is_not_for(&target.host)) && !settings.clients.trusts(peer.address) {
        return Err(Refusal::OtherCertificate);
    }
    let found = route::find(&state.routes, &mut target, head)?;
    let on = found.ok_or_else(|| route::refusal(&state.routes, &target))?;
    record.route(&on.route.name, &on.metrics);
    let patience = by_proxy::patience(peer.address, &head.headers, &settings.clients);
    let told = peer.acquaintance.map_or(&[][..], |known| &known.told);
    Ok(OnRoute { target, client, ends, told, patience, on, limited: None })
}

/// Asks whether the client may have an answer: by the operator's switch, by its address, and by how often it has asked.
/// Returns what it will count for besides.
fn admit(edge: &Edge, found: &mut OnRoute<'_>, head: &request::Parts) -> Result<Option<Owing>, Refusal> {
    if let Some(closure) = &found.on.closure {
        closure.admit(found.client.address)?;
    }
    if !found.on.route.addresses.admit(found.client.address) {
        return Err(Refusal::AddressDenied);
    }
    let limiters = &found.on.limiters;
    if limiters.is_empty() {
        return Ok(None);
    }
    let counted = CountedRequest { client: found.client, head, path: found.target.path() };
    let admitted = limit::admit(limiters, &counted, |limit| edge.metrics.would_have_limited(&limit.name));
    let owing = admitted.is_ok().then(|| Owing::of(limiters, &counted)).flatten();
    found.limited = admitted.map_err(|(limiter, exceeded)| {
        edge.metrics.limited(&limiter.limit().name);
        Refusal::TooManyRequests(Box::new(RateLimited::new(limiter, exceeded)))
    })?;
    Ok(owing)
}

/// Asks for a name and a password, and then whether an upstream admits the request, where the route does. An answer of that upstream
/// is the client's.
async fn credentials(
    edge: &Arc<Edge>,
    found: &OnRoute<'_>,
    head: &mut request::Parts,
    id: &RequestId,
) -> Result<Option<Box<Answer>>, Refusal> {
    if let Some(keeper) = &found.on.gatekeeper {
        // They are for the edge: they go no further, and answers are for all who may come in.
        let credentials = head.headers.remove(header::AUTHORIZATION);
        keeper.admit(credentials.as_ref()).await?;
    }
    match &found.on.admits {
        None => Ok(None),
        Some(_) => Ok(match admission::ask(edge, found, head, id).await? {
            Admission::Admitted => None,
            Admission::Answered(answer) => Some(answer),
        }),
    }
}

/// Makes ready for an answer.
fn ask<'a>(
    edge: &'a Arc<Edge>,
    settings: &'a Settings,
    (head, id): (&'a request::Parts, &'a RequestId),
    found: OnRoute<'a>,
    arrived: Moment,
) -> Result<Asked<'a>, Refusal> {
    let OnRoute { target, client, ends, told, patience, on, limited } = found;
    let RouteState { route, upstream, canary, places, client_places, .. } = on;
    let Some(upstream) = upstream else {
        let stated = stated::answer(&route.action, &head.method, &target, &route.paths);
        let (mut response, what) = stated.expect("what forwards has an upstream");
        if let Some((limiter, admitted)) = limited {
            fields::limit(response.headers_mut(), limiter, &Ok(admitted));
        }
        return Ok(Asked::Stated(Box::new(Answer::stated(response, what))));
    };
    let side = canary::side(route.canary.as_ref(), &head.headers, &client);
    let upstream = canary.as_ref().filter(|_| side != RouteSide::Stable).unwrap_or(upstream);
    declared_length(head, route.bounds.body)?;
    let mut facts = route::facts(head, route);
    if !told.is_empty() {
        facts = facts.with_credentials();
    }
    let sent = AsSent { head, target: &target, client: &client, told, route, upstream: upstream.settings() };
    let key = Key::of_request(&sent);
    Ok(Asked::Forward(Exchange {
        edge,
        settings,
        upstream,
        head,
        id,
        facts,
        key,
        target,
        client,
        ends,
        told,
        route,
        side,
        asked: None,
        part: None,
        limited,
        places: places.as_ref(),
        client_places: client_places.as_ref(),
        patience,
        within: None,
        arrived,
        relay: None,
        under_way: Mutex::default(),
    }))
}

/// Refuses a head with more or longer lines than the settings allow. hyper does so before it gives a head to us; h2
/// knows no bound for the number of lines.
fn head_within(head: &request::Parts, settings: &Settings) -> Result<(), Refusal> {
    let bounds = settings.bounds.of_heads();
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    // As RFC 9113 §6.5.2 counts them.
    let octets: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if head.headers.len() > bounds.fields || octets > bounds.head {
        return Err(Refusal::HeadTooLarge(bounds));
    }
    Ok(())
}

/// Refuses a body whose Content-Length is too large, before a byte of it is read (RFC 9110 §15.5.14).
fn declared_length(head: &request::Parts, bound: u64) -> Result<(), Refusal> {
    let declared =
        head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > bound) { Err(Refusal::ContentTooLarge(bound)) } else { Ok(()) }
}

/// A request that may be answered, and what is known of it. Set once, then only read.
struct Exchange<'a> {
    edge: &'a Arc<Edge>,
    settings: &'a Settings,
    upstream: &'a Arc<Upstream>,
    head: &'a request::Parts,
    id: &'a RequestId,
    facts: RequestFacts,
    key: Key,
    target: Target,
    client: Client,
    /// Of the client's connection, as far as they are known.
    ends: Ends,
    /// What upstreams are told of the client's certificate.
    told: &'a [(HeaderName, HeaderValue)],
    route: &'a Arc<Route>,
    side: RouteSide,
    /// Method and content, where `head` is that of the GET that stands for it.
    asked: Option<&'a AskedContent>,
    /// What it is a slice of, where `head` asks for one.
    part: Option<SoughtSlice<'a>>,
    /// The strictest of the route's limits.
    limited: Option<(&'a Arc<Limiter>, WithinLimit)>,
    /// Places for requests of the route that need its upstream.
    places: Option<&'a Arc<Semaphore>>,
    /// Those of its client on the route.
    client_places: Option<&'a Arc<ClientShares>>,
    /// How long the trusted proxy that asks waits for the answer's head, where it says so.
    patience: Option<Duration>,
    /// How long after its head the request's answer must have begun, once it goes upstream and where it must.
    within: Option<Duration>,
    arrived: Moment,
    /// Where an upstream's interim responses go, once one is asked and where the connection supports any.
    relay: Option<Relay>,
    /// How far the request has come that is under way to the upstream for this one.
    under_way: Mutex<Option<Arc<Progress>>>,
}

/// The client's content and upgrade. Only a request that is forwarded takes them.
struct ClientSide {
    content: Content,
    upgrade: Option<Upgrade>,
}

impl ClientSide {
    fn nothing() -> Self {
        Self { content: Content::none(), upgrade: None }
    }
}

/// The result of a look-up in the cache.
enum LookUp {
    Answered(Answer),
    /// Ask the upstream, for the cache.
    Fetch(Wanted),
    /// Ask the upstream, for this client alone.
    Pass(Reason),
}

/// A fetch for the cache.
struct Wanted {
    /// Everything stored under the key, in whichever variant.
    resource: Option<Arc<Resource>>,
    /// The stored response of the selected variant.
    stored: Option<Arc<Stored>>,
    /// Why it is fetched, and how.
    plan: Plan,
    /// The octets to fetch.
    want: Want,
    /// This edge had a lease when it looked up: what others fetch is as good as what it fetches itself.
    heard: Heard,
}

/// Whether this edge had heard of all purges when a request looked up: see [`crate::cache::standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    All,
    /// There may be some that it does not know of. A fetch that began before the request came may bring what was purged
    /// before it came.
    Perhaps,
}

/// The result of a turn of the loop below.
#[expect(clippy::large_enum_variant, reason = "as a rule it is the large one")]
enum Next {
    Answer(Answer),
    /// The fetched response does not suit this request, or there is none: what is stored now may answer, or the next
    /// fetch.
    LookAgain,
    /// Ask the upstream, for this client alone.
    Pass(Reason),
}

impl Exchange<'_> {
    /// Looks up, decides, and answers where the cache can answer at once.
    fn look_up(&self) -> Result<LookUp, Refusal> {
        if let Some(reason) = self.goes_past() {
            return Ok(LookUp::Pass(reason));
        }
        let selection = self.selection();
        let resource = self.edge.memory.look_up(&self.key);
        let candidate = selection.find(&self.edge.memory, resource.as_deref());
        let candidate = candidate.as_ref();
        Ok(match selection.decide(resource.as_deref(), candidate) {
            Decision::Serve { stale } => {
                let verdict = if stale.is_some() { Verdict::Stale } else { Verdict::Hit };
                LookUp::Answered(self.serve(found(candidate), Handling::new(verdict, stale)))
            }
            Decision::ServeAndRefresh { reason } => {
                let candidate = found(candidate);
                self.refresh(resource.as_deref(), candidate, selection.now);
                LookUp::Answered(self.serve(candidate, Handling::new(Verdict::Stale, Some(reason))))
            }
            Decision::OnlyIfCached => return Err(Refusal::OnlyIfCached),
            Decision::Pass(reason) => LookUp::Pass(reason),
            Decision::Fetch(plan) => {
                let want = |held| want::want(self.head, held, &self.facts, &self.route.rules);
                let (want, stored) = match candidate {
                    None => (want(None), None),
                    Some(Candidate::Part(part, held)) => {
                        (want(Some(held)), held.suffices().then(|| Arc::clone(part)))
                    }
                    Some(candidate) => (Want::Whole, Some(Arc::clone(candidate.stored()))),
                };
                if want::is_too_large(&want, self.settings.cache.largest_object) {
                    return Ok(LookUp::Pass(Reason::TooLarge));
                }
                let heard = if selection.is_confirmed() { Heard::All } else { Heard::Perhaps };
                LookUp::Fetch(Wanted { resource, stored, plan, want, heard })
            }
        })
    }

    /// Why the request has nothing to do with what is stored, whatever that is.
    fn goes_past(&self) -> Option<Reason> {
        route::past_the_cache(self.side, self.route, &self.head.headers)
    }

    fn selection(&self) -> Selection<'_> {
        let now = self.edge.clock.now();
        let confirmed = self.edge.memory.standing().confirmed(now);
        Selection { sent: self.as_sent(), facts: &self.facts, key: &self.key, now, confirmed }
    }

    /// This request, on its way upstream for its client alone.
    fn errand(&self) -> Errand {
        let times = &self.route.times;
        Errand {
            request_id: self.id.to_field(),
            client: self.client.own_number(&self.settings.clients),
            first_byte: self.patient(times.first_byte),
            between_bytes: times.between_bytes,
            until: self.within.map(|within| self.arrived + within),
            introduction: introduction(self.upstream.settings().proxy_protocol, Some(self.ends)),
        }
    }

    /// As [`errand`](Self::errand), for the cache: the fetch goes on when its client has given up.
    fn errand_for_all(&self) -> Errand {
        let times = &self.route.times;
        let (first_byte, between_bytes) = (times.first_byte, times.between_bytes);
        Errand { first_byte, between_bytes, until: None, ..self.errand() }
    }

    /// A time, unless who asks has less.
    fn patient(&self, time: Duration) -> Duration {
        self.patience.map_or(time, |patience| patience.min(time))
    }

    /// Places among the requests of the client and of the route that need an upstream, where they have a bound. A trusted proxy
    /// that names no client has many.
    fn take_places(&self) -> Result<RequestPlaces, Refusal> {
        let mut taken = RequestPlaces::default();
        let everywhere = self.settings.bounds.requests_per_client.map(|_| &self.edge.requests_by_client);
        if (everywhere.is_some() || self.client_places.is_some())
            && let Some(client) = self.client.own_number(&self.settings.clients)
        {
            let take = |shares: Option<&Arc<ClientShares>>| {
                let share = shares.map(|shares| shares.try_take(client));
                share.map(|share| share.ok_or(Refusal::ClientBusy)).transpose()
            };
            taken.of_client = take(everywhere)?;
            taken.of_client_on_route = take(self.client_places)?;
        }
        if let Some(places) = self.places {
            let place = Arc::clone(places).try_acquire_owned();
            taken.of_route = Some(place.map_err(|_| Refusal::RouteBusy)?);
        }
        Ok(taken)
    }

    /// A stale answer in place of a refusal for want of one from the upstream, if policy permits.
    fn stale_or(&self, refusal: Refusal) -> Result<Answer, Refusal> {
        if self.goes_past().is_some() {
            return Err(refusal);
        }
        let resource = self.edge.memory.look_up(&self.key);
        let candidate = self.selection().find(&self.edge.memory, resource.as_deref());
        let stored = candidate.as_ref().map(Candidate::stored);
        self.stale(stored, UpstreamError::Disconnected).ok_or(refusal)
    }

    /// What binds the request to a server.
    fn affinity(&self) -> Affinity {
        affinity::of(&self.upstream.settings().balance, &self.head.headers, &self.client)
    }

    /// The cookie that keeps the client at the server of an answer that is its own, where the upstream sets one.
    fn sticky_cookie(&self, answer: &UpstreamResponse) -> Option<(HeaderName, HeaderValue)> {
        let cookie = self.upstream.sticky_cookie(answer, self.affinity(), self.client.scheme)?;
        // Another cache may give what is for everyone to all of its clients, with the cookie.
        let for_everyone = |directive: &[u8]| {
            directive.eq_ignore_ascii_case(b"public")
                || directive.to_ascii_lowercase().starts_with(b"s-maxage")
        };
        if list_elements(answer.headers(), &header::CACHE_CONTROL).any(for_everyone) {
            return None;
        }
        Some((header::SET_COOKIE, cookie))
    }

    /// The request as its upstream sees it.
    fn as_sent(&self) -> AsSent<'_> {
        let (target, client, upstream) = (&self.target, &self.client, self.upstream.settings());
        AsSent { head: self.head, target, client, told: self.told, route: self.route, upstream }
    }

    /// Goes upstream where the cache has no answer, if there are places; else a stale answer may do.
    async fn proceed(
        self,
        looked: LookUp,
        client: ClientSide,
        record: &mut Record,
        interim: Option<&Interim>,
    ) -> Result<Answer, Refusal> {
        match self.take_places() {
            Ok(places) => {
                record.occupies(places);
                self.go_upstream(looked, client, interim).await
            }
            Err(refusal @ (Refusal::RouteBusy | Refusal::ClientBusy)) => {
                self.stale_or(refusal).map(|answer| self.limited(answer))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Answers where the cache alone cannot, within the request's time.
    async fn go_upstream(
        mut self,
        looked: LookUp,
        client: ClientSide,
        interim: Option<&Interim>,
    ) -> Result<Answer, Refusal> {
        let times = &self.route.times;
        // How long sending content takes depends on the client; its pauses and the upstream's answer have their own bounds.
        let total = client.content.is_end_stream().then(|| self.patient(times.total));
        let whole = times.whole.map(|whole| (self.arrived + whole).since(self.edge.clock.now()));
        self.within = [total, whole].into_iter().flatten().min();
        let relayed = interim.map(|interim| {
            self.hint(&looked, interim);
            let (relay, received) = interim::relay();
            self.relay = Some(relay);
            (interim, received)
        });
        // Pinned here: what a fetch and a pass need is not moved about with the timer round them.
        let answer = pin!(self.answer(looked, client));
        let answer = relaying(relayed, answer);
        let answer = match self.within {
            None => answer.await?,
            Some(within) => match tokio::time::timeout(within, answer).await {
                Ok(answered) => answered?,
                Err(_) => self.late(within)?,
            },
        };
        Ok(self.limited(answer))
    }

    /// Sends the preloads of a stored page as 103 (RFC 8297) while the origin is asked about it, where the route
    /// permits.
    fn hint(&self, looked: &LookUp, interim: &Interim) {
        let LookUp::Fetch(Wanted { stored: Some(stored), .. }) = looked else { return };
        if !self.route.early_hints {
            return;
        }
        let links: HeaderMap = representation::preloads(&stored.identity().head)
            .map(|link| (header::LINK, link.clone()))
            .collect();
        if !links.is_empty() {
            interim.send(StatusCode::EARLY_HINTS, links);
        }
    }

    /// A turn answers, or waits for a fetch whose response may not suit: another variant, or stale at once. The next
    /// turn does not wait for that fetch any more.
    async fn answer(&self, mut looked: LookUp, client: ClientSide) -> Result<Answer, Refusal> {
        let mut learnt = Learnt::default();
        let mut missed = Reason::Miss;
        for _ in 0..TURNS {
            let wanted = match looked {
                LookUp::Answered(answer) => return Ok(answer),
                LookUp::Pass(reason) => return self.pass(client, reason).await,
                LookUp::Fetch(wanted) => wanted,
            };
            if !client.content.is_end_stream() {
                return self.pass(client, Reason::RequestContent).await;
            }
            missed = wanted.plan.reason;
            let marker = self.marker(&wanted);
            if let Some(reason) = self.selection().bypass_reason(marker) {
                return self.pass(client, reason).await;
            }
            match self.share(&wanted, marker, &mut learnt).await? {
                Next::Answer(answer) => return Ok(answer),
                Next::Pass(reason) => return self.pass(client, reason).await,
                Next::LookAgain => looked = self.look_up()?,
            }
        }
        self.pass(client, missed).await
    }

    /// The request's time is up before its answer began: serves stale if policy permits, else 504. A fetch goes on.
    fn late(&self, within: Duration) -> Result<Answer, Refusal> {
        let under_way = self.under_way.lock().take();
        // Without one it waits for what another request has asked for.
        let nothing = ReachedPhase { server: None, phase: "collapsed" };
        let ReachedPhase { server, phase } = under_way.map_or(nothing, |under_way| under_way.reached());
        self.stale_or(Refusal::Deadline { within, phase }).inspect_err(|_| {
            let (upstream, route) = (&*self.upstream.settings().name, &*self.route.name);
            let (server, request_id) = (server.as_deref().unwrap_or_default(), self.id);
            tracing::warn!(
                upstream,
                server,
                route,
                phase,
                reason = "deadline",
                %request_id,
                "no answer began within {within:?}, the least of total, whole and the asking proxy's time"
            );
        })
    }

    /// Adds how much of the client's limit is left, and to the body how much of its time.
    fn limited(&self, mut answer: Answer) -> Answer {
        if let Some(whole) = self.route.times.whole
            && answer.response.status() != StatusCode::SWITCHING_PROTOCOLS
            && !answer.response.body().is_end_stream()
        {
            let left = (self.arrived + whole).since(self.edge.clock.now());
            answer.response = answer.response.map(|body| Body::Timed(Box::new(Timed::new(body, left))));
        }
        if let Some((limiter, admitted)) = self.limited {
            fields::limit(answer.response.headers_mut(), limiter, &Ok(admitted));
        }
        answer
    }
}

/// Withdraws unsent interim responses when a request's time is up, so that it can answer.
struct Withdraws<'a>(&'a Interim);

impl Drop for Withdraws<'_> {
    fn drop(&mut self) {
        if self.0.waits() {
            self.0.withdraw();
        }
    }
}

/// Awaits an answer; interim responses that come before it are sent to the client first.
async fn relaying<T>(
    relayed: Option<(&Interim, Arc<RelayedHeads>)>,
    mut answer: Pin<&mut impl Future<Output = T>>,
) -> T {
    let Some((interim, received)) = relayed else { return answer.await };
    let _withdraws = Withdraws(interim);
    let send = |(status, mut headers)| {
        strip_hop_by_hop(&mut headers);
        interim.send(status, headers);
    };
    let answered = poll_fn(|context| {
        received.take_and_wait(context).into_iter().for_each(send);
        answer.as_mut().poll(context)
    })
    .await;
    // Interim responses that came before the answer are sent before it.
    received.take().into_iter().for_each(send);
    interim.sent().await;
    answered
}

/// Policy decides to serve only where a candidate was found.
fn found<'c, 'r>(candidate: Option<&'c Candidate<'r>>) -> &'c Candidate<'r> {
    candidate.expect("policy decides to serve only when it was shown a stored response")
}

/// How often a request looks up again after a fetch that did not suit it.
const TURNS: usize = 4;
