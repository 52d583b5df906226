//! One fetch for the cache: a task that owns the request to the upstream, fills a recording, and stores it.
//!
//! ```text
//!   the tiers behind memory, if there are any --- have it ---> Found, or in memory and stale: whoever waits looks again
//!     |
//!   send --- no response ------------------> Failed                followers and leader decide on stale
//!     |---- 304 to our validators ---------> Stored                freshened in place
//!     |---- a failure status over an entry > ErrorStatus           the entry stays; the leader has the response
//!     |---- 206 to a range we asked for ---> Filling ... stored    as a part; what it completes becomes a whole
//!     |---- policy refuses to store -------> NotShared + marker    the leader has the response, streamed to it alone
//!     '---- policy admits -----------------> Filling ... stored    readers follow the recording
//! ```
//!
//! The client that started it may leave at any time: what will be stored is filled to its end; what will not be stored
//! stops with its reader.

pub mod fill;
pub mod resume;
pub mod want;

use std::{sync::Arc, time::Duration};

use cache_policy::{
    Admitted, Arrival, ContentRange, Decision, Meta, Ranges, Reason, RequestFacts, Rules, Tag, Vary,
    admit_part, combined_head, may_combine, may_replace, tags, variant_key,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header, response};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::{
    cache::{
        FetchOutcome, Filling, Key, Lead, Recording, Stored,
        held::Gap,
        memory::{MARKER, Marker},
        not_stored::NotStored,
        purge::Generation,
        recording::Reader,
        reservation::Reservation,
        stored::Facts,
        tiers::TierQuery,
    },
    message::{failure::Failure, hop_by_hop::strip_hop_by_hop},
    observe::evidence,
    response::coding,
    settings::Route,
    state::Edge,
    upstream::{RequestBody, ResponseBody, Upstream, response_body::Answer},
};
use fill::{FIRST_ROOM, Fill, Placed};
use resume::Resume;
use want::Want;

/// Everything a fetch needs; it borrows nothing of the request that began it.
pub struct Fetch {
    /// The resource.
    pub key: Key,
    /// The right to fetch it.
    pub lead: Lead,
    /// The request to send.
    pub request: Request<RequestBody>,
    /// The client's request fields, for `Vary`.
    pub fields: HeaderMap,
    /// The client's request, as policy sees it.
    pub facts: RequestFacts,
    /// The route's rules.
    pub route: Arc<Route>,
    /// Where to send it.
    pub upstream: Arc<Upstream>,
    /// The entry under validation, or that a failure must not replace.
    pub stored: Option<Arc<Stored>>,
    /// What is asked for.
    pub want: Want,
    /// Largest body to keep, in bytes.
    pub largest: u64,
}

/// What the fetch gives to the client that began it, before anyone else learns of it.
pub enum LeaderShare {
    /// A response for it alone.
    Answer(Box<Unshared>),
    /// Its place in the recording: taken first, so that the fill never finds itself without a reader. With it the fields
    /// that are for this client alone.
    Reader(Reader, HeaderMap),
}

/// A response that its own client gets and nobody else.
pub struct Unshared {
    /// As the upstream sent it.
    pub answer: Answer,
    /// Why it is not stored.
    pub reason: Option<Reason>,
    /// From sending the request to this head.
    pub took: Duration,
}

/// Starts the fetch. The receiver has what is the leader's before the outcome is published.
pub fn start(edge: &Arc<Edge>, fetch: Fetch) -> oneshot::Receiver<LeaderShare> {
    let (leader, receiver) = oneshot::channel();
    tokio::spawn(run(Arc::clone(edge), fetch, leader));
    receiver
}

