//! What routes do: redirects and answers that the file states.

use std::{fmt, marker::PhantomData, path::PathBuf};

use http::{HeaderValue, StatusCode};
use ipnet::IpNet;
use serde::{
    Deserialize,
    de::{DeserializeOwned, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Spanned;

use super::{Deadline, Paths, Read, ReadVisitor, Unreadable, Value, Written, nearest_or_list, unexpected};
use crate::settings::{
    LocationPart, LocationTemplate, ResponseField,
    notation::{Notation, Shape, tables},
};

/// A value that may be written by itself, or as a table with more of it.
#[derive(Debug)]
pub(in crate::settings) enum PlainOrTable<V, T> {
    Plain(Result<V, Unreadable>),
    Table(T),
}

impl<'de, V: Value, T: DeserializeOwned> Deserialize<'de> for PlainOrTable<V, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainOrTableVisitor(PhantomData))
    }
}

impl<V: Value, T: Shape> Shape for PlainOrTable<V, T> {
    fn notation() -> Notation {
        Notation::Either(vec![V::notation(), T::notation()])
    }
}

struct PlainOrTableVisitor<V, T>(PhantomData<(V, T)>);

impl<'de, V: Value, T: DeserializeOwned> Visitor<'de> for PlainOrTableVisitor<V, T> {
    type Value = PlainOrTable<V, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(V::EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let read: Read<V> = ReadVisitor(PhantomData).visit_str(text)?;
        Ok(PlainOrTable::Plain(read.0))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
        let read: Read<V> = ReadVisitor(PhantomData).visit_i64(number)?;
        Ok(PlainOrTable::Plain(read.0))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(PlainOrTable::Table)
    }
}

/// `files`: a folder, or a table.
pub(in crate::settings) type WrittenFiles = PlainOrTable<PathBuf, FilesTable>;

tables! {
    /// `{ folder = .., fallback = .., immutable = .. }`
    #[derive(Debug)]
    struct FilesTable {
        folder: Option<Written<PathBuf>>,
        fallback: Option<Written<PathBuf>>,
        immutable: Option<Written<Paths>>,
    }
}

/// `maintenance`: a file, or a table.
pub(in crate::settings) type WrittenMaintenance = PlainOrTable<PathBuf, MaintenanceTable>;

tables! {
    /// `{ file = .., except = .., retry_after = .. }`
    #[derive(Debug)]
    struct MaintenanceTable {
        file: Option<Written<PathBuf>>,
        except: Option<Spanned<Vec<Written<IpNet>>>>,
        retry_after: Option<Written<Deadline>>,
    }
}

/// `redirect`: where to, or a table.
pub(in crate::settings) type WrittenRedirect = PlainOrTable<RedirectTarget, RedirectTable>;

tables! {
    /// `{ to = .., status = .. }`
    #[derive(Debug)]
    struct RedirectTable {
        to: Option<Written<RedirectTarget>>,
        status: Option<Written<RedirectStatus>>,
    }
}

/// `respond`: a status, or a table.
pub(in crate::settings) type WrittenRespond = PlainOrTable<StatedStatus, RespondTable>;

tables! {
    /// `{ status = .., body = .., content_type = .. }`
    #[derive(Debug)]
    struct RespondTable {
        status: Option<Written<StatedStatus>>,
        body: Option<Written<String>>,
        content_type: Option<Written<HeaderValue>>,
    }
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) enum RedirectTarget {
    /// `"https"`: the same URL over TLS, for requests that came in clear text.
    Https,
    To(LocationTemplate),
}

const REDIRECT_HELP: &str = "write \"https\", a path such as \"/new/{rest}{query}\", or a URL such as \
                             \"https://www.shop.example{path}{query}\"";

impl Value for RedirectTarget {
    const EXPECTED: &'static str =
        "where to, as \"https\", \"/new\" or \"https://www.shop.example{path}{query}\"";

