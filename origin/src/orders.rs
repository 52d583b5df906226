//! Orders: placed at most once for each Idempotency-Key, never for more than there is.
//!
//! ```text
//!   a new key ─ one conditional UPDATE a line, by id ─ one fails ─▶ 409, nothing taken
//!                                    │
//!               order, lines, emptied shelves into the outbox ─▶ 201, kept with the key
//! ```
//! Orders lock products in the order of their ids, so that two of them cannot deadlock.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    activity_log::Event,
    caching::Tag,
    database::Connection,
    idempotency::{Begun, Done, IdempotencyKey},
    input::{self, Checked, Input, LARGEST_INTEGER, Wrong},
    outbox,
    pagination::newest_first::{Page, Parameters},
    problem::{FieldError, Problem},
    sessions,
    shop::Shop,
};

const MOST_LINES: usize = 50;
const MOST_PIECES: i32 = 1_000;

/// The condition and the change are one statement: between them nobody else can take a piece.
pub(crate) const TAKE: &str = "
    UPDATE products p
       SET stock = p.stock - $2
      FROM categories c
     WHERE p.id = $1 AND p.active AND p.stock >= $2 AND c.id = p.category_id
    RETURNING p.name, p.price_cents, p.currency, p.stock, c.slug AS category";

pub(crate) const GIVE_BACK: &str = "
    UPDATE products p
       SET stock = p.stock + $2
      FROM categories c
     WHERE p.id = $1 AND c.id = p.category_id
    RETURNING p.name, p.price_cents, p.currency, p.stock, c.slug AS category";

const INSERT: &str = "
    INSERT INTO orders (user_id, total_cents, currency) VALUES ($1, $2, $3)
    RETURNING id, status, total_cents, currency, created_at, cancelled_at";

const INSERT_LINES: &str = "
    INSERT INTO order_lines (order_id, product_id, name, quantity, price_cents)
    SELECT $1::bigint, * FROM UNNEST($2::bigint[], $3::text[], $4::integer[], $5::bigint[])";

pub(crate) const LIST: &str = "
    SELECT id, status, total_cents, currency, created_at, cancelled_at
      FROM orders
     WHERE user_id = $1 AND (created_at, id) < ($2, $3)
     ORDER BY created_at DESC, id DESC
     LIMIT $4";

pub(crate) const BY_ID: &str = "
    SELECT id, status, total_cents, currency, created_at, cancelled_at FROM orders WHERE id = $1 AND user_id = $2";

pub(crate) const LINES: &str = "
    SELECT product_id, name, quantity, price_cents FROM order_lines WHERE order_id = $1 ORDER BY product_id";

/// The condition on the status makes it happen once: of two cancellations only one finds the order placed.
pub(crate) const CANCEL: &str = "
    UPDATE orders SET status = 'cancelled', cancelled_at = now()
     WHERE id = $1 AND user_id = $2 AND status = 'placed'
    RETURNING id, status, total_cents, currency, created_at, cancelled_at";

/// What is ordered.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOrder {
    /// Each product once.
    #[schema(min_items = 1, max_items = 50)]
    lines: Vec<NewLine>,
}

/// So many pieces of a product.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLine {
    #[serde(deserialize_with = "input::integer")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991i64)]
    product_id: i64,
    #[serde(deserialize_with = "input::integer")]
    #[schema(minimum = 1, maximum = 1_000)]
    quantity: i32,
}

impl Checked for NewOrder {
    fn check(&self, wrong: &mut Wrong) {
        wrong.unless((1..=MOST_LINES).contains(&self.lines.len()), "lines", "1 to 50 lines");
        let mut products = BTreeSet::new();
        for (index, line) in self.lines.iter().take(MOST_LINES).enumerate() {
            let quantity = (1..=MOST_PIECES).contains(&line.quantity);
            wrong.unless(quantity, format!("lines[{index}].quantity"), "a number from 1 to 1000");
            let product = format!("lines[{index}].product_id");
            let id = (1..=LARGEST_INTEGER).contains(&line.product_id);
            wrong.unless(id, product.clone(), "the number of a product");
            wrong.unless(products.insert(line.product_id), product, "each product once");
        }
    }
}

