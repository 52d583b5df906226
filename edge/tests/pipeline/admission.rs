//! Routes whose requests somebody admits one by one, and routes that are closed for a while.

use http::Request;
use scripted_upstream::{Reply, Seen};

use crate::{
    explain::explain,
    front::{CACHED, Front, front_with},
    upstream::Upstream,
};

/// Admits who has the cookie `in`, as the person whose name it is; the app greets by the field that it is given.
fn script(seen: &Seen) -> Reply {
    if seen.target.starts_with("/verify") {
        return match seen.header("cookie").strip_prefix("in=") {
            Some(name) => Reply::status(204).header("x-user", name),
            None => Reply::status(302).header("location", "https://login.test/").header("x-user", "eve"),
        };
    }
    Reply::ok(format!("hello {}", seen.header("x-user"))).header("cache-control", "max-age=60")
}

/// One route, whose requests are admitted, with what is said of its own.
fn admitted(said: &str, upstream: &Upstream) -> Front {
    let route = format!(
        "[[routes]]\nname = \"staff\"\npath = \"/staff/*\"\nupstream = \"origin\"\ncache = {{ ignore_cookies = true }}\n\
         forward_auth = {{ upstream = \"origin\", path = \"/verify?app=staff\"{said} }}\n{CACHED}"
    );
    front_with(upstream, &route)
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_only_when_the_upstream_says_so_of_this_very_request() {
    let upstream = Upstream::start(script);
    let front = admitted("", &upstream);
    let refused = front.get_with("/staff/x?y", &[("if-none-match", "\"v\""), ("range", "bytes=0-1")]).await;
    assert_eq!((refused.status, refused.field("location")), (302, "https://login.test/"));
    assert!(refused.field("cache-status").contains("detail=forward-auth"), "{refused:?}");
    assert_eq!(refused.field("cache-control"), "no-store");
    let asked = upstream.only();
    assert_eq!((asked.method.as_str(), &*asked.target), ("GET", "/verify?app=staff"));
    for (name, value) in [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/staff/x?y"),
        ("if-none-match", ""),
        ("range", ""),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert_eq!(front.get_with("/staff/x?y", &[("cookie", "in=ada")]).await.cache(), "fwd=uri-miss");
    assert_eq!(front.get_with("/staff/x?y", &[("cookie", "in=bob")]).await.cache(), "hit");
    assert_eq!(front.get("/staff/x?y").await.status, 302, "also for what is stored");
    let post =
        front.send_body(Request::post("/staff/x").header("x-forwarded-method", "GET"), "content").await;
    assert_eq!(post.status, 302);
    let seen = upstream.seen();
    let asked = seen.last().unwrap();
    assert_eq!((asked.header("x-forwarded-method"), asked.header("content-length")), ("POST", ""));
    assert_eq!(seen.iter().filter(|seen| seen.target.starts_with("/staff")).count(), 1);
}

/// What is made for Ada would have been Bob's hit, and `X-User` whatever a client writes.
#[tokio::test(start_paused = true)]
async fn what_is_said_of_who_asks_is_no_clients_to_write_and_its_answer_is_no_other_clients() {
    let upstream = Upstream::start(script);
    let front = admitted(", copy = [\"X-User\"]", &upstream);
    let get = async |cookie: &str| {
        let got = front.get_with("/staff/x", &[("cookie", cookie), ("x-user", "admin")]).await;
        (got.text().to_owned(), got.field("x-user").to_owned())
    };
    for name in ["ada", "bob", "ada"] {
        assert_eq!(get(&format!("in={name}")).await, (format!("hello {name}"), String::new()));
    }
    upstream.change(|seen| match script(seen) {
        reply if seen.target.starts_with("/verify") => reply,
        reply => reply.header("cache-control", "public, max-age=60"),
    });
    assert_eq!(get("in=cleo").await.0, "hello cleo");
    assert_eq!(get("in=dora").await.0, "hello cleo", "what says that it is for everyone is");
    let told = explain(&front, "/staff/x", &[]);
    assert!(told.notes.iter().any(|note| note.contains("/verify?app=staff")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_on_while_the_upstream_that_admits_is_away() {
    let upstream = Upstream::start(|seen| match seen.target.starts_with("/verify") {
        true => Reply::hang_up(),
        false => Reply::ok("staff"),
    });
    let got = admitted("", &upstream).get_with("/staff/x", &[("cookie", "in=ada")]).await;
    assert_eq!(got.status, 502);
    assert!(upstream.seen().iter().all(|seen| seen.target.starts_with("/verify")));
}

#[tokio::test]
async fn a_route_is_closed_while_a_file_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("closed.html");
    let upstream = Upstream::start(|_| Reply::ok("x").header("cache-control", "max-age=60"));
    let closing = format!(
        "[maintenance]\nfile = {file:?}\nexcept = [\"10.0.0.0/8\"]\nretry_after = \"5m\"\n\
         [clients]\ntrusted_proxies = [\"192.0.2.1\"]\n\
         [[routes]]\nname = \"open\"\npath = \"/status\"\nupstream = \"origin\"\nmaintenance = {:?}\n{CACHED}",
        folder.path().join("never")
    );
    let front = front_with(&upstream, &closing);
    assert_eq!(front.get("/").await.status, 200);
    std::fs::write(&file, "<p>{title}: back soon</p>").unwrap();
    front.look_at_closures();
    let closed = front.get_with("/", &[("accept", "text/html")]).await;
    assert_eq!(
        (closed.status, closed.text()),
        (503, "<p>Service Unavailable: back soon</p>"),
        "a hit before"
    );
    assert_eq!(closed.field("retry-after"), "300");
    assert!(front.get("/").await.text().contains("\"code\":\"maintenance\""));
    assert_eq!(front.get("/status").await.status, 200);
    assert_eq!(front.get_with("/", &[("x-forwarded-for", "10.1.1.1")]).await.status, 200);
    std::fs::remove_file(&file).unwrap();
    front.look_at_closures();
    assert_eq!(front.get("/").await.cache(), "hit");
}
