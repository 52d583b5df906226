//! From the file as written to [`Settings`]: defaults, names, and what must fit together.
//!
//! Promises: every independent fault is found in one go, each with the place to change and what to write there. After a
//! fault a default stands in, so that the rest can still be looked at; such settings never leave this module.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    ops::Range,
    sync::Arc,
    thread,
    time::Duration,
};

use cache_policy::{QueryRules, Rules, Ttl};
use http::StatusCode;
use toml::Spanned;

use super::{
    Admin, AdminAddress, Bounds, CacheSettings, Certificate, ClientSettings, Command, ForwardedBy, Limit,
    Listen, LogSettings, MediaRange, PathPattern, Route, Server, Settings, TUNNELS_PER_CONNECTION, Timeouts,
    Upstream, doubt,
    error::{Fault, Place},
    file::{self, File, Named},
    value::{
        ByteSize, Count, Deadline, Lifetime, Lifetimes, Percent, Positive, PositiveSize, Ready, Table, Text,
        Threads, Written, nearest_or_list,
    },
};

/// Resolves a file whose shape is right; `text` is what it was read from.
///
/// Beside the settings: what is no fault, and hardly meant.
pub(super) fn resolve(file: File, text: &str) -> Result<(Settings, Vec<Fault>), Vec<Fault>> {
    let mut resolver = Resolver { text, faults: Vec::new() };
    let names = doubt::Names::of(&file);
    let settings = resolver.settings(file);
    if !resolver.faults.is_empty() {
        return Err(resolver.faults);
    }
    let doubts = doubt::doubts(&settings, &names);
    Ok((settings, doubts))
}

/// Bytes that hyper needs at least to read a head.
const SMALLEST_HEAD: u64 = 8 << 10;
/// hyper makes room for so many lines before it reads a head.
const MOST_FIELDS: usize = 10_000;
const MOST_INSTANCES: usize = 256;
const MOST_REMEMBERED: usize = 10_000_000;
/// A burst that takes longer than this to earn back is a slip; and the limiter counts in 64 bits of nanoseconds.
const LONGEST_RECOVERY: Duration = Duration::from_secs(365 * 86_400);

type Span = Range<usize>;

/// What routes may name.
struct Known<'a> {
    upstreams: &'a BTreeMap<Arc<str>, Arc<Upstream>>,
    limits: &'a BTreeMap<Arc<str>, Arc<Limit>>,
}

