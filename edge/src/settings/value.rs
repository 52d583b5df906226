//! The values an operator writes: sizes, durations, rates, addresses, patterns, choices.
//!
//! Owns their notation and nothing else: text in, a typed value or a reason with a remedy out. Never knows which key
//! it reads, nor where in the file it stands; [`Written`] keeps the place for those who report it.

use std::{
    fmt,
    marker::PhantomData,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    ops::Range,
    path::PathBuf,
    time::Duration,
};

use cache_policy::{ClientDirectives, Cookies, IgnoredCookies, Ranges, SetCookie, one_host, one_spelling};
use http::{HeaderName, HeaderValue, Uri, uri::Scheme};
use ipnet::IpNet;
use serde::de::{
    Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};
use toml::Spanned;

use super::{AdminAddress, ForwardedBy, LogFormat, MediaRange, PathPattern, Server};

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

/// A whole number, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u32);

impl Value for Count {
    const EXPECTED: &'static str = "a whole number";

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        u32::try_from(number).map(Count).map_err(|_| {
            Unreadable::new(
                format!("{number} is out of range"),
                format!("write a number from 0 to {}", u32::MAX),
            )
        })
    }
}

/// Worker threads: 0 for one a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Threads(pub(super) usize);

impl Threads {
    const MOST: usize = 1024;
}

impl Value for Threads {
    const EXPECTED: &'static str = "a whole number";

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        usize::try_from(number).ok().filter(|number| *number <= Self::MOST).map(Threads).ok_or_else(|| {
            let help = format!("write 0 (one per core) to {}", Self::MOST);
            Unreadable::new(format!("{number} is out of range"), help)
        })
    }
}

/// A whole number, 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positive(pub(super) NonZeroU32);

impl Positive {
    pub(super) fn as_usize(self) -> usize {
        self.0.get() as usize
    }
}

impl Value for Positive {
    const EXPECTED: &'static str = "a whole number, 1 or more";

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        u32::try_from(number).ok().and_then(NonZeroU32::new).map(Positive).ok_or_else(|| match number {
            0 => Unreadable::new("0 makes no sense here", "write 1 or more"),
            _ => Unreadable::new(
                format!("{number} is out of range"),
                format!("write a number from 1 to {}", u32::MAX),
            ),
        })
    }
}

/// A share of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Percent(pub(super) u32);

impl Value for Percent {
    const EXPECTED: &'static str = "a share such as \"20%\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
        number
            .filter(|percent| *percent <= 100)
            .map(Percent)
            .ok_or_else(|| Unreadable::new(format!("{text:?} is no share"), "write \"0%\" to \"100%\""))
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        let mut refused = unexpected::<Self>(&format!("the number {number}"));
        refused.help = Some(format!("a share has a sign and quotes: \"{}%\"", number.clamp(0, 100)));
        Err(refused)
    }
}

/// A status by which a server says that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerError(pub(super) u16);

impl Value for ServerError {
    const EXPECTED: &'static str = "a status such as 503";

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        u16::try_from(number).ok().filter(|status| (500..600).contains(status)).map(ServerError).ok_or_else(
            || {
                Unreadable::new(
                    format!("{number} is no status of a server's failure"),
                    "write some of 500 to 599, as in [500, 502, 503, 504]",
                )
            },
        )
    }
}

/// Bytes, shown as the file writes them: `256 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Value for ByteSize {
    const EXPECTED: &'static str = "a size such as \"256 MiB\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        const HELP: &str =
            "write a whole number and B, KiB, MiB, GiB, TiB (or kB, MB, GB, TB), as in \"256 MiB\"";
        let bad = || Unreadable::new(format!("{text:?} is no size"), HELP);
        let (number, unit) = split_number(text).ok_or_else(bad)?;
        let unit = unit.trim_start_matches(' ');
        let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
            let near = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
            return Err(match near {
                Some((name, _)) => Unreadable::new(
                    format!("{text:?} is no size"),
                    format!("did you mean \"{number} {name}\"?"),
                ),
                None => bad(),
            });
        };
        let size = number.checked_mul(*bytes).filter(|size| *size <= i64::MAX as u64);
        size.map(ByteSize).ok_or_else(|| Unreadable { message: format!("{text:?} is too large"), help: None })
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        let mut refused = unexpected::<Self>(&format!("the number {number}"));
        refused.help = Some(format!("a size has a unit and quotes: \"{} B\"", number.max(0)));
        Err(refused)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = SIZE_UNITS[..5]
            .iter()
            .rev()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .unwrap_or(&SIZE_UNITS[0]);
        write!(f, "{} {name}", self.0 / bytes)
    }
}

