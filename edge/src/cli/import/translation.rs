//! From directives to settings: listeners, upstreams, limits; the routes are beside this.
//!
//! Promises: what is written means here what it means there; what does not is left out and named, with its line. A place that
//! is guarded by what is left out is left out whole: it is never more open than it was.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    made::{NEEDLESS, NOT_KNOWN, Translating, WantedLimit, WantedUpstream, key, server_url, table, text},
    nginx::NginxDirective,
    routes::{self, WantedRoute},
};

/// What came of a file.
#[derive(Debug, Default)]
pub(super) struct Translation {
    /// A file of settings.
    pub(super) settings: String,
    /// A line each.
    pub(super) left: Vec<String>,
}

pub(super) fn translate(name: &str, file: &[NginxDirective]) -> Translation {
    let mut translating = Translating {
        name: name.to_owned(),
        left: Vec::new(),
        upstreams: BTreeMap::new(),
        listeners: BTreeMap::new(),
        limits: BTreeMap::new(),
    };
    let mut http: Vec<&NginxDirective> = Vec::new();
    for directive in file {
        match directive.name.as_str() {
            "http" => http.extend(directive.inner()),
            "server" | "upstream" | "limit_req_zone" => http.push(directive),
            "user"
            | "worker_processes"
            | "pid"
            | "events"
            | "worker_rlimit_nofile"
            | "error_log"
            | "load_module" => {}
            _ => http.push(directive),
        }
    }
    let routes = translating.http(&http);
    translating.written(&routes)
}

impl Translating {
    fn http(&mut self, http: &[&NginxDirective]) -> Vec<WantedRoute> {
        let (mut servers, mut outer) = (Vec::new(), Vec::new());
        for directive in http.iter().copied() {
            match directive.name.as_str() {
                "upstream" => self.upstream(directive),
                "limit_req_zone" => self.zone(directive),
                "server" => servers.push(directive),
                name if NEEDLESS.contains(&name) => {}
                name if routes::IS_INHERITED.contains(&name) || routes::IS_GUARD.contains(&name) => {
                    outer.push(directive.clone());
                }
                "include" if directive.arg(0).contains("mime.types") => {}
                "include" => {
                    self.leave(directive, "what it includes is not read: import that file by itself");
                }
                _ => self.leave(directive, NOT_KNOWN),
            }
        }
        let mut routes = Vec::new();
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for server in servers {
            routes.extend(self.server(server, &outer, &mut taken));
        }
        // Those of any host come last, as nginx prefers a name to none.
        routes.sort_by_key(|route: &WantedRoute| route.hosts.is_empty());
        routes
    }

    fn upstream(&mut self, directive: &NginxDirective) {
        let mut wanted = WantedUpstream::default();
        for inner in directive.inner() {
            match (inner.name.as_str(), inner.arg(0)) {
                ("server", _) => match self.upstream_server(inner) {
                    Some(server) => wanted.servers.push(server),
                    None => self.leave(inner, "no server that can be said here"),
                },
                ("least_conn", _)
                | ("keepalive" | "keepalive_timeout" | "keepalive_requests" | "zone", _) => {}
                ("ip_hash", _) => drop(wanted.keys.insert("balance", text("hash client"))),
                ("hash", "$remote_addr" | "$binary_remote_addr") => {
                    wanted.keys.insert("balance", text("hash client"));
                }
                ("hash", "$request_uri" | "$uri") => drop(wanted.keys.insert("balance", text("hash path"))),
                _ => self.leave(inner, NOT_KNOWN),
            }
        }
        let balanced =
            directive.inner().iter().any(|inner| matches!(&*inner.name, "least_conn" | "ip_hash" | "hash"));
        if !balanced && wanted.servers.len() > 1 {
            wanted.keys.insert("balance", text("round-robin"));
        }
        if wanted.servers.is_empty() {
            self.leave(directive, "no server is left of it, and what leads there is left out");
        } else {
            self.upstreams.insert(directive.arg(0).to_owned(), wanted);
        }
    }

