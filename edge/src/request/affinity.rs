//! What binds a request to one server, where its upstream's settings ask for it. The path and fields are read by the upstream,
//! as they are sent; what is the client's own is read here.

use http::{HeaderMap, header};

use super::client::Client;
use crate::{
    message::affinity::{Affinity, number_of},
    settings::{Balance, HashKey},
};

/// What binds this client's request. An IPv6 client is counted by its /64, as for limits.
pub fn of(balance: &Balance, headers: &HeaderMap, client: &Client) -> Affinity {
    match balance {
        Balance::Hash(HashKey::Client) => Affinity::Hash(client.key().number()),
        Balance::Hash(HashKey::Cookie(name)) => {
            cookie(headers, name).map_or(Affinity::None, |value| Affinity::Hash(number_of(value)))
        }
        Balance::Sticky(name) => {
            let id = cookie(headers, name).and_then(|value| std::str::from_utf8(value).ok());
            let id = id.and_then(|id| u64::from_str_radix(id, 16).ok());
            id.map_or(Affinity::None, Affinity::Server)
        }
        Balance::Hash(HashKey::Path | HashKey::Header(_)) | Balance::TwoChoices | Balance::RoundRobin => {
            Affinity::None
        }
    }
}

/// The value of the first cookie of this name (RFC 6265 §5.4).
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs =
        lines.flat_map(|line| line.as_bytes().split(|octet| *octet == b';')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::target::Scheme;

    fn client(address: &str) -> Client {
        Client { address: address.parse().unwrap(), scheme: Scheme::Http }
    }

    fn affinity(balance: &Balance, cookies: &'static str, address: &str) -> Affinity {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, http::HeaderValue::from_static(cookies));
        of(balance, &headers, &client(address))
    }

    #[test]
    fn clients_are_bound_by_their_address() {
        let by_client = |address: &str| affinity(&Balance::Hash(HashKey::Client), "a=b", address);
        assert_eq!(by_client("10.0.0.1"), by_client("10.0.0.1"));
        assert_ne!(by_client("10.0.0.1"), by_client("10.0.0.2"));
        assert_eq!(by_client("2001:db8::1"), by_client("2001:db8::2"), "one subscriber");
    }

    #[test]
    fn sessions_are_bound_by_their_cookie() {
        let balance = Balance::Hash(HashKey::Cookie("session".into()));
        let by_cookie = |cookies| affinity(&balance, cookies, "10.0.0.1");
        assert_eq!(by_cookie("a=b; session=7"), by_cookie("session=7"));
        assert_ne!(by_cookie("session=8"), by_cookie("session=7"));
        assert_eq!(by_cookie("sessions=8"), Affinity::None);
    }

    #[test]
    fn a_sticky_cookie_names_its_server() {
        let balance = Balance::Sticky("server".into());
        assert_eq!(affinity(&balance, "server=ff", "10.0.0.1"), Affinity::Server(255));
        for none in ["server=", "server=x", "server=11112222333344445", "a=b"] {
            assert_eq!(affinity(&balance, none, "10.0.0.1"), Affinity::None, "{none}");
        }
    }
}
