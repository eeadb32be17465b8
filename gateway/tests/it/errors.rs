//! The table of errors, row by row. That status, token, problem and `Retry-After` go with the code
//! is asserted by the client; here is what leads to which code.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::{Agent, Full, Refusing, answers};
use crate::ask::{Ask, ask, get, post};
use crate::client::Client;
use crate::gateway::{Gateway, agent};
use crate::reply::{BOTH, Http, Reply, retry_after};
use crate::wire::{End, soon};

/// Asserts that a request to the only agent gives this error, over both protocols, and that log and
/// metrics have it under the same name.
async fn check(gateway: &Gateway, asked: Ask, code: &str) -> Reply {
    let mut last = None;
    for http in BOTH {
        let reply = gateway.ask_by(http, asked.clone()).await;
        let problem = reply.error(code);
        assert_eq!(problem["agent"], "qa", "{http:?}: {problem}");
        gateway.logged(&[reply.request_id(), code]).await;
        last = Some(reply);
    }
    let labels = [("agent", "qa"), ("outcome", code)];
    gateway.until_metric("switchyard_requests_total", &labels, 2.0).await;
    last.expect("asked twice")
}

#[tokio::test]
async fn a_refused_connection_is_connect_failed() {
    let refusing = Refusing::new();
    let gateway = Gateway::start(&agent("qa", &[refusing.addr], "")).await;
    check(&gateway, get("/agents/qa/x"), "connect-failed").await;
}

#[tokio::test]
async fn a_connection_that_takes_too_long_is_connect_timeout() {
    let full = Full::new().await;
    let settings = "connect_timeout = \"100ms\"\nretry = \"off\"";
    let gateway = Gateway::start(&agent("qa", &[full.addr], settings)).await;
    check(&gateway, post("/agents/qa/x", "{}"), "connect-timeout").await;
}

#[tokio::test]
async fn a_name_that_no_one_has_is_dns_failed() {
    let table = "[agents.qa]\nendpoints = [\"http://nobody.invalid:8000\"]";
    let gateway = Gateway::start(table).await;
    check(&gateway, get("/agents/qa/x"), "dns-failed").await;
}

#[tokio::test]
async fn a_connection_that_dies_before_the_head_is_upstream_reset() {
    for reset in [true, false] {
        let agent_ = Agent::with(move |call| async move {
            if reset {
                call.reset();
            }
        })
        .await;
        let gateway = Gateway::start(&agent("qa", &[agent_.addr], "")).await;
        check(&gateway, post("/agents/qa/x", "{}"), "upstream-reset").await;
        assert_eq!(agent_.count(), 2, "it was not tried again");
    }
}

#[tokio::test]
async fn a_reply_that_breaks_off_in_its_head_is_upstream_reset() {
    let agent_ = Agent::with(|mut call| async move {
        call.send("HTTP/1.1 200 OK\r\ncontent-ty").await;
    })
    .await;
    let gateway = Gateway::start(&agent("qa", &[agent_.addr], "")).await;
    check(&gateway, post("/agents/qa/x", "{}"), "upstream-reset").await;
}

#[tokio::test]
async fn a_reply_that_is_no_http_is_bad_response() {
    for bytes in [
        "hello there\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ] {
        let agent_ = Agent::with(move |mut call| async move {
            call.send(bytes).await;
            let _ = call.gone().await;
        })
        .await;
        let settings = "eject = \"off\"\nfirst_byte_timeout = \"2s\"";
        let gateway = Gateway::start(&agent("qa", &[agent_.addr], settings)).await;
        check(&gateway, get("/agents/qa/x"), "bad-response").await;
    }
}

#[tokio::test]
async fn an_agent_without_endpoints_is_no_endpoint() {
    let table = "[agents.qa]\nservice = \"qa-agent\"\n";
    let gateway = Gateway::start(table).await;
    check(&gateway, get("/agents/qa/x"), "no-endpoint").await;
    let health = gateway.ask(get("/health")).await;
    assert_eq!((health.status, &health.json()["checks"]["qa"]), (503, &"down".into()));
    assert_eq!(health.json()["status"], "degraded");
    let listed = gateway.ask(get("/agents")).await.ok();
    assert_eq!(listed.json()["agents"][0]["ready"], false);
}

