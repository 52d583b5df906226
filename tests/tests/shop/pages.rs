//! The pages that show the catalogue: what is in them before any script runs, what they say to machines, and how they look.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

use gatehouse_tests::{
    binaries::build_folder,
    browser::Browser,
    curl::Curl,
    edge::Edge,
    npm,
    origin::{self, Account},
    shop, wait,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const KETTLE: &str = "/product/harbour-enamel-kettle";
/// Everything that the front page brings before it is scrolled, as it comes over the wire.
const HOME_BYTES: u64 = 200_000;

#[test]
fn a_page_is_whole_before_any_script_runs_and_is_kept_at_the_edge() {
    let shop = shop::start();
    for (path, shown) in [
        ("/", ["Browse the shelves", "href=\"/category/kitchen\"", "href=\"/product/"]),
        ("/category/kitchen", ["<h1 id=\"title\">Kitchen</h1>", "href=\"/product/", "€"]),
        (KETTLE, ["<h1>Harbour Enamel Kettle</h1>", "€58.95", "Holds enough for six."]),
        ("/search?q=kettle", ["Results for “kettle”", "href=\"/product/", "€"]),
    ] {
        let page = shop.curl_h2(path).send();
        assert_eq!(page.status, 200, "{path}: {page:#?}");
        for text in shown {
            assert!(page.text().contains(text), "{path} lacks {text}:\n{}", page.text());
        }
        let stored = shop.until_hit_h2(path);
        assert_eq!(stored.all("cache-control"), ["no-cache"], "browsers ask each time");
        let condition = format!("If-None-Match: {}", stored.must("etag"));
        let known = shop.curl_h2(path).header(&condition).send();
        assert_eq!((known.status, known.is_hit()), (304, true), "{path}: {known:#?}");
    }
    let host = format!("https://localhost:{}", shop.tls().port());
    let product = shop.curl_h2(KETTLE).send().text();
    assert!(product.contains(&format!("<link rel=\"canonical\" href=\"{host}{KETTLE}\">")), "{product}");
    // Campaigns name their links: one page all the same.
    assert!(shop.curl_h2("/category/kitchen?utm_source=mail").send().is_hit());
}

#[test]
fn an_address_has_one_spelling_and_what_is_not_there_says_so() {
    let shop = shop::start();
    for (path, location) in [
        ("/category/Kitchen", "/category/kitchen"),
        ("/category/kitchen/", "/category/kitchen"),
        ("/product/Harbour-Enamel-Kettle", KETTLE),
        ("/category/kitchen?sort=newest", "/category/kitchen"),
        ("/index.html", "/"),
    ] {
        let moved = shop.curl(path).send();
        assert_eq!((moved.status, moved.must("location")), (301, location), "{path}");
    }
    // The edge asks in the order of the names, whatever order a form has sent them in.
    for query in ["stock=in&price=25-50&sort=price_asc", "price=25-50&sort=price_asc&stock=in"] {
        assert_eq!(shop.get(&format!("/category/kitchen?{query}")).status, 200, "{query}");
    }
    for path in
        ["/category/nothing", "/product/nothing-is-called-so", "/product/%3Cscript%3E", "/no/such/page"]
    {
        let missing = shop.get(path);
        assert_eq!(
            (missing.status, missing.must("content-type")),
            (404, "text/html; charset=utf-8"),
            "{path}"
        );
        assert!(missing.text().contains("There is no such page"), "{path}");
    }
    let administrator = Account::register(shop.clear(), "admin@example.org");
    origin::promote(shop.folder(), &administrator.email);
    let version = format!(
        "If-Match: {}",
        shop.get(&format!("/api{}", KETTLE.replace("product", "products"))).must("etag")
    );
    let gone = administrator
        .send(shop.clear(), "DELETE", "/api/products/harbour-enamel-kettle", &Value::Null)
        .header(&version)
        .send();
    assert_eq!(gone.status, 200, "{gone:#?}");
    wait::until("its page is gone", || (shop.get(KETTLE).status == 410).then_some(()));
}

#[test]
fn filters_stand_in_the_address_and_leave_what_they_have_counted() {
    let shop = shop::start();
    for (list, path, first, least) in [
        ("/category/kitchen", "/category/kitchen", "stock=in", 4),
        ("/search?q=kettle", "/search", "category=kitchen", 4),
    ] {
        let whole = shop.get(list).text();
        let filters: Vec<(String, u32)> = whole
            .split(&format!("<a href=\"{path}?"))
            .skip(1)
            .filter_map(|link| {
                let (query, rest) = link.split_once('"')?;
                let count = rest.split_once("<span class=\"quiet\">")?.1.split_once('<')?.0.parse().ok()?;
                Some((query.replace("&amp;", "&"), count))
            })
            .collect();
        assert!(filters.len() >= least && filters[0].0.starts_with(first), "{filters:?}");
        for (query, count) in filters {
            let mut found = 0;
            let mut next = Some(format!("{path}?{query}"));
            while let Some(address) = next {
                let page = shop.get(&address).text();
                let grid = page.split_once("<ul class=\"grid\">").map_or("", |(_, grid)| grid);
                found += u32::try_from(grid.matches("<li class=\"card").count()).unwrap();
                assert!(!query.contains("stock=in") || !grid.contains("Sold out"), "{address}");
                next = page
                    .split_once("\" rel=\"next\"")
                    .map(|(before, _)| before.rsplit_once("href=\"").unwrap().1.replace("&amp;", "&"));
            }
            assert_eq!(found, count, "{query}");
        }
    }
    let nothing = shop.get("/search?category=toys&q=kettle").text();
    assert!(nothing.contains("href=\"/search?q=kettle\">Show all"), "{nothing}");
}

#[test]
fn search_engines_find_every_page_once() {
    let shop = shop::start();
    let robots = shop.get("/robots.txt").text();
    let site = format!("http://{}", shop.clear());
    assert!(robots.contains(&format!("Sitemap: {site}/sitemap.xml")), "{robots}");
    let addresses = |path: &str| -> Vec<String> {
        let answer = shop.get(path);
        assert_eq!(
            (answer.status, answer.must("content-type")),
            (200, "application/xml; charset=utf-8"),
            "{path}"
        );
        let text = answer.text();
        let found = text.split("<loc>").skip(1).filter_map(|rest| rest.split_once("</loc>"));
        found.map(|(address, _)| address.strip_prefix(&site).unwrap_or(address).to_owned()).collect()
    };
    let parts = addresses("/sitemap.xml");
    let mut pages: Vec<String> = parts.iter().flat_map(|part| addresses(part)).collect();
    let listed = pages.len();
    pages.sort();
    pages.dedup();
    let categories = shop.get("/api/categories").json();
    let categories = categories["categories"].as_array().unwrap();
    let products: u64 = categories.iter().map(|each| each["product_count"].as_u64().unwrap()).sum();
    assert_eq!((listed, pages.len()), (usize::try_from(products).unwrap() + categories.len() + 1, listed));
    for path in pages.iter().step_by(97) {
        assert_eq!(shop.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_sale_of_the_last_piece_shows_at_once_and_the_stock_is_seconds_old() {
    let shop = shop::start();
    let slug = "harbour-enamel-kettle";
    let stock = format!("/api/products/{slug}/stock");
    assert!(shop.until_hit(KETTLE).text().contains("https://schema.org/InStock"));
    let left = shop.until_hit(&stock);
    assert_eq!(left.all("cache-control"), ["public, max-age=5"], "its own word, and no longer");
    let left = left.json()["stock"].as_i64().unwrap();
    let ada = Account::register(shop.clear(), "ada@example.org");
    let product = shop.get(&format!("/api/products/{slug}")).json()["id"].clone();
    let order = json!({ "lines": [{ "product_id": product, "quantity": left }] });
    let placed = ada.send(shop.clear(), "POST", "/api/orders", &order).header("Idempotency-Key: all").send();
    assert_eq!(placed.status, 201, "{placed:#?}");
    wait::until("the edge has heard of it", || (origin::untold(shop.folder()) == 0).then_some(()));
    // No older answer stands beside the stock; the page may be shown once more while it is made anew.
    let now = shop.get(&stock);
    assert_eq!((now.json()["stock"].as_i64(), now.is_hit()), (Some(0), false), "{now:#?}");
    wait::until("its page says so", || {
        shop.get(KETTLE).text().contains("https://schema.org/OutOfStock").then_some(())
    });
}

#[test]
fn pages_are_shown_while_the_origin_does_not_answer() {
    let shop = shop::start();
    let paths = ["/", "/category/kitchen", KETTLE, "/cart", "/account", "/orders"];
    for path in paths {
        let _ = shop.until_hit(path);
    }
    let origin = shop.running("origin").unwrap();
    signal(origin, Signal::STOP);
    // As after their ten minutes: none of them is fresh.
    let purge = Curl::clear(shop.admin(), "/purge").header("Content-Type: application/json");
    assert_eq!(purge.post("POST", r#"{"everything":true,"soft":true}"#).send().status, 200);
    for path in paths {
        let page = shop.get(path);
        assert_eq!((page.status, page.is_hit()), (200, true), "{path}: {page:#?}");
    }
    let browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let unknown = shop.curl("/category/garden").header(browser).send();
    assert!(unknown.status >= 502, "{unknown:#?}");
    assert_eq!(unknown.must("content-type"), "text/html; charset=utf-8");
    assert!(unknown.text().contains("<h1>50"), "{}", unknown.text());
    signal(origin, Signal::CONT);
    wait::until("it answers again", || (shop.get("/category/garden").status == 200).then_some(()));
}

#[test]
fn pages_are_light_still_and_usable_at_every_width() {
    let axe = std::fs::read_to_string(npm::packages("pages").join("axe-core/axe.min.js")).unwrap();
    let shop = shop::start();
    let pages = [
        ("home", "/"),
        ("category", "/category/kitchen?stock=in"),
        ("product", KETTLE),
        ("search", "/search?q=kettle"),
        ("cart", "/cart"),
    ];
    for width in [320, 384, 768, 1280] {
        for (name, path) in pages {
            let mut browser = Browser::start();
            browser.resize(width, 800);
            browser.open(&url(&shop, path));
            browser.wait_until("document.querySelector('#aisles a') !== null");
            browser.screenshot(&build_folder().join(format!("screenshots/{name}-{width}.png")));
            let bytes = browser.bytes_received();
            assert!(name != "home" || (bytes > 0 && bytes < HOME_BYTES), "at {width}: {bytes} bytes");
            let before_content = browser.evaluate(
                "performance.getEntriesByType('resource').filter((one) => one.renderBlockingStatus === 'blocking').map((one) => one.name)",
            );
            let before_content = before_content.as_array().unwrap();
            assert!(before_content.len() == 1, "{path}: the style alone is waited for: {before_content:?}");
            assert!(before_content[0].as_str().unwrap().ends_with(".css"), "{before_content:?}");
            assert_eq!(browser.evaluate(SHIFTS), json!([]), "{path} at {width}: nothing moves");
            // Less by the bar, where the browser shows one.
            let wide = browser.evaluate("document.documentElement.scrollWidth").as_u64().unwrap();
            assert!(wide <= u64::from(width), "{path} at {width}: nothing hangs out, {wide}");
            let columns = browser.evaluate(
                "[...(document.querySelector('.grid')?.children ?? [])].filter((card, _, all) => card.offsetTop === all[0].offsetTop).length",
            );
            assert!(name == "cart" || columns.as_u64().unwrap() >= 2, "{path} at {width}: {columns} columns");
            let violations = browser.evaluate(&format!(
                "(async () => {{ {axe}; const {{ violations }} = await axe.run(document, {{ resultTypes: ['violations'] }});
                 return violations.map(({{ id, nodes }}) => [id, nodes[0].html, nodes[0].failureSummary]) }})()"
            ));
            assert_eq!(violations, json!([]), "{path} at {width}");
            assert!(browser.complaints().is_empty(), "{path} at {width}: {:#?}", browser.complaints());
        }
    }
}

#[test]
fn nothing_moves_while_a_page_comes_in_pieces() {
    let shop = shop::start();
    let header = ["<form", "<nav", "</nav>", "<h1"];
    let card = ["<li class=\"card", "<p class=\"terms", "<button class=\"add"];
    let shelf = ["<label", "<select", "<option", "</form>", "<ul class=\"grid\""];
    let home = ["<p>", "<div class=\"hero-pictures\"", "<img", "<h2", "<ul class=\"tiles\"", "<li><a"];
    let product = ["<li", "<img", "<div class=\"about\"", "<p", "<h2"];
    for (path, marks) in [
        ("/category/kitchen?stock=in", [&header[..], &shelf, &card].concat()),
        ("/search?q=kettle", [&header[..], &shelf, &card].concat()),
        ("/", [&header[..], &home].concat()),
        (KETTLE, [&header[..], &product].concat()),
    ] {
        let page = shop.curl_h2(path).send().text();
        // What the page needs is the shop's own; its scripts would be another host's, and none is needed for this.
        let base = format!("<head><base href=\"{}\">", url(&shop, "/"));
        let page = page.replacen("<head>", &base, 1).replace("type=\"module\"", "type=\"off\"");
        for width in [320, 384, 768, 1280] {
            let mut browser = Browser::start();
            browser.resize(width, 800);
            browser.open(&in_pieces(&page, &marks));
            assert_eq!(browser.evaluate(SHIFTS), json!([]), "{path} at {width}");
        }
    }
}

#[test]
fn the_shelves_can_be_walked_without_scripts_and_grow_with_them() {
    let shop = shop::start();
    let mut browser = Browser::start();
    browser.open(&url(&shop, "/category/kitchen?stock=in"));
    let cards = "document.querySelectorAll('.grid .card').length";
    let first = browser.evaluate(cards).as_u64().unwrap();
    browser.wait_until("document.querySelector('.rest a') !== null");
    browser.click(".rest a");
    browser.wait_until(&format!("{cards} > {first}"));
    browser.click(&format!(".grid .card:nth-child({}) .add", first + 1));
    browser.wait_until("document.querySelector('#pieces span').textContent === '1'");
    browser.evaluate("(() => { const sort = document.querySelector('#sort'); sort.value = 'price_asc'; sort.dispatchEvent(new Event('change', { bubbles: true })) })()");
    // To its end: else its loading would be taken for the next page's.
    browser.wait_until("location.search.includes('sort=price_asc') && location.search.includes('stock=in') && document.readyState === 'complete'");
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    // From here on the browser complains of each script that it may not run.
    browser.allow_scripts(false);
    browser.open(&url(&shop, "/category/kitchen"));
    browser.allow_scripts(true);
    assert!(browser.evaluate(cards).as_u64().unwrap() >= first, "the shelf is there as it came");
    browser.screenshot(&build_folder().join("screenshots/without-scripts.png"));
}

/// What has moved without anybody's doing, in the browser's own account. Fractions of a pixel, which it rounds in another way when
/// it lays out again, are no movement.
const SHIFTS: &str = "new Promise((told) => {
    const shifts = [];
    const watch = (list) => shifts.push(...list.getEntries().map((one) => [one.value, ...one.sources.map(({ node }) => node?.outerHTML?.slice(0, 200))]));
    new PerformanceObserver(watch).observe({ type: 'layout-shift', buffered: true });
    requestAnimationFrame(() => setTimeout(() => told(shifts.filter(([value]) => value >= 0.0005)), 50));
})";

/// Where one browser gets this page, with time to paint it before each of these marks, the first times that each comes.
fn in_pieces(page: &str, marks: &[&str]) -> String {
    assert!(marks.iter().all(|mark| page.contains(mark)), "{marks:?} in {page}");
    let mut cuts: Vec<_> =
        marks.iter().flat_map(|mark| page.match_indices(mark).take(8)).map(|(place, _)| place).collect();
    cuts.sort_unstable();
    cuts.insert(0, 0);
    cuts.push(page.len());
    let pieces: Vec<_> = cuts.windows(2).map(|ends| page[ends[0]..ends[1]].to_owned()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut browser, _) = listener.accept().unwrap();
        let mut head = [0; 16 << 10];
        assert!(browser.read(&mut head).unwrap() > 0, "a request");
        browser
            .write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        for piece in pieces {
            browser.write_all(piece.as_bytes()).unwrap();
            wait::pass(Duration::from_millis(100));
        }
    });
    format!("http://{address}/")
}

fn signal(id: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn url(shop: &Edge, path: &str) -> String {
    format!("https://localhost:{}{path}", shop.tls().port())
}
