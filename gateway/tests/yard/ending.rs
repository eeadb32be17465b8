//! Ctrl-C, once and twice.

use std::path::{Path, PathBuf};

use crate::gate;
use crate::harness::{Yard, until, yard};
use crate::processes::{descendants, until_gone};
use crate::table::{memory_limit, put, shipped, shipped_on};

/// Every replica is under the limit that the table gives it.
fn check_limits(group: &Path, yard: &Yard) {
    let read = |file: PathBuf| std::fs::read_to_string(file).unwrap_or_default();
    for kind in ["qa", "coding"] {
        let limit = memory_limit(kind);
        let pid = yard.replicas(kind)[0].to_string();
        let leaves = std::fs::read_dir(group).unwrap().flatten().map(|entry| entry.path());
        let leaf = leaves
            .filter(|leaf| leaf.is_dir())
            .find(|leaf| read(leaf.join("cgroup.procs")).lines().any(|line| line == pid))
            .unwrap_or_else(|| panic!("{kind} is in no group"));
        let files = ["memory.max", "memory.limit_in_bytes"];
        let limits = files.map(|file| read(leaf.join(file)).trim().to_owned());
        assert!(limits.contains(&limit.to_string()), "{limits:?}");
    }
}

/// The replicas and the block that one of them runs.
async fn all_processes(yard: &Yard) -> Vec<u32> {
    gate::process(yard).await;
    descendants(yard.pid())
}

#[tokio::test]
async fn ctrl_c_finishes_an_open_stream_and_leaves_nothing_behind() {
    let mut yard = yard(&shipped()).start().await;
    yard.until_replicas("qa", 1).await;
    yard.until_replicas("coding", 1).await;
    let group = yard.group().await;
    if let Some(group) = &group {
        check_limits(group, &yard);
    }
    let waiting = gate::waiting(&yard, "coding").await;
    let processes = all_processes(&yard).await;

    yard.interrupt();
    yard.log.line("up | finishing what is open").await;
    until("nobody is let in", async || {
        let fresh = reqwest::Client::builder().no_proxy().build().unwrap();
        fresh.get(format!("{}/agents", yard.url)).send().await.is_err()
    })
    .await;
    let events = waiting.pass().await;
    assert!(events.last().unwrap().data["output"].as_str().unwrap().contains("passed the gate"));
    assert_eq!(yard.ended().await, Some(0));
    for replica in ["qa-1", "coding-1"] {
        yard.log.line(&format!("up | {replica} stopped: it exited with status 0")).await;
    }
    until_gone(&processes).await;
    assert!(group.is_none_or(|group| !group.exists()));
    let left: Vec<_> = std::fs::read_dir(yard.tmp()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_second_ctrl_c_ends_everything_at_once() {
    let mut yard = yard(&shipped()).start().await;
    yard.until_replicas("coding", 1).await;
    let group = yard.group().await;
    let mut waiting = gate::waiting(&yard, "coding").await;
    let processes = all_processes(&yard).await;
    yard.interrupt();
    yard.log.line("up | finishing what is open").await;
    yard.interrupt();
    assert_eq!(yard.ended().await, Some(130));
    let (events, end) = waiting.stream.rest().await;
    assert!(events.iter().all(|event| event.name != "final"), "{end:?} {events:?}");
    assert_eq!(end, crate::stream::End::Broken);
    until_gone(&processes).await;
    assert!(group.is_none_or(|group| !group.exists()));
}

#[tokio::test]
async fn the_same_ports_can_be_had_again_at_once() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (listen, admin) = (free(), free());
    let table = put(&shipped_on(&listen.to_string()), "127.0.0.1:0", &admin.to_string());
    for _ in 0..2 {
        let yard = yard(&table).start().await;
        yard.until_replicas("qa", 1).await;
        // The server's side closes first, and stays in TIME_WAIT.
        yard.ask("qa", "What is a replica?").await;
        let (code, out, err) = crate::harness::yard(&table).fail().await;
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
        assert!(err.contains(&listen.to_string()), "{err}");
        yard.end().await;
    }
}

#[tokio::test]
async fn ctrl_c_before_the_agents_are_ready_ends_in_order() {
    let yard = yard(&shipped()).start().await;
    yard.end().await;
}
