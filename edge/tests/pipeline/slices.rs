//! Answers by slices: each fetched and stored by itself, and never two representations in one answer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use cache_policy::Tag;
use edge::cache::purge::{Force, Rule};
use http::Request;
use http_body_util::BodyExt as _;
use scripted_upstream::{Gate, Reply, Seen};

use crate::{
    explain::explain,
    front::{Front, Got, cached, front_with, pass, settings_for, settle},
    upstream::Upstream,
};

const SLICE: u64 = 256 << 10;
/// Larger than what is kept of anything whole: eight slices, and one that is shorter.
const LENGTH: u64 = 8 * SLICE + 1000;
const SLICES: usize = 9;
const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// Octets whose place can be told from them. `of` makes other representations.
fn film(of: u8) -> Bytes {
    (0..LENGTH).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8 ^ of).collect()
}

/// The one range that is asked for.
fn range(seen: &Seen) -> Option<(u64, u64)> {
    if seen.header("range").contains(',') {
        return None;
    }
    let (first, last) = seen.header("range").strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().map_or(LENGTH, |last: u64| last + 1).min(LENGTH)))
}

/// A server of this representation that knows ranges and what a validator is.
fn serves(of: u8, etag: &'static str) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let film = film(of);
    move |seen| {
        if seen.header("if-none-match") == etag {
            return Reply::status(304).fields(&[FRESH, ("etag", etag)]);
        }
        let fields = [FRESH, ("etag", etag), ("surrogate-key", "films"), ("accept-ranges", "bytes")];
        match range(seen).filter(|_| ["", etag].contains(&seen.header("if-range"))) {
            None => Reply::ok(film.clone()).fields(&fields),
            Some((first, _)) if first >= LENGTH => {
                Reply::status(416).header("content-range", &format!("bytes */{LENGTH}"))
            }
            Some((first, end)) => Reply::ok(film.slice(first as usize..end as usize))
                .with_status(206)
                .fields(&fields)
                .header("content-range", &format!("bytes {first}-{}/{LENGTH}", end - 1)),
        }
    }
}

fn sliced(upstream: &Upstream) -> Front {
    front_with(upstream, &cached("slice = \"256 KiB\""))
}

/// The slices that the upstream was asked for, by their number.
fn asked(upstream: &Upstream) -> Vec<u64> {
    let number = |seen: &Seen| {
        let (first, end) = range(seen).unwrap_or_else(|| panic!("no slice: {:?}", seen.headers));
        assert_eq!((first % SLICE, end), (0, (first + SLICE).min(LENGTH)), "{:?}", seen.headers);
        first / SLICE
    };
    upstream.seen().iter().map(number).collect()
}

#[track_caller]
fn assert_is(got: &Got, of: u8, octets: std::ops::Range<u64>) {
    let body = got.body.as_ref().expect("a whole body");
    assert!(
        *body == film(of).slice(octets.start as usize..octets.end as usize),
        "other octets than {octets:?}"
    );
    assert_eq!(got.field("content-length"), (octets.end - octets.start).to_string());
}

#[tokio::test(start_paused = true)]
async fn a_whole_that_is_too_large_to_be_stored_is_stored_slice_by_slice() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    let miss = front.get_with("/film", &[("accept-encoding", "br, gzip")]).await;
    assert_eq!((miss.status, miss.cache(), miss.field("content-range")), (200, "fwd=uri-miss", ""));
    assert_is(&miss, 0, 0..LENGTH);
    assert_eq!(asked(&upstream), (0..SLICES as u64).collect::<Vec<_>>());
    assert!(upstream.seen().iter().all(|seen| seen.header("accept-encoding") == "identity"));
    let hit = front.get("/film").await;
    assert_eq!((hit.status, hit.cache()), (200, "hit"));
    assert_is(&hit, 0, 0..LENGTH);
    assert_eq!(upstream.count(), SLICES);
}

