//! What administrators see of the shop and customers do not: products that are not offered, everybody's orders; and the two
//! things that are put right there: how many pieces there really are, and what the categories are called.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use storefront::is_slug;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    activity_log::Event,
    caching::Tag,
    database::Connection,
    input::{self, Checked, Input, Wrong},
    numbers::{CategoryId, Cents, OrderId, ProductId, UserId},
    orders::{self, OrderStatus, WholeOrder},
    outbox,
    pagination::newest_first::{Page, Parameters},
    problem::Problem,
    products::{
        Slug,
        administration::{Changed, MOST_PIECES, announced},
    },
    sessions,
    shop::Shop,
};

pub(crate) const PRODUCTS: &str = "
    SELECT p.id, p.slug, p.name, c.slug AS category, p.price_cents, p.currency, p.stock, p.active, p.created_at
      FROM products p JOIN categories c ON c.id = p.category_id
     WHERE (p.created_at, p.id) < ($1, $2)
     ORDER BY p.created_at DESC, p.id DESC
     LIMIT $3";

pub(crate) const ORDERS: &str = "
    SELECT o.id, o.status, o.total_cents, o.currency, o.created_at, u.id AS customer, u.email
      FROM orders o JOIN users u ON u.id = o.user_id
     WHERE (o.created_at, o.id) < ($1, $2)
     ORDER BY o.created_at DESC, o.id DESC
     LIMIT $3";

const OWNER: &str = "SELECT user_id FROM orders WHERE id = $1";

const COUNT_STOCK: &str = "UPDATE products SET stock = $3 WHERE id = $1 AND stock = $2";

const INSERT_CATEGORY: &str = "
    INSERT INTO categories (slug, name, position) VALUES ($1, $2, $3) ON CONFLICT (slug) DO NOTHING
    RETURNING id, slug, name, position";

const UPDATE_CATEGORY: &str = "
    UPDATE categories SET name = coalesce($2, name), position = coalesce($3, position) WHERE slug = $1
    RETURNING id, slug, name, position";

/// A product as it is kept, offered or not.
#[derive(Debug, FromRow, Serialize, ToSchema)]
struct KeptProduct {
    id: ProductId,
    slug: String,
    name: String,
    /// The category's slug.
    category: String,
    price_cents: Cents,
    currency: String,
    stock: i32,
    /// Whether it is offered.
    active: bool,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: OffsetDateTime,
}

/// A page of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeptProducts {
    products: Vec<KeptProduct>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// `GET /api/office/products?limit=&cursor=`: all products, offered or not, newest first.
#[utoipa::path(
    get,
    path = "/office/products",
    operation_id = "list_kept_products",
    tag = "administration",
    security(("session" = [])),
    params(Parameters),
    responses((status = 200, description = "OK", body = KeptProducts))
)]
pub(crate) async fn products(
    State(shop): State<Shop>,
    headers: HeaderMap,
    page: Page,
) -> Result<Json<KeptProducts>, Problem> {
    let mut connection = shop.reads.acquire(&headers).await?;
    sessions::administrator(&mut connection, &headers).await?;
    let query = sqlx::query_as(PRODUCTS);
    let place = |product: &KeptProduct| (product.created_at, product.id.into());
    let (products, next_cursor) = page.read(&mut connection, "office.products", query, place).await?;
    Ok(Json(KeptProducts { products, next_cursor }))
}

/// `GET /api/office/products/{slug}`: one of them, with the ETag that a change asks for.
#[utoipa::path(
    get,
    path = "/office/products/{slug}",
    operation_id = "show_kept_product",
    tag = "administration",
    security(("session" = [])),
    params(Slug),
    responses((status = 200, description = "OK", body = Changed))
)]
pub(crate) async fn product(
    State(shop): State<Shop>,
    Slug { slug }: Slug,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut connection = shop.reads.acquire(&headers).await?;
    sessions::administrator(&mut connection, &headers).await?;
    Ok(Changed::find(&mut connection, &slug).await?.answer(StatusCode::OK))
}

/// What somebody has counted on the shelf.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counted {
    /// So many pieces the shop believed in.
    #[serde(deserialize_with = "input::integer")]
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    was: i32,
    /// So many there are.
    #[serde(deserialize_with = "input::integer")]
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    is: i32,
}

