//! The table is followed while it is edited, and what an edit must not disturb.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use crate::agent::{Agent, answers};
use crate::ask::{ask, get, post};
use crate::gateway::{Gateway, agent, table};
use crate::reply::{BOTH, Http};

#[tokio::test]
async fn an_edit_adds_an_agent_that_answers() {
    let (qa, new) = (answers("1").await, answers("2").await);
    let one = agent("qa", &[qa.addr], "");
    let two = format!("{one}{}", agent("new", &[new.addr], ""));
    let gateway = Gateway::start(&one).await;
    gateway.ask(get("/agents/new/x")).await.error("unknown-agent");
    gateway.write(&two);
    assert_eq!(gateway.until_after(1).await, 2);
    assert_eq!(gateway.ask(get("/agents/new/x")).await.ok().text(), "2");
    gateway.rename_over(&one);
    gateway.until_after(2).await;
    gateway.ask(get("/agents/new/x")).await.error("unknown-agent");
    gateway.until_metric("switchyard_table_generation", &[], 3.0).await;
}

/// Puts a table where a ConfigMap's volume has it: behind two links.
pub fn mount(folder: &Path, version: &str, text: &str) {
    std::fs::create_dir(folder.join(version)).unwrap();
    std::fs::write(folder.join(version).join("switchyard.toml"), table(text)).unwrap();
    symlink(version, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

#[tokio::test]
async fn a_configmaps_link_swap_takes_effect() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchyard.toml");
    mount(folder.path(), "..2030_01", &agent("qa", &[answers("1").await.addr], ""));
    symlink("..data/switchyard.toml", &file).unwrap();
    let gateway = Gateway::start_on(&file, &[]).await;
    let mut before = "..2030_01".to_owned();
    for n in 2..6u64 {
        let name = format!("agent-{n}");
        let new = answers("{}").await;
        let version = format!("..2030_0{n}");
        mount(folder.path(), &version, &agent(&name, &[new.addr], ""));
        std::fs::remove_dir_all(folder.path().join(&before)).unwrap();
        before = version;
        assert_eq!(gateway.until_after(n - 1).await, n);
        gateway.ask(get(&format!("/agents/{name}/x"))).await.ok();
    }
}

#[tokio::test]
async fn the_same_text_again_is_no_edit() {
    let qa = answers("{}").await;
    let text = agent("qa", &[qa.addr], "");
    let gateway = Gateway::start(&text).await;
    gateway.write(&text);
    gateway.rename_over(&text);
    gateway.signal(Signal::HUP);
    gateway.edit(&(text + "\n# a comment\n")).await;
    assert_eq!(gateway.generation().await, 2);
}

#[tokio::test]
async fn sighup_reads_the_table_again() {
    let (qa, new) = (answers("{}").await, answers("{}").await);
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    gateway.write(&agent("new", &[new.addr], ""));
    gateway.signal(Signal::HUP);
    gateway.until_after(1).await;
    gateway.ask(get("/agents/new/x")).await.ok();
}

#[tokio::test]
async fn a_signal_right_after_the_start_finds_it_ready() {
    let qa = answers("{}").await;
    for _ in 0..10 {
        let mut gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        gateway.signal(Signal::HUP);
        gateway.ask(get("/agents/qa/x")).await.ok();
        gateway.sigterm();
        assert_eq!(gateway.exit().await, 0);
    }
}

#[tokio::test]
async fn an_invalid_edit_changes_nothing_and_is_told_everywhere() {
    let qa = answers("{}").await;
    let good = agent("qa", &[qa.addr], "");
    let gateway = Gateway::start(&good).await;
    let before = gateway.table().await;
    let problems = gateway.edit_refused(&agent("qa", &[qa.addr], "max_bodi = \"1MiB\"")).await;
    let file = gateway.file.file_name().unwrap().to_str().unwrap().to_owned();
    let line = table(&agent("qa", &[qa.addr], "max_bodi"));
    let at = line.lines().position(|l| l.starts_with("max_bodi")).unwrap() + 1;
    assert!(problems[0].contains(&format!("{file}:{at}:")), "{problems:?}");
    assert!(problems[0].contains("max_body"), "the nearest is named: {problems:?}");
    let after = gateway.table().await;
    assert_eq!((&after["generation"], &after["hash"]), (&before["generation"], &before["hash"]));
    let ready = gateway.admin("/readyz").await.ok();
    assert!(ready.text().contains("max_bodi"), "{}", ready.text());
    gateway.logged(&["max_bodi"]).await;
    gateway.ask(get("/agents/qa/x")).await.ok();
    let metrics = gateway.metrics().await;
    let refused = metrics.lines().filter(|l| l.starts_with("switchyard_reloads_total{"));
    assert!(refused.count() >= 1, "{metrics}");
    // Back to what is in force, or to something valid, and it is forgotten.
    gateway.edit(&(good + "\n# fine again\n")).await;
    assert_eq!(gateway.table().await["refused"], Value::Null);
    let ready = gateway.admin("/readyz").await.ok();
    assert!(!ready.text().contains("max_bodi"), "{}", ready.text());
}

#[tokio::test]
async fn a_table_that_goes_away_changes_nothing() {
    let (qa, new) = (answers("{}").await, answers("{}").await);
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    std::fs::remove_file(&gateway.file).unwrap();
    gateway.ask(get("/agents/qa/x")).await.ok();
    gateway.write(&agent("new", &[new.addr], ""));
    gateway.until_after(1).await;
    gateway.ask(get("/agents/new/x")).await.ok();
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_name() {
    let qa = answers("{}").await;
    let own = agent("qa", &[qa.addr], "");
    let gateway = Gateway::start(&own).await;
    for (key, line) in [
        ("listen", "listen = \"127.0.0.1:1\""),
        ("admin", "admin = \"127.0.0.1:2\""),
        ("workers", "workers = 3"),
    ] {
        let problems = gateway.edit_refused(&format!("[gateway]\n{line}\n{own}")).await;
        assert!(problems.concat().contains(key), "{key}: {problems:?}");
        gateway.ask(get("/agents/qa/x")).await.ok();
    }
    assert_eq!(gateway.generation().await, 1);
}

#[tokio::test]
async fn an_agent_that_is_removed_finishes_what_it_has_begun() {
    for http in BOTH {
        let (mut qa, other) = (Agent::manual().await, answers("{}").await);
        let both = agent("qa", &[qa.addr], "") + &agent("other", &[other.addr], "");
        let gateway = Gateway::start(&both).await;
        let mut open = gateway.open(http, post("/agents/qa/x", "{}")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        call.event("one").await;
        open.until("one\n\n").await;
        let waiting = gateway.open(http, post("/agents/qa/y", "{}")).await;
        let second = qa.call().await;
        gateway.edit(&agent("other", &[other.addr], "")).await;
        gateway.ask_by(http, get("/agents/qa/x")).await.error("unknown-agent");
        call.event("two").await;
        assert_eq!(open.until("two\n\n").await, "data: two\n\n");
        call.end().await;
        open.rest().await.ok();
        second.json("{}").await;
        waiting.whole().await.ok();
    }
}

#[tokio::test]
async fn an_endpoint_that_is_removed_finishes_what_it_has_begun() {
    let (mut a, b) = (Agent::manual().await, answers("{}").await);
    let gateway = Gateway::start(&agent("qa", &[a.addr], "")).await;
    let mut open = gateway.open(Http::One, get("/agents/qa/x")).await;
    let mut call = a.call().await;
    call.begin_sse().await;
    gateway.edit(&agent("qa", &[b.addr], "")).await;
    for _ in 0..10 {
        gateway.ask(get("/agents/qa/x")).await.ok();
    }
    call.event("late").await;
    open.until("late\n\n").await;
    call.end().await;
    open.rest().await.ok();
    assert_eq!((a.count(), b.count()), (1, 10));
}

#[tokio::test]
async fn counts_health_and_connections_survive_an_edit() {
    let (mut qa, good) = (Agent::manual().await, answers("{}").await);
    let refusing = crate::agent::Refusing::new();
    let settings =
        "eject = { consecutive = 3, time = \"30s\", time_max = \"30s\", max_percent = 50 }";
    let text = |n: u32| {
        let many = agent("many", &[refusing.addr, good.addr], &format!("{settings}\n# {n}"));
        let one = format!("max_in_flight = {n}\nqueue = {{ max = 9, timeout = \"60s\" }}");
        format!("[gateway]\nworkers = 1\n{many}{}", agent("qa", &[qa.addr], &one))
    };
    let gateway = Gateway::start(&text(1)).await;
    for _ in 0..10 {
        gateway.ask(get("/agents/many/x")).await.ok();
    }
    let accepts = good.accepts();
    let first = gateway.open(Http::One, get("/agents/qa/1")).await;
    let second = gateway.open(Http::One, get("/agents/qa/2")).await;
    gateway.until_state("qa", "queued", 1).await;
    let edited = text(2);
    let call = qa.call().await;
    gateway.edit(&edited).await;
    let states = gateway.endpoint_states("many", &[refusing.addr, good.addr]).await;
    assert_eq!(states, ["ejected", "ready"]);
    gateway.ask(get("/agents/many/x")).await.ok();
    assert_eq!(good.accepts(), accepts, "a pooled connection was thrown away");
    // The limit was raised, so that what waited may go.
    let other = qa.call().await;
    assert_eq!(gateway.state("qa").await["in_flight"], 2);
    call.json("{}").await;
    other.json("{}").await;
    first.whole().await.ok();
    second.whole().await.ok();
    gateway.until_state("qa", "in_flight", 0).await;
}

#[tokio::test]
async fn a_clock_that_is_edited_holds_for_the_next_request() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let before = gateway.open(Http::One, get("/agents/qa/x")).await;
    let call = qa.call().await;
    gateway.edit(&agent("qa", &[qa.addr], "first_byte_timeout = \"100ms\"")).await;
    gateway.ask(get("/agents/qa/y")).await.error("first-byte-timeout");
    call.json("{}").await;
    before.whole().await.ok();
}

/// How many edits…
const EDITS: usize = 1000;
/// …of which every second one is invalid.
const VALID: usize = EDITS / 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_edits_under_load_fail_no_request() {
    let (a, b) = (answers("{}").await, answers("{}").await);
    let text = |n: usize| {
        let endpoints = if n.is_multiple_of(3) { vec![a.addr] } else { vec![a.addr, b.addr] };
        agent("qa", &endpoints, &format!("description = \"{n}\""))
    };
    let gateway = Gateway::start(&text(0)).await;
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (client, stop, served) = (gateway.client(), Arc::clone(&stop), Arc::clone(&served));
        load.spawn(async move {
            let mut one = client.connect().await;
            let mut two = client.connect_h2().await;
            while !stop.load(Ordering::SeqCst) {
                let asked = post("/agents/qa/x", "{}");
                let reply = if n % 2 == 0 { one.ask(asked).await } else { two.ask(asked).await };
                reply.ok();
                served.fetch_add(1, Ordering::SeqCst);
                // Enough to be there at every edit, and to leave the machine some room.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        });
    }
    for n in 1..=VALID {
        gateway.edit(&text(n)).await;
        gateway.edit_refused(&(text(n) + &format!("unknown-{n} = 1\n"))).await;
    }
    assert_eq!(gateway.generation().await, VALID as u64 + 1);
    let listed = gateway.ask(get("/agents")).await.ok().json();
    assert_eq!(listed["agents"][0]["description"], VALID.to_string(), "the last edit is in force");
    stop.store(true, Ordering::SeqCst);
    while let Some(done) = load.join_next().await {
        done.unwrap();
    }
    println!("{} requests during {EDITS} edits", served.load(Ordering::SeqCst));
    assert!(served.load(Ordering::SeqCst) > EDITS);
}

#[tokio::test]
async fn what_is_edited_about_the_gateway_holds_from_then_on() {
    let qa = answers("{}").await;
    let agents = agent("qa", &[qa.addr], "");
    let mut gateway = Gateway::start(&agents).await;
    let mut old = gateway.client().connect().await;
    old.ask(get("/agents/qa/x")).await.ok();
    let clocks = "header_timeout = \"150ms\"\nbody_timeout = \"150ms\"\nkeepalive_timeout = \"1s\"\n\
        drain_delay = \"1ms\"";
    let others = "max_header_bytes = \"8KiB\"\nroute_body_max = \"10B\"\naccess_log = false\n\
        trusted_proxies = [\"127.0.0.0/8\"]";
    gateway.edit(&format!("[gateway]\n{clocks}\n{others}\n{agents}")).await;
    let told = get("/agents/qa/x").header("x-forwarded-host", "told.example");
    old.ask(told).await.ok();
    let seen = qa.seen().pop().unwrap();
    assert_eq!(seen.headers.get("x-forwarded-host"), Some("told.example"));
    let far = format!("{{\"x\": \"{}\", \"agent\": \"qa\"}}", "x".repeat(20));
    old.ask(post("/invoke", far)).await.error("no-agent");
    let big = get("/agents/qa/x").header("x-big", &"x".repeat(9000));
    assert_eq!(gateway.ask(big).await.status, 431);
    let stalling = ask("POST", "/agents/qa/stalls").open_body("some");
    gateway.open(Http::One, stalling).await.whole().await.error("body-timeout");
    let mut slow = gateway.client().connect().await;
    slow.send("GET /agents/qa/x HTTP/1.1\r\nhost:").await;
    slow.gone().await;
    let mut idle = gateway.client().connect().await;
    idle.ask(get("/agents")).await.ok();
    idle.gone().await;
    assert!(!gateway.log().iter().any(|line| line.contains("/agents/qa/stalls")));
    gateway.sigterm();
    assert_eq!(gateway.exit().await, 0);
}
