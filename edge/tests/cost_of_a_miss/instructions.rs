//! How many instructions a pass and a stored miss cost, counted by valgrind's callgrind as in `cost_of_a_hit`: for whoever
//! changes them, and without a bound, since the debug build has none worth keeping.

use std::env;

use crate::{
    ask,
    upstream::{self, Kind, Scene, request},
};

/// What is run under valgrind: so many of these after some that warm up.
#[test]
fn passes_to_be_counted() {
    counted(Kind::Pass);
}

#[test]
fn stored_misses_to_be_counted() {
    counted(Kind::Store);
}

fn counted(kind: Kind) {
    let count = env::var("GATEHOUSE_MISSES").map_or(1, |misses| misses.parse().unwrap());
    ask(&upstream::runtime(), &Scene::new(kind), (0..count).map(|number| request(kind, number)).collect());
}
