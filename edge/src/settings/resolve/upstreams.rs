//! Where misses go.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use http::HeaderName;
use toml::Spanned;

use super::{Resolver, Span, count, duration, map};
use crate::settings::{
    Check, Command, CommandListen, Location, RequestField, RequestFields, Server, UpstreamSettings,
    UpstreamTlsSettings, Verification,
    file::{WrittenCheck, WrittenUpstream, WrittenUpstreamTls},
    upstreams::TUNNELS_PER_CONNECTION,
    value::{Count, Percent, Positive, Table, Written, WrittenServer},
};

impl Resolver<'_> {
    pub(super) fn upstream(
        &mut self,
        name: &Arc<str>,
        span: Span,
        written: WrittenUpstream,
        commands: &BTreeMap<Arc<str>, Arc<Command>>,
    ) -> UpstreamSettings {
        let servers = self.servers(written.servers, &span, commands);
        let mut upstream = UpstreamSettings::new(name, servers);
        if let Some(tls) = written.tls {
            let place = tls.span.clone();
            upstream.tls = self.upstream_tls(tls.value);
            if !upstream.uses_tls() {
                let message = "no server of this upstream is reached by TLS, so this has no effect";
                self.fault(place, message, "take it out, or write servers = [\"https://..\"]");
            }
        }
        upstream.connect_timeout = self.or(written.connect_timeout.map(duration), upstream.connect_timeout);
        upstream.response_timeout =
            self.or(written.response_timeout.map(duration), upstream.response_timeout);
        upstream.idle_timeout = self.or(written.idle_timeout.map(duration), upstream.idle_timeout);
        upstream.collapse_timeout =
            self.or(written.collapse_timeout.map(duration), upstream.collapse_timeout);
        upstream.keep_alive = self.or(written.keep_alive.map(duration), upstream.keep_alive);
        upstream.connection_age = self.or(written.connection_age.map(duration), upstream.connection_age);
        upstream.connections = self.or(written.connections.map(count), upstream.connections);
        upstream.streams = self.or(written.streams.map(count), upstream.streams);
        let tunnels = u32::try_from(upstream.connections.saturating_mul(TUNNELS_PER_CONNECTION));
        upstream.tunnels = self.or(written.tunnels, Count(tunnels.unwrap_or(u32::MAX))).0 as usize;
        upstream.waiting = self.or(written.waiting, Count(upstream.waiting as u32)).0 as usize;
        upstream.waiting_timeout = self.or(written.waiting_timeout.map(duration), upstream.waiting_timeout);
        upstream.balance = self.or(written.balance, upstream.balance);
        upstream.slow_start = self.or(written.slow_start, upstream.slow_start);
        upstream.check = written.check.and_then(|check| self.check(check));
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
        upstream.hedge = self.or(written.hedge, Percent(upstream.hedge)).0;
        upstream.overload = self.or(written.overload, upstream.overload);
        upstream.proxy_protocol = self.or(written.proxy_protocol, upstream.proxy_protocol);
        upstream.request_fields = self.request_fields(written.request_fields);
        let shared = |server: &Server| {
            let Location::Command(name) = &server.location else { return false };
            commands.get(&**name).is_some_and(|command| command.listen == CommandListen::Shared)
        };
        if upstream.servers.iter().any(shared) {
            // A connection is whichever instance's has accepted it, and that may end at any time: each carries one request.
            upstream.connection_age = Duration::ZERO;
        }
        upstream
    }

    fn request_fields(&mut self, written: BTreeMap<Spanned<String>, Written<RequestField>>) -> RequestFields {
        RequestFields(self.fields(written, not_settable))
    }

    /// What is said of fields by their names. `refused` says what to do in place of what cannot be said.
    pub(super) fn fields<F>(
        &mut self,
        written: BTreeMap<Spanned<String>, Written<F>>,
        refused: impl Fn(&HeaderName, &F) -> Option<&'static str>,
    ) -> Vec<(HeaderName, F)> {
        let mut fields: Vec<(HeaderName, F)> = Vec::new();
        for (written, field) in written {
            let Ok(name) = written.get_ref().parse::<HeaderName>() else {
                let message = format!("{:?} is no name of a field", written.get_ref());
                self.fault(written.span(), message, "write a name such as X-Tenant");
                continue;
            };
            let Some(field) = self.value(field) else { continue };
            if fields.iter().any(|(other, _)| *other == name) {
                self.fault(written.span(), format!("{name} is listed twice"), "keep one of them");
            } else if let Some(remedy) = refused(&name, &field) {
                let message = format!("what is sent as {name} cannot be said here");
                self.fault(written.span(), message, remedy);
            } else {
                fields.push((name, field));
            }
        }
        fields
    }

    fn servers(
        &mut self,
        written: Option<Spanned<Vec<Spanned<WrittenServer>>>>,
        table: &Span,
        commands: &BTreeMap<Arc<str>, Arc<Command>>,
    ) -> Vec<Server> {
        const EXAMPLE: &str = "servers = [\"http://127.0.0.1:9000\"]";
        let Some(written) = written else {
            self.fault(table.clone(), "missing key \"servers\"", format!("add {EXAMPLE}"));
            return Vec::new();
        };
        if written.get_ref().is_empty() {
            self.fault(written.span(), "\"servers\" is empty", format!("write {EXAMPLE}"));
        }
        let mut servers: Vec<Server> = Vec::new();
        for server in written.into_inner() {
            let place = server.span();
            let Some(server) = self.server(server) else { continue };
            if let Location::Command(name) = &server.location {
                self.known("command", place.clone(), name, commands);
            }
            if servers.iter().any(|other| other.location == server.location) {
                self.fault(place, "this server is listed twice", "keep one of them");
            }
            servers.push(server);
        }
        if !servers.is_empty() && servers.iter().all(|server| server.backup) {
            let message = "every server is a backup, and of none";
            self.fault(table.clone(), message, "leave `backup` out of those that are to serve");
        }
        servers
    }

    fn server(&mut self, written: Spanned<WrittenServer>) -> Option<Server> {
        let span = written.span();
        match written.into_inner() {
            WrittenServer::Plain(value) => self.value(Written { span, value }).map(Server::from),
            WrittenServer::Table(table) => {
                let weight = table.weight.and_then(|weight| self.weight(weight));
                let backup = self.or(table.backup, false);
                let location = self.need(table.url, &span, "url", "\"http://127.0.0.1:9000\"")?;
                Some(Server { weight: weight.unwrap_or(NonZeroU32::MIN), backup, ..Server::from(location) })
            }
        }
    }

    fn weight(&mut self, written: Written<Positive>) -> Option<NonZeroU32> {
        let span = written.span.clone();
        let weight = self.value(written)?.0;
        if weight.get() > HEAVIEST {
            self.fault(span, format!("a weight of {weight} is too much"), format!("write 1 to {HEAVIEST}"));
        }
        Some(weight)
    }

    fn upstream_tls(&mut self, written: WrittenUpstreamTls) -> UpstreamTlsSettings {
        let places =
            [&written.certificate, &written.key].map(|file| file.as_ref().map(|file| file.span.clone()));
        let identity = match (written.certificate, written.key) {
            (Some(certificate), Some(key)) => self.value(certificate).zip(self.value(key)),
            (None, None) => None,
            _ => {
                let place = places.into_iter().flatten().next().unwrap_or_default();
                let message = "the edge shows who it is with a certificate and its key";
                self.fault(place, message, "write both `certificate` and `key`, or neither");
                None
            }
        };
        let verification = match self.or(written.verify, true) {
            true => Verification::Required,
            false => Verification::Off,
        };
        if let (Verification::Off, Some(ca)) = (verification, &written.ca) {
            let help = "take out `verify = false` or `ca`";
            self.fault(ca.span.clone(), "nothing is verified here, so this has no effect", help);
        }
        UpstreamTlsSettings {
            ca: written.ca.and_then(|ca| self.value(ca)),
            server_name: written.server_name.and_then(|name| self.value(name)).map(|name| name.0.into()),
            identity,
            verification,
        }
    }

    fn check(&mut self, written: Table<WrittenCheck>) -> Option<Check> {
        let Table { span, value: written } = written;
        let path = self.need(written.path, &span, "path", "\"/healthz\"");
        let mut check = Check::new(&path.map_or_else(|| "/".to_owned(), |path| path.0));
        check.host = written.host.and_then(|host| {
            let place = host.span.clone();
            let host = self.value(host)?.0;
            if host.parse::<http::HeaderValue>().is_err() || host.parse::<http::uri::Authority>().is_err() {
                self.fault(place, format!("{host:?} is no host"), "write a host such as \"app.internal\"");
            }
            Some(host.into())
        });
        if let Some(statuses) = written.status {
            check.statuses =
                statuses.into_iter().filter_map(|status| self.value(status)).map(|status| status.0).collect();
        }
        check.body = written.body.and_then(|body| self.value(body)).map(|body| body.0.into());
        check.interval = self.or(written.interval.map(duration), check.interval);
        check.timeout = self.or(written.timeout.map(duration), check.timeout);
        check.rise = self.or(written.rise.map(|rise| map(rise, |rise| rise.0.get())), check.rise);
        check.fall = self.or(written.fall.map(|fall| map(fall, |fall| fall.0.get())), check.fall);
        Some(check)
    }
}

/// More than that is a slip, and weights are multiplied with loads.
const HEAVIEST: u32 = 1000;

/// Why nothing may be said of a field, and what to do.
pub(super) fn not_settable(name: &HeaderName, field: &RequestField) -> Option<&'static str> {
    match (name.as_str(), field) {
        (
            "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding"
            | "upgrade" | "content-length" | "expect",
            _,
        ) => Some("leave it out: the edge frames its messages itself"),
        (
            "if-match"
            | "if-none-match"
            | "if-modified-since"
            | "if-unmodified-since"
            | "if-range"
            | "range"
            | "a-im",
            _,
        ) => Some("leave it out: the edge asks for what the cache lacks"),
        ("x-http-method-override" | "x-http-method" | "x-method-override", _) => {
            Some("leave it out: it asks for another method than the cache and the log know of")
        }
        ("cookie", _) => Some("leave it out, or write ignore_cookies in a route's cache"),
        ("host", RequestField::Absent) => Some("write the host that the servers are to be asked for"),
        (
            "host" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" | "x-real-ip"
            | "x-request-id" | "x-request-deadline" | "via",
            RequestField::Kept,
        ) => Some("write a value, or false; who is believed stands in clients.trusted_proxies"),
        _ => None,
    }
}
