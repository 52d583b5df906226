//! The time and the allocations of one hit and of its parts, in memory: `make bench-micro`.
//!
//! Allocations have their bounds in `tests/cost_of_a_hit`, on the same page. Time is compared by hand, on one machine.
#![expect(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

#[path = "../tests/cost_of_a_hit/page.rs"]
mod page;

use cache_policy::{QueryRules, RequestFacts, Rules, choose_coding, decide};
use divan::{AllocProfiler, Bencher, black_box};
use edge::{cache::Key, response::coding};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// The whole of it but the connection: the head is parsed, and the answer not yet written out.
#[divan::bench]
fn hit(bencher: Bencher<'_, '_>) {
    let edge = page::edge();
    bencher.with_inputs(page::request).bench_values(|request| page::hit(&edge, request));
}

#[divan::bench]
fn read_facts(bencher: Bencher<'_, '_>) {
    let (head, rules) = (page::head(), Rules::default());
    bencher
        .bench(|| RequestFacts::read(black_box(&head.method), black_box(&head.headers), black_box(&rules)));
}

#[divan::bench]
fn decide_fresh(bencher: Bencher<'_, '_>) {
    let edge = page::edge();
    let (facts, meta, rules) = (page::facts(), page::page(&edge).meta.clone(), Rules::default());
    let now = edge.clock.now();
    bencher.bench(|| decide(black_box(&facts), black_box(Some(&meta)), black_box(&rules), black_box(now)));
}

#[divan::bench]
fn negotiate_coding(bencher: Bencher<'_, '_>) {
    let head = page::head();
    bencher.bench(|| choose_coding(black_box(&head.headers), coding::OFFERED));
}

#[divan::bench]
fn key(bencher: Bencher<'_, '_>) {
    let (target, rules) = (page::target(), QueryRules::default());
    bencher.bench(|| Key::on_route(black_box(&target), black_box(&rules)));
}

#[divan::bench]
fn variant_key(bencher: Bencher<'_, '_>) {
    let head = page::head();
    bencher.bench(|| cache_policy::variant_key(black_box(&page::VARY), black_box(&head.headers)));
}
