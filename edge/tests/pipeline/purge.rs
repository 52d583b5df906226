//! Purge wins: by key, tag, prefix and host, hard and soft, also over fetches under way.

use cache_policy::Tag;
use edge::{
    cache::{
        Key,
        purge::{Force, Rule},
    },
    message::target::Scheme,
    pipeline::purge::PurgeRequest as Posted,
    request::inbound,
};
use http::Request;
use scripted_upstream::{Gate, Reply, Seen, saying};

use crate::{
    front::{CACHED, Front, cached, front, front_with, pass, settle},
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

/// `purge --url /x?utm=2` left `/x?utm=2` a hit out of what was stored for `/x?utm=1`, and so did a POST to it.
#[tokio::test(start_paused = true)]
async fn a_url_takes_what_answers_for_it_by_no_vary_search() {
    let upstream = Upstream::start(saying(
        &[("cache-control", "max-age=60"), ("no-vary-search", "params=(\"utm\")")],
        "x",
    ));
    let front = front(&upstream);
    for target in ["/x?utm=1", "/x?utm=1&id=7"] {
        front.get(target).await;
    }
    assert_eq!(front.get("/x?utm=2").await.cache(), "hit");
    let url = Rule::Key("https://shop.example:443/x?utm=2".into());
    assert_eq!(purge(&front, url, Force::Hard), 1);
    assert_eq!(front.get("/x?utm=2&id=7").await.cache(), "hit", "it means something else");
    assert_eq!(front.get("/x?utm=2").await.cache(), "fwd=uri-miss");
    front.send_body(Request::post("/x?utm=3"), "change").await;
    assert_eq!(front.get("/x?utm=4").await.cache(), "fwd=uri-miss");
}

/// A prefix that ends within a query left what answers for such queries by No-Vary-Search, and what was on its way.
#[tokio::test(start_paused = true)]
async fn a_prefix_of_queries_takes_what_answers_for_them_by_no_vary_search() {
    let fields = [("cache-control", "max-age=60"), ("no-vary-search", "params=(\"utm\")")];
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |seen: &Seen| match seen.target.as_str() {
            "/late?utm=1" => Reply::ok("x").fields(&fields).after(&gate),
            "/plain?utm=1" => Reply::ok("x").cache_control("max-age=60"),
            _ => Reply::ok("x").fields(&fields),
        }
    });
    let front = front(&upstream);
    for target in ["/x?utm=1", "/plain?utm=1", "/x/y?utm=1"] {
        front.get(target).await;
    }
    let late = front.ask("/late?utm=1");
    settle().await;
    let prefix = |path: &str| Rule::Prefix(format!("https://shop.example:443/{path}?utm=2").into());
    assert_eq!(purge(&front, prefix("x"), Force::Hard), 1);
    assert_eq!(purge(&front, prefix("plain"), Force::Hard), 0);
    purge(&front, prefix("late"), Force::Hard);
    gate.open();
    assert_eq!(late.await.unwrap().text(), "x");
    settle().await;
    for (target, told) in [
        ("/x?utm=2", "fwd=uri-miss"),
        ("/late?utm=2", "fwd=uri-miss"),
        ("/plain?utm=1", "hit"),
        ("/x/y?utm=2", "hit"),
    ] {
        assert_eq!(front.get(target).await.cache(), told, "{target}");
    }
}

/// `no-cache="Surrogate-Key"` took the tags off what is stored, and no purge of a tag found it any more.
#[tokio::test(start_paused = true)]
async fn a_tag_that_a_directive_names_is_a_tag_all_the_same() {
    let fields = [
        ("cache-control", "max-age=60, no-cache=\"surrogate-key\", private=\"cache-tag\""),
        ("surrogate-key", "one"),
        ("cache-tag", "two"),
    ];
    let upstream = Upstream::start(move |_: &Seen| Reply::ok("x").fields(&fields));
    let front = front(&upstream);
    for word in ["one", "two"] {
        front.get("/").await;
        assert_eq!(purge(&front, tag(word), Force::Hard), 1, "{word}");
    }
}

