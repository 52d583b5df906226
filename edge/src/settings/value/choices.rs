//! Patterns, types, field values, and what is one of a few words.

use cache_policy::{ClientDirectives, Cookies, IgnoredCookies, Ranges, SetCookie, one_spelling};
use http::{HeaderName, HeaderValue, Method};

use super::{Unreadable, Value, nearest_or_list, unexpected};
use crate::settings::{
    BesideGet, CommandListen, CommandOutput, EncodedSlash, ForwardedBy, IdentityPart, LogFormat, MediaRange,
    OverloadControl, PathPattern, ProxyProtocol, RedisUrl, RequestIdInAnswers, SecurityFields, StopSignal,
    TlsVersion, Unheard, UnknownNames, UpgradeProtocol,
    notation::{Notation, TOKEN, any_case, any_of},
};

impl Value for MediaRange {
    const EXPECTED: &'static str = "a media type such as \"text/css\"";

    fn notation() -> Notation {
        Notation::pattern(r"[^/\s]+/[^/\s]+")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&byte);
        let lower = text.to_ascii_lowercase();
        match lower.split_once('/') {
            Some((kind, subtype))
                if !kind.is_empty()
                    && !subtype.is_empty()
                    && kind.bytes().chain(subtype.bytes()).all(plain)
                    && lower.matches('*').count() <= 1 =>
            {
                Ok(MediaRange::new(&lower))
            }
            _ => Err(Unreadable::new(
                format!("{text:?} is no media type"),
                "write a type and a subtype, with one * for any text: \"text/*\", \"application/*+json\"",
            )),
        }
    }
}

impl Value for UpgradeProtocol {
    const EXPECTED: &'static str = "a protocol such as \"websocket\"";

    fn notation() -> Notation {
        Notation::pattern(format!("{TOKEN}+(/{TOKEN}+)?"))
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let lower = text.to_ascii_lowercase();
        let (name, version) = lower.split_once('/').unwrap_or((&lower, "1"));
        let is_token = |word: &str| HeaderName::from_bytes(word.as_bytes()).is_ok();
        if !is_token(name) || !is_token(version) {
            let help = "write its name, as Upgrade has it: \"websocket\"";
            return Err(Unreadable::new(format!("{text:?} is no protocol"), help));
        }
        // What is spoken then the edge would not read: requests past every rule of the file, and no tunnel of one client's.
        if matches!(name, "http" | "h2c" | "h2" | "h3" | "tls") {
            let message = format!("{text} would let requests by that nobody looks at");
            return Err(Unreadable::new(message, "leave it out: HTTP/2 is spoken over TLS, by ALPN"));
        }
        Ok(UpgradeProtocol(lower.into()))
    }
}

impl Value for PathPattern {
    const EXPECTED: &'static str = "a path such as \"/api/*\"";

    fn notation() -> Notation {
        Notation::pattern(r"/[^?#\s]*")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = |help: String| Unreadable::new(format!("{text:?} is no path pattern"), help);
        if !text.starts_with('/') {
            return Err(bad(format!("a path begins with a slash: {:?}", format!("/{text}"))));
        }
        if let Some(byte) = text.bytes().find(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#'))
        {
            let name = char::from(byte);
            return Err(bad(if name.is_ascii_graphic() {
                format!("routes match the path alone, which holds no '{name}'")
            } else {
                "write spaces and non-ASCII characters percent-encoded".to_owned()
            }));
        }
        let spelt = one_spelling(text);
        let (path, prefix) = match spelt.strip_suffix("/*") {
            Some(parent) => (&spelt[..=parent.len()], true),
            None => (&*spelt, false),
        };
        let between =
            path.split_once("/*/").map(|(before, after)| (format!("{before}/"), format!("/{after}")));
        if path.matches('*').count() > usize::from(between.is_some()) || (prefix && between.is_some()) {
            let help = "one star stands for all that follows a slash, as in \"/api/*\", or for one segment, as in \"/a/*/b\"";
            return Err(bad(help.to_owned()));
        }
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            let help = "a request whose path has a segment \".\" or \"..\" is refused: leave it out";
            return Err(bad(help.to_owned()));
        }
        if path.contains("//") {
            let help = "two slashes match only two slashes, which hardly any request has: write one";
            return Err(bad(help.to_owned()));
        }
        Ok(match between {
            Some((before, after)) => PathPattern::Between(before.into(), after.into()),
            None if prefix => PathPattern::Prefix(path.into()),
            None => PathPattern::Exact(path.into()),
        })
    }
}

