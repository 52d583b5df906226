//! Large apps that others wrote, behind the edge by the recipes of the book, in a real browser over HTTP/2: their users sign in, write,
//! publish, upload and sign out, and nothing that is one user's comes to another or to a visitor.
//!
//! They need servers that nothing else of the tests does: `make test-apps` installs these and runs this, `make test` builds none of it.

mod files;
mod mediawiki;
mod nextjs;
mod php;
mod wordpress;

use gatehouse_tests::{browser::Browser, edge::Edge, folder::Folder, recipe};
use serde_json::Value;

/// The edge by a recipe of the book, on ports of the system's choice and with a certificate of the local authority.
#[track_caller]
fn edge_by(recipe: &str, instead: &[(&str, &str)]) -> Edge {
    let here = "address = \"127.0.0.1:0\"";
    let mut all = vec![
        ("address = \"[::]:80\"", here),
        ("address = \"[::]:443\"", here),
        ("127.0.0.1:9900", "127.0.0.1:0"),
        (
            "\"certs/shop.pem\", key = \"certs/shop.key\"",
            "\"certs/localhost.pem\", key = \"certs/localhost.key\", local_ca = true",
        ),
    ];
    all.extend(instead);
    let folder = Folder::new();
    folder.write("edge.toml", &recipe::settings(recipe, &all));
    Edge::start_in(folder)
}

fn page(edge: &Edge, path: &str) -> String {
    format!("https://localhost:{}{path}", edge.tls().port())
}

/// A line of the access log.
#[derive(Debug)]
struct Asked {
    method: String,
    target: String,
    route: String,
    cache: String,
}

/// What the access log has by now.
fn asked(edge: &mut Edge) -> Vec<Asked> {
    let lines = edge.process().lines();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    lines
        .filter(|line| line.get("target").is_some() && line.get("cache").is_some())
        .map(|line| Asked {
            method: text(&line, "method"),
            target: text(&line, "target"),
            route: text(&line, "route"),
            cache: text(&line, "cache"),
        })
        .collect()
}

/// Of what a user who had signed in has asked for since `from`, nothing came from the cache but files of `shared` routes; and a visitor
/// who asks for the same is not shown what only this user may see.
#[track_caller]
fn nothing_of_a_user_is_shared(edge: &mut Edge, from: usize, shared: &[&str], personal: &[&str]) {
    let asked: Vec<Asked> = asked(edge).into_iter().skip(from).collect();
    let is_shared = |line: &&Asked| shared.iter().any(|of| line.route == *of || line.target.starts_with(of));
    let own = || asked.iter().filter(|line| !is_shared(line));
    assert!(own().count() > 2, "the log tells what was asked: {asked:#?}");
    for line in own() {
        assert!(["miss", "pass", "stated", "vanished"].contains(&line.cache.as_str()), "{line:?}");
    }
    for line in own().filter(|line| line.method == "GET") {
        let shown = edge.curl_h2(&line.target).send().text();
        for word in personal {
            assert!(!shown.contains(word), "a visitor is shown {word:?} at {}", line.target);
        }
    }
}

/// What the user was shown came over HTTP/2, and whole.
#[track_caller]
fn all_is_well(browser: &Browser) {
    for page in browser.loaded().into_iter().filter(|response| response.kind == "Document") {
        assert!(page.protocol == "h2" && page.status < 400, "{page:?}");
    }
}
