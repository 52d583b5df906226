//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` in texts of a file: what the environment and other files say.
//!
//! Replaced in values that have been read: what stands in a variable can be no key, no table, no second value. Names are
//! upper case, so that those of groups in the template of a `rewrite` are left alone.

use std::{
    ffi::OsString,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::read_text;
use crate::settings::error::Fault;

/// What replacing came to.
#[derive(Default)]
pub(super) struct Replaced {
    pub(super) faults: Vec<Fault>,
    /// The files that were read.
    pub(super) files: Vec<PathBuf>,
}

/// Replaces all of them. `variable` is the environment.
pub(super) fn replace(document: &mut DeTable<'_>, variable: &dyn Fn(&str) -> Option<OsString>) -> Replaced {
    let mut replacing = Replacing { variable, replaced: Replaced::default() };
    for (key, value) in document.iter_mut() {
        // It was followed before.
        if key.get_ref() != "include" {
            let span = value.span();
            replacing.value(value.get_mut(), span);
        }
    }
    replacing.replaced
}

struct Replacing<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    replaced: Replaced,
}

/// Why a text stays as it is, and what to write.
type VariableRefusal = (String, String);

impl Replacing<'_> {
    fn value(&mut self, value: &mut DeValue<'_>, span: Range<usize>) {
        match value {
            DeValue::String(text) if text.contains("${") => match self.text(text) {
                Ok(other) => *text = other.into(),
                Err((message, help)) => {
                    self.replaced.faults.push(Fault { span, message, help: Some(help) });
                }
            },
            DeValue::Table(table) => {
                for (_, value) in table.iter_mut() {
                    let span = value.span();
                    self.value(value.get_mut(), span);
                }
            }
            DeValue::Array(list) => {
                for value in list.iter_mut() {
                    let span = value.span();
                    self.value(value.get_mut(), span);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<String, VariableRefusal> {
        let (mut other, mut rest) = (String::new(), text);
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            let reference = Reference::read(&from[2..]);
            rest = &from[2..];
            match (reference, before.strip_suffix('$')) {
                (Ok(None), _) => {
                    other.push_str(before);
                    other.push_str("${");
                }
                // Whatever it is, as of a shell's `${NAME#prefix}`.
                (_, Some(before)) => {
                    other.push_str(before);
                    other.push_str("${");
                }
                (Err(refused), None) => return Err(refused),
                (Ok(Some(reference)), None) => {
                    other.push_str(before);
                    rest = &rest[reference.length()..];
                    other.push_str(&self.content(&reference)?);
                }
            }
        }
        other.push_str(rest);
        Ok(other)
    }

    fn content(&mut self, reference: &Reference<'_>) -> Result<String, VariableRefusal> {
        match *reference {
            Reference::File(path) => {
                self.replaced.files.push(path.into());
                let content = read_text(Path::new(path), LONGEST_CONTENT).map_err(|error| {
                    let help = "name a file that the edge's user may read; relative paths begin at the working directory";
                    (format!("{path} cannot be read: {error}"), help.to_owned())
                })?;
                Ok(content
                    .strip_suffix('\n')
                    .map_or(&*content, |line| line.trim_end_matches('\r'))
                    .to_owned())
            }
            Reference::Variable { name, default } => {
                let value = (self.variable)(name).map(OsString::into_string);
                match (value, default) {
                    (Some(Err(_)), _) => Err((
                        format!("the variable {name} is no text: it holds bytes that are not UTF-8"),
                        "set it to text".to_owned(),
                    )),
                    (Some(Ok(value)), None) => Ok(value),
                    // As a shell has it: the default stands for nothing too.
                    (Some(Ok(value)), Some(_)) if !value.is_empty() => Ok(value),
                    (_, Some(default)) => Ok(default.to_owned()),
                    (None, None) => Err((
                        format!("the variable {name} is not set"),
                        format!(
                            "set it where the edge is started, or write what stands for it: ${{{name}:-..}}; \
                             $${{{name}}} is the text itself"
                        ),
                    )),
                }
            }
        }
    }
}

/// What stands between the braces.
enum Reference<'a> {
    Variable { name: &'a str, default: Option<&'a str> },
    File(&'a str),
}

impl<'a> Reference<'a> {
    /// What follows `${`; `None` where it is meant for somebody else.
    fn read(from: &'a str) -> Result<Option<Self>, VariableRefusal> {
        let closed = |from: &'a str| {
            let unclosed = || ("what begins with ${ has no end".to_owned(), "close it with }".to_owned());
            from.split_once('}').map(|(inner, _)| inner).ok_or_else(unclosed)
        };
        if let Some(path) = from.strip_prefix("file:") {
            return closed(path).map(|path| Some(Self::File(path)));
        }
        let of_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let length = from.bytes().take_while(|byte| of_name(*byte)).count();
        let (name, rest) = from.split_at(length);
        if !name.starts_with(|first: char| first.is_ascii_uppercase())
            || rest.starts_with(|next: char| next.is_ascii_lowercase())
        {
            return Ok(None);
        }
        if rest.starts_with('}') {
            return Ok(Some(Self::Variable { name, default: None }));
        }
        match rest.strip_prefix(":-") {
            Some(default) => {
                closed(default).map(|default| Some(Self::Variable { name, default: Some(default) }))
            }
            None => Err((
                format!("${{{name} is followed by what cannot be read"),
                format!(
                    "write ${{{name}}}, or ${{{name}:-default}} for what stands in its place; $${{ is the text itself"
                ),
            )),
        }
    }

    /// With the brace at its end.
    fn length(&self) -> usize {
        match self {
            Self::Variable { name, default } => {
                name.len() + default.map_or(0, |default| default.len() + 2) + 1
            }
            Self::File(path) => "file:".len() + path.len() + 1,
        }
    }
}

/// In bytes: a value is no document.
const LONGEST_CONTENT: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(name: &str) -> Option<OsString> {
        match name {
            "PORT" => Some("3000".into()),
            "EMPTY" => Some("".into()),
            "INJECT" => Some("x\"\n[admin]\n${PORT}".into()),
            _ => None,
        }
    }

    fn text(text: &str) -> Result<String, VariableRefusal> {
        Replacing { variable: &environment, replaced: Replaced::default() }.text(text)
    }

    #[test]
    fn variables_are_replaced_and_what_is_somebody_elses_is_left() {
        for (written, read) in [
            ("http://a:${PORT}/", "http://a:3000/"),
            ("${PORT}${PORT}", "30003000"),
            ("${NONE:-80}", "80"),
            ("${NONE:-}", ""),
            ("${PORT:-80}", "3000"),
            ("a${EMPTY}b", "ab"),
            ("${EMPTY:-80}", "80"),
            ("$${PORT}", "${PORT}"),
            ("$${PORT:-1} ${PORT}", "${PORT:-1} 3000"),
            ("${name}/$1/${1}/${Name}/${_}", "${name}/$1/${1}/${Name}/${_}"),
            ("$${name} $$1", "$${name} $$1"),
            ("$${PORT#3} $${PORT", "${PORT#3} ${PORT"),
            ("${INJECT}", "x\"\n[admin]\n${PORT}"),
            ("$ { ${", "$ { ${"),
        ] {
            assert_eq!(text(written).as_deref(), Ok(read), "{written}");
        }
        assert!(text("${NONE}").is_err_and(|(what, help)| {
            what == "the variable NONE is not set"
                && help.contains("${NONE:-..}")
                && help.contains("$${NONE}")
        }));
        assert!(text("${NONE:-80").is_err() && text("${NONE-80}").is_err() && text("${file:a").is_err());
    }

    #[test]
    fn the_content_of_a_file_stands_without_the_end_of_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "se${PORT}cret\n").unwrap();
        let written = format!("Bearer ${{file:{}}}", file.display());
        let mut replacing = Replacing { variable: &environment, replaced: Replaced::default() };
        assert_eq!(replacing.text(&written).as_deref(), Ok("Bearer se${PORT}cret"));
        assert_eq!(replacing.replaced.files, [file]);
        assert!(text("${file:no/such}").is_err_and(|(what, _)| what.starts_with("no/such cannot be read: ")));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(written in "[${}:A-Ca-c_1é-]{0,20}") {
            let _ = text(&written);
        }
    }
}