#[tokio::test]
async fn a_request_beyond_queue_and_limit_is_queue_full() {
    let mut slow = Agent::manual().await;
    let settings = "max_in_flight = 1\nqueue = { max = 1, timeout = \"20s\" }";
    let gateway = Gateway::start(&agent("qa", &[slow.addr], settings)).await;
    let first = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    let call = slow.call().await;
    let second = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    gateway.until_state("qa", "queued", 1).await;
    let reply = check(&gateway, post("/agents/qa/x", "{}"), "queue-full").await;
    assert!(retry_after(&reply).expect("it says when") >= Duration::from_secs(1));
    call.json("{}").await;
    first.whole().await.ok();
    slow.call().await.json("{}").await;
    second.whole().await.ok();
}

#[tokio::test]
async fn a_request_that_waits_too_long_is_queue_timeout() {
    let mut slow = Agent::manual().await;
    let settings = "max_in_flight = 1\nqueue = { max = 4, timeout = \"100ms\" }";
    let gateway = Gateway::start(&agent("qa", &[slow.addr], settings)).await;
    let first = gateway.open(Http::One, post("/agents/qa/x", "{}")).await;
    let call = slow.call().await;
    check(&gateway, post("/agents/qa/x", "{}"), "queue-timeout").await;
    call.json("{}").await;
    first.whole().await.ok();
    assert_eq!(slow.count(), 1);
}

#[tokio::test]
async fn a_head_that_does_not_come_is_first_byte_timeout() {
    let mut silent = Agent::manual().await;
    let settings = "first_byte_timeout = \"100ms\"";
    let gateway = Gateway::start(&agent("qa", &[silent.addr], settings)).await;
    check(&gateway, post("/agents/qa/x", "{}"), "first-byte-timeout").await;
    silent.call().await.gone().await;
    silent.call().await.gone().await;
    assert!(silent.try_call().is_none(), "it was not tried again");
}

#[tokio::test]
async fn a_request_that_takes_too_long_in_all_is_total_timeout() {
    let mut agent_ = Agent::manual().await;
    let settings = "timeout = \"300ms\"\nfirst_byte_timeout = \"250ms\"";
    let gateway = Gateway::start(&agent("qa", &[agent_.addr], settings)).await;
    for http in BOTH {
        // The body never ends, so that the clock of the first byte never starts.
        let mut open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("some")).await;
        let mut call = agent_.call().await;
        let reply = open.rest().await;
        reply.error("total-timeout");
        call.gone().await;
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_body_timeout() {
    let mut agent_ = Agent::manual().await;
    let table = format!("[gateway]\nbody_timeout = \"100ms\"\n{}", agent("qa", &[agent_.addr], ""));
    let gateway = Gateway::start(&table).await;
    for http in BOTH {
        let mut open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("some")).await;
        let mut call = agent_.call().await;
        open.rest().await.error("body-timeout");
        call.gone().await;
        // While the body is read to find its agent.
        let mut open = gateway.open(http, ask("POST", "/invoke").open_body("{\"agent\":")).await;
        open.rest().await.error("body-timeout");
    }
    assert_eq!(agent_.count(), 2);
}

