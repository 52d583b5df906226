//! `edge schema`: which keys there are and what each takes, as a JSON Schema, from which editors complete, explain and check.
//!
//! Keys and values are those that the reader of files knows ([`Notation`]); what is said of each is what `config/edge.toml`
//! says. Nothing that `edge check` takes is refused; what depends on other settings, or on this machine, is its alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use serde_json::{Map, Value, json};

use crate::{
    observe::say,
    settings::{self, Notation},
};

/// Prints it.
pub fn run() -> ExitCode {
    say::result(text());
    ExitCode::SUCCESS
}

/// As it is printed.
pub fn text() -> String {
    format!("{:#}", schema())
}

fn schema() -> Value {
    let whole = settings::notation();
    let Value::Object(mut schema) = Writer::new(&whole).schema("", &whole) else {
        unreachable!("a file is a table")
    };
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Settings of Gatehouse's edge"));
    Value::Object(schema)
}

const EXAMPLE: &str = include_str!("../../../config/edge.toml");

/// Any text may be, or hold, what the environment or a file says.
const VARIABLE: &str = r"\$\{";

struct Writer {
    said: BTreeMap<String, String>,
}

impl Writer {
    fn new(whole: &Notation) -> Self {
        let tables = whole.table().unwrap_or_default().iter();
        let named = tables.filter(|(_, value)| matches!(value, Notation::Named(_))).map(|(key, _)| *key);
        Self { said: descriptions(EXAMPLE, &named.collect()) }
    }

    /// Of what stands at a path of keys.
    fn schema(&self, path: &str, notation: &Notation) -> Value {
        match notation {
            Notation::Boolean => json!({ "type": "boolean" }),
            Notation::Integer(range) => {
                json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
            }
            Notation::Integers(numbers) => json!({ "enum": numbers }),
            Notation::AnyText => json!({ "type": "string" }),
            Notation::Text => json!({ "type": "string", "minLength": 1 }),
            Notation::Pattern(pattern) => {
                json!({ "type": "string", "pattern": format!("^({pattern})$|{VARIABLE}") })
            }
            Notation::Words(words) => {
                json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": VARIABLE }] })
            }
            Notation::Either(several) => {
                let several: Vec<Value> = several.iter().map(|one| self.schema(path, one)).collect();
                json!({ "anyOf": several })
            }
            Notation::List(of, least) => {
                json!({ "type": "array", "items": self.schema(path, of), "minItems": least })
            }
            Notation::Named(of) => {
                json!({ "type": "object", "additionalProperties": self.schema(path, of) })
            }
            Notation::Table(keys) => {
                let each = keys.iter().map(|(key, value)| {
                    let path = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
                    ((*key).to_owned(), self.described(&path, value))
                });
                let properties: Map<String, Value> = each.collect();
                json!({ "type": "object", "properties": properties, "additionalProperties": false })
            }
        }
    }

    fn described(&self, path: &str, notation: &Notation) -> Value {
        let mut schema = self.schema(path, notation);
        if let (Some(said), Value::Object(keywords)) = (self.said.get(path), &mut schema) {
            keywords.insert("description".to_owned(), json!(said));
        }
        schema
    }
}

/// What the example says of each key and table: the lines above it, and what stands behind it. In tables that are `named`, names are
/// the operator's.
fn descriptions(example: &str, named: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let (mut table, mut around, mut above, mut last) = (String::new(), None, Vec::new(), None::<String>);
    for line in example.lines() {
        let plain = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
        if line.trim().is_empty() {
            // A table that is off ends with its lines.
            table = around.take().unwrap_or(table);
            (above, last) = (Vec::new(), None);
        } else if let Some(header) = header(plain, named) {
            if plain != line {
                around.get_or_insert_with(|| table.clone());
            } else {
                around = None;
            }
            table = header;
            add(&mut said, &table, &above.join(" "));
            (above, last) = (Vec::new(), None);
        } else if let Some((key, behind)) = key_of(plain) {
            let path = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
            let behind = behind.trim_start_matches(['#', ' ']);
            add(&mut said, &path, &[above.join(" ").as_str(), behind].join(" "));
            last = Some(path);
            above = Vec::new();
        } else if let Some(more) = line.trim_start().strip_prefix('#') {
            match &last {
                Some(path) if line.starts_with(' ') => add(&mut said, path, more),
                _ => above.push(more.trim().to_owned()),
            }
        }
    }
    said
}

fn add(said: &mut BTreeMap<String, String>, path: &str, text: &str) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() || text.starts_with("-----") {
        return;
    }
    let whole = said.entry(path.to_owned()).or_default();
    let separator = if whole.is_empty() { "" } else { " " };
    whole.push_str(&format!("{separator}{text}"));
}

/// `[upstreams.origin]` and `[[routes]]`, without the names that are the operator's.
fn header(line: &str, named: &BTreeSet<&str>) -> Option<String> {
    let name = line.strip_prefix('[')?.split(']').next()?.trim_start_matches('[');
    let mut parts: Vec<&str> = name.split('.').collect();
    if named.contains(parts[0]) && parts.len() > 1 {
        parts.remove(1);
    }
    let is_name =
        |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    parts.iter().all(is_name).then(|| parts.join("."))
}

/// The key of `key = value # what is said of it`.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ")?;
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then(|| (key, value.split_once(" #").map_or("", |(_, behind)| behind)))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// `make pages` writes it.
    #[test]
    fn the_page_of_the_schema_is_what_the_command_prints() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/edge.schema.json");
        let wanted = format!("{}\n", text());
        if std::env::var_os("GATEHOUSE_WRITE").is_some() {
            fs::write(&file, &wanted).unwrap();
        }
        let there = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            there == wanted,
            "config/edge.schema.json is not what `edge schema` prints: run `make pages`"
        );
    }

    #[test]
    fn what_the_example_says_of_a_key_is_its_description() {
        let schema = schema();
        let of = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).to_string();
        assert!(of("/properties/threads/description").contains("Worker threads"));
        assert!(of("/properties/cache/properties/variants/description").contains("differ by Vary"));
        assert!(of("/properties/upstreams/additionalProperties/properties/servers/description").len() > 20);
        assert!(of("/properties/redis/properties/url/description").contains("rediss://"));
        let described = schema.to_string().matches("\"description\"").count();
        assert!(described > 100, "only {described} keys are described");
    }
}
