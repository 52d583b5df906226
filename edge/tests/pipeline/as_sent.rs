//! Variants are made of what the upstream sees of a request, not of what the client wrote.

use scripted_upstream::{Reply, Seen, saying};

use crate::{
    front::{CACHED, Front, cached, front, front_with},
    upstream::Upstream,
};

/// Varies on one field and shows what it saw of it.
fn varying(field: &'static str) -> Upstream {
    Upstream::start(move |seen: &Seen| {
        let value = seen.headers.get(field).map_or("(none)", |value| value.to_str().unwrap()).to_owned();
        Reply::ok(value).fields(&[("cache-control", "max-age=60"), ("vary", field)])
    })
}

async fn told(front: &Front, fields: &[(&str, &str)]) -> String {
    let got = front.get_with("/", fields).await;
    format!("{} {}", got.text(), got.cache())
}

/// The upstream saw no language, and its answer was stored for everyone who asks for German; one client could do that to
/// all others.
#[tokio::test(start_paused = true)]
async fn a_field_that_connection_nominates_makes_no_variant() {
    for (field, value) in [("accept-language", "de"), ("origin", "https://a.example"), ("x-device", "phone")]
    {
        let upstream = varying(field);
        let front = front(&upstream);
        let nominated = format!("close, {field}");
        let hidden = [(field, value), ("connection", nominated.as_str())];
        assert_eq!(told(&front, &hidden).await, "(none) fwd=uri-miss", "{field}");
        assert_eq!(told(&front, &[(field, value)]).await, format!("{value} fwd=vary-miss"), "{field}");
        assert_eq!(
            told(&front, &[]).await,
            "(none) hit",
            "{field}: what the hidden one brought is for these"
        );
        assert_eq!(told(&front, &hidden).await, "(none) hit", "{field}");
        assert_eq!(upstream.count(), 2, "{field}");
    }
}

/// The client's own field, which the upstream never saw, made the variant: the next client was shown the page of the
/// first.
#[tokio::test(start_paused = true)]
async fn a_page_that_varies_on_the_clients_address_is_each_clients_own() {
    for field in ["x-forwarded-for", "x-real-ip"] {
        let upstream = varying(field);
        let behind = format!("[clients]\ntrusted_proxies = [\"192.0.2.1\"]\n{CACHED}");
        let front = front_with(&upstream, &behind);
        for (client, cache) in [("203.0.113.1", "fwd=uri-miss"), ("203.0.113.2", "fwd=vary-miss")] {
            let named = [("x-forwarded-for", client), ("x-real-ip", "6.6.6.6")];
            assert_eq!(told(&front, &named).await, format!("{client} {cache}"), "{field}");
            assert_eq!(told(&front, &named).await, format!("{client} hit"), "{field}");
        }
    }
}

/// Each spelling of a field that is dropped made a variant of its own.
#[tokio::test(start_paused = true)]
async fn what_is_dropped_or_replaced_makes_no_variant() {
    for field in ["x-forwarded-proto", "x-forwarded-prefix", "x-original-url", "x_device", "if-none-match"] {
        let upstream = varying(field);
        let front = front(&upstream);
        for value in ["1", "2", "3"] {
            front.get_with("/", &[(field, value)]).await;
        }
        front.get("/").await;
        assert_eq!(upstream.count(), 1, "{field}");
    }
}

/// No cookie went upstream, and yet every visitor of a page that varies on cookies was a miss.
#[tokio::test(start_paused = true)]
async fn ignored_cookies_make_no_variants() {
    for how in ["ignore_cookies = true", "ignore_cookies = [\"_ga*\"]"] {
        let upstream = varying("cookie");
        let front = front_with(&upstream, &cached(how));
        for cookie in ["_ga=1", "_ga=2", "_gat=3"] {
            assert!(told(&front, &[("cookie", cookie)]).await.starts_with("(none) "), "{how}");
        }
        assert_eq!(upstream.count(), 1, "{how}");
    }
}

/// Where the edge codes, the upstream is never told what the client accepts.
#[tokio::test(start_paused = true)]
async fn where_the_edge_codes_the_clients_codings_make_no_variants() {
    let upstream = Upstream::start(|_| {
        let gzip =
            [("content-encoding", "gzip"), ("vary", "accept-encoding"), ("cache-control", "max-age=60")];
        Reply::ok("x").fields(&gzip)
    });
    let front = front(&upstream);
    for accepted in ["gzip", "br, gzip", "zstd"] {
        front.get_with("/", &[("accept-encoding", accepted)]).await;
    }
    assert_eq!(upstream.count(), 1);
}

/// A client behind a proxy that maintains X-Forwarded-For made itself 127.0.0.1 by a field of its own.
#[tokio::test(start_paused = true)]
async fn behind_trusted_proxies_one_field_names_the_client_and_its_scheme() {
    let upstream = Upstream::start(saying(&[], "x"));
    let x_forwarded = [("x-forwarded-for", "203.0.113.1"), ("x-forwarded-proto", "http")];
    let forwarded = [("forwarded", "for=127.0.0.1;proto=https"), ("x-forwarded-host", "evil.example")];
    for (setting, first, second, seen_as) in [
        ("", x_forwarded, forwarded, ("203.0.113.1", "http")),
        ("forwarded_by = \"forwarded\"\n", [forwarded[0], ("a", "b")], x_forwarded, ("127.0.0.1", "https")),
    ] {
        let behind = format!("[clients]\ntrusted_proxies = [\"192.0.2.1\"]\n{setting}{CACHED}");
        front_with(&upstream, &behind).get_with("/", &[first, second].concat()).await;
        let seen = upstream.seen().pop().unwrap().headers;
        let field = |name: &str| seen.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        assert_eq!((&*field("x-forwarded-for"), &*field("x-forwarded-proto")), seen_as, "{setting}");
        assert_eq!((&*field("forwarded"), &*field("x-forwarded-host")), ("", "shop.example"), "{setting}");
    }
}

/// The scheme is in the key: what an app says to a client over http (as a rule, to come back over https) must not be
/// said to one that has.
#[tokio::test(start_paused = true)]
async fn the_scheme_that_a_trusted_proxy_names_tells_answers_apart() {
    let upstream = Upstream::start(|seen: &Seen| {
        let scheme = seen.headers["x-forwarded-proto"].to_str().unwrap().to_owned();
        Reply::ok(scheme).fields(&[("cache-control", "max-age=60")])
    });
    let behind = format!("[clients]\ntrusted_proxies = [\"192.0.2.1\"]\n{CACHED}");
    let front = front_with(&upstream, &behind);
    for scheme in ["http", "https"] {
        let got =
            front.get_with("/", &[("x-forwarded-for", "203.0.113.1"), ("x-forwarded-proto", scheme)]).await;
        assert_eq!((got.text(), got.cache()), (scheme, "fwd=uri-miss"));
    }
}
