//! Purge wins: by key, tag, prefix and host, hard and soft, also over fetches under way.

use cache_policy::Tag;
use edge::cache::purge::{Force, Rule};
use scripted_upstream::{Gate, Reply, saying};

use crate::{
    front::{Front, front, settle},
    upstream::Upstream,
};

pub(crate) const TAGGED: &[(&str, &str)] =
    &[("cache-control", "max-age=60"), ("surrogate-key", "shoe all"), ("etag", "\"v1\"")];

fn purge(front: &Front, rule: Rule, force: Force) -> usize {
    front.edge.memory.purge(vec![rule], force, front.edge.clock.now())
}

fn tag(text: &str) -> Rule {
    Rule::Tag(Tag::Key(text.into()))
}

#[tokio::test(start_paused = true)]
async fn a_tag_takes_everything_that_carries_it_and_nothing_else() {
    let upstream = Upstream::start(|seen| {
        let fields: &[_] = if seen.target == "/hat" { &[("cache-control", "max-age=60")] } else { TAGGED };
        Reply::ok("x").fields(fields)
    });
    let front = front(&upstream);
    for target in ["/shoe", "/shoes", "/hat"] {
        front.get(target).await;
    }
    assert_eq!(purge(&front, tag("shoe"), Force::Hard), 2);
    assert_eq!(purge(&front, tag("shoe"), Force::Hard), 0);
    assert_eq!(front.get("/shoe").await.cache(), "fwd=uri-miss");
    assert_eq!(front.get("/hat").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn a_key_takes_all_its_variants_and_a_prefix_and_a_host_take_theirs() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60"), ("vary", "x-language")], "x"));
    let front = front(&upstream);
    let fill = async || {
        for target in ["/a/1", "/a/2", "/b"] {
            for language in ["de", "en"] {
                front.get_with(target, &[("x-language", language)]).await;
            }
        }
    };
    fill().await;
    assert_eq!(purge(&front, Rule::Key("https://shop.example:443/a/1".into()), Force::Hard), 2);
    assert_eq!(purge(&front, Rule::Prefix("https://shop.example:443/a/".into()), Force::Hard), 2);
    fill().await;
    assert_eq!(purge(&front, Rule::Host("shop.example".into()), Force::Hard), 6);
    fill().await;
    assert_eq!(purge(&front, Rule::Everything, Force::Hard), 6);
}

#[tokio::test(start_paused = true)]
async fn what_was_being_fetched_when_the_purge_came_is_answered_but_never_stored_nor_joined() {
    let (old, new) = (Gate::closed(), Gate::closed());
    let gates = [old.clone(), new.clone()];
    let upstream = Upstream::start(move |seen| {
        let text = if seen.earlier == 0 { "old" } else { "new" };
        Reply::ok(text).fields(TAGGED).after(&gates[seen.earlier])
    });
    let front = front(&upstream);
    let before = front.ask("/");
    settle().await;
    purge(&front, tag("shoe"), Force::Hard);
    let after = front.ask("/");
    settle().await;
    assert_eq!(upstream.count(), 2, "the second does not share what began before the purge");
    new.open();
    assert_eq!(after.await.unwrap().text(), "new");
    old.open();
    assert_eq!(before.await.unwrap().text(), "old");
    settle().await;
    let later = front.get("/").await;
    assert_eq!((later.text(), later.cache()), ("new", "hit"));
}

#[tokio::test(start_paused = true)]
async fn a_soft_purge_makes_stale_and_a_304_makes_fresh_again() {
    let upstream = Upstream::start(|seen| {
        let status = if seen.headers.contains_key("if-none-match") { 304 } else { 200 };
        Reply::ok(if status == 200 { "x" } else { "" }).with_status(status).fields(TAGGED)
    });
    let front = front(&upstream);
    front.get("/").await;
    assert_eq!(purge(&front, tag("all"), Force::Soft), 1);
    let validated = front.get("/").await;
    assert_eq!((validated.text(), validated.cache()), ("x", "fwd=stale"));
    assert_eq!(front.get("/").await.cache(), "hit");
    assert!(upstream.seen()[1].headers.contains_key("if-none-match"));
}
