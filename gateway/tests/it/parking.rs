//! Zero and back, and busy pods that are spared, with a stand-in for the cluster's API.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::{Agent, answers};
use crate::ask::get;
use crate::cluster::{Cluster, pod, pod_at, port};
use crate::gateway::Gateway;
use crate::open::Open;
use crate::reply::{BOTH, Http, retry_after};
use crate::wire::eventually;

const DEPLOYMENT: &str = "[agents.qa.deployment]\ncommand = [\"agent\"]\n";

/// An agent that is parked after `idle`.
fn parks(idle: &str, more: &str) -> String {
    let agent = format!("[agents.qa]\nservice = \"qa-agent\"\n{more}\n{DEPLOYMENT}");
    format!("{agent}[agents.qa.scale]\nmin = 0\nidle = \"{idle}\"\n")
}

async fn until_replicas(cluster: &Cluster, n: i64) {
    eventually(&format!("there shall be {n}"), || async { cluster.replicas("qa-agent") == n })
        .await;
}

/// A cluster whose agent runs, and a gateway that has parked it. The slice goes with the pod.
async fn parked(idle: &str, more: &str, at: &Agent) -> (Cluster, Gateway) {
    let cluster = Cluster::start().await;
    cluster.scale("qa-agent", 1);
    cluster.put("qa", "qa-agent", &port(at.addr), &[pod("a", "ready")]);
    let gateway = cluster.gateway(&parks(idle, more)).await;
    gateway.until_state("qa", "ready", 1).await;
    until_replicas(&cluster, 0).await;
    cluster.put("qa", "qa-agent", &port(at.addr), &[]);
    gateway.until_metric("switchyard_parked", &[("agent", "qa")], 1.0).await;
    (cluster, gateway)
}

async fn waiting(gateway: &Gateway, n: u64) -> Vec<Open> {
    let mut open = Vec::new();
    for i in 0..n {
        let http = BOTH[i as usize % 2];
        open.push(gateway.open(http, get("/agents/qa/x")).await);
    }
    gateway.until_state("qa", "queued", n).await;
    open
}

#[tokio::test]
async fn an_idle_agent_is_parked_and_the_first_request_wakes_it_for_all_who_wait() {
    let qa = answers("awake").await;
    let (cluster, gateway) = parked("1s", "", &qa).await;
    gateway.logged(&["an idle agent is parked", "qa-agent.ai-agents"]).await;
    let health = gateway.admin("/health").await.ok().json();
    assert_eq!(health["checks"]["qa"], "idle");
    let listed = gateway.ask(get("/agents")).await.ok().json();
    assert_eq!(listed["agents"][0]["ready"], false);
    assert_eq!(gateway.state("qa").await["parked"], true);

    let open = waiting(&gateway, 20).await;
    until_replicas(&cluster, 1).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "starting")]);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "ready")]);
    for open in open {
        assert_eq!(open.whole().await.ok().text(), "awake");
    }
    assert_eq!(cluster.resized("qa-agent"), [0, 1], "parked once, woken once");
    let agent = [("agent", "qa")];
    gateway.until_metric("switchyard_parked", &agent, 0.0).await;
    gateway.until_metric("switchyard_start_seconds_count", &agent, 1.0).await;
    assert_eq!(gateway.metric("switchyard_parks_total", &agent).await, Some(1.0));
    assert_eq!(gateway.metric("switchyard_wakes_total", &agent).await, Some(1.0));
}

#[tokio::test]
async fn places_at_the_first_replica_are_given_out_in_turn() {
    let qa = answers("awake").await;
    let (cluster, gateway) = parked("1s", "max_in_flight = 2", &qa).await;
    let open = waiting(&gateway, 8).await;
    until_replicas(&cluster, 1).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "ready")]);
    for open in open {
        assert_eq!(open.whole().await.ok().text(), "awake");
    }
}

