//! Servers of upstreams, and how they are chosen and looked at.

use std::{fmt, marker::PhantomData, path::PathBuf, sync::Arc};

use http::{HeaderName, HeaderValue, Uri, uri::Authority};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::{Positive, Read, ReadVisitor, Unreadable, Value, Written, unexpected};
use crate::settings::{
    Balance, CountedBy, HashKey, Location, RequestField, ServerProtocol, Sign,
    notation::{Notation, Shape, TOKEN, any_case, tables},
};

/// A server as its address, or as a table around it.
#[derive(Debug)]
pub(in crate::settings) enum WrittenServer {
    Plain(Result<Location, Unreadable>),
    Table(ServerTable),
}

tables! {
    /// `{ url = .., weight = .., backup = .. }`
    #[derive(Debug)]
    struct ServerTable {
        url: Option<Written<Location>>,
        weight: Option<Written<Positive>>,
        backup: Option<Written<bool>>,
    }
}

impl Shape for WrittenServer {
    fn notation() -> Notation {
        Notation::Either(vec![Location::notation(), ServerTable::notation()])
    }
}

impl<'de> Deserialize<'de> for WrittenServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenServerVisitor)
    }
}

struct WrittenServerVisitor;

impl<'de> Visitor<'de> for WrittenServerVisitor {
    type Value = WrittenServer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Location::EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<WrittenServer, E> {
        let read: Read<Location> = ReadVisitor(PhantomData).visit_str(text)?;
        Ok(WrittenServer::Plain(read.0))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenServer, A::Error> {
        ServerTable::deserialize(MapAccessDeserializer::new(map)).map(WrittenServer::Table)
    }
}

const SERVER_HELP: &str = "write \"http://host:port\", \"https://..\", \"h2c://..\", \"dns+http://name:port\" (each of its addresses is a \
                           server), \"unix:/run/app.sock\" or \"command:NAME\"";

impl Value for Location {
    const EXPECTED: &'static str = "a server such as \"http://10.0.0.5:9000\" or \"command:origin\"";

    fn notation() -> Notation {
        Notation::pattern(format!(
            r"command:.+|unix:/.*|(dns\+)?({}|{}|h2c)://[^/?#@]+",
            any_case("http"),
            any_case("https")
        ))
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = |help: &str| Unreadable::new(format!("{text:?} is no server"), help);
        if let Some(name) = text.strip_prefix("command:") {
            return if name.is_empty() { Err(bad(SERVER_HELP)) } else { Ok(Self::Command(name.into())) };
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let plain = path.starts_with('/') && !path.contains('\0');
            return match plain && path.len() <= LONGEST_SOCKET {
                true => Ok(Self::Unix(PathBuf::from(path))),
                false => Err(bad("write the whole path of at most 107 bytes, as in \"unix:/run/app.sock\"")),
            };
        }
        let (each, url) = match text.strip_prefix("dns+") {
            Some(url) => (true, url),
            None => (false, text),
        };
        let uri: Uri = url.parse().map_err(|_| bad(SERVER_HELP))?;
        let (protocol, port) = match uri.scheme_str() {
            Some("http") => (ServerProtocol::Http1, 80),
            Some("https") => (ServerProtocol::Tls, 443),
            Some("h2c") => (ServerProtocol::H2c, 80),
            _ => return Err(bad(SERVER_HELP)),
        };
        let authority = uri.authority().ok_or_else(|| bad(SERVER_HELP))?;
        if authority.as_str().contains('@') {
            return Err(bad("leave user and password out: the edge sends none"));
        }
        if uri.path() != "/" || uri.query().is_some() || text.ends_with('/') {
            return Err(bad("leave the path out: requests keep their own"));
        }
        let port = match written_port(authority) {
            None => port,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| bad("the port is a number from 1 to 65535"))?,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad(SERVER_HELP));
        }
        if protocol == ServerProtocol::Tls && rustls_pki_types::ServerName::try_from(host).is_err() {
            return Err(bad("no certificate can be for this host"));
        }
        let host: Arc<str> = host.to_ascii_lowercase().into();
        if !each {
            return Ok(Self::Network { protocol, host, port });
        }
        match host.parse::<std::net::IpAddr>() {
            Ok(_) => Err(bad("an address needs no name server: leave `dns+` out")),
            Err(_) => Ok(Self::EachAddress { protocol, host, port }),
        }
    }
}

fn written_port(authority: &Authority) -> Option<&str> {
    authority.as_str()[authority.host().len()..].strip_prefix(':')
}

/// What the system takes as the path of a Unix socket (unix(7): 108 bytes with the NUL at its end).
const LONGEST_SOCKET: usize = 107;

