//! What hyper could not read as a request, told like every other refusal: a log line, a count, and problem+json.
//!
//! hyper answers such a head by itself, with a status and nothing else. [`Watched`](super::socket::Watched) keeps that
//! answer back, and this module says why it was given and writes the edge's own.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request};
use http_body_util::BodyExt as _;

use crate::{
    observe::record::Recorded, request::refusal::Refusal, response::body::Body, settings::HeadBounds,
};

/// Why hyper refused a head of these octets with this status, by its error.
pub fn refusal(status: StatusCode, error: &hyper::Error, octets: &[u8], bounds: HeadBounds) -> Refusal {
    match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Refusal::HeadTooLarge(bounds),
        StatusCode::URI_TOO_LONG => Refusal::TargetTooLong,
        _ => {
            let said = error.to_string();
            if said.contains("version") && names_other_version(octets) {
                return Refusal::VersionNotSupported(
                    "HTTP/1.1 and HTTP/1.0 are offered here, and HTTP/2 over TLS",
                );
            }
            let why = WORDS.iter().find(|(word, _)| said.contains(word));
            Refusal::BadRequest(why.map_or("the head is malformed", |(_, why)| why))
        }
    }
}

/// Whether a request line ends with a version of HTTP that is well-formed (RFC 9112 §2.3): one that is not spoken here.
fn names_other_version(octets: &[u8]) -> bool {
    let mut lines = octets.split(|octet| *octet == b'\n').skip_while(|line| line.trim_ascii().is_empty());
    let line = lines.next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let version = line.rsplit(|octet| *octet == b' ').next().unwrap_or_default();
    let words = line.split(|octet| *octet == b' ').count();
    words == 3
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// The head as far as the log needs it: whatever can be read of octets that are no request.
pub fn head(octets: &[u8]) -> request::Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    let octets = &octets[..octets.len().min(MOST_READ)];
    let mut lines = octets.split(|octet| *octet == b'\n').skip_while(|line| line.trim_ascii().is_empty());
    let mut words = lines.next().unwrap_or_default().split(|octet| *octet == b' ');
    let unknown = || Method::from_bytes(b"-").expect("a token");
    parts.method = words
        .next()
        .filter(|word| word.len() <= LONGEST_METHOD)
        .and_then(|word| Method::from_bytes(word).ok())
        .unwrap_or_else(unknown);
    let target = words.next().map(|word| Uri::try_from(word.trim_ascii()));
    parts.uri = target.and_then(Result::ok).unwrap_or_else(|| Uri::from_static("*"));
    let host = lines.take_while(|line| !line.trim_ascii().is_empty()).find_map(|line| {
        let at = line.iter().position(|octet| *octet == b':')?;
        let is_host = HeaderName::from_bytes(&line[..at]).is_ok_and(|name| name == header::HOST);
        is_host.then(|| HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()).flatten()
    });
    parts.headers.extend(host.map(|host| (header::HOST, host)));
    parts
}

/// A response as HTTP/1.1 writes it (RFC 9112 §4). Its record is written when this returns.
pub async fn in_http1(response: Response<Recorded<Body>>) -> Bytes {
    let (head, body) = response.into_parts();
    let mut octets = format!(
        "HTTP/1.1 {} {}\r\n",
        head.status.as_str(),
        head.status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            octets.extend_from_slice(part);
        }
    }
    octets.extend_from_slice(b"\r\n");
    // The edge's own words are there as a whole.
    if let Ok(content) = body.collect().await {
        octets.extend_from_slice(&content.to_bytes());
    }
    octets.into()
}

/// Words of hyper's errors, and what they mean to a client.
const WORDS: [(&str, &str); 6] = [
    ("method", "the method is malformed"),
    ("URI", "the target is malformed"),
    ("version", "the version is not one of HTTP"),
    ("content-length", "Content-Length is malformed"),
    ("transfer-encoding", "Transfer-Encoding is malformed"),
    ("header", "a header line is malformed"),
];
/// Octets that are looked through for the log.
const MOST_READ: usize = 4 * 1024;
const LONGEST_METHOD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_what_can_be_read() {
        let read = head(b"\r\nPOST /a?b HTTP/1.1\r\nX: 1\r\nHost: shop.test\r\nbad line\r\n");
        assert_eq!((read.method.as_str(), read.uri.path(), read.uri.query()), ("POST", "/a", Some("b")));
        assert_eq!(read.headers["host"], "shop.test");
        for octets in [&b"\x16\x03\x01\x02"[..], b"", b"GET", b"GET \xff HTTP/1.1\r\nHost\r\n"] {
            assert_eq!(head(octets).uri, "*", "{octets:?}");
        }
    }
}
