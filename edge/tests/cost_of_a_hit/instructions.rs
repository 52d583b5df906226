//! How many instructions a hit costs, counted by valgrind's callgrind: the same on every machine for one build, and so a
//! bound can be asserted where time cannot.
//!
//! This very program is run again under valgrind, to do so many hits and no more; the difference of two runs is what the
//! hits alone cost, less what it costs to make their requests.

use std::{env, hint::black_box, process::Command};

use crate::page;

/// Names how many hits the run under valgrind does.
const HITS: &str = "GATEHOUSE_HITS";
/// Instructions of one hit in the pipeline, a little more than measured. The debug build has no bound worth keeping.
const MOST: u64 = if cfg!(debug_assertions) { 1_000_000 } else { 23_000 };

/// What is run under valgrind; by itself it proves that the page is a hit.
#[test]
fn hits_to_be_counted() {
    let hits = env::var(HITS).map_or(1, |hits| hits.parse().unwrap());
    let edge = page::edge();
    for _ in 0..hits {
        page::hit(&edge, page::request());
    }
}

/// What making the requests of so many hits costs, which is the test's own.
#[test]
fn requests_to_be_counted() {
    let hits = env::var(HITS).map_or(1, |hits| hits.parse().unwrap());
    for _ in 0..hits {
        drop(black_box(page::request()));
    }
}

#[test]
fn in_the_pipeline_a_hit_keeps_to_its_bound_of_instructions() {
    let (few, many) = (100, 600);
    let each = |what| (instructions(what, many) - instructions(what, few)) / (many - few);
    let hit = each("hits_to_be_counted") - each("requests_to_be_counted");
    println!("a hit in the pipeline: {hit} instructions");
    assert!(hit <= MOST, "{hit} instructions a hit, not {MOST}");
}

fn instructions(what: &str, hits: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("instructions::{what}"), "--test-threads=1"])
        .env(HITS, hits.to_string())
        .output()
        .expect("valgrind is installed: `make test` installs it, or: apt-get install valgrind");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = collected.unwrap_or_else(|| panic!("callgrind says how many it has counted: {told}"));
    count.trim().parse().unwrap()
}
