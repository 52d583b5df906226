//! The id of a request: whose it is, and where it is told.

use scripted_upstream::{Reply, Seen, saying};

use crate::{
    front::{CACHED, Front, Got, PASSED, front, front_with},
    upstream::Upstream,
};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

fn behind_a_proxy(upstream: &Upstream, clients: &str, routes: &str) -> Front {
    front_with(upstream, &format!("[clients]\ntrusted_proxies = [\"192.0.2.1\"]\n{clients}\n{routes}"))
}

fn is_made_here(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn in_problem(got: &Got) -> String {
    let problem: serde_json::Value = serde_json::from_str(got.text()).unwrap();
    problem["request_id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn every_request_has_an_id_upstream_that_its_client_cannot_choose() {
    for routes in [CACHED, PASSED] {
        let upstream = Upstream::start(saying(FRESH, "x"));
        let front = front_with(&upstream, routes);
        front.get_with("/1", &[("x-request-id", "mine"), ("x_request_id", "mine")]).await;
        front.get_with("/2", &[("x-request-id", "mine")]).await;
        let seen = upstream.seen();
        let ids: Vec<&str> = seen.iter().map(|seen| seen.header("x-request-id")).collect();
        assert!(ids.iter().all(|id| is_made_here(id)) && ids[0] != ids[1], "{ids:?}");
        assert!(!seen[0].headers.contains_key("x_request_id"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_trusted_proxys_id_goes_on_and_is_told_in_errors() {
    let upstream = Upstream::start(|_| Reply::hang_up());
    let front = behind_a_proxy(&upstream, "", CACHED);
    let got = front.get_with("/", &[("x-request-id", "Root=1-5f")]).await;
    assert_eq!((got.status, got.field("x-request-id")), (502, "Root=1-5f"));
    assert_eq!(in_problem(&got), "Root=1-5f");
    assert_eq!(upstream.only().header("x-request-id"), "Root=1-5f");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_edges_own_tells_its_id_and_other_answers_do_not() {
    let upstream = Upstream::start(|seen: &Seen| match &*seen.target {
        "/gone" => Reply::hang_up(),
        _ => Reply::ok("x").fields(FRESH),
    });
    let front = front(&upstream);
    for _ in 0..2 {
        assert_eq!(front.get("/").await.field("x-request-id"), "");
    }
    let got = front.get("/gone").await;
    assert!(is_made_here(got.field("x-request-id")));
    assert_eq!(in_problem(&got), got.field("x-request-id"));
    let refused = front.send(http::Request::get("/").header("host", "a b")).await;
    assert_eq!((refused.status, in_problem(&refused)), (400, refused.field("x-request-id").to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_setting_says_which_answers_tell_the_id() {
    // The origin's own id in a stored answer is that of another request.
    let upstream = Upstream::start(|seen: &Seen| match &*seen.target {
        "/gone" => Reply::hang_up(),
        _ => Reply::ok("x").fields(FRESH).header("x-request-id", seen.header("x-request-id")),
    });
    let front = behind_a_proxy(&upstream, "request_id_in_answers = \"always\"", CACHED);
    for id in ["one", "two"] {
        let got = front.get_with("/", &[("x-request-id", id)]).await;
        assert_eq!(got.headers.get_all("x-request-id").iter().collect::<Vec<_>>(), [id]);
    }
    assert_eq!(upstream.count(), 1);
    let front = behind_a_proxy(&upstream, "request_id_in_answers = \"never\"", CACHED);
    let got = front.get_with("/gone", &[("x-request-id", "one")]).await;
    assert_eq!((got.status, got.field("x-request-id"), &*in_problem(&got)), (502, "", "one"));
}

/// An origin that varies on a field that differs in every request would make of the cache a heap of what is never found.
#[tokio::test(start_paused = true)]
async fn ids_split_nothing_that_is_stored() {
    let upstream =
        Upstream::start(|_| Reply::ok("x").fields(FRESH).header("vary", "x-request-id, accept-language"));
    let front = behind_a_proxy(&upstream, "", CACHED);
    for (id, cache) in [("one", "fwd=uri-miss"), ("two", "hit"), ("three", "hit")] {
        assert_eq!(front.get_with("/", &[("x-request-id", id)]).await.cache(), cache);
    }
}
