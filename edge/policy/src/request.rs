//! What a request says that matters to a cache, read once.
//!
//! Promises that a plain GET costs a few look-ups and no allocation.

use crate::directives::RequestDirectives;
use crate::rules::{ClientDirectives, Cookies, Rules};
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, HeaderMap, IF_MATCH, IF_UNMODIFIED_SINCE, PRAGMA, RANGE,
    TRANSFER_ENCODING,
};
use http::{HeaderValue, Method};
use std::time::Duration;

/// What a request says that matters to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    pub(crate) method: MethodClass,
    pub(crate) directives: RequestDirectives,
    pub(crate) authorization: bool,
    /// The request carries a cookie that the route does not ignore.
    pub(crate) cookie: bool,
    /// If-Match or If-Unmodified-Since.
    pub(crate) origin_precondition: bool,
    pub(crate) content: bool,
    pub(crate) range: bool,
    /// Only explicit freshness lets the answer be stored: it answers a POST (RFC 9110 §9.3.3).
    pub(crate) wants_explicit_freshness: bool,
}

/// What a method means to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodClass {
    Get,
    Head,
    Other,
}

impl RequestFacts {
    /// Reads the facts. Under `rules`, directives that the route ignores are as if absent.
    pub fn read(method: &Method, headers: &HeaderMap, rules: &Rules) -> RequestFacts {
        RequestFacts {
            method: MethodClass::of(method),
            directives: directives(headers, rules.client_directives),
            authorization: headers.contains_key(AUTHORIZATION),
            cookie: matters(headers, &rules.cookies),
            origin_precondition: headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE),
            content: has_content(headers),
            range: headers.contains_key(RANGE),
            wants_explicit_freshness: false,
        }
    }

    /// Whether the request carries credentials (RFC 9110 §11.6.2).
    pub fn is_authorized(&self) -> bool {
        self.authorization
    }

    /// Whether the request asks for a range (RFC 9110 §14.2: defined for GET alone).
    pub fn asks_for_range(&self) -> bool {
        self.range && self.method == MethodClass::Get
    }

    /// Whether it is a GET or HEAD.
    pub fn reads(&self) -> bool {
        self.method != MethodClass::Other
    }

    /// The facts of a GET for the same resource by the same client: to admit a whole fetched on behalf of a HEAD.
    #[must_use]
    pub fn as_get(mut self) -> RequestFacts {
        self.method = MethodClass::Get;
        self.content = false;
        self
    }

    /// The facts under which the answer to a POST is admitted; see [`crate::stands_for_get`].
    pub(crate) fn for_explicit_freshness(self) -> RequestFacts {
        RequestFacts { wants_explicit_freshness: true, ..self.as_get() }
    }
}

impl MethodClass {
    fn of(method: &Method) -> MethodClass {
        match *method {
            Method::GET => MethodClass::Get,
            Method::HEAD => MethodClass::Head,
            _ => MethodClass::Other,
        }
    }
}

fn directives(headers: &HeaderMap, honoured: ClientDirectives) -> RequestDirectives {
    let mut directives = RequestDirectives::default();
    if honoured == ClientDirectives::IgnoreAll {
        return directives;
    }
    if headers.contains_key(http::header::CACHE_CONTROL) {
        directives = RequestDirectives::read(headers);
    } else if let Some(pragma) = headers.get(PRAGMA) {
        // RFC 9111 §5.4: Pragma counts only where Cache-Control is absent.
        directives.no_cache = pragma_says_no_cache(pragma);
    }
    match honoured {
        ClientDirectives::IgnoreReloads => {
            directives.no_cache = false;
            directives.max_age = directives.max_age.filter(|age| *age > Duration::ZERO);
        }
        ClientDirectives::IgnoreRelaxations => directives.max_stale = None,
        ClientDirectives::Honour | ClientDirectives::IgnoreAll => {}
    }
    directives
}

fn pragma_says_no_cache(pragma: &HeaderValue) -> bool {
    pragma
        .as_bytes()
        .split(|&byte| byte == b',')
        .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
}

fn matters(headers: &HeaderMap, cookies: &Cookies) -> bool {
    match cookies {
        Cookies::IgnoreAll => false,
        Cookies::Bypass => headers.contains_key(COOKIE),
        Cookies::Ignore(names) => headers.get_all(COOKIE).iter().any(|line| {
            let mut pairs = line.as_bytes().split(|&byte| byte == b';').map(cookie_name);
            pairs.any(|name| !name.is_empty() && !names.iter().any(|ignored| covers(ignored, name)))
        }),
    }
}

fn cookie_name(pair: &[u8]) -> &[u8] {
    let end = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
    pair[..end].trim_ascii()
}

fn covers(ignored: &str, name: &[u8]) -> bool {
    match ignored.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == ignored.as_bytes(),
    }
}

fn has_content(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
        || headers.contains_key(TRANSFER_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CACHE_CONTROL;

    fn facts(fields: &[(http::HeaderName, &str)], rules: &Rules) -> RequestFacts {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        RequestFacts::read(&Method::GET, &headers, rules)
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let rules = Rules::default();
        assert!(facts(&[(PRAGMA, "No-Cache")], &rules).directives.no_cache);
        assert!(!facts(&[(PRAGMA, "no-cache"), (CACHE_CONTROL, "x")], &rules).directives.no_cache);
        assert!(!facts(&[(PRAGMA, "extension")], &rules).directives.no_cache);
    }

    #[test]
    fn cookies_matter_by_rule() {
        let ignore = |names: &[&str]| Rules {
            cookies: Cookies::Ignore(names.iter().map(ToString::to_string).collect()),
            ..Rules::default()
        };
        assert!(facts(&[(COOKIE, "a=1")], &Rules::default()).cookie);
        assert!(!facts(&[(COOKIE, "a=1; _ga_x=2;")], &ignore(&["a", "_ga*"])).cookie);
        assert!(facts(&[(COOKIE, "a=1"), (COOKIE, "session=2")], &ignore(&["a"])).cookie);
        assert!(facts(&[(COOKIE, "A=1")], &ignore(&["a"])).cookie, "cookie names have case");
        assert!(
            !facts(&[(COOKIE, "a=1")], &Rules { cookies: Cookies::IgnoreAll, ..Rules::default() }).cookie
        );
    }

    #[test]
    fn routes_choose_which_directives_count() {
        let with = |client_directives| Rules { client_directives, ..Rules::default() };
        let all = [(CACHE_CONTROL, "no-cache, no-store, max-age=0, max-stale=5, min-fresh=3")];
        let reloads = facts(&all, &with(ClientDirectives::IgnoreReloads)).directives;
        assert!(
            !reloads.no_cache && reloads.max_age.is_none() && reloads.max_stale.is_some() && reloads.no_store
        );
        let relaxations = facts(&all, &with(ClientDirectives::IgnoreRelaxations)).directives;
        assert!(relaxations.no_cache && relaxations.max_stale.is_none());
        assert_eq!(facts(&all, &with(ClientDirectives::IgnoreAll)).directives, RequestDirectives::default());
    }
}
