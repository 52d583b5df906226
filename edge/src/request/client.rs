//! The client of a request: its address for limits, logs and upstreams, and whether its own connection is encrypted.
//!
//! Owns reading `Forwarded` (RFC 7239), `X-Forwarded-For` and `X-Forwarded-Proto`. Promises: a header counts only as far
//! as an unbroken chain of trusted proxies reaches, counted from our own socket; whatever a client writes itself is never
//! believed, and so neither is a field that the proxies do not maintain. Never resolves names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use crate::{
    message::{affinity::number_of, target::Scheme},
    settings::{ClientSettings, ForwardedBy},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client of one request, or the peer of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address: the peer's own, or what trusted proxies say. IPv4-mapped IPv6 is shown as IPv4.
    pub address: IpAddr,
    /// Whether its connection is encrypted: the peer's own, or the one that trusted proxies say it made to them.
    pub scheme: Scheme,
}

impl Client {
    /// The key under which limits count the client.
    pub fn key(&self) -> ClientKey {
        ClientKey::from(self.address)
    }

    /// A number that no other client has. A trusted proxy that names no client has none: it stands for many.
    pub fn own_number(&self, settings: &ClientSettings) -> Option<u128> {
        ClientKey::own_number_at(self.address, settings)
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

impl ClientKey {
    /// The own number of who comes from this address; none of a trusted proxy, which stands for many.
    pub fn own_number_at(address: IpAddr, settings: &ClientSettings) -> Option<u128> {
        let address = address.to_canonical();
        (!settings.trusts(address)).then(|| Self::from(address).own_number())
    }

    /// A number for the client that no other has.
    pub fn own_number(self) -> u128 {
        match self {
            Self::V4(bits) => u128::from(bits),
            Self::V6(bits) => 1 << 64 | u128::from(bits),
        }
    }

    /// A number for the client, the same in every edge and after every start.
    pub fn number(self) -> u64 {
        match self {
            Self::V4(bits) => number_of(&bits.to_be_bytes()),
            Self::V6(bits) => number_of(&bits.to_be_bytes()),
        }
    }
}

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> ClientKey {
        match address.to_canonical() {
            IpAddr::V4(address) => ClientKey::V4(address.to_bits()),
            IpAddr::V6(address) => ClientKey::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// The client of a request that came from `peer` with `headers`, where trusted proxies may name another.
///
/// Walks the hops from the nearest to the farthest: while the hop reached is trusted, the one it names is next. A hop
/// that is unknown, hidden or malformed ends the walk at the trusted address that named it. Only the field that the
/// settings name is read: most proxies maintain one and pass the client's version of the other through.
pub fn identify(peer: Client, headers: &HeaderMap, settings: &ClientSettings) -> Client {
    let mut client = Client { address: peer.address.to_canonical(), ..peer };
    if !settings.trusts(client.address) {
        return client;
    }
    let mut hops = Hops::of(headers, settings.forwarded_by);
    while settings.trusts(client.address) {
        let hop = hops.next();
        client.scheme = hop.scheme.unwrap_or(client.scheme);
        let Some(address) = hop.address else { break };
        client.address = address;
    }
    client
}

/// The hops that the header fields name, nearest first.
enum Hops<'a> {
    Forwarded(Elements<'a>),
    /// Addresses, and schemes: each proxy adds to the list, or the first one's word is passed on alone.
    XForwarded(Elements<'a>, Elements<'a>),
}

/// What a proxy says of whoever asked it.
struct Hop {
    /// `None` where it cannot be used.
    address: Option<IpAddr>,
    /// `None` where it is not said: then as the nearer hop says.
    scheme: Option<Scheme>,
}

impl<'a> Hops<'a> {
    fn of(headers: &'a HeaderMap, by: ForwardedBy) -> Hops<'a> {
        let elements = |name| Elements::of(headers, name);
        match by {
            ForwardedBy::Forwarded => Hops::Forwarded(elements(FORWARDED)),
            ForwardedBy::XForwardedFor => {
                Hops::XForwarded(elements(X_FORWARDED_FOR), elements(X_FORWARDED_PROTO))
            }
        }
    }

    fn next(&mut self) -> Hop {
        match self {
            Hops::Forwarded(elements) => {
                let element = elements.next().unwrap_or_default();
                let said = |name| parameter(element, name);
                Hop { address: said("for").and_then(node), scheme: said("proto").and_then(scheme) }
            }
            Hops::XForwarded(addresses, schemes) => {
                Hop { address: addresses.next().and_then(node), scheme: schemes.next().and_then(scheme) }
            }
        }
    }
}

/// A scheme by its name; WebSocket's are those of the connection that it is spoken over (RFC 6455 §11.1).
fn scheme(name: &str) -> Option<Scheme> {
    let is = |known: &&str| name.eq_ignore_ascii_case(known);
    if ["https", "wss"].iter().any(is) {
        Some(Scheme::Https)
    } else if ["http", "ws"].iter().any(is) {
        Some(Scheme::Http)
    } else {
        None
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

/// The value of a parameter that one element of `Forwarded` has exactly once (RFC 7239 §4).
fn parameter<'e>(element: &'e str, wanted: &str) -> Option<&'e str> {
    // Neither an address nor a scheme needs an escape (§6), and without escapes a quote is a quote.
    if element.contains('\\') {
        return None;
    }
    let mut quoted = false;
    let pairs = element.split(|character| {
        quoted ^= character == '"';
        character == ';' && !quoted
    });
    let mut values = pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim());
    let (only, None) = (values.next()?, values.next()) else { return None };
    Some(only.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(only))
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

    fn behind(proxies: &str, forwarded_by: ForwardedBy) -> ClientSettings {
        let trusted_proxies = vec![proxies.parse().unwrap()];
        ClientSettings { trusted_proxies, forwarded_by, ..ClientSettings::default() }
    }

    fn peer(address: IpAddr) -> Client {
        Client { address, scheme: Scheme::Http }
    }

    /// The client behind 10.0.0.0/8 that maintains one field, with a peer in that network.
    fn named_by(field: ForwardedBy, lines: &[(&'static str, &str)]) -> Client {
        identify(peer(address("10.0.0.1")), &headers(lines), &behind("10.0.0.0/8", field))
    }

    /// The address of the client that the only field names.
    fn behind_proxies(lines: &[(&'static str, &str)]) -> String {
        let forwarded = lines.iter().any(|(name, _)| *name == "forwarded");
        let field = if forwarded { ForwardedBy::Forwarded } else { ForwardedBy::XForwardedFor };
        named_by(field, lines).address.to_string()
    }

    #[test]
    fn a_stranger_speaks_for_nobody() {
        let lines = headers(&[("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=192.0.2.9")]);
        for field in FIELDS {
            let client = identify(peer(address("203.0.113.5")), &lines, &behind("10.0.0.0/8", field));
            assert_eq!(client, peer(address("203.0.113.5")));
        }
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

    /// Both fields were read, so that a client behind a proxy that maintains one made itself any trusted address, or the
    /// proxy's own, by sending the other.
    #[test]
    fn only_the_field_that_the_proxies_maintain_is_believed() {
        let lines = [("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=127.0.0.1;proto=https")];
        let client = named_by(ForwardedBy::XForwardedFor, &lines);
        assert_eq!((client.address, client.scheme), (address("192.0.2.9"), Scheme::Http));
        let lines = [
            ("forwarded", "for=192.0.2.9"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
        ];
        let client = named_by(ForwardedBy::Forwarded, &lines);
        assert_eq!((client.address, client.scheme), (address("192.0.2.9"), Scheme::Http));
    }

    /// The field was dropped: behind whatever terminates TLS an app redirected to https for ever.
    #[test]
    fn trusted_proxies_say_whether_the_clients_connection_is_encrypted() {
        let by_x = |client: &str, proto: &str| {
            let lines = [("x-forwarded-for", client), ("x-forwarded-proto", proto)];
            named_by(ForwardedBy::XForwardedFor, &lines).scheme
        };
        assert_eq!(by_x("192.0.2.9", "https"), Scheme::Https);
        assert_eq!(by_x("192.0.2.9", "WSS"), Scheme::Https);
        assert_eq!(by_x("192.0.2.9", "https, http"), Scheme::Http, "the client wrote the first");
        assert_eq!(by_x("192.0.2.9, 10.2.2.2", "https, http"), Scheme::Https, "two proxies, each wrote one");
        assert_eq!(by_x("192.0.2.9, 10.2.2.2", "https"), Scheme::Https, "passed on by the second");
        assert_eq!(by_x("192.0.2.9", "gopher"), Scheme::Http);
        let forwarded = |text| named_by(ForwardedBy::Forwarded, &[("forwarded", text)]).scheme;
        assert_eq!(forwarded("for=192.0.2.9;proto=https"), Scheme::Https);
        assert_eq!(forwarded("for=unknown;proto=\"HTTPS\""), Scheme::Https);
        assert_eq!(forwarded("for=6.6.6.6;proto=https, for=192.0.2.9"), Scheme::Http);
        let lines = headers(&[("x-forwarded-proto", "https")]);
        let settings = behind("10.0.0.0/8", ForwardedBy::XForwardedFor);
        assert_eq!(identify(peer(address("192.0.2.9")), &lines, &settings).scheme, Scheme::Http);
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_socket_is_an_ipv4_client() {
        let settings = behind("10.0.0.0/8", ForwardedBy::XForwardedFor);
        let lines = headers(&[("x-forwarded-for", "::ffff:192.0.2.9")]);
        let client = identify(peer(address("::ffff:10.0.0.1")), &lines, &settings);
        assert_eq!(client.address, address("192.0.2.9"));
        assert_eq!(ClientKey::from(address("::ffff:192.0.2.9")), ClientKey::from(address("192.0.2.9")));
    }

    #[test]
    fn ipv6_clients_are_counted_by_their_64() {
        let key = |text| ClientKey::from(address(text));
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    const FIELDS: [ForwardedBy; 2] = [ForwardedBy::XForwardedFor, ForwardedBy::Forwarded];

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
        let name = prop::sample::select(vec![FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO]);
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
        fn nothing_an_untrusted_peer_sends_matters(headers in any_headers(), address in any::<u32>()) {
            let one = peer(IpAddr::V4(address.into()));
            for field in FIELDS {
                let settings = behind("10.0.0.0/8", field);
                prop_assume!(!settings.trusted_proxies[0].contains(&one.address));
                prop_assert_eq!(identify(one, &headers, &settings), one);
            }
        }

        #[test]
        fn nothing_a_trusted_peer_sends_makes_it_panic(headers in any_headers()) {
            for field in FIELDS {
                identify(peer(address("10.0.0.1")), &headers, &behind("10.0.0.0/8", field));
            }
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
