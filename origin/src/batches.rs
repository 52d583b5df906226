//! Taking what comes through a queue in batches: one costs its receiver little more than a single thing would.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// How long a batch waits for more, from its first thing on.
const GATHER: Duration = Duration::from_secs(1);

/// Whether there is a batch now, of `most` things or fewer; if not, there is nothing more to come, or `stop` says so.
pub(crate) async fn gather<T>(
    queue: &mut mpsc::Receiver<T>,
    batch: &mut Vec<T>,
    most: usize,
    stop: &mut watch::Receiver<bool>,
) -> bool {
    if *stop.borrow() {
        return false;
    }
    tokio::select! {
        taken = queue.recv_many(batch, most) => if taken == 0 { return false },
        _ = stop.changed() => return false,
    }
    let rest = async { while batch.len() < most && queue.recv_many(batch, most - batch.len()).await > 0 {} };
    tokio::select! {
        _ = timeout(GATHER, rest) => {}
        _ = stop.changed() => {}
    }
    true
}
