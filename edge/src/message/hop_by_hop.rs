//! Fields of one connection only (RFC 9110 §7.6): removed from every forwarded message, both ways.

use cache_policy::list_elements;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::settings::UpgradeProtocol;

/// The edge's own entry in `Via` (RFC 9110 §7.6.3) for a message received in this version.
pub fn via(received: Version) -> HeaderValue {
    HeaderValue::from_static(match received {
        Version::HTTP_10 => "1.0 gatehouse",
        Version::HTTP_2 => "2 gatehouse",
        _ => "1.1 gatehouse",
    })
}

/// Removes the fields of one connection only (RFC 9110 §7.6.1), nominated fields included.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_nominated(headers);
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Removes what `Connection` nominates, but not the fields that are of one connection anyway. Of a request this comes
/// before anything is decided by its fields: a nominated field is not sent on, so nobody else's answer may depend on
/// it. Costs nothing where nothing is nominated.
pub fn strip_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let is_nominated = |name: &&[u8]| std::str::from_utf8(name).is_ok_and(|name| headers.contains_key(name));
    let nominated: Vec<HeaderName> = list_elements(headers, &header::CONNECTION)
        .filter(is_nominated)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        // Nominating these would let a client hide them from us after we have acted upon them.
        .filter(|name| !is_hop_by_hop(name) && !KEPT.contains(name))
        .collect();
    for name in &nominated {
        headers.remove(name);
    }
}

/// Whether a name is one (RFC 9110 §5.6.2). `http` takes `"` for a character of names, and with it h2.
pub fn is_token(name: &HeaderName) -> bool {
    !name.as_str().as_bytes().contains(&b'"')
}

/// Whether a field is of one connection only, nominated or not.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// What an HTTP/1.1 client asks to switch to (RFC 9110 §7.8), on a connection that can.
pub fn upgrade_asked(version: Version, headers: &HeaderMap) -> Option<&HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let named = list_elements(headers, &header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    (version == Version::HTTP_11 && named).then_some(protocol)
}

/// Whether it is one of these alone: a list, or anything else, is ignored, as a server may.
pub fn is_upgrade_to(protocol: &HeaderValue, allowed: &[UpgradeProtocol]) -> bool {
    allowed.iter().any(|allowed| allowed.is(protocol.as_bytes()))
}

const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Never removed by being named in `Connection`.
const KEPT: [HeaderName; 9] = [
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::FORWARDED,
    header::VARY,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nominated_fields_go_but_not_those_the_edge_acts_upon() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close, X-Hop, Cookie"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("cookie", HeaderValue::from_static("a=1"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["cookie"]);
    }
}
