//! Settings that a running edge cannot apply.
//!
//! A reload is all or nothing: settings of which one part is in force and another waits for a restart would match no
//! file. So the caller refuses the whole reload when [`needs_restart`] finds a change, keeps the running settings, and
//! reports why.

use std::fmt;

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
/// Certificates, routes, limits, upstreams, commands, deadlines and the log change while the edge runs. Sockets,
/// threads and the sizes of memory allocated once do not.
pub fn needs_restart(running: &Settings, wanted: &Settings) -> Vec<Change> {
    let values = |settings: &Settings| {
        [
            ("threads", settings.threads.to_string()),
            ("listen", sockets(&settings.listeners)),
            (
                "admin.address",
                settings.admin.as_ref().map_or("none".to_owned(), |admin| admin.address.to_string()),
            ),
            ("cache.memory", ByteSize(settings.cache.memory).to_string()),
            ("cache.variants", settings.cache.variants.to_string()),
            ("bounds.connections", settings.bounds.connections.to_string()),
        ]
    };
    let changed = values(running).into_iter().zip(values(wanted)).filter(|(before, after)| before != after);
    changed
        .map(|((key, before), (_, after))| Change {
            key: key.to_owned(),
            how: format!("changed from {before} to {after}"),
        })
        .collect()
}

fn sockets(listeners: &[Listen]) -> String {
    let mut names: Vec<String> = listeners
        .iter()
        .map(|listen| format!("{}{}", listen.address, if listen.tls.is_some() { " (TLS)" } else { "" }))
        .collect();
    names.sort();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    const FILE: &str = r#"
        threads = 2
        [[listen]]
        address = "[::]:8080"
        [cache]
        memory = "64 MiB"
        [commands.origin]
        run = ["origin"]
        [upstreams.origin]
        servers = ["command:origin"]
        [limits.api]
        rate = "50/s"
        [[routes]]
        name = "all"
        path = "/*"
        upstream = "origin"
        limit = "api"
    "#;

    fn changes(from: &str, to: &str) -> Vec<String> {
        let edited = FILE.replace(from, to);
        assert_ne!(edited, FILE);
        let settings = |text| parse(text, "test").unwrap_or_else(|error| panic!("{error}"));
        needs_restart(&settings(FILE), &settings(&edited)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_request_meets_changes_in_flight() {
        assert!(changes("\"50/s\"", "\"5/s\"").is_empty());
        assert!(changes("run = [\"origin\"]", "run = [\"origin\", \"serve\"]").is_empty());
        assert!(changes("path = \"/*\"", "path = \"/shop/*\"").is_empty());
        assert!(changes("[limits.api]", "connections = 3\n[limits.api]").is_empty());
    }

    #[test]
    fn what_is_allocated_or_opened_once_needs_a_restart() {
        assert_eq!(
            changes("64 MiB", "128 MiB"),
            ["cache.memory changed from 64 MiB to 128 MiB, which needs a restart"]
        );
        assert_eq!(
            changes("8080", "8081"),
            ["listen changed from [::]:8080 to [::]:8081, which needs a restart"]
        );
        assert_eq!(
            changes("threads = 2", "threads = 3"),
            ["threads changed from 2 to 3, which needs a restart"]
        );
    }
}
