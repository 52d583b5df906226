//! Whatever a head says, the work that it makes is linear in its size: no field of it, however written, and no two of them
//! together cost more. Octets looked at are counted where fields are read, in `cache-policy`; here all that is allocated
//! on the way through the pipeline.

use std::sync::Arc;

use allocation_counter::measure;
use bytes::Bytes;
use cache_policy::Coding;
use edge::{
    cache::{Key, Stored, StoredBody, stored::Facts},
    message::content::Content,
    pipeline::handle,
    state::Edge,
};
use http::{HeaderName, HeaderValue, Request, header};
use proptest::prelude::*;
use tokio::runtime;

use crate::page;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Conditions and variants were quadratic: one field of 30 KiB took a third of a second.
    #[test]
    fn what_a_head_makes_the_edge_allocate_is_linear_in_its_size(
        method in prop::sample::select(vec!["GET", "GET", "HEAD", "POST"]),
        lines in prop::collection::vec((field(), piece(), 1..16_384usize), 1..5),
        query in prop::option::of((piece_of_a_query(), 0..2048usize)),
    ) {
        let request = || {
            // Without more of a query it is the page.
            let more = query.as_ref().map(|(piece, length)| format!("&{}", repeated(piece, *length)));
            let uri = page::TARGET.to_owned() + &more.unwrap_or_default();
            let mut request = Request::builder().method(method).uri(uri).header(header::HOST, page::HOST);
            for (field, piece, length) in &lines {
                let value = HeaderValue::from_bytes(repeated(piece, *length).as_bytes()).unwrap();
                request = request.header(*field, value);
            }
            request.body(Content::none()).unwrap()
        };
        let size = size(&request());
        let (edge, runtime) = (edge(), runtime::Builder::new_current_thread().enable_all().build().unwrap());
        let asked = request();
        let spent = measure(|| runtime.block_on(async {
            drop(handle(&edge, page::PEER, None, asked).await);
        }));
        prop_assert!(
            spent.count_total <= SOME_ALLOCATIONS + size / OCTETS_AN_ALLOCATION,
            "{} allocations for {size} octets", spent.count_total
        );
        prop_assert!(
            spent.bytes_total <= SOME_OCTETS + OCTETS_EACH * size,
            "{} octets for {size}", spent.bytes_total
        );
    }
}

/// As often as not one that the page varies on.
fn field() -> impl Strategy<Value = &'static str> {
    let any = prop::sample::select(FIELDS.to_vec());
    prop_oneof![any, prop::sample::select(vec!["accept", "accept-language", "x-device"])]
}

fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a,",
        "a;q=0.5,",
        "\"",
        "\"a,",
        "\"a\",",
        "W/\"a\",",
        "\\\"",
        ",",
        ";",
        "=",
        "a=b;",
        "a=\"",
        "0-1,",
        "bytes=0-1,",
        "for=1,",
        "10.0.0.1,",
        "gzip,",
        "accept,",
        "x-a, ",
        "max-age=1,",
        "no-cache=\"",
        "*",
        "*,",
        " ",
        "%41",
        "\u{e9}",
    ])
}

fn piece_of_a_query() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a=1&", "&", "utm_a&", "%75tm_b=1&", "%", "+", "="])
}

fn repeated(piece: &str, length: usize) -> String {
    piece.repeat(length / piece.len() + 1)
}

fn size(request: &Request<Content>) -> u64 {
    let lines: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (lines + request.uri().to_string().len()) as u64
}

/// An edge with many variants of the page, and the page in every coding: what computes one is of a fixed size.
fn edge() -> Arc<Edge> {
    let edge = page::edge();
    let key = Key::new(&page::target());
    let resource = edge.memory.look_up(&key).unwrap();
    for coding in [Coding::Gzip, Coding::Zstd] {
        edge.memory.add_coding(&key, &resource.variants()[0].identity().body, coding, None);
    }
    for number in 0..31 {
        let page = page::page(&edge);
        let (vary, variant) = (VARY.into(), format!("{number}\n").repeat(VARY.len()).into());
        let facts = Facts { vary, variant, ..(*page).clone() };
        let body = StoredBody::new(&[Bytes::from_static(b"x")]);
        edge.memory.store(&key, Arc::new(Stored::new(facts, &page.identity().head, body)));
    }
    edge
}

const VARY: [HeaderName; 4] =
    [header::ACCEPT, header::ACCEPT_LANGUAGE, header::COOKIE, HeaderName::from_static("x-device")];

/// All that is read of a head anywhere, and one that is not.
const FIELDS: [&str; 24] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "priority",
    "range",
    "te",
    "upgrade",
    "x-device",
    "x-forwarded-for",
    "x-http-method-override",
    "x_a",
];

/// What a request costs however short it is: a miss asks for a connection, and its refusal is a document.
const SOME_ALLOCATIONS: u64 = 300;
const SOME_OCTETS: u64 = 64 * 1024;
/// Tags of coded forms are taken back to the origin's one by one.
const OCTETS_AN_ALLOCATION: u64 = 4;
/// An octet of the head may be copied so often: into the key, the variant's, the upstream's head, the log's line.
const OCTETS_EACH: u64 = 12;
