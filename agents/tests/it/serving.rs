//! What every agent serves: replies, refusals, probes, metrics.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{agent, agent_on, problem, reply, tokens};
use crate::model_server::{ModelServer, Script};

#[tokio::test]
async fn both_agents_answer_as_json_and_as_events_without_a_model() {
    for (kind, input) in
        [("qa", "How do I add an agent type?"), ("coding", "```sh\necho $((6*7))\n```")]
    {
        let agent = agent(kind).start().await;
        let whole = agent.ask(input).await;
        assert_eq!(whole["metadata"]["model"], "none");
        assert_eq!(whole["metadata"]["agent"], kind);
        assert!(whole["output"].as_str().unwrap().starts_with("No language model is configured"));
        let events = agent.events(&json!({ "input": input })).await;
        let (name, last) = events.last().unwrap();
        assert_eq!(name, "final");
        assert_eq!(tokens(&events), last["output"].as_str().unwrap());
        assert!(events.iter().any(|(name, _)| name == "step"));
        assert!(tokens(&events).contains(if kind == "qa" { "[agents." } else { "42" }));
    }
}

#[tokio::test]
async fn accepting_events_asks_for_them() {
    let agent = agent("qa").start().await;
    let request = agent.post(&json!({"input": "drain"}));
    let response = request.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
}

#[tokio::test]
async fn the_type_and_the_request_id_of_the_head_are_told_back() {
    let agent = agent("qa").start().await;
    let request = agent.post(&json!({"input": "drain", "agent": "qa", "session_id": "s"}));
    let request = request.header("x-agent-type", "summarise").header("x-request-id", "abc-1");
    let reply = reply(request.send().await.unwrap()).await;
    assert_eq!(reply["metadata"]["agent"], "summarise");
    assert_eq!(reply["metadata"]["request_id"], "abc-1");
    assert_eq!(reply["metadata"]["session_id"], "s");
}

