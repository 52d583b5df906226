//! May a stored response answer this request (RFC 9111 §4)? The hot path: instants are compared, nothing is parsed.

use crate::directives::{MaxStale, RequestDirectives};
use crate::meta::Meta;
use crate::moment::Moment;
use crate::reason::Reason;
use crate::request::{MethodClass, RequestCookies, RequestFacts};
use crate::rules::Rules;
use http::StatusCode;
use std::time::Duration;

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The stored response answers. `stale` says why it may although it is stale.
    Serve {
        /// `None`: it is fresh.
        stale: Option<Reason>,
    },
    /// The stored response answers, and is refreshed meanwhile.
    ServeAndRefresh {
        /// Always [`Reason::StaleWhileRevalidate`].
        reason: Reason,
    },
    /// The upstream is asked; requests for the same key may share the answer.
    Fetch(Plan),
    /// The upstream is asked for this client alone, and nothing is stored.
    Pass(Reason),
    /// 504: the client wanted a stored response or none (RFC 9111 §5.2.1.7).
    OnlyIfCached,
}

/// How the upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Why the stored response did not do.
    pub reason: Reason,
    /// Something is stored and has validators: send [`crate::conditional_fields`].
    pub validate: bool,
}

/// A failure of the upstream, for which a stale answer may stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// No answer: no connection, a broken one, or a deadline that passed.
    Disconnected,
    /// An answer with this status.
    Status(StatusCode),
    /// An answer with this status to the request that this one waited for: 429 or 5xx.
    Shared(StatusCode),
}

/// Decides about a request, given what is stored for its key and variant. `stored` is `None` where nothing is.
pub fn decide(request: &RequestFacts, stored: Option<&Meta>, rules: &Rules, now: Moment) -> Decision {
    if let Some(reason) = pass(request) {
        return Decision::Pass(reason);
    }
    let Some(stored) = stored else {
        return fetch(request, Reason::Miss, None);
    };
    if let Some(reason) = bars_sharing(request, stored) {
        return Decision::Pass(reason);
    }
    match refusal(&request.directives, stored, now) {
        None if stored.is_fresh(now) => Decision::Serve { stale: None },
        None => decide_stale(request, stored, rules, now),
        Some(reason) => fetch(request, reason, Some(stored)),
    }
}

/// Decides about a request that the stored response would answer, were it not for something outside this crate that makes
/// it uncertain (`reason`): the upstream is asked first.
pub fn validate_first(request: &RequestFacts, stored: &Meta, reason: Reason) -> Decision {
    fetch(request, reason, Some(stored))
}

/// May `stored` be served in place of this failure (RFC 5861 §4, RFC 9111 §4.2.4)?
///
/// A client's `no-cache` and `max-age` do not stand against it: they are preferences (§5.2.1), and the origin has been
/// asked.
///
/// # Errors
/// The reason why it may not.
pub fn stale_on_error(
    request: &RequestFacts,
    stored: &Meta,
    rules: &Rules,
    failure: UpstreamError,
    now: Moment,
) -> Result<Reason, Reason> {
    if let UpstreamError::Status(status) = failure
        && !matches!(status.as_u16(), 500 | 502 | 503 | 504)
    {
        return Err(Reason::NotAFailure);
    }
    if request.cookies == RequestCookies::Bypassing {
        return Err(Reason::RequestCookie);
    }
    if let Some(reason) = bars_sharing(request, stored) {
        return Err(reason);
    }
    if stored.no_cache {
        return Err(Reason::NoCache);
    }
    if stored.is_fresh(now) {
        return Ok(Reason::FreshOnError);
    }
    if let Some(reason) = stored.bars_window() {
        return Err(reason);
    }
    if let Some(window) = stored.if_error(rules) {
        return if stored.staleness(now) <= window {
            Ok(Reason::StaleIfError)
        } else {
            Err(Reason::TooStale)
        };
    }
    if let Some(reason) = stored.bars_stale() {
        return Err(reason);
    }
    let reason = match failure {
        UpstreamError::Disconnected => Reason::StaleOnDisconnect,
        // DEVIATION: §4.2.4 would have the upstream asked by each of those who waited. It has just said that it is
        // overloaded or broken, and nothing forbids the stale response.
        UpstreamError::Shared(_) => Reason::StaleOnSharedFailure,
        UpstreamError::Status(_) if rules.stale_on_status => Reason::StaleOnStatus,
        UpstreamError::Status(_) => return Err(Reason::NoStaleIfError),
    };
    if !stored.is_to_be_used_again() {
        return Err(Reason::NoFreshness);
    }
    if stored.staleness(now) <= rules.stale_on_disconnect { Ok(reason) } else { Err(Reason::TooStale) }
}

/// Whether an answer that was fetched for another request, after this one had arrived, may be shared with it.
pub fn may_share(request: &RequestFacts, answer: &Meta) -> bool {
    pass(request).is_none() && !request.directives.no_store && bars_sharing(request, answer).is_none()
}

