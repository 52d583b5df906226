//! `docs/reasons.md`: every word by which Cache-Status, logs, metrics and `edge explain` say why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use gatehouse_tests::binaries::repository;

use super::{
    head, holds, row,
    source::{arms, body_of, join, literal, variants},
    source_of,
};

const INTRODUCTION: &str = "# Reason words

One word says why a request was answered as it was. The same word stands in `detail` of Cache-Status (RFC 9211), in `detail` of \
[the access log](log-fields.md), in `gatehouse_edge_reasons_total` and in what `edge explain` prints. Words are stable: a change of \
one stands in the changelog.

```sh
curl -sI https://shop.example/products | grep -i cache-status          # gatehouse; hit; ttl=59
edge explain --config edge.toml https://shop.example/products          # the word, what it rests on, and what would change it
```
";

/// Words that are no variant of an enum.
const OTHERS: &[(&str, &str)] = &[
    ("acme-challenge", "The proof that an authority asks for before it certifies a name; the edge answered."),
    (
        "cors",
        "A browser asked beforehand whether a script of another site may send a request; the edge answered.",
    ),
    (
        "forward-auth",
        "The upstream of `forward_auth` did not let the request on: its own answer is the client's.",
    ),
    ("max-forwards", "OPTIONS that was to go no further (`Max-Forwards: 0`); the edge answered."),
    ("purge", "A purge by a plugin, on a public listener."),
    ("redirect", "The route's `redirect`."),
    ("respond", "The route's `respond`."),
];

const PHASES: &[(&str, &str)] = &[
    ("choose", "a server is chosen: none is good, or no instance of a command is ready"),
    ("wait", "it waits for a place among the server's `connections`"),
    ("resolve", "the server's name is looked up"),
    ("connect", "a connection is made"),
    ("tls", "TLS is agreed on"),
    ("send", "the request is sent"),
    ("first-byte", "the request is with the server; no answer has begun"),
    ("head", "the answer's head has come, and is no good"),
    ("body", "the answer's body broke off, or paused for too long"),
];

#[test]
fn the_page_of_reasons_has_every_word() {
    let mut text = INTRODUCTION.to_owned();
    text += "\n## What the cache did\n\n`cache` of the access log and of `gatehouse_edge_requests_total`.\n";
    text += &verdicts();
    text += &reasons(&source_of("edge/policy/src/reason.rs"));
    text += "\n## What the edge refuses by itself\n\nThe answer is problem+json for programs and a page for browsers.\n";
    text += &refusals();
    text += "\n## What upstreams fail with\n\nThe client gets a stale answer where one may stand in; else this status.\n";
    text += &failures();
    text += "\n## Phases of a request to an upstream\n\n`phase` of the access log, of error answers and of \
             `gatehouse_edge_upstream_failures_total`: how far a request had come when it failed.\n";
    text += &phases();
    text += "\n## Other answers of the edge\n";
    text += &others();
    text += "\n## What is cut off\n\n`reason` of `gatehouse_edge_cut_off_total`; `cut` of the access log, where an answer was under way.\n";
    text += &cut_off();
    text +=
        "\n## PROXY headers that are refused\n\n`reason` of `gatehouse_edge_proxy_headers_refused_total`.\n";
    text += &of_enum("edge/src/downstream/proxy_protocol.rs", "pub enum NotIntroduced", "const fn word");
    text += "\n## Bodies that are continued\n\n`outcome` of `gatehouse_edge_upstream_continuations_total`: `continued`, or why a body that broke \
             off could not be.\n";
    text += &of_enum("edge/src/fetch/resume.rs", "pub enum CannotResume", "pub fn detail");
    holds("reasons.md", "the enums of the edge", &text);
}

fn verdicts() -> String {
    of_enum("edge/src/observe/verdict.rs", "pub enum Verdict", "pub const fn as_str")
}

