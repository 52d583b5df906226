//! A request's fields as the upstream sees them.
//!
//! Owns the rule for what of a client's head goes upstream and what stands in its place. [`crate::upstream::outbound`]
//! writes heads by it, and everything that tells variants apart (the cache, its tiers, collapsing, explanations) reads
//! fields through it. Must stay the only such rule: a variant made of anything that the upstream did not see lets one
//! client choose the answer of another, or splits what is one answer (RFC 9111 §4.1).
//!
//! Fields that `Connection` nominates are gone before: see [`crate::message::hop_by_hop::strip_nominated`].

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use cache_policy::{FieldLines, SentFields};
use http::{HeaderMap, HeaderName, HeaderValue, header, request};

use crate::{
    message::{hop_by_hop::is_hop_by_hop, target::Target, trailers::keep_trailers},
    request::client::Client,
    settings::{RequestField, Route, UpstreamSettings},
};

/// A request on its way to its route's upstream. Its [`SentFields`] are those of a fetch for the cache.
#[derive(Clone, Copy, Debug)]
pub struct AsSent<'a> {
    pub head: &'a request::Parts,
    pub target: &'a Target,
    pub client: &'a Client,
    /// What is told of the client's certificate.
    pub told: &'a [(HeaderName, HeaderValue)],
    pub route: &'a Route,
    /// The route's, or its canary.
    pub upstream: &'a Arc<UpstreamSettings>,
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
    /// All fields that go upstream, but for those that depend on what is fetched and why: conditions, the deadline, the
    /// request's id, Via.
    pub fn fields(&self, audience: Audience) -> HeaderMap {
        let (host, address) = (self.authority(), self.address());
        let said = &self.upstream.request_fields;
        let mut fields = HeaderMap::with_capacity(self.head.headers.len() + REPLACED.len() + ADDED);
        for (name, value) in said.stated() {
            fields.insert(name, value.clone());
        }
        for name in REPLACED {
            if said.of(&name).is_some() {
                continue;
            }
            let value = match name.as_str() {
                "host" | X_FORWARDED_HOST => host.clone(),
                X_FORWARDED_FOR | X_REAL_IP => Some(address.clone()),
                _ => Some(HeaderValue::from_static(self.target.scheme.as_str())),
            };
            if let Some(value) = value {
                fields.insert(name, value);
            }
        }
        if let Some(prefix) = &self.route.rewrite.strip
            && said.of(&X_FORWARDED_PREFIX).is_none()
            && let Ok(prefix) = HeaderValue::from_str(prefix)
        {
            fields.insert(X_FORWARDED_PREFIX, prefix);
        }
        for (name, value) in &self.head.headers {
            if !REPLACED.contains(name) && self.goes_on(name, audience) {
                fields.append(name, value.clone());
            }
        }
        for (name, value) in self.told.iter().filter(|(name, _)| said.of(name).is_none()) {
            fields.insert(name, value.clone());
        }
        if audience == Audience::Cache
            && let Some(cookies) = self.keyed_cookies()
        {
            fields.insert(header::COOKIE, cookies);
        }
        fields
    }

    /// The cookies that a fetch for the cache brings, where none of the request matters: those that are part of the key.
    pub fn keyed_cookies(&self) -> Option<HeaderValue> {
        let (headers, names) = (&self.head.headers, &self.route.key.cookies);
        if names.is_empty()
            || !headers.contains_key(header::COOKIE)
            || self.route.rules.ignored_cookies.matter_in(headers)
        {
            return None;
        }
        let mut line = Vec::new();
        for name in names {
            for value in cookie_values(headers, name) {
                let before: &[u8] = if line.is_empty() { b"" } else { b"; " };
                line.extend([before, name.as_bytes(), b"=", value].concat());
            }
        }
        if line.is_empty() { None } else { HeaderValue::from_bytes(&line).ok() }
    }

    /// Whether a fetch for the cache brings the client's own lines of a field.
    pub fn is_asked_with(&self, name: &HeaderName) -> bool {
        self.goes_on(name, Audience::Cache)
    }

    /// Whether the client's own lines of a field go upstream.
    fn goes_on(&self, name: &HeaderName, audience: Audience) -> bool {
        match self.upstream.request_fields.of(name) {
            Some(RequestField::Is(_) | RequestField::Absent) => return false,
            // Nobody else's answer may depend on what the edge would remove.
            Some(RequestField::Kept) if audience == Audience::Client => return true,
            Some(RequestField::Kept) | None => {}
        }
        if is_hop_by_hop(name)
            || is_impostor(name.as_str())
            || *name == header::EXPECT
            || self.upstream.identity_fields.contains(name)
        {
            return false;
        }
        audience == Audience::Client
            || match *name {
                header::ACCEPT_ENCODING => !self.route.compress,
                // The route says who may read, and the answer is one for all.
                header::ORIGIN => self.route.cors.is_none(),
                // Where one matters, the answer may be that person's page, and all of them go.
                header::COOKIE => self.route.rules.ignored_cookies.matter_in(&self.head.headers),
                _ => !OF_THE_CLIENT.contains(name) && !METHOD_OVERRIDES.contains(name),
            }
    }

    /// The line in place of the client's own, for fields that only the edge may state.
    fn replaced(&self, name: &HeaderName) -> Option<HeaderValue> {
        match self.upstream.request_fields.of(name) {
            Some(RequestField::Is(value)) => return Some(value.clone()),
            Some(RequestField::Absent) => return None,
            Some(RequestField::Kept) | None => {}
        }
        match name.as_str() {
            "host" | X_FORWARDED_HOST => self.authority(),
            X_FORWARDED_FOR | X_REAL_IP => Some(self.address()),
            X_FORWARDED_PROTO => Some(HeaderValue::from_static(self.target.scheme.as_str())),
            "cookie" => self.keyed_cookies(),
            _ => self.told.iter().find(|(told, _)| told == name).map(|(_, value)| value.clone()),
        }
    }

    /// The host as it is asked for upstream: the client's own line, where it has that spelling.
    fn authority(&self) -> Option<HeaderValue> {
        let Target { host, port, scheme, .. } = self.target;
        let is_default = *port == scheme.default_port();
        let own = self.head.headers.get(header::HOST);
        match own.filter(|own| is_default && own.as_bytes() == host.as_bytes()) {
            Some(own) => Some(own.clone()),
            None if is_default => HeaderValue::from_str(host).ok(),
            None => HeaderValue::try_from(self.target.authority()).ok(),
        }
    }

    /// The client's address; one client's requests mostly come one after the other.
    fn address(&self) -> HeaderValue {
        let address = self.client.address;
        ADDRESS.with_borrow_mut(|last| match last {
            Some((of, value)) if *of == address => value.clone(),
            _ => {
                let value = HeaderValue::try_from(address.to_string()).expect("an address is ASCII");
                *last = Some((address, value.clone()));
                value
            }
        })
    }
}

