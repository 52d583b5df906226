//! May a response be stored, and how is it remembered (RFC 9111 §3)?

use crate::directives::{ResponseDirectives, Scope};
use crate::freshness::{self, Fresh, Freshness};
use crate::head;
use crate::meta::{LifetimeSource, Meta, StaleBan, Validators};
use crate::moment::Arrival;
use crate::reason::Reason;
use crate::request::{MethodClass, RequestCookies, RequestFacts};
use crate::rules::{Rules, SetCookie};
use crate::status;
use crate::targeted;
use crate::vary::Vary;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, StatusCode};
use std::time::Duration;

/// A response that may be stored.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// What is remembered for deciding.
    pub meta: Meta,
    /// The head as stored: fields of one connection, Age, cookies by rule and the fields that `private` or
    /// `no-cache` name are gone; Date is there.
    pub head: HeaderMap,
    /// What it varies on. Never [`Vary::Any`].
    pub vary: Vary,
}

/// Judges a response to `request`. `head` is as the upstream sent it.
///
/// # Errors
/// The reason why the response must not, or need not, be stored.
pub fn admit(
    request: &RequestFacts,
    status: StatusCode,
    head: &HeaderMap,
    arrival: Arrival,
    rules: &Rules,
) -> Result<Admitted, Reason> {
    if status::forbids_storing(status) {
        return Err(Reason::StatusForbidsStoring);
    }
    judge(request, status, head, arrival, rules)
}

/// [`admit`] without its view of statuses that are no whole responses: for those who store parts.
pub(crate) fn judge(
    request: &RequestFacts,
    status: StatusCode,
    head: &HeaderMap,
    arrival: Arrival,
    rules: &Rules,
) -> Result<Admitted, Reason> {
    bars_of_request(request)?;
    let targeted = targeted::read(head, &rules.targeted);
    let is_targeted = targeted.is_some();
    let directives = understood(status, targeted.unwrap_or_else(|| ResponseDirectives::read(head)))?;
    bars_of_response(&directives, head, rules)?;
    bars_of_cookies(request, &directives, head)?;
    let vary = vary(head, rules)?;
    let freshness = freshness::measure(
        &Fresh {
            status,
            head,
            directives: &directives,
            targeted: is_targeted,
            authorization: request.authorization,
        },
        &arrival,
        rules,
    );
    let meta = remember(status, head, &directives, &freshness, &arrival);
    bars_of_event_stream(&freshness, &directives, head)?;
    bars_of_freshness(&meta, &directives, &freshness, request, rules)?;
    Ok(Admitted { meta, head: head::as_stored(head, &directives, rules, arrival.wall), vary })
}

fn bars_of_request(request: &RequestFacts) -> Result<(), Reason> {
    match request {
        // A HEAD has no content to store; what it says freshens what is stored (see `freshen_by_head`).
        RequestFacts { method: MethodClass::Head | MethodClass::Other, .. } => Err(Reason::Method),
        RequestFacts { content: true, .. } => Err(Reason::RequestContent),
        RequestFacts { cookies: RequestCookies::Bypassing, .. } => Err(Reason::RequestCookie),
        RequestFacts { directives, .. } if directives.no_store => Err(Reason::RequestNoStore),
        _ => Ok(()),
    }
}

/// §5.2.2.3: `must-understand` refuses statuses this cache does not implement, and lifts `no-store` for the others.
fn understood(status: StatusCode, mut directives: ResponseDirectives) -> Result<ResponseDirectives, Reason> {
    if directives.must_understand {
        if !status::is_understood(status) {
            return Err(Reason::NotUnderstood);
        }
        directives.no_store &= directives.refusals_only;
    }
    Ok(directives)
}

fn bars_of_response(directives: &ResponseDirectives, head: &HeaderMap, rules: &Rules) -> Result<(), Reason> {
    if directives.no_store {
        return Err(Reason::NoStore);
    }
    if directives.private == Scope::Whole {
        return Err(Reason::Private);
    }
    if rules.set_cookie == SetCookie::Refuse && sets_cookie(directives, head) {
        return Err(Reason::SetCookie);
    }
    Ok(())
}

/// Whether the response sets a cookie. One that the origin itself keeps out of caches does not count: it is no reason to
/// refuse the rest.
fn sets_cookie(directives: &ResponseDirectives, head: &HeaderMap) -> bool {
    let limited = [&directives.private, &directives.no_cache];
    head::cookie_fields(head).any(|field| !limited.iter().any(|scope| scope.fields().contains(field)))
}

