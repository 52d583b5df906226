//! The places among `bounds.connections`, and who gives one up when all are taken: whoever has been idle longest.
//!
//! Opening and closing a connection takes the lock once; requests never do. Only a newcomer that finds no place looks at
//! the connections, and then remembers the longest idle of them for the newcomers after it.
//!
//! A reload changes how many places there are. Those that are taken away while connections hold them are a debt: idle
//! connections are asked to close for it, busy ones go on, and whoever closes pays before a newcomer gets its place.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::downstream::deadlines::Deadlines;

/// The places of all connections.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    /// Places that are held and no longer there: as many more are given back than may be taken again.
    debt: AtomicUsize,
    seated: Mutex<Seated>,
}

/// A connection's place. Dropped, it is free for the next.
#[derive(Debug)]
pub struct Place {
    permit: Option<OwnedSemaphorePermit>,
    places: Arc<Places>,
}

impl Place {
    /// Those of which it is one.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.places.pay(1) == 1
        {
            permit.forget();
        }
    }
}

#[derive(Debug, Default)]
struct Seated {
    next: u64,
    connections: HashMap<u64, Occupant>,
    /// Those of each client, where it is known: by its number and theirs.
    by_client: BTreeSet<(u128, u64)>,
    /// The longest idle when they were last looked at, the longest last: since when, and which.
    longest: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Occupant {
    deadlines: Arc<Deadlines>,
    close: CancellationToken,
    client: Option<u128>,
}

impl Places {
    /// So many places, all free.
    pub fn new(count: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(count));
        Arc::new(Self { free, debt: AtomicUsize::new(0), seated: Mutex::default() })
    }

