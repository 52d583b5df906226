//! What a route does with its requests, and to the answers.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

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
    /// In place of both.
    pub replace: Option<Arc<PathSubstitution>>,
}

impl PathRewrite {
    /// Whether paths go upstream as they came.
    pub fn is_nothing(&self) -> bool {
        self.strip.is_none() && self.add.is_none() && self.replace.is_none()
    }
}

/// What stands in place of paths that a regular expression matches from their beginning to their end.
#[derive(Clone, Debug)]
pub struct PathSubstitution {
    /// As the file writes it.
    pub from: Box<str>,
    whole: Regex,
    /// A path, with `$1` or `${name}` for what groups of the expression have matched; perhaps with a query.
    pub to: Box<str>,
}

impl PartialEq for PathSubstitution {
    fn eq(&self, other: &Self) -> bool {
        (&self.from, &self.to) == (&other.from, &other.to)
    }
}

impl Eq for PathSubstitution {}

impl PathSubstitution {
    /// `from` stands for whole paths, whether it says so or not.
    pub(super) fn new(from: &str, to: &str) -> Result<Self, regex::Error> {
        let whole = RegexBuilder::new(&format!("^(?:{from})$")).size_limit(LARGEST_EXPRESSION).build()?;
        Ok(Self { from: from.into(), whole, to: to.into() })
    }

    /// The groups of the expression that `to` names and there are not.
    pub(super) fn unknown_groups(&self) -> Vec<String> {
        let known = |name: &str| match name.parse::<usize>() {
            Ok(number) => number < self.whole.captures_len(),
            Err(_) => self.whole.capture_names().flatten().any(|group| group == name),
        };
        groups_named(&self.to).filter(|name| !known(name)).map(str::to_owned).collect()
    }

    /// The path and query in place of these, where the expression matches the path. `None` also where groups have matched
    /// what joined would name a folder above: then the upstream sees the client's own path.
    pub fn applied(&self, path: &str, query: &str) -> Option<String> {
        let found = self.whole.captures(path)?;
        let mut target = String::new();
        found.expand(&self.to, &mut target);
        let new_path = target.split('?').next().unwrap_or_default();
        let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        if new_path.split(['/', '\\']).any(is_dots) {
            return None;
        }
        match query.strip_prefix('?') {
            Some(query) if target.contains('?') => target.extend(["&", query]),
            _ => target.push_str(query),
        }
        Some(target)
    }
}

/// The groups that a replacement names, as the regex crate reads it: `$name`, `${name}`, and `$$` for a dollar sign.
fn groups_named(to: &str) -> impl Iterator<Item = &str> {
    let mut rest = to;
    std::iter::from_fn(move || {
        loop {
            let after = &rest[rest.find('$')? + 1..];
            if let Some(literal) = after.strip_prefix('$') {
                rest = literal;
                continue;
            }
            let (name, left) = match after.strip_prefix('{') {
                Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
                None => {
                    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                    after.split_at(after.find(|letter| !is_of_name(letter)).unwrap_or(after.len()))
                }
            };
            rest = left;
            return Some(name);
        }
    })
}

/// Bytes of a compiled expression.
const LARGEST_EXPRESSION: usize = 1 << 20;

/// What the operator says of fields of a route's answers, by their names. They are few, and walked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseFields(pub(super) Vec<(HeaderName, ResponseField)>);

/// Fields that tell caches how to keep an answer, or the operator what it cost: they stop here unless they are kept.
pub static INTERNAL: [HeaderName; 8] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
    HeaderName::from_static("x-cache-tags"),
    HeaderName::from_static("x-magento-tags"),
    HeaderName::from_static("cache-tags"),
    HeaderName::from_static("purge-cache-tags"),
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

/// An upstream that admits a route's requests, each by an answer of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuth {
    pub upstream: Arc<UpstreamSettings>,
    /// What is asked there; perhaps with a query.
    pub path: Uri,
    /// Fields of an answer that lets a request on, which go on with it. The client's own are dropped.
    pub copy: Vec<HeaderName>,
}

/// A file that closes routes while it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintenanceSettings {
    /// What it holds is shown to people.
    pub file: PathBuf,
    /// Clients that are let in all the same.
    pub except: Vec<IpNet>,
    /// When the others are to come back.
    pub retry_after: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_an_expression_matches_whole_become_others_and_keep_their_query() {
        let rewritten = |from, to, path, query| PathSubstitution::new(from, to).unwrap().applied(path, query);
        for (from, to, path, query, seen) in [
            ("/p/([0-9]+)", "/products/$1", "/p/7", "?a=b", Some("/products/7?a=b")),
            ("/p/(?<id>[0-9]+)", "/get?id=${id}", "/p/7", "", Some("/get?id=7")),
            ("/p/(?<id>[0-9]+)", "/get?id=$id", "/p/7", "?a=b", Some("/get?id=7&a=b")),
            ("/(.*)", "/index.php/$1", "/a/b", "?", Some("/index.php/a/b?")),
            (r"(?i)/SHOP/(\w+)", "/$1", "/Shop/ä", "", Some("/ä")),
            (r"/\p{Greek}/(\d+)", "/$1", "/ω/7", "", Some("/7")),
            // A part of a path is not the path.
            ("/p/([0-9]+)", "/products/$1", "/x/p/7", "", None),
            ("/p/([0-9]+)", "/products/$1", "/p/7/x", "", None),
            ("/a|/b", "/c", "/a/x", "", None),
            // What joined is a way up was none before.
            ("/(.*)-(.*)", "/d/$1$2", "/.-./x", "", None),
            ("/(.*)-(.*)", "/d/$1$2", "/.-.;v/x", "", None),
        ] {
            assert_eq!(rewritten(from, to, path, query).as_deref(), seen, "{from} {path}");
        }
    }

    #[test]
    fn groups_that_there_are_not_are_named() {
        let unknown = |to| PathSubstitution::new("/(a)/(?<id>b)", to).unwrap().unknown_groups();
        assert!(unknown("/$1/$2/${id}/$$9/${1}x").is_empty());
        assert_eq!(unknown("/$3/$ids/${no}/$1x"), ["3", "ids", "no", "1x"]);
    }

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
