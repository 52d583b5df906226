//! Crates whose types must meet are there once, and tests are of what is installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use gatehouse_tests::{binaries::repository, tool};

#[test]
fn there_is_one_version_of_everything_whose_types_must_meet() {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("name = ") {
            versions.entry(name.trim_matches('"')).or_default().extend(lines.next());
        }
    }
    for name in ["hyper", "hyper-util", "http", "h2", "rustls", "tokio", "tokio-rustls"] {
        assert_eq!(versions.get(name).map(Vec::len), Some(1), "{name}: {:?}", versions.get(name));
    }
    for name in ["openssl", "native-tls"] {
        assert!(!versions.contains_key(name), "{name}: TLS is rustls");
    }
}

/// A crate that only tests want more of has more of it where tests run: what they show would hold of another program, and everything
/// that uses the crate would be built twice.
#[test]
fn what_only_tests_use_adds_nothing_to_the_crates_of_the_programs() {
    let cargo = std::env::var("CARGO").unwrap();
    let crates = |edges: &str| -> BTreeSet<String> {
        let mut tree = Command::new(&cargo);
        tree.args([
            "tree",
            "--workspace",
            "--locked",
            "--prefix",
            "none",
            "--format",
            "{p} {f}",
            "--edges",
            edges,
        ]);
        let told = tool::run_command(tree.current_dir(repository()));
        told.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    };
    let (programs, tests) = (crates("normal,build"), crates("normal,build,dev"));
    assert!(programs.len() > 100, "the reader found {programs:?}");
    let others: Vec<_> = programs.difference(&tests).collect();
    assert!(
        others.is_empty(),
        "say of these in Cargo.toml what tests add to them, or less there: {others:#?}"
    );
}