/// Why an answer to others is none to this request, whatever its freshness: the request carries credentials or cookies, and
/// nothing says that it is for everyone.
pub fn bars_sharing(request: &RequestFacts, answer: &Meta) -> Option<Reason> {
    // DEVIATION (stricter than §3.5): a response that is not marked as shareable answers no request with
    // Authorization, although it was stored for one without.
    if request.authorization && !answer.shareable {
        Some(Reason::Authorization)
    } else if request.minds_cookies() && !answer.for_everyone {
        Some(Reason::RequestCookie)
    } else {
        None
    }
}

/// Whether an answer for which the upstream was asked at `began`, and which came at `answered`, is an answer to this
/// request as well, which had `arrived`, whatever its lifetime: requests that wait for one answer are combined into one
/// (RFC 9111 §4). A reload is combined only with a request that was sent after it came, since it may follow a change
/// that the answer under way does not show yet.
pub fn may_combine_requests(
    request: &RequestFacts,
    arrived: Moment,
    began: Moment,
    answered: Moment,
) -> bool {
    let wishes = &request.directives;
    let reloads = wishes.no_cache || wishes.max_age == Some(Duration::ZERO);
    began >= arrived || (answered >= arrived && !reloads)
}

/// Whether a response of this status may take the place of a stored one: a failure does not (RFC 9111 §4.3.3 lets a
/// cache keep what it has).
pub fn may_replace(stored: &Meta, status: StatusCode) -> bool {
    stored.status.is_server_error() || !status.is_server_error()
}

/// Whether a response that is not stored (for `reason`) displaces the stored one that it answers for, stale windows
/// included: the origin has replaced or withdrawn it (RFC 9111 §4.3.3).
///
/// A success, a redirect, 404, 410 and 451 say what the resource is now. A server error is a failure, over which RFC 5861 §4
/// keeps what is stored. 401 and 403 are about who asks, 429 about how often, and the other client errors about how: the
/// stored response went to everyone, and still may. So it may whatever a request is answered that says who asks.
pub fn displaces(request: &RequestFacts, status: StatusCode, reason: Reason) -> bool {
    let says_what_it_is = match status.as_u16() {
        206 | 304 => false,
        404 | 410 | 451 => true,
        _ => status.is_success() || status.is_redirection(),
    };
    says_what_it_is && !reason.is_about_request() && !request.is_personal()
}

fn pass(request: &RequestFacts) -> Option<Reason> {
    match request {
        RequestFacts { method: MethodClass::Other, .. } => Some(Reason::Method),
        RequestFacts { content: true, .. } => Some(Reason::RequestContent),
        RequestFacts { cookies: RequestCookies::Bypassing, .. } => Some(Reason::RequestCookie),
        RequestFacts { origin_precondition: true, .. } => Some(Reason::OriginPrecondition),
        _ => None,
    }
}

fn fetch(request: &RequestFacts, reason: Reason, stored: Option<&Meta>) -> Decision {
    if request.directives.only_if_cached {
        return Decision::OnlyIfCached;
    }
    // What is stored already may answer a `no-store` request; what is fetched for it must not be stored.
    if request.directives.no_store {
        return Decision::Pass(Reason::RequestNoStore);
    }
    Decision::Fetch(Plan { reason, validate: stored.is_some_and(|stored| !stored.validators.is_empty()) })
}

/// Why the client, or the response itself, does not let the stored response answer, stale or not.
fn refusal(wishes: &RequestDirectives, stored: &Meta, now: Moment) -> Option<Reason> {
    if stored.no_cache {
        return Some(Reason::NoCache);
    }
    if *wishes == RequestDirectives::default() {
        return None;
    }
    if wishes.no_cache {
        return Some(Reason::RequestNoCache);
    }
    if wishes.max_age.is_some_and(|limit| too_old(limit, stored, now)) {
        return Some(Reason::RequestMaxAge);
    }
    let left = stored.lifetime.saturating_sub(stored.age(now));
    // §5.2.1.3 asks for this much freshness to come; `max-stale` beside it asks for less and wins over it.
    if wishes.max_stale.is_none() && wishes.min_fresh.is_some_and(|wanted| left < wanted) {
        return Some(Reason::RequestMinFresh);
    }
    None
}

fn too_old(limit: Duration, stored: &Meta, now: Moment) -> bool {
    match limit {
        // A reload. RFC 8246 §2: it does not make sense for what never changes while fresh.
        Duration::ZERO => !(stored.immutable && stored.is_fresh(now)),
        limit => stored.age(now) > limit,
    }
}

