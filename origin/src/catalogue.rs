//! The state of the whole catalogue. Every list carries it: its entity tag is made of it, and a request with the right
//! `If-None-Match` costs one row.

use axum::response::Response;
use http::HeaderMap;
use sqlx::{FromRow, Row as _, postgres::PgRow};

use crate::{
    caching::{self, IfNoneMatch, Keeping},
    database::Connection,
    problem::Problem,
};

pub(crate) const STATE: &str = "SELECT epoch, version FROM catalogue_state";

/// The database raises the version in the transaction of a change. The epoch differs between databases, so that equal versions
/// of two of them are not taken for the same state.
#[derive(Debug, FromRow)]
pub(crate) struct Catalogue {
    pub(crate) epoch: String,
    pub(crate) version: i64,
}

/// 304 if the request has the list as it is now. `keeping` makes the list's caching fields for a state of
/// the catalogue.
pub(crate) async fn unchanged<'a>(
    connection: &mut Connection,
    headers: &HeaderMap,
    keeping: &impl Fn(&Catalogue) -> Keeping<'a>,
) -> Result<Option<Response>, Problem> {
    let Some(condition) = IfNoneMatch::of(headers) else { return Ok(None) };
    let known = keeping(&connection.one("catalogue.version", sqlx::query_as(STATE)).await?);
    Ok(condition.lists(&known.entity).then(|| caching::not_modified(&known)))
}

/// A row of a list. There is always one, for the catalogue's state: the columns of the item are null when there is none.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    catalogue: Catalogue,
    item: Option<T>,
}

impl<T> Listed<T> {
    /// The state and the items of all rows.
    pub(crate) fn split(rows: Vec<Self>) -> Result<(Catalogue, Vec<T>), Problem> {
        let mut catalogue = None;
        let items = rows.into_iter().filter_map(|row| {
            catalogue.get_or_insert(row.catalogue);
            row.item
        });
        let items = items.collect();
        Ok((catalogue.ok_or_else(Problem::internal)?, items))
    }
}

impl<'r, T: FromRow<'r, PgRow>> FromRow<'r, PgRow> for Listed<T> {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let id: Option<i64> = row.try_get("id")?;
        let item = id.map(|_| T::from_row(row)).transpose()?;
        Ok(Self { catalogue: Catalogue::from_row(row)?, item })
    }
}
