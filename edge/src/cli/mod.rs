//! The commands: `edge run`, `edge check`, `edge explain`, `edge purge`, `edge reload`, `edge ps`, `edge logs`,
//! `edge restart`, and the hidden ones that tie supervised programs to the edge (`supervised`, `guard`).
//!
//! Owns the arguments and the exit codes: 0 done, 1 refused or failed with the reason on standard error, 2 arguments
//! that clap refused.

mod admin;
pub mod check;
mod examples;
pub mod explain;
pub mod guard;
pub mod logs;
pub mod ps;
pub mod purge;
pub mod reload;
pub mod restart;
pub mod supervised;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{message::reasons::reasons, observe::say};

/// The gateway's command line.
#[derive(Debug, Parser)]
#[command(name = "edge", version, about = "Gatehouse's caching gateway", disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until SIGTERM; SIGHUP reloads the settings and certificates
    #[command(after_help = examples::RUN)]
    Run(File),
    /// Say whether a file of settings is right, and if not, what is wrong where
    #[command(after_help = examples::CHECK)]
    Check(File),
    /// Say why a request is answered as it is, or what would become of a response
    #[command(after_help = examples::EXPLAIN)]
    Explain(explain::ExplainArguments),
    /// Serve something no more: by URL, tag, prefix or host
    #[command(after_help = examples::PURGE)]
    Purge(purge::PurgeArguments),
    /// Show the programs that a running edge runs
    #[command(after_help = examples::PS)]
    Ps(File),
    /// Show what a program that a running edge runs has printed
    #[command(after_help = examples::LOGS)]
    Logs(logs::LogsArguments),
    /// Replace the instances of a program, one after the other, each once the new one is ready
    #[command(after_help = examples::RESTART)]
    Restart(restart::RestartArguments),
    /// Read the settings, certificates and keys again, and say what changed
    #[command(after_help = examples::RELOAD)]
    Reload(reload::ReloadArguments),
    #[command(hide = true)]
    Supervised(supervised::Supervised),
    #[command(hide = true)]
    Guard,
}

#[derive(Debug, clap::Args)]
struct File {
    /// The settings; relative paths in it are relative to the working directory
    #[arg(long, value_name = "FILE", default_value = "config/edge.toml")]
    config: PathBuf,
}

/// Runs the command in the process's arguments, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Verb::Run(File { config }) => match crate::server::run(&config) {
            Ok(code) => code,
            Err(error) => {
                say::complaint(reasons(&error));
                ExitCode::FAILURE
            }
        },
        Verb::Check(File { config }) => check::run(&config),
        Verb::Explain(arguments) => explain::run(arguments),
        Verb::Purge(arguments) => purge::run(arguments),
        Verb::Ps(File { config }) => ps::run(&config),
        Verb::Logs(arguments) => logs::run(&arguments),
        Verb::Restart(arguments) => restart::run(&arguments),
        Verb::Reload(arguments) => reload::run(arguments),
        Verb::Supervised(supervised) => supervised.run(),
        Verb::Guard => guard::run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_examples_that_it_takes() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(help.starts_with("Examples:\n") && !lines.is_empty(), "{name} has no examples: {help:?}");
            for line in lines {
                let words = words(line);
                assert_eq!(words.get(1).map(String::as_str), Some(name), "{line}");
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    /// As a shell parts them; of its quotes the single ones.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (number, part) in line.split('\'').enumerate() {
            match number % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_and_check_take_a_file() {
        let parsed = Cli::try_parse_from(["edge", "run", "--config", "my.toml"]).unwrap();
        assert!(matches!(parsed.command, Verb::Run(File { config }) if config.ends_with("my.toml")));
        let parsed = Cli::try_parse_from(["edge", "check"]).unwrap();
        assert!(
            matches!(parsed.command, Verb::Check(File { config }) if config.ends_with("config/edge.toml"))
        );
        assert!(Cli::try_parse_from(["edge"]).is_err());
    }
}
