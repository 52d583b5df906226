//! Orders: placed at most once for each Idempotency-Key, never for more than there is.
//!
//! ```text
//!   a new key ─ the rows of the products, locked by id ─ one does not suffice ─▶ 409, nothing taken, kept with the key
//!                     │
//!        stock, order, lines, key with the answer, emptied shelves into the outbox ─▶ 201
//! ```
//! All of it is one statement. Orders lock products in the order of their ids, so that two of them cannot deadlock.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, error::DatabaseError};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    activity_log::Event,
    cookies,
    database::Connection,
    idempotency::{Fingerprint, IdempotencyKey, Keyed},
    input::{self, Checked, LARGEST_INTEGER, Wrong},
    numbers::{Cents, OrderId, ProductId, UserId},
    observe,
    pagination::newest_first::{Page, Parameters},
    problem::{FieldError, Problem},
    sessions,
    shop::Shop,
};

const MOST_LINES: usize = 50;
const MOST_PIECES: i32 = 1_000;

/// The whole of an order, so that a product's row is locked for as long as one statement and its commit take. The parameters:
/// the session, the key and the request's fingerprint; products and quantities; the expected total; the trace for the outbox.
///
/// `shelf` locks the rows that suffice, by id, and tests them again as they are once they are locked; what does not suffice is
/// not locked, so a product that is sold out costs its next customers no wait. If another order with this key has come in
/// between, `kept` violates the key's uniqueness and nothing of all this has happened.
pub(crate) const PLACE: &str = "
    WITH buyer AS MATERIALIZED (
             SELECT user_id AS id FROM sessions WHERE token_hash = $1 AND expires_at > now()),
         known AS MATERIALIZED (
             SELECT FROM idempotency_keys k JOIN buyer ON k.user_id = buyer.id
              WHERE k.key = $2 AND k.response_status IS NOT NULL),
         gate AS MATERIALIZED (
             SELECT id, pg_try_advisory_xact_lock(hashtextextended($2, id)) AS free
               FROM buyer WHERE NOT EXISTS (SELECT FROM known)),
         wanted AS MATERIALIZED (
             SELECT * FROM UNNEST($4::bigint[], $5::integer[]) WITH ORDINALITY AS w (product_id, quantity, number)),
         shelf AS MATERIALIZED (
             SELECT p.id, p.category_id, p.name, p.price_cents, p.currency, p.stock, w.quantity, w.number
               FROM gate, wanted w JOIN products p ON p.id = w.product_id
              WHERE gate.free AND p.active AND p.stock >= w.quantity
              ORDER BY p.id
                FOR NO KEY UPDATE OF p),
         judged AS MATERIALIZED (
             SELECT count(*) = cardinality($4) AND min(currency) = max(currency)
                    AND coalesce(sum(price_cents * quantity) = $6::bigint, true) AS good,
                    count(DISTINCT currency) AS currencies, min(currency) AS currency,
                    sum(price_cents * quantity)::bigint AS total, array_agg(number) AS there
               FROM shelf),
         taken AS (
             UPDATE products p SET stock = p.stock - shelf.quantity FROM shelf, judged WHERE p.id = shelf.id AND good),
         placed AS (
             INSERT INTO orders (user_id, total_cents, currency)
             SELECT gate.id, total, currency FROM gate, judged WHERE good
             RETURNING id, user_id, total_cents, currency, created_at),
         written AS (
             INSERT INTO order_lines (order_id, product_id, name, quantity, price_cents)
             SELECT placed.id, shelf.id, name, quantity, price_cents FROM placed, shelf),
         kept AS (
             INSERT INTO idempotency_keys
                    (user_id, key, request_hash, fingerprint, order_id, response_status, response_headers, response_body)
             SELECT user_id, $2, $3, $8, id, 201,
                    jsonb_build_object('content-type', 'application/json', 'location', '/api/orders/' || id),
                    convert_to(json_build_object(
                        'id', id, 'status', 'placed', 'total_cents', total_cents, 'currency', currency,
                        'created_at', rtrim(rtrim(
                            to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z',
                        'cancelled_at', NULL,
                        'lines', (SELECT json_agg(json_build_object(
                                            'product_id', l.id, 'name', l.name, 'quantity', l.quantity,
                                            'price_cents', l.price_cents) ORDER BY l.id)
                                    FROM shelf l))::text, 'UTF8')
               FROM placed
             RETURNING order_id, response_headers, response_body),
         told AS (
             INSERT INTO outbox (topic, payload)
             SELECT 'purge', jsonb_strip_nulls(jsonb_build_object('cause', $7::text, 'stale', jsonb_agg(DISTINCT tag)))
               FROM placed, shelf JOIN categories c ON c.id = category_id,
                    UNNEST(ARRAY['product-' || shelf.id, 'category-' || c.slug, 'catalogue']) AS tag
              WHERE shelf.stock = shelf.quantity
             HAVING count(*) > 0)
    SELECT buyer.id AS buyer, gate.free, judged.currencies, judged.total, coalesce(judged.there, '{}') AS there, kept.*
      FROM buyer LEFT JOIN gate ON true LEFT JOIN judged ON true LEFT JOIN kept ON true";

/// Cancels an order (`$2`) of the session's, puts its pieces back, and tells who shows them as sold out. The condition on the
/// status makes it happen once: of two cancellations only one finds the order placed.
pub(crate) const CANCEL: &str = "
    WITH buyer AS MATERIALIZED (
             SELECT user_id AS id FROM sessions WHERE token_hash = $1 AND expires_at > now()),
         cancelled AS (
             UPDATE orders o SET status = 'cancelled', cancelled_at = now()
               FROM buyer WHERE o.id = $2 AND o.user_id = buyer.id AND o.status = 'placed'
             RETURNING o.id),
         shelf AS MATERIALIZED (
             SELECT p.id, p.category_id, p.stock, l.quantity
               FROM cancelled JOIN order_lines l ON l.order_id = cancelled.id JOIN products p ON p.id = l.product_id
              ORDER BY p.id
                FOR NO KEY UPDATE OF p),
         returned AS (
             UPDATE products p SET stock = p.stock + shelf.quantity FROM shelf WHERE p.id = shelf.id),
         told AS (
             INSERT INTO outbox (topic, payload)
             SELECT 'purge', jsonb_strip_nulls(jsonb_build_object('cause', $3::text, 'stale', jsonb_agg(DISTINCT tag)))
               FROM shelf JOIN categories c ON c.id = category_id,
                    UNNEST(ARRAY['product-' || shelf.id, 'category-' || c.slug, 'catalogue']) AS tag
              WHERE shelf.stock = 0
             HAVING count(*) > 0)
    SELECT buyer.id, EXISTS (SELECT FROM cancelled) FROM buyer";

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

/// What is ordered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOrder {
    /// Each product once.
    #[schema(min_items = 1, max_items = 50)]
    lines: Vec<NewLine>,
    /// What it is to cost; if prices have changed, the order is refused (409, `total-changed`). Left out: whatever it costs.
    #[serde(default, deserialize_with = "input::optional_integer")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 9_007_199_254_740_991i64)]
    expected_total_cents: Option<Cents>,
}

/// So many pieces of a product.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLine {
    #[serde(deserialize_with = "input::integer")]
    #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    product_id: ProductId,
    #[serde(deserialize_with = "input::integer")]
    #[schema(minimum = 1, maximum = 1_000)]
    quantity: i32,
}

