//! Resources of which only parts are stored: whether the parts answer a request, and which range the upstream is asked
//! for otherwise (RFC 9110 §14, RFC 9111 §3.3, §3.4).
//!
//! ```text
//!   every octet asked for is held --- fresh ----> answered
//!                 |                \- stale ----> asked again for that part, under the stored validators: a 304 freshens
//!                 |                               all that is held, a 206 or 200 takes its place
//!   some are missing --------------------------> one range from the first gap to the end of the last, with If-Range: a
//!                                                 206 is joined to what is held and makes all of it fresh
//! ```
//!
//! Stored octets between two gaps are fetched once more. One answer, in one piece, is from one representation and
//! streams in order. One request for each gap would cost a round trip each, with a change of representation possible
//! between any two, and multipart answers come in whatever order and grouping an origin likes.

use std::{ops::Range, sync::Arc};

use cache_policy::{
    Decision, Moment, PartAnswer, Plan, RangeAnswer, Reason, RequestFacts, Rules, if_range_field, range,
};
use http::{header, request};

use crate::cache::Stored;

/// What is missing to answer from a stored part.
#[derive(Clone, Debug)]
pub struct Gap {
    /// The stored part.
    pub part: Arc<Stored>,
    /// The missing octets, as the request asks for them.
    pub range: Range<u64>,
    /// The octets wanted, in which the gap lies.
    pub wanted: Range<u64>,
    /// The length of the whole.
    pub complete: u64,
}

/// Which of the requested octets a stored part holds.
#[derive(Clone, Debug)]
pub enum Held {
    /// All requested octets.
    All(Range<u64>),
    /// All octets of several requested ranges.
    Several(Vec<Range<u64>>),
    /// The request asks for octets beyond the end of the whole, which has this length.
    Beyond(u64),
    /// All but one stretch.
    But(Gap),
}

impl Held {
    /// Whether the stored octets suffice for an answer.
    pub fn suffices(&self) -> bool {
        !matches!(self, Self::But(_))
    }
}

/// What `part` holds of the octets a GET asks for; `None` where that is unknown, or nothing can be added to the part.
pub fn held(head: &request::Parts, part: &Arc<Stored>) -> Option<Held> {
    let parts = part.parts()?;
    let Some(complete) = parts.complete_length() else {
        // Without the length of the whole a client's If-Range cannot be evaluated either.
        return match parts.answer(&head.headers) {
            PartAnswer::Held(RangeAnswer::Single(wanted)) if !head.headers.contains_key(header::IF_RANGE) => {
                Some(Held::All(wanted))
            }
            _ => None,
        };
    };
    let etag = part.identity().head.get(header::ETAG);
    let strong = part.meta.validators.strong_last_modified();
    let asked = range(&head.method, &head.headers, etag, strong, complete);
    let wanted = match &asked {
        RangeAnswer::Single(wanted) => wanted.clone(),
        RangeAnswer::Whole => 0..complete,
        RangeAnswer::NotSatisfiable => return Some(Held::Beyond(complete)),
        RangeAnswer::Several(ranges) if ranges.iter().all(|range| parts.holds(range)) => {
            return Some(Held::Several(ranges.clone()));
        }
        // The whole is fetched, so that several ranges can be cut from it.
        RangeAnswer::Several(_) => 0..complete,
    };
    let gaps = parts.missing(&wanted);
    let (Some(first), Some(last)) = (gaps.first(), gaps.last()) else { return Some(Held::All(wanted)) };
    // Under a weak validator no octets may be joined to the stored part. Without any validator the upstream is still
    // asked, without If-Range: it may state a validator, or answer with the whole.
    if !part.meta.validators.is_empty() {
        if_range_field(&part.meta.validators)?;
    }
    Some(Held::But(Gap { part: Arc::clone(part), range: first.start..last.end, wanted, complete }))
}

/// Decides about a request for which a part is stored.
pub fn decide(part: &Stored, held: &Held, facts: &RequestFacts, rules: &Rules, now: Moment) -> Decision {
    let decision = cache_policy::decide(facts, Some(&part.meta), rules, now);
    if held.suffices() || !matches!(decision, Decision::Serve { .. } | Decision::ServeAndRefresh { .. }) {
        return decision;
    }
    match cache_policy::decide(facts, None, rules, now) {
        Decision::Fetch(plan) => Decision::Fetch(Plan { reason: Reason::PartialMiss, ..plan }),
        decision => decision,
    }
}
