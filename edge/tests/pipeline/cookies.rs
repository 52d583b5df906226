//! Whose answer a request with cookies gets, and who gets the answer to one.
//!
//! The first half is what an origin can say so that one answer serves everyone; the second is what no arrangement may do: hand
//! one person's answer to another.

use http::Request;
use scripted_upstream::{Gate, Reply, Seen};

use crate::{
    front::{Front, Got, cached, front, front_with, pass, settle},
    upstream::Upstream,
};

const ALICE: (&str, &str) = ("cookie", "session=alice");
const BOB: (&str, &str) = ("cookie", "session=bob");

/// Says whose page it is: `alice`, `bob`, or `nobody`.
fn owner(seen: &Seen) -> &'static str {
    match seen.headers.get("cookie").map(|cookie| cookie.to_str().unwrap()) {
        Some("session=alice") => "alice",
        Some("session=bob") => "bob",
        Some(other) => panic!("a cookie of nobody: {other}"),
        None => "nobody",
    }
}

/// Pages by whose they are, all with this Cache-Control and these further fields.
fn pages(line: &'static str, more: &'static [(&'static str, &'static str)]) -> Upstream {
    Upstream::start(move |seen| Reply::ok(owner(seen)).cache_control(line).fields(more))
}

async fn owners(front: &Front, who: &[Option<(&str, &str)>]) -> Vec<String> {
    let mut owners = Vec::new();
    for cookie in who {
        let fields: Vec<_> = cookie.iter().copied().collect();
        owners.push(front.get_with("/", &fields).await.text().to_owned());
    }
    owners
}

/// A field of a request.
type Field = (&'static str, &'static str);

fn ask(front: &Front, cookie: Option<Field>) -> tokio::task::JoinHandle<Got> {
    let front = front.clone();
    tokio::spawn(async move {
        let fields: Vec<_> = cookie.into_iter().collect();
        front.get_with("/", &fields).await
    })
}

