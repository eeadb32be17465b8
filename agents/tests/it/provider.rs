//! The model's side: streams however they are cut, refusals, retries, silence.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Agent, agent, problem, tokens};
use crate::model_server::{ModelServer, Script, end, text};

// `coding` passes an answer on as it is; `qa` judges it.
async fn agent_with(server: &ModelServer) -> Agent {
    agent("coding")
        .env("OPENAI_BASE_URL", &server.url)
        .env("OPENAI_API_KEY", "sk-very-secret")
        .env("AGENT_MODEL", "m")
        .flag("--model-first-byte-timeout", "300ms")
        .flag("--model-idle-timeout", "300ms")
        .start()
        .await
}

async fn refused(scripts: Vec<Script>) -> (Value, usize) {
    let server = ModelServer::start(scripts).await;
    let agent = agent_with(&server).await;
    let response = agent.post(&json!({"input": "drain"})).send().await.unwrap();
    (problem(response).await, server.seen().len())
}

async fn answered(scripts: Vec<Script>) -> (String, usize) {
    let server = ModelServer::start(scripts).await;
    let agent = agent_with(&server).await;
    let reply = agent.ask("drain").await;
    let output = reply["output"].as_str().unwrap();
    (output.split("\n\nSources:").next().unwrap().to_owned(), server.seen().len())
}

#[tokio::test]
async fn a_stream_may_be_cut_within_lines_and_characters() {
    let answer = [text("Grüße, "), text("🦀!"), end("stop")].concat();
    let stream = format!("\u{feff}: a comment\r\n\r\n{}", answer.replace('\n', "\r\n"));
    assert_eq!(answered(vec![Script::bytewise(&stream)]).await.0, "Grüße, 🦀!");
}

#[tokio::test]
async fn a_stream_without_done_is_whole_when_it_gave_a_reason_to_finish() {
    let mut last = end("stop");
    last.truncate(last.find("data: [DONE]").unwrap());
    assert_eq!(answered(vec![Script::stream(&[text("hi"), last])]).await.0, "hi");
}

