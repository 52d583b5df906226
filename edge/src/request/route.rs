//! Which route a request takes: the first in the file whose host and path match, and whose method and fields do.
//!
//! Servers read some paths in two ways: to some `/api%2Fx`, `/api\x` and `/api;v=1/x` are what `/api/x` is, to others not.
//! A request takes a route only where both ways lead to the same one, so that no spelling gets by a route's limit or rules
//! whatever stands behind it; `encoded_slash` of a route says more of `%2F`.

use cache_policy::{Reason, RequestFacts};
use http::{HeaderMap, Method, request};

use crate::{
    message::target::{Scheme, Target},
    request::{
        canary::{RouteSide, has_field},
        refusal::Refusal,
    },
    settings::{Asks, BesideGet, EncodedSlash, RedirectFrom, Route, RouteAction},
};

/// The first of the routes that a request matches, if any does. Where it decodes `%2F`, `target` has `/` in its place afterwards: for the
/// cache's key as for the upstream.
///
/// # Errors
/// [`Refusal::BadRequest`] where the path can be read as of two routes, or has a `%2F` that its route refuses.
pub fn find<'a, T: AsRef<Route>>(
    routes: &'a [T],
    target: &mut Target,
    head: &request::Parts,
) -> Result<Option<&'a T>, Refusal> {
    by_readings(routes, target, &|asks| {
        asks.is_nothing()
            || asks.takes(&head.method) && asks.fields.iter().all(|sign| has_field(&head.headers, sign))
    })
}

/// What a request says that matters to the cache, on its route.
pub fn facts(head: &request::Parts, route: &Route) -> RequestFacts {
    let facts = RequestFacts::read(&head.method, &head.headers, &route.rules);
    match &route.forward_auth {
        // Who asks stands in its head, in fields of any name.
        Some(auth) if !auth.copy.is_empty() => facts.with_credentials(),
        _ => facts,
    }
}

/// Why a request on its route has nothing to do with what is stored, whatever that is.
pub fn past_the_cache(side: RouteSide, route: &Route, headers: &HeaderMap) -> Option<Reason> {
    if side == RouteSide::Asked {
        Some(Reason::Canary)
    } else if !route.asks.fields.is_empty() {
        Some(Reason::RouteFields)
    } else {
        route.bypass.iter().any(|sign| has_field(headers, sign)).then_some(Reason::Bypass)
    }
}

/// The route of a GET that comes without any field: what is stored for a target is stored by its rules, and what is read by content by
/// those of [`find_by_content`].
///
/// # Errors
/// As [`find`].
pub fn find_plain<'a, T: AsRef<Route>>(
    routes: &'a [T],
    target: &mut Target,
) -> Result<Option<&'a T>, Refusal> {
    by_readings(routes, target, &|asks| asks.takes(&Method::GET) && asks.fields.is_empty())
}

/// The route of a request of a kind that is read from the cache by its content, where it comes without any field that routes ask for;
/// `None` where the route has none of the kind read so.
///
/// # Errors
/// As [`find`].
pub fn find_by_content<'a, T: AsRef<Route>>(
    routes: &'a [T],
    target: &mut Target,
    kind: BesideGet,
) -> Result<Option<&'a T>, Refusal> {
    let method = kind.method();
    let route = by_readings(routes, target, &|asks| asks.takes(&method) && asks.fields.is_empty())?;
    Ok(route.filter(|route| route.as_ref().also.contains(&kind)))
}

fn by_readings<'a, T: AsRef<Route>>(
    routes: &'a [T],
    target: &mut Target,
    has_what_is_asked: &dyn Fn(&Asks) -> bool,
) -> Result<Option<&'a T>, Refusal> {
    let scheme = target.scheme;
    let first = |host: &str, path: &str| {
        routes.iter().find(|route| {
            let route: &Route = (*route).as_ref();
            matches_host(route, host)
                && matches_scheme(&route.action, scheme)
                && route.paths.iter().any(|pattern| pattern.holds(path))
                && has_what_is_asked(&route.asks)
        })
    };
    let path = target.route_path();
    let taken = first(&target.host, &path);
    let Some(other) = other_reading(&path) else { return Ok(taken) };
    let taken_otherwise = first(&target.host, &other);
    if path.contains(ENCODED_SLASH) {
        let does = |route: Option<&T>, what| route.is_some_and(|route| route.as_ref().encoded_slash == what);
        if does(taken, EncodedSlash::Refuse) || does(taken_otherwise, EncodedSlash::Refuse) {
            return Err(Refusal::BadRequest("the path has an encoded slash, which its route refuses"));
        }
        if does(taken_otherwise, EncodedSlash::Decode) {
            target.decode_slashes();
            return by_readings(routes, target, has_what_is_asked);
        }
    }
    let name = |route: Option<&'a T>| route.map(|route| &*route.as_ref().name);
    // Whoever writes a route with such a path knows how it is read behind it.
    let is_meant = taken.is_some_and(|route| {
        route.as_ref().paths.iter().any(|pattern| other_reading(pattern.text()).is_some())
    });
    if is_meant || name(taken) == name(taken_otherwise) {
        return Ok(taken);
    }
    Err(Refusal::BadRequest("the path can be read as one of two routes"))
}

