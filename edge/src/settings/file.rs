//! The file as written: which tables and keys there are, and where each value stands.
//!
//! Owns the shape alone. Whether the values fit together is [`resolve`](super::resolve)'s question; a value that
//! cannot be read is carried there as a refusal. Never fills in a default.

use std::{collections::BTreeMap, net::SocketAddr, ops::Range, path::PathBuf, time::Duration};

use cache_policy::{ClientDirectives, Cookies, IgnoredCookies, Ranges, SetCookie};
use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    AdminAddress, AllowedOrigins, Balance, BesideGet, ClearText, CommandListen, CommandOutput, CountedBy,
    EncodedSlash, ForwardedBy, HostPattern, Hsts, IdentityPart, KeyType, LogFormat, MediaRange,
    OverloadControl, ProxyProtocol, RedisUrl, RequestField, RequestIdInAnswers, ResponseField,
    SecurityFields, StopSignal, TlsVersion, Unheard, UnknownNames, UpgradeProtocol,
    error::Fault,
    foreign,
    sources::IncludePattern,
    texts::SourceTexts,
    value::{
        ByteSize, CertificateName, CheckPath, CookieNames, CookieSign, Count, Deadline, Directory, Email,
        FieldSign, Host, Instances, Lifetimes, LimitNames, PathPrefix, Paths, Percent, Positive,
        PositiveSize, ProxyPeers, Rate, Ready, ServedName, ServedNames, ServerError, Table, Text, Threads,
        UnsafeMethod, WellStatus, Written, WrittenFiles, WrittenMaintenance, WrittenRedirect, WrittenRespond,
        WrittenServer, nearest_or_list,
    },
};

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenFile {
    #[serde(default)]
    pub(super) include: Vec<Written<IncludePattern>>,
    pub(super) threads: Option<Written<Threads>>,
    pub(super) watch: Option<Written<bool>>,
    #[serde(default)]
    pub(super) listen: Vec<Table<WrittenListen>>,
    pub(super) admin: Option<Table<WrittenAdmin>>,
    pub(super) acme: Option<Table<WrittenAcme>>,
    pub(super) cache: Option<Table<WrittenCache>>,
    pub(super) redis: Option<Table<WrittenRedis>>,
    pub(super) clients: Option<Table<WrittenClients>>,
    pub(super) purge: Option<Table<WrittenPurgeAccess>>,
    #[serde(default)]
    pub(super) name_servers: Vec<Written<SocketAddr>>,
    #[serde(default)]
    pub(super) limits: Named<WrittenLimit>,
    #[serde(default)]
    pub(super) commands: Named<WrittenCommand>,
    #[serde(default)]
    pub(super) upstreams: Named<WrittenUpstream>,
    #[serde(default)]
    pub(super) routes: Vec<Table<WrittenRoute>>,
    pub(super) error_pages: Option<Written<PathBuf>>,
    pub(super) maintenance: Option<Spanned<WrittenMaintenance>>,
    pub(super) timeouts: Option<Table<WrittenTimeouts>>,
    pub(super) bounds: Option<Table<WrittenBounds>>,
    pub(super) log: Option<Table<WrittenLog>>,
}

/// Tables by name, as in `[limits.api]`.
pub(super) type Named<T> = BTreeMap<Spanned<String>, Table<T>>;

/// `[[listen]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenListen {
    pub(super) address: Option<Written<SocketAddr>>,
    pub(super) tls: Option<Table<WrittenTls>>,
    #[serde(default)]
    pub(super) certificates: Vec<Table<WrittenCertificate>>,
    pub(super) domain: Option<Written<ServedNames>>,
    pub(super) clear_text: Option<Written<ClearText>>,
    pub(super) proxy_protocol: Option<Written<ProxyPeers>>,
    pub(super) hsts: Option<Written<Hsts>>,
}

/// `tls = { .. }` of a listener.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTls {
    pub(super) certificate: Option<Written<PathBuf>>,
    pub(super) key: Option<Written<PathBuf>>,
    pub(super) local_ca: Option<Written<bool>>,
    pub(super) ocsp: Option<Written<PathBuf>>,
    pub(super) folder: Option<Written<PathBuf>>,
    pub(super) default: Option<Written<ServedName>>,
    pub(super) unknown_names: Option<Written<UnknownNames>>,
    pub(super) minimum_version: Option<Written<TlsVersion>>,
    pub(super) client_certificates: Option<Table<WrittenClientCertificates>>,
}

