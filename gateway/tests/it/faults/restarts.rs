//! Everything is restarted, one after the other, while clients ask and streams run.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use super::load::{Asked, Came, Load, all_ok, get, post};
use super::replica::Replica;
use super::times;
use crate::gateway::{Gateway, agent, table};

/// Clients: each third reads streams, and each third connects anew for each request.
const CLIENTS: usize = 12;

fn request(client: usize, id: &str) -> String {
    match client % 3 {
        0 => get(&format!("/agents/qa/stream/{client}"), id),
        1 => post("/agents/qa/x", id, "connection: close\r\n"),
        _ => post("/agents/qa/x", id, ""),
    }
}

fn is_stream(asked: &Asked) -> bool {
    client(asked).is_multiple_of(3)
}

fn client(asked: &Asked) -> usize {
    asked.id.split('-').next().unwrap().parse().unwrap()
}

/// The hashes of each client's streams.
fn hashes(asked: &[Asked]) -> HashMap<usize, HashSet<u64>> {
    let mut hashes = HashMap::<_, HashSet<u64>>::new();
    for asked in asked.iter().filter(|asked| is_stream(asked)) {
        let Came::Answer { body, .. } = &asked.came else { panic!("{asked:?}") };
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        hashes.entry(client(asked)).or_default().insert(hasher.finish());
    }
    hashes
}

/// What each stream is when nothing happens.
async fn undisturbed(gateway: &Gateway) -> HashMap<usize, HashSet<u64>> {
    let load = Load::start(gateway.addr, CLIENTS, request);
    load.more(CLIENTS * 3).await;
    let asked = load.end().await;
    all_ok(&asked);
    let hashes = hashes(&asked);
    let alike = hashes.values().all(|hashes| hashes.len() == 1);
    let told_apart: HashSet<_> = hashes.values().flatten().collect();
    assert!(alike && told_apart.len() == CLIENTS / 3, "{hashes:?}");
    hashes
}

/// Asserts that nothing failed, and that every stream was as it is when nothing happens.
fn check(asked: &[Asked], undisturbed: &HashMap<usize, HashSet<u64>>) {
    let all = all_ok(asked);
    assert_eq!(&hashes(asked), undisturbed, "streams are byte-identical");
    println!("{all} asked, {} of them streams", asked.iter().filter(|a| is_stream(a)).count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_restarted_in_turn_under_streams_and_load_costs_no_request_and_no_byte() {
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start().await);
    }
    let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.addr).collect();
    let gateway = Gateway::start(&agent("qa", &addresses, "")).await;
    let undisturbed = undisturbed(&gateway).await;
    let load = Load::start(gateway.addr, CLIENTS, request);
    load.more(100).await;
    for _ in 0..times(1) {
        for replica in std::mem::take(&mut replicas) {
            let next = replica.restart().await;
            load.more(100).await;
            // The last one is asked again before the next one goes: never two are out.
            gateway.until_state("qa", "ready", 3).await;
            crate::wire::eventually("it is asked again", || async { next.count() > 0 }).await;
            replicas.push(next);
        }
    }
    check(&load.end().await, &undisturbed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_restarted_under_streams_and_load_costs_no_request_and_no_byte() {
    let (one, two) = (Replica::start().await, Replica::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchyard.toml");
    std::fs::write(&file, table(&agent("qa", &[one.addr, two.addr], ""))).unwrap();
    let mut gateway = Gateway::start_on(&file, &[]).await;
    let addr = gateway.addr.to_string();
    let undisturbed = undisturbed(&gateway).await;
    let load = Load::start(gateway.addr, CLIENTS, request);
    for _ in 0..times(2) {
        load.more(200).await;
        let arguments = ["--takeover", "--listen", &addr, "--admin", "127.0.0.1:0"];
        let mut old = std::mem::replace(&mut gateway, Gateway::start_on(&file, &arguments).await);
        load.more(50).await;
        old.sigterm();
        assert_eq!(old.exit().await, 0, "all that was open was finished");
        load.more(200).await;
    }
    check(&load.end().await, &undisturbed);
    let ok = [("agent", "qa"), ("outcome", "ok")];
    assert!(
        gateway.metric("switchyard_requests_total", &ok).await > Some(100.0),
        "the last one serves"
    );
}
