//! One stored response: its policy facts, its head, and its body in every coding computed so far.
//!
//! A [`Stored`] never changes. A new coding or a 304 makes a new one that shares the bodies, so readers need no lock
//! and the weight that the memory tier counts stays true.

use std::{
    ops::{Deref, Range},
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use bytes::Bytes;
use cache_policy::{Coding, ContentRange, Meta, Moment, Parts, Tag, list_elements};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    carriers::CARRIED,
    purge::Generation,
    stored_body::{StoredBody, StoredBodyReader},
};
use crate::message::{
    entity_tag::{Strength, coded_tag},
    number::number,
};

/// A stored response, one variant of its resource.
#[derive(Debug)]
pub struct Stored {
    id: StoredId,
    facts: Facts,
    identity: Representation,
    coded: Coded,
    /// One bit per coding: its computation has been requested.
    asked: AtomicU8,
    /// Which octets the identity body holds, one after the other; `None` for all.
    parts: Option<Box<Parts>>,
    weight: u64,
}

/// Which stored response this is. A coding, a purge that makes it stale, or a write of another variant makes a new
/// [`Stored`] of the same response, so that no pointer tells whether what a fetch was about is still stored; this does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredId(u64);

impl StoredId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// A head and a body ready to send, without the fields that depend on the moment (Age, Cache-Status).
#[derive(Clone, Debug)]
pub struct Representation {
    /// Deep-copied, so that it holds no read buffer of a connection.
    pub head: HeaderMap,
    /// The complete body.
    pub body: StoredBody,
}

/// A computed coding; the inner `None` where it came out no shorter, and the identity form is sent.
type Coded = [Option<Option<Representation>>; CODINGS.len()];

/// The codings that can be computed, in the order of [`Stored::coded`].
const CODINGS: [Coding; 3] = [Coding::Gzip, Coding::Brotli, Coding::Zstd];

impl Deref for Stored {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

/// What is known of a stored response beside its head and body.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The facts that policy decides by.
    pub meta: Meta,
    /// The request fields its `Vary` names.
    pub vary: Box<[HeaderName]>,
    /// The request's values of those fields.
    pub variant: Box<str>,
    /// The tags it can be purged by, sorted.
    pub tags: Box<[Tag]>,
    /// The generation when its fetch began.
    pub began: Generation,
    /// Whether codings of it may be computed.
    pub codable: bool,
}

impl Stored {
    /// A response in the form that the upstream sent.
    pub fn new(facts: Facts, head: &HeaderMap, body: StoredBody) -> Self {
        let head = identity_head(head, &body, &facts);
        Self::of(facts, Representation { head, body }, None)
    }

    /// One part of a response: `body` holds the octets at `place`. `None` for a place that contradicts itself.
    pub fn part(facts: Facts, head: &HeaderMap, body: StoredBody, place: &ContentRange) -> Option<Self> {
        let mut parts = Parts::default();
        parts.add(place).then(|| Self::of_parts(facts, head, body, parts))
    }

    /// Parts of a response, their octets one after the other in `body`.
    pub fn of_parts(facts: Facts, head: &HeaderMap, body: StoredBody, parts: Parts) -> Self {
        let head = owned_head(head, None);
        Self::of(facts, Representation { head, body }, Some(Box::new(parts)))
    }

    /// The octets stored, where they are not all.
    pub fn parts(&self) -> Option<&Parts> {
        self.parts.as_deref()
    }

    /// Reads octets of a stored part; `None` where some of them are missing.
    pub fn read_part(&self, wanted: &Range<u64>) -> Option<StoredBodyReader> {
        let mut before = 0;
        for held in self.parts.as_ref()?.held() {
            if held.start <= wanted.start && wanted.end <= held.end {
                let start = before + (wanted.start - held.start);
                return Some(self.identity.body.read_range(start..start + (wanted.end - wanted.start)));
            }
            before += held.end - held.start;
        }
        None
    }

    /// The octets of this part joined with another of the same representation; `None` where they contradict.
    pub fn joined(&self, place: &ContentRange, body: &StoredBody) -> Option<(Parts, StoredBody)> {
        let mut parts = self.parts.as_deref()?.clone();
        if !parts.add(place) {
            return None;
        }
        let mut pieces = Vec::new();
        for range in parts.held() {
            // Octets outside the new part come from the old one, up to the start of the new one.
            let mut from = range.start;
            while from < range.end {
                let (mut reader, end) = if place.range.contains(&from) {
                    let end = place.range.end.min(range.end);
                    (body.read_range(from - place.range.start..end - place.range.start), end)
                } else {
                    let held = self.parts.as_ref()?.held().iter().find(|held| held.contains(&from))?;
                    let end =
                        if from < place.range.start { held.end.min(place.range.start) } else { held.end };
                    (self.read_part(&(from..end))?, end)
                };
                while let Some(piece) = reader.next_piece() {
                    pieces.push(piece);
                }
                from = end;
            }
        }
        Some((parts, StoredBody::new(&pieces)))
    }

