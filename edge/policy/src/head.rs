//! The head of a response as it is stored (RFC 9111 §3.1).

use crate::date;
use crate::directives::{ResponseDirectives, Scope, list_elements};
use crate::rules::{Rules, SetCookie};
use crate::tags::CACHE_GROUPS;
use http::HeaderName;
use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};
use std::time::SystemTime;

/// Set-Cookie2 is obsolete, but whoever sends it means a cookie (RFC 6265 §9.4).
const SET_COOKIE2: HeaderName = HeaderName::from_static("set-cookie2");

/// Digests of one message's content (RFC 9530 §2; the second is obsolete, RFC 7231 appendix B).
pub(crate) const DIGESTS_OF_CONTENT: [HeaderName; 2] =
    [HeaderName::from_static("content-digest"), HeaderName::from_static("content-md5")];

/// Fields that a cache never stores (RFC 9111 §3.1), whether or not Connection names them.
const NEVER_STORED: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a later 304 is laid over decides by these again, and purges find it by its tags: a head that had lost them would
/// permit more than the origin did, and stay when it was told to go.
fn decides(field: &HeaderName, rules: &Rules) -> bool {
    [CACHE_CONTROL, VARY, CACHE_GROUPS].contains(field) || rules.tag_fields.contains(field)
}

/// The fields by which the head sets cookies.
pub(crate) fn cookie_fields(head: &HeaderMap) -> impl Iterator<Item = &'static HeaderName> {
    static FIELDS: [HeaderName; 2] = [SET_COOKIE, SET_COOKIE2];
    FIELDS.iter().filter(|field| head.contains_key(*field))
}

/// Strips what must not be stored, or must not be sent again without asking the origin.
///
/// A missing or unreadable Date becomes the time of receipt (RFC 9110 §6.6.1). Age goes: it is computed anew for
/// every answer.
pub(crate) fn as_stored(
    head: &HeaderMap,
    directives: &ResponseDirectives,
    rules: &Rules,
    wall: SystemTime,
) -> HeaderMap {
    // With room for a Date: a clone has none.
    let mut stored = HeaderMap::with_capacity(head.len() + 1);
    stored.extend(head.iter().map(|(name, value)| (name.clone(), value.clone())));
    remove_never_stored(&mut stored);
    stored.remove(AGE);
    if rules.set_cookie == SetCookie::Strip {
        stored.remove(SET_COOKIE);
        stored.remove(SET_COOKIE2);
    }
    let limited: [&Scope; 2] = [&directives.private, &directives.no_cache];
    for field in limited.iter().flat_map(|scope| scope.fields()).filter(|field| !decides(field, rules)) {
        stored.remove(field);
    }
    if date::of_field(stored.get(DATE), wall).is_none() {
        stored.insert(DATE, date::format(wall));
    }
    stored
}

/// Removes what a cache never stores, the fields that Connection names among it.
fn remove_never_stored(head: &mut HeaderMap) {
    let named: Vec<_> =
        list_elements(head, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in named.iter().chain(&NEVER_STORED) {
        head.remove(name);
    }
}

/// The stored head with the fields of a newer one laid over it (RFC 9111 §3.2).
///
/// A field of the newer head replaces all lines of the stored one. Content-Length, the digests of the content, and the ETag that was just found
/// to match, keep describing the stored content. Content-Encoding changes only where the stored content is coded:
/// some servers send it with a 304 to content they had sent plain.
pub(crate) fn overlaid(stored: &HeaderMap, newer: &HeaderMap) -> HeaderMap {
    let mut newer = newer.clone();
    remove_never_stored(&mut newer);
    let mut merged = stored.clone();
    for name in newer.keys() {
        let kept = match *name {
            CONTENT_LENGTH | CONTENT_RANGE => true,
            ETAG => stored.contains_key(ETAG),
            CONTENT_ENCODING => !stored.contains_key(CONTENT_ENCODING),
            // They are of the newer message's own content, which is none, or another part.
            _ => DIGESTS_OF_CONTENT.contains(name),
        };
        if kept {
            continue;
        }
        merged.remove(name);
        for value in newer.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    // §4.3.4: the newer response's own date counts, also where it states none.
    if !newer.contains_key(DATE) {
        merged.remove(DATE);
    }
    merged
}
