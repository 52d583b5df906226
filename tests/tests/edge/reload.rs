//! SIGHUP: new settings for new requests, and nobody notices.

use gatehouse_tests::{
    address,
    curl::Curl,
    edge::Edge,
    folder::Folder,
    raw::Raw,
    upstream::{Reply, Upstream},
};

fn upstream() -> Upstream {
    Upstream::start(|_| Reply::ok("text").cache_control("max-age=60"))
}

#[test]
fn a_reload_takes_effect_without_dropping_a_connection() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let mut raw = edge.raw();
    assert_eq!(raw.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").answer().status, 200);

    let line = edge.reload(&setup.clone().route("path = \"/only-this\"").text());
    assert!(!line.contains("refused"), "{line}");
    assert_eq!(
        raw.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").answer().status,
        404,
        "the old connection, the new routes"
    );
    assert_eq!(edge.get("/a").status, 404);
    assert_eq!(edge.curl_h2("/only-this").send().status, 200);

    edge.reload(&setup.text());
    let answer = raw.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").answer();
    assert_eq!(answer.status, 200);
    assert!(answer.is_hit(), "the cache is kept: {}", answer.head);
}

#[test]
fn a_reload_under_load_fails_no_request() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let (clear, tls) = (edge.clear(), edge.tls());
    let slow = std::thread::spawn(move || gatehouse_tests::load::h2load(tls, "/", 20_000, 10, 10));
    let fast = std::thread::spawn(move || gatehouse_tests::load::ab(clear, "/", 2_000, 20));
    while !(slow.is_finished() && fast.is_finished()) {
        edge.reload(&setup.clone().route("path = \"/*\"\ncache = { max_ttl = \"10m\" }").text());
        edge.reload(&setup.text());
    }
    for load in [slow.join().unwrap(), fast.join().unwrap()] {
        assert_eq!((load.failed, load.not_2xx), (0, 0), "{load:?}");
    }
}

#[test]
fn a_broken_file_keeps_the_old_settings_and_says_why() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let line = edge.reload(&setup.text().replace("path = ", "paht = "));
    assert!(line.contains("refused"), "{line}");
    let output = edge.process().lines().join("\n");
    for part in ["edge.toml", "paht", "path"] {
        assert!(output.contains(part), "the message names {part}:\n{output}");
    }
    assert_eq!(edge.get("/").status, 200);
    assert!(!edge.reload(&setup.text()).contains("refused"), "and a mended file is taken");
}

#[test]
fn a_new_certificate_is_used_for_new_connections() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    assert_eq!(edge.curl_h2("/").send().status, 200);
    let old_authority = gatehouse_tests::folder::Folder::new();
    let old = old_authority.path().join("ca.pem");
    std::fs::copy(edge.authority(), &old).unwrap();
    for file in std::fs::read_dir(edge.folder().join("certs")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    edge.reload(&setup.text());
    assert_eq!(edge.curl_h2("/").send().status, 200, "the new authority holds");
    let message = gatehouse_tests::curl::Curl::tls(edge.tls(), &old, "/").fail();
    assert!(message.contains("certificate"), "{message}");
}

/// Certificates were dealt out by the order of the tables: two listeners answered with each other's.
#[test]
fn a_listener_keeps_its_certificate_wherever_its_table_stands() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let own = [(address::own(), "one"), (address::own(), "two")];
    let table = |(address, name): (std::net::SocketAddr, &str)| {
        format!(
            "[[listen]]\naddress = \"{address}\"\n\
             tls = {{ certificate = \"{name}/localhost.pem\", key = \"{name}/localhost.key\", local_ca = true }}\n\n"
        )
    };
    let with = |tables: [(std::net::SocketAddr, &str); 2]| {
        let tables: String = tables.into_iter().map(table).collect();
        setup.text().replacen("[admin]", &format!("{tables}[admin]"), 1)
    };
    let folder = Folder::new();
    folder.write("edge.toml", &with(own));
    let mut edge = Edge::start_in(folder);
    let answers = |edge: &Edge| {
        for (address, name) in own {
            let authority = edge.folder().join(name).join("ca.pem");
            assert_eq!(Curl::tls(address, &authority, "/").send().status, 200, "{name}");
        }
    };
    answers(&edge);
    let line = edge.reload(&with([own[1], own[0]]));
    assert!(line.contains("reloaded"), "{line}");
    answers(&edge);
}

/// A renewed token opened nothing and the old one still did; one added, or taken away, had no effect. "Reloaded", it said.
#[test]
fn the_admin_token_of_the_settings_in_force_is_the_one_that_counts() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let guarded = setup.text().replacen("[admin]", "[admin]\ntoken_file = \"token\"", 1);
    let mut edge = setup.start();
    let purge = |edge: &Edge, token: &str| {
        let mut raw = Raw::connect(edge.admin());
        let content = "{\"everything\":true}";
        raw.send(format!(
            "POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}",
            content.len()
        ));
        raw.answer().status
    };
    let (old, new) = ("an-old-word-0123456789", "a-new-word-0123456789");
    assert_eq!(purge(&edge, "none"), 200, "without a token this machine may");

    let line = edge.reload(&guarded);
    assert!(line.contains("refused") && line.contains("token_file"), "it is not there yet: {line}");
    assert_eq!(purge(&edge, "none"), 200);

    std::fs::write(edge.folder().join("token"), old).unwrap();
    assert!(edge.reload(&guarded).contains("reloaded"));
    assert_eq!((purge(&edge, "none"), purge(&edge, old)), (401, 200), "added");

    std::fs::write(edge.folder().join("token"), new).unwrap();
    assert!(edge.reload(&guarded).contains("reloaded"));
    assert_eq!((purge(&edge, old), purge(&edge, new)), (401, 200), "renewed");

    std::fs::write(edge.folder().join("token"), "short").unwrap();
    assert!(edge.reload(&guarded).contains("refused"));
    assert_eq!((purge(&edge, old), purge(&edge, new)), (401, 200), "kept");

    assert!(edge.reload(&setup.text()).contains("reloaded"));
    assert_eq!(purge(&edge, "none"), 200, "taken away");
}