#[tokio::test(start_paused = true)]
async fn what_is_watched_is_fetched_and_nothing_else() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    for (range, octets, fetched) in [
        ("bytes=300000-300009", 300_000..300_010, &[1][..]),
        ("bytes=262144-262144", 262_144..262_145, &[1]),
        ("bytes=500000-600000", 500_000..600_001, &[1, 2]),
        ("bytes=2000000-", 2_000_000..LENGTH, &[1, 2, 7, 8]),
        ("bytes=2097000-9999999", 2_097_000..LENGTH, &[1, 2, 7, 8]),
        // The length of the whole is known from its first slice.
        ("bytes=-1500", LENGTH - 1500..LENGTH, &[1, 2, 7, 8, 0]),
        ("bytes=0-", 0..LENGTH, &[1, 2, 7, 8, 0, 3, 4, 5, 6]),
    ] {
        let got = front.get_with("/film", &[("range", range)]).await;
        let place = format!("bytes {}-{}/{LENGTH}", octets.start, octets.end - 1);
        assert_eq!((got.status, got.field("content-range")), (206, &*place), "{range}");
        assert_is(&got, 0, octets);
        assert_eq!(asked(&upstream), fetched, "{range}");
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_are_those_of_the_whole() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    front.get_with("/film", &[("range", "bytes=0-0")]).await;
    for (fields, status) in [
        (&[("if-none-match", "\"a\"")][..], 304),
        (&[("if-none-match", "\"b\""), ("range", "bytes=0-9")], 206),
        (&[("if-none-match", "W/\"a\""), ("range", "bytes=0-9")], 304),
        (&[("if-range", "\"a\""), ("range", "bytes=0-9")], 206),
    ] {
        assert_eq!(front.get_with("/film", fields).await.status, status, "{fields:?}");
    }
    assert_eq!(upstream.count(), 1);
    // Another representation than the client has: the whole, from its beginning (RFC 9110 §13.1.5).
    let other = front.get_with("/film", &[("if-range", "\"b\""), ("range", "bytes=600000-600009")]).await;
    assert_eq!(other.status, 200);
    assert_is(&other, 0, 0..LENGTH);
    // A HEAD knows no range (RFC 9110 §14.2), and is answered from what is stored.
    let head = front.send(Request::head("/film").header("range", "bytes=0-9")).await;
    assert_eq!((head.status, head.field("content-length")), (200, &*LENGTH.to_string()));
    assert_eq!((head.cache(), head.field("content-range"), upstream.count()), ("hit", "", SLICES));
}

#[tokio::test(start_paused = true)]
async fn what_lies_behind_the_end_is_told_how_long_the_whole_is() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    let end = format!("bytes */{LENGTH}");
    // In the last slice, and in none.
    for range in [format!("bytes={LENGTH}-"), "bytes=9999999-".to_owned(), "bytes=-0".to_owned()] {
        let got = front.get_with("/film", &[("range", &range)]).await;
        assert_eq!((got.status, got.field("content-range")), (416, &*end), "{range}");
    }
    // A condition that fails has the range not count.
    let whole = front.get_with("/film", &[("if-range", "\"b\""), ("range", "bytes=9999999-")]).await;
    assert_eq!(whole.status, 200);
    assert_is(&whole, 0, 0..LENGTH);
}

#[tokio::test(start_paused = true)]
async fn several_ranges_are_answered_as_on_any_route() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    let got = front.get_with("/film", &[("range", "bytes=0-0, 9-9")]).await;
    assert_eq!(got.status, 200);
    assert_is(&got, 0, 0..LENGTH);
    let asked: Vec<_> = upstream.seen().iter().map(|seen| seen.header("range").to_owned()).collect();
    assert!(asked.iter().all(|range| ["", "bytes=0-0, 9-9"].contains(&&**range)), "{asked:?}");
}

/// What anybody may ask for tells nothing about what others are answered.
#[tokio::test(start_paused = true)]
async fn odd_requests_of_one_client_leave_the_slices_of_others() {
    let serves = serves(0, "\"a\"");
    let upstream = Upstream::start(move |seen| match range(seen) {
        // It takes no range that lies behind the end.
        Some((first, _)) if first >= LENGTH => Reply::ok("sorry").fields(&[("cache-control", "no-store")]),
        _ if seen.header("referer") == "http://elsewhere.test/" => Reply::status(403),
        _ => serves(seen),
    });
    let front = sliced(&upstream);
    front.get("/film").await;
    let refused =
        front.get_with("/film", &[("cache-control", "no-cache"), ("referer", "http://elsewhere.test/")]);
    assert_eq!(refused.await.status, 403);
    for fields in [("range", "bytes=0-0, 9-9"), ("range", "bytes=99999999-"), ("cache-control", "no-store")] {
        front.get_with("/film", &[fields]).await;
    }
    let asked = upstream.count();
    let got = front.get("/film").await;
    assert_eq!((got.cache(), upstream.count()), ("hit", asked));
    assert_is(&got, 0, 0..LENGTH);
    let stored = front.get_with("/film", &[("cache-control", "only-if-cached")]).await;
    assert_eq!(stored.status, 504);
}

