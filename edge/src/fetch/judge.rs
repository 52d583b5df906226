//! Whether a response may be stored, in which form, and with which facts.

use std::{ops::Range, sync::Arc, time::Duration};

use cache_policy::{
    Admitted, Arrival, ContentRange, Ranges, Reason, RequestFacts, Rules, SetCookie, Tag,
    admit_instead_of_part, admit_part, combined_head, may_combine, tags,
};
use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    fill::FIRST_ROOM,
    freshen::{fields_of, variant_of},
    want::Want,
};
use crate::{
    cache::{
        Filling, Recording,
        held::Gap,
        markers::{MARKER, SHORT_MARKER},
        purge::Generation,
        reservation::Reservation,
        slices,
        stored::Facts,
    },
    message::number::number,
    response::coding,
    settings::Route,
    state::Edge,
    upstream::ResponseBody,
};

/// The context in which a response is judged.
pub(super) struct Judge<'a> {
    pub(super) edge: &'a Edge,
    pub(super) facts: &'a RequestFacts,
    pub(super) fields: &'a HeaderMap,
    pub(super) route: &'a Route,
    pub(super) arrival: Arrival,
    pub(super) largest: u64,
}

/// A response that will be stored.
pub(super) struct Judged {
    pub(super) facts: Facts,
    pub(super) head: HeaderMap,
    pub(super) length: Option<u64>,
    /// The place of the body in the whole, where it is a part.
    place: Option<ContentRange>,
    /// Whether the response is a part.
    partial: bool,
    /// The upstream's own status: 206 also where a part completes the whole.
    answered: StatusCode,
    room: Reservation,
}

impl Judged {
    pub(super) fn filling(
        self,
        began: Generation,
        took: Duration,
    ) -> (Arc<Filling>, Option<ContentRange>, Reservation) {
        let Self { facts, head, length, place, partial, answered, room } = self;
        let facts = Facts { began, ..facts };
        let recording = Recording::new();
        let filling = Filling { facts, head, length, recording, partial, answered, took };
        (Arc::new(filling), place, room)
    }
}

impl Judge<'_> {
    /// A whole response.
    pub(super) fn whole(
        &self,
        status: StatusCode,
        head: &HeaderMap,
        body: &ResponseBody,
    ) -> Result<Judged, Reason> {
        let admitted = cache_policy::admit(self.facts, status, head, self.arrival, &self.route.rules)?;
        self.complete(admitted, status, body)
    }

    /// What came where a part was asked for.
    pub(super) fn instead_of_part(
        &self,
        status: StatusCode,
        head: &HeaderMap,
        body: &ResponseBody,
    ) -> Result<Judged, Reason> {
        let admitted = admit_instead_of_part(self.facts, status, head, self.arrival, &self.route.rules)?;
        self.complete(admitted, status, body)
    }

    fn complete(
        &self,
        admitted: Admitted,
        status: StatusCode,
        body: &ResponseBody,
    ) -> Result<Judged, Reason> {
        let length = http_body::Body::size_hint(body).exact();
        let room = room(self.edge, length, self.largest)?;
        let codable = self.codable(status, &admitted.head, length);
        let mut judged = self.judged(admitted, length, room)?;
        judged.facts.codable = codable;
        Ok(judged)
    }

    /// Whether the route codes it for clients.
    fn codable(&self, status: StatusCode, head: &HeaderMap, length: Option<u64>) -> bool {
        self.route.compress && coding::codable(&self.route.compress_types, status, head, length)
    }

    /// The part that was asked for.
    pub(super) fn part(&self, head: &HeaderMap, body: &ResponseBody) -> Result<Judged, Reason> {
        let length = http_body::Body::size_hint(body).exact();
        let (admitted, place) = self.placed(head, length)?;
        let room = room(self.edge, length, self.largest)?;
        let judged = self.judged(admitted, length, room)?;
        Ok(Judged { place: Some(place), partial: true, ..judged })
    }

    /// The part that was asked for as a slice: nothing else, and of a representation that is told from others.
    pub(super) fn slice(
        &self,
        head: &HeaderMap,
        body: &ResponseBody,
        octets: &Range<u64>,
    ) -> Result<Judged, Reason> {
        let judged = self.part(head, body)?;
        let is_slice = slices::is_of(&judged.head, octets, &judged.facts.meta.validators).is_some();
        if is_slice { Ok(judged) } else { Err(Reason::PartialUnusable) }
    }

    /// The missing octets: joined with the stored part they become the answer (RFC 9111 §3.4).
    pub(super) fn gap(&self, head: &HeaderMap, body: &ResponseBody, gap: &Gap) -> Result<Judged, Reason> {
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
        admitted.head.insert(header::CONTENT_LENGTH, number(length));
        let room = room(self.edge, Some(length), self.largest)?;
        let codable = whole && self.codable(StatusCode::OK, &admitted.head, Some(length));
        let mut judged = self.judged(admitted, Some(length), room)?;
        judged.facts.codable = codable;
        let answered = StatusCode::PARTIAL_CONTENT;
        Ok(Judged { place: Some(wanted), partial: !whole, answered, ..judged })
    }

    /// A 206 and its place in the whole. A body whose length contradicts Content-Range is refused, or placed by its
    /// length where the route has `ranges = "fitted"`.
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

    /// The judgement of a part or a whole of which no codings are computed.
    fn judged(&self, admitted: Admitted, length: Option<u64>, room: Reservation) -> Result<Judged, Reason> {
        let Admitted { meta, head, vary } = admitted;
        let tags: Box<[Tag]> = tags(&head, &self.route.rules)?.into();
        let vary = fields_of(vary);
        let variant = variant_of(&vary, self.fields);
        let answered = meta.status;
        let facts = Facts { meta, vary, variant, tags, began: Generation::default(), codable: false };
        Ok(Judged { facts, head, length, place: None, partial: false, answered, room })
    }
}