    fn notation() -> Notation {
        Notation::pattern("https|https?://.+|/.*")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        if text == "https" {
            return Ok(Self::Https);
        }
        let bad = |help: &str| Unreadable::new(format!("{text:?} leads nowhere"), help);
        let plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`');
        if !text.bytes().all(plain) {
            return Err(bad("write spaces and other characters percent-encoded"));
        }
        let after_scheme = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        match after_scheme {
            Some(rest) => {
                // What clients write must not become a part of the host.
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let fixed = ["{path}", "{query}"].iter().filter_map(|part| authority.find(part)).min();
                let authority = fixed.map_or(authority, |end| &authority[..end]);
                if authority.is_empty() {
                    return Err(bad(REDIRECT_HELP));
                }
                if authority.contains("{rest}") {
                    return Err(bad("write a slash before {rest}, or clients could choose the host"));
                }
                if authority.contains('@') {
                    return Err(bad("leave user and password out"));
                }
            }
            None if text.starts_with('/') && !text.starts_with("//") => {}
            None => return Err(bad(REDIRECT_HELP)),
        }
        parts(text).map(LocationTemplate).map(Self::To).map_err(|name| {
            let known = ["host", "path", "rest", "query"];
            Unreadable::new(
                format!("{{{name}}} is no part of a request"),
                nearest_or_list(name, known.into_iter()),
            )
        })
    }
}

/// # Errors
/// The name of a part that there is not.
fn parts(text: &str) -> Result<Vec<LocationPart>, &str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(LocationPart::Text(before.into()));
        }
        let (name, after) = after.split_once('}').ok_or(after)?;
        parts.push(match name {
            "host" => LocationPart::Host,
            "path" => LocationPart::Path,
            "rest" => LocationPart::Rest,
            "query" => LocationPart::Query,
            _ => return Err(name),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(LocationPart::Text(rest.into()));
    }
    Ok(parts)
}

/// The status of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct RedirectStatus(pub(in crate::settings) StatusCode);

impl Value for RedirectStatus {
    const EXPECTED: &'static str = "a status such as 308";

    fn notation() -> Notation {
        Notation::Integers(REDIRECTS.map(|status| status.as_u16().into()).to_vec())
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        let status = REDIRECTS.into_iter().find(|status| i64::from(status.as_u16()) == number);
        status.map(Self).ok_or_else(|| {
            Unreadable::new(
                format!("{number} sends nobody elsewhere"),
                "write 301 or 308 for ever, 302, 303 or 307 for now; 307 and 308 keep the method",
            )
        })
    }
}

const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// The status of an answer that the file states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct StatedStatus(pub(in crate::settings) StatusCode);

impl Value for StatedStatus {
    const EXPECTED: &'static str = "a status such as 404, or { status = 200, body = \"..\" }";

    fn notation() -> Notation {
        Notation::Integer(200..=599)
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        let status = u16::try_from(number).ok().filter(|number| (200..600).contains(number));
        let status = status.and_then(|number| StatusCode::from_u16(number).ok());
        match status {
            Some(status) if status.is_redirection() => Err(Unreadable::new(
                format!("{number} tells the client to look elsewhere"),
                "write redirect = \"..\" in place of it",
            )),
            Some(status) if matches!(number, 206 | 407 | 421) => Err(Unreadable::new(
                format!("{} is said of a request that no file knows", status.as_u16()),
                "write another status",
            )),
            Some(status) => Ok(Self(status)),
            None => Err(Unreadable::new(format!("{number} is no status"), "write 200 to 599")),
        }
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let mut refused = unexpected::<Self>(&format!("the text {text:?}"));
        refused.help = Some(format!("write {{ status = 200, body = {text:?} }}"));
        Err(refused)
    }
}

impl Value for ResponseField {
    const EXPECTED: &'static str = "a value, several in a list, or false for none";

    fn notation() -> Notation {
        Notation::Either(vec![Notation::Boolean, Notation::Text.one_or_several()])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        HeaderValue::from_text(text).map(|value| Self::Is(vec![value]))
    }

    fn from_list(list: Vec<String>) -> Result<Self, Unreadable> {
        if list.is_empty() {
            return Err(Unreadable::new("an empty list has no line", "write false for none"));
        }
        list.iter().map(|text| HeaderValue::from_text(text)).collect::<Result<_, _>>().map(Self::Is)
    }

    fn from_boolean(kept: bool) -> Result<Self, Unreadable> {
        Ok(if kept { Self::Kept } else { Self::Absent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        match RedirectTarget::from_text(text).ok()? {
            RedirectTarget::Https => Some("https".to_owned()),
            RedirectTarget::To(template) => Some(template.to_string()),
        }
    }

    #[test]
    fn redirects_lead_to_a_url_whose_host_no_client_chooses() {
        for good in [
            "https",
            "/new",
            "/new/{rest}{query}",
            "https://www.shop.example{path}{query}",
            "https://{host}:8443{path}{query}",
            "http://shop.example/{rest}?lang=de{query}",
            "https://shop.example{query}",
        ] {
            assert_eq!(read(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            "new",
            "//evil.test",
            "https://",
            "https:///x",
            "https://{rest}",
            "https://shop.example{rest}",
            "https://a@shop.example/",
            "https://{path}",
            "ftp://shop.example/",
            "{path}",
            "/a b",
            "/{where}",
            "/{path",
            "/a\\b",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn parts_are_named_where_a_name_is_nearly_right() {
        let refused = RedirectTarget::from_text("https://a.test{pth}").unwrap_err();
        assert_eq!(refused.help.as_deref(), Some("did you mean \"path\"?"));
    }
}
