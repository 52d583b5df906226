//! So much of Rust's grammar as the tables of the sources need that the book is made of. They are formatted by rustfmt: where a
//! thing begins and ends, its indentation tells.

/// From the line that holds `signature` to the brace that closes it.
#[track_caller]
pub(super) fn body_of<'a>(text: &'a str, signature: &str) -> &'a str {
    let at =
        text.find(signature).unwrap_or_else(|| panic!("no {signature:?} in the source: say where it is now"));
    let from = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let indent = text[from..].len() - text[from..].trim_start_matches(' ').len();
    let close = format!("\n{}}}", " ".repeat(indent));
    let length = text[from..].find(&close).unwrap_or_else(|| panic!("{signature:?} has no end"));
    &text[from..from + length]
}

/// A variant of an enum, and what its comment says, or else its error's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) meaning: String,
}

/// All variants of an enum.
#[track_caller]
pub(super) fn variants(text: &str, declaration: &str) -> Vec<Variant> {
    let mut variants = Vec::new();
    let (mut comment, mut error) = (String::new(), String::new());
    for line in body_of(text, declaration).lines().skip(1) {
        let Some(item) = line.strip_prefix("    ").filter(|item| !item.starts_with(' ')) else {
            // An error's text on a line of its own.
            if let Some((_, rest)) = line.split_once('"').filter(|_| error == "…") {
                error = rest.trim_end_matches('"').to_owned();
            }
            continue;
        };
        if let Some(words) = item.strip_prefix("/// ") {
            join(&mut comment, words);
        } else if let Some(rest) = item.strip_prefix("#[error(") {
            error = rest.split('"').nth(1).unwrap_or("…").to_owned();
        } else if item.starts_with(|first: char| first.is_ascii_uppercase()) {
            let name: String = item.chars().take_while(char::is_ascii_alphanumeric).collect();
            let meaning = if comment.is_empty() { capitalized(&error) + "." } else { comment.clone() };
            variants.push(Variant { name, meaning });
            comment.clear();
            error.clear();
        }
    }
    variants
}

/// The arms of a `match self` in a function: the variants that an arm is for, and its value.
#[track_caller]
pub(super) fn arms(text: &str, signature: &str) -> Vec<(Vec<String>, String)> {
    let body = body_of(text, signature);
    let start = body.find("match self {").unwrap_or_else(|| panic!("{signature:?} has no match")) + 12;
    let mut arms = Vec::new();
    let mut rest = &body[start..];
    while let Some(arrow) = rest.find("=>") {
        let (pattern, value) = (&rest[..arrow], &rest[arrow + 2..]);
        let end = end_of_argument(value);
        let names = pattern.split("Self::").skip(1);
        let names = names.map(|name| name.chars().take_while(char::is_ascii_alphanumeric).collect());
        arms.push((names.collect(), value[..end].trim().to_owned()));
        rest = value.get(end + 1..).unwrap_or_default();
    }
    arms
}

/// What a call is given, from behind its opening parenthesis.
pub(super) fn arguments(text: &str) -> Vec<&str> {
    let mut arguments = Vec::new();
    let mut rest = text;
    loop {
        let end = end_of_argument(rest);
        arguments.push(rest[..end].trim());
        match rest.as_bytes().get(end) {
            Some(b',') => rest = &rest[end + 1..],
            _ => break,
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    arguments
}

/// Where an argument, an arm's value or an element ends: at a comma or a closing bracket that is not of its own.
fn end_of_argument(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_i32, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return at,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// A string literal's text.
pub(super) fn literal(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// Adds words behind others.
pub(super) fn join(text: &mut String, words: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(words.trim());
}

/// With a capital at its beginning.
pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[test]
fn variants_arms_and_arguments_are_read() {
    let text = "pub enum A {\n    /// One\n    /// thing.\n    One(u8),\n    #[error(\"two, {0}\")]\n    Two {\n        a: u8,\n    },\n}\n\
                impl A {\n    fn word(&self) -> &str {\n        match self {\n            Self::One(_)\n            | Self::Two { .. } => \"a, b\",\n        }\n    }\n}\n";
    let variant = |name: &str, meaning: &str| Variant { name: name.to_owned(), meaning: meaning.to_owned() };
    assert_eq!(variants(text, "pub enum A"), [variant("One", "One thing."), variant("Two", "Two, {0}.")]);
    let names = ["One", "Two"].map(str::to_owned).to_vec();
    assert_eq!(arms(text, "fn word"), [(names, "\"a, b\"".to_owned())]);
    assert_eq!(arguments("\"a, \\\"b\", f(c, d), [e], ) rest"), ["\"a, \\\"b\"", "f(c, d)", "[e]"]);
}
