//! Which route a request takes: the first in the file whose host and path match.

use std::sync::Arc;

use crate::{
    inbound::Inbound,
    settings::{PathPattern, Route},
};

/// The first route that matches, if any does.
pub fn find<'a>(routes: &'a [Arc<Route>], inbound: &Inbound) -> Option<&'a Arc<Route>> {
    routes
        .iter()
        .find(|route| matches_host(route, &inbound.host) && matches_path(&route.path, inbound.path()))
}

fn matches_host(route: &Route, host: &str) -> bool {
    route.hosts.is_empty() || route.hosts.iter().any(|name| **name == *host)
}

fn matches_path(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exact(exact) => **exact == *path,
        // `OPTIONS *` has no path; it belongs to whoever takes everything.
        PathPattern::Prefix(prefix) => path.starts_with(&**prefix) || (&**prefix == "/" && path == "*"),
    }
}
