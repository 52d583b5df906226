//! An acknowledged purge holds at every edge: every state that the protocol of leases, log and epoch can come to is looked at
//! (docs/decisions/0016), with one edge that may stand still, one that purges, messages that take their time, and a Redis that
//! may lose everything.
//!
//! This is a model: the edge's own lease is the real [`EdgeStanding`], Redis and the two edges are written here as
//! `shared_cache/` has them, each step that Redis takes in one piece being one. Its claim in every state: **while the edge's
//! lease runs, it has heard every purge that was acknowledged.** That the search would find a hole is shown by protocols with
//! one: each is a rule left out.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use cache_policy::Moment;
use edge::cache::standing::EdgeStanding;

/// What an edge that says nothing is waited for, and what it trusts in itself, in ticks.
const LEASE: u8 = 3;
const OWN_LEASE: u8 = 2;
/// How many things are said, purged and lost in a story. It may last as long as it likes: what is longer ago than a lease is
/// the same as long ago.
const TURNS: u8 = 4;
const PURGES: u8 = 2;
const LOSSES: u8 = 1;
const LONG_AGO: u8 = LEASE + 1;

/// Which rules hold.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// The lease is counted from before the edge spoke, not from when it was answered.
    from_before: bool,
    /// It is granted when all that was purged by then has been heard.
    heard_first: bool,
    /// A purge of a new epoch waits until leases of the old one have run out.
    waits_for_old: bool,
    /// What an edge says is another thing each time.
    turns: bool,
    /// Who is to be struck off has said nothing since.
    unless_it_speaks: bool,
}

const ALL: Rules =
    Rules { from_before: true, heard_first: true, waits_for_old: true, turns: true, unless_it_speaks: true };

/// What the edge has said, as it lies in Redis.
type Said = (u8, u8);

/// What is on its way between the edge and Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Message {
    None,
    /// Said so long ago: turn, and how far it has heard, in which epoch.
    Going {
        ago: u8,
        said: Said,
        epoch: u8,
    },
    /// The answer: how many purges there were, in which epoch.
    Coming {
        ago: u8,
        seq: u8,
        epoch: u8,
    },
}

/// How far a purge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purge {
    None,
    /// What the edge had said when it was looked at first, and how long ago that was.
    Waits {
        seq: u8,
        epoch: u8,
        seen: Option<(Said, u8)>,
    },
    /// The edge is to be struck off, if it has still said no more.
    Strikes {
        seq: u8,
        epoch: u8,
        said: Said,
    },
    /// Everyone who is known has heard.
    Heard {
        epoch: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    // Redis.
    epoch: u8,
    seq: u8,
    edge: Option<Said>,
    message: Message,
    // The edge: the epoch that it knows, how far it has heard, its turn, and what is left of its lease.
    known: u8,
    heard: u8,
    turn: u8,
    said: u8,
    lease: u8,
    /// Up to which purge it has heard them, or has made up for their loss by doubting what it has.
    covered: u8,
    // The one that purges: the epoch that it knows, and for how long.
    purger: (u8, u8),
    purge: Purge,
    // The truth: purges in all, those acknowledged, and how often all was lost.
    purges: u8,
    acknowledged: u8,
    losses: u8,
    /// Purges before the last loss.
    before_loss: u8,
}

impl State {
    fn first() -> Self {
        Self {
            epoch: 1,
            seq: 0,
            edge: None,
            message: Message::None,
            known: 1,
            heard: 0,
            turn: 0,
            said: 0,
            lease: 0,
            covered: 0,
            // It has known this epoch for long.
            purger: (1, LONG_AGO),
            purge: Purge::None,
            purges: 0,
            acknowledged: 0,
            losses: 0,
            before_loss: 0,
        }
    }

    /// A purge by its number over all epochs.
    fn in_all(&self, epoch: u8, seq: u8) -> u8 {
        if epoch == 1 { seq } else { self.before_loss + seq }
    }

    fn holds(&self) -> bool {
        let standing = EdgeStanding::default();
        let moment = |tick: u8| Moment::from_epoch(Duration::from_secs(tick.into()));
        standing.grant(moment(self.lease));
        !standing.is_granted(moment(0)) || self.covered >= self.acknowledged
    }

    /// Time passes.
    fn pass(&mut self) {
        let older = |ago: &mut u8| *ago = LONG_AGO.min(*ago + 1);
        if let Message::Going { ago, .. } | Message::Coming { ago, .. } = &mut self.message {
            older(ago);
        }
        if let Purge::Waits { seen: Some((_, ago)), .. } = &mut self.purge {
            older(ago);
        }
        older(&mut self.purger.1);
        self.lease = self.lease.saturating_sub(1);
    }

