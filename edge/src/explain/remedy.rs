//! What the operator or the origin could change about a verdict.

use cache_policy::{Cookies, Reason, Rules, Supply};

/// Advice, in a sentence; `None` where nothing is wrong. `supply` is about the response that is spoken of, where there is one: what
/// would change nothing is not advised.
pub(super) fn remedy(reason: Reason, supply: Option<Supply>, rules: &Rules) -> Option<&'static str> {
    Some(match reason {
        Reason::Miss => {
            "on the first request nothing is wrong; later, compare the key with the one that was stored (scheme, host, port, \
             path and query all count) and look for purges and evictions"
        }
        Reason::NoStore | Reason::Private => {
            "the origin forbids it: let it send `public, s-maxage=…` for what is the same for everyone"
        }
        Reason::SetCookie => {
            "let the origin set no cookie here; or give the route `set_cookie = \"strip\"`, which stores such answers to requests \
             without cookies"
        }
        Reason::RequestCookie => match rules.cookies {
            Cookies::Origin => {
                "let the origin say `public`, `s-maxage` or `immutable` of what is the same for everyone, and set no cookie with it; \
                 or name the cookies that do not matter in the route's `ignore_cookies`"
            }
            Cookies::Bypass => {
                "name the cookies that do not matter in the route's `ignore_cookies`, or let the origin say what is for everyone \
                 with `cookies = \"origin\"`"
            }
        },
        Reason::Authorization | Reason::NotShared => {
            "let the origin mark it `public` or `s-maxage` if everyone with or without credentials may have it"
        }
        Reason::NoFreshness => match supply {
            Some(Supply::DefaultTtl) | None => {
                "let the origin send max-age, Expires or a validator (ETag), or give the route a `default_ttl`"
            }
            Some(Supply::Ttl) => {
                "let the origin send a lifetime of more than zero or a validator (ETag), or give the route a `ttl` for this status"
            }
            Some(Supply::Neither) => {
                "the origin wants every use validated: let it send a validator (ETag) for that, or leave `no-cache` away"
            }
        },
        Reason::EventStream => {
            "nothing is wrong where it is endless; if it ends and is the same for everyone, let the origin state a lifetime for it"
        }
        Reason::Status => {
            "statuses like this one need explicit freshness from the origin (max-age or Expires), or a `ttl` of the route that \
             names them"
        }
        Reason::NotUnderstood => {
            "let the origin leave `must-understand` away, or send it with statuses of RFC 9110 only"
        }
        Reason::PurgesUnheard => {
            "see why this edge cannot reach Redis (its log, and gatehouse_edge_tier_in_touch of /metrics); until then what is stored is \
             validated, or served unseen with `unheard = \"serve\"` in [redis]"
        }
        Reason::RouteFields => {
            "where its answers are to be stored, tell the route apart by host or path in place of `headers`"
        }
        Reason::Bypass => {
            "where its answers are to be stored, leave the field out of `bypass` of the route's cache"
        }
        Reason::VaryAny | Reason::VaryTooWide => {
            "let the origin name in Vary only the fields it really looks at"
        }
        Reason::VaryMiss => {
            "each other value of these fields is fetched once: let the origin name in Vary only what it really looks at"
        }
        Reason::TagsUnusable => {
            "let the origin send fewer or shorter tags, or raise `max_tags` of the route's cache"
        }
        Reason::PartialUnusable => {
            "let the origin answer ranges with one part, a Content-Range that agrees with its length, and a strong ETag; or \
             give the route `ranges = \"whole\"`"
        }
        Reason::GraphqlErrors => {
            "let the service answer without `errors`, in JSON of at most 1 MiB that is not coded, or in gzip, br or zstd"
        }
        Reason::TooLarge => "raise `largest_object` in [cache]",
        Reason::NoRoom => "raise `memory` in [cache]",
        Reason::Stale => {
            "a longer lifetime or stale_while_revalidate makes it a hit; a validator (ETag) makes asking cheap"
        }
        Reason::MustRevalidate => {
            "a longer lifetime (the origin's, or the route's `ttl`) makes it a hit; a validator (ETag) makes asking cheap"
        }
        Reason::NoCache => {
            "the origin wants every use validated: a validator (ETag) makes that cheap, and only the origin can leave it away"
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