/// An order as its customer reads it.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct Order {
    id: i64,
    /// `placed` or `cancelled`.
    status: String,
    total_cents: i64,
    currency: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    cancelled_at: Option<OffsetDateTime>,
}

/// The same with its lines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeOrder {
    #[serde(flatten)]
    order: Order,
    lines: Vec<Line>,
}

/// A line of an order.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct Line {
    product_id: i64,
    /// Name and price of a piece as they were when the order was placed.
    name: String,
    quantity: i32,
    price_cents: i64,
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Orders {
    orders: Vec<Order>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// `POST /api/orders` with `Idempotency-Key`: places an order.
#[utoipa::path(
    post,
    path = "/orders",
    operation_id = "place_order",
    tag = "orders",
    security(("session" = [], "requested_with" = [])),
    params(IdempotencyKey),
    request_body = NewOrder,
    responses((status = 201, description = "Placed", body = WholeOrder))
)]
pub(crate) async fn place(
    State(shop): State<Shop>,
    headers: HeaderMap,
    key: IdempotencyKey,
    Input(new): Input<NewOrder>,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    let user = sessions::user(&mut connection, &headers).await?;
    let attempt = match key.begin(&mut connection, user.id, &new).await? {
        Begun::Answered(response) => return Ok(response),
        Begun::First(attempt) => attempt,
    };
    let outcome = buy(&mut connection, user.id, new.lines).await;
    let placed = outcome.as_ref().ok().map(|order| order.order.id);
    let outcome = outcome.and_then(|order| {
        let location = (header::LOCATION, format!("/api/orders/{}", order.order.id));
        Done::json(StatusCode::CREATED, location, &order)
    });
    let response = attempt.end(&mut connection, outcome).await?;
    if let Some(id) = placed {
        shop.activity.record(Event::new("order.place").by(user.id).about(id.to_string()));
    }
    Ok(response)
}

#[derive(Debug, FromRow)]
struct Moved {
    name: String,
    price_cents: i64,
    currency: String,
    stock: i32,
    category: String,
}

/// Takes the pieces and writes the order; otherwise says why it cannot be placed.
async fn buy(connection: &mut Connection, user: i64, wanted: Vec<NewLine>) -> Result<WholeOrder, Problem> {
    let mut by_product: Vec<(usize, NewLine)> = wanted.into_iter().enumerate().collect();
    by_product.sort_by_key(|(_, line)| line.product_id);
    let mut lines = Vec::new();
    let mut lacking = Vec::new();
    let mut currency: Option<String> = None;
    for (index, NewLine { product_id, quantity }) in by_product {
        let query = sqlx::query_as::<_, Moved>(TAKE).bind(product_id).bind(quantity);
        let Some(taken) = connection.optional("orders.take", query).await? else {
            let message = "not as many as that are left".to_owned();
            lacking.push(FieldError { field: format!("lines[{index}]"), message });
            continue;
        };
        if taken.stock == 0 {
            sold_out_or_back(connection, product_id, &taken).await?;
        }
        if currency.get_or_insert_with(|| taken.currency.clone()) != &taken.currency {
            return Err(Problem::mixed_currencies());
        }
        lines.push(Line { product_id, name: taken.name, quantity, price_cents: taken.price_cents });
    }
    let Some(currency) = currency.filter(|_| lacking.is_empty()) else {
        lacking.sort_by(|one, other| one.field.cmp(&other.field));
        return Err(Problem::out_of_stock(lacking));
    };
    // At most 50 lines of 1000 pieces at a thousand million cents: far below the largest i64.
    let total: i64 = lines.iter().map(|line| line.price_cents * i64::from(line.quantity)).sum();
    let query = sqlx::query_as::<_, Order>(INSERT).bind(user).bind(total).bind(currency);
    let order = connection.one("orders.insert", query).await?;
    let query = sqlx::query(INSERT_LINES)
        .bind(order.id)
        .bind(lines.iter().map(|line| line.product_id).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.name.clone()).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.quantity).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.price_cents).collect::<Vec<_>>());
    connection.execute("orders.insert_lines", query).await?;
    Ok(WholeOrder { order, lines })
}

