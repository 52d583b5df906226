//! Which requests a route is for, as the file writes it.

use std::{fmt, sync::Arc};

use http::Method;

/// A path as routes write it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathPattern {
    /// `/exact`: this path only.
    Exact(Box<str>),
    /// `/prefix/*`: every path that begins with this text, which ends in `/`.
    Prefix(Box<str>),
    /// `/before/*/after`: one segment between the two, which end and begin with `/`.
    Between(Box<str>, Box<str>),
}

impl PathPattern {
    /// What stands before a star, if there is one.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) | Self::Between(path, _) => path,
        }
    }

    /// Whether a path, in the spelling that routes see, is one of it.
    pub fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            // `OPTIONS *` has no path; it belongs to the route for all paths.
            Self::Prefix(prefix) => path.starts_with(&**prefix) || (&**prefix == "/" && path == "*"),
            Self::Between(before, after) => path
                .strip_prefix(&**before)
                .and_then(|rest| rest.strip_suffix(&**after))
                .is_some_and(|segment| !segment.is_empty() && !segment.contains('/')),
        }
    }

    /// Whether every path of `inner` is one of this.
    pub fn covers(&self, inner: &Self) -> bool {
        match (self, inner) {
            (Self::Exact(outer), Self::Exact(inner)) => outer == inner,
            (Self::Exact(_), _) | (Self::Between(..), Self::Prefix(_)) => false,
            (Self::Prefix(outer), Self::Exact(inner) | Self::Prefix(inner) | Self::Between(inner, _)) => {
                inner.starts_with(&**outer)
            }
            (Self::Between(..), Self::Exact(path)) => self.holds(path),
            (Self::Between(..), Self::Between(..)) => self == inner,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => formatter.write_str(path),
            Self::Prefix(path) => write!(formatter, "{path}*"),
            Self::Between(before, after) => write!(formatter, "{before}*{after}"),
        }
    }
}

/// A host as routes write it, in the one spelling that requests have: lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `shop.example`: this host only.
    Exact(Box<str>),
    /// `*.shop.example`: every host below it, however deep, and not itself. Holds `.shop.example`.
    Below(Box<str>),
}

impl HostPattern {
    /// Whether a host is one of it.
    pub fn holds(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }

    /// Whether every host of `inner` is one of this.
    pub fn covers(&self, inner: &Self) -> bool {
        match (self, inner) {
            (_, Self::Exact(inner)) => self.holds(inner),
            (Self::Exact(_), Self::Below(_)) => false,
            (Self::Below(outer), Self::Below(inner)) => inner.ends_with(&**outer),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => formatter.write_str(host),
            Self::Below(suffix) => write!(formatter, "*{suffix}"),
        }
    }
}

/// What a route asks of a request beside its host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Its method is one of these; any where empty. HEAD is where GET is.
    pub methods: Vec<Method>,
    /// It has every one of these fields.
    pub fields: Vec<Sign>,
}

impl Asks {
    /// Whether nothing is asked, so that host and path alone decide.
    pub fn is_nothing(&self) -> bool {
        self.methods.is_empty() && self.fields.is_empty()
    }

    /// Whether requests of a method may be for the route.
    pub fn takes(&self, method: &Method) -> bool {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.methods.is_empty() || self.methods.contains(method)
    }
}

/// A kind of requests that are read from the cache beside GET and HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BesideGet {
    /// QUERY (RFC 10008).
    Query,
    /// A POST that asks a GraphQL service, by queries alone.
    Graphql,
    /// OPTIONS.
    Options,
}

impl BesideGet {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Query, Self::Graphql, Self::Options];

    /// The method that such requests have.
    pub fn method(self) -> Method {
        match self {
            Self::Query => Method::from_bytes(b"QUERY").expect("it is a token"),
            Self::Graphql => Method::POST,
            Self::Options => Method::OPTIONS,
        }
    }
}

/// A field or a cookie that asks for something by being there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// In lower case, of a field.
    pub name: Arc<str>,
    /// The value that it must have; any where `None`.
    pub value: Option<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_hosts_below_and_not_for_the_host_itself() {
        let below = HostPattern::Below(".shop.example".into());
        for (host, held) in [
            ("www.shop.example", true),
            ("a.b.shop.example", true),
            ("shop.example", false),
            (".shop.example", false),
            ("workshop.example", false),
            ("shop.example.evil.test", false),
        ] {
            assert_eq!(below.holds(host), held, "{host}");
        }
        assert!(below.covers(&HostPattern::Below(".eu.shop.example".into())));
        assert!(!HostPattern::Below(".eu.shop.example".into()).covers(&below));
        assert!(!HostPattern::Exact("shop.example".into()).covers(&below));
    }

    #[test]
    fn head_goes_where_get_goes() {
        let asks = |methods: &[Method]| Asks { methods: methods.to_vec(), fields: Vec::new() };
        assert!(asks(&[Method::GET]).takes(&Method::HEAD));
        assert!(!asks(&[Method::POST]).takes(&Method::HEAD));
        assert!(asks(&[]).takes(&Method::DELETE));
    }
}
