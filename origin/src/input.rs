//! Bodies of requests: JSON of a bounded size, parsed once into a type, with a message for every field that is wrong.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::{HeaderMap, header};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Number, error::Category};

use crate::problem::{FieldError, Problem};

/// Bytes of a body at most: a hundred order lines with room to spare.
pub(crate) const LARGEST_BODY: usize = 64 << 10;
/// 2^53 - 1, the last whole number whose neighbours every reader of JSON can tell from it (RFC 8259 §6).
pub(crate) const LARGEST_INTEGER: i64 = 9_007_199_254_740_991;
/// 2^50. The reader of JSON may miss the last bits of a number that is written with a point. Up to here that leaves a fraction,
/// which is refused; further out it would be another whole number.
const LARGEST_WITH_A_POINT: f64 = 1_125_899_906_842_624.0;
const NOT_WHOLE: &str = "expected a whole number within the documented bounds";

/// What is wrong with an input, field by field.
#[derive(Debug, Default)]
pub(crate) struct Wrong(Vec<FieldError>);

impl Wrong {
    /// Notes `message` about a field unless the condition holds.
    pub(crate) fn unless(&mut self, holds: bool, field: impl Into<String>, message: &str) {
        if !holds {
            self.0.push(FieldError { field: field.into(), message: message.to_owned() });
        }
    }

    /// One line of text within the bounds, in characters. PostgreSQL cannot hold a NUL, and no name has a line break.
    pub(crate) fn line(&mut self, text: &str, bounds: std::ops::RangeInclusive<usize>, field: &str) {
        let fits = bounds.contains(&text.chars().count()) && !text.chars().any(char::is_control);
        let message = format!("one line of {} to {} characters", bounds.start(), bounds.end());
        self.unless(fits, field, &message);
    }

    /// The shape of an address, in the field `email`: only a message to it could tell whether it exists.
    pub(crate) fn email(&mut self, text: &str) {
        let plausible = text.len() <= 254
            && !text.chars().any(|character| character.is_whitespace() || character.is_control())
            && text.split_once('@').is_some_and(|(local, domain)| {
                !local.is_empty() && !domain.is_empty() && !domain.contains('@')
            });
        self.unless(plausible, "email", "an address such as `name@example.org`");
    }
}

/// An input whose fields have rules beyond their types.
pub(crate) trait Checked: DeserializeOwned {
    fn check(&self, wrong: &mut Wrong);
}

/// A body that has passed.
#[derive(Debug)]
pub(crate) struct Input<T>(pub(crate) T);

impl<T: Checked, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        parse(&read(request, state).await?).map(Self)
    }
}

/// A body of JSON as it was sent.
pub(crate) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    // A form cannot send this type, and a script of another site needs the leave of a preflight request (CORS).
    if !is_json(request.headers()) {
        return Err(Problem::unsupported_media_type());
    }
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            Problem::body_too_large()
        } else {
            Problem::invalid("the body did not arrive whole")
        }
    })
}

/// The value of a body, checked.
pub(crate) fn parse<T: Checked>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| explain(&error))?;
    json.end().map_err(|error| Problem::invalid(format!("the body is not JSON: {error}")))?;
    let mut wrong = Wrong::default();
    value.check(&mut wrong);
    if wrong.0.is_empty() { Ok(value) } else { Err(Problem::invalid_fields(wrong.0)) }
}

/// Reads a member that may be left out but not be null: who sends null to change something wants something else than leaving
/// it as it is. With `#[serde(default)]`.
pub(crate) fn not_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The same for a whole number.
pub(crate) fn integer_not_null<'de, T: TryFrom<i64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    integer(deserializer).map(Some)
}

/// Reads a whole number. `3.0` is one as well as `3`, says JSON Schema of its `integer`, by which the interface is described.
pub(crate) fn integer<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    optional_integer(deserializer)?.ok_or_else(|| D::Error::custom(NOT_WHOLE))
}

