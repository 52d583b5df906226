//! Which server takes a request: a pure function of the state of each, of what the request has, and of chance.
//!
//! By default of two servers drawn by lot the one with fewer requests under way: as good as the least busy of all, but who
//! looks idle because it fails at once cannot draw everything.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use smallvec::SmallVec;

use crate::message::affinity::mixed;

/// As many as most upstreams have servers, without room of their own elsewhere.
pub type Few<T> = SmallVec<[T; 8]>;

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// It was put aside, its time is over, and this request may find out whether it answers again.
    Due,
    /// It is put aside, or down, because it did not answer properly.
    Aside,
    /// It is put aside, or down, because no connection could be made.
    Unreachable,
}

/// The state of one server when a request has to be sent.
#[derive(Clone, Copy, Debug)]
pub struct ServerFacts {
    /// This request has already been tried there.
    pub tried: bool,
    pub standing: Standing,
    /// Thousandths of requests under way, with the burden of its failures.
    pub load: u64,
    /// Its share beside those of the others, in thousandths of its `weight`: less while it is coming back.
    pub weight: u64,
    /// Whether it is asked only while no other is good.
    pub backup: bool,
    /// A number of its own, the same in every edge and after every start.
    pub id: u64,
}

/// What decides between servers that are as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Two drawn by lot with this number; the less loaded.
    TwoChoices(u64),
    /// The one whose turn this is.
    Turn(u64),
    /// Always the same one for this hash, unless it has more than `BOUND` of its share to do (bounded loads).
    Hash(u64),
    /// The one of this id; two drawn by lot where it is not good.
    Stick { id: u64, random: u64 },
}

/// The server for a request: one that is due for a trial before all, else a good one. `None` when every server has been
/// tried.
///
/// Where fewer than half are good, those that take connections are asked too: else what ails all of them at times would put
/// all requests on the few that are left. Backups are asked while none of the others is good. What is put aside is asked when
/// nothing else is left.
pub fn choose(servers: &[ServerFacts], draw: Draw) -> Option<usize> {
    let untried = |index: &usize| !servers[*index].tried;
    let standing = |index: usize| servers[index].standing;
    let all = 0..servers.len();
    if let Draw::Stick { id, .. } = draw
        && let Some(same) = all.clone().filter(untried).find(|index| servers[*index].id == id)
        && standing(same) == Standing::Good
    {
        // Who is bound to a good server is nobody's trial.
        return Some(same);
    }
    let primary = |index: &usize| !servers[*index].backup;
    let primaries = all.clone().filter(primary);
    let is_good = |index: &usize| matches!(standing(*index), Standing::Good | Standing::Due);
    let good = primaries.clone().filter(is_good).count();
    let is_due = |index: &usize| standing(*index) == Standing::Due && (primary(index) || good == 0);
    if let Some(due) = all.clone().filter(untried).find(is_due) {
        return Some(due);
    }
    let most_are_aside = good * 2 < primaries.clone().count();
    let open = |index: &usize| match standing(*index) {
        Standing::Good => true,
        Standing::Aside => most_are_aside && good > 0,
        Standing::Due | Standing::Unreachable => false,
    };
    let is_aside = |index: &usize| standing(*index) == Standing::Aside;
    let drawn = |group: &dyn Fn(&usize) -> bool| {
        let group: Few<usize> = all.clone().filter(untried).filter(|index| group(index)).collect();
        drawn_of(servers, &group, draw)
    };
    drawn(&|index| primary(index) && open(index))
        .or_else(|| drawn(&|index| !primary(index) && standing(*index) == Standing::Good))
        .or_else(|| drawn(&is_aside))
        .or_else(|| drawn(&|_| true))
}

fn drawn_of(servers: &[ServerFacts], group: &[usize], draw: Draw) -> Option<usize> {
    match (group, draw) {
        ([], _) => None,
        ([only], _) => Some(*only),
        (_, Draw::TwoChoices(random)) => less_loaded(servers, group, random),
        (_, Draw::Turn(turn)) => {
            // Multiples of the golden ratio fall evenly between one another, so that those of a heavy server do not come in
            // a row.
            let place = (u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(total(servers, group))) >> 64;
            by_lot(servers, group, place as u64)
        }
        (_, Draw::Hash(hash)) => within_its_share(servers, group, hash),
        (_, Draw::Stick { id, random }) => {
            let same = group.iter().copied().find(|index| servers[*index].id == id);
            same.or_else(|| less_loaded(servers, group, random))
        }
    }
}

fn total(servers: &[ServerFacts], group: &[usize]) -> u64 {
    group.iter().map(|index| servers[*index].weight.max(1)).sum()
}

/// The one on whose share of all weights this place lies.
fn by_lot(servers: &[ServerFacts], group: &[usize], mut place: u64) -> Option<usize> {
    let weight = |index: usize| servers[index].weight.max(1);
    for index in group {
        match place.checked_sub(weight(*index)) {
            Some(rest) => place = rest,
            None => return Some(*index),
        }
    }
    group.last().copied()
}

