//! Cookies of this very host: read, and set.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest as _, Sha256};

/// `__Host-`: the browser takes it from this very host over TLS only, so no sibling domain can plant one (RFC 6265bis §4.1.3.2).
pub(crate) const SESSION: &str = "__Host-session";

/// The token of a request's session.
pub(crate) fn session(headers: &HeaderMap) -> Option<&str> {
    read(headers, SESSION)
}

/// What the database holds in place of a token, so that nothing in it signs anybody in.
pub(crate) fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

pub(crate) fn read<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .find_map(|line| line.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('=')))
}

/// `Set-Cookie` for a value of base64url, digits and dots, to be kept for as long as `age`; an `age` of zero removes
/// the cookie.
pub(crate) fn set(name: &str, value: &str, age: Duration) -> HeaderValue {
    let age = age.as_secs();
    let cookie = format!("{name}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&cookie).expect("base64url, digits and dots are printable ASCII")
}
