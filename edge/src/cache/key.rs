//! The primary cache key (RFC 9111 §2): everything of a request's target that can change the response.

use std::{borrow::Cow, sync::Arc};

use cache_policy::{QueryRules, normalise_query};

use crate::inbound::Inbound;

/// Scheme, host, port, path and query of a GET, taken from the client's request before any rewrite; of the query what the
/// route lets count. HEAD shares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of a request's target, all of its query counting.
    pub fn new(inbound: &Inbound) -> Self {
        Self::of(inbound, &inbound.path_and_query)
    }

    /// The key of a request's target on a route with these rules for its query.
    pub fn on_route(inbound: &Inbound, rules: &QueryRules) -> Self {
        Self::of(inbound, &target(inbound, rules))
    }

    fn of(inbound: &Inbound, target: &str) -> Self {
        let scheme = inbound.scheme.as_str();
        let mut digits = [0u8; 5];
        let port = decimal(inbound.port, &mut digits);
        let length = scheme.len() + 3 + inbound.host.len() + 1 + port.len() + target.len();
        let mut text = String::with_capacity(length);
        for part in [scheme, "://", &inbound.host, ":", port, target] {
            text.push_str(part);
        }
        Self(text.into())
    }

    /// The key of another resource of the same origin.
    pub fn same_origin(&self, path_and_query: &str) -> Self {
        Self(format!("{}{path_and_query}", self.origin()).into())
    }

    /// Scheme, host and port, as every key of the origin begins.
    pub fn origin(&self) -> &str {
        let authority = self.0.find("://").map_or(0, |colon| colon + 3);
        let end = self.0[authority..].find(['/', '*']).map_or(self.0.len(), |path| authority + path);
        &self.0[..end]
    }

    /// Path and query: what the origin is asked for, so that nothing which the key leaves out can change the answer.
    pub fn path_and_query(&self) -> &str {
        &self.0[self.origin().len()..]
    }

    /// As text: an absolute URI that always names its port.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn target<'a>(inbound: &'a Inbound, rules: &QueryRules) -> Cow<'a, str> {
    let Some(query) = inbound.query() else { return Cow::Borrowed(&inbound.path_and_query) };
    match normalise_query(query, rules) {
        Cow::Borrowed(_) => Cow::Borrowed(&inbound.path_and_query),
        Cow::Owned(query) if query.is_empty() => Cow::Borrowed(inbound.path()),
        Cow::Owned(query) => Cow::Owned(format!("{}?{query}", inbound.path())),
    }
}

fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &str {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[start..]).expect("ASCII digits are UTF-8")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::inbound::{self, Scheme};

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
