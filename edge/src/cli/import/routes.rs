//! Servers and locations, as routes.

use std::collections::BTreeMap;

use super::{
    made::{NEEDLESS, NOT_KNOWN, Translating, table, text},
    nginx::NginxDirective,
};

/// One route.
#[derive(Default)]
pub(super) struct WantedRoute {
    pub(super) hosts: Vec<String>,
    pub(super) upstream: Option<String>,
    pub(super) limits: Vec<String>,
    paths: Vec<String>,
    /// Other keys, each as it is written.
    keys: BTreeMap<&'static str, String>,
    fields: BTreeMap<String, String>,
    cache: BTreeMap<String, String>,
    /// What browsers are told of keeping it.
    browser: Option<String>,
    /// What stands above it.
    line: usize,
    shown: String,
}

impl WantedRoute {
    pub(super) fn of(self, hosts: &[String]) -> Self {
        Self { hosts: hosts.to_vec(), ..self }
    }

    pub(super) fn written(&self, number: usize) -> String {
        let list = |all: &[String]| match all {
            [one] => text(one),
            all => format!("[{}]", all.iter().map(|one| text(one)).collect::<Vec<_>>().join(", ")),
        };
        let mut out =
            format!("\n# Line {}: {}\n[[routes]]\nname = \"r{}\"\n", self.line, self.shown, number + 1);
        if !self.hosts.is_empty() {
            let hosts: Vec<String> = self.hosts.iter().map(|host| text(host)).collect();
            out += &format!("hosts = [{}]\n", hosts.join(", "));
        }
        out += &format!("path = {}\n", list(&self.paths));
        if let Some(upstream) = &self.upstream {
            out += &format!("upstream = {}\n", text(upstream));
        }
        self.keys.iter().for_each(|(key, value)| out += &format!("{key} = {value}\n"));
        if !self.limits.is_empty() {
            out += &format!("limit = {}\n", list(&self.limits));
        }
        if !self.fields.is_empty() {
            out += &format!("response_fields = {}\n", table(&self.fields));
        }
        if !self.cache.is_empty() {
            out += &format!("cache = {}\n", table(&self.cache));
        }
        out
    }
}

/// Those of a server, in the order in which they are to be asked.
pub(super) fn of_server(
    to: &mut Translating,
    server: &NginxDirective,
    outer: &[NginxDirective],
) -> Vec<WantedRoute> {
    let (mut inherited, mut locations) = (outer.to_vec(), Vec::new());
    let mut whole = None;
    for inner in server.inner() {
        match inner.name.as_str() {
            "location" => locations.push(inner),
            "return" => whole = whole.or(Some(inner)),
            name if IS_INHERITED.contains(&name) || IS_GUARD.contains(&name) => inherited.push(inner.clone()),
            name if NEEDLESS.contains(&name) => {}
            _ => to.leave(inner, NOT_KNOWN),
        }
    }
    if let Some(answer) = whole {
        // Before any location.
        let all = NginxDirective { block: Some(vec![answer.clone()]), ..location(server.line, "/") };
        return route(to, &all, &inherited).into_iter().collect();
    }
    if !locations.iter().any(|inner| inner.args == ["/"])
        && inherited.iter().any(|inner| inner.name == "root")
    {
        let mut routes = of_locations(to, &locations, &inherited);
        routes.extend(route(to, &location(server.line, "/"), &inherited));
        return routes;
    }
    of_locations(to, &locations, &inherited)
}

fn location(line: usize, path: &str) -> NginxDirective {
    NginxDirective { line, name: "location".to_owned(), args: vec![path.to_owned()], block: Some(Vec::new()) }
}

/// nginx takes the one that is equal, then the longest that begins so.
fn of_locations(
    to: &mut Translating,
    locations: &[&NginxDirective],
    inherited: &[NginxDirective],
) -> Vec<WantedRoute> {
    let mut sorted: Vec<&NginxDirective> = locations.to_vec();
    let rank = |location: &&NginxDirective| {
        let (sign, path) = sign_and_path(location);
        (sign != "=", std::cmp::Reverse(path.len()))
    };
    sorted.sort_by_key(rank);
    sorted.into_iter().filter_map(|location| route(to, location, inherited)).collect()
}

fn sign_and_path(location: &NginxDirective) -> (&str, &str) {
    match location.args.as_slice() {
        [sign, path] => (sign, path),
        [path] => ("", path),
        _ => ("~", ""),
    }
}

