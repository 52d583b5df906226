//! Why a request is answered as it is: what [`crate::handle`] would decide, in words, without answering.
//!
//! Two ways: of a running edge, over what it has stored; or dry, over a response's head that is given. Both ask the same
//! policy as real requests do, and change nothing.

use std::{sync::Arc, time::SystemTime};

use cache_policy::{
    Admitted, Arrival, Decision, Meta, Moment, Reason, RequestFacts, Vary, admit, decide, tags, variant_key,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, request};
use serde::{Deserialize, Serialize};

use crate::{
    cache::{Key, Memory, Stored},
    inbound::{self, Inbound, Scheme},
    route,
    settings::{Route, Settings},
};

/// A request to explain.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Absolute URL.
    pub url: String,
    /// Method; GET when it is left out.
    #[serde(default = "get")]
    pub method: String,
    /// Header lines, as name and value.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

fn get() -> String {
    Method::GET.to_string()
}

/// What would become of a request, and why.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Explanation {
    /// The cache key.
    pub key: String,
    /// The route it takes.
    pub route: String,
    /// The request fields that `Vary` names and their values, where variants are stored.
    pub variant: Option<String>,
    /// `hit`, `stale`, `fetch`, `pass`, `only-if-cached`; dry: `stored` or `not-stored`.
    pub verdict: String,
    /// The reason's token, as in Cache-Status, logs and metrics.
    pub reason: Option<String>,
    /// The reason in a sentence.
    pub meaning: Option<String>,
    /// The header lines that decided.
    pub lines: Vec<String>,
    /// Age and lifetime, where a response is stored or would be.
    pub freshness: Option<Freshness>,
    /// What it is purged by.
    pub tags: Vec<String>,
    /// What would have made it a hit, or storable.
    pub remedy: Option<String>,
}

/// The arithmetic of freshness (RFC 9111 §4.2), in seconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Freshness {
    /// Its age when it arrived.
    pub age_at_arrival: u64,
    /// Its age now.
    pub age: u64,
    /// How long it is fresh.
    pub lifetime: u64,
    /// Which statement says so.
    pub lifetime_from: String,
    /// What is left; negative when it is stale.
    pub left: i64,
    /// How long past that it may be served while it is refreshed.
    pub stale_while_revalidate: Option<u64>,
    /// How long past that it may stand in for an error.
    pub stale_if_error: Option<u64>,
}

/// Explains a request to a running edge.
///
/// # Errors
/// What is wrong with the question, for the operator.
pub fn live(
    settings: &Settings,
    memory: &Memory,
    now: Moment,
    question: &Question,
) -> Result<Explanation, String> {
    let (head, inbound, route) = read(settings, question)?;
    let facts = RequestFacts::read(&head.method, &head.headers, &route.rules);
    let key = Key::on_route(&inbound, &route.query);
    let resource = memory.look_up(&key);
    let stored = resource.as_ref().and_then(|resource| resource.select(&head.headers));
    let decision = decide(&facts, stored.map(|stored| &stored.meta), &route.rules, now);
    let (verdict, reason) = match decision {
        Decision::Serve { stale: None } => ("hit", None),
        Decision::Serve { stale } => ("stale", stale),
        Decision::ServeAndRefresh { reason } => ("stale", Some(reason)),
        Decision::Fetch(plan) => ("fetch", Some(plan.reason)),
        Decision::Pass(reason) => ("pass", Some(reason)),
        Decision::OnlyIfCached => ("only-if-cached", None),
    };
    // What lately could not be stored says more than that nothing is.
    let marker = resource.as_ref().and_then(|resource| resource.marker(now)).filter(|_| stored.is_none());
    let reason = marker.map(|marker| marker.reason).or(reason);
    let stored_head = stored.map(|stored| &stored.identity().head);
    Ok(Explanation {
        route: route.name.to_string(),
        variant: stored.filter(|stored| !stored.vary.is_empty()).map(|stored| variant(stored)),
        verdict: verdict.to_owned(),
        lines: lines(reason, &head.headers, stored_head),
        freshness: stored.map(|stored| freshness(&stored.meta, route, now)),
        tags: stored
            .map(|stored| stored.tags.iter().map(|tag| tag.as_str().to_owned()).collect())
            .unwrap_or_default(),
        ..words(key.as_str(), reason)
    })
}

