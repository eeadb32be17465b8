//! Requests that are let in by what they need of a replica's memory.

use crate::agent::{Agent, Call};
use crate::ask::{get, post};
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http};
use crate::wire::eventually;

/// 100 KiB and 40 bytes for each of the body's, in replicas of 1 MiB.
const MEMORY: &str = "memory = { base = \"100KiB\", per_body_byte = 40, limit = \"1MiB\" }\n\
                      queue = { max = 64, timeout = \"60s\" }";

/// The next request, but for the gateway's own of what the agent reports.
async fn work(agent: &mut Agent) -> Call {
    loop {
        let call = agent.call().await;
        if call.target() != "/metrics" {
            return call;
        }
    }
}

/// A body by which a request needs so many KiB, at least 100.
fn body(need_kib: usize) -> Vec<u8> {
    vec![b'x'; (need_kib - 100) * 1024 / 40]
}

#[tokio::test]
async fn a_replica_takes_no_more_than_fits() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], MEMORY)).await;
    let first = gateway.open(Http::One, post("/agents/qa/1", body(600))).await;
    let call = work(&mut qa).await;
    let second = gateway.open(Http::Two, post("/agents/qa/2", body(600))).await;
    gateway.until_state("qa", "queued", 1).await;
    let state = gateway.state("qa").await;
    assert_eq!(state["endpoints"][0]["memory"]["most"], 1 << 20);
    assert!(state["endpoints"][0]["memory"]["needed"].as_u64().unwrap() > 590 << 10, "{state}");
    assert!(state["queued_bytes"].as_u64().unwrap() > 10_000, "{state}");
    call.json("{}").await;
    work(&mut qa).await.json("{}").await;
    for open in [first, second] {
        open.whole().await.ok();
    }
    gateway.until_state("qa", "in_flight", 0).await;
    let state = gateway.state("qa").await;
    assert_eq!(state["endpoints"][0]["memory"]["needed"], 0);
    assert_eq!(state["queued_bytes"], 0);
}

#[tokio::test]
async fn what_fits_in_no_replica_is_told_so_with_the_numbers() {
    let qa = Agent::with(|call| async move { call.json("{}").await }).await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], MEMORY)).await;
    for http in BOTH {
        let reply = gateway.ask_by(http, post("/agents/qa/x", body(1_200))).await;
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        reply.error("body-too-large");
        for number in ["28160 bytes", "102400", "40", "1048576"] {
            assert!(detail.contains(number), "{number} in {detail}");
        }
        gateway.ask_by(http, post("/agents/qa/x", body(900))).await.ok();
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_measured_first() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], MEMORY)).await;
    let ask = post("/agents/qa/x", "").chunks([body(400), body(300)]);
    let open = gateway.open(Http::One, ask).await;
    let call = work(&mut qa).await;
    let needed = gateway.state("qa").await["endpoints"][0]["memory"]["needed"].clone();
    assert!((590 << 10..=600 << 10).contains(&needed.as_u64().unwrap()), "{needed}");
    call.json("{}").await;
    open.whole().await.ok();
    // One that is longer than what is read ahead may become as long as any.
    let long = post("/agents/qa/x", "").chunks(vec![vec![b'x'; 64 << 10]; 20]);
    gateway.ask(long).await.error("body-too-large");
}

#[tokio::test]
async fn small_ones_pass_a_large_one_but_never_keep_it_waiting() {
    let (mut a, mut b) = (Agent::manual().await, Agent::manual().await);
    let gateway = Gateway::start(&agent("qa", &[a.addr, b.addr], MEMORY)).await;
    let mut opens = vec![gateway.open(Http::One, post("/agents/qa/x", body(500))).await];
    // Only when the first has its place does the second surely go to the other.
    gateway.until_state("qa", "in_flight", 1).await;
    opens.push(gateway.open(Http::One, post("/agents/qa/x", body(300))).await);
    let (at_a, at_b) = (work(&mut a).await, work(&mut b).await);
    opens.push(gateway.open(Http::One, post("/agents/qa/large", body(900))).await);
    gateway.until_state("qa", "queued", 1).await;
    // Small ones go to the fuller of the two: the other one's room is kept.
    let fuller_is_a = gateway.state("qa").await["endpoints"][0]["memory"]["needed"]
        .as_u64()
        .is_some_and(|needed| needed > 400 << 10);
    for _ in 0..5 {
        let small = gateway.open(Http::Two, post("/agents/qa/small", body(200))).await;
        let fuller = if fuller_is_a { &mut a } else { &mut b };
        work(fuller).await.json("{}").await;
        small.whole().await.ok();
    }
    let (emptier, rest) = if fuller_is_a { (at_b, at_a) } else { (at_a, at_b) };
    emptier.json("{}").await;
    let large = if fuller_is_a { work(&mut b).await } else { work(&mut a).await };
    assert_eq!(large.target(), "/large");
    large.json("{}").await;
    rest.json("{}").await;
    for open in opens {
        open.whole().await.ok();
    }
}

/// An agent that says what it takes.
async fn reporting(text: &'static str) -> Agent {
    Agent::with(move |call| async move {
        match call.target() {
            "/metrics" => call.reply("200 OK\r\ncontent-type: text/plain", text).await,
            _ => call.json("{}").await,
        }
    })
    .await
}

#[tokio::test]
async fn what_a_replica_reports_to_take_at_rest_is_not_there_for_requests() {
    let qa =
        reporting("process_resident_memory_bytes 262144\nprocess_start_time_seconds 5\n").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], MEMORY)).await;
    eventually("the report is read", || async {
        gateway.state("qa").await["endpoints"][0]["memory"]["rest"] == 262_144
    })
    .await;
    assert_eq!(gateway.state("qa").await["endpoints"][0]["memory"]["most"], 786_432);
    gateway.ask(post("/agents/qa/x", body(900))).await.error("body-too-large");
    gateway.ask(post("/agents/qa/x", body(700))).await.ok();
}

#[tokio::test]
async fn the_memory_of_a_request_that_fails_or_leaves_is_given_back() {
    let mut qa = Agent::manual().await;
    let settings = format!("{MEMORY}\neject = \"off\"\nretry = \"off\"");
    let gateway = Gateway::start(&agent("qa", &[qa.addr], &settings)).await;
    for http in BOTH {
        let left = gateway.open(http, post("/agents/qa/x", body(900))).await;
        let mut call = work(&mut qa).await;
        drop(left);
        call.gone().await;
        let broken = gateway.open(http, post("/agents/qa/x", body(900))).await;
        work(&mut qa).await.reset();
        broken.whole().await.error("upstream-reset");
        gateway.until_state("qa", "in_flight", 0).await;
        let needed = gateway.state("qa").await["endpoints"][0]["memory"]["needed"].clone();
        assert_eq!(needed, 0);
    }
    let open = gateway.open(Http::One, get("/agents/qa/x")).await;
    work(&mut qa).await.json("{}").await;
    open.whole().await.ok();
}