    /// Which stored response it is.
    pub fn id(&self) -> StoredId {
        self.id
    }

    /// The same response with one more coding of its body; `None` when the coding is no shorter.
    pub fn with_coding(&self, coding: Coding, body: Option<StoredBody>) -> Self {
        let mut coded = self.same();
        if let Some(slot) = slot(coding) {
            coded.coded[slot] = Some(body.map(|body| coded_form(&self.identity.head, coding, body)));
        }
        coded.weighed()
    }

    /// The same bodies under the head that a 304 or a HEAD has freshened (RFC 9111 §4.3.4, §4.3.5), with the facts derived
    /// from that head: another response, which the failure of an earlier question does not concern.
    pub fn freshened(&self, facts: Facts, head: &HeaderMap) -> Self {
        let body = self.identity.body.clone();
        let head = match self.parts {
            None => identity_head(head, &body, &facts),
            Some(_) => owned_head(head, None),
        };
        let identity = Representation { head, body };
        let coded = CODINGS.map(|coding| {
            let computed = self.coded[slot(coding).filter(|_| facts.codable)?].as_ref()?.as_ref();
            Some(computed.map(|old| coded_form(&identity.head, coding, old.body.clone())))
        });
        Self { id: StoredId::next(), facts, identity, coded, ..self.same() }.weighed()
    }

    /// The same response with the codings of another entry of the same body that this one lacks.
    pub fn adopting(&self, other: &Self) -> Self {
        let mut adopted = self.same();
        for (slot, coding) in adopted.coded.iter_mut().zip(CODINGS).filter(|_| self.facts.codable) {
            if slot.is_none() {
                let computed = other.coded.iter().zip(CODINGS).find(|(_, other)| *other == coding);
                *slot = computed.and_then(|(computed, _)| computed.as_ref()).map(|computed| {
                    let body = computed.as_ref().map(|computed| computed.body.clone());
                    body.map(|body| coded_form(&self.identity.head, coding, body))
                });
            }
        }
        adopted.weighed()
    }

    /// The same response, stale since `moment`.
    pub fn stale_since(&self, moment: Moment) -> Self {
        let mut stale = self.same();
        stale.facts.meta.stale_since(moment);
        stale
    }

    /// The same response once more, to be changed in what does not make it another one.
    fn same(&self) -> Self {
        Self {
            id: self.id,
            facts: self.facts.clone(),
            identity: self.identity.clone(),
            coded: self.coded.clone(),
            asked: AtomicU8::new(self.asked.load(Ordering::Relaxed)),
            parts: self.parts.clone(),
            weight: self.weight,
        }
    }

    fn of(facts: Facts, identity: Representation, parts: Option<Box<Parts>>) -> Self {
        let (id, asked) = (StoredId::next(), AtomicU8::default());
        Self { id, facts, identity, coded: [None, None, None], asked, parts, weight: 0 }.weighed()
    }

    fn weighed(mut self) -> Self {
        let Self { facts, identity, coded, parts, .. } = &self;
        self.weight = size_of::<Self>() as u64
            + facts.variant.len() as u64
            + facts.meta.validators.weight()
            + facts.vary.iter().map(|name| name.as_str().len() as u64 + 32).sum::<u64>()
            + facts.tags.iter().map(|tag| tag.as_str().len() as u64 + 40 + CARRIED).sum::<u64>()
            + parts.as_ref().map_or(0, |parts| (size_of::<Parts>() + 16 * parts.held().len()) as u64)
            + identity.weight()
            + coded.iter().flatten().flatten().map(Representation::weight).sum::<u64>();
        self
    }

    /// The form that the upstream sent.
    pub fn identity(&self) -> &Representation {
        &self.identity
    }

    pub fn bodies(&self) -> impl Iterator<Item = &StoredBody> {
        let coded = self.coded.iter().flatten().flatten();
        std::iter::once(&self.identity).chain(coded).map(|representation| &representation.body)
    }

    /// A coding that has been computed: the identity form where the coding is no shorter.
    pub fn coded(&self, coding: Coding) -> Option<(Coding, &Representation)> {
        let computed = self.coded[slot(coding)?].as_ref()?;
        Some(computed.as_ref().map_or((Coding::Identity, &self.identity), |coded| (coding, coded)))
    }

