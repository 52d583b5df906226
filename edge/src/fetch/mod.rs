//! One fetch for the cache: it owns the request to the upstream, fills a recording, and stores it. Its leader drives it to
//! the head; then, or when its leader leaves, it goes on as a task.
//!
//! ```text
//!   the tiers behind memory, if there are any --- have it ---> Found, or in memory and stale: whoever waits looks again
//!     |
//!   send --- no response ------------------> Failed                followers and leader decide on stale
//!     |---- 304 to none -----------> asked again for the whole, once; then Failed
//!     |---- 304 to our validators ---------> Stored                freshened in place
//!     |---- a failure status over an entry > ErrorStatus           the stored one stays; the leader has the response
//!     |---- 206 to a range we asked for ---> Filling ... stored    as a part; what it completes becomes a whole
//!     |---- policy refuses to store -------> NotShared + marker    the leader has the response, streamed to it alone
//!     '---- policy admits -----------------> Filling ... stored    readers follow the recording
//! ```
//!
//! The client that started it may leave at any time: a response that will be stored is filled to its end; one that will
//! not be stored stops with its reader.

pub mod fill;
pub mod freshen;
mod graphql_errors;
mod judge;
pub mod resume;
pub mod want;

use std::{ops::Range, pin::Pin, sync::Arc, task::Context, time::Duration};

use cache_policy::{
    Arrival, Decision, Meta, Newer, Parts, Reason, RequestFacts, Supply, displaces, may_replace,
    stated_length,
};
use http::{HeaderMap, Request, StatusCode, header, response};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    cache::{
        FetchOutcome, Key, Lead, Stored,
        collapse::Follow,
        markers::{Marker, Whose},
        memory::matches,
        not_stored::NotStored,
        purge::Generation,
        recording::Reader,
        stored::StoredId,
        tiers::TierQuery,
    },
    message::{affinity::Affinity, failure::Failure, hop_by_hop::strip_hop_by_hop},
    observe::evidence,
    settings::Route,
    state::Edge,
    upstream::{
        RequestBody, ResponseBody, Upstream, outbound::CacheQuestion, response_body::UpstreamResponse,
    },
};
use fill::{Destination, Fill, Placed};
use freshen::{Freshening, freshened};
use judge::{Judge, Judged, goes_on, withheld};
use resume::Resume;
use want::Want;

/// A fetch that is about to begin. It borrows nothing of the request that began it.
pub struct Fetch {
    /// The right to fetch.
    pub lead: Lead,
    pub request: Request<RequestBody>,
    /// What it fetches, and how the response is judged.
    pub subject: Subject,
}

/// What a fetch is for: a resource, and the context in which its response is judged.
pub struct Subject {
    pub key: Key,
    /// What the upstream is asked.
    pub question: CacheQuestion,
    /// The client's request, as policy sees it.
    pub facts: RequestFacts,
    pub route: Arc<Route>,
    pub upstream: Arc<Upstream>,
    /// What binds the request of the client that began it to a server.
    pub affinity: Affinity,
    /// The stored response under validation, or the one that a failure must not replace.
    pub stored: Option<Arc<Stored>>,
    /// The whole, a part, or a gap.
    pub want: Want,
    /// The part is a slice.
    pub slice: Option<Slice>,
    /// Largest body to keep, in bytes.
    pub largest: u64,
}

/// Octets that are stored by themselves, under a key of their own: see [`crate::cache::slices`].
#[derive(Clone, Debug)]
pub struct Slice {
    pub octets: Range<u64>,
    /// The key of the whole, which is stored under it where it comes in place of the slice.
    pub whole: Key,
}

/// The part of the result for the client that began the fetch, before anyone else learns of it.
pub enum LeaderShare {
    Answer(Box<Unshared>),
    /// Its place in the recording, taken first, so that the fill never finds itself without a reader; and the fields
    /// that are for this client alone.
    Reader(Reader, HeaderMap),
    /// This stored response answers, freshened by a 304: the fields of the 304 that are for this client alone.
    Freshened(StoredId, HeaderMap),
}

