//! What the operator decided, resolved: every name looked up, every size and duration a number, every default filled in.
//!
//! [`Settings`] is immutable. One snapshot serves one request from its first byte to its last; a reload makes a new
//! one. Nothing here has been read from a peer and nothing here is text that still needs parsing.
//!
//! ```text
//! sources (files joined, variables replaced) -> file (its shape, each value with its place)
//!     -> resolve (names, defaults, what fits together) -> Settings
//! beside them: value (sizes, durations, rates, ..), error (file:line:column, caret, remedy)
//! ```
//!
//! Relative paths in the file are relative to the edge's working directory, but those of `include`, which begin where the file
//! is. The defaults stand here, as `Default` or `new` of the resolved types, and in `config/edge.toml`; a test holds the two
//! together.

mod acme;
mod actions;
mod certificates;
pub mod credentials;
mod doubt;
mod error;
mod file;
mod foreign;
mod given;
mod key_parts;
mod limits;
mod matching;
mod notation;
mod pages;
mod redis;
pub mod reload;
mod resolve;
mod sharing;
mod sources;
mod texts;
mod token;
mod upstreams;
mod users;
mod value;

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    io::IsTerminal,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use cache_policy::{QueryRules, Rules};
use http::{HeaderValue, Method};
use ipnet::IpNet;

use error::Fault;
use texts::SourceTexts;

pub use acme::{
    Acme, Domain, ExternalAccount, KeyType, LETS_ENCRYPT, LETS_ENCRYPT_STAGING, ON_DEMAND_CERTIFICATES,
    ON_DEMAND_ORDERS, OnDemandSettings,
};
pub use actions::{
    AddressRules, ForwardAuth, INTERNAL, LocationPart, LocationTemplate, MaintenanceSettings, PathRewrite,
    PathSubstitution, Redirect, RedirectFrom, ResponseField, ResponseFields, RouteAction, StatedAnswer,
};
pub use certificates::{
    Certificate, ClearText, ClientCertificates, FolderError, IdentityPart, ListenTls, MOST_CERTIFICATES,
    TlsVersion, UnknownNames, folders_within,
};
pub use error::{Faults, SettingsError, Warning};
pub use file::{known_keys, notation};
pub use given::GivenSettings;
pub use key_parts::KeyParts;
pub use limits::{CountedBy, Limit, RequestCosts};
pub use matching::{Asks, BesideGet, HostPattern, PathPattern, Sign};
pub use notation::Notation;
pub use pages::{ErrorPages, PagePart, PageTemplate};
pub use redis::{RedisSettings, RedisUrl, Unheard};
pub use resolve::TO_HTTPS;
pub use sharing::{
    AllowedFields, AllowedOrigins, CrossOrigin, OriginPattern, STRICT, STRICT_TRANSPORT, SecurityFields,
};
pub use sources::SettingsSources;
pub use token::{Token, TokenError, read_token};
pub use upstreams::{
    Balance, Canary, Check, FilesFolder, HashKey, Location, OverloadControl, ProxyProtocol, RequestField,
    RequestFields, Server, ServerProtocol, UpstreamSettings, UpstreamTlsSettings, Verification,
};
pub use users::{HashText, Users};
pub use value::ByteSize;

/// Shards of the memory cache. An object must fit into one of them with room to spare, so this bounds
/// `cache.largest_object`.
pub const CACHE_SHARDS: usize = 4;

/// Reads and resolves a file.
///
/// # Errors
/// [`SettingsError`] when the file cannot be read or is wrong; its `Display` shows every fault with place and remedy.
pub fn load(path: &Path) -> Result<Settings, SettingsError> {
    read(path).map(|(settings, _)| settings)
}

/// As [`load`], with what in the file is no fault, and hardly meant.
///
/// # Errors
/// As [`load`].
pub fn read(path: &Path) -> Result<(Settings, Vec<Warning>), SettingsError> {
    let text = fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    resolve(sources::collect(path, &text))
}

/// The files that [`read`] reads beside this one, and the folders in which it looks for some: all that are known before what is
/// wrong with the settings is.
pub fn source_files(path: &Path) -> Vec<PathBuf> {
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    let (texts, SettingsSources { files, folders, .. }, _) = sources::collect(path, &text);
    let named = sources::document(&texts, &|name| env::var_os(name)).map(|(_, files)| files);
    [files, folders, named.unwrap_or_default()].concat()
}

