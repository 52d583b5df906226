//! The values an operator writes: sizes, durations, rates, addresses, patterns, choices.
//!
//! Owns their notation and nothing else: text in, a typed value or a reason with a remedy out. Never knows which key
//! it reads, nor where in the file it stands; [`Written`] keeps the place for those who report it.

mod actions;
mod amounts;
mod authorities;
mod choices;
mod places;
mod servers;

use std::{fmt, marker::PhantomData, ops::Range, path::PathBuf};

use serde::de::{
    Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};
use toml::Spanned;

use crate::settings::notation::{Notation, Shape};

pub(super) use actions::{
    PlainOrTable, RedirectTarget, WrittenFiles, WrittenMaintenance, WrittenRedirect, WrittenRespond,
};
pub use amounts::ByteSize;
pub(super) use amounts::{
    AtMost, Count, Deadline, Instances, Lifetime, Lifetimes, Percent, Positive, PositiveSize, Rate,
    ServerError, Threads,
};
pub(super) use authorities::{AskUrl, CertifiedPattern, Directory, Email, ServedNames};
pub(super) use choices::{CookieNames, PathPrefix, Paths, Ready, UnsafeMethod};
pub(super) use places::{Host, ProxyPeers};
pub(super) use servers::{
    CertificateName, CheckPath, CookieSign, FieldSign, ServedName, WellStatus, WrittenServer,
};

/// Why a value is refused, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Unreadable {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Unreadable {
        Unreadable { message: message.into(), help: Some(help.into()) }
    }
}

/// A value that can be read from one of TOML's scalars (or a list of text).
pub(super) trait Value: Sized {
    /// What belongs here, with an example: `a duration such as "60s"`.
    const EXPECTED: &'static str;

    /// How it is written. What is read is written so; of what is refused, as much as a text tells by itself is not.
    fn notation() -> Notation;

    /// Reads a string.
    fn from_text(text: &str) -> Result<Self, Unreadable> {
        Err(unexpected::<Self>(&format!("the text {text:?}")))
    }

    /// Reads a whole number.
    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        Err(unexpected::<Self>(&format!("the number {number}")))
    }

    /// Reads `true` or `false`.
    fn from_boolean(boolean: bool) -> Result<Self, Unreadable> {
        Err(unexpected::<Self>(&boolean.to_string()))
    }

    /// Reads a list of strings.
    fn from_list(_list: Vec<String>) -> Result<Self, Unreadable> {
        Err(unexpected::<Self>("a list"))
    }
}

fn unexpected<T: Value>(found: &str) -> Unreadable {
    Unreadable { message: format!("expected {}, found {found}", T::EXPECTED), help: None }
}

/// A value and where it stands (a byte range of the file). A value that cannot be read is kept as its refusal, so that
/// one bad value does not hide the next one.
#[derive(Clone, Debug)]
pub(super) struct Written<T> {
    pub(super) span: Range<usize>,
    pub(super) value: Result<T, Unreadable>,
}

impl<'de, T: Value> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Read<T>>::deserialize(deserializer)?;
        Ok(Written { span: spanned.span(), value: spanned.into_inner().0 })
    }
}

impl<T: Value> Shape for Written<T> {
    fn notation() -> Notation {
        T::notation()
    }
}

struct Read<T>(Result<T, Unreadable>);

impl<'de, T: Value> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadVisitor(PhantomData))
    }
}

struct ReadVisitor<T>(PhantomData<T>);

