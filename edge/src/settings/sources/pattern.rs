//! `conf.d/*.toml`: which files are included.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::settings::{
    notation::Notation,
    value::{Unreadable, Value},
};

/// A path whose last part may hold stars, each for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct IncludePattern {
    folder: PathBuf,
    name: String,
}

impl IncludePattern {
    pub(super) fn new(text: &str) -> Result<Self, Unreadable> {
        let (folder, name) = match text.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some((folder, name)) => (folder, name),
            None => ("", text),
        };
        if text.contains("${") {
            return Err(Unreadable::new("a variable has no place here", "write the path itself"));
        }
        if folder.contains('*') {
            return Err(Unreadable::new("a star may stand in the last part of a path alone", EXAMPLE));
        }
        if name.is_empty() || text.contains('\0') {
            return Err(Unreadable::new(format!("{text:?} names no file"), EXAMPLE));
        }
        Ok(Self { folder: folder.into(), name: name.to_owned() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether other files may come to match it.
    pub(super) fn is_open(&self) -> bool {
        self.name.contains('*')
    }

    /// Those of a folder, in the order of their names. As in a shell, a star stands for no dot at the beginning.
    pub(super) fn files(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.is_open() {
            return Ok(vec![folder.join(&self.name)]);
        }
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut names = Vec::new();
        for entry in fs::read_dir(here)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_hidden = name.as_encoded_bytes().starts_with(b".") && !self.name.starts_with('.');
            if !is_hidden && name.to_str().is_some_and(|name| self.takes(name)) && entry.path().is_file() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names.into_iter().map(|name| folder.join(name)).collect())
    }

    fn takes(&self, name: &str) -> bool {
        let mut parts = self.name.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl Value for IncludePattern {
    const EXPECTED: &'static str = "a path in quotes such as \"conf.d/*.toml\"";

    fn notation() -> Notation {
        Notation::Text
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        Self::new(text)
    }
}

impl fmt::Display for IncludePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.folder.join(&self.name).display().fmt(f)
    }
}

const EXAMPLE: &str = "write a path such as \"conf.d/*.toml\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let takes = |pattern: &str, name: &str| IncludePattern::new(pattern).unwrap().takes(name);
        for (pattern, name) in
            [("*", "a"), ("*.toml", "a.toml"), ("a*c*", "abc"), ("a*b*b", "abb"), ("a", "a")]
        {
            assert!(takes(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.toml", "a.toml~"), ("a*a", "a"), ("a*b*b", "ab"), ("a", "ab"), ("a*", "b")]
        {
            assert!(!takes(pattern, name), "{pattern} {name}");
        }
    }
}
