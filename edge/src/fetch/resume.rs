//! The rest of a body that broke off: asked for once, and joined only to the representation it belongs to
//! (RFC 9110 §14.2, §13.1.5, RFC 9111 §3.4).
//!
//! Owns the state for asking again. Must never join octets of two representations: without a strong validator nothing
//! is asked for, and a response is dropped unless it is all of the missing octets of the representation that this
//! validator names.

use cache_policy::{Arrival, ContentRange, Reason, Validators, admit_part, if_range_field, may_combine};
use http::{HeaderValue, StatusCode, header, response};
use http_body::Body as _;

use crate::{
    clock::Clock,
    fetch::Subject,
    message::{affinity::Affinity, failure::Failure, hop_by_hop::strip_hop_by_hop},
    upstream::ResponseBody,
};

/// The state for asking for the rest of a response.
pub struct Resume<'a> {
    asked: &'a Subject,
    validators: &'a Validators,
    /// The value of If-Range.
    same: HeaderValue,
    /// The length of the whole, where the first head stated it.
    length: Option<u64>,
}

/// All missing octets of a body.
pub struct Rest {
    /// The missing octets, as they come.
    pub body: ResponseBody,
    /// The length of the whole.
    pub complete: u64,
}

/// Why a body cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum CannotResume {
    /// The upstream did not answer.
    #[error("{0}")]
    Failed(#[source] Failure),
    /// No answer within the pause that a body may make.
    #[error("no answer in time")]
    Late,
    /// A status other than 206: it is another representation, or the upstream does not support ranges.
    #[error("answered with {0}")]
    Status(StatusCode),
    /// The part belongs to another representation, or is another part.
    #[error("another part: {0}")]
    Part(#[source] Reason),
}

impl CannotResume {
    /// One word for metrics.
    pub fn detail(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Late => "late",
            Self::Status(_) | Self::Part(_) => "refused",
        }
    }
}

impl<'a> Resume<'a> {
    /// The state for asking for the rest of this response. `None` where its rest could not be told from that of another
    /// representation, or where the upstream states that it does not support ranges.
    pub fn of(
        asked: &'a Subject,
        answer: &response::Parts,
        validators: &'a Validators,
        length: Option<u64>,
    ) -> Option<Self> {
        let knows_no_ranges = answer
            .headers
            .get_all(header::ACCEPT_RANGES)
            .iter()
            .any(|line| line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"none"));
        if answer.status != StatusCode::OK || knows_no_ranges || !asked.question.is_get() {
            return None;
        }
        Some(Self { asked, validators, same: if_range_field(validators)?, length })
    }

    /// Asks for all octets from `from` on. A reader has waited for one pause of the body already, and waits for at most
    /// one more. Dropping the future closes the connection in use.
    ///
    /// # Errors
    /// [`CannotResume`]: nothing can be added to the body.
    pub async fn ask(self, from: u64, clock: &Clock) -> Result<Rest, CannotResume> {
        let Subject { upstream, question, .. } = self.asked;
        let asked = tokio::time::timeout(question.errand.between_bytes, self.send(from, clock)).await;
        let rest = asked.unwrap_or(Err(CannotResume::Late));
        upstream.continued(rest.as_ref().map_or_else(CannotResume::detail, |_| "continued"));
        rest
    }

    async fn send(self, from: u64, clock: &Clock) -> Result<Rest, CannotResume> {
        let requested_at = clock.now();
        let Subject { upstream, question, .. } = self.asked;
        let request = question.for_rest(from, &self.same);
        let answer = upstream.send(request, Affinity::None, clock).await.map_err(CannotResume::Failed)?;
        let received_at = clock.now();
        let arrival = Arrival { requested_at, received_at, wall: clock.wall_at(received_at) };
        let (mut head, body) = answer.into_parts();
        strip_hop_by_hop(&mut head.headers);
        let complete = self.complete(&head, body.size_hint().exact(), from, arrival)?;
        Ok(Rest { body, complete })
    }

    /// The length of the whole, if this response holds all octets from `from` on.
    fn complete(
        &self,
        head: &response::Parts,
        length: Option<u64>,
        from: u64,
        arrival: Arrival,
    ) -> Result<u64, CannotResume> {
        if head.status != StatusCode::PARTIAL_CONTENT {
            return Err(CannotResume::Status(head.status));
        }
        let Subject { facts, route, .. } = self.asked;
        let (admitted, place) =
            admit_part(facts, &head.headers, arrival, &route.rules).map_err(CannotResume::Part)?;
        if !may_combine(self.validators, &admitted.meta.validators) {
            return Err(CannotResume::Part(Reason::ValidatorMismatch));
        }
        end_of(&place, from, length, self.length).ok_or(CannotResume::Part(Reason::PartialUnusable))
    }
}

/// Where a part of `length` octets ends that begins at `from` and reaches the end of the whole; `None` for any other
/// part.
fn end_of(place: &ContentRange, from: u64, length: Option<u64>, whole: Option<u64>) -> Option<u64> {
    let complete = place.complete.or(whole)?;
    let agrees = whole.is_none_or(|whole| whole == complete);
    let sound = length.is_none_or(|length| length == complete - from.min(complete));
    (agrees && sound && place.range == (from..complete)).then_some(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(place: &str, length: Option<u64>, whole: Option<u64>) -> Option<u64> {
        end_of(&ContentRange::parse(place.as_bytes()).unwrap(), 4, length, whole)
    }

    #[test]
    fn only_all_that_is_missing_is_the_rest() {
        for (place, length, whole) in [
            ("bytes 4-9/10", Some(6), Some(10)),
            ("bytes 4-9/10", None, Some(10)),
            ("bytes 4-9/10", Some(6), None),
            ("bytes 4-9/*", Some(6), Some(10)),
        ] {
            assert_eq!(end(place, length, whole), Some(10), "{place} {length:?} {whole:?}");
        }
        for (place, length, whole) in [
            ("bytes 3-9/10", Some(7), Some(10)),
            ("bytes 5-9/10", Some(5), Some(10)),
            ("bytes 4-8/10", Some(5), Some(10)),
            ("bytes 4-9/10", Some(5), Some(10)),
            ("bytes 4-9/10", Some(6), Some(11)),
            ("bytes 4-9/11", Some(6), Some(10)),
            ("bytes 4-9/*", Some(6), None),
        ] {
            assert_eq!(end(place, length, whole), None, "{place} {length:?} {whole:?}");
        }
    }
}
