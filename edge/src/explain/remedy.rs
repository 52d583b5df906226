//! What the operator or the origin could change about a verdict.

use cache_policy::Reason;

/// Advice, in a sentence; `None` where nothing is wrong.
pub(super) fn remedy(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Miss => {
            "on the first request nothing is wrong; later, compare the key with the one that was stored (scheme, host, port, \
             path and query all count) and look for purges and evictions"
        }
        Reason::NoStore | Reason::Private => {
            "the origin forbids it: let it send `public, s-maxage=…` for what is the same for everyone"
        }
        Reason::SetCookie => "let the origin set no cookie here, or give the route `set_cookie = \"strip\"`",
        Reason::RequestCookie => "name the cookies that do not matter in the route's `ignore_cookies`",
        Reason::Authorization | Reason::NotShared => {
            "let the origin mark it `public` or `s-maxage` if everyone with or without credentials may have it"
        }
        Reason::NoFreshness => {
            "let the origin send max-age, Expires or a validator (ETag), or give the route a `default_ttl`"
        }
        Reason::Status => {
            "statuses like this one need explicit freshness from the origin (max-age or Expires)"
        }
        Reason::NotUnderstood => {
            "let the origin leave `must-understand` away, or send it with statuses of RFC 9110 only"
        }
        Reason::VaryAny | Reason::VaryTooWide => {
            "let the origin name in Vary only the fields it really looks at"
        }
        Reason::VaryMiss => {
            "each other value of these fields is fetched once: let the origin name in Vary only what it really looks at"
        }
        Reason::TagsUnusable => "let the origin send fewer or shorter tags",
        Reason::PartialUnusable => {
            "let the origin answer ranges with one part, a Content-Range that agrees with its length, and a strong ETag; or \
             give the route `ranges = \"whole\"`"
        }
        Reason::TooLarge => "raise `largest_object` in [cache]",
        Reason::NoRoom => "raise `memory` in [cache]",
        Reason::Stale | Reason::MustRevalidate | Reason::NoCache => {
            "a longer lifetime or stale_while_revalidate makes it a hit; a validator (ETag) makes asking cheap"
        }
        Reason::RequestNoCache | Reason::RequestMaxAge | Reason::RequestMinFresh | Reason::RequestNoStore => {
            "a public route may ignore such wishes of clients: `client_directives`"
        }
        Reason::Method | Reason::RequestContent => {
            "only GET and HEAD without content are answered from the cache"
        }
        Reason::RequestPart => {
            "once an answer is stored, parts and conditions are answered from it: see why the last one was not"
        }
        _ => return None,
    })
}