    /// Whether the caller is the first to request this coding, and should have it computed.
    pub fn ask(&self, coding: Coding) -> bool {
        let Some(slot) = slot(coding) else { return false };
        let bit = 1 << slot;
        self.asked.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Withdraws a request for a coding, so that a later request may repeat it.
    pub fn unask(&self, coding: Coding) {
        if let Some(slot) = slot(coding) {
            self.asked.fetch_and(!(1 << slot), Ordering::Relaxed);
        }
    }

    /// Bytes of memory it holds: heads, bodies and bookkeeping.
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

impl Representation {
    fn weight(&self) -> u64 {
        head_weight(&self.head) + self.body.weight()
    }
}

/// An estimate, in bytes, of the memory a head holds: what `HeaderMap` has allocated, not only what it uses.
pub fn head_weight(head: &HeaderMap) -> u64 {
    /// A bucket (hash, links, name, value) and its share of the index.
    const BUCKET: u64 = 104 + 6;
    /// Each name outside the standard table has an allocation; all values share one.
    const LINE: u64 = 16;
    let lines = head.iter().map(|(name, value)| LINE + name.as_str().len() as u64 + value.len() as u64);
    BUCKET * head.capacity() as u64 + ALLOCATION + lines.sum::<u64>()
}

/// Turns the head of a body into that of the same one in another coding, which may be identity: Content-Encoding, its own
/// entity tag, no Content-MD5 or digests of other bytes. The caller sets Content-Length.
pub fn code_head(head: &mut HeaderMap, coding: Coding, strength: Strength) {
    match coding {
        // Identity is never named in this field (RFC 9110 §8.4).
        Coding::Identity => head.remove(header::CONTENT_ENCODING),
        _ => head.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.token())),
    };
    head.remove("content-md5");
    head.remove("content-digest");
    head.remove("digest");
    // The selected representation is the coded one (RFC 9530 §3).
    head.remove("repr-digest");
    head.remove(header::ACCEPT_RANGES);
    if let Some(tag) = head.get(header::ETAG).and_then(|etag| coded_tag(etag, coding, strength)) {
        head.insert(header::ETAG, tag);
    }
}

/// Adds Accept-Encoding to Vary (RFC 9110 §12.5.5), whichever coding this client gets.
pub fn vary_on_coding(head: &mut HeaderMap) {
    let named = list_elements(head, &header::VARY)
        .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"));
    if !named {
        head.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

fn slot(coding: Coding) -> Option<usize> {
    CODINGS.iter().position(|known| *known == coding)
}

fn coded_form(identity: &HeaderMap, coding: Coding, body: StoredBody) -> Representation {
    let mut head = owned_head(identity, Some(body.length()));
    code_head(&mut head, coding, Strength::Strong);
    Representation { head, body }
}

/// The head of the identity form, as it is stored.
fn identity_head(head: &HeaderMap, body: &StoredBody, facts: &Facts) -> HeaderMap {
    let mut head = owned_head(head, Some(body.length()));
    if facts.codable {
        vary_on_coding(&mut head);
    }
    head
}

/// A deep copy: header values of a received head are slices of its connection's read buffer and would keep it alive.
/// All values share one allocation of exactly their size.
fn owned_head(head: &HeaderMap, length: Option<u64>) -> HeaderMap {
    let total = head.values().map(HeaderValue::len).sum();
    let mut buffer = Vec::with_capacity(total);
    for value in head.values() {
        buffer.extend_from_slice(value.as_bytes());
    }
    let buffer = Bytes::from(buffer);
    let mut copy = HeaderMap::with_capacity(head.len() + 1);
    let mut start = 0;
    for (name, value) in head {
        let end = start + value.len();
        let owned = HeaderValue::from_maybe_shared(buffer.slice(start..end))
            .expect("a copy of a valid value is valid");
        copy.append(name.clone(), owned);
        start = end;
    }
    if let Some(length) = length {
        copy.insert(header::CONTENT_LENGTH, number(length));
    }
    copy
}

/// What an allocation costs beside its bytes: the allocator's own, and the reference count.
const ALLOCATION: u64 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owned_head_keeps_repeated_lines_in_order() {
        let mut head = HeaderMap::new();
        head.append("link", HeaderValue::from_static("<a>"));
        head.append("link", HeaderValue::from_static("<b>"));
        let copy = owned_head(&head, Some(7));
        let links: Vec<_> = copy.get_all("link").iter().collect();
        assert_eq!(links, ["<a>", "<b>"]);
        assert_eq!(copy[header::CONTENT_LENGTH], "7");
    }
}
