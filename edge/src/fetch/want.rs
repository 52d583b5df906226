//! Which octets of a representation a fetch asks for, and the request fields for that.

use std::{ops::Range, sync::Arc};

use cache_policy::{
    RangeAnswer, Ranges, Reason, RequestFacts, Rules, asks_for_one_part, conditional_fields, if_range_field,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request};

use crate::cache::{
    Stored,
    held::{Gap, Held},
    markers::Marker,
};

/// The octets of a representation that are asked for.
#[derive(Clone, Debug)]
pub enum Want {
    /// All of it.
    Whole,
    /// The part that the client asks for.
    Part,
    /// The octets missing of a stored part.
    Gap(Gap),
}

/// The octets to fetch where the cache alone does not answer.
pub fn want(head: &request::Parts, held: Option<&Held>, facts: &RequestFacts, rules: &Rules) -> Want {
    match held {
        Some(Held::But(gap)) => Want::Gap(gap.clone()),
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

/// Whether more octets are wanted than may be stored, so that the upstream is asked for this client alone: what is stored
/// of them stays as it is.
pub fn is_too_large(want: &Want, largest: u64) -> bool {
    matches!(want, Want::Gap(gap) if gap.wanted.end - gap.wanted.start > largest)
}

/// Whether a marker concerns what this request wants. That a whole is too large to be stored tells nothing about parts
/// that are not.
pub fn concerns(marker: &Marker, want: &Want, head: &request::Parts, largest: u64) -> bool {
    let fits = match want {
        Want::Whole => false,
        Want::Part => stated_range(head).is_some_and(|range| range.end - range.start <= largest),
        Want::Gap(_) => !is_too_large(want, largest),
    };
    !(marker.reason == Reason::TooLarge && fits)
}

/// Whether it asks for a range, and that range is everything: the whole answers it.
pub fn asks_for_everything(head: &request::Parts) -> bool {
    stated_range(head).is_some_and(|range| range == (0..u64::MAX))
}

/// The only range that a request states, as far as it is stated: one without an end ends nowhere.
fn stated_range(head: &request::Parts) -> Option<Range<u64>> {
    let stated = HeaderMap::from_iter([(header::RANGE, head.headers.get(header::RANGE)?.clone())]);
    match cache_policy::range(&Method::GET, &stated, None, None, u64::MAX) {
        RangeAnswer::Single(range) => Some(range),
        RangeAnswer::Whole | RangeAnswer::NotSatisfiable | RangeAnswer::Several(_) => None,
    }
}

/// The conditions and the range of a request that fetches `want`; `validate` is the stored response to validate.
pub fn fields(
    want: &Want,
    head: &request::Parts,
    validate: Option<&Arc<Stored>>,
) -> Vec<(HeaderName, HeaderValue)> {
    let conditions = validate.map(|stored| conditional_fields(&stored.meta)).into_iter().flatten();
    match want {
        Want::Whole => conditions.collect(),
        // The client's own If-Range: if the representation has changed, it decides between the part and the whole.
        Want::Part => [header::RANGE, header::IF_RANGE]
            .into_iter()
            .filter_map(|name| head.headers.get(&name).cloned().map(|value| (name, value)))
            .chain(conditions)
            .collect(),
        Want::Gap(gap) => {
            let range = gap.part.parts().map(|parts| (header::RANGE, parts.range_field(&gap.range)));
            let same = if_range_field(&gap.part.meta.validators).map(|value| (header::IF_RANGE, value));
            range.into_iter().chain(same).collect()
        }
    }
}

/// What requests must agree on to share the fetch of a part: exactly the same part, since one octet more would need
/// another response. `None` where a whole is fetched.
pub fn collapse_key(want: &Want, head: &request::Parts) -> Option<String> {
    let partial = match want {
        Want::Whole => false,
        Want::Part => true,
        Want::Gap(gap) => gap.wanted != (0..gap.complete),
    };
    let field = |name| head.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    partial.then(|| {
        let (range, same) = (field(header::RANGE), field(header::IF_RANGE));
        format!("{}\0{}", range.escape_ascii(), same.escape_ascii())
    })
}
