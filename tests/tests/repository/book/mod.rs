//! The book in `docs/`: what of it is made from the code and the settings is what they say now, every page is in its table of
//! contents, and every link leads somewhere.
//!
//! `GATEHOUSE_WRITE=1` writes what is made anew (`make pages`); without it a page that is behind fails its test.

mod links;
mod log_fields;
mod metrics;
mod pages;
mod settings;
mod source;
mod words;

use std::{fs, path::PathBuf};

use gatehouse_tests::binaries::repository;

/// A page of the book by its path in `docs/`.
fn page(path: &str) -> PathBuf {
    repository().join("docs").join(path)
}

/// Compares a page with what it is made of; writes it where that is asked for.
///
/// # Panics
/// When it is behind.
#[track_caller]
fn holds(path: &str, made_from: &str, text: &str) {
    let text =
        format!("<!-- Made from {made_from} by `make pages`: changes go there. -->\n\n{}\n", text.trim());
    if std::env::var_os("GATEHOUSE_WRITE").is_some() {
        fs::write(page(path), &text).unwrap();
    }
    let written = fs::read_to_string(page(path)).unwrap_or_default();
    if let Some(line) = first_difference(&written, &text) {
        panic!(
            "docs/{path} is behind {made_from} from line {line} on: run `make pages`, and commit what it writes"
        );
    }
}

fn first_difference(left: &str, right: &str) -> Option<usize> {
    if left == right {
        return None;
    }
    let same = left.lines().zip(right.lines()).take_while(|(left, right)| left == right).count();
    Some(same + 1)
}

/// A source of this repository, as text.
fn source_of(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A row of a table.
fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The head of a table.
fn head(cells: &[&str]) -> String {
    format!("\n{}{}", row(cells), row(&vec!["---"; cells.len()]))
}

#[test]
fn the_place_where_a_page_is_behind_is_told() {
    assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
    assert_eq!(first_difference("a\n", "a\nc\n"), Some(2));
}