/// Resolves a file's text; `name` is what its faults call the file.
///
/// # Errors
/// [`SettingsError::Refused`] with everything that is wrong with the text.
pub fn parse(text: &str, name: &str) -> Result<Settings, SettingsError> {
    parse_with_warnings(text, name).map(|(settings, _)| settings)
}

/// Whether a text is TOML, whatever it means.
///
/// # Errors
/// [`SettingsError::Refused`] with the first place where it is not.
pub fn check_syntax(text: &str, name: &str) -> Result<(), SettingsError> {
    let texts = Arc::new(SourceTexts::of(name, text));
    sources::check_syntax(&texts).map_err(|faults| SettingsError::Refused(Faults::new(&texts, faults)))
}

fn parse_with_warnings(text: &str, name: &str) -> Result<(Settings, Vec<Warning>), SettingsError> {
    resolve(sources::collect(Path::new(name), text))
}

fn resolve(
    (texts, mut sources, faults): (SourceTexts, SettingsSources, Vec<Fault>),
) -> Result<(Settings, Vec<Warning>), SettingsError> {
    let texts = Arc::new(texts);
    let resolved = match faults.is_empty() {
        false => Err(faults),
        true => sources::document(&texts, &|name| env::var_os(name)).and_then(|(document, named)| {
            sources.files.extend(named);
            resolve::resolve(file::read(document, &texts)?, &texts)
        }),
    };
    match resolved {
        Ok((settings, doubts)) => Ok((Settings { sources, ..settings }, Warning::each(&texts, doubts))),
        Err(faults) => Err(SettingsError::Refused(Faults::new(&texts, faults))),
    }
}

/// Everything `edge run` needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What they were read from.
    pub sources: SettingsSources,
    /// Worker threads; never 0 (the file's 0 is resolved to one per core).
    pub threads: usize,
    /// Whether the edge reloads by itself when this file, a certificate or a key has changed.
    pub watch: bool,
    /// Public listeners, at least one.
    pub listeners: Vec<Listen>,
    /// The operator's listener; `None` when the file has no `[admin]`.
    pub admin: Option<Admin>,
    /// Whom certificates are had from.
    pub acme: Acme,
    pub cache: CacheSettings,
    /// What several edges share; `None` for one that stands alone.
    pub redis: Option<RedisSettings>,
    /// Trusted proxies, and how many clients are remembered.
    pub clients: ClientSettings,
    /// Rate limits by name.
    pub limits: BTreeMap<Arc<str>, Arc<Limit>>,
    /// Programs the edge runs, by name.
    pub commands: BTreeMap<Arc<str>, Arc<Command>>,
    /// Who is asked what the names of upstreams stand for; the system's own name servers where empty.
    pub name_servers: Vec<SocketAddr>,
    /// Where misses go, by name.
    pub upstreams: BTreeMap<Arc<str>, Arc<UpstreamSettings>>,
    /// Routes in the file's order: the first that matches wins.
    pub routes: Vec<Arc<Route>>,
    /// What people are shown in place of the edge's own words.
    pub error_pages: ErrorPages,
    /// Who may purge on public listeners, by methods of their own; nobody where `None`.
    pub purge: Option<PurgeAccess>,
    /// What may close routes that say nothing of it.
    pub maintenance: Option<Arc<MaintenanceSettings>>,
    /// Deadlines of the public side.
    pub timeouts: Timeouts,
    /// Bounds of the public side.
    pub bounds: Bounds,
    /// The access log.
    pub log: LogSettings,
}

/// One public socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 lets the system choose (the port is printed at start).
    pub address: SocketAddr,
    /// How TLS is terminated; `None` for clear text.
    pub tls: Option<ListenTls>,
    /// From whom connections must begin with a PROXY header, and nobody else may connect; empty for no headers.
    pub proxy_protocol: Vec<IpNet>,
    /// What every answer over TLS says of clear text.
    pub hsts: Option<Hsts>,
}

/// That a host is to be reached by TLS alone (RFC 6797); written `365d`, or `365d includeSubDomains preload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// For how long from each answer on.
    pub max_age: Duration,
    /// And so are the hosts below it.
    pub include_subdomains: bool,
    /// Lists that come with browsers may name it.
    pub preload: bool,
}

impl Hsts {
    /// `Strict-Transport-Security`.
    pub fn to_field(self) -> HeaderValue {
        let subdomains = if self.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        let field = format!("max-age={}{subdomains}{preload}", self.max_age.as_secs());
        HeaderValue::try_from(field).expect("digits and words are visible ASCII")
    }
}

