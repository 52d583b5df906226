//! Asks the admin listener of a running edge.

use std::{io, path::Path, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{TcpStream, UnixStream},
    runtime,
};

use crate::{
    admin::token,
    message::byte_stream::ByteStream,
    settings::{AdminAddress, Settings},
};

/// Posts `question` as JSON to the edge that runs with these settings, and reads its answer.
///
/// # Errors
/// When no edge answers, or it refuses: with its reason.
pub(super) fn ask<Q: Serialize, A: DeserializeOwned>(
    config: &Path,
    settings: &Settings,
    path: &str,
    question: &Q,
) -> anyhow::Result<A> {
    let config = config.display();
    let admin = settings.admin.as_ref().with_context(|| format!("{config} has no [admin] address to ask"))?;
    let mut request = Request::post(path)
        .header(header::HOST, host(&admin.address))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    if let Some(file) = &admin.token_file {
        let token = token::read(file)?;
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(serde_json::to_vec(question)?)))?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let exchange = async {
        let stream: Box<dyn ByteStream> = match &admin.address {
            AdminAddress::Network(address) => Box::new(TcpStream::connect(address).await?),
            AdminAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let content =
            Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await.map_err(io::Error::other)?;
        Ok::<_, io::Error>((status, content.to_bytes()))
    };
    let (status, answer) = runtime
        .block_on(async { tokio::time::timeout(PATIENCE, exchange).await })
        .context("no answer in time")?
        .with_context(|| format!("no edge answers on {}: is it running with {config}?", admin.address))?;
    if status != StatusCode::OK {
        let problem: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
        anyhow::bail!("{status}: {}", problem["detail"].as_str().unwrap_or("no reason given"));
    }
    serde_json::from_slice(&answer).context("the edge's answer cannot be read")
}

fn host(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Network(address) => address.to_string(),
        AdminAddress::Unix(_) => "localhost".to_owned(),
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 1024 * 1024;
