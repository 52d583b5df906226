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
use cache_policy::{Arrival, Reason, RequestFacts, Vary, may_replace, tags, variant_key};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::{
    body::BodyError,
    cache::{
        Filling, Key, Lead, Outcome, Recording, Stored, memory::Marker, purge::Generation, recording::Room,
        stored::Facts,
    },
    compress,
    settings::Route,
    state::Edge,
    upstream::{Answer, Failure, RequestBody, ResponseBody, Upstream, outbound},
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

/// A response that its own client gets and nobody else.
pub struct Handover {
    /// As the upstream sent it.
    pub answer: Answer,
    /// Why it is not stored.
    pub reason: Option<Reason>,
    /// From sending the request to this head.
    pub took: Duration,
}

/// Starts the fetch. The receiver yields the response when it is for the leader alone.
pub fn start(edge: &Arc<Edge>, fetch: Fetch) -> oneshot::Receiver<Handover> {
    let (leader, receiver) = oneshot::channel();
    tokio::spawn(run(Arc::clone(edge), fetch, leader));
    receiver
}

async fn run(edge: Arc<Edge>, fetch: Fetch, leader: oneshot::Sender<Handover>) {
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
        let began = lead.generation();
        let outcome = freshen(&edge, &key, stored, &facts, &head.headers, arrival, &route, began);
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
        hand_over(leader, Handover { answer: Answer::from_parts(head, body), reason, took });
        return lead.publish(Outcome::ErrorStatus(status));
    }
    let length = http_body::Body::size_hint(&body).exact();
    let admitted = cache_policy::admit(&facts, head.status, &head.headers, arrival, &route.rules);
    let admitted = match admitted.and_then(|admitted| Ok((tags(&admitted.head)?, admitted))) {
        Ok(admitted) if length.is_none_or(|length| length <= largest) => admitted,
        refused => {
            let reason = refused.map_or_else(|reason| reason, |_| Reason::TooLarge);
            // What one client's request brought about says nothing of the next client's answer.
            if !reason.is_about_request() {
                edge.memory.mark(&key, Marker { until: received_at + MARKER, reason });
            }
            hand_over(
                leader,
                Handover { answer: Answer::from_parts(head, body), reason: Some(reason), took },
            );
            return lead.publish(Outcome::NotShared(reason));
        }
    };
    let (tags, admitted) = admitted;
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
    lead.publish(Outcome::Filling(Arc::clone(&filling)));
    drop(leader);
    fill(&edge, &key, &lead, &filling, body, largest).await;
}

/// The leader may have left; then dropping the response closes its connection.
fn hand_over(leader: oneshot::Sender<Handover>, handover: Handover) {
    drop(leader.send(handover));
}

/// Puts the head that a 304 brought into the entry (RFC 9111 §4.3.4).
fn freshen(
    edge: &Edge,
    key: &Key,
    stored: &Arc<Stored>,
    facts: &RequestFacts,
    head: &HeaderMap,
    arrival: Arrival,
    route: &Route,
    began: Generation,
) -> Outcome {
    match cache_policy::freshen(&stored.meta, &stored.identity().head, facts, head, arrival, &route.rules) {
        Ok(admitted) => {
            let tags = tags(&admitted.head).unwrap_or_default().into();
            let fresh = Arc::new(stored.freshened(admitted.meta, &admitted.head, tags, began));
            edge.memory.store(key, Arc::clone(&fresh));
            Outcome::Stored(fresh)
        }
        Err(reason) => {
            // What we hold is not what the upstream means: later requests fetch it whole.
            edge.memory.remove(key, stored);
            tracing::debug!(key = key.as_str(), %reason, "a 304 does not fit what is stored");
            Outcome::Nothing
        }
    }
}

/// Fills the recording to its end, and stores it.
async fn fill(edge: &Edge, key: &Key, lead: &Lead, filling: &Filling, mut body: ResponseBody, largest: u64) {
    let recording = FillGuard { recording: &filling.recording, ended: false };
    let mut length = 0;
    let mut reserved = None;
    let mut trailers = None;
    let mut keeps = true;
    loop {
        if recording.recording.room().await == Room::NobodyReads {
            return;
        }
        let frame = match body.frame().await {
            None => break,
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::info!(key = key.as_str(), %error, "a fill broke off and is not stored");
                return recording.fail(error);
            }
        };
        match frame.into_data() {
            Ok(data) => {
                length += data.len() as u64;
                if keeps && (length > largest || !reserve(edge, &mut reserved, data.len())) {
                    // Only those who already read it get the rest; it will not be stored.
                    keeps = false;
                    lead.close();
                    recording.recording.let_go();
                    reserved = None;
                }
                // A deep copy while it is kept: the piece is a slice of the connection's read buffer.
                recording.recording.push(if keeps { Bytes::copy_from_slice(&data) } else { data });
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if let Some(segments) = recording.finish(trailers) {
        let codable = filling.facts.codable && segments.length() >= compress::SMALLEST;
        let facts = Facts { codable, ..filling.facts.clone() };
        let stored = Stored::new(facts, &filling.head, segments);
        edge.memory.store(key, Arc::new(stored));
    }
}

/// Takes room for one more piece; what was taken for earlier ones stays taken.
fn reserve(edge: &Edge, reserved: &mut Option<crate::cache::memory::Reservation>, bytes: usize) -> bool {
    match (edge.memory.reserve(bytes as u64 + PIECE_OVERHEAD), &mut *reserved) {
        (None, _) => false,
        (Some(more), Some(reserved)) => {
            reserved.join(more);
            true
        }
        (Some(first), none) => {
            *none = Some(first);
            true
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

    fn finish(mut self, trailers: Option<HeaderMap>) -> Option<crate::cache::Segments> {
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

/// How long requests for a resource go upstream side by side after an answer could not be shared.
const MARKER: Duration = Duration::from_secs(30);
/// What a piece costs beside its bytes.
const PIECE_OVERHEAD: u64 = 64;
