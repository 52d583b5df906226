//! What two settings differ in, key by key, as the file writes it; and of one, all that is in force.
//!
//! Promises: nothing that differs is left out, and no secret is shown.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cache_policy::{IgnoredCookies, QueryRules, Rules};
use serde::{Deserialize, Serialize};

use super::{
    effective::EffectiveTables,
    shown::{
        Shown, certificate, certificates, costs, duration, field_sign, filled, folder, hidden, hsts, in_line,
        key_of, list, location_of, maybe, media_range, methods_in_line, named_parts, none, origins_of, pair,
        path, paths, percent, plain, program, rate, realm, redirect, request_fields, respond,
        response_fields, run, server, sign, size, substitution, text, ttl, word, words,
    },
};
use crate::settings::{
    Acme, Admin, AllowedFields, Balance, BasicAuth, Bounds, CacheSettings, Canary, Certificate, Check,
    ClientCertificates, ClientSettings, Command, CommandOutput, CrossOrigin, Domain, ExternalAccount,
    ForwardAuth, KeyParts, Limit, Listen, ListenTls, Location, LogSettings, MaintenanceSettings,
    OnDemandSettings, PurgeAccess, RedisSettings, RequestFields, ResendRules, Route, RouteBounds, RouteTimes,
    Server, ServerProtocol, Settings, SettingsSources, TO_HTTPS, Timeouts, UpstreamSettings,
    UpstreamTlsSettings, Verification,
};

/// One thing that is other than it was. Shown as `cache.memory: 64 MiB -> 128 MiB`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key as the file names it, with the names of tables, and of listeners the address: `listen.[::]:80.tls`.
    pub key: String,
    /// What it was; `None` for a table that is new.
    pub old: Option<String>,
    /// What it is; `None` for a table that is gone.
    pub new: Option<String>,
}

impl Change {
    /// What a key names has other content. Neither is shown: it may be a secret.
    #[must_use]
    pub fn of_content(key: String) -> Self {
        Self { key, old: None, new: None }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        match (old, new) {
            (Some(old), Some(new)) => write!(f, "{key}: {old} -> {new}"),
            (None, Some(new)) => write!(f, "{key}: new, {new}"),
            (Some(old), None) => write!(f, "{key}: gone, was {old}"),
            (None, None) => write!(f, "{key}: other content"),
        }
    }
}

/// Everything in which two settings differ, in the order of the file. The arguments of commands and the values of their
/// variables are not shown.
#[must_use]
pub fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    let mut changes = Changes { told: Vec::new(), effective: None };
    changes.settings(old, new);
    changes.told
}

/// All that is in force, every default filled in, as a file would have it. Secrets are not in it, nor what was made by the edge
/// itself: the routes and upstreams that stand for something shorter.
#[must_use]
pub fn effective(settings: &Settings) -> String {
    let mut settings = settings.clone();
    let of_files = |upstream: &UpstreamSettings| {
        upstream.servers.iter().any(|server| matches!(server.location, Location::Files(_)))
    };
    settings.upstreams.retain(|_, upstream| !of_files(upstream));
    settings.routes.retain(|route| *route.name != *TO_HTTPS);
    for route in &mut settings.routes {
        let upstream = route.action.upstream().map(|upstream| upstream.balance.clone());
        if let Some(Balance::Sticky(cookie)) = upstream
            && let IgnoredCookies::Named(names) = &mut Arc::make_mut(route).rules.ignored_cookies
        {
            // The edge's own, added to those of the file.
            names.pop_if(|name| **name == *cookie);
        }
    }
    settings.sources = SettingsSources::default();
    let mut walk = Changes { told: Vec::new(), effective: Some(EffectiveTables::default()) };
    walk.settings(&settings, &settings);
    walk.effective.map(|tables| tables.to_string()).unwrap_or_default()
}

/// What the walk over all settings has come to: their differences, or all of them.
struct Changes {
    told: Vec<Change>,
    effective: Option<EffectiveTables>,
}

/// Tables by name, resolved.
type TablesByName<T> = BTreeMap<Arc<str>, Arc<T>>;

/// Compares all fields of two values: each by its name, with how it is shown. `apart`: those that are compared elsewhere. A
/// field that is missing does not compile.
macro_rules! each_field {
    (
        $changes:ident, $table:expr, $values:expr,
        $type:ident { $($field:ident: $show:expr),* $(,)? },
        apart $($apart:ident)*
    ) => {{
        let (old, new): (&$type, &$type) = $values;
        let $type { $($field: _,)* $($apart: _,)* } = old;
        $($changes.key($table, stringify!($field), (&old.$field, &new.$field), $show);)*
    }};
}