/// Whether two sockets would take the same connections. `[::]` listens on IPv4 as well.
pub fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V6(address) if address.is_unspecified() => true,
        IpAddr::V4(address) if address.is_unspecified() => narrow.is_ipv4(),
        address => address == narrow,
    };
    one.port() != 0
        && one.port() == other.port()
        && (takes(one.ip(), other.ip()) || takes(other.ip(), one.ip()))
}

/// The operator's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub address: AdminAddress,
    /// The file whose content is the bearer token that changes need; without it only this machine may make any.
    pub token_file: Option<PathBuf>,
    /// Names by which the listener is asked, beside addresses and `localhost`.
    pub hosts: Vec<Box<str>>,
}

/// Who may purge on public listeners: plugins of content systems, which know nothing of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeAccess {
    /// Whose requests need show nothing.
    pub allow: Vec<IpNet>,
    /// The file whose word lets others in.
    pub token_file: Option<PathBuf>,
    pub token: Option<Token>,
    /// What their plugins purge becomes stale and is not removed.
    pub soft: bool,
}

/// Where the operator's listener is; written `127.0.0.1:9900` or `unix:/run/gatehouse/admin.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// An address and a port.
    Network(SocketAddr),
    /// A Unix socket of this name.
    Unix(PathBuf),
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as value::Value>::from_text(text).map_err(|refused| match refused.help {
            Some(help) => format!("{}: {help}", refused.message),
            None => refused.message,
        })
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as value::Value>::from_text(text).map_err(|refused| match refused.help {
            Some(help) => format!("{}: {help}", refused.message),
            None => refused.message,
        })
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// The memory tier's budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bytes for everything stored: heads, bodies, codings, bookkeeping.
    pub memory: u64,
    /// The largest body, in bytes, that is stored.
    pub largest_object: u64,
    /// Variants kept per resource (RFC 9111 §4.1).
    pub variants: usize,
}

impl Default for CacheSettings {
    fn default() -> Self {
        CacheSettings { memory: 256 << 20, largest_object: 16 << 20, variants: 32 }
    }
}

impl CacheSettings {
    /// The most that `largest_object` may be: half a shard, so that one object never empties a shard by itself.
    pub fn largest_possible_object(memory: u64) -> u64 {
        memory / (2 * CACHE_SHARDS as u64)
    }
}

/// Who may say who the client is, and how many are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Only these peers are believed about who the client is.
    pub trusted_proxies: Vec<IpNet>,
    /// The field by which they say it.
    pub forwarded_by: ForwardedBy,
    /// Which answers tell their client the request's id.
    pub request_id_in_answers: RequestIdInAnswers,
    /// Clients each limit remembers; one near to having its burst back is forgotten first.
    pub remembered: usize,
}

impl ClientSettings {
    /// Whether what this peer says of its clients and their requests is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientSettings {
            trusted_proxies: Vec::new(),
            forwarded_by: ForwardedBy::default(),
            request_id_in_answers: RequestIdInAnswers::default(),
            remembered: 100_000,
        }
    }
}

/// The field by which trusted proxies say who the client is. The other one is never believed: a proxy that maintains one
/// passes on what the client wrote into the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` for the scheme.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), with its `for` and `proto`.
    Forwarded,
}

/// Which answers have the field `X-Request-Id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestIdInAnswers {
    /// Those by which the edge itself refuses a request, or says that its upstream failed.
    #[default]
    Errors,
    Always,
    Never,
}

/// A program that the edge starts, watches and stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub name: Arc<str>,
    /// Program and arguments; `{port}` or `{socket}` stands for where the instance listens.
    pub run: Vec<String>,
    /// Working directory; the edge's own when `None`.
    pub directory: Option<PathBuf>,
    /// Variables set beside the edge's own environment, those of `env_file`, and `PORT` or `SOCKET`.
    pub environment: BTreeMap<String, String>,
    /// A file with further variables, read at each start.
    pub env_file: Option<PathBuf>,
    /// Name or id of the user it runs as; the edge's own when `None`.
    pub user: Option<String>,
    /// Name or id of its group; the user's own when `None`.
    pub group: Option<String>,
    /// How many copies run, each listening for itself (the file's `"cores"` is resolved to a number).
    pub instances: usize,
    pub listen: CommandListen,
    pub output: CommandOutput,
    /// Bytes of memory of one instance's processes from which on it is replaced.
    pub memory: Option<u64>,
    /// Files and folders whose change has the instances replaced.
    pub watch: Vec<PathBuf>,
    /// Variable in which each instance finds a second port of its own, for what clients must not reach; none when `None`.
    pub admin_port: Option<String>,
    /// Path at which each instance tells its metrics, at that port where there is one.
    pub metrics: Option<Arc<str>>,
    /// Path that answers 2xx when an instance is ready; a TCP connection is enough when `None`.
    pub ready: Option<String>,
    /// Between two looks at an instance that serves.
    pub ready_interval: Duration,
    /// How long an instance may take to become ready, or give no sign of life, before it is restarted.
    pub ready_timeout: Duration,
    /// How long an instance may take to answer one look.
    pub ready_probe_timeout: Duration,
    /// What tells an instance to stop.
    pub stop_signal: StopSignal,
    /// Time for the requests under way before that signal, and again between it and SIGKILL.
    pub stop_timeout: Duration,
}

