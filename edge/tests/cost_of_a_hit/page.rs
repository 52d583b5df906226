//! An edge that holds one fresh page, and how a browser asks for it. Nobody stands behind it: what is no hit fails.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use cache_policy::{Arrival, Coding, RequestFacts, Rules, admit};
use edge::{
    cache::{Key, Stored, StoredBody, stored::Facts, tiers::Tiers},
    clock::Clock,
    message::{
        content::Content,
        target::{Scheme, Target},
    },
    observe::{access_log::AccessLog, metrics::Metrics, record::Sink},
    pipeline::{Peer, handle},
    request::inbound,
    settings::{self, LogFormat, LogSettings},
    state::{Edge, Servers},
    upstream::{
        Commands,
        address::Address,
        connect::{Dial, Dialling},
        tls::TlsByUpstream,
    },
};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header, request};
use http_body_util::BodyExt as _;

/// What is asked for, and of whom.
pub(crate) const TARGET: &str = "/products/copper-kettle?colour=red";
pub(crate) const HOST: &str = "shop.example";
/// The other fields that a browser sends and a hit looks at.
pub(crate) const FIELDS: [(HeaderName, &str); 3] = [
    (header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
];
/// What a page may vary on.
pub(crate) const VARY: [HeaderName; 1] = [header::ACCEPT];
pub(crate) const PEER: Peer<'static> = Peer {
    address: LOCAL,
    port: 1,
    reached: std::net::SocketAddr::new(LOCAL, 80),
    scheme: Scheme::Http,
    acquaintance: None,
};
const LOCAL: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// Bytes of the page as the origin sent it, and coded.
const IDENTITY: usize = 10 * 1024;
pub(crate) const CODED: usize = 2 * 1024;

/// The request.
pub(crate) fn request() -> Request<Content> {
    let request = Request::get(TARGET).header(header::HOST, HOST);
    let request = FIELDS.iter().fold(request, |request, (name, value)| request.header(name, *value));
    request.body(Content::none()).unwrap()
}

pub(crate) fn head() -> request::Parts {
    request().into_parts().0
}

pub(crate) fn target() -> Target {
    inbound::read(&head(), PEER.scheme).unwrap()
}

pub(crate) fn facts() -> RequestFacts {
    let head = head();
    RequestFacts::read(&head.method, &head.headers, &Rules::default())
}

/// Answers a request, to the end of its content.
pub(crate) fn hit(edge: &Arc<Edge>, request: Request<Content>) {
    let answered = handle(edge, PEER, None, request).now_or_never();
    let mut response = answered.expect("a hit awaits nothing");
    let mut octets = 0;
    while let Some(frame) = response.frame().now_or_never().expect("what is stored is there") {
        octets += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!((response.status(), octets), (StatusCode::OK, CODED));
}

/// An edge that holds the page, coded too.
pub(crate) fn edge() -> Arc<Edge> {
    let text = "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[upstreams.origin]\nservers = [\"http://origin:80\"]\n\
                [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = {}\n";
    let settings = settings::parse(text, "hit.toml").unwrap_or_else(|error| panic!("{error}"));
    let clock = Clock::system();
    let metrics = Arc::new(Metrics::new());
    let tiers = Tiers::new(Vec::new(), &clock, &metrics);
    let log = AccessLog::start(&LogSettings { format: Some(LogFormat::Off) }).unwrap();
    let sink = Arc::new(Sink { clock, metrics, log });
    let edge = Edge::new(
        settings,
        tiers,
        sink,
        Servers { dial: Arc::new(Nobody), commands: Arc::new(Nobody), tls: TlsByUpstream::default() },
    )
    .unwrap();
    edge.memory.store(&Key::new(&target()), Arc::new(page(&edge)));
    edge
}

/// The page as it is stored.
pub(crate) fn page(edge: &Edge) -> Stored {
    let mut head = HeaderMap::new();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::ETAG, "\"5f1d-61a0\""),
        (header::LAST_MODIFIED, "Mon, 23 Nov 2026 12:00:00 GMT"),
    ] {
        head.insert(name, HeaderValue::from_static(value));
    }
    let now = edge.clock.now();
    let arrival = Arrival { requested_at: now, received_at: now, wall: SystemTime::UNIX_EPOCH + START };
    let admitted = admit(&facts(), StatusCode::OK, &head, arrival, &Rules::default()).unwrap();
    let facts = Facts {
        meta: admitted.meta,
        vary: Box::default(),
        variant: Box::default(),
        tags: Box::default(),
        began: edge.memory.generation(),
        codable: true,
    };
    Stored::new(facts, &admitted.head, body(IDENTITY)).with_coding(Coding::Brotli, Some(body(CODED)))
}

fn body(length: usize) -> StoredBody {
    StoredBody::new(&[Bytes::from(vec![b'x'; length])])
}

/// No upstream can be reached, and none has to be started.
struct Nobody;

impl Dial for Nobody {
    fn dial<'a>(&'a self, _address: &'a Address) -> Dialling<'a> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

impl Commands for Nobody {
    fn ready(&self, _command: &str) -> Arc<[Address]> {
        Arc::from([])
    }
}

/// When the page was fetched: Monday, 23 November 2026, 12:00:00 GMT.
const START: Duration = Duration::from_secs(1_795_435_200);
