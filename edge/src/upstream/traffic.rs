//! How many requests are under way to an address, whichever settings sent them there: pools come and go with their servers
//! and with reloads, and an instance that is to stop first finishes what it was asked.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, JoinAll, MaybeDone, join_all, maybe_done};
use parking_lot::Mutex;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    address::Address,
    places::{FairPlaces, WaitingLine},
};

/// The places for requests of all pools that there are, and of those that are gone while a request has one.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<Vec<CountedPlaces>>);

/// The places at one server.
#[derive(Debug)]
struct CountedPlaces {
    address: Address,
    all: usize,
    /// Held by the pool, and by each request that has a place.
    free: Weak<Semaphore>,
    line: Weak<WaitingLine>,
}

impl Traffic {
    /// Counts these places from now on, and those who wait for them.
    pub fn count(&self, address: &Address, places: &FairPlaces, line: &Arc<WaitingLine>) {
        let mut counted = self.0.lock();
        counted.retain(|places| places.free.strong_count() > 0);
        counted.push(CountedPlaces {
            address: address.clone(),
            all: places.all(),
            free: Arc::downgrade(places.free()),
            line: Arc::downgrade(line),
        });
    }

    /// Requests that have a place at this address, and the places of those that are held. Those that wait for one do so while all
    /// are taken; tunnels and event streams, which end when they like, have places of their own.
    pub fn under_way(&self, address: &Address) -> usize {
        let counted = self.0.lock();
        let here = counted.iter().filter(|places| places.address == *address);
        here.filter_map(|places| Some(places.all.saturating_sub(places.free.upgrade()?.available_permits())))
            .sum()
    }

    /// Keeps the requests waiting that come to this address from now on, for as long as the answer is kept: none, where that might
    /// have one refused.
    pub fn hold(&self, address: &Address) -> HeldTraffic {
        let counted = self.0.lock();
        let here = counted.iter().filter(|places| places.address == *address);
        let (mut doors, mut lines) = (Vec::new(), Vec::new());
        for places in here {
            lines.extend(places.line.upgrade());
            let Some(free) = places.free.upgrade() else { continue };
            // Whoever waits for all of them is served in turn: who comes later waits behind.
            let all = u32::try_from(places.all).unwrap_or(u32::MAX);
            doors.push(free.acquire_many_owned(all).boxed());
        }
        drop(counted);
        // Where some wait already, who comes last might wait for too long.
        let longest = |line: &Arc<WaitingLine>| match line.waiting() {
            0 => line.longest_held,
            _ => Duration::ZERO,
        };
        let until = Instant::now() + lines.iter().map(longest).fold(LONGEST_HELD, Duration::min);
        let mut held = HeldTraffic { doors: maybe_done(join_all(doors)), lines, until };
        // The doors close with the first look.
        if !held.is_long_enough() {
            held.unused().now_or_never();
        }
        held
    }
}

/// Requests that are kept waiting, until this is dropped.
pub struct HeldTraffic {
    doors: MaybeDone<JoinAll<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>>,
    lines: Vec<Arc<WaitingLine>>,
    until: Instant,
}

impl HeldTraffic {
    /// Waits until none is under way that came before.
    pub async fn unused(&mut self) {
        (&mut self.doors).await;
    }

    /// Whether to let them go, so that none is refused or gives up for having been held: so many wait that those who come now
    /// would be refused soon, or half of their patience is over.
    pub fn is_long_enough(&self) -> bool {
        Instant::now() >= self.until || self.lines.iter().any(|line| line.is_crowded())
    }
}

