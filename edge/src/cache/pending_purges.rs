//! Purges that a tier has not acknowledged. The tier is not asked for any response that they may concern.
//!
//! With the order that [`super::tiers`] keeps, this makes "purge wins" hold for tiers too: a purge is noted here,
//! *then* stamped at the gate and swept from memory, *then* sent to the tier, and removed here when the tier has
//! acknowledged. A look-up takes its generation before it looks here. If it finds the purge, it does not ask the tier;
//! if it came before the note, its generation is older than the stamp, and what it brings is outdated; if it comes
//! after the acknowledgement, the tier has nothing old left.
//!
//! A purge that a tier did not acknowledge stays noted: the tier is out of step until a repeated purge is acknowledged.
//! Bounded: when there are too many, one purge of everything replaces them.
//!
//! The lock is a parameter, as the [`super::purge::Gate`]'s, so that an interleaving checker can run this very code.

use std::{sync::Arc, time::SystemTime};

use super::{
    locking::{Locking, ParkingLot},
    rule::{Force, Rule},
    rule_set::RuleSet,
    tier::{Hearing, Purge},
};

/// The purges that one tier has not acknowledged.
pub struct PendingPurges<L: Locking = ParkingLot> {
    noted: L::Mutex<PendingNotes>,
}

#[derive(Debug, Default)]
struct PendingNotes {
    last: u64,
    purges: Vec<Note>,
}

#[derive(Debug)]
struct Note {
    ticket: Ticket,
    purge: Arc<Purge>,
    /// What a look-up is asked costs its own key, however much the purge names.
    about: RuleSet,
    missed: bool,
}

/// Identifies a purge that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl<L: Locking> Default for PendingPurges<L> {
    fn default() -> Self {
        Self { noted: L::mutex(PendingNotes::default()) }
    }
}

impl<L: Locking> PendingPurges<L> {
    /// Notes a purge: from now on the tier is not asked for any response it may concern.
    pub fn begin(&self, purge: &Arc<Purge>) -> Ticket {
        let about = RuleSet::new(purge.rules.clone());
        L::locked(&self.noted, |noted| {
            let rules = noted.purges.iter().map(|note| note.purge.rules.len()).sum::<usize>();
            if noted.purges.len() >= MOST || rules >= MOST_RULES {
                let everything = Purge {
                    rules: vec![Rule::Everything],
                    force: Force::Hard,
                    at: SystemTime::UNIX_EPOCH,
                    hearing: Hearing::Everyone,
                };
                noted.last += 1;
                let ticket = Ticket(noted.last);
                let about = RuleSet::new(everything.rules.clone());
                noted.purges = vec![Note { ticket, purge: Arc::new(everything), about, missed: true }];
            }
            noted.last += 1;
            let ticket = Ticket(noted.last);
            noted.purges.push(Note { ticket, purge: Arc::clone(purge), about, missed: false });
            ticket
        })
    }

    /// Whether a purge that has not been acknowledged may concern this key, whatever the tags of the response stored
    /// there.
    pub fn concerns(&self, key: &str) -> bool {
        L::locked(&self.noted, |noted| noted.purges.iter().any(|note| note.about.may_concern(key)))
    }

    /// Removes a purge that the tier has acknowledged.
    pub fn acknowledged(&self, ticket: Ticket) {
        L::locked(&self.noted, |noted| noted.purges.retain(|note| note.ticket != ticket));
    }

    /// Keeps a purge that the tier has not acknowledged in time, to be repeated.
    pub fn missed(&self, ticket: Ticket) {
        L::locked(&self.noted, |noted| {
            if let Some(note) = noted.purges.iter_mut().find(|note| note.ticket == ticket) {
                note.missed = true;
            }
        });
    }

    /// The oldest purge to be repeated.
    pub fn oldest_missed(&self) -> Option<(Ticket, Arc<Purge>)> {
        L::locked(&self.noted, |noted| {
            let note = noted.purges.iter().find(|note| note.missed)?;
            Some((note.ticket, Arc::clone(&note.purge)))
        })
    }
}

impl<L: Locking> std::fmt::Debug for PendingPurges<L> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PendingPurges").finish_non_exhaustive()
    }
}

/// Purges noted at once. Each is asked about each look-up.
const MOST: usize = 128;
/// What all of them may name, beside one.
const MOST_RULES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(rule: Rule) -> Arc<Purge> {
        let (force, at, hearing) = (Force::Hard, SystemTime::UNIX_EPOCH, Hearing::Everyone);
        Arc::new(Purge { rules: vec![rule], force, at, hearing })
    }

    #[test]
    fn a_tier_is_left_alone_for_what_is_being_purged_until_it_acknowledges() {
        let underway = PendingPurges::<ParkingLot>::default();
        let one = underway.begin(&purge(Rule::Prefix("http://a/x".into())));
        assert!(underway.concerns("http://a/xy") && !underway.concerns("http://a/y"));
        underway.missed(one);
        assert!(underway.concerns("http://a/xy"));
        assert_eq!(underway.oldest_missed().unwrap().0, one);
        underway.acknowledged(one);
        assert!(!underway.concerns("http://a/xy") && underway.oldest_missed().is_none());
    }

    #[test]
    fn too_many_become_one_of_everything() {
        let underway = PendingPurges::<ParkingLot>::default();
        let tickets: Vec<_> =
            (0..=MOST).map(|number| underway.begin(&purge(Rule::Key(number.to_string().into())))).collect();
        for ticket in tickets {
            underway.acknowledged(ticket);
        }
        assert!(underway.concerns("http://a/"), "not all of them were the tier's to acknowledge");
        let (ticket, purge) = underway.oldest_missed().unwrap();
        assert_eq!(purge.rules, [Rule::Everything]);
        underway.acknowledged(ticket);
        assert!(!underway.concerns("http://a/"));
    }
}
