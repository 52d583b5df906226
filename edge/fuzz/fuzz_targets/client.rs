//! Forwarded and X-Forwarded-For. No input panics; nobody who is not trusted speaks for anyone.
#![no_main]

use edge::request::client::identify;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;

const FIELDS: [HeaderName; 2] = [header::FORWARDED, HeaderName::from_static("x-forwarded-for")];

fuzz_target!(|input: ([u8; 4], Vec<(bool, &[u8])>)| {
    let (peer, lines) = input;
    let peer = IpAddr::from(peer);
    let mut headers = HeaderMap::new();
    for (which, value) in lines {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(FIELDS[usize::from(which)].clone(), value);
        }
    }
    let trusted: [IpNet; 2] =
        ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().expect("a network"));
    let trusts = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let client = identify(peer, &headers, &trusted);
    assert!(trusts(&peer) || client.address == peer && !client.forwarded);
    assert_eq!(identify(peer, &headers, &[]).address, peer);
    assert_eq!(identify(peer, &HeaderMap::new(), &trusted).address, peer);
});
