//! Which route a request takes.

use std::sync::Arc;

use edge::{
    message::byte_stream::ByteStream,
    settings::parse,
    upstream::{
        address::Address,
        connect::{Dial, Dialling},
        files,
    },
};
use http::Request;
use scripted_upstream::{Reply, saying};

use crate::{
    front::{CACHED, Front, front_over, front_with},
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn a_path_without_a_route_is_a_404_of_the_edge() {
    let upstream = Upstream::start(saying(&[], "hello"));
    let front = front_with(&upstream, "[[routes]]\nname = \"a\"\npath = \"/a/*\"\nupstream = \"origin\"\n");
    let got = front.get("/b").await;
    assert_eq!((got.status, upstream.count()), (404, 0));
    assert!(got.text().contains("no-route"));
}

/// `hosts = ["shop.example."]` met no request, since requests lose the dot; a path written `/caf%c3%a9/*` met only
/// requests written so, and those in another spelling took the next route, with the same cache key.
#[tokio::test(start_paused = true)]
async fn a_route_meets_requests_for_its_host_and_path_in_every_spelling() {
    let upstream = Upstream::start(saying(&[], "hello"));
    let route = "[[routes]]\nname = \"a\"\nhosts = [\"shop.example.\"]\npath = \"/caf%c3%a9/*\"\nupstream = \"origin\"\n";
    let front = front_with(&upstream, route);
    for target in ["/caf%c3%a9/x", "/caf%C3%A9/x", "/%63af%c3%A9//x", "/caf%C3%A9/%"] {
        for host in ["shop.example", "SHOP.example.", "shop.example.:443"] {
            let got = front.send(http::Request::get(target).header("host", host)).await;
            assert_eq!(got.status, 200, "{target} {host}");
        }
    }
    assert_eq!(front.get("/caf%C3%A8/x").await.status, 404);
}

/// Routes as a file has them, before one that forwards everything else and caches it.
fn with(routes: &str, upstream: &Upstream) -> Front {
    front_with(upstream, &format!("{routes}\n{CACHED}"))
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_answered_without_the_upstream_and_keeps_path_and_query() {
    let upstream = Upstream::start(|_| Reply::ok("page"));
    let moved = "[[routes]]\nname = \"moved\"\npath = [\"/old/*\", \"/ancient\"]\nredirect = { to = \"/new/{rest}{query}\", status = 301 }\n\
                 [[routes]]\nname = \"www\"\npath = \"/*\"\nhosts = [\"*.shop.example\"]\nredirect = \"https://shop.example{path}{query}\"";
    let front = with(moved, &upstream);
    for (host, target, status, location) in [
        ("shop.example", "/old/a%20b?c=d", 301, "/new/a%20b?c=d"),
        ("shop.example", "/old/", 301, "/new/"),
        ("shop.example", "/ancient", 301, "/new/"),
        ("shop.example", "/old//evil.test", 301, "/new/evil.test"),
        ("www.shop.example", "/x?y", 308, "https://shop.example/x?y"),
        ("a.b.shop.example:8443", "/", 308, "https://shop.example/"),
    ] {
        let got = front.get_with(target, &[("host", host)]).await;
        assert_eq!((got.status, got.field("location")), (status, location), "{host} {target}");
        assert_eq!(got.field("content-length"), "0");
        let what = "gatehouse; detail=redirect";
        assert_eq!(got.field("cache-status"), what);
    }
    assert_eq!(front.get_with("/x", &[("host", "workshop.example")]).await.text(), "page");
    assert_eq!(upstream.seen().len(), 1);
    let counted = front.metric_lines("gatehouse_edge_requests_total{route=\"moved\",");
    assert!(
        counted.iter().any(|line| line.contains("cache=\"stated\"") && line.ends_with(" 4")),
        "{counted:?}"
    );
}

/// This client is on TLS: what sends clear text there is not for it.
#[tokio::test(start_paused = true)]
async fn a_redirect_to_tls_leaves_those_who_are_there() {
    let upstream = Upstream::start(|_| Reply::ok("page"));
    let tls = "[[listen]]\naddress = \"127.0.0.1:443\"\ntls = { certificate = \"c\", key = \"k\" }\n";
    let front =
        with(&format!("{tls}[[routes]]\nname = \"tls\"\npath = \"/*\"\nredirect = \"https\""), &upstream);
    assert_eq!(front.get("/").await.text(), "page");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_file_states_is_given_with_its_type_and_length() {
    let upstream = Upstream::start(|_| Reply::ok("page"));
    let stated = "[limits.few]\nrate = \"1/m\"\nburst = 3\n\
                  [[routes]]\nname = \"robots\"\npath = \"/robots.txt\"\nlimit = \"few\"\nrespond = { status = 200, body = \"User-agent: *\\n\" }\n\
                  [[routes]]\nname = \"gone\"\npath = \"/gone/*\"\nrespond = 410\n\
                  [[routes]]\nname = \"none\"\npath = \"/none\"\nrespond = 204";
    let front = with(stated, &upstream);
    let got = front.get("/robots.txt").await;
    assert_eq!((got.status, got.text(), got.field("content-length")), (200, "User-agent: *\n", "14"));
    assert_eq!(got.field("content-type"), "text/plain; charset=utf-8");
    assert!(got.field("ratelimit").contains("r=2"), "{got:?}");
    let head = front.send(Request::head("/robots.txt")).await;
    assert_eq!((head.text(), head.field("content-length")), ("", "14"));
    let gone = front.send_body(Request::post("/gone/x"), "content").await;
    assert_eq!((gone.status, gone.text()), (410, ""));
    let none = front.get("/none").await;
    assert_eq!((none.status, none.field("content-length")), (204, ""));
    front.get("/robots.txt").await;
    assert_eq!(front.get("/robots.txt").await.status, 429);
    assert_eq!(upstream.seen().len(), 0);
}

/// Requests that are on a route by a field would get, and give, what is stored for others.
#[tokio::test(start_paused = true)]
async fn a_route_by_method_or_field_takes_nothing_of_what_is_stored_for_others() {
    let upstream = Upstream::start(|seen| {
        Reply::ok(seen.header("x-tenant").to_owned()).header("cache-control", "max-age=60")
    });
    let beta = "[[routes]]\nname = \"beta\"\npath = \"/*\"\nheaders = [\"X-Beta: yes\"]\nupstream = \"origin\"\n\
                [[routes]]\nname = \"writes\"\npath = \"/*\"\nmethods = [\"POST\", \"PUT\"]\nrespond = 403";
    let front = with(beta, &upstream);
    let get =
        async |tenant: &str, beta: &str| front.get_with("/", &[("x-tenant", tenant), ("x-beta", beta)]).await;
    assert_eq!(get("a", "no").await.text(), "a");
    assert_eq!(get("b", "no").await.text(), "a", "a hit");
    let got = get("c", "yes").await;
    assert_eq!((got.text(), got.cache()), ("c", "fwd=bypass"));
    assert!(got.field("cache-status").contains("detail=route-fields"), "{got:?}");
    assert_eq!(get("d", "no").await.text(), "a", "nothing of it is stored");
    assert_eq!(front.send(Request::post("/")).await.status, 403);
    assert_eq!(front.send(Request::head("/")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_upstream_sees_paths_without_a_prefix_and_the_cache_with_it() {
    let upstream = Upstream::start(|_| Reply::ok("x").header("cache-control", "max-age=60"));
    let routes = "[[routes]]\nname = \"api\"\npath = [\"/api/*\", \"/api\"]\nupstream = \"origin\"\nstrip_prefix = \"/api\"\nadd_prefix = \"/v2\"\ncache = {}\n\
                  [[routes]]\nname = \"posts\"\npath = \"/posts/*\"\nupstream = \"origin\"\nstrip_prefix = \"/posts\"";
    let front = with(routes, &upstream);
    for target in ["/api/a?b=c", "/v2/a?b=c", "/api"] {
        assert_eq!(front.get(target).await.cache(), "fwd=uri-miss", "{target}");
    }
    assert_eq!(front.get("/api/a?b=c").await.cache(), "hit");
    front.send_body(Request::post("/posts/p?q").header("x-forwarded-prefix", "/evil"), "content").await;
    let seen = upstream.seen();
    let targets: Vec<(&str, &str)> =
        seen.iter().map(|seen| (&*seen.target, seen.header("x-forwarded-prefix"))).collect();
    assert_eq!(targets, [("/v2/a?b=c", "/api"), ("/v2/a?b=c", ""), ("/v2/", "/api"), ("/p?q", "/posts")]);
}

#[tokio::test(start_paused = true)]
async fn fields_of_answers_are_as_the_route_says_on_whatever_it_answers() {
    let upstream = Upstream::start(|_| {
        Reply::ok("x")
            .header("cache-control", "max-age=60")
            .header("server", "app")
            .header("surrogate-key", "a b")
            .header("server-timing", "db;dur=1")
            .header("cache-tag", "c")
    });
    let routes = "[[routes]]\nname = \"safe\"\npath = \"/safe/*\"\nupstream = \"origin\"\ncache = {}\nbounds = { body = \"1 B\" }\n\
                  response_fields = { X-Frame-Options = \"DENY\", server = false, link = [\"</a>\", \"</b>\"], cache-tag = true }";
    let front = with(routes, &upstream);
    let (miss, hit) = (front.get("/safe/x").await, front.get("/safe/x").await);
    assert_eq!(hit.cache(), "hit");
    let refused = front.send_body(Request::post("/safe/x"), "too long").await;
    assert_eq!(refused.status, 413);
    for got in [&miss, &hit, &refused] {
        assert_eq!((got.field("x-frame-options"), got.field("server")), ("DENY", ""), "{got:?}");
        assert_eq!(got.headers.get_all("link").iter().count(), 2);
        assert!(!got.headers.contains_key("surrogate-key") && !got.headers.contains_key("server-timing"));
    }
    assert_eq!(hit.field("cache-tag"), "c");
    let plain = front.get("/x").await;
    assert_eq!(
        (plain.field("server"), plain.field("x-frame-options"), plain.field("surrogate-key")),
        ("app", "", "")
    );
}

#[tokio::test(start_paused = true)]
async fn a_route_is_for_the_addresses_that_it_names() {
    let upstream = Upstream::start(|_| Reply::ok("x").header("cache-control", "max-age=60"));
    let routes = "[clients]\ntrusted_proxies = [\"192.0.2.1\"]\n\
                  [[routes]]\nname = \"staff\"\npath = \"/staff/*\"\nallow = [\"10.0.0.0/8\"]\ndeny = [\"10.9.0.0/16\"]\nupstream = \"origin\"\ncache = {}";
    let front = with(routes, &upstream);
    let from = async |address: &str| front.get_with("/staff/x", &[("x-forwarded-for", address)]).await;
    assert_eq!(from("10.1.1.1").await.status, 200);
    for outside in ["10.9.1.1", "198.51.100.1", "2001:db8::1"] {
        let got = from(outside).await;
        assert_eq!(got.status, 403, "{outside}: also what is stored");
        assert!(got.text().contains("address-denied"), "{got:?}");
    }
    assert_eq!(from("10.1.1.1").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn browsers_get_a_page_where_programs_get_json() {
    let upstream = Upstream::start(|_| Reply::ok("x"));
    let pages = tempfile::tempdir().unwrap();
    std::fs::write(pages.path().join("403.html"), "<p>{status} {title} {detail} {request_id}</p>").unwrap();
    let denied =
        "[[routes]]\nname = \"own\"\npath = \"/own\"\ndeny = [\"0.0.0.0/0\"]\nupstream = \"origin\"\n";
    let front = with(denied, &upstream);
    let browser = [("accept", "text/html,*/*;q=0.8")];
    let plain = front.get_with("/own", &browser).await;
    assert_eq!((plain.status, plain.field("content-type")), (403, "text/html; charset=utf-8"));
    assert!(plain.text().contains("<h1>403 Forbidden</h1>"), "{plain:?}");
    assert!(plain.text().contains(plain.field("x-request-id")));
    assert_eq!(front.get("/own").await.field("content-type"), "application/problem+json");
    let text = format!(
        "error_pages = {:?}\n[[listen]]\naddress = \"[::]:1\"\n[upstreams.origin]\nservers = [\"http://o\"]\n{denied}",
        pages.path()
    );
    front.reload(parse(&text, "test").unwrap());
    let own = front.get_with("/own", &browser).await;
    let id = own.field("x-request-id");
    assert_eq!(own.text(), format!("<p>403 Forbidden This address is not allowed here {id}</p>"));
    let length = own.field("content-length").to_owned();
    let head = front.send(Request::head("/own").header("accept", "text/html")).await;
    assert_eq!((head.text(), head.field("content-length")), ("", &*length));
}

/// Ada, whose password is `secret`.
const USERS: &str = "ada:$2y$05$Gr59V42/rB77oBsb7TRVgeXLCkKpibIlsFBQgwTqPBEsTwgrH.L.G\n";

#[tokio::test]
async fn a_route_lets_in_who_has_a_password_and_keeps_it_to_itself() {
    let upstream = Upstream::start(|_| Reply::ok("staff").header("cache-control", "max-age=60"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), USERS).unwrap();
    let routes = format!(
        "[[routes]]\nname = \"staff\"\npath = \"/staff/*\"\nupstream = \"origin\"\ncache = {{}}\nbasic_auth = {{ users = {:?}, realm = \"Staff\" }}",
        file.path()
    );
    let front = with(&routes, &upstream);
    let ask =
        async |authorization: &str| front.get_with("/staff/x", &[("authorization", authorization)]).await;
    let refused = front.get("/staff/x").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.field("www-authenticate"), "Basic realm=\"Staff\", charset=\"UTF-8\"");
    assert_eq!(ask("Basic YWRhOnNlY3JldA==").await.text(), "staff");
    for wrong in ["Basic YWRhOnNlY3JlZA==", "Basic ZXZlOnNlY3JldA==", "Bearer x"] {
        assert_eq!(ask(wrong).await.status, 401, "{wrong}: also for what is stored");
    }
    assert_eq!(ask("Basic YWRhOnNlY3JldA==").await.cache(), "hit");
    let seen = upstream.seen();
    assert_eq!((seen.len(), seen[0].header("authorization")), (1, ""));
}

struct OnlyFiles;

impl Dial for OnlyFiles {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialling<'a> {
        let Address::Files(folder) = address else { panic!("{address} is no folder") };
        let stream: Box<dyn ByteStream> = Box::new(files::connect(folder));
        Box::pin(async { Ok(stream) })
    }
}

#[tokio::test]
async fn files_of_a_folder_are_answered_and_nothing_outside_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("dist"), folder.path().join("secret.txt"));
    for (name, content) in [
        ("index.html", "front"),
        ("docs/index.html", "docs"),
        ("a b.txt", "0123456789"),
        ("assets/app.js", "js"),
        (".env", "secret"),
        (".well-known/security.txt", "contact"),
        (".git/config", "secret"),
        ("404.html", "lost"),
    ] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(&outside, "secret").unwrap();
    std::os::unix::fs::symlink(&outside, root.join("link.txt")).unwrap();
    std::os::unix::fs::symlink(folder.path(), root.join("up")).unwrap();
    std::os::unix::fs::symlink(root.join("a b.txt"), root.join("inside.txt")).unwrap();
    let routes = format!(
        "[[routes]]\nname = \"app\"\npath = [\"/app\", \"/app/*\"]\nstrip_prefix = \"/app\"\nfiles = {{ folder = {root:?}, fallback = \"index.html\" }}\n\
         [[routes]]\nname = \"site\"\npath = \"/*\"\nfiles = {{ folder = {root:?}, immutable = \"/assets/*\" }}\n"
    );
    let front = front_over(Arc::new(OnlyFiles), &routes);
    let get = async |target: &str| {
        let got = front.get(target).await;
        (got.status, got.text().to_owned())
    };
    for (target, status, text) in [
        ("/", 200, "front"),
        ("/docs/", 200, "docs"),
        ("/a%20b.txt", 200, "0123456789"),
        ("/inside.txt", 200, "0123456789"),
        ("/.well-known/security.txt", 200, "contact"),
        ("/.env", 404, "lost"),
        ("/%2eenv", 404, "lost"),
        ("/.git/config", 404, "lost"),
        ("/link.txt", 404, "lost"),
        ("/up/secret.txt", 404, "lost"),
        ("/up/dist/index.html", 200, "front"),
        ("/docs%2findex.html", 404, "lost"),
        ("/nothing", 404, "lost"),
        ("/app/", 200, "front"),
        ("/app/some/page", 200, "front"),
        ("/app/missing.js", 404, "lost"),
        ("/app/.env", 404, "lost"),
        ("/app", 200, "front"),
    ] {
        assert_eq!(get(target).await, (status, text.to_owned()), "{target}");
    }
    let folder_without_slash = front.get("/docs").await;
    assert_eq!(folder_without_slash.field("location"), "/docs/");
    let asset = front.get("/assets/app.js").await;
    assert_eq!(asset.field("cache-control"), "public, max-age=31536000, immutable");
    assert!(
        asset.field("etag").starts_with('"')
            && asset.field("content-type") == "text/javascript; charset=utf-8"
    );
    assert_eq!(front.get("/assets/app.js").await.cache(), "hit");
    let part = front.get_with("/a%20b.txt", &[("range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.text()), (206, "234"));
    let tag = front.get("/").await.field("etag").to_owned();
    assert_eq!(front.get_with("/", &[("if-none-match", &tag)]).await.status, 304);
    assert_eq!(front.send(Request::post("/")).await.status, 405);
}