#[tokio::test(start_paused = true)]
async fn an_answer_breaks_off_where_its_representation_has_changed_and_the_next_begins_anew() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    front.get_with("/film", &[("range", "bytes=0-600000")]).await;
    pass(1).await;
    upstream.change(serves(7, "\"b\""));
    let broken = front.get("/film").await;
    assert_eq!((broken.status, broken.field("etag")), (200, "\"a\""));
    assert!(broken.body.is_err(), "octets of two representations, or too few as if they were all");
    // Also what nobody has asked for since is of what it was.
    let part = front.get_with("/film", &[("range", "bytes=300000-300009")]).await;
    assert_eq!(part.field("etag"), "\"b\"");
    assert_is(&part, 7, 300_000..300_010);
    let whole = front.get("/film").await;
    assert_eq!(whole.field("etag"), "\"b\"");
    assert_is(&whole, 7, 0..LENGTH);
}

/// The slices are for all; who asks is not, and finds all the same that they have changed.
#[tokio::test(start_paused = true)]
async fn a_client_with_cookies_begins_anew_too_where_its_representation_has_changed() {
    let for_all = |serves: fn(&Seen) -> Reply| {
        move |seen: &Seen| serves(seen).header("cdn-cache-control", "public, max-age=60")
    };
    let upstream = Upstream::start(for_all(|seen| serves(0, "\"a\"")(seen)));
    let front = sliced(&upstream);
    let cookie = ("cookie", "id=1");
    front.get_with("/film", &[cookie, ("range", "bytes=0-600000")]).await;
    pass(1).await;
    upstream.change(for_all(|seen| serves(7, "\"b\"")(seen)));
    assert!(front.get_with("/film", &[cookie]).await.body.is_err());
    for fields in [&[cookie][..], &[]] {
        let got = front.get_with("/film", fields).await;
        assert_eq!(got.field("etag"), "\"b\"");
        assert_is(&got, 7, 0..LENGTH);
    }
}

#[tokio::test(start_paused = true)]
async fn stored_slices_of_what_it_was_are_asked_for_anew_in_the_same_answer() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    front.get_with("/film", &[("range", "bytes=0-0")]).await;
    pass(50).await;
    front.get_with("/film", &[("range", "bytes=262144-")]).await;
    pass(20).await;
    upstream.change(serves(7, "\"b\""));
    // The first has become stale and is another one now; the others would be fresh for a while.
    let got = front.get("/film").await;
    assert_eq!((got.status, got.field("etag")), (200, "\"b\""));
    assert_is(&got, 7, 0..LENGTH);
    assert_eq!(upstream.count(), 2 * SLICES);
}

#[tokio::test(start_paused = true)]
async fn where_servers_disagree_about_what_it_is_one_of_them_sends_all_of_it() {
    let (one, other) = (serves(0, "\"a\""), serves(0, "\"b\""));
    let upstream = Upstream::start(move |seen| {
        match seen.headers.contains_key("range") && range(seen).is_some_and(|range| range.0 > 0) {
            true => other(seen),
            false => one(seen),
        }
    });
    let front = sliced(&upstream);
    for _ in 0..2 {
        pass(1).await;
        assert!(front.get("/film").await.body.is_err());
    }
    let got = front.get("/film").await;
    assert_eq!(got.status, 200);
    assert_is(&got, 0, 0..LENGTH);
    assert!(!upstream.seen().last().unwrap().headers.contains_key("range"));
}

#[tokio::test(start_paused = true)]
async fn a_stale_slice_is_validated_as_any_stored_response() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    front.get("/film").await;
    pass(70).await;
    let got = front.get_with("/film", &[("range", "bytes=200000-300000")]).await;
    assert_eq!(
        (got.status, got.field("cache-status")),
        (206, "gatehouse; fwd=stale; fwd-status=304; stored; detail=stale")
    );
    assert_is(&got, 0, 200_000..300_001);
    let asked: Vec<_> =
        upstream.seen()[SLICES..].iter().map(|seen| seen.header("if-none-match").to_owned()).collect();
    assert_eq!(asked, ["\"a\"", "\"a\""]);
    upstream.stop();
    let stale = front.get_with("/film", &[("range", "bytes=600000-600009")]).await;
    assert_eq!(stale.status, 206);
    assert_is(&stale, 0, 600_000..600_010);
}

