//! One fetch for the cache: a task that owns the request to the upstream, fills a recording, and stores it.
//!
//! ```text
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

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use cache_policy::{
    Admitted, Arrival, ContentRange, Ranges, Reason, RequestFacts, Rules, Tag, Vary, admit_part,
    combined_head, may_combine, may_replace, tags, variant_key,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header, response};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::{
    body::BodyError,
    cache::{
        Filling, Key, Lead, Outcome, Recording, Segments, Stored,
        memory::{Marker, Reservation},
        purge::Generation,
        recording::{Reader, Room},
        segments::SegmentsReader,
        stored::Facts,
    },
    compress,
    failure::Failure,
    settings::Route,
    state::Edge,
    upstream::{Answer, RequestBody, ResponseBody, Upstream, outbound},
};

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

/// What of a representation is asked for.
#[derive(Clone, Debug)]
pub enum Want {
    /// All of it.
    Whole,
    /// The part that the client asks for.
    Part,
    /// What is missing of a part that is stored.
    Rest(Rest),
}

/// What is missing to answer from a stored part.
#[derive(Clone, Debug)]
pub struct Rest {
    /// What is stored.
    pub part: Arc<Stored>,
    /// The octets missing; the request asks for them.
    pub gap: Range<u64>,
    /// The octets wanted, in which the gap lies.
    pub wanted: Range<u64>,
    /// The length of the whole.
    pub complete: u64,
}

/// What the fetch gives to the client that began it, before anyone else learns of it.
pub enum Own {
    /// A response for it alone.
    Answer(Box<Handover>),
    /// Its place in the recording: taken first, so that the fill never finds itself without a reader. With it the fields
    /// that are for this client alone.
    Reader(Reader, HeaderMap),
}

/// A response that its own client gets and nobody else.
pub struct Handover {
    /// As the upstream sent it.
    pub answer: Answer,
    /// Why it is not stored.
    pub reason: Option<Reason>,
    /// From sending the request to this head.
    pub took: Duration,
}

/// Starts the fetch. The receiver has what is the leader's before the outcome is published.
pub fn start(edge: &Arc<Edge>, fetch: Fetch) -> oneshot::Receiver<Own> {
    let (leader, receiver) = oneshot::channel();
    tokio::spawn(run(Arc::clone(edge), fetch, leader));
    receiver
}

