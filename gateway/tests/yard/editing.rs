//! The table edited while the yard runs and is used.

use crate::gate;
use crate::harness::{Yard, until, yard};
use crate::load::Load;
use crate::processes::until_gone;
use crate::table::{put, put_in, shipped, with_example};

/// An agent with replicas of its own.
const HANDBOOK: &str = r#"
[agents.handbook]
description = "Answers from the decisions"

[agents.handbook.deployment]
command = ["agent", "--type", "qa", "--docs", "docs/decisions"]
limits = { memory = "512MiB" }
"#;

/// Another `coding` agent, without a scale.
const RUNNER: &str = r#"
[agents.runner]
description = "Runs code"

[agents.runner.deployment]
command = ["agent", "--type", "coding", "--run-timeout", "60s"]
"#;

/// Whether clients are told of this agent, and that it is ready.
async fn is_offered(yard: &Yard, agent: &str) -> bool {
    let list = yard.http.get(format!("{}/agents", yard.url)).send().await.unwrap();
    let list: serde_json::Value = list.json().await.unwrap();
    list["agents"].as_array().unwrap().iter().any(|a| a["type"] == agent && a["ready"] == true)
}

async fn until_offered(yard: &Yard, agent: &str) {
    until(&format!("{agent} is offered"), async || is_offered(yard, agent).await).await;
}

#[tokio::test]
async fn agents_that_are_added_answer_without_a_restart_and_without_a_failed_request() {
    let yard = yard(&shipped()).start().await;
    yard.until_replicas("qa", 1).await;
    let (gateway, qa) = (yard.pid(), yard.replicas("qa"));
    let load = Load::start(&yard, "qa", 3);
    load.goes_on().await;

    yard.edit(with_example);
    until_offered(&yard, "summarise").await;
    let reply = yard.ask("summarise", "What are the five clocks?").await;
    assert_eq!(reply["metadata"]["agent"], "summarise");
    assert_eq!(yard.replicas("qa"), qa, "it runs in the replicas that there are");
    load.goes_on().await;

    yard.edit(|text| text.to_owned() + HANDBOOK);
    until_offered(&yard, "handbook").await;
    let reply = yard.ask("handbook", "Why is a FIN leaving?").await;
    assert_eq!(reply["metadata"]["agent"], "handbook");
    let source = reply["metadata"]["sources"][0]["file"].as_str().unwrap();
    assert!(source.contains("004-a-fin-is-leaving.md"), "{source}");
    load.goes_on().await;

    let running = yard.replicas("qa");
    assert!(yard.pid() == gateway && running.len() == 2 && running.contains(&qa[0]));
    load.unharmed().await;
    yard.end().await;
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_is_told_until_it_is_mended() {
    let yard = yard(&shipped()).start().await;
    yard.until_replicas("qa", 1).await;
    let load = Load::start(&yard, "qa", 2);
    yard.edit(|text| put_in(text, "agents.qa.scale", "max = 4", "max = \"four\""));
    until("the edit is refused", async || !yard.api("table").await["refused"].is_null()).await;
    let state = yard.api("table").await;
    let problem = state["refused"]["problems"][0].as_str().unwrap();
    let text = std::fs::read_to_string(yard.file()).unwrap();
    let line = 1 + text.lines().position(|line| line.contains("\"four\"")).unwrap();
    assert!(problem.contains(&format!("switchyard.toml:{line}:")), "{problem}");
    assert_eq!(state["generation"], 1);
    let (code, out, _) = yard.run(&["status"]).await;
    assert!(code == Some(0) && out.contains("last edit refused") && out.contains(problem), "{out}");
    yard.log.line(&format!("switchyard.toml:{line}:")).await;
    let ready = yard.http.get(format!("{}/readyz", yard.admin)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    assert!(ready.text().await.unwrap().contains(&format!("switchyard.toml:{line}:")));
    load.goes_on().await;

    yard.edit(|text| put(text, "max = \"four\"", "max = 3"));
    yard.until_generation(2).await;
    assert!(yard.api("table").await["refused"].is_null());
    let (_, out, _) = yard.run(&["status"]).await;
    assert!(!out.contains("refused"), "{out}");
    load.goes_on().await;
    load.unharmed().await;
    yard.end().await;
}

#[tokio::test]
async fn an_agent_that_is_removed_finishes_what_it_has_begun() {
    let yard = yard(&(shipped() + RUNNER)).start().await;
    yard.until_replicas("runner", 1).await;
    let running = yard.replicas("coding");
    let waiting = gate::waiting(&yard, "runner").await;
    yard.edit(|text| put(text, RUNNER, ""));
    yard.log.line("up | runner: not run any more").await;
    until("runner is unknown", async || {
        let reply = yard.post("runner", &serde_json::json!({"input": "x"})).await;
        reply.status() == 404
    })
    .await;
    waiting.pass().await;
    yard.log.line("up | runner-1 stopped: it exited with status 0").await;
    until("one coding agent is left", async || yard.replicas("coding").len() == 1).await;
    let left = yard.replicas("coding");
    let gone: Vec<_> = running.into_iter().filter(|pid| !left.contains(pid)).collect();
    until_gone(&gone).await;
    yard.end().await;
}
