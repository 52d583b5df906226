//! The products of the shop: lists by category, words and order, a page at a time; and one in full.
//!
//! Every answer carries an entity tag made of versions that the database raises in the transaction of a change, so a request
//! with the right `If-None-Match` costs one row. Pages are found by keyset (never OFFSET): a page deep in the list costs as
//! much as the first, and products that come or go in between neither repeat nor hide others.

pub(crate) mod administration;
pub(crate) mod suggestions;

use std::borrow::Cow;

use axum::{
    extract::{FromRequestParts, Path, State},
    response::Response,
};
use http::{HeaderMap, request::Parts};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow, Postgres, postgres::PgArguments, query::QueryAs};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::{
    caching::{self, CATALOGUE, EntityTag, IfNoneMatch, Keeping, STOCK, Tag},
    catalogue::{self, Catalogue, List, Listed},
    categories,
    client::Client,
    common_memory::{Made, Subject},
    database::Connection,
    numbers::{Cents, ProductId},
    pagination::{self, Cursor, Key, LARGEST_LIMIT, Sort},
    parameters::{NoParameters, Parameters},
    pictures,
    problem::Problem,
    search::Words,
    shop::Shop,
};

const DEFAULT_LIMIT: u32 = 24;
/// Rows that a list's statement asks for: one more than a page of the default size, or of the largest. The number is in the
/// statement's text, because with a parameter for it PostgreSQL plans the list anew each time, which costs more than reading
/// it; and there are two only, because each is a statement of its own.
pub(crate) const ROWS: [u32; 2] = [DEFAULT_LIMIT + 1, LARGEST_LIMIT + 1];
/// So many that match are counted, and put into another order. Of more, the list is walked in its order instead: then one in a
/// few products matches.
pub(crate) const MOST_FOUND: i64 = 1_000;

/// What the tag of one product is made from. The stock is no part of it: it has an answer of its own, and the version is
/// raised when it runs out or comes back.
pub(crate) const VERSION_BY_SLUG: &str = "
    SELECT s.epoch, p.id, p.version, c.slug AS category, c.version AS category_version
      FROM products p
      JOIN categories c ON c.id = p.category_id
     CROSS JOIN catalogue_state s
     WHERE p.slug = $1 AND p.active";

pub(crate) const BY_SLUG: &str = "
    SELECT s.epoch, p.id, p.version, c.slug AS category, c.version AS category_version,
           p.slug, p.name, p.description, p.price_cents, p.currency, p.image, p.stock > 0 AS in_stock, c.name AS category_name
      FROM products p
      JOIN categories c ON c.id = p.category_id
     CROSS JOIN catalogue_state s
     WHERE p.slug = $1 AND p.active";

pub(crate) const STOCK_BY_SLUG: &str = "
    SELECT s.epoch, p.id, p.stock FROM products p CROSS JOIN catalogue_state s WHERE p.slug = $1 AND p.active";

impl Sort {
    /// The sort key as an expression, the direction, and the comparison that means "further on".
    const fn sql(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Newest => ("p.created_at", "DESC", "<"),
            Self::PriceAsc => ("p.price_cents", "ASC", ">"),
            Self::PriceDesc => ("p.price_cents", "DESC", "<"),
            Self::Name => ("p.name COLLATE \"C\"", "ASC", ">"),
        }
    }
}

/// Which of the optional parts a list's statement has: all that its text depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListShape {
    pub(crate) sort: Sort,
    pub(crate) category: bool,
    pub(crate) search: bool,
    pub(crate) prices: bool,
    pub(crate) in_stock: bool,
    pub(crate) after: bool,
    /// One of [`ROWS`].
    pub(crate) rows: u32,
}

