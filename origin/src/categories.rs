//! The categories of the shop.

use axum::{extract::State, response::Response};
use http::HeaderMap;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;

use crate::{
    caching::{EntityTag, Tag},
    catalogue::{self, Catalogue, List, Listed},
    database::Connection,
    numbers::CategoryId,
    parameters::{NoParameters, Parameters},
    problem::Problem,
    shop::Shop,
};

/// Counting walks one index range for each category.
pub(crate) const LIST: &str = "
    SELECT s.epoch, s.version, c.id, c.slug, c.name,
           (SELECT count(*) FROM products p WHERE p.category_id = c.id AND p.active) AS product_count
      FROM catalogue_state s
      LEFT JOIN categories c ON true
     ORDER BY c.position, c.id";

/// For the row of categories on every page, where nothing is counted.
pub(crate) const NAMES: &str = "SELECT slug, name FROM categories ORDER BY position, id";

/// A category by its name.
#[derive(Debug, FromRow, Serialize)]
pub(crate) struct Aisle {
    pub(crate) slug: String,
    pub(crate) name: String,
}

/// All categories.
#[derive(Debug, Serialize, ToSchema)]
struct Categories {
    categories: Vec<Category>,
}

/// One category as the interface shows it.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct Category {
    id: CategoryId,
    slug: String,
    name: String,
    product_count: i64,
}

/// `GET /api/categories`: all of them, in the order of menus, each with the number of products it offers.
#[utoipa::path(
    get,
    path = "/categories",
    operation_id = "list_categories",
    tag = "catalogue",
    responses((status = 200, description = "OK", body = Categories), (status = 304, description = "Not changed"))
)]
pub(crate) async fn list(
    State(shop): State<Shop>,
    headers: HeaderMap,
    _: Parameters<NoParameters>,
) -> Result<Response, Problem> {
    let entity = |catalogue: &Catalogue| {
        EntityTag::of(&["categories", &catalogue.epoch, &catalogue.version.to_string()])
    };
    let list = List { entity: &entity, tags: &[Tag::Catalogue] };
    catalogue::answer(&shop, &headers, &list, async |mut connection| {
        let rows = connection.all("categories.list", sqlx::query_as(LIST)).await?;
        drop(connection);
        let (catalogue, categories) = Listed::split(rows)?;
        Ok((catalogue, Categories { categories }))
    })
    .await
}

/// All categories with their sizes.
pub(crate) async fn counted(connection: &mut Connection) -> Result<Vec<Category>, Problem> {
    let rows = connection.all("categories.list", sqlx::query_as(LIST)).await?;
    Ok(Listed::split(rows)?.1)
}

/// All categories by their names.
pub(crate) async fn names(connection: &mut Connection) -> Result<Vec<Aisle>, sqlx::Error> {
    connection.all("categories.names", sqlx::query_as(NAMES)).await
}

/// Whether there is a category with this slug.
pub(crate) async fn exists(connection: &mut Connection, slug: &str) -> Result<bool, sqlx::Error> {
    let query =
        sqlx::query_as::<_, (CategoryId,)>("SELECT id FROM categories WHERE slug = $1").bind(slug.to_owned());
    Ok(connection.optional("categories.find", query).await?.is_some())
}
