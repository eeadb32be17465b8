//! Which agent a request is for: every key, and what happens where keys disagree or are missing.

use serde_json::{Value, json};

use crate::agent::{Agent, answers, echoes};
use crate::ask::{Ask, ask, get, post};
use crate::client::Client;
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http};

/// Two agents that answer with their own name.
struct Two {
    gateway: Gateway,
    qa: Agent,
    coding: Agent,
}

async fn two() -> Two {
    two_with("").await
}

async fn two_with(settings: &str) -> Two {
    let (qa, coding) = (answers(r#"{"i":"qa"}"#).await, answers(r#"{"i":"coding"}"#).await);
    let text = format!(
        "[gateway]\n{settings}\n{}{}",
        agent("qa", &[qa.addr], "description = \"Answers\""),
        agent("coding", &[coding.addr], "")
    );
    Two { gateway: Gateway::start(&text).await, qa, coding }
}

impl Two {
    /// Asserts that a request is answered by the agent of this name, over both protocols.
    async fn check(&self, ask: Ask, name: &str) {
        for http in BOTH {
            let reply = self.gateway.ask_by(http, ask.clone()).await.ok();
            assert_eq!(reply.json()["i"], name, "{http:?} {ask:?}");
        }
    }

    /// Asserts that a request is refused and reaches nobody, over both protocols; one of `codes`.
    async fn check_refused(&self, ask: Ask, codes: &[&str]) -> Value {
        let mut problem = Value::Null;
        for http in BOTH {
            let reply = self.gateway.ask_by(http, ask.clone()).await;
            let code = reply.code().unwrap_or("no error");
            assert!(codes.contains(&code), "{http:?} {ask:?}: {code}, not {codes:?}");
            problem = reply.json();
        }
        assert_eq!(self.qa.count() + self.coding.count(), 0, "{ask:?} reached an agent");
        problem
    }
}

#[tokio::test]
async fn a_header_names_the_agent() {
    let two = two().await;
    two.check(post("/invoke", "{}").header("x-agent-type", "qa"), "qa").await;
    two.check(post("/invoke", "{}").header("x-agent-type", "coding"), "coding").await;
    assert_eq!(two.qa.seen()[0].word(1), "/invoke");
}

#[tokio::test]
async fn a_query_parameter_names_the_agent() {
    let two = two().await;
    two.check(post("/invoke?agent=coding", "{}"), "coding").await;
    two.check(post("/invoke?x=1&agent=qa&y=%26", "{}"), "qa").await;
    assert!(two.qa.seen()[0].word(1).starts_with("/invoke"), "{:?}", two.qa.seen()[0]);
}

#[tokio::test]
async fn a_member_of_the_body_names_the_agent() {
    let two = two().await;
    for body in [
        r#"{"agent":"coding"}"#,
        r#" { "input" : "x" , "agent" : "coding" } "#,
        r#"{"input":{"agent":"qa"},"list":[{"agent":"qa"}],"agent":"coding"}"#,
        r#"{"input":"\"agent\":\"qa\"","agent":"coding"}"#,
        "{\"\\u0061gent\":\"codin\\u0067\"}",
    ] {
        two.check(post("/invoke", body), "coding").await;
        let chunks: Vec<Vec<u8>> = body.bytes().map(|b| vec![b]).collect();
        two.check(ask("POST", "/invoke").chunks(chunks), "coding").await;
    }
}

#[tokio::test]
async fn a_header_that_names_the_agent_goes_before_the_body() {
    let two = two().await;
    let body = r#"{"agent":"qa"}"#;
    two.check(post("/invoke", body).header("x-agent-type", "coding"), "coding").await;
    two.check(post("/invoke?agent=coding", body), "coding").await;
    two.check(post("/invoke?agent=coding", "no JSON"), "coding").await;
}

#[tokio::test]
async fn a_header_and_a_query_may_say_the_same() {
    let two = two().await;
    two.check(post("/invoke?agent=qa", "").header("x-agent-type", "qa"), "qa").await;
}

#[tokio::test]
async fn a_header_and_a_query_that_differ_are_ambiguous() {
    let two = two().await;
    let ask = post("/invoke?agent=qa", "{}").header("x-agent-type", "coding");
    two.check_refused(ask, &["ambiguous-agent"]).await;
}

#[tokio::test]
async fn two_headers_or_two_parameters_that_differ_are_ambiguous() {
    let two = two().await;
    let headers =
        post("/invoke", "{}").header("x-agent-type", "coding").header("x-agent-type", "qa");
    two.check_refused(headers, &["ambiguous-agent"]).await;
    two.check_refused(post("/invoke?agent=qa&agent=coding", "{}"), &["ambiguous-agent"]).await;
}

#[tokio::test]
async fn a_body_that_names_the_agent_twice_is_ambiguous() {
    let two = two().await;
    for body in [
        r#"{"agent":"qa","agent":"coding"}"#,
        r#"{"agent":"qa","agent":"qa"}"#,
        r#"{"agent":"qa","\u0061gent":"coding"}"#,
    ] {
        two.check_refused(post("/invoke", body), &["ambiguous-agent"]).await;
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_names_no_agent() {
    let two = two().await;
    for body in ["", "null", "[]", r#"["agent","qa"]"#, r#""qa""#, "agent=qa", r#"{"agent":"qa""#] {
        two.check_refused(post("/invoke", body), &["no-agent", "bad-request"]).await;
    }
    two.check_refused(ask("POST", "/invoke"), &["no-agent", "bad-request"]).await;
}

#[tokio::test]
async fn a_body_without_the_member_names_no_agent() {
    let two = two().await;
    two.check_refused(post("/invoke", r#"{"input":"x"}"#), &["no-agent"]).await;
    for body in [r#"{"agent":7}"#, r#"{"agent":null}"#, r#"{"agent":["qa"]}"#] {
        two.check_refused(post("/invoke", body), &["no-agent", "bad-request"]).await;
    }
}

#[tokio::test]
async fn the_agent_must_be_named_within_the_bound() {
    let two = two_with("route_body_max = \"1KiB\"").await;
    let late = json!({"input": "x".repeat(2000), "agent": "qa"}).to_string();
    two.check_refused(post("/invoke", late), &["no-agent"]).await;
    let early = json!({"agent": "qa", "input": "x".repeat(500)}).to_string();
    two.check(post("/invoke", early), "qa").await;
}

#[tokio::test]
async fn a_body_that_was_read_to_find_the_agent_is_passed_on_unchanged() {
    let echo = echoes().await;
    let gateway = Gateway::start(&agent("echo", &[echo.addr], "")).await;
    let small = "{ \"agent\":\t\"echo\", \"n\": 1.50, \"\\u0061\": \"\\u00e9\" }\n";
    let big = json!({"agent": "echo", "input": "x".repeat(1 << 20)}).to_string();
    for body in [small, big.as_str()] {
        for http in BOTH {
            let whole = gateway.ask_by(http, post("/invoke", body.to_owned())).await.ok();
            assert!(whole.text() == body, "{http:?}: the body has changed");
            let (a, b) = body.split_at(20);
            let chunks = ask("POST", "/invoke").chunks([a.to_owned(), b.to_owned()]);
            let chunked = gateway.ask_by(http, chunks).await.ok();
            assert!(chunked.text() == body, "{http:?}: the chunked body has changed");
        }
    }
}

#[tokio::test]
async fn invoke_takes_nothing_but_post() {
    let two = two().await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"] {
        let ask = ask(method, "/invoke").header("x-agent-type", "qa");
        let reply = two.gateway.ask(ask).await;
        assert_eq!(reply.code(), Some("method-not-allowed"), "{method}");
        assert_eq!(reply.header("allow"), Some("POST"), "{method}");
    }
}

#[tokio::test]
async fn a_mount_passes_method_path_and_query() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for (method, path, expected) in [
        ("POST", "/agents/qa/invoke", "/invoke"),
        ("GET", "/agents/qa/runs/7?x=1&agent=other&y", "/runs/7?x=1&agent=other&y"),
        ("DELETE", "/agents/qa/a/b/c/", "/a/b/c/"),
        ("OPTIONS", "/agents/qa", "/"),
        ("PUT", "/agents/qa/", "/"),
        ("GET", "/agents/qa?q", "/?q"),
        ("GET", "/agents/qa/agents/qa", "/agents/qa"),
        ("PROPFIND", "/agents/qa/dav", "/dav"),
    ] {
        for http in BOTH {
            let open = gateway.open(http, ask(method, path)).await;
            let call = qa.call().await;
            assert_eq!((call.method(), call.target()), (method, expected), "{http:?} {path}");
            call.json("{}").await;
            open.whole().await.ok();
        }
    }
}

#[tokio::test]
async fn under_a_mount_the_path_alone_decides() {
    let two = two().await;
    let body = r#"{"agent":"coding"}"#;
    two.check(post("/agents/qa/invoke?agent=coding", body), "qa").await;
    two.check(post("/agents/qa/invoke", "{}").header("x-agent-type", "qa"), "qa").await;
}

#[tokio::test]
async fn under_a_mount_a_header_that_differs_is_ambiguous() {
    let two = two().await;
    let ask = post("/agents/qa/invoke", "{}").header("x-agent-type", "coding");
    two.check_refused(ask, &["ambiguous-agent"]).await;
}

#[tokio::test]
async fn an_unknown_agent_is_told_which_there_are_and_the_nearest() {
    let two = two().await;
    for ask in [
        get("/agents/codng/x"),
        post("/invoke?agent=codng", "{}"),
        post("/invoke", "{}").header("x-agent-type", "codng"),
        post("/invoke", r#"{"agent":"codng"}"#),
    ] {
        let problem = two.check_refused(ask, &["unknown-agent"]).await;
        let text = problem.to_string();
        assert!(text.contains("coding") && text.contains("qa"), "both are listed: {text}");
        assert!(problem["detail"].as_str().unwrap().contains("coding"), "the nearest: {text}");
    }
}

#[tokio::test]
async fn a_type_is_matched_byte_for_byte() {
    let two = two().await;
    for path in ["/agents/QA/x", "/agents/%71a/x", "/agents/q%61", "/agents/qa%20/x"] {
        two.check_refused(get(path), &["unknown-agent"]).await;
    }
    two.check_refused(post("/invoke", r#"{"agent":"Qa"}"#), &["unknown-agent"]).await;
}

#[tokio::test]
async fn the_agents_there_are_can_be_listed() {
    let two = two().await;
    for http in BOTH {
        let reply = two.gateway.ask_by(http, get("/agents")).await.ok();
        let expected = json!({"agents": [
            {"type": "coding", "description": "", "ready": true},
            {"type": "qa", "description": "Answers", "ready": true},
        ]});
        assert_eq!(reply.json(), expected);
    }
    let reply = two.gateway.ask(post("/agents", "{}")).await;
    reply.error("method-not-allowed");
    assert!(reply.headers.lists("allow", "GET"), "{:?}", reply.headers);
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let two = two().await;
    for path in ["/", "/invoke/x", "/Invoke", "/agent/qa", "/agentsqa", "/metrics", "/livez"] {
        two.check_refused(get(path), &["not-found"]).await;
    }
}

#[tokio::test]
async fn health_is_the_same_on_both_ports() {
    let two = two().await;
    let expected = json!({"status": "ok", "checks": {"coding": "ok", "qa": "ok"}});
    for reply in [
        two.gateway.ask(get("/health")).await.ok(),
        two.gateway.ask_by(Http::Two, get("/health")).await.ok(),
        two.gateway.admin("/health").await.ok(),
    ] {
        assert_eq!(reply.json()["status"], expected["status"], "{}", reply.text());
        for agent in ["coding", "qa"] {
            assert_eq!(reply.json()["checks"][agent], "ok", "{}", reply.text());
        }
    }
    let posted = two.gateway.ask(post("/health", "{}")).await;
    posted.error("method-not-allowed");
}

#[tokio::test]
async fn an_agent_gets_the_type_that_was_resolved() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for asked in [get("/agents/qa/x"), post("/invoke", r#"{"agent":"qa"}"#)] {
        let open = gateway.open(Http::One, asked).await;
        let call = qa.call().await;
        assert_eq!(call.head.headers.all("x-agent-type"), ["qa"]);
        call.json("{}").await;
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let echo = echoes().await;
    let gateway = Gateway::start(&agent("echo", &[echo.addr], "")).await;
    let mut conn = Client::of(gateway.addr).connect().await;
    let request = |body: &str| {
        let length = body.len();
        format!("POST /agents/echo/ HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    conn.send(["one", "second", "3"].map(request).concat()).await;
    for body in ["one", "second", "3"] {
        assert_eq!(conn.reply().await.ok().text(), body);
    }
}
