//! THE PIPELINE: one request from its head to its answer, read top to bottom.
//!
//! A stage is a function that takes what it needs and returns a named value; `?` leaves with a [`Refusal`], and
//! [`fields::refusal`] is the one place that turns it into a response. Only this file knows the order of the stages.

pub mod invalidate;
pub mod tunnel;

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use cache_policy::{
    Arrival, Decision, Failure as PolicyFailure, Meta, Moment, Plan, Reason, RequestFacts, decide,
    invalidates, may_share, stale_on_error, stands_for_get, variant_key,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header, request,
    response,
};
use http_body::Body as _;
use tokio::sync::{mpsc, oneshot};

use crate::{
    cache::{
        Filling, Joined, Key, Lead, Outcome, Resource, Stored,
        recording::Reader,
        select::{Candidate, Sought},
    },
    fetch::{
        self, Fetch, Handover, Keep, Own,
        want::{self, Want},
    },
    message::{
        content::{Activity, Content, ContinueGate, expects_continue},
        failure::Failure,
        hop_by_hop::{strip_hop_by_hop, upgrade_wanted},
        interim::{self, Interim, Relay},
        target::{Scheme, Target},
    },
    observe::{
        record::{Record, Recorded},
        verdict::Verdict,
    },
    request::{
        client::{self, Client, ClientKey},
        inbound,
        limit::{Admitted, Limiter, RateLimited},
        refusal::Refusal,
        route,
    },
    response::{
        body::{Body, Cut},
        extent::{self, Extent},
        fields::{self, CacheStatus},
        problem, representation,
    },
    settings::{Route, Settings},
    state::{Edge, Lane, State},
    upstream::{
        RequestBody, ResponseBody, Upstream,
        outbound::{self, Purpose},
        response_body::Answer,
    },
};
use invalidate::Told;

/// The client's end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether the connection is encrypted.
    pub scheme: Scheme,
}

/// Answers one request. Dropped when the client leaves: what is being fetched for the cache goes on without it.
///
/// `interim` is where the connection takes interim responses, where it does.
pub async fn handle(
    edge: &Arc<Edge>,
    peer: Peer,
    interim: Option<&Interim>,
    request: Request<Content>,
) -> Response<Recorded<Body>> {
    let now = edge.clock.now();
    let state = edge.state.load();
    let (mut head, content) = request.into_parts();
    inbound::join_cookies(&mut head.headers);
    let mut record = Record::begin(&head, peer.scheme, peer.address, now, &edge.sink);
    let answered = match ask(edge, &state, peer, &head, now, &mut record) {
        Ok(asked) => match asked.look_up(&head, &mut record) {
            Ok(Looked::Answered(response)) => Ok(asked.limited(response)),
            // Boxed, so that a hit, which awaits nothing, is not moved about with room for all of this.
            looked => Box::pin(asked.go_upstream(looked, &mut head, content, interim, &mut record)).await,
        },
        Err(refusal) => Err(refusal),
    };
    let response = answered.unwrap_or_else(|refusal| {
        record.verdict(Verdict::Refused, Some(refusal.detail()));
        problem::refusal(&refusal, &head)
    });
    record.travel(response)
}

/// From the head to what may be answered: what is asked for, by whom, how often, and where it goes.
fn ask<'a>(
    edge: &'a Arc<Edge>,
    state: &'a State,
    peer: Peer,
    head: &request::Parts,
    arrived: Moment,
    record: &mut Record,
) -> Result<Asked<'a>, Refusal> {
    let settings = &state.settings;
    let inbound = inbound::read(head, peer.scheme)?;
    let client = client::identify(peer.address, &head.headers, &settings.clients.trusted_proxies);
    record.client(client.address);
    let Lane { route, upstream, limiter, metrics } =
        route::find(&state.lanes, &inbound).ok_or(Refusal::NoRoute)?;
    record.route(&route.name, metrics);
    let limited = match limiter {
        Some(limiter) => Some((limiter, admit(edge, limiter, client.key())?)),
        None => None,
    };
    declared_length(head, settings)?;
    Ok(Asked {
        edge,
        settings,
        upstream,
        facts: RequestFacts::read(&head.method, &head.headers, &route.rules),
        key: Key::on_route(&inbound, &route.query),
        inbound,
        client,
        route,
        limited,
        arrived,
    })
}

