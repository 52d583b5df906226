//! The files that settings are read from: the main one, and those of its `include`, joined into one document.
//!
//! Promises: every byte of every file has one place in the joined text, so that a fault names its own file and line; each
//! file is TOML by itself, and what one of them begins another cannot go on with; a name that stands twice is a fault that names
//! both places. Variables are replaced in values that have been read, never in the text: none can add a key.

mod pattern;
mod variables;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

pub(super) use pattern::IncludePattern;

use super::{
    error::{Fault, Span},
    texts::SourceTexts,
};

/// What settings were read from, beside the main file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsSources {
    /// As written.
    pub include: Vec<String>,
    /// Included files, and those whose content stands in a value.
    pub files: Vec<PathBuf>,
    /// Where another file may come to be included.
    pub folders: Vec<PathBuf>,
}

/// Reads what the main file includes.
///
/// Beside the texts: what they were read from, and what is wrong with the files of `include`.
pub(super) fn collect(path: &Path, text: &str) -> (SourceTexts, SettingsSources, Vec<Fault>) {
    let mut collected = Collected {
        texts: SourceTexts::of(&path.display().to_string(), text),
        sources: SettingsSources::default(),
        faults: Vec::new(),
    };
    let (document, _) = DeTable::parse_recoverable(text);
    if let Some(DeValue::Array(patterns)) = document.get_ref().get("include").map(Spanned::get_ref) {
        for pattern in patterns {
            // One that cannot be read is a fault of the shape.
            if let DeValue::String(written) = pattern.get_ref()
                && let Ok(pattern_read) = IncludePattern::new(written)
            {
                collected.include(path, &pattern_read, pattern.span());
            }
        }
    }
    let Collected { texts, sources, faults } = collected;
    (texts, sources, faults)
}

struct Collected {
    texts: SourceTexts,
    sources: SettingsSources,
    faults: Vec<Fault>,
}

impl Collected {
    fn include(&mut self, main: &Path, pattern: &IncludePattern, span: Span) {
        let mut refuse = |what: String, help: &str| {
            self.faults.push(Fault { span: span.clone(), message: what, help: Some(help.to_owned()) });
        };
        let around = main.parent().unwrap_or(Path::new(""));
        self.sources.include.push(pattern.to_string());
        let folder = around.join(pattern.folder());
        let found = pattern.files(&folder);
        if pattern.is_open() {
            self.sources.folders.push(folder.clone());
        }
        let files = match found {
            Ok(files) => files,
            Err(error) => {
                let what = format!("{} cannot be read: {error}", folder.display());
                return refuse(
                    what,
                    "make the folder, or take the pattern out; it begins where the main file is",
                );
            }
        };
        let own = fs::canonicalize(main).ok();
        for file in files {
            if self.sources.files.contains(&file) || (own.is_some() && fs::canonicalize(&file).ok() == own) {
                continue;
            }
            if self.sources.files.len() == MOST_FILES {
                return refuse(
                    format!("more than {MOST_FILES} files are included"),
                    "join some of them, or write a narrower pattern",
                );
            }
            self.sources.files.push(file.clone());
            match read_text(&file, LONGEST_FILE) {
                Ok(text) => self.texts.add(file.display().to_string(), &text),
                Err(error) => {
                    let what = format!("{} cannot be read: {error}", file.display());
                    refuse(what, "let the edge's user read it, or take it out of the folder");
                }
            }
        }
    }
}

/// A regular file's content, of so many bytes at most.
fn read_text(file: &Path, longest: u64) -> io::Result<String> {
    let looks = fs::metadata(file)?;
    if !looks.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if looks.len() > longest {
        return Err(io::Error::other(format!("it has more than {longest} bytes")));
    }
    fs::read_to_string(file)
}

/// One document of all files, with every variable replaced.
///
/// Beside it: the files whose content stands in a value.
pub(super) fn document<'t>(
    texts: &'t SourceTexts,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(Spanned<DeTable<'t>>, Vec<PathBuf>), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut joined: Option<Spanned<DeTable<'t>>> = None;
    for (begin, text) in texts.each() {
        let (document, errors) = DeTable::parse_recoverable(text);
        if let Some(error) = errors.first() {
            let fault = syntax_fault(error, text);
            faults.push(Fault { span: moved(fault.span, begin), ..fault });
            continue;
        }
        match &mut joined {
            None => joined = Some(document),
            Some(joined) => {
                let mut joining = Joining { main: texts.main(), texts, faults: &mut faults };
                joining.join(joined.get_mut(), moved_table(document.into_inner(), begin));
            }
        }
    }
    let (Some(mut document), true) = (joined, faults.is_empty()) else { return Err(faults) };
    let replaced = variables::replace(document.get_mut(), variable);
    if replaced.faults.is_empty() { Ok((document, replaced.files)) } else { Err(replaced.faults) }
}

