//! Pages of what one customer has, newest first: the parameters and the cursor that such lists share.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;

use crate::{
    pagination::{Cursor, Key, Sort, cut, limit},
    parameters,
    problem::Problem,
};

const DEFAULT_LIMIT: u32 = 20;

/// The parameters as they are sent.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]+$", max_length = 1200)]
    cursor: Option<String>,
}

/// One page: how many, and from where on.
#[derive(Debug)]
pub(crate) struct Page {
    limit: u32,
    /// The time and id of the last row of the page before.
    pub(crate) after: (OffsetDateTime, i64),
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters::Parameters(sent) =
            parameters::Parameters::<Parameters>::from_request_parts(parts, state).await?;
        let after = match sent.cursor.map(|text| Cursor::decode(&text, Sort::Newest)).transpose()? {
            None => (END_OF_TIME, i64::MAX),
            Some(Cursor { key: Key::CreatedAt(time), id }) => (time, id),
            Some(_) => return Err(Problem::invalid_cursor()),
        };
        Ok(Self { limit: limit(sent.limit, DEFAULT_LIMIT)?, after })
    }
}

impl Page {
    /// Rows to ask for: one more than the page tells whether there is another.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Cuts the rows to the page; the cursor of the next, if there is one.
    pub(crate) fn cut<T>(
        &self,
        rows: &mut Vec<T>,
        place: impl Fn(&T) -> (OffsetDateTime, i64),
    ) -> Option<String> {
        let (time, id) = cut(rows, self.limit).map(place)?;
        Some(Cursor { key: Key::CreatedAt(time), id }.encode(Sort::Newest))
    }
}

/// No row is newer.
const END_OF_TIME: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);
