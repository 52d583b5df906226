//! Connections from any listener, within a bound, whatever the system lacks: one loop for the edge's public listeners, its
//! admin address and the origin.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Pause after an accept that failed for lack of a resource that the system may have again soon.
const PAUSE: Duration = Duration::from_millis(100);
/// Without such a failure for so long, the next one is another episode.
const EPISODE: Duration = Duration::from_secs(10);

/// When an accept last failed for lack of such a resource, on whichever listener: all lack the same.
static LACKED: Mutex<Option<Instant>> = Mutex::new(None);

/// Waits for a place among the connections served at once, then for a connection, as [`next`] does. Cancel-safe.
pub async fn within<T, F: Future<Output = io::Result<T>>>(
    places: &Arc<Semaphore>,
    accept: impl Fn() -> F,
    refused: impl Fn(),
) -> (T, OwnedSemaphorePermit) {
    // When every place is taken, newcomers wait in the kernel's queue instead of being refused.
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    (next(accept, refused).await, place)
}

/// Waits for a connection. When the system lacks a resource that it may have again soon, it retries after a pause and calls
/// `refused` each time. Cancel-safe.
pub async fn next<T, F: Future<Output = io::Result<T>>>(accept: impl Fn() -> F, refused: impl Fn()) -> T {
    loop {
        match accept().await {
            Ok(newcomer) => return newcomer,
            Err(error) => {
                refused();
                if !of_one_connection(&error) {
                    // No file descriptors or no memory: an immediate retry would only burn the CPU, and a line for each would
                    // fill the log.
                    if begins_episode(&LACKED) {
                        tracing::warn!(%error, "cannot accept connections; told once for as long as that goes on");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Notes that something is lacking; whether it was not a moment ago.
fn begins_episode(lacked: &Mutex<Option<Instant>>) -> bool {
    let now = Instant::now();
    let last = lacked.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
    last.is_none_or(|last| now.duration_since(last) > EPISODE)
}

/// Whether an accept failed for its own connection only, so that the next may succeed at once.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::ErrorKind};

    use tokio::time::Instant;

    use super::*;

    /// What the system says to one accept after the other, and then a connection.
    async fn after(errors: &[ErrorKind]) -> (Duration, u32) {
        let (asked, refused, began) = (Cell::new(0), Cell::new(0), Instant::now());
        let accept = || {
            let answer = errors.get(asked.get()).map_or(Ok(()), |kind| Err(io::Error::from(*kind)));
            asked.set(asked.get() + 1);
            async { answer }
        };
        next(accept, || refused.set(refused.get() + 1)).await;
        (began.elapsed(), refused.get())
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_the_system_lacks_is_waited_for() {
        assert_eq!(after(&[]).await, (Duration::ZERO, 0));
        assert_eq!(after(&[ErrorKind::ConnectionAborted, ErrorKind::Interrupted]).await, (Duration::ZERO, 2));
        assert_eq!(after(&[ErrorKind::OutOfMemory; 3]).await, (3 * PAUSE, 3));
    }

    /// Once, four listeners wrote forty lines a second.
    #[tokio::test(start_paused = true)]
    async fn what_is_lacking_is_told_once_an_episode() {
        let lacked = Mutex::new(None);
        let mut told = 0;
        for _ in 0..100 {
            told += u32::from(begins_episode(&lacked));
            tokio::time::advance(PAUSE).await;
        }
        assert_eq!(told, 1);
        tokio::time::advance(EPISODE).await;
        assert!(begins_episode(&lacked));
    }

    #[tokio::test(start_paused = true)]
    async fn with_every_place_taken_nobody_is_accepted() {
        let places = Arc::new(Semaphore::new(1));
        let connect = || within(&places, || async { Ok(()) }, || ());
        let ((), first) = connect().await;
        assert!(tokio::time::timeout(PAUSE, connect()).await.is_err());
        drop(first);
        drop(connect().await);
    }
}
