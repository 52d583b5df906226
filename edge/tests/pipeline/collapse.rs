//! One fetch answers many requests, as its bytes arrive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use edge::upstream::{
    address::Address,
    connect::{Dial, Dialling},
};
use http::Request;
use http_body_util::BodyExt as _;
use scripted_upstream::{Gate, Reply, first};

use crate::{
    front::{CACHED, Front, Got, finish, front, front_over, front_with, pass, settle},
    upstream::Upstream,
};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_for_a_cold_key_make_one_upstream_request() {
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |_| Reply::ok("hello").fields(FRESH).after(&gate)
    });
    let front = front(&upstream);
    let requests: Vec<_> = (0..1000).map(|_| front.ask("/")).collect();
    settle().await;
    gate.open();
    let mut collapsed = 0;
    for request in requests {
        let got = request.await.unwrap();
        assert_eq!(got.text(), "hello");
        collapsed += usize::from(got.field("cache-status").contains("; collapsed"));
    }
    assert_eq!((upstream.count(), collapsed), (1, 999));
}

#[tokio::test(start_paused = true)]
async fn a_follower_reads_while_the_body_arrives() {
    let (pieces, reply) = Reply::in_pieces();
    let upstream = Upstream::start(first(reply.fields(FRESH), |_| panic!("one request")));
    let front = front(&upstream);
    pieces.send("one ");
    let mut leader = front.begin(Request::get("/")).await;
    let mut follower = front.begin(Request::get("/")).await;
    for reader in [&mut leader, &mut follower] {
        let frame = reader.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "one ");
    }
    pieces.send("two");
    drop(pieces);
    assert_eq!(finish(leader).await.text(), "two");
    assert_eq!(finish(follower).await.text(), "two");
    assert_eq!(front.get("/").await.text(), "one two");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fill_survives_the_client_that_began_it() {
    let (pieces, reply) = Reply::in_pieces();
    let upstream = Upstream::start(first(reply.fields(FRESH), |_| panic!("one request")));
    let front = front(&upstream);
    pieces.send("one ");
    drop(front.begin(Request::get("/")).await);
    settle().await;
    pieces.send("two");
    drop(pieces);
    settle().await;
    let got = front.get("/").await;
    assert_eq!((got.text(), got.cache()), ("one two", "hit"));
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_breaks_off_is_broken_for_every_reader_and_not_stored() {
    let (pieces, reply) = Reply::in_pieces();
    let upstream = Upstream::start(first(reply.fields(FRESH), |_| Reply::ok("whole").fields(FRESH)));
    let front = front(&upstream);
    pieces.send("half");
    let leader = front.begin(Request::get("/")).await;
    let follower = front.begin(Request::get("/")).await;
    settle().await;
    pieces.fail();
    assert!(finish(leader).await.body.is_err());
    assert!(finish(follower).await.body.is_err());
    let again = front.get("/").await;
    assert_eq!((again.text(), again.cache()), ("whole", "fwd=uri-miss"));
}

#[tokio::test(start_paused = true)]
async fn followers_of_an_answer_that_is_private_ask_for_themselves_and_later_ones_do_not_queue() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let private = Reply::ok("mine").cache_control("private");
        if seen.earlier == 0 { private.after(&held) } else { private }
    });
    let front = front(&upstream);
    let requests: Vec<_> = (0..3).map(|_| front.ask("/")).collect();
    settle().await;
    assert_eq!(upstream.count(), 1);
    gate.open();
    for request in requests {
        let got: Got = request.await.unwrap();
        assert_eq!(got.text(), "mine");
    }
    assert_eq!(upstream.count(), 3);
    assert_eq!(front.get("/").await.cache(), "fwd=bypass", "the marker lets it pass without waiting");
}