/// `client_certificates = { .. }` of a listener's `tls`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenClientCertificates {
    pub(super) ca: Option<Written<PathBuf>>,
    pub(super) required: Option<Written<bool>>,
    #[serde(default)]
    pub(super) fields: BTreeMap<Spanned<String>, Written<IdentityPart>>,
}

/// `[[listen.certificates]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCertificate {
    pub(super) certificate: Option<Written<PathBuf>>,
    pub(super) key: Option<Written<PathBuf>>,
    pub(super) ocsp: Option<Written<PathBuf>>,
}

/// `[purge]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenPurgeAccess {
    pub(super) allow: Option<Spanned<Vec<Written<IpNet>>>>,
    pub(super) token_file: Option<Written<PathBuf>>,
    pub(super) soft: Option<Written<bool>>,
}

/// `[acme]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAcme {
    pub(super) directory: Option<Written<Directory>>,
    pub(super) email: Option<Written<Email>>,
    pub(super) terms_agreed: Option<Written<bool>>,
    pub(super) profile: Option<Written<Text>>,
    pub(super) key_type: Option<Written<KeyType>>,
    pub(super) eab: Option<Table<WrittenEab>>,
    pub(super) folder: Option<Written<PathBuf>>,
    pub(super) ca: Option<Written<PathBuf>>,
}

/// `eab = { .. }` of `[acme]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenEab {
    pub(super) key_id: Option<Written<Text>>,
    pub(super) key_file: Option<Written<PathBuf>>,
}

/// `[admin]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAdmin {
    pub(super) address: Option<Written<AdminAddress>>,
    pub(super) token_file: Option<Written<PathBuf>>,
    #[serde(default)]
    pub(super) hosts: Vec<Written<Host>>,
}

/// `[cache]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCache {
    pub(super) memory: Option<Written<PositiveSize>>,
    pub(super) largest_object: Option<Written<PositiveSize>>,
    pub(super) variants: Option<Written<Positive>>,
}

/// `[redis]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRedis {
    pub(super) url: Option<Written<RedisUrl>>,
    pub(super) password_file: Option<Written<PathBuf>>,
    pub(super) ca: Option<Written<PathBuf>>,
    pub(super) sentinels: Option<Spanned<Vec<Written<RedisUrl>>>>,
    pub(super) secret_file: Option<Written<PathBuf>>,
    pub(super) namespace: Option<Written<Text>>,
    pub(super) look_up_timeout: Option<Written<Deadline>>,
    pub(super) collapse_timeout: Option<Written<Deadline>>,
    pub(super) largest_object: Option<Written<PositiveSize>>,
    pub(super) max_ttl: Option<Written<Deadline>>,
    pub(super) compress: Option<bool>,
    pub(super) unheard: Option<Written<Unheard>>,
}

/// `[clients]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenClients {
    #[serde(default)]
    pub(super) trusted_proxies: Vec<Written<IpNet>>,
    pub(super) forwarded_by: Option<Written<ForwardedBy>>,
    pub(super) request_id_in_answers: Option<Written<RequestIdInAnswers>>,
    pub(super) remembered: Option<Written<Positive>>,
}

/// `[limits.NAME]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLimit {
    pub(super) rate: Option<Written<Rate>>,
    pub(super) burst: Option<Written<Positive>>,
    pub(super) key: Option<Written<CountedBy>>,
    #[serde(default)]
    pub(super) cost: BTreeMap<Spanned<String>, Written<Positive>>,
    pub(super) except: Option<Spanned<Vec<Written<IpNet>>>>,
    pub(super) dry_run: Option<Written<bool>>,
}