/// How an instance is told where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandListen {
    /// A port of 127.0.0.1, in `PORT`.
    Port,
    /// The path of a Unix socket, in `SOCKET`.
    Unix,
    /// One socket for all of them, which the edge has bound: its descriptor's number, in `LISTEN_FD`.
    Shared,
}

impl CommandListen {
    /// The variable that the edge sets.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Port => "PORT",
            Self::Unix => "SOCKET",
            Self::Shared => "LISTEN_FD",
        }
    }

    /// What stands for its value in an argument.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Port => "{port}",
            Self::Unix => "{socket}",
            Self::Shared => "{fd}",
        }
    }
}

/// Where the lines go that instances print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutput {
    /// Into the edge's own log.
    Log,
    /// To the end of a file.
    File(PathBuf),
}

/// The signal by which a program is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
}

impl Command {
    /// A command with every default.
    pub fn new(name: &str, run: Vec<String>) -> Command {
        Command {
            name: name.into(),
            run,
            directory: None,
            environment: BTreeMap::new(),
            env_file: None,
            user: None,
            group: None,
            instances: 1,
            listen: CommandListen::Port,
            output: CommandOutput::Log,
            memory: None,
            watch: Vec::new(),
            admin_port: None,
            metrics: None,
            ready: None,
            ready_interval: Duration::from_secs(5),
            ready_timeout: Duration::from_secs(60),
            ready_probe_timeout: Duration::from_secs(2),
            stop_signal: StopSignal::Term,
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// What happens to which requests.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in the file; also in logs and metrics.
    pub name: Arc<str>,
    /// Hosts it is for; empty means every host.
    pub hosts: Vec<HostPattern>,
    /// Paths it is for, at least one.
    pub paths: Vec<PathPattern>,
    /// What else a request for it must have.
    pub asks: Asks,
    /// Which clients it is for; 403 for others.
    pub addresses: AddressRules,
    /// Who may come in; everyone where `None`.
    pub basic_auth: Option<Arc<BasicAuth>>,
    /// Who admits its requests one by one; nobody where `None`.
    pub forward_auth: Option<Arc<ForwardAuth>>,
    /// What may close it for a while; the file's own `maintenance` where it has none.
    pub maintenance: Option<Arc<MaintenanceSettings>>,
    /// What becomes of its requests.
    pub action: RouteAction,
    /// How their paths change on the way upstream.
    pub rewrite: PathRewrite,
    /// Fields that its answers have otherwise than what they are made of.
    pub response_fields: ResponseFields,
    /// Which other sites' scripts may read them; as the upstream says where `None`.
    pub cors: Option<Arc<CrossOrigin>>,
    pub security: SecurityFields,
    /// Where something new is tried.
    pub canary: Option<Canary>,
    /// Which requests may be sent to a second server although the first may have seen them.
    pub resend: ResendRules,
    /// Bytes of a request's content up to which all of it is received before the upstream is asked.
    pub receive_first: u64,
    /// What connections may be upgraded to.
    pub upgrades: Arc<[UpgradeProtocol]>,
    /// How often a client may ask: each of them has to admit a request.
    pub limits: Vec<Arc<Limit>>,
    /// What is stored and for how long.
    pub rules: Rules,
    /// Which differences of the query make another resource.
    pub query: QueryRules,
    /// What else of a request makes another answer.
    pub key: KeyParts,
    /// Fields that have a request go past the cache.
    pub bypass: Vec<Sign>,
    /// What is read from the cache beside GET and HEAD.
    pub also: Vec<BesideGet>,
    /// Bytes of the slices that are fetched and stored each by itself; wholes and parts as clients ask for them where `None`.
    pub slice: Option<u64>,
    /// `Cache-Control` sent downstream in place of the origin's, for successful cacheable answers.
    pub browser: Option<HeaderValue>,
    /// Whether answers are coded (gzip, br, zstd) for clients that accept it.
    pub compress: bool,
    /// The types of content that are coded.
    pub compress_types: Arc<[MediaRange]>,
    /// Whether gzip of the origin's is decoded for clients that refuse it.
    pub decompress: bool,
    /// Whether the preloads of a stored page go ahead as 103 (RFC 8297) while the origin is asked about it.
    pub early_hints: bool,
    /// What becomes of paths with an encoded slash.
    pub encoded_slash: EncodedSlash,
    pub times: RouteTimes,
    pub bounds: RouteBounds,
}

/// A name and a password that a route asks for (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// The file of its users.
    pub file: PathBuf,
    pub users: Users,
    /// The `WWW-Authenticate` of a refusal.
    pub challenge: HeaderValue,
}

/// What becomes of a path with `%2F`, which some servers take for `/` and others not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlash {
    /// It goes on as it is, where both readings take the same route, and is refused otherwise.
    #[default]
    Keep,
    /// It becomes `/`, for routes, key and upstream.
    Decode,
    /// 400.
    Refuse,
}

