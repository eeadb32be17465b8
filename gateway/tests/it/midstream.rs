//! A reply that breaks after its head never looks complete.

use crate::agent::{Agent, Call};
use crate::agent_h2::H2Agent;
use crate::ask::get;
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http, Reply, error_event, events};
use crate::wire::End;

/// The ways in which an agent's reply breaks.
const BREAKS: [&str; 4] =
    ["reset in a chunk", "close in a chunk", "close after a chunk", "bad chunk"];

async fn break_off(mut call: Call, how: &str) {
    match how {
        "reset in a chunk" => {
            call.send("ff\r\nbroken").await;
            call.reset();
        }
        "close in a chunk" => call.send("ff\r\nbroken").await,
        "close after a chunk" => call.chunk("broken").await,
        "bad chunk" => {
            call.send("broken\r\n").await;
            call.gone().await;
        }
        _ => unreachable!("{how}"),
    }
}

/// What a client gets of a chunked reply that breaks off after `first`.
async fn broken(http: Http, kind: &str, first: &str, how: &str) -> Reply {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut open = gateway.open(http, get("/agents/qa/x")).await;
    let mut call = qa.call().await;
    call.begin(&format!("200 OK\r\ncontent-type: {kind}")).await;
    call.chunk(first).await;
    let begin = open.until(first).await;
    break_off(call, how).await;
    let mut reply = open.rest().await;
    reply.body.splice(0..0, begin.bytes());
    let labels = [("agent", "qa"), ("outcome", "ok")];
    let ok = gateway.metric("switchyard_requests_total", &labels).await;
    assert!(matches!(ok, None | Some(0.0)), "{http:?} {how}: counted as ok");
    reply
}

#[tokio::test]
async fn a_chunked_reply_ends_without_its_last_chunk() {
    for how in BREAKS {
        let reply = broken(Http::One, "text/plain", "some", how).await;
        assert_ne!(reply.end, End::Complete, "{how}");
        assert!(reply.text().starts_with("some"), "{how}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_reply_over_http_2_ends_with_a_reset_of_its_stream() {
    for how in BREAKS {
        let reply = broken(Http::Two, "text/plain", "some", how).await;
        assert!(matches!(reply.end, End::Stream(_)), "{how}: {:?}", reply.end);
    }
}

#[tokio::test]
async fn an_event_stream_first_gets_an_error_event() {
    for how in ["close after a chunk", "bad chunk"] {
        for http in BOTH {
            // What was sent is whole events, so that there is a boundary.
            let mut qa = Agent::manual().await;
            let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
            let mut open = gateway.open(http, get("/agents/qa/x")).await;
            let mut call = qa.call().await;
            call.begin_sse().await;
            call.event("one").await;
            let begin = open.until("\n\n").await;
            if how == "bad chunk" {
                call.send("zzz\r\n").await;
            }
            drop(call);
            let reply = open.rest().await;
            let all = begin + &reply.text();
            assert_eq!(events(&all)[0].1, "one");
            let problem = error_event(&all);
            let code = problem["code"].as_str().unwrap();
            assert!(["upstream-reset", "bad-response"].contains(&code), "{how}: {problem}");
            assert_eq!(problem["request_id"], reply.request_id());
            assert_eq!(problem["type"], format!("urn:switchyard:error:{code}"));
            assert_ne!(reply.end, End::Complete, "{http:?} {how}");
        }
    }
}

#[tokio::test]
async fn an_event_stream_that_breaks_within_an_event_gets_no_error_event_in_it() {
    for http in BOTH {
        let reply = broken(http, "text/event-stream", "data: on", "reset in a chunk").await;
        assert!(
            ["data: on", "data: onbroken"].contains(&reply.text().as_str()),
            "{}",
            reply.text()
        );
        assert_ne!(reply.end, End::Complete);
    }
}

#[tokio::test]
async fn an_encoded_event_stream_gets_no_error_event() {
    for http in BOTH {
        let kind = "text/event-stream\r\ncontent-encoding: br";
        let reply = broken(http, kind, "data: one\n\n", "close in a chunk").await;
        assert!(!reply.text().contains("error"), "{}", reply.text());
        assert_ne!(reply.end, End::Complete);
    }
}

#[tokio::test]
async fn a_reply_shorter_than_its_length_never_looks_whole() {
    for http in BOTH {
        for kind in ["text/plain", "text/event-stream"] {
            let mut qa = Agent::manual().await;
            let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
            let mut open = gateway.open(http, get("/agents/qa/x")).await;
            let mut call = qa.call().await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 100");
            call.send(format!("{head}\r\n\r\ndata: a\n\n")).await;
            let mut all = open.until("\n\n").await;
            drop(call);
            let reply = open.rest().await;
            all += &reply.text();
            assert_eq!(all, "data: a\n\n", "{http:?} {kind}: nothing is put in");
            assert_ne!(reply.end, End::Complete, "{http:?} {kind}");
        }
    }
}

#[tokio::test]
async fn an_http_1_0_client_is_reset() {
    for how in BREAKS {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut conn = gateway.client().connect().await;
        conn.send("GET /agents/qa/x HTTP/1.0\r\nhost: x\r\n\r\n").await;
        let mut call = qa.call().await;
        call.begin("200 OK\r\ncontent-type: text/plain").await;
        call.chunk("some").await;
        let head = conn.link.reader.head().await.unwrap();
        assert!(!head.headers.has("transfer-encoding") && !head.headers.has("content-length"));
        break_off(call, how).await;
        assert_eq!(conn.gone().await, End::Reset, "{how}: a close would look like the end");
    }
}

#[tokio::test]
async fn a_close_delimited_reply_that_is_reset_never_looks_whole() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.send("HTTP/1.1 200 OK\r\n\r\nsome").await;
        open.until("some").await;
        call.reset();
        assert_ne!(open.rest().await.end, End::Complete, "{http:?}");
    }
}