struct Resolver<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Resolver<'_> {
    fn settings(&mut self, file: File) -> Settings {
        let listeners = self.listeners(file.listen);
        let limits = self.named(file.limits, Resolver::limit);
        let commands = self.named(file.commands, Resolver::command);
        let bounds = self.bounds(file.bounds);
        let upstreams = self.named(file.upstreams, |resolver, name, span, upstream| {
            let upstream = resolver.upstream(name, span, upstream, &commands);
            Upstream { heads: bounds.of_heads(), ..upstream }
        });
        Settings {
            threads: self.threads(file.threads),
            admin: self.admin(file.admin, &listeners),
            listeners: listeners.into_iter().map(|(_, listen)| listen).collect(),
            cache: self.cache(file.cache),
            clients: self.clients(file.clients),
            routes: self.routes(file.routes, &Known { upstreams: &upstreams, limits: &limits }),
            limits,
            commands,
            upstreams,
            timeouts: self.timeouts(file.timeouts),
            bounds,
            log: LogSettings { format: self.or(inner(file.log).format, LogSettings::default().format) },
        }
    }

    fn threads(&mut self, written: Option<Written<Threads>>) -> usize {
        match self.or(written, Threads(0)) {
            Threads(0) => thread::available_parallelism().map_or(1, usize::from),
            Threads(threads) => threads,
        }
    }

    fn listeners(&mut self, written: Vec<Table<file::Listen>>) -> Vec<(Span, Listen)> {
        if written.is_empty() {
            self.fault(
                0..0,
                "no [[listen]]: no client could connect",
                "add [[listen]] with address = \"[::]:8080\"",
            );
        }
        let mut listeners: Vec<(Span, Listen)> = Vec::new();
        for table in written {
            let Table { span, value: table } = table;
            let tls = table.tls.and_then(|tls| self.certificate(tls));
            let place = table.address.as_ref().map(|address| address.span.clone());
            let Some(address) = self.need(table.address, &span, "address", "\"[::]:8080\"") else { continue };
            let place = place.unwrap_or(span);
            if let Some((earlier, other)) = listeners.iter().find(|(_, other)| clash(other.address, address))
            {
                let line = self.line(earlier);
                let message = format!("{address} is taken by the listener {} on line {line}", other.address);
                self.fault(place.clone(), message, "give each listener a port of its own");
            }
            listeners.push((place, Listen { address, tls }));
        }
        listeners
    }

    fn certificate(&mut self, tls: Table<file::Tls>) -> Option<Certificate> {
        let Table { span, value: tls } = tls;
        let local_ca = self.or(tls.local_ca, false);
        let certificate = self.need(tls.certificate, &span, "certificate", "\"certs/localhost.pem\"");
        let key = self.need(tls.key, &span, "key", "\"certs/localhost.key\"");
        Some(Certificate { certificate: certificate?, key: key?, local_ca })
    }

    fn admin(&mut self, written: Option<Table<file::Admin>>, public: &[(Span, Listen)]) -> Option<Admin> {
        let Table { span, value: file::Admin { address: written, token_file } } = written?;
        let token_file = token_file.and_then(|file| self.value(file));
        let place = written.as_ref().map_or(span.clone(), |address| address.span.clone());
        let address = self.need(written, &span, "address", "\"127.0.0.1:9900\"")?;
        let clashes = |listen: &Listen| matches!(address, AdminAddress::Network(address) if clash(listen.address, address));
        if let Some((listener, listen)) = public.iter().find(|(_, listen)| clashes(listen)) {
            let message = format!(
                "the admin address {address} is on the public listener {} of line {}",
                listen.address,
                self.line(listener)
            );
            self.fault(place, message, "give it a port that no client can reach, such as \"127.0.0.1:9900\"");
        }
        Some(Admin { address, token_file })
    }

    fn cache(&mut self, written: Option<Table<file::Cache>>) -> CacheSettings {
        let written = inner(written);
        let defaults = CacheSettings::default();
        let memory = self.or(written.memory.map(bytes), defaults.memory);
        let most = CacheSettings::largest_possible_object(memory);
        let place = written.largest_object.as_ref().map(|size| size.span.clone());
        let largest_object = self.or(written.largest_object.map(bytes), defaults.largest_object.min(most));
        if let Some(place) = place.filter(|_| largest_object > most) {
            let message = format!(
                "an object of {} does not fit a cache of {}",
                ByteSize(largest_object),
                ByteSize(memory)
            );
            let help = format!("write at most an eighth of `memory`: \"{}\"", ByteSize(most));
            self.fault(place, message, help);
        }
        let variants = self.or(written.variants.map(count), defaults.variants);
        CacheSettings { memory, largest_object, variants }
    }

    fn clients(&mut self, written: Option<Table<file::Clients>>) -> ClientSettings {
        let written = inner(written);
        let trusted_proxies = written
            .trusted_proxies
            .into_iter()
            .filter_map(|network| Some(self.value(network)?.trunc()))
            .collect();
        let remembered = self.at_most(
            written.remembered,
            ClientSettings::default().remembered,
            MOST_REMEMBERED,
            "clients",
        );
        let forwarded_by = self.or(written.forwarded_by, ForwardedBy::default());
        ClientSettings { trusted_proxies, forwarded_by, remembered }
    }

    fn limit(&mut self, name: &Arc<str>, span: Span, written: file::Limit) -> Limit {
        let interval = self.need(written.rate, &span, "rate", "\"50/s\"").map(|rate| rate.0);
        let interval = interval.unwrap_or(Duration::from_secs(1));
        let place = written.burst.as_ref().map_or(span, |burst| burst.span.clone());
        let a_second = Duration::from_secs(1).as_nanos() / interval.as_nanos().max(1);
        let a_second = u32::try_from(a_second).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let burst = self.or(written.burst, Positive(a_second)).0;
        if interval.checked_mul(burst.get()).is_none_or(|recovery| recovery > LONGEST_RECOVERY) {
            let message = format!("a burst of {burst} takes more than a year to earn back");
            self.fault(place, message, "write a smaller burst or a higher rate");
        }
        Limit { name: Arc::clone(name), interval, burst }
    }

    fn command(&mut self, name: &Arc<str>, span: Span, written: file::Command) -> Command {
        const EXAMPLE: &str = "[\"target/release/origin\", \"serve\"]";
        let run = self.list(written.run, &span, "run", EXAMPLE).into_iter().map(|(_, text)| text.0).collect();
        let mut command = Command::new(name, run);
        command.directory = written.directory.and_then(|directory| self.value(directory));
        for (variable, value) in written.environment {
            let name = variable.get_ref();
            if name == "PORT" {
                let message = "PORT is set by the edge, for each instance its own";
                self.fault(variable.span(), message, "leave it out");
            } else if name.is_empty() || name.contains(['=', '\0']) {
                let message = format!("{name:?} is no name of a variable");
                self.fault(variable.span(), message, "write a name such as RUST_LOG");
            }
            if let Some(value) = self.value(value) {
                command.environment.insert(variable.into_inner(), value);
            }
        }
        command.instances = self.at_most(written.instances, command.instances, MOST_INSTANCES, "instances");
        command.ready = match written.ready.and_then(|ready| self.value(ready)) {
            Some(Ready::Tcp) => None,
            Some(Ready::Path(path)) => Some(path),
            None => command.ready,
        };
        command.ready_interval = self.or(written.ready_interval.map(duration), command.ready_interval);
        command.ready_timeout = self.or(written.ready_timeout.map(duration), command.ready_timeout);
        command.stop_timeout = self.or(written.stop_timeout.map(duration), command.stop_timeout);
        command
    }

    fn upstream(
        &mut self,
        name: &Arc<str>,
        span: Span,
        written: file::Upstream,
        commands: &BTreeMap<Arc<str>, Arc<Command>>,
    ) -> Upstream {
        let mut servers: Vec<Server> = Vec::new();
        for (place, server) in self.list(written.servers, &span, "servers", "[\"http://127.0.0.1:9000\"]") {
            if let Server::Command(name) = &server {
                self.known("command", place.clone(), name, commands);
            }
            if servers.contains(&server) {
                self.fault(place, "this server is listed twice", "keep one of them");
            }
            servers.push(server);
        }
        let mut upstream = Upstream::new(name, servers);
        upstream.connect_timeout = self.or(written.connect_timeout.map(duration), upstream.connect_timeout);
        upstream.response_timeout =
            self.or(written.response_timeout.map(duration), upstream.response_timeout);
        upstream.idle_timeout = self.or(written.idle_timeout.map(duration), upstream.idle_timeout);
        upstream.collapse_timeout =
            self.or(written.collapse_timeout.map(duration), upstream.collapse_timeout);
        upstream.keep_alive = self.or(written.keep_alive.map(duration), upstream.keep_alive);
        upstream.connection_age = self.or(written.connection_age.map(duration), upstream.connection_age);
        upstream.connections = self.or(written.connections.map(count), upstream.connections);
        let tunnels = u32::try_from(upstream.connections.saturating_mul(TUNNELS_PER_CONNECTION));
        upstream.tunnels = self.or(written.tunnels, Count(tunnels.unwrap_or(u32::MAX))).0 as usize;
        upstream.waiting = self.or(written.waiting, Count(upstream.waiting as u32)).0 as usize;
        upstream.waiting_timeout = self.or(written.waiting_timeout.map(duration), upstream.waiting_timeout);
        upstream.failures = self.or(
            written.failures.map(|failures| map(failures, |failures| failures.0.get())),
            upstream.failures,
        );
        if let Some(statuses) = written.failing_statuses {
            upstream.failing_statuses =
                statuses.into_iter().filter_map(|status| self.value(status)).map(|status| status.0).collect();
        }
        upstream.put_aside = self.or(written.put_aside.map(duration), upstream.put_aside);
        upstream.retries = self.or(written.retries, Percent(upstream.retries)).0;
        upstream
    }

    fn routes(&mut self, written: Vec<Table<file::Route>>, known: &Known<'_>) -> Vec<Arc<Route>> {
        if written.is_empty() {
            let help = "add [[routes]] with name = \"all\", path = \"/*\" and upstream = ..";
            self.fault(0..0, "no [[routes]]: every request would be refused", help);
        }
        let mut names: HashMap<Text, Span> = HashMap::new();
        let mut routes: Vec<(Span, Arc<Route>)> = Vec::new();
        for table in written {
            if let Some(name) = &table.value.name
                && let Ok(text) = &name.value
            {
                self.check_name(name.span.clone(), &text.0);
                if let Some(earlier) = names.get(text) {
                    let message =
                        format!("the route name {:?} is taken on line {}", text.0, self.line(earlier));
                    self.fault(name.span.clone(), message, "give each route a name of its own");
                } else {
                    names.insert(text.clone(), name.span.clone());
                }
            }
            let place = table.value.path.as_ref().map_or(table.span.clone(), |path| path.span.clone());
            let Some(route) = self.route(table, known) else { continue };
            if let Some((earlier, other)) = shadow(&routes, &route) {
                let line = self.line(earlier);
                let message = format!(
                    "route {:?} is unreachable: route {:?} on line {line} takes its requests",
                    route.name, other.name
                );
                let help = if other.path == route.path {
                    "remove one of the two, or give this one other hosts".to_owned()
                } else {
                    format!("move it before route {:?}: the first route that matches wins", other.name)
                };
                self.fault(place.clone(), message, help);
            }
            routes.push((place, Arc::new(route)));
        }
        routes.into_iter().map(|(_, route)| route).collect()
    }

    /// `None` after a fault without which it is unknown what the route matches or where it leads.
    fn route(&mut self, table: Table<file::Route>, known: &Known<'_>) -> Option<Route> {
        let Table { span, value: table } = table;
        let name = self.need(table.name, &span, "name", "\"pages\", which logs and metrics show");
        let hosts = match table.hosts {
            None => Some(Vec::new()),
            written => {
                let count = written.as_ref().map_or(0, |hosts| hosts.get_ref().len());
                const EXAMPLE: &str = "[\"shop.example\"], or leave it out to match every host";
                let hosts = self.list(written, &span, "hosts", EXAMPLE);
                (hosts.len() == count).then(|| hosts.into_iter().map(|(_, host)| host.0).collect())
            }
        };
        let path = self.need(table.path, &span, "path", "\"/*\"");
        let example =
            known.upstreams.keys().next().map_or("\"origin\"".to_owned(), |name| format!("{name:?}"));
        let place = table.upstream.as_ref().map_or(span.clone(), |name| name.span.clone());
        let upstream = self
            .need(table.upstream, &span, "upstream", &example)
            .and_then(|name| self.upstream_of_route(place, &name.0, known));
        let limit = table.limit.and_then(|name| {
            let place = name.span.clone();
            let name = self.value(name)?;
            self.known("limit", place, &name.0, known.limits)
        });
        let compress = self.or(table.compress, true);
        let compress_types = self.compress_types(table.compress_types, compress);
        let decompress = self.or(table.decompress, compress);
        let mut cache = inner(table.cache);
        let early_hints = self.or(table.early_hints, false);
        let browser = cache.browser.take().and_then(|browser| self.value(browser));
        let query = self.query(inner(cache.query.take()));
        let rules = self.rules(cache, compress);
        Some(Route {
            name: name?.0.into(),
            hosts: hosts?,
            path: path?,
            upstream: upstream?,
            limit,
            rules,
            query,
            browser,
            compress,
            compress_types,
            decompress,
            early_hints,
        })
    }

    fn compress_types(
        &mut self,
        written: Option<Spanned<Vec<Written<MediaRange>>>>,
        compress: bool,
    ) -> Arc<[MediaRange]> {
        let Some(written) = written else { return MediaRange::defaults() };
        if !compress {
            let help = "take it out, or `compress = false`";
            self.fault(written.span(), "nothing is coded here, so these types have no effect", help);
        }
        written.into_inner().into_iter().filter_map(|written| self.value(written)).collect()
    }

    fn upstream_of_route(&mut self, place: Span, name: &str, known: &Known<'_>) -> Option<Arc<Upstream>> {
        if !name.contains("://") {
            return self.known("upstream", place, name, known.upstreams);
        }
        let help = format!(
            "give it a table, and name that:\n\n\
             [upstreams.app]\n\
             servers = [{name:?}]\n\n\
             and in the route: upstream = \"app\""
        );
        self.fault(place, format!("{name:?} is a server's address, and no upstream's name"), help);
        None
    }

    fn query(&mut self, written: file::Query) -> QueryRules {
        let mut names = |list: Vec<Written<Text>>| {
            list.into_iter().filter_map(|name| Some(self.value(name)?.0)).collect::<Vec<_>>()
        };
        let (keep, drop) = (written.keep.map(&mut names), names(written.drop));
        QueryRules { keep, drop, sort: self.or(written.sort, false) }
    }

    fn rules(&mut self, written: file::RouteCache, compress: bool) -> Rules {
        let defaults = Rules::default();
        let limit = written.max_ttl.as_ref().and_then(|limit| limit.value.clone().ok());
        Rules {
            ttl: written.ttl.and_then(|ttl| self.ttl(ttl, limit)),
            default_ttl: written.default_ttl.and_then(|ttl| self.value(ttl)),
            max_ttl: written.max_ttl.and_then(|ttl| self.value(ttl)),
            stale_while_revalidate: written.stale_while_revalidate.and_then(|window| self.value(window)),
            stale_if_error: written.stale_if_error.and_then(|window| self.value(window)),
            set_cookie: self.or(written.set_cookie, defaults.set_cookie),
            cookies: self.or(written.cookies, defaults.cookies),
            ignored_cookies: self.or(written.ignore_cookies, defaults.ignored_cookies),
            client_directives: self.or(written.client_directives, defaults.client_directives),
            // A route that does not code leaves the choice to the origin, and then it makes variants.
            edge_codes: compress,
            heuristic: self.or(written.heuristic, defaults.heuristic),
            stale_on_disconnect: self.or(written.stale_on_disconnect, defaults.stale_on_disconnect),
            stale_on_status: self.or(written.stale_on_status, defaults.stale_on_status),
            targeted: match written.targeted {
                Some(names) => names.into_iter().filter_map(|name| self.value(name)).collect(),
                None => defaults.targeted,
            },
            ranges: self.or(written.ranges, defaults.ranges),
            by_language: self.or(written.by_language, defaults.by_language),
            undated_unmodified: self.or(written.undated_unmodified, defaults.undated_unmodified),
        }
    }

    fn ttl(&mut self, written: Spanned<Lifetimes>, limit: Option<Duration>) -> Option<Ttl> {
        let span = written.span();
        let ttl = match written.into_inner() {
            Lifetimes::Same(value) => Ttl::of_answers(self.value(Written { span: span.clone(), value })?.0),
            Lifetimes::ByStatus(named) if named.is_empty() => {
                self.fault(span, "\"ttl\" names no status", "write ttl = \"5m\", or { 200 = \"5m\" }");
                return None;
            }
            Lifetimes::ByStatus(named) => {
                let read = |(status, lifetime): (Spanned<String>, Written<Lifetime>)| {
                    let (status, lifetime) = (self.status_of_ttl(&status), self.value(lifetime));
                    Some((status?, lifetime?.0))
                };
                Ttl::by_status(named.into_iter().filter_map(read).collect())
            }
        };
        if let Some(limit) = limit.filter(|limit| ttl.longest() > *limit) {
            let help = "raise max_ttl, shorten ttl, or leave one of them away";
            self.fault(span, format!("ttl is longer than max_ttl, which is {} s", limit.as_secs()), help);
        }
        Some(ttl)
    }

    fn status_of_ttl(&mut self, written: &Spanned<String>) -> Option<StatusCode> {
        let name = written.get_ref();
        match name.parse::<StatusCode>() {
            Ok(status) if Ttl::is_useless_for(status) => {
                let message = format!("an answer with status {name} is never stored by itself");
                let help = match status {
                    StatusCode::PARTIAL_CONTENT => "leave it away: the parts of a 200 have its lifetime",
                    _ => "leave it away",
                };
                self.fault(written.span(), message, help);
                None
            }
            Ok(status) if status.as_u16() < 600 => Some(status),
            _ => {
                self.fault(
                    written.span(),
                    format!("{name:?} is no status"),
                    "write 200 to 599, as in { 404 = \"10s\" }",
                );
                None
            }
        }
    }

    fn timeouts(&mut self, written: Option<Table<file::Timeouts>>) -> Timeouts {
        let written = inner(written);
        let defaults = Timeouts::default();
        Timeouts {
            handshake: self.or(written.handshake.map(duration), defaults.handshake),
            header: self.or(written.header.map(duration), defaults.header),
            body: self.or(written.body.map(duration), defaults.body),
            idle: self.or(written.idle.map(duration), defaults.idle),
            total: self.or(written.total.map(duration), defaults.total),
            tunnel: self.or(written.tunnel.map(duration), defaults.tunnel),
            drain: self.or(written.drain.map(duration), defaults.drain),
        }
    }

    fn bounds(&mut self, written: Option<Table<file::Bounds>>) -> Bounds {
        let written = inner(written);
        let defaults = Bounds::default();
        let head_place = written.head.as_ref().map(|head| head.span.clone());
        let head = self.or(written.head.map(bytes), defaults.head as u64);
        if let Some(place) = head_place.filter(|_| !(SMALLEST_HEAD..=1 << 30).contains(&head)) {
            let message = format!("a head of {} is out of range", ByteSize(head));
            self.fault(place, message, format!("write \"{}\" to \"1 GiB\"", ByteSize(SMALLEST_HEAD)));
        }
        Bounds {
            connections: self.or(written.connections.map(count), defaults.connections),
            streams: self
                .or(written.streams, Positive(NonZeroU32::new(defaults.streams).unwrap_or(NonZeroU32::MIN)))
                .0
                .get(),
            head: usize::try_from(head).unwrap_or(usize::MAX),
            fields: self.at_most(written.fields, defaults.fields, MOST_FIELDS, "header lines"),
            body: self.or(written.body.map(|body| map(body, |size| size.0)), defaults.body),
            body_rate: self.or(written.body_rate.map(|rate| map(rate, |size| size.0)), defaults.body_rate),
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

    fn at_most(
        &mut self,
        written: Option<Written<Positive>>,
        default: usize,
        most: usize,
        what: &str,
    ) -> usize {
        let place = written.as_ref().map(|written| written.span.clone());
        let number = self.or(written.map(count), default);
        if let Some(place) = place.filter(|_| number > most) {
            self.fault(place, format!("{number} {what} are too many"), format!("write 1 to {most}"));
        }
        number
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

    fn line(&self, span: &Span) -> usize {
        Place::find(self.text, span.start).line
    }
}

fn inner<T: Default>(table: Option<Table<T>>) -> T {
    table.map(|table| table.value).unwrap_or_default()
}

fn map<T, U>(written: Written<T>, convert: impl FnOnce(T) -> U) -> Written<U> {
    Written { span: written.span, value: written.value.map(convert) }
}

fn duration(written: Written<Deadline>) -> Written<Duration> {
    map(written, |deadline| deadline.0)
}

fn bytes(written: Written<PositiveSize>) -> Written<u64> {
    map(written, |size| size.0.0)
}

fn count(written: Written<Positive>) -> Written<usize> {
    map(written, Positive::as_usize)
}

/// Whether two sockets would take the same connections. `[::]` listens on IPv4 as well.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V6(address) if address.is_unspecified() => true,
        IpAddr::V4(address) if address.is_unspecified() => narrow.is_ipv4(),
        address => address == narrow,
    };
    one.port() != 0
        && one.port() == other.port()
        && (takes(one.ip(), other.ip()) || takes(other.ip(), one.ip()))
}

