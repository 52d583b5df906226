//! From the file as written to [`Settings`]: defaults, names, and what must fit together.
//!
//! Promises: every independent fault is found in one go, each with the place to change and what to write there. After a
//! fault a default stands in, so that the rest can still be looked at; such settings never leave this module.

mod answers;
mod bounds;
mod clients;
mod commands;
mod listeners;
mod redis;
mod routes;
mod upstreams;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use http::HeaderName;
use toml::Spanned;

use super::{
    Bounds, ClearText, ErrorPages, Limit, Listen, LogSettings, MaintenanceSettings, OnDemandSettings,
    RequestField, Settings, Timeouts, UpstreamSettings, doubt,
    error::{Fault, Span},
    file::{Named, WrittenFile, WrittenListen, WrittenRoute},
    sources::SettingsSources,
    texts::SourceTexts,
    value::{AtMost, Deadline, Positive, PositiveSize, Table, Threads, Written, nearest_or_list},
};

/// Resolves a file whose shape is right; `texts` are what it was read from.
///
/// Beside the settings: what is no fault, and hardly meant.
pub(super) fn resolve(file: WrittenFile, texts: &SourceTexts) -> Result<(Settings, Vec<Fault>), Vec<Fault>> {
    let mut resolver = Resolver { texts, faults: Vec::new() };
    let names = doubt::WrittenPlaces::of(&file);
    let settings = resolver.settings(file);
    if !resolver.faults.is_empty() {
        return Err(resolver.faults);
    }
    let doubts = doubt::doubts(&settings, &names);
    Ok((settings, doubts))
}

static CORES: OnceLock<usize> = OnceLock::new();

/// What routes may name.
struct Known<'a> {
    upstreams: &'a BTreeMap<Arc<str>, Arc<UpstreamSettings>>,
    limits: &'a BTreeMap<Arc<str>, Arc<Limit>>,
    timeouts: &'a Timeouts,
    bounds: &'a Bounds,
    /// Bytes of the largest body that is kept.
    largest_object: u64,
    /// The port of the first listener with TLS.
    tls_port: Option<u16>,
    /// What may close routes that say nothing of it.
    maintenance: Option<&'a Arc<MaintenanceSettings>>,
}

struct Resolver<'a> {
    texts: &'a SourceTexts,
    faults: Vec<Fault>,
}