#[tokio::test]
async fn a_reset_stream_of_an_agent_that_speaks_http_2_never_looks_whole() {
    for http in BOTH {
        let mut qa = H2Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "protocol = \"h2c\"")).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut reply = qa.call().await.begin(200, &[("content-type", "text/event-stream")]);
        reply.send("data: one\n\n");
        let begin = open.until("one\n\n").await;
        reply.reset(h2::Reason::INTERNAL_ERROR);
        let reply = open.rest().await;
        assert_ne!(reply.end, End::Complete, "{http:?}");
        assert_eq!(error_event(&(begin + &reply.text()))["code"], "upstream-reset");
    }
}

#[tokio::test]
async fn a_connection_is_not_used_again_after_a_broken_reply() {
    let mut qa = Agent::manual().await;
    let table = format!("[gateway]\nworkers = 1\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let open = gateway.open(Http::One, get("/agents/qa/x")).await;
    let mut call = qa.call().await;
    // More than was announced: what follows belongs to nobody.
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n").await;
    call.done().await;
    assert_eq!(open.whole().await.ok().text(), "ok");
    let open = gateway.open(Http::One, get("/agents/qa/y")).await;
    let call = qa.call().await;
    assert_eq!((call.connection, call.target()), (1, "/y"));
    call.json("{}").await;
    assert_eq!(open.whole().await.ok().text(), "{}");
}

#[tokio::test]
async fn an_http_1_0_client_is_reset_by_clocks_and_by_the_drain_too() {
    for how in ["total", "total, unread", "idle", "drain"] {
        let mut qa = Agent::manual().await;
        let clocks = match how {
            "total" | "total, unread" => "timeout = \"400ms\"\nidle_timeout = \"60s\"",
            "idle" => "idle_timeout = \"200ms\"",
            _ => "",
        };
        let drain = "[gateway]\ndrain_delay = \"1ms\"\ndrain_timeout = \"200ms\"\n";
        let gateway = Gateway::start(&format!("{drain}{}", agent("qa", &[qa.addr], clocks))).await;
        let mut conn = gateway.client().connect().await;
        conn.send("GET /agents/qa/x HTTP/1.0\r\nhost: x\r\n\r\n").await;
        let mut call = qa.call().await;
        call.begin("200 OK\r\ncontent-type: text/plain").await;
        if how == "total, unread" {
            let much = "x".repeat(1 << 20);
            let fill = async {
                loop {
                    call.chunk(&much).await;
                }
            };
            let filled = tokio::time::timeout(std::time::Duration::from_millis(1500), fill).await;
            assert!(filled.is_err());
        } else {
            call.chunk("some").await;
            conn.link.reader.head().await.unwrap();
        }
        if how == "drain" {
            gateway.sigterm();
        }
        assert_eq!(conn.gone().await, End::Reset, "{how}: a close would look like the end");
    }
}
