//! What somebody who has begun to type may mean: a few products, those named so before those described so, the newest first
//! among equals; and where nothing matches, those whose names are nearly so.

use axum::{extract::State, response::Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ListedProduct;
use crate::{
    caching::{EntityTag, Tag},
    catalogue::{self, Catalogue, List, Listed},
    client::Client,
    parameters::Parameters,
    problem::Problem,
    search::Words,
    shop::Shop,
};

/// Of the first thousand that match, so that a word in every description costs no more than any.
pub(crate) const MATCHING: &str = "
    SELECT s.epoch, s.version, c.slug AS category, p.*
      FROM catalogue_state s
      LEFT JOIN LATERAL (
           SELECT *
             FROM (WITH matching AS MATERIALIZED (
                       SELECT p.id, p.category_id, p.slug, p.name, p.price_cents, p.currency, p.image,
                              p.stock > 0 AS in_stock, p.created_at,
                              ts_rank(p.searchable, to_tsquery('english', $1)) AS rank
                         FROM products p
                        WHERE p.active AND p.searchable @@ to_tsquery('english', $1)
                          AND querytree(to_tsquery('english', $1)) NOT IN ('T', ''))
                   SELECT * FROM matching LIMIT 1000) p
            ORDER BY rank DESC, created_at DESC, id DESC
            LIMIT 8
           ) p ON true
      LEFT JOIN categories c ON c.id = p.category_id
     ORDER BY rank DESC, p.created_at DESC, p.id DESC";

/// `products_like` (migration 0008) finds nothing where the server lacks pg_trgm.
pub(crate) const LIKE: &str = "
    SELECT s.epoch, s.version, c.slug AS category, p.id, p.slug, p.name, p.price_cents, p.currency, p.image,
           p.stock > 0 AS in_stock, p.created_at
      FROM catalogue_state s
      LEFT JOIN LATERAL (SELECT * FROM products_like($1, 1000) ORDER BY likeness DESC, id DESC LIMIT 8) l ON true
      LEFT JOIN products p ON p.id = l.id
      LEFT JOIN categories c ON c.id = p.category_id
     ORDER BY l.likeness DESC, l.id DESC";

/// Fewer letters are like too much.
const SHORTEST_MISSPELT: usize = 4;

/// What has been typed so far.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Typed {
    /// Words, of which the last may be unfinished.
    #[param(pattern = "^[^\\x00]*$", max_length = 100)]
    words: String,
}

/// The most likely first.
#[derive(Debug, Serialize, ToSchema)]
struct Suggestions {
    products: Vec<ListedProduct>,
}

/// `GET /api/suggestions?words=`: up to eight products that may be meant.
#[utoipa::path(
    get,
    path = "/suggestions",
    operation_id = "suggest_products",
    tag = "catalogue",
    params(Typed),
    responses((status = 200, description = "OK", body = Suggestions), (status = 304, description = "Not changed"))
)]
pub(crate) async fn suggest(
    State(shop): State<Shop>,
    client: Client,
    headers: HeaderMap,
    Parameters(typed): Parameters<Typed>,
) -> Result<Response, Problem> {
    let words = Words::parse(&typed.words)?.ok_or_else(|| Problem::invalid("`words` is empty"))?;
    shop.searches.within(client, find(&shop, &headers, &words)).await
}

async fn find(shop: &Shop, headers: &HeaderMap, words: &Words) -> Result<Response, Problem> {
    let entity = |catalogue: &Catalogue| {
        EntityTag::of(&["suggestions", &catalogue.epoch, &catalogue.version.to_string(), &words.spelled])
    };
    let list = List { entity: &entity, tags: &[Tag::Catalogue] };
    catalogue::answer(shop, headers, &list, async |mut connection| {
        let query = sqlx::query_as(MATCHING).bind(&words.query);
        let mut found = Listed::split(connection.all("products.suggest", query).await?)?;
        if found.1.is_empty() && words.spelled.chars().count() >= SHORTEST_MISSPELT {
            let query = sqlx::query_as(LIKE).bind(&words.spelled);
            found = Listed::split(connection.all("products.suggest_like", query).await?)?;
        }
        drop(connection);
        let (catalogue, products) = found;
        Ok((catalogue, Suggestions { products }))
    })
    .await
}
