//! How settings may be written, as far as a text tells it by itself: types, words, units, bounds, and the keys of tables.
//!
//! Owns the description alone, from which editors are told what belongs where. Each reader of a value says its own; what
//! a table holds is known from its declaration ([`tables`]). It takes whatever the readers take, and refuses what none of
//! them could: what depends on other settings it does not know.

use std::ops::RangeInclusive;

/// What may be written somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notation {
    /// `true` or `false`.
    Boolean,
    /// A whole number from here to there.
    Integer(RangeInclusive<i64>),
    /// One of these whole numbers.
    Integers(Vec<i64>),
    /// Any text, also the empty one.
    AnyText,
    /// Any text but the empty one.
    Text,
    /// A text of which this regular expression matches the whole; of what both Rust and ECMAScript know.
    Pattern(String),
    /// One of these words.
    Words(Vec<&'static str>),
    /// Any of these.
    Either(Vec<Notation>),
    /// A list of at least so many.
    List(Box<Notation>, usize),
    /// A table whose keys are names of the operator's.
    Named(Box<Notation>),
    /// A table of these keys.
    Table(Vec<(&'static str, Notation)>),
}

impl Notation {
    /// A text of which this regular expression matches the whole.
    pub(super) fn pattern(pattern: impl Into<String>) -> Self {
        Self::Pattern(pattern.into())
    }

    /// One, or at least one in a list.
    pub(super) fn one_or_several(self) -> Self {
        Self::Either(vec![self.clone(), Self::List(Box::new(self), 1)])
    }

    /// The table that this is, that its elements are, or that stands in place of something shorter.
    pub fn table(&self) -> Option<&[(&'static str, Self)]> {
        match self {
            Self::Table(keys) => Some(keys),
            Self::List(of, _) | Self::Named(of) => of.table(),
            Self::Either(several) => several.iter().find_map(Self::table),
            _ => None,
        }
    }
}

/// A type that tells by itself how it is written.
pub(super) trait Shape {
    fn notation() -> Notation;
}

impl Shape for bool {
    fn notation() -> Notation {
        Notation::Boolean
    }
}

impl<T: Shape> Shape for Option<T> {
    fn notation() -> Notation {
        T::notation()
    }
}

impl<T: Shape> Shape for toml::Spanned<T> {
    fn notation() -> Notation {
        T::notation()
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn notation() -> Notation {
        Notation::List(Box::new(T::notation()), 0)
    }
}

impl<T: Shape> Shape for std::collections::BTreeMap<toml::Spanned<String>, T> {
    fn notation() -> Notation {
        Notation::Named(Box::new(T::notation()))
    }
}

/// Declares tables as files hold them: structs that know no other keys than their fields, and tell of each how it is written.
macro_rules! tables {
    ($(
        $(#[$of_table:meta])*
        struct $table:ident { $($(#[$of_key:meta])* $key:ident: $kind:ty,)* }
    )*) => {$(
        $(#[$of_table])*
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(in crate::settings) struct $table {
            $($(#[$of_key])* pub(in crate::settings) $key: $kind,)*
        }

        impl $crate::settings::notation::Shape for $table {
            fn notation() -> $crate::settings::notation::Notation {
                $crate::settings::notation::Notation::Table(vec![
                    $((stringify!($key), <$kind as $crate::settings::notation::Shape>::notation()),)*
                ])
            }
        }
    )*};
}
pub(in crate::settings) use tables;

/// A pattern for a word in letters of either case.
pub(super) fn any_case(word: &str) -> String {
    let either = |letter: char| match letter.is_ascii_alphabetic() {
        true => format!("[{}{}]", letter.to_ascii_uppercase(), letter.to_ascii_lowercase()),
        false => letter.to_string(),
    };
    word.chars().map(either).collect()
}

/// A pattern for one of these words.
pub(super) fn any_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    format!("({})", words.collect::<Vec<_>>().join("|"))
}

/// A pattern for a character of a token (RFC 9110 §5.6.2): of the name of a field, a cookie, a method.
pub(super) const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]";

#[cfg(test)]
impl Notation {
    /// Whether a value is written so, where it holds no variables.
    pub(crate) fn takes(&self, value: &toml::Value) -> bool {
        match self {
            Self::Boolean => value.is_bool(),
            Self::Integer(range) => value.as_integer().is_some_and(|number| range.contains(&number)),
            Self::Integers(numbers) => value.as_integer().is_some_and(|number| numbers.contains(&number)),
            Self::AnyText => value.is_str(),
            Self::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Self::Pattern(pattern) => {
                let whole = regex::Regex::new(&format!("^({pattern})$")).expect("a pattern of ours");
                value.as_str().is_some_and(|text| whole.is_match(text))
            }
            Self::Words(words) => value.as_str().is_some_and(|text| words.contains(&text)),
            Self::Either(several) => several.iter().any(|one| one.takes(value)),
            Self::List(of, least) => value
                .as_array()
                .is_some_and(|list| list.len() >= *least && list.iter().all(|one| of.takes(one))),
            Self::Named(of) => value.as_table().is_some_and(|table| table.values().all(|one| of.takes(one))),
            Self::Table(keys) => value.as_table().is_some_and(|table| {
                let known = |key: &str| keys.iter().find(|(known, _)| *known == key);
                table.iter().all(|(key, value)| known(key).is_some_and(|(_, of)| of.takes(value)))
            }),
        }
    }
}