fn route(
    to: &mut Translating,
    location: &NginxDirective,
    inherited: &[NginxDirective],
) -> Option<WantedRoute> {
    let (sign, path) = sign_and_path(location);
    if !matches!(sign, "" | "=" | "^~") || !path.starts_with('/') || path.contains('*') {
        to.leave(
            location,
            "its requests go to another route: there are no expressions here, and no named locations",
        );
        return None;
    }
    let mut route = WantedRoute { line: location.line, shown: location.shown(), ..WantedRoute::default() };
    route.paths = match (sign, path) {
        ("=", path) => vec![path.to_owned()],
        (_, path) if path.ends_with('/') => vec![format!("{path}*")],
        (_, path) => {
            to.leave(location, &format!("{path} and {path}/.. are taken; nginx takes {path}x too"));
            vec![path.to_owned(), format!("{path}/*")]
        }
    };
    let said = in_force(location.inner(), inherited);
    let mut files = FilesSaid::default();
    let mut is_open = true;
    for directive in &said {
        is_open &= one(to, &mut route, (directive, path), &mut files);
    }
    if !is_open {
        to.leave(location, "left out whole: what guards it is not taken");
        return None;
    }
    let answers =
        route.upstream.is_some() || route.keys.contains_key("redirect") || route.keys.contains_key("respond");
    if !answers && !files.serve(to, &mut route, location, path) {
        to.leave(location, "left out whole: where it leads is not taken");
        return None;
    }
    if let Some(said) = &route.browser {
        route.cache.insert("browser".to_owned(), text(said));
    }
    if route.keys.contains_key("redirect") || route.keys.contains_key("respond") {
        // It asks nobody.
        ["bounds", "compress", "compress_types"].iter().for_each(|key| drop(route.keys.remove(key)));
        route.cache.clear();
    }
    Some(route)
}

/// What holds in a location: its own, and of what surrounds it what it does not say itself.
fn in_force(own: &[NginxDirective], inherited: &[NginxDirective]) -> Vec<NginxDirective> {
    let same_kind =
        |one: &str, other: &str| one == other || (IS_ACCESS.contains(&one) && IS_ACCESS.contains(&other));
    let not_said = |outer: &&NginxDirective| !own.iter().any(|inner| same_kind(&inner.name, &outer.name));
    let mut said: Vec<NginxDirective> = inherited.iter().filter(not_said).chain(own).cloned().collect();
    // What is said of an upstream needs to know which.
    said.sort_by_key(|directive| directive.name != "proxy_pass");
    said
}

/// What is said of files, until all of it is known.
#[derive(Default)]
struct FilesSaid {
    root: Option<String>,
    alias: Option<String>,
    fallback: Option<String>,
    refused: bool,
}

impl FilesSaid {
    fn serve(
        &self,
        to: &mut Translating,
        route: &mut WantedRoute,
        location: &NginxDirective,
        path: &str,
    ) -> bool {
        let Some(folder) = self.root.as_ref().or(self.alias.as_ref()).filter(|_| !self.refused) else {
            return false;
        };
        if self.alias.is_some() && path != "/" {
            if !path.ends_with('/') {
                to.leave(location, "an alias of a location that does not end in /");
                return false;
            }
            route.keys.insert("strip_prefix", text(path.trim_end_matches('/')));
        }
        let folder = if folder == "/" { folder } else { folder.trim_end_matches('/') };
        let files = match &self.fallback {
            Some(page) => format!("{{ folder = {}, fallback = {} }}", text(folder), text(page)),
            None => text(folder),
        };
        route.keys.insert("files", files);
        true
    }
}

