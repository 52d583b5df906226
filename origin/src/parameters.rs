//! The query string of a request: parsed once into a type, with a message for what is wrong.

use axum::extract::{FromRequestParts, Query, rejection::QueryRejection};
use http::request::Parts;
use serde::{Deserialize, de::DeserializeOwned};

use crate::problem::Problem;

#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |rejection: QueryRejection| Problem::invalid(rejection.body_text());
        Query::from_request_parts(parts, state).await.map(|Query(value)| Self(value)).map_err(wrong)
    }
}

/// For what takes no parameters. Unknown ones are refused, because each spelling would be another entry in every cache.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParameters {}