/// The earlier route because of which `route` never sees a request: together they take each of its hosts (the last
/// one needed is named).
fn shadow<'r>(earlier: &'r [(Span, Arc<Route>)], route: &Route) -> Option<(&'r Span, &'r Route)> {
    let taker = |host: Option<&str>| {
        earlier.iter().find(|(_, other)| {
            let takes_host = other.hosts.is_empty()
                || host.is_some_and(|host| other.hosts.iter().any(|name| **name == *host));
            takes_host && covers(&other.path, &route.path)
        })
    };
    let (span, other) = match route.hosts.as_slice() {
        [] => taker(None)?,
        hosts => hosts.iter().map(|host| taker(Some(host))).collect::<Option<Vec<_>>>()?.pop()?,
    };
    Some((span, other))
}

/// Whether every path of `inner` is one of `outer`.
fn covers(outer: &PathPattern, inner: &PathPattern) -> bool {
    match (outer, inner) {
        (PathPattern::Exact(outer), PathPattern::Exact(inner)) => outer == inner,
        (PathPattern::Exact(_), PathPattern::Prefix(_)) => false,
        (PathPattern::Prefix(outer), PathPattern::Exact(inner) | PathPattern::Prefix(inner)) => {
            inner.starts_with(&**outer)
        }
    }
}