impl LeaderShare {
    /// Whether it belongs to this outcome: another fetch of the group may have been answered first, and then its head does
    /// not go with this body.
    pub fn is_of(&self, outcome: &FetchOutcome) -> bool {
        match (self, outcome) {
            (Self::Reader(reader, _), FetchOutcome::Filling(filling)) => reader.reads(&filling.recording),
            (Self::Reader(..), _) => false,
            (Self::Freshened(own, _), FetchOutcome::Stored(fresh)) => *own == fresh.id(),
            (Self::Freshened(..), _) => false,
            (Self::Answer(_), outcome) => !matches!(outcome, FetchOutcome::Filling(_)),
        }
    }
}

/// A response for its own client alone.
pub struct Unshared {
    /// As the upstream sent it.
    pub answer: UpstreamResponse,
    /// Why it is not stored.
    pub reason: Reason,
    /// From sending the request to this head.
    pub took: Duration,
}

/// A fetch under way. Whoever leads it drives it, as long as the head has not come; dropped before its end it goes on in a
/// task of its own, whatever becomes of its leader.
pub struct Driven(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driven {
    /// Takes it a step further.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        // Taken out: one that panics is gone.
        if let Some(mut fetch) = self.0.take()
            && fetch.as_mut().poll(context).is_pending()
        {
            self.0 = Some(fetch);
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if let Some(fetch) = self.0.take()
            // Without a runtime the edge has stopped.
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(fetch);
        }
    }
}

/// Begins the fetch. The receiver has the leader's share before the outcome is published.
pub fn start(edge: &Arc<Edge>, fetch: Fetch) -> (Driven, oneshot::Receiver<LeaderShare>) {
    let (leader, receiver) = oneshot::channel();
    (Driven(Some(Box::pin(run(Arc::clone(edge), fetch, leader)))), receiver)
}

async fn run(edge: Arc<Edge>, fetch: Fetch, leader: oneshot::Sender<LeaderShare>) {
    let Fetch { lead, request, mut subject } = fetch;
    // Boxed: usually there is no tier, and the fetch should not carry the room for asking one.
    if !edge.memory.tiers().is_empty()
        && let Some(outcome) = Box::pin(look_up_tiers(&edge, &subject, &lead)).await
    {
        return lead.publish(outcome, edge.clock.now());
    }
    match ask(&edge, request, &mut subject).await {
        Ok((answer, arrival)) => {
            let received = ReceivedResponse { answer, arrival, edge: &edge, subject: &subject };
            let judgement = received.judge();
            received.settle(judgement, &lead, leader).await;
        }
        Err(failure) => lead.publish(FetchOutcome::Failed(failure), edge.clock.now()),
    }
}

/// Sends the request and waits for the head of its answer, without the fields of one connection.
async fn ask(
    edge: &Edge,
    request: Request<RequestBody>,
    subject: &mut Subject,
) -> Result<(UpstreamResponse, Arrival), Failure> {
    let mut requested_at = edge.clock.now();
    let mut answer = subject.upstream.send_hedged(request, subject.affinity, &edge.clock).await?;
    if answer.status() == StatusCode::NOT_MODIFIED && !subject.question.validates() {
        // Its end gives the connection back.
        let _ = answer.body_mut().frame().await;
        subject.want = Want::Whole;
        requested_at = edge.clock.now();
        let whole = subject.question.for_whole();
        // Boxed: hardly any fetch needs the room for it.
        answer = Box::pin(subject.upstream.send(whole, subject.affinity, &edge.clock)).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Err(Failure::NotModifiedUnasked);
        }
    }
    if answer.status() == StatusCode::OK
        && let Some(slice) = subject.slice.take()
    {
        // It answers for the whole, and for no slice of it.
        (subject.key, subject.stored) = (slice.whole, None);
    }
    let received_at = edge.clock.now();
    let arrival = Arrival { requested_at, received_at, wall: edge.clock.wall_at(received_at) };
    strip_hop_by_hop(answer.headers_mut());
    Ok((answer, arrival))
}

/// What comes of a fetch that nobody joins.
#[expect(clippy::large_enum_variant, reason = "as a rule it is the large one")]
pub enum FetchedAlone {
    /// The response is for its own client, as the last one was.
    Unshared(Unshared),
    /// It concerns what is stored, or is stored itself.
    Led(Driven, oneshot::Receiver<LeaderShare>, Follow),
}

