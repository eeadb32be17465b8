//! One answer per `Idempotency-Key`: repeated, shared while it is made, and never another request's.

use serde_json::{Value, json};

use crate::harness::{Agent, agent, parse_events, problem, reply, tokens};
use crate::model_server::{ModelServer, Script, text};
use crate::redis::Redis;

async fn agent_with(server: &ModelServer, redis: Option<&Redis>) -> Agent {
    let mut builder = agent("coding").env("OPENAI_BASE_URL", &server.url).env("AGENT_MODEL", "m");
    if let Some(redis) = redis {
        builder = builder.env("REDIS_URL", &redis.url());
    }
    builder.start().await
}

fn post(agent: &Agent, key: &str, body: &Value) -> reqwest::RequestBuilder {
    agent.post(body).header("idempotency-key", key)
}

async fn ask(agent: &Agent, key: &str, input: &str) -> Value {
    reply(post(agent, key, &json!({"input": input})).send().await.unwrap()).await
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_and_is_done_once() {
    let server = ModelServer::start(vec![Script::says("one"), Script::says("two")]).await;
    let agent = agent_with(&server, None).await;
    let first = ask(&agent, "k-1", "go").await;
    let second = ask(&agent, "k-1", "go").await;
    assert_eq!((&first["output"], &second["output"]), (&json!("one"), &json!("one")));
    assert_eq!(second["metadata"]["replay_of"], first["metadata"]["request_id"]);
    let streamed = post(&agent, "k-1", &json!({"input": "go", "stream": true}));
    let events = parse_events(&streamed.send().await.unwrap().text().await.unwrap());
    assert_eq!((tokens(&events).as_str(), events.last().unwrap().0.as_str()), ("one", "final"));
    assert_eq!(server.seen().len(), 1);
    assert_eq!(ask(&agent, "k-2", "go").await["output"], "two", "another key is another request");
    let metrics = agent.get("/metrics").await.1;
    assert!(metrics.contains("agent_replays_total 2"), "{metrics}");
}

#[tokio::test]
async fn another_replica_gives_the_same_answer() {
    let redis = Redis::start().await;
    let server = ModelServer::start(vec![Script::says("one"), Script::says("two")]).await;
    let one = agent_with(&server, Some(&redis)).await;
    let other = agent_with(&server, Some(&redis)).await;
    assert_eq!(ask(&one, "k", "go").await["output"], "one");
    assert_eq!(ask(&other, "k", "go").await["output"], "one");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn who_comes_while_it_is_made_waits_for_it() {
    for redis in [None, Some(Redis::start().await)] {
        let gate = Script::says("one").gated();
        let server = ModelServer::start(vec![gate]).await;
        let agents =
            [agent_with(&server, redis.as_ref()).await, agent_with(&server, redis.as_ref()).await];
        let (first, second) = (&agents[0], &agents[usize::from(redis.is_some())]);
        let in_flight = if redis.is_some() { "agent_in_flight 1" } else { "agent_in_flight 2" };
        let body = json!({"input": "go"});
        let asking = tokio::spawn(post(first, "k", &body).send());
        server.asked(1).await;
        let waiting = tokio::spawn(post(second, "k", &body).send());
        // Only when the second is in may the model speak.
        while !second.get("/metrics").await.1.contains(in_flight) {}
        server.open();
        let first = reply(asking.await.unwrap().unwrap()).await;
        let waited = reply(waiting.await.unwrap().unwrap()).await;
        assert_eq!(waited["metadata"]["replay_of"], first["metadata"]["request_id"]);
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_client_that_left_or_a_failure_leaves_the_key_free() {
    let refused = Script::status("400 Bad Request", "", r#"{"error":{"message":"no"}}"#);
    let scripts = vec![Script::hanging(&[text("hm")]), refused, Script::says("at last")];
    let server = ModelServer::start(scripts).await;
    let agent = agent_with(&server, None).await;
    let leaving = tokio::spawn(post(&agent, "k", &json!({"input": "go"})).send());
    server.asked(1).await;
    leaving.abort();
    server.left().await;
    let failed = post(&agent, "k", &json!({"input": "go"})).send().await.unwrap();
    assert_eq!(problem(failed).await["code"], "model-refused");
    assert_eq!(ask(&agent, "k", "go").await["output"], "at last");
}

#[tokio::test]
async fn a_key_is_for_one_request_only() {
    let server = ModelServer::start(vec![Script::says("one")]).await;
    let agent = agent_with(&server, None).await;
    ask(&agent, "k", "go").await;
    let other = post(&agent, "k", &json!({"input": "stop"})).send().await.unwrap();
    assert_eq!(other.status(), 422);
    assert_eq!(problem(other).await["code"], "idempotency-key-reused");
    let wrong = post(&agent, "a b", &json!({"input": "go"})).send().await.unwrap();
    assert_eq!(problem(wrong).await["code"], "bad-request");
}