fn admit(edge: &Edge, limiter: &Limiter, client: ClientKey) -> Result<Admitted, Refusal> {
    limiter.admit(client).map_err(|exceeded| {
        edge.metrics.limited(&limiter.limit().name);
        Refusal::TooManyRequests(Box::new(RateLimited::new(limiter, exceeded)))
    })
}

/// Refuses a body that says itself that it is too large, before a byte of it is read (RFC 9110 §15.5.14).
fn declared_length(head: &request::Parts, settings: &Settings) -> Result<(), Refusal> {
    let bound = settings.bounds.body;
    let declared =
        head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > bound) { Err(Refusal::ContentTooLarge(bound)) } else { Ok(()) }
}

/// What is known of a request once it may be answered. Found out once, then only read.
struct Asked<'a> {
    edge: &'a Arc<Edge>,
    settings: &'a Settings,
    upstream: &'a Arc<Upstream>,
    facts: RequestFacts,
    key: Key,
    inbound: Target,
    client: Client,
    route: &'a Arc<Route>,
    limited: Option<(&'a Arc<Limiter>, Admitted)>,
    arrived: Moment,
}

/// What a look-up in the cache came to.
enum Looked {
    /// The answer.
    Answered(Response<Body>),
    /// Upstream, for the cache.
    Fetch {
        /// What is stored under the key, in whichever variant.
        resource: Option<Arc<Resource>>,
        /// What is stored of the variant asked for.
        stored: Option<Arc<Stored>>,
        /// Why, and how.
        plan: Plan,
        /// What of it.
        want: Want,
    },
    /// Upstream, for this client alone.
    Pass(Reason),
}

/// What a fetch came to, from the point of view of one of those who share it.
struct Shared {
    outcome: Outcome,
    /// When it was sent: what came back is validated for every request that had arrived by then.
    began: Moment,
    /// Whether this request began it.
    leads: bool,
    /// What the fetch gave to the request that began it.
    own: Option<Own>,
}