/// Of two drawn by lot the less loaded for its weight; of equals the first drawn.
fn less_loaded(servers: &[ServerFacts], group: &[usize], random: u64) -> Option<usize> {
    let share = |part: u64, of: u64| ((u128::from(part) * u128::from(of)) >> 32) as u64;
    let first = by_lot(servers, group, share(random >> 32, total(servers, group)))?;
    let others: Few<usize> = group.iter().copied().filter(|index| *index != first).collect();
    let second = by_lot(servers, &others, share(random & 0xffff_ffff, total(servers, &others)))?;
    let load = |index: usize, other: usize| {
        u128::from(servers[index].load) * u128::from(servers[other].weight.max(1))
    };
    Some(if load(second, first) < load(first, second) { second } else { first })
}

/// Rendezvous hashing by weight, where each server takes at most [`BOUND`] of its share of the load: a server that goes or
/// comes moves only its own, and what everybody asks for does not crush one server.
fn within_its_share(servers: &[ServerFacts], group: &[usize], hash: u64) -> Option<usize> {
    let (load, weights) =
        (group.iter().map(|index| servers[*index].load).sum::<u64>() + 1_000, total(servers, group));
    let has_room = |index: usize| {
        let share = u128::from(load) * u128::from(servers[index].weight.max(1)) / u128::from(weights);
        // A few requests always have room, or those of one page would part as soon as there are two.
        u128::from(servers[index].load) < (share * u128::from(BOUND) / 100).max(ROOM)
    };
    let score = |index: usize| {
        // A number between 0 and 1 of this server and this hash; the highest of weight / -ln(number) wins.
        let number = (mixed(hash ^ servers[index].id) >> 11) as f64 / (1_u64 << 53) as f64;
        servers[index].weight.max(1) as f64 / -number.max(f64::MIN_POSITIVE).ln()
    };
    let best = |group: &mut dyn Iterator<Item = usize>| {
        group.map(|index| (score(index), index)).max_by(|one, other| one.0.total_cmp(&other.0))
    };
    best(&mut group.iter().copied().filter(|index| has_room(*index)))
        .or_else(|| best(&mut group.iter().copied()))
        .map(|(_, index)| index)
}

/// Chance: a sequence that differs from upstream to upstream and from start to start (SplitMix64), and whose turn it is.
#[derive(Debug)]
pub struct Chance {
    random: AtomicU64,
    turn: AtomicU64,
}

impl Default for Chance {
    fn default() -> Self {
        let seed = RandomState::new().hash_one("chance");
        Self { random: AtomicU64::new(seed), turn: AtomicU64::new(seed >> 32) }
    }
}

impl Chance {
    /// The next number.
    pub fn next(&self) -> u64 {
        mixed(self.random.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN))
    }

    /// The next turn.
    pub fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// What a server takes of what hashes to it however little the others have to do, in thousandths of requests.
