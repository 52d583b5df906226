//! Whether an instance is ready, and goes on being so.

use std::{fmt, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

/// Between two looks at an instance that is not ready yet: at first, and at most.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// What one look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What an instance is asked, and where.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub(super) address: SocketAddr,
    /// A path that must answer 2xx; a connection is enough when `None`.
    pub(super) path: Option<&'a str>,
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
    #[error("no answer within {} s", PROBE_TIMEOUT.as_secs())]
    Silence,
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
                Err(NotReady::NoAnswer(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
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
        timeout(PROBE_TIMEOUT, self.ask()).await.unwrap_or(Err(NotReady::Silence))
    }

    async fn ask(&self) -> Result<(), NotReady> {
        let no_answer = |error: hyper::Error| NotReady::NoAnswer(io::Error::other(error));
        let stream = TcpStream::connect(self.address).await.map_err(NotReady::NoAnswer)?;
        // While nobody listens, a connection to a port the system may also give to clients can meet itself.
        let met_itself = || Ok::<_, io::Error>(stream.local_addr()? == stream.peer_addr()?);
        if met_itself().map_err(NotReady::NoAnswer)? {
            return Err(NotReady::NoAnswer(io::ErrorKind::ConnectionRefused.into()));
        }
        let Some(path) = self.path else { return Ok(()) };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
        let request = http::Request::get(path)
            .header(http::header::HOST, self.address.to_string())
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
}

impl fmt::Display for Probe<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            Some(path) => write!(formatter, "GET http://{}{path} with 2xx", self.address),
            None => write!(formatter, "a connection to {} (its PORT)", self.address),
        }
    }
}
