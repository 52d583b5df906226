//! A route's caching rules, resolved: what the operator adds to or takes from RFC 9111.
//!
//! The default is the RFC alone, with the two protections that the crate's head lists (cookies both ways).

use http::HeaderName;
use std::time::Duration;

/// A route's rules. `Rules::default()` follows RFC 9111 and protects cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Lifetime of a success or permanent redirect for which the origin states none. Errors are not covered: a
    /// missing asset must not stay missing for the year its presence would be cached.
    pub default_ttl: Option<Duration>,
    /// The longest lifetime, whatever the origin says.
    pub max_ttl: Option<Duration>,
    /// `stale-while-revalidate` where the origin states none (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` where the origin states none (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
    /// Serve stale on 500, 502, 503 and 504 even without a `stale-if-error` window.
    pub stale_on_status: bool,
    /// Estimate a lifetime from Last-Modified where none is stated (RFC 9111 §4.2.2).
    pub heuristic: bool,
    /// What becomes of a response that sets cookies.
    pub set_cookie: SetCookie,
    /// What a request's cookies mean.
    pub cookies: Cookies,
    /// Which of a client's cache directives count.
    pub client_directives: ClientDirectives,
    /// The edge negotiates content codings itself, so that `Vary: Accept-Encoding` on a response without
    /// Content-Encoding makes no variants.
    pub edge_codes: bool,
    /// The targeted fields this cache obeys, first match first (RFC 9213 §2.2).
    pub targeted: Vec<HeaderName>,
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
            default_ttl: None,
            max_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_on_status: false,
            heuristic: true,
            set_cookie: SetCookie::Refuse,
            cookies: Cookies::Bypass,
            client_directives: ClientDirectives::Honour,
            edge_codes: true,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
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

/// What a request's cookies mean to a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cookies {
    /// Any cookie makes the request pass by the cache. DEVIATION: RFC 9111 lets it be answered from the cache.
    #[default]
    Bypass,
    /// These cookies do not matter, any other makes the request pass. A name may end in `*`: any that begins so.
    Ignore(Vec<String>),
    /// No cookie matters: RFC-literal behaviour.
    IgnoreAll,
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
