//! The places among `bounds.connections`, and who gives one up when all are taken: whoever has been idle longest.
//!
//! Opening and closing a connection takes the lock once; requests never do. Only a newcomer that finds no place looks at
//! the connections, and then remembers the longest idle of them for the newcomers after it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::downstream::deadlines::Deadlines;

/// The places of all connections.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    seated: Mutex<Seated>,
}

#[derive(Debug, Default)]
struct Seated {
    next: u64,
    connections: HashMap<u64, Connection>,
    /// The longest idle when they were last looked at, the longest last: since when, and which.
    longest: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Connection {
    deadlines: Arc<Deadlines>,
    close: CancellationToken,
}

impl Places {
    /// So many places, all free.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(count)), seated: Mutex::default() })
    }

    /// A place, if one is free.
    pub fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits for a place. Where none is free the longest idle connection is asked to close. Cancel-safe.
    pub async fn take(&self) -> OwnedSemaphorePermit {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            let patience = if self.close_longest_idle() { TO_CLOSE } else { TO_BECOME_IDLE };
            let free = Arc::clone(&self.free).acquire_owned();
            if let Ok(place) = tokio::time::timeout(patience, free).await {
                return place.expect("the semaphore is never closed");
            }
        }
    }

    /// Notes that a connection may be asked, by `close`, to make room while it is idle. Until the seat is dropped.
    pub fn seat(self: &Arc<Self>, deadlines: &Arc<Deadlines>, close: CancellationToken) -> Seat {
        let mut seated = self.seated.lock();
        let number = seated.next;
        seated.next += 1;
        seated.connections.insert(number, Connection { deadlines: Arc::clone(deadlines), close });
        drop(seated);
        Seat { places: Arc::clone(self), number }
    }

    /// Asks the longest idle connection to close; whether there was one.
    fn close_longest_idle(&self) -> bool {
        let mut seated = self.seated.lock();
        if seated.close_next() {
            return true;
        }
        seated.look();
        seated.close_next()
    }
}

impl Seated {
    fn close_next(&mut self) -> bool {
        while let Some((since, number)) = self.longest.pop() {
            let Some(connection) = self.connections.get(&number) else { continue };
            if connection.deadlines.idle_since() == Some(since) && !connection.close.is_cancelled() {
                connection.close.cancel();
                return true;
            }
        }
        false
    }

    fn look(&mut self) {
        let idle = self.connections.iter().filter(|(_, connection)| !connection.close.is_cancelled());
        let mut idle: Vec<(u64, u64)> = idle
            .filter_map(|(number, connection)| Some((connection.deadlines.idle_since()?, *number)))
            .collect();
        if idle.len() > REMEMBERED {
            idle.select_nth_unstable(REMEMBERED);
            idle.truncate(REMEMBERED);
        }
        idle.sort_unstable_by(|one, other| other.cmp(one));
        self.longest = idle;
    }
}

/// A connection's entry among those that may be asked to close.
#[derive(Debug)]
pub struct Seat {
    places: Arc<Places>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.seated.lock().connections.remove(&self.number);
    }
}

/// Until another connection is asked, beside one that has been asked and is not closed yet.
const TO_CLOSE: Duration = Duration::from_secs(1);
/// Until it is looked again, where all were busy.
const TO_BECOME_IDLE: Duration = Duration::from_millis(100);
/// Idle connections that one look at all of them finds: so many newcomers share its cost.
const REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        downstream::deadlines::{InFlight, Protocol},
    };

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_makes_room_and_the_busy_never() {
        let (clock, places) = (Clock::system(), Places::new(3));
        let mut connections = Vec::new();
        for _ in 0..3 {
            let deadlines = Deadlines::new(&clock, Protocol::Http2, Duration::from_secs(90));
            let close = CancellationToken::new();
            let seat = places.seat(&deadlines, close.clone());
            connections.push((places.try_take().unwrap(), deadlines, close, seat));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let busy = InFlight::begin(Arc::clone(&connections[0].1));
        let newcomer = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        let asked: Vec<bool> = connections.iter().map(|(_, _, close, _)| close.is_cancelled()).collect();
        assert_eq!(asked, [false, true, false]);
        drop(connections.remove(1));
        let _place = newcomer.await.unwrap();
        // Its request over, the first is the newest idle.
        drop(busy);
        assert!(tokio::time::timeout(Duration::from_millis(10), places.take()).await.is_err());
        let asked: Vec<bool> = connections.iter().map(|(_, _, close, _)| close.is_cancelled()).collect();
        assert_eq!(asked, [false, true]);
    }
}
