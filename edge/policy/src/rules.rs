//! A route's caching rules, resolved: what the operator adds to or takes from RFC 9111.
//!
//! The default is the RFC alone, with the two protections that the crate's head lists (cookies both ways).

use crate::status;
use crate::tags::{MOST_TAGS, TAG_FIELDS};
use http::header::{COOKIE, HeaderMap};
use http::{HeaderName, StatusCode};
use std::time::Duration;

/// A route's rules. `Rules::default()` follows RFC 9111 and protects cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Lifetime by status, in place of whatever lifetime the origin states. It lifts no refusal: what says `no-store`,
    /// `private` or `no-cache`, or sets a cookie, is treated as without it.
    pub ttl: Option<Ttl>,
    /// Lifetime of a success or permanent redirect for which the origin states none. Errors are not covered: a
    /// missing asset must not stay missing for the year its presence would be cached.
    pub default_ttl: Option<Duration>,
    /// The shortest lifetime of a success or permanent redirect that has any stated one, were it 0. As with `ttl`, no refusal
    /// is lifted.
    pub min_ttl: Option<Duration>,
    /// The longest lifetime, whatever the origin says.
    pub max_ttl: Option<Duration>,
    /// `stale-while-revalidate` where the origin states none (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` where the origin states none (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
    /// How long past its lifetime a response may stand in for an answer that does not come (or, with `stale_on_status`,
    /// for an error) where neither the origin nor `stale_if_error` says how long.
    pub stale_on_disconnect: Duration,
    /// Serve stale on 500, 502, 503 and 504 even without a `stale-if-error` window.
    pub stale_on_status: bool,
    /// Estimate a lifetime from Last-Modified where none is stated (RFC 9111 §4.2.2).
    pub heuristic: bool,
    /// What becomes of a response that sets cookies.
    pub set_cookie: SetCookie,
    /// What a request's cookies mean.
    pub cookies: Cookies,
    /// Cookies that mean nothing.
    pub ignored_cookies: IgnoredCookies,
    /// Which of a client's cache directives count.
    pub client_directives: ClientDirectives,
    /// The edge negotiates content codings itself, so that `Vary: Accept-Encoding` on a response without
    /// Content-Encoding makes no variants.
    pub edge_codes: bool,
    /// The targeted fields this cache obeys, first match first (RFC 9213 §2.2).
    pub targeted: Vec<HeaderName>,
    /// The fields whose words are tags.
    pub tag_fields: Vec<HeaderName>,
    /// Tags that one response may have; with more it is not stored, since not every purge would reach it.
    pub max_tags: usize,
    /// What becomes of a request for a part of what is not stored.
    pub ranges: Ranges,
    /// Choose among stored variants by Content-Language where no variant matches; see [`crate::prefers_language`].
    pub by_language: bool,
    /// A response without Last-Modified counts as unmodified since whatever date a client names. DEVIATION: RFC 9111 §4.3.2 has
    /// its Date compared.
    pub undated_unmodified: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            ttl: None,
            default_ttl: None,
            min_ttl: None,
            max_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_on_disconnect: Duration::from_secs(86_400),
            stale_on_status: false,
            heuristic: true,
            set_cookie: SetCookie::Refuse,
            cookies: Cookies::Origin,
            ignored_cookies: IgnoredCookies::Named(Vec::new()),
            client_directives: ClientDirectives::Honour,
            edge_codes: true,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            tag_fields: TAG_FIELDS.to_vec(),
            max_tags: MOST_TAGS,
            ranges: Ranges::Parts,
            by_language: false,
            undated_unmodified: false,
        }
    }
}

/// What becomes of a request for a part of what is not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranges {
    /// The part is fetched and stored.
    #[default]
    Parts,
    /// As `Parts`, for an origin whose Content-Range contradicts the length of what it sends: the length is believed.
    /// DEVIATION: RFC 9110 §14.4 has such a part be treated as unusable.
    Fitted,
    /// The whole is fetched and stored, and the part cut from it.
    Whole,
}

