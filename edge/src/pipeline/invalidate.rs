//! How a response that is not stored itself changes stored ones.

use std::sync::Arc;

use cache_policy::{Moment, Newer, Reason, invalidated_groups, invalidated_targets};
use http::HeaderMap;

use crate::{
    cache::{
        Key, Memory, Stored,
        purge::{Force, Rule},
        tier::Hearing,
        tiers::Telling,
    },
    fetch::freshen::{Freshening, freshened},
    message::target::Target,
    request::route,
    settings::{BesideGet, Route},
};

/// The keys under which a target may be stored: by its route's rules for the query, and with its whole query, since the
/// rules may have changed since it was stored. Of requests that are read by their content the route may be another than a GET's.
pub fn keys_of<T: AsRef<Route>>(routes: &[T], target: &Target) -> Vec<Key> {
    let mut keys = Vec::with_capacity(2);
    let mut add = |route: Option<&T>, target: &Target| {
        let on_route = route.map(|route| Key::on_route(target, &route.as_ref().query));
        for key in on_route.into_iter().chain([Key::new(target)]) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    };
    // Nothing is stored under what no request for it would be answered for.
    let mut read = target.clone();
    let route = route::find_plain(routes, &mut read).ok().flatten();
    add(route, &read);
    if routes.iter().any(|route| !route.as_ref().also.is_empty()) {
        for kind in BesideGet::ALL {
            let mut read = target.clone();
            if let Ok(Some(route)) = route::find_by_content(routes, &mut read, kind) {
                add(Some(route), &read);
            }
        }
    }
    keys
}

/// What an unsafe request has changed.
pub struct Changed<'a, T> {
    pub target: &'a Target,
    /// By whose rules for queries things are stored.
    pub routes: &'a [T],
    /// The head of the answer.
    pub answer: &'a HeaderMap,
    /// When it came.
    pub at: Moment,
}

/// Invalidates the target, the resources that Location and Content-Location name on the same origin, and the groups
/// that the answer names (RFC 9111 §4.4, RFC 9875 §3). In memory that is done when this returns; the value returned
/// purges the tiers behind it. If the future is dropped, memory is purged all the same, and the tiers when they catch
/// up.
pub async fn invalidate<T: AsRef<Route>>(memory: &Arc<Memory>, changed: Changed<'_, T>) -> Telling {
    let Changed { target, routes, answer, at } = changed;
    let authority = target.authority();
    let itself = resource(target, &authority);
    let mut keys = keys_of(routes, target);
    for named in invalidated_targets(&itself, answer) {
        let (path, query) =
            named.split_once('?').map_or((&*named, None), |(path, query)| (path, Some(query)));
        let named = Target::new(target.scheme, &target.host, target.port, (path, query));
        keys.extend(keys_of(routes, &named));
    }
    let origin: Box<str> = keys.first().map_or_else(Box::default, |key| format!("{}/", key.origin()).into());
    let groups: Vec<Rule> = invalidated_groups(answer)
        .into_iter()
        .map(|group| Rule::Group { origin: origin.clone(), group })
        .collect();
    let rules = || keys.iter().map(|key| Rule::Key(key.as_str().into())).chain(groups.iter().cloned());
    let telling = memory.tiers().begin(|| rules().collect(), (Force::Hard, Hearing::Briefly), at);
    for key in &keys {
        memory.invalidate(key);
    }
    if !groups.is_empty() {
        memory.purge_aside(groups, Force::Hard, at).await;
    }
    telling
}

/// A target as policy sees it.
pub fn resource<'t>(target: &'t Target, authority: &'t str) -> cache_policy::ResourceName<'t> {
    cache_policy::ResourceName {
        scheme: target.scheme.as_str(),
        authority,
        path_and_query: &target.path_and_query,
    }
}

/// Updates the stored GET response from the answer to a HEAD, or drops a stored response that it contradicts or withdraws
/// (RFC 9111 §4.3.5).
pub fn freshen_by_head(
    memory: &Memory,
    key: &Key,
    stored: &Stored,
    answer: &Newer<'_>,
    asked: &Freshening<'_>,
) {
    let fresh = cache_policy::freshen_by_head(&stored.meta, &stored.identity().head, answer)
        .and_then(|admitted| freshened(stored, admitted, asked));
    match fresh {
        Ok(fresh) => memory.replace(key, stored.id(), Arc::new(fresh)),
        // It is about this client, or about another form of the response.
        Err(reason)
            if reason.is_about_request()
                || reason == Reason::CodingMismatch
                || answer.request.is_personal() => {}
        Err(_) => memory.remove(key, stored),
    }
}