/// A size that is more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PositiveSize(pub(super) ByteSize);

impl Value for PositiveSize {
    const EXPECTED: &'static str = ByteSize::EXPECTED;

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        match ByteSize::from_text(text)? {
            ByteSize(0) => {
                Err(Unreadable::new(format!("{text:?} makes no sense here"), "write more than 0 B"))
            }
            size => Ok(PositiveSize(size)),
        }
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        ByteSize::from_integer(number).map(PositiveSize)
    }
}

const DURATION_UNITS: [(&str, Duration); 5] = [
    ("ms", Duration::from_millis(1)),
    ("s", Duration::from_secs(1)),
    ("m", Duration::from_secs(60)),
    ("h", Duration::from_secs(3600)),
    ("d", Duration::from_secs(86_400)),
];

/// RFC 9111 §1.2.2: caches count lifetimes in 31 bits of seconds; nothing an operator writes needs more.
const LONGEST: Duration = Duration::from_secs(1 << 31);

impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as \"60s\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        const HELP: &str =
            "write a whole number and ms, s, m, h or d, as in \"500ms\", \"60s\", \"10m\", \"365d\"";
        let bad = || Unreadable::new(format!("{text:?} is no duration"), HELP);
        let (number, unit) = split_number(text).ok_or_else(bad)?;
        let (_, length) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        u32::try_from(number)
            .ok()
            .and_then(|number| length.checked_mul(number))
            .filter(|duration| *duration <= LONGEST)
            .ok_or_else(|| {
                Unreadable::new(format!("{text:?} is too long"), "the longest duration is \"24855d\"")
            })
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        let mut refused = unexpected::<Self>(&format!("the number {number}"));
        refused.help = Some(format!("a duration has a unit and quotes: \"{}s\"", number.max(0)));
        Err(refused)
    }
}

/// A duration, where a table of them by status may stand as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime(pub(super) Duration);

impl Value for Lifetime {
    const EXPECTED: &'static str =
        "a duration such as \"60s\", or a table such as { 200 = \"5m\", 404 = \"10s\" }";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        <Duration as Value>::from_text(text).map(Lifetime)
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        <Duration as Value>::from_integer(number).map(Lifetime)
    }
}

/// One lifetime, or one for each status that is named.
#[derive(Clone, Debug)]
pub(super) enum Lifetimes {
    Same(Result<Lifetime, Unreadable>),
    ByStatus(Vec<(Spanned<String>, Written<Lifetime>)>),
}

impl<'de> Deserialize<'de> for Lifetimes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LifetimesVisitor)
    }
}

struct LifetimesVisitor;

impl LifetimesVisitor {
    const OF_ONE: ReadVisitor<Lifetime> = ReadVisitor(PhantomData);
}