async fn run(edge: Arc<Edge>, fetch: Fetch, leader: oneshot::Sender<LeaderShare>) {
    // Boxed: as a rule there is no tier, and nobody carries the room for asking one about.
    if !edge.memory.tiers().is_empty()
        && let Some(outcome) = Box::pin(look_up_tiers(&edge, &fetch)).await
    {
        return fetch.lead.publish(outcome);
    }
    let Fetch { key, lead, request, fields, facts, route, upstream, stored, want, largest } = fetch;
    let requested_at = edge.clock.now();
    let asked = resume::copy(&request);
    let answer = match upstream.send(request, &edge.clock).await {
        Ok(answer) => answer,
        Err(failure) => return lead.publish(FetchOutcome::Failed(failure)),
    };
    let received_at = edge.clock.now();
    let arrival = Arrival { requested_at, received_at, wall: edge.clock.wall_at(received_at) };
    let took = received_at.since(requested_at);
    let (mut head, mut body) = answer.into_parts();
    strip_hop_by_hop(&mut head.headers);

    if head.status == StatusCode::NOT_MODIFIED
        && let Some(stored) = &stored
    {
        let outcome = match freshen(stored, &facts, &head.headers, arrival, &route.rules, lead.generation()) {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                edge.memory.store(&key, Arc::clone(&fresh));
                FetchOutcome::Stored(fresh)
            }
            Err(reason) => {
                // What we hold is not what the upstream means: whoever waits fetches it whole.
                tracing::debug!(key = key.as_str(), %reason, "a 304 does not fit what is stored");
                edge.memory.remove(&key, stored);
                FetchOutcome::Nothing
            }
        };
        // A 304 has no content; reading its end gives the connection back.
        let _ = body.frame().await;
        return lead.publish(outcome);
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return lead.publish(FetchOutcome::Failed(Failure::Unasked));
    }
    if stored.as_ref().is_some_and(|stored| !may_replace(&stored.meta, head.status)) {
        let status = head.status;
        let reason = Some(Reason::StatusForbidsStoring);
        let answer = Answer::from_parts(head, body);
        hand_over(leader, LeaderShare::Answer(Box::new(Unshared { answer, reason, took })));
        return lead.publish(FetchOutcome::ErrorStatus(status));
    }
    if head.status == StatusCode::RANGE_NOT_SATISFIABLE {
        // It is shorter than it was.
        if let Want::Gap(gap) = &want {
            edge.memory.remove(&key, &gap.part);
            return lead.publish(FetchOutcome::Nothing);
        }
        if let (Want::Part, Some(part)) = (&want, &stored) {
            edge.memory.remove(&key, part);
        }
    }
    let judge = Judge { edge: &edge, facts: &facts, fields: &fields, route: &route, arrival, largest };
    let judged = match &want {
        Want::Part if head.status == StatusCode::PARTIAL_CONTENT => judge.part(&head.headers, &body),
        Want::Gap(gap) if head.status == StatusCode::PARTIAL_CONTENT => {
            match judge.rest(&head.headers, &body, gap) {
                Ok(judged) => Ok(judged),
                Err(reason) => {
                    tracing::debug!(key = key.as_str(), %reason, "a part does not complete what is stored");
                    edge.memory.remove(&key, &gap.part);
                    return lead.publish(FetchOutcome::Nothing);
                }
            }
        }
        _ => judge.whole(&head, &body),
    };
    let judged = match judged {
        Ok(judged) => judged,
        Err(reason) => {
            if lasts(head.status, reason) {
                edge.memory.mark(&key, Marker { until: received_at + MARKER, reason });
            }
            let lines = [
                evidence::request_lines(reason, &fields),
                evidence::response_lines(Some(reason), &head.headers, None, &route.rules),
            ];
            let (status, lines) = (head.status, lines.concat());
            edge.memory.refused().remember(&key, NotStored { reason, status, at: received_at, lines });
            let answer = Answer::from_parts(head, body);
            hand_over(leader, LeaderShare::Answer(Box::new(Unshared { answer, reason: Some(reason), took })));
            return lead.publish(FetchOutcome::NotShared(reason));
        }
    };
    let own_fields = withheld(&head.headers, &judged.head);
    let resume = Resume::of(
        asked,
        (head.status, &head.headers),
        &judged.facts.meta.validators,
        judged.length,
        facts,
        (&route, &upstream),
    );
    let (filling, place, room) = judged.filling(lead.generation(), took);
    if let Some(reader) = filling.recording.reader() {
        hand_over(leader, LeaderShare::Reader(reader, own_fields));
    }
    lead.publish(FetchOutcome::Filling(Arc::clone(&filling)));
    let parts = place.map(|place| Placed { place, route: Arc::clone(&route), want });
    Fill { edge: &edge, key: &key, lead: &lead, filling: &filling, largest, room: Some(room), parts, resume }
        .run(body)
        .await;
}