impl ListShape {
    /// The statement. Its parameters are category slug, search words, least and highest price, and the cursor's key and id, as far
    /// as present.
    /// It answers at least one row, with the catalogue's version, and nulls when no product matches.
    pub(crate) fn sql(self) -> String {
        let (key, direction, further) = self.sort.sql();
        let rows = self.rows;
        let mut last_parameter = 0;
        let mut parameter = || {
            last_parameter += 1;
            last_parameter
        };
        let (mut wanted, mut conditions, mut after) = (String::new(), String::new(), String::new());
        if self.category {
            wanted = format!("LEFT JOIN categories wanted ON wanted.slug = ${}", parameter());
            conditions += " AND p.category_id = wanted.id";
        }
        let words = self.search.then(|| format!("to_tsquery('english', ${})", parameter()));
        if self.prices {
            conditions += &format!(" AND p.price_cents BETWEEN ${} AND ${}", parameter(), parameter());
        }
        if self.in_stock {
            conditions += " AND p.stock > 0";
        }
        if self.after {
            after = format!(" AND ({key}, p.id) {further} (${}, ${})", parameter(), parameter());
        }
        let order = format!("ORDER BY {key} {direction}, p.id {direction} LIMIT {rows}");
        let columns =
            "p.id, p.category_id, p.slug, p.name, p.price_cents, p.currency, p.image, p.stock, p.created_at";
        let (found, page) = match words {
            None => {
                let page =
                    format!("SELECT {columns} FROM products p WHERE p.active{conditions}{after} {order}");
                (String::new(), page)
            }
            // The operator finds through the index; the function, which is the same, can only test, and so leaves the planner
            // no choice but to walk the order. MATERIALIZED is planned for all rows, so the limit does not make reading the
            // table look cheap, and still stops it. What is left out alone (`querytree` says T) would be looked for everywhere.
            Some(words) => (
                format!(
                    "CROSS JOIN LATERAL (
                         SELECT array_agg(p.id) AS ids, count(*) AS count
                           FROM (WITH matching AS MATERIALIZED (
                                     SELECT p.id FROM products p
                                      WHERE p.active{conditions} AND p.searchable @@ {words}
                                        AND querytree({words}) NOT IN ('T', ''))
                                 SELECT id FROM matching LIMIT {MOST_FOUND} + 1) p
                     ) found"
                ),
                format!(
                    "(SELECT {columns} FROM products p
                       WHERE found.count <= {MOST_FOUND} AND p.id = ANY (found.ids){after} {order})
                     UNION ALL
                     (SELECT {columns} FROM products p
                       WHERE found.count > {MOST_FOUND} AND p.active{conditions}{after}
                         AND ts_match_vq(p.searchable, {words}) {order})"
                ),
            ),
        };
        let count = if self.search { "found.count" } else { "NULL::bigint" };
        format!(
            "SELECT s.epoch, s.version, {count} AS found, c.slug AS category,
                    p.id, p.slug, p.name, p.price_cents, p.currency, p.image, p.stock > 0 AS in_stock, p.created_at
               FROM catalogue_state s
               {wanted}
               {found}
               LEFT JOIN LATERAL ({page}) p ON true
               LEFT JOIN categories c ON c.id = p.category_id
              ORDER BY {key} {direction}, p.id {direction}"
        )
    }

    /// The name in metrics and in the slow-query log.
    const fn name(self) -> &'static str {
        match (self.search, self.category) {
            (true, _) => "products.search",
            (false, true) => "products.list_category",
            (false, false) => "products.list",
        }
    }
}

/// The parameters of a list as they are sent.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// The slug of a category.
    #[param(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 120)]
    pub(crate) category: Option<String>,
    /// Words that the name or the description holds, the last perhaps only begun; without those after a hyphen.
    #[param(pattern = "^[^\\x00]*$", max_length = 100)]
    pub(crate) search: Option<String>,
    #[serde(default)]
    #[param(inline)]
    pub(crate) sort: Sort,
    #[param(minimum = 1, maximum = 100, default = 24)]
    pub(crate) limit: Option<u32>,
    /// `next_cursor` of the page before, in the same order.
    #[param(pattern = "^[A-Za-z0-9_-]+$", max_length = 1200)]
    pub(crate) cursor: Option<String>,
}

