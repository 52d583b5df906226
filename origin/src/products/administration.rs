//! What administrators do to the catalogue. Each change writes the tags it makes wrong into the outbox, in its transaction.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::FromRow;
use storefront::is_slug;
use utoipa::{
    ToSchema,
    openapi::{
        ObjectBuilder, Schema,
        schema::{SchemaType, Type},
    },
};

use super::{ProductVersion, Slug, none};
use crate::{
    activity_log::Event,
    caching::{EntityTag, IfMatch, Tag},
    categories,
    database::Connection,
    idempotency::{Done, Fingerprint, IdempotencyKey, Keyed},
    input::{self, Checked, Input, Wrong},
    numbers::{Cents, ProductId},
    outbox, pictures,
    problem::Problem,
    sessions,
    shop::Shop,
};

const DEAREST: i64 = 1_000_000_000;
const LARGEST_DELIVERY: i32 = 1_000_000;

macro_rules! kept {
    () => {
        "SELECT s.epoch, p.id, p.version, c.slug AS category, c.version AS category_version, p.slug, p.active, p.stock
           FROM products p
           JOIN categories c ON c.id = p.category_id
          CROSS JOIN catalogue_state s
          WHERE p.slug = $1"
    };
}

pub(crate) const KEPT_BY_SLUG: &str = kept!();
pub(crate) const LOCK_BY_SLUG: &str = concat!(kept!(), " FOR NO KEY UPDATE OF p");

const INSERT: &str = "
    INSERT INTO products (category_id, slug, name, description, price_cents, currency, stock, image, active)
    SELECT c.id, $2, $3, $4, $5, $6, $7, $8, $9 FROM categories c WHERE c.slug = $1
    ON CONFLICT (slug) DO NOTHING
    RETURNING id";

const UPDATE: &str = "
    UPDATE products
       SET category_id = coalesce((SELECT id FROM categories WHERE slug = $2), category_id),
           name = coalesce($3, name),
           description = coalesce($4, description),
           price_cents = coalesce($5, price_cents),
           active = coalesce($6, active),
           image = CASE WHEN $7 THEN $8 ELSE image END
     WHERE id = $1";

/// Leaves room for what cancelled orders bring back.
pub(crate) const MOST_PIECES: i32 = 1_000_000_000;

const RESTOCK: &str = "UPDATE products SET stock = stock + $2 WHERE id = $1";

/// A new product.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProduct {
    #[schema(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 120)]
    slug: String,
    #[schema(pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$", max_length = 200)]
    name: String,
    /// The category's slug.
    #[schema(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 120)]
    category: String,
    #[serde(default)]
    #[schema(pattern = "^[^\\x00]*$", max_length = 10_000)]
    description: String,
    #[serde(deserialize_with = "input::integer")]
    #[schema(value_type = i64, minimum = 0, maximum = 1_000_000_000)]
    price_cents: Cents,
    #[serde(default = "euro")]
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: String,
    #[serde(default, deserialize_with = "input::integer")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    stock: i32,
    #[schema(schema_with = image)]
    image: Option<String>,
    #[serde(default = "offered")]
    active: bool,
}

fn euro() -> String {
    "EUR".to_owned()
}

const fn offered() -> bool {
    true
}

impl Checked for NewProduct {
    fn check(&self, wrong: &mut Wrong) {
        wrong.unless(
            is_slug(&self.slug),
            "slug",
            "lower-case words joined by hyphens, 120 characters at most",
        );
        check_texts(Some(&self.name), Some(&self.description), wrong);
        check_category(Some(&self.category), wrong);
        check_price(self.price_cents, wrong);
        let currency =
            self.currency.len() == 3 && self.currency.bytes().all(|byte| byte.is_ascii_uppercase());
        wrong.unless(currency, "currency", "three letters such as `EUR`");
        wrong.unless((0..=LARGEST_DELIVERY).contains(&self.stock), "stock", "a number from 0 to 1000000");
        check_image(self.image.as_deref(), wrong);
    }
}

