//! Where a page ended: the sort key and id of its last row, opaque to clients.
//!
//! It is not signed: all it can do is to start a page elsewhere, which anyone may. It must never make a statement fail, so
//! what it holds is checked to be what PostgreSQL can hold.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{numbers::Cents, problem::Problem};

/// The end of year 9999 UTC, in microseconds.
const LAST_MICROSECOND: i64 = 253_402_300_799_999_999;
/// A name of 200 characters of four bytes, in base64, with room for the rest.
const LONGEST: usize = 1200;

/// The order of a list; the id makes each total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    #[default]
    Newest,
    PriceAsc,
    PriceDesc,
    Name,
}

impl Sort {
    pub(crate) const ALL: [Self; 4] = [Self::Newest, Self::PriceAsc, Self::PriceDesc, Self::Name];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::PriceAsc => "price_asc",
            Self::PriceDesc => "price_desc",
            Self::Name => "name",
        }
    }
}

/// The sort key of the last row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// Microseconds, as exact as PostgreSQL is.
    CreatedAt(OffsetDateTime),
    PriceCents(Cents),
    Name(String),
}

/// The position after one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) key: Key,
    pub(crate) id: i64,
}

impl Cursor {
    /// Base64url of `<sort>:<id>:<key>`.
    pub(crate) fn encode(&self, sort: Sort) -> String {
        let key = match &self.key {
            Key::CreatedAt(time) => (time.unix_timestamp_nanos() / 1000).to_string(),
            Key::PriceCents(cents) => cents.to_string(),
            Key::Name(name) => name.clone(),
        };
        URL_SAFE_NO_PAD.encode(format!("{}:{}:{key}", sort.name(), self.id))
    }

    /// # Errors
    /// 400 for what [`Cursor::encode`] did not make for this sort.
    pub(crate) fn decode(text: &str, sort: Sort) -> Result<Self, Problem> {
        Self::read(text, sort).ok_or_else(Problem::invalid_cursor)
    }

    fn read(text: &str, sort: Sort) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (id, key) = plain.strip_prefix(sort.name())?.strip_prefix(':')?.split_once(':')?;
        let id = id.parse().ok().filter(|id| *id > 0)?;
        let key = match sort {
            Sort::Newest => {
                let microseconds =
                    key.parse().ok().filter(|number| (0..=LAST_MICROSECOND).contains(number))?;
                Key::CreatedAt(
                    OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1000).ok()?,
                )
            }
            Sort::PriceAsc | Sort::PriceDesc => {
                Key::PriceCents(key.parse::<i64>().ok().filter(|cents| *cents >= 0)?.into())
            }
            Sort::Name => Key::Name(Some(key).filter(|name| !name.contains('\0'))?.to_owned()),
        };
        let cursor = Self { key, id };
        // `+7` and `007` are numbers too: only one spelling of a position may reach the caches.
        (cursor.encode(sort) == text).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_760_000_000_123_456_000).expect("a time");
        for (sort, key) in [
            (Sort::Newest, Key::CreatedAt(time)),
            (Sort::PriceAsc, Key::PriceCents(0.into())),
            (Sort::PriceDesc, Key::PriceCents(129_900.into())),
            (Sort::Name, Key::Name("Bücher: eins".to_owned())),
        ] {
            let cursor = Cursor { key, id: 42 };
            assert_eq!(Cursor::read(&cursor.encode(sort), sort), Some(cursor));
        }
    }

    #[test]
    fn what_was_not_given_out_is_refused() {
        let encode = |plain: &str| URL_SAFE_NO_PAD.encode(plain);
        for (text, sort) in [
            (String::new(), Sort::Newest),
            ("%%%".to_owned(), Sort::Newest),
            ("A".repeat(LONGEST + 1), Sort::Name),
            (encode("price_asc:1:100"), Sort::Name),
            (encode("price_asc:1:100"), Sort::PriceDesc),
            (encode("price_asc:0:100"), Sort::PriceAsc),
            (encode("price_asc:-1:100"), Sort::PriceAsc),
            (encode("price_asc:+1:100"), Sort::PriceAsc),
            (encode("price_asc:1:99999999999999999999"), Sort::PriceAsc),
            (encode("price_asc:1"), Sort::PriceAsc),
            (encode("newest:1:253402300800000000"), Sort::Newest),
            (encode("newest:1:-1"), Sort::Newest),
            (encode("name:1:a\0b"), Sort::Name),
            (format!("{}=", encode("name:1:ab")), Sort::Name),
        ] {
            assert_eq!(Cursor::read(&text, sort), None, "{text}");
        }
    }
}
