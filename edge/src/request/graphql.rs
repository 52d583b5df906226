//! Whether content sent to a GraphQL service asks and changes nothing.
//!
//! Says yes only where every reader of GraphQL over HTTP would: content is JSON of one request, with no member twice and none that
//! is not known, and its document has queries and fragments alone. Whatever is odd is not for the cache, which costs a request
//! to the upstream and nothing else. Linear in the content.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, de::IgnoredAny};

/// A request as clients send it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PostedQuery<'a> {
    #[serde(borrow)]
    query: Cow<'a, str>,
    #[serde(rename = "operationName")]
    _operation_name: Option<IgnoredAny>,
    #[serde(rename = "variables")]
    _variables: Option<IgnoredAny>,
    extensions: Option<BTreeMap<String, IgnoredAny>>,
}

/// Whether content asks by queries alone.
pub fn only_asks(content: &[u8]) -> bool {
    let Ok(posted) = serde_json::from_slice::<PostedQuery<'_>>(content) else { return false };
    // The service may take a document that it knows already in place of the one that is sent.
    let other = posted.extensions.is_some_and(|extensions| extensions.contains_key("persistedQuery"));
    !other && has_queries_alone(&posted.query)
}

/// Whether a document's definitions are queries, at least one, and fragments.
fn has_queries_alone(document: &str) -> bool {
    let mut rest = document.as_bytes();
    // What is open; the outermost brace is that of a definition.
    let mut open: Vec<u8> = Vec::new();
    let (mut between, mut queries) = (true, 0);
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'#' => {
                let end = rest.iter().position(|octet| matches!(octet, b'\n' | b'\r'));
                rest = &rest[end.unwrap_or(rest.len())..];
            }
            b'"' => match after_string(after) {
                Some(after) if !between => rest = after,
                _ => return false,
            },
            b'{' | b'(' | b'[' => {
                if between && first != b'{' {
                    return false;
                }
                if between {
                    // The short form of a query.
                    (between, queries) = (false, queries + 1);
                }
                open.push(first);
            }
            b'}' | b')' | b']' => {
                let opened = match first {
                    b'}' => b'{',
                    b')' => b'(',
                    _ => b'[',
                };
                if open.pop() != Some(opened) {
                    return false;
                }
                between = open.is_empty() && first == b'}';
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let more = |octet: &u8| *octet != b'_' && !octet.is_ascii_alphanumeric();
                let (name, after) = after.split_at(after.iter().position(more).unwrap_or(after.len()));
                rest = after;
                if between {
                    match (first, name) {
                        (b'q', b"uery") => queries += 1,
                        (b'f', b"ragment") => {}
                        _ => return false,
                    }
                    between = false;
                }
            }
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {}
            b'!' | b'$' | b'&' | b'.' | b':' | b'=' | b'@' | b'|' | b'-' | b'+' | b'0'..=b'9' if !between => {
            }
            _ => return false,
        }
    }
    between && open.is_empty() && queries > 0
}

/// What stands behind a string whose first quote has been read.
fn after_string(text: &[u8]) -> Option<&[u8]> {
    if let Some(block) = text.strip_prefix(b"\"\"") {
        let mut place = 0;
        while let Some(rest) = block.get(place..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with(b"\\\"\"\"") {
                place += 4;
            } else if rest.starts_with(b"\"\"\"") {
                return Some(&rest[3..]);
            } else {
                place += 1;
            }
        }
        return None;
    }
    let mut place = 0;
    loop {
        match text.get(place)? {
            b'"' => return Some(&text[place + 1..]),
            b'\\' => place += 2,
            b'\n' | b'\r' => return None,
            _ => place += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_of_queries_alone_ask() {
        for document in [
            "{ a }",
            "query { a }",
            "query Q($a: [Int!] = [1], $b: In = {c: 1}) @x(y: \"}\") { a(b: $a) { ...F c } } fragment F on T { mutation }",
            "# mutation {\n{ a } query B { b(c: \"\"\" } mutation { \\\"\"\" \"\"\") }",
            "{ a(b: \"\\\" } mutation { c\") }",
            ",{a},query B{b}",
        ] {
            assert!(has_queries_alone(document), "{document}");
        }
    }

    #[test]
    fn whatever_else_does_not() {
        for document in [
            "",
            "fragment F on T { a }",
            "mutation { a }",
            "{ a } mutation { b }",
            "query A { a } subscription B { b }",
            "# {\rmutation { a }",
            "{ a(b: \"\"\"\"\"\") } mutation { c }",
            "{ a(b: \"\n\") }",
            "{ a(b: \") }",
            "{ a",
            "{ a } }",
            "{ a(b: [1)] }",
            "query A",
            "\"a\" { a }",
            "type T { a: Int }",
            "Query { a }",
            "{ a } \u{feff}mutation { b }",
            "é { a }",
        ] {
            assert!(!has_queries_alone(document), "{document}");
        }
    }

    #[test]
    fn content_that_servers_may_read_in_two_ways_does_not_ask() {
        for content in [
            r#"{"query":"{ a }"}"#,
            r#"{"operationName":null,"variables":{"a":1},"query":"query A { a }","extensions":{"b":1}}"#,
            r#"{"query":"{ a(b: \"\u007b\") }","variables":null}"#,
        ] {
            assert!(only_asks(content.as_bytes()), "{content}");
        }
        for content in [
            r#"[{"query":"{ a }"}]"#,
            r#"{"query":"{ a }","query":"mutation { a }"}"#,
            r#"{"query":"{ a }","Query":"mutation { a }"}"#,
            r#"{"query":"{ a }","extensions":{"persistedQuery":{"sha256Hash":"x"}}}"#,
            r#"{"extensions":{"persistedQuery":{"sha256Hash":"x"}}}"#,
            r#"{"query":"{ a }"} x"#,
            r#"{"query":["{ a }"]}"#,
            r#"{ a }"#,
            "",
        ] {
            assert!(!only_asks(content.as_bytes()), "{content}");
        }
    }

    proptest! {
        #[test]
        fn a_mutation_is_never_taken_for_a_query(before in "[ a-z{}()\"\\\\#\n,]{0,20}", after in "[ a-z{}\"]{0,10}") {
            let hidden = format!("{{ a }} {before}");
            // Only where what stands before it has been closed is it a definition.
            if has_queries_alone(&hidden) {
                let appended = format!("{hidden}\nmutation {{ b }} {after}");
                prop_assert!(!has_queries_alone(&appended), "{appended}");
            }
        }

        #[test]
        fn no_content_panics(content in prop::collection::vec(any::<u8>(), 0..60), text in "[ -~\n]{0,40}") {
            let _ = (only_asks(&content), has_queries_alone(&text));
        }
    }
}
