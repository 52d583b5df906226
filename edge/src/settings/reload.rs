//! Settings that a running edge cannot apply.
//!
//! A reload is all or nothing: settings of which one part is in force and another waits for a restart would match no
//! file. So the caller refuses the whole reload when [`needs_restart`] finds a change, keeps the running settings, and
//! reports why.

use std::{fmt, net::SocketAddr};

use super::{Listen, Settings, value::ByteSize};

/// A setting that only a start can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key as the file names it, such as `cache.memory`.
    pub key: String,
    /// How it changed: `changed from 64 MiB to 128 MiB`, `is new`, ..
    pub how: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, which needs a restart", self.key, self.how)
    }
}

/// Compares the running settings with those of a reload; empty means that the reload may go ahead.
///
/// Certificates, routes, limits, upstreams, commands, deadlines, the admin token and the log change while the edge runs.
/// Sockets, threads and the sizes of memory allocated once do not.
#[must_use]
pub fn needs_restart(running: &Settings, wanted: &Settings) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    changes.compare("threads", &running.threads, &wanted.threads, ToString::to_string);
    changes.compare("listen", &sockets(&running.listeners), &sockets(&wanted.listeners), |sockets| {
        sockets.iter().map(Socket::to_string).collect::<Vec<_>>().join(", ")
    });
    let admin = |settings: &Settings| settings.admin.as_ref().map(|admin| admin.address.clone());
    changes.compare("admin.address", &admin(running), &admin(wanted), |address| {
        address.as_ref().map_or("none".to_owned(), ToString::to_string)
    });
    changes.compare("cache.memory", &running.cache.memory, &wanted.cache.memory, |memory| {
        ByteSize(*memory).to_string()
    });
    changes.compare("cache.variants", &running.cache.variants, &wanted.cache.variants, ToString::to_string);
    let connections = |settings: &Settings| settings.bounds.connections;
    changes.compare("bounds.connections", &connections(running), &connections(wanted), ToString::to_string);
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn compare<T: PartialEq>(&mut self, key: &str, before: &T, after: &T, show: impl Fn(&T) -> String) {
        if before != after {
            let how = format!("changed from {} to {}", show(before), show(after));
            self.0.push(Change { key: key.to_owned(), how });
        }
    }
}

/// What is opened for a listener. In which order the file has them is of no matter.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    address: SocketAddr,
    tls: bool,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address, if self.tls { " (TLS)" } else { "" })
    }
}

