//! Who asks: the peer, or whom a proxy of ours names in `X-Forwarded-For`. Nobody else is believed.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use http::request::Parts;

use crate::shop::Shop;

/// The client's address. An IPv6 customer owns a /64, so its network is what names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client(Option<IpAddr>);

impl Client {
    /// The name to count by; empty when there is no address.
    pub(crate) fn text(self) -> String {
        match self.0.map(|address| address.to_canonical()) {
            None => String::new(),
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).to_string()
            }
        }
    }

    fn find(peer: Option<IpAddr>, forwarded: Option<&str>, proxies: &[IpAddr]) -> Self {
        // Without a peer the request was made in this process.
        if peer.is_none_or(|peer| proxies.contains(&peer.to_canonical())) {
            // The last entry is the one our own proxy has written.
            let named = forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
            return Self(named.or(peer));
        }
        Self(peer)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client
where
    Shop: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let shop = Shop::from_ref(state);
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
        Ok(Self::find(peer, forwarded.and_then(|value| value.to_str().ok()), &shop.proxies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_proxies_say_who_the_client_is() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let proxies = [address("127.0.0.1")];
        let find = |peer, forwarded| Client::find(Some(address(peer)), forwarded, &proxies).text();
        assert_eq!(find("127.0.0.1", Some("9.9.9.9, 203.0.113.7")), "203.0.113.7");
        assert_eq!(find("::ffff:127.0.0.1", Some("203.0.113.7")), "203.0.113.7");
        assert_eq!(find("127.0.0.1", Some("nonsense")), "127.0.0.1");
        assert_eq!(find("198.51.100.1", Some("203.0.113.7")), "198.51.100.1");
        assert_eq!(find("2001:db8:1:2:3:4:5:6", None), "2001:db8:1:2::");
    }
}
