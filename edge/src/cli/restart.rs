//! `edge restart`: replaces the instances of a program that a running edge runs.

use std::{ops::ControlFlow, process::ExitCode};

use clap::Args;

use super::outcome::told;
use super::{admin::follow, settings_file::AskedEdge};
use crate::{admin::commands::RestartRequest, observe::say, upstream::supervise::RestartNews};

/// Which command.
#[derive(Debug, Args)]
pub struct RestartArguments {
    /// The command, as in [commands.NAME]
    #[arg(value_name = "NAME")]
    command: String,
    #[command(flatten)]
    edge: AskedEdge,
}

/// Prints how it gets on; succeeds when every instance has been replaced by one that is ready. The restart goes on in the
/// edge when this is interrupted.
pub fn run(arguments: &RestartArguments) -> ExitCode {
    told(restart(arguments))
}

fn restart(arguments: &RestartArguments) -> anyhow::Result<String> {
    let RestartArguments { command, edge } = arguments;
    let (config, settings) = edge.settings()?;
    let wanted = RestartRequest { command: command.clone() };
    let (mut line, mut end) = (Vec::new(), None);
    follow((&config, &settings), "/restart", &wanted, |piece| {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(RestartNews::Step(step)) => say::result(step),
                Ok(RestartNews::Done(done)) => end = Some(Ok(done)),
                Ok(RestartNews::Failed(why)) => end = Some(Err(why)),
                Err(_) => end = Some(Err("the edge's answer cannot be read".to_owned())),
            }
            line.clear();
        }
        if end.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let gone = || Err(format!("the edge has not said how it ended: {command} may have left its settings"));
    end.unwrap_or_else(gone).map_err(anyhow::Error::msg)
}
