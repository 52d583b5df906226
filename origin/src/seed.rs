//! The demo catalogue: product number `n` is the same on every machine and in every run, whatever number of them is asked for.
//!
//! Rows go in by thousands (`UNNEST`) in one transaction; what is there already stays as it is.

use sqlx::{Connection as _, PgConnection};
use time::{Duration, OffsetDateTime, macros::datetime};

/// Rows in one statement: large enough to make round trips not matter, small in memory.
const BATCH: u32 = 5_000;
/// Product 0 is the newest; each next one is older by `INTERVAL`.
const NEWEST: OffsetDateTime = datetime!(2026-10-01 12:00 UTC);
const INTERVAL: Duration = Duration::seconds(5_237);
/// Coprime to the number of names in a category: steps through all of them in an order that looks arbitrary.
const STRIDE: usize = 487;

struct Category {
    slug: &'static str,
    name: &'static str,
    materials: [&'static str; 6],
    /// Noun, stem of its image, price in cents of the plainest one.
    things: [(&'static str, &'static str, i64); 6],
    uses: [&'static str; 3],
}

/// Fills the catalogue with the first `products` products and their categories; answers how many were not there before.
pub async fn seed(connection: &mut PgConnection, products: u32) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    let added = fill(&mut transaction, products).await?;
    transaction.commit().await?;
    tidy(connection, added).await?;
    Ok(added)
}

/// The same, but only into a catalogue without products. Of several callers at once, one does it.
pub async fn seed_if_empty(connection: &mut PgConnection, products: u32) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    let empty: bool =
        sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM products)").fetch_one(&mut *transaction).await?;
    let added = if empty { fill(&mut transaction, products).await? } else { 0 };
    transaction.commit().await?;
    tidy(connection, added).await?;
    Ok(added)
}

async fn lock(transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('gatehouse seed'))")
        .execute(transaction)
        .await
        .map(drop)
}

async fn fill(transaction: &mut PgConnection, products: u32) -> Result<u64, sqlx::Error> {
    let positions: Vec<i32> = (0..).take(CATEGORIES.len()).collect();
    sqlx::query(
        "INSERT INTO categories (slug, name, position)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::integer[])
         ON CONFLICT (slug) DO NOTHING",
    )
    .bind(CATEGORIES.map(|category| category.slug))
    .bind(CATEGORIES.map(|category| category.name))
    .bind(positions)
    .execute(&mut *transaction)
    .await?;
    let mut added = 0;
    for first in (0..products).step_by(BATCH as usize) {
        let batch: Batch = (first..products.min(first + BATCH)).map(Product::number).collect();
        added += batch.insert(&mut *transaction).await?;
    }
    Ok(added)
}

/// Fresh statistics and visibility map: plans and index-only scans are right from the first request on.
async fn tidy(connection: &mut PgConnection, added: u64) -> Result<(), sqlx::Error> {
    if added > 0 {
        sqlx::query("VACUUM (ANALYZE) products, categories, catalogue_state").execute(connection).await?;
    }
    Ok(())
}

struct Product {
    category: &'static str,
    slug: String,
    name: String,
    description: String,
    price_cents: i64,
    stock: i32,
    image: String,
    active: bool,
    created_at: OffsetDateTime,
}