/// Takes one directive. False where it guards the place and cannot be taken.
fn one(
    to: &mut Translating,
    route: &mut WantedRoute,
    (directive, path): (&NginxDirective, &str),
    files: &mut FilesSaid,
) -> bool {
    let (first, second) = (directive.arg(0), directive.arg(1));
    let taken = match directive.name.as_str() {
        "proxy_pass" => forward(to, route, first, path),
        "return" => answer(route, directive),
        "root" => said(&mut files.root, first),
        "alias" => said(&mut files.alias, first),
        "index" => first == "index.html",
        "try_files" => {
            let tries = fallback(&directive.args);
            files.refused |= tries.is_none();
            files.fallback = tries.clone().unwrap_or_default();
            tries.is_some()
        }
        "expires" => expires(route, first),
        "add_header" => {
            if first.eq_ignore_ascii_case("cache-control") {
                !second.contains('$') && browser(route, second)
            } else {
                field(&mut route.fields, first, second)
            }
        }
        "proxy_hide_header" => route.fields.insert(first.to_owned(), "false".to_owned()).is_none(),
        "proxy_set_header" => request_field(to, route, directive),
        "proxy_connect_timeout" => upstream_key(to, route, directive, &["connect_timeout"]),
        "proxy_read_timeout" => upstream_key(to, route, directive, &["response_timeout", "idle_timeout"]),
        "proxy_cache_valid" => lifetime(route, &directive.args),
        "proxy_cache" if first != "off" => true,
        "client_max_body_size" => size(first).is_some_and(|size| {
            route.keys.insert("bounds", format!("{{ body = {} }}", text(&size)));
            true
        }),
        "gzip" => {
            if first == "off" {
                route.keys.insert("compress", "false".to_owned());
            }
            true
        }
        "gzip_types" => {
            let types: Vec<String> = directive.args.iter().map(|kind| text(kind)).collect();
            let html = ["\"text/html\"".to_owned()];
            route.keys.insert("compress_types", format!("[{}]", [&html[..], &types].concat().join(", ")));
            !directive.args.iter().any(|kind| kind == "*")
        }
        "limit_req" => limit(to, route, directive),
        "allow" | "deny" => access(route, &directive.name, first),
        "auth_basic" => first != "off" && basic_auth(route, "realm", first),
        "auth_basic_user_file" => basic_auth(route, "users", first),
        "proxy_redirect" => first == "off" || first == "default",
        name if NEEDLESS.contains(&name) => true,
        _ => false,
    };
    if !taken {
        let why = if is_known(&directive.name) { "in this form it cannot be said here" } else { NOT_KNOWN };
        to.leave(directive, why);
    }
    taken || !IS_GUARD.contains(&directive.name.as_str())
}

fn is_known(name: &str) -> bool {
    IS_INHERITED.contains(&name)
        || IS_GUARD.contains(&name)
        || matches!(name, "proxy_pass" | "return" | "alias" | "try_files")
}

fn said(place: &mut Option<String>, value: &str) -> bool {
    let plain = !value.contains('$') && !value.is_empty();
    *place = plain.then(|| value.to_owned());
    plain
}

/// `http://app`, `http://app/` below a prefix.
fn forward(to: &mut Translating, route: &mut WantedRoute, target: &str, path: &str) -> bool {
    let Some((scheme @ ("http" | "https"), rest)) = target.split_once("://") else { return false };
    if target.contains('$') {
        return false;
    }
    let (address, uri) = match rest.strip_prefix("unix:") {
        Some(socket) => match socket.split_once(':') {
            Some((socket, uri)) => (format!("unix:{socket}"), Some(uri.to_owned())),
            None => (rest.to_owned(), None),
        },
        None => match rest.find('/') {
            Some(at) => (rest[..at].to_owned(), Some(rest[at..].to_owned())),
            None => (rest.to_owned(), None),
        },
    };
    if let Some(uri) = uri {
        // Both end in a slash, or the parts that are put together are no path's.
        if !path.ends_with('/') || !uri.ends_with('/') || uri.contains('?') {
            return false;
        }
        if uri != path {
            let (strip, add) = (path.trim_end_matches('/'), uri.trim_end_matches('/'));
            for (key, prefix) in [("strip_prefix", strip), ("add_prefix", add)] {
                if !prefix.is_empty() {
                    route.keys.insert(key, text(prefix));
                }
            }
        }
    }
    route.upstream = to.upstream_of(scheme, &address);
    route.upstream.is_some()
}

/// Whether a directive sends everything to https.
pub(super) fn is_to_https(directive: &NginxDirective) -> bool {
    let url = directive.arg(1);
    directive.name == "return"
        && matches!(directive.arg(0), "301" | "302" | "307" | "308")
        && matches!(
            url,
            "https://$host$request_uri"
                | "https://$server_name$request_uri"
                | "https://$http_host$request_uri"
        )
}

