//! Which route a request takes: the first in the file whose host and path match.

use crate::{
    message::target::Target,
    settings::{PathPattern, Route},
};

/// The first of the routes that matches, if any does.
pub fn find<'a, T: AsRef<Route>>(routes: &'a [T], inbound: &Target) -> Option<&'a T> {
    let path = inbound.route_path();
    routes.iter().find(|route| {
        let route: &Route = (*route).as_ref();
        matches_host(route, &inbound.host) && matches_path(&route.path, &path)
    })
}

fn matches_host(route: &Route, host: &str) -> bool {
    route.hosts.is_empty() || route.hosts.iter().any(|name| **name == *host)
}

fn matches_path(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exact(exact) => **exact == *path,
        // `OPTIONS *` has no path; it belongs to the route for all paths.
        PathPattern::Prefix(prefix) => path.starts_with(&**prefix) || (&**prefix == "/" && path == "*"),
    }
}