/// The paths of a route: one, or several in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Paths(pub(in crate::settings) Vec<PathPattern>);

impl Value for Paths {
    const EXPECTED: &'static str = "a path such as \"/api/*\", or several in a list";

    fn notation() -> Notation {
        PathPattern::notation().one_or_several()
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        PathPattern::from_text(text).map(|path| Self(vec![path]))
    }

    fn from_list(list: Vec<String>) -> Result<Self, Unreadable> {
        if list.is_empty() {
            return Err(Unreadable::new("an empty list matches no path", "write \"/*\" for every path"));
        }
        let paths: Vec<PathPattern> =
            list.iter().map(|text| PathPattern::from_text(text)).collect::<Result<_, _>>()?;
        for (place, path) in paths.iter().enumerate() {
            if let Some(other) = paths.iter().take(place).find(|other| other.covers(path)) {
                return Err(Unreadable::new(
                    format!("\"{path}\" is within \"{other}\", which stands before it"),
                    "leave it out",
                ));
            }
        }
        Ok(Self(paths))
    }
}

/// What stands before a path: in the one spelling, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct PathPrefix(pub(in crate::settings) Box<str>);

impl Value for PathPrefix {
    const EXPECTED: &'static str = "the beginning of a path such as \"/api\"";

    fn notation() -> Notation {
        PathPattern::notation()
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = |help: &str| Unreadable::new(format!("{text:?} is no beginning of a path"), help);
        match PathPattern::from_text(text)? {
            PathPattern::Exact(path) if path.ends_with('/') => {
                Err(bad("leave the slash at its end out, as in \"/api\""))
            }
            PathPattern::Exact(path) => Ok(Self(path)),
            PathPattern::Prefix(_) | PathPattern::Between(..) => {
                Err(bad("leave the star out, as in \"/api\""))
            }
        }
    }
}

impl Value for Method {
    const EXPECTED: &'static str = "a method such as \"POST\"";

    fn notation() -> Notation {
        Notation::pattern("[A-Z-]+")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let refused = |help: &str| Unreadable::new(format!("{text:?} is no method of a route"), help);
        match text.parse::<Method>() {
            Ok(Method::HEAD) => Err(refused("leave it out: HEAD is where GET is")),
            Ok(Method::CONNECT | Method::TRACE) => Err(refused("leave it out: it is never offered")),
            Ok(method) if text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => Ok(method),
            _ => Err(refused("write it in capitals, as in \"GET\"")),
        }
    }
}

/// How to see that an instance of a command is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) enum Ready {
    /// It accepts a TCP connection.
    Tcp,
    /// It answers 2xx here.
    Path(String),
}

impl Value for Ready {
    const EXPECTED: &'static str = "a path such as \"/readyz\", or \"tcp\"";

    fn notation() -> Notation {
        Notation::Either(vec![Notation::Words(vec!["tcp"]), Notation::pattern(r"/[^#\s]*")])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        match text {
            "tcp" => Ok(Ready::Tcp),
            path if path.starts_with('/')
                && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') =>
            {
                Ok(Ready::Path(path.to_owned()))
            }
            _ => Err(unexpected::<Self>(&format!("the text {text:?}"))),
        }
    }
}

impl OneOfWords for CommandListen {
    const WHAT: &'static str = "where instances listen";
    const WORDS: &'static [(&'static str, Self)] =
        &[("port", Self::Port), ("unix", Self::Unix), ("shared", Self::Shared)];
}

impl Value for CommandOutput {
    const EXPECTED: &'static str = "\"log\", or a file such as \"logs/app.log\"";

    fn notation() -> Notation {
        Notation::Text
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        match text {
            "log" => Ok(CommandOutput::Log),
            path => std::path::PathBuf::from_text(path).map(CommandOutput::File),
        }
    }
}

