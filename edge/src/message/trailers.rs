//! Trailer fields (RFC 9110 §6.5): which may be passed on, both ways.
//!
//! Whoever reads a message may merge its trailers into its head. Everything that the edge has decided by stands in the head,
//! so no trailer may say it once more, or otherwise.

use http::{HeaderMap, HeaderName, header};

use crate::message::hop_by_hop::{is_hop_by_hop, is_token};

/// Keeps the trailer fields that `passes` says, and of them those alone that may be trailers at all.
pub fn keep_trailers(trailers: &mut HeaderMap, passes: impl Fn(&HeaderName) -> bool) {
    let stays = |name: &HeaderName| is_token(name) && !belongs_to_head(name) && passes(name);
    let removed: Vec<HeaderName> = trailers.keys().filter(|name| !stays(name)).cloned().collect();
    for name in &removed {
        trailers.remove(name);
    }
}

/// Whether a field is needed before the content, or together with the head (RFC 9110 §6.5.1): for framing, routing,
/// authentication, conditions and controls, or to handle the content.
fn belongs_to_head(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || HEAD_ONLY.contains(name)
        || matches!(name.as_str(), "http2-settings" | "set-cookie2")
}

static HEAD_ONLY: [HeaderName; 40] = [
    // Framing and the way that a message takes.
    header::CONTENT_LENGTH,
    header::TRAILER,
    header::HOST,
    header::VIA,
    header::MAX_FORWARDS,
    header::EXPECT,
    header::ORIGIN,
    header::REFERER,
    // Authentication and state.
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    header::COOKIE,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::CONTENT_SECURITY_POLICY,
    // Conditions and preferences.
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    // Controls of a response and of caches.
    header::AGE,
    header::CACHE_CONTROL,
    header::DATE,
    header::EXPIRES,
    header::LOCATION,
    header::PRAGMA,
    header::RETRY_AFTER,
    header::VARY,
    header::WARNING,
    // How the content is to be handled.
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LOCATION,
    header::CONTENT_LANGUAGE,
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_was_decided_by_the_head_is_not_said_again_behind_the_content() {
        let mut trailers = HeaderMap::new();
        for name in
            ["content-length", "host", "set-cookie", "connection", "x-secret", "grpc-status", "server-timing"]
        {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        keep_trailers(&mut trailers, |name| name != "x-secret");
        let mut kept: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["grpc-status", "server-timing"]);
    }
}
