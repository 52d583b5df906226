//! How often a client may ask.

use http::Request;
use scripted_upstream::{Reply, saying};

use crate::{front::front_with, upstream::Upstream};

#[tokio::test(start_paused = true)]
async fn too_many_requests_are_refused_with_a_time_to_come_back_and_then_admitted() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front_with(
        &upstream,
        "[limits.api]\nrate = \"1/h\"\nburst = 2\n\
         [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\nlimit = \"api\"\ncache = {}\n",
    );
    let first = front.get("/").await;
    assert_eq!((first.status, first.field("ratelimit-policy")), (200, "\"api\";q=2;w=7200"));
    assert_eq!(front.get("/").await.status, 200);
    let refused = front.get("/").await;
    assert_eq!((refused.status, refused.field("content-type")), (429, "application/problem+json"));
    assert!(refused.field("retry-after").parse::<u64>().unwrap() > 3000);
}

/// A failed login costs ten: told in the answer's own fields, and owed by the next request.
#[tokio::test(start_paused = true)]
async fn an_answer_costs_what_its_status_says() {
    let upstream = Upstream::start(|seen| Reply::status(if seen.target == "/login" { 401 } else { 200 }));
    let front = front_with(
        &upstream,
        "[limits.login]\nrate = \"60/h\"\nburst = 20\ncost = { 401 = 10 }\n\
         [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\nlimit = \"login\"\n",
    );
    assert_eq!(front.get("/").await.field("ratelimit"), "\"login\";r=19;t=60");
    assert_eq!(front.send(Request::post("/login")).await.field("ratelimit"), "\"login\";r=9;t=660");
    assert_eq!(front.send(Request::post("/login")).await.status, 401);
    let refused = front.send(Request::post("/login")).await;
    assert_eq!(
        (refused.status, refused.field("retry-after")),
        (429, "120"),
        "one is owed, and one is to be earned"
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_trial_shows_in_metrics_alone() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front_with(
        &upstream,
        "[limits.api]\nrate = \"1/h\"\nburst = 1\ndry_run = true\n\
         [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\nlimit = \"api\"\ncache = {}\n",
    );
    for _ in 0..3 {
        let got = front.get("/").await;
        assert_eq!((got.status, got.field("ratelimit")), (200, ""));
    }
    assert_eq!(front.metric_lines("gatehouse_edge_limit_dry_runs_total"), ["{limit=\"api\"} 2"]);
}
