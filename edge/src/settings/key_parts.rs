//! What of a request makes another answer beside its URL, and what has it go past the cache.

use std::sync::Arc;

use http::{HeaderName, header};

/// What of a request is part of the cache's key beside its URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyParts {
    pub headers: Vec<HeaderName>,
    pub cookies: Vec<Arc<str>>,
    /// A field that says where the client is. From anyone but trusted proxies it is removed.
    pub country: Option<HeaderName>,
}

impl KeyParts {
    /// Whether the URL is all.
    pub fn is_nothing(&self) -> bool {
        let Self { headers, cookies, country } = self;
        headers.is_empty() && cookies.is_empty() && country.is_none()
    }

    /// The fields of it.
    pub fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().chain(&self.country)
    }
}

/// Why a field cannot be part of a key, in words about what to do.
pub(super) fn not_keyed(name: &HeaderName) -> Option<&'static str> {
    const CONDITIONS: [HeaderName; 6] = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
    ];
    match *name {
        header::HOST => Some("leave it out: the host is always part of the key"),
        header::COOKIE => Some("name single cookies: key = { cookies = [\"currency\"] }"),
        header::AUTHORIZATION | header::PROXY_AUTHORIZATION => Some(
            "leave it out: answers to who signs in are stored where the origin says `public` or `s-maxage`",
        ),
        header::ACCEPT_ENCODING => {
            Some("leave it out: `compress` codes, or the origin says Vary: Accept-Encoding")
        }
        header::CACHE_CONTROL | header::PRAGMA => Some("leave it out: what it says is obeyed"),
        ref name if CONDITIONS.contains(name) => {
            Some("leave it out: parts and conditions are answered from what is stored")
        }
        ref name => {
            let name = name.as_str();
            let of_the_edge = name.contains('_')
                || name.starts_with("x-forwarded")
                || matches!(
                    name,
                    "forwarded"
                        | "x-real-ip"
                        | "x-request-id"
                        | "x-request-deadline"
                        | "via"
                        | "connection"
                        | "te"
                        | "transfer-encoding"
                        | "upgrade"
                        | "expect"
                        | "content-length"
                );
            of_the_edge.then_some("leave it out: the edge itself states or removes it")
        }
    }
}