impl<'de> Visitor<'de> for LifetimesVisitor {
    type Value = Lifetimes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Lifetime::EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Lifetimes, E> {
        Self::OF_ONE.visit_str(text).map(|read| Lifetimes::Same(read.0))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Lifetimes, E> {
        Self::OF_ONE.visit_i64(number).map(|read| Lifetimes::Same(read.0))
    }

    fn visit_bool<E: serde::de::Error>(self, boolean: bool) -> Result<Lifetimes, E> {
        Self::OF_ONE.visit_bool(boolean).map(|read| Lifetimes::Same(read.0))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Lifetimes, E> {
        Self::OF_ONE.visit_f64(number).map(|read| Lifetimes::Same(read.0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Lifetimes, A::Error> {
        Self::OF_ONE.visit_seq(list).map(|read| Lifetimes::Same(read.0))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lifetimes, A::Error> {
        let mut named = Vec::new();
        while let Some(entry) = map.next_entry::<Spanned<String>, Written<Lifetime>>()? {
            named.push(entry);
        }
        Ok(Lifetimes::ByStatus(named))
    }
}

/// A duration that is more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline(pub(super) Duration);

impl Value for Deadline {
    const EXPECTED: &'static str = <Duration as Value>::EXPECTED;

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        match <Duration as Value>::from_text(text)? {
            Duration::ZERO => {
                Err(Unreadable::new(format!("{text:?} makes no sense here"), "write 1ms or more"))
            }
            duration => Ok(Deadline(duration)),
        }
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        <Duration as Value>::from_integer(number).map(Deadline)
    }
}

/// A rate, as the time in which one request is earned back; from 1 ns to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(pub(super) Duration);

impl Value for Rate {
    const EXPECTED: &'static str = "a rate such as \"50/s\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = |help: &str| Unreadable::new(format!("{text:?} is no rate"), help);
        const HELP: &str = "write requests per s, m, h or d, as in \"50/s\" or \"100/m\"";
        let (number, unit) = split_number(text).ok_or_else(|| bad(HELP))?;
        let unit = unit.strip_prefix('/').ok_or_else(|| bad(HELP))?;
        let (_, period) =
            DURATION_UNITS[1..].iter().find(|(name, _)| *name == unit).ok_or_else(|| bad(HELP))?;
        if number == 0 {
            return Err(Unreadable::new(format!("the rate {text:?} admits no one"), "write 1 or more"));
        }
        let interval = Duration::from_nanos(u64::try_from(period.as_nanos()).unwrap_or(u64::MAX) / number);
        if interval.is_zero() {
            return Err(bad("the highest rate is one request a nanosecond: leave the limit out"));
        }
        Ok(Rate(interval))
    }
}

/// Digits and what follows them; `None` without digits, or with more than fit.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address such as \"[::]:8080\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        text.parse().map_err(|_| {
            Unreadable::new(
                format!("{text:?} is no address with a port"),
                "write \"[::]:8080\" (everywhere), \"127.0.0.1:8080\" or \"[2001:db8::1]:8080\"",
            )
        })
    }
}

impl Value for AdminAddress {
    const EXPECTED: &'static str =
        "an address such as \"127.0.0.1:9900\" or \"unix:/run/gatehouse/admin.sock\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `sun_path`, its end and the suffix under which the socket is made (unix(7)).
            const LONGEST: usize = 103;
            return if path.is_empty() || path.ends_with('/') || path.len() > LONGEST {
                Err(Unreadable::new(
                    format!("{text:?} names no socket"),
                    format!(
                        "write a file of at most {LONGEST} bytes, such as \"unix:/run/gatehouse/admin.sock\""
                    ),
                ))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let refused = |_| {
            Unreadable::new(
                format!("{text:?} is no address with a port, nor a Unix socket"),
                "write \"127.0.0.1:9900\" or \"unix:/run/gatehouse/admin.sock\"",
            )
        };
        text.parse().map(Self::Network).map_err(refused)
    }
}

impl Value for IpNet {
    const EXPECTED: &'static str = "a network such as \"10.0.0.0/8\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        network.ok_or_else(|| {
            Unreadable::new(
                format!("{text:?} is no network"),
                "write an address or a network: \"10.0.0.7\", \"10.0.0.0/8\", \"2001:db8::/32\"",
            )
        })
    }
}

/// A host as routes name it: in its one spelling, as requests have it, without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host(pub(super) Box<str>);

impl Value for Host {
    const EXPECTED: &'static str = "a host such as \"shop.example\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = |help: &str| Unreadable::new(format!("{text:?} is no host"), help);
        if text.contains('*') {
            return Err(bad("hosts are written in full; leave `hosts` out to match every host"));
        }
        let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(literal) = literal {
            let address = literal.parse::<Ipv6Addr>();
            address.map_err(|_| bad("between brackets stands an IPv6 address"))?;
            return Ok(Host(one_host(text)));
        }
        if text.contains(':') {
            return Err(bad("write the host without scheme and port; an IPv6 address stands in brackets"));
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if text.is_empty() || text.len() > 253 || !text.bytes().all(known) {
            return Err(bad("write a name such as \"shop.example\" (punycode for other scripts)"));
        }
        Ok(Host(one_host(text)))
    }
}

impl Value for MediaRange {
    const EXPECTED: &'static str = "a media type such as \"text/css\"";

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

impl Value for PathPattern {
    const EXPECTED: &'static str = "a path such as \"/api/*\"";

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
        if path.contains('*') {
            return Err(bad("a star stands only at the end, after a slash, as in \"/api/*\"".to_owned()));
        }
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            let help = "a request whose path has a segment \".\" or \"..\" is refused: leave it out";
            return Err(bad(help.to_owned()));
        }
        if path.contains("//") {
            let help = "two slashes match only two slashes, which hardly any request has: write one";
            return Err(bad(help.to_owned()));
        }
        Ok(if prefix { PathPattern::Prefix(path.into()) } else { PathPattern::Exact(path.into()) })
    }
}

