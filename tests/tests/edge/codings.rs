//! Content codings chosen for each client (RFC 9110 §8.4, §12.5.3). A coding of a stored answer is computed once and then kept:
//! the strong entity tag tells it from one made on the fly (RFC 9110 §8.8.1).

use gatehouse_tests::{
    curl::Answer,
    edge::Edge,
    upstream::{Gate, Reply, Upstream},
    wait,
};

const PAGE: &str = "text/html; charset=utf-8";
const CODINGS: [&str; 3] = ["br", "gzip", "zstd"];

fn text() -> String {
    "A shop sells things that people like to read about. ".repeat(200)
}

fn serving(content_type: &'static str, body: String) -> Upstream {
    Upstream::start(move |_| {
        Reply::ok(body.clone())
            .header("content-type", content_type)
            .cache_control("max-age=60")
            .header("etag", "\"v1\"")
    })
}

#[test]
fn each_coding_is_served_over_http_1_and_2() {
    let upstream = serving(PAGE, text());
    let edge = Edge::over(&upstream).start();
    for round in ["miss or first", "hit"] {
        for coding in ["gzip", "br", "zstd"] {
            for curl in [edge.curl("/"), edge.curl_tls("/"), edge.curl_h2("/")] {
                let answer = curl.coding(coding).send();
                assert_eq!(answer.must("content-encoding"), coding, "{round}: {answer:#?}");
                assert!(answer.must("vary").to_ascii_lowercase().contains("accept-encoding"), "{answer:#?}");
                assert_eq!(answer.text(), text(), "{round}, {coding}");
            }
        }
    }
}

#[test]
fn a_stored_coding_is_small_and_states_its_length() {
    let upstream = serving(PAGE, text());
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    for coding in ["gzip", "br", "zstd"] {
        let header = format!("Accept-Encoding: {coding}");
        let answer = wait::until("the coding is computed", || {
            Some(edge.curl("/").header(&header).send())
                .filter(|answer| answer.header("content-length").is_some())
        });
        assert_eq!(answer.must("content-length").parse(), Ok(answer.body.len()), "{coding}");
        assert!(answer.body.len() < text().len() / 10, "{coding}: {} bytes", answer.body.len());
    }
}

#[test]
fn each_coding_has_its_own_etag_and_each_still_validates() {
    let upstream = serving(PAGE, text());
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    // Coded as it streams, the tag is weak; once the coding is stored, strong. Its opaque part stays.
    let opaque = |tag: &str| tag.trim_start_matches("W/").to_owned();
    let mut tags = vec!["\"v1\"".to_owned()];
    for coding in ["gzip", "br", "zstd"] {
        let tag = edge.curl("/").coding(coding).send().must("etag").to_owned();
        assert!(!tags.contains(&opaque(&tag)), "{coding} shares {tag} with another coding");
        let again = edge.curl("/").coding(coding).header(&format!("If-None-Match: {tag}")).send();
        assert_eq!((again.status, opaque(again.must("etag"))), (304, opaque(&tag)), "{coding}");
        tags.push(opaque(&tag));
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_client_that_asks_for_no_coding_gets_none() {
    let upstream = serving(PAGE, text());
    let edge = Edge::over(&upstream).start();
    for header in
        ["Accept:", "Accept-Encoding:", "Accept-Encoding: identity", "Accept-Encoding: gzip;q=0, br;q=0"]
    {
        let answer = edge.curl("/").header(header).send();
        assert_eq!(answer.header("content-encoding"), None, "{header}: {answer:#?}");
        assert_eq!(answer.text(), text(), "{header}");
        assert!(
            answer.must("vary").to_ascii_lowercase().contains("accept-encoding"),
            "{header}: {answer:#?}"
        );
    }
}

#[test]
fn q_values_choose() {
    let upstream = serving(PAGE, text());
    let edge = Edge::over(&upstream).start();
    for (accept, chosen) in [
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("gzip;q=0.1, zstd;q=0.2", "zstd"),
        ("br;q=0, *", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate", "gzip"),
        ("GZIP", "gzip"),
    ] {
        let answer = edge.curl("/").header(&format!("Accept-Encoding: {accept}")).send();
        assert_eq!(answer.header("content-encoding"), Some(chosen), "{accept}");
    }
}

#[test]
fn what_gains_nothing_is_not_coded() {
    for (content_type, body) in [
        ("text/plain", "tiny".to_owned()),
        ("image/webp", text()),
        ("image/png", text()),
        ("font/woff2", text()),
    ] {
        let length = body.len();
        let upstream = serving(content_type, body);
        let edge = Edge::over(&upstream).start();
        for _ in 0..2 {
            let answer = edge.curl("/").coding("gzip, br, zstd").send();
            assert_eq!(answer.header("content-encoding"), None, "{content_type}, {length} bytes");
        }
    }
}

#[test]
fn no_transform_is_obeyed() {
    let upstream = Upstream::start(|_| {
        Reply::ok(text()).header("content-type", PAGE).cache_control("max-age=60, no-transform")
    });
    let edge = Edge::over(&upstream).start();
    for _ in 0..2 {
        let answer = edge.curl("/").coding("gzip, br, zstd").send();
        assert_eq!((answer.header("content-encoding"), answer.text()), (None, text()), "RFC 9110 §7.7");
    }
}

#[test]
fn an_answer_that_comes_coded_is_not_coded_again() {
    // gzip of "hello\n", made by gzip -n.
    const HELLO: &[u8] =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcbH\xcd\xc9\xc9\xe7\x02\x00 0:6\x06\x00\x00\x00";
    let upstream = Upstream::start(|_| {
        Reply::ok(HELLO)
            .header("content-type", PAGE)
            .header("content-encoding", "gzip")
            .cache_control("max-age=60")
    });
    let edge = Edge::over(&upstream).start();
    for _ in 0..2 {
        let answer = edge.curl("/").coding("gzip").send();
        assert_eq!((answer.all("content-encoding"), answer.text().as_str()), (vec!["gzip"], "hello\n"));
    }
}

#[test]
fn a_streamed_answer_is_coded_as_it_comes() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        Reply::streamed()
            .header("content-type", PAGE)
            .cache_control("no-store")
            .then(text())
            .then_wait(&held)
            .then("the end")
    });
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n");
    let head = String::from_utf8(raw.read_until(b"\r\n\r\n")).unwrap().to_ascii_lowercase();
    assert!(head.contains("content-encoding: gzip"), "{head}");
    // Something of the content arrives while the upstream still holds the rest back.
    raw.read_until(b"\x1f\x8b");
    gate.open();
    assert!(raw.read_to_close().ends_with(b"0\r\n\r\n"));
}

