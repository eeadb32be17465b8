//! A model server behind the gateway, as an agent type of the table: a call goes from the client
//! through the gateway to `qa`, and from there through the gateway to the model.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Yard, yard};
use crate::model::Model;
use crate::stream::{End, Stream};
use crate::table::{put_in, shipped_on};

/// A yard whose agents find their model through the gateway.
async fn with_model(model: &Model) -> Yard {
    // The agents have to know the port before there is a gateway: another process may take it
    // meanwhile, which would fail the start and not go unnoticed.
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut table = shipped_on(&listen);
    for agent in ["agents.qa.deployment", "agents.coding.deployment"] {
        table = put_in(&table, agent, "#env ", "env ");
        table = put_in(&table, agent, "#secrets", "secrets");
    }
    table += &format!("\n[agents.model]\nendpoints = [\"{}\"]\n", model.url());
    let yard = yard(&table)
        .env("OPENAI_API_KEY", "sk-test")
        .env("OPENAI_BASE_URL", &format!("http://{listen}/agents/model/v1"))
        .start()
        .await;
    yard.until_replicas("qa", 1).await;
    yard.until_replicas("coding", 1).await;
    yard
}

/// `qa` shows nothing of an answer before it has cited a passage; `coding` passes on what comes.
async fn opened(yard: &Yard, agent: &str) -> tokio::task::JoinHandle<Stream> {
    let body = json!({"input": "What is a replica?", "stream": true});
    let sent = yard.http.post(format!("{}/agents/{agent}/invoke", yard.url)).json(&body).send();
    tokio::spawn(async { Stream::new(sent.await.unwrap()) })
}

#[tokio::test]
async fn tokens_of_a_model_come_one_by_one_through_the_gateway_twice() {
    let mut model = Model::start().await;
    let yard = with_model(&model).await;
    let stream = opened(&yard, "qa").await;
    let mut completion = model.asked().await;
    assert_eq!(completion.asked["model"], "gpt-4o-mini");
    assert_eq!(completion.header("authorization"), Some("Bearer sk-test"));
    assert_eq!(completion.header("x-agent-type"), Some("model"));
    let id = completion.header("x-request-id").unwrap().to_owned();
    completion.begin().await;
    let mut stream = stream.await.unwrap();
    let mut events = Vec::new();
    for text in ["A replica [1] ", "is ", "one ", "of ", "several."] {
        completion.say(text).await;
        events.extend(stream.until("token").await);
        assert_eq!(events.last().unwrap().data["text"], text);
    }
    completion.end().await;
    let events = stream.good(events).await;
    let last = &events.last().unwrap().data;
    let output = last["output"].as_str().unwrap();
    assert!(output.starts_with("A replica [1] is one of several."), "{output}");
    assert!(output.contains("[1] docs/"), "{output}");
    assert_eq!(last["metadata"]["model"], "gpt-4o-mini");
    assert_eq!(last["metadata"]["usage"]["total_tokens"], 15);
    assert_eq!(last["metadata"]["request_id"], id, "one id from end to end");
    yard.end().await;
}

#[tokio::test]
async fn a_model_that_is_busy_is_asked_again_when_it_says() {
    let mut model = Model::start().await;
    let yard = with_model(&model).await;
    let stream = opened(&yard, "coding").await;
    let refused = Instant::now();
    model.asked().await.too_many("1").await;
    let mut completion = model.asked().await;
    assert!(refused.elapsed() >= Duration::from_secs(1), "{:?}", refused.elapsed());
    completion.begin().await;
    completion.say("Now.").await;
    completion.end().await;
    let events = stream.await.unwrap().good(Vec::new()).await;
    assert!(events.last().unwrap().data["output"].as_str().unwrap().starts_with("Now."));
    yard.end().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_in_an_error_and_never_looks_whole() {
    let mut model = Model::start().await;
    let yard = with_model(&model).await;

    let stream = opened(&yard, "coding").await;
    let mut completion = model.asked().await;
    completion.begin().await;
    completion.say("Half an ans").await;
    let mut stream = stream.await.unwrap();
    let mut events = stream.until("token").await;
    drop(completion);
    events.extend(stream.rest().await.0);
    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!("model-broke-off")));
    assert!(events.iter().all(|event| event.name != "final"), "{events:?}");

    let asked = tokio::spawn({
        let body = json!({"input": "What is a replica?"});
        yard.http.post(format!("{}/agents/coding/invoke", yard.url)).json(&body).send()
    });
    let mut completion = model.asked().await;
    completion.begin().await;
    completion.say("Half an ans").await;
    drop(completion);
    let reply = asked.await.unwrap().unwrap();
    assert_eq!(reply.status(), 502);
    let problem: serde_json::Value = reply.json().await.unwrap();
    assert_eq!(problem["code"], "model-broke-off");

    let asked = tokio::spawn({
        let url = format!("{}/agents/model/v1/chat/completions", yard.url);
        yard.http.post(url).json(&json!({"model": "m", "messages": []})).send()
    });
    let mut completion = model.asked().await;
    completion.begin().await;
    completion.say("Half an ans").await;
    let mut stream = Stream::new(asked.await.unwrap().unwrap());
    stream.next().await.unwrap();
    drop(completion);
    let (events, end) = stream.rest().await;
    assert_eq!((events.last().unwrap().name.as_str(), end), ("error", End::Broken));
    yard.end().await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_model_behind_both_hops() {
    let mut model = Model::start().await;
    let yard = with_model(&model).await;
    let stream = opened(&yard, "coding").await;
    let mut completion = model.asked().await;
    completion.begin().await;
    completion.say("Once upon").await;
    let mut stream = stream.await.unwrap();
    stream.until("token").await;
    drop(stream);
    completion.left().await;
    yard.end().await;
}
