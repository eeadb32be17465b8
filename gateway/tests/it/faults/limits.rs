//! The gateway at its own limits: connections, descriptors, memory, and operators that hang.

use std::time::Duration;

use super::load::{self, Came, Load};
use super::times;
use crate::agent::{Agent, answers};
use crate::ask::{get, post};
use crate::client::Client;
use crate::gateway::{Gateway, agent};
use crate::reply::{Http, retry_after};
use crate::wire::{eventually, soon};

/// Operators and probes are answered at once.
async fn operators_are_served(gateway: &Gateway) {
    for path in ["/livez", "/readyz", "/metrics"] {
        let asked = tokio::time::timeout(Duration::from_secs(5), gateway.admin(path));
        assert_eq!(asked.await.expect("it is answered at once").status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_its_connection_limit_further_clients_are_told_so_and_served_once_there_is_room() {
    let mut qa = Agent::manual().await;
    let text = format!("[gateway]\nmax_connections = 4\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&text).await;
    let (mut held, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        held.push(gateway.open(Http::One, get("/agents/qa/x")).await);
        calls.push(qa.call().await);
    }
    for _ in 0..times(50) {
        let mut further = gateway.client().connect().await;
        let reply = further.reply().await;
        reply.error("overloaded");
        assert!(retry_after(&reply).is_some());
        further.gone().await;
    }
    operators_are_served(&gateway).await;
    assert_eq!(gateway.state("qa").await["in_flight"], 4, "those that are in go on");
    for (call, open) in calls.into_iter().zip(held) {
        call.json("{}").await;
        open.whole().await.ok();
    }
    gateway.until_metric("switchyard_connections", &[], 0.0).await;
    let asked = gateway.open(Http::One, get("/agents/qa/x")).await;
    qa.call().await.json("{}").await;
    asked.whole().await.ok();
}

/// One HTTP/2 connection may need any number of descriptors: here all that there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_its_descriptor_limit_it_sheds_clearly_gives_up_idle_connections_and_recovers() {
    let (qa, slow) = (answers("{}").await, Agent::manual().await);
    let text = agent("qa", &[qa.addr], "keepalive = { idle = \"60s\" }")
        + &agent("slow", &[slow.addr], "");
    let gateway = Gateway::start_after(&text, "ulimit -n 500").await;
    let line = gateway.logged(&["max_connections clamped to the descriptor limit"]).await;
    assert!(line.contains("\"descriptors\":500"), "{line}");
    // Idle connections to agents, as a burst leaves them.
    let load = Load::start(gateway.addr, 40, |_, id| load::get("/agents/qa/x", id));
    load.more(400).await;
    load::all_ok(&load.end().await);
    assert!(qa.open() >= 20, "{} idle", qa.open());
    let mut conn = gateway.client().connect_h2().await;
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(conn.open(get("/agents/slow/x")).await);
    }
    let overloaded = [("agent", "slow"), ("outcome", "overloaded")];
    eventually("what doesn't fit is refused", || async {
        let refused = gateway.metric("switchyard_requests_total", &overloaded).await;
        slow.count() as f64 + refused.unwrap_or(0.0) == 300.0
    })
    .await;
    assert!((150..250).contains(&slow.count()), "{} fit", slow.count());
    eventually("idle connections were given up", || async { qa.open() == 0 }).await;
    operators_are_served(&gateway).await;
    // What these had is taken, too; then who connects is told so.
    let request = load::get("/agents/qa/x", "1");
    let refused = loop {
        match load::ask(gateway.addr, &mut None, &request).await {
            Came::Answer { status: 200, .. } => held.push(conn.open(get("/agents/slow/x")).await),
            came => break came,
        }
    };
    let Came::Answer { status, code, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!((*status, code.as_deref()), (503, Some("overloaded")));
    operators_are_served(&gateway).await;
    assert_eq!(gateway.state("slow").await["ready"], 1, "no fault of the agent's");
    drop((held, conn));
    eventually("there is room again", || async {
        matches!(
            load::ask(gateway.addr, &mut None, &request).await,
            Came::Answer { status: 200, .. }
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_its_memory_limit_new_requests_are_refused_what_is_under_way_goes_on_and_it_recovers() {
    let mut qa = Agent::manual().await;
    let settings = "max_in_flight = 1\nqueue = { max = 100, timeout = \"60s\" }";
    let own = agent("qa", &[qa.addr], settings);
    let gateway = Gateway::start(&own).await;
    let first = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    let call = qa.call().await;
    // Room for some 24 of the bodies that are read ahead while their requests wait.
    let max = gateway.memory().0 + (24 << 20);
    let limited = format!("[gateway]\nmax_memory = {max}\n{own}");
    gateway.edit(&limited).await;
    let line = gateway.logged(&["refused beyond this much memory", "gateway.max_memory"]).await;
    assert!(line.contains(&max.to_string()), "{line}");
    let mut waiting = Vec::new();
    while gateway.metric("switchyard_shedding", &[]).await == Some(0.0) {
        assert!(waiting.len() < 60, "{:?} of {max} in memory", gateway.memory());
        let upload = post("/agents/qa/x", "x".repeat(1 << 20));
        waiting.push(gateway.open(Http::One, upload).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gateway.logged(&["too much in memory"]).await;
    for http in crate::reply::BOTH {
        let reply = gateway.ask_by(http, get("/agents/qa/x")).await;
        let problem = reply.error("overloaded");
        assert!(problem["detail"].as_str().unwrap().contains("gateway.max_memory"), "{problem}");
        assert!(retry_after(&reply).is_some());
    }
    operators_are_served(&gateway).await;
    gateway.ask(get("/agents")).await.ok();
    // Those that it had let in are served, one after the other.
    call.json("{}").await;
    first.whole().await.ok();
    let let_in = gateway.state("qa").await;
    let let_in = let_in["queued"].as_u64().unwrap() + let_in["in_flight"].as_u64().unwrap();
    for _ in 0..let_in {
        let mut call = qa.call().await;
        call.body().await;
        call.json("{}").await;
    }
    for open in waiting {
        let reply = open.whole().await;
        assert!(reply.status == 200 || reply.code() == Some("overloaded"), "{reply:?}");
    }
    gateway.until_metric("switchyard_shedding", &[], 0.0).await;
    gateway.logged(&["memory is free again"]).await;
    let again = gateway.open(Http::One, get("/agents/qa/x")).await;
    qa.call().await.json("{}").await;
    again.whole().await.ok();
}

#[tokio::test]
async fn operators_that_hang_keep_no_probe_waiting() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut hanging = Vec::new();
    for _ in 0..times(80) {
        let mut conn = Client::unchecked(gateway.admin).connect().await;
        conn.send("GET /livez HTTP/1.1\r\nhost").await;
        hanging.push(conn);
    }
    operators_are_served(&gateway).await;
    // Whoever said nothing for longest had to go.
    soon("the first one is closed", hanging[0].link.reader.gone()).await;
}