    /// Whatever may happen next.
    fn next(&self, rules: Rules) -> Vec<Self> {
        let mut next = Vec::new();
        let mut may = |change: &dyn Fn(&mut Self)| {
            let mut state = self.clone();
            change(&mut state);
            next.push(state);
        };
        may(&|state| state.pass());
        if self.losses < LOSSES {
            may(&|state| {
                (state.losses, state.before_loss) = (state.losses + 1, state.purges);
                (state.epoch, state.seq, state.edge) = (state.epoch + 1, 0, None);
            });
        }
        match self.message {
            Message::None if self.said == TURNS => {}
            Message::None => may(&|state| {
                state.said += 1;
                state.turn += u8::from(rules.turns);
                let said = (state.turn, state.heard);
                state.message = Message::Going { ago: 0, said, epoch: state.known };
            }),
            Message::Going { ago, said, epoch } => may(&|state| {
                if epoch == state.epoch {
                    state.edge = Some(said);
                }
                state.message = Message::Coming { ago, seq: state.seq, epoch: state.epoch };
            }),
            Message::Coming { ago, seq, epoch } => {
                may(&|state| {
                    state.message = Message::None;
                    if epoch != state.known {
                        // It doubts all that it has, and ends its lease; the next that it says is of the new epoch.
                        (state.known, state.heard, state.lease) = (epoch, seq, 0);
                        state.covered = state.purges;
                        return;
                    }
                    let granted = OWN_LEASE.saturating_sub(if rules.from_before { ago } else { 0 });
                    if rules.heard_first || state.heard >= seq {
                        state.covered = state.covered.max(state.in_all(epoch, seq));
                        state.heard = state.heard.max(seq);
                    }
                    state.lease = state.lease.max(granted);
                });
            }
        }
        match self.purge {
            Purge::None if self.purges < PURGES => may(&|state| {
                // A script of another epoch does nothing; whoever purges learns of the new one, and purges then.
                if state.purger.0 != state.epoch {
                    state.purger = (state.epoch, 0);
                }
                (state.seq, state.purges) = (state.seq + 1, state.purges + 1);
                state.purge = Purge::Waits { seq: state.seq, epoch: state.epoch, seen: None };
            }),
            Purge::None => {}
            Purge::Waits { seq, epoch, seen } => may(&|state| {
                if epoch != state.epoch {
                    // It is told as not acknowledged.
                    state.purge = Purge::None;
                    return;
                }
                state.purge = match (state.edge, seen) {
                    (None, _) => Purge::Heard { epoch },
                    (Some((_, heard)), _) if heard >= seq => Purge::Heard { epoch },
                    (Some(said), Some((before, ago))) if said == before => {
                        if ago > LEASE {
                            Purge::Strikes { seq, epoch, said }
                        } else {
                            Purge::Waits { seq, epoch, seen }
                        }
                    }
                    (Some(said), _) => Purge::Waits { seq, epoch, seen: Some((said, 0)) },
                };
            }),
            Purge::Strikes { seq, epoch, said } => may(&|state| {
                if epoch == state.epoch && (!rules.unless_it_speaks || state.edge == Some(said)) {
                    state.edge = None;
                }
                state.purge = Purge::Waits { seq, epoch, seen: None };
            }),
            Purge::Heard { .. } => {
                let waited = !rules.waits_for_old || self.purger.1 > LEASE;
                if waited {
                    may(&|state| {
                        state.acknowledged = state.purges;
                        state.purge = Purge::None;
                    });
                }
            }
        }
        next
    }
}

/// Looks at every state; the number of them, or one in which the claim fails, with how it came to be.
fn search(rules: Rules) -> Result<usize, Vec<State>> {
    let mut seen = HashSet::from([State::first()]);
    let mut ways = vec![(State::first(), None)];
    let mut waiting = VecDeque::from([0]);
    while let Some(at) = waiting.pop_front() {
        let state = ways[at].0.clone();
        if !state.holds() {
            let mut way = vec![state];
            let mut from: Option<usize> = ways[at].1;
            while let Some(before) = from {
                way.push(ways[before].0.clone());
                from = ways[before].1;
            }
            way.reverse();
            return Err(way);
        }
        for next in state.next(rules) {
            if seen.insert(next.clone()) {
                ways.push((next, Some(at)));
                waiting.push_back(ways.len() - 1);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn while_a_lease_runs_every_acknowledged_purge_has_been_heard() {
    let states = search(ALL).unwrap_or_else(|way| panic!("{way:#?}"));
    assert!(states > 10_000, "{states} states: nothing was searched");
}

#[test]
fn each_rule_is_needed() {
    for broken in [
        Rules { from_before: false, ..ALL },
        Rules { heard_first: false, ..ALL },
        Rules { waits_for_old: false, ..ALL },
        Rules { turns: false, ..ALL },
        Rules { unless_it_speaks: false, ..ALL },
    ] {
        assert!(search(broken).is_err(), "{broken:?} does as well");
    }
}
