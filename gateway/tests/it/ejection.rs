//! Passive and active health: which endpoints are left out, for how long, and which never.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::agent::{Agent, Call, Refusing, answers};
use crate::ask::{get, post};
use crate::gateway::{Gateway, agent};
use crate::reply::Reply;

/// `eject` with this first time, and never more than half.
fn eject(time: &str) -> String {
    format!(
        "eject = {{ consecutive = 3, time = \"{time}\", time_max = \"30s\", max_percent = 50 }}"
    )
}

/// Asks `n` times on one connection.
async fn ask_all(gateway: &Gateway, n: usize) -> Vec<Reply> {
    let mut conn = gateway.client().connect().await;
    let mut replies = Vec::new();
    for _ in 0..n {
        replies.push(conn.ask(post("/agents/qa/x", "{}")).await);
    }
    replies
}

async fn ejected(gateway: &Gateway, addresses: &[SocketAddr]) -> usize {
    let states = gateway.endpoint_states("qa", addresses).await;
    states.iter().filter(|s| *s == "ejected").count()
}

#[tokio::test]
async fn a_refused_connection_ejects_at_once() {
    let (refusing, good) = (Refusing::new(), answers("{}").await);
    let addresses = [refusing.addr, good.addr];
    let gateway = Gateway::start(&agent("qa", &addresses, &eject("30s"))).await;
    for reply in ask_all(&gateway, 20).await {
        reply.ok();
    }
    assert_eq!(gateway.endpoint_states("qa", &addresses).await, ["ejected", "ready"]);
    let labels = [("agent", "qa"), ("state", "ejected")];
    assert_eq!(gateway.metric("switchyard_endpoints", &labels).await, Some(1.0));
    // What is out is not asked, even when it would answer by now.
    let back = Agent::with_on(refusing.listen(), |call| call.json("{}"));
    for reply in ask_all(&gateway, 20).await {
        reply.ok();
    }
    assert_eq!(back.accepts(), 0);
}

#[tokio::test]
async fn a_reset_connection_ejects_at_once() {
    let (bad, good) = (Agent::with(|call| async { call.reset() }).await, answers("{}").await);
    let gateway = Gateway::start(&agent("qa", &[bad.addr, good.addr], &eject("30s"))).await;
    let failed = ask_all(&gateway, 40).await.iter().filter(|r| r.status != 200).count();
    assert_eq!((failed, bad.count()), (1, 1));
    assert_eq!(ejected(&gateway, &[bad.addr]).await, 1);
}

#[tokio::test]
async fn other_failures_eject_after_some_in_a_row() {
    let nonsense = |mut call: Call| async move {
        call.send("nonsense\r\n\r\n").await;
        call.gone().await;
    };
    let (bad, good) = (Agent::with(nonsense).await, answers("{}").await);
    let gateway = Gateway::start(&agent("qa", &[bad.addr, good.addr], &eject("30s"))).await;
    ask_all(&gateway, 60).await;
    assert_eq!(bad.count(), 3);
    assert_eq!(ejected(&gateway, &[bad.addr]).await, 1);
}

#[tokio::test]
async fn a_success_between_failures_starts_the_count_again() {
    let flaky = Agent::with(|mut call| async move {
        if call.target() == "/bad" {
            call.send("nonsense\r\n\r\n").await;
            call.gone().await;
        } else {
            call.json("{}").await;
        }
    })
    .await;
    // A second endpoint, so that ejecting would be allowed; it is full all the time.
    let gateway = Gateway::start(&agent("qa", &[flaky.addr], &eject("30s"))).await;
    for _ in 0..4 {
        gateway.ask(get("/agents/qa/bad")).await.error("bad-response");
        gateway.ask(get("/agents/qa/bad")).await.error("bad-response");
        gateway.ask(get("/agents/qa/good")).await.ok();
    }
    assert_eq!(gateway.endpoint_states("qa", &[flaky.addr]).await, ["ready"]);
}

