//! Preconditions, ranges and codings of what is stored (RFC 9110 §13, §14, §12.5.3).

use std::io::Read as _;

use crate::script::{Got, Origin, Reply, answer, front};

const TEXT: &str = "gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse \
                    gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse \
                    gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse.";
const PAGE: &[(&str, &str)] =
    &[("cache-control", "max-age=60"), ("content-type", "text/plain"), ("etag", "\"v1\"")];

fn gunzip(got: &Got) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&got.body.as_ref().unwrap()[..]).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(start_paused = true)]
async fn a_matching_tag_is_a_304_without_content() {
    let front = front(&Origin::saying(PAGE, TEXT));
    front.get("/").await;
    let got = front.get_with("/", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!(
        (got.status, got.text(), got.field("etag"), got.field("content-type")),
        (304, "", "\"v1\"", "")
    );
    assert_eq!(front.get_with("/", &[("if-none-match", "\"v2\"")]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_condition_on_a_miss_is_answered_from_the_whole_response_that_was_fetched() {
    let origin = Origin::saying(PAGE, TEXT);
    let front = front(&origin);
    let got = front.get_with("/", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!(got.status, 304);
    assert!(!origin.seen()[0].headers.contains_key("if-none-match"));
    assert_eq!(front.get("/").await.text(), TEXT);
}

#[tokio::test(start_paused = true)]
async fn each_coding_has_its_own_tag_and_every_tag_validates() {
    let front = front(&Origin::saying(PAGE, TEXT));
    let plain = front.get("/").await;
    assert_eq!((plain.field("content-encoding"), plain.field("vary")), ("", "Accept-Encoding"));
    let coded = front.get_with("/", &[("accept-encoding", "gzip")]).await;
    assert_eq!((coded.field("content-encoding"), gunzip(&coded).as_str()), ("gzip", TEXT));
    let tag = coded.field("etag").to_owned();
    assert!(tag.contains("v1;gzip"), "{tag}");
    for (accepts, tag) in
        [("gzip", &*tag), ("", &*tag), ("br", &*tag), ("gzip", "\"v1\""), ("br", "\"v1;br\"")]
    {
        let got = front.get_with("/", &[("accept-encoding", accepts), ("if-none-match", tag)]).await;
        assert_eq!(got.status, 304, "{accepts} {tag}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_miss_is_coded_on_the_fly() {
    let origin = Origin::saying(PAGE, TEXT);
    let got = front(&origin).get_with("/", &[("accept-encoding", "gzip")]).await;
    assert_eq!((got.field("content-encoding"), got.field("etag")), ("gzip", "W/\"v1;gzip\""));
    assert_eq!(gunzip(&got), TEXT);
    assert!(!origin.seen()[0].headers.contains_key("accept-encoding"), "the cache wants the identity form");
}

#[tokio::test(start_paused = true)]
async fn q_values_choose_and_zero_refuses() {
    let front = front(&Origin::saying(PAGE, TEXT));
    for (accepts, coding) in [
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("gzip, br", "br"),
        ("gzip;q=0", ""),
        ("identity", ""),
        ("*", "br"),
        ("zstd", "zstd"),
    ] {
        let got = front.get_with("/", &[("accept-encoding", accepts)]).await;
        assert_eq!(got.field("content-encoding"), coding, "{accepts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_is_cut_from_the_stored_identity_form() {
    let front = front(&Origin::saying(PAGE, TEXT));
    for _ in 0..2 {
        let got = front.get_with("/", &[("range", "bytes=0-8"), ("accept-encoding", "gzip")]).await;
        assert_eq!((got.status, got.text(), got.field("content-encoding")), (206, "gatehouse", ""));
        assert_eq!(got.field("content-range"), format!("bytes 0-8/{}", TEXT.len()));
    }
    let got = front.get_with("/", &[("range", "bytes=9999-")]).await;
    assert_eq!((got.status, got.field("content-range")), (416, &*format!("bytes */{}", TEXT.len())));
    let changed = front.get_with("/", &[("range", "bytes=0-8"), ("if-range", "\"v0\"")]).await;
    assert_eq!((changed.status, changed.text()), (200, TEXT));
}

#[tokio::test(start_paused = true)]
async fn a_part_of_what_is_not_stored_is_asked_of_the_origin_as_a_part() {
    let origin = Origin::new(|seen| {
        let no_store = ("cache-control", "no-store");
        Reply::Now(match seen.headers.get("range") {
            Some(_) => answer(206, &[no_store, ("content-range", "bytes 0-3/9")], "part"),
            None => answer(200, &[no_store], "the whole"),
        })
    });
    let front = front(&origin);
    let got = front.get_with("/", &[("range", "bytes=0-3")]).await;
    assert_eq!((got.status, got.text()), (206, "part"));
}
