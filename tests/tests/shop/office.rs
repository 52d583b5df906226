//! What the shop's own people do in a browser: pictures of products, from a file to the product's page.

use std::path::{Path, PathBuf};

use gatehouse_tests::{
    binaries::build_folder,
    browser::Browser,
    edge::Edge,
    npm,
    origin::{self, Account, PASSWORD},
    shop, wait,
};
use image::{ImageFormat, RgbImage};
use serde_json::json;

const SLUG: &str = "harbour-enamel-kettle";
const LARGEST: u64 = 10 << 20;

#[test]
fn an_administrator_puts_in_pictures_of_every_kind_up_to_ten_megabytes() {
    let shop = shop::start();
    let administrator = Account::register(shop.clear(), "admin@example.org");
    origin::promote(shop.folder(), &administrator.email);
    let browser = &mut Browser::start();
    sign_in(browser, &shop, &administrator.email);
    browser.open(&url(&shop, "/account"));
    browser.wait_until("document.querySelector('#account a[href=\"/office\"]') !== null");
    browser.follow("#account a[href='/office']");
    browser.wait_until("document.querySelectorAll('#kept option').length > 50");

    let large = picture(shop.folder(), "large.png", 1_840);
    let bytes = large.metadata().unwrap().len();
    assert!((9 << 20..=LARGEST).contains(&bytes), "nearly as much as may be: {bytes}");
    let files = [picture(shop.folder(), "a.jpg", 640), large, picture(shop.folder(), "a.webp", 640)];
    let mut shown = Vec::new();
    for file in files {
        browser.fill("[name=product]", SLUG);
        browser.choose("[name=picture]", &file);
        browser.wait_until("!document.querySelector('.preview').hidden");
        // Of the canvas: that something of many colours was drawn.
        let colours = "new Set(document.querySelector('.preview').getContext('2d').getImageData(0, 0, 320, 320).data).size";
        assert!(browser.evaluate(colours).as_u64().unwrap() > 50, "{file:?}");
        browser.screenshot(&build_folder().join("screenshots/office.png"));
        browser.evaluate(
            "(() => {
                window.seen = new Set();
                new MutationObserver(() => seen.add(document.querySelector('[role=status]').textContent))
                    .observe(document.querySelector('#office'), { subtree: true, childList: true });
            })()",
        );
        browser.click("#office .button");
        browser
            .wait_until("document.querySelector('.done p')?.textContent.includes('is the picture') === true");
        let states = browser.evaluate("[...seen]");
        for state in ["The picture is being sent.", "It is there, and being converted."] {
            assert!(states.as_array().unwrap().contains(&state.into()), "{states}");
        }
        browser.wait_until("document.querySelector('.done img').naturalWidth === 640");
        let address = browser.evaluate("document.querySelector('.done img').getAttribute('src')");
        let address = address.as_str().unwrap().to_owned();
        wait::until("the product's page shows it", || {
            shop.get(&format!("/product/{SLUG}")).text().contains(&address).then_some(())
        });
        shown.push(address);
    }
    shown.sort();
    shown.dedup();
    assert_eq!(shown.len(), 3);
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