impl Changes {
    fn settings(&mut self, old: &Settings, new: &Settings) {
        let changes = self;
        // A field that is missing here does not compile: whoever adds a setting says how it is told.
        let Settings {
            sources: SettingsSources { include, files: _, folders: _ },
            threads,
            watch,
            listeners,
            admin,
            acme,
            cache,
            redis,
            clients,
            limits,
            commands,
            name_servers,
            upstreams,
            routes,
            error_pages,
            purge,
            maintenance,
            timeouts,
            bounds,
            log,
        } = old;
        changes.key("", "include", (include, &new.sources.include), |patterns| list(patterns, plain));
        changes.key("", "threads", (threads, &new.threads), plain);
        changes.key("", "watch", (watch, &new.watch), plain);
        changes.listeners(listeners, &new.listeners);
        changes.admin(admin.as_ref(), new.admin.as_ref());
        changes.acme(acme, &new.acme);
        changes.cache(cache, &new.cache);
        changes.redis(redis.as_ref(), new.redis.as_ref());
        changes.clients(clients, &new.clients);
        changes.named("limits", (limits, &new.limits), |limit| rate(&limit.interval), Changes::limit);
        changes.named("commands", (commands, &new.commands), program, Changes::command);
        changes.key("", "name_servers", (name_servers, &new.name_servers), |servers| list(servers, plain));
        changes.named(
            "upstreams",
            (upstreams, &new.upstreams),
            |it| list(&it.servers, server).told,
            Changes::upstream,
        );
        changes.routes(routes, &new.routes);
        let (before, after) = (&error_pages.folder, &new.error_pages.folder);
        changes.key("", "error_pages", (before, after), |folder| maybe(folder, path));
        if before == after && *error_pages != new.error_pages {
            changes.told.push(Change::of_content("error_pages".to_owned()));
        }
        changes.purge_access((purge.as_ref(), new.purge.as_ref()));
        changes.maintenance("", (maintenance.as_deref(), new.maintenance.as_deref()));
        changes.timeouts(timeouts, &new.timeouts);
        changes.bounds(bounds, &new.bounds);
        let LogSettings { format } = log;
        changes.key("log", "format", (format, &new.log.format), |format| maybe(format, word));
    }

    fn tell(&mut self, table: &str, key: &str, old: Option<String>, new: Option<String>) {
        let key = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        self.told.push(Change { key, old: old.map(shortened), new: new.map(shortened) });
    }

    fn key<T: PartialEq, S: Into<Shown>>(
        &mut self,
        table: &str,
        key: &str,
        (old, new): (&T, &T),
        show: impl Fn(&T) -> S,
    ) {
        if let Some(effective) = &mut self.effective {
            effective.key(table, key, show(new).into().written);
        } else if old != new {
            self.tell(table, key, Some(show(old).into().told), Some(show(new).into().told));
        }
    }

    /// Whether everything is told, and not what differs.
    fn tells_all(&self) -> bool {
        self.effective.is_some()
    }

    /// Of everything: a table begins.
    fn begin(&mut self, header: String, table: &str) {
        if let Some(effective) = &mut self.effective {
            effective.begin(header, table);
        }
    }

