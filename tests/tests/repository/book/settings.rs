//! `docs/settings.md`: every setting, as `config/edge.toml` has and explains it.
//!
//! That file is prose, and keeps to a few forms: a line of dashes begins a chapter; what stands above a table or a key is about it,
//! as is what stands behind a key; a name and two spaces begin an item of a list. What a list above a table says of a key is that
//! key's own text.

use super::{
    head, holds, row,
    source::{capitalized, join},
    source_of,
};

const EXAMPLE: &str = "config/edge.toml";

const INTRODUCTION: &str = "# Settings

One TOML file. What stands in a box is the default where there is one, and an example else; a line that begins with `#` is off unless \
it is written. A key that is not known is an error, as is a value that cannot be: `edge check --config FILE` names line, value and \
remedy; `edge check --effective` prints all that is in force. [Files, variables and secrets](operating.md#files-variables-and-secrets) says \
how a file includes others, and how a text holds a variable of the environment or what another file says.

A [reload](operating.md#reload) changes everything, unless it is said here that it does not; what is said to be of the next connection, \
open connections keep as it was.
";

#[test]
fn the_page_of_settings_is_what_the_example_says() {
    let chapters = Reader::read(&source_of(EXAMPLE));
    let reloads = reloads(&source_of("edge/src/settings/reload/mod.rs"));
    let entries = chapters.iter().map(|table| table.entries.len()).sum::<usize>();
    assert!(entries > 90, "the reader found {entries} settings");
    let mut text = INTRODUCTION.to_owned();
    text += &head(&["table", "settings"]);
    for table in &chapters {
        let links = table.entries.iter().map(|entry| link(table, entry)).collect::<Vec<_>>().join(", ");
        text += &row(&[&format!("[{}](#{})", table.shown(), anchor(&table.heading())), &links]);
    }
    for table in &chapters {
        text += &table.written(&reloads);
    }
    holds("settings.md", EXAMPLE, &text);
}

/// A table of the file, with all that the file says of its keys.
#[derive(Debug, Default)]
struct TableSaid {
    /// Dotted: `upstreams.NAME`.
    name: String,
    /// Whether there may be several, as of `[[routes]]`.
    repeats: bool,
    prose: Vec<Prose>,
    entries: Vec<Entry>,
}

/// One setting, or several of which the file says one thing.
#[derive(Debug, Default)]
struct Entry {
    names: Vec<String>,
    /// As they are written, each with its value.
    lines: Vec<String>,
    prose: Vec<Prose>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Prose {
    Paragraph(String),
    /// A word, and what is said of it.
    Item(String, String),
    Code(String),
}

#[derive(Default)]
struct Reader {
    tables: Vec<TableSaid>,
    /// Of the table that is being read.
    at: usize,
    /// What stands above the next table.
    above_table: Vec<Prose>,
    /// What stands above the next key or table.
    pending: Vec<String>,
    /// The entry of the setting on the line before, where there was one.
    before: Option<usize>,
    /// Whether what is said of that setting stands above it, and so is said of the next one too.
    was_new: bool,
    /// The table that goes on after one that is off.
    around: Option<usize>,
    /// Whether its value goes on.
    goes_on: bool,
}

impl Reader {
    fn read(text: &str) -> Vec<TableSaid> {
        let mut reader = Self { tables: vec![TableSaid::default()], ..Self::default() };
        for line in text.lines() {
            reader.line(line);
        }
        assert!(reader.pending.is_empty(), "{EXAMPLE} ends with words about nothing: {:?}", reader.pending);
        // What stands above all tables is about the file and the program.
        reader.tables[0].prose.clear();
        reader.tables
    }

    fn line(&mut self, line: &str) {
        if self.goes_on {
            let entry = self.entry_before(line);
            entry.lines.push(line.to_owned());
            self.goes_on = !line.contains(']');
        } else if line.starts_with("# -----") {
            self.close_table_that_is_off();
            self.pending.clear();
            self.above_table.clear();
            self.before = None;
        } else if line.is_empty() {
            self.close_table_that_is_off();
            let pending = std::mem::take(&mut self.pending);
            self.above_table.extend(prose(&pending));
            self.before = None;
        } else if let Some(header) = header(line) {
            let is_off = line.starts_with('#');
            let around = is_off.then_some(self.at);
            self.table(header, is_off);
            self.around = around;
        } else if let Some((name, setting, behind)) = setting(line) {
            self.setting(name, setting, behind);
        } else if let Some(more) = line.trim_start().strip_prefix('#').filter(|_| line.starts_with(' ')) {
            let before = self.entry_before(line);
            match before.prose.last_mut() {
                Some(Prose::Paragraph(text)) => join(text, more),
                _ => before.prose.push(Prose::Paragraph(more.trim().to_owned())),
            }
        } else if line.starts_with('#') {
            self.pending.push(line.to_owned());
            self.before = None;
        } else {
            panic!("{EXAMPLE}: teach this reader what {line:?} is");
        }
    }

    /// Of a table that is off the lines are that follow up to an empty one.
    fn close_table_that_is_off(&mut self) {
        if let Some(around) = self.around.take() {
            self.at = around;
            self.before = None;
        }
    }

    fn entry_before(&mut self, line: &str) -> &mut Entry {
        let before = self.before.unwrap_or_else(|| panic!("{EXAMPLE}: {line:?} goes on with nothing"));
        &mut self.tables[self.at].entries[before]
    }

    fn table(&mut self, header: &str, is_off: bool) {
        let repeats = header.starts_with("[[");
        let name = header.trim_matches(['[', ']']);
        let name = match name.split_once('.') {
            Some((first, _)) if matches!(first, "limits" | "commands" | "upstreams") => {
                format!("{first}.NAME")
            }
            _ => name.to_owned(),
        };
        let around = std::mem::replace(&mut self.at, self.tables.len());
        match self.tables.iter().position(|table| table.name == name) {
            Some(known) => self.at = known,
            None => self.tables.push(TableSaid { name, repeats, ..TableSaid::default() }),
        }
        let mut said = std::mem::take(&mut self.above_table);
        said.extend(prose(&std::mem::take(&mut self.pending)));
        // A table within another is another way to write what stands above it.
        let (name, around) = (self.tables[self.at].name.clone(), &mut self.tables[around]);
        if is_off
            && name.strip_prefix(&around.name).is_some_and(|rest| rest.starts_with('.'))
            && let Some(before) = around.entries.last_mut()
        {
            before.prose.append(&mut said);
        }
        let table = &mut self.tables[self.at];
        for prose in said {
            match prose {
                Prose::Item(names, text) if names.split(", ").all(is_key) => {
                    // What announces a list names what is in it.
                    if let Some(Prose::Paragraph(list)) = table.prose.last_mut() {
                        match list.chars().last() {
                            Some(':') => *list += &format!(" `{names}`"),
                            Some('`') => *list += &format!(", `{names}`"),
                            _ => {}
                        }
                    }
                    let names = names.split(", ").map(str::to_owned).collect();
                    table.entries.push(Entry {
                        names,
                        lines: Vec::new(),
                        prose: vec![Prose::Paragraph(text)],
                    });
                }
                other => table.prose.push(other),
            }
        }
        self.before = None;
    }

    fn setting(&mut self, name: &str, setting: &str, behind: &str) {
        let mut said = prose(&std::mem::take(&mut self.pending));
        if !behind.is_empty() {
            said.push(Prose::Paragraph(behind.to_owned()));
        }
        let entries = &mut self.tables[self.at].entries;
        let known = entries.iter().position(|entry| entry.names.iter().any(|known| known == name));
        let at = match (known, self.before) {
            (Some(known), _) => {
                let entry = &mut entries[known];
                if entry.lines.is_empty() || !said.is_empty() {
                    entry.lines.push(setting.to_owned());
                }
                entry.prose.extend(said);
                known
            }
            // What is said of the setting above is said of this one too.
            (None, Some(before)) if said.is_empty() && self.was_new => {
                entries[before].names.push(name.to_owned());
                entries[before].lines.push(setting.to_owned());
                before
            }
            _ => {
                let (names, lines) = (vec![name.to_owned()], vec![setting.to_owned()]);
                entries.push(Entry { names, lines, prose: said });
                entries.len() - 1
            }
        };
        self.before = Some(at);
        self.was_new = known.is_none() && behind.is_empty();
        self.goes_on = setting.ends_with(',');
    }
}

/// `[table]`, `[[table]]` or, of a table that is off, `#[table]`.
fn header(line: &str) -> Option<&str> {
    let header = line.strip_prefix('#').unwrap_or(line);
    let end = header.rfind(']')?;
    let name = header[..=end].trim_matches(['[', ']']);
    (header.starts_with('[') && name.split('.').all(is_key)).then_some(&header[..=end])
}

/// A key, its whole setting as it is written, and what stands behind it.
fn setting(line: &str) -> Option<(&str, &str, &str)> {
    let written = line.strip_prefix('#').unwrap_or(line);
    let (name, _) = written.split_once(" = ")?;
    if !is_key(name) {
        return None;
    }
    let mut quoted = false;
    let comment = line.char_indices().skip(1).find(|(_, character)| {
        quoted ^= *character == '"';
        *character == '#' && !quoted
    });
    let (setting, behind) = line.split_at(comment.map_or(line.len(), |(at, _)| at));
    Some((name, setting.trim_end(), behind.trim_start_matches('#').trim()))
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Lines of comment as paragraphs and lists.
fn prose(lines: &[String]) -> Vec<Prose> {
    let mut said: Vec<Prose> = Vec::new();
    // Whether the line goes on with what the one before began.
    let mut open = false;
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim_start_matches('#');
        let indent = text.len() - text.trim_start().len();
        let text = text.trim().trim_start_matches("--- ");
        let next = lines.get(at + 1).map_or(0, |next| next.len() - next.trim_start_matches(['#', ' ']).len());
        let item = text.split_once("  ").filter(|(word, _)| word.len() < 60);
        match (item, said.last_mut()) {
            _ if text.is_empty() => open = false,
            (Some((word, rest)), _) if indent <= 3 => {
                said.push(Prose::Item(word.trim().to_owned(), rest.trim().to_owned()));
                open = true;
            }
            // A word that is too long for its column has its text on the next line.
            (None, _) if next > 10 && (indent == 3 || (indent == 1 && text.starts_with(['{', '"']))) => {
                said.push(Prose::Item(text.to_owned(), String::new()));
                open = true;
            }
            (_, Some(Prose::Item(_, rest))) if indent > 3 && open => join(rest, text),
            (_, _) if indent == 3 => said.push(Prose::Code(text.to_owned())),
            (_, Some(Prose::Paragraph(paragraph))) if open => join(paragraph, text),
            _ => {
                said.push(Prose::Paragraph(text.to_owned()));
                open = true;
            }
        }
    }
    said
}

impl TableSaid {
    /// As the file writes it.
    fn shown(&self) -> String {
        match (self.name.as_str(), self.repeats) {
            ("", _) => "above all tables".to_owned(),
            (name, true) => format!("`[[{name}]]`"),
            (name, false) => format!("`[{name}]`"),
        }
    }

    fn heading(&self) -> String {
        match self.name.as_str() {
            "" => "Above all tables".to_owned(),
            _ => format!("Table {}", self.shown()),
        }
    }

    fn written(&self, reloads: &[(String, String)]) -> String {
        let mut text = format!("\n## {}\n", self.heading());
        text += &shown(&self.prose);
        for entry in &self.entries {
            text += &format!("\n### {}\n", title(self, entry));
            if !entry.lines.is_empty() {
                text += &format!("\n```toml\n{}\n```\n", entry.lines.join("\n"));
            }
            text += &shown(&entry.prose);
            text += &on_reload(&self.name, entry, reloads);
        }
        text
    }
}

/// What a reload of a setting comes to, where it is not what it comes to of most.
fn on_reload(table: &str, entry: &Entry, reloads: &[(String, String)]) -> String {
    let key = |name: &String| {
        [table, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
    };
    let effect = entry.names.iter().map(key).find_map(|key| reloads.iter().find(|(known, _)| *known == key));
    match effect.map(|(_, effect)| effect.as_str()) {
        Some("Restart") => "\nA change needs a restart: a reload refuses it.\n".to_owned(),
        Some("NextConnection") => "\nA reload changes it for the next connection.\n".to_owned(),
        _ => String::new(),
    }
}

/// The table of keys in `settings/reload/mod.rs`: each key with its effect.
fn reloads(source: &str) -> Vec<(String, String)> {
    let of_line = |line: &str| {
        let (key, rest) = line.trim().strip_prefix("(\"")?.split_once("\", ")?;
        let effect = rest.strip_suffix("),")?.rsplit(", ").next()?;
        let known = matches!(effect, "Restart" | "NextConnection" | "InFlight");
        known.then(|| (key.replace(".x.", ".NAME."), effect.to_owned()))
    };
    let reloads: Vec<_> = source.lines().filter_map(of_line).collect();
    assert!(reloads.len() > 100, "the reader found {reloads:?}");
    reloads
}

fn title(table: &TableSaid, entry: &Entry) -> String {
    let full = |name: &String| match table.name.as_str() {
        "" => format!("`{name}`"),
        table => format!("`{table}.{name}`"),
    };
    entry.names.iter().map(full).collect::<Vec<_>>().join(", ")
}

fn link(table: &TableSaid, entry: &Entry) -> String {
    let to = anchor(&title(table, entry));
    entry.names.iter().map(|name| format!("[{name}](#{to})")).collect::<Vec<_>>().join(", ")
}

fn anchor(heading: &str) -> String {
    super::links::anchor(heading)
}

/// Prose as Markdown.
fn shown(prose: &[Prose]) -> String {
    let mut text = String::new();
    let mut in_list = false;
    for said in prose {
        let is_item = matches!(said, Prose::Item(..));
        if !(in_list && is_item) {
            text.push('\n');
        }
        in_list = is_item;
        match said {
            Prose::Paragraph(paragraph) => text += &format!("{}\n", marked(&sentence(paragraph))),
            Prose::Item(word, rest) => text += &format!("- `{word}`: {}\n", marked(rest)),
            Prose::Code(code) => text += &format!("```toml\n{code}\n```\n"),
        }
    }
    text
}

/// With a capital at its beginning, and a full stop.
fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', ':', '?']) { "" } else { "." };
    capitalized(text) + end
}

/// Plain text as Markdown: quoted words, lists, tables and keys with values are code, and nothing else has a meaning.
fn marked(text: &str) -> String {
    let mut marked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => rest[1..].find('"').map(|end| end + 2),
            '[' | '{' => closing(rest),
            '`' => rest[1..].find('`').map(|end| end + 2),
            _ => None,
        };
        match length {
            Some(length) if first == '`' => {
                marked += &rest[..length];
                rest = &rest[length..];
            }
            Some(length) => {
                marked += &format!("`{}`", &rest[..length]);
                rest = &rest[length..];
            }
            None => {
                let within =
                    marked.ends_with(char::is_alphanumeric) && rest[1..].starts_with(char::is_alphanumeric);
                if matches!(first, '*' | '<' | '[' | ']' | '\\') || (first == '_' && !within) {
                    marked.push('\\');
                }
                marked.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    marked
}

/// The length of a bracket with all that is in it.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quoted = false;
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + character.len_utf8());
        }
    }
    None
}

#[test]
fn the_forms_of_the_example_are_read() {
    let text = "# Of the file.\n\n# Of it.\nthreads = 0\n# ------\n# Of the table.\n#   a, b  both\n#         of them\n\n[[t]]\nc = \"#\" # of c\n        # more\n\
                # Above.\n#a = 1\n\nd = 2\n";
    let tables = Reader::read(text);
    let [top, table] = &tables[..] else { panic!("{tables:#?}") };
    assert_eq!(top.entries[0].prose, [Prose::Paragraph("Of it.".to_owned())]);
    assert_eq!(table.prose, [Prose::Paragraph("Of the table.".to_owned())]);
    let names: Vec<_> = table.entries.iter().map(|entry| entry.names.join(" ")).collect();
    assert_eq!(names, ["a b", "c", "d"]);
    let said = |entry: usize| shown(&table.entries[entry].prose);
    assert_eq!((said(0).as_str(), said(1).as_str()), ("\nBoth of them.\n\nAbove.\n", "\nOf c more.\n"));
    assert_eq!(table.entries[0].lines, ["#a = 1"]);
    assert_eq!(marked("a * of [\"x\", [y]] and {q}"), "a \\* of `[\"x\", [y]]` and `{q}`");
}
