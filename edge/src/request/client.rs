//! The client of a request: its address for limits, logs and upstreams.
//!
//! Owns reading `Forwarded` (RFC 7239) and `X-Forwarded-For`. Promises: a header counts only as far as an unbroken chain
//! of trusted proxies reaches, counted from our own socket; whatever a client writes itself is never believed. Never
//! resolves names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address: the peer's own, or what trusted proxies say. IPv4-mapped IPv6 is shown as IPv4.
    pub address: IpAddr,
}

impl Client {
    /// The key under which limits count the client.
    pub fn key(&self) -> ClientKey {
        ClientKey::from(self.address)
    }
}

/// What limits count a client under: an IPv4 address, or the /64 that one IPv6 subscriber has at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// The whole address.
    V4(u32),
    /// The upper 64 bits.
    V6(u64),
}

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> ClientKey {
        match address.to_canonical() {
            IpAddr::V4(address) => ClientKey::V4(address.to_bits()),
            IpAddr::V6(address) => ClientKey::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// The client of a request that came from `peer` with `headers`, where `trusted` proxies may name others.
///
/// Walks the hops from the nearest to the farthest: while the hop reached is trusted, the one it names is next. A hop
/// that is unknown, hidden or malformed ends the walk at the trusted address that named it. Where both header fields
/// are there they must agree hop by hop, because most proxies maintain one of them and pass the client's version of the
/// other through.
pub fn identify(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let peer = peer.to_canonical();
    let trusts = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut address = peer;
    if trusts(&peer) {
        let mut hops = Hops::of(headers);
        while trusts(&address) {
            let Some(hop) = hops.next() else { break };
            address = hop;
        }
    }
    Client { address }
}

/// The hops that the header fields name, nearest first, up to the first that cannot be used.
enum Hops<'a> {
    Forwarded(Elements<'a>),
    For(Elements<'a>),
    Both(Elements<'a>, Elements<'a>),
    None,
}

impl<'a> Hops<'a> {
    fn of(headers: &'a HeaderMap) -> Hops<'a> {
        let elements = |name| headers.contains_key(&name).then(|| Elements::of(headers, name));
        match (elements(FORWARDED), elements(X_FORWARDED_FOR)) {
            (Some(forwarded), Some(list)) => Hops::Both(forwarded, list),
            (Some(forwarded), None) => Hops::Forwarded(forwarded),
            (None, Some(list)) => Hops::For(list),
            (None, None) => Hops::None,
        }
    }

    fn next(&mut self) -> Option<IpAddr> {
        match self {
            Hops::Forwarded(elements) => forwarded_for(elements.next()?),
            Hops::For(elements) => node(elements.next()?),
            Hops::Both(forwarded, list) => {
                let (one, other) = (forwarded_for(forwarded.next()?)?, node(list.next()?)?);
                (one == other).then_some(one)
            }
            Hops::None => None,
        }
    }
}

/// The elements of a list field, last first, over all its lines.
///
/// Read from the right so that what a client wrote, which stands on the left, cannot change how the part of a trusted
/// proxy is read: an unclosed quote of the client's ends the walk there, not here.
struct Elements<'a> {
    lines: http::header::ValueIter<'a, HeaderValue>,
    rest: Option<&'a str>,
}

impl<'a> Elements<'a> {
    fn of(headers: &'a HeaderMap, name: HeaderName) -> Elements<'a> {
        Elements { lines: headers.get_all(name).iter(), rest: None }
    }

    /// The next element, trimmed; `None` at the end and at a line that is not visible ASCII.
    fn next(&mut self) -> Option<&'a str> {
        let text = match self.rest.take() {
            Some(text) => text,
            None => self.lines.next_back()?.to_str().ok()?,
        };
        let mut quoted = false;
        let comma = text.bytes().rposition(|byte| {
            quoted ^= byte == b'"';
            byte == b',' && !quoted
        });
        let Some(comma) = comma else { return Some(text.trim()) };
        self.rest = Some(&text[..comma]);
        Some(text[comma + 1..].trim())
    }
}

/// The address in one element of `Forwarded` (RFC 7239 §4): the value of its only `for`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    // No address needs an escape (§6), and without escapes a quote is a quote.
    if element.contains('\\') {
        return None;
    }
    let mut quoted = false;
    let pairs = element.split(|character| {
        quoted ^= character == '"';
        character == ';' && !quoted
    });
    let mut nodes = pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
        .map(|(_, value)| value.trim());
    let (only, None) = (nodes.next()?, nodes.next()) else { return None };
    let unquoted = only.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(only);
    node(unquoted)
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80` (RFC 7239 §6). Not
/// `unknown`, nor a name that hides the address.
fn node(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (literal, after) = rest.split_once(']')?;
            let address = IpAddr::V6(literal.parse::<Ipv6Addr>().ok()?);
            if after.is_empty() {
                return Some(address.to_canonical());
            }
            (address, after.strip_prefix(':')?)
        }
        None => {
            let (literal, port) = text.split_once(':')?;
            (IpAddr::V4(literal.parse::<Ipv4Addr>().ok()?), port)
        }
    };
    // §6.3: a port may be hidden too.
    let known = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (known || port.starts_with('_')).then(|| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(line).collect()
    }

    /// The client's address behind 10.0.0.0/8, with a peer in that network.
    fn behind_proxies(lines: &[(&'static str, &str)]) -> String {
        identify(address("10.0.0.1"), &headers(lines), &["10.0.0.0/8".parse().unwrap()]).address.to_string()
    }

    #[test]
    fn a_stranger_speaks_for_nobody() {
        let lines = headers(&[("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=192.0.2.9")]);
        let client = identify(address("203.0.113.5"), &lines, &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(client, Client { address: address("203.0.113.5") });
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_client() {
        assert_eq!(behind_proxies(&[("x-forwarded-for", "198.51.100.1, 192.0.2.9, 10.2.2.2")]), "192.0.2.9");
        assert_eq!(
            behind_proxies(&[("forwarded", "for=198.51.100.1, for=192.0.2.9;proto=https")]),
            "192.0.2.9"
        );
        let lines = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-for", "10.9.9.9"),
        ];
        assert_eq!(behind_proxies(&lines), "192.0.2.9");
    }

    #[test]
    fn a_chain_of_trusted_hops_ends_at_its_first_member() {
        assert_eq!(behind_proxies(&[("x-forwarded-for", "10.3.3.3, 10.2.2.2")]), "10.3.3.3");
        assert_eq!(behind_proxies(&[]), "10.0.0.1");
    }

    #[test]
    fn a_malformed_hop_ends_the_walk_at_the_last_trusted_one() {
        for bad in [
            "nonsense",
            "",
            "unknown",
            "192.0.2.9:port",
            "192.0.2",
            "[2001:db8::1",
            "[2001:db8::1]x",
            "192.0.2.9 x",
        ] {
            assert_eq!(
                behind_proxies(&[("x-forwarded-for", &format!("198.51.100.1, {bad}, 10.2.2.2"))]),
                "10.2.2.2",
                "{bad}"
            );
        }
        for bad in [
            "for=unknown",
            "for=_hidden",
            "by=192.0.2.9",
            "for=192.0.2.9;for=192.0.2.8",
            "for=\"192.0.2.\\9\"",
        ] {
            assert_eq!(
                behind_proxies(&[("forwarded", &format!("for=198.51.100.1, {bad}"))]),
                "10.0.0.1",
                "{bad}"
            );
        }
    }

    #[test]
    fn addresses_come_with_ports_brackets_and_quotes() {
        for (written, client) in [
            ("for=192.0.2.9", "192.0.2.9"),
            ("For=\"192.0.2.9:4711\"", "192.0.2.9"),
            ("proto=https;for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=\"[2001:db8::1]\";by=\"a,b;c\"", "2001:db8::1"),
            ("for=\"[::ffff:192.0.2.9]:_port\"", "192.0.2.9"),
        ] {
            assert_eq!(behind_proxies(&[("forwarded", written)]), client, "{written}");
        }
        for (written, client) in [
            ("192.0.2.9:80", "192.0.2.9"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
        ] {
            assert_eq!(behind_proxies(&[("x-forwarded-for", written)]), client, "{written}");
        }
    }

    #[test]
    fn a_quote_the_client_left_open_does_not_swallow_the_proxys_element() {
        assert_eq!(behind_proxies(&[("forwarded", "for=\"198.51.100.1, for=192.0.2.9")]), "192.0.2.9");
    }

    #[test]
    fn where_the_two_fields_disagree_neither_is_believed() {
        let agreed =
            [("x-forwarded-for", "192.0.2.9, 10.2.2.2"), ("forwarded", "for=192.0.2.9, for=10.2.2.2")];
        assert_eq!(behind_proxies(&agreed), "192.0.2.9");
        let spoofed =
            [("x-forwarded-for", "192.0.2.9, 10.2.2.2"), ("forwarded", "for=198.51.100.1, for=10.2.2.2")];
        assert_eq!(behind_proxies(&spoofed), "10.2.2.2");
        assert_eq!(behind_proxies(&[("x-forwarded-for", "192.0.2.9"), ("forwarded", "")]), "10.0.0.1");
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_socket_is_an_ipv4_client() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let lines = headers(&[("x-forwarded-for", "::ffff:192.0.2.9")]);
        assert_eq!(identify(address("::ffff:10.0.0.1"), &lines, &trusted).address, address("192.0.2.9"));
        assert_eq!(ClientKey::from(address("::ffff:192.0.2.9")), ClientKey::from(address("192.0.2.9")));
    }

    #[test]
    fn ipv6_clients_are_counted_by_their_64() {
        let key = |text| ClientKey::from(address(text));
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    fn any_line() -> impl Strategy<Value = HeaderValue> {
        let piece = prop::sample::select(vec![
            "for=",
            "\"",
            ",",
            ";",
            "10.0.0.2",
            "192.0.2.9",
            "[",
            "]",
            ":",
            "2001:db8::1",
            "\\",
            " ",
            "_x",
            "=",
            "unknown",
            "é",
        ]);
        let pieces = prop::collection::vec(piece, 0..12);
        pieces.prop_map(|pieces| HeaderValue::from_bytes(pieces.concat().as_bytes()).unwrap())
    }

    fn any_headers() -> impl Strategy<Value = HeaderMap> {
        let name = prop::sample::select(vec![FORWARDED, X_FORWARDED_FOR]);
        prop::collection::vec((name, any_line()), 0..5).prop_map(|lines| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, value);
            }
            headers
        })
    }

    proptest! {
        #[test]
        fn nothing_an_untrusted_peer_sends_matters(headers in any_headers(), peer in any::<u32>()) {
            let peer = IpAddr::V4(peer.into());
            prop_assume!(!"10.0.0.0/8".parse::<IpNet>().unwrap().contains(&peer));
            let client = identify(peer, &headers, &["10.0.0.0/8".parse().unwrap()]);
            prop_assert_eq!(client, Client { address: peer });
        }

        #[test]
        fn nothing_a_trusted_peer_sends_makes_it_panic(headers in any_headers()) {
            identify(address("10.0.0.1"), &headers, &["10.0.0.0/8".parse().unwrap()]);
        }

        #[test]
        fn what_stands_left_of_a_trusted_proxys_element_never_matters(written in "[ -~]{0,40}") {
            let list = format!("{written}, 192.0.2.9");
            prop_assert_eq!(behind_proxies(&[("x-forwarded-for", &list)]), "192.0.2.9");
            let forwarded = format!("{written}, for=192.0.2.9");
            prop_assert_eq!(behind_proxies(&[("forwarded", &forwarded)]), "192.0.2.9");
        }
    }
}
