//! Which stored response may answer a request, and what policy decides about it.
//!
//! The one place that selects: for [`crate::pipeline`], which acts on the result, and for [`crate::explain`], which
//! reports it. It changes nothing.

use std::sync::Arc;

use cache_policy::{Decision, Moment, Plan, Reason, RequestFacts, Rules};
use http::{HeaderName, Method, header, request};

use crate::{
    cache::{
        Key, Memory, Resource, Stored,
        held::{self, Held},
        markers::Marker,
        purge::Generation,
    },
    message::hop_by_hop::{is_upgrade_to, upgrade_asked},
    request::as_sent::AsSent,
};

/// A stored response that may answer a request.
#[derive(Debug)]
pub enum Candidate<'r> {
    /// Its `Vary` fields match the request's (RFC 9111 §4.1).
    Variant(&'r Arc<Stored>),
    /// It is in the client's preferred language, on a route that selects by language.
    Language(&'r Arc<Stored>),
    /// Only some octets of it are stored.
    Part(&'r Arc<Stored>, Held),
    /// It is stored, and fresh, under an equivalent query (No-Vary-Search).
    Query(Box<Key>, Arc<Stored>),
}

/// A request, and what is needed to decide about it.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// The request, and what of it the upstream sees.
    pub sent: AsSent<'a>,
    /// The request, as policy sees it.
    pub facts: &'a RequestFacts,
    pub key: &'a Key,
    /// The moment of the look-up.
    pub now: Moment,
    /// What began before is validated before it is served: see [`super::standing`]. Asked before anything was looked up.
    pub confirmed: Generation,
}

impl<'a> Selection<'a> {
    /// Finds a stored response: exact matches first, then equivalent ones, then parts.
    pub fn find<'r>(&self, memory: &Memory, resource: Option<&'r Resource>) -> Option<Candidate<'r>> {
        let Self { sent, facts, key, now, confirmed } = *self;
        let (head, rules) = (sent.head, self.rules());
        if let Some(stored) = resource.and_then(|resource| resource.select(&sent)) {
            return Some(Candidate::Variant(stored));
        }
        if !facts.reads() {
            return None;
        }
        if rules.by_language
            && let Some(stored) = resource.and_then(|resource| resource.select_language(&head.headers))
        {
            return Some(Candidate::Language(stored));
        }
        if let Some(part) = self.part(resource)
            && let Some(held) = held::held(head, part)
        {
            return Some(Candidate::Part(part, held));
        }
        let (key, stored) = memory.look_up_equivalent(key, &sent)?;
        let fresh = cache_policy::decide(facts, Some(&stored.meta), rules, now);
        // What is not confirmed cannot be validated under this key: its validators are of another.
        (fresh == Decision::Serve { stale: None } && stored.began >= confirmed)
            .then(|| Candidate::Query(Box::new(key), stored))
    }

    /// Decides about the candidate.
    pub fn decide(&self, resource: Option<&Resource>, candidate: Option<&Candidate<'_>>) -> Decision {
        let Self { facts, now, confirmed, .. } = *self;
        let rules = self.rules();
        let decision = match candidate {
            Some(Candidate::Part(part, held)) => held::decide(part, held, facts, rules, now),
            Some(candidate) => cache_policy::decide(facts, Some(&candidate.stored().meta), rules, now),
            None => match cache_policy::decide(facts, None, rules, now) {
                Decision::Fetch(plan) => Decision::Fetch(Plan { reason: self.missed(resource), ..plan }),
                decision => decision,
            },
        };
        match (candidate, decision) {
            (Some(candidate), Decision::Serve { .. } | Decision::ServeAndRefresh { .. })
                if candidate.stored().began < confirmed =>
            {
                cache_policy::validate_first(facts, &candidate.stored().meta, Reason::PurgesUnheard)
            }
            _ => decision,
        }
    }

    /// The stored part of the variant.
    pub fn part<'r>(&self, resource: Option<&'r Resource>) -> Option<&'r Arc<Stored>> {
        resource.filter(|_| self.sent.head.method == Method::GET)?.select_part(&self.sent)
    }

    /// Why a request without content that policy would fetch for the cache bypasses it: it asks to switch protocols, or
    /// for a head only; or it asks for less than a whole of a resource that recently could not be stored (`marker`).
    pub fn bypass_reason(&self, marker: Option<Marker>) -> Option<Reason> {
        let head = self.sent.head;
        let asks_with = |name| head.headers.contains_key(name);
        let upgrade = upgrade_asked(head.version, &head.headers);
        if upgrade.is_some_and(|protocol| is_upgrade_to(protocol, &self.sent.route.upgrades)) {
            Some(Reason::Upgrade)
        } else if head.method != Method::GET {
            Some(Reason::Method)
        } else {
            let partly = self.facts.asks_for_range() || CONDITIONS.iter().any(asks_with);
            (marker.is_some() && partly).then_some(Reason::RequestPart)
        }
    }

    /// Whether this edge had heard of all purges at the look-up.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed != Generation::MAX
    }

    pub fn rules(&self) -> &'a Rules {
        &self.sent.route.rules
    }

    fn missed(&self, resource: Option<&Resource>) -> Reason {
        match resource {
            Some(_) if self.part(resource).is_some() => Reason::PartialMiss,
            Some(resource) if !resource.variants().is_empty() => Reason::VaryMiss,
            _ => Reason::Miss,
        }
    }
}

impl<'r> Candidate<'r> {
    /// A stored response that is known to be selected; `None` where it is a part that cannot answer alone.
    pub fn of(head: &request::Parts, stored: &'r Arc<Stored>) -> Option<Self> {
        if stored.parts().is_none() {
            return Some(Self::Variant(stored));
        }
        let held = held::held(head, stored).filter(Held::suffices)?;
        Some(Self::Part(stored, held))
    }

    pub fn stored(&self) -> &Arc<Stored> {
        match self {
            Self::Variant(stored) | Self::Language(stored) | Self::Part(stored, _) => stored,
            Self::Query(_, stored) => stored,
        }
    }
}

/// By these a client asks for a response only if it differs from the one it has.
const CONDITIONS: [HeaderName; 2] = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
