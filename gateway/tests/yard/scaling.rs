//! The number of replicas, edited under load.

use crate::harness::yard;
use crate::load::Load;
use crate::table::{put_in, shipped};

#[tokio::test]
async fn replicas_follow_the_table_up_and_down_and_no_request_fails() {
    let yard = yard(&shipped()).start().await;
    yard.until_replicas("qa", 1).await;
    let first = yard.replicas("qa");
    let load = Load::start(&yard, "qa", 4);
    load.goes_on().await;

    yard.edit(|text| put_in(text, "agents.qa.scale", "min = 1", "min = 3"));
    yard.log.line("up | qa: 1 → 3 replicas").await;
    yard.until_replicas("qa", 3).await;
    let all = yard.replicas("qa");
    assert!(all.len() == 3 && all.contains(&first[0]));
    load.goes_on().await;
    let state = yard.api("agents/qa").await;
    let endpoints = state["endpoints"].as_array().unwrap();
    assert_eq!((endpoints.len(), &state["capacity"]), (3, &48.into()), "{state}");

    yard.edit(|text| put_in(text, "agents.qa.scale", "min = 3", "min = 1"));
    yard.until_replicas("qa", 1).await;
    for replica in ["qa-2", "qa-3"] {
        yard.log.line(&format!("up | {replica} stopped: it exited with status 0")).await;
    }
    load.goes_on().await;
    assert_eq!(yard.replicas("qa"), first, "the eldest stays");
    load.unharmed().await;
    yard.end().await;
}

#[tokio::test]
async fn a_changed_command_replaces_replicas_one_at_a_time_and_no_request_fails() {
    let table = put_in(&shipped(), "agents.qa.scale", "min = 1", "min = 2");
    let yard = yard(&table).start().await;
    yard.until_replicas("qa", 2).await;
    let before = yard.replicas("qa");
    let load = Load::start(&yard, "qa", 4);
    load.goes_on().await;
    yard.edit(|text| {
        let command = r#""agent", "--type", "qa""#;
        put_in(text, "agents.qa.deployment", command, &format!("{command}, \"--docs\", \"docs\""))
    });
    yard.log.line("up | qa: changed; replacing its replicas one at a time").await;
    for replica in ["qa-1", "qa-2"] {
        yard.log.line(&format!("up | {replica} stopped: it exited with status 0")).await;
    }
    load.goes_on().await;
    yard.until_replicas("qa", 2).await;
    assert!(yard.replicas("qa").iter().all(|pid| !before.contains(pid)));
    load.unharmed().await;
    yard.end().await;
}
