//! Many clients at once, by generators that check every answer.

use gatehouse_tests::{
    curl::Running,
    edge::Edge,
    load,
    upstream::{Gate, Reply, Upstream},
    wait,
};

#[test]
fn two_hundred_clients_at_once_get_their_answers_over_clear_text() {
    for cache_control in ["max-age=60", "no-store"] {
        let upstream = Upstream::start(move |_| Reply::ok("x".repeat(1024)).cache_control(cache_control));
        let edge = Edge::over(&upstream).start();
        let load = load::ab(edge.clear(), "/", 200, 200);
        assert_eq!((load.complete, load.failed, load.not_2xx), (200, 0, 0), "{cache_control}: {load:?}");
    }
}

#[test]
fn two_hundred_clients_at_once_get_their_answers_over_http_2() {
    for cache_control in ["max-age=60", "no-store"] {
        let upstream = Upstream::start(move |_| Reply::ok("x".repeat(1024)).cache_control(cache_control));
        let edge = Edge::over(&upstream).start();
        // A thousand streams at once: what the pool and its queue are set to bear (256 + 1024).
        let load = load::h2load(edge.tls(), "/", 4_000, 200, 5);
        assert_eq!((load.complete, load.failed, load.not_2xx), (4_000, 0, 0), "{cache_control}: {load:?}");
    }
}

#[test]
fn beyond_what_the_upstream_can_bear_the_rest_is_told_to_come_back() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| Reply::ok("text").cache_control("no-store").after(&held));
    let edge = Edge::over(&upstream).upstream("connections = 2\nwaiting = 3").start();
    let mut clients: Vec<_> = (0..8).map(|number| edge.curl(&format!("/{number}")).start()).collect();
    // Two are served, three wait; the rest is refused at once, while everything else stands still.
    wait::until("three are refused", || {
        (clients.iter_mut().map(Running::is_finished).filter(|finished| *finished).count() == 3).then_some(())
    });
    gate.open();
    let (served, refused): (Vec<_>, Vec<_>) =
        clients.into_iter().map(Running::answer).partition(|answer| answer.status == 200);
    assert_eq!((served.len(), refused.len()), (5, 3));
    for answer in refused {
        answer.assert_problem(503);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    assert!(upstream.connections() <= 2);
}