/// What is to be different; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    #[serde(default, deserialize_with = "input::not_null")]
    #[schema(value_type = String, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$", max_length = 200)]
    name: Option<String>,
    #[serde(default, deserialize_with = "input::not_null")]
    #[schema(value_type = String, pattern = "^[a-z0-9]+(-[a-z0-9]+)*$", max_length = 120)]
    category: Option<String>,
    #[serde(default, deserialize_with = "input::not_null")]
    #[schema(value_type = String, pattern = "^[^\\x00]*$", max_length = 10_000)]
    description: Option<String>,
    #[serde(default, deserialize_with = "input::integer_not_null")]
    #[schema(value_type = i64, minimum = 0, maximum = 1_000_000_000)]
    price_cents: Option<Cents>,
    #[serde(default, deserialize_with = "input::not_null")]
    #[schema(value_type = bool)]
    active: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = image)]
    image: Option<Option<String>>,
}

fn image() -> Schema {
    let stems = storefront::image_stems().join("|");
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
        .description(Some(
            "One of the storefront's pictures, such as `kettle-1`, or one that was put in; null: none.",
        ))
        .pattern(Some(format!("^(?:{stems}|u-[0-9a-f]{{20}})$")))
        .into()
}

/// Tells a null that was sent from a member that was not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Checked for Change {
    fn check(&self, wrong: &mut Wrong) {
        check_texts(self.name.as_deref(), self.description.as_deref(), wrong);
        check_category(self.category.as_deref(), wrong);
        if let Some(cents) = self.price_cents {
            check_price(cents, wrong);
        }
        check_image(self.image.as_ref().and_then(Option::as_deref), wrong);
    }
}

fn check_texts(name: Option<&str>, description: Option<&str>, wrong: &mut Wrong) {
    if let Some(name) = name {
        wrong.line(name, 1..=200, "name");
    }
    let short = description.is_none_or(|text| text.chars().count() <= 10_000 && !text.contains('\0'));
    wrong.unless(short, "description", "10000 characters at most");
}

fn check_category(slug: Option<&str>, wrong: &mut Wrong) {
    wrong.unless(slug.is_none_or(is_slug), "category", "the slug of one, such as `kitchen`");
}

fn check_price(cents: Cents, wrong: &mut Wrong) {
    wrong.unless((0..=DEAREST).contains(&i64::from(cents)), "price_cents", "a number from 0 to 1000000000");
}

fn check_image(stem: Option<&str>, wrong: &mut Wrong) {
    wrong.unless(
        stem.is_none_or(|stem| storefront::image_url(stem).is_some() || pictures::is_stem(stem)),
        "image",
        "one of the storefront's, such as `kettle-1`, or one that was put in",
    );
}

/// Pieces that have arrived.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delivery {
    #[serde(deserialize_with = "input::integer")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: i32,
}

impl Checked for Delivery {
    fn check(&self, wrong: &mut Wrong) {
        wrong.unless(
            (1..=LARGEST_DELIVERY).contains(&self.quantity),
            "quantity",
            "a number from 1 to 1000000",
        );
    }
}

/// A product after a change.
#[derive(Debug, FromRow, Serialize, ToSchema)]
pub(crate) struct Changed {
    #[sqlx(flatten)]
    #[serde(skip)]
    state: ProductVersion,
    id: ProductId,
    slug: String,
    version: i64,
    active: bool,
    stock: i32,
}

impl Changed {
    /// The product as it is, and as it stays until the transaction ends.
    pub(crate) async fn lock(connection: &mut Connection, slug: &str) -> Result<Self, Problem> {
        let query = sqlx::query_as(LOCK_BY_SLUG).bind(slug.to_owned());
        connection.optional("products.lock", query).await?.ok_or_else(none)
    }

    /// The product as it is, offered or not.
    pub(crate) async fn find(connection: &mut Connection, slug: &str) -> Result<Self, Problem> {
        connection.optional("products.kept", sqlx::query_as(KEPT_BY_SLUG).bind(slug)).await?.ok_or_else(none)
    }