/// Fetches what could recently not be shared, and most likely can not be now: nobody joins, and a client that leaves before
/// the head has come cancels it. Only where the response concerns the cache after all is there a fetch that others know of.
///
/// # Errors
/// [`Failure`], where no head came.
pub async fn alone(
    edge: &Arc<Edge>,
    request: Request<RequestBody>,
    mut subject: Subject,
) -> Result<FetchedAlone, Failure> {
    let (began, generation) = (edge.clock.now(), edge.memory.generation());
    let (answer, arrival) = ask(edge, request, &mut subject).await?;
    let received = ReceivedResponse { answer, arrival, edge, subject: &subject };
    let judgement = match received.judge() {
        Judgement::Refuse(reason) => {
            received.refuse(reason);
            return Ok(FetchedAlone::Unshared(received.unshared(reason)));
        }
        judgement => judgement,
    };
    let answer = received.answer;
    let lead = edge.collapser.lead_since(&subject.key, began, generation);
    let (leader, own) = oneshot::channel();
    let (follow, edge) = (lead.follow(), Arc::clone(edge));
    let settles = async move {
        let received = ReceivedResponse { answer, arrival, edge: &edge, subject: &subject };
        received.settle(judgement, &lead, leader).await;
    };
    Ok(FetchedAlone::Led(Driven(Some(Box::pin(settles))), own, follow))
}

/// Whether a status is a 304 to a request that named no representation: it tells nothing (RFC 9110 §15.4.5).
pub fn is_unasked(status: StatusCode, asked: &HeaderMap) -> bool {
    status == StatusCode::NOT_MODIFIED
        && !asked.contains_key(header::IF_NONE_MATCH)
        && !asked.contains_key(header::IF_MODIFIED_SINCE)
}

/// A response whose head has come.
struct ReceivedResponse<'a> {
    answer: UpstreamResponse,
    arrival: Arrival,
    edge: &'a Edge,
    subject: &'a Subject,
}

/// The judgement of a response head.
enum Judgement {
    /// It may freshen the stored response.
    Freshens(Arc<Stored>),
    /// It switches protocols, which nobody asked for.
    Unasked,
    /// A failure, which does not replace what is stored.
    Fails(StatusCode),
    Store(Box<Judged>),
    Refuse(Reason),
    /// It contradicts the stored response, which is dropped: whoever waits looks up again.
    Contradicts,
}