#[tokio::test]
async fn who_does_not_fit_in_line_is_told_when_to_come_back() {
    let qa = answers("awake").await;
    let queue = "queue = { max = 2, timeout = \"1s\" }";
    let (cluster, gateway) = parked("1s", queue, &qa).await;
    let open = waiting(&gateway, 2).await;
    let refused = gateway.ask(get("/agents/qa/x")).await;
    let problem = refused.error("queue-full");
    assert!(problem["detail"].as_str().unwrap().contains("parked"), "{problem}");
    // Nothing was measured yet, so the guess of 10 s, less what has passed.
    let wait = retry_after(&refused).expect("it says when");
    assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&wait), "{wait:?}");
    for open in open {
        let reply = open.whole().await;
        let problem = reply.error("queue-timeout");
        assert!(problem["detail"].as_str().unwrap().contains("not started"), "{problem}");
        assert!(retry_after(&reply).is_some());
    }
    // It started too late for those, and its start was learned.
    until_replicas(&cluster, 1).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "ready")]);
    gateway.until_metric("switchyard_start_seconds_count", &[("agent", "qa")], 1.0).await;
    assert_eq!(gateway.ask(get("/agents/qa/x")).await.ok().text(), "awake");
}

#[tokio::test]
async fn a_client_that_leaves_costs_the_others_nothing() {
    let qa = answers("awake").await;
    let (cluster, gateway) = parked("1s", "", &qa).await;
    let mut open = waiting(&gateway, 3).await;
    let _ = open.remove(1).leave().await;
    gateway.until_state("qa", "queued", 2).await;
    until_replicas(&cluster, 1).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "ready")]);
    for open in open {
        open.whole().await.ok();
    }
    assert_eq!(qa.count(), 2);
}

#[tokio::test]
async fn one_that_a_person_has_scaled_to_zero_stays_so_and_says_how_to_bring_it_back() {
    let qa = answers("back").await;
    let cluster = Cluster::start().await;
    cluster.scale("qa-agent", 0);
    let gateway = cluster.gateway(&parks("1h", "")).await;
    eventually("it is ready", || async { gateway.admin("/readyz").await.status == 200 }).await;
    for http in BOTH {
        let problem = gateway.ask_by(http, get("/agents/qa/x")).await.error("no-endpoint");
        let detail = problem["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("by hand"), "{detail}");
        let line = "kubectl scale deployment/qa-agent -n ai-agents --replicas=1";
        assert!(detail.contains(line), "{detail}");
    }
    assert_eq!(gateway.state("qa").await["scaled_to_zero_by_hand"], true);
    assert_eq!(gateway.admin("/health").await.json()["checks"]["qa"], "down");
    assert!(cluster.resized("qa-agent").is_empty());
    cluster.scale("qa-agent", 1);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
    gateway.until_state("qa", "ready", 1).await;
    assert_eq!(gateway.ask(get("/agents/qa/x")).await.ok().text(), "back");
    eventually("it may be parked again", || async {
        gateway.state("qa").await["scaled_to_zero_by_hand"] == false
    })
    .await;
}

#[tokio::test]
async fn what_was_parked_is_known_after_a_restart() {
    let qa = answers("awake").await;
    let (cluster, mut gateway) = parked("1s", "", &qa).await;
    gateway.sigterm();
    assert_eq!(gateway.exit().await, 0);
    eventually("the lease is given back", || async { cluster.holder().is_empty() }).await;
    let gateway = cluster.gateway(&parks("1s", "")).await;
    let open = waiting(&gateway, 1).await;
    until_replicas(&cluster, 1).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "ready")]);
    for open in open {
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn scaled_to_zero_by_hand_after_it_was_woken_is_by_hand() {
    let qa = answers("awake").await;
    let (cluster, gateway) = parked("3s", "", &qa).await;
    let open = waiting(&gateway, 1).await;
    until_replicas(&cluster, 1).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "ready")]);
    for open in open {
        open.whole().await.ok();
    }
    eventually("the gateway has seen that it runs", || async {
        !cluster.lease_notes("switchyard/parked").contains("qa-agent")
    })
    .await;
    cluster.scale("qa-agent", 0);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[]);
    gateway.until_state("qa", "ready", 0).await;
    gateway.ask(get("/agents/qa/x")).await.error("no-endpoint");
    assert_eq!(cluster.replicas("qa-agent"), 0);
}