impl Resolver<'_> {
    fn settings(&mut self, file: WrittenFile) -> Settings {
        let asks = |listen: &WrittenListen| listen.domain.is_some() || listen.on_demand.is_some();
        let wanted = file.listen.iter().any(|listen| asks(&listen.value));
        let acme = self.acme(file.acme, wanted);
        let listeners = self.listeners(file.listen, &acme);
        let on_demand = acme.on_demand.clone();
        let has_domains = |listen: &Listen| {
            listen.tls.as_ref().is_some_and(|tls| !tls.domains.is_empty() || tls.on_demand.is_some())
        };
        let over_tls = listeners.iter().find(|(_, listen)| has_domains(listen));
        let over_tls = over_tls.or_else(|| listeners.iter().find(|(_, listen)| listen.tls.is_some()));
        let tls_port = over_tls.map(|(_, listen)| listen.address.port());
        let identity_fields = identity_fields(&listeners);
        let limits = self.named(file.limits, Resolver::limit);
        let commands = self.named(file.commands, Resolver::command);
        let bounds = self.bounds(file.bounds);
        let timeouts = self.timeouts(file.timeouts);
        let upstreams = self.named(file.upstreams, |resolver, name, span, upstream| {
            let upstream = resolver.upstream(name, span.clone(), upstream, &commands);
            let kept = |name: &&HeaderName| upstream.request_fields.of(name) == Some(&RequestField::Kept);
            if let Some(name) = identity_fields.iter().find(kept) {
                let message =
                    format!("a client's own {name} would pass for what a listener tells of its certificate");
                resolver.fault(span, message, format!("take {name} out of `request_fields`"));
            }
            let identity_fields = Arc::clone(&identity_fields);
            let (heads, tunnel) = (bounds.of_heads(), timeouts.tunnel);
            UpstreamSettings { heads, tunnel, identity_fields, ..upstream }
        });
        let maintenance = file.maintenance.and_then(|written| self.maintenance(written));
        let cache = self.cache(file.cache);
        let known = Known {
            upstreams: &upstreams,
            limits: &limits,
            timeouts: &timeouts,
            bounds: &bounds,
            largest_object: cache.largest_object,
            tls_port,
            maintenance: maintenance.as_ref(),
        };
        let mut routes = self.routes(file.routes, &known);
        if let Some(route) =
            to_https(&listeners, on_demand.as_deref()).and_then(|table| self.route(table, &known))
        {
            routes.insert(0, Arc::new(route));
        }
        // Those of folders stand in no table of the file.
        let named = |upstream: &Arc<UpstreamSettings>| (Arc::clone(&upstream.name), Arc::clone(upstream));
        let mut upstreams = upstreams;
        upstreams.extend(routes.iter().filter_map(|route| route.action.upstream()).map(named));
        for pattern in file.include {
            self.value(pattern);
        }
        Settings {
            sources: SettingsSources::default(),
            threads: self.threads(file.threads),
            watch: self.or(file.watch, false),
            admin: self.admin(file.admin, &listeners),
            listeners: listeners.into_iter().map(|(_, listen)| listen).collect(),
            acme,
            redis: self.redis(file.redis, cache.largest_object),
            cache,
            clients: self.clients(file.clients),
            name_servers: file.name_servers.into_iter().filter_map(|server| self.value(server)).collect(),
            routes,
            error_pages: self.error_pages(file.error_pages),
            purge: file.purge.and_then(|purge| self.purge_access(purge)),
            maintenance,
            limits,
            commands,
            upstreams,
            timeouts,
            bounds,
            log: LogSettings { format: inner(file.log).format.and_then(|format| self.value(format)) },
        }
    }

    fn error_pages(&mut self, written: Option<Written<PathBuf>>) -> ErrorPages {
        let Some(written) = written else { return ErrorPages::default() };
        let place = written.span.clone();
        let Some(folder) = self.value(written) else { return ErrorPages::default() };
        ErrorPages::read(&folder).unwrap_or_else(|(what, help)| {
            self.fault(place, what, help);
            ErrorPages::default()
        })
    }

    fn threads(&mut self, written: Option<Written<Threads>>) -> usize {
        match self.or(written, Threads(0)) {
            // Counted once: a container's share of its machine may change, and only a start can follow.
            Threads(0) => *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from)),
            Threads(threads) => threads,
        }
    }

    /// Tables by name: checks the names, resolves each.
    fn named<W, T>(
        &mut self,
        written: Named<W>,
        mut resolve: impl FnMut(&mut Self, &Arc<str>, Span, W) -> T,
    ) -> BTreeMap<Arc<str>, Arc<T>> {
        let mut resolved = BTreeMap::new();
        for (name, table) in written {
            self.check_name(name.span(), name.get_ref());
            let name: Arc<str> = name.into_inner().into();
            let value = resolve(self, &name, table.span, table.value);
            resolved.insert(name, Arc::new(value));
        }
        resolved
    }

    /// Names stand in header fields, metric labels and log prefixes without quoting.
    fn check_name(&mut self, span: Span, name: &str) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            let help = "write up to 64 ASCII letters, digits, '-', '_' and '.'";
            self.fault(span, format!("{name:?} is no name"), help);
        }
    }

    /// Looks a name up; the fault for an unknown one names the nearest.
    fn known<T>(
        &mut self,
        kind: &str,
        span: Span,
        name: &str,
        table: &BTreeMap<Arc<str>, Arc<T>>,
    ) -> Option<Arc<T>> {
        let found = table.get(name).cloned();
        if found.is_none() {
            let help = if table.is_empty() {
                format!("there is no {kind} yet: add [{kind}s.{name}]")
            } else {
                nearest_or_list(name, table.keys().map(|name| &**name))
            };
            self.fault(span, format!("unknown {kind} {name:?}"), help);
        }
        found
    }

    /// A list that must be there and hold something.
    fn list<T>(
        &mut self,
        written: Option<Spanned<Vec<Written<T>>>>,
        table: &Span,
        key: &str,
        example: &str,
    ) -> Vec<(Span, T)> {
        let Some(written) = written else {
            self.fault(table.clone(), format!("missing key {key:?}"), format!("add {key} = {example}"));
            return Vec::new();
        };
        let span = written.span();
        let written = written.into_inner();
        if written.is_empty() {
            self.fault(span, format!("{key:?} is empty"), format!("write {key} = {example}"));
        }
        written.into_iter().filter_map(|value| Some((value.span.clone(), self.value(value)?))).collect()
    }

    /// A value that must be there; the table's place is shown when it is not.
    fn need<T>(&mut self, written: Option<Written<T>>, table: &Span, key: &str, example: &str) -> Option<T> {
        match written {
            Some(written) => self.value(written),
            None => {
                self.fault(table.clone(), format!("missing key {key:?}"), format!("add {key} = {example}"));
                None
            }
        }
    }

    fn or<T>(&mut self, written: Option<Written<T>>, default: T) -> T {
        written.and_then(|written| self.value(written)).unwrap_or(default)
    }

    fn value<T>(&mut self, written: Written<T>) -> Option<T> {
        match written.value {
            Ok(value) => Some(value),
            Err(refused) => {
                self.faults.push(Fault { span: written.span, message: refused.message, help: refused.help });
                None
            }
        }
    }

    fn fault(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(Fault { span, message: message.into(), help: Some(help.into()) });
    }

    /// `line 12`, with the file's name where there are several.
    fn line(&self, span: &Span) -> String {
        self.texts.line(span)
    }
}