impl Checked for Counted {
    fn check(&self, wrong: &mut Wrong) {
        for (pieces, field) in [(self.was, "was"), (self.is, "is")] {
            wrong.unless((0..=MOST_PIECES).contains(&pieces), field, "a number from 0 to 1000000000");
        }
    }
}

/// `PUT /api/office/products/{slug}/stock`: corrects the stock, if nothing was sold or delivered since it was read.
#[utoipa::path(
    put,
    path = "/office/products/{slug}/stock",
    operation_id = "correct_stock",
    tag = "administration",
    security(("session" = [], "requested_with" = [])),
    params(Slug),
    request_body = Counted,
    responses((status = 200, description = "OK", body = Changed))
)]
pub(crate) async fn correct(
    State(shop): State<Shop>,
    Slug { slug }: Slug,
    headers: HeaderMap,
    Input(Counted { was, is }): Input<Counted>,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    let administrator = sessions::administrator(&mut connection, &headers).await?;
    connection.begin().await?;
    let before = Changed::lock(&mut connection, &slug).await?;
    let query = sqlx::query(COUNT_STOCK).bind(before.id()).bind(was).bind(is);
    if connection.execute("office.count_stock", query).await? == 0 {
        return Err(Problem::precondition_failed());
    }
    let after = announced(&mut connection, &before).await?;
    connection.commit().await?;
    shop.activity.record(Event::new("product.correct").by(administrator.id).about(slug));
    Ok(after.answer(StatusCode::OK))
}

/// An order with whose it is.
#[derive(Debug, FromRow, Serialize, ToSchema)]
struct PlacedOrder {
    id: OrderId,
    status: OrderStatus,
    total_cents: Cents,
    currency: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: OffsetDateTime,
    /// The customer's number and address.
    customer: UserId,
    email: String,
}

/// A page of everybody's orders.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlacedOrders {
    orders: Vec<PlacedOrder>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// `GET /api/office/orders?limit=&cursor=`: everybody's, newest first.
#[utoipa::path(
    get,
    path = "/office/orders",
    operation_id = "list_placed_orders",
    tag = "administration",
    security(("session" = [])),
    params(Parameters),
    responses((status = 200, description = "OK", body = PlacedOrders))
)]
pub(crate) async fn placed_orders(
    State(shop): State<Shop>,
    headers: HeaderMap,
    page: Page,
) -> Result<Json<PlacedOrders>, Problem> {
    let mut connection = shop.reads.acquire(&headers).await?;
    sessions::administrator(&mut connection, &headers).await?;
    let query = sqlx::query_as(ORDERS);
    let place = |order: &PlacedOrder| (order.created_at, order.id.into());
    let (orders, next_cursor) = page.read(&mut connection, "office.orders", query, place).await?;
    Ok(Json(PlacedOrders { orders, next_cursor }))
}

/// `GET /api/office/orders/{id}`: anybody's, with its lines.
#[utoipa::path(
    get,
    path = "/office/orders/{id}",
    operation_id = "show_placed_order",
    tag = "administration",
    security(("session" = [])),
    params(("id" = i64, Path, description = "The order's number")),
    responses((status = 200, description = "OK", body = WholeOrder))
)]
pub(crate) async fn placed_order(
    State(shop): State<Shop>,
    id: Result<Path<OrderId>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<WholeOrder>, Problem> {
    let mut connection = shop.reads.acquire(&headers).await?;
    sessions::administrator(&mut connection, &headers).await?;
    let id = orders::number(id)?;
    let owner = connection.optional("office.owner", sqlx::query_as::<_, (UserId,)>(OWNER).bind(id)).await?;
    let (owner,) = owner.ok_or_else(orders::no_such_order)?;
    Ok(Json(orders::find(&mut connection, id, owner).await?))
}

/// A category as it is kept.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct KeptCategory {
    id: CategoryId,
    slug: String,
    name: String,
    position: i32,
}

/// A new category.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCategory {
    #[schema(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 120)]
    slug: String,
    #[schema(pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$", max_length = 200)]
    name: String,
    /// Its place in menus, ascending.
    #[serde(default, deserialize_with = "input::integer")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    position: i32,
}

