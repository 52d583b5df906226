//! Asks the admin listener of a running edge.

use std::{io, ops::ControlFlow, path::Path, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::{self, Runtime},
    time::timeout,
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
    let edge = RunningEdge::of(config, settings)?;
    edge.whole(edge.post(path, question)?)
}

/// As [`ask`], where nothing is posted.
///
/// # Errors
/// As [`ask`].
pub(super) fn read<A: DeserializeOwned>(config: &Path, settings: &Settings, path: &str) -> anyhow::Result<A> {
    let edge = RunningEdge::of(config, settings)?;
    edge.whole(edge.request(Method::GET, path, Bytes::new())?)
}

/// As [`ask`], for an answer that may go on: `take` is given each piece of it as it comes, and may have had enough. Without
/// an end of its own.
///
/// # Errors
/// As [`ask`]; and when the edge breaks off.
pub(super) fn follow<Q: Serialize>(
    (config, settings): (&Path, &Settings),
    path: &str,
    question: &Q,
    mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let edge = RunningEdge::of(config, settings)?;
    let request = edge.post(path, question)?;
    edge.runtime.block_on(async {
        let mut body = edge.answer(request).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the edge has broken off: it may have been stopped")?;
            if frame.data_ref().is_some_and(|piece| take(piece).is_break()) {
                break;
            }
        }
        Ok(())
    })
}

/// The edge that runs with these settings, if one does.
struct RunningEdge<'a> {
    config: &'a Path,
    settings: &'a Settings,
    address: &'a AdminAddress,
    runtime: Runtime,
}

impl<'a> RunningEdge<'a> {
    fn of(config: &'a Path, settings: &'a Settings) -> anyhow::Result<Self> {
        let none = || format!("{} has no [admin] address to ask", config.display());
        let address = &settings.admin.as_ref().with_context(none)?.address;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { config, settings, address, runtime })
    }

    fn post<Q: Serialize>(&self, path: &str, question: &Q) -> anyhow::Result<Request<Full<Bytes>>> {
        self.request(Method::POST, path, Bytes::from(serde_json::to_vec(question)?))
    }

    fn request(&self, method: Method, path: &str, content: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host(self.address))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        let file = self.settings.admin.as_ref().and_then(|admin| admin.token_file.as_ref());
        if let Some(file) = file {
            let token = token::read(file)?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        Ok(request.body(Full::new(content))?)
    }

    fn whole<A: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> anyhow::Result<A> {
        let whole = async {
            let body = self.answer(request).await?.into_body();
            let content = timeout(PATIENCE, Limited::new(body, LARGEST_ANSWER).collect()).await;
            let content = content.context("no answer in time")?.map_err(io::Error::other)?;
            Ok::<_, anyhow::Error>(content.to_bytes())
        };
        let content = self.runtime.block_on(whole)?;
        serde_json::from_slice(&content).context("the edge's answer cannot be read")
    }

    /// The head of a 200, in time; what else it says is an error.
    async fn answer(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        let exchange = async {
            let stream: Box<dyn ByteStream> = match self.address {
                AdminAddress::Network(address) => Box::new(TcpStream::connect(address).await?),
                AdminAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
            };
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(io::Error::other)
        };
        let config = self.config.display();
        let answer = timeout(PATIENCE, exchange).await.context("no answer in time")?;
        let answer = answer
            .with_context(|| format!("no edge answers on {}: is it running with {config}?", self.address))?;
        let status = answer.status();
        if status != StatusCode::OK {
            let content = timeout(PATIENCE, Limited::new(answer.into_body(), LARGEST_ANSWER).collect()).await;
            let content = content.context("no answer in time")?.map_err(io::Error::other)?.to_bytes();
            let problem: serde_json::Value = serde_json::from_slice(&content).unwrap_or_default();
            match problem["detail"].as_str() {
                // The edge has understood: what is wrong is no matter of the question.
                Some(detail) if status == StatusCode::UNPROCESSABLE_ENTITY => anyhow::bail!("{detail}"),
                detail => anyhow::bail!("{status}: {}", detail.unwrap_or("no reason given")),
            }
        }
        Ok(answer)
    }
}

fn host(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Network(address) => address.to_string(),
        AdminAddress::Unix(_) => "localhost".to_owned(),
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 1024 * 1024;
