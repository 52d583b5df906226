//! What is stored of a resource only in part: whether it answers a request, and what the upstream is asked for to make it
//! do so (RFC 9111 §3.3, §3.4).
//!
//! Decides and builds; it fetches and stores nothing itself.

use std::{ops::Range, sync::Arc};

use cache_policy::{
    Decision, Moment, PartAnswer, Plan, RangeAnswer, Ranges, Reason, RequestFacts, Rules, asks_for_one_part,
    conditional_fields, decide, if_range_field, range,
};
use http::{HeaderName, HeaderValue, Response, header, request};

use crate::{
    body::Body,
    cache::Stored,
    fetch::{Rest, Want},
    represent,
};

/// What a stored part makes of a request.
pub enum FromPart {
    /// The answer; `stale` says why it may be given although it is stale.
    Answered {
        /// With its status, range and body.
        response: Response<Body>,
        /// `None`: it is fresh.
        stale: Option<Reason>,
    },
    /// All but one stretch is there.
    Fetch(Plan, Rest),
    /// Not all of it is there, and the client wanted a stored response or none.
    OnlyIfCached,
    /// Nothing to go by.
    Nothing,
}

/// Whether the upstream is asked for the part that the client asks for, and not for the whole.
pub fn wanted(head: &request::Parts, facts: &RequestFacts, rules: &Rules) -> bool {
    rules.ranges != Ranges::Whole && facts.asks_for_range() && asks_for_one_part(&head.headers)
}

/// Answers a GET from a stored part, or says what is missing.
pub fn answer(
    head: &request::Parts,
    part: &Arc<Stored>,
    facts: &RequestFacts,
    rules: &Rules,
    now: Moment,
) -> FromPart {
    let Decision::Serve { stale } = decide(facts, Some(&part.meta), rules, now) else {
        return FromPart::Nothing;
    };
    match held(head, part) {
        Held::All(wanted) => match represent::part(head, part, wanted) {
            Some(response) => FromPart::Answered { response, stale },
            None => FromPart::Nothing,
        },
        Held::Beyond(length) => FromPart::Answered { response: represent::not_satisfiable(length), stale },
        Held::But(rest) => match decide(facts, None, rules, now) {
            Decision::Fetch(plan) => FromPart::Fetch(Plan { reason: Reason::PartialMiss, ..plan }, rest),
            Decision::OnlyIfCached => FromPart::OnlyIfCached,
            _ => FromPart::Nothing,
        },
        Held::TooLittle => FromPart::Nothing,
    }
}

/// What a stored part holds of what a request asks for.
enum Held {
    All(Range<u64>),
    /// All but one stretch.
    But(Rest),
    /// The request asks for what lies beyond the end.
    Beyond(u64),
    TooLittle,
}

fn held(head: &request::Parts, part: &Arc<Stored>) -> Held {
    let Some(parts) = part.parts() else { return Held::TooLittle };
    let Some(complete) = parts.complete_length() else {
        // Without the length of the whole nothing can be said of a client's If-Range either.
        return match parts.answer(&head.headers) {
            PartAnswer::Held(RangeAnswer::Single(wanted)) if !head.headers.contains_key(header::IF_RANGE) => {
                Held::All(wanted)
            }
            _ => Held::TooLittle,
        };
    };
    let etag = part.identity().head.get(header::ETAG);
    let strong = part.meta.validators.strong_last_modified();
    let wanted = match range(&head.method, &head.headers, etag, strong, complete) {
        RangeAnswer::Single(wanted) => wanted,
        RangeAnswer::Whole => 0..complete,
        RangeAnswer::NotSatisfiable => return Held::Beyond(complete),
        RangeAnswer::Several(_) => return Held::TooLittle,
    };
    match &parts.missing(&wanted)[..] {
        [] => Held::All(wanted),
        [gap] => Held::But(Rest { part: Arc::clone(part), gap: gap.clone(), wanted, complete }),
        _ => Held::TooLittle,
    }
}

/// The conditions and the range of a request that fetches `want`. `validate` is what a whole is fetched to validate.
pub fn fields(
    want: &Want,
    head: &request::Parts,
    validate: Option<&Arc<Stored>>,
) -> Vec<(HeaderName, HeaderValue)> {
    match want {
        Want::Whole => validate.map(|stored| conditional_fields(&stored.meta).collect()).unwrap_or_default(),
        Want::Part => [header::RANGE, header::IF_RANGE]
            .into_iter()
            .filter_map(|name| head.headers.get(&name).cloned().map(|value| (name, value)))
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
