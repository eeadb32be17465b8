//! The loop's bounds, its parallel calls, and a conversation that doesn't fit.

use serde_json::{Value, json};

use crate::harness::{Agent, Builder, agent, marker, problem, runs, until};
use crate::model_server::{ModelServer, Script, text};

fn with(server: &ModelServer) -> Builder {
    agent("coding").env("OPENAI_BASE_URL", &server.url).env("AGENT_MODEL", "m")
}

async fn ask(agent: &Agent, input: &str) -> Value {
    agent.ask(input).await["metadata"].clone()
}

#[tokio::test]
async fn steps_and_tokens_are_bounded() {
    let server = ModelServer::start(vec![Script::calls(&[("list", "{}")])]).await;
    let metadata = ask(&with(&server).flag("--max-steps", "3").start().await, "go").await;
    assert_eq!((&metadata["steps"], &metadata["finish_reason"]), (&json!(3), &json!("max-steps")));
    // Each turn costs 15.
    let metadata = ask(&with(&server).flag("--max-tokens", "31").start().await, "go").await;
    assert_eq!((&metadata["steps"], &metadata["finish_reason"]), (&json!(3), &json!("max-tokens")));
}

#[tokio::test]
async fn calls_that_only_look_run_beside_each_other_and_changes_in_their_order() {
    // A reader that waits for what comes later in the same turn would never end if it were not for the order.
    let server = ModelServer::start(vec![
        Script::calls(&[
            ("list", "{}"),
            ("write", r#"{"path":"a","content":"1"}"#),
            ("read", r#"{"path":"a"}"#),
            ("read", r#"{"path":"missing"}"#),
            ("write", r#"{"path":"a","content":"2"}"#),
            ("read", r#"{"path":"a"}"#),
        ]),
        Script::says("done"),
    ])
    .await;
    let events = with(&server).start().await.events(&json!({"input": "go"})).await;
    let outputs = |name: &str| -> Vec<String> {
        let results =
            events.iter().filter(|(event, data)| event == "tool_result" && data["name"] == name);
        results.map(|(_, data)| data["output"].as_str().unwrap().to_owned()).collect()
    };
    let read = outputs("read");
    assert_eq!(
        (read[0].contains('1'), read[1].starts_with("error"), read[2].contains('2')),
        (true, true, true),
        "{read:?}"
    );
    let told: Vec<_> = server.seen()[1].body["messages"].as_array().unwrap()[3..]
        .iter()
        .map(|message| message["tool_call_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        told,
        ["c0", "c1", "c2", "c3", "c4", "c5"],
        "results stand in the order of the calls"
    );
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    let both = names.windows(2).any(|two| two == ["tool_call", "tool_call"]);
    assert!(both, "two readers were under way at once: {names:?}");
}

#[tokio::test]
async fn a_conversation_that_does_not_fit_is_cut_and_that_is_said() {
    let long = format!(r#"{{"path":"a","content":"{}"}}"#, "word ".repeat(600));
    let server = ModelServer::start(vec![
        Script::calls(&[("write", &long)]),
        Script::calls(&[("read", r#"{"path":"a"}"#)]),
        Script::calls(&[("read", r#"{"path":"a"}"#)]),
        Script::calls(&[("read", r#"{"path":"a"}"#)]),
        Script::says("done"),
    ])
    .await;
    let agent = with(&server).flag("--context-tokens", "3000").start().await;
    let events = agent.events(&json!({"input": "go"})).await;
    assert!(events.iter().any(|(_, data)| data["name"] == "trim"), "{events:?}");
    let trimmed = &events.last().unwrap().1["metadata"]["trimmed"];
    assert!(trimmed["tokens"].as_u64().unwrap() > 100, "{trimmed}");
    let last = server.seen()[4].body["messages"].clone();
    assert!(last[0]["content"].as_str().unwrap().contains("To fit the context, "), "{last}");
    assert_eq!(last[1]["content"], "go");
}

#[tokio::test]
async fn a_server_that_finds_it_too_long_is_asked_with_less() {
    let too_long = Script::refuses("400 Bad Request", "too long", "context_length_exceeded");
    let big = format!(r#"{{"path":"a","content":"{}"}}"#, "word ".repeat(1500));
    let server = ModelServer::start(vec![
        Script::calls(&[("write", &big)]),
        Script::calls(&[("read", r#"{"path":"a"}"#)]),
        too_long,
        Script::says("done"),
    ])
    .await;
    let metadata = ask(&with(&server).start().await, "go").await;
    assert_eq!((&metadata["finish_reason"], &metadata["steps"]), (&json!("stop"), &json!(3)));
    assert!(metadata["trimmed"]["tokens"].as_u64().unwrap() > 100, "{metadata}");
}

#[tokio::test]
async fn an_input_that_is_too_long_by_itself_is_refused_with_numbers() {
    let server = ModelServer::start(vec![Script::says("hi")]).await;
    let agent = with(&server).flag("--context-tokens", "1000").start().await;
    let response = agent.post(&json!({"input": "x".repeat(10_000)})).send().await.unwrap();
    let problem = problem(response).await;
    assert_eq!((&problem["code"], &problem["status"]), (&json!("input-too-long"), &json!(413)));
    assert!(problem["detail"].as_str().unwrap().contains("750"), "{problem}");
    assert!(server.seen().is_empty());
}

/// Prints how long it took: 100 ms is what we promise, and a busy machine is not asked to keep it.
#[tokio::test]
async fn a_client_that_leaves_ends_the_model_and_the_tool() {
    let marker = marker();
    let command = json!({"command": format!("sleep {marker}")}).to_string();
    let server = ModelServer::start(vec![
        Script::hanging(&[text("hm")]),
        Script::calls(&[("run", &command)]),
        Script::says("never"),
    ])
    .await;
    let agent = with(&server).start().await;
    let asking = tokio::spawn(agent.post(&json!({"input": "go"})).send());
    server.asked(1).await;
    let left = std::time::Instant::now();
    asking.abort();
    server.left().await;
    eprintln!("the model was left after {:?}", left.elapsed());
    let asking = tokio::spawn(agent.post(&json!({"input": "go", "stream": true})).send());
    until("the command runs", || runs(&marker)).await;
    let response = asking.await.unwrap().unwrap();
    let left = std::time::Instant::now();
    drop(response);
    until("the command is gone", || !runs(&marker)).await;
    eprintln!("the tool was ended after {:?}", left.elapsed());
    assert_eq!(server.seen().len(), 2, "the model is not asked again for nobody");
}