/// How long the parts of an exchange may take on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimes {
    /// From a request without content to the head of its answer: `timeouts.total`.
    pub total: Duration,
    /// From a request's end to the head of its upstream's answer: the upstream's `response_timeout`.
    pub first_byte: Duration,
    /// Between two pieces of the upstream's answer: its `idle_timeout`.
    pub between_bytes: Duration,
    /// Between two pieces of a request's content: `timeouts.body`.
    pub upload_pause: Duration,
    /// From a request's head to the last byte of its answer, where that has a limit.
    pub whole: Option<Duration>,
}

impl RouteTimes {
    /// How long a connection may at most be without movement while a request of the route is under way.
    pub fn longest_silence(&self) -> Duration {
        self.total.max(self.first_byte) + self.upload_pause + self.between_bytes
    }
}

/// How much a route may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteBounds {
    /// Bytes of one request's body: `bounds.body`.
    pub body: u64,
    /// Requests under way that need the upstream, where that has a bound.
    pub requests: Option<usize>,
    /// Those of one client.
    pub requests_per_client: Option<usize>,
}

/// Which requests may be sent again, beside those whose method is idempotent and that have no content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResendRules {
    /// Bytes of a request's content that are held so that it can be sent again.
    pub content: u64,
    /// Methods that are not idempotent and may be sent again all the same.
    pub methods: Vec<Method>,
}

/// A protocol for which a client's HTTP/1.1 connection may become a tunnel to the upstream (RFC 9110 §7.8), in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeProtocol(Box<str>);

impl UpgradeProtocol {
    /// The one that browsers speak (RFC 6455).
    pub const WEBSOCKET: &'static str = "websocket";

    /// Whether this is its name.
    pub fn is(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.0.as_bytes())
    }

    /// What routes pass on unless they say otherwise.
    pub fn defaults() -> Arc<[Self]> {
        Arc::new([Self(Self::WEBSOCKET.into())])
    }
}