/// What becomes of a response with Set-Cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// The response is not stored. DEVIATION: RFC 9111 §7.3 lets it be.
    #[default]
    Refuse,
    /// The response is stored without the field.
    Strip,
    /// The response is stored as it is: RFC-literal behaviour, every client gets the same cookie.
    Store,
}

/// What a request's cookies, other than ignored ones, mean to a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cookies {
    /// The origin decides: a response that says `public`, `s-maxage` or `immutable` answers a request with cookies, and the
    /// answer to one is stored, where it says so and sets no cookie. DEVIATION: RFC 9111 asks for no such word.
    #[default]
    Origin,
    /// Any cookie makes the request pass by the cache. DEVIATION: RFC 9111 lets it be answered from the cache.
    Bypass,
}

/// Cookies that do not matter to a route: they are as if absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IgnoredCookies {
    /// Those of these names. A name may end in `*`: any that begins so.
    Named(Vec<String>),
    /// All: RFC-literal behaviour.
    All,
    /// All but those of these names.
    AllBut(Vec<String>),
}

impl IgnoredCookies {
    /// Whether a request carries a cookie that is not ignored.
    pub fn matter_in(&self, request: &HeaderMap) -> bool {
        let (names, named) = match self {
            IgnoredCookies::All => return false,
            IgnoredCookies::Named(names) if names.is_empty() => return request.contains_key(COOKIE),
            IgnoredCookies::Named(names) => (names, true),
            IgnoredCookies::AllBut(names) => (names, false),
        };
        request.get_all(COOKIE).iter().any(|line| {
            let mut pairs = line.as_bytes().split(|&byte| byte == b';').map(cookie_name);
            pairs.any(|name| !name.is_empty() && names.iter().any(|pattern| covers(pattern, name)) != named)
        })
    }
}

fn cookie_name(pair: &[u8]) -> &[u8] {
    let end = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
    pair[..end].trim_ascii()
}

/// Whether a name, or one that ends in `*` for all that begin so, is that of a cookie.
pub fn covers(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

/// Lifetimes that a route gives, whatever the origin states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ttl(Vec<(StatusCode, Duration)>);

impl Ttl {
    /// One lifetime for the statuses that are answers: 200, 203, 300, 301, 308.
    pub fn of_answers(lifetime: Duration) -> Ttl {
        Ttl(status::ANSWERS.map(|status| (status, lifetime)).into())
    }

    /// A lifetime for each of these statuses, and none for any other.
    pub fn by_status(lifetimes: Vec<(StatusCode, Duration)>) -> Ttl {
        Ttl(lifetimes)
    }

    /// The lifetime of a status; a part is of a 200.
    pub fn of(&self, status: StatusCode) -> Option<Duration> {
        let whole = if status == StatusCode::PARTIAL_CONTENT { StatusCode::OK } else { status };
        self.0.iter().find(|(named, _)| *named == whole).map(|(_, lifetime)| *lifetime)
    }

    /// Each status that has one, with it.
    pub fn each(&self) -> impl Iterator<Item = (StatusCode, Duration)> {
        self.0.iter().copied()
    }

    /// The longest of them.
    pub fn longest(&self) -> Duration {
        self.0.iter().map(|(_, lifetime)| *lifetime).max().unwrap_or_default()
    }

    /// Whether no lifetime makes a response of this status storable: interim ones, parts, 304, 407, and those that
    /// RFC 6585 forbids to store.
    pub fn is_useless_for(status: StatusCode) -> bool {
        status::forbids_storing(status)
    }
}

/// Which cache directives of a client count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientDirectives {
    /// All of RFC 9111 §5.2.1.
    #[default]
    Honour,
    /// Not `no-cache`, `max-age=0` and `Pragma: no-cache`: a reload does not reach the origin.
    IgnoreReloads,
    /// Not `max-stale`: no client gets a stale answer by asking for one.
    IgnoreRelaxations,
    /// None at all, `no-store` and `only-if-cached` included. DEVIATION: RFC 9111 §5.2.1.5 forbids to store the answer to
    /// a `no-store` request.
    IgnoreAll,
}
