//! How an agent's replies are framed: what comes in any pieces passes whole, and what two readers
//! could take for two replies passes not at all.

use crate::agent::Agent;
use crate::ask::{ask, get, post};
use crate::gateway::{Gateway, agent};
use crate::reply::Http;
use crate::wire::soon;

/// One worker, so that there is one line of idle connections.
async fn one_worker(qa: &Agent) -> Gateway {
    let settings = "eject = \"off\"\nretry = \"off\"";
    let table = format!("[gateway]\nworkers = 1\n{}", agent("qa", &[qa.addr], settings));
    Gateway::start(&table).await
}

#[tokio::test]
async fn a_reply_that_two_readers_could_take_for_two_is_bad_response() {
    let mut qa = Agent::manual().await;
    let gateway = one_worker(&qa).await;
    for fields in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 0",
        "content-length: 2, 2",
        "content-length: +2",
        "content-length: 2\r\n content-length: 3",
        "content-length : 2",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, chunked",
        "a: b\rcontent-length: 2",
        "a: b\0",
    ] {
        let open = gateway.open(Http::One, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok")).await;
        open.whole().await.error("bad-response");
        call.gone().await;
    }
}

#[tokio::test]
async fn a_reply_that_comes_byte_by_byte_is_the_same() {
    let bodies = [
        ("content-length: 5", "hello"),
        ("transfer-encoding: chunked", "2;x=y\r\nhe\r\n03\r\nllo\r\n0\r\nx: y\r\n\r\n"),
        ("connection: close", "hello"),
    ];
    let mut qa = Agent::manual().await;
    let gateway = one_worker(&qa).await;
    for (fields, body) in bodies {
        let open = gateway.open(Http::One, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        let early = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
        for byte in format!("{early}HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}").bytes() {
            call.send([byte]).await;
            tokio::task::yield_now().await;
        }
        if fields == "connection: close" {
            drop(call);
        } else {
            call.done().await;
        }
        assert_eq!(open.whole().await.ok().text(), "hello", "{fields}");
    }
}

#[tokio::test]
async fn a_broken_chunk_never_looks_like_an_end() {
    let mut qa = Agent::manual().await;
    let gateway = one_worker(&qa).await;
    for chunks in ["2\r\nokx", "2\nok\r\n0\r\n\r\n", "x\r\n", "-2\r\nok\r\n", "2\r\nok\r\n\r\n"] {
        let open = gateway.open(Http::One, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")).await;
        let reply = open.whole().await;
        assert!(reply.end != crate::wire::End::Complete, "{chunks:?}: {reply:?}");
        call.gone().await;
    }
}

#[tokio::test]
async fn what_nobody_asked_for_answers_nobody() {
    let mut qa = Agent::manual().await;
    let gateway = one_worker(&qa).await;
    let good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    // Right behind the answer, or a moment later.
    for at_once in [true, false] {
        let open = gateway.open(Http::One, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        if at_once {
            call.send(format!("{good}{forged}")).await;
        } else {
            call.send(good).await;
        }
        assert_eq!(open.whole().await.ok().text(), "ok");
        if !at_once {
            call.send(forged).await;
        }
        // Once it has been seen, the connection is of no use.
        soon("the close", call.gone()).await;
    }
    let next = gateway.open(Http::One, get("/agents/qa/next")).await;
    qa.call().await.json("\"next\"").await;
    assert_eq!(next.whole().await.ok().text(), "\"next\"");
}

#[tokio::test]
async fn a_request_goes_on_while_its_reply_waits_for_a_reader() {
    let mut qa = Agent::manual().await;
    let gateway = one_worker(&qa).await;
    let mut conn = gateway.client().connect().await;
    let head = "POST /agents/qa/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    conn.send(head).await;
    let mut call = qa.call().await;
    // More than the sockets between us hold, and nobody reads it yet.
    call.begin("200 OK").await;
    let (mut reader, mut writer) = (call.link.reader, call.link.writer);
    let writing = tokio::spawn(async move {
        for _ in 0..256 {
            writer.chunk(vec![b'a'; 64 * 1024]).await.unwrap();
        }
        writer.last_chunk().await.unwrap();
    });
    for n in 0..32 {
        conn.send(format!("4\r\n{n:04}\r\n")).await;
        let piece = soon("the piece", reader.piece(&mut call.framing)).await.unwrap();
        assert_eq!(piece, format!("{n:04}"));
    }
    conn.send("0\r\n\r\n").await;
    assert_eq!(conn.reply().await.ok().body.len(), 256 * 64 * 1024);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_reply_to_a_request_that_breaks_off_never_looks_whole() {
    let mut qa = Agent::manual().await;
    let settings = "max_body = \"1KiB\"";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    let open_body = ask("POST", "/agents/qa/x").open_body("some");
    let mut open = gateway.open(Http::Two, open_body).await;
    let mut call = qa.call().await;
    // Only its close would end it.
    call.send("HTTP/1.1 200 OK\r\n\r\nbegun").await;
    open.until("begun").await;
    open.send("x".repeat(2000)).await;
    assert!(open.rest().await.end != crate::wire::End::Complete);
    call.gone().await;
}

#[tokio::test]
async fn a_small_request_reaches_its_agent_in_one_piece() {
    let mut qa = Agent::manual().await;
    let gateway = one_worker(&qa).await;
    let open = gateway.open(Http::One, post("/agents/qa/x", "whole")).await;
    let mut call = qa.call().await;
    assert_eq!(call.header("content-length"), Some("5"));
    assert_eq!(call.body().await, b"whole");
    call.json("{}").await;
    open.whole().await.ok();
}