/// `[commands.NAME]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCommand {
    pub(super) run: Option<Spanned<Vec<Written<Text>>>>,
    pub(super) directory: Option<Written<PathBuf>>,
    #[serde(default)]
    pub(super) environment: BTreeMap<Spanned<String>, Written<String>>,
    pub(super) env_file: Option<Written<PathBuf>>,
    pub(super) user: Option<Written<Text>>,
    pub(super) group: Option<Written<Text>>,
    pub(super) instances: Option<Written<Instances>>,
    pub(super) listen: Option<Written<CommandListen>>,
    pub(super) output: Option<Written<CommandOutput>>,
    pub(super) memory: Option<Written<PositiveSize>>,
    #[serde(default)]
    pub(super) watch: Vec<Written<PathBuf>>,
    pub(super) admin_port: Option<Written<Text>>,
    pub(super) metrics: Option<Written<CheckPath>>,
    pub(super) ready: Option<Written<Ready>>,
    pub(super) ready_interval: Option<Written<Deadline>>,
    pub(super) ready_timeout: Option<Written<Deadline>>,
    pub(super) ready_probe_timeout: Option<Written<Deadline>>,
    pub(super) stop_signal: Option<Written<StopSignal>>,
    pub(super) stop_timeout: Option<Written<Deadline>>,
}

/// `[upstreams.NAME]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenUpstream {
    pub(super) servers: Option<Spanned<Vec<Spanned<WrittenServer>>>>,
    pub(super) tls: Option<Table<WrittenUpstreamTls>>,
    pub(super) connect_timeout: Option<Written<Deadline>>,
    pub(super) response_timeout: Option<Written<Deadline>>,
    pub(super) idle_timeout: Option<Written<Deadline>>,
    pub(super) collapse_timeout: Option<Written<Deadline>>,
    pub(super) keep_alive: Option<Written<Deadline>>,
    pub(super) connection_age: Option<Written<Deadline>>,
    pub(super) connections: Option<Written<Positive>>,
    pub(super) streams: Option<Written<Positive>>,
    pub(super) tunnels: Option<Written<Count>>,
    pub(super) waiting: Option<Written<Count>>,
    pub(super) waiting_timeout: Option<Written<Deadline>>,
    pub(super) balance: Option<Written<Balance>>,
    pub(super) slow_start: Option<Written<Duration>>,
    pub(super) check: Option<Table<WrittenCheck>>,
    pub(super) failures: Option<Written<Positive>>,
    pub(super) failing_statuses: Option<Vec<Written<ServerError>>>,
    pub(super) put_aside: Option<Written<Deadline>>,
    pub(super) retries: Option<Written<Percent>>,
    pub(super) hedge: Option<Written<Percent>>,
    pub(super) overload: Option<Written<OverloadControl>>,
    pub(super) proxy_protocol: Option<Written<ProxyProtocol>>,
    #[serde(default)]
    pub(super) request_fields: BTreeMap<Spanned<String>, Written<RequestField>>,
}

/// `tls = { .. }` of an upstream.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenUpstreamTls {
    pub(super) ca: Option<Written<PathBuf>>,
    pub(super) server_name: Option<Written<CertificateName>>,
    pub(super) certificate: Option<Written<PathBuf>>,
    pub(super) key: Option<Written<PathBuf>>,
    pub(super) verify: Option<Written<bool>>,
}

/// `check = { .. }` of an upstream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCheck {
    pub(super) path: Option<Written<CheckPath>>,
    pub(super) host: Option<Written<Text>>,
    pub(super) status: Option<Vec<Written<WellStatus>>>,
    pub(super) body: Option<Written<Text>>,
    pub(super) interval: Option<Written<Deadline>>,
    pub(super) timeout: Option<Written<Deadline>>,
    pub(super) rise: Option<Written<Positive>>,
    pub(super) fall: Option<Written<Positive>>,
}