/// A system that names its field otherwise could not be purged by its tags, and told them to every client.
#[tokio::test(start_paused = true)]
async fn a_routes_own_fields_of_tags_are_purged_by_and_stop_here() {
    let fields = [
        ("cache-control", "max-age=60, no-cache=\"x-shop-tags\""),
        ("x-shop-tags", "one, two"),
        ("cache-tag", "three"),
        ("surrogate-key", "four"),
    ];
    let upstream = Upstream::start(move |_: &Seen| Reply::ok("x").fields(&fields));
    let own = "tag_fields = [\"X-Shop-Tags\", \"Cache-Tag\"]";
    let front = front_with(&upstream, &cached(own));
    for (word, found) in [("one", 1), ("two", 1), ("three", 1), ("four", 0)] {
        for _ in 0..2 {
            let got = front.get("/").await;
            let told = ["x-shop-tags", "cache-tag", "surrogate-key"].map(|name| got.field(name).to_owned());
            assert_eq!(told, ["", "", ""], "no client is told, whoever reads them");
        }
        assert_eq!(purge(&front, tag(word), Force::Hard), found, "{word}");
    }
    let kept = cached(own) + "response_fields = { X-Shop-Tags = true }\n";
    assert_eq!(front_with(&upstream, &kept).get("/").await.field("x-shop-tags"), "one, two");
}

/// What was being fetched for `/x?utm=1` was stored after a purge of `/x?utm=2`, and answered for it.
#[tokio::test(start_paused = true)]
async fn a_url_takes_what_is_on_its_way_and_would_answer_for_it() {
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |_| {
            let fields = [("cache-control", "max-age=60"), ("no-vary-search", "params=(\"utm\")")];
            Reply::ok("x").fields(&fields).after(&gate)
        }
    });
    let front = front(&upstream);
    let before = front.ask("/x?utm=1");
    settle().await;
    purge(&front, Rule::Key("https://shop.example:443/x?utm=2".into()), Force::Hard);
    gate.open();
    assert_eq!(before.await.unwrap().text(), "x");
    settle().await;
    assert_eq!(front.get("/x?utm=2").await.cache(), "fwd=uri-miss");
}

/// Each spelling had a key of its own, which a purge of another left.
#[tokio::test(start_paused = true)]
async fn one_purge_takes_a_resource_in_every_spelling() {
    let upstream = Upstream::start(saying(TAGGED, "x"));
    let front = front(&upstream);
    front.get("/caf%c3%a9?a=%7E").await;
    assert_eq!(front.get("/caf%C3%A9?a=~").await.cache(), "hit");
    assert_eq!(
        &*upstream.seen()[0].target,
        "/caf%C3%A9?a=~",
        "who shares an answer asks as the key is spelt"
    );
    let posted = Posted { urls: vec!["https://shop.example./café?a=%7e".to_owned()], ..Posted::default() };
    let state = front.edge.state.load();
    let now = front.edge.clock.now();
    let purged = posted.run(&state.settings.routes, &front.edge.memory, now).await.unwrap();
    assert_eq!(purged.purged, 1);
    assert_eq!(front.get("/caf%C3%A9?a=~").await.cache(), "fwd=uri-miss");
}

/// Every purge looked at every stored resource, with every rule: 10,000 URLs cost as much as 10,000 walks.
#[tokio::test(start_paused = true)]
async fn a_purge_costs_what_it_names_and_not_what_is_stored() {
    let upstream = Upstream::start(|seen| {
        let tag = if seen.target.ends_with('7') { "seven" } else { "other" };
        Reply::ok("x").fields(&[("cache-control", "max-age=600"), ("surrogate-key", tag)])
    });
    let front = front(&upstream);
    for number in 0..200 {
        front.get(&format!("/{number}")).await;
    }
    let memory = &front.edge.memory;
    let costs = |rules: Vec<Rule>| {
        let before = memory.swept();
        let purged = memory.purge(rules, Force::Hard, front.edge.clock.now());
        (purged, memory.swept() - before)
    };
    let key = |number: usize| Rule::Key(format!("https://shop.example:443/{number}").into());
    assert_eq!(costs((1000..11_000).map(key).collect()), (0, 10_000), "10,000 looks into a table");
    assert_eq!(costs(vec![tag("seven")]), (20, 20));
    assert_eq!(costs((0..10).map(key).collect()), (9, 10));
    assert_eq!(costs(vec![tag("seven")]), (0, 0), "what has gone is not looked for");
}

