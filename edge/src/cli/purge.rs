//! `edge purge`: asks a running edge to serve something no more.

use std::process::ExitCode;

use clap::{ArgGroup, Args};

use super::outcome::ended;
use super::{admin::ask, settings_file::AskedEdge};
use crate::{
    observe::say,
    pipeline::purge::{PurgeAnswer, PurgeRequest},
};

/// What to purge, and of which edge.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["urls", "tags", "prefixes", "hosts", "all"]).multiple(true).required(true))]
pub struct PurgeArguments {
    #[command(flatten)]
    edge: AskedEdge,
    /// A resource in all its variants, by absolute URL
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// Everything that carries this word of Surrogate-Key or Cache-Tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Everything whose absolute URL begins so
    #[arg(long = "prefix", value_name = "URL")]
    prefixes: Vec<String>,
    /// Everything of a host, on all ports
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Make it stale instead of gone: it is validated, and meanwhile served where a stale window says so
    #[arg(long)]
    soft: bool,
    /// Only say how many it would be
    #[arg(long)]
    dry_run: bool,
}

/// Purges, and prints how many stored responses matched. That none did is no error: what is named may be stored later, or
/// not at all. What cannot match anything is one.
pub fn run(arguments: PurgeArguments) -> ExitCode {
    ended(purge(arguments), |purged| {
        let what = if purged.dry_run { "would be purged" } else { "purged" };
        let how = if purged.soft { " (soft: stale, not gone)" } else { "" };
        let plural = if purged.purged == 1 { "" } else { "s" };
        let none = if purged.purged == 0 { ": nothing that is stored matches" } else { "" };
        say::result(format_args!("{} stored response{plural} {what}{how}{none}", purged.purged));
        ExitCode::SUCCESS
    })
}

fn purge(arguments: PurgeArguments) -> anyhow::Result<PurgeAnswer> {
    let PurgeArguments { edge, urls, tags, prefixes, hosts, all, soft, dry_run } = arguments;
    let (config, settings) = edge.settings()?;
    let purge = PurgeRequest { urls, tags, prefixes, hosts, everything: all, soft, dry_run };
    ask(&config, &settings, "/purge", &purge)
}
