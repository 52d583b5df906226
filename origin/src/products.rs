//! The products of the shop: lists by category, words and order, a page at a time; and one in full.
//!
//! Every answer carries an entity tag made of versions that the database raises in the transaction of a change, so a request
//! with the right `If-None-Match` costs one row. Pages are found by keyset (never OFFSET): a page deep in the list costs as
//! much as the first, and products that come or go in between neither repeat nor hide others.

pub(crate) mod change;
mod cursor;

use axum::{
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::Response,
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow, Postgres, query::QueryAs};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::{
    activity::Event,
    caching::{self, CATALOGUE, EntityTag, IfNoneMatch, Keeping, STOCK, Tag},
    categories::NoParameters,
    problem::Problem,
    server::Shop,
    storefront,
};
pub(crate) use cursor::{Cursor, Key};

const DEFAULT_LIMIT: u32 = 24;
const LARGEST_LIMIT: u32 = 100;
const LONGEST_SEARCH: usize = 100;
const LONGEST_SLUG: usize = 120;

/// What the tag of every list is made from.
pub(crate) const CATALOGUE_VERSION: &str = "SELECT epoch, version FROM catalogue_state";

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

/// The state of the whole catalogue.
#[derive(Debug, FromRow)]
pub(crate) struct CatalogueVersion {
    pub(crate) epoch: String,
    pub(crate) version: i64,
}

/// The order of a list; the id makes each total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    #[default]
    Newest,
    PriceAsc,
    PriceDesc,
    Name,
}

impl Sort {
    pub(crate) const ALL: [Self; 4] = [Self::Newest, Self::PriceAsc, Self::PriceDesc, Self::Name];

    const fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::PriceAsc => "price_asc",
            Self::PriceDesc => "price_desc",
            Self::Name => "name",
        }
    }

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
    pub(crate) after: bool,
}