impl Checked for NewOrder {
    fn check(&self, wrong: &mut Wrong) {
        wrong.unless((1..=MOST_LINES).contains(&self.lines.len()), "lines", "1 to 50 lines");
        let total =
            self.expected_total_cents.is_none_or(|cents| (0..=LARGEST_INTEGER).contains(&i64::from(cents)));
        wrong.unless(total, "expected_total_cents", "a sum in cents");
        let mut products = BTreeSet::new();
        for (index, line) in self.lines.iter().take(MOST_LINES).enumerate() {
            let quantity = (1..=MOST_PIECES).contains(&line.quantity);
            wrong.unless(quantity, format!("lines[{index}].quantity"), "a number from 1 to 1000");
            let product = format!("lines[{index}].product_id");
            let id = (1..=LARGEST_INTEGER).contains(&i64::from(line.product_id));
            wrong.unless(id, product.clone(), "the number of a product");
            wrong.unless(products.insert(line.product_id), product, "each product once");
        }
    }
}

/// What has become of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum OrderStatus {
    Placed,
    Cancelled,
}

/// An order as its customer reads it.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct Order {
    id: OrderId,
    status: OrderStatus,
    total_cents: Cents,
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
    product_id: ProductId,
    /// Name and price of a piece as they were when the order was placed.
    name: String,
    quantity: i32,
    price_cents: Cents,
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
    Keyed { key, fingerprint, input: new }: Keyed<NewOrder>,
) -> Result<Response, Problem> {
    let session = cookies::session(&headers).ok_or_else(Problem::not_signed_in)?;
    let mut connection = shop.database.acquire().await?;
    let query = sqlx::query_as::<_, Placing>(PLACE)
        .bind(cookies::digest(session))
        .bind(key.as_str())
        .bind(fingerprint.digest())
        .bind(new.lines.iter().map(|line| line.product_id).collect::<Vec<_>>())
        .bind(new.lines.iter().map(|line| line.quantity).collect::<Vec<_>>())
        .bind(new.expected_total_cents)
        .bind(observe::traced_by().map(|request| request.header()))
        .bind(Fingerprint::VERSION);
    let placing = match connection.optional("orders.place", query).await {
        Ok(placing) => placing.ok_or_else(Problem::not_signed_in)?,
        Err(error) if error.as_database_error().is_some_and(DatabaseError::is_unique_violation) => {
            let session = sqlx::query_as::<_, (UserId,)>(BUYER).bind(cookies::digest(session));
            let (buyer,) =
                connection.optional("orders.buyer", session).await?.ok_or_else(Problem::not_signed_in)?;
            return key.replay(&mut connection, buyer, &fingerprint).await;
        }
        Err(error) => return Err(error.into()),
    };
    match (placing.free, placing.order_id) {
        // Known: it has been answered before.
        (None, _) => key.replay(&mut connection, placing.buyer, &fingerprint).await,
        (Some(false), _) => Err(Problem::in_progress()),
        (Some(true), Some(id)) => {
            shop.activity.record(Event::new("order.place").by(placing.buyer).about(id.to_string()));
            let body = placing.response_body.unwrap_or_default();
            let location = [(header::LOCATION, format!("/api/orders/{id}"))];
            let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            Ok((StatusCode::CREATED, kind, location, body).into_response())
        }
        (Some(true), None) => {
            let refusal = placing.refusal(&new.lines);
            key.refuse(&mut connection, placing.buyer, &fingerprint, refusal).await
        }
    }
}