/// Purges what shows whether a product can be had: lists and its page change when the last piece goes and when the first comes
/// back.
async fn sold_out_or_back(
    connection: &mut Connection,
    product: i64,
    moved: &Moved,
) -> Result<(), sqlx::Error> {
    outbox::purge(connection, &[Tag::Product(product), Tag::Category(&moved.category), Tag::Catalogue]).await
}

/// `GET /api/orders?limit=&cursor=`: one's own, newest first.
#[utoipa::path(
    get,
    path = "/orders",
    operation_id = "list_orders",
    tag = "orders",
    security(("session" = [])),
    params(Parameters),
    responses((status = 200, description = "OK", body = Orders))
)]
pub(crate) async fn list(
    State(shop): State<Shop>,
    headers: HeaderMap,
    page: Page,
) -> Result<Json<Orders>, Problem> {
    let mut connection = shop.reads.acquire(&headers).await?;
    let user = sessions::user(&mut connection, &headers).await?;
    let (time, id) = page.after;
    let query = sqlx::query_as::<_, Order>(LIST).bind(user.id).bind(time).bind(id).bind(page.rows());
    let mut orders = connection.all("orders.list", query).await?;
    let next_cursor = page.cut(&mut orders, |order| (order.created_at, order.id));
    Ok(Json(Orders { orders, next_cursor }))
}

/// `GET /api/orders/{id}`: one of one's own, with its lines.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    operation_id = "show_order",
    tag = "orders",
    security(("session" = [])),
    params(("id" = i64, Path, description = "The order's number")),
    responses((status = 200, description = "OK", body = WholeOrder))
)]
pub(crate) async fn show(
    State(shop): State<Shop>,
    id: Result<Path<i64>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<WholeOrder>, Problem> {
    let mut connection = shop.reads.acquire(&headers).await?;
    let user = sessions::user(&mut connection, &headers).await?;
    Ok(Json(find(&mut connection, number(id)?, user.id).await?))
}

/// `POST /api/orders/{id}/cancel`: cancels one of one's own, and puts its pieces back on the shelf, once however often it is
/// asked.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    operation_id = "cancel_order",
    tag = "orders",
    security(("session" = [], "requested_with" = [])),
    params(("id" = i64, Path, description = "The order's number")),
    responses((status = 200, description = "OK", body = WholeOrder))
)]
pub(crate) async fn cancel(
    State(shop): State<Shop>,
    id: Result<Path<i64>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<WholeOrder>, Problem> {
    let mut connection = shop.database.acquire().await?;
    let user = sessions::user(&mut connection, &headers).await?;
    let id = number(id)?;
    connection.begin().await?;
    let query = sqlx::query_as::<_, Order>(CANCEL).bind(id).bind(user.id);
    let Some(order) = connection.optional("orders.cancel", query).await? else {
        // It is cancelled already, or there is no such order of theirs.
        return Ok(Json(find(&mut connection, id, user.id).await?));
    };
    let order = with_lines(&mut connection, order).await?;
    for line in &order.lines {
        let query = sqlx::query_as::<_, Moved>(GIVE_BACK).bind(line.product_id).bind(line.quantity);
        let returned = connection.one("orders.give_back", query).await?;
        if returned.stock == line.quantity {
            sold_out_or_back(&mut connection, line.product_id, &returned).await?;
        }
    }
    connection.commit().await?;
    shop.activity.record(Event::new("order.cancel").by(user.id).about(id.to_string()));
    Ok(Json(order))
}

async fn find(connection: &mut Connection, id: i64, user: i64) -> Result<WholeOrder, Problem> {
    let query = sqlx::query_as(BY_ID).bind(id).bind(user);
    let order = connection.optional("orders.show", query).await?.ok_or_else(no_such_order)?;
    Ok(with_lines(connection, order).await?)
}

async fn with_lines(connection: &mut Connection, order: Order) -> Result<WholeOrder, sqlx::Error> {
    let lines = connection.all("orders.lines", sqlx::query_as(LINES).bind(order.id)).await?;
    Ok(WholeOrder { order, lines })
}

fn number(id: Result<Path<i64>, PathRejection>) -> Result<i64, Problem> {
    id.map(|Path(id)| id).map_err(|_| no_such_order())
}

fn no_such_order() -> Problem {
    Problem::not_found("no such order")
}
