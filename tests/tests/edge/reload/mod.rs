//! SIGHUP, `edge reload` and watched files: new settings for new requests, and nobody notices.

mod listeners;
mod scenario;

use gatehouse_tests::{
    address,
    curl::Curl,
    edge::Edge,
    folder::Folder,
    raw::Raw,
    upstream::{Gate, Reply, Upstream},
    wait,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

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

#[test]
fn the_command_prints_what_changed_and_its_exit_code_tells_whether_it_is_in_force() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    let (done, printed) = edge.reload_command(&setup.text());
    assert!(done && printed == "reloaded edge.toml: nothing changed\n", "{printed}");

    let tables = "[timeouts]\nidle = \"5m\"\n[limits.api]\nrate = \"7/m\"";
    let (done, printed) = edge.reload_command(&setup.clone().tables(tables).text());
    assert!(done, "{printed}");
    for line in ["timeouts.idle: 75s -> 5m", "limits.api: new, 7/m", "reloaded edge.toml"] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    assert!(printed.contains("limit \"api\" is never used"), "warnings too: {printed}");
    edge.process().wait_for_line("the same", |line| line.contains("timeouts.idle: 75s -> 5m").then_some(()));

    let (done, printed) = edge.reload_command(&setup.text().replace("path = ", "paht = "));
    assert!(!done && printed.contains("edge.toml:") && printed.contains("paht"), "{printed}");
    let (done, printed) = edge.reload_command(&setup.text().replace("threads = 2", "threads = 3"));
    assert!(!done && printed.contains("refused") && printed.contains("needs a restart"), "{printed}");
    assert_eq!(edge.get("/").status, 200);
}

#[test]
fn a_watched_file_that_changes_is_read_and_a_broken_one_told_once() {
    let upstream = upstream();
    let watched = Edge::over(&upstream).text().replacen("threads", "watch = true\nthreads", 1);
    let folder = Folder::new();
    folder.write("edge.toml", &watched);
    let mut edge = Edge::start_in(folder);
    let write = |edge: &Edge, text: &str| std::fs::write(edge.folder().join("edge.toml"), text).unwrap();

    write(&edge, &watched.replace("path = \"/*\"", "path = \"/only-this\""));
    wait::until("the new routes are in force", || (edge.get("/a").status == 404).then_some(()));

    write(&edge, &watched.replace("path = ", "paht = "));
    let refusals = |edge: &mut Edge| {
        edge.process().lines().iter().filter(|line| line.contains("reload refused")).count()
    };
    wait::until("it is refused", || (refusals(&mut edge) == 1).then_some(()));
    // The certificate is looked at with each look at the file: once that one is in force, the file has been looked at since.
    std::fs::write(edge.folder().join("edge.toml.new"), watched.replace("path = ", "path  = ")).unwrap();
    std::fs::rename(edge.folder().join("edge.toml.new"), edge.folder().join("edge.toml")).unwrap();
    wait::until("a file that was put in its place is in force", || {
        (edge.get("/a").status == 200).then_some(())
    });
    assert_eq!(refusals(&mut edge), 1);

    let authority = edge.folder().join("old-ca.pem");
    std::fs::copy(edge.authority(), &authority).unwrap();
    for file in std::fs::read_dir(edge.folder().join("certs")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    wait::until("certificates that are gone are made anew", || {
        edge.process().lines().iter().any(|line| line.contains(".tls: other content")).then_some(())
    });
    assert_eq!(edge.curl_h2("/").send().status, 200, "the new authority holds");
}

#[test]
fn the_caches_budget_shrinks_and_grows() {
    let upstream = Upstream::start(|_| Reply::ok("x".repeat(200_000)).cache_control("max-age=60"));
    let with = |memory: &str| Edge::over(&upstream).tables(&format!("[cache]\nmemory = \"{memory}\""));
    let mut edge = with("64 MiB").start();
    for number in 0..60 {
        assert_eq!(edge.get(&format!("/{number}")).status, 200);
    }
    let stored = wait::until("all is stored", || {
        let bytes = edge.metric("gatehouse_edge_cache_bytes");
        (bytes > 60 * 200_000).then_some(bytes)
    });
    edge.reload(&with("256 MiB").text());
    assert_eq!(edge.metric("gatehouse_edge_cache_bytes"), stored, "what is stored stays");

    edge.reload(&with("8 MiB").text());
    wait::until("what is too much is evicted", || {
        (edge.metric("gatehouse_edge_cache_bytes") <= 8 << 20).then_some(())
    });
    assert!(edge.metric("gatehouse_edge_cache_bytes") > 4 << 20, "and no more than that");

    edge.reload(&with("64 MiB").text());
    for number in 0..60 {
        edge.until_hit(&format!("/{number}"));
    }
    assert!(edge.metric("gatehouse_edge_cache_bytes") > 60 * 200_000, "there is room again");
}

#[test]
fn the_bound_of_connections_shrinks_without_cutting_a_busy_one_and_grows() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let reply = Reply::ok("text").cache_control("no-store");
        if seen.target.starts_with("/held") { reply.after(&held) } else { reply }
    });
    let with = |connections: usize| {
        Edge::over(&upstream).tables(&format!("[bounds]\nconnections = {connections}")).text()
    };
    let folder = Folder::new();
    folder.write("edge.toml", &with(6));
    let mut edge = Edge::start_in(folder);
    let mut busy: Vec<Raw> = (0..3).map(|_| edge.raw()).collect();
    for (number, raw) in busy.iter_mut().enumerate() {
        raw.send(GET.replace("/ ", &format!("/held/{number} ")));
    }
    upstream.wait_for(3);
    let mut idle: Vec<Raw> = (0..3).map(|_| edge.raw()).collect();
    for raw in &mut idle {
        assert_eq!(raw.send(GET).answer().status, 200);
    }

    edge.reload(&with(2));
    for raw in &mut idle {
        assert_eq!(raw.read_to_close(), b"", "idle ones give up their places");
    }
    let mut newcomer = edge.raw();
    newcomer.send(GET);
    gate.open();
    for raw in &mut busy {
        assert_eq!(raw.answer().status, 200, "a busy one goes on");
    } // One of the three that were busy closes because there are two places, and another because the newcomer waits for one.
    assert_eq!(newcomer.answer().status, 200);
    wait::until("there are no more than two", || {
        (edge.metric("gatehouse_edge_connections_open") <= 2).then_some(())
    });
    edge.reload(&with(10));
    let mut all: Vec<Raw> = (0..8).map(|_| edge.raw()).collect();
    for raw in &mut all {
        assert_eq!(raw.send(GET).answer().status, 200);
    }
}

