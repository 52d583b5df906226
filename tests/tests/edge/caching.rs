//! What is stored, what is answered from it, and what never is (RFC 9111).

use gatehouse_tests::{
    edge::Edge,
    upstream::{Reply, Upstream},
    wait,
};

/// An upstream whose every answer is the number of the request for that target, fresh for a minute.
pub(crate) fn counting() -> Upstream {
    Upstream::start(|seen| {
        Reply::ok(format!("answer {}", seen.earlier + 1)).cache_control("max-age=60").header("etag", "\"v1\"")
    })
}

#[test]
fn the_second_request_is_a_hit_over_every_protocol() {
    let upstream = counting();
    let edge = Edge::over(&upstream).start();
    for (number, version) in ["HTTP/1.1 over clear text", "HTTP/1.1", "HTTP/2"].into_iter().enumerate() {
        let path = format!("/{number}");
        let client = || match number {
            0 => edge.curl(&path),
            1 => edge.curl_tls(&path),
            _ => edge.curl_h2(&path),
        };
        let version = version.split(' ').next().unwrap();
        let miss = client().send();
        assert_eq!(
            (miss.status, miss.text().as_str(), miss.version.as_str()),
            (200, "answer 1", version),
            "{miss:#?}"
        );
        assert!(!miss.is_hit(), "{miss:#?}");
        assert!(miss.forwarded().ends_with("miss"), "{miss:#?}");
        assert!(miss.must("via").contains("gatehouse"), "{miss:#?}");

        let hit = client().send();
        assert_eq!(
            (hit.status, hit.text().as_str(), hit.version.as_str()),
            (200, "answer 1", version),
            "{hit:#?}"
        );
        assert!(hit.is_hit(), "{hit:#?}");
        assert!(hit.must("age").parse::<u32>().is_ok(), "{hit:#?}");
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn http_and_https_are_different_resources() {
    let upstream = counting();
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    assert!(!edge.curl_tls("/").send().is_hit());
    assert!(edge.curl_h2("/").send().is_hit(), "HTTP/1.1 and HTTP/2 over TLS share");
}

#[test]
fn different_hosts_and_queries_are_different_resources() {
    let upstream = counting();
    let edge = Edge::over(&upstream).start();
    for (host, path) in [("a.test", "/"), ("b.test", "/"), ("a.test", "/?x=1"), ("a.test", "/?x=2")] {
        let answer = edge.curl(path).header(&format!("Host: {host}")).send();
        assert!(!answer.is_hit(), "{host}{path}: {answer:#?}");
    }
    assert!(edge.curl("/?x=1").header("Host: A.test").send().is_hit(), "hosts have no case");
}

#[test]
fn head_is_answered_from_a_stored_get() {
    let upstream = counting();
    let edge = Edge::over(&upstream).start();
    let get = edge.get("/");
    for head in [edge.curl("/").head().send(), edge.curl("/").http10().head().send()] {
        assert!(head.is_hit(), "{head:#?}");
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in ["content-length", "etag", "cache-control", "date"] {
            assert_eq!(head.header(name), get.header(name), "{name}: {head:#?}");
        }
    }
}

#[test]
fn a_stored_head_is_never_the_answer_to_get() {
    let upstream = counting();
    let edge = Edge::over(&upstream).start();
    let _ = edge.curl("/").head().send();
    assert_eq!(edge.get("/").body.len(), "answer 2".len());
}

#[test]
fn what_the_origin_forbids_is_never_stored() {
    for directives in
        ["no-store", "private", "max-age=60, private", "No-Store", "PRIVATE", "private=\"x-y\", no-store"]
    {
        let upstream = Upstream::start(move |_| Reply::ok("mine").cache_control(directives));
        let edge = Edge::over(&upstream).start();
        for _ in 0..2 {
            assert!(!edge.get("/").is_hit(), "{directives}");
        }
        assert_eq!(upstream.count(), 2, "{directives}");
    }
}

#[test]
fn what_is_personal_is_never_shared() {
    let upstream = Upstream::start(|seen| {
        let reply = Reply::ok("mine").cache_control("max-age=60");
        if seen.target.starts_with("/login") { reply.header("set-cookie", "session=1") } else { reply }
    });
    let edge = Edge::over(&upstream).start();
    for _ in 0..2 {
        assert!(!edge.curl("/a").header("Authorization: Bearer 1").send().is_hit(), "RFC 9111 §3.5");
        assert!(!edge.curl("/b").header("Cookie: session=1").send().is_hit(), "a cookie makes a route pass");
        let login = edge.get("/login");
        assert!(!login.is_hit(), "an answer that sets a cookie");
        assert_eq!(login.must("set-cookie"), "session=1", "still reaches its own client");
    }
    assert_eq!(upstream.count(), 6);
}

#[test]
fn an_answer_that_was_private_once_is_stored_when_it_no_longer_is() {
    // Once, a marked key was passed, so that nothing could end the marker before its time.
    let upstream = Upstream::start(|seen| match seen.earlier {
        0 => Reply::ok("mine").cache_control("private"),
        _ => Reply::ok("ours").cache_control("max-age=600"),
    });
    let edge = Edge::over(&upstream).start();
    assert_eq!(edge.get("/").text(), "mine");
    assert_eq!(edge.get("/").text(), "ours");
    assert!(edge.get("/").is_hit());
}

#[test]
fn without_explicit_freshness_or_validator_nothing_is_stored() {
    let upstream = Upstream::start(|_| Reply::ok("text"));
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    assert!(!edge.get("/").is_hit());
}

#[test]
fn each_value_of_what_vary_names_is_a_variant() {
    let upstream = Upstream::start(|seen| {
        Reply::ok(seen.header("accept-language").to_owned())
            .cache_control("max-age=60")
            .header("vary", "Accept-Language")
    });
    let edge = Edge::over(&upstream).start();
    for round in 0..2 {
        for language in ["de", "en"] {
            let answer = edge.curl("/").header(&format!("Accept-Language: {language}")).send();
            assert_eq!(answer.text(), language);
            assert_eq!(answer.is_hit(), round > 0, "{language}: {answer:#?}");
        }
    }
}

#[test]
fn an_expired_entry_is_validated_and_freshened_by_304() {
    let upstream = Upstream::start(|seen| {
        let reply = match seen.header("if-none-match") {
            "\"v1\"" => Reply::status(304),
            _ => Reply::ok("text"),
        };
        reply.cache_control("max-age=0").header("etag", "\"v1\"")
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    let answer = edge.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "text"));
    assert!(answer.forwarded().ends_with("stale"), "{answer:#?}");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header("if-none-match"), "\"v1\"");
}

#[test]
fn a_broken_off_answer_is_never_stored() {
    let upstream = Upstream::start(|seen| {
        let reply = Reply::streamed().then("begin ").cache_control("max-age=60");
        if seen.earlier == 0 { reply.then_break() } else { reply.then("end") }
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.curl("/").fail();
    assert_eq!(edge.get("/").text(), "begin end");
}

#[test]
fn only_if_cached_is_504_when_nothing_is_stored() {
    let upstream = counting();
    let edge = Edge::over(&upstream).start();
    edge.curl("/").header("Cache-Control: only-if-cached").send().assert_problem(504);
    assert_eq!(upstream.count(), 0);
    let _ = edge.get("/");
    assert!(edge.curl("/").header("Cache-Control: only-if-cached").send().is_hit());
}

#[test]
fn the_assets_rule_keeps_for_a_year_what_the_origin_left_open() {
    let upstream = Upstream::start(|_| Reply::ok("body { }").header("content-type", "text/css"));
    let edge = Edge::over(&upstream)
        .route(
            "path = \"/assets/*\"\n\
             cache = { default_ttl = \"365d\", browser = \"public, max-age=31536000, immutable\" }",
        )
        .start();
    let _ = edge.get("/assets/a.css");
    let hit = edge.get("/assets/a.css");
    assert!(hit.is_hit(), "{hit:#?}");
    assert_eq!(hit.all("cache-control"), ["public, max-age=31536000, immutable"]);
}

#[test]
fn a_routes_browser_rule_never_makes_an_error_cacheable() {
    let upstream = Upstream::start(|_| Reply::ok("gone").with_status(404).cache_control("no-store"));
    let edge = Edge::over(&upstream)
        .route("path = \"/*\"\ncache = { default_ttl = \"365d\", browser = \"public, max-age=31536000, immutable\" }")
        .start();
    assert_eq!(edge.get("/").must("cache-control"), "no-store");
}

#[test]
fn max_ttl_caps_what_the_origin_says() {
    let upstream = Upstream::start(|_| Reply::ok("text").cache_control("max-age=1000").header("age", "20"));
    let edge = Edge::over(&upstream).route("path = \"/*\"\ncache = { max_ttl = \"10s\" }").start();
    let _ = edge.get("/");
    assert!(!edge.get("/").is_hit(), "20 seconds old is older than 10 seconds");
}

#[test]
fn a_page_is_validated_for_every_visitor() {
    let upstream = Upstream::start(|seen| {
        let reply = match seen.header("if-none-match") {
            "\"page\"" => Reply::status(304),
            _ => Reply::ok("<p>page</p>").header("content-type", "text/html"),
        };
        reply.cache_control("no-cache").header("etag", "\"page\"")
    });
    let edge = Edge::over(&upstream).start();
    for visit in 1..=3 {
        let page = edge.get("/");
        assert_eq!((page.status, page.text().as_str()), (200, "<p>page</p>"));
        assert!(!page.is_hit(), "{page:#?}");
        assert_eq!(upstream.count(), visit, "every visit is validated");
    }
    let again = edge.curl("/").header("If-None-Match: \"page\"").send();
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert!(upstream.seen()[1..].iter().all(|seen| seen.header("if-none-match") == "\"page\""));
}

#[test]
fn stale_while_revalidate_answers_at_once_and_refreshes_behind() {
    let upstream = Upstream::start(|seen| {
        let reply = Reply::ok(format!("answer {}", seen.earlier + 1))
            .header("etag", &format!("\"{}\"", seen.earlier));
        if seen.earlier == 0 {
            // Arrives stale: nobody has to wait for time to pass.
            reply.cache_control("max-age=50, stale-while-revalidate=600").header("age", "100")
        } else {
            reply.cache_control("max-age=600")
        }
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    let stale = edge.get("/");
    assert_eq!(stale.text(), "answer 1");
    assert!(stale.must("age").parse::<u32>().unwrap() >= 100, "{stale:#?}");
    upstream.wait_for(2);
    wait::until("the refreshed answer is served", || (edge.get("/").text() == "answer 2").then_some(()));
    assert_eq!(upstream.count(), 2);
}