/// Every script and picture of a site was a pass for whoever was signed in.
#[tokio::test(start_paused = true)]
async fn what_is_for_everyone_by_its_own_word_answers_requests_with_cookies() {
    for line in ["public, max-age=60", "s-maxage=60", "max-age=60, immutable"] {
        let upstream = Upstream::start(move |_| Reply::ok("script").cache_control(line));
        let front = front(&upstream);
        front.get("/").await;
        for cookie in [ALICE, BOB] {
            assert_eq!(front.get_with("/", &[cookie]).await.cache(), "hit", "{line}");
        }
        assert_eq!(upstream.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_miss_cookies_go_upstream_and_an_answer_for_everyone_is_stored() {
    let upstream = Upstream::start(|_| Reply::ok("script").cache_control("public, max-age=60"));
    let front = front(&upstream);
    assert_eq!(front.get_with("/", &[ALICE]).await.cache(), "fwd=uri-miss");
    assert_eq!(upstream.seen()[0].headers["cookie"], "session=alice");
    for cookie in [Some(BOB), None] {
        let fields: Vec<_> = cookie.into_iter().collect();
        assert_eq!(front.get_with("/", &fields).await.cache(), "hit");
    }
    assert_eq!(upstream.count(), 1);
}

/// With `ignore_cookies` the cookie that the page needs is gone; without it nothing was cached. One route serves both now.
#[tokio::test(start_paused = true)]
async fn one_route_serves_what_is_for_everyone_and_what_is_not() {
    let upstream = Upstream::start(|seen| match &*seen.target {
        "/script.js" => Reply::ok("script").cache_control("public, max-age=60, immutable"),
        _ => Reply::ok(owner(seen)).cache_control("private, no-cache"),
    });
    let front = front(&upstream);
    for cookie in [ALICE, BOB] {
        assert_eq!(front.get_with("/", &[cookie]).await.text(), cookie.1.strip_prefix("session=").unwrap());
        front.get_with("/script.js", &[cookie]).await;
    }
    assert_eq!(upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn under_bypass_any_cookie_goes_to_the_origin() {
    let upstream = Upstream::start(|_| Reply::ok("script").cache_control("public, max-age=60"));
    let front = front_with(&upstream, &cached("cookies = \"bypass\", ignore_cookies = [\"_ga\"]"));
    front.get("/").await;
    let bypass = front.get_with("/", &[ALICE]).await;
    assert_eq!(bypass.field("cache-status"), "gatehouse; fwd=bypass; fwd-status=200; detail=request-cookie");
    assert_eq!(upstream.seen()[1].headers["cookie"], "session=alice");
    assert_eq!(front.get_with("/", &[("cookie", "_ga=1")]).await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn where_a_cookie_matters_the_ignored_ones_go_with_it() {
    let upstream = Upstream::start(|_| Reply::ok("page").cache_control("public, max-age=60"));
    let front = front_with(&upstream, &cached("ignore_cookies = [\"_ga\"]"));
    front.get_with("/a", &[("cookie", "_ga=1; session=alice")]).await;
    front.get_with("/b", &[("cookie", "_ga=1")]).await;
    let seen = upstream.seen();
    assert_eq!(seen[0].headers["cookie"], "_ga=1; session=alice");
    assert!(!seen[1].headers.contains_key("cookie"));
}

/// All are answered with one fetch: those behind come while it waits for its upstream.
async fn one_fetch_answers(first: &[Option<Field>], behind: &[Option<Field>]) {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream =
        Upstream::start(move |_| Reply::ok("script").cache_control("public, max-age=60").after(&held));
    let front = front(&upstream);
    let mut asked: Vec<_> = first.iter().map(|cookie| ask(&front, *cookie)).collect();
    settle().await;
    asked.extend(behind.iter().map(|cookie| ask(&front, *cookie)));
    settle().await;
    gate.open();
    for got in asked {
        assert_eq!(got.await.unwrap().text(), "script");
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_with_and_without_cookies_share_a_fetch_for_everyone() {
    one_fetch_answers(&[None], &[Some(ALICE), Some(BOB), None, Some(ALICE)]).await;
}

#[tokio::test(start_paused = true)]
async fn requests_with_cookies_share_a_fetch_among_themselves() {
    one_fetch_answers(&[Some(ALICE), Some(BOB)].repeat(25), &[]).await;
}

// What must never be.

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_cookie_reaches_nobody_else_without_a_word_for_everyone() {
    for line in
        ["max-age=60", "max-age=60, must-revalidate", "max-age=60; public", "stale-if-error=60", "no-cache"]
    {
        let front =
            front_with(&pages(line, &[("etag", "\"1\"")]), &cached("default_ttl = \"60s\", ttl = \"60s\""));
        let who = [Some(ALICE), Some(BOB), None, Some(ALICE), None, Some(BOB)];
        let expected = ["alice", "bob", "nobody", "alice", "nobody", "bob"];
        assert_eq!(owners(&front, &who).await, expected, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_sets_a_cookie_is_its_own_clients_whatever_it_says() {
    for rule in ["", "set_cookie = \"strip\"", "set_cookie = \"store\""] {
        let upstream = Upstream::start(|seen| {
            let mine: &[(&str, &str)] = match owner(seen) {
                "alice" => &[("set-cookie", "session=alice")],
                _ => &[("set-cookie", "session=bob")],
            };
            Reply::ok(owner(seen)).cache_control("public, max-age=60").fields(mine)
        });
        let front = front_with(&upstream, &cached(rule));
        for cookie in [ALICE, BOB, ALICE] {
            let got = front.get_with("/", &[cookie]).await;
            assert_eq!(got.field("set-cookie"), cookie.1, "{rule}");
            assert_eq!(format!("session={}", got.text()), cookie.1, "{rule}");
        }
        assert_eq!(upstream.count(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn vary_by_cookie_keeps_two_people_apart_and_answers_each_from_the_cache() {
    let upstream = pages("public, max-age=60", &[("vary", "Cookie")]);
    let front = front(&upstream);
    let who = [Some(ALICE), Some(BOB), None, Some(ALICE), Some(BOB), None];
    assert_eq!(owners(&front, &who).await, ["alice", "bob", "nobody", "alice", "bob", "nobody"]);
    assert_eq!(upstream.count(), 3);
}

/// Nothing is known of `Vary` yet when both ask: the second follows the first, and must not keep what it gets.
#[tokio::test(start_paused = true)]
async fn vary_by_cookie_keeps_two_people_apart_who_ask_at_once() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        Reply::ok(owner(seen)).cache_control("public, max-age=60").fields(&[("vary", "Cookie")]).after(&held)
    });
    let front = front(&upstream);
    let asked = [Some(ALICE), Some(BOB), None].map(|cookie| ask(&front, cookie));
    settle().await;
    gate.open();
    let mut got = Vec::new();
    for answer in asked {
        got.push(answer.await.unwrap().text().to_owned());
    }
    assert_eq!(got, ["alice", "bob", "nobody"]);
}

#[tokio::test(start_paused = true)]
async fn credentials_beside_a_cookie_need_their_own_word() {
    let upstream = pages("max-age=60, immutable", &[]);
    let front = front(&upstream);
    for cookie in [ALICE, BOB] {
        let got = front.get_with("/", &[cookie, ("authorization", "Basic eDp5")]).await;
        assert_eq!(format!("session={}", got.text()), cookie.1);
    }
    assert_eq!(owners(&front, &[None]).await, ["nobody"]);
    assert_eq!(upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cookie_does_not_follow_a_fetch_whose_answer_says_no_word_for_everyone() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let page = Reply::ok(owner(seen)).cache_control("max-age=60");
        if owner(seen) == "nobody" { page.after(&held) } else { page }
    });
    let front = front(&upstream);
    let leader = ask(&front, None);
    settle().await;
    let (alice, follower) = (ask(&front, Some(ALICE)), ask(&front, None));
    settle().await;
    assert_eq!(upstream.count(), 1, "both wait for the fetch under way");
    gate.open();
    assert_eq!(alice.await.unwrap().text(), "alice");
    for anonymous in [leader, follower] {
        assert_eq!(anonymous.await.unwrap().text(), "nobody");
    }
    assert_eq!(upstream.count(), 2, "the one without a cookie may follow");
}

#[tokio::test(start_paused = true)]
async fn a_cookie_is_told_apart_while_the_body_still_arrives() {
    let (pieces, reply) = Reply::in_pieces();
    let reply = std::sync::Mutex::new(Some(reply.cache_control("max-age=60")));
    let upstream = Upstream::start(move |seen| match owner(seen) {
        "nobody" => reply.lock().unwrap().take().expect("one request"),
        person => Reply::ok(person).cache_control("max-age=60"),
    });
    let front = front(&upstream);
    pieces.send("no");
    let leader = front.begin(Request::get("/")).await;
    let alice = front.get_with("/", &[ALICE]).await;
    assert_eq!((alice.text(), alice.field("cache-status").contains("request-cookie")), ("alice", true));
    pieces.send("body");
    drop(pieces);
    assert_eq!(crate::front::finish(leader).await.text(), "nobody");
}

/// One client's cookie is evidence about requests with cookies alone.
#[tokio::test(start_paused = true)]
async fn a_persons_page_neither_delays_nor_spoils_the_fetch_for_those_without_cookies() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream =
        Upstream::start(move |seen| Reply::ok(owner(seen)).cache_control("max-age=60").after(&held));
    let front = front(&upstream);
    let alice = ask(&front, Some(ALICE));
    settle().await;
    let anonymous = [ask(&front, None), ask(&front, None)];
    settle().await;
    assert_eq!(upstream.count(), 2, "they do not wait for the person's page, and share one fetch");
    gate.open();
    assert_eq!(alice.await.unwrap().text(), "alice");
    for got in anonymous {
        assert_eq!(got.await.unwrap().text(), "nobody");
    }
    assert_eq!(front.get("/").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn after_a_persons_page_people_do_not_queue_and_the_others_still_share() {
    let (gate, open) = (Gate::closed(), Gate::closed());
    open.open();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let page = Reply::ok(owner(seen)).cache_control("max-age=60");
        page.after(if seen.earlier == 0 { &open } else { &held })
    });
    let front = front(&upstream);
    assert_eq!(owners(&front, &[Some(ALICE)]).await, ["alice"]);
    let people: Vec<_> = [ALICE, BOB, ALICE].into_iter().map(|cookie| ask(&front, Some(cookie))).collect();
    let anonymous: Vec<_> = (0..3).map(|_| ask(&front, None)).collect();
    settle().await;
    assert_eq!(upstream.count(), 1 + 3 + 1);
    gate.open();
    let mut got = Vec::new();
    for answer in people.into_iter().chain(anonymous) {
        got.push(answer.await.unwrap().text().to_owned());
    }
    assert_eq!(got, ["alice", "bob", "alice", "nobody", "nobody", "nobody"]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_for_a_person_replaces_nothing_by_the_persons_page() {
    let upstream = Upstream::start(|seen| match owner(seen) {
        "nobody" => Reply::ok("nobody").cache_control("public, max-age=1, stale-while-revalidate=60"),
        person => Reply::ok(person).cache_control("max-age=60"),
    });
    let front = front(&upstream);
    front.get("/").await;
    pass(2).await;
    assert_eq!(owners(&front, &[Some(ALICE)]).await, ["nobody"], "it is for everyone, and may be stale");
    settle().await;
    assert_eq!(upstream.count(), 2);
    assert_eq!(owners(&front, &[Some(BOB), None]).await, ["nobody", "nobody"]);
}

#[tokio::test(start_paused = true)]
async fn a_validation_for_a_person_may_take_the_word_for_everyone_back() {
    let upstream = Upstream::start(|seen| {
        let validated = seen.headers.contains_key("if-none-match");
        match owner(seen) {
            "nobody" => Reply::ok("nobody").cache_control("public, max-age=1").fields(&[("etag", "\"1\"")]),
            _ if validated => Reply::status(304).fields(&[("cache-control", "private"), ("etag", "\"1\"")]),
            person => Reply::ok(person).cache_control("private"),
        }
    });
    let front = front(&upstream);
    front.get("/").await;
    pass(2).await;
    assert_eq!(owners(&front, &[Some(ALICE), Some(BOB)]).await, ["alice", "bob"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_everyone_stands_in_for_no_failure_of_a_persons_page() {
    for (line, expected) in
        [("max-age=1, stale-if-error=60", 502), ("public, max-age=1, stale-if-error=60", 200)]
    {
        let upstream = pages(line, &[]);
        let front = front(&upstream);
        front.get("/").await;
        pass(2).await;
        upstream.stop();
        assert_eq!(front.get_with("/", &[ALICE]).await.status, expected, "{line}");
        assert_eq!(front.get("/").await.status, 200, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stored_part_is_told_apart_as_a_whole_is() {
    let upstream = Upstream::start(|seen| {
        let body = match owner(seen) {
            "alice" => "alice",
            _ => "nobod",
        };
        let fields = [("cache-control", "max-age=60"), ("etag", "\"1\""), ("content-range", "bytes 0-4/9")];
        Reply::ok(body).with_status(206).fields(&fields)
    });
    let front = front(&upstream);
    let range = ("range", "bytes=0-4");
    assert_eq!(front.get_with("/", &[range]).await.text(), "nobod");
    assert_eq!(front.get_with("/", &[range, ALICE]).await.text(), "alice");
    assert_eq!(front.get_with("/", &[range]).await.text(), "nobod");
}

/// The cache asks without cookies that are ignored, and a HEAD went with them: what the origin said to one person became the
/// head of everyone's page, or threw it away.
#[tokio::test(start_paused = true)]
async fn a_head_is_asked_for_without_the_cookies_that_are_ignored() {
    for line in ["max-age=60", "private"] {
        let upstream = Upstream::start(move |seen| match seen.headers.get("cookie") {
            Some(_) => Reply::ok("page").cache_control(line).header("x-user", "alice"),
            None => Reply::ok("page").cache_control("max-age=60"),
        });
        let front = front_with(&upstream, &cached("ignore_cookies = true"));
        front.get("/").await;
        pass(61).await;
        front.send(Request::head("/").header(ALICE.0, ALICE.1)).await;
        let got = front.get("/").await;
        assert_eq!((got.cache(), got.field("x-user")), ("hit", ""), "{line}");
    }
}

/// Ignored cookies go upstream with a POST, and its answer was kept for every later GET.
#[tokio::test(start_paused = true)]
async fn the_answer_to_a_post_with_ignored_cookies_is_not_kept() {
    let upstream = Upstream::start(|seen| {
        Reply::ok(owner(seen)).cache_control("max-age=60").header("content-location", "/")
    });
    let front = front_with(&upstream, &cached("ignore_cookies = true"));
    front.send_body(Request::post("/").header(ALICE.0, ALICE.1), "x").await;
    assert_eq!(front.get("/").await.text(), "nobody");
}