/// Whether each of them is TOML.
pub(super) fn check_syntax(texts: &SourceTexts) -> Result<(), Vec<Fault>> {
    let faults = texts.each().filter_map(|(begin, text)| {
        let (_, errors) = DeTable::parse_recoverable(text);
        let fault = syntax_fault(errors.first()?, text);
        Some(Fault { span: moved(fault.span, begin), ..fault })
    });
    let faults: Vec<Fault> = faults.collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn syntax_fault(error: &toml::de::Error, text: &str) -> Fault {
    let span = error.span().unwrap_or(text.len()..text.len());
    match error.message() {
        "duplicate key" => {
            let key = text.get(span.clone()).unwrap_or_default();
            Fault {
                span,
                message: format!("{key:?} is written twice"),
                help: Some("keep one of them".to_owned()),
            }
        }
        message => Fault { span, message: message.to_owned(), help: None },
    }
}

fn moved(span: Span, by: usize) -> Span {
    span.start + by..span.end + by
}

fn moved_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let entry = |(key, value): (Spanned<_>, Spanned<_>)| {
        (Spanned::new(moved(key.span(), by), key.into_inner()), moved_value(value, by))
    };
    table.into_iter().map(entry).collect()
}

fn moved_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = moved(value.span(), by);
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved_table(table, by)),
        DeValue::Array(list) => {
            let mut other = DeArray::new();
            list.into_iter().for_each(|element| other.push(moved_value(element, by)));
            DeValue::Array(other)
        }
        other => other,
    };
    Spanned::new(span, value)
}

struct Joining<'a> {
    /// What the main file is called.
    main: &'a str,
    texts: &'a SourceTexts,
    faults: &'a mut Vec<Fault>,
}

impl Joining<'_> {
    /// Lists of tables go on; tables by name come together; any other may stand once.
    fn join<'t>(&mut self, joined: &mut DeTable<'t>, more: DeTable<'t>) {
        for (key, value) in more {
            let name = key.get_ref().clone();
            if name == "include" {
                let help = format!("write the pattern in {}: an included file includes no others", self.main);
                self.fault(&key.span(), "include stands in the main file alone".to_owned(), help);
                continue;
            }
            if !holds_tables(value.get_ref()) {
                let help = format!("write it in {}: an included file holds tables alone", self.main);
                self.fault(&key.span(), format!("{name:?} stands outside of any table"), help);
                continue;
            }
            let Some((before, _)) = joined.get_key_value(&*name) else {
                joined.insert(key, value);
                continue;
            };
            let before = before.span();
            let here = joined.get_mut(&*name).map(Spanned::get_mut);
            match (here, value.into_inner()) {
                (Some(DeValue::Array(list)), DeValue::Array(others)) => {
                    others.into_iter().for_each(|other| list.push(other));
                }
                (Some(DeValue::Table(named)), DeValue::Table(others)) if NAMED.contains(&&*name) => {
                    for (key, value) in others {
                        match named.get_key_value(&**key.get_ref()).map(|(before, _)| before.span()) {
                            Some(before) => {
                                self.twice(&format!("{name}.{}", key.get_ref()), &key.span(), &before);
                            }
                            None => drop(named.insert(key, value)),
                        }
                    }
                }
                _ => self.twice(&name, &key.span(), &before),
            }
        }
    }

    fn twice(&mut self, name: &str, here: &Span, before: &Span) {
        let before = self.texts.line(before);
        self.fault(
            here,
            format!("{name:?} is written twice: also on {before}"),
            "keep one of them".to_owned(),
        );
    }

    fn fault(&mut self, span: &Span, message: String, help: String) {
        self.faults.push(Fault { span: span.clone(), message, help: Some(help) });
    }
}

fn holds_tables(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(list) => list.iter().all(|element| matches!(element.get_ref(), DeValue::Table(_))),
        _ => false,
    }
}

