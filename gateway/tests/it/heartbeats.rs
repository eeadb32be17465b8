//! Comment lines that keep a silent event stream's client alive, and where they must not stand.

use crate::agent::Agent;
use crate::ask::get;
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, error_event, events};
use crate::wire::End;

const BEATING: &str = "heartbeat = \"100ms\"";

#[tokio::test]
async fn a_silent_event_stream_gets_comments() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], BEATING)).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        // Before the first event, and between two.
        let mut all = open.until(":").await;
        call.event("one").await;
        all += &open.until("data: one\n\n").await;
        all += &open.until(":").await;
        call.event("two").await;
        all += &open.until("data: two\n\n").await;
        call.end().await;
        all += &open.rest().await.ok().text();
        let data: Vec<String> = events(&all).into_iter().map(|e| e.1).collect();
        assert_eq!(data, ["one", "two"], "{http:?}: {all:?}");
        let strange = |l: &&str| !l.is_empty() && !l.starts_with(':') && !l.starts_with("data:");
        assert_eq!(all.lines().find(strange), None, "{all:?}");
    }
}

#[tokio::test]
async fn a_comment_never_stands_within_an_event() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], BEATING)).await;
    for (half, rest) in [
        ("data: on", "e\n\n"),
        ("data: one\n", "\n"),
        ("event: x\n", "data: one\n\n"),
        ("data: one\r\n", "\r\n"),
        ("data: one\r", "\r"),
        ("data: one\n\ndata: tw", "o\n\n"),
        ("id: 7\n", "\n"),
        (": comme", "nt\n\n"),
    ] {
        for http in BOTH {
            let mut open = gateway.open(http, get("/agents/qa/x")).await;
            let mut call = qa.call().await;
            call.begin_sse().await;
            call.chunk(half).await;
            let mut all = open.until(half).await;
            tokio::time::sleep(std::time::Duration::from_millis(350)).await;
            call.chunk(rest).await;
            call.chunk("data: end\n\n").await;
            all += &open.until("data: end\n\n").await;
            assert!(all.contains(&format!("{half}{rest}")), "{http:?} {half:?}: {all:?}");
            call.end().await;
            open.rest().await.ok();
        }
    }
}

#[tokio::test]
async fn heartbeats_do_not_hold_off_the_idle_clock() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let settings = format!("{BEATING}\nidle_timeout = \"400ms\"");
        let gateway = Gateway::start(&agent("qa", &[qa.addr], &settings)).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        call.event("one").await;
        let reply = open.rest().await;
        assert!(reply.text().lines().any(|l| l.starts_with(':')), "it beat: {}", reply.text());
        assert_eq!(error_event(&reply.text())["code"], "idle-timeout");
        assert_ne!(reply.end, End::Complete);
        call.gone().await;
    }
}

#[tokio::test]
async fn other_bodies_get_no_comments() {
    for (fields, first, second) in [
        ("content-type: application/json", "[1,", "2]"),
        ("content-type: text/event-stream\r\ncontent-encoding: gzip", "data: a\n\n", "data: b\n\n"),
        ("content-type: text/plain", "data: a\n\n", "data: b\n\n"),
    ] {
        for http in BOTH {
            let mut qa = Agent::manual().await;
            let gateway = Gateway::start(&agent("qa", &[qa.addr], BEATING)).await;
            let mut open = gateway.open(http, get("/agents/qa/x")).await;
            let mut call = qa.call().await;
            call.begin(&format!("200 OK\r\n{fields}")).await;
            call.chunk(first).await;
            let mut all = open.until(first).await;
            tokio::time::sleep(std::time::Duration::from_millis(350)).await;
            call.chunk(second).await;
            call.end().await;
            all += &open.rest().await.ok().text();
            assert_eq!(all, format!("{first}{second}"), "{http:?} {fields}");
        }
    }
}

#[tokio::test]
async fn an_event_stream_of_known_length_gets_no_comments() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], BEATING)).await;
    for http in BOTH {
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 18";
        call.send(format!("{head}\r\n\r\ndata: a\n\n")).await;
        let mut all = open.until("data: a\n\n").await;
        tokio::time::sleep(std::time::Duration::from_millis(350)).await;
        call.send("data: b\n\n").await;
        call.done().await;
        all += &open.rest().await.ok().text();
        assert_eq!(all, "data: a\n\ndata: b\n\n", "{http:?}");
    }
}

#[tokio::test]
async fn without_the_setting_nothing_is_put_in() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut open = gateway.open(crate::reply::Http::One, get("/agents/qa/x")).await;
    let mut call = qa.call().await;
    call.begin_sse().await;
    call.event("one").await;
    let mut all = open.until("\n\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    call.event("two").await;
    call.end().await;
    all += &open.rest().await.ok().text();
    assert_eq!(all, "data: one\n\ndata: two\n\n");
}