fn answer(route: &mut WantedRoute, directive: &NginxDirective) -> bool {
    if is_to_https(directive) {
        route.keys.insert("redirect", format!("{{ to = \"https\", status = {} }}", directive.arg(0)));
        return true;
    }
    let (status, rest) = match directive.args.as_slice() {
        [url] if url.contains("://") => ("302", Some(url)),
        [status] => (status.as_str(), None),
        [status, rest] => (status.as_str(), Some(rest)),
        _ => return false,
    };
    if matches!(status, "301" | "302" | "303" | "307" | "308") {
        let Some(to) = rest else { return false };
        let to = to.replace("$request_uri", "{path}{query}").replace("$is_args$args", "{query}");
        let to = to.replace("$host", "{host}").replace("$uri", "{path}");
        let plain = !to.contains('$') && (to.starts_with('/') || to.starts_with("http"));
        if plain {
            route.keys.insert("redirect", format!("{{ to = {}, status = {status} }}", text(&to)));
        }
        return plain;
    }
    let Some(number) =
        status.parse::<u16>().ok().filter(|status| (200..600).contains(status) && *status != 444)
    else {
        return false;
    };
    let respond = match rest {
        None => number.to_string(),
        Some(body) if body.contains('$') => return false,
        Some(body) => format!("{{ status = {number}, body = {} }}", text(body)),
    };
    route.keys.insert("respond", respond);
    true
}

/// `$uri $uri/ /index.html`, `$uri =404`: the page for all else, or none. `None` for other forms.
fn fallback(tries: &[String]) -> Option<Option<String>> {
    let (last, first) = tries.split_last()?;
    if first.is_empty()
        || !first.iter().all(|one| matches!(one.as_str(), "$uri" | "$uri/" | "$uri/index.html"))
    {
        return None;
    }
    match last.as_str() {
        "=404" => Some(None),
        page => {
            let page = page.strip_prefix('/')?;
            (page.ends_with(".html") && !page.contains('$')).then(|| Some(page.to_owned()))
        }
    }
}

fn expires(route: &mut WantedRoute, time: &str) -> bool {
    let browser = match time {
        "off" => return true,
        "max" => "max-age=315360000".to_owned(),
        "epoch" | "-1" => "no-cache".to_owned(),
        time => match seconds(time) {
            Some(seconds) => format!("max-age={seconds}"),
            None => return false,
        },
    };
    self::browser(route, &browser)
}

/// What several directives say stands together, as clients read several fields.
fn browser(route: &mut WantedRoute, more: &str) -> bool {
    let said = route.browser.get_or_insert_default();
    if !said.is_empty() {
        said.push_str(", ");
    }
    said.push_str(more);
    true
}

/// `30d`, `1h`, `60`.
fn seconds(time: &str) -> Option<u64> {
    let digits = time.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = time.split_at(digits);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "M" => 30 * 86_400,
        "y" => 365 * 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `10m`, `512k`, `0` for none.
fn size(size: &str) -> Option<String> {
    let digits = size.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = size.split_at(digits);
    let number = number.parse::<u64>().ok().filter(|number| *number > 0)?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => "B",
        "k" => "KiB",
        "m" => "MiB",
        "g" => "GiB",
        _ => return None,
    };
    Some(format!("{number} {unit}"))
}

fn field(fields: &mut BTreeMap<String, String>, name: &str, value: &str) -> bool {
    let plain = !value.contains('$') && name.parse::<http::HeaderName>().is_ok();
    if plain {
        fields.insert(name.to_owned(), text(value));
    }
    plain
}

/// Those that every upstream is sent are there already; others must say the same wherever the upstream is named.
fn request_field(to: &mut Translating, route: &WantedRoute, directive: &NginxDirective) -> bool {
    let (name, value) = (directive.arg(0).to_ascii_lowercase(), directive.arg(1));
    match (name.as_str(), value) {
        ("host", "$host" | "$http_host")
        | ("x-real-ip", "$remote_addr")
        | ("x-forwarded-for", "$proxy_add_x_forwarded_for" | "$remote_addr")
        | ("x-forwarded-proto", "$scheme")
        | ("x-forwarded-host", "$host" | "$http_host")
        | ("x-request-id", "$request_id")
        | ("upgrade", "$http_upgrade")
        | ("connection", _) => true,
        _ => {
            let Some(upstream) = route.upstream.as_ref().and_then(|name| to.upstreams.get_mut(name)) else {
                return false;
            };
            let same = upstream.fields.get(&name).is_none_or(|other| *other == text(value));
            same && field(&mut upstream.fields, &name, value)
        }
    }
}