#[tokio::test]
async fn a_body_may_take_long_while_it_moves() {
    let echo = crate::agent::echoes().await;
    let table = format!("[gateway]\nbody_timeout = \"1s\"\n{}", agent("qa", &[echo.addr], ""));
    let gateway = Gateway::start(&table).await;
    for http in BOTH {
        let mut open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("0")).await;
        for piece in ["1", "2", "3", "4", "5"] {
            tokio::time::sleep(Duration::from_millis(250)).await;
            assert!(open.send(piece).await);
        }
        open.finish().await;
        assert_eq!(open.rest().await.ok().text(), "012345");
    }
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_reaches_nobody() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "max_body = \"1KiB\"")).await;
    check(&gateway, post("/agents/qa/x", "x".repeat(1025)), "body-too-large").await;
    assert_eq!(qa.count(), 0);
    gateway.ask(post("/agents/qa/x", "x".repeat(1024))).await.ok();
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_cut_off() {
    let mut qa = Agent::manual().await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "max_body = \"1KiB\"")).await;
    for http in BOTH {
        let mut open = gateway.open(http, ask("POST", "/agents/qa/x").open_body("x")).await;
        let mut call = qa.call().await;
        open.send("x".repeat(1024)).await;
        open.rest().await.error("body-too-large");
        let (body, end) = call.link.reader.rest(&mut call.framing).await;
        assert_ne!(end, End::Complete, "the agent must not take it for whole");
        assert!(body.len() <= 1024, "{} bytes passed", body.len());
    }
}

#[tokio::test]
async fn a_tunnel_is_not_implemented() {
    let gateway = Gateway::start(&agent("qa", &[answers("{}").await.addr], "")).await;
    let mut conn = Client::of(gateway.addr).connect().await;
    conn.send("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n").await;
    conn.reply().await.error("not-implemented");
}

#[tokio::test]
async fn a_transfer_coding_that_nobody_knows_reaches_nobody() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for coding in ["gzip, chunked", "chunked, gzip", "identity", "chunked, chunked", "xchunked"] {
        let mut conn = Client::of(gateway.addr).connect().await;
        let head = "POST /agents/qa/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: ";
        conn.send(format!("{head}{coding}\r\n\r\n0\r\n\r\n")).await;
        let reply = conn.reply().await;
        assert!([400, 501].contains(&reply.status), "{coding}: {}", reply.status);
    }
    assert_eq!(qa.count(), 0);
}

#[tokio::test]
async fn a_request_without_one_host_is_refused() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a/b\r\n", "host: a b\r\n"] {
        let mut conn = Client::of(gateway.addr).connect().await;
        conn.send(format!("GET /agents/qa/x HTTP/1.1\r\n{hosts}\r\n")).await;
        let reply = conn.reply().await;
        assert_eq!(reply.status, 400, "{hosts:?}");
        assert!(reply.is_bare() || reply.code() == Some("bad-request"), "{hosts:?}");
    }
    assert_eq!(qa.count(), 0);
}

