//! Cloudflare's and Fastly's own clients (npm) purge at the edge's admin address as they do at their services.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use gatehouse_tests::{
    binaries::repository,
    edge::Edge,
    npm, tool,
    upstream::{Reply, Upstream},
};

/// The clients, which are told by name what to purge.
struct Clients {
    process: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Clients {
    fn of(edge: &Edge) -> Self {
        let mut node = Command::new(tool::find(&["node"], "nodejs"));
        node.arg(repository().join("tests/apps/purging/purge.js")).arg(format!("http://{}", edge.admin()));
        node.env("NODE_PATH", npm::packages("apps/purging")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = node.spawn().expect("node starts");
        let asked = process.stdin.take().expect("it is piped");
        let answers = process.stdout.take().expect("it is piped");
        Self { process, asked, answers: BufReader::new(answers) }
    }

    fn purge(&mut self, what: &str) {
        writeln!(self.asked, "{what}").expect("it listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        let said: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        assert!(said.get("answer").is_some(), "{line}");
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A tag with a colon, and tags in JSON, purged nothing.
#[test]
fn the_clients_of_two_services_purge_what_they_name() {
    let upstream = Upstream::start(|seen| {
        let tag = if seen.target == "/a?b=1" { "product:1 page" } else { "other" };
        Reply::ok(seen.target.clone()).cache_control("max-age=600").header("surrogate-key", tag)
    });
    let edge = Edge::over(&upstream).start();
    let mut clients = Clients::of(&edge);
    let get = |path: &str| edge.curl(path).header("Host: shop.test").send();
    for (what, named, others) in [
        ("cloudflare files", ["/a?b=1"].as_slice(), ["/a", "/dir/c"].as_slice()),
        ("cloudflare tags", &["/a?b=1"], &["/a", "/dir/c"]),
        ("cloudflare prefixes", &["/dir/c"], &["/a", "/a?b=1"]),
        ("cloudflare hosts", &["/a", "/a?b=1", "/dir/c"], &[]),
        ("cloudflare everything", &["/a", "/a?b=1", "/dir/c"], &[]),
        ("fastly url", &["/a?b=1"], &["/a", "/dir/c"]),
        ("fastly tag", &["/a?b=1"], &["/a", "/dir/c"]),
        ("fastly tags", &["/a?b=1", "/a", "/dir/c"], &[]),
        ("fastly tags in content", &["/a?b=1"], &["/a", "/dir/c"]),
        ("fastly all", &["/a", "/a?b=1", "/dir/c"], &[]),
    ] {
        for path in named.iter().chain(others) {
            get(path);
            assert!(get(path).is_hit(), "{what}: {path} is stored");
        }
        clients.purge(what);
        for path in others {
            assert!(get(path).is_hit(), "{what} takes {path} too");
        }
        for path in named {
            assert_eq!(get(path).forwarded(), "uri-miss", "{what} leaves {path}");
        }
    }
    get("/a?b=1");
    clients.purge("fastly soft tag");
    assert_eq!(get("/a?b=1").forwarded(), "stale", "it is there, and validated");
}