impl Asked<'_> {
    /// Looks up, decides, and answers what can be answered at once.
    fn look_up(&self, head: &request::Parts, record: &mut Record) -> Result<Looked, Refusal> {
        let sought = self.sought(head);
        let resource = self.edge.memory.look_up(&self.key);
        let candidate = sought.find(&self.edge.memory, resource.as_deref());
        let candidate = candidate.as_ref();
        Ok(match sought.decide(resource.as_deref(), candidate) {
            Decision::Serve { stale } => {
                let verdict = if stale.is_some() { Verdict::Stale } else { Verdict::Hit };
                Looked::Answered(self.serve(head, found(candidate), CacheStatus::new(verdict, stale), record))
            }
            Decision::ServeAndRefresh { reason } => {
                let candidate = found(candidate);
                self.refresh(head, resource.as_deref(), candidate, sought.now);
                let status = CacheStatus::new(Verdict::Stale, Some(reason));
                Looked::Answered(self.serve(head, candidate, status, record))
            }
            Decision::OnlyIfCached => return Err(Refusal::OnlyIfCached),
            Decision::Pass(reason) => Looked::Pass(reason),
            Decision::Fetch(plan) => {
                let rules = &self.route.rules;
                let (want, stored) = match candidate {
                    None => (want::want(head, None, &self.facts, rules), None),
                    Some(Candidate::Part(part, held)) => {
                        let validated = held.suffices().then(|| Arc::clone(part));
                        (want::want(head, Some(held), &self.facts, rules), validated)
                    }
                    Some(candidate) => (Want::Whole, Some(Arc::clone(candidate.stored()))),
                };
                Looked::Fetch { stored, resource, plan, want }
            }
        })
    }

    fn sought<'s>(&'s self, head: &'s request::Parts) -> Sought<'s> {
        let now = self.edge.clock.now();
        Sought { head, facts: &self.facts, key: &self.key, rules: &self.route.rules, now }
    }

    /// Answers what the cache alone cannot, within the request's time.
    async fn go_upstream(
        &self,
        looked: Result<Looked, Refusal>,
        head: &mut request::Parts,
        content: Content,
        interim: Option<&Interim>,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        let total = self.settings.timeouts.total;
        let uploads = !content.is_end_stream();
        let looked = looked?;
        let relayed = interim.map(|interim| {
            self.hint(&looked, interim);
            let (relay, received) = interim::relay();
            head.extensions.insert(relay);
            (interim, received)
        });
        let answer = relaying(relayed, self.answer(looked, head, content, record));
        let response = if uploads {
            // How long sending takes is the client's affair; its pauses and the upstream's answer have their own bounds.
            answer.await?
        } else {
            match tokio::time::timeout(total, answer).await {
                Ok(answered) => answered?,
                Err(_) => self.late(head, total, record)?,
            }
        };
        Ok(self.limited(response))
    }

    /// Sends the preloads of a stored page ahead while the origin is asked about it (RFC 8297), where the route says so.
    fn hint(&self, looked: &Looked, interim: &Interim) {
        let Looked::Fetch { stored: Some(stored), .. } = looked else { return };
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

    async fn answer(
        &self,
        mut looked: Looked,
        head: &mut request::Parts,
        content: Content,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        // A turn answers, or it waits for a fetch that turns out not to suit: another variant, or stale at once.
        for _ in 0..TURNS {
            let (resource, stored, plan, want) = match looked {
                Looked::Answered(response) => return Ok(response),
                Looked::Pass(reason) => return self.pass(head, content, reason, record).await,
                Looked::Fetch { resource, stored, plan, want } => (resource, stored, plan, want),
            };
            let stored = stored.as_ref();
            let now = self.edge.clock.now();
            let marked = resource.as_ref().is_some_and(|resource| resource.marker(now).is_some());
            if let Some(reason) = self.sought(head).alone(content.is_end_stream(), marked) {
                return self.pass(head, content, reason, record).await;
            }
            let joined = if marked {
                Joined::Leader(self.edge.collapser.alone(&self.key, now, &self.edge.memory))
            } else {
                self.join(head, resource.as_deref(), &want, now)
            };
            let mut shared = match joined {
                Joined::Follower(mut follow) => {
                    let outcome = follow.outcome(head.extensions.get()).await;
                    Shared { outcome, began: follow.began, leads: false, own: None }
                }
                Joined::Leader(lead) => {
                    // A fetch that ended between the look-up above and this join has left its answer behind.
                    let newest = self.edge.memory.look_up(&self.key);
                    if newest.as_ref().map(Arc::as_ptr) != resource.as_ref().map(Arc::as_ptr) {
                        drop(lead);
                        looked = self.look_up(head, record)?;
                        continue;
                    }
                    self.lead(head, lead, stored, &want, &plan).await
                }
            };
            match &shared.outcome {
                Outcome::Filling(filling) => {
                    let facts = &filling.facts;
                    let (reader, own_fields) = match shared.own.take() {
                        Some(Own::Reader(reader, fields)) => (Some(reader), fields),
                        _ => (filling.recording.reader(), HeaderMap::new()),
                    };
                    if let Some(mut reader) = reader
                        && self.suits(head, &facts.meta, &facts.vary, &facts.variant, shared.began)
                    {
                        let extent = extent::extent(head, filling, &mut reader).await;
                        let place = (reader, extent);
                        let mut response = self.share(head, filling, place, &plan, shared.leads, record);
                        response.headers_mut().extend(own_fields);
                        return Ok(response);
                    }
                }
                Outcome::Stored(fresh) => {
                    if self.suits(head, &fresh.meta, &fresh.vary, &fresh.variant, shared.began)
                        && let Some(fresh) = Candidate::of(head, fresh)
                    {
                        let status = CacheStatus {
                            forward_status: Some(StatusCode::NOT_MODIFIED),
                            stored: true,
                            ..CacheStatus::new(Verdict::Revalidated, Some(plan.reason))
                        };
                        return Ok(self.serve(head, &fresh, status, record));
                    }
                }
                Outcome::Found(found, tier) => {
                    if let Some(response) = self.serve_found(head, found, tier, record) {
                        return Ok(response);
                    }
                }
                Outcome::Failed(failure) => {
                    return self
                        .stale(head, stored, PolicyFailure::Disconnected, record)
                        .ok_or_else(|| Refusal::Upstream(failure.clone()));
                }
                Outcome::ErrorStatus(status) => {
                    let failure = PolicyFailure::Status(*status);
                    if let Some(response) = self.stale(head, stored, failure, record) {
                        return Ok(response);
                    }
                    return match shared.own.take() {
                        Some(Own::Answer(own)) => Ok(self.deliver(head, *own, &plan, record)),
                        _ => self.pass(head, content, plan.reason, record).await,
                    };
                }
                Outcome::Nothing => {}
                Outcome::NotShared(reason) => {
                    let reason = *reason;
                    match shared.own.take() {
                        // The upstream was asked for all of it. Of what is not stored, a part is asked for as such.
                        Some(Own::Answer(_))
                            if self.facts.asks_for_range() && !matches!(want, Want::Part) =>
                        {
                            return self.pass(head, content, reason, record).await;
                        }
                        Some(Own::Answer(own)) => return Ok(self.deliver(head, *own, &plan, record)),
                        _ => return self.pass(head, content, reason, record).await,
                    }
                }
            }
            looked = self.look_up(head, record)?;
        }
        self.pass(head, content, Reason::VaryMiss, record).await
    }

    /// Tells the client how much of its limit is left.
    fn limited(&self, mut response: Response<Body>) -> Response<Body> {
        if let Some((limiter, admitted)) = self.limited {
            fields::limit(response.headers_mut(), limiter, &Ok(admitted));
        }
        response
    }

    /// Fetches for the cache and for whoever joins, in a task of its own, and waits for the head.
    async fn lead(
        &self,
        head: &request::Parts,
        lead: Lead,
        stored: Option<&Arc<Stored>>,
        want: &Want,
        plan: &Plan,
    ) -> Shared {
        let mut follow = lead.follow();
        let mut own = self.fetch(head, lead, stored, want, plan.validate);
        let outcome = follow.outcome(head.extensions.get()).await;
        // The fetch hands its response over before it publishes.
        Shared { outcome, began: follow.began, leads: true, own: own.try_recv().ok() }
    }

    fn fetch(
        &self,
        head: &request::Parts,
        lead: Lead,
        stored: Option<&Arc<Stored>>,
        want: &Want,
        validate: bool,
    ) -> oneshot::Receiver<Own> {
        let conditions = want::fields(want, head, stored.filter(|_| validate));
        let purpose = Purpose::Store { target: self.key.path_and_query(), conditions: &conditions };
        let mut request =
            outbound::request(head, &self.inbound, &self.client, self.route, purpose, RequestBody::empty());
        let informing = lead.informing();
        hyper::ext::on_informational(&mut request, move |interim| {
            informing.pass(interim.status(), interim.headers());
        });
        let fetch = Fetch {
            key: self.key.clone(),
            lead,
            request,
            fields: head.headers.clone(),
            facts: self.facts,
            route: Arc::clone(self.route),
            upstream: Arc::clone(self.upstream),
            stored: stored.cloned(),
            want: want.clone(),
            largest: self.settings.cache.largest_object,
        };
        fetch::start(self.edge, fetch)
    }

    /// Joins the fetch under way for what is wanted, or leads one. A part is not fetched where the whole is on its way.
    fn join(&self, head: &request::Parts, resource: Option<&Resource>, want: &Want, now: Moment) -> Joined {
        let (collapser, memory) = (&self.edge.collapser, &self.edge.memory);
        if !matches!(want, Want::Whole) {
            let whole = collapse_variant(head, resource, &Want::Whole);
            if let Some(follow) = collapser.follow(&self.key, whole, memory) {
                return Joined::Follower(follow);
            }
        }
        collapser.join(&self.key, collapse_variant(head, resource, want), now, memory)
    }

    /// Freshens a stored response behind the client's back (RFC 5861 §3), once however many ask.
    fn refresh(
        &self,
        head: &request::Parts,
        resource: Option<&Resource>,
        candidate: &Candidate<'_>,
        now: Moment,
    ) {
        if head.method != Method::GET {
            return;
        }
        let stored = candidate.stored();
        let (variant, want) = match candidate {
            Candidate::Part(..) => (collapse_variant(head, resource, &Want::Part), Want::Part),
            _ if stored.vary.is_empty() => (Box::default(), Want::Whole),
            _ => (stored.variant.clone(), Want::Whole),
        };
        if let Joined::Leader(lead) = self.edge.collapser.join(&self.key, variant, now, &self.edge.memory) {
            drop(self.fetch(head, lead, Some(stored), &want, true));
        }
    }

    /// Whether what another request fetched may answer this one.
    fn suits(
        &self,
        head: &request::Parts,
        meta: &Meta,
        vary: &[HeaderName],
        variant: &str,
        began: Moment,
    ) -> bool {
        if !vary.is_empty() && *variant_key(vary, &head.headers) != *variant {
            return false;
        }
        may_share(&self.facts, meta)
            && (began >= self.arrived
                || matches!(
                    decide(&self.facts, Some(meta), &self.route.rules, self.edge.clock.now()),
                    Decision::Serve { .. } | Decision::ServeAndRefresh { .. }
                ))
    }

    /// The stored response in place of a failure, if policy lets it.
    fn stale(
        &self,
        head: &request::Parts,
        stored: Option<&Arc<Stored>>,
        failure: PolicyFailure,
        record: &mut Record,
    ) -> Option<Response<Body>> {
        let stored = stored?;
        let rules = &self.route.rules;
        let now = self.edge.clock.now();
        let reason = stale_on_error(&self.facts, &stored.meta, rules, failure, now).ok()?;
        let forward_status = match failure {
            PolicyFailure::Status(status) => Some(status),
            PolicyFailure::Disconnected => None,
        };
        let status = CacheStatus { forward_status, ..CacheStatus::new(Verdict::Stale, Some(reason)) };
        Some(self.serve(head, &Candidate::of(head, stored)?, status, record))
    }

    /// The request's time is up before its answer began: stale if policy lets it, else 504. A fetch goes on.
    fn late(
        &self,
        head: &request::Parts,
        total: Duration,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        let resource = self.edge.memory.look_up(&self.key);
        let candidate = self.sought(head).find(&self.edge.memory, resource.as_deref());
        let stored = candidate.as_ref().map(Candidate::stored);
        self.stale(head, stored, PolicyFailure::Disconnected, record).ok_or(Refusal::Deadline(total))
    }

    /// Answers from the cache.
    fn serve(
        &self,
        head: &request::Parts,
        candidate: &Candidate<'_>,
        status: CacheStatus,
        record: &mut Record,
    ) -> Response<Body> {
        let (rules, coder) = (&self.route.rules, &self.edge.coder);
        let response = match candidate {
            Candidate::Variant(stored) | Candidate::Language(stored) => {
                representation::stored(head, stored, &self.key, rules, coder)
            }
            Candidate::Query(key, stored) => representation::stored(head, stored, key, rules, coder),
            Candidate::Part(part, held) => representation::part(head, part, held)
                .expect("a part is only served where every octet that is asked for is held"),
        };
        self.finish_cached(response, &candidate.stored().meta, status, record)
    }

    /// Answers with what a tier behind memory had, if policy lets it answer this request.
    fn serve_found(
        &self,
        head: &request::Parts,
        stored: &Arc<Stored>,
        tier: &'static str,
        record: &mut Record,
    ) -> Option<Response<Body>> {
        if !stored.vary.is_empty() && variant_key(&stored.vary, &head.headers) != stored.variant {
            return None;
        }
        let candidate = Candidate::of(head, stored)?;
        let now = self.edge.clock.now();
        let (verdict, reason) = match decide(&self.facts, Some(&stored.meta), &self.route.rules, now) {
            Decision::Serve { stale: None } => (Verdict::Hit, None),
            Decision::Serve { stale } => (Verdict::Stale, stale),
            Decision::ServeAndRefresh { reason } => {
                self.refresh(head, None, &candidate, now);
                (Verdict::Stale, Some(reason))
            }
            Decision::Fetch(_) | Decision::Pass(_) | Decision::OnlyIfCached => return None,
        };
        let status = CacheStatus { detail: Some(tier), ..CacheStatus::new(verdict, reason) };
        Some(self.serve(head, &candidate, status, record))
    }

    /// Answers from a body that is being filled.
    fn share(
        &self,
        head: &request::Parts,
        filling: &Filling,
        (reader, extent): (Reader, Extent),
        plan: &Plan,
        leads: bool,
        record: &mut Record,
    ) -> Response<Body> {
        let rules = &self.route.rules;
        let response = representation::filling(head, filling, reader, extent, rules, &self.edge.coder);
        record.upstream(filling.took);
        let verdict = if leads { Verdict::Miss } else { Verdict::Collapsed };
        let status = CacheStatus {
            forward_status: Some(filling.facts.meta.status),
            stored: leads,
            ..CacheStatus::new(verdict, Some(plan.reason))
        };
        self.finish_cached(response, &filling.facts.meta, status, record)
    }

    /// What every answer out of the cache carries: its age, its freshness, and the route's word to browsers.
    fn finish_cached(
        &self,
        mut response: Response<Body>,
        meta: &Meta,
        status: CacheStatus,
        record: &mut Record,
    ) -> Response<Body> {
        let now = self.edge.clock.now();
        let from_store = matches!(status.verdict, Verdict::Hit | Verdict::Stale);
        let age = meta.age(now).as_secs();
        let code = response.status();
        let headers = response.headers_mut();
        if from_store || age > 0 {
            headers.insert(header::AGE, HeaderValue::from(age));
        }
        if let Some(browser) = &self.route.browser
            && (code.is_success() || code == StatusCode::NOT_MODIFIED)
        {
            headers.insert(header::CACHE_CONTROL, browser.clone());
            headers.remove(header::EXPIRES);
        }
        let status = CacheStatus { ttl: from_store.then(|| meta.lifetime_left(now)), ..status };
        fields::finish(headers, &status, Version::HTTP_11);
        record.verdict(status.verdict, status.word());
        response
    }

    /// Answers with what a fetch brought back for this request alone.
    fn deliver(
        &self,
        head: &request::Parts,
        own: Handover,
        plan: &Plan,
        record: &mut Record,
    ) -> Response<Body> {
        let Handover { answer, reason, took } = own;
        record.upstream(took);
        let (parts, body) = answer.into_parts();
        let status = CacheStatus {
            forward_status: Some(parts.status),
            ..CacheStatus::new(Verdict::Miss, reason.or(Some(plan.reason)))
        };
        let body = Body::Upstream(Box::new(body));
        let mut response = representation::passed(
            head,
            parts.status,
            parts.headers,
            body,
            self.route.compress.then_some(&self.edge.coder),
            Some(self.edge.clock.wall()),
        );
        fields::finish(response.headers_mut(), &status, parts.version);
        record.verdict(status.verdict, status.word());
        response
    }

    /// Sends the request upstream for this client alone; nothing is stored.
    async fn pass(
        &self,
        head: &mut request::Parts,
        content: Content,
        reason: Reason,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        let waits = !content.is_end_stream() && expects_continue(&head.headers);
        let gate = waits.then(ContinueGate::default);
        let bounds = &self.settings.bounds;
        let activity = head.extensions.get::<Activity>().cloned().unwrap_or_default();
        let content =
            RequestBody::new(content, bounds.body, self.settings.timeouts.body, gate.clone(), activity);
        let mut request =
            outbound::request(head, &self.inbound, &self.client, self.route, Purpose::Pass, content);
        if gate.is_some() {
            request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        }
        relay_to(&mut request, head, gate);
        let upgrades = upgrade_wanted(head);
        if let Some(protocol) = &upgrades {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, protocol.clone());
        }
        let began = self.edge.memory.generation();
        let requested_at = self.edge.clock.now();
        let answer = self.upstream.send(request, &self.edge.clock).await?;
        let received_at = self.edge.clock.now();
        record.upstream(received_at.since(requested_at));
        let status = CacheStatus {
            forward_status: Some(answer.status()),
            ..CacheStatus::new(Verdict::Pass, Some(reason))
        };
        record.verdict(status.verdict, status.word());
        let keeping = if invalidates(&head.method, answer.status()) {
            let (before, purged) =
                (self.edge.memory.generation(), self.edge.memory.outdated(began, &self.key));
            let authority = self.inbound.authority();
            let target = self.target(&authority);
            let memory = &self.edge.memory;
            let telling = invalidate::invalidate(memory, &self.key, &target, answer.headers(), received_at);
            // Kept for later only where nothing was purged but by this answer itself.
            let lead = self.edge.collapser.alone(&self.key, received_at, memory);
            // Boxed: as a rule there is no tier to be told.
            Box::pin(telling.finish()).await;
            Some(lead).filter(|lead| !purged && lead.generation().is_next_after(before))
        } else {
            None
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match upgrades {
                Some(_) => Ok(self.switch(head, answer, &status)),
                None => Err(Refusal::Upstream(Failure::Unasked)),
            };
        }
        let (mut parts, body) = answer.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        if head.method == Method::HEAD && reason == Reason::Method && parts.status == StatusCode::OK {
            let arrival = Arrival { requested_at, received_at, wall: self.edge.clock.wall_at(received_at) };
            let resource = self.edge.memory.look_up(&self.key);
            if let Some(stored) = resource.as_ref().and_then(|resource| resource.select(&head.headers)) {
                let rules = &self.route.rules;
                let told = Told { facts: &self.facts, answer: &parts.headers, arrival, rules, began };
                invalidate::freshen_by_head(&self.edge.memory, &self.key, stored, &told);
            }
        }
        let mut status = status;
        let body = match keeping {
            Some(lead) => {
                let arrival =
                    Arrival { requested_at, received_at, wall: self.edge.clock.wall_at(received_at) };
                self.keep(head, &parts, body, lead, arrival, &mut status)
            }
            None => Body::Upstream(Box::new(body)),
        };
        let mut response = representation::passed(
            head,
            parts.status,
            parts.headers,
            body,
            self.route.compress.then_some(&self.edge.coder),
            None,
        );
        fields::finish(response.headers_mut(), &status, parts.version);
        Ok(response)
    }

    /// The body of an answer to an unsafe request; stored on the way where it stands for a later GET (RFC 9110 §9.3.3).
    fn keep(
        &self,
        head: &request::Parts,
        answer: &response::Parts,
        body: ResponseBody,
        lead: Lead,
        arrival: Arrival,
        status: &mut CacheStatus,
    ) -> Body {
        let authority = self.inbound.authority();
        let target = self.target(&authority);
        let facts = stands_for_get(&head.method, &self.facts, &target, answer.status, &answer.headers);
        let Some(facts) = facts else { return Body::Upstream(Box::new(body)) };
        let keep = Keep {
            key: self.key.clone(),
            lead,
            fields: head.headers.clone(),
            facts,
            route: Arc::clone(self.route),
            arrival,
            largest: self.settings.cache.largest_object,
        };
        match fetch::keep(self.edge, keep, answer, body) {
            Ok((reader, length)) => {
                status.stored = true;
                Body::Filling(Box::new(Cut::whole(reader, length)))
            }
            Err(body) => Body::Upstream(Box::new(body)),
        }
    }

    fn target<'t>(&'t self, authority: &'t str) -> cache_policy::Resource<'t> {
        cache_policy::Resource {
            scheme: self.inbound.scheme.as_str(),
            authority,
            path_and_query: &self.inbound.path_and_query,
        }
    }

    /// Joins the client's connection with the upstream's; from here on it is theirs.
    fn switch(&self, head: &mut request::Parts, mut answer: Answer, status: &CacheStatus) -> Response<Body> {
        let mut switching = Response::new(Body::Empty);
        *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switching.headers_mut() = answer.headers().clone();
        fields::finish(switching.headers_mut(), status, answer.version());
        let mut downstream = Request::new(());
        *downstream.extensions_mut() = std::mem::take(&mut head.extensions);
        let ends = (hyper::upgrade::on(downstream), hyper::upgrade::on(&mut answer));
        let drain = self.edge.drain.clone();
        tunnel::join(ends, answer.into_body(), self.settings.timeouts.tunnel, drain);
        switching
    }
}

