//! A replica is killed while it works.

use std::time::Instant;

use super::load::{Load, post};
use super::replica::Replica;
use super::times;
use crate::agent::Agent;
use crate::gateway::{Gateway, agent};

const CLIENTS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_one_of_two_replicas_loses_only_what_it_had_begun_and_nobody_is_sent_there_again()
{
    for _ in 0..times(1) {
        let (killed, other) = (Replica::start().await, Replica::start().await);
        let settings = "eject = { time = \"30s\", time_max = \"30s\" }";
        let gateway = Gateway::start(&agent("qa", &[killed.addr, other.addr], settings)).await;
        let load = Load::start(gateway.addr, CLIENTS, |_, id| post("/agents/qa/x", id, ""));
        load.more(500).await;
        assert!(killed.count() > 50 && other.count() > 50, "both are asked");
        let begun = killed.kill().await;
        gateway.until_endpoint("qa", killed.addr, "ejected").await;
        let out = Instant::now();
        // Whoever is sent there from now on is seen.
        let back = tokio::net::TcpListener::bind(killed.addr).await.unwrap();
        let back = Agent::with_on(back, |call| call.json("{}"));
        load.more(500).await;
        let asked = load.end().await;
        assert_eq!(back.accepts(), 0, "nobody was sent to an ejected replica");
        let lost: Vec<_> = asked.iter().filter(|asked| !asked.is_ok()).collect();
        // In its hands at that moment: at most one of each client's.
        assert!(lost.len() <= CLIENTS, "{} of {} lost", lost.len(), asked.len());
        for lost in &lost {
            assert_eq!(lost.code(), Some("upstream-reset"), "{lost:?}");
            assert!(lost.at < out, "lost after the replica was found out: {lost:?}");
        }
        let unbegun = lost.iter().filter(|lost| !begun.contains(&lost.id)).count();
        println!(
            "{} asked, {} lost, of which {unbegun} had come to the killed replica and were not begun",
            asked.len(),
            lost.len()
        );
    }
}