/// The route by which requests in clear text are sent to https, for names that the edge sees to certificates of: before all that
/// the file has.
fn to_https(
    listeners: &[(Span, Listen)],
    on_demand: Option<&OnDemandSettings>,
) -> Option<Table<WrittenRoute>> {
    let listens = || listeners.iter().map(|(_, listen)| listen);
    let redirecting = || {
        let tls = listens().filter_map(|listen| listen.tls.as_ref());
        tls.filter(|tls| tls.clear_text == ClearText::Redirect)
    };
    let domains = redirecting().flat_map(|tls| &tls.domains);
    let mut names: Vec<String> = domains.map(|domain| domain.name.to_string()).collect();
    if redirecting().any(|tls| tls.on_demand.is_some()) {
        // Of names that somebody has to be asked about, routes decide.
        names.extend(on_demand.iter().flat_map(|on_demand| &on_demand.names).map(ToString::to_string));
    }
    if names.is_empty() || listens().all(|listen| listen.tls.is_some()) {
        return None;
    }
    let text = format!("name = \"{TO_HTTPS}\"\npath = \"/*\"\nhosts = {names:?}\nredirect = \"https\"\n");
    let value = toml::from_str(&text).ok()?;
    Some(Table { span: 0..0, value })
}

/// The name of that route.
pub const TO_HTTPS: &str = "domain-to-https";

/// The fields by which upstreams are told of client certificates, of all listeners: what one of them tells is believed, and
/// no client may say it by another one.
fn identity_fields(listeners: &[(Span, Listen)]) -> Arc<[HeaderName]> {
    let clients =
        listeners.iter().filter_map(|(_, listen)| listen.tls.as_ref()?.client_certificates.as_ref());
    let mut names: Vec<HeaderName> = Vec::new();
    for (name, _) in clients.flat_map(|clients| &clients.fields) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.into()
}

pub(super) fn inner<T: Default>(table: Option<Table<T>>) -> T {
    table.map(|table| table.value).unwrap_or_default()
}

pub(super) fn map<T, U>(written: Written<T>, convert: impl FnOnce(T) -> U) -> Written<U> {
    Written { span: written.span, value: written.value.map(convert) }
}

pub(super) fn duration(written: Written<Deadline>) -> Written<Duration> {
    map(written, |deadline| deadline.0)
}

pub(super) fn bytes(written: Written<PositiveSize>) -> Written<u64> {
    map(written, |size| size.0.0)
}

pub(super) fn at_most<const MOST: u32>(written: Written<AtMost<MOST>>) -> Written<usize> {
    map(written, |number| number.0.as_usize())
}

pub(super) fn count(written: Written<Positive>) -> Written<usize> {
    map(written, Positive::as_usize)
}