/// `[[routes]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRoute {
    pub(super) name: Option<Written<Text>>,
    pub(super) hosts: Option<Spanned<Vec<Written<HostPattern>>>>,
    pub(super) path: Option<Written<Paths>>,
    pub(super) methods: Option<Spanned<Vec<Written<Method>>>>,
    pub(super) headers: Option<Spanned<Vec<Written<FieldSign>>>>,
    pub(super) upstream: Option<Written<Text>>,
    pub(super) files: Option<Spanned<WrittenFiles>>,
    pub(super) redirect: Option<Spanned<WrittenRedirect>>,
    pub(super) respond: Option<Spanned<WrittenRespond>>,
    pub(super) allow: Option<Spanned<Vec<Written<IpNet>>>>,
    pub(super) deny: Option<Spanned<Vec<Written<IpNet>>>>,
    pub(super) basic_auth: Option<Table<WrittenBasicAuth>>,
    pub(super) forward_auth: Option<Table<WrittenForwardAuth>>,
    pub(super) maintenance: Option<Spanned<WrittenMaintenance>>,
    pub(super) strip_prefix: Option<Written<PathPrefix>>,
    pub(super) add_prefix: Option<Written<PathPrefix>>,
    pub(super) rewrite: Option<Table<WrittenSubstitution>>,
    #[serde(default)]
    pub(super) response_fields: BTreeMap<Spanned<String>, Written<ResponseField>>,
    pub(super) cors: Option<Table<WrittenCrossOrigin>>,
    pub(super) security: Option<Written<SecurityFields>>,
    pub(super) canary: Option<Table<WrittenCanary>>,
    pub(super) resend: Option<Table<WrittenResend>>,
    pub(super) receive_first: Option<Written<ByteSize>>,
    pub(super) upgrades: Option<Spanned<Vec<Written<UpgradeProtocol>>>>,
    pub(super) limit: Option<Written<LimitNames>>,
    pub(super) compress: Option<Written<bool>>,
    pub(super) compress_types: Option<Spanned<Vec<Written<MediaRange>>>>,
    pub(super) decompress: Option<Written<bool>>,
    pub(super) early_hints: Option<Written<bool>>,
    pub(super) encoded_slash: Option<Written<EncodedSlash>>,
    pub(super) timeouts: Option<Table<WrittenRouteTimeouts>>,
    pub(super) bounds: Option<Table<WrittenRouteBounds>>,
    pub(super) cache: Option<Table<WrittenRouteCache>>,
}

/// `forward_auth = { .. }` of a route.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenForwardAuth {
    pub(super) upstream: Option<Written<Text>>,
    pub(super) path: Option<Written<CheckPath>>,
    pub(super) copy: Option<Spanned<Vec<Written<HeaderName>>>>,
}

/// `cors = { .. }` of a route.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCrossOrigin {
    pub(super) origins: Option<Written<AllowedOrigins>>,
    pub(super) methods: Option<Spanned<Vec<Written<Method>>>>,
    pub(super) headers: Option<Spanned<Vec<Written<HeaderName>>>>,
    pub(super) expose: Option<Spanned<Vec<Written<HeaderName>>>>,
    pub(super) credentials: Option<Written<bool>>,
    pub(super) max_age: Option<Written<Duration>>,
}

/// `rewrite = { .. }` of a route.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSubstitution {
    pub(super) from: Option<Written<Text>>,
    pub(super) to: Option<Written<Text>>,
}

/// `basic_auth = { .. }` of a route.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenBasicAuth {
    pub(super) users: Option<Written<PathBuf>>,
    pub(super) realm: Option<Written<Text>>,
}

/// `resend = { .. }` of a route.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenResend {
    pub(super) content: Option<Written<ByteSize>>,
    pub(super) methods: Option<Vec<Written<UnsafeMethod>>>,
}

/// `timeouts = { .. }` of a route.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRouteTimeouts {
    pub(super) total: Option<Written<Deadline>>,
    pub(super) first_byte: Option<Written<Deadline>>,
    pub(super) between_bytes: Option<Written<Deadline>>,
    pub(super) whole: Option<Written<Deadline>>,
}

/// `bounds = { .. }` of a route.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRouteBounds {
    pub(super) body: Option<Written<ByteSize>>,
    pub(super) requests: Option<Written<Positive>>,
    pub(super) requests_per_client: Option<Written<Positive>>,
}

/// `canary = { .. }` of a route.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCanary {
    pub(super) upstream: Option<Written<Text>>,
    pub(super) share: Option<Written<Percent>>,
    pub(super) header: Option<Written<FieldSign>>,
    pub(super) cookie: Option<Written<CookieSign>>,
}