/// No request is held for longer, however patient: a server that goes on accepting on purpose stops nobody for longer than that.
const LONGEST_HELD: Duration = Duration::from_millis(750);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OverloadControl;

    const PATIENT: Duration = Duration::from_secs(60);

    fn counted(traffic: &Traffic, address: &Address, all: usize) -> (FairPlaces, Arc<WaitingLine>) {
        in_line(traffic, address, (all, WaitingLine::new(8, PATIENT, OverloadControl::Off)))
    }

    fn in_line(
        traffic: &Traffic,
        address: &Address,
        (all, line): (usize, WaitingLine),
    ) -> (FairPlaces, Arc<WaitingLine>) {
        let line = Arc::new(line);
        let places = FairPlaces::new(all);
        traffic.count(address, &places, &line);
        (places, line)
    }

    #[test]
    fn a_request_counts_until_it_ends_though_its_pool_is_gone() {
        let traffic = Traffic::default();
        let [here, there] = [1, 2].map(|port| Address::Socket(([127, 0, 0, 1], port).into()));
        let (one, two) = (counted(&traffic, &here, 3), counted(&traffic, &here, 1));
        let first = one.0.try_take(None).unwrap();
        let second = two.0.try_take(None).unwrap();
        assert_eq!((traffic.under_way(&here), traffic.under_way(&there)), (2, 0));
        drop(one);
        assert_eq!(traffic.under_way(&here), 2);
        drop(first);
        assert_eq!(traffic.under_way(&here), 1);
        drop((second, two));
        let _there = counted(&traffic, &there, 1);
        assert_eq!((traffic.under_way(&here), traffic.0.lock().len()), (0, 1), "nothing of it is left");
    }

    #[test]
    fn who_comes_while_requests_are_held_waits_and_those_before_end() {
        let traffic = Traffic::default();
        let [here, there] = [1, 2].map(|port| Address::Socket(([127, 0, 0, 1], port).into()));
        let (one, other) = (counted(&traffic, &here, 3).0, counted(&traffic, &here, 2).0);
        let elsewhere = counted(&traffic, &there, 1).0;
        let (first, second) = (one.try_take(None), other.try_take(None));
        let mut held = traffic.hold(&here);
        assert!(!held.is_long_enough());
        assert!(one.try_take(None).is_none() && other.try_take(None).is_none());
        assert!(elsewhere.try_take(None).is_some());
        let mut waits = Box::pin(one.take(None));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(first);
        assert!(held.unused().now_or_never().is_none(), "one is under way");
        assert!(waits.as_mut().now_or_never().is_none());
        drop(second);
        assert!(held.unused().now_or_never().is_some() && held.unused().now_or_never().is_some());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(held);
        assert!(waits.now_or_never().is_some() && other.try_take(None).is_some());
    }

    #[test]
    fn nobody_is_held_who_would_be_refused_or_give_up_for_it() {
        let (off, adaptive) = (OverloadControl::Off, OverloadControl::Adaptive);
        for (most, patience, overload) in
            [(8, Duration::ZERO, off), (1, PATIENT, off), (0, PATIENT, off), (8, PATIENT, adaptive)]
        {
            let (traffic, here) = (Traffic::default(), Address::Socket(([127, 0, 0, 1], 1).into()));
            let (places, _line) = in_line(&traffic, &here, (3, WaitingLine::new(most, patience, overload)));
            let held = traffic.hold(&here);
            assert!(held.is_long_enough() && places.try_take(None).is_some(), "{most}, {patience:?}");
        }
    }

    #[test]
    fn nobody_is_held_where_some_wait_or_once_the_line_is_long() {
        let (traffic, here) = (Traffic::default(), Address::Socket(([127, 0, 0, 1], 1).into()));
        let (places, line) = counted(&traffic, &here, 3);
        let held = traffic.hold(&here);
        assert!(!held.is_long_enough() && places.try_take(None).is_none());
        let waiting: Vec<_> = (0..4).map(|_| line.enter()).collect();
        assert!(held.is_long_enough(), "half of the line");
        drop((held, waiting));
        let _one = line.enter();
        let held = traffic.hold(&here);
        assert!(held.is_long_enough() && places.try_take(None).is_some());
    }
}
