//! `edge fmt`: lays a file of settings out the way all of them are. Only what stands between words changes: no value, no order,
//! no comment.

use std::{fs, io, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use toml_parser::{Source, lexer::TokenKind};

use super::outcome::told;
use super::settings_file::SettingsFile;
use crate::settings;

/// Which file.
#[derive(Debug, Args)]
pub struct FmtArguments {
    #[command(flatten)]
    file: SettingsFile,
    /// Change nothing: fail where the file is not laid out so, and name the first such line
    #[arg(long)]
    check: bool,
}

/// Writes the file anew, where it is to be other than it is.
pub fn run(FmtArguments { file, check }: &FmtArguments) -> ExitCode {
    told(file.path().and_then(|path| fmt(&path, *check)))
}

fn fmt(path: &Path, check: bool) -> anyhow::Result<String> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    settings::check_syntax(&text, &name.to_string())?;
    let laid_out = laid_out(&text);
    if laid_out == text {
        return Ok(format!("{name}: nothing to change"));
    }
    if check {
        let line = text.lines().zip(laid_out.lines()).take_while(|(one, other)| one == other).count() + 1;
        anyhow::bail!("{name}:{line}: not laid out as `edge fmt` does\n   = help: edge fmt --config {name}");
    }
    write(path, &laid_out).with_context(|| format!("{name} cannot be written"))?;
    Ok(format!("{name}: laid out anew"))
}

/// Another file takes its place, whole and with its mode.
fn write(path: &Path, content: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    fs::write(&draft, content)?;
    let renamed = fs::metadata(&path)
        .and_then(|looks| fs::set_permissions(&draft, looks.permissions()))
        .and_then(|()| fs::rename(&draft, &path));
    if renamed.is_err() {
        // What is left of it is of no use.
        let _ = fs::remove_file(&draft);
    }
    renamed
}

/// A document as it is to be; it must be TOML. Laid out once, it stays as it is.
pub(super) fn laid_out(text: &str) -> String {
    let mut page = LaidOutText::default();
    let (mut newlines, mut space) = (0, "");
    for token in Source::new(text).lex() {
        let part = &text[token.span().start()..token.span().end()];
        match token.kind() {
            TokenKind::Eof => {}
            TokenKind::Whitespace => space = part,
            TokenKind::Newline => {
                newlines += 1;
                space = "";
            }
            kind => {
                page.put(kind, part, std::mem::take(&mut newlines), std::mem::take(&mut space));
            }
        }
    }
    page.whole()
}

#[derive(Default)]
struct LaidOutText {
    text: String,
    /// Brackets and braces of values that are open.
    depth: usize,
    before: Option<TokenKind>,
    /// Whether the line is a table's header.
    in_header: bool,
    /// Lines that are.
    headers: Vec<usize>,
    /// Lines that are comments from their beginning.
    comments: Vec<usize>,
    line: usize,
}

impl LaidOutText {
    fn put(&mut self, kind: TokenKind, part: &str, newlines: usize, space: &str) {
        let closes = matches!(kind, TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket);
        let begins = newlines > 0 || self.before.is_none();
        if begins {
            if self.before.is_some() {
                self.text.push_str(if newlines > 1 { "\n\n" } else { "\n" });
                self.line += newlines.min(2);
            }
            self.in_header = kind == TokenKind::LeftSquareBracket && self.depth == 0;
            if self.in_header {
                self.headers.push(self.line);
            }
            match kind {
                // What goes on with what stands behind the line above has its place.
                TokenKind::Comment if self.depth == 0 => {
                    if space.is_empty() {
                        self.comments.push(self.line);
                    }
                    self.text.push_str(space);
                }
                _ => self.text.push_str(&"    ".repeat(self.depth - usize::from(closes && self.depth > 0))),
            }
        } else {
            self.text.push_str(self.between(kind, space));
        }
        if !self.in_header {
            match kind {
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => self.depth += 1,
                _ if closes => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.text.push_str(part);
        self.line += part.matches('\n').count();
        self.before = Some(kind);
    }

    /// What stands between two words of a line that had `space` there.
    fn between<'a>(&self, kind: TokenKind, space: &'a str) -> &'a str {
        use TokenKind::{Atom, Comma, Comment, Equals, LeftCurlyBracket, RightCurlyBracket};
        match (self.before.unwrap_or(Comment), kind) {
            // Those of several lines stand below each other.
            (_, Comment) if space.is_empty() => " ",
            (_, Comment) => space,
            (LeftCurlyBracket, RightCurlyBracket) | (_, Comma) => "",
            (_, Equals) | (Equals | Comma | LeftCurlyBracket, _) | (_, RightCurlyBracket) => " ",
            // A date and a time.
            (Atom, Atom) if !space.is_empty() => " ",
            _ => "",
        }
    }

