//! What search engines read first: robots.txt, and the sitemap (sitemaps.org) in parts of so many products, by their numbers, so
//! that a part stays the same while others grow.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use sqlx::FromRow;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Told, site::Site};
use crate::{
    caching::{CATALOGUE, SURROGATE_KEY, Tag},
    categories,
    problem::Problem,
    shop::Shop,
};

/// Products of one part; the protocol allows 50,000 addresses.
const PRODUCTS: i64 = 10_000;

pub(crate) const LAST: &str = "SELECT coalesce(max(id), 0) FROM products";
pub(crate) const PART: &str = "
    SELECT slug, updated_at FROM products WHERE id > $1 AND id <= $2 AND active ORDER BY id";

#[derive(Debug, FromRow)]
struct Listed {
    slug: String,
    updated_at: OffsetDateTime,
}

/// `GET /robots.txt`: everything but what is of one customer or of machines.
pub(super) async fn robots(site: Site) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let text = format!(
        "User-agent: *\nDisallow: /api/\nDisallow: /account\nDisallow: /cart\nDisallow: /orders\nDisallow: /search\n\n\
         Sitemap: {}/sitemap.xml\n",
        site.as_str()
    );
    (kind, [(header::CACHE_CONTROL, CATALOGUE)], [(SURROGATE_KEY, "storefront")], text).into_response()
}

/// `GET /sitemap.xml`: the parts.
pub(super) async fn index(
    State(shop): State<Shop>,
    site: Site,
    headers: HeaderMap,
) -> Result<Response, Told> {
    let (mut connection, _) = shop.reads.acquire_public(&headers, CATALOGUE).await?;
    let (last,): (i64,) = connection.one("sitemap.last", sqlx::query_as(LAST)).await?;
    let site = site.as_str();
    let mut parts = format!("<sitemap><loc>{site}/sitemap/shelves.xml</loc></sitemap>\n");
    for part in 0..(last + PRODUCTS - 1) / PRODUCTS {
        parts += &format!("<sitemap><loc>{site}/sitemap/products-{part}.xml</loc></sitemap>\n");
    }
    Ok(written("sitemapindex", &parts))
}

/// `GET /sitemap/{part}`: `shelves.xml`, or `products-0.xml` and on.
pub(super) async fn part(
    State(shop): State<Shop>,
    site: Site,
    part: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Told> {
    let part = part.ok().and_then(|Path(part)| part.strip_suffix(".xml").map(str::to_owned));
    let part = part.ok_or(Told::NotFound)?;
    let (mut connection, _) = shop.reads.acquire_public(&headers, CATALOGUE).await?;
    let site = site.as_str();
    if part == "shelves" {
        let mut urls = format!("<url><loc>{site}/</loc></url>\n");
        for aisle in categories::names(&mut connection).await? {
            urls += &format!("<url><loc>{site}/category/{}</loc></url>\n", aisle.slug);
        }
        return Ok(written("urlset", &urls));
    }
    let number = part.strip_prefix("products-").and_then(|number| number.parse::<u32>().ok());
    let first = i64::from(number.ok_or(Told::NotFound)?) * PRODUCTS;
    let query = sqlx::query_as::<_, Listed>(PART).bind(first).bind(first + PRODUCTS);
    let products = connection.all("sitemap.part", query).await?;
    if products.is_empty() {
        return Err(Told::NotFound);
    }
    let mut urls = String::with_capacity(products.len() * 128);
    for Listed { slug, updated_at } in products {
        let changed = updated_at.replace_nanosecond(0).unwrap_or(updated_at);
        let changed = changed.format(&Rfc3339).map_err(|_| Problem::internal())?;
        urls += &format!("<url><loc>{site}/product/{slug}</loc><lastmod>{changed}</lastmod></url>\n");
    }
    Ok(written("urlset", &urls))
}

/// Slugs and hosts hold nothing that XML would take for its own.
fn written(root: &str, inside: &str) -> Response {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <{root} xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n{inside}</{root}>\n"
    );
    let fields = [(header::CONTENT_TYPE, "application/xml; charset=utf-8")];
    let tags = [(SURROGATE_KEY, Tag::Catalogue.to_string())];
    (StatusCode::OK, fields, [(header::CACHE_CONTROL, CATALOGUE)], tags, text).into_response()
}