#[test]
fn metrics_tell_of_a_file_that_was_refused() {
    let upstream = upstream();
    let setup = Edge::over(&upstream);
    let mut edge = setup.start();
    assert!(edge.reload("wrong").contains("refused"));
    assert_eq!(edge.metric("gatehouse_edge_last_reload_applied"), 0);
    edge.reload(&setup.text());
    assert_eq!(edge.metric("gatehouse_edge_last_reload_applied"), 1);
}

#[test]
fn looks_by_old_settings_end_with_them() {
    let answers = Gate::closed();
    let then = answers.clone();
    let upstream = Upstream::start(move |seen| match seen.target.as_str() {
        "/wait" => Reply::ok("at last").after(&then),
        _ => Reply::ok("well"),
    });
    let setup = |path: &str| {
        Edge::over(&upstream).tables("[timeouts]\ntotal = \"10m\"").upstream(&format!(
            "response_timeout = \"10m\"\n\
             check = {{ path = \"{path}\", interval = \"100ms\", timeout = \"100ms\" }}"
        ))
    };
    let asked = |path: &str| upstream.seen().iter().filter(|seen| seen.target == path).count();
    let wait_for = |path: &str, count: usize| {
        wait::until(path, || (asked(path) >= count).then_some(()));
    };
    let mut edge = setup("/old").start();
    wait_for("/old", 1);
    // A request that takes as long as it likes keeps the settings under which it began.
    let mut slow = edge.raw();
    slow.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("/wait", 1);
    assert!(edge.reload(&setup("/new").text()).contains("reloaded"));
    wait_for("/new", 3);
    let old = asked("/old");
    wait_for("/new", 20);
    assert_eq!(asked("/old"), old);
    answers.open();
    assert_eq!(slow.answer().status, 200);
}
