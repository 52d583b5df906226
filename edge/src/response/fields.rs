//! The last steps of every answer: the fields that depend on the moment or on this edge, and the edge's own words.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use cache_policy::{Forward, Outcome, Reason};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header, request};

use crate::{
    clock::Clock,
    observe::record::Verdict,
    request::{
        limit::{Admission, Exceeded, Limiter},
        refusal::Refusal,
    },
    response::body::Body,
    upstream::outbound,
};

/// What Cache-Status tells of one answer (RFC 9211).
#[derive(Clone, Copy, Debug)]
pub struct CacheStatus {
    /// How the cache took part.
    pub verdict: Verdict,
    /// Why, where there is more to say.
    pub reason: Option<Reason>,
    /// The status the upstream answered with, when it was asked.
    pub forward_status: Option<StatusCode>,
    /// Whether the answer is being stored.
    pub stored: bool,
    /// Seconds of freshness left, negative when stale; where the answer is a stored one.
    pub ttl: Option<i64>,
    /// A further word when there is no `reason`.
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    /// A status with nothing to add.
    pub const fn new(verdict: Verdict, reason: Option<Reason>) -> Self {
        Self { verdict, reason, forward_status: None, stored: false, ttl: None, detail: None }
    }

    /// The one word that logs and metrics keep.
    pub fn word(&self) -> Option<&'static str> {
        self.reason.map(Reason::as_str).or(self.detail)
    }

    /// The field's value.
    pub fn value(&self) -> HeaderValue {
        let outcome = match self.verdict {
            Verdict::Hit | Verdict::Stale => Outcome::Hit,
            Verdict::Refused | Verdict::Vanished => Outcome::Neither,
            Verdict::Revalidated | Verdict::Miss | Verdict::Collapsed | Verdict::Pass => Outcome::Forwarded {
                why: self.reason.map_or(Forward::Bypass, Forward::of),
                status: self.forward_status,
                stored: self.stored,
                collapsed: self.verdict == Verdict::Collapsed,
            },
        };
        let status = cache_policy::CacheStatus {
            cache: "gatehouse",
            outcome,
            ttl: self.ttl,
            key: None,
            detail: self.word(),
        };
        status.to_field()
    }
}

/// Adds what every answer that came from an upstream, now or before, carries: `Via` and `Cache-Status`.
pub fn finish(headers: &mut HeaderMap, status: &CacheStatus, upstream: Version) {
    headers.append(header::VIA, outbound::via(upstream));
    headers.append(CACHE_STATUS, status.value());
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

thread_local! {
    /// The second since the epoch that was last written out, and how.
    static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
}

/// What a request that was refused by a limit is told.
#[derive(Debug)]
pub struct RateLimited {
    /// When the next request will be admitted.
    pub retry_after: Duration,
    policy: HeaderValue,
    state: HeaderValue,
}

impl RateLimited {
    /// What a limiter says of a refusal.
    pub fn new(limiter: &Limiter, exceeded: Exceeded) -> Self {
        Self {
            retry_after: exceeded.retry_after,
            policy: limiter.policy().clone(),
            state: limiter.state(&Err(exceeded)),
        }
    }
}

/// Adds the limit's fields (draft-ietf-httpapi-ratelimit-headers).
pub fn limit(headers: &mut HeaderMap, limiter: &Limiter, admission: &Admission) {
    headers.insert(RATE_LIMIT_POLICY, limiter.policy().clone());
    headers.insert(RATE_LIMIT, limiter.state(admission));
}

/// The one place that turns a refusal into a response: problem+json (RFC 9457), never stored by anyone.
pub fn refusal(refusal: &Refusal, head: &request::Parts) -> Response<Body> {
    let status = refusal.status();
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": refusal.to_string(),
        "code": refusal.detail(),
    });
    let body = Bytes::from(format!("{problem}\n"));
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(wait) = refusal.retry_after() {
        // Whole seconds, rounded up: a client that waits as long as it is told is served.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if let Refusal::MethodNotAllowed = refusal {
        headers
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    if let Refusal::TooManyRequests(limited) = refusal {
        headers.insert(RATE_LIMIT_POLICY, limited.policy.clone());
        headers.insert(RATE_LIMIT, limited.state.clone());
    }
    if refusal.closes() && head.version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = CacheStatus { detail: Some(refusal.detail()), ..CacheStatus::new(Verdict::Refused, None) };
    headers.append(CACHE_STATUS, status.value());
    if head.method != Method::HEAD {
        *response.body_mut() = Body::Whole(body);
    }
    response
}

/// RFC 9211.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_status_says_what_happened() {
        let hit = CacheStatus { ttl: Some(299), ..CacheStatus::new(Verdict::Hit, None) };
        assert_eq!(hit.value(), "gatehouse; hit; ttl=299");
        let miss = CacheStatus {
            forward_status: Some(StatusCode::OK),
            stored: true,
            ..CacheStatus::new(Verdict::Miss, Some(Reason::Miss))
        };
        assert_eq!(miss.value(), "gatehouse; fwd=uri-miss; fwd-status=200; stored; detail=miss");
        let pass = CacheStatus::new(Verdict::Pass, Some(Reason::RequestCookie));
        assert_eq!(pass.value(), "gatehouse; fwd=bypass; detail=request-cookie");
    }
}