/// What is asked for again while it is being filled, and is stale by then.
async fn asked_again_while_filled(fields: &'static [(&'static str, &'static str)], seconds: u64) -> Upstream {
    let (pieces, reply) = Reply::in_pieces();
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(first(reply.fields(fields), move |_| {
        Reply::ok("one two").fields(fields).after(&held)
    }));
    let front = front(&upstream);
    pieces.send("one ");
    let leader = front.begin(Request::get("/")).await;
    settle().await;
    pass(seconds).await;
    let later: Vec<_> = (0..10).map(|_| front.ask("/")).collect();
    settle().await;
    gate.open();
    let mut caches = Vec::new();
    for request in later {
        let got = request.await.unwrap();
        assert_eq!(got.text(), "one two");
        caches.push(got.cache().to_owned());
    }
    assert!(caches.iter().all(|cache| cache == "fwd=uri-miss"), "{caches:?}");
    pieces.send("two");
    drop(pieces);
    assert_eq!(finish(leader).await.text(), "one two");
    upstream
}

/// Before, each of the ten looked up four times, found the same fetch each time, and then asked for itself alone, labelled
/// vary-miss: eleven requests.
#[tokio::test(start_paused = true)]
async fn those_who_come_after_a_lifetime_has_ended_join_the_next_fetch() {
    for (fields, seconds) in [
        (&[("cache-control", "no-cache"), ("etag", "\"v1\"")][..], 1),
        (&[("cache-control", "max-age=0"), ("etag", "\"v1\"")][..], 1),
        (&[("cache-control", "max-age=1")][..], 2),
    ] {
        assert_eq!(asked_again_while_filled(fields, seconds).await.count(), 2, "{fields:?}");
    }
}

/// Before, requests for other variants of what was still being filled asked for themselves alone, and nothing that they got
/// was stored.
#[tokio::test(start_paused = true)]
async fn other_variants_of_what_is_being_filled_are_fetched_once_each() {
    let vary = &[("cache-control", "max-age=60"), ("vary", "x-language")];
    let (pieces, reply) = Reply::in_pieces();
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(first(reply.fields(vary), move |seen| {
        Reply::ok(seen.header("x-language").to_owned()).fields(vary).after(&held)
    }));
    let front = front(&upstream);
    let _first = front.begin(Request::get("/").header("x-language", "en")).await;
    let ask = |language: &'static str| {
        let front = front.clone();
        tokio::spawn(async move { front.get_with("/", &[("x-language", language)]).await })
    };
    let others: Vec<_> =
        ["de", "fr", "it", "de", "fr", "it"].map(|language| (language, ask(language))).into();
    settle().await;
    assert_eq!(upstream.count(), 4);
    gate.open();
    for (language, other) in others {
        assert_eq!(other.await.unwrap().text(), language);
    }
    assert_eq!(front.get_with("/", &[("x-language", "it")]).await.cache(), "hit");
    drop(pieces);
}

/// Before, those who came while the origin was asked waited for it, and then all waited once more for another validation.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_validation_take_its_answer() {
    for status in [304, 200] {
        let gate = Gate::closed();
        let held = gate.clone();
        let fields = &[("cache-control", "no-cache"), ("etag", "\"v1\"")];
        let upstream = Upstream::start(move |seen| {
            let answer = Reply::ok("page").with_status(if seen.earlier == 0 { 200 } else { status });
            let answer = if status == 304 && seen.earlier > 0 { Reply::status(304) } else { answer };
            let answer = answer.fields(fields);
            if seen.earlier == 0 { answer } else { answer.after(&held) }
        });
        let front = front(&upstream);
        front.get("/").await;
        let mut waiting = vec![front.ask("/")];
        settle().await;
        pass(1).await;
        waiting.extend((0..5).map(|_| front.ask("/")));
        settle().await;
        gate.open();
        for request in waiting {
            assert_eq!(request.await.unwrap().text(), "page");
        }
        assert_eq!(upstream.count(), 2, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_not_answered_by_what_was_asked_before_it_came() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let answer = Reply::ok(["old", "new"][seen.earlier.min(1)]).fields(FRESH);
        if seen.earlier == 0 { answer.after(&held) } else { answer }
    });
    let front = front(&upstream);
    let before = front.ask("/");
    settle().await;
    pass(1).await;
    let reload = |front: Front| async move { front.get_with("/", &[("cache-control", "no-cache")]).await };
    let reloads: Vec<_> = (0..3).map(|_| tokio::spawn(reload(front.clone()))).collect();
    settle().await;
    gate.open();
    assert_eq!(before.await.unwrap().text(), "old");
    for reload in reloads {
        assert_eq!(reload.await.unwrap().text(), "new");
    }
    assert_eq!(upstream.count(), 2);
}

