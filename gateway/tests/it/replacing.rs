//! An only replica that is replaced: requests wait for the next one, with a stand-in for the
//! cluster's API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Refusing, answers};
use crate::ask::{get, post};
use crate::cluster::{Cluster, pod, port};
use crate::gateway::Gateway;
use crate::open::Open;
use crate::reply::{BOTH, Http, retry_after};
use crate::wire::eventually;

const QA: &str = "[agents.qa]\nservice = \"qa-agent\"\n";
const QUEUE: &str = "queue = { max = 64, timeout = \"20s\" }\n";

/// A cluster whose only replica is at `at`, and a gateway that asks it.
async fn one(at: std::net::SocketAddr, more: &str) -> (Cluster, Gateway) {
    let cluster = Cluster::start().await;
    cluster.put("qa", "qa-agent", &port(at), &[pod("a", "ready")]);
    let gateway = cluster.gateway(&format!("{QA}{more}")).await;
    gateway.until_state("qa", "ready", 1).await;
    (cluster, gateway)
}

/// The only replica has gone.
async fn gone(cluster: &Cluster, gateway: &Gateway, at: &Agent) {
    cluster.put("qa", "qa-agent", &port(at.addr), &[]);
    gateway.until_state("qa", "ready", 0).await;
}

async fn waiting(gateway: &Gateway, n: u64) -> Vec<Open> {
    let mut open = Vec::new();
    for i in 0..n {
        open.push(gateway.open(BOTH[i as usize % 2], post("/agents/qa/x", "body")).await);
    }
    gateway.until_state("qa", "queued", n).await;
    open
}

async fn answered(open: Vec<Open>, by: &str) {
    for open in open {
        assert_eq!(open.whole().await.ok().text(), by);
    }
}