impl ListShape {
    /// The statement. `$1` is the limit; category slug, search words, and the cursor's key and id follow as far as present.
    /// It answers at least one row, with the catalogue's version, and nulls when no product matches.
    pub(crate) fn sql(self) -> String {
        let (key, direction, further) = self.sort.sql();
        let mut last_parameter = 1;
        let mut parameter = || {
            last_parameter += 1;
            last_parameter
        };
        let (mut wanted, mut found, mut conditions) = (String::new(), "true", String::new());
        if self.category {
            wanted = format!("LEFT JOIN categories wanted ON wanted.slug = ${}", parameter());
            found = "wanted.id IS NOT NULL";
            conditions += " AND p.category_id = wanted.id";
        }
        if self.search {
            conditions += &format!(" AND p.searchable @@ websearch_to_tsquery('english', ${})", parameter());
        }
        if self.after {
            conditions += &format!(" AND ({key}, p.id) {further} (${}, ${})", parameter(), parameter());
        }
        // OFFSET 0 keeps the planner from walking the sort's index and testing every product for the words, which it likes
        // to do for rare ones: without a match that is the whole table.
        let fence = if self.search { "OFFSET 0" } else { "" };
        format!(
            "SELECT s.epoch, s.version, {found} AS category_found, c.slug AS category,
                    p.id, p.slug, p.name, p.price_cents, p.currency, p.image, p.stock > 0 AS in_stock, p.created_at
               FROM catalogue_state s
               {wanted}
               LEFT JOIN LATERAL (
                    SELECT *
                      FROM (SELECT p.id, p.category_id, p.slug, p.name, p.price_cents, p.currency, p.image, p.stock,
                                   p.created_at
                              FROM products p
                             WHERE p.active{conditions}
                             {fence}) p
                     ORDER BY {key} {direction}, p.id {direction}
                     LIMIT $1
               ) p ON true
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
    category: Option<String>,
    /// Words that the name or the description holds.
    #[param(max_length = 100)]
    search: Option<String>,
    #[serde(default)]
    #[param(inline)]
    sort: Sort,
    #[param(minimum = 1, maximum = 100, default = 24)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The parameters of a list, checked and in one spelling.
#[derive(Debug)]
struct ListRequest {
    category: Option<String>,
    search: Option<String>,
    sort: Sort,
    limit: u32,
    after: Option<Cursor>,
}

impl ListRequest {
    fn check(parameters: ListParameters) -> Result<Self, Problem> {
        let ListParameters { category, search, sort, limit, cursor } = parameters;
        if category.as_deref().is_some_and(|slug| !is_slug(slug)) {
            return Err(Problem::invalid("`category` is the slug of one, such as `kitchen`"));
        }
        let search = search
            .map(|words| words.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
            .filter(|words| !words.is_empty());
        if search
            .as_deref()
            .is_some_and(|words| words.chars().count() > LONGEST_SEARCH || words.contains('\0'))
        {
            return Err(Problem::invalid("`search` is at most 100 characters of text"));
        }
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=LARGEST_LIMIT).contains(&limit) {
            return Err(Problem::invalid("`limit` is a number from 1 to 100"));
        }
        let after = match cursor {
            Some(text) => Some(Cursor::decode(&text, sort).ok_or_else(Problem::invalid_cursor)?),
            None => None,
        };
        Ok(Self { category, search, sort, limit, after })
    }

    fn shape(&self) -> ListShape {
        ListShape {
            sort: self.sort,
            category: self.category.is_some(),
            search: self.search.is_some(),
            after: self.after.is_some(),
        }
    }

    fn entity(&self, catalogue: &CatalogueVersion) -> EntityTag {
        let after = self.after.as_ref().map(|cursor| cursor.encode(self.sort));
        EntityTag::of(&[
            "products",
            &catalogue.epoch,
            &catalogue.version.to_string(),
            self.category.as_deref().unwrap_or_default(),
            self.search.as_deref().unwrap_or_default(),
            self.sort.name(),
            &self.limit.to_string(),
            after.as_deref().unwrap_or_default(),
        ])
    }

    /// A new product can appear in any list of its category, and in any over all of them.
    fn purged_with(&self) -> [Tag<'_>; 1] {
        [self.category.as_deref().map_or(Tag::Catalogue, Tag::Category)]
    }

    /// Binds in the order of [`ListShape::sql`]. One row more than the page tells whether there is another page.
    fn statement(&self) -> QueryAs<'static, Postgres, ListRow, sqlx::postgres::PgArguments> {
        let mut statement = sqlx::query_as(AssertSqlSafe(self.shape().sql())).bind(i64::from(self.limit) + 1);
        if let Some(category) = &self.category {
            statement = statement.bind(category.clone());
        }
        if let Some(words) = &self.search {
            statement = statement.bind(words.clone());
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

#[derive(FromRow)]
struct ListRow {
    #[sqlx(flatten)]
    catalogue: CatalogueVersion,
    category_found: bool,
    category: Option<String>,
    id: Option<i64>,
    slug: Option<String>,
    name: Option<String>,
    price_cents: Option<i64>,
    currency: Option<String>,
    image: Option<String>,
    in_stock: Option<bool>,
    created_at: Option<OffsetDateTime>,
}

impl ListRow {
    fn cursor(&self, sort: Sort) -> Option<Cursor> {
        let key = match sort {
            Sort::Newest => Key::CreatedAt(self.created_at?),
            Sort::PriceAsc | Sort::PriceDesc => Key::PriceCents(self.price_cents?),
            Sort::Name => Key::Name(self.name.clone()?),
        };
        Some(Cursor { key, id: self.id? })
    }

    fn into_product(self) -> Option<ListedProduct> {
        Some(ListedProduct {
            id: self.id?,
            slug: self.slug?,
            name: self.name?,
            category: self.category?,
            price_cents: self.price_cents?,
            currency: self.currency?,
            image: self.image.as_deref().and_then(storefront::image_url),
            in_stock: self.in_stock?,
        })
    }
}

/// A page of products.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProductPage)]
struct Page {
    products: Vec<ListedProduct>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// A product in a list.
#[derive(Debug, Serialize, ToSchema)]
struct ListedProduct {
    id: i64,
    slug: String,
    name: String,
    /// The category's slug.
    category: String,
    price_cents: i64,
    currency: String,
    /// A path below the origin, or null.
    image: Option<&'static str>,
    in_stock: bool,
}

/// `GET /api/products?category=&search=&sort=&limit=&cursor=`: one page, and the cursor of the next if there is one.
#[utoipa::path(
    get,
    path = "/products",
    tag = "catalogue",
    params(ListParameters),
    responses((status = 200, description = "OK", body = Page), (status = 304, description = "Not changed"))
)]
pub(crate) async fn list(
    State(shop): State<Shop>,
    headers: HeaderMap,
    parameters: Result<Query<ListParameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = parameters.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    let request = ListRequest::check(parameters)?;
    let tags = request.purged_with();
    let keeping = |catalogue: &CatalogueVersion| Keeping {
        control: CATALOGUE,
        entity: request.entity(catalogue),
        tags: &tags,
    };
    let mut connection = shop.reads.acquire(&headers).await?;
    if let Some(condition) = IfNoneMatch::of(&headers) {
        let known = keeping(&connection.one("catalogue.version", sqlx::query_as(CATALOGUE_VERSION)).await?);
        if condition.lists(&known.entity) {
            return Ok(caching::not_modified(&known));
        }
    }
    let mut rows = connection.all(request.shape().name(), request.statement()).await?;
    drop(connection);
    let first = rows.first().ok_or_else(Problem::internal)?;
    if !first.category_found {
        return Err(Problem::not_found("no such category"));
    }
    let keeping = keeping(&first.catalogue);
    let page = request.limit as usize;
    let next_cursor = (rows.len() > page)
        .then(|| rows[page - 1].cursor(request.sort))
        .flatten()
        .map(|cursor| cursor.encode(request.sort));
    rows.truncate(page);
    let products: Vec<ListedProduct> = rows.into_iter().filter_map(ListRow::into_product).collect();
    caching::json(&headers, &keeping, &Page { products, next_cursor })
}

#[derive(FromRow)]
struct ProductVersion {
    epoch: String,
    id: i64,
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

    fn tags(&self) -> [Tag<'_>; 2] {
        [Tag::Product(self.id), Tag::Category(&self.category)]
    }
}

#[derive(FromRow)]
struct ProductRow {
    #[sqlx(flatten)]
    version: ProductVersion,
    slug: String,
    name: String,
    description: String,
    price_cents: i64,
    currency: String,
    image: Option<String>,
    in_stock: bool,
    category_name: String,
}

/// A product in full.
#[derive(Debug, Serialize, ToSchema)]
struct Product<'a> {
    id: i64,
    slug: &'a str,
    name: &'a str,
    category: &'a str,
    category_name: &'a str,
    description: &'a str,
    price_cents: i64,
    currency: &'a str,
    image: Option<&'static str>,
    in_stock: bool,
    version: i64,
}

impl<'a> From<&'a ProductRow> for Product<'a> {
    fn from(row: &'a ProductRow) -> Self {
        Self {
            id: row.version.id,
            slug: &row.slug,
            name: &row.name,
            category: &row.version.category,
            category_name: &row.category_name,
            description: &row.description,
            price_cents: row.price_cents,
            currency: &row.currency,
            image: row.image.as_deref().and_then(storefront::image_url),
            in_stock: row.in_stock,
            version: row.version.version,
        }
    }
}

/// `GET /api/products/{slug}`: one product that is offered.
#[utoipa::path(
    get,
    path = "/products/{slug}",
    tag = "catalogue",
    params(("slug" = String, Path, description = "The product's slug")),
    responses((status = 200, description = "OK", body = Product<'_>), (status = 304, description = "Not changed"))
)]
pub(crate) async fn show(
    State(shop): State<Shop>,
    slug: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    parameters: Result<Query<NoParameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let slug = only_slug(slug, parameters)?;
    let mut connection = shop.reads.acquire(&headers).await?;
    if let Some(condition) = IfNoneMatch::of(&headers) {
        let query = sqlx::query_as::<_, ProductVersion>(VERSION_BY_SLUG).bind(&slug);
        let version = connection.optional("products.version", query).await?.ok_or_else(none)?;
        let entity = version.entity(&slug);
        if condition.lists(&entity) {
            return Ok(caching::not_modified(&Keeping { control: CATALOGUE, entity, tags: &version.tags() }));
        }
    }
    let query = sqlx::query_as::<_, ProductRow>(BY_SLUG).bind(&slug);
    let row = connection.optional("products.show", query).await?.ok_or_else(none)?;
    drop(connection);
    shop.activity.record(Event::new("product.view").by_session_of(&headers).about(&slug));
    let keeping =
        Keeping { control: CATALOGUE, entity: row.version.entity(&slug), tags: &row.version.tags() };
    caching::json(&headers, &keeping, &Product::from(&row))
}

#[derive(FromRow)]
struct StockRow {
    epoch: String,
    id: i64,
    stock: i32,
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
    tag = "catalogue",
    params(("slug" = String, Path, description = "The product's slug")),
    responses((status = 200, description = "OK", body = Stock), (status = 304, description = "Not changed"))
)]
pub(crate) async fn stock(
    State(shop): State<Shop>,
    slug: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    parameters: Result<Query<NoParameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let slug = only_slug(slug, parameters)?;
    let mut connection = shop.reads.acquire(&headers).await?;
    let query = sqlx::query_as::<_, StockRow>(STOCK_BY_SLUG).bind(&slug);
    let row = connection.optional("products.stock", query).await?.ok_or_else(none)?;
    drop(connection);
    let entity = EntityTag::of(&["stock", &slug, &row.epoch, &row.stock.to_string()]);
    let keeping = Keeping { control: STOCK, entity, tags: &[Tag::Product(row.id)] };
    caching::json(&headers, &keeping, &Stock { stock: row.stock })
}

fn none() -> Problem {
    Problem::not_found("no such product")
}

/// The slug of a request that has no parameters beside it.
fn only_slug(
    slug: Result<Path<String>, PathRejection>,
    parameters: Result<Query<NoParameters>, QueryRejection>,
) -> Result<String, Problem> {
    parameters.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    slug.ok().map(|Path(slug)| slug).filter(|slug| is_slug(slug)).ok_or_else(none)
}

/// What the schema's check allows: nothing else can be in the database, so nothing else is asked of it.
fn is_slug(text: &str) -> bool {
    text.len() <= LONGEST_SLUG
        && text.split('-').all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_lower_case_words_joined_by_single_hyphens() {
        assert!(is_slug("enamel-kettle-2"));
        for wrong in ["", "-a", "a-", "a--b", "A", "ä", "a b", "a\0"] {
            assert!(!is_slug(wrong), "{wrong:?}");
        }
        assert!(!is_slug(&"a".repeat(LONGEST_SLUG + 1)));
    }

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
        let catalogue = CatalogueVersion { epoch: "e".to_owned(), version: 1 };
        assert_eq!(request(" Red  Kettle").entity(&catalogue), request("red kettle").entity(&catalogue));
        assert_ne!(request("kettle").entity(&catalogue), request("red kettle").entity(&catalogue));
        assert!(request("  ").search.is_none());
    }
}