    pub(crate) fn id(&self) -> ProductId {
        self.id
    }

    fn entity(&self) -> EntityTag {
        self.state.entity(&self.slug)
    }

    pub(crate) fn answer(&self, status: StatusCode) -> Response {
        (status, [(header::ETAG, self.entity().header())], axum::Json(self)).into_response()
    }
}

/// `POST /api/products`: a new product.
#[utoipa::path(
    post,
    path = "/products",
    operation_id = "create_product",
    tag = "administration",
    security(("session" = [], "requested_with" = [])),
    request_body = NewProduct,
    responses((status = 201, description = "Created", body = Changed))
)]
pub(crate) async fn create(
    State(shop): State<Shop>,
    headers: HeaderMap,
    Input(new): Input<NewProduct>,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    let administrator = sessions::administrator(&mut connection, &headers).await?;
    pictures::check(&mut connection, new.image.as_deref()).await?;
    connection.begin().await?;
    let query = sqlx::query_as::<_, (ProductId,)>(INSERT)
        .bind(new.category.clone())
        .bind(new.slug.clone())
        .bind(new.name)
        .bind(new.description)
        .bind(new.price_cents)
        .bind(new.currency)
        .bind(new.stock)
        .bind(new.image)
        .bind(new.active);
    if connection.optional("products.insert", query).await?.is_none() {
        let known = categories::exists(&mut connection, &new.category).await?;
        return Err(if known { Problem::slug_taken() } else { no_such_category() });
    }
    let product = Changed::lock(&mut connection, &new.slug).await?;
    outbox::purge(&mut connection, &[Tag::Catalogue, Tag::Category(&new.category)]).await?;
    connection.commit().await?;
    shop.activity.record(Event::new("product.create").by(administrator.id).about(&new.slug));
    let location = [(header::LOCATION, format!("/api/products/{}", new.slug))];
    Ok((location, product.answer(StatusCode::CREATED)).into_response())
}

/// `PATCH /api/products/{slug}` with `If-Match`: changes what is sent, if nobody has changed it since it was read.
#[utoipa::path(
    patch,
    path = "/products/{slug}",
    operation_id = "change_product",
    tag = "administration",
    security(("session" = [], "requested_with" = [])),
    params(Slug, ("If-Match" = String, Header, description = "The product's ETag")),
    request_body = Change,
    responses((status = 200, description = "OK", body = Changed))
)]
pub(crate) async fn change(
    State(shop): State<Shop>,
    Slug { slug }: Slug,
    headers: HeaderMap,
    Input(change): Input<Change>,
) -> Result<Response, Problem> {
    edit(&shop, &headers, "product.change", &slug, change).await
}

/// `DELETE /api/products/{slug}` with `If-Match`: no longer offered. The row stays, because orders point at it.
#[utoipa::path(
    delete,
    path = "/products/{slug}",
    operation_id = "deactivate_product",
    tag = "administration",
    security(("session" = [], "requested_with" = [])),
    params(Slug, ("If-Match" = String, Header, description = "The product's ETag")),
    responses((status = 200, description = "OK", body = Changed))
)]
pub(crate) async fn deactivate(
    State(shop): State<Shop>,
    Slug { slug }: Slug,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let nothing_else = Change { active: Some(false), ..Change::default() };
    edit(&shop, &headers, "product.deactivate", &slug, nothing_else).await
}

