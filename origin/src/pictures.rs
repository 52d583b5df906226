//! Pictures that administrators put in: JPEG, PNG or WebP, checked, turned upright, cut to a square, and kept as WebP in the three
//! sizes that pages offer, and as AVIF where that is smaller. Nothing of the file but its colours stays: no place, no camera, no
//! thumbnail.
//!
//! A picture is named by the hash of what was sent, never changes, and is kept for as long as the database. Converting takes a core
//! for a second or two, so it is done beside the threads that answer requests, one picture at a time; a few may wait, and more are
//! told to come back.

use std::{io::Cursor, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Path, Request, State, rejection::PathRejection},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use image::{
    DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage, imageops::FilterType,
};
use rgb::AsPixels as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::{
    activity_log::Event,
    caching::{SURROGATE_KEY, Tag},
    database::Connection,
    problem::Problem,
    sessions,
    shop::Shop,
};

/// What is sent, at most.
const LARGEST: usize = 10 << 20;
/// A side of what is sent, in pixels: at least a third of the largest size, so that nothing is blown up to a blur.
const SIDES: std::ops::RangeInclusive<u32> = 200..=8_192;
/// Of a decoded picture; some 36 megapixels. Checked before anything is decoded.
const MOST_DECODED: u64 = 144 << 20;
/// The widths that are kept. The storefront's `srcset` names the same.
const WIDTHS: [u32; 3] = [640, 320, 160];
/// Of WebP, and of the AVIF that comes as near to the picture (docs/decisions/0015).
const QUALITY: f32 = 80.0;
const AVIF_QUALITY: f32 = 75.0;
/// Of the AVIF's encoder, from 1 to 10: half the work of 8, for two or three per cent more octets.
const AVIF_SPEED: u8 = 9;

/// Where pictures are put in.
pub(crate) const PATH: &str = "/api/pictures";
/// For a picture to arrive and be converted: ten megabytes take their time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

static CONVERTING: Semaphore = Semaphore::const_new(1);
/// Those that wait, and the one that is converted: each holds what was sent.
static PLACES: Semaphore = Semaphore::const_new(4);

const INSERT: &str = "
    INSERT INTO pictures (stem, width, body, avif)
    SELECT $1, * FROM unnest($2::integer[], $3::bytea[], $4::bytea[])
    ON CONFLICT (stem, width) DO UPDATE SET avif = EXCLUDED.avif WHERE pictures.avif IS NULL";

/// As AVIF where there is one and it may be (`$3`); and whether it is.
pub(crate) const BY_NAME: &str = "
    SELECT CASE WHEN $3 AND avif IS NOT NULL THEN avif ELSE body END, $3 AND avif IS NOT NULL
    FROM pictures WHERE stem = $1 AND width = $2";
pub(crate) const EXISTS: &str = "SELECT width FROM pictures WHERE stem = $1 AND width = 640";

/// A picture of one width.
#[derive(Debug)]
struct Converted {
    width: i32,
    webp: Vec<u8>,
    /// Where it is smaller.
    avif: Option<Vec<u8>>,
}

/// A picture that has been put in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Kept {
    /// What a product's `image` names it by.
    image: String,
    /// Where it is, in its largest size.
    address: String,
}

/// `POST /api/pictures`: keeps a picture for products.
#[utoipa::path(
    post,
    path = "/pictures",
    operation_id = "put_picture",
    tag = "administration",
    security(("session" = [], "requested_with" = [])),
    request_body(content(("image/jpeg"), ("image/png"), ("image/webp"))),
    responses((status = 201, description = "Created", body = Kept))
)]
pub(crate) async fn put(State(shop): State<Shop>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    // Who may not is refused before anything is read.
    let mut connection = shop.database.acquire().await?;
    let administrator = sessions::administrator(&mut connection, &head.headers).await?;
    drop(connection);
    let place = PLACES.try_acquire().map_err(|_| Problem::overloaded())?;
    let sent = read(body).await?;
    let stem = stem_of(&sent);
    let turn = CONVERTING.acquire().await.map_err(|_| Problem::internal())?;
    let conversion = tokio::task::spawn_blocking(move || {
        // Held until it is done, also where nobody waits for it any more.
        let _bounds = (place, turn);
        convert(&sent)
    });
    let converted = conversion.await.map_err(|_| Problem::internal())??;
    let (mut widths, mut webps, mut avifs) = (Vec::new(), Vec::new(), Vec::new());
    for Converted { width, webp, avif } in converted {
        widths.push(width);
        webps.push(webp);
        avifs.push(avif);
    }
    let mut connection = shop.database.acquire().await?;
    let query = sqlx::query(INSERT).bind(stem.clone()).bind(widths).bind(webps).bind(avifs);
    connection.execute("pictures.insert", query).await?;
    shop.activity.record(Event::new("picture.put").by(administrator.id).about(&stem));
    let address = address(&stem);
    let location = [(header::LOCATION, address.clone())];
    Ok((StatusCode::CREATED, location, axum::Json(Kept { image: stem, address })).into_response())
}

