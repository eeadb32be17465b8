//! The table's ConfigMap is followed through the API, and what becomes of that when the API is away
//! or says no.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::agent::{Agent, answers};
use crate::ask::get;
use crate::cluster::{Cluster, Volume, pod, port};
use crate::gateway::{Gateway, table};
use crate::wire::eventually;

const LOST: &str = "the ConfigMap can't be followed";
const AGE: &str = "switchyard_config_map_age_seconds";
const SLICES_AGE: &str = "switchyard_discovery_age_seconds";

/// A table whose one agent is of this type.
fn text(agent: &str) -> String {
    format!("[gateway]\ndiscovery = \"kubernetes\"\n[agents.{agent}]\nservice = \"qa-agent\"\n")
}

/// A cluster with one pod, and a table of `agent` in its ConfigMap and in a volume.
async fn yard(agent: &str) -> (Cluster, Volume, Agent) {
    let (cluster, qa) = (Cluster::start().await, answers("1").await);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
    cluster.put_table(&text(agent));
    (cluster, Volume::of(&text(agent)), qa)
}

async fn until_followed(gateway: &Gateway) {
    until_config_map(gateway, "followed").await;
}

async fn until_config_map(gateway: &Gateway, state: &str) {
    let what = format!("the ConfigMap is {state}");
    eventually(&what, || async { config_map(gateway).await["state"] == state }).await;
}

async fn config_map(gateway: &Gateway) -> Value {
    gateway.admin("/readyz").await.json()["config_map"].clone()
}

async fn until_answers(gateway: &Gateway, agent: &str) {
    let path = format!("/agents/{agent}/x");
    eventually(&path, || async { gateway.ask(get(&path)).await.status == 200 }).await;
}

/// What is told to whoever asks for the table to be looked at: by then the file has been read.
async fn asked(gateway: &Gateway, words: &[&str]) {
    let count = |log: Vec<String>| {
        log.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    let before = count(gateway.log());
    gateway.signal(Signal::HUP);
    eventually("who asks is told", || async { count(gateway.log()) > before }).await;
}

async fn until_written(cluster: &Cluster, events: usize) -> Vec<Value> {
    eventually("an Event is written", || async { cluster.written().0.len() >= events }).await;
    cluster.written().0
}

#[tokio::test]
async fn an_edit_is_in_force_on_every_gateway_before_its_file_has_it() {
    let (cluster, mut volume, _qa) = yard("one").await;
    let gateways = [
        cluster.mounted(&volume).await,
        cluster.mounted(&volume).await,
        cluster.mounted(&volume).await,
    ];
    for gateway in &gateways {
        until_followed(gateway).await;
    }
    cluster.put_table(&text("two"));
    for gateway in &gateways {
        assert_eq!(gateway.until_after(1).await, 2);
        until_answers(gateway, "two").await;
    }
    let events = until_written(&cluster, 1).await;
    let told = ["type", "reason", "message"].map(|key| events[0][key].as_str().unwrap());
    assert_eq!((told[0], told[1]), ("Normal", "TableApplied"));
    assert!(told[2].starts_with("The table is in force: generation 2, hash "), "{}", told[2]);
    let about = &events[0]["involvedObject"];
    assert_eq!((&about["kind"], &about["name"]), (&json!("ConfigMap"), &json!("switchyard")));
    // The volume catches up, by way of what it had.
    for agent in ["one", "two"] {
        volume.write(&(text(agent)));
        asked(&gateways[0], &["unchanged", "ConfigMap ai-agents/switchyard"]).await;
        assert_eq!(gateways[0].generation().await, 2);
    }
    eventually("the others find it there", || async { cluster.written().1 == 2 }).await;
    assert_eq!(cluster.written().0.len(), 1, "one Event for all: {:?}", cluster.written().0);
}

#[tokio::test]
async fn a_refused_edit_is_told_with_its_line_wherever_it_is_looked_for() {
    let (cluster, volume, _qa) = yard("one").await;
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    cluster.put_table(&format!("{}wrong = 1\nworse = 2\n", text("two")));
    gateway.until_metric("switchyard_table_refused", &[], 1.0).await;
    let line = "switchyard.toml:9:1: unknown key `wrong` in [agents.two]";
    let named = format!("ConfigMap ai-agents/switchyard, {line}");
    let first = |of: &Value| of["refused"]["problems"][0].as_str().unwrap_or_default().to_owned();
    assert!(first(&gateway.table().await).starts_with(&named), "{}", gateway.table().await);
    // It may still be finding out who else is there.
    eventually("it is ready", || async { gateway.admin("/readyz").await.status == 200 }).await;
    let ready = gateway.admin("/readyz").await.ok().json();
    assert!(first(&ready).starts_with(&named), "{ready}");
    let event = until_written(&cluster, 1).await.remove(0);
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("TableRefused")));
    let message = event["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("Refused, the table in force stays: {line}")),
        "{message}"
    );
    assert!(message.contains("switchyard.toml:10:1: unknown key `worse`"), "{message}");
    until_answers(&gateway, "one").await;
    // What it was is an edit, too.
    cluster.put_table(&text("one"));
    gateway.until_metric("switchyard_table_refused", &[], 0.0).await;
    assert_eq!(until_written(&cluster, 2).await[1]["type"], "Normal");
    assert_eq!(gateway.generation().await, 1);
    cluster.put_table(&format!("[gateway]\nworkers = 7\n{}", text("one").replace("[gateway]", "")));
    let event = until_written(&cluster, 3).await.remove(2);
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("[gateway] workers needs a restart"), "{message}");
}

