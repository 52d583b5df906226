//! How far this edge had heard the purges of all when a fetch began: Redis counts purges over all edges, this process counts
//! generations, and an offer says at which generation its fetch began.
//!
//! A pair says that whatever began at this generation or later began after this edge had heard so many purges. Bounded: what
//! began before the oldest pair is not offered.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::cache::purge::Generation;

#[derive(Debug, Default)]
pub(super) struct Positions(Mutex<VecDeque<(Generation, u64)>>);

impl Positions {
    /// What began at `generation` or later began after `heard` purges had been heard. Generations and numbers only grow.
    pub(super) fn note(&self, generation: Generation, heard: u64) {
        let mut pairs = self.0.lock();
        match pairs.back_mut() {
            Some((_, number)) if *number == heard => {}
            Some((last, number)) if *last == generation => *number = heard,
            _ => pairs.push_back((generation, heard)),
        }
        if pairs.len() > MOST {
            pairs.pop_front();
        }
    }

    /// Forgets all: the numbers count anew.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// How many purges had surely been heard when a fetch of this generation began.
    pub(super) fn at(&self, began: Generation) -> Option<u64> {
        let pairs = self.0.lock();
        let after = pairs.partition_point(|(generation, _)| *generation <= began);
        Some(pairs.get(after.checked_sub(1)?)?.1)
    }
}

/// A fetch lasts less long than so many purges, or is not offered.
const MOST: usize = 16 * 1024;
