//! A server's places for requests, and who may have how many of them.
//!
//! While fewer than half are taken they are for whoever comes, and nothing is counted. Then each client has a share of its
//! own, a sixteenth; what it asks for beyond that it gets from what is common, and an eighth is never common. So a client that asks for
//! a thousand answers and reads none leaves places to everybody else. Who fills all of them has many addresses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    message::client_shares::{ClientShare, ClientShares},
    settings::OverloadControl,
};

/// Places of one kind at one server.
#[derive(Debug)]
pub struct FairPlaces {
    all: usize,
    free: Arc<Semaphore>,
    /// `None` where there are too few to be shared out.
    crowd: Option<Crowd>,
}

/// What counts once half of the places are taken.
#[derive(Debug)]
struct Crowd {
    shares: Arc<ClientShares>,
    common: Arc<Semaphore>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct FairPlace {
    _place: OwnedSemaphorePermit,
    _account: Option<Box<Account>>,
}

/// What a place is counted as, beside being one.
#[derive(Debug)]
enum Account {
    Share { _share: ClientShare },
    Common { _permit: OwnedSemaphorePermit },
}

impl FairPlaces {
    /// So many.
    pub fn new(all: usize) -> Self {
        let crowd = (all >= FEWEST_SHARED).then(|| {
            let share = (all / 16).max(1);
            let common = all - all / 2 - share - all / 8;
            Crowd { shares: ClientShares::new(share), common: Arc::new(Semaphore::new(common)) }
        });
        Self { all, free: Arc::new(Semaphore::new(all)), crowd }
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        self.all
    }

    /// Those that nobody has.
    pub fn free(&self) -> &Arc<Semaphore> {
        &self.free
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.all - self.free.available_permits()
    }

    /// A place for this client, if it can have one now.
    pub fn try_take(&self, client: Option<u128>) -> Option<FairPlace> {
        let account = match self.counted(client) {
            None => None,
            Some((crowd, client)) => Some(Box::new(crowd.try_account(client)?)),
        };
        let place = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(FairPlace { _place: place, _account: account })
    }

    /// A place for this client, as soon as it can have one.
    pub async fn take(&self, client: Option<u128>) -> FairPlace {
        const NEVER_CLOSED: &str = "the semaphores are never closed";
        let account = match self.counted(client) {
            None => None,
            Some((crowd, client)) => Some(Box::new(match crowd.try_account(client) {
                Some(account) => account,
                None => {
                    let permit = Arc::clone(&crowd.common).acquire_owned().await.expect(NEVER_CLOSED);
                    Account::Common { _permit: permit }
                }
            })),
        };
        let place = Arc::clone(&self.free).acquire_owned().await.expect(NEVER_CLOSED);
        FairPlace { _place: place, _account: account }
    }

    /// Whether the client has what it may have now, and can only wait for what is common.
    pub fn is_over_its_share(&self, client: Option<u128>) -> bool {
        self.counted(client).is_some_and(|(crowd, client)| crowd.try_account(client).is_none())
    }

    /// Who keeps account, where it is kept now. A proxy that names no client is everybody.
    fn counted(&self, client: Option<u128>) -> Option<(&Crowd, u128)> {
        let crowd = self.crowd.as_ref()?;
        (self.free.available_permits() <= self.all - self.all / 2).then_some((crowd, client?))
    }
}

impl Crowd {
    fn try_account(&self, client: u128) -> Option<Account> {
        if let Some(share) = self.shares.try_take(client) {
            return Some(Account::Share { _share: share });
        }
        let permit = Arc::clone(&self.common).try_acquire_owned().ok()?;
        Some(Account::Common { _permit: permit })
    }
}

/// The requests that wait for a place at one server.
#[derive(Debug)]
pub struct WaitingLine {
    waiting: AtomicUsize,
    /// So many may.
    pub most: usize,
    /// And each so long.
    pub patience: Duration,
    /// For how long the server's traffic may be held, so that nobody is refused or gives up for it.
    pub longest_held: Duration,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    line: &'a WaitingLine,
    /// How many did when it came.
    pub before: usize,
}

impl WaitingLine {
    /// Nobody waits yet. What is held counts as under way, so where an overload is told by that nothing is.
    pub fn new(most: usize, patience: Duration, overload: OverloadControl) -> Self {
        let longest_held = match overload {
            OverloadControl::Off => patience / 2,
            OverloadControl::Adaptive => Duration::ZERO,
        };
        Self { waiting: AtomicUsize::new(0), most, patience, longest_held }
    }

    /// One more.
    pub fn enter(&self) -> Waiting<'_> {
        Waiting { line: self, before: self.waiting.fetch_add(1, Ordering::Relaxed) }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether those who come from now on might be refused soon.
    pub fn is_crowded(&self) -> bool {
        2 * (self.waiting() + 1) > self.most
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// With fewer places, shares would be a part of one.
const FEWEST_SHARED: usize = 8;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn taken(places: &FairPlaces, client: Option<u128>) -> Vec<FairPlace> {
        std::iter::from_fn(|| places.try_take(client)).collect()
    }

    #[test]
    fn one_client_leaves_an_eighth_of_the_places_to_others() {
        for (all, for_one) in [(256, 224), (128, 112), (16, 14), (8, 7), (7, 7), (1, 1)] {
            let places = FairPlaces::new(all);
            let of_one = taken(&places, Some(1));
            assert_eq!((of_one.len(), places.taken()), (for_one, for_one), "of {all}");
            let share = if all < 8 { 0 } else { (all / 16).max(1) };
            assert_eq!(taken(&places, Some(2)).len(), share, "another has its share");
            drop(of_one);
            assert_eq!(places.taken(), 0);
        }
    }

    #[test]
    fn many_clients_fill_all_places_and_whoever_names_no_client_is_many() {
        let places = FairPlaces::new(256);
        let of_many: Vec<_> = (0..300).map_while(|client| places.try_take(Some(client))).collect();
        assert_eq!(of_many.len(), 256);
        drop(of_many);
        assert_eq!(taken(&places, None).len(), 256);
    }

    /// What was taken while nobody counted is at most half of them, so that no order of coming and going gives one client more.
    #[test]
    fn whatever_comes_and_goes_one_client_never_has_more() {
        let places = FairPlaces::new(64);
        let mut of_one = Vec::new();
        for round in 0..200_usize {
            of_one.extend(taken(&places, Some(1)));
            assert!(of_one.len() <= 56, "{} in round {round}", of_one.len());
            for _ in 0..(round * 7) % 31 {
                of_one.swap_remove(round % of_one.len());
            }
        }
        assert!(places.try_take(Some(2)).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_what_is_common_keeps_nobody_else_waiting() {
        let places = FairPlaces::new(16);
        let mut of_one = taken(&places, Some(1));
        assert!(places.is_over_its_share(Some(1)) && !places.is_over_its_share(Some(2)));
        let mut waits = Box::pin(places.take(Some(1)));
        assert!(waits.as_mut().now_or_never().is_none());
        let other = places.take(Some(2)).now_or_never();
        assert!(other.is_some(), "a place was free for another");
        // The last of them is from what is common.
        of_one.pop();
        assert!(waits.now_or_never().is_some());
    }
}
