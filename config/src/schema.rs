//! The JSON Schema of the table, from the same list of keys that the reader goes by.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use toml::de::DeValue;

use crate::raw::Root;
use crate::section::{Field, Kind, Section, Shape};

/// JSON Schema (draft 2020-12) of the table, for editors: pretty-printed, with a newline at the
/// end.
///
/// It knows keys, types, spellings and defaults; what keys mean together only [`crate::parse`]
/// knows.
pub fn schema() -> String {
    let mut sections = BTreeMap::new();
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Switchyard's table"));
    if let Shape::Section(root) = Root::shape() {
        schema.extend(table(&root, &mut sections));
    }
    schema.insert("$defs".to_owned(), sections.into_iter().collect());
    let text = serde_json::to_string_pretty(&Value::Object(schema));
    text.expect("a tree of strings and numbers is JSON") + "\n"
}

/// Sections that stand under `$defs`, by name.
type Sections = BTreeMap<String, Value>;

fn table(section: &Section, sections: &mut Sections) -> Map<String, Value> {
    let properties: Map<String, Value> =
        section.fields.iter().map(|f| (f.key.to_owned(), property(f, sections))).collect();
    let needed: Vec<&str> = section.fields.iter().filter(|f| f.needed).map(|f| f.key).collect();
    let mut schema = Map::new();
    schema.insert("description".to_owned(), json!(section.about));
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("additionalProperties".to_owned(), json!(false));
    if !needed.is_empty() {
        schema.insert("required".to_owned(), json!(needed));
    }
    schema
}

fn property(field: &Field, sections: &mut Sections) -> Value {
    let mut schema = Map::new();
    schema.insert("description".to_owned(), json!(described(field)));
    schema.extend(shape(&field.shape, sections));
    // A table's defaults stand at its own keys.
    if let Some(default) = field.default.filter(|default| *default != "{}") {
        schema.insert("default".to_owned(), json_of(default));
    }
    if let Some(example) = &field.example {
        schema.insert("examples".to_owned(), json!([json_of(example)]));
    }
    Value::Object(schema)
}

/// The meaning of a key with all that the schema has no word for.
fn described(field: &Field) -> String {
    let mut text = field.doc.clone();
    for (word, meaning) in words(&field.shape) {
        text.push_str(&format!(" \"{word}\": {meaning}."));
    }
    if let Some(computed) = field.computed {
        text.push_str(&format!(" Default: {computed}."));
    }
    text
}

/// The words that a key takes, with their meanings.
pub(crate) fn words(shape: &Shape) -> &[(&'static str, &'static str)] {
    match shape {
        Shape::Leaf(leaf) => &leaf.words,
        Shape::OrOff(inner) | Shape::List(inner) => words(inner),
        Shape::Section(_) | Shape::Map { .. } => &[],
    }
}

fn shape(shape: &Shape, sections: &mut Sections) -> Map<String, Value> {
    let schema = match shape {
        Shape::Leaf(leaf) => leaf.schema.clone(),
        Shape::OrOff(inner) => json!({"anyOf": [{"const": "off"}, self::shape(inner, sections)]}),
        Shape::List(inner) => json!({"type": "array", "items": self::shape(inner, sections)}),
        Shape::Map { key, value, .. } => json!({
            "type": "object",
            "propertyNames": key.schema,
            "additionalProperties": self::shape(value, sections),
        }),
        Shape::Section(section) => {
            if !sections.contains_key(section.name) {
                let defined = table(section, sections);
                sections.insert(section.name.to_owned(), Value::Object(defined));
            }
            json!({"$ref": format!("#/$defs/{}", section.name)})
        }
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// A value as written in the file, as JSON.
fn json_of(written: &str) -> Value {
    DeValue::parse(written).map_or(Value::Null, |value| convert(value.get_ref()))
}

fn convert(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(number) => json!(number.as_str().parse::<i64>().ok()),
        DeValue::Float(number) => json!(number.as_str().parse::<f64>().ok()),
        DeValue::Boolean(flag) => json!(flag),
        DeValue::Datetime(time) => json!(time.to_string()),
        DeValue::Array(items) => items.iter().map(|item| convert(item.get_ref())).collect(),
        DeValue::Table(table) => Value::Object(
            table.iter().map(|(k, v)| (k.get_ref().to_string(), convert(v.get_ref()))).collect(),
        ),
    }
}
