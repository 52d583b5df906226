//! What is stored, for how long, and for whom (RFC 9111 §3, §4).

use http::Request;
use scripted_upstream::{Reply, Seen, saying};

use crate::{
    front::{Front, by_target, cached, front, front_with, pass, settle},
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn a_miss_is_stored_and_then_hit_with_its_age() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front(&upstream);
    let miss = front.get("/a").await;
    assert_eq!((miss.status, miss.text(), miss.cache()), (200, "hello", "fwd=uri-miss"));
    pass(10).await;
    let hit = front.get("/a").await;
    assert_eq!((hit.status, hit.text(), hit.cache(), hit.field("age")), (200, "hello", "hit", "10"));
    assert_eq!(hit.field("cache-status"), "gatehouse; hit; ttl=50");
    assert_eq!(hit.field("via"), "1.1 gatehouse");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_is_validated_and_freshened_by_a_304() {
    let upstream = Upstream::start(|seen| {
        if seen.headers.contains_key("if-none-match") {
            Reply::status(304).fields(&[
                ("cache-control", "max-age=60"),
                ("etag", "\"v1\""),
                ("x-new", "yes"),
            ])
        } else {
            Reply::ok("hello").fields(&[("cache-control", "max-age=60"), ("etag", "\"v1\"")])
        }
    });
    let front = front(&upstream);
    front.get("/a").await;
    pass(61).await;
    let validated = front.get("/a").await;
    assert_eq!((validated.status, validated.text(), validated.field("x-new")), (200, "hello", "yes"));
    assert_eq!(validated.cache(), "fwd=stale");
    assert_eq!(front.get("/a").await.cache(), "hit");
    assert_eq!(upstream.seen()[1].headers["if-none-match"], "\"v1\"");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_page_with_no_cache_is_stored_and_validated_on_every_use() {
    let upstream = Upstream::start(|seen| {
        if seen.headers.contains_key("if-none-match") {
            Reply::status(304).fields(&[("cache-control", "no-cache"), ("etag", "\"v1\"")])
        } else {
            Reply::ok("page").fields(&[("cache-control", "no-cache"), ("etag", "\"v1\"")])
        }
    });
    let front = front(&upstream);
    for expected in [1, 2, 3] {
        assert_eq!(front.get("/").await.text(), "page");
        assert_eq!(upstream.count(), expected);
    }
    assert!(upstream.seen()[1..].iter().all(|seen| seen.headers.contains_key("if-none-match")));
}

#[tokio::test(start_paused = true)]
async fn private_no_store_and_cookie_setting_responses_are_never_shared() {
    for fields in [
        &[("cache-control", "private, max-age=60")][..],
        &[("cache-control", "No-Store")][..],
        &[("cache-control", "max-age=60"), ("set-cookie", "id=1")][..],
    ] {
        let fields: &'static [(&str, &str)] = Box::leak(fields.to_vec().into_boxed_slice());
        let upstream = Upstream::start(saying(fields, "mine"));
        let front = front(&upstream);
        front.get("/a").await;
        front.get("/a").await;
        assert_eq!(upstream.count(), 2, "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_cookie_passes_unless_the_route_ignores_it() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let strict = front(&upstream);
    strict.get("/a").await;
    assert_eq!(strict.get_with("/a", &[("cookie", "session=1")]).await.cache(), "fwd=bypass");
    assert_eq!(upstream.seen()[1].headers["cookie"], "session=1");

    let lax = front_with(&upstream, &cached("ignore_cookies = [\"_ga\"]"));
    lax.get_with("/b", &[("cookie", "_ga=1")]).await;
    assert!(
        !upstream.seen()[2].headers.contains_key("cookie"),
        "an ignored cookie must not reach a shared fetch"
    );
    assert_eq!(lax.get("/b").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn an_authorized_response_is_shared_only_where_it_says_so() {
    let upstream = Upstream::start(|seen| {
        let fields: &[(&str, &str)] = if seen.target == "/public" {
            &[("cache-control", "public, max-age=60")]
        } else {
            &[("cache-control", "max-age=60")]
        };
        Reply::ok("x").fields(fields)
    });
    let front = front(&upstream);
    for target in ["/own", "/public"] {
        front.get_with(target, &[("authorization", "Basic eDp5")]).await;
        front.get_with(target, &[("authorization", "Basic eDp5")]).await;
    }
    let counts = by_target(&upstream.seen());
    assert_eq!((counts["/own"], counts["/public"]), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn variants_are_kept_apart_by_vary() {
    let upstream = Upstream::start(|seen| {
        let german = seen.headers.get("x-language").is_some_and(|value| value == "de");
        let fields = &[("cache-control", "max-age=60"), ("vary", "X-Language")];
        Reply::ok(if german { "hallo" } else { "hello" }).fields(fields)
    });
    let front = front(&upstream);
    for _ in 0..2 {
        assert_eq!(front.get_with("/", &[("x-language", "de")]).await.text(), "hallo");
        assert_eq!(front.get_with("/", &[("x-language", "en")]).await.text(), "hello");
    }
    assert_eq!(upstream.count(), 2);
    assert_eq!(front.get_with("/", &[("x-language", "fr")]).await.cache(), "fwd=vary-miss");
}

#[tokio::test(start_paused = true)]
async fn stale_while_revalidate_answers_at_once_and_refreshes_once() {
    let upstream =
        Upstream::start(saying(&[("cache-control", "max-age=10, stale-while-revalidate=60")], "hello"));
    let front = front(&upstream);
    front.get("/").await;
    pass(11).await;
    let stale = front.get("/").await;
    assert_eq!((stale.cache(), stale.field("age")), ("hit", "11"));
    settle().await;
    assert_eq!(upstream.count(), 2);
    assert_eq!(front.get("/").await.field("age"), "0");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn head_is_answered_from_a_stored_get_without_content() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front(&upstream);
    front.get("/").await;
    let head = front.send(Request::head("/")).await;
    assert_eq!((head.status, head.cache(), head.field("content-length"), head.text()), (200, "hit", "5", ""));
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_never_reaches_the_origin() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front(&upstream);
    assert_eq!(front.get_with("/", &[("cache-control", "only-if-cached")]).await.status, 504);
    assert_eq!(upstream.count(), 0);
    front.get("/").await;
    assert_eq!(front.get_with("/", &[("cache-control", "only-if-cached")]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_routes_word_to_browsers_replaces_the_origins() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front_with(
        &upstream,
        &cached("default_ttl = \"365d\", browser = \"public, max-age=31536000, immutable\""),
    );
    assert_eq!(front.get("/").await.field("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(front.get("/").await.field("cache-control"), "public, max-age=31536000, immutable");
}

#[tokio::test(start_paused = true)]
async fn a_response_larger_than_the_largest_object_is_passed_on_whole_and_not_stored() {
    let body: &'static str = Box::leak("x".repeat(1024 * 1024 + 1).into_boxed_str());
    let upstream = Upstream::start(move |_| Reply::ok(body).cache_control("max-age=60"));
    let front = front(&upstream);
    for expected in [1, 2] {
        assert_eq!(front.get("/").await.text().len(), body.len());
        assert_eq!(upstream.count(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_post_about_itself_answers_later_gets() {
    let upstream = Upstream::start(|seen| {
        let fields = &[("cache-control", "max-age=60"), ("content-location", "/own")];
        Reply::ok(if seen.method == "POST" { "posted" } else { "got" }).fields(fields)
    });
    let front = front(&upstream);
    front.get("/own").await;
    assert_eq!(front.send_body(Request::post("/own"), "change").await.text(), "posted");
    let hit = front.get("/own").await;
    assert_eq!((hit.text(), hit.cache()), ("posted", "hit"));
    // One about another resource answers nobody.
    front.send_body(Request::post("/other"), "change").await;
    assert_eq!(front.get("/other").await.cache(), "fwd=uri-miss");
}

#[tokio::test(start_paused = true)]
async fn what_the_route_drops_of_a_query_neither_makes_a_key_nor_reaches_a_shared_fetch() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front_with(&upstream, &cached("query = { drop = [\"utm_*\"], sort = true }"));
    front.get("/?utm_source=x&b=2&a=1").await;
    assert_eq!(front.get("/?a=1&b=2&utm_medium=y").await.cache(), "hit");
    assert_eq!(front.get("/?a=2").await.cache(), "fwd=uri-miss");
    assert_eq!(upstream.seen()[0].target, "/?a=1&b=2");
    front.send_body(Request::post("/?utm_source=x"), "all of it").await;
    assert_eq!(upstream.seen()[2].target, "/?utm_source=x");
}

#[tokio::test(start_paused = true)]
async fn fields_that_no_cache_names_go_to_the_client_that_asked_alone() {
    let upstream = Upstream::start(saying(
        &[("cache-control", "max-age=60, no-cache=\"x-own\""), ("x-own", "1")],
        "hello",
    ));
    let front = front(&upstream);
    assert_eq!(front.get("/").await.field("x-own"), "1");
    let hit = front.get("/").await;
    assert_eq!((hit.cache(), hit.field("x-own")), ("hit", ""));
}

#[tokio::test(start_paused = true)]
async fn queries_that_the_origin_says_mean_the_same_share_an_answer_and_its_purge() {
    let upstream = Upstream::start(saying(
        &[("cache-control", "max-age=60"), ("no-vary-search", "key-order, params=(\"session\")")],
        "hello",
    ));
    let front = front(&upstream);
    front.get("/?a=1&b=2&session=x").await;
    assert_eq!(front.get("/?b=2&session=y&a=1").await.cache(), "hit");
    assert_eq!(front.get("/?b=3&a=1").await.cache(), "fwd=uri-miss");
    assert_eq!(front.get("/other?b=2&a=1").await.cache(), "fwd=uri-miss");
    front.send_body(Request::post("/?a=1&b=2&session=x"), "change").await;
    assert_eq!(front.get("/?b=2&session=y&a=1").await.cache(), "fwd=uri-miss");
}

/// Each such answer's marker took room beside what is stored, and some thousands of them drove out pages.
#[tokio::test(start_paused = true)]
async fn addresses_whose_answers_cannot_be_stored_drive_out_nothing() {
    let page = "x".repeat(128 * 1024);
    let upstream = Upstream::start(move |seen: &Seen| match seen.target.starts_with("/page") {
        true => Reply::ok(page.clone()).fields(&[("cache-control", "max-age=3600")]),
        false => Reply::ok("x").fields(&[("cache-control", "no-store")]),
    });
    let front = front(&upstream);
    for number in 0..200 {
        front.get(&format!("/page{number}")).await;
    }
    let stored = |front: &Front| {
        let memory = &front.edge.memory;
        (memory.weight(), memory.resources(), memory.evictions())
    };
    let before = stored(&front);
    for number in 0..1500 {
        front.get(&format!("/session?{number}={}", "y".repeat(4000))).await;
    }
    assert_eq!(stored(&front), before);
}

/// The field was kept out of the cache, and from the client that had asked as well: nobody could sign in.
#[tokio::test(start_paused = true)]
async fn cookies_that_no_cache_or_private_names_go_to_the_client_that_asked_alone() {
    for limited in ["max-age=9, no-cache=\"Set-Cookie\"", "max-age=9, private=\"set-cookie\""] {
        let upstream = Upstream::start(move |seen| {
            let reply = match seen.headers.contains_key("if-none-match") {
                true => Reply::status(304),
                false => Reply::ok("hello"),
            };
            let reply = reply.cache_control(limited).header("etag", "\"v1\"");
            reply.header("set-cookie", "a=1").header("set-cookie", "b=2")
        });
        let front = front(&upstream);
        let cookies = |got: &crate::front::Got| got.headers.get_all("set-cookie").iter().count();
        let miss = front.get("/").await;
        let hit = front.get("/").await;
        assert_eq!((cookies(&miss), hit.cache(), cookies(&hit)), (2, "hit", 0), "{limited}");
        pass(10).await;
        let validated = front.get("/").await;
        assert_eq!((validated.status, validated.cache(), cookies(&validated)), (200, "fwd=stale", 2));
        assert_eq!(cookies(&front.get("/").await), 0);
        let strips = front_with(&upstream, &cached("set_cookie = \"strip\""));
        assert_eq!(cookies(&strips.get("/").await), 0, "a route that strips cookies does so for everyone");
    }
}

/// A page that is not stored is a miss like any other, and was told as a bypass; a failure over a stored page likewise.
#[tokio::test(start_paused = true)]
async fn cache_status_tells_why_a_request_was_forwarded_and_why_its_answer_is_not_stored() {
    let upstream = Upstream::start(saying(&[("cache-control", "no-store")], "x"));
    let front = front(&upstream);
    let got = front.get("/").await;
    assert_eq!(got.field("cache-status"), "gatehouse; fwd=uri-miss; fwd-status=200; detail=no-store");
    upstream.change(saying(&[("cache-control", "max-age=10, stale-if-error=60")], "x"));
    front.get("/a").await;
    pass(11).await;
    upstream.change(|_| Reply::ok("broken").with_status(503));
    let stale = front.get("/a").await;
    assert_eq!(
        (stale.text(), stale.field("cache-status")),
        ("x", "gatehouse; fwd=stale; fwd-status=503; ttl=-1; detail=stale-if-error")
    );
    pass(60).await;
    let failed = front.get("/a").await;
    assert_eq!(
        (failed.status, failed.field("cache-status")),
        (503, "gatehouse; fwd=stale; fwd-status=503; detail=too-stale")
    );
}
