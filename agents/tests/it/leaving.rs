//! A client that leaves, and an agent that dies, take every process of the work with them.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Agent, agent, marker, runs, until};

/// A command whose processes try to get away: into the background, into a session of their own, orphaned.
fn tree() -> (Vec<String>, Value) {
    let markers = [marker(), marker(), marker()];
    let [a, b, c] = &markers;
    let input = format!("```sh\nsleep {a} & (setsid sleep {b} &) ; sleep {c}\n```");
    (markers.to_vec(), json!({ "input": input }))
}

async fn begun(markers: &[String]) {
    until("the whole tree runs", || markers.iter().all(|marker| runs(marker))).await;
}

async fn gone(markers: &[String]) {
    until("the whole tree is gone", || !markers.iter().any(|marker| runs(marker))).await;
}

async fn leaves(agent: &Agent, stream: bool) {
    let (markers, mut body) = tree();
    body["stream"] = json!(stream);
    let request = agent.post(&body);
    let asking = tokio::spawn(async move { request.send().await.unwrap().text().await });
    begun(&markers).await;
    asking.abort();
    gone(&markers).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_whole_tree() {
    let agent = agent("coding").start().await;
    leaves(&agent, true).await;
    leaves(&agent, false).await;
}

#[tokio::test]
async fn without_namespaces_too() {
    let agent = agent("coding").with(crate::levels::no_namespaces).start().await;
    assert_ne!(agent.ask("x").await["metadata"]["sandbox"]["processes"], "namespace");
    leaves(&agent, true).await;
    leaves(&agent, false).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_takes_the_tree_with_it() {
    let mut agent = agent("coding").start().await;
    let (markers, body) = tree();
    let request = agent.post(&body);
    let asking = tokio::spawn(request.send());
    begun(&markers).await;
    agent.signal(Signal::KILL);
    agent.ended().await;
    gone(&markers).await;
    assert!(asking.await.unwrap().is_err());
}

#[tokio::test]
async fn a_command_leaves_nothing_behind_when_it_ends() {
    let agent = agent("coding").start().await;
    let marker = marker();
    let reply =
        agent.ask(&format!("```sh\nsleep {marker} & setsid sleep {marker} & exit 0\n```")).await;
    assert_eq!(reply["metadata"]["runs"][0]["exit"], 0);
    assert!(!runs(&marker));
}
