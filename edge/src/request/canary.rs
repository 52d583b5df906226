//! Whether a request goes to the canary of its route: the upstream on which something new is tried.

use http::HeaderMap;

use super::{affinity::cookie, client::Client};
use crate::settings::{Canary, Sign};

/// The side of a route that a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSide {
    /// The route's own upstream.
    Stable,
    /// The canary, as one of the share of clients that tries it; what it answers may be stored for everyone.
    Share,
    /// The canary, as the client asks for: what is stored is not for it, and what it gets is not for others.
    Asked,
}

/// The side of a request. A client stays on its side, by its address, while the share does not change.
pub fn side(canary: Option<&Canary>, headers: &HeaderMap, client: &Client) -> RouteSide {
    let Some(canary) = canary else { return RouteSide::Stable };
    let by_header = canary.header.as_ref().is_some_and(|sign| has_field(headers, sign));
    let by_cookie = canary
        .cookie
        .as_ref()
        .is_some_and(|sign| cookie(headers, &sign.name).is_some_and(|value| is_meant(sign, value)));
    if by_header || by_cookie {
        return RouteSide::Asked;
    }
    // 100 is none of the numbers, so that "100%" is everybody.
    let number = client.key().number() % 100;
    if number < u64::from(canary.share) { RouteSide::Share } else { RouteSide::Stable }
}

/// Whether a field of this name has the value that a sign asks for, or any where it asks for none.
pub fn has_field(headers: &HeaderMap, sign: &Sign) -> bool {
    headers.get_all(&*sign.name).iter().any(|value| is_meant(sign, value.as_bytes()))
}

fn is_meant(sign: &Sign, value: &[u8]) -> bool {
    sign.value.as_ref().is_none_or(|wanted| wanted.as_bytes() == value)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::{message::target::Scheme, settings::UpstreamSettings};

    fn canary(share: u32) -> Canary {
        let upstream = UpstreamSettings::new("new", Vec::new()).into();
        let header = Some(Sign { name: "x-canary".into(), value: None });
        let cookie = Some(Sign { name: "canary".into(), value: Some("yes".into()) });
        Canary { upstream, share, header, cookie }
    }

    fn of(canary: &Canary, field: (&'static str, &'static str), address: [u8; 4]) -> RouteSide {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(field.0), HeaderValue::from_static(field.1));
        side(Some(canary), &headers, &Client { address: address.into(), scheme: Scheme::Http })
    }

    #[test]
    fn a_share_of_the_clients_tries_it_and_each_stays_on_its_side() {
        for (share, least, most) in [(0, 0, 0), (5, 30, 75), (100, 1_000, 1_000)] {
            let tries = |address: u16| {
                let [high, low] = address.to_be_bytes();
                of(&canary(share), ("a", "b"), [10, 0, high, low]) == RouteSide::Share
            };
            let count = (0..1_000).filter(|address| tries(*address)).count();
            assert!((least..=most).contains(&count), "{share} %: {count}");
        }
    }

    #[test]
    fn a_field_or_a_cookie_asks_for_it() {
        let of = |name, value| of(&canary(0), (name, value), [10, 0, 0, 1]);
        assert_eq!(of("x-canary", "whatever"), RouteSide::Asked);
        assert_eq!(of("cookie", "a=b; canary=yes"), RouteSide::Asked);
        assert_eq!(of("cookie", "canary=no"), RouteSide::Stable);
        assert_eq!(
            side(None, &HeaderMap::new(), &Client { address: [10, 0, 0, 1].into(), scheme: Scheme::Http }),
            RouteSide::Stable
        );
    }
}
