//! The body of a response on its way into the cache: read from the upstream, recorded for whoever reads along, stored.
//!
//! ```text
//!   reading --- end ----------------> stored, as a whole or as a part
//!      |  \---- breaks off ---------> asked for the rest, once ---- the rest comes --> reading
//!      |                                      \---- anything else --> every reader gets an error; nothing is stored
//!      |------- turns out too large -> passed on to those who read already, at the pace of the fastest
//!      '------- nobody reads --------> goes on where its length is known, so that it is known to be stored; otherwise it
//!                                      ends soon, since it may never end by itself
//! ```
//!
//! Whatever happens to its task, no reader waits for
//! ever.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cache_policy::{
    Admitted, Arrival, ContentRange, Moment, Reason, RequestFacts, Supply, admit_part, combined_head,
    may_combine, tags,
};
use http::{HeaderMap, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt as _;

use crate::{
    cache::{
        Filling, Key, Lead, Recording, Stored, StoredBody,
        markers::{MARKER, Marker, Whose},
        not_stored::NotStored,
        recording::Room,
        reservation::Reservation,
        stored::{Facts, StoredId},
        stored_body::StoredBodyReader,
    },
    fetch::{
        graphql_errors,
        resume::{Rest, Resume},
        want::Want,
    },
    message::{body_error::BodyError, number::number},
    response::coding,
    settings::Route,
    state::Edge,
    upstream::ResponseBody,
};

/// Where a body is stored, and by which fetch.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    pub edge: &'a Edge,
    pub key: &'a Key,
    /// The fetch that others may join.
    pub lead: &'a Lead,
    /// For whom a marker holds, should the body turn out too large.
    pub whose: Whose,
    /// Largest body to keep, in bytes.
    pub largest: u64,
}

/// The body of a response on its way into the cache.
pub struct Fill<'a> {
    pub destination: Destination<'a>,
    /// Shared with the readers.
    pub filling: &'a Filling,
    /// The stored response that it answers for, and takes the place of.
    pub replaced: Option<StoredId>,
    /// Room reserved in the memory tier; released when the body is stored or passed on.
    pub room: Option<Reservation>,
    /// What comes is kept, to be stored. Once there is no room for it, it is only passed on.
    pub keeps: bool,
    /// Set where the body is a part.
    pub parts: Option<Placed>,
    /// How to ask for the rest if the body breaks off; used once.
    pub resume: Option<Resume<'a>>,
    /// Whether it is the answer of a GraphQL service, which may name errors whatever its status.
    pub is_graphql: bool,
}

/// A part on its way into the cache.
pub struct Placed {
    /// Where it stands, with the octets that were stored before.
    pub place: ContentRange,
    pub route: Arc<Route>,
    /// The part that was asked for.
    pub want: Want,
    /// The request whose answer it is, as policy sees it.
    pub request: RequestFacts,
    /// When it came.
    pub arrival: Arrival,
}

/// The side of the fetched octets on which stored octets stand.
#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

impl Placed {
    /// Octets stored already on one side of what is fetched.
    fn stored(&self, side: Side) -> Option<StoredBodyReader> {
        let Want::Gap(gap) = &self.want else { return None };
        let range = match side {
            Side::Before => gap.wanted.start..gap.range.start,
            Side::After => gap.range.end..gap.wanted.end,
        };
        if range.is_empty() { None } else { gap.part.read_part(&range) }
    }
}

impl<'a> Fill<'a> {
    /// A fill of a whole, in place of nothing that is known, and not resumed if it breaks off.
    pub fn new(destination: Destination<'a>, filling: &'a Filling, room: Reservation) -> Self {
        Self {
            destination,
            filling,
            replaced: None,
            room: Some(room),
            keeps: true,
            parts: None,
            resume: None,
            is_graphql: false,
        }
    }
}