/// Tables whose keys are names of the operator's.
const NAMED: [&str; 3] = ["limits", "commands", "upstreams"];
/// How many files may be included.
const MOST_FILES: usize = 1000;
/// In bytes, of one of them.
const LONGEST_FILE: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{SettingsError, read, source_files};

    const MAIN: &str = "include = [\"conf.d/*.toml\"]\n[[listen]]\naddress = \"[::]:8080\"\n[limits.api]\nrate = \"1/s\"\n\
                        [upstreams.a]\nservers = [\"http://a\"]\n[[routes]]\nname = \"a\"\npath = \"/a\"\nupstream = \"a\"\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn refused(files: &[(&str, &str)]) -> String {
        let folder = folder(files);
        let told = read(&folder.path().join("edge.toml")).map(|_| ()).expect_err("a fault").to_string();
        told.replace(&format!("{}/", folder.path().display()), "")
    }

    const ROUTE: &str = "[[routes]]\nname = \"b\"\npath = \"/b\"\nupstream = \"b\"\nlimit = \"api\"\n";

    #[test]
    fn what_is_included_is_read_in_the_order_of_names() {
        let folder = folder(&[
            ("edge.toml", MAIN),
            ("conf.d/2.toml", ROUTE),
            (
                "conf.d/1.toml",
                "[upstreams.b]\nservers = [\"http://b\"]\n[[routes]]\nname = \"c\"\npath = \"/c\"\nupstream = \"b\"",
            ),
            ("conf.d/.3.toml", "what an editor leaves"),
            ("conf.d/4.toml.old", "what is out of use"),
        ]);
        let main = folder.path().join("edge.toml");
        let (settings, _) = read(&main).unwrap();
        let names: Vec<&str> = settings.routes.iter().map(|route| &*route.name).collect();
        assert_eq!(names, ["a", "c", "b"]);
        let at = |name: &str| folder.path().join(name);
        assert_eq!(settings.sources.files, [at("conf.d/1.toml"), at("conf.d/2.toml")]);
        assert_eq!(settings.sources.folders, [at("conf.d")]);
        assert_eq!(source_files(&main), [at("conf.d/1.toml"), at("conf.d/2.toml"), at("conf.d")]);
    }

    #[test]
    fn a_fault_names_the_file_that_it_is_in() {
        let told = refused(&[
            ("edge.toml", MAIN),
            ("conf.d/1.toml", ROUTE),
            ("conf.d/2.toml", "[cache]\nmemory = 1\n"),
        ]);
        assert!(
            told.starts_with("conf.d/1.toml:4:12: unknown upstream \"b\"\n4 | upstream = \"b\"\n"),
            "{told}"
        );
        assert!(told.contains("\n\nconf.d/2.toml:2:10: expected a size"), "{told}");
    }

    #[test]
    fn a_name_that_stands_twice_is_told_with_both_places() {
        let twice = "\n[limits.api]\nrate = \"2/s\"\n[cache]\n";
        let told = refused(&[("edge.toml", &format!("{MAIN}[cache]\n")), ("conf.d/1.toml", twice)]);
        assert!(
            told.starts_with(
                "conf.d/1.toml:2:9: \"limits.api\" is written twice: also on line 4 of edge.toml\n"
            ),
            "{told}"
        );
        assert!(
            told.contains("conf.d/1.toml:4:2: \"cache\" is written twice: also on line 12 of edge.toml\n"),
            "{told}"
        );
        let told = refused(&[
            ("edge.toml", MAIN),
            ("conf.d/1.toml", "[[routes]]\nname = \"a\"\npath = \"/z\"\nupstream = \"a\""),
        ]);
        assert!(told.contains("the route name \"a\" is taken on line 9 of edge.toml"), "{told}");
    }

    #[test]
    fn an_included_file_holds_tables_alone_and_goes_on_with_none_of_another() {
        let told = refused(&[("edge.toml", MAIN), ("conf.d/1.toml", "threads = 2\ninclude = [\"x\"]")]);
        assert!(told.starts_with("conf.d/1.toml:1:1: \"threads\" stands outside of any table\n"), "{told}");
        assert!(told.contains("conf.d/1.toml:2:1: include stands in the main file alone\n"), "{told}");
        // As one text, the key would be the last listener's.
        let told = refused(&[("edge.toml", MAIN), ("conf.d/1.toml", "[listen.tls]\nlocal_ca = true")]);
        assert!(
            told.starts_with("conf.d/1.toml:1:2: \"listen\" is written twice: also on line 2 of edge.toml"),
            "{told}"
        );
        let told = refused(&[("edge.toml", MAIN), ("conf.d/1.toml", "[cache\n"), ("conf.d/2.toml", "a = b")]);
        assert!(told.contains("conf.d/1.toml:1:7: ") && told.contains("conf.d/2.toml:1:"), "{told}");
    }

    #[test]
    fn what_is_not_there_is_a_fault_but_an_empty_folder_is_none() {
        let with = |pattern: &str| MAIN.replace("conf.d/*.toml", pattern);
        let told = refused(&[("edge.toml", &with("sites/*.toml"))]);
        assert!(told.starts_with("edge.toml:1:12: sites cannot be read: "), "{told}");
        let told = refused(&[("edge.toml", &with("conf.d/one.toml"))]);
        assert!(told.starts_with("edge.toml:1:12: conf.d/one.toml cannot be read: "), "{told}");
        let told = refused(&[("edge.toml", &with("*/a.toml"))]);
        assert!(told.starts_with("edge.toml:1:12: ") && told.contains("last part"), "{told}");
        let folder = folder(&[("edge.toml", &with("*.toml"))]);
        assert!(read(&folder.path().join("edge.toml")).is_ok(), "the main file is not included in itself");
    }

    #[test]
    fn there_are_no_more_files_than_the_bound() {
        let folder = folder(&[("edge.toml", MAIN)]);
        for number in 0..=MOST_FILES {
            fs::write(folder.path().join(format!("conf.d/{number}.toml")), "").unwrap();
        }
        let Err(SettingsError::Refused(faults)) = read(&folder.path().join("edge.toml")) else {
            panic!("refused")
        };
        assert!(faults.to_string().contains("more than 1000 files are included"), "{faults}");
    }
}
