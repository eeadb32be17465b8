//! A client that goes away cancels upstream at once, in every phase.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::agent::{Agent, Full};
use crate::agent_h2::H2Agent;
use crate::ask::{ask, get, post};
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http};
use crate::wire::End;

/// Ten times what the contract says, for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A body that nobody reads while its request waits.
fn unread() -> Bytes {
    Bytes::from(vec![b'x'; 1 << 20])
}

/// Asserts that what a client's leaving leads to came at once, and is counted as such.
async fn left(gateway: &Gateway, since: Instant) {
    let took = since.elapsed();
    println!("cancelled after {} ms", took.as_millis());
    assert!(took < AT_ONCE, "it took {took:?}");
    let labels = [("agent", "qa"), ("outcome", "client-gone")];
    gateway.until_metric("switchyard_requests_total", &labels, 1.0).await;
    gateway.logged(&["client-gone"]).await;
}

async fn leave_the_queue(body: Bytes) {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let settings = "max_in_flight = 1\nqueue = { max = 4, timeout = \"60s\" }";
        let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
        let first = gateway.open(http, post("/agents/qa/x", "{}")).await;
        let call = qa.call().await;
        let second = gateway.open(http, post("/agents/qa/x", body.clone())).await;
        gateway.until_state("qa", "queued", 1).await;
        let since = Instant::now();
        let _conn = second.leave().await;
        gateway.until_state("qa", "queued", 0).await;
        left(&gateway, since).await;
        call.json("{}").await;
        first.whole().await.ok();
        gateway.until_state("qa", "in_flight", 0).await;
        assert_eq!(qa.count(), 1, "{http:?}: the agent was never asked");
    }
}

#[tokio::test]
async fn leaving_the_queue_gives_up_the_place() {
    leave_the_queue(Bytes::from("{}")).await;
}

#[tokio::test]
async fn leaving_the_queue_with_an_unread_body_gives_up_the_place() {
    leave_the_queue(unread()).await;
}

#[tokio::test]
async fn a_reset_while_in_the_queue_is_leaving_too() {
    let mut qa = Agent::manual().await;
    let settings = "max_in_flight = 1\nqueue = { max = 4, timeout = \"60s\" }";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    let _first = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    let _call = qa.call().await;
    let second = gateway.open(Http::One, get("/agents/qa/x")).await;
    gateway.until_state("qa", "queued", 1).await;
    second.reset().await;
    gateway.until_state("qa", "queued", 0).await;
}

async fn leave_while_connecting(body: Bytes) {
    for http in BOTH {
        let full = Full::new().await;
        let settings = "connect_timeout = \"60s\"";
        let gateway = Gateway::start(&agent("qa", &[full.addr], settings)).await;
        let open = gateway.open(http, post("/agents/qa/x", body.clone())).await;
        gateway.until_state("qa", "in_flight", 1).await;
        let since = Instant::now();
        let _conn = open.leave().await;
        gateway.until_state("qa", "in_flight", 0).await;
        left(&gateway, since).await;
    }
}

#[tokio::test]
async fn leaving_while_connecting_ends_the_attempt() {
    leave_while_connecting(Bytes::from("{}")).await;
}

#[tokio::test]
async fn leaving_while_connecting_with_an_unread_body_ends_the_attempt() {
    leave_while_connecting(unread()).await;
}

#[tokio::test]
async fn leaving_before_the_first_byte_leaves_the_agent() {
    for http in BOTH {
        for body in [Bytes::new(), unread()] {
            let mut qa = Agent::manual().await;
            let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
            let open = gateway.open(http, post("/agents/qa/x", body)).await;
            let mut call = qa.call().await;
            let since = Instant::now();
            let _conn = open.leave().await;
            call.gone().await;
            left(&gateway, since).await;
        }
    }
}

#[tokio::test]
async fn leaving_amid_an_upload_never_makes_it_look_whole() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("some")).await;
        let mut call = qa.call().await;
        assert_eq!(call.piece().await.unwrap(), "some");
        let _conn = open.leave().await;
        let rest = call.link.reader.rest(&mut call.framing);
        let (rest, end) = crate::wire::soon("the upload breaks off", rest).await;
        assert_ne!(end, End::Complete, "{http:?}");
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn leaving_amid_a_stream_leaves_the_agent() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut open = gateway.open(http, post("/agents/qa/x", "{}")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        call.event("one").await;
        open.until("one\n\n").await;
        let since = Instant::now();
        let _conn = open.leave().await;
        // The agent says nothing more: the gateway must notice by itself.
        call.gone().await;
        left(&gateway, since).await;
        gateway.until_state("qa", "in_flight", 0).await;
    }
}

