//! Agents without replicas of their own, and traffic that is split.

use std::collections::{HashMap, HashSet};

use crate::agent::{Agent, answers};
use crate::ask::get;
use crate::gateway::{Gateway, agent};
use crate::reply::Http;

#[tokio::test]
async fn an_agent_that_shares_runs_in_the_others_replicas() {
    let mut qa = Agent::manual().await;
    let table = agent("qa", &[qa.addr], "") + "[agents.summarise]\nshares = \"qa\"\n";
    let gateway = Gateway::start(&table).await;
    let open = gateway.open(Http::One, get("/agents/summarise/x")).await;
    let call = qa.call().await;
    assert_eq!(call.header("x-agent-type"), Some("summarise"));
    assert_eq!(call.header("x-forwarded-prefix"), Some("/agents/summarise"));
    call.json("{}").await;
    open.whole().await.ok();
    let listed = gateway.ask(get("/agents")).await.ok();
    assert_eq!(listed.json()["agents"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_agent_that_shares_has_clocks_and_limits_of_its_own() {
    let mut qa = Agent::manual().await;
    let own = "first_byte_timeout = \"100ms\"\nmax_body = \"1KiB\"\nretry = \"off\"";
    let table =
        agent("qa", &[qa.addr], "") + &format!("[agents.summarise]\nshares = \"qa\"\n{own}\n");
    let gateway = Gateway::start(&table).await;
    let slow = gateway.open(Http::One, get("/agents/qa/x")).await;
    let call = qa.call().await;
    gateway.ask(get("/agents/summarise/x")).await.error("first-byte-timeout");
    call.json("{}").await;
    slow.whole().await.ok();
    let big = crate::ask::post("/agents/summarise/x", "x".repeat(2000));
    gateway.ask(big).await.error("body-too-large");
}

/// Two versions, nine to one, and how many of `n` requests each got.
async fn split(settings: &str) -> (Agent, Agent, Gateway) {
    let (old, new) = (answers(r#"{"v":"old"}"#).await, answers(r#"{"v":"new"}"#).await);
    let version = |service: &str, weight: u32, agent: &Agent| {
        let url = format!("http://{}", agent.addr);
        format!("{{ service = \"{service}\", weight = {weight}, endpoints = [\"{url}\"] }}")
    };
    let versions = format!("[{}, {}]", version("s-old", 90, &old), version("s-new", 10, &new));
    let table =
        format!("[gateway]\nworkers = 1\n[agents.search]\nversions = {versions}\n{settings}");
    let gateway = Gateway::start(&table).await;
    (old, new, gateway)
}

#[tokio::test]
async fn versions_share_the_traffic_by_weight() {
    let (old, new, gateway) = split("").await;
    let mut conn = gateway.client().connect().await;
    for _ in 0..600 {
        conn.ask(get("/agents/search/x")).await.ok();
    }
    // 60 are expected; 20 and 120 are more than five standard deviations away.
    assert!((20..=120).contains(&new.count()), "new got {} of 600", new.count());
    assert_eq!(old.count() + new.count(), 600);
}

#[tokio::test]
async fn a_version_of_weight_zero_gets_nothing() {
    let (old, new) = (answers("{}").await, answers("{}").await);
    let versions = format!(
        "[{{ service = \"a\", weight = 1, endpoints = [\"http://{}\"] }}, \
          {{ service = \"b\", weight = 0, endpoints = [\"http://{}\"] }}]",
        old.addr, new.addr
    );
    let gateway = Gateway::start(&format!("[agents.search]\nversions = {versions}")).await;
    let mut conn = gateway.client().connect().await;
    for _ in 0..50 {
        conn.ask(get("/agents/search/x")).await.ok();
    }
    assert_eq!((old.count(), new.count()), (50, 0));
}

#[tokio::test]
async fn a_version_takes_the_addresses_of_the_agent_that_has_its_service() {
    let next = answers("{}").await;
    let table = agent("next", &[next.addr], "service = \"next-agent\"")
        + "[agents.search]\nversions = [{ service = \"next-agent\", weight = 1 }]\n";
    let gateway = Gateway::start(&table).await;
    gateway.ask(get("/agents/search/x")).await.ok();
    assert_eq!(next.seen()[0].headers.get("x-agent-type"), Some("search"));
}

#[tokio::test]
async fn a_session_keeps_its_version_where_affinity_is_on() {
    let (_old, _new, gateway) = split("affinity = { header = \"x-session-id\" }").await;
    let mut conn = gateway.client().connect().await;
    let mut versions: HashMap<usize, HashSet<String>> = HashMap::new();
    for round in 0..4 {
        for session in 0..100 {
            let asked = get("/agents/search/x").header("x-session-id", &format!("s{session}"));
            let reply = conn.ask(asked).await.ok();
            versions.entry(session).or_default().insert(reply.text());
            assert_eq!(versions[&session].len(), 1, "session {session} moved in round {round}");
        }
    }
    let new = versions.values().filter(|v| v.contains(r#"{"v":"new"}"#)).count();
    assert!((1..=40).contains(&new), "{new} of 100 sessions are on the new version");
}