impl OneOfWords for StopSignal {
    const WHAT: &'static str = "a signal";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("TERM", Self::Term),
        ("INT", Self::Int),
        ("QUIT", Self::Quit),
        ("HUP", Self::Hup),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
    ];
}

impl Value for HeaderValue {
    const EXPECTED: &'static str = "a field value such as \"public, max-age=300\"";

    fn notation() -> Notation {
        Notation::Text
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        match HeaderValue::from_str(text) {
            Ok(value) if plain && !text.trim().is_empty() && text.trim() == text => Ok(value),
            _ => Err(Unreadable::new(
                format!("{text:?} is no field value"),
                "write visible ASCII on one line, such as \"public, max-age=300\"",
            )),
        }
    }
}

/// A value that is one of a few words; the refusal of a near miss names the nearest.
pub(super) trait OneOfWords: Copy + 'static {
    /// What they are for: `a signal`.
    const WHAT: &'static str;
    const WORDS: &'static [(&'static str, Self)];
    /// Whether they may be written in letters of either case; they stand here in small ones.
    const ANY_CASE: bool = false;
}

impl<W: OneOfWords> Value for W {
    const EXPECTED: &'static str = W::WHAT;

    fn notation() -> Notation {
        let words = W::WORDS.iter().map(|(word, _)| *word);
        let plain = Notation::Words(words.clone().collect());
        match W::ANY_CASE {
            false => plain,
            true => {
                let spellings: Vec<String> = words.map(any_case).collect();
                Notation::Either(vec![plain, Notation::pattern(any_of(spellings.iter().map(String::as_str)))])
            }
        }
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let spelt = if W::ANY_CASE { text.to_ascii_lowercase() } else { text.to_owned() };
        if let Some((_, choice)) = W::WORDS.iter().find(|(word, _)| *word == spelt) {
            return Ok(*choice);
        }
        Err(Unreadable::new(
            format!("expected {}, found {spelt:?}", W::WHAT),
            nearest_or_list(&spelt, W::WORDS.iter().map(|(word, _)| *word)),
        ))
    }
}

impl OneOfWords for BesideGet {
    const WHAT: &'static str = "what is read from the cache beside GET";
    const WORDS: &'static [(&'static str, Self)] =
        &[("query", Self::Query), ("graphql", Self::Graphql), ("options", Self::Options)];
}

impl OneOfWords for LogFormat {
    const WHAT: &'static str = "a log format";
    const WORDS: &'static [(&'static str, Self)] =
        &[("json", Self::Json), ("pretty", Self::Pretty), ("off", Self::Off)];
}

/// A method that is not idempotent (RFC 9110 §9.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct UnsafeMethod(pub(in crate::settings) Method);

impl Value for UnsafeMethod {
    const EXPECTED: &'static str = "\"POST\" or \"PATCH\"";

    fn notation() -> Notation {
        Notation::Words(vec!["POST", "PATCH"])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        match text {
            "POST" => Ok(Self(Method::POST)),
            "PATCH" => Ok(Self(Method::PATCH)),
            _ => Err(Unreadable::new(
                format!("{text:?} is no method that needs to be named here"),
                "write \"POST\" or \"PATCH\": requests of idempotent methods (GET, PUT, DELETE) are sent again unnamed",
            )),
        }
    }
}

impl OneOfWords for RequestIdInAnswers {
    const WHAT: &'static str = "which answers tell the request's id";
    const WORDS: &'static [(&'static str, Self)] =
        &[("errors", Self::Errors), ("always", Self::Always), ("never", Self::Never)];
}

impl OneOfWords for OverloadControl {
    const WHAT: &'static str = "\"off\" or \"adaptive\"";
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("adaptive", Self::Adaptive)];
}

impl OneOfWords for ProxyProtocol {
    const WHAT: &'static str = "\"off\", \"v1\" or \"v2\"";
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("v1", Self::V1), ("v2", Self::V2)];
}

impl OneOfWords for TlsVersion {
    const WHAT: &'static str = "\"1.2\" or \"1.3\"";
    const WORDS: &'static [(&'static str, Self)] = &[("1.2", Self::V1_2), ("1.3", Self::V1_3)];
}