impl fmt::Display for UpgradeProtocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Media types as the file writes them: `text/css`, or with one `*` for any text, as in `text/*` and `application/*+json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRange {
    /// In lower case, up to the `*` or all of it.
    before: Box<str>,
    /// After the `*`, if there is one.
    after: Option<Box<str>>,
}

impl MediaRange {
    /// Types in lower case.
    fn new(text: &str) -> Self {
        match text.split_once('*') {
            Some((before, after)) => Self { before: before.into(), after: Some(after.into()) },
            None => Self { before: text.into(), after: None },
        }
    }

    /// Whether it has a type, in lower case and without parameters.
    pub fn holds(&self, media_type: &str) -> bool {
        match &self.after {
            None => media_type == &*self.before,
            Some(after) => {
                media_type.strip_prefix(&*self.before).is_some_and(|rest| rest.ends_with(&**after))
            }
        }
    }

    /// What shrinks: text in its many guises, and formats without a coding of their own.
    pub fn defaults() -> Arc<[Self]> {
        COMPRESS_TYPES.iter().map(|text| Self::new(text)).collect()
    }
}

const COMPRESS_TYPES: [&str; 28] = [
    "text/*",
    "application/*+json",
    "application/*+xml",
    "application/*+yaml",
    "application/javascript",
    "application/json",
    "application/jsonl",
    "application/ndjson",
    "application/toml",
    "application/vnd.apple.mpegurl",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-mpegurl",
    "application/x-ndjson",
    "application/x-sh",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
    "audio/mpegurl",
    "audio/x-mpegurl",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/svg+xml",
    "image/vnd.microsoft.icon",
    "image/x-icon",
    "model/gltf+json",
];

/// Deadlines of the public side. None is ever infinite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// Time to send a whole request head.
    pub header: Duration,
    /// Time between two pieces of a body, either way, while the client does not read or write.
    pub body: Duration,
    /// Time that a connection may have no request.
    pub idle: Duration,
    /// Time from a request without content to the head of its answer.
    pub total: Duration,
    /// Time for all of a request's content.
    pub upload: Duration,
    /// Time that an upgraded connection (a WebSocket) may be silent on both sides.
    pub tunnel: Duration,
    /// Time that a stop permits connections to finish.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            total: Duration::from_secs(60),
            upload: Duration::from_secs(3600),
            tunnel: Duration::from_secs(600),
            drain: Duration::from_secs(30),
        }
    }
}

/// Bounds of the public side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Client connections at once, over all listeners.
    pub connections: usize,
    /// Of those, connections of one client.
    pub connections_per_client: usize,
    /// TLS handshakes under way at once, over all listeners.
    pub handshakes: usize,
    /// Requests of one client that need an upstream at once, where that has a bound.
    pub requests_per_client: Option<usize>,
    /// HTTP/2 streams at once on one connection.
    pub streams: u32,
    /// HTTP/2 streams begun in a second on one connection.
    pub streams_per_second: u32,
    /// Frames that carry nothing, in a second on one HTTP/2 connection, beside those for its requests and answers.
    pub control_frames_per_second: u32,
    /// Bytes of one head, a request's or an upstream's answer's.
    pub head: usize,
    /// Header lines of one head, either way.
    pub fields: usize,
    /// Bytes of one request's body; larger is 413.
    pub body: u64,
    /// Bytes a second that a request's body must reach on the average, after its first `timeouts.body`.
    pub body_rate: u64,
    /// Bytes of answers over HTTP/2 that may wait for their clients, over all connections.
    pub unsent: u64,
    /// Bytes of requests' contents that are received before they are sent on, or held to be sent again.
    pub held_content: u64,
}

impl Bounds {
    /// The connections of one client where the file does not say how many, of so many in all.
    pub fn share_of_a_client(connections: usize) -> usize {
        (connections / 10).max(SMALLEST_SHARE).min(connections)
    }

    /// The requests of one client that need an upstream at once.
    pub fn requests_per_client(&self) -> usize {
        self.requests_per_client.unwrap_or(usize::MAX)
    }

    /// What a head may be.
    pub const fn of_heads(&self) -> HeadBounds {
        HeadBounds { head: self.head, fields: self.fields }
    }
}

/// How large a head may be, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBounds {
    /// Bytes.
    pub head: usize,
    /// Header lines.
    pub fields: usize,
}

impl fmt::Display for HeadBounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ByteSize(self.head as u64);
        write!(
            formatter,
            "exceeds bounds.head ({head}) or has more lines than bounds.fields ({})",
            self.fields
        )
    }
}

/// Connections that browsers behind one address need.
const SMALLEST_SHARE: usize = 64;

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: 20_000,
            connections_per_client: Self::share_of_a_client(20_000),
            handshakes: 1000,
            requests_per_client: None,
            streams: 128,
            streams_per_second: 20_000,
            control_frames_per_second: 1000,
            head: 64 << 10,
            fields: 100,
            body: 64 << 20,
            body_rate: 1 << 10,
            unsent: 128 << 20,
            held_content: 64 << 20,
        }
    }
}

/// The access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// How a request's line looks; `None`: as it suits where it goes.
    pub format: Option<LogFormat>,
}

impl LogSettings {
    /// How lines look that go there: at a terminal for people, else for programs, where the file says nothing.
    #[must_use]
    pub fn format_at(&self, place: &impl IsTerminal) -> LogFormat {
        let suits = || if place.is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
        self.format.unwrap_or_else(suits)
    }
}

/// How an access-log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
    /// No access log.
    Off,
}

#[cfg(test)]
mod tests;