impl Value for Server {
    const EXPECTED: &'static str = "a server such as \"http://10.0.0.5:9000\" or \"command:origin\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = |help: &str| Unreadable::new(format!("{text:?} is no server"), help);
        const HELP: &str = "write \"http://host:port\" or \"command:NAME\"";
        if let Some(name) = text.strip_prefix("command:") {
            return if name.is_empty() { Err(bad(HELP)) } else { Ok(Server::Command(name.into())) };
        }
        let uri: Uri = text.parse().map_err(|_| bad(HELP))?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => {}
            Some(scheme) if *scheme == Scheme::HTTPS => {
                return Err(bad("upstreams speak clear-text HTTP/1.1: write \"http://host:port\""));
            }
            _ => return Err(bad(HELP)),
        }
        let authority = uri.authority().ok_or_else(|| bad(HELP))?;
        if authority.as_str().contains('@') {
            return Err(bad("leave user and password out: the edge sends none"));
        }
        if uri.path() != "/" || uri.query().is_some() || text.ends_with('/') {
            return Err(bad("leave the path out: requests keep their own"));
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            None => 80,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| bad("the port is a number from 1 to 65535"))?,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad(HELP));
        }
        Ok(Server::Http { host: host.to_ascii_lowercase().into(), port })
    }
}

/// How to see that an instance of a command is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// It accepts a TCP connection.
    Tcp,
    /// It answers 2xx here.
    Path(String),
}

impl Value for Ready {
    const EXPECTED: &'static str = "a path such as \"/readyz\", or \"tcp\"";

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

impl Value for HeaderValue {
    const EXPECTED: &'static str = "a field value such as \"public, max-age=300\"";

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

/// One of a few words; the refusal of a near miss names the nearest.
fn choose<T: Value + Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Unreadable> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    Err(Unreadable::new(
        format!("expected {}, found {text:?}", T::EXPECTED),
        nearest_or_list(text, choices.iter().map(|(name, _)| *name)),
    ))
}

impl Value for LogFormat {
    const EXPECTED: &'static str = "a log format";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        choose(text, &[("json", LogFormat::Json), ("pretty", LogFormat::Pretty), ("off", LogFormat::Off)])
    }
}

impl Value for SetCookie {
    const EXPECTED: &'static str = "a rule for Set-Cookie";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        choose(
            text,
            &[("refuse", SetCookie::Refuse), ("strip", SetCookie::Strip), ("store", SetCookie::Store)],
        )
    }
}

impl Value for ClientDirectives {
    const EXPECTED: &'static str = "a rule for client directives";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        choose(
            text,
            &[
                ("honour", ClientDirectives::Honour),
                ("ignore-reloads", ClientDirectives::IgnoreReloads),
                ("ignore-relaxations", ClientDirectives::IgnoreRelaxations),
                ("ignore-all", ClientDirectives::IgnoreAll),
            ],
        )
    }
}

impl Value for ForwardedBy {
    const EXPECTED: &'static str = "a field by which proxies name the client";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let text = text.to_ascii_lowercase();
        choose(
            &text,
            &[("x-forwarded-for", ForwardedBy::XForwardedFor), ("forwarded", ForwardedBy::Forwarded)],
        )
    }
}

impl Value for Ranges {
    const EXPECTED: &'static str = "a rule for ranges";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        choose(text, &[("parts", Ranges::Parts), ("fitted", Ranges::Fitted), ("whole", Ranges::Whole)])
    }
}

impl Value for HeaderName {
    const EXPECTED: &'static str = "a field name such as \"CDN-Cache-Control\"";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
            Unreadable::new(
                format!("{text:?} is no field name"),
                "write a name such as \"CDN-Cache-Control\"",
            )
        })
    }
}

impl Value for Cookies {
    const EXPECTED: &'static str = "a rule for cookies";

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        choose(text, &[("origin", Cookies::Origin), ("bypass", Cookies::Bypass)])
    }
}

