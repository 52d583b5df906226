//! The texts that settings are read from, and the places in them.

use std::ops::Range;

/// The texts of all files, one after the other.
#[derive(Debug)]
pub(super) struct SourceTexts {
    whole: String,
    /// Where each begins, and what it is called; the main file first.
    begins: Vec<(usize, String)>,
}

impl SourceTexts {
    pub(super) fn of(name: &str, text: &str) -> Self {
        Self { whole: text.to_owned(), begins: vec![(0, name.to_owned())] }
    }

    pub(super) fn add(&mut self, name: String, text: &str) {
        self.whole.push('\n');
        self.begins.push((self.whole.len(), name));
        self.whole.push_str(text);
    }

    /// What stands there; nothing where no text does.
    pub(super) fn get(&self, span: &Range<usize>) -> &str {
        self.whole.get(span.clone()).unwrap_or_default()
    }

    /// The file that byte `at` stands in, and where in it; past the end is the end of the last.
    pub(super) fn position(&self, at: usize) -> (&str, TextPosition<'_>) {
        let number = self.begins.partition_point(|(begin, _)| *begin <= at).saturating_sub(1);
        let (begin, name) = &self.begins[number];
        (name, TextPosition::find(self.text(number), at - begin))
    }

    /// How a fault elsewhere speaks of a place.
    pub(super) fn line(&self, span: &Range<usize>) -> String {
        let (name, place) = self.position(span.start);
        if self.begins.len() == 1 {
            format!("line {}", place.line)
        } else {
            format!("line {} of {name}", place.line)
        }
    }

    /// Each file: where it begins, and its text.
    pub(super) fn each(&self) -> impl Iterator<Item = (usize, &str)> {
        self.begins.iter().enumerate().map(|(number, (begin, _))| (*begin, self.text(number)))
    }

    /// What the main file is called.
    pub(super) fn main(&self) -> &str {
        self.begins.first().map_or("", |(_, name)| name)
    }

    fn text(&self, number: usize) -> &str {
        let end = self.begins.get(number + 1).map_or(self.whole.len(), |(begin, _)| begin - 1);
        &self.whole[self.begins[number].0..end]
    }
}

/// A position in a text.
pub(super) struct TextPosition<'a> {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// The whole line, without its end.
    pub(super) text: &'a str,
}

impl<'a> TextPosition<'a> {
    /// Where byte `at` stands; past the end is the end.
    pub(super) fn find(text: &'a str, at: usize) -> TextPosition<'a> {
        let at = text.floor_char_boundary(at);
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        TextPosition {
            line: text[..start].matches('\n').count() + 1,
            column: text[start..at].chars().count() + 1,
            text: &text[start..end],
        }
    }
}
