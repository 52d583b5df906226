//! The one vocabulary of verdicts: Cache-Status `detail`, logs, metrics and `explain` all use these tokens.
//!
//! Promises that a token is unique and stable; a renamed token breaks operators' dashboards.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $token:literal,)+) => {
        /// Why a request or a response was treated as it was.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in declaration order.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The reason's token: lower case, words joined by hyphens.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $token,)+
                }
            }

            /// The reason in a sentence, for those who ask why.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Reason::$name => concat!($($doc),+).trim_start(),)+
                }
            }
        }
    };
}

reasons! {
    // Why a request goes upstream although a cache stands here.
    /// Nothing is stored for this key.
    Miss => "miss",
    /// Entries exist for this key, none for this request's variant.
    VaryMiss => "vary-miss",
    /// The stored response is past its lifetime.
    Stale => "stale",
    /// The stored response says `no-cache`: every use is validated (RFC 9111 §5.2.2.4).
    NoCache => "no-cache",
    /// Stale, and `must-revalidate`, `proxy-revalidate` or `s-maxage` forbids stale use (§5.2.2).
    MustRevalidate => "must-revalidate",
    /// The client sent `no-cache`, or `Pragma: no-cache` without Cache-Control (§5.2.1.4, §5.4).
    RequestNoCache => "request-no-cache",
    /// The stored response is older than the client's `max-age` (§5.2.1.1).
    RequestMaxAge => "request-max-age",
    /// The stored response will not stay fresh for the client's `min-fresh` (§5.2.1.3).
    RequestMinFresh => "request-min-fresh",
    /// What is stored covers only a part of what the request asks for (§3.4).
    PartialMiss => "partial-miss",
    /// This edge has lost touch with the others: they may have purged what is stored without its hearing of it.
    PurgesUnheard => "purges-unheard",

    // Why a request passes by the cache.
    /// The method is none that this cache answers (§4).
    Method => "method",
    /// The client sent `no-store` (§5.2.1.5).
    RequestNoStore => "request-no-store",
    /// The request carries a cookie that the route does not ignore, and no response that says `public`, `s-maxage` or `immutable`, and
    /// sets no cookie itself, is there for it.
    RequestCookie => "request-cookie",
    /// The request carries Authorization, or comes with a client certificate that the upstream is told of, and the stored response is not marked as shareable (§3.5).
    Authorization => "authorization",
    /// `If-Match` or `If-Unmodified-Since`: only the origin can answer (RFC 9110 §13.1.1, §13.1.4).
    OriginPrecondition => "origin-precondition",
    /// A GET or HEAD with content: its meaning is undefined, so its answer is nobody else's (RFC 9110 §9.3.1).
    RequestContent => "request-content",
    /// The client asks for a part, or only for what has changed, of a response that lately could not be stored.
    RequestPart => "request-part",
    /// The client tries what is new: a field or a cookie sends it to the route's canary, and what is stored is not for it.
    Canary => "canary",
    /// The request is on its route by its header fields, and what is stored for its URL is for requests without them.
    RouteFields => "route-fields",
    /// The request has a field by which the route has it go past the cache (`bypass`).
    Bypass => "bypass",
    /// The client asks to switch to another protocol (RFC 9110 §7.8).
    Upgrade => "upgrade",

    // Why a stale response is served.
    /// The client's `max-stale` accepts it (§5.2.1.2).
    MaxStale => "max-stale",
    /// Inside the `stale-while-revalidate` window (RFC 5861 §3).
    StaleWhileRevalidate => "stale-while-revalidate",
    /// Inside the `stale-if-error` window (RFC 5861 §4).
    StaleIfError => "stale-if-error",
    /// The upstream cannot be reached and nothing forbids a stale answer (RFC 9111 §4.2.4).
    StaleOnDisconnect => "stale-on-disconnect",
    /// The upstream answered 500, 502, 503 or 504 and the route serves stale then.
    StaleOnStatus => "stale-on-status",
    /// The request that this one waited for was just answered 429 or 5xx: the upstream is not asked once more.
    StaleOnSharedFailure => "stale-on-shared-failure",
    /// The stored response is still fresh; the client had asked for more, and the upstream failed.
    FreshOnError => "fresh-on-error",

    // Why a failure is not papered over with a stored response.
    /// Longer stale than its `stale-if-error` window, or the route's `stale_on_disconnect`, allows.
    TooStale => "too-stale",
    /// No `stale-if-error` window, and the route does not serve stale on this status.
    NoStaleIfError => "no-stale-if-error",
    /// The upstream's status is an answer, not a failure of RFC 5861's list.
    NotAFailure => "not-a-failure",

    // Why a response is not stored.
    /// The response says `no-store` (§5.2.2.5).
    NoStore => "no-store",
    /// The response says `private` (§5.2.2.7).
    Private => "private",
    /// The request carried Authorization and the response does not permit sharing (§3.5).
    NotShared => "not-shared",
    /// The response sets a cookie and the route refuses to store such.
    SetCookie => "set-cookie",
    /// The status may not be stored without explicit freshness (§3).
    Status => "status",
    /// The status forbids storing: 1xx, 206 as a whole, 304, and RFC 6585's 428, 429, 431, 511.
    StatusForbidsStoring => "status-forbids-storing",
    /// `must-understand` on a status this cache does not implement (§5.2.2.3).
    NotUnderstood => "not-understood",
    /// Neither a lifetime nor a validator nor a stale window: stored, it could never be used.
    NoFreshness => "no-freshness",
    /// An event stream (`text/event-stream`) for which the origin states no lifetime: it is for whoever listens now.
    EventStream => "event-stream",
    /// `Vary: *`, or a Vary that cannot be read (§4.1).
    VaryAny => "vary-any",
    /// Vary names more fields than this cache tells apart.
    VaryTooWide => "vary-too-wide",
    /// More tags, or longer ones, than this cache remembers: a purge could not reach the response.
    TagsUnusable => "tags-unusable",
    /// A part whose Content-Range or validator does not allow storing it (§3.3).
    PartialUnusable => "partial-unusable",
    /// The answer to a client's range is neither that part nor the whole: it says nothing about the resource to others.
    RangeAnswer => "range-answer",

    /// The answer of a GraphQL service names errors, or cannot be read as to whether it does.
    GraphqlErrors => "graphql-errors",
    /// Larger than the cache keeps of one object.
    TooLarge => "too-large",
    /// Other bodies that are arriving take up the room for those.
    NoRoom => "no-room",

    // Why a stored response is not freshened or completed.
    /// The validators of the new response are not those of the stored one (§4.3.4).
    ValidatorMismatch => "validator-mismatch",
    /// A HEAD's Content-Length contradicts the stored one (§4.3.5).
    LengthMismatch => "length-mismatch",
    /// A HEAD describes another content coding than the stored one.
    CodingMismatch => "coding-mismatch",
}

impl Reason {
    /// Whether the request is what kept a response from being stored: the next client's may be stored all the same.
    pub const fn is_about_request(self) -> bool {
        matches!(
            self,
            Reason::Method
                | Reason::RequestNoStore
                | Reason::RequestCookie
                | Reason::RequestContent
                | Reason::Canary
                | Reason::RouteFields
                | Reason::Bypass
                | Reason::Authorization
                | Reason::NotShared
                | Reason::RangeAnswer
        )
    }
}

impl std::error::Error for Reason {}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_are_unique_and_kebab_case() {
        let tokens: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(tokens.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| reason.meaning().ends_with('.')));
        assert!(tokens.iter().all(|token| token.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    }
}
