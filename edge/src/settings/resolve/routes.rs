//! What happens to which requests.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cache_policy::{Cookies, IgnoredCookies, QueryRules, Ranges, Rules, Ttl, covers};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use ipnet::IpNet;
use toml::Spanned;

use super::{Known, Resolver, Span, at_most, count, duration, inner, map};
use crate::settings::{
    AddressRules, Asks, Balance, BasicAuth, BesideGet, Canary, EncodedSlash, FilesFolder, HostPattern,
    INTERNAL, KeyParts, Limit, Location, LocationTemplate, MediaRange, PathPattern, PathRewrite, Redirect,
    RedirectFrom, RequestField, ResendRules, ResponseField, ResponseFields, Route, RouteAction, RouteBounds,
    RouteTimes, SecurityFields, StatedAnswer, Timeouts, UpgradeProtocol, UpstreamSettings, Users,
    file::{
        WrittenBasicAuth, WrittenCanary, WrittenKeyParts, WrittenQuery, WrittenResend, WrittenRoute,
        WrittenRouteCache, WrittenRouteTimeouts,
    },
    key_parts::not_keyed,
    value::{
        ByteSize, FieldSign, Lifetime, Lifetimes, LimitNames, PathPrefix, Percent, PlainOrTable,
        RedirectTarget, Table, Text, Written, WrittenFiles, WrittenRedirect, WrittenRespond,
    },
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
                    let message = format!("the route name {:?} is taken on {}", text.0, self.line(earlier));
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
                    "route {:?} is unreachable: route {:?} on {line} takes its requests",
                    route.name, other.name
                );
                let help = if other.paths == route.paths {
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
    pub(super) fn route(&mut self, table: Table<WrittenRoute>, known: &Known<'_>) -> Option<Route> {
        let Table { span, value: table } = table;
        let useless = useless_without_upstream(&table);
        let route_name = table.name.as_ref().and_then(|name| name.value.clone().ok());
        let mounted_at = table.strip_prefix.as_ref().and_then(|prefix| prefix.value.clone().ok());
        let addresses = AddressRules {
            allow: self.networks(table.allow, &span, "allow"),
            deny: self.networks(table.deny, &span, "deny"),
        };
        let basic_auth = table.basic_auth.and_then(|auth| self.basic_auth(auth)).map(Arc::new);
        let forward_auth = table.forward_auth.and_then(|auth| self.forward_auth(auth, known)).map(Arc::new);
        let maintenance = match table.maintenance {
            Some(written) => self.maintenance(written),
            None => known.maintenance.cloned(),
        };
        let tag_fields = own_tag_fields(table.cache.as_ref());
        let mut response_fields = self.fields(table.response_fields, |name, field| {
            let is_kept_tag = *field == ResponseField::Kept && tag_fields.contains(name);
            not_sayable(name, field).filter(|_| !is_kept_tag)
        });
        // They stop here as those that everybody knows do.
        let others = tag_fields.into_iter().filter(|name| !INTERNAL.contains(name));
        let others: Vec<_> =
            others.filter(|name| response_fields.iter().all(|(said, _)| said != name)).collect();
        response_fields.extend(others.into_iter().map(|name| (name, ResponseField::Absent)));
        let response_fields = ResponseFields(response_fields);
        let name = self.need(table.name, &span, "name", "\"pages\", which logs and metrics show");
        let hosts = match table.hosts {
            None => Some(Vec::new()),
            written => {
                let count = written.as_ref().map_or(0, |hosts| hosts.get_ref().len());
                const EXAMPLE: &str = "[\"shop.example\"], or leave it out to match every host";
                let hosts = self.list(written, &span, "hosts", EXAMPLE);
                (hosts.len() == count).then(|| hosts.into_iter().map(|(_, host)| host).collect())
            }
        };
        let paths = self.need(table.path, &span, "path", "\"/*\"");
        let asks = self.asks(&span, table.methods, table.headers);
        if let Some(written) = &table.rewrite
            && (table.strip_prefix.is_some() || table.add_prefix.is_some())
        {
            let message = "this route has \"rewrite\" beside strip_prefix or add_prefix";
            self.fault(written.span.clone(), message, "let the expression do it all, or leave it out");
        }
        let written = (table.strip_prefix, table.add_prefix);
        let mut rewrite = self.rewrite(written, paths.as_ref().map_or(&[], |paths| &paths.0));
        rewrite.replace = table.rewrite.and_then(|written| self.substitution(written)).map(Arc::new);
        let action = self.action(
            &span,
            WrittenActions {
                upstream: table.upstream,
                files: table.files,
                mounted_at,
                redirect: table.redirect,
                respond: table.respond,
                route: route_name,
            },
            known,
        );
        if let Some(RouteAction::Redirect(_) | RouteAction::Respond(_)) = &action {
            for (key, place) in useless {
                let message = format!("{key:?} has no effect: this route asks no upstream");
                self.fault(place, message, "leave it out");
            }
        }
        let upstream = action.as_ref().and_then(RouteAction::upstream).cloned();
        let place_of_cors = table.cors.as_ref().map(|cors| cors.span.clone());
        let cors = table.cors.and_then(|cors| self.cross_origin(cors)).map(Arc::new);
        if let Some(place) = place_of_cors
            && !asks.methods.is_empty()
            && !asks.methods.contains(&Method::OPTIONS)
        {
            let message = "browsers ask by OPTIONS whether a script may send a request, which is none of these `methods`";
            self.fault(place, message, "add \"OPTIONS\" to `methods`");
        }
        let security = self.or(table.security, SecurityFields::default());
        let canary = table.canary.and_then(|canary| self.canary(canary, upstream.as_deref(), known));
        let resend = self.resend(inner(table.resend));
        let receive_first = self.receive_first(table.receive_first);
        let upgrades = self.upgrades(table.upgrades);
        let limits = table.limit.map(|names| self.limits(names, known)).unwrap_or_default();
        let mut cache = inner(table.cache);
        let slice = cache.slice.take().and_then(|slice| self.slice(slice, known.largest_object));
        if slice.is_some() {
            if let Some(Written { span, value: Ok(true) }) = &table.compress {
                let message =
                    "slices are octets of what the upstream sends, and of nothing that is coded here";
                self.fault(span.clone(), message, "leave it out, or `slice` of the route's cache");
            }
            if let Some(Written { span, value: Ok(Ranges::Whole | Ranges::Fitted) }) = &cache.ranges {
                let message = "slices are parts, whose Content-Range is to be believed";
                self.fault(span.clone(), message, "leave it out, or `slice`");
            }
        }
        let compress = self.or(table.compress, slice.is_none());
        if !compress && let Some(written) = &table.compress_types {
            let help = "take it out, or `compress = false`";
            self.fault(written.span(), "nothing is coded here, so these types have no effect", help);
        }
        let compress_types = self.compress_types(table.compress_types);
        let decompress = self.or(table.decompress, compress);
        let early_hints = self.or(table.early_hints, false);
        let encoded_slash = self.or(table.encoded_slash, EncodedSlash::default());
        let browser = cache.browser.take().and_then(|browser| self.value(browser));
        let query = self.query(inner(cache.query.take()));
        let key = cache.key.take().map(|key| self.key_parts(key, upstream.as_deref())).unwrap_or_default();
        let also = cache.also.take().unwrap_or_default();
        let also = self.beside_get(also, (&asks, receive_first));
        let bypass = cache.bypass.take();
        let bypass_place = bypass.as_ref().map(|bypass| bypass.span.clone());
        let said_otherwise = cache.cookies.as_ref().map(|cookies| cookies.span.clone());
        let said_otherwise = said_otherwise.or(cache.ignore_cookies.as_ref().map(|names| names.span.clone()));
        // A route that does not code leaves the choice to the origin, and then it makes variants.
        let mut rules = Rules { edge_codes: compress, ..self.rules(cache) };
        if let Some(upstream) = &upstream
            && let (Balance::Sticky(cookie), IgnoredCookies::Named(names)) =
                (&upstream.balance, &mut rules.ignored_cookies)
        {
            // The edge's own, which changes no answer.
            names.push((&**cookie).into());
        }
        let mut bypassed_by = Vec::new();
        if let Some(Table { span, value: written }) = bypass {
            if let Some(names) = written.cookies {
                if let Some(place) = said_otherwise {
                    let message = "`bypass` says which cookies count, and this does too";
                    self.fault(place, message, "leave it out: other cookies are ignored");
                }
                rules.cookies = Cookies::Bypass;
                let names = self.value(names).map(|names| names.0).unwrap_or_default();
                rules.ignored_cookies = IgnoredCookies::AllBut(names);
            } else if written.headers.is_none() {
                let help = "write headers = [\"X-Preview\"] or cookies = [\"session\"]";
                self.fault(span.clone(), "\"bypass\" has nothing go past the cache", help);
            }
            if written.headers.is_some() {
                let signs = self.list(written.headers, &span, "headers", "[\"X-Preview\"], or leave it out");
                bypassed_by = signs.into_iter().map(|(_, sign)| sign.0).collect();
            }
        }
        self.keyed_cookies(&mut rules, &key, bypass_place);
        let (times, bounds) = (inner(table.timeouts), inner(table.bounds));
        let bounds = RouteBounds {
            body: self.or(bounds.body.map(|body| map(body, |size| size.0)), known.bounds.body),
            requests: bounds.requests.and_then(|requests| self.value(count(requests))),
            requests_per_client: bounds.requests_per_client.and_then(|requests| self.value(count(requests))),
        };
        Some(Route {
            times: self.route_times(times, upstream.as_deref(), known.timeouts),
            bounds,
            name: name?.0.into(),
            hosts: hosts?,
            paths: paths?.0,
            asks,
            addresses,
            basic_auth,
            forward_auth,
            maintenance,
            action: action?,
            rewrite,
            response_fields,
            cors,
            security,
            canary,
            resend,
            receive_first,
            upgrades,
            limits,
            rules,
            query,
            key,
            bypass: bypassed_by,
            also,
            slice,
            browser,
            compress,
            compress_types,
            decompress,
            early_hints,
            encoded_slash,
        })
    }

    fn asks(
        &mut self,
        span: &Span,
        methods: Option<Spanned<Vec<Written<Method>>>>,
        fields: Option<Spanned<Vec<Written<FieldSign>>>>,
    ) -> Asks {
        let mut asks = Asks::default();
        if methods.is_some() {
            let methods = self.list(methods, span, "methods", "[\"GET\"], or leave it out for every method");
            asks.methods = methods.into_iter().map(|(_, method)| method).collect();
        }
        if fields.is_some() {
            let fields = self.list(fields, span, "headers", "[\"X-Beta: yes\"], or leave it out");
            asks.fields = fields.into_iter().map(|(_, sign)| sign.0).collect();
        }
        asks
    }

    fn route_times(
        &mut self,
        written: WrittenRouteTimeouts,
        upstream: Option<&UpstreamSettings>,
        defaults: &Timeouts,
    ) -> RouteTimes {
        let of_upstream = |time: fn(&UpstreamSettings) -> Duration| upstream.map_or(defaults.total, time);
        let pause = written.between_bytes.and_then(|pause| self.value(duration(pause)));
        RouteTimes {
            total: self.or(written.total.map(duration), defaults.total),
            first_byte: self
                .or(written.first_byte.map(duration), of_upstream(|upstream| upstream.response_timeout)),
            between_bytes: pause.unwrap_or_else(|| of_upstream(|upstream| upstream.idle_timeout)),
            upload_pause: pause.unwrap_or(defaults.body),
            whole: written.whole.and_then(|whole| self.value(duration(whole))),
        }
    }

    pub(super) fn networks(
        &mut self,
        written: Option<Spanned<Vec<Written<IpNet>>>>,
        table: &Span,
        key: &str,
    ) -> Vec<IpNet> {
        if written.is_none() {
            return Vec::new();
        }
        let networks = self.list(written, table, key, "[\"10.0.0.0/8\"], or leave it out");
        networks.into_iter().map(|(_, network)| network.trunc()).collect()
    }

    fn basic_auth(&mut self, written: Table<WrittenBasicAuth>) -> Option<BasicAuth> {
        let Table { span, value: written } = written;
        let place = written.users.as_ref().map_or(span.clone(), |file| file.span.clone());
        let file = self.need(written.users, &span, "users", "\"users.htpasswd\"");
        let realm_place = written.realm.as_ref().map(|realm| realm.span.clone());
        let realm = self.or(written.realm, Text("Restricted".to_owned())).0;
        if realm.contains(['"', '\\']) || !realm.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            let message = format!("{realm:?} is no name that a browser shows");
            self.fault(realm_place.unwrap_or(span), message, "write visible ASCII without quotes");
            return None;
        }
        let file = file?;
        let users = Users::read(&file).map_err(|(what, help)| self.fault(place, what, help)).ok()?;
        let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
        Some(BasicAuth { file, users, challenge: HeaderValue::from_str(&challenge).ok()? })
    }

    fn rewrite(
        &mut self,
        (strip, add): (Option<Written<PathPrefix>>, Option<Written<PathPrefix>>),
        paths: &[PathPattern],
    ) -> PathRewrite {
        let place = strip.as_ref().map(|prefix| prefix.span.clone());
        let mut read = |prefix: Option<Written<PathPrefix>>| Some(self.value(prefix?)?.0);
        let rewrite = PathRewrite { strip: read(strip), add: read(add), replace: None };
        if let (Some(strip), Some(place)) = (&rewrite.strip, place) {
            let below = PathPattern::Prefix(format!("{strip}/").into());
            let begins =
                |path: &&PathPattern| below.covers(path) || **path == PathPattern::Exact(strip.clone());
            if let Some(path) = paths.iter().find(|path| !begins(path)) {
                let message = format!("paths of this route need not begin with \"{strip}\": \"{path}\"");
                let help = format!("write path = \"{strip}/*\", or another strip_prefix");
                self.fault(place, message, help);
            }
        }
        rewrite
    }

    /// What the one key says that leads somewhere.
    fn action(&mut self, span: &Span, written: WrittenActions, known: &Known<'_>) -> Option<RouteAction> {
        let WrittenActions { upstream, files, mounted_at, redirect, respond, route } = written;
        let written = [
            upstream.as_ref().map(|written| ("upstream", written.span.clone())),
            files.as_ref().map(|written| ("files", written.span())),
            redirect.as_ref().map(|written| ("redirect", written.span())),
            respond.as_ref().map(|written| ("respond", written.span())),
        ];
        let mut written = written.into_iter().flatten();
        let (first, second) = (written.next(), written.next());
        if let (Some((one, _)), Some((other, place))) = (&first, second) {
            let message = format!("this route has {one:?} and {other:?}");
            self.fault(place, message, "keep one of them: a route leads to one place");
        }
        let place = first.map_or(span.clone(), |(_, place)| place);
        if let Some(written) = files {
            let folder = self.files(place, written.into_inner(), mounted_at)?;
            let name = format!("files.{}", route.map_or_else(String::new, |name| name.0));
            let upstream = UpstreamSettings {
                heads: known.bounds.of_heads(),
                tunnel: known.timeouts.tunnel,
                ..UpstreamSettings::new(&name, vec![Location::Files(folder.into()).into()])
            };
            return Some(RouteAction::Forward(upstream.into()));
        }
        if let Some(written) = redirect {
            return self.redirect(place, written.into_inner(), known).map(RouteAction::Redirect);
        }
        if let Some(written) = respond {
            return self.respond(place, written.into_inner()).map(RouteAction::Respond);
        }
        let example =
            known.upstreams.keys().next().map_or("\"origin\"".to_owned(), |name| format!("{name:?}"));
        let name = self.need(upstream, span, "upstream", &example)?;
        self.upstream_of_route(place, &name.0, known).map(RouteAction::Forward)
    }

    fn files(
        &mut self,
        place: Span,
        written: WrittenFiles,
        mounted_at: Option<PathPrefix>,
    ) -> Option<FilesFolder> {
        let (folder, fallback, immutable) = match written {
            PlainOrTable::Plain(value) => (Some(Written { span: place.clone(), value }), None, None),
            PlainOrTable::Table(table) => (table.folder, table.fallback, table.immutable),
        };
        let place_of_folder = folder.as_ref().map_or(place.clone(), |folder| folder.span.clone());
        let folder = self.need(folder, &place, "folder", "\"dist\"")?;
        let root = match folder.canonicalize() {
            Ok(root) if root.is_dir() => root,
            Ok(_) => {
                let message = format!("{} is no folder", folder.display());
                self.fault(place_of_folder, message, "name the folder that the files are in");
                return None;
            }
            Err(error) => {
                let message = format!("{} cannot be read: {error}", folder.display());
                self.fault(place_of_folder, message, "build it first, or correct the path");
                return None;
            }
        };
        let place_of_fallback = fallback.as_ref().map(|page| page.span.clone());
        let fallback = fallback.and_then(|page| self.value(page));
        if let (Some(page), Some(place)) = (&fallback, place_of_fallback)
            && !root.join(page).is_file()
        {
            let message = format!("there is no {} in {}", page.display(), folder.display());
            self.fault(place, message, "name a page of the folder, as in \"index.html\"");
        }
        Some(FilesFolder {
            root,
            mounted_at: mounted_at.map(|prefix| prefix.0),
            fallback: fallback.map(|page| format!("/{}", page.display()).into()),
            immutable: immutable.and_then(|paths| self.value(paths)).map(|paths| paths.0).unwrap_or_default(),
        })
    }

    fn redirect(&mut self, place: Span, written: WrittenRedirect, known: &Known<'_>) -> Option<Redirect> {
        let (to, status) = match written {
            PlainOrTable::Plain(value) => (Some(Written { span: place.clone(), value }), None),
            PlainOrTable::Table(table) => (table.to, table.status),
        };
        let status = self.or(status.map(|status| map(status, |it| it.0)), StatusCode::PERMANENT_REDIRECT);
        Some(match self.need(to, &place, "to", "\"https\"")? {
            RedirectTarget::To(to) => Redirect { to, status, from: RedirectFrom::Any },
            RedirectTarget::Https => {
                let Some(port) = known.tls_port else {
                    self.fault(
                        place,
                        "no listener has TLS",
                        "give one `tls`, or write where to: \"https://{host}{path}{query}\"",
                    );
                    return None;
                };
                let to = LocationTemplate::over_tls(port);
                Redirect { to, status, from: RedirectFrom::ClearText }
            }
        })
    }

    fn respond(&mut self, place: Span, written: WrittenRespond) -> Option<StatedAnswer> {
        let (status, content, content_type) = match written {
            PlainOrTable::Plain(value) => (Some(Written { span: place.clone(), value }), None, None),
            PlainOrTable::Table(table) => (table.status, table.body, table.content_type),
        };
        let without_content = "an answer of this status has no content";
        let has_content = content.as_ref().map(|content| content.span.clone());
        let status = self.need(status, &place, "status", "200")?.0;
        if let Some(place) = has_content.filter(|_| matches!(status.as_u16(), 204 | 205)) {
            self.fault(place, without_content, "leave it out, or write another status");
        }
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        Some(StatedAnswer {
            status,
            content_type: self.or(content_type, text),
            content: self.or(content, String::new()).into(),
        })
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

    fn receive_first(&mut self, written: Option<Written<ByteSize>>) -> u64 {
        let place = written.as_ref().map(|size| size.span.clone());
        let most = self.or(written, ByteSize(RECEIVED_FIRST)).0;
        if let Some(place) = place.filter(|_| most > MOST_RECEIVED) {
            let message = format!("{} in memory for each request is too much", ByteSize(most));
            self.fault(place, message, format!("write at most \"{}\"", ByteSize(MOST_RECEIVED)));
        }
        most
    }

    fn slice(&mut self, written: Written<ByteSize>, largest_object: u64) -> Option<u64> {
        let place = written.span.clone();
        let size = self.value(written)?;
        if size < LEAST_SLICE {
            let message = format!("slices of {size} are stored with much beside them");
            self.fault(place, message, format!("write at least \"{LEAST_SLICE}\", as in \"1 MiB\""));
        } else if size.0 > largest_object {
            let largest = ByteSize(largest_object);
            let message =
                format!("a slice of {size} is larger than `largest_object` of [cache], which is {largest}");
            self.fault(place, message, format!("write at most \"{largest}\", or raise `largest_object`"));
        }
        Some(size.0)
    }

    fn upgrades(
        &mut self,
        written: Option<Spanned<Vec<Written<UpgradeProtocol>>>>,
    ) -> Arc<[UpgradeProtocol]> {
        let Some(written) = written else { return UpgradeProtocol::defaults() };
        written.into_inner().into_iter().filter_map(|written| self.value(written)).collect()
    }

    fn limits(&mut self, written: Written<LimitNames>, known: &Known<'_>) -> Vec<Arc<Limit>> {
        let place = written.span.clone();
        let mut limits: Vec<Arc<Limit>> = Vec::new();
        for Text(name) in self.value(written).map(|names| names.0).unwrap_or_default() {
            let Some(limit) = self.known("limit", place.clone(), &name, known.limits) else { continue };
            if limits.iter().any(|other| other.name == limit.name) {
                let message = format!("the limit {name:?} is named twice");
                self.fault(place.clone(), message, "one request counts once: name each limit once");
            }
            limits.push(limit);
        }
        limits
    }

    pub(super) fn upstream_of_route(
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

    fn beside_get(
        &mut self,
        written: Vec<Written<BesideGet>>,
        (asks, receive_first): (&Asks, u64),
    ) -> Vec<BesideGet> {
        let mut also = Vec::new();
        for kind in written {
            let place = kind.span.clone();
            let Some(kind) = self.value(kind) else { continue };
            let method = match kind {
                BesideGet::Query => Method::from_bytes(b"QUERY").expect("it is a token"),
                BesideGet::Graphql => Method::POST,
                BesideGet::Options => Method::OPTIONS,
            };
            if also.contains(&kind) {
                self.fault(place, "it is named twice", "keep one of them");
            } else if !asks.takes(&method) {
                let message = format!("it comes by {method}, which is none of the route's `methods`");
                self.fault(place, message, format!("add \"{method}\" to `methods`, or leave it out"));
            } else if receive_first == 0 && kind != BesideGet::Options {
                let message = "content is part of the key only where it is received first";
                self.fault(place, message, "raise `receive_first`, or leave it out");
            } else {
                also.push(kind);
            }
        }
        also
    }

    fn key_parts(
        &mut self,
        written: Table<WrittenKeyParts>,
        upstream: Option<&UpstreamSettings>,
    ) -> KeyParts {
        let Table { span, value: written } = written;
        let mut parts = KeyParts::default();
        let mut named: Vec<(Span, HeaderName)> = Vec::new();
        if written.headers.is_some() {
            named = self.list(written.headers, &span, "headers", "[\"X-Currency\"], or leave it out");
        }
        let fields = named.len();
        if let Some(country) = written.country {
            let place = country.span.clone();
            named.extend(self.value(country).map(|name| (place, name)));
        }
        for (index, (place, name)) in named.iter().enumerate() {
            let stated = upstream.and_then(|upstream| upstream.request_fields.of(name));
            if let Some(remedy) = not_keyed(name) {
                self.fault(place.clone(), format!("{name} cannot be part of the key"), remedy);
            } else if matches!(stated, Some(RequestField::Is(_) | RequestField::Absent)) {
                let message =
                    format!("{name} is what `request_fields` of the upstream says, whatever clients send");
                self.fault(place.clone(), message, "leave it out of one of the two");
            } else if named[..index].iter().any(|(_, other)| other == name) {
                self.fault(place.clone(), format!("{name} is named twice"), "keep one of them");
            } else if index < fields {
                parts.headers.push(name.clone());
            } else {
                parts.country = Some(name.clone());
            }
        }
        if written.cookies.is_some() {
            for (place, Text(name)) in
                self.list(written.cookies, &span, "cookies", "[\"currency\"], or leave it out")
            {
                let said =
                    upstream.and_then(|upstream| upstream.request_fields.of(&header::COOKIE)).is_some();
                if name.parse::<HeaderName>().is_err() || name.contains('*') {
                    let help = "write a whole name, without a value";
                    self.fault(place, format!("{name:?} is no name of a cookie"), help);
                } else if said {
                    let message =
                        "Cookie is what `request_fields` of the upstream says, whatever clients send";
                    self.fault(place, message, "leave it out of one of the two");
                } else if parts.cookies.iter().any(|other| **other == *name) {
                    self.fault(place, format!("{name} is named twice"), "keep one of them");
                } else {
                    parts.cookies.push(name.into());
                }
            }
        }
        if parts.is_nothing() && named.is_empty() {
            let help =
                "write headers = [\"X-Currency\"], cookies = [\"currency\"] or country = \"CF-IPCountry\"";
            self.fault(span, "\"key\" names nothing", help);
        }
        parts
    }

    /// Cookies that are part of the key are told apart by it, and make no request one with cookies.
    fn keyed_cookies(&mut self, rules: &mut Rules, key: &KeyParts, bypass: Option<Span>) {
        match &mut rules.ignored_cookies {
            IgnoredCookies::Named(names) => {
                let more = key.cookies.iter().map(ToString::to_string);
                let more: Vec<_> = more.filter(|name| !names.contains(name)).collect();
                names.extend(more);
            }
            IgnoredCookies::AllBut(names) => {
                let both =
                    key.cookies.iter().find(|name| names.iter().any(|other| covers(other, name.as_bytes())));
                if let (Some(name), Some(place)) = (both, bypass) {
                    let message =
                        format!("the cookie {name} is part of the key, and has requests go past it");
                    self.fault(place, message, "leave it out of `key` or of `bypass`");
                }
            }
            IgnoredCookies::All => {}
        }
    }

    fn rules(&mut self, written: WrittenRouteCache) -> Rules {
        let defaults = Rules::default();
        let limit = written.max_ttl.as_ref().and_then(|limit| limit.value.clone().ok());
        if let Some(Written { span, value: Ok(least) }) = &written.min_ttl
            && limit.is_some_and(|most| *least > most)
        {
            let help = "lower min_ttl, or raise max_ttl";
            self.fault(span.clone(), "min_ttl is longer than max_ttl", help);
        }
        Rules {
            ttl: written.ttl.and_then(|ttl| self.ttl(ttl, limit)),
            default_ttl: written.default_ttl.and_then(|ttl| self.value(ttl)),
            min_ttl: written.min_ttl.and_then(|ttl| self.value(ttl)),
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
            tag_fields: match written.tag_fields {
                Some(names) => names.into_iter().filter_map(|name| self.tag_field(name)).collect(),
                None => defaults.tag_fields,
            },
            max_tags: self.or(written.max_tags.map(at_most), defaults.max_tags),
            ranges: self.or(written.ranges, defaults.ranges),
            by_language: self.or(written.by_language, defaults.by_language),
            undated_unmodified: self.or(written.undated_unmodified, defaults.undated_unmodified),
        }
    }

    fn tag_field(&mut self, written: Written<HeaderName>) -> Option<HeaderName> {
        let place = written.span.clone();
        let name = self.value(written)?;
        let is_clients = [header::CONTENT_TYPE, header::LOCATION, header::SET_COOKIE, header::EXPIRES];
        if is_clients.contains(&name) || not_sayable(&name, &ResponseField::Absent).is_some() {
            let message = format!("{name} is for clients, and fields of tags stop here");
            self.fault(
                place,
                message,
                "name the fields that say what answers are purged by, as in [\"Cache-Tag\"]",
            );
            return None;
        }
        Some(name)
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

/// The keys of a route that lead somewhere, and what else counts for them.
struct WrittenActions {
    upstream: Option<Written<Text>>,
    files: Option<Spanned<WrittenFiles>>,
    /// Where clients see the root of `files`.
    mounted_at: Option<PathPrefix>,
    redirect: Option<Spanned<WrittenRedirect>>,
    respond: Option<Spanned<WrittenRespond>>,
    /// The route's name.
    route: Option<Text>,
}

/// The keys of a route that say something of its upstream or of what the cache keeps of its answers, with their places.
fn useless_without_upstream(table: &WrittenRoute) -> Vec<(&'static str, Span)> {
    let keys = [
        ("canary", table.canary.as_ref().map(|it| it.span.clone())),
        ("receive_first", table.receive_first.as_ref().map(|it| it.span.clone())),
        ("upgrades", table.upgrades.as_ref().map(Spanned::span)),
        ("resend", table.resend.as_ref().map(|it| it.span.clone())),
        ("compress", table.compress.as_ref().map(|it| it.span.clone())),
        ("compress_types", table.compress_types.as_ref().map(Spanned::span)),
        ("decompress", table.decompress.as_ref().map(|it| it.span.clone())),
        ("early_hints", table.early_hints.as_ref().map(|it| it.span.clone())),
        ("strip_prefix", table.strip_prefix.as_ref().map(|it| it.span.clone())),
        ("add_prefix", table.add_prefix.as_ref().map(|it| it.span.clone())),
        ("rewrite", table.rewrite.as_ref().map(|it| it.span.clone())),
        ("timeouts", table.timeouts.as_ref().map(|it| it.span.clone())),
        ("bounds", table.bounds.as_ref().map(|it| it.span.clone())),
        ("cache", table.cache.as_ref().map(|it| it.span.clone())),
    ];
    keys.into_iter().filter_map(|(key, place)| Some((key, place?))).collect()
}

/// Why nothing can be said of a field of answers, in words about what to do.
fn not_sayable(name: &HeaderName, field: &ResponseField) -> Option<&'static str> {
    match (name.as_str(), field) {
        (
            "connection" | "content-length" | "transfer-encoding" | "trailer" | "upgrade"
            | "content-encoding" | "content-range",
            _,
        ) => Some("leave it out: it says how the content is sent"),
        ("date" | "age" | "vary" | "etag" | "last-modified" | "cache-status", _) => {
            Some("leave it out: caches go by what the origin says")
        }
        ("cache-control", _) => Some("write `browser` in the route's `cache`"),
        ("set-cookie", ResponseField::Is(_)) => {
            Some("let the origin set cookies: one of the edge's would be everyone's")
        }
        (_, ResponseField::Kept) if !INTERNAL.contains(name) => {
            Some("leave it out: it is sent as the origin sends it")
        }
        _ => None,
    }
}

/// The fields of tags that a route's cache names.
fn own_tag_fields(cache: Option<&Table<WrittenRouteCache>>) -> Vec<HeaderName> {
    let names = cache.and_then(|cache| cache.value.tag_fields.as_ref()).into_iter().flatten();
    let mut names: Vec<HeaderName> = names.filter_map(|name| name.value.clone().ok()).collect();
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    names
}

/// The earlier route because of which `route` never sees a request: together they take each of its paths on each of its
/// hosts (the last one needed is named).
fn shadow<'r>(earlier: &'r [(Span, Arc<Route>)], route: &Route) -> Option<(&'r Span, &'r Route)> {
    let taker = |host: Option<&HostPattern>, path: &PathPattern| {
        earlier.iter().find(|(_, other)| {
            let takes_host = other.hosts.is_empty()
                || host.is_some_and(|host| other.hosts.iter().any(|name| name.covers(host)));
            takes_host
                && takes_scheme(&other.action, &route.action)
                && takes_asks(&other.asks, &route.asks)
                && other.paths.iter().any(|it| it.covers(path))
        })
    };
    let of_host = |host: Option<&HostPattern>| {
        route.paths.iter().map(|path| taker(host, path)).collect::<Option<Vec<_>>>()?.pop()
    };
    let (span, other) = match route.hosts.as_slice() {
        [] => of_host(None)?,
        hosts => hosts.iter().map(|host| of_host(Some(host))).collect::<Option<Vec<_>>>()?.pop()?,
    };
    Some((span, other))
}

/// Whether the scheme of requests leaves nothing for `inner` that `outer` has not taken.
fn takes_scheme(outer: &RouteAction, inner: &RouteAction) -> bool {
    let clear_alone = |action: &RouteAction| {
        matches!(action, RouteAction::Redirect(Redirect { from: RedirectFrom::ClearText, .. }))
    };
    !clear_alone(outer) || clear_alone(inner)
}

/// Whether every request that has what `inner` asks for has what `outer` asks for, as far as it can be told.
fn takes_asks(outer: &Asks, inner: &Asks) -> bool {
    let methods = outer.methods.is_empty()
        || !inner.methods.is_empty() && inner.methods.iter().all(|method| outer.methods.contains(method));
    methods && outer.fields.iter().all(|field| inner.fields.contains(field))
}

/// Content that is received whole first, where the file says nothing.
const RECEIVED_FIRST: u64 = 1 << 20;
/// The most for which memory is the place.
const MOST_RECEIVED: u64 = 64 << 20;
/// Of smaller slices the heads would take much of the memory.
const LEAST_SLICE: ByteSize = ByteSize(64 << 10);
/// The most content that is held for one request: there may be as many requests as connections.
const MOST_HELD: u64 = 1 << 20;
