//! Fetches for the cache: whether this request leads one or follows another's, and what its outcome means for this
//! request.

use std::{future::poll_fn, pin::pin, sync::Arc};

use cache_policy::{
    Decision, Forward, Meta, Moment, Plan, Reason, UpstreamError, bars_sharing, decide, may_combine_requests,
    may_share, variant_key,
};
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use tokio::sync::oneshot;

use super::{Answer, Exchange, Heard, Next, Wanted};
use crate::{
    cache::{
        FetchOutcome, Filling, Joined, Lead, Published, Resource, Stored,
        collapse::{Follow, Group, TakeOver, Wish},
        markers::{Marker, Whose},
        select::Candidate,
    },
    fetch::{
        self, Driven, Fetch, FetchedAlone, LeaderShare, Slice, Subject, Unshared,
        want::{self, Want},
    },
    message::failure::Failure,
    observe::verdict::Verdict,
    request::{as_sent::AsSent, refusal::Refusal},
    response::{body::Body, fields::Handling, known_length::known_length, representation},
    upstream::{
        RequestBody,
        outbound::{CacheQuestion, Wishes},
    },
};

/// What the upstream is asked for the cache.
struct UpstreamQuestion<'q> {
    /// The stored response that is validated, or that a failure must not replace.
    stored: Option<&'q Arc<Stored>>,
    want: &'q Want,
    /// The stored response whose validators are sent.
    validated: Option<&'q Arc<Stored>>,
    occasion: Occasion,
}

/// Why the cache asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// A client waits for the answer, and its directives are passed on.
    Client,
    /// The client has been answered; the question is the edge's own.
    Refresh,
}

/// The outcome of a fetch, from the point of view of one of those who share it.
struct Fetched {
    published: Published,
    /// The share of the leader, where this request leads and its own fetch was the one that answered.
    own: Option<LeaderShare>,
    /// When its own fetch began, where this request leads one.
    led: Option<Moment>,
}

impl Fetched {
    /// Whether the fetch that answered began after a request had arrived then.
    fn began_after(&self, arrived: Moment) -> bool {
        let began = self.published.began;
        began > arrived || self.led == Some(began)
    }
}

/// What a request has learnt from a fetch whose answer does not suit it.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// Only a later fetch is joined.
    after: Option<Group>,
    /// The answer, which may say what it varies on before it is stored.
    filling: Option<Arc<Filling>>,
}

