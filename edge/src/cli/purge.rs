//! `edge purge`: asks a running edge to serve something no more.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime};

use crate::{
    admin::purge::{Purge, Purged},
    settings,
};

/// What to purge, and of which edge.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The settings of the edge: its admin address and token are read from them
    #[arg(long, value_name = "FILE", default_value = "config/edge.toml")]
    config: PathBuf,
    /// A resource in all its variants, by absolute URL
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// Everything that carries this word of Surrogate-Key or Cache-Tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Everything whose absolute URL begins so
    #[arg(long = "prefix", value_name = "URL")]
    prefixes: Vec<String>,
    /// Everything of a host
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Make it stale instead of gone: it is validated before it is served again
    #[arg(long)]
    soft: bool,
    /// Only say how many it would be
    #[arg(long)]
    dry_run: bool,
}

/// Purges, and prints how many stored responses that was about.
pub fn run(arguments: Arguments) -> ExitCode {
    match purge(arguments) {
        Ok(purged) => {
            let what = if purged.dry_run { "would be purged" } else { "purged" };
            let how = if purged.soft { " (soft: stale, not gone)" } else { "" };
            println!("{} stored responses {what}{how}", purged.purged);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn purge(arguments: Arguments) -> anyhow::Result<Purged> {
    let Arguments { config, urls, tags, prefixes, hosts, all, soft, dry_run } = arguments;
    let admin = settings::load(&config)?.admin;
    let admin = admin.with_context(|| format!("{} has no [admin] address to ask", config.display()))?;
    let token = admin.token_file.map(|file| {
        std::fs::read_to_string(&file).with_context(|| format!("admin.token_file {}", file.display()))
    });
    let purge = Purge { urls, tags, prefixes, hosts, everything: all, soft, dry_run };
    let mut request = Request::post("/purge")
        .header(header::HOST, admin.address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    if let Some(token) = token.transpose()? {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let request = request.body(Full::new(Bytes::from(serde_json::to_vec(&purge)?)))?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, answer) = runtime.block_on(async {
        let asked = async {
            let stream = TcpStream::connect(admin.address).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
            tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = answer.status();
            let content = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
            Ok::<_, io::Error>((status, content.map_err(io::Error::other)?.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, asked).await.context("no answer in time")?.with_context(|| {
            format!("no edge answers on {}: is it running with {}?", admin.address, config.display())
        })
    })?;
    if status != StatusCode::OK {
        let problem: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("no reason given");
        anyhow::bail!("{status}: {detail}");
    }
    serde_json::from_slice(&answer).context("the edge's answer cannot be read")
}

const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 64 * 1024;