impl Value for Balance {
    const EXPECTED: &'static str = "\"two-choices\", \"round-robin\" or \"hash client\"";

    fn notation() -> Notation {
        Notation::Either(vec![
            Notation::Words(vec!["two-choices", "round-robin", "hash client", "hash path"]),
            Notation::pattern(r"\s*(two-choices|round-robin)\s*|\s*hash\s+(client|path)\s*"),
            Notation::pattern(format!(r"\s*(hash\s+header|hash\s+cookie|sticky)\s+{TOKEN}+\s*")),
        ])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        const HELP: &str = "write \"two-choices\", \"round-robin\", \"hash client\", \"hash path\", \"hash header NAME\", \
                            \"hash cookie NAME\" or \"sticky NAME\" (of a cookie that the edge sets)";
        let bad = || Unreadable::new(format!("{text:?} is no way to choose a server"), HELP);
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words[..] {
            ["two-choices"] => Ok(Self::TwoChoices),
            ["round-robin"] => Ok(Self::RoundRobin),
            ["hash", "client"] => Ok(Self::Hash(HashKey::Client)),
            ["hash", "path"] => Ok(Self::Hash(HashKey::Path)),
            ["hash", "header", name] => {
                let name = name.parse::<HeaderName>().map_err(|_| bad())?;
                Ok(Self::Hash(HashKey::Header(name)))
            }
            ["hash", "cookie", name] if is_cookie_name(name) => Ok(Self::Hash(HashKey::Cookie(name.into()))),
            ["sticky", name] if is_cookie_name(name) => Ok(Self::Sticky(name.into())),
            _ => Err(bad()),
        }
    }
}

impl Value for CountedBy {
    const EXPECTED: &'static str = "\"client\", \"path\", \"client path\", \"header NAME\" or \"all\"";

    fn notation() -> Notation {
        Notation::Either(vec![
            Notation::Words(vec!["client", "path", "client path", "all"]),
            Notation::pattern(format!(
                r"\s*(client|path|all|client\s+path|path\s+client|header\s+{TOKEN}+)\s*"
            )),
        ])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = || {
            let help = "write \"client\", \"path\", \"client path\", \"header NAME\", or \"all\" for one count of all requests";
            Unreadable::new(format!("{text:?} is nothing by which requests are counted"), help)
        };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words[..] {
            ["client"] => Ok(Self::Client),
            ["path"] => Ok(Self::Path),
            ["client", "path"] | ["path", "client"] => Ok(Self::ClientAndPath),
            ["all"] => Ok(Self::All),
            ["header", name] => name.parse::<HeaderName>().map(Self::Header).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

/// RFC 6265 §4.1.1: a token.
fn is_cookie_name(name: &str) -> bool {
    name.parse::<HeaderName>().is_ok()
}

/// A field that asks for a canary: its name, or `Name: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct FieldSign(pub(in crate::settings) Sign);

impl Value for FieldSign {
    const EXPECTED: &'static str = "a field such as \"X-Canary\" or \"X-Canary: yes\"";

    fn notation() -> Notation {
        Notation::pattern(format!(r"{TOKEN}+(:[\s\S]*\S[\s\S]*)?"))
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.trim())),
            None => (text, None),
        };
        let name = name.parse::<HeaderName>();
        match (name, value) {
            (Ok(name), value) if value != Some("") => {
                Ok(Self(Sign { name: name.as_str().into(), value: value.map(Arc::from) }))
            }
            _ => Err(unexpected::<Self>(&format!("the text {text:?}"))),
        }
    }
}

/// A cookie that asks for a canary: its name, or `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct CookieSign(pub(in crate::settings) Sign);

impl Value for CookieSign {
    const EXPECTED: &'static str = "a cookie such as \"canary\" or \"canary=yes\"";

    fn notation() -> Notation {
        Notation::pattern(format!(r"{TOKEN}+(=[\s\S]+)?"))
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match is_cookie_name(name) && value != Some("") {
            true => Ok(Self(Sign { name: name.into(), value: value.map(Arc::from) })),
            false => Err(unexpected::<Self>(&format!("the text {text:?}"))),
        }
    }
}

/// A path and query that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct CheckPath(pub(in crate::settings) String);

impl Value for CheckPath {
    const EXPECTED: &'static str = "a path such as \"/healthz\"";

    fn notation() -> Notation {
        Notation::pattern(r"/[^#\s]*")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let plain = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        match plain && text.parse::<Uri>().is_ok() {
            true => Ok(Self(text.to_owned())),
            false => Err(unexpected::<Self>(&format!("the text {text:?}"))),
        }
    }
}

/// A status by which a server says that it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct WellStatus(pub(in crate::settings) u16);