thread_local! {
    /// The address that was last written out, and how.
    static ADDRESS: RefCell<Option<(IpAddr, HeaderValue)>> = const { RefCell::new(None) };
}

impl SentFields for AsSent<'_> {
    fn lines(&self, name: &HeaderName) -> FieldLines<'_> {
        match self.replaced(name) {
            Some(value) => FieldLines::replaced(value),
            None if self.goes_on(name, Audience::Cache) => FieldLines::sent(&self.head.headers, name),
            None => FieldLines::NONE,
        }
    }
}

/// The values of all cookies of a name, in the order in which they stand.
pub fn cookie_values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|octet| *octet == b';')).map(<[u8]>::trim_ascii);
    pairs.filter_map(move |pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Leaves of a client's trailer fields those that go upstream: none that the edge states itself or removes from heads, since
/// an upstream may take them for fields of the head (RFC 9110 §6.5.1).
pub fn keep_sent_trailers(trailers: &mut HeaderMap, upstream: &UpstreamSettings) {
    keep_trailers(trailers, |name| {
        let said = upstream.request_fields.of(name);
        said.is_none_or(|said| matches!(said, RequestField::Kept))
            && !REPLACED.contains(name)
            && !METHOD_OVERRIDES.contains(name)
            && !upstream.identity_fields.contains(name)
            && (said.is_some() || !is_impostor(name.as_str()))
    });
}

/// Whether a request asks the upstream to take its method for another one.
pub fn overrides_method(head: &request::Parts) -> bool {
    let method = head.method.as_str().as_bytes();
    let names_another = |value: &HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(method);
    // Walked through once: three look-ups of names that hardly any request has cost more.
    head.headers.iter().any(|(name, value)| METHOD_OVERRIDES.contains(name) && names_another(value))
}

/// Whether a field pretends to come from a proxy, or to change the request. A name with `_` is one that CGI-like
/// interfaces (WSGI, Rack, PHP) cannot tell from the name with `-`, so it would pass every check by name.
fn is_impostor(name: &str) -> bool {
    name.contains('_')
        || name.starts_with("x-forwarded")
        || name.starts_with("forwarded")
        || is_known_impostor(name)
}

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_REAL_IP: &str = "x-real-ip";
/// Where an app is mounted that does not see the beginning of its paths.
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What only the edge may state.
const REPLACED: [HeaderName; 5] = [
    header::HOST,
    HeaderName::from_static(X_FORWARDED_HOST),
    HeaderName::from_static(X_FORWARDED_FOR),
    HeaderName::from_static(X_REAL_IP),
    HeaderName::from_static(X_FORWARDED_PROTO),
];

/// Fields that whoever sends the request adds.
const ADDED: usize = 4;

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
static METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Tells names apart by a match, which the compiler makes a few comparisons of: every field of every request is asked about.
macro_rules! names {
    ($(#[$about:meta])* $is_one:ident, $all:ident: $($name:literal,)+) => {
        $(#[$about])*
        fn $is_one(name: &str) -> bool {
            matches!(name, $($name)|+)
        }

        #[cfg(test)]
        const $all: &[&str] = &[$($name),+];
    };
}

names! {
    /// Whether by this field a client pretends to be a proxy or another request.
    is_known_impostor, IMPOSTORS:
    "x-real-ip",
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
    "x-request-id",
    // What a proxy tells of client certificates (RFC 9440 §2.4).
    "client-cert",
    "client-cert-chain",
    "http2-settings",
    "x-envoy-original-path",
    // Becomes HTTP_PROXY in CGI programs ("httpoxy").
    "proxy",
}

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
        let route = &settings.routes[0];
        let upstream = route.action.upstream().expect("it forwards");
        then(AsSent { head: &head, target: &target, client: &client, told: &[], route, upstream })
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

    /// `docs/what-upstreams-are-sent.md`: the names between backticks under one of its headings.
    fn written_down(heading: &str) -> Vec<HeaderName> {
        let page = include_str!("../../../docs/what-upstreams-are-sent.md");
        let (_, section) = page.split_once(heading).expect("the page has the heading");
        let section = section.split("\n## ").next().unwrap_or_default();
        let items = section.lines().filter(|line| line.starts_with("- ") || line.starts_with("  "));
        let items: Vec<&str> = items.collect();
        let items = items.join(" ");
        items.split('`').skip(1).step_by(2).filter_map(|name| name.parse().ok()).collect()
    }

    #[test]
    fn what_upstreams_are_sent_is_written_down() {
        let set = written_down("## Set by the edge");
        let own = ["x-request-id", "x-request-deadline", "via"].map(HeaderName::from_static);
        for name in REPLACED.iter().chain(&own) {
            assert!(set.contains(name), "{name} is set, and the page does not say so");
        }
        let removed = written_down("## Removed");
        for &name in IMPOSTORS {
            let name = HeaderName::from_static(name);
            assert!(
                removed.contains(&name) || set.contains(&name),
                "{name} is removed, and the page does not say so"
            );
        }
        let known = |name: &HeaderName| {
            is_impostor(name.as_str()) || REPLACED.contains(name) || own.contains(name) || is_hop_by_hop(name)
        };
        let words = ["https", "http", "-", "expect", "fields"].map(HeaderName::from_static);
        let prefixes = ["x-forwarded", "forwarded"].map(HeaderName::from_static);
        for name in
            set.iter().chain(&removed).filter(|name| !words.contains(name) && !prefixes.contains(name))
        {
            assert!(known(name), "the page says that {name} is the edge's, and it is not");
        }
    }

    #[test]
    fn what_the_operator_says_of_fields_goes_before_the_edges_own_rules() {
        let fields = "[upstreams.o.request_fields]\nhost = \"app.internal\"\nx-key = \"k\"\n\
                      x-forwarded-proto = false\naccept-language = false\nx_legacy = true\n";
        let lines = [("x-key", "forged"), ("accept-language", "de"), ("x_legacy", "1"), ("x_other", "1")];
        for audience in [Audience::Client, Audience::Cache] {
            let sent = with(&format!("cache = {{}}\n{fields}"), &lines, |sent| {
                for name in ["host", "x-key", "x-forwarded-proto", "accept-language", "x-forwarded-host"] {
                    let name = HeaderName::from_static(name);
                    let fields = sent.fields(audience);
                    let among = fields.get_all(&name).iter().map(HeaderValue::as_bytes);
                    assert!(
                        sent.lines(&name).iter().eq(among),
                        "{name} for the variant is {name} as it is sent"
                    );
                }
                sent.fields(audience)
            });
            assert_eq!(
                (&sent["host"], &sent["x-key"]),
                (&"app.internal".parse().unwrap(), &"k".parse().unwrap())
            );
            assert_eq!(sent["x-forwarded-host"], "shop.example");
            for absent in ["x-forwarded-proto", "accept-language", "x_other"] {
                assert!(!sent.contains_key(absent), "{absent}");
            }
            // Nobody else's answer depends on it.
            assert_eq!(sent.contains_key("x_legacy"), audience == Audience::Client);
        }
    }

    #[test]
    fn of_what_frames_a_message_nothing_can_be_said() {
        let framing =
            ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "trailer"];
        assert!(
            framing.iter().all(|name| is_hop_by_hop(&HeaderName::from_static(name)) || *name == "trailer")
        );
        let own = OF_THE_CLIENT.into_iter().chain(METHOD_OVERRIDES.clone());
        for name in own.chain(framing.map(HeaderName::from_static)) {
            for field in ["\"a\"", "true", "false"] {
                let text = format!(
                    "[upstreams.o]\nservers = [\"http://o\"]\nrequest_fields = {{ {name} = {field} }}\n\
                     [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"o\"\n"
                );
                let fault = settings::parse(&text, "test.toml").unwrap_err().to_string();
                assert!(fault.contains(&format!("what is sent as {name} cannot be said here")), "{fault}");
            }
        }
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
            let lines: Vec<_> = lines.into_iter().filter(|(name, _)| !METHOD_OVERRIDES.iter().any(|known| known == name)).collect();
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