/// The answer to a request with a cookie may be that person's own. Only a word that means nothing else says that it is not;
/// and where it sets a cookie, it is, also under a route that stores what others were answered.
fn bars_of_cookies(
    request: &RequestFacts,
    directives: &ResponseDirectives,
    head: &HeaderMap,
) -> Result<(), Reason> {
    let shared = directives.is_for_everyone() && !sets_cookie(directives, head);
    if request.minds_cookies() && !shared { Err(Reason::RequestCookie) } else { Ok(()) }
}

/// An event stream is a conversation: stored, it would be replayed, and one that never ends would never be stored. Only a
/// lifetime that the origin itself states for it says otherwise; the route's `ttl` and `default_ttl` mean the rest of
/// the route.
fn bars_of_event_stream(
    freshness: &Freshness,
    directives: &ResponseDirectives,
    head: &HeaderMap,
) -> Result<(), Reason> {
    let by_expires = freshness.source == LifetimeSource::Expires && freshness.lifetime > Duration::ZERO;
    let stated = by_expires || directives.stated_lifetime().is_some_and(|lifetime| lifetime > Duration::ZERO);
    if is_event_stream(head) && !stated { Err(Reason::EventStream) } else { Ok(()) }
}

fn is_event_stream(head: &HeaderMap) -> bool {
    let essence = |value: &HeaderValue| {
        let end = value.as_bytes().iter().position(|&byte| byte == b';').unwrap_or(value.len());
        value.as_bytes()[..end].trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    head.get(CONTENT_TYPE).is_some_and(essence)
}

fn vary(head: &HeaderMap, rules: &Rules) -> Result<Vary, Reason> {
    let vary = Vary::read(head).storable()?;
    // Where the edge codes, every client can be served from the identity content, whatever the origin varies on.
    let chosen_here = rules.edge_codes && !head.contains_key(CONTENT_ENCODING);
    Ok(if chosen_here { vary.without(&ACCEPT_ENCODING) } else { vary })
}

fn remember(
    status: StatusCode,
    head: &HeaderMap,
    directives: &ResponseDirectives,
    freshness: &Freshness,
    arrival: &Arrival,
) -> Meta {
    let no_cache = directives.no_cache == Scope::Whole;
    let stale_ban = if no_cache || directives.must_revalidate || directives.proxy_revalidate {
        StaleBan::Stated
    } else if directives.s_maxage.is_some() {
        StaleBan::Implied
    } else {
        StaleBan::None
    };
    Meta {
        status,
        validators: Validators::read(head, arrival.wall),
        received_at: arrival.received_at,
        age_at_arrival: freshness.age,
        lifetime: freshness.lifetime,
        lifetime_source: freshness.source,
        fresh_until: (arrival.received_at + freshness.lifetime).minus(freshness.age),
        no_cache,
        immutable: directives.immutable,
        shareable: directives.permits_sharing(),
        for_everyone: directives.is_for_everyone(),
        stale_ban,
        stale_while_revalidate: directives.stale_while_revalidate,
        stale_if_error: directives.stale_if_error,
    }
}

fn bars_of_freshness(
    meta: &Meta,
    directives: &ResponseDirectives,
    freshness: &Freshness,
    request: &RequestFacts,
    rules: &Rules,
) -> Result<(), Reason> {
    // §3.5
    if request.authorization && !meta.shareable {
        return Err(Reason::NotShared);
    }
    let stated = freshness.source == LifetimeSource::Expires
        || freshness.source.is_explicit() && directives.stated_lifetime().is_some();
    if !freshness.storable || request.wants_explicit_freshness && !stated {
        return Err(Reason::Status);
    }
    // §3: explicit freshness, `public`, or a status that is cacheable by default; and what the route names.
    let permitted = stated
        || freshness.source == LifetimeSource::Ttl
        || freshness.source == LifetimeSource::Route
        || directives.public
        || status::is_heuristically_cacheable(meta.status);
    if !permitted {
        return Err(Reason::Status);
    }
    let reusable = meta.lifetime > Duration::ZERO && !meta.no_cache;
    let windows = [meta.while_revalidate(rules), meta.worth_keeping_for(rules)];
    let covered =
        meta.stale_ban != StaleBan::Stated && windows.iter().flatten().any(|window| *window > Duration::ZERO);
    if meta.validators.is_empty() && !reusable && !covered {
        return Err(Reason::NoFreshness);
    }
    Ok(())
}
