//! What a route does with its requests, and to the answers.

use std::{fmt, net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

use super::UpstreamSettings;

/// What a route does with its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Sends them to its upstream, through the cache.
    Forward(Arc<UpstreamSettings>),
    /// Sends the clients elsewhere (RFC 9110 §15.4).
    Redirect(Redirect),
    /// Answers what the file says.
    Respond(StatedAnswer),
}

impl RouteAction {
    /// Where its misses go, if it forwards.
    pub fn upstream(&self) -> Option<&Arc<UpstreamSettings>> {
        match self {
            Self::Forward(upstream) => Some(upstream),
            Self::Redirect(_) | Self::Respond(_) => None,
        }
    }
}

/// Where clients are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub to: LocationTemplate,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Whether it is only for requests that came in clear text.
    pub from: RedirectFrom,
}

/// Which requests are redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectFrom {
    Any,
    /// Those over TLS are for the routes that come after.
    ClearText,
}

/// A URL with places for parts of the request: `https://{host}{path}{query}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationTemplate(pub(super) Vec<LocationPart>);

/// A part of a [`LocationTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationPart {
    Text(Box<str>),
    /// `{host}`: the request's, without port.
    Host,
    /// `{path}`: the request's, which begins with a slash.
    Path,
    /// `{rest}`: what of the path the `*` of the route's own stands for.
    Rest,
    /// `{query}`: the request's with its `?`, or nothing.
    Query,
}

impl LocationTemplate {
    /// The request's own URL over TLS, at a port.
    pub(super) fn over_tls(port: u16) -> Self {
        let text = |text: &str| LocationPart::Text(text.into());
        let port = (port != 443).then(|| text(&format!(":{port}")));
        let before = [text("https://"), LocationPart::Host].into_iter().chain(port);
        Self(before.chain([LocationPart::Path, LocationPart::Query]).collect())
    }

    /// Its parts, in their order.
    pub fn parts(&self) -> &[LocationPart] {
        &self.0
    }
}

impl fmt::Display for LocationTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| {
            formatter.write_str(match part {
                LocationPart::Text(text) => text,
                LocationPart::Host => "{host}",
                LocationPart::Path => "{path}",
                LocationPart::Rest => "{rest}",
                LocationPart::Query => "{query}",
            })
        })
    }
}

/// An answer as the file states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedAnswer {
    pub status: StatusCode,
    pub content_type: HeaderValue,
    pub content: Bytes,
}

/// What of a request's path its upstream does not see, or sees beside it. Routes and the cache know the client's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRewrite {
    /// Taken off: `/api`, without a slash at its end.
    pub strip: Option<Box<str>>,
    /// Put before what is left.
    pub add: Option<Box<str>>,
}

impl PathRewrite {
    /// Whether paths go upstream as they came.
    pub fn is_nothing(&self) -> bool {
        self.strip.is_none() && self.add.is_none()
    }
}

/// What the operator says of fields of a route's answers, by their names. They are few, and walked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseFields(pub(super) Vec<(HeaderName, ResponseField)>);

/// Fields that tell caches how to keep an answer, or the operator what it cost: they stop here unless they are kept.
pub const INTERNAL: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("server-timing"),
];

/// What becomes of a field on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseField {
    /// These are its lines, whatever the upstream sent.
    Is(Vec<HeaderValue>),
    /// Not sent.
    Absent,
    /// Sent, though it is for caches alone.
    Kept,
}

impl ResponseFields {
    /// Each field with what becomes of it.
    pub fn each(&self) -> impl Iterator<Item = &(HeaderName, ResponseField)> {
        self.0.iter()
    }

    /// Whether a field that is for caches alone goes on to clients.
    pub fn keep(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|(kept, field)| kept == name && *field == ResponseField::Kept)
    }
}

/// Which clients a route is for, by their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Only these; everyone where empty.
    pub allow: Vec<IpNet>,
    /// Not these, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

impl AddressRules {
    /// Whether a client may come in.
    pub fn admit(&self, address: IpAddr) -> bool {
        if self.allow.is_empty() && self.deny.is_empty() {
            return true;
        }
        let address = address.to_canonical();
        let holds = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !holds(&self.deny) && (self.allow.is_empty() || holds(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_denied_is_denied_also_where_it_is_allowed() {
        let networks = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let rules = AddressRules { allow: networks(&["10.0.0.0/8"]), deny: networks(&["10.9.0.0/16"]) };
        let admit = |address: &str| rules.admit(address.parse().unwrap());
        assert!(admit("10.1.2.3") && admit("::ffff:10.1.2.3"));
        assert!(!admit("10.9.2.3") && !admit("192.0.2.1") && !admit("2001:db8::1"));
        let rules = AddressRules { allow: Vec::new(), deny: networks(&["2001:db8::/32"]) };
        assert!(!rules.admit("2001:db8::1".parse().unwrap()) && rules.admit("192.0.2.1".parse().unwrap()));
    }
}