impl<'de, T: Value> Visitor<'de> for ReadVisitor<T> {
    type Value = Read<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E>(self, text: &str) -> Result<Read<T>, E> {
        Ok(Read(T::from_text(text)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Read<T>, E> {
        Ok(Read(T::from_integer(number)))
    }

    fn visit_bool<E>(self, boolean: bool) -> Result<Read<T>, E> {
        Ok(Read(T::from_boolean(boolean)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Read<T>, E> {
        Ok(Read(Err(unexpected::<T>(&format!("the number {number}")))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Read<T>, A::Error> {
        let mut texts = Vec::new();
        let mut other = None;
        while let Some(element) = list.next_element::<Read<Text>>()? {
            match element.0 {
                Ok(text) => texts.push(text.0),
                Err(refused) => other = Some(refused),
            }
        }
        Ok(Read(match other {
            Some(refused) => Err(refused),
            None => T::from_list(texts),
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read<T>, A::Error> {
        let mut found = "a table";
        // A date arrives from toml as a map with one private key.
        while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if key.starts_with("$__toml_private") {
                found = "a date";
            }
        }
        Ok(Read(Err(unexpected::<T>(found))))
    }
}

/// A table and where it stands: its header, or its braces.
///
/// What serde derives for a struct would also take a list, its values in the order of the keys; this takes tables alone.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    pub(super) span: Range<usize>,
    pub(super) value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<OfMap<T>>::deserialize(deserializer)?;
        Ok(Table { span: spanned.span(), value: spanned.into_inner().0 })
    }
}

impl<T: Shape> Shape for Table<T> {
    fn notation() -> Notation {
        T::notation()
    }
}

struct OfMap<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OfMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OfMapVisitor(PhantomData))
    }
}

struct OfMapVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMapVisitor<T> {
    type Value = OfMap<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OfMap<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(OfMap)
    }
}

/// One name, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LimitNames(pub(super) Vec<Text>);

impl Value for LimitNames {
    const EXPECTED: &'static str = "a name in quotes, or a list of names";

    fn notation() -> Notation {
        Notation::Either(vec![Notation::Text, Notation::List(Box::new(Notation::Text), 0)])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        Text::from_text(text).map(|name| Self(vec![name]))
    }

    fn from_list(list: Vec<String>) -> Result<Self, Unreadable> {
        list.into_iter().map(|name| Text::from_text(&name)).collect::<Result<_, _>>().map(Self)
    }
}

/// Any text but the empty one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Text(pub(super) String);

impl Value for Text {
    const EXPECTED: &'static str = "a text in quotes";

    fn notation() -> Notation {
        Notation::Text
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        if text.is_empty() {
            return Err(Unreadable { message: "the text is empty".into(), help: None });
        }
        if text.contains('\0') {
            return Err(Unreadable { message: "the text holds a NUL character".into(), help: None });
        }
        Ok(Text(text.to_owned()))
    }
}

/// Text that may be empty: the value of an environment variable.
impl Value for String {
    const EXPECTED: &'static str = Text::EXPECTED;

    fn notation() -> Notation {
        Notation::AnyText
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        if text.is_empty() { Ok(String::new()) } else { Text::from_text(text).map(|text| text.0) }
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn notation() -> Notation {
        Notation::Text
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        Text::from_text(text).map(|text| PathBuf::from(text.0))
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn notation() -> Notation {
        Notation::Boolean
    }

    fn from_boolean(boolean: bool) -> Result<Self, Unreadable> {
        Ok(boolean)
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let mut refused = unexpected::<Self>(&format!("the text {text:?}"));
        if text == "true" || text == "false" {
            refused.help = Some(format!("write {text} without quotes"));
        }
        Err(refused)
    }
}

/// `did you mean "upstream"?` where one of the valid names is near, else the list of them.
pub(super) fn nearest_or_list<'a>(written: &str, valid: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(nearest) = nearest(written, valid.clone()) {
        return format!("did you mean {nearest:?}?");
    }
    let names: Vec<String> = valid.map(|name| format!("{name:?}")).collect();
    match names.as_slice() {
        [] => "there is none".to_owned(),
        [only] => format!("only {only} is known here"),
        [rest @ .., last] => format!("one of {} or {last}", rest.join(", ")),
    }
}

/// The valid name that a slip of the keyboard most likely meant: at most a third of its letters differ.
fn nearest<'a>(written: &str, valid: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    valid
        .map(|name| (strsim::osa_distance(&written, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.chars().count().max(written.chars().count()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use http::{HeaderName, HeaderValue, Method};
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::{
        actions::{RedirectStatus, RedirectTarget, StatedStatus},
        amounts::Lifetime,
        *,
    };
    use crate::settings::{
        AdminAddress, AllowedOrigins, Balance, CommandOutput, CountedBy, ForwardedBy, HostPattern, Hsts,
        Location, LogFormat, MediaRange, PathPattern, RedisUrl, RequestField, ResponseField, StopSignal,
        UpgradeProtocol, sources::IncludePattern,
    };

    fn read<T: Value>(value: &toml::Value) -> bool {
        match value {
            toml::Value::String(text) => T::from_text(text).is_ok(),
            toml::Value::Integer(number) => T::from_integer(*number).is_ok(),
            toml::Value::Boolean(boolean) => T::from_boolean(*boolean).is_ok(),
            toml::Value::Array(list) => {
                let texts: Option<Vec<String>> =
                    list.iter().map(|one| one.as_str().map(str::to_owned)).collect();
                texts.is_some_and(|texts| T::from_list(texts).is_ok())
            }
            other => panic!("no scalar: {other}"),
        }
    }

    /// The reader and its notation take each of the good, and neither takes one of the bad; as TOML writes them in a list.
    #[track_caller]
    fn agrees<T: Value>(good: &str, bad: &str) {
        for (list, taken) in [(good, true), (bad, false)] {
            let document: toml::Table = format!("all = [{list}]").parse().unwrap();
            for value in document["all"].as_array().unwrap() {
                assert_eq!(read::<T>(value), taken, "the reader: {value}");
                assert_eq!(T::notation().takes(value), taken, "the notation: {value}");
            }
        }
    }

    #[test]
    fn what_is_said_of_a_notation_is_what_its_reader_takes() {
        agrees::<bool>("true, false", "'true', 1, []");
        agrees::<Count>("0, 4294967295", "-1, 4294967296, '1', true");
        agrees::<Threads>("0, 1024", "-1, 1025");
        agrees::<Positive>("1, 4294967295", "0, '1'");
        agrees::<AtMost<10>>("1, 10", "0, 11");
        agrees::<Instances>("1, 256, 'cores'", "0, 257, 'core'");
        agrees::<Percent>("'0%', '100%', '007%', '+5%'", "'101%', '5', 5, '-1%'");
        agrees::<ServerError>("500, 599", "499, 600");
        agrees::<WellStatus>("200, 599", "199, 600, '200'");
        agrees::<RedirectStatus>("301, 302, 303, 307, 308", "300, 304, '301'");
        agrees::<StatedStatus>("200, 404, 599", "199, 600, '404'");
        agrees::<ByteSize>("'0 B', '64KiB', '5   MB'", "'256', '256 Mib', 256, '1.5 GiB', ' 1 B', '-1 B'");
        agrees::<PositiveSize>("'1 B', '010 kB'", "'0 B', '00 MiB', 1");
        agrees::<Duration>("'0s', '500ms', '365d'", "'5', 75, '1w', '1 s', '5 minutes'");
        agrees::<Deadline>("'1ms', '01h'", "'0s', 1");
        agrees::<Lifetime>("'0s', '10m'", "'10', 10");
        agrees::<Rate>("'50/s', '100/m', '1/d'", "'0/s', '50', '50/ms', 50");
        agrees::<Hsts>("'365d', '0s', ' 365d  includeSubDomains preload '", "'on', '365d includeSubdomains'");
        agrees::<MediaRange>("'text/*', 'application/*+json'", "'text', 'text/', '/css', 'a b/c'");
        agrees::<UpgradeProtocol>("'websocket', 'a/1'", "'', 'a b', 'a/b/c'");
        agrees::<PathPattern>("'/*', '/a/*/b', '/%7Ea'", "'api/*', '/a?b', '/a#b', '/a b', ''");
        agrees::<Paths>("'/*', ['/a', '/b/*']", "[], ['a'], 1");
        agrees::<PathPrefix>("'/api'", "'api', ''");
        agrees::<Method>("'GET', 'M-SEARCH'", "'get', '', 'G T'");
        agrees::<Ready>("'tcp', '/readyz?x=1'", "'readyz', '/a b', '/a#b'");
        agrees::<CommandOutput>("'log', 'logs/app.log'", "'', true");
        agrees::<HeaderValue>("'public, max-age=300'", "'', 1");
        agrees::<UnsafeMethod>("'POST', 'PATCH'", "'GET', 'post'");
        agrees::<StopSignal>("'TERM', 'USR2'", "'term', 'KILL', 15");
        agrees::<LogFormat>("'json', 'pretty', 'off'", "'JSON', '', false");
        agrees::<ForwardedBy>("'x-forwarded-for', 'X-Forwarded-For', 'Forwarded'", "'x-real-ip'");
        agrees::<RedisUrl>(
            "'redis://a:6379', 'rediss://u:p@a/1', 'unix:///run/r'",
            "'http://a', 'redis://a?b', ['redis://a']",
        );
        agrees::<HeaderName>("'CDN-Cache-Control'", "'', 'a b', 'a:b'");
        agrees::<CookieNames>("['session', 'wp_*']", "[], ['a=b'], 'a'");
        agrees::<cache_policy::IgnoredCookies>("true, false, [], ['_ga*']", "'_ga', ['a;b']");
        agrees::<SocketAddr>("'[::]:8080', '127.0.0.1:0'", "'8080', '127.0.0.1', '127.0.0.1:a'");
        agrees::<AdminAddress>("'127.0.0.1:9900', 'unix:/run/admin.sock'", "'unix:', 'localhost'");
        agrees::<ProxyPeers>("true, false, ['10.0.0.0/8', '2001:db8::1']", "[], 'v2', ['localhost']");
        agrees::<IpNet>("'10.0.0.7', '10.0.0.0/8', '2001:db8::/32'", "'10.0.0.0/', 'localhost', ''");
        agrees::<HostPattern>(
            "'Shop.Test.', '*.shop.test', '[2001:DB8:0::1]'",
            "'*', 'a.*', 'a:80', 'http://a', ''",
        );
        agrees::<Host>("'shop.test', '[::1]'", "'*.shop.test', 'a b', ''");
        agrees::<AllowedOrigins>(
            "'*', 'https://a.test', ['https://*.a.test', 'http://b:3000']",
            "[], 'a.test', 'https://a/'",
        );
        agrees::<ServedName>("'shop.example'", "'', '*.a.test', 'a:80', 'a/b'");
        agrees::<ServedNames>("'shop.example', ['a.test', 'b.test']", "[], 'a b', 1");
        agrees::<Directory>("'letsencrypt', 'HTTPS://ca.test/dir'", "'http://ca.test', 'zerossl'");
        agrees::<Email>("'admin@shop.example'", "'admin', 'admin@shop', '@a.b'");
        agrees::<Location>(
            "'http://10.0.0.5:9000', 'HTTPS://a', 'h2c://a', 'dns+http://a:1', 'unix:/run/app.sock', 'command:app'",
            "'10.0.0.5:9000', 'ftp://a', 'http://a/path', 'http://u:p@a', 'command:', 'unix:app.sock', 'unix:'",
        );
        agrees::<Balance>(
            "'two-choices', ' round-robin ', 'hash  client', 'hash header x', 'hash cookie s', 'sticky s'",
            "'random', 'hash', 'hash header', 'hash header a:b', ''",
        );
        agrees::<CountedBy>("'client', 'path client', 'header X-Key', 'all'", "'ip', 'header', 'client all'");
        agrees::<FieldSign>("'X-Canary', 'X-Canary: yes'", "'', 'X-Canary:', 'X-Canary: ', 'a b'");
        agrees::<CookieSign>("'canary', 'canary=yes'", "'', 'canary=', 'a b'");
        agrees::<CheckPath>("'/healthz', '/a?b=c'", "'healthz', '/a b', '/a#b'");
        agrees::<CertificateName>("'app.internal', '10.0.0.1', '2001:db8::1'", "'', 'a b', 'a/b'");
        agrees::<RequestField>("'', 'a value', true, false", "1, ['a']");
        agrees::<ResponseField>("'DENY', ['a', 'b'], true, false", "[], '', 1");
        agrees::<RedirectTarget>("'https', '/new', 'http://a.test{path}'", "'', 'new', 'ftp://a'");
        agrees::<LimitNames>("'api', ['api', 'login']", "'', [''], 1");
        agrees::<Text>("'a'", "'', 1");
        agrees::<String>("'', 'a'", "1");
        agrees::<PathBuf>("'certs/a.pem'", "'', true");
        agrees::<IncludePattern>("'conf.d/*.toml'", "'', 1");
    }

    /// Where a reader takes a text, the notation does.
    fn is_noted<T: Value>(text: &str) {
        if T::from_text(text).is_ok() {
            assert!(T::notation().takes(&toml::Value::String(text.to_owned())), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_editor_refuses_what_a_reader_takes(
            text in r"(https?://|unix:|command:|/|\*\.|\[|hash |sticky |redis://|HTTPS://)?[0-9a-zA-Z:/.*\[\]@%{}=+, -]{0,8}( ?(MiB|B|s|ms|%|/m|:80|/8|\]))?",
        ) {
            let all = [
                is_noted::<Percent>, is_noted::<ByteSize>, is_noted::<PositiveSize>, is_noted::<Duration>,
                is_noted::<Deadline>, is_noted::<Rate>, is_noted::<Hsts>, is_noted::<MediaRange>,
                is_noted::<UpgradeProtocol>, is_noted::<PathPattern>, is_noted::<PathPrefix>, is_noted::<Method>,
                is_noted::<Ready>, is_noted::<RedisUrl>, is_noted::<HeaderName>, is_noted::<HeaderValue>,
                is_noted::<SocketAddr>, is_noted::<AdminAddress>, is_noted::<IpNet>, is_noted::<HostPattern>,
                is_noted::<Host>, is_noted::<AllowedOrigins>, is_noted::<ServedName>, is_noted::<ServedNames>,
                is_noted::<Directory>, is_noted::<Email>, is_noted::<Location>, is_noted::<Balance>,
                is_noted::<CountedBy>, is_noted::<FieldSign>, is_noted::<CookieSign>, is_noted::<CheckPath>,
                is_noted::<CertificateName>, is_noted::<RedirectTarget>, is_noted::<IncludePattern>,
            ];
            for is_noted in all {
                is_noted(&text);
            }
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC*") {
            let _ = ByteSize::from_text(&text);
            let _ = <Duration as Value>::from_text(&text);
            let _ = Rate::from_text(&text);
            let _ = PathPattern::from_text(&text);
            let _ = Location::from_text(&text);
            let _ = Balance::from_text(&text);
            let _ = CheckPath::from_text(&text);
            let _ = CertificateName::from_text(&text);
            let _ = HostPattern::from_text(&text);
            let _ = IpNet::from_text(&text);
            let _ = HeaderValue::from_text(&text);
            let _ = nearest_or_list(&text, ["upstream", "limit"].into_iter());
        }
    }
}
