//! The primary cache key (RFC 9111 §2): everything of a request's target that can change the response, and what else of a
//! request its route makes part of it (`key_parts`).
//!
//! A key has one spelling of host, path and query (RFC 3986 §6.2.2), whatever spelling the client chose; purges and
//! invalidations name keys, so they find what is stored under any. Whoever fetches for the cache asks the upstream for
//! the key's own path and query. A request that is passed goes on as it was written.

use std::{
    borrow::Cow,
    cell::RefCell,
    cmp::Ordering,
    hash::{Hash, Hasher},
    sync::Arc,
};

use cache_policy::{QueryRules, normalise_query, one_spelling};

use crate::message::{
    number::{LONGEST, decimal},
    target::Target,
};

/// Scheme, host, port, path and query of a GET, taken from the client's request before any rewrite; only the parts of
/// the query that the route counts. HEAD shares the key.
#[derive(Clone, Debug)]
pub struct Key {
    text: Arc<str>,
    /// Where the origin ends. Stored, because a host may hold any character that would end it elsewhere (`*` is one).
    origin: usize,
    /// Where the path ends.
    path: usize,
    /// Where the URL ends, which a space follows, and what else of the request makes another response. No URL holds one.
    url: usize,
}

/// Comparing the text is enough; the lengths follow from it.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Key {
    /// The key of a request's target with its whole query.
    pub fn new(inbound: &Target) -> Self {
        Self::of(inbound, &one_spelling(&inbound.path_and_query))
    }

    /// The key of a request's target on a route with these rules for its query.
    pub fn on_route(inbound: &Target, rules: &QueryRules) -> Self {
        Self::of(inbound, &one_spelling(&target(inbound, rules)))
    }

    fn of(inbound: &Target, target: &str) -> Self {
        let scheme = inbound.scheme.as_str();
        let mut digits = [0; LONGEST];
        let port = decimal(inbound.port.into(), &mut digits);
        let length = scheme.len() + 3 + inbound.host.len() + 1 + port.len() + target.len();
        let origin = length - target.len();
        // A path holds no `?`, and no spelling of it does.
        let path = origin + target.find('?').unwrap_or(target.len());
        let text = TEXT.with_borrow_mut(|text| {
            text.clear();
            for part in [scheme, "://", &inbound.host, ":", port, target] {
                text.push_str(part);
            }
            Arc::from(text.as_str())
        });
        Self { text, origin, path, url: length }
    }

    /// The key of the same URL for requests that have these parts. They hold no space, unless between two of them.
    #[must_use]
    pub fn with_parts(&self, parts: &str) -> Self {
        Self { text: format!("{} {parts}", self.url()).into(), ..*self }
    }

    /// The key with one part more.
    #[must_use]
    pub fn with_part(&self, part: &str) -> Self {
        Self { text: format!("{} {part}", self.text).into(), ..*self }
    }

    /// Before all others; the key of nothing.
    pub(super) fn least() -> Self {
        Self { text: "".into(), origin: 0, path: 0, url: 0 }
    }

    /// The key of this text: see [`Key::as_str`]. `None` for what is no key.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let authority = text.find("://")? + 3;
        // No host holds a `/`.
        let origin = authority + text[authority..].find('/')?;
        let url = url_of(text).len();
        let path = origin + text.get(origin..url)?.find('?').unwrap_or(url - origin);
        Some(Self { text: text.into(), origin, path, url })
    }

    /// The key of another resource of the same origin.
    pub fn same_origin(&self, path_and_query: &str) -> Self {
        let origin = self.origin();
        let path_and_query = one_spelling(path_and_query);
        let path = origin.len() + path_and_query.find('?').unwrap_or(path_and_query.len());
        let url = origin.len() + path_and_query.len();
        Self { text: format!("{origin}{path_and_query}").into(), origin: origin.len(), path, url }
    }

    /// Scheme, host and port, with which every key of the origin begins.
    pub fn origin(&self) -> &str {
        &self.text[..self.origin]
    }

    /// The host, which a colon and the port follow.
    pub fn host(&self) -> &str {
        let authority = self.origin().find("://").map_or(0, |scheme| scheme + 3);
        let port = self.origin().rfind(':').unwrap_or(self.origin);
        &self.text[authority..port]
    }

    /// Path and query for the request to the origin. Nothing that the key omits is sent, so it cannot change the
    /// response.
    pub fn path_and_query(&self) -> &str {
        &self.text[self.origin..self.url]
    }

    /// The URL that it is of, by which it is purged.
    pub fn url(&self) -> &str {
        &self.text[..self.url]
    }

    /// What else of a request its response is for; empty where that is nothing.
    pub fn parts(&self) -> &str {
        self.text.get(self.url + 1..).unwrap_or_default()
    }

    /// Everything up to the query.
    pub fn without_query(&self) -> &str {
        &self.text[..self.path]
    }

    /// The query, without its `?`; empty where there is none.
    pub fn query(&self) -> &str {
        self.text.get(self.path + 1..self.url).unwrap_or_default()
    }

    /// As text: an absolute URI that always names its port, and the parts behind it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The URL of a key's text.
pub(super) fn url_of(key: &str) -> &str {
    key.split_once(' ').map_or(key, |(url, _)| url)
}

