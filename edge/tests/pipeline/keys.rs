//! What of a request makes another answer beside its URL, and what has it go past the cache.

use cache_policy::Tag;
use edge::cache::purge::{Force, Rule};
use http::Request;
use scripted_upstream::{Reply, Seen};

use crate::{
    front::{Front, cached, front_with, settings_for},
    upstream::Upstream,
};

/// Says what of the request it has seen, for everyone.
fn echo(seen: &Seen) -> Reply {
    let of = |name| seen.header(name).to_owned();
    let said =
        format!("{} country={} currency={} {}", seen.method, of("x-country"), of("x-currency"), of("cookie"));
    Reply::ok(said).cache_control("max-age=60").header("surrogate-key", "page")
}

fn front(how: &str) -> (Upstream, Front) {
    let upstream = Upstream::start(echo);
    let front = front_with(&upstream, &cached(how));
    (upstream, front)
}

fn purge(front: &Front, rule: Rule) -> usize {
    front.edge.memory.purge(vec![rule], Force::Hard, front.edge.clock.now())
}

async fn said(front: &Front, fields: &[(&str, &str)]) -> (String, String) {
    let got = front.get_with("/p?q=1", fields).await;
    (got.text().to_owned(), got.cache().to_owned())
}

#[tokio::test(start_paused = true)]
async fn requests_that_differ_in_a_field_of_the_key_are_never_answered_alike() {
    let (upstream, front) = front("key = { headers = [\"X-Currency\"] }");
    for (turn, cache) in [(1, "fwd=uri-miss"), (2, "hit")] {
        for value in ["EUR", "USD", "E%UR", "E UR", ""] {
            let (text, how) = said(&front, &[("x-currency", value), ("x-other", &turn.to_string())]).await;
            assert_eq!((text.contains(&format!("currency={value} ")), &*how), (true, cache), "{value}");
        }
        assert_eq!(said(&front, &[]).await.1, cache, "none is not the empty one");
        let long = "x".repeat(500);
        for end in ["1", "2"] {
            let value = format!("{long}{end}");
            assert!(said(&front, &[("x-currency", &value)]).await.0.contains(&value));
        }
    }
    assert_eq!(upstream.count(), 8);
}

#[tokio::test(start_paused = true)]
async fn of_cookies_those_of_the_key_alone_reach_what_is_stored() {
    let (upstream, front) = front("key = { cookies = [\"currency\", \"lang\"] }, ignore_cookies = [\"_ga\"]");
    let with = |cookie: &'static str| [("cookie", cookie)];
    let first = said(&front, &with("_ga=1; lang=de; currency=EUR")).await;
    assert!(first.0.ends_with(" currency=EUR; lang=de"), "{first:?}");
    let again = said(&front, &with("currency=EUR; _ga=2; lang=de")).await;
    assert_eq!((again.0, &*again.1), (first.0, "hit"));
    assert_eq!(said(&front, &with("currency=USD; lang=de")).await.1, "fwd=uri-miss");
    assert_eq!(
        said(&front, &with("xcurrency=EUR; lang=de")).await.1,
        "fwd=uri-miss",
        "a cookie that matters, and no currency"
    );
    let (text, how) = said(&front, &[]).await;
    assert_eq!((text.ends_with("currency= "), &*how), (true, "fwd=uri-miss"), "no cookie at all");
    let asked = upstream.count();
    // Somebody's own: what it brings says nothing of being for everyone.
    let session = said(&front, &with("session=1; currency=EUR; lang=de")).await;
    assert!(session.0.contains("session=1"), "{session:?}");
    assert_eq!(said(&front, &with("currency=EUR; lang=de")).await.1, "hit");
    assert_eq!(upstream.count(), asked + 1);
}

/// A HEAD brought all cookies of its client, and its answer would have freshened what is stored for others.
#[tokio::test(start_paused = true)]
async fn a_head_brings_the_cookies_of_the_key_alone() {
    let (upstream, front) = front("key = { cookies = [\"currency\"] }, ignore_cookies = true");
    front.send(Request::head("/").header("cookie", "a=1; currency=EUR")).await;
    assert_eq!(upstream.only().header("cookie"), "currency=EUR");
}

