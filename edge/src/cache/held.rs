//! What is stored of a resource only in part: whether it answers a request, and what the upstream is asked for to make it
//! do so (RFC 9110 §14, RFC 9111 §3.3, §3.4).
//!
//! ```text
//!   every octet asked for is held --- fresh ----> answered
//!                 |                \- stale ----> asked again for that part, under the stored validators: a 304 freshens
//!                 |                               all that is held, a 206 or 200 takes its place
//!   some are missing --------------------------> one range from the first gap to the end of the last, with If-Range: a
//!                                                 206 is joined to what is held and makes all of it fresh
//! ```
//!
//! Octets that are held between two gaps are fetched once more. One answer, in one piece, is from one representation and
//! streams in order; a request a gap would cost a round trip each, with a change of representation possible between any
//! two, and multipart answers come in whatever order and grouping an origin likes.

use std::{ops::Range, sync::Arc, time::Duration};

use cache_policy::{
    Decision, Moment, PartAnswer, Plan, Precondition, RangeAnswer, Ranges, Reason, RequestFacts, Rules,
    asks_for_one_part, conditional_fields, if_range_field, precondition, range,
};
use http::{HeaderName, HeaderValue, StatusCode, header, request};

use crate::{
    cache::{
        Filling, Stored,
        recording::{Reached, Reader},
    },
    fetch::{Rest, Want},
};

/// What a stored part holds of what a request asks for.
#[derive(Clone, Debug)]
pub enum Held {
    /// All of it.
    All(Range<u64>),
    /// All of these.
    Several(Vec<Range<u64>>),
    /// The request asks for what lies beyond the end of the whole, which has this length.
    Beyond(u64),
    /// All but what lies in one stretch.
    But(Rest),
}

impl Held {
    /// Whether an answer can be given from what is held alone.
    pub fn suffices(&self) -> bool {
        !matches!(self, Self::But(_))
    }
}

/// What `part` holds of what a GET asks for; `None` where that cannot be told, or nothing can be added to it.
pub fn held(head: &request::Parts, part: &Arc<Stored>) -> Option<Held> {
    let parts = part.parts()?;
    let Some(complete) = parts.complete_length() else {
        // Without the length of the whole nothing can be said of a client's If-Range either.
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
        // Made whole, so that they can be cut from it.
        RangeAnswer::Several(_) => 0..complete,
    };
    let gaps = parts.missing(&wanted);
    let (Some(first), Some(last)) = (gaps.first(), gaps.last()) else { return Some(Held::All(wanted)) };
    // Under a weak validator nothing that comes may be joined to what is held. Where there is none the upstream is asked all
    // the same, without If-Range: it may have one to tell, or answer with the whole.
    if !part.meta.validators.is_empty() {
        if_range_field(&part.meta.validators)?;
    }
    Some(Held::But(Rest { part: Arc::clone(part), gap: first.start..last.end, wanted, complete }))
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

/// What is fetched where the cache alone does not answer.
pub fn want(head: &request::Parts, held: Option<&Held>, facts: &RequestFacts, rules: &Rules) -> Want {
    match held {
        Some(Held::But(rest)) => Want::Rest(rest.clone()),
        Some(_) => Want::Part,
        None if rules.ranges != Ranges::Whole
            && facts.asks_for_range()
            && asks_for_one_part(&head.headers) =>
        {
            Want::Part
        }
        None => Want::Whole,
    }
}

/// The conditions and the range of a request that fetches `want`; `validate` is stored and has to be validated.
pub fn fields(
    want: &Want,
    head: &request::Parts,
    validate: Option<&Arc<Stored>>,
) -> Vec<(HeaderName, HeaderValue)> {
    let conditions = validate.map(|stored| conditional_fields(&stored.meta)).into_iter().flatten();
    match want {
        Want::Whole => conditions.collect(),
        // The client's own If-Range: if the representation is another one now, it decides what the client gets of it.
        Want::Part => [header::RANGE, header::IF_RANGE]
            .into_iter()
            .filter_map(|name| head.headers.get(&name).cloned().map(|value| (name, value)))
            .chain(conditions)
            .collect(),
        Want::Rest(rest) => {
            let range = rest.part.parts().map(|parts| (header::RANGE, parts.range_field(&rest.gap)));
            let same = if_range_field(&rest.part.meta.validators).map(|value| (header::IF_RANGE, value));
            range.into_iter().chain(same).collect()
        }
    }
}

/// What requests must agree on to share the fetch of a part: the very same part, as what one octet more would need is
/// another answer. `None` where a whole is fetched.
pub fn collapse_key(want: &Want, head: &request::Parts) -> Option<String> {
    let partial = match want {
        Want::Whole => false,
        Want::Part => true,
        Want::Rest(rest) => rest.wanted != (0..rest.complete),
    };
    let field = |name| head.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    partial.then(|| {
        let (range, same) = (field(header::RANGE), field(header::IF_RANGE));
        format!("{}\0{}", range.escape_ascii(), same.escape_ascii())
    })
}

/// How much is known of the length of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It is this long.
    Complete(u64),
    /// It has at least this many octets, and they are there.
    First(u64),
    /// Nothing.
    Unknown,
}

impl Extent {
    /// The length of the whole.
    pub fn complete(self) -> Option<u64> {
        match self {
            Self::Complete(length) => Some(length),
            Self::First(_) | Self::Unknown => None,
        }
    }
}

/// How much of a body that is arriving is known, as far as the answer to this request depends on it. Where the upstream
/// did not state the length, octets that are asked for are waited for, for a while; after that the whole is the answer.
pub async fn extent(head: &request::Parts, filling: &Filling, reader: &mut Reader) -> Extent {
    if let Some(length) = filling.length {
        return Extent::Complete(length);
    }
    let (meta, etag) = (&filling.facts.meta, filling.head.get(header::ETAG));
    let strong = meta.validators.strong_last_modified();
    let needed = match range(&head.method, &head.headers, etag, strong, u64::MAX) {
        RangeAnswer::Whole | RangeAnswer::NotSatisfiable => return Extent::Unknown,
        RangeAnswer::Single(everything) if everything == (0..u64::MAX) => return Extent::Unknown,
        RangeAnswer::Single(wanted) => wanted.end,
        RangeAnswer::Several(_) => u64::MAX,
    };
    let conditional = precondition(&head.method, &head.headers, etag, meta.validators.last_modified);
    if filling.partial || meta.status != StatusCode::OK || conditional != Precondition::Proceed {
        return Extent::Unknown;
    }
    match tokio::time::timeout(PATIENCE, reader.reach(needed)).await {
        Ok(Reached::There) => Extent::First(needed),
        Ok(Reached::End(length)) => Extent::Complete(length),
        Ok(Reached::Never) | Err(_) => Extent::Unknown,
    }
}

/// How long an answer's head waits for octets whose place in the whole is not known yet.
const PATIENCE: Duration = Duration::from_secs(5);
