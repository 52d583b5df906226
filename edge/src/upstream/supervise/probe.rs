//! Whether an instance is ready, and goes on being so.

use std::{fmt, io, time::Duration};

use http::StatusCode;
use tokio::time::{sleep, timeout};

use super::inquiry;
use crate::upstream::address::Address;

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
        let Some(path) = self.path else {
            return inquiry::connect(&self.address).await.map(drop).map_err(NotReady::NoAnswer);
        };
        let told = inquiry::get(&self.address, path, None).await.map_err(NotReady::NoAnswer)?;
        let status = told.answer.status();
        if status.is_success() { Ok(()) } else { Err(NotReady::Status(status)) }
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