impl Product {
    fn number(number: u32) -> Self {
        let index = number as usize;
        let (category, turn) = (&CATEGORIES[index % CATEGORIES.len()], index / CATEGORIES.len());
        let names = MAKERS.len() * category.materials.len() * category.things.len();
        let name_index = (turn * STRIDE + index % CATEGORIES.len() * 101) % names;
        let (noun, stem, base_cents) = category.things[name_index % category.things.len()];
        let material = category.materials[name_index / category.things.len() % category.materials.len()];
        let maker = MAKERS[name_index / category.things.len() / category.materials.len()];
        let mut name = format!("{maker} {material} {noun}");
        // When every name of the category is used up, they come again as further editions.
        let edition = turn / names + 1;
        if edition > 1 {
            name = format!("{name} No. {edition}");
        }
        let mut dice = Dice(u64::from(number));
        let euros = base_cents * (80 + dice.below(90)) / 10_000;
        let ending = [0, 50, 90, 95][usize::from(dice.below_8(4))];
        let description = format!(
            "{} {} {}",
            OPENINGS[usize::from(dice.below_8(4))]
                .replace("{noun}", &noun.to_lowercase())
                .replace("{material}", &material.to_lowercase())
                .replace("{maker}", maker),
            category.uses[usize::from(dice.below_8(3))],
            CLOSINGS[usize::from(dice.below_8(4))],
        );
        Self {
            category: category.slug,
            slug: name.to_lowercase().replace('.', "").replace(' ', "-"),
            description,
            price_cents: euros * 100 + ending,
            stock: if dice.below(14) == 0 { 0 } else { 1 + i32::from(dice.below_8(120)) },
            image: format!("{stem}-{}", 1 + dice.below(2)),
            active: dice.below(50) != 0,
            created_at: NEWEST - INTERVAL * i32::try_from(number).unwrap_or(i32::MAX),
            name,
        }
    }
}

/// The columns of many products.
#[derive(Default)]
struct Batch {
    categories: Vec<&'static str>,
    slugs: Vec<String>,
    names: Vec<String>,
    descriptions: Vec<String>,
    prices: Vec<i64>,
    stocks: Vec<i32>,
    images: Vec<String>,
    active: Vec<bool>,
    created: Vec<OffsetDateTime>,
}

impl FromIterator<Product> for Batch {
    fn from_iter<Products: IntoIterator<Item = Product>>(products: Products) -> Self {
        let mut batch = Self::default();
        for product in products {
            batch.categories.push(product.category);
            batch.slugs.push(product.slug);
            batch.names.push(product.name);
            batch.descriptions.push(product.description);
            batch.prices.push(product.price_cents);
            batch.stocks.push(product.stock);
            batch.images.push(product.image);
            batch.active.push(product.active);
            batch.created.push(product.created_at);
        }
        batch
    }
}

impl Batch {
    async fn insert(self, transaction: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let statement = "
            INSERT INTO products (category_id, slug, name, description, price_cents, stock, image, active, created_at)
            SELECT c.id, row.slug, row.name, row.description, row.price_cents, row.stock, row.image, row.active, row.created_at
              FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::integer[], $7::text[],
                          $8::boolean[], $9::timestamptz[]) WITH ORDINALITY
                AS row (category, slug, name, description, price_cents, stock, image, active, created_at, number)
              JOIN categories c ON c.slug = row.category
             ORDER BY row.number
            ON CONFLICT (slug) DO NOTHING";
        let done = sqlx::query(statement)
            .bind(self.categories)
            .bind(self.slugs)
            .bind(self.names)
            .bind(self.descriptions)
            .bind(self.prices)
            .bind(self.stocks)
            .bind(self.images)
            .bind(self.active)
            .bind(self.created)
            .execute(transaction)
            .await?;
        Ok(done.rows_affected())
    }
}

/// SplitMix64: the same throws for the same start, on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below_8(&mut self, bound: u8) -> u8 {
        u8::try_from(self.roll() % u64::from(bound)).expect("a remainder is below the divisor, which is a u8")
    }

    fn below(&mut self, bound: u8) -> i64 {
        self.below_8(bound).into()
    }
}

const MAKERS: [&str; 24] = [
    "Harbour", "Linden", "Solveig", "Marlow", "Fjord", "Alder", "Juniper", "Tove", "Osten", "Brae", "Calder",
    "Hollis", "Ingrid", "Wren", "Sable", "Nordby", "Ashdown", "Perrin", "Larkin", "Vesper", "Orchard",
    "Quill", "Tarn", "Merrow",
];

const OPENINGS: [&str; 4] = [
    "A {noun} in {material}, made in small numbers by {maker}.",
    "{maker} has made this {material} {noun} the same way for thirty years.",
    "Our favourite {noun}: {material}, quietly shaped, built to be used every day.",
    "The {material} {noun} that {maker} is known for.",
];

const CLOSINGS: [&str; 4] = [
    "Repaired free of charge for five years.",
    "Each one differs a little from the next.",
    "Ships in a carton without plastic.",
    "Wipe with a damp cloth and it will outlast the fashion.",
];

