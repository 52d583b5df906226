//! A body that breaks off is continued from there, if the rest can only be of the same representation.

use edge::cache::purge::{Force, Rule};
use http::Request;
use scripted_upstream::{Pieces, Reply, Seen, first};

use crate::{
    front::{Front, Got, finish, front, front_with, pass, settle},
    upstream::Upstream,
};

const WHOLE: &str = "0123456789";
const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const TAGGED: (&str, &str) = ("etag", "\"v1\"");
const SIZED: (&str, &str) = ("content-length", "10");
const SECOND_HALF: (&str, &str) = ("content-range", "bytes 5-9/10");

type Fields = &'static [(&'static str, &'static str)];

/// An upstream that answers with `fields` and a body in pieces first, and as `then` has it afterwards.
fn breaking(fields: Fields, then: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (Pieces, Upstream) {
    let (pieces, reply) = Reply::in_pieces();
    (pieces, Upstream::start(first(reply.fields(fields), then)))
}

/// Two clients that share a body of which half has come when it breaks off.
async fn share(front: &Front, pieces: Pieces) -> [Got; 2] {
    let leader = front.begin(Request::get("/")).await;
    let follower = front.begin(Request::get("/")).await;
    pieces.send("01234");
    settle().await;
    pieces.fail();
    [finish(leader).await, finish(follower).await]
}

/// Whether both got all of it, and a third finds it stored.
async fn assert_continued(front: &Front, upstream: &Upstream, got: [Got; 2]) {
    for got in got {
        assert_eq!((got.status, got.text()), (200, WHOLE));
    }
    let hit = front.get("/").await;
    assert_eq!((hit.status, hit.text(), hit.cache()), (200, WHOLE, "hit"));
    assert_eq!((hit.field("content-length"), hit.field("content-range")), ("10", ""));
    assert_eq!(upstream.count(), 2, "once for all of it, once for the rest");
}

/// Whether both were told that it broke off, and nothing of it was stored.
async fn assert_ended(front: &Front, got: [Got; 2]) {
    for got in got {
        assert!(got.body.is_err(), "{got:?}");
    }
    assert_eq!(front.get("/").await.cache(), "fwd=uri-miss");
}

fn outcomes(front: &Front) -> Vec<String> {
    front.metric_lines("gatehouse_edge_upstream_continuations_total")
}

#[tokio::test(start_paused = true)]
async fn every_reader_gets_the_whole_of_a_body_that_broke_off_and_it_is_stored() {
    let (pieces, upstream) = breaking(&[FRESH, TAGGED, SIZED, ("accept-ranges", "bytes")], |_| {
        Reply::ok("56789").with_status(206).fields(&[FRESH, TAGGED, SECOND_HALF])
    });
    let front = front(&upstream);
    let got = share(&front, pieces).await;
    assert_continued(&front, &upstream, got).await;
    let [first, second] = &upstream.seen()[..] else { panic!("two requests") };
    assert_eq!(second.headers["range"], "bytes=5-");
    assert_eq!(second.headers["if-range"], "\"v1\"");
    assert_eq!(second.target, first.target);
    for (name, value) in &first.headers {
        assert_eq!(second.headers.get(name), Some(value), "{name} is as it was");
    }
    assert_eq!(outcomes(&front), [r#"{upstream="origin",outcome="continued"} 1"#]);
}

#[tokio::test(start_paused = true)]
async fn the_rest_tells_the_length_of_a_body_that_did_not() {
    let (pieces, upstream) = breaking(&[FRESH, TAGGED], |_| {
        Reply::ok("56789").with_status(206).fields(&[FRESH, TAGGED, SECOND_HALF])
    });
    let front = front(&upstream);
    let got = share(&front, pieces).await;
    assert_continued(&front, &upstream, got).await;
}

#[tokio::test(start_paused = true)]
async fn a_date_that_is_a_strong_validator_does_too() {
    const MODIFIED: (&str, &str) = ("last-modified", "Mon, 23 Nov 2026 11:00:00 GMT");
    let (pieces, upstream) = breaking(&[FRESH, MODIFIED, SIZED], |_| {
        Reply::ok("56789").with_status(206).fields(&[FRESH, MODIFIED, SECOND_HALF])
    });
    let front = front(&upstream);
    let got = share(&front, pieces).await;
    assert_continued(&front, &upstream, got).await;
    assert_eq!(upstream.seen()[1].headers["if-range"], MODIFIED.1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_continued_on_the_only_connection_there_may_be() {
    let (pieces, upstream) = breaking(&[FRESH, TAGGED, SIZED], |_| {
        Reply::ok("56789").with_status(206).fields(&[FRESH, TAGGED, SECOND_HALF])
    });
    let all =
        "connections = 1\n[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = {}\n";
    let front = front_with(&upstream, all);
    let leader = front.begin(Request::get("/")).await;
    pieces.send("01234");
    settle().await;
    pass(31).await;
    assert_eq!(upstream.count(), 2);
    assert_eq!(finish(leader).await.text(), WHOLE);
    assert_eq!(front.get("/").await.cache(), "hit");
    drop(pieces);
}

#[tokio::test(start_paused = true)]
async fn a_body_too_large_to_keep_is_continued_for_those_who_read_it() {
    let large: &'static str = "x".repeat(1_100_000).leak();
    let (pieces, upstream) = breaking(&[FRESH, TAGGED], |_| {
        Reply::ok("56789").with_status(206).fields(&[
            FRESH,
            TAGGED,
            ("content-range", "bytes 1100000-1100004/1100005"),
        ])
    });
    let front = front(&upstream);
    let leader = front.begin(Request::get("/")).await;
    let reading = tokio::spawn(finish(leader));
    pieces.send(large);
    settle().await;
    pieces.fail();
    let got = reading.await.unwrap();
    assert_eq!((got.text().len(), got.text().ends_with("x56789")), (1_100_005, true));
}

#[tokio::test(start_paused = true)]
async fn without_a_strong_validator_or_ranges_nothing_is_asked() {
    for fields in [
        &[FRESH, SIZED][..],
        &[FRESH, SIZED, ("etag", "W/\"v1\"")],
        // Modified within the second in which it was sent (RFC 9110 §8.8.2.2).
        &[FRESH, SIZED, ("last-modified", "Mon, 23 Nov 2026 12:00:00 GMT")],
        &[FRESH, SIZED, TAGGED, ("accept-ranges", "none")],
    ] {
        let (pieces, upstream) = breaking(fields, |seen| {
            assert!(!seen.headers.contains_key("range"), "the rest is asked for: {seen:?}");
            Reply::ok(WHOLE).fields(&[FRESH])
        });
        let front = front(&upstream);
        let got = share(&front, pieces).await;
        assert_eq!(upstream.count(), 1, "{fields:?}");
        assert_ended(&front, got).await;
        assert!(outcomes(&front).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_rest_of_the_same_representation_is_not_joined_to_it() {
    let changed = ("etag", "\"v2\"");
    let others: [(u16, Fields, &'static str); 7] = [
        (200, &[FRESH, TAGGED], WHOLE),
        (416, &[("content-range", "bytes */5")], ""),
        (503, &[], "down"),
        (206, &[FRESH, TAGGED, ("content-range", "bytes 4-9/10")], "456789"),
        (206, &[FRESH, TAGGED, ("content-range", "bytes 5-9/11")], "56789"),
        (206, &[FRESH, TAGGED, SECOND_HALF], "5678"),
        (206, &[FRESH, ("etag", "\"v2\""), SECOND_HALF], "56789"),
    ];
    for (status, fields, body) in others {
        let (pieces, upstream) =
            breaking(&[FRESH, TAGGED, SIZED], move |seen| match seen.headers.contains_key("range") {
                true => Reply::ok(body).with_status(status).fields(fields),
                false => Reply::ok(WHOLE).fields(&[FRESH, changed]),
            });
        let front = front(&upstream);
        let got = share(&front, pieces).await;
        assert_eq!(upstream.count(), 2, "{status} {fields:?}");
        assert_ended(&front, got).await;
        assert_eq!(outcomes(&front), [r#"{upstream="origin",outcome="refused"} 1"#], "{status} {fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_again_ends() {
    let (more, second) = Reply::in_pieces();
    let second = second.with_status(206).fields(&[FRESH, TAGGED, SECOND_HALF]);
    let (pieces, upstream) =
        breaking(&[FRESH, TAGGED, SIZED], first(second, |_| Reply::ok(WHOLE).fields(&[FRESH])));
    let front = front(&upstream);
    let leader = front.begin(Request::get("/")).await;
    pieces.send("01234");
    settle().await;
    pieces.fail();
    settle().await;
    more.send("567");
    settle().await;
    let follower = front.begin(Request::get("/")).await;
    more.fail();
    let got = [finish(leader).await, finish(follower).await];
    assert_eq!(upstream.count(), 2);
    assert_ended(&front, got).await;
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_goes_on_past_its_end_is_cut_and_not_stored() {
    let (more, second) = Reply::in_pieces();
    let second = second.with_status(206).fields(&[FRESH, TAGGED, SECOND_HALF]);
    let (pieces, upstream) = breaking(&[FRESH, TAGGED], first(second, |_| Reply::ok(WHOLE).fields(&[FRESH])));
    more.send("567");
    more.send("89A");
    drop(more);
    let front = front(&upstream);
    let got = share(&front, pieces).await;
    assert_ended(&front, got).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_between_the_halves_keeps_the_whole_from_being_stored() {
    let (pieces, upstream) =
        breaking(&[FRESH, TAGGED, SIZED], |seen| match seen.headers.contains_key("range") {
            true => Reply::ok("56789").with_status(206).fields(&[FRESH, TAGGED, SECOND_HALF]),
            false => Reply::ok("new").fields(&[FRESH]),
        });
    let front = front(&upstream);
    let leader = front.begin(Request::get("/")).await;
    pieces.send("01234");
    settle().await;
    front.edge.memory.purge(vec![Rule::Everything], Force::Hard, front.edge.clock.now());
    pieces.fail();
    assert_eq!(finish(leader).await.text(), WHOLE, "who reads it began before the purge");
    let later = front.get("/").await;
    assert_eq!((later.text(), later.cache()), ("new", "fwd=uri-miss"));
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_stops_continues_for_readers_only() {
    for reads in [true, false] {
        let (pieces, upstream) = breaking(&[FRESH, TAGGED, SIZED], |_| {
            Reply::ok("56789").with_status(206).fields(&[FRESH, TAGGED, SECOND_HALF])
        });
        let front = front(&upstream);
        let leader = Some(front.begin(Request::get("/")).await).filter(|_| reads);
        pieces.send("01234");
        settle().await;
        front.edge.drain.cancel();
        pieces.fail();
        settle().await;
        assert_eq!(upstream.count(), if reads { 2 } else { 1 });
        if let Some(leader) = leader {
            assert_eq!(finish(leader).await.text(), WHOLE);
        }
    }
}
