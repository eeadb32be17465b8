//! Bodies pass as they come, both ways, unbuffered and with back-pressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::agent::{Agent, answers, echoes};
use crate::agent_h2::H2Agent;
use crate::ask::{ask, get, post};
use crate::gateway::{Gateway, agent};
use crate::open::Open;
use crate::reply::{BOTH, Http};
use crate::wire::{End, soon};

const MIB: u64 = 1 << 20;
/// What goes through the gateway…
const THROUGH: u64 = 64 * MIB;
/// …and by how much its peak memory may grow meanwhile.
const GROWTH: u64 = 4 * MIB;

/// A gateway that has already served a little, so that what it allocates once is there.
async fn warm(agents: &[std::net::SocketAddr], settings: &str) -> Gateway {
    let table = format!("[gateway]\nworkers = 1\n{}", agent("big", agents, settings));
    Gateway::start(&table).await
}

/// Asserts that the peak grows by less than [`GROWTH`] from now until the result is dropped.
struct Peak<'a>(&'a Gateway, u64);

impl Peak<'_> {
    fn of(gateway: &Gateway) -> Peak<'_> {
        gateway.reset_peak();
        Peak(gateway, gateway.memory().0)
    }

    fn check(self) {
        let grown = self.0.memory().1.saturating_sub(self.1);
        println!("peak memory grew by {} KiB", grown / 1024);
        assert!(grown < GROWTH, "peak memory grew by {grown} bytes");
    }
}

/// Reads a reply to its end without keeping it; its length.
async fn drain(open: &mut Open) -> u64 {
    let mut read = 0;
    loop {
        match open.piece().await {
            Ok(piece) => read += piece.len() as u64,
            Err(end) => {
                assert_eq!(end, End::Complete, "after {read} bytes");
                return read;
            }
        }
    }
}

