//! The commands: `edge run`, `init`, `import`, `check`, `fmt`, `schema`, `trust`, `explain`, `purge`, `reload`, `ps`, `logs`,
//! `restart`, `completions`, `man`, and the hidden ones that tie supervised programs to the edge (`supervised`, `guard`).
//!
//! Owns the arguments and the exit codes: 0 done, 1 refused or failed with the reason on standard error, 2 arguments
//! that clap refused, 3 done in part (`import`).

mod admin;
pub mod check;
mod examples;
pub mod explain;
pub mod fmt;
pub mod guard;
pub mod import;
pub mod init;
pub mod logs;
pub mod manuals;
mod no_file;
mod outcome;
pub mod ps;
pub mod purge;
pub mod reload;
pub mod restart;
pub mod run;
pub mod schema;
pub mod settings_file;
pub mod supervised;
pub mod trust;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use settings_file::AskedEdge;

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
    Run(run::RunArguments),
    /// Look at the app in a folder, and write a short edge.toml for it
    #[command(after_help = examples::INIT)]
    Init(init::InitArguments),
    /// Translate a part of nginx's settings, and say line by line what is not among it
    #[command(after_help = examples::IMPORT)]
    Import(import::ImportArguments),
    /// Say whether a file of settings is right, and if not, what is wrong where
    #[command(after_help = examples::CHECK)]
    Check(check::CheckArguments),
    /// Lay a file of settings out as all of them are; what it means, and its comments, stay
    #[command(after_help = examples::FMT)]
    Fmt(fmt::FmtArguments),
    /// Print a JSON Schema of the settings, from which editors complete them
    #[command(after_help = examples::SCHEMA)]
    Schema,
    /// Have this machine and its browsers believe the local certificate authority, or forget it
    #[command(after_help = examples::TRUST)]
    Trust(trust::TrustArguments),
    /// Say why a request is answered as it is, or what would become of a response
    #[command(after_help = examples::EXPLAIN)]
    Explain(explain::ExplainArguments),
    /// Serve something no more: by URL, tag, prefix or host
    #[command(after_help = examples::PURGE)]
    Purge(purge::PurgeArguments),
    /// Show the programs that a running edge runs
    #[command(after_help = examples::PS)]
    Ps(AskedEdge),
    /// Show what a program that a running edge runs has printed
    #[command(after_help = examples::LOGS)]
    Logs(logs::LogsArguments),
    /// Replace the instances of a program, one after the other, each once the new one is ready
    #[command(after_help = examples::RESTART)]
    Restart(restart::RestartArguments),
    /// Read the settings, certificates and keys again, and say what changed
    #[command(after_help = examples::RELOAD)]
    Reload(reload::ReloadArguments),
    /// Print a script by which a shell completes these commands
    #[command(after_help = examples::COMPLETIONS)]
    Completions(manuals::CompletionsArguments),
    /// Write manual pages for `man`
    #[command(after_help = examples::MAN)]
    Man(manuals::ManArguments),
    #[command(hide = true)]
    Supervised(supervised::Supervised),
    #[command(hide = true)]
    Guard,
}

/// Runs the command in the process's arguments, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Verb::Run(arguments) => run::run(arguments),
        Verb::Init(arguments) => init::run(&arguments),
        Verb::Import(arguments) => import::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Fmt(arguments) => fmt::run(&arguments),
        Verb::Schema => schema::run(),
        Verb::Trust(arguments) => trust::run(&arguments),
        Verb::Explain(arguments) => explain::run(arguments),
        Verb::Purge(arguments) => purge::run(arguments),
        Verb::Ps(edge) => ps::run(&edge),
        Verb::Logs(arguments) => logs::run(&arguments),
        Verb::Restart(arguments) => restart::run(&arguments),
        Verb::Reload(arguments) => reload::run(arguments),
        Verb::Completions(arguments) => manuals::completions(&arguments, Cli::command()),
        Verb::Man(arguments) => manuals::man(&arguments, Cli::command()),
        Verb::Supervised(supervised) => supervised.run(),
        Verb::Guard => guard::run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_examples_that_it_takes() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(help.starts_with("Examples:\n") && !lines.is_empty(), "{name} has no examples: {help:?}");
            for line in lines {
                let words =
                    words(line.split(['#', '>']).next().unwrap_or_default().trim_start_matches("sudo "));
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
        for arguments in
            ["run --config my.toml", "check", "run --to :3000 --to :3001 --listen :80", "check --effective"]
        {
            assert!(
                Cli::try_parse_from(["edge"].into_iter().chain(arguments.split(' '))).is_ok(),
                "{arguments}"
            );
        }
        for arguments in ["", "run --to :3000 --config my.toml", "run --listen :80", "run --to nowhere:"] {
            assert!(
                Cli::try_parse_from(["edge"].into_iter().chain(arguments.split(' '))).is_err(),
                "{arguments}"
            );
        }
    }
}
