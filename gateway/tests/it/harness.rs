//! The harness itself: what an agent does on the wire is what a client sees.

use tokio::net::TcpStream;

use crate::agent::{Agent, Full, Refusing, answers, echoes};
use crate::agent_h2::H2Agent;
use crate::ask::{ask, get, post};
use crate::client::Client;
use crate::reply::{Http, events};
use crate::wire::{End, find};

#[tokio::test]
async fn an_echo_comes_back_however_it_was_framed() {
    let agent = echoes().await;
    let client = Client::unchecked(agent.addr);
    assert_eq!(client.ask(Http::One, post("/", "whole")).await.ok().text(), "whole");
    let mut conn = client.connect().await;
    let chunks = ask("POST", "/").chunks(["in ", "three ", "chunks"]);
    assert_eq!(conn.ask(chunks).await.ok().text(), "in three chunks");
    assert_eq!(conn.ask(post("/", "again")).await.ok().text(), "again");
    assert_eq!((agent.accepts(), agent.count()), (2, 3));
}

#[tokio::test]
async fn a_stream_comes_step_by_step() {
    let mut agent = Agent::manual().await;
    let client = Client::unchecked(agent.addr);
    let mut open = client.open(Http::One, get("/stream")).await;
    let mut call = agent.call().await;
    assert_eq!((call.method(), call.target()), ("GET", "/stream"));
    call.begin_sse().await;
    call.event("one").await;
    assert_eq!(open.until("\n\n").await, "data: one\n\n");
    call.event("two").await;
    call.end().await;
    let rest = open.rest().await.ok().text();
    assert_eq!(events(&rest), [("message".to_owned(), "two".to_owned())]);
}

#[tokio::test]
async fn every_kind_of_end_is_told_apart() {
    for (how, expected) in [("cut", End::Cut), ("reset", End::Reset), ("whole", End::Complete)] {
        let mut agent = Agent::manual().await;
        let mut open = Client::unchecked(agent.addr).open(Http::One, get("/")).await;
        let mut call = agent.call().await;
        call.begin("200 OK").await;
        call.chunk("some").await;
        assert_eq!(open.until("some").await, "some");
        match how {
            "cut" => drop(call),
            "reset" => call.reset(),
            _ => call.end().await,
        }
        assert_eq!(open.rest().await.end, expected, "{how}");
    }
}

#[tokio::test]
async fn an_agent_sees_its_client_leave() {
    let mut agent = Agent::manual().await;
    let client = Client::unchecked(agent.addr);
    let open = client.open(Http::One, post("/", "x".repeat(1 << 20))).await;
    let mut call = agent.call().await;
    assert!(open.leave().await.is_none());
    assert_ne!(call.gone().await, End::Cut);
    agent.until_open(1).await;
    drop(call);
    agent.until_open(0).await;
}

#[tokio::test]
async fn an_agent_closes_its_idle_connections() {
    let agent = answers("{}").await;
    let mut conn = Client::unchecked(agent.addr).connect().await;
    conn.ask(get("/")).await.ok();
    agent.close_idle().await;
    assert_eq!(conn.gone().await, End::Complete);
}

#[tokio::test]
async fn a_refusing_port_refuses_until_it_listens() {
    let refusing = Refusing::new();
    let addr = refusing.addr;
    let error = TcpStream::connect(addr).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let agent = Agent::with_on(refusing.listen(), |call| call.json("{}"));
    Client::unchecked(agent.addr).ask(Http::One, get("/")).await.ok();
}

#[tokio::test]
async fn a_full_port_neither_takes_nor_refuses() {
    let full = Full::new().await;
    let wait = std::time::Duration::from_millis(100);
    assert!(tokio::time::timeout(wait, TcpStream::connect(full.addr)).await.is_err());
}

#[tokio::test]
async fn a_request_stands_on_the_wire_as_it_was_sent() {
    let mut agent = Agent::manual().await;
    let mut conn = Client::unchecked(agent.addr).connect().await;
    conn.send("GET /a%2Fb?x=../y HTTP/1.1\r\nHost: h\r\nX-Odd:  two  words \r\n\r\n").await;
    let call = agent.call().await;
    assert_eq!(call.target(), "/a%2Fb?x=../y");
    assert!(find(&call.head.raw, b"X-Odd:  two  words \r\n").is_some());
    call.json("{}").await;
    conn.reply().await.ok();
}

#[tokio::test]
async fn a_stream_of_http_2_is_answered_refused_and_reset() {
    let mut agent = H2Agent::manual().await;
    let mut conn = Client::unchecked(agent.addr).connect_h2().await;
    let mut open = conn.open(ask("POST", "/x?y").open_body("first ")).await;
    let mut call = agent.call().await;
    assert_eq!(call.target(), "/x?y");
    open.send("second").await;
    open.finish().await;
    assert_eq!(call.whole().await, b"first second");
    call.json("{}");
    open.whole().await.ok();

    let open = conn.open(get("/")).await;
    let mut call = agent.call().await;
    assert!(open.leave().await.is_none());
    assert_eq!(call.gone().await, h2::Reason::CANCEL);

    let mut open = conn.open(get("/")).await;
    let mut reply = agent.call().await.begin(200, &[]);
    reply.send("some");
    assert_eq!(open.until("some").await, "some");
    reply.reset(h2::Reason::INTERNAL_ERROR);
    assert_eq!(open.rest().await.end, End::Stream(h2::Reason::INTERNAL_ERROR.into()));
}

#[tokio::test]
async fn a_goaway_says_that_nothing_was_begun() {
    let mut agent = H2Agent::leaving_first().await;
    let stream = TcpStream::connect(agent.addr).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::get("http://agent/").body(()).unwrap();
    let (response, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
    let error = response.await.unwrap_err();
    assert!(error.is_go_away() && error.is_remote(), "{error:?}");
    drop(driver);
    let client = Client::unchecked(agent.addr);
    let open = client.open(Http::Two, get("/")).await;
    agent.call().await.json("{}");
    open.whole().await.ok();
}

#[tokio::test]
async fn a_stream_whose_body_nobody_reads_can_be_left() {
    let mut agent = H2Agent::manual().await;
    let mut conn = Client::unchecked(agent.addr).connect_h2().await;
    let open = conn.open(post("/", "x".repeat(1 << 20))).await;
    let mut call = agent.call().await;
    assert!(open.leave().await.is_none());
    assert_eq!(call.gone().await, h2::Reason::CANCEL);
}