#[tokio::test(start_paused = true)]
async fn only_trusted_proxies_say_where_a_client_is() {
    let route = cached("key = { country = \"X-Country\" }");
    let upstream = Upstream::start(echo);
    let untrusted = front_with(&upstream, &route);
    let (text, _) = said(&untrusted, &[("x-country", "DE")]).await;
    assert!(text.contains("country= "), "{text}");
    assert_eq!(said(&untrusted, &[("x-country", "FR")]).await.1, "hit", "it is as if nothing was said");
    let trusted =
        front_with(&upstream, &format!("[clients]\ntrusted_proxies = [\"0.0.0.0/0\", \"::/0\"]\n{route}"));
    for country in ["DE", "FR"] {
        assert!(said(&trusted, &[("x-country", country)]).await.0.contains(&format!("country={country} ")));
    }
    assert_eq!(said(&trusted, &[("x-country", "DE")]).await.1, "hit");
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_the_url_takes_what_is_stored_for_every_value() {
    let (_upstream, front) = front("key = { headers = [\"X-Currency\"] }");
    let values = ["EUR", "USD", "CHF"];
    for how in ["url", "tag", "prefix", "unsafe"] {
        for value in values {
            said(&front, &[("x-currency", value)]).await;
            assert_eq!(said(&front, &[("x-currency", value)]).await.1, "hit", "{how} {value}");
        }
        let rule = match how {
            "url" => Rule::Key("https://shop.example:443/p?q=1".into()),
            "tag" => Rule::Tag(Tag::Key("page".into())),
            _ => Rule::Prefix("https://shop.example:443/p".into()),
        };
        if how == "unsafe" {
            front.send(Request::delete("/p?q=1")).await;
        } else {
            assert_eq!(purge(&front, rule), 3, "{how}");
        }
        for value in values {
            assert_eq!(said(&front, &[("x-currency", value)]).await.1, "fwd=uri-miss", "{how} {value}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_equivalent_query_is_found_among_requests_of_the_same_key_alone() {
    let upstream = Upstream::start(|seen| echo(seen).header("no-vary-search", "params=(\"utm\")"));
    let front = front_with(&upstream, &cached("key = { headers = [\"X-Currency\"] }"));
    let get = async |target, value| front.get_with(target, &[("x-currency", value)]).await;
    get("/p?utm=1", "EUR").await;
    assert_eq!(get("/p?utm=2", "EUR").await.cache(), "hit");
    let other = get("/p?utm=2", "USD").await;
    assert_eq!((other.cache(), other.text()), ("fwd=uri-miss", "GET country= currency=USD "));
    assert_eq!(purge(&front, Rule::Key("https://shop.example:443/p?utm=7".into())), 2);
}

/// What was stored without the field in its key would have answered every value of it.
#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_the_key_leaves_nothing_to_the_wrong_request() {
    let (_upstream, front) = front("");
    assert_eq!(said(&front, &[("x-currency", "EUR")]).await.1, "fwd=uri-miss");
    front.reload(settings_for(&["origin"], &cached("key = { headers = [\"X-Currency\"] }")));
    assert!(said(&front, &[("x-currency", "USD")]).await.0.contains("currency=USD"));
    front.reload(settings_for(&["origin"], &cached("key = { headers = [\"X-Country\"] }")));
    assert!(said(&front, &[("x-country", "USD"), ("x-currency", "CHF")]).await.0.contains("currency=CHF"));
}

#[tokio::test(start_paused = true)]
async fn a_field_or_a_cookie_has_a_request_go_past_the_cache() {
    let (upstream, front) =
        front("bypass = { headers = [\"X-Preview\", \"X-Debug: 1\"], cookies = [\"session\", \"wp_*\"] }");
    assert_eq!(said(&front, &[("x-currency", "first")]).await.1, "fwd=uri-miss");
    let plain: [&[_]; 3] = [&[], &[("x-debug", "0")], &[("cookie", "_ga=1; sessions=2")]];
    for fields in plain {
        assert_eq!(said(&front, fields).await.1, "hit", "{fields:?}");
    }
    let past: [&[_]; 4] = [
        &[("x-preview", "")],
        &[("x-debug", "0"), ("x-debug", "1")],
        &[("cookie", "a=1; session=2")],
        &[("cookie", "wp_logged_in=1")],
    ];
    for fields in past {
        let (text, how) = said(&front, fields).await;
        assert_eq!((text.contains("first"), &*how), (false, "fwd=bypass"), "{fields:?}");
    }
    assert_eq!(said(&front, &[]).await, ("GET country= currency=first ".to_owned(), "hit".to_owned()));
    upstream.change(|_| Reply::status(503));
    assert_eq!(said(&front, &[("x-preview", "")]).await.1, "fwd=bypass", "nothing stored stands in");
}
