//! `docs/log-fields.md`: the fields of a line of the access log. What each holds, the comment says that stands where it is written.

use std::collections::BTreeSet;

use super::{
    head, holds, row,
    source::{body_of, capitalized, join},
    source_of,
};

const RECORD: &str = "edge/src/observe/record.rs";

const INTRODUCTION: &str = "# The access log

One line a request on standard output, written when its answer has ended or its client has gone. `[log] format` says how: `json`, \
`pretty` for people, or `off`. What the edge says of itself (starts, reloads, failures of servers) goes to standard error, with what \
its commands print.

A line has neither field values nor content of requests, but the target with its query: an app that puts secrets into URLs finds them \
there. What is not visible (controls, characters that turn the direction of text) is escaped. Lines that cannot be written in time are \
dropped and counted: `gatehouse_edge_log_lines_dropped_total`.

```json
{\"time\":\"2026-11-28T09:58:16.801Z\",\"client\":\"127.0.0.1\",\"method\":\"GET\",\"scheme\":\"https\",\"host\":\"localhost:8443\",
 \"target\":\"/products\",\"version\":\"2\",\"status\":200,\"bytes\":41,\"cache\":\"miss\",\"detail\":\"miss\",\"route\":\"app\",
 \"head_ms\":121.589,\"total_ms\":121.624,\"upstream_ms\":118.204,\"request_id\":\"c0282d19e38cab7b57db03b5090182e0\"}
```

(In the log it is one line.) The slowest answers that came from an upstream, and why requests went there:

```sh
jq -r 'select(.upstream_ms) | [.upstream_ms, .method, .host + .target] | @tsv' access.log | sort -rn | head
jq -r 'select(.cache != \"hit\") | [.route, .cache, .detail] | @tsv' access.log | sort | uniq -c | sort -rn | head
```

## Fields

Where a field says *where*, it is not in every line.
";

#[test]
fn the_page_of_log_fields_is_what_a_line_holds() {
    let source = source_of(RECORD);
    let body = body_of(&source, "fn json(&self");
    let said = said(body);
    let written = written(body);
    let missing: Vec<_> =
        written.iter().filter(|name| !said.iter().any(|(field, _)| field == *name)).collect();
    assert!(missing.is_empty(), "{RECORD}: `// NAME: what it holds` is missing above {missing:?}");
    let idle: Vec<_> = said.iter().filter(|(field, _)| !written.contains(field)).collect();
    assert!(idle.is_empty(), "{RECORD} explains what it does not write: {idle:?}");
    let rows = said.iter().map(|(name, meaning)| row(&[&format!("`{name}`"), &capitalized(meaning)]));
    let text =
        [INTRODUCTION.to_owned(), head(&["field", "holds"])].into_iter().chain(rows).collect::<String>();
    holds("log-fields.md", RECORD, &text);
}

/// `// name: what it holds`, and the lines of comment below it.
fn said(body: &str) -> Vec<(String, String)> {
    let mut said: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in body.lines().map(str::trim) {
        let Some(comment) = line.strip_prefix("// ") else {
            open = false;
            continue;
        };
        let named = comment.split_once(": ").filter(|(name, _)| is_name(name));
        match (named, said.last_mut()) {
            (Some((name, meaning)), _) => {
                said.push((name.to_owned(), meaning.to_owned()));
                open = true;
            }
            (None, Some((_, meaning))) if open => join(meaning, comment),
            _ => {}
        }
    }
    said
}

/// The names before a colon in what is written, where a name stands between escaped quotes.
fn written(body: &str) -> BTreeSet<String> {
    let names = body.split("\\\"").collect::<Vec<_>>();
    let pairs = names.windows(2).filter(|pair| pair[1].starts_with(':') && is_name(pair[0]));
    pairs.map(|pair| pair[0].to_owned()).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn fields_and_what_is_said_of_them_are_read() {
    let body = "// client: who\n// asks.\nwrite!(line, \",\\\"client\\\":\\\"{}\\\"\", x);\n// Why not.\n";
    assert_eq!(said(body), [("client".to_owned(), "who asks.".to_owned())]);
    assert_eq!(written(body).into_iter().collect::<Vec<_>>(), ["client"]);
}
