//! Many clients at once, by generators that check every answer.

use gatehouse_tests::{
    edge::Edge,
    load,
    upstream::{Reply, Upstream},
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
