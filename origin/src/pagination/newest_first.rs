//! Pages of what one customer has, newest first: the parameters and the cursor that such lists share.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Deserialize;
use sqlx::{FromRow, postgres::PgRow};
use time::OffsetDateTime;
use utoipa::IntoParams;

use crate::{
    database::{Connection, Rows},
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
    after: (OffsetDateTime, i64),
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
    /// Asks for the page's rows; the last three parameters of the statement are the time and the id that they come after, and how
    /// many are wanted. `place` says when a row came to be, and its id. The rows, and the cursor of the next page, if there is one.
    pub(crate) async fn read<T: for<'r> FromRow<'r, PgRow> + Send + Unpin>(
        &self,
        connection: &mut Connection,
        name: &'static str,
        query: Rows<'_, T>,
        place: fn(&T) -> (OffsetDateTime, i64),
    ) -> Result<(Vec<T>, Option<String>), sqlx::Error> {
        let (time, id) = self.after;
        // One more than the page tells whether there is another.
        let query = query.bind(time).bind(id).bind(i64::from(self.limit) + 1);
        let mut rows = connection.all(name, query).await?;
        let last = cut(&mut rows, self.limit).map(place);
        let next = last.map(|(time, id)| Cursor { key: Key::CreatedAt(time), id }.encode(Sort::Newest));
        Ok((rows, next))
    }
}

/// No row is newer.
const END_OF_TIME: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);
