//! Every statement that answers requests, with example arguments: what the test of query plans reads. A statement that is
//! not listed here is not tested, so a resource adds its own.

use crate::{
    account, activity, attempts, catalogue, categories, idempotency, mail, office, orders, outbox,
    pages::sitemap,
    pagination::Sort,
    pictures,
    products::{self, ListShape, administration, suggestions},
    sessions,
};

/// A statement as `PREPARE` takes it, and SQL literals for its parameters.
#[derive(Debug, Clone)]
pub struct Example {
    pub name: String,
    /// With `$1`, `$2`…
    pub sql: String,
    /// One for each parameter, with commas between them.
    pub arguments: String,
}

/// All of them; the arguments fit the demo catalogue.
pub fn examples() -> Vec<Example> {
    let later = "now() + interval '1 day', 9::bigint, 21::bigint";
    let page = &format!("7::bigint, {later}");
    let slug = "'harbour-enamel-kettle'";
    let example = |name: &str, sql: &str, arguments: &str| Example {
        name: name.to_owned(),
        sql: sql.to_owned(),
        arguments: arguments.to_owned(),
    };
    let opening =
        "'192.0.2.1', 'somebody@example.org', 7::bigint, 'hash', sha256('a'), 60, sha256('b'), NULL, false";
    let placing = "sha256('token'), 'key', sha256('request'), ARRAY[5, 7]::bigint[], ARRAY[1, 2], NULL, NULL, \
                   1::smallint";
    let mut examples = vec![
        example("catalogue.version", catalogue::STATE, ""),
        example("categories.list", categories::LIST, ""),
        example("categories.names", categories::NAMES, ""),
        example("products.bands", products::BANDS, "'kitchen', '{2500,5000,10000}'::bigint[]"),
        example(
            "products.found_bands",
            products::FOUND_BANDS,
            "'''kettle'':*', '{2500,5000,10000}'::bigint[]",
        ),
        example("products.withdrawn", products::WITHDRAWN, slug),
        example("pictures.show", pictures::BY_NAME, "'u-00', 640, true"),
        example("pictures.exists", pictures::EXISTS, "'u-00'"),
        example("sitemap.part", sitemap::PART, "0::bigint, 10000::bigint"),
        example("sitemap.last", sitemap::LAST, ""),
        example("products.version", products::VERSION_BY_SLUG, slug),
        example("sessions.find", sessions::BY_TOKEN, "sha256('token')"),
        example("sessions.attempt", sessions::ATTEMPT, "'192.0.2.1', 'somebody@example.org', 10, 100"),
        example("sessions.open", sessions::OPEN, opening),
        example("account.forgotten", account::FORGOTTEN, "'somebody@example.org', sha256('a'), 60, 's', 'b'"),
        example("account.reset", account::RESET, "sha256('a'), 'hash'"),
        example("account.forget", account::FORGET, "7::bigint, 'hash'"),
        example("mails.due", mail::DUE, ""),
        example("office.products", office::PRODUCTS, later),
        example("office.orders", office::ORDERS, later),
        example("products.kept", administration::KEPT_BY_SLUG, slug),
        example("attempts.count", attempts::OF_CLIENT, "'192.0.2.1', 100"),
        example("products.lock", administration::LOCK_BY_SLUG, slug),
        example("orders.place", orders::PLACE, placing),
        example("idempotency.find", idempotency::BY_KEY, "5::bigint, 'key'"),
        example("orders.list", orders::LIST, page),
        example("orders.show", orders::BY_ID, "5::bigint, 7::bigint"),
        example("orders.lines", orders::LINES, "5::bigint"),
        example("orders.cancel", orders::CANCEL, "sha256('token'), 5::bigint, NULL"),
        example("activity.list", activity::BY_USER, page),
        example("outbox.due", outbox::DUE, "200::bigint"),
        example("products.stock", products::STOCK_BY_SLUG, slug),
        example("products.show", products::BY_SLUG, slug),
        example("products.suggest", suggestions::MATCHING, "'''kettle'':*'"),
        example("products.suggest_like", suggestions::LIKE, "'kettel'"),
    ];
    for (sort, rows) in Sort::ALL.into_iter().flat_map(|sort| products::ROWS.map(|rows| (sort, rows))) {
        for bits in 0..32 {
            let [category, search, after, prices, in_stock] = [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
            if (prices || in_stock) && !category && !search {
                continue;
            }
            let shape = ListShape { sort, category, search, prices, in_stock, after, rows };
            let mut arguments = Vec::new();
            arguments.extend(shape.category.then_some("'kitchen'"));
            arguments.extend(shape.search.then_some("'''copper'' & ''kettle'':*'"));
            arguments.extend(shape.prices.then_some("2500::bigint, 4999::bigint"));
            if shape.after {
                arguments.push(match sort {
                    Sort::Newest => "'2025-01-01T00:00:00Z'::timestamptz",
                    Sort::PriceAsc | Sort::PriceDesc => "9000::bigint",
                    Sort::Name => "'Linden'",
                });
                arguments.push("50::bigint");
            }
            examples.push(example(&format!("products.list {shape:?}"), &shape.sql(), &arguments.join(", ")));
        }
    }
    examples
}