#[tokio::test]
async fn a_start_with_an_old_copy_takes_the_object_and_one_with_the_same_writes_nothing() {
    let (cluster, volume, _qa) = yard("one").await;
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    let _restarted = cluster.mounted(&volume).await;
    cluster.put_table(&text("two"));
    gateway.until_after(1).await;
    let late = cluster.mounted(&volume).await;
    until_answers(&late, "two").await;
    eventually("all have told", || async { cluster.written().1 == 2 }).await;
    assert_eq!(cluster.written().0.len(), 1, "the start is no edit, and an edit is one");
}

#[tokio::test]
async fn while_the_api_is_away_the_file_counts_but_not_with_what_was_left_behind() {
    let (mut cluster, mut volume, _qa) = yard("one").await;
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    assert_eq!(gateway.metric(AGE, &[]).await, Some(0.0));
    cluster.put_table(&text("two"));
    cluster.put_table(&text("three"));
    until_answers(&gateway, "three").await;
    let generation = gateway.generation().await;
    cluster.stop();
    gateway.logged(&[LOST]).await;
    eventually("it grows old", || async { gateway.metric(AGE, &[]).await > Some(0.2) }).await;
    let told = config_map(&gateway).await;
    assert_eq!(told["state"], "away");
    assert!(told["error"].is_string() && told["age_seconds"].as_f64() > Some(0.2), "{told}");
    for agent in ["two", "one"] {
        volume.write(&text(agent));
        asked(&gateway, &["is an older copy"]).await;
        assert_eq!(gateway.generation().await, generation);
    }
    volume.write(&text("three"));
    asked(&gateway, &["unchanged"]).await;
    volume.write(&text("four"));
    until_answers(&gateway, "four").await;
    assert_eq!(gateway.generation().await, generation + 1);

    cluster.restart().await;
    cluster.put_table(&text("four"));
    cluster.put_table(&text("five"));
    until_answers(&gateway, "five").await;
    assert_eq!(gateway.generation().await, generation + 2, "what the file had is known");
    gateway.until_metric(AGE, &[], 0.0).await;
    gateway.logged(&["the ConfigMap is followed again"]).await;
    assert_eq!(gateway.log().iter().filter(|line| line.contains(LOST)).count(), 1, "told once");
}

#[tokio::test]
async fn an_api_that_is_away_at_the_start_leaves_the_file() {
    let (mut cluster, mut volume, _qa) = yard("one").await;
    cluster.stop();
    let gateway = cluster.mounted(&volume).await;
    gateway.logged(&[LOST]).await;
    volume.write(&text("two"));
    gateway.until_after(1).await;
    cluster.restart().await;
    cluster.put_table(&text("three"));
    until_answers(&gateway, "three").await;
}

#[tokio::test]
async fn a_deleted_config_map_changes_nothing_and_a_new_one_counts() {
    let (cluster, mut volume, _qa) = yard("one").await;
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    cluster.put_table(&text("two"));
    until_answers(&gateway, "two").await;
    cluster.delete_table();
    gateway.logged(&["there is no such ConfigMap", "the table in force stays"]).await;
    assert_eq!(config_map(&gateway).await["state"], "absent");
    volume.write(&text("one"));
    asked(&gateway, &["is an older copy"]).await;
    until_answers(&gateway, "two").await;
    cluster.put_table(&text("three"));
    until_answers(&gateway, "three").await;
    until_followed(&gateway).await;
}

#[tokio::test]
async fn a_config_map_without_the_table_is_refused() {
    let (cluster, volume, _qa) = yard("one").await;
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    for (n, (data, why)) in [
        (json!({ "switchyard.tml": "" }), "there is no such key in the ConfigMap's data"),
        (json!({}), "it is empty"),
        (json!({ "switchyard.toml": "" }), "there are no agents"),
    ]
    .into_iter()
    .enumerate()
    {
        cluster.put_data(&data);
        let event = until_written(&cluster, n + 1).await.remove(n);
        let message = event["message"].as_str().unwrap();
        assert!(message.contains("switchyard.toml:1:1: ") && message.contains(why), "{message}");
        assert_eq!(gateway.generation().await, 1);
    }
    until_answers(&gateway, "one").await;
}

