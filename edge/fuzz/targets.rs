//! What must hold for every input of each of the edge's own readers. The fuzz targets call these, and so do ordinary tests with
//! the seeds (`edge/tests/fuzz_seeds.rs`), which need no nightly compiler.

#[path = "../policy/fuzz/input.rs"]
mod input;

use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use edge::{
    cache::Key,
    downstream::request_line::RequestLine,
    message::target::Scheme,
    request::{
        client::{Client, identify},
        inbound,
    },
    settings::{self, ClientSettings, ForwardedBy, HeadBounds},
    upstream::http1::{
        chunks::Chunked,
        response::{Heads, ResponseFraming},
    },
};
use http::{HeaderMap, Method, Request, Uri, Version};
use ipnet::IpNet;

use self::input::Input;

/// A target by its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: [Target; 5] = [
    ("answer", answer),
    ("client", client),
    ("inbound", inbound),
    ("request_line", request_line),
    ("settings", settings),
];

/// A server's answer as it comes over HTTP/1.x, after a line with the size of the pieces that it comes in. It is read alike in
/// whatever pieces it comes, or by nobody.
pub(crate) fn answer(octets: &[u8]) {
    let mut input = Input::new(octets);
    let size = input.number() as usize % 16 + 1;
    let octets = input.rest();
    let whole = Answer::read(octets, octets.len().max(1));
    assert_eq!(Answer::read(octets, size), whole);
    if let Some(answer) = whole {
        let taken = answer.content.len() + answer.left.len();
        assert!(taken < octets.len(), "the head takes some");
    }
}

/// What was read as an answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    head: String,
    content: Vec<u8>,
    trailers: HeaderMap,
    left: Vec<u8>,
}

impl Answer {
    /// An answer to a GET in octets that come so many at once; `None` where they are none, or not all of one.
    fn read(octets: &[u8], size: usize) -> Option<Self> {
        const BOUNDS: HeadBounds = HeadBounds { head: 1024, fields: 8 };
        let (mut input, mut pieces, mut heads) = (BytesMut::new(), octets.chunks(size), Heads::default());
        let head = loop {
            match heads.take(&mut input, BOUNDS).ok()? {
                Some(head) if head.status().is_informational() => {}
                Some(head) => break head,
                None => input.extend_from_slice(pieces.next()?),
            }
        };
        let (mut content, mut trailers) = (Vec::new(), HeaderMap::new());
        match ResponseFraming::of(&head, &Method::GET).ok()? {
            ResponseFraming::None => {}
            ResponseFraming::Length(length) => {
                let length = usize::try_from(length).ok()?;
                while input.len() < length {
                    input.extend_from_slice(pieces.next()?);
                }
                content.extend_from_slice(&input.split_to(length));
            }
            ResponseFraming::Chunks(mut chunks) => loop {
                match chunks.read(&mut input, BOUNDS).ok()? {
                    Chunked::Octets(octets) => content.extend_from_slice(&octets),
                    Chunked::More => input.extend_from_slice(pieces.next()?),
                    Chunked::End(fields) => break trailers = fields,
                }
            },
            ResponseFraming::UntilClose => {
                content.extend_from_slice(&input.split());
                pieces.by_ref().for_each(|piece| content.extend_from_slice(piece));
            }
        }
        pieces.for_each(|piece| input.extend_from_slice(piece));
        Some(Self { head: format!("{head:?}"), content, trailers, left: input.to_vec() })
    }
}

/// Forwarded, X-Forwarded-For and X-Forwarded-Proto, after lines with the peer's address and the field that is believed. Nobody
/// who is not trusted speaks for anyone.
pub(crate) fn client(octets: &[u8]) {
    let mut input = Input::new(octets);
    let address = input.text().parse().unwrap_or(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    let peer = Client { address, scheme: Scheme::Http };
    let forwarded_by =
        if input.line() == b"forwarded" { ForwardedBy::Forwarded } else { ForwardedBy::XForwardedFor };
    let headers = input.fields(&["forwarded", "x-forwarded-for", "x-forwarded-proto"]);
    let trusted: [IpNet; 2] =
        ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().expect("a network"));
    let trusts = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let nobody = ClientSettings { forwarded_by, ..ClientSettings::default() };
    let some = ClientSettings { trusted_proxies: trusted.to_vec(), ..nobody.clone() };
    assert!(trusts(&peer.address) || identify(peer, &headers, &some) == peer);
    assert_eq!(identify(peer, &headers, &nobody), peer);
    assert_eq!(identify(peer, &HeaderMap::new(), &some), peer);
}

/// A client's request head: lines with the method, the target, the version and the scheme, and the fields. What is taken has one
/// host and a path without dot segments, in every spelling that a route or an upstream could read it in.
pub(crate) fn inbound(octets: &[u8]) {
    const FIELDS: [&str; 6] =
        ["connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"];
    let mut input = Input::new(octets);
    let (method, target) = (input.line(), input.line());
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(target)) else { return };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = if input.line() == b"2" { Version::HTTP_2 } else { Version::HTTP_11 };
    let scheme = if input.line() == b"https" { Scheme::Https } else { Scheme::Http };
    *request.headers_mut() = input.fields(&FIELDS);
    let Ok(inbound) = inbound::read(&request.into_parts().0, scheme) else { return };
    assert!(!inbound.host.is_empty() && *inbound.host == inbound.host.to_ascii_lowercase());
    let path = inbound.route_path();
    assert!(path.starts_with('/') || path == "*", "{path}");
    assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path}");
    let key = Key::new(&inbound);
    assert!(key.as_str().starts_with(scheme.as_str()));
}

/// A request line as it comes over HTTP/1.x, after a line with the size of the pieces that it comes in. It is encoded alike in
/// whatever pieces it comes, and what is encoded is left alone.
pub(crate) fn request_line(octets: &[u8]) {
    let mut input = Input::new(octets);
    let size = input.number() as usize % 16 + 1;
    let octets = input.rest();
    let whole = RequestLine::default().read(octets).into_owned();
    let mut line = RequestLine::default();
    let in_pieces: Vec<u8> = octets.chunks(size).flat_map(|piece| line.read(piece).into_owned()).collect();
    assert_eq!(in_pieces, whole);
    assert_eq!(RequestLine::default().read(&whole), whole);
}

/// The operator's file. Whatever is wrong with it is said with its place.
pub(crate) fn settings(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Err(error) = settings::parse(text, "fuzz.toml") {
        assert!(error.to_string().contains("fuzz.toml"), "{error}");
    }
}
