//! A request's fields as the upstream sees them.
//!
//! Owns the rule for what of a client's head goes upstream and what stands in its place. [`crate::upstream::outbound`]
//! writes heads by it, and everything that tells variants apart (the cache, its tiers, collapsing, explanations) reads
//! fields through it. Must stay the only such rule: a variant made of anything that the upstream did not see lets one
//! client choose the answer of another, or splits what is one answer (RFC 9111 §4.1).
//!
//! Fields that `Connection` nominates are gone before: see [`crate::message::hop_by_hop::strip_nominated`].

use cache_policy::{Lines, SentFields};
use http::{HeaderMap, HeaderName, HeaderValue, header, request};

use crate::{
    message::{hop_by_hop::is_hop_by_hop, target::Target},
    request::client::Client,
    settings::Route,
};

/// A request on its way to its route's upstream. Its [`SentFields`] are those of a fetch for the cache.
#[derive(Clone, Copy, Debug)]
pub struct AsSent<'a> {
    pub head: &'a request::Parts,
    pub target: &'a Target,
    pub client: &'a Client,
    pub route: &'a Route,
}

/// Who gets the upstream's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// This client alone.
    Client,
    /// The cache: whoever asks for the same.
    Cache,
}

impl AsSent<'_> {
    /// All fields that go upstream, but for those that depend on what is fetched and why: conditions, the deadline, Via.
    pub fn fields(&self, audience: Audience) -> HeaderMap {
        let mut fields = self.head.headers.clone();
        let dropped: Vec<HeaderName> =
            fields.keys().filter(|name| !self.goes_on(name, audience)).cloned().collect();
        for name in &dropped {
            fields.remove(name);
        }
        for name in REPLACED {
            if let Some(value) = self.replaced(&name) {
                fields.insert(name, value);
            }
        }
        fields
    }

    /// Whether a fetch for the cache brings the client's own lines of a field.
    pub fn is_asked_with(&self, name: &HeaderName) -> bool {
        self.goes_on(name, Audience::Cache)
    }

    /// Whether the client's own lines of a field go upstream.
    fn goes_on(&self, name: &HeaderName, audience: Audience) -> bool {
        if is_hop_by_hop(name) || is_impostor(name.as_str()) || *name == header::EXPECT {
            return false;
        }
        audience == Audience::Client
            || match *name {
                header::ACCEPT_ENCODING => !self.route.compress,
                // Where one matters, the answer may be that person's page, and all of them go.
                header::COOKIE => self.route.rules.ignored_cookies.matter_in(&self.head.headers),
                _ => !OF_THE_CLIENT.contains(name) && !METHOD_OVERRIDES.contains(&name.as_str()),
            }
    }

    /// The line in place of the client's own, for fields that only the edge may state.
    fn replaced(&self, name: &HeaderName) -> Option<HeaderValue> {
        match name.as_str() {
            "host" | X_FORWARDED_HOST => HeaderValue::try_from(self.target.authority()).ok(),
            X_FORWARDED_FOR | X_REAL_IP => HeaderValue::try_from(self.client.address.to_string()).ok(),
            X_FORWARDED_PROTO => Some(HeaderValue::from_static(self.target.scheme.as_str())),
            _ => None,
        }
    }
}

impl SentFields for AsSent<'_> {
    fn lines(&self, name: &HeaderName) -> Lines<'_> {
        match self.replaced(name) {
            Some(value) => Lines::replaced(value),
            None if self.goes_on(name, Audience::Cache) => Lines::sent(&self.head.headers, name),
            None => Lines::NONE,
        }
    }
}

/// Whether a request asks the upstream to take its method for another one.
pub fn overrides_method(head: &request::Parts) -> bool {
    let method = head.method.as_str().as_bytes();
    let names_another = |value: &HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(method);
    METHOD_OVERRIDES.iter().any(|name| head.headers.get_all(*name).iter().any(names_another))
}

/// Whether a field pretends to come from a proxy, or to change the request. A name with `_` is one that CGI-like
/// interfaces (WSGI, Rack, PHP) cannot tell from the name with `-`, so it would pass every check by name.
fn is_impostor(name: &str) -> bool {
    name.contains('_')
        || name.starts_with("x-forwarded")
        || name.starts_with("forwarded")
        || IMPOSTORS.contains(&name)
}

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_REAL_IP: &str = "x-real-ip";

/// What only the edge may state.
const REPLACED: [HeaderName; 5] = [
    header::HOST,
    HeaderName::from_static(X_FORWARDED_HOST),
    HeaderName::from_static(X_FORWARDED_FOR),
    HeaderName::from_static(X_REAL_IP),
    HeaderName::from_static(X_FORWARDED_PROTO),
];