/// An agent that sends [`THROUGH`] bytes for a GET, and counts what it could send.
async fn sends(sent: Arc<AtomicU64>) -> Agent {
    Agent::with(move |mut call| {
        let sent = Arc::clone(&sent);
        async move {
            let piece = vec![b'x'; 64 * 1024];
            call.begin("200 OK").await;
            while sent.load(Ordering::SeqCst) < THROUGH {
                if call.link.writer.chunk(&piece).await.is_err() {
                    return;
                }
                sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            call.end().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_large_reply_passes_in_little_memory() {
    for http in BOTH {
        let sent = Arc::new(AtomicU64::new(0));
        let big = sends(Arc::clone(&sent)).await;
        let echo = echoes().await;
        let gateway = warm(&[big.addr], &agent("warm", &[echo.addr], "")).await;
        gateway.ask_by(http, post("/agents/warm/", vec![b'x'; 1 << 20])).await.ok();
        let peak = Peak::of(&gateway);
        let mut open = gateway.open(http, get("/agents/big/")).await;
        assert_eq!(drain(&mut open).await, THROUGH, "{http:?}");
        peak.check();
    }
}

#[tokio::test]
async fn a_large_request_passes_in_little_memory() {
    for http in BOTH {
        let count = Agent::with(|mut call| async move {
            let mut read = 0u64;
            while let Ok(piece) = call.link.reader.piece(&mut call.framing).await {
                read += piece.len() as u64;
            }
            call.json(&read.to_string()).await;
        })
        .await;
        let gateway = warm(&[count.addr], "max_body = \"128MiB\"").await;
        gateway.ask_by(http, post("/agents/big/", vec![b'x'; 1 << 20])).await.ok();
        let peak = Peak::of(&gateway);
        let mut open = gateway.open(http, ask("POST", "/agents/big/").open_body("")).await;
        let piece = Bytes::from(vec![b'x'; 256 * 1024]);
        for _ in 0..THROUGH / piece.len() as u64 {
            assert!(open.send(piece.clone()).await);
        }
        open.finish().await;
        assert_eq!(open.rest().await.ok().text(), THROUGH.to_string(), "{http:?}");
        peak.check();
    }
}

#[tokio::test]
async fn a_large_body_is_echoed_in_little_memory() {
    for http in BOTH {
        let echo = echoes().await;
        let gateway = warm(&[echo.addr], "max_body = \"128MiB\"").await;
        gateway.ask_by(http, post("/agents/big/", vec![b'x'; 1 << 20])).await.ok();
        let peak = Peak::of(&gateway);
        let body = Bytes::from(vec![b'x'; usize::try_from(THROUGH).unwrap()]);
        let mut open = gateway.open(http, post("/agents/big/", body)).await;
        assert_eq!(drain(&mut open).await, THROUGH, "{http:?}");
        peak.check();
    }
}

#[tokio::test]
async fn an_agent_is_held_back_by_a_client_that_does_not_read() {
    for http in BOTH {
        let sent = Arc::new(AtomicU64::new(0));
        let big = sends(Arc::clone(&sent)).await;
        let echo = echoes().await;
        let gateway = warm(&[big.addr], &agent("warm", &[echo.addr], "")).await;
        // The code that it runs counts as memory, from its first use on.
        gateway.ask_by(http, post("/agents/warm/", vec![b'x'; 1 << 20])).await.ok();
        let peak = Peak::of(&gateway);
        let mut open = gateway.open(http, get("/agents/big/")).await;
        open.head().await;
        // It has stopped when nothing more was taken for a while.
        soon("the agent is held back", async {
            let mut before = u64::MAX;
            while sent.load(Ordering::SeqCst) != before {
                before = sent.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        })
        .await;
        let held = sent.load(Ordering::SeqCst);
        assert!(held < THROUGH / 2, "{http:?}: {held} bytes went although nobody reads");
        assert_eq!(drain(&mut open).await, THROUGH, "{http:?}");
        peak.check();
    }
}

#[tokio::test]
async fn a_client_is_held_back_by_an_agent_that_does_not_read() {
    for http in BOTH {
        let mut slow = Agent::manual().await;
        let echo = echoes().await;
        let more = format!("max_body = \"128MiB\"\n{}", agent("warm", &[echo.addr], ""));
        let gateway = warm(&[slow.addr], &more).await;
        gateway.ask_by(http, post("/agents/warm/", vec![b'x'; 1 << 20])).await.ok();
        let body = Bytes::from(vec![b'x'; usize::try_from(THROUGH).unwrap()]);
        let peak = Peak::of(&gateway);
        let mut open = gateway.open(http, post("/agents/big/", body)).await;
        let mut call = slow.call().await;
        let stuck = tokio::time::timeout(Duration::from_millis(500), open.sent()).await;
        assert!(stuck.is_err(), "{http:?}: all was taken although nobody reads");
        assert_eq!(call.body().await.len() as u64, THROUGH);
        call.json("{}").await;
        open.rest().await.ok();
        peak.check();
    }
}

#[tokio::test]
async fn the_first_event_comes_while_the_stream_is_open() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut open = gateway.open(http, post("/agents/qa/invoke", "{}")).await;
        let mut call = qa.call().await;
        call.begin_sse().await;
        let head = open.head().await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(head.header("content-length"), None);
        for n in 0..20 {
            call.event(&n.to_string()).await;
            assert_eq!(open.until("\n\n").await, format!("data: {n}\n\n"), "{http:?}");
        }
        call.end().await;
        assert_eq!(open.rest().await.ok().text(), "");
    }
}

#[tokio::test]
async fn a_request_reaches_the_agent_piece_by_piece() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("zero")).await;
        let mut call = qa.call().await;
        assert_eq!(call.piece().await.unwrap(), "zero");
        for piece in ["one", "two", "three"] {
            open.send(piece).await;
            assert_eq!(call.piece().await.unwrap(), piece, "{http:?}");
        }
        open.finish().await;
        assert_eq!(call.piece().await, Err(End::Complete));
        call.json("{}").await;
        open.rest().await.ok();
    }
}

#[tokio::test]
async fn both_directions_flow_at_once() {
    let echo = echoes().await;
    let gateway = Gateway::start(&agent("echo", &[echo.addr], "")).await;
    for http in BOTH {
        let mut open = gateway.open(http, ask("POST", "/agents/echo/").open_body("0;")).await;
        assert_eq!(open.until(";").await, "0;");
        for n in 1..20 {
            open.send(format!("{n};")).await;
            assert_eq!(open.until(";").await, format!("{n};"), "{http:?}");
        }
        open.finish().await;
        assert_eq!(open.rest().await.ok().text(), "");
    }
}

#[tokio::test]
async fn a_head_comes_before_there_is_a_body() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
        assert_eq!(open.head().await.status, 200);
        call.send("ok").await;
        call.done().await;
        assert_eq!(open.rest().await.ok().text(), "ok");
    }
}

#[tokio::test]
async fn a_reply_may_come_before_the_request_has_ended() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let mut open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("some")).await;
        let mut call = qa.call().await;
        call.send("HTTP/1.1 403 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
        let reply = open.rest().await;
        assert_eq!((reply.status, reply.text().as_str(), reply.end), (403, "no", End::Complete));
    }
}

