//! The lints that hold everywhere hold in each crate that has lints of its own: clippy reads the nearest file alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gatehouse_tests::binaries::repository;

#[test]
fn each_clippy_toml_has_all_that_the_one_at_the_root_has() {
    let of_all = settings(&repository().join("clippy.toml"));
    assert!(of_all.len() > 1, "the reader found {of_all:?}");
    let others: Vec<PathBuf> = fs::read_dir(repository())
        .unwrap()
        .map(|entry| entry.unwrap().path().join("clippy.toml"))
        .filter(|path| path.is_file())
        .collect();
    assert!(!others.is_empty(), "if no crate has lints of its own, this test can go");
    for path in others {
        let here = settings(&path);
        let missing: Vec<_> = of_all.iter().filter(|setting| !here.contains(setting)).collect();
        assert!(missing.is_empty(), "{} has not what ./clippy.toml has: {missing:#?}", path.display());
    }
}

/// Each setting with its value, be it over several lines.
fn settings(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let mut settings: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match settings.last_mut() {
            Some(open) if line.starts_with([' ', ']']) => *open += line,
            _ => settings.push(line.to_owned()),
        }
    }
    settings
}