const ROOM: u128 = 16_000;
/// The most that a server takes of its share, in percent.
const BOUND: u64 = 125;

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: ServerFacts =
        ServerFacts { tried: false, standing: Standing::Good, load: 0, weight: 1_000, backup: false, id: 0 };
    const TRIED: ServerFacts = ServerFacts { tried: true, ..FREE };

    fn standing(standing: Standing) -> ServerFacts {
        ServerFacts { standing, ..FREE }
    }

    fn busy(load: u64) -> ServerFacts {
        ServerFacts { load, ..FREE }
    }

    /// How often each is chosen of 12,000 times.
    fn shares(servers: &[ServerFacts]) -> Vec<usize> {
        let chance = Chance { random: AtomicU64::new(7), turn: AtomicU64::new(0) };
        shares_by(servers, || Draw::TwoChoices(chance.next()))
    }

    fn shares_by(servers: &[ServerFacts], mut draw: impl FnMut() -> Draw) -> Vec<usize> {
        let mut shares = vec![0; servers.len()];
        for _ in 0..12_000 {
            shares[choose(servers, draw()).unwrap()] += 1;
        }
        shares
    }

    fn weighing(weight: u64) -> ServerFacts {
        ServerFacts { weight: weight * 1_000, ..FREE }
    }

    fn backup(standing: Standing) -> ServerFacts {
        ServerFacts { backup: true, standing, ..FREE }
    }

    fn ids<const N: usize>(servers: [ServerFacts; N]) -> [ServerFacts; N] {
        let mut id = 0;
        servers.map(|server| {
            id += 1;
            ServerFacts { id: mixed(id), ..server }
        })
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
        assert_eq!(choose(&[TRIED], Draw::TwoChoices(0)), None);
        assert_eq!(choose(&[], Draw::TwoChoices(0)), None);
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
        assert_eq!(choose(&[dead], Draw::TwoChoices(5)), Some(0));
        assert_eq!(shares(&[aside, TRIED]), [12_000, 0]);
        assert_eq!(shares(&[dead, aside, TRIED, TRIED]), [0, 12_000, 0, 0]);
    }

    #[test]
    fn who_is_due_is_tried_first() {
        assert_eq!(shares(&[FREE, ServerFacts { load: 9, ..standing(Standing::Due) }]), [0, 12_000]);
    }

    #[test]
    fn who_weighs_more_gets_more() {
        // Nobody is busy: the first drawn wins, by lot. Busy in proportion, so is the load.
        let idle = shares(&[weighing(1), weighing(3)]);
        assert!((2_700..3_300).contains(&idle[0]), "{idle:?}");
        let busy = |weight: u64, load: u64| ServerFacts { load, ..weighing(weight) };
        assert_eq!(shares(&[busy(1, 1_000), busy(3, 2_000)]), [0, 12_000]);
    }

    #[test]
    fn turns_are_taken_by_weight_and_evenly() {
        let mut turn = 0;
        let mut next = || {
            turn += 1;
            Draw::Turn(turn)
        };
        let servers = [weighing(1), weighing(3)];
        let shares = shares_by(&servers, &mut next);
        assert!((2_950..3_050).contains(&shares[0]), "{shares:?}");
        let order: Vec<usize> = (0..12).map(|_| choose(&servers, next()).unwrap()).collect();
        assert!(order.windows(6).all(|window| window.contains(&0)), "{order:?}");
    }

    #[test]
    fn a_hash_stays_with_its_server_and_one_that_goes_moves_only_its_own() {
        let servers = ids([FREE; 4]);
        let mut without = servers;
        without[2].standing = Standing::Unreachable;
        let hashes = || (0..2_000).map(mixed);
        let of = |servers: &[ServerFacts], hash| choose(servers, Draw::Hash(hash)).unwrap();
        let mut each = [0; 4];
        for hash in hashes() {
            let server = of(&servers, hash);
            each[server] += 1;
            assert_eq!(server, of(&servers, hash));
            if server != 2 {
                assert_eq!(of(&without, hash), server);
            }
        }
        assert!(each.iter().all(|share| (400..600).contains(share)), "{each:?}");
    }

    #[test]
    fn a_server_with_a_quarter_more_than_its_share_passes_on_what_hashes_to_it() {
        let mut servers = ids([FREE; 4]);
        let hash = (0..).map(mixed).find(|hash| choose(&servers, Draw::Hash(*hash)) == Some(1)).unwrap();
        servers[1].load = 12_000;
        assert_eq!(choose(&servers, Draw::Hash(hash)), Some(1), "a few always have room");
        for server in &mut servers {
            server.load = 40_000;
        }
        servers[1].load = 50_000;
        assert_eq!(choose(&servers, Draw::Hash(hash)), Some(1));
        servers[1].load = 70_000;
        assert_ne!(choose(&servers, Draw::Hash(hash)), Some(1));
    }

    #[test]
    fn who_sticks_to_a_server_goes_there_while_it_is_good() {
        let mut servers = ids([FREE; 3]);
        servers[1].load = 9_000;
        let draw = Draw::Stick { id: servers[1].id, random: 7 };
        assert_eq!(choose(&servers, draw), Some(1));
        servers[1].standing = Standing::Aside;
        assert_ne!(choose(&servers, draw), Some(1));
    }

    #[test]
    fn who_sticks_to_a_good_server_is_no_trial_of_another() {
        let mut servers = ids([FREE; 3]);
        servers[0].standing = Standing::Due;
        assert_eq!(choose(&servers, Draw::Stick { id: servers[1].id, random: 7 }), Some(1));
        assert_eq!(choose(&servers, Draw::Stick { id: 99, random: 7 }), Some(0));
    }

    #[test]
    fn a_backup_is_tried_again_only_where_it_is_needed() {
        let dead = standing(Standing::Unreachable);
        assert_eq!(shares(&[FREE, backup(Standing::Due)]), [12_000, 0]);
        assert_eq!(shares(&[dead, backup(Standing::Due)]), [0, 12_000]);
    }

    #[test]
    fn backups_are_asked_while_none_of_the_others_is_good() {
        let (aside, dead) = (standing(Standing::Aside), standing(Standing::Unreachable));
        assert_eq!(shares(&[FREE, backup(Standing::Good)]), [12_000, 0]);
        assert_eq!(shares(&[dead, aside, FREE, backup(Standing::Good)])[3], 0);
        assert_eq!(shares(&[dead, aside, backup(Standing::Good)]), [0, 0, 12_000]);
        assert_eq!(shares(&[dead, aside, backup(Standing::Unreachable)]), [0, 12_000, 0]);
        assert_eq!(shares(&[TRIED, backup(Standing::Good)]), [0, 12_000], "a retry may use it");
    }
}