#[tokio::test]
async fn a_reply_without_any_framing_ends_with_its_connection() {
    for http in BOTH {
        let qa = Agent::with(|mut call| async move {
            call.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
        })
        .await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let reply = gateway.ask_by(http, get("/agents/qa/x")).await.ok();
        assert_eq!(reply.text(), "until the end");
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_stream_that_ends_with_the_connection() {
    let echo = echoes().await;
    let gateway = Gateway::start(&agent("echo", &[echo.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    conn.send("POST /agents/echo/ HTTP/1.0\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody").await;
    let reply = conn.reply().await.ok();
    assert!(!reply.headers.has("transfer-encoding"), "{:?}", reply.headers);
    assert_eq!(reply.text(), "body");
}

#[tokio::test]
async fn an_http_1_0_agent_is_understood() {
    let qa = Agent::with(|mut call| async move {
        call.send("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nold").await;
    })
    .await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for http in BOTH {
        assert_eq!(gateway.ask_by(http, get("/agents/qa/x")).await.ok().text(), "old");
    }
}

#[tokio::test]
async fn connections_to_agents_are_used_again() {
    let qa = answers("{}").await;
    let table = format!("[gateway]\nworkers = 1\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    for _ in 0..10 {
        gateway.ask(post("/agents/qa/x", "{}")).await.ok();
        gateway.ask_by(Http::Two, get("/agents/qa/x")).await.ok();
    }
    assert_eq!((qa.accepts(), qa.count()), (1, 20));
}

#[tokio::test]
async fn an_unused_connection_to_an_agent_is_closed_in_time() {
    let qa = answers("{}").await;
    let settings = "keepalive = { idle = \"100ms\", age = \"5m\", max = 4 }";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    gateway.ask(get("/agents/qa/x")).await.ok();
    qa.until_open(0).await;
    gateway.ask(get("/agents/qa/x")).await.ok();
    assert_eq!(qa.accepts(), 2);
}

#[tokio::test]
async fn an_agent_may_speak_http_2() {
    let mut qa = H2Agent::manual().await;
    let table = agent("qa", &[qa.addr], "protocol = \"h2c\"");
    let gateway = Gateway::start(&format!("[gateway]\nworkers = 1\n{table}")).await;
    for http in BOTH {
        let mut open = gateway.open(http, ask("POST", "/agents/qa/x?y").open_body("zero")).await;
        let mut call = qa.call().await;
        assert_eq!((call.target(), call.header("x-agent-type")), ("/x?y", Some("qa")));
        assert_eq!(call.request.uri().authority().unwrap().as_str(), qa.addr.to_string());
        assert_eq!(call.piece().await.unwrap().unwrap(), "zero");
        let mut reply = call.begin(200, &[("content-type", "text/event-stream")]);
        reply.send("data: one\n\n");
        assert_eq!(open.until("\n\n").await, "data: one\n\n");
        open.finish().await;
        assert!(call.piece().await.is_none());
        reply.end("data: two\n\n");
        assert_eq!(open.rest().await.ok().text(), "data: two\n\n", "{http:?}");
    }
    assert_eq!(qa.accepts(), 1, "one connection carries both");
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered() {
    const MANY: usize = 200;
    let qa = Agent::with(|mut call| async move {
        let body = call.body().await;
        call.reply("200 OK", body).await;
    })
    .await;
    // Connections are made all at once, on a machine that may have other things to do.
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "connect_timeout = \"20s\"")).await;
    let mut tasks = tokio::task::JoinSet::new();
    let mut shared = gateway.client().connect_h2().await;
    for n in 0..MANY {
        let body = n.to_string();
        let open = shared.open(post("/agents/qa/x", body.clone())).await;
        let client = gateway.client();
        tasks.spawn(async move {
            assert_eq!(
                client.ask(Http::One, post("/agents/qa/x", body.clone())).await.ok().text(),
                body
            );
            assert_eq!(open.whole().await.ok().text(), body);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(qa.count(), 2 * MANY);
}

#[tokio::test]
async fn a_connection_whose_request_did_not_end_is_not_used_again() {
    for http in BOTH {
        let mut qa = Agent::manual().await;
        let table = format!("[gateway]\nworkers = 1\n{}", agent("qa", &[qa.addr], ""));
        let gateway = Gateway::start(&table).await;
        let mut open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("some")).await;
        let mut call = qa.call().await;
        call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(open.rest().await.ok().text(), "ok");
        drop(open);
        let next = gateway.open(http, get("/agents/qa/next")).await;
        let second = qa.call().await;
        assert_eq!((second.connection, second.target()), (1, "/next"));
        second.json("{}").await;
        next.whole().await.ok();
    }
}
