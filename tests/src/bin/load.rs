//! `make load`: the capacity guide's load tests and targets on the shop as `make run` starts it, and what follows for other servers.
//!
//! Everything is measured on this machine, visitors and shop together: figures of a machine that does other things are worth little,
//! which is why its load average stands beside them.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use gatehouse_tests::capacity::{self, Scale, report};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const USAGE: &str = "usage: load [--small] [--write DOCUMENT]";

fn main() -> Result<()> {
    let (mut scale, mut document) = (Scale::full(), None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--small" => scale = Scale::small(),
            "--write" => document = Some(PathBuf::from(arguments.next().context(USAGE)?)),
            _ => bail!(USAGE),
        }
    }
    // Before anything is measured: a document without a place for it would be found out at the end.
    let known = document.as_ref().map(std::fs::read_to_string).transpose().context("the document")?;
    known.as_deref().map(|known| report::placed(known, "")).transpose()?;
    allow_connections();
    let results = capacity::measure(scale, |what| println!("… {what}"))?;
    let tables = results.tables();
    println!("\n{tables}");
    if let Some((path, known)) = document.zip(known) {
        std::fs::write(&path, report::placed(&known, &tables)?)?;
        println!("written into {}", path.display());
    }
    Ok(())
}

/// As many open files as the system allows: each visitor has a connection, and so has the edge.
fn allow_connections() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // The limit that there is may do, too; if not, visitors say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