const CATEGORIES: [Category; 12] = [
    Category {
        slug: "kitchen",
        name: "Kitchen",
        materials: ["Enamel", "Copper", "Brushed Steel", "Cast Iron", "Stoneware", "Blue Steel"],
        things: [
            ("Kettle", "kettle", 6400),
            ("Saucepan", "saucepan", 7200),
            ("Stovetop Kettle", "kettle", 7900),
            ("Milk Pan", "saucepan", 4200),
            ("Pouring Kettle", "kettle", 8600),
            ("Frying Pan", "saucepan", 9800),
        ],
        uses: [
            "Works on gas, ceramic and induction.",
            "The handle stays cool over a low flame.",
            "Holds enough for six.",
        ],
    },
    Category {
        slug: "ceramics",
        name: "Ceramics",
        materials: ["Speckled", "Ash Glazed", "Raw Clay", "Porcelain", "Salt Glazed", "Celadon"],
        things: [
            ("Mug", "mug", 2200),
            ("Vase", "vase", 4800),
            ("Tall Mug", "mug", 2600),
            ("Bud Vase", "vase", 2900),
            ("Breakfast Cup", "mug", 2400),
            ("Floor Vase", "vase", 11800),
        ],
        uses: [
            "Thrown by hand and fired twice.",
            "Safe in the dishwasher.",
            "Heavy at the foot, thin at the lip.",
        ],
    },
    Category {
        slug: "lighting",
        name: "Lighting",
        materials: ["Brass", "Opal Glass", "Powder Coated", "Paper", "Walnut", "Linen"],
        things: [
            ("Table Lamp", "lamp", 11900),
            ("Pendant", "pendant", 14900),
            ("Desk Lamp", "lamp", 9900),
            ("Dome Pendant", "pendant", 17900),
            ("Bedside Lamp", "lamp", 7900),
            ("Globe Pendant", "pendant", 12900),
        ],
        uses: [
            "Dims to the light of a candle.",
            "Two metres of woven cable.",
            "Throws a wide and even circle of light.",
        ],
    },
    Category {
        slug: "textiles",
        name: "Textiles",
        materials: ["Lambswool", "Washed Linen", "Mohair", "Organic Cotton", "Boiled Wool", "Herringbone"],
        things: [
            ("Blanket", "blanket", 9800),
            ("Cushion", "cushion", 4200),
            ("Throw", "blanket", 7600),
            ("Floor Cushion", "cushion", 8800),
            ("Baby Blanket", "blanket", 5400),
            ("Bolster", "cushion", 4900),
        ],
        uses: ["Woven on an old narrow loom.", "Softer with every wash.", "Warm without weight."],
    },
    Category {
        slug: "bath",
        name: "Bath",
        materials: ["Olive", "Lavender", "Sea Salt", "Cedar", "Oatmeal", "Charcoal"],
        things: [
            ("Soap", "soap", 900),
            ("Bath Towel", "towel", 3800),
            ("Shaving Soap", "soap", 1600),
            ("Hand Towel", "towel", 1900),
            ("Soap Bar Trio", "soap", 2400),
            ("Beach Towel", "towel", 4600),
        ],
        uses: [
            "No palm oil, no colouring.",
            "Gentle enough for children.",
            "Smells of a morning far from town.",
        ],
    },
    Category {
        slug: "stationery",
        name: "Stationery",
        materials: ["Dotted", "Cloth Bound", "Recycled", "Ruled", "Kraft", "Cotton Paper"],
        things: [
            ("Notebook", "notebook", 1500),
            ("Pencil Set", "pencils", 1200),
            ("Pocket Notebook", "notebook", 900),
            ("Colour Pencils", "pencils", 2400),
            ("Sketchbook", "notebook", 2200),
            ("Drafting Pencils", "pencils", 1800),
        ],
        uses: ["Lies flat when open.", "Takes ink without bleeding.", "Made for writing by hand, slowly."],
    },
    Category {
        slug: "prints",
        name: "Prints",
        materials: ["Dawn", "Ochre", "Midnight", "Winter", "Coastal", "Quiet"],
        things: [
            ("Landscape Print", "hills", 3900),
            ("Abstract Print", "shapes", 3900),
            ("Hills Print", "hills", 4500),
            ("Geometric Print", "shapes", 4500),
            ("Panorama Print", "hills", 6900),
            ("Cutout Print", "shapes", 5200),
        ],
        uses: [
            "Printed on heavy matt paper.",
            "Numbered, in an edition of two hundred.",
            "Comes without a frame.",
        ],
    },
    Category {
        slug: "garden",
        name: "Garden",
        materials: ["Galvanised", "Terracotta", "Zinc", "Green Enamel", "Weathered", "Copper"],
        things: [
            ("Watering Can", "watering-can", 4400),
            ("Potted Fern", "plant", 2800),
            ("Indoor Watering Can", "watering-can", 3200),
            ("Potted Fig", "plant", 5600),
            ("Long Reach Can", "watering-can", 5200),
            ("Herb Planter", "plant", 3400),
        ],
        uses: ["Stands frost and forgetfulness.", "Balanced when full.", "Wants little, gives much."],
    },
    Category {
        slug: "outdoor",
        name: "Outdoor",
        materials: ["Ultralight", "Waxed", "Insulated", "Four Season", "Trail", "Expedition"],
        things: [
            ("Tent", "tent", 28900),
            ("Flask", "flask", 3400),
            ("Two Person Tent", "tent", 34900),
            ("Wide Flask", "flask", 3900),
            ("Tarp Tent", "tent", 19900),
            ("Food Flask", "flask", 4200),
        ],
        uses: [
            "Tested on a wet week in the hills.",
            "Every part can be replaced.",
            "Packs down to the size of a loaf.",
        ],
    },
    Category {
        slug: "bags",
        name: "Bags",
        materials: ["Canvas", "Waxed Cotton", "Leather", "Ripstop", "Felt", "Hemp"],
        things: [
            ("Tote", "tote", 3900),
            ("Backpack", "backpack", 11900),
            ("Market Tote", "tote", 4500),
            ("Rolltop Backpack", "backpack", 13900),
            ("Zip Tote", "tote", 5900),
            ("Day Backpack", "backpack", 8900),
        ],
        uses: ["Carries a laptop and lunch.", "The seams are taped inside.", "Looks better scuffed."],
    },
    Category {
        slug: "audio",
        name: "Audio",
        materials: ["Walnut", "Aluminium", "Matt Black", "Ash Wood", "Graphite", "Linen Grille"],
        things: [
            ("Headphones", "headphones", 18900),
            ("Speaker", "speaker", 24900),
            ("Wireless Headphones", "headphones", 22900),
            ("Shelf Speaker", "speaker", 31900),
            ("Studio Headphones", "headphones", 26900),
            ("Travel Speaker", "speaker", 12900),
        ],
        uses: [
            "Plays thirty hours between charges.",
            "Plain, honest sound.",
            "The battery can be changed at home.",
        ],
    },
    Category {
        slug: "toys",
        name: "Toys",
        materials: ["Beech", "Painted", "Maple", "Cork", "Rainbow", "Natural"],
        things: [
            ("Building Blocks", "blocks", 3200),
            ("Rocket", "rocket", 2600),
            ("Stacking Blocks", "blocks", 2400),
            ("Space Rocket", "rocket", 3400),
            ("Alphabet Blocks", "blocks", 3800),
            ("Launch Rocket", "rocket", 2900),
        ],
        uses: ["From eighteen months.", "Water based colours, round edges.", "Survives siblings."],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::storefront;

    #[test]
    fn a_hundred_thousand_products_have_as_many_slugs() {
        let slugs: HashSet<String> = (0..100_000).map(|number| Product::number(number).slug).collect();
        assert_eq!(slugs.len(), 100_000);
    }

    #[test]
    fn every_product_is_one_the_schema_and_the_storefront_take() {
        for product in (0..12_000).map(Product::number) {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(product.slug.bytes().all(plain), "{}", product.slug);
            assert!(product.price_cents >= 100 && product.stock >= 0);
            assert!(storefront::image_url(&product.image).is_some(), "{}", product.image);
        }
    }
}
