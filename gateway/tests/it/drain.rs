//! Starting and ending: what is said at the start, and how a signal drains without losing a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::agent::{Agent, answers};
use crate::ask::{get, post};
use crate::client::Client;
use crate::gateway::{Gateway, agent, refused_start, table};
use crate::reply::{BOTH, Http};
use crate::wire::{End, eventually};

#[tokio::test]
async fn a_bad_table_at_the_start_ends_it_with_every_problem() {
    let (code, said) = refused_start("[agents.qa]\nendpoint = []\nmax_bodi = 1\n").await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("switchyard.toml:2:") && said.contains("switchyard.toml:3:"), "{said}");
    let (code, said) = refused_start("no table at all").await;
    assert_eq!(code, 1, "{said}");
}

#[tokio::test]
async fn a_table_that_is_not_there_ends_it() {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchyard"))
        .args(["serve", "--config", "/nowhere/switchyard.toml"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere/switchyard.toml"), "{said}");
}

#[tokio::test]
async fn a_port_that_is_taken_ends_it_with_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let text = table(&format!(
        "[gateway]\nlisten = \"{addr}\"\n[agents.qa]\nendpoints = [\"http://{addr}\"]\n"
    ));
    let (code, said) = refused_start(&text).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&addr.to_string()), "{said}");
}

#[tokio::test]
async fn flags_override_where_the_table_listens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchyard.toml");
    let qa = answers("{}").await;
    let own = agent("qa", &[qa.addr], "");
    let text = format!("[gateway]\nlisten = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n{own}");
    std::fs::write(&file, text).unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let gateway = Gateway::start_on(&file, &arguments).await;
    gateway.ask(get("/agents/qa/x")).await.ok();
    gateway.admin("/livez").await.ok();
}

#[tokio::test]
async fn without_work_it_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut gateway = Gateway::start(&agent("qa", &[answers("{}").await.addr], "")).await;
        gateway.signal(signal);
        assert_eq!(gateway.exit().await, 0);
    }
}

#[tokio::test]
async fn while_it_drains_it_is_unready_but_takes_work_for_a_while() {
    let qa = answers("{}").await;
    let text = format!("[gateway]\ndrain_delay = \"700ms\"\n{}", agent("qa", &[qa.addr], ""));
    let mut gateway = Gateway::start(&text).await;
    gateway.sigterm();
    eventually("it is unready", || async { gateway.admin("/readyz").await.status == 503 }).await;
    gateway.admin("/livez").await.ok();
    for http in BOTH {
        gateway.ask_by(http, get("/agents/qa/x")).await.ok();
    }
    assert_eq!(gateway.exit().await, 0);
}

#[tokio::test]
async fn open_streams_finish_and_then_it_ends() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let mut gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        call.event("one").await;
        open.until("one\n\n").await;
        gateway.sigterm();
        eventually("the listeners are closed", || async {
            tokio::net::TcpStream::connect(gateway.addr).await.is_err()
        })
        .await;
        assert!(gateway.runs());
        call.event("two").await;
        open.until("two\n\n").await;
        call.end().await;
        open.rest().await.ok();
        let since = Instant::now();
        assert_eq!(gateway.exit().await, 0);
        assert!(since.elapsed() < Duration::from_secs(3), "{:?} after the last", since.elapsed());
    }
}

