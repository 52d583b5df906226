//! Freshening a stored response with a 304 or a HEAD (RFC 9111 §4.3.3-§4.3.5).

use crate::admit::{Admitted, judge};
use crate::date;
use crate::head;
use crate::meta::Meta;
use crate::moment::Arrival;
use crate::precondition::weakly_equal;
use crate::reason::Reason;
use crate::request::RequestFacts;
use crate::rules::Rules;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderName, HeaderValue};

/// The conditional fields that ask the origin whether a stored response still holds (RFC 9111 §4.3.1).
pub fn conditional_fields(stored: &Meta) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
    let etag = stored.validators.etag.clone().map(|etag| (IF_NONE_MATCH, etag));
    let modified = stored.validators.last_modified_field.clone().map(|date| (IF_MODIFIED_SINCE, date));
    etag.into_iter().chain(modified)
}

/// A response that speaks of a stored one: a 304, or a 200 to HEAD.
#[derive(Clone, Copy, Debug)]
pub struct Newer<'a> {
    /// The request it answers.
    pub request: &'a RequestFacts,
    /// Its head.
    pub head: &'a HeaderMap,
    /// When it came.
    pub arrival: Arrival,
    /// The route's rules.
    pub rules: &'a Rules,
}

/// Freshens a stored response with a 304: its fields replace the stored ones, its arrival starts a new life.
///
/// # Errors
/// [`Reason::ValidatorMismatch`] where the 304 speaks of another representation; otherwise the reason why the merged
/// response must not be stored any more. In both cases the caller fetches anew, without conditions.
pub fn freshen(stored: &Meta, stored_head: &HeaderMap, newer: &Newer<'_>) -> Result<Admitted, Reason> {
    matches(stored, newer.head, newer.arrival)?;
    merge(stored, stored_head, newer)
}

/// Freshens a stored response to GET with a 200 to HEAD (RFC 9111 §4.3.5).
///
/// # Errors
/// [`Reason::ValidatorMismatch`] or [`Reason::LengthMismatch`] where the stored response is outdated: it is to be treated as stale.
/// [`Reason::CodingMismatch`] where the HEAD describes another form of it, which says nothing about this one.
/// Otherwise the reason why the merged response must not be stored any more.
pub fn freshen_by_head(
    stored: &Meta,
    stored_head: &HeaderMap,
    newer: &Newer<'_>,
) -> Result<Admitted, Reason> {
    // Another coding has another tag and another length; neither shows that the stored one is outdated.
    if stored_head.get(CONTENT_ENCODING) != newer.head.get(CONTENT_ENCODING) {
        return Err(Reason::CodingMismatch);
    }
    matches(stored, newer.head, newer.arrival)?;
    if let (Some(old), Some(new)) = (stored_head.get(CONTENT_LENGTH), newer.head.get(CONTENT_LENGTH))
        && old != new
    {
        return Err(Reason::LengthMismatch);
    }
    merge(stored, stored_head, newer)
}

/// §4.3.4: the entity tag decides where the newer response has one, else Last-Modified; one without either speaks of
/// the only response it was asked about.
fn matches(stored: &Meta, newer: &HeaderMap, arrival: Arrival) -> Result<(), Reason> {
    let same = match (newer.get(ETAG), &stored.validators.etag) {
        (Some(new), Some(old)) => weakly_equal(new.as_bytes(), old.as_bytes()),
        (Some(_), None) | (None, _) => match (newer.get(LAST_MODIFIED), stored.validators.last_modified) {
            (Some(new), Some(old)) => date::parse(new.as_bytes(), arrival.wall).is_none_or(|new| new == old),
            _ => true,
        },
    };
    if same { Ok(()) } else { Err(Reason::ValidatorMismatch) }
}

fn merge(stored: &Meta, stored_head: &HeaderMap, newer: &Newer<'_>) -> Result<Admitted, Reason> {
    let merged = head::overlaid(stored_head, newer.head);
    // What is stored is the answer to a GET, whichever method asked about it.
    judge(&newer.request.as_get(), stored.status, &merged, newer.arrival, newer.rules)
}