#[tokio::test]
async fn one_that_a_person_scales_up_is_idle_from_then_on() {
    let qa = answers("awake").await;
    let (cluster, gateway) = parked("4s", "", &qa).await;
    let scaled = Instant::now();
    cluster.scale("qa-agent", 2);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
    gateway.until_state("qa", "ready", 1).await;
    until_replicas(&cluster, 0).await;
    assert!(scaled.elapsed() >= Duration::from_secs(4), "{:?}", scaled.elapsed());
}

#[tokio::test]
async fn one_with_a_request_is_not_idle() {
    let mut qa = Agent::manual().await;
    let cluster = Cluster::start().await;
    cluster.scale("qa-agent", 1);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
    let gateway = cluster.gateway(&parks("1s", "")).await;
    gateway.until_state("qa", "ready", 1).await;
    let mut open = gateway.open(Http::One, get("/agents/qa/stream")).await;
    let mut call = qa.call().await;
    call.begin_sse().await;
    for n in 0..12 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        call.event("more").await;
        open.until("more\n\n").await;
        assert!(cluster.resized("qa-agent").is_empty(), "after {n} events");
    }
    call.end().await;
    open.rest().await.ok();
    until_replicas(&cluster, 0).await;
}

#[tokio::test]
async fn a_request_that_comes_in_the_moment_of_parking_is_served() {
    let (old, new) = (answers("old").await, answers("new").await);
    let cluster = Cluster::start().await;
    cluster.scale("qa-agent", 1);
    cluster.put("qa", "qa-agent", &port(old.addr), &[pod("a", "ready")]);
    let gateway = cluster.gateway(&parks("1s", "")).await;
    gateway.until_state("qa", "ready", 1).await;
    until_replicas(&cluster, 0).await;
    // The pod still stands as ready: it is asked.
    assert_eq!(gateway.ask(get("/agents/qa/x")).await.ok().text(), "old");
    // It leaves and would still serve, but its end is near: who comes now waits for the next one.
    cluster.put("qa", "qa-agent", &port(old.addr), &[pod("a", "leaving")]);
    gateway.until_state("qa", "ready", 0).await;
    let open = waiting(&gateway, 1).await;
    until_replicas(&cluster, 1).await;
    let both = [pod("a", "leaving")];
    cluster.put("qa", "qa-agent", &port(old.addr), &both);
    cluster.put("qa-2", "qa-agent", &port(new.addr), &[pod("b", "ready")]);
    for open in open {
        assert_eq!(open.whole().await.ok().text(), "new");
    }
}

#[tokio::test]
async fn a_wake_that_is_refused_is_tried_again() {
    let qa = answers("awake").await;
    let (cluster, gateway) = parked("1s", "", &qa).await;
    cluster.forbid(Some("/scale"));
    let open = waiting(&gateway, 1).await;
    gateway.logged(&["can't be woken", "403"]).await;
    cluster.forbid(None);
    until_replicas(&cluster, 1).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "ready")]);
    for open in open {
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn of_two_gateways_one_decides_and_the_other_takes_over_when_it_is_killed() {
    let qa = answers("awake").await;
    let cluster = Cluster::start().await;
    cluster.scale("qa-agent", 1);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
    let one = cluster.gateway(&parks("2s", "")).await;
    one.logged(&["this gateway decides on scaling"]).await;
    let two = cluster.gateway(&parks("2s", "")).await;
    two.until_state("qa", "ready", 1).await;
    let first = cluster.holder();
    until_replicas(&cluster, 0).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[]);
    for gateway in [&one, &two] {
        gateway.until_metric("switchyard_parked", &[("agent", "qa")], 1.0).await;
    }

    // Both have somebody who waits; it is woken once.
    let (first_waits, second_waits) = (waiting(&one, 1).await, waiting(&two, 1).await);
    until_replicas(&cluster, 1).await;
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("b", "ready")]);
    for open in first_waits.into_iter().chain(second_waits) {
        open.whole().await.ok();
    }
    assert_eq!(cluster.resized("qa-agent"), [0, 1], "one has parked it, one has woken it");
    assert_eq!(cluster.holder(), first);

    one.signal(rustix::process::Signal::KILL);
    two.logged(&["this gateway decides on scaling"]).await;
    assert_ne!(cluster.holder(), first);
    until_replicas(&cluster, 0).await;
}