async fn run(edge: Arc<Edge>, fetch: Fetch, leader: oneshot::Sender<Own>) {
    let Fetch { key, lead, request, fields, facts, route, upstream, stored, want, largest } = fetch;
    let requested_at = edge.clock.now();
    let answer = match upstream.send(request, &edge.clock).await {
        Ok(answer) => answer,
        Err(failure) => return lead.publish(Outcome::Failed(failure)),
    };
    let received_at = edge.clock.now();
    let arrival = Arrival { requested_at, received_at, wall: edge.clock.wall_at(received_at) };
    let took = received_at.since(requested_at);
    let (mut head, mut body) = answer.into_parts();
    outbound::strip_hop_by_hop(&mut head.headers);

    if head.status == StatusCode::NOT_MODIFIED
        && let Some(stored) = &stored
    {
        let outcome = match freshen(stored, &facts, &head.headers, arrival, &route.rules, lead.generation()) {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                edge.memory.store(&key, Arc::clone(&fresh));
                Outcome::Stored(fresh)
            }
            Err(reason) => {
                // What we hold is not what the upstream means: whoever waits fetches it whole.
                tracing::debug!(key = key.as_str(), %reason, "a 304 does not fit what is stored");
                edge.memory.remove(&key, stored);
                Outcome::Nothing
            }
        };
        // A 304 has no content; reading its end gives the connection back.
        let _ = body.frame().await;
        return lead.publish(outcome);
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return lead.publish(Outcome::Failed(Failure::Unasked));
    }
    if stored.as_ref().is_some_and(|stored| !may_replace(&stored.meta, head.status)) {
        let status = head.status;
        let reason = Some(Reason::StatusForbidsStoring);
        let answer = Answer::from_parts(head, body);
        hand_over(leader, Own::Answer(Box::new(Handover { answer, reason, took })));
        return lead.publish(Outcome::ErrorStatus(status));
    }
    if let Want::Rest(rest) = &want
        && head.status == StatusCode::RANGE_NOT_SATISFIABLE
    {
        // It is shorter than it was.
        edge.memory.remove(&key, &rest.part);
        return lead.publish(Outcome::Nothing);
    }
    let judge = Judge { edge: &edge, facts: &facts, fields: &fields, route: &route, arrival, largest };
    let judged = match &want {
        Want::Part if head.status == StatusCode::PARTIAL_CONTENT => judge.part(&head.headers, &body),
        Want::Rest(rest) if head.status == StatusCode::PARTIAL_CONTENT => {
            match judge.rest(&head.headers, &body, rest) {
                Ok(judged) => Ok(judged),
                Err(reason) => {
                    tracing::debug!(key = key.as_str(), %reason, "a part does not complete what is stored");
                    edge.memory.remove(&key, &rest.part);
                    return lead.publish(Outcome::Nothing);
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
            let answer = Answer::from_parts(head, body);
            hand_over(leader, Own::Answer(Box::new(Handover { answer, reason: Some(reason), took })));
            return lead.publish(Outcome::NotShared(reason));
        }
    };
    let own_fields = withheld(&head.headers, &judged.head);
    let (filling, place, room) = judged.filling(lead.generation(), took);
    if let Some(reader) = filling.recording.reader() {
        hand_over(leader, Own::Reader(reader, own_fields));
    }
    lead.publish(Outcome::Filling(Arc::clone(&filling)));
    let parts = place.map(|place| Placed { place, route: Arc::clone(&route), want });
    Fill { edge: &edge, key: &key, lead: &lead, filling: &filling, largest, room: Some(room), parts }
        .run(body)
        .await;
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
        let codable = self.route.compress && compress::codable(head.status, &admitted.head, length);
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
    fn rest(&self, head: &HeaderMap, body: &ResponseBody, rest: &Rest) -> Result<Judged, Reason> {
        let length = http_body::Body::size_hint(body).exact();
        let (admitted, place) = self.placed(head, length)?;
        if !may_combine(&rest.part.meta.validators, &admitted.meta.validators) {
            return Err(Reason::ValidatorMismatch);
        }
        if place.range != rest.gap || place.complete.is_some_and(|complete| complete != rest.complete) {
            return Err(Reason::PartialUnusable);
        }
        let combined = combined_head(&rest.part.identity().head, head, None);
        let (mut admitted, _) = admit_part(self.facts, &combined, self.arrival, &self.route.rules)?;
        let wanted = ContentRange { range: rest.wanted.clone(), complete: Some(rest.complete) };
        let whole = rest.wanted == (0..rest.complete);
        if whole {
            admitted.meta.status = StatusCode::OK;
            admitted.head.remove(header::CONTENT_RANGE);
        } else {
            admitted.head.insert(header::CONTENT_RANGE, wanted.to_field());
        }
        let length = rest.wanted.end - rest.wanted.start;
        admitted.head.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let room = room(self.edge, Some(length), self.largest)?;
        let codable =
            whole && self.route.compress && compress::codable(StatusCode::OK, &admitted.head, Some(length));
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
fn hand_over(leader: oneshot::Sender<Own>, own: Own) {
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

/// The body of a response on its way into the cache.
struct Fill<'a> {
    edge: &'a Edge,
    key: &'a Key,
    lead: &'a Lead,
    filling: &'a Filling,
    largest: u64,
    /// What is taken of the tier's room; given back when the body is stored or passed on.
    room: Option<Reservation>,
    /// Where it is a part.
    parts: Option<Placed>,
}

/// A part on its way into the cache.
struct Placed {
    /// Where it stands, with the octets that were stored before.
    place: ContentRange,
    route: Arc<Route>,
    want: Want,
}

impl Placed {
    /// Octets stored already that come before, or after, what is fetched.
    fn stored(&self, after: bool) -> Option<SegmentsReader> {
        let Want::Rest(rest) = &self.want else { return None };
        let range = if after { rest.gap.end..rest.wanted.end } else { rest.wanted.start..rest.gap.start };
        if range.is_empty() { None } else { rest.part.read_part(&range) }
    }
}

impl Fill<'_> {
    /// Fills the recording to its end, and stores it.
    async fn run(mut self, mut body: ResponseBody) {
        let recording = FillGuard { recording: &self.filling.recording, ended: false };
        let mut length = 0;
        let mut trailers = None;
        let mut keeps = true;
        length += self.push_stored(false);
        loop {
            if !keeps && self.wait_for_readers().await == Room::NobodyReads {
                return;
            }
            let frame = match body.frame().await {
                None => break,
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    tracing::info!(key = self.key.as_str(), %error, "a fill broke off and is not stored");
                    return recording.fail(error);
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    length += data.len() as u64;
                    if keeps && !self.has_room(length) {
                        keeps = false;
                        self.let_go();
                    }
                    // A deep copy while it is kept: the piece is a slice of the connection's read buffer.
                    self.filling.recording.push(if keeps { Bytes::copy_from_slice(&data) } else { data });
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        length += self.push_stored(true);
        if let Some(parts) = &self.parts
            && length != parts.place.range.end - parts.place.range.start
        {
            tracing::info!(key = self.key.as_str(), "a part is not as long as it said and is not stored");
            // Who follows an answer put together from two was promised its length.
            return if matches!(parts.want, Want::Rest(_)) {
                recording.fail(BodyError::Abandoned);
            } else {
                drop(recording.finish(trailers));
            };
        }
        let Some(segments) = recording.finish(trailers) else { return };
        if let Some(parts) = &self.parts
            && self.filling.partial
        {
            self.store_part(parts, segments);
        } else {
            let codable = self.filling.facts.codable && segments.length() >= compress::SMALLEST;
            let facts = Facts { codable, ..self.filling.facts.clone() };
            let stored = Stored::new(facts, &self.filling.head, segments);
            self.edge.memory.store(self.key, Arc::new(stored));
        }
    }

    /// Adds the stored octets round what is fetched; says how many.
    fn push_stored(&self, after: bool) -> u64 {
        let Some(mut reader) = self.parts.as_ref().and_then(|parts| parts.stored(after)) else { return 0 };
        let length = reader.left();
        while let Some(piece) = reader.next_piece() {
            self.filling.recording.push(piece);
        }
        length
    }

    /// Stores a part, together with what is stored of the same representation; all of it becomes a whole.
    fn store_part(&self, parts: &Placed, segments: Segments) {
        let Filling { facts, head, .. } = self.filling;
        let resource = self.edge.memory.look_up(self.key);
        let held = resource
            .as_ref()
            .and_then(|resource| resource.part_of(&facts.vary, &facts.variant))
            .filter(|held| may_combine(&held.meta.validators, &facts.meta.validators));
        let joined = held.and_then(|held| {
            let (held_now, body) = held.joined(&parts.place, &segments)?;
            (body.length() <= self.largest).then(|| {
                let whole = held_now.complete_length().filter(|_| held_now.is_whole());
                let head = combined_head(&held.identity().head, head, whole);
                match whole {
                    Some(length) => {
                        let mut facts = facts.clone();
                        facts.meta.status = StatusCode::OK;
                        facts.codable = parts.route.compress
                            && length >= compress::SMALLEST
                            && compress::codable(StatusCode::OK, &head, Some(length));
                        Stored::new(facts, &head, body)
                    }
                    None => Stored::of_parts(facts.clone(), &head, body, held_now),
                }
            })
        });
        let stored = joined.or_else(|| Stored::part(facts.clone(), head, segments, &parts.place));
        if let Some(stored) = stored {
            self.edge.memory.store(self.key, Arc::new(stored));
        }
    }

    /// Whether `length` bytes may be kept; takes more room where the upstream did not say how many there would be.
    fn has_room(&mut self, length: u64) -> bool {
        let Some(room) = &mut self.room else { return false };
        if length > self.largest {
            return false;
        }
        // Twice as much each time: few steps, and never more than twice what is held.
        while room.bytes() < length {
            match self.edge.memory.reserve(room.bytes().max(FIRST_ROOM)) {
                Some(more) => room.join(more),
                None => return false,
            }
        }
        true
    }

    /// It turned out too large on the way: those who already read it get the rest, nobody else joins, nothing is stored.
    fn let_go(&self) {
        let until = self.edge.clock.now() + MARKER;
        self.edge.memory.mark(self.key, Marker { until, reason: Reason::TooLarge });
        self.lead.close();
        self.filling.recording.let_go();
    }

    async fn wait_for_readers(&mut self) -> Room {
        loop {
            match tokio::time::timeout(PATIENCE, self.filling.recording.room()).await {
                Ok(room) => {
                    if self.filling.recording.is_small() {
                        self.room = None;
                    }
                    return room;
                }
                Err(_) => self.filling.recording.cut_slowest(),
            }
        }
    }
}

/// Ends the recording whatever happens to the task, so that no reader waits for ever.
struct FillGuard<'a> {
    recording: &'a Arc<Recording>,
    ended: bool,
}

impl FillGuard<'_> {
    fn fail(mut self, error: BodyError) {
        self.ended = true;
        self.recording.fail(error);
    }

    fn finish(mut self, trailers: Option<HeaderMap>) -> Option<Segments> {
        self.ended = true;
        self.recording.finish(trailers)
    }
}

impl Drop for FillGuard<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.recording.fail(BodyError::Abandoned);
        }
    }
}

/// How long requests for a resource go upstream side by side after an answer could not be shared. Each still brings
/// an answer that may be stored, which ends it.
const MARKER: Duration = Duration::from_secs(30);
/// Room taken at first for a body of unknown length.
const FIRST_ROOM: u64 = 64 * 1024;
/// How long one client's slow reading may hold up others who share a body that is not kept.
const PATIENCE: Duration = Duration::from_secs(5);