    /// With an empty line before each header and what is said of it.
    fn whole(self) -> String {
        let lines: Vec<&str> = self.text.split('\n').collect();
        let mut parted = vec![false; lines.len()];
        for header in self.headers {
            let said = (0..header).rev().take_while(|line| self.comments.binary_search(line).is_ok()).count();
            let first = header - said;
            parted[first] = first > 0 && !lines[first - 1].is_empty();
        }
        let mut whole = String::with_capacity(self.text.len() + 1);
        for (line, parted) in lines.iter().zip(parted) {
            if parted {
                whole.push('\n');
            }
            whole.push_str(line);
            whole.push('\n');
        }
        if self.text.is_empty() { String::new() } else { whole }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_stands_between_words_is_laid_out() {
        let written = "\n\n  threads=2   \r\n# of the cache\n [ cache ]\nmemory   =\"1 GiB\"# much\n\tvariants= 3   # few\n\n\n\n\
                       largest_object = '''a\n\n\n  b'''\n[[routes]]\npath=[\n\"/a\",# one\n  [1,2 ] ,\n]\n\
                       cache={ttl=\"1m\" ,query={ }, x = { a.b=1.5 }}\n          # goes on\nat = 1979-05-27  07:32:00";
        let laid = "threads = 2\n\n# of the cache\n[cache]\nmemory = \"1 GiB\" # much\nvariants = 3   # few\n\n\
                    largest_object = '''a\n\n\n  b'''\n\n[[routes]]\npath = [\n    \"/a\", # one\n    [1, 2],\n]\n\
                    cache = { ttl = \"1m\", query = {}, x = { a.b = 1.5 } }\n          # goes on\nat = 1979-05-27 07:32:00\n";
        assert_eq!(laid_out(written), laid);
        assert_eq!(laid_out(laid), laid);
        assert_eq!(laid_out(""), "");
        let text_like_a_comment = "a = '''\n#'''\n\n[b]\n";
        assert_eq!(laid_out(text_like_a_comment), text_like_a_comment);
        assert_eq!(laid_out("a = '''\n#'''\n[b]"), text_like_a_comment);
    }

    proptest! {
        #[test]
        fn what_it_means_stays_and_so_does_a_second_time(text in "([a-c]|= ?|\\[|\\]|\\{|\\}|,|\\.|\"|'|#| |\n|1){0,40}") {
            let laid = laid_out(&text);
            if let Ok(before) = text.parse::<toml::Table>() {
                prop_assert_eq!(Some(before), laid.parse::<toml::Table>().ok(), "{}", laid);
                prop_assert_eq!(laid_out(&laid), laid);
            }
        }
    }

    #[test]
    fn every_file_of_ours_means_the_same_when_it_is_laid_out() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folders = ["docs/recipes", "docs/jobs"].map(|folder| fs::read_dir(root.join(folder)).unwrap());
        let within = folders.into_iter().flatten().map(|entry| entry.unwrap().path().join("edge.toml"));
        let own = ["edge.toml", "demo.toml", "origin.toml"].map(|name| root.join("config").join(name));
        let files: Vec<_> = within.filter(|file| file.exists()).chain(own).collect();
        assert!(files.len() > 15, "{files:?}");
        for file in files {
            let before = fs::read_to_string(&file).unwrap();
            let after = laid_out(&before);
            let [meant, means] = [&before, &after].map(|text| text.parse::<toml::Table>().unwrap());
            assert_eq!(meant, means, "{}", file.display());
            let comments = |text: &str| {
                text.lines()
                    .filter_map(|line| line.split_once('#'))
                    .map(|(_, said)| said.trim_end().to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(comments(&before), comments(&after), "{}", file.display());
            assert_eq!(laid_out(&after), after, "{}", file.display());
        }
    }

    #[test]
    fn a_file_is_written_once_and_checked_without_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.toml");
        fs::write(&file, "a=1\n").unwrap();
        let told = fmt(&file, true).unwrap_err().to_string();
        assert!(told.contains("edge.toml:1: not laid out"), "{told}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "a=1\n");
        assert!(fmt(&file, false).unwrap().ends_with("laid out anew"));
        assert!(fmt(&file, true).unwrap().ends_with("nothing to change"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 1\n");
        fs::write(&file, "a = = 1\n").unwrap();
        assert!(fmt(&file, false).unwrap_err().to_string().contains("edge.toml:1:5: "));
    }
}