impl Value for WellStatus {
    const EXPECTED: &'static str = "a status such as 200";

    fn notation() -> Notation {
        Notation::Integer(200..=599)
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        let status = u16::try_from(number).ok().filter(|status| (200..600).contains(status));
        status.map(Self).ok_or_else(|| {
            Unreadable::new(
                format!("{number} is no status of an answer"),
                "write some of 200 to 599, as in [200, 204]",
            )
        })
    }
}

/// The name of a server as its certificate has it: a host name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct CertificateName(pub(in crate::settings) String);

impl Value for CertificateName {
    const EXPECTED: &'static str = "a name such as \"app.internal\"";

    fn notation() -> Notation {
        Notation::pattern("[0-9A-Za-z._:-]+")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        match rustls_pki_types::ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.to_ascii_lowercase())),
            Err(_) => Err(Unreadable::new(
                format!("{text:?} is no name of a certificate"),
                "write a host name or an address, without port: \"app.internal\"",
            )),
        }
    }
}

/// The name of a host that clients ask for by SNI (RFC 6066 §3): lower case, never an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct ServedName(pub(in crate::settings) Box<str>);

impl Value for ServedName {
    const EXPECTED: &'static str = "a host name such as \"shop.example\"";

    fn notation() -> Notation {
        Notation::pattern("[0-9A-Za-z._-]+")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        match rustls_pki_types::DnsName::try_from(text) {
            Ok(_) if !text.ends_with('.') => Ok(Self(text.to_ascii_lowercase().into())),
            _ => Err(Unreadable::new(
                format!("{text:?} is no host name"),
                "write a name without scheme, port and star: \"shop.example\"",
            )),
        }
    }
}

impl Value for RequestField {
    const EXPECTED: &'static str = "a value, or false for none";

    fn notation() -> Notation {
        Notation::Either(vec![Notation::Boolean, Notation::AnyText])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let value = HeaderValue::from_str(text)
            .ok()
            .filter(|value| value.to_str().is_ok_and(|text| text == text.trim()));
        let mut value = value.ok_or_else(|| {
            Unreadable::new(
                format!("{text:?} is no field's value"),
                "write visible ASCII, with no space at its ends",
            )
        })?;
        // It may be a secret: no table of a connection's keeps it, and no debugging output shows it.
        value.set_sensitive(true);
        Ok(Self::Is(value))
    }

    fn from_boolean(goes_on: bool) -> Result<Self, Unreadable> {
        Ok(if goes_on { Self::Kept } else { Self::Absent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> Option<Location> {
        Location::from_text(text).ok()
    }

    #[test]
    fn servers_are_hosts_with_ports_sockets_or_commands() {
        let network =
            |protocol, host: &str, port| Some(Location::Network { protocol, host: host.into(), port });
        assert_eq!(location("http://10.0.0.5:9000"), network(ServerProtocol::Http1, "10.0.0.5", 9000));
        assert_eq!(location("http://App.internal"), network(ServerProtocol::Http1, "app.internal", 80));
        assert_eq!(
            location("http://[2001:db8::1]:9000"),
            network(ServerProtocol::Http1, "2001:db8::1", 9000)
        );
        assert_eq!(location("https://app.internal"), network(ServerProtocol::Tls, "app.internal", 443));
        assert_eq!(location("h2c://app.internal:50051"), network(ServerProtocol::H2c, "app.internal", 50051));
        assert_eq!(location("command:origin"), Some(Location::Command("origin".into())));
        assert_eq!(location("unix:/run/app.sock"), Some(Location::Unix("/run/app.sock".into())));
        let each = Location::EachAddress { protocol: ServerProtocol::Tls, host: "app".into(), port: 443 };
        assert_eq!(location("dns+https://app"), Some(each));
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in [
            "10.0.0.5:9000",
            "ftp://a",
            "http://a:0",
            "http://a:",
            "http://a/path",
            "http://a/",
            "http://u:p@a",
            "command:",
            "http://a:99999",
            "",
            "http://",
            "unix:",
            "unix:app.sock",
            &long,
            "dns+http://10.0.0.5",
            "dns+unix:/run/a",
        ] {
            assert_eq!(location(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_way_to_choose_is_shown_as_it_can_be_written() {
        for text in [
            "two-choices",
            "round-robin",
            "hash client",
            "hash path",
            "hash header x-tenant",
            "hash cookie session",
            "sticky gatehouse-server",
        ] {
            assert_eq!(Balance::from_text(text).unwrap().to_string(), text);
        }
        for bad in
            ["", "random", "hash", "hash header", "hash header a:b", "hash cookie a=b", "hash client path"]
        {
            assert!(Balance::from_text(bad).is_err(), "{bad}");
        }
    }
}