impl ReceivedResponse<'_> {
    /// Publishes the outcome to those who wait; fills the cache with the body where it is to be stored.
    async fn settle(mut self, judgement: Judgement, lead: &Lead, leader: oneshot::Sender<LeaderShare>) {
        let answered = self.arrival.received_at;
        match judgement {
            Judgement::Freshens(stored) => {
                let outcome = self.freshened(&stored, lead.generation());
                if let FetchOutcome::Stored(fresh) = &outcome {
                    let rules = &self.subject.route.rules;
                    let fields = withheld(self.answer.headers(), &fresh.identity().head, rules);
                    hand_over(leader, LeaderShare::Freshened(fresh.id(), fields));
                }
                // A 304 has no content; reading its end gives the connection back.
                let _ = self.answer.body_mut().frame().await;
                lead.publish(outcome, answered);
            }
            Judgement::Unasked => lead.publish(FetchOutcome::Failed(Failure::Unasked), answered),
            Judgement::Fails(status) => {
                let own = self.unshared(Reason::StatusForbidsStoring);
                hand_over(leader, LeaderShare::Answer(Box::new(own)));
                lead.publish(FetchOutcome::ErrorStatus(status), answered);
            }
            Judgement::Contradicts => lead.publish(FetchOutcome::Nothing, answered),
            Judgement::Refuse(reason) => {
                self.refuse(reason);
                hand_over(leader, LeaderShare::Answer(Box::new(self.unshared(reason))));
                lead.publish(FetchOutcome::NotShared(reason), answered);
            }
            Judgement::Store(judged) => self.fill(judged, lead, leader).await,
        }
    }

    /// Drops what a response that is not stored has replaced, and remembers why it is not stored.
    fn refuse(&self, reason: Reason) {
        self.displace(reason);
        self.remember_refusal(reason);
    }

    fn took(&self) -> Duration {
        self.arrival.received_at.since(self.arrival.requested_at)
    }

    fn unshared(self, reason: Reason) -> Unshared {
        let took = self.took();
        Unshared { answer: self.answer, reason, took }
    }

    /// Updates the response under validation with the head of a 304.
    fn freshened(&self, stored: &Arc<Stored>, began: Generation) -> FetchOutcome {
        let Self { edge, subject: Subject { key, question, facts, route, .. }, .. } = self;
        let (head, fields) = (self.answer.headers(), &question.fields);
        let newer = Newer { request: facts, head, arrival: self.arrival, rules: &route.rules };
        let fresh = cache_policy::freshen(&stored.meta, &stored.identity().head, &newer)
            .and_then(|admitted| freshened(stored, admitted, &Freshening { fields, route, began }));
        match fresh {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                edge.memory.store_in_place_of(key, Some(stored.id()), Arc::clone(&fresh));
                FetchOutcome::Stored(fresh)
            }
            // It tells this client nothing to the disadvantage of the others: this one asks for itself.
            Err(reason) if may_be_about(facts, reason) => FetchOutcome::NotShared(reason),
            Err(reason) => {
                // The stored response is not the one the upstream validated: whoever waits fetches the whole.
                tracing::debug!(key = key.as_str(), %reason, "a 304 does not fit what is stored");
                edge.memory.remove(key, stored);
                FetchOutcome::Nothing
            }
        }
    }

    fn judge(&self) -> Judgement {
        let Self { edge, subject, arrival, .. } = self;
        let Subject { key, question, facts, route, stored, want, largest, .. } = subject;
        let (status, head, body) = (self.answer.status(), self.answer.headers(), self.answer.body());
        match (stored, status) {
            (Some(stored), StatusCode::NOT_MODIFIED) => return Judgement::Freshens(Arc::clone(stored)),
            (_, StatusCode::SWITCHING_PROTOCOLS) => return Judgement::Unasked,
            (Some(stored), status)
                if status == StatusCode::TOO_MANY_REQUESTS || !may_replace(&stored.meta, status) =>
            {
                return Judgement::Fails(status);
            }
            _ => {}
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE && !facts.is_personal() {
            match (want, stored) {
                // The edge's own range, inside what is stored: the representation has become shorter.
                (Want::Gap(gap), _) => {
                    edge.memory.remove(key, &gap.part);
                    return Judgement::Contradicts;
                }
                // The client's range says nothing about what is stored; a length that the origin states does.
                (Want::Part, Some(part)) if is_outgrown(part, head) => edge.memory.remove(key, part),
                _ => {}
            }
        }
        let fields = &question.fields;
        let judge = Judge { edge, facts, fields, route, arrival: *arrival, largest: *largest };
        let judged = match want {
            Want::Part if status == StatusCode::PARTIAL_CONTENT => match &subject.slice {
                None => judge.part(head, body),
                Some(slice) => judge.slice(head, body, &slice.octets),
            },
            Want::Gap(gap) if status == StatusCode::PARTIAL_CONTENT => match judge.gap(head, body, gap) {
                Ok(judged) => Ok(judged),
                // The stored part is as good as before, to the others if not to this client.
                Err(reason @ (Reason::TooLarge | Reason::NoRoom)) => Err(reason),
                Err(reason) if may_be_about(facts, reason) => Err(reason),
                Err(reason) => {
                    tracing::debug!(key = key.as_str(), %reason, "a part does not complete what is stored");
                    edge.memory.remove(key, &gap.part);
                    return Judgement::Contradicts;
                }
            },
            Want::Whole => judge.whole(status, head, body),
            Want::Part | Want::Gap(_) => judge.instead_of_part(status, head, body),
        };
        judged.map_or_else(Judgement::Refuse, |judged| Judgement::Store(Box::new(judged)))
    }

    /// Drops the stored response that this one, which is not stored, has replaced or withdrawn. What came after the request
    /// was sent is newer than this answer.
    fn displace(&self, reason: Reason) {
        let Self { edge, subject: Subject { key, question, facts, want, .. }, arrival, .. } = self;
        let status = self.answer.status();
        // A gap is the edge's own question about what is stored, and is asked under its validator; but a person's is answered
        // to that person.
        let withdrawn = matches!(want, Want::Gap(_))
            && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
            && !facts.is_personal();
        if withdrawn || displaces(facts, status, reason) {
            // Parts are kept for those whom the whole is too large for.
            let is_about_size = matches!(reason, Reason::TooLarge | Reason::NoRoom);
            let is_displaced = |stored: &Stored| {
                stored.meta.received_at <= arrival.requested_at
                    && matches(stored, &question.fields)
                    && (stored.parts().is_none() || !is_about_size)
            };
            if is_about_size {
                edge.memory.displace(key, is_displaced);
            } else {
                edge.memory.withdraw(key, arrival.requested_at, is_displaced);
            }
        }
    }

    /// The stored response that this one answers for, and takes the place of.
    fn replaced(&self) -> Option<StoredId> {
        let Subject { question, stored, want, .. } = self.subject;
        match want {
            Want::Gap(gap) => Some(gap.part.id()),
            Want::Whole | Want::Part => {
                let is_of = |stored: &&Arc<Stored>| matches(stored, &question.fields);
                stored.as_ref().filter(is_of).map(|stored| stored.id())
            }
        }
    }

    /// Remembers the refusal for later requests, which need not wait for one another, and for explanations: not again
    /// while the last one, for the same reason, will hold for long enough.
    fn remember_refusal(&self, reason: Reason) {
        let Self { edge, subject: Subject { key, question, facts, route, want, slice, .. }, arrival, .. } =
            self;
        let (status, at) = (self.answer.status(), arrival.received_at);
        // Who could not have the slice would be sent the whole, for which there is no room either.
        let is_passing = reason == Reason::NoRoom && slice.is_some();
        if let Some(time) = goes_on(want, status, reason).filter(|_| !is_passing) {
            let whose = Whose::of(facts);
            let last = edge.memory.marker(key, whose, at);
            if last.is_some_and(|last| last.reason == reason && at + time / 2 < last.until) {
                return;
            }
            edge.memory.mark(key, whose, Marker { until: at + time, reason });
        }
        let supply = Supply::of(status, self.answer.headers(), &route.rules);
        let lines = evidence::refusal(reason, &question.fields, self.answer.headers(), &route.rules);
        edge.memory.not_stored().remember(key, NotStored { reason, status, supply, at, lines });
    }

    async fn fill(self, judged: Box<Judged>, lead: &Lead, leader: oneshot::Sender<LeaderShare>) {
        let (took, replaced, answered) = (self.took(), self.replaced(), self.arrival.received_at);
        let Self { answer, edge, subject, arrival } = self;
        let Subject { key, facts, route, want, largest, .. } = subject;
        let (head, body) = answer.into_parts();
        let own_fields = withheld(&head.headers, &judged.head, &route.rules);
        let (filling, place, room) = judged.filling(lead.generation(), took);
        let resume = Resume::of(subject, &head, &filling.facts.meta.validators, filling.length);
        drop(head);
        if let Some(reader) = filling.recording.reader() {
            hand_over(leader, LeaderShare::Reader(reader, own_fields));
        }
        lead.publish(FetchOutcome::Filling(Arc::clone(&filling)), answered);
        let parts = place.map(|place| Placed {
            place,
            route: Arc::clone(route),
            want: want.clone(),
            request: *facts,
            arrival,
        });
        let destination = Destination { edge, key, lead, whose: Whose::of(facts), largest: *largest };
        let is_graphql = subject.question.asks_graphql();
        Fill { replaced, parts, resume, is_graphql, ..Fill::new(destination, &filling, room) }
            .run(body)
            .await;
    }
}

