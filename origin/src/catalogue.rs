//! The state of the whole catalogue. Every list carries it: its entity tag is made of it, and a request with the right
//! `If-None-Match` costs one row.

use axum::response::Response;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, Row as _, postgres::PgRow};

use crate::{
    caching::{self, CATALOGUE, EntityTag, IfNoneMatch, Keeping, Tag},
    common_memory::{Made, Subject},
    database::Connection,
    problem::Problem,
    shop::Shop,
};

pub(crate) const STATE: &str = "SELECT epoch, version FROM catalogue_state";

/// The database raises the version in the transaction of a change. The epoch differs between databases, so that equal versions
/// of two of them are not taken for the same state.
#[derive(Debug, Default, FromRow, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    pub(crate) epoch: String,
    pub(crate) version: i64,
}

/// A list that everybody may see.
pub(crate) struct List<'a> {
    /// Its entity tag for a state of the catalogue.
    pub(crate) entity: &'a (dyn Fn(&Catalogue) -> EntityTag + Sync),
    pub(crate) tags: &'a [Tag<'a>],
}

/// Answers with the list that `find` finds, or that was found before; 304 if the request has it as it is.
pub(crate) async fn answer<T: Serialize, F>(
    shop: &Shop,
    headers: &HeaderMap,
    list: &List<'_>,
    find: impl FnOnce(Connection) -> F,
) -> Result<Response, Problem>
where
    F: Future<Output = Result<(Catalogue, T), Problem>>,
{
    let List { entity, tags } = list;
    let subject = Subject::list(entity(&Catalogue::default()), tags);
    let make = async {
        let (mut connection, control) = shop.reads.acquire_public(headers, CATALOGUE).await?;
        if let Some(condition) = IfNoneMatch::of(headers) {
            let known = connection.one("catalogue.version", sqlx::query_as(STATE)).await?;
            if condition.lists(&entity(&known)) {
                return Ok(Made { value: (known, None), control, to_keep: false });
            }
        }
        let (catalogue, value) = find(connection).await?;
        let body = caching::write(&value)?;
        Ok::<_, Problem>(Made { value: (catalogue, Some(body)), to_keep: control == CATALOGUE, control })
    };
    let Made { value: (catalogue, body), control, .. } =
        shop.memory_for(headers).recall(&subject, make).await?;
    let keeping = Keeping { control, entity: entity(&catalogue), tags };
    Ok(match body {
        Some(body) => caching::written(headers, &keeping, body),
        None => caching::not_modified(&keeping),
    })
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
