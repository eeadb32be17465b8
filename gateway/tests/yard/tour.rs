//! What a newcomer does first: start it, ask, stream, look.

use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{CEILING, Yard, outcome, project, soon, switchyard, until, yard};
use crate::installed::INSTALL;
use crate::stream::tokens;
use crate::table::{memory_limit, shipped};

const QUESTION: &str = "How do I add an agent type?";

#[tokio::test]
async fn the_curl_line_that_up_prints_works_as_soon_as_it_stands_there() {
    let yard = yard(&shipped()).start().await;
    assert!(yard.url.starts_with("http://127.0.0.1:") && yard.admin.starts_with("http://127."));
    let line = yard.out.starting("try: ").await;
    assert!(line.starts_with("curl ") && line.contains(&yard.url), "{line}");
    let mut shell = Command::new("sh");
    let (code, out, err) = outcome(soon("curl", shell.args(["-c", &line]).output()).await.unwrap());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("event: token\n"), "{out}");
    let last = out.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: final\ndata: {"), "{last}");
    let printed = yard.out.all();
    let runs = |agent: &str| printed.iter().any(|line| line.starts_with(agent));
    let qa = memory_limit("qa") >> 20;
    let coding = memory_limit("coding") as f64 / f64::from(1 << 30);
    assert!(runs(&format!("qa: 1 replica of at most {qa} MiB, ")), "{printed:?}");
    assert!(runs(&format!("coding: 1 replica of at most {coding:.2} GiB, ")), "{printed:?}");
    yard.end().await;
}

/// Waits until both agents take requests.
async fn ready(yard: &Yard) {
    for agent in ["qa", "coding"] {
        yard.until_replicas(agent, 1).await;
    }
}

fn check_answer(text: &str) {
    assert!(text.contains("config/switchyard.toml") && text.contains("[agents."), "{text}");
    assert!(text.contains("Source: docs/"), "{text}");
    assert!(text.starts_with("No language model is configured"), "{text}");
}

#[tokio::test]
async fn a_question_is_answered_with_sources_in_every_way_of_asking() {
    let yard = yard(&shipped()).start().await;
    ready(&yard).await;

    let reply = yard.ask("qa", QUESTION).await;
    check_answer(reply["output"].as_str().unwrap());
    assert_eq!(reply["metadata"]["model"], "none");
    assert_eq!(reply["metadata"]["agent"], "qa");

    let mut stream = yard.open("qa", QUESTION).await;
    let events = stream.good(Vec::new()).await;
    assert!(events.iter().filter(|event| event.name == "token").count() > 10);
    assert_eq!(events.last().unwrap().data["output"], reply["output"]);
    assert_eq!(tokens(&events), reply["output"]);

    let (code, out, err) = yard.run(&["invoke", "qa", QUESTION]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(Value::from(out), reply["output"]);
    let (code, out, err) = yard.run(&["invoke", "qa", QUESTION, "--stream"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(Value::from(out), reply["output"]);
    yard.end().await;
}

#[tokio::test]
async fn status_shows_what_runs_and_what_it_uses() {
    let yard = yard(&shipped()).start().await;
    ready(&yard).await;
    yard.ask("qa", QUESTION).await;
    let (code, out, err) = yard.run(&["status"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("TYPE "), "{out}");
    for (agent, capacity) in [("qa", "0/16"), ("coding", "0/4")] {
        let row = lines.iter().find(|line| line.starts_with(agent)).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells[1..3], ["1/1", capacity], "{out}");
        assert!(row.ends_with("MiB") || row.ends_with('-'), "{out}");
    }
    assert!(out.contains("\ntable: generation 1, hash "), "{out}");
    yard.end().await;
}

#[tokio::test]
async fn the_shipped_table_passes_the_strict_check() {
    let mut check = switchyard(&["check", "--strict", "--config", "config/switchyard.toml"]);
    let (code, out, err) = outcome(soon("the check", check.output()).await.unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("2 agents (coding, qa)"), "{out}");
}

/// The `sh` blocks of a section of the README.
fn blocks(title: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(project().join("README.md")).unwrap();
    let section = readme.split("\n## ").find(|part| part.starts_with(title)).expect("a section");
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// Waits until everything runs that the table wants.
async fn settled(yard: &Yard) {
    until("all replicas are ready", async || {
        let state = yard.api("agents").await;
        state["agents"].as_array().unwrap().iter().all(|agent| agent["ready"] == agent["desired"])
    })
    .await;
}

/// Types a block in a second terminal: on another port, with another file, and an end. Gives what it printed.
async fn type_in(yard: &Yard, block: &str, within: Duration) -> String {
    let block = block
        .replace("http://127.0.0.1:8080", &yard.url)
        .replace("config/switchyard.toml", yard.file().to_str().unwrap())
        .replace("status --watch", "status");
    let generation = yard.api("table").await["generation"].as_u64().unwrap();
    let before = std::fs::read(yard.file()).unwrap();
    let mut shell = yard.shell(&block);
    let ended = tokio::time::timeout(within, shell.output()).await;
    let output = ended.unwrap_or_else(|_| panic!("not done within {within:?}: {block}"));
    let (code, out, err) = outcome(output.unwrap());
    assert_eq!(code, Some(0), "{block}: {err}");
    assert!(!out.contains("urn:switchyard:error"), "{block}: {out}");
    if std::fs::read(yard.file()).unwrap() != before {
        yard.until_generation(generation + 1).await;
        settled(yard).await;
    }
    out
}

#[tokio::test]
async fn the_tour_of_the_readme_works_as_it_is_written() {
    let yard = yard(&shipped()).start().await;
    ready(&yard).await;
    let blocks = blocks("A tour");
    assert!(blocks.len() >= 5, "{blocks:?}");
    for block in blocks {
        let out = type_in(&yard, &block, CEILING).await;
        let edits = block.contains("config/switchyard.toml");
        assert!(edits || !out.is_empty(), "{block} says nothing");
    }
    yard.until_replicas("qa", 2).await;
    assert_eq!(yard.replicas("qa").len(), 3, "two of qa, one of the new type");
    yard.end().await;
}

#[tokio::test]
async fn the_agent_of_the_readme_works_from_a_copy_and_paste() {
    let yard = yard(&shipped()).start().await;
    ready(&yard).await;
    let blocks = blocks("Your own agent");
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    assert!(blocks[0].contains("pip install") && blocks[1].contains("[agents.hello]"));
    for block in &blocks[..2] {
        type_in(&yard, block, INSTALL).await;
    }
    assert_eq!(type_in(&yard, &blocks[2], CEILING).await.trim_end(), "You said: Good morning");
    let events = yard.open("hello", "Good morning").await.good(Vec::new()).await;
    assert_eq!(events.last().unwrap().data["metadata"]["agent"], "fastapi");
    yard.end().await;
}