/// `GET /pictures/{stem}.{width}.webp`: as WebP, or as AVIF where there is one and the client names it.
pub(crate) async fn show(
    State(shop): State<Shop>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = name.map_err(|_| none())?.0;
    let (stem, width) = name.strip_suffix(".webp").and_then(|name| name.split_once('.')).ok_or_else(none)?;
    let width: i32 = width.parse().map_err(|_| none())?;
    let mut connection = shop.reads.acquire(&headers).await?;
    let query = sqlx::query_as::<_, (Vec<u8>, bool)>(BY_NAME);
    let query = query.bind(stem.to_owned()).bind(width).bind(takes_avif(&headers));
    let (body, is_avif) = connection.optional("pictures.show", query).await?.ok_or_else(none)?;
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static(if is_avif { "image/avif" } else { "image/webp" })),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::VARY, HeaderValue::from_static("Accept")),
    ];
    Ok((fields, [(SURROGATE_KEY, Tag::Storefront.to_string())], body).into_response())
}

/// Whether the client names AVIF among what it takes (RFC 9110 §12.5.1): all browsers that can show it do. `image/*` is no such word.
fn takes_avif(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_avif = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("image/avif"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_avif && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0))
    })
}

/// Where a picture that was put in is, in its largest size.
pub(crate) fn address(stem: &str) -> String {
    format!("/pictures/{stem}.{}.webp", WIDTHS[0])
}

