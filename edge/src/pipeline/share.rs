//! Fetches for the cache: whether this request leads one or follows another's, and what its outcome means for this
//! request.

use std::sync::Arc;

use cache_policy::{Decision, Failure, Meta, Moment, decide, may_share, variant_key};
use http::{HeaderMap, HeaderName, Method, StatusCode, header, request};
use tokio::sync::oneshot;

use super::{Answer, Exchange, Next, Wanted};
use crate::{
    cache::{FetchOutcome, Filling, Joined, Lead, Resource, Stored, memory::Marker, select::Candidate},
    fetch::{
        self, Fetch, LeaderShare, Subject, Unshared,
        want::{self, Want},
    },
    observe::verdict::Verdict,
    request::refusal::Refusal,
    response::{
        body::Body, coding::OnItsWay, fields::CacheStatus, known_length::known_length, representation,
    },
    upstream::{
        RequestBody,
        outbound::{self, Purpose},
    },
};

/// The outcome of a fetch, from the point of view of one of those who share it.
struct Fetched {
    outcome: FetchOutcome,
    /// When it was sent: the response counts as validated for every request that had arrived by then.
    began: Moment,
    /// Whether this request began it.
    leads: bool,
    /// The leader's share, where this request leads.
    own: Option<LeaderShare>,
}