/// Each invalidation of some other resource, past the second in a slot of 4096, kept requests from sharing a fetch, and
/// its answer from being stored.
#[tokio::test(start_paused = true)]
async fn ten_thousand_changes_elsewhere_leave_fetches_shared_and_stored() {
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |_| Reply::ok("x").fields(TAGGED).after(&gate)
    });
    let front = front(&upstream);
    let targets = ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h"];
    let first = targets.map(|target| front.ask(target));
    settle().await;
    let request = Request::get("/").header("host", "shop.example").body(()).unwrap();
    let origin = Key::new(&inbound::read(&request.into_parts().0, Scheme::Https).unwrap());
    for number in 0..10_000 {
        front.edge.memory.invalidate(&origin.same_origin(&format!("/changed/{number}")));
    }
    let second = targets.map(|target| front.ask(target));
    settle().await;
    assert_eq!(upstream.count(), targets.len(), "all of the second share");
    gate.open();
    for answer in first.into_iter().chain(second) {
        assert_eq!(answer.await.unwrap().text(), "x");
    }
    settle().await;
    for target in targets {
        assert_eq!(front.get(target).await.cache(), "hit");
    }
}

/// Three seconds after the soft purge, with the origin gone, a response of `max-age=3600` and
/// `stale-while-revalidate=1` was still served, with a `ttl` of 3596.
#[tokio::test(start_paused = true)]
async fn after_a_soft_purge_stale_windows_are_counted_from_the_purge() {
    let fields: &[_] =
        &[("cache-control", "max-age=3600, stale-while-revalidate=1"), ("surrogate-key", "all")];
    let upstream = Upstream::start(saying(fields, "x"));
    let front = front(&upstream);
    front.get("/").await;
    assert_eq!(purge(&front, tag("all"), Force::Soft), 1);
    upstream.change(|_| Reply::status(503));
    assert_eq!(front.get("/").await.text(), "x", "inside the window");
    pass(3).await;
    let late = front.get("/").await;
    assert_eq!(late.status, 503, "{late:?}");
}

/// The answer to a HEAD with more tags than are remembered took all of them from the stored response: it stayed, and no
/// purge by a tag found it.
#[tokio::test(start_paused = true)]
async fn a_head_whose_tags_cannot_be_remembered_leaves_nothing_that_no_tag_finds() {
    let long = "x".repeat(2000);
    let upstream = Upstream::start(move |seen| {
        let tags = if seen.method == "HEAD" { &*long } else { "shoe" };
        Reply::ok("x").fields(&[("cache-control", "max-age=60"), ("etag", "\"v1\""), ("surrogate-key", tags)])
    });
    let front = front(&upstream);
    front.get("/").await;
    pass(61).await;
    front.send(Request::head("/").header("host", "shop.example")).await;
    purge(&front, tag("shoe"), Force::Hard);
    assert_eq!(upstream.seen()[1].method, "HEAD");
    assert_eq!(front.get("/").await.cache(), "fwd=uri-miss");
}

/// A `%` that encodes nothing, anywhere in a URL, kept all of it as it was written: a purge of the prefix left it.
#[tokio::test(start_paused = true)]
async fn a_prefix_takes_what_begins_with_it_in_any_spelling_and_whatever_follows() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "x"));
    let front = front(&upstream);
    for target in ["/caf%c3%a9?x=%", "/c%61f%C3%A9/%zz"] {
        front.get(target).await;
    }
    assert_eq!(purge(&front, Rule::Prefix("https://shop.example:443/caf%C3%A9".into()), Force::Hard), 2);
}

/// Every write made a new object of what a soft purge had matched, so that what a fetch wanted to replace or drop was never
/// found: a 304 that does not fit cost each request five fetches, for ever, and one with `no-store` changed nothing.
#[tokio::test(start_paused = true)]
async fn what_a_soft_purge_matched_can_be_replaced_and_dropped() {
    for (fields, asked) in [
        (&[("etag", "\"v2\""), ("cache-control", "max-age=60")][..], 3),
        (&[("etag", "\"v1\""), ("cache-control", "no-store")][..], 3),
    ] {
        let upstream = Upstream::start(saying(&[("etag", "\"v1\""), ("cache-control", "max-age=60")], "old"));
        let front = front(&upstream);
        front.get("/").await;
        front.edge.memory.purge(vec![Rule::Everything], Force::Soft, front.edge.clock.now());
        let fields = fields.to_vec();
        upstream.change(move |seen| match seen.headers.contains_key("if-none-match") {
            true => Reply::status(304).fields(&fields),
            false => Reply::ok("new").fields(&[("etag", "\"v2\""), ("cache-control", "max-age=60")]),
        });
        assert_eq!((front.get("/").await.text(), upstream.count()), ("new", asked));
        assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", asked));
    }
}