impl OneOfWords for IdentityPart {
    const WHAT: &'static str = "a part of the client's certificate";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("certificate", Self::Certificate),
        ("chain", Self::Chain),
        ("subject", Self::Subject),
        ("issuer", Self::Issuer),
        ("serial", Self::Serial),
        ("fingerprint", Self::Fingerprint),
    ];
}

impl OneOfWords for UnknownNames {
    const WHAT: &'static str = "\"default\" or \"refuse\"";
    const WORDS: &'static [(&'static str, Self)] = &[("default", Self::Default), ("refuse", Self::Refuse)];
}

impl OneOfWords for SetCookie {
    const WHAT: &'static str = "a rule for Set-Cookie";
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("strip", Self::Strip), ("store", Self::Store)];
}

impl OneOfWords for ClientDirectives {
    const WHAT: &'static str = "a rule for client directives";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("honour", Self::Honour),
        ("ignore-reloads", Self::IgnoreReloads),
        ("ignore-relaxations", Self::IgnoreRelaxations),
        ("ignore-all", Self::IgnoreAll),
    ];
}

impl OneOfWords for EncodedSlash {
    const WHAT: &'static str = "what becomes of %2F in a path";
    const WORDS: &'static [(&'static str, Self)] =
        &[("keep", Self::Keep), ("decode", Self::Decode), ("refuse", Self::Refuse)];
}

impl OneOfWords for ForwardedBy {
    const WHAT: &'static str = "a field by which proxies name the client";
    const WORDS: &'static [(&'static str, Self)] =
        &[("x-forwarded-for", Self::XForwardedFor), ("forwarded", Self::Forwarded)];
    const ANY_CASE: bool = true;
}

impl OneOfWords for Unheard {
    const WHAT: &'static str = "what becomes of what is stored while other edges are not heard";
    const WORDS: &'static [(&'static str, Self)] = &[("validate", Self::Validate), ("serve", Self::Serve)];
}

impl Value for RedisUrl {
    const EXPECTED: &'static str = "a URL such as \"redis://127.0.0.1:6379\"";

    fn notation() -> Notation {
        Notation::pattern("(redis|rediss|unix)://[^#?]*")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let one = "name one server, or the address at which the one that takes writes is found: redis://redis.internal:6379";
        if scheme.contains("sentinel") {
            return Err(Unreadable::new(
                "Sentinels are not part of the URL",
                "write sentinels = [\"redis://10.0.0.1:26379\"] beside it, and the name by which they know the server in it: redis://main",
            ));
        }
        if scheme.contains("cluster") {
            return Err(Unreadable::new("a cluster is not supported: what is purged lies in one place", one));
        }
        if !["redis", "rediss", "unix"].contains(&scheme) || text.contains(['#', '?']) {
            return Err(Unreadable::new(
                format!("{:?} is no URL of a Redis", text.split('@').next_back().unwrap_or_default()),
                "write redis://HOST:PORT, rediss://HOST:PORT for TLS, or unix:///PATH",
            ));
        }
        RedisUrl::new(text).ok_or_else(|| {
            Unreadable::new(
                "the URL of the Redis cannot be read",
                "write redis://USER:PASSWORD@HOST:PORT/DATABASE; what is not a letter or digit of the password as %XX",
            )
        })
    }

    fn from_list(_list: Vec<String>) -> Result<Self, Unreadable> {
        Err(Unreadable::new(
            "several servers are not supported",
            "name one server: \"redis://127.0.0.1:6379\"; or `sentinels`, who know which one takes writes",
        ))
    }
}

impl OneOfWords for Ranges {
    const WHAT: &'static str = "a rule for ranges";
    const WORDS: &'static [(&'static str, Self)] =
        &[("parts", Self::Parts), ("fitted", Self::Fitted), ("whole", Self::Whole)];
}

impl Value for HeaderName {
    const EXPECTED: &'static str = "a field name such as \"CDN-Cache-Control\"";

    fn notation() -> Notation {
        Notation::pattern(format!("{TOKEN}+"))
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
            Unreadable::new(
                format!("{text:?} is no field name"),
                "write a name such as \"CDN-Cache-Control\"",
            )
        })
    }
}

