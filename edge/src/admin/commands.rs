//! The programs that the edge runs: what they do, what they print, and their restart.
//!
//! What they print may hold anything, so that it is shown to those alone who may change something, as an explanation is.
//! Those who read along are few, and one who reads slowly misses lines and learns how many: nobody waits for a reader.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use serde::{Deserialize, Serialize};
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    broadcast::{self, error::RecvError},
    mpsc,
};

use crate::upstream::supervise::{CommandReport, Endpoints, RestartNews, Roster};

/// The content of an answer, which may go on.
pub(super) type AdminBody = UnsyncBoxBody<Bytes, Infallible>;

/// Who reads along at once: others have to reach the listener, too.
const READERS: usize = 16;

/// What every command does.
#[derive(Debug, Serialize, Deserialize)]
pub struct CommandsAnswer {
    pub commands: Vec<CommandReport>,
}

/// Which lines are wanted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogsRequest {
    pub command: String,
    /// How many of the last ones.
    pub lines: usize,
    /// Whether those that are yet to come are wanted too.
    #[serde(default)]
    pub follow: bool,
}

/// Whose instances are to be replaced. Answered by lines of JSON, each a [`RestartNews`], as it gets on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartRequest {
    pub command: String,
}

/// The commands, and the places of those who read along.
pub(super) struct CommandService {
    roster: Arc<Roster>,
    readers: Arc<Semaphore>,
}

/// Why there is no answer.
pub(super) enum Unanswered {
    /// There is no such command.
    Unknown(String),
    /// Too much of it is going on.
    Busy(&'static str),
}

impl CommandService {
    pub(super) fn new(roster: Arc<Roster>) -> Self {
        Self { roster, readers: Arc::new(Semaphore::new(READERS)) }
    }

    pub(super) fn report(&self) -> CommandsAnswer {
        CommandsAnswer { commands: self.roster.report() }
    }

    /// The lines, as `origin.1 | text`.
    pub(super) fn logs(&self, wanted: &LogsRequest) -> Result<AdminBody, Unanswered> {
        let endpoints = self.find(&wanted.command)?;
        let (last, along) = endpoints.tail().read(wanted.lines);
        let last = stream::iter(last);
        if !wanted.follow {
            return Ok(body(last));
        }
        let place = self.place()?;
        // Only the lines are held: those who read along do not keep a command that has been taken out of the settings.
        drop(endpoints);
        Ok(body(last.chain(following(along, place))))
    }

    /// The news of the restart, a line each.
    pub(super) fn restart(&self, wanted: &RestartRequest) -> Result<AdminBody, Unanswered> {
        // No place: of each command one restart is under way, and others end with that word.
        let news = self
            .find(&wanted.command)?
            .restart()
            .ok_or(Unanswered::Busy("too many restarts are asked for at once"))?;
        Ok(body(telling(news)))
    }

    fn find(&self, name: &str) -> Result<Arc<Endpoints>, Unanswered> {
        self.roster.get(name).ok_or_else(|| {
            let all = self.roster.all();
            let known: Vec<&str> = all.keys().map(|name| &**name).collect();
            Unanswered::Unknown(match known.as_slice() {
                [] => format!("there is no command {name:?}, and no other one"),
                known => format!("there is no command {name:?}, but {}", known.join(", ")),
            })
        })
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Unanswered> {
        let place = Arc::clone(&self.readers).try_acquire_owned();
        place.map_err(|_| Unanswered::Busy("too many read along already"))
    }
}

fn body(lines: impl Stream<Item = Bytes> + Send + 'static) -> AdminBody {
    StreamBody::new(lines.map(|line| Ok(Frame::data(line)))).boxed_unsync()
}

/// What is printed from now on, until the command is gone.
fn following(along: broadcast::Receiver<Bytes>, place: OwnedSemaphorePermit) -> impl Stream<Item = Bytes> {
    stream::unfold((along, place), |(mut along, place)| async {
        let line = match along.recv().await {
            Ok(line) => line,
            Err(RecvError::Lagged(missed)) => {
                Bytes::from(format!("({missed} lines are left out: they came faster than they were read)\n"))
            }
            Err(RecvError::Closed) => return None,
        };
        Some((line, (along, place)))
    })
}

fn telling(news: mpsc::Receiver<RestartNews>) -> impl Stream<Item = Bytes> {
    stream::unfold(news, |mut news| async {
        let told = news.recv().await?;
        let line = serde_json::json!(told).to_string() + "\n";
        Some((Bytes::from(line), news))
    })
}