    fn upstream_server(&mut self, directive: &NginxDirective) -> Option<String> {
        let url = server_url("http", directive.arg(0))?;
        let (mut weight, mut backup) = (None, false);
        for parameter in directive.args.iter().skip(1) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("weight", number) => weight = Some(number.parse::<u16>().ok()?),
                ("backup", "") => backup = true,
                ("max_fails" | "fail_timeout", _) => {
                    self.leave(
                        directive,
                        "max_fails and fail_timeout: see failures and put_aside of the upstream",
                    );
                }
                _ => return None,
            }
        }
        if weight.is_none() && !backup {
            return Some(text(&url));
        }
        let weight = weight.map(|weight| format!(", weight = {weight}")).unwrap_or_default();
        let backup = if backup { ", backup = true" } else { "" };
        Some(format!("{{ url = {}{weight}{backup} }}", text(&url)))
    }

    /// `limit_req_zone $binary_remote_addr zone=api:10m rate=10r/s`
    fn zone(&mut self, directive: &NginxDirective) {
        let parameter = |name: &str| directive.args.iter().find_map(|arg| arg.strip_prefix(name));
        let zone = parameter("zone=").and_then(|zone| zone.split(':').next());
        let rate = parameter("rate=").and_then(|rate| rate.split_once("r/"));
        match (directive.arg(0), zone, rate) {
            ("$binary_remote_addr" | "$remote_addr", Some(zone), Some((number, unit @ ("s" | "m")))) => {
                let limit = WantedLimit { rate: format!("{number}/{unit}"), burst: 1 };
                self.limits.insert(zone.to_owned(), limit);
            }
            _ => self.leave(
                directive,
                "limits count clients by their address, in whole requests a second or a minute",
            ),
        }
    }

    fn server(
        &mut self,
        server: &NginxDirective,
        outer: &[NginxDirective],
        taken: &mut BTreeSet<String>,
    ) -> Vec<WantedRoute> {
        let all = |name: &'static str| server.inner().iter().filter(move |inner| inner.name == name);
        let mut hosts = Vec::new();
        for names in all("server_name") {
            for name in &names.args {
                let Some(host) = host(name) else {
                    self.leave(
                        names,
                        "a name of that form cannot be said here, and so the whole server is left out",
                    );
                    return Vec::new();
                };
                hosts.extend(host);
            }
        }
        let mut listens: Vec<&NginxDirective> = all("listen").collect();
        let implied =
            NginxDirective { line: server.line, name: "listen".into(), args: vec!["80".into()], block: None };
        if listens.is_empty() {
            listens.push(&implied);
        }
        let has_tls = listens.iter().any(|listen| listen.args.iter().any(|arg| arg == "ssl"));
        let to_https = !has_tls && leads_to_https(server);
        if !to_https {
            let key = if hosts.is_empty() { vec![String::new()] } else { hosts.clone() };
            if !key.iter().all(|name| taken.insert(name.clone())) {
                self.leave(
                    server,
                    "another server has one of its names: routes here are for all listeners; the first is taken, and this left out",
                );
                return Vec::new();
            }
        }
        let file = |name: &'static str| all(name).next_back().map(|inner| inner.arg(0).to_owned());
        let pair = file("ssl_certificate").zip(file("ssl_certificate_key"));
        for listen in listens {
            self.listen(listen, pair.as_ref());
        }
        let routes = routes::of_server(self, server, outer);
        routes.into_iter().map(|route| route.of(&hosts)).collect()
    }

    fn listen(&mut self, directive: &NginxDirective, pair: Option<&(String, String)>) {
        let Some(address) = socket(directive.arg(0)) else {
            return self.leave(directive, "no address and port: write a [[listen]] for it");
        };
        let tls = directive.args.iter().any(|arg| arg == "ssl");
        for other in directive.args.iter().skip(1) {
            match other.as_str() {
                "ssl" | "default_server" | "http2" | "reuseport" | "deferred" => {}
                other if other.starts_with("ipv6only=") || other.starts_with("backlog=") => {}
                _ => self.leave(directive, "see [[listen]] for what it may say"),
            }
        }
        let Some(pair) = pair.filter(|_| tls) else {
            if tls {
                return self.leave(
                    directive,
                    "no certificate stands in its server: write `domain` or `tls` in a [[listen]]",
                );
            }
            self.listeners.entry(address).or_default();
            return;
        };
        let socket = self.listeners.entry(address).or_default();
        socket.tls = true;
        if !socket.certificates.contains(pair) {
            socket.certificates.push(pair.clone());
        }
    }

    fn written(mut self, routes: &[WantedRoute]) -> Translation {
        let mut out = format!(
            "# From {}, by `edge import`. All listeners serve all routes; the first route that matches takes a request.\n",
            self.name
        );
        for (address, socket) in &self.listeners {
            out += &format!("\n[[listen]]\naddress = {}\n", text(address));
            let mut pairs = socket.certificates.iter();
            if let Some((certificate, key)) = pairs.next().filter(|_| socket.tls) {
                out += &format!("tls = {{ certificate = {}, key = {} }}\n", text(certificate), text(key));
            }
            for (certificate, key) in pairs {
                out += &format!(
                    "\n[[listen.certificates]]\ncertificate = {}\nkey = {}\n",
                    text(certificate),
                    text(key)
                );
            }
        }
        out += "\n[admin]\naddress = \"127.0.0.1:9900\"\n";
        let used = |name: &str| routes.iter().any(|route| route.limits.iter().any(|limit| limit == name));
        for (name, WantedLimit { rate, burst }) in self.limits.iter().filter(|(name, _)| used(name)) {
            out += &format!("\n[limits.{}]\nrate = {}\nburst = {burst}\n", key(name), text(rate));
        }
        let leads = |name: &str| routes.iter().any(|route| route.upstream.as_deref() == Some(name));
        for (name, upstream) in self.upstreams.iter().filter(|(name, _)| leads(name)) {
            out += &format!("\n[upstreams.{}]\nservers = [{}]\n", key(name), upstream.servers.join(", "));
            upstream.keys.iter().for_each(|(key, value)| out += &format!("{key} = {value}\n"));
            if !upstream.fields.is_empty() {
                out += &format!("request_fields = {}\n", table(&upstream.fields));
            }
        }
        for (number, route) in routes.iter().enumerate() {
            out += &route.written(number);
        }
        if routes.is_empty() {
            self.left.push((0, "no route is left: there is nothing to serve".to_owned()));
        }
        self.left.sort();
        let name = self.name;
        let left = self.left.into_iter().map(|(line, what)| format!("{name}:{line}: not taken: {what}"));
        Translation { settings: out, left: left.collect() }
    }
}

