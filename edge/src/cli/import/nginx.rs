//! nginx's file, as its directives: no meaning yet.

/// `name args.. ;`, or with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NginxDirective {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) block: Option<Vec<NginxDirective>>,
}

impl NginxDirective {
    pub(super) fn arg(&self, place: usize) -> &str {
        self.args.get(place).map_or("", String::as_str)
    }

    /// As one reads it.
    pub(super) fn shown(&self) -> String {
        [std::slice::from_ref(&self.name), &self.args].concat().join(" ")
    }

    pub(super) fn inner(&self) -> &[NginxDirective] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Reads a whole file.
///
/// # Errors
/// It is no such file: with the line.
pub(super) fn read(text: &str) -> Result<Vec<NginxDirective>, String> {
    let words = words(text)?;
    let mut rest = words.as_slice();
    let read = block(&mut rest, 0)?;
    match rest.first() {
        Some(word) => Err(format!("line {}: a }} too much", word.line)),
        None => Ok(read),
    }
}

struct Word {
    line: usize,
    text: String,
    is_quoted: bool,
}

impl Word {
    fn is(&self, sign: &str) -> bool {
        !self.is_quoted && self.text == sign
    }
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let (mut words, mut line) = (Vec::new(), 1);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => line += 1,
            letter if letter.is_whitespace() => {}
            '#' => while letters.next_if(|letter| *letter != '\n').is_some() {},
            '{' | '}' | ';' => words.push(Word { line, text: letter.to_string(), is_quoted: false }),
            '"' | '\'' => {
                let (begins, mut quoted) = (line, String::new());
                loop {
                    match letters.next() {
                        None => return Err(format!("line {begins}: a quotation without end")),
                        Some('\\') => quoted.extend(letters.next()),
                        Some(end) if end == letter => break,
                        Some(other) => {
                            line += usize::from(other == '\n');
                            quoted.push(other);
                        }
                    }
                }
                words.push(Word { line: begins, text: quoted, is_quoted: true });
            }
            letter => {
                let mut word = letter.to_string();
                let mut within = letter == '$' && letters.peek() == Some(&'{');
                while let Some(next) = letters
                    .next_if(|next| !next.is_whitespace() && (within || !matches!(next, ';' | '{' | '}')))
                {
                    within = (next == '$' && letters.peek() == Some(&'{')) || (within && next != '}');
                    word.push(next);
                    if next == '\\' {
                        word.extend(letters.next());
                    }
                }
                words.push(Word { line, text: word, is_quoted: false });
            }
        }
    }
    Ok(words)
}

fn block(rest: &mut &[Word], depth: usize) -> Result<Vec<NginxDirective>, String> {
    let mut directives = Vec::new();
    loop {
        let Some((first, after)) = rest.split_first() else {
            return if depth == 0 {
                Ok(directives)
            } else {
                Err("the end of the file, and a { is still open".to_owned())
            };
        };
        if first.is("}") {
            return Ok(directives);
        }
        if first.is(";") || first.is("{") {
            return Err(format!("line {}: {} where a directive should begin", first.line, first.text));
        }
        *rest = after;
        let mut args = Vec::new();
        let inner = loop {
            let Some((word, after)) = rest.split_first() else {
                return Err(format!("line {}: {} has no end: write ; or a block", first.line, first.text));
            };
            *rest = after;
            match word {
                word if word.is(";") => break None,
                word if word.is("}") => {
                    return Err(format!("line {}: {} has no ; at its end", first.line, first.text));
                }
                word if word.is("{") => {
                    if depth == DEEPEST {
                        return Err(format!("line {}: blocks within more than {DEEPEST} others", word.line));
                    }
                    let inner = block(rest, depth + 1)?;
                    *rest = rest.get(1..).unwrap_or_default();
                    break Some(inner);
                }
                word => args.push(word.text.clone()),
            }
        };
        directives.push(NginxDirective { line: first.line, name: first.text.clone(), args, block: inner });
    }
}

/// Blocks in blocks.
const DEEPEST: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_read_as_its_directives() {
        let text = "user www; # who\nserver {\n  add_header X \"a; {b}\";\n  location ~ \\.php$ { set ${a}b '$c'; }\n}\n";
        let read = read(text).unwrap();
        assert_eq!((read[0].shown(), read[0].line), ("user www".to_owned(), 1));
        let server = read[1].inner();
        assert_eq!((server[0].args.clone(), server[0].line), (vec!["X".to_owned(), "a; {b}".to_owned()], 3));
        assert_eq!(server[1].args, ["~", "\\.php$"]);
        assert_eq!(server[1].inner()[0].args, ["${a}b", "$c"]);
        for wrong in ["a", "a {", "}", "a b }", "; a", "a \"b", "{"] {
            assert!(super::read(wrong).is_err(), "{wrong}");
        }
        assert!(super::read(&"a {".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a{};\"'$\\\\# \n]{0,60}") {
            let _ = read(&text);
        }
    }
}
