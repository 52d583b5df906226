//! `edge run`: serves by a file, or, with `--to`, by what the arguments say in place of one.

use std::{
    net::{SocketAddr, TcpListener},
    process::ExitCode,
};

use clap::Args;

use super::outcome::ended;
use super::{
    no_file::{ADMIN, NoFile, WantedListener, WantedServer, home},
    settings_file::SettingsFile,
};
use crate::{
    server,
    settings::{AdminAddress, GivenSettings},
};

/// By which settings, or to which servers.
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    file: SettingsFile,
    /// Serve without a file: where requests go, as in :3000, http://10.0.0.5:3000 or unix:/run/app.sock; several share them
    #[arg(long, value_name = "SERVER", conflicts_with = "config")]
    to: Vec<WantedServer>,
    /// Where clients come in, as in :8080 or https://127.0.0.1:8443 [default: :8080 and https://:8443; with --domain :80 and
    /// https://:443]
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    listen: Vec<WantedListener>,
    /// Have a certificate made for this name by Let's Encrypt, in place of one of a local authority; this agrees to its terms
    #[arg(long, value_name = "NAME", requires = "to")]
    domain: Vec<String>,
    /// The operator's address [default: 127.0.0.1:9900, or another port where that is taken]
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    admin: Option<AdminAddress>,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(arguments: RunArguments) -> ExitCode {
    ended(given(arguments).and_then(|given| server::run(&given)), |code| code)
}

fn given(arguments: RunArguments) -> anyhow::Result<GivenSettings> {
    let RunArguments { file, to, listen, domain, admin } = arguments;
    if to.is_empty() {
        return file.path().map(GivenSettings::File);
    }
    let admin = admin.unwrap_or_else(|| match TcpListener::bind(ADMIN) {
        Ok(_) => AdminAddress::Network(ADMIN),
        Err(_) => AdminAddress::Network(SocketAddr::new(ADMIN.ip(), 0)),
    });
    let text = NoFile { to, listen, domain, admin, home: home() }.to_string();
    Ok(GivenSettings::Arguments(text.into()))
}
