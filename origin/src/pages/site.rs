//! Under which scheme and host the shop is asked for, for the addresses that have to be whole: canonical links, sitemaps, previews.
//!
//! They go into the answer of whoever asked, and an edge stores answers by scheme and host: a made-up host is told to nobody else.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::{header, request::Parts};

/// `https://shop.example`, or nothing where no host is told.
#[derive(Debug)]
pub(super) struct Site(String);

impl Site {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Site {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST.as_str()).unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
        if host.is_empty() || host.len() > LONGEST_HOST || !host.bytes().all(plain) {
            return Ok(Self(String::new()));
        }
        let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
        Ok(Self(format!("{scheme}://{host}")))
    }
}

/// A name of 253 characters and a port.
const LONGEST_HOST: usize = 260;