/// Two gateways that know each other. The first one decides.
async fn two_gateways(cluster: &Cluster, agents: &str) -> [Gateway; 2] {
    let text = format!("[gateway]\ndiscovery = \"kubernetes\"\nadmin = \"0.0.0.0:0\"\n{agents}");
    let kubeconfig = cluster.kubeconfig();
    let env = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let start = async |name: &str| {
        let gateway = Gateway::start_with(&text, &env).await;
        let port = gateway.admin.port();
        let ports = json!([{ "name": "admin", "port": port, "protocol": "TCP" }]);
        cluster.put(name, "switchyard-peers", &ports, &[pod_at("127.0.0.1", name, "ready")]);
        gateway
    };
    let one = start("one").await;
    one.logged(&["this gateway decides on scaling"]).await;
    let both = [one, start("two").await];
    for gateway in &both {
        eventually("it knows the other", || async {
            gateway.admin("/api/load").await.ok().json()["replicas"] == 2
        })
        .await;
    }
    both
}

#[tokio::test]
async fn what_another_gateway_is_asked_counts_as_use() {
    let qa = answers("short").await;
    let cluster = Cluster::start().await;
    cluster.scale("qa-agent", 1);
    cluster.put("qa", "qa-agent", &port(qa.addr), &[pod("a", "ready")]);
    let [_decides, other] = two_gateways(&cluster, &parks("6s", "")).await;
    // For longer than that, and each is over long before the next look.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        assert_eq!(other.ask(get("/agents/qa/x")).await.ok().text(), "short");
        assert!(cluster.resized("qa-agent").is_empty());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    until_replicas(&cluster, 0).await;
}

#[tokio::test]
async fn a_pod_that_another_gateway_keeps_busy_costs_more() {
    let (mut busy, idle) = (Agent::manual().await, answers("idle").await);
    let cluster = Cluster::start().await;
    cluster.pod("busy");
    cluster.pod("idle");
    let table = format!("[agents.qa]\nservice = \"qa-agent\"\n{DEPLOYMENT}");
    cluster.put("qa-1", "qa-agent", &port(busy.addr), &[pod("busy", "ready")]);
    cluster.put("qa-2", "qa-agent", &port(idle.addr), &[pod("idle", "ready")]);
    let [_decides, other] = two_gateways(&cluster, &table).await;
    let (_open, mut call) = loop {
        let mut open = other.open(Http::One, get("/agents/qa/x")).await;
        tokio::select! {
            call = busy.call() => break (open, call),
            _by_the_idle_one = open.rest() => {}
        }
    };
    call.begin_sse().await;
    eventually("it is written to", || async { cluster.costs("busy") == ["10"] }).await;
    assert!(cluster.costs("idle").is_empty());
}

#[tokio::test]
async fn a_busy_pod_costs_more_and_few_are_written_to() {
    let (mut busy, idle) = (Agent::manual().await, answers("idle").await);
    let cluster = Cluster::start().await;
    cluster.pod("busy");
    cluster.pod("idle");
    cluster.put("qa-1", "qa-agent", &port(busy.addr), &[pod("busy", "ready")]);
    let table = format!("[agents.qa]\nservice = \"qa-agent\"\n{DEPLOYMENT}");
    let gateway = cluster.gateway(&table).await;
    gateway.until_state("qa", "ready", 1).await;
    let mut open = gateway.open(Http::One, get("/agents/qa/stream")).await;
    let mut call = busy.call().await;
    call.begin_sse().await;
    assert_eq!(cluster.holder(), "", "one replica: nothing to decide");
    cluster.put("qa-2", "qa-agent", &port(idle.addr), &[pod("idle", "ready")]);
    eventually("the busy one is written to", || async { cluster.costs("busy") == ["10"] }).await;
    for _ in 0..3 {
        let another = gateway.open(Http::One, get("/agents/qa/x")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(another);
    }
    call.end().await;
    open.rest().await.ok();
    eventually("it is idle, too", || async { cluster.costs("busy").last() == Some(&"0".into()) })
        .await;
    assert!(cluster.costs("busy").len() <= 3, "{:?}", cluster.costs("busy"));
}