impl Checked for NewCategory {
    fn check(&self, wrong: &mut Wrong) {
        wrong.unless(
            is_slug(&self.slug),
            "slug",
            "lower-case words joined by hyphens, 120 characters at most",
        );
        wrong.line(&self.name, 1..=200, "name");
        wrong.unless((0..=LAST_POSITION).contains(&self.position), "position", "a number from 0 to 1000000");
    }
}

const LAST_POSITION: i32 = 1_000_000;

/// What is to be different of a category; what is left out stays. The slug stays in any case: it is in addresses.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CategoryChange {
    #[serde(default, deserialize_with = "input::not_null")]
    #[schema(value_type = String, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$", max_length = 200)]
    name: Option<String>,
    #[serde(default, deserialize_with = "input::integer_not_null")]
    #[schema(value_type = i32, minimum = 0, maximum = 1_000_000)]
    position: Option<i32>,
}

impl Checked for CategoryChange {
    fn check(&self, wrong: &mut Wrong) {
        if let Some(name) = &self.name {
            wrong.line(name, 1..=200, "name");
        }
        let known = self.position.is_none_or(|position| (0..=LAST_POSITION).contains(&position));
        wrong.unless(known, "position", "a number from 0 to 1000000");
    }
}

/// `POST /api/categories`: a new category.
#[utoipa::path(
    post,
    path = "/categories",
    operation_id = "create_category",
    tag = "administration",
    security(("session" = [], "requested_with" = [])),
    request_body = NewCategory,
    responses((status = 201, description = "Created", body = KeptCategory))
)]
pub(crate) async fn create_category(
    State(shop): State<Shop>,
    headers: HeaderMap,
    Input(new): Input<NewCategory>,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    let administrator = sessions::administrator(&mut connection, &headers).await?;
    connection.begin().await?;
    let query =
        sqlx::query_as::<_, KeptCategory>(INSERT_CATEGORY).bind(new.slug).bind(new.name).bind(new.position);
    let category =
        connection.optional("office.insert_category", query).await?.ok_or_else(Problem::slug_taken)?;
    let location = [(header::LOCATION, format!("/api/products?category={}", category.slug))];
    tell(&mut connection, &category).await?;
    shop.activity.record(Event::new("category.create").by(administrator.id).about(&category.slug));
    Ok((StatusCode::CREATED, location, Json(category)).into_response())
}

/// `PATCH /api/categories/{slug}`: calls it something else, or puts it elsewhere in the menus.
#[utoipa::path(
    patch,
    path = "/categories/{slug}",
    operation_id = "change_category",
    tag = "administration",
    security(("session" = [], "requested_with" = [])),
    params(("slug" = String, Path, description = "The category's slug", pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 120)),
    request_body = CategoryChange,
    responses((status = 200, description = "OK", body = KeptCategory))
)]
pub(crate) async fn change_category(
    State(shop): State<Shop>,
    slug: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    Input(change): Input<CategoryChange>,
) -> Result<Json<KeptCategory>, Problem> {
    let none = || Problem::not_found("no such category");
    let mut connection = shop.database.acquire().await?;
    let administrator = sessions::administrator(&mut connection, &headers).await?;
    let slug = slug.ok().map(|Path(slug)| slug).filter(|slug| is_slug(slug)).ok_or_else(none)?;
    connection.begin().await?;
    let query =
        sqlx::query_as::<_, KeptCategory>(UPDATE_CATEGORY).bind(slug).bind(change.name).bind(change.position);
    let category = connection.optional("office.update_category", query).await?.ok_or_else(none)?;
    tell(&mut connection, &category).await?;
    shop.activity.record(Event::new("category.change").by(administrator.id).about(&category.slug));
    Ok(Json(category))
}

/// Commits, and has purged what shows a category: menus and lists over all, and its own products, which show its name.
async fn tell(connection: &mut Connection, category: &KeptCategory) -> Result<(), Problem> {
    outbox::purge(connection, &[Tag::Catalogue, Tag::Category(&category.slug), Tag::Categories]).await?;
    Ok(connection.commit().await?)
}
