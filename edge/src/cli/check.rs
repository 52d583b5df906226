//! `edge check`: what a file of settings means, or what is wrong with it and with the files and programs that it names.
//!
//! Reads all that `edge run` reads. Opens no socket, starts nothing and makes nothing.

use std::{path::Path, process::ExitCode, time::SystemTime};

use crate::{
    admin::token,
    clock::Clock,
    downstream::tls::{self, Finding},
    observe::say,
    server::descriptors,
    settings::{self, ByteSize, Listen, Settings, UpstreamSettings},
    upstream::{supervise::obstacles, tls::TlsByUpstream},
};

/// Prints the verdict on a file: a summary on standard output, or its faults on standard error, where warnings go too.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    let (settings, warnings) = match settings::read(path) {
        Ok(read) => read,
        Err(error) => {
            say::complaint(error);
            return ExitCode::FAILURE;
        }
    };
    warnings.iter().for_each(say::complaint);
    let findings = findings(&settings, Clock::system().wall());
    findings.certificates.iter().for_each(say::result);
    findings.warnings.iter().for_each(say::complaint);
    if findings.faults.is_empty() {
        say::result(format_args!("{}: ok: {}", path.display(), summary(&settings)));
        hint(&settings).iter().for_each(say::result);
        return ExitCode::SUCCESS;
    }
    findings.faults.iter().for_each(say::complaint);
    ExitCode::FAILURE
}

/// What is to be said of the files and programs that settings name.
#[derive(Debug, Default)]
struct Findings {
    /// The edge would not start, would have nobody to ask, or clients would turn away.
    faults: Vec<String>,
    /// Which certificates there are.
    certificates: Vec<String>,
    warnings: Vec<String>,
}

fn findings(settings: &Settings, now: SystemTime) -> Findings {
    let mut findings = Findings::default();
    for listen in &settings.listeners {
        for finding in listen.tls.iter().flat_map(|tls| tls::inspect(tls, now)) {
            match finding {
                Finding::Certificate(told) => {
                    findings.certificates.push(format!("listener {}: {told}", listen.address));
                }
                Finding::Fault(fault) => {
                    findings.faults.push(format!("listener {}: {fault}", listen.address));
                }
                Finding::Warning(warning) => {
                    findings.warnings.push(format!("listener {}: warning: {warning}", listen.address));
                }
            }
        }
    }
    let shortage = descriptors::shortage(settings, descriptors::limit());
    findings.warnings.extend(shortage.map(|shortage| format!("warning: {shortage}")));
    findings.faults.extend(token::of(settings).err().map(|error| error.to_string()));
    findings.faults.extend(TlsByUpstream::load(&settings.upstreams).err().map(|error| error.to_string()));
    findings.faults.extend(settings.commands.values().flat_map(|command| obstacles(command)));
    findings
}

/// What only the operator can decide, where it is not decided: how much of an upstream one client may have. Off is right where
/// many share an address, and nobody here can tell.
fn hint(settings: &Settings) -> Option<String> {
    let is_public = |listen: &Listen| !listen.address.ip().to_canonical().is_loopback();
    if settings.bounds.requests_per_client.is_some() || !settings.listeners.iter().any(is_public) {
        return None;
    }
    let places = |upstream: &UpstreamSettings| upstream.connections.saturating_mul(upstream.servers.len());
    let (name, fewest) = settings
        .upstreams
        .values()
        .map(|upstream| (&upstream.name, places(upstream)))
        .min_by_key(|of| of.1)?;
    Some(format!(
        "hint: one client may have all {fewest} places of the upstream {name}; `requests_per_client = {}` in [bounds] leaves \
         half of them to others. Leave it off where many clients come from one address: through a proxy that \
         `clients.trusted_proxies` does not name, or from a large network behind one address",
        (fewest / 2).max(1)
    ))
}

fn summary(settings: &Settings) -> String {
    let counted =
        |count: usize, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
    [
        counted(settings.listeners.len(), "listener", "listeners"),
        counted(settings.routes.len(), "route", "routes"),
        counted(settings.upstreams.len(), "upstream", "upstreams"),
        counted(settings.commands.len(), "command", "commands"),
        counted(settings.limits.len(), "limit", "limits"),
        counted(settings.threads, "thread", "threads"),
        format!("{} of cache", ByteSize(settings.cache.memory)),
    ]
    .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_the_file_holds() {
        let text = r#"
            threads = 1
            listen = [{ address = "[::]:8080" }, { address = "[::]:8081" }]
            routes = [{ name = "all", path = "/*", upstream = "a" }]
            upstreams = { a = { servers = ["http://a"] } }
        "#;
        let settings = settings::parse(text, "test").unwrap();
        assert_eq!(
            summary(&settings),
            "2 listeners, 1 route, 1 upstream, 0 commands, 0 limits, 1 thread, 256 MiB of cache"
        );
    }

    #[test]
    fn an_operator_whose_listeners_are_public_is_told_of_the_bound_that_only_he_can_set() {
        let hint = |listen: &str, bounds: &str| {
            let text = format!(
                "listen = [{{ address = \"{listen}\" }}]\nroutes = [{{ name = \"all\", path = \"/*\", upstream = \"a\" }}]\n\
                 [upstreams.a]\nservers = [\"http://a\", \"http://b\"]\nconnections = 50\n{bounds}"
            );
            hint(&settings::parse(&text, "test").unwrap())
        };
        let told = hint("[::]:8080", "").unwrap();
        assert!(
            told.contains("all 100 places of the upstream a") && told.contains("requests_per_client = 50"),
            "{told}"
        );
        assert_eq!(hint("127.0.0.1:8080", ""), None);
        assert_eq!(hint("[::]:8080", "[bounds]\nrequests_per_client = 10"), None);
    }
}