/// Explains what would become of a response to a request.
///
/// # Errors
/// What is wrong with the question, for the operator.
pub fn dry(
    settings: &Settings,
    question: &Question,
    status: StatusCode,
    response: &HeaderMap,
    now: SystemTime,
) -> Result<Explanation, String> {
    let (head, inbound, route) = read(settings, question)?;
    let facts = RequestFacts::read(&head.method, &head.headers, &route.rules);
    let moment = Moment::from_epoch(std::time::Duration::from_secs(1));
    let arrival = Arrival { requested_at: moment, received_at: moment, wall: now };
    let key = Key::on_route(&inbound, &route.query);
    let admitted = match decide(&facts, None, &route.rules, moment) {
        Decision::Pass(reason) => Err(reason),
        _ => admit(&facts, status, response, arrival, &route.rules),
    };
    let named = |names: &[HeaderName]| names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    Ok(match admitted {
        Ok(Admitted { meta, head: stored, vary }) => Explanation {
            route: route.name.to_string(),
            variant: match &vary {
                Vary::Fields(fields) => {
                    Some(format!("{}: {}", named(fields), variant_key(fields, &head.headers)))
                }
                Vary::Nothing | Vary::Any => None,
            },
            verdict: "stored".to_owned(),
            lines: lines_of(&stored, &FRESHNESS, "response"),
            freshness: Some(freshness(&meta, route, moment)),
            tags: tags(&stored).unwrap_or_default().iter().map(|tag| tag.as_str().to_owned()).collect(),
            ..words(key.as_str(), None)
        },
        Err(reason) => Explanation {
            route: route.name.to_string(),
            verdict: "not-stored".to_owned(),
            lines: lines(Some(reason), &head.headers, Some(response)),
            ..words(key.as_str(), Some(reason))
        },
    })
}

fn read<'a>(
    settings: &'a Settings,
    question: &Question,
) -> Result<(request::Parts, Inbound, &'a Arc<Route>), String> {
    let uri: Uri = question.url.parse().map_err(|error| format!("{:?} is no URL: {error}", question.url))?;
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(format!("{:?} must begin with http:// or https://", question.url)),
    };
    let mut request = Request::new(());
    *request.method_mut() =
        question.method.parse().map_err(|_| format!("{:?} is no method", question.method))?;
    *request.uri_mut() = uri;
    for (name, value) in &question.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
        let value: HeaderValue = value.parse().map_err(|_| format!("{value:?} is no header value"))?;
        request.headers_mut().append(name, value);
    }
    let head = request.into_parts().0;
    let inbound = inbound::read(&head, scheme).map_err(|refusal| refusal.to_string())?;
    let route = route::find(&settings.routes, &inbound).ok_or("no route matches this host and path")?;
    Ok((head, inbound, route))
}

fn words(key: &str, reason: Option<Reason>) -> Explanation {
    Explanation {
        key: key.to_owned(),
        reason: reason.map(|reason| reason.as_str().to_owned()),
        meaning: reason.map(|reason| reason.meaning().to_owned()),
        remedy: reason.and_then(remedy).map(str::to_owned),
        ..Explanation::default()
    }
}

fn variant(stored: &Stored) -> String {
    let names: Vec<&str> = stored.vary.iter().map(HeaderName::as_str).collect();
    format!("{}: {}", names.join(", "), stored.variant)
}

fn freshness(meta: &Meta, route: &Route, now: Moment) -> Freshness {
    let rules = &route.rules;
    Freshness {
        age_at_arrival: meta.age_at_arrival.as_secs(),
        age: meta.age(now).as_secs(),
        lifetime: meta.lifetime.as_secs(),
        lifetime_from: meta.lifetime_source.as_str().to_owned(),
        left: meta.lifetime_left(now),
        stale_while_revalidate: meta
            .stale_while_revalidate
            .or(rules.stale_while_revalidate)
            .map(|window| window.as_secs()),
        stale_if_error: meta.stale_if_error.or(rules.stale_if_error).map(|window| window.as_secs()),
    }
}

/// The header lines a reason rests on: of the request where it is about the request, else of the response.
fn lines(reason: Option<Reason>, request: &HeaderMap, response: Option<&HeaderMap>) -> Vec<String> {
    if reason.is_some_and(|reason| reason.is_about_request() || asks(reason)) {
        return lines_of(request, &REQUEST, "request");
    }
    response.map(|response| lines_of(response, &FRESHNESS, "response")).unwrap_or_default()
}

fn asks(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RequestNoCache
            | Reason::RequestMaxAge
            | Reason::RequestMinFresh
            | Reason::RequestCookie
            | Reason::MaxStale
            | Reason::OriginPrecondition
    )
}

fn lines_of(head: &HeaderMap, names: &[&str], whose: &str) -> Vec<String> {
    let lines = head.iter().filter(|(name, _)| names.contains(&name.as_str()));
    lines.map(|(name, value)| format!("{whose} {name}: {}", value.to_str().unwrap_or("(not text)"))).collect()
}

