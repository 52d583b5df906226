//! What a reload changes, and what a running edge cannot apply.
//!
//! A reload is all or nothing: settings of which one part is in force and another waits for a restart would match no
//! file. So the caller refuses the whole reload when [`needs_restart`] finds a change, keeps the running settings, and
//! reports why. What the others come to is told by [`changes`], key by key, as the file writes them.

mod changes;
mod effective;
mod shown;

use std::fmt;

use super::Settings;
pub use changes::{Change, changes, effective};

/// A setting that only a start can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedSetting {
    /// The key as the file names it, such as `threads`.
    pub key: String,
    /// How it changed: `changed from 2 to 3`, ..
    pub how: String,
}

impl fmt::Display for FixedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, which needs a restart", self.key, self.how)
    }
}

/// Compares the running settings with those of a reload; empty means that the reload may go ahead.
///
/// The number of threads is the number of sockets on each address: those of a thread that ends could not close without
/// refusing clients on their way in. An edge that changed the Redis which it shares with others would have to be another edge
/// to both.
#[must_use]
pub fn needs_restart(running: &Settings, wanted: &Settings) -> Vec<FixedSetting> {
    let (before, after) = (running.threads, wanted.threads);
    let how = format!("changed from {before} to {after}");
    let threads = (before != after).then(|| FixedSetting { key: "threads".to_owned(), how });
    let of_redis = changes(running, wanted).into_iter().filter(|Change { key, .. }| key.starts_with("redis"));
    let redis = of_redis.map(|Change { key, old, new }| FixedSetting {
        key,
        how: match (old, new) {
            (Some(old), Some(new)) => format!("changed from {old} to {new}"),
            (None, Some(_)) => "is new".to_owned(),
            (Some(_), None) => "is gone".to_owned(),
            (None, None) => "has changed".to_owned(),
        },
    });
    threads.into_iter().chain(redis).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{file::known_keys, parse};

    /// Every key of the file, with a value before and after the reload, and what comes of it. A key that is missing here
    /// fails a test: whoever adds one says whether a reload of it takes effect.
    const ALL: &[(&str, &str, &str, Effect)] = &[
        ("include", "[\"src/no*.toml\"]", "[\"src/none*.toml\"]", InFlight),
        ("threads", "2", "3", Restart),
        ("watch", "false", "true", InFlight),
        ("listen.address", "\"[::]:8080\"", "\"[::]:8081\"", InFlight),
        ("listen.on_demand", "false", "true", InFlight),
        ("listen.domain", "\"a.test\"", "[\"b.test\", \"c.test\"]", InFlight),
        ("listen.clear_text", "\"redirect\"", "\"serve\"", InFlight),
        ("acme.directory", "\"letsencrypt\"", "\"letsencrypt-staging\"", InFlight),
        ("acme.email", "\"a@a.test\"", "\"b@a.test\"", InFlight),
        ("acme.terms_agreed", "true", "false", InFlight),
        ("acme.profile", "\"a\"", "\"b\"", InFlight),
        ("acme.key_type", "\"p256\"", "\"p384\"", InFlight),
        ("acme.eab.key_id", "\"a\"", "\"b\"", InFlight),
        ("acme.eab.key_file", "\"a\"", "\"b\"", InFlight),
        ("acme.folder", "\"a\"", "\"b\"", InFlight),
        ("acme.ca", "\"a\"", "\"b\"", InFlight),
        ("acme.on_demand.names", "[\"a.test\"]", "[\"*.a.test\"]", InFlight),
        ("acme.on_demand.ask", "\"http://a.test/\"", "\"https://b.test/?a=1\"", InFlight),
        ("acme.on_demand.certificates", "1", "2", InFlight),
        ("acme.on_demand.orders_per_hour", "1", "2", InFlight),
        ("listen.tls", "{ certificate = \"a\", key = \"b\" }", "", InFlight),
        ("listen.tls.certificate", "\"a.pem\"", "\"b.pem\"", InFlight),
        ("listen.tls.key", "\"a.key\"", "\"b.key\"", InFlight),
        ("listen.tls.local_ca", "true", "false", InFlight),
        ("listen.tls.ocsp", "\"a.der\"", "\"b.der\"", InFlight),
        ("listen.tls.folder", "\"a\"", "\"b\"", InFlight),
        ("listen.tls.default", "\"a.test\"", "\"b.test\"", InFlight),
        ("listen.tls.unknown_names", "\"default\"", "\"refuse\"", InFlight),
        ("listen.tls.minimum_version", "\"1.2\"", "\"1.3\"", NextConnection),
        ("listen.tls.client_certificates", "{ ca = \"a\" }", "", NextConnection),
        ("listen.tls.client_certificates.ca", "\"a\"", "\"b\"", NextConnection),
        ("listen.tls.client_certificates.required", "true", "false", NextConnection),
        (
            "listen.tls.client_certificates.fields",
            "{ A = \"subject\" }",
            "{ A = \"issuer\" }",
            NextConnection,
        ),
        (
            "listen.certificates",
            "[{ certificate = \"a\", key = \"b\" }]",
            "[{ certificate = \"c\", key = \"d\" }]",
            InFlight,
        ),
        ("listen.certificates.certificate", "\"a.pem\"", "\"b.pem\"", InFlight),
        ("listen.certificates.key", "\"a.key\"", "\"b.key\"", InFlight),
        ("listen.certificates.ocsp", "\"a.der\"", "\"b.der\"", InFlight),
        ("listen.proxy_protocol", "true", "[\"10.0.0.0/8\"]", InFlight),
        ("listen.hsts", "\"1d\"", "\"365d includeSubDomains\"", NextConnection),
        ("admin.address", "\"127.0.0.1:9900\"", "\"127.0.0.1:9901\"", InFlight),
        ("admin.token_file", "\"a\"", "\"b\"", InFlight),
        ("admin.hosts", "[]", "[\"edge.test\"]", InFlight),
        ("cache.memory", "\"64 MiB\"", "\"128 MiB\"", InFlight),
        ("cache.largest_object", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("cache.variants", "4", "5", InFlight),
        ("redis.url", "\"redis://a\"", "\"redis://b\"", Restart),
        ("redis.password_file", "\"a\"", "\"b\"", Restart),
        ("redis.ca", "\"a\"", "\"b\"", Restart),
        ("redis.sentinels", "[\"redis://a\"]", "[\"redis://b\"]", Restart),
        ("redis.secret_file", "\"a\"", "\"b\"", Restart),
        ("redis.namespace", "\"a\"", "\"b\"", Restart),
        ("redis.look_up_timeout", "\"50ms\"", "\"60ms\"", Restart),
        ("redis.collapse_timeout", "\"100ms\"", "\"60ms\"", Restart),
        ("redis.largest_object", "\"1 MiB\"", "\"2 MiB\"", Restart),
        ("redis.max_ttl", "\"1d\"", "\"2d\"", Restart),
        ("redis.compress", "false", "true", Restart),
        ("redis.unheard", "\"validate\"", "\"serve\"", Restart),
        ("clients.trusted_proxies", "[]", "[\"10.0.0.0/8\"]", InFlight),
        ("clients.forwarded_by", "\"x-forwarded-for\"", "\"forwarded\"", InFlight),
        ("clients.request_id_in_answers", "\"errors\"", "\"always\"", InFlight),
        ("clients.remembered", "10", "11", InFlight),
        ("name_servers", "[\"10.0.0.1:53\"]", "[\"10.0.0.2:53\"]", InFlight),
        ("limits.x.rate", "\"50/s\"", "\"5/s\"", InFlight),
        ("limits.x.burst", "10", "11", InFlight),
        ("limits.x.key", "\"client\"", "\"header X-Key\"", InFlight),
        ("limits.x.cost", "{ POST = 1 }", "{ 401 = 1 }", InFlight),
        ("limits.x.except", "[\"10.0.0.1\"]", "[\"10.0.0.2\"]", InFlight),
        ("limits.x.dry_run", "false", "true", InFlight),
        ("commands.x.run", "[\"a\"]", "[\"a\", \"serve\"]", InFlight),
        ("commands.x.directory", "\".\"", "\"..\"", InFlight),
        ("commands.x.environment", "{}", "{ A = \"1\" }", InFlight),
        ("commands.x.env_file", "\"a\"", "\"b\"", InFlight),
        ("commands.x.user", "\"a\"", "\"b\"", InFlight),
        ("commands.x.group", "\"a\"", "\"b\"", InFlight),
        ("commands.x.instances", "1", "2", InFlight),
        ("commands.x.listen", "\"port\"", "\"unix\"", InFlight),
        ("commands.x.output", "\"log\"", "\"a.log\"", InFlight),
        ("commands.x.watch", "[]", "[\"dist\"]", InFlight),
        ("commands.x.memory", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("commands.x.admin_port", "\"A\"", "\"B\"", InFlight),
        ("commands.x.metrics", "\"/a\"", "\"/b\"", InFlight),
        ("commands.x.ready", "\"/a\"", "\"/b\"", InFlight),
        ("commands.x.ready_interval", "\"1s\"", "\"2s\"", InFlight),
        ("commands.x.ready_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("commands.x.ready_probe_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("commands.x.stop_signal", "\"TERM\"", "\"INT\"", InFlight),
        ("commands.x.stop_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.servers", "[\"http://a\"]", "[\"http://b\"]", InFlight),
        ("upstreams.x.servers.url", "\"http://a\"", "\"http://b\"", InFlight),
        ("upstreams.x.servers.weight", "1", "2", InFlight),
        ("upstreams.x.servers.backup", "true", "false", InFlight),
        ("upstreams.x.tls.ca", "\"a\"", "\"b\"", InFlight),
        ("upstreams.x.tls.server_name", "\"a\"", "\"b\"", InFlight),
        ("upstreams.x.tls.certificate", "\"a\"", "\"b\"", InFlight),
        ("upstreams.x.tls.key", "\"a\"", "\"b\"", InFlight),
        ("upstreams.x.tls.verify", "true", "false", InFlight),
        ("upstreams.x.check.path", "\"/a\"", "\"/b\"", InFlight),
        ("upstreams.x.check.host", "\"a\"", "\"b\"", InFlight),
        ("upstreams.x.check.status", "[200]", "[204]", InFlight),
        ("upstreams.x.check.body", "\"a\"", "\"b\"", InFlight),
        ("upstreams.x.check.interval", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.check.timeout", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.check.rise", "1", "2", InFlight),
        ("upstreams.x.check.fall", "1", "2", InFlight),
        ("upstreams.x.streams", "1", "2", InFlight),
        ("upstreams.x.balance", "\"round-robin\"", "\"hash path\"", InFlight),
        ("upstreams.x.slow_start", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.connect_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.response_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.idle_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.keep_alive", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.connections", "1", "2", InFlight),
        ("upstreams.x.waiting", "1", "2", InFlight),
        ("upstreams.x.collapse_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.connection_age", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.tunnels", "1", "2", InFlight),
        ("upstreams.x.waiting_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.failures", "1", "2", InFlight),
        ("upstreams.x.failing_statuses", "[500]", "[500, 503]", InFlight),
        ("upstreams.x.put_aside", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.retries", "\"1%\"", "\"2%\"", InFlight),
        ("upstreams.x.hedge", "\"1%\"", "\"2%\"", InFlight),
        ("upstreams.x.overload", "\"off\"", "\"adaptive\"", InFlight),
        ("upstreams.x.proxy_protocol", "\"off\"", "\"v2\"", InFlight),
        ("upstreams.x.request_fields", "{ a = \"1\" }", "{ a = false }", InFlight),
        ("routes.name", "\"a\"", "\"b\"", InFlight),
        ("routes.hosts", "[\"a.test\"]", "[\"b.test\"]", InFlight),
        ("routes.methods", "[\"GET\"]", "[\"GET\", \"POST\"]", InFlight),
        ("routes.headers", "[\"X-A\"]", "[\"X-A: b\"]", InFlight),
        ("routes.path", "\"/*\"", "\"/a/*\"", InFlight),
        ("routes.upstream", "\"x\"", "\"y\"", InFlight),
        ("routes.allow", "[\"10.0.0.1\"]", "[\"10.0.0.2\"]", InFlight),
        ("routes.deny", "[\"10.0.0.1\"]", "[\"10.0.0.2\"]", InFlight),
        ("routes.basic_auth.users", "\"tests/users.htpasswd\"", "\"./tests/users.htpasswd\"", InFlight),
        ("routes.basic_auth.realm", "\"a\"", "\"b\"", InFlight),
        ("routes.forward_auth.upstream", "\"y\"", "\"z\"", InFlight),
        ("routes.forward_auth.path", "\"/a\"", "\"/b\"", InFlight),
        ("routes.forward_auth.copy", "[\"X-A\"]", "[\"X-B\"]", InFlight),
        ("routes.maintenance.file", "\"a\"", "\"b\"", InFlight),
        ("routes.maintenance.except", "[\"10.0.0.1\"]", "[\"10.0.0.2\"]", InFlight),
        ("routes.maintenance.retry_after", "\"1s\"", "\"2s\"", InFlight),
        ("routes.maintenance", "\"a\"", "\"b\"", InFlight),
        ("routes.strip_prefix", "\"/p\"", "", InFlight),
        ("routes.add_prefix", "\"/a\"", "\"/b\"", InFlight),
        ("routes.rewrite.from", "\"/a/(.*)\"", "\"/b/(.*)\"", InFlight),
        ("routes.rewrite.to", "\"/a\"", "\"/b\"", InFlight),
        ("routes.cors.origins", "[\"https://a.test\"]", "\"*\"", InFlight),
        ("routes.cors.methods", "[\"GET\"]", "[\"PUT\"]", InFlight),
        ("routes.cors.headers", "[\"X-A\"]", "[\"X-B\"]", InFlight),
        ("routes.cors.expose", "[\"X-A\"]", "[\"X-B\"]", InFlight),
        ("routes.cors.credentials", "true", "false", InFlight),
        ("routes.cors.max_age", "\"1s\"", "\"2s\"", InFlight),
        ("routes.security", "\"strict\"", "\"off\"", InFlight),
        ("routes.response_fields", "{ a = \"1\" }", "{ a = false }", InFlight),
        ("routes.files.folder", "\"src\"", "\"tests\"", InFlight),
        ("routes.files.fallback", "\"404.html\"", "\"5xx.html\"", InFlight),
        ("routes.files.immutable", "[\"/a/*\"]", "[\"/b/*\"]", InFlight),
        ("routes.files", "\"src\"", "\"tests\"", InFlight),
        ("routes.redirect.to", "\"/a\"", "\"/b\"", InFlight),
        ("routes.redirect.status", "301", "302", InFlight),
        ("routes.respond.status", "200", "404", InFlight),
        ("routes.respond.body", "\"a\"", "\"b\"", InFlight),
        ("routes.respond.content_type", "\"text/plain\"", "\"text/html\"", InFlight),
        ("routes.redirect", "\"/a\"", "\"/b\"", InFlight),
        ("routes.respond", "404", "410", InFlight),
        ("routes.resend.content", "\"1 KiB\"", "\"2 KiB\"", InFlight),
        ("routes.resend.methods", "[\"POST\"]", "[\"PATCH\"]", InFlight),
        ("routes.receive_first", "\"1 KiB\"", "\"2 KiB\"", InFlight),
        ("routes.upgrades", "[\"websocket\"]", "[]", InFlight),
        ("routes.canary.upstream", "\"y\"", "\"z\"", InFlight),
        ("routes.canary.share", "\"1%\"", "\"2%\"", InFlight),
        ("routes.canary.header", "\"a\"", "\"b\"", InFlight),
        ("routes.canary.cookie", "\"a\"", "\"b\"", InFlight),
        ("routes.limit", "\"x\"", "\"y\"", InFlight),
        ("routes.compress", "true", "false", InFlight),
        ("routes.compress_types", "[\"text/css\"]", "[\"text/*\"]", InFlight),
        ("routes.decompress", "true", "false", InFlight),
        ("routes.early_hints", "true", "false", InFlight),
        ("routes.encoded_slash", "\"keep\"", "\"refuse\"", InFlight),
        ("routes.timeouts.total", "\"1s\"", "\"2s\"", InFlight),
        ("routes.timeouts.first_byte", "\"1s\"", "\"2s\"", InFlight),
        ("routes.timeouts.between_bytes", "\"1s\"", "\"2s\"", InFlight),
        ("routes.timeouts.whole", "\"1s\"", "\"2s\"", InFlight),
        ("routes.bounds.body", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("routes.bounds.requests", "1", "2", InFlight),
        ("routes.bounds.requests_per_client", "1", "2", InFlight),
        ("routes.cache.ttl", "\"1s\"", "{ 200 = \"2s\" }", InFlight),
        ("routes.cache.default_ttl", "\"1s\"", "\"2s\"", InFlight),
        ("routes.cache.min_ttl", "\"1s\"", "\"2s\"", InFlight),
        ("routes.cache.max_ttl", "\"1s\"", "\"2s\"", InFlight),
        ("routes.cache.stale_while_revalidate", "\"1s\"", "\"2s\"", InFlight),
        ("routes.cache.stale_if_error", "\"1s\"", "\"2s\"", InFlight),
        ("routes.cache.browser", "\"no-cache\"", "\"private\"", InFlight),
        ("routes.cache.set_cookie", "\"refuse\"", "\"strip\"", InFlight),
        ("routes.cache.cookies", "\"origin\"", "\"bypass\"", InFlight),
        ("routes.cache.ignore_cookies", "true", "[]", InFlight),
        ("routes.cache.client_directives", "\"honour\"", "\"ignore-all\"", InFlight),
        ("routes.cache.heuristic", "true", "false", InFlight),
        ("routes.cache.stale_on_disconnect", "\"1h\"", "\"2h\"", InFlight),
        ("routes.cache.stale_on_status", "true", "false", InFlight),
        ("routes.cache.targeted", "[]", "[\"CDN-Cache-Control\"]", InFlight),
        ("routes.cache.tag_fields", "[\"Cache-Tag\"]", "[\"xkey\"]", InFlight),
        ("routes.cache.max_tags", "10", "11", InFlight),
        ("routes.cache.ranges", "\"parts\"", "\"whole\"", InFlight),
        ("routes.cache.by_language", "true", "false", InFlight),
        ("routes.cache.undated_unmodified", "true", "false", InFlight),
        ("routes.cache.query.keep", "[\"a\"]", "[\"b\"]", InFlight),
        ("routes.cache.query.drop", "[\"a\"]", "[\"b\"]", InFlight),
        ("routes.cache.query.sort", "true", "false", InFlight),
        ("routes.cache.also", "[\"query\"]", "[\"graphql\"]", InFlight),
        ("routes.cache.slice", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("routes.cache.key.headers", "[\"X-A\"]", "[\"X-B\"]", InFlight),
        ("routes.cache.key.cookies", "[\"a\"]", "[\"b\"]", InFlight),
        ("routes.cache.key.country", "\"X-A\"", "\"X-B\"", InFlight),
        ("routes.cache.bypass.headers", "[\"X-A\"]", "[\"X-B\"]", InFlight),
        ("routes.cache.bypass.cookies", "[\"a\"]", "[\"b\"]", InFlight),
        ("purge.allow", "[\"10.0.0.1\"]", "[\"10.0.0.2\"]", InFlight),
        ("purge.token_file", "\"tests/users.htpasswd\"", "", InFlight),
        ("purge.soft", "false", "true", InFlight),
        ("maintenance", "\"a\"", "\"b\"", InFlight),
        ("maintenance.file", "\"a\"", "\"b\"", InFlight),
        ("maintenance.except", "[\"10.0.0.1\"]", "[\"10.0.0.2\"]", InFlight),
        ("maintenance.retry_after", "\"1s\"", "\"2s\"", InFlight),
        ("error_pages", "\"../config/errors\"", "", InFlight),
        ("timeouts.handshake", "\"1s\"", "\"2s\"", NextConnection),
        ("timeouts.header", "\"1s\"", "\"2s\"", NextConnection),
        ("timeouts.body", "\"1s\"", "\"2s\"", NextConnection),
        ("timeouts.idle", "\"1s\"", "\"2s\"", NextConnection),
        ("timeouts.total", "\"1s\"", "\"2s\"", InFlight),
        ("timeouts.upload", "\"1s\"", "\"2s\"", InFlight),
        ("timeouts.tunnel", "\"1s\"", "\"2s\"", InFlight),
        ("timeouts.drain", "\"1s\"", "\"2s\"", InFlight),
        ("bounds.connections", "10", "11", InFlight),
        ("bounds.connections_per_client", "10", "11", InFlight),
        ("bounds.handshakes", "10", "11", InFlight),
        ("bounds.requests_per_client", "10", "11", InFlight),
        ("bounds.streams", "10", "11", NextConnection),
        ("bounds.streams_per_second", "10", "11", NextConnection),
        ("bounds.control_frames_per_second", "10", "11", NextConnection),
        ("bounds.head", "\"8 KiB\"", "\"9 KiB\"", NextConnection),
        ("bounds.fields", "10", "11", NextConnection),
        ("bounds.body", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("bounds.body_rate", "\"1 KiB\"", "\"2 KiB\"", InFlight),
        ("bounds.held_content", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("bounds.unsent", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("log.format", "\"json\"", "\"pretty\"", InFlight),
    ];

    /// What a reload of a changed setting comes to.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Effect {
        /// The next request, handshake or instance meets it.
        InFlight,
        /// A connection keeps what it was accepted with; the next one meets it.
        NextConnection,
        /// It is refused, with the reason.
        Restart,
    }
    use Effect::{InFlight, NextConnection, Restart};

    /// A whole file around one setting.
    fn file(key: &str, value: &str) -> String {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        let line = |here: &str| match table == here && !value.is_empty() {
            true => format!("{name} = {value}\n"),
            false => String::new(),
        };
        let tls = if let Some(name) = key.strip_prefix("listen.tls.client_certificates.") {
            let ca = if name == "ca" { "" } else { "ca = \"f\", " };
            format!(
                "tls = {{ certificate = \"f\", key = \"f\", client_certificates = {{ {ca}{name} = {value} }} }}\n"
            )
        } else if key == "listen.tls.client_certificates" && value.is_empty() {
            "tls = { certificate = \"f\", key = \"f\" }\n".to_owned()
        } else if key.starts_with("listen.tls.") {
            let rest = ["certificate", "key"].into_iter().filter(|other| *other != name);
            let rest: String = rest.map(|other| format!(", {other} = \"f\"")).collect();
            format!("tls = {{ {name} = {value}{rest} }}\n")
        } else if key.starts_with("listen.certificates.") {
            let rest = ["certificate", "key"].into_iter().filter(|other| *other != name);
            let rest: String = rest.map(|other| format!(", {other} = \"f\"")).collect();
            format!("certificates = [{{ {name} = {value}{rest} }}]\n")
        } else if key == "listen.on_demand" {
            "tls = { certificate = \"f\", key = \"f\" }\n".to_owned()
        } else if key == "listen.clear_text" {
            "domain = \"a.test\"\n".to_owned()
        } else if key == "listen.hsts" {
            "tls = { certificate = \"f\", key = \"f\" }\n".to_owned()
        } else {
            String::new()
        };
        // Such a route has no upstream, nor anything that is said of one.
        let stated = ["routes.redirect", "routes.respond", "routes.files"]
            .iter()
            .any(|action| key.starts_with(action));
        let route: String = ["name = \"r\"", "path = \"/p\"", "upstream = \"x\""]
            .into_iter()
            .filter(|default| table != "routes" || !default.starts_with(&format!("{name} =")))
            .filter(|default| !stated || !default.starts_with("upstream"))
            .map(|default| format!("{default}\n"))
            .collect();
        [
            line(""),
            match table {
                "maintenance" if name == "file" => format!("maintenance = {{ file = {value} }}\n"),
                "maintenance" => format!("maintenance = {{ file = \"f\", {name} = {value} }}\n"),
                _ => String::new(),
            },
            format!(
                "[[listen]]\n{}{}{tls}",
                line("listen"),
                if key == "listen.address" { "" } else { "address = \"[::]:80\"\n" }
            ),
            format!(
                "[acme]\n{}{}",
                line("acme"),
                match table {
                    "acme.eab" => {
                        let other = if name == "key_id" { "key_file" } else { "key_id" };
                        format!("eab = {{ {name} = {value}, {other} = \"f\" }}\n")
                    }
                    "acme.on_demand" if name == "names" => format!("on_demand = {{ names = {value} }}\n"),
                    "acme.on_demand" => {
                        format!("on_demand = {{ names = [\"a.test\"], {name} = {value} }}\n")
                    }
                    _ if key == "listen.on_demand" => "on_demand = { names = [\"a.test\"] }\n".to_owned(),
                    _ => String::new(),
                }
            ),
            format!(
                "[admin]\n{}{}",
                line("admin"),
                if key == "admin.address" { "" } else { "address = \"[::]:81\"\n" }
            ),
            match table {
                "purge" => format!(
                    "[purge]\n{}{}",
                    line("purge"),
                    if name == "allow" { "" } else { "allow = [\"10.0.0.1\"]\n" }
                ),
                _ => String::new(),
            },
            format!("[cache]\n{}[clients]\n{}", line("cache"), line("clients")),
            format!(
                "[redis]\n{}{}",
                line("redis"),
                match key {
                    "redis.url" => "largest_object = \"1 MiB\"\n",
                    "redis.largest_object" => "url = \"rediss://s\"\n",
                    // It follows `cache.largest_object` where it is not written.
                    _ => "url = \"rediss://s\"\nlargest_object = \"1 MiB\"\n",
                }
            ),
            format!(
                "[limits.x]\n{}{}",
                line("limits.x"),
                if name == "rate" { "" } else { "rate = \"1/s\"\n" }
            ),
            "[limits.y]\nrate = \"1/s\"\n".to_owned(),
            format!(
                "[commands.x]\n{}{}",
                line("commands.x"),
                if name == "run" { "" } else { "run = [\"a\"]\n" }
            ),
            format!(
                "[upstreams.x]\n{}{}",
                line("upstreams.x"),
                match table {
                    "upstreams.x.servers" if name == "url" => {
                        format!("servers = [{{ url = {value} }}, \"http://t\"]\n")
                    }
                    "upstreams.x.servers" => {
                        format!("servers = [{{ url = \"http://s\", {name} = {value} }}, \"http://t\"]\n")
                    }
                    "upstreams.x.tls" => {
                        let other = [("certificate", "key"), ("key", "certificate")];
                        let other = other.iter().find(|(one, _)| *one == name);
                        let other = other.map(|(_, other)| format!(", {other} = \"f\"")).unwrap_or_default();
                        format!("servers = [\"https://s\"]\ntls = {{ {name} = {value}{other} }}\n")
                    }
                    "upstreams.x.check" if name == "path" => {
                        format!("servers = [\"http://s\"]\ncheck = {{ path = {value} }}\n")
                    }
                    "upstreams.x.check" => {
                        format!("servers = [\"http://s\"]\ncheck = {{ path = \"/\", {name} = {value} }}\n")
                    }
                    _ if name == "servers" => String::new(),
                    _ => "servers = [\"http://s\"]\n".to_owned(),
                }
            ),
            "[upstreams.y]\nservers = [\"http://s\"]\n".to_owned(),
            "[upstreams.z]\nservers = [\"http://s\"]\n".to_owned(),
            format!("[[routes]]\n{route}{}", line("routes")),
            match table {
                "routes.resend" => format!("resend = {{ {name} = {value} }}\n"),
                "routes.canary" if name == "upstream" => {
                    format!("canary = {{ upstream = {value}, share = \"5%\" }}\n")
                }
                "routes.canary" => format!("canary = {{ upstream = \"y\", {name} = {value} }}\n"),
                "routes.basic_auth" if name == "users" => format!("basic_auth = {{ users = {value} }}\n"),
                "routes.basic_auth" => {
                    format!("basic_auth = {{ users = \"tests/users.htpasswd\", {name} = {value} }}\n")
                }
                "routes.forward_auth" if name == "upstream" => {
                    format!("forward_auth = {{ upstream = {value}, path = \"/\" }}\n")
                }
                "routes.forward_auth" if name == "path" => {
                    format!("forward_auth = {{ upstream = \"y\", path = {value} }}\n")
                }
                "routes.forward_auth" => {
                    format!("forward_auth = {{ upstream = \"y\", path = \"/\", {name} = {value} }}\n")
                }
                "routes.maintenance" if name == "file" => format!("maintenance = {{ file = {value} }}\n"),
                "routes.maintenance" => format!("maintenance = {{ file = \"f\", {name} = {value} }}\n"),
                "routes.cors" if name == "origins" => format!("cors = {{ origins = {value} }}\n"),
                "routes.cors" => format!("cors = {{ origins = \"https://a.test\", {name} = {value} }}\n"),
                "routes.rewrite" if name == "from" => format!("rewrite = {{ from = {value}, to = \"/\" }}\n"),
                "routes.rewrite" => format!("rewrite = {{ from = \"/p\", to = {value} }}\n"),
                "routes.files" if name == "folder" => format!("files = {{ folder = {value} }}\n"),
                "routes.files" => format!("files = {{ folder = \"../config/errors\", {name} = {value} }}\n"),
                "routes.redirect" if name == "to" => format!("redirect = {{ to = {value} }}\n"),
                "routes.redirect" => format!("redirect = {{ to = \"/\", {name} = {value} }}\n"),
                "routes.respond" if name == "status" => format!("respond = {{ status = {value} }}\n"),
                "routes.respond" => format!("respond = {{ status = 200, {name} = {value} }}\n"),
                _ => String::new(),
            },
            if stated {
                String::new()
            } else {
                format!(
                    "[routes.timeouts]\n{}[routes.bounds]\n{}[routes.cache]\n{}[routes.cache.query]\n{}",
                    line("routes.timeouts"),
                    line("routes.bounds"),
                    line("routes.cache"),
                    line("routes.cache.query")
                ) + &match table {
                    "routes.cache.key" | "routes.cache.bypass" => format!("[{table}]\n{}", line(table)),
                    _ => String::new(),
                }
            },
            format!("[timeouts]\n{}[bounds]\n{}[log]\n{}", line("timeouts"), line("bounds"), line("log")),
        ]
        .concat()
    }

    fn settings(text: &str) -> Settings {
        parse(text, "test").unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// A change was told to be in force that was not: nothing asked the question of every key.
    #[test]
    fn every_setting_takes_effect_at_a_reload_or_is_refused() {
        for (key, before, after, effect) in ALL {
            let (before, after) = (settings(&file(key, before)), settings(&file(key, after)));
            assert_ne!(format!("{before:?}"), format!("{after:?}"), "{key}: the table changes it");
            let refused: Vec<String> =
                needs_restart(&before, &after).iter().map(|change| change.key.clone()).collect();
            match effect {
                Restart => assert_eq!(refused, [*key], "{key}"),
                InFlight | NextConnection => assert!(refused.is_empty(), "{key}: {refused:?}"),
            }
        }
    }

    #[test]
    fn every_setting_that_changes_is_told_by_its_name() {
        for (key, before, after, _) in ALL {
            let told = told(&settings(&file(key, before)), &settings(&file(key, after)));
            let name = match key.split_once('.') {
                Some(("listen", "address")) => "listen.[::]:8080".to_owned(),
                Some(("listen", rest)) => format!("listen.[::]:80.{rest}"),
                Some(("routes", "name")) => "routes.a".to_owned(),
                Some(("routes", rest)) => format!("routes.r.{rest}"),
                _ => (*key).to_owned(),
            };
            // What stands in a list is told with all of it.
            let list = [".servers.", ".certificates."].iter().find_map(|list| {
                let (table, _) = name.split_once(list)?;
                Some(format!("{table}{}", list.trim_end_matches('.')))
            });
            let name = list.unwrap_or(name);
            // What a route leads to is told whole.
            let whole = [".redirect.", ".respond.", ".files.", ".rewrite."].iter().find_map(|action| {
                let (route, _) = name.split_once(action)?;
                Some(format!("{route}{}", action.trim_end_matches('.')))
            });
            let name = whole.unwrap_or(name);
            // The values of variables and of fields are not told, and so each has a line of its own.
            // A file alone is the table with nothing else in it.
            let name = if name.ends_with("maintenance") { format!("{name}.file") } else { name };
            let name = if name.ends_with(".environment") { format!("{name}.A") } else { name };
            let name = if name.ends_with(".request_fields") { format!("{name}.a") } else { name };
            assert!(told.iter().any(|line| line.starts_with(&format!("{name}: "))), "{name}: {told:#?}");
        }
    }

    /// A file of what is in force means the same, whatever is set in it; but for what may be a secret.
    #[test]
    fn what_is_in_force_can_be_pasted_back() {
        let hidden = ["commands.x.run", "commands.x.environment", "upstreams.x.request_fields"];
        let mut wrong = Vec::new();
        for (key, before, after, _) in ALL.iter().filter(|(key, ..)| !hidden.contains(key)) {
            for value in [before, after] {
                let mut settings = settings(&file(key, value));
                settings.sources = Default::default();
                let text = effective(&settings);
                match parse(&text, "effective") {
                    Ok(other) if format!("{other:#?}") == format!("{settings:#?}") => {}
                    Ok(other) => {
                        let (other, settings) = (format!("{other:#?}"), format!("{settings:#?}"));
                        let lines = settings.lines().zip(other.lines()).filter(|(one, other)| one != other);
                        wrong.push(format!("{key} = {value}: {:?}", lines.take(3).collect::<Vec<_>>()));
                    }
                    Err(error) => wrong.push(format!("{key} = {value}: {error}")),
                }
            }
        }
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    }

    #[test]
    fn no_secret_is_in_what_is_in_force() {
        for (key, value) in [
            ("commands.x.run", "[\"a\", \"sesame\"]"),
            ("commands.x.environment", "{ A = \"sesame\" }"),
            ("upstreams.x.request_fields", "{ Authorization = \"sesame\" }"),
            ("redis.url", "\"redis://user:sesame@a\""),
        ] {
            let text = effective(&settings(&file(key, value)));
            assert!(!text.contains("sesame"), "{key}: {text}");
            parse(&text, "effective").unwrap_or_else(|error| panic!("{key}: {error}"));
        }
    }

    #[test]
    fn every_key_is_in_what_is_in_force() {
        let both = |(key, before, after, _): &(&str, &str, &str, _)| {
            [before, after].map(|value| effective(&settings(&file(key, value)))).concat()
        };
        let text = ALL.iter().map(both);
        let text = text.collect::<Vec<_>>().join("\n");
        let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        for key in known_keys().iter().filter(|key| *key != "include") {
            assert!(key.split('.').all(|key| words.contains(&key)), "{key} is missing");
        }
    }

    #[test]
    fn nothing_is_told_of_what_is_the_same() {
        let settings = settings(&file("threads", "1"));
        assert_eq!(changes(&settings, &settings.clone()), []);
    }

    fn told(old: &Settings, new: &Settings) -> Vec<String> {
        changes(old, new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_are_told_as_the_file_writes_them() {
        for (key, before, after, line) in [
            ("cache.memory", "\"1 GiB\"", "\"2 GiB\"", "cache.memory: 1 GiB -> 2 GiB"),
            ("limits.x.rate", "\"50/s\"", "\"7/m\"", "limits.x.rate: 50/s -> 7/m"),
            ("limits.x.rate", "\"100/m\"", "\"3/d\"", "limits.x.rate: 100/m -> 3/d"),
            ("timeouts.idle", "\"1500ms\"", "\"2h\"", "timeouts.idle: 1500ms -> 2h"),
            (
                "upstreams.x.servers",
                "[\"http://a\"]",
                "[\"http://[::1]:8\", \"command:x\"]",
                "upstreams.x.servers: [http://a:80] -> [http://[::1]:8, command:x]",
            ),
            ("upstreams.x.retries", "\"1%\"", "\"2%\"", "upstreams.x.retries: 1% -> 2%"),
            (
                "routes.cache.ttl",
                "\"1m\"",
                "{ 200 = \"2s\", 404 = \"5s\" }",
                "routes.r.cache.ttl: 1m -> { 200 = 2s, 404 = 5s }",
            ),
            (
                "routes.cache.client_directives",
                "\"honour\"",
                "\"ignore-reloads\"",
                "routes.r.cache.client_directives: honour -> ignore-reloads",
            ),
            (
                "clients.forwarded_by",
                "\"forwarded\"",
                "\"x-forwarded-for\"",
                "clients.forwarded_by: forwarded -> x-forwarded-for",
            ),
            (
                "routes.compress_types",
                "[\"text/css\"]",
                "[\"text/*\"]",
                "routes.r.compress_types: [text/css] -> [text/*]",
            ),
            ("listen.tls", "{ certificate = \"a\", key = \"b\" }", "", "listen.[::]:80.tls: a -> none"),
        ] {
            let told = told(&settings(&file(key, before)), &settings(&file(key, after)));
            // Other settings may follow one.
            assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
        }
    }

    #[test]
    fn tables_that_come_and_go_are_told_with_their_gist() {
        let one = settings(&file("threads", "1"));
        let text = file("threads", "1");
        let text = text.replace("[limits.y]\nrate = \"1/s\"", "[limits.z]\nrate = \"5/s\"");
        let text = text.replace(
            "[[routes]]",
            "[[routes]]\nname = \"q\"\npath = \"/q/*\"\nhosts = [\"a.test\"]\nupstream = \"x\"\n[[routes]]",
        );
        let text = text.replace("address = \"[::]:80\"", "address = \"[::]:82\"");
        assert_eq!(
            told(&one, &settings(&text)),
            [
                "listen.[::]:80: gone, was clear text",
                "listen.[::]:82: new, clear text",
                "limits.y: gone, was 1/s",
                "limits.z: new, 5/s",
                "routes.q: new, [a.test] /q/*",
            ]
        );
    }

    #[test]
    fn the_values_of_fields_are_kept_secret() {
        let with = |text: &str| settings(&file("upstreams.x.request_fields", text));
        let old = with("{ a = \"secret\", b = \"x\", c = true, d = \"same\" }");
        let new = with("{ a = \"hidden\", c = false, d = \"same\", e = \"y\" }");
        assert_eq!(
            told(&old, &new),
            [
                "upstreams.x.request_fields.a: other content",
                "upstreams.x.request_fields.b: gone, was set",
                "upstreams.x.request_fields.c: true -> false",
                "upstreams.x.request_fields.e: new, set",
            ]
        );
    }

    #[test]
    fn the_values_of_variables_are_kept_secret() {
        let key = "commands.x.environment";
        let with = |text: &str| settings(&file(key, text));
        let (old, new) = (with("{ A = \"secret\", B = \"x\" }"), with("{ A = \"hidden\", C = \"y\" }"));
        assert_eq!(
            told(&old, &new),
            [
                "commands.x.environment.A: other content",
                "commands.x.environment.B: gone, was set",
                "commands.x.environment.C: new, set",
            ]
        );
    }

    #[test]
    fn the_order_of_routes_is_told() {
        let route =
            |name: &str| format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"x\"\n");
        let with = |names: [&str; 2]| {
            let rest = "[[listen]]\naddress = \"[::]:80\"\n[upstreams.x]\nservers = [\"http://s\"]\n";
            settings(&format!("{rest}{}", names.map(route).concat()))
        };
        assert_eq!(told(&with(["a", "b"]), &with(["b", "a"])), ["routes.order: [a, b] -> [b, a]"]);
    }

    #[test]
    fn the_table_has_every_key() {
        let mut missing = known_keys();
        missing.retain(|key| {
            let path = |path: &str| path == key || path.replace(".x.", ".") == *key;
            let table = |path: &str| path.replace(".x.", ".").starts_with(&format!("{key}."));
            !ALL.iter().any(|(name, ..)| path(name) || table(name))
        });
        assert!(missing.is_empty(), "say what a reload of {missing:?} comes to");
    }

    #[test]
    fn what_needs_a_restart_is_told_with_both_values() {
        let (one, other) = (settings(&file("threads", "2")), settings(&file("threads", "3")));
        let told: Vec<String> = needs_restart(&one, &other).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["threads changed from 2 to 3, which needs a restart"]);
    }

    #[test]
    fn the_order_of_listeners_is_of_no_matter() {
        let rest = file("threads", "1");
        let [one, two] = ["[[listen]]\naddress = \"[::]:1\"\n", "[[listen]]\naddress = \"[::]:2\"\n"];
        let with =
            |tables: &str| settings(&rest.replacen("[[listen]]\n", &format!("{tables}[[listen]]\n"), 1));
        assert_eq!(changes(&with(&format!("{one}{two}")), &with(&format!("{two}{one}"))), []);
    }
}