/// The fields that `no-cache` or `private` names: the client that asked receives them, nobody else (RFC 9111 §5.2.2.4). A cookie
/// that the route strips is for nobody.
pub(super) fn withheld(head: &HeaderMap, stored: &HeaderMap, rules: &Rules) -> HeaderMap {
    let stripped = |name: &HeaderName| rules.set_cookie == SetCookie::Strip && COOKIES.contains(name);
    let only_here =
        |name: &HeaderName| !stored.contains_key(name) && !NEVER_WITHHELD.contains(name) && !stripped(name);
    head.iter()
        .filter(|(name, _)| only_here(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Fields that a stored head lacks for other reasons, some of them where a 304 has them.
const NEVER_WITHHELD: [HeaderName; 6] = [
    header::AGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
];

const COOKIES: [HeaderName; 2] = [header::SET_COOKIE, HeaderName::from_static("set-cookie2")];

/// Reserves room for a body before anyone may follow it: all of it where its length is known.
fn room(edge: &Edge, length: Option<u64>, largest: u64) -> Result<Reservation, Reason> {
    match length {
        Some(length) if length > largest => Err(Reason::TooLarge),
        length => edge.memory.reserve(length.unwrap_or(FIRST_ROOM)).ok_or(Reason::NoRoom),
    }
}

/// How long the next responses are likely to be refused for the same reason, so that nobody need wait for another's; `None`
/// where this one tells nothing about them: what a client's range or its other wishes led to does not predict the answer to
/// the next client. A failure, or a moment without room, may be over soon.
pub(super) fn goes_on(want: &Want, status: StatusCode, reason: Reason) -> Option<Duration> {
    let about_part = match want {
        Want::Whole => false,
        Want::Part => !status.is_success(),
        Want::Gap(_) => true,
    };
    // Requests with credentials, or with cookies, are apart from others.
    let apart = matches!(reason, Reason::NotShared | Reason::RequestCookie);
    let about_request = reason.is_about_request() && !apart;
    if about_part || about_request || reason == Reason::PartialUnusable {
        return None;
    }
    let fails = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    Some(if fails || reason == Reason::NoRoom { SHORT_MARKER } else { MARKER })
}