/// What the tiers behind memory have, before the upstream is asked: once for everybody who waits. It is put in memory; what
/// policy does not let be served at once is validated, or stands in for an error, as if it had been there all the time.
async fn look_up_tiers(edge: &Edge, fetch: &Fetch) -> Option<FetchOutcome> {
    let tiers = edge.memory.tiers();
    let Fetch { key, lead, fields, facts, route, stored, want, largest, .. } = fetch;
    // What memory has is no older; what could not be shared of late is in no tier.
    if stored.is_some() || matches!(want, Want::Gap(_)) || !lead.is_shared() {
        return None;
    }
    let decide = |meta: &Meta, now| cache_policy::decide(facts, Some(meta), &route.rules, now);
    let serves = |decision| matches!(decision, Decision::Serve { .. } | Decision::ServeAndRefresh { .. });
    let wanted = |meta: &Meta, now| match decide(meta, now) {
        Decision::Fetch(plan) => {
            let failure = cache_policy::Failure::Disconnected;
            plan.validate || cache_policy::stale_on_error(facts, meta, &route.rules, failure, now).is_ok()
        }
        decision => serves(decision),
    };
    let query = TierQuery { key, request: fields, began: lead.generation(), largest: *largest };
    let (found, tier) = tiers.look_up(&query, |bytes| edge.memory.reserve(bytes), wanted).await?;
    let found = Arc::new(found);
    edge.memory.store_found(key, Arc::clone(&found));
    Some(match serves(decide(&found.meta, edge.clock.now())) {
        true => FetchOutcome::Found(found, tier),
        // Whoever waits looks again, and finds it in memory.
        false => FetchOutcome::Nothing,
    })
}

/// An answer to an unsafe request that is to be kept for later GETs (RFC 9110 §9.3.3).
pub struct Keep {
    /// The resource.
    pub key: Key,
    /// A fetch that nobody joins.
    pub lead: Lead,
    /// The request's fields, for `Vary`.
    pub fields: HeaderMap,
    /// The facts under which it is admitted.
    pub facts: RequestFacts,
    /// The route's rules.
    pub route: Arc<Route>,
    /// When it came.
    pub arrival: Arrival,
    /// Largest body to keep, in bytes.
    pub largest: u64,
}

/// Stores an answer while it is read, whatever becomes of its client.
///
/// # Errors
/// The body, where policy does not admit the answer.
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
    let Ok(judged) = judge.whole(head, &body) else { return Err(body) };
    let (filling, _, room) = judged.filling(lead.generation(), Duration::ZERO);
    let Some(reader) = filling.recording.reader() else { return Err(body) };
    let length = filling.length;
    let edge = Arc::clone(edge);
    tokio::spawn(async move {
        Fill {
            edge: &edge,
            key: &key,
            lead: &lead,
            filling: &filling,
            largest,
            room: Some(room),
            parts: None,
            // The answer to a POST is never resumed.
            resume: None,
        }
        .run(body)
        .await;
    });
    Ok((reader, length))
}

/// What an answer is judged by.
struct Judge<'a> {
    edge: &'a Edge,
    facts: &'a RequestFacts,
    fields: &'a HeaderMap,
    route: &'a Route,
    arrival: Arrival,
    largest: u64,
}

/// An answer that will be stored.
struct Judged {
    facts: Facts,
    head: HeaderMap,
    length: Option<u64>,
    /// Where in the whole what is being stored stands, where it is a part.
    place: Option<ContentRange>,
    /// Whether the answer is a part.
    partial: bool,
    room: Reservation,
}

impl Judged {
    fn filling(self, began: Generation, took: Duration) -> (Arc<Filling>, Option<ContentRange>, Reservation) {
        let Self { facts, head, length, place, partial, room } = self;
        let facts = Facts { began, ..facts };
        let filling = Filling { facts, head, length, recording: Recording::new(), partial, took };
        (Arc::new(filling), place, room)
    }
}