#[tokio::test]
async fn a_head_that_does_not_parse_gets_a_status_and_a_close() {
    let qa = answers("{}").await;
    let table = format!("[gateway]\nmax_header_bytes = \"8KiB\"\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let big = "x".repeat(10_000);
    for (request, statuses) in [
        ("nonsense\r\n\r\n".to_owned(), vec![400]),
        ("GET /agents/qa/x HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), vec![400]),
        (
            "GET /agents/qa/x HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(),
            vec![400],
        ),
        (format!("GET /agents/qa/x HTTP/1.1\r\nhost: x\r\nx-big: {big}\r\n\r\n"), vec![431]),
        (format!("GET /agents/qa/{big} HTTP/1.1\r\nhost: x\r\n\r\n"), vec![414, 431]),
    ] {
        let mut conn = Client::of(gateway.addr).connect().await;
        conn.send(&request).await;
        let reply = conn.reply().await;
        assert!(
            statuses.contains(&reply.status),
            "{}: {}",
            &request[..20.min(request.len())],
            reply.status
        );
        conn.gone().await;
    }
    assert_eq!(qa.count(), 0);
    let reply = gateway.ask(get("/agents/qa/x").header("x-big", &"x".repeat(7000))).await;
    reply.ok();
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let qa = answers("{}").await;
    let table = format!("[gateway]\nheader_timeout = \"100ms\"\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let mut conn = Client::of(gateway.addr).connect().await;
    conn.send("GET /agents/qa/x HTTP/1.1\r\nhost:").await;
    conn.reply().await.error("header-timeout");
    conn.gone().await;
    assert_eq!(qa.count(), 0);
    // So far it could still become HTTP/2.
    let mut conn = Client::of(gateway.addr).connect().await;
    conn.send("PRI * HTTP/2.0\r\n").await;
    conn.reply().await.error("header-timeout");
    conn.gone().await;
    let labels = [("agent", ""), ("outcome", "header-timeout")];
    gateway.until_metric("switchyard_requests_total", &labels, 2.0).await;
    gateway.logged(&["header-timeout", "\"status\":408"]).await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_came_is_closed_without_a_word() {
    let clocks = "header_timeout = \"100ms\"\nkeepalive_timeout = \"150ms\"";
    let qa = answers("{}").await;
    let gateway =
        Gateway::start(&format!("[gateway]\n{clocks}\n{}", agent("qa", &[qa.addr], ""))).await;
    let mut conn = Client::of(gateway.addr).connect().await;
    let said = soon("its end", conn.link.reader.raw()).await;
    assert!(matches!(said, Err(End::Complete | End::Cut)), "{said:?}");
    let mut conn = Client::of(gateway.addr).connect().await;
    conn.ask(get("/agents/qa/x")).await.ok();
    let said = soon("its end", conn.link.reader.raw()).await;
    assert!(matches!(said, Err(End::Complete | End::Cut)), "{said:?}");
    let labels = [("agent", ""), ("outcome", "header-timeout")];
    assert_eq!(gateway.metric("switchyard_requests_total", &labels).await, Some(0.0));
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let qa = answers("{}").await;
    let settings = "keepalive_timeout = \"150ms\"";
    let gateway =
        Gateway::start(&format!("[gateway]\n{settings}\n{}", agent("qa", &[qa.addr], ""))).await;
    let mut conn = Client::of(gateway.addr).connect().await;
    conn.ask(get("/agents/qa/x")).await.ok();
    conn.ask(get("/agents/qa/x")).await.ok();
    conn.gone().await;
    let mut conn = Client::of(gateway.addr).connect_h2().await;
    conn.ask(get("/agents/qa/x")).await.ok();
    conn.gone().await;
}

#[tokio::test]
async fn an_error_has_no_body_for_head() {
    let gateway = Gateway::start(&agent("qa", &[answers("{}").await.addr], "")).await;
    for http in BOTH {
        let reply = gateway.ask_by(http, ask("HEAD", "/agents/nobody/x")).await;
        assert_eq!((reply.status, reply.code()), (404, Some("unknown-agent")));
        assert!(reply.body.is_empty());
    }
}

#[tokio::test]
async fn an_error_is_a_problem_whatever_the_client_accepts() {
    let gateway = Gateway::start(&agent("qa", &[answers("{}").await.addr], "")).await;
    for accept in ["text/event-stream", "text/html", "image/*;q=0"] {
        let reply = gateway.ask(get("/agents/nobody/x").header("accept", accept)).await;
        reply.error("unknown-agent");
    }
}

#[tokio::test]
async fn an_agents_own_error_passes_as_it_is() {
    let qa = Agent::with(|call| call.reply("503 Busy\r\nretry-after: 7\r\nx-own: 1", "own")).await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for http in BOTH {
        let reply = gateway.ask_by(http, get("/agents/qa/x")).await;
        assert_eq!((reply.status, reply.code()), (503, None));
        assert_eq!((reply.text().as_str(), reply.header("retry-after")), ("own", Some("7")));
        assert_eq!(reply.header("x-own"), Some("1"));
    }
    let labels = [("agent", "qa"), ("outcome", "upstream_error")];
    gateway.until_metric("switchyard_requests_total", &labels, 2.0).await;
}

#[tokio::test]
async fn a_head_that_others_could_read_otherwise_reaches_nobody() {
    let qa = answers("{}").await;
    let gateway = Gateway::start(&agent("qa", &[qa.addr], "")).await;
    for fields in [
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 1, 2\r\n",
        "content-length: +1\r\n",
        "content-length: 0x1\r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length : 1\r\n",
        " x-folded: 1\r\n",
        "x-folded: 1\r\n 2\r\n",
        "x-nul: a\0b\r\n",
        "x-return: a\rb: c\r\n",
        ": nameless\r\n",
        "x y: z\r\n",
    ] {
        let mut conn = Client::of(gateway.addr).connect().await;
        conn.send(format!("POST /agents/qa/x HTTP/1.1\r\nhost: x\r\n{fields}\r\nab")).await;
        assert_eq!(conn.reply().await.status, 400, "{fields:?}");
    }
    assert_eq!(qa.count(), 0);
}

#[tokio::test]
async fn a_second_head_that_does_not_come_ends_the_connection_too() {
    let qa = answers("{}").await;
    let table = format!("[gateway]\nheader_timeout = \"100ms\"\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let mut conn = gateway.client().connect().await;
    conn.ask(get("/agents/qa/x")).await.ok();
    conn.send("GET /agents/qa/x HTTP/1.1\r\nhost:").await;
    conn.reply().await.error("header-timeout");
    conn.gone().await;
}

#[tokio::test]
async fn the_rest_of_a_body_is_not_taken_for_a_head() {
    let mut qa = Agent::manual().await;
    let table = format!("[gateway]\nheader_timeout = \"200ms\"\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let mut conn = gateway.client().connect().await;
    conn.send("POST /agents/qa/x HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\nhalf").await;
    let mut call = qa.call().await;
    // It answers before it has read everything, and reads the rest.
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    conn.reply().await.ok();
    conn.send("half").await;
    assert_eq!(call.body().await, b"halfhalf");
    call.done().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    conn.send("GET /agents/qa/y HTTP/1.1\r\nhost: x\r\n\r\n").await;
    qa.call().await.json("{}").await;
    conn.reply().await.ok();
}

#[tokio::test]
async fn descriptors_that_run_out_are_no_fault_of_the_agents() {
    let (one, two) = (answers("{}").await, answers("{}").await);
    let gateway = Gateway::start(&agent("qa", &[one.addr, two.addr], "")).await;
    let mut conn = gateway.client().connect().await;
    conn.ask(get("/agents")).await.ok();
    let mut admin = Client::unchecked(gateway.admin).connect().await;
    admin.ask(get("/livez")).await.ok();
    gateway.limit_descriptors(3);
    conn.ask(get("/agents/qa/x")).await.error("overloaded");
    let state = admin.ask(get("/api/agents/qa")).await.json();
    assert_eq!(state["ready"], 2, "{state}");
    // Whoever connects now waits until there are some again.
    let waiting = gateway.client().connect().await.open(get("/agents/qa/x")).await;
    gateway.limit_descriptors(1000);
    conn.ask(get("/agents/qa/x")).await.ok();
    waiting.whole().await.ok();
}

#[tokio::test]
async fn an_idle_http_2_connection_is_told_before_it_is_closed() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: u8 = 7;
    let qa = answers("{}").await;
    let settings = "keepalive_timeout = \"150ms\"";
    let table = format!("[gateway]\n{settings}\n{}", agent("qa", &[qa.addr], ""));
    let gateway = Gateway::start(&table).await;
    let mut stream = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&SETTINGS).await.unwrap();
    let mut kinds = Vec::new();
    let mut head = [0; 9];
    while soon("frames, or the end", stream.read_exact(&mut head)).await.is_ok() {
        kinds.push(head[3]);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; usize::try_from(length).unwrap()]).await.unwrap();
    }
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}

#[tokio::test]
async fn over_http_2_an_early_error_does_not_reset_a_body_that_is_on_its_way() {
    let gateway = Gateway::start(&agent("qa", &[answers("{}").await.addr], "")).await;
    let stream = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let uri = format!("http://{}/agents/nobody/x", gateway.addr);
    let request = http::Request::post(uri).body(()).unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    let mut response = soon("an answer", response).await.unwrap().into_body();
    while let Some(piece) = soon("its end", response.data()).await {
        piece.unwrap();
    }
    // Whatever was sent with the answer has come by the time of this one's.
    let again = http::Request::get(format!("http://{}/agents", gateway.addr)).body(()).unwrap();
    soon("an answer", sender.send_request(again, true).unwrap().0).await.unwrap();
    body.send_data("{}".into(), true).unwrap();
    driver.abort();
}