thread_local! {
    /// Where the text of a key is put together: a key is one allocation of its size. No longer than the longest head.
    static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn target<'a>(inbound: &'a Target, rules: &QueryRules) -> Cow<'a, str> {
    let Some(query) = inbound.query() else { return Cow::Borrowed(&inbound.path_and_query) };
    match normalise_query(query, rules) {
        Cow::Borrowed(_) => Cow::Borrowed(&inbound.path_and_query),
        Cow::Owned(query) if query.is_empty() => Cow::Borrowed(inbound.path()),
        Cow::Owned(query) => Cow::Owned(format!("{}?{query}", inbound.path())),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{message::target::Scheme, request::inbound};

    fn key(uri: &str, host: &str, scheme: Scheme) -> Key {
        let (head, ()) = Request::builder().uri(uri).header("host", host).body(()).unwrap().into_parts();
        Key::new(&inbound::read(&head, scheme).unwrap())
    }

    #[test]
    fn the_same_target_has_the_same_key() {
        assert_eq!(key("/a?b", "Shop", Scheme::Http), key("/a?b", "shop:80", Scheme::Http));
        let key = key("/a?b", "shop", Scheme::Https);
        assert_eq!((key.as_str(), key.origin()), ("https://shop:443/a?b", "https://shop:443"));
        assert_eq!(key.same_origin("/c").as_str(), "https://shop:443/c");
    }

    /// `Host: a*b` made a key whose origin ended at the `*`, and the request for the rest of it could not be written.
    #[test]
    fn a_host_may_hold_what_ends_it_elsewhere() {
        for host in ["a*b", "*.shop.test", "*", "a!$&'()*+,;=~-._b"] {
            let key = key("/p?q=1", host, Scheme::Http);
            assert_eq!(key.origin(), format!("http://{host}:80"), "{host}");
            assert_eq!((key.path_and_query(), key.query()), ("/p?q=1", "q=1"), "{host}");
            assert_eq!(key.same_origin("/c?d").without_query(), format!("http://{host}:80/c"), "{host}");
        }
    }

    /// `/caf%c3%a9` and `/caf%C3%A9`, `/~a` and `/%7Ea`, `shop` and `shop.` had keys of their own, so that a purge of one
    /// left the others.
    #[test]
    fn spellings_of_one_target_have_the_same_key() {
        let one = key("/~caf%C3%A9?a=-&%C3%A9", "shop", Scheme::Http);
        for (uri, host) in [
            ("/~caf%c3%a9?a=-&%C3%A9", "SHOP."),
            ("/%7Ecaf%C3%A9?a=%2D&%c3%a9", "shop:80"),
            ("/%7e%63%61f%c3%A9?a=%2d&%c3%A9", "shop."),
        ] {
            assert_eq!(key(uri, host, Scheme::Http), one, "{uri} {host}");
        }
        assert_eq!((one.without_query(), one.query()), ("http://shop:80/~caf%C3%A9", "a=-&%C3%A9"));
        assert_ne!(key("/a%2Fb", "shop", Scheme::Http), key("/a/b", "shop", Scheme::Http));
    }

    #[test]
    fn what_the_route_drops_of_a_query_makes_no_other_key() {
        let rules = QueryRules { drop: vec!["utm_*".into()], sort: true, ..QueryRules::default() };
        let key = |uri: &str| {
            let (head, ()) = Request::builder().uri(uri).header("host", "a").body(()).unwrap().into_parts();
            Key::on_route(&inbound::read(&head, Scheme::Http).unwrap(), &rules)
        };
        assert_eq!(key("/x?utm_source=y"), key("/x"));
        assert_eq!(key("/x?b&utm_a=1&a=2").path_and_query(), "/x?a=2&b");
    }

    #[test]
    fn what_else_makes_another_response_stands_behind_the_url() {
        let plain = key("/a?b", "shop", Scheme::Http);
        let one = plain.with_parts("x-country=DE cookie:currency=EUR");
        assert_eq!(one.as_str(), "http://shop:80/a?b x-country=DE cookie:currency=EUR");
        assert_eq!((one.url(), one.query(), one.path_and_query()), (plain.as_str(), "b", "/a?b"));
        assert_eq!((one.parts(), plain.parts()), ("x-country=DE cookie:currency=EUR", ""));
        assert_ne!(one, plain);
        for key in [one.clone(), plain, key("/a", "shop", Scheme::Http).with_parts("x?=1")] {
            let read = Key::of_text(key.as_str()).unwrap();
            assert_eq!((read.url(), read.parts(), read.query()), (key.url(), key.parts(), key.query()));
            assert_eq!(read.without_query(), key.without_query());
        }
    }

    #[test]
    fn scheme_port_path_and_query_each_tell_keys_apart() {
        let one = key("/a?b", "shop", Scheme::Http);
        for other in [
            key("/a?b", "shop", Scheme::Https),
            key("/a?b", "shop:8080", Scheme::Http),
            key("/a", "shop", Scheme::Http),
            key("/a?B", "shop", Scheme::Http),
            key("/A?b", "shop", Scheme::Http),
        ] {
            assert_ne!(one, other);
        }
    }
}
