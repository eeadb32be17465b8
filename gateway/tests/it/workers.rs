//! How connections spread over the workers, wherever the kernel puts them.

use crate::agent::Agent;
use crate::ask::get;
use crate::gateway::{Gateway, agent};
use crate::reply::Http;

/// Open connections of each of the two workers.
async fn connections(gateway: &Gateway) -> [f64; 2] {
    let text = gateway.metrics().await;
    ["0", "1"].map(|worker| {
        let labels = [("worker", worker)];
        crate::gateway::sample(&text, "switchyard_worker_connections", &labels).expect("a gauge")
    })
}

#[tokio::test]
async fn connections_are_spread_evenly() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    // Left to the kernel, they would be even in one round of four.
    for _ in 0..6 {
        let mut open = Vec::new();
        for _ in 0..8 {
            open.push((gateway.open(Http::One, get("/agents/qa/x")).await, qa.call().await));
        }
        assert_eq!(connections(&gateway).await, [4.0, 4.0]);
        drop(open);
        gateway.until_metric("switchyard_worker_connections", &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_connection_with_many_requests_counts_for_as_many() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut shared = gateway.client().connect_h2().await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push((shared.open(get("/agents/qa/x")).await, qa.call().await));
    }
    let busy = connections(&gateway).await;
    for _ in 0..3 {
        open.push((gateway.open(Http::One, get("/agents/qa/x")).await, qa.call().await));
    }
    let expected = if busy == [1.0, 0.0] { [1.0, 3.0] } else { [3.0, 1.0] };
    assert_eq!(connections(&gateway).await, expected);
}
