//! What the origin sends unasked (purges, traces): one POST in clear text over a new connection, with a deadline and a bound
//! on the answer. Meant for a few requests a second to hosts on the same network.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::settings::HttpAddress;

/// A host on the same network answers in a millisecond; one that takes this long is taken for gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// The answer is a number or two.
const LONGEST_ANSWER: usize = 64 << 10;

/// Why there is no answer, or not the right one.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke off, or what came over it is not HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the answer broke off")]
    Answer,
    /// It was something else than 200.
    #[error("answered {0}")]
    Refused(StatusCode),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TooSlow,
}

impl PostError {
    /// In a word, for spans.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Connect(_) => "connect".to_owned(),
            Self::Http(_) | Self::Answer => "exchange".to_owned(),
            Self::Refused(status) => status.as_str().to_owned(),
            Self::TooSlow => "timeout".to_owned(),
        }
    }
}

/// Sends a body; its answer once it has arrived whole with status 200. Dropping the future closes the connection.
///
/// # Errors
/// See [`PostError`]. The other side may have done what it was asked all the same.
pub(crate) async fn post(
    to: &HttpAddress,
    path: &'static str,
    fields: &[(HeaderName, HeaderValue)],
    body: Bytes,
) -> Result<Bytes, PostError> {
    let exchange = async {
        let stream = TcpStream::connect(to.authority()).await.map_err(PostError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::post(path)
            .header(header::HOST, to.authority())
            .body(Full::new(body))
            .expect("the settings have checked the authority");
        request.headers_mut().extend(fields.iter().cloned());
        let answered = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            // The other side has done it when its answer has ended.
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|_| PostError::Answer)?.to_bytes();
            if status == StatusCode::OK { Ok(body) } else { Err(PostError::Refused(status)) }
        };
        // The request makes progress only while the connection is polled. If the connection ends first, the request still
        // holds the answer, or the reason why there is none.
        tokio::pin!(answered);
        tokio::select! {
            outcome = &mut answered => outcome,
            _ = connection => answered.await,
        }
    };
    timeout(PATIENCE, exchange).await.unwrap_or(Err(PostError::TooSlow))
}