impl Judge<'_> {
    /// A whole response.
    fn whole(&self, head: &response::Parts, body: &ResponseBody) -> Result<Judged, Reason> {
        let length = http_body::Body::size_hint(body).exact();
        let rules = &self.route.rules;
        let admitted = cache_policy::admit(self.facts, head.status, &head.headers, self.arrival, rules)?;
        let room = room(self.edge, length, self.largest)?;
        let codable = self.route.compress && coding::codable(head.status, &admitted.head, length);
        self.judged(admitted, length, room, codable)
    }

    /// The part that was asked for.
    fn part(&self, head: &HeaderMap, body: &ResponseBody) -> Result<Judged, Reason> {
        let length = http_body::Body::size_hint(body).exact();
        let (admitted, place) = self.placed(head, length)?;
        let room = room(self.edge, length, self.largest)?;
        let judged = self.judged(admitted, length, room, false)?;
        Ok(Judged { place: Some(place), partial: true, ..judged })
    }

    /// What was missing: it and what is stored become the answer (RFC 9111 §3.4).
    fn rest(&self, head: &HeaderMap, body: &ResponseBody, gap: &Gap) -> Result<Judged, Reason> {
        let length = http_body::Body::size_hint(body).exact();
        let (admitted, place) = self.placed(head, length)?;
        if !may_combine(&gap.part.meta.validators, &admitted.meta.validators) {
            return Err(Reason::ValidatorMismatch);
        }
        if place.range != gap.range || place.complete.is_some_and(|complete| complete != gap.complete) {
            return Err(Reason::PartialUnusable);
        }
        let combined = combined_head(&gap.part.identity().head, head, None);
        let (mut admitted, _) = admit_part(self.facts, &combined, self.arrival, &self.route.rules)?;
        let wanted = ContentRange { range: gap.wanted.clone(), complete: Some(gap.complete) };
        let whole = gap.wanted == (0..gap.complete);
        if whole {
            admitted.meta.status = StatusCode::OK;
            admitted.head.remove(header::CONTENT_RANGE);
        } else {
            admitted.head.insert(header::CONTENT_RANGE, wanted.to_field());
        }
        let length = gap.wanted.end - gap.wanted.start;
        admitted.head.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let room = room(self.edge, Some(length), self.largest)?;
        let codable =
            whole && self.route.compress && coding::codable(StatusCode::OK, &admitted.head, Some(length));
        let judged = self.judged(admitted, Some(length), room, codable)?;
        Ok(Judged { place: Some(wanted), partial: !whole, ..judged })
    }

    /// A 206, and where it stands: as long as it says, or as the route has it.
    fn placed(&self, head: &HeaderMap, length: Option<u64>) -> Result<(Admitted, ContentRange), Reason> {
        let rules = &self.route.rules;
        let (admitted, place) = admit_part(self.facts, head, self.arrival, rules)?;
        match length {
            Some(length) if length != place.range.end - place.range.start => match rules.ranges {
                Ranges::Fitted if length > 0 => Ok((admitted, place.fitted_to(length))),
                _ => Err(Reason::PartialUnusable),
            },
            _ => Ok((admitted, place)),
        }
    }

    fn judged(
        &self,
        admitted: Admitted,
        length: Option<u64>,
        room: Reservation,
        codable: bool,
    ) -> Result<Judged, Reason> {
        let Admitted { meta, head, vary } = admitted;
        let tags: Box<[Tag]> = tags(&head)?.into();
        let vary = match vary {
            Vary::Fields(fields) => fields,
            Vary::Nothing | Vary::Any => Box::default(),
        };
        let variant = if vary.is_empty() { Box::default() } else { variant_key(&vary, self.fields) };
        let facts = Facts { meta, vary, variant, tags, began: Generation::default(), codable };
        Ok(Judged { facts, head, length, place: None, partial: false, room })
    }
}

/// The fields that `no-cache` or `private` names: the client that asked gets them, nobody else (RFC 9111 §5.2.2.4).
fn withheld(head: &HeaderMap, stored: &HeaderMap) -> HeaderMap {
    let only_here = |name: &HeaderName| !stored.contains_key(name) && !NEVER_WITHHELD.contains(name);
    head.iter()
        .filter(|(name, _)| only_here(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What is missing of a stored head for other reasons.
const NEVER_WITHHELD: [HeaderName; 4] =
    [header::AGE, header::CONTENT_RANGE, header::SET_COOKIE, HeaderName::from_static("set-cookie2")];

/// Takes room for a body before anyone is promised a share of it: all of it where its length is known.
fn room(edge: &Edge, length: Option<u64>, largest: u64) -> Result<Reservation, Reason> {
    match length {
        Some(length) if length > largest => Err(Reason::TooLarge),
        length => edge.memory.reserve(length.unwrap_or(FIRST_ROOM)).ok_or(Reason::NoRoom),
    }
}

/// Whether the next answers are likely to be refused for the same reason. What one client's request brought about says
/// nothing of the next client's answer, nor does a failure or a moment without room.
fn lasts(status: StatusCode, reason: Reason) -> bool {
    (status.is_success() || status.is_redirection())
        && !reason.is_about_request()
        && !matches!(reason, Reason::NoRoom | Reason::PartialUnusable)
}

/// The leader may have left; then its place is dropped, or its response, which closes the upstream's connection.
fn hand_over(leader: oneshot::Sender<LeaderShare>, own: LeaderShare) {
    drop(leader.send(own));
}

/// The entry under the head that a 304 has brought (RFC 9111 §4.3.4).
fn freshen(
    stored: &Stored,
    facts: &RequestFacts,
    head: &HeaderMap,
    arrival: Arrival,
    rules: &Rules,
    began: Generation,
) -> Result<Stored, Reason> {
    let admitted = cache_policy::freshen(&stored.meta, &stored.identity().head, facts, head, arrival, rules)?;
    let tags = tags(&admitted.head)?.into();
    Ok(stored.freshened(admitted.meta, &admitted.head, tags, began))
}