/// Asks the tiers behind memory before the upstream, once for everybody who waits. A response found is put in memory;
/// if policy does not let it be served at once, it is validated, or served in place of an error, as any stored
/// response.
async fn look_up_tiers(edge: &Edge, subject: &Subject, lead: &Lead) -> Option<FetchOutcome> {
    let tiers = edge.memory.tiers();
    let Subject { key, question, facts, route, stored, want, slice, largest, .. } = subject;
    // A response in memory is no older than a tier's; one that could recently not be shared is in no tier, nor is a slice.
    if stored.is_some() || matches!(want, Want::Gap(_)) || slice.is_some() || !lead.is_shared() {
        return None;
    }
    let decide = |meta: &Meta, now| cache_policy::decide(facts, Some(meta), &route.rules, now);
    let serves = |decision| matches!(decision, Decision::Serve { .. } | Decision::ServeAndRefresh { .. });
    let wanted = |meta: &Meta, now| match decide(meta, now) {
        Decision::Fetch(plan) => {
            let failure = cache_policy::UpstreamError::Disconnected;
            plan.validate || cache_policy::stale_on_error(facts, meta, &route.rules, failure, now).is_ok()
        }
        decision => serves(decision),
    };
    let query = TierQuery { key, request: &question.fields, began: lead.generation(), largest: *largest };
    let (found, tier) = tiers.look_up(&query, |bytes| edge.memory.reserve(bytes), wanted).await?;
    let found = Arc::new(found);
    edge.memory.store_found(key, Arc::clone(&found));
    Some(match serves(decide(&found.meta, edge.clock.now())) {
        true => FetchOutcome::Found(found, tier),
        // Whoever waits looks up again, and finds it in memory.
        false => FetchOutcome::Nothing,
    })
}