/// Two columns: each word of an enum, and what it means.
fn of_enum(path: &str, declaration: &str, words: &str) -> String {
    let source = source_of(path);
    let words = values(&arms(&source, words));
    let mut rows = Vec::new();
    for variant in variants(&source, declaration) {
        let word = words.get(&variant.name).and_then(|values| literal(&values[0]));
        let word = word.unwrap_or_else(|| panic!("{path}: {} has no word", variant.name));
        add(&mut rows, vec![format!("`{word}`")], variant.meaning);
    }
    head(&["word", "means"]) + &written(&rows)
}

/// A row: its first cells, and what it means.
type Row = (Vec<String>, String);

/// Two variants may have one word.
fn add(rows: &mut Vec<Row>, cells: Vec<String>, meaning: String) {
    match rows.iter_mut().find(|(known, _)| *known == cells) {
        Some((_, known)) => join(known, &format!("Or: {meaning}")),
        None => rows.push((cells, meaning)),
    }
}

fn written(rows: &[Row]) -> String {
    let of = |(cells, meaning): &Row| {
        let cells: Vec<&str> = cells.iter().map(String::as_str).chain([meaning.as_str()]).collect();
        row(&cells)
    };
    rows.iter().map(of).collect()
}

/// The macro `reasons!`: its comments are headings, its doc comments meanings.
fn reasons(source: &str) -> String {
    let (mut text, mut meaning, mut words) = (String::new(), String::new(), 0);
    for line in body_of(source, "reasons! {").lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("/// ") {
            join(&mut meaning, words);
        } else if let Some(heading) = line.strip_prefix("// ") {
            text += &format!("\n## {}\n{}", heading.trim_end_matches('.'), head(&["word", "means"]));
        } else if let Some((_, word)) = line.split_once(" => ") {
            let word = literal(word.trim_end_matches(',')).unwrap();
            text += &row(&[&format!("`{word}`"), &with_rfc(&meaning)]);
            meaning.clear();
            words += 1;
        }
    }
    assert!(words > 40, "the reader found {words} reasons");
    text
}

/// A section alone is one of RFC 9111, which the source need not say.
fn with_rfc(meaning: &str) -> String {
    meaning.replacen("(§", "(RFC 9111 §", 1)
}

fn refusals() -> String {
    let source = source_of("edge/src/request/refusal.rs");
    let (status, word) = (values(&arms(&source, "pub fn status")), values(&arms(&source, "pub fn detail")));
    let mut text = head(&["word", "status", "means"]);
    for variant in variants(&source, "pub enum Refusal") {
        let Some(word) = word.get(&variant.name).and_then(|values| literal(&values[0])) else { continue };
        text += &row(&[&format!("`{word}`"), &statuses(&status[&variant.name]), &variant.meaning]);
    }
    text
}

fn failures() -> String {
    let source = source_of("edge/src/message/failure.rs");
    let of = |signature| values(&arms(&source, signature));
    let (status, word, phase) = (of("pub fn status"), of("pub fn detail"), of("pub fn phase"));
    let mut rows = Vec::new();
    for variant in variants(&source, "pub enum Failure") {
        let said =
            |of: &BTreeMap<String, Vec<String>>| format!("`{}`", literal(&of[&variant.name][0]).unwrap());
        let cells = vec![said(&word), statuses(&status[&variant.name]), said(&phase)];
        add(&mut rows, cells, variant.meaning);
    }
    head(&["word", "status", "phase", "means"]) + &written(&rows)
}

fn phases() -> String {
    let source = source_of("edge/src/message/failure.rs") + &source_of("edge/src/message/body_error.rs");
    for (phase, _) in PHASES {
        assert!(source.contains(&format!("\"{phase}\"")), "no failure is in the phase {phase:?} any more");
    }
    for (_, value) in arms(&source, "pub fn phase") {
        let phase = literal(&value).unwrap();
        assert!(PHASES.iter().any(|(known, _)| *known == phase), "say in PHASES what {phase:?} means");
    }
    let rows = PHASES.iter().map(|(phase, meaning)| row(&[&format!("`{phase}`"), meaning]));
    head(&["phase", "when"]) + &rows.collect::<String>()
}

