//! What can't be done is told in one clear line, and the rest works.

use serde_json::json;

use crate::harness::{Yard, yard};
use crate::table::{put, put_in, shipped, shipped_on};

/// The one line of `up` about this, which may come again only in other words.
async fn told(yard: &Yard, text: &str) -> String {
    let line = yard.log.line(text).await;
    assert_eq!(yard.log.with(text).len(), 1, "{:?}", yard.log.with(text));
    line
}

async fn status_of(yard: &Yard, agent: &str) -> String {
    let (_, out, _) = yard.run(&["status"]).await;
    let row = out.lines().find(|line| line.starts_with(agent)).expect("a row").to_owned();
    row.split_whitespace().nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, out, err) = yard(&shipped_on(&address)).fail().await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), 1, "{err}");
    assert!(lines[0].starts_with("error: ") && lines[0].contains(&address), "{err}");
    assert!(lines[0].contains("listen"), "{err}");
}

#[tokio::test]
async fn a_missing_secret_keeps_only_its_own_agent_from_starting() {
    let table = put_in(&shipped(), "agents.qa.deployment", "#secrets", "secrets");
    let yard = yard(&table).start().await;
    let line = told(&yard, "up | qa isn't started").await;
    assert!(line.contains("OPENAI_API_KEY") && line.contains("not set"), "{line}");
    yard.until_replicas("coding", 1).await;
    yard.ask("coding", "```sh\ntrue\n```\n").await;
    let reply = yard.post("qa", &json!({"input": "x"})).await;
    assert_eq!(reply.status(), 503);
    assert_eq!(reply.headers()["x-switchyard-error"], "no-endpoint");
    assert_eq!(status_of(&yard, "qa").await, "0/1");
    yard.end().await;
}

#[tokio::test]
async fn an_agent_that_does_not_start_is_told_with_its_own_words() {
    let missing = "\n[agents.absent.deployment]\ncommand = [\"no-such-program\"]\n";
    let table = put(
        &(shipped() + missing),
        r#"["agent", "--type", "qa"]"#,
        r#"["agent", "--type", "qa", "--docs", "/no/such/folder"]"#,
    );
    let yard = yard(&table).start().await;
    let line = yard.log.line("up | qa-1 exited with status 1").await;
    assert!(line.contains("before it was ready; starting it again in "), "{line}");
    let own = yard.log.line("qa-1 | agent: /no/such/folder is no folder").await;
    assert!(own.contains("--docs"), "{own}");
    let line = told(&yard, "up | absent-1 can't be started").await;
    assert!(line.contains("no program \"no-such-program\""), "{line}");
    assert_eq!(status_of(&yard, "absent").await, "0/1");

    yard.edit(|text| put(text, "/no/such/folder", "docs"));
    yard.until_replicas("qa", 1).await;
    yard.ask("qa", "What is a replica?").await;
    yard.end().await;
}

#[tokio::test]
async fn a_table_that_is_bad_at_the_start_is_told_with_its_lines() {
    let table = put(&shipped(), "max_in_flight = 16", "max_in_fligth = 16");
    let (code, out, err) = yard(&table).fail().await;
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
    assert!(err.contains("switchyard.toml:") && err.contains("max_in_flight"), "{err}");
}
