//! The first five minutes of the book (`docs/start.md`): its app, by Express (npm), and its settings, to the letter.

use std::{fs, process::Command};

use gatehouse_tests::{
    address, binaries, binaries::repository, edge::Edge, folder::Folder, npm, process::Process, recipe, tool,
    wait,
};

#[test]
fn the_first_five_minutes_are_as_the_book_has_them() {
    let page = fs::read_to_string(repository().join("docs/start.md")).unwrap();
    let app = page.split("<<'END'\n").nth(1).and_then(|rest| rest.split("END\n").next());
    let app = app.expect("docs/start.md has an app between <<'END' and END");
    let here = address::own();
    let listens = "app.listen(3000, \"127.0.0.1\")";
    assert!(app.contains(listens), "{app}");
    let app = app.replace(
        listens,
        &format!("app.listen({}, \"{}\", () => console.log(\"listens\"))", here.port(), here.ip()),
    );
    let folder = Folder::new();
    folder.write("app.js", &app);
    let mut node = Command::new(tool::find(&["node"], "nodejs"));
    node.arg("app.js").current_dir(folder.path()).env("NODE_PATH", npm::packages("apps/express"));
    let mut express = Process::start("express", &mut node);
    express.wait_for_line("that it listens", |line| line.contains("listens").then_some(()));

    // The harness asks for a clear listener and ports of the system's choice.
    let listen = "[[listen]]\naddress = \"127.0.0.1:0\"";
    let settings = recipe::settings(
        "express",
        &[
            ("[[listen]]\naddress = \"[::]:8443\"", &format!("{listen}\n\n{listen}")),
            ("127.0.0.1:9900", &address::own().to_string()),
            ("127.0.0.1:3000", &here.to_string()),
        ],
    );
    folder.write("edge.toml", &settings);
    let edge = Edge::start_in(folder);
    let asked = |answer: &gatehouse_tests::curl::Answer| answer.json()[0]["asked"].clone();
    let first = edge.curl_h2("/products").send();
    assert_eq!(first.must("cache-status"), "gatehouse; fwd=uri-miss; fwd-status=200; stored; detail=miss");
    let second = edge.curl_h2("/products").send();
    assert!(second.is_hit(), "{second:#?}");
    assert_eq!(asked(&first), asked(&second), "the app was asked once");
    assert_eq!(edge.curl_h2("/").send().text(), "hello 127.0.0.1", "the app sees the client");

    let url = format!("https://localhost:{}/products", edge.tls().port());
    let said = |arguments: &[&str]| {
        let mut command = Command::new(binaries::edge());
        command.args(arguments).args(["--config", "edge.toml"]).current_dir(edge.folder());
        tool::run_command(&mut command)
    };
    let explained = said(&["explain", &url]);
    for told in [
        "verdict     hit",
        "decided by  response cache-control: public, max-age=60",
        "lifetime    60 s by max-age",
    ] {
        assert!(page.contains(told) && explained.contains(told), "{explained}");
    }
    assert_eq!(said(&["purge", "--url", &url]).trim(), "1 stored response purged");
    let third = edge.curl_h2("/products").send();
    assert_ne!(asked(&first), asked(&third));

    drop(express);
    // What is stored stands in once it is stale, which a soft purge makes it at once.
    let _ = said(&["purge", "--url", &url, "--soft"]);
    let stale = wait::until("the app is away", || {
        Some(edge.curl_h2("/products").send())
            .filter(|answer| answer.must("cache-status").contains("stale-on-disconnect"))
    });
    assert_eq!((stale.status, asked(&stale)), (200, asked(&third)));
}