impl Fill<'_> {
    /// Fills the recording to its end, and stores it.
    pub async fn run(mut self, mut body: ResponseBody) {
        let recording = FillGuard { recording: &self.filling.recording, ended: false };
        let mut deserted = None;
        let (mut length, mut pieces) = (0, 0);
        // The length of the whole, where only the continuation stated it.
        let mut complete = None;
        let mut trailers = None;
        length += self.push_stored(Side::Before);
        loop {
            if !self.keeps && self.wait_for_readers().await == Room::NobodyReads {
                return;
            }
            // A body of unknown length may trickle for ever, and would hold one of the upstream's connections.
            let endless = self.keeps && self.filling.length.is_none() && complete.is_none();
            let frame = if endless {
                match self.frame_while_read(&mut body, &mut deserted).await {
                    Ok(frame) => frame,
                    Err(Deserted) => {
                        tracing::info!(
                            key = self.destination.key.as_str(),
                            "nobody reads a body of unknown length any more"
                        );
                        return;
                    }
                }
            } else {
                body.frame().await
            };
            let frame = match frame {
                None => break,
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    // A stalled body would hold its place among the upstream's connections.
                    drop(body);
                    // Boxed: hardly any fill needs the room for it.
                    let Some(rest) = Box::pin(self.rest(length, &error)).await else {
                        tracing::info!(key = self.destination.key.as_str(), %error, "a fill broke off and is not stored");
                        self.filling.recording.keep_room(self.room.take());
                        return recording.fail(error);
                    };
                    (body, complete) = (rest.body, Some(rest.complete));
                    continue;
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    length += data.len() as u64;
                    if complete.is_some_and(|complete| length > complete) {
                        break;
                    }
                    pieces += 1;
                    if self.keeps && !self.has_room(length, pieces) {
                        self.let_go();
                    }
                    // A deep copy where it may be held for long: the piece is a slice of the connection's read buffer.
                    let copies = self.keeps || self.room.is_some();
                    self.filling.recording.push(if copies { Bytes::copy_from_slice(&data) } else { data });
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        if complete.is_some_and(|complete| length != complete) {
            tracing::info!(key = self.destination.key.as_str(), "a continuation is not as long as it said");
            return recording.fail(BodyError::Abandoned);
        }
        length += self.push_stored(Side::After);
        if let Some(parts) = &self.parts
            && length != parts.place.range.end - parts.place.range.start
        {
            tracing::info!(
                key = self.destination.key.as_str(),
                "a part is not as long as it said and is not stored"
            );
            // Those who follow an answer joined from two parts were promised its length.
            return if matches!(parts.want, Want::Gap(_)) {
                recording.fail(BodyError::Abandoned);
            } else {
                drop(recording.finish(trailers));
            };
        }
        let Some(segments) = recording.finish(trailers) else {
            return self.filling.recording.keep_room(self.room.take());
        };
        self.room = None;
        self.destination.edge.memory.lend(&segments);
        if let Some(parts) = &self.parts
            && self.filling.partial
        {
            self.store_part(parts, segments);
        } else if self.is_graphql && Box::pin(graphql_errors::may_be_in(&self.filling.head, &segments)).await
        {
            // As any failure it leaves what is stored.
            self.remember_refusal(Reason::GraphqlErrors);
        } else {
            let codable = self.filling.facts.codable && segments.length() >= coding::SMALLEST;
            let facts = Facts { codable, ..self.filling.facts.clone() };
            let stored = Stored::new(facts, &self.filling.head, segments);
            self.destination.edge.memory.store_in_place_of(
                self.destination.key,
                self.replaced,
                Arc::new(stored),
            );
        }
    }

    /// Asks the upstream for the octets after `length`, where that is possible and anybody has a use for them.
    async fn rest(&mut self, length: u64, error: &BodyError) -> Option<Rest> {
        let resume = self.resume.take()?;
        if !self.keeps && self.wait_for_readers().await == Room::NobodyReads {
            return None;
        }
        let ends = self.destination.edge.drain.is_cancelled()
            || self
                .destination
                .edge
                .memory
                .outdated(self.destination.lead.generation(), self.destination.key);
        if ends && !self.filling.recording.is_read() {
            return None;
        }
        match resume.ask(length, &self.destination.edge.clock).await {
            Ok(rest) => {
                tracing::info!(key = self.destination.key.as_str(), %error, length, "a fill broke off and is continued");
                Some(rest)
            }
            Err(why) => {
                tracing::info!(key = self.destination.key.as_str(), length, %why, "a fill cannot be continued");
                None
            }
        }
    }

    /// Adds the stored octets on one side of the fetched ones; returns how many.
    fn push_stored(&self, side: Side) -> u64 {
        let Some(mut reader) = self.parts.as_ref().and_then(|parts| parts.stored(side)) else { return 0 };
        let length = reader.left();
        while let Some(piece) = reader.next_piece() {
            self.filling.recording.push(piece);
        }
        length
    }

    /// Stores a part, joined with the stored octets of the same representation; a complete one becomes a whole.
    fn store_part(&self, parts: &Placed, segments: StoredBody) {
        let Filling { facts, head, .. } = self.filling;
        let resource = self.destination.edge.memory.look_up(self.destination.key);
        let held = resource
            .as_ref()
            .and_then(|resource| resource.part_of(&facts.vary, &facts.variant))
            .filter(|held| may_combine(&held.meta.validators, &facts.meta.validators));
        let joined = held.and_then(|held| self.joined(held, parts, &segments));
        let stored = joined.or_else(|| Stored::part(facts.clone(), head, segments, &parts.place));
        if let Some(stored) = stored {
            self.destination.edge.memory.store_in_place_of(
                self.destination.key,
                self.replaced,
                Arc::new(stored),
            );
        }
    }

    /// A stored part joined with the one that has come, under the facts of the head that both have (RFC 9111 §3.4). `None`
    /// where they contradict, or may not be stored as one.
    fn joined(&self, held: &Stored, parts: &Placed, segments: &StoredBody) -> Option<Stored> {
        let Filling { facts, head, .. } = self.filling;
        let (held_now, body) = held.joined(&parts.place, segments)?;
        if body.length() > self.destination.largest {
            return None;
        }
        let whole = held_now.complete_length().filter(|_| held_now.is_whole());
        let combined = combined_head(&held.identity().head, head, None);
        let (admitted, _) = admit_part(&parts.request, &combined, parts.arrival, &parts.route.rules).ok()?;
        let Admitted { meta, mut head, .. } = admitted;
        let mut facts = Facts { meta, tags: tags(&head, &parts.route.rules).ok()?.into(), ..facts.clone() };
        let Some(length) = whole else { return Some(Stored::of_parts(facts, &head, body, held_now)) };
        head.remove(header::CONTENT_RANGE);
        head.insert(header::CONTENT_LENGTH, number(length));
        facts.meta.status = StatusCode::OK;
        let types = &parts.route.compress_types;
        facts.codable = parts.route.compress
            && length >= coding::SMALLEST
            && coding::codable(types, StatusCode::OK, &head, whole);
        Some(Stored::new(facts, &head, body))
    }

    /// Whether `length` bytes in so many pieces may be kept; reserves more room where the upstream did not state the
    /// length, or sends crumbs.
    fn has_room(&mut self, length: u64, pieces: u64) -> bool {
        let Some(room) = &mut self.room else { return false };
        if length > self.destination.largest {
            return false;
        }
        let crumbs = pieces.saturating_sub(FEW_PIECES + length / CRUMB);
        let needed = length + crumbs * PIECE;
        // Twice as much each time: few steps, and never more than twice what is held.
        while room.bytes() < needed {
            match self.destination.edge.memory.reserve(room.bytes().max(FIRST_ROOM)) {
                Some(more) => room.join(more),
                None => return false,
            }
        }
        true
    }

    /// The body turned out too large: present readers receive the rest, nobody else joins, nothing is stored, and the whole that
    /// it answers for is no longer what the origin has.
    fn let_go(&mut self) {
        self.keeps = false;
        if let Some(replaced) = self.replaced {
            let is_replaced = |stored: &Stored| stored.id() == replaced && stored.parts().is_none();
            self.destination.edge.memory.displace(self.destination.key, is_replaced);
        }
        let (reason, at) = (Reason::TooLarge, self.destination.edge.clock.now());
        if !self.filling.partial {
            self.destination.edge.memory.mark(
                self.destination.key,
                self.destination.whose,
                Marker { until: at + MARKER, reason },
            );
        }
        self.remember_refusal(reason);
        self.destination.lead.close();
        // What has come is held for those who read more slowly than others, and as much again where there is room.
        if self.filling.recording.is_shared()
            && let Some(room) = &mut self.room
            && let Some(more) = self.destination.edge.memory.reserve(room.bytes())
        {
            room.join(more);
        }
        self.filling.recording.let_go(self.room.as_ref().map_or(0, Reservation::bytes));
    }

    /// For explanations.
    fn remember_refusal(&self, reason: Reason) {
        let at = self.destination.edge.clock.now();
        // It had a lifetime, or it would not have been filled.
        let (status, supply) = (self.filling.facts.meta.status, Supply::Neither);
        let refused = NotStored { reason, status, supply, at, lines: Box::default() };
        self.destination.edge.memory.not_stored().remember(self.destination.key, refused);
    }

    async fn wait_for_readers(&mut self) -> Room {
        let room = self.filling.recording.room().await;
        if self.filling.recording.is_alone() {
            self.room = None;
        }
        room
    }

    /// The next frame, unless nobody has read for a while; `since` remembers since when.
    async fn frame_while_read(
        &self,
        body: &mut ResponseBody,
        since: &mut Option<Moment>,
    ) -> Result<Option<Result<Frame<Bytes>, BodyError>>, Deserted> {
        loop {
            let frame = tokio::time::timeout(DESERTED, body.frame()).await;
            let now = self.destination.edge.clock.now();
            if self.filling.recording.is_read() {
                *since = None;
            } else if now.since(*since.get_or_insert(now)) >= DESERTED && self.filling.recording.end_unread()
            {
                return Err(Deserted);
            }
            if let Ok(frame) = frame {
                return Ok(frame);
            }
        }
    }
}

/// Nobody reads any more.
struct Deserted;

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

    fn finish(mut self, trailers: Option<HeaderMap>) -> Option<StoredBody> {
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

/// Room reserved at first for a body of unknown length.
pub const FIRST_ROOM: u64 = 64 * 1024;
/// Pieces of fewer bytes are crumbs; each beyond the first few reserves room for its bookkeeping.
const CRUMB: u64 = 4 * 1024;
const FEW_PIECES: u64 = 16;
const PIECE: u64 = 128;
/// How long a body of unknown length is read although nobody reads along: twice as long at most.
const DESERTED: Duration = Duration::from_secs(5);
