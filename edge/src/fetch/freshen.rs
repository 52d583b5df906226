//! A stored response under the head that a newer one has updated: all that storing derives from a head is derived again
//! (RFC 9111 §4.3.4, §4.3.5).

use cache_policy::{Admitted, Reason, Tag, Vary, tags, variant_key};
use http::{HeaderMap, HeaderName};

use crate::{
    cache::{Stored, purge::Generation, stored::Facts},
    response::coding,
    settings::Route,
};

/// The request whose answer updates a stored response.
#[derive(Clone, Copy, Debug)]
pub struct Freshening<'a> {
    /// Its fields, for `Vary`.
    pub fields: &'a HeaderMap,
    pub route: &'a Route,
    /// The generation at which it was sent.
    pub began: Generation,
}

/// The stored response with what policy has admitted of the merged head.
///
/// # Errors
/// [`Reason::TagsUnusable`].
pub fn freshened(stored: &Stored, admitted: Admitted, freshening: &Freshening<'_>) -> Result<Stored, Reason> {
    let Admitted { meta, head, vary } = admitted;
    let &Freshening { fields, route, began } = freshening;
    let tags: Box<[Tag]> = tags(&head, &route.rules)?.into();
    let vary = fields_of(vary);
    let variant = match vary == stored.vary {
        // It was perhaps selected for a request that would make another variant.
        true => stored.variant.clone(),
        false => variant_of(&vary, fields),
    };
    let length = Some(stored.identity().body.length());
    let codable = stored.parts().is_none()
        && route.compress
        && coding::codable(&route.compress_types, meta.status, &head, length);
    let facts = Facts { meta, vary, variant, tags, began, codable };
    Ok(stored.freshened(facts, &head))
}

/// The fields of a `Vary` that is stored.
pub(super) fn fields_of(vary: Vary) -> Box<[HeaderName]> {
    match vary {
        Vary::Fields(fields) => fields,
        Vary::Nothing | Vary::Any => Box::default(),
    }
}

/// A request's values of these fields.
pub(super) fn variant_of(vary: &[HeaderName], fields: &HeaderMap) -> Box<str> {
    if vary.is_empty() { Box::default() } else { variant_key(vary, fields) }
}
