//! The schema says of tables what the parser says, as far as a schema can.

use regex::Regex;
use serde_json::{Value, json};

use crate::{files, name, shipped};

/// What the schema finds wrong: as much of JSON Schema as ours uses.
fn faults(value: &Value, schema: &Value, root: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fault = |what: &str| found.push(format!("{path}: {what}"));
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "type" if !is_type(value, rule.as_str().unwrap()) => fault(&format!("is no {rule}")),
            "const" if value != rule => fault("is not the one word"),
            "enum" if !rule.as_array().unwrap().contains(value) => fault("is none of the words"),
            "minimum" if value.as_f64() < rule.as_f64() => fault("is too small"),
            "maximum" if value.as_f64() > rule.as_f64() => fault("is too large"),
            "exclusiveMinimum" if value.as_f64() <= rule.as_f64() => fault("is too small"),
            "pattern" => {
                let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                if !value.as_str().is_none_or(|text| pattern.is_match(text)) {
                    fault("doesn't match");
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.get(key.as_str().unwrap()).is_none() {
                        fault("lacks a key");
                    }
                }
            }
            "anyOf" => {
                let fits = |rule: &Value| faults(value, rule, root, path).is_empty();
                if !rule.as_array().unwrap().iter().any(fits) {
                    fault("fits none of several");
                }
            }
            "type" | "const" | "enum" | "minimum" | "maximum" | "exclusiveMinimum" => {}
            "$ref" | "items" | "properties" | "additionalProperties" | "propertyNames" => {}
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" => {}
            other => panic!("the schema uses {other}, which this test doesn't know"),
        }
    }
    found.extend(inner_faults(value, schema, root, path));
    found
}

/// The same for what is in the value.
fn inner_faults(value: &Value, schema: &Value, root: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(name) = schema["$ref"].as_str() {
        let defined = root.pointer(name.trim_start_matches('#')).unwrap();
        found.extend(faults(value, defined, root, path));
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(faults(item, &schema["items"], root, path));
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        if schema["propertyNames"].is_object() {
            found.extend(faults(&json!(key), &schema["propertyNames"], root, &path));
        }
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (rule, _) if rule.is_object() => found.extend(faults(value, rule, root, &path)),
            (_, Value::Bool(false)) => found.push(format!("{path}: is unknown")),
            (_, rule) if rule.is_object() => found.extend(faults(value, rule, root, &path)),
            _ => {}
        }
    }
    found
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("the schema uses the type {other}, which this test doesn't know"),
    }
}

fn faults_of(text: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    let table: Value = toml::from_str(text).unwrap();
    faults(&table, &schema, &schema, "table")
}

#[test]
fn shipped_and_unwise_tables_fit_the_schema() {
    for path in shipped().into_iter().chain(files("unwise", "toml")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(faults_of(&text), [""; 0], "{}", name(&path));
    }
}

#[test]
fn a_key_or_a_spelling_that_the_parser_refuses_the_schema_refuses() {
    for wrong in [
        "agent = {}",
        "[agents.A]\nservice = \"a\"",
        "[agents.a]\nendpoint = []",
        "[agents.a]\nendpoints = [\"https://a\"]",
        "[agents.a]\ntimeout = 5",
        "[agents.a]\ntimeout = \"5 s\"",
        "[agents.a]\nmax_body = \"5 GB\"",
        "[agents.a]\nprotocol = \"http2\"",
        "[agents.a]\nretry = true",
        "[agents.a]\naffinity = {}",
        "[agents.a]\nhealth = { path = \"readyz\" }",
        "[agents.a.deployment]\nsecrets = { A = \"b\" }",
        "[agents.a.deployment]\nenv = { A = 5 }",
        "[agents.a.deployment]\nlimits = { cpu = \"two\" }",
        "[gateway]\nlisten = \"localhost:8080\"",
    ] {
        assert!(config::parse(wrong, "t.toml").is_err(), "{wrong}");
        assert_ne!(faults_of(wrong), [""; 0], "{wrong}");
    }
}

#[test]
fn every_default_and_example_in_the_schema_fits_it() {
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    for (name, section) in schema["$defs"].as_object().unwrap() {
        for (key, rule) in section["properties"].as_object().unwrap() {
            let examples = rule["examples"].as_array().into_iter().flatten();
            for value in examples.chain(rule.get("default")) {
                assert_eq!(faults(value, rule, &schema, key), [""; 0], "{name}.{key}");
            }
        }
    }
}
