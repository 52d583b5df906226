//! Text of others as logs show it: nothing in it may act on a terminal, or make a line read as another one.

use std::{borrow::Cow, fmt::Write as _};

/// Whether a character is no visible one: a control; a line or paragraph separator; or a format character, such as those by
/// which text runs from right to left ("Trojan Source", CVE-2021-42574), is of no width, or a tag.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Writes a character as JSON escapes it (RFC 8259 §7).
pub fn escape(line: &mut String, character: char) {
    let mut units = [0; 2];
    for unit in character.encode_utf16(&mut units) {
        // Writing to a String cannot fail.
        let _ = write!(line, "\\u{unit:04x}");
    }
}

/// A whole line with what is not visible beyond ASCII escaped. ASCII's controls are left: a line ends with one, and colours are
/// made of them, and whoever wrote the line has escaped those of others.
pub fn line(text: &str) -> Cow<'_, str> {
    let hidden = |character: char| !character.is_ascii() && is_hidden(character);
    if text.is_ascii() || !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if hidden(character) { escape(&mut shown, character) } else { shown.push(character) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_line_read_as_another_is_escaped() {
        assert_eq!(line("caf\u{e9} \u{202e}dessap\n"), "caf\u{e9} \\u202edessap\n");
        assert_eq!(line("\u{e0041}\u{9b}31m"), "\\udb40\\udc41\\u009b31m");
        assert!(matches!(line("日本 😀\n"), Cow::Borrowed(_)));
    }
}