fn decide_stale(request: &RequestFacts, stored: &Meta, rules: &Rules, now: Moment) -> Decision {
    let staleness = stored.staleness(now);
    let accepted = match request.directives.max_stale {
        Some(MaxStale::Any) => true,
        Some(MaxStale::UpTo(limit)) => staleness <= limit,
        None => false,
    };
    let barred = stored.bars_stale();
    if accepted && barred.is_none() && stored.is_to_be_used_again() {
        return Decision::Serve { stale: Some(Reason::MaxStale) };
    }
    // A client that named an age, or asked for freshness to come, is not served beyond it.
    let wishes = request.directives;
    let content = wishes.max_age.is_none() && wishes.min_fresh.is_none();
    let inside = stored.while_revalidate(rules).is_some_and(|window| staleness <= window);
    if inside && content && stored.bars_window().is_none() {
        return Decision::ServeAndRefresh { reason: Reason::StaleWhileRevalidate };
    }
    fetch(request, barred.unwrap_or(Reason::Stale), Some(stored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::admit;
    use crate::moment::Arrival;
    use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, ETAG, HeaderMap, HeaderName};
    use http::{HeaderValue, Method};
    use std::time::SystemTime;

    fn request(field: HeaderName, value: &'static str) -> RequestFacts {
        let headers = HeaderMap::from_iter([(field, HeaderValue::from_static(value))]);
        RequestFacts::read(&Method::GET, &headers, &Rules::default())
    }

    fn answer(directives: &'static str) -> Meta {
        let now = Moment::default();
        let arrival = Arrival { requested_at: now, received_at: now, wall: SystemTime::UNIX_EPOCH };
        let head = HeaderMap::from_iter([
            (CACHE_CONTROL, HeaderValue::from_static(directives)),
            (ETAG, HeaderValue::from_static("\"a\"")),
        ]);
        let plain = RequestFacts::read(&Method::GET, &HeaderMap::new(), &Rules::default());
        admit(&plain, StatusCode::OK, &head, arrival, &Rules::default()).unwrap().meta
    }

    #[test]
    fn collapsed_answers_are_shared_with_whom_they_are_for() {
        assert!(may_share(&request(CACHE_CONTROL, "no-cache"), &answer("max-age=9")));
        assert!(!may_share(&request(COOKIE, "a=b"), &answer("max-age=9")));
        for word in ["max-age=9, public", "s-maxage=9", "max-age=9, immutable"] {
            assert!(may_share(&request(COOKIE, "a=b"), &answer(word)), "{word}");
        }
        assert!(!may_share(&request(AUTHORIZATION, "x"), &answer("max-age=9")));
        assert!(may_share(&request(AUTHORIZATION, "x"), &answer("max-age=9, public")));
    }

    #[test]
    fn whoever_waited_for_a_failing_answer_gets_what_is_stale_unless_that_is_forbidden() {
        let now = Moment::default() + Duration::from_secs(100);
        let plain = RequestFacts::read(&Method::GET, &HeaderMap::new(), &Rules::default());
        let instead = |stored: &'static str, failure| {
            stale_on_error(&plain, &answer(stored), &Rules::default(), failure, now)
        };
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            assert_eq!(instead("max-age=9", UpstreamError::Shared(status)), Ok(Reason::StaleOnSharedFailure));
            assert_eq!(instead("public", UpstreamError::Shared(status)), Ok(Reason::StaleOnSharedFailure));
            assert_eq!(instead("no-transform", UpstreamError::Shared(status)), Err(Reason::NoFreshness));
            assert!(instead("max-age=9", UpstreamError::Status(status)).is_err(), "the one that asked");
            for bars in ["max-age=9, must-revalidate", "s-maxage=9", "max-age=9, stale-if-error=1"] {
                assert!(instead(bars, UpstreamError::Shared(status)).is_err(), "{bars}");
            }
        }
    }

    #[test]
    fn what_says_what_the_resource_is_displaces_and_failures_do_not() {
        let displaces = |status, reason| {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(!displaces(&request(AUTHORIZATION, "x"), status, reason), "somebody's own {status}");
            displaces(&request(CACHE_CONTROL, "no-cache"), status, reason)
        };
        for status in [200, 203, 301, 302, 303, 307, 308, 404, 410, 451] {
            assert!(displaces(status, Reason::Status), "{status}");
            assert!(!displaces(status, Reason::NotShared), "{status} to one client's credentials");
        }
        for status in [206, 304, 400, 401, 403, 405, 408, 416, 429, 500, 502, 503, 504] {
            assert!(!displaces(status, Reason::Status), "{status}");
        }
    }

    #[test]
    fn a_failure_does_not_replace_an_answer() {
        let mut stored = answer("max-age=9");
        assert!(!may_replace(&stored, StatusCode::BAD_GATEWAY));
        assert!(may_replace(&stored, StatusCode::NOT_FOUND));
        stored.status = StatusCode::BAD_GATEWAY;
        assert!(may_replace(&stored, StatusCode::SERVICE_UNAVAILABLE));
    }
}