/// The parameters of a list, checked and in one spelling.
#[derive(Debug)]
pub(crate) struct ListRequest {
    category: Option<String>,
    search: Option<Words>,
    narrowed: Narrowed,
    sort: Sort,
    limit: u32,
    after: Option<Cursor>,
}

/// What the list of one category, or of what was found, is narrowed to further. Never a list of the whole shop: what nothing fits is
/// found out by reading all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Narrowed {
    /// The least and the highest, in cents.
    pub(crate) prices: Option<(Cents, Cents)>,
    pub(crate) in_stock: bool,
}

impl ListRequest {
    pub(crate) fn check(parameters: ListParameters) -> Result<Self, Problem> {
        let ListParameters { category, search, sort, limit, cursor } = parameters;
        if category.as_deref().is_some_and(|slug| !storefront::is_slug(slug)) {
            return Err(Problem::invalid("`category` is the slug of one, such as `kitchen`"));
        }
        let search = search.as_deref().map(Words::parse).transpose()?.flatten();
        let after = cursor.map(|text| Cursor::decode(&text, sort)).transpose()?;
        let limit = pagination::limit(limit, DEFAULT_LIMIT)?;
        Ok(Self { category, search, narrowed: Narrowed::default(), sort, limit, after })
    }

    /// A list of this category, or of what these words find, narrowed.
    pub(crate) fn narrowed(self, narrowed: Narrowed) -> Self {
        let bounded = self.category.is_some() || self.search.is_some();
        Self { narrowed: if bounded { narrowed } else { Narrowed::default() }, ..self }
    }

    /// Counts what the words find by category and band of prices, which the bounds are between; of more than can be counted, so many.
    pub(crate) async fn count_found(
        &self,
        connection: &mut Connection,
        bounds: &[Cents],
    ) -> Result<Vec<Counted>, sqlx::Error> {
        let words = self.search.as_ref().map_or("", |words| &words.query);
        let query = sqlx::query_as(FOUND_BANDS).bind(words.to_owned()).bind(bounds.to_vec());
        connection.all("products.found_bands", query).await
    }

    /// The page that is asked for, and the state of the catalogue that it shows.
    pub(crate) async fn find(&self, connection: &mut Connection) -> Result<(Catalogue, Page), Problem> {
        let rows = connection.all(self.shape().name(), self.statement()).await?;
        let (catalogue, mut products) = Listed::<ListedProduct>::split(rows)?;
        let count = || products.first().and_then(|one| one.found).unwrap_or(0);
        let found = self.search.as_ref().map(|_| count().into());
        let next_cursor =
            pagination::cut(&mut products, self.limit).map(|last| last.cursor(self.sort).encode(self.sort));
        Ok((catalogue, Page { products, found, next_cursor }))
    }

    fn shape(&self) -> ListShape {
        ListShape {
            sort: self.sort,
            category: self.category.is_some(),
            search: self.search.is_some(),
            prices: self.narrowed.prices.is_some(),
            in_stock: self.narrowed.in_stock,
            after: self.after.is_some(),
            rows: ROWS.into_iter().find(|rows| *rows > self.limit).unwrap_or(LARGEST_LIMIT + 1),
        }
    }

    fn entity(&self, catalogue: &Catalogue) -> EntityTag {
        let after = self.after.as_ref().map(|cursor| cursor.encode(self.sort));
        EntityTag::of(&[
            "products",
            &catalogue.epoch,
            &catalogue.version.to_string(),
            self.category.as_deref().unwrap_or_default(),
            self.search.as_ref().map_or("", |words| &words.spelled),
            self.sort.name(),
            &self.limit.to_string(),
            after.as_deref().unwrap_or_default(),
        ])
    }

    /// A new product can appear in any list of its category, and in any over all of them.
    fn purged_with(&self) -> [Tag<'_>; 1] {
        [self.category.as_deref().map_or(Tag::Catalogue, Tag::Category)]
    }

