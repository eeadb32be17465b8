//! What is tried again, counted at the agents, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::agent::{Agent, Call, Refusing, answers};
use crate::agent_h2::H2Agent;
use crate::ask::{Ask, ask, get, post};
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http};

/// Retries without a budget.
const UNBOUNDED: &str = "retry = { max = 2, budget = 1.0, buffer = \"64KiB\" }";

/// A gateway with one worker, so that one pool of connections serves all.
async fn gateway(endpoints: &[std::net::SocketAddr], settings: &str) -> Gateway {
    let table = agent("qa", endpoints, settings);
    Gateway::start(&format!("[gateway]\nworkers = 1\n{table}")).await
}

/// An agent that answers its first `good` requests, and does `then` with the others.
async fn good_then<F>(good: usize, then: impl Fn(Call) -> F + Send + Sync + 'static) -> Agent
where
    F: Future<Output = ()> + Send + 'static,
{
    let (served, then) = (Arc::new(AtomicUsize::new(0)), Arc::new(then));
    Agent::with(move |call| {
        let (nth, then) = (served.fetch_add(1, Ordering::SeqCst), Arc::clone(&then));
        async move { if nth < good { call.json("{}").await } else { then(call).await } }
    })
    .await
}

#[tokio::test]
async fn a_refused_connection_is_tried_on_another_replica() {
    for _ in 0..5 {
        let (refusing, good) = (Refusing::new(), answers("{}").await);
        let gateway = gateway(&[refusing.addr, good.addr], "").await;
        for http in BOTH {
            for _ in 0..3 {
                gateway.ask_by(http, post("/agents/qa/x", "body")).await.ok();
            }
        }
        assert_eq!(good.count(), 6);
    }
}

#[tokio::test]
async fn what_was_not_begun_is_tried_on_another_replica() {
    for http in BOTH {
        let (busy, good) = (Agent::with(Call::not_begun).await, answers("{}").await);
        let gateway = gateway(&[busy.addr, good.addr], UNBOUNDED).await;
        for _ in 0..10 {
            gateway.ask_by(http, post("/agents/qa/x", "body")).await.ok();
        }
        assert_eq!(good.count(), 10);
        let retries = gateway.metric("switchyard_retries_total", &[("agent", "qa")]).await;
        assert_eq!(retries.unwrap_or(0.0), busy.count() as f64);
    }
}

#[tokio::test]
async fn the_body_is_sent_again_as_it_was() {
    let busy = Agent::with(Call::not_begun).await;
    let echo = Agent::with(crate::agent::echo).await;
    let gateway = gateway(&[busy.addr, echo.addr], UNBOUNDED).await;
    for http in BOTH {
        for n in 0..8 {
            let body = format!("{{\"n\":{n}}}");
            let asked = post("/agents/qa/x", body.clone());
            assert_eq!(gateway.ask_by(http, asked).await.ok().text(), body);
            let asked = ask("POST", "/agents/qa/x").chunks(["a", "b", "c"]);
            assert_eq!(gateway.ask_by(http, asked).await.ok().text(), "abc");
        }
    }
    assert!(busy.count() > 0, "it never came to a second attempt");
}

#[tokio::test]
async fn attempts_are_bounded() {
    let busy = Agent::with(Call::not_begun).await;
    let gateway = gateway(&[busy.addr], UNBOUNDED).await;
    let reply = gateway.ask(post("/agents/qa/x", "{}")).await;
    assert_eq!(reply.status, 503);
    assert_eq!(busy.count(), 3);
}

#[tokio::test]
async fn without_retries_nothing_is_tried_again() {
    let busy = Agent::with(Call::not_begun).await;
    let gateway = gateway(&[busy.addr], "retry = \"off\"").await;
    assert_eq!(gateway.ask(post("/agents/qa/x", "{}")).await.status, 503);
    assert_eq!(busy.count(), 1);
}

/// Asserts that a fresh request, answered by `answer`, is asked for exactly once.
async fn check_once<F>(what: &str, asked: Ask, answer: impl Fn(Call) -> F + Send + Sync + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let agent_ = Agent::with(answer).await;
    let gateway = gateway(&[agent_.addr], "first_byte_timeout = \"150ms\"\neject = \"off\"").await;
    for http in BOTH {
        let reply = gateway.ask_by(http, asked.clone()).await;
        assert!(reply.status >= 500, "{what}: {}", reply.status);
    }
    assert_eq!(agent_.count(), 2, "{what} was tried again");
}

#[tokio::test]
async fn nothing_else_is_tried_again() {
    let get = || get("/agents/qa/x").header("idempotency-key", "k");
    check_once("a plain 503", get(), |call| call.reply("503 Busy", "busy")).await;
    check_once("a 500", get(), |call| call.reply("500 Oops", "oops")).await;
    check_once("a 502", get(), |call| call.reply("502 Oops", "oops")).await;
    check_once("a 500 that says so", get(), |call| {
        call.reply("500 Oops\r\nx-switchyard-not-begun: 1", "")
    })
    .await;
    check_once("a reset of a fresh connection", get(), |call| async { call.reset() }).await;
    check_once("a close of a fresh connection", get(), |call| async { drop(call) }).await;
    check_once("silence", get(), |mut call| async move {
        call.gone().await;
    })
    .await;
    check_once("nonsense", get(), |mut call| async move {
        call.send("nonsense\r\n\r\n").await;
        call.gone().await;
    })
    .await;
}

/// Asks once so that a connection is there, then `asked`, for which that connection is reset.
/// How often the agent got `asked`, and the status.
async fn on_a_reused_connection(asked: Ask) -> (usize, u16) {
    let agent_ = Agent::with(|mut call| async move {
        if call.target() == "/first" {
            call.json("{}").await;
        } else if call.nth > 0 {
            let _ = call.link.reader.rest(&mut call.framing).await;
            call.reset();
        } else {
            crate::agent::echo(call).await;
        }
    })
    .await;
    let gateway =
        gateway(&[agent_.addr], "retry = { max = 2, budget = 0.2, buffer = \"1KiB\" }").await;
    gateway.ask(get("/agents/qa/first")).await.ok();
    let reply = gateway.ask(asked).await;
    (agent_.count() - 1, reply.status)
}

#[tokio::test]
async fn an_idempotent_request_survives_a_reused_connection_that_dies() {
    assert_eq!(on_a_reused_connection(get("/agents/qa/x")).await, (2, 200));
    let put = ask("PUT", "/agents/qa/x").body("small");
    assert_eq!(on_a_reused_connection(put).await, (2, 200));
    let keyed = post("/agents/qa/x", "small").header("idempotency-key", "\"k\"");
    assert_eq!(on_a_reused_connection(keyed).await, (2, 200));
}

#[tokio::test]
async fn a_post_without_a_key_is_not_sent_twice() {
    assert_eq!(on_a_reused_connection(post("/agents/qa/x", "small")).await, (1, 502));
}

#[tokio::test]
async fn a_body_beyond_the_buffer_is_not_sent_twice() {
    let keyed = post("/agents/qa/x", "x".repeat(2000)).header("idempotency-key", "k");
    assert_eq!(on_a_reused_connection(keyed).await, (1, 502));
}

#[tokio::test]
async fn a_connection_that_the_agent_closed_while_idle_costs_no_request() {
    let agent_ = answers("{}").await;
    let gateway = gateway(&[agent_.addr], "").await;
    for n in 0..10 {
        gateway.ask(post("/agents/qa/x", "{}")).await.ok();
        agent_.close_idle().await;
        assert_eq!(agent_.count(), n + 1);
    }
}

#[tokio::test]
async fn an_agent_that_closes_after_each_reply_costs_no_request() {
    let agent_ = Agent::with(|mut call| async move {
        let _ = call.link.reader.rest(&mut call.framing).await;
        // Without saying so beforehand.
        call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    })
    .await;
    let gateway = gateway(&[agent_.addr], "").await;
    let mut conn = gateway.client().connect().await;
    for _ in 0..50 {
        // A GET, for a POST on a connection that dies just then is rightly a 502.
        conn.ask(get("/agents/qa/x")).await.ok();
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_again() {
    for http in BOTH {
        let mut agent_ = H2Agent::manual().await;
        let gateway = gateway(&[agent_.addr], "protocol = \"h2c\"").await;
        let open = gateway.open(http, post("/agents/qa/x", "body")).await;
        agent_.call().await.refuse();
        let mut call = agent_.call().await;
        assert_eq!(call.whole().await, b"body");
        call.json("{}");
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn what_a_goaway_names_as_not_begun_is_tried_again() {
    let mut agent_ = H2Agent::leaving_first().await;
    let gateway = gateway(&[agent_.addr], "protocol = \"h2c\"").await;
    let open = gateway.open(Http::One, post("/agents/qa/x", "body")).await;
    let mut call = agent_.call().await;
    assert_eq!(call.connection, 1);
    assert_eq!(call.whole().await, b"body");
    call.json("{}");
    open.whole().await.ok();
}

#[tokio::test]
async fn a_stream_that_was_begun_is_not_tried_again() {
    let mut agent_ = H2Agent::manual().await;
    let gateway = gateway(&[agent_.addr], "protocol = \"h2c\"").await;
    let open = gateway.open(Http::One, get("/agents/qa/x")).await;
    agent_.call().await.reset(h2::Reason::INTERNAL_ERROR);
    open.whole().await.error("upstream-reset");
}

#[tokio::test]
async fn retries_have_a_budget() {
    let busy = Agent::with(Call::not_begun).await;
    let gateway =
        gateway(&[busy.addr], "retry = { max = 1, budget = 0.2, buffer = \"64KiB\" }").await;
    let mut conn = gateway.client().connect().await;
    for _ in 0..40 {
        assert_eq!(conn.ask(post("/agents/qa/x", "{}")).await.status, 503);
    }
    // A fifth of 40, or at least 3 of the last ten seconds'; on a slow machine a window more.
    let retries = busy.count() - 40;
    assert!((3..=11).contains(&retries), "{retries} retries of 40 requests");
}

#[tokio::test]
async fn a_reply_has_nothing_of_the_attempt_before() {
    let agent_ = good_then(0, |call| async move {
        if call.nth == 0 && call.connection == 0 {
            call.reply("503 No\r\nx-switchyard-not-begun: 1\r\nx-old: 1\r\nretry-after: 9", "no")
                .await;
        } else {
            call.json("{}").await;
        }
    })
    .await;
    let gateway = gateway(&[agent_.addr], "").await;
    let reply = gateway.ask(post("/agents/qa/x", "{}")).await.ok();
    assert!(!reply.headers.has("x-old") && !reply.headers.has("retry-after"));
    assert_eq!(agent_.count(), 2);
}

#[tokio::test]
async fn who_has_not_begun_gets_no_more_of_the_body() {
    let (mut one, mut two) = (H2Agent::manual().await, H2Agent::manual().await);
    let gateway = gateway(&[one.addr, two.addr], "protocol = \"h2c\"").await;
    for http in BOTH {
        // More than half a window, so that reading it is told to the gateway.
        let first = "x".repeat(40_000);
        let asked = ask("POST", "/agents/qa/x").open_body(first.clone());
        let mut open = gateway.open(http, asked).await;
        let (mut call, other) = tokio::select! {
            call = one.call() => (call, &mut two),
            call = two.call() => (call, &mut one),
        };
        let headers = [("x-switchyard-not-begun", "1"), ("content-length", "0")];
        // It answers before it reads, and reads on nevertheless.
        call.begin(503, &headers).end("");
        let mut again = other.call().await;
        let mut got = 0;
        while got < first.len() {
            got += again.piece().await.unwrap().unwrap().len();
        }
        while let Some(Ok(_)) = call.piece().await {}
        for n in 0..20 {
            let piece = format!("piece {n} ");
            open.send(piece.clone()).await;
            assert_eq!(again.piece().await.unwrap().unwrap(), piece, "{http:?}");
        }
        open.finish().await;
        assert_eq!(again.whole().await, b"");
        again.json("{}");
        open.whole().await.ok();
    }
}

#[tokio::test]
async fn a_stream_that_a_goaway_leaves_open_is_not_tried_again_when_its_connection_dies() {
    let agent_ = H2Agent::dying_first().await;
    let gateway = gateway(&[agent_.addr], "protocol = \"h2c\"").await;
    let open = gateway.open(Http::One, post("/agents/qa/x", "body")).await;
    open.whole().await.error("upstream-reset");
    assert_eq!(agent_.accepts(), 1);
}

#[tokio::test]
async fn a_reply_that_has_begun_is_not_asked_for_again() {
    let agent_ = good_then(1, |mut call| async move { call.send("HTTP/1.1 20").await }).await;
    let gateway = gateway(&[agent_.addr], UNBOUNDED).await;
    let mut conn = gateway.client().connect().await;
    conn.ask(get("/agents/qa/x")).await.ok();
    conn.ask(get("/agents/qa/x")).await.error("upstream-reset");
    assert_eq!(agent_.count(), 2);
}
