//! One fetch for the cache: a task that owns the request to the upstream, fills a recording, and stores it.
//!
//! ```text
//!   send --- no response ------------------> Failed                followers and leader decide on stale
//!     |---- 304 to our validators ---------> Stored                freshened in place
//!     |---- a failure status over an entry > ErrorStatus           the entry stays; the leader has the response
//!     |---- policy refuses to store -------> NotShared + marker    the leader has the response, streamed to it alone
//!     '---- policy admits -----------------> Filling ... stored    readers follow the recording
//! ```
//!
//! The client that started it may leave at any time: what will be stored is filled to its end; what will not be stored
//! stops with its reader.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cache_policy::{Arrival, Reason, RequestFacts, Rules, Vary, may_replace, tags, variant_key};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::{
    body::BodyError,
    cache::{
        Filling, Key, Lead, Outcome, Recording, Segments, Stored,
        memory::{Marker, Reservation},
        purge::Generation,
        recording::{Reader, Room},
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
    /// Largest body to keep, in bytes.
    pub largest: u64,
}

/// What the fetch gives to the client that began it, before anyone else learns of it.
pub enum Own {
    /// A response for it alone.
    Answer(Box<Handover>),
    /// Its place in the recording: taken first, so that the fill never finds itself without a reader.
    Reader(Reader),
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
    let Fetch { key, lead, request, fields, facts, route, upstream, stored, largest } = fetch;
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
    let length = http_body::Body::size_hint(&body).exact();
    let admission = cache_policy::admit(&facts, head.status, &head.headers, arrival, &route.rules)
        .and_then(|admitted| Ok((tags(&admitted.head)?, admitted)))
        .and_then(|admitted| Ok((room(&edge, length, largest)?, admitted)));
    let (room, (tags, admitted)) = match admission {
        Ok(admission) => admission,
        Err(reason) => {
            if lasts(head.status, reason) {
                edge.memory.mark(&key, Marker { until: received_at + MARKER, reason });
            }
            let answer = Answer::from_parts(head, body);
            hand_over(leader, Own::Answer(Box::new(Handover { answer, reason: Some(reason), took })));
            return lead.publish(Outcome::NotShared(reason));
        }
    };
    let vary = match admitted.vary {
        Vary::Fields(fields) => fields,
        Vary::Nothing | Vary::Any => Box::default(),
    };
    let variant = if vary.is_empty() { Box::default() } else { variant_key(&vary, &fields) };
    let codable = route.compress && compress::codable(head.status, &admitted.head, length);
    let recording = Recording::new();
    let filling = Arc::new(Filling {
        facts: Facts {
            meta: admitted.meta,
            vary,
            variant,
            tags: tags.into(),
            began: lead.generation(),
            codable,
        },
        head: admitted.head,
        length,
        recording: Arc::clone(&recording),
        took,
    });
    if let Some(reader) = recording.reader() {
        hand_over(leader, Own::Reader(reader));
    }
    lead.publish(Outcome::Filling(Arc::clone(&filling)));
    Fill { edge: &edge, key: &key, lead: &lead, filling: &filling, largest, room: Some(room) }
        .run(body)
        .await;
}

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
    (status.is_success() || status.is_redirection()) && !reason.is_about_request() && reason != Reason::NoRoom
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
}

impl Fill<'_> {
    /// Fills the recording to its end, and stores it.
    async fn run(mut self, mut body: ResponseBody) {
        let recording = FillGuard { recording: &self.filling.recording, ended: false };
        let mut length = 0;
        let mut trailers = None;
        let mut keeps = true;
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
        if let Some(segments) = recording.finish(trailers) {
            let codable = self.filling.facts.codable && segments.length() >= compress::SMALLEST;
            let facts = Facts { codable, ..self.filling.facts.clone() };
            let stored = Stored::new(facts, &self.filling.head, segments);
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