/// What requests for one resource must agree on to share a fetch, as far as it is known before the answer.
fn collapse_variant(head: &request::Parts, resource: Option<&Resource>, want: &Want) -> Box<str> {
    let mut variant = resource.map_or_else(Box::default, |resource| resource.collapse_key(&head.headers));
    if let Some(part) = want::collapse_key(want, head) {
        // No variant holds a NUL.
        variant = format!("{variant}\0{part}").into();
    }
    if head.headers.contains_key(header::AUTHORIZATION) {
        // What is fetched with credentials is as a rule not shared: nobody without them waits for it.
        return format!("authorized {variant}").into();
    }
    variant
}

/// Has an upstream's interim responses go to the one client, and its 100 (Continue) to the request's body.
fn relay_to(request: &mut Request<RequestBody>, head: &request::Parts, gate: Option<ContinueGate>) {
    let relay = head.extensions.get::<Relay>().cloned();
    if relay.is_none() && gate.is_none() {
        return;
    }
    hyper::ext::on_informational(request, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            gate.iter().for_each(ContinueGate::open);
        } else if let Some(relay) = &relay {
            relay.pass(interim.status(), interim.headers());
        }
    });
}

/// A request whose time is up answers although its interim responses are not out yet.
struct Withdraws<'a>(&'a Interim);

impl Drop for Withdraws<'_> {
    fn drop(&mut self) {
        if self.0.waits() {
            self.0.withdraw();
        }
    }
}

/// Awaits an answer; the interim responses that come before it go ahead to the client.
async fn relaying<T>(
    relayed: Option<(&Interim, mpsc::Receiver<interim::Received>)>,
    answer: impl Future<Output = T>,
) -> T {
    let Some((interim, mut received)) = relayed else { return answer.await };
    let mut answer = pin!(answer);
    let _withdraws = Withdraws(interim);
    let send = |(status, mut headers)| {
        strip_hop_by_hop(&mut headers);
        interim.send(status, headers);
    };
    let answered = loop {
        tokio::select! {
            biased;
            Some(received) = received.recv() => send(received),
            answered = &mut answer => break answered,
        }
    };
    // What came before the answer goes before it.
    while let Ok(received) = received.try_recv() {
        send(received);
    }
    interim.sent().await;
    answered
}

/// Serving is only decided over a stored response.
fn found<'c, 'r>(candidate: Option<&'c Candidate<'r>>) -> &'c Candidate<'r> {
    candidate.expect("policy decides to serve only when it was shown a stored response")
}

/// How often a request looks again after a fetch that did not suit it.
const TURNS: usize = 4;