    /// Binds in the order of [`ListShape::sql`]. A row more than the page tells that there is another page.
    fn statement(&self) -> QueryAs<'static, Postgres, Listed<ListedProduct>, PgArguments> {
        let mut statement = sqlx::query_as(AssertSqlSafe(self.shape().sql()));
        if let Some(category) = &self.category {
            statement = statement.bind(category.clone());
        }
        if let Some(words) = &self.search {
            statement = statement.bind(words.query.clone());
        }
        if let Some((least, highest)) = self.narrowed.prices {
            statement = statement.bind(least).bind(highest);
        }
        if let Some(Cursor { key, id }) = &self.after {
            statement = match key {
                Key::CreatedAt(time) => statement.bind(*time),
                Key::PriceCents(cents) => statement.bind(*cents),
                Key::Name(name) => statement.bind(name.clone()),
            };
            statement = statement.bind(*id);
        }
        statement
    }
}

impl ListedProduct {
    fn cursor(&self, sort: Sort) -> Cursor {
        let key = match sort {
            Sort::Newest => Key::CreatedAt(self.created_at),
            Sort::PriceAsc | Sort::PriceDesc => Key::PriceCents(self.price_cents),
            Sort::Name => Key::Name(self.name.clone()),
        };
        Cursor { key, id: self.id.into() }
    }
}

/// A page of products.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProductPage)]
pub(crate) struct Page {
    pub(crate) products: Vec<ListedProduct>,
    /// Of a search: how many match; null otherwise.
    pub(crate) found: Option<Found>,
    /// Null on the last page.
    pub(crate) next_cursor: Option<String>,
}

/// How many products match, on all pages together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Found {
    /// A thousand at most.
    pub(crate) count: i64,
    /// Whether there are more than that.
    pub(crate) or_more: bool,
}

impl From<i64> for Found {
    fn from(count: i64) -> Self {
        Self { count: count.min(MOST_FOUND), or_more: count > MOST_FOUND }
    }
}

/// A product in a list.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct ListedProduct {
    id: ProductId,
    pub(crate) slug: String,
    name: String,
    /// The category's slug.
    category: String,
    price_cents: Cents,
    currency: String,
    /// A path below the origin, or null.
    #[sqlx(try_from = "Option<String>")]
    #[schema(value_type = Option<String>)]
    image: Picture,
    in_stock: bool,
    #[serde(skip)]
    created_at: OffsetDateTime,
    /// How many there are like it.
    #[serde(skip)]
    #[sqlx(default)]
    found: Option<i64>,
}

