//! How a response that is not stored itself changes stored ones.

use std::sync::Arc;

use cache_policy::{Moment, Newer, Reason, invalidated_groups, invalidated_targets, tags};
use http::HeaderMap;

use crate::cache::{
    Key, Memory, Stored,
    purge::{Force, Generation, Rule},
    tiers::Telling,
};

/// Invalidates the target, the resources that Location and Content-Location name on the same origin, and the groups
/// that the answer names (RFC 9111 §4.4, RFC 9875 §3). In memory that is done when this returns; the value returned
/// purges the tiers behind it.
pub fn invalidate(
    memory: &Memory,
    key: &Key,
    target: &cache_policy::Resource<'_>,
    answer: &HeaderMap,
    now: Moment,
) -> Telling {
    let named = invalidated_targets(target, answer).into_iter().map(|named| key.same_origin(&named));
    let keys: Vec<Key> = std::iter::once(key.clone()).chain(named).collect();
    let origin: Box<str> = format!("{}/", key.origin()).into();
    let groups: Vec<Rule> = invalidated_groups(answer)
        .into_iter()
        .map(|group| Rule::Group { origin: origin.clone(), group })
        .collect();
    let rules = || keys.iter().map(|key| Rule::Key(key.as_str().into())).chain(groups.iter().cloned());
    let telling = memory.tiers().begin(|| rules().collect(), Force::Hard, now);
    for key in &keys {
        memory.invalidate(key);
    }
    if !groups.is_empty() {
        memory.purge(groups, Force::Hard, now);
    }
    telling
}

/// Updates the stored GET response from the answer to a HEAD, or drops a stored response that it contradicts
/// (RFC 9111 §4.3.5). The HEAD was sent at `began`.
pub fn freshen_by_head(
    memory: &Memory,
    key: &Key,
    stored: &Arc<Stored>,
    answer: &Newer<'_>,
    began: Generation,
) {
    match cache_policy::freshen_by_head(&stored.meta, &stored.identity().head, answer) {
        Ok(admitted) => {
            let tags = tags(&admitted.head).unwrap_or_default().into();
            let fresh = stored.freshened(admitted.meta, &admitted.head, tags, began);
            memory.replace(key, stored, Arc::new(fresh));
        }
        Err(Reason::ValidatorMismatch | Reason::LengthMismatch) => memory.remove(key, stored),
        Err(_) => {}
    }
}
