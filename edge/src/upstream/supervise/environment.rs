//! The variables of a command: those of its `env_file`, and those of the settings, which are stronger.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use crate::settings::Command;

/// Bytes of an `env_file`.
const LARGEST_FILE: u64 = 1024 * 1024;

/// What is set beside the edge's own environment.
///
/// # Errors
/// When the command's `env_file` cannot be read, or a line of it says nothing: with the line.
pub(super) fn of(command: &Command) -> Result<BTreeMap<String, String>, String> {
    let mut variables = match &command.env_file {
        Some(path) => read(path).map_err(|what| format!("[commands.{}] env_file {what}", command.name))?,
        None => BTreeMap::new(),
    };
    variables.extend(command.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(variables)
}

fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{shown} is no file"));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(format!("{shown} is larger than 1 MiB"));
    }
    parse(&text).map_err(|(line, what)| format!("{shown}:{line}: {what}"))
}

/// Reads lines `NAME=value`; empty ones and those that begin with `#` say nothing. The later of two wins.
///
/// # Errors
/// The number of the first line that is none, and what is wrong with it.
fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, &'static str)> {
    let mut variables = BTreeMap::new();
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |what| (index + 1, what);
        // As a shell would read the file.
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line.split_once('=').ok_or(fault("this is no line NAME=value"))?;
        let name = name.trim_end();
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
        if !begins || !name.chars().all(plain) {
            return Err(fault("a name holds letters, digits and '_', and begins with no digit"));
        }
        let value = value_of(value.trim_start()).map_err(fault)?;
        if value.contains('\0') {
            return Err(fault("a value holds no NUL character"));
        }
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

/// A value: in single quotes as it stands, in double quotes with `\n`, `\t`, `\r`, and `\` before any other character for
/// that character, without quotes up to a comment.
fn value_of(text: &str) -> Result<String, &'static str> {
    const UNCLOSED: &str = "the quote has no end on this line";
    let (value, rest) = match text.chars().next() {
        Some('\'') => {
            let (value, rest) = text[1..].split_once('\'').ok_or(UNCLOSED)?;
            (value.to_owned(), rest)
        }
        Some('"') => {
            let mut value = String::new();
            let mut letters = text[1..].chars();
            loop {
                match letters.next().ok_or(UNCLOSED)? {
                    '"' => break,
                    '\\' => value.push(match letters.next().ok_or(UNCLOSED)? {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    }),
                    other => value.push(other),
                }
            }
            (value, letters.as_str())
        }
        Some('#') | None => return Ok(String::new()),
        Some(_) => {
            let comment = text.match_indices('#').find(|(at, _)| text[..*at].ends_with([' ', '\t']));
            let value = comment.map_or(text, |(at, _)| &text[..at]);
            return Ok(value.trim_end().to_owned());
        }
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(value)
    } else {
        Err("nothing may follow the closing quote")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_comments_and_quotes_are_read() {
        let text = "\u{feff}# all of it\n\nA=1\nexport B = two words # and a comment\nC='it # is $HOME'\n\
                    D=\"a\\nb \\\"c\\\" \\\\\" # more\nE=\nF=#none\nG=a#b\r\nA=2\nH=https://x/?a=b\n";
        let read = parse(text).unwrap();
        let expected = [
            ("A", "2"),
            ("B", "two words"),
            ("C", "it # is $HOME"),
            ("D", "a\nb \"c\" \\"),
            ("E", ""),
            ("F", ""),
            ("G", "a#b"),
            ("H", "https://x/?a=b"),
        ];
        assert_eq!(read.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_line_that_says_nothing_is_named() {
        for (text, line) in [
            ("A=1\nB", 2),
            ("1A=1", 1),
            ("=1", 1),
            ("A='b", 1),
            ("\n\nA=\"b", 3),
            ("A='b' c", 1),
            ("A=\"b\\", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn what_the_settings_say_is_stronger_and_a_file_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        fs::write(&path, "A=file\nB=file\n").unwrap();
        let mut command = Command::new("app", vec!["app".to_owned()]);
        command.env_file = Some(path.clone());
        command.environment.insert("A".to_owned(), "settings".to_owned());
        let read = of(&command).unwrap();
        assert_eq!((read["A"].as_str(), read["B"].as_str()), ("settings", "file"));
        fs::write(&path, "A=1\nB\n").unwrap();
        let said = of(&command).unwrap_err();
        assert!(said.starts_with("[commands.app] env_file ") && said.contains(".env:2: "), "{said}");
        fs::remove_file(&path).unwrap();
        assert!(of(&command).unwrap_err().contains("cannot be read"));
        command.env_file = Some("/dev/zero".into());
        assert!(of(&command).unwrap_err().contains("is no file"));
    }
}
