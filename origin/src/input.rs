//! Bodies of requests: JSON of a bounded size, parsed once into a type, with a message for every field that is wrong.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::{HeaderMap, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::error::Category;
use utoipa::ToSchema;

use crate::problem::Problem;

/// Bytes of a body at most: a hundred order lines with room to spare.
pub(crate) const LARGEST_BODY: usize = 64 << 10;

/// What can be said about one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Name of the member; one in a list is `lines[2].quantity`.
    pub(crate) field: String,
    /// What to send instead.
    pub(crate) message: String,
}

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
        // A form cannot send this type across sites without being asked first (CORS).
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type());
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
                Problem::body_too_large()
            } else {
                Problem::invalid("the body did not arrive whole")
            }
        })?;
        parse(&body).map(Self)
    }
}

/// The value of a body, checked.
pub(crate) fn parse<T: Checked>(body: &[u8]) -> Result<T, Problem> {
    let value: T = serde_json::from_slice(body).map_err(|error| explain(&error))?;
    let mut wrong = Wrong::default();
    value.check(&mut wrong);
    if wrong.0.is_empty() { Ok(value) } else { Err(Problem::invalid_fields(wrong.0)) }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn explain(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    if error.classify() != Category::Data {
        return Problem::invalid(format!("the body is not JSON: {text}"));
    }
    // `unknown field `x`, …` and `missing field `x`` name their field; a wrong type has only its place.
    match text.strip_prefix("unknown field `").or_else(|| text.strip_prefix("missing field `")) {
        Some(rest) => {
            let field = rest.split('`').next().unwrap_or_default().to_owned();
            let message = text.split(" at line ").next().unwrap_or_default().to_owned();
            Problem::invalid_fields(vec![FieldError { field, message }])
        }
        None => Problem::invalid_fields(Vec::new()).detail(text),
    }
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
    }

    impl Checked for Named {
        fn check(&self, wrong: &mut Wrong) {
            wrong.line(&self.name, 1..=3, "name");
        }
    }

    #[test]
    fn every_way_to_be_wrong_has_its_answer() {
        assert_eq!(parse::<Named>(br#"{"name":"abc"}"#).expect("valid").name, "abc");
        for (body, status, field) in [
            (r#"{"name":"#, StatusCode::BAD_REQUEST, None),
            (r#"{"name":"abcd"}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("name")),
            (r#"{"name":"a\u0000"}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("name")),
            (r#"{"name":"a","role":"x"}"#, StatusCode::UNPROCESSABLE_ENTITY, Some("role")),
            (r"{}", StatusCode::UNPROCESSABLE_ENTITY, Some("name")),
            (r#"{"name":7}"#, StatusCode::UNPROCESSABLE_ENTITY, None),
        ] {
            let problem = parse::<Named>(body.as_bytes()).expect_err(body);
            assert_eq!(problem.status(), status, "{body}");
            assert_eq!(problem.errors().first().map(|error| error.field.as_str()), field, "{body}");
        }
    }
}
