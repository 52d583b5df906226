//! Pages of what one customer has, newest first: the parameters and the cursor that such lists share.

use axum::extract::{Query, rejection::QueryRejection};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;

use crate::{
    problem::Problem,
    products::{Cursor, Key, Sort},
};

const DEFAULT_LIMIT: u32 = 20;
const LARGEST_LIMIT: u32 = 100;

/// The parameters as they are sent.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One page: how many, and from where on.
#[derive(Debug)]
pub(crate) struct Page {
    limit: u32,
    /// The time and id of the last row of the page before.
    pub(crate) after: (OffsetDateTime, i64),
}

impl Page {
    pub(crate) fn check(parameters: Result<Query<Parameters>, QueryRejection>) -> Result<Self, Problem> {
        let Query(Parameters { limit, cursor }) =
            parameters.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=LARGEST_LIMIT).contains(&limit) {
            return Err(Problem::invalid("`limit` is a number from 1 to 100"));
        }
        let after = match cursor.as_deref().map(|text| Cursor::decode(text, Sort::Newest)) {
            None => (END_OF_TIME, i64::MAX),
            Some(Some(Cursor { key: Key::CreatedAt(time), id })) => (time, id),
            Some(_) => return Err(Problem::invalid_cursor()),
        };
        Ok(Self { limit, after })
    }

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
        let page = self.limit as usize;
        let more = rows.len() > page;
        rows.truncate(page);
        let (time, id) = rows.last().filter(|_| more).map(place)?;
        Some(Cursor { key: Key::CreatedAt(time), id }.encode(Sort::Newest))
    }
}

/// No row is newer.
const END_OF_TIME: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);
