//! Several model servers in order, and servers that know no tools.

use serde_json::{Value, json};

use crate::harness::{Agent, agent, problem, tokens};
use crate::model_server::{ModelServer, Script};

async fn agent_with(servers: &[&ModelServer]) -> Agent {
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    agent("coding")
        .env("OPENAI_BASE_URL", &urls.join(","))
        .env("OPENAI_API_KEY", "sk-first,-")
        .env("AGENT_MODEL", "first,second")
        .start()
        .await
}

#[tokio::test]
async fn where_one_server_fails_the_next_answers() {
    for failing in [
        Script::status("500 Internal Server Error", "", "{}"),
        Script::status("429 Too Many Requests", "retry-after: 3600\r\n", "{}"),
        Script::refuses("401 Unauthorized", "bad key", "invalid_api_key"),
        Script::refuses("404 Not Found", "no such model", "model_not_found"),
    ] {
        let (first, second) = (
            ModelServer::start(vec![failing]).await,
            ModelServer::start(vec![Script::says("hi")]).await,
        );
        let agent = agent_with(&[&first, &second]).await;
        let reply = agent.ask("go").await;
        assert_eq!(
            (&reply["output"], &reply["metadata"]["model"]),
            (&json!("hi"), &json!("second"))
        );
        assert_eq!(second.seen()[0].body["model"], "second");
        assert!(first.seen()[0].head.contains("authorization: Bearer sk-first"));
        assert!(!second.seen()[0].head.contains("authorization"), "each its own key");
        agent.ask("go").await;
        assert_eq!((first.seen().len(), second.seen().len()), (1, 2), "the first rests");
        let metrics = agent.get("/metrics").await.1;
        assert!(metrics.contains("agent_model_fallbacks_total 2"), "{metrics}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_costs_nothing_while_another_is() {
    let second = ModelServer::start(vec![Script::says("hi")]).await;
    let agent = agent("coding")
        .env("OPENAI_BASE_URL", &format!("http://127.0.0.1:1/v1,{}", second.url))
        .env("AGENT_MODEL", "m")
        .start()
        .await;
    assert_eq!(agent.ask("go").await["output"], "hi");
    assert_eq!(agent.get("/health").await.0, 200, "one of them is enough");
}

#[tokio::test]
async fn when_all_refuse_the_last_refusal_is_told() {
    let refusing = || ModelServer::start(vec![Script::refuses("401 Unauthorized", "bad key", "")]);
    let (first, second) = (refusing().await, refusing().await);
    let agent = agent_with(&[&first, &second]).await;
    let response = agent.post(&json!({"input": "go"})).send().await.unwrap();
    assert_eq!(problem(response).await["code"], "model-refused");
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
}

async fn with_one(server: &ModelServer, tool_calls: &str) -> Agent {
    agent("coding")
        .env("OPENAI_BASE_URL", &server.url)
        .env("AGENT_MODEL", "m")
        .env("AGENT_TOOL_CALLS", tool_calls)
        .start()
        .await
}

fn texts(body: &Value) -> String {
    body["messages"].to_string()
}

#[tokio::test]
async fn a_server_that_refuses_tools_is_told_of_them_in_the_prompt() {
    let call =
        r#"<tool_call>{"tool": "write", "arguments": {"path": "a", "content": "42"}}</tool_call>"#;
    let server = ModelServer::start(vec![
        Script::refuses("400 Bad Request", "m does not support tools", ""),
        Script::spells(call),
        // Nearly JSON, as small models have it.
        Script::spells("```json\n{'tool': 'read', 'arguments': {'path': 'a',}}\n```"),
        Script::spells("It says 42."),
    ])
    .await;
    let agent = with_one(&server, "auto").await;
    let events = agent.events(&json!({"input": "go"})).await;
    assert_eq!(tokens(&events), "It says 42.", "calls are no part of the text");
    let calls: Vec<_> = events.iter().filter(|(name, _)| name == "tool_call").collect();
    assert_eq!(calls[1].1["arguments"], json!({"path": "a"}));
    let seen = server.seen();
    assert!(seen[0].body["tools"].is_array() && seen[1].body["tools"].is_null());
    assert!(texts(&seen[1].body).contains("nothing but a line such as"));
    let last = seen[3].body["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["role"], "user");
    assert!(last["content"].as_str().unwrap().ends_with(":\n42"), "{last}");
    agent.ask("again").await;
    assert!(server.seen()[4].body["tools"].is_null(), "it is not asked for tools again");
}

#[tokio::test]
async fn the_prompt_can_be_chosen_from_the_start_and_native_calls_alone_as_well() {
    let server = ModelServer::start(vec![Script::says("hi")]).await;
    with_one(&server, "json").await.ask("go").await;
    assert!(server.seen()[0].body["tools"].is_null());
    let refusing =
        ModelServer::start(vec![Script::refuses("400 Bad Request", "no tools", "")]).await;
    let response = with_one(&refusing, "native").await.post(&json!({"input": "go"})).send().await;
    assert_eq!(problem(response.unwrap()).await["code"], "model-refused");
    assert_eq!(refusing.seen().len(), 1);
}

#[tokio::test]
async fn a_call_in_the_text_is_a_call_although_tools_were_offered() {
    let server = ModelServer::start(vec![
        Script::spells("<tool_call>\n{\"name\": \"list\", \"arguments\": {}}\n</tool_call>"),
        Script::spells("{\"nothing\": \"to call\"}"),
    ])
    .await;
    let events = with_one(&server, "auto").await.events(&json!({"input": "go"})).await;
    assert!(events.iter().any(|(name, data)| name == "tool_result" && data["output"] == "(empty)"));
    assert_eq!(tokens(&events), "{\"nothing\": \"to call\"}", "what is no call is passed on");
}
