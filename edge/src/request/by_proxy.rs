//! What a trusted proxy says of a request beside who its client is ([`super::client`]): its id, and how long it waits for an
//! answer.
//!
//! Promises: only the peer of our own socket is asked, and only if it is trusted; what it says is bounded, or as if unsaid.

use std::{net::IpAddr, time::Duration};

use http::HeaderMap;

use crate::{
    message::{
        patience::REQUEST_DEADLINE,
        request_id::{RequestId, X_REQUEST_ID},
    },
    settings::ClientSettings,
};

/// The id of a request that came from `peer`: the one that a trusted proxy states, or a new one.
pub fn request_id(peer: IpAddr, headers: &HeaderMap, settings: &ClientSettings) -> RequestId {
    let stated = || {
        let mut lines = headers.get_all(X_REQUEST_ID).iter();
        // Of several nobody knows which is the proxy's own.
        let (Some(only), None) = (lines.next(), lines.next()) else { return None };
        RequestId::of_peer(only)
    };
    let stated = if settings.trusts(peer.to_canonical()) { stated() } else { None };
    stated.unwrap_or_else(RequestId::next)
}

/// How long a trusted proxy waits for the answer's head, from the request's end, where it says so: in whole milliseconds.
pub fn patience(peer: IpAddr, headers: &HeaderMap, settings: &ClientSettings) -> Option<Duration> {
    let mut lines = headers.get_all(REQUEST_DEADLINE).iter();
    let (Some(only), None) = (lines.next(), lines.next()) else { return None };
    if !settings.trusts(peer.to_canonical()) || !only.as_bytes().iter().all(u8::is_ascii_digit) {
        return None;
    }
    only.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn settings() -> ClientSettings {
        ClientSettings { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..ClientSettings::default() }
    }

    fn id(peer: &str, lines: &[&'static str]) -> String {
        let lines = lines.iter().map(|line| (X_REQUEST_ID, HeaderValue::from_static(line)));
        request_id(peer.parse().unwrap(), &lines.collect(), &settings()).to_string()
    }

    #[test]
    fn a_trusted_proxys_id_is_taken_and_nobody_elses() {
        assert_eq!(id("10.0.0.1", &["abc-1"]), "abc-1");
        assert_eq!(id("::ffff:10.0.0.1", &["abc-1"]), "abc-1");
        for (peer, lines) in [
            ("192.0.2.1", &["abc-1"][..]),
            ("10.0.0.1", &[]),
            ("10.0.0.1", &["a b"]),
            ("10.0.0.1", &["abc-1", "abc-2"]),
        ] {
            assert_eq!(id(peer, lines).len(), 32, "{peer} {lines:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxys_readable_deadline_counts() {
        let told = |peer: &str, lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (REQUEST_DEADLINE, HeaderValue::from_static(line)));
            patience(peer.parse().unwrap(), &lines.collect(), &settings())
        };
        assert_eq!(told("10.0.0.1", &["1500"]), Some(Duration::from_millis(1500)));
        assert_eq!(told("10.0.0.1", &["0"]), Some(Duration::ZERO));
        for lines in [&[][..], &[""], &["+1"], &["1s"], &["-1"], &["1", "1"], &["99999999999999999999"]] {
            assert_eq!(told("10.0.0.1", lines), None, "{lines:?}");
        }
        assert_eq!(told("192.0.2.1", &["1500"]), None);
    }
}