/// The words that stand in the pipeline itself.
fn others() -> String {
    let mut found = BTreeSet::new();
    for (path, text) in sources("edge/src/pipeline").chain(sources("edge/src/response")) {
        let code = text.split("#[cfg(test)]").next().unwrap();
        let mut before = vec!["detail: Some(\"", "Answer::stated(response, \""];
        if path.ends_with("stated.rs") {
            before.push("), \"");
        }
        for before in before {
            found.extend(
                code.split(before).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
            );
        }
    }
    let told: BTreeSet<String> = OTHERS.iter().map(|(word, _)| (*word).to_owned()).collect();
    assert_eq!(found, told, "say in OTHERS what these mean (left: those of the code)");
    let rows = OTHERS.iter().map(|(word, meaning)| row(&[&format!("`{word}`"), meaning]));
    head(&["word", "means"]) + &rows.collect::<String>()
}

/// The words with which `cut_off` is called: constants, with a comment each.
fn cut_off() -> String {
    let all: Vec<(String, String)> = sources("edge/src").collect();
    let names: BTreeSet<&str> = all
        .iter()
        .flat_map(|(_, text)| text.split(".cut_off(").skip(1))
        .filter_map(|rest| rest.split(')').next())
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !name.is_empty())
        // These two are told by one call, which has either.
        .chain(["STREAM_RATE", "CONTROL_FRAMES"])
        .collect();
    let mut words = BTreeMap::new();
    for name in names {
        let declared = format!("const {name}: &str = ");
        let (text, at) = all
            .iter()
            .find_map(|(_, text)| Some((text, text.find(&declared)?)))
            .unwrap_or_else(|| panic!("no {declared}"));
        let word = text[at + declared.len()..].split(';').next().and_then(literal).unwrap();
        let mut above: Vec<&str> = text[..at]
            .lines()
            .rev()
            .skip_while(|line| !line.starts_with("///"))
            .take_while(|line| line.starts_with("///"))
            .collect();
        above.reverse();
        let mut meaning = String::new();
        above.iter().for_each(|line| join(&mut meaning, line.trim_start_matches("///")));
        words.insert(word.to_owned(), meaning);
    }
    assert!(words.len() > 4, "the reader found {words:?}");
    let rows = words.iter().map(|(word, meaning)| row(&[&format!("`{word}`"), meaning]));
    head(&["word", "means"]) + &rows.collect::<String>()
}

/// Every value that the arms have for a variant.
fn values(arms: &[(Vec<String>, String)]) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (names, value) in arms {
        for name in names {
            let of_name = values.entry(name.clone()).or_default();
            if !of_name.contains(value) {
                of_name.push(value.clone());
            }
        }
    }
    values
}

fn statuses(values: &[String]) -> String {
    let number = |value: &String| match value.rsplit("::").next().unwrap() {
        "BAD_REQUEST" => "400",
        "UNAUTHORIZED" => "401",
        "FORBIDDEN" => "403",
        "NOT_FOUND" => "404",
        "METHOD_NOT_ALLOWED" => "405",
        "REQUEST_TIMEOUT" => "408",
        "PAYLOAD_TOO_LARGE" => "413",
        "URI_TOO_LONG" => "414",
        "MISDIRECTED_REQUEST" => "421",
        "TOO_MANY_REQUESTS" => "429",
        "REQUEST_HEADER_FIELDS_TOO_LARGE" => "431",
        "INTERNAL_SERVER_ERROR" => "500",
        "NOT_IMPLEMENTED" => "501",
        "BAD_GATEWAY" => "502",
        "SERVICE_UNAVAILABLE" => "503",
        "GATEWAY_TIMEOUT" => "504",
        "HTTP_VERSION_NOT_SUPPORTED" => "505",
        other => panic!("teach this reader the number of {other}"),
    };
    values.iter().map(number).collect::<Vec<_>>().join(", ")
}

/// All sources below a folder, by path.
fn sources(folder: &str) -> impl Iterator<Item = (String, String)> {
    let mut found = Vec::new();
    collect(&repository().join(folder), &mut found);
    found.sort();
    found.into_iter()
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}
