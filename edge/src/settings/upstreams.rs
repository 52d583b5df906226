//! Where misses go, resolved: servers, how they are spoken to, chosen between and watched.

use std::{fmt, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};

use super::{Bounds, HeadBounds, PathPattern, Sign, Timeouts};

/// A pool of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    pub name: Arc<str>,
    /// Its servers, at least one.
    pub servers: Vec<Server>,
    /// TLS towards those that are reached by `https://`.
    pub tls: UpstreamTlsSettings,
    /// For establishing a connection, a TLS handshake included.
    pub connect_timeout: Duration,
    /// From the request's end to the response's head.
    pub response_timeout: Duration,
    /// Between two pieces of a body.
    pub idle_timeout: Duration,
    /// How long requests wait for the answer to another's request before one of them asks in addition.
    pub collapse_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How old a connection may be when a request is sent on it.
    pub connection_age: Duration,
    /// Requests to one server at once. Over HTTP/1.1 each has a connection of its own.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection; fewer where the server says so.
    pub streams: usize,
    /// Requests to one server at once that last as long as a client likes: tunnels and event streams.
    pub tunnels: usize,
    /// Requests that may wait for a place at one server.
    pub waiting: usize,
    /// How long one of them waits.
    pub waiting_timeout: Duration,
    /// How the server of a request is chosen.
    pub balance: Balance,
    /// How long a server that is back gets less than its share.
    pub slow_start: Duration,
    /// How servers are looked at; not at all when `None`.
    pub check: Option<Check>,
    /// Failures in a row after which a server is put aside.
    pub failures: u32,
    /// Statuses that are failures too, of 500 to 599.
    pub failing_statuses: Vec<u16>,
    /// How long a server is put aside for the first time.
    pub put_aside: Duration,
    /// The share of requests, in percent, that may be sent again to another server.
    pub retries: u32,
    /// The share of the cache's requests, in percent, that may be asked of a second server when the first is late.
    pub hedge: u32,
    /// Whether the requests under way are bounded by how the answers slow down.
    pub overload: OverloadControl,
    /// Fields that its servers are sent otherwise than those of other upstreams.
    pub request_fields: RequestFields,
    /// How its servers are told who the client is, before anything else on a connection.
    pub proxy_protocol: ProxyProtocol,
    /// How long both sides of a tunnel, and of a stream of remote procedure calls, may be silent: `timeouts.tunnel`.
    pub tunnel: Duration,
    /// The largest head of an answer: `bounds.head` and `bounds.fields`.
    pub heads: HeadBounds,
    /// The fields by which any listener tells of client certificates: no client's own go upstream.
    pub identity_fields: Arc<[HeaderName]>,
}

impl UpstreamSettings {
    /// An upstream with every default.
    pub fn new(name: &str, servers: Vec<Server>) -> UpstreamSettings {
        UpstreamSettings {
            name: name.into(),
            servers,
            tls: UpstreamTlsSettings::default(),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            collapse_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(60),
            connection_age: Duration::from_secs(60),
            connections: 256,
            streams: 100,
            tunnels: 256 * TUNNELS_PER_CONNECTION,
            waiting: 1024,
            waiting_timeout: Duration::from_secs(2),
            balance: Balance::TwoChoices,
            slow_start: Duration::from_secs(10),
            check: None,
            failures: 5,
            failing_statuses: Vec::new(),
            put_aside: Duration::from_secs(10),
            retries: 20,
            hedge: 0,
            overload: OverloadControl::Off,
            request_fields: RequestFields::default(),
            proxy_protocol: ProxyProtocol::Off,
            tunnel: Timeouts::default().tunnel,
            heads: Bounds::default().of_heads(),
            identity_fields: Arc::default(),
        }
    }

    /// Whether a response with this status is a failure of its server.
    pub fn fails(&self, status: StatusCode) -> bool {
        self.failing_statuses.contains(&status.as_u16())
    }

    /// Whether any of its servers may be spoken to in HTTP/2.
    pub fn may_speak_http2(&self) -> bool {
        self.servers.iter().any(|server| match server.location {
            Location::Network { protocol, .. } | Location::EachAddress { protocol, .. } => {
                protocol != ServerProtocol::Http1
            }
            Location::Unix(_) | Location::Command(_) | Location::Files(_) => false,
        })
    }

    /// Whether any of its servers is reached by TLS.
    pub fn uses_tls(&self) -> bool {
        self.servers.iter().any(|server| match server.location {
            Location::Network { protocol, .. } | Location::EachAddress { protocol, .. } => {
                protocol == ServerProtocol::Tls
            }
            Location::Unix(_) | Location::Command(_) | Location::Files(_) => false,
        })
    }
}

/// Whether HAProxy's PROXY protocol is spoken to servers, and in which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    /// A line of text.
    V1,
    /// Octets.
    V2,
}

/// What the operator says of fields of requests, by their names. They are few, and walked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFields(pub(super) Vec<(HeaderName, RequestField)>);

/// What becomes of a field on its way upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestField {
    /// Sent with this value, whatever the client sent and the edge would say.
    Is(HeaderValue),
    /// Not sent.
    Absent,
    /// The client's own goes on, though the edge would remove it: with what goes upstream for this client alone.
    Kept,
}

impl RequestFields {
    /// What is said of a field.
    pub fn of(&self, name: &HeaderName) -> Option<&RequestField> {
        self.0.iter().find(|(governed, _)| governed == name).map(|(_, field)| field)
    }

    /// The fields that are sent whatever the client sent.
    pub fn stated(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().filter_map(|(name, field)| match field {
            RequestField::Is(value) => Some((name, value)),
            RequestField::Absent | RequestField::Kept => None,
        })
    }

