//! `switchyard invoke` against replies of every kind.

use std::io::{Read, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use super::{nobody, outcome, reply, run, server, switchyard};

fn sse(events: &str) -> String {
    reply("200 OK", "text/event-stream", events)
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn a_whole_reply_prints_its_output() {
    let (url, requests) =
        server(&[&reply("200 OK", "application/json", r#"{"output":"Hi.","metadata":{}}"#)]);
    let ran = run(&["invoke", "qa", "Hello?", "--session", "s 1", "--url", &url]);
    assert_eq!(ran, (Some(0), "Hi.\n".into(), String::new()));
    let request = requests.join().unwrap().remove(0);
    assert!(request.starts_with("POST /agents/qa/invoke HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nx-session-id: s 1\r\n"), "{request}");
    assert_eq!(body(&request), json!({"input": "Hello?", "session_id": "s 1"}));
}

#[test]
fn a_stream_prints_tokens_on_stdout_and_steps_on_stderr() {
    let events = "event: step\ndata: {\"text\":\"searching\"}\n\n\
                  event: token\ndata: {\"text\":\"Good \"}\n\n: beat\n\n\
                  event: token\ndata: {\"text\":\"day\"}\n\n\
                  event: tool_call\ndata: {\"name\":\"run\",\"arguments\":{\"command\":\"ls\"}}\n\n\
                  event: token\ndata: {\"text\":\".\"}\n\n\
                  event: final\ndata: {\"output\":\"Good day.\"}\n\n";
    let (url, requests) = server(&[&sse(events)]);
    let (code, out, err) = run(&["invoke", "qa", "Hello?", "--stream", "--url", &url]);
    assert_eq!((code, out.as_str()), (Some(0), "Good day\n.\n"));
    assert_eq!(err, "step: searching\ntool call: run {\"command\":\"ls\"}\n");
    let request = requests.join().unwrap().remove(0);
    assert!(request.contains("\r\naccept: text/event-stream, application/json\r\n"), "{request}");
    assert_eq!(body(&request)["stream"], true);
}

#[test]
fn a_stream_without_tokens_prints_the_final_output() {
    let (url, _) = server(&[&sse("event: final\ndata: {\"output\":\"Done.\"}\n\n")]);
    assert_eq!(
        run(&["invoke", "qa", "x", "--stream", "--url", &url]),
        (Some(0), "Done.\n".into(), String::new())
    );
}

#[test]
fn a_problem_is_one_line_on_stderr() {
    let problem = r#"{"type":"urn:switchyard:error:queue-full","title":"Queue full","status":503,
        "detail":"64 requests wait for qa.","code":"queue-full","request_id":"r1","agent":"qa"}"#;
    let (url, _) =
        server(&[&reply("503 Service Unavailable", "application/problem+json", problem)]);
    let (code, out, err) = run(&["invoke", "qa", "x", "--url", &url]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(err, "error: Queue full: 64 requests wait for qa. (queue-full, request r1)\n");
}

#[test]
fn an_error_event_ends_in_exit_code_1() {
    let events = "event: token\ndata: {\"text\":\"Half\"}\n\n\
                  event: error\ndata: {\"title\":\"Agent silent\",\"detail\":\"No data for 60 s.\",\"code\":\"idle-timeout\"}\n\n";
    let (url, _) = server(&[&sse(events)]);
    let (code, out, err) = run(&["invoke", "qa", "x", "--stream", "--url", &url]);
    assert_eq!((code, out.as_str()), (Some(1), "Half\n"));
    assert_eq!(err, "error: Agent silent: No data for 60 s. (idle-timeout)\n");
}

#[test]
fn a_stream_that_breaks_or_ends_early_is_an_error() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let event = "event: token\ndata: {\"text\":\"Half\"}\n\n";
    let cut = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n", event.len());
    for reply in [&cut, &format!("{cut}0\r\n\r\n")] {
        let (url, _) = server(&[reply]);
        let (code, out, err) = run(&["invoke", "qa", "x", "--stream", "--url", &url]);
        assert_eq!((code, out.as_str()), (Some(1), "Half\n"));
        assert!(err.starts_with("error: the reply broke off: "), "{err}");
    }
}

#[test]
fn input_comes_from_stdin_where_none_is_given() {
    for arguments in [&["invoke", "qa"][..], &["invoke", "qa", "-"]] {
        let (url, requests) = server(&[&reply("200 OK", "application/json", r#"{"output":"ok"}"#)]);
        let mut command = switchyard(arguments);
        command.env("SWITCHYARD_URL", url).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
        assert_eq!(outcome(child.wait_with_output().unwrap()).1, "ok\n");
        assert_eq!(body(&requests.join().unwrap()[0])["input"], "from a pipe");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let tokens = "event: token\ndata: {\"text\":\"word \"}\n\n".repeat(100_000);
    let (url, _) = server(&[&sse(&format!("{tokens}event: final\ndata: {{}}\n\n"))]);
    let mut command = switchyard(&["invoke", "qa", "x", "--stream", "--url", &url]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let (code, _, err) = outcome(child.wait_with_output().unwrap());
    assert_eq!((&first, code, err.as_str()), (b"word ", Some(0), ""));
}

#[test]
fn where_nobody_listens_it_says_what_to_do() {
    let url = nobody();
    let (code, _, err) = run(&["invoke", "qa", "x", "--url", &url]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with(&format!("error: no gateway at {url}/: ")), "{err}");
    assert!(err.contains("Connection refused") && err.contains("switchyard up"), "{err}");
    assert_eq!(err.lines().count(), 1);
}
