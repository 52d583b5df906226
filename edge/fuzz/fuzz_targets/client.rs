//! Forwarded, X-Forwarded-For and X-Forwarded-Proto. No input panics; nobody who is not trusted speaks for anyone.
#![no_main]

use edge::{
    message::target::Scheme,
    request::client::{Client, identify},
    settings::{ClientSettings, ForwardedBy},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;

const FIELDS: [HeaderName; 3] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
];

fuzz_target!(|input: ([u8; 4], bool, Vec<(u8, &[u8])>)| {
    let (peer, standard, lines) = input;
    let peer = Client { address: IpAddr::from(peer), scheme: Scheme::Http };
    let mut headers = HeaderMap::new();
    for (which, value) in lines {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(FIELDS[usize::from(which) % FIELDS.len()].clone(), value);
        }
    }
    let trusted: [IpNet; 2] =
        ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().expect("a network"));
    let trusts = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let forwarded_by = if standard { ForwardedBy::Forwarded } else { ForwardedBy::XForwardedFor };
    let nobody = ClientSettings { forwarded_by, ..ClientSettings::default() };
    let some = ClientSettings { trusted_proxies: trusted.to_vec(), ..nobody.clone() };
    assert!(trusts(&peer.address) || identify(peer, &headers, &some) == peer);
    assert_eq!(identify(peer, &headers, &nobody), peer);
    assert_eq!(identify(peer, &HeaderMap::new(), &some), peer);
});
