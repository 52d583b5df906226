//! What of a representation a fetch asks for, and how it is written.

use std::sync::Arc;

use cache_policy::{Ranges, RequestFacts, Rules, asks_for_one_part, conditional_fields, if_range_field};
use http::{HeaderName, HeaderValue, header, request};

use crate::cache::{
    Stored,
    held::{Gap, Held},
};

/// What of a representation is asked for.
#[derive(Clone, Debug)]
pub enum Want {
    /// All of it.
    Whole,
    /// The part that the client asks for.
    Part,
    /// What is missing of a part that is stored.
    Gap(Gap),
}

/// What is fetched where the cache alone does not answer.
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
        Want::Gap(gap) => {
            let range = gap.part.parts().map(|parts| (header::RANGE, parts.range_field(&gap.range)));
            let same = if_range_field(&gap.part.meta.validators).map(|value| (header::IF_RANGE, value));
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
        Want::Gap(gap) => gap.wanted != (0..gap.complete),
    };
    let field = |name| head.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    partial.then(|| {
        let (range, same) = (field(header::RANGE), field(header::IF_RANGE));
        format!("{}\0{}", range.escape_ascii(), same.escape_ascii())
    })
}