#[tokio::test]
async fn who_is_too_far_behind_is_told_what_stands_there_now() {
    let (cluster, volume, _qa) = yard("one").await;
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    cluster.put_table(&text("two"));
    cluster.lose_history_with(&text("three"));
    until_answers(&gateway, "three").await;
    assert!(!gateway.log().iter().any(|line| line.contains(LOST)), "that is no failure");
}

#[tokio::test]
async fn somebodys_own_file_is_not_overruled_by_a_cluster_within_reach() {
    let (cluster, _volume, _qa) = yard("one").await;
    let gateway = cluster.gateway("[agents.own]\nservice = \"qa-agent\"\n").await;
    until_answers(&gateway, "own").await;
    assert_eq!(config_map(&gateway).await, Value::Null);
    cluster.put_table(&text("two"));
    gateway.edit(&text("three")).await;
    until_answers(&gateway, "three").await;
    assert_eq!(gateway.generation().await, 2);
}

#[tokio::test]
async fn without_permission_for_the_config_map_the_file_is_followed() {
    let (cluster, mut volume, _qa) = yard("one").await;
    cluster.behave(|ways| ways.forbid = vec!["configmaps"]);
    let gateway = cluster.mounted(&volume).await;
    gateway.logged(&[LOST, "403"]).await;
    let told = config_map(&gateway).await;
    assert!(told["error"].as_str().unwrap().contains("403"), "{told}");
    cluster.put_table(&text("two"));
    volume.write(&text("two"));
    until_answers(&gateway, "two").await;
    assert_eq!(gateway.metric(SLICES_AGE, &[]).await, Some(0.0), "the rest goes on");
    cluster.behave(|ways| ways.forbid.clear());
    cluster.put_table(&text("three"));
    until_answers(&gateway, "three").await;
    gateway.until_metric(AGE, &[], 0.0).await;
}

#[tokio::test]
async fn without_permission_for_endpoints_what_is_known_serves_and_edits_land() {
    let (cluster, volume, _qa) = yard("one").await;
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    until_answers(&gateway, "one").await;
    cluster.behave(|ways| ways.forbid = vec!["endpointslices"]);
    cluster.cut_watches();
    gateway.logged(&["the cluster's API can't be asked", "403"]).await;
    eventually("its age is told", || async { gateway.metric(SLICES_AGE, &[]).await > Some(0.0) })
        .await;
    let ready = gateway.admin("/readyz").await.ok().json();
    let error = ready["discovery"]["error"].as_str().unwrap();
    assert!(error.contains("ai-agents: ") && error.contains("403"), "{ready}");
    cluster.put_table(&text("two"));
    until_answers(&gateway, "two").await;
}

#[tokio::test]
async fn without_permission_for_events_it_is_said_once() {
    let (cluster, volume, _qa) = yard("one").await;
    cluster.behave(|ways| ways.forbid = vec!["events"]);
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    const UNTOLD: &str = "what comes of edits can't be told as Events";
    for agent in ["two", "three"] {
        cluster.put_table(&text(agent));
        until_answers(&gateway, agent).await;
        gateway.logged(&[UNTOLD, "403"]).await;
    }
    cluster.behave(|ways| ways.forbid.clear());
    cluster.put_table(&text("four"));
    let last = |events: Vec<Value>| events.last().map(|event| event["message"].clone());
    eventually("the next one is written", || async {
        last(cluster.written().0).is_some_and(|text| text.to_string().contains("generation 4"))
    })
    .await;
    assert_eq!(gateway.log().iter().filter(|line| line.contains(UNTOLD)).count(), 1);
}

#[tokio::test]
async fn a_new_token_is_taken_up_by_all_that_ask() {
    let (cluster, volume, _qa) = yard("one").await;
    let gateway = cluster.mounted(&volume).await;
    until_followed(&gateway).await;
    cluster.behave(|ways| ways.token = Some("second".into()));
    cluster.cut_watches();
    gateway.logged(&[LOST, "401"]).await;
    until_answers(&gateway, "one").await;
    cluster.write_token("second");
    until_followed(&gateway).await;
    gateway.until_metric(SLICES_AGE, &[], 0.0).await;
    cluster.put_table(&text("two"));
    until_answers(&gateway, "two").await;
    assert_eq!(until_written(&cluster, 1).await.len(), 1);
    assert_eq!(gateway.table().await["hash"].as_str(), Some(&*hash(&text("two"))));
}

fn hash(text: &str) -> String {
    config::parse(&table(text), "t").unwrap().table.hash
}
