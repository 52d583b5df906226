//! What happens to which requests.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cache_policy::{IgnoredCookies, QueryRules, Rules, Ttl};
use http::StatusCode;
use toml::Spanned;

use super::{Known, Resolver, Span, count, duration, inner, map};
use crate::settings::{
    Balance, Canary, MediaRange, PathPattern, ResendRules, Route, RouteBounds, RouteTimes, Timeouts,
    UpstreamSettings,
    file::{
        WrittenCanary, WrittenQuery, WrittenResend, WrittenRoute, WrittenRouteCache, WrittenRouteTimeouts,
    },
    value::{ByteSize, Lifetime, Lifetimes, Percent, Table, Text, Written},
};

impl Resolver<'_> {
    pub(super) fn routes(&mut self, written: Vec<Table<WrittenRoute>>, known: &Known<'_>) -> Vec<Arc<Route>> {
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
    fn route(&mut self, table: Table<WrittenRoute>, known: &Known<'_>) -> Option<Route> {
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
        let canary = table.canary.and_then(|canary| self.canary(canary, upstream.as_deref(), known));
        let resend = self.resend(inner(table.resend));
        let limit = table.limit.and_then(|name| {
            let place = name.span.clone();
            let name = self.value(name)?;
            self.known("limit", place, &name.0, known.limits)
        });
        let compress = self.or(table.compress, true);
        if !compress && let Some(written) = &table.compress_types {
            let help = "take it out, or `compress = false`";
            self.fault(written.span(), "nothing is coded here, so these types have no effect", help);
        }
        let compress_types = self.compress_types(table.compress_types);
        let decompress = self.or(table.decompress, compress);
        let mut cache = inner(table.cache);
        let early_hints = self.or(table.early_hints, false);
        let browser = cache.browser.take().and_then(|browser| self.value(browser));
        let query = self.query(inner(cache.query.take()));
        // A route that does not code leaves the choice to the origin, and then it makes variants.
        let mut rules = Rules { edge_codes: compress, ..self.rules(cache) };
        if let Some(upstream) = &upstream
            && let (Balance::Sticky(cookie), IgnoredCookies::Named(names)) =
                (&upstream.balance, &mut rules.ignored_cookies)
        {
            // The edge's own, which changes no answer.
            names.push((&**cookie).into());
        }
        let (times, bounds) = (inner(table.timeouts), inner(table.bounds));
        let bounds = RouteBounds {
            body: self.or(bounds.body.map(|body| map(body, |size| size.0)), known.bounds.body),
            requests: bounds.requests.and_then(|requests| self.value(count(requests))),
        };
        let upstream = upstream?;
        Some(Route {
            times: self.route_times(times, &upstream, known.timeouts),
            bounds,
            name: name?.0.into(),
            hosts: hosts?,
            path: path?,
            upstream,
            canary,
            resend,
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

    fn route_times(
        &mut self,
        written: WrittenRouteTimeouts,
        upstream: &UpstreamSettings,
        defaults: &Timeouts,
    ) -> RouteTimes {
        let pause = written.between_bytes.and_then(|pause| self.value(duration(pause)));
        RouteTimes {
            total: self.or(written.total.map(duration), defaults.total),
            first_byte: self.or(written.first_byte.map(duration), upstream.response_timeout),
            between_bytes: pause.unwrap_or(upstream.idle_timeout),
            upload_pause: pause.unwrap_or(defaults.body),
            whole: written.whole.and_then(|whole| self.value(duration(whole))),
        }
    }

    fn compress_types(&mut self, written: Option<Spanned<Vec<Written<MediaRange>>>>) -> Arc<[MediaRange]> {
        let Some(written) = written else { return MediaRange::defaults() };
        written.into_inner().into_iter().filter_map(|written| self.value(written)).collect()
    }

    fn canary(
        &mut self,
        written: Table<WrittenCanary>,
        stable: Option<&UpstreamSettings>,
        known: &Known<'_>,
    ) -> Option<Canary> {
        let Table { span, value: written } = written;
        let place = written.upstream.as_ref().map_or(span.clone(), |name| name.span.clone());
        let upstream = self
            .need(written.upstream, &span, "upstream", "\"new\"")
            .and_then(|name| self.upstream_of_route(place.clone(), &name.0, known));
        if upstream.as_ref().zip(stable).is_some_and(|(canary, stable)| canary.name == stable.name) {
            self.fault(
                place,
                "the canary is the route's own upstream",
                "name the one where the new is tried",
            );
        }
        let share = self.or(written.share, Percent(0)).0;
        let header = written.header.and_then(|sign| self.value(sign)).map(|sign| sign.0);
        let cookie = written.cookie.and_then(|sign| self.value(sign)).map(|sign| sign.0);
        if share == 0 && header.is_none() && cookie.is_none() {
            let help = "write share = \"5%\", or a `header` or `cookie` that asks for it";
            self.fault(span, "nobody is sent to this canary", help);
        }
        Some(Canary { upstream: upstream?, share, header, cookie })
    }

    fn resend(&mut self, written: WrittenResend) -> ResendRules {
        let place = written.content.as_ref().map(|size| size.span.clone());
        let content = self.or(written.content, ByteSize(0)).0;
        if let Some(place) = place.filter(|_| content > MOST_HELD) {
            let message = format!("{} held for each request is too much", ByteSize(content));
            self.fault(place, message, format!("write at most \"{}\"", ByteSize(MOST_HELD)));
        }
        let methods = written.methods.unwrap_or_default();
        ResendRules {
            content,
            methods: methods
                .into_iter()
                .filter_map(|method| self.value(method))
                .map(|method| method.0)
                .collect(),
        }
    }

    fn upstream_of_route(
        &mut self,
        place: Span,
        name: &str,
        known: &Known<'_>,
    ) -> Option<Arc<UpstreamSettings>> {
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

    fn query(&mut self, written: WrittenQuery) -> QueryRules {
        let mut names = |list: Vec<Written<Text>>| {
            list.into_iter().filter_map(|name| Some(self.value(name)?.0)).collect::<Vec<_>>()
        };
        let (keep, drop) = (written.keep.map(&mut names), names(written.drop));
        QueryRules { keep, drop, sort: self.or(written.sort, false) }
    }

    fn rules(&mut self, written: WrittenRouteCache) -> Rules {
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
            edge_codes: defaults.edge_codes,
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

/// The most content that is held for one request: there may be as many requests as connections.
const MOST_HELD: u64 = 1 << 20;
