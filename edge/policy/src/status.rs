//! What a status code means to a cache (RFC 9110 §15, RFC 9111 §3).

use http::StatusCode;

/// Statuses that may be stored without explicit freshness (RFC 9110 §15.1), 206 aside: parts have their own way in.
pub(crate) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Statuses for which a lifetime is guessed from Last-Modified (RFC 9111 §4.2.2): those that RFC 9110 §15.1 lists, but no
/// errors, whose Last-Modified tells of the error page's template and not of how long the error lasts.
pub(crate) fn takes_guessed_lifetime(status: StatusCode) -> bool {
    is_heuristically_cacheable(status) && status.as_u16() < 400
}

/// Statuses to which a route's default lifetime applies: an answer, not the lack of one. 206 is a part of a 200.
pub(crate) fn takes_default_lifetime(status: StatusCode) -> bool {
    ANSWERS.contains(&status) || status == StatusCode::PARTIAL_CONTENT
}

/// The statuses that a route's lifetime is for where it names none.
pub(crate) const ANSWERS: [StatusCode; 5] = [
    StatusCode::OK,
    StatusCode::NON_AUTHORITATIVE_INFORMATION,
    StatusCode::MULTIPLE_CHOICES,
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::PERMANENT_REDIRECT,
];

/// Statuses that are never stored as a whole response: interim ones, parts, 304, the proxy's own 407, and those that
/// RFC 6585 forbids to store.
pub(crate) fn forbids_storing(status: StatusCode) -> bool {
    status.is_informational() || matches!(status.as_u16(), 206 | 304 | 407 | 428 | 429 | 431 | 511)
}

/// Statuses whose caching requirements this cache implements, for `must-understand` (RFC 9111 §5.2.2.3).
pub(crate) fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=204 | 206 | 300..=304 | 307 | 308 | 400..=406 | 408..=417 | 421 | 422 | 426 | 451 | 500..=505
    )
}
