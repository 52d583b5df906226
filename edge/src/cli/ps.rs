//! `edge ps`: what the programs of a running edge do.

use std::process::ExitCode;

use super::outcome::told;
use super::{admin::read, settings_file::AskedEdge};
use crate::{
    admin::commands::CommandsAnswer,
    upstream::supervise::{CommandReport, InstanceReport, InstanceState},
};

/// Prints a table, a line for each instance.
pub fn run(edge: &AskedEdge) -> ExitCode {
    let answer = edge
        .settings()
        .and_then(|(config, settings)| read::<CommandsAnswer>(&config, &settings, "/commands"));
    told(answer.map(|answer| match &*answer.commands {
        [] => "the edge runs no commands".to_owned(),
        commands => table(commands),
    }))
}

const HEAD: [&str; 8] = ["COMMAND", "INSTANCE", "PID", "ADDRESS", "STATE", "UP", "RESTARTS", "MEMORY"];

fn table(commands: &[CommandReport]) -> String {
    let mut rows = vec![(HEAD.map(str::to_owned), None)];
    for command in commands {
        rows.extend(
            command.instances.iter().map(|instance| (row(command, instance), instance.failure.as_ref())),
        );
    }
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| rows.iter().map(|(cells, _)| cells[column].chars().count()).max().unwrap_or_default())
        .collect();
    let line = |(cells, failure): &([String; 8], Option<&String>)| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let failure = failure
            .map(|failure| format!("\n  {}: {failure}", line.split_whitespace().nth(1).unwrap_or_default()));
        format!("{}{}", line.trim_end(), failure.unwrap_or_default())
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(command: &CommandReport, instance: &InstanceReport) -> [String; 8] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        command.name.clone(),
        instance.name.clone(),
        or_none(instance.pid.map(|pid| pid.to_string())),
        or_none(instance.address.clone()),
        state(instance.state).to_owned(),
        or_none(instance.up_seconds.map(up)),
        instance.restarts.to_string(),
        or_none(instance.memory.map(|bytes| format!("{} MiB", bytes.div_ceil(1 << 20)))),
    ]
}

fn state(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Starting => "starting",
        InstanceState::Ready => "ready",
        InstanceState::NotReady => "not ready",
        InstanceState::Stopping => "stopping",
        InstanceState::Waiting => "waiting",
    }
}

/// The two largest units.
fn up(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_instance_and_says_how_one_failed() {
        let one = InstanceReport {
            name: "app.1".into(),
            state: InstanceState::Ready,
            pid: Some(4711),
            address: Some("127.0.0.1:40123".into()),
            up_seconds: Some(3725),
            restarts: 0,
            memory: Some(3 << 20),
            failure: None,
        };
        let two = InstanceReport {
            name: "app.2".into(),
            state: InstanceState::Waiting,
            pid: None,
            address: None,
            up_seconds: None,
            restarts: 12,
            memory: None,
            failure: Some("ended by itself: exit status: 1; tried again in 2.0s".into()),
        };
        let command = CommandReport { name: "app".into(), wanted: 2, instances: vec![one, two] };
        let expected = "\
COMMAND  INSTANCE  PID   ADDRESS          STATE    UP    RESTARTS  MEMORY
app      app.1     4711  127.0.0.1:40123  ready    1h2m  0         3 MiB
app      app.2     -     -                waiting  -     12        -
  app.2: ended by itself: exit status: 1; tried again in 2.0s";
        assert_eq!(table(&[command]), expected);
    }

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        assert_eq!([0, 59, 61, 3600, 90_000].map(up), ["0s", "59s", "1m1s", "1h0m", "1d1h"]);
    }
}
