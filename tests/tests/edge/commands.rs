//! The commands an operator types, against an edge whose admin listener is a Unix socket.

use std::process::{Command, Output};

use gatehouse_tests::{
    binaries,
    curl::{Answer, Curl},
    edge::Edge,
    folder::Folder,
    process::Process,
    upstream::{Reply, Upstream},
};

const SOCKET: &str = "admin.sock";

/// Runs `edge` with these arguments in this folder; its exit code, and both outputs.
fn edge(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(binaries::edge())
        .args(arguments)
        .args(["--config", "edge.toml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn an_operator_on_this_machine_checks_purges_and_explains() {
    let upstream = Upstream::start(|seen| {
        let tag = seen.target.trim_start_matches('/').to_owned();
        Reply::ok("a page").header("surrogate-key", &tag).cache_control("max-age=600")
    });
    let folder = Folder::new();
    let by_socket = |text: &str| {
        text.replace("[admin]\naddress = \"127.0.0.1:0\"", "[admin]\naddress = \"unix:admin.sock\"")
    };
    let settings = by_socket(&Edge::over(&upstream).tables("[log]\nformat = \"pretty\"").text());
    folder.write("edge.toml", &settings.replace("unix:admin.sock", "unix:"));
    let (code, said) = edge(&folder, &["check"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("\"unix:\" names no socket"), "{said}");

    folder.write("edge.toml", &settings);
    assert_eq!(edge(&folder, &["check"]).0, Some(0));
    let (code, said) = edge(&folder, &["purge", "--all"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("unix:admin.sock"), "the edge that does not run is named: {said}");

    let mut command = Command::new(binaries::edge());
    command.args(["run", "--config", "edge.toml"]).current_dir(folder.path());
    let mut running = Process::start("edge", &mut command);
    let clear = running.wait_for_line("its address", |line| {
        line.split_once("listening on http://")?.1.trim().parse::<std::net::SocketAddr>().ok()
    });
    running
        .wait_for_line("its admin address", |line| line.contains("admin on unix:admin.sock").then_some(()));
    running.wait_for_line("it is ready", |line| line.ends_with(" ready").then_some(()));
    let get = |path: &str| Curl::clear(clear, path).send();
    for path in ["/one", "/two"] {
        assert!(!get(path).is_hit());
        gatehouse_tests::wait::until("it is stored", || Some(get(path)).filter(Answer::is_hit));
    }

    let probe = Command::new("curl")
        .args(["--silent", "--unix-socket", SOCKET, "http://anything/readyz"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(probe.status.success() && !probe.stdout.is_empty(), "{probe:?}");

    let explained = edge(&folder, &["explain", &format!("http://{clear}/one")]);
    assert_eq!(explained.0, Some(0), "{explained:?}");
    assert!(explained.1.contains("600 s by max-age"), "{}", explained.1);
    let dry = edge(&folder, &["purge", "--tag", "one", "--dry-run"]);
    assert_eq!(dry, (Some(0), "1 stored response would be purged\n".to_owned()));
    assert!(get("/one").is_hit());
    let purged = edge(&folder, &["purge", "--tag", "one"]);
    assert_eq!(purged, (Some(0), "1 stored response purged\n".to_owned()));
    assert!(!get("/one").is_hit());
    assert!(get("/two").is_hit());
    // Each of these said "0 stored responses purged" and exited with 0, as if nothing had been stored.
    for (what, remedy) in [
        (["purge", "--host", "shop.test:8080"], "http://shop.test:8080/"),
        (["purge", "--host", "https://x"], "name its host alone"),
        (["purge", "--tag", "a b,c"], "name each by itself"),
    ] {
        let (code, said) = edge(&folder, &what);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(remedy), "{said}");
    }
    let gone = edge(&folder, &["purge", "--tag", "never-stored"]);
    let none = "0 stored responses purged: nothing that is stored matches\n";
    assert_eq!(gone, (Some(0), none.to_owned()), "what is named may not be stored");
    let nothing = edge(&folder, &["purge"]);
    assert_eq!(nothing.0, Some(2), "a purge of nothing is a wrong command line: {nothing:?}");

    assert!(running.stop().success());
    assert!(!folder.path().join(SOCKET).exists(), "the socket's name goes with the edge");
}

/// Only the settings were read: a key that did not fit was found by the restart.
#[test]
fn check_reads_what_a_start_would_read_and_says_what_nothing_uses() {
    let upstream = Upstream::start(|_| Reply::ok("text"));
    let folder = Folder::new();
    let tls =
        "tls = { certificate = \"certs/localhost.pem\", key = \"certs/localhost.key\", local_ca = true }";
    let text = Edge::over(&upstream)
        .admin("0.0.0.0:9900".parse().unwrap())
        .tables("[limits.idle]\nrate = \"1/s\"\n[upstreams.idle]\nservers = [\"http://a\"]\n[commands.idle]\nrun = [\"sh\"]")
        .route("path = \"/\"")
        .text();
    folder.write("edge.toml", &text);
    let (code, said) = edge(&folder, &["check"]);
    assert_eq!(code, Some(0), "doubts are no faults: {said}");
    for doubt in [
        "limit \"idle\" is never used",
        "upstream \"idle\" is never used",
        "command \"idle\" is never used",
        "0.0.0.0:9900 may be reached from other machines",
        "the one path / and nothing below it",
    ] {
        assert!(said.contains(doubt), "{doubt}: {said}");
    }
    assert!(!folder.path().join("certs").exists(), "it makes nothing");

    let own = "tls = { certificate = \"own.pem\", key = \"own.key\" }";
    let guarded = text.replace(tls, own).replace("[admin]", "[admin]\ntoken_file = \"token\"");
    folder.write("edge.toml", &guarded.replace("run = [\"sh\"]", "run = [\"no-such-program\"]"));
    let (code, said) = edge(&folder, &["check"]);
    assert_eq!(code, Some(1), "{said}");
    for fault in ["cannot read own.pem", "admin.token_file token", "no-such-program"] {
        assert!(said.contains(fault), "{fault}: {said}");
    }
}

/// As the first process of a container it inherited what its commands left behind, and waited for none of it.
#[test]
fn as_the_first_process_it_waits_for_orphans() {
    let upstream = Upstream::start(|_| Reply::ok("text"));
    let folder = Folder::new();
    // A grandchild in a session of its own, whose parent ends at once, and which then ends itself.
    let orphan = "[commands.maker]\nready = \"tcp\"\nrun = [\"sh\", \"-c\", \"(setsid sh -c 'until grep -q PPid:.1$ /proc/$$/status; do :; done; echo orphan' &) ; exec sleep 1000\"]";
    folder.write("edge.toml", &Edge::over(&upstream).tables(orphan).text());
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--mount-proc", "--fork", "--kill-child", "--"]);
    command.arg(binaries::edge()).args(["run", "--config", "edge.toml"]).current_dir(folder.path());
    let mut running = Process::start("edge", &mut command);
    running.wait_for_line("that the orphan ran", |line| line.contains("orphan").then_some(()));
    let edge =
        gatehouse_tests::process::children(running.id()).first().copied().expect("unshare has one child");
    gatehouse_tests::wait::until("no child has ended unwaited for", || {
        let children = gatehouse_tests::process::children(edge);
        let ended = |id: &u32| gatehouse_tests::process::has_ended(*id);
        (children.len() == 1 && !children.iter().any(ended)).then_some(())
    });
    // A signal reaches the first process of a namespace from outside only when it handles it: the edge does.
    let id = rustix::process::Pid::from_raw(edge.try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(running.wait().success());
}
