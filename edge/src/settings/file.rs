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
    EncodedSlash, ForwardedBy, HostPattern, Hsts, IdentityPart, KeyType, LogFormat, MOST_CERTIFICATES,
    MediaRange, OverloadControl, ProxyProtocol, RedisUrl, RequestField, RequestIdInAnswers, ResponseField,
    SecurityFields, StopSignal, TlsVersion, Unheard, UnknownNames, UpgradeProtocol,
    error::Fault,
    foreign,
    notation::{Notation, Shape as _, tables},
    sources::IncludePattern,
    texts::SourceTexts,
    value::{
        AskUrl, AtMost, ByteSize, CertificateName, CertifiedPattern, CheckPath, CookieNames, CookieSign,
        Count, Deadline, Directory, Email, FieldSign, Host, Instances, Lifetimes, LimitNames, PathPrefix,
        Paths, Percent, Positive, PositiveSize, ProxyPeers, Rate, Ready, ServedName, ServedNames,
        ServerError, Table, Text, Threads, UnsafeMethod, WellStatus, Written, WrittenFiles,
        WrittenMaintenance, WrittenRedirect, WrittenRespond, WrittenServer, nearest_or_list,
    },
};

/// Tables by name, as in `[limits.api]`.
pub(super) type Named<T> = BTreeMap<Spanned<String>, Table<T>>;

