//! Preconditions and ranges of what is stored (RFC 9110 §13, §14).

use scripted_upstream::saying;

use crate::{front::front, upstream::Upstream};

pub(crate) const TEXT: &str = "gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse \
                    gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse \
                    gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse gatehouse.";
pub(crate) const PAGE: &[(&str, &str)] =
    &[("cache-control", "max-age=60"), ("content-type", "text/plain"), ("etag", "\"v1\"")];

#[tokio::test(start_paused = true)]
async fn a_matching_tag_is_a_304_without_content() {
    let front = front(&Upstream::start(saying(PAGE, TEXT)));
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
    let upstream = Upstream::start(saying(PAGE, TEXT));
    let front = front(&upstream);
    let got = front.get_with("/", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!(got.status, 304);
    assert!(!upstream.seen()[0].headers.contains_key("if-none-match"));
    assert_eq!(front.get("/").await.text(), TEXT);
}

#[tokio::test(start_paused = true)]
async fn a_range_is_cut_from_the_stored_identity_form() {
    let front = front(&Upstream::start(saying(PAGE, TEXT)));
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