/// Staleness was counted from the old lifetime: after a soft purge a page was served as fresh for an hour, whatever windows
/// it had.
#[tokio::test(start_paused = true)]
async fn after_a_soft_purge_staleness_counts_from_the_purge() {
    let fields = &[("cache-control", "max-age=3600, stale-while-revalidate=1, stale-if-error=5")];
    let upstream = Upstream::start(saying(fields, "old"));
    let front = front(&upstream);
    front.get("/").await;
    pass(10).await;
    front.edge.memory.purge(vec![Rule::Everything], Force::Soft, front.edge.clock.now());
    upstream.stop();
    pass(3).await;
    let stale = front.get("/").await;
    assert_eq!(stale.field("cache-status"), "gatehouse; hit; ttl=-3; detail=stale-if-error");
    pass(3).await;
    assert_eq!(front.get("/").await.status, 502);
}

/// A plugin asks for what it knows, which is the site's name: it comes in clear text, and what is stored is for TLS.
#[tokio::test]
async fn plugins_purge_on_public_listeners_where_the_settings_let_them_in() {
    let upstream = Upstream::start(|seen| {
        let tags = if seen.target == "/tagged" { "a b" } else { "" };
        Reply::ok("x").header("cache-control", "max-age=60").header("surrogate-key", tags)
    });
    let word = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(word.path(), "a-long-random-word").unwrap();
    let access = format!(
        "[clients]\ntrusted_proxies = [\"192.0.2.1\"]\n[purge]\nallow = [\"10.0.0.0/8\"]\ntoken_file = {:?}\n{CACHED}",
        word.path()
    );
    let front = front_with(&upstream, &access);
    let purge = async |method: &str, target: &str, fields: &[(&str, &str)]| {
        let mut asked = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            asked = asked.header(*name, *value);
        }
        front.send(asked).await
    };
    let app = ("x-forwarded-for", "10.0.0.7");
    for target in ["/page", "/tagged", "/other"] {
        front.get(target).await;
    }
    let refused = purge("PURGE", "/page", &[]).await;
    assert_eq!(refused.status, 403);
    assert_eq!(purge("PURGE", "/page", &[("x-purge-token", "a-wrong-random-word")]).await.status, 403);
    assert_eq!(front.get("/page").await.cache(), "hit");
    let done = purge("PURGE", "/page", &[app]).await;
    assert_eq!((done.status, done.text()), (200, "{\"purged\":1}\n"));
    assert_eq!(front.get("/page").await.cache(), "fwd=uri-miss");
    assert_eq!(front.get("/tagged").await.cache(), "hit");
    let by_tag = purge("BAN", "/", &[app, ("x-cache-tags", "(a|c)(,.+)?$")]).await;
    assert_eq!(by_tag.text(), "{\"purged\":1}\n");
    assert_eq!(front.get("/tagged").await.cache(), "fwd=uri-miss");
    assert_eq!(front.get("/other").await.cache(), "hit");
    let by_word =
        purge("PURGE", "/.*", &[("x-purge-method", "regex"), ("fastly-key", "a-long-random-word")]).await;
    assert_eq!(by_word.text(), "{\"purged\":3}\n");
    assert_eq!(front.get("/other").await.cache(), "fwd=uri-miss");
    let unclear = purge("PURGEKEYS", "/", &[app]).await;
    assert_eq!(unclear.status, 400);
    assert!(upstream.seen().iter().all(|seen| seen.method == "GET"));
}

/// Where the settings say nothing of it, such a method is the upstream's, as any that the edge does not know.
#[tokio::test(start_paused = true)]
async fn without_settings_for_it_nobody_purges_by_a_method() {
    let upstream = Upstream::start(|_| Reply::ok("x").header("cache-control", "max-age=60"));
    let front = front(&upstream);
    front.get("/").await;
    assert_eq!(front.send(Request::builder().method("PURGE").uri("/")).await.text(), "x");
    assert_eq!(upstream.seen()[1].method, "PURGE");
}

/// Plugins that know no soft purge left nothing to stand in while the origin is away.
#[tokio::test(start_paused = true)]
async fn what_plugins_purge_becomes_stale_where_the_operator_says_so() {
    for (soft, after) in [("true", "fwd=stale"), ("false", "fwd=uri-miss")] {
        let upstream = Upstream::start(saying(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], "text"));
        let access = format!("[purge]\nallow = [\"192.0.2.0/24\"]\nsoft = {soft}\n{CACHED}");
        let front = front_with(&upstream, &access);
        front.get("/x").await;
        let purged = front.send(Request::builder().method("PURGE").uri("/x")).await;
        assert_eq!((purged.status, purged.text().trim()), (200, "{\"purged\":1}"));
        assert_eq!(front.get("/x").await.cache(), after, "{soft}");
    }
}
