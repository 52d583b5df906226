//! Whether an instance is ready, and goes on being so.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    message::byte_stream::ByteStream,
    upstream::{address::Address, connect::connect_unix},
};

/// Between two looks at an instance that is not ready yet: at first, and at most.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// What an instance is asked, and where.
pub(super) struct Probe<'a> {
    pub(super) address: Address,
    /// A path that must answer 2xx; a connection is enough when `None`.
    pub(super) path: Option<&'a str>,
    /// What one look may take.
    pub(super) patience: Duration,
}

/// Why an instance is not ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    /// It lives, and says so itself.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// Nobody listens, or nothing that can be read is said.
    #[error("{0}")]
    NoAnswer(io::Error),
    /// Nothing came in time.
    #[error("no answer within {0:.0?}")]
    Silence(Duration),
    /// The process has been stopped by a signal.
    #[error("the process is stopped")]
    Stopped,
}

impl NotReady {
    /// Whether it shows that somebody is there.
    pub(super) fn lives(&self) -> bool {
        matches!(self, Self::Status(_))
    }
}

impl Probe<'_> {
    /// Looks until it is ready, and tells of the first answer that says it is not.
    pub(super) async fn until_ready(&self, mut first_refusal: impl FnMut(&NotReady)) {
        let (mut pause, longest) = PROBE_PAUSE;
        let mut told = false;
        loop {
            match self.look().await {
                Ok(()) => return,
                // Before it listens there is nothing to tell.
                Err(NotReady::NoAnswer(error))
                    if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                }
                Err(refusal) if !told => {
                    told = true;
                    first_refusal(&refusal);
                }
                Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(longest);
        }
    }

    /// One look: whether it accepts a connection and, with a path, answers 2xx.
    pub(super) async fn look(&self) -> Result<(), NotReady> {
        timeout(self.patience, self.ask()).await.unwrap_or(Err(NotReady::Silence(self.patience)))
    }

    async fn ask(&self) -> Result<(), NotReady> {
        let no_answer = |error: hyper::Error| NotReady::NoAnswer(io::Error::other(error));
        let stream = self.connect().await.map_err(NotReady::NoAnswer)?;
        let Some(path) = self.path else { return Ok(()) };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
        let request = http::Request::get(path)
            .header(http::header::HOST, self.host())
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| NotReady::NoAnswer(io::Error::other(error)))?;
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        // The connection may end in the same moment in which it has read the answer: the answer counts all the same.
        let answer = tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        };
        let status = answer.map_err(no_answer)?.status();
        if status.is_success() { Ok(()) } else { Err(NotReady::Status(status)) }
    }

    async fn connect(&self) -> io::Result<Box<dyn ByteStream>> {
        let stream = match &self.address {
            Address::Unix(path) => return Ok(Box::new(connect_unix(path, None).await?)),
            Address::UnixOf(path, user) => return Ok(Box::new(connect_unix(path, Some(*user)).await?)),
            // No program listens there.
            Address::Files(_) => return Err(io::ErrorKind::Unsupported.into()),
            Address::Socket(address) => TcpStream::connect(address).await?,
            Address::Name { host, port } => TcpStream::connect((&**host, *port)).await?,
        };
        // While nobody listens, a connection to a port the system may also give to clients can meet itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Box::new(stream))
    }

    fn host(&self) -> String {
        self.address.socket().map_or_else(|| "localhost".to_owned(), |address| address.to_string())
    }
}

impl fmt::Display for Probe<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            Some(path) => match self.address.socket() {
                Some(address) => write!(formatter, "GET http://{address}{path} with 2xx"),
                None => write!(formatter, "GET {path} with 2xx on {}", self.address),
            },
            None => write!(formatter, "a connection to {}", self.address),
        }
    }
}