#[tokio::test]
async fn a_wrong_request_is_told_what_is_wrong() {
    let agent = agent("qa").start().await;
    let url = format!("{}/invoke", agent.url);
    let send = async |body: String| {
        let response = agent.client.post(&url).body(body).send().await.unwrap();
        problem(response).await
    };
    let wrong = send("{".to_owned()).await;
    assert_eq!(wrong["status"], 400);
    assert!(wrong["detail"].as_str().unwrap().contains(r#"{"input": "your question"}"#));
    let large = send(json!({"input": "a".repeat(5 << 20)}).to_string()).await;
    assert_eq!(
        (large["status"].as_u64(), large["code"].as_str()),
        (Some(413), Some("body-too-large"))
    );

    let wrong_method = agent.client.get(&url).send().await.unwrap();
    assert_eq!(wrong_method.headers()["allow"], "POST");
    assert_eq!(problem(wrong_method).await["status"], 405);
    let nowhere = agent.client.get(format!("{}/nowhere", agent.url)).send().await.unwrap();
    assert_eq!(problem(nowhere).await["status"], 404);
}

#[tokio::test]
async fn a_large_body_of_unknown_length_is_refused_too() {
    let agent = agent("qa").start().await;
    let mut stream = TcpStream::connect(agent.address()).await.unwrap();
    let head = "POST /invoke HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("100000\r\n{}\r\n", "a".repeat(1 << 20));
    for _ in 0..5 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn over_its_limit_it_refuses_before_the_body_is_read() {
    let server = ModelServer::start(vec![Script::hanging(&[])]).await;
    let agent = agent("qa")
        .flag("--max-in-flight", "1")
        .env("OPENAI_BASE_URL", &server.url)
        .env("AGENT_MODEL", "m")
        .start()
        .await;
    let mut first = agent.post(&json!({"input": "drain", "stream": true})).send().await.unwrap();
    assert!(first.chunk().await.unwrap().is_some());
    let mut stream = TcpStream::connect(agent.address()).await.unwrap();
    let head = "POST /invoke HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("x-switchyard-not-begun: 1") && answer.contains("retry-after: 1"));
    let refused = problem(agent.post(&json!({"input": "a"})).send().await.unwrap()).await;
    assert_eq!(refused["code"], "at-limit");
}

#[tokio::test]
async fn a_place_is_free_again_when_its_client_has_left() {
    let server = ModelServer::start(vec![Script::hanging(&[]), Script::says("hi [1]")]).await;
    let agent = agent("qa")
        .flag("--max-in-flight", "1")
        .env("OPENAI_BASE_URL", &server.url)
        .env("AGENT_MODEL", "m")
        .start()
        .await;
    let mut first = agent.post(&json!({"input": "drain", "stream": true})).send().await.unwrap();
    assert!(first.chunk().await.unwrap().is_some());
    crate::harness::until("the model is asked", || server.seen().len() == 1).await;
    drop(first);
    server.left().await;
    assert!(agent.ask("drain").await["output"].as_str().unwrap().starts_with("hi"));
    assert!(
        agent.get("/metrics").await.1.contains(r#"agent_requests_total{outcome="client-gone"} 1"#)
    );
}

#[tokio::test]
async fn health_names_each_dependency() {
    let server = ModelServer::start(vec![Script::says("hi")]).await;
    let unreachable = "http://127.0.0.1:1/v1";
    for (url, status, word, model) in
        [(server.url.as_str(), 200, "ok", "ok"), (unreachable, 503, "degraded", "down")]
    {
        let agent = agent("qa").env("OPENAI_BASE_URL", url).env("AGENT_MODEL", "m").start().await;
        let (got, body) = agent.get("/health").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(got, status);
        assert_eq!(body, json!({"status": word, "checks": {"index": "ok", "model": model}}));
        assert_eq!(agent.get("/livez").await.0, 200);
        assert_eq!(agent.get("/readyz").await.0, 200);
    }
    let alone = agent("coding").start().await;
    let (_, body) = alone.get("/health").await;
    assert_eq!(body, r#"{"status":"ok","checks":{"workspace":"ok"}}"#);
}

#[tokio::test]
async fn metrics_count_requests_by_outcome() {
    let agent = agent("qa").start().await;
    agent.ask("drain").await;
    agent.client.post(format!("{}/invoke", agent.url)).body("{").send().await.unwrap();
    let (_, text) = agent.get("/metrics").await;
    for line in [
        r#"agent_requests_total{outcome="ok"} 1"#,
        r#"agent_requests_total{outcome="bad-request"} 1"#,
        "agent_in_flight 0",
        "agent_request_duration_seconds_count 2",
        r#"agent_tokens_total{kind="prompt"} 0"#,
    ] {
        assert!(text.lines().any(|has| has == line), "{line} is not in\n{text}");
    }
    let resident =
        text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    assert!(resident.unwrap().parse::<f64>().unwrap() > 1e6);
}

#[tokio::test]
async fn a_port_that_is_taken_is_one_clear_line() {
    let first = agent("qa").start().await;
    let port = first.address().rsplit(':').next().unwrap();
    let (status, said) = agent_on("qa", port).env("SWITCHYARD_LOG", "off").fail().await;
    assert_eq!(status, Some(1));
    assert!(
        said.starts_with("agent: cannot listen on 127.0.0.1:") && said.lines().count() == 1,
        "{said}"
    );
}

#[tokio::test]
async fn http_2_is_spoken_with_prior_knowledge() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let agent = agent("qa").start().await;
    let stream = TcpStream::connect(agent.address()).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let body = axum::body::Body::from(json!({"input": "drain"}).to_string());
    let url = format!("{}/invoke", agent.url);
    let request = hyper::Request::post(url).body(body).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body =
        axum::body::to_bytes(axum::body::Body::new(response.into_body()), 1 << 20).await.unwrap();
    let reply: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(reply["metadata"]["model"], "none");
}
