//! Hostile clients and a hostile origin at once, in every order that proptest thinks of, over the real `handle`.
//!
//! The origin tells the truth about what it has and lies about everything else: lengths, framing, how often it answers and
//! when. Clients ask by all methods, for parts, under conditions, with cookies and credentials, send half of their content and
//! leave. Whatever they do: nobody gets another's answer, nothing purged comes back, every request ends, storage keeps to its
//! budget, and afterwards nothing is left under way and no place upstream is taken.
//!
//! `PROPTEST_CASES=10000` looks longer; what fails is shrunk, and printed as steps.

mod clients;
mod origin;

use std::{sync::Arc, time::Duration};

use edge::{
    cache::purge::{Force, Rule},
    settings,
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{FileFailurePersistence, TestCaseResult, TestError, TestRunner},
};
use tokio::{task::JoinSet, time::timeout};

use self::{
    clients::{Ask, ask},
    origin::{Habit, Origin},
};
use crate::front::{Front, front_by, pass, settle, start};

const RESOURCES: u8 = 3;
/// Places upstream.
const PLACES: usize = 4;
/// What all deadlines that a request meets in turn come to, and more: none may take longer.
const PATIENCE: Duration = Duration::from_secs(300);
const BUDGET: u64 = 1 << 20;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody asks, and the next step waits for the end of it or does not.
    Ask(Ask, bool),
    /// Whoever asked so many requests ago leaves, if the request is under way.
    Leave(u8),
    /// Seconds pass.
    Pass(u8),
    /// A resource is purged.
    Purge(u8),
    /// A resource is another from now on.
    Change(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (clients::any(), any::<bool>()).prop_map(|(ask, waits)| Step::Ask(ask, waits)),
        1 => (0..4_u8).prop_map(Step::Leave),
        2 => prop_oneof![Just(1), Just(6), Just(61)].prop_map(Step::Pass),
        1 => (0..RESOURCES).prop_map(Step::Purge),
        1 => (0..RESOURCES).prop_map(Step::Change),
    ]
}

/// A route's rules, from careful to careless.
fn rules() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "cache = {}",
        "cache = { default_ttl = \"1m\", stale_while_revalidate = \"1m\", stale_if_error = \"1h\" }",
        "cache = { ttl = { 200 = \"1m\", 404 = \"10s\" }, stale_on_status = true, set_cookie = \"strip\" }",
        "cache = { cookies = \"bypass\", ranges = \"whole\", client_directives = \"ignore-all\" }",
    ])
}

/// What is made wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Nothing that the origin gives is for others, whatever it says.
    StoresWhatIsPrivate,
    /// What is purged stays.
    ForgetsPurges,
    /// A place upstream is never given back.
    KeepsAPlace,
}

#[test]
fn nobody_gets_what_is_anothers_and_nothing_is_left() {
    if let Err(found) = search(Fault::None) {
        panic!("{found}");
    }
}

#[test]
fn an_edge_that_does_wrong_is_found_out() {
    for fault in [Fault::StoresWhatIsPrivate, Fault::ForgetsPurges, Fault::KeepsAPlace] {
        assert!(matches!(search(fault), Err(TestError::Fail(..))), "{fault:?} is not found");
    }
}

/// The route's rules, the origin's habits in turn, and what happens.
type Game = (&'static str, Vec<Habit>, Vec<Step>);

/// Plays many games; the first that breaks a rule, made as short as it gets.
fn search(fault: Fault) -> Result<(), TestError<Game>> {
    let usual = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { 192 };
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as _);
    // What is found on purpose need not be made short.
    let max_shrink_iters = if fault == Fault::None { 4_000 } else { 0 };
    let config = ProptestConfig { cases, failure_persistence, max_shrink_iters, ..usual };
    let games = (rules(), vec(origin::any(), 1..6), vec(step(), 1..25));
    TestRunner::new(config).run(&games, |(rules, habits, steps)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(play(fault, rules, habits, steps))
    })
}

