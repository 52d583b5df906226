//! Sentinels say which Redis takes writes, now and when another takes over.

use gatehouse_tests::{
    edge::Edge,
    redis::{Redis, Sentinel},
    wait,
};
use serde_json::json;

use super::{get, purge, setup, until_in_touch, until_written, versioned};

#[test]
fn an_edge_goes_where_the_sentinels_lead_it() {
    let (version, upstream) = versioned();
    let (first, second) = (Redis::start(), Redis::start());
    second.follow(&first);
    let sentinel = Sentinel::of("main", &first);
    let table = format!(
        "[redis]\nurl = \"redis://main\"\nsentinels = [\"redis://127.0.0.1:1\", \"redis://{}\"]\nlook_up_timeout = \"1s\"\n",
        sentinel.address()
    );
    let edges = [(); 2].map(|()| setup(&upstream, &table).start());
    edges.iter().for_each(until_in_touch);
    get(&edges[0], "/", "");
    until_written(&edges[0], 1);
    wait::until("the sentinel knows the replica, and lets it take over", || {
        sentinel.ask(&["SENTINEL", "FAILOVER", "main"]).starts_with("+OK").then_some(())
    });
    let epochs = |edge: &Edge| edge.metric("gatehouse_edge_tier_epochs_total");
    wait::until("both edges are led to the other", || {
        edges.iter().all(|edge| epochs(edge) == 1).then_some(())
    });
    edges.iter().for_each(until_in_touch);
    assert!(second.ask(&["HGET", "gatehouse:gatehouse:control", "epoch"]).starts_with('$'));
    version.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(purge(&edges[0], &json!({ "everything": true })), 200);
    for edge in &edges {
        assert_eq!(get(edge, "/", "").body, b"version 1");
    }
}

#[test]
fn a_name_that_the_sentinels_do_not_know_is_told() {
    let (_version, upstream) = versioned();
    let redis = Redis::start();
    let sentinel = Sentinel::of("main", &redis);
    let table =
        format!("[redis]\nurl = \"redis://mian\"\nsentinels = [\"redis://{}\"]\n", sentinel.address());
    let mut edge = setup(&upstream, &table).start();
    edge.process().wait_for_line("what to write", |line| {
        (line.contains("does not know") && line.contains("mian") && line.contains("write in `url`"))
            .then_some(())
    });
    assert_eq!(get(&edge, "/", "").status, 200);
}
