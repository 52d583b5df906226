//! What the edge under test counts itself, as other scenarios need it.

use gatehouse_tests::{edge::Edge, raw::Raw};

/// `/metrics` as text.
#[track_caller]
pub(crate) fn all(edge: &Edge) -> String {
    let mut raw = Raw::connect(edge.admin());
    raw.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    String::from_utf8(raw.answer().body).unwrap()
}

/// The sum over all series of one name.
#[track_caller]
pub(crate) fn sum(edge: &Edge, name: &str) -> u64 {
    let text = all(edge);
    let values: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])))
        .map(|rest| rest.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "no {name} in\n{text}");
    values.iter().sum()
}
