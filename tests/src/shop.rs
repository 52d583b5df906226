//! The whole project: the edge with the settings of `config/demo.toml`, the origin it runs, and its private PostgreSQL.

use std::path::Path;

use crate::{
    address,
    binaries::{self, repository},
    edge::Edge,
    folder::Folder,
};

/// Starts it in a temporary folder with an empty database, which the origin fills, and waits until it is ready.
///
/// The settings are the demo's own, word for word, but for what has to differ: ports that the system chooses, an address of the
/// test's own for the admin listener, which the origin must know, the programs' absolute paths, and an access log for machines.
///
/// # Panics
/// When it does not become ready.
#[track_caller]
#[must_use]
pub fn start() -> Edge {
    start_with(|demo| demo)
}

/// As [`start`], with settings changed further.
///
/// # Panics
/// When it does not become ready.
#[track_caller]
#[must_use]
pub fn start_with(change: impl FnOnce(String) -> String) -> Edge {
    let folder = Folder::new();
    let demo = read("config/demo.toml");
    let admin = address::own().to_string();
    let origin = binaries::origin().to_str().expect("the build folder has a plain name");
    let settings = [
        ("\"[::]:8080\"", "\"127.0.0.1:0\""),
        ("\"[::]:8443\"", "\"127.0.0.1:0\""),
        ("127.0.0.1:9900", &admin),
        ("\"target/release/origin\"", &format!("\"{origin}\"")),
        ("\"config/origin.toml\"", "\"origin.toml\""),
        ("\"pretty\"", "\"json\""),
    ]
    .into_iter()
    .fold(demo, |text, (from, to)| replace(&text, from, to));
    folder.write("edge.toml", &change(settings));
    let origin = replace(&read("config/origin.toml"), "127.0.0.1:9900", &admin);
    folder.write("origin.toml", &origin);
    Edge::start_in(folder)
}

/// Replaces what must be there.
///
/// # Panics
/// When it is not: the demo's settings have changed and this module must follow.
#[track_caller]
#[must_use]
pub fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the demo's settings have no {from} any more:\n{text}");
    text.replace(from, to)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
