//! Which server takes a request: a pure function of the state of each, and of chance.
//!
//! Of two servers drawn by lot the one with fewer requests under way: as good as the least busy of all, but who looks idle
//! because it fails at once cannot draw everything.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// It was put aside, its time is over, and this request may find out whether it answers again.
    Due,
    /// It is put aside because it did not answer properly.
    Aside,
    /// It is put aside because no connection could be made.
    Unreachable,
}

/// The state of one server when a request has to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// This request has already been tried there.
    pub tried: bool,
    pub standing: Standing,
    /// Thousandths of requests under way, with the burden of its failures.
    pub load: u64,
}

/// The server for a request: one that is due for a trial before all, else a good one. `None` when every server has been
/// tried.
///
/// Where fewer than half are good, those that take connections are asked too: else what ails all of them at times would put
/// all requests on the few that are left. What is put aside is asked when nothing else is left.
pub fn choose(candidates: &[Candidate], random: u64) -> Option<usize> {
    let untried = |index: &usize| !candidates[*index].tried;
    let standing = |index: usize| candidates[index].standing;
    let all = 0..candidates.len();
    if let Some(due) = all.clone().filter(untried).find(|index| standing(*index) == Standing::Due) {
        return Some(due);
    }
    let good = all.clone().filter(|index| matches!(standing(*index), Standing::Good | Standing::Due)).count();
    let most_are_aside = good * 2 < candidates.len();
    let open = |index: &usize| match standing(*index) {
        Standing::Good => true,
        Standing::Aside => most_are_aside,
        Standing::Due | Standing::Unreachable => false,
    };
    let load = |index: &usize| candidates[*index].load;
    let aside = |index: &usize| standing(*index) == Standing::Aside;
    less_loaded(&all.clone().filter(untried).filter(open), load, random)
        .or_else(|| less_loaded(&all.clone().filter(untried).filter(aside), load, random))
        .or_else(|| less_loaded(&all.filter(untried), load, random))
}

/// Of two drawn by lot the less loaded; of equals the first drawn.
fn less_loaded(
    servers: &(impl Iterator<Item = usize> + Clone),
    load: impl Fn(&usize) -> u64,
    random: u64,
) -> Option<usize> {
    let count = servers.clone().count() as u64;
    let first = (random >> 32).checked_rem(count)?;
    let Some(skip) = (random & 0xffff_ffff).checked_rem(count - 1) else { return servers.clone().next() };
    let second = (first + 1 + skip) % count;
    let at = |place: u64| servers.clone().nth(place as usize);
    [at(first)?, at(second)?].into_iter().min_by_key(load)
}

/// Chance: a sequence that differs from upstream to upstream and from start to start (SplitMix64).
#[derive(Debug)]
pub struct Chance(AtomicU64);

impl Default for Chance {
    fn default() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one("chance")))
    }
}

impl Chance {
    /// The next number.
    pub fn next(&self) -> u64 {
        let mut number = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Candidate = Candidate { tried: false, standing: Standing::Good, load: 0 };
    const TRIED: Candidate = Candidate { tried: true, ..FREE };

    fn standing(standing: Standing) -> Candidate {
        Candidate { standing, ..FREE }
    }

    fn busy(load: u64) -> Candidate {
        Candidate { load, ..FREE }
    }

    /// How often each is chosen of 12,000 times.
    fn shares(servers: &[Candidate]) -> Vec<usize> {
        let chance = Chance(AtomicU64::new(7));
        let mut shares = vec![0; servers.len()];
        for _ in 0..12_000 {
            shares[choose(servers, chance.next()).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn equals_share_alike() {
        assert!(shares(&[FREE; 3]).iter().all(|share| (3_700..4_300).contains(share)));
    }

    #[test]
    fn the_busier_of_two_is_not_chosen() {
        assert_eq!(shares(&[busy(2), busy(1)]), [0, 12_000]);
        // The idlest of four wins whenever it is drawn: half of the time, and no more.
        let idlest = shares(&[busy(9), busy(9), busy(9), busy(0)])[3];
        assert!((5_700..6_300).contains(&idlest), "{idlest}");
    }

    #[test]
    fn the_tried_are_never_chosen_again() {
        assert_eq!(shares(&[TRIED, FREE, TRIED]), [0, 12_000, 0]);
        assert_eq!(choose(&[TRIED], 0), None);
        assert_eq!(choose(&[], 0), None);
    }

    #[test]
    fn who_is_put_aside_gets_nothing_while_half_are_good() {
        let (aside, dead) = (standing(Standing::Aside), standing(Standing::Unreachable));
        assert_eq!(shares(&[aside, busy(9)]), [0, 12_000]);
        assert_eq!(shares(&[dead, busy(9)]), [0, 12_000]);
        assert_eq!(shares(&[dead, dead, dead, busy(9)]), [0, 0, 0, 12_000], "nobody is there to help");
    }

    #[test]
    fn where_fewer_than_half_are_good_those_that_take_connections_help() {
        let aside = standing(Standing::Aside);
        assert!(shares(&[aside, aside, FREE]).iter().all(|share| (3_700..4_300).contains(share)));
    }

    #[test]
    fn what_is_put_aside_is_the_last_resort() {
        let (aside, dead) = (standing(Standing::Aside), standing(Standing::Unreachable));
        assert_eq!(choose(&[dead], 5), Some(0));
        assert_eq!(shares(&[aside, TRIED]), [12_000, 0]);
        assert_eq!(shares(&[dead, aside, TRIED, TRIED]), [0, 12_000, 0, 0]);
    }

    #[test]
    fn who_is_due_is_tried_first() {
        assert_eq!(shares(&[FREE, Candidate { load: 9, ..standing(Standing::Due) }]), [0, 12_000]);
    }
}