impl Value for IgnoredCookies {
    const EXPECTED: &'static str = "a list of cookie names, or true for all";

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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_durations_and_rates_are_read_in_their_units() {
        let size = |text| ByteSize::from_text(text).map(|size| size.0).ok();
        assert_eq!(size("256 MiB"), Some(256 << 20));
        assert_eq!(size("64KiB"), Some(64 << 10));
        assert_eq!(size("5 MB"), Some(5_000_000));
        assert_eq!(size("0 B"), Some(0));
        assert_eq!([size("256"), size("MiB"), size("1.5 GiB"), size("-1 B"), size("9999999 TiB")], [None; 5]);

        let duration = |text| <Duration as Value>::from_text(text).ok();
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("60s"), Some(Duration::from_secs(60)));
        assert_eq!(duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(duration("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(duration("365d"), Some(Duration::from_secs(31_536_000)));
        assert_eq!(
            [duration("10"), duration("s"), duration("1w"), duration("99999d"), duration("1 s")],
            [None; 5]
        );

        let rate = |text| Rate::from_text(text).map(|rate| rate.0).ok();
        assert_eq!(rate("50/s"), Some(Duration::from_millis(20)));
        assert_eq!(rate("100/m"), Some(Duration::from_millis(600)));
        assert_eq!([rate("0/s"), rate("50"), rate("50/ms"), rate("/s"), rate("2000000000/s")], [None; 5]);
    }

    #[test]
    fn servers_are_hosts_with_ports_or_commands() {
        let http = |host: &str, port| Some(Server::Http { host: host.into(), port });
        let server = |text| Server::from_text(text).ok();
        assert_eq!(server("http://10.0.0.5:9000"), http("10.0.0.5", 9000));
        assert_eq!(server("http://App.internal"), http("app.internal", 80));
        assert_eq!(server("http://[2001:db8::1]:9000"), http("2001:db8::1", 9000));
        assert_eq!(server("command:origin"), Some(Server::Command("origin".into())));
        for bad in [
            "10.0.0.5:9000",
            "https://a",
            "http://a:0",
            "http://a:",
            "http://a/path",
            "http://a/",
            "http://u:p@a",
            "command:",
            "http://a:99999",
            "",
            "http://",
        ] {
            assert_eq!(server(bad), None, "{bad}");
        }
    }

    #[test]
    fn patterns_are_exact_or_end_in_a_star() {
        let pattern = |text| PathPattern::from_text(text).ok();
        assert_eq!(pattern("/*"), Some(PathPattern::Prefix("/".into())));
        assert_eq!(pattern("/api/*"), Some(PathPattern::Prefix("/api/".into())));
        assert_eq!(pattern("/robots.txt"), Some(PathPattern::Exact("/robots.txt".into())));
        for bad in ["api/*", "/a*", "/*/b", "/a/../b", "/a/%2e%2E/b", "/a//b", "/a?b", "/a b", "/ä", "", "*"]
        {
            assert_eq!(pattern(bad), None, "{bad}");
        }
    }

    /// A route for `/caf%c3%a9`, `/%7Ea` or the host `shop.test.` never met a request: requests have one spelling.
    #[test]
    fn routes_name_hosts_and_paths_in_any_spelling() {
        let pattern = |text| PathPattern::from_text(text).ok();
        assert_eq!(pattern("/caf%c3%a9/*"), Some(PathPattern::Prefix("/caf%C3%A9/".into())));
        assert_eq!(pattern("/%7Ea|b"), Some(PathPattern::Exact("/~a%7Cb".into())));
        assert_eq!(pattern("/a%2fb"), Some(PathPattern::Exact("/a%2Fb".into())));
        for (written, named) in [("Shop.Test.", "shop.test"), ("[2001:DB8:0::1]", "[2001:db8::1]")] {
            assert_eq!(Host::from_text(written).ok().map(|host| host.0), Some(named.into()), "{written}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC*") {
            let _ = ByteSize::from_text(&text);
            let _ = <Duration as Value>::from_text(&text);
            let _ = Rate::from_text(&text);
            let _ = PathPattern::from_text(&text);
            let _ = Server::from_text(&text);
            let _ = Host::from_text(&text);
            let _ = IpNet::from_text(&text);
            let _ = HeaderValue::from_text(&text);
            let _ = nearest_or_list(&text, ["upstream", "limit"].into_iter());
        }

        #[test]
        fn a_size_is_shown_as_it_can_be_written(bytes in 0..=i64::MAX as u64) {
            prop_assert_eq!(ByteSize::from_text(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
        }
    }
}