fn sockets(listeners: &[Listen]) -> Vec<Socket> {
    let socket = |listen: &Listen| Socket { address: listen.address, tls: listen.tls.is_some() };
    let mut sockets: Vec<Socket> = listeners.iter().map(socket).collect();
    sockets.sort();
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{file::known_keys, parse};

    /// Every key of the file, with a value before and after the reload, and what comes of it. A key that is missing here
    /// fails a test: whoever adds one says whether a reload of it takes effect.
    const ALL: &[(&str, &str, &str, Effect)] = &[
        ("threads", "2", "3", Restart),
        ("listen.address", "\"[::]:8080\"", "\"[::]:8081\"", Restart),
        ("listen.tls", "{ certificate = \"a\", key = \"b\" }", "", Restart),
        ("listen.tls.certificate", "\"a.pem\"", "\"b.pem\"", InFlight),
        ("listen.tls.key", "\"a.key\"", "\"b.key\"", InFlight),
        ("listen.tls.local_ca", "true", "false", InFlight),
        ("admin.address", "\"127.0.0.1:9900\"", "\"127.0.0.1:9901\"", Restart),
        ("admin.token_file", "\"a\"", "\"b\"", InFlight),
        ("cache.memory", "\"64 MiB\"", "\"128 MiB\"", Restart),
        ("cache.largest_object", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("cache.variants", "4", "5", Restart),
        ("clients.trusted_proxies", "[]", "[\"10.0.0.0/8\"]", InFlight),
        ("clients.forwarded_by", "\"x-forwarded-for\"", "\"forwarded\"", InFlight),
        ("clients.remembered", "10", "11", InFlight),
        ("limits.x.rate", "\"50/s\"", "\"5/s\"", InFlight),
        ("limits.x.burst", "10", "11", InFlight),
        ("commands.x.run", "[\"a\"]", "[\"a\", \"serve\"]", InFlight),
        ("commands.x.directory", "\".\"", "\"..\"", InFlight),
        ("commands.x.environment", "{}", "{ A = \"1\" }", InFlight),
        ("commands.x.instances", "1", "2", InFlight),
        ("commands.x.ready", "\"/a\"", "\"/b\"", InFlight),
        ("commands.x.ready_interval", "\"1s\"", "\"2s\"", InFlight),
        ("commands.x.ready_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("commands.x.stop_timeout", "\"1s\"", "\"2s\"", InFlight),
        ("upstreams.x.servers", "[\"http://a\"]", "[\"http://b\"]", InFlight),
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
        ("routes.name", "\"a\"", "\"b\"", InFlight),
        ("routes.hosts", "[\"a.test\"]", "[\"b.test\"]", InFlight),
        ("routes.path", "\"/*\"", "\"/a/*\"", InFlight),
        ("routes.upstream", "\"x\"", "\"y\"", InFlight),
        ("routes.limit", "\"x\"", "\"y\"", InFlight),
        ("routes.compress", "true", "false", InFlight),
        ("routes.compress_types", "[\"text/css\"]", "[\"text/*\"]", InFlight),
        ("routes.decompress", "true", "false", InFlight),
        ("routes.early_hints", "true", "false", InFlight),
        ("routes.cache.ttl", "\"1s\"", "{ 200 = \"2s\" }", InFlight),
        ("routes.cache.default_ttl", "\"1s\"", "\"2s\"", InFlight),
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
        ("routes.cache.ranges", "\"parts\"", "\"whole\"", InFlight),
        ("routes.cache.by_language", "true", "false", InFlight),
        ("routes.cache.undated_unmodified", "true", "false", InFlight),
        ("routes.cache.query.keep", "[\"a\"]", "[\"b\"]", InFlight),
        ("routes.cache.query.drop", "[\"a\"]", "[\"b\"]", InFlight),
        ("routes.cache.query.sort", "true", "false", InFlight),
        ("timeouts.handshake", "\"1s\"", "\"2s\"", NextConnection),
        ("timeouts.header", "\"1s\"", "\"2s\"", NextConnection),
        ("timeouts.body", "\"1s\"", "\"2s\"", NextConnection),
        ("timeouts.idle", "\"1s\"", "\"2s\"", NextConnection),
        ("timeouts.total", "\"1s\"", "\"2s\"", InFlight),
        ("timeouts.tunnel", "\"1s\"", "\"2s\"", InFlight),
        ("timeouts.drain", "\"1s\"", "\"2s\"", InFlight),
        ("bounds.connections", "10", "11", Restart),
        ("bounds.streams", "10", "11", NextConnection),
        ("bounds.head", "\"8 KiB\"", "\"9 KiB\"", NextConnection),
        ("bounds.fields", "10", "11", NextConnection),
        ("bounds.body", "\"1 MiB\"", "\"2 MiB\"", InFlight),
        ("bounds.body_rate", "\"1 KiB\"", "\"2 KiB\"", InFlight),
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
        let tls = if key.starts_with("listen.tls.") {
            let rest = ["certificate", "key"].into_iter().filter(|other| *other != name);
            let rest: String = rest.map(|other| format!(", {other} = \"f\"")).collect();
            format!("tls = {{ {name} = {value}{rest} }}\n")
        } else {
            String::new()
        };
        let route: String = ["name = \"r\"", "path = \"/p\"", "upstream = \"x\""]
            .into_iter()
            .filter(|default| table != "routes" || !default.starts_with(&format!("{name} =")))
            .map(|default| format!("{default}\n"))
            .collect();
        [
            line(""),
            format!(
                "[[listen]]\n{}{}{tls}",
                line("listen"),
                if key == "listen.address" { "" } else { "address = \"[::]:80\"\n" }
            ),
            format!(
                "[admin]\n{}{}",
                line("admin"),
                if key == "admin.address" { "" } else { "address = \"[::]:81\"\n" }
            ),
            format!("[cache]\n{}[clients]\n{}", line("cache"), line("clients")),
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
                if name == "servers" { "" } else { "servers = [\"http://s\"]\n" }
            ),
            "[upstreams.y]\nservers = [\"http://s\"]\n".to_owned(),
            format!("[[routes]]\n{route}{}", line("routes")),
            format!(
                "[routes.cache]\n{}[routes.cache.query]\n{}",
                line("routes.cache"),
                line("routes.cache.query")
            ),
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
            let named = key.strip_suffix(".address").filter(|key| *key == "listen");
            let named = named.or(key.strip_suffix(".tls")).unwrap_or(key);
            match effect {
                Restart => assert_eq!(refused, [named], "{key}"),
                InFlight | NextConnection => assert!(refused.is_empty(), "{key}: {refused:?}"),
            }
        }
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
        let told = |key: &str, before: &str, after: &str| {
            let changes = needs_restart(&settings(&file(key, before)), &settings(&file(key, after)));
            changes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            told("cache.memory", "\"64 MiB\"", "\"128 MiB\""),
            ["cache.memory changed from 64 MiB to 128 MiB, which needs a restart"]
        );
        assert_eq!(
            told("listen.address", "\"[::]:8080\"", "\"[::]:8081\""),
            ["listen changed from [::]:8080 to [::]:8081, which needs a restart"]
        );
        assert_eq!(told("threads", "2", "3"), ["threads changed from 2 to 3, which needs a restart"]);
    }

    #[test]
    fn the_order_of_listeners_is_of_no_matter() {
        let rest = file("threads", "1");
        let [one, two] = ["[[listen]]\naddress = \"[::]:1\"\n", "[[listen]]\naddress = \"[::]:2\"\n"];
        let with =
            |tables: &str| settings(&rest.replacen("[[listen]]\n", &format!("{tables}[[listen]]\n"), 1));
        assert_eq!(needs_restart(&with(&format!("{one}{two}")), &with(&format!("{two}{one}"))), []);
    }
}