/// The same for a number that may be null.
pub(crate) fn optional_integer<'de, T: TryFrom<i64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(sent) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let is_whole = |number: &f64| number.fract() == 0.0 && number.abs() <= LARGEST_WITH_A_POINT;
    let number = sent.as_i64().or_else(|| sent.as_f64().filter(is_whole).map(|number| number as i64));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| D::Error::custom(format!("{sent}: {NOT_WHOLE}")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let (text, mut field) = (error.inner().to_string(), error.path().to_string());
    if error.inner().classify() != Category::Data {
        return Problem::invalid(format!("the body is not JSON: {text}"));
    }
    // Of a member that is not there the path is that of what lacks it.
    if let Some(rest) = text.strip_prefix("missing field `") {
        let lacking = rest.split('`').next().unwrap_or_default();
        field = if field == "." { lacking.to_owned() } else { format!("{field}.{lacking}") };
    }
    let message = text.split(" at line ").next().unwrap_or_default().to_owned();
    // The body as a whole is no field.
    if field == "." {
        return Problem::invalid_fields(Vec::new()).detail(message);
    }
    Problem::invalid_field(field, message)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Named {
        name: String,
        #[serde(default)]
        more: Vec<Named>,
        #[serde(default, deserialize_with = "integer_not_null")]
        count: Option<i32>,
    }

    impl Checked for Named {
        fn check(&self, wrong: &mut Wrong) {
            wrong.line(&self.name, 1..=3, "name");
            self.more.iter().for_each(|named| named.check(wrong));
        }
    }

    #[test]
    fn a_whole_number_is_whole_however_it_is_written() {
        #[derive(Deserialize)]
        struct Number {
            #[serde(deserialize_with = "integer")]
            number: i32,
            #[serde(default, deserialize_with = "optional_integer")]
            other: Option<i64>,
        }
        let read = |number: &str, other: &str| {
            let body = format!(r#"{{"number":{number},"other":{other}}}"#);
            serde_json::from_str::<Number>(&body).map(|read| (read.number, read.other))
        };
        assert_eq!(read("40772.0", "null").expect("whole"), (40772, None));
        assert_eq!(read("-1e3", "1000000000000.0").expect("whole"), (-1000, Some(1_000_000_000_000)));
        assert_eq!(read("7", "9007199254740991").expect("whole"), (7, Some(LARGEST_INTEGER)));
        assert_eq!(
            serde_json::from_str::<Number>(r#"{"number":1}"#).expect("one may be left out").other,
            None
        );
        for (number, other) in [
            ("0.5", "1"),
            ("2147483648", "1"),
            ("2147483648.0", "1"),
            ("null", "1"),
            ("\"1\"", "1"),
            ("1", "9007199254740991.0"),
            ("1", "18446744073709551615"),
            ("1", "true"),
        ] {
            assert!(read(number, other).is_err(), "{number} {other}");
        }
    }

    #[test]
    fn every_way_to_be_wrong_has_its_answer() {
        let named = parse::<Named>(br#"{"name":"abc","count":2.0}"#).expect("valid");
        assert_eq!((named.name.as_str(), named.count), ("abc", Some(2)));
        for (body, status, field) in [
            (r#"{"name":"#, StatusCode::BAD_REQUEST, None),
            (r#"{"name":"abcd"}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("name")),
            (r#"{"name":"a\u0000"}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("name")),
            (r#"{"name":"a","role":"x"}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("role")),
            (r"{}", StatusCode::UNPROCESSABLE_ENTITY, Some("name")),
            (r#"{"name":7}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("name")),
            (r#"{"name":"a","count":1.5}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("count")),
            (r#"{"name":"a","count":null}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("count")),
            (
                r#"{"name":"a","more":[{"name":"a","count":{}}]}"#,
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("more[0].count"),
            ),
            (r#"{"name":"a","count":01}"#, StatusCode::BAD_REQUEST, None),
            (
                r#"{"name":"a","count":{"$serde_json::private::RawValue":"5"}}"#,
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("count"),
            ),
            (r#"{"name":null}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("name")),
            (r"7", StatusCode::UNPROCESSABLE_ENTITY, None),
            (
                r#"{"name":"a","more":[{"name":"b"},{"name":[]}]}"#,
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("more[1].name"),
            ),
            (r#"{"name":"a","more":[{}]}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("more[0].name")),
            (r#"{"name":"a"} x"#, StatusCode::BAD_REQUEST, None),
        ] {
            let problem = parse::<Named>(body.as_bytes()).expect_err(body);
            assert_eq!(problem.status(), status, "{body}");
            assert_eq!(problem.errors().first().map(|error| error.field.as_str()), field, "{body}");
        }
    }
}
