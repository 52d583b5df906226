//! What `explain` says is what happens: the same Cache-Status that the next request gets, and why.

use edge::explain::{Explanation, Question, live};
use scripted_upstream::{Reply, saying};

use crate::{
    front::{Front, cached, front, front_with, pass},
    upstream::Upstream,
};

pub(crate) fn explain(front: &Front, target: &str, fields: &[(&str, &str)]) -> Explanation {
    let question = Question {
        url: format!("https://shop.example{target}"),
        method: "GET".to_owned(),
        headers: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let edge = &front.edge;
    live(&edge.state.load().settings, &edge.memory, edge.clock.now(), &question).unwrap()
}

/// Explains a request and sends it: what was foretold, as far as it can be known before the upstream answers, is what the
/// client is told.
async fn foretold(front: &Front, target: &str, fields: &[(&str, &str)]) -> Explanation {
    let told = explain(front, target, fields);
    let got = front.get_with(target, fields).await;
    let status = got.field("cache-status").replace("; stored", "");
    let forwarded = status.find("; fwd-status=").map(|at| at..at + "; fwd-status=200".len());
    let status = forwarded.map_or_else(|| status.clone(), |range| status.replace(&status[range], ""));
    assert_eq!(told.cache_status.as_deref(), Some(&*status), "{target} {fields:?} {told:#?}");
    told
}

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[tokio::test(start_paused = true)]
async fn hits_misses_and_what_was_stale_are_foretold() {
    let fields = &[("cache-control", "max-age=60, stale-while-revalidate=10"), ("etag", "\"v1\"")];
    let front = front(&Upstream::start(saying(fields, "hello")));
    assert_eq!(foretold(&front, "/", &[]).await.verdict, "fetch");
    pass(10).await;
    let hit = foretold(&front, "/", &[]).await;
    let freshness = hit.freshness.unwrap();
    assert_eq!((hit.verdict.as_str(), freshness.age, freshness.left), ("hit", 10, 50));
    assert_eq!(hit.lines, ["response cache-control: max-age=60, stale-while-revalidate=10"]);
    let reload = explain(&front, "/", &[("cache-control", "no-cache")]);
    assert_eq!((reload.reason.as_deref(), reload.verdict.as_str()), (Some("request-no-cache"), "fetch"));
    assert_eq!(reload.asks, ["GET /", "if-none-match: \"v1\""]);
    pass(55).await;
    assert_eq!(foretold(&front, "/", &[]).await.reason.as_deref(), Some("stale-while-revalidate"));
    let cookie = foretold(&front, "/", &[("cookie", "id=secret")]).await;
    assert_eq!((cookie.verdict.as_str(), &*cookie.lines), ("pass", &["request cookie: id=…".to_owned()][..]));
    pass(100).await;
    let wish = [("cache-control", "only-if-cached")];
    let refused = explain(&front, "/", &wish);
    assert_eq!(refused.reason.as_deref(), Some("only-if-cached"));
    assert_eq!(front.get_with("/", &wish).await.status, 504);
}

#[tokio::test(start_paused = true)]
async fn what_is_part_of_the_key_and_what_goes_past_the_cache_is_told() {
    let rules = "key = { headers = [\"X-Currency\"], cookies = [\"lang\"] }, bypass = { headers = [\"X-Preview\"] }, also = [\"query\"]";
    let front = front_with(&Upstream::start(saying(&[FRESH], "hello")), &cached(rules));
    let fields = [("x-currency", "EUR a"), ("cookie", "lang=de")];
    assert_eq!(foretold(&front, "/", &fields).await.verdict, "fetch");
    let hit = foretold(&front, "/", &fields).await;
    assert_eq!(
        (hit.verdict.as_str(), &*hit.key),
        ("hit", "https://shop.example:443/ x-currency=EUR%20a cookie:lang=de")
    );
    let notes = hit.notes.join("\n");
    assert!(notes.contains("part of the key are x-currency, cookie lang"), "{notes}");
    assert!(notes.contains("QUERY are read from the cache too"), "{notes}");
    assert_eq!(foretold(&front, "/", &[("x-currency", "USD")]).await.verdict, "fetch");
    let past = foretold(&front, "/", &[("x-currency", "EUR a"), ("x-preview", "1")]).await;
    assert_eq!((past.verdict.as_str(), past.reason.as_deref()), ("pass", Some("bypass")));
}

#[tokio::test(start_paused = true)]
async fn what_limits_count_and_for_how_much_is_told() {
    let route = cached("").replace("cache =", "limit = \"login\"\ncache =");
    let limit = "[limits.login]\nrate = \"60/h\"\nburst = 5\nkey = \"header X-Key\"\ncost = { POST = 2, 401 = 10 }\n\
                 except = [\"10.0.0.0/8\"]\ndry_run = true\n";
    let front = front_with(&Upstream::start(saying(&[FRESH], "hello")), &format!("{limit}{route}"));
    let notes = explain(&front, "/", &[]).notes.join("\n");
    for told in [
        "limit login: those of one x-key (without it, each client) may make 5 requests at once, then one every 60s",
        "POST counts for 2; one that is answered with 401 counts for 10",
        "clients of `except` are not counted; it is on trial (dry_run) and refuses nobody",
    ] {
        assert!(notes.contains(told), "{told}: {notes}");
    }
}

#[tokio::test(start_paused = true)]
async fn stored_parts_are_told_and_whether_they_answer() {
    let upstream = Upstream::start(|seen| {
        let (first, last) =
            seen.headers["range"].to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let place: &'static str = Box::leak(format!("bytes {first}-{last}/10").into_boxed_str());
        let fields = [FRESH, ("etag", "\"v1\""), ("content-range", place)];
        Reply::ok(&"0123456789"[first..=last]).with_status(206).fields(&fields)
    });
    let front = front(&upstream);
    foretold(&front, "/", &[("range", "bytes=0-1")]).await;
    front.get_with("/", &[("range", "bytes=7-8")]).await;
    let held = foretold(&front, "/", &[("range", "bytes=8-8")]).await;
    let stored = held.stored.unwrap();
    let parts = stored.parts.unwrap();
    assert_eq!(
        (held.verdict.as_str(), stored.by.as_str(), &*stored.lines),
        ("hit", "part", &["request range: bytes=8-8".to_owned()][..])
    );
    assert_eq!(
        (parts.held, parts.length, parts.missing),
        (vec!["0-1".to_owned(), "7-8".to_owned()], Some(10), None)
    );
    let wider = explain(&front, "/", &[("range", "bytes=1-7")]);
    assert_eq!(
        (wider.reason.as_deref(), wider.stored.unwrap().parts.unwrap().missing.as_deref()),
        (Some("partial-miss"), Some("2-6"))
    );
    assert_eq!(wider.asks, ["GET /", "range: bytes=2-6", "if-range: \"v1\""]);
    foretold(&front, "/", &[("range", "bytes=1-7")]).await;
    assert_eq!(upstream.seen()[2].headers["range"], "bytes=2-6");
}

#[tokio::test(start_paused = true)]
async fn an_answer_under_another_query_is_told_with_its_url_and_the_line_that_says_so() {
    let same = ("no-vary-search", "key-order, params=(\"session\")");
    let front = front(&Upstream::start(saying(Box::leak(Box::new([FRESH, same])), "hello")));
    front.get("/?a=1&b=2&session=x").await;
    let told = foretold(&front, "/?b=2&session=y&a=1", &[]).await;
    let stored = told.stored.unwrap();
    assert_eq!((told.verdict.as_str(), stored.by.as_str()), ("hit", "query"));
    assert_eq!(stored.url.as_deref(), Some("https://shop.example:443/?a=1&b=2&session=x"));
    assert_eq!(stored.lines, ["response no-vary-search: key-order, params=(\"session\")"]);
}

#[tokio::test(start_paused = true)]
async fn a_choice_by_language_and_what_is_stored_for_others_are_told() {
    let fields = &[FRESH, ("vary", "Accept-Language"), ("content-language", "de")];
    let front = front_with(&Upstream::start(saying(fields, "hallo")), &cached("by_language = true"));
    front.get_with("/", &[("accept-language", "de")]).await;
    let told = foretold(&front, "/", &[("accept-language", "fr;q=0.5, de")]).await;
    let stored = told.stored.unwrap();
    assert_eq!((told.verdict.as_str(), stored.by.as_str()), ("hit", "language"));
    assert_eq!(stored.lines, ["request accept-language: fr;q=0.5, de", "response content-language: de"]);
    let other = foretold(&front, "/", &[("accept-language", "fr;q=0.5")]).await;
    assert_eq!(
        (other.reason.as_deref(), &*other.variants),
        (Some("vary-miss"), &["accept-language: de".to_owned()][..])
    );
    assert_eq!(other.lines, ["response vary: accept-language", "request accept-language: fr;q=0.5"]);
}

#[tokio::test(start_paused = true)]
async fn why_the_last_answer_is_not_stored_is_told_without_its_secrets() {
    let fields = &[FRESH, ("set-cookie", "session=secret; Path=/")];
    let front = front(&Upstream::start(saying(fields, "mine")));
    front.get("/").await;
    pass(7).await;
    let told = explain(&front, "/", &[]);
    let refused = told.refused.unwrap();
    assert_eq!((told.verdict.as_str(), refused.reason.as_str(), refused.ago), ("fetch", "set-cookie", 7));
    assert_eq!(refused.lines, ["response set-cookie: session=…; Path=…"]);
    assert!(told.remedy.unwrap().contains("set_cookie"));
    assert_eq!(told.cache_status, None, "it is not known before the next answer comes");
}

#[tokio::test(start_paused = true)]
async fn reasons_are_counted_under_the_words_that_clients_and_explanations_have() {
    let front = front(&Upstream::start(saying(&[FRESH], "hello")));
    front.get("/").await;
    front.get("/").await;
    front.get_with("/", &[("cookie", "id=1")]).await;
    let page = front.edge.metrics.encode();
    for (reason, count) in [("miss", 1), ("request-cookie", 1)] {
        let line = format!("gatehouse_edge_reasons_total{{route=\"all\",reason=\"{reason}\"}} {count}\n");
        assert!(page.contains(&line), "{line}{page}");
    }
}
