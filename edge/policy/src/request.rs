//! What a request says that matters to a cache, read once.
//!
//! Promises that a plain GET costs a few look-ups and no allocation.

use crate::directives::{RequestDirectives, words_of};
use crate::reason::Reason;
use crate::rules::{ClientDirectives, Cookies, Rules};
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, IF_MATCH, IF_UNMODIFIED_SINCE, PRAGMA, RANGE, TRANSFER_ENCODING,
};
use http::{HeaderValue, Method};
use std::time::Duration;

/// What a request says that matters to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    pub(crate) method: MethodClass,
    pub(crate) directives: RequestDirectives,
    pub(crate) authorization: bool,
    pub(crate) cookies: RequestCookies,
    /// If-Match or If-Unmodified-Since.
    pub(crate) origin_precondition: bool,
    pub(crate) content: bool,
    pub(crate) range: bool,
    /// Only explicit freshness lets the answer be stored: it answers a POST (RFC 9110 §9.3.3).
    pub(crate) wants_explicit_freshness: bool,
}

/// What the cookies of a request ask of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestCookies {
    /// Nothing: there is none that matters.
    None,
    /// That it is for everyone by its own word.
    Guarded,
    /// That it comes from the origin, for this request alone.
    Bypassing,
}

impl RequestCookies {
    fn read(headers: &HeaderMap, rules: &Rules) -> RequestCookies {
        match rules.cookies {
            _ if !rules.ignored_cookies.matter_in(headers) => RequestCookies::None,
            Cookies::Origin => RequestCookies::Guarded,
            Cookies::Bypass => RequestCookies::Bypassing,
        }
    }
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
            cookies: RequestCookies::read(headers, rules),
            origin_precondition: headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE),
            content: has_content(headers),
            range: headers.contains_key(RANGE),
            wants_explicit_freshness: false,
        }
    }

    /// Whether the request carries credentials (RFC 9110 §11.6.2), or is as good as if it did.
    pub fn is_authorized(&self) -> bool {
        self.authorization
    }

    /// The facts of a request that carries credentials in other fields than Authorization, or in a certificate that the upstream is told of: to a cache it is no other.
    #[must_use]
    pub fn with_credentials(mut self) -> RequestFacts {
        self.authorization = true;
        self
    }

    /// Whether the request asks for a range (RFC 9110 §14.2: defined for GET alone).
    pub fn asks_for_range(&self) -> bool {
        self.range && self.method == MethodClass::Get
    }

    /// Whether it carries a cookie that the route does not ignore: only what is for everyone by its own word answers it.
    pub fn minds_cookies(&self) -> bool {
        self.cookies != RequestCookies::None
    }

    /// Whether a reason for which the answer to one request could not be shared tells anything of the answer to this one.
    pub fn is_concerned_by(&self, reason: Reason) -> bool {
        reason != Reason::RequestCookie || self.minds_cookies()
    }

    /// Whether it says who asks: then a refusal to store its answer says nothing about the answer to others.
    pub fn is_personal(&self) -> bool {
        self.authorization || self.minds_cookies()
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

    /// The facts of the cache's own question about what it has stored, on the occasion of this request: the client's
    /// directives, range and conditions are about its own answer, and say nothing about the one that is stored.
    #[must_use]
    pub fn for_refresh(self) -> RequestFacts {
        RequestFacts {
            directives: RequestDirectives::default(),
            origin_precondition: false,
            range: false,
            ..self.as_get()
        }
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
    words_of(pragma.as_bytes()).any(|word| word.eq_ignore_ascii_case(b"no-cache"))
}

fn has_content(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
        || headers.contains_key(TRANSFER_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::IgnoredCookies;
    use http::header::{CACHE_CONTROL, COOKIE};

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
        assert!(facts(&[(PRAGMA, "extension; no-cache")], &rules).directives.no_cache);
    }

    #[test]
    fn cookies_matter_by_rule() {
        let ignore = |names: &[&str]| Rules {
            ignored_cookies: IgnoredCookies::Named(names.iter().map(ToString::to_string).collect()),
            ..Rules::default()
        };
        let minds = |fields: &[(http::HeaderName, &str)], rules: &Rules| facts(fields, rules).minds_cookies();
        assert!(minds(&[(COOKIE, "a=1")], &Rules::default()));
        assert!(!minds(&[], &Rules::default()));
        assert!(!minds(&[(COOKIE, "a=1; _ga_x=2;")], &ignore(&["a", "_ga*"])));
        assert!(minds(&[(COOKIE, "a=1"), (COOKIE, "session=2")], &ignore(&["a"])));
        assert!(minds(&[(COOKIE, "A=1")], &ignore(&["a"])), "cookie names have case");
        let but = IgnoredCookies::AllBut(vec!["session".to_owned(), "wp_*".to_owned()]);
        let but = Rules { ignored_cookies: but, cookies: Cookies::Bypass, ..Rules::default() };
        assert!(!minds(&[(COOKIE, "a=1; sessions=2")], &but));
        assert!(minds(&[(COOKIE, "a=1; session=2")], &but) && minds(&[(COOKIE, "wp_logged_in=1")], &but));
        let all = Rules { ignored_cookies: IgnoredCookies::All, ..Rules::default() };
        assert!(!minds(&[(COOKIE, "a=1")], &all));
        let bypass = Rules { cookies: Cookies::Bypass, ..ignore(&["a"]) };
        let cookies = |value| facts(&[(COOKIE, value)], &bypass).cookies;
        assert_eq!([cookies("a=1"), cookies("b=1")], [RequestCookies::None, RequestCookies::Bypassing]);
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
