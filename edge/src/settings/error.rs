//! What is wrong with a file of settings, shown the way a compiler shows it.
//!
//! ```text
//! config/edge.toml:12:1: unknown key "uptream"
//! 12 | uptream = "origin"
//!    | ^^^^^^^
//!    = help: did you mean "upstream"?
//! ```

use std::{fmt, io, ops::Range, path::PathBuf, sync::Arc};

use super::texts::SourceTexts;

/// Why a file gave no [`Settings`](super::Settings). Its `Display` is meant for the operator: one fault after another in
/// the file's order, each with place, line, caret and remedy; without a final newline.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file could not be read at all.
    #[error("{}: cannot be read: {source}\n   = help: name the file with --config FILE", path.display())]
    Unreadable {
        /// As given on the command line.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file was read and is wrong.
    #[error("{0}")]
    Refused(Faults),
}

/// All that is wrong with a file and those that it includes, at least one fault.
#[derive(Debug)]
pub struct Faults {
    texts: Arc<SourceTexts>,
    faults: Vec<Fault>,
}

/// One thing in a file that is no fault, and hardly meant. Its `Display` shows it as a fault is shown.
#[derive(Debug)]
pub struct Warning(Faults);

impl Warning {
    /// In the file's order.
    pub(super) fn each(texts: &Arc<SourceTexts>, doubts: Vec<Fault>) -> Vec<Warning> {
        let mut doubts = doubts;
        doubts.sort_by_key(|doubt| doubt.span.start);
        doubts.into_iter().map(|doubt| Warning(Faults::new(texts, vec![doubt]))).collect()
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes of the files, joined.
pub(super) type Span = Range<usize>;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Bytes to point at.
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Faults {
    /// Puts the faults into the file's order.
    pub(super) fn new(texts: &Arc<SourceTexts>, mut faults: Vec<Fault>) -> Faults {
        faults.sort_by_key(|fault| fault.span.start);
        Faults { texts: Arc::clone(texts), faults }
    }

    pub fn count(&self) -> usize {
        self.faults.len()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            self.show(fault, f)?;
        }
        Ok(())
    }
}

impl Faults {
    fn show(&self, fault: &Fault, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, place) = self.texts.position(fault.span.start);
        let Fault { message, .. } = fault;
        writeln!(f, "{name}:{}:{}: {message}", place.line, place.column)?;

        // Tabs stay, so that the caret's line is indented like the line above it; other characters that would move a
        // terminal's cursor do not.
        let visible =
            |character: char| if character.is_control() && character != '\t' { ' ' } else { character };
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        let source: String = place.text.chars().map(visible).collect();
        let before: String = place.text.chars().take(place.column - 1).collect();
        let indent: String =
            before.chars().map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
        let rest = &place.text[before.len()..];
        let marked = rest.char_indices().take_while(|(at, _)| fault.span.start + at < fault.span.end).count();
        write!(f, "{number} | {}\n{gutter} | {indent}{}", source.trim_end(), "^".repeat(marked.max(1)))?;
        if let Some(help) = &fault.help {
            write!(f, "\n{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let fault = Fault { span, message: "wrong".into(), help: None };
        Faults::new(&Arc::new(SourceTexts::of("f", text)), vec![fault]).to_string()
    }

    #[test]
    fn columns_count_characters_and_tabs_keep_the_caret_in_place() {
        assert_eq!(shown("a = 1\n\tä = bad", 12..15), "f:2:6: wrong\n2 | \tä = bad\n  | \t    ^^^");
    }

    #[test]
    fn a_span_over_several_lines_is_marked_to_the_end_of_its_first() {
        assert_eq!(shown("x = [\n 1,\n]", 4..11), "f:1:5: wrong\n1 | x = [\n  |     ^");
    }

    #[test]
    fn the_end_of_the_file_has_a_place_too() {
        assert_eq!(shown("x =", 3..3), "f:1:4: wrong\n1 | x =\n  |    ^");
        assert_eq!(shown("", 0..0), "f:1:1: wrong\n1 | \n  | ^");
    }

    proptest! {
        #[test]
        fn no_span_makes_it_panic(text in "\\PC{0,40}\n?\\PC{0,40}", start in 0usize..200, length in 0usize..200) {
            let _ = shown(&text, start..start + length);
        }
    }
}
