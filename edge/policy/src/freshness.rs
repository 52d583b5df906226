//! Freshness lifetime and age at arrival (RFC 9111 §4.2.1-§4.2.3).

use crate::canonical::{self, CanonicalExchange};
use crate::date;
use crate::directives::{ResponseDirectives, Scope, delta_seconds, elements};
use crate::meta::LifetimeSource;
use crate::moment::Arrival;
use crate::rules::Rules;
use crate::status;
use crate::targeted;
use http::StatusCode;
use http::header::{AGE, DATE, EXPIRES, HeaderMap, LAST_MODIFIED};
use std::time::{Duration, SystemTime};

/// How fresh a response is on arrival, and whether the engine would share it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freshness {
    pub(crate) storable: bool,
    pub(crate) lifetime: Duration,
    pub(crate) source: LifetimeSource,
    pub(crate) age: Duration,
}

/// A response as the freshness rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh<'a> {
    pub(crate) status: StatusCode,
    pub(crate) head: &'a HeaderMap,
    pub(crate) directives: &'a ResponseDirectives,
    /// A targeted field stands in place of Cache-Control and Expires (RFC 9213 §2.2).
    pub(crate) targeted: bool,
    /// The request carried Authorization.
    pub(crate) authorization: bool,
}

pub(crate) fn measure(response: &Fresh<'_>, arrival: &Arrival, rules: &Rules) -> Freshness {
    let stated_date = date::of_field(response.head.get(DATE), arrival.wall);
    let date = stated_date.unwrap_or(date::clamp(arrival.wall));
    let expires = expires(response, date, arrival.wall);
    let verdict = canonical::ask(&CanonicalExchange {
        directives: response.directives,
        authorization: response.authorization,
        expires,
        date,
    });
    let forced = rules.ttl.as_ref().and_then(|ttl| ttl.of(response.status));
    let (lifetime, source) = match (forced, stated_source(response.directives, expires)) {
        (Some(forced), _) => (forced, LifetimeSource::Ttl),
        (None, Some(source)) => (verdict.lifetime, source),
        (None, None) => unstated(response, date, arrival.wall, rules),
    };
    // What the route forces is as it says.
    let least = rules.min_ttl.filter(|_| {
        source != LifetimeSource::Ttl
            && source != LifetimeSource::None
            && status::takes_default_lifetime(response.status)
    });
    let lifetime = lifetime.max(least.unwrap_or_default());
    Freshness {
        storable: verdict.storable,
        lifetime: lifetime.min(rules.max_ttl.unwrap_or(Duration::MAX)),
        source,
        age: age(response.head, stated_date, arrival),
    }
}

/// §5.3: of several lines the first counts, and one that is no date lies in the past.
fn expires(response: &Fresh<'_>, date: SystemTime, wall: SystemTime) -> Option<SystemTime> {
    let field = response.head.get(EXPIRES).filter(|_| !response.targeted)?;
    Some(date::parse(field.as_bytes(), wall).unwrap_or(date))
}

/// Precedence of §4.2.1 for a shared cache.
fn stated_source(directives: &ResponseDirectives, expires: Option<SystemTime>) -> Option<LifetimeSource> {
    directives
        .s_maxage
        .map(|_| LifetimeSource::SharedMaxAge)
        .or(directives.max_age.map(|_| LifetimeSource::MaxAge))
        .or(expires.map(|_| LifetimeSource::Expires))
}

fn unstated(
    response: &Fresh<'_>,
    date: SystemTime,
    wall: SystemTime,
    rules: &Rules,
) -> (Duration, LifetimeSource) {
    if let Some(lifetime) = rules.default_ttl.filter(|_| status::takes_default_lifetime(response.status)) {
        return (lifetime, LifetimeSource::Route);
    }
    // §4.2.2: only where the status, or `public` on a success, marks the response as cacheable.
    let public = response.directives.public && response.status.is_success();
    let allowed = rules.heuristic && (status::takes_guessed_lifetime(response.status) || public);
    let since_change = date::of_field(response.head.get(LAST_MODIFIED), wall)
        .filter(|_| allowed)
        .and_then(|modified| date.duration_since(modified).ok())
        .filter(|since| *since <= OLDEST_CHANGE);
    match since_change {
        Some(span) => ((span / HEURISTIC_SHARE).min(HEURISTIC_LIMIT), LifetimeSource::Heuristic),
        None => (Duration::ZERO, LifetimeSource::None),
    }
}

/// A heuristic lifetime is one part in so many of the time since the last change.
const HEURISTIC_SHARE: u32 = 10;

/// No guess is trusted for longer: past a day RFC 9111's predecessors asked for a warning, which is gone.
const HEURISTIC_LIMIT: Duration = Duration::from_secs(7 * 86_400);

/// A Last-Modified before that is no date of a change: 1970 is in every reproducible build, 1980 in every archive.
const OLDEST_CHANGE: Duration = Duration::from_secs(3_652 * 86_400);

/// Which of a route's settings would give a response a lifetime, for whoever asks why it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// `default_ttl`, and `ttl` as well.
    DefaultTtl,
    /// `ttl` alone: the origin states a lifetime, or the status takes no default.
    Ttl,
    /// Neither: the status is never stored, or the response says `no-cache`, which no lifetime lifts.
    Neither,
}

impl Supply {
    /// Looks at a response head as the upstream sent it.
    pub fn of(status: StatusCode, head: &HeaderMap, rules: &Rules) -> Supply {
        let targeted = targeted::read(head, &rules.targeted);
        let stands = targeted.is_none() && head.contains_key(EXPIRES);
        let directives = targeted.unwrap_or_else(|| ResponseDirectives::read(head));
        let part = status == StatusCode::PARTIAL_CONTENT;
        if directives.no_cache == Scope::Whole || status::forbids_storing(status) && !part {
            Supply::Neither
        } else if stands
            || stated_source(&directives, None).is_some()
            || !status::takes_default_lifetime(status)
        {
            Supply::Ttl
        } else {
            Supply::DefaultTtl
        }
    }
}

/// The age on arrival (`corrected_initial_age`, §4.2.3).
fn age(head: &HeaderMap, date: Option<SystemTime>, arrival: &Arrival) -> Duration {
    // Date has whole seconds: the fraction of the wall clock is no age.
    let apparent = date.and_then(|date| arrival.wall.duration_since(date).ok()).unwrap_or_default();
    let apparent = Duration::from_secs(apparent.as_secs());
    let stated = head.get(AGE).and_then(|field| first_age(field.as_bytes())).unwrap_or_default();
    apparent.max(stated.saturating_add(arrival.delay()))
}

/// §5.1: of a list the first member counts, an invalid value is ignored.
fn first_age(field: &[u8]) -> Option<Duration> {
    delta_seconds(elements(field).next()?)
}
