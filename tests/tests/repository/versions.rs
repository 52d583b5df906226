//! Crates whose types must meet are there once.

use std::collections::BTreeMap;

use gatehouse_tests::binaries::repository;

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