fn front(origin: &Origin, rules: &str, places: usize) -> Front {
    let text = format!(
        "threads = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [cache]\nmemory = \"{BUDGET} B\"\nlargest_object = \"32 KiB\"\n\
         [timeouts]\nbody = \"5s\"\ntotal = \"20s\"\n\
         [upstreams.origin]\nservers = [\"http://origin:80\"]\nconnections = {places}\nconnect_timeout = \"2s\"\n\
         response_timeout = \"10s\"\nidle_timeout = \"5s\"\ncollapse_timeout = \"2s\"\n\
         [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n{rules}\n"
    );
    let settings = settings::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"));
    front_by(settings, Vec::new(), start(), Arc::new(origin.clone()))
}

async fn play(fault: Fault, rules: &str, habits: Vec<Habit>, steps: Vec<Step>) -> TestCaseResult {
    let origin = Origin::new(habits, PLACES, fault);
    let places = if fault == Fault::KeepsAPlace { PLACES - 1 } else { PLACES };
    let front = front(&origin, rules, places);
    let mut under_way = JoinSet::new();
    let mut handles = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Ask(what, waits) => {
                let (front, origin) = (front.clone(), origin.clone());
                let floor = origin.floor(what.resource);
                let asks =
                    async move { timeout(PATIENCE, ask(&front, &origin, (what, number), floor)).await };
                let handle = under_way.spawn(asks);
                if waits {
                    while let Some(ended) = under_way.join_next_with_id().await {
                        let is_this = matches!(&ended, Ok((id, _)) if *id == handle.id());
                        judge(ended.map(|(_, said)| said))?;
                        if is_this {
                            break;
                        }
                    }
                } else {
                    settle().await;
                }
                handles.push(handle);
            }
            Step::Leave(back) => {
                if let Some(handle) = handles.iter().rev().nth(back.into()) {
                    handle.abort();
                }
                settle().await;
            }
            Step::Pass(seconds) => pass(seconds.into()).await,
            Step::Purge(resource) => {
                let rule = Rule::Key(format!("https://shop.example:443/{resource}").into());
                if fault != Fault::ForgetsPurges {
                    front.edge.memory.purge(vec![rule], Force::Hard, front.edge.clock.now());
                }
                origin.outdate(resource);
            }
            Step::Change(resource) => origin.change(resource),
        }
        prop_assert!(front.edge.memory.weight() <= BUDGET);
        prop_assert!(front.edge.memory.in_flight() <= BUDGET * 3 / 8);
    }
    while let Some(ended) = under_way.join_next().await {
        judge(ended)?;
    }
    nothing_is_left(&front, &origin).await
}

/// What became of one request: a request whose client has left is none.
fn judge(
    ended: Result<Result<TestCaseResult, tokio::time::error::Elapsed>, tokio::task::JoinError>,
) -> TestCaseResult {
    match ended {
        Ok(Ok(judged)) => judged,
        Ok(Err(_)) => Err(TestCaseError::fail("a request did not end")),
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => Err(TestCaseError::fail(error.to_string())),
    }
}

/// Once all has ended that has a deadline, and the origin behaves.
async fn nothing_is_left(front: &Front, origin: &Origin) -> TestCaseResult {
    tokio::time::sleep(PATIENCE).await;
    settle().await;
    prop_assert!(front.edge.collapser.is_empty(), "{} fetches are left", front.edge.collapser.len());
    prop_assert_eq!(front.edge.memory.in_flight(), 0, "bytes in flight");
    origin.behave();
    let mut together = JoinSet::new();
    for _ in 0..PLACES {
        let front = front.clone();
        together.spawn(async move { front.get("/together").await.status });
    }
    let statuses = together.join_all().await;
    prop_assert_eq!(statuses, vec![200; PLACES], "a place upstream is still taken");
    Ok(())
}
