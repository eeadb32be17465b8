//! Answers that keep a JSON Schema: asked for as the protocol has it, checked, and asked for again.

use serde_json::{Value, json};

use crate::harness::{Agent, agent, problem, reply};
use crate::model_server::{ModelServer, Script};

async fn agent_with(server: &ModelServer) -> Agent {
    agent("coding").env("OPENAI_BASE_URL", &server.url).env("AGENT_MODEL", "m").start().await
}

fn asked() -> Value {
    json!({"input": "sum", "output_schema": {
        "type": "object",
        "properties": {"sum": {"type": "integer"}},
        "required": ["sum"],
        "additionalProperties": false,
    }})
}

#[tokio::test]
async fn an_answer_keeps_its_schema() {
    let server = ModelServer::start(vec![Script::says("```json\n{\"sum\": 42}\n```")]).await;
    let response = agent_with(&server).await.post(&asked()).send().await.unwrap();
    let reply = reply(response).await;
    assert_eq!(reply["output"], r#"{"sum":42}"#);
    assert_eq!(reply["metadata"]["data"], json!({"sum": 42}));
    let format = &server.seen()[0].body["response_format"];
    assert_eq!(format["type"], "json_schema");
    assert_eq!(format["json_schema"]["schema"], asked()["output_schema"]);
}

#[tokio::test]
async fn an_answer_that_does_not_is_asked_for_again_with_what_is_wrong() {
    let server = ModelServer::start(vec![
        Script::says(r#"{"sum": "many"}"#),
        Script::says("It is 42."),
        Script::says("{sum: 42,}"),
    ])
    .await;
    let events = agent_with(&server).await.events(&asked()).await;
    let last = &events.last().unwrap().1;
    assert_eq!(last["metadata"]["data"], json!({"sum": 42}), "mended: {last}");
    let mends: Vec<_> = events.iter().filter(|(_, data)| data["name"] == "mend").collect();
    assert_eq!(mends.len(), 2);
    let told = server.seen()[1].body["messages"].as_array().unwrap().last().unwrap().clone();
    assert!(
        told["content"].as_str().unwrap().contains("is not of type \"integer\" at `/sum`"),
        "{told}"
    );
}

#[tokio::test]
async fn a_model_that_never_keeps_it_is_an_error() {
    let server = ModelServer::start(vec![Script::says("It is 42.")]).await;
    let response = agent_with(&server).await.post(&asked()).send().await.unwrap();
    let problem = problem(response).await;
    assert_eq!((&problem["code"], &problem["status"]), (&json!("output-invalid"), &json!(502)));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_server_that_takes_no_schema_is_told_of_it_in_the_prompt() {
    let server = ModelServer::start(vec![
        Script::refuses("400 Bad Request", "response_format is not supported", ""),
        Script::says(r#"{"sum": 42}"#),
    ])
    .await;
    let response = agent_with(&server).await.post(&asked()).send().await.unwrap();
    assert_eq!(reply(response).await["metadata"]["data"]["sum"], 42);
    let second = server.seen()[1].body.clone();
    assert!(second["response_format"].is_null());
    assert!(second["messages"][0]["content"].as_str().unwrap().contains("\"required\":[\"sum\"]"));
}

#[tokio::test]
async fn what_is_no_schema_is_refused_before_anything_is_done() {
    let server = ModelServer::start(vec![Script::says("hi")]).await;
    let body = json!({"input": "sum", "output_schema": {"type": "number-ish"}});
    let response = agent_with(&server).await.post(&body).send().await.unwrap();
    assert_eq!(problem(response).await["code"], "bad-request");
    assert!(server.seen().is_empty());
}
