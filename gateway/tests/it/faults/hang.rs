//! A replica that accepts and never answers.

use super::load::{Load, post};
use super::times;
use crate::agent::{Agent, answers};
use crate::gateway::{Gateway, agent};

const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hangs_is_ejected_by_the_first_byte_clock_and_then_nobody_waits_for_it() {
    let hangs = Agent::with(|mut call| async move {
        call.gone().await;
    })
    .await;
    let good = answers("{}").await;
    let settings = "first_byte_timeout = \"300ms\"\n\
        eject = { consecutive = 3, time = \"30s\", time_max = \"30s\" }";
    let gateway = Gateway::start(&agent("qa", &[hangs.addr, good.addr], settings)).await;
    let load = Load::start(gateway.addr, CLIENTS, |_, id| post("/agents/qa/x", id, ""));
    gateway.until_endpoint("qa", hangs.addr, "ejected").await;
    // Those that it has still run into their clocks.
    gateway
        .until_metric("switchyard_requests_total", &[("outcome", "first-byte-timeout")], {
            hangs.count() as f64
        })
        .await;
    let (seen, since) = (hangs.count(), std::time::Instant::now());
    load.more(times(300)).await;
    let asked = load.end().await;
    assert_eq!(hangs.count(), seen, "nobody was sent to it again");
    let failed: Vec<_> = asked.iter().filter(|asked| !asked.is_ok()).collect();
    assert_eq!(failed.len(), seen);
    assert!(seen <= 3 + CLIENTS, "{seen} waited for it");
    for failed in failed {
        assert_eq!(failed.code(), Some("first-byte-timeout"), "{failed:?}");
        assert!(failed.at < since);
    }
}
