//! An upstream closes its idle connections just when they are used again.

use std::time::Duration;

use tokio::net::TcpListener;

use super::load::{Came, Load, get, post};
use super::times;
use crate::gateway::{Gateway, agent};
use crate::wire::{CEILING, Framing, Link};

/// Microseconds that a connection is idle, at the agent as at the clients.
const IDLE: std::ops::Range<u64> = 2_000..8_000;

/// Serves one connection: between two requests it waits about as long as the clients do, and closes
/// it. Seeded, so that a run can be had again.
async fn serve(stream: tokio::net::TcpStream, seed: u64) {
    let (mut link, mut random) = (Link::new(stream), fastrand::Rng::with_seed(seed));
    let mut idle = CEILING;
    loop {
        let Ok(Ok(head)) = tokio::time::timeout(idle, link.reader.head()).await else { return };
        let mut framing = Framing::of(&head.headers, Framing::Done);
        let _ = link.reader.rest(&mut framing).await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        if link.writer.send(answer).await.is_err() {
            return;
        }
        idle = Duration::from_micros(random.u64(IDLE));
    }
}

/// An agent all of whose connections are closed like that.
async fn hasty() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for seed in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(serve(stream, seed));
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_closes_idle_connections_as_they_are_used_again_costs_nothing_that_may_be_asked_twice()
 {
    let addr = hasty().await;
    let gateway = Gateway::start(&agent("qa", &[addr], "retry = { budget = 1.0 }")).await;
    let load = Load::pausing(gateway.addr, 12, IDLE, |client, id| match client % 3 {
        0 => get("/agents/qa/x", id),
        1 => post("/agents/qa/x", id, "idempotency-key: k\r\n"),
        _ => post("/agents/qa/x", id, ""),
    });
    load.more(times(5000)).await;
    let asked = load.end().await;
    let retries = gateway.metric("switchyard_retries_total", &[("agent", "qa")]).await;
    let lost: Vec<_> = asked.iter().filter(|asked| !asked.is_ok()).collect();
    for lost in &lost {
        let client: usize = lost.id.split('-').next().unwrap().parse().unwrap();
        let Came::Answer { body, .. } = &lost.came else { panic!("{lost:?}") };
        // Only what was sent, and may not be sent twice.
        assert_eq!((client % 3, lost.code()), (2, Some("upstream-reset")), "{lost:?}");
        assert!(body.contains("it may have begun the work"), "{body}");
    }
    println!("{} asked, {} POSTs lost, {retries:?} retries", asked.len(), lost.len());
    assert!(retries > Some(0.0) || !lost.is_empty(), "the race was never met");
}
