//! Which route a request takes: the first in the file whose host and path match, and whose method and fields do.

use http::{Method, request};

use crate::{
    message::target::{Scheme, Target},
    request::canary::has_field,
    settings::{Asks, RedirectFrom, Route, RouteAction},
};

/// The first of the routes that a request matches, if any does.
pub fn find<'a, T: AsRef<Route>>(routes: &'a [T], inbound: &Target, head: &request::Parts) -> Option<&'a T> {
    first(routes, inbound, |asks| {
        asks.is_nothing()
            || asks.takes(&head.method) && asks.fields.iter().all(|sign| has_field(&head.headers, sign))
    })
}

/// The route of a GET that comes without any field: what is stored for a target is stored by its rules.
pub fn find_plain<'a, T: AsRef<Route>>(routes: &'a [T], inbound: &Target) -> Option<&'a T> {
    first(routes, inbound, |asks| asks.takes(&Method::GET) && asks.fields.is_empty())
}

fn first<'a, T: AsRef<Route>>(
    routes: &'a [T],
    inbound: &Target,
    has_what_is_asked: impl Fn(&Asks) -> bool,
) -> Option<&'a T> {
    let path = inbound.route_path();
    routes.iter().find(|route| {
        let route: &Route = (*route).as_ref();
        matches_host(route, &inbound.host)
            && matches_scheme(&route.action, inbound.scheme)
            && route.paths.iter().any(|pattern| pattern.holds(&path))
            && has_what_is_asked(&route.asks)
    })
}

fn matches_scheme(action: &RouteAction, scheme: Scheme) -> bool {
    match action {
        RouteAction::Redirect(redirect) => redirect.from == RedirectFrom::Any || scheme == Scheme::Http,
        RouteAction::Forward(_) | RouteAction::Respond(_) => true,
    }
}

fn matches_host(route: &Route, host: &str) -> bool {
    route.hosts.is_empty() || route.hosts.iter().any(|pattern| pattern.holds(host))
}
