//! `edge check`: what a file of settings means, or what is wrong with it. Opens no socket and starts nothing.

use std::{path::Path, process::ExitCode};

use crate::settings::{self, ByteSize, Settings};

/// Prints the verdict on a file: a summary on standard output, or its faults on standard error.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    match settings::load(path) {
        Ok(settings) => {
            println!("{}: ok: {}", path.display(), summary(&settings));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
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
