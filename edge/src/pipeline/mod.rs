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

mod answer;
pub mod invalidate;
mod pass;
mod serve;
mod share;
pub mod tunnel;

use std::{net::IpAddr, pin::pin, sync::Arc};

use cache_policy::{Decision, Failure, Moment, Plan, Reason, RequestFacts};
use http::{HeaderMap, Request, Response, StatusCode, Version, header, request};
use http_body::Body as _;
use tokio::sync::mpsc;

pub use self::answer::Answer;
use self::{share::Learnt, tunnel::Upgrade};
use crate::{
    cache::{
        Key, Resource, Stored,
        select::{Candidate, Selection},
    },
    fetch::want::{self, Want},
    message::{
        content::Content,
        hop_by_hop::{strip_hop_by_hop, strip_nominated},
        interim::{self, Interim, Relay},
        target::{Scheme, Target},
    },
    observe::{
        record::{Record, Recorded},
        verdict::Verdict,
    },
    request::{
        as_sent::AsSent,
        client::{self, Client, ClientKey},
        inbound::{self, Forwards},
        limit::{Admitted, Limiter, RateLimited},
        refusal::Refusal,
        route,
    },
    response::{
        body::Body,
        fields::{self, CacheStatus},
        representation,
    },
    settings::{Route, Settings},
    state::{Edge, RouteState, State},
    upstream::Upstream,
};

/// The client's end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// Whether the connection is encrypted.
    pub scheme: Scheme,
}

/// Answers one request. Dropped when the client leaves: a fetch for the cache goes on without it.
///
/// `interim` takes interim responses, where the connection supports them.
pub async fn handle(
    edge: &Arc<Edge>,
    peer: Peer,
    interim: Option<&Interim>,
    mut request: Request<Content>,
) -> Response<Recorded<Body>> {
    let state = edge.state.load();
    let upgrade = Upgrade::wanted(&mut request);
    let (mut head, content) = request.into_parts();
    inbound::join_cookies(&mut head.headers);
    strip_nominated(&mut head.headers);
    let forwards = inbound::count_forwards(&mut head);
    let mut record = Record::begin(&head, peer.scheme, peer.address, edge.clock.now(), &edge.sink);
    let answered = match ask(edge, &state, peer, &head, &mut record) {
        Ok(exchange) if forwards == Forwards::End => Ok(exchange.limited(Answer::options())),
        Ok(exchange) => match exchange.look_up() {
            Ok(LookUp::Answered(answer)) => Ok(exchange.limited(answer)),
            // Boxed, so that a hit, which awaits nothing, is not moved about with the room that a fetch needs.
            looked => Box::pin(exchange.go_upstream(looked, ClientSide { content, upgrade }, interim)).await,
        },
        Err(refusal) => Err(refusal),
    };
    let answer = answered.unwrap_or_else(|refusal| Answer::refused(&refusal, &head));
    record.answered(answer.status.verdict, answer.status.word(), answer.upstream);
    record.travel(answer.finish())
}

/// Answers a head that could not be read as a request. It is told like every other refusal.
pub fn refuse(edge: &Edge, peer: Peer, head: &request::Parts, refusal: &Refusal) -> Response<Recorded<Body>> {
    let mut record = Record::begin(head, peer.scheme, peer.address, edge.clock.now(), &edge.sink);
    let answer = Answer::refused(refusal, head);
    record.answered(answer.status.verdict, answer.status.word(), answer.upstream);
    let mut response = answer.finish();
    fields::date(response.headers_mut(), &edge.clock);
    record.travel(response)
}

/// Reads the head: target, client, route and limit.
fn ask<'a>(
    edge: &'a Arc<Edge>,
    state: &'a State,
    peer: Peer,
    head: &'a request::Parts,
    record: &mut Record,
) -> Result<Exchange<'a>, Refusal> {
    let settings = &state.settings;
    head_within(head, settings)?;
    let peer = Client { address: peer.address, scheme: peer.scheme };
    let client = client::identify(peer, &head.headers, &settings.clients);
    record.client(client.address, client.scheme);
    let target = inbound::read(head, client.scheme)?;
    let RouteState { route, upstream, limiter, metrics } =
        route::find(&state.routes, &target).ok_or(Refusal::NoRoute)?;
    record.route(&route.name, metrics);
    let limited = match limiter {
        Some(limiter) => Some((limiter, admit(edge, limiter, client.key())?)),
        None => None,
    };
    declared_length(head, settings)?;
    Ok(Exchange {
        edge,
        settings,
        upstream,
        head,
        facts: RequestFacts::read(&head.method, &head.headers, &route.rules),
        key: Key::on_route(&target, &route.query),
        target,
        client,
        route,
        limited,
        arrived: record.began(),
        relay: None,
    })
}