/// The address of a product's picture, if it has one that the storefront has or that was put in.
#[derive(Debug, Serialize)]
struct Picture(Option<Cow<'static, str>>);

impl From<Option<String>> for Picture {
    fn from(stem: Option<String>) -> Self {
        Self(stem.and_then(|stem| match storefront::image_url(&stem) {
            Some(address) => Some(address.into()),
            None => pictures::is_stem(&stem).then(|| pictures::address(&stem).into()),
        }))
    }
}

/// `GET /api/products?category=&search=&sort=&limit=&cursor=`: one page, and the cursor of the next if there is one.
#[utoipa::path(
    get,
    path = "/products",
    operation_id = "list_products",
    tag = "catalogue",
    params(ListParameters),
    responses((status = 200, description = "OK", body = Page), (status = 304, description = "Not changed"))
)]
pub(crate) async fn list(
    State(shop): State<Shop>,
    client: Client,
    headers: HeaderMap,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Response, Problem> {
    let request = ListRequest::check(parameters)?;
    let page = page(&shop, &headers, &request);
    if request.search.is_some() { shop.searches.within(client, page).await } else { page.await }
}

async fn page(shop: &Shop, headers: &HeaderMap, request: &ListRequest) -> Result<Response, Problem> {
    let entity = |catalogue: &Catalogue| request.entity(catalogue);
    let list = List { entity: &entity, tags: &request.purged_with() };
    catalogue::answer(shop, headers, &list, async |mut connection| {
        let (catalogue, page) = request.find(&mut connection).await?;
        if let (true, Some(category)) = (page.products.is_empty(), &request.category)
            && !categories::exists(&mut connection, category).await?
        {
            return Err(Problem::not_found("no such category"));
        }
        Ok((catalogue, page))
    })
    .await
}

#[derive(Debug, FromRow)]
pub(crate) struct ProductVersion {
    epoch: String,
    id: ProductId,
    version: i64,
    category: String,
    category_version: i64,
}

impl ProductVersion {
    fn entity(&self, slug: &str) -> EntityTag {
        EntityTag::of(&[
            "product",
            slug,
            &self.epoch,
            &self.version.to_string(),
            &self.category_version.to_string(),
        ])
    }

    pub(crate) fn tags(&self) -> [Tag<'_>; 2] {
        [Tag::Product(self.id), Tag::Category(&self.category)]
    }
}

/// How many products of a category are in which band of prices, and can be had. Reads the category once.
pub(crate) const BANDS: &str = "
    SELECT width_bucket(p.price_cents, $2) AS band, p.stock > 0 AS in_stock, count(*) AS count
      FROM products p
     WHERE p.category_id = (SELECT id FROM categories WHERE slug = $1) AND p.active
     GROUP BY 1, 2";

/// The same of what words find, by category too. Reads no more of it than a list counts.
pub(crate) const FOUND_BANDS: &str = "
    SELECT c.slug AS category, width_bucket(p.price_cents, $2) AS band, p.stock > 0 AS in_stock, count(*) AS count
      FROM (WITH matching AS MATERIALIZED (
                SELECT p.category_id, p.price_cents, p.stock FROM products p
                 WHERE p.active AND p.searchable @@ to_tsquery('english', $1)
                   AND querytree(to_tsquery('english', $1)) NOT IN ('T', ''))
            SELECT * FROM matching LIMIT 1001) p
      JOIN categories c ON c.id = p.category_id
     GROUP BY 1, 2, 3";

/// What the tags and the entity tag of the product under this slug are made from, if it is offered.
pub(crate) async fn version(
    connection: &mut Connection,
    slug: &str,
) -> Result<Option<ProductVersion>, sqlx::Error> {
    connection.optional("products.version", sqlx::query_as(VERSION_BY_SLUG).bind(slug.to_owned())).await
}

/// A row of [`BANDS`] or [`FOUND_BANDS`].
#[derive(Debug, FromRow)]
pub(crate) struct Counted {
    /// Its slug, where it may be any.
    #[sqlx(default)]
    pub(crate) category: Option<String>,
    /// How many of the bounds between bands are at or below the price.
    pub(crate) band: i32,
    pub(crate) in_stock: bool,
    pub(crate) count: i64,
}

/// Counts a category's products by bands of prices, which the bounds are between.
pub(crate) async fn count_bands(
    connection: &mut Connection,
    category: &str,
    bounds: &[Cents],
) -> Result<Vec<Counted>, sqlx::Error> {
    let query = sqlx::query_as(BANDS).bind(category.to_owned()).bind(bounds.to_vec());
    connection.all("products.bands", query).await
}

/// The product that is offered under this slug.
pub(crate) async fn find(connection: &mut Connection, slug: &str) -> Result<Option<Product>, sqlx::Error> {
    connection.optional("products.show", sqlx::query_as(BY_SLUG).bind(slug.to_owned())).await
}

pub(crate) const WITHDRAWN: &str = "SELECT id FROM products WHERE slug = $1 AND NOT active";

/// Whether a product was offered under this slug, and is not any more.
pub(crate) async fn is_withdrawn(connection: &mut Connection, slug: &str) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_as::<_, (ProductId,)>(WITHDRAWN).bind(slug.to_owned());
    Ok(connection.optional("products.withdrawn", query).await?.is_some())
}

