//! The threads that serve clients. Each has a runtime of its own; what it is to accept on is handed to it from outside.

use std::{
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use tokio::runtime::{self, Handle};
use tokio_util::sync::CancellationToken;

/// All workers.
pub(super) struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts so many. Each runs until `end`, whose tasks it then drops: a drain has waited for them as long as it may.
    pub(super) fn start(count: usize, end: &CancellationToken) -> anyhow::Result<Self> {
        (0..count).map(|index| Worker::start(index, end.clone())).collect::<Result<_, _>>().map(Self)
    }

    /// Where each of them runs its tasks.
    pub(super) fn runtimes(&self) -> impl ExactSizeIterator<Item = &Handle> {
        self.0.iter().map(|worker| &worker.runtime)
    }

    /// Waits until all have ended.
    pub(super) fn join(self) {
        for worker in self.0 {
            if worker.thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Worker {
    fn start(index: usize, end: CancellationToken) -> anyhow::Result<Self> {
        let (started, starts) = mpsc::sync_channel(1);
        let work = move || {
            let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            if started.send(Ok(runtime.handle().clone())).is_ok() {
                runtime.block_on(end.cancelled());
            }
        };
        let named = thread::Builder::new().name(format!("worker-{index}"));
        let thread = named.spawn(work).context("no thread for a worker")?;
        let runtime = starts.recv().context("a worker had panicked")?.context("a worker has no runtime")?;
        Ok(Self { runtime, thread })
    }
}
