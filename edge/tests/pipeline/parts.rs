//! Parts: fetched as parts, stored, combined and completed (RFC 9111 §3.3, §3.4), and several at once (RFC 9110 §14.6).

use cache_policy::Tag;
use edge::cache::purge::{Force, Rule};
use http::Request;
use scripted_upstream::{Pieces, Reply, Seen, first};

use crate::{
    front::{Front, Got, cached, finish, front, front_with, pass, settle},
    upstream::Upstream,
};

const WHOLE: &str = "0123456789";
const TAGGED: (&str, &str) = ("etag", "\"v1\"");
const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// An origin that knows `bytes=FIRST-LAST` and `bytes=FIRST-`.
fn ranged(seen: &Seen) -> Reply {
    let Some(range) = seen.headers.get("range") else {
        return Reply::ok(WHOLE).fields(&[FRESH, TAGGED]);
    };
    let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(9));
    let place: &'static str = Box::leak(format!("bytes {first}-{last}/10").into_boxed_str());
    Reply::ok(&WHOLE[first..=last]).with_status(206).fields(&[FRESH, TAGGED, ("content-range", place)])
}

#[tokio::test(start_paused = true)]
async fn a_part_is_fetched_as_such_and_answers_every_range_inside_it() {
    let upstream = Upstream::start(ranged);
    let front = front(&upstream);
    let miss = front.get_with("/", &[("range", "bytes=2-7")]).await;
    assert_eq!((miss.status, miss.text(), miss.field("content-range")), (206, "234567", "bytes 2-7/10"));
    assert_eq!(upstream.seen()[0].headers["range"], "bytes=2-7");
    for (range, text) in [("bytes=2-7", "234567"), ("bytes=3-4", "34"), ("bytes=7-7", "7")] {
        let hit = front.get_with("/", &[("range", range)]).await;
        assert_eq!((hit.status, hit.text(), hit.cache()), (206, text, "hit"), "{range}");
    }
    let held = front.get_with("/", &[("range", "bytes=3-4"), ("if-none-match", "\"v1\"")]).await;
    assert_eq!(held.status, 304);
    assert_eq!(front.get_with("/", &[("range", "bytes=10-")]).await.status, 416);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_missing_is_fetched_and_parts_become_a_whole() {
    let upstream = Upstream::start(ranged);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-3")]).await;
    let wider = front.get_with("/", &[("range", "bytes=2-5")]).await;
    assert_eq!((wider.status, wider.text(), wider.field("content-range")), (206, "2345", "bytes 2-5/10"));
    assert_eq!(
        wider.field("cache-status"),
        "gatehouse; fwd=partial; fwd-status=206; stored; detail=partial-miss"
    );
    let asked = &upstream.seen()[1].headers;
    assert_eq!((asked["range"].to_str().unwrap(), &asked["if-range"]), ("bytes=4-5", &asked["if-range"]));
    assert_eq!(asked["if-range"], "\"v1\"");
    let whole = front.get("/").await;
    assert_eq!((whole.status, whole.text(), whole.field("content-range")), (200, WHOLE, ""));
    assert_eq!(upstream.seen()[2].headers["range"], "bytes=6-");
    // It was told as a 200 of the upstream's.
    let status = "gatehouse; fwd=partial; fwd-status=206; stored; detail=partial-miss";
    assert_eq!(whole.field("cache-status"), status);
    let hit = front.get("/").await;
    assert_eq!((hit.status, hit.text(), hit.cache(), hit.field("content-length")), (200, WHOLE, "hit", "10"));
    assert_eq!(upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn parts_of_different_representations_are_never_combined() {
    let upstream = Upstream::start(ranged);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-4")]).await;
    upstream.change(|seen| {
        let changed = [FRESH, ("etag", "\"v2\"")];
        // It ignores If-Range, as some do.
        match seen.headers.get("range") {
            Some(_) => Reply::ok("vwxyz").with_status(206).fields(&[
                changed[0],
                changed[1],
                ("content-range", "bytes 5-9/10"),
            ]),
            None => Reply::ok("qrstuvwxyz").fields(&changed),
        }
    });
    assert_eq!(front.get("/").await.text(), "qrstuvwxyz");
    assert_eq!(front.get("/").await.text(), "qrstuvwxyz");
    assert_eq!(upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_shorter_than_it_says_is_passed_on_and_not_stored() {
    let fields = &[FRESH, TAGGED, ("content-range", "bytes 4-9/10")];
    let upstream = Upstream::start(move |_| Reply::ok("45678").with_status(206).fields(fields));
    let strict = front(&upstream);
    for expected in [1, 2] {
        let got = strict.get_with("/", &[("range", "bytes=-5")]).await;
        assert_eq!((got.status, got.text()), (206, "45678"));
        assert_eq!(upstream.count(), expected);
    }
    let fitted = front_with(&upstream, &cached("ranges = \"fitted\""));
    fitted.get_with("/", &[("range", "bytes=-5")]).await;
    let hit = fitted.get_with("/", &[("range", "bytes=6-")]).await;
    assert_eq!((hit.text(), hit.field("content-range"), hit.cache()), ("678", "bytes 6-8/9", "hit"));
}

#[tokio::test(start_paused = true)]
async fn a_route_may_fetch_the_whole_for_a_part_and_so_does_a_range_of_everything() {
    let upstream = Upstream::start(ranged);
    let whole = front_with(&upstream, &cached("ranges = \"whole\""));
    assert_eq!(whole.get_with("/", &[("range", "bytes=2-3")]).await.text(), "23");
    assert_eq!(whole.get("/").await.cache(), "hit");
    let parts = front(&upstream);
    let got = parts.get_with("/", &[("range", "bytes=0-")]).await;
    assert_eq!((got.status, got.text()), (206, WHOLE));
    assert_eq!(parts.get("/").await.cache(), "hit");
    assert_eq!(upstream.count(), 2);
    assert!(upstream.seen().iter().all(|seen| !seen.headers.contains_key("range")));
}

#[tokio::test(start_paused = true)]
async fn several_ranges_come_framed() {
    let front = front(&Upstream::start(ranged));
    front.get("/").await;
    let got = front.get_with("/", &[("range", "bytes=0-1, 8-")]).await;
    let boundary = got.field("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |place: &str, octets: &str| {
        format!("--{boundary}\r\nContent-Range: bytes {place}/10\r\n\r\n{octets}\r\n")
    };
    let framed = format!("{}{}--{boundary}--\r\n", part("0-1", "01"), part("8-9", "89"));
    assert_eq!((got.status, got.text()), (206, &*framed));
    assert_eq!(got.field("content-length"), framed.len().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_purge_takes_parts_too() {
    let upstream = Upstream::start(ranged);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-3")]).await;
    front.send_body(Request::post("/"), "change").await;
    assert_eq!(front.get_with("/", &[("range", "bytes=0-3")]).await.cache(), "fwd=uri-miss");
    assert_eq!(upstream.seen().last().unwrap().headers["range"], "bytes=0-3");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_what_is_not_stored_is_asked_of_the_origin_as_a_part() {
    let upstream = Upstream::start(|seen| {
        let no_store = ("cache-control", "no-store");
        match seen.headers.get("range") {
            Some(_) => {
                Reply::ok("part").with_status(206).fields(&[no_store, ("content-range", "bytes 0-3/9")])
            }
            None => Reply::ok("the whole").fields(&[no_store]),
        }
    });
    let front = front(&upstream);
    let got = front.get_with("/", &[("range", "bytes=0-3")]).await;
    assert_eq!((got.status, got.text()), (206, "part"));
}

/// As [`ranged`]; and it knows what a validator is.
fn validating(seen: &Seen) -> Reply {
    match seen.headers.get("if-none-match") {
        Some(tag) if tag == "\"v1\"" => Reply::status(304).fields(&[FRESH, TAGGED]),
        _ => ranged(seen),
    }
}

/// The fields of a request as the upstream has seen it, empty where they are missing.
fn fields<const N: usize>(seen: &Seen, names: [&str; N]) -> [String; N] {
    names.map(|name| seen.header(name).to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_stale_part_is_validated_and_all_of_it_is_fresh_again() {
    let upstream = Upstream::start(validating);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=2-7")]).await;
    pass(61).await;
    let validated = front.get_with("/", &[("range", "bytes=3-4"), ("if-none-match", "\"v0\"")]).await;
    assert_eq!(
        (validated.status, validated.text(), validated.field("content-range")),
        (206, "34", "bytes 3-4/10")
    );
    assert_eq!(validated.field("cache-status"), "gatehouse; fwd=stale; fwd-status=304; stored; detail=stale");
    assert_eq!(
        fields(&upstream.seen()[1], ["if-none-match", "range", "if-range"]),
        ["\"v1\"", "bytes=3-4", ""]
    );
    let hit = front.get_with("/", &[("range", "bytes=2-7")]).await;
    assert_eq!((hit.text(), hit.field("cache-status")), ("234567", "gatehouse; hit; ttl=60"));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_part_of_what_has_changed_gives_way_to_the_part_that_was_asked_for() {
    let upstream = Upstream::start(validating);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=2-7")]).await;
    pass(61).await;
    upstream.change(|seen| {
        let (place, octets) =
            if seen.headers["range"] == "bytes=3-4" { ("bytes 3-4/8", "XY") } else { ("bytes 2-2/8", "W") };
        Reply::ok(octets).with_status(206).fields(&[FRESH, ("etag", "\"v2\""), ("content-range", place)])
    });
    for cache in ["fwd=stale", "hit"] {
        let got = front.get_with("/", &[("range", "bytes=3-4")]).await;
        assert_eq!((got.text(), got.field("content-range"), got.cache()), ("XY", "bytes 3-4/8", cache));
    }
    let held_before = front.get_with("/", &[("range", "bytes=2-2")]).await;
    assert_eq!((held_before.text(), upstream.count()), ("W", 3), "what was held of the old one is gone");
}

#[tokio::test(start_paused = true)]
async fn a_representation_that_became_shorter_than_a_stale_part_is_forgotten() {
    let upstream = Upstream::start(validating);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=5-9")]).await;
    pass(61).await;
    upstream.change(|_| Reply::status(416).header("content-range", "bytes */3"));
    let got = front.get_with("/", &[("range", "bytes=5-9")]).await;
    assert_eq!((got.status, got.field("content-range")), (416, "bytes */3"));
    upstream.change(validating);
    let again = front.get_with("/", &[("range", "bytes=5-9")]).await;
    assert_eq!((again.text(), again.cache()), ("56789", "fwd=uri-miss"));
    assert_eq!(fields(&upstream.seen()[2], ["if-none-match"]), [""]);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_of_a_stale_part_validates_what_is_held() {
    let upstream = Upstream::start(validating);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-3")]).await;
    pass(61).await;
    let got = front.get_with("/", &[("range", "bytes=2-5")]).await;
    assert_eq!((got.status, got.text(), got.field("age")), (206, "2345", ""));
    assert_eq!(
        fields(&upstream.seen()[1], ["range", "if-range", "if-none-match"]),
        ["bytes=4-5", "\"v1\"", ""]
    );
    assert_eq!(
        front.get_with("/", &[("range", "bytes=0-5")]).await.field("cache-status"),
        "gatehouse; hit; ttl=60"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_part_answers_inside_its_windows() {
    let upstream = Upstream::start(|seen| {
        let windows = ("cache-control", "max-age=10, stale-while-revalidate=20, stale-if-error=600");
        match seen.headers.get("if-none-match") {
            Some(_) => Reply::status(304).fields(&[windows, TAGGED]),
            None => Reply::ok("2345").with_status(206).fields(&[
                windows,
                TAGGED,
                ("content-range", "bytes 2-5/10"),
            ]),
        }
    });
    let front = front(&upstream);
    let range = [("range", "bytes=2-5")];
    front.get_with("/", &range).await;
    pass(11).await;
    let stale = front.get_with("/", &range).await;
    assert_eq!((stale.status, stale.text(), stale.field("age")), (206, "2345", "11"));
    settle().await;
    assert_eq!(fields(&upstream.seen()[1], ["range", "if-none-match"]), ["bytes=2-5", "\"v1\""]);
    assert_eq!(front.get_with("/", &range).await.field("age"), "0");
    assert_eq!(upstream.count(), 2);
    pass(100).await;
    upstream.stop();
    let instead = front.get_with("/", &range).await;
    assert_eq!((instead.status, instead.text()), (206, "2345"));
    assert!(instead.field("cache-status").ends_with("detail=stale-if-error"), "{instead:?}");
    assert_eq!(
        front.get_with("/", &[("range", "bytes=2-6")]).await.status,
        502,
        "it does not hold all of that"
    );
}

#[tokio::test(start_paused = true)]
async fn several_gaps_are_filled_by_one_request() {
    for (range, status, text) in
        [("", 200, WHOLE), ("bytes=1-8", 206, "12345678"), ("bytes=2-6", 206, "23456")]
    {
        let upstream = Upstream::start(ranged);
        let front = front(&upstream);
        for part in ["bytes=0-1", "bytes=4-4", "bytes=7-9"] {
            front.get_with("/", &[("range", part)]).await;
        }
        let asked: &[(&str, &str)] = if range.is_empty() { &[] } else { &[("range", range)] };
        let got = front.get_with("/", asked).await;
        assert_eq!((got.status, got.text()), (status, text));
        assert_eq!(fields(&upstream.seen()[3], ["range", "if-range"]), ["bytes=2-6", "\"v1\""]);
        assert_eq!(front.get("/").await.text(), WHOLE);
        assert_eq!(upstream.count(), 4, "{range}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_ranges_come_from_parts_and_what_is_missing_completes_the_whole() {
    let upstream = Upstream::start(ranged);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-5")]).await;
    let held = front.get_with("/", &[("range", "bytes=4-5, 0-1")]).await;
    assert_eq!((held.status, held.cache(), framed(&held)), (206, "hit", vec![("4-5", "45"), ("0-1", "01")]));
    let wider = front.get_with("/", &[("range", "bytes=0-1, 8-9")]).await;
    assert_eq!((wider.status, framed(&wider)), (206, vec![("0-1", "01"), ("8-9", "89")]));
    assert_eq!(fields(&upstream.seen()[1], ["range", "if-range"]), ["bytes=6-", "\"v1\""]);
    assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", 2));
}

/// The parts of a multipart/byteranges: where each stands in ten octets, and what it holds.
fn framed(got: &Got) -> Vec<(&str, &str)> {
    let boundary = got.field("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert_eq!(got.field("content-length"), got.text().len().to_string());
    assert_eq!(got.field("content-range"), "");
    let parts = got.text().strip_suffix(&format!("\r\n--{boundary}--\r\n")).unwrap();
    let parts = parts.strip_prefix("--").unwrap().split("\r\n--");
    parts
        .map(|part| {
            let (head, octets) = part.strip_prefix(boundary).unwrap().split_once("\r\n\r\n").unwrap();
            let place = head.strip_prefix("\r\nContent-Range: bytes ").unwrap();
            (place.strip_suffix("/10").unwrap(), octets)
        })
        .collect()
}

/// A fill of the whole that has come so far as its first five octets.
async fn half_filled(fields: &'static [(&'static str, &'static str)]) -> (Upstream, Front, Pieces) {
    let (pieces, reply) = Reply::in_pieces();
    let upstream = Upstream::start(first(reply.fields(fields), |_| panic!("one request")));
    let front = front(&upstream);
    pieces.send("01234");
    drop(front.begin(Request::get("/")).await);
    settle().await;
    (upstream, front, pieces)
}

#[tokio::test(start_paused = true)]
async fn a_range_is_answered_from_a_fill_under_way_as_soon_as_its_octets_are_there() {
    let (upstream, front, pieces) = half_filled(&[FRESH, TAGGED, ("content-length", "10")]).await;
    let early = front.get_with("/", &[("range", "bytes=1-3")]).await;
    assert_eq!((early.status, early.text(), early.field("content-range")), (206, "123", "bytes 1-3/10"));
    assert!(early.field("cache-status").contains("; collapsed"), "{early:?}");
    let later = front.begin(Request::get("/").header("range", "bytes=-7")).await;
    let several = front.begin(Request::get("/").header("range", "bytes=8-9, 0-1, 4-5")).await;
    pieces.send("56789");
    drop(pieces);
    assert_eq!(finish(later).await.text(), "3456789");
    let several = finish(several).await;
    assert_eq!((several.status, framed(&several)), (206, vec![("8-9", "89"), ("0-1", "01"), ("4-5", "45")]));
    assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", 1));
}

#[tokio::test(start_paused = true)]
async fn of_a_fill_of_unknown_length_a_range_waits_for_what_it_needs_to_know() {
    let (upstream, front, pieces) = half_filled(&[FRESH, TAGGED]).await;
    let early = front.get_with("/", &[("range", "bytes=1-3")]).await;
    assert_eq!((early.status, early.text(), early.field("content-range")), (206, "123", "bytes 1-3/*"));
    let ask = |range: &'static str| {
        let front = front.clone();
        tokio::spawn(async move { front.get_with("/", &[("range", range)]).await })
    };
    let (closed, suffix, several) = (ask("bytes=3-6"), ask("bytes=-2"), ask("bytes=0-1, 7-"));
    settle().await;
    pieces.send("567");
    let closed = closed.await.unwrap();
    assert_eq!((closed.text(), closed.field("content-range")), ("3456", "bytes 3-6/*"));
    settle().await;
    assert!(!suffix.is_finished() && !several.is_finished());
    pieces.send("89");
    drop(pieces);
    let suffix = suffix.await.unwrap();
    assert_eq!((suffix.text(), suffix.field("content-range")), ("89", "bytes 8-9/10"));
    assert_eq!(framed(&several.await.unwrap()), [("0-1", "01"), ("7-9", "789")]);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_the_end_of_a_fill_of_unknown_length() {
    let (_upstream, front, pieces) = half_filled(&[FRESH, TAGGED]).await;
    let everything = front.begin(Request::get("/").header("range", "bytes=0-")).await;
    assert_eq!(everything.status(), 200, "the whole is what it asks for");
    let matching = Request::get("/").header("range", "bytes=-2").header("if-none-match", "\"v1\"");
    assert_eq!(front.send(matching).await.status, 304, "no octet of it is needed");
    let suffix = front.begin(Request::get("/").header("range", "bytes=-2")).await;
    assert_eq!(suffix.status(), 200);
    pieces.send("56789");
    drop(pieces);
    assert_eq!(finish(suffix).await.text(), WHOLE);
}

#[tokio::test(start_paused = true)]
async fn a_part_with_a_weak_validator_is_neither_joined_nor_asked_to_be() {
    let upstream = Upstream::start(|seen| {
        let weak = [FRESH, ("etag", "W/\"v1\"")];
        let first = seen.headers["range"] == "bytes=0-3";
        let (place, octets) = if first { ("bytes 0-3/10", "0123") } else { ("bytes 2-5/10", "2345") };
        Reply::ok(octets).with_status(206).fields(&[weak[0], weak[1], ("content-range", place)])
    });
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-3")]).await;
    assert_eq!(front.get_with("/", &[("range", "bytes=2-5")]).await.text(), "2345");
    assert_eq!(fields(&upstream.seen()[1], ["range", "if-range"]), ["bytes=2-5", ""]);
}

/// A file of 3 MiB where the largest object is 1 MiB, by an origin that knows ranges.
fn large(seen: &Seen) -> Reply {
    const LENGTH: usize = 3 << 20;
    let Some(range) = seen.headers.get("range") else {
        return Reply::ok(vec![b'x'; LENGTH]).fields(&[FRESH, TAGGED]);
    };
    let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(LENGTH - 1));
    let place = format!("bytes {first}-{last}/{LENGTH}");
    Reply::ok(vec![b'x'; last + 1 - first]).with_status(206).fields(&[
        FRESH,
        TAGGED,
        ("content-range", &place),
    ])
}

/// Before, the octets missing of the stored part were asked for first, their answer was dropped with the stored part because
/// both together were too large, and then the whole was asked for.
#[tokio::test(start_paused = true)]
async fn the_whole_of_what_is_too_large_is_asked_for_once_and_stored_parts_stay() {
    let upstream = Upstream::start(large);
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-99")]).await;
    for expected in [2, 3] {
        let whole = front.get("/").await;
        assert_eq!((whole.status, whole.text().len()), (200, 3 << 20));
        assert_eq!(upstream.count(), expected);
        assert_eq!(front.get_with("/", &[("range", "bytes=0-99")]).await.cache(), "hit");
    }
    let most = front.get_with("/", &[("range", "bytes=50-2500000")]).await;
    assert_eq!((most.status, most.field("content-range")), (206, "bytes 50-2500000/3145728"));
    assert_eq!(front.get_with("/", &[("range", "bytes=0-99")]).await.cache(), "hit");
    assert_eq!(upstream.count(), 4);
}

/// Before, the whole was asked for, dropped since it was too large, and `bytes=0-` was asked for; and for thirty seconds no part
/// was stored.
#[tokio::test(start_paused = true)]
async fn everything_of_what_is_too_large_is_asked_for_once_and_parts_are_still_stored() {
    let upstream = Upstream::start(large);
    let front = front(&upstream);
    for expected in [1, 2] {
        let everything = front.get_with("/", &[("range", "bytes=0-")]).await;
        assert_eq!((everything.status, everything.text().len()), (206, 3 << 20));
        assert_eq!(everything.field("content-range"), "bytes 0-3145727/3145728");
        assert_eq!(upstream.count(), expected);
    }
    for cache in ["fwd=uri-miss", "hit"] {
        let part = front.get_with("/", &[("range", "bytes=100-199")]).await;
        assert_eq!((part.status, part.cache()), (206, cache));
    }
    assert_eq!(front.get_with("/", &[("range", "bytes=100-2500000")]).await.status, 206);
    assert_eq!(front.get_with("/", &[("range", "bytes=100-199")]).await.cache(), "hit");
}

/// What one person was answered where octets were missing threw the parts of all others away.
#[tokio::test(start_paused = true)]
async fn what_one_person_is_answered_about_a_gap_leaves_the_part_to_the_others() {
    const SHARED: (&str, &str) = ("cache-control", "public, max-age=60");
    const PART: (&str, &str) = ("content-range", "bytes 4-5/10");
    for (status, own) in [(404, &[][..]), (416, &[]), (206, &[("cache-control", "private"), TAGGED, PART])] {
        for person in [("cookie", "id=1"), ("authorization", "Basic eDp5")] {
            let upstream = Upstream::start(|seen| ranged(seen).fields(&[SHARED]));
            let front = front(&upstream);
            front.get_with("/", &[("range", "bytes=0-3")]).await;
            upstream.change(move |_| Reply::ok("45").with_status(status).fields(own));
            let got = front.get_with("/", &[("range", "bytes=2-5"), person]).await;
            assert_eq!(got.status, status, "{person:?}");
            let part = front.get_with("/", &[("range", "bytes=0-3")]).await;
            assert_eq!((part.text(), part.cache()), ("0123", "hit"), "{status} {person:?}");
        }
    }
}

/// The tags of the newest part alone were remembered: a purge by those of the one before missed what was joined of both.
#[tokio::test(start_paused = true)]
async fn parts_joined_are_purged_by_the_tags_of_the_head_they_have() {
    let part = |octets: &'static str, place| {
        Reply::ok(octets).with_status(206).fields(&[FRESH, TAGGED, ("content-range", place)])
    };
    let upstream =
        Upstream::start(first(part("0123", "bytes 0-3/*").header("surrogate-key", "film"), move |_| {
            part("89", "bytes 8-9/*")
        }));
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=0-3")]).await;
    front.get_with("/", &[("range", "bytes=8-9")]).await;
    assert_eq!(front.get_with("/", &[("range", "bytes=0-3")]).await.cache(), "hit", "joined");
    let film = Rule::Tag(Tag::Key("film".into()));
    assert_eq!(front.edge.memory.purge(vec![film], Force::Hard, front.edge.clock.now()), 1);
    assert_eq!(front.get_with("/", &[("range", "bytes=0-3")]).await.cache(), "fwd=uri-miss");
}

/// It was thrown away, and the whole asked for once more.
#[tokio::test(start_paused = true)]
async fn a_whole_that_comes_for_a_gap_is_the_answer() {
    let upstream = Upstream::start(|seen| match seen.earlier {
        0 => Reply::ok("01234").with_status(206).fields(&[FRESH, ("content-range", "bytes 0-4/10")]),
        _ => Reply::ok("whole"),
    });
    let front = front(&upstream);
    front.get_with("/", &[("range", "bytes=-5")]).await;
    assert_eq!(front.get("/").await.text(), "whole");
    let ranges: Vec<_> = upstream.seen().iter().map(|seen| seen.header("range").to_owned()).collect();
    assert_eq!(ranges, ["bytes=-5", "bytes=5-"]);
}
