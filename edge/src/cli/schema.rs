//! `edge schema`: which keys there are, as a JSON Schema, from which editors complete and explain them.
//!
//! The keys are those that the reader of files knows; what is said of each is what `config/edge.toml` says. Of values nothing
//! is demanded: `edge check` says more of them, and says it better.

use std::{collections::BTreeMap, process::ExitCode};

use serde_json::{Map, Value, json};

use crate::{observe::say, settings};

/// Prints it.
pub fn run() -> ExitCode {
    say::result(format_args!("{:#}", schema()));
    ExitCode::SUCCESS
}

fn schema() -> Value {
    let mut root = Node::default();
    for key in settings::known_keys() {
        root.at(key.split('.'));
    }
    let mut schema = root.object("", &descriptions(EXAMPLE));
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Settings of Gatehouse's edge"));
    Value::Object(schema)
}

const EXAMPLE: &str = include_str!("../../../config/edge.toml");

/// Tables whose keys are names of the operator's.
const NAMED: [&str; 3] = ["limits", "commands", "upstreams"];
/// Lists of tables; of one of them an element may be a text too.
const LISTS: [&str; 4] = ["listen", "routes", "listen.certificates", "upstreams.servers"];

#[derive(Default)]
struct Node {
    within: BTreeMap<String, Node>,
}

impl Node {
    fn at<'a>(&mut self, path: impl Iterator<Item = &'a str>) -> &mut Self {
        path.fold(self, |node, name| node.within.entry(name.to_owned()).or_default())
    }

    /// The table at `path`.
    fn object(&self, path: &str, said: &BTreeMap<String, String>) -> Map<String, Value> {
        let mut properties = Map::new();
        for (name, node) in &self.within {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            properties.insert(name.clone(), Value::Object(node.described(&path, said)));
        }
        let mut object = Map::new();
        object.insert("properties".to_owned(), Value::Object(properties));
        object.insert("additionalProperties".to_owned(), json!(false));
        object
    }

    fn described(&self, path: &str, said: &BTreeMap<String, String>) -> Map<String, Value> {
        let mut node = Map::new();
        if !self.within.is_empty() {
            let object = self.object(path, said);
            if LISTS.contains(&path) {
                node.insert("type".to_owned(), json!("array"));
                node.insert("items".to_owned(), Value::Object(object));
            } else if NAMED.contains(&path) {
                node.insert("type".to_owned(), json!("object"));
                node.insert("additionalProperties".to_owned(), Value::Object(object));
            } else {
                node = object;
            }
        }
        if let Some(text) = said.get(path) {
            node.insert("description".to_owned(), json!(text));
        }
        node
    }
}

/// What the example says of each key and table: the lines above it, and what stands behind it.
fn descriptions(example: &str) -> BTreeMap<String, String> {
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let (mut table, mut around, mut above, mut last) = (String::new(), None, Vec::new(), None::<String>);
    for line in example.lines() {
        let plain = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
        if line.trim().is_empty() {
            // A table that is off ends with its lines.
            table = around.take().unwrap_or(table);
            (above, last) = (Vec::new(), None);
        } else if let Some(header) = header(plain) {
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
fn header(line: &str) -> Option<String> {
    let name = line.strip_prefix('[')?.split(']').next()?.trim_start_matches('[');
    let mut parts: Vec<&str> = name.split('.').collect();
    if NAMED.contains(&parts[0]) && parts.len() > 1 {
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

    /// Where a document has what the schema does not know.
    fn unknown(schema: &Value, document: &toml::Value, path: &str) -> Vec<String> {
        match document {
            toml::Value::Table(table) => {
                let each = table.iter().flat_map(|(key, value)| {
                    let path = format!("{path}.{key}");
                    match (schema["properties"].get(key), &schema["additionalProperties"]) {
                        (Some(known), _) => unknown(known, value, &path),
                        (None, Value::Bool(false)) => vec![path],
                        (None, other) => unknown(other, value, &path),
                    }
                });
                each.collect()
            }
            toml::Value::Array(list) => {
                list.iter().flat_map(|one| unknown(&schema["items"], one, path)).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_file_of_ours_is_as_the_schema_has_it_and_a_slip_is_not() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folders = ["docs/recipes", "docs/jobs"].map(|folder| fs::read_dir(root.join(folder)).unwrap());
        let within = folders.into_iter().flatten().map(|entry| entry.unwrap().path().join("edge.toml"));
        let files: Vec<_> = within
            .filter(|file| file.exists())
            .chain(["config/edge.toml", "config/demo.toml"].map(|name| root.join(name)))
            .collect();
        assert!(files.len() > 15, "{files:?}");
        let schema = schema();
        for file in files {
            let document: toml::Value = toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            assert_eq!(unknown(&schema, &document, ""), [""; 0], "{}", file.display());
        }
        let slip =
            toml::from_str("[upstreams.a]\nserver = []\n[[routes]]\ncache = { tll = 1 }\n[x]").unwrap();
        let mut told = unknown(&schema, &slip, "");
        told.sort();
        assert_eq!(told, [".routes.cache.tll", ".upstreams.a.server", ".x"]);
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
