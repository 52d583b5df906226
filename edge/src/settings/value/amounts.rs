//! Numbers, sizes, durations, rates.

use std::{fmt, marker::PhantomData, num::NonZeroU32, time::Duration};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::{ReadVisitor, Unreadable, Value, Written, unexpected};
use crate::settings::{
    Hsts,
    notation::{Notation, Shape, any_of},
};

/// A whole number, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Count(pub(in crate::settings) u32);

impl Value for Count {
    const EXPECTED: &'static str = "a whole number";

    fn notation() -> Notation {
        Notation::Integer(0..=u32::MAX.into())
    }

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
pub(in crate::settings) struct Threads(pub(in crate::settings) usize);

impl Threads {
    const MOST: usize = 1024;
}

impl Value for Threads {
    const EXPECTED: &'static str = "a whole number";

    fn notation() -> Notation {
        Notation::Integer(0..=Self::MOST as i64)
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        usize::try_from(number).ok().filter(|number| *number <= Self::MOST).map(Threads).ok_or_else(|| {
            let help = format!("write 0 (one per core) to {}", Self::MOST);
            Unreadable::new(format!("{number} is out of range"), help)
        })
    }
}

/// A whole number, 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Positive(pub(in crate::settings) NonZeroU32);

impl Positive {
    pub(in crate::settings) fn as_usize(self) -> usize {
        self.0.get() as usize
    }
}

impl Value for Positive {
    const EXPECTED: &'static str = "a whole number, 1 or more";

    fn notation() -> Notation {
        Notation::Integer(1..=u32::MAX.into())
    }

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

/// A whole number from 1 to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct AtMost<const MOST: u32>(pub(in crate::settings) Positive);

impl<const MOST: u32> Value for AtMost<MOST> {
    const EXPECTED: &'static str = Positive::EXPECTED;

    fn notation() -> Notation {
        Notation::Integer(1..=MOST.into())
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        let positive = Positive::from_integer(number)?;
        if positive.0.get() > MOST {
            return Err(Unreadable::new(format!("{number} are too many"), format!("write 1 to {MOST}")));
        }
        Ok(Self(positive))
    }
}

/// How many instances of a command: a number, or one a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) enum Instances {
    Number(Positive),
    Cores,
}

impl Instances {
    const MOST: usize = 256;

    /// The number; `cores` is what this machine has.
    pub(in crate::settings) fn on(self, cores: usize) -> usize {
        match self {
            Self::Number(number) => number.as_usize(),
            Self::Cores => cores.clamp(1, Self::MOST),
        }
    }
}

impl Value for Instances {
    const EXPECTED: &'static str = "a number of instances, or \"cores\" for one a core";

    fn notation() -> Notation {
        Notation::Either(vec![Notation::Integer(1..=Self::MOST as i64), Notation::Words(vec!["cores"])])
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        let positive = Positive::from_integer(number)?;
        if positive.as_usize() > Self::MOST {
            let help = format!("write 1 to {}", Self::MOST);
            return Err(Unreadable::new(format!("{number} instances are too many"), help));
        }
        Ok(Self::Number(positive))
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        if text == "cores" { Ok(Self::Cores) } else { Err(unexpected::<Self>(&format!("the text {text:?}"))) }
    }
}

/// A share of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Percent(pub(in crate::settings) u32);

impl Value for Percent {
    const EXPECTED: &'static str = "a share such as \"20%\"";

    fn notation() -> Notation {
        Notation::pattern(r"\+?0*(100|[0-9]{1,2})%")
    }

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
pub(in crate::settings) struct ServerError(pub(in crate::settings) u16);

impl Value for ServerError {
    const EXPECTED: &'static str = "a status such as 503";

    fn notation() -> Notation {
        Notation::Integer(500..=599)
    }

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

    fn notation() -> Notation {
        Notation::pattern(format!("[0-9]+ *{}", any_of(SIZE_UNITS.iter().map(|unit| unit.0))))
    }

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
pub(in crate::settings) struct PositiveSize(pub(in crate::settings) ByteSize);

impl Value for PositiveSize {
    const EXPECTED: &'static str = ByteSize::EXPECTED;

