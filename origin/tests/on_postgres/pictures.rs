//! Pictures, from an administrator's file to a product's page.

use std::io::Cursor;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::json as value;

use crate::{
    requests::{Customer, get, send},
    test_server::TestServer,
};

const KETTLE: &str = "/api/products/harbour-enamel-kettle";

#[tokio::test]
async fn an_administrator_puts_in_a_picture_and_a_product_shows_it() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let administrator = Customer::administrator(&server, &router).await;
    let customer = Customer::register(&router, "ada@example.org").await;
    let put = async |who: Option<&Customer>, sent: &[u8]| {
        let mut request = Request::post("/api/pictures").header("x-requested-with", "test");
        if let Some(who) = who {
            request = request.header("cookie", &who.cookie);
        }
        send(&router, request.body(Body::from(sent.to_vec())).expect("a request")).await
    };
    let sent = jpeg();
    assert_eq!(put(None, &sent).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(put(Some(&customer), &sent).await.status, StatusCode::FORBIDDEN);
    assert_eq!(put(Some(&administrator), b"GIF89a").await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let large = vec![0; (10 << 20) + 1];
    assert_eq!(put(Some(&administrator), &large).await.status, StatusCode::PAYLOAD_TOO_LARGE);

    let kept = put(Some(&administrator), &sent).await;
    assert_eq!(kept.status, StatusCode::CREATED, "{kept:?}");
    let again = put(Some(&administrator), &sent).await;
    assert_eq!((again.status, again.json()), (StatusCode::CREATED, kept.json()), "the same is kept once");
    let (stem, address) = (kept.json()["image"].clone(), kept.header("location").to_owned());
    for width in [160, 320, 640] {
        let picture = get(&router, &address.replace(".640.", &format!(".{width}."))).await;
        assert_eq!((picture.status, picture.header("content-type")), (StatusCode::OK, "image/webp"));
        assert_eq!(picture.header("cache-control"), "public, max-age=31536000, immutable");
        assert!(picture.body.starts_with(b"RIFF") && picture.body.len() < 40_000, "{width}");
    }
    for nothing in
        ["/pictures/u-00000000000000000000.640.webp", "/pictures/x", &address.replace(".640.", ".641.")]
    {
        assert_eq!(get(&router, nothing).await.status, StatusCode::NOT_FOUND, "{nothing}");
    }

    let version = get(&router, KETTLE).await.header("etag").to_owned();
    let condition = [("if-match", version.as_str())];
    let unknown = value!({ "image": "u-00000000000000000000" });
    let refused = administrator.send(Method::PATCH, KETTLE, &condition, &unknown).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let changed = administrator.send(Method::PATCH, KETTLE, &condition, &value!({ "image": stem })).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_eq!(get(&router, KETTLE).await.json()["image"], address);
    let page = get(&router, "/product/harbour-enamel-kettle").await;
    let page = String::from_utf8(page.body).expect("a page is text");
    let small = address.replace(".640.", ".160.");
    assert!(page.contains(&format!("src=\"{address}\" srcset=\"{small} 160w, ")), "{page}");
}

/// Who names AVIF gets it where it is smaller, others the WebP.
#[tokio::test]
async fn a_photograph_is_shown_in_the_smallest_form_that_the_client_takes() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let administrator = Customer::administrator(&server, &router).await;
    let mut grained = image::load_from_memory(&jpeg()).expect("a picture").into_rgb8();
    for (number, pixel) in grained.pixels_mut().enumerate() {
        let grain = (number.wrapping_mul(2_654_435_761) >> 16) as u8 & 15;
        pixel.0.iter_mut().for_each(|shade| *shade = shade.saturating_add(grain));
    }
    let mut sent = Cursor::new(Vec::new());
    grained.write_to(&mut sent, image::ImageFormat::Png).expect("it can be encoded");
    let sent = sent.into_inner();
    let put = async || {
        let request = Request::post("/api/pictures")
            .header("x-requested-with", "test")
            .header("cookie", &administrator.cookie)
            .body(Body::from(sent.clone()));
        send(&router, request.expect("a request")).await
    };
    let kept = put().await;
    assert_eq!(kept.status, StatusCode::CREATED, "{kept:?}");
    let address = kept.header("location").to_owned();
    let shown = async |accept: &str| {
        let request = Request::get(&address).header("accept", accept).body(Body::empty());
        let shown = send(&router, request.expect("a request")).await;
        assert_eq!((shown.status, shown.header("vary")), (StatusCode::OK, "Accept"), "{shown:?}");
        (shown.header("content-type").to_owned(), shown.body)
    };
    let browser = "image/avif,image/webp,*/*;q=0.8";
    let (avif, webp) = (shown(browser).await, shown("image/webp,*/*").await);
    assert_eq!((&*avif.0, &*webp.0), ("image/avif", "image/webp"));
    assert!(avif.1.len() < webp.1.len(), "{} {}", avif.1.len(), webp.1.len());
    // One from before has none; putting it in once more is what helps.
    let mut connection = server.connect().await;
    sqlx::query("UPDATE pictures SET avif = NULL").execute(&mut connection).await.expect("an update");
    assert_eq!(shown(browser).await, webp);
    assert_eq!(put().await.status, StatusCode::CREATED);
    assert_eq!(shown(browser).await, avif);
}

fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    image::RgbImage::from_fn(800, 500, |x, y| image::Rgb([(x / 4) as u8, (y / 2) as u8, 90]))
        .write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Jpeg)
        .expect("it can be encoded");
    bytes
}