    /// Each field, with a word for what becomes of it. Not its value, which may be a secret.
    pub fn words(&self) -> impl Iterator<Item = (&HeaderName, &RequestField, &'static str)> {
        self.0.iter().map(|(name, field)| {
            let word = match field {
                RequestField::Is(_) => "set",
                RequestField::Absent => "false",
                RequestField::Kept => "true",
            };
            (name, field, word)
        })
    }
}

/// How many tunnels there may be, where the file does not say, for each of `connections`: they are idle most of the time.
pub(super) const TUNNELS_PER_CONNECTION: usize = 4;

/// One server of an upstream, as the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub location: Location,
    /// Its share of the requests, beside those of the others.
    pub weight: NonZeroU32,
    /// Whether it is asked only while no other server is good.
    pub backup: bool,
}

impl From<Location> for Server {
    fn from(location: Location) -> Self {
        Self { location, weight: NonZeroU32::MIN, backup: false }
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `http://host:port`, `https://..`, `h2c://..`.
    Network {
        protocol: ServerProtocol,
        /// Host name or address, without brackets for IPv6 literals.
        host: Arc<str>,
        port: u16,
    },
    /// `dns+http://name:port` and its kin: each address that the name stands for is a server.
    EachAddress { protocol: ServerProtocol, host: Arc<str>, port: u16 },
    /// `unix:/run/app.sock`, spoken to by HTTP/1.1.
    Unix(PathBuf),
    /// `command:NAME`: every ready instance of that command.
    Command(Arc<str>),
    /// The files of a folder, as a route's `files` names it.
    Files(Arc<FilesFolder>),
}

/// A folder whose files a route answers with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilesFolder {
    /// Its real path.
    pub root: PathBuf,
    /// The path that clients see its root at: the route's `strip_prefix`.
    pub mounted_at: Option<Box<str>>,
    /// The page for paths that are none of its files, and name no kind of file: an app's own routes. Begins with a slash.
    pub fallback: Option<Box<str>>,
    /// Files whose content never changes under their name, by their paths below the root.
    pub immutable: Vec<PathPattern>,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerProtocol {
    /// HTTP/1.1 in clear text.
    Http1,
    /// HTTP/2 in clear text, without asking first (RFC 9113 §3.3).
    H2c,
    /// HTTP/2 or HTTP/1.1 over TLS, as the server chooses (ALPN).
    Tls,
}

/// TLS towards an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTlsSettings {
    /// The certificates of the authorities that are believed; the system's where `None`.
    pub ca: Option<PathBuf>,
    /// The name that is asked for and that the certificate must have; the server's own where `None`.
    pub server_name: Option<Arc<str>>,
    /// The certificate chain and the key by which the edge shows who it is.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub verification: Verification,
}

/// Whether a server has to prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    #[default]
    Required,
    /// Anybody on the way may be the server.
    Off,
}

/// Whether the requests under way to an upstream are bounded by how its answers slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadControl {
    Off,
    Adaptive,
}

/// How the server of a request is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Of two drawn by lot the one with fewer requests under way.
    TwoChoices,
    /// Each in its turn, by weight.
    RoundRobin,
    /// What the request has decides: the same server as last time, unless that has more than its share to do.
    Hash(HashKey),
    /// The server where the client was before, as a cookie of this name says that the edge sets.
    Sticky(Arc<str>),
}

/// What of a request decides about its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// The path and the query.
    Path,
    /// The values of a field.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Arc<str>),
}

impl fmt::Display for Balance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoChoices => formatter.write_str("two-choices"),
            Self::RoundRobin => formatter.write_str("round-robin"),
            Self::Hash(HashKey::Client) => formatter.write_str("hash client"),
            Self::Hash(HashKey::Path) => formatter.write_str("hash path"),
            Self::Hash(HashKey::Header(name)) => write!(formatter, "hash header {name}"),
            Self::Hash(HashKey::Cookie(name)) => write!(formatter, "hash cookie {name}"),
            Self::Sticky(name) => write!(formatter, "sticky {name}"),
        }
    }
}

/// How a server is looked at, apart from the requests it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The path and query that are asked for.
    pub path: Arc<str>,
    /// The Host that is sent; the server's own where `None`.
    pub host: Option<Arc<str>>,
    /// The statuses of a server that is well; 200 to 399 where empty.
    pub statuses: Vec<u16>,
    /// A text that the answer's content must hold.
    pub body: Option<Arc<str>>,
    /// Between two looks; each a tenth shorter or longer by chance.
    pub interval: Duration,
    /// For one look, from the connection to the last of what is read.
    pub timeout: Duration,
    /// Good looks in a row after which a server that was down is up.
    pub rise: u32,
    /// Bad looks in a row after which a server is down.
    pub fall: u32,
}

impl Check {
    /// A check with every default.
    pub fn new(path: &str) -> Self {
        Self {
            path: path.into(),
            host: None,
            statuses: Vec::new(),
            body: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
        }
    }

    /// Whether a server that answers with this status is well.
    pub fn accepts(&self, status: StatusCode) -> bool {
        match self.statuses.is_empty() {
            true => status.is_success() || status.is_redirection(),
            false => self.statuses.contains(&status.as_u16()),
        }
    }
}

/// The upstream on which something new is tried for a route, and who tries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    pub upstream: Arc<UpstreamSettings>,
    /// The share of clients, in percent, whose requests go there.
    pub share: u32,
    /// Requests with this field go there, past the cache.
    pub header: Option<Sign>,
    /// Requests with this cookie go there, past the cache.
    pub cookie: Option<Sign>,
}