    fn notation() -> Notation {
        Notation::pattern(format!("{MORE_THAN_0} *{}", any_of(SIZE_UNITS.iter().map(|unit| unit.0))))
    }

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

/// A pattern for a whole number that is not 0.
const MORE_THAN_0: &str = "0*[1-9][0-9]*";

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

    fn notation() -> Notation {
        Notation::pattern(format!("[0-9]+{}", any_of(DURATION_UNITS.iter().map(|unit| unit.0))))
    }

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

impl Value for Hsts {
    const EXPECTED: &'static str =
        "a duration such as \"365d\", and words as in \"365d includeSubDomains preload\"";

    fn notation() -> Notation {
        Notation::pattern(format!(
            r"\s*[0-9]+{}(\s+(includeSubDomains|preload))*\s*",
            any_of(DURATION_UNITS.iter().map(|unit| unit.0))
        ))
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split_ascii_whitespace();
        let mut hsts = Hsts {
            max_age: Duration::from_text(words.next().unwrap_or_default())?,
            include_subdomains: false,
            preload: false,
        };
        for word in words {
            match word {
                "includeSubDomains" => hsts.include_subdomains = true,
                "preload" => hsts.preload = true,
                _ => {
                    let help = "after the duration stand \"includeSubDomains\" and \"preload\", or nothing";
                    return Err(Unreadable::new(format!("{word:?} means nothing here"), help));
                }
            }
        }
        if hsts.max_age.subsec_nanos() > 0 {
            return Err(Unreadable::new(format!("{text:?} is no whole number of seconds"), "write \"365d\""));
        }
        if hsts.preload && !(hsts.include_subdomains && hsts.max_age >= PRELOADED) {
            return Err(Unreadable::new(
                "browsers' lists take no host for less than a year, or without the hosts below it",
                "write \"365d includeSubDomains preload\"",
            ));
        }
        Ok(hsts)
    }
}

/// What the lists of browsers ask for at least (hstspreload.org).
const PRELOADED: Duration = Duration::from_secs(365 * 86_400);

/// A duration, where a table of them by status may stand as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Lifetime(pub(in crate::settings) Duration);

impl Value for Lifetime {
    const EXPECTED: &'static str =
        "a duration such as \"60s\", or a table such as { 200 = \"5m\", 404 = \"10s\" }";

    fn notation() -> Notation {
        <Duration as Value>::notation()
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        <Duration as Value>::from_text(text).map(Lifetime)
    }

    fn from_integer(number: i64) -> Result<Self, Unreadable> {
        <Duration as Value>::from_integer(number).map(Lifetime)
    }
}

/// One lifetime, or one for each status that is named.
#[derive(Clone, Debug)]
pub(in crate::settings) enum Lifetimes {
    Same(Result<Lifetime, Unreadable>),
    ByStatus(Vec<(Spanned<String>, Written<Lifetime>)>),
}

impl<'de> Deserialize<'de> for Lifetimes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LifetimesVisitor)
    }
}

impl Shape for Lifetimes {
    fn notation() -> Notation {
        let one = Lifetime::notation();
        Notation::Either(vec![one.clone(), Notation::Named(Box::new(one))])
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
pub(in crate::settings) struct Deadline(pub(in crate::settings) Duration);

impl Value for Deadline {
    const EXPECTED: &'static str = <Duration as Value>::EXPECTED;

    fn notation() -> Notation {
        Notation::pattern(format!("{MORE_THAN_0}{}", any_of(DURATION_UNITS.iter().map(|unit| unit.0))))
    }

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
pub(in crate::settings) struct Rate(pub(in crate::settings) Duration);

impl Value for Rate {
    const EXPECTED: &'static str = "a rate such as \"50/s\"";

    fn notation() -> Notation {
        Notation::pattern(format!("{MORE_THAN_0}/{}", any_of(DURATION_UNITS[1..].iter().map(|unit| unit.0))))
    }

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

    proptest! {
        #[test]
        fn a_size_is_shown_as_it_can_be_written(bytes in 0..=i64::MAX as u64) {
            prop_assert_eq!(ByteSize::from_text(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
        }
    }
}