    /// A place, if one is free.
    pub fn try_take(self: &Arc<Self>) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok().map(|permit| self.place(permit))
    }

    /// Waits for a place. Where none is free the longest idle connection is asked to close. Cancel-safe.
    pub async fn take(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            let patience = if self.close_longest_idle() { TO_CLOSE } else { TO_BECOME_IDLE };
            let free = Arc::clone(&self.free).acquire_owned();
            if let Ok(permit) = tokio::time::timeout(patience, free).await {
                return self.place(permit.expect("the semaphore is never closed"));
            }
        }
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        Place { permit: Some(permit), places: Arc::clone(self) }
    }

    /// So many places more.
    pub fn add(&self, count: usize) {
        let paid = self.pay(count);
        self.free.add_permits(count - paid);
    }

    /// So many places fewer: free ones at once, of the others those of idle connections next.
    pub fn take_away(&self, count: usize) {
        self.debt.fetch_add(count, Ordering::Relaxed);
        let forgotten = self.free.forget_permits(count);
        // Whoever has closed in the meantime may have paid for places that were free.
        let paid = self.pay(forgotten);
        self.free.add_permits(forgotten - paid);
        self.collect_debt();
    }

    /// Asks as many idle connections to close as there are places to be given up. To be called now and then: those that
    /// were busy become idle.
    pub fn collect_debt(&self) {
        for _ in 0..self.debt.load(Ordering::Relaxed) {
            if !self.close_longest_idle() {
                return;
            }
        }
    }

    /// Takes so many off the debt, or as many as it has; returns how many.
    fn pay(&self, count: usize) -> usize {
        let less = |debt: usize| (debt > 0).then(|| debt.saturating_sub(count));
        let before = self.debt.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.map_or(0, |debt| debt.min(count))
    }

    /// Notes that a connection, of this client where that is known, may be asked by `close` to make room while it is idle.
    /// Until the seat is dropped.
    pub fn seat(
        self: &Arc<Self>,
        deadlines: &Arc<Deadlines>,
        close: CancellationToken,
        client: Option<u128>,
    ) -> Seat {
        let mut seated = self.seated.lock();
        let number = seated.next;
        seated.next += 1;
        seated.connections.insert(number, Occupant { deadlines: Arc::clone(deadlines), close, client });
        seated.by_client.extend(client.map(|client| (client, number)));
        drop(seated);
        Seat { places: Arc::clone(self), number }
    }

    /// Asks the longest idle connection of a client to close; whether there was one. Costs what the client has.
    pub fn close_longest_idle_of(&self, client: u128) -> bool {
        let seated = self.seated.lock();
        let own = seated.by_client.range((client, 0)..=(client, u64::MAX));
        let idle = own.filter_map(|(_, number)| {
            let connection = seated.connections.get(number).filter(|one| !one.close.is_cancelled())?;
            Some((connection.deadlines.idle_since()?, &connection.close))
        });
        let longest = idle.min_by_key(|(since, _)| *since);
        longest.map(|(_, close)| close.cancel()).is_some()
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
        let mut seated = self.places.seated.lock();
        let client = seated.connections.remove(&self.number).and_then(|connection| connection.client);
        if let Some(client) = client {
            seated.by_client.remove(&(client, self.number));
        }
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
            let seat = places.seat(&deadlines, close.clone(), None);
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

    #[tokio::test(start_paused = true)]
    async fn places_taken_away_are_those_of_idle_connections_and_busy_ones_keep_theirs() {
        let (clock, places) = (Clock::system(), Places::new(4));
        let mut connections = Vec::new();
        for _ in 0..4 {
            let deadlines = Deadlines::new(&clock, Protocol::Http2, Duration::from_secs(90));
            let close = CancellationToken::new();
            let seat = places.seat(&deadlines, close.clone(), None);
            connections.push((places.try_take().unwrap(), deadlines, close, seat));
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        let _busy: Vec<_> = connections[..3]
            .iter()
            .map(|(_, deadlines, ..)| InFlight::begin(Arc::clone(deadlines)))
            .collect();
        places.take_away(3);
        let asked: Vec<bool> = connections.iter().map(|(_, _, close, _)| close.is_cancelled()).collect();
        assert_eq!(asked, [false, false, false, true]);
        // Three close, for the three places that are gone: nobody gets one of them.
        connections.truncate(1);
        assert!(places.try_take().is_none());
        drop(connections);
        assert!(places.try_take().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_all_it_may_gives_up_its_own_longest_idle() {
        let (clock, places) = (Clock::system(), Places::new(10));
        let mut connections = Vec::new();
        for client in [1, 2, 1, 1] {
            let deadlines = Deadlines::new(&clock, Protocol::Http2, Duration::from_secs(90));
            let close = CancellationToken::new();
            let seat = places.seat(&deadlines, close.clone(), Some(client));
            connections.push((deadlines, close, seat));
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        let busy = InFlight::begin(Arc::clone(&connections[0].0));
        assert!(places.close_longest_idle_of(1));
        let asked: Vec<bool> = connections.iter().map(|(_, close, _)| close.is_cancelled()).collect();
        assert_eq!(asked, [false, false, true, false]);
        assert!(places.close_longest_idle_of(1) && !places.close_longest_idle_of(1), "one is busy");
        assert!(!places.close_longest_idle_of(3));
        drop((connections, busy));
        assert!(places.seated.lock().by_client.is_empty());
    }

    #[tokio::test]
    async fn places_are_given_and_taken_while_they_are_held() {
        let places = Places::new(2);
        let held = [places.try_take().unwrap(), places.try_take().unwrap()];
        places.add(1);
        let third = places.try_take().unwrap();
        assert!(places.try_take().is_none());
        places.take_away(2);
        drop(third);
        assert!(places.try_take().is_none(), "three were held, and one is there");
        places.add(2);
        assert!(
            places.try_take().is_some() && held.len() == 2,
            "one is still owed, and paid by one of the two"
        );
        places.take_away(3);
        drop(held);
        assert!(places.try_take().is_none());
        places.add(1);
        assert!(places.try_take().is_some());
    }
}
