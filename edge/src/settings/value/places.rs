//! Addresses, networks, hosts, servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cache_policy::one_host;
use ipnet::IpNet;

use super::{Unreadable, Value};
use crate::settings::{AdminAddress, AllowedOrigins, HostPattern, OriginPattern, notation::Notation};

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address such as \"[::]:8080\"";

    fn notation() -> Notation {
        Notation::pattern(".+:[0-9]+")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        text.parse().map_err(|_| {
            Unreadable::new(
                format!("{text:?} is no address with a port"),
                "write \"[::]:8080\" (everywhere), \"127.0.0.1:8080\" or \"[2001:db8::1]:8080\"",
            )
        })
    }
}

impl Value for AdminAddress {
    const EXPECTED: &'static str =
        "an address such as \"127.0.0.1:9900\" or \"unix:/run/gatehouse/admin.sock\"";

    fn notation() -> Notation {
        Notation::pattern("unix:.+|.+:[0-9]+")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `sun_path`, its end and the suffix under which the socket is made (unix(7)).
            const LONGEST: usize = 103;
            return if path.is_empty() || path.ends_with('/') || path.len() > LONGEST {
                Err(Unreadable::new(
                    format!("{text:?} names no socket"),
                    format!(
                        "write a file of at most {LONGEST} bytes, such as \"unix:/run/gatehouse/admin.sock\""
                    ),
                ))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let refused = |_| {
            Unreadable::new(
                format!("{text:?} is no address with a port, nor a Unix socket"),
                "write \"127.0.0.1:9900\" or \"unix:/run/gatehouse/admin.sock\"",
            )
        };
        text.parse().map(Self::Network).map_err(refused)
    }
}

/// Who sends PROXY headers: `true` for everyone, or addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::settings) struct ProxyPeers(pub(in crate::settings) Vec<IpNet>);

impl Value for ProxyPeers {
    const EXPECTED: &'static str = "true, false, or networks such as [\"10.0.0.0/8\"]";

    fn notation() -> Notation {
        Notation::Either(vec![Notation::Boolean, Notation::List(Box::new(IpNet::notation()), 1)])
    }

    fn from_boolean(on: bool) -> Result<Self, Unreadable> {
        let everyone = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let everyone = everyone.map(|none| IpNet::new(none, 0).expect("no prefix is shorter"));
        Ok(Self(if on { everyone.to_vec() } else { Vec::new() }))
    }

    fn from_list(list: Vec<String>) -> Result<Self, Unreadable> {
        if list.is_empty() {
            return Err(Unreadable::new(
                "an empty list would let nobody connect",
                "name the load balancers, as in [\"10.0.0.0/8\"], or write false",
            ));
        }
        let networks = list.iter().map(|text| Ok(IpNet::from_text(text)?.trunc()));
        networks.collect::<Result<_, _>>().map(Self)
    }
}

impl Value for IpNet {
    const EXPECTED: &'static str = "a network such as \"10.0.0.0/8\"";

    fn notation() -> Notation {
        Notation::pattern("[0-9a-fA-F:.]+(/[0-9]+)?")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        network.ok_or_else(|| {
            Unreadable::new(
                format!("{text:?} is no network"),
                "write an address or a network: \"10.0.0.7\", \"10.0.0.0/8\", \"2001:db8::/32\"",
            )
        })
    }
}

impl Value for HostPattern {
    const EXPECTED: &'static str = "a host such as \"shop.example\" or \"*.shop.example\"";

    fn notation() -> Notation {
        Notation::pattern(r"(\*\.)?[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = |help: &str| Unreadable::new(format!("{text:?} is no host"), help);
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(bad(
                "a star stands for all that is below a host, as in \"*.shop.example\"; leave `hosts` out to match every host",
            ));
        }
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(literal) = literal.filter(|_| !below) {
            let address = literal.parse::<Ipv6Addr>();
            address.map_err(|_| bad("between brackets stands an IPv6 address"))?;
            return Ok(Self::Exact(one_host(name)));
        }
        if name.contains(':') {
            return Err(bad("write the host without scheme and port; an IPv6 address stands in brackets"));
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(known) {
            return Err(bad("write a name such as \"shop.example\" (punycode for other scripts)"));
        }
        let name = one_host(name);
        Ok(if below { Self::Below(format!(".{name}").into()) } else { Self::Exact(name) })
    }
}

impl Value for AllowedOrigins {
    const EXPECTED: &'static str = "origins such as [\"https://app.example\"], or \"*\"";

    fn notation() -> Notation {
        Notation::Either(vec![
            Notation::Words(vec!["*"]),
            Notation::pattern("https?://[^/?#@]+").one_or_several(),
        ])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        if text == "*" { Ok(Self::Any) } else { origin_pattern(text).map(|one| Self::These(vec![one])) }
    }

    fn from_list(list: Vec<String>) -> Result<Self, Unreadable> {
        if list.is_empty() {
            return Err(Unreadable::new("an empty list allows nobody", "leave `cors` out"));
        }
        list.iter().map(|text| origin_pattern(text)).collect::<Result<_, _>>().map(Self::These)
    }
}

fn origin_pattern(text: &str) -> Result<OriginPattern, Unreadable> {
    let bad = |help: &str| Unreadable::new(format!("{text:?} is no origin"), help);
    const HELP: &str = "write scheme and host as browsers do, as in \"https://app.example\", \"http://localhost:3000\" or \
                        \"https://*.example.org\"";
    let rest = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| bad(HELP))?;
    if text == "null" || rest.contains(['/', '?', '#', '@']) {
        return Err(bad("an origin has no path, no query and no user"));
    }
    let (host, port) =
        match rest.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !rest.ends_with(']')) {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(bad("after the colon stands a port"));
    }
    let default = if text.starts_with("https") { "443" } else { "80" };
    if port == Some(default) {
        return Err(bad("leave the port out: browsers do, where it is the scheme's own"));
    }
    HostPattern::from_text(host).map_err(|_| bad(HELP))?;
    Ok(OriginPattern::new(&text.to_ascii_lowercase()))
}

/// One host, in its one spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Host(pub(in crate::settings) Box<str>);

impl Value for Host {
    const EXPECTED: &'static str = "a host such as \"shop.example\"";

    fn notation() -> Notation {
        Notation::pattern(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        match HostPattern::from_text(text) {
            Ok(HostPattern::Exact(host)) => Ok(Self(host)),
            Err(refused) if !text.contains('*') => Err(refused),
            _ => Err(Unreadable::new(format!("{text:?} is no host"), "hosts are written in full here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route for the host `shop.test.` never met a request: requests have one spelling.
    #[test]
    fn routes_name_hosts_in_any_spelling() {
        for (written, named) in [("Shop.Test.", "shop.test"), ("[2001:DB8:0::1]", "[2001:db8::1]")] {
            let named = HostPattern::Exact(named.into());
            assert_eq!(HostPattern::from_text(written).ok(), Some(named), "{written}");
        }
        assert_eq!(
            HostPattern::from_text("*.Shop.test.").ok(),
            Some(HostPattern::Below(".shop.test".into()))
        );
        for bad in ["*", "*.", "a.*", "*shop.test", "*.*.test", "*.[::1]"] {
            assert_eq!(HostPattern::from_text(bad).ok(), None, "{bad}");
        }
    }
}