#[tokio::test]
async fn the_only_endpoint_is_never_ejected() {
    let refusing = Refusing::new();
    let addr = refusing.addr;
    let gateway = Gateway::start(&agent("qa", &[addr], &eject("30s"))).await;
    for reply in ask_all(&gateway, 10).await {
        reply.error("connect-failed");
    }
    assert_eq!(ejected(&gateway, &[addr]).await, 0);
    let _back = Agent::with_on(refusing.listen(), |call| call.json("{}"));
    gateway.ask(post("/agents/qa/x", "{}")).await.ok();
}

#[tokio::test]
async fn never_more_than_half_are_ejected() {
    let refusing: Vec<Refusing> = (0..4).map(|_| Refusing::new()).collect();
    let addresses: Vec<SocketAddr> = refusing.iter().map(|r| r.addr).collect();
    let settings = format!("retry = \"off\"\n{}", eject("30s"));
    let gateway = Gateway::start(&agent("qa", &addresses, &settings)).await;
    for reply in ask_all(&gateway, 40).await {
        reply.error("connect-failed");
    }
    assert_eq!(ejected(&gateway, &addresses).await, 2);
}

#[tokio::test]
async fn an_ejected_endpoint_comes_back() {
    let (refusing, good) = (Refusing::new(), answers("{}").await);
    let addr = refusing.addr;
    let settings =
        "eject = { consecutive = 3, time = \"200ms\", time_max = \"1s\", max_percent = 50 }";
    let gateway = Gateway::start(&agent("qa", &[addr, good.addr], settings)).await;
    while ejected(&gateway, &[addr]).await == 0 {
        gateway.ask(post("/agents/qa/x", "{}")).await.ok();
    }
    let back = Agent::with_on(refusing.listen(), |call| call.json("{}"));
    gateway.until_endpoint("qa", addr, "ready").await;
    crate::wire::eventually("the endpoint is asked again", || async {
        gateway.ask(post("/agents/qa/x", "{}")).await.ok();
        back.count() > 0
    })
    .await;
}

/// Agents of which the first `failing` answer 500, and the others 200.
async fn of_which_fail(all: usize, failing: usize) -> Vec<Agent> {
    let mut agents = Vec::new();
    for n in 0..all {
        agents.push(if n < failing {
            Agent::with(|call| call.reply("500 Oops", "oops")).await
        } else {
            answers("{}").await
        });
    }
    agents
}

fn addresses(agents: &[Agent]) -> Vec<SocketAddr> {
    agents.iter().map(|a| a.addr).collect()
}

#[tokio::test]
async fn who_answers_500_far_more_often_than_the_others_is_ejected_by_its_failure_ratio() {
    let agents = of_which_fail(3, 1).await;
    let gateway = Gateway::start(&agent("qa", &addresses(&agents), &eject("30s"))).await;
    let failed = ask_all(&gateway, 100).await.iter().filter(|r| r.status == 500).count();
    // Its answers passed as they were, until there were enough to say so.
    assert_eq!(failed, agents[0].count());
    // A few more where a window of ten seconds ended meanwhile.
    assert!((10..=12).contains(&failed), "{failed}");
    assert_eq!(gateway.endpoint_states("qa", &addresses(&agents)).await[0], "ejected");
    let line = gateway.logged(&["endpoint ejected", "failure ratio"]).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(
        line["failures"].as_u64() >= Some(10) && line["failures"] == line["requests"],
        "{line}"
    );
    assert_eq!(gateway.metric("switchyard_ejections_total", &[("agent", "qa")]).await, Some(1.0));
}

#[tokio::test]
async fn of_four_replicas_those_that_answer_500_are_ejected_up_to_half() {
    for failing in [2, 3] {
        let agents = of_which_fail(4, failing).await;
        let gateway = Gateway::start(&agent("qa", &addresses(&agents), &eject("30s"))).await;
        ask_all(&gateway, 200).await;
        let states = gateway.endpoint_states("qa", &addresses(&agents)).await;
        let out = states.iter().filter(|state| *state == "ejected").count();
        // Where most fail, who fails is nothing out of the ordinary.
        let enough = if failing == 2 { out == 2 } else { out <= 2 };
        assert!(enough && states[3] == "ready", "{failing} fail: {states:?}");
    }
}