#[test]
fn what_is_wrong_with_a_picture_is_told_where_it_is_wrong() {
    let shop = shop::start();
    let administrator = Account::register(shop.clear(), "admin@example.org");
    origin::promote(shop.folder(), &administrator.email);
    let browser = &mut Browser::start();
    sign_in(browser, &shop, &administrator.email);
    browser.open(&url(&shop, &format!("/office#{SLUG}")));
    browser.wait_until("document.querySelector('[name=product]') !== null");
    assert_eq!(browser.evaluate("document.querySelector('[name=product]').value"), SLUG);
    browser.click("#office .button");
    told(browser, "picture", "Please fill this in.");

    let good = picture(shop.folder(), "good.jpg", 300);
    let write = |name: &str, bytes: &[u8]| {
        let path = shop.folder().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = std::fs::read(&good).unwrap();
    let too_large = write("large.jpg", &[&whole[..], &vec![0; LARGEST as usize]].concat());
    for (file, words) in [
        (write("a.gif", b"GIF89a......"), "Please choose a JPEG, a PNG or a WebP."),
        (too_large, "Please choose a picture of 10 MB at most."),
        (write("torn.png", b"\x89PNG\r\n\x1a\n"), "This is not a whole picture."),
        (
            picture(shop.folder(), "small.png", 120),
            "Please choose one from 200 to 8192 pixels a side: this one has 120 by 120.",
        ),
    ] {
        browser.choose("[name=picture]", &file);
        told(browser, "picture", words);
        assert_eq!(browser.evaluate("document.querySelector('.preview').hidden"), true, "{file:?}");
    }
    let before = browser.loaded().len();
    browser.click("#office .button");
    told(browser, "picture", "Please choose one from 200");
    assert!(
        browser.loaded()[before..].iter().all(|one| !one.url.ends_with("/api/pictures")),
        "it is not even sent"
    );

    // What the shop alone can see. A browser counts a refusal as a complaint, so nothing is asked of those here.
    browser.choose("[name=picture]", &good);
    browser.fill("[name=product]", "nothing-is-called-so");
    browser.click("#office .button");
    told(browser, "product", "There is no such product.");
    // Chromium draws what is there of a picture that is broken off.
    let half = picture(shop.folder(), "half.jpg", 900);
    let bytes = std::fs::read(&half).unwrap();
    let half = write("half.webp", &bytes[..bytes.len() / 2]);
    browser.fill("[name=product]", SLUG);
    browser.choose("[name=picture]", &half);
    browser.click("#office .button");
    browser.wait_until("document.querySelector('[name=picture]').getAttribute('aria-invalid') === 'true'");
    // Somebody else's session by now.
    browser.evaluate("fetch('/api/session', { method: 'DELETE', headers: { 'X-Requested-With': 'test' } })");
    browser.choose("[name=picture]", &good);
    browser.click("#office .button");
    browser.wait_until("document.querySelector('#office .told').textContent.length > 0");
}

#[test]
fn the_office_is_for_the_shops_own_people_and_usable_by_all_of_them() {
    let axe = std::fs::read_to_string(npm::packages("pages").join("axe-core/axe.min.js")).unwrap();
    let shop = shop::start();
    let browser = &mut Browser::start();
    browser.open(&url(&shop, "/office"));
    browser.wait_until(
        "document.querySelector('#office .notice a')?.getAttribute('href') === '/account?next=%2Foffice'",
    );
    let customer = Account::register(shop.clear(), "ada@example.org");
    sign_in(browser, &shop, &customer.email);
    browser.open(&url(&shop, "/office"));
    browser.wait_until("document.querySelector('#office .notice a')?.getAttribute('href') === '/'");
    let administrator = Account::register(shop.clear(), "admin@example.org");
    origin::promote(shop.folder(), &administrator.email);
    sign_in(browser, &shop, &administrator.email);
    let file = picture(shop.folder(), "a.png", 400);
    for width in [320, 768, 1280] {
        browser.resize(width, 800);
        browser.open(&url(&shop, "/office"));
        browser.wait_until("document.querySelectorAll('#kept option').length > 50");
        browser.fill("[name=product]", SLUG);
        browser.choose("[name=picture]", &file);
        browser.wait_until("!document.querySelector('.preview').hidden");
        browser.screenshot(&build_folder().join(format!("screenshots/office-{width}.png")));
        let wide = browser.evaluate("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= u64::from(width), "at {width}: nothing hangs out, {wide}");
        let violations = browser.evaluate(&format!(
            "(async () => {{ {axe}; const {{ violations }} = await axe.run(document, {{ resultTypes: ['violations'] }});
             return violations.map(({{ id, nodes }}) => [id, nodes[0].html, nodes[0].failureSummary]) }})()"
        ));
        assert_eq!(violations, json!([]), "at {width}");
    }
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

/// A square of noise, which no format makes much smaller, in the format that its name ends in.
fn picture(folder: &Path, name: &str, side: u32) -> PathBuf {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let noise = RgbImage::from_fn(side, side, |_, _| image::Rgb([next(), next(), next()]));
    let path = folder.join(name);
    let format = ImageFormat::from_path(&path).unwrap();
    noise.save_with_format(&path, format).unwrap();
    path
}

#[track_caller]
fn told(browser: &mut Browser, field: &str, words: &str) {
    browser.wait_until(&format!(
        "document.querySelector('.field:has([name={field}]) .wrong').textContent.startsWith({})",
        json!(words)
    ));
    assert_eq!(
        browser.evaluate(&format!("document.querySelector('[name={field}]').getAttribute('aria-invalid')")),
        "true"
    );
}

#[track_caller]
fn sign_in(browser: &mut Browser, shop: &Edge, email: &str) {
    browser.open(&url(shop, "/cart"));
    let signing_in = json!({ "email": email, "password": PASSWORD }).to_string();
    let status = browser.evaluate(&format!(
        "fetch('/api/session', {{ method: 'POST', headers: {{ 'Content-Type': 'application/json', 'X-Requested-With': 'test' }}, \
         body: {} }}).then((answer) => answer.status)",
        json!(signing_in)
    ));
    assert_eq!(status, 200);
}

fn url(shop: &Edge, path: &str) -> String {
    format!("https://localhost:{}{path}", shop.tls().port())
}
