//! How a server is told who the client is, before anything else on a connection: HAProxy's PROXY protocol.
//!
//! Promises: a connection that begins so carries one request, so that nobody else's is taken for this client's.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use proxy_header::{ProxiedAddress, ProxyHeader};

use crate::settings::ProxyProtocol;

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's own. Port 0 where only its address is known.
    pub source: SocketAddr,
    /// Where it has reached us, or the load balancer that introduced it.
    pub destination: SocketAddr,
}

/// What a connection begins with: for a client between these ends, or for the edge's own request where there are none.
/// `None` where the servers are told nothing.
pub fn introduction(protocol: ProxyProtocol, ends: Option<Ends>) -> Option<Bytes> {
    if protocol == ProxyProtocol::Off {
        return None;
    }
    let header = match ends.map(of_one_family) {
        Some(Ends { source, destination }) => {
            ProxyHeader::with_address(ProxiedAddress::stream(source, destination))
        }
        None => ProxyHeader::with_local(),
    };
    let mut octets = Vec::new();
    let encoded = match protocol {
        ProxyProtocol::Off | ProxyProtocol::V1 => header.encode_v1(&mut octets),
        ProxyProtocol::V2 => header.encode_v2(&mut octets),
    };
    encoded.expect("two addresses of one family can be written in both versions");
    Some(octets.into())
}

/// The protocol knows no pair of an IPv4 and an IPv6 address: the former is then written as the latter (RFC 4291 §2.5.5.2).
fn of_one_family(Ends { source, destination }: Ends) -> Ends {
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return Ends { source, destination };
    }
    Ends { source: as_ipv6(source), destination: as_ipv6(destination) }
}

fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

fn as_ipv6(end: SocketAddr) -> SocketAddr {
    let address = match end.ip() {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        address @ IpAddr::V6(_) => address,
    };
    SocketAddr::new(address, end.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    #[test]
    fn version_1_is_a_line() {
        for (ends, line) in [
            (between("192.0.2.9:1234", "10.0.0.1:443"), "PROXY TCP4 192.0.2.9 10.0.0.1 1234 443\r\n"),
            (between("[2001:db8::9]:1", "[2001:db8::1]:2"), "PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n"),
            (between("[::ffff:192.0.2.9]:1", "10.0.0.1:443"), "PROXY TCP4 192.0.2.9 10.0.0.1 1 443\r\n"),
            (
                between("192.0.2.9:0", "[2001:db8::1]:443"),
                "PROXY TCP6 ::ffff:192.0.2.9 2001:db8::1 0 443\r\n",
            ),
            (None, "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(introduction(ProxyProtocol::V1, ends).unwrap(), line);
        }
    }

    #[test]
    fn version_2_says_the_same() {
        for ends in [
            between("192.0.2.9:1234", "10.0.0.1:443"),
            between("192.0.2.9:1234", "[2001:db8::1]:443"),
            between("[2001:db8::9]:1", "[2001:db8::1]:2"),
            None,
        ] {
            let octets = introduction(ProxyProtocol::V2, ends).unwrap();
            let (header, length) = ProxyHeader::parse(&octets, Default::default()).unwrap();
            assert_eq!(length, octets.len());
            let said = header.proxied_address().map(|said| (said.source, said.destination));
            assert_eq!(said, ends.map(of_one_family).map(|ends| (ends.source, ends.destination)));
        }
    }

    #[test]
    fn by_default_nothing_is_told() {
        assert_eq!(introduction(ProxyProtocol::Off, between("192.0.2.9:1234", "10.0.0.1:443")), None);
    }
}