impl OneOfWords for Cookies {
    const WHAT: &'static str = "a rule for cookies";
    const WORDS: &'static [(&'static str, Self)] = &[("origin", Self::Origin), ("bypass", Self::Bypass)];
}

/// Names of cookies; one that ends in `*` is every name that begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct CookieNames(pub(in crate::settings) Vec<String>);

impl Value for CookieNames {
    const EXPECTED: &'static str = "a list of cookie names";

    fn notation() -> Notation {
        Notation::List(Box::new(Notation::pattern(format!("{TOKEN}*"))), 1)
    }

    fn from_list(names: Vec<String>) -> Result<Self, Unreadable> {
        match IgnoredCookies::from_list(names)? {
            IgnoredCookies::Named(names) if !names.is_empty() => Ok(Self(names)),
            _ => Err(Unreadable::new(
                "an empty list has no cookie go past the cache",
                "name some, or write ignore_cookies = true",
            )),
        }
    }
}

impl Value for IgnoredCookies {
    const EXPECTED: &'static str = "a list of cookie names, or true for all";

    fn notation() -> Notation {
        Notation::Either(vec![
            Notation::Boolean,
            Notation::List(Box::new(Notation::pattern(format!("{TOKEN}*"))), 0),
        ])
    }

    fn from_boolean(boolean: bool) -> Result<Self, Unreadable> {
        Ok(if boolean { IgnoredCookies::All } else { IgnoredCookies::Named(Vec::new()) })
    }

    fn from_list(names: Vec<String>) -> Result<Self, Unreadable> {
        // RFC 6265 §4.1.1: a cookie name is a token.
        let token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
        match names.iter().find(|name| !name.bytes().all(token)) {
            Some(name) => Err(Unreadable::new(
                format!("{name:?} is no cookie name"),
                "write names without values; \"_ga*\" is every name that begins so",
            )),
            None => Ok(IgnoredCookies::Named(names)),
        }
    }
}

impl OneOfWords for SecurityFields {
    const WHAT: &'static str = "\"strict\" or \"off\"";
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("strict", Self::Strict)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_exact_or_have_one_star() {
        let pattern = |text| PathPattern::from_text(text).ok();
        assert_eq!(pattern("/*"), Some(PathPattern::Prefix("/".into())));
        assert_eq!(pattern("/api/*"), Some(PathPattern::Prefix("/api/".into())));
        assert_eq!(pattern("/robots.txt"), Some(PathPattern::Exact("/robots.txt".into())));
        assert_eq!(pattern("/a/*/b"), Some(PathPattern::Between("/a/".into(), "/b".into())));
        assert_eq!(pattern("/*/b/c"), Some(PathPattern::Between("/".into(), "/b/c".into())));
        for bad in [
            "api/*",
            "/a*",
            "/a*/b",
            "/a/*b/c",
            "/a/*/*",
            "/a/*/b/*",
            "/a/*/b/*/c",
            "/a/../b",
            "/a/%2e%2E/b",
            "/a//b",
            "/a?b",
            "/a b",
            "/ä",
            "",
            "*",
        ] {
            assert_eq!(pattern(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_star_between_slashes_is_one_segment() {
        let pattern = PathPattern::from_text("/products/*/stock").expect("a pattern");
        assert!(pattern.holds("/products/red-kettle/stock"));
        for other in [
            "/products//stock",
            "/products/stock",
            "/products/a/b/stock",
            "/products/a/stock/",
            "/products/a",
        ] {
            assert!(!pattern.holds(other), "{other}");
        }
    }

    /// A route for `/caf%c3%a9` or `/%7Ea` never met a request: requests have one spelling.
    #[test]
    fn routes_name_paths_in_any_spelling() {
        let pattern = |text| PathPattern::from_text(text).ok();
        assert_eq!(pattern("/caf%c3%a9/*"), Some(PathPattern::Prefix("/caf%C3%A9/".into())));
        assert_eq!(pattern("/%7Ea|b"), Some(PathPattern::Exact("/~a%7Cb".into())));
        assert_eq!(pattern("/a%2fb"), Some(PathPattern::Exact("/a%2Fb".into())));
    }
}