/// What the operator or the origin could change.
fn remedy(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NoStore | Reason::Private => {
            "the origin forbids it: let it send `public, s-maxage=…` for what is the same for everyone"
        }
        Reason::SetCookie => "let the origin set no cookie here, or give the route `set_cookie = \"strip\"`",
        Reason::RequestCookie => "name the cookies that do not matter in the route's `ignore_cookies`",
        Reason::Authorization | Reason::NotShared => {
            "let the origin mark it `public` or `s-maxage` if everyone with or without credentials may have it"
        }
        Reason::NoFreshness => {
            "let the origin send max-age, Expires or a validator (ETag), or give the route a `default_ttl`"
        }
        Reason::Status => {
            "statuses like this one need explicit freshness from the origin (max-age or Expires)"
        }
        Reason::VaryAny | Reason::VaryTooWide => {
            "let the origin name in Vary only the fields it really looks at"
        }
        Reason::TooLarge => "raise `largest_object` in [cache]",
        Reason::NoRoom => "raise `memory` in [cache]",
        Reason::Stale | Reason::MustRevalidate | Reason::NoCache => {
            "a validator (ETag) makes this cheap; a longer lifetime or stale_while_revalidate makes it a hit"
        }
        Reason::RequestNoCache | Reason::RequestMaxAge | Reason::RequestMinFresh | Reason::RequestNoStore => {
            "a public route may ignore such wishes of clients: `client_directives`"
        }
        Reason::Method | Reason::RequestContent => {
            "only GET and HEAD without content are answered from the cache"
        }
        _ => return None,
    })
}

const FRESHNESS: [&str; 11] = [
    "cache-control",
    "cdn-cache-control",
    "expires",
    "date",
    "age",
    "last-modified",
    "etag",
    "vary",
    "set-cookie",
    "pragma",
    "content-range",
];
const REQUEST: [&str; 8] = [
    "cache-control",
    "pragma",
    "cookie",
    "authorization",
    "range",
    "if-match",
    "if-unmodified-since",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    fn settings() -> Settings {
        let text = "[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.o]\nservers = [\"http://o:80\"]\n\
                    [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"o\"\ncache = {}\n";
        settings::parse(text, "test.toml").unwrap()
    }

    fn question(headers: &[(&str, &str)]) -> Question {
        Question {
            url: "https://shop.example/a".to_owned(),
            method: get(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn explained(request: &[(&str, &str)], response: &[(&'static str, &str)]) -> Explanation {
        let response = response
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_435_200);
        dry(&settings(), &question(request), StatusCode::OK, &response.collect(), now).unwrap()
    }

    #[test]
    fn a_stored_response_shows_its_arithmetic() {
        let told =
            explained(&[], &[("cache-control", "max-age=60"), ("age", "10"), ("surrogate-key", "a b")]);
        let freshness = told.freshness.unwrap();
        assert_eq!((told.verdict.as_str(), freshness.lifetime, freshness.left), ("stored", 60, 50));
        assert_eq!((freshness.lifetime_from.as_str(), freshness.age_at_arrival), ("max-age", 10));
        assert_eq!(told.tags, ["a", "b"]);
    }

    #[test]
    fn a_refusal_names_the_line_that_decided_and_what_would_help() {
        let told = explained(&[], &[("cache-control", "max-age=60"), ("set-cookie", "a=1")]);
        assert_eq!((told.verdict.as_str(), told.reason.as_deref()), ("not-stored", Some("set-cookie")));
        assert!(told.lines.contains(&"response set-cookie: a=1".to_owned()), "{told:?}");
        assert!(told.remedy.unwrap().contains("set_cookie"));
        let told = explained(&[("cookie", "session=1")], &[("cache-control", "max-age=60")]);
        assert_eq!(
            (told.reason.as_deref(), &*told.lines),
            (Some("request-cookie"), &["request cookie: session=1".to_owned()][..])
        );
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let wrong = Question { url: "/a".to_owned(), ..question(&[]) };
        let memory = Memory::new(1 << 20, 4);
        let now = Moment::from_epoch(std::time::Duration::ZERO);
        assert!(live(&settings(), &memory, now, &wrong).unwrap_err().contains("must begin with http"));
        let told = live(&settings(), &memory, now, &question(&[])).unwrap();
        assert_eq!((told.verdict.as_str(), told.reason.as_deref()), ("fetch", Some("miss")));
        assert_eq!(told.key, "https://shop.example:443/a");
    }
}
