//! Content codings chosen for each client (RFC 9110 §8.4, §12.5.3).

use bytes::Bytes;
use http::Request;
use scripted_upstream::{Gate, Reply, saying};
use std::io::{Read as _, Write as _};

use crate::{
    front::{CACHED, Front, Got, PASSED, front, front_with, settle},
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

/// An origin that sends gzip whatever the client accepts.
fn always_gzip(fields: &'static [(&'static str, &'static str)]) -> Upstream {
    let coded = gzip(TEXT);
    Upstream::start(move |seen| match seen.header("if-none-match") {
        "\"v1\"" => Reply::status(304).header("etag", "\"v1\""),
        _ => Reply::ok(coded.clone()).fields(PAGE).fields(GZIP).fields(fields),
    })
}

const GZIP: &[(&str, &str)] = &[
    ("content-encoding", "gzip"),
    ("content-digest", "sha-256=:AA==:"),
    ("repr-digest", "sha-256=:AA==:"),
    ("content-md5", "AA=="),
    ("accept-ranges", "bytes"),
];

fn is_decoded(got: &Got) -> bool {
    const OF_THE_CODED: [&str; 6] = [
        "content-encoding",
        "content-length",
        "content-digest",
        "repr-digest",
        "content-md5",
        "accept-ranges",
    ];
    assert_eq!(got.field("vary"), "Accept-Encoding");
    let gone = OF_THE_CODED.map(|name| !got.headers.contains_key(name));
    assert!(gone == [true; 6] || gone == [false; 6], "{got:?}");
    assert_eq!(got.field("etag"), if gone[0] { "W/\"v1;gatehouse-identity\"" } else { "\"v1\"" });
    gone[0]
}

/// A route, and a field of every request: with this cookie they are passed on.
const WAYS: [(&str, (&str, &str)); 2] = [(CACHED, ("x-any", "1")), (BYPASSED, ("cookie", "a=1"))];
const BYPASSED: &str = "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n\
                        cache = { cookies = \"bypass\" }\n";

async fn accepting(front: &Front, field: (&str, &str), accepts: &str) -> Got {
    let got = front.get_with("/", &[("accept-encoding", accepts), field]).await;
    let is_passed = got.field("cache-status").contains("detail=request-cookie");
    assert_eq!(is_passed, field.0 == "cookie", "{got:?}");
    got
}

/// Clients that refuse gzip were sent gzip.
#[tokio::test(start_paused = true)]
async fn gzip_of_the_origin_is_decoded_for_clients_that_refuse_it() {
    for (route, field) in WAYS {
        let front = front_with(&always_gzip(&[]), route);
        for round in ["miss", "again"] {
            for accepts in ["identity", "br", "", "gzip;q=0", "*;q=0, identity", "gzip;q=0, *"] {
                let got = accepting(&front, field, accepts).await;
                assert!(is_decoded(&got) && got.text() == TEXT, "{route} {round} {accepts:?} {got:?}");
                let head = Request::head("/").header("accept-encoding", accepts).header(field.0, field.1);
                let head = front.send(head).await;
                assert!(is_decoded(&head), "{route} {round} HEAD {accepts:?} {head:?}");
            }
            for accepts in ["gzip", "br, gzip;q=0.1", "*", "*;q=0", "identity;q=0"] {
                let got = accepting(&front, field, accepts).await;
                assert!(!is_decoded(&got) && gunzip(&got) == TEXT, "{route} {round} {accepts:?}");
            }
            let got = front.get_with("/", &[field]).await;
            assert!(!is_decoded(&got) && gunzip(&got) == TEXT, "without the field any coding is acceptable");
        }
    }
}

/// One that joins a body that is being filled, and one whose response turns out to be for it alone, got gzip too.
#[tokio::test(start_paused = true)]
async fn gzip_is_decoded_while_it_arrives() {
    for fields in [&[][..], &[("cache-control", "private")]] {
        let (coded, gate) = (gzip(TEXT), Gate::closed());
        let upstream = Upstream::start({
            let gate = gate.clone();
            move |_| {
                let (first, second) = (coded.slice(..10), coded.slice(10..));
                let reply = Reply::streamed().then(first).then_wait(&gate).then(second);
                reply.fields(if fields.is_empty() { PAGE } else { &PAGE[1..] }).fields(GZIP).fields(fields)
            }
        });
        let front = front(&upstream);
        let asks = ["identity", "br"].map(|accepts| {
            let front = front.clone();
            tokio::spawn(async move { accepting(&front, ("x-any", "1"), accepts).await })
        });
        settle().await;
        gate.open();
        for ask in asks {
            let got = ask.await.unwrap();
            assert_eq!(
                (got.text(), got.field("content-encoding"), got.field("vary")),
                (TEXT, "", "Accept-Encoding")
            );
        }
        assert_eq!(upstream.count(), if fields.is_empty() { 1 } else { 2 });
    }
}

/// The tag of either form validates, and the 304 names the form that the client holds.
#[tokio::test(start_paused = true)]
async fn the_tags_of_gzip_and_of_what_was_decoded_both_validate() {
    const DECODED: &str = "W/\"v1;gatehouse-identity\"";
    let unshared: &[(&str, &str)] = &[("cache-control", "private")];
    let [cached, passed] = WAYS;
    for ((route, field), fields) in [(cached, &[][..]), (passed, &[]), (cached, unshared)] {
        let front = front_with(&always_gzip(fields), route);
        for _ in 0..2 {
            for (accepts, held) in
                [("identity", DECODED), ("identity", "\"v1\""), ("gzip", DECODED), ("gzip", "\"v1\"")]
            {
                let asked = [("accept-encoding", accepts), ("if-none-match", held), field];
                let got = front.get_with("/", &asked).await;
                assert_eq!((got.status, got.field("etag")), (304, held), "{route} {accepts}");
                // Upstream's own 304, passed on, does not say whether the response would be gzip.
                let may_be_passed = route == BYPASSED || !fields.is_empty();
                let varies = got.field("vary") == "Accept-Encoding";
                assert!(varies || may_be_passed && held != DECODED, "{route} {accepts} {held}");
            }
            let fields =
                [("accept-encoding", "identity"), ("if-none-match", "\"v2;gatehouse-identity\""), field];
            assert!(is_decoded(&front.get_with("/", &fields).await), "another response");
        }
    }
}

/// Octets of gzip were cut out for a client that cannot use them.
#[tokio::test(start_paused = true)]
async fn a_range_of_what_is_decoded_is_ignored() {
    let front = front(&always_gzip(&[]));
    front.get("/").await;
    let range = ("range", "bytes=0-8");
    let got = front.get_with("/", &[("accept-encoding", "identity"), range]).await;
    assert_eq!((got.status, got.text()), (200, TEXT));
    assert_eq!(front.get_with("/", &[("accept-encoding", "gzip"), range]).await.status, 206);
}

#[tokio::test(start_paused = true)]
async fn no_transform_other_codings_and_the_route_keep_gzip_as_it_is() {
    let coded_twice: &[(&str, &str)] = &[("content-encoding", "br")];
    let no_transform: &[(&str, &str)] = &[("cache-control", "no-transform")];
    for (route, field) in WAYS {
        let off = format!("{route}decompress = false\n");
        let uncompressed = format!("{route}compress = false\n");
        for (route, fields) in
            [(route, no_transform), (route, coded_twice), (&off, &[][..]), (&uncompressed, &[])]
        {
            let front = front_with(&always_gzip(fields), route);
            for _ in 0..2 {
                let got = accepting(&front, field, "identity").await;
                assert_eq!((gunzip(&got).as_str(), got.field("etag")), (TEXT, "\"v1\""), "{route}");
                assert_eq!(got.field("vary"), "", "{route} {fields:?}");
            }
        }
        let decoding = format!("{route}compress = false\ndecompress = true\n");
        let front = front_with(&always_gzip(&[]), &decoding);
        assert!(is_decoded(&accepting(&front, field, "identity").await));
    }
}

/// A client must be able to tell a whole body from the beginning of one (RFC 9112 §8).
#[tokio::test(start_paused = true)]
async fn gzip_that_is_broken_never_ends_well() {
    let coded = gzip(&TEXT.repeat(1000));
    let mut corrupted = coded.to_vec();
    let checksum = corrupted.len() - 8;
    corrupted[checksum] ^= 1;
    for broken in [coded.slice(..coded.len() - 1), corrupted.into(), Bytes::from_static(b"no gzip")] {
        let upstream = Upstream::start(move |_| Reply::ok(broken.clone()).fields(PAGE).fields(GZIP));
        for (route, field) in WAYS {
            let front = front_with(&upstream, route);
            for _ in 0..2 {
                assert!(accepting(&front, field, "identity").await.body.is_err(), "{route}");
            }
        }
    }
}

fn gzip(text: &str) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap().into()
}

fn gunzip(got: &Got) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&got.body.as_ref().unwrap()[..]).read_to_string(&mut text).unwrap();
    text
}
