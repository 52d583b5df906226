//! The demo catalogue: product number `n` is the same on every machine and in every run, whatever number of them is asked for.
//!
//! Its words are in `demo/catalogue.json`; the database puts them together, in one transaction. What is there already stays as
//! it is.

use sqlx::{Connection as _, PgConnection};

const WORDS: &str = include_str!("../demo/catalogue.json");

const INSERT_CATEGORIES: &str = "
    INSERT INTO categories (slug, name, position)
    SELECT category ->> 'slug', category ->> 'name', number - 1
      FROM jsonb_array_elements($1::jsonb -> 'categories') WITH ORDINALITY AS category (category, number)
    ON CONFLICT (slug) DO NOTHING";

/// Product 0 is the newest. 475 has no divisor in common with the number of names in a category (24 makers, 6 materials, 6
/// things), so it steps through all of them in an order that looks arbitrary; used up, they come again as further editions.
/// The dice are the bytes of a digest: the same throws for the same number. OFFSET 0 has each step computed once.
const INSERT_PRODUCTS: &str = "
    INSERT INTO products (category_id, slug, name, description, price_cents, stock, image, active, created_at)
    SELECT (SELECT id FROM categories WHERE slug = category ->> 'slug'),
           translate(lower(name), ' .', '-'),
           name,
           concat_ws(' ',
               replace(replace(replace(words -> 'openings' ->> get_byte(dice, 0) % 4,
                   '{noun}', lower(thing ->> 'noun')), '{material}', lower(material)), '{maker}', maker),
               category -> 'uses' ->> get_byte(dice, 1) % 3,
               words -> 'closings' ->> get_byte(dice, 2) % 4),
           (thing ->> 'cents')::bigint * (80 + get_byte(dice, 3) % 90) / 10000 * 100
               + (ARRAY[0, 50, 90, 95])[1 + get_byte(dice, 4) % 4],
           CASE WHEN get_byte(dice, 5) % 14 = 0 THEN 0 ELSE 1 + get_byte(dice, 6) % 120 END,
           (thing ->> 'image') || '-' || translate(lower(material), ' ', '-'),
           get_byte(dice, 8) % 50 <> 0,
           timestamptz '2026-10-01 12:00Z' - number * interval '5237 seconds'
      FROM (SELECT $1::jsonb AS words OFFSET 0) AS demo
     CROSS JOIN generate_series(0, $2::integer - 1) AS number
     CROSS JOIN LATERAL (
               SELECT words -> 'categories' -> number % 12 AS category,
                      number / 12 / 864 + 1 AS edition,
                      (number / 12 * 475 + number % 12 * 101) % 864 AS pick,
                      sha256(number::text::bytea) AS dice
               OFFSET 0) AS thrown
     CROSS JOIN LATERAL (
               SELECT words -> 'makers' ->> pick / 36 AS maker,
                      category -> 'materials' ->> pick / 6 % 6 AS material,
                      category -> 'things' -> pick % 6 AS thing
               OFFSET 0) AS picked
     CROSS JOIN LATERAL (
               SELECT concat_ws(' ', maker, material, thing ->> 'noun', 'No. ' || nullif(edition, 1)) AS name
               OFFSET 0) AS named
    ON CONFLICT (slug) DO NOTHING";

/// Fills the catalogue with the first `products` products and their categories; answers how many were not there before.
pub async fn seed(connection: &mut PgConnection, products: u32) -> Result<u64, sqlx::Error> {
    fill(connection, products, "SELECT true").await
}

/// The same, but only into a catalogue without products. Of several callers at once, one does it.
pub async fn seed_if_empty(connection: &mut PgConnection, products: u32) -> Result<u64, sqlx::Error> {
    fill(connection, products, "SELECT NOT EXISTS (SELECT FROM products)").await
}

async fn fill(
    connection: &mut PgConnection,
    products: u32,
    condition: &'static str,
) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock(hashtext('gatehouse seed'))");
    lock.execute(&mut *transaction).await?;
    if !sqlx::query_scalar(condition).fetch_one(&mut *transaction).await? {
        return Ok(0);
    }
    sqlx::query(INSERT_CATEGORIES).bind(WORDS).execute(&mut *transaction).await?;
    let added =
        sqlx::query(INSERT_PRODUCTS).bind(WORDS).bind(i64::from(products)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    if added.rows_affected() > 0 {
        // Fresh statistics and visibility map: plans and index-only scans are right from the first request on.
        sqlx::query("VACUUM (ANALYZE) products, categories, catalogue_state").execute(connection).await?;
    }
    Ok(added.rows_affected())
}
