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

pub(super) use actions::{FilesTable, MaintenanceTable, RedirectTable, RespondTable};
pub(super) use actions::{
    PlainOrTable, RedirectTarget, WrittenFiles, WrittenMaintenance, WrittenRedirect, WrittenRespond,
};
pub use amounts::ByteSize;
pub(super) use amounts::{
    Count, Deadline, Instances, Lifetime, Lifetimes, Percent, Positive, PositiveSize, Rate, ServerError,
    Threads,
};
pub(super) use authorities::{Directory, Email, ServedNames};
pub(super) use choices::{CookieNames, PathPrefix, Paths, Ready, UnsafeMethod};
pub(super) use places::{Host, ProxyPeers};
pub(super) use servers::ServerTable;
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

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        if text.is_empty() { Ok(String::new()) } else { Text::from_text(text).map(|text| text.0) }
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        Text::from_text(text).map(|text| PathBuf::from(text.0))
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

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
    use std::time::Duration;

    use http::HeaderValue;
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::settings::{Balance, HostPattern, Location, PathPattern};

    proptest! {
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
