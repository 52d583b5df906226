//! `edge logs`: what a program of a running edge has printed, and goes on printing.

use std::{
    io::{self, Write as _},
    ops::ControlFlow,
    process::ExitCode,
};

use clap::Args;

use super::outcome::ended;
use super::{admin::follow, settings_file::AskedEdge};
use crate::admin::commands::LogsRequest;

/// Of which command, and how much.
#[derive(Debug, Args)]
pub struct LogsArguments {
    /// The command, as in [commands.NAME]
    #[arg(value_name = "NAME")]
    command: String,
    /// Go on with what it prints from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of its last lines; the edge keeps 1000, and at most 256 KiB
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: usize,
    #[command(flatten)]
    edge: AskedEdge,
}

/// Prints each line with the name of the instance before it.
pub fn run(arguments: &LogsArguments) -> ExitCode {
    let LogsArguments { command, follow: along, lines, edge } = arguments;
    let wanted = LogsRequest { command: command.clone(), lines: *lines, follow: *along };
    let mut output = io::stdout().lock();
    // Whoever reads may have had enough: `edge logs app -f | head`.
    let mut print = |piece: &[u8]| match output.write_all(piece).and_then(|()| output.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let printed = edge
        .settings()
        .and_then(|(config, settings)| follow((&config, &settings), "/logs", &wanted, &mut print));
    ended(printed, |()| ExitCode::SUCCESS)
}
