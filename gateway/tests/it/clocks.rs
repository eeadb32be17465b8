//! The five clocks of an agent. (That each gives its own error is in `errors`.)

use std::time::Duration;

use crate::agent::{Agent, answers};
use crate::ask::{get, post};
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http, error_event, events};
use crate::wire::End;

#[tokio::test]
async fn a_stream_that_falls_silent_is_cut_by_the_idle_clock() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "idle_timeout = \"150ms\"")).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin("200 OK\r\ncontent-type: text/plain").await;
        call.chunk("some").await;
        let reply = open.rest().await;
        assert_eq!(reply.text(), "some");
        assert_ne!(reply.end, End::Complete, "{http:?}: it must not look whole");
        call.gone().await;
        gateway.logged(&[reply.request_id(), "idle-timeout"]).await;
        let labels = [("agent", "qa"), ("outcome", "idle-timeout")];
        gateway.until_metric("switchyard_requests_total", &labels, 1.0).await;
    }
}

#[tokio::test]
async fn an_event_stream_that_falls_silent_ends_with_an_error_event() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "idle_timeout = \"150ms\"")).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        call.event("one").await;
        let reply = open.rest().await;
        assert_eq!(events(&reply.text())[0].1, "one");
        let problem = error_event(&reply.text());
        assert_eq!(problem["code"], "idle-timeout");
        assert_eq!(problem["request_id"], reply.request_id());
        assert_ne!(reply.end, End::Complete, "{http:?}: it must not look whole");
        call.gone().await;
    }
}

#[tokio::test]
async fn a_stream_that_moves_may_take_longer_than_the_idle_clock() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "idle_timeout = \"1s\"")).await;
    for http in BOTH {
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        for n in 0..8 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            call.event(&n.to_string()).await;
            open.until("\n\n").await;
        }
        call.end().await;
        open.rest().await.ok();
    }
}

#[tokio::test]
async fn a_stream_that_never_ends_is_cut_by_the_total_clock() {
    for http in BOTH {
        let qa = Agent::with(|mut call| async move {
            call.begin_sse().await;
            while call.link.writer.chunk("data: x\n\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let settings = "timeout = \"400ms\"\nidle_timeout = \"300ms\"";
        let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
        let reply = gateway.ask_by(http, get("/agents/qa/x")).await;
        assert_eq!(reply.status, 200);
        assert_eq!(error_event(&reply.text())["code"], "total-timeout");
        assert_ne!(reply.end, End::Complete, "{http:?}: it must not look whole");
        gateway.logged(&[reply.request_id(), "total-timeout"]).await;
        qa.until_open(0).await;
    }
}

#[tokio::test]
async fn the_total_clock_starts_after_the_queue() {
    let mut qa = Agent::manual().await;
    let settings =
        "timeout = \"1500ms\"\nmax_in_flight = 1\nqueue = { max = 4, timeout = \"20s\" }";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    let first = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    let mut call = qa.call().await;
    let second = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    gateway.until_state("qa", "queued", 1).await;
    // The first uses up its time, while the second waits for as long.
    first.whole().await;
    call.gone().await;
    drop(call);
    let call = qa.call().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    call.json("{}").await;
    second.whole().await.ok();
}

#[tokio::test]
async fn the_total_clock_runs_over_all_attempts() {
    let qa = Agent::with(|call| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        call.not_begun().await;
    })
    .await;
    let settings = "timeout = \"1s\"\nfirst_byte_timeout = \"900ms\"\n\
        retry = { max = 20, budget = 1.0, buffer = \"64KiB\" }";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    gateway.ask(post("/agents/qa/x", "{}")).await.error("total-timeout");
    assert!((2..=4).contains(&qa.count()), "{} attempts", qa.count());
}

#[tokio::test]
async fn a_queued_request_waits_its_own_time_not_anothers() {
    let mut qa = Agent::manual().await;
    let settings = "max_in_flight = 1\nqueue = { max = 4, timeout = \"500ms\" }";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    let first = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    let call = qa.call().await;
    let second = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    gateway.until_state("qa", "queued", 1).await;
    call.json("{}").await;
    first.whole().await.ok();
    qa.call().await.json("{}").await;
    second.whole().await.ok();
    gateway.until_state("qa", "queued", 0).await;
}

#[tokio::test]
async fn clocks_that_did_not_fire_leave_no_trace() {
    let qa = answers("{}").await;
    let settings = "connect_timeout = \"1s\"\nfirst_byte_timeout = \"2s\"\nidle_timeout = \"2s\"\n\
        timeout = \"3s\"\nqueue = { max = 1, timeout = \"1s\" }";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    for http in BOTH {
        gateway.ask_by(http, post("/agents/qa/x", "{}")).await.ok();
    }
    let metrics = gateway.metrics().await;
    assert!(!metrics.contains("outcome=\"idle-timeout\"") || metrics.contains("idle-timeout\"} 0"));
    let ok = [("agent", "qa"), ("outcome", "ok")];
    gateway.until_metric("switchyard_requests_total", &ok, 2.0).await;
}

#[tokio::test]
async fn the_total_clock_runs_though_an_http_2_client_takes_nothing_at_all() {
    let mut qa = Agent::manual().await;
    let settings = "timeout = \"400ms\"\nidle_timeout = \"60s\"";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    let stream = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (mut sender, connection) =
        builder.initial_window_size(0).handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let uri = format!("http://{}/agents/qa/x", gateway.addr);
    let request = http::Request::get(uri).body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let mut call = qa.call().await;
    call.begin("200 OK").await;
    call.chunk("some").await;
    let response = response.await.unwrap();
    assert_ne!(call.gone().await, End::Cut);
    gateway.until_state("qa", "in_flight", 0).await;
    drop((response, sender));
    let labels = [("agent", "qa"), ("outcome", "total-timeout")];
    gateway.until_metric("switchyard_requests_total", &labels, 1.0).await;
    driver.abort();
}
