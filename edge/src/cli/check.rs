//! `edge check`: what a file of settings means, or what is wrong with it and with the files and programs that it names.
//!
//! Reads all that `edge run` reads. Opens no socket, starts nothing and makes nothing.

use std::{process::ExitCode, time::SystemTime};

use clap::Args;

use super::settings_file::SettingsFile;
use crate::{
    admin::token,
    clock::Clock,
    downstream::tls::{self, Finding},
    message::reasons::reasons,
    observe::say,
    server::descriptors,
    settings::{self, ByteSize, Settings},
    shared_cache,
    upstream::{supervise::obstacles, tls::TlsByUpstream},
};

/// Which file, and what is wanted of it.
#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    file: SettingsFile,
    /// Print all that is in force, every default filled in, as a file would have it; secrets are left out
    #[arg(long)]
    effective: bool,
}

/// Prints the verdict on a file: a summary on standard output, or its faults on standard error, where warnings go too.
#[must_use]
pub fn run(CheckArguments { file, effective }: &CheckArguments) -> ExitCode {
    let read = file.path().and_then(|path| {
        let (settings, warnings) = settings::read(&path)?;
        Ok((path, settings, warnings))
    });
    let (path, settings, warnings) = match read {
        Ok(read) => read,
        Err(error) => {
            say::complaint(reasons(&error));
            return ExitCode::FAILURE;
        }
    };
    if *effective {
        warnings.iter().for_each(say::complaint);
        say::result(settings::reload::effective(&settings).trim_end());
        return ExitCode::SUCCESS;
    }
    warnings.iter().for_each(say::complaint);
    let findings = findings(&settings, Clock::system().wall());
    findings.certificates.iter().for_each(say::result);
    findings.warnings.iter().for_each(say::complaint);
    if findings.faults.is_empty() {
        say::result(format_args!("{}: ok: {}", path.display(), summary(&settings)));
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
    findings.faults.extend(settings.redis.as_ref().and_then(shared_cache::fault));
    findings.faults.extend(TlsByUpstream::load(&settings.upstreams).err().map(|error| error.to_string()));
    findings.faults.extend(settings.commands.values().flat_map(|command| obstacles(command)));
    findings
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
}