#[tokio::test]
async fn when_all_replicas_answer_500_none_is_ejected() {
    let agents = of_which_fail(3, 3).await;
    let gateway = Gateway::start(&agent("qa", &addresses(&agents), &eject("30s"))).await;
    for reply in ask_all(&gateway, 100).await {
        assert_eq!((reply.status, reply.text().as_str()), (500, "oops"));
    }
    assert_eq!(ejected(&gateway, &addresses(&agents)).await, 0);
}

#[tokio::test]
async fn without_ejection_every_endpoint_stays() {
    let (refusing, good) = (Refusing::new(), answers("{}").await);
    let addresses = [refusing.addr, good.addr];
    let gateway = Gateway::start(&agent("qa", &addresses, "eject = \"off\"")).await;
    ask_all(&gateway, 10).await;
    assert_eq!(gateway.endpoint_states("qa", &addresses).await, ["ready", "ready"]);
}

/// An agent whose `/readyz` says what the switch says.
async fn probed(healthy: &Arc<AtomicBool>) -> Agent {
    let healthy = Arc::clone(healthy);
    Agent::with(move |call| {
        let well = healthy.load(Ordering::SeqCst);
        async move {
            match (call.target(), well) {
                ("/readyz", false) => call.reply("503 No", "no").await,
                _ => call.json("{}").await,
            }
        }
    })
    .await
}

const PROBES: &str = "health = { path = \"/readyz\", interval = \"50ms\", timeout = \"2s\", \
    unhealthy = 2, healthy = 2 }";

#[tokio::test]
async fn an_endpoint_that_fails_its_probes_gets_no_requests_until_it_passes_them() {
    let well = Arc::new(AtomicBool::new(false));
    let (sick, good) = (probed(&well).await, answers("{}").await);
    let gateway = Gateway::start(&agent("qa", &[sick.addr, good.addr], PROBES)).await;
    gateway.until_endpoint("qa", sick.addr, "unhealthy").await;
    let labels = [("agent", "qa"), ("state", "unhealthy")];
    assert_eq!(gateway.metric("switchyard_endpoints", &labels).await, Some(1.0));
    for reply in ask_all(&gateway, 20).await {
        reply.ok();
    }
    let asked = |agent: &Agent| agent.seen().iter().filter(|h| h.word(1) == "/x").count();
    assert_eq!(asked(&sick), 0);
    assert!(sick.seen().iter().all(|h| h.start == "GET /readyz HTTP/1.1"));
    well.store(true, Ordering::SeqCst);
    gateway.until_endpoint("qa", sick.addr, "ready").await;
    ask_all(&gateway, 40).await;
    assert!(asked(&sick) > 0);
}

#[tokio::test]
async fn when_no_endpoint_is_healthy_there_is_none() {
    let well = Arc::new(AtomicBool::new(false));
    let sick = probed(&well).await;
    let gateway = Gateway::start(&agent("qa", &[sick.addr], PROBES)).await;
    gateway.until_endpoint("qa", sick.addr, "unhealthy").await;
    gateway.ask(get("/agents/qa/x")).await.error("no-endpoint");
    let health = gateway.admin("/health").await;
    assert_eq!((health.status, health.json()["checks"]["qa"].as_str()), (503, Some("down")));
    well.store(true, Ordering::SeqCst);
    gateway.until_endpoint("qa", sick.addr, "ready").await;
    gateway.ask(get("/agents/qa/x")).await.ok();
}

#[tokio::test]
async fn an_endpoint_that_hangs_fails_its_probes() {
    let (mut hangs, good) = (Agent::manual().await, answers("{}").await);
    let probes = PROBES.replace("timeout = \"2s\"", "timeout = \"100ms\"");
    let gateway = Gateway::start(&agent("qa", &[hangs.addr, good.addr], &probes)).await;
    let mut probe = hangs.call().await;
    gateway.until_endpoint("qa", hangs.addr, "unhealthy").await;
    probe.gone().await;
}
