//! What answers say to scripts of other sites, and what guards them from other sites.

use http::Request;
use scripted_upstream::Reply;

use crate::{
    front::{CACHED, Front, front_with},
    upstream::Upstream,
};

fn front_saying(said: &str, upstream: &Upstream) -> Front {
    let route = format!(
        "[[routes]]\nname = \"api\"\npath = \"/api/*\"\nupstream = \"origin\"\ncache = {{}}\n{said}\n{CACHED}"
    );
    front_with(upstream, &route)
}

const SAID: &str = "cors = { origins = [\"https://app.test\", \"https://*.test.example\"], headers = [\"X-A\", \"Content-Type\"], \
                    methods = [\"GET\", \"PUT\"], expose = [\"X-Total\"], credentials = true, max_age = \"1h\" }";

/// The origin's own words would have been stored for the first who asked, and the others refused by their browsers.
#[tokio::test(start_paused = true)]
async fn one_stored_answer_is_for_scripts_of_every_origin_that_the_route_names() {
    let upstream = Upstream::start(|seen| {
        Reply::ok(seen.header("origin").to_owned())
            .header("cache-control", "max-age=60")
            .header("vary", "Origin")
            .header("access-control-allow-origin", "https://other.test")
            .header("access-control-expose-headers", "*")
    });
    let front = front_saying(SAID, &upstream);
    for (origin, allowed, cache) in [
        ("https://app.test", "https://app.test", "fwd=uri-miss"),
        ("https://a.test.example", "https://a.test.example", "hit"),
        ("https://evil.test", "", "hit"),
        ("null", "", "hit"),
    ] {
        let got = front.get_with("/api/x", &[("origin", origin)]).await;
        assert_eq!((got.text(), got.cache()), ("", cache), "{origin}");
        assert_eq!(got.field("access-control-allow-origin"), allowed, "{origin}");
        let (credentials, exposed) = if allowed.is_empty() { ("", "") } else { ("true", "X-Total") };
        assert_eq!(got.field("access-control-allow-credentials"), credentials);
        assert_eq!(got.field("access-control-expose-headers").to_lowercase(), exposed.to_lowercase());
        assert!(got.headers.get_all("vary").iter().any(|line| line == "origin"), "{got:?}");
    }
    assert_eq!(upstream.count(), 1);
    let everyone = front_saying("cors = { origins = \"*\" }", &upstream);
    let got = everyone.get_with("/api/x", &[("origin", "https://any.test")]).await;
    assert_eq!(got.field("access-control-allow-origin"), "*");
    assert!(got.headers.get_all("vary").iter().all(|line| line != "origin"));
}

/// Browsers send no credentials with the question, and would not send the request.
#[tokio::test(start_paused = true)]
async fn a_browser_that_asks_beforehand_is_answered_without_the_upstream_and_without_a_password() {
    let upstream = Upstream::start(|_| Reply::ok("x"));
    let users = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(users.path(), "ada:$2y$05$Gr59V42/rB77oBsb7TRVgeXLCkKpibIlsFBQgwTqPBEsTwgrH.L.G\n")
        .unwrap();
    let said = format!("basic_auth = {{ users = {:?} }}\n{SAID}", users.path());
    let front = front_saying(&said, &upstream);
    let ask = async |origin: &str| {
        let asked = Request::options("/api/x").header("origin", origin);
        front.send(asked.header("access-control-request-method", "PUT")).await
    };
    let got = ask("https://app.test").await;
    assert_eq!((got.status, got.field("access-control-allow-origin")), (204, "https://app.test"));
    assert_eq!(got.field("access-control-allow-methods"), "GET, PUT");
    assert_eq!(got.field("access-control-allow-headers"), "x-a, content-type");
    assert_eq!(got.field("access-control-max-age"), "3600");
    let refused = ask("https://evil.test").await;
    assert_eq!((refused.status, refused.field("access-control-allow-origin")), (403, ""));
    let unauthorized = front.get_with("/api/x", &[("origin", "https://app.test")]).await;
    assert_eq!(
        (unauthorized.status, unauthorized.field("access-control-allow-origin")),
        (401, "https://app.test")
    );
    assert_eq!(upstream.count(), 0);
    let front = front_saying(SAID, &upstream);
    let plain = front.send(Request::options("/api/x").header("origin", "https://app.test")).await;
    assert_eq!(plain.text(), "x", "not every OPTIONS asks that");
}

#[tokio::test(start_paused = true)]
async fn answers_are_guarded_where_they_say_nothing_of_it() {
    let upstream = Upstream::start(|seen| match &*seen.target {
        "/api/own" => Reply::ok("x").header("x-frame-options", "SAMEORIGIN"),
        _ => Reply::ok("x").header("cache-control", "max-age=60"),
    });
    let front = front_saying(
        "security = \"strict\"\nresponse_fields = { Referrer-Policy = \"no-referrer\" }",
        &upstream,
    );
    let hit = async || {
        front.get("/api/x").await;
        front.get("/api/x").await
    };
    for (got, frames) in [(hit().await, "DENY"), (front.get("/api/own").await, "SAMEORIGIN")] {
        assert_eq!(got.field("x-content-type-options"), "nosniff");
        assert_eq!(got.field("x-frame-options"), frames);
        assert_eq!(got.field("referrer-policy"), "no-referrer");
    }
    assert_eq!(front.get("/other").await.field("x-content-type-options"), "");
}

#[tokio::test(start_paused = true)]
async fn the_upstream_sees_the_path_that_an_expression_makes_and_the_cache_the_clients_own() {
    let upstream =
        Upstream::start(|seen| Reply::ok(seen.target.clone()).header("cache-control", "max-age=60"));
    let front = front_saying("rewrite = { from = \"/api/([0-9]+)\", to = \"/get?id=$1\" }", &upstream);
    for (target, seen) in [
        ("/api/7", "/get?id=7"),
        ("/api/8?a=b", "/get?id=8&a=b"),
        ("/get?id=7", "/get?id=7"),
        ("/api/x", "/api/x"),
    ] {
        let got = front.get(target).await;
        assert_eq!((got.text(), got.cache()), (seen, "fwd=uri-miss"), "{target}");
    }
    assert_eq!(front.get("/%61pi//7").await.cache(), "fwd=uri-miss", "another key, as elsewhere");
    assert_eq!(front.get("/api/7").await.cache(), "hit");
}