/// What has become of an order. No row: nobody is signed in.
#[derive(Debug, FromRow)]
struct Placing {
    buyer: UserId,
    /// Null: the key is known. False: another request has it.
    free: Option<bool>,
    currencies: Option<i64>,
    total: Option<Cents>,
    /// The numbers of the lines that can be had, from 1.
    there: Vec<i64>,
    order_id: Option<OrderId>,
    response_body: Option<Vec<u8>>,
}

impl Placing {
    /// Why nothing was placed.
    fn refusal(&self, lines: &[NewLine]) -> Problem {
        let lacking = (1..).zip(lines).filter(|(number, _)| !self.there.contains(number));
        let lacking: Vec<FieldError> = lacking
            .map(|(number, _)| FieldError {
                field: format!("lines[{}]", number - 1),
                message: "not as many as that are left".to_owned(),
            })
            .collect();
        match (lacking.is_empty(), self.currencies, self.total) {
            (false, ..) => Problem::out_of_stock(lacking),
            (true, Some(1), Some(total)) => Problem::total_changed(total),
            (true, ..) => Problem::mixed_currencies(),
        }
    }
}

const BUYER: &str = "SELECT user_id FROM sessions WHERE token_hash = $1 AND expires_at > now()";

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
    let user = sessions::user(&shop, &mut connection, &headers).await?;
    let query = sqlx::query_as(LIST).bind(user.id);
    let place = |order: &Order| (order.created_at, order.id.into());
    let (orders, next_cursor) = page.read(&mut connection, "orders.list", query, place).await?;
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
    id: Result<Path<OrderId>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<WholeOrder>, Problem> {
    let mut connection = shop.reads.acquire(&headers).await?;
    let user = sessions::user(&shop, &mut connection, &headers).await?;
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
    id: Result<Path<OrderId>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<WholeOrder>, Problem> {
    let session = cookies::session(&headers).ok_or_else(Problem::not_signed_in)?;
    let id = number(id)?;
    let mut connection = shop.database.acquire().await?;
    let cause = observe::traced_by().map(|request| request.header());
    let query =
        sqlx::query_as::<_, (UserId, bool)>(CANCEL).bind(cookies::digest(session)).bind(id).bind(cause);
    let done = connection.optional("orders.cancel", query).await?;
    let (user, cancelled) = done.ok_or_else(Problem::not_signed_in)?;
    if cancelled {
        shop.activity.record(Event::new("order.cancel").by(user).about(id.to_string()));
    }
    // Otherwise it was cancelled already, or there is no such order of theirs.
    Ok(Json(find(&mut connection, id, user).await?))
}

pub(crate) async fn find(
    connection: &mut Connection,
    id: OrderId,
    user: UserId,
) -> Result<WholeOrder, Problem> {
    let query = sqlx::query_as(BY_ID).bind(id).bind(user);
    let order: Order = connection.optional("orders.show", query).await?.ok_or_else(no_such_order)?;
    let lines = connection.all("orders.lines", sqlx::query_as(LINES).bind(order.id)).await?;
    Ok(WholeOrder { order, lines })
}

pub(crate) fn number(id: Result<Path<OrderId>, PathRejection>) -> Result<OrderId, Problem> {
    id.map(|Path(id)| id).map_err(|_| no_such_order())
}

pub(crate) fn no_such_order() -> Problem {
    Problem::not_found("no such order")
}
