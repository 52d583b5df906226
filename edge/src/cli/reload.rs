//! `edge reload`: has a running edge read its settings again, and prints what changed.

use std::{io, process::ExitCode};

use clap::Args;

use super::outcome::ended;
use super::{admin::ask, settings_file::AskedEdge};
use crate::{admin::reload::ReloadAnswer, observe::say};

/// Which edge is to reload.
#[derive(Debug, Args)]
pub struct ReloadArguments {
    #[command(flatten)]
    edge: AskedEdge,
}

/// Prints what changed, each on a line. What is wrong with the file, or why the edge refuses it, goes to standard error; the
/// old settings then stay in force.
pub fn run(arguments: ReloadArguments) -> ExitCode {
    ended(reload(arguments), |ReloadAnswer { file, changes, more, warnings }| {
        warnings.iter().for_each(say::complaint);
        changes.iter().for_each(say::result);
        if more > 0 {
            say::result(format_args!("and {more} more"));
        }
        let nothing = if changes.is_empty() { ": nothing changed" } else { "" };
        say::result(format_args!("reloaded {file}{nothing}"));
        ExitCode::SUCCESS
    })
}

fn reload(ReloadArguments { edge }: ReloadArguments) -> anyhow::Result<ReloadAnswer> {
    let (config, settings) = edge.settings()?;
    ask(&config, &settings, "/reload", &serde_json::json!({})).map_err(|error| {
        // Nobody is there.
        match error.root_cause().is::<io::Error>() {
            true => error
                .context("nothing is reloaded; if the admin address moves, name the present one: --admin"),
            false => error,
        }
    })
}