impl Exchange<'_> {
    /// Waits for a fetch: another request's, or its own. Where responses could recently not be shared (`marker`) it is
    /// its own, and nobody joins it.
    pub(super) async fn share(
        &self,
        wanted: &Wanted,
        marker: Option<Marker>,
        now: Moment,
    ) -> Result<Next, Refusal> {
        let joined = if marker.is_some() {
            Joined::Leader(self.edge.collapser.lead_alone(&self.key, now, &self.edge.memory))
        } else {
            self.join(wanted, now)
        };
        let fetched = match joined {
            Joined::Follower(mut follow) => {
                let outcome = follow.outcome(self.relay.as_ref()).await;
                Fetched { outcome, began: follow.began, leads: false, own: None }
            }
            Joined::Leader(lead) => {
                // A fetch that ended between the look-up and this join has stored its response.
                let newest = self.edge.memory.look_up(&self.key);
                if newest.as_ref().map(Arc::as_ptr) != wanted.resource.as_ref().map(Arc::as_ptr) {
                    return Ok(Next::LookAgain);
                }
                self.lead(lead, wanted).await
            }
        };
        self.use_outcome(fetched, wanted).await
    }

    /// What the outcome of a fetch means for this request.
    async fn use_outcome(&self, mut fetched: Fetched, wanted: &Wanted) -> Result<Next, Refusal> {
        let stored = wanted.stored.as_ref();
        Ok(match &fetched.outcome {
            FetchOutcome::Filling(filling) => {
                let own = fetched.own.take();
                let filling = Arc::clone(filling);
                self.read_along(&filling, own, (fetched.began, fetched.leads), wanted).await
            }
            FetchOutcome::Stored(fresh) => self.serve_freshened(fresh, fetched.began, wanted),
            FetchOutcome::Found(found, tier) => {
                self.serve_found(found, tier).map_or(Next::LookAgain, Next::Answer)
            }
            FetchOutcome::Failed(failure) => match self.stale(stored, Failure::Disconnected) {
                Some(answer) => Next::Answer(answer),
                None => return Err(Refusal::Upstream(failure.clone())),
            },
            FetchOutcome::ErrorStatus(status) => match self.stale(stored, Failure::Status(*status)) {
                Some(answer) => Next::Answer(answer),
                None => match fetched.own.take() {
                    Some(LeaderShare::Answer(own)) => Next::Answer(self.deliver(*own)),
                    _ => Next::Pass(wanted.plan.reason),
                },
            },
            FetchOutcome::Nothing => Next::LookAgain,
            FetchOutcome::NotShared(reason) => match fetched.own.take() {
                // The upstream was asked for the whole. A part of a response that is not stored is asked for as a part.
                Some(LeaderShare::Answer(_))
                    if self.facts.asks_for_range() && !matches!(wanted.want, Want::Part) =>
                {
                    Next::Pass(*reason)
                }
                Some(LeaderShare::Answer(own)) => Next::Answer(self.deliver(*own)),
                _ => Next::Pass(*reason),
            },
        })
    }

    /// Answers from a body that is being filled, while it is filled, if it suits this request.
    async fn read_along(
        &self,
        filling: &Filling,
        own: Option<LeaderShare>,
        (began, leads): (Moment, bool),
        wanted: &Wanted,
    ) -> Next {
        let (reader, own_fields) = match own {
            Some(LeaderShare::Reader(reader, fields)) => (Some(reader), fields),
            _ => (filling.recording.reader(), HeaderMap::new()),
        };
        let facts = &filling.facts;
        match reader {
            Some(mut reader) if self.suits(&facts.meta, (&facts.vary, &facts.variant), began) => {
                let length = known_length(self.head, filling, &mut reader).await;
                let verdict = if leads { Verdict::Miss } else { Verdict::Collapsed };
                let read = (reader, length);
                let mut answer = self.serve_filling(filling, read, &wanted.plan, verdict);
                answer.response.headers_mut().extend(own_fields);
                Next::Answer(answer)
            }
            _ => Next::LookAgain,
        }
    }

    /// Answers with the response that a 304 has freshened, if it suits this request.
    fn serve_freshened(&self, fresh: &Arc<Stored>, began: Moment, wanted: &Wanted) -> Next {
        if !self.suits(&fresh.meta, (&fresh.vary, &fresh.variant), began) {
            return Next::LookAgain;
        }
        let Some(candidate) = Candidate::of(self.head, fresh) else { return Next::LookAgain };
        let status = CacheStatus {
            forward_status: Some(StatusCode::NOT_MODIFIED),
            stored: true,
            ..CacheStatus::new(Verdict::Revalidated, Some(wanted.plan.reason))
        };
        Next::Answer(self.serve(&candidate, status))
    }

    /// Answers with a response fetched for this request alone.
    fn deliver(&self, own: Unshared) -> Answer {
        let Unshared { answer, reason, took } = own;
        let (parts, body) = answer.into_parts();
        let status = CacheStatus {
            forward_status: Some(parts.status),
            ..CacheStatus::new(Verdict::Miss, Some(reason))
        };
        let via = Some(parts.version);
        let body = Body::Upstream(Box::new(body));
        let coder = OnItsWay::on(self.route, &self.edge.coder);
        let wall = self.edge.clock.wall();
        let response = representation::unshared(self.head, parts, body, coder, wall);
        Answer { response, status, via, upstream: Some(took) }
    }

    /// Fetches for the cache and for whoever joins, in a task of its own, and waits for the head.
    async fn lead(&self, lead: Lead, wanted: &Wanted) -> Fetched {
        let mut follow = lead.follow();
        let stored = wanted.stored.as_ref();
        let mut own = self.fetch(lead, stored, &wanted.want, stored.filter(|_| wanted.plan.validate));
        let outcome = follow.outcome(self.relay.as_ref()).await;
        // The fetch hands the leader's share over before it publishes.
        Fetched { outcome, began: follow.began, leads: true, own: own.try_recv().ok() }
    }

    fn fetch(
        &self,
        lead: Lead,
        stored: Option<&Arc<Stored>>,
        want: &Want,
        validated: Option<&Arc<Stored>>,
    ) -> oneshot::Receiver<LeaderShare> {
        let conditions = want::fields(want, self.head, validated);
        let purpose = Purpose::Store { target: self.key.path_and_query(), conditions: &conditions };
        let mut request = outbound::request(&self.asker(), purpose, RequestBody::empty());
        let informing = lead.informing();
        hyper::ext::on_informational(&mut request, move |interim| {
            informing.pass(interim.status(), interim.headers());
        });
        let subject = Subject {
            key: self.key.clone(),
            fields: self.head.headers.clone(),
            facts: self.facts,
            route: Arc::clone(self.route),
            upstream: Arc::clone(self.upstream),
            stored: stored.cloned(),
            want: want.clone(),
            largest: self.settings.cache.largest_object,
        };
        fetch::start(self.edge, Fetch { lead, request, subject })
    }

    /// Joins the fetch under way, or leads one. A part is not fetched where the whole is being fetched.
    fn join(&self, wanted: &Wanted, now: Moment) -> Joined {
        let (collapser, memory) = (&self.edge.collapser, &self.edge.memory);
        let variant = |want| collapse_variant(self.head, wanted.resource.as_deref(), want);
        if !matches!(wanted.want, Want::Whole)
            && let Some(follow) = collapser.follow(&self.key, variant(&Want::Whole), memory)
        {
            return Joined::Follower(follow);
        }
        collapser.join(&self.key, variant(&wanted.want), now, memory)
    }

    /// Validates a stored response while the client is served it stale (RFC 5861 §3), once for all requests.
    pub(super) fn refresh(&self, resource: Option<&Resource>, candidate: &Candidate<'_>, now: Moment) {
        if self.head.method != Method::GET {
            return;
        }
        let stored = candidate.stored();
        let (variant, want) = match candidate {
            Candidate::Part(..) => (collapse_variant(self.head, resource, &Want::Part), Want::Part),
            _ if stored.vary.is_empty() => (Box::default(), Want::Whole),
            _ => (stored.variant.clone(), Want::Whole),
        };
        if let Joined::Leader(lead) = self.edge.collapser.join(&self.key, variant, now, &self.edge.memory) {
            drop(self.fetch(lead, Some(stored), &want, Some(stored)));
        }
    }

    /// Whether a response that another request fetched may answer this one.
    fn suits(&self, meta: &Meta, (vary, variant): (&[HeaderName], &str), began: Moment) -> bool {
        if !vary.is_empty() && *variant_key(vary, &self.head.headers) != *variant {
            return false;
        }
        may_share(&self.facts, meta)
            && (began >= self.arrived
                || matches!(
                    decide(&self.facts, Some(meta), &self.route.rules, self.edge.clock.now()),
                    Decision::Serve { .. } | Decision::ServeAndRefresh { .. }
                ))
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
        // A response to a request with credentials is usually not shared: nobody without them waits for it.
        return format!("authorized {variant}").into();
    }
    variant
}
