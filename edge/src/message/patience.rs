//! How long somebody waits for the next piece of a body.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderName;
use tokio::time::{Instant, Sleep};

/// How long whoever asks waits for the answer's head, in milliseconds from the request's end. A convention of this project.
pub const REQUEST_DEADLINE: HeaderName = HeaderName::from_static("x-request-deadline");

/// A deadline that starts anew with every piece, and costs nothing while pieces come without waiting.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Patience {
    /// At most `limit` between two pieces.
    pub fn new(limit: Duration) -> Self {
        Self { limit, sleep: None, waiting: false }
    }

    /// A piece came.
    pub fn rest(&mut self) {
        self.waiting = false;
    }

    /// Nothing came: ready when nothing has come for too long.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            sleep.as_mut().reset(Instant::now() + limit);
        }
        sleep.as_mut().poll(context)
    }
}
