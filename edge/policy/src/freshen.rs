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
use http::header::{CONTENT_LENGTH, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderName, HeaderValue};

/// The conditional fields that ask the origin whether a stored response still holds (RFC 9111 §4.3.1).
pub fn conditional_fields(stored: &Meta) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
    let etag = stored.validators.etag.clone().map(|etag| (IF_NONE_MATCH, etag));
    let modified = stored.validators.last_modified_field.clone().map(|date| (IF_MODIFIED_SINCE, date));
    etag.into_iter().chain(modified)
}

/// Freshens a stored response with a 304: its fields replace the stored ones, its arrival starts a new life.
///
/// # Errors
/// [`Reason::ValidatorMismatch`] where the 304 speaks of another representation; otherwise the reason why the merged
/// response must not be stored any more. In both cases the caller fetches anew, without conditions.
pub fn freshen(
    stored: &Meta,
    stored_head: &HeaderMap,
    request: &RequestFacts,
    head_304: &HeaderMap,
    arrival: Arrival,
    rules: &Rules,
) -> Result<Admitted, Reason> {
    matches(stored, head_304, arrival)?;
    merge(stored, stored_head, request, head_304, arrival, rules)
}

/// Freshens a stored response to GET with a 200 to HEAD (RFC 9111 §4.3.5).
///
/// # Errors
/// [`Reason::ValidatorMismatch`] or [`Reason::LengthMismatch`] where the stored response is outdated: it is to be treated as stale.
/// Otherwise the reason why the merged response must not be stored any more.
pub fn freshen_by_head(
    stored: &Meta,
    stored_head: &HeaderMap,
    request: &RequestFacts,
    head: &HeaderMap,
    arrival: Arrival,
    rules: &Rules,
) -> Result<Admitted, Reason> {
    matches(stored, head, arrival)?;
    if let (Some(old), Some(new)) = (stored_head.get(CONTENT_LENGTH), head.get(CONTENT_LENGTH))
        && old != new
    {
        return Err(Reason::LengthMismatch);
    }
    merge(stored, stored_head, request, head, arrival, rules)
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

fn merge(
    stored: &Meta,
    stored_head: &HeaderMap,
    request: &RequestFacts,
    newer: &HeaderMap,
    arrival: Arrival,
    rules: &Rules,
) -> Result<Admitted, Reason> {
    let merged = head::overlaid(stored_head, newer);
    // What is stored is the answer to a GET, whichever method asked about it.
    judge(&request.as_get(), stored.status, &merged, arrival, rules)
}