/// `cache = { .. }` of a route.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRouteCache {
    pub(super) ttl: Option<Spanned<Lifetimes>>,
    pub(super) default_ttl: Option<Written<Duration>>,
    pub(super) min_ttl: Option<Written<Duration>>,
    pub(super) max_ttl: Option<Written<Duration>>,
    pub(super) stale_while_revalidate: Option<Written<Duration>>,
    pub(super) stale_if_error: Option<Written<Duration>>,
    pub(super) browser: Option<Written<HeaderValue>>,
    pub(super) set_cookie: Option<Written<SetCookie>>,
    pub(super) cookies: Option<Written<Cookies>>,
    pub(super) ignore_cookies: Option<Written<IgnoredCookies>>,
    pub(super) client_directives: Option<Written<ClientDirectives>>,
    pub(super) heuristic: Option<Written<bool>>,
    pub(super) stale_on_disconnect: Option<Written<Duration>>,
    pub(super) stale_on_status: Option<Written<bool>>,
    pub(super) targeted: Option<Vec<Written<HeaderName>>>,
    pub(super) max_tags: Option<Written<Positive>>,
    pub(super) ranges: Option<Written<Ranges>>,
    pub(super) by_language: Option<Written<bool>>,
    pub(super) undated_unmodified: Option<Written<bool>>,
    pub(super) query: Option<Table<WrittenQuery>>,
    pub(super) key: Option<Table<WrittenKeyParts>>,
    pub(super) bypass: Option<Table<WrittenBypass>>,
    pub(super) also: Option<Vec<Written<BesideGet>>>,
}

/// `key = { .. }` of a route's cache.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenKeyParts {
    pub(super) headers: Option<Spanned<Vec<Written<HeaderName>>>>,
    pub(super) cookies: Option<Spanned<Vec<Written<Text>>>>,
    pub(super) country: Option<Written<HeaderName>>,
}

/// `bypass = { .. }` of a route's cache.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenBypass {
    pub(super) headers: Option<Spanned<Vec<Written<FieldSign>>>>,
    pub(super) cookies: Option<Written<CookieNames>>,
}

/// `query = { .. }` of a route's cache.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenQuery {
    pub(super) keep: Option<Vec<Written<Text>>>,
    #[serde(default)]
    pub(super) drop: Vec<Written<Text>>,
    pub(super) sort: Option<Written<bool>>,
}

/// `[timeouts]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTimeouts {
    pub(super) handshake: Option<Written<Deadline>>,
    pub(super) header: Option<Written<Deadline>>,
    pub(super) body: Option<Written<Deadline>>,
    pub(super) idle: Option<Written<Deadline>>,
    pub(super) total: Option<Written<Deadline>>,
    pub(super) upload: Option<Written<Deadline>>,
    pub(super) tunnel: Option<Written<Deadline>>,
    pub(super) drain: Option<Written<Deadline>>,
}

/// `[bounds]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenBounds {
    pub(super) connections: Option<Written<Positive>>,
    pub(super) connections_per_client: Option<Written<Positive>>,
    pub(super) handshakes: Option<Written<Positive>>,
    pub(super) requests_per_client: Option<Written<Positive>>,
    pub(super) streams: Option<Written<Positive>>,
    pub(super) streams_per_second: Option<Written<Positive>>,
    pub(super) control_frames_per_second: Option<Written<Positive>>,
    pub(super) head: Option<Written<PositiveSize>>,
    pub(super) fields: Option<Written<Positive>>,
    pub(super) body: Option<Written<ByteSize>>,
    pub(super) body_rate: Option<Written<ByteSize>>,
    pub(super) unsent: Option<Written<ByteSize>>,
    pub(super) held_content: Option<Written<ByteSize>>,
}

/// `[log]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLog {
    pub(super) format: Option<Written<LogFormat>>,
}

/// Reads the shape, or says everything that is wrong with it; `texts` is what the document was read from.
pub(super) fn read(
    mut document: Spanned<DeTable<'_>>,
    texts: &SourceTexts,
) -> Result<WrittenFile, Vec<Fault>> {
    // serde stops at the first error. What it stopped at is taken out and the rest read again, to find them all.
    let mut faults = Vec::new();
    loop {
        let error = match WrittenFile::deserialize(toml::Deserializer::from(document.clone())) {
            Ok(file) if faults.is_empty() => return Ok(file),
            Ok(_) => return Err(faults),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        faults.push(shape_fault(&error, texts, span.clone()));
        if !remove(document.get_mut(), &span) {
            return Err(faults);
        }
    }
}

fn shape_fault(error: &toml::de::Error, texts: &SourceTexts, span: Range<usize>) -> Fault {
    let message = error.message();
    if let Some((_, expected)) =
        message.strip_prefix("unknown field `").and_then(|message| message.rsplit_once("`, expected "))
    {
        let key = texts.get(&span).trim_matches(['"', '\'']);
        let valid = expected.split('`').skip(1).step_by(2);
        let is_near = valid.clone().any(|known| strsim::osa_distance(key, known) == 1);
        let foreign = foreign::answer(key).filter(|_| !is_near).map(str::to_owned);
        let help = Some(foreign.unwrap_or_else(|| nearest_or_list(key, valid)));
        return Fault { span, message: format!("unknown key {key:?}"), help };
    }
    let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|types| types.split_once(", expected "))
    else {
        return Fault { span, message: message.to_owned(), help: None };
    };
    let help = match (found, expected) {
        ("map", "a sequence") => Some("there may be several: write [[..]] with two brackets".to_owned()),
        ("sequence", "a table") => {
            Some("there is only one: write [..] with one bracket, or { .. }".to_owned())
        }
        _ => None,
    };
    let found = match found {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        scalar => {
            scalar.replace('`', "").replacen("string", "the text", 1).replacen("integer", "the number", 1)
        }
    };
    let expected = if expected == "a sequence" { "a list" } else { expected };
    Fault { span, message: format!("expected {expected}, found {found}"), help }
}

