//! What an agent's replies have to be: docs/agents.schema.json, and what passes through the gateway unchanged.

use std::sync::LazyLock;

use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::project;

/// Asserts that a value is as this definition of docs/agents.schema.json has it.
pub fn keeps(definition: &str, value: &Value) {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let text = std::fs::read_to_string(project().join("docs/agents.schema.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    });
    let reference = format!("#/$defs/{definition}");
    let schema = json!({"$ref": reference, "$defs": SCHEMA["$defs"]});
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{value}: {wrong:?}");
}

/// An error of the agent's own, as it passes through the gateway.
pub async fn check_problem(reply: Response, agent: &str, status: u16, code: &str) {
    assert_eq!(reply.status(), status);
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    assert!(!reply.headers().contains_key("x-switchyard-error"), "it is the agent's own");
    let id = reply.headers()["x-request-id"].to_str().unwrap().to_owned();
    let problem: Value = reply.json().await.unwrap();
    keeps("problem", &problem);
    assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{problem}");
    assert_eq!((&problem["request_id"], &problem["agent"]), (&json!(id), &json!(agent)));
    assert_eq!(problem["type"], format!("urn:switchyard:agent:{code}"));
}