/// Whether this names a picture that could have been put in.
pub(crate) fn is_stem(text: &str) -> bool {
    text.strip_prefix("u-").is_some_and(|hash| {
        hash.len() == 20 && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Refuses a product's picture that nobody has put in.
pub(crate) async fn check(connection: &mut Connection, stem: Option<&str>) -> Result<(), Problem> {
    let Some(stem) = stem.filter(|stem| is_stem(stem)) else { return Ok(()) };
    let query = sqlx::query_as::<_, (i32,)>(EXISTS).bind(stem.to_owned());
    let found = connection.optional("pictures.exists", query).await?;
    let message = "a picture that has been put in: `POST /api/pictures`";
    found.map(drop).ok_or_else(|| Problem::invalid_field("image", message))
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    to_bytes(body, LARGEST).await.map_err(|_| Problem::body_too_large().detail("10 MB at most"))
}

fn stem_of(sent: &[u8]) -> String {
    let hash: String = Sha256::digest(sent).iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    format!("u-{hash}")
}

/// The picture in each width. Takes a second or two of a core.
fn convert(sent: &[u8]) -> Result<Vec<Converted>, Problem> {
    // The smaller ones are made of the largest: a picture of a camera is walked over once.
    let square = square(sent)?.resize_exact(WIDTHS[0], WIDTHS[0], FilterType::Lanczos3);
    let each = WIDTHS.into_iter().map(|width| {
        let picture = square.resize_exact(width, width, FilterType::Lanczos3).into_rgb8();
        let webp = webp::Encoder::from_rgb(&picture, width, width).encode(QUALITY).to_vec();
        let avif = as_avif(&picture).filter(|avif| avif.len() < webp.len());
        Ok(Converted { width: i32::try_from(width).map_err(|_| Problem::internal())?, webp, avif })
    });
    each.collect()
}

/// Drawings are larger as AVIF, photographs smaller. Without one there is the WebP.
fn as_avif(picture: &RgbImage) -> Option<Vec<u8>> {
    let (width, height) = picture.dimensions();
    let pixels = imgref::Img::new(
        picture.as_raw().as_pixels(),
        usize::try_from(width).ok()?,
        usize::try_from(height).ok()?,
    );
    let encoder = ravif::Encoder::new().with_quality(AVIF_QUALITY).with_speed(AVIF_SPEED);
    let encoder = encoder.with_bit_depth(ravif::BitDepth::Eight).with_num_threads(Some(1));
    let coded = encoder.encode_rgb(pixels);
    coded
        .inspect_err(|error| tracing::warn!(%error, "a picture is kept without its AVIF"))
        .ok()
        .map(|coded| coded.avif_file)
}

/// The middle of the picture, upright, on white.
fn square(sent: &[u8]) -> Result<DynamicImage, Problem> {
    let kind = image::guess_format(sent).ok();
    let kind = kind.filter(|kind| matches!(kind, ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP));
    let kind =
        kind.ok_or_else(|| Problem::unsupported_media_type().detail("a picture is a JPEG, a PNG or a WebP"))?;
    let mut reader = ImageReader::with_format(Cursor::new(sent), kind);
    let mut limits = Limits::default();
    limits.max_image_width = Some(*SIDES.end());
    limits.max_image_height = Some(*SIDES.end());
    limits.max_alloc = Some(2 * MOST_DECODED);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| unusable(&error))?;
    let (width, height) = decoder.dimensions();
    if !SIDES.contains(&width) || !SIDES.contains(&height) || decoder.total_bytes() > MOST_DECODED {
        let (least, most) = (SIDES.start(), SIDES.end());
        return Err(refused(format!("from {least} to {most} pixels a side, and 36 megapixels at most")));
    }
    // As the camera was held: the note of it goes with all others.
    let orientation = decoder.orientation().map_err(|error| unusable(&error))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| unusable(&error))?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    let side = width.min(height);
    let middle = picture.crop_imm((width - side) / 2, (height - side) / 2, side, side);
    Ok(on_white(middle))
}

fn on_white(picture: DynamicImage) -> DynamicImage {
    if !picture.color().has_alpha() {
        return picture;
    }
    let mut white = image::RgbaImage::from_pixel(picture.width(), picture.height(), image::Rgba([255; 4]));
    image::imageops::overlay(&mut white, &picture.into_rgba8(), 0, 0);
    DynamicImage::ImageRgba8(white)
}

fn unusable(error: &image::ImageError) -> Problem {
    refused(format!("a whole picture: {error}"))
}

fn refused(message: String) -> Problem {
    Problem::invalid_field("body", message)
}

fn none() -> Problem {
    Problem::not_found("no such picture")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In this kind, half red and half blue from left to right.
    fn picture(width: u32, height: u32, kind: ImageFormat) -> Vec<u8> {
        let colour = |x, _| if x < width / 2 { image::Rgb([200, 0, 0]) } else { image::Rgb([0, 0, 200]) };
        let mut bytes = Vec::new();
        image::RgbImage::from_fn(width, height, colour)
            .write_to(&mut Cursor::new(&mut bytes), kind)
            .expect("it can be encoded");
        bytes
    }

    fn read(bytes: &[u8]) -> image::RgbImage {
        image::load_from_memory_with_format(bytes, ImageFormat::WebP).expect("a WebP").into_rgb8()
    }

    #[test]
    fn a_picture_is_kept_as_a_square_in_three_sizes() {
        for kind in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let kept = convert(&picture(900, 600, kind)).expect("it is a picture");
            let widths: Vec<i32> = kept.iter().map(|kept| kept.width).collect();
            assert_eq!(widths, [640, 320, 160], "{kind:?}");
            for Converted { width, webp, .. } in kept {
                let kept = read(&webp);
                assert_eq!((kept.width(), kept.height()), (width.unsigned_abs(), width.unsigned_abs()));
                let [left, right] = [width / 8, width * 7 / 8].map(|x| *kept.get_pixel(x.unsigned_abs(), 9));
                assert!(left[0] > 150 && left[2] < 50 && right[2] > 150, "{kind:?}: {left:?} {right:?}");
            }
        }
    }

    /// Right behind the beginning of a JPEG: EXIF that says "turned by 90 degrees", and a secret.
    fn with_exif(jpeg: &[u8]) -> Vec<u8> {
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
        exif.extend_from_slice(b"SECRET PLACE");
        let length = u16::try_from(exif.len() + 2).expect("it is short").to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn a_picture_is_turned_upright_and_what_it_tells_beside_is_left_out() {
        let sent = with_exif(&picture(600, 600, ImageFormat::Jpeg));
        for Converted { width, webp, avif } in convert(&sent).expect("it is a picture") {
            let told = [&webp[..], avif.as_deref().unwrap_or_default()].concat();
            assert!(!told.windows(6).any(|part| part == b"SECRET"), "{width}");
            let kept = read(&webp);
            let middle = kept.width() / 2;
            let [top, bottom] = [9, kept.height() - 9].map(|y| *kept.get_pixel(middle, y));
            assert!(top[0] > 150 && bottom[2] > 150, "the left side is the upper one: {top:?} {bottom:?}");
        }
    }

    /// Light that comes from one side, and the grain of a film: what photographs have and drawings lack.
    fn photograph(side: u32) -> Vec<u8> {
        let mut grain = 1_u32;
        let mut shade = |x: u32, y: u32| {
            grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let wave = 60.0 * (f64::from(x) / 37.0).sin() * (f64::from(y) / 23.0).cos();
            let light = 120.0 + wave + f64::from(grain >> 28);
            [light, light * 0.8, light * 0.6].map(|light| light as u8)
        };
        let mut bytes = Vec::new();
        RgbImage::from_fn(side, side, |x, y| image::Rgb(shade(x, y)))
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
            .expect("it can be encoded");
        bytes
    }

    #[test]
    fn a_picture_is_kept_as_avif_too_where_that_is_smaller() {
        for Converted { width, webp, avif } in convert(&photograph(700)).expect("it is a picture") {
            let avif = avif.unwrap_or_else(|| panic!("{width}: {} octets as WebP", webp.len()));
            assert!(avif.len() < webp.len() && avif[4..12] == *b"ftypavif", "{width}");
        }
        // Two colours: the head of an AVIF alone is larger than the WebP.
        let plain = picture(640, 640, ImageFormat::Png);
        let smallest = square(&plain).expect("it is a picture").resize_exact(160, 160, FilterType::Lanczos3);
        let converted = convert(&plain).expect("it is a picture");
        let Some(Converted { webp, avif: None, width: 160 }) = converted.last() else {
            panic!("it is kept: {:?}", converted.last())
        };
        assert!(as_avif(&smallest.into_rgb8()).is_some_and(|avif| avif.len() >= webp.len()));
    }

    #[test]
    fn avif_is_for_those_who_name_it() {
        let takes = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (header::ACCEPT, HeaderValue::from_static(line)));
            takes_avif(&HeaderMap::from_iter(lines))
        };
        assert!(takes(&["image/avif,image/webp,image/apng,*/*;q=0.8"]));
        assert!(takes(&["image/webp", "text/html, Image/AVIF ; q=0.5"]));
        for line in ["*/*", "image/*", "image/avif;q=0", "image/avif; q=0.000", "image/avif-sequence", ""] {
            assert!(!takes(&[line]), "{line}");
        }
        assert!(!takes(&[]));
    }

    #[test]
    fn what_is_no_picture_or_too_much_of_one_is_refused_before_it_is_decoded() {
        let status = |sent: &[u8]| convert(sent).expect_err("refused").status().as_u16();
        assert_eq!(status(b"GIF89a......"), 415);
        assert_eq!(status(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415);
        assert_eq!(status(b""), 415);
        assert_eq!(status(&picture(199, 600, ImageFormat::Png)), 422);
        let whole = picture(600, 600, ImageFormat::Png);
        assert_eq!(status(&whole[..whole.len() / 2]), 422);
        // A head that promises 60,000 by 60,000: eleven gigabytes.
        let mut bomb = whole;
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        assert_eq!(status(&bomb), 422);
    }

    #[test]
    fn stems_are_hashes() {
        assert!(is_stem(&stem_of(b"a picture")));
        for other in
            ["kettle-1", "u-", "u-0123456789abcdef012", "u-0123456789abcdef0123f", "u-0123456789ABCDEF0123"]
        {
            assert!(!is_stem(other), "{other}");
        }
    }
}