    /// Tables by name: those that are gone or new by `gist`, the others key by key.
    fn named<T: PartialEq>(
        &mut self,
        kind: &str,
        (old, new): (&TablesByName<T>, &TablesByName<T>),
        gist: impl Fn(&T) -> String,
        compare: impl Fn(&mut Self, &str, (&T, &T)),
    ) {
        if self.tells_all() {
            for (name, table) in new {
                let path = format!("{kind}.{}", key_of(name));
                self.begin(format!("[{path}]"), &path);
                compare(self, &path, (table, table));
            }
            return;
        }
        for (name, before) in old {
            match new.get(name) {
                Some(after) if before == after => {}
                Some(after) => compare(self, &format!("{kind}.{name}"), (before, after)),
                None => self.tell(kind, name, Some(gist(before)), None),
            }
        }
        for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            self.tell(kind, name, None, Some(gist(after)));
        }
    }

    fn listeners(&mut self, old: &[Listen], new: &[Listen]) {
        if self.tells_all() {
            for listen in new {
                self.begin("[[listen]]".to_owned(), "listen");
                self.key("listen", "address", (&listen.address, &listen.address), text);
                self.listener("listen", (listen, listen));
            }
            return;
        }
        // Port 0 gives several the same address: those that are the same before and after are no change, and the others are
        // told apart by their order.
        let mut gone: Vec<&Listen> = old.iter().collect();
        let mut other: Vec<&Listen> = new.iter().collect();
        gone.retain(|before| match other.iter().position(|after| after == before) {
            Some(place) => {
                other.remove(place);
                false
            }
            None => true,
        });
        let gist = |listen: &Listen| listen.tls.as_ref().map_or("clear text".to_owned(), certificates);
        for before in gone {
            let address = before.address;
            match other.iter().position(|after| after.address == address) {
                Some(place) => {
                    let after = other.remove(place);
                    self.listener(&format!("listen.{address}"), (before, after));
                }
                None => self.tell("listen", &address.to_string(), Some(gist(before)), None),
            }
        }
        for after in other {
            self.tell("listen", &after.address.to_string(), None, Some(gist(after)));
        }
    }

    fn listener(&mut self, table: &str, (old, new): (&Listen, &Listen)) {
        let Listen { address: _, tls, proxy_protocol, hsts: strict } = old;
        let introducers = (proxy_protocol, &new.proxy_protocol);
        self.key(table, "proxy_protocol", introducers, |networks| filled(networks, text));
        self.key(table, "hsts", (strict, &new.hsts), |value| maybe(value, hsts));
        match (tls, &new.tls) {
            (Some(old), Some(new)) => self.listen_tls(table, (old, new)),
            (old, new) => self.key(table, "tls", (old, new), |tls| maybe(tls, certificates)),
        }
    }

    fn listen_tls(&mut self, listener: &str, values: (&ListenTls, &ListenTls)) {
        let table = format!("{listener}.tls");
        each_field!(
            self, &table, values,
            ListenTls {
                folder: |folder| maybe(folder, path),
                default: |name| maybe(name, plain),
                unknown_names: word,
                minimum_version: plain,
            },
            apart certificate certificates client_certificates domains on_demand clear_text
        );
        let names = |domains: &[Domain]| -> Vec<String> {
            domains.iter().map(|domain| domain.name.to_string()).collect()
        };
        let (before, after) = (names(&values.0.domains), names(&values.1.domains));
        self.key(listener, "domain", (&before, &after), |names| filled(names, text));
        let (before, now) = (values.0.on_demand.is_some(), values.1.on_demand.is_some());
        self.key(listener, "on_demand", (&before, &now), plain);
        if !self.tells_all() || !after.is_empty() || now {
            self.key(listener, "clear_text", (&values.0.clear_text, &values.1.clear_text), word);
        }
        let (old, new) = values;
        match (&old.certificate, &new.certificate) {
            (Some(old), Some(new)) => self.certificate(&table, (old, new)),
            (old, new) => self.key(&table, "certificate", (old, new), |one| maybe(one, certificate)),
        }
        let (before, after) = (&old.certificates, &new.certificates);
        self.key(listener, "certificates", (before, after), |all| filled(all, pair));
        match (&old.client_certificates, &new.client_certificates) {
            (Some(old), Some(new)) => each_field!(
                self,
                &format!("{table}.client_certificates"),
                (old, new),
                ClientCertificates { ca: path, required: plain, fields: |fields| named_parts(fields.iter()) },
                apart
            ),
            (old, new) => {
                self.key(&table, "client_certificates", (old, new), |clients| {
                    maybe(clients, |it| path(&it.ca))
                });
            }
        }
    }

    fn certificate(&mut self, table: &str, values: (&Certificate, &Certificate)) {
        each_field!(
            self,
            table,
            values,
            Certificate { certificate: path, key: path, local_ca: plain, ocsp: |file| maybe(file, path) },
            apart
        );
    }

    fn admin(&mut self, old: Option<&Admin>, new: Option<&Admin>) {
        let gist = |admin: Option<&Admin>| admin.map(|admin| admin.address.to_string());
        match (old, new) {
            (Some(old), Some(new)) => each_field!(
                self,
                "admin",
                (old, new),
                Admin {
                    address: plain,
                    token_file: |file| maybe(file, path),
                    hosts: |hosts| list(hosts, plain)
                },
                apart
            ),
            (None, None) => {}
            (old, new) => self.tell("", "admin", gist(old), gist(new)),
        }
    }

    fn acme(&mut self, old: &Acme, new: &Acme) {
        each_field!(
            self,
            "acme",
            (old, new),
            Acme {
                directory: plain,
                email: |email| maybe(email, plain),
                terms_agreed: plain,
                profile: |profile| maybe(profile, text),
                key_type: word,
                folder: path,
                ca: |file| maybe(file, path),
            },
            apart eab on_demand
        );
        self.on_demand(old.on_demand.as_deref(), new.on_demand.as_deref());
        let part = |eab: &Option<ExternalAccount>, of: fn(&ExternalAccount) -> String| eab.as_ref().map(of);
        let id: fn(&ExternalAccount) -> String = |eab| eab.key_id.to_string();
        let file: fn(&ExternalAccount) -> String = |eab| path(&eab.key_file);
        for (key, of) in [("key_id", id), ("key_file", file)] {
            self.key("acme.eab", key, (&part(&old.eab, of), &part(&new.eab, of)), |shown| maybe(shown, text));
        }
    }

    fn on_demand(&mut self, old: Option<&OnDemandSettings>, new: Option<&OnDemandSettings>) {
        let (Some(old), Some(new)) = (old, new) else {
            let names = |it: Option<&OnDemandSettings>| it.map(|it| it.names.clone());
            let names = (&names(old), &names(new));
            return self.key("acme", "on_demand", names, |names| maybe(names, |names| list(names, text)));
        };
        each_field!(
            self,
            "acme.on_demand",
            (old, new),
            OnDemandSettings {
                names: |names| filled(names, text),
                ask: |url| maybe(url, text),
                certificates: plain,
                orders_per_hour: plain,
            },
            apart
        );
    }

    fn cache(&mut self, old: &CacheSettings, new: &CacheSettings) {
        each_field!(
            self,
            "cache",
            (old, new),
            CacheSettings { memory: size, largest_object: size, variants: plain },
            apart
        );
    }

    fn redis(&mut self, old: Option<&RedisSettings>, new: Option<&RedisSettings>) {
        let gist = |redis: Option<&RedisSettings>| redis.map(|redis| redis.url.to_string());
        match (old, new) {
            (Some(old), Some(new)) if old.url != new.url && old.url.to_string() == new.url.to_string() => {
                self.told.push(Change::of_content("redis.url".to_owned()));
            }
            (Some(old), Some(new)) => each_field!(
                self,
                "redis",
                (old, new),
                RedisSettings {
                    url: plain,
                    password_file: |file| maybe(file, path),
                    ca: |file| maybe(file, path),
                    sentinels: |urls| filled(urls, text),
                    secret_file: |file| maybe(file, path),
                    namespace: text,
                    look_up_timeout: duration,
                    collapse_timeout: duration,
                    largest_object: size,
                    max_ttl: duration,
                    compress: plain,
                    unheard: word,
                },
                apart
            ),
            (None, None) => {}
            (old, new) => self.tell("", "redis", gist(old), gist(new)),
        }
    }

    fn clients(&mut self, old: &ClientSettings, new: &ClientSettings) {
        each_field!(
            self,
            "clients",
            (old, new),
            ClientSettings {
                trusted_proxies: |networks| list(networks, plain),
                forwarded_by: word,
                request_id_in_answers: word,
                remembered: plain,
            },
            apart
        );
    }

    fn limit(&mut self, table: &str, values: (&Limit, &Limit)) {
        each_field!(
            self, table, values,
            Limit {
                burst: plain, key: plain, cost: costs,
                except: |networks| filled(networks, text),
                dry_run: plain,
            },
            apart name interval
        );
        self.key(table, "rate", (&values.0.interval, &values.1.interval), rate);
    }

    fn command(&mut self, table: &str, values: (&Command, &Command)) {
        each_field!(
            self, table, values,
            Command {
                directory: |directory| maybe(directory, path),
                env_file: |file| maybe(file, path),
                user: |user| maybe(user, text),
                group: |group| maybe(group, text),
                instances: plain,
                listen: word,
                output: |output| match output {
                    CommandOutput::Log => "log".to_owned(),
                    CommandOutput::File(file) => path(file),
                },
                memory: |memory| maybe(memory, size),
                watch: |files| list(files, path),
                admin_port: |name| maybe(name, text),
                metrics: |path| maybe(path, plain),
                ready: |path| path.clone().unwrap_or("tcp".to_owned()),
                ready_interval: duration,
                ready_timeout: duration,
                ready_probe_timeout: duration,
                stop_signal: |signal| word(signal).to_ascii_uppercase(),
                stop_timeout: duration,
            },
            apart name run environment
        );
        if self.tells_all() {
            let Command { run: arguments, environment, .. } = values.1;
            self.key(table, "run", (arguments, arguments), |arguments| run(arguments));
            self.key(table, "environment", (environment, environment), |variables| hidden(variables.keys()));
            return;
        }
        let (old, new) = (program(values.0), program(values.1));
        if old != new {
            self.tell(table, "run", Some(old), Some(new));
        } else if values.0.run != values.1.run {
            self.tell(table, "run", None, None);
        }
        let (old, new) = (&values.0.environment, &values.1.environment);
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            let key = format!("environment.{name}");
            match (old.get(name), new.get(name)) {
                (old, new) if old == new => {}
                (Some(_), Some(_)) => self.tell(table, &key, None, None),
                (old, new) => {
                    self.tell(table, &key, old.map(|_| "set".to_owned()), new.map(|_| "set".to_owned()));
                }
            }
        }
    }

    fn upstream(&mut self, table: &str, values: (&UpstreamSettings, &UpstreamSettings)) {
        each_field!(
            self, table, values,
            UpstreamSettings {
                servers: |servers| list(servers, server),
                connect_timeout: duration,
                response_timeout: duration,
                idle_timeout: duration,
                collapse_timeout: duration,
                keep_alive: duration,
                connections: plain,
                streams: plain,
                tunnels: plain,
                waiting: plain,
                waiting_timeout: duration,
                balance: plain,
                slow_start: duration,
                failures: plain,
                failing_statuses: |statuses| list(statuses, plain),
                put_aside: duration,
                retries: percent,
                hedge: percent,
                overload: word,
                proxy_protocol: word,
            },
            apart connection_age name tls check request_fields heads tunnel identity_fields
        );
        let (old, new) = values;
        // None where each carries one request, which the file does not say.
        if !self.tells_all() || !new.connection_age.is_zero() {
            self.key(table, "connection_age", (&old.connection_age, &new.connection_age), duration);
        }
        let over_tls = |server: &Server| {
            let (Location::Network { protocol, .. } | Location::EachAddress { protocol, .. }) =
                &server.location
            else {
                return false;
            };
            *protocol == ServerProtocol::Tls
        };
        if !self.tells_all() || new.servers.iter().any(over_tls) {
            self.upstream_tls(&format!("{table}.tls"), (&old.tls, &new.tls));
        }
        self.request_fields(table, (&old.request_fields, &new.request_fields));
        match (&old.check, &new.check) {
            (Some(old), Some(new)) => self.check(&format!("{table}.check"), (old, new)),
            checks => self.key(table, "check", checks, |check| maybe(check, |check| check.path.to_string())),
        }
    }

    /// Their values are not told.
    fn request_fields(&mut self, table: &str, (old, new): (&RequestFields, &RequestFields)) {
        if self.tells_all() {
            return self.key(table, "request_fields", (new, new), |fields| request_fields(fields.words()));
        }
        let added = new.words().filter(|(name, ..)| old.of(name).is_none());
        for (name, field, word) in old.words().chain(added) {
            let key = format!("request_fields.{name}");
            match (old.of(name), new.words().find(|(other, ..)| *other == name)) {
                (Some(_), Some((_, same, _))) if same == field => {}
                (Some(_), Some((_, _, now))) if now == word => self.tell(table, &key, None, None),
                (Some(_), now) => {
                    let now = now.map(|(.., now)| now.to_owned());
                    self.tell(table, &key, Some(word.to_owned()), now);
                }
                (None, _) => self.tell(table, &key, None, Some(word.to_owned())),
            }
        }
    }

    fn upstream_tls(&mut self, table: &str, values: (&UpstreamTlsSettings, &UpstreamTlsSettings)) {
        each_field!(
            self, table, values,
            UpstreamTlsSettings {
                ca: |file| maybe(file, path),
                server_name: |name| maybe(name, plain),
            },
            apart identity verification
        );
        let certificate =
            |tls: &UpstreamTlsSettings| tls.identity.as_ref().map(|(certificate, _)| certificate.clone());
        let key = |tls: &UpstreamTlsSettings| tls.identity.as_ref().map(|(_, key)| key.clone());
        let verify = |tls: &UpstreamTlsSettings| tls.verification == Verification::Required;
        let (old, new) = values;
        self.key(table, "certificate", (&certificate(old), &certificate(new)), |file| maybe(file, path));
        self.key(table, "key", (&key(old), &key(new)), |file| maybe(file, path));
        self.key(table, "verify", (&verify(old), &verify(new)), plain);
    }

    fn check(&mut self, table: &str, values: (&Check, &Check)) {
        each_field!(
            self, table, values,
            Check {
                path: plain,
                host: |host| maybe(host, text),
                body: |content| maybe(content, text),
                interval: duration,
                timeout: duration,
                rise: plain,
                fall: plain,
            },
            apart statuses
        );
        self.key(table, "status", (&values.0.statuses, &values.1.statuses), |statuses| list(statuses, plain));
    }

    fn routes(&mut self, old: &[Arc<Route>], new: &[Arc<Route>]) {
        fn names(routes: &[Arc<Route>]) -> Vec<&str> {
            routes.iter().map(|route| &*route.name).collect()
        }
        if self.tells_all() {
            for route in new {
                self.begin("[[routes]]".to_owned(), "routes");
                self.key("routes", "name", (&route.name, &route.name), text);
                if let Some(effective) = &mut self.effective {
                    effective.leave_out(if route.action.upstream().is_some() { &[] } else { OF_UPSTREAMS });
                }
                self.route("routes", (route, route));
            }
            return;
        }
        let gist = |route: &Route| {
            let hosts = if route.hosts.is_empty() {
                String::new()
            } else {
                format!("{} ", list(&route.hosts, text).told)
            };
            format!("{hosts}{}", paths(&route.paths).told)
        };
        let of =
            |routes: &[Arc<Route>], name: &str| routes.iter().find(|route| *route.name == *name).cloned();
        for before in old {
            match of(new, &before.name) {
                Some(after) => self.route(&format!("routes.{}", before.name), (before, &after)),
                None => self.tell("routes", &before.name, Some(gist(before)), None),
            }
        }
        for after in new.iter().filter(|after| of(old, &after.name).is_none()) {
            self.tell("routes", &after.name, None, Some(gist(after)));
        }
        // The first that matches wins.
        let stay = |names: Vec<&str>, others: &[Arc<Route>]| -> Vec<String> {
            names.into_iter().filter(|name| of(others, name).is_some()).map(str::to_owned).collect()
        };
        let order = (&stay(names(old), new), &stay(names(new), old));
        self.key("routes", "order", order, |names| list(names, plain));
    }

    fn route(&mut self, table: &str, values: (&Route, &Route)) {
        each_field!(
            self, table, values,
            Route {
                hosts: |hosts| match hosts.is_empty() {
                    true => Shown { told: "every host".to_owned(), ..none() },
                    false => list(hosts, text),
                },
                compress: plain,
                decompress: plain,
                early_hints: plain,
                receive_first: size,
                upgrades: |protocols| list(protocols, plain),
                encoded_slash: word,
                security: word,
            },
            apart compress_types name paths asks addresses basic_auth forward_auth maintenance action rewrite response_fields cors canary resend limits times bounds rules query key bypass also slice browser
        );
        let (old, new) = values;
        if !self.tells_all() || new.compress {
            let types = (&old.compress_types, &new.compress_types);
            self.key(table, "compress_types", types, |types| list(types, media_range));
        }
        match (&old.canary, &new.canary) {
            (Some(old), Some(new)) => self.canary(&format!("{table}.canary"), (old, new)),
            (old, new) => {
                let upstream =
                    |canary: &Option<Canary>| canary.as_ref().map(|canary| Arc::clone(&canary.upstream.name));
                self.key(table, "canary", (&upstream(old), &upstream(new)), |name| maybe(name, plain));
            }
        }
        self.key(table, "path", (&old.paths, &new.paths), |all| paths(all));
        self.key(table, "methods", (&old.asks.methods, &new.asks.methods), |methods| filled(methods, text));
        self.key(table, "headers", (&old.asks.fields, &new.asks.fields), |fields| filled(fields, field_sign));
        let upstream = |route: &Route| route.action.upstream().map(|upstream| Arc::clone(&upstream.name));
        let files = |route: &Route| {
            let servers = &route.action.upstream()?.servers;
            servers.iter().find_map(|server| {
                let Location::Files(of) = &server.location else { return None };
                Some(Shown { told: location_of(&server.location), written: Some(folder(of)) })
            })
        };
        if !self.tells_all() || files(new).is_none() {
            self.key(table, "upstream", (&upstream(old), &upstream(new)), |name| maybe(name, text));
        }
        self.key(table, "files", (&files(old), &files(new)), |folder| maybe(folder, Shown::clone));
        self.key(table, "allow", (&old.addresses.allow, &new.addresses.allow), |networks| {
            filled(networks, text)
        });
        self.key(table, "deny", (&old.addresses.deny, &new.addresses.deny), |networks| {
            filled(networks, text)
        });
        match (&old.basic_auth, &new.basic_auth) {
            (Some(old), Some(new)) => {
                let table = format!("{table}.basic_auth");
                self.key(&table, "users", (&old.file, &new.file), path);
                self.key(&table, "realm", (&old.challenge, &new.challenge), realm);
                if old.file == new.file && old.users != new.users {
                    self.told.push(Change::of_content(format!("{table}.users")));
                }
            }
            (old, new) => {
                let file = |auth: &Option<Arc<BasicAuth>>| auth.as_ref().map(|auth| auth.file.clone());
                self.key(table, "basic_auth", (&file(old), &file(new)), |file| maybe(file, path));
            }
        }
        let (before, after) = (&old.rewrite, &new.rewrite);
        self.key(table, "strip_prefix", (&before.strip, &after.strip), |prefix| maybe(prefix, plain));
        self.key(table, "add_prefix", (&before.add, &after.add), |prefix| maybe(prefix, plain));
        self.key(table, "rewrite", (&before.replace, &after.replace), |replace| {
            maybe(replace, |replace| substitution(replace))
        });
        self.key(table, "response_fields", (&old.response_fields, &new.response_fields), response_fields);
        match (&old.forward_auth, &new.forward_auth) {
            (Some(old), Some(new)) => {
                let table = format!("{table}.forward_auth");
                self.key(&table, "upstream", (&old.upstream.name, &new.upstream.name), plain);
                self.key(&table, "path", (&old.path, &new.path), plain);
                self.key(&table, "copy", (&old.copy, &new.copy), |names| filled(names, text));
            }
            (old, new) => {
                let upstream = |auth: &Option<Arc<ForwardAuth>>| {
                    auth.as_ref().map(|auth| Arc::clone(&auth.upstream.name))
                };
                self.key(table, "forward_auth", (&upstream(old), &upstream(new)), |name| maybe(name, plain));
            }
        }
        self.maintenance(table, (old.maintenance.as_deref(), new.maintenance.as_deref()));
        match (&old.cors, &new.cors) {
            (Some(old), Some(new)) => self.cross_origin(&format!("{table}.cors"), (old, new)),
            (old, new) => {
                let origins =
                    |cors: &Option<Arc<CrossOrigin>>| cors.as_ref().map(|cors| cors.origins.clone());
                self.key(table, "cors", (&origins(old), &origins(new)), |cors| maybe(cors, origins_of));
            }
        }
        self.key(table, "redirect", (&redirect(old), &redirect(new)), |to| maybe(to, Shown::clone));
        self.key(table, "respond", (&respond(old), &respond(new)), |answer| maybe(answer, Shown::clone));
        let limits = |route: &Route| -> Vec<Arc<str>> {
            route.limits.iter().map(|limit| Arc::clone(&limit.name)).collect()
        };
        self.key(table, "limit", (&limits(old), &limits(new)), |names| match names.as_slice() {
            [] => none(),
            [name] => text(name),
            names => list(names, text),
        });
        each_field!(
            self, &format!("{table}.timeouts"), (&old.times, &new.times),
            RouteTimes {
                total: duration,
                first_byte: duration,
                whole: |time| maybe(time, duration),
            },
            // The second is `timeouts.body`, or the first where that is written.
            apart between_bytes upload_pause
        );
        if !self.tells_all() || new.times.between_bytes == new.times.upload_pause {
            let times = (&old.times.between_bytes, &new.times.between_bytes);
            self.key(&format!("{table}.timeouts"), "between_bytes", times, duration);
        }
        each_field!(
            self,
            &format!("{table}.bounds"),
            (&old.bounds, &new.bounds),
            RouteBounds {
                body: size,
                requests: |count| maybe(count, plain),
                requests_per_client: |count| maybe(count, plain),
            },
            apart
        );
        each_field!(
            self,
            &format!("{table}.resend"),
            (&old.resend, &new.resend),
            ResendRules { content: size, methods: |methods| list(methods, plain) },
            apart
        );
        let table = format!("{table}.cache");
        self.key(&table, "browser", (&old.browser, &new.browser), |value| {
            maybe(value, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        self.rules(&table, (&old.rules, &new.rules));
        each_field!(
            self,
            &format!("{table}.key"),
            (&old.key, &new.key),
            KeyParts {
                headers: |names| filled(names, text),
                cookies: |names| filled(names, text),
                country: |name| maybe(name, text),
            },
            apart
        );
        self.key(&table, "also", (&old.also, &new.also), |kinds| list(kinds, word));
        self.key(&table, "slice", (&old.slice, &new.slice), |bytes| maybe(bytes, size));
        self.key(&format!("{table}.bypass"), "headers", (&old.bypass, &new.bypass), |signs| {
            filled(signs, field_sign)
        });
        each_field!(
            self,
            &format!("{table}.query"),
            (&old.query, &new.query),
            QueryRules {
                keep: |names| maybe(names, |names| words(names)),
                drop: |names| words(names),
                sort: plain,
            },
            apart
        );
    }

    fn purge_access(&mut self, values: (Option<&PurgeAccess>, Option<&PurgeAccess>)) {
        let (Some(old), Some(new)) = values else {
            let allow = |it: Option<&PurgeAccess>| it.map(|it| it.allow.clone());
            let allowed = (&allow(values.0), &allow(values.1));
            return self.key("", "purge", allowed, |allow| maybe(allow, |networks| list(networks, plain)));
        };
        each_field!(
            self, "purge", (old, new),
            PurgeAccess {
                allow: |networks| filled(networks, text),
                token_file: |file| maybe(file, path),
                soft: plain,
            },
            apart token
        );
        if old.token_file == new.token_file && old.token != new.token {
            self.told.push(Change::of_content("purge.token_file".to_owned()));
        }
    }

    fn maintenance(
        &mut self,
        table: &str,
        values: (Option<&MaintenanceSettings>, Option<&MaintenanceSettings>),
    ) {
        let (Some(old), Some(new)) = values else {
            let file = |it: Option<&MaintenanceSettings>| it.map(|it| it.file.clone());
            let files = (&file(values.0), &file(values.1));
            return self.key(table, "maintenance", files, |file| maybe(file, path));
        };
        each_field!(
            self,
            &if table.is_empty() { "maintenance".to_owned() } else { format!("{table}.maintenance") },
            (old, new),
            MaintenanceSettings {
                file: path,
                except: |networks| filled(networks, text),
                retry_after: duration
            },
            apart
        );
    }

    fn cross_origin(&mut self, table: &str, values: (&CrossOrigin, &CrossOrigin)) {
        each_field!(
            self, table, values,
            CrossOrigin { origins: origins_of, methods: methods_in_line, credentials: plain, max_age: duration },
            apart fields exposed
        );
        let (old, new) = values;
        self.key(table, "headers", (&old.fields, &new.fields), |fields| match fields {
            AllowedFields::Asked => Shown { told: "any".to_owned(), ..none() },
            AllowedFields::These(fields) => in_line(fields),
        });
        self.key(table, "expose", (&old.exposed, &new.exposed), |fields| maybe(fields, in_line));
    }

    fn canary(&mut self, table: &str, (old, new): (&Canary, &Canary)) {
        each_field!(
            self, table, (old, new),
            Canary {
                share: percent,
                header: |field| maybe(field, field_sign),
                cookie: |cookie| maybe(cookie, sign),
            },
            apart upstream
        );
        self.key(table, "upstream", (&old.upstream.name, &new.upstream.name), text);
    }

    fn rules(&mut self, table: &str, values: (&Rules, &Rules)) {
        each_field!(
            self, table, values,
            Rules {
                ttl: |lifetimes| maybe(lifetimes, ttl),
                default_ttl: |time| maybe(time, duration),
                min_ttl: |time| maybe(time, duration),
                max_ttl: |time| maybe(time, duration),
                stale_while_revalidate: |time| maybe(time, duration),
                stale_if_error: |time| maybe(time, duration),
                stale_on_disconnect: duration,
                stale_on_status: plain,
                heuristic: plain,
                set_cookie: word,
                client_directives: word,
                targeted: |names| list(names, plain),
                tag_fields: |names| list(names, plain),
                max_tags: plain,
                ranges: word,
                by_language: plain,
                undated_unmodified: plain,
            },
            // `compress` decides whether the edge codes.
            apart ignored_cookies cookies edge_codes
        );
        let (old, new) = values;
        // Where `bypass` says which cookies count, nothing else may.
        self.key(table, "cookies", (old, new), |rules| match &rules.ignored_cookies {
            IgnoredCookies::AllBut(_) => none(),
            IgnoredCookies::All | IgnoredCookies::Named(_) => word(&rules.cookies).into(),
        });
        self.key(table, "ignore_cookies", (&old.ignored_cookies, &new.ignored_cookies), |ignored| {
            match ignored {
                IgnoredCookies::All => plain(&true),
                IgnoredCookies::Named(names) => words(names),
                IgnoredCookies::AllBut(_) => none(),
            }
        });
        let bypass = |rules: &Rules| match &rules.ignored_cookies {
            IgnoredCookies::AllBut(names) => words(names),
            IgnoredCookies::All | IgnoredCookies::Named(_) => none(),
        };
        self.key(&format!("{table}.bypass"), "cookies", (old, new), bypass);
    }

    fn timeouts(&mut self, old: &Timeouts, new: &Timeouts) {
        each_field!(
            self,
            "timeouts",
            (old, new),
            Timeouts {
                handshake: duration,
                header: duration,
                body: duration,
                idle: duration,
                total: duration,
                upload: duration,
                tunnel: duration,
                drain: duration,
            },
            apart
        );
    }

    fn bounds(&mut self, old: &Bounds, new: &Bounds) {
        each_field!(
            self,
            "bounds",
            (old, new),
            Bounds {
                connections: plain,
                connections_per_client: plain,
                handshakes: plain,
                requests_per_client: |count| maybe(count, plain),
                streams: plain,
                streams_per_second: plain,
                control_frames_per_second: plain,
                head: |bytes| size(&(*bytes as u64)),
                fields: plain,
                body: size,
                body_rate: size,
                unsent: size,
                held_content: size,
            },
            apart
        );
    }
}

/// A list may be as long as the file.
fn shortened(mut value: String) -> String {
    if let Some((end, _)) = value.char_indices().nth(LONGEST_SHOWN) {
        value.truncate(end);
        value.push_str("..");
    }
    value
}

/// Characters of a value.
const LONGEST_SHOWN: usize = 160;

/// What a route says only of its upstream.
const OF_UPSTREAMS: &[&str] = &[
    "canary",
    "receive_first",
    "upgrades",
    "resend",
    "compress",
    "compress_types",
    "decompress",
    "early_hints",
    "strip_prefix",
    "add_prefix",
    "rewrite",
    "timeouts",
    "bounds",
    "cache",
    "upstream",
    "files",
];