/// Why no route takes a target. A client that reuses an encrypted connection for a host that is not served may try another
/// connection (RFC 9110 §15.5.20); in clear text there is nothing to mistake.
pub fn refusal<T: AsRef<Route>>(routes: &[T], target: &Target) -> Refusal {
    let served = routes.iter().any(|route| matches_host(route.as_ref(), &target.host));
    if target.scheme == Scheme::Https && !served { Refusal::Misdirected } else { Refusal::NoRoute }
}

fn matches_host(route: &Route, host: &str) -> bool {
    route.hosts.is_empty() || route.hosts.iter().any(|pattern| pattern.holds(host))
}

fn matches_scheme(action: &RouteAction, scheme: Scheme) -> bool {
    match action {
        RouteAction::Redirect(redirect) => redirect.from == RedirectFrom::Any || scheme == Scheme::Http,
        RouteAction::Forward(_) | RouteAction::Respond(_) => true,
    }
}

/// The path as servers read it that decode slashes before they look for segments, take `\` for `/`, or know parameters of
/// segments; where that is another path than the one in hand, which is in its one spelling.
fn other_reading(path: &str) -> Option<String> {
    if !path.contains(['%', ';']) {
        return None;
    }
    if !path.contains(ENCODED_SLASH) && !path.contains(ENCODED_BACKSLASH) && !path.contains(';') {
        return None;
    }
    let slashes = path.replace(ENCODED_SLASH, "/").replace(ENCODED_BACKSLASH, "/");
    let mut read = String::with_capacity(slashes.len());
    for (place, segment) in slashes.split('/').enumerate() {
        if place > 0 && !read.ends_with('/') {
            read.push('/');
        }
        read.push_str(segment.split(';').next().unwrap_or_default());
    }
    Some(read)
}

const ENCODED_SLASH: &str = "%2F";
const ENCODED_BACKSLASH: &str = "%5C";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;

    use super::*;
    use crate::{request::inbound, settings};

    fn routes(encoded_slash: &str) -> Vec<Arc<Route>> {
        let text = format!(
            "[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.o]\nservers = [\"http://o:80\"]\n\
             [[routes]]\nname = \"api\"\npath = \"/api/*\"\nupstream = \"o\"\nencoded_slash = \"{encoded_slash}\"\n\
             [[routes]]\nname = \"rest\"\npath = \"/*\"\nupstream = \"o\"\n"
        );
        settings::parse(&text, "test.toml").unwrap().routes
    }

    /// The route's name and what is asked for of its upstream; `None` where it is refused.
    fn taken(routes: &[Arc<Route>], path: &str) -> Option<(String, String)> {
        let head = Request::get(path).header("host", "a").body(()).unwrap().into_parts().0;
        let mut target = inbound::read(&head, Scheme::Http).ok()?;
        let route = find(routes, &mut target, &head).ok()?.unwrap();
        Some((route.name.to_string(), target.path().to_owned()))
    }

    #[track_caller]
    fn assert_taken(encoded_slash: &str, path: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(route, path)| (route.to_owned(), path.to_owned()));
        assert_eq!(taken(&routes(encoded_slash), path), expected, "{encoded_slash} {path}");
    }

    #[test]
    fn what_servers_read_in_two_ways_takes_a_route_only_where_both_lead_to_it() {
        for path in
            ["/api%2Fx", "/api%2fx", "/api%5Cx", "/api\\x", "/api;v=1/x", "/;/api/x", "/%2Fapi/x", "/x%2Fapi"]
        {
            let both = (path == "/x%2Fapi").then_some(("rest", path));
            assert_taken("keep", path, both);
        }
        for path in ["/api/a%2Fb", "/api/a%5cb", "/api/a;v=1", "/api/;", "/api//a"] {
            assert_taken("keep", path, Some(("api", path)));
        }
        for path in ["/a%2Fb", "/page;jsessionid=1", "/apis%2Fx", "/api;v=1"] {
            assert_taken("keep", path, Some(("rest", path)));
        }
    }

    #[test]
    fn a_route_refuses_or_decodes_encoded_slashes() {
        for (path, decoded) in
            [("/api%2Fx", "/api/x"), ("/api/a%2Fb%2fc", "/api/a/b/c"), ("/api/%2Fx", "/api//x")]
        {
            assert_taken("refuse", path, None);
            assert_taken("decode", path, Some(("api", decoded)));
        }
        // An encoded percent sign.
        assert_taken("decode", "/api/a%252Fb", Some(("api", "/api/a%252Fb")));
        // The route for the rest keeps them.
        assert_taken("decode", "/a%2Fb", Some(("rest", "/a%2Fb")));
        assert_taken("decode", "/api%2Fx%5Cy", Some(("api", "/api/x%5Cy")));
        assert_taken("decode", "/api%5Cx", None);
        // Dot segments are refused before, in every spelling.
        assert_taken("decode", "/api/..%2Fx", None);
    }
}