#[tokio::test]
async fn a_request_that_waits_is_served_before_it_ends() {
    let mut qa = Agent::manual().await;
    let settings = "max_in_flight = 1\nqueue = { max = 4, timeout = \"60s\" }";
    let mut gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    let first = gateway.open(Http::One, post("/agents/qa/1", "{}")).await;
    let call = qa.call().await;
    let second = gateway.open(Http::One, post("/agents/qa/2", "{}")).await;
    gateway.until_state("qa", "queued", 1).await;
    gateway.sigterm();
    eventually("the listeners are closed", || async {
        tokio::net::TcpStream::connect(gateway.addr).await.is_err()
    })
    .await;
    call.json("{}").await;
    first.whole().await.ok();
    qa.call().await.json("{}").await;
    second.whole().await.ok();
    assert_eq!(gateway.exit().await, 0);
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_told_so() {
    let mut qa = Agent::manual().await;
    let mut gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut idle = gateway.client().connect().await;
    idle.ask(get("/health")).await;
    let mut idle_h2 = gateway.client().connect_h2().await;
    idle_h2.ask(get("/health")).await;
    let mut busy = gateway.client().connect().await;
    busy.send("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let call = qa.call().await;
    let mut busy_h2 = gateway.client().connect_h2().await;
    let open = busy_h2.open(get("/agents/qa/y")).await;
    let call_h2 = qa.call().await;
    gateway.sigterm();
    assert_ne!(idle.gone().await, End::Reset);
    idle_h2.gone().await;
    assert!(gateway.runs());
    call.json("{}").await;
    let reply = busy.reply().await.ok();
    assert!(reply.headers.lists("connection", "close"), "{:?}", reply.headers);
    busy.gone().await;
    call_h2.json("{}").await;
    open.whole().await.ok();
    busy_h2.gone().await;
    assert_eq!(gateway.exit().await, 0);
}

/// Its head was sent before the drain and couldn't say `Connection: close`, so the client may have
/// sent its next request before it can know.
#[tokio::test]
async fn a_connection_whose_answer_began_before_the_drain_may_ask_once_more() {
    let mut qa = Agent::manual().await;
    let mut gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut kept = gateway.client().connect().await;
    kept.send("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut call = qa.call().await;
    call.begin_sse().await;
    call.event("one").await;
    kept.begun().await;
    gateway.sigterm();
    eventually("the listeners are closed", || async {
        tokio::net::TcpStream::connect(gateway.addr).await.is_err()
    })
    .await;
    call.end().await;
    kept.reply().await.ok();
    kept.send("GET /agents/qa/y HTTP/1.1\r\nhost: x\r\n\r\n").await;
    qa.call().await.json("{}").await;
    let reply = kept.reply().await.ok();
    assert!(reply.headers.lists("connection", "close"), "{:?}", reply.headers);
    kept.gone().await;
    assert_eq!(gateway.exit().await, 0);
}

#[tokio::test]
async fn what_takes_longer_than_the_drain_is_cut_and_told() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let clocks = "[gateway]\ndrain_delay = \"50ms\"\ndrain_timeout = \"300ms\"\n";
        let mut gateway = Gateway::start(&format!("{clocks}{}", agent("qa", &[qa.addr], ""))).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin("200 OK").await;
        call.chunk("some").await;
        open.until("some").await;
        gateway.sigterm();
        assert_ne!(open.rest().await.end, End::Complete);
        call.gone().await;
        assert_eq!(gateway.exit().await, 1);
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut qa = Agent::manual().await;
        let mut gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let _open = gateway.open(Http::One, get("/agents/qa/x")).await;
        let _call = qa.call().await;
        gateway.signal(signal);
        eventually("it drains", || async { gateway.admin("/readyz").await.status == 503 }).await;
        gateway.signal(signal);
        assert_eq!(gateway.exit().await, code);
    }
}

/// Connects and asks until it is refused; whether anything that had been accepted was lost.
async fn storm(client: Client, draining: Arc<AtomicBool>) -> Result<usize, String> {
    let mut served = 0;
    loop {
        let stream = match tokio::net::TcpStream::connect(client.addr).await {
            Ok(stream) => stream,
            Err(_) if draining.load(Ordering::SeqCst) => return Ok(served),
            Err(error) => return Err(format!("refused before the drain: {error}")),
        };
        let mut link = crate::wire::Link::new(stream);
        let request = "POST /agents/qa/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
        let sent = link.writer.send(request).await;
        match link.reader.head().await {
            Ok(head) if head.word(1) == "200" => served += 1,
            Ok(head) => return Err(format!("{} after {served}", head.start)),
            Err(end) => return Err(format!("lost after {served}: {end:?}, {sent:?}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_connects_across_sigterm_loses_nothing() {
    for round in 0..3 {
        let qa = answers("{}").await;
        let mut gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let draining = Arc::new(AtomicBool::new(false));
        let mut storms = tokio::task::JoinSet::new();
        for _ in 0..32 {
            storms.spawn(storm(gateway.client(), Arc::clone(&draining)));
        }
        eventually("the storm is on", || async { qa.count() > 200 }).await;
        draining.store(true, Ordering::SeqCst);
        gateway.sigterm();
        let mut served = 0;
        while let Some(result) = storms.join_next().await {
            served += result.unwrap().unwrap_or_else(|lost| panic!("round {round}: {lost}"));
        }
        println!("{served} served, none lost");
        assert_eq!(gateway.exit().await, 0);
    }
}

/// One worker is so busy that whatever it accepts is handed to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_handed_over_connections_across_sigterm_loses_nothing() {
    let (qa, mut slow) = (answers("{}").await, Agent::manual().await);
    let text = agent("qa", &[qa.addr], "") + &agent("slow", &[slow.addr], "");
    let mut gateway = Gateway::start(&text).await;
    let mut shared = gateway.client().connect_h2().await;
    let (mut held, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        held.push(shared.open(get("/agents/slow/x")).await);
        calls.push(slow.call().await);
    }
    let draining = Arc::new(AtomicBool::new(false));
    let mut storms = tokio::task::JoinSet::new();
    for _ in 0..16 {
        storms.spawn(storm(gateway.client(), Arc::clone(&draining)));
    }
    eventually("the storm is on", || async { qa.count() > 200 }).await;
    draining.store(true, Ordering::SeqCst);
    gateway.sigterm();
    while let Some(result) = storms.join_next().await {
        result.unwrap().unwrap_or_else(|lost| panic!("{lost}"));
    }
    for call in calls {
        call.json("{}").await;
    }
    for open in held {
        open.whole().await.ok();
    }
    assert_eq!(gateway.exit().await, 0);
}

#[tokio::test]
async fn what_has_no_answer_yet_when_the_drain_is_over_is_told_why() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let clocks = "[gateway]\ndrain_delay = \"50ms\"\ndrain_timeout = \"300ms\"\n";
        let settings = "max_in_flight = 1";
        let text = format!("{clocks}{}", agent("qa", &[qa.addr], settings));
        let mut gateway = Gateway::start(&text).await;
        let asked = gateway.open(http, get("/agents/qa/x")).await;
        let _call = qa.call().await;
        let queued = gateway.open(http, get("/agents/qa/x")).await;
        gateway.until_state("qa", "queued", 1).await;
        gateway.sigterm();
        asked.whole().await.error("draining");
        queued.whole().await.error("draining");
        assert_eq!(gateway.exit().await, 1);
    }
}

#[tokio::test]
async fn an_event_stream_that_the_drain_cuts_ends_with_an_error_event() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let clocks = "[gateway]\ndrain_delay = \"50ms\"\ndrain_timeout = \"300ms\"\n";
        let mut gateway = Gateway::start(&format!("{clocks}{}", agent("qa", &[qa.addr], ""))).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        call.event("one").await;
        let begin = open.until("one\n\n").await;
        gateway.sigterm();
        let reply = open.rest().await;
        assert_ne!(reply.end, End::Complete);
        assert_eq!(crate::reply::error_event(&(begin + &reply.text()))["code"], "draining");
        assert_eq!(gateway.exit().await, 1);
    }
}