/// Two servers.
struct Servers {
    one: Upstream,
    other: Upstream,
}

impl Dial for Servers {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialling<'a> {
        let server = if address.to_string() == "one:80" { &self.one } else { &self.other };
        server.dial(address)
    }
}

/// Before, whoever shared the fetch that a hung server had got waited for thirty seconds and then had a 504, while the
/// server beside it was idle.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_server_that_hangs_go_on_to_another_one_of_them_at_a_time() {
    let (never, asked) = (Gate::closed(), Arc::new(AtomicUsize::new(0)));
    // Which of them is asked first is drawn by lot: whichever it is hangs.
    let [one, other] = [(); 2].map(|()| {
        let (held, asked) = (never.clone(), Arc::clone(&asked));
        Upstream::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::ok("late").fields(FRESH).after(&held),
            _ => Reply::ok("well").fields(FRESH),
        })
    });
    let servers = Servers { one: one.clone(), other: other.clone() };
    let front = front_over(
        Arc::new(servers),
        "[upstreams.two]\nservers = [\"http://one:80\", \"http://other:80\"]\n\
         [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"two\"\ncache = {}\n",
    );
    let waiting: Vec<_> = (0..20).map(|_| front.ask("/")).collect();
    settle().await;
    assert_eq!(one.count() + other.count(), 1);
    pass(5).await;
    for request in waiting {
        assert_eq!(request.await.unwrap().text(), "well");
    }
    assert_eq!((one.count(), other.count()), (1, 1));
    assert_eq!(front.get("/").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_is_asked_once_more_each_collapse_timeout_and_the_first_answer_is_for_all() {
    let gates = [(); 3].map(|()| Gate::closed());
    let held = gates.clone();
    let upstream = Upstream::start(move |seen| Reply::ok("slow").fields(FRESH).after(&held[seen.earlier]));
    let front = front_with(&upstream, &format!("collapse_timeout = \"2s\"\n{CACHED}"));
    let waiting: Vec<_> = (0..20).map(|_| front.ask("/")).collect();
    settle().await;
    for expected in [1, 2, 3] {
        assert_eq!(upstream.count(), expected);
        if expected < 3 {
            pass(2).await;
        }
    }
    gates[0].open();
    for request in waiting {
        assert_eq!(request.await.unwrap().text(), "slow");
    }
    assert_eq!(upstream.count(), 3);
}

/// Before, when two fetches of a group were answered at once, the client that led the second got the head of the first with
/// the body of the second.
#[tokio::test(start_paused = true)]
async fn the_answers_of_two_fetches_that_come_at_once_are_never_mixed() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let which = ["first", "the second"][seen.earlier];
        Reply::ok(which).header("x-which", which).fields(FRESH).after(&held)
    });
    let front = front_with(&upstream, &format!("collapse_timeout = \"2s\"\n{CACHED}"));
    let waiting: Vec<_> = (0..3).map(|_| front.ask("/")).collect();
    settle().await;
    pass(2).await;
    assert_eq!(upstream.count(), 2);
    gate.open();
    for request in waiting {
        let got = request.await.unwrap();
        assert_eq!(got.text(), got.field("x-which"));
    }
}

/// Before, a group that had been answered was joined for as long as another of its fetches hung: whoever came later got
/// what was stale, by an answer from before it came, and the upstream was not asked.
#[tokio::test(start_paused = true)]
async fn whoever_comes_after_a_failing_answer_asks_anew_though_another_fetch_of_the_group_hangs() {
    let (gate, never) = (Gate::closed(), Gate::closed());
    let held = [gate.clone(), never.clone()];
    let upstream = Upstream::start(move |seen| match seen.earlier {
        0 => Reply::ok("page").fields(FRESH),
        earlier => Reply::status(503).after(&held[earlier - 1]),
    });
    let front = front_with(&upstream, &format!("collapse_timeout = \"2s\"\n{CACHED}"));
    front.get("/").await;
    pass(61).await;
    let waiting: Vec<_> = (0..3).map(|_| front.ask("/")).collect();
    settle().await;
    pass(2).await;
    assert_eq!(upstream.count(), 3);
    gate.open();
    for request in waiting {
        request.await.unwrap();
    }
    upstream.change(|_| Reply::ok("new").fields(FRESH));
    pass(1).await;
    assert_eq!(front.get("/").await.text(), "new");
    drop(never);
}