impl Exchange<'_> {
    /// Waits for a fetch: another request's, or its own. Where responses could recently not be shared (`marker`) it is
    /// its own, and nobody joins it.
    pub(super) async fn share(
        &self,
        wanted: &Wanted,
        marker: Option<Marker>,
        learnt: &mut Learnt,
    ) -> Result<Next, Refusal> {
        *self.under_way.lock() = None;
        if marker.is_some() {
            let mut next = self.fetch_alone(wanted, learnt).await?;
            if let Next::Answer(answer) = &mut next {
                // It went by the cache because the last answer could not be shared; only the first was a miss.
                answer.status.forward = None;
            }
            return Ok(next);
        }
        let (group, fetched) = match self.join(wanted, learnt, self.edge.clock.now()) {
            Joined::Leader(lead) => {
                // A fetch that ended between the look-up and this join has stored its response, or could not.
                if self.is_outdated(wanted) || self.marker(wanted).is_some() {
                    return Ok(Next::LookAgain);
                }
                self.lead(lead, wanted).await
            }
            Joined::Follower(follow) => match self.follow(follow, wanted, learnt).await {
                Some(followed) => followed,
                None => return Ok(Next::LookAgain),
            },
        };
        self.learn(group, fetched, wanted, learnt).await
    }

    /// What the outcome of a group's fetch means for this request, and what it learns where that is nothing.
    async fn learn(
        &self,
        group: Group,
        fetched: Fetched,
        wanted: &Wanted,
        learnt: &mut Learnt,
    ) -> Result<Next, Refusal> {
        let filling = match &fetched.published.outcome {
            FetchOutcome::Filling(filling) => Some(Arc::clone(filling)),
            _ => None,
        };
        let next = self.use_outcome(fetched, wanted).await?;
        if matches!(next, Next::LookAgain) {
            *learnt = Learnt { after: Some(group), filling };
        }
        Ok(next)
    }

    /// Fetches for the cache what could recently not be shared: nobody joins.
    async fn fetch_alone(&self, wanted: &Wanted, learnt: &mut Learnt) -> Result<Next, Refusal> {
        let (request, subject) = self.subject(&self.question_of(wanted));
        if let Some(relay) = self.relay.clone() {
            request.body().progress().on_interim(move |status, headers| {
                relay.pass(status, headers);
            });
        }
        match fetch::alone(self.edge, request, subject).await {
            Ok(FetchedAlone::Unshared(own)) => Ok(self.use_own(own, wanted)),
            Ok(FetchedAlone::Led(driven, own, follow)) => {
                let (group, fetched) = self.lead_to_outcome(driven, own, follow).await;
                self.learn(group, fetched, wanted, learnt).await
            }
            Err(failure) => self.failed(failure, wanted),
        }
    }

    /// Why what this request wants could recently not be shared.
    pub(super) fn marker(&self, wanted: &Wanted) -> Option<Marker> {
        let marker = self.edge.memory.marker(&self.key, Whose::of(&self.facts), self.edge.clock.now())?;
        let largest = self.settings.cache.largest_object;
        want::concerns(&marker, &wanted.want, self.head, largest).then_some(marker)
    }

    /// Whether something else is stored than when this request looked up.
    fn is_outdated(&self, wanted: &Wanted) -> bool {
        let newest = self.edge.memory.look_up(&self.key);
        newest.as_ref().map(Arc::as_ptr) != wanted.resource.as_ref().map(Arc::as_ptr)
    }

    /// Waits for the outcome of others' fetches. When it is late, one of those who wait goes on: the next fetch of the
    /// group, for which the upstream chooses among its servers anew. `None`: look up again.
    async fn follow(
        &self,
        mut follow: Follow,
        wanted: &Wanted,
        learnt: &mut Learnt,
    ) -> Option<(Group, Fetched)> {
        let patience = self.upstream.settings().collapse_timeout;
        loop {
            let due = (follow.began() + patience).since(self.edge.clock.now());
            let waited = tokio::time::timeout(due, follow.outcome(self.relay.as_ref())).await;
            if let Ok(published) = waited {
                return Some((follow.group(), Fetched { published, own: None, led: None }));
            }
            if self.cookies().is_some() && !follow.variant().starts_with(WITH_COOKIES) {
                // It waits beside requests without cookies. What it would be answered is none to them, so it goes on for
                // itself.
                learnt.after = Some(follow.group());
                return None;
            }
            let (collapser, now) = (&self.edge.collapser, self.edge.clock.now());
            match collapser.take_over(&mut follow, now, patience, &self.edge.memory) {
                TakeOver::Lead(_) if self.is_outdated(wanted) || self.marker(wanted).is_some() => {
                    return None;
                }
                TakeOver::Lead(lead) => {
                    let variant = collapse_variant(&self.as_sent(), wanted.resource.as_deref(), &wanted.want);
                    let whole = matches!(wanted.want, Want::Whole);
                    return Some(if whole || *follow.variant() == *apart(self.cookies(), variant) {
                        self.lead(lead, wanted).await
                    } else {
                        // It asks for a part and waits for the whole, and so do others: the whole is asked for.
                        self.lead_for(lead, wanted, (&Want::Whole, None)).await
                    });
                }
                TakeOver::Waits => {}
                TakeOver::Gone => return None,
            }
        }
    }

    /// What the outcome of a fetch means for this request.
    async fn use_outcome(&self, mut fetched: Fetched, wanted: &Wanted) -> Result<Next, Refusal> {
        let stored = wanted.stored.as_ref();
        let published = fetched.published.clone();
        if wanted.heard == Heard::Perhaps && published.outcome.brings() && !fetched.began_after(self.arrived)
        {
            // Whatever was acknowledged before this request came, that fetch may have begun before it.
            return Ok(Next::LookAgain);
        }
        Ok(match &published.outcome {
            FetchOutcome::Filling(filling) => {
                self.read_along(filling, fetched.own.take(), &published, wanted).await
            }
            FetchOutcome::Stored(fresh) => {
                let mut next = self.serve_freshened(fresh, &published, wanted);
                if let (Next::Answer(answer), Some(LeaderShare::Freshened(_, own))) = (&mut next, fetched.own)
                {
                    answer.response.headers_mut().extend(own);
                }
                next
            }
            FetchOutcome::Found(found, tier) => {
                self.serve_found(found, tier).map_or(Next::LookAgain, Next::Answer)
            }
            FetchOutcome::Failed(failure) => self.failed(failure.clone(), wanted)?,
            FetchOutcome::ErrorStatus(status) => {
                let own = fetched.own.take();
                let failure = match own {
                    Some(_) => UpstreamError::Status(*status),
                    None => UpstreamError::Shared(*status),
                };
                match (self.stale(stored, failure), own) {
                    (Some(mut answer), _) => {
                        answer.status.forward = Some(Forward::of(wanted.plan.reason));
                        Next::Answer(answer)
                    }
                    (None, Some(LeaderShare::Answer(own))) => {
                        let reason = self.unserved(stored, failure).unwrap_or(own.reason);
                        Next::Answer(self.deliver(Unshared { reason, ..*own }, &wanted.plan))
                    }
                    (None, _) => Next::Pass(wanted.plan.reason),
                }
            }
            FetchOutcome::Nothing => Next::LookAgain,
            FetchOutcome::NotShared(reason) => match fetched.own.take() {
                Some(LeaderShare::Answer(own)) => self.use_own(*own, wanted),
                // Somebody with cookies went on for those who wait: that tells nothing about requests without.
                _ if !self.facts.is_concerned_by(*reason) => Next::LookAgain,
                _ => Next::Pass(*reason),
            },
        })
    }

    /// What its own answer means for a request, where nobody else may have it.
    fn use_own(&self, own: Unshared, wanted: &Wanted) -> Next {
        let asks_for_range = self.facts.asks_for_range();
        // The upstream was asked for something else: for octets between stored ones, or for the whole. A part of a
        // response that is not stored is asked for as a part.
        let is_another = match wanted.want {
            Want::Gap(_) => asks_for_range || is_about_a_range(own.answer.status()),
            Want::Whole => asks_for_range && !want::asks_for_everything(self.head),
            Want::Part => false,
        };
        if is_another { Next::Pass(own.reason) } else { Next::Answer(self.deliver(own, &wanted.plan)) }
    }

    /// What it means that the upstream has not answered.
    fn failed(&self, failure: Failure, wanted: &Wanted) -> Result<Next, Refusal> {
        let stale = self.stale(wanted.stored.as_ref(), UpstreamError::Disconnected);
        stale.map(Next::Answer).ok_or(Refusal::Upstream(failure))
    }

    /// Answers from a body that is being filled, while it is filled, if it suits this request.
    async fn read_along(
        &self,
        filling: &Filling,
        own: Option<LeaderShare>,
        published: &Published,
        wanted: &Wanted,
    ) -> Next {
        let (reader, own_fields, verdict) = match own {
            Some(LeaderShare::Reader(reader, fields)) => (Some(reader), fields, Verdict::Miss),
            _ => (filling.recording.reader(), HeaderMap::new(), Verdict::Collapsed),
        };
        let facts = &filling.facts;
        match reader {
            Some(mut reader) if self.suits(&facts.meta, (&facts.vary, &facts.variant), published) => {
                let length = known_length(self.head_of(filling.partial), filling, &mut reader).await;
                if reader.is_cut() {
                    // Others are too far ahead by now. Nothing has been sent, so it asks for itself.
                    return Next::LookAgain;
                }
                let read = (reader, length);
                let mut answer = self.serve_filling(filling, read, &wanted.plan, verdict);
                answer.response.headers_mut().extend(own_fields);
                Next::Answer(answer)
            }
            // It will be found again when the request looks again, and answers it no more than now.
            _ => match bars_sharing(&self.facts, &facts.meta) {
                Some(reason) if self.is_of_variant(&facts.vary, &facts.variant) => Next::Pass(reason),
                _ => Next::LookAgain,
            },
        }
    }

    /// Answers with the response that a 304 has freshened, if it suits this request.
    fn serve_freshened(&self, fresh: &Arc<Stored>, published: &Published, wanted: &Wanted) -> Next {
        if !self.suits(&fresh.meta, (&fresh.vary, &fresh.variant), published) {
            return Next::LookAgain;
        }
        let Some(candidate) = Candidate::of(self.head, fresh) else { return Next::LookAgain };
        let status = Handling {
            forward_status: Some(StatusCode::NOT_MODIFIED),
            stored: true,
            ..Handling::new(Verdict::Revalidated, Some(wanted.plan.reason))
        };
        Next::Answer(self.serve(&candidate, status))
    }

    /// Answers with a response fetched by this `plan` that turned out to be for this request alone.
    fn deliver(&self, own: Unshared, plan: &Plan) -> Answer {
        let Unshared { answer, reason, took } = own;
        let cookie = self.sticky_cookie(&answer);
        let (parts, body) = answer.into_parts();
        let status = Handling {
            forward: Some(Forward::of(plan.reason)),
            forward_status: Some(parts.status),
            ..Handling::new(Verdict::Miss, Some(reason))
        };
        let via = Some(parts.version);
        let body = Body::Upstream(Box::new(body));
        let wall = self.edge.clock.wall();
        let head = self.head_of(parts.status != StatusCode::OK);
        let mut response = representation::unshared(head, parts, body, self.on_its_way(), wall);
        if matches!(reason, Reason::NoFreshness | Reason::TooLarge | Reason::NoRoom | Reason::TagsUnusable) {
            self.tell_browsers(&mut response, 0);
        }
        response.headers_mut().extend(cookie);
        Answer { response, status, via, upstream: Some(took) }
    }

    /// Fetches for the cache and for whoever joins, in a task of its own, and waits for the head.
    async fn lead(&self, lead: Lead, wanted: &Wanted) -> (Group, Fetched) {
        self.lead_for(lead, wanted, (&wanted.want, wanted.stored.as_ref())).await
    }

    async fn lead_for(
        &self,
        lead: Lead,
        wanted: &Wanted,
        (want, stored): (&Want, Option<&Arc<Stored>>),
    ) -> (Group, Fetched) {
        let follow = lead.follow();
        let question = UpstreamQuestion {
            stored,
            want,
            validated: stored.filter(|_| wanted.plan.validate),
            occasion: Occasion::Client,
        };
        let (driven, own) = self.fetch(lead, &question);
        self.lead_to_outcome(driven, own, follow).await
    }

    /// Drives a fetch until its outcome is known. If this is dropped before, because the client leaves, the fetch goes on.
    async fn lead_to_outcome(
        &self,
        mut driven: Driven,
        mut own: oneshot::Receiver<LeaderShare>,
        mut follow: Follow,
    ) -> (Group, Fetched) {
        let (group, led) = (follow.group(), Some(follow.began()));
        let published = {
            let mut outcome = pin!(follow.outcome(self.relay.as_ref()));
            poll_fn(|context| {
                driven.poll(context);
                outcome.as_mut().poll(context)
            })
            .await
        };
        // The fetch hands the leader's share over before it publishes; also where another of the group was faster.
        let own = own.try_recv().ok().filter(|own| own.is_of(&published.outcome));
        (group, Fetched { published, own, led })
    }

    /// What is asked of the upstream for the cache where a client waits.
    fn question_of<'w>(&self, wanted: &'w Wanted) -> UpstreamQuestion<'w> {
        let stored = wanted.stored.as_ref();
        let validated = stored.filter(|_| wanted.plan.validate);
        UpstreamQuestion { stored, want: &wanted.want, validated, occasion: Occasion::Client }
    }

    fn fetch(&self, lead: Lead, asked: &UpstreamQuestion<'_>) -> (Driven, oneshot::Receiver<LeaderShare>) {
        let (request, subject) = self.subject(asked);
        if self.facts.is_personal() {
            // Whether the answer is for others as well is not known yet: what comes before it is for this client.
            let relay = self.relay.clone().filter(|_| asked.occasion == Occasion::Client);
            if let Some(relay) = relay {
                request.body().progress().on_interim(move |status, headers| {
                    relay.pass(status, headers);
                });
            }
        } else {
            let informing = lead.informing();
            request.body().progress().on_interim(move |status, headers| {
                informing.pass(status, headers);
            });
        }
        fetch::start(self.edge, Fetch { lead, request, subject })
    }

    /// The request that asks, and what it is for.
    fn subject(&self, asked: &UpstreamQuestion<'_>) -> (Request<RequestBody>, Subject) {
        let &UpstreamQuestion { stored, want, validated, occasion } = asked;
        let (facts, wishes) = match occasion {
            Occasion::Client => (self.facts, Wishes::Told),
            Occasion::Refresh => (self.facts.for_refresh(), Wishes::Untold),
        };
        // Of other methods than GET and QUERY conditions mean something else (RFC 9110 §13.2).
        let validated = validated.filter(|_| self.asked.is_none_or(|asked| asked.method.as_str() == "QUERY"));
        let conditions = want::fields(want, self.head, validated);
        let errand = self.errand_for_all();
        let question =
            CacheQuestion::new(&self.as_sent(), self.key.path_and_query(), conditions, wishes, errand)
                .asking(self.asked);
        let request = question.request();
        if occasion == Occasion::Client {
            *self.under_way.lock() = Some(request.body().progress());
        }
        let subject = Subject {
            key: self.key.clone(),
            question,
            facts,
            route: Arc::clone(self.route),
            upstream: Arc::clone(self.upstream),
            affinity: self.affinity(),
            stored: stored.cloned(),
            want: want.clone(),
            slice: self
                .part
                .as_ref()
                .map(|part| Slice { octets: part.octets.clone(), whole: part.whole.clone() }),
            largest: self.settings.cache.largest_object,
        };
        (request, subject)
    }

    /// Joins the fetch under way, or leads one. A part is not fetched where the whole is being fetched.
    fn join(&self, wanted: &Wanted, learnt: &Learnt, now: Moment) -> Joined {
        let (collapser, memory) = (&self.edge.collapser, &self.edge.memory);
        let mine = self.cookies();
        let wish = |cookies, want| {
            let variant = match &learnt.filling {
                Some(filling) if !filling.facts.vary.is_empty() => {
                    let values = variant_key(&filling.facts.vary, &self.as_sent());
                    with_part_and_credentials(values, &self.as_sent(), want)
                }
                _ => collapse_variant(&self.as_sent(), wanted.resource.as_deref(), want),
            };
            Wish { key: &self.key, variant: apart(cookies, variant), after: learnt.after }
        };
        if !matches!(wanted.want, Want::Whole)
            && let Some(follow) = collapser.follow(wish(mine, &Want::Whole), memory)
        {
            return Joined::Follower(follow);
        }
        // What is fetched without cookies may be for everyone: `suits` sees to it that it is.
        if mine.is_some()
            && let Some(follow) = collapser.follow(wish(None, &wanted.want), memory)
        {
            return Joined::Follower(follow);
        }
        collapser.join(wish(mine, &wanted.want), now, memory)
    }

    /// Validates a stored response while the client is served it stale (RFC 5861 §3), once for all requests.
    pub(super) fn refresh(&self, resource: Option<&Resource>, candidate: &Candidate<'_>, now: Moment) {
        let stored = candidate.stored();
        let (variant, want) = match candidate {
            Candidate::Part(..) => (collapse_variant(&self.as_sent(), resource, &Want::Part), Want::Part),
            _ if stored.vary.is_empty() => (Box::default(), Want::Whole),
            _ => (stored.variant.clone(), Want::Whole),
        };
        let variant = apart(self.cookies(), variant);
        let wish = Wish { key: &self.key, variant, after: None };
        if let Joined::Leader(lead) = self.edge.collapser.join(wish, now, &self.edge.memory) {
            let (stored, occasion) = (Some(stored), Occasion::Refresh);
            drop(self.fetch(lead, &UpstreamQuestion { stored, want: &want, validated: stored, occasion }));
        }
    }

    /// Whether a response that another request fetched may answer this one.
    fn suits(
        &self,
        meta: &Meta,
        (vary, variant): (&[HeaderName], &str),
        &Published { began, answered, .. }: &Published,
    ) -> bool {
        if !self.is_of_variant(vary, variant) {
            return false;
        }
        may_share(&self.facts, meta)
            && (may_combine_requests(&self.facts, self.arrived, began, answered)
                || matches!(
                    decide(&self.facts, Some(meta), &self.route.rules, self.edge.clock.now()),
                    Decision::Serve { .. } | Decision::ServeAndRefresh { .. }
                ))
    }

    fn cookies(&self) -> Option<CookiesMatter> {
        self.facts.minds_cookies().then_some(CookiesMatter)
    }

    fn is_of_variant(&self, vary: &[HeaderName], variant: &str) -> bool {
        vary.is_empty() || *variant_key(vary, &self.as_sent()) == *variant
    }
}

