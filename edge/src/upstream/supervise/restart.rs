//! A restart that an operator has asked for: what is told of it.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::settings::Command;

/// More than a restart can have to tell: the news of each instance, and how it ended.
const NEWS: usize = 600;

/// How a restart gets on, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartNews {
    /// It goes on.
    Step(String),
    /// Every instance has been replaced by one that is ready. It was the last news.
    Done(String),
    /// It was given up, or not begun. It was the last news.
    Failed(String),
}

/// A restart that is wanted, and who waits for news of it.
#[derive(Debug)]
pub(super) struct RestartOrder(mpsc::Sender<RestartNews>);

impl RestartOrder {
    pub(super) fn new() -> (Self, mpsc::Receiver<RestartNews>) {
        let (sender, receiver) = mpsc::channel(NEWS);
        (Self(sender), receiver)
    }

    /// One that nobody waits for.
    pub(super) fn unasked() -> Self {
        Self::new().0
    }

    /// Who asked may have left: the restart goes on.
    pub(super) fn tell(&self, news: RestartNews) {
        let _ = self.0.try_send(news);
    }
}

/// A restart under way.
#[derive(Debug)]
pub(super) struct Roll {
    order: RestartOrder,
    /// How many new instances have been told to be ready.
    told: usize,
}

impl Roll {
    pub(super) fn begin(order: RestartOrder, command: &Command) -> Self {
        tracing::info!("restarting {}, one instance after the other", command.name);
        Self { order, told: 0 }
    }

    /// So many of the instances that are wanted are new and ready.
    pub(super) fn ready(&mut self, ready: usize, command: &Command) {
        if ready > self.told {
            self.told = ready;
            let (name, wanted) = (&command.name, command.instances);
            self.order.tell(RestartNews::Step(format!("{name}: {ready} of {wanted} new and ready")));
        }
    }

    pub(super) fn done(self, command: &Command) {
        tracing::info!("{} is restarted", command.name);
        self.order.tell(RestartNews::Done(format!("{} is restarted", command.name)));
    }

    pub(super) fn failed(self, command: &Command, why: &str) {
        let name = &command.name;
        tracing::error!("the restart of {name} is given up: {why}");
        self.order.tell(RestartNews::Failed(format!("the restart of {name} is given up: {why}")));
    }
}
