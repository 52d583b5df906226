//! Answers from stored responses, and from responses that are being filled.

use std::sync::Arc;

use cache_policy::{Decision, Meta, Plan, Reason, UpstreamError, decide, stale_on_error, variant_key};
use http::{HeaderValue, Response, StatusCode, Version, header};

use super::{Answer, Exchange};
use crate::{
    cache::{Filling, Stored, recording::Reader, select::Candidate},
    message::number::number,
    observe::verdict::Verdict,
    response::{
        body::Body,
        coding::OnItsWay,
        fields::{self, Handling},
        known_length::KnownLength,
        representation,
    },
};

impl Exchange<'_> {
    pub(super) fn serve(&self, candidate: &Candidate<'_>, status: Handling) -> Answer {
        let (head, on) = (self.head, self.on_its_way());
        let response = match candidate {
            Candidate::Variant(stored) | Candidate::Language(stored) => {
                representation::stored(head, stored, &self.key, on)
            }
            Candidate::Query(key, stored) => representation::stored(head, stored, key, on),
            Candidate::Part(part, held) => representation::part(head, part, held)
                .expect("a part is only served where every octet that is asked for is held"),
        };
        self.cached(response, &candidate.stored().meta, status)
    }

    /// Answers with a response found in a tier behind memory, if policy lets it answer this request.
    pub(super) fn serve_found(&self, stored: &Arc<Stored>, tier: &'static str) -> Option<Answer> {
        if !stored.vary.is_empty() && variant_key(&stored.vary, &self.as_sent()) != stored.variant {
            return None;
        }
        let candidate = Candidate::of(self.head, stored)?;
        let now = self.edge.clock.now();
        let (verdict, reason) = match decide(&self.facts, Some(&stored.meta), &self.route.rules, now) {
            Decision::Serve { stale: None } => (Verdict::Hit, None),
            Decision::Serve { stale } => (Verdict::Stale, stale),
            Decision::ServeAndRefresh { reason } => {
                self.refresh(None, &candidate, now);
                (Verdict::Stale, Some(reason))
            }
            Decision::Fetch(_) | Decision::Pass(_) | Decision::OnlyIfCached => return None,
        };
        let status = Handling { detail: Some(tier), ..Handling::new(verdict, reason) };
        Some(self.serve(&candidate, status))
    }

    /// The stored response, stale, in place of a failure, if policy permits.
    pub(super) fn stale(&self, stored: Option<&Arc<Stored>>, failure: UpstreamError) -> Option<Answer> {
        let stored = stored?;
        let rules = &self.route.rules;
        let now = self.edge.clock.now();
        let reason = stale_on_error(&self.facts, &stored.meta, rules, failure, now).ok()?;
        let forward_status = match failure {
            UpstreamError::Status(status) | UpstreamError::Shared(status) => Some(status),
            UpstreamError::Disconnected => None,
        };
        let status = Handling { forward_status, ..Handling::new(Verdict::Stale, Some(reason)) };
        Some(self.serve(&Candidate::of(self.head, stored)?, status))
    }

    /// Why the stored response does not stand in for a failure, where one is stored.
    pub(super) fn unserved(&self, stored: Option<&Arc<Stored>>, failure: UpstreamError) -> Option<Reason> {
        let now = self.edge.clock.now();
        stale_on_error(&self.facts, &stored?.meta, &self.route.rules, failure, now).err()
    }

    /// Answers from a body that is being filled; `verdict` tells whether for this request or for another.
    pub(super) fn serve_filling(
        &self,
        filling: &Filling,
        (reader, length): (Reader, KnownLength),
        plan: &Plan,
        verdict: Verdict,
    ) -> Answer {
        let head = self.head_of(filling.partial);
        let response = representation::filling(head, filling, (reader, length), self.on_its_way());
        let status = Handling {
            forward_status: Some(filling.answered),
            stored: verdict == Verdict::Miss,
            ..Handling::new(verdict, Some(plan.reason))
        };
        let answer = self.cached(response, &filling.facts.meta, status);
        Answer { upstream: Some(filling.took), ..answer }
    }

    /// The head that is answered: the client's own, where a slice was asked for and something else has come in its place.
    pub(super) fn head_of(&self, is_as_asked: bool) -> &http::request::Parts {
        self.part.as_ref().filter(|_| !is_as_asked).map_or(self.head, |part| part.head)
    }

    /// What decides about this answer's coding.
    pub(super) fn on_its_way(&self) -> OnItsWay<'_> {
        OnItsWay { coder: &self.edge.coder, route: self.route }
    }

    /// Adds the fields of every answer from the cache: its age, its freshness, and the route's Cache-Control for
    /// browsers.
    fn cached(&self, mut response: Response<Body>, meta: &Meta, status: Handling) -> Answer {
        let now = self.edge.clock.now();
        let from_store = matches!(status.verdict, Verdict::Hit | Verdict::Stale);
        let age = meta.age(now).as_secs();
        self.tell_browsers(&mut response, age);
        if from_store || age > 0 {
            response.headers_mut().insert(header::AGE, number(age));
        }
        let status = Handling { ttl: from_store.then(|| meta.lifetime_left(now)), ..status };
        Answer { response, status, via: Some(Version::HTTP_11), upstream: None }
    }

    /// Puts the route's Cache-Control for browsers in place of the origin's, for an answer of this age in seconds. Not for an answer
    /// that is its client's own.
    pub(super) fn tell_browsers(&self, response: &mut Response<Body>, age: u64) {
        let status = response.status();
        if let Some(browser) = &self.route.browser
            && (fields::takes_browsers_lifetime(status) || status == StatusCode::NOT_MODIFIED)
        {
            let headers = response.headers_mut();
            let value = counted_from_now(browser, age).unwrap_or_else(|| browser.clone());
            headers.insert(header::CACHE_CONTROL, value);
            headers.remove(header::EXPIRES);
        }
    }
}

/// A lifetime for browsers that begins when the answer leaves: `max-age` is counted from the answer's generation (RFC 9111 §4.2),
/// so that the time for which it was kept here would be taken from theirs. `None` where less than a hundredth would be.
fn counted_from_now(browser: &HeaderValue, age: u64) -> Option<HeaderValue> {
    let text = browser.to_str().ok()?;
    let name = text.to_ascii_lowercase().find("max-age=")? + "max-age=".len();
    let digits = text[name..].bytes().take_while(u8::is_ascii_digit).count();
    let (before, after) = (&text[..name], &text[name + digits..]);
    let lifetime: u64 = text[name..name + digits].parse().ok()?;
    if lifetime == 0 || age.saturating_mul(100) < lifetime {
        return None;
    }
    HeaderValue::from_str(&format!("{before}{}{after}", lifetime.saturating_add(age))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifetime_for_browsers_begins_when_the_answer_leaves() {
        for (browser, age, told) in [
            ("max-age=300", 486, Some("max-age=786")),
            (
                "public, s-maxage=600, Max-Age=300, immutable",
                3,
                Some("public, s-maxage=600, Max-Age=303, immutable"),
            ),
            ("public, max-age=300", 2, None),
            ("public, max-age=31536000, immutable", 86_400, None),
            ("max-age=0, must-revalidate", 60, None),
            ("no-cache", 60, None),
            ("max-age=x", 60, None),
        ] {
            let value = counted_from_now(&HeaderValue::from_static(browser), age);
            assert_eq!(value.as_ref().map(|value| value.to_str().unwrap_or_default()), told, "{browser}");
        }
    }
}
