//! The last steps of every answer: the fields that depend on the moment or on this edge.

use std::{cell::RefCell, time::SystemTime};

use cache_policy::{Forward, Outcome, Reason};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};

use crate::{
    clock::Clock,
    message::{hop_by_hop, target::Scheme},
    observe::verdict::Verdict,
    request::limit::{Admission, Limiter},
    settings::{INTERNAL, ResponseField, ResponseFields, STRICT, STRICT_TRANSPORT},
};

/// The content of Cache-Status for one answer (RFC 9211).
#[derive(Clone, Copy, Debug)]
pub struct Handling {
    /// How the cache took part.
    pub verdict: Verdict,
    /// The reason, where the verdict alone is not enough.
    pub reason: Option<Reason>,
    /// Why it was forwarded, where that is not the `reason`.
    pub forward: Option<Forward>,
    /// The status the upstream answered with, when it was asked.
    pub forward_status: Option<StatusCode>,
    /// Whether the answer is being stored.
    pub stored: bool,
    /// Seconds of freshness left, negative when stale; where the answer is a stored one.
    pub ttl: Option<i64>,
    /// A further word when there is no `reason`.
    pub detail: Option<&'static str>,
}

impl Handling {
    /// A status with nothing to add.
    pub const fn new(verdict: Verdict, reason: Option<Reason>) -> Self {
        Self { verdict, reason, forward: None, forward_status: None, stored: false, ttl: None, detail: None }
    }

    /// The one word that logs and metrics keep.
    pub fn word(&self) -> Option<&'static str> {
        self.reason.map(Reason::as_str).or(self.detail)
    }

    /// The field's value.
    pub fn value(&self) -> HeaderValue {
        let forwarded = |otherwise| Outcome::Forwarded {
            why: self.forward.unwrap_or(otherwise),
            status: self.forward_status,
            stored: self.stored,
            collapsed: self.verdict == Verdict::Collapsed,
        };
        let outcome = match self.verdict {
            // It stands in for what the upstream answered: it was forwarded all the same (RFC 9211 §2.1).
            Verdict::Stale if self.forward_status.is_some() => forwarded(Forward::Stale),
            Verdict::Hit | Verdict::Stale => Outcome::Hit,
            Verdict::Stated | Verdict::Refused | Verdict::Vanished => Outcome::Neither,
            Verdict::Revalidated | Verdict::Miss | Verdict::Collapsed | Verdict::Pass => {
                forwarded(self.reason.map_or(Forward::Bypass, Forward::of))
            }
        };
        let status =
            cache_policy::CacheStatus { cache: "gatehouse", outcome, ttl: self.ttl, detail: self.word() };
        status.to_field()
    }
}

/// Adds what every answer carries: `Cache-Status`, and `Via` where it came from an upstream, now or before.
pub fn finish(headers: &mut HeaderMap, status: &Handling, via: Option<Version>) {
    if let Some(received) = via {
        headers.append(header::VIA, hop_by_hop::via(received));
    }
    headers.append(CACHE_STATUS, status.value());
}

/// Sends what a route's settings say of single fields, and keeps back what is for caches alone.
pub fn of_route(headers: &mut HeaderMap, said: &ResponseFields) {
    // Most names are told apart by their length and first letter, which costs less than a look-up of each.
    let looks_so = |name: &[u8]| {
        matches!(
            (name.len(), name.first()),
            (4 | 12 | 14, Some(b'x')) | (9 | 10, Some(b'c')) | (13, Some(b's')) | (16, Some(b'p'))
        )
    };
    let internal = |name: &HeaderName| looks_so(name.as_str().as_bytes()) && INTERNAL.contains(name);
    if headers.keys().any(internal) {
        for name in INTERNAL.iter().filter(|name| !said.keep(name)) {
            headers.remove(name);
        }
    }
    for (name, field) in said.each() {
        match field {
            ResponseField::Is(lines) => {
                headers.remove(name);
                headers.extend(lines.iter().map(|line| (name.clone(), line.clone())));
            }
            ResponseField::Absent => {
                headers.remove(name);
            }
            ResponseField::Kept => {}
        }
    }
}

/// Adds what guards an answer from other sites, where it says nothing of it itself.
pub fn guard(headers: &mut HeaderMap, scheme: Scheme) {
    let of_tls = (scheme == Scheme::Https).then_some((header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT));
    for (name, value) in STRICT.into_iter().chain(of_tls) {
        headers.entry(name).or_insert(value);
    }
}

/// Adds `Date` where there is none (RFC 9110 §6.6.1). In HTTP/1.x hyper does.
pub fn date(headers: &mut HeaderMap, clock: &Clock) {
    let header::Entry::Vacant(entry) = headers.entry(header::DATE) else { return };
    let wall = clock.wall();
    let second = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let value = DATE.with_borrow_mut(|(of, value)| {
        if *of != second {
            let text = httpdate::fmt_http_date(wall);
            (*of, *value) = (second, HeaderValue::from_str(&text).expect("a date is ASCII"));
        }
        value.clone()
    });
    entry.insert(value);
}

/// Says to a client with an encrypted connection that this host is to be reached by no other (RFC 6797), in place of whatever
/// the origin says of it: the operator's word holds for errors and stored answers as well.
pub fn strict_transport(headers: &mut HeaderMap, hsts: Option<&HeaderValue>) {
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

/// Whether clients are told the route's Cache-Control with this status: what they keep with one, and those redirects that they would
/// keep for ever without.
#[must_use]
pub fn takes_browsers_lifetime(status: StatusCode) -> bool {
    let is_permanent = matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT);
    status.is_success() || is_permanent
}

thread_local! {
    /// The second since the epoch that was last written out, and how.
    static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
}

/// Adds the limit's fields (draft-ietf-httpapi-ratelimit-headers).
pub fn limit(headers: &mut HeaderMap, limiter: &Limiter, admission: &Admission) {
    headers.insert(RATE_LIMIT_POLICY, limiter.policy().clone());
    headers.insert(RATE_LIMIT, limiter.state(admission));
}

/// RFC 9211.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_status_says_what_happened() {
        let hit = Handling { ttl: Some(299), ..Handling::new(Verdict::Hit, None) };
        assert_eq!(hit.value(), "gatehouse; hit; ttl=299");
        let miss = Handling {
            forward_status: Some(StatusCode::OK),
            stored: true,
            ..Handling::new(Verdict::Miss, Some(Reason::Miss))
        };
        assert_eq!(miss.value(), "gatehouse; fwd=uri-miss; fwd-status=200; stored; detail=miss");
        let pass = Handling::new(Verdict::Pass, Some(Reason::RequestCookie));
        assert_eq!(pass.value(), "gatehouse; fwd=bypass; detail=request-cookie");
    }
}