/// A product in full.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct Product {
    #[sqlx(flatten)]
    #[serde(skip)]
    state: ProductVersion,
    pub(crate) id: ProductId,
    slug: String,
    name: String,
    pub(crate) category: String,
    category_name: String,
    description: String,
    price_cents: Cents,
    currency: String,
    #[sqlx(try_from = "Option<String>")]
    #[schema(value_type = Option<String>)]
    image: Picture,
    in_stock: bool,
    version: i64,
}

/// `GET /api/products/{slug}`: one product that is offered.
#[utoipa::path(
    get,
    path = "/products/{slug}",
    operation_id = "show_product",
    tag = "catalogue",
    params(Slug),
    responses((status = 200, description = "OK", body = Product), (status = 304, description = "Not changed"))
)]
pub(crate) async fn show(
    State(shop): State<Shop>,
    _: Parameters<NoParameters>,
    Slug { slug }: Slug,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut connection, control) = shop.reads.acquire_public(&headers, CATALOGUE).await?;
    if let Some(condition) = IfNoneMatch::of(&headers) {
        let version = version(&mut connection, &slug).await?.ok_or_else(none)?;
        let entity = version.entity(&slug);
        if condition.lists(&entity) {
            return Ok(caching::not_modified(&Keeping { control, entity, tags: &version.tags() }));
        }
    }
    let product = find(&mut connection, &slug).await?.ok_or_else(none)?;
    drop(connection);
    let entity = product.state.entity(&slug);
    caching::json(&headers, &Keeping { control, entity, tags: &product.state.tags() }, &product)
}

/// How many pieces are left.
#[derive(Debug, Serialize, ToSchema)]
struct Stock {
    stock: i32,
}

/// `GET /api/products/{slug}/stock`: the number that changes with every sale, apart from all that does not.
#[utoipa::path(
    get,
    path = "/products/{slug}/stock",
    operation_id = "show_stock",
    tag = "catalogue",
    params(Slug),
    responses((status = 200, description = "OK", body = Stock), (status = 304, description = "Not changed"))
)]
pub(crate) async fn stock(
    State(shop): State<Shop>,
    _: Parameters<NoParameters>,
    Slug { slug }: Slug,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tags = [Tag::Stock(&slug)];
    let subject = Subject::stock(EntityTag::of(&["stock", &slug]), &tags);
    let make = async {
        let (mut connection, control) = shop.reads.acquire_public(&headers, STOCK).await?;
        let query = sqlx::query_as::<_, (String, ProductId, i32)>(STOCK_BY_SLUG).bind(&slug);
        let value = connection.optional("products.stock", query).await?.ok_or_else(none)?;
        Ok::<_, Problem>(Made { value, to_keep: control == STOCK, control })
    };
    let made = shop.memory_for(&headers).recall(&subject, make).await?;
    let Made { value: (epoch, id, stock), control, .. } = made;
    let entity = EntityTag::of(&["stock", &slug, &epoch, &stock.to_string()]);
    caching::json(&headers, &Keeping { control, entity, tags: &[Tag::Product(id)] }, &Stock { stock })
}

fn none() -> Problem {
    Problem::not_found("no such product")
}

/// Which product a request is about.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Slug {
    /// The product's slug
    #[param(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 120)]
    pub(crate) slug: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Slug {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let slug = Path::<String>::from_request_parts(parts, state).await.ok().map(|Path(slug)| slug);
        slug.filter(|slug| storefront::is_slug(slug)).map(|slug| Self { slug }).ok_or_else(none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_mean_the_same_have_the_same_tag() {
        let request = |search: &str| {
            let parameters = ListParameters {
                category: None,
                search: Some(search.to_owned()),
                sort: Sort::Newest,
                limit: None,
                cursor: None,
            };
            ListRequest::check(parameters).expect("valid parameters")
        };
        let catalogue = Catalogue { epoch: "e".to_owned(), version: 1 };
        assert_eq!(request(" Red  Kettle").entity(&catalogue), request("red kettle").entity(&catalogue));
        assert_ne!(request("kettle").entity(&catalogue), request("red kettle").entity(&catalogue));
        assert!(request("  ").search.is_none());
    }
}