/// Whether a response with this status answers a range, and nothing else.
fn is_about_a_range(status: StatusCode) -> bool {
    matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE)
}

/// Cookies that matter go upstream with a fetch.
#[derive(Clone, Copy, Debug)]
struct CookiesMatter;

/// The answer to a request with cookies is often its own: nobody without any waits for it.
fn apart(cookies: Option<CookiesMatter>, variant: Box<str>) -> Box<str> {
    match cookies {
        Some(CookiesMatter) => format!("{WITH_COOKIES}{variant}").into(),
        None => variant,
    }
}

/// No variant begins so: a request's own fields cannot bring it among those with cookies.
const WITH_COOKIES: &str = "\0cookies ";

/// What requests for one resource must agree on to share a fetch, as far as it is known before the answer.
fn collapse_variant(sent: &AsSent<'_>, resource: Option<&Resource>, want: &Want) -> Box<str> {
    let values = resource.map_or_else(Box::default, |resource| resource.collapse_key(sent));
    with_part_and_credentials(values, sent, want)
}

/// The request's values of `Vary`, with the part that it asks for and whether it has credentials.
fn with_part_and_credentials(mut variant: Box<str>, sent: &AsSent<'_>, want: &Want) -> Box<str> {
    if let Some(part) = want::collapse_key(want, sent.head) {
        // No variant holds a NUL.
        variant = format!("{variant}\0{part}").into();
    }
    if sent.head.headers.contains_key(header::AUTHORIZATION) || !sent.told.is_empty() {
        // A response to a request with credentials is usually not shared: nobody without them waits for it.
        return format!("\0authorized {variant}").into();
    }
    variant
}