#[tokio::test]
async fn an_answer_in_one_piece_is_taken_too() {
    let body = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}]});
    let script = Script::status("200 OK", "", &body.to_string());
    assert_eq!(answered(vec![script]).await.0, "whole");
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says() {
    let busy = Script::status("429 Too Many Requests", "retry-after: 1\r\n", "{}");
    let started = Instant::now();
    assert_eq!(answered(vec![busy, Script::says("hi")]).await, ("hi".to_owned(), 2));
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_failing_server_is_asked_again_but_not_for_ever() {
    let failing =
        Script::status("500 Internal Server Error", "", r#"{"error":{"message":"oops"}}"#);
    let recovered = vec![failing.clone(), failing.clone(), Script::says("hi")];
    assert_eq!(answered(recovered).await, ("hi".to_owned(), 3));
    let (problem, asked) = refused(vec![failing]).await;
    assert_eq!(
        (problem["code"].as_str(), problem["status"].as_u64()),
        (Some("model-failed"), Some(502))
    );
    assert!(problem["detail"].as_str().unwrap().contains("oops"));
    assert_eq!(asked, 4);
}

#[tokio::test]
async fn a_server_that_asks_for_too_long_a_wait_is_not_waited_for() {
    let busy = Script::status("429 Too Many Requests", "retry-after: 3600\r\n", "{}");
    let server = ModelServer::start(vec![busy]).await;
    let agent = agent_with(&server).await;
    let response = agent.post(&json!({"input": "drain"})).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "3600");
    assert_eq!(problem(response).await["code"], "model-busy");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_told_and_not_repeated() {
    let wrong = Script::status("401 Unauthorized", "", r#"{"error":{"message":"bad key"}}"#);
    let (problem, asked) = refused(vec![wrong]).await;
    assert_eq!(
        (problem["code"].as_str(), problem["status"].as_u64()),
        (Some("model-refused"), Some(502))
    );
    assert!(problem["detail"].as_str().unwrap().contains("bad key"));
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error_and_never_an_end() {
    let half = [text("half an ans")];
    for script in [
        Script::broken(&half),
        Script::stream(&half),
        Script::stream(&[
            text("half an ans"),
            "data: {\"error\":{\"message\":\"crash\"}}\n\n".to_owned(),
        ]),
    ] {
        let server = ModelServer::start(vec![script]).await;
        let agent = agent_with(&server).await;
        let events = agent.events(&json!({"input": "drain"})).await;
        let (name, last) = events.last().unwrap();
        assert_eq!(name, "error");
        assert_eq!(last["status"], 502);
        assert_eq!(tokens(&events), "half an ans");
        assert!(!events.iter().any(|(name, _)| name == "final"));
        let whole = agent.post(&json!({"input": "drain"})).send().await.unwrap();
        assert_eq!(problem(whole).await["status"], 502);
        assert_eq!(server.seen().len(), 2, "what has begun to answer is not asked again");
    }
}

#[tokio::test]
async fn silence_before_and_within_an_answer_is_bounded() {
    for (script, clock) in
        [(Script::silent(), "first byte"), (Script::hanging(&[text("hm")]), "idle")]
    {
        let (problem, asked) = refused(vec![script]).await;
        assert_eq!(
            (problem["code"].as_str(), problem["status"].as_u64()),
            (Some("model-timeout"), Some(504))
        );
        assert!(problem["detail"].as_str().unwrap().contains(clock), "{problem}");
        assert_eq!(asked, 1);
    }
}

#[tokio::test]
async fn a_turn_is_bounded_as_a_whole_attempts_and_waits_included() {
    let busy = Script::status("429 Too Many Requests", "retry-after: 20\r\n", "{}");
    for script in [busy, Script::hanging(&[text("hm")]), Script::silent()] {
        let server = ModelServer::start(vec![script]).await;
        let agent = agent("qa")
            .env("OPENAI_BASE_URL", &server.url)
            .env("AGENT_MODEL", "m")
            .flag("--model-timeout", "300ms")
            .start()
            .await;
        let response = agent.post(&json!({"input": "drain"})).send().await.unwrap();
        let problem = problem(response).await;
        assert_eq!(problem["code"], "model-timeout");
        assert!(problem["detail"].as_str().unwrap().contains("300 ms (total)"), "{problem}");
    }
}

#[tokio::test]
async fn what_is_no_chat_completion_is_said_to_be_none() {
    let page = Script::status("200 OK", "", "<html>hello</html>");
    assert_eq!(refused(vec![page]).await.0["code"], "model-bad-response");
    let odd = Script::stream(&["data: hello\n\n".to_owned()]);
    assert_eq!(refused(vec![odd]).await.0["code"], "model-bad-response");
}

#[tokio::test]
async fn the_whole_request_is_bounded() {
    let server = ModelServer::start(vec![Script::hanging(&[text("hm")])]).await;
    let agent = agent("qa")
        .env("OPENAI_BASE_URL", &server.url)
        .env("AGENT_MODEL", "m")
        .flag("--timeout", "300ms")
        .start()
        .await;
    let response = agent.post(&json!({"input": "drain"})).send().await.unwrap();
    assert_eq!(problem(response).await["code"], "timeout");
}

#[tokio::test]
async fn id_trace_and_key_go_to_the_model_and_the_key_nowhere_else() {
    let server = ModelServer::start(vec![Script::says("hi")]).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let agent = agent_with(&server).await;
    let request = agent.post(&json!({"input": "drain"}));
    let request = request.header("x-request-id", "abc").header("traceparent", trace);
    assert!(!request.send().await.unwrap().text().await.unwrap().contains("sk-very-secret"));
    let head = server.seen()[0].head.clone();
    assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
    for line in [
        "x-request-id: abc",
        "authorization: Bearer sk-very-secret",
        &format!("traceparent: {trace}"),
    ] {
        assert!(head.lines().any(|has| has == line), "{line} is not in {head}");
    }
    let asked = server.seen()[0].body.clone();
    assert_eq!((&asked["model"], &asked["stream"]), (&json!("m"), &json!(true)));
    assert!(!agent.log().contains("sk-very-secret"));
}

#[tokio::test]
async fn a_server_that_needs_no_key_gets_none() {
    let server = ModelServer::start(vec![Script::says("hi")]).await;
    let agent = agent("qa")
        .env("OPENAI_BASE_URL", &server.url)
        .env("OPENAI_API_KEY", "")
        .env("AGENT_MODEL", "m")
        .start()
        .await;
    agent.ask("drain").await;
    assert!(!server.seen()[0].head.to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn a_setting_that_is_missing_or_wrong_is_one_clear_line() {
    let (status, said) = agent("qa").env("OPENAI_BASE_URL", "http://127.0.0.1:1/v1").fail().await;
    assert_eq!(status, Some(1));
    assert!(said.contains("AGENT_MODEL"), "{said}");
    let wrong = agent("qa").env("OPENAI_BASE_URL", "localhost:11434").env("AGENT_MODEL", "m");
    let (status, said) = wrong.fail().await;
    assert_eq!(status, Some(1));
    assert!(said.contains("OPENAI_BASE_URL"), "{said}");
}
