//! Upgrades pass, WebSocket above all; `Expect` is answered; announced trailers pass.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use crate::agent::{Agent, answers, echoes};
use crate::agent_h2::H2Agent;
use crate::ask::{ask, get};
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http};
use crate::wire::{End, soon};

/// A WebSocket agent that echoes.
async fn websocket() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() || socket.send(message).await.is_err() {
                    break;
                }
            }
        }
    });
    (addr, task)
}

#[tokio::test]
async fn a_websocket_echoes_through_the_gateway() {
    let (addr, _task) = websocket().await;
    let gateway = Gateway::start(&agent("qa", &[addr], "")).await;
    let url = format!("ws://{}/agents/qa/ws?x", gateway.addr);
    let (mut socket, response) =
        soon("the upgrade", tokio_tungstenite::connect_async(url)).await.unwrap();
    assert_eq!(response.status(), 101);
    assert!(response.headers().contains_key("x-request-id"));
    for text in ["one", "two", &"x".repeat(1 << 20)] {
        socket.send(Message::text(text)).await.unwrap();
        let echoed = soon("the echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(echoed, Message::text(text));
    }
    gateway.until_state("qa", "in_flight", 1).await;
    socket.close(None).await.unwrap();
    gateway.until_state("qa", "in_flight", 0).await;
}

const UPGRADE: &str =
    "GET /agents/qa/x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo/1\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo/1\r\n\r\n";

#[tokio::test]
async fn any_protocol_may_take_over() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    conn.send(UPGRADE).await;
    let mut call = qa.call().await;
    assert_eq!(call.header("upgrade"), Some("echo/1"));
    assert!(call.head.headers.lists("connection", "upgrade"));
    // What comes right behind the head belongs to the new protocol.
    call.send(format!("{SWITCHING}hello")).await;
    let head = conn.reply().await;
    assert_eq!((head.status, head.header("upgrade")), (101, Some("echo/1")));
    assert_eq!(conn.link.reader.raw().await.unwrap(), "hello");
    conn.send("to the agent").await;
    assert_eq!(call.reader().raw().await.unwrap(), "to the agent");
    call.send("bye").await;
    drop(call);
    assert_eq!(conn.link.reader.raw().await.unwrap(), "bye");
    conn.gone().await;
    gateway.until_state("qa", "in_flight", 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_an_upgraded_connection_leaves_the_agent() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "max_in_flight = 1")).await;
    let mut conn = gateway.client().connect().await;
    conn.send(UPGRADE).await;
    let mut call = qa.call().await;
    call.send(SWITCHING).await;
    conn.reply().await;
    // Its place is kept as long as the connection.
    let next = gateway.open(Http::One, get("/agents/qa/next")).await;
    gateway.until_state("qa", "queued", 1).await;
    drop(conn);
    call.gone().await;
    drop(call);
    qa.call().await.json("{}").await;
    next.whole().await.ok();
}

#[tokio::test]
async fn on_an_upgraded_connection_only_the_idle_clock_runs() {
    let mut qa = Agent::manual().await;
    let settings = "timeout = \"1s\"\nidle_timeout = \"1s\"";
    let gateway = Gateway::start(&agent("qa", &[qa.addr], settings)).await;
    let mut conn = gateway.client().connect().await;
    conn.send(UPGRADE).await;
    let mut call = qa.call().await;
    call.send(SWITCHING).await;
    conn.reply().await;
    // Either direction keeps it alive, for longer than the total clock.
    for n in 0..8 {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        if n % 2 == 0 {
            conn.send("x").await;
            call.reader().raw().await.unwrap();
        } else {
            call.send("y").await;
            conn.link.reader.raw().await.unwrap();
        }
    }
    conn.gone().await;
    call.gone().await;
}

#[tokio::test]
async fn an_upgrade_that_the_agent_declines_is_a_request_like_any_other() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    for _ in 0..2 {
        conn.send(UPGRADE).await;
        qa.call().await.reply("426 No", "no").await;
        let reply = conn.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (426, "no"));
    }
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_never_passed_on() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for upgrade in ["h2c", "H2C", "h2c, websocket", "websocket, h2c"] {
        let mut conn = gateway.client().connect().await;
        let fields = "connection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk";
        let head =
            format!("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\nupgrade: {upgrade}\r\n{fields}");
        conn.send(format!("{head}\r\n\r\n")).await;
        let call = qa.call().await;
        let passed = call.header("upgrade").unwrap_or_default().to_ascii_lowercase();
        assert!(!passed.contains("h2c"), "{upgrade}: {passed}");
        assert!(!call.head.headers.has("http2-settings"));
        call.json("{}").await;
        conn.reply().await.ok();
    }
}