/// `POST /api/products/{slug}/restock` with `Idempotency-Key`: adds the pieces that have arrived.
#[utoipa::path(
    post,
    path = "/products/{slug}/restock",
    operation_id = "restock_product",
    tag = "administration",
    security(("session" = [], "requested_with" = [])),
    params(IdempotencyKey, Slug),
    request_body = Delivery,
    responses((status = 200, description = "OK", body = Changed))
)]
pub(crate) async fn restock(
    State(shop): State<Shop>,
    Slug { slug }: Slug,
    headers: HeaderMap,
    Keyed { key, input: Delivery { quantity }, .. }: Keyed<Delivery>,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    let administrator = sessions::administrator(&mut connection, &headers).await?;
    let fingerprint = Fingerprint::of(&("restock", &slug, quantity))?;
    if let Some(answered) = key.begin(&mut connection, administrator.id, &fingerprint).await? {
        return Ok(answered);
    }
    let outcome = add(&mut connection, &slug, quantity).await;
    let added = outcome.is_ok();
    let outcome = outcome.and_then(|product| {
        let entity = product.entity().as_str().to_owned();
        Done::json(StatusCode::OK, (header::ETAG, entity), &product)
    });
    let response = key.end(&mut connection, administrator.id, &fingerprint, outcome).await?;
    if added {
        shop.activity.record(Event::new("product.restock").by(administrator.id).about(slug));
    }
    Ok(response)
}

/// The change, if nobody has changed the product since the request's sender read it.
async fn edit(
    shop: &Shop,
    headers: &HeaderMap,
    action: &'static str,
    slug: &str,
    change: Change,
) -> Result<Response, Problem> {
    let mut connection = shop.database.acquire().await?;
    let administrator = sessions::administrator(&mut connection, headers).await?;
    let condition = IfMatch::of(headers)?;
    pictures::check(&mut connection, change.image.as_ref().and_then(Option::as_deref)).await?;
    connection.begin().await?;
    let before = Changed::lock(&mut connection, slug).await?;
    if !condition.lists(&before.entity()) {
        return Err(Problem::precondition_failed());
    }
    if let Some(category) = &change.category
        && !categories::exists(&mut connection, category).await?
    {
        return Err(no_such_category());
    }
    let query = sqlx::query(UPDATE)
        .bind(before.id)
        .bind(change.category)
        .bind(change.name)
        .bind(change.description)
        .bind(change.price_cents)
        .bind(change.active)
        .bind(change.image.is_some())
        .bind(change.image.flatten());
    connection.execute("products.update", query).await?;
    let after = announced(&mut connection, &before).await?;
    connection.commit().await?;
    shop.activity.record(Event::new(action).by(administrator.id).about(slug));
    Ok(after.answer(StatusCode::OK))
}

async fn add(connection: &mut Connection, slug: &str, quantity: i32) -> Result<Changed, Problem> {
    let before = Changed::lock(connection, slug).await?;
    if before.stock.checked_add(quantity).is_none_or(|stock| stock > MOST_PIECES) {
        let message = format!("more than the {MOST_PIECES} pieces of a product that the shop can count");
        return Err(Problem::invalid_field("quantity", message));
    }
    let query = sqlx::query(RESTOCK).bind(before.id).bind(quantity);
    connection.execute("products.restock", query).await?;
    let after = Changed::lock(connection, slug).await?;
    outbox::refresh(connection, &outdated(&before, &after)).await?;
    Ok(after)
}

/// The product as it is now; what shows it as it was is purged.
pub(crate) async fn announced(connection: &mut Connection, before: &Changed) -> Result<Changed, Problem> {
    let after = Changed::lock(connection, &before.slug).await?;
    outbox::purge(connection, &outdated(before, &after)).await?;
    Ok(after)
}

/// What shows the product as it was: nothing, where nothing has changed. A change that leaves its version as it was shows in its
/// own answers alone.
fn outdated<'a>(before: &'a Changed, after: &'a Changed) -> Vec<Tag<'a>> {
    let mut tags = Vec::new();
    if after.version != before.version || after.stock != before.stock {
        tags.push(Tag::Product(after.id));
    }
    if after.version != before.version {
        let (left, entered) = (&before.state.category, &after.state.category);
        tags.extend([Tag::Category(left), Tag::Category(entered), Tag::Catalogue]);
    }
    tags
}

fn no_such_category() -> Problem {
    Problem::invalid_field("category", "the slug of a category that is there")
}