/// An agent that answers `text` until it is told to drain; then it refuses what is new.
async fn drains(text: &'static str, draining: &Arc<AtomicBool>) -> Agent {
    let draining = Arc::clone(draining);
    Agent::with(move |mut call| {
        let draining = draining.load(SeqCst);
        async move {
            if draining {
                return call.not_begun().await;
            }
            call.body().await;
            call.json(text).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_only_replica_is_replaced_under_requests_and_none_fails() {
    let draining = Arc::new(AtomicBool::new(false));
    let (old, new) = (drains("old", &draining).await, answers("new").await);
    let (cluster, gateway) = one(old.addr, QUEUE).await;
    let (gateway, done) = (Arc::new(gateway), Arc::new(AtomicBool::new(false)));
    let (by_old, by_new) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let (gateway, done) = (Arc::clone(&gateway), Arc::clone(&done));
            let (by_old, by_new) = (Arc::clone(&by_old), Arc::clone(&by_new));
            tokio::spawn(async move {
                while !done.load(SeqCst) {
                    let ask = post("/agents/qa/x", "body");
                    match &*gateway.ask_by(BOTH[n % 2], ask).await.ok().text() {
                        "old" => by_old.fetch_add(1, SeqCst),
                        "new" => by_new.fetch_add(1, SeqCst),
                        other => panic!("{other:?}?"),
                    };
                }
            })
        })
        .collect();
    eventually("it is asked", || async { by_old.load(SeqCst) > 20 }).await;
    cluster.put("qa", "qa-agent", &port(old.addr), &[pod("a", "leaving"), pod("b", "starting")]);
    let before = by_old.load(SeqCst);
    eventually("it is still asked", || async { by_old.load(SeqCst) > before + 20 }).await;
    gateway.logged(&["the agent's last ready replica has gone"]).await;
    draining.store(true, SeqCst);
    gateway.until_state("qa", "queued", 16).await;
    drop(old);
    cluster.put("qa", "qa-agent", &port(new.addr), &[pod("b", "starting")]);
    gateway.until_state("qa", "queued", 16).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.put("qa", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    eventually("the new one is asked", || async { by_new.load(SeqCst) > 50 }).await;
    done.store(true, SeqCst);
    for client in clients {
        client.await.expect("none has failed");
    }
    let qa = [("agent", "qa")];
    assert_eq!(gateway.metric("switchyard_retries_total", &qa).await, Some(0.0));
    gateway.logged(&["the agent's last ready replica has gone"]).await;
    gateway.logged(&["the agent has a ready replica again"]).await;
}

#[tokio::test]
async fn who_is_turned_away_by_one_that_leaves_waits_and_nobody_else_is_sent_there() {
    let draining = Arc::new(AtomicBool::new(true));
    let (old, new) = (drains("old", &draining).await, answers("new").await);
    let (cluster, gateway) = one(old.addr, QUEUE).await;
    cluster.put("qa", "qa-agent", &port(old.addr), &[pod("a", "leaving")]);
    gateway.logged(&["last ready replica has gone"]).await;
    let open = waiting(&gateway, 1).await;
    gateway.until_endpoint("qa", old.addr, "draining").await;
    assert_eq!(gateway.state("qa").await["ready"], 0);
    let more = waiting_more(&gateway, 4).await;
    // Somebody else's replicas are news, and a new snapshot.
    cluster.put("other", "other-agent", &port(new.addr), &[pod("c", "ready")]);
    gateway.edit(&format!("[gateway]\ndiscovery = \"kubernetes\"\n{QA}{QUEUE}#\n")).await;
    gateway.until_state("qa", "queued", 5).await;
    assert_eq!(old.count(), 1, "the others went to the line at once");
    cluster.put("qa-2", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    answered(open, "new").await;
    answered(more, "new").await;
    let retries = gateway.metric("switchyard_retries_total", &[("agent", "qa")]).await;
    assert_eq!((retries, old.count()), (Some(0.0), 1));
}

async fn waiting_more(gateway: &Gateway, n: u64) -> Vec<Open> {
    let mut open = Vec::new();
    for _ in 0..n {
        open.push(gateway.open(Http::One, get("/agents/qa/x")).await);
    }
    gateway.until_state("qa", "queued", n + 1).await;
    open
}

#[tokio::test]
async fn who_is_refused_by_the_port_of_one_that_leaves_waits() {
    let (old, new) = (Refusing::new(), answers("new").await);
    let (cluster, gateway) = one(old.addr, QUEUE).await;
    cluster.put("qa", "qa-agent", &port(old.addr), &[pod("a", "leaving")]);
    gateway.logged(&["last ready replica has gone"]).await;
    let open = waiting(&gateway, 3).await;
    cluster.put("qa", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    answered(open, "new").await;
}

#[tokio::test]
async fn one_that_crashes_and_comes_back_at_its_address_is_waited_for() {
    let qa = answers("back").await;
    let (cluster, gateway) = one(qa.addr, QUEUE).await;
    for _ in 0..2 {
        cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "starting")]);
        gateway.until_state("qa", "ready", 0).await;
        let open = waiting(&gateway, 3).await;
        cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
        answered(open, "back").await;
    }
}

#[tokio::test]
async fn places_at_the_next_one_are_given_out_in_turn() {
    let (old, new) = (answers("old").await, answers("new").await);
    let (cluster, gateway) = one(old.addr, &format!("{QUEUE}max_in_flight = 2\n")).await;
    gone(&cluster, &gateway, &old).await;
    let open = waiting(&gateway, 8).await;
    cluster.put("qa", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    answered(open, "new").await;
}

#[tokio::test]
async fn after_queue_timeout_all_are_refused_and_new_ones_at_once() {
    let (old, new) = (answers("old").await, answers("new").await);
    let (cluster, gateway) = one(old.addr, "queue = { timeout = \"1500ms\" }\n").await;
    let begun = Instant::now();
    gone(&cluster, &gateway, &old).await;
    for open in waiting(&gateway, 4).await {
        let reply = open.whole().await;
        let problem = reply.error("no-endpoint");
        assert!(problem["detail"].as_str().unwrap().contains("last replica went "));
        assert!(retry_after(&reply).is_some(), "{problem}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
    // No place of a line that never ends: who comes now doesn't wait at all.
    let asked = Instant::now();
    for http in BOTH {
        gateway.ask_by(http, get("/agents/qa/x")).await.error("no-endpoint");
    }
    assert!(asked.elapsed() < Duration::from_millis(1000), "{:?}", asked.elapsed());
    cluster.put("qa", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    gateway.until_state("qa", "ready", 1).await;
    assert_eq!(gateway.ask(get("/agents/qa/x")).await.ok().text(), "new");
}

#[tokio::test]
async fn no_more_wait_than_fit_in_line_and_who_leaves_it_costs_nothing() {
    let (old, new) = (answers("old").await, answers("new").await);
    let (cluster, gateway) = one(old.addr, "queue = { max = 3, timeout = \"20s\" }\n").await;
    gone(&cluster, &gateway, &old).await;
    let mut open = waiting(&gateway, 3).await;
    let refused = gateway.ask(get("/agents/qa/x")).await;
    let problem = refused.error("queue-full");
    assert!(problem["detail"].as_str().unwrap().contains("last replica has gone"), "{problem}");
    assert!(retry_after(&refused).is_some());
    let _ = open.remove(1).leave().await;
    gateway.until_state("qa", "queued", 2).await;
    cluster.put("qa", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    answered(open, "new").await;
    assert_eq!(new.count(), 2);
    gateway.until_state("qa", "in_flight", 0).await;
}

#[tokio::test]
async fn the_total_clock_begins_when_there_is_a_replica() {
    let draining = Arc::new(AtomicBool::new(true));
    let (old, new) = (drains("old", &draining).await, answers("new").await);
    let (cluster, gateway) = one(old.addr, &format!("{QUEUE}timeout = \"300ms\"\n")).await;
    cluster.put("qa", "qa-agent", &port(old.addr), &[pod("a", "leaving")]);
    gateway.logged(&["last ready replica has gone"]).await;
    let open = waiting(&gateway, 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.put("qa", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    answered(open, "new").await;
    let line = gateway.logged(&["\"target\":\"switchyard::access\"", "qa"]).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(line["queue_ms"].as_f64() > Some(400.0), "{line}");
}

#[tokio::test]
async fn nobody_waits_without_a_queue_and_nobody_is_sent_again_without_retries() {
    let draining = Arc::new(AtomicBool::new(true));
    let old = drains("old", &draining).await;
    let (cluster, gateway) = one(old.addr, "queue = { max = 0 }\n").await;
    gone(&cluster, &gateway, &old).await;
    gateway.ask(get("/agents/qa/x")).await.error("no-endpoint");

    let (cluster, gateway) = one(old.addr, &format!("{QUEUE}retry = \"off\"\n")).await;
    cluster.put("qa", "qa-agent", &port(old.addr), &[pod("a", "leaving")]);
    gateway.logged(&["last ready replica has gone"]).await;
    let reply = gateway.ask(get("/agents/qa/x")).await;
    assert_eq!((reply.status, reply.code()), (503, None), "the agent's own");
}

#[tokio::test]
async fn while_others_are_there_nobody_waits() {
    let draining = Arc::new(AtomicBool::new(true));
    let (old, next) = (drains("old", &draining).await, answers("next").await);
    let cluster = Cluster::start().await;
    cluster.put("one", "search", &port(old.addr), &[pod("a", "leaving")]);
    cluster.put("two", "search-next", &port(next.addr), &[pod("b", "ready")]);
    let versions = "[agents.qa]\nversions = [{ service = \"search\", weight = 9 }, \
        { service = \"search-next\", weight = 1 }]\n";
    let gateway = cluster.gateway(versions).await;
    gateway.until_state("qa", "ready", 2).await;
    eventually("one was sent to the one that leaves", || async {
        assert_eq!(gateway.ask(get("/agents/qa/x")).await.ok().text(), "next");
        old.count() == 1
    })
    .await;
    gateway.until_state("qa", "ready", 1).await;
    for _ in 0..10 {
        assert_eq!(gateway.ask(get("/agents/qa/x")).await.ok().text(), "next");
    }
    assert_eq!(old.count(), 1);
    let retries = gateway.metric("switchyard_retries_total", &[("agent", "qa")]).await;
    assert_eq!(retries, Some(0.0));
}
