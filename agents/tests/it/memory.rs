//! Conversations: remembered over replicas in Redis, without it in the process, and gone on without when it is away.

use serde_json::{Value, json};

use crate::harness::{Agent, Builder, agent, problem, reply, until};
use crate::model_server::{ModelServer, Script};
use crate::redis::Redis;

fn with_model(builder: Builder, server: &ModelServer) -> Builder {
    builder.env("OPENAI_BASE_URL", &server.url).env("AGENT_MODEL", "m")
}

async fn say(agent: &Agent, session: &str, input: &str) -> Value {
    let response =
        agent.post(&json!({"input": input, "session_id": session})).send().await.unwrap();
    reply(response).await
}

/// The texts that the model read at its `nth` call, but for the system's.
fn read(server: &ModelServer, nth: usize) -> Vec<String> {
    let body = server.seen()[nth].body.clone();
    let messages = body["messages"].as_array().unwrap()[1..].iter();
    messages.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

async fn checks(agent: &Agent) -> (u16, Value) {
    let (status, body) = agent.get("/health").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn any_replica_goes_on_with_a_session() {
    let redis = Redis::start().await;
    let server = ModelServer::start(vec![Script::says("Hello Ada."), Script::says("Ada.")]).await;
    let start =
        async || with_model(agent("coding"), &server).env("REDIS_URL", &redis.url()).start().await;
    let (first, second) = (start().await, start().await);
    let greeted = say(&first, "s-1", "I am Ada.").await;
    assert_eq!(greeted["metadata"]["memory"], "redis");
    let events = second.events(&json!({"input": "Who am I?", "session_id": "s-1"})).await;
    assert_eq!(events[0].1["name"], "workspace", "its files are at the first: {events:?}");
    let told = server.seen()[1].body["messages"][0]["content"].to_string();
    assert!(told.contains("The workspace is new"), "{told}");
    assert_eq!(read(&server, 1), ["I am Ada.", "Hello Ada.", "Who am I?"]);
    say(&second, "s-2", "Who am I?").await;
    assert_eq!(read(&server, 2), ["Who am I?"], "another session knows nothing of it");
    let expiry = redis.ask("PTTL switchyard:session:coding:s-1").await.unwrap();
    let expiry: i64 = expiry.trim().strip_prefix(':').unwrap().parse().unwrap();
    assert!((80_000_000..=86_400_000).contains(&expiry), "{expiry} ms: about a day");
}

#[tokio::test]
async fn without_redis_the_process_remembers() {
    let server = ModelServer::start(vec![Script::says("Hello Ada.")]).await;
    let agent = with_model(agent("coding"), &server).start().await;
    assert_eq!(say(&agent, "s", "I am Ada.").await["metadata"]["memory"], "process");
    say(&agent, "s", "Who am I?").await;
    assert_eq!(read(&server, 1).len(), 3);
    assert_eq!(agent.ask("Who am I?").await["metadata"]["memory"], Value::Null);
    assert_eq!(read(&server, 2).len(), 1);
}

#[tokio::test]
async fn a_session_ends_when_nobody_used_it_for_its_time() {
    let redis = Redis::start().await;
    let server = ModelServer::start(vec![Script::says("Hello.")]).await;
    let agent = with_model(agent("coding"), &server)
        .env("REDIS_URL", &redis.url())
        .flag("--session-ttl", "50ms")
        .start()
        .await;
    say(&agent, "s", "I am Ada.").await;
    while redis.ask("EXISTS switchyard:session:coding:s").await.unwrap().starts_with(":1") {}
    say(&agent, "s", "Who am I?").await;
    assert_eq!(read(&server, 1).len(), 1);
}

#[tokio::test]
async fn with_redis_away_requests_go_on_without_memory_and_say_so() {
    let mut redis = Redis::start().await;
    let server = ModelServer::start(vec![Script::says("Hello.")]).await;
    let agent = with_model(agent("coding"), &server).env("REDIS_URL", &redis.url()).start().await;
    say(&agent, "s", "I am Ada.").await;
    let (status, health) = checks(&agent).await;
    assert_eq!((status, &health["checks"]["redis"]), (200, &json!("ok")));
    redis.down().await;
    until_health(&agent, "down").await;
    assert_eq!(agent.get("/readyz").await.0, 200, "it works without");
    assert_eq!(agent.get("/livez").await.0, 200);
    let events = agent.events(&json!({"input": "Who am I?", "session_id": "s"})).await;
    assert_eq!(events[0].1["name"], "memory", "{events:?}");
    assert_eq!(events.last().unwrap().1["metadata"]["memory"], "down");
    assert_eq!(read(&server, 1), ["Who am I?"]);
    redis.up().await;
    until_health(&agent, "ok").await;
    say(&agent, "s", "Who am I?").await;
    assert_eq!(read(&server, 2), ["I am Ada.", "Hello.", "Who am I?"], "what was kept is back");
    assert!(!agent.log().contains("panicked"));
}

async fn until_health(agent: &Agent, state: &str) {
    while checks(agent).await.1["checks"]["redis"] != state {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_agent_that_needs_redis_takes_no_work_without() {
    let mut redis = Redis::start().await;
    let agent = agent("qa")
        .env("REDIS_URL", &redis.url())
        .env("AGENT_REQUIRE", "redis,index")
        .start()
        .await;
    assert_eq!(agent.get("/readyz").await, (200, "ok\n".to_owned()));
    redis.down().await;
    while agent.get("/readyz").await.0 != 503 {}
    assert_eq!(agent.get("/readyz").await.1, "redis is down\n");
    let refused = agent.post(&json!({"input": "drain"})).send().await.unwrap();
    assert_eq!(refused.headers()["x-switchyard-not-begun"], "1");
    assert_eq!(problem(refused).await["code"], "dependency-down");
    redis.up().await;
    while agent.get("/readyz").await.0 != 200 {}
    agent.ask("drain").await;
}

#[tokio::test]
async fn a_probe_storm_is_one_look_at_each_dependency() {
    let server = ModelServer::start(vec![Script::says("hi")]).await;
    let agent = with_model(agent("qa"), &server).start().await;
    let probes = (0..200).map(|_| agent.get("/health"));
    let answers = futures_util::future::join_all(probes).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    let looks = server.looks();
    // The storm may last longer than the second that a look is good for.
    assert!((1..=5).contains(&looks), "{looks} looks for 200 probes");
}

#[tokio::test]
async fn a_password_of_redis_is_told_nowhere() {
    let url = "redis://:very-secret@127.0.0.1:1/0";
    let agent = agent("qa").env("REDIS_URL", url).start().await;
    let response = agent.post(&json!({"input": "drain", "session_id": "s"})).send().await.unwrap();
    assert_eq!(reply(response).await["metadata"]["memory"], "down");
    until("the log says so", || agent.log().contains("Redis is away")).await;
    assert!(!agent.log().contains("very-secret"));
    let (status, said) =
        crate::harness::agent("qa").env("REDIS_URL", "http://very-secret").fail().await;
    assert_eq!(status, Some(1));
    assert!(said.contains("REDIS_URL is no URL") && !said.contains("very-secret"), "{said}");
}
