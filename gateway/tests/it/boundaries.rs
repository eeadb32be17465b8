//! Where a request ends and the next one begins, whatever a client sends and however it cuts it.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::agent::{Agent, answers, echoes};
use crate::client::Client;
use crate::gateway::{Gateway, agent};
use crate::wire::{End, soon};

/// A request that must never get through: it stands in another one's body.
const HIDDEN: &str = "GET /agents/qa/hidden HTTP/1.1\r\nhost: x\r\n\r\n";

/// Sends a head that is refused, with a request hidden behind it.
async fn refused(gateway: &Gateway, head: &str, code: &str) {
    let mut conn = gateway.client().connect().await;
    conn.send(format!("{head}{HIDDEN}")).await;
    let reply = conn.reply().await;
    assert_eq!(reply.code(), Some(code), "{head:?}: {} {}", reply.status, reply.text());
    assert!(reply.headers.lists("connection", "close"), "{head:?}");
    assert_ne!(conn.gone().await, End::Cut, "{head:?}");
}

#[tokio::test]
async fn a_head_that_is_refused_gets_a_problem_and_a_close() {
    let qa = answers("{}").await;
    let table = format!("[gateway]\nmax_header_bytes = \"8KiB\"\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let big = "x".repeat(9000);
    let many = "x-a: b\r\n".repeat(257);
    for (head, code) in [
        ("nonsense\r\n\r\n".to_owned(), "bad-request"),
        ("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n".to_owned(), "bad-request"),
        (format!("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\nx: {big}\r\n\r\n"), "head-too-large"),
        (format!("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "head-too-large"),
        (format!("GET /agents/qa/{big} HTTP/1.1\r\nhost: x\r\n\r\n"), "target-too-long"),
        ("GET /agents/qa/x HTTP/3.0\r\nhost: x\r\n\r\n".to_owned(), "version-not-supported"),
        (
            "POST /agents/qa/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(),
            "not-implemented",
        ),
    ] {
        refused(&gateway, &head, code).await;
    }
    assert_eq!(qa.count(), 0);
    let labels = [("agent", ""), ("outcome", "head-too-large")];
    gateway.until_metric("switchyard_requests_total", &labels, 2.0).await;
    gateway.logged(&["version-not-supported"]).await;
}

#[tokio::test]
async fn what_could_be_two_requests_is_refused() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 0\r\ncontent-length: 44",
        "content-length: 44\r\nContent-Length: 0",
        "content-length: 0, 44",
        "content-length:",
        "content-length: 4 4",
        "content-length: \u{b}4",
        "content-length : 44",
        "content-length\t: 44",
        "transfer-encoding : chunked",
        "x: y\n transfer-encoding: chunked",
        "x: y\rtransfer-encoding: chunked",
        "x: y\0\r\ncontent-length: 4",
        "x\0y: z",
        " content-length: 44",
        "x: y\r\n\tz",
    ] {
        let head = format!("POST /agents/qa/x HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n");
        refused(&gateway, &head, "bad-request").await;
    }
    for fields in ["transfer-encoding: chunked", "transfer-encoding: identity"] {
        let head = format!("POST /agents/qa/x HTTP/1.0\r\nhost: x\r\n{fields}\r\n\r\n");
        refused(&gateway, &head, "bad-request").await;
    }
    for coding in ["chunked, chunked", "identity", "chunked;x", "\"chunked\"", "xchunked"] {
        let field = format!("transfer-encoding: {coding}");
        let head = format!("POST /agents/qa/x HTTP/1.1\r\nhost: x\r\n{field}\r\n\r\n");
        refused(&gateway, &head, "not-implemented").await;
    }
    assert_eq!(qa.count(), 0);
}

#[tokio::test]
async fn nothing_behind_chunks_that_are_no_chunks_is_a_request() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for body in [
        "2\r\nab0\r\n\r\n",
        "2\nab\r\n0\r\n\r\n",
        "-2\r\nab\r\n0\r\n\r\n",
        "0x2\r\nab\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nab\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "2 2\r\nab\r\n0\r\n\r\n",
        "2\r\nab\r\n0\r\nbad trailer\r\n\r\n",
    ] {
        let head = "POST /agents/qa/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        refused(&gateway, &format!("{head}{body}"), "bad-request").await;
    }
    assert!(qa.seen().iter().all(|head| head.word(1) == "/x"));
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_their_order() {
    let echo = echoes().await;
    let gateway = Gateway::start(&agent("echo", &[echo.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    let mut all = String::new();
    for n in 0..20 {
        let head = format!("POST /agents/echo/{n} HTTP/1.1\r\nhost: x\r\n");
        let body = format!("body {n}");
        all += &match n % 2 {
            0 => format!("{head}content-length: {}\r\n\r\n{body}", body.len()),
            _ => format!(
                "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
        };
    }
    conn.send(all).await;
    for n in 0..20 {
        assert_eq!(conn.reply().await.ok().text(), format!("body {n}"));
    }
}

#[tokio::test]
async fn a_request_may_be_cut_anywhere() {
    let echo = echoes().await;
    let gateway = Gateway::start(&agent("echo", &[echo.addr], "")).await;
    let head = "POST /agents/echo/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = format!("{head}3;x=y\r\none\r\n4\r\n two\r\n0\r\nx-sum: 1\r\n\r\n");
    let mut conn = gateway.client().connect().await;
    for cut in 1..request.len() {
        let (begin, rest) = request.split_at(cut);
        conn.send(begin).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        conn.send(rest).await;
        assert_eq!(conn.reply().await.ok().text(), "one two", "cut at {cut}");
    }
    for byte in request.bytes() {
        conn.send([byte]).await;
    }
    assert_eq!(conn.reply().await.ok().text(), "one two");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    let stream: &tokio::net::TcpStream = conn.link.writer.stream();
    socket2::SockRef::from(stream).set_recv_buffer_size(64 * 1024).unwrap();
    conn.send("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let call = qa.call().await;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let sent = body.clone();
    let sending = tokio::spawn(async move { call.reply("200 OK", sent).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let reply = conn.reply().await.ok();
    assert!(reply.body == body, "{} bytes came", reply.body.len());
    sending.await.unwrap();
}

#[tokio::test]
async fn a_small_rest_of_a_body_that_nobody_wants_costs_no_connection() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    let head = "POST /agents/nobody/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2000\r\n\r\n";
    for _ in 0..2 {
        conn.send(head).await;
        let reply = conn.reply().await;
        reply.error("unknown-agent");
        assert!(!reply.headers.lists("connection", "close"));
        conn.send("x".repeat(2000)).await;
    }
    conn.send("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\n\r\n").await;
    conn.reply().await.ok();
}

#[tokio::test]
async fn a_client_that_was_given_no_go_is_told_that_the_connection_closes() {
    let gateway = Gateway::start(&agent("qa", &[answers("{}").await.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    let head = "POST /agents/nobody/x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue";
    conn.send(format!("{head}\r\ncontent-length: {}\r\n\r\n", HIDDEN.len())).await;
    let reply = conn.reply().await;
    reply.error("unknown-agent");
    // Whether what comes now is the body or the next request, nobody can know.
    assert!(reply.headers.lists("connection", "close"));
    conn.send(HIDDEN).await;
    conn.gone().await;
}

/// One request, or several, that something was done to.
fn mangled(random: &mut fastrand::Rng) -> Vec<u8> {
    let whole = [
        "GET /agents/qa/a HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /agents/qa/b HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
        "POST /agents/qa/c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
         5;a=b\r\nhello\r\n0\r\nx-t: 1\r\n\r\n",
        "POST /invoke HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n{\"agent\":\"qa\"}",
        "POST /agents/qa/d HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx",
        "POST /agents/qa/e HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\ny",
        "GET /agents/qa/f HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..4) {
        bytes.extend_from_slice(random.choice(whole).unwrap().as_bytes());
    }
    for _ in 0..random.usize(0..6) {
        let at = random.usize(0..bytes.len());
        match random.u8(0..6) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] = *random.choice(b"\r\n :;,0\t\0").unwrap(),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.u8(..)),
            4 => bytes.insert(at, *random.choice(b"\r\n :;,0\t").unwrap()),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// Sends bytes in pieces of any size, and waits for the connection's end.
async fn poke(addr: std::net::SocketAddr, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut conn = Client::unchecked(addr).connect().await;
    let bytes = mangled(&mut random);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(random.usize(1..=rest.len()));
        if conn.link.writer.send(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
        rest = more;
    }
    let text = String::from_utf8_lossy(&bytes);
    soon(&format!("seed {seed}: the end after {text:?}"), conn.link.reader.gone()).await;
}

#[tokio::test]
async fn no_bytes_make_it_hang_or_panic() {
    let qa = answers("{}").await;
    let clocks =
        "header_timeout = \"200ms\"\nbody_timeout = \"200ms\"\nkeepalive_timeout = \"200ms\"";
    let table =
        format!("[gateway]\n{clocks}\n{}", agent("qa", &[qa.addr], "idle_timeout = \"1s\""));
    let mut gateway = Gateway::start(&table).await;
    for round in 0..10 {
        let mut pokes = JoinSet::new();
        for n in 0..50 {
            pokes.spawn(poke(gateway.addr, round * 50 + n));
        }
        while let Some(done) = pokes.join_next().await {
            done.unwrap();
        }
    }
    assert!(gateway.runs());
    assert!(!gateway.log().iter().any(|line| line.contains("panicked")), "{:#?}", gateway.log());
    gateway.until_state("qa", "in_flight", 0).await;
    gateway.ask(crate::ask::get("/agents/qa/x")).await.ok();
}