/// Before, a request with cookies that waited beside others went on in their place when the answer was late, and its private
/// page sent all of them to the origin, each for itself and with nothing stored.
#[tokio::test(start_paused = true)]
async fn one_with_cookies_never_goes_on_for_those_without() {
    let never = Gate::closed();
    let held = never.clone();
    let upstream = Upstream::start(move |seen| match seen.headers.contains_key("cookie") {
        _ if seen.earlier == 0 => Reply::ok("late").fields(FRESH).after(&held),
        true => Reply::ok("mine").cache_control("private"),
        false => Reply::ok("for all").fields(FRESH),
    });
    let front = front(&upstream);
    let mut waiting = vec![front.ask("/")];
    settle().await;
    let with_cookies = front.clone();
    let own = tokio::spawn(async move { with_cookies.get_with("/", &[("cookie", "a=1")]).await });
    settle().await;
    waiting.extend((0..5).map(|_| front.ask("/")));
    settle().await;
    assert_eq!(upstream.count(), 1);
    pass(5).await;
    assert_eq!(own.await.unwrap().text(), "mine");
    for request in waiting {
        assert_eq!(request.await.unwrap().text(), "for all");
    }
    assert_eq!(upstream.count(), 3);
    assert_eq!(front.get("/").await.cache(), "hit");
}

/// Asks three at once, twice, of an upstream that answers only when it is let. Returns how many requests had reached it when
/// each wave waited, and how many at the end.
async fn waves(
    reply: impl Fn() -> Reply + Send + Sync + 'static,
    fields: &'static [(&str, &str)],
) -> [usize; 3] {
    let gates = [Gate::closed(), Gate::closed()];
    let held = gates.clone();
    let upstream = Upstream::start(move |seen| reply().after(&held[usize::from(seen.earlier >= 3)]));
    let front = front(&upstream);
    let mut counts = [0; 3];
    for (wave, gate) in gates.iter().enumerate() {
        let ask = |front: Front| async move { front.get_with("/", fields).await };
        let asked: Vec<_> = (0..3).map(|_| tokio::spawn(ask(front.clone()))).collect();
        settle().await;
        counts[wave] = upstream.count();
        gate.open();
        for request in asked {
            request.await.unwrap();
        }
    }
    counts[2] = upstream.count();
    counts
}

/// Before, in each wave one asked and the others waited for an answer that could not be theirs.
#[tokio::test(start_paused = true)]
async fn after_an_answer_that_cannot_be_shared_requests_go_side_by_side() {
    for status in [404, 429, 500, 503] {
        assert_eq!(waves(move || Reply::status(status), &[]).await, [1, 6, 6], "{status}");
    }
    let own = || Reply::ok("mine").fields(FRESH);
    assert_eq!(waves(own, &[("authorization", "Basic eDp5")]).await, [1, 6, 6]);
}

#[tokio::test(start_paused = true)]
async fn what_one_with_credentials_got_lets_nobody_else_go_alone() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let answer = Reply::ok("x").fields(FRESH);
        if seen.headers.contains_key("authorization") { answer } else { answer.after(&held) }
    });
    let front = front(&upstream);
    front.get_with("/", &[("authorization", "Basic eDp5")]).await;
    let plain: Vec<_> = (0..3).map(|_| front.ask("/")).collect();
    settle().await;
    gate.open();
    for request in plain {
        assert_eq!(request.await.unwrap().text(), "x");
    }
    assert_eq!(upstream.count(), 2);
}

