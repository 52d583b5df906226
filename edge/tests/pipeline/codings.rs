//! Content codings chosen for each client (RFC 9110 §8.4, §12.5.3).

use scripted_upstream::{Reply, saying};
use std::io::Read as _;

use crate::{
    front::{CACHED, Got, PASSED, front, front_with},
    representation::{PAGE, TEXT},
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn each_coding_has_its_own_tag_and_every_tag_validates() {
    let front = front(&Upstream::start(saying(PAGE, TEXT)));
    let plain = front.get("/").await;
    assert_eq!((plain.field("content-encoding"), plain.field("vary")), ("", "Accept-Encoding"));
    let coded = front.get_with("/", &[("accept-encoding", "gzip")]).await;
    assert_eq!((coded.field("content-encoding"), gunzip(&coded).as_str()), ("gzip", TEXT));
    let tag = coded.field("etag").to_owned();
    assert!(tag.contains("v1;gatehouse-gzip"), "{tag}");
    for (accepts, tag) in
        [("gzip", &*tag), ("", &*tag), ("br", &*tag), ("gzip", "\"v1\""), ("br", "\"v1;gatehouse-br\"")]
    {
        let got = front.get_with("/", &[("accept-encoding", accepts), ("if-none-match", tag)]).await;
        assert_eq!(got.status, 304, "{accepts} {tag}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_miss_is_coded_on_the_fly() {
    let upstream = Upstream::start(saying(PAGE, TEXT));
    let got = front(&upstream).get_with("/", &[("accept-encoding", "gzip")]).await;
    assert_eq!((got.field("content-encoding"), got.field("etag")), ("gzip", "W/\"v1;gatehouse-gzip\""));
    assert_eq!(gunzip(&got), TEXT);
    assert!(!upstream.seen()[0].headers.contains_key("accept-encoding"), "the cache wants the identity form");
}

#[tokio::test(start_paused = true)]
async fn q_values_choose_and_zero_refuses() {
    let front = front(&Upstream::start(saying(PAGE, TEXT)));
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

/// Neither error pages nor these types were coded, and no setting could change that.
#[tokio::test(start_paused = true)]
async fn error_pages_and_every_type_that_the_route_names_are_coded() {
    let upstream = Upstream::start(|seen| {
        let (status, content_type) = match seen.target.as_str() {
            "/gone" => (404, "text/html"),
            "/stream" => (200, "application/x-ndjson"),
            "/own" => (200, "application/x-own"),
            _ => (200, "image/webp"),
        };
        Reply::ok(TEXT).with_status(status).header("content-type", content_type)
    });
    for route in [CACHED, PASSED] {
        let by_default = front_with(&upstream, route);
        let named = front_with(&upstream, &format!("{route}compress_types = [\"application/x-*\"]\n"));
        for (target, coded_by_default, coded_if_named) in [
            ("/gone", true, false),
            ("/stream", true, true),
            ("/own", false, true),
            ("/picture", false, false),
        ] {
            for (front, coded) in [(&by_default, coded_by_default), (&named, coded_if_named)] {
                let got = front.get_with(target, &[("accept-encoding", "gzip")]).await;
                assert_eq!(got.field("content-encoding") == "gzip", coded, "{target}");
            }
        }
    }
}

fn gunzip(got: &Got) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&got.body.as_ref().unwrap()[..]).read_to_string(&mut text).unwrap();
    text
}