tables! {
    /// The whole file.
    #[derive(Default)]
    struct WrittenFile {
        #[serde(default)]
        include: Vec<Written<IncludePattern>>,
        threads: Option<Written<Threads>>,
        watch: Option<Written<bool>>,
        #[serde(default)]
        listen: Vec<Table<WrittenListen>>,
        admin: Option<Table<WrittenAdmin>>,
        acme: Option<Table<WrittenAcme>>,
        cache: Option<Table<WrittenCache>>,
        redis: Option<Table<WrittenRedis>>,
        clients: Option<Table<WrittenClients>>,
        purge: Option<Table<WrittenPurgeAccess>>,
        #[serde(default)]
        name_servers: Vec<Written<SocketAddr>>,
        #[serde(default)]
        limits: Named<WrittenLimit>,
        #[serde(default)]
        commands: Named<WrittenCommand>,
        #[serde(default)]
        upstreams: Named<WrittenUpstream>,
        #[serde(default)]
        routes: Vec<Table<WrittenRoute>>,
        error_pages: Option<Written<PathBuf>>,
        maintenance: Option<Spanned<WrittenMaintenance>>,
        timeouts: Option<Table<WrittenTimeouts>>,
        bounds: Option<Table<WrittenBounds>>,
        log: Option<Table<WrittenLog>>,
    }

    /// `[[listen]]`
    struct WrittenListen {
        address: Option<Written<SocketAddr>>,
        tls: Option<Table<WrittenTls>>,
        #[serde(default)]
        certificates: Vec<Table<WrittenCertificate>>,
        domain: Option<Written<ServedNames>>,
        on_demand: Option<Written<bool>>,
        clear_text: Option<Written<ClearText>>,
        proxy_protocol: Option<Written<ProxyPeers>>,
        hsts: Option<Written<Hsts>>,
    }

    /// `tls = { .. }` of a listener.
    #[derive(Default)]
    struct WrittenTls {
        certificate: Option<Written<PathBuf>>,
        key: Option<Written<PathBuf>>,
        local_ca: Option<Written<bool>>,
        ocsp: Option<Written<PathBuf>>,
        folder: Option<Written<PathBuf>>,
        default: Option<Written<ServedName>>,
        unknown_names: Option<Written<UnknownNames>>,
        minimum_version: Option<Written<TlsVersion>>,
        client_certificates: Option<Table<WrittenClientCertificates>>,
    }

    /// `client_certificates = { .. }` of a listener's `tls`.
    struct WrittenClientCertificates {
        ca: Option<Written<PathBuf>>,
        required: Option<Written<bool>>,
        #[serde(default)]
        fields: BTreeMap<Spanned<String>, Written<IdentityPart>>,
    }

    /// `[[listen.certificates]]`
    struct WrittenCertificate {
        certificate: Option<Written<PathBuf>>,
        key: Option<Written<PathBuf>>,
        ocsp: Option<Written<PathBuf>>,
    }

    /// `[purge]`
    struct WrittenPurgeAccess {
        allow: Option<Spanned<Vec<Written<IpNet>>>>,
        token_file: Option<Written<PathBuf>>,
        soft: Option<Written<bool>>,
    }

    /// `[acme]`
    #[derive(Default)]
    struct WrittenAcme {
        directory: Option<Written<Directory>>,
        email: Option<Written<Email>>,
        terms_agreed: Option<Written<bool>>,
        profile: Option<Written<Text>>,
        key_type: Option<Written<KeyType>>,
        eab: Option<Table<WrittenEab>>,
        folder: Option<Written<PathBuf>>,
        ca: Option<Written<PathBuf>>,
        on_demand: Option<Table<WrittenOnDemand>>,
    }

    /// `[acme.on_demand]`
    struct WrittenOnDemand {
        #[serde(default)]
        names: Vec<Written<CertifiedPattern>>,
        ask: Option<Written<AskUrl>>,
        certificates: Option<Written<AtMost<MOST_ON_DEMAND>>>,
        orders_per_hour: Option<Written<AtMost<MOST_ORDERS>>>,
    }

    /// `eab = { .. }` of `[acme]`
    struct WrittenEab {
        key_id: Option<Written<Text>>,
        key_file: Option<Written<PathBuf>>,
    }

    /// `[admin]`
    struct WrittenAdmin {
        address: Option<Written<AdminAddress>>,
        token_file: Option<Written<PathBuf>>,
        #[serde(default)]
        hosts: Vec<Written<Host>>,
    }

    /// `[cache]`
    #[derive(Default)]
    struct WrittenCache {
        memory: Option<Written<PositiveSize>>,
        largest_object: Option<Written<PositiveSize>>,
        variants: Option<Written<Positive>>,
    }

    /// `[redis]`
    struct WrittenRedis {
        url: Option<Written<RedisUrl>>,
        password_file: Option<Written<PathBuf>>,
        ca: Option<Written<PathBuf>>,
        sentinels: Option<Spanned<Vec<Written<RedisUrl>>>>,
        secret_file: Option<Written<PathBuf>>,
        namespace: Option<Written<Text>>,
        look_up_timeout: Option<Written<Deadline>>,
        collapse_timeout: Option<Written<Deadline>>,
        largest_object: Option<Written<PositiveSize>>,
        max_ttl: Option<Written<Deadline>>,
        compress: Option<bool>,
        unheard: Option<Written<Unheard>>,
    }

    /// `[clients]`
    #[derive(Default)]
    struct WrittenClients {
        #[serde(default)]
        trusted_proxies: Vec<Written<IpNet>>,
        forwarded_by: Option<Written<ForwardedBy>>,
        request_id_in_answers: Option<Written<RequestIdInAnswers>>,
        remembered: Option<Written<AtMost<MOST_REMEMBERED>>>,
    }

    /// `[limits.NAME]`
    struct WrittenLimit {
        rate: Option<Written<Rate>>,
        burst: Option<Written<Positive>>,
        key: Option<Written<CountedBy>>,
        #[serde(default)]
        cost: BTreeMap<Spanned<String>, Written<Positive>>,
        except: Option<Spanned<Vec<Written<IpNet>>>>,
        dry_run: Option<Written<bool>>,
    }

    /// `[commands.NAME]`
    struct WrittenCommand {
        run: Option<Spanned<Vec<Written<Text>>>>,
        directory: Option<Written<PathBuf>>,
        #[serde(default)]
        environment: BTreeMap<Spanned<String>, Written<String>>,
        env_file: Option<Written<PathBuf>>,
        user: Option<Written<Text>>,
        group: Option<Written<Text>>,
        instances: Option<Written<Instances>>,
        listen: Option<Written<CommandListen>>,
        output: Option<Written<CommandOutput>>,
        memory: Option<Written<PositiveSize>>,
        #[serde(default)]
        watch: Vec<Written<PathBuf>>,
        admin_port: Option<Written<Text>>,
        metrics: Option<Written<CheckPath>>,
        ready: Option<Written<Ready>>,
        ready_interval: Option<Written<Deadline>>,
        ready_timeout: Option<Written<Deadline>>,
        ready_probe_timeout: Option<Written<Deadline>>,
        stop_signal: Option<Written<StopSignal>>,
        stop_timeout: Option<Written<Deadline>>,
    }

    /// `[upstreams.NAME]`
    struct WrittenUpstream {
        servers: Option<Spanned<Vec<Spanned<WrittenServer>>>>,
        tls: Option<Table<WrittenUpstreamTls>>,
        connect_timeout: Option<Written<Deadline>>,
        response_timeout: Option<Written<Deadline>>,
        idle_timeout: Option<Written<Deadline>>,
        collapse_timeout: Option<Written<Deadline>>,
        keep_alive: Option<Written<Deadline>>,
        connection_age: Option<Written<Deadline>>,
        connections: Option<Written<Positive>>,
        streams: Option<Written<Positive>>,
        tunnels: Option<Written<Count>>,
        waiting: Option<Written<Count>>,
        waiting_timeout: Option<Written<Deadline>>,
        balance: Option<Written<Balance>>,
        slow_start: Option<Written<Duration>>,
        check: Option<Table<WrittenCheck>>,
        failures: Option<Written<Positive>>,
        failing_statuses: Option<Vec<Written<ServerError>>>,
        put_aside: Option<Written<Deadline>>,
        retries: Option<Written<Percent>>,
        hedge: Option<Written<Percent>>,
        overload: Option<Written<OverloadControl>>,
        proxy_protocol: Option<Written<ProxyProtocol>>,
        #[serde(default)]
        request_fields: BTreeMap<Spanned<String>, Written<RequestField>>,
    }

    /// `tls = { .. }` of an upstream.
    #[derive(Default)]
    struct WrittenUpstreamTls {
        ca: Option<Written<PathBuf>>,
        server_name: Option<Written<CertificateName>>,
        certificate: Option<Written<PathBuf>>,
        key: Option<Written<PathBuf>>,
        verify: Option<Written<bool>>,
    }

    /// `check = { .. }` of an upstream.
    struct WrittenCheck {
        path: Option<Written<CheckPath>>,
        host: Option<Written<Text>>,
        status: Option<Vec<Written<WellStatus>>>,
        body: Option<Written<Text>>,
        interval: Option<Written<Deadline>>,
        timeout: Option<Written<Deadline>>,
        rise: Option<Written<Positive>>,
        fall: Option<Written<Positive>>,
    }

    /// `[[routes]]`
    struct WrittenRoute {
        name: Option<Written<Text>>,
        hosts: Option<Spanned<Vec<Written<HostPattern>>>>,
        path: Option<Written<Paths>>,
        methods: Option<Spanned<Vec<Written<Method>>>>,
        headers: Option<Spanned<Vec<Written<FieldSign>>>>,
        upstream: Option<Written<Text>>,
        files: Option<Spanned<WrittenFiles>>,
        redirect: Option<Spanned<WrittenRedirect>>,
        respond: Option<Spanned<WrittenRespond>>,
        allow: Option<Spanned<Vec<Written<IpNet>>>>,
        deny: Option<Spanned<Vec<Written<IpNet>>>>,
        basic_auth: Option<Table<WrittenBasicAuth>>,
        forward_auth: Option<Table<WrittenForwardAuth>>,
        maintenance: Option<Spanned<WrittenMaintenance>>,
        strip_prefix: Option<Written<PathPrefix>>,
        add_prefix: Option<Written<PathPrefix>>,
        rewrite: Option<Table<WrittenSubstitution>>,
        #[serde(default)]
        response_fields: BTreeMap<Spanned<String>, Written<ResponseField>>,
        cors: Option<Table<WrittenCrossOrigin>>,
        security: Option<Written<SecurityFields>>,
        canary: Option<Table<WrittenCanary>>,
        resend: Option<Table<WrittenResend>>,
        receive_first: Option<Written<ByteSize>>,
        upgrades: Option<Spanned<Vec<Written<UpgradeProtocol>>>>,
        limit: Option<Written<LimitNames>>,
        compress: Option<Written<bool>>,
        compress_types: Option<Spanned<Vec<Written<MediaRange>>>>,
        decompress: Option<Written<bool>>,
        early_hints: Option<Written<bool>>,
        encoded_slash: Option<Written<EncodedSlash>>,
        timeouts: Option<Table<WrittenRouteTimeouts>>,
        bounds: Option<Table<WrittenRouteBounds>>,
        cache: Option<Table<WrittenRouteCache>>,
    }

    /// `forward_auth = { .. }` of a route.
    struct WrittenForwardAuth {
        upstream: Option<Written<Text>>,
        path: Option<Written<CheckPath>>,
        copy: Option<Spanned<Vec<Written<HeaderName>>>>,
    }

    /// `cors = { .. }` of a route.
    struct WrittenCrossOrigin {
        origins: Option<Written<AllowedOrigins>>,
        methods: Option<Spanned<Vec<Written<Method>>>>,
        headers: Option<Spanned<Vec<Written<HeaderName>>>>,
        expose: Option<Spanned<Vec<Written<HeaderName>>>>,
        credentials: Option<Written<bool>>,
        max_age: Option<Written<Duration>>,
    }

    /// `rewrite = { .. }` of a route.
    struct WrittenSubstitution {
        from: Option<Written<Text>>,
        to: Option<Written<Text>>,
    }

    /// `basic_auth = { .. }` of a route.
    struct WrittenBasicAuth {
        users: Option<Written<PathBuf>>,
        realm: Option<Written<Text>>,
    }

    /// `resend = { .. }` of a route.
    #[derive(Default)]
    struct WrittenResend {
        content: Option<Written<ByteSize>>,
        methods: Option<Vec<Written<UnsafeMethod>>>,
    }

    /// `timeouts = { .. }` of a route.
    #[derive(Default)]
    struct WrittenRouteTimeouts {
        total: Option<Written<Deadline>>,
        first_byte: Option<Written<Deadline>>,
        between_bytes: Option<Written<Deadline>>,
        whole: Option<Written<Deadline>>,
    }

    /// `bounds = { .. }` of a route.
    #[derive(Default)]
    struct WrittenRouteBounds {
        body: Option<Written<ByteSize>>,
        requests: Option<Written<Positive>>,
        requests_per_client: Option<Written<Positive>>,
    }

    /// `canary = { .. }` of a route.
    struct WrittenCanary {
        upstream: Option<Written<Text>>,
        share: Option<Written<Percent>>,
        header: Option<Written<FieldSign>>,
        cookie: Option<Written<CookieSign>>,
    }

    /// `cache = { .. }` of a route.
    #[derive(Default)]
    struct WrittenRouteCache {
        ttl: Option<Spanned<Lifetimes>>,
        default_ttl: Option<Written<Duration>>,
        min_ttl: Option<Written<Duration>>,
        max_ttl: Option<Written<Duration>>,
        stale_while_revalidate: Option<Written<Duration>>,
        stale_if_error: Option<Written<Duration>>,
        browser: Option<Written<HeaderValue>>,
        set_cookie: Option<Written<SetCookie>>,
        cookies: Option<Written<Cookies>>,
        ignore_cookies: Option<Written<IgnoredCookies>>,
        client_directives: Option<Written<ClientDirectives>>,
        heuristic: Option<Written<bool>>,
        stale_on_disconnect: Option<Written<Duration>>,
        stale_on_status: Option<Written<bool>>,
        targeted: Option<Vec<Written<HeaderName>>>,
        tag_fields: Option<Vec<Written<HeaderName>>>,
        max_tags: Option<Written<AtMost<MOST_TAGS>>>,
        ranges: Option<Written<Ranges>>,
        by_language: Option<Written<bool>>,
        undated_unmodified: Option<Written<bool>>,
        query: Option<Table<WrittenQuery>>,
        key: Option<Table<WrittenKeyParts>>,
        bypass: Option<Table<WrittenBypass>>,
        also: Option<Vec<Written<BesideGet>>>,
        slice: Option<Written<ByteSize>>,
    }

    /// `key = { .. }` of a route's cache.
    struct WrittenKeyParts {
        headers: Option<Spanned<Vec<Written<HeaderName>>>>,
        cookies: Option<Spanned<Vec<Written<Text>>>>,
        country: Option<Written<HeaderName>>,
    }

    /// `bypass = { .. }` of a route's cache.
    struct WrittenBypass {
        headers: Option<Spanned<Vec<Written<FieldSign>>>>,
        cookies: Option<Written<CookieNames>>,
    }

    /// `query = { .. }` of a route's cache.
    #[derive(Default)]
    struct WrittenQuery {
        keep: Option<Vec<Written<Text>>>,
        #[serde(default)]
        drop: Vec<Written<Text>>,
        sort: Option<Written<bool>>,
    }

    /// `[timeouts]`
    #[derive(Default)]
    struct WrittenTimeouts {
        handshake: Option<Written<Deadline>>,
        header: Option<Written<Deadline>>,
        body: Option<Written<Deadline>>,
        idle: Option<Written<Deadline>>,
        total: Option<Written<Deadline>>,
        upload: Option<Written<Deadline>>,
        tunnel: Option<Written<Deadline>>,
        drain: Option<Written<Deadline>>,
    }

    /// `[bounds]`
    #[derive(Default)]
    struct WrittenBounds {
        connections: Option<Written<Positive>>,
        connections_per_client: Option<Written<Positive>>,
        handshakes: Option<Written<Positive>>,
        requests_per_client: Option<Written<Positive>>,
        streams: Option<Written<Positive>>,
        streams_per_second: Option<Written<Positive>>,
        control_frames_per_second: Option<Written<Positive>>,
        head: Option<Written<PositiveSize>>,
        fields: Option<Written<AtMost<MOST_FIELDS>>>,
        body: Option<Written<ByteSize>>,
        body_rate: Option<Written<ByteSize>>,
        unsent: Option<Written<ByteSize>>,
        held_content: Option<Written<ByteSize>>,
    }

    /// `[log]`
    #[derive(Default)]
    struct WrittenLog {
        format: Option<Written<LogFormat>>,
    }
}

/// hyper makes room for so many lines before it reads a head.
const MOST_FIELDS: u32 = 10_000;
/// Clients.
const MOST_REMEMBERED: u32 = 10_000_000;
/// Tags of one answer: a head of 64 KiB hardly holds more.
const MOST_TAGS: u32 = 10_000;
/// Certificates of one listener, as of those that lie in a folder.
const MOST_ON_DEMAND: u32 = MOST_CERTIFICATES as u32;
/// In an hour: each is remembered for as long.
const MOST_ORDERS: u32 = 1000;

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

/// What a file may hold.
pub fn notation() -> Notation {
    WrittenFile::notation()
}

/// Every key of every table with the tables around it, as in `listen.tls.key`.
pub fn known_keys() -> Vec<String> {
    fn collect(around: &str, table: &[(&str, Notation)], keys: &mut Vec<String>) {
        for (key, value) in table {
            let key = format!("{around}{key}");
            if let Some(within) = value.table() {
                collect(&format!("{key}."), within, keys);
            }
            keys.push(key);
        }
    }
    let mut keys = Vec::new();
    collect("", notation().table().unwrap_or_default(), &mut keys);
    keys
}
