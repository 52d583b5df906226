//! The edge keeps its commands running, and leaves none behind.

use gatehouse_tests::{
    edge::{Edge, assert_nothing_left},
    origin::Origin,
    process::left_running,
    redis::Redis,
    shop, wait,
};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_stop_leaves_nothing_running() {
    let mut shop = shop::start();
    assert!(
        shop.running("postgres").is_some() && shop.running("origin").is_some(),
        "{:?}",
        everything(&shop)
    );
    assert!(shop.stop().success());
    assert_nothing_left(shop.folder());
}

#[test]
fn nothing_is_left_even_when_the_edge_is_killed() {
    let mut shop = shop::start();
    shop.process().signal(Signal::KILL);
    shop.process().wait();
    let folder = shop.folder().to_owned();
    wait::until("everything the edge started is gone", || left_running(&folder).is_empty().then_some(()));
}

#[test]
fn a_killed_origin_is_restarted_and_cached_answers_go_on() {
    let shop = shop::start();
    let _ = shop.get("/api/categories");
    let origin = shop.running("origin").unwrap();
    kill(origin);
    assert_eq!(shop.get("/api/categories").status, 200, "from the cache");
    wait::until("another origin runs", || shop.running("origin").filter(|id| *id != origin));
    wait::until("it answers", || (shop.get("/api/products?limit=3").status == 200).then_some(()));
}

#[test]
fn an_origin_remembers_in_a_redis_that_its_authority_vouches_for() {
    let certified = shop::start();
    let (_redis, port) = Redis::start_with_tls(&certified.folder().join("certs"));
    let url = format!("[redis]\nurl = \"rediss://localhost:{port}\"\n");
    let origin = Origin::start(&format!("{url}ca = {:?}\n", certified.authority()));
    wait::until("it remembers", || (origin.metric("origin_memory_believed") >= 1.0).then_some(()));
    let mut stranger = Origin::start(&url);
    stranger.process().wait_for_line("that nobody known has signed it", |line| {
        (line.contains("redis cannot be used") && line.to_lowercase().contains("certificate")).then_some(())
    });
    assert!(stranger.metric("origin_memory_believed") < 1.0);
}

#[test]
fn a_killed_database_is_started_again() {
    let shop = shop::start();
    assert_eq!(shop.get("/api/products?limit=1").status, 200);
    let postgres = shop.running("postgres").unwrap();
    kill(postgres);
    wait::until("the catalogue is read again", || {
        let fresh = shop.curl("/api/products?limit=2").header("Cache-Control: no-cache").send();
        (fresh.status == 200).then_some(())
    });
}

#[test]
fn the_catalogue_outlives_a_restart() {
    let mut shop = shop::start();
    let before = shop.get("/api/products?limit=10").json();
    assert!(shop.stop().success());
    let again = shop.restart();
    assert_eq!(again.get("/api/products?limit=10").json(), before);
}

#[test]
fn the_output_of_a_command_bears_its_name() {
    let mut shop = shop::start();
    let lines = shop.process().lines();
    assert!(lines.iter().any(|line| line.contains("origin") && line.contains("postgres")), "{lines:#?}");
}

fn everything(shop: &Edge) -> Vec<(u32, String)> {
    left_running(shop.folder())
}

fn kill(id: u32) {
    let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}