/// A response to an unsafe request that is to be kept for later GETs (RFC 9110 §9.3.3).
pub struct Keep {
    pub key: Key,
    /// A fetch that nobody joins.
    pub lead: Lead,
    /// The fields of the request as the upstream sees them, for `Vary`.
    pub fields: HeaderMap,
    /// The facts under which the response is admitted.
    pub facts: RequestFacts,
    pub route: Arc<Route>,
    /// When the response came.
    pub arrival: Arrival,
    /// Largest body to keep, in bytes.
    pub largest: u64,
}

/// Stores a response while it is read, also when its client leaves.
///
/// # Errors
/// The body, where policy does not admit the response.
#[expect(
    clippy::result_large_err,
    reason = "the error is the body itself, handed back to be sent on unstored"
)]
pub fn keep(
    edge: &Arc<Edge>,
    keep: Keep,
    head: &response::Parts,
    body: ResponseBody,
) -> Result<(Reader, Option<u64>), ResponseBody> {
    let Keep { key, lead, fields, facts, route, arrival, largest } = keep;
    let judge = Judge { edge, facts: &facts, fields: &fields, route: &route, arrival, largest };
    let Ok(judged) = judge.whole(head.status, &head.headers, &body) else { return Err(body) };
    let (filling, _, room) = judged.filling(lead.generation(), Duration::ZERO);
    let Some(reader) = filling.recording.reader() else { return Err(body) };
    let length = filling.length;
    let edge = Arc::clone(edge);
    tokio::spawn(async move {
        let whose = Whose::of(&facts);
        let destination = Destination { edge: &edge, key: &key, lead: &lead, whose, largest };
        // The answer to a POST is never resumed.
        Fill::new(destination, &filling, room).run(body).await;
    });
    Ok((reader, length))
}

/// Whether a refusal to store may be about who asks. Another representation is another one for everyone.
fn may_be_about(facts: &RequestFacts, reason: Reason) -> bool {
    reason.is_about_request() || facts.is_personal() && reason != Reason::ValidatorMismatch
}

/// Whether a 416 states another length of the whole than the stored part has.
fn is_outgrown(part: &Stored, head: &HeaderMap) -> bool {
    let complete = part.parts().and_then(Parts::complete_length);
    stated_length(head).is_some_and(|stated| complete.is_some_and(|complete| stated != complete))
}

/// The leader may have left; then its place, or its response, is dropped, which closes the upstream's connection.
fn hand_over(leader: oneshot::Sender<LeaderShare>, own: LeaderShare) {
    drop(leader.send(own));
}