#[tokio::test]
async fn leaving_a_stream_that_is_held_back_leaves_the_agent() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.begin("200 OK").await;
        open.head().await;
        let flood = tokio::spawn(async move {
            while call.link.writer.chunk(vec![b'x'; 64 * 1024]).await.is_ok() {}
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let _conn = open.leave().await;
        crate::wire::soon("the agent is left", flood).await.unwrap();
        gateway.until_state("qa", "in_flight", 0).await;
    }
}

#[tokio::test]
async fn leaving_resets_the_stream_of_an_agent_that_speaks_http_2() {
    for http in BOTH {
        let mut qa = H2Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "protocol = \"h2c\"")).await;
        let open = gateway.open(http, post("/agents/qa/x", "{}")).await;
        let mut call = qa.call().await;
        let _conn = open.leave().await;
        call.gone().await;

        let mut open = gateway.open(http, post("/agents/qa/x", "{}")).await;
        let mut reply = qa.call().await.begin(200, &[]);
        reply.send("some");
        open.until("some").await;
        let _conn = open.leave().await;
        reply.gone().await;
    }
}

#[tokio::test]
async fn where_the_table_says_so_the_agent_finishes() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let settings = "on_disconnect = \"continue\"\nmax_in_flight = 1";
        let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
        let mut open = gateway.open(http, post("/agents/qa/x", "{}")).await;
        let mut call = qa.call().await;
        assert_eq!(call.body().await, b"{}");
        call.begin_sse().await;
        call.event("one").await;
        open.until("one\n\n").await;
        let _conn = open.leave().await;
        gateway.until_state("qa", "held", 1).await;
        assert_eq!(gateway.metric("switchyard_held", &[("agent", "qa")]).await, Some(1.0));
        // Its place is kept: the next one waits.
        let next = gateway.open(http, get("/agents/qa/next")).await;
        gateway.until_state("qa", "queued", 1).await;
        for _ in 0..100 {
            call.link.writer.chunk(vec![b'x'; 64 * 1024]).await.expect("it is read to the end");
        }
        call.end().await;
        let call = qa.call().await;
        assert_eq!(call.target(), "/next");
        call.json("{}").await;
        next.whole().await.ok();
        gateway.until_state("qa", "held", 0).await;
        gateway.until_state("qa", "in_flight", 0).await;
    }
}

#[tokio::test]
async fn where_the_table_says_so_the_agent_finishes_what_it_has_not_answered_yet() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let settings = "on_disconnect = \"continue\"";
        let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
        let open = gateway.open(http, post("/agents/qa/x", "{}")).await;
        let mut call = qa.call().await;
        assert_eq!(call.body().await, b"{}");
        let _conn = open.leave().await;
        gateway.until_state("qa", "held", 1).await;
        call.json("{}").await;
        gateway.until_state("qa", "held", 0).await;
        assert_eq!(qa.count(), 1);
    }
}

#[tokio::test]
async fn a_client_that_stays_is_not_taken_for_gone() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    // What is sent ahead on the same connection is no sign of leaving.
    let mut conn = gateway.client().connect().await;
    let request = "GET /agents/qa/x HTTP/1.1\r\nhost: x\r\n\r\n";
    conn.send(request.repeat(2)).await;
    let call = qa.call().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    call.json("1").await;
    assert_eq!(conn.reply().await.ok().text(), "1");
    qa.call().await.json("2").await;
    assert_eq!(conn.reply().await.ok().text(), "2");
}

#[tokio::test]
async fn even_there_who_leaves_the_queue_is_not_begun() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let settings = "on_disconnect = \"continue\"\nmax_in_flight = 1";
        let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
        let first = gateway.open(http, get("/agents/qa/x")).await;
        let call = qa.call().await;
        let second = gateway.open(http, get("/agents/qa/y")).await;
        gateway.until_state("qa", "queued", 1).await;
        let _conn = second.leave().await;
        gateway.until_state("qa", "queued", 0).await;
        call.json("{}").await;
        first.whole().await.ok();
        gateway.until_state("qa", "load", 0).await;
        assert_eq!(qa.count(), 1, "{http:?}");
    }
}

#[tokio::test]
async fn even_there_an_upload_that_broke_off_never_looks_whole() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway =
            Gateway::start(&agent("qa", &[qa.addr], "on_disconnect = \"continue\"")).await;
        let open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("some")).await;
        let mut call = qa.call().await;
        assert_eq!(call.piece().await.unwrap(), "some");
        let _conn = open.leave().await;
        let rest = call.link.reader.rest(&mut call.framing);
        let (rest, end) = crate::wire::soon("the upload breaks off", rest).await;
        assert_ne!(end, End::Complete, "{http:?}");
        assert!(rest.is_empty());
        gateway.until_state("qa", "load", 0).await;
    }
}