#[tokio::test]
async fn a_client_that_waits_for_a_go_gets_one() {
    let echo = echoes().await;
    let gateway = Gateway::start(&agent("echo", &[echo.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    for path in ["/agents/echo/x", "/invoke"] {
        let body = r#"{"agent":"echo"}"#;
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue");
        conn.send(format!("{head}\r\ncontent-length: {length}\r\n\r\n")).await;
        let go = soon("100 Continue", conn.link.reader.head()).await.unwrap();
        assert_eq!(go.word(1), "100", "{path}");
        conn.send(body).await;
        assert_eq!(conn.reply().await.ok().text(), body);
    }
}

#[tokio::test]
async fn a_client_that_waits_is_told_no_without_a_go() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "max_body = \"1KiB\"")).await;
    for (path, code) in [("/agents/qa/x", "body-too-large"), ("/agents/nobody/x", "unknown-agent")]
    {
        let mut conn = gateway.client().connect().await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue");
        conn.send(format!("{head}\r\ncontent-length: 2000\r\n\r\n")).await;
        let first = soon("an answer", conn.link.reader.head()).await.unwrap();
        assert_ne!(first.word(1), "100", "{path}");
        assert_eq!(first.headers.get("x-switchyard-error"), Some(code));
    }
    assert_eq!(qa.count(), 0);
}

#[tokio::test]
async fn a_go_of_the_agents_own_does_no_harm() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for http in BOTH {
        let open = gateway.open(http, get("/agents/qa/x")).await;
        let mut call = qa.call().await;
        call.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        call.send("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n").await;
        call.json("{}").await;
        assert_eq!(open.whole().await.ok().text(), "{}");
    }
}

#[tokio::test]
async fn trailers_that_a_reply_announced_pass() {
    for http in BOTH {
        let qa = Agent::with(|mut call| async move {
            call.begin("200 OK\r\ntrailer: x-sum").await;
            call.chunk("body").await;
            call.send("0\r\nx-sum: 42\r\n\r\n").await;
            call.done().await;
        })
        .await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
        let asked = get("/agents/qa/x");
        // An HTTP/1.1 client says that it takes them; HTTP/2 always can.
        let asked = if http == Http::One { asked.header("te", "trailers") } else { asked };
        let reply = gateway.ask_by(http, asked).await.ok();
        assert_eq!(reply.text(), "body");
        assert_eq!(reply.trailers.get("x-sum"), Some("42"), "{http:?}");
    }
}

#[tokio::test]
async fn trailers_of_an_agent_that_speaks_http_2_pass() {
    for http in BOTH {
        let mut qa = H2Agent::manual().await;
        let gateway = Gateway::start(&agent("qa", &[qa.addr], "protocol = \"h2c\"")).await;
        let asked = get("/agents/qa/x");
        let asked = if http == Http::One { asked.header("te", "trailers") } else { asked };
        let open = gateway.open(http, asked).await;
        let mut reply = qa.call().await.begin(200, &[("trailer", "x-sum")]);
        reply.send("body");
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "42".parse().unwrap());
        reply.trailers(trailers);
        let reply = open.whole().await.ok();
        assert_eq!(reply.trailers.get("x-sum"), Some("42"), "{http:?}");
    }
}

#[tokio::test]
async fn trailers_that_a_request_announced_pass() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    let head = "POST /agents/qa/x HTTP/1.1\r\nhost: x\r\ntrailer: x-sum, x-agent-type\r\ntransfer-encoding: chunked";
    let trailers = "x-sum: 42\r\nx-agent-type: other";
    conn.send(format!("{head}\r\n\r\n4\r\nbody\r\n0\r\n{trailers}\r\n\r\n")).await;
    let mut call = qa.call().await;
    assert_eq!(call.body().await, b"body");
    assert_eq!(call.trailers().get("x-sum"), Some("42"));
    assert_eq!(call.trailers().get("x-agent-type"), None, "what the gateway says is no trailer");
    call.json("{}").await;
    conn.reply().await.ok();
}

#[tokio::test]
async fn an_upgrade_is_not_offered_over_http_2() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let open = gateway.open(Http::Two, ask("GET", "/agents/qa/x")).await;
    let mut call = qa.call().await;
    assert!(call.header("upgrade").is_none());
    // An agent that switches without having been asked speaks no HTTP.
    call.send(SWITCHING).await;
    open.whole().await.error("bad-response");
    assert_ne!(call.gone().await, End::Cut);
}
