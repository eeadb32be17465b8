//! What operators see: probes, metrics, state, logs.

use serde_json::{Value, json};

use crate::agent::{Agent, answers, echoes};
use crate::ask::{get, post};
use crate::gateway::{Gateway, agent, sample};
use crate::reply::{BOTH, Http};

#[tokio::test]
async fn probes_say_that_it_lives_and_is_ready() {
    let gateway = Gateway::start(&agent("qa", &[answers("{}").await.addr], "")).await;
    gateway.admin("/livez").await.ok();
    gateway.admin("/readyz").await.ok();
    for path in ["/livez", "/readyz", "/metrics", "/api/table", "/api/agents"] {
        let reply = gateway.ask(get(path)).await;
        assert_eq!(reply.status, 404, "{path} is not on the clients' port");
    }
    assert_eq!(gateway.admin("/nothing").await.status, 404);
}

#[tokio::test]
async fn the_state_of_an_agent_is_told() {
    let (a, b) = (answers("{}").await, answers("{}").await);
    let settings = "description = \"Answers\"\nmax_in_flight = 3";
    let gateway = Gateway::start(&agent("qa", &[a.addr, b.addr], settings)).await;
    for _ in 0..3 {
        gateway.ask(post("/agents/qa/x", "{}")).await.ok();
    }
    gateway.until_state("qa", "in_flight", 0).await;
    let state = gateway.state("qa").await;
    for (member, value) in [
        ("type", json!("qa")),
        ("description", json!("Answers")),
        ("queued", json!(0)),
        ("held", json!(0)),
        ("load", json!(0)),
        ("ready", json!(2)),
        ("capacity", json!(6)),
        ("requests", json!(3)),
        ("errors", json!(0)),
    ] {
        assert_eq!(state[member], value, "{member} of {state}");
    }
    assert!(state["p50_ms"].is_number() && state["p99_ms"].is_number(), "{state}");
    let endpoints = state["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        assert_eq!((&endpoint["state"], &endpoint["in_flight"]), (&json!("ready"), &json!(0)));
    }
    let all = gateway.admin("/api/agents").await.ok().json();
    assert_eq!(all["agents"][0]["type"], "qa");
    assert_eq!(gateway.admin("/api/agents/nobody").await.status, 404);
}

#[tokio::test]
async fn what_has_no_value_yet_is_null() {
    let gateway = Gateway::start(&agent("qa", &[answers("{}").await.addr], "")).await;
    let state = gateway.state("qa").await;
    for member in ["p50_ms", "p99_ms", "capacity"] {
        assert_eq!(state.get(member), Some(&Value::Null), "{member} of {state}");
    }
}

#[tokio::test]
async fn the_table_in_force_is_told_without_its_secrets() {
    let secret = "[agents.qa.deployment]\ncommand = [\"agent\"]\n\
        env = { A = \"visible\" }\nsecrets = { KEY = \"agent-secrets/the-key\" }\n";
    let table = agent("qa", &[answers("{}").await.addr], "max_in_flight = 7") + secret;
    let gateway = Gateway::start(&table).await;
    let told = gateway.table().await;
    assert_eq!(told["generation"], 1);
    assert_eq!(told["hash"].as_str().unwrap().len(), 64);
    assert_eq!(told["refused"], Value::Null);
    let text = told["table"].to_string();
    assert!(text.contains("qa") && text.contains('7'), "{text}");
    assert!(!text.contains("the-key"), "{text}");
}

#[tokio::test]
async fn metrics_count_requests_by_agent_and_outcome() {
    let qa = Agent::with(|call| async move {
        match call.target() {
            "/500" => call.reply("500 Oops", "").await,
            "/404" => call.reply("404 No", "").await,
            "/reset" => call.reset(),
            _ => call.json("{}").await,
        }
    })
    .await;
    let settings = "eject = \"off\"\nretry = \"off\"";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    for http in BOTH {
        for path in ["200", "500", "404", "reset"] {
            gateway.ask_by(http, post(&format!("/agents/qa/{path}"), "{}")).await;
        }
        gateway.ask_by(http, post("/agents/nobody-the-wiser/x", "{}")).await.error("unknown-agent");
    }
    for (outcome, n) in [("ok", 4.0), ("upstream_error", 2.0), ("upstream-reset", 2.0)] {
        let labels = [("agent", "qa"), ("outcome", outcome)];
        gateway.until_metric("switchyard_requests_total", &labels, n).await;
    }
    let text = gateway.metrics().await;
    let unknown = sample(&text, "switchyard_requests_total", &[("outcome", "unknown-agent")]);
    assert_eq!(unknown, Some(2.0));
    assert!(!text.contains("nobody-the-wiser"), "a label came from a request");
    let count = |name: &str| sample(&text, &format!("{name}_count"), &[("agent", "qa")]);
    assert_eq!(count("switchyard_request_duration_seconds"), Some(8.0));
    assert_eq!(count("switchyard_first_byte_seconds"), Some(6.0));
    assert_eq!(sample(&text, "switchyard_in_flight", &[("agent", "qa")]), Some(0.0));
    assert_eq!(sample(&text, "switchyard_queued", &[("agent", "qa")]), Some(0.0));
    assert_eq!(sample(&text, "switchyard_held", &[("agent", "qa")]), Some(0.0));
    let ready = [("agent", "qa"), ("state", "ready")];
    assert_eq!(sample(&text, "switchyard_endpoints", &ready), Some(1.0));
    assert_eq!(sample(&text, "switchyard_table_generation", &[]), Some(1.0));
    assert_eq!(sample(&text, "switchyard_build_info", &[]), Some(1.0));
}