/// A time that all requests to the upstream have.
fn upstream_key(
    to: &mut Translating,
    route: &WantedRoute,
    directive: &NginxDirective,
    keys: &[&'static str],
) -> bool {
    let Some(time) = seconds(directive.arg(0)).filter(|time| *time > 0) else { return false };
    let Some(upstream) = route.upstream.as_ref().and_then(|name| to.upstreams.get_mut(name)) else {
        return false;
    };
    let time = text(&format!("{time}s"));
    keys.iter().all(|key| *upstream.keys.entry(key).or_insert_with(|| time.clone()) == time)
}

/// It counts where the origin states none, as here `default_ttl` does.
fn lifetime(route: &mut WantedRoute, args: &[String]) -> bool {
    let Some((time, statuses)) = args.split_last() else { return false };
    let takes = statuses.is_empty() || statuses.iter().any(|status| status == "200");
    let Some(seconds) = seconds(time).filter(|_| takes) else { return false };
    route.cache.insert("default_ttl".to_owned(), text(&format!("{seconds}s")));
    statuses.iter().all(|status| matches!(status.as_str(), "200" | "301"))
}

fn limit(to: &mut Translating, route: &mut WantedRoute, directive: &NginxDirective) -> bool {
    let parameter = |name: &str| directive.args.iter().find_map(|arg| arg.strip_prefix(name));
    let Some(zone) = parameter("zone=") else { return false };
    let burst = parameter("burst=").map_or(Some(0), |burst| burst.parse::<usize>().ok());
    let Some((limit, burst)) = to.limits.get_mut(zone).zip(burst) else { return false };
    // nginx counts those beyond the first.
    limit.burst = limit.burst.max(burst + 1);
    route.limits.push(zone.to_owned());
    let delays = burst > 0 && !directive.args.iter().any(|arg| arg == "nodelay");
    if delays {
        to.leave(directive, "the limit is taken; requests within its burst are not slowed down");
    }
    true
}

/// Lists of `allow` before `deny all`, or of `deny` alone.
fn access(route: &mut WantedRoute, rule: &str, whom: &str) -> bool {
    if whom == "all" {
        return rule == "deny" && route.keys.contains_key("allow")
            || rule == "allow" && route.keys.contains_key("deny");
    }
    let (key, other) = if rule == "allow" { ("allow", "deny") } else { ("deny", "allow") };
    if route.keys.contains_key(other)
        || whom.parse::<ipnet::IpNet>().is_err() && whom.parse::<std::net::IpAddr>().is_err()
    {
        return false;
    }
    let list = route.keys.entry(key).or_insert_with(|| "[]".to_owned());
    let separator = if list == "[]" { "" } else { ", " };
    *list = format!("{}{separator}{}]", list.trim_end_matches(']'), text(whom));
    true
}

fn basic_auth(route: &mut WantedRoute, key: &str, value: &str) -> bool {
    if value.contains('$') {
        return false;
    }
    let auth = route.keys.entry("basic_auth").or_insert_with(|| "{  }".to_owned());
    let before = auth.trim_start_matches("{ ").trim_end_matches(" }").trim().to_owned();
    let separator = if before.is_empty() { "" } else { ", " };
    *auth = format!("{{ {before}{separator}{key} = {} }}", text(value));
    true
}

/// What a location has of what surrounds it, where it says nothing itself.
pub(super) const IS_INHERITED: &[&str] = &[
    "add_header",
    "client_max_body_size",
    "expires",
    "gzip",
    "gzip_types",
    "index",
    "limit_req",
    "proxy_cache",
    "proxy_cache_valid",
    "proxy_connect_timeout",
    "proxy_hide_header",
    "proxy_read_timeout",
    "proxy_redirect",
    "proxy_set_header",
    "root",
    "try_files",
];

const IS_ACCESS: &[&str] = &["allow", "deny"];

/// Without these a place would be more open than it is.
pub(super) const IS_GUARD: &[&str] = &[
    "allow",
    "auth_basic",
    "auth_basic_user_file",
    "auth_jwt",
    "auth_request",
    "deny",
    "if",
    "internal",
    "limit_except",
    "satisfy",
    "secure_link",
    "valid_referers",
];
