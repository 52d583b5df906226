//! The edge's purge call: `POST /purge` with `{"tags": [...], "soft": false}` on its admin address, answered 200.

use std::{collections::BTreeSet, io, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{net::TcpStream, time::timeout};

use crate::settings::{EdgeAddress, Secret};

/// An edge on the same network answers in a millisecond; one that takes this long is taken for gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// The answer is a number or two.
const LONGEST_ANSWER: usize = 64 << 10;

/// An edge that keeps our answers.
#[derive(Debug, Clone)]
pub struct Edge {
    address: EdgeAddress,
    token: Option<Secret>,
}

/// Why a purge was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The exchange broke off.
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    /// The answer did not arrive whole.
    #[error("the answer broke off")]
    Answer,
    /// The edge said something else than 200.
    #[error("answered {0}")]
    Refused(StatusCode),
    /// It took longer than `PATIENCE`.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TooSlow,
}

#[derive(Serialize)]
struct Purge<'a> {
    tags: &'a BTreeSet<String>,
    soft: bool,
}

impl Edge {
    /// The edge with this admin address; `token` is sent as `Authorization: Bearer`.
    pub fn new(address: EdgeAddress, token: Option<Secret>) -> Self {
        Self { address, token }
    }

    /// What it is called in the outbox and in logs.
    pub fn name(&self) -> &str {
        self.address.as_str()
    }

    /// Purges the tags; `Ok` is the edge's word that nothing with one of them will be served again.
    ///
    /// # Errors
    /// See [`PurgeError`]. It may have happened all the same: purging again does no harm.
    pub async fn purge(&self, tags: &BTreeSet<String>) -> Result<(), PurgeError> {
        timeout(PATIENCE, self.call(tags)).await.unwrap_or(Err(PurgeError::TooSlow))
    }

    async fn call(&self, tags: &BTreeSet<String>) -> Result<(), PurgeError> {
        let stream = TcpStream::connect(self.address.authority()).await.map_err(PurgeError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let body = serde_json::to_vec(&Purge { tags, soft: false })
            .expect("a list of strings and a boolean are JSON");
        let mut request = Request::post("/purge")
            .header(header::HOST, self.address.authority())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .expect("settings take tokens of visible ASCII only");
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request =
            request.body(Full::new(Bytes::from(body))).expect("the settings have checked the authority");
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            // The edge has done it when its answer has ended.
            Limited::new(response.into_body(), LONGEST_ANSWER)
                .collect()
                .await
                .map_err(|_| PurgeError::Answer)?;
            if status == StatusCode::OK { Ok(()) } else { Err(PurgeError::Refused(status)) }
        };
        // The connection does the work; the exchange ends before it does, or tells why it could not.
        tokio::pin!(exchange);
        tokio::select! {
            outcome = &mut exchange => outcome,
            _ = connection => exchange.await,
        }
    }
}