fn admit(edge: &Edge, limiter: &Limiter, client: ClientKey) -> Result<Admitted, Refusal> {
    limiter.admit(client).map_err(|exceeded| {
        edge.metrics.limited(&limiter.limit().name);
        Refusal::TooManyRequests(Box::new(RateLimited::new(limiter, exceeded)))
    })
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
fn declared_length(head: &request::Parts, settings: &Settings) -> Result<(), Refusal> {
    let bound = settings.bounds.body;
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
    facts: RequestFacts,
    key: Key,
    target: Target,
    client: Client,
    route: &'a Arc<Route>,
    limited: Option<(&'a Arc<Limiter>, Admitted)>,
    arrived: Moment,
    /// Where an upstream's interim responses go, once one is asked and where the connection supports any.
    relay: Option<Relay>,
}

/// The client's content and upgrade. Only a request that is forwarded takes them.
struct ClientSide {
    content: Content,
    upgrade: Option<Upgrade>,
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
        let selection = self.selection();
        let resource = self.edge.memory.look_up(&self.key);
        let candidate = selection.find(&self.edge.memory, resource.as_deref());
        let candidate = candidate.as_ref();
        Ok(match selection.decide(resource.as_deref(), candidate) {
            Decision::Serve { stale } => {
                let verdict = if stale.is_some() { Verdict::Stale } else { Verdict::Hit };
                LookUp::Answered(self.serve(found(candidate), CacheStatus::new(verdict, stale)))
            }
            Decision::ServeAndRefresh { reason } => {
                let candidate = found(candidate);
                self.refresh(resource.as_deref(), candidate, selection.now);
                LookUp::Answered(self.serve(candidate, CacheStatus::new(Verdict::Stale, Some(reason))))
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
                LookUp::Fetch(Wanted { resource, stored, plan, want })
            }
        })
    }

    fn selection(&self) -> Selection<'_> {
        let now = self.edge.clock.now();
        Selection { sent: self.as_sent(), facts: &self.facts, key: &self.key, now }
    }

    /// The request as its upstream sees it.
    fn as_sent(&self) -> AsSent<'_> {
        AsSent { head: self.head, target: &self.target, client: &self.client, route: self.route }
    }

    /// Answers where the cache alone cannot, within the request's time.
    async fn go_upstream(
        mut self,
        looked: Result<LookUp, Refusal>,
        client: ClientSide,
        interim: Option<&Interim>,
    ) -> Result<Answer, Refusal> {
        let total = self.settings.timeouts.total;
        let uploads = !client.content.is_end_stream();
        let looked = looked?;
        let relayed = interim.map(|interim| {
            self.hint(&looked, interim);
            let (relay, received) = interim::relay();
            self.relay = Some(relay);
            (interim, received)
        });
        // Boxed: what a fetch and a pass need is not moved about with the timer round them.
        let answer = relaying(relayed, Box::pin(self.answer(looked, client)));
        let answer = if uploads {
            // How long sending takes depends on the client; its pauses and the upstream's answer have their own bounds.
            answer.await?
        } else {
            match tokio::time::timeout(total, answer).await {
                Ok(answered) => answered?,
                Err(_) => self.late(total)?,
            }
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
    fn late(&self, total: std::time::Duration) -> Result<Answer, Refusal> {
        let resource = self.edge.memory.look_up(&self.key);
        let candidate = self.selection().find(&self.edge.memory, resource.as_deref());
        let stored = candidate.as_ref().map(Candidate::stored);
        self.stale(stored, Failure::Disconnected).ok_or_else(|| {
            let (upstream, route) = (&*self.route.upstream.name, &*self.route.name);
            tracing::warn!(upstream, route, phase = "deadline", "no answer began within `timeouts.total`");
            Refusal::Deadline(total)
        })
    }

    /// Adds how much of the client's limit is left.
    fn limited(&self, mut answer: Answer) -> Answer {
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
    // Interim responses that came before the answer are sent before it.
    while let Ok(received) = received.try_recv() {
        send(received);
    }
    interim.sent().await;
    answered
}

/// Policy decides to serve only where a candidate was found.
fn found<'c, 'r>(candidate: Option<&'c Candidate<'r>>) -> &'c Candidate<'r> {
    candidate.expect("policy decides to serve only when it was shown a stored response")
}

/// How often a request looks up again after a fetch that did not suit it.
const TURNS: usize = 4;