#[tokio::test(start_paused = true)]
async fn the_whole_in_place_of_a_slice_is_the_answer_and_is_stored() {
    let upstream = Upstream::start(|_| Reply::ok("0123456789").fields(&[FRESH, ("etag", "\"a\"")]));
    let front = sliced(&upstream);
    let part = front.get_with("/small", &[("range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.text(), part.field("content-range")), (206, "234", "bytes 2-4/10"));
    let whole = front.get("/small").await;
    assert_eq!((whole.status, whole.text(), whole.cache()), (200, "0123456789", "hit"));
    assert_eq!(front.get_with("/small", &[("range", "bytes=-2")]).await.text(), "89");
    assert_eq!(front.get_with("/small", &[("if-none-match", "\"a\"")]).await.status, 304);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_ranges_is_not_asked_for_them_again_at_once() {
    let film = film(0);
    let upstream = Upstream::start(move |_| Reply::ok(film.clone()).fields(&[FRESH, ("etag", "\"a\"")]));
    let front = sliced(&upstream);
    for asked in 1..=2 {
        let got = front.get("/film").await;
        assert_eq!(got.status, 200);
        assert_is(&got, 0, 0..LENGTH);
        assert_eq!(upstream.count(), asked);
    }
    let ranged = |seen: &Seen| seen.headers.contains_key("range");
    assert_eq!(upstream.seen().iter().map(ranged).collect::<Vec<_>>(), [true, false]);
}

/// What one upstream answers to a range, and what must come of it: the whole as it says it.
#[tokio::test(start_paused = true)]
async fn what_is_no_slice_is_never_sent_as_one() {
    const WHOLE: &str = "the whole";
    for (place, more) in [
        ("bytes 0-3/4", ("etag", "W/\"a\"")),
        ("bytes 0-3/4", ("x-no", "validator")),
        ("bytes 0-3/9", ("etag", "\"a\"")),
        ("bytes 1-4/9", ("etag", "\"a\"")),
        ("bytes 0-3/*", ("etag", "\"a\"")),
        ("bytes 0-3/10", ("etag", "\"a\"")),
        ("bytes 0-9/10", ("etag", "\"a\"")),
        ("bytes a-b/c", ("etag", "\"a\"")),
    ] {
        let upstream = Upstream::start(move |seen| match seen.headers.contains_key("range") {
            true => Reply::ok("the ").with_status(206).fields(&[FRESH, ("content-range", place), more]),
            false => Reply::ok(WHOLE).fields(&[FRESH]),
        });
        let front = sliced(&upstream);
        let got = front.get("/").await;
        assert_eq!((got.status, got.text()), (200, WHOLE), "{place} {more:?}");
        assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", 2), "{place} {more:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_breaks_off_at_a_slice_that_does_not_come_and_goes_on_with_the_next_request() {
    let right = Arc::new(serves(0, "\"a\""));
    for wrong in [
        |_: &Seen| Reply::status(503),
        |_: &Seen| Reply::hang_up(),
        |_: &Seen| Reply::status(404),
        |_: &Seen| Reply::ok("none of it").cache_control("no-store"),
        // Shorter than it says.
        |_: &Seen| {
            Reply::streamed()
                .then("too short")
                .with_status(206)
                .fields(&[FRESH, ("etag", "\"a\"")])
                .header("content-range", &format!("bytes 524288-786431/{LENGTH}"))
        },
        |_: &Seen| {
            let fields = [FRESH, ("etag", "\"a\""), ("content-range", "bytes 524287-786430/2098152")];
            Reply::ok(vec![0; SLICE as usize]).with_status(206).fields(&fields)
        },
    ] {
        let upstream = Upstream::start({
            let right = Arc::clone(&right);
            move |seen| match range(seen) {
                Some((first, _)) if first == 2 * SLICE => wrong(seen),
                _ => right(seen),
            }
        });
        let front = sliced(&upstream);
        let broken = front.get("/film").await;
        assert_eq!(broken.status, 200);
        assert!(broken.body.is_err(), "{:?}", broken.headers);
        pass(31).await;
        upstream.change({
            let right = Arc::clone(&right);
            move |seen| right(seen)
        });
        let whole = front.get_with("/film", &[("range", "bytes=0-")]).await;
        assert_is(&whole, 0, 0..LENGTH);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_for_one_client_is_not_stored_and_no_one_elses() {
    let count = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |seen| {
        let mine = format!("{:04}", count.fetch_add(1, Ordering::Relaxed));
        let reply = match seen.headers.contains_key("range") {
            true => Reply::ok(mine).with_status(206).header("content-range", "bytes 0-3/4"),
            false => Reply::ok(mine),
        };
        reply.fields(&[("cache-control", "private, max-age=60"), ("etag", "\"a\"")])
    });
    let front = sliced(&upstream);
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(front.get("/").await.text().to_owned());
    }
    got.dedup();
    assert_eq!(got.len(), 3, "{got:?}");
    // With credentials, and with a cookie, it is that client's request.
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    front.get("/film").await;
    for own in [("authorization", "Basic YTpi"), ("cookie", "id=1")] {
        let before = upstream.count();
        let got = front.get_with("/film", &[own]).await;
        assert_is(&got, 0, 0..LENGTH);
        let seen = upstream.seen();
        assert!(
            seen.len() > before && seen[before..].iter().all(|seen| seen.headers.contains_key(own.0)),
            "{own:?}"
        );
        assert_is(&front.get_with("/film", &[own]).await, 0, 0..LENGTH);
        assert_eq!(upstream.count(), seen.len() + 1, "{own:?}: once, as the client has asked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_finds_every_slice() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    let url: Box<str> = "https://shop.example:443/film".into();
    for rule in [
        Rule::Key(url.clone()),
        Rule::Tag(Tag::Key("films".into())),
        Rule::Prefix("https://shop.example:443/fi".into()),
        Rule::Host("shop.example".into()),
        Rule::Everything,
    ] {
        front.get("/film").await;
        settle().await;
        let now = front.edge.clock.now();
        assert_eq!(front.edge.memory.purge(vec![rule.clone()], Force::Hard, now), SLICES, "{rule:?}");
        let before = upstream.count();
        assert_eq!(
            front.get_with("/film", &[("range", "bytes=600000-600009")]).await.cache(),
            "fwd=uri-miss"
        );
        assert_eq!(upstream.count(), before + 1, "{rule:?}");
        settle().await;
        front.edge.memory.purge(vec![Rule::Everything], Force::Hard, now);
    }
    // What changes it too (RFC 9111 §4.4).
    front.get("/film").await;
    front.send_body(Request::post("/film"), "change").await;
    assert_eq!(front.get_with("/film", &[("range", "bytes=600000-600009")]).await.cache(), "fwd=uri-miss");
}

#[tokio::test(start_paused = true)]
async fn one_fetch_of_a_slice_answers_all_who_watch_it() {
    let gate = Gate::closed();
    let serves = serves(0, "\"a\"");
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |seen| serves(seen).after(&gate)
    });
    let front = sliced(&upstream);
    let watch = |range: &'static str| {
        let front = front.clone();
        tokio::spawn(async move { front.get_with("/film", &[("range", range)]).await })
    };
    let watching = [watch("bytes=300000-300009"), watch("bytes=262144-400000"), watch("bytes=524287-524287")];
    settle().await;
    gate.open();
    let octets = [300_000..300_010, 262_144..400_001, 524_287..524_288];
    for (watching, octets) in watching.into_iter().zip(octets) {
        assert_is(&watching.await.unwrap(), 0, octets);
    }
    assert_eq!(asked(&upstream), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_has_nothing_more_fetched() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    let mut watching = front.begin(Request::get("/film")).await;
    watching.body_mut().frame().await.unwrap().unwrap();
    pass(5).await;
    let fetched = upstream.count();
    assert!(fetched < SLICES, "{fetched} slices wait for it in buffers");
    drop(watching);
    pass(5).await;
    assert!(upstream.count() <= fetched + 1, "nobody watches on");
}

#[tokio::test(start_paused = true)]
async fn other_slices_than_before_are_other_objects() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    front.get_with("/film", &[("range", "bytes=0-9")]).await;
    front.reload(settings_for(&["origin"], &cached("slice = \"512 KiB\"")));
    let got = front.get_with("/film", &[("range", "bytes=300000-300009")]).await;
    assert_is(&got, 0, 300_000..300_010);
    assert_eq!(upstream.seen()[1].header("range"), "bytes=0-524287");
}

#[tokio::test(start_paused = true)]
async fn it_is_told_which_slice_answers_and_whether_it_is_stored() {
    let upstream = Upstream::start(serves(0, "\"a\""));
    let front = sliced(&upstream);
    let range = [("range", "bytes=300000-300009")];
    let before = explain(&front, "/film", &range);
    assert_eq!((before.verdict.as_str(), before.reason.as_deref()), ("fetch", Some("miss")));
    assert_eq!(before.key, "https://shop.example:443/film octets=262144-524287");
    assert_eq!(before.asks, ["GET /film", "range: bytes=262144-524287"]);
    front.get_with("/film", &range).await;
    settle().await;
    let after = explain(&front, "/film", &range);
    assert_eq!(after.verdict, "hit");
    assert_eq!(after.stored.unwrap().parts.unwrap().held, ["262144-524287"]);
    assert!(after.notes.iter().any(|note| note.contains("octets 262144-524287")), "{:?}", after.notes);
    assert_eq!(explain(&front, "/film", &[]).verdict, "fetch");
}