/// Before, each follower asked the upstream that had just said it could not answer.
#[tokio::test(start_paused = true)]
async fn after_429_or_5xx_those_who_waited_get_what_is_stale() {
    for status in [429, 500, 503] {
        let gate = Gate::closed();
        let held = gate.clone();
        let upstream = Upstream::start(move |seen| match seen.earlier {
            0 => Reply::ok("page").fields(FRESH),
            _ => Reply::status(status).after(&held),
        });
        let front = front(&upstream);
        front.get("/").await;
        pass(61).await;
        let waiting: Vec<_> = (0..5).map(|_| front.ask("/")).collect();
        settle().await;
        gate.open();
        let mut stale = 0;
        for request in waiting {
            let got = request.await.unwrap();
            stale += usize::from(
                got.status == 200 && got.field("cache-status").contains("stale-on-shared-failure"),
            );
        }
        assert_eq!((upstream.count(), stale), (2, 4), "{status}");
    }
}

/// Before, a client that read slowly paced everybody who read the same body, unless it read nothing at all for five seconds.
#[tokio::test(start_paused = true)]
async fn a_body_that_outgrows_the_largest_object_is_not_paced_by_its_slowest_reader() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 640;
    let gate = Gate::closed();
    let large = Reply::streamed().then_wait(&gate).then_repeated(vec![b'x'; PIECE], PIECES);
    let upstream = Upstream::start(first(large.fields(FRESH), |_| Reply::ok("alone").fields(FRESH)));
    let front = front(&upstream);
    let mut fast = front.begin(Request::get("/")).await;
    let mut slow = front.begin(Request::get("/")).await;
    let began = tokio::time::Instant::now();
    gate.open();
    let (mut read, mut most, mut slow_reads) = (0, 0, true);
    while let Some(frame) = fast.body_mut().frame().await {
        let before = read;
        read += frame.unwrap().into_data().unwrap().len();
        most = most.max(front.edge.memory.in_flight());
        if slow_reads && before / (20 * PIECE) != read / (20 * PIECE) {
            slow_reads = matches!(slow.body_mut().frame().await, Some(Ok(_)));
        }
    }
    assert_eq!((read, began.elapsed()), (PIECE * PIECES, Duration::ZERO));
    assert!(most <= 2 << 20, "{most} bytes held of {read}");
    assert!(!slow_reads, "it fell behind and was let go");
    assert_eq!(front.get("/").await.text(), "alone");
    assert_eq!(upstream.count(), 2);
}

/// Before, each such answer held one of the upstream's connections for as long as the upstream went on.
#[tokio::test(start_paused = true)]
async fn an_endless_answer_ends_soon_after_its_last_reader_has_left() {
    let (pieces, reply) = Reply::in_pieces();
    let upstream = Upstream::start(first(reply.fields(FRESH), |_| Reply::ok("again").fields(FRESH)));
    let front = front(&upstream);
    let reader = front.begin(Request::get("/")).await;
    for _ in 0..20 {
        pieces.send("tick");
        pass(1).await;
    }
    assert!(pieces.are_wanted(), "it is read");
    drop(reader);
    for _ in 0..11 {
        if pieces.are_wanted() {
            pieces.send("tick");
        }
        pass(1).await;
    }
    assert!(!pieces.are_wanted());
    assert_eq!(front.get("/").await.text(), "again");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fill_of_known_length_goes_on_without_readers() {
    let (pieces, reply) = Reply::in_pieces();
    let fields = &[("cache-control", "max-age=600"), ("content-length", "40")];
    let upstream = Upstream::start(first(reply.fields(fields), |_| panic!("one request")));
    let front = front(&upstream);
    drop(front.begin(Request::get("/")).await);
    for _ in 0..10 {
        pieces.send("tick");
        pass(5).await;
    }
    drop(pieces);
    settle().await;
    assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_longer_than_that_of_a_newer_answer_does_not_replace_it() {
    let (pieces, reply) = Reply::in_pieces();
    let old = reply.fields(&[("cache-control", "no-cache"), ("etag", "\"old\"")]);
    let new = &[("cache-control", "max-age=60"), ("etag", "\"new\"")];
    let upstream = Upstream::start(first(old, |_| Reply::ok("new").fields(new)));
    let front = front(&upstream);
    let reader = front.begin(Request::get("/")).await;
    settle().await;
    pass(1).await;
    assert_eq!(front.get("/").await.text(), "new");
    pieces.send("old");
    drop(pieces);
    assert_eq!(finish(reader).await.text(), "old");
    settle().await;
    assert_eq!((front.get("/").await.text(), upstream.count()), ("new", 2));
}
