//! Parts: fetched as parts, stored, combined and completed (RFC 9111 §3.3, §3.4), and several at once (RFC 9110 §14.6).

use http::Request;

use crate::script::{Origin, Reply, Seen, answer, front, front_with};

const WHOLE: &str = "0123456789";
const TAGGED: (&str, &str) = ("etag", "\"v1\"");
const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// An origin that knows `bytes=FIRST-LAST` and `bytes=FIRST-`.
fn ranged(seen: &Seen) -> Reply {
    let Some(range) = seen.headers.get("range") else {
        return Reply::Now(answer(200, &[FRESH, TAGGED], WHOLE));
    };
    let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(9));
    let place: &'static str = Box::leak(format!("bytes {first}-{last}/10").into_boxed_str());
    Reply::Now(answer(206, &[FRESH, TAGGED, ("content-range", place)], &WHOLE[first..=last]))
}

#[tokio::test(start_paused = true)]
async fn a_part_is_fetched_as_such_and_answers_every_range_inside_it() {
    let origin = Origin::new(ranged);
    let front = front(&origin);
    let miss = front.get_with("/", &[("range", "bytes=2-7")]).await;
    assert_eq!((miss.status, miss.text(), miss.field("content-range")), (206, "234567", "bytes 2-7/10"));
    assert_eq!(origin.seen()[0].headers["range"], "bytes=2-7");
    for (range, text) in [("bytes=2-7", "234567"), ("bytes=3-4", "34"), ("bytes=7-7", "7")] {
        let hit = front.get_with("/", &[("range", range)]).await;
        assert_eq!((hit.status, hit.text(), hit.cache()), (206, text, "hit"), "{range}");
    }
    let held = front.get_with("/", &[("range", "bytes=3-4"), ("if-none-match", "\"v1\"")]).await;
    assert_eq!(held.status, 304);
    assert_eq!(front.get_with("/", &[("range", "bytes=10-")]).await.status, 416);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_missing_is_fetched_and_parts_become_a_whole() {
    let origin = Origin::new(ranged);
    let front = front(&origin);
    front.get_with("/", &[("range", "bytes=0-3")]).await;
    let wider = front.get_with("/", &[("range", "bytes=2-5")]).await;
    assert_eq!((wider.status, wider.text(), wider.field("content-range")), (206, "2345", "bytes 2-5/10"));
    assert_eq!(
        wider.field("cache-status"),
        "gatehouse; fwd=partial; fwd-status=206; stored; detail=partial-miss"
    );
    let asked = &origin.seen()[1].headers;
    assert_eq!((asked["range"].to_str().unwrap(), &asked["if-range"]), ("bytes=4-5", &asked["if-range"]));
    assert_eq!(asked["if-range"], "\"v1\"");
    let whole = front.get("/").await;
    assert_eq!((whole.status, whole.text(), whole.field("content-range")), (200, WHOLE, ""));
    assert_eq!(origin.seen()[2].headers["range"], "bytes=6-");
    let hit = front.get("/").await;
    assert_eq!((hit.status, hit.text(), hit.cache(), hit.field("content-length")), (200, WHOLE, "hit", "10"));
    assert_eq!(origin.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn parts_of_different_representations_are_never_combined() {
    let origin = Origin::new(ranged);
    let front = front(&origin);
    front.get_with("/", &[("range", "bytes=0-4")]).await;
    origin.change(|seen| {
        let changed = [FRESH, ("etag", "\"v2\"")];
        // It ignores If-Range, as some do.
        Reply::Now(match seen.headers.get("range") {
            Some(_) => answer(206, &[changed[0], changed[1], ("content-range", "bytes 5-9/10")], "vwxyz"),
            None => answer(200, &changed, "qrstuvwxyz"),
        })
    });
    assert_eq!(front.get("/").await.text(), "qrstuvwxyz");
    assert_eq!(front.get("/").await.text(), "qrstuvwxyz");
    assert_eq!(origin.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_shorter_than_it_says_is_passed_on_and_not_stored() {
    let fields = &[FRESH, TAGGED, ("content-range", "bytes 4-9/10")];
    let origin = Origin::new(move |_| Reply::Now(answer(206, fields, "45678")));
    let strict = front(&origin);
    for expected in [1, 2] {
        let got = strict.get_with("/", &[("range", "bytes=-5")]).await;
        assert_eq!((got.status, got.text()), (206, "45678"));
        assert_eq!(origin.requests(), expected);
    }
    let fitted = front_with(
        &origin,
        "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = { ranges = \"fitted\" }\n",
    );
    fitted.get_with("/", &[("range", "bytes=-5")]).await;
    let hit = fitted.get_with("/", &[("range", "bytes=6-")]).await;
    assert_eq!((hit.text(), hit.field("content-range"), hit.cache()), ("678", "bytes 6-8/9", "hit"));
}

#[tokio::test(start_paused = true)]
async fn a_route_may_fetch_the_whole_for_a_part_and_so_does_a_range_of_everything() {
    let origin = Origin::new(ranged);
    let whole = front_with(
        &origin,
        "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\ncache = { ranges = \"whole\" }\n",
    );
    assert_eq!(whole.get_with("/", &[("range", "bytes=2-3")]).await.text(), "23");
    assert_eq!(whole.get("/").await.cache(), "hit");
    let parts = front(&origin);
    let got = parts.get_with("/", &[("range", "bytes=0-")]).await;
    assert_eq!((got.status, got.text()), (206, WHOLE));
    assert_eq!(parts.get("/").await.cache(), "hit");
    assert_eq!(origin.requests(), 2);
    assert!(origin.seen().iter().all(|seen| !seen.headers.contains_key("range")));
}

#[tokio::test(start_paused = true)]
async fn several_ranges_come_framed() {
    let front = front(&Origin::new(ranged));
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
    let origin = Origin::new(ranged);
    let front = front(&origin);
    front.get_with("/", &[("range", "bytes=0-3")]).await;
    front.send_body(Request::post("/"), "change").await;
    assert_eq!(front.get_with("/", &[("range", "bytes=0-3")]).await.cache(), "fwd=uri-miss");
    assert_eq!(origin.seen().last().unwrap().headers["range"], "bytes=0-3");
}
