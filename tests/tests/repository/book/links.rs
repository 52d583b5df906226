//! Links of every page of the repository lead to files that are there, and to headings that they have.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use gatehouse_tests::binaries::repository;

/// Folders that hold nothing of the repository's own.
const OTHERS: [&str; 4] = ["target", "node_modules", "data", "fuzz/target"];

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 20, "the reader found {:?}", pages.keys());
    let mut wrong = Vec::new();
    for (page, text) in &pages {
        for link in links(text) {
            if let Some(why) = leads_nowhere(page, &link, &pages) {
                wrong.push(format!("{}: {link}: {why}", page.strip_prefix(repository()).unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn leads_nowhere(page: &Path, link: &str, pages: &BTreeMap<PathBuf, String>) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
        return None;
    }
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let folder = page.parent().unwrap();
    let to = if path.is_empty() { page.to_owned() } else { clean(&folder.join(path)) };
    if !to.exists() {
        return Some("there is no such file".to_owned());
    }
    let book = repository().join("docs");
    if page.starts_with(&book) && !to.starts_with(&book) {
        return Some(
            "it leads out of the book, in which it would be broken: name the file in words".to_owned(),
        );
    }
    if fragment.is_empty() {
        return None;
    }
    let text = pages.get(&to).or_else(|| pages.get(&to.join("README.md")));
    match text {
        Some(text) if anchors(text).iter().any(|anchor| anchor == fragment) => None,
        Some(text) => Some(format!("of its headings none is #{fragment}: {:?}", anchors(text))),
        None => Some("only a page has headings".to_owned()),
    }
}

/// Without `..`: what a link names, and not where the file system's own links lead.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part.as_os_str().to_str() {
            Some("..") => {
                clean.pop();
            }
            Some(".") => {}
            _ => clean.push(part),
        }
    }
    clean
}

/// Every page of the repository, by its path.
pub(super) fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    collect(&repository(), &mut pages);
    pages
}

fn collect(folder: &Path, pages: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') || OTHERS.iter().any(|other| path.ends_with(other)) {
            continue;
        }
        if path.is_dir() {
            collect(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&path).unwrap();
            pages.insert(path, text);
        }
    }
}

/// Where the links of a page lead.
pub(super) fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        let without_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for rest in without_code.split("](").skip(1) {
            links.extend(rest.split([')', ' ']).next().map(str::to_owned));
        }
        if let Some((_, to)) = without_code.strip_prefix('[').and_then(|line| line.split_once("]: ")) {
            links.extend(to.split(' ').next().map(str::to_owned));
        }
    }
    links
}

/// The names by which headings are linked, as GitHub and mdBook make them.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let plain = anchor(line.trim_start_matches('#').trim());
        let same = anchors.iter().filter(|known| **known == plain).count();
        anchors.push(if same == 0 { plain } else { format!("{plain}-{same}") });
    }
    anchors
}

/// The name of one heading.
pub(super) fn anchor(heading: &str) -> String {
    // Of a link the words count.
    let mut words = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        words += &before.replacen('[', "", 1);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    words += rest;
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

/// The lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

#[test]
fn links_and_headings_are_read() {
    let text = "# A `b.c`, D!\n[x](y.md#z) `[no](no)`\n```\n[no](no)\n# no\n```\n## A\n## A\n[q]: r\n";
    assert_eq!(links(text), ["y.md#z", "r"]);
    assert_eq!(anchors(text), ["a-bc-d", "a", "a-1"]);
}
