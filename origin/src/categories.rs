//! The categories of the shop.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use crate::{
    caching::{self, CATALOGUE, EntityTag, IfNoneMatch, Keeping, Tag},
    problem::Problem,
    products::{CATALOGUE_VERSION, CatalogueVersion},
    server::Shop,
};

/// Counting walks one index range for each category.
pub(crate) const LIST: &str = "
    SELECT s.epoch, s.version, c.id, c.slug, c.name,
           (SELECT count(*) FROM products p WHERE p.category_id = c.id AND p.active) AS product_count
      FROM catalogue_state s
      LEFT JOIN categories c ON true
     ORDER BY c.position, c.id";

/// All categories.
#[derive(Debug, Serialize, ToSchema)]
struct Categories {
    categories: Vec<Category>,
}

/// One category as the interface shows it.
#[derive(Debug, Serialize, ToSchema)]
struct Category {
    id: i64,
    slug: String,
    name: String,
    product_count: i64,
}

/// No parameters; unknown ones are refused, because each spelling would be another entry in every cache.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParameters {}

#[derive(FromRow)]
struct Row {
    #[sqlx(flatten)]
    catalogue: CatalogueVersion,
    id: Option<i64>,
    slug: Option<String>,
    name: Option<String>,
    product_count: i64,
}

/// `GET /api/categories`: all of them, in the order of menus, each with the number of products it offers.
#[utoipa::path(
    get,
    path = "/categories",
    tag = "catalogue",
    responses((status = 200, description = "OK", body = Categories), (status = 304, description = "Not changed"))
)]
pub(crate) async fn list(
    State(shop): State<Shop>,
    headers: HeaderMap,
    parameters: Result<Query<NoParameters>, QueryRejection>,
) -> Result<Response, Problem> {
    parameters.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    let keeping = |catalogue: &CatalogueVersion| Keeping {
        control: CATALOGUE,
        entity: EntityTag::of(&["categories", &catalogue.epoch, &catalogue.version.to_string()]),
        tags: &[Tag::Catalogue],
    };
    let mut connection = shop.reads.acquire(&headers).await?;
    if let Some(condition) = IfNoneMatch::of(&headers) {
        let known = keeping(&connection.one("catalogue.version", sqlx::query_as(CATALOGUE_VERSION)).await?);
        if condition.lists(&known.entity) {
            return Ok(caching::not_modified(&known));
        }
    }
    let rows: Vec<Row> = connection.all("categories.list", sqlx::query_as(LIST)).await?;
    drop(connection);
    let keeping = rows.first().map(|row| keeping(&row.catalogue)).ok_or_else(Problem::internal)?;
    // The outer join leaves one row of nulls when there are none.
    let categories: Vec<Category> = rows
        .into_iter()
        .filter_map(|row| {
            Some(Category { id: row.id?, slug: row.slug?, name: row.name?, product_count: row.product_count })
        })
        .collect();
    caching::json(&headers, &keeping, &Categories { categories })
}