/// Conditions on what this client has. The cache asks with its own. Range and If-Range are not among them: a part is
/// fetched with the client's, and a response may vary on them.
const OF_THE_CLIENT: [HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    HeaderName::from_static("a-im"),
];

/// By these, clients that can only GET and POST ask for other methods.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Fields by which a client pretends to be a proxy or another request.
const IMPOSTORS: [&str; 29] = [
    X_REAL_IP,
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-originating-ip",
    "x-original-for",
    "x-original-forwarded-for",
    "x-remote-addr",
    "x-remote-ip",
    "x-host",
    "x-original-host",
    "x-http-host-override",
    "x-scheme",
    "x-url-scheme",
    "x-original-proto",
    "x-arr-ssl",
    "front-end-https",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-request-deadline",
    "http2-settings",
    "x-envoy-original-path",
    // Becomes HTTP_PROXY in CGI programs ("httpoxy").
    "proxy",
];

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::{message::target::Scheme, request::inbound, settings};

    fn with<T>(route: &str, lines: &[(&str, &str)], then: impl FnOnce(AsSent<'_>) -> T) -> T {
        let text = format!(
            "[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.o]\nservers = [\"http://o:80\"]\n\
             [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"o\"\n{route}\n"
        );
        let settings = settings::parse(&text, "test.toml").unwrap();
        let request = Request::get("/").header("host", "shop.example");
        let request = lines.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let head = request.body(()).unwrap().into_parts().0;
        let target = inbound::read(&head, Scheme::Https).unwrap();
        let client = Client { address: [192, 0, 2, 1].into(), scheme: Scheme::Https };
        then(AsSent { head: &head, target: &target, client: &client, route: &settings.routes[0] })
    }

    #[test]
    fn what_a_client_forwards_is_dropped() {
        let lines = [
            ("x-forwarded-prefix", "1"),
            ("forwarded", "1"),
            ("client-ip", "1"),
            ("x-cluster-client-ip", "1"),
            ("x-scheme", "1"),
            ("front-end-https", "1"),
            ("x-original-url", "1"),
            ("x_forwarded_for", "1"),
            ("proxy", "1"),
            ("accept", "1"),
        ];
        let sent = with("cache = {}", &lines, |sent| sent.fields(Audience::Client));
        let others = sent.keys().filter(|name| !REPLACED.contains(name));
        assert_eq!(others.map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    /// X-Real-IP was dropped: an app that reads it alone saw every client as the edge.
    #[test]
    fn the_edge_says_who_the_client_is() {
        let lines = [("x-real-ip", "6.6.6.6"), ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "http")];
        let sent = with("cache = {}", &lines, |sent| sent.fields(Audience::Client));
        assert_eq!(
            (&sent["x-real-ip"], &sent["x-forwarded-for"]),
            (&sent["x-forwarded-for"], &sent["x-real-ip"])
        );
        assert_eq!(
            (&sent["x-real-ip"], &sent["x-forwarded-proto"]),
            (&HeaderValue::from_static("192.0.2.1"), &HeaderValue::from_static("https"))
        );
    }

    proptest! {
        /// Else a variant would be stored under other values than those by which it is looked up.
        #[test]
        fn a_field_alone_is_what_it_is_among_all(
            lines in prop::collection::vec((prop::sample::select(NAMES.to_vec()), "[ -~]{0,8}"), 0..12),
            route in prop::sample::select(vec![
                "compress = false\ncache = {}",
                "compress = true\ncache = {}",
                "cache = { ignore_cookies = true }",
            ]),
        ) {
            let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let lines: Vec<_> = lines.into_iter().filter(|(name, _)| !METHOD_OVERRIDES.contains(name)).collect();
            with(route, &lines, |sent| {
                let all = sent.fields(Audience::Cache);
                for name in NAMES {
                    let name = HeaderName::from_static(name);
                    let alone: Vec<Vec<u8>> = sent.lines(&name).iter().map(<[u8]>::to_vec).collect();
                    let among: Vec<Vec<u8>> = all.lines(&name).iter().map(<[u8]>::to_vec).collect();
                    prop_assert_eq!(alone, among, "{}", name);
                }
                Ok(())
            })?;
        }
    }

    const NAMES: [&str; 14] = [
        "accept-language",
        "accept-encoding",
        "cookie",
        "connection",
        "te",
        "expect",
        "range",
        "if-none-match",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-real-ip",
        "x_device",
        "x-http-method-override",
        "x-request-deadline",
    ];
}