#[tokio::test]
async fn metrics_are_good_prometheus_text() {
    let gateway = Gateway::start(&agent("qa", &[echoes().await.addr], "")).await;
    gateway.ask(post("/agents/qa/x", "{}")).await;
    let reply = gateway.admin("/metrics").await.ok();
    let kind = reply.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let text = reply.text();
    let mut series = std::collections::HashSet::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("switchyard_") || name.starts_with("process_"), "{name}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.insert(name.to_owned()), "twice: {name}");
    }
    for name in [
        "switchyard_requests_total",
        "switchyard_request_duration_seconds",
        "switchyard_first_byte_seconds",
        "switchyard_queue_seconds",
        "switchyard_in_flight",
        "switchyard_queued",
        "switchyard_held",
        "switchyard_endpoints",
        "switchyard_retries_total",
        "switchyard_reloads_total",
        "switchyard_table_generation",
        "switchyard_build_info",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    for histogram in ["request_duration", "first_byte", "queue"] {
        let name = format!("switchyard_{histogram}_seconds");
        assert!(text.contains(&format!("# TYPE {name} histogram")), "{name}");
        let all = [("agent", "qa"), ("le", "+Inf")];
        let counted = sample(&text, &format!("{name}_bucket"), &all);
        let total = sample(&text, &format!("{name}_count"), &[("agent", "qa")]);
        assert_eq!(counted, total, "{name}");
    }
}

#[tokio::test]
async fn each_request_is_one_line_of_log_without_what_is_private() {
    let echo = echoes().await;
    let gateway = Gateway::start(&agent("qa", &[echo.addr], "")).await;
    for (n, http) in BOTH.into_iter().enumerate() {
        let id = format!("the-id-{n}");
        let asked = post("/agents/qa/x?key=private-query", "{\"input\":\"private-body\"}")
            .header("x-request-id", &id)
            .header("authorization", "Bearer private-token")
            .header("cookie", "session=private-cookie");
        gateway.ask_by(http, asked).await.ok();
        let line = gateway.logged(&[&id]).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let text = line.to_string();
        assert!(text.contains("qa") && text.contains("200"), "{text}");
    }
    gateway.ask(get("/agents/nobody/x").header("x-request-id", "the-id-2")).await;
    gateway.logged(&["the-id-2", "unknown-agent"]).await;
    for n in 0..3 {
        let of = |l: &&String| l.contains(&format!("the-id-{n}"));
        assert_eq!(gateway.log().iter().filter(of).count(), 1, "{:#?}", gateway.log());
    }
    let log = gateway.log().concat();
    for private in ["private-body", "private-token", "private-cookie", "private-query"] {
        assert!(!log.contains(private), "{private} is in the log");
    }
}

#[tokio::test]
async fn a_stream_is_logged_when_it_has_ended() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let asked = get("/agents/qa/x").header("x-request-id", "streaming");
    let mut open = gateway.open(Http::One, asked).await;
    let mut call = qa.call().await;
    call.begin_sse().await;
    call.event("one").await;
    open.until("one\n\n").await;
    assert!(!gateway.log().iter().any(|l| l.contains("streaming")), "{:#?}", gateway.log());
    call.end().await;
    open.rest().await.ok();
    gateway.logged(&["streaming", "200"]).await;
}

#[tokio::test]
async fn the_access_log_can_be_switched_off() {
    let echo = echoes().await;
    let table = format!("[gateway]\naccess_log = false\n{}", agent("qa", &[echo.addr], ""));
    let gateway = Gateway::start(&table).await;
    gateway.ask(post("/agents/qa/x", "{}").header("x-request-id", "unlogged")).await.ok();
    let labels = [("agent", "qa"), ("outcome", "ok")];
    gateway.until_metric("switchyard_requests_total", &labels, 1.0).await;
    assert!(!gateway.log().iter().any(|l| l.contains("unlogged")), "{:#?}", gateway.log());
}