/// A server that does nothing but this.
fn leads_to_https(server: &NginxDirective) -> bool {
    let says: Vec<&NginxDirective> =
        server.inner().iter().filter(|inner| !matches!(&*inner.name, "listen" | "server_name")).collect();
    matches!(says[..], [only] if routes::is_to_https(only))
}

/// `a.test`, `*.a.test`; `_` and the empty name are every host. `None` for what has no such form.
fn host(name: &str) -> Option<Vec<String>> {
    match name {
        "_" | "" => Some(Vec::new()),
        name if name.starts_with('~') || name.ends_with(".*") => None,
        name => Some(match name.strip_prefix('.') {
            Some(below) => vec![below.to_owned(), format!("*.{below}")],
            None => vec![name.to_owned()],
        }),
    }
}

/// `80`, `[::]:80`, `10.0.0.1:80` as an address here; 80 is every address.
fn socket(listen: &str) -> Option<String> {
    if let Ok(port) = listen.parse::<u16>() {
        return Some(format!("[::]:{port}"));
    }
    let listen = listen.replacen("*:", "[::]:", 1);
    let address = listen.parse::<std::net::SocketAddr>();
    let address = address.or_else(|_| format!("{listen}:80").parse::<std::net::SocketAddr>()).ok()?;
    // Both are served by one socket here.
    Some(if address.ip().is_unspecified() { format!("[::]:{}", address.port()) } else { address.to_string() })
}