/// Takes out the entry whose key or value stands exactly at `span`; false when there is none.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let here = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    if let Some(key) = here.map(|(key, _)| key.get_ref().clone()) {
        return table.remove(&*key).is_some();
    }
    table.iter_mut().any(|(_, value)| remove_within(value.get_mut(), span))
}

fn remove_within(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => remove(table, span),
        DeValue::Array(list) => list.iter_mut().any(|element| remove_within(element.get_mut(), span)),
        _ => false,
    }
}

/// Every key of every table with the tables around it, as in `listen.tls.key`; asked of serde, which lists them when it
/// meets one it does not know.
pub fn known_keys() -> Vec<String> {
    use super::value::{FilesTable, MaintenanceTable, RedirectTable, RespondTable, ServerTable};

    fn of<T: serde::de::DeserializeOwned>(table: &str) -> Vec<String> {
        let error = toml::from_str::<T>("'?' = 0").map(|_| ()).expect_err("no table has the key '?'");
        let (_, expected) = error.message().split_once("expected").expect("serde says what it expects");
        expected.split('`').skip(1).step_by(2).map(|key| format!("{table}{key}")).collect()
    }
    [
        of::<WrittenFile>(""),
        of::<WrittenListen>("listen."),
        of::<WrittenTls>("listen.tls."),
        of::<WrittenClientCertificates>("listen.tls.client_certificates."),
        of::<WrittenCertificate>("listen.certificates."),
        of::<WrittenAcme>("acme."),
        of::<WrittenEab>("acme.eab."),
        of::<WrittenAdmin>("admin."),
        of::<WrittenCache>("cache."),
        of::<WrittenRedis>("redis."),
        of::<WrittenClients>("clients."),
        of::<WrittenPurgeAccess>("purge."),
        of::<WrittenLimit>("limits."),
        of::<WrittenCommand>("commands."),
        of::<WrittenUpstream>("upstreams."),
        of::<ServerTable>("upstreams.servers."),
        of::<WrittenUpstreamTls>("upstreams.tls."),
        of::<WrittenCheck>("upstreams.check."),
        of::<WrittenRoute>("routes."),
        of::<FilesTable>("routes.files."),
        of::<MaintenanceTable>("routes.maintenance."),
        of::<MaintenanceTable>("maintenance."),
        of::<RedirectTable>("routes.redirect."),
        of::<RespondTable>("routes.respond."),
        of::<WrittenBasicAuth>("routes.basic_auth."),
        of::<WrittenForwardAuth>("routes.forward_auth."),
        of::<WrittenSubstitution>("routes.rewrite."),
        of::<WrittenCrossOrigin>("routes.cors."),
        of::<WrittenRouteTimeouts>("routes.timeouts."),
        of::<WrittenRouteBounds>("routes.bounds."),
        of::<WrittenCanary>("routes.canary."),
        of::<WrittenResend>("routes.resend."),
        of::<WrittenRouteCache>("routes.cache."),
        of::<WrittenQuery>("routes.cache.query."),
        of::<WrittenKeyParts>("routes.cache.key."),
        of::<WrittenBypass>("routes.cache.bypass."),
        of::<WrittenTimeouts>("timeouts."),
        of::<WrittenBounds>("bounds."),
        of::<WrittenLog>("log."),
    ]
    .concat()
}
