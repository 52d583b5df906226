//! The table of contents has every page, and what pages include is there.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::{links, page};

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let contents = fs::read_to_string(page("SUMMARY.md")).unwrap();
    let mut listed: Vec<PathBuf> = links::links(&contents).iter().map(|link| page(link)).collect();
    listed.sort();
    let once: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice");
    let there =
        links::pages().into_keys().filter(|path| path.starts_with(page("")) && !path.ends_with("SUMMARY.md"));
    let missing: Vec<_> = there.filter(|path| !once.contains(path)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md lists no {missing:#?}");
}

/// Settings that a reader may copy are files that `edge check` reads in a test; only a page that is made shows others.
#[test]
fn settings_stand_in_files_that_pages_include() {
    let mut included = 0;
    for (path, text) in links::pages().into_iter().filter(|(path, _)| path.starts_with(page(""))) {
        for name in text.split("{{#include ").skip(1).filter_map(|rest| rest.split("}}").next()) {
            let file = path.parent().unwrap().join(name);
            assert!(file.is_file(), "{} includes {name}, which is not there", path.display());
            included += 1;
        }
        let made = text.starts_with("<!-- Made from ");
        for block in text.split("```toml\n").skip(1).filter(|_| !made) {
            assert!(
                block.starts_with("{{#include "),
                "{}: put these settings into a file: {block:.80}",
                path.display()
            );
        }
    }
    assert!(included > 10, "the reader found {included}");
}