#[test]
fn codings_that_are_asked_for_close_together_are_all_kept() {
    // Once, the second to be ready was dropped, and never asked for again.
    let upstream = Upstream::start(|_| page().cache_control("max-age=600"));
    let edge = Edge::over(&upstream).start();
    for round in 0..5 {
        let path = format!("/{round}");
        let _ = edge.get(&path);
        let together: Vec<_> = CODINGS
            .iter()
            .map(|coding| edge.curl(&path).header(&format!("Accept-Encoding: {coding}")).start())
            .collect();
        for client in together {
            assert_eq!(client.answer().status, 200);
        }
        for coding in CODINGS {
            until_kept(&edge, &path, coding);
        }
    }
    assert_eq!(upstream.count(), 5);
}

#[test]
fn a_page_that_is_validated_at_every_visit_keeps_its_codings() {
    // Once, a 304 between the asking and the result lost the coding for ever.
    let upstream = Upstream::start(|seen| {
        let reply = if seen.header("if-none-match") == "\"v1\"" { Reply::status(304) } else { page() };
        reply.header("etag", "\"v1\"").cache_control("no-cache")
    });
    let edge = Edge::over(&upstream).start();
    let mut raw = edge.raw();
    for coding in CODINGS {
        let path = format!("/{coding}");
        // Back to back, on one connection: 304 upon 304 while the coding is being computed.
        for _ in 0..5 {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: {coding}\r\n\r\n", edge.clear());
            assert_eq!(raw.send(request).answer().status, 200);
        }
        until_kept(&edge, &path, coding);
        assert_eq!(
            ask(&edge, &path, coding).header("content-length"),
            ask(&edge, &path, coding).header("content-length"),
            "and it stays"
        );
    }
}

#[test]
fn what_came_out_longer_is_not_coded_at_every_request() {
    // Once, text that does not shrink was coded on the fly for ever.
    let noise: Vec<u8> = (0..20_000_u64).map(noise).collect();
    let upstream = Upstream::start(move |_| {
        Reply::ok(noise.clone())
            .header("content-type", "text/plain")
            .header("etag", "\"v1\"")
            .cache_control("max-age=600")
    });
    let edge = Edge::over(&upstream).start();
    let _ = edge.get("/");
    for coding in CODINGS {
        wait::until(&format!("{coding} is known not to be worth it"), || {
            let answer = ask(&edge, "/", coding);
            let identity = answer.header("content-encoding").is_none();
            (identity && answer.must("etag") == "\"v1\"" && answer.is_hit()).then_some(())
        });
    }
}

fn ask(edge: &Edge, path: &str, coding: &str) -> Answer {
    edge.curl(path).header(&format!("Accept-Encoding: {coding}")).send()
}

#[track_caller]
fn until_kept(edge: &Edge, path: &str, coding: &str) {
    wait::until(&format!("{coding} of {path} is kept"), || {
        let answer = ask(edge, path, coding);
        assert_eq!(answer.must("content-encoding"), coding, "{answer:#?}");
        (answer.must("etag") == format!("\"v1;gatehouse-{coding}\"")).then_some(())
    });
}

fn page() -> Reply {
    Reply::ok("A shop sells things that people like to read about. ".repeat(400))
        .header("content-type", "text/html")
        .header("etag", "\"v1\"")
}

/// A byte without order (SplitMix64).
fn noise(number: u64) -> u8 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).to_be_bytes()[7]
}
