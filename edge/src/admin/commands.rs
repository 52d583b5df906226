//! The programs that the edge runs: what they do, what they print, their metrics, and their restart.
//!
//! Instances listen where the system has had a port free. For Prometheus each has an address on this listener that stays:
//! `/commands/NAME/NUMBER/metrics`, and `/commands/targets` lists them all. Metrics are for whoever may read the edge's own.
//!
//! What they print may hold anything, so that it is shown to those alone who may change something, as an explanation is.
//! Those who read along are few, and one who reads slowly misses lines and learns how many: nobody waits for a reader.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::HeaderValue;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        broadcast::{self, error::RecvError},
        mpsc,
    },
    time::timeout,
};

use crate::upstream::supervise::{CommandReport, Endpoints, RestartNews, Roster, Scraped};

/// The content of an answer, which may go on.
pub(super) type AdminBody = UnsyncBoxBody<Bytes, Infallible>;

/// Who reads along at once: others have to reach the listener, too.
const READERS: usize = 16;
/// Instances whose metrics are asked for at once; the others wait. Each answer is held whole.
const SCRAPES: usize = 8;
/// For one instance's metrics, the wait for the others included: as long as Prometheus waits where it is not told otherwise.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

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

/// What Prometheus scrapes, as it is told by HTTP (`http_sd_configs`).
#[derive(Debug, Serialize)]
pub(super) struct ScrapeTarget {
    targets: [String; 1],
    labels: BTreeMap<&'static str, String>,
}

/// The commands, and the places of those who read along.
pub(super) struct CommandService {
    roster: Arc<Roster>,
    readers: Arc<Semaphore>,
    scrapes: Semaphore,
}

/// Why there is no answer.
pub(super) enum Unanswered {
    /// There is no such command.
    Unknown(String),
    /// Too much of it is going on.
    Busy(&'static str),
    /// The instance does not run.
    Away(String),
    /// The instance runs, and has not answered what it was asked.
    Failed(String),
}

impl CommandService {
    pub(super) fn new(roster: Arc<Roster>) -> Self {
        Self { roster, readers: Arc::new(Semaphore::new(READERS)), scrapes: Semaphore::new(SCRAPES) }
    }

    pub(super) fn report(&self) -> CommandsAnswer {
        CommandsAnswer { commands: self.roster.report() }
    }

    /// Every instance that the settings ask for, whether it runs or not: one that is down is seen to be. `here` is the
    /// address of this listener in the words of the one who asks.
    pub(super) fn targets(&self, here: &str) -> Vec<ScrapeTarget> {
        let all = self.roster.all();
        let told = all.iter().filter(|(_, endpoints)| endpoints.tells_metrics());
        told.flat_map(|(name, endpoints)| {
            (1..=endpoints.wanted()).map(move |number| ScrapeTarget {
                targets: [here.to_owned()],
                labels: BTreeMap::from([
                    ("__metrics_path__", format!("/commands/{name}/{number}/metrics")),
                    ("instance", format!("{name}.{number}")),
                    ("job", name.to_string()),
                ]),
            })
        })
        .collect()
    }

    /// The metrics of the instance of a path `/commands/NAME/NUMBER/metrics`, in the form that `accept` asks for.
    pub(super) async fn metrics(
        &self,
        path: &str,
        accept: Option<&HeaderValue>,
    ) -> Result<Scraped, Unanswered> {
        let unknown =
            || Unanswered::Unknown("metrics are at /metrics and /commands/NAME/NUMBER/metrics".to_owned());
        let words = path.strip_prefix("/commands/").and_then(|path| path.strip_suffix("/metrics"));
        let (name, number) = words.and_then(|words| words.split_once('/')).ok_or_else(unknown)?;
        let endpoints = self.find(name)?;
        if !endpoints.tells_metrics() {
            return Err(Unanswered::Unknown(format!("[commands.{name}] has no `metrics`: add their path")));
        }
        let wanted = endpoints.wanted();
        // In its one spelling: 01 is no other instance's name.
        if !(1..=wanted).any(|known| known.to_string() == number) {
            let detail = format!("{name} has {wanted} instances, counted from 1");
            return Err(Unanswered::Unknown(detail));
        }
        let instance = format!("{name}.{number}");
        let place = endpoints.metrics_of(&instance).map_err(Unanswered::Away)?;
        // Neither is held while it answers: a command may be taken out of the settings.
        drop(endpoints);
        let scraped = timeout(SCRAPE_TIMEOUT, async {
            let _place = self.scrapes.acquire().await;
            place.scrape(accept).await
        });
        match scraped.await {
            Ok(Ok(scraped)) => Ok(scraped),
            Ok(Err(error)) => Err(Unanswered::Failed(format!("of {instance}: {error}"))),
            Err(_) => Err(Unanswered::Failed(format!("{instance} has not answered in time"))),
        }
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
