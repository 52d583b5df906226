//! `edge reload`: has a running edge read its settings again, and prints what changed.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;

use super::admin::ask;
use crate::{
    admin::reload::ReloadAnswer,
    message::reasons::reasons,
    observe::say,
    settings::{self, Admin, AdminAddress},
};

/// Which edge is to reload.
#[derive(Debug, Args)]
pub struct ReloadArguments {
    /// The settings of the edge: its admin address and token are read from them
    #[arg(long, value_name = "FILE", default_value = "config/edge.toml")]
    config: PathBuf,
    /// Where the running edge's admin listener is, if the file now names another place
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<AdminAddress>,
}

/// Prints what changed, each on a line. What is wrong with the file, or why the edge refuses it, goes to standard error; the
/// old settings then stay in force.
pub fn run(arguments: ReloadArguments) -> ExitCode {
    match reload(arguments) {
        Ok(ReloadAnswer { file, changes, more, warnings }) => {
            warnings.iter().for_each(say::complaint);
            changes.iter().for_each(say::result);
            if more > 0 {
                say::result(format_args!("and {more} more"));
            }
            let nothing = if changes.is_empty() { ": nothing changed" } else { "" };
            say::result(format_args!("reloaded {file}{nothing}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say::complaint(reasons(&error));
            ExitCode::FAILURE
        }
    }
}

fn reload(ReloadArguments { config, admin }: ReloadArguments) -> anyhow::Result<ReloadAnswer> {
    let mut settings = settings::load(&config)?;
    if let Some(address) = admin {
        let token_file = settings.admin.take().and_then(|admin| admin.token_file);
        settings.admin = Some(Admin { address, token_file, hosts: Vec::new() });
    }
    ask(&config, &settings, "/reload", &serde_json::json!({})).map_err(|error| {
        // Nobody is there.
        match error.root_cause().is::<io::Error>() {
            true => error
                .context("nothing is reloaded; if the admin address moves, name the present one: --admin"),
            false => error,
        }
    })
}
