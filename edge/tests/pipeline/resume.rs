//! A body that breaks off is continued from there, if the rest can only be of the same representation.

use std::sync::Mutex;

use edge::cache::purge::{Force, Rule};
use http::Request;

use crate::script::{
    Answer, Front, Got, Origin, Pieces, Reply, Seen, answer, finish, front, front_with, in_pieces, pass,
    settle,
};

const WHOLE: &str = "0123456789";
const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const TAGGED: (&str, &str) = ("etag", "\"v1\"");
const SIZED: (&str, &str) = ("content-length", "10");
const SECOND_HALF: (&str, &str) = ("content-range", "bytes 5-9/10");

type Fields = &'static [(&'static str, &'static str)];

/// An origin that answers with `fields` and a body in pieces first, and as `then` has it afterwards.
fn breaking(fields: Fields, then: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> (Pieces, Origin) {
    let (pieces, first) = in_pieces(fields);
    let first = Mutex::new(Some(first));
    let origin = Origin::new(move |seen| {
        let first = first.lock().unwrap().take();
        Reply::Now(first.unwrap_or_else(|| then(seen)))
    });
    (pieces, origin)
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
async fn assert_continued(front: &Front, origin: &Origin, got: [Got; 2]) {
    for got in got {
        assert_eq!((got.status, got.text()), (200, WHOLE));
    }
    let hit = front.get("/").await;
    assert_eq!((hit.status, hit.text(), hit.cache()), (200, WHOLE, "hit"));
    assert_eq!((hit.field("content-length"), hit.field("content-range")), ("10", ""));
    assert_eq!(origin.requests(), 2, "once for all of it, once for the rest");
}

/// Whether both were told that it broke off, and nothing of it was stored.
async fn assert_ended(front: &Front, got: [Got; 2]) {
    for got in got {
        assert!(got.body.is_err(), "{got:?}");
    }
    assert_eq!(front.get("/").await.cache(), "fwd=uri-miss");
}

fn outcomes(front: &Front) -> Vec<String> {
    let page = front.edge.metrics.encode();
    let lines =
        page.lines().filter_map(|line| line.strip_prefix("gatehouse_edge_upstream_continuations_total"));
    lines.map(ToOwned::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn every_reader_gets_the_whole_of_a_body_that_broke_off_and_it_is_stored() {
    let (pieces, origin) = breaking(&[FRESH, TAGGED, SIZED, ("accept-ranges", "bytes")], |_| {
        answer(206, &[FRESH, TAGGED, SECOND_HALF], "56789")
    });
    let front = front(&origin);
    let got = share(&front, pieces).await;
    assert_continued(&front, &origin, got).await;
    let [first, second] = &origin.seen()[..] else { panic!("two requests") };
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
    let (pieces, origin) =
        breaking(&[FRESH, TAGGED], |_| answer(206, &[FRESH, TAGGED, SECOND_HALF], "56789"));
    let front = front(&origin);
    let got = share(&front, pieces).await;
    assert_continued(&front, &origin, got).await;
}

#[tokio::test(start_paused = true)]
async fn a_date_that_is_a_strong_validator_does_too() {
    const MODIFIED: (&str, &str) = ("last-modified", "Mon, 23 Nov 2026 11:00:00 GMT");
    let (pieces, origin) =
        breaking(&[FRESH, MODIFIED, SIZED], |_| answer(206, &[FRESH, MODIFIED, SECOND_HALF], "56789"));
    let front = front(&origin);
    let got = share(&front, pieces).await;
    assert_continued(&front, &origin, got).await;
    assert_eq!(origin.seen()[1].headers["if-range"], MODIFIED.1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_continued_on_the_only_connection_there_may_be() {
    let (pieces, origin) =
        breaking(&[FRESH, TAGGED, SIZED], |_| answer(206, &[FRESH, TAGGED, SECOND_HALF], "56789"));
    let all =
        "connections = 1\n[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = {}\n";
    let front = front_with(&origin, all);
    let leader = front.begin(Request::get("/")).await;
    pieces.send("01234");
    settle().await;
    pass(31).await;
    assert_eq!(origin.requests(), 2);
    assert_eq!(finish(leader).await.text(), WHOLE);
    assert_eq!(front.get("/").await.cache(), "hit");
    drop(pieces);
}

#[tokio::test(start_paused = true)]
async fn a_body_too_large_to_keep_is_continued_for_those_who_read_it() {
    let large: &'static str = "x".repeat(1_100_000).leak();
    let (pieces, origin) = breaking(&[FRESH, TAGGED], |_| {
        answer(206, &[FRESH, TAGGED, ("content-range", "bytes 1100000-1100004/1100005")], "56789")
    });
    let front = front(&origin);
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
        let (pieces, origin) = breaking(fields, |seen| {
            assert!(!seen.headers.contains_key("range"), "the rest is asked for: {seen:?}");
            answer(200, &[FRESH], WHOLE)
        });
        let front = front(&origin);
        let got = share(&front, pieces).await;
        assert_eq!(origin.requests(), 1, "{fields:?}");
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
        let (pieces, origin) =
            breaking(&[FRESH, TAGGED, SIZED], move |seen| match seen.headers.contains_key("range") {
                true => answer(status, fields, body),
                false => answer(200, &[FRESH, changed], WHOLE),
            });
        let front = front(&origin);
        let got = share(&front, pieces).await;
        assert_eq!(origin.requests(), 2, "{status} {fields:?}");
        assert_ended(&front, got).await;
        assert_eq!(outcomes(&front), [r#"{upstream="origin",outcome="refused"} 1"#], "{status} {fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_again_ends() {
    let (more, second) = in_pieces(&[FRESH, TAGGED, SECOND_HALF]);
    let second = Mutex::new(Some(second));
    let (pieces, origin) = breaking(&[FRESH, TAGGED, SIZED], move |_| match second.lock().unwrap().take() {
        Some(mut second) => {
            *second.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            second
        }
        None => answer(200, &[FRESH], WHOLE),
    });
    let front = front(&origin);
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
    assert_eq!(origin.requests(), 2);
    assert_ended(&front, got).await;
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_goes_on_past_its_end_is_cut_and_not_stored() {
    let (more, second) = in_pieces(&[FRESH, TAGGED, SECOND_HALF]);
    let second = Mutex::new(Some(second));
    let (pieces, origin) = breaking(&[FRESH, TAGGED], move |_| match second.lock().unwrap().take() {
        Some(mut second) => {
            *second.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            second
        }
        None => answer(200, &[FRESH], WHOLE),
    });
    more.send("567");
    more.send("89A");
    drop(more);
    let front = front(&origin);
    let got = share(&front, pieces).await;
    assert_ended(&front, got).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_between_the_halves_keeps_the_whole_from_being_stored() {
    let (pieces, origin) =
        breaking(&[FRESH, TAGGED, SIZED], |seen| match seen.headers.contains_key("range") {
            true => answer(206, &[FRESH, TAGGED, SECOND_HALF], "56789"),
            false => answer(200, &[FRESH], "new"),
        });
    let front = front(&origin);
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
        let (pieces, origin) =
            breaking(&[FRESH, TAGGED, SIZED], |_| answer(206, &[FRESH, TAGGED, SECOND_HALF], "56789"));
        let front = front(&origin);
        let leader = Some(front.begin(Request::get("/")).await).filter(|_| reads);
        pieces.send("01234");
        settle().await;
        front.edge.drain.cancel();
        pieces.fail();
        settle().await;
        assert_eq!(origin.requests(), if reads { 2 } else { 1 });
        if let Some(leader) = leader {
            assert_eq!(finish(leader).await.text(), WHOLE);
        }
    }
}
