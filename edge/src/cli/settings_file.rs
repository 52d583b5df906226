//! Which settings a command is about, and which running edge.

use std::path::{Path, PathBuf};

use clap::Args;

use super::no_file::without_file;
use crate::settings::{self, Admin, AdminAddress, Settings};

/// A file of settings, or the one that is there.
#[derive(Debug, Args)]
pub struct SettingsFile {
    /// The settings; relative paths in it are relative to the working directory [default: edge.toml where there is one, else
    /// config/edge.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl SettingsFile {
    /// # Errors
    /// None is named, and none is there.
    pub(super) fn path(&self) -> anyhow::Result<PathBuf> {
        found(self.config.as_ref()).ok_or_else(|| {
            anyhow::anyhow!(
                "there is no edge.toml here, and no config/edge.toml\n   = help: `edge init` writes one for the app in this folder; \
                 `edge run --to :3000` serves without one; --config FILE names another"
            )
        })
    }
}

fn found(named: Option<&PathBuf>) -> Option<PathBuf> {
    // One that cannot be looked at is there: what is wrong with it is told when it is read.
    let is_there = |path: &&&str| Path::new(path).try_exists().unwrap_or(true);
    let usual = || USUAL.iter().find(is_there).map(PathBuf::from);
    named.cloned().or_else(usual)
}

/// Where settings are looked for, where no file is named.
const USUAL: [&str; 2] = ["edge.toml", "config/edge.toml"];

/// A running edge.
#[derive(Debug, Args)]
pub struct AskedEdge {
    /// The settings of the edge: its admin address and token are read from them [default: edge.toml where there is one, else
    /// config/edge.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where its admin listener is, if not where the file says; without a file it is 127.0.0.1:9900
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<AdminAddress>,
}

impl AskedEdge {
    /// Its settings, and what they are called.
    ///
    /// # Errors
    /// They are wrong, or cannot be read.
    pub(super) fn settings(&self) -> anyhow::Result<(PathBuf, Settings)> {
        let (path, mut settings) = match found(self.config.as_ref()) {
            Some(path) => {
                let settings = settings::load(&path)?;
                (path, settings)
            }
            None => ("edge run --to".into(), without_file()?),
        };
        if let Some(address) = self.admin.clone() {
            let token_file = settings.admin.take().and_then(|admin| admin.token_file);
            settings.admin = Some(Admin { address, token_file, hosts: Vec::new() });
        }
        Ok((path, settings))
    }
}
