//! The edge's rooms: arrows point down only, siblings do not know each other, and no two files import each other.
//!
//! Read from the sources: every `use crate::…` and `use super::…`, and every such path in the text outside comments and
//! tests. A name that a module passes on by `pub use` counts as an import of where it comes from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use gatehouse_tests::binaries::repository;

/// The rooms from the ground up. Those of one floor do not import each other.
const FLOORS: [&[&str]; 13] = [
    &["settings", "clock"],
    &["message"],
    &["request", "observe"],
    &["cache", "upstream"],
    &["acme", "response", "shared_cache"],
    &["state"],
    &["fetch"],
    &["pipeline", "explain"],
    &["downstream"],
    &["admin"],
    &["server"],
    &["cli"],
    &["main"],
];

#[test]
fn imports_point_down() {
    let house = House::read();
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let mut wrong = Vec::new();
    for (file, imports) in &house.imports {
        let room = room_of(file);
        let Some(here) = floor(room) else {
            wrong.push(format!("{file} is in no room of FLOORS: give it a floor"));
            continue;
        };
        for import in imports {
            let other = room_of(import);
            if other != room && floor(other).is_none_or(|there| there >= here) {
                wrong.push(format!(
                    "{file} imports {import}, which is no floor below it: move what both need to a room below {other}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let house = House::read();
    for start in house.imports.keys() {
        if let Some(circle) = house.way_back_to(start) {
            panic!("a circle of imports: {}: move what they share to a file of its own", circle.join(" -> "));
        }
    }
}

#[test]
fn the_reader_of_imports_sees_what_it_should() {
    let text = "use crate::{a::{b, c::D as E}, f};\nuse super::g::*; // crate::no\nfn h() { crate::i::j(); }\n\
                #[cfg(test)]\nmod tests { use crate::k; }\n";
    let mut paths = paths_of(text);
    paths.sort();
    assert_eq!(paths, ["crate::a::b", "crate::a::c::D", "crate::f", "crate::i::j", "super::g::*"]);
}

/// Every file of the edge, by its path under `edge/src` without `.rs` and `/mod`, with the files that it imports.
struct House {
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl House {
    fn read() -> Self {
        let root = repository().join("edge/src");
        let mut files = BTreeMap::new();
        collect(&root, &root, &mut files);
        let passed_on = files.iter().map(|(file, text)| (file.as_str(), passed_on(text))).collect();
        let imports = files.iter().filter(|(file, _)| *file != "lib").map(|(file, text)| {
            let resolve = |path: String| resolve(file, &path, &passed_on);
            let imports = paths_of(text).into_iter().filter_map(resolve).filter(|import| import != file);
            (file.clone(), imports.collect())
        });
        Self { imports: imports.collect() }
    }

    fn way_back_to(&self, start: &str) -> Option<Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut ways = vec![vec![start.to_owned()]];
        while let Some(way) = ways.pop() {
            for next in self.imports.get(way.last()?).into_iter().flatten() {
                let mut longer = way.clone();
                longer.push(next.clone());
                if next == start {
                    return Some(longer);
                }
                if seen.insert(next.clone()) {
                    ways.push(longer);
                }
            }
        }
        None
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().with_extension("");
            let name = name.to_str().unwrap().trim_end_matches("/mod").to_owned();
            if !name.ends_with("/tests") {
                files.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
}

fn room_of(file: &str) -> &str {
    file.split('/').next().unwrap()
}

/// The file in which a path of `file` ends; `None` for the crate itself and for what is declared in `file`.
fn resolve(file: &str, path: &str, passed_on: &BTreeMap<&str, BTreeMap<String, String>>) -> Option<String> {
    let mut parts = path.split("::").peekable();
    let mut here: Vec<&str> = match parts.next()? {
        "crate" => Vec::new(),
        "self" => file.split('/').collect(),
        _super => file.rsplit_once('/').map(|(folder, _)| folder.split('/').collect()).unwrap_or_default(),
    };
    while let Some(part) = parts.peek() {
        if *part == "super" {
            here.pop();
        } else {
            let deeper = [&here[..], &[*part]].concat().join("/");
            if !passed_on.contains_key(deeper.as_str()) {
                break;
            }
            here.push(part);
        }
        parts.next();
    }
    let found = here.join("/");
    let named = parts.next().and_then(|name| passed_on.get(found.as_str())?.get(name));
    match named {
        Some(onward) => resolve(&found, onward, passed_on).or(Some(found)),
        None => Some(found).filter(|found| !found.is_empty()),
    }
}

/// What a file passes on by `pub use`: from a name to the path it stands for.
fn passed_on(text: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for statement in statements(text).filter(|(public, _)| *public).map(|(_, tree)| tree) {
        for path in expand(&statement) {
            let name = path.rsplit("::").next().unwrap().to_owned();
            let local = !["crate", "super", "self"].contains(&path.split("::").next().unwrap());
            names.insert(name, if local { format!("self::{path}") } else { path });
        }
    }
    names
}

/// Every path into the crate that a file names, outside comments and tests.
fn paths_of(text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut paths: Vec<String> = statements(&code)
        .flat_map(|(_, tree)| expand(&tree))
        .filter(|path| path.starts_with("crate::") || path.starts_with("super::"))
        .collect();
    let uses: Vec<_> = code.match_indices("use crate::").map(|(at, _)| at + 4).collect();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !uses.contains(at)) {
        let path: String =
            code[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, ':' | '_')).collect();
        paths.push(path.trim_end_matches(':').to_owned());
    }
    paths
}

/// A file without comments, and without what follows `#[cfg(test)]`.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The trees of `use` statements, and whether they are public.
fn statements(text: &str) -> impl Iterator<Item = (bool, String)> {
    let code = code_of(text);
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find("use ") {
        let before = rest[..at].rsplit('\n').next().unwrap().trim();
        let after = &rest[at + 4..];
        let end = after.find(';').unwrap_or(after.len());
        if before.is_empty() || before.starts_with("pub") {
            found.push((before == "pub", after[..end].to_owned()));
        }
        rest = &after[end..];
    }
    found.into_iter()
}

/// `a::{b, c::D}` as `a::b` and `a::c::D`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap().trim();
        return vec![path.trim_end_matches("::self").to_owned()];
    };
    let (prefix, inside) = (&tree[..open], tree[open + 1..].trim_end().strip_suffix('}').unwrap());
    let mut depth = 0;
    let branches = inside.split(|character| {
        depth += i32::from(character == '{') - i32::from(character == '}');
        character == ',' && depth == 0
    });
    let branches = branches.filter(|branch| !branch.trim().is_empty());
    branches
        .flat_map(expand)
        .map(|path| format!("{prefix}{path}").trim_end_matches("::self").to_owned())
        .collect()
}
