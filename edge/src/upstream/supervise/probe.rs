//! Whether an instance is ready, and goes on being so.

use std::{fmt, io, time::Duration};

use http::StatusCode;
use tokio::time::{Instant, sleep, timeout};

use super::inquiry;
use crate::upstream::address::Address;

/// Between two looks at an instance that is not ready yet: at first, and at most.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Most programs listen by then.
const LISTENS_BY: Duration = Duration::from_secs(5);

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
    /// Looks until it is ready, and tells of the first answer that says it is not, or that nobody has listened for a while.
    pub(super) async fn until_ready(&self, mut first_refusal: impl FnMut(&NotReady)) {
        let (mut pause, longest) = PROBE_PAUSE;
        let mut told = false;
        let began = Instant::now();
        loop {
            match self.look().await {
                Ok(()) => return,
                // Before it listens there is nothing to tell, unless it should by now.
                Err(NotReady::NoAnswer(error))
                    if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
                        && began.elapsed() < LISTENS_BY => {}
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn that_nobody_listens_is_told_once_and_not_at_once() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let probe = Probe { address: Address::from(nobody), path: None, patience: Duration::from_secs(2) };
        let mut told = Vec::new();
        let began = Instant::now();
        let forever = probe.until_ready(|refusal| told.push((began.elapsed(), refusal.to_string())));
        assert!(timeout(Duration::from_secs(30), forever).await.is_err());
        assert!(
            matches!(&told[..], [(after, why)] if *after >= LISTENS_BY && why.contains("refused")),
            "{told:?}"
        );
    }
}
